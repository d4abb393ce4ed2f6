package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"crossfade/gateway"
	"crossfade/gateway/identity"
)

// Authenticator measures next: how long each judgement takes, by scheme and
// result, and what was throttled. In a request that is traced each one is a
// span.
func (t *Telemetry) Authenticator(next gateway.Authenticator) gateway.Authenticator {
	return authenticator{t, next}
}

// TokenAuthenticator measures next like Authenticator. Cached is passed on
// unmeasured: it is a lookup.
func (t *Telemetry) TokenAuthenticator(next gateway.TokenAuthenticator) gateway.TokenAuthenticator {
	return tokenAuthenticator{authenticator{t, next}, next}
}

type authenticator struct {
	telemetry *Telemetry
	next      gateway.Authenticator
}

type tokenAuthenticator struct {
	authenticator
	remembers gateway.TokenAuthenticator
}

// Cached implements gateway.TokenAuthenticator.
func (a tokenAuthenticator) Cached(c identity.Credential) (*identity.Authentication, bool) {
	return a.remembers.Cached(c)
}

// Authenticate implements gateway.Authenticator.
func (a authenticator) Authenticate(ctx context.Context, c identity.Credential) *identity.Authentication {
	req := requestOf(ctx)
	var span trace.Span
	if req.recording() {
		ctx, span = a.telemetry.tracing.tracer.Start(ctx, "authenticate",
			trace.WithAttributes(attribute.String("crossfade.scheme", c.Scheme.String())))
	}
	start := time.Now()
	judgement := a.next.Authenticate(ctx, c)
	a.telemetry.metrics.authenticated(c.Scheme, judgement, time.Since(start), req)
	if span != nil {
		span.SetAttributes(attribute.String("crossfade.auth.result", judgement.Status.String()))
		if reason := judgement.Primary(); reason != "" {
			span.SetAttributes(semconv.ErrorTypeKey.String(string(closedReason(reason))))
		}
		if judgement.Status == identity.StatusUnavailable {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
	return judgement
}
