package app_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"crossfade/cmd/crossfade/app"
	"crossfade/gateway/audit"
)

// promptly gives probes their first turn at once.
func promptly(o *app.Options) { o.ProbeSettle = time.Millisecond }

// probing configures probes of entries, which are YAML flow mappings by name,
// and writes the accounts' secrets.
func (s *site) probing(entries string) {
	s.t.Helper()
	for _, user := range []string{"svc-etl", "svc-billing", "svc-search"} {
		s.write(user+".secret", user+"-secret\n")
	}
	s.configure("probe", "{ per_minute: 60, timeout: 2s, principals: { "+entries+" } }")
}

const (
	goodProbe    = "svc-etl: { client_id: svc-etl, client_secret_file: svc-etl.secret, audience: luigi }"
	foreignProbe = "svc-etl: { client_id: svc-etl, client_secret_file: svc-etl.secret, audience: finance }"
)

func (g *gateway) probes(team, result string) string {
	return g.metric(fmt.Sprintf(`crossfade_probe_total{result="%s",team="%s"}`, result, team))
}

func (g *gateway) verdicts(evidence, team, verdict string) string {
	return g.metric(fmt.Sprintf(`crossfade_shadow_verdicts_total{evidence="%s",team="%s",verdict="%s"}`, evidence, team, verdict))
}

// probeLines are those of a trail.
func probeLines(t *testing.T, file string) (all []audit.Probe) {
	t.Helper()
	report, err := audit.Verify([]string{file}, nil)
	if err != nil || !report.Intact() {
		t.Errorf("the trail is broken: %+v, %v", report, err)
	}
	for line := range strings.Lines(readFile(t, file)) {
		var l struct {
			audit.Header
			audit.Probe
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if l.Kind == audit.KindProbe {
			all = append(all, l.Probe)
		}
	}
	return all
}

func TestAProbeShowsThatTheProviderIsReadyBeforeAnyClientIs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configure("audit", "audit.jsonl")
	s.probing(goodProbe)
	g := s.start(promptly).loaded()
	if got := g.probes("billing", "ok"); got != "0" {
		t.Errorf("a team that is not probed has %q", got)
	}
	s.eventually("svc-etl was probed", func() bool { return g.probes("data-eng", "ok") == "1" })
	if n := g.verdicts("probe", "data-eng", "match_allow"); n != "1" {
		t.Errorf("%q verdicts of probes", n)
	}
	if n := g.verdicts("client", "data-eng", "match_allow"); n != "0" {
		t.Errorf("a probe is %q verdicts of clients", n)
	}
	for line := range strings.Lines(g.fetch("/metrics").body) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		counts := strings.HasPrefix(name, "crossfade_requests_total") || strings.HasPrefix(name, "crossfade_rollout_enforced") ||
			strings.HasPrefix(name, "crossfade_rollout_latched") || strings.HasPrefix(name, "crossfade_throttled") ||
			strings.HasPrefix(name, "crossfade_token_cache") || strings.HasPrefix(name, "crossfade_shadow_mismatches")
		if counts && value != "0" {
			t.Errorf("a probe counts as something else: %s", line)
		}
	}
	if n := s.upstream.count(); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
	g.end()
	lines := probeLines(t, filepath.Join(s.dir, "audit.jsonl"))
	if len(lines) != 1 || lines[0].Principal != "svc-etl" || lines[0].Outcome != "ok" || lines[0].Subject != "svc-etl" ||
		lines[0].Configuration == "" || lines[0].TraceID == "" {
		t.Errorf("%+v", lines)
	}
	log := g.log.String()
	if !strings.Contains(log, "msg=probe account=svc-etl team=data-eng result=ok verdict=match_allow evidence=probe") {
		t.Errorf("the log does not say so: %s", log)
	}
	for name, text := range map[string]string{"log": log, "trail": readFile(t, filepath.Join(s.dir, "audit.jsonl"))} {
		if strings.Contains(text, "svc-etl-secret") || strings.Contains(text, "eyJ") {
			t.Errorf("a secret is in the %s: %s", name, text)
		}
	}
}

