package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/config"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/rollouttest"
)

// administration is a gateway with an admin API on a Redis, of which svc-etl is an
// operator, and a file with its token.
type administration struct {
	redis       *rollouttest.Redis
	config, url string
	tokenFile   string
	gateway     *process
}

// administer starts one; admin are further members of the key admin.
func administer(t *testing.T, admin string) *administration {
	t.Helper()
	a := &administration{redis: rollouttest.StartRedis(t), tokenFile: filepath.Join(t.TempDir(), "token")}
	idp := issuer(t, 0)
	a.config = whole(t, idp.URL(), scheduler(t).URL, map[string]string{
		"redis": a.redis.URL(), "admin": "{ operators: { principals: [svc-etl] }, " + admin + " }",
	})
	if err := os.WriteFile(a.tokenFile, []byte(token(t, idp, "luigi")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.start(t)
	return a
}

// start starts the gateway.
func (a *administration) start(t *testing.T) {
	t.Helper()
	a.gateway = start(t, "serve", "--config", a.config)
	found := regexp.MustCompile(`Admin API: (https?://[^/]+)/api/v1/`)
	eventually(t, "the admin API is announced", func() bool { return found.MatchString(a.gateway.log.String()) })
	a.url = found.FindStringSubmatch(a.gateway.log.String())[1]
}

// administered is a gateway with an admin API on a Redis, and a file with the
// token of an operator.
func administered(t *testing.T) (redis *rollouttest.Redis, admin, tokenFile string, gateway *process) {
	t.Helper()
	a := administer(t, "address: 127.0.0.1:0")
	return a.redis, a.url, a.tokenFile, a.gateway
}

func TestRolloutsAreChangedOverTheAdminAPIByAProvenName(t *testing.T) {
	t.Parallel()
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
	over("set", "data-egn", "5").want(t, exitUsage, "Did you mean data-eng?")
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
	t.Parallel()
	a := administer(t, "address: 127.0.0.1:0")
	redis, admin, flag := a.redis, a.url, "--redis="+a.redis.URL()
	env := with{environ: []string{"CROSSFADE_TOKEN=" + read(t, a.tokenFile)}}
	cfg, err := config.Load(config.Source{File: a.config})
	if err != nil {
		t.Fatal(err)
	}
	hashes, long := cfg.EvidenceHashes(), time.Now().AddDate(0, 0, -40)
	changed(t, redis, rollout.Change{Team: "data-eng", Percent: 25, At: long}, rollout.Change{Team: "billing", Percent: 5, At: long}, rollout.Change{Team: "growth", Percent: 100}, rollout.Change{Team: "night", Percent: 0})
	gatheredUnder(t, redis, hashes.Of("svc-etl"), "data-eng", "svc-etl", 7, evidence.Clean, "", "LoadUsers", "ExtractOrders", "LoadOrders", "Report", "Sessions", "Invoices")
	gatheredUnder(t, redis, hashes.Of("svc-billing"), "billing", "svc-billing", 20, evidence.WouldBreak, "aud_mismatch", "ExportInvoices")
	dir := rolloutDir(t, map[string]string{
		"data-eng": "percent: 50\nreason: week 2\n", "billing": "percent: 10\n", "growth": "percent: 60\n",
	})
	eventually(t, "the gateway knows the teams", func() bool {
		return strings.Contains(env.run(t, "rollout", "status", "--admin", admin).stdout, "night")
	})
	for _, format := range []string{"table", "markdown", "json"} {
		straight := run(t, "rollout", "plan", flag, "--dir", dir, "-o", format).want(t, exitRefused)
		got := env.run(t, "rollout", "plan", "--admin", admin, "--dir", dir, "-o", format).want(t, exitRefused)
		if ages.ReplaceAllString(got.stdout, "") != ages.ReplaceAllString(straight.stdout, "") {
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

func TestARetirementIsAskedForByNoFileOverTheAdminAPI(t *testing.T) {
	t.Parallel()
	redis, admin, file, _ := administered(t)
	changed(t, redis, rollout.Change{Team: "data-eng", Percent: 100}, rollout.Change{Team: "growth", Percent: 60}, rollout.Change{Team: "night", Percent: 100, Retire: true})
	eventually(t, "the gateway knows the teams", func() bool {
		return strings.Contains(run(t, "rollout", "status", "--admin", admin, "--token-file", file).stdout, "night")
	})
	dir := rolloutDir(t, map[string]string{
		"data-eng": "percent: 100\nretired: true\n", "growth": "percent: 20\n", "night": "percent: 100\nretired: true\n",
	})
	over := func(command string) ran {
		return run(t, "rollout", command, "--admin", admin, "--token-file", file, "--dir", dir)
	}
	over("plan").want(t, exitRefused, "crossfade rollout retire data-eng --admin "+admin, "1 to lower, 1 refused")
	over("apply").want(t, exitRefused, "crossfade rollout retire data-eng --admin "+admin, "1 written, 1 waiting") // growth does not wait for it
	run(t, "rollout", "status", "growth", "--redis", redis.URL(), "-o", "json").want(t, exitOK, `"percent": 20`)
	run(t, "rollout", "history", "data-eng", "--redis", redis.URL(), "-o", "json").want(t, exitOK, `"revision": 1`)
	if err := os.Remove(filepath.Join(dir, "data-eng.yaml")); err != nil {
		t.Fatal(err)
	}
	over("apply").want(t, exitOK, "0 written, 0 waiting") // a team that is retired is in nobody's way
}

func TestATeamIsRetiredOverTheAdminAPIInTheSameWords(t *testing.T) {
	t.Parallel()
	a := administer(t, "address: 127.0.0.1:0")
	both := func(args ...string) []ran {
		return []ran{
			run(t, append([]string{"rollout", "retire", "data-eng", "-c", a.config}, args...)...),
			run(t, append([]string{"rollout", "retire", "data-eng", "--admin", a.url, "--token-file", a.tokenFile}, args...)...),
		}
	}
	alike := func(code int, said string, args ...string) {
		t.Helper()
		var got []ran
		eventually(t, "the gateway knows what Redis does", func() bool {
			got = both(args...)
			return got[0] == got[1]
		})
		got[0].want(t, code, said)
	}
	changed(t, a.redis, rollout.Change{Team: "data-eng", Percent: 100, At: time.Now().Add(-15 * 24 * time.Hour)})
	uses(t, a.redis, "data-eng", map[string]time.Duration{"svc-etl": 40 * 24 * time.Hour})
	run(t, "rollout", "hold", "data-eng", "--reason", "until Monday", "--admin", a.url, "--token-file", a.tokenFile).want(t, exitOK)
	alike(exitRefused, "data-eng is not retired: it is held: until Monday")
	alike(exitRefused, "data-eng is not retired: it is held: until Monday", "--dry-run")
	uses(t, a.redis, "data-eng", map[string]time.Duration{"svc-etl": 9 * 24 * time.Hour})
	alike(exitRefused, "data-eng is not retired: no password for 9 of 14 days: svc-etl was the last to use one; it is held: until Monday", "--dry-run")
	a.redis.Do(t, "DEL", "crossfade:{data-eng}:accounts")
	uses(t, a.redis, "data-eng", map[string]time.Duration{"svc-etl": 40 * 24 * time.Hour})
	run(t, "rollout", "release", "data-eng", "--admin", a.url, "--token-file", a.tokenFile).want(t, exitOK)
	alike(exitOK, "data-eng may be retired: no password for 14 days. 1 static credential would end with it.", "--dry-run")
	run(t, "rollout", "retire", "data-eng", "--admin", a.url, "--token-file", a.tokenFile, "--reason", "nobody needs it").
		want(t, exitOK, "data-eng is retired (revision 4). 1 static credential is refused for good.")
	alike(exitOK, "data-eng is retired (revision 4). 1 static credential is refused for good.")
	alike(exitOK, "data-eng is retired already.", "--dry-run")
	alike(exitOK, `"phase": "retired"`, "-o", "json")
	got := run(t, "rollout", "history", "data-eng", "--redis", a.redis.URL(), "--limit", "1").want(t, exitOK, "retire", "svc-etl", "api", "nobody needs it")
	if strings.Contains(got.stdout, "unverified") {
		t.Errorf("who did it is not proven: %v", got)
	}
	run(t, "rollout", "retire", "nobody", "--admin", a.url, "--token-file", a.tokenFile).want(t, exitUsage, "team_unknown")
}

func TestWhatRedisHasLostIsPutBackOverTheAdminAPI(t *testing.T) {
	t.Parallel()
	a := administer(t, "address: 127.0.0.1:0")
	over := func(args ...string) ran {
		return run(t, append([]string{"rollout", "restore", "--admin", a.url, "--token-file", a.tokenFile}, args...)...)
	}
	run(t, "rollout", "set", "data-eng", "60", "--admin", a.url, "--token-file", a.tokenFile).want(t, exitOK)
	over().want(t, exitOK, "0 teams put back")
	over("--file", "rollout.json").want(t, exitUsage, "straight to Redis")
	a.redis.Do(t, "FLUSHALL")
	run(t, "rollout", "set", "data-eng", "70", "--admin", a.url, "--token-file", a.tokenFile).want(t, exitStore, "store_regressed")
	// Nor does a command say straight to Redis that the gateway follows, or that a team
	// is at 0%.
	eventually(t, "the gateway says that its store is not what it was", func() bool {
		return run(t, "rollout", "status", "--redis", a.redis.URL()).code == exitStore
	})
	run(t, "rollout", "status", "--redis", a.redis.URL()).want(t, exitStore, "store_regressed", "goes on by what it knew", "rollout restore")
	for _, args := range [][]string{{"set", "data-eng", "70"}, {"hold", "data-eng"}, {"apply", "--dir", t.TempDir()}, {"plan", "--dir", t.TempDir()}} {
		run(t, append([]string{"rollout", "--redis", a.redis.URL()}, args...)...).want(t, exitStore, "store_regressed")
	}
	run(t, "rollout", "history", "data-eng", "--redis", a.redis.URL()).want(t, exitOK, "never changed")
	run(t, "rollout", "status", "--admin", a.url, "--token-file", a.tokenFile).want(t, exitStore, "60%", "store_regressed")
	over("--dry-run").want(t, exitOK, "data-eng  0%   60% ramp", "1 team would be put back. Nothing was changed.")
	over("-o", "json", "--reason", "the disk was lost").want(t, exitOK, `"data-eng"`, `"percent": 60`, `"revision": 2`)
	run(t, "rollout", "history", "data-eng", "--redis", a.redis.URL()).want(t, exitOK, "0% -> 60% (restore)", "svc-etl", "the disk was lost")
	run(t, "rollout", "set", "data-eng", "70", "--admin", a.url, "--token-file", a.tokenFile).want(t, exitOK, "revision 3")
	eventually(t, "the gateway says that all is well", func() bool {
		return run(t, "rollout", "status", "--redis", a.redis.URL()).code == exitOK
	})
}

func TestTheAdminAPIIsAskedOnlyRightly(t *testing.T) {
	t.Parallel()
	_, admin, file, gateway := administered(t)
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("hunter2.hunter2.hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
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
		{"a bad token", []string{"CROSSFADE_TOKEN=hunter2.hunter2.hunter2"}, []string{"--admin", admin}, exitFailure, "malformed_jwt: the token of $CROSSFADE_TOKEN is refused"},
		{"a bad token of a file", nil, []string{"--admin", admin, "--token-file", bad}, exitFailure, "the token of " + bad + " is refused"},
		{"an authority without TLS", nil, []string{"--admin", admin, "--token-file", file, "--admin-ca", file}, exitUsage, "https://"},
		{"an authority without an API", nil, []string{"--admin-ca", file}, exitUsage, "--admin URL"},
		{"an authority that is none", nil, []string{"--admin", strings.Replace(admin, "http:", "https:", 1), "--token-file", file, "--admin-ca", file}, exitUsage, "no PEM certificate"},
		{"TLS where there is none", nil, []string{"--admin", strings.Replace(admin, "http:", "https:", 1), "--token-file", file}, exitStore, "does not speak TLS"},
		{"a host that nobody knows", nil, []string{"--admin", "https://nowhere.invalid", "--token-file", file}, exitStore, "the host of --admin is not known"},
		{"a good token in the environment", []string{"CROSSFADE_TOKEN=" + read(t, file)}, []string{"--admin", admin}, exitOK, ""},
		{"the file before the environment", []string{"CROSSFADE_TOKEN=hunter2"}, []string{"--admin", admin + "/", "--token-file", file}, exitOK, ""},
		{"the agent's variable", []string{"CROSSFADE_TOKEN_FILE=" + file}, []string{"--admin", admin + "/api/v1/"}, exitOK, ""},
		{"nobody there", nil, []string{"--admin", "http://" + rollouttest.Unused(t), "--token-file", file}, exitStore, "is admin.address set in its configuration?"},
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
	t.Parallel()
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
	t.Parallel()
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

func TestATokenThatEndsIsReplacedByWhatItsSourceHasNow(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
	write("first")
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Authorization"))
		if asked[len(asked)-1] != "Bearer second" {
			write("second")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"reason":"expired","message":"It has expired.","do":"Send another."}`)
			return
		}
		_, _ = io.WriteString(w, `{"changes":[]}`)
	}))
	defer server.Close()
	run(t, "rollout", "history", "data-eng", "--admin", server.URL, "--token-file", file).want(t, exitOK, "never changed")
	if len(asked) != 2 {
		t.Errorf("asked with %q", asked)
	}
	asked = nil
	env := with{environ: []string{"CROSSFADE_TOKEN=first"}}
	got := env.run(t, "rollout", "history", "data-eng", "--admin", server.URL).want(t, exitFailure, "expired: the token of $CROSSFADE_TOKEN is refused: It has expired.", "To get another")
	if len(asked) != 1 || strings.Contains(got.stderr, "first") {
		t.Errorf("asked with %q: %v", asked, got)
	}
}

func TestWhatStandsInFrontAndOlderGatewaysAreToldApart(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		body   string
		code   int
		said   string
	}{
		"a proxy that misses the gateway": {http.StatusBadGateway, "<html>", exitStore, "look at what stands in front of it"},
		"a page that is no API":           {http.StatusOK, "<html>", exitFailure, "no admin API of Crossfade"},
		"an API that does not know it":    {http.StatusNotFound, `{"reason":"route_unknown","message":"There is nothing here.","do":"x"}`, exitUsage, "of an older version than this command"},
		"keys that cannot be had":         {http.StatusServiceUnavailable, `{"reason":"jwks_unavailable","message":"m","do":"Try again in a moment."}`, exitStore, "Try again in a moment."},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.status)
			_, _ = io.WriteString(w, tt.body)
		}))
		env := with{environ: []string{"CROSSFADE_TOKEN=x"}}
		got := env.run(t, "rollout", "retire", "data-eng", "--dry-run", "--admin", server.URL)
		if got.code != tt.code || !strings.Contains(got.stderr, tt.said) {
			t.Errorf("%s: %v, want exit code %d and %q", name, got, tt.code, tt.said)
		}
		server.Close()
	}
}

func TestAWatchedStatusSurvivesARestartOfItsGateway(t *testing.T) {
	t.Parallel()
	a := administer(t, "address: "+rollouttest.Unused(t))
	changed(t, a.redis, rollout.Change{Team: "data-eng", Percent: 10})
	args := []string{"rollout", "status", "-w", "--admin", a.url, "--token-file", a.tokenFile}
	watched(t, args, func(shows func(string), says func(...string)) {
		shows("10%")
		says("live: 1 gateway, seen")
		a.gateway.signal(t, os.Interrupt)
		if code := a.gateway.code(); code != exitOK {
			t.Fatalf("the gateway ends with %d", code)
		}
		says("what is shown is of ", " s ago: nothing listens at ")
		changed(t, a.redis, rollout.Change{Team: "data-eng", Percent: 35})
		a.start(t)
		shows("35%")
	})
}

func TestAWatchedStatusGoesOnWhenItsTokenIsReplaced(t *testing.T) {
	t.Parallel()
	a := administer(t, "address: "+rollouttest.Unused(t))
	oneTime := func() {
		t.Helper()
		found := regexp.MustCompile(`: ([A-Z2-7]{26})\n`).FindStringSubmatch(a.gateway.log.String())
		if len(found) != 2 {
			t.Fatalf("no token in %s", a.gateway.log)
		}
		if err := os.WriteFile(a.tokenFile, []byte(found[1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	oneTime()
	changed(t, a.redis, rollout.Change{Team: "data-eng", Percent: 10})
	args := []string{"rollout", "status", "-w", "--admin", a.url, "--token-file", a.tokenFile}
	watched(t, args, func(shows func(string), says func(...string)) {
		shows("10%")
		a.gateway.signal(t, os.Interrupt)
		_ = a.gateway.code()
		a.start(t)
		says("what is shown is of ", "the token of "+a.tokenFile+" is refused", "write a new one into the file")
		changed(t, a.redis, rollout.Change{Team: "data-eng", Percent: 35})
		oneTime()
		shows("35%")
	})
	// What is refused from the start is nothing to watch by.
	if err := os.WriteFile(a.tokenFile, []byte("hunter2.hunter2.hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, args...).want(t, exitFailure, "malformed_jwt")
}

func TestAWatchedStatusSurvivesARestartOfRedis(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	changed(t, redis, rollout.Change{Team: "data-eng", Percent: 10})
	watched(t, []string{"rollout", "status", "-w", "--redis=" + redis.URL()}, func(shows func(string), says func(...string)) {
		shows("10%")
		redis.Stop()
		says("what is shown is of ", "connection refused")
		redis.Start(t)
		changed(t, redis, rollout.Change{Team: "data-eng", Percent: 35})
		shows("35%")
	})
}

func TestAWatchedStatusBeginsBeforeItsGateway(t *testing.T) {
	t.Parallel()
	env := "http://" + rollouttest.Unused(t)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	watched(t, []string{"rollout", "status", "-w", "--admin", env, "--token-file", file}, func(_ func(string), says func(...string)) {
		says("nothing is shown yet: nothing listens at ")
	})
}

// watched runs a command that watches, until use has seen enough, and interrupts
// it then. says waits for one line on stderr with all that is named.
func watched(t *testing.T, args []string, use func(shows func(string), says func(...string))) {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var stdout, stderr lockedBuffer
	p := with{}.program(&stdout, &stderr)
	code := make(chan int, 1)
	go func() { code <- p.run(ctx, args) }()
	use(func(text string) {
		t.Helper()
		eventually(t, text+" is shown", func() bool { return strings.Contains(stdout.String(), text) })
	}, func(all ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%q is said", all), func() bool {
			for line := range strings.Lines(stderr.String()) {
				if !slices.ContainsFunc(all, func(text string) bool { return !strings.Contains(line, text) }) {
					return true
				}
			}
			return false
		})
	})
	interrupt()
	if got := <-code; got != exitOK {
		t.Errorf("interrupted: exit code %d, %s", got, stderr.String())
	}
	if n := strings.Count(stderr.String(), "context canceled"); n > 0 {
		t.Errorf("the interrupt is told of: %s", stderr.String())
	}
}
