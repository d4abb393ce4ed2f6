package assess

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/readiness"
)

const (
	// DefaultEvery is the time between two looks of a Watcher.
	DefaultEvery = time.Minute
	// unread is after which time it looks again while rollouts were not read yet.
	unread = time.Second
	// pause is how many times as long as a look took it pauses at least, so that with
	// teams of very many runs it takes no more than a tenth of a processor; but no
	// longer than longest times the usual pause.
	pause, longest = 9, 10
	// lookTimeout bounds the reading of one team.
	lookTimeout = 10 * time.Second
)

// WatchOptions are the options of Watch.
type WatchOptions struct {
	// Report says how ready a team is; that of an Assessor does. Required.
	Report func(ctx context.Context, s rollout.State) (readiness.Report, error)
	// States returns the teams to look at, as they stand; false while that is not
	// known. Required.
	States func() ([]rollout.State, bool)
	// Told is given each report, by one goroutine. Required.
	Told func(readiness.Report)
	// Failed, if set, is told why a team could not be looked at, and nil when it
	// could again; for the same team never the same twice in a row. By the goroutine
	// of Told.
	Failed func(team identity.Team, err error)
	// Every is about the time between two looks; DefaultEvery when 0. A tenth more
	// or less of it keeps gateways that start together from reading together, and
	// looks that take long are further apart.
	Every time.Duration
}

// Watcher assesses all teams again and again in the background, for those who
// must not wait for it. Close it.
type Watcher struct {
	o      WatchOptions
	cancel context.CancelFunc
	done   sync.WaitGroup
	failed map[identity.Team]bool // of run
}

// Watch begins to look. A team whose evidence cannot be read is left out, and the
// others are looked at, unless the store does not answer at all.
func Watch(o WatchOptions) (*Watcher, error) {
	if o.Report == nil || o.States == nil || o.Told == nil {
		return nil, errors.New("watch the readiness of teams: reports, states and somebody to tell are needed")
	}
	if o.Failed == nil {
		o.Failed = func(identity.Team, error) {}
	}
	o.Every = cmp.Or(o.Every, DefaultEvery)
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watcher{o: o, cancel: cancel, failed: make(map[identity.Team]bool)}
	w.done.Go(func() { w.run(ctx) })
	return w, nil
}

// Close ends looking and waits for it.
func (w *Watcher) Close() error {
	w.cancel()
	w.done.Wait()
	return nil
}

func (w *Watcher) run(ctx context.Context) {
	for {
		next := w.o.Every*9/10 + rand.N(w.o.Every/5+1)
		if states, ok := w.o.States(); ok {
			began := time.Now()
			w.look(ctx, states)
			next = max(next, min(pause*time.Since(began), longest*w.o.Every))
		} else {
			next = min(next, unread)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(next):
		}
	}
}

func (w *Watcher) look(ctx context.Context, states []rollout.State) {
	for _, s := range states {
		within, cancel := context.WithTimeout(ctx, lookTimeout)
		report, err := w.o.Report(within, s)
		hung := within.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return
		}
		if failed := err != nil; failed != w.failed[s.Team] {
			w.failed[s.Team] = failed
			w.o.Failed(s.Team, err)
		}
		switch {
		case err == nil:
			w.o.Told(report)
		case hung: // and the others would wait for the same store
			return
		}
	}
}
