package app_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// TestASlotMovesWhileItIsInUse moves the slot of a team from one node of a
// Cluster to another, key by key, under a gateway that goes on.
func TestASlotMovesWhileItIsInUse(t *testing.T) {
	t.Parallel()
	cluster := rollouttest.StartCluster(t)
	set(t, cluster.URL(), "data-eng", 100)
	set(t, cluster.URL(), "search", 0)
	s := newSite(t)
	s.configure("redis", fmt.Sprintf("%q", cluster.URL()))
	g := s.start().loaded()
	sent, made := g.enforces()+5, 1
	g.send(search(addTask("free", "LoadUsers")))
	asBefore(t, g, "before")
	// use is what goes on: requests, new runs, and a change that is made or
	// refused and never lost.
	use := func(when string) {
		t.Helper()
		asBefore(t, g, when)
		for _, w := range []string{"one", "two", "three"} {
			if got := g.send(search(addTask(when+w, "LoadUsers"))); got.status != 200 {
				t.Errorf("%s, a new run: %v", when, got)
			}
		}
		sent += 4 + 3
		_, err := g.Table().Write(t.Context(), rollout.Change{
			Team: "search", Percent: 0, Expect: rollout.AnyRevision, Actor: "lead", Source: "cli", Reason: when,
		})
		switch {
		case err == nil:
			made++
		case !errors.Is(err, rollout.ErrUnavailable):
			t.Errorf("%s, a change: %v", when, err)
		}
	}
	use("before the move")
	key := "crossfade:{search}:rollout"
	move := cluster.BeginMove(t, key)
	use("while all keys are at the old node")
	move.MoveKey(t, key)
	use("while the percentage is at the new node and the history at the old one")
	move.MoveKey(t, "crossfade:{search}:history")
	use("while percentage and history are at the new node")
	move.Finish(t)
	use("after the move")
	s.eventually("the gateway is well again", func() bool { return g.Table().Refresh(t.Context()) == nil })
	set(t, cluster.URL(), "search", 25)
	made++
	g.reaches("search", 25)
	entries := history(t, cluster.URL())
	if len(entries) != made || made < 5 {
		t.Errorf("%d changes were made and %d are in the history: %+v", made, len(entries), entries)
	}
	s.eventually("every request is recorded, once", func() bool { return requests(t, cluster.URL()) == sent })
	if got := g.metric("crossfade_evidence_lost_total"); got != "0" {
		t.Errorf("%s observations are lost, want none", got)
	}
}

// soonDead are the settings of nodes that are taken for dead after a second, and
// lose nothing.
var soonDead = append([]string{"--cluster-node-timeout", "1000"}, durable...)

// nodeDeath is a way in which a node of a Cluster goes away.
type nodeDeath struct {
	settings   []string
	begin, end func(*testing.T, *rollouttest.Redis)
	// all: no team can be read or changed.
	all bool
}

// TestANodeOfAClusterDies takes the node away that has team search, and not team
// data-eng, under a gateway that goes on, and brings it back.
func TestANodeOfAClusterDies(t *testing.T) {
	t.Parallel()
	// Without the first a Cluster refuses everything as soon as one slot is missing.
	open := append([]string{"--cluster-require-full-coverage", "no"}, soonDead...)
	for name, test := range map[string]nodeDeath{
		"killed, and the others go on": {
			settings: open,
			begin:    func(_ *testing.T, r *rollouttest.Redis) { r.Stop() }, end: func(t *testing.T, r *rollouttest.Redis) { r.Start(t) },
		},
		"hanging, and the others go on": {
			settings: open,
			begin:    func(t *testing.T, r *rollouttest.Redis) { r.Pause(t) }, end: func(t *testing.T, r *rollouttest.Redis) { r.Resume(t) },
		},
		"killed, and the others refuse everything": {
			settings: soonDead, all: true,
			begin: func(_ *testing.T, r *rollouttest.Redis) { r.Stop() }, end: func(t *testing.T, r *rollouttest.Redis) { r.Start(t) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodeDies(t, test)
		})
	}
}

