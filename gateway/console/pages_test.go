package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/assess"
	"crossfade/rollout/effect"
	"crossfade/rollout/evidence"
	"crossfade/rollout/fleet"
	"crossfade/rollout/readiness"
)

var update = flag.Bool("update", false, "write the golden files anew")

// noon is when the pages of these tests are looked at.
var noon = time.Date(2030, 5, 14, 12, 0, 0, 0, time.UTC)

// reporter answers for a readiness.
type reporter func(ctx context.Context, s rollout.State) (readiness.Report, error)

func (r reporter) Report(ctx context.Context, s rollout.State) (readiness.Report, error) {
	return r(ctx, s)
}

// reports are those of some teams.
type reports map[identity.Team]readiness.Report

func (all reports) report(_ context.Context, s rollout.State) (readiness.Report, error) {
	r, ok := all[s.Team]
	if !ok {
		return readiness.Report{}, fmt.Errorf("%w: nobody answers", rollout.ErrUnavailable)
	}
	r.Team, r.Percent, r.Phase, r.At = s.Team, s.Percent, s.Phase(), noon
	return r, nil
}

// fixedTable was read a second before noon.
type fixedTable struct {
	*rollout.Table
	trouble error
}

func (fixedTable) LoadedAt() time.Time { return noon.Add(-time.Second) }
func (t fixedTable) Err() error        { return t.trouble }

// newDesk is a console with pages, at noon.
func newDesk(t *testing.T, all reports, change ...func(*console.Options)) *api {
	t.Helper()
	teams := slices.Sorted(maps.Keys(all))
	at := func(o *console.Options) {
		o.Table = fixedTable{Table: o.Table.(*rollout.Table)}
		o.Now = func() time.Time { return noon }
		o.Teams, o.Readiness = teams, reporter(all.report)
		o.Files = func() map[identity.Team]console.File { return nil }
		o.Days = func(_ context.Context, _ identity.Team, most int) ([]assess.Day, error) {
			var days []assess.Day
			for i := range most {
				d := assess.Day{Day: evidence.DayOf(noon.AddDate(0, 0, i+1-most)), Runs: 88}
				if i == 3 {
					d.Broken = 2
				}
				days = append(days, d)
			}
			return days, nil
		}
	}
	a := newAPI(t, append([]func(*console.Options){at}, change...)...)
	a.now = noon
	for _, id := range []string{"a", "b"} {
		a.fleet = append(a.fleet, fleet.Replica{ID: id, Version: "1.4.0", Config: "5d41402abc4b2a76", Started: noon.Add(-50 * time.Hour), Seen: noon.Add(-3 * time.Second)})
	}
	return a
}

