package redisstore_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"crossfade/rollout"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// TestClusterConforms runs the suite on a Cluster of one node. It refuses
// scripts whose keys lie on different slots just as a large one does.
func TestClusterConforms(t *testing.T) {
	server := rollouttest.StartRedis(t, "--cluster-enabled", "yes")
	c := client(t, server)
	if err := c.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cluster is up", func() bool {
		return strings.Contains(c.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
	var n atomic.Int64
	rollouttest.TestStore(t, func(t *testing.T) rollout.Store {
		return newStore(t, redisstore.Options{URL: server.URL() + "?cluster=true", Prefix: fmt.Sprintf("test%d", n.Add(1))})
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

// TestClusterOfThreeConforms spreads the keys over three nodes.
func TestClusterOfThreeConforms(t *testing.T) {
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
