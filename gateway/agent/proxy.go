package agent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// Bounds of a Proxy. A worker waits ten seconds for an answer.
const (
	// DefaultPatience is how long a request waits for a token.
	DefaultPatience = 5 * time.Second
	// impatience is how long one waits while there is none anyway.
	impatience = 100 * time.Millisecond
	// connectTimeout bounds the way to the gateway, TLS included.
	connectTimeout = 5 * time.Second
	// idle is how long an unused connection is kept: less than servers do, since
	// a request on one that is just being closed fails.
	idle = 30 * time.Second
	// maxKept is up to which size a body is kept, so that it can be sent again
	// where such a connection was met. A worker's calls are below 2 KB.
	maxKept = 64 << 10
	// skewEvery is how often the clocks are compared.
	skewEvery = time.Minute
)

// Options configure a Proxy.
type Options struct {
	// Gateway is where requests go: http or https, with the path under which
	// the service is found there, if any. Required; no user, query or fragment.
	Gateway *url.URL
	// Mode says what becomes of the worker's own credential.
	Mode Mode
	// Tokens are asked for each request. Required.
	Tokens Tokens
	// Families have tokens of their own for some task families; nil for none.
	Families *Families
	// Run is the id of the run, which the gateway is told; "" for none.
	Run string
	// Secret is the first segment that the path of every request must have; it
	// does not go to the gateway. "" asks for none.
	Secret string
	// Listen is the address that the agent listens on, which requests may name
	// in Host beside the names of the loopback interface. Of a unix socket,
	// which no browser reaches, Host is not looked at: leave it nil.
	Listen net.Addr
	// LegacyHeader is where API keys travel; DefaultLegacyHeader when "".
	LegacyHeader string
	// Report is told what people must know, once. Required.
	Report *Reporter
	// Log gets one line for each refusal and change; nil is silence.
	Log *slog.Logger
	// OnSkew is told by how much the clock of the gateway is ahead, when that
	// has changed, as measured from what the gateway wrote itself: other replies
	// may have the date of the service behind it. May be nil.
	OnSkew func(ahead time.Duration)
	// Transport reaches the gateway. NewTransport makes one. Required.
	Transport http.RoundTripper
	// Patience is how long a request waits for a token; DefaultPatience when 0.
	Patience time.Duration
}

// Stats are counts since the start. Each request is in one of the first four.
type Stats struct {
	// Forwarded were answered by the gateway, Refused were refused by it,
	// NoToken were not sent since there was no token, or handed out a task whose
	// family had none, Unreachable got no answer.
	// Rejected were none for the gateway, not by a worker, or given up by it.
	Forwarded, Refused, NoToken, Unreachable, Rejected uint64
	// WithoutToken of those forwarded went with nothing but the worker's own
	// credential.
	WithoutToken uint64
	// Skew is by how much the gateway's clock is ahead, as last measured.
	Skew time.Duration
}

// Proxy is the handler that workers talk to. It is safe for concurrent use and
// keeps nothing of what it forwards: every answer is the gateway's, or an error.
type Proxy struct {
	gateway      *url.URL
	mode         Mode
	own          lender // of the run's token
	families     *Families
	run          []string // the header's value; nil for none
	prefix       string
	hosts        map[string]bool // nil accepts all
	legacyHeader string
	report       *Reporter
	log          *slog.Logger
	onSkew       func(time.Duration)
	patience     time.Duration
	forward      *httputil.ReverseProxy

	skew     atomic.Int64
	skewTold atomic.Int64 // what onSkew knows
	skewNext atomic.Int64 // when to measure again, in Unix nanoseconds
	refused  atomic.Bool

	forwarded, refusals, noToken, unreachable, rejected, withoutToken atomic.Uint64
}

