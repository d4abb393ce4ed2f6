package redisstore_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

func TestInProcessConformsToEvidence(t *testing.T) {
	rollouttest.TestEvidence(t, func(t *testing.T) evidence.Store { return newInProcess(t) })
}

func TestRealRedisConformsToEvidence(t *testing.T) {
	server := rollouttest.StartRedis(t)
	var n atomic.Int64
	rollouttest.TestEvidence(t, func(t *testing.T) evidence.Store {
		return newStore(t, redisstore.Options{URL: server.URL(), Prefix: fmt.Sprintf("test%d", n.Add(1))})
	})
}
