package rollout_test

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/rollouttest"
)

func TestTheEffectiveShareIsWithinTwoPointsOfTheOneAskedFor(t *testing.T) {
	const keys = 10_000
	for _, team := range []identity.Team{"data-eng", "billing", "ml-platform", "a"} {
		var selected [101]int
		for i := range keys {
			for percent := rollout.Threshold(team, fmt.Sprintf("svc-%d/Load%d", i%20, i)); percent <= rollout.Full; percent++ {
				selected[percent]++
			}
		}
		for percent, n := range selected {
			if share := 100 * float64(n) / keys; math.Abs(share-float64(percent)) > 2 {
				t.Errorf("%s at %d%%: %.2f%% of the keys", team, percent, share)
			}
		}
	}
}

func TestTeamsAtOnePercentageSelectOtherKeys(t *testing.T) {
	teams := []identity.Team{"data-eng", "billing", "ml-platform", "search", "growth"}
	for percent := rollout.Percent(10); percent <= 90; percent += 20 {
		for i, a := range teams {
			for _, b := range teams[:i] {
				differ := 0
				for n := range 1000 {
					key := fmt.Sprint("svc/Load", n)
					if rollout.Selected(a, key, percent) != rollout.Selected(b, key, percent) {
						differ++
					}
				}
				// Chance has 2p(1-p) of the keys differ.
				if p := float64(percent) / 100; float64(differ) < 1000*p*(1-p) {
					t.Errorf("%s and %s at %s%%: only %d of 1000 keys differ", a, b, percent, differ)
				}
			}
		}
	}
}

// ride is one step of a ramp: another percentage, or requests of a run.
type ride struct {
	to      int // -1 for none
	run     int
	replica int
	pause   time.Duration
}

// TestNoRampRefusesARunInItsMiddle changes the percentage as somebody nervous
// does: a run that was let in is let in until its end, and any lowering frees at
// once, on every replica, whoever it does not select any more.
func TestNoRampRefusesARunInItsMiddle(t *testing.T) {
	rides := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) ride {
		r := ride{
			to: -1, run: rapid.IntRange(0, 5).Draw(rt, "run"), replica: rapid.IntRange(0, 2).Draw(rt, "replica"),
			pause: time.Duration(rapid.IntRange(0, 120).Draw(rt, "pause")) * time.Second,
		}
		if rapid.IntRange(0, 2).Draw(rt, "change") == 0 {
			r.to = rapid.SampledFrom([]int{0, 10, 30, 50, 70, 90, 100}).Draw(rt, "to")
		}
		return r
	}), 1, 60)
	rapid.Check(t, func(rt *rapid.T) {
		plan := rides.Draw(rt, "rides")
		var err error
		synctest.Test(t, func(t *testing.T) { err = followRamp(t, plan) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func followRamp(t *testing.T, plan []ride) error {
	store := rollouttest.NewMemory()
	replicas := []*replica{luigi(t, store), luigi(t, store), luigi(t, store)}
	synctest.Wait()
	percent := rollout.Percent(0)
	letIn := make(map[int]time.Time) // when it was last
	pipeline := func(run int) string { return fmt.Sprint("Load", run) }
	for i, step := range plan {
		if step.to >= 0 {
			to := rollout.Percent(step.to)
			if _, err := store.Write(t.Context(), rollout.Change{Team: team, Percent: to, Expect: rollout.AnyRevision}); err != nil {
				return err
			}
			synctest.Wait()
			if to < percent {
				for run := range 6 {
					for n, r := range replicas {
						got := r.ask(fmt.Sprint("w", run), pipeline(run))
						if got.Enforced && !rollout.Selected(team, "svc-etl/"+pipeline(run), to) {
							return fmt.Errorf("step %d: run %d is not freed on replica %d by the lowering from %s%% to %s%%: %+v", i, run, n, percent, to, got)
						}
						if !got.Enforced {
							letIn[run] = time.Now()
						}
						synctest.Wait()
					}
				}
			}
			percent = to
		}
		time.Sleep(step.pause)
		got := replicas[step.replica].ask(fmt.Sprint("w", step.run), pipeline(step.run))
		synctest.Wait()
		last, before := letIn[step.run]
		// Other replicas may have last told the store of the run 3 minutes ago.
		if got.Enforced && before && time.Since(last) < rollout.LatchIdle-3*time.Minute {
			return fmt.Errorf("step %d: run %d was let in %s ago and is refused at %s%%: %+v", i, step.run, time.Since(last), percent, got)
		}
		if got.Enforced {
			delete(letIn, step.run)
		} else {
			letIn[step.run] = time.Now()
		}
	}
	return nil
}
