package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/redisstore"
)

func (p *program) rolloutRetire() *cobra.Command {
	var (
		dry    bool
		report string
	)
	c := newChangeCommand(&cobra.Command{
		Use:   "retire TEAM",
		Short: "End a team's static credentials for good",
		Long: `Retire a team: its static credentials are refused from now on, whatever a run was
told before, and under any other team. This cannot be undone, neither by a file nor
by a command.

It is done when the team has stood at 100% for 14 days, none of its accounts has
used a static credential in that time and nobody holds it; else the exit code is 3,
and all that is in the way is said. Over the admin API it is for operators.

--report FILE.md or FILE.json writes down before that on what evidence it is done, as
` + "`crossfade readiness TEAM --report`" + ` does; where that cannot be written nothing is
retired.`,
		Example: `  crossfade rollout retire growth --dry-run
  crossfade rollout retire growth --report growth.md --reason "nobody needs a password any more"
  crossfade rollout retire growth --dry-run --admin https://crossfade.internal:8081`,
		Args: cobra.ExactArgs(1),
	})
	c.Flags().BoolVar(&dry, "dry-run", false, "say whether it could be done, and do nothing")
	c.Flags().StringVar(&report, "report", "", "first write the evidence to a new file, .md or .json")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if err := c.out.check(); err != nil {
			return err
		}
		team := identity.Team(args[0])
		if err := rollout.ValidateTeam(team); err != nil {
			return usage("%w", err)
		}
		if c.Flags().Changed("report") {
			if err := reportName(report); err != nil {
				return err
			}
			err := p.withAssessments(c.Command, func(ctx context.Context, s assessments) error {
				got, err := s.assess(ctx, team, nil)
				if err != nil {
					return err
				}
				return p.writeEvidence(ctx, s, got.Report, report)
			})
			if err != nil {
				return err
			}
		}
		api, err := p.admin(c.Command)
		switch {
		case err != nil:
			return err
		case api != nil && dry:
			r, err := api.retirement(c.Context(), team)
			if err == nil && !r.May {
				err = &rollout.RetireError{Team: team, Obstacles: r.Obstacles}
			}
			return p.mayRetire(team, r.Retired, r.Why, r.Credentials, err)
		case api != nil:
			s, ended, err := api.retire(c.Context(), team, c.reason)
			return p.retired(c, s, ended, err)
		}
		cfg, err := p.partial(c.Command)
		if err != nil {
			return err
		}
		credentials, err := credentialsOf(cfg, team)
		if err != nil {
			return err
		}
		return p.withStore(c.Command, func(ctx context.Context, store *redisstore.Store) error {
			if err := regressed(ctx, store); err != nil {
				return err
			}
			keyring, err := app.NewKeyring(cfg)
			if err != nil {
				return err
			}
			keying, err := app.KeyingInForce(ctx, store, app.KeyingOf(cfg))
			if err != nil {
				return err
			}
			guard, err := app.NewAssessor(ctx, cfg, string(cfg.Rollout.Dir), keyring, keying, store)
			if err != nil {
				return err
			}
			var why string
			s, err := rollout.Update(ctx, store, team, func(s rollout.State) (rollout.Change, error) {
				now := time.Now()
				if why, err = rollout.AskRetire(ctx, guard, s, now); err != nil || s.Retired || dry {
					return rollout.Change{}, err
				}
				return rollout.Retiring(s, c.by(), credentials, why, now), nil
			})
			if dry {
				return p.mayRetire(team, s.Retired, why, len(credentials), err)
			}
			return p.retired(c, s, len(s.Credentials), err)
		})
	}
	return c.Command
}

// mayRetire says what came of a dry run.
func (p *program) mayRetire(team identity.Team, retired bool, why string, credentials int, err error) error {
	switch {
	case err != nil:
		return blocked(err)
	case retired:
		_, err = fmt.Fprintf(p.stdout, "%s is retired already.\n", team)
	default:
		_, err = fmt.Fprintf(p.stdout, "%s may be retired: %s. %s would end with it.\n", team, why, credentialCount(credentials))
	}
	return err
}

// retired says what came of a retirement, by which so many credentials ended.
func (p *program) retired(c *changeCommand, s rollout.State, ended int, err error) error {
	if err != nil {
		return blocked(err)
	}
	is := "are"
	if ended == 1 {
		is = "is"
	}
	return c.out.write(p.stdout, rowOf(s, time.Now()), table{{
		fmt.Sprintf("%s is retired (revision %d). %s %s refused for good.", s.Team, s.Revision, credentialCount(ended), is),
	}})
}

// blocked gives what stands in the way of a retirement its exit code.
func blocked(err error) error {
	var in *rollout.RetireError
	if errors.As(err, &in) {
		return &exitError{exitRefused, err}
	}
	return err
}

