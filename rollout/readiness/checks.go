package readiness

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
)

// wouldBreak and noToken are the verdicts of failures that are no security signal.
var (
	wouldBreak = evidence.WouldBreak.String()
	noToken    = evidence.NoToken.String()
)

func (t *tally) watched() Check {
	need := t.Limits.window()
	c := Check{Name: Watched, Need: days(need)}
	if t.Since.IsZero() {
		c.Have, c.Why, c.Owner = "never seen", "no request of the team was seen yet", identity.OwnerTeam
		return c
	}
	age := max(t.Now.Sub(t.Since), 0)
	c.Have = days(age)
	missing, late := t.missing(), t.end.Sub(t.Now)
	if missing > 0 {
		c.Have += ", " + ratio(missing) + " missing"
	}
	switch {
	case late > mostLate:
		c.Why = fmt.Sprintf("the evidence is %s late, %s it may be: a gateway does not get it recorded", about(late), about(mostLate))
		c.Owner = identity.OwnerPlatform
	case missing > t.Limits.Missing:
		c.Why = fmt.Sprintf("%s of the requests went unwatched, %s may", ratio(missing), ratio(t.Limits.Missing))
		c.Owner = identity.OwnerPlatform
	case age < need:
		c.Why = fmt.Sprintf("watched for %s of %s", number(age), days(need))
		c.Wait = need - age
	default:
		c.Pass = true
	}
	return c
}

// missing is the share of the team's requests that went unwatched, 0 to 1: see the
// package comment.
func (t *tally) missing() float64 {
	return min(share(t.Missing, t.Missing+t.Requests)+share(int64(t.Unwatched), int64(t.Limits.window())), 1)
}

func (t *tally) tokensSent() Check {
	sent, all := t.n(), t.n()+t.tokenless
	c := Check{Name: TokensSent, Need: ratio(t.Limits.Tokens), Have: ofRuns(sent, all)}
	switch got := share(sent, all); {
	case t.all() == 0:
		c.Have = "no runs"
		c.Why, c.Owner = t.noRuns()
	case all == 0:
		c.Have, c.Why = "nothing was judged", "no run could be judged yet"
	case got < t.Limits.Tokens:
		c.Why = fmt.Sprintf("%s of runs sent a token, %s needed", ratio(got), ratio(t.Limits.Tokens))
		c.Owner = identity.OwnerTeam
		if t.over(tokenless) {
			c.Owner = ""
			c.Wait = t.until(t.keptADay(), func(s sums) bool { return share(s.n(), s.n()+s.tokenless) >= t.Limits.Tokens })
		}
	default:
		c.Pass = true
	}
	return c
}

// noRuns says why no run counts, and who acts.
func (t *tally) noRuns() (why string, owner identity.Owner) {
	switch {
	case t.stale > 0:
		return "no run yet since issuers, roles or principals have changed", ""
	case t.kept > 0:
		return "no run yet that counts", ""
	case !t.Since.IsZero() && t.Since.Before(t.start): // there may have been some before
		return "no run was seen for " + days(t.Limits.window()), identity.OwnerTeam
	default:
		return "no run was seen yet", identity.OwnerTeam
	}
}

// coverage is what is known of an account or a pipeline.
type coverage uint8

const (
	// notAgain was seen, but not since what counts has begun.
	notAgain coverage = iota
	notClean
	covered
)

