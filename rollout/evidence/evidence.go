// Package evidence gathers what requests teach about a cutover: how often each
// verdict was given, the worst one of every run, when accounts and task families
// were last used and how, and what was lost on the way.
//
// A Recorder takes one Observation for each request, off whose path it folds
// them into a Batch a second and hands that to a Store. The package knows no
// database; package redisstore provides the Store, and package rollouttest the
// suite that each of them passes.
//
// What is lost is told by team (Gap), so that a team which floods a gateway takes
// nothing from what is known of another; only of a gateway that dies nobody knows
// whose requests it took along. Losses says what gaps mean for a team.
//
// Nothing here judges: the statistics and checks that stand on the evidence are
// of the readiness packages.
package evidence

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// Grade is how bad a run is: its worst request. A greater one is worse.
type Grade uint8

// The grades, from the best to the worst.
const (
	// Clean is a run of which nothing worse is known.
	Clean Grade = iota
	// Indeterminate could not be judged.
	Indeterminate
	// NoToken sent no token.
	NoToken
	// WouldBreak sent a token that would not have been let in, or was refused.
	WouldBreak
	// IdentityDrift is another principal, team or right by token.
	IdentityDrift
	// WouldOpen is denied today and would be allowed.
	WouldOpen
)

// Grades lists every grade, the best first.
func Grades() []Grade {
	return []Grade{Clean, Indeterminate, NoToken, WouldBreak, IdentityDrift, WouldOpen}
}

// String returns the word for the grade: the verdict that it stands for, or
// "clean".
func (g Grade) String() string {
	switch g {
	case Indeterminate:
		return "indeterminate"
	case NoToken:
		return "no_token"
	case WouldBreak:
		return "would_break"
	case IdentityDrift:
		return "identity_drift"
	case WouldOpen:
		return "would_open"
	default:
		return "clean"
	}
}

// Bad reports whether a run of this grade counts against the team.
func (g Grade) Bad() bool { return g >= WouldBreak }

// Signal reports whether the grade is a security signal, which may be waived.
func (g Grade) Signal() bool { return g >= IdentityDrift }

// The bounds of what is kept. They keep who can make runs, or has a worker id
// and a family made up for each request, from drowning the rest.
const (
	// MaxRuns is how many runs are kept of an account, a pipeline and a day. They
	// are those with the smallest keyed hash, so that nobody can choose them by
	// coming first.
	MaxRuns = 24
	// MaxBad is how many failed runs are kept of the same beyond those: failures
	// are kept whether chosen or not.
	MaxBad = 240
	// MaxBadOfAccount is how many of those are kept of an account and a day, of
	// whatever pipelines: as many as ten that do nothing but fail. Without it one
	// account could fill 100 MB a day with failures.
	MaxBadOfAccount = 10 * MaxBad
	// MaxPipelines is how many pipelines are kept of an account and a day.
	MaxPipelines = 500
	// MaxPairs is how many pairs of account and pipeline are kept of a team and a
	// day.
	MaxPairs = 5000
	// MaxFamilies is how many pairs of account and task family are kept of a
	// team. The oldest are forgotten.
	MaxFamilies = 20_000
	// RunIdle is how long a run may be silent and still be the same when it speaks
	// again: twice as long as its latch lives (rollout.LatchIdle), for what is
	// known of when it last spoke lags behind. A worker whose id is set by hand has
	// a run for each time it is started.
	RunIdle = 2 * rollout.LatchIdle
	// RunDays is how many days a run counts once for, at most: as long as a latch
	// lives (rollout.LatchMax). One that lasts longer counts again after each.
	RunDays = int(rollout.LatchMax / (24 * time.Hour))
	// MaxDetail is how long a detail is kept, in bytes; what is longer is cut.
	MaxDetail = identity.MaxSample
	// MaxConfig is how long the hash of a configuration is kept, as MaxDetail.
	MaxConfig = 16
	// Retention is how long the counts of a day and losses are kept after it: a
	// quarter. They are small.
	Retention = 90 * 24 * time.Hour
	// RunRetention is how long the runs of a day, and what would have been refused on
	// it, are kept after it: the longest window or cycle that a configuration can
	// have, 35 days, and some for people who look when it is over. When accounts and
	// families were last used does not end with the days.
	RunRetention = 45 * 24 * time.Hour
)

// Day is a day of UTC as 2006-01-02. A run belongs to the one on which it
// started.
type Day string

