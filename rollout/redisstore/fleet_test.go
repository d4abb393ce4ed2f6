package redisstore_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"crossfade/rollout/fleet"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

func TestInProcessConformsToFleet(t *testing.T) {
	t.Parallel()
	rollouttest.TestFleet(t, func(t *testing.T) fleet.Store { return newInProcess(t) })
}

func TestRealRedisConformsToFleet(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	var n atomic.Int64
	rollouttest.TestFleet(t, func(t *testing.T) fleet.Store {
		return newStore(t, redisstore.Options{URL: server.URL(), Prefix: fmt.Sprintf("test%d", n.Add(1))})
	})
}
