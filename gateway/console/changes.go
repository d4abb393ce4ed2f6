package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// maxGlass bounds a hold that breaks the glass.
const maxGlass = 72 * time.Hour

// by is who makes a change.
func (w caller) by(reason string) rollout.Setting {
	return rollout.Setting{Actor: w.name, Verified: w.verified, Source: source, Reason: reason}
}

// change makes a change of a team's state as the store has it. decide is asked
// again when somebody was faster; its change without a team is none. A change that
// has begun is made and told of, whether its client waits or not.
func (c *Console) change(r *http.Request, decide func(context.Context, rollout.State) (rollout.Change, error)) (rollout.State, *problem) {
	who := callerOf(r)
	team := identity.Team(r.PathValue("team"))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), timeout)
	defer cancel()
	refused := func(err error) (rollout.State, *problem) {
		var p *problem
		if !errors.As(err, &p) {
			p = storeProblem(err, c.show)
		}
		return rollout.State{}, p
	}
	end, p := c.begin(ctx)
	if p != nil {
		return rollout.State{}, p
	}
	defer end()
	if err := rollout.OfTeam(c.o.Table.Refresh(ctx), team); err != nil {
		var partial *rollout.PartialError
		if errors.As(err, &partial) && !errors.Is(err, rollout.ErrRegressed) {
			return rollout.State{}, awayProblem(team, partial)
		}
		return refused(err)
	}
	s := c.state(team)
	for {
		change, err := decide(ctx, s)
		if err != nil {
			return refused(err)
		}
		if change.Team == "" {
			return s, nil
		}
		change.Expect = s.Revision
		is, err := c.o.Table.Write(ctx, change)
		var faster *rollout.ConflictError
		switch {
		case err == nil:
			c.o.Log.Info("a team was changed", "team", team, "kind", change.Kind, "from", int(s.Percent), "to", int(is.Percent),
				"revision", is.Revision, "actor", who.name, "verified", who.verified, "source", source, "reason", change.Reason)
			c.o.Changed(ctx, Done{Change: change, Was: s, Is: is, Token: who.token, Client: clientOf(r)})
			return is, nil
		case !errors.As(err, &faster):
			return refused(err)
		case ctx.Err() != nil:
			return refused(fmt.Errorf("%w: %w", rollout.ErrUnavailable, ctx.Err()))
		}
		s = faster.Current
		s.Team = team
	}
}

// begin waits for a change's turn, until end is called.
func (c *Console) begin(ctx context.Context) (end func(), p *problem) {
	if !c.o.Ready() {
		p := refuseFor(http.StatusServiceUnavailable, identity.AuditUnavailable, "The change could not be recorded, so it was not made.", "Tell the platform team that the audit trail cannot be written.")
		p.retryAfter = "5"
		return nil, p
	}
	select {
	case c.turn <- struct{}{}:
		return func() { <-c.turn }, nil
	case <-ctx.Done():
		return nil, storeProblem(fmt.Errorf("%w: other changes took too long, and this one was not begun", rollout.ErrUnavailable), c.show)
	}
}

// Error implements error, so that a decision may end in a problem.
func (p *problem) Error() string { return p.Message }

// reply shows what a change came to.
func (c *Console) reply(w http.ResponseWriter, r *http.Request, s rollout.State) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	c.sendTeam(w, http.StatusOK, s, c.step(ctx, s))
}

// revisions reads If-Match: the revisions that a change was decided upon, or any.
// Weak tags never match (RFC 9110, section 13.1.1).
func revisions(r *http.Request) (known []int64, anyOne bool, p *problem) {
	values := r.Header["If-Match"]
	if len(values) == 0 {
		return nil, false, refuse(http.StatusPreconditionRequired, preconditionRequired, "The change does not say what it was decided upon.",
			"Send the ETag of the team as If-Match, or `*` to change it whatever it is.")
	}
	if len(values) == 1 && strings.TrimSpace(values[0]) == "*" {
		return nil, true, nil
	}
	for text := range strings.SplitSeq(strings.Join(values, ","), ",") {
		text = strings.TrimSpace(text)
		if strings.HasPrefix(text, "W/") {
			continue
		}
		inner, ok := strings.CutPrefix(text, `"`)
		inner, closed := strings.CutSuffix(inner, `"`)
		n, err := strconv.ParseInt(inner, 10, 64)
		if !ok || !closed || err != nil || n < 0 || inner != strconv.FormatInt(n, 10) {
			return nil, false, refuse(http.StatusBadRequest, preconditionInvalid, fmt.Sprintf("If-Match holds %q, which is no ETag of a team.", clip(text)),
				`Send the ETag of the team, as in If-Match: "7".`)
		}
		known = append(known, n)
	}
	return known, false, nil
}

