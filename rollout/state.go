package rollout

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"crossfade/gateway/identity"
)

// AnyRevision as Change.Expect writes whatever the revision is.
const AnyRevision int64 = -1

// The longest texts, in bytes. A team's id stands in keys, file names and
// labels; the others are kept with every entry of the history.
const (
	maxTeam   = 128
	maxActor  = 512
	maxReason = 2000
)

// State is a team's live rollout. The zero value, or a State with Revision 0,
// is a team that was never written: 0 percent.
type State struct {
	Team    identity.Team
	Percent Percent
	// Previous is the percentage before the last change that moved it.
	Previous Percent
	// Revision counts the team's changes from 1. It never falls, except when a
	// store was lost; see ErrRegressed.
	Revision int64
	// RaisedAt and LoweredAt are the times of the last raise and the last
	// lowering, in milliseconds of UTC; zero before the first.
	RaisedAt, LoweredAt time.Time
	// LoweredRevision is the revision of the last lowering, 0 before the
	// first. It frees every enforced latch of a lower revision.
	LoweredRevision int64
	// Algorithm is the version of the bucketing; 0 before the first change.
	Algorithm int
	// Retired teams stay at 100 for good.
	Retired   bool
	UpdatedAt time.Time
	// Source is where the last change came from; see Change.Source.
	Source string
}

// Phase returns what the team is.
func (s State) Phase() Phase {
	switch {
	case s.Retired:
		return PhaseRetired
	case s.Percent >= Full:
		return PhaseEnforced
	case s.Percent > 0:
		return PhaseRamp
	default:
		return PhaseShadow
	}
}

// cautionFor is how long after a raise a run without a latch is judged by the
// lower percentage while the store is away. It equals LatchMax: after that no
// run from before the raise can still be latched.
const cautionFor = LatchMax

// Cautious returns the percentage that judges an unlatched run while its latch
// cannot be looked up: the lower one of the last two when the last raise is
// under 7 days old, because the run may have begun before the raise.
func (s State) Cautious(now time.Time) Percent {
	if s.Retired || s.RaisedAt.IsZero() || now.Sub(s.RaisedAt) >= cautionFor {
		return s.Percent
	}
	return min(s.Percent, s.Previous)
}

// Change is one write to a team's rollout.
type Change struct {
	Team    identity.Team
	Percent Percent
	// Retire makes the change the last one: Percent must be 100.
	Retire bool
	// Expect is the revision that the change was decided upon, 0 for a team
	// without one, or AnyRevision.
	Expect int64
	// StoreID is the Snapshot.StoreID that the change was decided upon. Empty
	// skips the check.
	StoreID string
	// Actor is who asks for the change and Verified whether that is proven (by
	// a token) or only claimed (by a file or a command line).
	Actor    string
	Verified bool
	// Source is where the change came from: cli, file, demo or api.
	Source string
	Reason string
	// At is when; the zero time is now. Stores keep milliseconds.
	At time.Time
}

// Entry is one line of a team's history.
type Entry struct {
	Revision int64
	From, To Percent
	Retired  bool // whether the team was retired after the change
	Actor    string
	Verified bool
	Source   string
	Reason   string
	At       time.Time
}

// Validate returns the first rule that c breaks. Stores call it before they
// write.
func (c Change) Validate() error {
	if err := ValidateTeam(c.Team); err != nil {
		return err
	}
	if c.Team == identity.Unassigned {
		return fmt.Errorf("team %q is pinned at 0 percent: map its principals to teams instead", c.Team)
	}
	if err := c.Percent.Validate(); err != nil {
		return err
	}
	if c.Retire && c.Percent != Full {
		return fmt.Errorf("team %q: only 100 percent can be retired, not %d", c.Team, c.Percent)
	}
	if len(c.Actor) > maxActor || len(c.Source) > maxActor {
		return fmt.Errorf("team %q: actor and source must not be longer than %d bytes", c.Team, maxActor)
	}
	if len(c.Reason) > maxReason {
		return fmt.Errorf("team %q: the reason must not be longer than %d bytes", c.Team, maxReason)
	}
	if c.Expect < AnyRevision {
		return fmt.Errorf("team %q: expected revision %d: must be 0 or above, or -1 for any", c.Team, c.Expect)
	}
	return nil
}

// ValidateTeam returns an error unless the id can stand in a key: not empty, at
// most 128 bytes, no braces (a Redis Cluster hashes what is between them),
// slashes, spaces or control characters.
func ValidateTeam(team identity.Team) error {
	switch {
	case team == "":
		return errors.New("team: the id is empty")
	case len(team) > maxTeam:
		return fmt.Errorf("team %q...: the id is longer than %d bytes", string(team[:16]), maxTeam)
	case strings.ContainsFunc(string(team), func(r rune) bool {
		return strings.ContainsRune(`{}/\`, r) || unicode.IsSpace(r) || unicode.IsControl(r)
	}):
		return fmt.Errorf("team %q: the id must not hold braces, slashes, spaces or control characters", string(team))
	}
	return nil
}

// Apply is the rule by which a change turns one state into the next. It checks
// c, then the revision (*ConflictError), then retirement (ErrRetired). Every
// change that passes counts a revision, also one that leaves the percentage as
// it is. Stores that cannot call it inside their transaction do the same there;
// the conformance suite compares them.
func Apply(s State, c Change, now time.Time) (State, Entry, error) {
	if err := c.Validate(); err != nil {
		return s, Entry{}, err
	}
	if c.Expect != AnyRevision && c.Expect != s.Revision {
		return s, Entry{}, &ConflictError{Expected: c.Expect, Current: s}
	}
	if s.Retired && c.Percent != Full {
		return s, Entry{}, retiredError(c.Team)
	}
	at := c.When(now)
	next := s
	next.Team = c.Team
	next.Percent = c.Percent
	next.Revision++
	next.UpdatedAt = at
	next.Source = c.Source
	next.Retired = s.Retired || c.Retire
	if next.Algorithm == 0 {
		next.Algorithm = Algorithm
	}
	switch {
	case c.Percent > s.Percent:
		next.Previous, next.RaisedAt = s.Percent, at
	case c.Percent < s.Percent:
		next.Previous, next.LoweredAt, next.LoweredRevision = s.Percent, at, next.Revision
	}
	return next, Entry{
		Revision: next.Revision, From: s.Percent, To: c.Percent, Retired: next.Retired,
		Actor: c.Actor, Verified: c.Verified, Source: c.Source, Reason: c.Reason, At: at,
	}, nil
}

// When returns c.At, or now if that is zero, as stores keep it: UTC, in whole
// milliseconds.
func (c Change) When(now time.Time) time.Time {
	if !c.At.IsZero() {
		now = c.At
	}
	return time.UnixMilli(now.UnixMilli()).UTC()
}
