package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
	"crossfade/rollout/fleet"
	"crossfade/rollout/redisstore"
)

// storeTimeout bounds one command's talk with Redis.
const storeTimeout = 5 * time.Second

func (p *program) rolloutCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rollout",
		Short: "Show and change the percentage of each team",
		Long: `Show and change, in the configured Redis, the share of each team that must
authenticate by OIDC. Without a Redis in the configuration there is nothing to
show: the percentages of an in-process one live and die with their gateway.

With --admin URL the same goes by the admin API of a gateway. Then a token proves
who makes a change, and it is recorded as verified.`,
		Example: `  crossfade rollout plan
  crossfade rollout status
  crossfade rollout set data-eng 25 --reason "week 2"
  crossfade rollout rollback data-eng --reason "workers fail with aud_mismatch"
  crossfade rollout hold data-eng --reason "until Monday's deploy"
  crossfade rollout history data-eng
  crossfade rollout apply --dir rollout.d --admin https://crossfade.internal --token-file token
  crossfade rollout status --admin https://10.0.0.7:8081 --admin-ca ca.pem`,
	}
	c.PersistentFlags().String("redis", "", "the Redis of the gateways, redis://host:port/db, instead of the configured one")
	addAdminFlags(c)
	c.AddCommand(p.rolloutPlan(), p.rolloutApply(), p.rolloutStatus(), p.rolloutSet(), p.rolloutHold(), p.rolloutRelease(), p.rolloutRollback(), p.rolloutRetire(), p.rolloutRestore(), p.rolloutHistory())
	return c
}

// withStore opens the configured Redis for one command, which talks to it for
// storeTimeout at most.
func (p *program) withStore(c *cobra.Command, use func(context.Context, *redisstore.Store) error) error {
	ctx, cancel := context.WithTimeout(c.Context(), storeTimeout)
	defer cancel()
	return p.withStoreFor(ctx, c, use)
}

// withStoreFor is withStore for as long as ctx lasts.
func (p *program) withStoreFor(ctx context.Context, c *cobra.Command, use func(context.Context, *redisstore.Store) error) error {
	if f := c.Flags().Lookup("admin"); f != nil && f.Changed {
		return usage("%s goes straight to Redis only: leave --admin out", c.CommandPath())
	}
	cfg, err := p.reaching(c)
	if err != nil {
		return err
	}
	if cfg.Redis.InProcess() {
		return &exitError{exitStore, errors.New("no Redis is configured, so there are no percentages to be reached from here: " +
			"name one under `redis` in the configuration, by CROSSFADE_REDIS_URL or by --redis")}
	}
	store, err := app.OpenRedis(cfg.Redis)
	if err != nil {
		return err
	}
	err = use(ctx, store)
	return errors.Join(err, store.Close())
}

// rollouts are read from the store or over the admin API.
type rollouts interface {
	// states returns the teams that were ever changed, and for how many of its runs
	// the percentage of each is in effect, where that is known. With an error the teams
	// are nil, or those that can be read.
	states(ctx context.Context) (map[identity.Team]rollout.State, map[identity.Team]effect.Share, error)
	history(ctx context.Context, team identity.Team, limit int) ([]rollout.Entry, error)
	// live says which gateways serve by them; "" where that is not known.
	live(ctx context.Context) (string, error)
}

// stored are the rollouts of a store. While no gateway says how it buckets runs,
// it is done as keying says.
type stored struct {
	*redisstore.Store
	keying rollout.Keying
	// samples are the days that were read already, for a status that is watched.
	samples map[identity.Team]sampled
}

// sampled is a team's last full day, and when it was read.
type sampled struct {
	effect.Sample
	at time.Time
}

// sampleFor is how long a day that was read is shown again.
const sampleFor = time.Minute

func storedIn(s *redisstore.Store, k rollout.Keying) stored {
	return stored{s, k, make(map[identity.Team]sampled)}
}

