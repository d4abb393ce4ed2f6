package rollout_test

import (
	"fmt"
	"testing"
	"time"

	"crossfade/rollout"
	"crossfade/rollout/rollouttest"
)

// window asks for a percentage and a brownout at 100 from a time on, for an hour.
func window(t *testing.T, store *rollouttest.Memory, stored rollout.Percent, from time.Time) rollout.Brownout {
	t.Helper()
	b := rollout.Brownout{From: from, Until: from.Add(time.Hour), Percent: 100}
	now := time.UnixMilli(time.Now().UnixMilli()).UTC()
	if _, err := store.Write(t.Context(), rollout.Change{
		Team: team, Kind: rollout.KindRequest, Percent: stored, Expect: rollout.AnyRevision,
		Request: &rollout.Request{Percent: stored, At: now, Brownouts: []rollout.Brownout{b}},
	}); err != nil {
		t.Fatal(err)
	}
	wait(time.Second)
	return b
}

func TestABrownoutGovernsTheRunsFirstSeenInIt(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		r := luigi(t, store)
		b := window(t, store, 0, time.Now().Add(time.Hour))
		if got := r.ask("before", "P"); got.Enforced || got.Brownout {
			t.Errorf("before the window: %+v", got)
		}
		time.Sleep(time.Until(b.From) - 10*time.Minute)
		r.ask("before", "P")
		time.Sleep(10 * time.Minute)
		if got := r.ask("before", "P"); got.Enforced {
			t.Errorf("a run from before the window flips in its middle: %+v", got)
		}
		got := r.ask("inside", "P")
		if !got.Enforced || !got.Brownout || got.Percent != 100 || !got.Latched {
			t.Errorf("a run first seen in the window: %+v", got)
		}
		if state, _ := r.table.Lookup(team); state.Percent != 0 {
			t.Errorf("the stored percentage is %s", state.Percent)
		}
		if got := r.observe("watched", "P"); got.Enforced || !got.Selected {
			t.Errorf("while observing: %+v", got)
		}
	})
}

func TestABrownoutEndsByItselfOnEveryReplica(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		first, second := luigi(t, store), luigi(t, store)
		b := window(t, store, 0, time.Now())
		for _, r := range []*replica{first, second} {
			if got := r.ask("w", "P"); !got.Enforced {
				t.Errorf("in the window: %+v", got)
			}
		}
		_ = first.runs.Close() // and whoever began it is gone
		store.SetDown(true)    // and so is the store
		for time.Now().Before(b.Until.Add(-time.Second)) {
			time.Sleep(time.Minute)
			second.ask("w", "P") // the run stays alive
		}
		time.Sleep(time.Until(b.Until))
		if got := second.ask("w", "P"); got.Enforced || got.Brownout {
			t.Errorf("after its end the run is still enforced: %+v", got)
		}
		if got := second.ask("new", "P"); got.Enforced {
			t.Errorf("a new run after its end: %+v", got)
		}
	})
}

func TestABrownoutIsSuspendedByAHold(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		r := luigi(t, store)
		window(t, store, 0, time.Now())
		if got := r.ask("w", "P"); !got.Enforced {
			t.Fatalf("in the window: %+v", got)
		}
		state, _ := r.table.Lookup(team)
		hold := rollout.Brake(state, rollout.Setting{Actor: "sre", Source: "cli"}, time.Now())
		if _, err := store.Write(t.Context(), hold); err != nil {
			t.Fatal(err)
		}
		wait(time.Second)
		if got := r.ask("w", "P"); got.Enforced {
			t.Errorf("held: %+v", got)
		}
	})
}

func TestABrownoutNeverLowersATeam(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		r := luigi(t, store)
		b := window(t, store, 100, time.Now())
		b.Percent = 10
		state, _ := r.table.Lookup(team)
		request := state.Request
		request.Brownouts = []rollout.Brownout{b}
		if _, err := store.Write(t.Context(), rollout.Change{Team: team, Percent: 100, Expect: rollout.AnyRevision, Request: &request}); err != nil {
			t.Fatal(err)
		}
		wait(time.Second)
		if got := r.ask("w", "P"); !got.Enforced || got.Percent != 100 || got.Brownout {
			t.Errorf("a window below the percentage: %+v", got)
		}
	})
}

// The profile http latches nothing: its requests follow the window.
func TestABrownoutGovernsRequestsOfNoRun(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		r := newReplica(t, store, rollout.StickPrincipal, false)
		b := window(t, store, 0, time.Now().Add(time.Minute))
		if got := r.ask("", ""); got.Enforced {
			t.Errorf("before: %+v", got)
		}
		time.Sleep(time.Until(b.From))
		if got := r.ask("", ""); !got.Enforced {
			t.Errorf("inside: %+v", got)
		}
		time.Sleep(time.Until(b.Until))
		if got := r.ask("", ""); got.Enforced {
			t.Errorf("after: %+v", got)
		}
	})
}

