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

// wouldBreak is the verdict of failures that are no security signal.
var wouldBreak = evidence.WouldBreak.String()

func (t *tally) watched() Check {
	need := t.Limits.window()
	c := Check{Name: Watched, Need: days(need)}
	if t.Since.IsZero() {
		c.Have, c.Why, c.Owner = "never seen", "no request of the team was seen yet", identity.OwnerTeam
		return c
	}
	age := t.Now.Sub(t.Since)
	c.Have = days(age)
	missing := share(t.Missing, t.Missing+t.Requests)
	if missing > 0 {
		c.Have += ", " + ratio(missing) + " missing"
	}
	switch {
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

func (t *tally) tokensSent() Check {
	sent, all := t.n(), t.n()+t.tokenless
	c := Check{Name: TokensSent, Need: ratio(t.Limits.Tokens), Have: ofRuns(sent, all)}
	switch got := share(sent, all); {
	case all == 0:
		c.Have, c.Why, c.Owner = "no runs", "no run was seen yet", identity.OwnerTeam
	case got < t.Limits.Tokens:
		c.Why = fmt.Sprintf("%s of runs sent a token, %s needed", ratio(got), ratio(t.Limits.Tokens))
		c.Owner = identity.OwnerTeam
	default:
		c.Pass = true
	}
	return c
}

// covered asks for a clean run of every account and pipeline that the window has
// seen. A task family that is no run's pipeline has one if a request about it
// was judged clean.
func (t *tally) covered() Check {
	accounts, pipelines := make(map[string]bool), make(map[pair]bool)
	for _, r := range t.runs {
		if r.class == silent {
			continue
		}
		ok := r.counts && r.class == clean
		accounts[r.Account] = accounts[r.Account] || ok
		if r.Pipeline != "" {
			pipelines[r.pair] = pipelines[r.pair] || ok
		}
	}
	for family, use := range t.Families {
		p := pair{family.Account, family.Name}
		if _, seen := pipelines[p]; seen || use.Last.Before(t.start) {
			continue
		}
		pipelines[p] = !use.Clean.Before(t.start) && !use.Clean.Before(t.Younger)
	}
	c := Check{Name: Covered, Need: "all"}
	goodAccounts, goodPipelines := trues(accounts), trues(pipelines)
	c.Have = fmt.Sprintf("%d of %d, %d of %d", goodAccounts, len(accounts), goodPipelines, len(pipelines))
	if goodAccounts == len(accounts) && goodPipelines == len(pipelines) && len(accounts) > 0 {
		c.Pass = true
		return c
	}
	var names []string
	named := make(map[string]bool)
	for _, p := range slices.SortedFunc(maps.Keys(pipelines), pair.compare) {
		if !pipelines[p] {
			names, named[p.account] = append(names, p.String()), true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(accounts)) {
		if !accounts[name] && !named[name] {
			names = append(names, name)
		}
	}
	c.Owner, c.Why = identity.OwnerTeam, "no clean run yet of "+some(names)
	if len(names) == 0 {
		c.Why = "no run was seen yet"
	}
	return c
}

// known asks that no failure is open.
func known(failures []Failure) Check {
	c := Check{Name: KnownFailures, Need: "none", Have: "none open", Pass: true}
	open, runs := 0, 0
	var worst *Failure
	for i := range failures {
		f := &failures[i]
		if f.security() || !f.Open {
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
	if r.Census {
		return t.censusCheck()
	}
	c := Check{Name: UnknownFailures, Need: "under " + ratio(t.Limits.BadRuns)}
	c.Have = fmt.Sprintf("%s of %s, so under %s", thousands(r.Bad), thousands(r.Runs), ratioUp(r.Bound))
	switch {
	case r.Runs == 0:
		c.Have, c.Why = "nothing was judged", "no run could be judged yet"
	case r.Bound > t.Limits.BadRuns:
		c.Why, c.Wait = t.untilBound(r)
	case t.State.Percent < rollout.Full && reach <= t.State.Percent:
		c.Why = fmt.Sprintf("1%% more may break %.1f runs a day, the limit is %.1f", r.RunsADay*r.Bound/100, t.Limits.BrokenADay)
		c.Wait = t.untilFewer(func(bad int) bool {
			return r.RunsADay*UpperBound(bad, r.Runs, t.Limits.Confidence)/100 <= t.Limits.BrokenADay
		})
	default:
		c.Pass = true
	}
	return c
}

// untilBound says what the bound waits for, and how long: until there are enough
// runs, if the window holds as many, or until enough bad ones have left it.
func (t *tally) untilBound(r Report) (why string, wait time.Duration) {
	rate := t.aDay() * share(t.n(), t.n()+t.tokenless+t.unjudged)
	windowful := int(rate * float64(t.Limits.window()) / float64(day))
	if need, ok := t.Limits.needed(r.Bad, r.Runs); ok && need <= windowful {
		return fmt.Sprintf("%s of the %s runs that are needed", thousands(r.Runs), thousands(need)), time.Duration(float64(need-r.Runs) / rate * float64(day))
	}
	why = fmt.Sprintf("%s of %s runs were bad: up to %s may be, %s is the limit", thousands(r.Bad), thousands(r.Runs), ratioUp(r.Bound), ratio(t.Limits.BadRuns))
	return why, t.untilFewer(func(bad int) bool { return UpperBound(bad, windowful, t.Limits.Confidence) <= t.Limits.BadRuns })
}

// untilFewer is how long it takes until so many of the bad runs have left the
// window that few enough are left; 0 if that does not help.
func (t *tally) untilFewer(enough func(bad int) bool) time.Duration {
	left := t.broken
	for _, r := range t.runs {
		if !r.counts || r.class != broken {
			continue
		}
		if left--; enough(left) {
			return r.First.Add(t.Limits.window()).Sub(t.Now)
		}
	}
	return 0
}

// censusCheck asks that each account and pipeline was clean on so many days since
// it last failed.
func (t *tally) censusCheck() Check {
	cleanOn := make(map[pair]map[evidence.Day]bool)
	for _, r := range t.runs { // the oldest first
		if r.class == silent {
			continue
		}
		if cleanOn[r.pair] == nil || r.class == broken && r.counts {
			cleanOn[r.pair] = make(map[evidence.Day]bool)
		}
		if r.class == clean && r.counts {
			cleanOn[r.pair][evidence.DayOf(r.First)] = true
		}
	}
	good := 0
	var names []string
	for _, p := range slices.SortedFunc(maps.Keys(cleanOn), pair.compare) {
		if len(cleanOn[p]) >= t.Limits.CensusDays {
			good++
			continue
		}
		names = append(names, p.String())
	}
	c := Check{
		Name: UnknownFailures, Need: fmt.Sprintf("each clean on %s", counted(t.Limits.CensusDays, "day")),
		Have: fmt.Sprintf("census: %d of %s", good, counted(len(cleanOn), "pipeline")), Pass: good == len(cleanOn) && good > 0,
	}
	switch {
	case c.Pass:
	case len(cleanOn) == 0:
		c.Why = "no run could be judged yet"
	default:
		c.Why = fmt.Sprintf("not clean on %s yet: %s", counted(t.Limits.CensusDays, "day"), some(names))
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
		case !f.security():
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
	all := t.n() + t.tokenless + t.unjudged
	bad := share(t.unjudged, all)
	c := Check{Name: Judged, Need: ratio(1-t.Limits.Indeterminate) + " of runs", Have: ratio(1-bad) + " of runs", Pass: bad <= t.Limits.Indeterminate}
	if all == 0 {
		c.Have, c.Pass, c.Why = "no runs", false, "no run was seen yet"
		return c
	}
	if c.Pass {
		return c
	}
	owners := make(map[identity.Owner]int)
	for _, r := range t.runs {
		if r.counts && r.class == unjudged {
			owners[ownerOf(r.Reason)]++
		}
	}
	for _, owner := range slices.Sorted(maps.Keys(owners)) {
		if c.Owner == "" || owners[owner] > owners[c.Owner] {
			c.Owner = owner
		}
	}
	c.Why = fmt.Sprintf("%s of %s could not be judged", thousands(t.unjudged), counted(all, "run"))
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
	if !t.ConfigSince.IsZero() {
		c.Have = "configuration of " + t.ConfigSince.Format("2 January")
	}
	counts := t.n() + t.tokenless + t.unjudged
	switch {
	case t.Skewed:
		c.Have, c.Pass, c.Blocks = "gateways differ", false, true
		c.Why, c.Owner = "the gateways serve by configurations that differ", identity.OwnerPlatform
	case t.stale > 0 && counts == 0:
		c.Pass = false
		c.Have = fmt.Sprintf("%s of another one", counted(t.stale, "run"))
		c.Why = "no run yet since issuers, roles or principals have changed"
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
	age := t.Now.Sub(start)
	c.Have = fmt.Sprintf("%s, %s", days(age), counted(enforced, "enforced run"))
	if refused > 0 {
		c.Have += fmt.Sprintf(" since the last of %d refused", refused)
	}
	switch {
	case age >= l.Cycle && enforced >= l.SoakRuns:
		c.Pass = true
	case age >= l.Cycle && enforced == 0 && refused == 0 && t.selectsNothing():
		c.Pass = true
		c.Have = fmt.Sprintf("%s, nothing is selected", days(age))
	case refused > 0:
		c.Why, c.Owner = fmt.Sprintf("%s refused since the raise", counted(refused, "enforced run")), identity.OwnerTeam
		c.Wait = l.Cycle - age
	default:
		c.Why = fmt.Sprintf("raised %s ago: %d of %s", about(age), enforced, counted(l.SoakRuns, "enforced run"))
		c.Wait = l.Cycle - age
		if enforced > 0 && enforced < l.SoakRuns {
			c.Wait = max(c.Wait, time.Duration(float64(age)/float64(enforced)*float64(l.SoakRuns-enforced)))
		}
	}
	c.Wait = max(c.Wait, 0)
	return c
}

// soaks reports whether the run shows what a raise does: a brownout was meant to
// refuse, and in mode observe nothing is.
func (r *judgedRun) soaks(since time.Time) bool {
	return r.Enforced && !r.Brownout && !r.Observed && !r.First.Before(since)
}

// selectsNothing reports whether the live percentage selects none of the
// accounts and pipelines that were seen.
func (t *tally) selectsNothing() bool {
	if t.Key == nil {
		return false
	}
	seen := make(map[pair]bool)
	for _, r := range t.runs {
		if r.class == silent || seen[r.pair] {
			continue
		}
		seen[r.pair] = true
		if rollout.Selected(t.Team, t.Key(r.Account, r.Pipeline), t.State.Percent) {
			return false
		}
	}
	return true
}

// closes says what closes a failure.
func (t *tally) closes(f *Failure) string {
	switch {
	case f.Waived != "":
		return "waived by " + f.Waived
	case f.security():
		return "with the window after it was last seen, or by a waiver in the platform's file"
	case f.Fixed:
		return "fixed, as the team's file records"
	case !f.Open:
		return fmt.Sprintf("closed by %s", counted(f.CleanSince, "later clean run"))
	default:
		return fmt.Sprintf("by itself after %s of this account and pipeline (%d so far), or when the team's file records the fix",
			counted(t.Limits.CleanAfter, "clean run"), f.CleanSince)
	}
}
