package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
	"crossfade/rollout/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store keeps replicas in memory, by the clock of its bubble.
type store struct {
	mu       sync.Mutex
	err      error
	gapErr   error
	replicas map[string]fleet.Replica
	gaps     []evidence.Gap
	ahead    time.Duration // of the clocks of the replicas
}

func newStore() *store { return &store{replicas: make(map[string]fleet.Replica)} }

func (s *store) fail(all, gaps error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.gapErr = all, gaps
}

func (s *store) Beat(_ context.Context, r fleet.Replica) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		r.Seen = time.Now().Add(s.ahead)
		s.replicas[r.ID] = r
	}
	return s.err
}

func (s *store) Leave(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		delete(s.replicas, id)
	}
	return s.err
}

func (s *store) Fleet(context.Context) (all []fleet.Replica, now time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.replicas {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b fleet.Replica) int { return strings.Compare(a.ID, b.ID) })
	return all, time.Now().Add(s.ahead), s.err
}

func (s *store) Bury(_ context.Context, r fleet.Replica) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || !s.replicas[r.ID].Seen.Equal(r.Seen) {
		return false, s.err
	}
	delete(s.replicas, r.ID)
	return true, nil
}

func (s *store) Gap(_ context.Context, gap evidence.Gap) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gapErr == nil {
		s.gaps = append(s.gaps, gap)
	}
	return s.gapErr
}

func (s *store) noted() []evidence.Gap {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.gaps)
}

// slow is a store whose answer who there is waits until it is let go.
type slow struct {
	*store
	letGo chan struct{}
}

func (s slow) Fleet(ctx context.Context) (all []fleet.Replica, now time.Time, err error) {
	<-s.letGo
	return s.store.Fleet(ctx)
}

