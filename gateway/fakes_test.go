package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/rollout"
)

// keyring is an Authenticator of static secrets: what it does not know is
// legacy_unknown.
type keyring map[string]*identity.Authentication

func (k keyring) Authenticate(_ context.Context, c identity.Credential) *identity.Authentication {
	if a, ok := k[c.Secret.Reveal()]; ok {
		return a
	}
	return identity.Reject("no such user", identity.LegacyUnknown)
}

// issuer is a TokenAuthenticator: what it does not know is malformed_jwt.
type issuer struct {
	judgements map[string]*identity.Authentication
	// remembered tokens are in the cache.
	remembered map[string]bool
	// hold, if any, keeps Authenticate from answering until it is closed or
	// the context ends.
	hold  chan struct{}
	asked atomic.Int64
}

func (i *issuer) Authenticate(ctx context.Context, c identity.Credential) *identity.Authentication {
	i.asked.Add(1)
	if i.hold != nil {
		select {
		case <-i.hold:
		case <-ctx.Done():
			return identity.Reject("the keys did not come in time", identity.JWKSUnavailable)
		}
	}
	if a, ok := i.judgements[c.Secret.Reveal()]; ok {
		return a
	}
	return identity.Reject("not a JWT", identity.MalformedJWT)
}

func (i *issuer) Cached(c identity.Credential) (*identity.Authentication, bool) {
	if !i.remembered[c.Secret.Reveal()] {
		return nil, false
	}
	return i.judgements[c.Secret.Reveal()], true
}

// ramp is a Rollout.
type ramp func(run rollout.Run, observe bool) rollout.Enforcement

func (f ramp) Enforce(_ context.Context, run rollout.Run, observe bool) rollout.Enforcement {
	return f(run, observe)
}

func (f ramp) Percent(identity.Team) rollout.Percent { return f(rollout.Run{}, false).Percent }

func at(percent rollout.Percent) ramp {
	return func(_ rollout.Run, observe bool) rollout.Enforcement {
		return rollout.Enforcement{Known: true, Enforced: percent == 100 && !observe, Percent: percent}
	}
}

// recorder keeps every event.
type recorder struct {
	begun  atomic.Int64
	events chan *gateway.Event
}

const traceID = "4bf92f3577b34da6a3ce929d0e0e4736"

func (r *recorder) Begin(req *http.Request) (context.Context, string) {
	r.begun.Add(1)
	return req.Context(), traceID
}

func (r *recorder) Observe(_ context.Context, ev *gateway.Event) { r.events <- ev }

// stage is a gateway with all that it needs, behind real HTTP.
type stage struct {
	gateway.Options
	proxy    gateway.ProxyOptions
	queue    shadow.RunnerOptions
	recorder *recorder
	tokens   *issuer
	keys     keyring
	server   *httptest.Server
}

// The accounts of every stage.
const (
	goodToken = "good.token.sig"
	peerToken = "peer.token.sig"
	badToken  = "bad.token.sig"
	awayToken = "away.token.sig"
)

func etl() identity.Principal {
	return identity.Principal{Name: "svc-etl", Team: "data-eng", Roles: []identity.Role{"runner"}, Mapped: true}
}

func billing() identity.Principal {
	return identity.Principal{Name: "svc-billing", Team: "billing", Roles: []identity.Role{"runner"}, Mapped: true}
}

func verified(p identity.Principal) *identity.Authentication {
	return &identity.Authentication{Status: identity.StatusVerified, Principal: p, CredentialID: "basic:" + p.Name}
}

func token(p identity.Principal, groups ...string) *identity.Authentication {
	return &identity.Authentication{
		Status: identity.StatusVerified, Principal: p,
		Token: &identity.TokenInfo{Verified: true, Subject: "0oa1b2c3", Email: p.Name + "@acme.dev", Groups: groups},
	}
}

