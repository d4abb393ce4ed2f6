package rollout

import (
	"context"
	"sync"
	"time"
)

const (
	// refreshQueue bounds the runs that wait to be kept alive. One that finds
	// no room asks again at its next request.
	refreshQueue = 4096
	// refreshTimeout bounds one call in the background, where nobody waits.
	refreshTimeout = time.Second
)

// refreshTask is a run whose latch the store should hear of again, as it was
// when the task was queued.
type refreshTask struct {
	entry   *entry
	latch   Latch
	lowered int64
}

// refresher keeps latches alive, one call after the other, so that requests
// need not wait for it.
type refresher struct {
	tasks chan refreshTask
	stop  context.CancelFunc
	done  sync.WaitGroup
}

func startRefresher(extend func(context.Context, refreshTask)) *refresher {
	ctx, stop := context.WithCancel(context.Background())
	f := &refresher{tasks: make(chan refreshTask, refreshQueue), stop: stop}
	f.done.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case task := <-f.tasks:
				extend(ctx, task)
			}
		}
	})
	return f
}

func (f *refresher) close() {
	f.stop()
	f.done.Wait()
}

// keepAlive queues a latch that the store has not heard of for a while, or
// whose pipeline the store does not know yet. The caller holds the entry.
func (r *Runs) keepAlive(en *entry, st State, now time.Time) {
	news := en.latch.Pipeline == "" && en.pipeline != ""
	if !news && now.Sub(en.refreshed) < refreshEvery {
		return
	}
	latch := en.latch
	latch.Pipeline, latch.Spares = en.pipeline, en.spared
	select {
	case r.refresh.tasks <- refreshTask{entry: en, latch: latch, lowered: st.LoweredRevision}:
		en.latch, en.refreshed = latch, now
	default:
	}
}

// extend tells the store of a latch again. That prolongs its life, makes it
// known to other replicas again should the store have lost it, and brings back
// what is in force if that is another one.
func (r *Runs) extend(ctx context.Context, task refreshTask) {
	if r.table.Regressed() {
		return
	}
	now := r.now()
	var got Latch
	err := r.breaker.Call(now, func() (err error) {
		ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
		defer cancel()
		got, err = r.store.Latch(ctx, task.entry.key.latchKey(), task.latch, task.lowered)
		return err
	})
	if err != nil || got.equal(task.latch) {
		return // the next refresh tries again; until then the run stays as it is here
	}
	task.entry.turn <- struct{}{}
	defer func() { <-task.entry.turn }()
	if task.entry.latched && task.entry.latch.equal(task.latch) {
		task.entry.adopt(got, State{LoweredRevision: task.lowered}, now)
	}
}
