package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crossfade/cmd/crossfade/app"
	"crossfade/cmd/crossfade/demo"
	"crossfade/rollout/rollouttest"
)

// tenMistakes is what somebody might write on a bad day.
const tenMistakes = `mod: enforce
listen: "8082"
metrics: { addresss: ":9091" }
upstream: { url: 127.0.0.1:8083, profile: luigy }
legacy: { htpasswd: nowhere.htpasswd, cache: 30 }
oidc: { issuer: http://acme.okta.com/oauth2/luigi, audience: luigi }
redis: { url: "http://user:hunter2@localhost:6379/0" }
drain: 2h
`

func TestCheckNamesEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{"crossfade.yaml": tenMistakes})
	file := filepath.Join(dir, "crossfade.yaml")
	for _, format := range []string{"table", "json", "github", "yaml"} {
		t.Run(format, func(t *testing.T) {
			got := run(t, "check", file, "-o", format).want(t, exitUsage)
			if got.stderr != "" {
				t.Errorf("stderr: %s", got.stderr)
			}
			if strings.Contains(got.stdout, "hunter2") {
				t.Error("a password shows")
			}
			// On another machine the directory has another name.
			golden(t, "check.ten."+format, strings.ReplaceAll(got.stdout, dir, "DIR"))
		})
	}
	text := run(t, "check", file)
	if n := strings.Count(text.stdout, file+":"); n != 10 {
		t.Errorf("%d lines for ten mistakes:\n%s", n, text.stdout)
	}
	serve := run(t, "serve", "--config", file).want(t, exitUsage)
	if n := strings.Count(serve.stderr, file+":"); n != 10 {
		t.Errorf("serve says %d of ten mistakes:\n%s", n, serve.stderr)
	}
}

