package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

const team identity.Team = "data-eng"

// eventually waits until the condition holds. The bound is only reached by a
// test that fails.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// client returns a plain connection, to look at the keys.
func client(t *testing.T, server *rollouttest.Redis) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func newTable(t *testing.T, s rollout.Store, poll time.Duration) *rollout.Table {
	t.Helper()
	table, err := rollout.NewTable(rollout.TableOptions{Store: s, Poll: poll})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

func set(t *testing.T, s rollout.Writer, percent rollout.Percent) {
	t.Helper()
	if _, err := s.Write(t.Context(), rollout.Change{Team: team, Percent: percent, Expect: rollout.AnyRevision}); err != nil {
		t.Fatal(err)
	}
}

func percent(table *rollout.Table) rollout.Percent {
	s, _ := table.Lookup(team)
	return s.Percent
}

func TestKeysAreThoseOfTheDesign(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s := newStore(t, redisstore.Options{URL: server.URL()})
	set(t, s, 25)
	set(t, s, 10)
	key := rollout.NewLatchKey(team, "svc-etl", "worker")
	made := time.UnixMilli(time.Now().UnixMilli()).UTC()
	if _, err := s.Latch(t.Context(), key, rollout.Latch{Enforced: true, Revision: 2, Pipeline: "Load", At: made}, 0); err != nil {
		t.Fatal(err)
	}
	c := client(t, server)
	for name, kind := range map[string]string{
		"crossfade:store": "hash", "crossfade:teams": "set", "crossfade:{data-eng}:rollout": "hash",
		"crossfade:{data-eng}:history": "stream", "crossfade:{data-eng}:latch:" + key.Run: "string",
		"crossfade:{data-eng}:latched:enforced": "zset",
	} {
		if got := c.Type(t.Context(), name).Val(); got != kind {
			t.Errorf("key %s is of type %s, want %s", name, got, kind)
		}
	}
	if n := c.DBSize(t.Context()).Val(); n != 6 {
		t.Errorf("%d keys: %v", n, c.Keys(t.Context(), "*").Val())
	}
	want := fmt.Sprintf("1|1|2|%d|Load", made.UnixMilli())
	if got := c.Get(t.Context(), "crossfade:{data-eng}:latch:"+key.Run).Val(); got != want {
		t.Errorf("the latch is kept as %q, want %q", got, want)
	}
}

// TestALatchSlidesAndEnds looks at the time to live, with the server's clock.
func TestALatchSlidesAndEnds(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s, c := newStore(t, redisstore.Options{URL: server.URL()}), client(t, server)
	key := rollout.NewLatchKey(team, "svc-etl", "worker")
	name := "crossfade:{data-eng}:latch:" + key.Run
	latch := rollout.Latch{Revision: 1, At: time.Now()}
	within := func(when string, low, high time.Duration) {
		t.Helper()
		if ttl := c.PTTL(t.Context(), name).Val(); ttl <= low || ttl > high {
			t.Errorf("%s it lives for %v, want more than %v and at most %v", when, ttl, low, high)
		}
	}
	again := func(call func() error) {
		t.Helper()
		c.PExpire(t.Context(), name, time.Minute)
		if err := call(); err != nil {
			t.Fatal(err)
		}
	}
	doLatch := func() error { _, err := s.Latch(t.Context(), key, latch, 0); return err }
	doAsk := func() error { _, _, err := s.Latched(t.Context(), key); return err }
	again(doLatch)
	within("once latched", 10*time.Minute, rollout.LatchIdle)
	again(doLatch)
	within("latched again", 10*time.Minute, rollout.LatchIdle)
	again(doAsk)
	within("asked about", 10*time.Minute, rollout.LatchIdle)

	c.Del(t.Context(), name)
	latch.At = time.Now().Add(5*time.Minute - rollout.LatchMax)
	again(doLatch)
	within("five minutes before its seven days end", 0, 5*time.Minute)
	again(doAsk)
	within("asked about then", 0, 5*time.Minute)
}

// TestCountingLatchesTakesBoundedMemory looks at the sets that latches are counted
// by, with the server's clock.
func TestCountingLatchesTakesBoundedMemory(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s, c := newStore(t, redisstore.Options{URL: server.URL()}), client(t, server)
	latch := func(n int, l rollout.Latch) {
		t.Helper()
		if _, err := s.Latch(t.Context(), rollout.NewLatchKey(team, "svc-etl", fmt.Sprint(n)), l, 0); err != nil {
			t.Fatal(err)
		}
	}
	count := func() rollout.LatchCount {
		t.Helper()
		n, err := s.CountLatches(t.Context(), team)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const name = "crossfade:{data-eng}:latched:unenforced"
	long := time.Now().Add(-time.Hour).UnixMilli()
	c.ZAdd(t.Context(), name, redis.Z{Score: float64(long), Member: "ended long ago"})
	if got := count(); got != (rollout.LatchCount{}) {
		t.Errorf("what has ended is counted: %+v", got)
	}
	latch(0, rollout.Latch{At: time.Now()})
	if got := c.ZCard(t.Context(), name).Val(); got != 1 {
		t.Errorf("%d members, of which one has not ended", got)
	}
	if ttl := c.PTTL(t.Context(), name).Val(); ttl <= 10*time.Minute || ttl > rollout.LatchIdle {
		t.Errorf("the set lives for %v, want as long as a latch", ttl)
	}

	s.CountAtMost(10)
	soon := rollout.Latch{At: time.Now().Add(time.Minute - rollout.LatchMax)}
	latch(1, soon)
	for n := range 15 {
		latch(2+n, rollout.Latch{At: time.Now()})
	}
	if got := count(); got.Unenforced != 10 {
		t.Errorf("%d are counted, want at most 10", got.Unenforced)
	}
	if c.ZScore(t.Context(), name, rollout.NewLatchKey(team, "svc-etl", "1").Run).Err() == nil {
		t.Error("the one that ends first is kept")
	}
	if _, ok, err := s.Latched(t.Context(), rollout.NewLatchKey(team, "svc-etl", "3")); err != nil || !ok {
		t.Errorf("a latch that is not counted is gone: %v, %v", ok, err)
	}
}

func TestTheStoreGoesAwayAndComesBack(t *testing.T) {
	t.Parallel()
	// Every write is on disk before it is answered, so that a crash loses none.
	server := rollouttest.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	s := newStore(t, redisstore.Options{URL: server.URL()})
	set(t, s, 25)
	table := newTable(t, s, 20*time.Millisecond)
	runs, err := rollout.NewRuns(rollout.RunsOptions{Table: table, Store: s, Stickiness: rollout.StickPrincipal, LatchRuns: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = runs.Close() })
	ask := func(id string) rollout.Enforcement {
		return runs.Enforce(t.Context(), rollout.Run{Team: team, Principal: "svc-etl", ID: id}, false)
	}
	eventually(t, "the table is loaded", func() bool { return percent(table) == 25 })
	if got := ask("first"); !got.Latched || got.Stale {
		t.Fatalf("a run while all is well: %+v", got)
	}

	server.Stop()
	eventually(t, "the table notices", func() bool { return errors.Is(table.Err(), rollout.ErrUnavailable) })
	if percent(table) != 25 || table.Regressed() {
		t.Errorf("without its store the table says %d percent, regressed %v", percent(table), table.Regressed())
	}
	if got := ask("first"); !got.Latched || got.Stale {
		t.Errorf("the run without the store: %+v", got)
	}
	if got := ask("second"); got.Latched || !got.Stale {
		t.Errorf("a new run without the store: %+v", got)
	}
	if _, err := s.Write(t.Context(), rollout.Change{Team: team, Percent: 1}); !errors.Is(err, rollout.ErrUnavailable) {
		t.Errorf("a change without the store: %v", err)
	}

	server.Start(t)
	eventually(t, "the table is well again", func() bool { return table.Err() == nil })
	eventually(t, "new runs are latched again", func() bool { return ask("second").Latched })
	set(t, s, 50)
	eventually(t, "the table hears of changes again", func() bool { return percent(table) == 50 })
}

// TestAServerThatHangs proves that the deadline of a call holds, although the
// read timeout is longer, and that no late answer is taken for another call's.
func TestAServerThatHangs(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s := newStore(t, redisstore.Options{URL: server.URL()})
	set(t, s, 25)
	keys := make([]rollout.LatchKey, 20)
	for i := range keys {
		keys[i] = rollout.NewLatchKey(team, "svc-etl", fmt.Sprint("worker-", i))
	}
	latch := func(ctx context.Context, i int) (rollout.Latch, error) {
		return s.Latch(ctx, keys[i], rollout.Latch{Revision: int64(i), At: time.Now()}, 0)
	}
	if _, err := latch(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	server.Pause(t)
	for i := range keys {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		_, err := latch(ctx, i)
		if !errors.Is(err, rollout.ErrUnavailable) {
			t.Errorf("a call to a server that hangs: %v, want ErrUnavailable", err)
		}
		cancel()
	}
	server.Resume(t)
	for i := range keys {
		if got, err := latch(t.Context(), i); err != nil || got.Revision != int64(i) {
			t.Errorf("run %d afterwards: %+v, %v", i, got, err)
		}
	}
}

func TestMessagesArriveAgainAfterARestart(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	s := newStore(t, redisstore.Options{URL: server.URL()})
	set(t, s, 25)
	ctx, cancel := context.WithCancel(t.Context())
	heard, ended := make(chan identity.Team, 100), make(chan error, 1)
	go func() { ended <- s.Watch(ctx, func(team identity.Team) { heard <- team }) }()
	next := func(want identity.Team) {
		t.Helper()
		select {
		case got := <-heard:
			if got != want {
				t.Errorf("heard of %q, want %q", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("heard nothing of %q", want)
		}
	}
	next("")
	server.Stop()
	server.Start(t)
	next("") // connected again, so something may have been missed
	set(t, s, 50)
	next(team)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ended with %v", err)
	}
}

// TestALostMessageIsHealedByPolling changes the rollout under a prefix whose
// channel nobody publishes to.
func TestALostMessageIsHealedByPolling(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s, c := newStore(t, redisstore.Options{URL: server.URL()}), client(t, server)
	set(t, s, 25)
	table := newTable(t, s, 20*time.Millisecond)
	eventually(t, "the table is loaded", func() bool { return percent(table) == 25 })
	c.HSet(t.Context(), "crossfade:{data-eng}:rollout", "percent", 50, "revision", 2, "updated_at", 1)
	eventually(t, "polling finds the change", func() bool { return percent(table) == 50 })
}

func TestStoreRegressed(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*testing.T, *redis.Client, *rollouttest.Redis){
		"flushed": func(t *testing.T, c *redis.Client, _ *rollouttest.Redis) {
			if err := c.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		},
		"restarted empty": func(t *testing.T, _ *redis.Client, server *rollouttest.Redis) {
			server.Stop()
			server.Start(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := rollouttest.StartRedis(t)
			s, c := newStore(t, redisstore.Options{URL: server.URL()}), client(t, server)
			set(t, s, 25)
			table := newTable(t, s, 20*time.Millisecond)
			eventually(t, "the table is loaded", func() bool { return percent(table) == 25 })
			lose(t, c, server)
			regressed(t, table, 25)
		})
	}
	t.Run("restored to an older revision", func(t *testing.T) {
		server := rollouttest.StartRedis(t)
		s, c := newStore(t, redisstore.Options{URL: server.URL()}), client(t, server)
		set(t, s, 25)
		if err := c.Save(t.Context()).Err(); err != nil { // the backup
			t.Fatal(err)
		}
		set(t, s, 50)
		table := newTable(t, s, 20*time.Millisecond)
		eventually(t, "the table is loaded", func() bool { return percent(table) == 50 })
		server.Stop()
		server.Start(t)
		regressed(t, table, 50)
		if got := load(t, s).Teams[team]; got.Percent != 25 || got.Revision != 1 {
			t.Errorf("the backup holds %+v", got)
		}
	})
}

// regressed checks that the table noticed, stays and refuses changes.
func regressed(t *testing.T, table *rollout.Table, want rollout.Percent) {
	t.Helper()
	eventually(t, "the table notices", table.Regressed)
	if percent(table) != want {
		t.Errorf("the table says %d percent, want %d", percent(table), want)
	}
	if _, err := table.Write(t.Context(), rollout.Change{Team: team, Percent: 0, Expect: rollout.AnyRevision}); !errors.Is(err, rollout.ErrRegressed) {
		t.Errorf("a change: %v, want ErrRegressed", err)
	}
}

func TestDamagedKeysAreNamed(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	c := client(t, server)
	for name, tc := range map[string]struct {
		key, field, value string
		want              string
	}{
		"a percentage that is none":  {"crossfade:{data-eng}:rollout", "percent", "half", `team "data-eng" is damaged: field percent: "half" is not a number`},
		"a percentage above 100":     {"crossfade:{data-eng}:rollout", "percent", "101", `field percent: 101 is above 100`},
		"a revision below 0":         {"crossfade:{data-eng}:rollout", "revision", "-1", `field revision: "-1" is not a number`},
		"a store without a schema":   {"crossfade:store", "schema", "", "key crossfade:store is damaged"},
		"a store of a later version": {"crossfade:store", "schema", "2", "key crossfade:store has schema 2, this version knows 1: run a newer one"},
	} {
		c.FlushAll(t.Context())
		s := newStore(t, redisstore.Options{URL: server.URL()})
		set(t, s, 25)
		c.HSet(t.Context(), tc.key, tc.field, tc.value)
		if _, err := s.Load(t.Context()); !errors.Is(err, rollout.ErrUnavailable) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want an error that says %q", name, err, tc.want)
		}
	}
}

// TestAWriteThatIsSentTwiceCountsOnce lets the client lose the answer of the
// script and try again, as a client with retries does.
func TestAWriteThatIsSentTwiceCountsOnce(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	c := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = c.Close() })
	c.AddHook(twice{})
	s := newStore(t, redisstore.Options{Client: c})
	set(t, s, 25)
	set(t, s, 50)
	if got := load(t, s).Teams[team]; got.Revision != 2 || got.Percent != 50 {
		t.Errorf("after two changes: %+v", got)
	}
	if log, err := s.History(t.Context(), team, 10); err != nil || len(log) != 2 {
		t.Errorf("history: %v, %v", log, err)
	}
}

