package agent_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"crossfade/gateway/agent"
	"crossfade/gateway/agent/token"
	"crossfade/gateway/identity"
)

// asChild in the environment turns the test's binary into a command that an
// agent runs.
const asChild = "RUN_AS_A_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(asChild); role != "" {
		child(role)
	}
	goleak.VerifyTestMain(m)
}

// tokens hand out what they are told.
type tokens struct {
	mu  sync.Mutex
	t   token.Token
	err error
}

func (f *tokens) Token(context.Context) (token.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.t, f.err
}

func (f *tokens) set(value string, expiry time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.t, f.err = token.Token{Value: identity.NewSecret(value), Expiry: expiry}, err
}

// good is one that always has a token.
func good() *tokens {
	f := &tokens{}
	f.set("the-token", time.Time{}, nil)
	return f
}

var errAway = errors.New("/var/run/luigi/token does not exist. Set --token-file or --client-id")

// none is one that never has.
func none() *tokens {
	f := &tokens{}
	f.set("", time.Time{}, errAway)
	return f
}

// safe is a buffer for several goroutines.
type safe struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safe) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safe) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// stage is an agent in front of a gateway that a test plays.
type stage struct {
	proxy   *agent.Proxy
	url     string
	said    *safe
	client  *http.Client
	mu      sync.Mutex
	arrived []*http.Request
	bodies  []string
}

// newStage starts both. answer plays the gateway; nil is a friendly one.
func newStage(t *testing.T, o agent.Options, answer http.HandlerFunc) *stage {
	t.Helper()
	s := &stage{said: &safe{}}
	if answer == nil {
		answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"response": null}`) }
	}
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.arrived, s.bodies = append(s.arrived, r), append(s.bodies, string(body))
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(gateway.Close)
	transport := agent.NewTransport(nil)
	transport.Proxy = nil
	t.Cleanup(transport.CloseIdleConnections)
	base, err := url.Parse(gateway.URL)
	if err != nil {
		t.Fatal(err)
	}
	if o.Gateway == nil {
		o.Gateway = base
	} else {
		o.Gateway.Scheme, o.Gateway.Host = base.Scheme, base.Host
	}
	o.Transport, o.Report = transport, agent.NewReporter(s.said, 0)
	if o.Tokens == nil {
		o.Tokens = good()
	}
	l, err := agent.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Listen = l.Addr()
	if s.proxy, err = agent.New(o); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.proxy}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-ended })
	s.url = agent.LoopbackURL(l.Addr(), o.Secret)
	own := &http.Transport{DisableCompression: true}
	t.Cleanup(own.CloseIdleConnections)
	s.client = &http.Client{Transport: own, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s
}

// reply is an answer that was read.
type reply struct {
	status int
	header http.Header
	body   string
}

// do sends a request and reads the answer.
func (s *stage) do(t *testing.T, method, path, body string, change func(*http.Request)) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if change != nil {
		change(r)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(text)}
}

// call is one of a worker that has a password.
func (s *stage) call(t *testing.T, method string) reply {
	t.Helper()
	return s.do(t, http.MethodPost, "api/"+method, "data=%7B%7D", func(r *http.Request) { r.SetBasicAuth("svc-etl", "legacy-pass") })
}

// last is the request that the gateway got last, nil if none came.
func (s *stage) last() (*http.Request, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.arrived) == 0 {
		return nil, ""
	}
	return s.arrived[len(s.arrived)-1], s.bodies[len(s.bodies)-1]
}

func (s *stage) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.arrived)
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// dialUnix makes a client of a unix socket.
func dialUnix(t *testing.T, path string) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// hanging never answers.
type hanging struct{}

func (hanging) Token(ctx context.Context) (token.Token, error) {
	<-ctx.Done()
	return token.Token{}, ctx.Err()
}
