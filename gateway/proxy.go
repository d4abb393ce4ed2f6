package gateway

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// forwardedHeaders are those that httputil.ReverseProxy removes before it asks
// for a rewrite.
var forwardedHeaders = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}

// frontHeaders say, beside X-Forwarded-For, whom a proxy has in front of it. They
// are believed from trusted proxies only.
var frontHeaders = []string{
	"X-Forwarded-Host", "X-Forwarded-Proto",
	"X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip",
}

// Proxy forwards requests to the upstream.
type Proxy struct {
	upstream  *url.URL
	trusted   []netip.Prefix
	headers   IdentityHeaders
	spoofable spoofable
	reverse   httputil.ReverseProxy
}

// ProxyOptions configures a Proxy.
type ProxyOptions struct {
	// Upstream is an http or https URL; its path is put before the request's.
	Upstream *url.URL
	// NoUpstream tells that there is none, because the gateway only answers the
	// questions of another proxy. Then Forward must not be called.
	NoUpstream bool
	// Transport defaults to NewTransport.
	Transport http.RoundTripper
	// TrustedProxies may say for whom they forward; none by default.
	TrustedProxies []netip.Prefix
	Headers        IdentityHeaders
	// CredentialHeaders are further headers that carry credentials.
	CredentialHeaders []string
	// ErrorLog gets what net/http has to say about broken connections; nil
	// drops it, since the event tells of it.
	ErrorLog *log.Logger
}

// NewTransport returns a transport tuned for one upstream: many idle
// connections to the same host, no compression of its own (the client's
// Accept-Encoding is the upstream's affair), time-outs on connecting. How long
// the upstream takes to answer is between it and the client.
func NewTransport() *http.Transport {
	return &http.Transport{
		DialContext: (&net.Dialer{
			Timeout:   5 * time.Second,
			KeepAlive: 30 * time.Second,
		}).DialContext,
		MaxIdleConns:          1024,
		MaxIdleConnsPerHost:   1024,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   5 * time.Second,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true,
		WriteBufferSize:       8 << 10,
		ReadBufferSize:        8 << 10,
	}
}

// NewProxy builds the proxy. It does no I/O.
func NewProxy(o ProxyOptions) (*Proxy, error) {
	if o.NoUpstream {
		o.Upstream = nil
	} else if o.Upstream == nil || o.Upstream.Host == "" || o.Upstream.Scheme != "http" && o.Upstream.Scheme != "https" {
		return nil, errors.New("the upstream must be an http or https URL with a host, for instance http://127.0.0.1:8083")
	}
	if o.Transport == nil {
		o.Transport = NewTransport()
	}
	p := &Proxy{
		upstream: o.Upstream,
		trusted:  o.TrustedProxies,
		headers:  o.Headers.canonical(),
		spoofable: newSpoofable(alwaysStripped, forwardedHeaders, frontHeaders, o.CredentialHeaders,
			o.Headers.User, o.Headers.Email, o.Headers.Groups),
	}
	if o.ErrorLog == nil {
		o.ErrorLog = log.New(io.Discard, "", 0)
	}
	p.reverse = httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      timed{o.Transport},
		ModifyResponse: p.reply,
		ErrorHandler:   upstreamFailed,
		ErrorLog:       o.ErrorLog,
		BufferPool:     &bufferPool{},
	}
	return p, nil
}

