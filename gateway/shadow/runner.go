package shadow

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of RunnerOptions.
const (
	DefaultQueue    = 1024
	DefaultDeadline = 2 * time.Second
)

// RunnerOptions configures a Runner; zero fields take the defaults.
type RunnerOptions struct {
	// Queue is how many candidates may wait.
	Queue int
	// Workers is how many are evaluated at once; by default twice the
	// processors, because a worker may wait for a provider's keys.
	Workers int
	// Deadline bounds one evaluation.
	Deadline time.Duration
}

// Runner evaluates candidates off the request path. Its memory is bounded by
// the queue and its time by the deadline; what does not fit is shed, counted
// and never waited for. It is safe for concurrent use.
type Runner struct {
	jobs     chan func(context.Context)
	deadline time.Duration
	shed     atomic.Uint64
	panicked atomic.Uint64

	mu     sync.RWMutex // guards jobs against a send after Close
	closed bool
	done   sync.WaitGroup
}

// NewRunner starts the workers. Call Close to end them.
func NewRunner(o RunnerOptions) *Runner {
	if o.Queue <= 0 {
		o.Queue = DefaultQueue
	}
	if o.Workers <= 0 {
		o.Workers = 2 * runtime.GOMAXPROCS(0)
	}
	if o.Deadline <= 0 {
		o.Deadline = DefaultDeadline
	}
	r := &Runner{jobs: make(chan func(context.Context), o.Queue), deadline: o.Deadline}
	for range o.Workers {
		r.done.Go(r.work)
	}
	return r
}

// Submit queues job and returns at once. It returns false when the queue is
// full or the runner is closed: then job never runs, and the loss is counted.
// The context that job gets carries the deadline and belongs to no request.
func (r *Runner) Submit(job func(context.Context)) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.closed {
		select {
		case r.jobs <- job:
			return true
		default:
		}
	}
	r.shed.Add(1)
	return false
}

// Depth returns how many candidates wait at the moment.
func (r *Runner) Depth() int { return len(r.jobs) }

// Shed returns how many candidates were shed since the start.
func (r *Runner) Shed() uint64 { return r.shed.Load() }

// Panicked returns how many candidates ended in a panic since the start. It is
// kept to the one candidate: net/http does as much for requests, and what nobody
// waits for must not end the process.
func (r *Runner) Panicked() uint64 { return r.panicked.Load() }

// Close refuses new candidates, evaluates those that wait, and returns when
// the last one is done. A second call waits as well.
func (r *Runner) Close() {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.jobs)
	}
	r.mu.Unlock()
	r.done.Wait()
}

func (r *Runner) work() {
	for job := range r.jobs {
		r.run(job)
	}
}

func (r *Runner) run(job func(context.Context)) {
	ctx, cancel := context.WithTimeout(context.Background(), r.deadline)
	defer cancel()
	defer func() {
		if recover() != nil { // what it says may hold a credential
			r.panicked.Add(1)
		}
	}()
	job(ctx)
}
