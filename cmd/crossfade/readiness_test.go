package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

const aDay = 24 * time.Hour

// past is evidence of a team on the 13 full days before today: whatever the hour
// is, all of them are within a window of 14 days.
type past struct {
	team  identity.Team
	batch evidence.TeamBatch
	n     int
}

func newPast(team identity.Team, since time.Duration) *past {
	return &past{team: team, batch: evidence.TeamBatch{
		Days: make(map[evidence.Day]*evidence.Daily), Accounts: make(map[string]evidence.Use), Families: make(map[evidence.Family]evidence.FamilyUse),
		Since: time.Now().Add(-since),
	}}
}

// runs adds so many runs of a kind at noon of a day so many days ago.
func (p *past) runs(daysAgo, n int, kind evidence.Run) *past {
	day := evidence.DayOf(time.Now().Add(-time.Duration(daysAgo) * aDay))
	d := p.batch.Days[day]
	if d == nil {
		d = &evidence.Daily{Runs: make(map[evidence.RunKey]evidence.Run), Counts: make(map[evidence.Count]int64)}
		p.batch.Days[day] = d
	}
	d.Counts[evidence.Count{Verdict: "match_allow", Source: "client"}] += int64(10 * n)
	for range n {
		p.n++
		r := kind
		r.First = day.End().Add(-aDay / 2).Add(time.Duration(p.n%60) * time.Second)
		if daysAgo == 0 {
			r.First = time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
		}
		r.Last = r.First.Add(time.Minute)
		if r.Grade != evidence.Clean {
			r.Worst = r.First
		}
		d.Runs[evidence.NewRunKey(r.Account, fmt.Sprint(p.n))] = r
		p.batch.Families[evidence.Family{Account: r.Account, Name: r.Pipeline}] = evidence.FamilyUse{Last: r.First, Clean: r.First}
	}
	return p
}

// daily adds runs on each of the full days.
func (p *past) daily(n int, kind evidence.Run) *past {
	for d := 1; d <= 13; d++ {
		p.runs(d, n, kind)
	}
	return p
}

// use notes when an account last used a password and a token; 0 for never.
func (p *past) use(account string, legacy, token time.Duration) *past {
	at := func(ago time.Duration) time.Time {
		if ago == 0 {
			return time.Time{}
		}
		return time.Now().Add(-ago).UTC().Truncate(time.Second)
	}
	p.batch.Accounts[account] = evidence.Use{Legacy: at(legacy), Token: at(token), Run: at(time.Minute)}
	return p
}