func (s stored) states(ctx context.Context) (map[identity.Team]rollout.State, map[identity.Team]effect.Share, error) {
	snapshot, missing := s.Load(ctx)
	var partial *rollout.PartialError
	if missing != nil && !errors.As(missing, &partial) {
		return nil, nil, missing
	}
	missing = cmp.Or(missing, regressed(ctx, s.Store))
	keying, err := keyingInForce(ctx, s.Store, s.keying)
	if err != nil { // shares by another rule would be wrong
		return snapshot.Teams, nil, cmp.Or(missing, err)
	}
	shares, now := make(map[identity.Team]effect.Share, len(snapshot.Teams)), time.Now()
	for team, state := range snapshot.Teams {
		known, ok := s.samples[team]
		if !ok || now.Sub(known.at) >= sampleFor {
			sample, err := effect.LastFull(ctx, s, team, now)
			if err != nil {
				missing = cmp.Or(missing, err)
				continue
			}
			known = sampled{sample, now}
			s.samples[team] = known
		}
		if known.Runs() > 0 {
			shares[team] = known.At(state, state.Percent, keying)
		}
	}
	return snapshot.Teams, shares, missing
}

// asideTimeout bounds what a command reads beside what it is about, and can do
// without: in a cluster the node of it may hang.
const asideTimeout = time.Second

// keyingInForce is how the gateways bucket runs; with an error it is as own says.
func keyingInForce(ctx context.Context, s *redisstore.Store, own rollout.Keying) (rollout.Keying, error) {
	ctx, cancel := context.WithTimeout(ctx, asideTimeout)
	defer cancel()
	return app.KeyingInForce(ctx, s, own)
}

// regressed is the error of a store of which a gateway says that it is not what it
// was: what it holds is not what is in force, and what is changed in it is lost when
// it is restored. Nil where nobody says so.
func regressed(ctx context.Context, s *redisstore.Store) error {
	ctx, cancel := context.WithTimeout(ctx, asideTimeout)
	defer cancel()
	all, now, err := s.Fleet(ctx)
	if err != nil || !fleet.Regressed(fleet.Alive(all, now)) {
		return nil // whoever reads the store says what is wrong with it
	}
	return fmt.Errorf("%w: this Redis has lost what the gateways knew, and they go on by that: look at `crossfade rollout restore --dry-run`, or at a gateway by --admin", rollout.ErrRegressed)
}

func (s stored) live(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, asideTimeout)
	defer cancel()
	return gateways(ctx, s.Store)
}

func (s stored) history(ctx context.Context, team identity.Team, limit int) ([]rollout.Entry, error) {
	return s.History(ctx, team, limit)
}

// withRollouts reads by the admin API where that is asked for, else the
// configured Redis.
func (p *program) withRollouts(c *cobra.Command, use func(context.Context, rollouts) error) error {
	api, err := p.admin(c)
	if err != nil {
		return err
	}
	if api != nil {
		return use(c.Context(), api)
	}
	keying, err := p.keying(c)
	if err != nil {
		return err
	}
	return p.withStore(c, func(ctx context.Context, s *redisstore.Store) error { return use(ctx, storedIn(s, keying)) })
}

// keying is what runs are bucketed by, as the configuration of the command says.
func (p *program) keying(c *cobra.Command) (rollout.Keying, error) {
	cfg, err := p.reaching(c)
	if err != nil {
		return rollout.Keying{}, err
	}
	return app.KeyingOf(cfg), nil
}

// teamRow is a team as status shows it.
type teamRow struct {
	Team     identity.Team `json:"team"`
	Percent  int           `json:"percent"`
	Previous int           `json:"previous"`
	Phase    rollout.Phase `json:"phase"`
	Revision int64         `json:"revision"`
	Updated  time.Time     `json:"updated"`
	// InEffect is for how many runs of the last full day the percentage is in
	// effect; absent while no runs are known.
	InEffect *effect.Share `json:"in_effect,omitempty"`
	// Requested is what the team asks for, Hold why that waits; absent without.
	Requested *int     `json:"requested,omitempty"`
	Hold      *holdRow `json:"hold,omitempty"`
	// Brownout is the window that is in force; absent without.
	Brownout *brownoutRow `json:"brownout,omitempty"`
}

// brownoutRow is a window in which more of the team must use OIDC.
type brownoutRow struct {
	Percent int       `json:"percent"`
	Until   time.Time `json:"until"`
}

// holdRow is a hold that is in force.
type holdRow struct {
	Reason string    `json:"reason"`
	Actor  string    `json:"actor"`
	At     time.Time `json:"at"`
	Until  time.Time `json:"until,omitzero"`
}

