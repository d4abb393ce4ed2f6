package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/rollout"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// headStore is what the audit trail needs of a store.
type headStore interface {
	PutHead(ctx context.Context, replica string, seq int64, head string) error
	Heads(ctx context.Context) (map[string]string, error)
}

func TestAHeadOfTheAuditTrailNeverGoesBack(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	for name, s := range map[string]headStore{
		"real": newStore(t, redisstore.Options{URL: server.URL()}), "in process": newInProcess(t),
	} {
		t.Run(name, func(t *testing.T) {
			put := func(replica string, seq int64, head string) error { return s.PutHead(t.Context(), replica, seq, head) }
			for _, seq := range []int64{1, 9, 10, 1 << 52} {
				if err := put("a", seq, fmt.Sprintf(`{"seq":%d}`, seq)); err != nil {
					t.Fatal(err)
				}
			}
			if err := put("b", 3, "b with spaces"); err != nil {
				t.Fatal(err)
			}
			if err := put("a", 1<<52, "another"); err != nil {
				t.Errorf("the same line again: %v", err)
			}
			if err := put("a", 11, "back"); err == nil || errors.Is(err, rollout.ErrUnavailable) || !strings.Contains(err.Error(), fmt.Sprint(int64(1<<52))) {
				t.Errorf("going back: %v", err)
			}
			got, err := s.Heads(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"a": fmt.Sprintf(`{"seq":%d}`, int64(1<<52)), "b": "b with spaces"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if kind := client(t, server).Type(t.Context(), "crossfade:audit:heads").Val(); kind != "hash" {
		t.Errorf("crossfade:audit:heads is of type %q", kind)
	}
}

func TestHeadsOfManyAtOnceEndWithTheHighest(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s := newStore(t, redisstore.Options{URL: server.URL()})
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() { _ = s.PutHead(t.Context(), "a", int64(i+1), fmt.Sprint("head ", i+1)) })
	}
	all.Wait()
	if got, err := s.Heads(t.Context()); err != nil || got["a"] != "head 50" {
		t.Errorf("%v, %v", got, err)
	}
	server.Stop()
	if _, err := s.Heads(t.Context()); !errors.Is(err, rollout.ErrUnavailable) {
		t.Errorf("a store that is away: %v", err)
	}
	if err := s.PutHead(t.Context(), "a", 51, "x"); !errors.Is(err, rollout.ErrUnavailable) {
		t.Errorf("a store that is away: %v", err)
	}
}
