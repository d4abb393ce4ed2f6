package readiness_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

func TestAnOutlookSaysWhetherSomebodyMayGoThere(t *testing.T) {
	ready := readiness.Report{
		Percent: 25, UpTo: 80, Answer: readiness.Ready, Why: "1,240 clean runs", Runs: 1240, RunsADay: 88, BrokenADay: 1,
		AtWorst: 88 * readiness.UpperBound(0, 1240, 0.995),
	}
	blocked := ready
	blocked.Answer, blocked.UpTo, blocked.Why, blocked.Owner = readiness.Blocked, 25, "aud_mismatch in svc-billing / Export, 31 runs", identity.OwnerTeam
	held := ready
	held.Answer, held.Why, held.Owner = readiness.Held, "rolled back", identity.OwnerTeam
	retired := ready
	retired.Answer, retired.Percent, retired.UpTo = readiness.Done, 100, 100
	for _, row := range []struct {
		name    string
		report  readiness.Report
		to      rollout.Percent
		allowed bool
		why     string
		text    string
	}{
		{"within the reach", ready, 50, true, "1,240 clean runs", "about 44 of 88 runs a day; at worst 1 broken run in 10 days"},
		{"where it stands", ready, 25, true, "the team is at 25%", "about 22 of 88 runs a day"},
		{"below", blocked, 10, true, "lowering is always allowed", "about 9 of 88 runs a day"},
		{"beyond the reach", ready, 100, false, "only up to 80% in one step: more may break over 1 run a day at worst", "about 88 of 88 runs a day; at worst 1 broken run in 3 days"},
		{"blocked", blocked, 50, false, "aud_mismatch in svc-billing / Export, 31 runs", "about 44 of 88 runs a day; at worst 1 broken run in 10 days"},
		{"held", held, 50, false, "rolled back", "about 44 of 88 runs a day; at worst 1 broken run in 10 days"},
		{"retired", retired, 50, false, "the team is retired: it stays at 100%", "about 44 of 88 runs a day"},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := row.report.Outlook(row.to)
			if o.Allowed != row.allowed || o.Why != row.why || o.Text() != row.text {
				t.Errorf("got %v, %q, %q, want %v, %q, %q", o.Allowed, o.Why, o.Text(), row.allowed, row.why, row.text)
			}
			if o.Owner != "" && o.Allowed {
				t.Errorf("%s is to act on what is allowed", o.Owner)
			}
		})
	}
}

func TestTheNextStepIsWhatIsAskedForOrASensibleOne(t *testing.T) {
	for _, row := range []struct {
		at, asked, want rollout.Percent
	}{{0, 0, 10}, {10, 10, 25}, {25, 60, 60}, {25, 10, 50}, {50, 50, 75}, {75, 75, 100}, {99, 99, 100}, {100, 100, 100}} {
		r := readiness.Report{Percent: row.at, Requested: &row.asked}
		if got := r.Next(); got != row.want {
			t.Errorf("at %d, asked for %d: %d, want %d", row.at, row.asked, got, row.want)
		}
	}
	if got := (readiness.Report{Percent: 25, UpTo: 33}).Next(); got != 33 {
		t.Errorf("at 25 with a reach of 33: %d, want 33", got)
	}
	if got := (readiness.Report{Percent: 25, UpTo: 25}).Next(); got != 50 {
		t.Errorf("without a request at 25: %d, want 50", got)
	}
}

// TestAReportSurvivesJSON: a client of the API has the report that the gateway has,
// durations in seconds with the unit in their names.
func TestAReportSurvivesJSON(t *testing.T) {
	for name, team := range map[string]*team{"good": good(), "new": newTeam(), "bad": good(), "enforced": good()} {
		switch name {
		case "new":
			team.Since = now.Add(-90*time.Minute - 30*time.Second)
		case "bad":
			team.add(time.Hour, bad("svc-etl", "LoadUsers", identity.AudMismatch))
		case "enforced":
			team.State.Percent, team.State.RaisedAt = 100, now.Add(-3*day)
		}
		r := readiness.Judge(team.Facts)
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back readiness.Report
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, back, cmpopts.IgnoreUnexported(readiness.Report{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (- before, + after):\n%s", name, diff)
		}
		if !strings.Contains(string(text), `"window_seconds":1209600`) || name == "new" && !strings.Contains(string(text), `"wait_seconds":`) {
			t.Errorf("%s: durations are not in seconds: %s", name, text)
		}
	}
}

func TestDaysCountWhatHappenedOnThem(t *testing.T) {
	team := newTeam()
	team.add(2*day, clean("a", "P"))
	team.add(2*day, graded(clean("a", "P"), evidence.NoToken, identity.TokenAbsent))
	team.add(time.Hour, bad("a", "P", identity.Expired))
	team.add(time.Hour, graded(clean("a", "P"), evidence.Indeterminate, identity.ShadowTimeout))
	team.add(time.Hour, evidence.Run{Account: "a", Pipeline: "P", Legacy: true}) // did nothing that could be judged
	team.add(20*day, clean("a", "P"))                                            // before the window
	team.Fixed = []readiness.Fix{{Account: "a", Pipeline: "P", Reason: identity.AudMismatch, At: now.Add(-day)}}
	want := []readiness.DayReport{
		{Day: "2026-05-24", Runs: 1, Tokenless: 1, LeftOut: 2},
		{Day: "2026-05-26", Runs: 1, Bad: 1, Unjudged: 1},
	}
	if diff := cmp.Diff(want, readiness.Judge(team.Facts).Days); diff != "" {
		t.Errorf("(- want, + got)\n%s", diff)
	}
}
