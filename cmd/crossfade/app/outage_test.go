package app_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// outage is a way in which Redis fails.
type outage struct {
	// url is where the gateway finds Redis, direct where the test does, which
	// looks after the outage; the same when "".
	url, direct string
	// begin and end it; end may be nil where it ends by itself.
	begin, end func()
	// writesOnly: what is there can be read all the time.
	writesOnly bool
	// says is a part of the error that changes are refused with.
	says string
	// brief: it may be over before a change is tried.
	brief bool
}

// durable are the settings of a server that loses nothing when it is killed.
var durable = []string{"--appendonly", "yes", "--appendfsync", "always"}

// TestNobodyNoticesThatRedisFails breaks Redis under a gateway that is in use, in
// every way that is known, and mends it.
func TestNobodyNoticesThatRedisFails(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*testing.T) outage{
		"killed and started again": func(t *testing.T) outage {
			r := rollouttest.StartRedis(t, durable...)
			return outage{url: r.URL(), begin: r.Stop, end: func() { r.Start(t) }, says: "refused"}
		},
		"slow, two seconds a call": func(t *testing.T) outage {
			r := rollouttest.StartRedis(t)
			l := newLine(t, r)
			return outage{url: l.url(), direct: r.URL(), begin: func() { l.spoil("latency", `"latency": 2000`) }, end: l.mend, says: "time"}
		},
		"behind a line that swallows everything": func(t *testing.T) outage {
			r := rollouttest.StartRedis(t)
			l := newLine(t, r)
			return outage{url: l.url(), direct: r.URL(), begin: func() { l.spoil("timeout", `"timeout": 0`) }, end: l.mend, says: "time"}
		},
		"behind a line that is cut again and again": func(t *testing.T) outage {
			r := rollouttest.StartRedis(t)
			l := newLine(t, r)
			return outage{url: l.url(), direct: r.URL(), begin: func() { l.spoil("limit_data", `"bytes": 1`) }, end: l.mend}
		},
		"read-only, since another one is the master now": func(t *testing.T) outage {
			r := rollouttest.StartRedis(t)
			other := rollouttest.StartReplica(t, r)
			host, port, _ := strings.Cut(other.Addr, ":")
			return outage{url: r.URL(), writesOnly: true, says: "READONLY", begin: func() {
				other.Do(t, "REPLICAOF", "NO", "ONE")
				r.Do(t, "REPLICAOF", host, port)
			}, end: func() { r.Do(t, "REPLICAOF", "NO", "ONE") }}
		},
		"out of memory": func(t *testing.T) outage {
			r := rollouttest.StartRedis(t, "--maxmemory-policy", "noeviction")
			return outage{
				url: r.URL(), writesOnly: true, says: "OOM",
				begin: func() { r.Do(t, "CONFIG", "SET", "maxmemory", "1") },
				end:   func() { r.Do(t, "CONFIG", "SET", "maxmemory", "0") },
			}
		},
		"with another password than before": func(t *testing.T) outage {
			r := rollouttest.StartRedis(t)
			password := func(p string) {
				r.Do(t, "ACL", "SETUSER", "gateway", "on", "resetpass", ">"+p, "~*", "&*", "+@all")
				r.Do(t, "CLIENT", "KILL", "USER", "gateway")
			}
			password("first-pass")
			return outage{
				url: strings.Replace(r.URL(), "redis://", "redis://gateway:first-pass@", 1), direct: r.URL(), says: "WRONGPASS",
				begin: func() { password("second-pass") }, end: func() { password("first-pass") },
			}
		},
		"failing over by Sentinel": func(t *testing.T) outage {
			r := rollouttest.StartRedis(t)
			rollouttest.StartReplica(t, r)
			url := rollouttest.StartSentinel(t, r, "main").URL() + "?master_name=main"
			return outage{url: url, begin: r.Stop, brief: true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			survives(t, prepare(t))
		})
	}
}

