package app_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crossfade/cmd/crossfade/app"
	"crossfade/gateway/luigi"
	"crossfade/gateway/luigi/luigitest"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/fleet"
	"crossfade/rollout/rollouttest"
)

func TestInEnforceAStartWithoutRedisServesTokensUntilItComes(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	redis.Stop()
	s := newSite(t)
	s.configure("redis", redis.URL())
	g := s.start()

	if got := g.fetch("/livez"); got.status != 200 {
		t.Errorf("/livez: %v", got)
	}
	if got := g.fetch("/readyz"); got.status != 503 || !strings.Contains(got.body, "Redis") {
		t.Errorf("/readyz: %v", got)
	}
	for name, like := range map[string]request{"a page": pages(), "a worker's call": addTask("w", "LoadUsers")} {
		got := g.send(etl(like))
		if got.status != 503 || got.header.Get("Crossfade-Reason") != "store_unavailable" || got.header.Get("Retry-After") == "" {
			t.Errorf("%s with a password: %v", name, got)
		}
		like.bearer = s.token("svc-etl", audience)
		if got := g.send(like); got.status != 200 {
			t.Errorf("%s with a token: %v", name, got)
		}
	}
	wrong := pages()
	wrong.user, wrong.password = "svc-etl", "guess"
	if got := g.send(wrong); got.status != 401 {
		t.Errorf("a wrong password is no matter of Redis: %v", got)
	}
	s.eventually("the metric says that Redis is away", func() bool { return g.metric("crossfade_redis_up") == "0" })

	redis.Start(t)
	g.loaded()
	if got := g.fetch("/readyz"); got.status != 200 {
		t.Errorf("/readyz with Redis: %v", got)
	}
	if got := g.send(etl(addTask("w", "LoadUsers"))); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
		t.Errorf("a password with Redis: %v", got)
	}
	s.eventually("the metric says that Redis is there", func() bool { return g.metric("crossfade_redis_up") == "1" })
}