func TestTheHighestOfSeveralBrownoutsCounts(t *testing.T) {
	hour := func(from int, percent rollout.Percent) rollout.Brownout {
		return rollout.Brownout{From: noon.Add(time.Duration(from) * time.Hour), Until: noon.Add(time.Duration(from+2) * time.Hour), Percent: percent}
	}
	s := rollout.State{Request: rollout.Request{Brownouts: []rollout.Brownout{hour(0, 30), hour(1, 80), hour(2, 50)}}}
	for after, want := range map[time.Duration]rollout.Percent{
		-time.Second: 0, 0: 30, time.Hour: 80, 2*time.Hour + time.Minute: 80, 3 * time.Hour: 50, 4 * time.Hour: 0,
	} {
		if b, _ := s.Brownout(noon.Add(after)); b.Percent != want {
			t.Errorf("after %s: %s, want %s", after, b.Percent, want)
		}
	}
}

func TestABrownoutFlipsNoRunBecauseTheStoreWentAway(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		first, second := luigi(t, store), luigi(t, store)
		b := window(t, store, 0, time.Now().Add(time.Hour))
		time.Sleep(time.Until(b.From) - time.Minute)
		first.ask("w", "P") // before the window
		store.SetDown(true)
		time.Sleep(2 * time.Minute)
		if got := first.ask("w", "P"); got.Enforced {
			t.Errorf("where it began: %+v", got)
		}
		if got := second.ask("w", "P"); got.Enforced || !got.Stale {
			t.Errorf("where nobody knows when it began: %+v", got)
		}
	})
}

func TestABrownoutGovernsNoRunThatALoweringFreesInsideIt(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		first, second := luigi(t, store), luigi(t, store)
		set(t, store, 100)
		wait(time.Second)
		if got := first.ask("w", "P"); !got.Enforced || !got.Latched {
			t.Fatalf("at 100%%: %+v", got)
		}
		time.Sleep(time.Minute)
		window(t, store, 0, time.Now())
		wait(time.Second)
		for i, r := range []*replica{second, first} { // who has not seen it yet makes it another latch
			if got := r.ask("w", "P"); got.Enforced || !got.Latched {
				t.Errorf("asked as number %d, a run from before the window: %+v", i, got)
			}
			if got := r.ask(fmt.Sprint("new", i), "P"); !got.Brownout {
				t.Errorf("asked as number %d, a run inside it: %+v", i, got)
			}
		}
	})
}

func TestABrownoutDecidesNothingAboutARunThatIsEnforcedAnyway(t *testing.T) {
	inBubble(t, func(t *testing.T, store *rollouttest.Memory) {
		r := luigi(t, store)
		selected := "P"
		for n := 0; !rollout.Selected(team, "svc-etl/"+selected, 50); n++ {
			selected = fmt.Sprint("P", n)
		}
		window(t, store, 50, time.Now())
		if got := r.ask("w", selected); !got.Enforced || got.Brownout || got.Percent != 50 {
			t.Errorf("a run that the percentage selects: %+v", got)
		}
	})
}

// hours is a window at 100 that begins so many hours from a time on and lasts so long.
func hours(from time.Time, begin, last int) rollout.Brownout {
	at := from.Add(time.Duration(begin) * time.Hour)
	return rollout.Brownout{From: at, Until: at.Add(time.Duration(last) * time.Hour), Percent: 100}
}

func TestBrownoutsLastADayInAWeekAtMost(t *testing.T) {
	start := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		windows []rollout.Brownout
		over    int // which is one too many
	}{
		"none":                               {nil, -1},
		"a day":                              {[]rollout.Brownout{hours(start, 0, 24)}, -1},
		"a day twice is one":                 {[]rollout.Brownout{hours(start, 0, 24), hours(start, 0, 24)}, -1},
		"a day in each of three weeks":       {[]rollout.Brownout{hours(start, 0, 24), hours(start, 168, 24), hours(start, 336, 24)}, -1},
		"an hour on each day":                {[]rollout.Brownout{hours(start, 0, 1), hours(start, 24, 1), hours(start, 48, 1)}, -1},
		"two days without a pause":           {[]rollout.Brownout{hours(start, 0, 24), hours(start, 24, 24)}, 1},
		"two days, the later one first":      {[]rollout.Brownout{hours(start, 24, 24), hours(start, 0, 24)}, 1},
		"every other day":                    {[]rollout.Brownout{hours(start, 0, 24), hours(start, 48, 24)}, 1},
		"half a day at either end of a week": {[]rollout.Brownout{hours(start, 0, 13), hours(start, 150, 13)}, 1},
		"as much in a week and an hour":      {[]rollout.Brownout{hours(start, 0, 13), hours(start, 160, 13)}, -1},
		"overlapping ones count their sum":   {[]rollout.Brownout{hours(start, 0, 20), hours(start, 10, 14), hours(start, 100, 1)}, 2},
		"the last one of many is the fault":  {[]rollout.Brownout{hours(start, 0, 8), hours(start, 24, 8), hours(start, 48, 8), hours(start, 72, 1)}, 3},
	} {
		if got := rollout.BrownoutsWithin(tt.windows); got != tt.over {
			t.Errorf("%s: %d is one too many, want %d", name, got, tt.over)
		}
	}
}

