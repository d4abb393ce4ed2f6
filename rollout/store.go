package rollout

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/gateway/identity"
)

// The errors that callers branch on. Everything else that a store returns is a
// mistake of the caller (a change that breaks a rule).
var (
	// ErrUnavailable says that the store could not be reached, did not answer
	// in time, or gave an answer that cannot be understood. After a Write it
	// means that the change may or may not have been made.
	ErrUnavailable = errors.New("rollout store unavailable")
	// ErrConflict says that the team changed since the caller looked; the
	// error is a *ConflictError.
	ErrConflict = errors.New("rollout changed meanwhile")
	// ErrRegressed says that the store is not, or no longer, what it was: it
	// is empty, another one, or restored to an older state.
	ErrRegressed = errors.New("store_regressed")
	// ErrRetired says that the team is retired and can never be lowered.
	ErrRetired = errors.New("team is retired")
)

// ConflictError is a Change that expected another revision. It matches
// ErrConflict.
type ConflictError struct {
	Expected int64
	Current  State // as it stands; not changed
}

func (e *ConflictError) Error() string {
	if e.Expected == AnyRevision { // what was expected was no revision
		return fmt.Sprintf("team %q is at revision %d with %d percent, which is not what was expected: look at it and try again",
			e.Current.Team, e.Current.Revision, e.Current.Percent)
	}
	return fmt.Sprintf("team %q changed meanwhile: revision %d was expected, it is at revision %d with %d percent: look at it and try again",
		e.Current.Team, e.Expected, e.Current.Revision, e.Current.Percent)
}

// Is matches ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// PartialError is a reading that some teams are missing from, since the node of a
// cluster that has them is away. It matches ErrUnavailable, and Err says why.
type PartialError struct {
	Teams []identity.Team // in order
	Err   error
}

func (e *PartialError) Error() string {
	names := make([]string, 0, maxNamed+1)
	for _, team := range e.Teams[:min(len(e.Teams), maxNamed)] {
		names = append(names, string(team))
	}
	if more := len(e.Teams) - maxNamed; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return fmt.Sprintf("of %s nothing can be read, all other teams can: %v", strings.Join(names, ", "), e.Err)
}

// maxNamed is how many teams a PartialError names.
const maxNamed = 5

// Is matches ErrUnavailable.
func (e *PartialError) Is(target error) bool { return target == ErrUnavailable }

// Unwrap returns Err.
func (e *PartialError) Unwrap() error { return e.Err }

// OfTeam returns what the error of a reading means for one team: nil if that team
// could be read.
func OfTeam(err error, team identity.Team) error {
	var partial *PartialError
	if errors.As(err, &partial) && !errors.Is(err, ErrRegressed) && !slices.Contains(partial.Teams, team) {
		return nil
	}
	return err
}

func retiredError(team identity.Team) error {
	return fmt.Errorf("%w: %q stays at 100 percent and cannot be lowered", ErrRetired, string(team))
}

// Snapshot is all rollouts at one time.
type Snapshot struct {
	// StoreID is random and made with the store. It is never empty.
	StoreID string
	// Teams holds the teams that were ever written, by id.
	Teams map[identity.Team]State
	// At is when the reading began.
	At time.Time
}

// Reader reads rollouts.
type Reader interface {
	// Load returns every team's state. On a new store it makes the id; two
	// callers at once get the same one. Teams are read one after another, each
	// of them whole. With a *PartialError it returns the teams that could be read;
	// whoever needs all of them takes it for the ErrUnavailable that it is.
	Load(ctx context.Context) (Snapshot, error)
	// History returns a team's last changes, newest first, at most limit and
	// none for a limit below 1. A store may forget entries that are older than
	// the last thousand.
	History(ctx context.Context, team identity.Team, limit int) ([]Entry, error)
}

// Writer changes rollouts.
type Writer interface {
	// Write makes one change and returns the state after it, as Apply rules:
	// the comparison, the write and the entry of the history are one atomic
	// step, and watchers hear of it. It returns *ConflictError with the
	// current state, ErrRetired, ErrRegressed when Change.StoreID is not the
	// store's, or ErrUnavailable.
	Write(ctx context.Context, c Change) (State, error)
}

// Restorer puts back what a store has lost.
type Restorer interface {
	// Restore gives the store the id of the snapshot, and each team that the
	// store knows at a lower revision the snapshot's state, one revision later,
	// with an entry of the history that names the actor and the reason. It returns
	// the teams that it changed, in order. It may be called again.
	Restore(ctx context.Context, s Snapshot, by Setting) ([]identity.Team, error)
}

