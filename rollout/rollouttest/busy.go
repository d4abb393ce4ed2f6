package rollouttest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
)

// Busy is how much a team does in a day. Each of its accounts runs each of its
// pipelines in turn.
type Busy struct{ Accounts, Pipelines, Runs int }

// BusyBatch returns a day of a team as a gateway in mode shadow records it, with
// names of usual lengths: all runs send a token and were let in by a password, three
// in a hundred fail with a detail, one in ten is enforced, each asks for four task
// families, and some people look at pages. Team and day tell batches of a replica
// apart.
func BusyBatch(team identity.Team, day evidence.Day, busy Busy) evidence.Batch {
	begin := day.End().AddDate(0, 0, -1)
	end := day.End().Add(-time.Second)
	d := &evidence.Daily{
		Counts: map[evidence.Count]int64{
			{Verdict: "match_allow", Source: "client"}:                                     int64(300 * busy.Runs),
			{Verdict: "would_break", Reason: identity.AudMismatch, Source: "client"}:       int64(9 * busy.Runs),
			{Verdict: "no_token", Reason: identity.TokenAbsent, Source: "client"}:          40,
			{Verdict: "indeterminate", Reason: identity.JWKSUnavailable, Source: "client"}: 2,
		},
		Schemes:  map[identity.Scheme]int64{identity.SchemeBasic: int64(309 * busy.Runs), identity.SchemeOIDC: 31},
		Runs:     make(map[evidence.RunKey]evidence.Run, busy.Runs),
		Refusals: make(map[evidence.Refusal]evidence.Refused),
	}
	t := &evidence.TeamBatch{
		Days: map[evidence.Day]*evidence.Daily{day: d}, Accounts: make(map[string]evidence.Use),
		Families: make(map[evidence.Family]evidence.FamilyUse), Since: begin,
	}
	for n := range busy.Runs {
		account := fmt.Sprintf("svc-%s-%02d", team, n%busy.Accounts)
		pipeline := fmt.Sprintf("LoadCustomers%02d", n/busy.Accounts%busy.Pipelines)
		first := begin.Add(time.Duration(n) * 23 * time.Hour / time.Duration(busy.Runs)).Add(217 * time.Millisecond)
		expiry := first.Truncate(time.Second).Add(time.Hour)
		sum := sha256.Sum256(fmt.Append(nil, team, day, n))
		r := evidence.Run{
			Account: account, Pipeline: pipeline, TraceID: hex.EncodeToString(sum[:16]), Config: "5f0c9a3be1d27784",
			First: first, Worst: first, Last: first.Add(11*time.Minute + 41*time.Millisecond), Legacy: true, Token: true, FirstExpiry: expiry, LastExpiry: expiry,
		}
		if n%33 == 5 {
			r.Grade, r.Reason, r.Worst = evidence.WouldBreak, identity.AudMismatch, first.Add(3*time.Second)
			r.Detail = `the token is for "api://finance-reports"; this gateway accepts "https://luigi.example.com"`
			d.Refusals[evidence.Refusal{Account: account, Pipeline: pipeline, Reason: r.Reason}] = evidence.Refused{Requests: 9, Last: r.Worst}
		}
		if n%10 == 7 {
			r.Enforced, r.EnforcedFrom = true, first
		}
		d.Runs[evidence.NewRunKey(account, fmt.Sprintf("Worker(salt=%x, workers=1, host=etl-%d, pid=%d)", sum[16:20], n%7, 1000+n))] = r
		t.Accounts[account] = evidence.Use{Legacy: end, Token: end, Run: end}
		for f := range 4 {
			t.Families[evidence.Family{Account: account, Name: fmt.Sprintf("%sStep%d", pipeline, f)}] = evidence.FamilyUse{Last: end, Clean: end}
		}
	}
	for n := range 5 {
		name := fmt.Sprintf("person-%d@example.com", n)
		t.Accounts[name] = evidence.Use{Token: end, Page: end}
	}
	return evidence.Batch{
		Replica: "OQ5TRX2NPAVLYXHSMXNZEOKCHB", Seq: day.End().Unix() / 86400, From: begin, To: day.End(),
		Teams: map[identity.Team]*evidence.TeamBatch{team: t},
	}
}
