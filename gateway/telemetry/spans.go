package telemetry

import (
	"net/url"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"crossfade/gateway"
	"crossfade/rollout"
)

// flagKey is the feature flag that a rollout is.
const flagKey = "crossfade.oidc"

// The variants of the flag.
const (
	variantOIDC   = "oidc"   // legacy credentials are refused to the run
	variantLegacy = "legacy" // legacy credentials are accepted
)

// end closes the server span with what the event tells, and adds the spans that
// are known only afterwards, with their own times. It is called for recording
// spans alone.
func (t *tracing) end(req *request, ev *gateway.Event) {
	span := req.server
	span.SetName(spanName(ev))
	span.SetAttributes(serverAttributes(ev)...)
	if ev.Legacy.OK() {
		evaluated(span, ev)
	}
	if !ev.DecideStart.IsZero() {
		_, decide := t.tracer.Start(req.Context, "decide",
			trace.WithTimestamp(ev.DecideStart), trace.WithAttributes(decisionAttributes(ev)...))
		decide.End(trace.WithTimestamp(ev.DecideStart.Add(ev.DecideTime)))
	}
	if ev.Shadowed {
		t.shadow(req, ev)
	}
	if kind := errorType(ev); kind != "" {
		span.SetAttributes(semconv.ErrorTypeKey.String(kind))
	}
	// Semantic conventions for HTTP spans: what the client did wrong is no
	// error of the server, and a refusal is that.
	if broken(ev) {
		span.SetStatus(codes.Error, "")
	}
	span.End(trace.WithTimestamp(ev.Start.Add(ev.Duration)))
}

// shadow adds the span of the shadow. It may outlive the request, so besides
// being its child it links to it.
func (t *tracing) shadow(req *request, ev *gateway.Event) {
	attrs := []attribute.KeyValue{
		attribute.String("crossfade.verdict", string(closedVerdict(ev.Shadow.Verdict))),
		attribute.String("crossfade.evidence", string(closedEvidence(ev.Shadow.Evidence))),
	}
	if ev.Shadow.Reason != "" {
		attrs = append(attrs, attribute.String("crossfade.verdict_reason", string(closedReason(ev.Shadow.Reason))))
	}
	if ev.ShadowToken != nil {
		attrs = append(attrs, attribute.String("crossfade.auth.result", ev.ShadowToken.Status.String()))
	}
	_, span := t.tracer.Start(req.Context, "shadow",
		trace.WithTimestamp(ev.ShadowStart),
		trace.WithLinks(trace.Link{SpanContext: req.span}),
		trace.WithAttributes(attrs...))
	span.End(trace.WithTimestamp(ev.ShadowStart.Add(ev.ShadowTime)))
}

// evaluated adds the rollout's decision, by the semantic conventions for
// feature flags. There is no feature_flag.context.id: it would be a person or
// an account.
func evaluated(span trace.Span, ev *gateway.Event) {
	variant := variantLegacy
	if ev.Enforcement.Enforced {
		variant = variantOIDC
	}
	span.AddEvent("feature_flag.evaluation",
		trace.WithTimestamp(ev.DecideStart),
		trace.WithAttributes(
			semconv.FeatureFlagKey(flagKey),
			semconv.FeatureFlagProviderName("crossfade"),
			semconv.FeatureFlagSetID(clip(string(ev.Team()), maxName)),
			semconv.FeatureFlagVersion(strconv.FormatInt(ev.Enforcement.Revision, 10)),
			semconv.FeatureFlagResultVariant(variant),
			flagReason(ev.Enforcement),
		))
}

func flagReason(e rollout.Enforcement) attribute.KeyValue {
	switch {
	case !e.Known:
		return semconv.FeatureFlagResultReasonError
	case e.Stale:
		return semconv.FeatureFlagResultReasonStale
	case e.Latched:
		return semconv.FeatureFlagResultReasonCached
	case e.Retired, e.Percent == 0, e.Percent >= rollout.Full:
		return semconv.FeatureFlagResultReasonStatic
	case !e.KeyKnown:
		return semconv.FeatureFlagResultReasonDefault
	default:
		return semconv.FeatureFlagResultReasonSplit
	}
}

// spanName is of low cardinality: the method, and the procedure where it is one
// of those that Luigi has.
func spanName(ev *gateway.Event) string {
	method := knownMethod(ev.Method)
	if !knownRPC(ev) {
		return method
	}
	return method + " /api/" + ev.Call.Method
}