func rowOf(s rollout.State, now time.Time) teamRow {
	r := teamRow{Team: s.Team, Percent: int(s.Percent), Previous: int(s.Previous), Phase: s.Phase(), Revision: s.Revision, Updated: s.UpdatedAt}
	if s.Request.Made() {
		requested := int(s.Request.Percent)
		r.Requested = &requested
	}
	if h := s.Hold; h.Active(now) {
		r.Hold = &holdRow{h.Reason, h.Actor, h.At, h.Until}
	}
	if b, ok := s.Brownout(now); ok && b.Percent > s.Percent {
		r.Brownout = &brownoutRow{int(b.Percent), b.Until}
	}
	return r
}

// asked, inEffect, held and oidcOnly are the cells of a table.
func (r teamRow) asked() string {
	if r.Requested == nil {
		return "-"
	}
	return percent(*r.Requested)
}

func (r teamRow) inEffect(now time.Time) string {
	if r.InEffect == nil {
		return "-"
	}
	return r.InEffect.Text(now)
}

func (r teamRow) held(now time.Time) string {
	switch {
	case r.Hold == nil:
		return "-"
	case r.Hold.Until.IsZero():
		return r.Hold.Reason
	default:
		return fmt.Sprintf("%s (%s left)", r.Hold.Reason, left(r.Hold.Until.Sub(now)))
	}
}

func (r teamRow) oidcOnly(now time.Time) string {
	if r.Brownout == nil {
		return percent(r.Percent)
	}
	return fmt.Sprintf("%s (brownout: %s, %s left)", percent(r.Percent), percent(r.Brownout.Percent), left(r.Brownout.Until.Sub(now)))
}

// left says how long something goes on.
func left(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%d s", max(int(math.Ceil(d.Seconds())), 0))
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}

// inOrder sorts teams by their id.
func inOrder(teams map[identity.Team]rollout.State) []rollout.State {
	return slices.SortedFunc(maps.Values(teams), func(a, b rollout.State) int { return strings.Compare(string(a.Team), string(b.Team)) })
}

func (p *program) rolloutStatus() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use:   "status [TEAM...]",
		Short: "Show the live percentage of each team",
		Long: `Show what each team stands at, for how many of its runs that is in effect, what it
asks for and what holds it. -w shows it again every two seconds until Ctrl-C; while
it cannot be read, what was read last stays shown with its age.

IN EFFECT are the runs of yesterday that the percentage selects, as it stands now:
25% of a team with few pipelines may be a third of its runs, or none.

While a node of a Redis Cluster is away, the teams on the other nodes are shown, and
the exit code is 5.`,
		Example: "  crossfade rollout status\n  crossfade rollout status -w\n  crossfade rollout status data-eng -o json",
	}
	out := outputFlag(c, "table", "json", "yaml", "markdown")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every two seconds until Ctrl-C")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		if watch && out.format != "table" {
			return usage("-w shows a table: leave -o %s out, or ask again yourself", out.format)
		}
		if !watch {
			return p.withRollouts(c, func(ctx context.Context, s rollouts) error {
				view, err := readStatus(ctx, s, args, out.format == "table")
				if err != nil {
					return err
				}
				if err := p.show(view, out, ""); err != nil {
					return err
				}
				return view.missing
			})
		}
		api, err := p.admin(c)
		switch {
		case err != nil && c.Context().Err() == nil:
			return err
		case err != nil:
			return nil //nolint:nilerr // interrupted before it began, which is how it is meant to end
		case api != nil:
			return p.watchStatus(c.Context(), api, out, args)
		}
		keying, err := p.keying(c)
		if err != nil {
			return err
		}
		return p.withStoreFor(c.Context(), c, func(ctx context.Context, s *redisstore.Store) error {
			return p.watchStatus(ctx, storedIn(s, keying), out, args)
		})
	}
	return c
}

// watchEvery is how often a status that is watched is shown.
const watchEvery = 2 * time.Second

