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

// gathered records runs of today: n of an account in each of its pipelines.
func gathered(t *testing.T, redis *rollouttest.Redis, team identity.Team, account string, n int, g evidence.Grade, reason identity.Reason, pipelines ...string) {
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
			}
		}
	}
	b := evidence.Batch{Replica: "test " + account, Seq: 1, Teams: map[identity.Team]*evidence.TeamBatch{
		team: {Days: map[evidence.Day]*evidence.Daily{evidence.DayOf(now): {Runs: runs}}},
	}}
	if err := store.Record(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func TestAPlanSaysWhatEachFileWouldChangeAndApplyDoesIt(t *testing.T) {
	redis := rollouttest.StartRedis(t)
	flag := "--redis=" + redis.URL()
	changed(t, redis, rollout.Change{Team: "data-eng", Percent: 25}, rollout.Change{Team: "ml-platform", Percent: 50}, rollout.Change{Team: "growth", Percent: 100})
	gathered(t, redis, "data-eng", "svc-etl", 7, evidence.Clean, "", "LoadUsers", "ExtractOrders", "LoadOrders", "Report", "Sessions", "Invoices", "Clicks", "Geo")
	gathered(t, redis, "billing", "svc-billing", 20, evidence.WouldBreak, "aud_mismatch", "ExportInvoices")
	dir := rolloutDir(t, map[string]string{
		"data-eng": "percent: 50\nreason: week 2\n", "billing": "percent: 10\n", "search": "percent: 10\n",
		"ml-platform": "percent: 20\n", "growth": "percent: 100\n",
	})

	for _, format := range []string{"table", "markdown", "json"} {
		got := run(t, "rollout", "plan", flag, "--dir", dir, "-o", format).want(t, exitRefused)
		golden(t, "rollout.plan."+format, timeless(strings.ReplaceAll(got.stdout, dir, "rollout.d")))
	}
	run(t, "rollout", "status", flag).want(t, exitOK, "25%")

	got := run(t, "rollout", "apply", flag, "--dir", dir, "--reason", "PR 812").want(t, exitRefused, "5 written, 2 waiting")
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
	redis := rollouttest.StartRedis(t)
	flag := "--redis=" + redis.URL()
	dir := rolloutDir(t, map[string]string{"data-eng": "percent: 0\n"})
	run(t, "rollout", "plan", flag, "--dir", dir, "--detailed-exitcode").want(t, exitChanges, "data-eng")
	run(t, "rollout", "apply", flag, "--dir", dir).want(t, exitOK, "1 written, 0 waiting")
	run(t, "rollout", "plan", flag, "--dir", dir, "--detailed-exitcode").want(t, exitOK, "0 to raise, 0 to lower, 0 refused")
}

func TestAPlanTellsWrongFiles(t *testing.T) {
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
