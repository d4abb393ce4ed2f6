package telemetry_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"crossfade/gateway/telemetry"
)

// receiver is an OTLP collector.
type receiver struct {
	collector.UnimplementedTraceServiceServer

	mu       sync.Mutex
	services []string
	spans    map[string]*tracev1.Span
}

func (r *receiver) Export(_ context.Context, in *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spans == nil {
		r.spans = make(map[string]*tracev1.Span)
	}
	for _, resource := range in.GetResourceSpans() {
		for _, kv := range resource.GetResource().GetAttributes() {
			if kv.GetKey() == "service.name" {
				r.services = append(r.services, kv.GetValue().GetStringValue())
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				r.spans[span.GetName()] = span
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// ServeHTTP is OTLP/HTTP with binary protobuf.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var in collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &in)
	}
	if err != nil || req.URL.Path != "/v1/traces" {
		http.Error(w, "not OTLP", http.StatusBadRequest)
		return
	}
	out, _ := r.Export(req.Context(), &in)
	text, err := proto.Marshal(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(text)
}

func (r *receiver) overGRPC(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, r)
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); done.Wait() })
	return "http://" + listener.Addr().String()
}

func (r *receiver) overHTTP(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return server.URL
}

func TestSpansReachACollector(t *testing.T) {
	cases := []struct {
		name    string
		address func(*receiver, *testing.T) string
		env     map[string]string
		service string
	}{
		{"over gRPC", (*receiver).overGRPC, map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "crossfade"},
		{"over HTTP", (*receiver).overHTTP, map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "crossfade"},
		{"by the default protocol, under another name", (*receiver).overHTTP, map[string]string{"OTEL_SERVICE_NAME": "luigi-front"}, "luigi-front"},
		{"with the exporter named", (*receiver).overHTTP, map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, "crossfade"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var r receiver
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.address(&r, t))
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			tel := start(t, telemetry.Options{Version: "v1"})
			ctx, id := tel.Begin(request(http.MethodPost, "/api/get_work"))
			ev := event()
			ev.UserAgent, ev.Host, ev.Path = "not \xff UTF-8", "\xff", "\xff" // one bad string would cost the whole batch
			tel.Observe(ctx, ev)
			if err := tel.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			server, decide := r.spans["POST /api/get_work"], r.spans["decide"]
			if server == nil || decide == nil {
				t.Fatalf("spans: %v", r.spans)
			}
			if string(decide.GetParentSpanId()) != string(server.GetSpanId()) || string(decide.GetTraceId()) != string(server.GetTraceId()) {
				t.Error("decide is no child of the server span")
			}
			if len(id) != 32 || r.services[0] != c.service {
				t.Errorf("trace %q of service %q", id, r.services)
			}
		})
	}
}

func TestNoExporterUnlessAskedFor(t *testing.T) {
	for _, env := range [][2]string{
		{"OTEL_TRACES_EXPORTER", "none"},
		{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:1"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", ""},
	} {
		t.Run(env[0]+"="+env[1], func(t *testing.T) {
			t.Setenv(env[0], env[1])
			checkUntraced(t)
		})
	}
	t.Run("OTEL_SDK_DISABLED outranks an endpoint", func(t *testing.T) {
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
		t.Setenv("OTEL_SDK_DISABLED", "true")
		checkUntraced(t)
	})
}

// checkUntraced finds that a sampled client leaves no exemplar.
func checkUntraced(t *testing.T) {
	t.Helper()
	tel := start(t, telemetry.Options{})
	ctx, id := tel.Begin(request(http.MethodPost, "/", "traceparent", clientParent))
	tel.Observe(ctx, event())
	if id != clientTrace {
		t.Errorf("trace id %q", id)
	}
	const openMetrics = "application/openmetrics-text; version=1.0.0"
	if text := scrape(t, tel, openMetrics); len(text) == 0 || strings.Contains(text, "# {") {
		t.Error("a request that nobody records has an exemplar")
	}
}

func TestLostSpansAreCountedAndReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away failing
		away.err.Store(new(errors.New("no route to host")))
		var reports []error
		tel := start(t, telemetry.Options{
			SpanExporter: &away, Report: func(err error) { reports = append(reports, err) },
		})
		for range 3 {
			tell(tel, event()) // a server span and a decide span each
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		if got := samples(t, tel, "crossfade_spans_lost_total"); got != "crossfade_spans_lost_total 6\n" {
			t.Errorf("got %q", got)
		}
		away.err.Store(new(error(nil)))
		tell(tel, event())
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(reports) != 2 || reports[0] == nil || reports[1] != nil {
			t.Errorf("reports: %v", reports)
		}
		if err := tel.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
}

// failing is an exporter that fails with err, if any.
type failing struct{ err atomic.Pointer[error] }

func (f *failing) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return *f.err.Load() }

func (*failing) Shutdown(context.Context) error { return nil }

func TestACollectorThatIsAwayHoldsNothingUp(t *testing.T) {
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer hanging.Close()
	defer close(release)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, address := range map[string]string{"it hangs": hanging.URL, "nobody listens": gone.URL} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
			t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
			t.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
			tel, err := telemetry.New(context.Background(), telemetry.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for range 5_000 { // far more than may wait
				tell(tel, event())
			}
			if got, want := samples(t, tel, "crossfade_request_duration_seconds_count"), "crossfade_request_duration_seconds_count{outcome=\"allowed\",scheme=\"basic\"} 5000\n"; got != want {
				t.Errorf("got %q", got)
			}
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := tel.Close(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("Close: %v", err)
			}
		})
	}
}