// covered asks for a clean run of every account and pipeline that the window has
// seen. A task family that is no run's pipeline has one if a request about it
// was judged clean.
func (t *tally) covered() Check {
	accounts, pipelines := make(map[string]coverage), make(map[pair]coverage)
	for _, r := range t.runs {
		if r.class == silent {
			continue
		}
		is := notAgain
		switch {
		case r.counts && r.class == clean:
			is = covered
		case r.counts:
			is = notClean
		}
		accounts[r.Account] = max(accounts[r.Account], is)
		if r.Pipeline != "" {
			pipelines[r.pair] = max(pipelines[r.pair], is)
		}
	}
	for family, use := range t.Families {
		p := pair{family.Account, family.Name}
		if _, seen := pipelines[p]; seen || use.Last.Before(t.start) {
			continue
		}
		switch {
		case use.Clean.Before(t.start):
			pipelines[p] = notClean
		case use.Clean.Before(t.Younger), t.outdated(p.account, use.Clean):
			pipelines[p] = notAgain
		default:
			pipelines[p] = covered
		}
	}
	c := Check{Name: Covered, Need: "all"}
	goodAccounts, goodPipelines := countOf(accounts, covered), countOf(pipelines, covered)
	c.Have = fmt.Sprintf("%d of %d, %d of %d", goodAccounts, len(accounts), goodPipelines, len(pipelines))
	if goodAccounts == len(accounts) && goodPipelines == len(pipelines) && len(accounts) > 0 {
		c.Pass = true
		return c
	}
	dirty, again := uncovered(accounts, pipelines, notClean), uncovered(accounts, pipelines, notAgain)
	switch {
	case len(dirty) > 0:
		c.Owner, c.Why = identity.OwnerTeam, "no clean run yet of "+some(dirty)
	case len(again) > 0 && len(t.changed) > 0:
		c.Why, c.Wait = "no run since the configuration has changed of "+some(again), t.untilAll(pipelines)
	case len(again) > 0:
		c.Why, c.Wait = "no run that counts yet of "+some(again), t.untilAll(pipelines)
	default:
		c.Why, c.Owner = t.noRuns()
	}
	return c
}

// outdated reports whether what was found of an account at some time was found under
// another configuration than the running one.
func (t *tally) outdated(account string, at time.Time) bool {
	since, changed := t.changed[account]
	return changed && (since.IsZero() || at.Before(since))
}

