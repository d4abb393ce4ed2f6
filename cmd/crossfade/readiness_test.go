package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

const aDay = 24 * time.Hour

// past is evidence of a team on the 13 full days before today: whatever the hour
// is, all of them are within a window of 14 days.
type past struct {
	team  identity.Team
	batch evidence.TeamBatch
	n     int
}

func newPast(team identity.Team, since time.Duration) *past {
	return &past{team: team, batch: evidence.TeamBatch{
		Days: make(map[evidence.Day]*evidence.Daily), Accounts: make(map[string]evidence.Use), Families: make(map[evidence.Family]evidence.FamilyUse),
		Since: time.Now().Add(-since),
	}}
}

// runs adds so many runs of a kind at noon of a day so many days ago.
func (p *past) runs(daysAgo, n int, kind evidence.Run) *past {
	day := evidence.DayOf(time.Now().Add(-time.Duration(daysAgo) * aDay))
	d := p.batch.Days[day]
	if d == nil {
		d = &evidence.Daily{Runs: make(map[evidence.RunKey]evidence.Run), Counts: make(map[evidence.Count]int64)}
		p.batch.Days[day] = d
	}
	d.Counts[evidence.Count{Verdict: "match_allow", Source: "client"}] += int64(10 * n)
	for range n {
		p.n++
		r := kind
		r.First = day.End().Add(-aDay / 2).Add(time.Duration(p.n%60) * time.Second)
		if daysAgo == 0 {
			r.First = time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
		}
		r.Last = r.First.Add(time.Minute)
		if r.Grade != evidence.Clean {
			r.Worst = r.First
		}
		d.Runs[evidence.NewRunKey(r.Account, fmt.Sprint(p.n))] = r
		p.batch.Families[evidence.Family{Account: r.Account, Name: r.Pipeline}] = evidence.FamilyUse{Last: r.First, Clean: r.First}
	}
	return p
}

// daily adds runs on each of the full days.
func (p *past) daily(n int, kind evidence.Run) *past {
	for d := 1; d <= 13; d++ {
		p.runs(d, n, kind)
	}
	return p
}

// use notes when an account last used a password and a token; 0 for never.
func (p *past) use(account string, legacy, token time.Duration) *past {
	at := func(ago time.Duration) time.Time {
		if ago == 0 {
			return time.Time{}
		}
		return time.Now().Add(-ago).UTC().Truncate(time.Second)
	}
	p.batch.Accounts[account] = evidence.Use{Legacy: at(legacy), Token: at(token), Run: at(time.Minute)}
	return p
}

