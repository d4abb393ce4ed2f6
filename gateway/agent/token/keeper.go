package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Bounds of a Keeper.
const (
	// DefaultTimeout ends an attempt to obtain a token.
	DefaultTimeout = 15 * time.Second
	// maxLeeway is how long before its end a token is not handed out any more: it
	// has a way to go. Of a short token it is a tenth of its life.
	maxLeeway = 5 * time.Second
	// minGap lies between the starts of two attempts, whatever the lifetime and
	// however many callers ask.
	minGap = time.Second
	// maxPause is where the back-off, which doubles from minGap, ends.
	maxPause = 30 * time.Second
	// maxRetryAfter bounds how long a provider can have itself left alone, and
	// retrySpread, a part of it, by how much more that may be: a fleet that was
	// told the same does not come back as one.
	maxRetryAfter = 5 * time.Minute
	retrySpread   = 10
	// unknownLife is assumed where nobody says how long a token lives: two thirds
	// of it are five minutes, and a provider that is away for as long as the rest
	// ends it.
	unknownLife = 7*time.Minute + 30*time.Second
	// maxSkew bounds what the keeper believes about another clock.
	maxSkew = 24 * time.Hour
)

// ErrClosed is the error of a keeper that was closed.
var ErrClosed = errors.New("the keeper of the token is closed")

// KeeperOptions configure a Keeper.
type KeeperOptions struct {
	// Source is asked for tokens. Required.
	Source Source
	// Request is what the tokens are to be good for.
	Request Request
	// OnRefresh is told the outcome of each attempt: an error, or when the token
	// ends by the clock of this machine. A file that was read again and had not
	// changed is not worth a call. It is called from the keeper's own goroutine,
	// one call at a time, and must return soon; it must call neither Token nor
	// Close. May be nil.
	OnRefresh func(err error, expiry time.Time)
	// Timeout ends an attempt; DefaultTimeout when 0.
	Timeout time.Duration
}

// Keeper keeps one token fresh. It asks its source for a new one at two thirds
// of the lifetime, give or take a tenth, so that a provider may be away for the
// last third without anybody noticing; while it fails it tries again after 1 s,
// then twice as long, up to 30 s, jittered. If the provider said for how long it
// does not want to be asked (Retry-After), the keeper stays away for so long, up
// to 5 min, but for one attempt before the token ends; a caller that has no token
// still causes one. There is one attempt at a time, in
// the one goroutine of the keeper, however many callers wait for it, and at most
// one a second.
//
// A token is never handed out once it has expired: neither by what the provider
// said (expires_in) nor by its own claim exp, which is judged by the gateway's
// clock where SetSkew has told it. Neither a clock that is set back nor a
// machine that slept prolongs it. Without a good token there is an error and
// nothing else.
//
// All methods may be called from several goroutines.
type Keeper struct {
	source    Source
	request   Request
	onRefresh func(error, time.Time)
	timeout   time.Duration

	cancel context.CancelFunc
	closed chan struct{} // when the goroutine has ended
	wake   chan struct{} // holds one: something has changed

	mu       sync.Mutex
	held     held
	skew     time.Duration
	failures int           // in a row
	err      error         // of the last attempt; nil after a success
	started  time.Time     // the last attempt; zero before the first
	next     time.Time     // when to try again unasked
	trying   bool          // an attempt is under way
	waiting  bool          // somebody has no token
	attempt  chan struct{} // closed when the next or current attempt has ended
}

// NewKeeper starts a keeper, which asks for its first token at once. Close it.
func NewKeeper(o KeeperOptions) (*Keeper, error) {
	switch {
	case o.Source == nil:
		return nil, errors.New("keep a token fresh: there is no source to ask for one")
	case o.Timeout < 0:
		return nil, fmt.Errorf("keep a token fresh: an attempt cannot take %s", o.Timeout)
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &Keeper{
		source: o.Source, request: o.Request, onRefresh: o.OnRefresh,
		timeout: cmp.Or(o.Timeout, DefaultTimeout),
		cancel:  cancel, closed: make(chan struct{}), wake: make(chan struct{}, 1),
		next: time.Now(), attempt: make(chan struct{}),
	}
	go k.run(ctx)
	return k, nil
}

// Token returns a token that is good now. Without one it waits for the attempt
// that is under way, or for one that it causes, no longer than ctx allows, and
// returns the error of the source if that fails. An attempt that failed less
// than a second ago is not repeated: its error is returned at once. After Close
// the error is ErrClosed.
func (k *Keeper) Token(ctx context.Context) (Token, error) {
	for {
		k.mu.Lock()
		select {
		case <-k.closed:
			k.mu.Unlock()
			return Token{}, ErrClosed
		default:
		}
		now := time.Now()
		if k.held.good(now, k.skew) {
			t := k.held.token
			k.mu.Unlock()
			return t, nil
		}
		if k.err != nil && !k.trying && !k.waiting && now.Sub(k.started) < minGap {
			err := k.err
			k.mu.Unlock()
			return Token{}, err
		}
		k.waiting = true
		attempt := k.attempt
		k.mu.Unlock()
		k.rouse()

		select {
		case <-attempt:
		case <-k.closed:
			continue
		case <-ctx.Done():
			return Token{}, k.gaveUp(ctx)
		}
		k.mu.Lock()
		err := k.err
		k.mu.Unlock()
		if err != nil {
			return Token{}, err
		}
	}
}

// gaveUp says what was known when a caller would not wait any longer.
func (k *Keeper) gaveUp(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return fmt.Errorf("wait for a token: %w; the attempt before failed: %w", context.Cause(ctx), k.err)
	}
	return fmt.Errorf("wait for a token: %w; its source has not answered yet", context.Cause(ctx))
}

