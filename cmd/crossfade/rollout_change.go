package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/redisstore"
)

// Bounds of a hold that breaks the glass.
const (
	defaultGlass = 4 * time.Hour
	maxGlass     = 72 * time.Hour
)

// changeCommand is what the commands that change a team have in common: who does
// it and why, and what is said afterwards.
type changeCommand struct {
	*cobra.Command
	out    *output
	reason string
	// remote makes the change over the admin API.
	remote func(context.Context, *adminAPI, identity.Team) (rollout.State, error)
}

func newChangeCommand(c *cobra.Command) *changeCommand {
	cc := &changeCommand{Command: c, out: outputFlag(c, "table", "json", "yaml")}
	c.Flags().StringVar(&cc.reason, "reason", "", "why, for the history")
	return cc
}

// by is who runs the command, as far as the machine says.
func (c *changeCommand) by() rollout.Setting {
	return rollout.Setting{Actor: actor(), Source: "cli", Reason: c.reason}
}

// run makes one change of a team and says what it is at then.
func (p *program) change(c *changeCommand, name string, change func(rollout.State) (rollout.Change, error), say func(rollout.State) string) error {
	if err := c.out.check(); err != nil {
		return err
	}
	team := identity.Team(name)
	if err := rollout.ValidateTeam(team); err != nil {
		return usage("%w", err)
	}
	api, err := p.admin(c.Command)
	if err != nil {
		return err
	}
	if api != nil {
		state, err := c.remote(c.Context(), api, team)
		if err != nil {
			return err
		}
		return c.out.write(p.stdout, rowOf(state, time.Now()), table{{say(state)}})
	}
	cfg, err := p.reaching(c.Command)
	if err != nil {
		return err
	}
	return p.withStore(c.Command, func(ctx context.Context, s *redisstore.Store) error {
		if err := regressed(ctx, s); err != nil {
			return fmt.Errorf("%w; nothing was changed", err)
		}
		state, err := rollout.Update(ctx, s, team, func(s rollout.State) (rollout.Change, error) {
			if err := knownTeam(cfg, s); err != nil {
				return rollout.Change{}, err
			}
			return change(s)
		})
		if errors.Is(err, rollout.ErrRetired) || errors.Is(err, rollout.ErrNothingToRollBack) {
			return &exitError{exitRefused, err}
		}
		if err != nil {
			return err
		}
		return c.out.write(p.stdout, rowOf(state, time.Now()), table{{say(state)}})
	})
}

// knownTeam refuses a team that was never changed and that the configuration does not
// know: whoever mistypes one in an emergency would take another one for changed.
// Without principals every team may be.
func knownTeam(cfg *config.Config, s rollout.State) error {
	teams := teamsOf(cfg)
	if s.Revision > 0 || teams == nil || slices.Contains(teams, string(s.Team)) {
		return nil
	}
	meant := ""
	if near := config.Nearest(string(s.Team), teams); near != "" {
		meant = fmt.Sprintf(" (did you mean %q?)", near)
	}
	return usage("no principal is of a team %q%s: nothing was changed", string(s.Team), meant)
}

