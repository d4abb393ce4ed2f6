package readiness_test

import (
	"strings"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

func TestJudgeAnswers(t *testing.T) {
	for _, row := range []struct {
		name   string
		team   func() *team
		answer readiness.Answer
		upTo   rollout.Percent
		why    string
		owner  identity.Owner
		fails  []readiness.CheckName // all that do not pass
	}{
		{"a team whose runs were all clean for the window is ready to 100", good, readiness.Ready, 100, "1,400 clean runs", "", nil},
		{"a team that nothing is known of waits for its first request", func() *team {
			t := newTeam()
			t.Since = time.Time{}
			return t
		}, readiness.Waiting, 0, "no request of the team was seen yet", identity.OwnerTeam, []readiness.CheckName{
			readiness.Watched, readiness.TokensSent, readiness.Covered, readiness.UnknownFailures, readiness.Judged,
		}},
		{"a team that was watched for long and has no run in the window is told so", func() *team {
			t := newTeam()
			t.add(20*day, clean("svc-etl", "Load"))
			return t
		}, readiness.Waiting, 0, "no run was seen for 14 days", identity.OwnerTeam, []readiness.CheckName{
			readiness.TokensSent, readiness.Covered, readiness.UnknownFailures, readiness.Judged,
		}},
		{"a team that is watched for 9 days waits for 5 more", func() *team {
			t := good()
			t.Since = now.Add(-9 * day)
			return t
		}, readiness.Waiting, 0, "watched for 9 of 14 days", "", []readiness.CheckName{readiness.Watched}},
		{"a team that is watched for minutes is told how many", func() *team {
			t := newTeam()
			t.Since = now.Add(-40 * time.Minute)
			t.add(10*time.Minute, clean("svc-etl", "Load"))
			return t
		}, readiness.Waiting, 0, "watched for 40 minutes of 14 days", "", []readiness.CheckName{readiness.Watched, readiness.UnknownFailures}},
		{"lost evidence counts as missing", func() *team {
			t := good()
			t.Missing = 400
			return t
		}, readiness.Waiting, 0, "0.398% of the requests went unwatched, 0.1% may", identity.OwnerPlatform, []readiness.CheckName{readiness.Watched}},
		{"a little lost evidence does not", func() *team {
			t := good()
			t.Missing = 90
			return t
		}, readiness.Ready, 100, "1,400 clean runs", "", nil},
		{"a gateway that dies now and then is no reason to wait", func() *team {
			t := good()
			t.Unwatched = 20 * time.Minute // 0.0992% of 14 days
			return t
		}, readiness.Ready, 100, "1,400 clean runs", "", nil},
		{"gateways that die all the time are", func() *team {
			t := good()
			t.Unwatched = hour
			return t
		}, readiness.Waiting, 0, "0.298% of the requests went unwatched, 0.1% may", identity.OwnerPlatform, []readiness.CheckName{readiness.Watched}},
		{"what was lost of the team and of nobody knows whom adds up", func() *team {
			t := good()
			t.Missing, t.Unwatched = 90, 10*time.Minute
			return t
		}, readiness.Waiting, 0, "0.14% of the requests went unwatched, 0.1% may", identity.OwnerPlatform, []readiness.CheckName{readiness.Watched}},
		{"a team that sends no tokens waits for them", func() *team {
			t := newTeam()
			t.every(14, 30, graded(clean("svc-search", "Crawl"), evidence.NoToken, identity.TokenAbsent))
			return t
		}, readiness.Waiting, 0, "0% of runs sent a token, 99% needed", identity.OwnerTeam, []readiness.CheckName{
			readiness.TokensSent, readiness.Covered, readiness.UnknownFailures,
		}},
		{"a pipeline without a clean run is in the way", func() *team {
			t := good()
			t.every(1, 2, graded(clean("svc-etl", "Rare"), evidence.NoToken, identity.TokenAbsent))
			return t
		}, readiness.Waiting, 0, "no clean run yet of svc-etl / Rare", identity.OwnerTeam, []readiness.CheckName{readiness.Covered}},
		{"a task family that only ever ran within others is in the way until a request about it was clean", func() *team {
			t := good()
			t.Families[evidence.Family{Account: "svc-etl", Name: "Part"}] = evidence.FamilyUse{Last: now.Add(-time.Hour)}
			return t
		}, readiness.Waiting, 0, "no clean run yet of svc-etl / Part", identity.OwnerTeam, []readiness.CheckName{readiness.Covered}},
		{"a family that was last used before the window is not", func() *team {
			t := good()
			t.Families[evidence.Family{Account: "svc-etl", Name: "Part"}] = evidence.FamilyUse{Last: now.Add(-20 * day)}
			return t
		}, readiness.Ready, 100, "1,400 clean runs", "", nil},
		{"a known failure blocks and names who acts", func() *team {
			t := good()
			t.every(1, 3, bad("svc-billing", "ExportInvoices", identity.AudMismatch))
			return t
		}, readiness.Blocked, 0, "aud_mismatch in svc-billing / ExportInvoices, 3 runs", identity.OwnerTeam, []readiness.CheckName{
			readiness.Covered, readiness.KnownFailures,
		}},
		{"one that was followed by five clean runs has closed by itself", func() *team {
			t := good()
			t.add(3*day, bad("svc-etl", "LoadUsers", identity.Expired))
			return t
		}, readiness.Ready, 100, "1,401 runs, 1 of them bad", "", nil},
		{"closed failures stay in the bound until they leave the window", func() *team {
			t := good()
			for range 10 {
				t.add(3*day, bad("svc-etl", "LoadUsers", identity.Expired))
			}
			return t
		}, readiness.Waiting, 0, "10 of 1,410 runs were bad: up to 1.52% may be, 1% is the limit", "", []readiness.CheckName{readiness.UnknownFailures}},
		{"unless the team's file records the fix", func() *team {
			t := good()
			for range 10 {
				t.add(3*day, bad("svc-etl", "LoadUsers", identity.Expired))
			}
			t.Fixed = []readiness.Fix{{Account: "svc-etl", Pipeline: "LoadUsers", Reason: identity.Expired, At: now.Add(-3*day + time.Hour)}}
			return t
		}, readiness.Ready, 100, "848 clean runs", "", nil},
		{"a record of a fix is void when the failure comes again", func() *team {
			t := good()
			for range 10 {
				t.add(3*day, bad("svc-etl", "LoadUsers", identity.Expired))
			}
			t.Fixed = []readiness.Fix{{Account: "svc-etl", Pipeline: "LoadUsers", Reason: identity.Expired, At: now.Add(-3*day - time.Hour)}}
			return t
		}, readiness.Waiting, 0, "10 of 1,410 runs were bad: up to 1.52% may be, 1% is the limit", "", []readiness.CheckName{readiness.UnknownFailures}},
		{"a record of a fix to come counts for nothing", func() *team {
			t := good()
			t.every(1, 3, bad("svc-etl", "LoadUsers", identity.Expired))
			t.Fixed = []readiness.Fix{{Account: "svc-etl", Pipeline: "LoadUsers", Reason: identity.Expired, At: now.Add(day)}}
			return t
		}, readiness.Blocked, 0, "expired in svc-etl / LoadUsers, 3 runs", identity.OwnerTeam, []readiness.CheckName{readiness.KnownFailures}},
		{"a security signal blocks, and security acts", func() *team {
			t := good()
			t.add(2*day, graded(clean("svc-etl", "LoadUsers"), evidence.WouldOpen, identity.TaskFamilyDenied))
			return t
		}, readiness.Blocked, 0, "would_open: task_family_denied in svc-etl / LoadUsers, 1 run", identity.OwnerSecurity, []readiness.CheckName{readiness.SecuritySignals}},
		{"a waived signal does not", func() *team {
			t := good()
			t.add(2*day, graded(clean("svc-etl", "LoadUsers"), evidence.WouldOpen, identity.TaskFamilyDenied))
			t.Waivers = []readiness.Waiver{{Account: "svc-etl", Reason: identity.TaskFamilyDenied, Owner: "ana", Why: "known", Until: now.Add(day)}}
			return t
		}, readiness.Ready, 100, "1,401 clean runs", "", nil},
		{"a signal of every run that is waived leaves them clean", func() *team {
			t := newTeam()
			t.every(14, 100, graded(clean("svc-etl", "LoadUsers"), evidence.IdentityDrift, identity.TeamMismatch))
			t.Waivers = []readiness.Waiver{{Account: "svc-etl", Reason: identity.TeamMismatch, Owner: "ana", Why: "known", Until: now.Add(day)}}
			return t
		}, readiness.Ready, 100, "1,400 clean runs", "", nil},
		{"and hides nothing else that is wrong with them", func() *team {
			t := newTeam()
			r := graded(clean("svc-etl", "LoadUsers"), evidence.IdentityDrift, identity.TeamMismatch)
			t.every(14, 100, r)
			r.Broke = true
			t.every(14, 2, r)
			t.Waivers = []readiness.Waiver{{Account: "svc-etl", Reason: identity.TeamMismatch, Owner: "ana", Why: "known", Until: now.Add(day)}}
			return t
		}, readiness.Blocked, 0, "28 of 1,428 runs were bad: up to 3.12% may be, 1% is the limit", identity.OwnerPlatform, []readiness.CheckName{readiness.UnknownFailures}},
		{"a waiver that has ended does", func() *team {
			t := good()
			t.add(2*day, graded(clean("svc-etl", "LoadUsers"), evidence.IdentityDrift, identity.TeamMismatch))
			t.Waivers = []readiness.Waiver{{Account: "svc-etl", Reason: identity.TeamMismatch, Owner: "ana", Why: "known", Until: now}}
			return t
		}, readiness.Blocked, 0, "identity_drift: team_mismatch in svc-etl / LoadUsers, 1 run", identity.OwnerSecurity, []readiness.CheckName{readiness.SecuritySignals}},
		{"a record of a fix does not make a security signal go away", func() *team {
			t := good()
			t.add(2*day, graded(clean("svc-etl", "LoadUsers"), evidence.WouldOpen, identity.TaskFamilyDenied))
			t.Fixed = []readiness.Fix{{Account: "svc-etl", Pipeline: "LoadUsers", Reason: identity.TaskFamilyDenied, At: now.Add(-day)}}
			return t
		}, readiness.Blocked, 0, "would_open: task_family_denied in svc-etl / LoadUsers, 1 run", identity.OwnerSecurity, []readiness.CheckName{readiness.SecuritySignals}},
		{"nor does a hold, though evidence begins anew behind it", func() *team {
			t := good()
			t.add(2*day, graded(clean("svc-etl", "LoadUsers"), evidence.IdentityDrift, identity.TeamMismatch))
			t.Younger = now.Add(-day)
			return t
		}, readiness.Blocked, 0, "identity_drift: team_mismatch in svc-etl / LoadUsers, 1 run", identity.OwnerSecurity, []readiness.CheckName{
			readiness.UnknownFailures, readiness.SecuritySignals,
		}},
		{"what failed before a hold is not known any more behind it", func() *team {
			t := good()
			t.add(2*day, bad("svc-etl", "Rare", identity.Expired))
			t.Younger = now.Add(-day)
			return t
		}, readiness.Waiting, 0, "100 of the 528 runs that are needed", "", []readiness.CheckName{readiness.Covered, readiness.UnknownFailures}},
		{"a record of a fix leaves in what went wrong for another reason", func() *team {
			t := good()
			for range 10 {
				t.add(3*day, bad("svc-etl", "LoadUsers", identity.Expired))
			}
			t.Fixed = []readiness.Fix{{Account: "svc-etl", Pipeline: "LoadUsers", Reason: identity.AudMismatch, At: now.Add(-3*day + time.Hour)}}
			return t
		}, readiness.Waiting, 0, "10 of 858 runs were bad: up to 2.48% may be, 1% is the limit", "", []readiness.CheckName{readiness.UnknownFailures}},
		{"accounts without a team are the platform's job, however good their runs are", func() *team {
			t := good()
			t.Team = identity.Unassigned
			return t
		}, readiness.Waiting, 0, "1 account without a team: the principals file gives them one", identity.OwnerPlatform, nil},
		{"nobody acts where every account has a team", func() *team {
			t := newTeam()
			t.Team, t.Since = identity.Unassigned, time.Time{}
			return t
		}, readiness.Waiting, 0, "every account has a team", "", []readiness.CheckName{
			readiness.Watched, readiness.TokensSent, readiness.Covered, readiness.UnknownFailures, readiness.Judged,
		}},
		{"runs that could not be judged are whoever's job it is", func() *team {
			t := good()
			for range 10 {
				t.add(day, graded(clean("svc-etl", "LoadUsers"), evidence.Indeterminate, identity.JWKSUnavailable))
			}
			return t
		}, readiness.Waiting, 0, "10 of 1,410 runs could not be judged", identity.OwnerIDP, []readiness.CheckName{readiness.Judged}},
		{"runs that outlive their token must renew it", func() *team {
			t := good()
			for i := range 4 {
				r := clean("svc-etl", "LoadUsers")
				r.First = now.Add(-2 * day)
				r.Last, r.FirstExpiry, r.LastExpiry = r.First.Add(3*time.Hour), r.First.Add(time.Hour), r.First.Add(4*time.Hour)
				if i == 0 {
					r.LastExpiry = r.FirstExpiry
				}
				t.add(0, r)
			}
			return t
		}, readiness.Blocked, 0, "1 run outlived their token and did not renew it: svc-etl / LoadUsers", identity.OwnerTeam, []readiness.CheckName{readiness.TokenRenewal}},
		{"gateways that differ block", func() *team {
			t := good()
			t.Skewed = true
			return t
		}, readiness.Blocked, 0, "the gateways serve by configurations that differ", identity.OwnerPlatform, []readiness.CheckName{readiness.Current}},
		{"evidence of another configuration counts for nothing", func() *team {
			t := good()
			t.Config = func(string) string { return "new" }
			return t
		}, readiness.Waiting, 0, "no run since the configuration has changed of svc-etl / ExtractOrders, svc-etl / LoadUsers", "", []readiness.CheckName{
			readiness.TokensSent, readiness.Covered, readiness.UnknownFailures, readiness.Judged, readiness.Current,
		}},
		{"after another configuration a large team is still judged by the bound", func() *team {
			t := good()
			t.Config = func(string) string { return "new" }
			for _, pipeline := range []string{"LoadUsers", "ExtractOrders"} {
				r := clean("svc-etl", pipeline)
				r.Config = "new"
				t.every(3, 40, r)
			}
			return t
		}, readiness.Waiting, 0, "240 of the 528 runs that are needed", "", []readiness.CheckName{readiness.UnknownFailures}},
		{"a raise must soak", func() *team {
			t := good()
			t.State = rollout.State{Percent: 25, RaisedAt: now.Add(-6 * time.Hour)}
			return t
		}, readiness.Waiting, 25, "raised 6 hours ago: 0 of 20 enforced runs", "", []readiness.CheckName{readiness.Soaked}},
		{"a raise that has soaked may be followed by the next", soaked, readiness.Ready, 100, "1,440 clean runs", "", nil},
		{"a brownout and mode observe soak nothing", func() *team {
			t := good()
			t.State = rollout.State{Percent: 25, RaisedAt: now.Add(-3 * day)}
			r := clean("svc-etl", "LoadUsers")
			r.Enforced, r.Observed = true, true
			t.every(2, 20, r)
			r.Observed, r.Brownout = false, true
			t.every(2, 20, r)
			return t
		}, readiness.Waiting, 25, "raised 3 days ago: 0 of 20 enforced runs", "", []readiness.CheckName{readiness.Soaked}},
		{"a raise that selects nothing has soaked after a cycle", func() *team {
			t := good()
			t.State = rollout.State{Percent: 1, RaisedAt: now.Add(-2 * day)}
			return t
		}, readiness.Ready, 100, "1,400 clean runs", "", nil},
		{"a refusal after a raise starts the soak anew", func() *team {
			t := soaked()
			r := graded(clean("svc-etl", "LoadUsers"), evidence.NoToken, identity.TokenAbsent)
			r.Enforced, r.Refused = true, true
			t.add(time.Hour, r)
			return t
		}, readiness.Waiting, 25, "1 enforced run refused since the raise", identity.OwnerTeam, []readiness.CheckName{readiness.Soaked}},
		{"a hold outranks everything but retirement", func() *team {
			t := good()
			t.State.Hold = rollout.Hold{Reason: "rolled back 12:04", At: now.Add(-time.Hour)}
			return t
		}, readiness.Held, 100, "rolled back 12:04", identity.OwnerTeam, nil},
		{"a retired team is done", func() *team {
			t := good()
			t.State = rollout.State{Percent: 100, Retired: true, RaisedAt: now.Add(-90 * day)}
			return t
		}, readiness.Done, 100, "its static credentials have ended", "", []readiness.CheckName{readiness.Soaked, readiness.NoLegacy}},
		{"a small team is judged by a census", func() *team {
			t := newTeam()
			t.every(14, 3, clean("svc-a", "Nightly"))
			t.add(9*day, clean("svc-a", "Weekly"))
			t.add(2*day, clean("svc-a", "Weekly"))
			return t
		}, readiness.Ready, 100, "44 clean runs", "", nil},
		{"a census needs two days of each pipeline", func() *team {
			t := newTeam()
			t.every(14, 3, clean("svc-a", "Nightly"))
			t.add(2*day, clean("svc-a", "Weekly"))
			t.add(2*day, clean("svc-a", "Weekly"))
			return t
		}, readiness.Waiting, 0, "not clean on 2 days yet: svc-a / Weekly", "", []readiness.CheckName{readiness.UnknownFailures}},
		{"a census counts days since the last failure", func() *team {
			t := newTeam()
			t.every(1, 8, clean("svc-a", "Nightly"))
			t.add(2*day, bad("svc-a", "Nightly", identity.Expired))
			t.add(5*day, clean("svc-a", "Nightly"))
			return t
		}, readiness.Ready, 100, "10 runs, 1 of them bad", "", nil},
		{"nor does it soak while the gateways are in mode observe, which is the platform's to end", func() *team {
			t := newTeam()
			r := clean("svc-etl", "LoadUsers")
			r.Observed = true
			t.every(14, 50, r)
			t.State = rollout.State{Team: t.Team, Percent: 25, RaisedAt: now.Add(-3 * day)}
			t.Key = nil
			return t
		}, readiness.Waiting, 25, "raised 3 days ago: the gateways have been in mode observe ever since, which enforces nothing", identity.OwnerPlatform, []readiness.CheckName{readiness.Soaked}},
		{"a team that was raised by a gateway whose clock is ahead has stood for no time yet", func() *team {
			t := good()
			t.State = rollout.State{Team: t.Team, Percent: 100, Previous: 50, RaisedAt: now.Add(time.Hour)}
			return t
		}, readiness.Waiting, 100, "svc-etl used a password 60 seconds ago, for 14 days nobody may", identity.OwnerTeam, []readiness.CheckName{
			readiness.Soaked, readiness.StoodEnforced, readiness.NoLegacy,
		}},
		{"nothing ends for good where it is not known since when it is enforced", func() *team {
			t := newTeam()
			t.every(14, 50, clean("svc-etl", "LoadUsers"))
			t.State = rollout.State{Team: t.Team, Percent: 100}
			return t
		}, readiness.Waiting, 100, "it is not known since when the team is at 100%: lower it and raise it again", identity.OwnerPlatform, []readiness.CheckName{readiness.StoodEnforced}},
		{"a large team may be raised as far as breaks one run a day at worst", func() *team {
			t := newTeam()
			for _, pipeline := range []string{"A", "B", "C", "D"} {
				t.every(14, 24, clean("svc-etl", pipeline))
			}
			for d, daily := range t.Days {
				daily.Unkept = 10_000
				t.Days[d] = daily
			}
			return t
		}, readiness.Ready, 2, "1,344 clean runs", "", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := readiness.Judge(row.team().Facts)
			if r.Answer != row.answer || r.UpTo != row.upTo || r.Why != row.why || r.Owner != row.owner {
				t.Errorf("got %s to %d, %q, %q acts\nwant %s to %d, %q, %q acts", r.Answer, r.UpTo, r.Why, r.Owner, row.answer, row.upTo, row.why, row.owner)
			}
			var fails []string
			for _, c := range append(r.Checks, r.Retire...) {
				if !c.Pass {
					fails = append(fails, string(c.Name))
					if c.Why == "" {
						t.Errorf("%s does not pass and does not say why", c.Name)
					}
				}
				if c.Have == "" || c.Need == "" {
					t.Errorf("%s has %q and needs %q", c.Name, c.Have, c.Need)
				}
			}
			var want []string
			for _, name := range row.fails {
				want = append(want, string(name))
			}
			if strings.Join(fails, " ") != strings.Join(want, " ") {
				t.Errorf("checks that do not pass: %v, want %v", fails, want)
			}
		})
	}
}

func TestNoTimeIsNegativeWhereClocksDiffer(t *testing.T) {
	team := good()
	team.Since = now.Add(time.Hour)
	team.State = rollout.State{Team: team.Team, Percent: 100, Previous: 50, RaisedAt: now.Add(time.Hour)}
	team.use("svc-etl", -time.Hour, -time.Hour)
	r := readiness.Judge(team.Facts)
	for _, c := range append(r.Checks, r.Retire...) {
		if strings.Contains(c.Have+c.Why, "-3,600") || strings.Contains(c.Have+c.Why, " -") {
			t.Errorf("%s: %q, %q", c.Name, c.Have, c.Why)
		}
	}
}

// soaked is a good team at 25 percent whose raise had its quiet time.
func soaked() *team {
	t := good()
	t.State = rollout.State{Percent: 25, RaisedAt: now.Add(-3 * day)}
	r := clean("svc-etl", "LoadUsers")
	r.Enforced = true
	t.every(2, 20, r)
	return t
}