func (p *past) record(t *testing.T, redis *rollouttest.Redis) {
	t.Helper()
	store, err := redisstore.New(redisstore.Options{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	b := evidence.Batch{Replica: "past of " + string(p.team), Seq: 1, From: time.Now(), To: time.Now(), Teams: map[identity.Team]*evidence.TeamBatch{p.team: &p.batch}}
	if err := store.Record(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func judgedClean(account, pipeline string) evidence.Run {
	return evidence.Run{Account: account, Pipeline: pipeline, Legacy: true, Token: true}
}

// fiveTeams is a Redis with the teams that a first page shows, and the
// configuration of a command that reads it.
func fiveTeams(t *testing.T) (redis *rollouttest.Redis, conf string) {
	t.Helper()
	redis = rollouttest.StartRedis(t)
	long := evidence.DayOf(time.Now().Add(-9 * aDay)).End().Add(-aDay) // before the runs of that day, whatever the hour
	changed(
		t, redis, rollout.Change{Team: "data-eng", Percent: 25, At: long, Actor: "lead", Source: "file"},
		rollout.Change{Team: "ml-platform", Percent: 20, At: time.Now().Add(-2 * time.Hour), Actor: "lead", Source: "file"},
		rollout.Change{Team: "growth", Percent: 100, At: time.Now().Add(-20 * aDay)},
		rollout.Change{Team: "ml-platform", Kind: rollout.KindHold, Percent: 20, Hold: &rollout.Hold{Reason: "rolled back, 6 known runs refused", At: time.Now().UTC().Truncate(time.Millisecond)}},
	)
	of := newPast("data-eng", 21*aDay)
	for i, pipeline := range []string{"LoadUsers", "ExtractOrders", "LoadOrders", "Report", "Sessions", "Invoices", "Clicks", "Geo", "Prices", "Stock", "Returns"} {
		run := judgedClean([]string{"svc-etl", "svc-loader"}[i%2], pipeline)
		// A raise is soaked once what it selects has run without a refusal.
		if rollout.Selected("data-eng", run.Account+"/"+pipeline, 25) {
			run.Enforced = true
		}
		of.daily(8, run)
	}
	of.use("svc-etl", 2*time.Minute, 2*time.Minute).use("svc-loader", 9*aDay, time.Minute).record(t, redis)

	bad := judgedClean("svc-billing", "ExportInvoices")
	bad.Grade, bad.Reason, bad.TraceID = evidence.WouldBreak, identity.AudMismatch, "4bf92f3577b34da6a3ce929d0e0e4736"
	bad.Detail = `the token is for "api://finance"; this gateway accepts "luigi"`
	newPast("billing", 21*aDay).daily(20, judgedClean("svc-billing", "LoadInvoices")).daily(20, judgedClean("svc-billing", "CloseMonth")).runs(0, 4, bad).
		use("svc-billing", time.Minute, time.Minute).record(t, redis)

	none := evidence.Run{Account: "svc-search", Pipeline: "BuildIndex", Legacy: true, Grade: evidence.NoToken, Reason: identity.TokenAbsent, TraceID: "0af7651916cd43dd8448eb211c80319c"}
	none.Detail = "a password alone: no token in Crossfade-Token"
	newPast("search", 21*aDay).daily(20, none).use("svc-search", time.Minute, 0).record(t, redis)
	newPast("ml-platform", 21*aDay).daily(20, judgedClean("svc-ml", "Train")).use("svc-ml", time.Minute, time.Minute).record(t, redis)

	alone := evidence.Run{Account: "svc-growth", Pipeline: "Funnel", Token: true, Enforced: true}
	newPast("growth", 40*aDay).daily(12, alone).use("svc-growth", 9*aDay, time.Minute).record(t, redis)

	dir := t.TempDir()
	for name, text := range map[string]string{
		"crossfade.yaml": "principals: p.yaml\nrollout: { dir: rollout.d }\nupstream: { profile: luigi }\nredis: " + redis.URL() + "\n",
		"p.yaml": `svc-etl: { team: data-eng, legacy: [svc-etl] }
svc-loader: { team: data-eng, legacy: [svc-loader] }
svc-old: { team: data-eng, legacy: [svc-old], owner: nobody knows }
svc-billing: { team: billing }
svc-search: { team: search }
svc-ml: { team: ml-platform }
svc-growth: { team: growth }
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "rollout.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	return redis, filepath.Join(dir, "crossfade.yaml")
}

// What differs from one hour of the day to another.
var (
	dates   = regexp.MustCompile(`\d{4}-\d\d-\d\d`)
	soon    = regexp.MustCompile(`about \d+ (hour|minute|second)s?`)
	midday  = regexp.MustCompile(`last \d\d h ago`) // of the day before
	seconds = regexp.MustCompile(`(wait_seconds"?: )[0-9.]+`)
)

func TestReadinessIsShownInEveryFormat(t *testing.T) {
	t.Parallel()
	_, conf := fiveTeams(t)
	show := func(args ...string) ran { return run(t, append([]string{"readiness", "-c", conf}, args...)...) }
	clean := func(r ran) string {
		if strings.Contains(r.stdout, "\x1b") {
			t.Errorf("there are colours: %q", r.stdout)
		}
		text := seconds.ReplaceAllString(soon.ReplaceAllString(midday.ReplaceAllString(r.stdout, "last NN h ago"), "about N hours"), "${1}N")
		return dates.ReplaceAllString(timestamps.ReplaceAllString(text, "TIME"), "DAY")
	}
	for _, format := range []string{"table", "json", "yaml", "markdown"} {
		golden(t, "readiness.all."+format, clean(show("-o", format).want(t, exitRefused)))
		golden(t, "readiness.billing."+format, clean(show("billing", "-o", format).want(t, exitRefused)))
	}
	for team, code := range map[string]int{"data-eng": exitOK, "search": exitOK, "ml-platform": exitOK, "growth": exitOK} {
		for _, format := range []string{"table", "markdown"} {
			golden(t, "readiness."+team+"."+format, clean(show(team, "-o", format).want(t, code)))
		}
	}
	golden(t, "readiness.whatif.table", clean(show("data-eng", "--what-if", "75").want(t, exitOK)))
	var got console.Readiness
	if err := json.Unmarshal([]byte(show("data-eng", "-o", "json").stdout), &got); err != nil || got.Report.Answer != readiness.Ready || got.Report.Window != 14*aDay {
		t.Errorf("the JSON is read as %+v, %v", got, err)
	}
}

func TestReadinessTellsWrongInputs(t *testing.T) {
	t.Parallel()
	_, conf := fiveTeams(t)
	dir := t.TempDir()
	there := filepath.Join(dir, "there.md")
	if err := os.WriteFile(there, []byte("# mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		args []string
		code int
		said string
	}{
		{[]string{"biling"}, exitUsage, `there is no team "biling": did you mean billing?`},
		{[]string{"quite-another"}, exitUsage, "`crossfade readiness` lists all"},
		{[]string{"unassigned"}, exitUsage, `there is no team "unassigned"`},
		{[]string{"bil/ling"}, exitUsage, "team"},
		{[]string{"billing", "search"}, exitUsage, "--help"},
		{[]string{"billing", "-o", "xml"}, exitUsage, "table, json, yaml, markdown"},
		{[]string{"billing", "--what-if", "101"}, exitUsage, "from 0 to 100"},
		{[]string{"billing", "--what-if", ""}, exitUsage, "from 0 to 100"},
		{[]string{"billing", "--what-if", "fifty"}, exitUsage, "from 0 to 100"},
		{[]string{"--what-if", "50"}, exitUsage, "crossfade readiness TEAM --what-if 50"},
		{[]string{"--report", "x.md"}, exitUsage, "crossfade readiness TEAM --report x.md"},
		{[]string{"billing", "--report", filepath.Join(dir, "x.pdf")}, exitUsage, ".md or .json"},
		{[]string{"billing", "--report", there}, exitUsage, "exists"},
		{[]string{"billing", "--report", filepath.Join(dir, "nowhere", "x.md")}, exitFailure, "no such file"},
		{[]string{"--verify", there}, exitUsage, "no evidence that Crossfade has written"},
		{[]string{"--verify", filepath.Join(dir, "none.md")}, exitUsage, "no such file"},
		{[]string{"billing", "--verify", there}, exitUsage, "leave the rest out"},
		{[]string{"--verify", ""}, exitUsage, "name the file"},
		{[]string{"--redis", "redis://127.0.0.1:1"}, exitStore, "connection refused"},
		{[]string{"billing", "--redis", "nonsense"}, exitUsage, "redis"},
	} {
		got := run(t, append([]string{"readiness", "-c", conf}, row.args...)...).want(t, row.code, row.said)
		if got.stdout != "" {
			t.Errorf("%v: results of what failed: %v", row.args, got)
		}
	}
	run(t, "readiness").want(t, exitStore, "no Redis is configured")
	if text := read(t, there); text != "# mine\n" {
		t.Errorf("a file that was there is now %q", text)
	}
}

func TestAnotherPercentageDecidesTheExitCode(t *testing.T) {
	t.Parallel()
	_, conf := fiveTeams(t)
	for _, row := range []struct {
		team, percent string
		code          int
		said          string
	}{
		{"data-eng", "50", exitOK, "data-eng at 50%: YES. 1,144 clean runs."},
		{"data-eng", "100%", exitOK, "at worst 1 broken run in 3 days"},
		{"data-eng", "10", exitOK, "data-eng at 10%: YES. Lowering is always allowed."},
		{"data-eng", "25", exitOK, "data-eng at 25%: YES. The team is at 25%."},
		{"billing", "10", exitRefused, "billing at 10%: NO. aud_mismatch in svc-billing / ExportInvoices, 4 runs."},
		{"search", "10", exitRefused, "search at 10%: WAIT. 0% of runs sent a token, 99% needed."},
		{"ml-platform", "50", exitRefused, "ml-platform at 50%: HELD. Rolled back, 6 known runs refused."},
		{"ml-platform", "0", exitOK, "Lowering is always allowed."},
	} {
		run(t, "readiness", "-c", conf, row.team, "--what-if", row.percent).want(t, row.code, row.said)
	}
}

func TestTheEvidenceIsWrittenForTheAuditorAndVerified(t *testing.T) {
	t.Parallel()
	redis, conf := fiveTeams(t)
	dir := t.TempDir()
	for _, name := range []string{"growth.md", "growth.json"} {
		file := filepath.Join(dir, name)
		got := run(t, "readiness", "-c", conf, "growth", "--report", file).want(t, exitOK, "The evidence of growth is in "+file)
		sum := regexp.MustCompile(`[0-9a-f]{64}`).FindString(got.stderr)
		run(t, "readiness", "--verify", file).want(t, exitOK, "is as it was written, SHA-256 "+sum)
		text := read(t, file)
		for _, want := range []string{"svc-growth", "no password for 9 of 14 days", sum} {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not say %q", name, want)
			}
		}
		if err := os.WriteFile(file, []byte(strings.Replace(text, "9 of 14 days", "14 of 14 days", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "readiness", "--verify", file).want(t, exitFailure, "it was changed after it was written")
	}

	file := filepath.Join(dir, "retired.md")
	run(t, "rollout", "retire", "growth", "-c", conf, "--report", filepath.Join(dir, "growth.md")).want(t, exitUsage, "exists")
	run(t, "rollout", "retire", "growth", "-c", conf, "--dry-run", "--report", file).want(t, exitRefused, "growth is not retired: no password for 9 of 14 days")
	run(t, "readiness", "--verify", file).want(t, exitOK)

	// All that is in the way is said.
	changed(t, redis, rollout.Change{Team: "growth", Percent: 50}, rollout.Change{Team: "growth", Percent: 100, At: time.Now().Add(-3 * aDay)})
	run(t, "rollout", "retire", "growth", "-c", conf, "--dry-run").want(t, exitRefused,
		"growth is not retired: at 100% for 3 of 14 days; no password for 9 of 14 days: svc-growth was the last to use one")
}

func TestReadinessOverTheAdminAPIIsThatOfRedis(t *testing.T) {
	t.Parallel()
	a := administer(t, "address: 127.0.0.1:0")
	before := time.Now().Add(-5*time.Hour - 30*time.Minute)
	changed(t, a.redis, rollout.Change{Team: "data-eng", Percent: 25, At: before}, rollout.Change{Team: "growth", Percent: 100, At: before})
	by := []string{"--admin", a.url, "--token-file", a.tokenFile}
	over := func(args ...string) ran { return run(t, append(append([]string{"readiness"}, args...), by...)...) }
	eventually(t, "the gateway knows the teams", func() bool { return strings.Contains(over().stdout, "growth") })
	alike := func(text string) string {
		return soon.ReplaceAllString(ages.ReplaceAllString(timestamps.ReplaceAllString(text, "TIME"), ""), "about N hours")
	}
	for _, args := range [][]string{{}, {"-o", "markdown"}, {"data-eng"}, {"data-eng", "--what-if", "10"}, {"data-eng", "--what-if", "75"}, {"growth"}} {
		straight := run(t, append([]string{"readiness", "-c", a.config}, args...)...)
		got := over(args...)
		if got.code != straight.code || alike(got.stdout) != alike(straight.stdout) {
			t.Errorf("%v over the API: %v\nstraight: %v", args, got, straight)
		}
	}
	over("data-egn").want(t, exitUsage, "Did you mean data-eng?")
	over("data-eng", "--what-if", "75").want(t, exitRefused, "data-eng at 75%: WAIT.")
	var got console.Readiness
	if err := json.Unmarshal([]byte(over("growth", "-o", "json").want(t, exitOK).stdout), &got); err != nil || got.Report.Percent != 100 || got.Report.Window != 14*aDay || len(got.Report.Retire) != 5 {
		t.Errorf("the JSON is read as %+v, %v", got, err)
	}
	file := filepath.Join(t.TempDir(), "growth.md")
	over("growth", "--report", file).want(t, exitOK, file)
	run(t, "readiness", "--verify", file).want(t, exitOK)
	if text := read(t, file); !strings.Contains(text, "All gateways serve by the configuration ") {
		t.Errorf("the gateway is not in it:\n%s", text)
	}
}

func TestEvidenceOfAnotherConfigurationIsNotCurrentByTheGatewayNorFromRedis(t *testing.T) {
	t.Parallel()
	a := administer(t, "address: 127.0.0.1:0")
	kind := judgedClean("svc-etl", "LoadUsers")
	kind.Config = "0123456789ab" // the principals have changed since
	newPast("data-eng", 21*aDay).daily(50, kind).use("svc-etl", time.Minute, time.Minute).record(t, a.redis)
	const why = "no run yet since issuers, roles or principals have changed"
	by := []string{"--admin", a.url, "--token-file", a.tokenFile}
	eventually(t, "the gateway has read the evidence", func() bool {
		return strings.Contains(run(t, append([]string{"readiness"}, by...)...).stdout, why)
	})
	run(t, "readiness", "-c", a.config).want(t, exitOK, why)
	dir := rolloutDir(t, map[string]string{"data-eng": "percent: 50\n"})
	run(t, "rollout", "plan", "-c", a.config, "--dir", dir).want(t, exitRefused, why)
	run(t, "rollout", "apply", "-c", a.config, "--dir", dir).want(t, exitRefused, why)
}

func TestAPageSaysWhatIsRare(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 26, 12, 0, 0, 0, time.UTC)
	fifty := rollout.Percent(50)
	closed := readiness.Failure{
		Account: "svc-etl", Pipeline: "Load", Reason: identity.Expired, Verdict: "would_break", Owner: identity.OwnerTeam, Runs: 3, Last: at.Add(-50 * time.Hour),
		Closes: "closed by 12 later clean runs; its runs leave the bound with the window, or at once when the team's file records the fix",
	}
	signal := readiness.Failure{
		Account: "svc-etl", Reason: identity.PrincipalMismatch, Verdict: "identity_drift", Owner: identity.OwnerSecurity, Runs: 1, Last: at.Add(-3 * time.Minute), Open: true,
		Detail: "password and token are of two accounts\x1b[2J", Advice: readiness.Advice(identity.PrincipalMismatch),
		Closes: "with the window after it was last seen, or by a waiver in the platform's file",
	}
	for name, report := range map[string]readiness.Report{
		"retire": {
			Team: "growth", At: at, Phase: rollout.PhaseEnforced, Percent: 100, UpTo: 100, Answer: readiness.Ready, Why: "no password for 14 days",
			Checks: []readiness.Check{{Name: readiness.Watched, Pass: true, Have: "40 days", Need: "14 days"}},
			Retire: []readiness.Check{{Name: readiness.NoLegacy, Pass: true, Have: "20 days", Need: "14 days"}},
		},
		"retired": {Team: "growth", At: at, Phase: rollout.PhaseRetired, Percent: 100, UpTo: 100, Answer: readiness.Done, Why: "its static credentials have ended"},
		"signal": {
			Team: "data-eng", At: at, Phase: rollout.PhaseRamp, Percent: 10, Requested: &fifty, UpTo: 10, Answer: readiness.Blocked, Signal: true,
			Why: "identity_drift: principal_mismatch in svc-etl, 1 run", Owner: identity.OwnerSecurity, Runs: 900, RunsADay: 64.3, AtWorst: 0.4, BrokenADay: 1,
			Failures: []readiness.Failure{signal, closed}, Warnings: []string{"people use a password in browsers, which 100% refuses: ana"},
		},
		"step": {
			Team: "data-eng", At: at, Phase: rollout.PhaseRamp, Percent: 10, Requested: &fifty, UpTo: 40, Answer: readiness.Ready, Why: "4,000 runs, 2 of them bad",
			Runs: 4000, Bad: 2, RunsADay: 290, AtWorst: 3.3, BrokenADay: 1,
		},
	} {
		for _, what := range []struct {
			ending string
			write  func(teamPage, *strings.Builder) error
		}{
			{"table", func(p teamPage, b *strings.Builder) error { return p.text(b) }},
			{"markdown", func(p teamPage, b *strings.Builder) error { return p.markdown(b) }},
		} {
			var b strings.Builder
			page := teamPage{Readiness: console.Readiness{Report: report, Outlook: report.Outlook(report.Next()), File: "rollout.d/" + string(report.Team) + ".yaml"}}
			if err := what.write(page, &b); err != nil {
				t.Fatal(err)
			}
			golden(t, "readiness.page."+name+"."+what.ending, b.String())
		}
	}
}

func TestAPlanSaysWhatARaiseBreaksAtWorst(t *testing.T) {
	t.Parallel()
	_, conf := fiveTeams(t)
	dir := rolloutDir(t, map[string]string{"data-eng": "percent: 50\n", "billing": "percent: 10\n"})
	const why, worst = "1,144 clean runs, none would break; up to 100% possible", "at worst 1 broken run in 10 days"
	for _, format := range []string{"table", "markdown"} {
		run(t, "rollout", "plan", "-c", conf, "--dir", dir, "-o", format).want(t, exitRefused, why, worst)
	}
	var rows []struct {
		Team  string
		OneIn float64 `json:"one_broken_run_in_days"`
	}
	got := run(t, "rollout", "plan", "-c", conf, "--dir", dir, "-o", "json").want(t, exitRefused, why)
	if err := json.Unmarshal([]byte(got.stdout), &rows); err != nil || len(rows) != 2 || rows[0].OneIn != 0 || int(rows[1].OneIn) != 10 {
		t.Errorf("%+v, %v: want nothing of billing, which is refused, and one run in 10 days of data-eng", rows, err)
	}
}

func TestAPlanOverTheAdminAPISaysWhatARaiseBreaksAtWorst(t *testing.T) {
	t.Parallel()
	a := administer(t, "address: 127.0.0.1:0")
	cfg, err := config.Load(config.Source{File: a.config, Reasons: app.Reasons(), Partial: true})
	if err != nil {
		t.Fatal(err)
	}
	kind := judgedClean("svc-etl", "LoadUsers")
	kind.Config = cfg.EvidenceHashes().Of(kind.Account) // or a gateway takes it for that of another configuration
	of := newPast("data-eng", 21*aDay)
	for i := range 5 {
		kind.Pipeline = fmt.Sprint("Load", i)
		of.daily(20, kind)
	}
	of.use("svc-etl", time.Minute, time.Minute).record(t, a.redis)
	dir := rolloutDir(t, map[string]string{"data-eng": "percent: 10\n"})
	by := []string{"--admin", a.url, "--token-file", a.tokenFile}
	eventually(t, "the gateway has read the evidence", func() bool {
		return strings.Contains(run(t, append([]string{"readiness", "data-eng"}, by...)...).stdout, "YES")
	})
	run(t, append([]string{"rollout", "plan", "--dir", dir}, by...)...).want(t, exitOK,
		"1,300 clean runs, none would break; up to 100% possible", "at worst 1 broken run in 26 days")
	run(t, append([]string{"readiness", "data-eng"}, by...)...).want(t, exitOK, "data-eng: YES. You may raise to any value up to 100%.", "at worst 1 broken run in 26 days")
}

func TestAPageShowsTheFirstOfManyFailures(t *testing.T) {
	var r readiness.Report
	for range maxFailures + 7 {
		r.Failures = append(r.Failures, readiness.Failure{Account: "svc-search", Pipeline: "BuildIndex", Reason: identity.TokenAbsent, Verdict: "no_token", Runs: 3, Open: true})
	}
	p := teamPage{Readiness: console.Readiness{Report: r}}
	for format, write := range map[string]func(io.Writer) error{"table": p.text, "markdown": p.markdown} {
		var b strings.Builder
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(b.String(), "BuildIndex"); n != maxFailures || !strings.Contains(b.String(), "Not shown: 7 failures. -o json lists all.") {
			t.Errorf("%s: %d failures\n%s", format, n, b.String())
		}
	}
}
