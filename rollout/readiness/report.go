package readiness

import (
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
	"crossfade/rollout/evidence"
)

// Answer is what next, in one word.
type Answer string

// The answers.
const (
	// Ready: the team may be raised, to Report.UpTo; at 100 percent, retired.
	Ready Answer = "ready"
	// Waiting: nothing is broken; something has still to be seen or done.
	Waiting Answer = "waiting"
	// Blocked: somebody has to repair something.
	Blocked Answer = "blocked"
	// Held: a hold is in force.
	Held Answer = "held"
	// Done: the team is retired.
	Done Answer = "done"
	// Unknown: the evidence cannot be read. No report of Judge has it: see Unread.
	Unknown Answer = "unknown"
)

// Answers lists every answer that Judge gives, in the order in which teams are to be
// looked at.
func Answers() []Answer { return []Answer{Blocked, Held, Waiting, Ready, Done} }

// CheckName names a check; its text is a metric label.
type CheckName string

// The checks, in the order of the report. The first group is about raising, the
// second about retiring a team that stands at 100 percent.
const (
	Watched         CheckName = "watched"
	TokensSent      CheckName = "tokens_sent"
	Covered         CheckName = "accounts_pipelines"
	KnownFailures   CheckName = "known_failures"
	UnknownFailures CheckName = "unknown_failures"
	SecuritySignals CheckName = "security_signals"
	Judged          CheckName = "judged"
	TokenRenewal    CheckName = "token_renewal"
	Current         CheckName = "current"
	Soaked          CheckName = "soaked"

	StoodEnforced  CheckName = "enforced"
	NoLegacy       CheckName = "no_legacy"
	CleanBrownouts CheckName = "brownouts"
	NoUnassigned   CheckName = "unassigned"
	NeverSeen      CheckName = "never_seen"
)

// RaiseChecks and RetireChecks list the names of each group in order.
func RaiseChecks() []CheckName {
	return []CheckName{Watched, TokensSent, Covered, KnownFailures, UnknownFailures, SecuritySignals, Judged, TokenRenewal, Current, Soaked}
}

// RetireChecks lists the checks of retirement in order.
func RetireChecks() []CheckName {
	return []CheckName{StoodEnforced, NoLegacy, CleanBrownouts, NoUnassigned, NeverSeen}
}

// Title is the check for people.
func (c CheckName) Title() string {
	switch c {
	case Watched:
		return "watched without a gap"
	case TokensSent:
		return "tokens sent"
	case Covered:
		return "accounts, pipelines"
	case KnownFailures:
		return "known failures"
	case UnknownFailures:
		return "unknown failures"
	case SecuritySignals:
		return "security signals"
	case Judged:
		return "judged"
	case TokenRenewal:
		return "token renewal"
	case Current:
		return "evidence is current"
	case Soaked:
		return "soaked"
	case StoodEnforced:
		return "enforced at 100%"
	case NoLegacy:
		return "no password used"
	case CleanBrownouts:
		return "brownouts"
	case NoUnassigned:
		return "unassigned accounts"
	case NeverSeen:
		return "credentials never seen"
	default:
		return string(c)
	}
}

// Check is one condition with what there is and what there must be.
type Check struct {
	Name CheckName `json:"check"`
	Pass bool      `json:"pass"`
	// Have and Need are for people: "21 days" and "14 days".
	Have string `json:"have"`
	Need string `json:"need"`
	// Of one that does not pass: Blocks tells that somebody must repair something,
	// Why is the report's reason if this check is the first, Owner who acts, "" if
	// only time has to pass, and Wait how long it will take if the runs go on at
	// their rate and no more of them go wrong, 0 if that is not known.
	Blocks bool           `json:"blocks,omitempty"`
	Why    string         `json:"why,omitempty"`
	Owner  identity.Owner `json:"owner,omitempty"`
	Wait   time.Duration  `json:"-"`
}

