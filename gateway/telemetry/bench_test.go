package telemetry_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/telemetry"
)

// sampled sets the sampler as a production environment does.
func sampled(b *testing.B, ratio string) telemetry.Options {
	b.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
	b.Setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
	return telemetry.Options{
		Teams: []identity.Team{"data-eng"}, AccessLog: io.Discard, SpanExporter: &dropped{},
	}
}

// dropped is an exporter that keeps nothing.
type dropped struct{}

func (*dropped) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }

func (*dropped) Shutdown(context.Context) error { return nil }

func BenchmarkBegin(b *testing.B) {
	untraced := request(http.MethodPost, "/api/get_work")
	traced := request(http.MethodPost, "/api/get_work", "traceparent", "00-"+clientTrace+"-00f067aa0ba902b7-00")
	cases := []struct {
		name    string
		request *http.Request
		options func(*testing.B) telemetry.Options
	}{
		{"no exporter", untraced, func(*testing.B) telemetry.Options { return telemetry.Options{} }},
		{"no exporter, with traceparent", traced, func(*testing.B) telemetry.Options { return telemetry.Options{} }},
		{"not sampled", untraced, func(b *testing.B) telemetry.Options { return sampled(b, "0") }},
		{"one percent sampled", untraced, func(b *testing.B) telemetry.Options { return sampled(b, "0.01") }},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			tel := start(b, c.options(b))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = tel.Begin(c.request)
			}
		})
	}
}

func BenchmarkObserve(b *testing.B) {
	run := func(name string, options func(*testing.B) telemetry.Options) {
		b.Run(name, func(b *testing.B) {
			tel := start(b, options(b))
			ctx, _ := tel.Begin(request(http.MethodPost, "/api/get_work"))
			ev := event()
			b.ReportAllocs()
			for b.Loop() {
				tel.Observe(ctx, ev)
			}
		})
	}
	teams := []identity.Team{"data-eng"}
	run("metrics alone", func(*testing.B) telemetry.Options { return telemetry.Options{Teams: teams} })
	run("with JSON access log", func(*testing.B) telemetry.Options {
		return telemetry.Options{Teams: teams, AccessLog: io.Discard}
	})
	run("with text access log", func(*testing.B) telemetry.Options {
		return telemetry.Options{Teams: teams, AccessLog: io.Discard, AccessLogFormat: "text"}
	})
	run("with access log, not sampled", func(b *testing.B) telemetry.Options { return sampled(b, "0") })
}

// BenchmarkRequest is Begin and Observe as they come, at the sampling of
// production and with all processors.
func BenchmarkRequest(b *testing.B) {
	tel := start(b, sampled(b, "0.01"))
	r := request(http.MethodPost, "/api/get_work")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		ev := event()
		for pb.Next() {
			ctx, _ := tel.Begin(r)
			tel.Observe(ctx, ev)
		}
	})
}

func BenchmarkTransport(b *testing.B) {
	for _, mode := range []gateway.Mode{gateway.Observe, gateway.Enforce} {
		b.Run(mode.String()+", not sampled", func(b *testing.B) {
			tel := start(b, sampled(b, "0"))
			r := request(http.MethodPost, "/api/get_work", "Accept", "*/*", "User-Agent", "x", "Content-Type", "y", "X-Forwarded-For", "z")
			ctx, _ := tel.Begin(r)
			r = r.WithContext(ctx)
			transport := tel.Transport(mode, roundTrip(func(*http.Request) (*http.Response, error) { return nil, nil }))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = transport.RoundTrip(r)
			}
		})
	}
}

// BenchmarkAccessLine compares the encoder with the JSON handler of log/slog
// for the same line; see lineFormat.
func BenchmarkAccessLine(b *testing.B) {
	ev := event()
	b.Run("by hand", func(b *testing.B) {
		var line []byte
		b.ReportAllocs()
		for b.Loop() {
			line = telemetry.AppendJSON(line[:0], ev)
		}
	})
	b.Run("by slog", func(b *testing.B) {
		var out bytes.Buffer
		handler := slog.NewJSONHandler(&out, nil)
		b.ReportAllocs()
		for b.Loop() {
			out.Reset()
			if err := handler.Handle(context.Background(), slogRecord(ev)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func slogRecord(ev *gateway.Event) slog.Record {
	millis := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	r := slog.NewRecord(ev.Start.Add(ev.Duration), slog.LevelInfo, "request", 0)
	r.AddAttrs(
		slog.String("trace_id", ev.TraceID), slog.String("method", ev.Method), slog.String("path", ev.Path),
		slog.Int("status", ev.Status), slog.Float64("duration_ms", millis(ev.Duration)),
		slog.String("team", string(ev.Team())), slog.String("account", ev.Principal.Name),
		slog.String("scheme", ev.Scheme().String()), slog.String("outcome", string(ev.Decision.Outcome)),
		slog.String("verdict", string(ev.Shadow.Verdict)), slog.String("verdict_reason", string(ev.Shadow.Reason)),
		slog.String("evidence", string(ev.Shadow.Evidence)), slog.String("run", ev.Call.Run),
		slog.String("rpc", ev.Call.Method), slog.String("family", ev.Call.Family),
		slog.String("client", ev.Client.String()), slog.String("user_agent", ev.UserAgent),
		slog.Int64("bytes", ev.Sent), slog.Float64("upstream_ms", millis(ev.UpstreamTime)),
	)
	return r
}
