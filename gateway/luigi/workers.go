package luigi

import (
	"context"
	"strings"
	"sync"
	"time"

	"crossfade/gateway/identity"
)

// worker is what this replica remembers of a worker.
type worker struct {
	mu    sync.Mutex
	owner Owner
	// seen is when the owner last made an accepted request here, or when the
	// store said so.
	seen time.Time
	// shared is when the store last heard of it, asked when it was last asked.
	shared, asked time.Time
	// heard is when the owner was last refused because its identity had lapsed.
	heard time.Time
	// claimed is when the name was taken without the store, zero once it has said
	// whose it is.
	claimed time.Time
	// news tells that the store has not heard of the last sign of life.
	news bool
}

// shareEvery is how often the store hears that a worker lives: often enough for
// AbandonedAfter, and seldom enough for a thousand workers.
const shareEvery = 15 * time.Second

// Owner returns whom the worker belongs to. A name that belongs to nobody
// becomes the principal's. It waits for the store, 50 ms at most, at a worker's
// first request here and when somebody else than the owner speaks for it; while
// the store is away it goes by what is known here, until the store has said whose
// the name is.
//
// A name is the client's word: it is a claim on nothing but itself, so the first
// principal to use it owns it for as long as it is in use and WorkerTie beyond.
func (r *Registry) Owner(ctx context.Context, name, principal string, team identity.Team) Owner {
	now := r.now()
	name = boundID(name)
	w := r.worker(name)
	w.mu.Lock()
	defer w.mu.Unlock()
	alive := w.owner.Principal != "" && now.Sub(w.seen) < WorkerTie
	switch {
	case alive && w.owner.Principal == principal && (w.claimed.IsZero() || now.Sub(w.claimed) < askAgain):
		return w.owner
	case now.Sub(w.asked) < askAgain && w.owner.Principal != "":
		return w.owner // someone else's, or not in use for long: heard a moment ago
	}
	claim := Owner{Principal: principal, Team: team}
	if alive && w.owner.Principal == principal {
		claim = w.owner // with what was noted meanwhile
	}
	err := r.call(ctx, now, func(ctx context.Context) error {
		owner, err := r.store.Tie(ctx, name, claim)
		if err == nil {
			claim = owner
		}
		return err
	})
	switch {
	case err == nil:
		w.asked, w.claimed = now, time.Time{}
	case alive:
		if !w.claimed.IsZero() {
			w.claimed = now
		}
		return w.owner
	default:
		w.claimed = now
	}
	claim.Principal, claim.Team = strings.Clone(claim.Principal), identity.Team(strings.Clone(string(claim.Team)))
	w.owner, w.seen, w.shared, w.news = claim, now, now, false
	return w.owner
}

// Speaks returns whom the worker belongs to, without tying it to anybody; the
// zero Owner if nobody is known. It waits for the store, 50 ms at most, when
// nobody is known here.
func (r *Registry) Speaks(ctx context.Context, name string) Owner {
	now := r.now()
	name = boundID(name)
	w := r.worker(name)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.owner.Principal != "" && now.Sub(w.seen) < WorkerTie:
		return w.owner
	case now.Sub(w.asked) < askAgain:
		return Owner{}
	}
	w.owner, w.asked = Owner{}, now
	_ = r.call(ctx, now, func(ctx context.Context) error {
		owner, err := r.store.Owner(ctx, name)
		if err == nil && owner.Principal != "" {
			w.owner, w.seen, w.shared, w.news = owner, now, now, false
			w.claimed = time.Time{}
		}
		return err
	})
	return w.owner
}

// Accepted notes that a request of the worker's owner was accepted. It does no
// I/O, and nothing if the worker is not the principal's.
func (r *Registry) Accepted(name, principal string) {
	r.update(name, principal, func(w *worker) {
		w.seen = r.now()
		w.owner.Seen = time.UnixMilli(w.seen.UnixMilli()).UTC()
	})
}

// Refused notes that a request of the worker's owner was refused because its
// identity has lapsed: the worker lives, and what it executes is not abandoned. It
// does no I/O, and nothing if the worker is not the principal's.
func (r *Registry) Refused(name, principal string) {
	r.update(name, principal, func(w *worker) { w.heard = r.now() })
}

// Whose returns what Speaks does, with what the store knows of the owner now:
// requests that other replicas have accepted included, but for the last seconds.
// It waits for the store, 50 ms at most.
func (r *Registry) Whose(ctx context.Context, name string) Owner {
	here := r.Speaks(ctx, name)
	var there Owner
	err := r.call(ctx, r.now(), func(ctx context.Context) (err error) {
		there, err = r.store.Owner(ctx, boundID(name))
		return err
	})
	switch {
	case err != nil || there.Principal == "":
		return here
	case there.Principal == here.Principal:
		there.Token = there.Token || here.Token
		if here.Seen.After(there.Seen) {
			there.Seen = here.Seen
		}
	}
	return there
}

// Brought notes that a request of the worker's owner came with a good token. It
// does no I/O, and nothing if the worker is not the principal's.
func (r *Registry) Brought(name, principal string) {
	r.update(name, principal, func(w *worker) { w.owner.Token = true })
}

func (r *Registry) update(name, principal string, change func(*worker)) {
	w, ok := r.workers.Get(boundID(name))
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owner.Principal == principal {
		change(w)
		w.news = true
	}
}

func (r *Registry) worker(key string) *worker {
	if w, ok := r.workers.Get(key); ok {
		return w
	}
	w := &worker{}
	if other, ok, _ := r.workers.PeekOrAdd(strings.Clone(key), w); ok {
		return other
	}
	return w
}

// signs returns the signs of life that the store has not heard of.
func (r *Registry) signs(all bool) []Alive {
	now := r.now()
	var out []Alive
	for _, name := range r.workers.Keys() {
		w, ok := r.workers.Peek(name)
		if !ok {
			continue
		}
		w.mu.Lock()
		if w.news && (all || now.Sub(w.shared) >= shareEvery) {
			out = append(out, Alive{Worker: name, Owner: w.owner, Heard: w.heard})
			w.news, w.shared = false, now
		}
		w.mu.Unlock()
	}
	return out
}
