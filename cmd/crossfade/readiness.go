package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/assess"
	"crossfade/rollout/fleet"
	"crossfade/rollout/readiness"
	"crossfade/rollout/redisstore"
)

// assessTimeout bounds the reading of the evidence of all teams.
const assessTimeout = 30 * time.Second

// assessments are read from the store or over the admin API.
type assessments interface {
	// summaries returns all teams in order of their ids.
	summaries(ctx context.Context) ([]readiness.Summary, error)
	// assess returns all that is known of a team, and what a percentage would do; nil
	// is the next one.
	assess(ctx context.Context, team identity.Team, to *rollout.Percent) (console.Readiness, error)
	history(ctx context.Context, team identity.Team, limit int) ([]rollout.Entry, error)
	gateways(ctx context.Context) (all []fleet.Replica, now time.Time, err error)
}

// readinessOptions are what the command is told.
type readinessOptions struct {
	out    *output
	whatIf string
	report string
	verify string
	// to is what whatIf says; nil for nothing.
	to *rollout.Percent
}

func (p *program) readinessCommand() *cobra.Command {
	var o readinessOptions
	c := &cobra.Command{
		Use:   "readiness [TEAM]",
		Short: "Say whether a team may go on, and what is in the way",
		Long: `Say for each team whether it may be raised, or at 100% retired, why, and who acts;
with TEAM all that the answer stands on: the checks, each way in which runs go wrong
with what to do about it, and what the next step would do.

It goes straight to the configured Redis, by the limits, waivers and accounts of the
configuration of this command, or with --admin URL by those of a gateway.

--what-if PERCENT answers for another percentage than the next one.

--report FILE.md or FILE.json writes the evidence down for whoever audits the
cutover; it ends with a SHA-256 digest of what stands above it, which --verify FILE
checks. The digest shows that a file was changed by mistake, or by somebody who did
not make a new one: keep it somewhere else, too.

The exit code is 3 if somebody must repair something before a team that is shown may
go on; a team that waits or is held is 0. A team whose evidence cannot be read is shown
with the reason, and is no reason for another exit code while others can be read. With --what-if it is 3 unless the percentage
is allowed now.`,
		Example: `  crossfade readiness
  crossfade readiness data-eng
  crossfade readiness data-eng --what-if 50
  crossfade readiness data-eng -o markdown
  crossfade readiness growth --report growth.md
  crossfade readiness --verify growth.md`,
		Args: cobra.MaximumNArgs(1),
	}
	c.PersistentFlags().String("redis", "", "the Redis of the gateways, redis://host:port/db, instead of the configured one")
	addAdminFlags(c)
	o.out = outputFlag(c, "table", "json", "yaml", "markdown")
	c.Flags().StringVar(&o.whatIf, "what-if", "", "answer for this percentage of TEAM")
	c.Flags().StringVar(&o.report, "report", "", "write the evidence of TEAM to a new file, .md or .json")
	c.Flags().StringVar(&o.verify, "verify", "", "check the digest of a file that --report wrote")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := o.check(c, args); err != nil {
			return err
		}
		if o.verify != "" {
			return p.verifyReport(o.verify)
		}
		return p.withAssessments(c, func(ctx context.Context, s assessments) error {
			if len(args) == 0 {
				return p.showReadiness(ctx, s, o)
			}
			return p.showTeam(ctx, s, identity.Team(args[0]), o)
		})
	}
	return c
}

// check finds what does not go together.
func (o *readinessOptions) check(c *cobra.Command, args []string) error {
	if err := o.out.check(); err != nil {
		return err
	}
	switch flags := c.Flags(); {
	case flags.Changed("verify") && (len(args) > 0 || flags.Changed("what-if") || flags.Changed("report")):
		return usage("--verify FILE looks at the file alone: leave the rest out")
	case flags.Changed("verify") && o.verify == "":
		return usage("--verify: name the file")
	case len(args) == 0 && flags.Changed("what-if"):
		return usage("--what-if goes with a team: crossfade readiness TEAM --what-if %s", cmp.Or(o.whatIf, "50"))
	case len(args) == 0 && flags.Changed("report"):
		return usage("--report goes with a team: crossfade readiness TEAM --report %s", cmp.Or(o.report, "TEAM.md"))
	}
	if c.Flags().Changed("what-if") {
		percent, err := rollout.ParsePercent(strings.TrimSuffix(o.whatIf, "%"))
		if err != nil {
			return usage("--what-if: %w", err)
		}
		o.to = &percent
	}
	if c.Flags().Changed("report") {
		return reportName(o.report)
	}
	return nil
}

