package readiness_test

import (
	"fmt"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

// TestWaitsAreAsLongAsTheySay lets time pass at the same rate: a team that waits
// for time or runs alone is ready within a fifth of what it was told.
func TestWaitsAreAsLongAsTheySay(t *testing.T) {
	for _, row := range []struct {
		name string
		jobs []job
		// days is how many there were before the report that gives the estimate, and
		// then what was done at their end.
		days int
		then func(*simulation, time.Time)
		run  func(*simulation, *evidence.Run)
		why  string
	}{
		{name: "a new team", jobs: jobs(3, 4, 60), days: 5, why: "watched for 5 of 14 days"},
		{name: "roles have changed", jobs: jobs(3, 4, 60), days: 23, then: newRoles(20), why: "180 of the 528 runs that are needed"},
		{name: "a small team whose roles have changed", jobs: []job{{account: "svc-a", pipeline: "Nightly", every: 1}, {account: "svc-a", pipeline: "EveryThirdNight", every: 3}}, days: 24, then: newRoles(22), why: "not clean on 2 days since the configuration has changed: svc-a / EveryThirdNight"},
		{name: "a job that has not run since roles have changed", jobs: jobs(1, 1, 30), days: 20, then: func(s *simulation, at time.Time) {
			newRoles(20)(s, at)
			s.config = "b"
		}, why: "no run yet since issuers, roles or principals have changed"},
		{name: "a repair leaves too few runs", jobs: jobs(2, 2, 40), days: 22, run: func(s *simulation, r *evidence.Run) {
			if d := dayOf(r.First); r.Pipeline == "Load00" && d == 20 {
				r.Grade, r.Reason = evidence.WouldBreak, identity.AudMismatch
			}
		}, then: func(s *simulation, _ time.Time) {
			s.facts.Fixed = []readiness.Fix{{Account: "svc-a", Pipeline: "Load00", Reason: identity.AudMismatch, At: began.Add(20 * day)}}
		}, why: "440 of the 528 runs that are needed"},
		{name: "failures that were repaired without a word", jobs: jobs(3, 4, 120), days: 24, run: wrongClaimOn(20), why: "20 of 1,680 runs were bad: up to 2.06% may be, 1% is the limit"},
		{name: "an outage", jobs: jobs(3, 4, 60), days: 22, run: func(_ *simulation, r *evidence.Run) {
			if dayOf(r.First) == 20 {
				r.Grade, r.Reason = evidence.Indeterminate, identity.JWKSUnavailable
			}
		}, why: "60 of 840 runs could not be judged"},
		{name: "clients without tokens", jobs: jobs(3, 4, 60), days: 22, run: func(_ *simulation, r *evidence.Run) {
			if dayOf(r.First) < 20 && r.Pipeline < "Load03" {
				r.Token, r.Grade, r.Reason = false, evidence.NoToken, identity.TokenAbsent
			}
		}, why: "80.4% of runs sent a token, 99% needed"},
		{name: "a raise that selects few runs", jobs: jobs(3, 4, 36), days: 22, then: raisedOn(21, 25), why: "raised 24 hours ago: 6 of 20 enforced runs"},
		{name: "a raise that selects one run a night", jobs: []job{{account: "svc-a", pipeline: "Nightly", every: 1}}, days: 23, then: raisedOn(20, 99), why: "raised 3 days ago: 3 of 20 enforced runs"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := &simulation{name: row.name, jobs: row.jobs, run: row.run, even: true}
			s.start(1)
			now := began.Add(time.Duration(row.days) * day)
			for d := 1; d <= row.days; d++ {
				s.live(d)
			}
			if row.then != nil {
				row.then(s, now)
			}
			r := s.judge(now)
			if r.Answer != readiness.Waiting || r.Owner != "" || r.Why != row.why || r.Wait == 0 {
				t.Fatalf("%s, %q acts, %s: %q, want to wait for %q", r.Answer, r.Owner, r.Wait, r.Why, row.why)
			}
			for d := row.days + 1; d <= row.days+20; d++ {
				s.live(d)
			}
			for _, at := range []float64{0.1, 0.5, 0.79} {
				if early := s.judge(now.Add(time.Duration(at * float64(r.Wait)))); early.Answer == readiness.Ready {
					t.Errorf("after %.0f%% of the %s that it was to wait it is ready", 100*at, r.Wait)
				}
			}
			if late := s.judge(now.Add(r.Wait * 121 / 100)); late.Answer != readiness.Ready {
				t.Errorf("a fifth after the %s that it was to wait it is %s: %s", r.Wait, late.Answer, late.Why)
			}
		})
	}
}

// newRoles marks the runs from a day on as judged by new roles.
func newRoles(from int) func(*simulation, time.Time) {
	since := began.Add(time.Duration(from) * day)
	return func(s *simulation, _ time.Time) {
		for _, daily := range s.days {
			for key, r := range daily.Runs {
				if !r.First.Before(since) {
					r.Config = "b"
					daily.Runs[key] = r
				}
			}
		}
		s.config = "b"
	}
}

// raisedOn marks what a percentage selects from a day on as enforced. The team is
// renamed until that is a sixth of the pipelines, one at least.
func raisedOn(from int, percent rollout.Percent) func(*simulation, time.Time) {
	at := began.Add(time.Duration(from) * day)
	return func(s *simulation, _ time.Time) {
		selected := func() (n int) {
			for _, j := range s.jobs {
				if rollout.Selected(s.facts.Team, s.facts.Key(j.account, j.pipeline), percent) {
					n++
				}
			}
			return n
		}
		for i := 0; selected() != max(1, len(s.jobs)/6); i++ {
			s.facts.Team = identity.Team(fmt.Sprintf("team-%d", i))
		}
		s.facts.State = rollout.State{Team: s.facts.Team, Percent: percent, RaisedAt: at}
		for _, daily := range s.days {
			for key, r := range daily.Runs {
				r.Enforced = !r.First.Before(at) && rollout.Selected(s.facts.Team, s.facts.Key(r.Account, r.Pipeline), percent)
				daily.Runs[key] = r
			}
		}
	}
}

// wrongClaimOn breaks two of twelve pipelines on a day.
func wrongClaimOn(on int) func(*simulation, *evidence.Run) {
	return func(s *simulation, r *evidence.Run) {
		if dayOf(r.First) == on && (r.Pipeline == s.jobs[0].pipeline || r.Pipeline == s.jobs[1].pipeline) {
			r.Grade, r.Reason = evidence.WouldBreak, identity.AudMismatch
		}
	}
}
