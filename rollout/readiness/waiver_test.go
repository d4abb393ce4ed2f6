package readiness_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

// request is a run of one request.
func request(n int, grade evidence.Grade, reason identity.Reason) evidence.Run {
	at := now.Add(-2*day + time.Duration(n)*time.Second)
	r := graded(clean("svc-etl", "LoadUsers"), grade, reason)
	r.Config = ""
	r.First, r.Last = at, at
	r.Broke, r.Tokenless, r.Unjudged = grade == evidence.WouldBreak, grade == evidence.NoToken, grade == evidence.Indeterminate
	if grade != evidence.Clean {
		r.Worst, r.TraceID, r.Detail = at, fmt.Sprintf("%032x", n+1), "a sample of "+string(reason)
	}
	return r
}

func waive(account string, reason identity.Reason, until time.Time) readiness.Waiver {
	return readiness.Waiver{Account: account, Reason: reason, Owner: "security", Why: "TICKET-7", Until: until}
}

// TestAWaiverHidesWhatItNamesAndNothingElse has a run of several requests among good
// ones, and a waiver of role_missing for its account.
func TestAWaiverHidesWhatItNamesAndNothingElse(t *testing.T) {
	drift, open := evidence.IdentityDrift, evidence.WouldOpen
	for _, test := range []struct {
		name     string
		requests []evidence.Run
		account  string
		until    time.Time
		answer   readiness.Answer
		why      string
		fails    []readiness.CheckName
	}{
		{
			name: "the signal alone is waived", requests: []evidence.Run{request(0, drift, identity.RoleMissing)},
			answer: readiness.Ready, why: "1,401 clean runs",
		},
		{
			name: "and whichever verdict has the reason", requests: []evidence.Run{request(0, drift, identity.RoleMissing), request(1, open, identity.RoleMissing)},
			answer: readiness.Ready, why: "1,401 clean runs",
		},
		{
			name: "another reason that came after it in the run is not", requests: []evidence.Run{request(0, drift, identity.RoleMissing), request(1, drift, identity.PrincipalMismatch)},
			answer: readiness.Blocked, why: "identity_drift: principal_mismatch in svc-etl / LoadUsers, 1 run", fails: []readiness.CheckName{readiness.SecuritySignals},
		},
		{
			name: "nor one that came before it", requests: []evidence.Run{request(0, drift, identity.PrincipalMismatch), request(1, drift, identity.RoleMissing)},
			answer: readiness.Blocked, why: "identity_drift: principal_mismatch in svc-etl / LoadUsers, 1 run", fails: []readiness.CheckName{readiness.SecuritySignals},
		},
		{
			name: "nor a lesser signal of another reason", requests: []evidence.Run{request(0, open, identity.RoleMissing), request(1, drift, identity.TeamMismatch)},
			answer: readiness.Blocked, why: "identity_drift: team_mismatch in svc-etl / LoadUsers, 1 run", fails: []readiness.CheckName{readiness.SecuritySignals},
		},
		{
			name: "nor a token that would not have been let in", requests: []evidence.Run{request(0, evidence.WouldBreak, identity.AudMismatch), request(1, drift, identity.RoleMissing)},
			answer: readiness.Blocked, why: "aud_mismatch in svc-etl / LoadUsers, 1 run", fails: []readiness.CheckName{readiness.KnownFailures},
		},
		{
			name: "not even for the waived reason", requests: []evidence.Run{request(0, evidence.WouldBreak, identity.RoleMissing), request(1, drift, identity.RoleMissing)},
			answer: readiness.Blocked, why: "role_missing in svc-etl / LoadUsers, 1 run", fails: []readiness.CheckName{readiness.KnownFailures},
		},
		{
			name: "nor the want of a token", requests: []evidence.Run{request(0, evidence.NoToken, identity.TokenAbsent), request(1, drift, identity.RoleMissing)},
			answer: readiness.Waiting, why: "92.8% of runs sent a token, 99% needed", fails: []readiness.CheckName{readiness.TokensSent},
		},
		{
			name: "nor that one could not be judged", requests: []evidence.Run{request(0, drift, identity.RoleMissing), request(1, evidence.Indeterminate, identity.JWKSUnavailable)},
			answer: readiness.Waiting, why: "20 of 1,420 runs could not be judged", fails: []readiness.CheckName{readiness.Judged},
		},
		{
			name: "nor what is of another account", requests: []evidence.Run{request(0, drift, identity.RoleMissing)}, account: "svc-other",
			answer: readiness.Blocked, why: "identity_drift: role_missing in svc-etl / LoadUsers, 1 run", fails: []readiness.CheckName{readiness.SecuritySignals},
		},
		{
			name: "nor anything from the moment that it ends", requests: []evidence.Run{request(0, drift, identity.RoleMissing)}, until: now,
			answer: readiness.Blocked, why: "identity_drift: role_missing in svc-etl / LoadUsers, 1 run", fails: []readiness.CheckName{readiness.SecuritySignals},
		},
		{
			name: "nor though it was in force when the signal came", requests: []evidence.Run{request(0, drift, identity.RoleMissing)}, until: now.Add(-time.Hour),
			answer: readiness.Blocked, why: "identity_drift: role_missing in svc-etl / LoadUsers, 1 run", fails: []readiness.CheckName{readiness.SecuritySignals},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			team := good()
			run := merge(test.requests)
			times := 1
			if run.Tokenless || run.Unjudged { // of which a few may be
				times = 20 + 88*btoi(run.Tokenless)
			}
			if run.Broke { // else five later clean runs close it
				run.First, run.Last = now.Add(-time.Minute), now.Add(-time.Second)
			}
			for range times {
				team.add(2*day, run)
			}
			account, until := test.account, test.until
			if account == "" {
				account = "svc-etl"
			}
			if until.IsZero() {
				until = now.Add(time.Second)
			}
			team.Waivers = []readiness.Waiver{waive(account, identity.RoleMissing, until)}
			r := readiness.Judge(team.Facts)
			if r.Answer != test.answer || r.Why != test.why {
				t.Errorf("%s, %q, want %s, %q", r.Answer, r.Why, test.answer, test.why)
			}
			var fails []readiness.CheckName
			for _, c := range r.Checks {
				if !c.Pass {
					fails = append(fails, c.Name)
				}
			}
			if !slices.Equal(fails, test.fails) {
				t.Errorf("%v do not pass, want %v", fails, test.fails)
			}
			if r.Signal != slices.Contains(test.fails, readiness.SecuritySignals) {
				t.Errorf("no override passes it: %t", r.Signal)
			}
			for _, f := range r.Failures {
				if f.Security() != (f.Verdict != "would_break" && f.Verdict != "no_token") || f.Waived != "" && (f.Open || !f.Security()) {
					t.Errorf("%+v", f)
				}
				if f.Verdict == "would_break" && (f.Detail != "a sample of "+string(f.Reason) || f.TraceID == "") {
					t.Errorf("what is below a waived signal has no sample: %+v", f)
				}
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func merge(requests []evidence.Run) (r evidence.Run) {
	for _, one := range requests {
		r = r.Merge(one)
	}
	return r
}

func TestWhatComesAgainBelowAWaivedSignalVoidsTheRecordOfItsRepair(t *testing.T) {
	team := good()
	for range 10 {
		team.add(5*day, bad("svc-etl", "LoadUsers", identity.Expired))
	}
	team.Fixed = []readiness.Fix{{Account: "svc-etl", Pipeline: "LoadUsers", Reason: identity.Expired, At: now.Add(-4 * day)}}
	if r := readiness.Judge(team.Facts); r.Answer != readiness.Ready {
		t.Fatalf("the repair: %s, %s", r.Answer, r.Why)
	}
	team.add(2*day, merge([]evidence.Run{request(0, evidence.WouldBreak, identity.Expired), request(1, evidence.IdentityDrift, identity.RoleMissing)}))
	for name, waivers := range map[string][]readiness.Waiver{"waived": {waive("svc-etl", identity.RoleMissing, now.Add(day))}, "not waived": nil} {
		team.Waivers = waivers
		if r := readiness.Judge(team.Facts); r.Bad != 11 {
			t.Errorf("%s: %d bad runs count, want all 11: the failure has come again", name, r.Bad)
		}
	}
}

// TestAWaivedSignalLeavesWhatARunIsWithoutIt compares teams of any runs with waivers to
// the same where the waived requests were clean.
func TestAWaivedSignalLeavesWhatARunIsWithoutIt(t *testing.T) {
	reasons := []identity.Reason{identity.RoleMissing, identity.PrincipalMismatch, identity.TeamMismatch}
	rapid.Check(t, func(t *rapid.T) {
		waived := map[string]map[identity.Reason]bool{"svc-etl": {}, "svc-two": {}}
		with, without := newTeam(), newTeam()
		for _, team := range []*team{with, without} {
			team.every(14, 5, clean("svc-etl", "LoadUsers"))
		}
		for account := range waived {
			for _, reason := range reasons {
				if rapid.Bool().Draw(t, account+" "+string(reason)) {
					waived[account][reason] = true
					with.Waivers = append(with.Waivers, waive(account, reason, now.Add(time.Second)))
				} else { // one that is over, or of another, is none
					with.Waivers = append(with.Waivers, waive(account, reason, now), waive("svc-three", reason, now.Add(day)))
				}
			}
		}
		without.Waivers = nil
		if rapid.Bool().Draw(t, "repaired") {
			fix := readiness.Fix{Account: "svc-etl", Pipeline: "LoadUsers", Reason: identity.RoleMissing, At: now.Add(-2*day + 5*time.Second)}
			with.Fixed, without.Fixed = []readiness.Fix{fix}, []readiness.Fix{fix}
		}
		n := 0
		for range rapid.IntRange(1, 12).Draw(t, "runs") {
			account := rapid.SampledFrom([]string{"svc-etl", "svc-two"}).Draw(t, "account")
			var all, rest []evidence.Run
			for range rapid.IntRange(1, 4).Draw(t, "requests") {
				n++
				grade := rapid.SampledFrom(evidence.Grades()).Draw(t, "grade")
				reason := identity.Reason("")
				switch {
				case grade.Bad():
					reason = rapid.SampledFrom(reasons).Draw(t, "reason")
				case grade == evidence.NoToken:
					reason = identity.TokenAbsent
				case grade == evidence.Indeterminate:
					reason = identity.JWKSUnavailable
				}
				r := request(n, grade, reason)
				r.Account = account
				all = append(all, r)
				if grade.Signal() && waived[account][reason] {
					r = request(n, evidence.Clean, "")
					r.Account = account
				}
				rest = append(rest, r)
			}
			with.add(0, merge(all))
			without.add(0, merge(rest))
		}
		got, want := readiness.Judge(with.Facts), readiness.Judge(without.Facts)
		for _, r := range []*readiness.Report{&got, &want} {
			r.Failures = slices.DeleteFunc(r.Failures, func(f readiness.Failure) bool { return f.Security() && !f.Open })
			for i := range r.Failures {
				f := &r.Failures[i]
				if f.Security() {
					f.Detail = "" // known of the worst signal alone
				}
				if f.Verdict == "no_token" { // of what is below a signal nobody knows which request it was
					f.Detail, f.TraceID, f.First, f.Last = "", "", time.Time{}, time.Time{}
				}
			}
			for i := range r.Checks {
				if r.Checks[i].Name == readiness.SecuritySignals && r.Checks[i].Pass {
					r.Checks[i].Have = ""
				}
			}
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(readiness.Report{})); diff != "" {
			t.Fatalf("where the waived requests are clean, and with the waivers (-want +got):\n%s", diff)
		}
	})
}
