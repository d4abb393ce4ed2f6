package app_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"crossfade/rollout"
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
	g.send(etl(addTask("enforced", "LoadUsers")))
	g.send(search(addTask("free", "LoadUsers")))
	asBefore(t, g, "before")
	sent, made := int64(6), 1
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
