package telemetry

import (
	"context"
	"fmt"
	"net/http"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"crossfade/gateway"
	"crossfade/gateway/identity"
)

// AgentOptions configures NewAgent. The zero value is one for the environment to
// say everything.
type AgentOptions struct {
	// Version is the version of the program, for the resource of spans.
	Version string
	// SpanExporter takes the place of the exporter that the OTEL_ variables
	// name. nil leaves the choice to them.
	SpanExporter sdktrace.SpanExporter
	// Report, if set, is told when sending spans begins to fail, and with nil
	// when that is over. It is called by one goroutine.
	Report func(error)
}

// Agent records the spans of the client half: one for each request that an agent
// sends to the gateway. Methods are safe for concurrent use, and none but Close
// waits for anything.
type Agent struct{ tracing *tracing }

// NewAgent reads the OTEL_ variables, as New does for a gateway; the service's
// name is crossfade-agent unless they have another. Without an exporter nothing
// is recorded and no request changed. Call Close to end it.
func NewAgent(ctx context.Context, o AgentOptions) (*Agent, error) {
	tr, err := newTracing(ctx, tracingOptions{agentService, o.Version, o.SpanExporter, o.Report})
	if err != nil {
		return nil, fmt.Errorf("set up tracing from the OTEL_ variables: %w", err)
	}
	return &Agent{tr}, nil
}

// Transport wraps the transport to the gateway. Each request is a client span in
// the worker's trace, or in a new one where its headers name none (W3C Trace
// Context, or OTEL_PROPAGATORS); the gateway is told of it. A refusal is an error
// of the type that its reason is: those to Luigi's workers have status 200.
//
// It is for the requests that a proxy sends, which nobody else holds: unlike
// other round trippers it writes into the headers that it is given.
func (a *Agent) Transport(next http.RoundTripper) http.RoundTripper {
	if a.tracing.tracer == nil {
		return next
	}
	return &agentTransport{caller{tracing: a.tracing, next: next, inject: true, refusal: refusalOf}}
}

// LostSpans counts the spans that found no room to wait, or that the collector
// did not take.
func (a *Agent) LostSpans() float64 { return a.tracing.lostSpans() }

// Close sends the spans that wait. It gives up, and says so, when ctx ends.
func (a *Agent) Close(ctx context.Context) error { return a.tracing.close(ctx) }

type agentTransport struct{ caller }

// RoundTrip implements http.RoundTripper.
func (t *agentTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.call(t.tracing.propagator.Extract(r.Context(), carrier(r.Header)), r)
}

// refusalOf finds the reason in a reply of the gateway's.
func refusalOf(h http.Header) string {
	return string(closedReason(identity.Reason(h.Get(gateway.ReasonHeader))))
}
