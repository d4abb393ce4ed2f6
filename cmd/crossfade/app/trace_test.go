package app_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"crossfade/cmd/crossfade/app"
	event "crossfade/gateway"
)

// collector is an OTLP collector over HTTP that counts what it gets.
func collector(t *testing.T) *atomic.Int64 {
	t.Helper()
	var got atomic.Int64
	c := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/v1/traces" {
			got.Add(n)
		}
	}))
	t.Cleanup(c.Close)
	t.Setenv("OTEL_TRACES_EXPORTER", "otlp")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	return &got
}

func TestInEnforceTheTraceGoesOnToTheUpstream(t *testing.T) {
	got := collector(t)
	s := newSite(t)
	events := make(chan *event.Event, 100)
	g := s.start(func(o *app.Options) { o.OnEvent = func(ev *event.Event) { events <- ev } }).loaded()
	const traceID, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for name, header := range map[string]http.Header{
		"a client that is traced":     {"Traceparent": {"00-" + traceID + "-" + parent + "-01"}, "Tracestate": {"acme=1"}},
		"a client that is not traced": {},
	} {
		q := etl(pages())
		q.header = header
		if got := g.send(q); got.status != 200 {
			t.Fatal(got)
		}
		ev := <-events
		seen := strings.Split(s.upstream.last().Header.Get("Traceparent"), "-")
		if len(seen) != 4 || seen[1] != ev.TraceID || seen[2] == parent || seen[3] != "01" {
			t.Errorf("%s: the upstream hears of %v in trace %s", name, seen, ev.TraceID)
		}
		if len(header) > 0 && (ev.TraceID != traceID || s.upstream.last().Header.Get("Tracestate") != "acme=1") {
			t.Errorf("%s: trace %s, state %q", name, ev.TraceID, s.upstream.last().Header.Get("Tracestate"))
		}
	}
	q := pages()
	q.header = http.Header{"Traceparent": {"00-" + traceID + "-" + parent + "-01"}}
	if got := g.send(q); !strings.Contains(got.body, `"trace_id":"`+traceID+`"`) {
		t.Errorf("the refusal does not name the trace: %v", got)
	}
	g.end()
	if got.Load() == 0 {
		t.Error("the collector got no spans by the end")
	}
}

func TestInObserveTheTraceOfTheClientGoesThroughAsItCame(t *testing.T) {
	got := collector(t)
	s := newSite(t)
	s.configure("mode", "observe")
	g := s.start().loaded()
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	q := etl(pages())
	q.header = http.Header{"Traceparent": {parent}, "Tracestate": {"acme=1"}}
	g.send(q)
	if seen := s.upstream.last().Header; seen.Get("Traceparent") != parent || seen.Get("Tracestate") != "acme=1" {
		t.Errorf("the upstream hears of %q, %q", seen.Get("Traceparent"), seen.Get("Tracestate"))
	}
	g.send(etl(pages()))
	if seen, there := s.upstream.last().Header["Traceparent"]; there {
		t.Errorf("a trace was added: %q", seen)
	}
	g.end()
	if got.Load() == 0 {
		t.Error("the collector got no spans by the end")
	}
}

func TestACollectorThatIsAwayHoldsNothingUp(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "otlp")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	s := newSite(t)
	g := s.start().loaded()
	if got := g.send(etl(pages())); got.status != 200 {
		t.Error(got)
	}
	g.end() // lost spans are no failure of the gateway
}
