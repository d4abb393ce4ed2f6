package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"crossfade/gateway/breaker"
	"crossfade/gateway/identity"
)

// Run is what a request says about the run that it belongs to.
type Run struct {
	Team      identity.Team
	Principal string
	// ID is the worker of profile luigi. Without one the request belongs to no
	// run and is judged by itself.
	ID string
	// Credential is the id of the static credential that was verified; "" for
	// none. One of a retired team is refused whatever team it is of now.
	Credential string
	// Pipeline is the family of the task that this very request registers,
	// empty if it registers none.
	Pipeline string
}

// Enforcement is what the rollout says about one request.
type Enforcement struct {
	// Known is false until the table was read for the first time. All else is
	// zero then, and the caller decides what a cold start means.
	Known bool
	// Enforced: legacy credentials are refused to the run. While observing it
	// is false unless the team is retired.
	Enforced bool
	// Selected: the present percentage selects the run, whatever its latch or
	// the mode says. It is what mode enforce would do to a new run.
	Selected bool
	// KeyKnown: what the run is bucketed by is known. Below 100 nothing is
	// enforced before.
	KeyKnown bool
	// Brownout: a window that is in force decided, not the stored percentage.
	Brownout bool
	// Latched: a latch decided, not the percentage.
	Latched bool
	Retired bool
	// Stale: the store could not be asked about the run, which was therefore
	// judged by State.Cautious.
	Stale bool
	// Percent is what the run was judged by, or would be without its latch.
	Percent Percent
	// Revision is the one that decided: the latch's if Latched, else the
	// team's.
	Revision int64
	Phase    Phase
	// Pipeline of the run, empty while none of its requests registered a task.
	Pipeline string
}

// RunsOptions are the options of NewRuns.
type RunsOptions struct {
	// Table and Store are required; without LatchRuns no store is.
	Table *Table
	Store Latcher
	// Stickiness says what is bucketed.
	Stickiness Stickiness
	// LatchRuns is set for profile luigi. Profile http latches nothing: its
	// runs are its principals, so StickRun means StickPrincipal there, and
	// StickPipeline is an error.
	LatchRuns bool
	// Cache bounds the number of runs that are remembered here; 100,000 by
	// default. A run that falls out costs one more call to the store.
	Cache int
	// Timeout bounds what a request waits for a latch; 50 ms when 0, which nobody
	// notices at a run's first request.
	Timeout time.Duration
	// Now is the clock, time.Now by default.
	Now func() time.Time
}

const (
	storeTimeout = 50 * time.Millisecond // see RunsOptions.Timeout
	// defaultCache is enough for 100,000 workers at once, some 40 MB.
	defaultCache = 100_000
	// refreshEvery is how often the store hears that a run is alive: five
	// times within LatchIdle.
	refreshEvery = 3 * time.Minute
	// peekEvery is how often the store is asked about a run that has no latch
	// and whose key is not known here: another replica may have learned it.
	peekEvery = 5 * time.Second
)

// Runs joins the table, the latches in the store and a cache of them, and says
// of each request whether its run is enforced. Safe for concurrent use.
type Runs struct {
	table     *Table
	store     Latcher
	keying    Keying
	latchRuns bool
	now       func() time.Time
	timeout   time.Duration

	cache   *lru.Cache[runKey, *entry]
	newRuns *limiter
	breaker breaker.Breaker
	refresh *refresher
}

// entry is what this replica remembers of a run.
type entry struct {
	key runKey

	// turn is the lock of what follows, held by who could send to it. It is a
	// channel because it is held while the store is asked, so that requests of
	// one run ask once, and testing/synctest lets time pass only for waits on
	// channels.
	turn     chan struct{}
	began    time.Time // the first request here
	seen     time.Time // the last request
	pipeline string
	latched  bool
	latch    Latch
	// spared tells that the run was let through while the store could not be asked,
	// so that enforcing it from now on would break it in its middle.
	spared    bool
	refreshed time.Time // when the store last heard of the run, or will soon
	// peeked is when the store last knew no latch; it counts only for the
	// revision that it was asked at, since a raise is when it matters.
	peeked         time.Time
	peekedRevision int64
}

