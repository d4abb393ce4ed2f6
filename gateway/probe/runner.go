package probe

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
)

// Defaults and bounds of a Plan and its Runner.
const (
	DefaultEvery     = time.Hour
	DefaultPerMinute = 6
	DefaultSettle    = time.Minute
	// again is how long after its last probe an account that was not OK may have
	// another turn because the configuration changed, and how long a turn waits
	// that cannot be recorded.
	again = time.Minute
	// maxPause is where the back-off ends.
	maxPause = 24 * time.Hour
)

// Plan says who is probed, and how often. The zero Plan probes nobody.
type Plan struct {
	Prober Prober
	// Every is how often each account is probed; DefaultEvery when 0. As much as a
	// tenth of it is left to chance, so that it is somewhat more often.
	Every time.Duration
	// PerMinute is how many probes there are in a minute at most, of all accounts
	// together; DefaultPerMinute when 0. When that is not enough for Every, all
	// accounts wait alike.
	PerMinute int
	// Settle is within which time an account that is new has its first turn, which
	// is left to chance: a fleet that starts at once does not ask at once.
	// DefaultSettle when 0.
	Settle time.Duration
	// Ready, if set, says whether a probe could be recorded now, for gateways that
	// must record each use of a credential. While it cannot, turns wait.
	Ready func() bool
	// Accounts are told apart by the names of their principals.
	Accounts []Account
}

// Recorder is told of each probe. It must not block for long: the next probe
// waits for it.
type Recorder interface {
	// Begin returns the context for the probe and its trace id.
	Begin(ctx context.Context, account identity.Principal) (_ context.Context, traceID string)
	// Observe is called once for each Begin, with the context that it returned,
	// unless the Runner was closed in between.
	Observe(ctx context.Context, r *Result)
}

// Runner probes the accounts of its Plan, one at a time, each when it is due. An
// account that got no token is asked for half as often with each failure in a
// row, down to once a day: a wrong secret that is sent again and again locks
// clients out at many providers.
//
// All methods may be called from several goroutines.
type Runner struct {
	recorder Recorder
	cancel   context.CancelFunc
	done     chan struct{}
	wake     chan struct{} // holds one: the plan is another

	mu    sync.Mutex
	plan  Plan
	turns map[string]*turn
	last  time.Time // when the last probe began; zero before the first
}

// turn is what is known of one account between its probes.
type turn struct {
	account  Account
	due      time.Time
	last     time.Time // when its last probe ended; zero before the first
	outcome  Outcome
	failures int // in a row, without a token
}

// NewRunner starts a runner without a plan. Close it.
func NewRunner(recorder Recorder) (*Runner, error) {
	if recorder == nil {
		return nil, errors.New("probe: a recorder is required")
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Runner{
		recorder: recorder, cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1),
		turns: make(map[string]*turn),
	}
	go r.run(ctx)
	return r, nil
}

// SetPlan replaces the plan; a probe that is under way goes on. Accounts that
// stay keep their turns, unless the new plan brings them forward: because Every
// is less, or because the last probe was not OK, which the change may have
// cured. New ones, and those with other Settings, have theirs within Settle.
func (r *Runner) SetPlan(p Plan) {
	if p.Every <= 0 {
		p.Every = DefaultEvery
	}
	if p.PerMinute <= 0 {
		p.PerMinute = DefaultPerMinute
	}
	if p.Settle <= 0 {
		p.Settle = DefaultSettle
	}
	now := time.Now()
	r.mu.Lock()
	turns := make(map[string]*turn, len(p.Accounts))
	for _, a := range p.Accounts {
		t := &turn{account: a, due: now.Add(rand.N(min(p.Settle, p.Every)))}
		if before, ok := r.turns[a.Principal.Name]; ok && before.account.Settings == a.Settings {
			kept := *before
			kept.account = a
			if kept.last.IsZero() {
				t = &kept
			} else {
				t = kept.sooner(now, p.Every)
			}
		}
		turns[a.Principal.Name] = t
	}
	r.plan, r.turns = p, turns
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default: // it is going to look
	}
}

// sooner brings the turn forward for a plan that begins now.
func (t turn) sooner(now time.Time, every time.Duration) *turn {
	if t.failures == 0 {
		t.due = earlier(t.due, now.Add(every))
	}
	if t.outcome != OK {
		t.due = earlier(t.due, later(now, t.last.Add(again)))
	}
	return &t
}

// Close ends a probe that is under way, whose result nobody is told, and waits.
// It returns nil and may be called twice.
func (r *Runner) Close() error {
	r.cancel()
	<-r.done
	return nil
}

func (r *Runner) run(ctx context.Context) {
	defer close(r.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next, at := r.next()
		if next == nil {
			timer.Stop()
		} else {
			timer.Reset(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
			if next != nil && ctx.Err() == nil && !time.Now().Before(at) {
				r.probe(ctx, next)
			}
		}
	}
}

// next returns whose turn it is, and when; nil when nobody is to be probed.
func (r *Runner) next() (next *turn, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, t := range r.turns {
		if next == nil || t.due.Before(next.due) || t.due.Equal(next.due) && name < next.account.Principal.Name {
			next = t
		}
	}
	if next == nil {
		return nil, time.Time{}
	}
	at = next.due
	if !r.last.IsZero() {
		at = later(at, r.last.Add(time.Minute/time.Duration(r.plan.PerMinute)))
	}
	return next, at
}

// probe probes once, unless the plan has changed in the meantime.
func (r *Runner) probe(ctx context.Context, t *turn) {
	r.mu.Lock()
	account, prober := t.account, r.plan.Prober
	name := account.Principal.Name
	if r.turns[name] != t {
		r.mu.Unlock()
		return
	}
	if r.plan.Ready != nil && !r.plan.Ready() {
		t.due = time.Now().Add(again)
		r.mu.Unlock()
		return
	}
	r.last = time.Now()
	r.mu.Unlock()

	within, traceID := r.recorder.Begin(ctx, account.Principal)
	result := guarded(within, prober, account)
	if ctx.Err() != nil {
		return // closed: what was found is that it was
	}
	result.TraceID = traceID
	r.recorder.Observe(within, result)

	r.mu.Lock()
	defer r.mu.Unlock()
	// It may be another turn by now, of the same account.
	if t = r.turns[name]; t == nil || t.account.Settings != account.Settings {
		return
	}
	t.last, t.outcome = time.Now(), result.Outcome
	if t.failures++; result.Token != nil {
		t.failures = 0
	}
	t.due = t.last.Add(pause(r.plan.Every, t.failures))
}

// guarded makes a probe whose panic is its own: nothing of a probe may end the
// gateway. What a panic says may hold a credential.
func guarded(ctx context.Context, p Prober, a Account) (result *Result) {
	start := time.Now()
	defer func() {
		if recover() != nil {
			result = &Result{
				Account: a.Principal, Kind: a.Kind, Start: start, Took: time.Since(start),
				Outcome: Unavailable, Err: errors.New("the probe panicked: this is a defect of the gateway"),
				Shadow: shadow.Result{Verdict: shadow.Indeterminate, Evidence: shadow.EvidenceProbe, Reason: identity.PolicyError},
			}
		}
	}()
	return p.Probe(ctx, a)
}

// pause is how long after a probe the next one is: every, doubled for each
// failure in a row up to a day, less up to a tenth that is left to chance.
func pause(every time.Duration, failures int) time.Duration {
	p := every
	for range failures {
		if p *= 2; p >= maxPause {
			p = max(maxPause, every)
			break
		}
	}
	return p - rand.N(p/10+1)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
