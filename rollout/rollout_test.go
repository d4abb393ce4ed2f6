package rollout_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const team identity.Team = "data-eng"

func TestParsePercent(t *testing.T) {
	for text, want := range map[string]rollout.Percent{"0": 0, "1": 1, "50": 50, "99": 99, "100": 100, "007": 7} {
		if got, err := rollout.ParsePercent(text); err != nil || got != want {
			t.Errorf("ParsePercent(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "101", "256", "-1", "+1", "50%", "0.5", "1e1", " 1", "0x10", "1_0", "99999999999999999999", "half"} {
		got, err := rollout.ParsePercent(text)
		if err == nil {
			t.Errorf("ParsePercent(%q) = %d, want an error", text, got)
		} else if !strings.Contains(err.Error(), "must be a whole number from 0 to 100") {
			t.Errorf("ParsePercent(%q): %v does not name the rule", text, err)
		}
	}
}

func FuzzParsePercent(f *testing.F) {
	for _, text := range []string{"0", "100", "101", "-1", "5O", "\x00", "１"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := rollout.ParsePercent(text)
		if err != nil {
			if p != 0 {
				t.Errorf("ParsePercent(%q) = %d beside an error", text, p)
			}
			return
		}
		if err := p.Validate(); err != nil {
			t.Errorf("ParsePercent(%q): %v", text, err)
		}
		if again, err := rollout.ParsePercent(p.String()); err != nil || again != p {
			t.Errorf("%q becomes %d and then %d, %v", text, p, again, err)
		}
	})
}

func TestPhase(t *testing.T) {
	for _, tc := range []struct {
		state rollout.State
		want  string
	}{
		{rollout.State{}, "shadow"},
		{rollout.State{Percent: 1}, "ramp"},
		{rollout.State{Percent: 99}, "ramp"},
		{rollout.State{Percent: 100}, "enforced"},
		{rollout.State{Percent: 100, Retired: true}, "retired"},
	} {
		if got := tc.state.Phase().String(); got != tc.want {
			t.Errorf("phase of %+v = %s, want %s", tc.state, got, tc.want)
		}
	}
	if got := len(rollout.Phases()); got != 4 {
		t.Errorf("%d phases", got)
	}
}

func TestStickinessReadsAndWritesItsWords(t *testing.T) {
	for _, word := range []string{"pipeline", "principal", "run"} {
		var s rollout.Stickiness
		if err := s.UnmarshalText([]byte(word)); err != nil {
			t.Fatal(err)
		}
		if text, _ := s.MarshalText(); string(text) != word {
			t.Errorf("%s is written as %s", word, text)
		}
	}
	var s rollout.Stickiness
	if err := s.UnmarshalText([]byte("worker")); err == nil || !strings.Contains(err.Error(), "must be pipeline, principal or run") {
		t.Errorf("an unknown word: %v", err)
	}
}

func TestCautious(t *testing.T) {
	raised := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	week := 7 * 24 * time.Hour
	for name, tc := range map[string]struct {
		state rollout.State
		after time.Duration
		want  rollout.Percent
	}{
		"never raised":                        {rollout.State{}, 0, 0},
		"raised just now":                     {rollout.State{Percent: 50, Previous: 10, RaisedAt: raised}, 0, 10},
		"raised almost a week ago":            {rollout.State{Percent: 50, Previous: 10, RaisedAt: raised}, week - 1, 10},
		"raised a week ago":                   {rollout.State{Percent: 50, Previous: 10, RaisedAt: raised}, week, 50},
		"raised and then lowered":             {rollout.State{Percent: 20, Previous: 50, RaisedAt: raised, LoweredAt: raised.Add(time.Hour)}, 2 * time.Hour, 20},
		"raised to 100 and retired":           {rollout.State{Percent: 100, Previous: 50, RaisedAt: raised, Retired: true}, 0, 100},
		"raised by a clock that runs forward": {rollout.State{Percent: 50, Previous: 10, RaisedAt: raised}, -time.Hour, 10},
	} {
		if got := tc.state.Cautious(raised.Add(tc.after)); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

func TestApplyKeepsItsInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s rollout.State
		now := time.UnixMilli(1_900_000_000_000).UTC()
		for range rapid.IntRange(1, 30).Draw(t, "changes") {
			now = now.Add(time.Minute)
			c := rollout.Change{
				Team: team, Percent: rollout.Percent(rapid.IntRange(0, 100).Draw(t, "percent")), Expect: s.Revision,
				Retire: rapid.IntRange(0, 20).Draw(t, "retire") == 0,
			}
			next, entry, err := rollout.Apply(s, c, now)
			if err != nil {
				if !cmp.Equal(next, s) {
					t.Fatalf("a refused change changed %+v to %+v", s, next)
				}
				continue
			}
			switch {
			case next.Revision != s.Revision+1, entry.Revision != next.Revision, entry.From != s.Percent, entry.To != next.Percent:
				t.Fatalf("%+v became %+v with entry %+v", s, next, entry)
			case s.Retired && (!next.Retired || next.Percent != 100):
				t.Fatalf("a retirement was forgotten: %+v became %+v", s, next)
			case (next.LoweredRevision == next.Revision) != (next.Percent < s.Percent):
				t.Fatalf("the last lowering is wrong: %+v became %+v", s, next)
			case next.Percent != s.Percent && next.Previous != s.Percent:
				t.Fatalf("the previous percentage is wrong: %+v became %+v", s, next)
			}
			s = next
		}
	})
}

func TestErrorsSayWhatToDo(t *testing.T) {
	_, _, err := rollout.Apply(rollout.State{Team: team, Revision: 3, Percent: 20}, rollout.Change{Team: team, Percent: 50, Expect: 2}, time.Now())
	want := `team "data-eng" changed meanwhile: revision 2 was expected, it is at revision 3 with 20 percent: look at it and try again`
	if err == nil || err.Error() != want {
		t.Errorf("conflict: %v\nwant %s", err, want)
	}
}