// New returns a Proxy. The error says which option is wrong.
func New(o Options) (*Proxy, error) {
	switch {
	case o.Gateway == nil || o.Gateway.Host == "" || o.Gateway.Scheme != "http" && o.Gateway.Scheme != "https":
		return nil, errors.New("the gateway must be a URL such as https://gateway.example:8082")
	case o.Gateway.User != nil || o.Gateway.RawQuery != "" || o.Gateway.Fragment != "":
		return nil, errors.New("the gateway's URL has no user, query or fragment: the worker's credential belongs to its own URL")
	case o.Tokens == nil, o.Report == nil, o.Transport == nil:
		return nil, errors.New("an agent needs tokens, somebody to report to and a way to the gateway")
	}
	p := &Proxy{
		gateway: o.Gateway, mode: o.Mode, own: lender{tokens: o.Tokens}, families: o.Families, hosts: hostsOf(o.Listen),
		legacyHeader: cmp.Or(o.LegacyHeader, DefaultLegacyHeader),
		report:       o.Report, log: cmp.Or(o.Log, slog.New(slog.DiscardHandler)),
		onSkew: o.OnSkew, patience: cmp.Or(o.Patience, DefaultPatience),
	}
	if o.Run != "" {
		if !isRunID(o.Run) {
			return nil, fmt.Errorf("%q is no id of a run", o.Run)
		}
		p.run = []string{o.Run}
	}
	if o.Secret != "" {
		p.prefix = "/" + o.Secret
	}
	p.forward = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			// ServeHTTP has done the rest. This one would repair a query on its way.
			r.Out.URL.RawQuery = r.In.URL.RawQuery
		},
		Transport:      inMemory{o.Transport},
		ModifyResponse: p.answered,
		ErrorHandler:   p.failed,
		BufferPool:     &buffers{},
		ErrorLog:       log.New(io.Discard, "", 0), // workers that went away
	}
	return p, nil
}

// NewTransport returns a pool of connections to the gateway, HTTP/1.1 as its
// workers speak. roots are the authorities that are trusted; nil are the
// system's. http_proxy and its like are honoured, as they are by workers. Its
// owner calls CloseIdleConnections at the end.
func NewTransport(roots *x509.CertPool) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	dialer := &net.Dialer{Timeout: connectTimeout}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSHandshakeTimeout: connectTimeout,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		Protocols:       &protocols, DisableCompression: true, // bodies pass as they are
		MaxIdleConns: 256, MaxIdleConnsPerHost: 256, IdleConnTimeout: idle,
	}
}

// Stats returns the counts.
func (p *Proxy) Stats() Stats {
	return Stats{
		Forwarded: p.forwarded.Load(), Refused: p.refusals.Load(), NoToken: p.noToken.Load(),
		Unreachable: p.unreachable.Load(), Rejected: p.rejected.Load(),
		WithoutToken: p.withoutToken.Load(), Skew: time.Duration(p.skew.Load()),
	}
}

// Refused reports whether a request was refused that no retry cures: by the
// gateway, or by the agent because it had no token.
func (p *Proxy) Refused() bool { return p.refused.Load() }

// idempotencyHeader tells the transport that a call may be sent again when the
// connection that was at hand turns out to be closed. Luigi's workers send all
// their calls again after any failure, half a minute later.
const idempotencyHeader = "Idempotency-Key"

// trip is what is known about a request until its answer comes.
type trip struct {
	path      string // without the secret, unescaped
	method    string
	sent      sent
	lack      error
	abortable bool
	asked     time.Time
	call      call    // with families
	handed    *handed // by whose token it goes; nil for the run's
}