// stale is the error of a change that was decided upon other revisions.
func stale(known []int64, s rollout.State) error {
	e := &rollout.ConflictError{Expected: rollout.AnyRevision, Current: s}
	if len(known) > 0 {
		e.Expected = known[0]
	}
	return e
}

func (c *Console) set(w http.ResponseWriter, r *http.Request) *problem {
	var percent percentage
	var reason, glass string
	if p := readBody(w, r, members{"percent": &percent, "reason": &reason, "break_glass_for": &glass}); p != nil {
		return p
	}
	if !percent.given {
		return badBody(errors.New(`"percent" is missing`))
	}
	who := callerOf(r)
	to := who.by(reason)
	to.Percent = percent.Percent
	if glass != "" {
		lasts, err := time.ParseDuration(glass)
		switch {
		case err != nil || lasts <= 0 || lasts > maxGlass:
			return badBody(fmt.Errorf(`"break_glass_for" must be a time as in 4h, above 0 and at most %dh`, int(maxGlass.Hours())))
		case reason == "":
			return badBody(errors.New(`"break_glass_for" needs a "reason": whoever is paged must know why`))
		}
		to.Until = c.o.Now().Add(lasts)
	}
	known, anyOne, p := revisions(r)
	if p != nil {
		return p
	}
	s, p := c.change(r, func(_ context.Context, s rollout.State) (rollout.Change, error) {
		switch {
		case !anyOne && !slices.Contains(known, s.Revision):
			return rollout.Change{}, stale(known, s)
		case to.Percent > s.Percent && !who.operates:
			return rollout.Change{}, refuseFor(http.StatusForbidden, identity.ActionDenied,
				fmt.Sprintf("%s may lower %s at once; to raise it past its checks is for operators.", who.name, s.Team),
				"Ask for it by POST "+Prefix+"teams/"+string(s.Team)+"/request: it is applied when the checks hold.")
		}
		if err := to.Check(s); err != nil {
			return rollout.Change{}, err
		}
		return rollout.Set(s, to, c.o.Now()), nil
	})
	if p != nil {
		return p
	}
	c.reply(w, r, s)
	return nil
}

func (c *Console) hold(w http.ResponseWriter, r *http.Request) *problem {
	var reason string
	if p := readBody(w, r, members{"reason": &reason}); p != nil {
		return p
	}
	s, p := c.change(r, func(_ context.Context, s rollout.State) (rollout.Change, error) {
		return rollout.Brake(s, callerOf(r).by(reason), c.o.Now()), nil
	})
	if p != nil {
		return p
	}
	c.reply(w, r, s)
	return nil
}

// release lifts a hold. Its reason stands in the query: what a body of DELETE
// means is not defined (RFC 9110, section 9.3.5), and some proxies drop it.
func (c *Console) release(w http.ResponseWriter, r *http.Request) *problem {
	reason := r.URL.Query().Get("reason")
	s, p := c.change(r, func(_ context.Context, s rollout.State) (rollout.Change, error) {
		now := c.o.Now()
		if !s.Hold.Active(now) {
			return rollout.Change{}, nil
		}
		return rollout.Release(s, callerOf(r).by(reason), now), nil
	})
	if p != nil {
		return p
	}
	c.reply(w, r, s)
	return nil
}

