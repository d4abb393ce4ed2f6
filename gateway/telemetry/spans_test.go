package telemetry_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/gateway/telemetry"
	"crossfade/rollout"
)

const clientParent = "00-" + clientTrace + "-00f067aa0ba902b7-01"

func attributes(kvs []attribute.KeyValue) map[string]string {
	m := make(map[string]string, len(kvs))
	for _, kv := range kvs {
		m[string(kv.Key)] = kv.Value.String()
	}
	return m
}

// traced passes ev through as a sampled request and returns the spans.
func traced(t *testing.T, ev *gateway.Event, during func(context.Context, *telemetry.Telemetry)) map[string]tracetest.SpanStub {
	t.Helper()
	var exporter spans
	tel := start(t, telemetry.Options{SpanExporter: &exporter})
	ctx, _ := tel.Begin(request(http.MethodPost, "/api/get_work", "traceparent", clientParent))
	if during != nil {
		during(ctx, tel)
	}
	tel.Observe(ctx, ev)
	return exporter.collect(t, tel)
}

func TestSpansOfARequest(t *testing.T) {
	ev := refused()
	ev.Shadowed, ev.ShadowStart, ev.ShadowTime = true, noon().Add(time.Second), 40*time.Millisecond
	ev.ShadowToken = identity.Reject("", identity.AudMismatch)
	ev.Shadow = shadow.Result{Verdict: shadow.WouldBreak, Reason: identity.AudMismatch, Evidence: shadow.EvidenceClient}
	got := traced(t, ev, func(ctx context.Context, tel *telemetry.Telemetry) {
		tel.Authenticator(verified()).Authenticate(ctx, identity.Credential{Scheme: identity.SchemeBasic})
	})

	server, ok := got["POST /api/get_work"]
	if !ok || len(got) != 4 {
		t.Fatalf("spans: %v", got)
	}
	if server.SpanKind != trace.SpanKindServer || server.Parent.SpanID().String() != "00f067aa0ba902b7" ||
		server.SpanContext.TraceID().String() != clientTrace || !server.Parent.IsRemote() {
		t.Errorf("server span: kind %v, parent %v", server.SpanKind, server.Parent)
	}
	if want := ev.Start.Add(ev.Duration); !server.EndTime.Equal(want) {
		t.Errorf("server span ends %v, want %v", server.EndTime, want)
	}
	if server.Status.Code != codes.Unset {
		t.Errorf("a refusal is the status %v of the server span", server.Status)
	}
	if diff := cmp.Diff(map[string]string{
		"url.scheme": "http", "http.request.method": "POST", "url.path": "/api/get_work",
		"server.address": "luigi.acme.dev", "network.protocol.version": "1.1", "http.response.status_code": "200",
		"http.route": "/api/get_work", "rpc.method": "get_work", "user_agent.original": "Python-urllib/3.11",
		"client.address": "10.1.2.3", "error.type": "legacy_refused",
		"crossfade.mode": "enforce", "crossfade.team": "data-eng", "crossfade.scheme": "basic",
		"crossfade.outcome": "refused", "crossfade.reason": "legacy_refused", "crossfade.verdict": "would_break",
	}, attributes(server.Attributes)); diff != "" {
		t.Errorf("server span (-want +got):\n%s", diff)
	}
	for _, name := range []string{"authenticate", "decide", "shadow"} {
		if got[name].Parent.SpanID() != server.SpanContext.SpanID() {
			t.Errorf("%s is no child of the server span", name)
		}
	}
	if diff := cmp.Diff(map[string]string{"crossfade.scheme": "basic", "crossfade.auth.result": "verified"},
		attributes(got["authenticate"].Attributes)); diff != "" {
		t.Errorf("authenticate (-want +got):\n%s", diff)
	}
	decide := got["decide"]
	if !decide.StartTime.Equal(ev.DecideStart) || !decide.EndTime.Equal(ev.DecideStart.Add(ev.DecideTime)) {
		t.Errorf("decide lasts from %v to %v", decide.StartTime, decide.EndTime)
	}
	if diff := cmp.Diff(map[string]string{
		"crossfade.outcome": "refused", "crossfade.reason": "legacy_refused", "crossfade.control": "legacy", "crossfade.candidate": "none",
	}, attributes(decide.Attributes)); diff != "" {
		t.Errorf("decide (-want +got):\n%s", diff)
	}
	sh := got["shadow"]
	if !sh.StartTime.Equal(ev.ShadowStart) || !sh.EndTime.Equal(ev.ShadowStart.Add(ev.ShadowTime)) {
		t.Errorf("shadow lasts from %v to %v", sh.StartTime, sh.EndTime)
	}
	if len(sh.Links) != 1 || sh.Links[0].SpanContext.SpanID() != server.SpanContext.SpanID() {
		t.Errorf("shadow links to %v", sh.Links)
	}
	if diff := cmp.Diff(map[string]string{
		"crossfade.verdict": "would_break", "crossfade.verdict_reason": "aud_mismatch",
		"crossfade.evidence": "client", "crossfade.auth.result": "rejected",
	}, attributes(sh.Attributes)); diff != "" {
		t.Errorf("shadow (-want +got):\n%s", diff)
	}
}

