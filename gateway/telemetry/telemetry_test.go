package telemetry_test

import (
	"context"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/gateway/telemetry"
	"crossfade/rollout"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is when the requests of these tests begin.
func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

const clientTrace = "4bf92f3577b34da6a3ce929d0e0e4736"

// event is a legacy request of a worker that brought no token.
func event() *gateway.Event {
	p := identity.Principal{Name: "svc-etl", Team: "data-eng", Mapped: true}
	return &gateway.Event{
		Start: noon(), Duration: 1250 * time.Microsecond, TraceID: clientTrace,
		Mode: gateway.Enforce, Method: "POST", Path: "/api/get_work", Host: "luigi.acme.dev", Proto: "HTTP/1.1",
		UserAgent: "Python-urllib/3.11", Client: netip.MustParseAddr("10.1.2.3"),
		Call: gateway.Call{
			RPC: true, Method: "get_work", Action: identity.ActionExecute, Family: "LoadSales", Run: "Worker(salt=123, host=etl-1)",
		},
		Presented:   gateway.PresentedSchemes{Legacy: identity.SchemeBasic},
		Legacy:      &identity.Authentication{Status: identity.StatusVerified, Principal: p, CredentialID: "basic:svc-etl"},
		Enforcement: rollout.Enforcement{Known: true, KeyKnown: true, Percent: 50, Revision: 7, Phase: rollout.PhaseRamp},
		Decision:    gateway.Decision{Outcome: gateway.Allowed, Control: gateway.SideLegacy},
		Principal:   p,
		Shadow:      shadow.Result{Verdict: shadow.NoToken, Reason: identity.TokenAbsent, Evidence: shadow.EvidenceNone},
		AuthStart:   noon().Add(50 * time.Microsecond), AuthTime: 100 * time.Microsecond,
		DecideStart: noon().Add(200 * time.Microsecond), DecideTime: 2 * time.Microsecond,
		UpstreamTime: 900 * time.Microsecond, Status: 200, Sent: 321,
	}
}

// refused is event with its run enforced.
func refused() *gateway.Event {
	ev := event()
	ev.Enforcement.Enforced, ev.Enforcement.Selected, ev.Enforcement.Latched = true, true, true
	ev.Decision = gateway.Decision{Outcome: gateway.Refused, Reason: identity.LegacyRefused, Control: gateway.SideLegacy}
	ev.UpstreamTime = 0
	return ev
}

// start returns a Telemetry that is closed with the test. The environment of
// whoever runs the tests has no say in them.
func start(t testing.TB, o telemetry.Options) *telemetry.Telemetry {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "OTEL_") && o.SpanExporter == nil {
			t.Logf("the environment sets %s", name)
		}
	}
	tel, err := telemetry.New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := tel.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return tel
}

// scrape returns the metrics in the text format.
func scrape(t *testing.T, tel *telemetry.Telemetry, accept string) string {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("scrape: status %d\n%s", w.Code, w.Body)
	}
	return w.Body.String()
}

// samples returns the samples of the named metrics that are not zero, one a
// line, in order of exposition.
func samples(t *testing.T, tel *telemetry.Telemetry, names ...string) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(scrape(t, tel, "text/plain")) {
		for _, name := range names {
			rest, ok := strings.CutPrefix(line, name)
			if ok && (rest[0] == '{' || rest[0] == ' ') && !strings.HasSuffix(line, " 0\n") {
				b.WriteString(line)
			}
		}
	}
	return b.String()
}

func request(method, target string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// tell passes one event through as the gateway does.
func tell(tel *telemetry.Telemetry, ev *gateway.Event) {
	ctx, _ := tel.Begin(request(http.MethodPost, "/api/get_work"))
	tel.Observe(ctx, ev)
}

// golden compares got with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// spans is an exporter that keeps what it gets.
type spans struct {
	mu  sync.Mutex
	got tracetest.SpanStubs
}

func (s *spans) ExportSpans(_ context.Context, batch []sdktrace.ReadOnlySpan) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, tracetest.SpanStubsFromReadOnlySpans(batch)...)
	return nil
}

func (*spans) Shutdown(context.Context) error { return nil }

// collect closes tel and returns its spans by name.
func (s *spans) collect(t *testing.T, tel *telemetry.Telemetry) map[string]tracetest.SpanStub {
	t.Helper()
	if err := tel.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	byName := make(map[string]tracetest.SpanStub)
	for _, span := range s.got {
		byName[span.Name] = span
	}
	return byName
}

func TestNewNamesWhatIsWrong(t *testing.T) {
	cases := []struct {
		name     string
		options  telemetry.Options
		env, set string
		want     string
	}{
		{"an unknown format of the access log", telemetry.Options{AccessLogFormat: "xml", AccessLog: io.Discard}, "", "", `access log format "xml": must be json or text`},
		{"an unknown exporter", telemetry.Options{}, "OTEL_TRACES_EXPORTER", "carrier-pigeon", "OTEL_ variables"},
		{"an unknown protocol", telemetry.Options{}, "OTEL_EXPORTER_OTLP_PROTOCOL", "telex", "OTEL_ variables"},
		{"an unknown propagator", telemetry.Options{}, "OTEL_PROPAGATORS", "smoke", `OTEL_PROPAGATORS "smoke"`},
		// What follows, the exporter would leave out and write to standard error.
		{"a header that is none", telemetry.Options{}, "OTEL_EXPORTER_OTLP_HEADERS", "x-team=a,Authorization: Bearer s3cret", "OTEL_EXPORTER_OTLP_HEADERS: header 2 is none"},
		{"a header with a wrong name", telemetry.Options{}, "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api key s3cret=", "OTEL_EXPORTER_OTLP_TRACES_HEADERS: header 1 is none"},
		{"a header with a wrong value", telemetry.Options{}, "OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret%2", "OTEL_EXPORTER_OTLP_HEADERS: in the value of header 1"},
		{"a collector that is no URL", telemetry.Options{}, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:s3cret%2@collector:4318", "OTEL_EXPORTER_OTLP_ENDPOINT is no URL"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.env != "" {
				t.Setenv(c.env, c.set)
			}
			tel, err := telemetry.New(context.Background(), c.options)
			if err == nil {
				_ = tel.Close(context.Background())
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not contain %q", err, c.want)
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("error %q tells a secret", err)
			}
		})
	}
}

func TestHeadersForTheCollectorAreReadAsItsExporterDoes(t *testing.T) {
	for _, headers := range []string{"", " ", "Authorization=Basic%20dXNlcjpwYXNz", " api-key = a=b== ,, x-tenant=1,", "empty="} {
		t.Run(headers, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
			t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", headers)
			tel, err := telemetry.New(context.Background(), telemetry.Options{})
			if err != nil {
				t.Fatal(err)
			}
			_ = tel.Close(context.Background())
		})
	}
}