// view asks for a page as a browser does.
func (a *api) view(path string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	a.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:8081"+path, nil)
	r.RemoteAddr = "127.0.0.1:50000"
	r.Header.Set("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w
}

func with(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func from(addr string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = addr } }

func share(selected, runs int) effect.Share {
	return effect.Share{Day: "2030-05-13", Runs: runs, Selected: selected}
}

// checks are all of a group; but for those named, which do not hold, they do.
func checks(names []readiness.CheckName, failing map[readiness.CheckName]readiness.Check) (all []readiness.Check) {
	for _, name := range names {
		check, ok := failing[name]
		if !ok {
			check = readiness.Check{Pass: true, Have: "enough", Need: "that much"}
		}
		check.Name = name
		all = append(all, check)
	}
	return all
}

// dataEng may be raised, billing is blocked by a failure, payments by a signal.
func dataEng() readiness.Report {
	return readiness.Report{
		Answer: readiness.Ready, UpTo: 100, Why: "1,240 clean runs", InEffect: share(23, 88), Runs: 1240, Bound: 0.0043, RunsADay: 88,
		AtWorst: 0.36, BrokenADay: 1, Window: 14 * 24 * time.Hour, Coverage: 0.996, Checks: checks(readiness.RaiseChecks(), nil),
		Failures: []readiness.Failure{{
			Account: "svc-etl", Pipeline: "DailyReport", Reason: identity.Expired, Verdict: "would_break", Owner: identity.OwnerTeam, Runs: 2,
			First: noon.Add(-11 * 24 * time.Hour), Last: noon.Add(-10 * 24 * time.Hour), CleanSince: 40, Advice: readiness.Advice(identity.Expired), Closes: "it is closed",
		}},
		Accounts: []readiness.AccountReport{
			{Account: "svc-etl", Owner: "etl@acme.dev", LastLegacy: noon.Add(-2 * time.Minute), LastToken: noon.Add(-2 * time.Minute), State: readiness.SendsBoth, Runs: 812, Clean: 810, Next: 53},
			{Account: "svc-loader", LastLegacy: noon.Add(-9 * 24 * time.Hour), LastToken: noon.Add(-time.Minute), State: readiness.TokenOnly, Runs: 428, Clean: 428},
			{Account: "svc-old", State: readiness.Unseen},
		},
		Warnings: []string{"1 static credential never seen: svc-old"},
	}
}

func billing() readiness.Report {
	return readiness.Report{
		Answer: readiness.Blocked, Why: "aud_mismatch in svc-billing / ExportInvoices, 31 runs", Owner: identity.OwnerTeam, InEffect: share(0, 78),
		Runs: 1092, Bad: 31, Bound: 0.05, RunsADay: 78, AtWorst: 3.9, Window: 14 * 24 * time.Hour,
		Checks: checks(readiness.RaiseChecks(), map[readiness.CheckName]readiness.Check{
			readiness.KnownFailures:   {Have: "1 open, 31 runs", Need: "none", Blocks: true, Owner: identity.OwnerTeam},
			readiness.UnknownFailures: {Have: "31 of 1,092, so under 4.5%", Need: "under 1%", Owner: identity.OwnerTeam},
		}),
		Failures: []readiness.Failure{{
			Account: "svc-billing", Pipeline: "ExportInvoices", Reason: identity.AudMismatch, Verdict: "would_break", Owner: identity.OwnerTeam, Runs: 31,
			First: noon.Add(-9 * 24 * time.Hour), Last: noon.Add(-2 * time.Hour), TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", Open: true,
			Detail: `The token is for "api://finance"; this gateway accepts "luigi".`, Advice: "Request the token for this gateway's audience.",
			Closes: "by itself after 5 clean runs of this account and pipeline (0 so far)",
		}},
	}
}

func payments() readiness.Report {
	return readiness.Report{
		Answer: readiness.Blocked, Signal: true, Why: "identity_drift: principal_mismatch in svc-recon", Owner: identity.OwnerSecurity, Runs: 406, RunsADay: 29, Census: true, Bound: 1,
		Checks: checks(readiness.RaiseChecks(), map[readiness.CheckName]readiness.Check{readiness.SecuritySignals: {Have: "1 open", Need: "none", Blocks: true}}),
		Failures: []readiness.Failure{
			{
				Account: "svc-recon", Reason: identity.PrincipalMismatch, Verdict: "identity_drift", Owner: identity.OwnerSecurity, Runs: 5, Open: true,
				First: noon.Add(-72 * time.Hour), Last: noon.Add(-time.Hour), Advice: "Correct the principals file.", Closes: "by a waiver",
			},
			{
				Account: "svc-settle", Reason: identity.RoleMissing, Verdict: "would_open", Owner: identity.OwnerSecurity, Runs: 1, Waived: "by jo until 2030-06-01",
				First: noon.Add(-80 * time.Hour), Last: noon.Add(-80 * time.Hour), Advice: "Give it the role.", Closes: "with its waiver",
			},
		},
	}
}

// some are n teams; all stories come again.
func some(n int) reports {
	all := make(reports)
	for i := range n {
		name, r := identity.Team("data-eng"), dataEng()
		switch i % 5 {
		case 1:
			name, r = "billing", billing()
		case 2:
			name, r = "payments", payments()
		case 3:
			name, r = "search", readiness.Report{Answer: readiness.Waiting, Why: "watched for 6 of 14 days", Wait: 8 * 24 * time.Hour, InEffect: share(0, 29)}
		case 4:
			name, r = "search-ui", readiness.Report{Answer: readiness.Waiting, Why: "0% of runs sent a token, 99% needed", Owner: identity.OwnerTeam}
		}
		if i >= 5 {
			name = identity.Team(fmt.Sprintf("%s-%d", name, i/5))
		}
		all[name] = r
	}
	return all
}

// past writes what was done to data-eng, and holds ml-platform.
func (a *api) past() {
	a.Helper()
	at := func(hours int) time.Time { return noon.Add(-time.Duration(hours) * time.Hour) }
	a.put(rollout.Change{Team: "data-eng", Percent: 10, Actor: "lea", Verified: true, Source: "file", Reason: "week 1", Evidence: "212 clean runs", At: at(400)})
	a.put(rollout.Change{Team: "data-eng", Kind: rollout.KindHold, Percent: 10, Actor: "automatic", Source: "api", Reason: "2 known accounts refused", Hold: &rollout.Hold{Reason: "x", At: at(390)}, At: at(390)})
	a.put(rollout.Change{Team: "data-eng", Kind: rollout.KindRelease, Percent: 10, Actor: "lea", Verified: true, Source: "cli", Hold: &rollout.Hold{}, At: at(300)})
	a.put(rollout.Change{
		Team: "data-eng", Kind: rollout.KindApply, Percent: 25, Actor: "lea", Verified: true, Source: "file", Reason: "week 2", Evidence: "902 clean runs", At: at(200),
		Request: &rollout.Request{Percent: 25, Actor: "lea", Reason: "week 2", At: at(200)},
	})
}

var assetVersion = regexp.MustCompile(`\?v=[0-9a-f]{12}`)

func (a *api) golden(name, got string) {
	a.Helper()
	got = assetVersion.ReplaceAllString(got, "?v=VERSION")
	file := filepath.Join("testdata", name+".html")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			a.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			a.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		a.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		a.Errorf("%s (-want +got), -update writes it anew:\n%s", file, diff)
	}
}

