package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/reconcile"
	"crossfade/rollout/redisstore"
)

// exitChanges is the exit code of a plan with changes, where it is asked for.
const exitChanges = 10

// planRow is what would become of one team's file.
type planRow struct {
	Team    identity.Team  `json:"team"`
	From    int            `json:"from"`
	To      int            `json:"to"`
	Outcome string         `json:"outcome"`
	Why     string         `json:"why"`
	Owner   identity.Owner `json:"owner,omitempty"`
	// Selected are the accounts and pipelines that a raise newly selects, RunsADay
	// about how many runs of theirs a day are kept.
	Selected []string `json:"newly_selected,omitempty"`
	RunsADay float64  `json:"newly_selected_runs_a_day,omitempty"`
	// Overridden tells that the checks do not hold and an override passes.
	Overridden bool `json:"overridden,omitempty"`

	state rollout.State
	file  reconcile.File
	step  rollout.Step
}

// sign is the first column of a plan.
func (r planRow) sign() string {
	switch {
	case r.step.Outcome == rollout.Raise, r.step.Outcome == rollout.Retire:
		return "+"
	case r.step.Outcome == rollout.Lower:
		return "-"
	case r.refused():
		return "!"
	default:
		return "="
	}
}

func (r planRow) refused() bool {
	return r.step.Outcome == rollout.Pending || r.step.Outcome == rollout.Held || r.step.Outcome == rollout.Closed
}

// changes reports whether applying the file would write anything.
func (r planRow) changes() bool {
	return r.step.Outcome.Applies() || !r.state.Request.Made() || r.state.Request.Digest != r.file.Digest
}

// request is what the file asks for.
func (r planRow) request(by rollout.Setting) rollout.Request {
	reason := r.file.Reason
	if by.Reason != "" {
		reason = by.Reason
	}
	return rollout.Request{
		Percent: r.file.Percent, Digest: r.file.Digest, Override: r.file.Override, Retire: r.file.Retire, Brownouts: r.file.Brownouts,
		Actor: by.Actor, Verified: by.Verified, Source: by.Source, Reason: reason,
	}
}

// planning is what plan and apply have in common.
type planning struct {
	dir string
	out *output
	// api is the admin API where that is asked for, else nil.
	api *adminAPI
}

func (o *planning) addFlags(c *cobra.Command) {
	o.out = outputFlag(c, "table", "json", "yaml", "markdown")
	c.Flags().StringVar(&o.dir, "dir", "", "the rollout directory; default: the configured one")
}

// plan reads the files and the store and says what would become of each file.
// Mistakes in files are an error: nothing may be planned past one. By the admin
// API there is no store.
func (p *program) plan(c *cobra.Command, o planning, use func(context.Context, *redisstore.Store, string, []planRow) error) error {
	if err := o.out.check(); err != nil {
		return err
	}
	cfg, err := p.partial(c)
	if err != nil {
		return err
	}
	dir := o.dir
	if dir == "" {
		dir = string(cfg.Rollout.Dir)
	}
	if dir == "" {
		return usage("there is no rollout directory: name it by --dir or by rollout.dir in the configuration")
	}
	files, mistakes, err := app.ReadTeamFiles(dir, teamsOf(cfg))
	if err != nil {
		return usage("%w", err)
	}
	if len(mistakes) > 0 {
		return mistakes
	}
	if o.api != nil {
		rows := make([]planRow, 0, len(files))
		for _, f := range files {
			rows = append(rows, planRow{file: f})
		}
		if err := o.api.fill(c.Context(), rows, time.Now()); err != nil {
			return err
		}
		return use(c.Context(), nil, dir, rows)
	}
	return p.withStore(c, func(ctx context.Context, s *redisstore.Store) error {
		rows, err := planOf(ctx, s, files, time.Now())
		if err != nil {
			return err
		}
		return use(ctx, s, dir, rows)
	})
}

// partial loads the configuration as far as a command without a gateway needs it.
func (p *program) partial(c *cobra.Command) (*config.Config, error) {
	flags := make(map[string]any)
	if f := c.Flags().Lookup("redis"); f != nil && f.Changed {
		flags["redis.url"] = f.Value.String()
	}
	source := p.source(flags)
	source.Partial = true
	return config.Load(source)
}

// teamsOf lists the teams of the principals; nil without any principals.
func teamsOf(cfg *config.Config) []string {
	var teams []string
	for _, principal := range cfg.Principals {
		if principal.Team != "" && !slices.Contains(teams, principal.Team) {
			teams = append(teams, principal.Team)
		}
	}
	slices.Sort(teams)
	return teams
}

