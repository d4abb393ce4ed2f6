package redisstore_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"crossfade/gateway/luigi"
	"crossfade/gateway/luigi/luigitest"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

func TestInProcessConformsToLuigi(t *testing.T) {
	t.Parallel()
	luigitest.TestStore(t, func(t *testing.T) luigi.Store { return newInProcess(t) })
}

func TestInProcessForgetsInTime(t *testing.T) {
	t.Parallel()
	luigitest.TestLives(t, newClocked)
}

// newClocked returns a store on a Redis in the process, whose clock is moved by
// hand.
func newClocked(t *testing.T) luigitest.Clocked {
	t.Helper()
	return clocked(newInProcess(t))
}

func clocked(p *redisstore.InProcess) luigitest.Clocked {
	now := time.Now()
	p.SetClock(now, 0)
	return luigitest.Clocked{Store: p, Now: func() time.Time { return now }, Advance: func(d time.Duration) {
		now = now.Add(d)
		p.SetClock(now, d)
	}}
}

func TestRealRedisConformsToLuigi(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	var n atomic.Int64
	luigitest.TestStore(t, func(t *testing.T) luigi.Store {
		return newStore(t, redisstore.Options{URL: server.URL(), Prefix: fmt.Sprintf("test%d", n.Add(1))})
	})
}

func TestClusterConformsToLuigi(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t, "--cluster-enabled", "yes")
	c := client(t, server)
	if err := c.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cluster is up", func() bool {
		return strings.Contains(c.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
	var n atomic.Int64
	luigitest.TestStore(t, func(t *testing.T) luigi.Store {
		return newStore(t, redisstore.Options{URL: server.URL() + "?cluster=true", Prefix: fmt.Sprintf("test%d", n.Add(1))})
	})
}
