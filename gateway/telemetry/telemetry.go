package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"crossfade/gateway"
	"crossfade/gateway/identity"
)

// Options configures New. The zero value measures, and logs nothing.
type Options struct {
	// Version is the version of the program, for build_info and the resource
	// of spans.
	Version string
	// Teams is the closed set of team labels; Unassigned belongs to it anyway.
	Teams []identity.Team
	// Issuers are the configured token issuers, the closed set of their label.
	Issuers []string

	// AccessLog receives one line a request; nil writes none. It is called by
	// one goroutine, within a second of the request.
	AccessLog io.Writer
	// AccessLogFormat is "json", which is the default, or "text".
	AccessLogFormat string
	// AccessLogColor colours the text format, unless the environment has
	// NO_COLOR (https://no-color.org).
	AccessLogColor bool

	// SpanExporter takes the place of the exporter that the OTEL_ variables
	// name. nil leaves the choice to them.
	SpanExporter sdktrace.SpanExporter
	// Report, if set, is told when sending spans or writing access lines begins
	// to fail, and with nil when that is over. The metrics tell it as well. It
	// may be called by two goroutines at once.
	Report func(error)
	// Now is the clock of timestamp metrics, time.Now by default.
	Now func() time.Time
}

// Telemetry is a gateway.Recorder. All methods are safe for concurrent use, and
// none but Close waits for anything.
type Telemetry struct {
	metrics *metrics
	tracing *tracing
	log     *accessLog // nil without one
	now     func() time.Time
}

var _ gateway.Recorder = (*Telemetry)(nil)

// New registers the metrics, reads the OTEL_ variables and starts what writes
// in the background; call Close to end it. An exporter connects lazily, so a
// collector that is away is no error.
func New(ctx context.Context, o Options) (*Telemetry, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	line, err := lineFormat(o)
	if err != nil {
		return nil, err
	}
	tr, err := newTracing(ctx, tracingOptions{gatewayService, o.Version, o.SpanExporter, o.Report})
	if err != nil {
		return nil, fmt.Errorf("set up tracing from the OTEL_ variables: %w", err)
	}
	t := &Telemetry{tracing: tr, now: o.Now}
	if o.AccessLog != nil {
		t.log = newAccessLog(o.AccessLog, line, o.Report)
	}
	t.metrics = newMetrics(o.Version, t.log.lostLines, tr.lostSpans)
	t.SetTeams(o.Teams)
	t.SetIssuers(o.Issuers)
	return t, nil
}

// Begin implements gateway.Recorder: it opens the server span and finds the
// trace id.
func (t *Telemetry) Begin(r *http.Request) (context.Context, string) {
	t.metrics.inFlight.Add(1)
	req := t.tracing.begin(r)
	return req, req.span.TraceID().String()
}

// Observe implements gateway.Recorder.
func (t *Telemetry) Observe(ctx context.Context, ev *gateway.Event) {
	t.metrics.inFlight.Add(-1)
	req := requestOf(ctx)
	t.metrics.observe(ev, req)
	if req.recording() {
		t.tracing.end(req, ev)
	}
	if t.log != nil {
		t.log.record(ev)
	}
}

// Handler serves the metrics: the text format, or OpenMetrics with exemplars
// to those who ask for it. It needs no login and tells no secrets.
func (t *Telemetry) Handler() http.Handler { return t.metrics.handler() }

// Close writes what waits: the access lines and the spans. It gives up, and
// says so, when ctx ends. Requests that are observed later are still counted,
// but neither logged nor traced.
func (t *Telemetry) Close(ctx context.Context) error {
	var logErr error
	if t.log != nil {
		logErr = t.log.close(ctx)
	}
	return errors.Join(logErr, t.tracing.close(ctx))
}
