package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
)

func (p *program) rolloutRetire() *cobra.Command {
	var dry bool
	c := newChangeCommand(&cobra.Command{
		Use:   "retire TEAM",
		Short: "End a team's static credentials for good",
		Long: `Retire a team: its static credentials are refused from now on, whatever a run was
told before, and under any other team. This cannot be undone, neither by a file nor
by a command.

It is done when the team has stood at 100% for 14 days and none of its accounts has
used a static credential in that time; else the exit code is 3, and what is in the
way is said.`,
		Example: `  crossfade rollout retire growth --dry-run
  crossfade rollout retire growth --reason "nobody needs a password any more"`,
		Args: cobra.ExactArgs(1),
	})
	c.Flags().BoolVar(&dry, "dry-run", false, "say whether it could be done, and do nothing")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if err := c.out.check(); err != nil {
			return err
		}
		cfg, err := p.partial(c.Command)
		if err != nil {
			return err
		}
		team := identity.Team(args[0])
		credentials, err := credentialsOf(cfg, team)
		if err != nil {
			return err
		}
		var answer rollout.Answer
		err = p.withStore(c.Command, func(ctx context.Context, s *redisstore.Store) error {
			guard, err := evidence.NewGuard(s, nil)
			if err != nil {
				return err
			}
			snapshot, err := s.Load(ctx)
			if err != nil {
				return err
			}
			state := snapshot.Teams[team]
			state.Team = team
			if state.Retired {
				answer = rollout.Answer{UpTo: rollout.Full, Why: "it is retired already"}
				return nil
			}
			answer, err = guard.MayRetire(ctx, state)
			return err
		})
		switch {
		case err != nil:
			return err
		case answer.UpTo < rollout.Full:
			return &exitError{exitRefused, fmt.Errorf("%s is not retired: %s", team, answer.Why)}
		case dry:
			_, err := fmt.Fprintf(p.stdout, "%s may be retired: %s. %s would end with it.\n", team, answer.Why, credentialCount(len(credentials)))
			return err
		}
		return p.change(c, args[0], func(s rollout.State) (rollout.Change, error) {
			if s.Retired {
				return rollout.Change{}, nil
			}
			change := rollout.Set(s, rollout.Setting{Percent: rollout.Full, Actor: actor(), Source: "cli", Reason: c.reason}, time.Now())
			change.Kind, change.Retire, change.Credentials, change.Evidence = rollout.KindRetire, true, credentials, answer.Why
			return change, nil
		}, func(s rollout.State) string {
			is := "are"
			if len(s.Credentials) == 1 {
				is = "is"
			}
			return fmt.Sprintf("%s is retired (revision %d). %s %s refused for good.", s.Team, s.Revision, credentialCount(len(s.Credentials)), is)
		})
	}
	return c.Command
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
lost are not in that file.

The gateways see the store they knew, and accept changes again.`,
		Example: `  crossfade rollout restore --dry-run
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
		cfg, err := p.partial(c)
		if err != nil {
			return err
		}
		known, err := knownSnapshot(cfg, file)
		if err != nil {
			return err
		}
		return p.withStore(c, func(ctx context.Context, s *redisstore.Store) error {
			by := rollout.Setting{Actor: actor(), Source: "cli", Reason: reason}
			has, err := s.Load(ctx)
			if err != nil {
				return err
			}
			t := table{{"TEAM", "HAS", "KNOWN"}}
			lost := []identity.Team{}
			for _, state := range inOrder(known.Teams) {
				if _, _, ok := rollout.Restored(has.Teams[state.Team], state, by, time.Now()); ok {
					lost = append(lost, state.Team)
					t = append(t, []string{string(state.Team), percent(int(has.Teams[state.Team].Percent)), percent(int(state.Percent)) + " " + state.Phase().String()})
				}
			}
			if !dry {
				if lost, err = s.Restore(ctx, *known, by); err != nil {
					return err
				}
			}
			if out.format != "table" {
				return out.write(p.stdout, lost, nil)
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
			_, err = fmt.Fprintf(p.stdout, "%s %s\n", teamCount(len(lost)), done)
			return err
		})
	}
	return c
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
