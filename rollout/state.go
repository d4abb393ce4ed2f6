package rollout

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

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
	// Request is what the team asks for, by its file or the API; the zero value
	// while nothing was. The live percentage follows it as Next says.
	Request Request
	// Hold, while it is active, keeps requests from raising the team.
	Hold Hold
	// Credentials are the ids of the static credentials that the team had when it
	// was retired, in order. They are refused under any team.
	Credentials []string
}

// Request is the percentage that a team asks for.
type Request struct {
	Percent Percent `json:"percent"`
	// Digest tells whether a file says what it said before; "" for a request that
	// came from elsewhere.
	Digest string `json:"digest,omitempty"`
	// Past are the digests that the team's requests had before this one, the last
	// first, at most maxPast of them and never Digest: by them a file is known that
	// has not caught up yet.
	Past []string `json:"past,omitempty"`
	// Override, if its reason is not empty, lets this very request pass without
	// its checks, security signals excepted. Another request has another one or
	// none, so it cannot leak into the next raise.
	Override string `json:"override,omitempty"`
	// Retire asks for the end of the team's static credentials, for good. Percent
	// is 100 then.
	Retire bool `json:"retire,omitempty"`
	// Brownouts are windows in which more of the team must use OIDC.
	Brownouts []Brownout `json:"brownouts,omitempty"`
	// Spent are windows of earlier requests, as far as they have passed within the
	// last BrownoutSpan: they count where this one's do. Ask sees to them.
	Spent []Brownout `json:"spent_brownouts,omitempty"`
	// Actor, Verified, Source and Reason are as in Change.
	Actor    string `json:"actor,omitempty"`
	Verified bool   `json:"verified,omitempty"`
	Source   string `json:"source,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// At is when it was made, in milliseconds of UTC; zero for no request.
	At time.Time `json:"at,omitzero"`
}

// Made reports whether there is a request.
func (r Request) Made() bool { return !r.At.IsZero() }

// Alike reports whether a request that was made asks for the same as another one,
// whoever asks and why. The digest alone does not say so: what a command or the
// admin API asks for in the place of a file keeps the digest of the file.
func (r Request) Alike(q Request) bool {
	same := func(a, b Brownout) bool {
		return a.Percent == b.Percent && a.From.Equal(b.From) && a.Until.Equal(b.Until)
	}
	return r.Made() && r.Percent == q.Percent && r.Digest == q.Digest && r.Override == clip(q.Override) && r.Retire == q.Retire &&
		slices.EqualFunc(r.Brownouts, q.Brownouts, same)
}

// maxCredentials bounds what a retired team is remembered by.
const maxCredentials = 10_000

// maxPast is how many earlier digests a request remembers. A mount that is late is
// late by one or two changes.
const maxPast = 8

// past is what a request of a digest that follows r remembers.
func (r Request) past(digest string) []string {
	var past []string
	for _, d := range append([]string{r.Digest}, r.Past...) {
		if d != "" && d != digest && !slices.Contains(past, d) && len(past) < maxPast {
			past = append(past, d)
		}
	}
	return past
}

// maxBrownouts bounds the windows of a request.
const maxBrownouts = 50

// Brownout is a window in which at least Percent of a team must use OIDC, so
// that clients are found which nobody knew of. It is never stored as the team's
// percentage: each replica looks at its own clock, so it ends everywhere by
// itself. It governs the runs that are first seen inside it; their latches keep
// what the stored percentage decides.
type Brownout struct {
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"` // not in it
	Percent Percent   `json:"percent"`
}

// MaxBrownout is how long a window may last, in a file as over the admin API: no
// check is asked about one, so it must not take the place of a raise.
const MaxBrownout = 24 * time.Hour

// BrownoutSpan is in any how long a time the windows of a team may together last
// MaxBrownout at most, wherever they overlap counted once. Windows that follow each
// other would else be a raise that no check was asked about. A day in a week is
// enough to find what runs every day, and another day of the week can be taken next
// time.
const BrownoutSpan = 7 * 24 * time.Hour

