package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"crossfade/gateway/identity"
)

// Answer is what the guard says about raising a team.
type Answer struct {
	// UpTo is the highest percentage that the checks allow; a raise above it
	// waits.
	UpTo Percent
	// Why says in a few words what was found ("1,240 clean runs") or what is
	// missing ("31 of 1,092 runs would break: aud_mismatch (svc-billing)").
	Why string
	// Owner is who can do something about it: team, platform, idp or security; ""
	// if nothing is in the way.
	Owner identity.Owner
	// Signal tells of an open security signal, which no override passes.
	Signal bool
	// Obstacles are all that is in the way of a retirement, the decisive one first;
	// Why is one of them. Of a raise there are none.
	Obstacles []Obstacle
}

// Guard says how far a team may be raised. Lowering asks nobody.
type Guard interface {
	// MayRaise says how far a team may be raised from a state, by the evidence since
	// a time; zero is all that counts. An error is no answer: the raise waits.
	MayRaise(ctx context.Context, s State, since time.Time) (Answer, error)
	// MayRetire looks at whether a team that stands at 100 percent still needs its
	// static credentials. UpTo is 100 if it does not.
	MayRetire(ctx context.Context, s State) (Answer, error)
}

// AskGuard returns the guard's answer to a state's request: about retirement once a
// team that asks for it stands at 100 percent, about a raise if it is one, and
// nothing otherwise. A guard that cannot answer keeps the team where it is, and an
// override does not pass that.
func AskGuard(ctx context.Context, g Guard, s State, now time.Time) Answer {
	var answer Answer
	var err error
	switch {
	case s.Request.retires(s):
		answer, err = g.MayRetire(ctx, s)
	case s.Request.Made() && s.Request.Percent > s.Percent:
		answer, err = g.MayRaise(ctx, s, Since(s, now))
	}
	if err != nil {
		return Answer{Why: "the evidence cannot be read: " + err.Error(), Owner: identity.OwnerPlatform, Signal: true}
	}
	return answer
}

// retires reports whether a request asks to retire a team that may be asked
// about.
func (r Request) retires(s State) bool {
	return r.Made() && r.Retire && !s.Retired && s.Percent >= Full
}

// Outcome is what becomes of a request.
type Outcome uint8

// The outcomes. The zero value is a team whose request is met, or that has none.
const (
	// Met: the live percentage is what the request asks for.
	Met Outcome = iota
	// Lower: it follows at once; lowering is always allowed.
	Lower
	// Raise: the checks, or an override, allow it.
	Raise
	// Pending: checks do not hold yet. The request waits for them.
	Pending
	// Held: a hold is in force.
	Held
	// Closed: it is allowed, but not at this hour.
	Closed
	// Retire: the team's static credentials end for good.
	Retire
)

// String returns the word for the outcome.
func (o Outcome) String() string {
	switch o {
	case Lower:
		return "lower"
	case Raise:
		return "raise"
	case Pending:
		return "pending"
	case Held:
		return "held"
	case Closed:
		return "outside apply_hours"
	case Retire:
		return "retire"
	default:
		return "met"
	}
}

// Applies reports whether the live percentage follows.
func (o Outcome) Applies() bool { return o == Lower || o == Raise || o == Retire }

// Step is what Next says.
type Step struct {
	Outcome  Outcome
	From, To Percent
	// Why is for people: what allows it or what is in the way.
	Why   string
	Owner identity.Owner
	// Releases tells that a hold is lifted by it, Overridden that the checks do
	// not hold and an override passes.
	Releases, Overridden bool
}

