package telemetry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/gateway/telemetry"
	"crossfade/rollout"
)

func TestFreshSeriesStandAtZero(t *testing.T) {
	tel := start(t, telemetry.Options{
		Version: "v1", Teams: []identity.Team{"data-eng"}, Issuers: []string{"https://idp.acme.dev"},
	})
	var b strings.Builder
	for line := range strings.Lines(scrape(t, tel, "text/plain")) {
		if strings.Contains(line, "crossfade_") && !strings.HasPrefix(line, "crossfade_build_info") {
			b.WriteString(line)
		}
	}
	golden(t, "fresh.prom", b.String())
}

// What dashboards and rules may ask for: every metric with its labels.
func TestTheListOfMetricsIsWhole(t *testing.T) {
	t.Parallel()
	tel := start(t, telemetry.Options{})
	descs := make(chan *prometheus.Desc)
	go func() { defer close(descs); tel.Describe(descs) }()
	form := regexp.MustCompile(`^Desc\{fqName: "(\w+)", .*variableLabels: \{([\w,]*)\}\}$`)
	var lines []string
	for desc := range descs {
		parts := form.FindStringSubmatch(desc.String())
		if parts == nil {
			t.Fatalf("what is %s?", desc)
		}
		if labels := strings.Split(parts[2], ","); strings.HasPrefix(parts[1], "crossfade_") {
			slices.Sort(labels)
			lines = append(lines, fmt.Sprintf("%s{%s}\n", parts[1], strings.Join(labels, ",")))
		}
	}
	slices.Sort(lines)
	golden(t, "metrics.golden", strings.Join(lines, ""))
}

