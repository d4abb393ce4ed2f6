package rollout_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/rollouttest"
)

// replica is one gateway: its own table and cache on a store that it may share.
type replica struct {
	t     testing.TB
	table *rollout.Table
	runs  *rollout.Runs
}

func newReplica(t testing.TB, store rollout.Store, stick rollout.Stickiness, latch bool) *replica {
	t.Helper()
	table := newTable(t, rollout.TableOptions{Store: store, Poll: time.Hour}) // messages suffice
	if err := table.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	runs, err := rollout.NewRuns(rollout.RunsOptions{Table: table, Store: store, Stickiness: stick, LatchRuns: latch})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = runs.Close() })
	return &replica{t: t, table: table, runs: runs}
}

// luigi returns a replica with Luigi's defaults.
func luigi(t testing.TB, store rollout.Store) *replica {
	return newReplica(t, store, rollout.StickPipeline, true)
}

// ask asks about a run of svc-etl.
func (r *replica) ask(id, pipeline string) rollout.Enforcement {
	return r.runs.Enforce(r.t.Context(), rollout.Run{Team: team, Principal: "svc-etl", ID: id, Pipeline: pipeline}, false)
}

func (r *replica) observe(id, pipeline string) rollout.Enforcement {
	return r.runs.Enforce(r.t.Context(), rollout.Run{Team: team, Principal: "svc-etl", ID: id, Pipeline: pipeline}, true)
}

// pipelineAt returns a pipeline of svc-etl that is selected from the percentage
// on and not below.
func pipelineAt(percent rollout.Percent) string {
	for i := 0; ; i++ {
		name := fmt.Sprint("Pipeline", i)
		if rollout.Threshold(team, "svc-etl/"+name) == percent {
			return name
		}
	}
}

// wait lets messages arrive and background work end.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// inBubble runs the test in a bubble, with an empty store.
func inBubble(t *testing.T, test func(t *testing.T, store *rollouttest.Memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, rollouttest.NewMemory()) })
}

func TestNothingIsKnownBeforeTheFirstReading(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		set(t, store, 100)
		store.SetDown(true)
		table := newTable(t, rollout.TableOptions{Store: store})
		runs, err := rollout.NewRuns(rollout.RunsOptions{Table: table, Store: store, LatchRuns: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = runs.Close() }()
		synctest.Wait()
		got := runs.Enforce(t.Context(), rollout.Run{Team: team, Principal: "svc-etl", ID: "w", Pipeline: "P"}, false)
		if diff := cmp.Diff(rollout.Enforcement{}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAFirstRequestIsJudgedByThePercentage(t *testing.T) {
	early, late := pipelineAt(20), pipelineAt(80)
	for name, tc := range map[string]struct {
		percent  rollout.Percent
		retire   bool
		pipeline string
		observe  bool
		want     rollout.Enforcement
	}{
		"a team without a row": {
			percent: 0, pipeline: early,
			want: rollout.Enforcement{KeyKnown: true, Latched: true},
		},
		"a pipeline within the percentage": {
			percent: 50, pipeline: early,
			want: rollout.Enforcement{Enforced: true, Selected: true, KeyKnown: true, Latched: true},
		},
		"a pipeline beyond the percentage": {
			percent: 50, pipeline: late,
			want: rollout.Enforcement{KeyKnown: true, Latched: true},
		},
		"no pipeline yet": {percent: 99, want: rollout.Enforcement{}},
		"no pipeline yet at 100": {
			percent: 100,
			want:    rollout.Enforcement{Enforced: true, Selected: true},
		},
		"a pipeline at 100": {
			percent: 100, pipeline: late,
			want: rollout.Enforcement{Enforced: true, Selected: true, KeyKnown: true, Latched: true},
		},
		"retired without a pipeline": {
			percent: 100, retire: true,
			want: rollout.Enforcement{Enforced: true, Selected: true, Retired: true},
		},
		"observing latches as not enforced": {
			percent: 50, pipeline: early, observe: true,
			want: rollout.Enforcement{Selected: true, KeyKnown: true, Latched: true},
		},
		"observing at 100 without a pipeline": {
			percent: 100, observe: true,
			want: rollout.Enforcement{Selected: true},
		},
		"retirement beats observing": {
			percent: 100, retire: true, pipeline: early, observe: true,
			want: rollout.Enforcement{Enforced: true, Selected: true, KeyKnown: true, Retired: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
				tc.want.Known, tc.want.Percent, tc.want.Pipeline = true, tc.percent, tc.pipeline
				if tc.percent > 0 {
					s, err := store.Write(t.Context(), rollout.Change{Team: team, Percent: tc.percent, Retire: tc.retire})
					if err != nil {
						t.Fatal(err)
					}
					tc.want.Revision, tc.want.Phase = s.Revision, s.Phase()
				}
				r := luigi(t, store)
				for _, request := range []string{"first", "second"} {
					got := r.runs.Enforce(t.Context(), rollout.Run{Team: team, Principal: "svc-etl", ID: "w", Pipeline: tc.pipeline}, tc.observe)
					if diff := cmp.Diff(tc.want, got); diff != "" {
						t.Errorf("%s request (-want +got):\n%s", request, diff)
					}
				}
			})
		})
	}
}

func TestUnassignedIsPinnedAtZero(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		set(t, store, 10)
		snap, _ := store.Load(t.Context())
		snap.Teams[identity.Unassigned] = rollout.State{Team: identity.Unassigned, Percent: 100, Retired: true, Revision: 9}
		store.ReadBack(snap) // somebody wrote there by hand
		r := luigi(t, store)
		run := rollout.Run{Team: identity.Unassigned, Principal: "legacy:bob", ID: "w", Pipeline: "P"}
		want := rollout.Enforcement{Known: true, KeyKnown: true, Pipeline: "P"}
		if diff := cmp.Diff(want, r.runs.Enforce(t.Context(), run, false)); diff != "" {
			t.Error(diff)
		}
		run.Pipeline = ""
		if got := r.runs.Enforce(t.Context(), run, false).Pipeline; got != "P" {
			t.Errorf("the pipeline is remembered as %q", got)
		}
		if store.Latches() != 0 {
			t.Error("a run of nobody's team was latched")
		}
	})
}

