package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/config"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// noon is when the reports of these tests are of, and back is a time before it.
func noon(back time.Duration) time.Time {
	return time.Date(2031, 5, 20, 12, 0, 0, 0, time.UTC).Add(-back)
}

// legacyRun is a run with a static credential.
func legacyRun(account, pipeline string, g evidence.Grade, reason identity.Reason) evidence.Run {
	return evidence.Run{
		Account: account, Pipeline: pipeline, Grade: g, Reason: reason, Worst: noon(time.Hour), First: noon(time.Hour), Last: noon(time.Hour), Legacy: true,
	}
}

func keyedRuns(runs ...evidence.Run) map[evidence.RunKey]evidence.Run {
	m := make(map[evidence.RunKey]evidence.Run)
	for i, r := range runs {
		m[evidence.NewRunKey(r.Account, fmt.Sprint(i))] = r
	}
	return m
}

// selected are pipelines of an account of which the percentage selects the first
// and not the second.
func selected(t *testing.T, team identity.Team, account string, percent rollout.Percent) (in, out string) {
	t.Helper()
	for i := range 1000 {
		name := fmt.Sprint("Load", i)
		if rollout.Selected(team, account+"/"+name, percent) {
			in = name
		} else {
			out = name
		}
		if in != "" && out != "" {
			return in, out
		}
	}
	t.Fatal("no such pipelines")
	return "", ""
}

// observed is a fleet that has been in mode observe for some days, with something
// of everything.
func observed(t *testing.T) refusedFacts {
	t.Helper()
	in, out := selected(t, "search", "svc-crawl", 40)
	today, yesterday := evidence.DayOf(noon(0)), evidence.DayOf(noon(0)).Before()
	unassigned := identity.Unassigned
	counted := func(n int64) map[evidence.Count]int64 {
		return map[evidence.Count]int64{{Verdict: "no_token", Reason: "token_absent", Source: "none"}: n}
	}
	cfg := config.Default()
	cfg.Authorization = config.AuthorizationEnforce
	cfg.Upstream.Profile, cfg.Rollout.Stickiness = config.ProfileLuigi, config.StickinessPipeline
	cfg.RolesFile = "roles.yaml"
	cfg.Principals = []config.Principal{{Name: "svc-etl", Team: "data-eng"}, {Name: "svc-old", Team: "billing"}, {Name: "svc-crawl", Team: "search"}}
	return refusedFacts{
		now: noon(0), days: []evidence.Day{today, yesterday, yesterday.Before()}, config: cfg,
		states: map[identity.Team]rollout.State{
			"search": {Team: "search", Percent: 40, Algorithm: rollout.Algorithm}, "growth": {Team: "growth", Percent: 100, Retired: true}, "data-eng": {Team: "data-eng"},
		},
		teams: map[identity.Team]teamDays{
			"search": {daily: map[evidence.Day]evidence.Daily{today: {Counts: counted(60), Runs: keyedRuns(
				legacyRun("svc-crawl", in, evidence.NoToken, identity.TokenAbsent),
				legacyRun("svc-crawl", in, evidence.NoToken, identity.TokenAbsent),
				legacyRun("svc-crawl", in, evidence.WouldBreak, identity.AudMismatch),
				legacyRun("svc-crawl", in, evidence.Clean, ""),
				legacyRun("svc-crawl", out, evidence.NoToken, identity.TokenAbsent),
				legacyRun("svc-crawl", in, evidence.Indeterminate, identity.JWKSUnavailable),
				legacyRun("svc-crawl", "", evidence.NoToken, identity.TokenAbsent),
			), Unkept: 12}}},
			"growth": {uses: map[string]evidence.Use{
				"svc-ads": {Legacy: noon(time.Hour), Failed: noon(time.Hour), Reason: identity.TokenAbsent},
				"ann":     {Legacy: noon(2 * time.Hour), Failed: noon(2 * time.Hour), Reason: identity.TokenAbsent},
				"gone":    {Legacy: noon(100 * time.Hour), Failed: noon(100 * time.Hour), Reason: identity.TokenAbsent},
				"drifts":  {Legacy: noon(time.Hour), Failed: noon(time.Hour), Reason: identity.PrincipalMismatch},
			}, daily: map[evidence.Day]evidence.Daily{yesterday: {Counts: counted(5), Runs: keyedRuns(
				legacyRun("svc-ads", "Report", evidence.NoToken, identity.TokenAbsent),
			)}}},
			"data-eng": {
				daily: map[evidence.Day]evidence.Daily{today: {Counts: counted(900), Runs: keyedRuns(
					legacyRun("svc-etl", "Load", evidence.NoToken, identity.TokenAbsent), // at 0 percent nobody asks for a token
				)}},
				refusals: map[evidence.Day]map[evidence.Refusal]evidence.Refused{
					today:     {{Account: "svc-etl", Pipeline: "DropTables", Reason: identity.TaskFamilyDenied, Roles: true}: {Requests: 3, Last: noon(2 * time.Hour)}},
					yesterday: {{Account: "svc-etl", Pipeline: "DropTables", Reason: identity.TaskFamilyDenied, Roles: true}: {Requests: 1, Last: noon(25 * time.Hour)}},
				},
			},
			unassigned: {
				daily: map[evidence.Day]evidence.Daily{today: {Counts: counted(70)}},
				refusals: map[evidence.Day]map[evidence.Refusal]evidence.Refused{today: {
					{Account: "svc-old", Reason: identity.LegacyExpired}:    {Requests: 24, Last: noon(time.Minute)},
					{Reason: identity.LegacyUnknown}:                        {Requests: 40, Last: noon(3 * time.Hour)},
					{Reason: identity.TokenAbsent, Already: true}:           {Requests: 1500, Last: noon(time.Minute)},
					{Reason: identity.SignatureInvalid}:                     {Requests: 1, Last: noon(5 * time.Hour)},
					{Account: "svc-old", Reason: identity.AuditUnavailable}: {Requests: 2, Last: noon(time.Minute)},
				}},
			},
		},
		gaps: []evidence.Gap{{Replica: "a", Requests: 17}},
	}
}

