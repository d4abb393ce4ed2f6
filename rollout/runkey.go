package rollout

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"crossfade/gateway/identity"
)

// The longest text, in bytes, that is kept as it is. Longer ones come from
// clients that are up to no good or generate names.
const (
	maxID       = 128
	maxPipeline = 200
)

// runKey names a run in the cache of a replica.
type runKey struct {
	team          identity.Team
	principal, id string
}

// entry returns what is remembered of the run, making it if need be.
func (r *Runs) entry(run *Run) *entry {
	key := runKey{run.Team, boundID(run.Principal), boundID(run.ID)}
	if en, ok := r.cache.Get(key); ok {
		return en
	}
	// The strings may be slices of a request, which the cache must not hold.
	key.team = identity.Team(strings.Clone(string(key.team)))
	key.principal, key.id = strings.Clone(key.principal), strings.Clone(key.id)
	en := &entry{key: key, turn: make(chan struct{}, 1)}
	if other, ok, _ := r.cache.PeekOrAdd(key, en); ok {
		return other
	}
	return en
}

// latchKey returns the name of the run in the store.
func (k runKey) latchKey() LatchKey { return NewLatchKey(k.team, k.principal, k.id) }

// boundID returns a short text as it is and a digest of a long one.
func boundID(text string) string {
	if len(text) <= maxID {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// BoundPipeline returns a family, cut and marked with a digest if it is too
// long to be kept. It allocates only then.
func BoundPipeline(family string) string {
	if len(family) <= maxPipeline {
		return family
	}
	sum := sha256.Sum256([]byte(family))
	return strings.ToValidUTF8(family[:maxPipeline-20], "") + "~" + hex.EncodeToString(sum[:8])
}