func TestStickiness(t *testing.T) {
	count := func(r *replica, run func(i int) rollout.Run) (enforced int) {
		for i := range 200 {
			if r.runs.Enforce(t.Context(), run(i), false).Enforced {
				enforced++
			}
		}
		return enforced
	}
	manyRuns := func(i int) rollout.Run {
		return rollout.Run{Team: team, Principal: "svc-etl", ID: fmt.Sprint("worker-", i)}
	}
	manyPrincipals := func(i int) rollout.Run {
		return rollout.Run{Team: team, Principal: fmt.Sprint("svc-", i), ID: "w"}
	}
	for name, tc := range map[string]struct {
		stick    rollout.Stickiness
		latch    bool
		run      func(int) rollout.Run
		min, max int
	}{
		"run: each run by itself":                            {rollout.StickRun, true, manyRuns, 70, 130},
		"principal: all runs of one alike":                   {rollout.StickPrincipal, true, manyRuns, 0, 0},
		"principal: each principal by itself":                {rollout.StickPrincipal, true, manyPrincipals, 70, 130},
		"pipeline: none before its pipeline is known":        {rollout.StickPipeline, true, manyRuns, 0, 0},
		"http: each principal by itself":                     {rollout.StickPrincipal, false, manyPrincipals, 70, 130},
		"http: the run is the principal":                     {rollout.StickRun, false, manyRuns, 0, 0},
		"http: the run is the principal, and differs by one": {rollout.StickRun, false, manyPrincipals, 70, 130},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
				set(t, store, 50)
				r := newReplica(t, store, tc.stick, tc.latch)
				if got := count(r, tc.run); got < tc.min || got > tc.max {
					t.Errorf("%d of 200 enforced, want %d to %d", got, tc.min, tc.max)
				}
				if !tc.latch && store.Latches() != 0 {
					t.Error("profile http latched a run")
				}
			})
		})
	}
}

func TestARaiseSparesRunsInFlight(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		p := pipelineAt(60)
		set(t, store, 10)
		a, b := luigi(t, store), luigi(t, store)
		if got := a.ask("old", p); got.Enforced || !got.Latched {
			t.Fatalf("before the raise: %+v", got)
		}
		for _, percent := range []rollout.Percent{70, 100} {
			set(t, store, percent)
			wait(time.Second)
			for name, r := range map[string]*replica{"its own replica": a, "another replica": b} {
				if got := r.ask("old", ""); got.Enforced || !got.Latched || !got.Selected || got.Revision != 1 || got.Pipeline != p {
					t.Errorf("the run in flight at %s, team at %d: %+v", name, percent, got)
				}
			}
			if got := b.ask(fmt.Sprint("new at ", percent), p); !got.Enforced {
				t.Errorf("a new run at %d: %+v", percent, got)
			}
		}
		if _, err := store.Write(t.Context(), rollout.Change{Team: team, Percent: 100, Expect: rollout.AnyRevision, Retire: true}); err != nil {
			t.Fatal(err)
		}
		wait(time.Second)
		if got := a.ask("old", ""); !got.Enforced || got.Latched || !got.Retired {
			t.Errorf("the run in flight when its team is retired: %+v", got)
		}
	})
}