// NewRuns checks the options and starts the goroutine that keeps latches alive.
func NewRuns(opt RunsOptions) (*Runs, error) {
	switch {
	case opt.Table == nil:
		return nil, errors.New("rollout runs: no table")
	case opt.LatchRuns && opt.Store == nil:
		return nil, errors.New("rollout runs: no store to latch runs in")
	case !opt.LatchRuns && opt.Stickiness == StickPipeline:
		return nil, errors.New("rollout runs: stickiness pipeline needs a profile that knows pipelines: use principal")
	case opt.Cache < 0 || opt.Timeout < 0:
		return nil, errors.New("rollout runs: the size of the cache and the timeout must not be negative")
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	cache, err := lru.New[runKey, *entry](cmp.Or(opt.Cache, defaultCache))
	if err != nil {
		return nil, fmt.Errorf("rollout runs: make cache: %w", err)
	}
	newRuns, err := newLimiter(newRunsPerMinute)
	if err != nil {
		return nil, err
	}
	r := &Runs{
		table: opt.Table, store: opt.Store, keying: Keying{Stickiness: opt.Stickiness, Runs: opt.LatchRuns}, latchRuns: opt.LatchRuns,
		now: opt.Now, timeout: cmp.Or(opt.Timeout, storeTimeout), cache: cache, newRuns: newRuns,
	}
	r.refresh = startRefresher(r.extend)
	return r, nil
}

// Close stops the background work and waits for it. Enforce goes on working,
// but latches are no longer kept alive.
func (r *Runs) Close() error {
	r.refresh.close()
	return nil
}

// Enforce says whether the run is enforced, and latches it when it can. While
// observing, runs latch as not enforced.
//
// It waits for the store at a run's first request here and when its key becomes
// known, 50 ms at most, and not at all while the store is known to be away. The
// call to the store outlives ctx, so that a client that hangs up does not cost
// the run its latch. Otherwise it does no I/O and allocates nothing.
func (r *Runs) Enforce(ctx context.Context, run Run, observe bool) Enforcement {
	if !r.table.Loaded() {
		return Enforcement{}
	}
	run.Pipeline = BoundPipeline(run.Pipeline)
	st, _ := r.table.Lookup(run.Team)
	if run.Team == identity.Unassigned {
		st = State{} // pinned at 0, whatever a store says
	}
	if run.Credential != "" && r.table.CredentialRetired(run.Credential) {
		st.Retired, st.Percent = true, Full
	}
	now := r.now()
	v := verdict{observe: observe, percent: st.Percent}
	v.brownout, _ = st.Brownout(now)
	if !r.latchRuns || run.ID == "" {
		return r.judge(st, run, &entry{pipeline: run.Pipeline, began: now}, v)
	}
	en := r.entry(&run)
	en.turn <- struct{}{}
	defer func() { <-en.turn }()
	en.see(now, run.Pipeline)
	switch {
	case run.Team == identity.Unassigned, st.Retired: // no latch could matter
	case en.holds(st):
		r.keepAlive(en, st, now)
	case !r.settle(ctx, st, run, en, now, observe):
		v.stale, v.percent = true, st.Cautious(now)
		e := r.judge(st, run, en, v)
		en.spared = en.spared || e.KeyKnown && !e.Enforced
		return e
	}
	return r.judge(st, run, en, v)
}

// Percent returns what the team stands at, 0 while nothing is known of it.
func (r *Runs) Percent(team identity.Team) Percent {
	st, _ := r.table.Lookup(team)
	return st.Percent
}

// verdict is how judge is to look at a run.
type verdict struct {
	observe, stale bool
	percent        Percent
	brownout       Brownout
}

// judge puts together what is known. It is pure.
func (r *Runs) judge(st State, run Run, en *entry, v verdict) Enforcement {
	e := Enforcement{
		Known: true, Percent: v.percent, Revision: st.Revision, Phase: st.Phase(),
		Retired: st.Retired, Stale: v.stale, Pipeline: en.pipeline,
	}
	e.Selected, e.KeyKnown = r.selects(st, v.percent, run, en.pipeline)
	e.Enforced = e.Selected
	if en.holds(st) && !st.Retired {
		e.Latched, e.Enforced, e.Revision = true, en.latch.Enforced, en.latch.Revision
	}
	// While the store is away nobody knows whether a run that is new here has begun
	// elsewhere, before the window; and what is enforced anyway no window decides.
	if b := v.brownout; !e.Enforced && !v.stale && b.Percent > v.percent && !en.first().Before(b.From) {
		if selected, _ := r.selects(st, b.Percent, run, en.pipeline); selected {
			e.Brownout, e.Selected, e.Enforced, e.Percent = true, true, true, b.Percent
		}
	}
	e.Enforced = st.Retired || e.Enforced && !v.observe
	return e
}

// selects is Keying.Selects for a run of that pipeline.
func (r *Runs) selects(st State, percent Percent, run Run, pipeline string) (selected, known bool) {
	run.Pipeline = pipeline
	return r.keying.Selects(st, percent, run)
}

// settle finds the latch in force for a run that has none here, or makes it. It
// returns false if the store could not be asked; a run above the limit of new
// runs may stay without a latch and is still settled.
func (r *Runs) settle(ctx context.Context, st State, run Run, en *entry, now time.Time, observe bool) bool {
	if r.table.Regressed() {
		return false // what such a store says of latches is as lost as the rest
	}
	key := en.key.latchKey()
	// Two rounds: the first may teach a pipeline that the second is judged by.
	for range 2 {
		selected, known := r.selects(st, st.Percent, run, en.pipeline)
		if !known || !r.newRuns.take(run.Team, run.Principal, now) {
			if en.peekedRevision == st.Revision && now.Sub(en.peeked) < peekEvery && !en.peeked.IsZero() {
				return true
			}
			got, ok, err := r.peek(ctx, key, now)
			if err != nil {
				return false
			}
			en.peeked, en.peekedRevision = now, st.Revision
			if !ok || en.adopt(got, st, now) || known {
				return true
			}
			continue
		}
		mine := Latch{Enforced: selected && !observe && !en.spared, Revision: st.Revision, Pipeline: en.pipeline, At: Change{}.When(en.began), Spares: en.spared}
		got, err := r.latch(ctx, key, mine, st.LoweredRevision, now)
		if err != nil || !got.equal(mine) {
			r.newRuns.giveBack(run.Team, run.Principal, now) // not a new run, or not a latched one
		}
		if err != nil {
			return false
		}
		if en.adopt(got, st, now) {
			return true
		}
	}
	return true
}

func (r *Runs) peek(ctx context.Context, key LatchKey, now time.Time) (got Latch, ok bool, err error) {
	err = r.breaker.Call(now, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
		defer cancel()
		got, ok, err = r.store.Latched(ctx, key)
		return err
	})
	return got, ok, err
}

