package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"crossfade/gateway/identity"
)

// TableStore is what a Table needs of a Store.
type TableStore interface {
	Reader
	Writer
	Watcher
}

// TableOptions are the options of NewTable.
type TableOptions struct {
	// Store is required.
	Store TableStore
	// Poll is the time between two readings of the store, which heal lost
	// messages; 2 s by default. Each wait is up to a tenth shorter or longer,
	// so that replicas do not ask in step.
	Poll time.Duration
	// Timeout bounds one reading or write; 1 s by default.
	Timeout time.Duration
	// Report, if set, is told when reading begins to fail or the store turns
	// out to have regressed, with the error, and with nil when all is well
	// again. While it lasts it is told when reading fails otherwise than it was
	// told: after 5 s at the earliest, and each time after twice as long, so that a
	// long outage of many kinds is told of a few times. It is called by one goroutine
	// at a time, must return soon, and must not call Refresh or Write.
	Report func(error)
	// Changed, if set, is told whenever a table with other revisions comes into
	// force: what was, with an empty StoreID before the first, and what is. Both
	// are shared and must not be changed. The terms of Report hold.
	Changed func(was, is Snapshot)
	// Initial, if set, is in force until the store is read: what a replica knew
	// before its restart. A store that is not, or no longer, the one that it was
	// taken of has regressed.
	Initial *Snapshot
	// Known, if set, is what a replica knew before its restart and must not be
	// forgotten: a store that has lost something of it has regressed, and Known is
	// in force then. While the store is away it is not; Initial is for that.
	Known *Snapshot
	// Now is the clock, time.Now by default.
	Now func() time.Time
}

// Table is a replica's copy of all rollouts. Reading it takes no lock and does
// no I/O. While the store is away it stays as it was and Age grows; when the
// store has regressed it stays as well, and changes are refused.
type Table struct {
	opt     TableOptions
	current atomic.Pointer[Snapshot] // nil until the first load; immutable
	retired atomic.Pointer[map[string]struct{}]
	health  atomic.Pointer[health] // never nil

	mu   sync.Mutex // one reading or write at a time, so that an older reading never undoes a newer write
	told Trouble    // under mu
	kick chan struct{}
	stop context.CancelFunc
	done sync.WaitGroup
}

type health struct{ err, regressed error }

// NewTable returns a table and begins to fill it in the background; the store
// may be away. Call Refresh to wait for the first reading, and Close at the end.
func NewTable(opt TableOptions) (*Table, error) {
	if opt.Store == nil {
		return nil, errors.New("rollout table: no store")
	}
	if opt.Poll < 0 || opt.Timeout < 0 {
		return nil, errors.New("rollout table: poll interval and timeout must not be negative")
	}
	opt.Poll = cmp.Or(opt.Poll, 2*time.Second)
	opt.Timeout = cmp.Or(opt.Timeout, time.Second)
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Report == nil {
		opt.Report = func(error) {}
	}
	if opt.Changed == nil {
		opt.Changed = func(Snapshot, Snapshot) {}
	}
	ctx, stop := context.WithCancel(context.Background())
	t := &Table{opt: opt, kick: make(chan struct{}, 1), stop: stop}
	t.health.Store(&health{})
	if opt.Initial != nil {
		initial := *opt.Initial
		t.current.Store(&initial)
		t.retire(&initial)
	}
	t.done.Go(func() { t.poll(ctx) })
	t.done.Go(func() { t.watch(ctx) })
	return t, nil
}

// Close stops the table's goroutines and waits for them. Lookup goes on
// answering from the last known table.
func (t *Table) Close() error {
	t.stop()
	t.done.Wait()
	return nil
}

// Lookup returns the team's state; ok is false for a team that was never
// written or while nothing is loaded. It allocates nothing.
func (t *Table) Lookup(team identity.Team) (s State, ok bool) {
	if cur := t.current.Load(); cur != nil {
		s, ok = cur.Teams[team]
	}
	return s, ok
}

