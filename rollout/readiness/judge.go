package readiness

import (
	"fmt"
	"math"
	"slices"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
)

const day = 24 * time.Hour

// Judge says what is known of a team's readiness. It is pure, and the facts are
// only read.
func Judge(f Facts) Report {
	t := newTally(f)
	s := f.State
	r := Report{
		Team: f.Team, At: f.Now, Late: t.late(), Phase: s.Phase(), Percent: s.Percent, UpTo: s.Percent,
		Runs: t.n(), Bad: t.broken, Bound: UpperBound(t.broken, t.n(), f.Limits.Confidence),
		RunsADay: t.aDay(), Window: f.Limits.window(), BrokenADay: f.Limits.BrokenADay,
		Failures: t.failures(),
	}
	if s.Request.Made() {
		requested := s.Request.Percent
		r.Requested = &requested
	}
	if sent := t.n() + t.tokenless; sent > 0 {
		r.Coverage = float64(t.n()) / float64(sent)
	}
	r.Census, r.near = t.census()
	r.AtWorst = t.atWorst()
	reach := t.reach(r.AtWorst)
	r.Checks = []Check{
		t.watched(), t.tokensSent(), t.covered(), known(r.Failures), t.unknown(r, reach), signals(r.Failures),
		t.judged(), t.renewal(), t.current(), t.soaked(),
	}
	r.Signal = slices.ContainsFunc(r.Failures, func(f Failure) bool { return f.Open && f.Security() })
	r.Accounts, r.Warnings = t.accounts()
	if r.Late > 0 {
		r.Warnings = append([]string{r.LateText()}, r.Warnings...)
	}
	r.Days = t.byDay()
	if s.Percent >= rollout.Full {
		r.Retire = t.retire()
	}
	r.answer(s, reach, t)
	return r
}

// answer says what next, and why.
func (r *Report) answer(s rollout.State, reach rollout.Percent, t *tally) {
	decisive, open := first(r.Checks)
	if !open {
		r.UpTo = max(s.Percent, reach)
	}
	switch {
	case r.Team == identity.Unassigned:
		r.pinned(len(t.Uses))
		return
	case s.Retired:
		r.Answer, r.Why = Done, "its static credentials have ended"
		return
	case s.Hold.Active(t.end):
		r.Answer, r.Why, r.Owner = Held, s.Hold.Reason, identity.OwnerTeam
		return
	case s.Percent >= rollout.Full:
		if decisive, open = first(slices.Concat(r.Retire, harmful(r.Checks))); !open {
			r.Answer, r.Why = Ready, fmt.Sprintf("no password for %s", days(t.Limits.retireAfter()))
			return
		}
	case !open:
		r.Answer, r.Why = Ready, thousands(t.clean)+" clean runs"
		if t.broken > 0 {
			r.Why = fmt.Sprintf("%s runs, %s of them bad", thousands(t.n()), thousands(t.broken))
		}
		return
	}
	r.Answer, r.Why, r.Owner, r.Wait = Waiting, decisive.Why, decisive.Owner, decisive.Wait
	if decisive.Blocks {
		r.Answer = Blocked
	}
}

// pinned is the answer for the accounts that have no team: nobody can raise them,
// and to give them one is the platform's job, as is whatever else is to be done
// about them.
func (r *Report) pinned(accounts int) {
	r.UpTo, r.Answer, r.Why = r.Percent, Waiting, "every account has a team"
	if accounts > 0 {
		r.Why = counted(accounts, "account") + " without a team: the principals file gives them one"
		r.Owner = identity.OwnerPlatform
	}
	for i := range r.Checks {
		r.Checks[i].Owner = ofNobody(r.Checks[i].Owner)
	}
	for i := range r.Failures {
		r.Failures[i].Owner = ofNobody(r.Failures[i].Owner)
	}
}

func ofNobody(owner identity.Owner) identity.Owner {
	if owner == identity.OwnerTeam {
		return identity.OwnerPlatform
	}
	return owner
}

// lateAfter is how late evidence is told to be late: it is recorded once a second
// (evidence.DefaultEvery) and read again after two where that is done fast.
const lateAfter = 5 * time.Second

// mostLate is how late evidence may be that still says something of now: it is what of
// the usual window may be missing (0.1% of 14 days). What is later went unwatched, for
// all that anybody knows.
const mostLate = 20 * time.Minute