func (p *program) rolloutSet() *cobra.Command {
	var (
		expect int64
		glass  bool
		lasts  time.Duration
	)
	c := newChangeCommand(&cobra.Command{
		Use:   "set TEAM PERCENT",
		Short: "Set a team's percentage at once",
		Long: `Set a team's percentage at once, past the checks that what it asks for has to pass:
` + "`crossfade rollout plan`" + ` says whether they hold. Below what the team's file asks for it comes with a hold, or the file would raise the team again. The change
is recorded with the user who runs the command, as an unverified name.

--break-glass is for an identity provider that is away: its hold ends by itself,
and what the team asks for, if anything, is followed then once its checks hold. A
retired team cannot be set.`,
		Example: `  crossfade rollout set data-eng 25 --reason "week 2"
  crossfade rollout set data-eng 0 --reason "workers fail with aud_mismatch"
  crossfade rollout set data-eng 0 --break-glass --for 2h --reason "the provider is away"
  crossfade rollout set data-eng 50 --expect 7    # only if nobody changed it since revision 7`,
		Args: cobra.ExactArgs(2),
	})
	c.Flags().Int64Var(&expect, "expect", rollout.AnyRevision, "the revision that the change was decided upon; -1 is any")
	c.Flags().BoolVar(&glass, "break-glass", false, "with a hold that ends by itself; needs --reason")
	c.Flags().DurationVar(&lasts, "for", defaultGlass, "how long --break-glass holds")
	c.RunE = func(_ *cobra.Command, args []string) error {
		to := c.by()
		var err error
		if to.Percent, err = rollout.ParsePercent(args[1]); err != nil {
			return usage("%w", err)
		}
		switch {
		case expect < rollout.AnyRevision:
			return usage("--expect %d: must be 0 or above, or -1 for any", expect)
		case c.Flags().Changed("for") && !glass:
			return usage("--for is for --break-glass only")
		case glass && c.reason == "":
			return usage("--break-glass needs --reason: whoever is paged must know why")
		case glass && (lasts <= 0 || lasts > maxGlass):
			return usage("--for %s: must be above 0 and at most %s", lasts, maxGlass)
		}
		now := time.Now()
		if glass {
			to.Until = now.Add(lasts)
		}
		c.remote = func(ctx context.Context, a *adminAPI, team identity.Team) (rollout.State, error) {
			body, seen := setting{Percent: int(to.Percent), Reason: c.reason}, "*"
			if glass {
				body.Glass = lasts.String()
			}
			if expect != rollout.AnyRevision {
				seen = strconv.Quote(strconv.FormatInt(expect, 10))
			}
			return a.team(ctx, http.MethodPut, team, "/rollout", body, http.Header{"If-Match": {seen}})
		}
		return p.change(c, args[0], func(s rollout.State) (rollout.Change, error) {
			if expect != rollout.AnyRevision && expect != s.Revision {
				return rollout.Change{}, &rollout.ConflictError{Expected: expect, Current: s}
			}
			if err := to.Check(s); err != nil {
				return rollout.Change{}, usage("%w", err)
			}
			change := rollout.Set(s, to, now)
			if err := change.Validate(); err != nil {
				return rollout.Change{}, usage("%w", err)
			}
			return change, nil
		}, func(s rollout.State) string {
			said := fmt.Sprintf("%s is at %s (revision %d). Gateways follow within seconds.", s.Team, percent(int(s.Percent)), s.Revision)
			switch {
			case glass && s.Hold.Until.IsZero():
				said += fmt.Sprintf("\nIt was held before, without an end, and so it stays: crossfade rollout release %s", s.Team)
			case glass && !s.Request.Made():
				said += fmt.Sprintf("\nHeld until %s. It asks for nothing, so it stays at %s then: set it again when all is well.",
					s.Hold.Until.Local().Format("2 Jan 15:04"), percent(int(s.Percent)))
			case glass && s.Request.Percent <= s.Percent:
				said += fmt.Sprintf("\nHeld until %s.", s.Hold.Until.Local().Format("2 Jan 15:04"))
			case glass:
				said += fmt.Sprintf("\nHeld until %s. It asks for %s, which its checks decide then.", s.Hold.Until.Local().Format("2 Jan 15:04"), percent(int(s.Request.Percent)))
			case s.Hold.Active(now) && s.Request.Percent > s.Percent:
				said += fmt.Sprintf("\nHeld, since it asks for %s: crossfade rollout release %s", percent(int(s.Request.Percent)), s.Team)
			}
			return said
		})
	}
	return c.Command
}

