package telemetry

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"crossfade/gateway"
)

// Transport wraps the transport to the upstream: it records a client span,
// from the request to the headers of the reply, when the server span is
// recorded.
//
// In mode Enforce it tells the upstream the trace (W3C Trace Context). In mode
// Observe it leaves the headers alone: what the client sent goes through
// unchanged, and what it did not send is not added. A mode that changes at
// reload needs another Transport; next can stay.
//
// It is for the requests that a proxy sends, which nobody else holds: unlike
// other round trippers it writes into the headers that it is given. A copy of
// them for each request was the dearest part of all telemetry.
func (t *Telemetry) Transport(mode gateway.Mode, next http.RoundTripper) http.RoundTripper {
	return &transport{caller{tracing: t.tracing, next: next, inject: mode == gateway.Enforce}}
}

type transport struct{ caller }

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	req := requestOf(r.Context())
	switch {
	case req == nil: // no request of a client
		return t.next.RoundTrip(r)
	case !req.recording():
		if t.inject && !req.asSent {
			t.tracing.injectInto(trace.ContextWithSpanContext(r.Context(), req.span), r.Header)
		}
		return t.next.RoundTrip(r)
	}

	return t.call(r.Context(), r)
}

// caller records the client spans of what it sends by next.
type caller struct {
	tracing *tracing
	next    http.RoundTripper
	inject  bool // the headers name the span
	// refusal says for which reason a reply is a refusal, "" if it is none. It
	// may be nil.
	refusal func(http.Header) string
}

// call sends a request, in a span from there to the headers of the reply that is
// a child of the one in ctx.
func (c *caller) call(ctx context.Context, r *http.Request) (*http.Response, error) {
	ctx, span := c.tracing.tracer.Start(ctx, knownMethod(r.Method),
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(clientAttributes(r)...))
	defer span.End()
	r = r.WithContext(ctx)
	if c.inject {
		c.tracing.injectInto(ctx, r.Header)
	}
	resp, err := c.next.RoundTrip(r)
	if err != nil {
		kind := failureKind(err)
		span.SetAttributes(semconv.ErrorTypeKey.String(kind))
		span.SetStatus(codes.Error, kind)
		return resp, err
	}
	span.SetAttributes(semconv.HTTPResponseStatusCode(resp.StatusCode))
	kind := ""
	if resp.StatusCode >= 400 {
		kind = strconv.Itoa(resp.StatusCode)
	}
	if c.refusal != nil {
		kind = cmp.Or(c.refusal(resp.Header), kind)
	}
	if kind != "" {
		span.SetAttributes(semconv.ErrorTypeKey.String(kind))
		span.SetStatus(codes.Error, "")
	}
	return resp, nil
}

// injectInto tells of the span in ctx.
func (t *tracing) injectInto(ctx context.Context, h http.Header) {
	for _, name := range t.fields {
		delete(h, name) // what was no valid trace does not go on, nor the state that belonged to it
	}
	t.propagator.Inject(ctx, carrier(h))
}

// clientAttributes leave the query and the user information of the URL out:
// both may hold secrets.
func clientAttributes(r *http.Request) []attribute.KeyValue {
	shown := url.URL{Scheme: r.URL.Scheme, Host: r.URL.Host, Path: r.URL.Path, RawPath: r.URL.RawPath}
	attrs := append(methodAttributes(r.Method), semconv.URLFull(clip(shown.String(), maxPath)))
	return append(attrs, serverOf(r.URL)...)
}

// The kinds of failure, as values of error.type.
const (
	failureCanceled = "canceled" // the client left
	failureTimeout  = "timeout"
	failureUpstream = "upstream"
)

// failureKind sorts what went wrong with the upstream: the text of the error
// may name anything, this may not.
func failureKind(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return failureCanceled
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return failureTimeout
	default:
		return failureUpstream
	}
}