// CredentialRetired reports whether a static credential was one of a team that
// is retired. It allocates nothing.
func (t *Table) CredentialRetired(id string) bool {
	ids := t.retired.Load()
	if ids == nil {
		return false
	}
	_, ok := (*ids)[id]
	return ok
}

// retire notes the credentials of retired teams.
func (t *Table) retire(s *Snapshot) {
	ids := make(map[string]struct{})
	for _, state := range s.Teams {
		if state.Retired {
			for _, id := range state.Credentials {
				ids[id] = struct{}{}
			}
		}
	}
	t.retired.Store(&ids)
}

// States returns every team's state in order of id.
func (t *Table) States() []State {
	cur := t.current.Load()
	if cur == nil {
		return nil
	}
	return slices.SortedFunc(maps.Values(cur.Teams), func(a, b State) int { return cmp.Compare(a.Team, b.Team) })
}

// Loaded reports whether the table was ever read, or began with an Initial one.
// Before that nothing is known of any team, and a replica is not ready.
func (t *Table) Loaded() bool { return t.current.Load() != nil }

// Known returns the table that is in force: what `Restore` puts back into a store
// that has lost something. It is the zero Snapshot while nothing is loaded, is
// shared and must not be changed.
func (t *Table) Known() Snapshot {
	if cur := t.current.Load(); cur != nil {
		return *cur
	}
	return Snapshot{}
}

// LoadedAt returns when the reading began that the table stands on; zero before
// the first.
func (t *Table) LoadedAt() time.Time {
	if cur := t.current.Load(); cur != nil {
		return cur.At
	}
	return time.Time{}
}

// Age returns how old the table is, 0 while nothing is loaded.
func (t *Table) Age() time.Duration {
	at := t.LoadedAt()
	if at.IsZero() {
		return 0
	}
	return max(0, t.opt.Now().Sub(at))
}

// Regressed reports whether the last reading showed a store that has lost
// something that the table knows.
func (t *Table) Regressed() bool { return t.health.Load().regressed != nil }

// Err returns why the last reading failed: an ErrUnavailable, an ErrRegressed,
// or nil.
func (t *Table) Err() error {
	h := t.health.Load()
	return cmp.Or(h.regressed, h.err)
}

// Refresh reads the store now and returns what Err then says.
func (t *Table) Refresh(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	bounded, cancel := context.WithTimeout(ctx, t.opt.Timeout)
	defer cancel()
	began := t.opt.Now()
	next, err := t.opt.Store.Load(bounded)
	was := t.health.Load()
	if err != nil && ctx.Err() != nil {
		return err // the caller gave up, which says nothing about the store
	}
	var partial *PartialError
	if errors.As(err, &partial) && t.current.Load() != nil {
		return t.refreshSome(next, partial)
	}
	if err != nil {
		// A store that regressed and went away is still a store that regressed.
		t.setHealth(&health{err: err, regressed: was.regressed})
		return t.Err()
	}
	known := t.current.Load()
	if known == nil {
		known = t.opt.Known
	}
	if err := regressed(known, next); err != nil {
		t.setHealth(&health{regressed: err}) // before anybody sees a table
		if t.current.Load() == nil {
			t.put(known)
		}
		return err
	}
	next.At = began
	t.put(&next)
	t.setHealth(&health{})
	return nil
}

// refreshSome takes over the teams that could be read. The others stay as they
// are known, and the table as old as it is, for that is how old they are. Before
// the first whole reading there is nothing to fall back on, so a part is none.
// The caller holds mu.
func (t *Table) refreshSome(next Snapshot, partial *PartialError) error {
	known := t.current.Load()
	for _, team := range partial.Teams {
		if s, ok := known.Teams[team]; ok {
			next.Teams[team] = s
		}
	}
	if err := regressed(known, next); err != nil {
		t.setHealth(&health{regressed: err})
		return err
	}
	next.At = known.At
	// What has regressed may be what cannot be read.
	was := t.health.Load()
	t.setHealth(&health{err: partial, regressed: was.regressed})
	if was.regressed == nil {
		t.put(&next)
	}
	return t.Err()
}

