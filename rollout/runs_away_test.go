package rollout_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/rollout"
	"crossfade/rollout/rollouttest"
)

func TestWithoutTheStoreNewRunsAreJudgedByTheLowerPercentage(t *testing.T) {
	p20, p60 := pipelineAt(20), pipelineAt(60)
	for name, tc := range map[string]struct {
		percents []rollout.Percent
		after    time.Duration
		pipeline string
		enforced bool
		percent  rollout.Percent
	}{
		"raised an hour ago, selected before":      {[]rollout.Percent{30, 70}, time.Hour, p20, true, 30},
		"raised an hour ago, selected since":       {[]rollout.Percent{30, 70}, time.Hour, p60, false, 30},
		"raised a week ago":                        {[]rollout.Percent{30, 70}, 7 * 24 * time.Hour, p60, true, 70},
		"raised, then lowered":                     {[]rollout.Percent{70, 30}, time.Hour, p60, false, 30},
		"raised to 100 an hour ago, not selected":  {[]rollout.Percent{30, 100}, time.Hour, p60, false, 30},
		"raised to 100 an hour ago, no key":        {[]rollout.Percent{30, 100}, time.Hour, "", false, 30},
		"raised to 100 a week ago, no key":         {[]rollout.Percent{30, 100}, 7 * 24 * time.Hour, "", true, 100},
		"raised for the first time an hour before": {[]rollout.Percent{70}, time.Hour, p20, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
				for _, percent := range tc.percents {
					set(t, store, percent)
				}
				r := luigi(t, store)
				wait(tc.after)
				store.SetDown(true)
				for range 3 {
					got := r.ask("w", tc.pipeline)
					if got.Enforced != tc.enforced || got.Percent != tc.percent || !got.Stale || got.Latched {
						t.Errorf("%+v, want enforced %v by %d, stale and not latched", got, tc.enforced, tc.percent)
					}
				}
			})
		})
	}
}

func TestWithoutTheStoreLatchedRunsStayAndOthersAreLatchedLater(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		p := pipelineAt(60)
		set(t, store, 30)
		r := luigi(t, store)
		r.ask("old", p)
		set(t, store, 70)
		synctest.Wait()
		if !r.ask("newer", p).Enforced {
			t.Fatal("not enforced at 70")
		}
		store.SetDown(true)
		r.ask("unlucky", p)
		for range 12 { // twelve hours
			for range 12 {
				wait(5 * time.Minute)
				if got := r.ask("old", ""); got.Enforced || !got.Latched || got.Stale {
					t.Fatalf("a run latched as not enforced: %+v", got)
				}
				if got := r.ask("newer", ""); !got.Enforced || !got.Latched || got.Stale {
					t.Fatalf("a run latched as enforced: %+v", got)
				}
			}
		}
		store.SetDown(false)
		wait(5 * time.Minute)
		if got := r.ask("unlucky", p); !got.Enforced || !got.Latched || got.Stale {
			t.Errorf("a run that could not be latched, later: %+v", got)
		}
		// The store has forgotten both latches by now, and is told of them again.
		r.ask("old", "")
		r.ask("newer", "")
		synctest.Wait()
		other := luigi(t, store)
		if got := other.ask("old", ""); got.Enforced || !got.Latched {
			t.Errorf("the old run at another replica: %+v", got)
		}
	})
}

// tardy makes latches, and says so too late.
type tardy struct {
	*rollouttest.Memory
	late *atomic.Bool
}

func (s tardy) Latch(ctx context.Context, key rollout.LatchKey, l rollout.Latch, lowered int64) (rollout.Latch, error) {
	got, err := s.Memory.Latch(ctx, key, l, lowered)
	if err == nil && s.late.Load() {
		<-ctx.Done()
		return rollout.Latch{}, fmt.Errorf("%w: %w", rollout.ErrUnavailable, ctx.Err())
	}
	return got, err
}

func TestARunThatWasLetThroughIsNotEnforcedWhenTheStoreAnswersAgain(t *testing.T) {
	for name, away := range map[string]func(tardy, bool){
		"the store was away":               func(s tardy, away bool) { s.SetDown(away) },
		"the store was late with its word": func(s tardy, away bool) { s.late.Store(away) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
				s := tardy{store, new(atomic.Bool)}
				p := pipelineAt(60)
				set(t, store, 70)
				r, other := luigi(t, s), luigi(t, store)
				away(s, true)
				if got := r.ask("w", p); got.Enforced || !got.Stale {
					t.Fatalf("without the store: %+v", got)
				}
				if got := r.ask("no key yet", ""); got.Enforced {
					t.Fatalf("without the store and a key: %+v", got)
				}
				away(s, false)
				wait(10 * time.Second)
				for range 20 { // and as long as it lives
					if got := r.ask("w", p); got.Enforced || got.Stale || !got.Latched {
						t.Fatalf("with the store: %+v", got)
					}
					wait(5 * time.Minute)
				}
				if got := other.ask("w", p); got.Enforced || !got.Latched {
					t.Errorf("at another replica: %+v", got)
				}
				if got := r.ask("no key yet", p); !got.Enforced || !got.Latched {
					t.Errorf("a run whose key was not known: %+v", got)
				}
				if got := r.ask("another", p); !got.Enforced || !got.Latched {
					t.Errorf("a new run: %+v", got)
				}
				wait(rollout.LatchIdle)
				if got := r.ask("w", p); !got.Enforced || !got.Latched {
					t.Errorf("a later run of that name: %+v", got)
				}
			})
		})
	}
}