// Next says what becomes of a team's request: the state as it is, the answer of
// the guard for it (see Since), and whether raises are applied at this hour. It
// is pure.
//
// A request below the live percentage lowers it, whatever else is the case. A
// hold outranks a request, until it is released, has ended, or another
// percentage than the one that was asked for when it was placed passes the guard
// on evidence younger than the hold. An override passes the checks, never a
// security signal, and never a hold.
func Next(s State, answer Answer, open bool, now time.Time) Step {
	r := s.Request
	step := Step{From: s.Percent, To: r.Percent}
	switch held := s.Hold.Active(now); {
	case r.retires(s):
		step.To = s.Percent
		step.Outcome, step.Why, step.Owner = Pending, answer.Why, answer.Owner
		switch {
		case held:
			step.Outcome, step.Why, step.Owner = Held, s.Hold.Reason, ""
		case answer.UpTo >= Full && !answer.Signal && !open:
			step.Outcome = Closed
		case answer.UpTo >= Full && !answer.Signal:
			step.Outcome = Retire
		}
		return step
	case !r.Made() || r.Percent == s.Percent:
		step.To = s.Percent
		return step
	case r.Percent < s.Percent:
		step.Outcome = Lower
		step.Why = "lowering is always allowed"
		if s.Retired {
			step.Outcome, step.Why = Pending, "the team is retired: it stays at 100%"
		}
		return step
	case held && r.Percent == s.Hold.Requested:
		step.Outcome, step.Why = Held, s.Hold.Reason
		return step
	case held && answer.UpTo < r.Percent:
		step.Outcome = Held
		step.Why = fmt.Sprintf("%s; since then: %s", s.Hold.Reason, answer.Why)
		step.Owner = answer.Owner
		return step
	case held:
		step.Releases = true
	}
	step.Why, step.Owner = answer.Why, answer.Owner
	switch {
	case answer.Signal:
		step.Outcome = Pending
	case answer.UpTo >= r.Percent:
		step.Outcome = Raise
	case r.Override != "":
		step.Outcome, step.Overridden = Raise, true
		step.Why = fmt.Sprintf("override: %s (%s)", r.Override, answer.Why)
	default:
		step.Outcome = Pending
	}
	if step.Outcome == Raise && !open {
		step.Outcome = Closed
	}
	return step
}

// Since is the time whose younger evidence the guard is to be asked about for a
// team's request: that of its hold if one is active, else zero.
func Since(s State, now time.Time) time.Time {
	if s.Hold.Active(now) {
		return s.Hold.At
	}
	return time.Time{}
}

// Setting is a percentage that somebody sets at once, past request and checks.
type Setting struct {
	Percent Percent
	Actor   string
	// Verified and Source are as in Change.
	Verified bool
	Source   string
	Reason   string
	// Until, if not zero, ends the hold that goes with it by itself: it breaks
	// the glass while the identity provider is away.
	Until time.Time
}

// Check reports whether a setting may be made of a state. One with an end lowers or
// leaves the percentage: it is no raise for a while, and what the team asks for
// would lower it again at once.
func (to Setting) Check(s State) error {
	if !to.Until.IsZero() && to.Percent > s.Percent {
		return fmt.Errorf("team %q is at %s%%: a hold that breaks the glass is for lowering it, not for %s%%", string(s.Team), s.Percent, to.Percent)
	}
	return nil
}

// Set is the change that a setting makes of a state. Below what the team's file
// asks for it comes with a hold, or the file would raise the team again; a
// setting with an end always does, and a hold that was to last longer does so. Above, it takes the place of what was asked
// for, or the file would lower the team again; the digest stays, so that the
// file is not taken for another one.
func Set(s State, to Setting, now time.Time) Change {
	c := to.change(s, KindSet, now)
	switch r := s.Request; {
	case !to.Until.IsZero(), r.Made() && to.Percent < r.Percent:
		c.Hold = to.hold(s, fmt.Sprintf("set to %s%%", to.Percent), now)
	case r.Made() && to.Percent > r.Percent:
		c.Request = &Request{
			Percent: to.Percent, Digest: r.Digest, Past: r.Past, Brownouts: r.Brownouts, Spent: r.Spent, Actor: to.Actor, Verified: to.Verified, Source: to.Source, Reason: to.Reason,
			At: millisecond(now),
		}
	}
	return c
}

func (to Setting) change(s State, kind Kind, now time.Time) Change {
	return Change{
		Team: s.Team, Kind: kind, Percent: to.Percent, Expect: s.Revision,
		Actor: to.Actor, Verified: to.Verified, Source: to.Source, Reason: to.Reason, At: now,
	}
}

// hold is the one that goes with a setting. Without a reason it says what was
// done and by whom.
func (to Setting) hold(s State, done string, now time.Time) *Hold {
	h := &Hold{
		Reason:    clip(cmp.Or(to.Reason, done+" by "+cmp.Or(to.Actor, "somebody"))),
		Requested: s.Request.Percent, Actor: to.Actor, Verified: to.Verified, Source: to.Source, At: millisecond(now),
	}
	if !to.Until.IsZero() {
		h.Until = millisecond(to.Until)
	}
	// Breaking the glass does not end a hold that was to last longer.
	if was := s.Hold; was.Active(now) && !h.Until.IsZero() && (was.Until.IsZero() || was.Until.After(h.Until)) {
		h.Until = was.Until
	}
	return h
}

