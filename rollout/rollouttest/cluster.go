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

// nodeTimeout is after which time a node that says nothing is taken for dead, in
// milliseconds.
const nodeTimeout = 2000

// Cluster is a Redis Cluster of three masters, without replicas unless AddReplica
// is called.
type Cluster struct {
	// Nodes are its masters.
	Nodes [3]*Redis

	ids   [3]string
	buses [3]int
}

// StartCluster starts three servers, shares the slots among them and waits until
// each knows all others. They stop at the end of the test. Further arguments are
// settings of all of them.
func StartCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{}
	for i := range c.Nodes {
		c.Nodes[i], c.buses[i] = startNode(t, args...)
		c.ids[i] = c.Nodes[i].Do(t, "CLUSTER", "MYID")
		c.Nodes[i].Do(t, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/3), strconv.Itoa((i+1)*slots/3-1))
		c.Nodes[i].Do(t, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		if i > 0 {
			c.meet(t, c.Nodes[i], c.buses[i])
		}
	}
	wait(t, "the cluster is complete", func() bool {
		for _, n := range c.Nodes {
			if info := n.Do(t, "CLUSTER", "INFO"); !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3") {
				return false
			}
		}
		return true
	})
	return c
}

// startNode starts a server that belongs to no cluster yet. The second port of a
// node is 10000 above unless it is said.
func startNode(t testing.TB, args ...string) (node *Redis, bus int) {
	t.Helper()
	bus = Port(t)
	return StartRedis(t, append([]string{
		"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus), "--cluster-node-timeout", strconv.Itoa(nodeTimeout),
	}, args...)...), bus
}

func (c *Cluster) meet(t testing.TB, node *Redis, bus int) {
	t.Helper()
	c.Nodes[0].Do(t, "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(node.port), strconv.Itoa(bus))
}

// AddReplica starts a replica of a master, which takes over when that dies, and
// waits until it has what the master has and every node knows it. Settings are as
// those of StartCluster.
func (c *Cluster) AddReplica(t testing.TB, master int, args ...string) *Redis {
	t.Helper()
	replica, bus := startNode(t, append([]string{"--repl-diskless-sync-delay", "0"}, args...)...)
	id := replica.Do(t, "CLUSTER", "MYID")
	c.meet(t, replica, bus)
	wait(t, "the replica knows its master", func() bool { return strings.Contains(replica.Do(t, "CLUSTER", "NODES"), c.ids[master]) })
	replica.Do(t, "CLUSTER", "REPLICATE", c.ids[master])
	wait(t, "the replica follows and all know it", func() bool {
		for _, n := range c.Nodes {
			if !strings.Contains(line(n.Do(t, "CLUSTER", "NODES"), id), "slave "+c.ids[master]) {
				return false
			}
		}
		return strings.Contains(replica.Do(t, "INFO", "replication"), "master_link_status:up")
	})
	return replica
}

// Follows waits until a replica has all that its master has. Nobody may write
// meanwhile.
func (r *Redis) Follows(t testing.TB, master *Redis) {
	t.Helper()
	offset := func(r *Redis, name string) string { return line(r.Do(t, "INFO", "replication"), name) }
	wait(t, "the replica has all", func() bool {
		_, has, _ := strings.Cut(offset(r, "slave_repl_offset:"), ":")
		_, want, _ := strings.Cut(offset(master, "master_repl_offset:"), ":")
		return has != "" && has == want
	})
}

// line is the first line of a text that begins with a word.
func line(text, word string) string {
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, word) {
			return l
		}
	}
	return ""
}

// Owner returns which master a key belongs to, as long as no slot has moved.
func (c *Cluster) Owner(t testing.TB, key string) (master int) {
	t.Helper()
	n, err := strconv.Atoi(c.Nodes[0].Do(t, "CLUSTER", "KEYSLOT", key))
	if err != nil {
		t.Fatal(err)
	}
	for n >= (master+1)*slots/3 {
		master++
	}
	return master
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
	m := &Move{cluster: c, slot: c.Nodes[0].Do(t, "CLUSTER", "KEYSLOT", key), from: c.Owner(t, key)}
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
