package readiness_test

import (
	"fmt"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

const (
	hour = time.Hour
	day  = 24 * hour
)

var now = time.Date(2026, 5, 26, 12, 0, 0, 0, time.UTC)

// team is what tests make facts of.
type team struct {
	readiness.Facts
	next int
}

// newTeam is one that nothing is known of.
func newTeam() *team {
	return &team{Facts: readiness.Facts{
		Team: "data-eng", Now: now, State: rollout.State{Team: "data-eng"}, Limits: readiness.DefaultLimits(),
		Days: make(map[evidence.Day]evidence.Daily), Since: now.Add(-21 * day), Requests: 100_000,
		Uses: make(map[string]evidence.Use), Families: make(map[evidence.Family]evidence.FamilyUse), Accounts: make(map[string]readiness.Account),
		Key: func(account, pipeline string) string { return account + "/" + pipeline },
	}}
}

// good is a team that may be raised to any percentage: 100 clean runs a day.
func good() *team {
	t := newTeam()
	t.every(14, 50, clean("svc-etl", "LoadUsers"))
	t.every(14, 50, clean("svc-etl", "ExtractOrders"))
	t.use("svc-etl", time.Minute, time.Minute)
	return t
}

func clean(account, pipeline string) evidence.Run {
	return evidence.Run{Account: account, Pipeline: pipeline, Legacy: true, Token: true}
}

func bad(account, pipeline string, reason identity.Reason) evidence.Run {
	return evidence.Run{Account: account, Pipeline: pipeline, Legacy: true, Token: true, Grade: evidence.WouldBreak, Reason: reason, TraceID: "4bf92f3577b34da6a3ce929d0e0e4736"}
}

func graded(r evidence.Run, g evidence.Grade, reason identity.Reason) evidence.Run {
	r.Grade, r.Reason = g, reason
	if g == evidence.NoToken {
		r.Token = false
	}
	return r
}

// add adds a run that started so long ago and lasted ten minutes, unless it says
// itself.
func (t *team) add(ago time.Duration, r evidence.Run) {
	if r.First.IsZero() {
		r.First = now.Add(-ago)
	}
	if r.Last.IsZero() {
		r.Last = r.First.Add(10 * time.Minute)
	}
	if r.Grade != evidence.Clean && r.Worst.IsZero() {
		r.Worst = r.First.Add(time.Minute)
	}
	d := evidence.DayOf(r.First)
	daily, ok := t.Days[d]
	if !ok {
		daily = evidence.Daily{Runs: make(map[evidence.RunKey]evidence.Run)}
		t.Days[d] = daily
	}
	t.next++
	daily.Runs[evidence.NewRunKey(r.Account, fmt.Sprint(t.next))] = r
}

// every adds so many runs on each of the last days, spread over them, the latest
// a moment ago.
func (t *team) every(days, runs int, r evidence.Run) {
	for d := range days {
		for i := range runs {
			t.add(time.Duration(d)*day+time.Duration(i)*day/time.Duration(runs)+time.Minute, r)
		}
	}
}

func (t *team) use(account string, legacy, token time.Duration) {
	t.Accounts[account] = readiness.Account{Legacy: true, OIDC: true}
	t.Uses[account] = evidence.Use{Legacy: now.Add(-legacy), Token: now.Add(-token)}
}

func check(t *testing.T, r readiness.Report, name readiness.CheckName) readiness.Check {
	t.Helper()
	c, ok := r.Check(name)
	if !ok {
		t.Fatalf("the report has no check %s", name)
	}
	return c
}
