package app_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"crossfade/cmd/crossfade/app"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// pastTeam is an invented team with its past: who ran what on each of the last
// days, and what was changed.
type pastTeam struct {
	name    identity.Team
	jobs    []pastJob
	unused  []string // accounts that were never seen
	days    int
	changes []rollout.Change
}

// pastJob is what an account runs, so many times a day. fails, if set, says how
// the runs of a day went wrong, a number of days ago.
type pastJob struct {
	account, pipeline string
	aDay              int
	kind              evidence.Run
	fails             func(daysAgo int) (n int, how evidence.Run)
}

func daysBack(n float64) time.Time {
	return time.Now().UTC().Add(-time.Duration(n * float64(day))).Truncate(time.Millisecond)
}

var sendsBoth, sendsPassword, sendsToken = evidence.Run{Legacy: true, Token: true},
	evidence.Run{Legacy: true, Grade: evidence.NoToken, Reason: identity.TokenAbsent}, evidence.Run{Token: true}

// automatic is whoever rolls back by itself.
const automatic = "luigi-gateway-1"

// changed is a change of the past.
func changed(back float64, to rollout.Percent, kind rollout.Kind, actor, reason, known string) rollout.Change {
	c := rollout.Change{
		Kind: kind, Percent: to, Actor: actor, Verified: actor != automatic, Source: "api", Reason: reason, Evidence: known,
		At: daysBack(back), Expect: rollout.AnyRevision,
	}
	if actor == automatic {
		c.Source = "rollback"
	}
	switch kind {
	case rollout.KindHold, rollout.KindRollback:
		c.Hold = &rollout.Hold{Reason: reason, Requested: 50, Actor: actor, Source: c.Source, At: c.At}
	case rollout.KindRelease:
		c.Hold = &rollout.Hold{}
	}
	return c
}

// asks is a request that waits.
func asks(back float64, live, wanted rollout.Percent, actor, reason string) rollout.Change {
	c := changed(back, live, rollout.KindRequest, actor, reason, "")
	c.Request = &rollout.Request{Percent: wanted, Actor: actor, Verified: true, Source: "api", Reason: reason, At: c.At}
	return c
}

