package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"crossfade/gateway/identity"
	"crossfade/gateway/probe"
	"crossfade/gateway/shadow"
)

// Probes returns what measures and traces probes. A probe is a trace of its own,
// and no request: it counts in probe_total and, as evidence of its own kind, in
// shadow_verdicts_total. It does not in shadow_mismatches_total, which cannot
// tell it from what clients send.
func (t *Telemetry) Probes() probe.Recorder { return probes{t} }

type probes struct{ telemetry *Telemetry }

// Begin implements probe.Recorder.
func (p probes) Begin(ctx context.Context, account identity.Principal) (context.Context, string) {
	tracer := p.telemetry.tracing.tracer
	if tracer == nil {
		return ctx, randomSpan().TraceID().String()
	}
	ctx, span := tracer.Start(ctx, "probe", trace.WithNewRoot(), trace.WithAttributes(
		attribute.String("crossfade.team", p.telemetry.metrics.teamLabel(account.Team))))
	return ctx, span.SpanContext().TraceID().String()
}

// Observe implements probe.Recorder.
func (p probes) Observe(ctx context.Context, r *probe.Result) {
	team := p.telemetry.metrics.team(r.Account.Team)
	team.probes.get(r.Outcome).Inc()
	team.verdicts.get(verdictKey{r.Shadow.Verdict, shadow.EvidenceProbe}).Inc()
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		p.telemetry.tracing.endProbe(ctx, span, r)
	}
}

// endProbe closes the span of a probe and adds those of its two steps, with
// their own times.
func (t *tracing) endProbe(ctx context.Context, span trace.Span, r *probe.Result) {
	obtained, ended := r.Start.Add(r.Obtain), r.Start.Add(r.Took)
	_, obtain := t.tracer.Start(ctx, "obtain token", trace.WithTimestamp(r.Start), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("crossfade.probe.source", clip(r.Kind, maxName))))
	if r.Err != nil {
		obtain.SetStatus(codes.Error, "")
	}
	obtain.End(trace.WithTimestamp(obtained))
	if r.Token != nil {
		_, judge := t.tracer.Start(ctx, "authenticate", trace.WithTimestamp(obtained), trace.WithAttributes(
			attribute.String("crossfade.scheme", identity.SchemeOIDC.String()),
			attribute.String("crossfade.auth.result", r.Token.Status.String())))
		judge.End(trace.WithTimestamp(ended))
	}
	span.SetAttributes(
		attribute.String("crossfade.probe.result", string(closedProbe(r.Outcome))),
		attribute.String("crossfade.verdict", string(closedVerdict(r.Shadow.Verdict))),
		attribute.String("crossfade.evidence", string(shadow.EvidenceProbe)),
	)
	if r.Shadow.Reason != "" {
		span.SetAttributes(attribute.String("crossfade.verdict_reason", string(closedReason(r.Shadow.Reason))))
	}
	if r.Outcome != probe.OK {
		kind := string(closedReason(r.Shadow.Reason))
		if kind == "" {
			kind = string(closedProbe(r.Outcome))
		}
		span.SetAttributes(semconv.ErrorTypeKey.String(kind))
		span.SetStatus(codes.Error, "")
	}
	span.End(trace.WithTimestamp(ended))
}
