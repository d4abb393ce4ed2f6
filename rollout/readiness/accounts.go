package readiness

import (
	"fmt"
	"maps"
	"slices"

	"crossfade/rollout"
)

// accounts says what each account is in the cutover, and what to be warned of.
func (t *tally) accounts() (rows []AccountReport, warnings []string) {
	by := make(map[string]*AccountReport)
	row := func(name string) *AccountReport {
		r := by[name]
		if r == nil {
			r = &AccountReport{Account: name, Owner: t.Accounts[name].Owner, State: Unseen}
			by[name] = r
		}
		return r
	}
	for name := range t.Accounts {
		row(name)
	}
	var people []string
	for name, use := range t.Uses {
		r := row(name)
		r.LastLegacy, r.LastToken, r.Reason = use.Legacy, use.Token, use.Reason
		legacy, token := use.Legacy.After(t.start), use.Token.After(t.start)
		switch {
		case legacy && token:
			r.State = SendsBoth
		case token:
			r.State = TokenOnly
		case legacy:
			r.State = LegacyOnly
		default:
			r.State = Idle
		}
		r.People = (legacy || token) && !use.Run.After(t.start)
	}
	thresholds := make(map[pair]rollout.Percent)
	for _, run := range t.runs {
		r := row(run.Account)
		r.People = false
		if run.class == silent {
			continue
		}
		r.Runs++
		if run.class == clean {
			r.Clean++
		}
		if t.Key == nil {
			continue
		}
		at, known := thresholds[run.pair]
		if !known {
			at = rollout.Threshold(t.Team, t.Key(run.Account, run.Pipeline))
			thresholds[run.pair] = at
		}
		if at > t.State.Percent && (r.Next == 0 || at < r.Next) {
			r.Next = at
		}
	}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		r := by[name]
		if r.People && r.State != TokenOnly {
			people = append(people, name)
		}
		rows = append(rows, *r)
	}
	if names := t.unseen(); len(names) > 0 {
		warnings = append(warnings, fmt.Sprintf("%s never seen: %s", counted(len(names), "static credential"), some(names)))
	}
	if len(people) > 0 {
		warnings = append(warnings, fmt.Sprintf("people use a password in browsers, which 100%% refuses: %s", some(people)))
	}
	return rows, warnings
}
