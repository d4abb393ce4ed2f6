package telemetry

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/contrib/propagators/autoprop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/net/http/httpguts"
)

// scope names the instrumentation in spans.
const scope = "crossfade/gateway/telemetry"

// The service names without OTEL_SERVICE_NAME.
const (
	gatewayService = "crossfade"
	agentService   = "crossfade-agent"
)

// tracingOptions are what the environment does not say.
type tracingOptions struct {
	service, version string
	exporter         sdktrace.SpanExporter // nil: the one that the environment names
	report           func(error)           // may be nil
}

// tracing opens and closes spans. Without an exporter its tracer is nil: then
// there is no sampling and nothing is recorded, only trace ids exist.
type tracing struct {
	exporter   *exporter
	provider   *sdktrace.TracerProvider
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	fields     []string // the headers that propagator sets, in canonical form
}

// newTracing reads the variables of
// https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/:
// sampler, limits and batches are read by the SDK itself.
func newTracing(ctx context.Context, o tracingOptions) (*tracing, error) {
	propagator, err := newPropagator()
	if err != nil {
		return nil, err
	}
	t := &tracing{propagator: propagator}
	for _, name := range propagator.Fields() {
		t.fields = append(t.fields, http.CanonicalHeaderKey(name))
	}
	next := o.exporter
	if next == nil {
		if !exporterConfigured() {
			return t, nil
		}
		if err := checkCollector(); err != nil {
			return nil, err
		}
		next, err = autoexport.NewSpanExporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("OTEL_TRACES_EXPORTER %q, OTEL_EXPORTER_OTLP_PROTOCOL %q: %w",
				os.Getenv("OTEL_TRACES_EXPORTER"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), err)
		}
		if autoexport.IsNoneSpanExporter(next) {
			return t, nil
		}
	}
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithAttributes(semconv.ServiceName(o.service), semconv.ServiceVersion(o.version)),
		resource.WithFromEnv(), // last, so that it wins
	)
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	t.exporter = newExporter(next, o.report)
	queue, err := newBatches(t.exporter)
	if err != nil {
		return nil, err
	}
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(queue), sdktrace.WithResource(res))
	t.tracer = t.provider.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL))
	return t, nil
}

// exporterConfigured tells whether the environment asks for an exporter. The
// specification's default would be OTLP to localhost; a gateway that was told
// nothing should not call anyone.
func exporterConfigured() bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return false
	}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if value == "" {
			continue
		}
		if name == "OTEL_TRACES_EXPORTER" {
			return true
		}
		rest, otlp := strings.CutPrefix(name, "OTEL_EXPORTER_OTLP_")
		if otlp && !strings.HasPrefix(rest, "METRICS_") && !strings.HasPrefix(rest, "LOGS_") {
			return true
		}
	}
	return false
}

// checkCollector finds in the variables of the collector what its exporter could not
// read. The exporter would go on without it and write it to standard error as it
// stands, and headers and addresses may hold passwords: so the error names only where
// it is. The form of headers is that of
// https://opentelemetry.io/docs/specs/otel/protocol/exporter/#specifying-headers-via-environment-variables.
func checkCollector() error {
	if name := os.Getenv("OTEL_TRACES_EXPORTER"); name != "" && name != "otlp" {
		return nil
	}
	for _, signal := range []string{"", "TRACES_"} {
		variable := "OTEL_EXPORTER_OTLP_" + signal + "ENDPOINT"
		if _, err := url.Parse(strings.TrimSpace(os.Getenv(variable))); err != nil {
			return fmt.Errorf("%s is no URL: write it like http://collector:4318", variable)
		}
		variable = "OTEL_EXPORTER_OTLP_" + signal + "HEADERS"
		n := 0
		for pair := range strings.SplitSeq(os.Getenv(variable), ",") {
			n++
			if strings.TrimSpace(pair) == "" {
				continue
			}
			name, value, ok := strings.Cut(pair, "=")
			if !ok || !httpguts.ValidHeaderFieldName(strings.TrimSpace(name)) {
				return fmt.Errorf("%s: header %d is none: write name=value, and a comma between two of them", variable, n)
			}
			if _, err := url.PathUnescape(value); err != nil {
				return fmt.Errorf("%s: in the value of header %d a percent sign begins no escape: write %%25 for it", variable, n)
			}
		}
	}
	return nil
}

