package readiness_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

func TestEveryReasonHasAdviceOfItsOwn(t *testing.T) {
	general := readiness.Advice("no such reason")
	for _, info := range identity.Reasons() {
		advice := readiness.Advice(info.Reason)
		if advice == general {
			t.Errorf("%s has no advice", info.Reason)
		}
		if !strings.HasSuffix(advice, ".") || strings.Contains(strings.TrimSuffix(advice, "."), ". ") {
			t.Errorf("the advice on %s is not one sentence: %q", info.Reason, advice)
		}
	}
}

func TestAFailureNamesWhoWhatAndWhen(t *testing.T) {
	team := good()
	first, last := bad("svc-billing", "ExportInvoices", identity.AudMismatch), bad("svc-billing", "ExportInvoices", identity.AudMismatch)
	last.TraceID, last.Detail = "0af7651916cd43dd8448eb211c80319c", "the token is for \"api://finance\""
	team.add(3*day, first)
	team.add(2*time.Hour, last)
	team.add(4*time.Hour, clean("svc-billing", "ExportInvoices"))
	team.add(time.Hour, clean("svc-billing", "ExportInvoices"))
	r := readiness.Judge(team.Facts)
	want := []readiness.Failure{{
		Account: "svc-billing", Pipeline: "ExportInvoices", Reason: identity.AudMismatch, Verdict: "would_break", Owner: identity.OwnerTeam,
		Runs: 2, Share: 0.5, First: now.Add(-3*day + time.Minute), Last: now.Add(-2*time.Hour + time.Minute),
		TraceID: last.TraceID, Detail: last.Detail, Open: true, CleanSince: 1,
		Advice: "Request the token for this gateway's audience.",
		Closes: "by itself after 5 clean runs of this account and pipeline (1 so far), or when the team's file records the fix",
	}}
	if !reflect.DeepEqual(r.Failures, want) {
		t.Errorf("failures\n%+v\nwant\n%+v", r.Failures, want)
	}
}

func TestOutlookSaysWhatARaiseBreaksAtWorst(t *testing.T) {
	r := readiness.Report{Percent: 25, UpTo: 100, Runs: 1240, RunsADay: 88, AtWorst: 88 * readiness.UpperBound(0, 1240, 0.995)}
	o := r.Outlook(50)
	if o.Runs != 44 || o.Of != 88 || !o.Allowed || int(o.OneIn+0.5) != 11 {
		t.Errorf("Outlook(50) = %+v, want 44 of 88 runs and one broken run in 11 days", o)
	}
	if o := r.Outlook(20); o.OneIn != 0 {
		t.Errorf("a lowering may break a run in %v days", o.OneIn)
	}
}

func TestATeamAt100IsJudgedForRetirement(t *testing.T) {
	enforced := func() *team {
		t := newTeam()
		t.State = rollout.State{Percent: 100, RaisedAt: now.Add(-15 * day)}
		r := clean("svc-etl", "LoadUsers")
		r.Legacy, r.Enforced = false, true
		t.every(14, 60, r)
		t.use("svc-etl", 20*day, time.Minute)
		return t
	}
	for _, row := range []struct {
		name   string
		change func(*team)
		answer readiness.Answer
		why    string
		fails  readiness.CheckName
	}{
		{"nothing in the way", func(*team) {}, readiness.Ready, "no password for 14 days", ""},
		{"not long enough at 100", func(t *team) { t.State.RaisedAt = now.Add(-10 * day) }, readiness.Waiting, "at 100% for 10 of 14 days", readiness.StoodEnforced},
		{"a password was used", func(t *team) { t.use("svc-etl", 9*day, time.Minute) }, readiness.Waiting, "no password for 9 of 14 days: svc-etl was the last to use one", readiness.NoLegacy},
		{"a brownout refused somebody", func(t *team) {
			r := graded(clean("svc-etl", "Rare"), evidence.NoToken, identity.TokenAbsent)
			r.Brownout, r.Enforced, r.Refused = true, true, true
			t.add(5*day, r)
		}, readiness.Waiting, "a brownout refused svc-etl / Rare", readiness.CleanBrownouts},
		{"accounts of nobody", func(t *team) { t.Unassigned = []string{"legacy:cron"} }, readiness.Blocked, "nobody knows whose they are: legacy:cron", readiness.NoUnassigned},
		{"a credential that was never seen", func(t *team) { t.Accounts["svc-old"] = readiness.Account{Legacy: true} }, readiness.Blocked, "never seen, so remove or explain them: svc-old", readiness.NeverSeen},
		{"a cycle of a month makes it two months", func(t *team) {
			t.Limits.Cycle = 31 * day
			t.use("svc-etl", 90*day, time.Minute)
		}, readiness.Waiting, "at 100% for 15 of 62 days", readiness.StoodEnforced},
	} {
		t.Run(row.name, func(t *testing.T) {
			team := enforced()
			row.change(team)
			r := readiness.Judge(team.Facts)
			if r.Answer != row.answer || r.Why != row.why {
				t.Errorf("got %s, %q, want %s, %q", r.Answer, r.Why, row.answer, row.why)
			}
			if row.fails != "" && check(t, r, row.fails).Pass {
				t.Errorf("%s passes", row.fails)
			}
		})
	}
}

