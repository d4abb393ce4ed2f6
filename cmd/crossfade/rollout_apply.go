package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"crossfade/config"
	"crossfade/rollout"
	"crossfade/rollout/redisstore"
)

// result is what became of a team's file.
type result string

// The results.
const (
	// resultApplied: the percentage is what the file asks for. resultWaiting: it is
	// asked for, now or since before, and waits. resultNoted: it is asked for, and
	// the percentage was that already. resultUnchanged: nothing had to be written.
	resultApplied   result = "applied"
	resultWaiting   result = "waiting"
	resultNoted     result = "noted"
	resultUnchanged result = "unchanged"
	// resultConflict: somebody was faster. resultRefused: it may not be.
	// resultFailed: something else was wrong.
	resultConflict result = "conflict"
	resultRefused  result = "refused"
	resultFailed   result = "failed"
	// resultUnknown: the store went away meanwhile. resultNotTried: it had before.
	resultUnknown  result = "unknown"
	resultNotTried result = "not tried"
)

// applyRow is what became of one team's file.
type applyRow struct {
	planRow
	Result result `json:"result"`
	// Written is yes, no, or unknown because no answer came.
	Written string `json:"written"`
	// Revision is that of the team afterwards, as far as it is known.
	Revision int64 `json:"revision"`
	// Error is why it was not written; "" if it was, or did not have to be.
	Error string `json:"error,omitempty"`

	err error
}

// writer writes what one file asks for. why is what it waits for, where that is
// not as planned.
type writer func(ctx context.Context, row planRow) (s rollout.State, why string, err error)

// applyAll writes what has to be, one team after another. What keeps one team
// from being written does not keep the next one, but for a store that is away. In
// parts tells that only a part of the store is: then the next one may be on another.
func applyAll(ctx context.Context, rows []planRow, write writer, inParts bool) []applyRow {
	all := make([]applyRow, 0, len(rows))
	away := false
	for _, row := range rows {
		r := applyRow{planRow: row, Result: resultUnchanged, Written: "no", Revision: row.state.Revision}
		switch {
		case !row.changes():
			if row.refused() {
				r.Result = resultWaiting
			}
		case away:
			r.Result = resultNotTried
		default:
			r = r.after(write(ctx, row))
			away = r.Result == resultUnknown && (!inParts || ctx.Err() != nil)
		}
		all = append(all, r)
	}
	return all
}

// after is the row once it was tried to write it.
func (r applyRow) after(s rollout.State, why string, err error) applyRow {
	if err != nil {
		r.err, r.Error = err, err.Error()
		r.Result, r.Written = resultOf(err), "no"
		if r.Result == resultUnknown {
			r.Written = "unknown"
		}
		var faster *rollout.ConflictError
		if errors.As(err, &faster) {
			r.Revision = faster.Current.Revision
		}
		return r
	}
	r.Written, r.Revision, r.state = "yes", s.Revision, s
	switch {
	case r.refused():
		r.Result = resultWaiting
	case !r.step.Outcome.Applies():
		r.Result = resultNoted
	case s.Percent != r.step.To: // the checks have changed their mind since the plan
		r.Result = resultWaiting
		if why != "" {
			r.Why = why
		}
	default:
		r.Result = resultApplied
	}
	return r
}

// resultOf is what an error means for one team.
func resultOf(err error) result {
	switch code := exitCode(err); {
	case code == exitConflict:
		return resultConflict
	case code == exitRefused, errors.Is(err, rollout.ErrRetired):
		return resultRefused
	case code == exitStore:
		return resultUnknown
	default:
		return resultFailed
	}
}

// applyError is how an apply ends. What is worse outdoes the rest: a store that
// is away, then a failure, then what waits for checks or is refused, which applying
// again does not change, then conflicts, which it may.
func applyError(rows []applyRow) error {
	count := make(map[result]int)
	first := make(map[result]error)
	for _, r := range rows {
		if count[r.Result]++; count[r.Result] == 1 {
			first[r.Result] = r.err
		}
	}
	switch {
	case count[resultUnknown] > 0:
		return &exitError{exitStore, fmt.Errorf("%w\n%s not tried: look at `crossfade rollout status` before you apply again",
			first[resultUnknown], were(count[resultNotTried], "team"))}
	case count[resultFailed] > 0:
		return &exitError{exitCode(first[resultFailed]), fmt.Errorf("%s not written: %w", were(count[resultFailed], "team"), first[resultFailed])}
	case count[resultRefused] > 0:
		return &exitError{exitRefused, fmt.Errorf("%s refused: %w", were(count[resultRefused], "team"), first[resultRefused])}
	case count[resultWaiting] > 0:
		return &exitError{exitRefused, errors.New("")}
	case count[resultConflict] > 0:
		return &exitError{exitConflict, fmt.Errorf("%s not written, because somebody changed the team meanwhile: look at `crossfade rollout plan` and apply again", were(count[resultConflict], "team"))}
	}
	return nil
}

