package app_test

import (
	"fmt"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/assess"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// Reading what a real server has of the window of teams, 14 days, and judging it,
// as the page of all teams does when nothing is remembered.
func BenchmarkAssess(b *testing.B) {
	for name, size := range map[string]struct {
		teams int
		busy  rollouttest.Busy
	}{
		"1-team-of-700-runs-a-day":    {1, rollouttest.Busy{Accounts: 3, Pipelines: 10, Runs: 700}},
		"100-teams-of-100-runs-a-day": {100, rollouttest.Busy{Accounts: 3, Pipelines: 10, Runs: 100}},
	} {
		b.Run(name, func(b *testing.B) {
			server := rollouttest.StartRedis(b)
			store, err := redisstore.New(redisstore.Options{URL: server.URL()})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = store.Close() }()
			now := start.Add(30 * day)
			teams := make([]identity.Team, size.teams)
			for i := range teams {
				teams[i] = identity.Team(fmt.Sprintf("team-%02d", i))
				for n := range 15 {
					if err := store.Record(b.Context(), rollouttest.BusyBatch(teams[i], evidence.DayOf(now.AddDate(0, 0, n-14)), size.busy)); err != nil {
						b.Fatal(err)
					}
				}
			}
			keying := rollout.Keying{Runs: true}
			for b.Loop() {
				a, err := assess.New(assess.Options{
					Store: store, Keying: keying, Now: func() time.Time { return now },
					Settings: func(identity.Team) assess.Settings {
						return assess.Settings{Limits: readiness.DefaultLimits(), Config: func(string) string { return "5f0c9a3be1d27784" }}
					},
				})
				if err != nil {
					b.Fatal(err)
				}
				for _, team := range teams {
					r, err := a.Report(b.Context(), rollout.State{Team: team, Percent: 10, RaisedAt: now.Add(-3 * day)})
					if err != nil || r.Runs == 0 {
						b.Fatal(r.Answer, err)
					}
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms")
		})
	}
}
