package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"

	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/telemetry/otlptest"
)

// The client's own trace, as its instrumentation would name it.
const (
	clientTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	clientSpan  = "00f067aa0ba902b7"
)

// tracedSite is a worker's way through an agent and a gateway to a scheduler,
// which are processes and have the same variables in their environment.
type tracedSite struct {
	gateway *process
	agent   *exchange
	client  *http.Client
	// heard returns the Traceparent of each request that reached the scheduler.
	heard func() []string
}

// exchange is an agent, serving.
type exchange struct {
	*process
	metrics string
}

// newTracedSite starts everything; audience is the one of the agent's tokens.
func newTracedSite(t *testing.T, audience string, environ ...string) *tracedSite {
	t.Helper()
	idp := issuer(t, 0)
	luigi, err := demo.NewScheduler()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var parents []string
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		parents = append(parents, r.Header.Get("Traceparent"))
		mu.Unlock()
		luigi.ServeHTTP(w, r)
	}))
	t.Cleanup(upstream.Close)
	s := &tracedSite{client: newClient(t), heard: func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(parents)
	}}
	environ = append(environ, "GORACE=atexit_sleep_ms=0")
	s.gateway = startIn(t, environ, "serve", "--config", whole(t, idp.URL(), upstream.URL, nil))
	p := clientOf(t, idp, "svc-etl")
	s.agent = startAgent(t, environ, "--gateway", "http://"+s.gateway.address, "--issuer", p.Issuer, "--client-id", p.ClientID,
		"--client-secret-file", p.SecretFile, "--audience", audience)
	return s
}

// startAgent starts an agent on free ports.
func startAgent(t *testing.T, environ []string, args ...string) *exchange {
	t.Helper()
	a := &exchange{process: launch(t, environ, append([]string{"agent", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}, args...)...)}
	eventually(t, "the agent listens", func() bool {
		for line := range strings.Lines(a.log.String()) {
			var said struct{ Msg, Listen, Metrics string }
			if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "crossfade agent listens" {
				a.address, a.metrics = said.Listen, said.Metrics
			}
		}
		return a.address != ""
	})
	return a
}

// call sends one call of a worker's through the agent, within the client's trace,
// and returns the reason of a refusal, "" for none.
func (s *tracedSite) call(t *testing.T, password string) (refused string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.agent.address+"/api/add_worker",
		strings.NewReader(`data=%7B%22worker%22%3A%20%22w1%22%2C%20%22info%22%3A%20%5B%5D%7D`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Traceparent", "00-"+clientTrace+"-"+clientSpan+"-01")
	r.SetBasicAuth("svc-etl", password)
	resp, err := s.client.Do(r)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, s.agent.log, s.gateway.log)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v\n%s\n%s", resp.StatusCode, err, s.agent.log, s.gateway.log)
	}
	return resp.Header.Get("Crossfade-Reason")
}

