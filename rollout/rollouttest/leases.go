package rollouttest

import (
	"sync/atomic"
	"testing"
	"time"

	"crossfade/rollout"
)

func lease(t *testing.T, s rollout.Store, holder string, ttl time.Duration) bool {
	t.Helper()
	held, err := s.Lease(t.Context(), holder, ttl)
	if err != nil {
		t.Fatalf("Lease(%q): %v", holder, err)
	}
	return held
}

func leases(t *testing.T, s rollout.Store) {
	if !lease(t, s, "a", time.Hour) {
		t.Fatal("nobody has the lease and a does not get it")
	}
	if lease(t, s, "b", time.Hour) {
		t.Error("b gets the lease that a has")
	}
	if !lease(t, s, "a", time.Hour) {
		t.Error("a cannot prolong it")
	}
	if err := s.Yield(t.Context(), "b"); err != nil {
		t.Errorf("Yield: %v", err)
	}
	if lease(t, s, "b", time.Hour) {
		t.Error("b yields what it has not, and gets it")
	}
	if err := s.Yield(t.Context(), "a"); err != nil {
		t.Errorf("Yield: %v", err)
	}
	if !lease(t, s, "b", 50*time.Millisecond) { // and does not call again
		t.Error("a has yielded and b does not get it")
	}
	end := time.Now().Add(patience)
	for !lease(t, s, "a", time.Hour) {
		if time.Now().After(end) {
			t.Fatal("b is gone and keeps the lease")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func racingLeases(t *testing.T, s rollout.Store) {
	var got atomic.Int32
	race(50, func(i int) {
		held, err := s.Lease(t.Context(), string(rune('A'+i)), time.Hour)
		if err != nil {
			t.Errorf("Lease: %v", err)
		}
		if held {
			got.Add(1)
		}
	})
	if got.Load() != 1 {
		t.Errorf("%d replicas got the lease", got.Load())
	}
}
