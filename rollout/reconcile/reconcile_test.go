package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/reconcile"
	"crossfade/rollout/rollouttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// guard allows up to a percentage.
type guard struct {
	mu   sync.Mutex
	upTo rollout.Percent
	// retire is 100 if retirement is allowed.
	retire rollout.Percent
	err    error
	since  time.Time
	asked  int
}

func (g *guard) MayRaise(_ context.Context, _ rollout.State, since time.Time) (rollout.Answer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.since = since
	g.asked++
	return rollout.Answer{UpTo: g.upTo, Why: fmt.Sprintf("good up to %d", g.upTo), Owner: "team"}, g.err
}

func (g *guard) MayRetire(context.Context, rollout.State) (rollout.Answer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return rollout.Answer{UpTo: g.retire, Why: "no password for 14 days", Owner: "team"}, g.err
}

func (g *guard) allow(upTo rollout.Percent) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.upTo = upTo
}

// replica is one gateway with its own rollout directory.
type replica struct {
	t *testing.T
	*reconcile.Reconciler
	table *rollout.Table

	mu       sync.Mutex
	files    map[identity.Team]reconcile.File
	broken   map[identity.Team]string
	err      error
	reported []error
	alerts   []string
}

// site is what replicas share.
type site struct {
	t     *testing.T
	store *rollouttest.Memory
	guard *guard
	// evidence is what raises are taken back by; nil for none.
	evidence *seenRuns
}

func newSite(t *testing.T) *site {
	return &site{t: t, store: rollouttest.NewMemory(), guard: &guard{upTo: 100}}
}

// start starts a replica with files that say percentages.
func (s *site) start(name string, percents map[identity.Team]rollout.Percent) *replica {
	s.t.Helper()
	r := &replica{t: s.t, files: make(map[identity.Team]reconcile.File), broken: make(map[identity.Team]string)}
	for team, percent := range percents {
		r.says(team, percent)
	}
	var err error
	if r.table, err = rollout.NewTable(rollout.TableOptions{Store: s.store}); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
	o := reconcile.Options{
		Table: r.table, Lease: s.store, Guard: s.guard, Files: r.read, Holder: name,
		Credentials: func(team identity.Team) []string { return []string{"basic:" + string(team)} },
		Report:      func(err error) { r.reported = append(r.reported, err) },
		Alert:       func(_ identity.Team, why string) { r.alerts = append(r.alerts, why) },
	}
	if s.evidence != nil {
		o.Evidence = s.evidence
	}
	r.Reconciler, err = reconcile.New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// end ends the replica as a rolling update does.
func (r *replica) end() {
	r.t.Helper()
	if err := errors.Join(r.Close(), r.table.Close()); err != nil {
		r.t.Error(err)
	}
}

func (r *replica) read() (files []reconcile.File, broken map[identity.Team]string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.files {
		files = append(files, f)
	}
	return files, maps.Clone(r.broken), r.err
}

func file(team identity.Team, percent rollout.Percent) reconcile.File {
	return reconcile.File{Team: team, Name: string(team) + ".yaml", Digest: percent.String(), Percent: percent}
}

// says replaces a team's file.
func (r *replica) says(team identity.Team, percent rollout.Percent) { r.put(file(team, percent)) }

func (r *replica) put(f reconcile.File) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[f.Team] = f
	delete(r.broken, f.Team)
}

func (r *replica) remove(team identity.Team) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.files, team)
}

// breaks puts a mistake into a team's file.
func (r *replica) breaks(team identity.Team) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.files, team)
	r.broken[team] = string(team) + ".yaml"
}

// fails makes reading of all files fail; nil ends that.
func (r *replica) fails(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// settle lets all replicas look some times.
func settle() {
	time.Sleep(20 * time.Second)
	synctest.Wait()
}

// at fails the test unless the team is at a percentage.
func (s *site) at(team identity.Team, want rollout.Percent) rollout.State {
	s.t.Helper()
	snapshot, err := s.store.Load(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	state := snapshot.Teams[team]
	if state.Percent != want {
		s.t.Errorf("%s is at %s%%, want %s%%", team, state.Percent, want)
	}
	return state
}

func (s *site) entries(team identity.Team) []rollout.Entry {
	s.t.Helper()
	entries, err := s.store.History(s.t.Context(), team, 100)
	if err != nil {
		s.t.Fatal(err)
	}
	return entries
}

// try runs a test in a bubble of its own time.
func try(t *testing.T, test func(*testing.T, *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newSite(t)) })
}