// DayOf returns the day of a time.
func DayOf(t time.Time) Day { return Day(t.UTC().Format(time.DateOnly)) }

// Before returns the day before. Of what is no day it is "".
func (d Day) Before() Day {
	t, err := time.Parse(time.DateOnly, string(d))
	if err != nil {
		return ""
	}
	return DayOf(t.AddDate(0, 0, -1))
}

// End returns when the day has passed. Of what is no day it is the zero time.
func (d Day) End() time.Time {
	t, err := time.Parse(time.DateOnly, string(d))
	if err != nil {
		return time.Time{}
	}
	return t.AddDate(0, 0, 1)
}

// Observation is what one request teaches. Texts that a client chose are in it
// only together with the account whose credential it presented.
type Observation struct {
	At   time.Time
	Team identity.Team
	// Account is the verified principal; "" for a request of nobody, which is
	// counted and is no part of a run.
	Account string
	// Run is the worker that speaks; "" for a request of no run, such as those of
	// people in browsers.
	Run string
	// Pipeline is the run's, Family the one that the request is about; "" while
	// they are not known.
	Pipeline, Family string
	// Scheme is what the request was judged by.
	Scheme identity.Scheme
	// Verdict, Reason and Source are the shadow's: its verdict, primary reason
	// and evidence, each from a closed list.
	Verdict string
	Reason  identity.Reason
	Source  string
	Grade   Grade
	// Legacy tells that a legacy credential was verified, Token that the client
	// sent a token that could be judged, and TokenExpiry when it ends.
	Legacy, Token bool
	TokenExpiry   time.Time
	// Enforced tells that the run was enforced, Refused that the request was
	// refused for its credential.
	Enforced, Refused bool
	// Brownout tells that a window enforced it.
	Brownout bool
	// Observed tells that the gateway's mode was to refuse nothing.
	Observed bool
	TraceID  string
	// Detail says of a mismatch what was found and what would have been right. It
	// is shown to whoever may see the team, so it is a sample: see identity.Sample. ""
	// for what is none.
	Detail string
	// Config is the hash of what of the configuration the verdict rests on for the
	// team: issuers, roles and principals. In lower-case hex; "" if it is not known.
	Config string
	// WouldRefuse is what the request would be refused as, with the account that
	// it names; the zero value if it would not be. Its pipeline is not looked at.
	WouldRefuse Refusal
	// DayRun tells that a run is what the account does in a day: where clients
	// have no life that could be told (profile http). Run is not looked at.
	DayRun bool
}

// RunKey names a run within a team. A store keeps runs under keys of its own,
// which it makes of these.
type RunKey [16]byte

// NewRunKey returns the key of an account's run. Both go through SHA-256, cut to
// 128 bits, so that whatever a client sends a key has one length.
func NewRunKey(account, run string) RunKey {
	var buffer [256]byte
	in := binary.AppendUvarint(buffer[:0], uint64(len(account)))
	in = append(in, account...)
	in = append(in, run...)
	sum := sha256.Sum256(in)
	return RunKey(sum[:16])
}

// String returns the key in lower-case hex.
func (k RunKey) String() string { return hex.EncodeToString(k[:]) }

// Run is what is known of a run.
type Run struct {
	Account string
	// Pipeline is the family of the first task that it registered; "" while it
	// has registered none.
	Pipeline string
	Grade    Grade
	// Reason, Detail and TraceID are of the first request of the worst grade, Worst
	// is when that was.
	Reason  identity.Reason
	Detail  string
	TraceID string
	Worst   time.Time
	// First and Last are when it was seen, in milliseconds of UTC; Last may lag
	// a minute behind.
	First, Last time.Time
	// Legacy tells that it used a legacy credential, Token that it sent a token
	// that could be judged.
	Legacy, Token bool
	// Enforced tells that it was, Refused that a request of it was refused for
	// its credential.
	Enforced, Refused bool
	// EnforcedFrom is when the percentage, and no brownout, was first seen to
	// enforce it. LockedOut is when that first had a request refused whose static
	// credential was verified in that very request: only then it would have been
	// let in before. Both in milliseconds of UTC, zero for never.
	EnforcedFrom, LockedOut time.Time
	// Broke tells that a token of it would not have been let in, Tokenless that a
	// request of it came without one, Unjudged that one could not be judged: Grade says
	// none of these where it is a security signal.
	Broke, Tokenless, Unjudged bool
	// Failure is the first request whose token would not have been let in, where Grade
	// is a security signal; zero otherwise.
	Failure Failure
	// Also are its security signals beside the worst one.
	Also Signals
	// Brownout tells that a request of it fell into a window that enforced it,
	// Observed that one came while the gateway refused nothing to anybody.
	Brownout, Observed bool
	// Config is under which configuration its last request was judged.
	Config string
	// FirstExpiry and LastExpiry are the ends of the tokens that it sent, the
	// earliest and the latest; zero without one. They differ once it renewed.
	FirstExpiry, LastExpiry time.Time
}

