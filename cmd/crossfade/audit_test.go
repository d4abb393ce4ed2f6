package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crossfade/gateway"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// trail writes an audit trail as a gateway does: some uses, and the tasks.
func trail(t *testing.T, file string, heads audit.Heads, tasks ...luigi.Execution) {
	t.Helper()
	tr, err := audit.New(audit.Options{File: file, Host: "web1", Heads: heads, Parameters: []string{"day"}})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		tr.Observe(t.Context(), &gateway.Event{
			Start: time.Now(), Call: gateway.Call{RPC: true, Method: "add_task", Action: identity.ActionExecute},
			Principal: identity.Principal{Name: "svc-etl", Team: "data-eng"}, Decision: gateway.Decision{Outcome: gateway.Allowed},
		})
	}
	for _, e := range tasks {
		tr.Executed(e)
	}
	if err := tr.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// executed is an execution that ended some time ago and took some time.
func executed(family, account string, team identity.Team, outcome luigi.Outcome, ago, took time.Duration) luigi.Execution {
	day := "2026-11-24"
	e := luigi.Execution{Outcome: outcome, Ended: time.Now().Add(-ago)}
	e.Task, e.Family, e.Module, e.Worker = family+"_2026_11_24_35177e150a", family, "pipelines", "worker-1"
	e.Parameters = []luigi.Parameter{{Name: "day", Value: &day}, {Name: "password"}}
	e.By = luigi.Identity{Principal: account, Team: team, Scheme: "oidc", Issuer: "https://idp.example", TokenID: "jti-1", Percent: 25}
	if took > 0 {
		e.At = e.Ended.Add(-took)
	}
	return e
}

// configured is a configuration with an audit trail beside it.
func configured(t *testing.T) (flag, file string) {
	t.Helper()
	dir := files(t, map[string]string{"crossfade.yaml": "upstream: http://127.0.0.1:1\naudit: audit.jsonl\n"})
	return "--config=" + filepath.Join(dir, "crossfade.yaml"), filepath.Join(dir, "audit.jsonl")
}

// change rewrites the lines of a file.
func change(t *testing.T, file string, with func(lines []string) []string) {
	t.Helper()
	lines := with(strings.SplitAfter(read(t, file), "\n"))
	if err := os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAuditVerifyAnswersWhetherTheTrailIsIntact(t *testing.T) {
	t.Parallel()
	config, file := configured(t)
	run(t, "audit", "verify", config).want(t, exitFailure, "is not there yet")
	trail(t, file, nil)
	run(t, "audit", "verify", config).want(t, exitOK, "INTACT", "web1-", "1 to 5", "not asked (--heads)")
	trail(t, file, nil) // another start goes on
	run(t, "audit", "verify", config).want(t, exitOK, "INTACT", "1 to 10")
	run(t, "audit", "verify", file, file).want(t, exitOK, "INTACT", "1 to 10")

	change(t, file, func(l []string) []string {
		l[2] = strings.Replace(l[2], "svc-etl", "svc-bil", 1)
		return append(l[:5], l[6:]...)
	})
	got := run(t, "audit", "verify", config).want(t, exitFailure, "BROKEN in 2 places", "broken in 2 places", "altered", "removed")
	golden(t, "audit.verify.table", masked(got.stdout, filepath.Dir(file)))
	golden(t, "audit.verify.markdown", masked(run(t, "audit", "verify", config, "-o", "markdown").want(t, exitFailure).stdout, filepath.Dir(file)))
	var report audit.Report
	got = run(t, "audit", "verify", config, "-o", "json").want(t, exitFailure)
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil || len(report.Findings) != 2 ||
		report.Findings[0].Line != 3 || report.Findings[0].What != audit.Altered ||
		report.Findings[1].Line != 6 || report.Findings[1].What != audit.Removed {
		t.Errorf("%v in %v", err, got)
	}

	change(t, file, func(l []string) []string {
		for i := range 60 {
			l = append(l, l[1+i%3])
		}
		return l
	})
	run(t, "audit", "verify", config).want(t, exitFailure, "and 2 more; -o json shows 22")

	other := filepath.Join(t.TempDir(), "empty.jsonl")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "audit", "verify", other).want(t, exitOK, "hold no line")
	run(t, "audit", "verify").want(t, exitUsage, "no audit trail is configured")
	run(t, "audit", "verify", filepath.Join(t.TempDir(), "none.jsonl")).want(t, exitUsage, "none.jsonl")
	run(t, "audit", "verify", t.TempDir()).want(t, exitUsage, "is a directory")
	run(t, "audit", "verify", file, "-o", "xml").want(t, exitUsage, "-o xml")
}

