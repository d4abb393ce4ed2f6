package rollout_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"crossfade/rollout"
	"crossfade/rollout/rollouttest"
)

// noon is the time at which these tests decide.
var noon = time.Date(2030, 5, 6, 12, 0, 0, 0, time.UTC)

// asked returns a request of an hour ago.
func asked(percent rollout.Percent) rollout.Request {
	return rollout.Request{Percent: percent, Digest: "d", Source: "file", Actor: "lead", At: noon.Add(-time.Hour)}
}

func TestNextDecidesWhatBecomesOfARequest(t *testing.T) {
	held := rollout.Hold{Reason: "rolled back 11:30", Requested: 50, At: noon.Add(-30 * time.Minute)}
	good := rollout.Answer{UpTo: 100, Why: "1,240 clean runs"}
	bad := rollout.Answer{UpTo: 0, Why: "31 of 1,092 runs would break", Owner: "team"}
	overridden := asked(50)
	overridden.Override = "the two runs are a test"
	for name, test := range map[string]struct {
		state  rollout.State
		answer rollout.Answer
		closed bool
		want   rollout.Step
	}{
		"a team without a request stays": {
			state: rollout.State{Percent: 25}, answer: good, want: rollout.Step{From: 25, To: 25},
		},
		"a request that is met asks for nothing": {
			state: rollout.State{Percent: 50, Request: asked(50)}, answer: bad, want: rollout.Step{From: 50, To: 50},
		},
		"a raise follows when its checks hold": {
			state: rollout.State{Percent: 25, Request: asked(50)}, answer: good,
			want: rollout.Step{Outcome: rollout.Raise, From: 25, To: 50, Why: "1,240 clean runs"},
		},
		"a raise waits while they do not": {
			state: rollout.State{Percent: 25, Request: asked(50)}, answer: bad,
			want: rollout.Step{Outcome: rollout.Pending, From: 25, To: 50, Why: "31 of 1,092 runs would break", Owner: "team"},
		},
		"a raise waits while they hold for less": {
			state: rollout.State{Percent: 25, Request: asked(50)}, answer: rollout.Answer{UpTo: 49, Why: "small"},
			want: rollout.Step{Outcome: rollout.Pending, From: 25, To: 50, Why: "small"},
		},
		"a raise waits for its hours": {
			state: rollout.State{Percent: 25, Request: asked(50)}, answer: good, closed: true,
			want: rollout.Step{Outcome: rollout.Closed, From: 25, To: 50, Why: "1,240 clean runs"},
		},
		"a lowering needs no evidence, no hour and no release": {
			state: rollout.State{Percent: 25, Request: asked(10), Hold: held}, answer: bad, closed: true,
			want: rollout.Step{Outcome: rollout.Lower, From: 25, To: 10, Why: "lowering is always allowed"},
		},
		"a retired team is not lowered": {
			state: rollout.State{Percent: 100, Retired: true, Request: asked(10)}, answer: good,
			want: rollout.Step{Outcome: rollout.Pending, From: 100, To: 10, Why: "the team is retired: it stays at 100%"},
		},
		"a hold outranks the request that it was placed against": {
			state: rollout.State{Percent: 25, Request: asked(50), Hold: held}, answer: good,
			want: rollout.Step{Outcome: rollout.Held, From: 25, To: 50, Why: "rolled back 11:30"},
		},
		"another request passes a hold on younger evidence": {
			state: rollout.State{Percent: 25, Request: asked(40), Hold: held}, answer: good,
			want: rollout.Step{Outcome: rollout.Raise, From: 25, To: 40, Why: "1,240 clean runs", Releases: true},
		},
		"another request does not pass it without": {
			state: rollout.State{Percent: 25, Request: asked(40), Hold: held}, answer: bad,
			want: rollout.Step{
				Outcome: rollout.Held, From: 25, To: 40, Why: "rolled back 11:30; since then: 31 of 1,092 runs would break", Owner: "team",
			},
		},
		"a hold that has ended is none": {
			state: rollout.State{Percent: 25, Request: asked(50), Hold: rollout.Hold{
				Reason: "break glass", Requested: 50, At: noon.Add(-time.Hour), Until: noon,
			}}, answer: good,
			want: rollout.Step{Outcome: rollout.Raise, From: 25, To: 50, Why: "1,240 clean runs"},
		},
		"an override passes the checks": {
			state: rollout.State{Percent: 25, Request: overridden}, answer: bad,
			want: rollout.Step{
				Outcome: rollout.Raise, From: 25, To: 50, Owner: "team", Overridden: true,
				Why: "override: the two runs are a test (31 of 1,092 runs would break)",
			},
		},
		"an override is not needed where the checks hold": {
			state: rollout.State{Percent: 25, Request: overridden}, answer: good,
			want: rollout.Step{Outcome: rollout.Raise, From: 25, To: 50, Why: "1,240 clean runs"},
		},
		"an override never passes a security signal": {
			state: rollout.State{Percent: 25, Request: overridden}, answer: rollout.Answer{Why: "would_open", Owner: "security", Signal: true},
			want: rollout.Step{Outcome: rollout.Pending, From: 25, To: 50, Why: "would_open", Owner: "security"},
		},
		"an override passes no hold": {
			state: rollout.State{Percent: 25, Request: overridden, Hold: held}, answer: good,
			want: rollout.Step{Outcome: rollout.Held, From: 25, To: 50, Why: "rolled back 11:30"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, rollout.Next(test.state, test.answer, !test.closed, noon)); diff != "" {
				t.Errorf("step (-want +got):\n%s", diff)
			}
		})
	}
}

