package rollouttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// now returns the present time as latches keep it.
func now() time.Time { return time.UnixMilli(time.Now().UnixMilli()).UTC() }

func latch(t *testing.T, s rollout.Store, key rollout.LatchKey, l rollout.Latch, lowered int64) rollout.Latch {
	t.Helper()
	got, err := s.Latch(t.Context(), key, l, lowered)
	if err != nil {
		t.Fatalf("Latch(%+v, %+v, %d): %v", key, l, lowered, err)
	}
	return got
}

func latched(t *testing.T, s rollout.Store, key rollout.LatchKey) (rollout.Latch, bool) {
	t.Helper()
	got, ok, err := s.Latched(t.Context(), key)
	if err != nil {
		t.Fatalf("Latched(%+v): %v", key, err)
	}
	return got, ok
}

func racingLatches(t *testing.T, s rollout.Store) {
	key := rollout.NewLatchKey(team, "svc-etl", "worker-1")
	when := now()
	var mu sync.Mutex
	seen := map[rollout.Latch]int{}
	race(50, func(i int) {
		got, err := s.Latch(t.Context(), key, rollout.Latch{Enforced: i%2 == 0, Revision: int64(i), Pipeline: "Load", At: when}, 0)
		if err != nil {
			t.Errorf("Latch: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		seen[got]++
	})
	if len(seen) != 1 {
		t.Fatalf("the racers were told of %d latches, want one: %v", len(seen), seen)
	}
	got, ok := latched(t, s, key)
	if !ok || seen[got] != 50 {
		t.Errorf("Latched = %+v, %v; want the one of %v", got, ok, seen)
	}
}

func latchKeys(t *testing.T, s rollout.Store) {
	l := rollout.Latch{Enforced: true, Revision: 3, Pipeline: "a|b\n'\"; {x} \\ é", At: now()}
	key := rollout.NewLatchKey(team, "svc-etl", "worker-1")
	same(t, "Latch", latch(t, s, key, l, 0), l)
	got, ok := latched(t, s, key)
	if !ok {
		t.Fatal("the latch is not found")
	}
	same(t, "Latched", got, l)
	for name, other := range map[string]rollout.LatchKey{
		"another team":                    rollout.NewLatchKey("billing", "svc-etl", "worker-1"),
		"another principal":               rollout.NewLatchKey(team, "svc-etl2", "worker-1"),
		"another run":                     rollout.NewLatchKey(team, "svc-etl", "worker-2"),
		"another cut between the same":    rollout.NewLatchKey(team, "svc-etlw", "orker-1"),
		"a run that was never heard of":   rollout.NewLatchKey(team, "", ""),
		"the digest of this one as a run": rollout.NewLatchKey(team, "", key.Run),
	} {
		if got, ok := latched(t, s, other); ok {
			t.Errorf("%s has the latch %+v", name, got)
		}
	}
}

func freedLatches(t *testing.T, s rollout.Store) {
	for name, tc := range map[string]struct {
		old, next rollout.Latch
		lowered   int64
		replaced  bool
	}{
		"enforced before the lowering":     {rollout.Latch{Enforced: true, Revision: 3}, rollout.Latch{Revision: 4}, 4, true},
		"enforced by the lowering":         {rollout.Latch{Enforced: true, Revision: 4}, rollout.Latch{Revision: 4}, 4, false},
		"enforced after the lowering":      {rollout.Latch{Enforced: true, Revision: 5}, rollout.Latch{Revision: 6}, 4, false},
		"not enforced before the lowering": {rollout.Latch{Revision: 3}, rollout.Latch{Enforced: true, Revision: 4}, 4, false},
		"enforced and never lowered":       {rollout.Latch{Enforced: true, Revision: 3}, rollout.Latch{Revision: 9}, 0, false},
		"enforced again":                   {rollout.Latch{Enforced: true, Revision: 3}, rollout.Latch{Enforced: true, Revision: 4}, 4, true},
		"freed, and its pipeline told":     {rollout.Latch{Enforced: true, Revision: 3}, rollout.Latch{Revision: 4, Pipeline: "P"}, 4, true},
	} {
		key := rollout.NewLatchKey(team, "svc-etl", name)
		tc.old.At, tc.next.At = now(), now().Add(time.Second)
		latch(t, s, key, tc.old, 0)
		if got, ok := latched(t, s, key); !ok || got != tc.old {
			t.Errorf("%s: asked without latching: %+v, %v; want %+v", name, got, ok, tc.old)
		}
		want := tc.old
		if tc.replaced {
			want = tc.next
			want.At = tc.old.At // the run is as old as it was
		}
		same(t, name, latch(t, s, key, tc.next, tc.lowered), want)
		if got, _ := latched(t, s, key); got != want {
			t.Errorf("%s: in force afterwards: %+v, want %+v", name, got, want)
		}
	}
}

func sparedLatches(t *testing.T, s rollout.Store) {
	key := rollout.NewLatchKey(team, "svc-etl", "worker-1")
	late := rollout.Latch{Enforced: true, Revision: 3, At: now()}
	latch(t, s, key, late, 0)
	spared := late
	spared.Enforced, spared.Pipeline = false, "Load"
	next := rollout.Latch{Revision: 4, Pipeline: "Load", At: now().Add(time.Second), Spares: true}
	same(t, "spared", latch(t, s, key, next, 0), spared)
	same(t, "again", latch(t, s, key, next, 0), spared)
	late.Revision = 5
	same(t, "enforced by somebody who does not know", latch(t, s, key, late, 0), spared)
	if got, _ := latched(t, s, key); got != spared {
		t.Errorf("in force afterwards: %+v, want %+v", got, spared)
	}
	if n := counted(t, s, team); n != (rollout.LatchCount{Unenforced: 1}) {
		t.Errorf("counted: %+v", n)
	}
	other := rollout.NewLatchKey(team, "svc-etl", "worker-2")
	next.Pipeline, next.Spares = "", false
	want := next
	next.Spares = true
	same(t, "spared where nothing is in force", latch(t, s, other, next, 0), want)
}

func freedPipeline(t *testing.T, s rollout.Store) {
	key := rollout.NewLatchKey(team, "svc-etl", "worker-1")
	old := rollout.Latch{Enforced: true, Revision: 1, Pipeline: "First", At: now()}
	latch(t, s, key, old, 0)
	same(t, "judged by another pipeline", latch(t, s, key, rollout.Latch{Revision: 2, Pipeline: "Second", At: now()}, 2), old)
	same(t, "judged by none", latch(t, s, key, rollout.Latch{Revision: 2, At: now()}, 2), old)
	next := rollout.Latch{Revision: 2, Pipeline: "First", At: old.At}
	same(t, "judged by the first", latch(t, s, key, next, 2), next)
}

func latchPipeline(t *testing.T, s rollout.Store) {
	key := rollout.NewLatchKey(team, "svc-etl", "worker-1")
	first := rollout.Latch{Enforced: true, Revision: 1, At: now()}
	latch(t, s, key, first, 0)
	first.Pipeline = "Load"
	same(t, "told a pipeline", latch(t, s, key, rollout.Latch{Revision: 2, Pipeline: "Load", At: now()}, 0), first)
	same(t, "told another", latch(t, s, key, rollout.Latch{Revision: 3, Pipeline: "Extract", At: now()}, 0), first)
	if got, _ := latched(t, s, key); got != first {
		t.Errorf("in force afterwards: %+v, want %+v", got, first)
	}
}

func oldLatch(t *testing.T, s rollout.Store) {
	key := rollout.NewLatchKey(team, "svc-etl", "worker-1")
	old := rollout.Latch{Enforced: true, Revision: 1, At: now().Add(-rollout.LatchMax)}
	same(t, "Latch", latch(t, s, key, old, 0), old)
	if got, ok := latched(t, s, key); ok {
		t.Errorf("a latch of seven days ago is kept: %+v", got)
	}
}

func counted(t *testing.T, s rollout.Store, team identity.Team) rollout.LatchCount {
	t.Helper()
	n, err := s.CountLatches(t.Context(), team)
	if err != nil {
		t.Fatalf("CountLatches(%q): %v", team, err)
	}
	return n
}

func countedLatches(t *testing.T, s rollout.Store) {
	same(t, "before any", counted(t, s, team), rollout.LatchCount{})
	for i := range 7 {
		key := rollout.NewLatchKey(team, "svc-etl", fmt.Sprint("worker-", i))
		for range 2 { // a second request is no other run
			latch(t, s, key, rollout.Latch{Enforced: i < 2, Revision: 1, At: now()}, 0)
		}
		if _, ok := latched(t, s, key); !ok {
			t.Errorf("run %d is not latched", i)
		}
	}
	latch(t, s, rollout.NewLatchKey("billing", "svc-etl", "worker-1"), rollout.Latch{Revision: 1, At: now()}, 0)
	latched(t, s, rollout.NewLatchKey(team, "svc-etl", "never heard of"))
	same(t, "the team", counted(t, s, team), rollout.LatchCount{Enforced: 2, Unenforced: 5})
	same(t, "another team", counted(t, s, "billing"), rollout.LatchCount{Unenforced: 1})
}

// silentLatches are those of runs that were not heard of for some time. Their end is
// near, here because they began long ago.
func silentLatches(t *testing.T, s rollout.Store) {
	for worker, ends := range map[string]time.Duration{"ended": rollout.LatchIdle - rollout.InFlight - time.Minute, "goes on": rollout.LatchIdle - time.Second} {
		key := rollout.NewLatchKey(team, "svc-etl", worker)
		latch(t, s, key, rollout.Latch{Revision: 1, At: now().Add(ends - rollout.LatchMax)}, 0)
		if _, ok := latched(t, s, key); !ok {
			t.Errorf("the run that %s is not latched", worker)
		}
	}
	same(t, "with one that ended", counted(t, s, team), rollout.LatchCount{Unenforced: 1})
}

func recountedLatches(t *testing.T, s rollout.Store) {
	key := rollout.NewLatchKey(team, "svc-etl", "worker-1")
	latch(t, s, key, rollout.Latch{Enforced: true, Revision: 1, At: now()}, 0)
	same(t, "enforced", counted(t, s, team), rollout.LatchCount{Enforced: 1})
	latch(t, s, key, rollout.Latch{Revision: 2, At: now()}, 2)
	same(t, "freed", counted(t, s, team), rollout.LatchCount{Unenforced: 1})
}

func endedLatches(t *testing.T, s rollout.Store) {
	const left = 300 * time.Millisecond
	key := rollout.NewLatchKey(team, "svc-etl", "worker-1")
	latch(t, s, key, rollout.Latch{Enforced: true, Revision: 1, At: now().Add(left - rollout.LatchMax)}, 0)
	latch(t, s, rollout.NewLatchKey(team, "svc-etl", "worker-2"), rollout.Latch{Enforced: true, Revision: 1, At: now()}, 0)
	tick := time.NewTicker(left / 6)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		n := counted(t, s, team)
		_, ok := latched(t, s, key)
		if !ok && n == (rollout.LatchCount{Enforced: 1}) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after its end: latched %v, counted %+v", ok, n)
		}
	}
}

func ended(t *testing.T, s rollout.Store) {
	id := load(t, s).StoreID
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	key := rollout.NewLatchKey(team, "svc-etl", "worker-1")
	_, loadErr := s.Load(ctx)
	_, writeErr := s.Write(ctx, rollout.Change{Team: team, Percent: 1})
	_, historyErr := s.History(ctx, team, 1)
	_, latchErr := s.Latch(ctx, key, rollout.Latch{At: now()}, 0)
	_, _, latchedErr := s.Latched(ctx, key)
	_, countErr := s.CountLatches(ctx, team)
	for name, err := range map[string]error{
		"Load": loadErr, "Write": writeErr, "History": historyErr, "Latch": latchErr, "Latched": latchedErr,
		"CountLatches": countErr,
	} {
		if !errors.Is(err, rollout.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want ErrUnavailable that says context.Canceled", name, err)
		}
	}
	if snap := load(t, s); snap.StoreID != id || len(snap.Teams) != 0 {
		t.Errorf("store afterwards: %+v", snap)
	}
}