func TestThePagesAreWhatTheyWere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, path string
		teams      int
	}{
		{"teams-0", "/", 0},
		{"teams-1", "/", 1},
		{"teams-20", "/", 20},
		{"teams-filtered", "/?q=etl&answer=ready&still=1", 20},
		{"team-ready", "/teams/data-eng?percent=50", 5},
		{"team-blocked", "/teams/billing", 5},
		{"signals", "/signals", 5},
		{"replicas", "/replicas", 0},
	} {
		a := newDesk(t, some(tt.teams), func(o *console.Options) {
			o.Waivers = func() map[identity.Team][]readiness.Waiver {
				return map[identity.Team][]readiness.Waiver{"payments": {
					{Account: "svc-settle", Reason: identity.RoleMissing, Owner: "jo", Why: "the role comes with the next release", Until: noon.AddDate(0, 0, 18)},
					{Account: "svc-gone", Reason: identity.ActionDenied, Owner: "jo", Why: "was needed once", Until: noon.AddDate(0, 0, -2)},
				}}
			}
		})
		if tt.teams > 0 {
			a.past()
		}
		got := a.view(tt.path)
		if got.Code != http.StatusOK || got.Header().Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%s: %d %v", tt.path, got.Code, got.Header())
		}
		a.golden(tt.name, got.Body.String())
	}
}

// everyPage are paths that all answer with a page.
func everyPage() []string {
	return []string{
		"/", "/?answer=blocked", "/?q=billing&answer=", "/?q=none+of+them", "/?still=1", "/signals", "/replicas", "/help", "/teams/data-eng", "/teams/billing",
		"/teams/payments", "/teams/search", "/teams/growth", "/teams/risk", "/teams/dark", "/teams/data-eng?percent=0", "/teams/data-eng?percent=100",
		"/teams/data-eng?percent=33&history=all", "/teams/nobody", "/teams/data-eng?percent=x", "/nothing", "/teams/ml-platform",
	}
}

// everyKind is a console with a team of each kind.
func everyKind(t *testing.T, change ...func(*console.Options)) *api {
	all := some(12)
	retire := readiness.Report{
		Answer: readiness.Waiting, Why: "at 100% for 9 of 14 days", Wait: 5 * 24 * time.Hour, Checks: checks(readiness.RaiseChecks(), nil),
		Retire: checks(readiness.RetireChecks(), map[readiness.CheckName]readiness.Check{readiness.StoodEnforced: {Have: "9 days", Need: "14 days"}}),
	}
	all["growth"] = retire
	all["risk"] = readiness.Report{Answer: readiness.Done, Why: "its static credentials have ended"}
	all["ml-platform"] = readiness.Report{Answer: readiness.Held, Why: "2 known accounts refused", Owner: identity.OwnerTeam}
	a := newDesk(t, all, append([]func(*console.Options){func(o *console.Options) { o.Teams = append(o.Teams, "dark", identity.Unassigned) }}, change...)...)
	a.past()
	a.put(rollout.Change{Team: "growth", Percent: 100, Actor: "mina"})
	a.put(rollout.Change{Team: "risk", Percent: 100, Retire: true, Kind: rollout.KindRetire, Actor: "jon"})
	a.put(rollout.Change{
		Team: "ml-platform", Percent: 20, Actor: "ines", Hold: &rollout.Hold{Reason: "2 known accounts refused", Actor: "automatic", At: noon.Add(-time.Hour), Until: noon.Add(time.Hour)},
		Request: &rollout.Request{Percent: 50, Actor: "ines", At: noon.Add(-2 * time.Hour)},
	})
	a.put(rollout.Change{Team: "billing", Percent: 0, Request: &rollout.Request{Percent: 10, Actor: "tom", At: noon.Add(-time.Hour), Brownouts: []rollout.Brownout{{From: noon.Add(-time.Minute), Until: noon.Add(time.Minute), Percent: 40}}}})
	return a
}

func TestEveryPageIsSound(t *testing.T) {
	t.Parallel()
	for n, a := range map[string]*api{"no team": newDesk(t, nil), "one team": newDesk(t, some(1)), "all kinds": everyKind(t), "hostile names": hostile(t)} {
		for _, path := range everyPage() {
			got := a.view(path)
			for _, flaw := range flaws(a, path, got.Body.String()) {
				t.Errorf("%s, %s: %s", n, path, flaw)
			}
		}
		for _, flaw := range flaws(a, "/", a.view("/", from("192.0.2.7:1")).Body.String()) {
			t.Errorf("%s, a refusal: %s", n, flaw)
		}
	}
}