// twice sends every script two times.
type twice struct{}

func (twice) DialHook(next redis.DialHook) redis.DialHook { return next }
func (twice) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (twice) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if name := cmd.Name(); err == nil && (name == "eval" || name == "evalsha") {
			return next(ctx, cmd)
		}
		return err
	}
}

// TestInProcessReadsManyTeams reads more in one round trip than fits into the
// buffers of a connection in memory.
func TestInProcessReadsManyTeams(t *testing.T) {
	t.Parallel()
	p := newInProcess(t)
	const n = 400
	for i := range n {
		c := rollout.Change{Team: identity.Team(fmt.Sprint("team-", i)), Percent: 25}
		if _, err := p.Write(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(load(t, p).Teams); got != n {
		t.Errorf("%d teams are read, want %d", got, n)
	}
}

func TestInProcessLatchesExpire(t *testing.T) {
	t.Parallel()
	p := newInProcess(t)
	key := rollout.NewLatchKey(team, "svc-etl", "worker")
	// It has half a second left of its seven days.
	l := rollout.Latch{At: time.Now().Add(500*time.Millisecond - rollout.LatchMax)}
	if _, err := p.Latch(t.Context(), key, l, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the latch is gone", func() bool {
		_, ok, err := p.Latched(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return !ok
	})
}
