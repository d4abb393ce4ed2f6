package rollout

import (
	"maps"
	"slices"
	"time"

	"crossfade/gateway/identity"
)

// Loss is a team of which a store has lost something.
type Loss struct {
	Team identity.Team
	// Has is what the store has of it, the zero State for nothing, and Known what
	// was known.
	Has, Known State
}

// Losses are the teams that a Restore of known would put back into a store that
// has what has says, in order of id. It is pure.
func Losses(has, known Snapshot) []Loss {
	var lost []Loss
	for _, team := range slices.Sorted(maps.Keys(known.Teams)) {
		if _, _, ok := Restored(has.Teams[team], known.Teams[team], Setting{}, time.Time{}); ok {
			lost = append(lost, Loss{Team: team, Has: has.Teams[team], Known: known.Teams[team]})
		}
	}
	return lost
}

// Restored is the rule by which a state that was known replaces what a store has
// now. ok is false where the store has lost nothing: it is at a later revision, or
// at the same one, and as retired. The state that comes of it is one revision after
// both, so that whoever knew either sees a change; latches that the known state
// had freed stay freed.
func Restored(has, known State, by Setting, now time.Time) (next State, entry Entry, ok bool) {
	lost := has.Revision < known.Revision || has.Revision == known.Revision && !has.UpdatedAt.Equal(known.UpdatedAt)
	if !lost && (!known.Retired || has.Retired) {
		return has, Entry{}, false
	}
	at := millisecond(now)
	next = has
	if lost {
		next = known
	}
	next.Team = known.Team
	next.Revision = max(has.Revision, known.Revision) + 1
	next.UpdatedAt, next.Source = at, by.Source
	if next.Algorithm == 0 {
		next.Algorithm = Algorithm
	}
	if known.Retired || has.Retired {
		next.Retired, next.Percent = true, Full
		next.Credentials = union(has.Credentials, known.Credentials)
	}
	return next, Entry{
		Revision: next.Revision, Kind: KindRestore, From: has.Percent, To: next.Percent, Retired: next.Retired,
		Actor: by.Actor, Verified: by.Verified, Source: by.Source, Reason: clip(by.Reason), At: at,
	}, true
}