// The properties that no combination may break.
func TestNextKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		percent := func(label string) rollout.Percent {
			return rollout.Percent(rapid.SampledFrom([]int{0, 1, 10, 25, 50, 99, 100}).Draw(t, label))
		}
		s := rollout.State{Percent: percent("live"), Retired: rapid.Bool().Draw(t, "retired")}
		if s.Retired {
			s.Percent = rollout.Full
		}
		if rapid.Bool().Draw(t, "asked") {
			s.Request = asked(percent("request"))
			s.Request.Override = rapid.SampledFrom([]string{"", "because"}).Draw(t, "override")
		}
		if rapid.Bool().Draw(t, "held") {
			s.Hold = rollout.Hold{Reason: "r", Requested: percent("held at"), At: noon.Add(-time.Minute)}
			if rapid.Bool().Draw(t, "ends") {
				s.Hold.Until = noon.Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "end")) * time.Second)
			}
		}
		answer := rollout.Answer{UpTo: percent("up to"), Signal: rapid.Bool().Draw(t, "signal"), Why: "w"}
		open := rapid.Bool().Draw(t, "open")
		step := rollout.Next(s, answer, open, noon)
		if step.From != s.Percent || step.To != s.Percent && step.To != s.Request.Percent {
			t.Fatalf("from %s to %s: nobody asked for that", step.From, step.To)
		}
		if !step.Outcome.Applies() {
			return
		}
		held := s.Hold.Active(noon)
		switch {
		case !s.Request.Made():
			t.Fatal("a percentage changes that nobody asked for")
		case s.Retired:
			t.Fatal("a retired team changes")
		case step.To > step.From != (step.Outcome == rollout.Raise):
			t.Fatalf("%s from %s to %s", step.Outcome, step.From, step.To)
		case step.Outcome == rollout.Lower:
		case answer.Signal, !open:
			t.Fatal("a raise past a security signal, or outside its hours")
		case held && (s.Request.Percent == s.Hold.Requested || answer.UpTo < step.To || !step.Releases):
			t.Fatal("a raise past a hold")
		case answer.UpTo < step.To && !(step.Overridden && s.Request.Override != ""):
			t.Fatal("a raise past its checks")
		}
	})
}

func TestASettingIsNotUndoneByWhatTheFileSays(t *testing.T) {
	good := rollout.Answer{UpTo: 100}
	lead := rollout.Setting{Actor: "sre", Source: "cli"}
	for name, to := range map[string]rollout.Percent{"below": 0, "the same": 50, "above": 80} {
		t.Run(name, func(t *testing.T) {
			s := rollout.State{Team: "data-eng", Percent: 50, Revision: 3, Request: asked(50)}
			lead := lead
			lead.Percent = to
			next, entry, err := rollout.Apply(s, rollout.Set(s, lead, noon), noon)
			if err != nil {
				t.Fatal(err)
			}
			if next.Percent != to || next.Request.Digest != "d" || entry.Actor != "sre" || entry.Kind != rollout.KindSet {
				t.Errorf("after it: %+v, %+v", next, entry)
			}
			if step := rollout.Next(next, good, true, noon.Add(time.Hour)); step.Outcome.Applies() {
				t.Errorf("an hour later the file asks to %s to %s%%", step.Outcome, step.To)
			}
		})
	}
	t.Run("with an end, it is", func(t *testing.T) {
		s := rollout.State{Team: "data-eng", Percent: 50, Revision: 3, Request: asked(50)}
		glass := rollout.Setting{Percent: 0, Actor: "sre", Source: "cli", Reason: "the provider is away", Until: noon.Add(time.Hour)}
		next, _, err := rollout.Apply(s, rollout.Set(s, glass, noon), noon)
		if err != nil {
			t.Fatal(err)
		}
		if step := rollout.Next(next, good, true, noon.Add(59*time.Minute)); step.Outcome != rollout.Held || step.Why != "the provider is away" {
			t.Errorf("before its end: %+v", step)
		}
		if step := rollout.Next(next, good, true, noon.Add(time.Hour)); step.Outcome != rollout.Raise || step.To != 50 {
			t.Errorf("at its end: %+v", step)
		}
	})
}

