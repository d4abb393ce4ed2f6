package rollout

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"

	"crossfade/gateway/identity"
)

// Algorithm is the version of the bucketing that new teams get. A team keeps
// the version that it began with, since another one would select other
// pipelines in the middle of a ramp. Golden vectors pin version 1.
const Algorithm = 1

// Bucket returns the position of a key within its team under algorithm 1: a
// 64-bit xxHash of the key, seeded with the xxHash of the team. The seed makes
// teams independent, so that a pipeline that is early in one team is not early
// in all of them. It allocates nothing.
func Bucket(team identity.Team, key string) uint64 {
	return bucket(team, key, "", "")
}

// bucket is Bucket of the concatenation of the parts, without building it.
func bucket(team identity.Team, a, b, c string) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(xxhash.Sum64String(string(team)))
	// Digest.WriteString never fails.
	_, _ = d.WriteString(a)
	_, _ = d.WriteString(b)
	_, _ = d.WriteString(c)
	return d.Sum64()
}

// Selected reports whether percent selects the key: 0 selects none, 100 all,
// and a percentage selects whatever a lower one does.
func Selected(team identity.Team, key string, percent Percent) bool {
	return within(Bucket(team, key), percent)
}

// Threshold returns the lowest percentage that selects the key, 1 to 100: who
// is next when a team is raised.
func Threshold(team identity.Team, key string) Percent { return slot(Bucket(team, key)) + 1 }

func within(hash uint64, percent Percent) bool { return slot(hash) < percent }

// slot scales the hash to 0..99 by multiply-shift: the high word of hash x 100.
// Unlike a modulo it uses all bits and its bias is below 100 / 2^64.
func slot(hash uint64) Percent {
	hi, _ := bits.Mul64(hash, uint64(Full))
	return Percent(hi)
}
