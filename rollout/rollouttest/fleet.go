package rollouttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/fleet"
)

// TestFleet runs the conformance suite of fleet.Store. newStore returns an empty
// store that is closed by t.Cleanup.
func TestFleet(t *testing.T, newStore func(t *testing.T) fleet.Store) {
	for name, test := range map[string]func(*testing.T, fleet.Store){
		"nobody is there at first":                      nobody,
		"a replica is what it last said":                saysWhatItIs,
		"one that leaves is gone":                       leaves,
		"one that is silent is buried once":             buriedOnce,
		"one that was heard of since is not buried":     notBuriedAlive,
		"a call whose context has ended is unavailable": fleetEnded,
	} {
		t.Run(name, func(t *testing.T) { test(t, newStore(t)) })
	}
}

func beat(t *testing.T, s fleet.Store, r fleet.Replica) {
	t.Helper()
	if err := s.Beat(t.Context(), r); err != nil {
		t.Fatalf("Beat: %v", err)
	}
}

func all(t *testing.T, s fleet.Store) []fleet.Replica {
	t.Helper()
	got, now, err := s.Fleet(t.Context())
	if err != nil {
		t.Fatalf("Fleet: %v", err)
	}
	for _, r := range got {
		if r.Seen.IsZero() || r.Seen.After(now) {
			t.Errorf("%s was seen at %s, and now it is %s", r.ID, r.Seen, now)
		}
	}
	return got
}

// without removes what the store's clock decides.
func without(list []fleet.Replica) []fleet.Replica {
	for i := range list {
		list[i].Seen = time.Time{}
	}
	return list
}

func nobody(t *testing.T, s fleet.Store) {
	if got := all(t, s); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if err := s.Leave(t.Context(), "nobody"); err != nil {
		t.Errorf("Leave: %v", err)
	}
}

func saysWhatItIs(t *testing.T, s fleet.Store) {
	a := fleet.Replica{ID: "host/a", Version: "1", Config: "one", Started: at(0), Rate: 12.5}
	b := fleet.Replica{ID: "host/ab", Version: "1", Config: "one \"quoted\" = x", Started: at(1)}
	beat(t, s, b)
	beat(t, s, a)
	a.Config, a.Rate = "two", 3
	beat(t, s, a)
	same(t, "the fleet", without(all(t, s)), []fleet.Replica{a, b})
	for _, id := range []string{"", "a b", "=a"} {
		if err := s.Beat(t.Context(), fleet.Replica{ID: id}); err == nil {
			t.Errorf("the id %q is taken", id)
		}
	}
}

func leaves(t *testing.T, s fleet.Store) {
	beat(t, s, fleet.Replica{ID: "a"})
	beat(t, s, fleet.Replica{ID: "ab"})
	if err := s.Leave(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if got := all(t, s); len(got) != 1 || got[0].ID != "ab" {
		t.Errorf("%v", got)
	}
}

func buriedOnce(t *testing.T, s fleet.Store) {
	beat(t, s, fleet.Replica{ID: "a"})
	dead := all(t, s)[0]
	var done atomic.Int32
	var both sync.WaitGroup
	for range 20 {
		both.Go(func() {
			ok, err := s.Bury(t.Context(), dead)
			if err != nil {
				t.Error(err)
			}
			if ok {
				done.Add(1)
			}
		})
	}
	both.Wait()
	if done.Load() != 1 || len(all(t, s)) != 0 {
		t.Errorf("buried %d times, %v are left", done.Load(), all(t, s))
	}
	gap := evidence.Gap{Replica: "a", From: at(0), To: at(6), Requests: 7}
	for range 2 {
		if err := s.Gap(t.Context(), gap); err != nil {
			t.Fatal(err)
		}
	}
	if e, ok := s.(evidence.Store); ok {
		gaps, err := e.Gaps(t.Context(), at(0))
		if err != nil {
			t.Fatal(err)
		}
		same(t, "gaps", gaps, []evidence.Gap{gap})
	}
}

func notBuriedAlive(t *testing.T, s fleet.Store) {
	beat(t, s, fleet.Replica{ID: "a"})
	before := all(t, s)[0]
	end := time.Now().Add(patience)
	for !all(t, s)[0].Seen.After(before.Seen) { // the store's clock has milliseconds
		if time.Now().After(end) {
			t.Fatal("the store's clock stands")
		}
		time.Sleep(time.Millisecond)
		beat(t, s, fleet.Replica{ID: "a"})
	}
	if done, err := s.Bury(t.Context(), before); done || err != nil {
		t.Errorf("buried: %t, %v", done, err)
	}
	if len(all(t, s)) != 1 {
		t.Error("it is gone")
	}
}

func fleetEnded(t *testing.T, s fleet.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := s.Fleet(ctx)
	for what, err := range map[string]error{"Beat": s.Beat(ctx, fleet.Replica{ID: "a"}), "Fleet": err} {
		if !errors.Is(err, rollout.ErrUnavailable) {
			t.Errorf("%s: %v", what, fmt.Sprint(err))
		}
	}
}