func TestARollbackTakesBackTheLastRaise(t *testing.T) {
	by := rollout.Setting{Actor: "gateway", Source: "rollback", Reason: "2 known accounts refused"}
	raised := rollout.State{
		Team: "data-eng", Percent: 50, Previous: 25, Revision: 7, RaisedAt: noon.Add(-time.Hour), Request: asked(50),
	}
	c, err := rollout.Rollback(raised, by, noon)
	if err != nil {
		t.Fatal(err)
	}
	next, entry, err := rollout.Apply(raised, c, noon)
	if err != nil {
		t.Fatal(err)
	}
	if next.Percent != 25 || !next.Hold.Active(noon) || entry.Kind != rollout.KindRollback || entry.From != 50 || entry.To != 25 {
		t.Errorf("after it: %+v, %+v", next, entry)
	}
	if step := rollout.Next(next, rollout.Answer{UpTo: 100}, true, noon.Add(time.Hour)); step.Outcome != rollout.Held {
		t.Errorf("the file raises it again: %+v", step)
	}
	if _, err := rollout.Rollback(next, by, noon); !errors.Is(err, rollout.ErrNothingToRollBack) {
		t.Errorf("a second rollback: %v", err)
	}
	retired := raised
	retired.Percent, retired.Retired = 100, true
	if _, err := rollout.Rollback(retired, by, noon); !errors.Is(err, rollout.ErrRetired) {
		t.Errorf("of a retired team: %v", err)
	}
	if _, err := rollout.Rollback(rollout.State{Team: "new"}, by, noon); !errors.Is(err, rollout.ErrNothingToRollBack) {
		t.Errorf("of a team that was never raised: %v", err)
	}
}

func TestAHoldLeavesThePercentageAndIsLifted(t *testing.T) {
	s := rollout.State{Team: "data-eng", Percent: 25, Revision: 2, Request: asked(50)}
	by := rollout.Setting{Actor: "sre", Source: "cli"}
	held, _, err := rollout.Apply(s, rollout.Brake(s, by, noon), noon)
	if err != nil {
		t.Fatal(err)
	}
	if held.Percent != 25 || !strings.Contains(held.Hold.Reason, "sre") {
		t.Errorf("held: %+v", held)
	}
	free, entry, err := rollout.Apply(held, rollout.Release(held, by, noon), noon)
	if err != nil {
		t.Fatal(err)
	}
	if free.Hold != (rollout.Hold{}) || free.Percent != 25 || entry.Kind != rollout.KindRelease {
		t.Errorf("released: %+v, %+v", free, entry)
	}
	if step := rollout.Next(free, rollout.Answer{UpTo: 100}, true, noon); step.Outcome != rollout.Raise {
		t.Errorf("the request after it: %+v", step)
	}
}

func TestUpdateBeginsAgainWhenSomebodyWasFaster(t *testing.T) {
	store := rollouttest.NewMemory()
	calls := 0
	s, err := rollout.Update(t.Context(), store, "data-eng", func(s rollout.State) (rollout.Change, error) {
		if calls++; calls == 1 { // somebody is
			if _, err := store.Write(t.Context(), rollout.Change{Team: "data-eng", Percent: 10, Expect: rollout.AnyRevision}); err != nil {
				t.Fatal(err)
			}
		}
		return rollout.Set(s, rollout.Setting{Percent: s.Percent + 5, Actor: "lead", Source: "api"}, noon), nil
	})
	if err != nil || s.Percent != 15 || s.Revision != 2 || calls != 2 {
		t.Errorf("after %d calls: %+v, %v", calls, s, err)
	}
	refused := errors.New("no")
	if _, err := rollout.Update(t.Context(), store, "data-eng", func(rollout.State) (rollout.Change, error) {
		return rollout.Change{}, refused
	}); !errors.Is(err, refused) {
		t.Errorf("the error of the change is lost: %v", err)
	}
	store.SetDown(true)
	if _, err := rollout.Update(t.Context(), store, "data-eng", func(rollout.State) (rollout.Change, error) {
		return rollout.Change{}, nil
	}); !errors.Is(err, rollout.ErrUnavailable) {
		t.Errorf("without the store: %v", err)
	}
}