// Renewed reports whether the run has sent more than one token.
func (r Run) Renewed() bool { return r.LastExpiry.After(r.FirstExpiry) }

// Continues reports whether what is known of a run, from another replica or from
// a later time, is about the run that o is about: they have one key, and neither
// was it silent too long between the two nor lasts it too long.
func (r Run) Continues(o Run) bool {
	return r.First.Sub(o.Last) <= RunIdle && r.First.Sub(o.First) < rollout.LatchMax
}

// Failed reports whether the run is one of those that are kept whether chosen or
// not: it counts against the team, or was refused.
func (r Run) Failed() bool { return r.Grade.Bad() || r.Refused }

// Merge adds what another replica, or a later request, knows of the same run; to
// the zero Run it adds all.
// The order does not matter, but for which of two requests of the same grade and
// time is named. The store on the server does the same; the conformance suite
// compares them.
func (r Run) Merge(o Run) Run {
	worse := o.Grade > r.Grade || o.Grade == r.Grade && (r.Worst.IsZero() || o.Worst.Before(r.Worst) && !o.Worst.IsZero())
	failure, also := r.Failure, r.Also
	if r.Grade.Signal() || o.Grade.Signal() {
		failure, also = r.failure().earlier(o.failure()), r.Signals().with(o.Signals())
	}
	if worse {
		r.Grade, r.Reason, r.Detail, r.TraceID, r.Worst = o.Grade, o.Reason, o.Detail, o.TraceID, o.Worst
	}
	if r.Grade.Signal() {
		r.Failure, r.Also = failure, also.without(r.Grade, r.Reason)
	}
	if o.Last.After(r.Last) || o.Last.Equal(r.Last) && o.Config > r.Config {
		r.Config = o.Config
	}
	r.Account, r.Pipeline = cmp.Or(r.Account, o.Account), cmp.Or(r.Pipeline, o.Pipeline)
	r.First, r.Last = earliest(r.First, o.First), latest(r.Last, o.Last)
	r.Legacy, r.Token = r.Legacy || o.Legacy, r.Token || o.Token
	r.Enforced, r.Refused = r.Enforced || o.Enforced, r.Refused || o.Refused
	r.Broke, r.Tokenless, r.Unjudged = r.Broke || o.Broke, r.Tokenless || o.Tokenless, r.Unjudged || o.Unjudged
	r.EnforcedFrom, r.LockedOut = earliest(r.EnforcedFrom, o.EnforcedFrom), earliest(r.LockedOut, o.LockedOut)
	r.Brownout, r.Observed = r.Brownout || o.Brownout, r.Observed || o.Observed
	r.FirstExpiry, r.LastExpiry = earliest(r.FirstExpiry, o.FirstExpiry), latest(r.LastExpiry, o.LastExpiry)
	return r
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Count is what requests are counted by.
type Count struct {
	Verdict string
	Reason  identity.Reason
	Source  string
}

// Use is when an account was last seen; zero times are never.
type Use struct {
	Legacy, Token time.Time
	// Run is when it was last seen in a run, Page when outside of any, as people in
	// browsers are. Who is only ever seen outside has no runs that could be asked
	// for.
	Run, Page time.Time
	// Failed is when its token, or the want of one, was last a mismatch, and
	// Reason why.
	Failed time.Time
	Reason identity.Reason
}

// Merge adds what another replica knows of the same account.
func (u Use) Merge(o Use) Use {
	u.Legacy, u.Token = latest(u.Legacy, o.Legacy), latest(u.Token, o.Token)
	u.Run, u.Page = latest(u.Run, o.Run), latest(u.Page, o.Page)
	if o.Failed.After(u.Failed) {
		u.Failed, u.Reason = o.Failed, o.Reason
	}
	return u
}

// Family is a task family that an account used in a run. What people look at is
// none.
type Family struct{ Account, Name string }

// FamilyUse is when an account used a task family: last, and last in a request
// whose token was judged and nothing was wrong; zero for never.
type FamilyUse struct{ Last, Clean time.Time }

// Merge adds what another replica knows of the same.
func (u FamilyUse) Merge(o FamilyUse) FamilyUse {
	return FamilyUse{Last: latest(u.Last, o.Last), Clean: latest(u.Clean, o.Clean)}
}

// Daily is what is known of a team's day.
type Daily struct {
	Counts  map[Count]int64
	Schemes map[identity.Scheme]int64
	Runs    map[RunKey]Run
	// Refusals are what would have been refused. A Store returns them apart: see
	// RefusalReader.
	Refusals map[Refusal]Refused
	// Unkept is about how many runs were not kept, for there were enough of their
	// kind.
	Unkept int64
}

// Batch is what a replica learned since its last one.
type Batch struct {
	// Replica and Seq name the batch: a store takes the part of a team once, whatever
	// happens to the answer. Seq grows from 1; a replica that starts again has another
	// name.
	Replica string
	Seq     int64
	// From and To are the times between which it was gathered.
	From, To time.Time
	// Teams are its parts. That of "" has nothing but Lost: of whom nobody knows the
	// team.
	Teams map[identity.Team]*TeamBatch
}

// Requests returns how many requests the batch counts.
func (b Batch) Requests() int64 {
	n := int64(0)
	for _, team := range b.Teams {
		n += team.Requests()
	}
	return n
}

// Lost returns how many observations there was no room for.
func (b Batch) Lost() int64 {
	n := int64(0)
	for _, team := range b.Teams {
		n += team.Lost
	}
	return n
}

func (b Batch) empty() bool { return len(b.Teams) == 0 }

// Of returns the batch as it names the part of a team, with that part alone.
func (b Batch) Of(team identity.Team) Batch {
	part := b.Teams[team]
	b.Seq, b.Teams = cmp.Or(part.Seq, b.Seq), map[identity.Team]*TeamBatch{team: part}
	if !part.From.IsZero() {
		b.From = part.From
	}
	if !part.To.IsZero() {
		b.To = part.To
	}
	return b
}

// TeamBatch is the part of one team.
type TeamBatch struct {
	Days     map[Day]*Daily
	Accounts map[string]Use
	Families map[Family]FamilyUse
	// Since is when its first account was first seen in the batch; zero if none was.
	Since time.Time
	// Lost is how many observations of the team there was no room for.
	Lost int64
	// Seq, From and To stand in for those of the batch, where they are not zero: the
	// part comes again, having been of an earlier one, or was gathered for longer.
	Seq      int64
	From, To time.Time

	runs int // in Days
}

// Requests returns how many requests the part counts.
func (t *TeamBatch) Requests() (n int64) {
	for _, day := range t.Days {
		n += day.Requests()
	}
	return n
}

// Requests returns how many requests the day counts.
func (d *Daily) Requests() (n int64) {
	for _, count := range d.Counts {
		n += count
	}
	return n
}

// GapsTouch is how near two gaps of a replica are one, so that what is lost again
// and again leaves one that grows.
const GapsTouch = time.Minute

// Gap is a loss of evidence: between two times a replica did not record so many
// requests.
type Gap struct {
	Replica string `json:"replica"`
	// Team is whose requests they were; "" if nobody knows, as of a replica that died.
	Team identity.Team `json:"team,omitempty"`
	From time.Time     `json:"from"`
	To   time.Time     `json:"to"`
	// Requests is 0 where there is a team if nobody knows how many they were.
	Requests int64 `json:"requests"`
}

// Join returns what a gap is together with another one of the same replica and
// team; ok is false if they are too far from each other, or if of one nobody knows how many requests it is. A replica loses forwards in
// time, so one that lies within another is already part of it.
func (g Gap) Join(o Gap) (joined Gap, ok bool) {
	unlike := g.Team != "" && (g.Requests == 0) != (o.Requests == 0)
	if unlike || g.Replica != o.Replica || g.Team != o.Team || o.From.Sub(g.To) > GapsTouch || g.From.Sub(o.To) > GapsTouch {
		return g, false
	}
	if o.From.Before(g.From) || o.To.After(g.To) {
		g.From, g.To, g.Requests = earliest(g.From, o.From), latest(g.To, o.To), g.Requests+o.Requests
	}
	return g, true
}

// Losses are what gaps mean for a team between two times: how many of its requests
// were lost, counting a gap that ends within as a whole, and for how long of that
// time requests were lost of which nobody knows the team, or how many of this one. Times at which several
// replicas lost some count once. Of gaps of other teams it depends on nothing.
func Losses(gaps []Gap, team identity.Team, from, to time.Time) (requests int64, unknown time.Duration) {
	var all []Gap
	for _, g := range gaps {
		switch {
		case !g.To.After(from) || g.From.After(to):
		case g.Team == "", g.Team == team && g.Requests == 0:
			all = append(all, g)
		case g.Team == team:
			requests += g.Requests
		}
	}
	slices.SortFunc(all, func(a, b Gap) int { return a.From.Compare(b.From) })
	end := from // of what is counted
	for _, g := range all {
		begin, until := latest(g.From, end), g.To
		if until.After(to) {
			until = to
		}
		if until.After(begin) {
			unknown += until.Sub(begin)
			end = until
		}
	}
	return requests, unknown
}

// LostError says what of a batch a store did not record and never will, however
// often it comes again; all else of it is recorded. The requests are noted as a
// gap.
type LostError struct{ Parts []LostPart }

// LostPart is what is lost of a team: a day, or how its accounts and families were
// used. Requests are those that were not recorded whole; one that is in two parts
// counts in one.
type LostPart struct {
	Team identity.Team
	Day  Day // "" for the uses
	// Key is where the store wanted to write, "" for nowhere.
	Key      string
	Requests int64
	// Err says why, and what to do.
	Err error
}

func (e *LostError) Error() string {
	switch len(e.Parts) {
	case 0:
		return "evidence is lost"
	case 1:
		return e.Parts[0].Err.Error()
	default:
		return fmt.Sprintf("%v (and %d more)", e.Parts[0].Err, len(e.Parts)-1)
	}
}

// Requests returns how many requests were not recorded whole.
func (e *LostError) Requests() (n int64) {
	for _, part := range e.Parts {
		n += part.Requests
	}
	return n
}

// PartialError says of which teams a batch is not recorded for now, since the node
// of a cluster that they need is away. All else of it is recorded, but for what Lost
// says. It matches rollout.ErrUnavailable, and Err says why.
type PartialError struct {
	// Teams are those whose parts are to be sent again, in order: each with the Seq,
	// From and To that it had, and before any later part of its team.
	Teams []identity.Team
	// Lost is what of the other teams will never be recorded; nil for nothing.
	Lost *LostError
	Err  error
}

func (e *PartialError) Error() string {
	return fmt.Sprintf("the evidence of %s waits, that of all other teams is recorded: %v", some(e.Teams), e.Err)
}

// Is matches rollout.ErrUnavailable.
func (e *PartialError) Is(target error) bool { return target == rollout.ErrUnavailable }

// Unwrap returns Err. Lost is not unwrapped, for what waits is not lost.
func (e *PartialError) Unwrap() error { return e.Err }

// some names teams, the first of them if there are many.
func some(teams []identity.Team) string {
	const most = 5
	names := make([]string, 0, most+1)
	for _, team := range teams[:min(len(teams), most)] {
		names = append(names, cmp.Or(string(team), "nobody"))
	}
	if more := len(teams) - most; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// Store keeps evidence. Implementations pass rollouttest.TestEvidence and are
// safe for concurrent use. Errors match rollout.ErrUnavailable, but for what
// Record says.
type Store interface {
	// Record adds a batch. A part that was recorded already changes nothing, so
	// whoever got no answer, or rollout.ErrUnavailable, may send all of it again, and
	// after a *PartialError the parts of the teams that it names. Whoever got a
	// *LostError must not: it would not help. It lasts no longer than ctx, however many
	// teams cannot be reached.
	Record(ctx context.Context, b Batch) error
	// Daily returns what is known of a team's day; of one that nothing is known
	// of, empty maps.
	Daily(ctx context.Context, team identity.Team, day Day) (Daily, error)
	// Accounts returns when each account of a team was last used, Families when
	// each family was by each account.
	Accounts(ctx context.Context, team identity.Team) (map[string]Use, error)
	Families(ctx context.Context, team identity.Team) (map[Family]FamilyUse, error)
	// Since returns when a team's evidence began: when a credential of one of its
	// accounts was first proven; zero for never. It outlives the days.
	Since(ctx context.Context, team identity.Team) (time.Time, error)
	// Gaps returns the losses since a time, oldest first.
	Gaps(ctx context.Context, since time.Time) ([]Gap, error)
	RefusalReader
}