func TestThePagesSayWhatIsTheMatter(t *testing.T) {
	t.Parallel()
	a := everyKind(t)
	for _, tt := range []struct{ path, want string }{
		{"/", "16 teams"}, // and the accounts of nobody
		{"/", "asks for 10%"},
		{"/", "brownout: 40%, ends in 1 min"},
		{"/", "the evidence cannot be read: rollout store unavailable: nobody answers"},
		{"/", "open security signal"},
		{"/", "held 1 h ago by automatic, ends in 1 h"},
		{"/teams/data-eng", "YES, you may raise to 100%"},
		{"/teams/data-eng", "25% must use OIDC: 23 of 88 runs yesterday (26%)"},
		{"/teams/data-eng?percent=50", "about 44 of 88 runs a day, at worst 1 broken run in 11 days"},
		{"/teams/data-eng?percent=50", "newly selected: svc-etl / from 25 to 50"},
		{"/teams/data-eng?percent=10", "Lowering is always allowed."},
		{"/teams/billing", "NO: aud_mismatch in svc-billing / ExportInvoices, 31 runs"},
		{"/teams/billing", "Who acts: <strong>team billing</strong>"},
		{"/teams/billing", "4bf92f3577b34da6a3ce929d0e0e4736"},
		{"/teams/billing", "at least 40% must use OIDC. It ends in 1 min."},
		{"/teams/growth", "To retire it, <code>rollout.d/growth.yaml</code>"},
		{"/teams/growth", "WAIT before you retire it: at 100% for 9 of 14 days, about 5 days more"},
		{"/teams/risk", "RETIRED: its static credentials have ended"},
		{"/teams/ml-platform", "HELD: 2 known accounts refused"},
		{"/teams/ml-platform", "the hold ends <time"},
		{"/teams/ml-platform", "Release it first: crossfade rollout release ml-platform"},
		{"/teams/dark", "NO EVIDENCE"},
		{"/teams/nobody", "There is no team &#34;nobody&#34;."},
		{"/teams/bil", "Did you mean billing? Look at the page of all teams."},
		{"/teams/data-eng?percent=x", "Use a whole number from 0 to 100."},
		{"/?answer=x", "answer is &#34;x&#34;."},
		{"/help", "<h2 id=\"keyerror-response\">KeyError: 'response'</h2>"},
		{"/replicas", "2 gateways are alive and serve by one configuration."},
		{"/signals", "identity_drift"},
	} {
		if got := a.view(tt.path).Body.String(); !strings.Contains(got, tt.want) {
			t.Errorf("%s does not say %q:\n%s", tt.path, tt.want, got)
		}
	}
	if got := a.view("/teams/risk").Body.String(); strings.Contains(got, "Next step") {
		t.Error("a retired team has a next step")
	}
}

func TestTheHelpNamesWhomTheConfigurationNames(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	if got := a.view("/help").Body.String(); strings.Contains(got, "Whom to ask") {
		t.Errorf("nobody is named, and the page says:\n%s", got)
	}
	a = newAPI(t, func(o *console.Options) { o.Guide, o.Contact = "https://wiki.acme.dev/oidc", "#platform" })
	got := a.view("/help").Body.String()
	for _, want := range []string{
		`<a href="https://wiki.acme.dev/oidc">https://wiki.acme.dev/oidc</a>`, "Ask #platform about anything",
		"Start the worker through `crossfade agent` (https://wiki.acme.dev/oidc), or ask #platform.",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the help does not say %q:\n%s", want, got)
		}
	}
}

func TestAccountsWithoutATeamAreNeverRaised(t *testing.T) {
	t.Parallel()
	nobody := dataEng()
	a := newDesk(t, reports{identity.Unassigned: nobody})
	for path, want := range map[string]string{
		"/": "3 accounts without a team: name it in the principals file", "/teams/unassigned": "<strong>the platform team</strong>",
	} {
		got := a.view(path).Body.String()
		if !strings.Contains(got, want) || strings.Contains(got, "YES") || strings.Contains(got, "Next step") {
			t.Errorf("%s does not say %q, or says that they may be raised:\n%s", path, want, got)
		}
	}
	a = newDesk(t, reports{identity.Unassigned: {Answer: readiness.Waiting, Why: "no request of the team was seen yet"}})
	if got := a.view("/").Body.String(); !strings.Contains(got, "No team yet") {
		t.Errorf("when there are none of them:\n%s", got)
	}
}

func TestWithoutEvidenceThePagesSaySo(t *testing.T) {
	t.Parallel()
	a := everyKind(t, func(o *console.Options) {
		o.Days = nil
		o.Readiness = reporter(func(context.Context, rollout.State) (readiness.Report, error) {
			return readiness.Report{}, fmt.Errorf("%w: Redis is away", rollout.ErrUnavailable)
		})
	})
	for path, want := range map[string]string{
		"/": "the evidence cannot be read", "/teams/data-eng": "NO EVIDENCE", "/teams/ml-platform": "HELD: 2 known accounts refused",
		"/teams/risk": "RETIRED", "/signals": "Nothing is known of",
	} {
		got := a.view(path)
		if got.Code != http.StatusOK || !strings.Contains(got.Body.String(), want) {
			t.Errorf("%s does not say %q: %d\n%s", path, want, got.Code, got.Body)
		}
	}
}

func TestAPageTellsHowOldItIs(t *testing.T) {
	t.Parallel()
	a := everyKind(t, func(o *console.Options) {
		table := o.Table.(fixedTable)
		table.trouble = errors.New("connection refused")
		o.Table = table
	})
	a.away = rollout.ErrUnavailable
	got := a.view("/").Body.String()
	for _, want := range []string{"What you see is what was known 1 s ago: connection refused", `data-trouble="yes"`, "the gateways are not known"} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q:\n%s", want, got)
		}
	}
	if got := a.view("/replicas"); got.Code != http.StatusOK || !strings.Contains(got.Body.String(), "The store does not say which gateways there are") {
		t.Errorf("the replicas: %d\n%s", got.Code, got.Body)
	}
	a.store.SetDown(true)
	if got := a.view("/teams/data-eng").Body.String(); !strings.Contains(got, "The history cannot be read") {
		t.Errorf("the team's page:\n%s", got)
	}
}

