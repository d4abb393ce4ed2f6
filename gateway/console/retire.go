package console

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// Retirement is whether a team may be retired now.
type Retirement struct {
	Team     identity.Team `json:"team"`
	Revision int64         `json:"revision"`
	// Retired tells that it is already.
	Retired bool `json:"retired"`
	// May tells that nothing is in the way, for the reason Why; else Obstacles are
	// what is.
	May       bool               `json:"may"`
	Why       string             `json:"why,omitempty"`
	Obstacles []rollout.Obstacle `json:"obstacles"`
	// Credentials is how many static credentials would end with it, or have ended.
	Credentials int `json:"credentials"`
}

// retirement says what stands in the way of a team's retirement, and changes
// nothing: the dry run.
func (c *Console) retirement(w http.ResponseWriter, r *http.Request) *problem {
	if p := c.unread(); p != nil {
		return p
	}
	team, p := c.named(r)
	if p != nil {
		return p
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	s := c.state(team)
	out := Retirement{Team: team, Revision: s.Revision, Retired: s.Retired, Obstacles: []rollout.Obstacle{}, Credentials: len(c.o.Credentials(team))}
	if s.Retired {
		out.Credentials = len(s.Credentials)
	}
	why, err := rollout.AskRetire(ctx, c.o.Guard, s, c.o.Now())
	var blocked *rollout.RetireError
	switch {
	case errors.As(err, &blocked):
		out.Obstacles = blocked.Obstacles
	case err != nil:
		return storeProblem(errors.Join(rollout.ErrUnavailable, err), c.show)
	default:
		out.May, out.Why = true, why
	}
	w.Header().Set("ETag", etag(s.Revision))
	send(w, http.StatusOK, "application/json", out)
	return nil
}

// retire ends a team's static credentials, if nothing is in the way. To retire a
// team that is retired changes nothing.
func (c *Console) retire(w http.ResponseWriter, r *http.Request) *problem {
	var reason string
	if p := readBody(w, r, members{"reason": &reason}); p != nil {
		return p
	}
	known, anyOne, p := revisions(r)
	if p != nil {
		return p
	}
	s, p := c.change(r, func(ctx context.Context, s rollout.State) (rollout.Change, error) {
		switch {
		case !anyOne && !slices.Contains(known, s.Revision):
			return rollout.Change{}, stale(known, s)
		case s.Retired:
			return rollout.Change{}, nil
		}
		now := c.o.Now()
		why, err := rollout.AskRetire(ctx, c.o.Guard, s, now)
		var blocked *rollout.RetireError
		if err != nil && !errors.As(err, &blocked) {
			err = errors.Join(rollout.ErrUnavailable, err)
		}
		if err != nil {
			return rollout.Change{}, err
		}
		return rollout.Retiring(s, callerOf(r).by(reason), c.o.Credentials(s.Team), why, now), nil
	})
	if p != nil {
		return p
	}
	c.reply(w, r, s)
	return nil
}
