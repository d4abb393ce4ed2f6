package readiness_test

import (
	"math"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

// TestWaitsEnd is about teams with which nothing is wrong any more: what they
// wait for comes by itself, and nobody is named who would have to act.
func TestWaitsEnd(t *testing.T) {
	for _, row := range []struct {
		name   string
		team   func() *team
		answer readiness.Answer
		why    string
		owner  identity.Owner
		wait   time.Duration
	}{
		{"a raise that selected one run a night waits for a window at most", func() *team {
			t := nightly()
			t.State = rollout.State{Percent: 50, RaisedAt: now.Add(-10 * day)}
			return t
		}, readiness.Waiting, "raised 10 days ago: 10 of 20 enforced runs", "", 4 * day},
		{"and has soaked after one", func() *team {
			t := nightly()
			t.State = rollout.State{Percent: 50, RaisedAt: now.Add(-15 * day)}
			return t
		}, readiness.Ready, "28 clean runs", "", 0},
		{"a job of once a month is seen once a window, and clean then", func() *team {
			t := newTeam()
			t.Since, t.Limits.Cycle = now.Add(-40*day), 31*day
			t.every(31, 1, clean("svc-a", "Nightly"))
			t.add(10*day, clean("svc-a", "CloseMonth"))
			return t
		}, readiness.Ready, "32 clean runs", "", 0},
		{"but what was seen on more days must be clean on two", func() *team {
			t := newTeam()
			t.Since, t.Limits.Cycle = now.Add(-40*day), 31*day
			t.every(31, 1, clean("svc-a", "Nightly"))
			t.add(11*day, graded(clean("svc-a", "CloseMonth"), evidence.NoToken, identity.TokenAbsent))
			t.add(10*day, clean("svc-a", "CloseMonth"))
			t.Limits.Tokens = 0.9
			return t
		}, readiness.Waiting, "not clean on 2 days yet: svc-a / CloseMonth", "", 0},
		{"the day after the last run without a token only time has to pass", func() *team {
			t := good()
			for range 50 {
				t.add(3*day, graded(clean("svc-etl", "LoadUsers"), evidence.NoToken, identity.TokenAbsent))
			}
			return t
		}, readiness.Waiting, "96.6% of runs sent a token, 99% needed", "", 11 * day},
		{"so too after an outage of the provider", func() *team {
			t := good()
			for range 50 {
				t.add(3*day, graded(clean("svc-etl", "LoadUsers"), evidence.Indeterminate, identity.JWKSUnavailable))
			}
			return t
		}, readiness.Waiting, "50 of 1,450 runs could not be judged", "", 11 * day},
		{"a pipeline that has not run since the configuration changed is nobody's fault", func() *team {
			t := good()
			t.Config = func(string) string { return "new" }
			r := clean("svc-etl", "LoadUsers")
			r.Config = "new"
			for i := range 600 {
				t.add(time.Duration(i)*hour/200, r)
			}
			return t
		}, readiness.Waiting, "no run since the configuration has changed of svc-etl / ExtractOrders", "", 28 * time.Minute},
		{"failures that have ceased leave with the window", func() *team {
			t := good()
			for i := range 20 {
				t.add(4*day+time.Duration(i)*hour, bad("svc-etl", "LoadUsers", identity.Expired))
			}
			return t
		}, readiness.Waiting, "20 of 1,420 runs were bad: up to 2.43% may be, 1% is the limit", "", 9*day + 20*hour},
		{"failures that go on are somebody's, though each one closes", func() *team {
			t := good()
			for i := range 20 {
				t.add(13*hour+time.Duration(i)*15*hour, bad("svc-etl", "LoadUsers", identity.Expired))
			}
			return t
		}, readiness.Blocked, "20 of 1,420 runs were bad: up to 2.43% may be, 1% is the limit", identity.OwnerTeam, 0},
		{"whoever used a password long ago has done what there was to do", func() *team {
			t := good()
			t.State = rollout.State{Percent: 100, RaisedAt: now.Add(-20 * day)}
			t.use("svc-etl", 9*day, time.Minute)
			return t
		}, readiness.Waiting, "no password for 9 of 14 days: svc-etl was the last to use one", "", 5 * day},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := readiness.Judge(row.team().Facts)
			if r.Answer != row.answer || r.Why != row.why || r.Owner != row.owner {
				t.Errorf("got %s, %q, %q acts\nwant %s, %q, %q acts", r.Answer, r.Why, r.Owner, row.answer, row.why, row.owner)
			}
			if off := math.Abs(float64(r.Wait - row.wait)); off > float64(2*hour) {
				t.Errorf("it waits for %s, want about %s", r.Wait, row.wait)
			}
		})
	}
}