// withAssessments reads by the admin API where that is asked for, else the
// configured Redis.
func (p *program) withAssessments(c *cobra.Command, use func(context.Context, assessments) error) error {
	api, err := p.admin(c)
	if err != nil {
		return err
	}
	if api != nil {
		return use(c.Context(), api)
	}
	cfg, err := p.partial(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), assessTimeout)
	defer cancel()
	return p.withStoreFor(ctx, c, func(ctx context.Context, s *redisstore.Store) error {
		from, err := p.assessed(ctx, cfg, s)
		if err != nil {
			return err
		}
		return use(ctx, from)
	})
}

// assessed are the assessments of a store.
type assessed struct {
	*redisstore.Store
	assessor *assess.Assessor
	states   map[identity.Team]rollout.State // of all teams
	dir      string
}

// assessed reads how the teams stand. Which static credentials there are is taken
// from the principals where those themselves cannot be read.
func (p *program) assessed(ctx context.Context, cfg *config.Config, s *redisstore.Store) (*assessed, error) {
	snapshot, err := s.Load(ctx)
	if err != nil {
		return nil, err
	}
	keying, err := app.KeyingInForce(ctx, s, app.KeyingOf(cfg))
	if err != nil {
		return nil, err
	}
	keyring, err := app.NewKeyring(cfg)
	switch {
	case err != nil:
		_, _ = fmt.Fprintf(p.stderr, "crossfade: which static credentials there are is taken from the principals: %s\n", err)
		keyring = nil
	case len(keyring.Credentials()) == 0: // the gateways have theirs elsewhere
		keyring = nil
	}
	a := &assessed{Store: s, states: snapshot.Teams, dir: string(cfg.Rollout.Dir)}
	if a.assessor, err = app.NewAssessor(ctx, cfg, a.dir, keyring, keying, s); err != nil {
		return nil, err
	}
	if a.states == nil {
		a.states = make(map[identity.Team]rollout.State)
	}
	for _, name := range teamsOf(cfg) {
		if team := identity.Team(name); a.states[team].Team == "" {
			a.states[team] = rollout.State{Team: team}
		}
	}
	delete(a.states, identity.Unassigned)
	return a, nil
}

func (a *assessed) summaries(ctx context.Context) ([]readiness.Summary, error) {
	all := make([]readiness.Summary, 0, len(a.states))
	var unread []error
	for _, s := range inOrder(a.states) {
		r, err := a.assessor.Report(ctx, s)
		if err != nil {
			if unread = append(unread, err); len(unread) == len(a.states) && a.away(ctx) {
				return nil, unread[0]
			}
			r = readiness.Unread(s, err, time.Now())
		}
		all = append(all, r.Summary())
	}
	return all, nil
}

// away reports whether the store does not answer at all.
func (a *assessed) away(ctx context.Context) bool {
	_, _, err := a.Fleet(ctx)
	return err != nil
}

func (a *assessed) assess(ctx context.Context, team identity.Team, to *rollout.Percent) (got console.Readiness, err error) {
	s, ok := a.states[team]
	if !ok {
		return got, unknownTeam(team, slices.Collect(maps.Keys(a.states)))
	}
	if got.Report, err = a.assessor.Report(ctx, s); err != nil {
		return got, err
	}
	if to == nil {
		next := got.Report.Next()
		to = &next
	}
	got.Outlook = got.Report.Outlook(*to)
	if a.dir != "" {
		got.File = filepath.Join(filepath.Base(a.dir), string(team)+".yaml")
	}
	return got, nil
}

func (a *assessed) history(ctx context.Context, team identity.Team, limit int) ([]rollout.Entry, error) {
	return a.History(ctx, team, limit)
}

func (a *assessed) gateways(ctx context.Context) ([]fleet.Replica, time.Time, error) {
	return a.Fleet(ctx)
}

// unknownTeam says that there is no such team, and which one was probably meant.
func unknownTeam(team identity.Team, all []identity.Team) error {
	names := make([]string, 0, len(all))
	for _, known := range all {
		names = append(names, string(known))
	}
	slices.Sort(names)
	switch near := config.Nearest(string(team), names); {
	case near != "":
		return usage("there is no team %q: did you mean %s?", string(team), near)
	case len(names) == 0:
		return usage("there is no team %q, nor any other: no principals are configured here, and Redis has none", string(team))
	default:
		return usage("there is no team %q: `crossfade readiness` lists all", string(team))
	}
}

