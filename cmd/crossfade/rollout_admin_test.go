package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/rollouttest"
)

// administered is a gateway with an admin API on a Redis, and a file with the
// token of an operator.
func administered(t *testing.T) (redis *rollouttest.Redis, admin, tokenFile string, gateway *process) {
	t.Helper()
	redis = rollouttest.StartRedis(t)
	idp := issuer(t, 0)
	gateway = start(t, "serve", "--config", whole(t, idp.URL(), scheduler(t).URL, map[string]string{
		"redis": redis.URL(), "admin": "{ address: 127.0.0.1:0, operators: { principals: [svc-etl] } }",
	}))
	found := regexp.MustCompile(`Admin API: (http://[^/]+)/api/v1/`)
	eventually(t, "the admin API is announced", func() bool { return found.MatchString(gateway.log.String()) })
	tokenFile = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(token(t, idp, "luigi")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return redis, found.FindStringSubmatch(gateway.log.String())[1], tokenFile, gateway
}

func TestRolloutsAreChangedOverTheAdminAPIByAProvenName(t *testing.T) {
	redis, admin, file, _ := administered(t)
	flag, by := "--redis="+redis.URL(), []string{"--admin", admin, "--token-file", file}
	over := func(args ...string) ran { return run(t, append(append([]string{"rollout"}, args...), by...)...) }
	over("status").want(t, exitOK, "every team is at 0%")
	over("history", "data-eng").want(t, exitOK, "data-eng was never changed")

	over("set", "data-eng", "25", "--reason", "week 1", "--expect", "0").want(t, exitOK, "data-eng is at 25% (revision 1). Gateways follow within seconds.")
	over("set", "data-eng", "50", "--expect", "0").want(t, exitConflict, "changed meanwhile", "revision 1")
	over("set", "data-eng", "50").want(t, exitOK, "revision 2")
	over("rollback", "data-eng", "--reason", "aud_mismatch").want(t, exitOK, "back at 25% and held")
	over("rollback", "data-eng", "--reason", "again").want(t, exitRefused, "nothing_to_roll_back")
	over("release", "data-eng", "--reason", "fixed & well").want(t, exitOK, "released at 25%")
	over("release", "data-eng").want(t, exitOK, "data-eng is not held")
	over("hold", "data-eng", "--reason", "until Monday").want(t, exitOK, "held at 25%")
	over("set", "data-eng", "0", "--break-glass", "--for", "2h", "--reason", "the provider is away").want(t, exitOK, "data-eng is at 0%", "held before")
	over("set", "nobody", "5").want(t, exitUsage, "team_unknown")
	over("set", "data-eng", "101").want(t, exitUsage)

	golden(t, "rollout.admin.history", timeless(over("history", "data-eng").want(t, exitOK).stdout))
	// What is shown is the same as straight from Redis.
	for _, args := range [][]string{
		{"status", "-o", "json"}, {"status", "-o", "yaml"}, {"status", "data-eng"}, {"history", "data-eng", "-o", "json"}, {"history", "data-eng", "--limit", "2", "-o", "markdown"},
	} {
		straight := run(t, append([]string{"rollout", args[0], flag}, args[1:]...)...).want(t, exitOK)
		if got := over(args...).want(t, exitOK); ages.ReplaceAllString(got.stdout, "") != ages.ReplaceAllString(straight.stdout, "") {
			t.Errorf("%v over the API:\n%s\nstraight:\n%s", args, got.stdout, straight.stdout)
		}
	}
}

func TestAPlanOverTheAdminAPIIsThatOfRedisAndApplyNamesWhoAsked(t *testing.T) {
	redis, admin, file, _ := administered(t)
	flag := "--redis=" + redis.URL()
	env := with{environ: []string{"CROSSFADE_TOKEN=" + read(t, file)}}
	changed(t, redis, rollout.Change{Team: "data-eng", Percent: 25}, rollout.Change{Team: "billing", Percent: 5}, rollout.Change{Team: "growth", Percent: 100}, rollout.Change{Team: "night", Percent: 0})
	gathered(t, redis, "data-eng", "svc-etl", 7, evidence.Clean, "", "LoadUsers", "ExtractOrders", "LoadOrders", "Report", "Sessions", "Invoices")
	gathered(t, redis, "billing", "svc-billing", 20, evidence.WouldBreak, "aud_mismatch", "ExportInvoices")
	dir := rolloutDir(t, map[string]string{
		"data-eng": "percent: 50\nreason: week 2\n", "billing": "percent: 10\n", "growth": "percent: 60\n",
	})
	eventually(t, "the gateway knows the teams", func() bool {
		return strings.Contains(env.run(t, "rollout", "status", "--admin", admin).stdout, "night")
	})
	for _, format := range []string{"table", "markdown", "json"} {
		straight := run(t, "rollout", "plan", flag, "--dir", dir, "-o", format).want(t, exitRefused)
		// Which gateways are live is told by Redis only.
		plain := regexp.MustCompile(` {5}live: .*`).ReplaceAllString(straight.stdout, "")
		if got := env.run(t, "rollout", "plan", "--admin", admin, "--dir", dir, "-o", format).want(t, exitRefused); got.stdout != plain {
			t.Errorf("over the API:\n%s\nstraight:\n%s", got.stdout, straight.stdout)
		}
	}
	env.run(t, "rollout", "apply", "--admin", admin, "--dir", dir, "--reason", "PR 812").want(t, exitRefused, "3 written, 1 waiting")
	env.run(t, "rollout", "apply", "--admin", admin, "--dir", dir).want(t, exitRefused, "0 written, 1 waiting")
	got := run(t, "rollout", "history", "data-eng", flag, "--limit", "1").want(t, exitOK, "25% -> 50% (request)", "svc-etl", "PR 812", "api")
	if strings.Contains(got.stdout, "unverified") {
		t.Errorf("who asked is not proven: %v", got)
	}
	run(t, "rollout", "status", "growth", flag).want(t, exitOK, "60%")

	if err := os.WriteFile(filepath.Join(dir, "stranger.yaml"), []byte("percent: 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env.run(t, "rollout", "plan", "--admin", admin, "--dir", dir).want(t, exitUsage, "team_unknown", "stranger")
}

func TestARetirementIsNotAskedForOverTheAdminAPI(t *testing.T) {
	redis, admin, file, _ := administered(t)
	changed(t, redis, rollout.Change{Team: "data-eng", Percent: 100})
	dir := rolloutDir(t, map[string]string{"data-eng": "percent: 100\nretired: true\n"})
	for _, args := range [][]string{{"apply", "--dir", dir}, {"plan", "--dir", dir}, {"retire", "data-eng"}} {
		got := run(t, append([]string{"rollout", args[0], "--admin", admin, "--token-file", file}, args[1:]...)...)
		got.want(t, exitUsage, "straight to Redis")
	}
	run(t, "rollout", "history", "data-eng", "--redis", redis.URL(), "-o", "json").want(t, exitOK, `"revision": 1`)
}

func TestTheAdminAPIIsAskedOnlyRightly(t *testing.T) {
	_, admin, file, gateway := administered(t)
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		code int
		said string
	}{
		{"no token", nil, []string{"--admin", admin}, exitUsage, "--token-file"},
		{"a file that is not there", nil, []string{"--admin", admin, "--token-file", file + "x"}, exitFailure, "does not exist"},
		{"no URL", nil, []string{"--admin", "localhost:8081", "--token-file", file}, exitUsage, "--admin"},
		{"a URL with a user", nil, []string{"--admin", "http://a:b@localhost:8081", "--token-file", file}, exitUsage, "--admin"},
		{"two ways at once", nil, []string{"--admin", admin, "--token-file", file, "--redis", "redis://127.0.0.1:1"}, exitUsage, "leave one out"},
		{"a token without an API", nil, []string{"--token-file", file}, exitUsage, "--admin"},
		{"a bad token", []string{"CROSSFADE_TOKEN=hunter2.hunter2.hunter2"}, []string{"--admin", admin}, exitFailure, "malformed_jwt"},
		{"a good token in the environment", []string{"CROSSFADE_TOKEN=" + read(t, file)}, []string{"--admin", admin}, exitOK, ""},
		{"the file before the environment", []string{"CROSSFADE_TOKEN=hunter2"}, []string{"--admin", admin + "/", "--token-file", file}, exitOK, ""},
		{"the agent's variable", []string{"CROSSFADE_TOKEN_FILE=" + file}, []string{"--admin", admin + "/api/v1/"}, exitOK, ""},
		{"nobody there", nil, []string{"--admin", "http://" + strings.TrimPrefix(unused(t), "redis://"), "--token-file", file}, exitStore, "cannot be reached"},
		{"another listener", nil, []string{"--admin", "http://" + gateway.address, "--token-file", file}, exitFailure, "name its admin listener"},
	} {
		got := with{environ: tt.env}.run(t, append([]string{"rollout", "status"}, tt.args...)...)
		if got.code != tt.code || !strings.Contains(got.stderr, tt.said) {
			t.Errorf("%s: %v, want exit code %d and %q", tt.name, got, tt.code, tt.said)
		}
		if strings.Contains(got.stdout+got.stderr, "hunter2") {
			t.Errorf("%s: a token shows: %v", tt.name, got)
		}
	}
}

func TestATokenFollowsNoRedirect(t *testing.T) {
	_, _, file, _ := administered(t)
	elsewhere := make(chan string, 1)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { elsewhere <- r.Header.Get("Authorization") }))
	t.Cleanup(other.Close)
	first := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	t.Cleanup(first.Close)
	run(t, "rollout", "set", "data-eng", "5", "--admin", first.URL, "--token-file", file).want(t, exitFailure, "307")
	select {
	case got := <-elsewhere:
		t.Errorf("another address was asked with %q", got)
	default:
	}
}

func TestTheOneTimeTokenIsGoodForACommandOnThisMachine(t *testing.T) {
	_, admin, _, gateway := administered(t)
	found := regexp.MustCompile(`: ([A-Z2-7]{26})\n`).FindStringSubmatch(gateway.log.String())
	if len(found) != 2 {
		t.Fatalf("no token in %s", gateway.log)
	}
	env := with{environ: []string{"CROSSFADE_TOKEN=" + found[1]}}
	got := env.run(t, "rollout", "hold", "data-eng", "--admin", admin, "-o", "json").want(t, exitOK)
	var row struct{ Hold struct{ Actor string } }
	if err := json.Unmarshal([]byte(got.stdout), &row); err != nil || row.Hold.Actor != "one-time token" {
		t.Errorf("%v: %v", err, got)
	}
	env.run(t, "rollout", "history", "data-eng", "--admin", admin).want(t, exitOK, "one-time token (unverified)")
}