// nightly is a team of two pipelines that run once a night; half of it selects
// one of them.
func nightly() *team {
	t := newTeam()
	for _, pipeline := range []string{"LoadUsers", "ExtractOrders"} {
		r := clean("svc-a", pipeline)
		r.Enforced = pipeline == "LoadUsers"
		t.every(14, 1, r)
	}
	t.Key = func(_, pipeline string) string { return pipeline }
	for i := 0; rollout.Threshold(t.Team, "LoadUsers") > 50 || rollout.Threshold(t.Team, "ExtractOrders") <= 50; i++ {
		t.Team = identity.Team("team-" + string(rune('a'+i)))
	}
	return t
}

// TestATeamThatHasFewRunsByChanceIsNotJudgedMildly: 500 runs are less than a bound
// needs, and may be those of a team that has 530.
func TestATeamThatHasFewRunsByChanceIsNotJudgedMildly(t *testing.T) {
	few := func(runs, failures int) readiness.Report {
		team := newTeam()
		team.every(14, runs/14, clean("svc-etl", "LoadUsers"))
		for range failures {
			team.add(5*day, bad("svc-etl", "LoadUsers", identity.Expired))
		}
		return readiness.Judge(team.Facts)
	}
	if r := few(504, 0); r.Answer != readiness.Ready || !r.Census {
		t.Errorf("504 clean runs: %s, %s", r.Answer, r.Why)
	}
	r := few(504, 1)
	if want := "1 of 505 runs was bad, of so few none may be"; r.Answer != readiness.Waiting || r.Why != want || r.Wait.Round(hour) != 9*day+hour {
		t.Errorf("one of 505: %s, %q for %s, want %q for 9 days", r.Answer, r.Why, r.Wait, want)
	}
	if r := few(420, 1); r.Answer != readiness.Ready {
		t.Errorf("one of 421: %s, %s", r.Answer, r.Why)
	}
}

// TestACensusOfManyRunsReachesStepByStep: one pipeline of 1,000 runs a day, of
// which 24 are kept, has few runs to judge it by and much to break.
func TestACensusOfManyRunsReachesStepByStep(t *testing.T) {
	team := newTeam()
	team.every(14, 24, clean("svc-etl", "LoadUsers"))
	for d, daily := range team.Days {
		daily.Unkept = 976
		team.Days[d] = daily
	}
	r := readiness.Judge(team.Facts)
	if !r.Census || r.Answer != readiness.Ready || r.UpTo != 6 {
		t.Errorf("%s to %d (census %t), want ready to 6: %s", r.Answer, r.UpTo, r.Census, r.Why)
	}
}

func TestWhatHarmsStopsRetirementToo(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*team)
		answer readiness.Answer
		why    string
	}{
		{"nothing in the way", func(*team) {}, readiness.Ready, "no password for 14 days"},
		{"a team that runs nothing any more", func(t *team) { clear(t.Days) }, readiness.Ready, "no password for 14 days"},
		{"an open failure", func(t *team) { t.add(hour, bad("svc-etl", "LoadUsers", identity.Expired)) }, readiness.Blocked, "expired in svc-etl / LoadUsers, 1 run"},
		{"a security signal", func(t *team) {
			t.add(hour, graded(clean("svc-etl", "LoadUsers"), evidence.WouldOpen, identity.TaskFamilyDenied))
		}, readiness.Blocked, "would_open: task_family_denied in svc-etl / LoadUsers, 1 run"},
		{"gateways that differ", func(t *team) { t.Skewed = true }, readiness.Blocked, "the gateways serve by configurations that differ"},
		{"passwords of nobody that cannot be read", func(t *team) { t.UnassignedAway = true }, readiness.Waiting, "whether accounts of nobody still use passwords cannot be read now"},
		{"evidence that was lost, and with it passwords perhaps", func(t *team) { t.Missing = 1000 }, readiness.Waiting, "0.99% of the requests went unwatched, 0.1% may"},
	} {
		t.Run(row.name, func(t *testing.T) {
			team := good()
			team.State = rollout.State{Percent: 100, RaisedAt: now.Add(-20 * day)}
			team.use("svc-etl", 20*day, time.Minute)
			row.change(team)
			if r := readiness.Judge(team.Facts); r.Answer != row.answer || r.Why != row.why {
				t.Errorf("got %s, %q, want %s, %q", r.Answer, r.Why, row.answer, row.why)
			}
		})
	}
}

func TestUpperBoundOfNoConfidenceIsAll(t *testing.T) {
	for _, confidence := range []float64{-1, 0, 1, 2, math.NaN()} {
		if got := readiness.UpperBound(0, 1000, confidence); got != 1 {
			t.Errorf("at a confidence of %g the bound is %g, want 1", confidence, got)
		}
	}
}