func (p *program) rolloutHold() *cobra.Command {
	c := newChangeCommand(&cobra.Command{
		Use:   "hold TEAM",
		Short: "Keep a team's requests waiting",
		Long: `Place a hold: what the team's file asks for waits until the hold is released, or
until the file asks for another percentage and its checks hold on evidence that is
younger than the hold. The percentage stays. Lowering is always possible.`,
		Example: `  crossfade rollout hold data-eng --reason "until Monday's deploy"`,
		Args:    cobra.ExactArgs(1),
	})
	c.remote = func(ctx context.Context, a *adminAPI, team identity.Team) (rollout.State, error) {
		return a.team(ctx, http.MethodPost, team, "/hold", reasoned{c.reason}, nil)
	}
	c.RunE = func(_ *cobra.Command, args []string) error {
		return p.change(c, args[0], func(s rollout.State) (rollout.Change, error) {
			return rollout.Brake(s, c.by(), time.Now()), nil
		}, func(s rollout.State) string {
			return fmt.Sprintf("%s is held at %s. To lift it: crossfade rollout release %s", s.Team, percent(int(s.Percent)), s.Team)
		})
	}
	return c.Command
}

func (p *program) rolloutRelease() *cobra.Command {
	c := newChangeCommand(&cobra.Command{
		Use:     "release TEAM",
		Short:   "Lift a team's hold",
		Example: `  crossfade rollout release data-eng --reason "fixed in PR 812"`,
		Args:    cobra.ExactArgs(1),
	})
	c.RunE = func(_ *cobra.Command, args []string) error {
		now, held := time.Now(), false
		c.remote = func(ctx context.Context, a *adminAPI, team identity.Team) (rollout.State, error) {
			state, err := a.team(ctx, http.MethodGet, team, "", nil, nil)
			if held = state.Hold.Active(now); err != nil || !held {
				return state, err
			}
			return a.team(ctx, http.MethodDelete, team, "/hold?reason="+url.QueryEscape(c.reason), nil, nil)
		}
		return p.change(c, args[0], func(s rollout.State) (rollout.Change, error) {
			if held = s.Hold.Active(now); !held {
				return rollout.Change{}, nil
			}
			return rollout.Release(s, c.by(), now), nil
		}, func(s rollout.State) string {
			switch {
			case !held:
				return fmt.Sprintf("%s is not held.", s.Team)
			case s.Request.Made() && s.Request.Percent != s.Percent:
				return fmt.Sprintf("%s is released at %s. It asks for %s, which its checks decide.",
					s.Team, percent(int(s.Percent)), percent(int(s.Request.Percent)))
			default:
				return fmt.Sprintf("%s is released at %s.", s.Team, percent(int(s.Percent)))
			}
		})
	}
	return c.Command
}

func (p *program) rolloutRollback() *cobra.Command {
	c := newChangeCommand(&cobra.Command{
		Use:   "rollback TEAM",
		Short: "Take back a team's last raise, with a hold",
		Long: `Return to the percentage before the team's last raise, with a hold, so that its
file does not raise it again. Refused runs may use their passwords again at once.`,
		Example: `  crossfade rollout rollback data-eng --reason "workers fail with aud_mismatch"`,
		Args:    cobra.ExactArgs(1),
	})
	c.remote = func(ctx context.Context, a *adminAPI, team identity.Team) (rollout.State, error) {
		return a.team(ctx, http.MethodPost, team, "/rollback", reasoned{c.reason}, nil)
	}
	c.RunE = func(_ *cobra.Command, args []string) error {
		if c.reason == "" {
			return usage("rollback needs --reason: the team must know what to look at")
		}
		return p.change(c, args[0], func(s rollout.State) (rollout.Change, error) {
			return rollout.Rollback(s, c.by(), time.Now())
		}, func(s rollout.State) string {
			return fmt.Sprintf("%s is back at %s and held (revision %d). To lift it: crossfade rollout release %s",
				s.Team, percent(int(s.Percent)), s.Revision, s.Team)
		})
	}
	return c.Command
}