// planOf says what would become of each file.
func planOf(ctx context.Context, s *redisstore.Store, files []reconcile.File, now time.Time) ([]planRow, error) {
	guard, err := evidence.NewGuard(s, nil)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.Load(ctx)
	if err != nil {
		return nil, err
	}
	rows := make([]planRow, 0, len(files))
	for _, f := range files {
		state := snapshot.Teams[f.Team]
		state.Team = f.Team
		asked := state
		asked.Request = rollout.Request{Percent: f.Percent, Override: f.Override, Retire: f.Retire, At: now}
		step := rollout.Next(asked, rollout.AskGuard(ctx, guard, asked, now), f.Open == nil || f.Open(now), now)
		row := planRow{
			Team: f.Team, From: int(step.From), To: int(step.To), Outcome: step.Outcome.String(), Why: step.Why, Owner: step.Owner,
			Overridden: step.Overridden, state: state, file: f, step: step,
		}
		if f.Percent > state.Percent {
			if row.Selected, row.RunsADay, err = app.NewlySelected(ctx, s, f.Team, step.From, step.To, now); err != nil {
				return nil, err
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// planTable is a plan as rows, the details below it, and how many there are of
// each kind.
func planTable(rows []planRow) (t table, details []string, raises, lowers, refused int) {
	t = table{{"", "TEAM", "CHANGE", "", "WHY", "WHO ACTS"}}
	for _, r := range rows {
		word := "allowed"
		switch {
		case r.step.Outcome == rollout.Raise:
			raises++
			if r.Overridden {
				word = "overridden"
			}
		case r.step.Outcome == rollout.Retire:
			raises++
			word = "retired"
		case r.step.Outcome == rollout.Lower:
			lowers++
		case r.refused():
			refused++
			word = "refused"
			if r.step.Outcome != rollout.Pending {
				word = r.Outcome
			}
		default:
			word = ""
		}
		change := percent(r.From) + " -> " + percent(r.To)
		if r.From == r.To {
			change = percent(r.From)
		}
		owner := string(r.Owner)
		if owner == "" || r.step.Outcome.Applies() {
			owner = "-"
		}
		t = append(t, []string{r.sign(), string(r.Team), change, word, r.Why, owner})
		if len(r.Selected) > 0 {
			details = append(details, fmt.Sprintf("%s: newly selected: %s (about %.0f more runs a day)", r.Team, some(r.Selected), r.RunsADay))
		}
	}
	return t, details, raises, lowers, refused
}

// credentialsOf lists the ids of a team's static credentials, by the
// configuration.
func credentialsOf(cfg *config.Config, team identity.Team) ([]string, error) {
	keyring, err := app.NewKeyring(cfg)
	if err != nil {
		return nil, err
	}
	return app.CredentialsOf(keyring)[team], nil
}

// some joins the first of many names.
func some(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func (p *program) rolloutPlan() *cobra.Command {
	var (
		o        planning
		detailed bool
	)
	c := &cobra.Command{
		Use:   "plan",
		Short: "Say what the teams' files would change",
		Long: `Compare the teams' files with the live percentages and say what would become of
each: what is allowed, what waits and for what, and who is newly selected. Nothing
is changed. With -o markdown it is a comment for a pull request.

The exit code is 3 if something would be refused; with --detailed-exitcode it is 10
if there are changes and nothing is refused.`,
		Example: `  crossfade rollout plan
  crossfade rollout plan --dir rollout.d -o markdown
  crossfade rollout plan --detailed-exitcode`,
		Args: cobra.NoArgs,
	}
	o.addFlags(c)
	c.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit with 10 if there are changes")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		if o.api, err = p.admin(c); err != nil {
			return err
		}
		return p.plan(c, o, func(ctx context.Context, s *redisstore.Store, dir string, rows []planRow) error {
			t, details, raises, lowers, refused := planTable(rows)
			if o.out.format == "table" {
				var from rollouts = stored{Store: s}
				if o.api != nil {
					from = o.api
				}
				live, err := from.live(ctx)
				if err != nil {
					return err
				}
				if live != "" {
					live = "     live: " + live
				}
				_, _ = fmt.Fprintf(p.stdout, "%s: %s%s\n\n", dir, teamCount(len(rows)), live)
			}
			if err := o.out.write(p.stdout, rows, t); err != nil {
				return err
			}
			if o.out.format == "table" || o.out.format == "markdown" {
				for _, line := range details {
					_, _ = fmt.Fprintf(p.stdout, "\n%s\n", line)
				}
				_, _ = fmt.Fprintf(p.stdout, "\nPlan: %d to raise, %d to lower, %d refused. Nothing was changed.\n", raises, lowers, refused)
				if refused > 0 {
					_, _ = fmt.Fprintln(p.stdout, "Refused raises stay pending and are applied when their checks pass.")
				}
			}
			switch {
			case refused > 0:
				return &exitError{exitRefused, errors.New("")}
			case detailed && slices.ContainsFunc(rows, planRow.changes):
				return &exitError{exitChanges, errors.New("")}
			}
			return nil
		})
	}
	return c
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
the gateways when its checks pass. The exit code is 3 if something waits.

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
		return p.plan(c, o, func(ctx context.Context, s *redisstore.Store, _ string, rows []planRow) error {
			var changed, waiting int
			for i, row := range rows {
				if row.refused() {
					waiting++
				}
				if !row.changes() {
					continue
				}
				if o.api != nil {
					state, err := o.api.ask(ctx, row, by)
					if err != nil {
						return fmt.Errorf("team %s, after %d changes: %w", row.Team, changed, err)
					}
					rows[i].state = state
					changed++
					continue
				}
				now := time.Now()
				change := rollout.Ask(row.state, row.request(by), row.step, now)
				if row.state.Request.Made() && row.state.Request.Digest == row.file.Digest {
					change = rollout.Follow(row.state, row.step, now)
				}
				if change.Retire {
					if change.Credentials, err = credentialsOf(cfg, row.Team); err != nil {
						return err
					}
				}
				state, err := s.Write(ctx, change)
				if err != nil {
					return fmt.Errorf("team %s, after %d changes: %w", row.Team, changed, err)
				}
				rows[i].state = state
				changed++
			}
			t, _, _, _, _ := planTable(rows)
			if err := o.out.write(p.stdout, rows, t); err != nil {
				return err
			}
			if o.out.format == "table" || o.out.format == "markdown" {
				_, _ = fmt.Fprintf(p.stdout, "\n%d written, %d waiting. Gateways follow within seconds.\n", changed, waiting)
			}
			if waiting > 0 {
				return &exitError{exitRefused, errors.New("")}
			}
			return nil
		})
	}
	return c
}