// late is how late the evidence is; 0 if that is not worth telling.
func (t *tally) late() time.Duration {
	if late := t.end.Sub(t.Now); late >= lateAfter {
		return late.Truncate(time.Second)
	}
	return 0
}

// first is the check that decides: one that somebody must repair before one that
// somebody can do something about before one that only takes time, and of those
// the longest.
func first(checks []Check) (decisive Check, open bool) {
	for _, c := range checks {
		if !c.Pass && (!open || c.weight() > decisive.weight() || c.weight() == decisive.weight() && c.weight() == 0 && c.Wait > decisive.Wait) {
			decisive, open = c, true
		}
	}
	return decisive, open
}

// harmful are the checks of a raise that speak against ending a team's
// credentials for good, too: what somebody has to repair, and evidence that was
// lost. The others do not, or a team that runs nothing any more could never end.
func harmful(checks []Check) []Check {
	return slices.DeleteFunc(slices.Clone(checks), func(c Check) bool { return !c.Blocks && c.Name != Watched })
}

func (c Check) weight() int {
	switch {
	case c.Blocks:
		return 2
	case c.Owner != "":
		return 1
	default:
		return 0
	}
}

// census reports whether the team has too few runs for a bound, and near whether
// so few only by chance, perhaps: a number of runs whose mean is the one from
// which a bound can hold falls three deviations below it about once in 700 looks.
// All runs count here, so that whoever has repaired something, or got another
// configuration, is not judged by the milder rule.
func (t *tally) census() (census, near bool) {
	all := float64(t.kept)
	if whole := float64(t.Limits.window()) / float64(day); t.days < whole { // as many as a whole window would have
		all *= whole / t.days
	}
	bounded := float64(t.Limits.Bounded())
	return all < bounded, all >= bounded-3*math.Sqrt(bounded)
}

// reach is the percentage up to which a raise breaks no more runs a day than the
// limit, at worst. A census of a team all of whose runs are kept reaches 100
// unless it has seen a handful of bad ones; that of one with many more runs than
// are kept does not.
func (t *tally) reach(atWorst float64) rollout.Percent {
	broken := atWorst / 100 // by a step of one percent
	if broken <= 0 {
		return rollout.Full
	}
	step := math.Floor(t.Limits.BrokenADay/broken + 1e-9)
	return rollout.Percent(math.Min(float64(t.State.Percent)+step, float64(rollout.Full)))
}

// atWorst is how many runs a day would break at worst if all were enforced: the
// runs a day times the bound. That is nearly the same number however many clean
// runs there are, but where many runs do not enter the bound, since they are not
// kept or do not count, others would dilute it. So it is no less than what it
// would be without any one account: who makes thousands of clean runs makes
// nobody else's runs any safer.
func (t *tally) atWorst() float64 {
	type part struct {
		sums
		kept int
		full bool // of some pipeline and day as many runs are kept as can be
	}
	type pairDay struct {
		pair
		day evidence.Day
	}
	parts := make(map[string]*part)
	perDay := make(map[pairDay]int)
	full := 0 // how many accounts are
	for _, r := range t.runs {
		if r.class == silent {
			continue
		}
		p := parts[r.Account]
		if p == nil {
			p = &part{}
			parts[r.Account] = p
		}
		p.kept++
		if r.counts {
			p.add(r.class, 1)
		}
		if t.unkept == 0 {
			continue
		}
		of := pairDay{r.pair, r.day}
		if perDay[of]++; perDay[of] >= evidence.MaxRuns && !p.full {
			p.full = true
			full++
		}
	}
	worst := t.aDay() * UpperBound(t.broken, t.n(), t.Limits.Confidence)
	if len(parts) < 2 {
		return worst
	}
	for _, p := range parts {
		all := float64(t.kept - p.kept)
		if full > 1 || full == 1 && !p.full { // the runs that are not kept may be of the others
			all += t.unkept
		}
		worst = max(worst, all/t.days*UpperBound(t.broken-p.broken, t.n()-p.n(), t.Limits.Confidence))
	}
	return worst
}

// Security reports whether the failure is a security signal.
func (f Failure) Security() bool { return !f.tokenless() && f.Verdict != wouldBreak }

// tokenless reports whether the failure is the want of a token.
func (f Failure) tokenless() bool { return f.Verdict == noToken }