// Forward sends the request on. The event in the request's context (withEvent)
// says what was decided and learns how the upstream answered.
func (p *Proxy) Forward(w http.ResponseWriter, r *http.Request) {
	if !printable(r.Header.Get("Upgrade")) {
		// No protocol has such a name (RFC 9110 section 7.8). ReverseProxy would
		// answer for the upstream, which would have ignored it.
		r.Header.Del("Upgrade")
	}
	p.reverse.ServeHTTP(w, r)
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

type eventKey struct{}

func withEvent(ctx context.Context, ev *Event) context.Context {
	return context.WithValue(ctx, eventKey{}, ev)
}

func eventOf(ctx context.Context) *Event {
	ev, _ := ctx.Value(eventKey{}).(*Event)
	return ev
}

// rewrite turns the client's request into the upstream's. Hop-by-hop headers,
// and those that Connection names, are gone by now, so nothing that is set
// here can be taken away by the client.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	ev := eventOf(pr.In.Context())
	out := pr.Out
	out.URL.Scheme, out.URL.Host = p.upstream.Scheme, p.upstream.Host
	if prefix := strings.TrimSuffix(p.upstream.EscapedPath(), "/"); prefix != "" {
		joined := prefix + out.URL.EscapedPath()
		out.URL.Path, out.URL.RawPath = strings.TrimSuffix(p.upstream.Path, "/")+out.URL.Path, joined
	}
	out.URL.Opaque = p.exactPath(pr.In)
	out.URL.RawQuery = pr.In.URL.RawQuery // ReverseProxy drops what net/url cannot parse; it was judged as it came
	out.Host = pr.In.Host
	if len(pr.In.Trailer) > 0 {
		// Share the map: its values arrive with the end of the body.
		out.Trailer = pr.In.Trailer
	}
	if ev.Mode == Observe {
		p.passAsItCame(pr)
		return
	}
	p.spoofable.strip(out.Header)
	p.spoofable.strip(pr.In.Trailer) // announced names
	if upgrade := out.Header.Get("Upgrade"); upgrade != "" && !mayUpgrade(upgrade, ev) {
		out.Header.Del("Upgrade")
		out.Header.Del("Connection") // ReverseProxy put it back for the upgrade alone
	}
	if pr.In.Trailer != nil && out.Body != nil {
		out.Body = &trailerGuard{out.Body, pr.In.Trailer, p.spoofable.strip}
	}
	if !p.trusts(pr.In.RemoteAddr) {
		pr.SetXForwarded()
	} else {
		out.Header["X-Forwarded-For"] = pr.In.Header["X-Forwarded-For"]
		pr.SetXForwarded()
		keep(out.Header, pr.In.Header, frontHeaders)
	}
	if ev.Profile == ProfileLuigi {
		asksAnew(out.Header, ev.Path)
	}
	p.headers.identify(out.Header, ev)
}

// reply lets the handler read, and change, what the upstream answered, and sets
// on it what is for browsers.
func (p *Proxy) reply(resp *http.Response) error {
	ev := eventOf(resp.Request.Context())
	if ev.Mode == Enforce && ev.Profile == ProfileLuigi {
		protectBrowser(resp, ev.Method, ev.Path)
	}
	if ev.onReply == nil {
		return nil
	}
	return ev.onReply(resp)
}

// mayUpgrade reports whether a connection may become a tunnel. What passes
// through one is not judged any more: with h2c (RFC 7540 section 3.2) that would
// be whole requests under any name. So only WebSockets may (RFC 6455 section
// 4.1), and only for someone.
func mayUpgrade(protocol string, ev *Event) bool {
	return strings.EqualFold(protocol, "websocket") && ev.Decision.Outcome != Exempt
}

// exactPath returns the upstream's path as the client wrote it where net/url
// would spell it in another way (a bar, a quotation mark, bytes beyond ASCII),
// and "" where it would not, or where the request has no path of its own. Two
// leading slashes cannot be told from an authority and stay with net/url.
func (p *Proxy) exactPath(in *http.Request) string {
	path, _, _ := strings.Cut(in.RequestURI, "?")
	if !strings.HasPrefix(path, "/") || path == in.URL.EscapedPath() {
		return ""
	}
	path = strings.TrimSuffix(p.upstream.EscapedPath(), "/") + path
	if strings.HasPrefix(path, "//") {
		return ""
	}
	return path
}