func (c *Console) rollback(w http.ResponseWriter, r *http.Request) *problem {
	var reason string
	if p := readBody(w, r, members{"reason": &reason}); p != nil {
		return p
	}
	if reason == "" {
		return badBody(errors.New(`"reason" is missing: the team must know what to look at`))
	}
	s, p := c.change(r, func(_ context.Context, s rollout.State) (rollout.Change, error) {
		return rollout.Rollback(s, callerOf(r).by(reason), c.o.Now())
	})
	if p != nil {
		return p
	}
	c.reply(w, r, s)
	return nil
}

// asking is what a request asks for.
type asking struct {
	percent                  percentage
	reason, override, digest string
	windows                  []json.RawMessage
	brownouts                []rollout.Brownout
}

func (a *asking) members() members {
	return members{"percent": &a.percent, "reason": &a.reason, "override": &a.override, "digest": &a.digest, "brownouts": &a.windows}
}

// check reads the windows and looks for what is missing.
func (a *asking) check() error {
	if !a.percent.given {
		return errors.New(`"percent" is missing`)
	}
	for i, window := range a.windows {
		var percent percentage
		var b rollout.Brownout
		if err := parse(window, members{"percent": &percent, "from": &b.From, "until": &b.Until}); err != nil {
			return fmt.Errorf("brownout %d: %w", i+1, err)
		}
		if !percent.given {
			return fmt.Errorf(`brownout %d: "percent" is missing`, i+1)
		}
		if b.Until.Sub(b.From) > rollout.MaxBrownout {
			return fmt.Errorf("brownout %d: it may last %d hours at most", i+1, int(rollout.MaxBrownout.Hours()))
		}
		b.Percent = percent.Percent
		a.brownouts = append(a.brownouts, b)
	}
	if i := rollout.BrownoutsWithin(a.brownouts); i >= 0 {
		return fmt.Errorf("brownout %d: with it the windows last longer than %d hours in 7 days, which is a raise that no check was asked about: shorten them, put them further apart, or ask for a higher percentage", i+1, int(rollout.MaxBrownout.Hours()))
	}
	return nil
}

// request is what is asked of a state. Without a digest it stands in for what the
// team's file asks, whose digest and brownouts stay, so that the file is not taken
// for another one. An override never stays.
func (a *asking) request(s rollout.State, who caller) rollout.Request {
	q := rollout.Request{
		Percent: a.percent.Percent, Digest: a.digest, Override: a.override, Brownouts: a.brownouts,
		Actor: who.name, Verified: who.verified, Source: source, Reason: a.reason,
	}
	if a.digest == "" {
		q.Digest = s.Request.Digest
		if a.windows == nil {
			q.Brownouts = s.Request.Brownouts
		}
	}
	return q
}

// ask notes what a team asks for, and follows it if the guard allows. To ask
// again for what is asked for already writes nothing, unless the checks hold by
// now.
func (c *Console) ask(w http.ResponseWriter, r *http.Request) *problem {
	var a asking
	if p := readBody(w, r, a.members()); p != nil {
		return p
	}
	if err := a.check(); err != nil {
		return badBody(err)
	}
	who := callerOf(r)
	var step rollout.Step
	s, p := c.change(r, func(ctx context.Context, s rollout.State) (rollout.Change, error) {
		now := c.o.Now()
		q := a.request(s, who)
		asked := s
		asked.Request = q
		asked.Request.At = now
		step = c.step(ctx, asked)
		switch same := s.Request.Alike(q); {
		case same && step.Outcome.Applies():
			return rollout.Follow(s, step, now), nil
		case same:
			return rollout.Change{}, nil
		}
		return rollout.Ask(s, q, step, now), nil
	})
	if p != nil {
		return p
	}
	status := http.StatusOK
	if waits(step) {
		status = http.StatusAccepted
	}
	if step.Outcome.Applies() {
		step = rollout.Step{Outcome: rollout.Met, Why: step.Why}
	}
	c.sendTeam(w, status, s, step)
	return nil
}

// waits reports whether a request is noted and not followed.
func waits(step rollout.Step) bool {
	return step.Outcome == rollout.Pending || step.Outcome == rollout.Held || step.Outcome == rollout.Closed
}