func TestBreakingTheGlassEndsNoHoldThatWasToLastLonger(t *testing.T) {
	glass := rollout.Setting{Percent: 0, Actor: "sre", Source: "cli", Reason: "the provider is away", Until: noon.Add(time.Hour)}
	for name, test := range map[string]struct{ was, want time.Time }{
		"one without an end":  {},
		"one that ends later": {noon.Add(2 * time.Hour), noon.Add(2 * time.Hour)},
		"one that ends first": {noon.Add(time.Minute), noon.Add(time.Hour)},
		"one that has ended":  {noon.Add(-time.Minute), noon.Add(time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			s := rollout.State{Team: "data-eng", Percent: 25, Revision: 3, Request: asked(50), Hold: rollout.Hold{
				Reason: "rolled back", Requested: 50, At: noon.Add(-time.Hour), Until: test.was,
			}}
			next, _, err := rollout.Apply(s, rollout.Set(s, glass, noon), noon)
			if err != nil {
				t.Fatal(err)
			}
			if !next.Hold.Until.Equal(test.want) || next.Hold.Reason != glass.Reason {
				t.Errorf("held: %+v, want it until %s", next.Hold, test.want)
			}
		})
	}
}

// The clocks of two replicas differ: a lowering may have the later time although
// it came before the raise.
func TestWhatTheLastMoveWasDoesNotDependOnClocks(t *testing.T) {
	s := rollout.State{Team: "data-eng", Percent: 50, Revision: 1}
	move := func(to rollout.Percent, at time.Time) {
		t.Helper()
		var err error
		if s, _, err = rollout.Apply(s, rollout.Change{Team: s.Team, Percent: to, Expect: s.Revision, At: at}, noon); err != nil {
			t.Fatal(err)
		}
	}
	move(25, noon.Add(5*time.Second))
	if s.LastRaised() {
		t.Error("a lowering counts as a raise")
	}
	move(75, noon)
	if !s.LastRaised() {
		t.Error("a raise by a clock that is behind does not count")
	}
	if c, err := rollout.Rollback(s, rollout.Setting{Actor: "sre", Reason: "r"}, noon); err != nil || c.Percent != 25 {
		t.Errorf("it cannot be rolled back: %+v, %v", c, err)
	}
	move(25, noon.Add(-5*time.Second))
	if s.LastRaised() {
		t.Error("a lowering by a clock that is behind does not count")
	}
}

func TestWhoHasMuchToSayMayStillLower(t *testing.T) {
	long := strings.Repeat("ä", 3000)
	r := rollout.Request{Percent: 10, Override: long, Source: "file", Reason: long + "\xff"}
	s := rollout.State{Team: "data-eng", Percent: 50, Previous: 25, RaisedAt: noon, Revision: 3}
	asked := s
	asked.Request = r
	asked.Request.At = noon
	c := rollout.Ask(s, r, rollout.Next(asked, rollout.Answer{Why: long}, true, noon), noon)
	next, entry, err := rollout.Apply(s, c, noon)
	if err != nil || next.Percent != 10 {
		t.Fatalf("%s%%, %v", next.Percent, err)
	}
	if !strings.HasPrefix(entry.Reason, "ää") || !strings.HasSuffix(entry.Reason, "...") {
		t.Errorf("the history says why in %d bytes: %q", len(entry.Reason), entry.Reason)
	}
	if c, err := rollout.Rollback(s, rollout.Setting{Actor: "gateway", Reason: long}, noon); err != nil || c.Validate() != nil {
		t.Errorf("a rollback: %v, %v", err, c.Validate())
	}
	raise := rollout.Follow(s, rollout.Step{Outcome: rollout.Raise, To: 75, Why: long}, noon)
	if err := raise.Validate(); err != nil {
		t.Errorf("a raise with an override of many words: %v", err)
	}
}

func TestARequestRemembersTheDigestsBeforeIt(t *testing.T) {
	state := rollout.State{Team: "data-eng"}
	ask := func(digest string) {
		t.Helper()
		c := rollout.Ask(state, rollout.Request{Percent: 10, Digest: digest}, rollout.Step{}, noon)
		var err error
		if state, _, err = rollout.Apply(state, c, noon); err != nil {
			t.Fatal(err)
		}
	}
	for _, digest := range []string{"a", "b", "", "a", "c"} {
		ask(digest)
	}
	if got := state.Request.Past; !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("after a, b, none, a and c: %q", got)
	}
	above, _, err := rollout.Apply(state, rollout.Set(state, rollout.Setting{Percent: 50}, noon), noon)
	if err != nil || !slices.Equal(above.Request.Past, []string{"a", "b"}) || above.Request.Digest != "c" {
		t.Errorf("set above what it asks for: %+v, %v", above.Request, err)
	}
	for i := range 20 {
		ask(fmt.Sprint(i))
	}
	if got := state.Request.Past; !slices.Equal(got, []string{"18", "17", "16", "15", "14", "13", "12", "11"}) {
		t.Errorf("of many: %q", got)
	}
}