func TestWhoWouldBeRefusedIsSaidInEveryFormat(t *testing.T) {
	t.Parallel()
	r := refused(observed(t))
	withTrail := r
	withTrail.Strangers = []audit.Stranger{
		{Reason: "legacy_unknown", Scheme: "basic", Client: "192.0.2.7", Requests: 38, Last: noon(3 * time.Hour)},
		{Reason: "signature_invalid", Scheme: "oidc", Client: "198.51.100.1", Says: "svc-etl", Requests: 1, Last: noon(5 * time.Hour)},
	}
	in, _ := selected(t, "search", "svc-crawl", 40)
	if !slices.ContainsFunc(r.Refused, func(row refusedRow) bool { return row.Pipeline == in }) {
		t.Errorf("%s is not there", in)
	}
	for _, format := range []string{"table", "json", "yaml", "markdown"} {
		var stdout, stderr bytes.Buffer
		p := with{}.program(&stdout, &stderr)
		if err := p.writeRefused(&output{format: format}, withTrail); err != nil {
			t.Fatal(err)
		}
		golden(t, "refused."+format, stdout.String())
		if format == "table" {
			golden(t, "refused.stderr", stderr.String())
		}
	}
}

func TestWhatCountsDependsOnTheConfigurationAtHand(t *testing.T) {
	t.Parallel()
	rows := func(change func(f *refusedFacts)) string {
		f := observed(t)
		change(&f)
		var b strings.Builder
		for _, row := range refused(f).Refused {
			fmt.Fprintf(&b, "%s %s %s %s; ", row.Account, row.Team, row.Reason, row.often())
		}
		return b.String()
	}
	for name, test := range map[string]struct {
		change      func(f *refusedFacts)
		has, hasNot []string
	}{
		"as it is": {
			func(*refusedFacts) {},
			[]string{"svc-crawl search legacy_refused 2 runs", "svc-crawl search aud_mismatch 1 run;", "svc-ads growth legacy_retired 1 run", "ann growth legacy_retired at least once", "svc-etl data-eng task_family_denied 4 requests", "svc-old billing legacy_expired"},
			[]string{"svc-etl data-eng legacy_refused", "token_absent", "gone", "drifts"},
		},
		"roles that are only shadowed refuse nobody": {
			func(f *refusedFacts) { f.config.Authorization = config.AuthorizationShadow },
			nil,
			[]string{"task_family_denied"},
		},
		"a team at 100% loses every run without a good token": {
			func(f *refusedFacts) { f.states["search"] = rollout.State{Percent: 100} },
			[]string{"svc-crawl search legacy_refused 1 run; svc-crawl search aud_mismatch"},
			nil,
		},
		"no percentage refuses no run": {
			func(f *refusedFacts) { f.states = nil },
			[]string{"task_family_denied"},
			[]string{"run"},
		},
		"with stickiness run nobody can tell which": {
			func(f *refusedFacts) { f.config.Rollout.Stickiness = config.StickinessRun },
			[]string{"40% of 2 runs", "40% of 1 run"},
			nil,
		},
		"with stickiness principal all of an account or nothing": {
			func(f *refusedFacts) {
				f.config.Rollout.Stickiness = config.StickinessPrincipal
				f.states["search"] = rollout.State{Percent: rollout.Threshold("search", "svc-crawl") - 1, Algorithm: rollout.Algorithm}
			},
			nil,
			[]string{"svc-crawl"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := rows(test.change)
			for _, text := range test.has {
				if !strings.Contains(got, text) {
					t.Errorf("%q is missing: %s", text, got)
				}
			}
			for _, text := range test.hasNot {
				if strings.Contains(got, text) {
					t.Errorf("%q is there: %s", text, got)
				}
			}
		})
	}
}

