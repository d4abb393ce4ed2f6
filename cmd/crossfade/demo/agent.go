package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"crossfade/gateway/agent"
	"crossfade/gateway/agent/token"
)

const (
	// agentHeaders is how long a worker may take to send a request's header.
	agentHeaders = 10 * time.Second
	// sayAgain is after which time an agent says the same again.
	sayAgain = 5 * time.Second
)

// AgentOptions configure an Agent. All are required but Say.
type AgentOptions struct {
	// Gateway is where the agent sends requests, a URL with http.
	Gateway string
	// Issuer is the identity provider, which gives a token for Audience to
	// ClientID and the secret in SecretFile.
	Issuer, ClientID, SecretFile, Audience string
	// Say gets what the agent has to say to people, some lines of text, from
	// several goroutines but one call at a time. The same comes again after five
	// seconds at the earliest. May be nil.
	Say func(text string)
}

// Agent is what `crossfade agent` runs, on a loopback port of its own: the real
// proxy with a token that is fetched by client credentials and kept fresh.
//
// All methods may be called from several goroutines.
type Agent struct {
	url       string
	fetched   atomic.Int64
	keeper    *token.Keeper
	transport *http.Transport
	server    *http.Server
	done      chan struct{}
}

// NewAgent starts an agent, which fetches its first token at once; that there
// is none is no error here. Close it.
func NewAgent(ctx context.Context, o AgentOptions) (*Agent, error) {
	failed := func(err error) error { return fmt.Errorf("start the agent of %s: %w", o.ClientID, err) }
	gateway, err := url.Parse(o.Gateway)
	if err != nil {
		return nil, failed(err)
	}
	source, err := token.New("client_credentials", token.Params{
		Issuer: o.Issuer, ClientID: o.ClientID, SecretFile: o.SecretFile,
	})
	if err != nil {
		return nil, failed(err)
	}
	listener, err := agent.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, failed(err)
	}
	a := &Agent{
		url:       "http://" + listener.Addr().String(),
		transport: agent.NewTransport(nil),
		done:      make(chan struct{}),
	}
	a.keeper, err = token.NewKeeper(token.KeeperOptions{
		Source: source, Request: token.Request{Audience: o.Audience},
		OnRefresh: func(err error, _ time.Time) {
			if err == nil {
				a.fetched.Add(1)
			}
		},
	})
	if err != nil {
		return nil, errors.Join(failed(err), listener.Close())
	}
	proxy, err := agent.New(agent.Options{
		Gateway: gateway, Tokens: a.keeper, Listen: listener.Addr(),
		Report: agent.NewReporter(sayer(o.Say), sayAgain), OnSkew: a.keeper.SetSkew, Transport: a.transport,
		// Without a token the worker's password goes alone, which is no mistake of
		// anybody's but contradicts the table: a busy machine may take its time.
		Patience: workerTimeout,
	})
	if err != nil {
		return nil, errors.Join(failed(err), a.keeper.Close(), listener.Close())
	}
	a.server = &http.Server{Handler: proxy, ReadHeaderTimeout: agentHeaders}
	go func() {
		defer close(a.done)
		_ = a.server.Serve(listener) // returns when Close is called; requests report their own errors
	}()
	return a, nil
}

// URL is what workers take for their scheduler's.
func (a *Agent) URL() string { return a.url }

// Fetched is how many tokens were fetched so far.
func (a *Agent) Fetched() int64 { return a.fetched.Load() }

// Close drops the connections of workers and waits. Let them end first.
func (a *Agent) Close() error {
	err := a.server.Close()
	<-a.done
	_ = a.keeper.Close() // it has nothing to report
	a.transport.CloseIdleConnections()
	if err != nil {
		return fmt.Errorf("stop an agent: %w", err)
	}
	return nil
}

// sayer lets a Reporter write to a function, nil being silence.
type sayer func(text string)

// Write implements io.Writer.
func (s sayer) Write(text []byte) (int, error) {
	if s != nil {
		s(string(text))
	}
	return len(text), nil
}
