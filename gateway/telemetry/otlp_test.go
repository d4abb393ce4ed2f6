package telemetry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"crossfade/gateway/telemetry"
	"crossfade/gateway/telemetry/otlptest"
)

func TestSpansReachACollector(t *testing.T) {
	cases := []struct {
		name     string
		protocol string
		env      map[string]string
		service  string
	}{
		{"over gRPC", otlptest.GRPC, map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "crossfade"},
		{"over HTTP", otlptest.HTTP, map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "crossfade"},
		{"by the default protocol, under another name", otlptest.HTTP, map[string]string{"OTEL_SERVICE_NAME": "luigi-front"}, "luigi-front"},
		{"with the exporter named", otlptest.HTTP, map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, "crossfade"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			collector := otlptest.Start(t, c.protocol)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.Endpoint)
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
			spans := map[string]otlptest.Span{}
			for _, span := range collector.Spans() {
				spans[span.Name] = span
			}
			server, decide := spans["POST /api/get_work"], spans["decide"]
			if server.ID == "" || decide.Parent != server.ID || decide.Trace != server.Trace {
				t.Errorf("decide is no child of the server span: %+v", spans)
			}
			if id != server.Trace || len(id) != 32 || server.Service != c.service {
				t.Errorf("trace %q of service %q, the event's is %q", server.Trace, server.Service, id)
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

// gone are the ways in which a collector is away. sending waits until an export
// is under way, where that can be seen.
func gone(t *testing.T) map[string]struct {
	endpoint string
	sending  func()
} {
	t.Helper()
	silent, called := otlptest.Silent(t)
	return map[string]struct {
		endpoint string
		sending  func()
	}{
		"it takes the connection and never answers": {silent, func() { <-called }},
		"nobody listens": {otlptest.Refusing(t), func() {}},
	}
}

// Requests are told from one goroutine: were there one that waits for the
// collector, this test would not end. What waits is bounded, and what has no room
// is counted.
func TestACollectorThatIsAwayHoldsNothingUp(t *testing.T) {
	const requests, spansEach, queue = 3_000, 2, 64
	for _, protocol := range otlptest.Protocols() {
		for name, away := range gone(t) {
			t.Run(protocol+": "+name, func(t *testing.T) {
				t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
				t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", away.endpoint)
				t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000") // no export gives up meanwhile
				t.Setenv("OTEL_BSP_EXPORT_TIMEOUT", "3600000")
				t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", strconv.Itoa(queue))
				t.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
				tel, err := telemetry.New(context.Background(), telemetry.Options{})
				if err != nil {
					t.Fatal(err)
				}
				for range queue { // an export begins
					tell(tel, event())
				}
				away.sending()
				before := runtime.NumGoroutine()
				for range requests - queue {
					tell(tel, event())
				}
				if more := runtime.NumGoroutine() - before; more > 10 {
					t.Errorf("%d more goroutines after %d requests", more, requests)
				}
				if got, want := samples(t, tel, "crossfade_request_duration_seconds_count"), fmt.Sprintf("crossfade_request_duration_seconds_count{outcome=\"allowed\",scheme=\"basic\"} %d\n", requests); got != want {
					t.Errorf("got %q", got)
				}
				if waiting := requests*spansEach - lostSpans(t, tel); waiting < 0 || waiting > queue {
					t.Errorf("%d spans wait where %d may", waiting, queue)
				}
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				if err := tel.Close(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("Close: %v", err)
				}
				// Those that waited fail now, in the background.
				deadline := time.Now().Add(time.Minute)
				for lostSpans(t, tel) != requests*spansEach {
					if time.Now().After(deadline) {
						t.Fatalf("%d of %d spans are counted as lost", lostSpans(t, tel), requests*spansEach)
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
	}
}

func lostSpans(t *testing.T, tel *telemetry.Telemetry) (n int) {
	t.Helper()
	text, ok := strings.CutPrefix(samples(t, tel, "crossfade_spans_lost_total"), "crossfade_spans_lost_total ")
	if !ok {
		return 0
	}
	count, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(count)
}

func TestAQueueWithoutRoomIsAMistake(t *testing.T) {
	for _, size := range []string{"0", "-1"} {
		t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", size)
		if _, err := telemetry.New(context.Background(), telemetry.Options{SpanExporter: &spans{}}); err == nil || !strings.Contains(err.Error(), "OTEL_BSP_MAX_QUEUE_SIZE is "+size) {
			t.Errorf("size %s: %v", size, err)
		}
	}
}
