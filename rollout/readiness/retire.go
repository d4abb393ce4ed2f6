package readiness

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"crossfade/gateway/identity"
)

// retire asks whether the team's static credentials are still needed.
func (t *tally) retire() []Check {
	return []Check{t.stood(), t.noLegacy(), t.brownouts(), t.noUnassigned(), t.neverSeen()}
}

func (t *tally) stood() Check {
	need := t.Limits.retireAfter()
	if t.State.RaisedAt.IsZero() { // ending credentials for good stands on what is known
		return Check{
			Name: StoodEnforced, Have: "not known", Need: days(need), Owner: identity.OwnerPlatform,
			Why: "it is not known since when the team is at 100%: lower it and raise it again",
		}
	}
	age := max(t.Now.Sub(t.State.RaisedAt), 0) // the clock of another gateway may be ahead
	c := Check{Name: StoodEnforced, Have: days(age), Need: days(need), Pass: age >= need}
	if !c.Pass {
		c.Why, c.Wait = fmt.Sprintf("at 100%% for %s of %s", number(age), days(need)), need-age
	}
	return c
}

// noLegacy asks that no right password was seen, whether it was let in or not.
func (t *tally) noLegacy() Check {
	need := t.Limits.retireAfter()
	var last time.Time
	who := ""
	for _, name := range slices.Sorted(maps.Keys(t.Uses)) {
		if u := t.Uses[name]; u.Legacy.After(last) {
			last, who = u.Legacy, name
		}
	}
	c := Check{Name: NoLegacy, Need: days(need), Pass: true, Have: "none ever"}
	if who == "" {
		return c
	}
	age := max(t.Now.Sub(last), 0)
	c.Have = fmt.Sprintf("%s, last by %s", days(age), who)
	if age < need {
		c.Pass = false
		if age < t.Limits.Cycle {
			c.Owner, c.Why = identity.OwnerTeam, fmt.Sprintf("%s used a password %s ago, for %s nobody may", who, about(age), days(need))
			return c
		}
		c.Wait = need - age
		c.Why = fmt.Sprintf("no password for %s of %s: %s was the last to use one", number(age), days(need), who)
	}
	return c
}

func (t *tally) brownouts() Check {
	seen, refused := 0, 0
	of := make(map[pair]bool)
	for _, r := range t.runs {
		if !r.Brownout {
			continue
		}
		seen++
		if r.Refused {
			refused++
			of[r.pair] = true
		}
	}
	c := Check{Name: CleanBrownouts, Need: "no run refused", Have: fmt.Sprintf("%s, none refused", counted(seen, "run")), Pass: refused == 0}
	if seen == 0 {
		c.Have = "none in the window"
	}
	if refused > 0 {
		c.Have = fmt.Sprintf("%d of %s refused", refused, counted(seen, "run"))
		c.Owner, c.Why = identity.OwnerTeam, "a brownout refused "+somePairs(of)
	}
	return c
}

func (t *tally) noUnassigned() Check {
	c := Check{Name: NoUnassigned, Need: "none", Have: "none", Pass: len(t.Unassigned) == 0 && !t.UnassignedAway}
	switch {
	case c.Pass:
	case t.UnassignedAway:
		c.Have, c.Owner = "not known", identity.OwnerPlatform
		c.Why = "whether accounts of nobody still use passwords cannot be read now"
	default:
		c.Have, c.Blocks, c.Owner = counted(len(t.Unassigned), "account"), true, identity.OwnerPlatform
		c.Why = fmt.Sprintf("nobody knows whose they are: %s", some(t.Unassigned))
	}
	return c
}

func (t *tally) neverSeen() Check {
	names := t.unseen()
	c := Check{Name: NeverSeen, Need: "none", Have: "none", Pass: len(names) == 0}
	if !c.Pass {
		c.Have, c.Blocks, c.Owner = counted(len(names), "credential"), true, identity.OwnerTeam
		c.Why = fmt.Sprintf("never seen, so remove or explain them: %s", some(names))
	}
	return c
}

// unseen are the accounts whose static credential was never seen.
func (t *tally) unseen() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(t.Accounts)) {
		if t.Accounts[name].Legacy && t.Uses[name].Legacy.IsZero() {
			names = append(names, name)
		}
	}
	return names
}