func teamCount(n int) string {
	if n == 1 {
		return "1 team"
	}
	return fmt.Sprintf("%d teams", n)
}

func credentialCount(n int) string {
	if n == 1 {
		return "1 static credential"
	}
	return fmt.Sprintf("%d static credentials", n)
}

func (p *program) rolloutRestore() *cobra.Command {
	var (
		file   string
		reason string
		dry    bool
	)
	c := &cobra.Command{
		Use:   "restore",
		Short: "Put back what a Redis has lost",
		Long: `Put back the percentages, requests, holds and retirements that a gateway knew before
its Redis was emptied, replaced or restored to an older state (store_regressed): from
the file rollout.json that the gateway keeps in its state_dir. Teams that the Redis
knows at a later revision stay as they are. Latches, history and evidence that were
lost are not in that file. With --admin URL the gateway there puts back what it knows
itself, which is for operators; a file goes straight to Redis only.

The gateways see the store they knew, and accept changes again.`,
		Example: `  crossfade rollout restore --dry-run
  crossfade rollout restore --dry-run --admin https://crossfade.internal:8081
  crossfade rollout restore --file /var/lib/crossfade/rollout.json --reason "redis-0 lost its disk"`,
		Args: cobra.NoArgs,
	}
	out := outputFlag(c, "table", "json", "yaml")
	c.Flags().StringVar(&file, "file", "", "what a gateway knew; default: rollout.json in the configured state_dir")
	c.Flags().StringVar(&reason, "reason", "", "why, for the history")
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would be put back, and do nothing")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		api, err := p.admin(c)
		switch {
		case err != nil:
			return err
		case api != nil && file != "":
			return usage("--file goes straight to Redis: over the admin API a gateway puts back what it knows itself")
		case api != nil:
			lost, err := api.restore(c.Context(), reason, dry)
			if err != nil {
				return err
			}
			return p.restored(out, lost, dry)
		}
		cfg, err := p.partial(c)
		if err != nil {
			return err
		}
		known, err := knownSnapshot(cfg, file)
		if err != nil {
			return err
		}
		return p.withStore(c, func(ctx context.Context, s *redisstore.Store) error {
			has, err := s.Load(ctx)
			if err != nil {
				return err
			}
			if !dry {
				if _, err := s.Restore(ctx, *known, rollout.Setting{Actor: actor(), Source: "cli", Reason: reason}); err != nil {
					return err
				}
			}
			return p.restored(out, rollout.Losses(has, *known), dry)
		})
	}
	return c
}

// restoredRow is a team that was put back, or would be.
type restoredRow struct {
	Team identity.Team `json:"team"`
	// Had and HadRevision are what the store had before.
	Had         int   `json:"had"`
	HadRevision int64 `json:"had_revision"`
	// Percent and Phase are what it has then, Revision at which.
	Percent  int           `json:"percent"`
	Phase    rollout.Phase `json:"phase"`
	Revision int64         `json:"revision"`
}

// restored says what was put back, or would be.
func (p *program) restored(out *output, lost []rollout.Loss, dry bool) error {
	t := table{{"TEAM", "HAS", "KNOWN"}}
	teams := make([]restoredRow, 0, len(lost))
	for _, l := range lost {
		next, _, _ := rollout.Restored(l.Has, l.Known, rollout.Setting{}, time.Time{})
		teams = append(teams, restoredRow{
			Team: l.Team, Had: int(l.Has.Percent), HadRevision: l.Has.Revision, Percent: int(next.Percent), Phase: next.Phase(), Revision: next.Revision,
		})
		t = append(t, []string{string(l.Team), percent(int(l.Has.Percent)), percent(int(l.Known.Percent)) + " " + l.Known.Phase().String()})
	}
	if out.format != "table" {
		return out.write(p.stdout, teams, nil)
	}
	if len(lost) > 0 {
		if err := out.write(p.stdout, nil, t); err != nil {
			return err
		}
	}
	done := "put back. The gateways follow within seconds."
	if dry {
		done = "would be put back. Nothing was changed."
	}
	_, err := fmt.Fprintf(p.stdout, "%s %s\n", teamCount(len(lost)), done)
	return err
}

// knownSnapshot reads what a gateway knew.
func knownSnapshot(cfg *config.Config, file string) (*rollout.Snapshot, error) {
	if file == "" {
		if cfg.StateDir == "" {
			return nil, usage("restore: name the file by --file, or state_dir in the configuration")
		}
		file = app.SnapshotFile(cfg)
	}
	known, err := app.LoadSnapshot(file)
	if err != nil {
		return nil, usage("%w", err)
	}
	if known == nil {
		return nil, usage("restore: %s does not exist: it is kept by gateways with a state_dir", file)
	}
	return known, nil
}
