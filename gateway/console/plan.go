package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
	"crossfade/rollout/readiness"
)

// Plan is what would become of requests, in the order of asking.
type Plan struct {
	Steps []Step `json:"steps"`
}

// Step is what would become of one request.
type Step struct {
	Team    identity.Team  `json:"team"`
	From    int            `json:"from"`
	To      int            `json:"to"`
	Outcome string         `json:"outcome"`
	Why     string         `json:"why"`
	Owner   identity.Owner `json:"owner,omitempty"`
	effect.Forecast
	// Problem is why nothing is forecast; nil where that could be read.
	Problem *readiness.Problem `json:"problem,omitempty"`
	// Overridden tells that the checks do not hold and an override passes.
	Overridden bool `json:"overridden,omitempty"`
	// Changes tells that asking would write something.
	Changes bool `json:"changes"`
	// Revision is that of the team as it is.
	Revision int64 `json:"revision"`
}

// planned is one request of a plan.
type planned struct {
	team identity.Team
	asking
}

func (c *Console) plan(w http.ResponseWriter, r *http.Request) *problem {
	if p := c.unread(); p != nil {
		return p
	}
	var list []json.RawMessage
	if p := readBody(w, r, members{"requests": &list}); p != nil {
		return p
	}
	requests, err := plannedOf(list)
	if err != nil {
		return badBody(err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	out := Plan{Steps: make([]Step, 0, len(requests))}
	looked := 0 // how many had something to read
	var unread []error
	for _, q := range requests {
		s, ok := c.o.Table.Lookup(q.team)
		if !ok && !slices.Contains(c.o.Teams, q.team) {
			return c.unknown(q.team)
		}
		s.Team = q.team
		step, err := c.planOne(ctx, s, q)
		if step.Outcome != rollout.Met.String() {
			looked++
		}
		if err != nil {
			// What is wrong with one team's evidence is in no other team's way.
			unread = append(unread, err)
			step.Problem = readiness.UnreadProblem("What this does to the runs of "+string(q.team), err)
		}
		out.Steps = append(out.Steps, step)
	}
	if len(unread) > 0 && len(unread) == looked && c.away(ctx) {
		return storeProblem(errors.Join(rollout.ErrUnavailable, unread[0]), c.show)
	}
	send(w, http.StatusOK, "application/json", out)
	return nil
}

// plannedOf reads the requests of a plan.
func plannedOf(list []json.RawMessage) ([]planned, error) {
	switch {
	case list == nil:
		return nil, errors.New(`"requests" is missing`)
	case len(list) > maxPlanned:
		return nil, fmt.Errorf("there are %d requests, of which %d may be planned at once", len(list), maxPlanned)
	}
	requests := make([]planned, 0, len(list))
	for i, text := range list {
		var q planned
		var team string
		into := q.members()
		into["team"] = &team
		if err := parse(text, into); err != nil {
			return nil, fmt.Errorf("request %d: %w", i+1, err)
		}
		if err := q.check(); err != nil {
			return nil, fmt.Errorf("request %d: %w", i+1, err)
		}
		if team == "" {
			return nil, fmt.Errorf(`request %d: "team" is missing`, i+1)
		}
		q.team = identity.Team(team)
		requests = append(requests, q)
	}
	return requests, nil
}

// planOne says what would become of a request. With an error that is known, but not
// what it does to runs.
func (c *Console) planOne(ctx context.Context, s rollout.State, q planned) (Step, error) {
	asked := s
	asked.Request = q.request(s, caller{})
	same := s.Request.Alike(asked.Request)
	asked.Request.At = c.o.Now()
	step := c.step(ctx, asked)
	out := Step{
		Team: s.Team, From: int(step.From), To: int(step.To), Outcome: step.Outcome.String(), Why: step.Why, Owner: step.Owner,
		Overridden: step.Overridden, Changes: step.Outcome.Applies() || !same, Revision: s.Revision,
	}
	var err error
	out.Forecast, err = c.o.Forecast(ctx, s, step)
	return out, err
}
