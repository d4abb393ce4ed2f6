package evidence

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

const (
	// maxName is the longest id of a run, pipeline or family that waits as it is, in
	// bytes.
	maxName = 200
	// ringSize is how many observations wait to be folded. The folding begins at
	// half of it. It is small enough to stay in a processor's cache, and holds what a
	// busy gateway observes in a tenth of a second.
	ringSize = 2048
	// DefaultEvery is the time between two batches.
	DefaultEvery = time.Second
	// DefaultTimeout bounds the first attempt to record a batch. Each further one
	// may last twice as long, up to maxTimeout: after an outage there may be more
	// than the store takes in that time.
	DefaultTimeout = 2 * time.Second
	maxTimeout     = time.Minute
	// maxLost is of how many teams losses are told apart between two foldings. Teams are
	// of the configuration, so it is more than there are.
	maxLost = 10_000
	// lostAnew is how long nothing must be lost for a key before it is told again.
	lostAnew = time.Hour
)

// Recorder takes observations and records them in batches. It is safe for
// concurrent use.
//
// While the store is away, what was learned is kept folded: its size depends on
// how many accounts, families and runs there are and not on how long it lasts,
// and is bounded. What finds no room is counted, by its team, and recorded as a loss
// when the store is back. What the store will never take is lost at once, so that it
// holds nothing else up; nor do teams that cannot be reached (PartialError) hold up
// the others: what waits is one part of each, and what comes of them is folded
// meanwhile.
type Recorder struct {
	o RecorderOptions

	mu   sync.Mutex
	ring []Observation
	used int
	lost map[identity.Team]int64 // of the ring, until the next folding
	kick chan struct{}

	late late
	told health

	total  atomic.Int64              // lost
	seen   atomic.Int64              // folded
	sent   atomic.Pointer[time.Time] // up to when batches are recorded
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// RecorderOptions are the options of NewRecorder.
type RecorderOptions struct {
	// Store is required.
	Store Recording
	// Replica names this process among all that ever were; a random name by
	// default.
	Replica string
	// Every is the time between two batches, Timeout bounds the first attempt to
	// record one; the defaults when 0.
	Every, Timeout time.Duration
	// MaxRuns bounds the runs that wait for the store, those of teams that wait while
	// others do not, and those that are remembered so that they are not sent again,
	// each; 50,000 by default, some 40 MB.
	MaxRuns int
	// Report, if set, is told when recording begins to fail, also of a part, and with
	// nil when all is well again, by one goroutine at a time. It must return soon.
	Report func(error)
	// Lost, if set, is told of what the store will never take: once for each key
	// of it until an hour has passed without, on the terms of Report.
	Lost func(error)
}

// Recording is what a Recorder needs of a Store.
type Recording interface {
	Record(ctx context.Context, b Batch) error
}

// NewRecorder starts a recorder. Close it.
func NewRecorder(o RecorderOptions) (*Recorder, error) {
	if o.Store == nil {
		return nil, errors.New("record evidence: no store")
	}
	if o.Every < 0 || o.Timeout < 0 || o.MaxRuns < 0 {
		return nil, errors.New("record evidence: times and bounds must not be negative")
	}
	if o.Report == nil {
		o.Report = func(error) {}
	}
	if o.Lost == nil {
		o.Lost = func(error) {}
	}
	o.Replica = cmp.Or(o.Replica, rand.Text())
	o.Every = cmp.Or(o.Every, DefaultEvery)
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	o.MaxRuns = cmp.Or(o.MaxRuns, 50_000)
	ctx, cancel := context.WithCancel(context.Background())
	r := &Recorder{o: o, ring: make([]Observation, ringSize), kick: make(chan struct{}, 1), cancel: cancel, lost: make(map[identity.Team]int64)}
	r.late.parts, r.late.behind = make(map[identity.Team]*TeamBatch), make(map[identity.Team]time.Time)
	r.late.kick, r.late.rest = make(chan struct{}, 1), make(chan Batch, 1)
	r.told = health{report: o.Report, troubles: make(map[string]error), keys: make(map[string]time.Time)}
	f, err := newFolder(o.Replica, o.MaxRuns)
	if err != nil {
		cancel()
		return nil, err
	}
	began := f.batch.From // a copy: the batch is taken while others look
	r.sent.Store(&began)
	r.done.Go(func() { r.run(ctx, f) })
	r.done.Go(func() { r.retry(ctx) })
	return r, nil
}

// Observe takes what a request taught. It copies o, waits for nobody and
// allocates nothing, but for names that are too long to be kept: those are cut.
func (r *Recorder) Observe(o *Observation) {
	if len(o.Run) > maxName || len(o.Pipeline) > maxName || len(o.Family) > maxName {
		o = bounded(*o)
	}
	r.mu.Lock()
	if r.used == len(r.ring) {
		r.drop(o.Team)
		r.mu.Unlock()
		r.total.Add(1)
		return
	}
	slot := &r.ring[r.used]
	*slot = *o
	slot.Detail, slot.Config = cut(slot.Detail, MaxDetail), cut(slot.Config, MaxConfig)
	r.used++
	half := r.used == len(r.ring)/2
	r.mu.Unlock()
	if half {
		select {
		case r.kick <- struct{}{}:
		default: // it is going to look
		}
	}
}

// drop counts an observation of a team that found no room. The caller holds mu.
func (r *Recorder) drop(team identity.Team) {
	if _, ok := r.lost[team]; !ok && len(r.lost) >= maxLost {
		team = ""
	}
	r.lost[team]++
}

// cut returns s without what is beyond a number of bytes, and without a character
// that would be cut through.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// bounded returns an observation whose names a client cannot make as long as a
// request may be.
func bounded(o Observation) *Observation {
	if len(o.Run) > maxName {
		o.Run = NewRunKey("", o.Run).String()
	}
	o.Pipeline, o.Family = rollout.BoundPipeline(o.Pipeline), rollout.BoundPipeline(o.Family)
	return &o
}

// Lost returns how many observations were lost since the start.
func (r *Recorder) Lost() int64 { return r.total.Load() }

// Observed returns how many observations were taken since the start, as far as
// they have been folded.
func (r *Recorder) Observed() int64 { return r.seen.Load() }

// Until returns up to when what was observed is recorded, or lost, but for what Behind
// says: about Every ago while all is well. What is younger is on its way.
func (r *Recorder) Until() time.Time { return *r.sent.Load() }

// Behind returns since when what was observed of teams waits that cannot be reached
// while others can; empty if none does. Once the recorder is closed it is since when that is
// lost.
func (r *Recorder) Behind() map[identity.Team]time.Time { return r.late.since() }

// Close records what is left, with one more attempt for each of the two batches
// that there may be, of a team that waits each of its two parts, and ends. What could not be recorded is lost and counted.
func (r *Recorder) Close() error {
	r.cancel()
	r.done.Wait()
	return nil
}

// run folds what comes and hands over a batch each time one is due and the one
// before is recorded.
func (r *Recorder) run(ctx context.Context, f *folder) {
	tick := time.NewTicker(r.o.Every)
	defer tick.Stop()
	spare := make([]Observation, ringSize)
	batches, idle := make(chan taken), make(chan struct{}, 1)
	take := func() taken {
		held := r.late.teams()
		return taken{f.take(time.Now(), held), held}
	}
	var sending sync.WaitGroup
	sending.Go(func() { r.send(ctx, batches, idle) })
	for {
		select {
		case <-ctx.Done():
			<-idle // what is under way may leave parts, which are to come before later ones
			_ = r.fold(f, spare)
			batches <- take()
			close(batches)
			sending.Wait()
			r.late.rest <- f.take(time.Now(), nil)
			return
		case <-r.kick:
			spare = r.fold(f, spare)
		case <-tick.C:
			spare = r.fold(f, spare)
			select {
			case <-idle:
				batches <- take()
			default: // the store is slow or away: what comes is folded further
			}
		}
	}
}

// taken is a batch, and the teams of which it has nothing since they were held.
type taken struct {
	Batch
	held map[identity.Team]bool
}

// send records batches, each until the store has it, but for the parts of teams
// that cannot be reached while others can: those are left to retry. From the end of
// ctx on each has one attempt.
func (r *Recorder) send(ctx context.Context, batches <-chan taken, idle chan<- struct{}) {
	for {
		select {
		case idle <- struct{}{}:
		default: // it says so already
		}
		b, ok := <-batches
		if !ok {
			return
		}
		for timeout := r.o.Timeout; ; timeout = r.longer(timeout) {
			left, err := r.attempt(ctx, b.Batch, timeout)
			if partial := (*PartialError)(nil); errors.As(err, &partial) {
				r.postpone(left)
				r.told.set("parts", err)
				err = nil
			}
			r.told.set("batches", err)
			if err == nil {
				r.sent.Store(&b.To)
				r.late.caughtUp(b.held)
				break
			}
			select {
			case <-ctx.Done():
				r.total.Add(b.Requests())
			case <-time.After(r.o.Every):
				continue
			}
			break
		}
	}
}

// longer is how long the next attempt may last.
func (r *Recorder) longer(timeout time.Duration) time.Duration {
	return min(2*timeout, max(maxTimeout, r.o.Timeout))
}

// attempt makes one attempt to record a batch, and notes what of it is lost. It
// returns what is left to be recorded, and why.
func (r *Recorder) attempt(ctx context.Context, b Batch, timeout time.Duration) (left Batch, err error) {
	err = r.record(ctx, b, timeout)
	partial, lost := (*PartialError)(nil), (*LostError)(nil)
	switch {
	case err == nil:
		return Batch{}, nil
	case errors.As(err, &partial):
		r.lose(partial.Lost)
		return b.only(partial.Teams), err
	case errors.As(err, &lost):
		r.lose(lost)
		return Batch{}, nil // the rest is recorded
	default:
		return b, err
	}
}

// lose counts what the store will never take, and tells of each key once. Nil is
// nothing.
func (r *Recorder) lose(lost *LostError) {
	if lost == nil {
		return
	}
	r.told.mu.Lock()
	defer r.told.mu.Unlock()
	now, told := time.Now(), r.told.keys
	maps.DeleteFunc(told, func(_ string, last time.Time) bool { return now.Sub(last) >= lostAnew })
	r.total.Add(lost.Requests())
	for _, part := range lost.Parts {
		what := string(part.Team) + " " + part.Key
		if _, ok := told[what]; !ok {
			r.o.Lost(part.Err)
		}
		told[what] = now
	}
}

// record makes one attempt. The end of the recorder leaves it Timeout: cut short
// at once, what happened to it would not be known.
func (r *Recorder) record(end context.Context, b Batch, timeout time.Duration) error {
	if b.empty() {
		return nil
	}
	if end.Err() != nil {
		timeout = r.o.Timeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	stop := context.AfterFunc(end, func() { // which ends with the attempt at the latest
		select {
		case <-time.After(r.o.Timeout):
			cancel()
		case <-ctx.Done():
		}
	})
	defer stop()
	return r.o.Store.Record(ctx, b)
}

// fold takes all that waits, with the other half of the double buffer in its
// place, and returns the one to use next time.
func (r *Recorder) fold(f *folder, spare []Observation) []Observation {
	r.mu.Lock()
	full, used := r.ring, r.used
	r.ring, r.used = spare, 0
	var lost map[identity.Team]int64 // none, or no longer where Observe counts
	if len(r.lost) > 0 {
		lost, r.lost = r.lost, make(map[identity.Team]int64)
	}
	r.mu.Unlock()
	for team, n := range lost {
		f.lose(team, n)
	}
	r.seen.Add(int64(used))
	for i := range full[:used] {
		if !f.add(&full[i]) {
			f.lose(full[i].Team, 1)
			r.total.Add(1)
		}
	}
	clear(full[:used]) // the texts are not to be kept alive
	return full
}
