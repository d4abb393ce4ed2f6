package assess

import (
	"context"
	"fmt"
	"time"

	"crossfade/rollout"
	"crossfade/rollout/readiness"
)

var _ rollout.Guard = (*Assessor)(nil)

// MayRaise implements rollout.Guard by the checks of readiness. A hold is not
// looked at: what it outranks is rollout.Next's to say.
func (a *Assessor) MayRaise(ctx context.Context, s rollout.State, since time.Time) (rollout.Answer, error) {
	s.Hold = rollout.Hold{}
	r, err := a.report(ctx, s, since, false)
	if err != nil {
		return rollout.Answer{}, err
	}
	return answerOf(r), nil
}

// MayRetire implements rollout.Guard by the checks of retirement.
func (a *Assessor) MayRetire(ctx context.Context, s rollout.State) (rollout.Answer, error) {
	s.Hold = rollout.Hold{}
	r, err := a.report(ctx, s, time.Time{}, false)
	if err != nil {
		return rollout.Answer{}, err
	}
	answer := rollout.Answer{Why: r.Why, Owner: r.Owner}
	switch {
	case s.Percent < rollout.Full:
		answer.Why = fmt.Sprintf("the team is at %s%%, not at 100%%", s.Percent)
	case r.Answer == readiness.Ready:
		answer.UpTo = rollout.Full
	default:
		answer.Obstacles = obstacles(r)
	}
	return answer, nil
}

// answerOf is what a report means for a raise.
func answerOf(r readiness.Report) rollout.Answer {
	answer := rollout.Answer{UpTo: r.UpTo, Why: r.Why, Owner: r.Owner, Signal: r.Signal}
	if r.Answer == readiness.Ready {
		if r.Bad == 0 {
			answer.Why += ", none would break"
		}
		answer.Why += fmt.Sprintf("; up to %s%% possible", r.UpTo)
	}
	return answer
}

// obstacles are the checks that are in the way of a retirement, the one that
// decides first.
func obstacles(r readiness.Report) []rollout.Obstacle {
	var all []rollout.Obstacle
	for _, c := range r.Retirement() {
		switch o := (rollout.Obstacle{Why: c.Why, Owner: c.Owner}); {
		case c.Pass:
		case c.Why == r.Why:
			all = append([]rollout.Obstacle{o}, all...)
		default:
			all = append(all, o)
		}
	}
	return all
}
