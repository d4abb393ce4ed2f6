package effect_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
	"crossfade/rollout/evidence"
)

// book is evidence that a test writes.
type book struct {
	mu    sync.Mutex
	days  map[evidence.Day]evidence.Daily // of every team
	down  error
	reads []evidence.Day
}

func (b *book) Daily(_ context.Context, _ identity.Team, day evidence.Day) (evidence.Daily, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reads = append(b.reads, day)
	return b.days[day], b.down
}

// write replaces what is known of a day.
func (b *book) write(day evidence.Day, d evidence.Daily) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.days[day] = d
}

func (b *book) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = err
}

// read returns what was read since it was last asked.
func (b *book) read() []evidence.Day {
	b.mu.Lock()
	defer b.mu.Unlock()
	reads := b.reads
	b.reads = nil
	return reads
}

// watched runs a test with a watcher, at noon.
func watched(t *testing.T, test func(*testing.T, *book, *effect.Watcher)) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(12 * time.Hour)
		b := &book{days: map[evidence.Day]evidence.Daily{}}
		w, err := effect.Watch(effect.Options{Store: b, Teams: func() []identity.Team { return []identity.Team{team} }, Keying: byPrincipal})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = w.Close() }()
		synctest.Wait()
		test(t, b, w)
	})
}

// pass lets time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestAWatcherTellsOfTheLastFullDayAndReadsItOnce(t *testing.T) {
	low, high := accountAt(10), accountAt(90)
	first := all(times(4, evidence.Run{Account: low}), times(6, evidence.Run{Account: high}))
	watched(t, func(t *testing.T, b *book, w *effect.Watcher) {
		if share, ok := w.Share(at(50)); ok {
			t.Errorf("before there are runs: %+v", share)
		}
		day := evidence.DayOf(time.Now())
		b.write(day, day1(low))
		pass(effect.DefaultEvery)
		share, ok := w.Share(at(50))
		if diff := cmp.Diff(effect.Share{Day: day, Runs: 1, Selected: 1}, share); !ok || diff != "" {
			t.Errorf("on the first day: %v (-want +got):\n%s", ok, diff)
		}

		b.write(day, first)
		pass(24 * time.Hour)
		for percent, selected := range map[rollout.Percent]int{0: 0, 50: 4, 100: 10} {
			share, _ := w.Share(at(percent))
			if diff := cmp.Diff(effect.Share{Day: day, Runs: 10, Selected: selected}, share); diff != "" {
				t.Errorf("the day after, at %d (-want +got):\n%s", percent, diff)
			}
		}
		b.read()
		pass(10 * time.Hour)
		if reads := b.read(); len(reads) != 0 {
			t.Errorf("a day that has passed is read again: %v", reads)
		}
		if share, ok := w.Share(rollout.State{Team: "another"}); ok {
			t.Errorf("of another team: %+v", share)
		}
	})
}

// day1 is a day of one run.
func day1(account string) evidence.Daily { return day(evidence.Run{Account: account}) }

func TestAWatcherKeepsWhatItKnowsWhileTheStoreIsAway(t *testing.T) {
	watched(t, func(t *testing.T, b *book, w *effect.Watcher) {
		day := evidence.DayOf(time.Now())
		b.write(day, day1("svc-etl"))
		pass(effect.DefaultEvery)
		b.fail(rollout.ErrUnavailable)
		pass(24 * time.Hour)
		if share, ok := w.Share(at(100)); !ok || share.Day != day {
			t.Errorf("while it is away: %+v, %v", share, ok)
		}
		next := evidence.DayOf(time.Now())
		b.write(next, all(times(5, evidence.Run{Account: "svc-etl"})))
		b.fail(nil)
		pass(24 * time.Hour)
		if share, _ := w.Share(at(100)); share.Day != next || share.Runs != 5 {
			t.Errorf("when it is back: %+v", share)
		}
	})
}

func TestWhatCameLateForADayIsReadStill(t *testing.T) {
	watched(t, func(t *testing.T, b *book, w *effect.Watcher) {
		day := evidence.DayOf(time.Now())
		b.write(day, day1("svc-etl"))
		pass(12*time.Hour + time.Minute) // just after midnight
		b.write(day, all(times(5, evidence.Run{Account: "svc-etl"})))
		pass(3 * effect.DefaultEvery)
		if share, _ := w.Share(at(100)); share.Day != day || share.Runs != 5 {
			t.Errorf("%+v", share)
		}
	})
}

func TestAWatcherNeedsAStoreAndTeams(t *testing.T) {
	t.Parallel()
	for _, o := range []effect.Options{{}, {Store: &book{}}, {Teams: func() []identity.Team { return nil }}} {
		if _, err := effect.Watch(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

func TestATeamThatIsGoneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		teams := []identity.Team{team, "search"}
		b := &book{days: map[evidence.Day]evidence.Daily{evidence.DayOf(time.Now()): day1("svc-etl")}}
		w, err := effect.Watch(effect.Options{Store: b, Keying: byPrincipal, Teams: func() []identity.Team {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(teams)
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = w.Close() }()
		synctest.Wait()
		knows := func(team identity.Team, want bool) {
			t.Helper()
			if _, ok := w.Share(rollout.State{Team: team}); ok != want {
				t.Errorf("%s is known: %v", team, ok)
			}
		}
		knows("search", true)
		mu.Lock()
		teams = teams[:1]
		mu.Unlock()
		pass(effect.DefaultEvery)
		knows("search", false)
		knows(team, true)
	})
}
