package redisstore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/luigi"
	"crossfade/rollout"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// The keys of one task and one worker.
const (
	taskKey   = "crossfade:luigi:task:Load_1"
	workerKey = "crossfade:luigi:worker:w1"
	openKey   = "crossfade:luigi:open"
)

// begun returns an execution of the task by w1 that began that long ago.
func begun(ago time.Duration) luigi.Started {
	return luigi.Started{
		Task: "Load_1", Family: "Load", Worker: "w1", At: time.UnixMilli(time.Now().Add(-ago).UnixMilli()).UTC(),
		By: luigi.Identity{Principal: "svc-etl", Team: team, Scheme: "oidc"},
	}
}

func start(t *testing.T, s luigi.Store, e luigi.Started) {
	t.Helper()
	if _, err := s.Start(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

func TestLuigiKeysAreThoseOfTheDesign(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s, c := newStore(t, redisstore.Options{URL: server.URL()}), client(t, server)
	e := begun(time.Minute)
	start(t, s, e)
	if _, err := s.Tie(t.Context(), "w1", luigi.Owner{Principal: "svc-etl", Team: team, Token: true, Seen: e.At}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]map[string]string{
		taskKey: {
			"family": "Load", "worker": "w1", "sign": fmt.Sprint(e.At.UnixMilli()), "until": fmt.Sprint(e.At.Add(luigi.LongestTask).UnixMilli()),
			"started": `{"task":"Load_1","family":"Load","worker":"w1","at":"` + e.At.Format(time.RFC3339Nano) +
				`","by":{"principal":"svc-etl","team":"data-eng","scheme":"oidc","percent":0}}`,
		},
		workerKey: {"principal": "svc-etl", "team": "data-eng", "token": "1", "seen": fmt.Sprint(e.At.UnixMilli())},
	} {
		if diff := cmp.Diff(want, c.HGetAll(t.Context(), name).Val()); diff != "" {
			t.Errorf("key %s (-want +got):\n%s", name, diff)
		}
	}
	if score := c.ZScore(t.Context(), openKey, "Load_1").Val(); score != float64(e.At.UnixMilli()) {
		t.Errorf("the index has score %v, want %d", score, e.At.UnixMilli())
	}
	if n := c.DBSize(t.Context()).Val(); n != 3 {
		t.Errorf("%d keys: %v", n, c.Keys(t.Context(), "*").Val())
	}
	if _, _, err := s.End(t.Context(), "Load_1", "w1"); err != nil {
		t.Fatal(err)
	}
	if fields := c.HKeys(t.Context(), taskKey).Val(); len(fields) != 2 {
		t.Errorf("after the end the task has the fields %v", fields)
	}
	if c.Exists(t.Context(), openKey).Val() != 0 {
		t.Error("after the end the index still has an entry")
	}
	long := strings.Repeat("x", 1<<16)
	if err := s.Register(t.Context(), []luigi.Registered{{Task: long, Family: "F"}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range c.Keys(t.Context(), "*").Val() {
		if len(name) > 160 {
			t.Errorf("a key has %d bytes", len(name))
		}
	}
}

// TestLuigiKeysSlideAndEnd looks at the time to live, with the server's clock.
func TestLuigiKeysSlideAndEnd(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s, c := newStore(t, redisstore.Options{URL: server.URL()}), client(t, server)
	owner := luigi.Owner{Principal: "svc-etl", Seen: time.Now()}
	ended := func(task string) func() error {
		return func() error { _, _, err := s.End(t.Context(), task, "w1"); return err }
	}
	for _, tc := range []struct {
		name, key string
		call      func() error
		want      time.Duration
	}{
		{"tied", workerKey, func() error { _, err := s.Tie(t.Context(), "w1", owner); return err }, luigi.WorkerTie},
		{"alive", workerKey, func() error { return s.Alive(t.Context(), []luigi.Alive{{Worker: "w1", Owner: owner}}) }, luigi.WorkerTie},
		{"another principal", workerKey, func() error {
			_, err := s.Tie(t.Context(), "w1", luigi.Owner{Principal: "mallory"})
			return err
		}, time.Minute},
		{"registered", taskKey, func() error {
			return s.Register(t.Context(), []luigi.Registered{{Task: "Load_1", Family: "Load"}})
		}, luigi.TaskMemory},
		{"asked for", taskKey, func() error { _, err := s.Task(t.Context(), "Load_1"); return err }, luigi.TaskMemory},
		{"started", taskKey, func() error { _, err := s.Start(t.Context(), begun(time.Hour)); return err }, luigi.LongestTask - time.Hour},
		{"asked for under way", taskKey, func() error { _, err := s.Task(t.Context(), "Load_1"); return err }, luigi.LongestTask - time.Hour},
		{"ended", taskKey, ended("Load_1"), luigi.TaskMemory},
		{"ended without a family", "crossfade:luigi:task:Load_2", ended("Load_2"), luigi.WorkerTie},
	} {
		c.PExpire(t.Context(), tc.key, time.Minute)
		if err := tc.call(); err != nil {
			t.Fatal(err)
		}
		if ttl := c.PTTL(t.Context(), tc.key).Val(); ttl <= tc.want-30*time.Second || ttl > tc.want {
			t.Errorf("%s it lives for %v, want %v", tc.name, ttl, tc.want)
		}
	}
	if _, err := s.Task(t.Context(), "Load_3"); err != nil || c.Exists(t.Context(), "crossfade:luigi:task:Load_3").Val() != 0 {
		t.Errorf("asking for an unknown task leaves a key, or an error: %v", err)
	}
}

func TestDamagedLuigiKeysAreNamed(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s, c := newStore(t, redisstore.Options{URL: server.URL()}), client(t, server)
	ask := func() error { _, err := s.Task(t.Context(), "Load_1"); return err }
	tie := func() error {
		_, err := s.Tie(t.Context(), "w1", luigi.Owner{Principal: "svc-etl", Seen: time.Now()})
		return err
	}
	give := func() error { _, err := s.Abandoned(t.Context(), time.Now(), 10); return err }
	end := func() error { _, _, err := s.End(t.Context(), "Load_1", "w1"); return err }
	for _, tc := range []struct {
		name, key, field, value string
		call                    func() error
		want                    string
	}{
		{"no JSON", taskKey, "started", "{", ask, `key "` + taskKey + `" is damaged: field started: unexpected end`},
		{"no JSON at the end", taskKey, "started", "[]", end, `key "` + taskKey + `" is damaged: field started`},
		{"no JSON when abandoned", taskKey, "started", "nil", give, `key "` + taskKey + `" is damaged: field started`},
		{"another task", taskKey, "started", `{"task":"Load_2"}`, ask, "the execution is of another task"},
		{"a fraction of a millisecond", taskKey, "started", `{"task":"Load_1","at":"2030-01-01T00:00:00.1234Z"}`, ask, "whole milliseconds"},
		{"a sign that is none", taskKey, "sign", "soon", ask, taskKey + `": DAMAGED an execution needs the fields sign`},
		{"a sign that is none when abandoned", taskKey, "sign", "soon", give, `key "` + taskKey + `" is damaged: field sign: "soon" is not a number`},
		{"a day to forget it that is none", taskKey, "until", "1e300", ask, taskKey + `": DAMAGED`},
		{"a time that is none", workerKey, "seen", "-1", tie, `key "` + workerKey + `" is damaged: field seen: "-1" is not a number`},
		{"a time that is none when abandoned", workerKey, "seen", "1e9", give, `key "` + workerKey + `" is damaged: field seen`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c.FlushAll(t.Context())
			start(t, s, begun(10*time.Minute))
			if err := tie(); err != nil {
				t.Fatal(err)
			}
			if tc.key == taskKey {
				c.Del(t.Context(), workerKey)
			}
			c.HSet(t.Context(), tc.key, tc.field, tc.value)
			if err := tc.call(); !errors.Is(err, rollout.ErrUnavailable) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want ErrUnavailable that says %q", err, tc.want)
			}
		})
	}
	for _, key := range []string{taskKey, workerKey, openKey} {
		c.FlushAll(t.Context())
		c.Set(t.Context(), key, "x", 0)
		if err := errors.Join(ask(), tie(), give()); !errors.Is(err, rollout.ErrUnavailable) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s of another type: %v", key, err)
		}
	}
}

// TestADamagedExecutionHidesNoOther finds the abandoned one that lies behind.
func TestADamagedExecutionHidesNoOther(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s, c := newStore(t, redisstore.Options{URL: server.URL()}), client(t, server)
	start(t, s, begun(20*time.Minute))
	c.HSet(t.Context(), taskKey, "sign", "soon")
	dead := begun(10 * time.Minute)
	dead.Task = "Load_2"
	start(t, s, dead)
	got, err := s.Abandoned(t.Context(), time.Now(), 10)
	if diff := cmp.Diff([]luigi.Started{dead}, got); diff != "" || !errors.Is(err, rollout.ErrUnavailable) {
		t.Errorf("beside the error %v (-want +got):\n%s", err, diff)
	}
}

// TestWhatACrashLeavesIsHarmless makes each state that a crash between two
// steps leaves.
func TestWhatACrashLeavesIsHarmless(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s, c := newStore(t, redisstore.Options{URL: server.URL()}), client(t, server)
	abandoned := func() int {
		t.Helper()
		got, err := s.Abandoned(t.Context(), time.Now(), 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(got)
	}
	start(t, s, begun(10*time.Minute))
	c.Del(t.Context(), taskKey) // as if Start had not gone on, or End and Abandoned had not
	if n := abandoned(); n != 0 {
		t.Errorf("%d are abandoned of an entry without an execution", n)
	}
	if c.Exists(t.Context(), openKey).Val() != 0 {
		t.Error("the entry without an execution is still there")
	}
	e := begun(10 * time.Minute)
	start(t, s, e)
	c.Del(t.Context(), openKey) // as a flush of half a Cluster would
	if n := abandoned(); n != 0 {
		t.Errorf("%d are abandoned of an execution without an entry", n)
	}
	got, first, err := s.End(t.Context(), "Load_1", "w1")
	if err != nil || !first || got == nil || !got.At.Equal(e.At) {
		t.Errorf("the end of an execution without an entry: %+v, %v, %v", got, first, err)
	}
}

// TestScriptsThatAServerForgotAreSentAgain empties its cache in between.
func TestScriptsThatAServerForgotAreSentAgain(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s, c := newStore(t, redisstore.Options{URL: server.URL()}), client(t, server)
	for i := range 2 {
		if err := s.Register(t.Context(), []luigi.Registered{{Task: fmt.Sprint("A_", i), Family: "A"}, {Task: fmt.Sprint("B_", i), Family: "B"}}); err != nil {
			t.Fatal(err)
		}
		if err := c.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"A", "B"} {
		for i := range 2 {
			if got, err := s.Task(t.Context(), fmt.Sprint(want, "_", i)); err != nil || got.Family != want {
				t.Errorf("task %s_%d: %+v, %v", want, i, got, err)
			}
		}
	}
}

// TestAliveIsOneRoundTrip counts what the server is sent.
func TestAliveIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	c := client(t, server)
	trips := &roundTrips{}
	c.AddHook(trips)
	s := newStore(t, redisstore.Options{Client: c})
	signs, tasks := make([]luigi.Alive, 200), make([]luigi.Registered, 200)
	for i := range signs {
		signs[i] = luigi.Alive{Worker: fmt.Sprint("w", i), Owner: luigi.Owner{Principal: "svc-etl", Seen: time.Now()}}
		tasks[i] = luigi.Registered{Task: fmt.Sprint("Load_", i), Family: "Load"}
	}
	for i, want := range []int{4, 2} { // the first time the scripts are sent as well
		trips.n = 0
		if err := errors.Join(s.Alive(t.Context(), signs), s.Register(t.Context(), tasks)); err != nil {
			t.Fatal(err)
		}
		if trips.n != want {
			t.Errorf("call %d of Alive and Register: %d round trips, want %d", i, trips.n, want)
		}
	}
}

// TestMemoryOfTasksAndWorkers holds the figures of the package comment. Other
// versions of the server may need a little more.
func TestMemoryOfTasksAndWorkers(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s, c := newStore(t, redisstore.Options{URL: server.URL()}), client(t, server)
	const (
		id     = "ExtractUsers_2024_05_01_web_shop_35177e150a"
		worker = "Worker(salt=8265113419, workers=4, host=etl-7.internal, username=svc-etl, pid=31337)"
	)
	value := "2024-05-01"
	e := luigi.Started{
		Task: id, Family: "ExtractUsers", Module: "etl.users", Worker: worker, At: begun(0).At,
		Parameters: []luigi.Parameter{{Name: "date", Value: &value}, {Name: "source"}},
		By: luigi.Identity{
			Principal: "svc-etl", Team: team, Scheme: "oidc", Issuer: "https://acme.okta.com/oauth2/luigi", TokenID: "AT.4mV2s0JcWm1hQ0R",
			Percent: 25, TraceID: "0af7651916cd43dd8448eb211c80319c", Configuration: "9f86d081884c7d65",
		},
	}
	measure := func(what, key string, most int64) {
		t.Helper()
		if got := c.MemoryUsage(t.Context(), key, 0).Val(); got == 0 || got > most {
			t.Errorf("%s takes %d bytes, want at most %d", what, got, most)
		} else {
			t.Logf("%s takes %d bytes", what, got)
		}
	}
	if err := s.Register(t.Context(), []luigi.Registered{{Task: id, Family: "ExtractUsers"}}); err != nil {
		t.Fatal(err)
	}
	measure("a registered task", "crossfade:luigi:task:"+id, 300)
	start(t, s, e)
	measure("a task under way", "crossfade:luigi:task:"+id, 1500)
	if _, _, err := s.End(t.Context(), id, worker); err != nil {
		t.Fatal(err)
	}
	measure("a task that ended", "crossfade:luigi:task:"+id, 500)
	if _, err := s.Tie(t.Context(), worker, luigi.Owner{Principal: "svc-etl", Team: team, Token: true, Seen: e.At}); err != nil {
		t.Fatal(err)
	}
	measure("a worker", "crossfade:luigi:worker:"+worker, 400)
	const n = 1000
	for i := range n {
		e.Task = fmt.Sprintf("%s%d", id, i)
		start(t, s, e)
	}
	measure("the index of a thousand", openKey, 300*n)
}