// pastTeams are n teams. The first ones have stories of their own.
func pastTeams(n int) []pastTeam {
	mismatch := evidence.Run{
		Legacy: true, Token: true, Grade: evidence.WouldBreak, Reason: identity.AudMismatch,
		Detail: `The token is for "api://finance"; this gateway accepts "luigi".`,
	}
	stories := []pastTeam{
		{name: "data-eng", days: 21, unused: []string{"svc-old"}, jobs: []pastJob{
			{account: "svc-etl", pipeline: "LoadUsers", aDay: 14, kind: sendsBoth},
			{account: "svc-etl", pipeline: "ExtractOrders", aDay: 9, kind: sendsBoth},
			{account: "svc-etl", pipeline: "BuildSessions", aDay: 20, kind: sendsBoth},
			{account: "svc-loader", pipeline: "LoadWarehouse", aDay: 12, kind: sendsToken},
			{account: "svc-loader", pipeline: "LoadCampaigns", aDay: 18, kind: sendsToken},
			{account: "svc-etl", pipeline: "DailyReport", aDay: 15, kind: sendsBoth, fails: func(ago int) (int, evidence.Run) {
				return map[bool]int{true: 2}[ago == 11], evidence.Run{Legacy: true, Token: true, Grade: evidence.WouldBreak, Reason: identity.Expired, Detail: "The token expired 4 minutes before the run began."}
			}},
		}, changes: []rollout.Change{
			changed(19, 10, rollout.KindApply, "lea.holm", "week 1", "212 clean runs"),
			changed(14, 25, rollout.KindApply, "lea.holm", "week 2", "640 clean runs"),
			changed(12, 10, rollout.KindRollback, automatic, "automatic: 2 known accounts refused: svc-etl, svc-loader", ""),
			changed(9.2, 10, rollout.KindRelease, "lea.holm", "the token is renewed now", ""),
			changed(9.1, 25, rollout.KindApply, "lea.holm", "week 2, again", "902 clean runs"),
		}},
		{name: "billing", days: 20, jobs: []pastJob{
			{account: "svc-billing", pipeline: "ExportInvoices", aDay: 6, kind: sendsBoth, fails: func(ago int) (int, evidence.Run) {
				return []int{3, 4, 2, 3, 5, 3, 4, 3, 4}[min(ago, 8)], mismatch
			}},
			{account: "svc-billing", pipeline: "CloseDay", aDay: 22, kind: sendsBoth},
			{account: "svc-dunning", pipeline: "SendReminders", aDay: 19, kind: sendsBoth},
		}, changes: []rollout.Change{asks(3, 0, 10, "tom.berg", "first step")}},
		{name: "ml-platform", days: 20, jobs: []pastJob{
			{account: "svc-train", pipeline: "TrainRanking", aDay: 8, kind: sendsBoth},
			{account: "svc-feat", pipeline: "BuildFeatures", aDay: 21, kind: sendsBoth},
			{account: "svc-feat", pipeline: "RefreshEmbeddings", aDay: 11, kind: sendsBoth},
		}, changes: []rollout.Change{
			changed(16, 20, rollout.KindApply, "ines.roth", "begin small", "400 clean runs"),
			asks(0.2, 50, 50, "ines.roth", "half of us"),
			changed(0.1, 20, rollout.KindRollback, automatic, "automatic: 2 known accounts refused: svc-feat, svc-train", ""),
		}},
		{name: "search", days: 18, jobs: []pastJob{{account: "svc-search", pipeline: "IndexCatalogue", aDay: 17, kind: sendsPassword}, {account: "svc-search", pipeline: "IndexUsers", aDay: 12, kind: sendsPassword}}},
		{name: "payments", days: 19, jobs: []pastJob{
			{account: "svc-settle", pipeline: "SettleCards", aDay: 20, kind: sendsBoth},
			{account: "svc-recon", pipeline: "Reconcile", aDay: 9, kind: sendsBoth, fails: func(ago int) (int, evidence.Run) {
				return map[bool]int{true: 1}[ago%3 == 0], evidence.Run{Legacy: true, Token: true, Grade: evidence.IdentityDrift, Reason: identity.PrincipalMismatch, Detail: "The password is of svc-recon, the token of another account of the team."}
			}},
		}},
		{name: "growth", days: 30, jobs: []pastJob{{account: "svc-growth", pipeline: "Attribution", aDay: 12, kind: sendsToken}}, changes: []rollout.Change{
			changed(28, 50, rollout.KindApply, "mina.ek", "", "510 clean runs"), changed(9, 100, rollout.KindApply, "mina.ek", "all of us", "1,020 clean runs"),
		}},
		{name: "risk", days: 40, jobs: []pastJob{{account: "svc-risk", pipeline: "ScoreOrders", aDay: 22, kind: sendsToken}}, changes: []rollout.Change{
			changed(36, 100, rollout.KindApply, "jon.vik", "", "1,400 clean runs"),
			{Kind: rollout.KindRetire, Percent: 100, Retire: true, Actor: "jon.vik", Verified: true, Source: "api", Reason: "done", At: daysBack(12), Expect: rollout.AnyRevision},
		}},
		{name: "logistics", days: 6, jobs: []pastJob{{account: "svc-routes", pipeline: "PlanRoutes", aDay: 16, kind: sendsBoth}}},
		{name: "marketing", days: 22, jobs: []pastJob{{account: "svc-mail", pipeline: "SendCampaigns", aDay: 24, kind: sendsBoth}, {account: "svc-mail", pipeline: "CleanLists", aDay: 24, kind: sendsBoth}}, changes: []rollout.Change{changed(8, 50, rollout.KindApply, "ada.lind", "halfway", "700 clean runs")}},
		{name: "finance", days: 25, jobs: []pastJob{{account: "svc-ledger", pipeline: "PostLedger", aDay: 15, kind: sendsBoth}}, changes: []rollout.Change{changed(0.4, 10, rollout.KindApply, "uwe.falk", "", "210 clean runs")}},
	}
	first := []string{"web", "app", "core", "data", "edge", "ads", "map", "geo", "push", "mail", "tax", "audit", "pay", "stock", "price", "media"}
	second := []string{"insights", "ingest", "quality", "models", "exports", "metrics", "crawl", "sync", "events", "archive", "labels", "graphs", "feeds"}
	for i := len(stories); i < n; i++ {
		name := first[i%len(first)] + "-" + second[i%len(second)]
		account := "svc-" + name
		team := pastTeam{name: identity.Team(name), days: 16, jobs: []pastJob{{account: account, pipeline: "Nightly", aDay: 4 + i%5, kind: sendsBoth}}}
		switch {
		case i%9 == 0:
			team.jobs[0].kind = sendsPassword
		case i%7 == 0:
			team.jobs[0].fails = func(ago int) (int, evidence.Run) { return 1, mismatch }
		case i%3 == 0:
			team.days = 5 + i%7
		case i%4 == 0:
			team.changes = []rollout.Change{changed(6, rollout.Percent(10+i%60), rollout.KindApply, "lead", "", "80 clean runs")}
		}
		stories = append(stories, team)
	}
	return stories[:n]
}