func (p *past) record(t *testing.T, redis *rollouttest.Redis) {
	t.Helper()
	store, err := redisstore.New(redisstore.Options{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	b := evidence.Batch{Replica: "past of " + string(p.team), Seq: 1, From: time.Now(), To: time.Now(), Teams: map[identity.Team]*evidence.TeamBatch{p.team: &p.batch}}
	if err := store.Record(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func judgedClean(account, pipeline string) evidence.Run {
	return evidence.Run{Account: account, Pipeline: pipeline, Legacy: true, Token: true}
}

// fiveTeams is a Redis with the teams that a first page shows, and the
// configuration of a command that reads it.
func fiveTeams(t *testing.T) (redis *rollouttest.Redis, config string) {
	t.Helper()
	redis = rollouttest.StartRedis(t)
	long := time.Now().Add(-9 * aDay)
	changed(
		t, redis, rollout.Change{Team: "data-eng", Percent: 25, At: long, Actor: "lead", Source: "file"},
		rollout.Change{Team: "ml-platform", Percent: 20, At: time.Now().Add(-2 * time.Hour), Actor: "lead", Source: "file"},
		rollout.Change{Team: "growth", Percent: 100, At: time.Now().Add(-20 * aDay)},
		rollout.Change{Team: "ml-platform", Kind: rollout.KindHold, Percent: 20, Hold: &rollout.Hold{Reason: "rolled back, 6 known runs refused", At: time.Now().UTC().Truncate(time.Millisecond)}},
	)
	of := newPast("data-eng", 21*aDay)
	for i, pipeline := range []string{"LoadUsers", "ExtractOrders", "LoadOrders", "Report", "Sessions", "Invoices", "Clicks", "Geo", "Prices", "Stock", "Returns"} {
		run := judgedClean([]string{"svc-etl", "svc-loader"}[i%2], pipeline)
		// A raise is soaked once what it selects has run without a refusal.
		if rollout.Selected("data-eng", run.Account+"/"+pipeline, 25) {
			run.Enforced = true
		}
		of.daily(8, run)
	}
	of.use("svc-etl", 2*time.Minute, 2*time.Minute).use("svc-loader", 9*aDay, time.Minute).record(t, redis)

	bad := judgedClean("svc-billing", "ExportInvoices")
	bad.Grade, bad.Reason, bad.TraceID = evidence.WouldBreak, identity.AudMismatch, "4bf92f3577b34da6a3ce929d0e0e4736"
	bad.Detail = `the token is for "api://finance"; this gateway accepts "luigi"`
	newPast("billing", 21*aDay).daily(20, judgedClean("svc-billing", "LoadInvoices")).daily(20, judgedClean("svc-billing", "CloseMonth")).runs(0, 4, bad).
		use("svc-billing", time.Minute, time.Minute).record(t, redis)

	none := evidence.Run{Account: "svc-search", Pipeline: "BuildIndex", Legacy: true, Grade: evidence.NoToken, Reason: identity.TokenAbsent}
	newPast("search", 21*aDay).daily(20, none).use("svc-search", time.Minute, 0).record(t, redis)
	newPast("ml-platform", 21*aDay).daily(20, judgedClean("svc-ml", "Train")).use("svc-ml", time.Minute, time.Minute).record(t, redis)

	alone := evidence.Run{Account: "svc-growth", Pipeline: "Funnel", Token: true, Enforced: true}
	newPast("growth", 40*aDay).daily(12, alone).use("svc-growth", 9*aDay, time.Minute).record(t, redis)

	dir := t.TempDir()
	for name, text := range map[string]string{
		"crossfade.yaml": "principals: p.yaml\nrollout: { dir: rollout.d }\nupstream: { profile: luigi }\nredis: " + redis.URL() + "\n",
		"p.yaml": `svc-etl: { team: data-eng, legacy: [svc-etl] }
svc-loader: { team: data-eng, legacy: [svc-loader] }
svc-old: { team: data-eng, legacy: [svc-old], owner: nobody knows }
svc-billing: { team: billing }
svc-search: { team: search }
svc-ml: { team: ml-platform }
svc-growth: { team: growth }
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "rollout.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	return redis, filepath.Join(dir, "crossfade.yaml")
}

// What differs from one hour of the day to another.
var (
	dates   = regexp.MustCompile(`\d{4}-\d\d-\d\d`)
	soon    = regexp.MustCompile(`about \d+ (hour|minute|second)s?`)
	seconds = regexp.MustCompile(`(wait_seconds"?: )[0-9.]+`)
)

func TestReadinessIsShownInEveryFormat(t *testing.T) {
	_, config := fiveTeams(t)
	show := func(args ...string) ran { return run(t, append([]string{"readiness", "-c", config}, args...)...) }
	clean := func(r ran) string {
		if strings.Contains(r.stdout, "\x1b") {
			t.Errorf("there are colours: %q", r.stdout)
		}
		text := seconds.ReplaceAllString(soon.ReplaceAllString(r.stdout, "about N hours"), "${1}N")
		return dates.ReplaceAllString(timestamps.ReplaceAllString(text, "TIME"), "DAY")
	}
	for _, format := range []string{"table", "json", "yaml", "markdown"} {
		golden(t, "readiness.all."+format, clean(show("-o", format).want(t, exitRefused)))
		golden(t, "readiness.billing."+format, clean(show("billing", "-o", format).want(t, exitRefused)))
	}
	for team, code := range map[string]int{"data-eng": exitOK, "search": exitOK, "ml-platform": exitOK, "growth": exitOK} {
		for _, format := range []string{"table", "markdown"} {
			golden(t, "readiness."+team+"."+format, clean(show(team, "-o", format).want(t, code)))
		}
	}
	golden(t, "readiness.whatif.table", clean(show("data-eng", "--what-if", "75").want(t, exitOK)))
	var got console.Readiness
	if err := json.Unmarshal([]byte(show("data-eng", "-o", "json").stdout), &got); err != nil || got.Report.Answer != readiness.Ready || got.Report.Window != 14*aDay {
		t.Errorf("the JSON is read as %+v, %v", got, err)
	}
}
