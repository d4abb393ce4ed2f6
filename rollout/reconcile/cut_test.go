package reconcile_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/reconcile"
	"crossfade/rollout/rollouttest"
)

// cut is a store that one replica cannot reach for a while, and others can.
type cut struct {
	*rollouttest.Memory
	off atomic.Bool
}

func (c *cut) err() error {
	if c.off.Load() {
		return rollout.ErrUnavailable
	}
	return nil
}

func (c *cut) Lease(ctx context.Context, holder string, ttl time.Duration) (bool, error) {
	if err := c.err(); err != nil {
		return false, err
	}
	return c.Memory.Lease(ctx, holder, ttl)
}

func (c *cut) Load(ctx context.Context) (rollout.Snapshot, error) {
	if err := c.err(); err != nil {
		return rollout.Snapshot{}, err
	}
	return c.Memory.Load(ctx)
}

func (c *cut) Write(ctx context.Context, change rollout.Change) (rollout.State, error) {
	if err := c.err(); err != nil {
		return rollout.State{}, err
	}
	return c.Memory.Write(ctx, change)
}

// TestALeaderThatIsCutOffStandsDown cuts the leader off from the store, changes
// the file, and lets it come back, and looks every second that two never lead.
func TestALeaderThatIsCutOffStandsDown(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		store := &cut{Memory: s.store}
		was := &replica{t: t, files: map[identity.Team]reconcile.File{"data-eng": file("data-eng", 10)}}
		var err error
		if was.table, err = rollout.NewTable(rollout.TableOptions{Store: store}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if was.Reconciler, err = reconcile.New(reconcile.Options{
			Table: was.table, Lease: store, Guard: s.guard, Files: was.read, Holder: "was",
		}); err != nil {
			t.Fatal(err)
		}
		defer was.end()
		settle()
		other := s.start("other", map[identity.Team]rollout.Percent{"data-eng": 10})
		defer other.end()
		for second := range 90 {
			switch second {
			case 10:
				if !was.Leads() || other.Leads() {
					t.Fatal("the first one does not lead")
				}
				store.off.Store(true)
				was.says("data-eng", 50)
				other.says("data-eng", 50)
			case 15:
				if was.Leads() {
					t.Error("it leads without knowing whether it still has the lease")
				}
				s.at("data-eng", 10)
			case 40:
				if !other.Leads() {
					t.Error("nobody leads")
				}
				s.at("data-eng", 50)
				store.off.Store(false)
			}
			if was.Leads() && other.Leads() {
				t.Fatalf("two lead after %d seconds", second)
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		s.at("data-eng", 50)
		if n := len(s.entries("data-eng")); n != 2 {
			t.Errorf("%d entries in the history, want 2: %+v", n, s.entries("data-eng"))
		}
		if err := was.table.Err(); errors.Is(err, rollout.ErrUnavailable) {
			t.Errorf("the table of the one that is back: %v", err)
		}
	})
}
