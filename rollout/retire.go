package rollout

import (
	"context"
	"fmt"
	"strings"
	"time"

	"crossfade/gateway/identity"
)

// Obstacle is one thing that stands in the way of a retirement.
type Obstacle struct {
	// Why says in a few words what it is.
	Why string `json:"why"`
	// Owner is who can do something about it, "" for whoever placed it.
	Owner identity.Owner `json:"owner,omitempty"`
}

// RetireError is why a team is not retired; there is at least one obstacle.
type RetireError struct {
	Team      identity.Team
	Obstacles []Obstacle
}

// Error implements error.
func (e *RetireError) Error() string {
	all := make([]string, 0, len(e.Obstacles))
	for _, o := range e.Obstacles {
		all = append(all, o.Why)
	}
	return fmt.Sprintf("%s is not retired: %s", e.Team, strings.Join(all, "; "))
}

// AskRetire asks whether somebody may retire a team now, whatever its file asks
// for. why is what allows it. A *RetireError says what is in the way: the guard,
// which nothing overrides, since nobody can take a retirement back, and a hold,
// which outranks whoever wants to go on. Another error is the guard's, and no
// answer. A team that is retired is in nobody's way.
func AskRetire(ctx context.Context, g Guard, s State, now time.Time) (why string, err error) {
	if s.Retired {
		return "it is retired already", nil
	}
	answer, err := g.MayRetire(ctx, s)
	if err != nil {
		return "", fmt.Errorf("ask whether team %q may be retired: %w", string(s.Team), err)
	}
	if in := obstacles(s, answer, now); len(in) > 0 {
		return "", &RetireError{Team: s.Team, Obstacles: in}
	}
	return answer.Why, nil
}

// obstacles is the rule of AskRetire. It is pure.
func obstacles(s State, answer Answer, now time.Time) []Obstacle {
	var all []Obstacle
	switch refused := answer.UpTo < Full || answer.Signal; {
	case refused && len(answer.Obstacles) > 0:
		all = append(all, answer.Obstacles...)
	case refused:
		all = append(all, Obstacle{Why: answer.Why, Owner: answer.Owner})
	}
	if s.Hold.Active(now) {
		all = append(all, Obstacle{Why: "it is held: " + s.Hold.Reason})
	}
	return all
}

// Retiring is the change that ends a team's static credentials for good, which
// are those of the ids. why is what allowed it, for the history. The percentage
// of by does not count.
func Retiring(s State, by Setting, credentials []string, why string, now time.Time) Change {
	by.Percent, by.Until = Full, time.Time{}
	c := Set(s, by, now)
	c.Kind, c.Retire, c.Credentials, c.Evidence = KindRetire, true, credentials, clip(why)
	return c
}