func TestAFileThatChangesIsFollowedOnce(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 10})
		defer a.end()
		b := s.start("b", map[identity.Team]rollout.Percent{"data-eng": 10})
		defer b.end()
		settle()
		s.at("data-eng", 10)
		for _, r := range []*replica{a, b} {
			r.says("data-eng", 50)
		}
		settle()
		state := s.at("data-eng", 50)
		if len(s.entries("data-eng")) != 2 || state.Request.Actor != "data-eng.yaml" || state.Request.Source != "file" {
			t.Errorf("history: %+v", s.entries("data-eng"))
		}
		for _, r := range []*replica{a, b} {
			if got := r.Status()["data-eng"].Management; got != reconcile.Managed {
				t.Errorf("%s", got)
			}
		}
		if a.Leads() == b.Leads() {
			t.Errorf("a leads: %t, b leads: %t", a.Leads(), b.Leads())
		}
	})
}

func TestARaiseWaitsForItsChecksAndThenFollows(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		s.guard.allow(0)
		a := s.start("a", nil)
		defer a.end()
		settle()
		a.says("data-eng", 25)
		settle()
		state := s.at("data-eng", 0)
		if state.Request.Percent != 25 || a.Status()["data-eng"].Step.Outcome != rollout.Pending {
			t.Errorf("pending: %+v, %+v", state.Request, a.Status())
		}
		settle()
		if n := len(s.entries("data-eng")); n != 1 {
			t.Errorf("waiting has written %d entries", n)
		}
		s.guard.allow(25)
		settle()
		s.at("data-eng", 25)
		entries := s.entries("data-eng")
		if len(entries) != 2 || entries[0].Kind != rollout.KindApply || entries[0].Evidence != "good up to 25" || entries[0].Actor != "data-eng.yaml" {
			t.Errorf("history: %+v", entries)
		}
	})
}

func TestALoweringFollowsWithoutAnyEvidence(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 50})
		defer a.end()
		settle()
		s.guard.err = errors.New("no evidence at all")
		a.says("data-eng", 5)
		settle()
		s.at("data-eng", 5)
		a.says("data-eng", 6)
		settle()
		s.at("data-eng", 5)
		if step := a.Status()["data-eng"].Step; step.Outcome != rollout.Pending || !strings.Contains(step.Why, "no evidence at all") {
			t.Errorf("a raise without evidence: %+v", step)
		}
	})
}

func TestARestartWithAnOldFileNeverFlapsATeam(t *testing.T) {
	for name, test := range map[string]struct {
		file, want rollout.Percent
		management reconcile.Management
	}{
		"the same file":      {50, 50, reconcile.Managed},
		"a file that raises": {80, 50, reconcile.Differs},
		"a file that lowers": {10, 10, reconcile.Managed},
	} {
		t.Run(name, func(t *testing.T) {
			try(t, func(t *testing.T, s *site) {
				a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 20})
				settle()
				a.says("data-eng", 50)
				settle()
				a.end()
				s.at("data-eng", 50)
				b := s.start("b", map[identity.Team]rollout.Percent{"data-eng": test.file})
				defer b.end()
				settle()
				s.at("data-eng", test.want)
				if got := b.Status()["data-eng"].Management; got != test.management {
					t.Errorf("%s, want %s", got, test.management)
				}
				b.says("data-eng", 60) // an edit counts
				settle()
				s.at("data-eng", 60)
			})
		})
	}
}

func TestReplicasWithDifferentFilesDoNotFlapATeam(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 10})
		settle()
		b := s.start("b", map[identity.Team]rollout.Percent{"data-eng": 10})
		defer b.end()
		settle()
		a.says("data-eng", 50) // the update reaches a alone
		settle()
		s.at("data-eng", 50)
		a.end() // and the lease goes to b, whose file is the old one
		settle()
		if !b.Leads() {
			t.Fatal("b has no lease")
		}
		s.at("data-eng", 50)
		if got := b.Status()["data-eng"].Management; got != reconcile.Differs {
			t.Errorf("%s", got)
		}
		b.says("data-eng", 50) // the update arrives
		settle()
		s.at("data-eng", 50)
		if got := b.Status()["data-eng"].Management; got != reconcile.Managed || len(s.entries("data-eng")) != 2 {
			t.Errorf("%s, history %+v", got, s.entries("data-eng"))
		}
	})
}

func TestARevertedFileIsFollowed(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 10})
		defer a.end()
		for _, percent := range []rollout.Percent{50, 10, 50} {
			settle()
			a.says("data-eng", percent)
			settle()
			s.at("data-eng", percent)
		}
	})
}

