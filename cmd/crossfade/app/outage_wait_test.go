package app_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"crossfade/cmd/crossfade/app"
	"crossfade/gateway/luigi"
	"crossfade/rollout"
	"crossfade/rollout/redisstore"
)

// hanging is a store that answers nothing to who waits with a request, once it is
// told to hang, and counts who asks and for how long.
type hanging struct {
	*redisstore.InProcess
	on atomic.Bool

	mu     sync.Mutex
	asked  map[string]int
	longer []string // who would have waited too long
}

// wait is what a call does. It takes 50 ms at most, and no request waits for more.
func (h *hanging) wait(ctx context.Context, call string) error {
	deadline, bounded := ctx.Deadline()
	h.mu.Lock()
	h.asked[call]++
	if !h.on.Load() {
		h.mu.Unlock()
		return nil
	}
	if !bounded || time.Until(deadline) > 50*time.Millisecond {
		h.longer = append(h.longer, call)
	}
	h.mu.Unlock()
	<-ctx.Done()
	return fmt.Errorf("%w: %w", rollout.ErrUnavailable, ctx.Err())
}

// calls is how often the store was asked since the last time.
func (h *hanging) calls() (n int, by map[string]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	by, h.asked = h.asked, make(map[string]int)
	for _, c := range by {
		n += c
	}
	return n, by
}

func (h *hanging) Latch(ctx context.Context, key rollout.LatchKey, l rollout.Latch, lowered int64) (rollout.Latch, error) {
	if err := h.wait(ctx, "latch"); err != nil {
		return rollout.Latch{}, err
	}
	return h.InProcess.Latch(ctx, key, l, lowered)
}

func (h *hanging) Latched(ctx context.Context, key rollout.LatchKey) (rollout.Latch, bool, error) {
	if err := h.wait(ctx, "latched"); err != nil {
		return rollout.Latch{}, false, err
	}
	return h.InProcess.Latched(ctx, key)
}

func (h *hanging) Tie(ctx context.Context, worker string, o luigi.Owner) (luigi.Owner, error) {
	if err := h.wait(ctx, "tie"); err != nil {
		return luigi.Owner{}, err
	}
	return h.InProcess.Tie(ctx, worker, o)
}

func (h *hanging) Owner(ctx context.Context, worker string) (luigi.Owner, error) {
	if err := h.wait(ctx, "owner"); err != nil {
		return luigi.Owner{}, err
	}
	return h.InProcess.Owner(ctx, worker)
}

func (h *hanging) Task(ctx context.Context, id string) (luigi.Task, error) {
	if err := h.wait(ctx, "task"); err != nil {
		return luigi.Task{}, err
	}
	return h.InProcess.Task(ctx, id)
}

// TestNoRequestWaitsForAStoreThatHangs counts instead of measuring: what is known
// of a run asks nothing, and of many new runs a few wait, 50 ms at most each.
func TestNoRequestWaitsForAStoreThatHangs(t *testing.T) {
	t.Parallel()
	h := &hanging{InProcess: inProcess(t), asked: make(map[string]int)}
	s := newSite(t)
	g := s.start(func(o *app.Options) { o.Store, o.StoreTimeout = h, 0 }).loaded()
	if got := g.send(etl(addTask("known", "LoadUsers"))); got.status != 200 {
		t.Fatalf("before: %v", got)
	}
	// On a busy machine the store may take more than the 50 ms that a request waits.
	s.eventually("the run is known", func() bool {
		h.calls()
		got := g.send(etl(ping("known")))
		n, _ := h.calls()
		return got.status == 200 && n == 0
	})
	h.on.Store(true)
	const requests = 200
	for range requests {
		if got := g.send(etl(ping("known"))); got.status != 200 {
			t.Fatalf("a run that is known: %v", got)
		}
	}
	if n, by := h.calls(); n != 0 {
		t.Errorf("%d requests of a run that is known asked the store: %v", requests, by)
	}
	for i := range requests {
		if got := g.send(etl(addTask(fmt.Sprint("new-", i), "LoadUsers"))); got.status != 200 {
			t.Fatalf("a new run: %v", got)
		}
	}
	// A breaker lets one through, then none for 250 ms, 500 ms, and so on up to 5 s:
	// however slow this machine is, it does not come to one request in four.
	if n, by := h.calls(); n == 0 || n > requests/4 {
		t.Errorf("of %d new runs %d waited for the store: %v", requests, n, by)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.longer) > 0 {
		t.Errorf("calls that may take longer than 50 ms: %v", h.longer)
	}
}
