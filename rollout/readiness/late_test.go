package readiness_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

var errLost = errors.New("the disk is gone")

// brief is a team with a window of 20 seconds, the evidence of whose runs ends so long
// ago: one run a second until then.
func brief(late time.Duration) *team {
	t := newTeam()
	t.Limits.Window, t.Limits.Cycle, t.Limits.CensusDays = 20*time.Second, 2*time.Second, 1
	t.Limits.BrokenADay = 100
	for ago := late + time.Second; ago < late+time.Minute; ago += time.Second {
		r := clean("svc-etl", "Load")
		r.First = now.Add(-ago)
		r.Last = r.First.Add(time.Second)
		t.add(0, r)
	}
	t.use("svc-etl", time.Minute, time.Minute)
	return t
}

func TestEvidenceThatIsLateChangesNoAnswer(t *testing.T) {
	want := readiness.Judge(brief(0).Facts)
	if want.Answer != readiness.Ready || want.Late != 0 || len(want.Warnings) != 0 {
		t.Fatalf("in time: %s, %s, late by %s, %v", want.Answer, want.Why, want.Late, want.Warnings)
	}
	for _, late := range []time.Duration{3 * time.Second, 19 * time.Second, 25 * time.Second, 10 * time.Minute} {
		facts := brief(late).Facts
		if got := readiness.Judge(facts); got.Answer == want.Answer && late >= facts.Limits.Window {
			t.Fatalf("%s late, and nobody says so: %s, %s", late, got.Answer, got.Why) // then this test shows nothing
		}
		facts.Until = now.Add(-late)
		got := readiness.Judge(facts)
		if got.Answer != want.Answer || got.Why != want.Why || got.UpTo != want.UpTo || got.Runs != want.Runs {
			t.Errorf("%s late: %s, %s, up to %s; want %s, %s, up to %s", late, got.Answer, got.Why, got.UpTo, want.Answer, want.Why, want.UpTo)
		}
		if !got.At.Equal(now) {
			t.Errorf("%s late: the report is of %s", late, got.At)
		}
	}
}

