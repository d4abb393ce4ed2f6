package telemetry_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/gateway/telemetry"
	"crossfade/rollout"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// atZero enforces nothing.
type atZero struct{}

func (atZero) Enforce(context.Context, rollout.Run, bool) rollout.Enforcement {
	return rollout.Enforcement{Known: true}
}

func (atZero) Percent(identity.Team) rollout.Percent { return 0 }

// newGateway is a whole gateway in front of upstream, with tel in all places.
func newGateway(t *testing.T, mode gateway.Mode, tel *telemetry.Telemetry, upstream *httptest.Server) http.Handler {
	t.Helper()
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := gateway.NewTransport()
	t.Cleanup(transport.CloseIdleConnections)
	proxy, err := gateway.NewProxy(gateway.ProxyOptions{Upstream: target, Transport: tel.Transport(mode, transport)})
	if err != nil {
		t.Fatal(err)
	}
	runner := shadow.NewRunner(shadow.RunnerOptions{Workers: 1})
	t.Cleanup(runner.Close)
	tokens := judge{identity.Reject("", identity.AudMismatch)}
	handler, err := gateway.New(gateway.Options{
		Mode: mode, Classifier: gateway.Classifier{Profile: gateway.ProfileLuigi},
		Legacy: tel.Authenticator(verified()), Tokens: tel.TokenAuthenticator(tokens),
		Rollout: atZero{}, Shadow: runner, Proxy: proxy, Recorder: tel,
	})
	if err != nil {
		t.Fatal(err)
	}
	return handler
}

// through sends one request through a gateway and returns what the upstream
// got and the spans by name.
func through(t *testing.T, mode gateway.Mode, o telemetry.Options, headers ...string) (http.Header, *telemetry.Telemetry) {
	t.Helper()
	var got http.Header
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
	defer upstream.Close()
	tel := start(t, o)
	r := request(http.MethodGet, "/api/task_list?data=%7B%7D", append([]string{"Authorization", "Basic c3ZjLWV0bDp4"}, headers...)...)
	w := httptest.NewRecorder()
	newGateway(t, mode, tel, upstream).ServeHTTP(w, r)
	if w.Code != http.StatusOK || got == nil {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return got, tel
}

func TestPropagation(t *testing.T) {
	const (
		parent  = clientParent
		unsaid  = "00-" + clientTrace + "-00f067aa0ba902b7-00"
		invalid = "00-zz-01"
	)
	cases := []struct {
		name     string
		mode     gateway.Mode
		exporter bool
		sent     []string
		// what the upstream gets: "" for none, "as sent", or the prefix of a
		// header that names another span.
		parent, state string
	}{
		{"observe passes the client's trace as it came", gateway.Observe, true, []string{"traceparent", parent, "tracestate", "a=1"}, parent, "a=1"},
		{"observe adds none", gateway.Observe, true, nil, "", ""},
		{"observe mends none", gateway.Observe, true, []string{"traceparent", invalid, "tracestate", "a=1"}, invalid, "a=1"},
		{"observe without an exporter passes it too", gateway.Observe, false, []string{"traceparent", parent}, parent, ""},
		{"observe without an exporter adds none", gateway.Observe, false, nil, "", ""},
		{"enforce continues the client's trace", gateway.Enforce, true, []string{"traceparent", parent, "tracestate", "a=1"}, "00-" + clientTrace + "-*-01", "a=1"},
		{"enforce respects a client that does not sample", gateway.Enforce, true, []string{"traceparent", unsaid}, "00-" + clientTrace + "-*-00", ""},
		{"enforce begins a trace", gateway.Enforce, true, nil, "00-*-*-01", ""},
		{"enforce replaces an invalid trace and its state", gateway.Enforce, true, []string{"traceparent", invalid, "tracestate", "a=1"}, "00-*-*-01", ""},
		{"enforce without an exporter passes the client's trace on", gateway.Enforce, false, []string{"traceparent", parent, "tracestate", "a=1"}, parent, "a=1"},
		{"enforce without an exporter names the id of the access line", gateway.Enforce, false, nil, "00-*-*-00", ""},
		{"enforce without an exporter replaces an invalid trace", gateway.Enforce, false, []string{"traceparent", invalid, "tracestate", "a=1"}, "00-*-*-00", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var log buffer
			o := telemetry.Options{AccessLog: &log}
			if c.exporter {
				o.SpanExporter = &spans{}
			}
			got, tel := through(t, c.mode, o, c.sent...)
			if err := tel.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			parent := got.Get("Traceparent")
			if !like(parent, c.parent) {
				t.Errorf("traceparent %q, want %q", parent, c.parent)
			}
			if state := got.Get("Tracestate"); state != c.state {
				t.Errorf("tracestate %q, want %q", state, c.state)
			}
			if strings.Contains(c.parent, "*") {
				if strings.Contains(parent, "00f067aa0ba902b7") {
					t.Errorf("the upstream was told the client's span: %q", parent)
				}
				if id := strings.Split(parent, "-")[1]; !strings.Contains(log.String(), id) {
					t.Errorf("trace %s is not in the access line %s", id, log.String())
				}
			}
		})
	}
}

func TestOtherPropagatorsByTheEnvironment(t *testing.T) {
	t.Setenv("OTEL_PROPAGATORS", "b3, tracecontext,baggage")
	for _, exporter := range []*spans{nil, {}} {
		o := telemetry.Options{}
		if exporter != nil {
			o.SpanExporter = exporter
		}
		got, _ := through(t, gateway.Enforce, o,
			"b3", clientTrace+"-00f067aa0ba902b7-1", "baggage", "a=1", "baggage", "b=2")
		if b3 := got.Get("B3"); !like(b3, clientTrace+"-*-1") {
			t.Errorf("b3 %q", b3)
		}
		if parent := got.Get("Traceparent"); exporter != nil && !like(parent, "00-"+clientTrace+"-*-01") {
			t.Errorf("traceparent %q", parent)
		}
		if baggage := strings.Join(got.Values("Baggage"), ","); !strings.Contains(baggage, "a=1") {
			t.Errorf("baggage %q", baggage)
		}
	}
}

