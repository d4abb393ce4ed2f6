package app_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crossfade/rollout/rollouttest"
)

func TestInObserveEverythingPassesAndIsCounted(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	set(t, redis.URL(), "data-eng", 100)
	s := newSite(t)
	s.configure("redis", redis.URL(), "mode", "observe")
	g := s.start().loaded()
	good := s.token("svc-etl", audience)
	for name, ask := range map[string]request{
		"a password of a team at 100%":   etl(request{}),
		"a password with a companion":    etl(request{companion: good}),
		"a token":                        {bearer: good},
		"a token for another audience":   {bearer: s.token("svc-etl", "api://finance")},
		"no token in the place of one":   {bearer: "a.b.c"},
		"a wrong password":               {user: "svc-etl", password: "guess"},
		"an unknown user":                {user: "nobody", password: "guess"},
		"a companion alone":              {companion: good},
		"a scheme that nobody handles":   {header: http.Header{"Authorization": {"Digest x"}}},
		"two credentials":                {header: http.Header{"Authorization": {"Basic eDp5", "Bearer z"}}},
		"nothing":                        {},
		"a client that names itself":     {header: http.Header{"X-Forwarded-User": {"admin"}}},
		"a client behind something else": {header: http.Header{"X-Forwarded-For": {"192.0.2.7"}}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, like := range []request{pages(), ping("w"), addTask("w", "LoadUsers")} {
				ask.method, ask.path, ask.body = like.method, like.path, like.body
				got := g.send(ask)
				if got.status != 200 || got.header.Get("Crossfade-Reason") != "" || got.header.Get("Deprecation") != "" {
					t.Errorf("%s %s: %v", ask.method, ask.path, got)
				}
				seen := s.upstream.last()
				if _, there := seen.Header["Crossfade-Token"]; there {
					t.Error("the companion reached the upstream")
				}
				for name, values := range ask.header {
					if seen := seen.Header[name]; len(seen) != len(values) || seen[0] != values[0] {
						t.Errorf("%s arrived as %q, was sent as %q", name, seen, values)
					}
				}
				if ask.user != "" && seen.Header.Get("Authorization") == "" {
					t.Error("the password is for the upstream to judge, and was removed")
				}
			}
		})
	}
	const would = `crossfade_requests_total{outcome="would_refuse",reason="legacy_unknown",scheme="basic",team="unassigned"}`
	s.eventually("the refusals that were not are counted", func() bool { return g.metric(would) == "6" })
}

func TestTheAccessLogGoesWhereTheConfigurationSays(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		format string
		holds  string // in the line; "" if there must be none
	}{
		"off":              {"off", ""},
		"a file as JSON":   {"{ file: access.log, format: json }", `"path":"/api/task_list"`},
		"a file as text":   {"{ file: access.log, format: text }", "/api/task_list"},
		"a file, whatever": {"access.log", `"path":"/api/task_list"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.configure("access_log", tc.format)
			g := s.start().loaded()
			if got := g.send(etl(pages())); got.status != 200 {
				t.Fatal(got)
			}
			g.end()
			text, err := os.ReadFile(filepath.Join(s.dir, "access.log"))
			if tc.holds == "" {
				if err == nil {
					t.Errorf("there is a log: %s", text)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), tc.holds) || strings.Contains(string(text), "legacy-pass") {
				t.Errorf("the log holds %s", text)
			}
		})
	}
}