// passAsItCame undoes what ReverseProxy rewrites by itself. In mode observe
// the upstream sees what it would see without a gateway, but for the companion
// token and the id of the run, which are for the gateway.
func (p *Proxy) passAsItCame(pr *httputil.ProxyRequest) {
	pr.Out.Header.Del(CompanionHeader)
	pr.Out.Header.Del(RunHeader)
	keep(pr.Out.Header, pr.In.Header, forwardedHeaders)
}

// keep copies the named headers as they came, except those that the client
// declared to be for this hop alone.
func keep(out, in http.Header, names []string) {
	for _, name := range names {
		if values, ok := in[name]; ok && !namedByConnection(in, name) {
			out[name] = values
		}
	}
}

func namedByConnection(h http.Header, name string) bool {
	for _, value := range h["Connection"] {
		for token := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(token), name) {
				return true
			}
		}
	}
	return false
}

func (p *Proxy) trusts(remote string) bool {
	if len(p.trusted) == 0 {
		return false
	}
	addr := hostAddr(remote)
	for _, prefix := range p.trusted {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// ClientAddr returns the address of the client. X-Forwarded-For is read from
// the right and only as far as trusted proxies wrote it.
func (p *Proxy) ClientAddr(r *http.Request) netip.Addr {
	addr := hostAddr(r.RemoteAddr)
	if !p.trusts(r.RemoteAddr) {
		return addr
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			return addr
		}
		addr = plain(hop)
		if !p.trusts(netip.AddrPortFrom(addr, 0).String()) {
			return addr
		}
	}
	return addr
}

func hostAddr(hostPort string) netip.Addr {
	ap, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.Addr{}
	}
	return plain(ap.Addr())
}

// plain takes away what is no part of the address: the form of IPv6, and a zone
// (RFC 4007 section 11), which is free text and matches no trusted proxy.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// upstreamFailed answers for an upstream that did not. Nothing about identity
// went wrong, so it is an honest 502 or 504, which Luigi's workers retry.
func upstreamFailed(w http.ResponseWriter, r *http.Request, err error) {
	var held *withheld
	if errors.As(err, &held) {
		held.answer()
		return
	}
	if ev := eventOf(r.Context()); ev != nil {
		ev.UpstreamErr = err
	}
	status := http.StatusBadGateway
	var timeout net.Error
	switch {
	case errors.Is(r.Context().Err(), context.Canceled):
		// The client left. One that only closed its sending half still reads,
		// and must not take an empty 200 for the upstream's answer.
		panic(http.ErrAbortHandler)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		status = http.StatusGatewayTimeout
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"type":"about:blank","title":"`+http.StatusText(status)+
		`","message":"The gateway could not reach the upstream.","do":"Try again in a moment."}`+"\n")
}

// timed measures the upstream for the event.
type timed struct{ next http.RoundTripper }

func (t timed) RoundTrip(r *http.Request) (*http.Response, error) {
	start := time.Now()
	resp, err := t.next.RoundTrip(r)
	if ev := eventOf(r.Context()); ev != nil {
		ev.UpstreamTime = time.Since(start)
	}
	if resp != nil {
		resp.Request = r // not every transport says so, and reply goes by it
	}
	return resp, err
}

// trailerGuard removes forbidden trailers when they have arrived, which is
// with the end of the body.
type trailerGuard struct {
	io.ReadCloser
	trailer http.Header
	strip   func(http.Header)
}

func (g *trailerGuard) Read(b []byte) (int, error) {
	n, err := g.ReadCloser.Read(b)
	if err != nil {
		g.strip(g.trailer)
	}
	return n, err
}

// bufferPool lends the copy buffers of ReverseProxy.
type bufferPool struct{ pool sync.Pool }

const copyBuffer = 32 << 10 // what io.Copy takes

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[copyBuffer]byte); ok {
		return b[:]
	}
	return make([]byte, copyBuffer)
}

func (p *bufferPool) Put(b []byte) {
	if len(b) == copyBuffer {
		p.pool.Put((*[copyBuffer]byte)(b))
	}
}