func TestBrownoutsThatWereRecordedStopWhenTheirTimeIsUp(t *testing.T) {
	start := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	s := rollout.State{Team: team, Request: rollout.Request{At: start, Brownouts: []rollout.Brownout{hours(start, 0, 24), hours(start, 24, 24), hours(start, 216, 24)}}}
	for at, inForce := range map[int]bool{0: true, 23: true, 24: false, 30: false, 47: false, 216: true, 239: true} {
		now := start.Add(time.Duration(at) * time.Hour)
		if _, ok := s.Brownout(now); ok != inForce {
			t.Errorf("after %d hours a brownout is in force: %v", at, ok)
		}
		if spent := s.SpentBrownouts(now); spent == inForce {
			t.Errorf("after %d hours it is told that their time is up: %v", at, spent)
		}
	}
}

func TestANewRequestDoesNotForgetTheBrownoutsThatHavePassed(t *testing.T) {
	start := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	s := rollout.State{Team: team}
	spent := 0
	for at := range 10 * 24 { // each day another request, for the day that begins
		now := start.Add(time.Duration(at) * time.Hour)
		if at%24 == 0 {
			q := rollout.Request{Digest: fmt.Sprint(at), Brownouts: []rollout.Brownout{hours(now, 0, 24)}}
			s.Request = *rollout.Ask(s, q, rollout.Step{}, now).Request
		}
		if _, ok := s.Brownout(now); ok {
			spent++
		}
	}
	if spent < 24 || spent > 2*24 {
		t.Errorf("in ten days brownouts were in force for %d hours, want a day in each week", spent)
	}
	at := start.Add(300 * 24 * time.Hour)
	if s.Request = *rollout.Ask(s, rollout.Request{}, rollout.Step{}, at).Request; len(s.Request.Spent) > 0 {
		t.Errorf("what passed long ago is kept: %v", s.Request.Spent)
	}
}

func TestBrownoutsThatAreAllowedAreInForceToTheirEnd(t *testing.T) {
	start := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	for name, windows := range map[string][]rollout.Brownout{
		"the same day of each week":   {hours(start, 0, 24), hours(start, 168, 24), hours(start, 336, 24)},
		"two half days":               {hours(start, 0, 12), hours(start, 12, 12)},
		"two hours in the week after": {hours(start, 0, 24), hours(start, 168, 1), hours(start, 192, 1)},
		"overlapping":                 {hours(start, 0, 20), hours(start, 10, 14)},
	} {
		if over := rollout.BrownoutsWithin(windows); over >= 0 {
			t.Fatalf("%s: %d is one too many", name, over)
		}
		request := rollout.State{Request: rollout.Request{At: start, Brownouts: windows}}
		for _, w := range windows {
			for now := w.From; now.Before(w.Until); now = now.Add(time.Hour) {
				if _, ok := request.Brownout(now); !ok || request.SpentBrownouts(now) {
					t.Errorf("%s: %s after %s it is not in force", name, now.Sub(w.From), w.From)
				}
			}
			if last := w.Until.Add(-time.Millisecond); request.SpentBrownouts(last) {
				t.Errorf("%s: just before %s it is not in force", name, w.Until)
			}
		}
	}
}

func TestManyShortBrownoutsDoNotMakeALongOneForgotten(t *testing.T) {
	start := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	s := rollout.State{Team: team}
	ask := func(now time.Time, windows ...rollout.Brownout) {
		s.Request = *rollout.Ask(s, rollout.Request{Digest: now.String(), Brownouts: windows}, rollout.Step{}, now).Request
	}
	ask(start, hours(start, 0, 23))
	now := start.Add(23 * time.Hour)
	var short []rollout.Brownout
	for i := range 50 {
		at := now.Add(time.Duration(i) * time.Minute)
		short = append(short, rollout.Brownout{From: at, Until: at.Add(time.Second), Percent: 1})
	}
	ask(now, short...)
	now = now.Add(time.Hour)
	ask(now, rollout.Brownout{From: now, Until: now.Add(24 * time.Hour), Percent: 100})
	if n := len(s.Request.Spent); n > 50 {
		t.Errorf("%d windows are remembered", n)
	}
	c := rollout.Change{Team: team, Request: &s.Request}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if b, ok := s.Brownout(now.Add(2 * time.Hour)); ok {
		t.Errorf("after a day in a week another one is in force: %+v", b)
	}
}