// scrape reads the metrics of a gateway or an agent in one of the formats.
func scrape(t *testing.T, client *http.Client, address, format string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", format)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// spanOf finds the span of a service with a name and a kind.
func spanOf(spans []otlptest.Span, service, name string, kind tracev1.Span_SpanKind) (found otlptest.Span, ok bool) {
	i := slices.IndexFunc(spans, func(s otlptest.Span) bool { return s.Service == service && s.Name == name && s.Kind == kind })
	if i < 0 {
		return found, false
	}
	return spans[i], true
}

const (
	serverKind   = tracev1.Span_SPAN_KIND_SERVER
	clientKind   = tracev1.Span_SPAN_KIND_CLIENT
	internalKind = tracev1.Span_SPAN_KIND_INTERNAL
)

// some takes out of a span's attributes those that differ from run to run, and
// fails where one is empty.
func some(t *testing.T, span otlptest.Span, leave ...string) map[string]string {
	t.Helper()
	for _, name := range leave {
		if span.Attributes[name] == "" {
			t.Errorf("%s: no %s", span.Name, name)
		}
		delete(span.Attributes, name)
	}
	return span.Attributes
}

func TestOneTraceLeadsFromTheClientToTheUpstream(t *testing.T) {
	for _, protocol := range otlptest.Protocols() {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			collector := otlptest.Start(t, protocol)
			s := newTracedSite(t, "somebody-else", "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol, "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.Endpoint, "OTEL_BSP_SCHEDULE_DELAY=20")
			if reason := s.call(t, "legacy-pass"); reason != "" {
				t.Fatalf("refused for %s\n%s", reason, s.gateway.log)
			}
			// The agent's, and of the gateway: server, authenticate, decide, upstream and
			// shadow.
			eventually(t, "all spans have come", func() bool { return len(collector.Spans()) >= 6 })
			spans := collector.Spans()
			for _, span := range spans {
				if span.Trace != clientTrace {
					t.Errorf("%s is in the trace %s", span.Name, span.Trace)
				}
			}
			if len(spans) != 6 {
				t.Errorf("%d spans: %+v", len(spans), spans)
			}
			find := func(service, name string, kind tracev1.Span_SpanKind) otlptest.Span {
				span, ok := spanOf(spans, service, name, kind)
				if !ok {
					t.Fatalf("%s has sent no %s %s: %+v", service, kind, name, spans)
				}
				return span
			}
			agent := find("crossfade-agent", "POST", clientKind)
			server := find("crossfade", "POST /api/add_worker", serverKind)
			decide := find("crossfade", "decide", internalKind)
			authenticate := find("crossfade", "authenticate", internalKind)
			upstream := find("crossfade", "POST", clientKind)
			shadow := find("crossfade", "shadow", internalKind)

			if agent.Parent != clientSpan || server.Parent != agent.ID || authenticate.Parent != server.ID || decide.Parent != server.ID || upstream.Parent != server.ID {
				t.Errorf("client %s < agent %+v < gateway %+v < authenticate %+v, decide %+v, upstream %+v", clientSpan, agent, server, authenticate, decide, upstream)
			}
			if got, want := s.heard(), []string{"00-" + clientTrace + "-" + upstream.ID + "-01"}; !slices.Equal(got, want) {
				t.Errorf("the upstream heard %q, want %q", got, want)
			}
			if shadow.Parent != server.ID || !slices.Equal(shadow.Links, []string{server.ID}) {
				t.Errorf("the shadow's parent is %s and it links to %s, want %s", shadow.Parent, shadow.Links, server.ID)
			}
			if diff := cmp.Diff(map[string]string{
				"http.request.method": "POST", "http.response.status_code": "200", "server.address": "127.0.0.1",
				"url.full": "http://" + s.gateway.address + "/api/add_worker",
			}, some(t, agent, "server.port")); diff != "" {
				t.Errorf("agent (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(map[string]string{
				"http.request.method": "POST", "http.response.status_code": "200", "http.route": "/api/add_worker", "rpc.method": "add_worker",
				"url.path": "/api/add_worker", "url.scheme": "http", "network.protocol.version": "1.1", "client.address": "127.0.0.1",
				"crossfade.team": "data-eng", "crossfade.verdict": "would_break", "crossfade.mode": "enforce", "crossfade.outcome": "allowed",
				"crossfade.scheme": "basic", "server.address": "127.0.0.1",
			}, some(t, server, "server.port", "user_agent.original")); diff != "" {
				t.Errorf("server (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(map[string]string{"crossfade.scheme": "basic", "crossfade.auth.result": "verified"}, authenticate.Attributes); diff != "" {
				t.Errorf("authenticate (-want +got):\n%s", diff)
			}
			want := []otlptest.Event{{Name: "feature_flag.evaluation", Attributes: map[string]string{
				"feature_flag.key": "crossfade.oidc", "feature_flag.provider.name": "crossfade", "feature_flag.set.id": "data-eng",
				"feature_flag.result.variant": "legacy", "feature_flag.result.reason": "static", "feature_flag.version": "0",
			}}}
			if diff := cmp.Diff(want, server.Events); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(map[string]string{
				"http.request.method": "POST", "http.response.status_code": "200", "server.address": "127.0.0.1",
			}, some(t, upstream, "server.port", "url.full")); diff != "" {
				t.Errorf("upstream (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(map[string]string{
				"crossfade.verdict": "would_break", "crossfade.verdict_reason": "aud_mismatch", "crossfade.evidence": "client", "crossfade.auth.result": "rejected",
			}, shadow.Attributes); diff != "" {
				t.Errorf("shadow (-want +got):\n%s", diff)
			}

			exemplar := regexp.MustCompile(`(?m)^crossfade_request_duration_seconds_bucket\{.* # \{trace_id="(\w+)"\} `)
			_, metrics := announced(s.gateway.log.String())
			got := exemplar.FindStringSubmatch(scrape(t, s.client, metrics, "application/openmetrics-text"))
			if got == nil || !slices.ContainsFunc(spans, func(s otlptest.Span) bool { return s.Trace == got[1] }) {
				t.Errorf("the exemplar %v leads to no trace", got)
			}

			if reason := s.call(t, "a wrong password"); reason != "legacy_unknown" {
				t.Errorf("a wrong password is refused for %q", reason)
			}
			eventually(t, "the refusal has come", func() bool {
				n := 0
				for _, span := range collector.Spans()[len(spans):] {
					if span.Kind == serverKind || span.Service == "crossfade-agent" {
						n++
					}
				}
				return n == 2
			})
			for _, span := range collector.Spans()[len(spans):] {
				wrong := span.Kind == clientKind // what is its client's fault is no error of a server
				if span.Kind != internalKind && (span.Attributes["error.type"] != "legacy_unknown" || (span.Status == tracev1.Status_STATUS_CODE_ERROR) != wrong) {
					t.Errorf("a refusal: %+v", span)
				}
				if span.Service == "crossfade" && span.Kind == clientKind {
					t.Errorf("a refused request went on: %+v", span)
				}
			}
		})
	}
}