// tripKey is where the context of a request has its trip.
type tripKey struct{}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := p.accept(w, r)
	if !ok {
		p.rejected.Add(1)
		return
	}
	t := &trip{path: path.Path, method: r.Method, asked: time.Now()}
	t.abortable = abortable(r.Method, t.path) && !strings.EqualFold(r.Header.Get(abortHeader), "off")

	out := r.WithContext(context.WithValue(r.Context(), tripKey{}, t))
	out.Header = r.Header.Clone()
	tokens := &p.own
	if p.families != nil && strings.HasPrefix(t.path, apiPrefix) {
		body, whole := keep(out, maxCall)
		if !whole {
			p.brokenOff(w)
			return
		}
		t.call, _ = callOf(out, t.path, body) // what cannot be read is about nothing
		if t.handed = p.families.about(t.path, t.call); t.handed != nil {
			tokens = &t.handed.grant.lender
		}
	}
	have, err := tokens.token(r.Context(), p.patience)
	about := reasonNoToken // what is said once
	if err != nil && t.handed != nil {
		about += t.handed.family
		err = &familyTokenError{t.handed.family, t.call.task, err}
	}
	t.lack = err
	t.sent = credentials(out.Header, p.mode, p.legacyHeader, p.run, have)
	switch {
	case !t.sent.token && !t.sent.legacy:
		p.withoutCredential(w, t, about)
		return
	case !t.sent.token:
		p.withoutToken.Add(1)
		p.report.Say(about, fmt.Sprintf("crossfade agent: no token: %s\n"+
			"  Requests go on with the worker's own credential alone, as long as that is good enough.\n", full(printable(err.Error()))))
	case p.mode == ModeCompanion && !t.sent.legacy:
		p.report.Say("no companion", "crossfade agent: the worker sends no credential of its own that the token could accompany: the token goes alone.\n")
	}
	if abortable(r.Method, t.path) && out.Header[idempotencyHeader] == nil {
		out.Header[idempotencyHeader] = nil // for the transport alone: it is not sent
	}
	out.URL = p.target(path)
	out.Host = p.gateway.Host
	if _, whole := keep(out, maxKept); !whole {
		p.brokenOff(w)
		return
	}
	p.forward.ServeHTTP(w, out)
}

// brokenOff answers a request whose body did not come.
func (p *Proxy) brokenOff(w http.ResponseWriter) {
	p.rejected.Add(1)
	writeProblem(w, http.StatusBadRequest, problem{
		Reason: reasonNotOurs, Message: "The body ended before its length.", Do: "Send it again.",
	})
}

// target is where at the gateway a request goes.
func (p *Proxy) target(u *url.URL) *url.URL {
	out := *u
	out.Scheme, out.Host = p.gateway.Scheme, p.gateway.Host
	base, rawBase := strings.TrimSuffix(p.gateway.Path, "/"), strings.TrimSuffix(p.gateway.EscapedPath(), "/")
	out.Path = base + u.Path
	if u.RawPath != "" {
		out.RawPath = rawBase + u.RawPath
	} else {
		out.RawPath = rawBase + u.EscapedPath()
	}
	return &out
}

// withoutCredential answers a request that cannot be sent: closed is how an
// agent fails.
func (p *Proxy) withoutCredential(w http.ResponseWriter, t *trip, about string) {
	p.noToken.Add(1)
	p.refused.Store(true)
	said := problem{
		Reason: reasonNoToken, Message: "The agent has no token: " + full(printable(t.lack.Error())),
		Do: "See to the agent's token source; `crossfade agent --help` lists them.",
	}
	p.report.Say(about, fmt.Sprintf("crossfade agent: REFUSED %s: nothing is sent without a token.\n  The agent had no token: %s\n",
		reasonNoToken, full(printable(t.lack.Error()))))
	p.log.Warn("no token", "error", t.lack)
	if t.abortable {
		writeAbort(w, said)
		return
	}
	w.Header().Set("Retry-After", "5")
	writeProblem(w, http.StatusServiceUnavailable, said)
}

// keep reads a body of at most limit bytes, so that the transport may send it again
// where it met a connection that the gateway was closing. It returns what it read,
// which is nothing of a larger one, and whether all of it came.
func keep(r *http.Request, limit int64) (body []byte, whole bool) {
	if r.ContentLength <= 0 || r.ContentLength > limit || r.GetBody != nil {
		return nil, true
	}
	body = make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return nil, false
	}
	again := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = again()
	r.GetBody = again
	return body, true
}