func TestEvidenceThatIsLateIsToldToBe(t *testing.T) {
	facts := brief(18 * time.Second).Facts
	facts.Until = now.Add(-18*time.Second - 300*time.Millisecond)
	got := readiness.Judge(facts)
	const says = "the evidence is 18 seconds late: this is judged by what had happened by then"
	if got.Late != 18*time.Second || len(got.Warnings) == 0 || got.Warnings[0] != says || got.LateText() != says || got.Summary().LateText() != says {
		t.Errorf("late by %s, %v", got.Late, got.Warnings)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var read readiness.Report
	if err := json.Unmarshal(text, &read); err != nil || read.Late != got.Late || !strings.Contains(string(text), `"late_seconds":18`) {
		t.Errorf("%v, read late by %s: %s", err, read.Late, text)
	}
	facts.Until = now.Add(-2 * time.Second) // as usual
	if got := readiness.Judge(facts); got.Late != 0 || got.LateText() != "" {
		t.Errorf("two seconds are told as %s", got.Late)
	}
}

func TestEvidenceThatIsTooLateHasNotWatched(t *testing.T) {
	for late, want := range map[time.Duration]readiness.Answer{
		20 * time.Minute: readiness.Ready, 21 * time.Minute: readiness.Waiting, 400 * 24 * time.Hour: readiness.Waiting,
	} {
		facts := brief(late).Facts
		facts.Until = now.Add(-late)
		facts.State.Percent = 10
		got := readiness.Judge(facts)
		watched := check(t, got, readiness.Watched)
		if got.Answer != want || watched.Pass != (want == readiness.Ready) {
			t.Errorf("%s late: %s, %s; watched %+v", late, got.Answer, got.Why, watched)
		}
		if want != readiness.Ready && (got.UpTo != 10 || got.Owner != identity.OwnerPlatform || !strings.Contains(got.Why, "late")) {
			t.Errorf("%s late: up to %s, by %s: %s", late, got.UpTo, got.Owner, got.Why)
		}
	}
}

func TestATeamIsNotRetiredOnEvidenceThatIsTooLate(t *testing.T) {
	for late, want := range map[time.Duration]bool{time.Minute: false, time.Hour: true} {
		facts := brief(late).Facts
		facts.Until = now.Add(-late)
		facts.State.Percent = 100
		got := readiness.Judge(facts)
		in := slices.ContainsFunc(got.Retirement(), func(c readiness.Check) bool { return c.Name == readiness.Watched && !c.Pass })
		if in != want || got.Answer == readiness.Ready {
			t.Errorf("%s late: %s, %s: %+v", late, got.Answer, got.Why, got.Retirement())
		}
	}
}

func TestWhatIsKnownAlreadyOfALateTimeCounts(t *testing.T) {
	team := brief(25 * time.Second)
	team.Until = now.Add(-25 * time.Second)
	r := bad("svc-etl", "Load", identity.AudMismatch) // another gateway has recorded it
	r.First, r.Last = now.Add(-5*time.Second), now.Add(-4*time.Second)
	r.Worst = r.First
	team.add(0, r)
	if got := readiness.Judge(team.Facts); got.Answer != readiness.Blocked || got.Bad != 1 {
		t.Errorf("a run that broke since: %s, %s", got.Answer, got.Why)
	}
}

func TestTheReportSaysSinceWhenTheConfigurationIsInForceIfItChanged(t *testing.T) {
	for name, tt := range map[string]struct {
		configs func(daysAgo int) string
		want    string
	}{
		"one all the time":    {func(int) string { return "b" }, "the running configuration"},
		"another one before":  {func(ago int) string { return map[bool]string{true: "a", false: "b"}[ago > 5] }, "configuration of 21 May, 160 runs older"},
		"another one between": {func(ago int) string { return map[bool]string{true: "a", false: "b"}[ago == 5] }, "configuration of 22 May, 20 runs older"},
	} {
		t.Run(name, func(t *testing.T) {
			team := newTeam()
			for ago := range 14 {
				for i := range 20 {
					r := clean("svc-etl", "Load")
					r.First = now.Add(-time.Duration(ago)*day - time.Duration(i)*time.Minute - time.Minute)
					r.Config = tt.configs(ago)
					team.add(0, r)
				}
			}
			team.use("svc-etl", time.Minute, time.Minute)
			team.Config = func(string) string { return "b" }
			if got := check(t, readiness.Judge(team.Facts), readiness.Current).Have; got != tt.want {
				t.Errorf("evidence is current: %q, want %q", got, tt.want)
			}
		})
	}
}

func TestATaskFamilyIsNotCoveredByWhatAnotherConfigurationLetPass(t *testing.T) {
	for name, tt := range map[string]struct {
		clean   time.Duration // ago
		covered bool
	}{
		"clean before the change": {4 * day, false},
		"clean since the change":  {day, true},
	} {
		team := newTeam()
		for ago := range 14 {
			r := clean("svc-etl", "Load")
			r.Config = map[bool]string{true: "a", false: "b"}[ago >= 3]
			team.add(time.Duration(ago)*day+time.Hour, r)
		}
		team.Config = func(string) string { return "b" }
		seen := now.Add(-tt.clean)
		team.Families[evidence.Family{Account: "svc-etl", Name: "Rare"}] = evidence.FamilyUse{Last: seen, Clean: seen}
		if got := check(t, readiness.Judge(team.Facts), readiness.Covered); got.Pass != tt.covered {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestATeamWhoseEvidenceCannotBeReadIsToldAsItStands(t *testing.T) {
	s := newTeam().State
	s.Percent = 30
	got := readiness.Unread(s, errLost, now)
	if got.Answer != readiness.Unknown || got.Percent != 30 || got.UpTo != 30 || got.Owner != identity.OwnerPlatform || got.Problem == nil ||
		!strings.Contains(got.Summary().Problem.Message, "of data-eng cannot be read: the disk is gone") {
		t.Errorf("%+v", got)
	}
	s.Hold.Reason, s.Hold.At = "an incident", now.Add(-hour)
	if got := readiness.Unread(s, errLost, now); got.Answer != readiness.Held || got.Why != "an incident" || got.Problem == nil {
		t.Errorf("held: %+v", got)
	}
	s.Retired = true
	if got := readiness.Unread(s, errLost, now); got.Answer != readiness.Done {
		t.Errorf("retired: %+v", got)
	}
}
