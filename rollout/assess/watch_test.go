package assess_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/assess"
	"crossfade/rollout/readiness"
)

func TestTeamsAreAssessedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var known atomic.Bool
		var away atomic.Bool
		var told, failed []string
		start := time.Now()
		w, err := assess.Watch(assess.WatchOptions{
			States: func() ([]rollout.State, bool) {
				return []rollout.State{{Team: "billing", Percent: 10}, {Team: "data-eng"}}, known.Load()
			},
			Report: func(ctx context.Context, s rollout.State) (readiness.Report, error) {
				if _, bounded := ctx.Deadline(); !bounded {
					t.Error("a look may last for ever")
				}
				if s.Team == "billing" && away.Load() {
					return readiness.Report{}, errors.New("away")
				}
				return readiness.Report{Team: s.Team, Percent: s.Percent, At: time.Now()}, nil
			},
			Told:   func(r readiness.Report) { told = append(told, fmt.Sprintf("%s %s", r.Team, r.Percent)) },
			Failed: func(team identity.Team, err error) { failed = append(failed, fmt.Sprint(team, " ", err)) },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = w.Close() }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(told) > 0 {
			t.Errorf("before the rollouts were read: %v", told)
		}
		known.Store(true)
		time.Sleep(time.Second)
		synctest.Wait()
		if want := []string{"billing 10", "data-eng 0"}; !slices.Equal(told, want) {
			t.Errorf("once they were: %v, want %v", told, want)
		}
		away.Store(true)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := len(told); n < 2+9 || n > 2+12 || slices.Contains(told[2:], "billing 10") {
			t.Errorf("in ten minutes without billing's evidence: %d, %v", n, told)
		}
		away.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if !slices.Contains(told[2:], "billing 10") || !slices.Equal(failed, []string{"billing away", "billing <nil>"}) {
			t.Errorf("when it is back after %s: %v, failed: %v", time.Since(start), told, failed)
		}
	})
}

func TestALookThatTakesLongIsFollowedByALongerPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		w, err := assess.Watch(assess.WatchOptions{
			States: func() ([]rollout.State, bool) { return []rollout.State{{Team: "a"}, {Team: "b"}}, true },
			Report: func(context.Context, rollout.State) (readiness.Report, error) {
				time.Sleep(9 * time.Second)
				return readiness.Report{}, nil
			},
			Told: func(readiness.Report) { looks++ },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = w.Close() }()
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if looks != 20 { // of two teams, each three minutes
			t.Errorf("%d looks in half an hour, want 20", looks)
		}
	})
}

func TestAStoreThatHangsIsWaitedForOnceALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(map[identity.Team]int)
		w, err := assess.Watch(assess.WatchOptions{
			States: func() ([]rollout.State, bool) { return []rollout.State{{Team: "a"}, {Team: "b"}}, true },
			Report: func(ctx context.Context, s rollout.State) (readiness.Report, error) {
				asked[s.Team]++
				<-ctx.Done()
				return readiness.Report{}, ctx.Err()
			},
			Told: func(readiness.Report) { t.Error("something was told") },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = w.Close() }()
		time.Sleep(10*time.Minute - time.Second)
		synctest.Wait()
		if asked["a"] != 6 || asked["b"] != 0 { // ten seconds, and ninety of a pause
			t.Errorf("in ten minutes it was asked about %v", asked)
		}
	})
}

func TestAWatcherThatIsClosedLooksNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		w, err := assess.Watch(assess.WatchOptions{
			States: func() ([]rollout.State, bool) { return []rollout.State{{Team: "a"}, {Team: "b"}}, true },
			Report: func(ctx context.Context, _ rollout.State) (readiness.Report, error) {
				looks++
				<-ctx.Done() // a store that hangs
				return readiness.Report{}, ctx.Err()
			},
			Told: func(readiness.Report) { t.Error("something was told") },
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		_ = w.Close()
		if looks != 1 {
			t.Errorf("%d looks, want the one that was under way", looks)
		}
	})
}

func TestAWatcherNeedsSomethingToWatchAndSomebodyToTell(t *testing.T) {
	if _, err := assess.Watch(assess.WatchOptions{}); err == nil {
		t.Error("it watches nothing")
	}
}