func TestTracestateHeadersAreOneList(t *testing.T) {
	got, _ := through(t, gateway.Enforce, telemetry.Options{SpanExporter: &spans{}},
		"traceparent", clientParent, "tracestate", "a=1", "tracestate", "b=2")
	if state := got.Values("Tracestate"); len(state) != 1 || state[0] != "a=1,b=2" {
		t.Errorf("tracestate %q", state)
	}
}

// like compares field by field; * is any field.
func like(got, want string) bool {
	g, w := strings.Split(got, "-"), strings.Split(want, "-")
	if len(g) != len(w) {
		return false
	}
	for i := range g {
		if w[i] != "*" && g[i] != w[i] {
			return false
		}
	}
	return true
}

func TestSpansOfAWholeGateway(t *testing.T) {
	var exporter spans
	sent, tel := through(t, gateway.Enforce, telemetry.Options{SpanExporter: &exporter}, "traceparent", clientParent)
	got := exporter.collect(t, tel)
	server, client := got["GET /api/task_list"], got["GET"]
	for _, name := range []string{"authenticate", "decide", "GET"} {
		if got[name].Parent.SpanID() != server.SpanContext.SpanID() {
			t.Errorf("%s is no child of the server span", name)
		}
	}
	if client.SpanKind != trace.SpanKindClient || !strings.Contains(sent.Get("Traceparent"), client.SpanContext.SpanID().String()) {
		t.Errorf("the upstream was told %q, the client span is %s", sent.Get("Traceparent"), client.SpanContext.SpanID())
	}
	attrs := attributes(client.Attributes)
	if attrs["http.response.status_code"] != "200" || attrs["server.address"] != "127.0.0.1" || attrs["server.port"] == "" ||
		strings.Contains(attrs["url.full"], "?") || !strings.HasSuffix(attrs["url.full"], "/api/task_list") {
		t.Errorf("client span: %v", attrs)
	}
}

func TestTransportWritesTheTraceIntoTheHeadersOfItsRequest(t *testing.T) {
	for _, exporter := range []*spans{nil, {}} {
		o := telemetry.Options{}
		if exporter != nil {
			o.SpanExporter = exporter
		}
		tel := start(t, o)
		ctx, _ := tel.Begin(request(http.MethodPost, "/"))
		r := request(http.MethodPost, "http://upstream/").WithContext(ctx)
		r.Header = http.Header{"Traceparent": {"no trace"}, "Tracestate": {"of=it"}, "X": {"y"}}
		var sent http.Header
		transport := tel.Transport(gateway.Enforce, roundTrip(func(r *http.Request) (*http.Response, error) {
			sent = r.Header
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		}))
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if len(sent) != 2 || len(sent["Traceparent"]) != 1 || sent.Get("Traceparent") == "no trace" {
			t.Errorf("headers sent: %v", sent)
		}
		tel.Observe(ctx, event())
	}
}

func TestRequestsOfNobodyPassUntouched(t *testing.T) {
	tel := start(t, telemetry.Options{SpanExporter: &spans{}})
	r := request(http.MethodGet, "http://upstream/")
	var got *http.Request
	transport := tel.Transport(gateway.Enforce, roundTrip(func(r *http.Request) (*http.Response, error) {
		got = r
		return nil, errors.New("down")
	}))
	if _, err := transport.RoundTrip(r); err == nil || got != r {
		t.Errorf("error %v, same request %t", err, got == r)
	}
}

func TestUpstreamSpanErrors(t *testing.T) {
	cases := []struct {
		name   string
		status int
		err    error
		want   string
	}{
		{"a refused connection tells no address", 0, errors.New("dial tcp 10.0.0.1: secret"), "upstream"},
		{"a time-out", 0, context.DeadlineExceeded, "timeout"},
		{"a client that left", 0, context.Canceled, "canceled"},
		{"a client's error is one here", 404, nil, "404"},
		{"a server's error", 503, nil, "503"},
		{"a success", 200, nil, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var exporter spans
			tel := start(t, telemetry.Options{SpanExporter: &exporter})
			ctx, _ := tel.Begin(request(http.MethodPost, "/"))
			transport := tel.Transport(gateway.Observe, roundTrip(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: c.status, Body: http.NoBody}, c.err
			}))
			r := request(http.MethodPost, "http://user:pw@upstream:8083/a%2Fb?token=s3cret").WithContext(ctx)
			if resp, err := transport.RoundTrip(r); err == nil {
				_ = resp.Body.Close()
			}
			tel.Observe(ctx, &gateway.Event{Start: noon()})
			var attrs map[string]string
			var code codes.Code
			exporter.collect(t, tel)
			for _, span := range exporter.got {
				if span.SpanKind == trace.SpanKindClient {
					attrs, code = attributes(span.Attributes), span.Status.Code
				}
			}
			if attrs["error.type"] != c.want || (code == codes.Error) != (c.want != "") {
				t.Errorf("error.type %q, status %v", attrs["error.type"], code)
			}
			if diff := cmp.Diff("http://upstream:8083/a%2Fb", attrs["url.full"]); diff != "" {
				t.Errorf("url.full (-want +got):\n%s", diff)
			}
		})
	}
}