// watchStatus shows the status until ctx ends, which is how it is meant to end. A
// store, or an admin API, that is away for a moment does not end it, and once
// something was read neither does anything else, such as a token that has ended:
// what was read last stays, with its age and why there is nothing newer.
func (p *program) watchStatus(ctx context.Context, s rollouts, out *output, teams []string) error {
	wipe := ""
	if f, ok := p.stdout.(*os.File); ok {
		if terminal, _ := demo.TerminalOf(f, p.getenv); terminal {
			wipe = "\x1b[H\x1b[2J"
		}
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var last *statusView
	for {
		within, cancel := context.WithTimeout(ctx, storeTimeout)
		view, err := readStatus(within, s, teams, true)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			last = view
			if err := p.show(view, out, wipe); err != nil {
				return err
			}
			if view.missing != nil {
				_, _ = fmt.Fprintf(p.stderr, "%s: %s\n", view.at.Format(time.TimeOnly), view.missing)
			}
		case last == nil && !errors.Is(err, rollout.ErrUnavailable):
			return err // it will not do
		default:
			if last != nil && wipe != "" {
				if err := p.show(last, out, wipe); err != nil {
					return err
				}
			}
			_, _ = fmt.Fprintln(p.stderr, last.outdated(err, time.Now()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// statusView is what was read of the teams, and when.
type statusView struct {
	at   time.Time
	live string // which gateways serve, "" where that is not known
	rows []teamRow
	// missing says what of it cannot be read; nil if all is there.
	missing error
}

// readStatus reads the teams that are named, all when none is, and which gateways
// serve if that is to be shown. Where some of it cannot be read the view says so.
func readStatus(ctx context.Context, s rollouts, teams []string, live bool) (*statusView, error) {
	states, shares, err := s.states(ctx)
	if states == nil && err != nil {
		return nil, err
	}
	view := &statusView{at: time.Now(), rows: []teamRow{}}
	if len(teams) == 0 {
		view.missing = err
	}
	for _, name := range teams {
		view.missing = cmp.Or(view.missing, rollout.OfTeam(err, identity.Team(name)))
	}
	for _, state := range inOrder(states) {
		if len(teams) == 0 || slices.Contains(teams, string(state.Team)) {
			row := rowOf(state, view.at)
			if share, ok := shares[state.Team]; ok {
				row.InEffect = &share
			}
			view.rows = append(view.rows, row)
		}
	}
	for _, name := range teams {
		there := slices.ContainsFunc(view.rows, func(r teamRow) bool { return string(r.Team) == name })
		if !there && rollout.OfTeam(err, identity.Team(name)) == nil {
			return nil, fmt.Errorf("team %q has no percentage yet: `crossfade rollout set %s PERCENT` gives it one", name, name)
		}
	}
	if live {
		var err error
		if view.live, err = s.live(ctx); err != nil {
			view.live, view.missing = "not known", cmp.Or(view.missing, err)
		}
	}
	return view, nil
}

// outdated says how old a view is and why there is none newer; nil was never read.
func (v *statusView) outdated(err error, now time.Time) string {
	shown := "nothing is shown yet"
	if v != nil {
		shown = "what is shown is of " + ago(now.Sub(v.at))
	}
	return fmt.Sprintf("%s: %s: %s", now.Format(time.TimeOnly), shown, err)
}

// show shows a view; before stands in front of the table.
func (p *program) show(v *statusView, out *output, before string) error {
	if out.format == "table" {
		_, _ = io.WriteString(p.stdout, before)
		if v.live != "" {
			_, _ = fmt.Fprintf(p.stderr, "live: %s\n", v.live)
		}
		if len(v.rows) == 0 {
			said := "No team has a percentage yet: every team is at 0%."
			if v.missing != nil {
				said = "No team that can be read has a percentage yet."
			}
			_, err := fmt.Fprintln(p.stderr, said)
			return err
		}
	}
	now := time.Now()
	t := table{{"TEAM", "OIDC-ONLY", "IN EFFECT", "ASKED", "BEFORE", "PHASE", "REVISION", "CHANGED", "HELD"}}
	for _, r := range v.rows {
		t = append(t, []string{
			string(r.Team), r.oidcOnly(now), r.inEffect(now), r.asked(), percent(r.Previous), r.Phase.String(),
			strconv.FormatInt(r.Revision, 10), ago(now.Sub(r.Updated)), r.held(now),
		})
	}
	return out.write(p.stdout, v.rows, t)
}

// gateways says in a few words which gateways serve by the store.
func gateways(ctx context.Context, s *redisstore.Store) (string, error) {
	all, now, err := s.Fleet(ctx)
	if err != nil {
		return "", err
	}
	return liveWords(all, now), nil
}

// liveWords says in a few words which gateways are alive.
func liveWords(all []fleet.Replica, now time.Time) string {
	switch alive := fleet.Alive(all, now); {
	case len(alive) == 0:
		return "no gateway serves by this Redis"
	case len(alive) == 1 && alive[0].Regressed:
		return "1 gateway, which goes on by what it knew: this Redis has lost some of it"
	case len(alive) == 1:
		return "1 gateway, seen " + ago(now.Sub(alive[0].Seen))
	case fleet.Regressed(alive):
		return fmt.Sprintf("%d gateways, which go on by what they knew: this Redis has lost some of it", len(alive))
	case fleet.Agree(alive):
		return fmt.Sprintf("%d gateways agree", len(alive))
	default:
		return fmt.Sprintf("%d gateways, which serve by different configurations", len(alive))
	}
}

// historyRow is one change as history shows it.
type historyRow struct {
	Revision int64        `json:"revision"`
	Kind     rollout.Kind `json:"kind"`
	At       time.Time    `json:"at"`
	From     int          `json:"from"`
	To       int          `json:"to"`
	Actor    string       `json:"actor"`
	Verified bool         `json:"verified"`
	Source   string       `json:"source"`
	Reason   string       `json:"reason"`
	Evidence string       `json:"evidence,omitempty"`
}

// why is the cell of a table: the reason, and of a raise what allowed it.
func (r historyRow) why() string {
	switch {
	case r.Evidence == "" || r.To <= r.From && r.Kind != rollout.KindRetire:
		return r.Reason
	case r.Reason == "":
		return r.Evidence
	default:
		return r.Reason + "; " + r.Evidence
	}
}

// change is the cell of a table: what was done, in the fewest words.
func (r historyRow) change() string {
	moved := percent(r.From) + " -> " + percent(r.To)
	switch {
	case r.Kind == rollout.KindSet || r.Kind == rollout.KindApply:
		return moved
	case r.From == r.To:
		return string(r.Kind)
	default:
		return moved + " (" + string(r.Kind) + ")"
	}
}

func (p *program) rolloutHistory() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use:     "history TEAM",
		Short:   "Show who changed a team's percentage, when and why",
		Example: "  crossfade rollout history data-eng --limit 5\n  crossfade rollout history data-eng -o json",
		Args:    cobra.ExactArgs(1),
	}
	out := outputFlag(c, "table", "json", "yaml", "markdown")
	c.Flags().IntVar(&limit, "limit", 50, "how many changes, the latest first")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		if limit < 1 {
			return usage("--limit %d: must be 1 or more", limit)
		}
		team := identity.Team(args[0])
		if err := rollout.ValidateTeam(team); err != nil {
			return usage("%w", err)
		}
		return p.withRollouts(c, func(ctx context.Context, s rollouts) error {
			entries, err := s.history(ctx, team, limit)
			if err != nil {
				return err
			}
			if len(entries) == 0 && out.format == "table" {
				_, err := fmt.Fprintf(p.stderr, "%s was never changed.\n", team)
				return err
			}
			rows := make([]historyRow, 0, len(entries))
			t := table{{"WHEN", "CHANGE", "WHO", "BY", "REVISION", "WHY"}}
			for _, e := range entries {
				row := historyRow{
					e.Revision, e.Kind, e.At, int(e.From), int(e.To), e.Actor, e.Verified, e.Source, e.Reason, e.Evidence,
				}
				rows = append(rows, row)
				who := e.Actor
				if !e.Verified {
					who += " (unverified)"
				}
				t = append(t, []string{
					e.At.Local().Format("2 Jan 15:04:05"), row.change(),
					who, e.Source, strconv.FormatInt(e.Revision, 10), row.why(),
				})
			}
			return out.write(p.stdout, rows, t)
		})
	}
	return c
}

func percent(n int) string { return strconv.Itoa(n) + "%" }

// ago says a duration as people do.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", max(int(d.Seconds()), 0))
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
}

// actor is who runs the command, as far as the machine says: recorded, and
// marked as unverified.
func actor() string {
	u, err := user.Current()
	if err != nil {
		return "unknown"
	}
	return u.Username
}
