package rollout_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/rollouttest"
)

func TestAtMostSixtyNewRunsAMinuteAreLatched(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)))
		p := pipelineAt(20)
		set(t, store, 50)
		a, b := luigi(t, store), luigi(t, store)
		for i := range 100 {
			if got := a.ask(fmt.Sprint("w", i), p); !got.Enforced || got.Stale || got.Latched != (i < 60) {
				t.Fatalf("run %d: %+v", i, got)
			}
		}
		if n := store.Latches(); n != 60 {
			t.Errorf("%d latches, want 60", n)
		}
		other := rollout.Run{Team: team, Principal: "svc-other", ID: "w", Pipeline: p}
		if got := a.runs.Enforce(t.Context(), other, false); !got.Latched {
			t.Errorf("another principal's run: %+v", got)
		}
		// Runs that are latched already are not new, however many come.
		wait(time.Millisecond) // latches of one millisecond look alike
		for i := range 60 {
			if got := b.ask(fmt.Sprint("w", i), p); !got.Latched {
				t.Fatalf("run %d at another replica: %+v", i, got)
			}
		}
		if got := b.ask("new", p); !got.Latched {
			t.Errorf("a new run at the other replica: %+v", got)
		}
		wait(time.Minute)
		if got := a.ask("w99", ""); !got.Latched || !got.Enforced {
			t.Errorf("in the next minute: %+v", got)
		}
	})
}

func TestRequestsOfOneRunAskTheStoreOnce(t *testing.T) {
	store := rollouttest.NewMemory()
	set(t, store, 50)
	r := luigi(t, store)
	_ = r.table.Close() // so that only runs call the store
	before := store.Calls()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { r.ask("w", "Load") })
	}
	wg.Wait()
	if n := store.Calls() - before; n != 1 {
		t.Errorf("%d calls", n)
	}
}

func TestWhatClientsSendIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		set(t, store, 50)
		r := luigi(t, store)
		long := strings.Repeat("w", 1<<20)
		family := strings.Repeat("Größe", 1<<16)
		first := r.ask(long+"1", family)
		if !first.Latched || len(first.Pipeline) > 200 || !strings.HasPrefix(first.Pipeline, "Größe") {
			t.Errorf("a run with a long id and family: pipeline of %d bytes, latched %v", len(first.Pipeline), first.Latched)
		}
		r.ask(long+"2", "Load")
		if got := r.ask(long+"1", ""); got.Pipeline != first.Pipeline {
			t.Errorf("two long ids are taken for one: pipeline %q", got.Pipeline)
		}
	})
	for _, id := range []string{"", "w", "}{", strings.Repeat("w", 1<<20)} {
		if key := rollout.NewLatchKey(team, "svc", id); len(key.Run) != 32 {
			t.Errorf("key of %d bytes", len(key.Run))
		}
	}
}

func TestNewRunsRefusesBadOptions(t *testing.T) {
	store := rollouttest.NewMemory()
	table := newTable(t, rollout.TableOptions{Store: store})
	for want, opt := range map[string]rollout.RunsOptions{
		"no table":                         {Store: store, LatchRuns: true},
		"no store to latch runs in":        {Table: table, LatchRuns: true},
		"needs a profile that knows":       {Table: table, Store: store},
		"must not be negative":             {Table: table, Store: store, LatchRuns: true, Cache: -1},
		"stickiness pipeline needs a prof": {Table: table, Stickiness: rollout.StickPipeline},
	} {
		if runs, err := rollout.NewRuns(opt); err == nil {
			_ = runs.Close()
			t.Errorf("no error, want one that says %q", want)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
}

func TestLatchedCountsRunsByTeam(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		set(t, store, 50)
		r := luigi(t, store)
		r.ask("a", "Load")
		r.ask("b", "Load")
		r.ask("without a key", "")
		if diff := cmp.Diff(map[identity.Team]int{team: 2}, r.runs.Latched()); diff != "" {
			t.Error(diff)
		}
		wait(rollout.LatchIdle)
		if n := len(r.runs.Latched()); n != 0 {
			t.Errorf("%d teams have latched runs after all went idle", n)
		}
	})
}

func TestEnforceAllocatesNothingOnceLatched(t *testing.T) {
	for name, enforce := range hotPaths(t) {
		if n := testing.AllocsPerRun(100, enforce); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkEnforce(b *testing.B) {
	for name, enforce := range hotPaths(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				enforce()
			}
		})
	}
}

func hotPaths(t testing.TB) map[string]func() {
	store := rollouttest.NewMemory()
	set(t, store, 50)
	l := luigi(t, store)
	h := newReplica(t, store, rollout.StickPrincipal, false)
	ctx := context.Background()
	run := rollout.Run{Team: team, Principal: "svc-etl", ID: "Worker(salt=123456789, workers=1, host=etl, username=etl, pid=42)", Pipeline: "Load"}
	l.runs.Enforce(ctx, run, false)
	ping := run
	ping.Pipeline = ""
	return map[string]func(){
		"luigi, a task":  func() { l.runs.Enforce(ctx, run, false) },
		"luigi, a ping":  func() { l.runs.Enforce(ctx, ping, false) },
		"http":           func() { h.runs.Enforce(ctx, rollout.Run{Team: team, Principal: "svc-etl"}, false) },
		"unknown team":   func() { h.runs.Enforce(ctx, rollout.Run{Team: "nobody", Principal: "svc-etl"}, false) },
		"without worker": func() { l.runs.Enforce(ctx, rollout.Run{Team: team, Principal: "svc-etl"}, false) },
	}
}