// nodeDies takes a node away from a gateway that is in use, and brings it back.
func nodeDies(t *testing.T, test nodeDeath) {
	t.Helper()
	cluster := rollouttest.StartCluster(t, test.settings...)
	dies := cluster.Owner(t, "crossfade:{search}:rollout")
	for _, key := range []string{"crossfade:{data-eng}:rollout", "crossfade:store", "crossfade:teams"} {
		if cluster.Owner(t, key) == dies {
			t.Fatalf("%s is on the node that dies", key)
		}
	}
	set(t, cluster.URL(), "data-eng", 100)
	set(t, cluster.URL(), "search", 0)
	s := newSite(t)
	s.configure("redis", fmt.Sprintf("%q", cluster.URL()))
	g := s.start().loaded()
	g.send(search(addTask("free", "LoadUsers")))
	sent := 1 + g.enforces()
	asBefore(t, g, "before")
	sent += 4
	s.eventually("what was learned is recorded", func() bool { return requests(t, cluster.URL()) == sent })
	etls := counted(t, cluster.URL(), "data-eng")

	test.begin(t, cluster.Nodes[dies])
	s.eventually("the gateway knows", func() bool {
		var partial *rollout.PartialError
		err := g.Table().Err()
		return errors.Is(err, rollout.ErrUnavailable) && errors.As(err, &partial) != test.all
	})
	asBefore(t, g, "while it lasts")
	sent += 4
	etls += 2
	for i := range 10 {
		if got := g.send(search(addTask(fmt.Sprint("new-", i), "LoadUsers"))); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
			t.Errorf("a new run at 0%% while it lasts: %v", got)
		}
		// By the lower one of the last two percentages, where latches cannot be had.
		if got := g.send(etl(addTask(fmt.Sprint("new-", i), "LoadUsers"))); got.status != 200 {
			t.Errorf("a new run at 100%% while it lasts: %v", got)
		}
		sent += 2
		etls++
	}
	change := func(team identity.Team, percent rollout.Percent) error {
		_, err := g.Table().Write(t.Context(), rollout.Change{Team: team, Percent: percent, Expect: rollout.AnyRevision, Actor: "lead", Source: "cli"})
		return err
	}
	if err := change("search", 50); !errors.Is(err, rollout.ErrUnavailable) {
		t.Errorf("a change of a team that is away: %v", err)
	}
	if got := g.fetch("/readyz"); got.status != 200 || !strings.Contains(got.body, "cannot be read, and the percentages of") {
		t.Errorf("/readyz while it lasts: %v", got)
	}
	if test.all {
		if err := change("data-eng", 100); !errors.Is(err, rollout.ErrUnavailable) || !strings.Contains(err.Error(), "CLUSTERDOWN") {
			t.Errorf("a change of another team: %v", err)
		}
	} else {
		s.eventually("another team can be changed", func() bool { return change("data-eng", 100) == nil })
		aside(t, cluster.URL(), "data-eng", 90)
		g.reaches("data-eng", 90)
		aside(t, cluster.URL(), "data-eng", 100)
		g.reaches("data-eng", 100)
		s.eventually("what is learned of another team is recorded", func() bool { return counted(t, cluster.URL(), "data-eng") == etls })
		if log := g.log.String(); !strings.Contains(log, "of search nothing can be read, all other teams can") {
			t.Errorf("the log does not say what is away:\n%s", log)
		}
	}
	if state, ok := g.Table().Lookup("search"); !ok || state.Revision != 1 || state.Percent != 0 {
		t.Errorf("the team that is away: %+v", state)
	}

	test.end(t, cluster.Nodes[dies])
	s.eventually("the gateway is well again", func() bool { return g.Table().Refresh(t.Context()) == nil })
	s.eventually("every request is recorded, once", func() bool { return requests(t, cluster.URL()) == sent })
	if got := g.metric("crossfade_evidence_lost_total"); got != "0" {
		t.Errorf("%s observations are lost, want none", got)
	}
	s.eventually("/readyz is well again", func() bool { return g.fetch("/readyz").body == "ok\n" })
	set(t, cluster.URL(), "search", 25)
	g.reaches("search", 25)
	if entries := history(t, cluster.URL()); len(entries) != 2 || entries[0].To != 25 {
		t.Errorf("the history of search: %+v", entries)
	}
}

