package app

import (
	"context"
	"time"

	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/assess"
	"crossfade/rollout/effect"
	"crossfade/rollout/evidence"
	"crossfade/rollout/fleet"
)

// KeyingOf is what a configuration buckets runs by.
func KeyingOf(c *config.Config) rollout.Keying {
	return rollout.Keying{Stickiness: StickinessOf(c), Runs: c.Upstream.Profile == config.ProfileLuigi}
}

// KeyingInForce is what the gateways that serve by a store bucket runs by. Where
// they say nothing, are none, or differ, it is own: what the caller's
// configuration says.
func KeyingInForce(ctx context.Context, s fleet.Store, own rollout.Keying) (rollout.Keying, error) {
	all, now, err := s.Fleet(ctx)
	if err != nil {
		return own, err
	}
	return keyingOf(all, own, now), nil
}

// keyingOf is the rule of KeyingInForce. It is pure.
func keyingOf(all []fleet.Replica, own rollout.Keying, now time.Time) rollout.Keying {
	said := ""
	for _, r := range all {
		switch {
		case now.Sub(r.Seen) > fleet.Silent:
		case r.Selects == "", said != "" && said != r.Selects:
			return own
		default:
			said = r.Selects
		}
	}
	var kind rollout.Stickiness
	if kind.UnmarshalText([]byte(said)) != nil {
		return own
	}
	return rollout.Keying{Stickiness: kind, Runs: true}
}

// selectedOf is over how many days it is looked whom a raise selects, the present
// one included.
const selectedOf = 7

// ForecastStore is what a forecast is read from.
type ForecastStore interface {
	effect.Reader
	rollout.LatchCounter
}

// ForecastOf says what a step of a team would do to its runs, by the evidence of
// the last days, by how ready a is told that the team is, and by what is in flight:
// of a raise that still waits only whom it selects.
func ForecastOf(ctx context.Context, s ForecastStore, a *assess.Assessor, state rollout.State, step rollout.Step, k rollout.Keying, now time.Time) (f effect.Forecast, err error) {
	if step.To > step.From {
		samples := make([]effect.Sample, 0, selectedOf)
		day := evidence.DayOf(now)
		for range selectedOf {
			d, err := s.Daily(ctx, state.Team, day)
			if err != nil {
				return f, err
			}
			samples = append(samples, effect.SampleOf(day, d))
			day = day.Before()
		}
		f.Selected, f.RunsADay = effect.NewlySelected(samples, state, step.From, step.To, k)
	}
	if !step.Outcome.Applies() {
		return f, nil
	}
	if step.Outcome == rollout.Raise {
		report, err := a.Report(ctx, state)
		if err != nil {
			return f, err
		}
		f.OneIn = report.Outlook(step.To).OneIn
	}
	latches, err := s.CountLatches(ctx, state.Team)
	if err != nil {
		return f, err
	}
	switch step.Outcome {
	case rollout.Raise:
		f.Keep = latches.Unenforced
	case rollout.Retire:
		f.Lose = latches.Unenforced
	case rollout.Lower:
		f.Freed = latches.Enforced
		today := evidence.DayOf(now)
		days := make([]evidence.Daily, 2)
		for i, day := range []evidence.Day{today, today.Before()} {
			if days[i], err = s.Daily(ctx, state.Team, day); err != nil {
				return f, err
			}
		}
		f.Regain = effect.Regained(days, state, step.From, step.To, k, now)
	}
	return f, nil
}

// watchEffect keeps at hand how much of each team its percentage is in effect
// for.
func (a *App) watchEffect() (err error) {
	a.effect, err = effect.Watch(effect.Options{Store: a.store.Store, Keying: a.keying, Teams: func() []identity.Team {
		var teams []identity.Team
		for _, name := range *a.teams.Load() {
			teams = append(teams, identity.Team(name))
		}
		return teams
	}})
	if err == nil {
		a.telemetry.ObserveEffect(func(s rollout.State) (float64, bool) {
			share, ok := a.effect.Share(s)
			return share.Ratio(), ok
		})
	}
	return err
}