func TestWithoutACollectorRequestsAreAnsweredAndTheEndComes(t *testing.T) {
	const requests, queue = 300, 32
	silent, called := otlptest.Silent(t)
	for name, endpoint := range map[string]string{"it takes connections and never answers": silent, "nobody listens": otlptest.Refusing(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTracedSite(t, "luigi", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint,
				"OTEL_BSP_SCHEDULE_DELAY=1", "OTEL_EXPORTER_OTLP_TIMEOUT=3600000", "OTEL_BSP_EXPORT_TIMEOUT=3600000",
				fmt.Sprint("OTEL_BSP_MAX_QUEUE_SIZE=", queue))
			s.call(t, "legacy-pass")
			if endpoint == silent {
				<-called // an export is under way, and will be to the end
			}
			for range requests - 1 {
				if reason := s.call(t, "legacy-pass"); reason != "" {
					t.Fatalf("refused for %s\n%s", reason, s.gateway.log)
				}
			}
			if n := len(s.heard()); n != requests {
				t.Errorf("%d of %d requests reached the upstream", n, requests)
			}
			_, metrics := announced(s.gateway.log.String())
			for of, found := range map[string]*regexp.Regexp{
				metrics:         regexp.MustCompile(`(?m)^crossfade_spans_lost_total (\d+)$`),
				s.agent.metrics: regexp.MustCompile(`(?m)^crossfade_agent_spans_lost_total (\d+)$`),
			} {
				var lost int
				if m := found.FindStringSubmatch(scrape(t, s.client, of, "text/plain")); m != nil {
					_, _ = fmt.Sscan(m[1], &lost)
				}
				if lost < requests-queue { // each request has one span at least
					t.Errorf("%s: %d spans are lost of %d requests", found, lost, requests)
				}
			}
			both := []*process{s.agent.process, s.gateway}
			for _, p := range both {
				p.signal(t, syscall.SIGTERM)
			}
			for _, p := range both {
				if code := p.code(); code != exitOK {
					t.Errorf("exit code %d\n%s", code, p.log)
				}
			}
		})
	}
}

func TestVariablesThatTheAgentDoesNotKnowStopNoWork(t *testing.T) {
	gateway, came := friendly(t)
	environ := []string{"OTEL_TRACES_EXPORTER=somebody-elses", "CROSSFADE_TOKEN_FILE=" + tokenFile(t)}
	asProcess(t, t.TempDir(), environ, wrapped(t, []string{"--gateway", gateway.URL}, "call")...).want(t, exitOK, "crossfade agent: no traces: ", "somebody-elses")
	if n := len(came()); n != 1 {
		t.Errorf("%d requests reached the gateway", n)
	}
}
