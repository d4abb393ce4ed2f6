package main

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/rollout"
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
show: the percentages of an in-process one live and die with their gateway.`,
		Example: `  crossfade rollout status
  crossfade rollout set data-eng 25 --reason "week 2"
  crossfade rollout history data-eng`,
	}
	c.PersistentFlags().String("redis", "", "the Redis of the gateways, redis://host:port/db, instead of the configured one")
	c.AddCommand(p.rolloutStatus(), p.rolloutSet(), p.rolloutHistory())
	return c
}

// withStore opens the configured Redis for one command.
func (p *program) withStore(c *cobra.Command, use func(context.Context, *redisstore.Store) error) error {
	flags := make(map[string]any)
	if f := c.Flags().Lookup("redis"); f.Changed {
		flags["redis.url"] = f.Value.String()
	}
	source := p.source(flags)
	source.Partial = true
	cfg, err := config.Load(source)
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
	ctx, cancel := context.WithTimeout(c.Context(), storeTimeout)
	defer cancel()
	err = use(ctx, store)
	return errors.Join(err, store.Close())
}

// teamRow is a team as status shows it.
type teamRow struct {
	Team     identity.Team `json:"team"`
	Percent  int           `json:"percent"`
	Previous int           `json:"previous"`
	Phase    rollout.Phase `json:"phase"`
	Revision int64         `json:"revision"`
	Updated  time.Time     `json:"updated"`
}

func rowOf(s rollout.State) teamRow {
	return teamRow{s.Team, int(s.Percent), int(s.Previous), s.Phase(), s.Revision, s.UpdatedAt}
}

func (p *program) rolloutStatus() *cobra.Command {
	c := &cobra.Command{
		Use:     "status [TEAM...]",
		Short:   "Show the live percentage of each team",
		Example: "  crossfade rollout status\n  crossfade rollout status data-eng -o json",
	}
	out := outputFlag(c, "table", "json", "yaml", "markdown")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		return p.withStore(c, func(ctx context.Context, s *redisstore.Store) error {
			snapshot, err := s.Load(ctx)
			if err != nil {
				return err
			}
			rows := []teamRow{}
			for _, state := range snapshot.Teams {
				if len(args) == 0 || slices.Contains(args, string(state.Team)) {
					rows = append(rows, rowOf(state))
				}
			}
			slices.SortFunc(rows, func(a, b teamRow) int { return strings.Compare(string(a.Team), string(b.Team)) })
			for _, name := range args {
				if !slices.ContainsFunc(rows, func(r teamRow) bool { return string(r.Team) == name }) {
					return fmt.Errorf("team %q has no percentage yet: `crossfade rollout set %s PERCENT` gives it one", name, name)
				}
			}
			if len(rows) == 0 && out.format == "table" {
				_, err := fmt.Fprintln(p.stderr, "No team has a percentage yet: every team is at 0%.")
				return err
			}
			t := table{{"TEAM", "OIDC-ONLY", "BEFORE", "PHASE", "REVISION", "CHANGED"}}
			for _, r := range rows {
				t = append(t, []string{
					string(r.Team), percent(r.Percent), percent(r.Previous), r.Phase.String(),
					strconv.FormatInt(r.Revision, 10), ago(time.Since(r.Updated)),
				})
			}
			return out.write(p.stdout, rows, t)
		})
	}
	return c
}

func (p *program) rolloutSet() *cobra.Command {
	var reason string
	var expect int64
	c := &cobra.Command{
		Use:   "set TEAM PERCENT",
		Short: "Set a team's percentage at once",
		Long: `Set a team's percentage at once. Nothing checks yet whether the team is ready:
look at its would_break and no_token verdicts first. The change is recorded with
the user who runs the command, as an unverified name.`,
		Example: `  crossfade rollout set data-eng 25 --reason "week 2"
  crossfade rollout set data-eng 0 --reason "workers fail with aud_mismatch"
  crossfade rollout set data-eng 50 --expect 7    # only if nobody changed it since revision 7`,
		Args: cobra.ExactArgs(2),
	}
	out := outputFlag(c, "table", "json", "yaml")
	c.Flags().StringVar(&reason, "reason", "", "why, for the history")
	c.Flags().Int64Var(&expect, "expect", rollout.AnyRevision, "the revision that the change was decided upon; -1 is any")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		to, err := rollout.ParsePercent(args[1])
		if err != nil {
			return usage("%w", err)
		}
		change := rollout.Change{
			Team: identity.Team(args[0]), Percent: to, Expect: expect,
			Actor: actor(), Source: "cli", Reason: reason,
		}
		if err := change.Validate(); err != nil {
			return usage("%w", err)
		}
		return p.withStore(c, func(ctx context.Context, s *redisstore.Store) error {
			state, err := s.Write(ctx, change)
			if errors.Is(err, rollout.ErrRetired) {
				return &exitError{exitRefused, err}
			}
			if err != nil {
				return err
			}
			r := rowOf(state)
			return out.write(p.stdout, r, table{{
				fmt.Sprintf("%s is at %s (revision %d). Gateways follow within seconds.", r.Team, percent(r.Percent), r.Revision),
			}})
		})
	}
	return c
}

// historyRow is one change as history shows it.
type historyRow struct {
	Revision int64     `json:"revision"`
	At       time.Time `json:"at"`
	From     int       `json:"from"`
	To       int       `json:"to"`
	Actor    string    `json:"actor"`
	Verified bool      `json:"verified"`
	Source   string    `json:"source"`
	Reason   string    `json:"reason"`
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
		return p.withStore(c, func(ctx context.Context, s *redisstore.Store) error {
			entries, err := s.History(ctx, team, limit)
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
				rows = append(rows, historyRow{
					e.Revision, e.At, int(e.From), int(e.To), e.Actor, e.Verified, e.Source, e.Reason,
				})
				who := e.Actor
				if !e.Verified {
					who += " (unverified)"
				}
				t = append(t, []string{
					e.At.Local().Format("2 Jan 15:04:05"), percent(int(e.From)) + " -> " + percent(int(e.To)),
					who, e.Source, strconv.FormatInt(e.Revision, 10), e.Reason,
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
