package app_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"crossfade/cmd/crossfade/app"
	"crossfade/rollout"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// A retirement outlives whatever happens to Redis, and the password that ended
// with it serves under no other team.
func TestARestoredRedisAndARestartDoNotForgetARetirement(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	store, err := redisstore.New(redisstore.Options{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	if _, err := store.Write(t.Context(), rollout.Change{
		Team: "data-eng", Percent: 100, Retire: true, Credentials: []string{"basic:svc-etl"}, Actor: "lead", Source: "cli",
	}); err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	s.configure("redis", server.URL(), "state_dir", "state")
	refused := func(g *gateway, when string) {
		t.Helper()
		got := g.send(withCall(etl(request{}), addTask("w", "LoadUsers")))
		if got.header.Get("Crossfade-Reason") != "legacy_retired" {
			t.Errorf("%s: %v", when, got)
		}
	}
	g := s.start().loaded()
	refused(g, "retired")
	g.end()

	s.write("principals.yaml", "svc-etl: { team: search, oidc: { subject: svc-etl } }\n")
	g = s.start().loaded()
	refused(g, "under another team")
	g.end()

	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer func() { _ = client.Close() }()
	if err := client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	g = s.start().loaded()
	refused(g, "after Redis was emptied and the gateway began anew")
	if !g.Table().Regressed() {
		t.Error("nobody noticed that Redis was emptied")
	}
	s.eventually("it is said", func() bool { return strings.Contains(g.log.String(), "store_regressed") })
	if _, err := g.Table().Write(t.Context(), rollout.Change{Team: "search", Percent: 5, Expect: rollout.AnyRevision}); err == nil {
		t.Error("a change is taken while the store has lost something")
	}

	known, err := app.LoadSnapshot(filepath.Join(s.dir, "state", "rollout.json"))
	if err != nil || known == nil {
		t.Fatalf("what the gateway knew: %v, %v", known, err)
	}
	if _, err := store.Restore(t.Context(), *known, rollout.Setting{Actor: "sre", Source: "cli"}); err != nil {
		t.Fatal(err)
	}
	s.eventually("the store is the one that was known", func() bool { return !g.Table().Regressed() })
	refused(g, "after all was put back")
}