func TestInObserveAStartWithoutRedisChangesNothing(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	redis.Stop()
	s := newSite(t)
	s.configure("redis", redis.URL(), "mode", "observe")
	g := s.start()
	for name, q := range map[string]request{
		"a password":       etl(addTask("w", "LoadUsers")),
		"a wrong password": {method: http.MethodGet, path: "/api/task_list", user: "svc-etl", password: "guess"},
		"a token":          {method: http.MethodGet, path: "/api/task_list", bearer: s.token("svc-etl", audience)},
		"nothing":          pages(),
	} {
		if got := g.send(q); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := g.fetch("/readyz"); got.status != 200 {
		t.Errorf("/readyz: %v", got)
	}
}

// ramped is a gateway with one team at 100% and one at 0, and a worker of each
// that has begun.
func ramped(t *testing.T) (*rollouttest.Redis, *gateway) {
	t.Helper()
	redis := rollouttest.StartRedis(t)
	set(t, redis.URL(), "data-eng", 100)
	set(t, redis.URL(), "search", 0)
	s := newSite(t)
	s.configure("redis", redis.URL())
	g := s.start().loaded()
	g.enforces()
	g.send(search(addTask("free", "LoadUsers")))
	asBefore(t, g, "at the beginning")
	return redis, g
}

// enforces begins runs of data-eng, which is at 100%, until one has its latch, and
// returns how many requests it sent: on a busy machine a latch may take more than the
// 50 ms that a request waits for it, and such a run is spared for good.
func (g *gateway) enforces() (sent int64) {
	g.site.t.Helper()
	g.site.eventually("a run at 100% has its latch", func() bool {
		sent++
		g.site.enforced = fmt.Sprint("enforced-", sent)
		return g.send(etl(addTask(g.site.enforced, "LoadUsers"))).header.Get("Crossfade-Reason") == "legacy_refused"
	})
	return sent
}

// asBefore checks that nobody was flipped.
func asBefore(t *testing.T, g *gateway, when string) {
	t.Helper()
	for name, tc := range map[string]struct {
		ask    request
		reason string
	}{
		"a worker at 100%": {etl(ping(g.site.enforced)), "legacy_refused"},
		"a page at 100%":   {etl(pages()), "legacy_refused"},
		"a worker at 0%":   {search(ping("free")), ""},
		"a page at 0%":     {search(pages()), ""},
	} {
		if got := g.send(tc.ask); got.header.Get("Crossfade-Reason") != tc.reason {
			t.Errorf("%s, %s: %v", when, name, got)
		}
	}
	if got := g.fetch("/readyz"); got.status != 200 {
		t.Errorf("%s, /readyz: %v", when, got)
	}
}

func TestNobodyIsFlippedWhenRedisDiesInTheMiddle(t *testing.T) {
	t.Parallel()
	redis, g := ramped(t)
	redis.Stop()
	g.site.eventually("the gateway knows", func() bool { return errors.Is(g.Table().Err(), rollout.ErrUnavailable) })
	asBefore(t, g, "without Redis")
	if got := g.send(search(addTask("new", "LoadUsers"))); got.header.Get("Crossfade-Reason") != "" {
		t.Errorf("a new run at 0%% without Redis: %v", got)
	}
	if up := g.metric("crossfade_redis_up"); up != "0" {
		t.Errorf("crossfade_redis_up %s", up)
	}
	// Where Redis comes back empty, as this one does, the table stays as well.
	redis.Start(t)
	g.site.eventually("the gateway knows that it came back empty", g.Table().Regressed)
	asBefore(t, g, "with an empty Redis")
}

func TestNobodyIsFlippedWhenRedisIsFlushed(t *testing.T) {
	t.Parallel()
	redis, g := ramped(t)
	conn, err := net.Dial("tcp", redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprint(conn, "FLUSHALL\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "+OK\r\n" {
		t.Fatalf("FLUSHALL: %q, %v", line, err)
	}
	g.site.eventually("the gateway knows", g.Table().Regressed)
	asBefore(t, g, "after FLUSHALL")
	_, err = g.Table().Write(t.Context(), rollout.Change{
		Team: "search", Percent: 50, Expect: rollout.AnyRevision, Actor: "lead", Source: "cli",
	})
	if !errors.Is(err, rollout.ErrRegressed) {
		t.Errorf("a change of a store that regressed: %v", err)
	}
	if up := g.metric("crossfade_redis_up"); up != "1" {
		t.Errorf("crossfade_redis_up %s: it answers, if wrongly", up)
	}
	g.site.eventually("the log says so", func() bool { return strings.Contains(g.log.String(), "store_regressed") })
}

func TestWithASnapshotAStartWithoutRedisKnowsThePercentages(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	set(t, redis.URL(), "data-eng", 100)
	s := newSite(t)
	state := filepath.Join(s.dir, "state")
	if err := os.Mkdir(state, 0o750); err != nil {
		t.Fatal(err)
	}
	s.configure("redis", redis.URL(), "state_dir", "state", "rollout", "{ cold_start: snapshot }")
	first := s.start().loaded()
	first.reaches("data-eng", 100)
	first.end()
	redis.Stop()

	g := s.start()
	if got := g.fetch("/readyz"); got.status != 200 {
		t.Errorf("/readyz: %v", got)
	}
	if got := g.send(etl(pages())); got.header.Get("Crossfade-Reason") != "legacy_refused" {
		t.Errorf("at 100%% by the snapshot: %v", got)
	}
	if got := g.send(search(pages())); got.status != 200 {
		t.Errorf("at 0%% by the snapshot: %v", got)
	}
}

// What is embedded must differ in name.
type (
	luigiStore    = luigi.Store
	evidenceStore = evidence.Store
	fleetStore    = fleet.Store
)

func TestTheAppTakesAStoreThatItIsGiven(t *testing.T) {
	t.Parallel()
	memory := struct {
		*rollouttest.Memory
		luigiStore
		evidenceStore
		fleetStore
	}{rollouttest.NewMemory(), luigitest.NewMemory(nil), inProcess(t), inProcess(t)}
	s := newSite(t)
	g := s.start(func(o *app.Options) { o.Store = memory }).loaded()
	if g.Store() != app.Store(memory) {
		t.Error("another store is in use")
	}
	if _, err := memory.Write(t.Context(), rollout.Change{
		Team: "data-eng", Percent: 100, Expect: rollout.AnyRevision, Actor: "lead", Source: "cli",
	}); err != nil {
		t.Fatal(err)
	}
	g.reaches("data-eng", 100)
	g.end()
	if _, err := memory.Load(context.Background()); err != nil {
		t.Errorf("the store is the caller's, and was closed: %v", err)
	}
}

func TestThePasswordOfRedisIsReadAgainForEachConnection(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t, "--requirepass", "second")
	s := newSite(t)
	s.write("redis.password", "first\n")
	s.configure("redis", fmt.Sprintf("{ url: %s, password_file: redis.password }", redis.URL()))
	g := s.start()
	s.eventually("the wrong password is noticed", func() bool { return g.Table().Err() != nil })
	s.write("redis.password", "second\n")
	g.loaded()
	if log := g.log.String(); strings.Contains(log, "first") || strings.Contains(log, "second") {
		t.Errorf("the log holds a password:\n%s", log)
	}
}
