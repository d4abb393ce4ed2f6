package rollout_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"crossfade/rollout"
	"crossfade/rollout/rollouttest"
)

// canceled returns a context that has ended.
func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// modelRun is what the model knows of a run: the rules of the design, without
// caches, replicas or a store.
type modelRun struct {
	pipeline string
	latched  bool
	enforced bool
	revision int64
	seen     time.Time
}

// step is one request of the model test, perhaps after a change.
type step struct {
	change   bool
	to       rollout.Percent
	retire   bool
	pause    time.Duration
	run      string
	pipeline string
	observe  bool
	replica  int
}

// TestRunsFollowTheModel changes percentages and sends requests of a few runs
// through three replicas with tiny caches, in random order and with pauses of up
// to minutes, and compares every answer with the model.
func TestRunsFollowTheModel(t *testing.T) {
	steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
		s := step{
			change: rapid.IntRange(0, 5).Draw(rt, "change") == 0,
			to:     rollout.Percent(rapid.SampledFrom([]int{0, 10, 30, 50, 70, 100}).Draw(rt, "percent")),
			// Longer than the time for which a replica believes that the store
			// knows nothing of a run, so that all replicas know the same.
			pause:    time.Duration(rapid.IntRange(5, 240).Draw(rt, "seconds")) * time.Second,
			run:      fmt.Sprint("w", rapid.IntRange(0, 4).Draw(rt, "run")),
			pipeline: rapid.SampledFrom([]string{"", "", "A", "B", "C", "D"}).Draw(rt, "pipeline"),
			observe:  rapid.IntRange(0, 4).Draw(rt, "observe") == 0,
			replica:  rapid.IntRange(0, 2).Draw(rt, "replica"),
		}
		s.retire = s.to == 100 && rapid.IntRange(0, 3).Draw(rt, "retire") == 0
		return s
	}), 1, 80)
	rapid.Check(t, func(rt *rapid.T) {
		cache := rapid.IntRange(1, 4).Draw(rt, "cache")
		plan := steps.Draw(rt, "steps")
		var err error
		synctest.Test(t, func(t *testing.T) { err = followModel(t, cache, plan) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func followModel(t *testing.T, cache int, plan []step) error {
	store := rollouttest.NewMemory()
	var replicas []*replica
	for range 3 {
		table := newTable(t, rollout.TableOptions{Store: store, Poll: time.Hour})
		runs, err := rollout.NewRuns(rollout.RunsOptions{Table: table, Store: store, LatchRuns: true, Cache: cache})
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = runs.Close() })
		replicas = append(replicas, &replica{t: t, table: table, runs: runs})
	}
	synctest.Wait()

	var state rollout.State
	model := map[string]*modelRun{}
	for i, step := range plan {
		if step.change {
			next, err := store.Write(t.Context(), rollout.Change{Team: team, Percent: step.to, Retire: step.retire, Expect: state.Revision})
			if (err == nil) == (state.Retired && step.to != 100) {
				return fmt.Errorf("step %d %+v: %w", i, step, err)
			}
			if err == nil {
				state = next
			}
		}
		time.Sleep(step.pause)
		run := model[step.run]
		if run == nil {
			run = &modelRun{}
			model[step.run] = run
		}
		// The store hears of a run every 3 minutes, so the end of an idle one is
		// certain only after 15, and its life only within 12.
		if idle := time.Since(run.seen); !run.seen.IsZero() && idle > rollout.LatchIdle-3*time.Minute {
			time.Sleep(rollout.LatchIdle - idle + time.Second)
			*run = modelRun{}
		}
		run.seen = time.Now()
		synctest.Wait()

		r := replicas[step.replica]
		ask := r.ask
		if step.observe {
			ask = r.observe
		}
		got := ask(step.run, step.pipeline)
		synctest.Wait()
		want := run.enforce(state, step.pipeline, step.observe)
		wrong := got.Enforced != want || got.Stale || !got.Known
		if run.latched && !state.Retired {
			wrong = wrong || !got.Latched || got.Revision != run.revision || got.Pipeline != run.pipeline
		}
		if wrong {
			return fmt.Errorf("step %d %+v, team %+v:\n%+v, want enforced %v and %+v", i, step, state, got, want, *run)
		}
	}
	return nil
}

// enforce is the design, sections 2 "Who is selected" and "Runs do not flip".
func (m *modelRun) enforce(s rollout.State, pipeline string, observe bool) bool {
	if m.pipeline == "" {
		m.pipeline = pipeline
	}
	if s.Retired {
		return true
	}
	selected := s.Percent == 100 ||
		m.pipeline != "" && rollout.Selected(team, "svc-etl/"+m.pipeline, s.Percent)
	if m.latched && m.enforced && m.revision < s.LoweredRevision {
		m.latched = false
	}
	if !m.latched && m.pipeline != "" {
		m.latched, m.enforced, m.revision = true, selected && !observe, s.Revision
	}
	if m.latched {
		selected = m.enforced
	}
	return selected && !observe
}
