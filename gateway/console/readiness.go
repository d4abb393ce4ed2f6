package console

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/readiness"
)

// Assessor says how ready a team is in a state. Errors match
// rollout.ErrUnavailable.
type Assessor interface {
	Report(ctx context.Context, s rollout.State) (readiness.Report, error)
}

// Readinesses are all teams in a line each, in order of id. One whose evidence cannot
// be read is there with a problem.
type Readinesses struct {
	Teams []readiness.Summary `json:"teams"`
}

// Readiness is all that is known of one team's.
type Readiness struct {
	Report readiness.Report `json:"report"`
	// Outlook is what another percentage would do: the one that was asked about,
	// else the report's next.
	Outlook readiness.Outlook `json:"outlook"`
	// File is the name of the team's file; "" for none.
	File string `json:"file,omitempty"`
}

func (c *Console) readinesses(w http.ResponseWriter, r *http.Request) *problem {
	if p := c.unread(); p != nil {
		return p
	}
	states := make(map[identity.Team]bool)
	for _, team := range c.o.Teams {
		states[team] = true
	}
	for _, s := range c.o.Table.States() {
		states[s.Team] = true
	}
	delete(states, identity.Unassigned) // which is rolled out to nowhere
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	out := Readinesses{Teams: make([]readiness.Summary, 0, len(states))}
	var unread []unreadTeam
	for _, team := range slices.Sorted(maps.Keys(states)) {
		state := c.state(team)
		report, err := c.o.Readiness.Report(ctx, state)
		if err != nil {
			// What is wrong with one team's evidence is in no other team's way. Without any,
			// it is the store that is away.
			if unread = append(unread, unreadTeam{team, err}); len(unread) == len(states) && c.away(ctx) {
				return c.notAssessed(unread[0].team, unread[0].err)
			}
			report = readiness.Unread(state, err, c.o.Now())
		}
		out.Teams = append(out.Teams, report.Summary())
	}
	send(w, http.StatusOK, "application/json", out)
	return nil
}

func (c *Console) readiness(w http.ResponseWriter, r *http.Request) *problem {
	if p := c.unread(); p != nil {
		return p
	}
	team, p := c.named(r)
	if p != nil {
		return p
	}
	var to *rollout.Percent
	if query := r.URL.Query(); query.Has("percent") {
		percent, err := rollout.ParsePercent(query.Get("percent"))
		if err != nil {
			return refuse(http.StatusBadRequest, parameterInvalid, fmt.Sprintf("percent is %q.", clip(query.Get("percent"))), "Use a whole number from 0 to 100.")
		}
		to = &percent
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	report, err := c.o.Readiness.Report(ctx, c.state(team))
	if err != nil {
		return c.notAssessed(team, err)
	}
	if to == nil {
		next := report.Next()
		to = &next
	}
	send(w, http.StatusOK, "application/json", Readiness{Report: report, Outlook: report.Outlook(*to), File: c.o.Files()[team].Name})
	return nil
}

// unreadTeam is a team whose evidence cannot be read.
type unreadTeam struct {
	team identity.Team
	err  error
}

// away reports whether the store does not answer at all.
func (c *Console) away(ctx context.Context) bool {
	_, _, err := c.o.Store.Fleet(ctx)
	return err != nil
}

func (c *Console) notAssessed(team identity.Team, err error) *problem {
	err = fmt.Errorf("the evidence of %s cannot be read: %w", team, errors.Join(rollout.ErrUnavailable, err))
	p := storeProblem(err, c.show)
	p.Do = "Try again in a moment; nothing was changed."
	return p
}
