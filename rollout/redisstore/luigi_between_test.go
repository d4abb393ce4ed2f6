package redisstore_test

import (
	"context"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"crossfade/gateway/luigi"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// between lets something happen just before a client sends its next script but
// skip.
type between struct {
	roundTrips
	skip int
	do   func()
}

func (b *between) step(cmds ...redis.Cmder) {
	before := b.n
	b.count(cmds...)
	if b.n == before || b.do == nil {
		return
	}
	if b.skip--; b.skip < 0 {
		do := b.do
		b.do = nil
		do()
	}
}

func (b *between) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		b.step(cmd)
		return next(ctx, cmd)
	}
}

func (b *between) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		b.step(cmds...)
		return next(ctx, cmds)
	}
}

// TestWhatHappensBetweenTwoSteps lets another replica act between the steps of a
// call, where they race.
func TestWhatHappensBetweenTwoSteps(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	c, other := client(t, server), newStore(t, redisstore.Options{URL: server.URL()})
	b := &between{}
	c.AddHook(b)
	s := newStore(t, redisstore.Options{Client: c})
	old, next := begun(20*time.Minute), begun(10*time.Minute)
	seen := luigi.Owner{Principal: "svc-etl", Seen: time.Now()}
	abandon := func(s luigi.Store) []luigi.Started {
		t.Helper()
		got, err := s.Abandoned(t.Context(), time.Now().Add(-time.Minute), 10)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	end := func(s luigi.Store) *luigi.Started {
		t.Helper()
		got, _, err := s.End(t.Context(), "Load_1", "w1")
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for range 2 { // the server learns all scripts
		start(t, s, old)
		if err := s.Alive(t.Context(), []luigi.Alive{{Worker: "w1", Owner: seen}}); err != nil {
			t.Fatal(err)
		}
		abandon(s)
		end(s)
		start(t, s, begun(0))
		c.Del(t.Context(), workerKey, taskKey)
		abandon(s)
		c.FlushDB(t.Context())
	}

	for name, tc := range map[string]struct {
		tied  bool   // to a worker that lives
		skip  int    // scripts before the other replica acts
		other func() // what it does
		call  func() // what is called
		left  []luigi.Started
	}{
		"a task that starts again while its end is noted stays in the index": {
			skip: 1, other: func() { start(t, other, next) }, call: func() { end(s) }, left: []luigi.Started{next},
		},
		"a task that starts again on the same worker is not abandoned for the old start": {
			other: func() { end(other); start(t, other, next) },
			call: func() {
				if got := abandon(s); len(got) > 0 {
					t.Errorf("abandoned: %+v", got)
				}
			},
			left: []luigi.Started{next},
		},
		"a task that ends while its worker is found alive does not come back into the index": {
			tied: true, other: func() { end(other) },
			call: func() {
				if got := abandon(s); len(got) > 0 {
					t.Errorf("abandoned: %+v", got)
				}
				if n := c.Exists(t.Context(), openKey).Val(); n != 0 {
					t.Error("the index has an entry again")
				}
			},
		},
		"a task that is abandoned by another is not abandoned again": {
			other: func() { abandon(other) },
			call: func() {
				if got := abandon(s); len(got) > 0 {
					t.Errorf("abandoned: %+v", got)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.FlushDB(t.Context())
			start(t, other, old)
			if tc.tied {
				if _, err := other.Tie(t.Context(), "w1", seen); err != nil {
					t.Fatal(err)
				}
			}
			b.skip, b.do = tc.skip, tc.other
			tc.call()
			if b.do != nil {
				t.Fatal("the other replica did not come to act")
			}
			if diff := cmp.Diff(tc.left, abandon(other)); diff != "" {
				t.Errorf("left to be abandoned (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRowsDoNotGrow writes what a worker with a wrong clock and a client that
// invents workers write.
func TestRowsDoNotGrow(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s, c := newStore(t, redisstore.Options{URL: server.URL()}), client(t, server)
	start(t, s, begun(-time.Hour))
	if score := c.ZScore(t.Context(), openKey, "Load_1").Val(); score > float64(time.Now().UnixMilli()) {
		t.Errorf("an entry of the index lies in the future: %v", score)
	}
	end := func(worker string) string {
		t.Helper()
		if _, _, err := s.End(t.Context(), "Load_1", worker); err != nil {
			t.Fatal(err)
		}
		return c.HGet(t.Context(), taskKey, "ended").Val()
	}
	for range 3 {
		start(t, s, begun(0))
		if got := end("w1"); !regexp.MustCompile(`^\d{13} 2:w1$`).MatchString(got) {
			t.Errorf("the ends by one worker are kept as %q", got)
		}
	}
	for i := range 40 {
		if got := end(fmt.Sprintf("w%d%d", i%10, i/10)); len(got) > 8*len("1900000000000 3:w00") {
			t.Fatalf("the ends take %d bytes: %q", len(got), got)
		}
	}
}