func TestBeforeAnythingIsKnownAPageWaits(t *testing.T) {
	t.Parallel()
	a := newDesk(t, nil, func(o *console.Options) { o.Table = unread{o.Table} })
	for _, path := range []string{"/", "/teams/data-eng", "/signals"} {
		got := a.view(path)
		if got.Code != http.StatusServiceUnavailable || !strings.Contains(got.Body.String(), `<meta http-equiv="refresh" content="5">`) {
			t.Errorf("%s: %d\n%s", path, got.Code, got.Body)
		}
	}
}

// unread is a table that was never read.
type unread struct{ console.Table }

func (unread) Loaded() bool { return false }

func TestAConfigurationThatDiffersIsSeen(t *testing.T) {
	t.Parallel()
	a := newDesk(t, nil)
	a.fleet = append(a.fleet, fleet.Replica{ID: "c", Version: "1.3.0", Config: "0cc175b9c0f1b6a8", Seen: noon}, fleet.Replica{ID: "d", Config: "5d41402abc4b2a76", Seen: noon.Add(-2 * time.Minute)})
	got := a.view("/replicas").Body.String()
	for _, want := range []string{"3 gateways, of more than one configuration", "3 gateways are alive and their configurations differ.", "</span> differs", "</span> silent", "(this one)"} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q:\n%s", want, got)
		}
	}
}

func TestAGatewayWhoseStoreIsNotWhatItWasIsSeen(t *testing.T) {
	t.Parallel()
	a := newDesk(t, nil)
	if got := a.view("/replicas").Body.String(); strings.Contains(got, "store regressed") {
		t.Errorf("all is well, and it says:\n%s", got)
	}
	a.fleet[0].Regressed = true
	if got := a.view("/replicas").Body.String(); strings.Count(got, "store regressed") != 1 {
		t.Errorf("it does not say which gateway goes on by what it knew:\n%s", got)
	}
	a.fleet[0].LateSeconds = 12.5
	got := a.want(ask{method: "GET", path: "/replicas"}, 200, "")
	var list console.Replicas
	if err := json.Unmarshal([]byte(got.body), &list); err != nil || !list.Replicas[0].Regressed || list.Replicas[0].LateSeconds != 12.5 || list.Replicas[1].Regressed {
		t.Errorf("%v: %v", err, got)
	}
}

func TestATeamsPageSaysWhatModeObserveEnforces(t *testing.T) {
	t.Parallel()
	r := dataEng()
	r.InEffect.Observed = true
	r.Late, r.Warnings = 20*time.Second, []string{"the evidence is 20 seconds late"}
	a := newDesk(t, reports{"data-eng": r}, func(o *console.Options) {
		o.Days = func(context.Context, identity.Team, int) ([]assess.Day, error) {
			return []assess.Day{{Day: "2030-05-14", Runs: 3}}, nil
		}
	})
	for path, wants := range map[string][]string{
		"/teams/data-eng": {"in mode observe, which enforces nothing", "the evidence is 20 seconds late", "Would break, 1 day<", "none in 1 day<"},
		"/":               {"23 of 88, mode observe enforced none", "the evidence is 20 seconds late"},
	} {
		got := a.view(path).Body.String()
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s does not say %q:\n%s", path, want, got)
			}
		}
	}
}

func TestATeamsPageShowsTheFirstOfVeryManyFailures(t *testing.T) {
	t.Parallel()
	r := dataEng()
	for i := range 5000 {
		f := readiness.Failure{Account: "svc-etl", Pipeline: fmt.Sprint("Made", i), Reason: identity.TokenAbsent, Verdict: "no_token", Runs: 1, Open: i%2 == 0}
		r.Failures = append(r.Failures, f)
	}
	open := 0
	for _, f := range r.Failures {
		if f.Open {
			open++
		}
	}
	page := newDesk(t, reports{"data-eng": r}).view("/teams/data-eng").Body.String()
	for _, want := range []string{fmt.Sprintf("%d,%03d failures", open/1000, open%1000), "The first 50 are shown; <code>crossfade readiness data-eng -o json</code>", "closed, in nobody"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if n := strings.Count(page, "Made"); n == 0 || n > 200 || len(page) > 300_000 {
		t.Errorf("it names %d of them in %d bytes", n, len(page))
	}
}

func TestAFragmentIsWhatChanges(t *testing.T) {
	t.Parallel()
	a := everyKind(t)
	for _, path := range []string{"/", "/teams/data-eng", "/signals", "/replicas"} {
		got := a.view(path, with("Crossfade-Fragment", "live"))
		text := strings.TrimSpace(got.Body.String())
		if got.Header().Get("Crossfade-Fragment") != "live" || !strings.HasPrefix(text, `<div id="live"`) || !strings.HasSuffix(text, "</div>") {
			t.Errorf("%s: %v\n%s", path, got.Header(), text)
		}
		if whole := a.view(path); !strings.Contains(whole.Body.String(), text) || whole.Header().Get("Crossfade-Fragment") != "" {
			t.Errorf("%s: the page does not have its fragment", path)
		}
	}
	if got := a.view("/help", with("Crossfade-Fragment", "live")); !strings.HasPrefix(got.Body.String(), "<!DOCTYPE html>") {
		t.Errorf("a page that does not change: %s", got.Body)
	}
	if got := a.view("/teams/nobody", with("Crossfade-Fragment", "live")); got.Code != 404 || got.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("of a team that is gone: %d %v", got.Code, got.Header())
	}
}

