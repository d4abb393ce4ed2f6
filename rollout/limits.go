package rollout

import (
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"crossfade/gateway/identity"
)

const (
	// newRunsPerMinute is how many new runs of a principal are latched; it keeps
	// invented run ids from filling the store.
	newRunsPerMinute = 60
	// limiterPrincipals bounds the principals that are counted. One that falls
	// out begins anew.
	limiterPrincipals = 10_000
)

// limiter counts new runs by principal and minute, for this replica.
type limiter struct {
	limit  int
	mu     sync.Mutex
	counts *lru.Cache[principalKey, window]
}

type principalKey struct {
	team      identity.Team
	principal string
}

type window struct {
	minute int64
	n      int
}

func newLimiter(limit int) (*limiter, error) {
	counts, err := lru.New[principalKey, window](limiterPrincipals)
	if err != nil {
		return nil, fmt.Errorf("rollout runs: make limiter: %w", err)
	}
	return &limiter{limit: limit, counts: counts}, nil
}

// take counts one new run and reports whether it is within the limit.
func (l *limiter) take(team identity.Team, principal string, now time.Time) bool {
	return l.add(team, principal, now, 1)
}

// giveBack takes back a run that take counted.
func (l *limiter) giveBack(team identity.Team, principal string, now time.Time) {
	l.add(team, principal, now, -1)
}

func (l *limiter) add(team identity.Team, principal string, now time.Time, n int) bool {
	key := principalKey{team, boundID(principal)}
	minute := now.Unix() / 60
	l.mu.Lock()
	defer l.mu.Unlock()
	w, _ := l.counts.Get(key)
	if w.minute != minute {
		w = window{minute: minute}
	}
	if n > 0 && w.n >= l.limit {
		return false
	}
	w.n = max(0, w.n+n)
	l.counts.Add(key, w)
	return true
}