// SetSkew tells by how much the clock of the gateway is ahead of this
// machine's; negative if it is behind. The claim exp is judged by the gateway's
// clock from now on. More than a day is taken for a day.
func (k *Keeper) SetSkew(ahead time.Duration) {
	ahead = max(-maxSkew, min(ahead, maxSkew))
	k.mu.Lock()
	changed := k.skew != ahead
	k.skew = ahead
	if changed && k.err == nil && k.held.known() {
		k.next = k.refreshAt()
	}
	k.mu.Unlock()
	if changed {
		k.rouse()
	}
}

// Close ends an attempt that is under way and waits. Callers that wait get
// ErrClosed. It returns nil and may be called twice.
func (k *Keeper) Close() error {
	k.cancel()
	<-k.closed
	return nil
}

// rouse lets the goroutine look again.
func (k *Keeper) rouse() {
	select {
	case k.wake <- struct{}{}:
	default: // it is going to look
	}
}

// run makes the attempts, each when it is due.
func (k *Keeper) run(ctx context.Context) {
	defer close(k.closed)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(k.due()))
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-timer.C:
			if !time.Now().Before(k.due()) { // it was not put off in the meantime
				k.try(ctx)
			}
		}
	}
}

// due returns when the next attempt is.
func (k *Keeper) due() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := k.next
	if k.waiting {
		at = time.Time{}
	}
	if k.started.IsZero() {
		return at
	}
	if first := k.started.Add(minGap); at.Before(first) {
		return first
	}
	return at
}

// try asks the source once and lets those who wait know.
func (k *Keeper) try(ctx context.Context) {
	started := time.Now()
	k.mu.Lock()
	k.started, k.trying = started, true
	k.mu.Unlock()

	asking, cancel := context.WithTimeout(ctx, k.timeout)
	t, err := k.source.Token(asking, k.request)
	cancel()
	if ctx.Err() != nil {
		return // closed: what was obtained is for nobody
	}

	k.mu.Lock()
	var expiry time.Time
	news := true
	if err == nil {
		h := hold(t, started)
		if err = h.check(time.Now(), k.skew); err == nil {
			news = k.err != nil || rereads(k.source) == 0 || !h.token.Value.Equal(k.held.token.Value)
			k.held, k.failures = h, 0
			k.next = k.refreshAt()
			expiry = h.end(k.skew)
		}
	}
	if err != nil {
		k.failures++
		k.next = k.again(time.Now(), err)
	}
	k.err, k.trying, k.waiting = err, false, false
	ended := k.attempt
	k.attempt = make(chan struct{})
	k.mu.Unlock()
	close(ended)
	if news && k.onRefresh != nil {
		k.onRefresh(err, expiry)
	}
}

// again returns when to try again after err. The caller holds mu.
func (k *Keeper) again(now time.Time, err error) time.Time {
	wait := pause(k.failures)
	var refused *Refusal
	if !errors.As(err, &refused) || refused.RetryAfter <= 0 {
		return now.Add(wait)
	}
	asked := min(refused.RetryAfter, maxRetryAfter)
	at := now.Add(max(wait, asked+rand.N(asked/retrySpread+1)))
	if !k.held.good(now, k.skew) {
		return at
	}
	// One attempt fits in before there is no token, unless this was it.
	if last := k.held.lastAt(k.skew).Add(-k.timeout); now.Before(last) && last.Before(at) {
		return last
	}
	return at
}

// refreshAt returns when the token that is held is to be replaced. The caller
// holds mu.
func (k *Keeper) refreshAt() time.Time {
	at := k.held.refresh(k.skew)
	if every := rereads(k.source); every > 0 {
		at = earlier(at, k.held.started.Add(every))
	}
	return at
}

// rereads returns how often a source wants to be asked although its token is
// good, because it costs nothing and the token may be replaced at any time; 0
// for never.
func rereads(s Source) time.Duration {
	if r, ok := s.(interface{ Reread() time.Duration }); ok {
		return max(r.Reread(), 0)
	}
	return 0
}

// pause returns how long to wait after so many failures in a row: 1 s, 2 s, 4 s
// and so on to 30 s, of which the last quarter is up to chance, so that a fleet
// does not come back as one.
func pause(failures int) time.Duration {
	p := maxPause
	if failures < 6 {
		p = min(minGap<<(failures-1), maxPause)
	}
	return p - rand.N(p/4+1)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