func TestPagesHaveTheRulesOfTheAPI(t *testing.T) {
	t.Parallel()
	local, far := everyKind(t), everyKind(t, remote)
	const elsewhere = "192.0.2.7:50000"
	for _, tt := range []struct {
		name   string
		a      *api
		path   string
		status int
		says   string
		change []func(*http.Request)
	}{
		{"on this machine", local, "/", 200, "<h1>Teams</h1>", nil},
		{"from elsewhere", far, "/", 401, "How to get in with a browser", []func(*http.Request){from(elsewhere)}},
		{"from elsewhere, to a program", far, "/", 401, `"reason":"token_absent"`, []func(*http.Request){from(elsewhere), with("Accept", "*/*")}},
		{"passed on by a proxy", local, "/teams/data-eng", 401, "ssh -L", []func(*http.Request){with("X-Forwarded-For", "192.0.2.7")}},
		{"passed on with a viewer's token", local, "/teams/data-eng", 200, "data-eng", []func(*http.Request){with("X-Forwarded-For", "192.0.2.7"), with("Authorization", "Bearer viewer")}},
		{"a worker's token", far, "/", 403, "may not read this", []func(*http.Request){from(elsewhere), with("Authorization", "Bearer worker")}},
		{"a viewer's token", far, "/", 200, "<h1>Teams</h1>", []func(*http.Request){from(elsewhere), with("Authorization", "Bearer viewer")}},
		{"keys that cannot be had", far, "/", 503, "tries again by itself", []func(*http.Request){from(elsewhere), with("Authorization", "Bearer early")}},
		{"the one-time token from elsewhere", far, "/", 401, "on the gateway&#39;s own machine only", []func(*http.Request){from(elsewhere), with("Authorization", "Bearer one-time-secret")}},
		{"a token in the address", far, "/?token=one-time-secret&still=1", 401, "Never put a token into an address", []func(*http.Request){from(elsewhere)}},
		{"another name", local, "/", 421, "answers to names of this machine only", []func(*http.Request){func(r *http.Request) { r.Host = "evil.example" }}},
		{"another name for a file", local, "/assets/console.css", 421, "host_unknown", []func(*http.Request){func(r *http.Request) { r.Host = "evil.example" }}},
		{"a link of another site", local, "/teams/data-eng?percent=50", 403, `<a href="/teams/data-eng?percent=50">open the page</a>`, []func(*http.Request){with("Sec-Fetch-Site", "cross-site")}},
		{"a link to another site", local, "//evil.example/x", 403, `<a href="/evil.example/x">open the page</a>`, []func(*http.Request){with("Sec-Fetch-Site", "cross-site")}},
		{"what somebody typed", local, "/", 200, "<h1>Teams</h1>", []func(*http.Request){with("Sec-Fetch-Site", "none")}},
		{"a form of another site", local, "/", 403, "made this request", []func(*http.Request){with("Origin", "https://evil.example")}},
		{"nothing", local, "/nothing", 404, "<h1>Not Found</h1>", nil},
		{"nothing, to a program", local, "/nothing", 404, `"reason":"route_unknown"`, []func(*http.Request){with("Accept", "application/json")}},
		{"the API in a browser", local, "/api/v1/nothing", 404, `"reason":"route_unknown"`, nil},
		{"a change", local, "/teams/data-eng", 405, "The pages are for reading", []func(*http.Request){func(r *http.Request) { r.Method = http.MethodPost }}},
		{"a file without a token", far, "/assets/console.js", 200, "use strict", []func(*http.Request){from(elsewhere)}},
		{"a template", local, "/assets/team.html", 404, "There is nothing here.", nil},
		{"no file", local, "/assets/", 404, "There is nothing here.", nil},
	} {
		got := tt.a.view(tt.path, tt.change...)
		if got.Code != tt.status || !strings.Contains(got.Body.String(), tt.says) {
			t.Errorf("%s: %d, want %d with %q:\n%s", tt.name, got.Code, tt.status, tt.says, got.Body)
		}
		if strings.Contains(got.Body.String(), "one-time-secret") {
			t.Errorf("%s: the page has the one-time token", tt.name)
		}
		h := got.Header()
		policy := h.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: the policy is %q", tt.name, policy)
		}
		if h.Get("Set-Cookie") != "" || h.Get("Access-Control-Allow-Origin") != "" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: the headers are %v", tt.name, h)
		}
		if tt.status == 405 && h.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: Allow is %q", tt.name, h.Get("Allow"))
		}
		if tt.status == 401 && !strings.HasPrefix(h.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%s: the challenge is %q", tt.name, h.Get("WWW-Authenticate"))
		}
	}
}