func TestALoweringFreesRunsLatchedBefore(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		p20, p40, p80 := pipelineAt(20), pipelineAt(40), pipelineAt(80)
		set(t, store, 50)
		a, b := luigi(t, store), luigi(t, store)
		for id, p := range map[string]string{"w20": p20, "w40": p40, "w80": p80} {
			if got, want := a.ask(id, p).Enforced, p != p80; got != want {
				t.Fatalf("%s at 50: %v", id, got)
			}
		}
		set(t, store, 30)
		wait(time.Second)
		check := func(when string, want map[string]rollout.Enforcement) {
			t.Helper()
			for name, r := range map[string]*replica{"the first replica": a, "the second": b} {
				for id, w := range want {
					got := r.ask(id, "")
					if got.Enforced != w.Enforced || got.Revision != w.Revision || !got.Latched {
						t.Errorf("%s, %s at %s: %+v, want enforced %v by revision %d", when, id, name, got, w.Enforced, w.Revision)
					}
				}
			}
		}
		check("lowered to 30", map[string]rollout.Enforcement{
			"w20": {Enforced: true, Revision: 2}, "w40": {Revision: 2}, "w80": {Revision: 1},
		})
		set(t, store, 100) // and now all of them are in flight again
		wait(time.Second)
		check("raised again", map[string]rollout.Enforcement{
			"w20": {Enforced: true, Revision: 2}, "w40": {Revision: 2}, "w80": {Revision: 1},
		})
		set(t, store, 0)
		wait(time.Second)
		check("lowered to 0", map[string]rollout.Enforcement{
			"w20": {Revision: 4}, "w40": {Revision: 2}, "w80": {Revision: 1},
		})
	})
}

func TestAFreedRunIsJudgedByItsFirstPipeline(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		first, second := pipelineAt(20), pipelineAt(80)
		set(t, store, 50)
		a, b := luigi(t, store), luigi(t, store)
		if !a.ask("w", first).Enforced {
			t.Fatal("not enforced at 50")
		}
		set(t, store, 30)
		wait(time.Second)
		// The second replica never saw the first task.
		if got := b.ask("w", second); !got.Enforced || got.Pipeline != first || got.Revision != 2 {
			t.Errorf("at the replica that sees another task: %+v, want enforced for %s by revision 2", got, first)
		}
	})
}

func TestReplicasLearnAPipelineFromTheLatch(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		p := pipelineAt(20)
		set(t, store, 50)
		a, b := luigi(t, store), luigi(t, store)
		if got := b.ask("w", ""); got.Enforced || got.KeyKnown || got.Latched {
			t.Fatalf("a ping before the first task: %+v", got)
		}
		if got := a.ask("w", p); !got.Enforced {
			t.Fatalf("the first task: %+v", got)
		}
		wait(5 * time.Second) // no replica asks about such a run more often
		if got := b.ask("w", ""); !got.Enforced || !got.Latched || got.Pipeline != p {
			t.Errorf("a ping at the other replica: %+v", got)
		}
		if got := b.ask("w", pipelineAt(80)); !got.Enforced || got.Pipeline != p {
			t.Errorf("a second task at the other replica: %+v", got)
		}
	})
}

func TestARaiseTo100AsksForTheLatchBeforeItEnforces(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		set(t, store, 10)
		a, b := luigi(t, store), luigi(t, store)
		b.ask("w", "") // the store knew nothing of the run
		a.ask("w", pipelineAt(60))
		set(t, store, 100)
		synctest.Wait()
		if got := b.ask("w", ""); got.Enforced || !got.Latched {
			t.Errorf("a run in flight whose latch another replica made: %+v", got)
		}
	})
}

func TestALatchWithoutAPipelineLearnsIt(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		set(t, store, 100)
		a := newReplica(t, store, rollout.StickPrincipal, true)
		a.ask("w", "")
		if got := a.ask("w", "Load"); got.Pipeline != "Load" || !got.Latched {
			t.Errorf("at the replica that saw the task: %+v", got)
		}
		synctest.Wait()
		b := newReplica(t, store, rollout.StickPrincipal, true)
		if got := b.ask("w", "Extract"); got.Pipeline != "Load" {
			t.Errorf("at another replica: %+v", got)
		}
	})
}

func TestRunsEndAfterFifteenIdleMinutes(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		p := pipelineAt(60)
		set(t, store, 10)
		a, b := luigi(t, store), luigi(t, store)
		a.ask("busy", p)
		a.ask("idle", p)
		set(t, store, 70)
		for range 10 * 60 { // ten hours, a ping a minute
			wait(time.Minute)
			if a.ask("busy", "").Enforced {
				t.Fatal("a run in flight changed sides")
			}
		}
		if got := b.ask("busy", ""); got.Enforced || !got.Latched {
			t.Errorf("the busy run at another replica: %+v", got)
		}
		for name, r := range map[string]*replica{"its own replica": a, "another": b} {
			if got := r.ask("idle", ""); got.Enforced || got.Latched || got.KeyKnown {
				t.Errorf("a ping of the idle run at %s: %+v, want another run", name, got)
			}
		}
		if got := a.ask("idle", p); !got.Enforced || got.Revision != 2 {
			t.Errorf("a task of the idle run: %+v, want enforced by the new percentage", got)
		}
	})
}

func TestRunsEndAfterSevenDays(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		set(t, store, 10)
		a := luigi(t, store)
		a.ask("w", pipelineAt(60))
		set(t, store, 70)
		for passed := time.Duration(0); passed < rollout.LatchMax-10*time.Minute; passed += 10 * time.Minute {
			wait(10 * time.Minute)
			if a.ask("w", "").Enforced {
				t.Fatalf("a run in flight changed sides after %v", passed)
			}
		}
		wait(10 * time.Minute)
		if got := a.ask("w", ""); !got.Enforced || got.Revision != 2 {
			t.Errorf("after seven days: %+v", got)
		}
	})
}
