package luigi

import (
	"context"
	"time"
)

const (
	// gatherFor is how long families are gathered before they are shared.
	gatherFor = 100 * time.Millisecond
	// sweepEvery is how often signs of life are shared and abandoned executions
	// looked for.
	sweepEvery = 5 * time.Second
	// shareTimeout bounds one call in the background, where nobody waits.
	shareTimeout = time.Second
	// batch bounds what one call carries.
	batch = 512
)

// share tells the store what was learned, that workers live, and asks it for
// executions that nobody will end any more.
func (r *Registry) share(ctx context.Context) {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), shareTimeout)
			defer cancel()
			for list := r.gather(nil); len(list) > 0 && last.Err() == nil; list = r.gather(nil) {
				r.register(last, list)
			}
			r.tell(last, true)
			return
		case first := <-r.learned:
			gather := time.NewTimer(gatherFor)
			select {
			case <-ctx.Done():
			case <-gather.C:
			}
			gather.Stop()
			r.register(context.WithoutCancel(ctx), r.gather([]Registered{first}))
		case <-sweep.C:
			r.tell(ctx, false)
			r.collect(ctx)
		}
	}
}

// gather takes what waits, up to a batch.
func (r *Registry) gather(list []Registered) []Registered {
	for len(list) < batch {
		select {
		case next := <-r.learned:
			list = append(list, next)
		default:
			return list
		}
	}
	return list
}

func (r *Registry) register(ctx context.Context, list []Registered) {
	if len(list) == 0 {
		return
	}
	r.background(ctx, func(ctx context.Context) error { return r.store.Register(ctx, list) })
}

func (r *Registry) tell(ctx context.Context, all bool) {
	for signs := r.signs(all); len(signs) > 0; {
		n := min(len(signs), batch)
		now := signs[:n]
		r.background(ctx, func(ctx context.Context) error { return r.store.Alive(ctx, now) })
		signs = signs[n:]
	}
}

// collect tells of executions whose workers gave no sign of life. Another
// replica shares those it hears up to shareEvery and sweepEvery later.
func (r *Registry) collect(ctx context.Context) {
	before := r.now().Add(-AbandonedAfter - shareEvery - sweepEvery)
	var gone []Started
	r.background(ctx, func(ctx context.Context) (err error) {
		gone, err = r.store.Abandoned(ctx, before, batch)
		return err
	})
	for _, s := range gone {
		r.forget(s)
		r.onGone(Execution{Started: s, Ended: r.stamp(), Outcome: Abandoned})
	}
}

// forget drops an execution that the store has given up.
func (r *Registry) forget(s Started) {
	key := boundID(s.Task)
	if k, ok := r.tasks.Peek(key); ok && k.started != nil && k.started.Worker == s.Worker {
		k.started, k.shared = nil, false
		r.tasks.Add(key, k)
	}
}

// background calls the store with more time than a request has. What fails is
// not tried again: families can be asked for, signs of life come again, and
// abandoned executions stay where they are.
func (r *Registry) background(ctx context.Context, f func(context.Context) error) {
	_ = r.breaker.Call(r.now(), func() error {
		ctx, cancel := context.WithTimeout(ctx, shareTimeout)
		defer cancel()
		return f(ctx)
	})
}
