package telemetry

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/probe"
	"crossfade/gateway/shadow"
)

// children are the series of one metric that were resolved already, by what an
// event holds. Looking one up takes no lock and allocates nothing, where a
// vector of the client library hashes every label each time.
//
// A key that is not known goes through closed, so a hostile value finds the
// series of "other" and is not remembered: the map is as bounded as the lists.
type children[K comparable, M any] struct {
	closed  func(K) K
	resolve func(K) M

	known atomic.Pointer[map[K]M] // copied on write
	mu    sync.Mutex              // held by writers
}

func newChildren[K comparable, M any](closed func(K) K, resolve func(K) M) *children[K, M] {
	c := &children[K, M]{closed: closed, resolve: resolve}
	c.known.Store(&map[K]M{})
	return c
}

// get returns the series of key.
func (c *children[K, M]) get(key K) M {
	if m, ok := (*c.known.Load())[key]; ok {
		return m
	}
	c.add(c.closed(key))
	return (*c.known.Load())[c.closed(key)]
}

// add makes series exist. The keys must be closed.
func (c *children[K, M]) add(keys ...K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := *c.known.Load()
	missing := func(key K) bool { _, ok := known[key]; return !ok }
	if !slices.ContainsFunc(keys, missing) {
		return
	}
	next := maps.Clone(known)
	for _, key := range keys {
		if _, ok := next[key]; !ok {
			next[key] = c.resolve(key)
		}
	}
	c.known.Store(&next)
}

// other stands for a value that is on no list.
const other = "other"

// undecided is the outcome of a request that ended before a decision: the
// client broke off while its body was read.
const undecided gateway.Outcome = "undecided"

func closedOutcome(o gateway.Outcome) gateway.Outcome {
	switch o {
	case gateway.Allowed, gateway.Refused, gateway.Unavailable, gateway.WouldRefuse, gateway.Exempt:
		return o
	default:
		return undecided
	}
}

// closedReason lets the empty reason stand: nothing was wrong.
func closedReason(r identity.Reason) identity.Reason {
	if _, ok := r.Info(); ok || r == "" {
		return r
	}
	return other
}

func closedScheme(s identity.Scheme) identity.Scheme {
	if s == identity.SchemeOIDC || s.Legacy() {
		return s
	}
	return identity.SchemeNone
}

func closedVerdict(v shadow.Verdict) shadow.Verdict {
	if v == shadow.MatchAllow || v == shadow.MatchDeny || v == shadow.Indeterminate || v.Mismatch() {
		return v
	}
	return shadow.NotEvaluated
}

func closedEvidence(e shadow.Evidence) shadow.Evidence {
	if e == shadow.EvidenceClient || e == shadow.EvidenceProbe {
		return e
	}
	return shadow.EvidenceNone
}

// closedProbe takes what is no outcome for one that says nothing of the account.
func closedProbe(o probe.Outcome) probe.Outcome {
	if slices.Contains(probe.Outcomes(), o) {
		return o
	}
	return probe.Unavailable
}

// oneOf returns value if it is on the list, else other.
func oneOf(value string, list ...string) string {
	if slices.Contains(list, value) {
		return value
	}
	return other
}
