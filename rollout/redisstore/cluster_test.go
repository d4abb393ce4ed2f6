package redisstore_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// TestClusterConforms runs the suite on a Cluster that spreads the keys over three
// nodes, and looks that each has some.
func TestClusterConforms(t *testing.T) {
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
	cluster := rollouttest.StartCluster(t)
	var n atomic.Int64
	rollouttest.TestEvidence(t, func(t *testing.T) evidence.Store {
		return newStore(t, redisstore.Options{URL: cluster.URL(), Prefix: fmt.Sprintf("test%d", n.Add(1))})
	})
}

// TestSentinelConforms finds the server by asking a Sentinel for it.
func TestSentinelConforms(t *testing.T) {
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
