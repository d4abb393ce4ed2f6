package redisstore_test

import (
	"context"
	"flag"
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"crossfade/rollout"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

func TestMain(m *testing.M) {
	// Some wait for servers more than they work. `go test -parallel` says otherwise.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

func TestInProcessConforms(t *testing.T) {
	t.Parallel()
	rollouttest.TestStore(t, func(t *testing.T) rollout.Store { return newInProcess(t) })
}

func TestRealRedisConforms(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	var n atomic.Int64
	rollouttest.TestStore(t, func(t *testing.T) rollout.Store {
		return newStore(t, redisstore.Options{URL: server.URL(), Prefix: fmt.Sprintf("test%d", n.Add(1))})
	})
}

func newInProcess(t *testing.T) *redisstore.InProcess {
	t.Helper()
	p, err := redisstore.NewInProcess()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func newStore(t *testing.T, opt redisstore.Options) *redisstore.Store {
	t.Helper()
	s, err := redisstore.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func load(t *testing.T, s rollout.Reader) rollout.Snapshot {
	t.Helper()
	snap, err := s.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return snap
}