// BrownoutsWithin returns which of the windows is one too many: with it they last
// longer than MaxBrownout in some BrownoutSpan. It is -1 if none is.
func BrownoutsWithin(windows []Brownout) int {
	for i, last := range windows {
		// Some span that begins with a window holds as much of them as any.
		for _, w := range windows[:i+1] {
			if from := w.From; browned(windows[:i+1], from, from.Add(BrownoutSpan)) > MaxBrownout && last.From.Before(last.Until) {
				return i
			}
		}
	}
	return -1
}

// browned is for how long of a time there are windows.
func browned(windows []Brownout, from, until time.Time) (sum time.Duration) {
	inOrder := slices.SortedFunc(slices.Values(windows), func(a, b Brownout) int { return a.From.Compare(b.From) })
	for _, w := range inOrder {
		begin, end := w.From, w.Until
		if begin.Before(from) {
			begin = from
		}
		if end.After(until) {
			end = until
		}
		if end.After(begin) {
			sum += end.Sub(begin)
			from = end
		}
	}
	return sum
}

// Brownout returns the window that is in force, the highest of several; ok is
// false while there is none, or a hold suspends it. Nor is one in force once the
// windows of the request and of those before it (Request.Spent) have lasted
// MaxBrownout within the last BrownoutSpan, however they were recorded, and whether
// a hold suspended them or not.
func (s State) Brownout(now time.Time) (b Brownout, ok bool) {
	if len(s.Request.Brownouts) == 0 || s.Hold.Active(now) {
		return Brownout{}, false
	}
	for _, w := range s.Request.Brownouts {
		if !now.Before(w.From) && now.Before(w.Until) && (!ok || w.Percent > b.Percent) {
			b, ok = w, true
		}
	}
	// With the moment that begins now: as much as BrownoutsWithin allows is in force to
	// its end, also where the same day of the week before was one.
	end := now.Add(1)
	if ok && browned(slices.Concat(s.Request.Spent, s.Request.Brownouts), end.Add(-BrownoutSpan), end) > MaxBrownout {
		return Brownout{}, false
	}
	return b, ok
}

// SpentBrownouts reports whether a window would be in force, but for those that have
// passed already: together they have lasted MaxBrownout within BrownoutSpan.
func (s State) SpentBrownouts(now time.Time) bool {
	if _, ok := s.Brownout(now); ok || s.Hold.Active(now) {
		return false
	}
	return slices.ContainsFunc(s.Request.Brownouts, func(w Brownout) bool { return !now.Before(w.From) && now.Before(w.Until) })
}

// spent is what a request that follows r remembers of windows: those, as far as they
// have passed, of the last BrownoutSpan. If there are too many, those that are nearest
// to each other become one with the time between them: to forget one would give its
// time back to whoever asks for many short ones.
func (r Request) spent(now time.Time) []Brownout {
	var spent []Brownout
	for _, w := range slices.Concat(r.Spent, r.Brownouts) {
		if w.Until.After(now) {
			w.Until = millisecond(now)
		}
		if w.From.Before(w.Until) && now.Sub(w.Until) < BrownoutSpan && !slices.Contains(spent, w) {
			spent = append(spent, w)
		}
	}
	slices.SortFunc(spent, func(a, b Brownout) int { return a.From.Compare(b.From) })
	for len(spent) > maxBrownouts {
		nearest := 1
		for i := 2; i < len(spent); i++ {
			if apart(spent[i-1], spent[i]) < apart(spent[nearest-1], spent[nearest]) {
				nearest = i
			}
		}
		spent[nearest-1] = joined(spent[nearest-1], spent[nearest])
		spent = slices.Delete(spent, nearest, nearest+1)
	}
	return spent
}

// apart is how long after the end of one window the next begins; below zero where they
// overlap.
func apart(a, b Brownout) time.Duration { return b.From.Sub(a.Until) }

