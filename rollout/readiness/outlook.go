package readiness

import (
	"fmt"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
)

// Outlook is what another percentage would do.
type Outlook struct {
	Percent rollout.Percent `json:"percent"`
	// Runs is about how many of the runs of a day it selects, Of how many there are.
	Runs float64 `json:"runs"`
	Of   float64 `json:"of"`
	// OneIn is the number of days in which at worst one run breaks; 0 if nothing can
	// be said, as for a census.
	OneIn float64 `json:"one_broken_run_in_days,omitempty"`
	// Allowed tells that somebody may go there now, Why for what reason, or what is
	// in the way, and Owner who can do something about that.
	Allowed bool           `json:"allowed"`
	Why     string         `json:"why,omitempty"`
	Owner   identity.Owner `json:"owner,omitempty"`
}

// Outlook says what a percentage would do. Lowering is always allowed until the
// team is retired, and a hold keeps every raise waiting.
func (r Report) Outlook(to rollout.Percent) Outlook {
	o := Outlook{Percent: to, Runs: r.RunsADay * float64(to) / 100, Of: r.RunsADay}
	step := (float64(to) - float64(r.Percent)) / 100
	if broken := step * r.AtWorst; step > 0 && broken > 0 && !r.Census && r.Runs > 0 {
		o.OneIn = 1 / broken
	}
	switch {
	case to == r.Percent:
		o.Allowed, o.Why = true, fmt.Sprintf("the team is at %s%%", to)
	case r.Answer == Done:
		o.Why = "the team is retired: it stays at 100%"
	case to < r.Percent:
		o.Allowed, o.Why = true, "lowering is always allowed"
	case r.Answer == Held, to > r.UpTo && r.UpTo <= r.Percent:
		o.Why, o.Owner = r.Why, r.Owner
	case to > r.UpTo:
		o.Why = fmt.Sprintf("only up to %s%% in one step: more may break over %s at worst", r.UpTo, runsADay(r.BrokenADay))
	default:
		o.Allowed, o.Why = true, r.Why
	}
	return o
}

// Text says in a line how many runs it selects and what may break: "about 44 of
// 88 runs a day; at worst 1 broken run in 11 days".
func (o Outlook) Text() string {
	if o.Of == 0 {
		return "no runs are known"
	}
	text := fmt.Sprintf("about %s of %s a day", thousands(int(o.Runs+0.5)), counted(int(o.Of+0.5), "run"))
	if worst := effect.AtWorst(o.OneIn); worst != "" {
		text += "; " + worst
	}
	return text
}

func runsADay(n float64) string {
	if n == 1 {
		return "1 run a day"
	}
	return fmt.Sprintf("%g runs a day", n)
}

// Next is the percentage that a report looks ahead to: what the team asks for
// beyond the live one, else the next of 10, 25, 50, 75 and 100, but no more than
// the checks allow where they allow any; 100 of a team that stands there.
func (r Report) Next() rollout.Percent {
	if r.Requested != nil && *r.Requested > r.Percent {
		return *r.Requested
	}
	next := rollout.Full
	for _, step := range []rollout.Percent{75, 50, 25, 10} {
		if step > r.Percent {
			next = step
		}
	}
	if r.UpTo > r.Percent {
		next = min(next, r.UpTo)
	}
	return next
}

// Retirement are the checks that a retirement asks for: none but of a team that
// stands at 100 percent.
func (r Report) Retirement() []Check {
	if r.Percent < rollout.Full {
		return nil
	}
	all := append([]Check{}, r.Retire...)
	return append(all, harmful(r.Checks)...)
}