func (r *Runs) latch(ctx context.Context, key LatchKey, l Latch, lowered int64, now time.Time) (got Latch, err error) {
	err = r.breaker.Call(now, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
		defer cancel()
		got, err = r.store.Latch(ctx, key, l, lowered)
		return err
	})
	return got, err
}

// Latched returns how many runs that were seen in the last 15 minutes have a
// latch here, by team. It walks the whole cache: it is for metrics.
func (r *Runs) Latched() map[identity.Team]int {
	out := make(map[identity.Team]int)
	now := r.now()
	for _, key := range r.cache.Keys() {
		if en, ok := r.cache.Peek(key); ok && en.alive(now) {
			out[key.team]++
		}
	}
	return out
}

func (en *entry) alive(now time.Time) bool {
	en.turn <- struct{}{}
	defer func() { <-en.turn }()
	return en.latched && now.Sub(en.seen) < LatchIdle
}

// see notes a request. A run that was idle too long, or lived too long, is
// another run.
func (en *entry) see(now time.Time, pipeline string) {
	if !en.seen.IsZero() && now.Sub(en.seen) >= LatchIdle {
		en.pipeline, en.latched, en.spared, en.peeked, en.began = "", false, false, time.Time{}, time.Time{}
	}
	if en.began.IsZero() {
		en.began = now
	}
	if en.latched && now.Sub(en.latch.At) >= LatchMax {
		en.latched = false
	}
	if now.Sub(en.began) >= LatchMax {
		en.spared, en.began = false, now
	}
	en.seen = now
	en.learn(pipeline)
}

// learn keeps the first pipeline. The copy lets go of the request's body.
func (en *entry) learn(pipeline string) {
	if en.pipeline == "" && pipeline != "" {
		en.pipeline = string([]byte(pipeline))
	}
}

// first is when the run was first seen, here or by the replica that latched it.
func (en *entry) first() time.Time {
	if en.latched && en.latch.At.Before(en.began) {
		return en.latch.At
	}
	return en.began
}

// holds reports whether the entry has a latch that is in force under st.
func (en *entry) holds(st State) bool { return en.latched && !en.latch.Freed(st.LoweredRevision) }

// adopt takes over what the store says and reports whether it is in force.
// Another replica's pipeline was first, so it replaces the one known here. A run
// that was let through here stays so.
func (en *entry) adopt(got Latch, st State, now time.Time) bool {
	if got.Pipeline != "" {
		en.pipeline = got.Pipeline
	}
	if got.Freed(st.LoweredRevision) {
		return false
	}
	got.Enforced = got.Enforced && !en.spared
	en.latch, en.latched, en.refreshed = got, true, now
	return true
}