// joined is one window from the beginning of a to the end of whichever ends later.
func joined(a, b Brownout) Brownout {
	a.Until, a.Percent = latest(a.Until, b.Until), max(a.Percent, b.Percent)
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Hold is a brake: requests wait until it is released, or ends by itself.
type Hold struct {
	// Reason is why, for whoever wants to raise the team.
	Reason string `json:"reason"`
	// Requested is the request's percentage when the hold was placed: another one
	// may pass on evidence that is younger than the hold.
	Requested Percent `json:"requested"`
	// Actor, Verified and Source are as in Change.
	Actor    string `json:"actor,omitempty"`
	Verified bool   `json:"verified,omitempty"`
	Source   string `json:"source,omitempty"`
	// At is when it was placed, in milliseconds of UTC; zero for no hold.
	At time.Time `json:"at,omitzero"`
	// Until is when it ends by itself; zero for never.
	Until time.Time `json:"until,omitzero"`
}

// Active reports whether the hold is there and has not ended.
func (h Hold) Active(now time.Time) bool {
	return !h.At.IsZero() && (h.Until.IsZero() || now.Before(h.Until))
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

// Kind says what a change is, for its history.
type Kind string

// The kinds of change. The zero value is a KindSet.
const (
	// KindSet gives the team another percentage at once.
	KindSet Kind = "set"
	// KindRequest notes what the team asks for; the percentage may follow in the
	// same step. KindApply follows a request later.
	KindRequest Kind = "request"
	KindApply   Kind = "apply"
	// KindHold and KindRelease place and lift a hold and leave the percentage.
	KindHold    Kind = "hold"
	KindRelease Kind = "release"
	// KindRollback returns to the percentage before the last raise, with a hold.
	KindRollback Kind = "rollback"
	// KindRetire ends legacy credentials for good.
	KindRetire Kind = "retire"
	// KindRestore puts back what a store has lost.
	KindRestore Kind = "restore"
)

// Kinds lists every kind, in the order of documentation.
func Kinds() []Kind {
	return []Kind{KindSet, KindRequest, KindApply, KindHold, KindRelease, KindRollback, KindRetire, KindRestore}
}

// Change is one write to a team's rollout.
type Change struct {
	Team identity.Team
	Kind Kind
	// Percent is what the team stands at after it.
	Percent Percent
	// Request and Hold replace the state's; nil leaves what is there, and the
	// zero Hold takes it away.
	Request *Request
	Hold    *Hold
	// Retire makes the change the last one: Percent must be 100. Credentials are
	// the ids of the team's static credentials, which join those that are known.
	Retire      bool
	Credentials []string
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
	// Evidence is what was known of the team's readiness then, in a few words.
	Evidence string
	// At is when; the zero time is now. Stores keep milliseconds.
	At time.Time
}

// Entry is one line of a team's history.
type Entry struct {
	Revision int64
	Kind     Kind
	From, To Percent
	Retired  bool // whether the team was retired after the change
	Actor    string
	Verified bool
	Source   string
	Reason   string
	Evidence string
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
	if len(c.Credentials) > maxCredentials || len(c.Credentials) > 0 && !c.Retire {
		return fmt.Errorf("team %q: credentials are those of a team that is retired, at most %d", c.Team, maxCredentials)
	}
	if slices.ContainsFunc(c.Credentials, func(id string) bool { return id == "" || len(id) > maxActor || !utf8.ValidString(id) }) {
		return fmt.Errorf("team %q: the id of a credential must be UTF-8 of 1 to %d bytes", c.Team, maxActor)
	}
	if c.Retire && c.Percent != Full {
		return fmt.Errorf("team %q: only 100 percent can be retired, not %d", c.Team, c.Percent)
	}
	if len(c.Actor) > maxActor || len(c.Source) > maxActor {
		return fmt.Errorf("team %q: actor and source must not be longer than %d bytes", c.Team, maxActor)
	}
	if len(c.Reason) > maxReason || len(c.Evidence) > maxReason {
		return fmt.Errorf("team %q: the reason must not be longer than %d bytes", c.Team, maxReason)
	}
	if c.Kind != "" && !slices.Contains(Kinds(), c.Kind) {
		return fmt.Errorf("team %q: %q is no kind of change", c.Team, c.Kind)
	}
	if err := errors.Join(c.Request.validate(), c.Hold.validate()); err != nil {
		return fmt.Errorf("team %q: %w", c.Team, err)
	}
	if c.Expect < AnyRevision {
		return fmt.Errorf("team %q: expected revision %d: must be 0 or above, or -1 for any", c.Team, c.Expect)
	}
	return nil
}

func (r *Request) validate() error {
	switch {
	case r == nil:
		return nil
	case !r.Made() || r.At != millisecond(r.At):
		return errors.New("a request needs its time, in whole milliseconds of UTC")
	case len(r.Actor) > maxActor || len(r.Source) > maxActor || len(r.Digest) > maxActor:
		return fmt.Errorf("actor, source and digest of a request must not be longer than %d bytes", maxActor)
	case len(r.Reason) > maxReason || len(r.Override) > maxReason:
		return fmt.Errorf("the reasons of a request must not be longer than %d bytes", maxReason)
	case r.Retire && r.Percent != Full:
		return errors.New("only 100 percent can be retired")
	case len(r.Past) > maxPast || slices.ContainsFunc(r.Past, func(d string) bool { return len(d) > maxActor || !utf8.ValidString(d) }):
		return fmt.Errorf("a request remembers %d earlier digests at most, each UTF-8 of %d bytes", maxPast, maxActor)
	case len(r.Brownouts) > maxBrownouts || len(r.Spent) > maxBrownouts:
		return fmt.Errorf("a request must not have more than %d brownouts", maxBrownouts)
	case slices.ContainsFunc(slices.Concat(r.Brownouts, r.Spent), func(b Brownout) bool { return !b.From.Before(b.Until) || b.Percent.Validate() != nil }):
		return errors.New("a brownout must end after it begins, at a percentage from 0 to 100")
	case !utf8.ValidString(r.Actor + "|" + r.Source + "|" + r.Digest + "|" + r.Reason + "|" + r.Override):
		return errors.New("the texts of a request must be UTF-8")
	}
	return r.Percent.Validate()
}

func (h *Hold) validate() error {
	switch {
	case h == nil || *h == Hold{}:
		return nil
	case h.At.IsZero() || h.At != millisecond(h.At) || !h.Until.IsZero() && h.Until != millisecond(h.Until):
		return errors.New("a hold needs its time, in whole milliseconds of UTC")
	case h.Reason == "":
		return errors.New("a hold needs a reason: whoever meets it must know what to wait for")
	case len(h.Actor) > maxActor || len(h.Source) > maxActor:
		return fmt.Errorf("actor and source of a hold must not be longer than %d bytes", maxActor)
	case len(h.Reason) > maxReason:
		return fmt.Errorf("the reason of a hold must not be longer than %d bytes", maxReason)
	case !utf8.ValidString(h.Actor + "|" + h.Source + "|" + h.Reason):
		return errors.New("the texts of a hold must be UTF-8")
	}
	return h.Requested.Validate()
}

// union joins two lists, in order and each word once; nil if both are empty.
func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// millisecond is a time as stores keep it: UTC, in whole milliseconds.
func millisecond(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()).UTC() }

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
	if len(c.Credentials) > 0 {
		next.Credentials = union(s.Credentials, c.Credentials)
	}
	if c.Request != nil {
		next.Request = *c.Request
	}
	if c.Hold != nil {
		next.Hold = *c.Hold
	}
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
		Revision: next.Revision, Kind: cmp.Or(c.Kind, KindSet), From: s.Percent, To: c.Percent, Retired: next.Retired,
		Actor: c.Actor, Verified: c.Verified, Source: c.Source, Reason: c.Reason, Evidence: c.Evidence, At: at,
	}, nil
}

// When returns c.At, or now if that is zero, as stores keep it: UTC, in whole
// milliseconds.
func (c Change) When(now time.Time) time.Time {
	if !c.At.IsZero() {
		now = c.At
	}
	return millisecond(now)
}
