package main

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"crossfade/gateway/agent"
)

// agentMetrics are what an agent shows of itself. Labels come from closed sets.
type agentMetrics struct {
	registry  *prometheus.Registry
	refreshes *prometheus.CounterVec
	expiry    prometheus.Gauge

	mu    sync.Mutex
	ok    bool      // the last attempt got a token
	until time.Time // when the last token ends; zero if nobody says
}

func newAgentMetrics() *agentMetrics {
	m := &agentMetrics{
		registry: prometheus.NewRegistry(),
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "crossfade_agent_token_refresh_total", Help: "Attempts to obtain a token.",
		}, []string{"result"}),
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "crossfade_agent_token_expiry_timestamp_seconds", Help: "When the token in hand ends; 0 if nobody says.",
		}),
	}
	for _, result := range []string{"ok", "error"} {
		m.refreshes.WithLabelValues(result)
	}
	m.registry.MustRegister(m.refreshes, m.expiry)
	return m
}

// refreshed notes an attempt to obtain a token.
func (m *agentMetrics) refreshed(err error, expiry time.Time) {
	m.mu.Lock()
	if m.ok = err == nil; m.ok {
		m.until = expiry
	}
	m.mu.Unlock()
	if err != nil {
		m.refreshes.WithLabelValues("error").Inc()
		return
	}
	m.refreshes.WithLabelValues("ok").Inc()
	m.expiry.Set(0)
	if !expiry.IsZero() {
		m.expiry.Set(float64(expiry.UnixMilli()) / 1000)
	}
}

// further notes an attempt to obtain a token beside the run's own.
func (m *agentMetrics) further(err error, _ time.Time) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.refreshes.WithLabelValues(result).Inc()
}

// watch shows the counts of a proxy.
func (m *agentMetrics) watch(p *agent.Proxy) {
	for outcome, read := range map[string]func(agent.Stats) uint64{
		"forwarded":   func(s agent.Stats) uint64 { return s.Forwarded },
		"refused":     func(s agent.Stats) uint64 { return s.Refused },
		"no_token":    func(s agent.Stats) uint64 { return s.NoToken },
		"unreachable": func(s agent.Stats) uint64 { return s.Unreachable },
		"rejected":    func(s agent.Stats) uint64 { return s.Rejected },
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "crossfade_agent_requests_total", Help: "Requests by what became of them.",
			ConstLabels: prometheus.Labels{"outcome": outcome},
		}, func() float64 { return float64(read(p.Stats())) }))
	}
	m.registry.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "crossfade_agent_requests_without_token_total", Help: "Requests that went with the worker's own credential alone.",
		}, func() float64 { return float64(p.Stats().WithoutToken) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "crossfade_agent_clock_skew_seconds", Help: "By how much the gateway's clock is ahead of this machine's.",
		}, func() float64 { return p.Stats().Skew.Seconds() }),
	)
}

// watchSpans shows how many spans are lost.
func (m *agentMetrics) watchSpans(lost func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "crossfade_agent_spans_lost_total", Help: "Spans that found no room to wait, or that the collector did not take.",
	}, lost))
}

// ready reports whether there is a token that is good now. Of one of which nobody
// says when it ends, that is known of the last attempt alone.
func (m *agentMetrics) ready(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.until.IsZero() {
		return m.ok
	}
	return now.Before(m.until)
}

// handler serves metrics and health. A provider that is away for less than the
// rest of a token's life makes no agent unready.
func (m *agentMetrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !m.ready(time.Now()) {
			http.Error(w, "there is no token", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}
