// Package fleet knows which gateways there are: each one gives a sign of life
// every few seconds, says goodbye when it ends, and leaves a gap in the evidence
// when it ends without.
package fleet

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
)

const (
	// DefaultEvery is the time between two signs of life.
	DefaultEvery = 5 * time.Second
	// lookEvery is how often a replica looks whether it is another than it said.
	lookEvery = time.Second
	// Silent is after which time without one a replica is taken for dead. Whoever
	// decides so must have had the store in reach all that time: after an outage
	// of it everybody has been silent.
	Silent = time.Minute
	// timeout bounds a call to the store.
	timeout = 2 * time.Second
	// mostLate is how late a replica is taken to be at most. Evidence is not kept for
	// longer (evidence.Retention), so more says no more.
	mostLate = evidence.Retention
	// mostWaiting bounds the ids of the teams that wait, in bytes: of more of them all
	// evidence is told to be as late.
	mostWaiting = 4096
)

// Replica is one gateway.
type Replica struct {
	// ID names the process among all that ever were.
	ID string `json:"id"`
	// Version is the program's, Config the hash of the configuration that it
	// serves by.
	Version string    `json:"version"`
	Config  string    `json:"config"`
	Started time.Time `json:"started"`
	// Selects is what of a run it buckets, a word of rollout.Stickiness; "" if it
	// does not say.
	Selects string `json:"selects,omitempty"`
	// Regressed tells that the store is not what it was to this replica, which goes
	// on by what it knew and refuses changes; see rollout.ErrRegressed.
	Regressed bool `json:"regressed,omitempty"`
	// Judges is the hash of what it judges credentials by, which the evidence is
	// gathered under; "" if it does not say.
	Judges string `json:"judges,omitempty"`
	// Rate is how many requests a second it has lately observed.
	Rate float64 `json:"rate"`
	// LateSeconds is how long what it had observed was waiting to be recorded, at its
	// last sign of life, but for what it had of WaitingTeams: their part of the store is
	// away while others are not, and that has waited for WaitingSeconds.
	LateSeconds    float64 `json:"late_seconds,omitempty"`
	WaitingSeconds float64 `json:"waiting_seconds,omitempty"`
	// WaitingTeams are ids, with spaces between them.
	WaitingTeams string `json:"waiting_teams,omitempty"`
	// Seen is its last sign of life, by the clock of the store.
	Seen time.Time `json:"-"`
}

// Alive reports whether the last sign of life was less than Silent ago, or just
// that; now is by the clock of the store.
func (r Replica) Alive(now time.Time) bool { return now.Sub(r.Seen) <= Silent }

// Alive returns those that are alive, in their order.
func Alive(all []Replica, now time.Time) []Replica {
	return slices.DeleteFunc(slices.Clone(all), func(r Replica) bool { return !r.Alive(now) })
}

// Store is where replicas meet. Implementations are safe for concurrent use;
// errors match rollout.ErrUnavailable.
type Store interface {
	// Beat is a sign of life.
	Beat(ctx context.Context, r Replica) error
	// Leave says goodbye.
	Leave(ctx context.Context, id string) error
	// Fleet returns all replicas, in order of their ids, and the store's time.
	Fleet(ctx context.Context) (all []Replica, now time.Time, err error)
	// Bury removes a replica that has given no sign of life since r.Seen. done is
	// false if it has in the meantime, or somebody else has buried it.
	Bury(ctx context.Context, r Replica) (done bool, err error)
	// Gap notes a gap in the evidence; the same one twice is one.
	Gap(ctx context.Context, gap evidence.Gap) error
}

// Options are the options of Join.
type Options struct {
	// Store is required.
	Store Store
	// Self returns what this replica is now; Rate and how late it is are filled in. When
	// the rest changes, it is said within a second. Required.
	Self func() Replica
	// Observed returns how many requests were observed since the start. Required.
	Observed func() int64
	// Until returns up to when that is recorded, Waiting since when it is not of some
	// teams; nil for who does not know it.
	Until   func() time.Time
	Waiting func() map[identity.Team]time.Time
	// Buried is told of each replica that was found dead; may be nil.
	Buried func(Replica, evidence.Gap)
	// Every is the time between two signs of life; DefaultEvery when 0.
	Every time.Duration
}