// Failure is one way in which runs go wrong: an account, a pipeline and a reason.
type Failure struct {
	Account  string          `json:"account"`
	Pipeline string          `json:"pipeline,omitempty"`
	Reason   identity.Reason `json:"reason"`
	// Verdict is would_break, that of a security signal, or no_token: of that nothing
	// but the check on tokens and that on accounts and pipelines depends.
	Verdict string         `json:"verdict"`
	Owner   identity.Owner `json:"owner"`
	// Runs is how many runs went wrong that way, Share that of the account's and
	// pipeline's runs in the window, 0 to 1.
	Runs  int       `json:"runs"`
	Share float64   `json:"share"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// TraceID is of the last one, Detail the sample of it: what was wrong, with claims
	// by their names (identity.Sample). Each is "" where that is not known.
	TraceID string `json:"trace_id,omitempty"`
	Detail  string `json:"detail,omitempty"`
	// Open is false once it is closed: by CleanSince later clean runs of the same
	// account and pipeline, or by a record of its repair (Fixed).
	Open       bool `json:"open"`
	CleanSince int  `json:"clean_since"`
	Fixed      bool `json:"fixed,omitempty"`
	// Waived says who accepts a signal and until when.
	Waived string `json:"waived,omitempty"`
	// Advice says in a sentence what to do, Closes what closes it.
	Advice string `json:"advice"`
	Closes string `json:"closes"`
}

// AccountState is what an account is in the cutover.
type AccountState string

// The states of an account.
const (
	SendsBoth  AccountState = "sends both"
	TokenOnly  AccountState = "token only"
	LegacyOnly AccountState = "password only"
	Unseen     AccountState = "never seen"
	Idle       AccountState = "not seen in the window"
)

// AccountReport is an account on the team's page.
type AccountReport struct {
	Account string `json:"account"`
	Owner   string `json:"owner,omitempty"`
	// LastLegacy and LastToken are when each credential was last good; zero for
	// never.
	LastLegacy time.Time       `json:"last_password,omitzero"`
	LastToken  time.Time       `json:"last_token,omitzero"`
	State      AccountState    `json:"state"`
	Reason     identity.Reason `json:"last_reason,omitempty"`
	// Runs are those of the window, Clean those of them with nothing wrong.
	Runs  int `json:"runs"`
	Clean int `json:"clean"`
	// People tells that only browsers were seen, which have no runs.
	People bool `json:"people,omitempty"`
	// Next is the lowest percentage that selects one of its pipelines and is above
	// the live one; 0 for none.
	Next rollout.Percent `json:"next_selected_at,omitempty"`
}

// DayReport is how many runs of a day say something, whether they count or not.
type DayReport struct {
	// Day is a day of UTC; a run is of the one on which it started.
	Day evidence.Day `json:"day"`
	// Runs could be judged, Bad of them were bad; Tokenless sent no token, Unjudged
	// could not be judged.
	Runs      int `json:"runs"`
	Bad       int `json:"bad"`
	Tokenless int `json:"tokenless"`
	Unjudged  int `json:"unjudged"`
	// LeftOut is how many of all these do not count: they are of another
	// configuration, or of before a repair that the team's file records.
	LeftOut int `json:"left_out"`
}

// Report is what is known of a team's readiness.
type Report struct {
	Team identity.Team `json:"team"`
	At   time.Time     `json:"at"`
	// Late is how long before At the evidence ends, by which the window ends, too: in
	// whole seconds, and 0 where that is no more than usual.
	Late    time.Duration   `json:"-"`
	Phase   rollout.Phase   `json:"phase"`
	Percent rollout.Percent `json:"percent"`
	// Requested is what the team asks for; nil for nothing.
	Requested *rollout.Percent `json:"requested,omitempty"`
	Answer    Answer           `json:"answer"`
	// UpTo is the highest percentage that the checks allow, the live one if none
	// above it.
	UpTo rollout.Percent `json:"up_to"`
	// Why is the reason for the answer in a few words, Owner who acts; "" if
	// nobody has to.
	Why   string         `json:"why"`
	Owner identity.Owner `json:"owner,omitempty"`
	// Wait is how long it will take at the current rate, 0 if that is not known.
	Wait time.Duration `json:"-"`
	// Signal tells of an open security signal, which no override passes.
	Signal bool `json:"signal,omitempty"`
	// InEffect is of how many of the last full day's runs the percentage is in
	// effect.
	InEffect effect.Share `json:"in_effect"`
	// Runs is n, those that can be judged, Bad is k, those of them that were bad,
	// and Bound is U, below which the share of bad runs is; 1 if nothing is known.
	Runs  int     `json:"runs"`
	Bad   int     `json:"bad"`
	Bound float64 `json:"bound"`
	// Census tells that there are too few runs for a bound.
	Census bool `json:"census,omitempty"`
	near   bool // so few only by chance, perhaps
	// RunsADay is about how many runs the team has a day, all of them counted.
	RunsADay float64 `json:"runs_a_day"`
	// Coverage is the share of runs whose client sent a token, 0 to 1; 0 of none.
	Coverage float64 `json:"coverage"`
	// Window is how far back was looked.
	Window time.Duration `json:"-"`
	// AtWorst is how many runs a day would break at worst if all were enforced, and
	// BrokenADay the limit on what a raise may break of them.
	AtWorst    float64         `json:"at_worst_a_day"`
	BrokenADay float64         `json:"broken_a_day"`
	Checks     []Check         `json:"checks"`
	Retire     []Check         `json:"retire,omitempty"`
	Failures   []Failure       `json:"failures,omitempty"`
	Accounts   []AccountReport `json:"accounts,omitempty"`
	// Days are those of the window on which there were runs, the first one first.
	Days []DayReport `json:"days,omitempty"`
	// Warnings are what is in nobody's way yet.
	Warnings []string `json:"warnings,omitempty"`
	// Problem is why there is no evidence in the report; nil where there is. See Unread.
	Problem *Problem `json:"-"`
}

// Unread is all that is known of a team whose evidence cannot be read, for the
// reason that err is: how its rollout stands. Neither a retirement nor a hold asks
// for evidence.
func Unread(s rollout.State, err error, now time.Time) Report {
	r := Report{
		Team: s.Team, At: now, Phase: s.Phase(), Percent: s.Percent, UpTo: s.Percent,
		Answer: Unknown, Why: "the evidence cannot be read: " + err.Error(), Owner: identity.OwnerPlatform,
		Problem: UnreadProblem("The evidence of "+string(s.Team), err),
	}
	if s.Request.Made() {
		requested := s.Request.Percent
		r.Requested = &requested
	}
	switch {
	case s.Retired:
		r.Answer, r.Why, r.Owner = Done, "its static credentials have ended", ""
	case s.Hold.Active(now):
		r.Answer, r.Why, r.Owner = Held, s.Hold.Reason, identity.OwnerTeam
	}
	return r
}

// Problem is why nothing is known of a team, with what to do about it.
type Problem struct {
	Reason  identity.Reason `json:"reason"`
	Message string          `json:"message"`
	Do      string          `json:"do"`
}

// UnreadProblem says that something cannot be read, for the reason that err is.
func UnreadProblem(what string, err error) *Problem {
	return &Problem{
		Reason: identity.StoreUnavailable, Message: what + " cannot be read: " + err.Error(),
		Do: "Look at what the message names, and at the log of the gateways. Other teams are not affected, and nothing was changed.",
	}
}

// LateText says how late the evidence is; "" if it is not.
func (r Report) LateText() string { return lateText(r.Late) }

func lateText(late time.Duration) string {
	if late <= 0 {
		return ""
	}
	return "the evidence is " + about(late) + " late: this is judged by what had happened by then"
}

// Check returns a check by its name; ok is false if the report has none such.
func (r Report) Check(name CheckName) (c Check, ok bool) {
	for _, group := range [][]Check{r.Checks, r.Retire} {
		for _, c := range group {
			if c.Name == name {
				return c, true
			}
		}
	}
	return Check{}, false
}
