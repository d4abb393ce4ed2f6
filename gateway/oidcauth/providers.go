package oidcauth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// Defaults of ProviderOptions.
const (
	DefaultMinRefresh = 30 * time.Second
	DefaultStaleFor   = 24 * time.Hour
	DefaultTimeout    = 3 * time.Second
	DefaultMaxBody    = 1 << 20
)

// ProviderOptions configure Providers. The zero value is useful.
type ProviderOptions struct {
	// Transport carries all fetches. Nil is one of our own, with proxies from
	// the environment. Issuers with a CAFile need nil or an *http.Transport.
	Transport http.RoundTripper
	// MinRefresh is the least time between two fetches that unknown key ids
	// cause in vain, so it is also the longest that a flood of invented ones can
	// delay a rotation. A fetch that brought the key was a rotation and delays
	// nothing. Default DefaultMinRefresh.
	MinRefresh time.Duration
	// StaleFor is how long keys serve while they cannot be fetched again.
	// Default DefaultStaleFor.
	StaleFor time.Duration
	// Timeout bounds one fetch, discovery and keys together. Clients give up
	// after 10 s or so; a fetch must have ended long before. Default
	// DefaultTimeout.
	Timeout time.Duration
	// MaxBody bounds each answer in bytes. Default DefaultMaxBody.
	MaxBody int64
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// OnRefresh is told the outcome of each fetch. It is called from several
	// goroutines and must return soon. May be nil.
	OnRefresh func(issuer string, err error)
}

// Providers hold the discovery documents and key sets of issuers. They outlive
// configurations: verifiers built one after the other share them, and those of
// an issuer that is no longer configured stay until Close. Safe for concurrent
// use.
type Providers struct {
	transport  http.RoundTripper
	own        []*http.Transport // to close idle connections of
	minRefresh time.Duration
	staleFor   time.Duration
	timeout    time.Duration
	maxBody    int64
	now        func() time.Time
	onRefresh  func(string, error)

	base   context.Context // ends with Close
	cancel context.CancelFunc

	mu      sync.Mutex
	sources map[sourceKey]*source
	closed  bool
	running sync.WaitGroup
}

// sourceKey tells key sets apart: what is fetched, and whom we trust for it.
type sourceKey struct {
	issuer, jwksURL string
	ca              [sha256.Size]byte
}

// NewProviders returns Providers without any I/O. Close them.
func NewProviders(o ProviderOptions) *Providers {
	p := &Providers{
		transport:  o.Transport,
		minRefresh: cmp.Or(o.MinRefresh, DefaultMinRefresh),
		staleFor:   cmp.Or(o.StaleFor, DefaultStaleFor),
		timeout:    cmp.Or(o.Timeout, DefaultTimeout),
		maxBody:    cmp.Or(o.MaxBody, DefaultMaxBody),
		now:        o.Now,
		onRefresh:  o.OnRefresh,
		sources:    make(map[sourceKey]*source),
	}
	if p.now == nil {
		p.now = time.Now
	}
	if p.transport == nil {
		p.transport = p.newTransport()
	}
	p.base, p.cancel = context.WithCancel(context.Background())
	return p
}

// Close ends fetches that are under way and waits for them. Keys that are there
// go on serving; nothing is fetched any more. It may be called twice.
func (p *Providers) Close() {
	p.mu.Lock()
	p.closed = true
	own := p.own
	p.mu.Unlock()
	p.cancel()
	p.running.Wait()
	for _, t := range own {
		t.CloseIdleConnections()
	}
}

// spawn runs f with the time limit of a fetch; false after Close.
func (p *Providers) spawn(f func(context.Context)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.running.Go(func() {
		ctx, cancel := context.WithTimeout(p.base, p.timeout)
		defer cancel()
		f(ctx)
	})
	return true
}

// source returns the source of an issuer, which it shares with verifiers built
// before. It reads CAFile and nothing else.
func (p *Providers) source(i Issuer) (*source, error) {
	key := sourceKey{issuer: i.URL, jwksURL: i.JWKSURL}
	var pem []byte
	if i.CAFile != "" {
		var err error
		if pem, err = os.ReadFile(i.CAFile); err != nil {
			return nil, fmt.Errorf("the CA file cannot be read: %w", err)
		}
		key.ca = sha256.Sum256(pem)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.sources[key]; ok {
		return s, nil
	}
	next := p.transport
	if pem != nil {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the CA file %s holds no PEM certificate", i.CAFile)
		}
		base, ok := next.(*http.Transport)
		if !ok {
			return nil, errors.New("a CA file cannot be combined with a transport of another kind than *http.Transport")
		}
		t := base.Clone()
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		t.TLSClientConfig.RootCAs = pool
		p.own = append(p.own, t)
		next = t
	}
	s := &source{
		providers: p, issuer: i.URL,
		jwksURL: i.JWKSURL, configured: i.JWKSURL != "",
		client: &http.Client{
			Transport:     boundedTransport{next, p.maxBody, strings.HasPrefix(i.URL, "http:")},
			CheckRedirect: fewRedirects,
		},
	}
	p.sources[key] = s
	return s, nil
}

// newTransport is called before p is shared.
func (p *Providers) newTransport() *http.Transport {
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	p.own = append(p.own, t)
	return t
}

func fewRedirects(_ *http.Request, via []*http.Request) error {
	if len(via) > 3 {
		return errors.New("stopped after 3 redirects")
	}
	return nil
}

// boundedTransport keeps every request of a source, redirects included, to
// https (http only on loopback and only for an issuer that is http itself),
// bounds the body and keeps the body of errors out of error texts.
type boundedTransport struct {
	next http.RoundTripper
	max  int64
	http bool
}

func (t boundedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && (!t.http || !loopback(req.URL.Hostname())) {
		return nil, errors.New("refused to fetch without TLS")
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	resp.Body = &boundedBody{resp.Body, t.max, t.max}
	return resp, nil
}

// boundedBody fails in place of ending early, so that half a document is never
// taken for a whole one.
type boundedBody struct {
	io.ReadCloser
	left, max int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, b.tooLarge()
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return n, b.tooLarge()
	}
	return n, err
}

func (b *boundedBody) tooLarge() error {
	return fmt.Errorf("the answer is larger than %d bytes", b.max)
}