// observedAt records evidence that a gateway might have, and returns a
// configuration.
func observedAt(t *testing.T, redis *rollouttest.Redis, d evidence.Daily) (file string) {
	t.Helper()
	store, err := redisstore.New(redisstore.Options{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	now := time.Now()
	if err := store.Record(t.Context(), evidence.Batch{
		Replica: "a", Seq: now.UnixNano() / 1000, From: now, To: now,
		Teams: map[identity.Team]*evidence.TeamBatch{"data-eng": {Days: map[evidence.Day]*evidence.Daily{evidence.DayOf(now): &d}}},
	}); err != nil {
		t.Fatal(err)
	}
	return whole(t, "https://idp.example", "http://127.0.0.1:1", map[string]string{"mode": "observe", "redis": redis.URL()})
}

func TestWouldRefuseAsksRedis(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	count := map[evidence.Count]int64{{Verdict: "no_token", Reason: "token_absent", Source: "none"}: 3}
	file := observedAt(t, redis, evidence.Daily{})
	run(t, "check", file, "--would-refuse", "7d").want(t, exitFailure, "NOT KNOWN. No gateway recorded a request")

	now := time.Now()
	silent := evidence.Run{Account: "svc-etl", Pipeline: "Load", Grade: evidence.NoToken, Reason: "token_absent", First: now, Last: now, Worst: now, Legacy: true}
	file = observedAt(t, redis, evidence.Daily{Counts: count, Runs: keyedRuns(silent)})
	run(t, "check", file, "--would-refuse", "7d").want(t, exitOK, "NOBODY would be refused in mode enforce, authorization shadow: of 3 requests")

	changed(t, redis, rollout.Change{Team: "data-eng", Percent: 100})
	run(t, "check", file, "--would-refuse", "7d").want(t, exitRefused, "1 ACCOUNT would be refused", "svc-etl", "legacy_refused", "team data-eng", "1 run of accounts")

	file = observedAt(t, redis, evidence.Daily{Refusals: map[evidence.Refusal]evidence.Refused{
		{Account: "svc-etl", Reason: identity.LegacyRevoked}: {Requests: 5, Last: now},
	}})
	got := run(t, "check", file, "--would-refuse", "1d", "-o", "json").want(t, exitRefused)
	var report refusedReport
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if report.Accounts != 1 || report.Requests != 5 || report.Runs != 1 || len(report.Refused) != 2 || report.Refused[1].Who != identity.OwnerTeam {
		t.Errorf("%+v", report)
	}

	redis.Stop()
	run(t, "check", file, "--would-refuse", "7d").want(t, exitStore)
	run(t, "check", whole(t, "https://idp.example", "http://127.0.0.1:1", nil), "--would-refuse", "7d").want(t, exitStore, "no Redis is configured")
}

func TestWouldRefuseSaysWhatIsWrongWithTheQuestion(t *testing.T) {
	t.Parallel()
	file := whole(t, "https://idp.example", "http://127.0.0.1:1", nil)
	for name, test := range map[string]struct {
		args []string
		said string
	}{
		"no time span":               {[]string{"--would-refuse", ""}, "needs a time span like 7d"},
		"no such time span":          {[]string{"--would-refuse", "week"}, "must be a time span like 7d"},
		"a time before all evidence": {[]string{"--would-refuse", "46d"}, "kept for 45 days"},
		"a trail that is not there":  {[]string{"--would-refuse", "7d", "--audit", "nowhere.jsonl"}, "nowhere.jsonl"},
		"a trail without the rest":   {[]string{"--audit", "x"}, "--audit belongs to --would-refuse"},
		"two questions":              {[]string{"--would-refuse", "7d", "--connect"}, "ask one"},
		"a format":                   {[]string{"--would-refuse", "7d", "-o", "github"}, "use one of"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, append([]string{"check", file}, test.args...)...).want(t, exitUsage, test.said)
		})
	}
	run(t, "check", filepath.Join(t.TempDir(), "none.yaml"), "--would-refuse", "7d").want(t, exitUsage, "cannot be read")
}