// summaries implements assessments over the admin API.
func (a *adminAPI) summaries(ctx context.Context) ([]readiness.Summary, error) {
	var list console.Readinesses
	err := a.call(ctx, http.MethodGet, "readiness", nil, nil, &list)
	return list.Teams, err
}

// assess implements assessments over the admin API.
func (a *adminAPI) assess(ctx context.Context, team identity.Team, to *rollout.Percent) (got console.Readiness, err error) {
	path := "readiness/" + url.PathEscape(string(team))
	if to != nil {
		path += "?percent=" + strconv.Itoa(int(*to))
	}
	err = a.call(ctx, http.MethodGet, path, nil, nil, &got)
	return got, err
}

// showReadiness shows all teams.
func (p *program) showReadiness(ctx context.Context, s assessments, o readinessOptions) error {
	all, err := s.summaries(ctx)
	if err != nil {
		return err
	}
	order := append([]readiness.Answer{readiness.Unknown}, readiness.Answers()...)
	slices.SortStableFunc(all, func(a, b readiness.Summary) int {
		return cmp.Compare(slices.Index(order, a.Answer), slices.Index(order, b.Answer))
	})
	if len(all) == 0 && o.out.format == "table" {
		_, err := fmt.Fprintln(p.stderr, "There is no team yet: principals name them.")
		return err
	}
	t := table{{"TEAM", "OIDC-ONLY", "IN EFFECT", "RAISE?", "WHY", "WHO ACTS"}}
	blocked := false
	for _, r := range all {
		why := r.Why
		if late := r.LateText(); late != "" {
			why += "; " + late
		}
		t = append(t, []string{string(r.Team), percent(int(r.Percent)), r.InEffect.Text(r.At), raise(r), printable(why), whoActs(r)})
		blocked = blocked || r.Answer == readiness.Blocked
	}
	if err := o.out.write(p.stdout, all, t); err != nil {
		return err
	}
	return refusedIf(blocked)
}

// raise says in a word whether a team may go on.
func raise(r readiness.Summary) string {
	word := answerWord(r.Answer)
	switch retire := r.Percent >= rollout.Full; {
	case r.Answer == readiness.Done, r.Answer == readiness.Held, r.Answer == readiness.Unknown:
		return word
	case retire:
		return word + " (retire)"
	case r.Answer == readiness.Ready:
		return fmt.Sprintf("%s, to %s%%", word, r.UpTo)
	default:
		return word
	}
}

func answerWord(a readiness.Answer) string {
	switch a {
	case readiness.Ready:
		return "YES"
	case readiness.Blocked:
		return "NO"
	case readiness.Held:
		return "HELD"
	case readiness.Done:
		return "RETIRED"
	case readiness.Unknown:
		return "NO EVIDENCE"
	default:
		return "WAIT"
	}
}

func whoActs(r readiness.Summary) string {
	if r.Answer == readiness.Ready {
		return "you"
	}
	return cmp.Or(string(r.Owner), "-")
}

// showTeam shows one team.
func (p *program) showTeam(ctx context.Context, s assessments, team identity.Team, o readinessOptions) error {
	if err := rollout.ValidateTeam(team); err != nil {
		return usage("%w", err)
	}
	got, err := s.assess(ctx, team, o.to)
	if err != nil {
		return err
	}
	if o.report != "" {
		if err := p.writeEvidence(ctx, s, got.Report, o.report); err != nil {
			return err
		}
	}
	page := teamPage{Readiness: got, whatIf: o.to != nil}
	switch o.out.format {
	case "table":
		err = page.text(p.stdout)
	case "markdown":
		err = page.markdown(p.stdout)
	default:
		err = o.out.write(p.stdout, got, nil)
	}
	if err != nil {
		return err
	}
	if page.whatIf {
		return refusedIf(!got.Outlook.Allowed)
	}
	return refusedIf(got.Report.Answer == readiness.Blocked)
}

// refusedIf is the exit code of what the checks refuse; all is said by then.
func refusedIf(refused bool) error {
	if !refused {
		return nil
	}
	return &exitError{exitRefused, errors.New("")}
}