// Member is this replica's place in the fleet. Close it.
type Member struct {
	o      Options
	cancel context.CancelFunc
	done   sync.WaitGroup
	known  atomic.Pointer[look]

	// Of its goroutine: when each silent replica was first seen to be silent, with
	// the store in reach ever since, and what was observed at the last beat.
	silent   map[string]time.Time
	observed int64
	beaten   time.Time
	said     Replica        // what was said of it, without what is filled in
	owed     []evidence.Gap // of replicas that were buried, not noted yet
}

// look is what was read of the fleet, and when by the clock of the store and by that
// of this machine.
type look struct {
	all    []Replica
	at, on time.Time
}

// Join starts to give signs of life.
func Join(o Options) (*Member, error) {
	if o.Store == nil || o.Self == nil || o.Observed == nil {
		return nil, errors.New("join the fleet: a store, and what this replica is, are needed")
	}
	o.Every = cmp.Or(o.Every, DefaultEvery)
	if o.Buried == nil {
		o.Buried = func(Replica, evidence.Gap) {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &Member{o: o, cancel: cancel, silent: make(map[string]time.Time), beaten: time.Now()}
	m.known.Store(&look{on: time.Now()})
	m.done.Go(func() { m.run(ctx) })
	return m, nil
}

// Close says goodbye, and of which teams it leaves something unrecorded: what they
// wait for by then is lost.
func (m *Member) Close() error {
	m.cancel()
	m.done.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	self := m.o.Self()
	if m.o.Waiting != nil {
		now := time.Now()
		self.wait(m.o.Waiting(), now)
		for _, gap := range self.waiting(now, now) {
			if err := m.o.Store.Gap(ctx, gap); err != nil {
				return err // and whoever finds it dead notes what is missing
			}
		}
	}
	return m.o.Store.Leave(ctx, self.ID)
}

// Known returns the replicas as of the last look that succeeded, and when that was
// by the clock of the store, which that of this machine may not agree with; both
// are zero before. The slice is shared and must not be changed.
func (m *Member) Known() (all []Replica, at time.Time) {
	l := m.known.Load()
	return l.all, l.at
}

// Age is how long ago the last look began that succeeded; before the first one, since
// when the member is there. What Known says of others is as old.
func (m *Member) Age() time.Duration { return time.Since(m.known.Load().on) }

// Agree reports whether all replicas serve by one configuration.
func Agree(all []Replica) bool {
	return !slices.ContainsFunc(all, func(r Replica) bool { return r.Config != all[0].Config })
}

// Late is how late the evidence of a team was that the replicas, which are alive, had
// gathered by their last signs of life: as that of the latest of them, and never
// below zero.
func Late(alive []Replica, team identity.Team) time.Duration {
	late := 0.0
	for _, r := range alive {
		late = max(late, r.LateSeconds)
		if slices.Contains(strings.Fields(r.WaitingTeams), string(team)) {
			late = max(late, r.WaitingSeconds)
		}
	}
	return time.Duration(min(late, mostLate.Seconds()) * float64(time.Second))
}

// Longest is for how long at most something had waited to be recorded.
func (r Replica) Longest() time.Duration {
	r.LateSeconds = max(r.LateSeconds, r.WaitingSeconds)
	return Late([]Replica{r}, "")
}

// Regressed reports whether any of the replicas, which are alive, says that the
// store is not what it was.
func Regressed(alive []Replica) bool {
	return slices.ContainsFunc(alive, func(r Replica) bool { return r.Regressed })
}

func (m *Member) run(ctx context.Context) {
	tick, look := time.NewTicker(m.o.Every), time.NewTicker(lookEvery)
	defer tick.Stop()
	defer look.Stop()
	for {
		if err := m.beat(ctx); err != nil {
			clear(m.silent) // nobody can tell who was silent meanwhile
		}
		for wait := true; wait; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				wait = false
			case <-look.C:
				wait = m.o.Self() == m.said
			}
		}
	}
}

