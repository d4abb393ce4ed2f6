// Package telemetry turns the one event of each request into metrics, spans and
// the access line. Besides the commands it is the only package that knows
// Prometheus and OpenTelemetry; the straight pass knows neither.
//
// Metrics live in a registry of their own, prefixed crossfade_. Label values
// come from closed lists or from the configured teams and issuers: whatever a
// client sends, it never becomes a label. What is not on a list is counted as
// "other", a team that is not configured as "unassigned".
//
// Tracing follows the OTEL_ variables of the OpenTelemetry specification.
// Without an exporter nothing is sampled or recorded, but each request still
// has a trace id: the client's (W3C Trace Context) or a new one.
//
// Nothing here can block or fail a request. Spans and access lines wait in
// bounded queues; what does not fit is dropped and counted.
//
// The client half has no metrics here, and a span for each request that it sends:
// see Agent.
package telemetry