// masked takes out of a result what differs from run to run.
func masked(text, dir string) string {
	text = strings.ReplaceAll(text, dir, "DIR")
	for {
		i := strings.Index(text, "web1-")
		if i < 0 {
			return timeless(text)
		}
		text = text[:i] + "REPLICA" + text[i+len("web1-")+10:]
	}
}

func TestAuditVerifyComparesWithTheHeadsInRedis(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	store, err := redisstore.New(redisstore.Options{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	config, file := configured(t)
	trail(t, file, store)
	flag := "--redis=" + redis.URL()
	run(t, "audit", "verify", config, "--heads", flag).want(t, exitOK, "INTACT", "line 5")

	elsewhere := filepath.Join(t.TempDir(), "audit.jsonl")
	trail(t, elsewhere, store)
	run(t, "audit", "verify", config, "--heads", flag).want(t, exitOK, "INTACT", "Redis knows 1 more replica")

	change(t, file, func(l []string) []string { return l[:3] })
	run(t, "audit", "verify", config).want(t, exitOK, "INTACT") // nobody can tell without
	run(t, "audit", "verify", config, "--heads", flag).want(t, exitFailure, "truncated", "lines 4 to 5 of the chain")

	run(t, "audit", "verify", config, "--heads").want(t, exitStore, "no Redis is configured", "--redis")
	got := run(t, "audit", "verify", config, "--heads", "--redis", "redis://:hunter2@"+rollouttest.Unused(t)+"/0").want(t, exitStore, "connection refused")
	if strings.Contains(got.stdout+got.stderr, "hunter2") {
		t.Errorf("a password shows: %v", got)
	}
}

func TestAuditTasksAnswersWhoRanWhat(t *testing.T) {
	t.Parallel()
	config, file := configured(t)
	trail(t, file, nil,
		executed("LoadUsers", "svc-etl", "data-eng", luigi.Done, time.Hour, 90*time.Second),
		executed("ExportInvoices", "svc-billing", "billing", luigi.Failed, 2*time.Hour, 30*time.Minute),
		executed("LoadUsers", "svc-etl", "data-eng", luigi.Abandoned, 48*time.Hour, 0),
	)
	show := func(args ...string) ran { return run(t, append([]string{"audit", "tasks", config}, args...)...) }
	golden(t, "audit.tasks.table", timeless(show().want(t, exitOK).stdout))
	golden(t, "audit.tasks.markdown", timeless(show("--since", "72h", "-o", "markdown").want(t, exitOK).stdout))
	golden(t, "audit.tasks.json", masked(show("--account", "svc-billing", "-o", "json").want(t, exitOK).stdout, filepath.Dir(file)))
	golden(t, "audit.tasks.yaml", masked(show("--account", "svc-billing", "-o", "yaml").want(t, exitOK).stdout, filepath.Dir(file)))

	for name, tc := range map[string]struct {
		args    []string
		present string
		absent  string
	}{
		"of a team":        {[]string{"--team", "billing"}, "ExportInvoices", "LoadUsers"},
		"of an account":    {[]string{"--account", "svc-etl"}, "LoadUsers", "ExportInvoices"},
		"of a family":      {[]string{"--family", "ExportInvoices"}, "svc-billing", "svc-etl"},
		"of a short while": {[]string{"--since", "90m"}, "LoadUsers", "ExportInvoices"},
		"of a file":        {[]string{file, "--since", "72h"}, "abandoned", "\x00"},
	} {
		got := show(tc.args...).want(t, exitOK, tc.present)
		if strings.Contains(got.stdout, tc.absent) {
			t.Errorf("%s: %q shows: %v", name, tc.absent, got)
		}
	}
	got := show("--team", "search", "--family", "X").want(t, exitOK, `No task of team "search" of family "X" ended in the last 24h0m0s`)
	if got.stdout != "" {
		t.Errorf("talk on stdout: %v", got)
	}
	if got := show("--team", "search", "-o", "json").want(t, exitOK); strings.TrimSpace(got.stdout) != "[]" {
		t.Errorf("nothing as JSON: %v", got)
	}
	change(t, file, func(l []string) []string { l[1] = "broken\n"; return l })
	show().want(t, exitOK, "1 line cannot be read", "audit verify")
	change(t, file, func(l []string) []string { return append(l[:1], l[2:]...) })
	if err := os.WriteFile(file, []byte(read(t, file)+`{"kind":"ta`), 0o600); err != nil { // a crash
		t.Fatal(err)
	}
	trail(t, file, nil)
	if got := show().want(t, exitOK); got.stderr != "" {
		t.Errorf("what a crash left, and is accounted for, is no matter of this command: %v", got)
	}
	show("--since", "0s").want(t, exitUsage, "--since")
	show("--since", "yesterday").want(t, exitUsage, "since")
	run(t, "audit", "tasks").want(t, exitUsage, "no audit trail is configured")
}