// A replica starts whose mount is late, and gets the lease.
func TestAMountThatIsLateDoesNotFlapATeam(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 10})
		settle()
		a.says("data-eng", 50)
		settle()
		a.end()
		b := s.start("b", map[identity.Team]rollout.Percent{"data-eng": 10})
		defer b.end()
		for range 4 {
			settle()
			s.at("data-eng", 50)
		}
		if got := b.Status()["data-eng"].Management; !b.Leads() || got != reconcile.Differs {
			t.Errorf("it leads: %t, %s", b.Leads(), got)
		}
		b.says("data-eng", 50) // the mount catches up
		settle()
		s.at("data-eng", 50)
		if n := len(s.entries("data-eng")); n != 2 {
			t.Errorf("%d entries, want 2: %+v", n, s.entries("data-eng"))
		}
		b.says("data-eng", 10) // and what it sees change is a revert
		settle()
		s.at("data-eng", 10)
	})
}

func TestARevertThatComesWithARestartIsFollowedWhenNoMountCanBeLateAnyMore(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 10})
		for _, percent := range []rollout.Percent{50, 10, 50} {
			settle()
			a.says("data-eng", percent)
		}
		settle()
		a.end()
		b := s.start("b", map[identity.Team]rollout.Percent{"data-eng": 10})
		defer b.end()
		time.Sleep(time.Minute)
		synctest.Wait()
		s.at("data-eng", 50)
		time.Sleep(time.Minute + 10*time.Second)
		synctest.Wait()
		if state := s.at("data-eng", 10); len(state.Request.Past) != 1 || state.Request.Past[0] != "50" {
			t.Errorf("the request remembers %q", state.Request.Past)
		}
	})
}

func TestADeletedFileChangesNothing(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 50})
		defer a.end()
		settle()
		a.remove("data-eng")
		settle()
		s.at("data-eng", 50)
		if got := a.Status()["data-eng"].Management; got != reconcile.Unmanaged {
			t.Errorf("%s", got)
		}
		a.says("data-eng", 70)
		settle()
		s.at("data-eng", 70)
	})
}

func TestAFileThatIsPutBackReplacesWhatWasAskedForMeanwhile(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 50})
		defer a.end()
		settle()
		a.remove("data-eng")
		settle()
		ask := func(percent rollout.Percent) {
			t.Helper()
			if _, err := rollout.Update(t.Context(), s.store, "data-eng", func(was rollout.State) (rollout.Change, error) {
				r := rollout.Request{Percent: percent, Digest: was.Request.Digest, Source: "api", Actor: "ops"}
				return rollout.Ask(was, r, rollout.Step{Outcome: rollout.Raise, From: was.Percent, To: percent}, time.Now()), nil
			}); err != nil {
				t.Fatal(err)
			}
			settle()
		}
		ask(70)
		s.at("data-eng", 70)
		a.says("data-eng", 50) // as it was
		settle()
		s.at("data-eng", 50)
		if got := a.Status()["data-eng"].Management; got != reconcile.Managed {
			t.Errorf("%s", got)
		}
		ask(60) // in the place of a file that is there
		s.at("data-eng", 60)
		if got := a.Status()["data-eng"].Management; got != reconcile.Differs {
			t.Errorf("%s", got)
		}
		a.breaks("data-eng") // and a mistake that is taken back changes nothing
		settle()
		a.says("data-eng", 50)
		settle()
		s.at("data-eng", 60)
	})
}

func TestAMistakeLeavesTheTeamAndTheOthers(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 10, "search": 10})
		defer a.end()
		settle()
		a.breaks("data-eng")
		a.says("search", 20)
		settle()
		s.at("data-eng", 10)
		s.at("search", 20)
		if got := a.Status()["data-eng"]; got.Management != reconcile.Broken || got.File != "data-eng.yaml" {
			t.Errorf("%+v", got)
		}
		a.fails(errors.New("the directory is gone"))
		settle()
		s.at("search", 20)
		if len(a.reported) == 0 || a.reported[len(a.reported)-1] == nil {
			t.Error("nobody hears that no file can be read")
		}
	})
}