func TestARegressedStoreIsNotAskedAboutRuns(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		p := pipelineAt(60)
		set(t, store, 30)
		set(t, store, 70)
		r := luigi(t, store)
		r.ask("old", p)
		store.Flush()
		if err := r.table.Refresh(t.Context()); err == nil {
			t.Fatal("the loss was not noticed")
		}
		if got := r.ask("old", ""); !got.Enforced || !got.Latched {
			t.Errorf("a latched run: %+v", got)
		}
		if got := r.ask("new", p); got.Enforced || !got.Stale || got.Percent != 30 {
			t.Errorf("a new run: %+v", got)
		}
		wait(5 * time.Minute)
		r.ask("old", "")
		synctest.Wait()
		if store.Latches() != 0 {
			t.Error("a regressed store was told of a latch")
		}
	})
}

// TestAStoreThatHangsCostsFewRequestsTime sends a request every 10 ms for a
// minute to a store that never answers, and adds up what they waited.
func TestAStoreThatHangsCostsFewRequestsTime(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		set(t, store, 50)
		r := luigi(t, store)
		_ = r.table.Close()
		synctest.Wait()
		store.SetHang(true)
		before := store.Calls()
		const n = 6000
		var waited time.Duration
		for i := range n {
			began := time.Now()
			r.ask(fmt.Sprint("w", i), "Load")
			took := time.Since(began)
			if took > 50*time.Millisecond {
				t.Fatalf("request %d waited %v", i, took)
			}
			waited += took
			time.Sleep(10 * time.Millisecond)
		}
		calls := store.Calls() - before
		// Pauses double from 250 ms to 5 s: 0.25+0.5+1+2+4 and then every 5 s.
		if calls < 10 || calls > 20 || waited > time.Duration(calls)*50*time.Millisecond {
			t.Errorf("%d calls and %v of waiting in a minute", calls, waited)
		}
		store.SetHang(false)
		time.Sleep(5 * time.Second)
		if got := r.ask("after", "Load"); !got.Latched || got.Stale {
			t.Errorf("once it answers: %+v", got)
		}
		if got := r.ask("after that", "Load"); !got.Latched {
			t.Errorf("and the next: %+v", got)
		}
		// The next outage begins with a short pause again.
		store.SetHang(true)
		before = store.Calls()
		for i := range 2 {
			r.ask(fmt.Sprint("again", i), "Load")
			time.Sleep(300 * time.Millisecond)
		}
		if calls := store.Calls() - before; calls != 2 {
			t.Errorf("%d calls in the first half second of the next outage, want 2", calls)
		}
	})
}

func TestConcurrentRequestsWaitTogetherForAStoreThatHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		set(t, store, 50)
		r := luigi(t, store)
		_ = r.table.Close()
		synctest.Wait()
		store.SetHang(true)
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() { r.ask(fmt.Sprint("w", i%20), "Load") })
		}
		wg.Wait()
		if took := time.Since(began); took > 50*time.Millisecond {
			t.Errorf("the last one waited %v", took)
		}
		if got := r.ask("w", "Load"); !got.Stale {
			t.Errorf("the next: %+v", got)
		}
		if took := time.Since(began); took > 50*time.Millisecond {
			t.Errorf("the next waited as well: %v", took)
		}
	})
}

func TestAClientThatHangsUpDoesNotCostItsRunTheLatch(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		set(t, store, 50)
		r := luigi(t, store)
		ctx := canceled(t)
		got := r.runs.Enforce(ctx, rollout.Run{Team: team, Principal: "svc-etl", ID: "w", Pipeline: "Load"}, false)
		if !got.Latched || got.Stale || store.Latches() != 1 {
			t.Errorf("%+v with %d latches in the store", got, store.Latches())
		}
	})
}

// TestLatchesAreRefreshedLazily counts what a busy run costs the store.
func TestLatchesAreRefreshedLazily(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		set(t, store, 50)
		r := luigi(t, store)
		_ = r.table.Close()
		synctest.Wait()
		before := store.Calls()
		for range 3600 { // an hour of pings
			r.ask("w", "Load")
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := store.Calls() - before; n < 15 || n > 21 {
			t.Errorf("%d calls in an hour, want about one every three minutes", n)
		}
		if store.Latches() != 1 {
			t.Error("the latch is gone")
		}
	})
}

func TestEvictedRunsAreFoundInTheStore(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		p := pipelineAt(60)
		set(t, store, 30)
		table := newTable(t, rollout.TableOptions{Store: store, Poll: time.Hour})
		if err := table.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		runs, err := rollout.NewRuns(rollout.RunsOptions{Table: table, Store: store, LatchRuns: true, Cache: 3})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = runs.Close() }()
		r := &replica{t: t, table: table, runs: runs}
		for i := range 20 {
			r.ask(fmt.Sprint("w", i), p)
		}
		set(t, store, 70)
		synctest.Wait()
		for i := range 20 {
			if got := r.ask(fmt.Sprint("w", i), ""); got.Enforced || !got.Latched || got.Pipeline != p {
				t.Errorf("run %d: %+v", i, got)
			}
		}
	})
}