// put brings a table into force. The caller holds mu.
func (t *Table) put(next *Snapshot) {
	t.retire(next)
	var was Snapshot
	if cur := t.current.Swap(next); cur != nil {
		was = *cur
	}
	same := was.StoreID == next.StoreID && maps.EqualFunc(was.Teams, next.Teams, func(a, b State) bool {
		return a.Revision == b.Revision
	})
	if !same {
		t.opt.Changed(was, *next)
	}
}

// Write makes a change through the table, which knows it at once: with the
// table's StoreID, and refused with ErrRegressed while the store has regressed
// and with ErrUnavailable while nothing is loaded.
func (t *Table) Write(ctx context.Context, c Change) (State, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.health.Load().regressed; err != nil {
		return State{}, fmt.Errorf("change of team %q refused: %w", c.Team, err)
	}
	cur := t.current.Load()
	if cur == nil {
		return State{}, fmt.Errorf("change of team %q refused: %w: the rollouts were not read yet", c.Team, ErrUnavailable)
	}
	c.StoreID = cur.StoreID
	ctx, cancel := context.WithTimeout(ctx, t.opt.Timeout)
	defer cancel()
	s, err := t.opt.Store.Write(ctx, c)
	if err != nil {
		t.wake() // a conflict or a lost answer: the store knows something that the table does not
		return s, err
	}
	next := *cur
	next.Teams = maps.Clone(cur.Teams)
	if next.Teams == nil {
		next.Teams = make(map[identity.Team]State, 1)
	}
	next.Teams[s.Team] = s
	t.put(&next)
	return s, nil
}

// setHealth notes how the store is, and reports it. The caller holds mu.
func (t *Table) setHealth(now *health) {
	was := t.health.Swap(now)
	err := cmp.Or(now.regressed, now.err)
	if err != nil && (was.regressed == nil) != (now.regressed == nil) {
		t.told = Trouble{} // another one
	}
	if t.told.Tell(err, t.opt.Now()) {
		t.opt.Report(err)
	}
}

func (t *Table) wake() {
	select {
	case t.kick <- struct{}{}:
	default: // a reading is due already
	}
}

func (t *Table) poll(ctx context.Context) {
	for ctx.Err() == nil {
		_ = t.Refresh(ctx) // kept in health
		timer := time.NewTimer(jitter(t.opt.Poll))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-t.kick:
		}
		timer.Stop()
	}
}

func (t *Table) watch(ctx context.Context) {
	for ctx.Err() == nil {
		_ = t.opt.Store.Watch(ctx, func(identity.Team) { t.wake() }) // polling shows what is wrong
		timer := time.NewTimer(jitter(t.opt.Poll))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// jitter returns d, up to a tenth shorter or longer.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d))
}

// regressed returns what the store lost between two readings, or nil. A table
// without any team has nothing to lose, so a fresh store may take its place.
func regressed(was *Snapshot, now Snapshot) error {
	if was == nil || len(was.Teams) == 0 {
		return nil
	}
	const advice = "the last known table stays in force and changes are refused until the store is restored, for instance by `crossfade rollout restore`"
	if now.StoreID != was.StoreID {
		return fmt.Errorf("%w: another or an emptied store answers (id %s, it was %s): %s", ErrRegressed, now.StoreID, was.StoreID, advice)
	}
	for _, team := range slices.Sorted(maps.Keys(was.Teams)) {
		old, cur := was.Teams[team], now.Teams[team]
		switch {
		case cur.Revision < old.Revision:
			return fmt.Errorf("%w: team %q is at revision %d, it was at %d: %s", ErrRegressed, team, cur.Revision, old.Revision, advice)
		case cur.Revision == old.Revision && !cur.UpdatedAt.Equal(old.UpdatedAt):
			return fmt.Errorf("%w: team %q has another revision %d than the one known: %s", ErrRegressed, team, cur.Revision, advice)
		case old.Retired && !cur.Retired:
			return fmt.Errorf("%w: team %q was retired and no longer is: %s", ErrRegressed, team, advice)
		}
	}
	return nil
}