func TestAHoldOutranksTheFileUntilItAsksForAnother(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 10})
		defer a.end()
		settle()
		a.says("data-eng", 50)
		settle()
		state := s.at("data-eng", 50)
		rollback, err := rollout.Rollback(state, rollout.Setting{Actor: "sre", Source: "cli", Reason: "aud_mismatch"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.store.Write(t.Context(), rollback); err != nil {
			t.Fatal(err)
		}
		placed := rollback.Hold.At
		settle()
		s.at("data-eng", 10)
		if step := a.Status()["data-eng"].Step; step.Outcome != rollout.Held || step.Why != "aud_mismatch" {
			t.Errorf("held: %+v", step)
		}
		s.guard.allow(20)
		a.says("data-eng", 30)
		settle()
		s.at("data-eng", 10)
		if !s.guard.since.Equal(placed) {
			t.Errorf("the guard looks at evidence since %s, the hold is of %s", s.guard.since, placed)
		}
		s.guard.allow(30)
		settle()
		state = s.at("data-eng", 30)
		if state.Hold.Active(time.Now()) {
			t.Error("the hold is still there")
		}
	})
}

func TestAnOverrideDoesNotCarryTheNextRaise(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		s.guard.allow(0)
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 0})
		defer a.end()
		settle()
		f := file("data-eng", 20)
		f.Override, f.Digest = "a test", "20 with override"
		a.put(f)
		settle()
		s.at("data-eng", 20)
		a.says("data-eng", 30)
		settle()
		state := s.at("data-eng", 20)
		if state.Request.Override != "" {
			t.Errorf("the request has the override %q", state.Request.Override)
		}
	})
}

func TestRaisesWaitForTheirHours(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 0})
		defer a.end()
		settle()
		opens := time.Now().Add(time.Hour)
		f := file("data-eng", 20)
		f.Open = func(at time.Time) bool { return !at.Before(opens) }
		a.put(f)
		settle()
		s.at("data-eng", 0)
		if step := a.Status()["data-eng"].Step; step.Outcome != rollout.Closed {
			t.Errorf("%+v", step)
		}
		time.Sleep(time.Until(opens))
		settle()
		s.at("data-eng", 20)
	})
}

func TestTheStoreMayBeAwayForAWhile(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 10})
		defer a.end()
		settle()
		s.store.SetDown(true)
		a.says("data-eng", 50)
		settle()
		s.store.SetDown(false)
		settle()
		s.at("data-eng", 50) // it is not lost
		if len(s.entries("data-eng")) != 2 {
			t.Errorf("history: %+v", s.entries("data-eng"))
		}
		if n := len(a.reported); n < 2 || a.reported[n-1] != nil {
			t.Errorf("reported: %v", a.reported)
		}
	})
}

func TestALeaderThatDiesIsFollowed(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		if held, err := s.store.Lease(t.Context(), "dead", 15*time.Second); !held || err != nil {
			t.Fatal(held, err)
		}
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 10})
		defer a.end()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if a.Leads() {
			t.Fatal("two lead")
		}
		settle()
		s.at("data-eng", 10)
	})
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	if _, err := reconcile.New(reconcile.Options{}); err == nil {
		t.Error("no error")
	}
}

func TestRaisesWaitWhileTheirFileHasAMistake(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 0})
		defer a.end()
		settle()
		f := file("data-eng", 20)
		f.Open = func(time.Time) bool { return false }
		a.put(f)
		settle()
		a.breaks("data-eng")
		settle()
		s.at("data-eng", 0) // nobody knows at what hours
		f.Open = nil
		a.put(f)
		settle()
		s.at("data-eng", 20)
	})
}

func TestAMistakeThatIsTakenBackIsNoChange(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 10})
		defer a.end()
		settle()
		asked := rollout.Request{Percent: 50, Digest: "another file", Source: "api", Actor: "pipeline"}
		if _, err := rollout.Update(t.Context(), s.store, "data-eng", func(was rollout.State) (rollout.Change, error) {
			return rollout.Ask(was, asked, rollout.Step{Outcome: rollout.Raise, To: 50}, time.Now()), nil
		}); err != nil {
			t.Fatal(err)
		}
		settle()
		a.breaks("data-eng")
		settle()
		a.says("data-eng", 10) // as it was all the time
		settle()
		s.at("data-eng", 50)
		if got := a.Status()["data-eng"].Management; got != reconcile.Differs {
			t.Errorf("%s", got)
		}
	})
}

