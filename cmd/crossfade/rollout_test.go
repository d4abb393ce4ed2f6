package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// changed makes changes as someone else does.
func changed(t *testing.T, redis *rollouttest.Redis, changes ...rollout.Change) {
	t.Helper()
	store, err := redisstore.New(redisstore.Options{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	for _, c := range changes {
		c.Expect = rollout.AnyRevision
		if _, err := store.Write(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
}

var (
	timestamps = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`)
	moments    = regexp.MustCompile(`\d{1,2} [A-Z][a-z]{2} \d\d:\d\d:\d\d`)
	days       = regexp.MustCompile(`(day"?: "?)\d{4}-\d\d-\d\d`)
	ages       = regexp.MustCompile(`\d+ s ago`)
	gaps       = regexp.MustCompile(` {2,}`)
)

// timeless takes out of a result what differs from run to run: times, and who
// runs the tests.
func timeless(text string) string {
	for _, r := range []struct {
		what *regexp.Regexp
		by   string
	}{{timestamps, "TIME"}, {moments, "TIME"}, {days, "${1}DAY"}, {ages, "N s ago"}} {
		text = r.what.ReplaceAllString(text, r.by)
	}
	for _, around := range []string{`"actor": "%s"`, "actor: %s\n", "%s (unverified)"} {
		text = strings.ReplaceAll(text, fmt.Sprintf(around, actor()), fmt.Sprintf(around, "ACTOR"))
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		lines[i] = line[:indent] + gaps.ReplaceAllString(line[indent:], "  ")
	}
	return strings.Join(lines, "\n")
}

func TestRolloutsAreSetAndShownInEveryFormat(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	env := with{environ: []string{"CROSSFADE_REDIS_URL=" + redis.URL()}}

	got := env.run(t, "rollout", "status").want(t, exitOK)
	if got.stdout != "" || !strings.Contains(got.stderr, "every team is at 0%") {
		t.Errorf("an empty store: %v", got)
	}
	if got := env.run(t, "rollout", "status", "-o", "json").want(t, exitOK); strings.TrimSpace(got.stdout) != "[]" {
		t.Errorf("an empty store as JSON: %v", got)
	}

	changed(t, redis, rollout.Change{
		Team: "data-eng", Percent: 10, Actor: "lead@acme.example", Verified: true, Source: "api", Reason: "week 1 | pilot",
	})
	golden(t, "rollout.set.table", env.run(t, "rollout", "set", "data-eng", "25", "--reason", "week 2").want(t, exitOK).stdout)
	golden(t, "rollout.set.json", timeless(env.run(t, "rollout", "set", "search", "0", "-o", "json").want(t, exitOK).stdout))
	golden(t, "rollout.set.yaml", timeless(env.run(t, "rollout", "set", "search", "100", "-o", "yaml").want(t, exitOK).stdout))

	for _, format := range []string{"table", "json", "yaml", "markdown"} {
		golden(t, "rollout.status."+format, timeless(env.run(t, "rollout", "status", "-o", format).want(t, exitOK).stdout))
		golden(t, "rollout.history."+format, timeless(env.run(t, "rollout", "history", "data-eng", "-o", format).want(t, exitOK).stdout))
	}
	one := env.run(t, "rollout", "status", "search").want(t, exitOK, "100%", "enforced")
	if strings.Contains(one.stdout, "data-eng") {
		t.Errorf("another team shows: %v", one)
	}
	env.run(t, "rollout", "status", "serach").want(t, exitFailure, `team "serach" has no percentage yet`)
	last := env.run(t, "rollout", "history", "data-eng", "--limit", "1").want(t, exitOK, "10% -> 25%")
	if strings.Contains(last.stdout, "week 1") {
		t.Errorf("--limit 1 shows more: %v", last)
	}
	env.run(t, "rollout", "history", "billing").want(t, exitOK, "billing was never changed")
	env.run(t, "rollout", "history", "bil/ling").want(t, exitUsage, "team")
}

func TestRolloutSetSaysWhyItDidNot(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	flag := "--redis=" + redis.URL()
	run(t, "rollout", "set", "data-eng", "25", flag, "--expect", "0").want(t, exitOK, "revision 1")
	run(t, "rollout", "set", "data-eng", "50", flag, "--expect", "0").want(t, exitConflict, "data-eng")
	run(t, "rollout", "set", "data-eng", "50", flag, "--expect", "1").want(t, exitOK, "revision 2")

	changed(t, redis, rollout.Change{Team: "growth", Percent: 100, Retire: true, Actor: "lead", Source: "api"})
	run(t, "rollout", "set", "growth", "0", flag).want(t, exitRefused, "retired")
	run(t, "rollout", "status", "growth", flag).want(t, exitOK, "retired", "100%")

	for _, args := range [][]string{
		{"rollout", "set", "data-eng", "101", flag},
		{"rollout", "set", "data-eng", "-1", flag},
		{"rollout", "set", "data-eng", "1.5", flag},
		{"rollout", "set", "data-eng", "", flag},
		{"rollout", "set", "", "5", flag},
		{"rollout", "set", "a/b", "5", flag},
		{"rollout", "set", "data-eng", "5", flag, "--expect", "-2"},
		{"rollout", "set", "data-eng", "5", "--redis=nonsense"},
	} {
		run(t, args...).want(t, exitUsage)
	}
	status := run(t, "rollout", "status", "data-eng", flag, "-o", "json").want(t, exitOK)
	var rows []struct {
		Percent  int
		Revision int64
		Phase    string
	}
	if err := json.Unmarshal([]byte(status.stdout), &rows); err != nil || len(rows) != 1 {
		t.Fatalf("%v in %v", err, status)
	}
	if row := rows[0]; row.Percent != 50 || row.Revision != 2 || row.Phase != "ramp" {
		t.Errorf("after refused changes: %+v", row)
	}
}

func TestRolloutCommandsTellAStoreThatIsAway(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"rollout", "status"}, {"rollout", "set", "data-eng", "5"}, {"rollout", "history", "data-eng"},
	} {
		got := run(t, args...).want(t, exitStore, "no Redis is configured", "CROSSFADE_REDIS_URL")
		if got.stdout != "" {
			t.Errorf("talk on stdout: %v", got)
		}
		url := "redis://:hunter2@" + rollouttest.Unused(t) + "/0"
		got = run(t, append(args, "--redis", url)...).want(t, exitStore, "connection refused")
		if strings.Contains(got.stdout+got.stderr, "hunter2") {
			t.Errorf("a password shows: %v", got)
		}
	}
}

func TestARolloutOfOneProcessReachesAnother(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	run(t, "rollout", "set", "data-eng", "25", "--redis", redis.URL(), "--reason", "week 2").want(t, exitOK)
	store, err := redisstore.New(redisstore.Options{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	entries, err := store.History(context.Background(), identity.Team("data-eng"), 10)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	if e := entries[0]; e.Actor != actor() || e.Verified || e.Source != "cli" || e.Reason != "week 2" || e.To != 25 {
		t.Errorf("the history says %+v", e)
	}
}

func TestAHoldIsPlacedShownAndReleased(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	flag := "--redis=" + redis.URL()
	at := time.Now().UTC().Truncate(time.Millisecond)
	changed(
		t, redis, rollout.Change{Team: "data-eng", Percent: 10},
		rollout.Change{Team: "data-eng", Kind: rollout.KindRequest, Percent: 50, Request: &rollout.Request{
			Percent: 50, Actor: "lead", Source: "file", At: at,
		}},
	)
	run(t, "rollout", "release", "data-eng", flag).want(t, exitOK, "data-eng is not held")
	run(t, "rollout", "set", "data-eng", "25", flag).want(t, exitOK, "data-eng is at 25%", "Held, since it asks for 50%", "rollout release data-eng")
	run(t, "rollout", "status", flag).want(t, exitOK, "50%", "set to 25% by "+actor())
	run(t, "rollout", "release", "data-eng", flag, "--reason", "again").want(t, exitOK, "released at 25%. It asks for 50%")

	run(t, "rollout", "hold", "data-eng", flag, "--reason", "until Monday").want(t, exitOK, "held at 25%")
	var rows []struct {
		Requested int
		Hold      struct{ Reason, Actor string }
	}
	if err := json.Unmarshal([]byte(run(t, "rollout", "status", flag, "-o", "json").want(t, exitOK).stdout), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || rows[0].Requested != 50 || rows[0].Hold.Reason != "until Monday" || rows[0].Hold.Actor != actor() {
		t.Errorf("status: %+v", rows)
	}
	run(t, "rollout", "set", "data-eng", "80", flag).want(t, exitOK, "data-eng is at 80%")

	run(t, "rollout", "rollback", "data-eng", flag).want(t, exitUsage, "--reason")
	run(t, "rollout", "rollback", "data-eng", flag, "--reason", "aud_mismatch").want(t, exitOK, "back at 25% and held")
	run(t, "rollout", "rollback", "data-eng", flag, "--reason", "again").want(t, exitRefused, "there is no raise to roll back")
	run(t, "rollout", "rollback", "nobody", flag, "--reason", "x").want(t, exitRefused, "nobody")
	golden(t, "rollout.holds.history", timeless(run(t, "rollout", "history", "data-eng", flag).want(t, exitOK).stdout))
}

func TestBreakingTheGlassEndsByItself(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	flag := "--redis=" + redis.URL()
	changed(t, redis, rollout.Change{Team: "data-eng", Percent: 100}, rollout.Change{Team: "growth", Percent: 100, Retire: true})
	for _, args := range [][]string{
		{"--break-glass"},
		{"--break-glass", "--reason", "x", "--for", "0s"},
		{"--break-glass", "--reason", "x", "--for", "100h"},
		{"--for", "1h"},
	} {
		run(t, append([]string{"rollout", "set", "data-eng", "0", flag}, args...)...).want(t, exitUsage)
	}
	run(t, "rollout", "set", "data-eng", "0", flag, "--break-glass", "--for", "2h", "--reason", "the provider is away").
		want(t, exitOK, "data-eng is at 0%", "Held until", "It asks for nothing, so it stays at 0% then")
	run(t, "rollout", "status", flag).want(t, exitOK, "the provider is away (2h0m left)")
	run(t, "rollout", "set", "data-eng", "50", flag, "--break-glass", "--reason", "up").want(t, exitUsage, "is at 0%", "for lowering it")
	run(t, "rollout", "history", "data-eng", flag, "-o", "json").want(t, exitOK, `"revision": 2`)
	run(t, "rollout", "set", "growth", "0", flag, "--break-glass", "--reason", "the provider is away").want(t, exitRefused, "retired")
}

func TestAStatusThatIsWatchedFollowsUntilItIsInterrupted(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	changed(t, redis, rollout.Change{Team: "data-eng", Percent: 10})
	ctx, interrupt := context.WithCancel(t.Context())
	var stdout, stderr lockedBuffer
	p := with{}.program(&stdout, &stderr)
	code := make(chan int)
	go func() { code <- p.run(ctx, []string{"rollout", "status", "-w", "--redis=" + redis.URL()}) }()
	shows := func(text string) {
		t.Helper()
		eventually(t, text+" is shown", func() bool { return strings.Contains(stdout.String(), text) })
	}
	shows("10%")
	changed(t, redis, rollout.Change{Team: "data-eng", Percent: 35})
	shows("35%")
	interrupt()
	if got := <-code; got != exitOK {
		t.Errorf("interrupted: exit code %d, %s", got, stderr.String())
	}
	run(t, "rollout", "status", "-w", "-o", "json", "--redis="+redis.URL()).want(t, exitUsage, "-w")
}

func TestATeamThatNobodyKnowsIsNotChanged(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"crossfade.yaml":  "principals: principals.yaml\nroles: roles.yaml\nredis: " + redis.URL() + "\n",
		"principals.yaml": "svc-etl: { team: data-eng }\n",
		"roles.yaml":      "roles: { runner: { view: [\"*\"] } }\nteams: { groups: { analysts: analytics } }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	changed(t, redis, rollout.Change{Team: "gone", Percent: 20})
	run := func(args ...string) ran {
		return run(t, append(args, "-c", filepath.Join(dir, "crossfade.yaml"))...)
	}
	for _, args := range [][]string{{"set", "data-emg", "0"}, {"hold", "data-emg"}, {"release", "data-emg"}, {"rollback", "data-emg", "--reason", "r"}} {
		run(append([]string{"rollout"}, args...)...).want(t, exitUsage, `"data-emg" (did you mean "data-eng"?)`)
	}
	run("rollout", "set", "data-eng", "5").want(t, exitOK)
	run("rollout", "set", "analytics", "5").want(t, exitOK) // a rule names it
	run("rollout", "set", "gone", "5").want(t, exitOK)      // it was there
	got := run("rollout", "status", "-o", "json").want(t, exitOK)
	if strings.Contains(got.stdout, "data-emg") {
		t.Errorf("the team that nobody knows: %s", got.stdout)
	}
}

func TestAFileOfATeamThatOnlyARuleNamesIsPlanned(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"crossfade.yaml":           "principals: principals.yaml\nroles: roles.yaml\nredis: " + redis.URL() + "\nrollout: { dir: rollout.d }\n",
		"principals.yaml":          "svc-etl: { team: data-eng }\n",
		"roles.yaml":               "roles: { runner: { view: [\"*\"] } }\nteams: { groups: { analysts: analytics } }\n",
		"rollout.d/analytics.yaml": "percent: 0\n",
	} {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "rollout", "plan", "-c", filepath.Join(dir, "crossfade.yaml")).want(t, exitOK, "analytics")
}

func TestAStatusTellsOfWhatEndsByItself(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	flag := "--redis=" + redis.URL()
	now := time.Now().UTC().Truncate(time.Millisecond)
	window := rollout.Brownout{From: now.Add(-time.Minute), Until: now.Add(10*time.Minute + 20*time.Second), Percent: 100}
	changed(t, redis,
		rollout.Change{Team: "data-eng", Percent: 20, Request: &rollout.Request{Percent: 20, At: now, Brownouts: []rollout.Brownout{window}}},
		rollout.Change{Team: "billing", Percent: 20, Hold: &rollout.Hold{Reason: "idp away", At: now, Until: now.Add(50 * time.Second)}},
	)
	got := run(t, "rollout", "status", flag).want(t, exitOK, "20% (brownout: 100%, 10m left)")
	if !regexp.MustCompile(`idp away \((50|4\d) s left\)`).MatchString(got.stdout) {
		t.Errorf("a hold that ends within a minute: %s", got.stdout)
	}
	run(t, "rollout", "status", "data-eng", flag, "-o", "json").want(t, exitOK, `"percent": 20`, `"brownout": {`)
	run(t, "rollout", "hold", "data-eng", flag).want(t, exitOK) // which suspends it
	if got := run(t, "rollout", "status", "data-eng", flag); strings.Contains(got.stdout, "brownout") {
		t.Errorf("while it is held: %s", got.stdout)
	}
}

func TestAMistakeElsewhereInTheConfigurationKeepsNobodyFromLoweringATeam(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	changed(t, redis, rollout.Change{Team: "data-eng", Percent: 50})
	dir := t.TempDir()
	const others = "rollout: { dir: gone }\nlegacy: { htpasswd: gone }\nprincipals: principals.yaml\nnonsense: 1\n"
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("principals.yaml", "svc-etl: { team: data-eng, oidc\n")
	write("crossfade.yaml", others+"redis: "+redis.URL()+"\n")
	run := func(args ...string) ran { return run(t, append(args, "-c", filepath.Join(dir, "crossfade.yaml"))...) }
	run("rollout", "rollback", "data-eng", "--reason", "r").want(t, exitOK, "back at 0%")
	run("rollout", "set", "data-eng", "0", "--reason", "r").want(t, exitOK, "data-eng is at 0%")
	run("rollout", "status").want(t, exitOK, "data-eng")
	run("rollout", "history", "data-eng").want(t, exitOK, "50% -> 0%")
	run("rollout", "apply").want(t, exitUsage, "gone", "nonsense") // which needs all of it
	write("crossfade.yaml", others+"redis: { url: nonsense }\n")
	run("rollout", "set", "data-eng", "0").want(t, exitUsage, "redis.url", "nonsense")
	write("crossfade.yaml", "redis: ["+redis.URL())
	run("rollout", "set", "data-eng", "0").want(t, exitUsage, "crossfade.yaml")
}