// uncovered names the pipelines of which so much is known, and the accounts none
// of whose pipelines is named.
func uncovered(accounts map[string]coverage, pipelines map[pair]coverage, is coverage) []string {
	var names []string
	named := make(map[string]bool)
	for _, p := range slices.SortedFunc(maps.Keys(pipelines), pair.compare) {
		if pipelines[p] == is {
			names, named[p.account] = append(names, p.String()), true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(accounts)) {
		if accounts[name] == is && !named[name] {
			names = append(names, name)
		}
	}
	return names
}

// known asks that no failure is open.
func known(failures []Failure) Check {
	c := Check{Name: KnownFailures, Need: "none", Have: "none open", Pass: true}
	open, runs := 0, 0
	var worst *Failure
	for i := range failures {
		f := &failures[i]
		if f.Verdict != wouldBreak || !f.Open {
			continue
		}
		open++
		runs += f.Runs
		if worst == nil {
			worst = f
		}
	}
	if worst == nil {
		return c
	}
	c.Pass, c.Blocks, c.Owner = false, true, worst.Owner
	c.Have = fmt.Sprintf("%d open, %s", open, counted(runs, "run"))
	c.Why = fmt.Sprintf("%s in %s, %s", worst.Reason, pair{worst.Account, worst.Pipeline}, counted(worst.Runs, "run"))
	return c
}

func (t *tally) unknown(r Report, reach rollout.Percent) Check {
	c := Check{Name: UnknownFailures, Need: "under " + ratio(t.Limits.BadRuns)}
	c.Have = fmt.Sprintf("%s of %s, so under %s", thousands(r.Bad), thousands(r.Runs), ratioUp(r.Bound))
	if r.Census {
		c = t.censusCheck(r)
	}
	switch {
	case c.Why != "":
	case r.Runs == 0:
		c.Have, c.Why = "nothing was judged", "no run could be judged yet"
		if t.stale > 0 && t.all() == 0 {
			c.Why, _ = t.noRuns()
		}
	case !r.Census && r.Bound > t.Limits.BadRuns:
		c = t.untilBound(c, r)
	case t.State.Percent < rollout.Full && reach <= t.State.Percent:
		c.Why = fmt.Sprintf("1%% more may break %.1f runs a day, the limit is %.1f", r.AtWorst/100, t.Limits.BrokenADay)
		bound := UpperBound(r.Bad, r.Runs, t.Limits.Confidence)
		c = t.better(c, func(s sums) bool {
			return r.AtWorst/100*UpperBound(s.broken, s.n(), t.Limits.Confidence)/bound <= t.Limits.BrokenADay
		})
	default:
		c.Pass = true
	}
	return c
}

// untilBound says what the bound waits for: until there are enough runs, if the
// window holds as many, or until enough bad ones have left it.
func (t *tally) untilBound(c Check, r Report) Check {
	holds := func(s sums) bool { return UpperBound(s.broken, s.n(), t.Limits.Confidence) <= t.Limits.BadRuns }
	windowful := int(t.judgedADay() * float64(t.Limits.window()) / float64(day))
	if need, ok := t.Limits.needed(r.Bad, r.Runs); ok && need <= windowful {
		c.Why = fmt.Sprintf("%s of the %s runs that are needed", thousands(r.Runs), thousands(need))
		c.Wait = t.until(t.judgedADay(), holds)
		return c
	}
	c.Why = fmt.Sprintf("%s: up to %s may be, %s is the limit", wereBad(r.Bad, r.Runs), ratioUp(r.Bound), ratio(t.Limits.BadRuns))
	return t.better(c, holds)
}

// censusCheck asks that each account and pipeline was clean on so many days since
// it last failed; on each day on which it was seen, if the window has not as many
// cycles. A team that is near to enough runs for a bound must have no bad run
// either, as for a bound of so many: or a week with few runs would take it to the
// milder rule.
func (t *tally) censusCheck(r Report) Check {
	rhythms := t.rhythms()
	c := Check{Name: UnknownFailures, Need: "each clean on " + counted(t.Limits.CensusDays, "day")}
	good, foreseen := 0, true
	var names []string
	for _, p := range slices.SortedFunc(maps.Keys(rhythms), pair.compare) {
		of := rhythms[p]
		need := t.Limits.CensusDays
		if t.Limits.window() < time.Duration(need)*t.Limits.Cycle {
			need = min(need, of.seen)
		}
		if of.clean >= need {
			good++
			continue
		}
		names = append(names, p.String())
		wait, ok := of.until(need, t.Now)
		c.Wait, foreseen = max(c.Wait, wait), foreseen && ok
	}
	if !foreseen {
		c.Wait = 0
	}
	c.Have = fmt.Sprintf("census: %d of %s", good, counted(len(rhythms), "pipeline"))
	switch {
	case len(rhythms) == 0:
		c.Why = "no run could be judged yet"
	case len(names) > 0 && t.stale > 0 && t.all() == 0:
		c.Why, _ = t.noRuns()
	case len(names) > 0 && t.stale > 0:
		c.Why = fmt.Sprintf("not clean on %s since the configuration has changed: %s", counted(t.Limits.CensusDays, "day"), some(names))
	case len(names) > 0:
		c.Why = fmt.Sprintf("not clean on %s yet: %s", counted(t.Limits.CensusDays, "day"), some(names))
	case r.near && r.Bad > 0:
		c.Have += ", " + counted(r.Bad, "bad run")
		c.Need += ", no bad run"
		c.Why = fmt.Sprintf("%s, of so few none may be", wereBad(r.Bad, r.Runs))
		c = t.better(c, func(s sums) bool { return s.broken == 0 })
	}
	return c
}

// signals asks that no security signal is open.
func signals(failures []Failure) Check {
	c := Check{Name: SecuritySignals, Need: "none", Have: "none", Pass: true}
	open, waived := 0, 0
	var worst *Failure
	for i := range failures {
		switch f := &failures[i]; {
		case !f.Security():
		case f.Open:
			open++
			if worst == nil {
				worst = f
			}
		default:
			waived++
		}
	}
	if waived > 0 {
		c.Have = fmt.Sprintf("none, %d waived", waived)
	}
	if worst != nil {
		c.Pass, c.Blocks, c.Owner, c.Have = false, true, identity.OwnerSecurity, fmt.Sprintf("%d open", open)
		c.Why = fmt.Sprintf("%s: %s in %s, %s", worst.Verdict, worst.Reason, pair{worst.Account, worst.Pipeline}, counted(worst.Runs, "run"))
	}
	return c
}

func (t *tally) judged() Check {
	all := t.all()
	bad := share(t.unjudged, all)
	c := Check{Name: Judged, Need: ratio(1-t.Limits.Indeterminate) + " of runs", Have: ratio(1-bad) + " of runs", Pass: bad <= t.Limits.Indeterminate}
	if all == 0 {
		c.Have, c.Pass = "no runs", false
		c.Why, c.Owner = t.noRuns()
		return c
	}
	if c.Pass {
		return c
	}
	c.Why = fmt.Sprintf("%s of %s could not be judged", thousands(t.unjudged), counted(all, "run"))
	if t.over(unjudged) {
		c.Wait = t.until(t.keptADay(), func(s sums) bool { return share(s.unjudged, s.all()) <= t.Limits.Indeterminate })
		return c
	}
	c.Owner = t.mostly(unjudged)
	return c
}

// renewal asks that runs which outlived their first token sent another.
func (t *tally) renewal() Check {
	long, renewed := 0, 0
	var life, longest time.Duration
	late := make(map[pair]bool)
	for _, r := range t.runs {
		if !r.counts || !r.Token || r.FirstExpiry.IsZero() {
			continue
		}
		if rest := r.FirstExpiry.Sub(r.First); life == 0 || rest < life {
			life = rest
		}
		longest = max(longest, r.Last.Sub(r.First))
		if !r.Last.After(r.FirstExpiry) {
			continue
		}
		long++
		if r.Renewed() {
			renewed++
		} else {
			late[r.pair] = true
		}
	}
	c := Check{Name: TokenRenewal, Need: "all", Pass: renewed == long}
	switch {
	case long == 0:
		c.Have = "no run outlives its token"
		if longest > 0 {
			c.Have = fmt.Sprintf("runs last up to %s, tokens %s or more", about(longest), about(life))
		}
	case c.Pass:
		c.Have = fmt.Sprintf("seen in %s of %s", thousands(renewed), counted(long, "long run"))
	default:
		c.Have = fmt.Sprintf("seen in %s of %s", thousands(renewed), counted(long, "long run"))
		c.Blocks, c.Owner = true, identity.OwnerTeam
		c.Why = fmt.Sprintf("%s outlived their token and did not renew it: %s", counted(long-renewed, "run"), somePairs(late))
	}
	return c
}

func (t *tally) current() Check {
	c := Check{Name: Current, Need: "the running one", Have: "the running configuration", Pass: true}
	if since := t.configSince(); !since.IsZero() {
		c.Have = "configuration of " + since.Format("2 January")
	}
	switch {
	case t.Skewed:
		c.Have, c.Pass, c.Blocks = "gateways differ", false, true
		c.Why, c.Owner = "the gateways serve by configurations that differ", identity.OwnerPlatform
	case t.stale > 0 && t.all() == 0:
		c.Pass = false
		c.Have = fmt.Sprintf("%s of another one", counted(t.stale, "run"))
		c.Why, c.Wait = "no run yet since issuers, roles or principals have changed", t.untilAny()
	case t.stale > 0:
		c.Have += fmt.Sprintf(", %s older", counted(t.stale, "run"))
	}
	return c
}

// soaked asks for a quiet time after a raise.
func (t *tally) soaked() Check {
	s, l := t.State, t.Limits
	c := Check{Name: Soaked, Need: fmt.Sprintf("%s, %s", days(l.Cycle), counted(l.SoakRuns, "run"))}
	switch {
	case s.Percent == 0 || s.RaisedAt.IsZero():
		c.Have, c.Pass = "nothing was raised", true
		return c
	case !s.LastRaised():
		c.Have, c.Pass = "lowered since", true
		return c
	}
	start := s.RaisedAt
	refused := 0
	for _, r := range t.runs {
		if r.soaks(s.RaisedAt) && r.Refused {
			refused++
			if r.Last.After(start) {
				start = r.Last
			}
		}
	}
	enforced := 0
	for _, r := range t.runs {
		if r.soaks(start) && !r.Refused {
			enforced++
		}
	}
	age := max(t.Now.Sub(start), 0)
	c.Have = fmt.Sprintf("%s, %s", days(age), counted(enforced, "enforced run"))
	since := fmt.Sprintf("raised %s ago", about(age))
	if refused > 0 {
		c.Have += fmt.Sprintf(" since the last of %d refused", refused)
		since = fmt.Sprintf("refused a run %s ago", about(age))
	}
	// What is selected may be rare: a window without a refusal says as much of it
	// as there is to know, and what is older is not looked at.
	window, selected := l.window(), t.selectedADay()
	switch {
	case age >= l.Cycle && (enforced >= l.SoakRuns || age >= window && enforced > 0):
		c.Pass = true
		return c
	case age >= l.Cycle && enforced == 0 && refused == 0 && t.Key != nil && selected == 0:
		c.Pass = true
		c.Have = fmt.Sprintf("%s, nothing is selected", days(age))
		return c
	case enforced == 0 && refused == 0 && t.observedSince(start):
		c.Why, c.Owner = since+": the gateways have been in mode observe ever since, which enforces nothing", identity.OwnerPlatform
		return c
	case refused > 0 && age < l.Cycle:
		c.Why, c.Owner = fmt.Sprintf("%s refused since the raise", counted(refused, "enforced run")), identity.OwnerTeam
	default:
		c.Why = fmt.Sprintf("%s: %d of %s", since, enforced, counted(l.SoakRuns, "enforced run"))
	}
	c.Wait = l.Cycle - age
	if missing := l.SoakRuns - enforced; missing > 0 && selected > 0 {
		runs := min(float64(missing)/selected*float64(day), float64(window-age))
		c.Wait = max(c.Wait, time.Duration(runs))
	}
	c.Wait = max(c.Wait, 0)
	return c
}

// observedSince reports whether runs have started since a time, and all of them
// saw the gateways in mode observe.
func (t *tally) observedSince(start time.Time) bool {
	seen := false
	for _, r := range t.runs {
		switch {
		case r.First.Before(start):
		case !r.Observed:
			return false
		default:
			seen = true
		}
	}
	return seen
}

// soaks reports whether the run shows what a raise does: a brownout was meant to
// refuse, and in mode observe nothing is.
func (r *judgedRun) soaks(since time.Time) bool {
	return r.Enforced && !r.Brownout && !r.Observed && !r.First.Before(since)
}

// selectedADay is how many of the runs that are kept a day the live percentage
// selects.
func (t *tally) selectedADay() float64 {
	if t.Key == nil {
		return t.keptADay() * float64(t.State.Percent) / 100
	}
	of := make(map[pair]int)
	for _, r := range t.runs {
		if r.class != silent {
			of[r.pair]++
		}
	}
	n := 0
	for p, runs := range of {
		if rollout.Selected(t.Team, t.Key(p.account, p.pipeline), t.State.Percent) {
			n += runs
		}
	}
	return float64(n) / t.days
}

// closes says what closes a failure.
func (t *tally) closes(f *Failure) string {
	switch {
	case f.Waived != "":
		return "waived by " + f.Waived
	case f.Security():
		return "with the window after it was last seen, or by a waiver in the platform's file"
	case f.tokenless() && f.Open:
		return fmt.Sprintf("by itself after %s of this account and pipeline (%d so far)", counted(t.Limits.CleanAfter, "clean run"), f.CleanSince)
	case f.tokenless() && f.CleanSince < t.Limits.CleanAfter:
		return fmt.Sprintf("fewer than may: %s of the runs of this account and pipeline sent none", ratio(f.Share))
	case f.tokenless():
		return "closed by " + counted(f.CleanSince, "later clean run")
	case f.Fixed:
		return "fixed, as the team's file records"
	case !f.Open:
		return fmt.Sprintf("closed by %s; its runs leave the bound with the window, or at once when the team's file records the fix", counted(f.CleanSince, "later clean run"))
	default:
		return fmt.Sprintf("by itself after %s of this account and pipeline (%d so far), or when the team's file records the fix",
			counted(t.Limits.CleanAfter, "clean run"), f.CleanSince)
	}
}
