package shadow_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"crossfade/gateway/shadow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func nothing(context.Context) {}

// occupy starts n jobs that hold their workers until the returned function is
// called.
func occupy(t *testing.T, r *shadow.Runner, n int) (release func()) {
	t.Helper()
	free := make(chan struct{})
	for range n {
		if !r.Submit(func(context.Context) { <-free }) {
			t.Fatal("an idle runner refuses a job")
		}
		synctest.Wait() // until a worker has it
	}
	return func() { close(free) }
}

func TestAFullQueueShedsAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shadow.NewRunner(shadow.RunnerOptions{Queue: 3, Workers: 2})
		defer r.Close()
		release := occupy(t, r, 2)
		if r.Depth() != 0 {
			t.Errorf("%d jobs wait while they are evaluated", r.Depth())
		}
		var ran atomic.Int64 // two workers
		start := time.Now()
		for i := range 10 {
			// Were Submit to block, the bubble would report a deadlock.
			if got, want := r.Submit(func(context.Context) { ran.Add(1) }), i < 3; got != want {
				t.Errorf("job %d: accepted %t, want %t", i, got, want)
			}
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("Submit took %s", waited)
		}
		if r.Depth() != 3 || r.Shed() != 7 {
			t.Errorf("depth %d and shed %d, want 3 and 7", r.Depth(), r.Shed())
		}
		release()
		r.Close()
		if ran.Load() != 3 || r.Depth() != 0 || r.Shed() != 7 {
			t.Errorf("ran %d, depth %d, shed %d", ran.Load(), r.Depth(), r.Shed())
		}
	})
}

func TestARunnerRecoversFromAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shadow.NewRunner(shadow.RunnerOptions{Queue: 1, Workers: 1})
		defer r.Close()
		release := occupy(t, r, 1)
		if !r.Submit(nothing) || r.Submit(nothing) {
			t.Fatal("the queue does not hold exactly one job")
		}
		release()
		synctest.Wait()
		if !r.Submit(nothing) || r.Shed() != 1 {
			t.Errorf("an idle runner refuses a job, shed %d", r.Shed())
		}
	})
}

func TestACandidateThatPanicsEndsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shadow.NewRunner(shadow.RunnerOptions{Queue: 10, Workers: 1})
		defer r.Close()
		var broken context.Context
		r.Submit(func(ctx context.Context) { broken = ctx; panic("a bug") })
		r.Submit(func(context.Context) { panic(nil) })
		ran := false
		r.Submit(func(context.Context) { ran = true })
		r.Close()
		if !ran || r.Panicked() != 2 || r.Shed() != 0 || broken.Err() == nil {
			t.Errorf("the next one ran: %t; %d panics, %d shed, context ended: %v", ran, r.Panicked(), r.Shed(), broken.Err())
		}
	})
}

func TestNoMoreJobsThanWorkersRunAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shadow.NewRunner(shadow.RunnerOptions{Queue: 100, Workers: 3})
		var now, most atomic.Int64
		for range 20 {
			r.Submit(func(context.Context) {
				n := now.Add(1)
				for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
				}
				time.Sleep(time.Second)
				now.Add(-1)
			})
		}
		r.Close()
		if most.Load() != 3 {
			t.Errorf("%d jobs ran at once, want 3", most.Load())
		}
	})
}

func TestCloseEvaluatesTheQueueAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shadow.NewRunner(shadow.RunnerOptions{Queue: 10, Workers: 2})
		var ran atomic.Int64
		for range 6 {
			r.Submit(func(ctx context.Context) {
				time.Sleep(time.Second)
				if ctx.Err() == nil {
					ran.Add(1)
				}
			})
		}
		start := time.Now()
		var second sync.WaitGroup
		second.Go(func() {
			r.Close()
			if ran.Load() != 6 {
				t.Errorf("a second Close returned after %d jobs", ran.Load())
			}
		})
		r.Close()
		if waited := time.Since(start); ran.Load() != 6 || waited != 3*time.Second {
			t.Errorf("Close returned after %d jobs and %s, want 6 and 3s", ran.Load(), waited)
		}
		second.Wait()
		r.Close() // and returns at once when all is done
	})
}

func TestSubmitAfterCloseIsShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shadow.NewRunner(shadow.RunnerOptions{})
		r.Close()
		if r.Submit(func(context.Context) { t.Error("the job ran") }) {
			t.Error("accepted")
		}
		synctest.Wait()
		if r.Shed() != 1 || r.Depth() != 0 {
			t.Errorf("shed %d, depth %d", r.Shed(), r.Depth())
		}
	})
}

func TestSubmitWhileCloseWaitsIsShedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shadow.NewRunner(shadow.RunnerOptions{Queue: 1, Workers: 1})
		release := occupy(t, r, 1)
		var closing sync.WaitGroup
		closing.Go(r.Close)
		synctest.Wait()
		if r.Submit(nothing) || r.Shed() != 1 {
			t.Errorf("accepted while closing, shed %d", r.Shed())
		}
		release()
		closing.Wait()
	})
}

func TestTheDeadlineReachesTheJob(t *testing.T) {
	for name, tt := range map[string]struct {
		deadline, want time.Duration
	}{
		"as configured":           {300 * time.Millisecond, 300 * time.Millisecond},
		"by default":              {0, shadow.DefaultDeadline},
		"a negative one is unset": {-time.Second, shadow.DefaultDeadline},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := shadow.NewRunner(shadow.RunnerOptions{Workers: 1, Deadline: tt.deadline})
				defer r.Close()
				var kept context.Context
				for range 2 { // the second one waits, and its deadline begins when it is its turn
					r.Submit(func(ctx context.Context) {
						kept = ctx
						start := time.Now()
						if until, ok := ctx.Deadline(); !ok || until.Sub(start) != tt.want {
							t.Errorf("the deadline is in %s (%t), want %s", until.Sub(start), ok, tt.want)
						}
						<-ctx.Done()
						if took := time.Since(start); took != tt.want || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
							t.Errorf("ended after %s by %v", took, ctx.Err())
						}
					})
				}
				r.Close()
				if kept == nil {
					t.Fatal("no job ran")
				}
			})
		})
	}
}

func TestTheContextEndsWithTheJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shadow.NewRunner(shadow.RunnerOptions{})
		var kept context.Context
		r.Submit(func(ctx context.Context) { kept = ctx })
		r.Close()
		if !errors.Is(kept.Err(), context.Canceled) {
			t.Errorf("the context of a finished job: %v", kept.Err())
		}
	})
}

func TestRunnerDefaults(t *testing.T) {
	for name, o := range map[string]shadow.RunnerOptions{
		"zero": {}, "negative": {Queue: -1, Workers: -1, Deadline: -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := shadow.NewRunner(o)
				release := occupy(t, r, 2*runtime.GOMAXPROCS(0))
				for r.Submit(nothing) {
				}
				if r.Depth() != shadow.DefaultQueue {
					t.Errorf("the queue holds %d, want %d", r.Depth(), shadow.DefaultQueue)
				}
				release()
				r.Close()
			})
		})
	}
}

// What was accepted ran and what was not was counted, even when many submit
// while the runner closes; the race detector watches.
func TestNothingIsLostWhenManySubmitWhileItCloses(t *testing.T) {
	const clients, each = 8, 500
	r := shadow.NewRunner(shadow.RunnerOptions{Queue: 16, Workers: 4})
	var accepted, ran atomic.Uint64
	var submitting sync.WaitGroup
	halfway := make(chan struct{})
	for c := range clients {
		submitting.Go(func() {
			for i := range each {
				if c == 0 && i == each/2 {
					close(halfway)
				}
				if r.Submit(func(context.Context) { ran.Add(1) }) {
					accepted.Add(1)
				}
			}
		})
	}
	<-halfway
	r.Close()
	submitting.Wait()
	if ran.Load() != accepted.Load() || accepted.Load()+r.Shed() != clients*each || r.Depth() != 0 {
		t.Errorf("accepted %d, ran %d, shed %d of %d, depth %d", accepted.Load(), ran.Load(), r.Shed(), clients*each, r.Depth())
	}
}

func BenchmarkSubmit(b *testing.B) {
	r := shadow.NewRunner(shadow.RunnerOptions{})
	defer r.Close()
	b.ReportAllocs()
	for b.Loop() {
		r.Submit(nothing)
	}
}