// LastRaised reports whether the last change that moved the percentage raised
// it. It looks at no times: those of two replicas differ.
func (s State) LastRaised() bool { return !s.RaisedAt.IsZero() && s.Previous < s.Percent }

// ErrNothingToRollBack is Rollback's where a team was not raised.
var ErrNothingToRollBack = errors.New("there is no raise to roll back")

// Rollback is the change that takes a team back to the percentage before its
// last raise, with a hold.
func Rollback(s State, by Setting, now time.Time) (Change, error) {
	switch {
	case s.Retired:
		return Change{}, retiredError(s.Team)
	case !s.LastRaised():
		return Change{}, fmt.Errorf("team %q: %w: it is at %s%%, and its last change did not raise it", string(s.Team), ErrNothingToRollBack, s.Percent)
	}
	by.Percent, by.Reason = s.Previous, clip(by.Reason)
	c := by.change(s, KindRollback, now)
	c.Hold = by.hold(s, fmt.Sprintf("rolled back from %s%%", s.Percent), now)
	return c, nil
}

// Brake is the change that places a hold and leaves the percentage.
func Brake(s State, by Setting, now time.Time) Change {
	by.Percent = s.Percent
	c := by.change(s, KindHold, now)
	c.Hold = by.hold(s, "held", now)
	return c
}

// Release is the change that lifts a hold.
func Release(s State, by Setting, now time.Time) Change {
	by.Percent = s.Percent
	c := by.change(s, KindRelease, now)
	c.Hold = &Hold{}
	return c
}

// Ask is the change that notes a request and, if the step that follows from it
// applies, follows it.
func Ask(s State, r Request, step Step, now time.Time) Change {
	r.At = millisecond(now)
	r.Past, r.Spent = s.Request.past(r.Digest), s.Request.spent(now)
	r.Reason, r.Override = clip(r.Reason), clip(r.Override)
	c := Change{
		Team: s.Team, Kind: KindRequest, Percent: s.Percent, Expect: s.Revision, Request: &r,
		Actor: r.Actor, Verified: r.Verified, Source: r.Source, Reason: r.Reason, Evidence: step.Why, At: now,
	}
	return c.follow(step)
}

// Follow is the change by which a team's live percentage follows its request.
// The request's actor is who asked for it.
func Follow(s State, step Step, now time.Time) Change {
	r := s.Request
	c := Change{
		Team: s.Team, Kind: KindApply, Percent: s.Percent, Expect: s.Revision,
		Actor: r.Actor, Verified: r.Verified, Source: r.Source, Reason: r.Reason, Evidence: step.Why, At: now,
	}
	return c.follow(step)
}

// clip cuts a text that is too long to be kept: that somebody has much to say
// keeps nobody from lowering a team.
func clip(text string) string {
	const more = "..."
	if len(text) <= maxReason && utf8.ValidString(text) {
		return text
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= maxReason {
		return text
	}
	return strings.ToValidUTF8(text[:maxReason-len(more)], "") + more
}

func (c Change) follow(step Step) Change {
	c.Reason, c.Evidence = clip(c.Reason), clip(c.Evidence)
	if step.Outcome.Applies() {
		c.Percent = step.To
		if step.Outcome == Retire {
			c.Kind, c.Retire = KindRetire, true
		}
		if step.Releases {
			c.Hold = &Hold{}
		}
	}
	return c
}

// Update makes a change of whatever the team's state is: it reads the state,
// asks what to change, and writes that; if somebody was faster it begins again.
// A change without a team is none, and the state is returned as it is. That other
// teams cannot be read is in nobody's way.
func Update(ctx context.Context, store interface {
	Reader
	Writer
}, team identity.Team, change func(State) (Change, error),
) (State, error) {
	snapshot, err := store.Load(ctx)
	if err := OfTeam(err, team); err != nil {
		return State{}, err
	}
	s, ok := snapshot.Teams[team]
	if !ok {
		s = State{Team: team}
	}
	for {
		c, err := change(s)
		if err != nil || c.Team == "" {
			return s, err
		}
		c.StoreID, c.Expect = snapshot.StoreID, s.Revision
		next, err := store.Write(ctx, c)
		var conflict *ConflictError
		if !errors.As(err, &conflict) {
			return next, err
		}
		s = conflict.Current
		if err := ctx.Err(); err != nil {
			return s, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
}