func TestFilesOfPagesAreKeptByTheirName(t *testing.T) {
	t.Parallel()
	a := newDesk(t, nil)
	found := 0
	for _, m := range regexp.MustCompile(`"(/assets/[^"]+)"`).FindAllStringSubmatch(a.view("/").Body.String(), -1) {
		got := a.view(m[1])
		if got.Code != 200 || got.Header().Get("Cache-Control") != "private, max-age=31536000, immutable" {
			t.Errorf("%s: %d %v", m[1], got.Code, got.Header())
		}
		if old := a.view(strings.Split(m[1], "?")[0] + "?v=old"); old.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("an old name of %s: %v", m[1], old.Header())
		}
		found++
	}
	if found < 4 {
		t.Errorf("a page has %d files", found)
	}
}

func TestPagesAreCountedByTheirRoute(t *testing.T) {
	t.Parallel()
	a := everyKind(t)
	for _, path := range []string{"/", "/teams/data-eng", "/teams/nobody", "/signals", "/assets/console.css", "/nothing"} {
		a.view(path)
	}
	want := map[string]int{"/ 200": 1, "/teams/{team} 200": 1, "/teams/{team} 404": 1, "/signals 200": 1, "/assets/ 200": 1, " 404": 1}
	if !maps.Equal(a.counts, want) {
		t.Errorf("counted: %v, want %v", a.counts, want)
	}
	for id := range want {
		if route, _, _ := strings.Cut(id, " "); route != "" && !slices.Contains(console.Routes(), route) {
			t.Errorf("%s is none of %v", route, console.Routes())
		}
	}
}

// hostile is a console where everything that others choose is chosen by somebody
// who means harm.
func hostile(t *testing.T) *api {
	t.Helper()
	names := []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `javascript:alert(1)`, "\u202egnp.exe\u202c", "a\nb\x00c", strings.Repeat("x", 5000),
		`{{.}}`, `</code></td></table></main>`, `' onclick='alert(1)`, "\u0645\u0631\u062d\u0628\u0627",
	}
	r := dataEng()
	r.Answer, r.Why = readiness.Blocked, strings.Join(names, " ")
	r.Failures, r.Accounts, r.Warnings = nil, nil, names
	for i, name := range names {
		r.Failures = append(r.Failures, readiness.Failure{
			Account: name, Pipeline: name, Reason: identity.Reason(name), Verdict: "identity_drift", Owner: identity.OwnerSecurity, Runs: 1, TraceID: name, Detail: name,
			Open: i%2 == 0, Waived: name, Advice: name, Closes: name, Last: noon,
		})
		r.Accounts = append(r.Accounts, readiness.AccountReport{Account: name, Owner: name, State: readiness.AccountState(name)})
	}
	a := newDesk(t, reports{"data-eng": r, "a?b#c&d\"'": r, "<b>x": r}, func(o *console.Options) {
		o.Waivers = func() map[identity.Team][]readiness.Waiver {
			all := make(map[identity.Team][]readiness.Waiver)
			for _, name := range names {
				all["data-eng"] = append(all["data-eng"], readiness.Waiver{Account: name, Reason: identity.Reason(name), Owner: name, Why: name, Until: noon})
			}
			return all
		}
		o.Files = func() map[identity.Team]console.File {
			return map[identity.Team]console.File{"data-eng": {Management: "file differs", Name: names[0]}}
		}
	})
	for i, name := range names {
		a.fleet = append(a.fleet, fleet.Replica{ID: name, Version: name, Config: name, Seen: noon})
		at := noon.Add(time.Duration(i-20) * time.Hour)
		name = name[:min(len(name), 500)] // longer ones are refused
		a.put(rollout.Change{
			Team: "data-eng", Percent: rollout.Percent(i), Actor: name, Source: "api", Reason: name, Evidence: name, At: at,
			Request: &rollout.Request{Percent: 50, Actor: name, Reason: name, At: at}, Hold: &rollout.Hold{Reason: name, Actor: name, At: at},
		})
	}
	return a
}