func TestAReloadChangesWhoIsProbed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.probing(goodProbe)
	g := s.start(promptly, func(o *app.Options) { o.Watch = true }).loaded()
	s.eventually("svc-etl was probed", func() bool { return g.probes("data-eng", "ok") == "1" })

	s.probing(foreignProbe + ", svc-search: { client_id: svc-billing, client_secret_file: svc-billing.secret, audience: luigi }")
	s.eventually("the token of another audience would break", func() bool { return g.probes("data-eng", "would_break") == "1" })
	s.eventually("and so would that of another account", func() bool { return g.verdicts("probe", "search", "identity_drift") == "1" })
	if n := g.metric(`crossfade_shadow_mismatches_total{reason="aud_mismatch",team="data-eng"}`); n != "0" {
		t.Errorf("%q mismatches of clients", n)
	}
	s.eventually("the log says what is wrong and who acts", func() bool {
		log := g.log.String()
		return strings.Contains(log, "reason=aud_mismatch owner=team") && strings.Contains(log, `the token is for \"finance\"`) &&
			strings.Contains(log, "reason=principal_mismatch owner=platform")
	})

	s.probing("svc-ghost: { client_id: x, client_secret_file: svc-etl.secret }")
	s.eventually("a mistake leaves the probes as they are", func() bool {
		return strings.Contains(g.log.String(), `principal \"svc-ghost\" has no entry`)
	})
	if n := g.probes("data-eng", "would_break"); n != "1" {
		t.Errorf("%q probes", n)
	}
}

func TestWhyThereIsNoTokenIsToldApartAndHoldsNothingUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "maintenance", http.StatusServiceUnavailable)
	}))
	defer busy.Close()
	gone := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "nothing here", http.StatusForbidden)
	}))
	defer gone.Close()
	s.write("wrong.secret", "wrong-0815")
	s.write("empty.secret", "")
	for name, tt := range map[string]struct{ probe, result, verdict, owner, said string }{
		"a wrong secret": {
			"svc-etl: { client_id: svc-etl, client_secret_file: wrong.secret, audience: luigi }",
			"refused", "no_token", "idp", "invalid_client",
		},
		"an empty secret": {
			"svc-etl: { client_id: svc-etl, client_secret_file: empty.secret, audience: luigi }",
			"misconfigured", "indeterminate", "platform", "empty.secret is empty",
		},
		"no provider": {
			"svc-etl: { client_id: svc-etl, client_secret_file: svc-etl.secret, token_url: " + away.URL + " }",
			"unavailable", "indeterminate", "idp", "connection refused",
		},
		"a provider in trouble": {
			"svc-etl: { client_id: svc-etl, client_secret_file: svc-etl.secret, token_url: " + busy.URL + " }",
			"unavailable", "indeterminate", "idp", "503 Service Unavailable",
		},
		"somebody else's page": {
			"svc-etl: { client_id: svc-etl, client_secret_file: svc-etl.secret, token_url: " + gone.URL + " }",
			"unavailable", "indeterminate", "idp", "403 Forbidden",
		},
	} {
		s.probing(tt.probe)
		g := s.start(promptly).loaded()
		s.eventually(name+" is counted", func() bool { return g.probes("data-eng", tt.result) == "1" })
		if n := g.verdicts("probe", "data-eng", tt.verdict); n != "1" {
			t.Errorf("%s: %q verdicts %s", name, n, tt.verdict)
		}
		if got := g.send(etl(pages())); got.status != 200 {
			t.Errorf("%s: a request: %v", name, got)
		}
		s.eventually(name+" is in the log", func() bool {
			log := g.log.String()
			return strings.Contains(log, "owner="+tt.owner) && strings.Contains(log, tt.said)
		})
		if strings.Contains(g.log.String(), "0815") || strings.Contains(g.log.String(), "svc-etl-secret") {
			t.Errorf("%s: a secret is in the log", name)
		}
		g.end()
	}
}

