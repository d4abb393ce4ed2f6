package redisstore_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// hundred is a team of which a hundred make 10,000 runs a day.
var hundred = rollouttest.Busy{Accounts: 3, Pipelines: 10, Runs: 100}

// firstDay is in the future, so that nothing expires on the server's clock.
const firstDay evidence.Day = "2130-01-02"

// fill records so many days of teams.
func fill(t testing.TB, s *redisstore.Store, teams, days int, busy rollouttest.Busy) {
	t.Helper()
	for n := range teams {
		day := firstDay
		for range days {
			if err := s.Record(t.Context(), rollouttest.BusyBatch(identity.Team(fmt.Sprintf("team-%02d", n)), day, busy)); err != nil {
				t.Fatal(err)
			}
			day = evidence.DayOf(day.End())
		}
	}
}

// sizes are the bytes of all keys by their kind, which is what stands behind the
// team and before the day, as MEMORY USAGE tells them.
func sizes(t testing.TB, c *redis.Client) map[string]int64 {
	t.Helper()
	by := make(map[string]int64)
	for keys := c.Scan(t.Context(), 0, "*", 1000).Iterator(); keys.Next(t.Context()); {
		n, err := c.MemoryUsage(t.Context(), keys.Val(), 0).Result()
		if err != nil {
			t.Fatal(err)
		}
		_, kind, _ := strings.Cut(keys.Val(), "}:")
		kind, _, _ = strings.Cut(kind, ":2130")
		by[kind] += n
	}
	return by
}

// usedMemory is what INFO tells of the whole server.
func usedMemory(t testing.TB, c *redis.Client) int64 {
	t.Helper()
	text, err := c.Info(context.Background(), "memory").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ = strings.Cut(text, "used_memory:")
	text, _, _ = strings.Cut(text, "\r")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// documented are the bytes that the documentation of the package tells, for one of
// so many things of a team.
var documented = []struct {
	kind, what string
	bytes      float64
	many       func(*evidence.TeamBatch) int
}{
	{"runs", "a run", 350, func(*evidence.TeamBatch) int { return hundred.Runs }},
	{"count", "a day", 310, func(*evidence.TeamBatch) int { return 1 }},
	{"refusals", "a kind", 120, func(t *evidence.TeamBatch) int { return len(t.Days[firstDay].Refusals) }},
	{"accounts", "an account", 75, func(t *evidence.TeamBatch) int { return len(t.Accounts) }},
	{"families", "a pair of account and family", 52, func(t *evidence.TeamBatch) int { return len(t.Families) }},
	{"families:clean", "a pair of account and family", 52, func(t *evidence.TeamBatch) int { return len(t.Families) }},
}

// TestEvidenceIsAsLargeAsDocumented fails when something gets fatter, or thinner,
// than people are told who size a server.
func TestEvidenceIsAsLargeAsDocumented(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	fill(t, newStore(t, redisstore.Options{URL: server.URL()}), 1, 1, hundred)
	team := rollouttest.BusyBatch("team-00", firstDay, hundred).Teams["team-00"]
	got := sizes(t, client(t, server))
	for _, d := range documented {
		is := float64(got[d.kind]) / float64(d.many(team))
		if is < d.bytes/1.2 || is > d.bytes*1.2 {
			t.Errorf("%s takes %.0f bytes for %s, and the documentation says about %.0f", d.kind, is, d.what, d.bytes)
		}
	}
}

// BenchmarkHostile records what the worst account can make of a day: as many
// pipelines with as many runs as are kept, all of which fail with the longest
// detail and names, and as many refusals and families.
func BenchmarkHostile(b *testing.B) {
	server := rollouttest.StartRedis(b)
	s, err := redisstore.New(redisstore.Options{URL: server.URL()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	c := redis.NewClient(&redis.Options{Addr: server.Addr, ReadTimeout: time.Minute})
	defer func() { _ = c.Close() }()
	for b.Loop() {
		at := firstDay.End().Add(-time.Hour)
		for n := range evidence.MaxPipelines {
			d := &evidence.Daily{Runs: make(map[evidence.RunKey]evidence.Run)}
			for i := range evidence.MaxRuns + evidence.MaxBad {
				d.Runs[evidence.NewRunKey("svc", fmt.Sprint(n, ":", i))] = evidence.Run{
					Account: "svc-finance-etl", Pipeline: fmt.Sprintf("%0200d", n), Grade: evidence.WouldBreak, Reason: identity.SignatureInvalid,
					Detail: strings.Repeat("d", evidence.MaxDetail), TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", Config: "5f0c9a3be1d27784",
					First: at, Worst: at.Add(time.Second), Last: at.Add(time.Minute), Legacy: true, Token: true, Refused: true, Enforced: true,
					EnforcedFrom: at, LockedOut: at.Add(time.Second), FirstExpiry: at, LastExpiry: at.Add(time.Hour),
				}
			}
			t := &evidence.TeamBatch{Days: map[evidence.Day]*evidence.Daily{firstDay: d}, Families: make(map[evidence.Family]evidence.FamilyUse)}
			d.Refusals = make(map[evidence.Refusal]evidence.Refused)
			for i := range evidence.MaxFamilies / evidence.MaxPipelines {
				name := fmt.Sprintf("%0200d", n*1000+i)
				t.Families[evidence.Family{Account: "svc-finance-etl", Name: name}] = evidence.FamilyUse{Last: at, Clean: at}
				d.Refusals[evidence.Refusal{Account: "svc-finance-etl", Pipeline: name, Reason: identity.SignatureInvalid}] = evidence.Refused{Requests: 1000, Last: at}
			}
			batch := evidence.Batch{Replica: "a", Seq: int64(n + 1), From: at, To: at, Teams: map[identity.Team]*evidence.TeamBatch{"team": t}}
			if err := s.Record(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
	}
	for kind, n := range sizes(b, c) {
		if kind != "" {
			b.ReportMetric(float64(n)/1e6, kind+"-MB")
		}
	}
}

// BenchmarkSize fills a real server with all that is kept of 100 teams and 10,000
// runs a day, once, and tells what it takes.
func BenchmarkSize(b *testing.B) {
	server := rollouttest.StartRedis(b)
	s, err := redisstore.New(redisstore.Options{URL: server.URL()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	c := redis.NewClient(&redis.Options{Addr: server.Addr, ReadTimeout: time.Minute})
	defer func() { _ = c.Close() }()
	for _, days := range []int{3, int(evidence.RunRetention / (24 * time.Hour))} {
		b.Run(fmt.Sprintf("days=%d", days), func(b *testing.B) {
			const teams = 100
			c.FlushAll(b.Context())
			before := usedMemory(b, c)
			for b.Loop() {
				fill(b, s, teams, days, hundred)
			}
			b.ReportMetric(float64(usedMemory(b, c)-before)/1e6, "MB")
			for kind, n := range sizes(b, c) {
				if kind != "" {
					b.Logf("%-16s %8.2f MB %10.1f bytes a team and day", kind, float64(n)/1e6, float64(n)/teams/float64(days))
				}
			}
			b.Logf("%.1f bytes a run", float64(sizes(b, c)["runs"])/float64(teams*days*hundred.Runs))
		})
	}
}
