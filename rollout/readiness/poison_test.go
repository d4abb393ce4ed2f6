package readiness_test

import (
	"fmt"
	"maps"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

// intruder is the account that somebody else has got a credential of.
const intruder = "intruder"

// anyTeam draws a team of two honest accounts with troubles of every kind.
func anyTeam(t *rapid.T) *team {
	team := newTeam()
	grades := []evidence.Grade{evidence.Clean, evidence.Clean, evidence.Clean, evidence.Clean, evidence.NoToken, evidence.Indeterminate, evidence.WouldBreak, evidence.WouldOpen}
	for range rapid.IntRange(1, 8).Draw(t, "kinds") {
		r := graded(clean(rapid.SampledFrom([]string{"svc-a", "svc-b"}).Draw(t, "account"), rapid.SampledFrom([]string{"P", "Q", "R"}).Draw(t, "pipeline")),
			rapid.SampledFrom(grades).Draw(t, "grade"), identity.Expired)
		r.Config = rapid.SampledFrom([]string{"old", "new", "new"}).Draw(t, "config")
		team.every(rapid.IntRange(1, 14).Draw(t, "days"), rapid.IntRange(1, 30).Draw(t, "runs"), r)
	}
	if rapid.Bool().Draw(t, "configured") {
		team.Config = func(string) string { return "new" }
	}
	full := clean("svc-a", "P")
	full.Config = "new"
	if unkept := rapid.SampledFrom([]int64{0, 0, 500, 5000}).Draw(t, "unkept"); unkept > 0 {
		team.every(14, 2*evidence.MaxRuns, full)
		for d, daily := range team.Days {
			daily.Unkept = unkept
			team.Days[d] = daily
		}
	}
	return team
}

// with is the team with more runs; the one before stays as it is.
func (t *team) with(more func(*team)) *team {
	other := *t
	other.Days = make(map[evidence.Day]evidence.Daily, len(t.Days))
	for d, daily := range t.Days {
		daily.Runs = maps.Clone(daily.Runs)
		other.Days[d] = daily
	}
	more(&other)
	return &other
}

// TestCleanRunsOfOneAccountHelpNobodyElse: whoever has a credential of a team and
// makes as many clean runs as are kept, of as many pipelines as it cares to
// invent, opens nothing: what stands against other accounts stands, and a raise
// may break no fewer runs a day than before.
func TestCleanRunsOfOneAccountHelpNobodyElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		honest := anyTeam(t)
		before := readiness.Judge(honest.Facts)
		after := readiness.Judge(honest.with(func(team *team) {
			r := clean(intruder, "")
			r.Config = "new"
			for i := range rapid.IntRange(1, 12).Draw(t, "invented") {
				r.Pipeline = string(rune('a' + i))
				team.every(rapid.IntRange(1, 14).Draw(t, "days"), evidence.MaxRuns, r)
			}
			for d, daily := range team.Days {
				daily.Unkept += rapid.Int64Range(0, 1000).Draw(t, "flood")
				team.Days[d] = daily
			}
		}).Facts)

		for _, name := range []readiness.CheckName{
			readiness.Covered, readiness.KnownFailures, readiness.SecuritySignals, readiness.TokenRenewal, readiness.Watched, readiness.Soaked,
		} {
			was, _ := before.Check(name)
			is, _ := after.Check(name)
			if !was.Pass && is.Pass {
				t.Fatalf("%s passes with the intruder's runs; before: %s", name, was.Why)
			}
			if was.Blocks && !is.Blocks {
				t.Fatalf("%s blocks no more with the intruder's runs; before: %s", name, was.Why)
			}
		}
		if !reflect.DeepEqual(before.Failures, after.Failures) {
			t.Fatalf("failures\n%+v\nwith the intruder's runs\n%+v", before.Failures, after.Failures)
		}
		if least := before.RunsADay * before.Bound; after.AtWorst < least*(1-1e-9) {
			t.Fatalf("at worst %g runs a day may break, with the intruder's runs %g", least, after.AtWorst)
		}
	})
}

// TestManyCleanRunsDoNotDiluteWhatMayBreak is an example of it: of one pipeline of
// 1,000 runs a day 24 are kept, and an account invents 400 pipelines.
func TestManyCleanRunsDoNotDiluteWhatMayBreak(t *testing.T) {
	honest := newTeam()
	honest.every(14, evidence.MaxRuns, clean("svc-a", "Poll"))
	for d, daily := range honest.Days {
		daily.Unkept = 976
		honest.Days[d] = daily
	}
	before := readiness.Judge(honest.Facts)
	after := readiness.Judge(honest.with(func(team *team) {
		for i := range 400 {
			team.every(14, 2, clean(intruder, "Made"+string(rune('a'+i/26))+string(rune('a'+i%26))))
		}
	}).Facts)
	if before.UpTo == 0 || before.UpTo > 10 {
		t.Fatalf("without the intruder it may be raised to %d: this shows nothing", before.UpTo)
	}
	if after.UpTo > before.UpTo {
		t.Errorf("it may be raised to %d, with the intruder's runs to %d", before.UpTo, after.UpTo)
	}
}

// TestNoRunsOfAnIntruderHelp: nor do runs that go wrong, of whatever kind.
func TestNoRunsOfAnIntruderHelp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		honest := anyTeam(t)
		before := readiness.Judge(honest.Facts)
		after := readiness.Judge(honest.with(func(team *team) {
			grade := rapid.SampledFrom([]evidence.Grade{evidence.Indeterminate, evidence.NoToken, evidence.WouldBreak, evidence.IdentityDrift, evidence.WouldOpen}).Draw(t, "grade")
			r := graded(clean(intruder, "X"), grade, identity.Expired)
			r.Config = "new"
			team.every(rapid.IntRange(1, 14).Draw(t, "days"), rapid.IntRange(1, 60).Draw(t, "runs"), r)
		}).Facts)
		if before.Answer != readiness.Ready && after.Answer == readiness.Ready {
			t.Fatalf("bad runs have made the team ready; before: %s", before.Why)
		}
		for i, was := range before.Checks {
			if is := after.Checks[i]; was.Blocks && !is.Blocks {
				t.Fatalf("%s blocks no more; before: %s", was.Name, was.Why)
			}
		}
	})
}

func TestNoNumberOfOtherFailuresIsBeforeASignal(t *testing.T) {
	team := newTeam()
	for i := range 30 { // of one account, with made-up pipelines
		for range 3 {
			team.add(day+time.Duration(i)*time.Minute, bad("svc-noisy", fmt.Sprint("P", i), identity.AudMismatch))
			team.add(day+time.Duration(i)*time.Minute, graded(clean("svc-noisy", fmt.Sprint("Q", i)), evidence.NoToken, identity.TokenAbsent))
		}
	}
	team.add(2*day, graded(clean("svc-etl", "LoadUsers"), evidence.WouldOpen, identity.TaskFamilyDenied))
	failures := readiness.Judge(team.Facts).Failures
	if len(failures) != 61 || failures[0].Account != "svc-etl" || !failures[0].Security() || failures[1].Verdict != "would_break" || failures[60].Verdict != "no_token" {
		t.Errorf("%d failures, first %+v, last %+v", len(failures), failures[0], failures[len(failures)-1])
	}
}
