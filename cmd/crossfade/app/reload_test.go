package app_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
)

// watched makes the gateway follow its files.
func watched(o *app.Options) { o.Watch = true }

func htpasswd(t *testing.T, user, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return user + ":" + string(hash) + "\n"
}

func TestChangedFilesComeIntoForceWithoutARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.start(watched).loaded()
	status := func(q request) func(int) func() bool {
		return func(want int) func() bool {
			return func() bool { return g.send(q).status == want }
		}
	}
	renewed := pages()
	renewed.user, renewed.password = "svc-etl", "renewed"

	if got := g.send(renewed); got.status != 401 {
		t.Fatalf("a password that nobody has yet: %v", got)
	}
	s.write("users.htpasswd", htpasswd(t, "svc-etl", "renewed"))
	s.eventually("the new password is good", status(renewed)(200))
	if got := g.send(etl(pages())); got.status != 401 {
		t.Errorf("the old password is still good: %v", got)
	}

	before := g.metric(`crossfade_requests_total{outcome="allowed",reason="",scheme="basic",team="growth"}`)
	if before != "" {
		t.Errorf("a team that is not configured has a series: %s", before)
	}
	s.write("principals.yaml", "svc-etl: { team: growth }\n")
	s.eventually("requests count for the other team", func() bool {
		g.send(renewed)
		return g.metric(`crossfade_requests_total{outcome="allowed",reason="",scheme="basic",team="growth"}`) > "0"
	})

	s.configure("mode", "observe")
	wrong := pages()
	wrong.user, wrong.password = "svc-etl", "guess"
	s.eventually("mode observe refuses nothing", status(wrong)(200))
	s.configure("mode", "enforce")
	s.eventually("mode enforce refuses again", status(wrong)(401))
}

func TestABadFileLeavesTheRunningConfigurationInForce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.start(watched).loaded()
	successful := func(want string) func() bool {
		return func() bool { return g.metric("crossfade_config_last_reload_successful") == want }
	}
	if !successful("1")() {
		t.Error("the first configuration does not count as a success")
	}
	for name, break_ := range map[string]struct{ file, text, said string }{
		"a key that does not exist": {"crossfade.yaml", "mod: enforce\n", "mode"},
		"a file that is no YAML":    {"crossfade.yaml", "mode: [\n", "crossfade.yaml"},
		"a password in plain text":  {"users.htpasswd", "svc-etl:legacy-pass\n", "users.htpasswd:1"},
		"a principal twice":         {"principals.yaml", "a: { team: x, legacy: [u] }\nb: { team: y, legacy: [u] }\n", "principals.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			good := readFile(t, filepath.Join(s.dir, break_.file))
			s.write(break_.file, break_.text)
			s.eventually("the mistake shows in the metric", successful("0"))
			if got := g.send(etl(pages())); got.status != 200 {
				t.Errorf("the running configuration is gone: %v", got)
			}
			if got := g.send(pages()); got.status != 401 {
				t.Errorf("a bad file opens the gateway: %v", got)
			}
			if log := g.log.String(); !strings.Contains(log, break_.said) {
				t.Errorf("the log does not name %s:\n%s", break_.said, log)
			} else if strings.Contains(log, "legacy-pass") {
				t.Error("the log holds the password")
			}
			s.write(break_.file, good)
			s.eventually("the mended file is in force", successful("1"))
		})
	}
}

func TestFilesThatAReloadNamesForTheFirstTimeAreWatchedFromThenOn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.start(watched).loaded()
	other := pages()
	other.user, other.password = "svc-etl", "other"
	s.write("others.htpasswd", htpasswd(t, "svc-etl", "first"))
	s.configure("legacy", "{ htpasswd: others.htpasswd }")
	s.eventually("the other file is in force", func() bool { return g.send(etl(pages())).status == 401 })
	s.write("others.htpasswd", htpasswd(t, "svc-etl", "other"))
	s.eventually("a change of the other file is seen", func() bool { return g.send(other).status == 200 })
}

func TestAVerifiedTokenIsForgottenAtAReload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.start(watched).loaded()
	ask := pages()
	ask.bearer = s.token("svc-etl", audience)
	for range 2 { // the second one out of the cache
		if got := g.send(ask); got.status != 200 {
			t.Fatal(got)
		}
	}
	if hits := g.metric(`crossfade_token_cache_total{result="hit"}`); hits != "1" {
		t.Errorf("%s hits of the cache, want 1", hits)
	}
	s.configure("oidc", fmt.Sprintf("{ issuer: %s, audience: %s, deny: { subjects: [svc-etl] } }", s.issuer.URL(), audience))
	s.eventually("the denied subject is refused", func() bool {
		got := g.send(ask)
		return got.status == 401 && got.header.Get("Crossfade-Reason") == "principal_unmapped"
	})
	s.configure("oidc", fmt.Sprintf("{ issuer: %s, audience: elsewhere }", s.issuer.URL()))
	s.eventually("a token for the old audience is refused", func() bool {
		return g.send(ask).header.Get("Crossfade-Reason") == "aud_mismatch"
	})
}

func TestWhatAReloadCannotChangeIsNamed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.start().loaded()
	s.configure(
		"listen", "127.0.0.1:1", "metrics", `"off"`, "redis", "redis://127.0.0.1:1/0", "access_log", "access.log",
		"shadow", "{ queue: 7 }", "upstream", fmt.Sprintf("{ url: %s, profile: http, timeout: 7s }", s.upstream.URL),
		"rollout", "{ stickiness: principal }", "audit", "audit.jsonl",
	)
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		"listen.address", "metrics", "redis", "access_log", "shadow", "upstream.profile", "upstream.timeout", "rollout.stickiness", "audit",
	} {
		if !strings.Contains(g.log.String(), "key="+key+"\n") {
			t.Errorf("%s is not named", key)
		}
	}
	if got := g.send(etl(pages())); got.status != 200 {
		t.Errorf("after the reload: %v", got)
	}
	before := s.upstream.count()
	if got := g.send(etl(rpc("drop_tables", nil))); s.upstream.count() != before {
		t.Errorf("calls of the scheduler are no longer read as such: %v", got)
	}
}

func TestAConfigurationThatCannotRunIsAnErrorBeforeAnythingIsServed(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		set  func(*site)
		said string
	}{
		"a mistake in the file":       {func(s *site) { s.configure("mode", "enforced") }, "mode"},
		"a password in plain text":    {func(s *site) { s.write("users.htpasswd", "a:b\n") }, "users.htpasswd:1"},
		"a port that is taken":        {func(s *site) { s.configure("listen", s.upstream.Listener.Addr().String()) }, "--listen"},
		"a taken port of the metrics": {func(s *site) { s.configure("metrics", s.upstream.Listener.Addr().String()) }, "--metrics"},
		"a trail that cannot be":      {func(s *site) { s.configure("audit", "nowhere/audit.jsonl") }, "audit trail"},
		"a trail in another file":     {func(s *site) { s.configure("audit", "users.htpasswd") }, "holds something else"},
		"a log that cannot be":        {func(s *site) { s.configure("access_log", "nowhere/access.log") }, "access_log"},
		"an issuer without audience":  {func(s *site) { s.configure("oidc", "{ issuer: https://idp.example }") }, "audience"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			tc.set(s)
			a, err := app.New(t.Context(), app.Options{Load: s.load, Log: discard()})
			if err == nil {
				a.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tc.said) {
				t.Errorf("the error does not say %q: %v", tc.said, err)
			}
		})
	}
}

func (s *site) load() (*config.Config, error) {
	return config.Load(config.Source{File: filepath.Join(s.dir, "crossfade.yaml")})
}