func TestObserveCounts(t *testing.T) {
	tel := start(t, telemetry.Options{Teams: []identity.Team{"data-eng"}})
	server := httptest.NewServer(tel.Handler())
	defer server.Close()
	tell(tel, event())
	tell(tel, event())
	tell(tel, refused())
	want := `
# HELP crossfade_request_duration_seconds Time from the request's headers to the end of its reply.
# TYPE crossfade_request_duration_seconds histogram
`
	for _, outcome := range []struct {
		name string
		n    int
		sum  string
	}{{"allowed", 2, "0.0025"}, {"refused", 1, "0.00125"}} {
		for _, le := range []string{"0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"} {
			n := outcome.n
			if le < "0.0025" && le != "+Inf" {
				n = 0
			}
			want += fmt.Sprintf("crossfade_request_duration_seconds_bucket{outcome=%q,scheme=\"basic\",le=%q} %d\n", outcome.name, le, n)
		}
		want += fmt.Sprintf("crossfade_request_duration_seconds_sum{outcome=%q,scheme=\"basic\"} %s\n", outcome.name, outcome.sum)
		want += fmt.Sprintf("crossfade_request_duration_seconds_count{outcome=%q,scheme=\"basic\"} %d\n", outcome.name, outcome.n)
	}
	if err := testutil.ScrapeAndCompare(server.URL, strings.NewReader(want), "crossfade_request_duration_seconds"); err != nil {
		t.Error(err)
	}
	const counted = `crossfade_requests_in_flight 0
`
	if err := testutil.ScrapeAndCompare(server.URL, strings.NewReader(
		"# HELP crossfade_requests_in_flight Requests whose event is not told yet; one that waits for its shadow is among them.\n"+
			"# TYPE crossfade_requests_in_flight gauge\n"+counted), "crossfade_requests_in_flight"); err != nil {
		t.Error(err)
	}
	got := samples(t, tel, "crossfade_requests_total", "crossfade_shadow_verdicts_total", "crossfade_shadow_mismatches_total",
		"crossfade_rollout_enforced_requests_total", "crossfade_upstream_duration_seconds_count")
	wantSamples := `crossfade_requests_total{outcome="allowed",reason="",scheme="basic",team="data-eng"} 2
crossfade_requests_total{outcome="refused",reason="legacy_refused",scheme="basic",team="data-eng"} 1
crossfade_rollout_enforced_requests_total{outcome="refused",team="data-eng"} 1
crossfade_shadow_mismatches_total{reason="token_absent",team="data-eng"} 3
crossfade_shadow_verdicts_total{evidence="none",team="data-eng",verdict="no_token"} 3
crossfade_upstream_duration_seconds_count{code="200"} 2
`
	if diff := cmp.Diff(wantSamples, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSignalsAreCountedByReasonAndTeam(t *testing.T) {
	tel := start(t, telemetry.Options{Teams: []identity.Team{"data-eng"}})
	drift := event()
	drift.Shadow = shadow.Result{Verdict: shadow.IdentityDrift, Reason: identity.TeamMismatch, Evidence: shadow.EvidenceClient}
	for _, ev := range []*gateway.Event{event(), refused(), wrongPassword(), wrongPassword(), tooMany(), drift} {
		tell(tel, ev)
	}
	want := `crossfade_security_signals_total{reason="legacy_unknown",team="unassigned"} 2
crossfade_security_signals_total{reason="team_mismatch",team="data-eng"} 1
crossfade_security_signals_total{reason="throttled",team="unassigned"} 1
crossfade_throttled_total{kind="failures"} 1
`
	if diff := cmp.Diff(want, samples(t, tel, "crossfade_security_signals_total", "crossfade_throttled_total")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRequestsInFlight(t *testing.T) {
	tel := start(t, telemetry.Options{})
	ctx, _ := tel.Begin(request(http.MethodGet, "/"))
	if got := samples(t, tel, "crossfade_requests_in_flight"); got != "crossfade_requests_in_flight 1\n" {
		t.Errorf("after Begin: %q", got)
	}
	tel.Observe(ctx, event())
	if got := samples(t, tel, "crossfade_requests_in_flight"); got != "" {
		t.Errorf("after Observe: %q", got)
	}
}

func TestUpstreamCodes(t *testing.T) {
	cases := []struct {
		name   string
		status int
		err    error
		want   string
	}{
		{"the upstream's status is the code", 404, nil, "404"},
		{"a reply that broke off in its body had a status", 200, http.ErrAbortHandler, "200"},
		{"a refused connection is an error", 502, errors.New("connection refused"), "error"},
		{"a time-out is told apart", 504, context.DeadlineExceeded, "timeout"},
		{"a client that left is no error of the upstream", 0, fmt.Errorf("round trip: %w", context.Canceled), "canceled"},
		{"a status that no protocol has is an error", 99999, nil, "error"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tel := start(t, telemetry.Options{})
			ev := event()
			ev.Status, ev.UpstreamErr = c.status, c.err
			tell(tel, ev)
			want := fmt.Sprintf("crossfade_upstream_duration_seconds_count{code=%q} 1\n", c.want)
			if got := samples(t, tel, "crossfade_upstream_duration_seconds_count"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestHostileValuesBecomeNoLabel(t *testing.T) {
	const evil = "evil\"\n} 1\xff"
	tel := start(t, telemetry.Options{Teams: []identity.Team{"data-eng", "broken\xff"}, Issuers: []string{"https://a", "\xff"}})
	before := len(scrape(t, tel, "text/plain"))
	for i := range 100 {
		word := fmt.Sprintf("%s%d", evil, i)
		ev := event()
		ev.Method, ev.Path, ev.Host, ev.UserAgent = word, word, word, word
		ev.Principal = identity.Principal{Name: word, Team: identity.Team(word)}
		ev.Call.Method, ev.Call.Run, ev.Call.Family = word, word, word
		ev.Decision = gateway.Decision{Outcome: gateway.Outcome(word), Reason: identity.Reason(word), Control: gateway.SideLegacy}
		ev.Presented.Legacy = identity.Scheme(100 + i)
		ev.Shadow = shadow.Result{Verdict: shadow.Verdict(word), Reason: identity.Reason(word), Evidence: shadow.Evidence(word)}
		ev.Enforcement.Enforced = true
		ev.Status = 1000 + i
		tell(tel, ev)
		ev.Shadow.Verdict = shadow.WouldBreak
		tell(tel, ev)
		tel.JWKSRefresh(word, nil)
		tel.JWKSRefresh("\xff", errors.New("down"))
		tel.RolloutChanged(identity.Team(word), word, word)
	}
	text := scrape(t, tel, "text/plain")
	if strings.Contains(text, "evil") || strings.Contains(text, "broken") {
		t.Error("a hostile value is in the exposition")
	}
	// Two histogram families of one child each and a few "other" series.
	if grown := len(text) - before; grown > 8_000 {
		t.Errorf("the exposition grew by %d bytes", grown)
	}
	got := samples(t, tel, "crossfade_requests_total", "crossfade_shadow_verdicts_total", "crossfade_shadow_mismatches_total",
		"crossfade_rollout_enforced_requests_total", "crossfade_rollout_changes_total", "crossfade_jwks_refresh_total")
	want := `crossfade_jwks_refresh_total{issuer="other",result="error"} 100
crossfade_jwks_refresh_total{issuer="other",result="ok"} 100
crossfade_requests_total{outcome="undecided",reason="other",scheme="none",team="unassigned"} 200
crossfade_rollout_changes_total{direction="other",source="other",team="unassigned"} 100
crossfade_rollout_enforced_requests_total{outcome="undecided",team="unassigned"} 200
crossfade_shadow_mismatches_total{reason="other",team="unassigned"} 100
crossfade_shadow_verdicts_total{evidence="none",team="unassigned",verdict="not_evaluated"} 100
crossfade_shadow_verdicts_total{evidence="none",team="unassigned",verdict="would_break"} 100
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSetTeamsKeepsWhatWasCounted(t *testing.T) {
	tel := start(t, telemetry.Options{Teams: []identity.Team{"data-eng"}})
	tell(tel, event())
	tel.SetTeams([]identity.Team{"billing", "data-eng", "data-eng", ""})
	tell(tel, event())
	tel.SetTeams([]identity.Team{"billing"})
	tell(tel, event()) // now unassigned
	tel.SetTeams([]identity.Team{"data-eng"})
	tell(tel, event())
	want := `crossfade_requests_total{outcome="allowed",reason="",scheme="basic",team="data-eng"} 3
crossfade_requests_total{outcome="allowed",reason="",scheme="basic",team="unassigned"} 1
`
	if diff := cmp.Diff(want, samples(t, tel, "crossfade_requests_total")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if text := scrape(t, tel, "text/plain"); !strings.Contains(text, `crossfade_shadow_verdicts_total{evidence="client",team="billing",verdict="would_open"} 0`) {
		t.Error("a team that came with a reload has no series at zero")
	}
}

func TestHooks(t *testing.T) {
	tel := start(t, telemetry.Options{
		Teams: []identity.Team{"billing", "data-eng", "search"}, Issuers: []string{"https://a", "https://b"}, Now: noon,
	})
	tel.JWKSRefresh("https://a", nil)
	tel.JWKSRefresh("https://b", errors.New("down"))
	tel.SetIssuers([]string{"https://c"})
	tel.JWKSRefresh("https://c", nil)
	tel.TokenCache(true)
	tel.TokenCache(true)
	tel.TokenCache(false)
	tel.Reloaded(true, "old")
	tel.Reloaded(true, "new")
	tel.RolloutChanged("data-eng", telemetry.DirectionRaise, "file")
	tel.RolloutChanged("data-eng", telemetry.DirectionRaise, "file")
	tel.AuditRecords(telemetry.AuditOK, 3)
	tel.AuditRecords(telemetry.AuditLost, 2)
	tel.AuditRecords(telemetry.AuditError, 1)
	tel.AuditRecords("strange", -1)
	tel.RedisUp(true)
	tel.CertificateExpiry(telemetry.ListenerClients, noon())
	tel.CertificateExpiry(telemetry.ListenerAdmin, noon().Add(1e9))
	tel.ObserveShadow(func() int { return 3 }, func() uint64 { return 9 })
	tel.ObserveEvidence(func() int64 { return 4 })
	tel.ObserveRollout(table{at: noon(), states: []rollout.State{
		{
			Team: "data-eng", Percent: 25, Request: rollout.Request{Percent: 50, At: noon()},
			Hold: rollout.Hold{Reason: "look first", At: noon()},
		},
		{Team: "billing", Percent: 10, Hold: rollout.Hold{Reason: "no keys", At: noon(), Until: time.Now().Add(time.Hour)}},
		{Team: "search", Percent: 10, Hold: rollout.Hold{Reason: "no keys", At: noon(), Until: noon().Add(time.Hour)}}, // is over
		{Team: "gone", Percent: 100},
	}}, func() map[identity.Team]int { return map[identity.Team]int{"data-eng": 12, "gone": 5} })
	tel.ObserveEffect(func(s rollout.State) (float64, bool) { return float64(s.Percent) / 80, s.Team == "data-eng" })
	got := samples(t, tel, "crossfade_audit_records_total", "crossfade_jwks_refresh_total", "crossfade_jwks_last_refresh_timestamp_seconds",
		"crossfade_token_cache_total", "crossfade_config_last_reload_successful", "crossfade_config_info",
		"crossfade_rollout_changes_total", "crossfade_redis_up", "crossfade_tls_not_after_timestamp_seconds",
		"crossfade_shadow_queue_depth", "crossfade_shadow_shed_total", "crossfade_rollout_live_ratio",
		"crossfade_rollout_requested_ratio", "crossfade_rollout_effective_ratio", "crossfade_rollout_hold", "crossfade_rollout_break_glass", "crossfade_evidence_lost_total",
		"crossfade_rollout_latched_runs", "crossfade_rollout_table_timestamp_seconds", "crossfade_store_regressed")
	want := `crossfade_audit_records_total{result="error"} 1
crossfade_audit_records_total{result="lost"} 2
crossfade_audit_records_total{result="ok"} 3
crossfade_config_info{hash="new"} 1
crossfade_config_last_reload_successful 1
crossfade_evidence_lost_total 4
crossfade_jwks_last_refresh_timestamp_seconds{issuer="https://a"} 1.7723664e+09
crossfade_jwks_last_refresh_timestamp_seconds{issuer="https://c"} 1.7723664e+09
crossfade_jwks_refresh_total{issuer="https://a",result="ok"} 1
crossfade_jwks_refresh_total{issuer="https://b",result="error"} 1
crossfade_jwks_refresh_total{issuer="https://c",result="ok"} 1
crossfade_redis_up 1
crossfade_rollout_break_glass{team="billing"} 1
crossfade_rollout_changes_total{direction="raise",source="file",team="data-eng"} 2
crossfade_rollout_effective_ratio{team="billing"} 0.1
crossfade_rollout_effective_ratio{team="data-eng"} 0.3125
crossfade_rollout_effective_ratio{team="search"} 0.1
crossfade_rollout_hold{team="billing"} 1
crossfade_rollout_hold{team="data-eng"} 1
crossfade_rollout_latched_runs{team="data-eng"} 12
crossfade_rollout_live_ratio{team="billing"} 0.1
crossfade_rollout_live_ratio{team="data-eng"} 0.25
crossfade_rollout_live_ratio{team="search"} 0.1
crossfade_rollout_requested_ratio{team="billing"} 0.1
crossfade_rollout_requested_ratio{team="data-eng"} 0.5
crossfade_rollout_requested_ratio{team="search"} 0.1
crossfade_rollout_table_timestamp_seconds 1.7723664e+09
crossfade_shadow_queue_depth 3
crossfade_shadow_shed_total 9
crossfade_tls_not_after_timestamp_seconds{listener="admin"} 1.772366401e+09
crossfade_tls_not_after_timestamp_seconds{listener="listen"} 1.7723664e+09
crossfade_token_cache_total{result="hit"} 2
crossfade_token_cache_total{result="miss"} 1
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	tel.Reloaded(false, "bad")
	tel.RedisUp(false)
	tel.CertificateExpiry(telemetry.ListenerClients, time.Time{})
	tel.ObserveRollout(table{regressed: true}, nil)
	got = samples(t, tel, "crossfade_store_regressed", "crossfade_config_last_reload_successful", "crossfade_config_info", "crossfade_redis_up",
		"crossfade_tls_not_after_timestamp_seconds", "crossfade_rollout_live_ratio", "crossfade_rollout_table_timestamp_seconds")
	if diff := cmp.Diff("crossfade_config_info{hash=\"new\"} 1\ncrossfade_store_regressed 1\ncrossfade_tls_not_after_timestamp_seconds{listener=\"admin\"} 1.772366401e+09\n", got); diff != "" {
		t.Errorf("when all goes wrong (-want +got):\n%s", diff)
	}
}

func TestTheEffectiveShareIsThereBeforeAnyRunIs(t *testing.T) {
	tel := start(t, telemetry.Options{Teams: []identity.Team{"data-eng", "billing"}, Now: noon})
	tel.ObserveRollout(table{at: noon(), states: []rollout.State{{Team: "data-eng", Percent: 25}}}, nil)
	series := regexp.MustCompile(`(?m)^crossfade_rollout_effective_ratio.*`)
	want := []string{
		`crossfade_rollout_effective_ratio{team="billing"} 0`,
		`crossfade_rollout_effective_ratio{team="data-eng"} 0.25`,
		`crossfade_rollout_effective_ratio{team="unassigned"} 0`,
	}
	for _, when := range []string{"nobody was asked", "nothing is known"} {
		if diff := cmp.Diff(want, series.FindAllString(scrape(t, tel, "text/plain"), -1)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
		tel.ObserveEffect(func(rollout.State) (float64, bool) { return 0, false })
	}
}

type table struct {
	at        time.Time
	states    []rollout.State
	regressed bool
}

func (t table) States() []rollout.State { return t.states }
func (t table) LoadedAt() time.Time     { return t.at }
func (t table) Regressed() bool         { return t.regressed }

func TestExemplarsOfTracedRequests(t *testing.T) {
	exemplar := regexp.MustCompile(`crossfade_(request|upstream|auth)_duration_seconds_bucket\{[^}]*\} \d+ # \{trace_id="([0-9a-f]{32})"\}`)
	for _, c := range []struct {
		name, flags string
		want        int
	}{{"a sampled request leaves exemplars", "01", 3}, {"a request that is not sampled leaves none", "00", 0}} {
		t.Run(c.name, func(t *testing.T) {
			tel := start(t, telemetry.Options{SpanExporter: &spans{}})
			ctx, id := tel.Begin(request(http.MethodPost, "/api/get_work", "traceparent", "00-"+clientTrace+"-00f067aa0ba902b7-"+c.flags))
			tel.Authenticator(verified()).Authenticate(ctx, identity.Credential{Scheme: identity.SchemeBasic})
			tel.Observe(ctx, event())
			if id != clientTrace {
				t.Errorf("trace id %q", id)
			}
			found := exemplar.FindAllStringSubmatch(scrape(t, tel, "application/openmetrics-text; version=1.0.0"), -1)
			if len(found) != c.want {
				t.Fatalf("%d exemplars, want %d: %q", len(found), c.want, found)
			}
			for _, f := range found {
				if f[2] != clientTrace {
					t.Errorf("exemplar of trace %q", f[2])
				}
			}
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	var log buffer
	tel := start(t, telemetry.Options{Teams: []identity.Team{"data-eng"}, AccessLog: &log, SpanExporter: &spans{}})
	const goroutines, each = 8, 200
	var done sync.WaitGroup
	for i := range goroutines {
		done.Go(func() {
			for n := range each {
				ev := event()
				ev.Decision.Reason = identity.Reasons()[(i*each+n)%40].Reason
				tell(tel, ev)
				switch n % 50 {
				case 0:
					tel.SetTeams([]identity.Team{"data-eng", identity.Team(fmt.Sprintf("team-%d", n%3))})
				case 1:
					tel.SetTeams(nil)
				case 2:
					tel.SetIssuers([]string{"https://a"})
				case 3:
					_ = scrape(t, tel, "text/plain")
				}
			}
		})
	}
	done.Wait()
	if err := tel.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "\n"); n != goroutines*each {
		t.Errorf("%d access lines, want %d", n, goroutines*each)
	}
	total := 0
	for line := range strings.Lines(samples(t, tel, "crossfade_requests_total")) {
		var n int
		if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' '):], &n); err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if total != goroutines*each {
		t.Errorf("%d requests counted, want %d", total, goroutines*each)
	}
}

func TestTheAdminAPIIsCountedByClosedSets(t *testing.T) {
	t.Parallel()
	tel := start(t, telemetry.Options{})
	tel.AdminRequest("/api/v1/teams", 200) // before the routes are known
	tel.AdminRoutes([]string{"/api/v1/teams", "/api/v1/teams/{team}"})
	for _, status := range []int{200, 200, 401, 412, 7, -1} {
		tel.AdminRequest("/api/v1/teams", status)
	}
	tel.AdminRequest("/api/v1/teams/hunter2", 401)
	tel.AdminRequest("", 404)
	want := `crossfade_admin_requests_total{code="200",route="/api/v1/teams"} 2
crossfade_admin_requests_total{code="200",route="other"} 1
crossfade_admin_requests_total{code="401",route="/api/v1/teams"} 1
crossfade_admin_requests_total{code="401",route="other"} 1
crossfade_admin_requests_total{code="404",route="other"} 1
crossfade_admin_requests_total{code="412",route="/api/v1/teams"} 1
crossfade_admin_requests_total{code="error",route="/api/v1/teams"} 2
`
	page := scrape(t, tel, "")
	for _, code := range []string{"401", "403", "503"} {
		for _, route := range []string{"/api/v1/teams/{team}", "other"} {
			if series := fmt.Sprintf("crossfade_admin_requests_total{code=%q,route=%q} ", code, route); !strings.Contains(page, series) {
				t.Errorf("an alert finds no %s", series)
			}
		}
	}
	if diff := cmp.Diff(want, samples(t, tel, "crossfade_admin_requests_total")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
