package agent_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"crossfade/gateway/agent"
)

// atOnce answers as a gateway would, without a network.
type atOnce struct{}

// RoundTrip implements http.RoundTripper.
func (atOnce) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	const answer = `{"response": {"task_id": null, "n_pending_tasks": 0}}`
	return &http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: int64(len(answer)),
		Header: http.Header{"Content-Type": {"application/json; charset=UTF-8"}, "Date": {"Mon, 02 Jan 2026 15:04:05 GMT"}},
		Body:   io.NopCloser(strings.NewReader(answer)),
	}, nil
}

// BenchmarkProxy measures the agent's own work on a call, without sockets. What a
// worker waits longer is measured by make bench, between processes.
func BenchmarkProxy(b *testing.B) {
	p, err := agent.New(agent.Options{
		Gateway: &url.URL{Scheme: "http", Host: "gateway.example"}, Tokens: good(), Secret: "s3cret",
		Report: agent.NewReporter(io.Discard, 0), Transport: atOnce{},
	})
	if err != nil {
		b.Fatal(err)
	}
	body := "data=" + url.QueryEscape(`{"worker": "Worker(salt=1, workers=1, host=vm)", "current_tasks": []}`)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, "/s3cret/api/get_work", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("svc-etl", "legacy-pass")
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}