// beat gives a sign of life and looks who else does.
func (m *Member) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	self, now := m.o.Self(), time.Now()
	m.said = self
	observed := m.o.Observed()
	if passed := now.Sub(m.beaten); passed > 0 {
		self.Rate = float64(observed-m.observed) / passed.Seconds()
	}
	m.observed, m.beaten = observed, now
	if m.o.Until != nil {
		self.LateSeconds = max(now.Sub(m.o.Until()), 0).Seconds()
	}
	if m.o.Waiting != nil {
		self.wait(m.o.Waiting(), now)
	}
	if err := m.o.Store.Beat(ctx, self); err != nil {
		return err
	}
	all, theirs, err := m.o.Store.Fleet(ctx)
	if err != nil {
		return err
	}
	m.known.Store(&look{all, theirs, now})
	return m.bury(ctx, all, theirs, now)
}

// wait notes the teams that wait.
func (r *Replica) wait(since map[identity.Team]time.Time, now time.Time) {
	names, longest := make([]string, 0, len(since)), 0.0
	for _, team := range slices.Sorted(maps.Keys(since)) {
		names, longest = append(names, string(team)), max(longest, now.Sub(since[team]).Seconds())
	}
	r.WaitingTeams, r.WaitingSeconds = strings.Join(names, " "), longest
	if len(r.WaitingTeams) > mostWaiting {
		r.WaitingTeams, r.WaitingSeconds, r.LateSeconds = "", 0, max(r.LateSeconds, longest)
	}
}

// bury finds the replicas that are dead.
func (m *Member) bury(ctx context.Context, all []Replica, theirs, now time.Time) error {
	var errs []error
	alive := make(map[string]bool)
	for _, r := range all {
		if theirs.Sub(r.Seen) < 2*m.o.Every {
			alive[r.ID] = true
			continue
		}
		since, known := m.silent[r.ID]
		if !known {
			m.silent[r.ID] = now
			continue
		}
		if now.Sub(since) < Silent {
			continue
		}
		done, err := m.o.Store.Bury(ctx, r)
		if done {
			gaps := gapsOf(r, m.o.Every)
			m.owed = append(m.owed, gaps...)
			m.o.Buried(r, gaps[0])
		}
		errs = append(errs, err)
	}
	for len(m.owed) > 0 {
		if err := m.o.Store.Gap(ctx, m.owed[0]); err != nil {
			errs = append(errs, err)
			break
		}
		m.owed = m.owed[1:]
	}
	for id := range m.silent {
		if alive[id] || !slices.ContainsFunc(all, func(r Replica) bool { return r.ID == id }) {
			delete(m.silent, id)
		}
	}
	return errors.Join(errs...)
}

// gapsOf is what a dead replica leaves: what it observed since its last batch was
// recorded is lost, at most that of the time between two signs of life and of as long
// as it said that something waited, or of one batch. The first gap is of nobody knows
// whom, the others are of the teams that waited for longer: how many requests of theirs
// nobody knows.
func gapsOf(r Replica, every time.Duration) []evidence.Gap {
	unrecorded := max(Late([]Replica{r}, ""), evidence.DefaultEvery)
	lost := every + unrecorded
	return append([]evidence.Gap{{
		Replica: r.ID, From: r.Seen.Add(-unrecorded).UTC(), To: r.Seen.Add(every).UTC(),
		Requests: int64(r.Rate*lost.Seconds() + 0.5),
	}}, r.waiting(r.Seen, r.Seen.Add(every))...)
}

// waiting are the gaps of the teams that waited at a time, up to another one.
func (r Replica) waiting(at, to time.Time) (gaps []evidence.Gap) {
	for _, name := range strings.Fields(r.WaitingTeams) {
		team := identity.Team(name)
		gaps = append(gaps, evidence.Gap{Replica: r.ID, Team: team, From: at.Add(-Late([]Replica{r}, team)).UTC(), To: to.UTC()})
	}
	return gaps
}
