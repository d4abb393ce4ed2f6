package effect

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
)

const (
	// DefaultEvery is the time between two looks of a Watcher.
	DefaultEvery = 5 * time.Minute
	// settled is how long after its end a day may still be added to: replicas write
	// once a second, and after a short outage what they had kept.
	settled = 10 * time.Minute
	// timeout bounds one reading.
	timeout = 2 * time.Second
)

// Reader reads evidence.
type Reader interface {
	Daily(ctx context.Context, team identity.Team, day evidence.Day) (evidence.Daily, error)
}

// LastFull reads the last full day of a team before now, or what there is of the
// present one while the team has no runs on that.
func LastFull(ctx context.Context, r Reader, team identity.Team, now time.Time) (Sample, error) {
	today := evidence.DayOf(now)
	for _, day := range []evidence.Day{today.Before(), today} {
		d, err := r.Daily(ctx, team, day)
		if err != nil {
			return Sample{}, err
		}
		if len(d.Runs) > 0 {
			return SampleOf(day, d), nil
		}
	}
	return Sample{day: today}, nil
}

// Options are the options of Watch.
type Options struct {
	// Store and Teams are required. Teams lists those to look at.
	Store Reader
	Teams func() []identity.Team
	// Keying is what runs are bucketed by.
	Keying rollout.Keying
	// Every is the time between two looks; DefaultEvery when 0.
	Every time.Duration
}

// Watcher keeps the last full day of each team at hand, so that nothing has to be
// read to say what share of it a percentage is in effect for. A day that has
// passed is read once and not again. Close it. Share is safe for concurrent use.
type Watcher struct {
	o      Options
	cancel context.CancelFunc
	done   sync.WaitGroup
	known  atomic.Pointer[map[identity.Team]looked] // copied on write
}

// looked is a sample and when it was read.
type looked struct {
	sample Sample
	at     time.Time
}

// Watch begins to look in the background. While the store is away what is known
// stays; the next look tries again.
func Watch(o Options) (*Watcher, error) {
	if o.Store == nil || o.Teams == nil {
		return nil, errors.New("watch the effect of percentages: a store and teams are needed")
	}
	o.Every = cmp.Or(o.Every, DefaultEvery)
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watcher{o: o, cancel: cancel}
	w.known.Store(&map[identity.Team]looked{})
	w.done.Go(func() { w.run(ctx) })
	return w, nil
}

// Close ends looking and waits for it. Share goes on answering.
func (w *Watcher) Close() error {
	w.cancel()
	w.done.Wait()
	return nil
}

// Share is the share of the last full day that the team's percentage is in
// effect for, as it stands in s; ok is false while no runs of it are known. It
// does no I/O.
func (w *Watcher) Share(s rollout.State) (share Share, ok bool) {
	l := (*w.known.Load())[s.Team]
	if l.sample.Runs() == 0 {
		return Share{}, false
	}
	return l.sample.At(s, s.Percent, w.o.Keying), true
}

func (w *Watcher) run(ctx context.Context) {
	ticker := time.NewTicker(w.o.Every)
	defer ticker.Stop()
	for {
		w.look(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// look reads what may be new, one team after another. A failure ends it: the
// other teams would only wait for the same store.
func (w *Watcher) look(ctx context.Context, now time.Time) {
	known := *w.known.Load()
	next := make(map[identity.Team]looked, len(known))
	defer func() { w.known.Store(&next) }()
	teams := w.o.Teams()
	for i, team := range teams {
		if l := known[team]; !l.due(now) {
			next[team] = l
			continue
		}
		within, cancel := context.WithTimeout(ctx, timeout)
		sample, err := LastFull(within, w.o.Store, team, now)
		cancel()
		if err != nil {
			for _, rest := range teams[i:] {
				if l, ok := known[rest]; ok {
					next[rest] = l
				}
			}
			return
		}
		next[team] = looked{sample, now}
		// Told at once: with many teams a look takes a while.
		so := maps.Clone(known)
		maps.Copy(so, next)
		w.known.Store(&so)
	}
}

// due reports whether there may be more to know.
func (l looked) due(now time.Time) bool {
	day := evidence.DayOf(now).Before()
	return l.sample.Runs() == 0 || l.sample.day != day || l.at.Before(day.End().Add(settled))
}
