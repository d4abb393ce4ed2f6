package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// rolloutDir makes a directory of teams' files.
func rolloutDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "rollout.d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for team, text := range files {
		if err := os.WriteFile(filepath.Join(dir, team+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// gathered records runs of today: n of an account in each of its pipelines, which
// were enforced if they are clean, and refused, too, if that is the reason token_absent.
func gathered(t *testing.T, redis *rollouttest.Redis, team identity.Team, account string, n int, g evidence.Grade, reason identity.Reason, pipelines ...string) {
	t.Helper()
	gatheredUnder(t, redis, "", team, account, n, g, reason, pipelines...)
}

// gatheredUnder is gathered by gateways whose configuration has a hash.
func gatheredUnder(t *testing.T, redis *rollouttest.Redis, hash string, team identity.Team, account string, n int, g evidence.Grade, reason identity.Reason, pipelines ...string) {
	t.Helper()
	store, err := redisstore.New(redisstore.Options{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	now := time.Now().UTC().Truncate(time.Millisecond)
	runs := make(map[evidence.RunKey]evidence.Run)
	for _, pipeline := range pipelines {
		for i := range n {
			runs[evidence.NewRunKey(account, fmt.Sprint(pipeline, i))] = evidence.Run{
				Account: account, Pipeline: pipeline, Grade: g, Reason: reason, First: now, Last: now, Worst: now, Legacy: true, Token: g != evidence.NoToken,
				Enforced: g == evidence.Clean || reason == "token_absent", Refused: reason == "token_absent", Config: hash,
			}
		}
	}
	// What is clean was so two days ago, too, which is what a census of few runs asks
	// for; the team has been watched for long.
	days := map[evidence.Day]*evidence.Daily{evidence.DayOf(now): {Runs: runs}}
	if g == evidence.Clean {
		before, then := now.AddDate(0, 0, -2), make(map[evidence.RunKey]evidence.Run)
		for _, pipeline := range pipelines {
			then[evidence.NewRunKey(account, pipeline+" then")] = evidence.Run{
				Account: account, Pipeline: pipeline, First: before, Last: before, Worst: before, Legacy: true, Token: true, Config: hash,
			}
		}
		days[evidence.DayOf(before)] = &evidence.Daily{Runs: then}
	}
	b := evidence.Batch{Replica: "test " + account, Seq: 1, Teams: map[identity.Team]*evidence.TeamBatch{
		team: {Days: days, Since: now.AddDate(0, 0, -90)},
	}}
	if err := store.Record(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// luigis is the environment of a command whose gateways serve Luigi.
var luigis = with{environ: []string{"CROSSFADE_UPSTREAM_PROFILE=luigi"}}

// inFlight latches runs of a team, so many that are enforced and so many that are
// not.
func inFlight(t *testing.T, redis *rollouttest.Redis, team identity.Team, enforced, unenforced int) {
	t.Helper()
	store, err := redisstore.New(redisstore.Options{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	for i := range enforced + unenforced {
		l := rollout.Latch{Enforced: i < enforced, Revision: 1, Pipeline: "Load", At: time.Now()}
		if _, err := store.Latch(t.Context(), rollout.NewLatchKey(team, "svc-etl", fmt.Sprint(i)), l, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// trained returns a pipeline of svc-ml that is selected above one percentage and
// up to another.
func trained(above, upTo rollout.Percent) string {
	for i := 0; ; i++ {
		name := fmt.Sprint("Train", i)
		if at := rollout.Threshold("ml-platform", "svc-ml/"+name); at > above && at <= upTo {
			return name
		}
	}
}

func TestAPlanSaysWhatEachFileWouldChangeAndApplyDoesIt(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	flag := "--redis=" + redis.URL()
	run := luigis.run
	long := time.Now().AddDate(0, 0, -40)
	changed(t, redis, rollout.Change{Team: "data-eng", Percent: 25, At: long}, rollout.Change{Team: "ml-platform", Percent: 50}, rollout.Change{Team: "growth", Percent: 100})
	gathered(t, redis, "data-eng", "svc-etl", 7, evidence.Clean, "", "LoadUsers", "ExtractOrders", "LoadOrders", "Report", "Sessions", "Invoices", "Clicks", "Geo")
	gathered(t, redis, "billing", "svc-billing", 20, evidence.WouldBreak, "aud_mismatch", "ExportInvoices")
	gathered(t, redis, "ml-platform", "svc-ml", 6, evidence.WouldBreak, "token_absent", trained(20, 50), trained(0, 20))
	inFlight(t, redis, "data-eng", 2, 6)
	inFlight(t, redis, "ml-platform", 3, 4)
	inFlight(t, redis, "billing", 1, 9)
	dir := rolloutDir(t, map[string]string{
		"data-eng": "percent: 50\nreason: week 2\n", "billing": "percent: 10\n", "search": "percent: 10\n",
		"ml-platform": "percent: 20\n", "growth": "percent: 100\n",
	})

	for _, format := range []string{"table", "markdown", "json"} {
		got := run(t, "rollout", "plan", flag, "--dir", dir, "-o", format).want(t, exitRefused)
		golden(t, "rollout.plan."+format, timeless(strings.ReplaceAll(got.stdout, dir, "rollout.d")))
	}
	for _, format := range []string{"table", "json"} {
		golden(t, "rollout.effect."+format, timeless(run(t, "rollout", "status", flag, "-o", format).want(t, exitOK, "25").stdout))
	}

	got := run(t, "rollout", "apply", flag, "--dir", dir, "--reason", "PR 812").want(t, exitRefused, "5 written, 2 waiting.")
	golden(t, "rollout.apply.table", timeless(got.stdout))
	run(t, "rollout", "history", "data-eng", flag).want(t, exitOK, "25% -> 50% (request)", "PR 812", actor()+" (unverified)")
	var rows []struct {
		Team      string
		Percent   int
		Requested int
	}
	if err := json.Unmarshal([]byte(run(t, "rollout", "status", flag, "-o", "json").want(t, exitOK).stdout), &rows); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"{billing 0 10}", "{data-eng 50 50}", "{growth 100 100}", "{ml-platform 20 20}", "{search 0 10}"} {
		if !strings.Contains(fmt.Sprint(rows), want) {
			t.Errorf("after apply: %v, want %s", rows, want)
		}
	}
	run(t, "rollout", "apply", flag, "--dir", dir).want(t, exitRefused, "0 written, 2 waiting")
}

func TestAPlanOfNothingIsQuiet(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	flag := "--redis=" + redis.URL()
	dir := rolloutDir(t, map[string]string{"data-eng": "percent: 0\n"})
	run(t, "rollout", "plan", flag, "--dir", dir, "--detailed-exitcode").want(t, exitChanges, "data-eng")
	run(t, "rollout", "apply", flag, "--dir", dir).want(t, exitOK, "1 written, 0 waiting")
	run(t, "rollout", "plan", flag, "--dir", dir, "--detailed-exitcode").want(t, exitOK, "0 to raise, 0 to lower, 0 refused")
}

func TestAPlanTellsWrongFiles(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	flag := "--redis=" + redis.URL()
	run(t, "rollout", "plan", flag).want(t, exitUsage, "--dir")
	run(t, "rollout", "plan", flag, "--dir", filepath.Join(t.TempDir(), "nowhere")).want(t, exitUsage, "nowhere")
	dir := rolloutDir(t, map[string]string{"data-eng": "percent: 500\n", "search": "percent: 5\n"})
	got := run(t, "rollout", "apply", flag, "--dir", dir).want(t, exitUsage, "data-eng.yaml:1: percent")
	if got.stdout != "" {
		t.Errorf("something was applied: %v", got)
	}
	run(t, "rollout", "status", flag).want(t, exitOK, "every team is at 0%")
	run(t, "rollout", "plan", flag, "--dir", dir, "extra").want(t, exitUsage)
	run(t, "rollout", "plan", "--redis=redis://127.0.0.1:1", "--dir", rolloutDir(t, map[string]string{"search": "percent: 5\n"})).want(t, exitStore)
}