func TestWhoCanReadFilesGetsTheLeaseWheneverItLooks(t *testing.T) {
	for _, later := range []time.Duration{0, 100 * time.Millisecond, 900 * time.Millisecond, 1500 * time.Millisecond} {
		t.Run(later.String(), func(t *testing.T) {
			try(t, func(t *testing.T, s *site) {
				a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 10})
				defer a.end()
				settle()
				time.Sleep(later) // the looks of the two are so far apart
				b := s.start("b", map[identity.Team]rollout.Percent{"data-eng": 10})
				defer b.end()
				settle()
				a.fails(errors.New("the directory is gone"))
				b.says("data-eng", 50)
				settle()
				s.at("data-eng", 50)
				if a.Leads() || !b.Leads() {
					t.Error("who can read files does not lead")
				}
			})
		})
	}
}

func TestWhatIsAskedForInThePlaceOfAFileDiffersFromIt(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 10})
		defer a.end()
		settle()
		if _, err := rollout.Update(t.Context(), s.store, "data-eng", func(was rollout.State) (rollout.Change, error) {
			return rollout.Set(was, rollout.Setting{Percent: 50, Actor: "ops", Source: "cli"}, time.Now()), nil
		}); err != nil {
			t.Fatal(err)
		}
		settle()
		s.at("data-eng", 50)
		if got := a.Status()["data-eng"].Management; got != reconcile.Differs {
			t.Errorf("a file that says 10 while 50 is asked for: %s", got)
		}
		a.says("data-eng", 20) // and an edit counts
		settle()
		s.at("data-eng", 20)
		if got := a.Status()["data-eng"].Management; got != reconcile.Managed {
			t.Errorf("after an edit: %s", got)
		}
	})
}

func TestWithoutFilesHoldsAndRequestsAreStillFollowed(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 10})
		defer a.end()
		settle()
		a.fails(errors.New("the directory is gone"))
		if _, err := rollout.Update(t.Context(), s.store, "data-eng", func(was rollout.State) (rollout.Change, error) {
			return rollout.Ask(was, rollout.Request{Percent: 50, Source: "api", Actor: "pipeline"}, rollout.Step{Outcome: rollout.Pending}, time.Now()), nil
		}); err != nil {
			t.Fatal(err)
		}
		settle()
		s.at("data-eng", 50)
		b := s.start("b", map[identity.Team]rollout.Percent{"data-eng": 5})
		defer b.end()
		settle()
		s.at("data-eng", 5) // who can read files leads
		if !b.Leads() {
			t.Error("who can read files does not lead")
		}
	})
}

func TestARaiseIsTakenBackWithoutFiles(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		s.evidence = &seenRuns{}
		a := s.start("a", nil)
		defer a.end()
		settle()
		a.fails(errors.New("the directory is gone"))
		s.evidence.see(clean("svc-etl"), clean("svc-loader"))
		s.raise()
		s.evidence.see(refused("svc-etl"), refused("svc-loader"))
		settle()
		s.at("data-eng", 25)
	})
}

func TestATeamIsRetiredByItsFileWhenNothingIsInTheWay(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", map[identity.Team]rollout.Percent{"growth": 50})
		settle()
		f := file("growth", 100)
		f.Retire, f.Digest = true, "retired"
		a.put(f)
		settle()
		state := s.at("growth", 100)
		if state.Retired || a.Status()["growth"].Step.Outcome != rollout.Pending {
			t.Errorf("without leave: %+v, %+v", state, a.Status()["growth"].Step)
		}
		s.guard.mu.Lock()
		s.guard.retire = 100
		s.guard.mu.Unlock()
		settle()
		state = s.at("growth", 100)
		if !state.Retired || len(state.Credentials) != 1 || state.Credentials[0] != "basic:growth" {
			t.Errorf("retired: %+v", state)
		}
		if e := s.entries("growth")[0]; e.Kind != rollout.KindRetire || e.Evidence != "no password for 14 days" {
			t.Errorf("the entry: %+v", e)
		}
		if !a.table.CredentialRetired("basic:growth") || a.table.CredentialRetired("basic:other") {
			t.Error("the credential is not known as retired, or another one is")
		}
		a.says("growth", 10) // a file cannot undo it
		settle()
		s.at("growth", 100)
		a.end()
	})
}

func TestALongTroubleOfManyReasonsIsToldOfAFewTimes(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		a := s.start("a", nil)
		defer a.end()
		for i := range 1800 { // an hour
			a.fails(fmt.Errorf("read tcp 10.0.0.1:%d: connection reset by peer", 40_000+i))
			time.Sleep(reconcile.DefaultEvery)
		}
		a.fails(nil)
		settle()
		if n := len(a.reported); n < 3 || n > 20 || a.reported[n-1] != nil {
			t.Errorf("in an hour it is told of %d times: %v", n, a.reported)
		}
	})
}