func TestAccountsSayWhatTheyStillUse(t *testing.T) {
	team := good()
	team.use("svc-loader", 20*day, time.Minute)
	team.use("ana", time.Hour, 30*day)
	team.use("svc-asleep", 30*day, 30*day)
	team.Accounts["svc-old"] = readiness.Account{Legacy: true, Owner: "nobody knows"}
	team.State.Percent = 10
	r := readiness.Judge(team.Facts)
	got := make(map[string]readiness.AccountState)
	for _, a := range r.Accounts {
		got[a.Account] = a.State
	}
	want := map[string]readiness.AccountState{
		"svc-etl": readiness.SendsBoth, "svc-loader": readiness.TokenOnly, "ana": readiness.LegacyOnly, "svc-asleep": readiness.Idle, "svc-old": readiness.Unseen,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("states %v, want %v", got, want)
	}
	warnings := []string{"1 static credential never seen: svc-old", "people use a password in browsers, which 100% refuses: ana"}
	if !reflect.DeepEqual(r.Warnings, warnings) {
		t.Errorf("warnings %q, want %q", r.Warnings, warnings)
	}
}

// TestMoreEvidenceOfHarmNeverHelps: a bad, tokenless or unjudged run more never
// turns a team that is not ready into one that is, and never widens the reach.
func TestMoreEvidenceOfHarmNeverHelps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		team := newTeam()
		accounts := []string{"a", "b"}
		pipelines := []string{"P", "Q", "R"}
		grades := []evidence.Grade{evidence.Clean, evidence.Clean, evidence.Clean, evidence.Clean, evidence.NoToken, evidence.WouldBreak}
		for range rapid.IntRange(0, 30).Draw(t, "kinds") {
			r := graded(clean(rapid.SampledFrom(accounts).Draw(t, "account"), rapid.SampledFrom(pipelines).Draw(t, "pipeline")),
				rapid.SampledFrom(grades).Draw(t, "grade"), identity.Expired)
			team.every(rapid.IntRange(1, 14).Draw(t, "days"), rapid.IntRange(1, 12).Draw(t, "runs"), r)
		}
		before := readiness.Judge(team.Facts)
		harm := rapid.SampledFrom([]evidence.Grade{evidence.NoToken, evidence.WouldBreak, evidence.IdentityDrift, evidence.WouldOpen}).Draw(t, "harm")
		team.add(time.Duration(rapid.IntRange(0, 13*24).Draw(t, "hours"))*time.Hour,
			graded(clean(rapid.SampledFrom(accounts).Draw(t, "whose"), rapid.SampledFrom(pipelines).Draw(t, "which")), harm, identity.Expired))
		after := readiness.Judge(team.Facts)
		if before.Answer != readiness.Ready && after.Answer == readiness.Ready && before.Census == after.Census {
			t.Fatalf("a run that was %s made the team ready; before: %s", harm, before.Why)
		}
		if after.UpTo > before.UpTo && before.Census == after.Census {
			t.Fatalf("a run that was %s widened the reach from %d to %d", harm, before.UpTo, after.UpTo)
		}
	})
}

func TestAReportIsJSON(t *testing.T) {
	text, err := json.Marshal(readiness.Judge(good().Facts))
	if err != nil || !strings.Contains(string(text), `"answer":"ready"`) {
		t.Errorf("%v: %s", err, text)
	}
}
