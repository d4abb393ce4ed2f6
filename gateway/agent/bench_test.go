package agent_test

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/agent"
)

// BenchmarkAgentAdds measures what a worker waits longer for the answer to a call
// with an agent in between: both ways are taken in turns, on kept connections
// over loopback, and their medians are compared.
func BenchmarkAgentAdds(b *testing.B) {
	gateway := listening(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"response": {"task_id": null, "n_pending_tasks": 0}}`)
	}))
	transport := agent.NewTransport(nil)
	transport.Proxy = nil
	defer transport.CloseIdleConnections()
	p, err := agent.New(agent.Options{
		Gateway: &url.URL{Scheme: "http", Host: gateway}, Tokens: good(), Secret: "s3cret",
		Report: agent.NewReporter(io.Discard, 0), Transport: transport,
	})
	if err != nil {
		b.Fatal(err)
	}
	beside := listening(b, p)
	own := &http.Transport{}
	defer own.CloseIdleConnections()
	client := &http.Client{Transport: own}
	body := "data=" + url.QueryEscape(`{"worker": "Worker(salt=1, workers=1, host=vm)", "current_tasks": []}`)
	call := func(address string) time.Duration {
		r, err := http.NewRequest(http.MethodPost, address, strings.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("svc-etl", "legacy-pass")
		begin := time.Now()
		resp, err := client.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		took := time.Since(begin)
		if resp.StatusCode != http.StatusOK {
			b.Fatal(resp.Status)
		}
		return took
	}
	var direct, through []time.Duration
	for b.Loop() {
		direct = append(direct, call("http://"+gateway+"/api/get_work"))
		through = append(through, call("http://"+beside+"/s3cret/api/get_work"))
	}
	median := func(all []time.Duration) float64 {
		slices.Sort(all)
		return float64(all[len(all)/2].Nanoseconds()) / 1e3
	}
	b.ReportMetric(median(direct), "direct-p50-µs")
	b.ReportMetric(median(through), "through-p50-µs")
	b.ReportMetric(median(through)-median(direct), "added-p50-µs")
}

// listening serves a handler on a free port.
func listening(tb testing.TB, h http.Handler) (address string) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	server := &http.Server{Handler: h}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	tb.Cleanup(func() { _ = server.Close(); <-ended })
	return l.Addr().String()
}
