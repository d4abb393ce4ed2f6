package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
)

// What a batch of few new runs costs the in-process server, where a day has few runs
// and where it has as many as a demonstration keeps.
func BenchmarkRecordOnADayOfManyRuns(b *testing.B) {
	for _, before := range []int{100, 4800} {
		b.Run(fmt.Sprint(before), func(b *testing.B) {
			const runs = 8
			s, err := redisstore.OpenInProcess(redisstore.Options{MaxRuns: 5000})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			now, seq, n := time.Now(), int64(0), 0
			record := func(runs int) {
				seq++
				d := &evidence.Daily{Runs: make(map[evidence.RunKey]evidence.Run, runs)}
				for range runs {
					n++
					d.Runs[evidence.NewRunKey("svc-etl", fmt.Sprint(n))] = evidence.Run{
						Account: "svc-etl", Pipeline: "Load", Worst: now, First: now, Last: now.Add(time.Second), Legacy: true, Token: true,
					}
				}
				if err := s.Record(b.Context(), evidence.Batch{Replica: "a", Seq: seq, From: now, To: now, Teams: map[identity.Team]*evidence.TeamBatch{
					"data-eng": {Days: map[evidence.Day]*evidence.Daily{evidence.DayOf(now): d}},
				}}); err != nil {
					b.Fatal(err)
				}
			}
			record(before)
			for b.Loop() {
				record(runs)
			}
		})
	}
}