func TestRolloutIsAFeatureFlag(t *testing.T) {
	cases := []struct {
		name            string
		enforcement     rollout.Enforcement
		variant, reason string
	}{
		{"a percentage splits", rollout.Enforcement{Known: true, KeyKnown: true, Percent: 50, Enforced: true}, "oidc", "split"},
		{"a latch is a remembered answer", rollout.Enforcement{Known: true, KeyKnown: true, Percent: 50, Latched: true}, "legacy", "cached"},
		{"nothing splits at 0", rollout.Enforcement{Known: true}, "legacy", "static"},
		{"nothing splits at 100", rollout.Enforcement{Known: true, Percent: 100, Enforced: true}, "oidc", "static"},
		{"a run without a key takes the default", rollout.Enforcement{Known: true, Percent: 50}, "legacy", "default"},
		{"a store that is away leaves old knowledge", rollout.Enforcement{Known: true, KeyKnown: true, Percent: 50, Stale: true}, "legacy", "stale"},
		{"a table that was never read is an error", rollout.Enforcement{}, "legacy", "error"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ev := event()
			c.enforcement.Revision = 7
			ev.Enforcement = c.enforcement
			events := traced(t, ev, nil)["POST /api/get_work"].Events
			if len(events) != 1 || events[0].Name != "feature_flag.evaluation" || !events[0].Time.Equal(ev.DecideStart) {
				t.Fatalf("events: %v", events)
			}
			if diff := cmp.Diff(map[string]string{
				"feature_flag.key": "crossfade.oidc", "feature_flag.provider.name": "crossfade", "feature_flag.set.id": "data-eng",
				"feature_flag.version": "7", "feature_flag.result.variant": c.variant, "feature_flag.result.reason": c.reason,
			}, attributes(events[0].Attributes)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("without a verified legacy credential no rollout is asked", func(t *testing.T) {
		ev := event()
		ev.Legacy = nil
		if events := traced(t, ev, nil)["POST /api/get_work"].Events; len(events) != 0 {
			t.Errorf("events: %v", events)
		}
	})
}

func TestServerSpanNamesAndErrors(t *testing.T) {
	cases := []struct {
		name            string
		change          func(*gateway.Event)
		span, errorType string
		status          codes.Code
	}{
		{"an allowed call", func(*gateway.Event) {}, "POST /api/get_work", "", codes.Unset},
		{"a call that the profile does not know keeps its name out", func(ev *gateway.Event) {
			ev.Call = gateway.Call{RPC: true, Method: "x-secret-x", Problem: identity.RPCUnknown}
		}, "POST", "", codes.Unset},
		{"a page is named by its method", func(ev *gateway.Event) {
			ev.Method, ev.Call = "GET", gateway.Call{Action: identity.ActionView}
		}, "GET", "", codes.Unset},
		{"a method that no RFC knows", func(ev *gateway.Event) { ev.Method, ev.Call = "BREW", gateway.Call{} }, "HTTP", "", codes.Unset},
		{"an outage is an error", func(ev *gateway.Event) {
			ev.Decision = gateway.Decision{Outcome: gateway.Unavailable, Reason: identity.JWKSUnavailable}
		}, "POST /api/get_work", "jwks_unavailable", codes.Error},
		{"an upstream that fails is an error", func(ev *gateway.Event) {
			ev.Status, ev.UpstreamErr = 502, errors.New("secret")
		}, "POST /api/get_work", "upstream", codes.Error},
		{"an upstream that says so is one too", func(ev *gateway.Event) { ev.Status = 500 }, "POST /api/get_work", "500", codes.Error},
		{"a client that leaves is none", func(ev *gateway.Event) {
			ev.Status, ev.UpstreamErr = 0, context.Canceled
		}, "POST /api/get_work", "canceled", codes.Unset},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ev := event()
			c.change(ev)
			span, ok := traced(t, ev, nil)[c.span]
			if !ok {
				t.Fatal("no such span")
			}
			attrs := attributes(span.Attributes)
			if attrs["error.type"] != c.errorType || span.Status.Code != c.status {
				t.Errorf("error.type %q, status %v", attrs["error.type"], span.Status)
			}
			if c.span == "HTTP" && (attrs["http.request.method"] != "_OTHER" || attrs["http.request.method_original"] != "BREW") {
				t.Errorf("method %q, original %q", attrs["http.request.method"], attrs["http.request.method_original"])
			}
		})
	}
}

func TestProtocolVersions(t *testing.T) {
	for proto, want := range map[string]string{"HTTP/1.0": "1.0", "HTTP/1.1": "1.1", "HTTP/2.0": "2", "HTTP/3.0": "3"} {
		ev := event()
		ev.Proto = proto
		span := traced(t, ev, nil)["POST /api/get_work"]
		if got := attributes(span.Attributes)["network.protocol.version"]; got != want {
			t.Errorf("%s is version %q, want %q", proto, got, want)
		}
	}
}

func TestTheServersPortStandsApart(t *testing.T) {
	for host, want := range map[string][2]string{
		"luigi.acme.dev":      {"luigi.acme.dev", ""},
		"luigi.acme.dev:8082": {"luigi.acme.dev", "8082"},
		"[::1]:8082":          {"::1", "8082"},
		"[::1]":               {"::1", ""},
		"":                    {"", ""},
	} {
		ev := event()
		ev.Host = host
		attrs := attributes(traced(t, ev, nil)["POST /api/get_work"].Attributes)
		if got := [2]string{attrs["server.address"], attrs["server.port"]}; got != want {
			t.Errorf("%q: server.address and server.port are %q, want %q", host, got, want)
		}
	}
}

func TestAuthenticateSpanSaysWhatFailed(t *testing.T) {
	cases := []struct {
		name   string
		reason identity.Reason
		result string
		status codes.Code
	}{
		{"a bad credential is no error of the gateway", identity.Expired, "rejected", codes.Unset},
		{"an outage is one", identity.JWKSUnavailable, "unavailable", codes.Error},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			span := traced(t, event(), func(ctx context.Context, tel *telemetry.Telemetry) {
				tel.Authenticator(judge{identity.Reject("", c.reason)}).Authenticate(ctx, identity.Credential{Scheme: identity.SchemeOIDC})
			})["authenticate"]
			if diff := cmp.Diff(map[string]string{
				"crossfade.scheme": "oidc", "crossfade.auth.result": c.result, "error.type": string(c.reason),
			}, attributes(span.Attributes)); diff != "" || span.Status.Code != c.status {
				t.Errorf("status %v (-want +got):\n%s", span.Status, diff)
			}
		})
	}
}