// realRedis is a store on a redis-server, which many teams take less time on than
// on the one in the process.
func realRedis(t *testing.T) *redisstore.Store {
	t.Helper()
	store, err := redisstore.New(redisstore.Options{URL: rollouttest.StartRedis(t).URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// seeded is a gateway with teams and what is known of their past.
func (s *site) seeded(store *redisstore.Store, teams []pastTeam) *gateway {
	s.t.Helper()
	var principals strings.Builder
	for _, team := range teams {
		known := make(map[string]bool)
		for _, job := range team.jobs {
			if !known[job.account] {
				fmt.Fprintf(&principals, "%s: { team: %s, owner: %s, oidc: { subject: %s } }\n", job.account, team.name, "oncall@"+string(team.name), job.account)
			}
			known[job.account] = true
		}
		for _, account := range team.unused {
			fmt.Fprintf(&principals, "%s: { team: %s, oidc: { subject: %s } }\n", account, team.name, account)
		}
	}
	if len(teams) == 0 {
		delete(s.lines, "principals")
	} else {
		s.write("principals.yaml", principals.String())
	}
	s.configure("admin", "{ address: 127.0.0.1:0 }")
	s.rollouts()
	for _, team := range teams {
		percent, asked := rollout.Percent(0), false
		for _, c := range team.changes {
			percent, asked = c.Percent, asked || c.Request != nil
		}
		if !asked { // by a program, of a team without a file
			s.lead(team.name, fmt.Sprintf("percent: %s\n", percent))
		}
	}
	c, err := s.load()
	if err != nil {
		s.t.Fatal(err)
	}
	hashes := c.EvidenceHashes()
	for i, team := range teams {
		team.record(s.t, store, int64(i+1), hashes.Of)
	}
	g := s.start(func(o *app.Options) { o.Store, o.Version = store, "1.4.0" }).loaded()
	s.eventually("the gateway gives a sign of life", func() bool {
		all, _, err := store.Fleet(s.t.Context())
		return err == nil && len(all) > 0
	})
	return g
}

// joined adds gateways of the same configuration.
func (s *site) joined(store *redisstore.Store, n int) {
	s.t.Helper()
	all, _, err := store.Fleet(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range n {
		r := all[0]
		r.ID = fmt.Sprintf("luigi-gateway-%d", i+1)
		if err := store.Beat(s.t.Context(), r); err != nil {
			s.t.Fatal(err)
		}
	}
}

// record writes a team's past into a store.
func (p pastTeam) record(t *testing.T, store *redisstore.Store, seq int64, hash func(string) string) {
	t.Helper()
	key := rollout.Keying{Runs: true}.Key()
	batch := &evidence.TeamBatch{
		Days: make(map[evidence.Day]*evidence.Daily), Accounts: make(map[string]evidence.Use),
		Families: make(map[evidence.Family]evidence.FamilyUse), Since: daysBack(float64(p.days)),
	}
	for ago := range p.days {
		start := daysBack(float64(ago)).Add(-20 * time.Minute)
		daily := &evidence.Daily{Counts: make(map[evidence.Count]int64), Runs: make(map[evidence.RunKey]evidence.Run)}
		for j, job := range p.jobs {
			bad, how := 0, evidence.Run{}
			if job.fails != nil {
				bad, how = job.fails(ago)
			}
			for i := range job.aDay {
				run := job.kind
				if i < bad {
					run = how
				}
				run.Account, run.Pipeline, run.Config = job.account, job.pipeline, hash(job.account)
				run.First = start.Add(-time.Duration(i) * 37 * time.Second).Add(-time.Duration(j) * 11 * time.Second)
				run.Last, run.Worst = run.First.Add(3*time.Minute), run.First
				if run.Token {
					run.FirstExpiry, run.LastExpiry = run.First.Add(time.Hour), run.First.Add(time.Hour)
				}
				if at := p.percentAt(run.First); at > 0 && run.Grade == evidence.Clean && rollout.Selected(p.name, key(job.account, job.pipeline), at) {
					run.Enforced, run.EnforcedFrom = true, run.First
				}
				sum := sha256.Sum256(fmt.Append(nil, p.name, ago, j, i))
				run.TraceID = hex.EncodeToString(sum[:16])
				daily.Runs[evidence.NewRunKey(job.account, run.TraceID)] = run
				daily.Counts[evidence.Count{Verdict: run.Grade.String(), Reason: run.Reason, Source: "client"}] += 9
			}
			use, family := batch.Accounts[job.account], batch.Families[evidence.Family{Account: job.account, Name: job.pipeline}]
			seen := start.Add(time.Duration(3+3*j) * time.Minute)
			use.Run = seen
			if job.kind.Legacy {
				use.Legacy = latestOf(use.Legacy, seen)
			}
			if job.kind.Token {
				use.Token = latestOf(use.Token, seen)
				family.Clean = latestOf(family.Clean, seen)
			}
			if bad > 0 {
				use.Failed, use.Reason = latestOf(use.Failed, start), how.Reason
			}
			family.Last = latestOf(family.Last, seen)
			batch.Accounts[job.account], batch.Families[evidence.Family{Account: job.account, Name: job.pipeline}] = use, family
		}
		day := evidence.DayOf(start)
		batch.Days[day] = daily
	}
	err := store.Record(t.Context(), evidence.Batch{
		Replica: "past", Seq: seq, From: time.Now(), To: time.Now(), Teams: map[identity.Team]*evidence.TeamBatch{p.name: batch},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range p.changes {
		c.Team = p.name
		if _, err := store.Write(t.Context(), c); err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
	}
}

func latestOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// percentAt is what the team stood at.
func (p pastTeam) percentAt(at time.Time) (percent rollout.Percent) {
	for _, c := range p.changes {
		if !c.At.After(at) {
			percent = c.Percent
		}
	}
	return percent
}
