package console_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

var assessedAt = time.Date(2026, 5, 26, 12, 0, 0, 0, time.UTC)

// judged is a real report with something of everything in it.
func judged(percent rollout.Percent) readiness.Report {
	f := readiness.Facts{
		Team: "data-eng", Now: assessedAt, Limits: readiness.DefaultLimits(), Since: assessedAt.Add(-5 * 24 * time.Hour), Requests: 10_000,
		State:    rollout.State{Team: "data-eng", Percent: percent, RaisedAt: assessedAt.Add(-72 * time.Hour)},
		Accounts: map[string]readiness.Account{"svc-old": {Legacy: true, Owner: "nobody"}, "svc-etl": {Legacy: true}},
		Uses:     map[string]evidence.Use{"svc-etl": {Legacy: assessedAt, Token: assessedAt, Failed: assessedAt, Reason: identity.AudMismatch}},
		Key:      func(account, pipeline string) string { return account + "/" + pipeline },
		Days:     map[evidence.Day]evidence.Daily{},
	}
	runs := make(map[evidence.RunKey]evidence.Run)
	for i := range 40 {
		r := evidence.Run{Account: "svc-etl", Pipeline: "Load", Legacy: true, Token: true, First: assessedAt.Add(-time.Duration(i) * time.Minute), Last: assessedAt}
		if i == 3 {
			r.Grade, r.Reason, r.Worst, r.Detail, r.TraceID = evidence.WouldBreak, identity.AudMismatch, r.First, "the token is for another", "4bf92f3577b34da6a3ce929d0e0e4736"
		}
		runs[evidence.NewRunKey("svc-etl", fmt.Sprint(i))] = r
	}
	f.Days[evidence.DayOf(assessedAt)] = evidence.Daily{Runs: runs}
	return readiness.Judge(f)
}

// TestAReportIsReadAsItWasWritten: what a client reads is what the gateway knows,
// and send holds every member against the description.
func TestAReportIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	for _, percent := range []rollout.Percent{0, 100} {
		a.put(rollout.Change{Team: "data-eng", Percent: percent})
		a.report = judged(percent)
		var got console.Readiness
		if err := json.Unmarshal([]byte(a.want(ask{method: "GET", path: "/readiness/data-eng"}, 200, "").body), &got); err != nil {
			t.Fatal(err)
		}
		before, _ := json.Marshal(a.report)
		after, _ := json.Marshal(got.Report)
		if string(before) != string(after) {
			t.Errorf("before\n%s\nafter\n%s", before, after)
		}
		if got.File != "rollout.d/data-eng.yaml" || got.Outlook.Percent != got.Report.Next() {
			t.Errorf("file %q, outlook %+v", got.File, got.Outlook)
		}
	}
}

func TestAnotherPercentageCanBeAskedAbout(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.put(rollout.Change{Team: "data-eng", Percent: 25})
	a.report = readiness.Report{Answer: readiness.Ready, UpTo: 60, Why: "1,240 clean runs", Runs: 1240, RunsADay: 88, AtWorst: 0.4, BrokenADay: 1, Checks: []readiness.Check{}}
	outlook := func(query string) readiness.Outlook {
		t.Helper()
		var got console.Readiness
		if err := json.Unmarshal([]byte(a.want(ask{method: "GET", path: "/readiness/data-eng" + query}, 200, "").body), &got); err != nil {
			t.Fatal(err)
		}
		return got.Outlook
	}
	if o := outlook("?percent=50"); !o.Allowed || o.Runs != 44 || o.Percent != 50 || o.OneIn != 10 {
		t.Errorf("50: %+v", o)
	}
	if o := outlook("?percent=80"); o.Allowed || !strings.HasPrefix(o.Why, "only up to 60%") {
		t.Errorf("80: %+v", o)
	}
	if o := outlook("?percent=0"); !o.Allowed || o.Why != "lowering is always allowed" {
		t.Errorf("0: %+v", o)
	}
	for _, query := range []string{"?percent=", "?percent=101", "?percent=-1", "?percent=50%25", "?percent=1e1"} {
		a.want(ask{method: "GET", path: "/readiness/data-eng" + query}, 400, "parameter_invalid")
	}
	if got := a.want(ask{method: "GET", path: "/readiness/data"}, 404, "team_unknown"); !strings.Contains(got.body, "Did you mean data-eng?") {
		t.Errorf("no team is suggested: %v", got)
	}
}

func TestAllTeamsAreListedInALine(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.put(rollout.Change{Team: "growth", Percent: 100}) // in Redis and not in the configuration
	a.report = judged(0)
	var got console.Readinesses
	if err := json.Unmarshal([]byte(a.want(ask{method: "GET", path: "/readiness"}, 200, "").body), &got); err != nil {
		t.Fatal(err)
	}
	var teams []string
	for _, s := range got.Teams {
		teams = append(teams, fmt.Sprintf("%s %s %s", s.Team, s.Percent, s.Answer))
	}
	if said := strings.Join(teams, ", "); said != "data-eng 0 blocked, growth 100 blocked, search 0 blocked" {
		t.Errorf("the list is %s", said)
	}
}

func TestATeamThatCannotBeReadIsInNoOthersWay(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.unassessed, a.damaged = errors.New("key crossfade:{search}:runs is no hash"), "search"
	var got console.Readinesses
	if err := json.Unmarshal([]byte(a.want(ask{method: "GET", path: "/readiness"}, 200, "").body), &got); err != nil || len(got.Teams) != 2 {
		t.Fatalf("%v: %+v", err, got)
	}
	if s := got.Teams[0]; s.Team != "data-eng" || s.Answer != readiness.Blocked || s.Problem != nil {
		t.Errorf("the other team: %+v", s)
	}
	if s := got.Teams[1]; s.Answer != readiness.Unknown || s.Problem == nil || !strings.Contains(s.Problem.Message, "is no hash") || s.Problem.Do == "" || s.Owner != identity.OwnerPlatform {
		t.Errorf("the team that cannot be read: %+v", s)
	}
	a.want(ask{method: "GET", path: "/readiness/search"}, 503, "store_unavailable")
	a.damaged = "" // nor can any, but the store answers
	if err := json.Unmarshal([]byte(a.want(ask{method: "GET", path: "/readiness"}, 200, "").body), &got); err != nil || got.Teams[0].Problem == nil {
		t.Errorf("%v: %+v", err, got)
	}
}

func TestEvidenceThatCannotBeReadIsNoAnswer(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.unassessed = errors.New("connection refused")
	a.away = a.unassessed
	for _, path := range []string{"/readiness", "/readiness/data-eng"} {
		if got := a.want(ask{method: "GET", path: path}, 503, "store_unavailable"); !strings.Contains(got.body, "the evidence of data-eng cannot be read") {
			t.Errorf("it is not said whose: %v", got)
		}
	}
}