func TestNothingIsRecordedUnsampled(t *testing.T) {
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	if got := traced(t, event(), func(ctx context.Context, tel *telemetry.Telemetry) {
		tel.Authenticator(verified()).Authenticate(ctx, identity.Credential{Scheme: identity.SchemeBasic})
	}); len(got) != 0 {
		t.Errorf("spans: %v", got)
	}
}

func TestTraceIDs(t *testing.T) {
	const other = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	cases := []struct {
		name    string
		headers []string
		want    string // "" for a new one
	}{
		{"the client's is kept", []string{"traceparent", clientParent}, clientTrace},
		{"without one there is a new one", nil, ""},
		{"all zeros are none", []string{"traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"}, ""},
		{"upper case is none", []string{"traceparent", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01"}, ""},
		{"two are none", []string{"traceparent", clientParent, "traceparent", other}, ""},
		{"junk is none", []string{"traceparent", "00-\"}\n-01"}, ""},
	}
	for _, c := range cases {
		for _, exporter := range []*spans{nil, {}} {
			name := c.name + " without an exporter"
			o := telemetry.Options{}
			if exporter != nil {
				name, o.SpanExporter = c.name, exporter
			}
			t.Run(name, func(t *testing.T) {
				tel := start(t, o)
				ctx, got := tel.Begin(request(http.MethodGet, "/", c.headers...))
				_, again := tel.Begin(request(http.MethodGet, "/", c.headers...))
				tel.Observe(ctx, event())
				if id, err := trace.TraceIDFromHex(got); err != nil || !id.IsValid() {
					t.Fatalf("trace id %q: %v", got, err)
				}
				if c.want != "" && got != c.want || c.want == "" && (got == clientTrace || got == again) {
					t.Errorf("trace ids %q and %q, want %q", got, again, c.want)
				}
			})
		}
	}
}