func TestAProviderThatHangsHoldsUpNeitherRequestsNorTheEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	asked := make(chan struct{}, 1)
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		_ = r.ParseForm() // net/http sees a client that leaves only behind its body
		<-r.Context().Done()
	}))
	defer hangs.Close()
	s.probing("svc-etl: { client_id: svc-etl, client_secret_file: svc-etl.secret, token_url: " + hangs.URL + " }")
	s.configure("probe", strings.Replace(s.lines["probe"], "timeout: 2s", "timeout: 1m", 1))
	g := s.start(promptly).loaded()
	<-asked
	if got := g.send(etl(pages())); got.status != 200 {
		t.Errorf("a request: %v", got)
	}
	g.end() // waits for less than the probe's minute
	if n := strings.Count(g.log.String(), "msg=probe"); n != 0 {
		t.Errorf("a probe that was broken off is told %d times", n)
	}
}

func TestAProbeExchangesTheTokenThatTheAccountHas(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var subject atomic.Value
	agents := make(chan string, 16)
	exchange := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agents <- r.UserAgent()
		w.Header().Set("Content-Type", "application/json")
		if r.PostFormValue("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange" ||
			r.PostFormValue("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt" || r.PostFormValue("resource") != "https://luigi.example" ||
			r.PostFormValue("scope") != "luigi.write" || r.PostFormValue("subject_token") != "first.subject-0815.token" {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":"invalid_grant","error_description":"no good: `+r.PostFormValue("subject_token")+`"}`)
			return
		}
		subject.Store(r.PostFormValue("subject_token"))
		fmt.Fprintf(w, `{"access_token":%q,"issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":300}`,
			s.token("svc-etl", audience))
	}))
	defer exchange.Close()
	s.write("subject.token", "first.subject-0815.token\n")
	entry := "svc-etl: { subject_token_file: subject.token, token_url: " + exchange.URL + ", resource: \"https://luigi.example\", scopes: luigi.write }"
	s.probing(entry)
	g := s.start(promptly).loaded()
	s.eventually("the exchanged token is good", func() bool { return g.probes("data-eng", "ok") == "1" })
	if got := <-agents; !strings.Contains(got, "(run probe)") {
		t.Errorf("the provider's trail would show %q", got)
	}
	s.write("subject.token", "second.subject-0815.token\n")
	s.probing(strings.Replace(entry, "luigi.write", "[luigi.write, more]", 1)) // other settings, another turn
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	s.eventually("one that the provider does not take is refused", func() bool { return g.probes("data-eng", "refused") == "1" })
	s.eventually("the log says so", func() bool { return strings.Contains(g.log.String(), "invalid_grant") })
	if strings.Contains(g.log.String(), "0815") {
		t.Errorf("the subject token is in the log: %s", g.log.String())
	}
}

func TestAProbeIsJudgedPastTheCacheOfTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ownIssuer()
	keys := s.relayKeys(passes)
	token := s.token("svc-etl", audience)
	lends := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer"}`, token) // one token for everybody
	}))
	defer lends.Close()
	s.probing("svc-etl: { client_id: svc-etl, client_secret_file: svc-etl.secret, token_url: " + lends.URL + " }")
	// A probe that a busy machine is late with is not made again soon.
	s.configure("probe", strings.Replace(s.lines["probe"], "timeout: 2s", "timeout: 20s", 1))
	g := s.start(promptly, func(o *app.Options) { o.Keys.MinRefresh = time.Millisecond }).loaded()
	s.eventually("the token is good", func() bool { return g.probes("data-eng", "ok") == "1" })
	ask := pages()
	ask.bearer = token
	if got := g.send(ask); got.status != 200 {
		t.Fatalf("the same token of a client: %v", got)
	}
	// The key is withdrawn: a judgement that is remembered would go on for a minute.
	for range 2 {
		if err := s.issuer.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	ask.bearer = s.token("svc-etl", audience)
	if got := g.send(ask); got.status != 200 { // which fetches the new keys
		t.Fatalf("a token of the new key: %v", got)
	}
	s.probing("svc-etl: { client_id: svc-etl, client_auth: client_secret_post, client_secret_file: svc-etl.secret, token_url: " + lends.URL + " }")
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	s.eventually("it is not any more", func() bool { return g.probes("data-eng", "would_break") == "1" })
	s.eventually("because its key is gone", func() bool { return strings.Contains(g.log.String(), "reason=kid_unknown") })
	if n := keys.fetches.Load(); n < 2 {
		t.Errorf("the keys were fetched %d times", n)
	}
}