// inMemory gives kept bodies to a transport as what they are. The reverse proxy
// wraps them, and a body that the transport does not know goes out in a write of
// its own behind the headers: slower, and when the connection turns out to be
// closed in between, the call is not sent again.
type inMemory struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper. The request is the reverse proxy's
// clone.
func (m inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.GetBody != nil {
		body, err := r.GetBody()
		if err != nil {
			return nil, err
		}
		r.Body = body
	}
	return m.RoundTripper.RoundTrip(r)
}

// answered looks at a reply before the worker does.
func (p *Proxy) answered(resp *http.Response) error {
	t, ok := resp.Request.Context().Value(tripKey{}).(*trip)
	if !ok {
		return errors.New("the reply belongs to no request")
	}
	reason := resp.Header.Get(reasonHeader)
	p.measure(resp.Header, t.asked, reason != "")
	if !aborts(resp.StatusCode, reason, t.path) {
		if err := p.handedOut(resp, t); err != nil {
			return err
		}
		if t.handed != nil && t.call.ends && resp.StatusCode == http.StatusOK && reason == "" {
			p.families.end(t.handed, t.call.task)
		}
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		return fmt.Errorf("read why the gateway refuses: %w", err)
	}
	said := readProblem(resp.StatusCode, reason, body)
	p.refuse(t, said, resp.StatusCode)
	rest := resp.Body
	resp.Body = &joined{Reader: io.MultiReader(bytes.NewReader(body), rest), Closer: rest}
	if !t.abortable {
		return nil
	}
	abortReply(resp, said)
	return nil
}

// joined is a body of which the beginning was read.
type joined struct {
	io.Reader
	io.Closer
}

// refuse counts a refusal and tells of it.
func (p *Proxy) refuse(t *trip, said problem, status int) {
	p.refusals.Add(1)
	if status == http.StatusTooManyRequests {
		return // it ends by itself
	}
	p.refused.Store(true)
	r := refusal{problem: said, sent: t.sent, lack: t.lack, skew: time.Duration(p.skew.Load())}
	p.report.Say(said.Reason, r.text())
	p.log.Warn("refused", "reason", said.Reason, "status", status, "method", t.method, "path", t.path,
		"trace_id", said.TraceID, "token", t.sent.token, "legacy", t.sent.legacy)
}

// measure compares the clocks now and then. Most replies have the date of the
// service behind the gateway: enough to tell people, who can look. What the
// gateway wrote itself has its own, by which it judges tokens.
func (p *Proxy) measure(h http.Header, asked time.Time, own bool) {
	now := time.Now()
	next := p.skewNext.Load()
	if !own && (now.UnixNano() < next || !p.skewNext.CompareAndSwap(next, now.Add(skewEvery).UnixNano())) {
		return
	}
	ahead, ok := skewOf(h, asked, now)
	if !ok {
		return
	}
	ahead = ahead.Round(time.Second)
	if own && p.families != nil && p.skewTold.Load() != int64(ahead) {
		p.families.setSkew(ahead)
	}
	changed := p.skew.Swap(int64(ahead)) != int64(ahead)
	if own && p.skewTold.Swap(int64(ahead)) != int64(ahead) && p.onSkew != nil {
		p.onSkew(ahead)
	}
	if changed && telling(ahead) {
		p.report.Say("clock", "crossfade agent: "+skewText(ahead)+"\n")
		p.log.Warn("clocks differ", "ahead", ahead.String())
	}
}

// failed answers where the gateway did not. A worker tries again.
func (p *Proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		p.rejected.Add(1)
		w.WriteHeader(http.StatusBadGateway) // the worker went away and reads nothing
		return
	}
	p.unreachable.Add(1)
	p.report.Say(reasonUnreachable, fmt.Sprintf("crossfade agent: the gateway %s does not answer: %s\n"+
		"  The worker tries again. Check --gateway, the network and --ca-file.\n", p.gateway.Redacted(), full(printable(err.Error()))))
	p.log.Warn("the gateway does not answer", "error", err)
	writeProblem(w, http.StatusBadGateway, problem{
		Reason: reasonUnreachable, Message: "The gateway does not answer.", Do: "Try again; the agent's stderr says more.",
	})
}