// newStage prepares a gateway in mode enforce, profile http, in front of
// upstream. The caller may change the options before start.
func newStage(upstream string) *stage {
	s := &stage{
		recorder: &recorder{events: make(chan *gateway.Event, 1024)},
		tokens: &issuer{judgements: map[string]*identity.Authentication{
			goodToken: token(etl(), "data", "luigi-operators"),
			peerToken: token(billing(), "finance"),
			badToken:  identity.Reject("for another audience", identity.AudMismatch),
			awayToken: identity.Reject("connection refused", identity.JWKSUnavailable),
		}},
	}
	s.keys = keyring{
		"legacy-pass":  verified(etl()),
		"k1":           verified(etl()),
		"expired-pass": {Status: identity.StatusRejected, Reasons: []identity.Reason{identity.LegacyExpired}, Principal: etl()},
	}
	target, err := url.Parse(upstream)
	if err != nil {
		panic(err)
	}
	s.proxy = gateway.ProxyOptions{Upstream: target, Headers: gateway.DefaultIdentityHeaders(), CredentialHeaders: []string{"X-Api-Key"}}
	s.Options = gateway.Options{
		Mode:       gateway.Enforce,
		Extractor:  gateway.Extractor{APIKeyHeader: "X-Api-Key"},
		Classifier: gateway.Classifier{Profile: gateway.ProfileHTTP, MaxBody: 64 << 10},
		Legacy:     s.keys, Tokens: s.tokens, Rollout: at(0),
		Refusals: refusals(), Recorder: s.recorder,
	}
	return s
}

// handler builds the gateway.
func (s *stage) handler(t testing.TB) http.Handler {
	t.Helper()
	proxy, err := gateway.NewProxy(s.proxy)
	if err != nil {
		t.Fatal(err)
	}
	runner := shadow.NewRunner(s.queue)
	t.Cleanup(runner.Close)
	s.Proxy, s.Shadow = proxy, runner
	h, err := gateway.New(s.Options)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// start serves the gateway until the test ends.
func (s *stage) start(t testing.TB) *stage {
	t.Helper()
	s.server = httptest.NewServer(s.handler(t))
	t.Cleanup(s.server.Close)
	return s
}

// do sends a request with headers in pairs and reads the whole reply.
func (s *stage) do(t testing.TB, method, target, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, s.server.URL+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header[headers[i]] = append(r.Header[headers[i]], headers[i+1])
	}
	resp, err := s.server.Client().Transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// event waits for the next event.
func (s *stage) event() *gateway.Event { return <-s.recorder.events }

// noMoreEvents checks that every request had exactly one event; call it after
// the last one was received and the server is closed.
func (s *stage) noMoreEvents(t testing.TB, want int64) {
	t.Helper()
	s.server.Close()
	s.Shadow.Close()
	if n := len(s.recorder.events); n != 0 || s.recorder.begun.Load() != want {
		t.Errorf("%d events too many for %d requests, want %d requests", n, s.recorder.begun.Load(), want)
	}
}

// seen is a request as the upstream saw it.
type seen struct {
	method, target, host string
	header, trailer      http.Header
	body                 string
}

// upstream notes every request and answers with reply, or 200 "ok".
type upstream struct {
	*httptest.Server
	mu    sync.Mutex
	all   []seen
	reply http.HandlerFunc
}

func newUpstream(t testing.TB, reply http.HandlerFunc) *upstream {
	t.Helper()
	u := &upstream{reply: reply}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	u.mu.Lock()
	u.all = append(u.all, seen{r.Method, r.RequestURI, r.Host, r.Header.Clone(), r.Trailer.Clone(), string(body)})
	u.mu.Unlock()
	if u.reply != nil {
		u.reply(w, r)
		return
	}
	_, _ = io.WriteString(w, "ok")
}

// last returns the request that came last.
func (u *upstream) last(t testing.TB) seen {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.all) == 0 {
		t.Fatal("the upstream saw no request")
	}
	return u.all[len(u.all)-1]
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.all)
}

// raw sends text as it is over a connection of its own and returns the
// connection and a reader of what comes back. "%HOST%" becomes the address.
func raw(t testing.TB, address, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, strings.ReplaceAll(text, "%HOST%", address)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// exchange sends text as it is and reads one reply.
func exchange(t testing.TB, address, text string) (*http.Response, string) {
	t.Helper()
	_, from := raw(t, address, text)
	method, _, _ := strings.Cut(text, " ")
	resp, err := http.ReadResponse(from, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no reply to %q: %v", text, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}