func TestCheckReadsTheFilesOfCredentialsToo(t *testing.T) {
	t.Parallel()
	file := whole(t, "https://idp.example", "http://127.0.0.1:1", nil)
	dir := filepath.Dir(file)
	if err := os.WriteFile(filepath.Join(dir, "users.htpasswd"), []byte("a:b\nc:d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := run(t, "check", file).want(t, exitUsage, "users.htpasswd:1", "users.htpasswd:2", "2 mistakes")
	if strings.Contains(got.stdout, "a:b") {
		t.Error("a password shows")
	}
	run(t, "check", file, "-o", "github").want(t, exitUsage, "::error file="+filepath.Join(dir, "users.htpasswd")+",line=2::")
	run(t, "serve", "--config", file).want(t, exitUsage, "users.htpasswd:1", "users.htpasswd:2")
}

func TestCheckFindsWhatWouldKeepServeFromStarting(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ key, value, said string }{
		"an authority for Redis that is none": {"redis", "{ url: rediss://127.0.0.1:1/0, ca_file: users.htpasswd }", "redis.ca_file"},
		"an authority for an issuer":          {"oidc", "{ issuer: https://idp.example, audience: luigi, ca_file: users.htpasswd }", "PEM"},
		"a waiver for a reason that is none":  {"readiness", "{ waivers: { team: data-eng, account: a, reason: rolemissing, owner: b, why: c, until: 2027-03-31 } }", `readiness.waivers[0].reason: is "rolemissing", which is no reason that a verdict can have (did you mean "role_missing"?)`},
		"a certificate that is none":          {"listen", "{ address: 127.0.0.1:0, tls: { cert: users.htpasswd, key: users.htpasswd } }", "listen.tls"},
	} {
		t.Run(name, func(t *testing.T) {
			file := whole(t, "https://idp.example", "http://127.0.0.1:1", map[string]string{tc.key: tc.value})
			run(t, "check", file).want(t, exitUsage, tc.said, "1 mistake")
			run(t, "serve", "--config", file).want(t, exitUsage, tc.said)
		})
	}
}

func TestCheckSaysWhoMayAskWhereThereIsNoUpstream(t *testing.T) {
	file := whole(t, "https://idp.example", "http://127.0.0.1:1", map[string]string{
		"listen": "{ address: 127.0.0.1:0, trusted_proxies: [127.0.0.1, 10.0.0.0/8], forward_auth: /auth }", "upstream": "{ profile: http }",
	})
	run(t, "check", file).want(t, exitOK, "profile http", "upstream none",
		"proxies at 127.0.0.1/32 10.0.0.0/8 may ask at /auth about requests that they forward themselves")
	report := run(t, "check", file, "--connect").want(t, exitFailure, "idp.example") // which is away
	if strings.Contains(report.stdout, "HEAD /") {
		t.Errorf("an upstream was tried:\n%s", report.stdout)
	}
}

func TestCheckSaysWhatIsThereAndWhatIsDoubtful(t *testing.T) {
	t.Parallel()
	file := whole(t, "https://idp.example", "http://127.0.0.1:1", nil)
	got := run(t, "check", "--config", file).want(t, exitOK,
		"OK. The configuration is valid.", "mode enforce, profile luigi", "legacy: 5 users", "principals: 1 in 1 teams",
		"Worth a look:", "forgotten on exit", "4 mapped to nobody")
	if got.stderr != "" {
		t.Errorf("stderr: %s", got.stderr)
	}
	var report checkReport
	if err := json.Unmarshal([]byte(run(t, "check", file, "-o", "json").stdout), &report); err != nil {
		t.Fatal(err)
	}
	if !report.OK || report.File != file || len(report.Mistakes) != 0 || len(report.Warnings) == 0 || len(report.Summary) == 0 || report.Connections != nil {
		t.Errorf("%+v", report)
	}
	run(t, "check", file, "-o", "github").want(t, exitOK, "::warning file="+file)
}

func TestCheckFindsTheFileAndMergesTheEnvironmentAndFlags(t *testing.T) {
	file := whole(t, "https://idp.example", "http://127.0.0.1:1", nil)
	t.Chdir(filepath.Dir(file))
	run(t, "check").want(t, exitOK, "mode enforce")
	env := with{environ: []string{"CROSSFADE_MODE=observe"}}
	env.run(t, "check").want(t, exitOK, "mode observe")
	env.run(t, "check", "--mode", "enforce").want(t, exitOK, "mode enforce")
	with{environ: []string{"CROSSFADE_MOOD=observe"}}.run(t, "check").want(t, exitUsage, "CROSSFADE_MOOD", "CROSSFADE_MODE")
}

// scheduler starts the stand-in.
func scheduler(t *testing.T) *httptest.Server {
	t.Helper()
	handler, err := demo.NewScheduler()
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

func TestCheckConnectTriesEverythingThatIsNamed(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	idp := issuer(t, 0)
	upstream := scheduler(t)
	file := whole(t, idp.URL(), upstream.URL, map[string]string{"redis": redis.URL()})
	got := run(t, "check", file, "--connect").want(t, exitOK,
		"OK. The configuration is valid.",
		"ok    redis", "answers; 0 teams have a percentage",
		"ok    issuer", "preset generic, keys at "+idp.URL()+"/keys: RSA 2048 demo-1",
		"ok    upstream", "answers HEAD / with 204 No Content")
	if got.stderr != "" || strings.Contains(got.stdout, "goes around") || strings.Contains(got.stdout, "(0s)") {
		t.Errorf("%v", got)
	}

	redis.Stop()
	_ = idp.Close()
	upstream.Close()
	run(t, "check", file).want(t, exitOK)
	run(t, "check", file, "--connect").want(t, exitFailure,
		"NO. The configuration is valid, but something it names cannot be reached.",
		"FAIL  redis", "FAIL  issuer", "FAIL  upstream", "connection refused")
	got = run(t, "check", file, "--connect", "-o", "json").want(t, exitFailure)
	var report struct {
		OK          bool
		Connections []app.Connection
	}
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if report.OK || len(report.Connections) != 3 {
		t.Fatalf("%+v", report)
	}
	for _, c := range report.Connections {
		if c.Err == "" || c.Seen != "" {
			t.Errorf("%s: %+v", c.Kind, c)
		}
	}
	annotated := run(t, "check", file, "--connect", "-o", "github").want(t, exitFailure)
	if n := strings.Count(annotated.stdout, "::error::"); n != 3 {
		t.Errorf("%d of 3 errors:\n%s", n, annotated.stdout)
	}
}

func TestCheckConnectWarnsOfAWayAroundTheGateway(t *testing.T) {
	t.Parallel()
	upstream := scheduler(t)
	_, port, _ := net.SplitHostPort(upstream.Listener.Addr().String())
	second, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", port))
	if err != nil {
		t.Fatal(err)
	}
	around := httptest.NewUnstartedServer(upstream.Config.Handler)
	_ = around.Listener.Close()
	around.Listener = second
	around.Start()
	t.Cleanup(around.Close)
	file := whole(t, issuer(t, 0).URL(), upstream.URL, nil)
	warning := "warning: the upstream also answers on 127.0.0.2:" + port + ", which goes around the gateway"
	run(t, "check", file, "--connect").want(t, exitOK, warning)
	run(t, "check", file, "--connect", "-o", "github").want(t, exitOK, "::warning::", "goes around the gateway")
	run(t, "check", file, "--connect", "-o", "json").want(t, exitOK, `"warnings": [`, "goes around the gateway")
}

func TestCheckConnectShowsNoPassword(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t, "--requirepass", "hunter2")
	file := whole(t, issuer(t, 0).URL(), "http://"+rollouttest.Unused(t), map[string]string{"redis": fmt.Sprintf("redis://:hunter2@%s/0", redis.Addr)})
	for _, format := range []string{"table", "json", "yaml", "github"} {
		got := run(t, "check", file, "--connect", "-o", format).want(t, exitFailure, redis.Addr, "0 teams have a percentage")
		if strings.Contains(got.stdout+got.stderr, "hunter2") {
			t.Errorf("%s shows a password: %v", format, got)
		}
	}
}

func TestAReportOfAllThatAnswersIsGood(t *testing.T) {
	t.Parallel()
	report := checkReport{OK: true, Summary: []string{"mode observe"}, Connections: []app.Connection{
		{Kind: "upstream", To: "http://127.0.0.1:8083", Seen: "answers HEAD / with 204 No Content", Warnings: []string{"also answers on 192.0.2.7:8083"}},
	}}
	golden(t, "check.connected.txt", reportText(report))
}

func TestAnnotationsEscapeWhatGitHubReads(t *testing.T) {
	t.Parallel()
	if got := escapeData("50%\r\nx"); got != "50%25%0D%0Ax" {
		t.Error(got)
	}
	if got := escapeProperty("a:b,c"); got != "a%3Ab%2Cc" {
		t.Error(got)
	}
}
