package main

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// uses records when accounts of a team that is watched for long used a static
// credential.
func uses(t *testing.T, redis *rollouttest.Redis, team identity.Team, ago map[string]time.Duration) {
	t.Helper()
	store, err := redisstore.New(redisstore.Options{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	accounts := make(map[string]evidence.Use)
	for account, d := range ago {
		accounts[account] = evidence.Use{Legacy: time.Now().Add(-d)}
	}
	past := time.Now().AddDate(0, 0, -90)
	if err := store.Record(t.Context(), evidence.Batch{Replica: rand.Text(), Seq: 1, Teams: map[identity.Team]*evidence.TeamBatch{
		team: {Accounts: accounts, Since: past},
	}}); err != nil {
		t.Fatal(err)
	}
}

func TestATeamIsRetiredByCommandWhenItNeedsNoPassword(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	dir := t.TempDir()
	passwords, err := demo.Htpasswd(demo.Accounts())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"crossfade.yaml": "legacy: { htpasswd: h }\nprincipals: p.yaml\nredis: " + redis.URL() + "\n",
		"h":              string(passwords),
		"p.yaml":         "svc-billing: { team: growth }\nsvc-etl: { team: quiet }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := []string{"-c", filepath.Join(dir, "crossfade.yaml"), "rollout"}
	crossfade := func(args ...string) ran { return run(t, append(append([]string{}, config...), args...)...) }
	long := time.Now().Add(-15 * 24 * time.Hour)
	changed(t, redis, rollout.Change{Team: "growth", Percent: 100, At: long}, rollout.Change{Team: "data-eng", Percent: 50})

	crossfade("retire", "data-eng").want(t, exitRefused, "data-eng is not retired", "50%")
	uses(t, redis, "growth", map[string]time.Duration{"svc-billing": 9 * 24 * time.Hour})
	crossfade("retire", "growth").want(t, exitRefused, "no password for 9 of 14 days", "svc-billing")
	changed(t, redis, rollout.Change{Team: "quiet", Percent: 100, At: long})
	crossfade("retire", "quiet").want(t, exitRefused, "never seen, so remove or explain them: svc-etl")
	uses(t, redis, "quiet", map[string]time.Duration{"svc-etl": 40 * 24 * time.Hour})
	crossfade("retire", "quiet", "--dry-run").want(t, exitOK, "quiet may be retired", "1 static credential would")
	run(t, "rollout", "status", "quiet", "--redis="+redis.URL()).want(t, exitOK, "enforced")
	crossfade("retire", "quiet", "--reason", "nobody needs it").want(t, exitOK, "quiet is retired (revision 2)", "1 static credential is")
	crossfade("retire", "quiet").want(t, exitOK, "quiet is retired (revision 2)")
	crossfade("set", "quiet", "0").want(t, exitRefused, "retired")
	crossfade("history", "quiet").want(t, exitOK, "retire", "nobody needs it")
}

func TestRestorePutsBackWhatAGatewayKnew(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	flag := "--redis=" + redis.URL()
	changed(t, redis, rollout.Change{Team: "data-eng", Percent: 10})
	known := map[string]any{"store_id": "the one before", "at": time.Now(), "teams": []rollout.State{
		{Team: "data-eng", Percent: 60, Revision: 5, UpdatedAt: time.Now()},
		{Team: "growth", Percent: 100, Revision: 3, Retired: true, UpdatedAt: time.Now()},
	}}
	text, err := json.Marshal(known)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rollout.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "rollout", "restore", flag).want(t, exitUsage, "--file")
	run(t, "rollout", "restore", flag, "--file", filepath.Join(t.TempDir(), "no.json")).want(t, exitUsage, "does not exist")
	run(t, "rollout", "restore", flag, "--file", file, "--dry-run").want(t, exitOK, "data-eng", "60% ramp", "2 teams would be put back")
	run(t, "rollout", "status", flag).want(t, exitOK, "10%")
	var rows []map[string]any
	dry := run(t, "rollout", "restore", flag, "--file", file, "--dry-run", "-o", "json").want(t, exitOK)
	if err := json.Unmarshal([]byte(dry.stdout), &rows); err != nil || len(rows) != 2 {
		t.Fatalf("%v: %v", err, dry)
	}
	want := map[string]any{"team": "data-eng", "had": 10.0, "had_revision": 1.0, "percent": 60.0, "phase": "ramp", "revision": 6.0}
	if !maps.Equal(rows[0], want) || rows[1]["phase"] != "retired" || rows[1]["revision"] != 4.0 {
		t.Errorf("what would be put back: %v, want %v first", rows, want)
	}
	run(t, "rollout", "restore", flag, "--file", file, "--reason", "the disk was lost").want(t, exitOK, "growth", "100% retired", "2 teams put back")
	run(t, "rollout", "status", flag).want(t, exitOK, "60%", "retired")
	run(t, "rollout", "history", "data-eng", flag).want(t, exitOK, "10% -> 60% (restore)", "the disk was lost")
	run(t, "rollout", "restore", flag, "--file", file).want(t, exitOK, "0 teams put back")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "rollout", "restore", flag, "--file", file).want(t, exitUsage, "damaged")
}
