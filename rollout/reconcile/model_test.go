package reconcile_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/reconcile"
	"crossfade/rollout/rollouttest"
)

// The model test changes what may change in random order, on three replicas with
// one store, and looks after each step whether anything happened that nobody
// asked for, and at the end whether all that was asked for has happened.

const (
	modelReplicas = 3
	glass         = time.Minute // for which it is broken
)

var (
	modelTeams     = []identity.Team{"billing", "data-eng"}
	modelPipelines = []string{"A", "B", "C", "D", "E", "F", "G", "H"}
)

// deed is one thing that somebody does.
type deed struct {
	what     string
	team     identity.Team
	replicas []int // whose files, or which are started again
	percent  rollout.Percent
	override bool
	window   time.Duration // until a brownout begins; 0 for none
	pause    time.Duration // afterwards
}

func deeds() *rapid.Generator[[]deed] {
	what := []string{
		"edit", "edit", "edit", "edit", "edit", "remove", "break", "unreadable", "set", "set", "glass", "glass", "hold", "hold", "release", "rollback",
		"guard", "guard", "restart", "down", "up", "lose", "mute", "quiet", "quiet",
	}
	subsets := [][]int{{0, 1, 2}, {0, 1, 2}, {0}, {1}, {2}, {0, 2}}
	return rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) deed {
		return deed{
			what: rapid.SampledFrom(what).Draw(rt, "what"), team: rapid.SampledFrom(modelTeams).Draw(rt, "team"),
			replicas: rapid.SampledFrom(subsets).Draw(rt, "replicas"),
			percent:  rollout.Percent(rapid.SampledFrom([]int{0, 10, 25, 50, 75, 100}).Draw(rt, "percent")),
			override: rapid.IntRange(0, 7).Draw(rt, "override") == 0,
			window:   time.Duration(max(0, rapid.IntRange(-20, 5).Draw(rt, "window"))) * time.Minute,
			pause:    time.Duration(rapid.SampledFrom([]int{0, 0, 1, 3, 7, 16, 40}).Draw(rt, "pause")) * time.Second,
		}
	}), 1, 40)
}

