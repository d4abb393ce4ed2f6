package redisstore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// What 200 runs, the most of one call, cost a real server: the first time that it
// hears of them, and again. Each pair of account and pipeline has ten.
func BenchmarkRecord(b *testing.B) {
	const runs = 200
	server := rollouttest.StartRedis(b)
	s, err := redisstore.New(redisstore.Options{URL: server.URL()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	seq := int64(0)
	batch := func(round int) evidence.Batch {
		seq++
		now := time.Now()
		d := &evidence.Daily{Runs: make(map[evidence.RunKey]evidence.Run, runs)}
		for i := range runs {
			account := fmt.Sprintf("svc-%d-%d", round, i/10)
			d.Runs[evidence.NewRunKey(account, fmt.Sprint("Worker(salt=", i, ")"))] = evidence.Run{
				Account: account, Pipeline: "LoadUsers", Worst: now, First: now, Last: now.Add(time.Duration(seq) * time.Millisecond), Legacy: true, Token: true,
				TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", FirstExpiry: now.Add(time.Hour), LastExpiry: now.Add(time.Hour),
			}
		}
		team := identity.Team(fmt.Sprint("team-", round/20)) // 4,000 pairs a team at most
		return evidence.Batch{Replica: "a", Seq: seq, From: now, To: now, Teams: map[identity.Team]*evidence.TeamBatch{
			team: {Days: map[evidence.Day]*evidence.Daily{evidence.DayOf(now): d}},
		}}
	}
	for name, round := range map[string]func(int) int{
		"new": func(n int) int { return n }, "known": func(int) int { return -1 },
	} {
		b.Run(name, func(b *testing.B) {
			server.Do(b, "CONFIG", "RESETSTAT")
			for n := 0; b.Loop(); n++ {
				if err := s.Record(b.Context(), batch(round(int(seq)))); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/runs, "µs/run")
			stats := server.Do(b, "INFO", "commandstats")
			_, stats, _ = strings.Cut(stats, "cmdstat_evalsha:calls=")
			var calls, usec int
			if _, err := fmt.Sscanf(stats, "%d,usec=%d", &calls, &usec); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(usec)/float64(calls)/runs, "server-µs/run")
		})
	}
}