// counted is how many requests of a team are recorded today; -1 if that cannot be
// read.
func counted(t *testing.T, url string, team identity.Team) int64 {
	t.Helper()
	store, err := redisstore.New(redisstore.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	d, err := store.Daily(ctx, team, evidence.DayOf(time.Now()))
	if err != nil {
		return -1
	}
	return d.Requests()
}

// aside changes a team as the command line does, past the gateway.
func aside(t *testing.T, url string, team identity.Team, percent rollout.Percent) {
	t.Helper()
	store, err := redisstore.New(redisstore.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := rollout.Update(ctx, store, team, func(s rollout.State) (rollout.Change, error) {
		return rollout.Set(s, rollout.Setting{Percent: percent, Actor: "lead", Source: "cli"}, time.Now()), nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestAReplicaOfAClusterTakesOver kills the node that has the id of the store and
// team data-eng, and has a replica.
func TestAReplicaOfAClusterTakesOver(t *testing.T) {
	t.Parallel()
	cluster := rollouttest.StartCluster(t, soonDead...)
	dies := cluster.Owner(t, "crossfade:{data-eng}:rollout")
	replica := cluster.AddReplica(t, dies, soonDead...)
	set(t, cluster.URL(), "data-eng", 100)
	set(t, cluster.URL(), "search", 0)
	s := newSite(t)
	s.configure("redis", fmt.Sprintf("%q", cluster.URL()))
	g := s.start().loaded()
	g.send(search(addTask("free", "LoadUsers")))
	sent := 1 + g.enforces()
	asBefore(t, g, "before")
	sent += 4
	s.eventually("what was learned is recorded", func() bool { return requests(t, cluster.URL()) == sent })
	replica.Follows(t, cluster.Nodes[dies])

	cluster.Nodes[dies].Stop()
	s.eventually("the gateway knows", func() bool { return errors.Is(g.Table().Err(), rollout.ErrUnavailable) })
	asBefore(t, g, "before the replica has taken over")
	sent += 4
	s.eventually("the gateway is well again", func() bool { return g.Table().Refresh(t.Context()) == nil })
	if !strings.Contains(replica.Do(t, "INFO", "replication"), "role:master") {
		t.Error("it is well without that the replica has taken over")
	}
	asBefore(t, g, "afterwards")
	sent += 4
	s.eventually("every request is recorded, once", func() bool { return requests(t, cluster.URL()) == sent })
	if got := g.metric("crossfade_evidence_lost_total"); got != "0" {
		t.Errorf("%s observations are lost, want none", got)
	}
	for _, team := range []identity.Team{"data-eng", "search"} {
		set(t, cluster.URL(), team, 25)
		g.reaches(team, 25)
	}
}

// TestTwoReplicasNeverBothApply lets two replicas follow the same file while Redis
// is killed, hangs and forgets who had the lease, and looks whether each change
// was made once.
func TestTwoReplicasNeverBothApply(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t, durable...)
	set(t, redis.URL(), "search", 100)
	s := newSite(t)
	s.rollouts()
	s.configure("redis", redis.URL())
	s.lead("search", "percent: 100\n")
	replicas := []*gateway{s.start().loaded(), s.start().loaded()}
	s.eventually("the file is followed", func() bool { return history(t, redis.URL())[0].Source == "file" })
	for i, trouble := range []func(){
		func() {},
		func() { redis.Stop(); redis.Start(t) },
		func() { redis.Do(t, "DEL", "crossfade:lease") },
		func() {
			redis.Pause(t)
			for _, g := range replicas {
				s.eventually("the replica knows", func() bool { return g.Table().Err() != nil })
			}
			redis.Resume(t)
		},
		func() { redis.Do(t, "DEL", "crossfade:lease"); redis.Do(t, "CLIENT", "KILL", "TYPE", "normal") },
	} {
		percent := rollout.Percent(90 - 10*i)
		s.lead("search", fmt.Sprintf("percent: %d\n", percent))
		trouble()
		for _, g := range replicas {
			g.reaches("search", percent)
		}
	}
	seen := make(map[rollout.Percent]int)
	for _, e := range history(t, redis.URL()) {
		if e.Source == "file" && e.From != e.To {
			seen[e.To]++
		}
	}
	for percent := rollout.Percent(90); percent >= 50; percent -= 10 {
		if seen[percent] != 1 {
			t.Errorf("%d%% was applied %d times", percent, seen[percent])
		}
	}
	if len(seen) != 5 {
		t.Errorf("applied: %v", seen)
	}
}

// TestAStartWithTheWrongWordsServesTokensAndSaysWhy starts with a Redis that is
// there and cannot be talked to, with and without a snapshot.
func TestAStartWithTheWrongWordsServesTokensAndSaysWhy(t *testing.T) {
	t.Parallel()
	locked := rollouttest.StartRedis(t, "--requirepass", "right-pass")
	secure, caFile := rollouttest.StartTLS(t)
	for name, test := range map[string]struct{ redis, says string }{
		"a wrong password":         {strings.Replace(locked.URL(), "redis://", "redis://:wrong-pass@", 1), "look at the user and the password"},
		"no password":              {locked.URL(), "asks for a password"},
		"no TLS where it is asked": {"redis://" + secure.Addr, "use rediss://"},
		"TLS where it is not":      {"rediss://" + locked.Addr, "does not answer the TLS handshake"},
		"an unknown authority":     {secure.URL(), "redis.ca_file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.configure("redis", fmt.Sprintf("%q", test.redis))
			g := s.start()
			s.eventually("the log says why", func() bool { return strings.Contains(g.log.String(), test.says) })
			if strings.Contains(g.log.String(), "wrong-pass") {
				t.Errorf("the log holds the password:\n%s", g.log)
			}
			if got := g.fetch("/readyz"); got.status != 503 {
				t.Errorf("/readyz: %v", got)
			}
			if got := g.send(etl(pages())); got.status != 503 || got.header.Get("Crossfade-Reason") != "store_unavailable" {
				t.Errorf("a password: %v", got)
			}
			token := pages()
			token.bearer = s.token("svc-etl", audience)
			if got := g.send(token); got.status != 200 {
				t.Errorf("a token: %v", got)
			}
		})
	}
	t.Run("with the right authority it is as without TLS", func(t *testing.T) {
		t.Parallel()
		s := newSite(t)
		s.write("redis.ca", readFile(t, caFile))
		s.configure("redis", fmt.Sprintf("{ url: %q, ca_file: redis.ca }", secure.URL()))
		g := s.start().loaded()
		if got := g.fetch("/readyz"); got.status != 200 || got.body != "ok\n" {
			t.Errorf("/readyz: %v", got)
		}
	})
}
