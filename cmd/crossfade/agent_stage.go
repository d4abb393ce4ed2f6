package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"crossfade/gateway/agent"
	agenttoken "crossfade/gateway/agent/token"
	"crossfade/gateway/telemetry"
)

// agentStage is what both commands have in common: tokens and a way to the
// gateway.
type agentStage struct {
	gateway   *url.URL
	mode      agent.Mode
	keeper    *agenttoken.Keeper
	transport *http.Transport
	traces    *telemetry.Agent // nil before proxy, or if the OTEL_ variables are wrong
	report    *agent.Reporter
	log       *slog.Logger
	metrics   *agentMetrics
	header    string

	run, tokenDir string
	source        agenttoken.Source
	families      *agent.Families // nil without any
	writes        []io.Closer     // in order of their start
}

func (p *program) newAgentStage(o agentOptions, gateway string, again time.Duration, log *slog.Logger) (*agentStage, error) {
	s := &agentStage{report: agent.NewReporter(p.stderr, again), metrics: newAgentMetrics(), header: o.legacyHeader, tokenDir: o.tokenDir}
	var err error
	if s.run, err = agent.RunID(o.runID, p.getenv); err != nil {
		return nil, usage("--run-id: %w", err)
	}
	s.log = log.With("run", s.run)
	if s.mode, err = agent.ParseMode(o.mode); err != nil {
		return nil, usage("--mode: %w", err)
	}
	if gateway == "" {
		return nil, usage("--gateway: where is the gateway? Write its URL, such as https://luigi.acme.dev:8082")
	}
	if s.gateway, err = url.Parse(gateway); err != nil {
		return nil, usage("--gateway: it is no URL (not shown, since there may be a password in it)")
	}
	var roots *x509.CertPool
	if o.caFile != "" {
		text, err := os.ReadFile(o.caFile)
		if err != nil {
			return nil, usage("--ca-file: %w", err)
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(text) {
			return nil, usage("--ca-file: %s has no certificate in PEM", o.caFile)
		}
	}
	if s.source, err = p.tokenSource(o); err != nil {
		return nil, err
	}
	if err := s.reaches(o); err != nil {
		return nil, err
	}
	s.transport = agent.NewTransport(roots)
	s.keeper, err = s.keep(agenttoken.Request{Audience: o.audience, Scopes: o.scopes, Resource: o.resource}, s.metrics.refreshed)
	if err != nil {
		return nil, err
	}
	if len(o.families) == 0 {
		return s, nil
	}
	s.families, err = agent.NewFamilies(agent.FamiliesOptions{
		Families: o.families, Run: s.run, Dir: o.tokenDir, Report: s.report, Log: s.log,
		Open: func(r agenttoken.Request) (agent.Kept, error) { return s.keep(r, s.metrics.further) },
	})
	if err != nil {
		_ = s.keeper.Close() // it has nothing to report
		return nil, usage("families: %w", err)
	}
	return s, nil
}

// keep keeps a token of the source fresh, for the run.
func (s *agentStage) keep(r agenttoken.Request, refreshed func(error, time.Time)) (*agenttoken.Keeper, error) {
	r.Run = s.run
	return agenttoken.NewKeeper(agenttoken.KeeperOptions{
		Source: s.source, Request: r,
		OnRefresh: func(err error, expiry time.Time) {
			refreshed(err, expiry)
			if err != nil {
				s.log.Warn("no new token", "audience", r.Audience, "error", err)
				return
			}
			s.log.Info("token refreshed", "audience", r.Audience, "expiry", expiry)
		},
	})
}

func (s *agentStage) close() {
	for _, w := range slices.Backward(s.writes) {
		if err := w.Close(); err != nil {
			s.report.Say("close", fmt.Sprintf("crossfade agent: a token stays in its file: %v\n", err))
		}
	}
	if s.families != nil {
		_ = s.families.Close() // it has said what it could not do
	}
	_ = s.keeper.Close() // it has nothing to report
	s.transport.CloseIdleConnections()
	if s.traces == nil {
		return
	}
	last, cancel := context.WithTimeout(context.Background(), agentSpans)
	defer cancel()
	if err := s.traces.Close(last); err != nil {
		s.log.Warn("spans are lost", "error", err)
	}
}

// trace lets requests leave spans if the OTEL_ variables say where to. They may
// be meant for the worker and say what the agent does not know: that is told, and
// stops no work.
func (s *agentStage) trace() http.RoundTripper {
	traces, err := telemetry.NewAgent(context.Background(), telemetry.AgentOptions{
		Version: version,
		Report: func(err error) {
			if err != nil {
				s.log.Warn("spans are not sent", "error", err)
				return
			}
			s.log.Info("spans are sent again")
		},
	})
	if err != nil {
		s.report.Say("traces", fmt.Sprintf("crossfade agent: no traces: %v\n", err))
		return s.transport
	}
	s.traces = traces
	s.metrics.watchSpans(traces.LostSpans)
	return traces.Transport(s.transport)
}

// proxy returns the handler for a listener. It is called once.
func (s *agentStage) proxy(listen net.Addr, secret string) (*agent.Proxy, error) {
	proxy, err := agent.New(agent.Options{
		Gateway: s.gateway, Mode: s.mode, Tokens: s.keeper, Families: s.families, Run: s.run, Secret: secret, Listen: listen, LegacyHeader: s.header,
		Report: s.report, Log: s.log, OnSkew: s.keeper.SetSkew, Transport: s.trace(),
	})
	if err != nil {
		return nil, usage("--gateway: %w", err)
	}
	s.metrics.watch(proxy)
	return proxy, nil
}

// serving are servers in the background.
type serving struct {
	servers []*http.Server
	failed  chan error
	ended   chan struct{}
	running int
}

func newServing() *serving {
	return &serving{failed: make(chan error, 2), ended: make(chan struct{}, 2)}
}

func (s *serving) start(l net.Listener, h http.Handler, log *slog.Logger) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: agentHeaders, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	s.servers = append(s.servers, server)
	s.running++
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
		s.ended <- struct{}{}
	}()
}

// end lets requests end until ctx is done, and waits.
func (s *serving) end(ctx context.Context) {
	for _, server := range s.servers {
		if server.Shutdown(ctx) != nil {
			_ = server.Close() // those that did not end in time
		}
	}
	for range s.running {
		<-s.ended
	}
}
