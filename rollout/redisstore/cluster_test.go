package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// TestClusterConforms runs the suite on a Cluster that spreads the keys over three
// nodes, and looks that each has some.
func TestClusterConforms(t *testing.T) {
	t.Parallel()
	cluster := rollouttest.StartCluster(t)
	var n atomic.Int64
	rollouttest.TestStore(t, func(t *testing.T) rollout.Store {
		return newStore(t, redisstore.Options{URL: cluster.URL(), Prefix: fmt.Sprintf("test%d", n.Add(1))})
	})
	for i, node := range cluster.Nodes {
		if node.Do(t, "DBSIZE") == "0" {
			t.Errorf("nothing was written to node %d", i)
		}
	}
}

// TestClusterConformsToEvidence looks that scripts touch only keys of one slot, and
// only those that they declare.
func TestClusterConformsToEvidence(t *testing.T) {
	t.Parallel()
	cluster := rollouttest.StartCluster(t)
	var n atomic.Int64
	rollouttest.TestEvidence(t, func(t *testing.T) evidence.Store {
		return newStore(t, redisstore.Options{URL: cluster.URL(), Prefix: fmt.Sprintf("test%d", n.Add(1))})
	})
}

// TestSentinelConforms finds the server by asking a Sentinel for it.
func TestSentinelConforms(t *testing.T) {
	t.Parallel()
	master := rollouttest.StartRedis(t)
	sentinel := rollouttest.StartSentinel(t, master, "main")
	var n atomic.Int64
	rollouttest.TestStore(t, func(t *testing.T) rollout.Store {
		return newStore(t, redisstore.Options{URL: sentinel.URL() + "?master_name=main", Prefix: fmt.Sprintf("test%d", n.Add(1))})
	})
	if size := client(t, master).DBSize(t.Context()).Val(); size == 0 {
		t.Error("nothing was written to the server that the Sentinel names")
	}
}

// TestEvidenceOfLivingTeamsIsRecordedWhileANodeIsAway takes a node away and brings
// it back, with many teams on each.
func TestEvidenceOfLivingTeamsIsRecordedWhileANodeIsAway(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Second
	for name, test := range map[string]struct {
		begin, end func(*testing.T, *rollouttest.Redis)
	}{
		"killed":  {func(_ *testing.T, r *rollouttest.Redis) { r.Stop() }, func(t *testing.T, r *rollouttest.Redis) { r.Start(t) }},
		"hanging": {func(t *testing.T, r *rollouttest.Redis) { r.Pause(t) }, func(t *testing.T, r *rollouttest.Redis) { r.Resume(t) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := rollouttest.StartCluster(t, "--cluster-require-full-coverage", "no", "--appendonly", "yes", "--appendfsync", "always")
			s := newStore(t, redisstore.Options{URL: cluster.URL()})
			today := evidence.DayOf(time.Now())
			count := evidence.Count{Verdict: "match_allow", Source: "client"}
			dies := 0
			for cluster.Owner(t, "crossfade:gaps") == dies || cluster.Owner(t, "crossfade:store") == dies {
				dies++
			}
			var teams, dead []identity.Team
			for i := range 60 {
				team := identity.Team(fmt.Sprint("team-", i))
				teams = append(teams, team)
				if cluster.Owner(t, "crossfade:{"+string(team)+"}:rollout") == dies {
					dead = append(dead, team)
				}
			}
			slices.Sort(dead)
			if len(dead) < 5 || len(dead) > 40 {
				t.Fatalf("%d of the teams are on the node that dies", len(dead))
			}
			batch := func(seq int64) evidence.Batch {
				b := evidence.Batch{Replica: "a", Seq: seq, From: time.Now(), To: time.Now(), Teams: make(map[identity.Team]*evidence.TeamBatch)}
				for _, team := range teams {
					b.Teams[team] = &evidence.TeamBatch{Days: map[evidence.Day]*evidence.Daily{today: {Counts: map[evidence.Count]int64{count: 1}}}, Lost: 1}
				}
				return b
			}
			if err := s.Record(t.Context(), batch(1)); err != nil {
				t.Fatal(err)
			}
			test.begin(t, cluster.Nodes[dies])
			waits := batch(2)
			for range 2 {
				// A slow machine may need several attempts for those that can be recorded.
				eventually(t, "those whose node is there are recorded, and only the others wait", func() bool {
					ctx, cancel := context.WithTimeout(t.Context(), limit)
					defer cancel()
					err := s.Record(ctx, waits)
					ended := time.Now()
					var partial *evidence.PartialError
					if !errors.As(err, &partial) || partial.Lost != nil {
						t.Fatalf("Record: %v, want that %v wait", err, dead)
					}
					if until, _ := ctx.Deadline(); ended.After(until.Add(5 * time.Second)) {
						t.Errorf("it took %s longer than it may", ended.Sub(until))
					}
					return slices.Equal(partial.Teams, dead)
				})
			}
			requests := func(team identity.Team) int64 {
				d, err := s.Daily(t.Context(), team, today)
				if err != nil {
					t.Errorf("of %s: %v", team, err)
				}
				return d.Requests()
			}
			for _, team := range teams {
				if !slices.Contains(dead, team) && requests(team) != 2 {
					t.Errorf("%d requests of %s are recorded while the node is away, want 2", requests(team), team)
				}
			}
			test.end(t, cluster.Nodes[dies])
			for deadline := time.Now().Add(time.Minute); ; {
				err := s.Record(t.Context(), waits) // all of it, though most is there
				if err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
			gaps, err := s.Gaps(t.Context(), time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			lost := make(map[identity.Team]int64)
			for _, g := range gaps {
				lost[g.Team] += g.Requests
			}
			for _, team := range teams {
				if requests(team) != 2 || lost[team] != 2 {
					t.Errorf("%d requests of %s are recorded and %d lost, want 2 and 2", requests(team), team, lost[team])
				}
			}
		})
	}
}