func TestNothingThatOthersChooseIsMoreThanText(t *testing.T) {
	t.Parallel()
	a := hostile(t)
	for _, path := range []string{
		"/", "/teams/data-eng", "/signals", "/replicas", "/?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E", "/teams/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
		"/teams/a%3Fb%23c&d%22%27", "/?answer=%3Cscript%3E", "/teams/data-eng?percent=%3Cscript%3E", "/%3Cscript%3E",
	} {
		got := a.view(path)
		root, err := html.Parse(strings.NewReader(got.Body.String()))
		if err != nil {
			t.Fatal(err)
		}
		for n := range root.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			src := attr(n, "src")
			if (n.Data == "script" || n.Data == "img") && !strings.HasPrefix(src, "/assets/") || n.Data == "b" && attr(n, "class") == "" && n.Parent.Data != "a" {
				t.Errorf("%s has <%s src=%q>", path, n.Data, src)
			}
		}
		if strings.ContainsAny(got.Body.String(), "\u202e\x00") {
			t.Errorf("%s has what turns text around", path)
		}
	}
	if got := a.view("/teams/a%3Fb%23c&d%22%27"); got.Code != http.StatusOK {
		t.Errorf("a team of a strange name: %d", got.Code)
	}
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// flaws are what is wrong with a page.
func flaws(a *api, path, text string) (found []string) {
	root, err := html.Parse(strings.NewReader(text))
	if err != nil {
		return []string{err.Error()}
	}
	flaw := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	ids, count, level := make(map[string]bool), make(map[string]int), 0
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && attr(n, "id") != "" {
			if ids[attr(n, "id")] {
				flaw("the id %q is there twice", attr(n, "id"))
			}
			ids[attr(n, "id")] = true
		}
	}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if n.Namespace == "" {
			count[n.Data]++
		}
		for _, at := range n.Attr {
			if at.Key == "style" || strings.HasPrefix(at.Key, "on") {
				flaw("<%s> has %s in it", n.Data, at.Key)
			}
		}
		if len(n.Data) == 2 && n.Data[0] == 'h' && n.Data[1] >= '1' && n.Data[1] <= '6' {
			if is := int(n.Data[1] - '0'); is > level+1 {
				flaw("a heading of level %d follows one of %d", is, level)
			} else {
				level = is
			}
		}
		switch n.Data {
		case "script", "style":
			if attr(n, "src") == "" {
				flaw("<%s> stands in the page", n.Data)
			}
		case "th":
			if attr(n, "scope") == "" {
				flaw("a <th> without a scope")
			}
		case "table":
			if first := firstElement(n); first == nil || first.Data != "caption" {
				flaw("a table without a caption")
			}
		case "details":
			if first := firstElement(n); first == nil || first.Data != "summary" || attr(n, "id") == "" {
				flaw("a <details> without an id or a summary")
			}
		case "input", "select":
			if !slices.ContainsFunc(slices.Collect(root.Descendants()), func(l *html.Node) bool { return l.Data == "label" && attr(l, "for") == attr(n, "id") }) {
				flaw("a field without a label")
			}
		case "form":
			if attr(n, "method") != "get" {
				flaw("a form that is not for reading")
			}
		}
		for _, name := range []string{"aria-labelledby", "aria-describedby", "for", "data-copy"} {
			if id := attr(n, name); id != "" && !ids[id] {
				flaw("%s is %q, which is not there", name, id)
			}
		}
		for _, name := range []string{"href", "src", "action"} {
			link := attr(n, name)
			if link == "" {
				continue
			}
			if why := a.broken(path, link, ids); why != "" {
				flaw("%s=%q: %s", name, link, why)
			}
		}
	}
	for _, one := range []string{"main", "h1", "title", "header", "footer", "nav"} {
		if count[one] != 1 {
			flaw("there are %d <%s>", count[one], one)
		}
	}
	return found
}

func firstElement(n *html.Node) *html.Node {
	for c := range n.ChildNodes() {
		if c.Type == html.ElementNode {
			return c
		}
	}
	return nil
}

var followed sync.Map // what the links of the tests lead to

// broken says what is wrong with a link.
func (a *api) broken(from, link string, ids map[string]bool) string {
	base, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:8081"+from, nil)
	if err != nil {
		return err.Error()
	}
	u, err := base.URL.Parse(link)
	if err != nil || u.Host != "127.0.0.1:8081" {
		return fmt.Sprintf("it leads away (%v)", err)
	}
	if strings.HasPrefix(link, "#") {
		if !ids[u.Fragment] {
			return "there is nothing of that name"
		}
		return ""
	}
	fragment := u.Fragment
	u.Fragment = ""
	key := fmt.Sprintf("%p %s", a, u.RequestURI())
	text, ok := followed.Load(key)
	if !ok {
		got := a.view(u.RequestURI())
		if u.Query().Get("percent") != "" || u.Query().Get("answer") == "" || got.Code != http.StatusOK {
			if got.Code != http.StatusOK && u.RequestURI() != from && !strings.HasPrefix(link, "?") {
				return fmt.Sprintf("it leads to %d", got.Code)
			}
		}
		text = got.Body.String()
		followed.Store(key, text)
	}
	if fragment != "" && !strings.Contains(text.(string), `id="`+fragment+`"`) {
		return "there is nothing of that name"
	}
	return ""
}

func TestAllTeamsAreReadAtOnceButNotTooMany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var asked, now, most int
		all := some(200)
		a := newDesk(t, all, func(o *console.Options) {
			o.Readiness = reporter(func(ctx context.Context, s rollout.State) (readiness.Report, error) {
				mu.Lock()
				asked, now = asked+1, now+1
				most = max(most, now)
				mu.Unlock()
				time.Sleep(20 * time.Millisecond)
				mu.Lock()
				now--
				mu.Unlock()
				return all.report(ctx, s)
			})
		})
		start := time.Now()
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				if got := a.view("/"); got.Code != http.StatusOK {
					t.Errorf("the page: %d", got.Code)
				}
			})
		}
		both.Wait()
		if asked != 200 || most != 8 || time.Since(start) != 500*time.Millisecond {
			t.Errorf("two readers: %d reports, %d at once, %s; want each of 200 once, 8 at once, so 500ms", asked, most, time.Since(start))
		}
	})
}