func TestReplicasFollowTheModel(t *testing.T) {
	plans := deeds()
	rapid.Check(t, func(rt *rapid.T) {
		plan := plans.Draw(rt, "deeds")
		var err error
		synctest.Test(t, func(t *testing.T) {
			m := newModel(t)
			defer m.end()
			err = m.run(plan)
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// lossy is a store whose answers to writes get lost.
type lossy struct {
	*rollouttest.Memory
	lose atomic.Bool
}

func (l *lossy) Write(ctx context.Context, c rollout.Change) (rollout.State, error) {
	s, err := l.Memory.Write(ctx, c)
	if err == nil && l.lose.Load() {
		return rollout.State{}, fmt.Errorf("%w: the answer is lost", rollout.ErrUnavailable)
	}
	return s, err
}

// member is one of the replicas.
type member struct {
	*replica
	runs  *rollout.Runs
	table *rollout.Table
}

// limit is what the guard allowed from a time on.
type limit struct {
	from time.Time
	upTo rollout.Percent
}

// model is what is known of how it should be.
type model struct {
	t       *testing.T
	site    *site
	store   *lossy
	members [modelReplicas]*member
	starts  int
	limits  []limit
	// asked are the percentages that files ever said, by team; overridden those
	// with an override.
	asked, overridden map[identity.Team]map[rollout.Percent]bool
	// sets are the percentages of settings by their actor, below whether they were
	// below what the team asked for. done are the deeds of which an answer came, by
	// actor.
	sets  map[string]rollout.Percent
	below map[string]bool
	done  map[string]bool
	n     int
	down  bool
}

func newModel(t *testing.T) *model {
	s := newSite(t)
	m := &model{
		t: t, site: s, store: &lossy{Memory: s.store},
		asked: make(map[identity.Team]map[rollout.Percent]bool), overridden: make(map[identity.Team]map[rollout.Percent]bool),
		sets: make(map[string]rollout.Percent), below: make(map[string]bool), done: make(map[string]bool),
	}
	for _, team := range modelTeams {
		m.asked[team], m.overridden[team] = make(map[rollout.Percent]bool), make(map[rollout.Percent]bool)
	}
	m.allow(100)
	for i := range m.members {
		m.start(i, nil)
	}
	m.quiet()
	return m
}

func (m *model) allow(upTo rollout.Percent) {
	m.site.guard.allow(upTo)
	m.limits = append(m.limits, limit{time.Now(), upTo})
}

// start starts a replica, with the files that it had.
func (m *model) start(i int, files map[identity.Team]reconcile.File) {
	r := &replica{t: m.t, files: maps.Clone(files), broken: make(map[identity.Team]string)}
	if r.files == nil {
		r.files = make(map[identity.Team]reconcile.File)
	}
	table, err := rollout.NewTable(rollout.TableOptions{Store: m.store})
	if err != nil {
		m.t.Fatal(err)
	}
	runs, err := rollout.NewRuns(rollout.RunsOptions{Table: table, Store: m.store, LatchRuns: true})
	if err != nil {
		m.t.Fatal(err)
	}
	m.starts++
	r.Reconciler, err = reconcile.New(reconcile.Options{
		Table: table, Lease: m.store, Guard: m.site.guard, Files: r.read, Holder: fmt.Sprint("replica ", m.starts),
		Report: func(error) {},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.members[i] = &member{replica: r, runs: runs, table: table}
}

// stop ends a replica; while the store is away it cannot give its lease back.
func (m *model) stop(i int) map[identity.Team]reconcile.File {
	r := m.members[i]
	_ = errors.Join(r.Close(), r.runs.Close(), r.table.Close())
	return r.files
}

func (m *model) end() {
	for i := range m.members {
		m.stop(i)
	}
}

// quiet waits until nothing is under way: the lease of whoever died has ended
// and the replicas have looked some times since.
func (m *model) quiet() {
	time.Sleep(40 * time.Second)
	synctest.Wait()
}

func (m *model) run(plan []deed) error {
	for i, d := range plan {
		if err := cmp.Or(m.do(d), m.look()); err != nil {
			return fmt.Errorf("deed %d of %d, %+v: %w", i+1, len(plan), d, err)
		}
		if d.pause > 0 {
			time.Sleep(d.pause)
			synctest.Wait()
		}
	}
	return m.finish()
}

func (m *model) do(d deed) error {
	switch d.what {
	case "edit":
		f := file(d.team, d.percent)
		if d.override {
			f.Override, f.Digest = "a test", f.Digest+" with an override"
			m.overridden[d.team][d.percent] = true
		}
		if d.window > 0 {
			from := time.UnixMilli(time.Now().Add(d.window).UnixMilli()).UTC()
			f.Brownouts = []rollout.Brownout{{From: from, Until: from.Add(10 * time.Minute), Percent: 50}}
			f.Digest += fmt.Sprint(" with a window at ", from)
		}
		m.asked[d.team][d.percent] = true
		for _, i := range d.replicas {
			m.members[i].put(f)
		}
	case "remove":
		for _, i := range d.replicas {
			m.members[i].remove(d.team)
		}
	case "break":
		for _, i := range d.replicas {
			m.members[i].breaks(d.team)
		}
	case "unreadable":
		for _, i := range d.replicas {
			m.members[i].fails(errors.New("it cannot be read"))
		}
	case "guard":
		m.allow(d.percent)
	case "restart":
		for _, i := range d.replicas {
			m.start(i, m.stop(i))
		}
	case "down":
		m.down = true
		m.store.SetDown(true)
	case "lose":
		m.store.lose.Store(true)
	case "mute":
		m.store.SetMute(true)
	case "up":
		m.well()
	case "quiet":
		m.well()
		m.quiet()
		return m.agree()
	default:
		return m.ask(d)
	}
	return nil
}

// well takes away all that is wrong with the store.
func (m *model) well() {
	m.down = false
	m.store.SetDown(false)
	m.store.SetMute(false)
	m.store.lose.Store(false)
	for _, r := range m.members {
		r.fails(nil)
	}
}

// ask changes a team as the command line does.
func (m *model) ask(d deed) error {
	m.n++
	by := rollout.Setting{Actor: fmt.Sprint(d.what, " ", m.n), Source: "cli", Reason: "r", Percent: d.percent}
	now := time.Now()
	_, err := rollout.Update(m.t.Context(), m.store, d.team, func(s rollout.State) (rollout.Change, error) {
		switch d.what {
		case "hold":
			return rollout.Brake(s, by, now), nil
		case "release":
			return rollout.Release(s, by, now), nil
		case "rollback":
			return rollout.Rollback(s, by, now)
		case "glass":
			by.Until = now.Add(glass)
		}
		m.sets[by.Actor] = d.percent
		m.below[by.Actor] = s.Request.Made() && d.percent < s.Request.Percent
		return rollout.Set(s, by, now), nil
	})
	m.done[by.Actor] = err == nil
	if err != nil && !errors.Is(err, rollout.ErrUnavailable) && !errors.Is(err, rollout.ErrNothingToRollBack) {
		return err
	}
	return nil
}

// truth is what the store holds, whatever is wrong with the way to it.
func (m *model) truth() (rollout.Snapshot, map[identity.Team][]rollout.Entry, error) {
	if m.down {
		synctest.Wait() // and nobody else looks at the store meanwhile
		m.store.SetDown(false)
		defer m.store.SetDown(true)
	}
	snapshot, err := m.store.Load(m.t.Context())
	if err != nil {
		return snapshot, nil, err
	}
	histories := make(map[identity.Team][]rollout.Entry)
	for _, team := range modelTeams {
		if histories[team], err = m.store.History(m.t.Context(), team, 1000); err != nil {
			return snapshot, nil, err
		}
		slices.Reverse(histories[team])
	}
	return snapshot, histories, nil
}

// look checks that each change of the history has its reason, that none is
// missing, and that none was made twice.
func (m *model) look() error {
	snapshot, histories, err := m.truth()
	if err != nil {
		return err
	}
	made := make(map[string]int)
	for _, team := range modelTeams {
		if err := m.justified(team, snapshot.Teams[team], histories[team]); err != nil {
			return fmt.Errorf("team %s: %w\nhistory: %+v", team, err, histories[team])
		}
		for _, e := range histories[team] {
			if e.Kind != rollout.KindApply { // whose actor is who asked for it then
				made[e.Actor]++
			}
		}
	}
	for actor, answered := range m.done {
		if n := made[actor]; n > 1 || answered && n != 1 {
			return fmt.Errorf("the change of %q is %d times in the history; answered: %t", actor, n, answered)
		}
	}
	return nil
}

func (m *model) justified(team identity.Team, s rollout.State, history []rollout.Entry) error {
	if len(history) != int(s.Revision) {
		return fmt.Errorf("%d entries at revision %d", len(history), s.Revision)
	}
	var live, before rollout.Percent // what it is at, and was at before its last move
	set := make(map[rollout.Percent]bool)
	var held brake
	for i, e := range history {
		if e.Revision != int64(i+1) || e.From != live {
			return fmt.Errorf("entry %d does not follow the one before: %+v", i+1, e)
		}
		if e.To > e.From && (e.Kind == rollout.KindRequest || e.Kind == rollout.KindApply) {
			another := held.another || e.Kind == rollout.KindRequest
			if held.at(e) && (!another || !m.allowed(e)) {
				return fmt.Errorf("it was held: %+v", e)
			}
			held = brake{}
		}
		held.see(e, m.below[e.Actor])
		moves := e.From != e.To
		switch e.Kind {
		case rollout.KindSet:
			if percent, ok := m.sets[e.Actor]; !ok || percent != e.To {
				return fmt.Errorf("nobody has set it: %+v", e)
			}
			set[e.To] = true // which may have become what the team asks for
		case rollout.KindRollback:
			if e.To != before || e.To >= e.From {
				return fmt.Errorf("it was at %s%% before its last raise: %+v", before, e)
			}
		case rollout.KindRequest, rollout.KindApply:
			if moves && !m.asked[team][e.To] && !set[e.To] {
				return fmt.Errorf("nobody asks for it: %+v", e)
			}
			if e.To > e.From && !m.overridden[team][e.To] && !m.allowed(e) {
				return fmt.Errorf("the guard did not allow it: %+v", e)
			}
		default:
			if moves {
				return fmt.Errorf("it does not move a team: %+v", e)
			}
		}
		if moves {
			before = e.From
		}
		live = e.To
	}
	if live != s.Percent {
		return fmt.Errorf("it is at %s%%, the history ends at %s%%", s.Percent, live)
	}
	return nil
}

// brake is what is known of a team's hold: until when it is, zero for no end, and
// whether the team may have asked for another percentage since.
type brake struct {
	on, another bool
	until       time.Time
}

// at reports whether the team was held when a change was made, which may be at
// the very end of the hold.
func (b *brake) at(e rollout.Entry) bool { return b.on && (b.until.IsZero() || e.At.Before(b.until)) }

func (b *brake) see(e rollout.Entry, below bool) {
	endless := b.on && b.until.IsZero()
	switch {
	case e.Kind == rollout.KindRelease:
		*b = brake{}
	case e.Kind == rollout.KindRequest:
		b.another = true
	case e.Kind == rollout.KindSet && strings.HasPrefix(e.Actor, "glass"):
		until := e.At.Add(glass)
		if endless { // a hold without an end does not get one by breaking the glass
			until = time.Time{}
		}
		*b = brake{on: true, until: until}
	case e.Kind == rollout.KindHold, e.Kind == rollout.KindRollback, e.Kind == rollout.KindSet && below:
		*b = brake{on: true}
	}
}

// allowed reports whether the guard allowed a raise when it was made.
func (m *model) allowed(e rollout.Entry) bool {
	at := len(m.limits) - 1
	for at > 0 && m.limits[at].from.After(e.At) {
		at--
	}
	for ; at >= 0; at-- { // it may have been changed at that very time
		if m.limits[at].upTo >= e.To {
			return true
		}
		if m.limits[at].from.Before(e.At.Add(-time.Millisecond)) {
			return false
		}
	}
	return false
}

// agree checks, after some quiet, that nothing is left to do, that no replica
// knows another thing than the store, and that all of them judge a new run the
// same way: by the percentage, or by a window.
func (m *model) agree() error {
	snapshot, _, err := m.truth()
	if err != nil {
		return err
	}
	now := time.Now()
	leaders := 0
	for i, r := range m.members {
		if r.Leads() {
			leaders++
		}
		for _, team := range modelTeams {
			want := snapshot.Teams[team]
			got, _ := r.table.Lookup(team)
			if got.Revision != want.Revision || got.Percent != want.Percent || got.Hold != want.Hold {
				return fmt.Errorf("replica %d: team %s is %+v, the store says %+v", i, team, got, want)
			}
			percent := want.Percent
			if b, ok := want.Brownout(now); ok {
				percent = max(percent, b.Percent)
			}
			for _, pipeline := range modelPipelines {
				m.n++
				e := r.runs.Enforce(m.t.Context(), rollout.Run{
					Team: team, Principal: "svc", ID: fmt.Sprint("w", m.n), Pipeline: pipeline,
				}, false)
				if e.Enforced != rollout.Selected(team, "svc/"+pipeline, percent) && want.Revision > 0 || e.Stale {
					return fmt.Errorf("replica %d: a run of %s and pipeline %s at %s%%: %+v", i, team, pipeline, percent, e)
				}
			}
		}
	}
	if leaders != 1 {
		return fmt.Errorf("%d replicas lead", leaders)
	}
	answer := rollout.Answer{UpTo: m.limits[len(m.limits)-1].upTo}
	for team, s := range snapshot.Teams {
		if step := rollout.Next(s, answer, true, now); step.Outcome.Applies() && !m.blocked(team) {
			return fmt.Errorf("team %s is at %s%% and was left to %s to %s%%", team, s.Percent, step.Outcome, step.To)
		}
	}
	return nil
}

// blocked reports whether a team's file has a mistake on some replica, so that
// nobody can say at what hours it may be raised.
func (m *model) blocked(team identity.Team) bool {
	return slices.ContainsFunc(m.members[:], func(r *member) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		_, broken := r.broken[team]
		return broken
	})
}

// finish lets the teams' leads have their way: whatever happened before, a file
// that reaches all replicas is followed, down at once and up as soon as hold and
// guard are out of the way.
func (m *model) finish() error {
	m.well()
	m.allow(0)
	for _, team := range modelTeams {
		m.everywhere(team, 1)
	}
	m.quiet()
	if err := cmp.Or(m.look(), m.agree(), m.at(1, "a lowering")); err != nil {
		return err
	}
	for _, team := range modelTeams {
		if err := m.ask(deed{what: "release", team: team}); err != nil {
			return err
		}
		m.everywhere(team, 99)
	}
	m.quiet()
	if err := cmp.Or(m.look(), m.agree(), m.at(1, "a raise that the guard does not allow")); err != nil {
		return err
	}
	m.allow(100)
	m.quiet()
	return cmp.Or(m.look(), m.agree(), m.at(99, "a raise"))
}

// everywhere puts a file that nobody has seen before on all replicas.
func (m *model) everywhere(team identity.Team, percent rollout.Percent) {
	m.asked[team][percent] = true
	for _, r := range m.members {
		r.put(file(team, percent))
	}
}

func (m *model) at(want rollout.Percent, what string) error {
	snapshot, _, err := m.truth()
	if err != nil {
		return err
	}
	for _, team := range modelTeams {
		// A team that was never above it is not lowered.
		if got := snapshot.Teams[team].Percent; got != want && (want > 1 || got > want) {
			return fmt.Errorf("%s: team %s is at %s%%, not at %s%%: %+v", what, team, got, want, snapshot.Teams[team])
		}
	}
	return nil
}