// survives breaks the Redis of a gateway that is in use, and mends it.
func survives(t *testing.T, o outage) {
	t.Helper()
	if o.direct == "" {
		o.direct = o.url
	}
	set(t, o.direct, "data-eng", 100)
	set(t, o.direct, "search", 0)
	s := newSite(t)
	s.configure("redis", o.url)
	g := s.start().loaded()
	g.send(search(addTask("free", "LoadUsers")))
	sent := 5 + g.enforces() // the one before, and four of asBefore
	asBefore(t, g, "before")
	s.eventually("what was learned is recorded", func() bool { return requests(t, o.direct) == sent })

	o.begin()
	if !o.writesOnly {
		s.eventually("the gateway knows", func() bool { return errors.Is(g.Table().Err(), rollout.ErrUnavailable) })
	}
	asBefore(t, g, "while it lasts")
	for i := range 20 {
		free, enforced := search(addTask(fmt.Sprint("new-", i), "LoadUsers")), etl(addTask(fmt.Sprint("new-", i), "LoadUsers"))
		if got := g.send(free); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
			t.Errorf("a new run at 0%% while it lasts: %v", got)
		}
		// The last raise is young, and before it the team was at 0.
		if got := g.send(enforced); got.status != 200 || got.header.Get("Crossfade-Reason") != "" && !o.brief {
			t.Errorf("a new run at 100%% while it lasts: %v", got)
		}
	}
	if !o.brief {
		if _, err := g.Table().Write(t.Context(), rollout.Change{
			Team: "search", Percent: 50, Expect: rollout.AnyRevision, Actor: "lead", Source: "cli",
		}); !errors.Is(err, rollout.ErrUnavailable) || !strings.Contains(err.Error(), o.says) {
			t.Errorf("a change while it lasts: %v", err)
		}
	}
	if !o.writesOnly && !o.brief {
		was := g.metric("crossfade_rollout_table_timestamp_seconds")
		if at, err := strconv.ParseFloat(was, 64); err != nil || int64(at) != g.Table().LoadedAt().Unix() {
			t.Errorf("the table is of %s, want %v", was, g.Table().LoadedAt())
		}
		before := g.Table().Age()
		_ = g.Table().Refresh(t.Context())
		if now := g.metric("crossfade_rollout_table_timestamp_seconds"); now != was || g.Table().Age() <= before {
			t.Errorf("without Redis the table became younger: from %s to %s", was, now)
		}
		if got := g.fetch("/readyz"); got.status != 200 || !strings.Contains(got.body, "Redis cannot be read, and the percentages of") {
			t.Errorf("/readyz while it lasts: %v", got)
		}
		if !strings.Contains(g.log.String(), "rollout store in trouble") {
			t.Errorf("the log does not say so:\n%s", g.log)
		}
	}

	if o.end != nil {
		o.end()
	}
	s.eventually("the gateway is well again", func() bool { return g.Table().Refresh(t.Context()) == nil })
	asBefore(t, g, "afterwards")
	s.eventually("/readyz is well again", func() bool { return g.fetch("/readyz").body == "ok\n" })
	s.eventually("every request is recorded, once", func() bool { return requests(t, o.direct) == sent+4+40+4 })
	if got := g.metric("crossfade_evidence_lost_total"); got != "0" {
		t.Errorf("%s observations are lost, want none", got)
	}
	set(t, o.direct, "search", 25)
	g.reaches("search", 25)
	if entries := history(t, o.direct); len(entries) != 2 || entries[0].To != 25 {
		t.Errorf("the history of search: %+v", entries)
	}
}

// requests is how many the evidence in a Redis counts.
func requests(t *testing.T, url string) (n int64) {
	t.Helper()
	store, err := redisstore.New(redisstore.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	for _, name := range []string{"data-eng", "search"} {
		_, counts := gathered(t, store, identity.Team(name))
		for _, c := range counts {
			n += c
		}
	}
	return n
}

// history is that of team search.
func history(t *testing.T, url string) []rollout.Entry {
	t.Helper()
	store, err := redisstore.New(redisstore.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	for deadline := time.Now().Add(patience); ; {
		entries, err := store.History(t.Context(), "search", 100)
		if err == nil {
			return entries
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
