package reconcile_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/reconcile"
	"crossfade/rollout/rollouttest"
)

// The model test changes what may change in random order, on three replicas with
// one store, and looks after each step whether anything happened that nobody
// asked for, and at the end whether all that was asked for has happened.

const (
	modelReplicas = 3
	glass         = time.Minute      // for which it is broken
	window        = 90 * time.Second // of a brownout
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
	begins   time.Duration // until a brownout does; 0 for none
	accounts []string      // that are refused
	pause    time.Duration // afterwards
}

func deeds() *rapid.Generator[[]deed] {
	what := []string{
		"edit", "edit", "edit", "edit", "edit", "remove", "break", "unreadable", "set", "set", "glass", "glass", "hold", "hold", "release", "rollback",
		"guard", "guard", "restart", "down", "up", "lose", "mute", "quiet", "quiet",
		"retire by file", "retire", "leave", "refuse", "refuse", "backup", "flush", "read back", "restore", "restore",
	}
	accounts := [][]string{{"svc-etl"}, {"svc-loader"}, {"svc-etl", "svc-loader"}, {"a stranger", "another"}}
	subsets := [][]int{{0, 1, 2}, {0, 1, 2}, {0}, {1}, {2}, {0, 2}}
	return rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) deed {
		return deed{
			what: rapid.SampledFrom(what).Draw(rt, "what"), team: rapid.SampledFrom(modelTeams).Draw(rt, "team"),
			replicas: rapid.SampledFrom(subsets).Draw(rt, "replicas"),
			percent:  rollout.Percent(rapid.SampledFrom([]int{0, 10, 25, 50, 75, 100}).Draw(rt, "percent")),
			override: rapid.IntRange(0, 7).Draw(rt, "override") == 0,
			begins:   time.Duration(max(0, rapid.IntRange(-20, 5).Draw(rt, "begins"))) * 10 * time.Second,
			accounts: rapid.SampledFrom(accounts).Draw(rt, "accounts"),
			pause:    time.Duration(rapid.SampledFrom([]int{0, 0, 0, 1, 3, 7, 16, 40, 70, 130}).Draw(rt, "pause")) * time.Second,
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

// lossy is a store whose answers to writes get lost. It remembers what each one
// made.
type lossy struct {
	*rollouttest.Memory
	lose atomic.Bool

	mu   sync.Mutex
	made map[identity.Team]map[int64]rollout.State // by revision
}

func (l *lossy) Write(ctx context.Context, c rollout.Change) (rollout.State, error) {
	s, err := l.Memory.Write(ctx, c)
	if err == nil {
		l.mu.Lock()
		l.made[c.Team][s.Revision] = s
		l.mu.Unlock()
	}
	if err == nil && l.lose.Load() {
		return rollout.State{}, fmt.Errorf("%w: the answer is lost", rollout.ErrUnavailable)
	}
	return s, err
}

func (l *lossy) at(team identity.Team, revision int64) rollout.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made[team][revision]
}

// findings is the evidence. It lies in the same store, and is away with it.
type findings struct {
	store *lossy
	mu    sync.Mutex
	runs  map[identity.Team][]evidence.Run
}

func (f *findings) Daily(ctx context.Context, team identity.Team, day evidence.Day) (evidence.Daily, error) {
	if _, err := f.store.History(ctx, team, 0); err != nil {
		return evidence.Daily{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d := evidence.Daily{Runs: make(map[evidence.RunKey]evidence.Run)}
	for i, r := range f.runs[team] {
		if evidence.DayOf(r.First) == day {
			d.Runs[evidence.NewRunKey(r.Account, fmt.Sprint(i))] = r
		}
	}
	return d, nil
}

// refuse refuses accounts now, of which those that are no strangers had a clean
// run an hour ago.
func (f *findings) refuse(team identity.Team, accounts []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, account := range accounts {
		if strings.HasPrefix(account, "svc-") {
			f.runs[team] = append(f.runs[team], evidence.Run{
				Account: account, Legacy: true, Token: true, First: now.Add(-2 * time.Hour), Last: now.Add(-time.Hour),
			})
		}
		f.runs[team] = append(f.runs[team], evidence.Run{
			Account: account, Legacy: true, Enforced: true, Refused: true, Grade: evidence.NoToken, First: now, Last: now, EnforcedFrom: now, LockedOut: now,
		})
	}
}

// refused returns which accounts were refused from a time until another, those
// that were known, and strangers.
func (f *findings) refused(team identity.Team, from, until time.Time) (known, strangers map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known, strangers = make(map[string]bool), make(map[string]bool)
	for _, r := range f.runs[team] {
		switch {
		case !r.Refused || r.First.Before(from) || r.First.After(until):
		case strings.HasPrefix(r.Account, "svc-"):
			known[r.Account] = true
		default:
			strangers[r.Account] = true
		}
	}
	return known, strangers
}

// member is one of the replicas.
type member struct {
	*replica
	runs  *rollout.Runs
	table *rollout.Table
	known *atomic.Pointer[rollout.Snapshot] // its state directory
}

// alert is that somebody was told of a raise, by a replica.
type alert struct {
	start  int
	team   identity.Team
	raised time.Time
}

// worker is a run that goes on.
type worker struct {
	team         identity.Team
	id, pipeline string
	began, seen  time.Time
	enforced     bool
	revision     int64
	on           map[*member]bool // has seen it
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
	limits  []limit // of raises
	leaves  []limit // to retire, at 100
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
	// kept is all that ever was in the histories, stored what must be there now.
	kept, stored map[identity.Team][]rollout.Entry
	// lost are the teams of which the store has lost something; flushed tells that
	// it was all. whole is to be checked: that nothing is lost any more.
	lost           map[identity.Team]bool
	flushed, whole bool
	backup         *rollout.Snapshot
	retire         map[identity.Team]bool // a file asks for it
	findings       *findings
	workers        []*worker

	mu     sync.Mutex
	alerts map[alert]int
}

func newModel(t *testing.T) *model {
	s := newSite(t)
	m := &model{
		t: t, site: s, store: &lossy{Memory: s.store, made: make(map[identity.Team]map[int64]rollout.State)},
		asked: make(map[identity.Team]map[rollout.Percent]bool), overridden: make(map[identity.Team]map[rollout.Percent]bool),
		sets: make(map[string]rollout.Percent), below: make(map[string]bool), done: make(map[string]bool),
		kept: make(map[identity.Team][]rollout.Entry), stored: make(map[identity.Team][]rollout.Entry),
		lost: make(map[identity.Team]bool), retire: make(map[identity.Team]bool), alerts: make(map[alert]int),
	}
	m.findings = &findings{store: m.store, runs: make(map[identity.Team][]evidence.Run)}
	for _, team := range modelTeams {
		m.store.made[team] = make(map[int64]rollout.State)
		m.asked[team], m.overridden[team] = make(map[rollout.Percent]bool), make(map[rollout.Percent]bool)
	}
	m.allow(100)
	m.leave(0)
	for i := range m.members {
		m.start(i, nil, nil)
	}
	m.quiet()
	return m
}

func (m *model) allow(upTo rollout.Percent) {
	m.site.guard.allow(upTo)
	m.limits = append(m.limits, limit{time.Now(), upTo})
}

func (m *model) leave(upTo rollout.Percent) {
	m.site.guard.mu.Lock()
	defer m.site.guard.mu.Unlock()
	m.site.guard.retire = upTo
	m.leaves = append(m.leaves, limit{time.Now(), upTo})
}

// start starts a replica, with the files and what it knew before.
func (m *model) start(i int, files map[identity.Team]reconcile.File, known *rollout.Snapshot) {
	r := &replica{t: m.t, files: maps.Clone(files), broken: make(map[identity.Team]string)}
	if r.files == nil {
		r.files = make(map[identity.Team]reconcile.File)
	}
	state := new(atomic.Pointer[rollout.Snapshot])
	state.Store(known)
	table, err := rollout.NewTable(rollout.TableOptions{
		Store: m.store, Known: known, Changed: func(_, is rollout.Snapshot) { state.Store(&is) },
	})
	if err != nil {
		m.t.Fatal(err)
	}
	synctest.Wait()
	runs, err := rollout.NewRuns(rollout.RunsOptions{Table: table, Store: m.store, LatchRuns: true})
	if err != nil {
		m.t.Fatal(err)
	}
	m.starts++
	start := m.starts
	r.Reconciler, err = reconcile.New(reconcile.Options{
		Table: table, Lease: m.store, Guard: m.site.guard, Files: r.read, Holder: fmt.Sprint("replica ", m.starts),
		Report: func(error) {}, Credentials: func(team identity.Team) []string { return []string{credential(team)} },
		Evidence: m.findings, Alert: func(team identity.Team, _ string) {
			s, _ := table.Lookup(team)
			m.mu.Lock()
			defer m.mu.Unlock()
			m.alerts[alert{start, team, s.RaisedAt}]++
		},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.members[i] = &member{replica: r, runs: runs, table: table, known: state}
	// Each looks at times of its own, so that it is always the same one that is first.
	synctest.Wait()
	time.Sleep(100 * time.Millisecond)
}

// credential is the one that a team has.
func credential(team identity.Team) string { return "basic:" + string(team) }

// stop ends a replica; while the store is away it cannot give its lease back.
func (m *model) stop(i int) (map[identity.Team]reconcile.File, *rollout.Snapshot) {
	r := m.members[i]
	_ = errors.Join(r.Close(), r.runs.Close(), r.table.Close())
	return r.files, r.known.Load()
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
			f.Override, f.Digest = overrideOf(d.percent), f.Digest+" with an override"
			m.overridden[d.team][d.percent] = true
		}
		if d.begins > 0 {
			from := time.UnixMilli(time.Now().Add(d.begins).UnixMilli()).UTC()
			f.Brownouts = []rollout.Brownout{{From: from, Until: from.Add(window), Percent: 50}}
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
			files, known := m.stop(i)
			m.start(i, files, known)
		}
	case "retire by file":
		f := file(d.team, rollout.Full)
		f.Retire, f.Digest = true, "retired"
		m.asked[d.team][rollout.Full], m.retire[d.team] = true, true
		for _, i := range d.replicas {
			m.members[i].put(f)
		}
	case "leave":
		m.leave(rollout.Full * rollout.Percent(len(d.accounts)-1)) // 0 or 100
	case "refuse":
		m.findings.refuse(d.team, d.accounts)
	case "backup", "flush", "read back":
		return m.spoil(d.what)
	case "restore":
		return m.restore()
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

// overrideOf is the reason of an override, which tells what it is for.
func overrideOf(percent rollout.Percent) string { return fmt.Sprintf("a test at %d", percent) }

// spoil takes a backup of the store, empties it, or reads the backup back. What
// no replica has seen nobody can miss, so they see all before.
func (m *model) spoil(what string) error {
	m.well()
	time.Sleep(3 * time.Second)
	synctest.Wait()
	if err := m.look(); err != nil || len(m.lost) > 0 {
		return err
	}
	switch {
	case what == "backup":
		snapshot, err := m.store.Load(m.t.Context())
		m.backup = &snapshot
		return err
	case what == "flush":
		m.store.Flush()
		m.flushed = true
		for _, team := range modelTeams {
			m.lost[team] = len(m.kept[team]) > 0
			m.stored[team] = nil
		}
	case m.backup != nil:
		m.store.ReadBack(*m.backup)
		for _, team := range modelTeams {
			revision := m.backup.Teams[team].Revision
			m.lost[team] = len(m.kept[team]) > 0 && m.kept[team][len(m.kept[team])-1].Revision > revision
			m.stored[team] = slices.DeleteFunc(slices.Clone(m.stored[team]), func(e rollout.Entry) bool { return e.Revision > revision })
		}
	}
	maps.DeleteFunc(m.lost, func(_ identity.Team, lost bool) bool { return !lost })
	return nil
}

// restore puts back what any replica knows.
func (m *model) restore() error {
	for _, r := range m.members {
		known := r.known.Load()
		if known == nil {
			continue
		}
		m.n++
		if _, err := m.store.Restore(m.t.Context(), *known, rollout.Setting{Actor: fmt.Sprint("restore ", m.n), Source: "cli", Reason: "r"}); err != nil {
			if errors.Is(err, rollout.ErrUnavailable) {
				return nil
			}
			return err
		}
	}
	if m.flushed {
		m.workers = nil // the latches are lost for good
	}
	m.flushed, m.whole = false, true
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
	change := func(s rollout.State) (rollout.Change, error) {
		switch d.what {
		case "retire":
			if s.Percent < rollout.Full || s.Retired || m.leaves[len(m.leaves)-1].upTo < rollout.Full {
				return rollout.Change{}, errNoLeave
			}
			by.Percent = rollout.Full
			c := rollout.Set(s, by, now)
			c.Kind, c.Retire, c.Credentials = rollout.KindRetire, true, []string{credential(d.team)}
			return c, nil
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
	}
	var err error
	if len(m.lost) > 0 {
		err = m.askGateway(d.team, change)
	} else {
		_, err = rollout.Update(m.t.Context(), m.store, d.team, change)
	}
	m.done[by.Actor] = err == nil
	for _, expected := range []error{rollout.ErrUnavailable, rollout.ErrNothingToRollBack, rollout.ErrRetired, errNoLeave} {
		if errors.Is(err, expected) {
			return nil
		}
	}
	return err
}

// errNoLeave says that a team may not be retired.
var errNoLeave = errors.New("no leave")

// askGateway changes a team by a replica, which knows what the store has lost. In
// the first moment it may not, and then the revision is another one.
func (m *model) askGateway(team identity.Team, change func(rollout.State) (rollout.Change, error)) error {
	s, _ := m.members[0].table.Lookup(team)
	s.Team = team
	c, err := change(s)
	if err != nil {
		return err
	}
	c.Expect = s.Revision
	_, err = m.members[0].table.Write(m.t.Context(), c)
	switch {
	case errors.Is(err, rollout.ErrRegressed), errors.Is(err, rollout.ErrConflict):
		return rollout.ErrUnavailable // which is expected
	case err == nil && m.lost[team]:
		return errors.New("a change of what the store has lost was made")
	}
	return err
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
		if err := cmp.Or(m.remember(team, histories[team]), m.justified(team, snapshot.Teams[team])); err != nil {
			return fmt.Errorf("team %s: %w\nhistory: %+v", team, err, m.kept[team])
		}
		for _, e := range m.kept[team] {
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
	if m.whole && len(m.lost) > 0 {
		return fmt.Errorf("restored, and still lost: %v", m.lost)
	}
	m.whole = false
	return nil
}

// remember takes what is new in a history. What was there must be there, and of
// what was lost nothing changes until it is put back.
func (m *model) remember(team identity.Team, history []rollout.Entry) error {
	was := m.stored[team]
	if len(history) < len(was) || !slices.Equal(history[:len(was)], was) {
		return fmt.Errorf("the history was %+v, and is %+v", was, history)
	}
	m.stored[team] = history
	for _, e := range history[len(was):] {
		if m.lost[team] != (e.Kind == rollout.KindRestore) {
			return fmt.Errorf("the store has lost the team: %t, and then: %+v", m.lost[team], e)
		}
		delete(m.lost, team)
		m.kept[team] = append(m.kept[team], e)
	}
	return nil
}

func (m *model) justified(team identity.Team, s rollout.State) error {
	var live, before rollout.Percent // what it is at, and was at before its last move
	var raised time.Time
	retired := false
	set := make(map[rollout.Percent]bool)
	var held brake
	history := m.kept[team]
	for i, e := range history {
		if e.Revision != int64(i+1) || e.From != live && e.Kind != rollout.KindRestore {
			return fmt.Errorf("entry %d does not follow the one before: %+v", i+1, e)
		}
		if retired && (e.To != rollout.Full || !e.Retired) || e.Retired != (retired || e.Kind == rollout.KindRetire) {
			return fmt.Errorf("retired: %t, and then: %+v", retired, e)
		}
		retired = e.Retired
		if o := m.store.at(team, e.Revision).Request; o.Override != "" && o.Override != overrideOf(o.Percent) {
			return fmt.Errorf("the override of another percentage is left over: %+v, request %+v", e, o)
		}
		if e.To > e.From && (e.Kind == rollout.KindRequest || e.Kind == rollout.KindApply) {
			another := held.another || e.Kind == rollout.KindRequest
			if held.at(e) && (!another || !allowed(m.limits, e)) {
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
			if known, _ := m.findings.refused(team, raised, e.At.Add(time.Millisecond)); e.Source == "rollback" && len(known) < 2 {
				return fmt.Errorf("taken back, and refused are %v: %+v", known, e)
			}
		case rollout.KindRequest, rollout.KindApply:
			if moves && !m.asked[team][e.To] && !set[e.To] {
				return fmt.Errorf("nobody asks for it: %+v", e)
			}
			overridden := m.overridden[team][e.To] && m.store.at(team, e.Revision).Request.Override != ""
			if e.To > e.From && !overridden && !allowed(m.limits, e) {
				return fmt.Errorf("the guard did not allow it: %+v", e)
			}
		case rollout.KindRetire:
			asked := strings.HasPrefix(e.Actor, "retire") || m.retire[team] && !held.at(e)
			if moves || !asked || !allowed(m.leaves, e) {
				return fmt.Errorf("nobody may retire it: %+v", e)
			}
		case rollout.KindRestore:
			if e.To != live {
				return fmt.Errorf("it was at %s%% before it was lost: %+v", live, e)
			}
			continue // the team has not moved
		default:
			if moves {
				return fmt.Errorf("it does not move a team: %+v", e)
			}
		}
		if moves {
			before = e.From
		}
		if e.To > e.From {
			raised = e.At
		}
		live = e.To
	}
	if m.lost[team] {
		return nil
	}
	if live != s.Percent || len(history) != int(s.Revision) || s.Retired != retired {
		return fmt.Errorf("it is %+v, the history ends at %s%%", s, live)
	}
	if retired && !slices.Equal(s.Credentials, []string{credential(team)}) {
		return fmt.Errorf("it is retired, and its credentials are %q", s.Credentials)
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

// allowed reports whether a change was allowed when it was made.
func allowed(limits []limit, e rollout.Entry) bool {
	at := len(limits) - 1
	for at > 0 && limits[at].from.After(e.At) {
		at--
	}
	for ; at >= 0; at-- { // it may have been changed at that very time
		if limits[at].upTo >= e.To {
			return true
		}
		if limits[at].from.Before(e.At.Add(-time.Millisecond)) {
			return false
		}
	}
	return false
}

// agree checks, after some quiet, that nothing is left to do, that no replica
// knows another thing than the store, or than it was where the store has lost
// something, and that all of them judge a run the same way.
func (m *model) agree() error {
	snapshot, _, err := m.truth()
	if err != nil {
		return err
	}
	if leaders := slices.DeleteFunc(slices.Clone(m.members[:]), func(r *member) bool { return !r.Leads() }); len(leaders) != 1 {
		return fmt.Errorf("%d replicas lead", len(leaders))
	}
	now := time.Now()
	for i, r := range m.members {
		if lost := len(m.lost) > 0; r.table.Regressed() != lost {
			return fmt.Errorf("replica %d: the store has lost something: %t; it knows: %t", i, lost, r.table.Regressed())
		}
		for _, team := range modelTeams {
			if err := m.knows(r, team, snapshot.Teams[team], now); err != nil {
				return fmt.Errorf("replica %d, team %s: %w", i, team, err)
			}
		}
	}
	if err := m.stick(now); err != nil {
		return err
	}
	if len(m.lost) > 0 {
		return nil // and nothing can be done
	}
	answer := rollout.Answer{UpTo: m.limits[len(m.limits)-1].upTo}
	for team, s := range snapshot.Teams {
		if s.Request.Retire && s.Percent == rollout.Full {
			answer.UpTo = m.leaves[len(m.leaves)-1].upTo
		}
		if step := rollout.Next(s, answer, true, now); step.Outcome.Applies() && !m.blocked(team) {
			return fmt.Errorf("team %s is at %s%% and was left to %s to %s%%", team, s.Percent, step.Outcome, step.To)
		}
		if err := m.watched(team, s, now); err != nil {
			return fmt.Errorf("team %s: %w", team, err)
		}
	}
	return nil
}

// knows checks what a replica knows of a team, and how it judges new runs.
func (m *model) knows(r *member, team identity.Team, want rollout.State, now time.Time) error {
	got, _ := r.table.Lookup(team)
	history := m.kept[team]
	switch {
	case m.lost[team]:
		if last := history[len(history)-1]; got.Revision != last.Revision || got.Percent != last.To || got.Retired != last.Retired {
			return fmt.Errorf("it is %+v, and was before it was lost %+v", got, last)
		}
	case len(m.lost) > 0: // and what is not lost may have changed before that was seen
	case got.Revision != want.Revision || got.Percent != want.Percent || got.Hold != want.Hold:
		return fmt.Errorf("it is %+v, the store says %+v", got, want)
	}
	if got.Retired != r.table.CredentialRetired(credential(team)) {
		return fmt.Errorf("retired: %t, its credential is: %t", got.Retired, !got.Retired)
	}
	percent := got.Percent
	if b, ok := got.Brownout(now); ok {
		percent = max(percent, b.Percent)
	}
	stale := len(m.lost) > 0
	if stale { // by the lower one of the last two, and no window
		percent = got.Cautious(now)
	}
	for _, pipeline := range modelPipelines {
		m.n++
		e := r.runs.Enforce(m.t.Context(), rollout.Run{Team: team, Principal: "svc", ID: fmt.Sprint("w", m.n), Pipeline: pipeline}, false)
		selected := got.Retired || got.Revision > 0 && rollout.Selected(team, "svc/"+pipeline, percent)
		if e.Enforced != selected || e.Stale != (stale && !got.Retired) { // a retired team needs no latch
			return fmt.Errorf("a run of pipeline %s at %s%%: %+v", pipeline, percent, e)
		}
	}
	return nil
}

// stick checks that runs which go on are judged as they were at their beginning:
// raising changes nothing for them, a lowering frees those that it is for, and a
// window ends. It begins new ones.
func (m *model) stick(now time.Time) error {
	lost := len(m.lost) > 0
	m.workers = slices.DeleteFunc(m.workers, func(w *worker) bool { return now.Sub(w.seen) >= rollout.LatchIdle })
	for _, w := range m.workers {
		for i, r := range m.members {
			if lost && !w.on[r] {
				continue // it cannot look up how the run was judged
			}
			w.on[r] = true
			s, _ := r.table.Lookup(w.team)
			key := "svc/" + w.pipeline
			if w.enforced && w.revision < s.LoweredRevision {
				w.enforced, w.revision = rollout.Selected(w.team, key, s.Percent), s.Revision
			}
			want := w.enforced || s.Retired
			if b, ok := s.Brownout(now); ok && b.Percent > s.Percent && !w.began.Before(b.From) {
				want = want || rollout.Selected(w.team, key, b.Percent)
			}
			e := r.runs.Enforce(m.t.Context(), rollout.Run{Team: w.team, Principal: "svc", ID: w.id, Pipeline: w.pipeline}, false)
			if e.Enforced != want {
				return fmt.Errorf("replica %d: run %+v: %+v, while the team is %+v", i, w, e, s)
			}
		}
		w.seen = now
	}
	if lost {
		return nil
	}
	for _, team := range modelTeams {
		m.n++
		s, _ := m.members[0].table.Lookup(team)
		pipeline := modelPipelines[m.n%len(modelPipelines)]
		w := &worker{
			team: team, id: fmt.Sprint("worker ", m.n), pipeline: pipeline, began: now, seen: now,
			enforced: s.Revision > 0 && rollout.Selected(team, "svc/"+pipeline, s.Percent), revision: s.Revision,
			on: make(map[*member]bool),
		}
		r := m.members[m.n%modelReplicas]
		w.on[r] = true
		r.runs.Enforce(m.t.Context(), rollout.Run{Team: team, Principal: "svc", ID: w.id, Pipeline: pipeline}, false)
		m.workers = append(m.workers, w)
	}
	return nil
}

// watched checks that a raise which hurts was taken back, or that somebody was
// told once by each replica at most.
func (m *model) watched(team identity.Team, s rollout.State, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	told := false
	for a, n := range m.alerts {
		if n > 1 {
			return fmt.Errorf("an alert %d times: %+v", n, a)
		}
		told = told || a.team == team && a.raised.Equal(s.RaisedAt)
	}
	if s.Retired || !s.LastRaised() {
		return nil
	}
	known, strangers := m.findings.refused(team, s.RaisedAt, now)
	if len(known) > 1 {
		return fmt.Errorf("%v are refused since its raise, and it is at %s%% still", known, s.Percent)
	}
	if some := len(known)+len(strangers) > 0; some && !told {
		return fmt.Errorf("%v and %v are refused since its raise, and nobody was told", known, strangers)
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
	if len(m.lost) > 0 {
		m.quiet()
		if err := cmp.Or(m.look(), m.agree(), m.restore(), m.look()); err != nil {
			return err
		}
	}
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
		if got := snapshot.Teams[team].Percent; !snapshot.Teams[team].Retired && got != want && (want > 1 || got > want) {
			return fmt.Errorf("%s: team %s is at %s%%, not at %s%%: %+v", what, team, got, want, snapshot.Teams[team])
		}
	}
	return nil
}
