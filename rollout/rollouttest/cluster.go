package rollouttest

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// slots is how many a Redis Cluster has.
const slots = 16384

// Cluster is a Redis Cluster of three masters without replicas.
type Cluster struct {
	// Nodes are its servers.
	Nodes [3]*Redis

	ids [3]string
}

// StartCluster starts three servers, shares the slots among them and waits until
// each knows all others. They stop at the end of the test.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{}
	for i := range c.Nodes {
		// The second port of a node is 10000 above unless it is said.
		bus, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		c.Nodes[i] = StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus), "--cluster-node-timeout", "2000")
		c.ids[i] = c.Nodes[i].Do(t, "CLUSTER", "MYID")
		c.Nodes[i].Do(t, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/3), strconv.Itoa((i+1)*slots/3-1))
		c.Nodes[i].Do(t, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		if i > 0 {
			c.Nodes[0].Do(t, "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(c.Nodes[i].port), strconv.Itoa(bus))
		}
	}
	wait(t, "the cluster is complete", func() bool {
		for _, n := range c.Nodes {
			info := n.Do(t, "CLUSTER", "INFO")
			if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3") {
				return false
			}
		}
		return true
	})
	return c
}

// URL names all nodes.
func (c *Cluster) URL() string {
	more := url.Values{"cluster": {"true"}}
	for _, n := range c.Nodes[1:] {
		more.Add("addr", n.Addr)
	}
	return c.Nodes[0].URL() + "?" + more.Encode()
}

// Move is a slot on its way from one node to another. Clients are sent after its
// keys by ASK meanwhile, and by MOVED after Finish.
type Move struct {
	cluster  *Cluster
	slot     string
	from, to int
}

// BeginMove begins to move the slot of a key to another node, and moves none of
// its keys yet.
func (c *Cluster) BeginMove(t testing.TB, key string) *Move {
	t.Helper()
	m := &Move{cluster: c, slot: c.Nodes[0].Do(t, "CLUSTER", "KEYSLOT", key)}
	n, err := strconv.Atoi(m.slot)
	if err != nil {
		t.Fatal(err)
	}
	for n >= (m.from+1)*slots/3 {
		m.from++
	}
	m.to = (m.from + 1) % len(c.Nodes)
	c.Nodes[m.to].Do(t, "CLUSTER", "SETSLOT", m.slot, "IMPORTING", c.ids[m.from])
	c.Nodes[m.from].Do(t, "CLUSTER", "SETSLOT", m.slot, "MIGRATING", c.ids[m.to])
	return m
}

// MoveKey moves one key of the slot.
func (m *Move) MoveKey(t testing.TB, key string) {
	t.Helper()
	to := m.cluster.Nodes[m.to]
	m.cluster.Nodes[m.from].Do(t, "MIGRATE", "127.0.0.1", strconv.Itoa(to.port), key, "0", fmt.Sprint(patience.Milliseconds()))
}

// Finish moves what is left and gives the slot to its new node.
func (m *Move) Finish(t testing.TB) {
	t.Helper()
	from := m.cluster.Nodes[m.from]
	for {
		keys := from.Do(t, "CLUSTER", "GETKEYSINSLOT", m.slot, "100")
		if keys == "" {
			break
		}
		for key := range strings.SplitSeq(keys, "\n") {
			m.MoveKey(t, key)
		}
	}
	for _, i := range []int{m.to, m.from} {
		m.cluster.Nodes[i].Do(t, "CLUSTER", "SETSLOT", m.slot, "NODE", m.cluster.ids[m.to])
	}
}