// applyTable is what became of the files as rows.
func applyTable(rows []applyRow) table {
	t := table{{"", "TEAM", "CHANGE", "RESULT", "WRITTEN", "REVISION", "WHY", "WHO ACTS"}}
	for _, r := range rows {
		sign, why := r.sign(), r.Why
		switch {
		case r.Error != "":
			sign, why = "x", "see below"
		case r.Result == resultNotTried:
			sign, why = "x", "the store went away before"
		case r.Result == resultWaiting:
			sign = "!"
		}
		t = append(t, []string{sign, string(r.Team), r.change(), string(r.Result), r.Written, fmt.Sprint(r.Revision), why, r.actor()})
	}
	return t
}

// reportApply tells of every team, and how it ended.
func (p *program) reportApply(out *output, rows []applyRow) error {
	if err := out.write(p.stdout, rows, applyTable(rows)); err != nil {
		return err
	}
	if out.format == "table" || out.format == "markdown" {
		var details []detail
		written, waiting, failed := 0, 0, 0
		for _, r := range rows {
			switch {
			case r.Error != "":
				details = append(details, detail{r.Team, r.Error})
				failed++
			case r.Result == resultNotTried:
				failed++
			case r.Result == resultWaiting:
				waiting++
			}
			if r.Written == "yes" {
				written++
			}
		}
		if err := out.writeDetails(p.stdout, details); err != nil {
			return err
		}
		rest := ""
		if failed > 0 {
			rest = fmt.Sprintf(", %d not done", failed)
		}
		_, _ = fmt.Fprintf(p.stdout, "\n%d written, %d waiting%s. Gateways follow within seconds.\n", written, waiting, rest)
	}
	return applyError(rows)
}

// straight writes to the store.
func straight(s rollout.Writer, cfg *config.Config, by rollout.Setting) writer {
	return func(ctx context.Context, row planRow) (rollout.State, string, error) {
		now := time.Now()
		change := rollout.Ask(row.state, row.request(by), row.step, now)
		if row.asked() {
			change = rollout.Follow(row.state, row.step, now)
		}
		if change.Retire {
			var err error
			if change.Credentials, err = credentialsOf(cfg, row.Team); err != nil {
				return rollout.State{}, "", err
			}
		}
		state, err := s.Write(ctx, change)
		return state, "", err
	}
}

func (p *program) rolloutApply() *cobra.Command {
	var (
		o      planning
		reason string
	)
	c := &cobra.Command{
		Use:   "apply",
		Short: "Ask for what the teams' files say",
		Long: `Make the requests that the teams' files stand for, as a pipeline does after a
merge. What is allowed is applied at once; the rest stays pending and is applied by
the gateways when its checks pass. What keeps one team from being written, such as
somebody who changes it at the same time, does not keep the others: of each team it
is said what became of it, and whether it was written.

The exit code is 5 if the store went away, which ends it, or if a node of a Redis
Cluster is away, whose teams are named while the others are applied; 1 or 2 if a team could not
be written for a mistake; 3 if something waits or is refused; 4 if nothing but
somebody else's change stood in the way, so that applying again may do; the first of
these that is the case.

Straight to Redis nobody proves who asks: the user is recorded as an unverified
name.`,
		Example: `  crossfade rollout apply
  crossfade rollout apply --dir rollout.d --reason "PR 812"`,
		Args: cobra.NoArgs,
	}
	o.addFlags(c)
	c.Flags().StringVar(&reason, "reason", "", "why, for the history; default: what each file says")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		if o.api, err = p.admin(c); err != nil {
			return err
		}
		by := rollout.Setting{Actor: actor(), Source: "cli", Reason: reason}
		cfg, err := p.partial(c)
		if err != nil {
			return err
		}
		return p.plan(c, o, func(ctx context.Context, s *redisstore.Store, _ string, rows []planRow, missing error) error {
			for _, row := range rows {
				for _, w := range row.file.Warnings {
					_, _ = fmt.Fprintf(p.stderr, "crossfade: %s\n", printable(w))
				}
			}
			write := straight(s, cfg, by)
			if o.api != nil {
				write = func(ctx context.Context, row planRow) (rollout.State, string, error) { return o.api.ask(ctx, row, by) }
			}
			err := p.reportApply(o.out, applyAll(ctx, rows, write, missing != nil))
			if missing == nil {
				return err
			}
			if err != nil && err.Error() != "" {
				missing = fmt.Errorf("%w\n%w", missing, err)
			}
			return &exitError{exitStore, missing}
		})
	}
	return c
}
