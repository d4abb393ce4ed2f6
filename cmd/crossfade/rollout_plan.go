package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/assess"
	"crossfade/rollout/effect"
	"crossfade/rollout/readiness"
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
	// Forecast is what it does to runs.
	effect.Forecast
	// Problem is why nothing is forecast; nil where that could be read.
	Problem *readiness.Problem `json:"problem,omitempty"`
	// Overridden tells that the checks do not hold and an override passes.
	Overridden bool `json:"overridden,omitempty"`
	// Warnings are what stands in the file without effect.
	Warnings []string `json:"warnings,omitempty"`

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
	return r.step.Outcome.Applies() || !r.asked()
}

// asked reports whether the team asks for just what the file says already.
func (r planRow) asked() bool {
	return r.state.Request.Alike(r.request(rollout.Setting{}))
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
// API there is no store. What of the store cannot be read is left out and told, as
// missing, to who uses the plan; nil is nothing.
func (p *program) plan(c *cobra.Command, o planning, use func(ctx context.Context, s *redisstore.Store, dir string, rows []planRow, missing error) error) error {
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
	files, mistakes, err := app.ReadTeamFiles(dir, teamsOf(cfg), cfg.Readiness)
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
		return use(c.Context(), nil, dir, rows, nil)
	}
	return p.withStore(c, func(ctx context.Context, s *redisstore.Store) error {
		if err := regressed(ctx, s); err != nil {
			return err
		}
		keying, unknown := keyingInForce(ctx, s, app.KeyingOf(cfg))
		guard, err := app.NewAssessor(ctx, cfg, dir, nil, keying, s)
		if err != nil {
			return err
		}
		rows, missing, err := planOf(ctx, s, guard, files, keying, time.Now())
		if err != nil {
			return err
		}
		return use(ctx, s, dir, rows, cmp.Or(missing, unknown))
	})
}

// partial loads the configuration as far as a command without a gateway needs it.
func (p *program) partial(c *cobra.Command) (*config.Config, error) {
	return p.load(c, nil)
}

// reaching loads no more of it than it takes to reach the Redis of the gateways, and
// to know how they bucket runs: those serve by what they read before somebody made a
// mistake elsewhere, which must keep nobody from lowering a team.
func (p *program) reaching(c *cobra.Command) (*config.Config, error) {
	return p.load(c, []string{"redis", "upstream.profile", "rollout.stickiness"})
}

func (p *program) load(c *cobra.Command, needs []string) (*config.Config, error) {
	flags := make(map[string]any)
	if f := c.Flags().Lookup("redis"); f != nil && f.Changed {
		flags["redis.url"] = f.Value.String()
	}
	source := p.source(flags)
	source.Partial, source.Needs = true, needs
	return config.Load(source)
}

// teamsOf lists the teams that a principal or a rule for people without an entry
// names, as gateways know them; nil without any principals.
func teamsOf(cfg *config.Config) []string {
	if len(cfg.Principals) == 0 {
		return nil
	}
	var teams []string
	for _, principal := range cfg.Principals {
		teams = append(teams, principal.Team)
	}
	if cfg.Roles != nil {
		for _, values := range cfg.Roles.Teams {
			teams = slices.AppendSeq(teams, maps.Values(values))
		}
	}
	slices.Sort(teams)
	return slices.DeleteFunc(slices.Compact(teams), func(team string) bool { return team == "" || team == string(identity.Unassigned) })
}

// planOf says what would become of each file, where runs are bucketed as k says, but
// for the teams that missing says cannot be read.
func planOf(ctx context.Context, s *redisstore.Store, guard *assess.Assessor, files []reconcile.File, k rollout.Keying, now time.Time) (rows []planRow, missing, err error) {
	snapshot, missing := s.Load(ctx)
	var partial *rollout.PartialError
	if missing != nil && !errors.As(missing, &partial) {
		return nil, nil, missing
	}
	rows = make([]planRow, 0, len(files))
	looked := 0 // how many had something to read
	var unread []error
	for _, f := range files {
		if rollout.OfTeam(missing, f.Team) != nil {
			continue
		}
		state := snapshot.Teams[f.Team]
		state.Team = f.Team
		asked := state
		asked.Request = rollout.Request{Percent: f.Percent, Override: f.Override, Retire: f.Retire, At: now}
		step := rollout.Next(asked, rollout.AskGuard(ctx, guard, asked, now), f.Open == nil || f.Open(now), now)
		row := planRow{
			Team: f.Team, From: int(step.From), To: int(step.To), Outcome: step.Outcome.String(), Why: step.Why, Owner: step.Owner,
			Overridden: step.Overridden, Warnings: f.Warnings, state: state, file: f, step: step,
		}
		if step.Outcome != rollout.Met {
			looked++
		}
		if row.Forecast, err = app.ForecastOf(ctx, s, guard, state, step, k, now); err != nil {
			// What is wrong with one team's evidence is in no other team's way.
			unread = append(unread, err)
			row.Problem = readiness.UnreadProblem("What this does to the runs of "+string(f.Team), err)
		}
		rows = append(rows, row)
	}
	if len(unread) > 0 && len(unread) == looked {
		if _, _, err := s.Fleet(ctx); err != nil { // the store does not answer at all
			return nil, nil, errors.Join(unread[0], err)
		}
	}
	return rows, missing, nil
}

