package telemetry_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"crossfade/gateway"
	"crossfade/gateway/telemetry"
)

// byAgent sends one request of a worker's through an agent and returns what went
// to the gateway and the spans of it.
func byAgent(t *testing.T, headers http.Header, reply *http.Response, failure error) (sent http.Header, recorded tracetest.SpanStubs) {
	t.Helper()
	var exporter spans
	a, err := telemetry.NewAgent(context.Background(), telemetry.AgentOptions{SpanExporter: &exporter})
	if err != nil {
		t.Fatal(err)
	}
	r := request(http.MethodPost, "https://gateway:8082/luigi/api/get_work?token=s3cret")
	r.Header = headers
	resp, err := a.Transport(roundTrip(func(r *http.Request) (*http.Response, error) {
		sent = r.Header
		return reply, failure
	})).RoundTrip(r)
	if !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	} else if err == nil {
		_ = resp.Body.Close()
	}
	if err := a.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return sent, exporter.got
}

// only is the span where there is one.
func only(t *testing.T, recorded tracetest.SpanStubs) tracetest.SpanStub {
	t.Helper()
	if len(recorded) != 1 {
		t.Fatalf("spans: %v", recorded)
	}
	return recorded[0]
}

func answer(status int, reason string) *http.Response {
	resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody}
	if reason != "" {
		resp.Header.Set(gateway.ReasonHeader, reason)
	}
	return resp
}

func TestAnAgentContinuesTheTraceOfItsWorker(t *testing.T) {
	for _, c := range []struct {
		name          string
		headers       http.Header
		parent, state string // what the gateway is told; * is any field
	}{
		{"a worker that is traced", http.Header{"Traceparent": {clientParent}, "Tracestate": {"a=1"}}, "00-" + clientTrace + "-*-01", "a=1"},
		{"a worker that does not sample", http.Header{"Traceparent": {strings.TrimSuffix(clientParent, "1") + "0"}}, "00-" + clientTrace + "-*-00", ""},
		{"a worker that is not traced", http.Header{}, "00-*-*-01", ""},
		{"a worker whose trace is none", http.Header{"Traceparent": {"00-zz-01"}, "Tracestate": {"a=1"}}, "00-*-*-01", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			sent, recorded := byAgent(t, c.headers, answer(http.StatusOK, ""), nil)
			if parent := sent.Get("Traceparent"); !like(parent, c.parent) || strings.Contains(parent, "00f067aa0ba902b7") {
				t.Errorf("traceparent %q, want %q", parent, c.parent)
			}
			if state := sent.Get("Tracestate"); state != c.state {
				t.Errorf("tracestate %q, want %q", state, c.state)
			}
			if sampled := strings.HasSuffix(c.parent, "01"); (len(recorded) == 1) != sampled {
				t.Errorf("spans: %v", recorded)
			}
		})
	}
}

func TestTheSpanOfAnAgentsRequest(t *testing.T) {
	sent, recorded := byAgent(t, http.Header{"Traceparent": {clientParent}}, answer(http.StatusOK, ""), nil)
	span := only(t, recorded)
	if span.SpanKind != trace.SpanKindClient || span.Name != "POST" || span.Parent.SpanID().String() != "00f067aa0ba902b7" ||
		!strings.Contains(sent.Get("Traceparent"), span.SpanContext.SpanID().String()) {
		t.Errorf("span %s, kind %v, parent %v; the gateway was told %v", span.Name, span.SpanKind, span.Parent, sent)
	}
	if diff := cmp.Diff(map[string]string{
		"http.request.method": "POST", "http.response.status_code": "200", "server.address": "gateway", "server.port": "8082",
		"url.full": "https://gateway:8082/luigi/api/get_work",
	}, attributes(span.Attributes)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, kv := range span.Resource.Attributes() {
		if kv.Key == "service.name" && kv.Value.AsString() != "crossfade-agent" {
			t.Errorf("the service is %s", kv.Value.AsString())
		}
	}
}

func TestAnAgentsSpanSaysWhatWentWrong(t *testing.T) {
	for _, c := range []struct {
		name    string
		reply   *http.Response
		failure error
		want    string
	}{
		{"nothing", answer(http.StatusOK, ""), nil, ""},
		{"a refusal to Luigi, which is a success of HTTP", answer(http.StatusOK, "legacy_refused"), nil, "legacy_refused"},
		{"a refusal", answer(http.StatusUnauthorized, "aud_mismatch"), nil, "aud_mismatch"},
		{"a reason that nobody knows", answer(http.StatusUnauthorized, "s3cret"), nil, "other"},
		{"the service's own error", answer(http.StatusInternalServerError, ""), nil, "500"},
		{"a gateway that does not answer", nil, errors.New("dial tcp 10.0.0.1: secret"), "upstream"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, recorded := byAgent(t, http.Header{}, c.reply, c.failure)
			span := only(t, recorded)
			if got := attributes(span.Attributes)["error.type"]; got != c.want || (span.Status.Code == codes.Error) != (c.want != "") {
				t.Errorf("error.type %q, status %v", got, span.Status)
			}
		})
	}
}

func TestTheSpanOfARequestHasAPort(t *testing.T) {
	for target, want := range map[string]string{
		"http://gateway/": "80", "https://gateway/": "443", "http://gateway:8082/": "8082", "http://[::1]:8082/": "8082",
	} {
		var exporter spans
		a, err := telemetry.NewAgent(context.Background(), telemetry.AgentOptions{SpanExporter: &exporter})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := a.Transport(roundTrip(func(*http.Request) (*http.Response, error) {
			return answer(http.StatusOK, ""), nil
		})).RoundTrip(request(http.MethodGet, target))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if err := a.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := attributes(only(t, exporter.got).Attributes)["server.port"]; got != want {
			t.Errorf("%s: port %q, want %s", target, got, want)
		}
	}
}

func TestAnAgentWithoutAnExporterChangesNothing(t *testing.T) {
	a, err := telemetry.NewAgent(context.Background(), telemetry.AgentOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := request(http.MethodPost, "http://gateway/api/ping", "traceparent", clientParent)
	resp, err := a.Transport(roundTrip(func(got *http.Request) (*http.Response, error) {
		if got != r || got.Header.Get("Traceparent") != clientParent {
			t.Errorf("sent with %v", got.Header)
		}
		return answer(http.StatusOK, ""), nil
	})).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if a.LostSpans() != 0 || a.Close(context.Background()) != nil {
		t.Error("something was to be sent")
	}
}