// Watcher tells of changes.
type Watcher interface {
	// Watch calls changed with the team of each change until ctx ends, and
	// with "" when some may have been missed, as after each (re)connection. It
	// is best effort: messages get lost and come twice. changed must return
	// soon. Watch returns the error of ctx, or ErrUnavailable if it cannot go on.
	Watch(ctx context.Context, changed func(identity.Team)) error
}

// Latcher keeps the latches of runs. A latch lives for LatchIdle after the last
// call about it, and for LatchMax after Latch.At at most.
type Latcher interface {
	// Latch puts l in force unless one is in force already, and returns the
	// one that is. The first one wins, with three exceptions: a latch that
	// l.Freed(lowered) holds of is replaced by l with the time of the first, for it
	// is the same run still, unless it names another pipeline than l (then it is returned as it is, and the caller judges the run by
	// that pipeline and tries again); and a latch without a pipeline takes
	// l's. And a run that l spares is not enforced from then on, whatever was in
	// force.
	Latch(ctx context.Context, key LatchKey, l Latch, lowered int64) (Latch, error)
	// Latched returns the latch in force, freed or not; ok is false if there is
	// none.
	Latched(ctx context.Context, key LatchKey) (l Latch, ok bool, err error)
}

// LatchCount is how many runs of a team are in flight: they have a latch in force,
// and one that was heard of within InFlight. Those latched as enforced before a
// lowering count as enforced until their next request, or their end.
type LatchCount struct {
	Enforced, Unenforced int64
}

// MaxLatchCount bounds what is counted of either kind: beyond it a store may
// forget those that would end soonest. It bounds the memory that the counting
// takes, not the latches.
const MaxLatchCount = 100_000

// LatchCounter counts latches.
type LatchCounter interface {
	// CountLatches counts the latches of a team. It costs the store about the same
	// for one latch as for many.
	CountLatches(ctx context.Context, team identity.Team) (LatchCount, error)
}

// Leaser says which replica does what only one may do at a time.
type Leaser interface {
	// Lease takes the lease for holder, or prolongs it, for ttl from now; held is
	// false while another holder has it. Whoever held it must stop when ttl has
	// passed since it began its last call that succeeded.
	Lease(ctx context.Context, holder string, ttl time.Duration) (held bool, err error)
	// Yield gives the lease back if holder has it.
	Yield(ctx context.Context, holder string) error
}

// Store is where rollouts live. Implementations pass rollouttest.TestStore and
// are safe for concurrent use.
type Store interface {
	Reader
	Writer
	Watcher
	Latcher
	LatchCounter
	Leaser
	Restorer
}

// InFlight is how long ago the store heard last of a run that is taken to be in
// flight: somewhat longer than from one time that it hears of a run that goes on to
// the next (refreshEvery). A run that ends says nothing, and its latch lives on for
// LatchIdle.
const InFlight = refreshEvery + 30*time.Second

// The life of a latch.
const (
	LatchIdle = 15 * time.Minute   // without a request of the run
	LatchMax  = 7 * 24 * time.Hour // in any case
)

// Latch is what was decided about a run at its first request whose key was
// known. The zero value is a run that is not enforced.
type Latch struct {
	Enforced bool
	// Revision of the team's state that decided.
	Revision int64
	// Pipeline is the family of the first task that the run registered, empty
	// if none was by then.
	Pipeline string
	// At is when the run first latched, in whole milliseconds of UTC.
	At time.Time
	// Spares tells of a latch to be made, which is not enforced, that the run was let
	// through before, while the store did not answer in time: it may have made a
	// latch that nobody heard of. It is not kept, and never set in what a store
	// returns.
	Spares bool
}

// Freed reports whether a lowering at revision lowered frees the latch: it is
// enforced and was made before.
func (l Latch) Freed(lowered int64) bool { return l.Enforced && l.Revision < lowered }

// equal compares by value what is kept; times compare as instants.
func (l Latch) equal(m Latch) bool {
	return l.Enforced == m.Enforced && l.Revision == m.Revision && l.Pipeline == m.Pipeline && l.At.Equal(m.At)
}

// LatchKey names a run. Make it with NewLatchKey.
type LatchKey struct {
	Team identity.Team
	Run  string // 32 hexadecimal digits
}

// NewLatchKey returns the key of a run. The id comes from the client, so it and
// the principal go through SHA-256, cut to 128 bits: whatever is sent, a key
// has one length, and nobody can build a run id that meets another principal's.
func NewLatchKey(team identity.Team, principal, id string) LatchKey {
	in := binary.AppendUvarint(make([]byte, 0, 10+len(principal)+len(id)), uint64(len(principal)))
	in = append(in, principal...)
	in = append(in, id...)
	sum := sha256.Sum256(in)
	return LatchKey{Team: team, Run: hex.EncodeToString(sum[:16])}
}