// knownRPC tells a procedure of the profile's closed list: only those have an
// action.
func knownRPC(ev *gateway.Event) bool { return ev.Call.RPC && ev.Call.Action != "" }

func serverAttributes(ev *gateway.Event) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, 20), methodAttributes(ev.Method)...)
	attrs = append(attrs,
		semconv.URLPath(clip(ev.Path, maxPath)),
		semconv.NetworkProtocolVersion(protocolVersion(ev.Proto)),
		attribute.String("crossfade.mode", ev.Mode.String()),
		attribute.String("crossfade.team", clip(string(ev.Team()), maxName)),
		attribute.String("crossfade.scheme", ev.Scheme().String()),
		attribute.String("crossfade.outcome", string(closedOutcome(ev.Decision.Outcome))),
	)
	attrs = append(attrs, serverOf(&url.URL{Host: ev.Host})...)
	if ev.Status != 0 {
		attrs = append(attrs, semconv.HTTPResponseStatusCode(ev.Status))
	}
	if knownRPC(ev) {
		attrs = append(attrs, semconv.HTTPRoute("/api/"+ev.Call.Method), semconv.RPCMethod(ev.Call.Method))
	}
	if ev.UserAgent != "" {
		attrs = append(attrs, semconv.UserAgentOriginal(clip(ev.UserAgent, maxName)))
	}
	if ev.Client.IsValid() {
		attrs = append(attrs, semconv.ClientAddress(ev.Client.String()))
	}
	if ev.Decision.Reason != "" {
		attrs = append(attrs, attribute.String("crossfade.reason", string(closedReason(ev.Decision.Reason))))
	}
	if ev.Shadow.Verdict != "" {
		attrs = append(attrs, attribute.String("crossfade.verdict", string(closedVerdict(ev.Shadow.Verdict))))
	}
	return attrs
}

func decisionAttributes(ev *gateway.Event) []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		attribute.String("crossfade.outcome", string(closedOutcome(ev.Decision.Outcome))),
		attribute.String("crossfade.control", ev.Decision.Control.String()),
		attribute.String("crossfade.candidate", ev.Decision.Candidate.String()),
	}
	if ev.Decision.Reason != "" {
		attrs = append(attrs, attribute.String("crossfade.reason", string(closedReason(ev.Decision.Reason))))
	}
	return attrs
}

// errorType is the reason of a refusal, which the status does not show (Luigi's
// are HTTP 200), else what was wrong with the upstream, else a status of 500 or
// above; "" when nothing is wrong.
func errorType(ev *gateway.Event) string {
	switch {
	case ev.Decision.Outcome == gateway.Refused, ev.Decision.Outcome == gateway.Unavailable:
		return string(closedReason(ev.Decision.Reason))
	case ev.UpstreamErr != nil:
		return failureKind(ev.UpstreamErr)
	case ev.Status >= 500:
		return strconv.Itoa(ev.Status)
	default:
		return ""
	}
}

// methodAttributes follows the semantic conventions: an unknown method is
// _OTHER, with the original beside it.
func methodAttributes(method string) []attribute.KeyValue {
	if known := knownMethod(method); known != "HTTP" {
		return []attribute.KeyValue{semconv.HTTPRequestMethodKey.String(known)}
	}
	return []attribute.KeyValue{
		semconv.HTTPRequestMethodOther, semconv.HTTPRequestMethodOriginal(clip(method, maxMethod)),
	}
}

// serverOf is who was asked. Conventions want the port apart; where none is
// written, it is that of the scheme.
func serverOf(u *url.URL) []attribute.KeyValue {
	attrs := []attribute.KeyValue{semconv.ServerAddress(clip(u.Hostname(), maxName))}
	port, err := strconv.Atoi(u.Port())
	switch {
	case err == nil:
	case u.Scheme == "http":
		port = 80
	case u.Scheme == "https":
		port = 443
	default:
		return attrs
	}
	return append(attrs, semconv.ServerPort(port))
}

// knownMethod returns the method if it is one of RFC 9110 section 9 or RFC
// 5789, else "HTTP", the span name that the semantic conventions give to the
// others.
func knownMethod(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		return method
	case "":
		return "GET" // of an outgoing request (net/http.Request)
	default:
		return "HTTP"
	}
}

// protocolVersion returns "1.1" for "HTTP/1.1" and "2" for "HTTP/2.0".
func protocolVersion(proto string) string {
	version := strings.TrimSuffix(strings.TrimPrefix(proto, "HTTP/"), ".0")
	if version == "1" {
		return "1.0"
	}
	return clip(version, maxMethod)
}