// newPropagator takes OTEL_PROPAGATORS; W3C Trace Context is the default.
func newPropagator() (propagation.TextMapPropagator, error) {
	names := strings.TrimSpace(os.Getenv("OTEL_PROPAGATORS"))
	if names == "" {
		return propagation.TraceContext{}, nil
	}
	var list []string
	for name := range strings.SplitSeq(names, ",") {
		list = append(list, strings.TrimSpace(name))
	}
	p, err := autoprop.TextMapPropagator(list...)
	if err != nil {
		return nil, fmt.Errorf("OTEL_PROPAGATORS %q: %w", names, err)
	}
	return p, nil
}

func (t *tracing) close(ctx context.Context) error {
	if t.provider == nil {
		return nil
	}
	// The provider stops nothing at all if its context has ended, so it gets
	// one that does not, and loses the collector instead.
	done := make(chan error, 1)
	go func() { done <- t.provider.Shutdown(context.WithoutCancel(ctx)) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	t.exporter.stop()
	if err != nil {
		return fmt.Errorf("send the last spans: %w", err)
	}
	return nil
}

// lostSpans counts the spans that found no room to wait and those that the
// collector did not take.
func (t *tracing) lostSpans() float64 {
	if t.exporter == nil {
		return 0
	}
	return float64(t.exporter.lost.Load())
}

// request is the context of one request. It is a context itself, so that Begin
// allocates it once.
type request struct {
	context.Context
	// span is the server span, recorded or not. Without an exporter it is the
	// client's own span or one that nobody records.
	span trace.SpanContext
	// server is the recording server span; nil when nothing is recorded.
	server trace.Span
	// asSent tells that the client's headers already say all about span.
	asSent bool
}

type contextKey struct{}

// Value implements context.Context.
func (r *request) Value(key any) any {
	if key == (contextKey{}) {
		return r
	}
	return r.Context.Value(key)
}

// requestOf returns the request that ctx belongs to, or nil.
func requestOf(ctx context.Context) *request {
	req, _ := ctx.Value(contextKey{}).(*request)
	return req
}

func (r *request) recording() bool { return r != nil && r.server != nil }

func (t *tracing) begin(r *http.Request) *request {
	ctx := t.propagator.Extract(r.Context(), carrier(r.Header))
	if t.tracer == nil {
		req := &request{Context: ctx, span: trace.SpanContextFromContext(ctx)}
		if req.asSent = req.span.IsValid(); !req.asSent {
			req.span = randomSpan()
		}
		return req
	}
	ctx, span := t.tracer.Start(ctx, knownMethod(r.Method), trace.WithSpanKind(trace.SpanKindServer))
	req := &request{Context: ctx, span: span.SpanContext()}
	if span.IsRecording() {
		req.server = span
		urlScheme := "http"
		if r.TLS != nil {
			urlScheme = "https"
		}
		span.SetAttributes(semconv.URLScheme(urlScheme))
	}
	return req
}

// randomSpan makes ids for a trace that nobody records (flags 0).
func randomSpan() trace.SpanContext {
	var c trace.SpanContextConfig
	for !c.TraceID.IsValid() || !c.SpanID.IsValid() { // all zeros are invalid
		fill(c.TraceID[:])
		fill(c.SpanID[:])
	}
	return trace.NewSpanContext(c)
}

func fill(id []byte) {
	for i := 0; i < len(id); i += 8 {
		binary.BigEndian.PutUint64(id[i:], rand.Uint64())
	}
}

// carrier reads and writes trace headers. For those of W3C Trace Context it
// does without folding the name, and reads them as the recommendation says:
// two traceparent headers are none (section 3.2), tracestate headers are one
// list (section 3.3.1.1).
type carrier http.Header

const (
	traceParent = "Traceparent"
	traceState  = "Tracestate"
)

// Get implements propagation.TextMapCarrier.
func (c carrier) Get(key string) string {
	switch key {
	case "traceparent":
		if values := c[traceParent]; len(values) == 1 {
			return values[0]
		}
		return ""
	case "tracestate":
		switch values := c[traceState]; len(values) {
		case 0:
			return ""
		case 1:
			return values[0]
		default:
			return strings.Join(values, ",")
		}
	default:
		return http.Header(c).Get(key)
	}
}

// Set implements propagation.TextMapCarrier.
func (c carrier) Set(key, value string) {
	switch key {
	case "traceparent":
		c[traceParent] = []string{value}
	case "tracestate":
		c[traceState] = []string{value}
	default:
		http.Header(c).Set(key, value)
	}
}

// Keys implements propagation.TextMapCarrier.
func (c carrier) Keys() []string { return propagation.HeaderCarrier(c).Keys() }