// join joins a replica that observes so many requests a second.
func join(t *testing.T, s fleet.Store, id, config string, rate int) *fleet.Member {
	t.Helper()
	began := time.Now()
	m, err := fleet.Join(fleet.Options{
		Store: s, Self: func() fleet.Replica { return fleet.Replica{ID: id, Config: config} },
		Observed: func() int64 { return int64(time.Since(began).Seconds()) * int64(rate) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestReplicasKnowEachOtherAndWhetherTheyAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		a, b := join(t, s, "a", "one", 100), join(t, s, "b", "two", 0)
		pass(12 * time.Second)
		known, _ := a.Known()
		if len(known) != 2 || fleet.Agree(known) || known[0].Rate < 90 || known[0].Rate > 110 {
			t.Errorf("a knows %+v", known)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		pass(2 * time.Minute)
		if known, _ := a.Known(); len(known) != 1 || !fleet.Agree(known) || len(s.noted()) != 0 {
			t.Errorf("after a goodbye: %+v, gaps %v", known, s.noted())
		}
		if err := a.Close(); err != nil || len(s.replicas) != 0 {
			t.Errorf("%v, %v are left", err, s.replicas)
		}
	})
}

func TestAReplicaSaysHowLateItsEvidenceIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		stuck := time.Now()
		m, err := fleet.Join(fleet.Options{
			Store: s, Self: func() fleet.Replica { return fleet.Replica{ID: "a"} }, Observed: func() int64 { return 0 },
			Until: func() time.Time { return stuck },
			Waiting: func() map[identity.Team]time.Time {
				return map[identity.Team]time.Time{"away": stuck.Add(-time.Hour), "too": stuck}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		other := join(t, s, "b", "", 0)
		pass(31 * time.Second)
		if all, _ := other.Known(); len(all) != 2 || fleet.Late(all, "near") < 24*time.Second || fleet.Late(all, "near") > 31*time.Second {
			t.Errorf("known of the fleet: %+v, late by %s", all, fleet.Late(all, "near"))
		}
		if all, _ := other.Known(); fleet.Late(all, "away") < time.Hour || fleet.Late(all, "awa") > time.Minute || all[0].Longest() < time.Hour {
			t.Errorf("of who waits for longer: %+v, late by %s", all, fleet.Late(all, "away"))
		}
		for _, m := range []*fleet.Member{m, other} {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestNobodyIsKnownBeforeTheFirstLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := slow{newStore(), make(chan struct{})}
		a := join(t, s, "a", "", 0)
		synctest.Wait() // it has given its sign of life and looks
		if known, at := a.Known(); known != nil || !at.IsZero() {
			t.Errorf("before the first look: %v at %s", known, at)
		}
		close(s.letGo)
		synctest.Wait()
		if known, at := a.Known(); len(known) != 1 || known[0].ID != "a" || !at.Equal(time.Now()) {
			t.Errorf("after the first look: %v at %s", known, at)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAReplicaThatDiesLeavesOneGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		a, b := join(t, s, "a", "", 0), join(t, s, "b", "", 0)
		died := time.Now()
		if err := s.Beat(t.Context(), fleet.Replica{ID: "dead", Rate: 50}); err != nil {
			t.Fatal(err)
		}
		pass(55 * time.Second)
		if n := len(s.noted()); n != 0 {
			t.Errorf("%d gaps before it has been silent for long enough", n)
		}
		pass(time.Minute)
		gaps := s.noted()
		if len(gaps) != 1 {
			t.Fatalf("gaps: %v", gaps)
		}
		if g := gaps[0]; g.Replica != "dead" || g.Requests != 300 || !g.From.Equal(died.Add(-time.Second)) || !g.To.Equal(died.Add(5*time.Second)) {
			t.Errorf("the gap: %+v", g)
		}
		for _, m := range []*fleet.Member{a, b} {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestWhatADeadReplicaHadNotRecordedIsPartOfItsGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		a := join(t, s, "a", "", 0)
		died := time.Now()
		if err := s.Beat(t.Context(), fleet.Replica{ID: "dead", Rate: 1, LateSeconds: 600, WaitingTeams: "x y", WaitingSeconds: 3600}); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Minute)
		want := []evidence.Gap{
			{Replica: "dead", From: died.Add(-10 * time.Minute).UTC(), To: died.Add(5 * time.Second).UTC(), Requests: 605},
			{Replica: "dead", Team: "x", From: died.Add(-time.Hour).UTC(), To: died.Add(5 * time.Second).UTC()},
			{Replica: "dead", Team: "y", From: died.Add(-time.Hour).UTC(), To: died.Add(5 * time.Second).UTC()},
		}
		if gaps := s.noted(); !slices.Equal(gaps, want) {
			t.Errorf("gaps: %+v, want %+v", gaps, want)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAGoodbyeSaysOfWhichTeamsSomethingIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		began := time.Now()
		m, err := fleet.Join(fleet.Options{
			Store: s, Self: func() fleet.Replica { return fleet.Replica{ID: "a"} }, Observed: func() int64 { return 0 },
			Until: time.Now, Waiting: func() map[identity.Team]time.Time { return map[identity.Team]time.Time{"away": began} },
		})
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Hour)
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		want := []evidence.Gap{{Replica: "a", Team: "away", From: began.UTC(), To: time.Now().UTC()}}
		if gaps := s.noted(); !slices.Equal(gaps, want) || len(s.replicas) != 0 {
			t.Errorf("gaps: %+v, want %+v; left %v", gaps, want, s.replicas)
		}
	})
}

func TestHowLateAReplicaSaysThatItIsHasABound(t *testing.T) {
	for says, want := range map[float64]time.Duration{-1e300: 0, -1: 0, 1.5: 1500 * time.Millisecond, 1e300: evidence.Retention} {
		if got := fleet.Late([]fleet.Replica{{LateSeconds: says}, {WaitingTeams: "other", WaitingSeconds: 99}}, "team"); got != want {
			t.Errorf("%g seconds are %s, want %s", says, got, want)
		}
	}
}

func TestOfVeryManyTeamsThatWaitAllAreLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		since := make(map[identity.Team]time.Time)
		for i := range 1000 {
			since[identity.Team(fmt.Sprint("team-", i))] = time.Now()
		}
		m, err := fleet.Join(fleet.Options{
			Store: s, Self: func() fleet.Replica { return fleet.Replica{ID: "a"} }, Observed: func() int64 { return 0 },
			Until: time.Now, Waiting: func() map[identity.Team]time.Time { return since },
		})
		if err != nil {
			t.Fatal(err)
		}
		pass(21 * time.Second)
		if all := known(m); len(all) != 1 || fleet.Late(all, "another") < 20*time.Second || len(all[0].WaitingTeams) > 4096 {
			t.Errorf("%+v", all)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhoIsAliveIsToldByTheClockOfTheStore(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"it is ahead": time.Hour, "it is behind": -time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			s.ahead = ahead
			a := join(t, s, "a", "", 0)
			pass(12 * time.Second)
			known, at := a.Known()
			if age := time.Now().Add(ahead).Sub(at); age < 0 || age > fleet.DefaultEvery {
				t.Errorf("%s: the look is of %s, %s ago", name, at, age)
			}
			if alive := fleet.Alive(known, at); len(alive) != 1 {
				t.Errorf("%s: alive are %v", name, alive)
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestItIsKnownHowOldWhatIsKnownOfOthersIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		a := join(t, s, "a", "", 0)
		pass(time.Hour)
		if age := a.Age(); age > fleet.DefaultEvery {
			t.Errorf("with a store that answers: %s", age)
		}
		s.fail(errors.New("damaged"), nil)
		pass(time.Hour)
		if age := a.Age(); age < time.Hour || age > time.Hour+fleet.DefaultEvery {
			t.Errorf("an hour later: %s", age)
		}
		s.fail(nil, nil)
		pass(2 * fleet.DefaultEvery)
		if age := a.Age(); age > fleet.DefaultEvery {
			t.Errorf("when it answers again: %s", age)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnOutageOfTheStoreBuriesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		a, b := join(t, s, "a", "", 0), join(t, s, "b", "", 0)
		pass(10 * time.Second)
		s.fail(errors.New("away"), nil)
		pass(10 * time.Minute) // everybody is silent
		s.fail(nil, nil)
		pass(10 * time.Minute)
		known, _ := a.Known()
		if gaps := s.noted(); len(gaps) != 0 || len(known) != 2 {
			t.Errorf("gaps %v, known %v", gaps, known)
		}
		for _, m := range []*fleet.Member{a, b} {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestAGapThatCannotBeNotedIsNotedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		if err := s.Beat(t.Context(), fleet.Replica{ID: "dead", Rate: 1}); err != nil {
			t.Fatal(err)
		}
		s.fail(nil, errors.New("full"))
		a := join(t, s, "a", "", 0)
		pass(3 * time.Minute)
		if n := len(s.noted()); n != 0 {
			t.Fatalf("%d gaps", n)
		}
		s.fail(nil, nil)
		pass(10 * time.Second)
		if gaps := s.noted(); len(gaps) != 1 {
			t.Errorf("gaps: %s", fmt.Sprint(gaps))
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestJoinNamesWhatIsMissing(t *testing.T) {
	if _, err := fleet.Join(fleet.Options{}); err == nil {
		t.Error("no error")
	}
}

func TestWhatAReplicaHasBecomeIsSaidSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		var regressed atomic.Bool
		beats := func() time.Time {
			all, _, _ := s.Fleet(t.Context())
			return all[0].Seen
		}
		m, err := fleet.Join(fleet.Options{
			Store: s, Observed: func() int64 { return 0 },
			Self: func() fleet.Replica { return fleet.Replica{ID: "a", Regressed: regressed.Load()} },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = m.Close() }()
		synctest.Wait()
		began := beats()
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		if !beats().Equal(began) || fleet.Regressed(known(m)) {
			t.Errorf("while nothing changes it says so again after %s", beats().Sub(began))
		}
		regressed.Store(true)
		time.Sleep(time.Second)
		synctest.Wait()
		if all, _, _ := s.Fleet(t.Context()); !fleet.Regressed(all) {
			t.Error("it does not say within a second that its store has regressed")
		}
	})
}

// known are the replicas that a member knows of.
func known(m *fleet.Member) []fleet.Replica {
	all, _ := m.Known()
	return all
}