// planTable is a plan as rows, and how many there are of each kind.
func planTable(rows []planRow) (t table, raises, lowers, refused int) {
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
		t = append(t, []string{r.sign(), string(r.Team), r.change(), word, r.Why, r.actor()})
	}
	return t, raises, lowers, refused
}

// change and actor are the cells of a table.
func (r planRow) change() string {
	if r.From == r.To {
		return percent(r.From)
	}
	return percent(r.From) + " -> " + percent(r.To)
}

func (r planRow) actor() string {
	if r.Owner == "" || r.step.Outcome.Applies() {
		return "-"
	}
	return string(r.Owner)
}

// detail is a line about one team, below a table.
type detail struct {
	team identity.Team
	line string
}

// planDetails say what a plan does to runs.
func planDetails(rows []planRow) (details []detail) {
	for _, r := range rows {
		for _, line := range r.Lines() {
			details = append(details, detail{r.Team, line})
		}
		for _, w := range r.Warnings {
			details = append(details, detail{r.Team, printable(w)})
		}
		if r.Problem != nil {
			details = append(details, detail{r.Team, printable(r.Problem.Message)})
		}
	}
	return details
}

// writeDetails writes details for people, who find those of one team together.
func (o *output) writeDetails(w io.Writer, details []detail) error {
	if len(details) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	if o.format == "markdown" {
		for _, d := range details {
			if _, err := fmt.Fprintf(w, "- %s: %s\n", d.team, d.line); err != nil {
				return err
			}
		}
		return nil
	}
	var t table
	for i, d := range details {
		if i > 0 && details[i-1].team == d.team {
			d.team = ""
		}
		t = append(t, []string{string(d.team), d.line})
	}
	return t.text(w)
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

func (p *program) rolloutPlan() *cobra.Command {
	var (
		o        planning
		detailed bool
	)
	c := &cobra.Command{
		Use:   "plan",
		Short: "Say what the teams' files would change",
		Long: `Compare the teams' files with the live percentages and say what would become of
each: what is allowed, what waits and for what, who is newly selected, and what
becomes of runs in flight. Nothing is changed. With -o markdown it is a comment for a
pull request.

Who is selected follows from rollout.stickiness and upstream.profile as the gateways
have them; while none serves, as this configuration has them.

Where the evidence of a team cannot be read, that is said at the team, and the others
are planned.

While a node of a Redis Cluster is away, the teams on it are left out and named, and
the exit code is 5. Else the exit code is 3 if something would be refused; with --detailed-exitcode it is 10
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
		return p.plan(c, o, func(ctx context.Context, s *redisstore.Store, dir string, rows []planRow, missing error) error {
			t, raises, lowers, refused := planTable(rows)
			if o.out.format == "table" {
				var from rollouts = stored{Store: s}
				if o.api != nil {
					from = o.api
				}
				live, err := from.live(ctx)
				if err != nil {
					live, missing = "not known", cmp.Or(missing, err)
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
				if err := o.out.writeDetails(p.stdout, planDetails(rows)); err != nil {
					return err
				}
				_, _ = fmt.Fprintf(p.stdout, "\nPlan: %d to raise, %d to lower, %d refused. Nothing was changed.\n", raises, lowers, refused)
				if refused > 0 {
					_, _ = fmt.Fprintln(p.stdout, "Refused raises stay pending and are applied when their checks pass.")
				}
			}
			switch {
			case missing != nil:
				return missing
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
