package oidcauth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is when the tests happen.
var start = time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)

// clock is a clock that stands still.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: start} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// signingKey is a key of the test issuer.
type signingKey struct {
	kid, alg string
	private  crypto.Signer
	use      string
}

// Keys are made once: RSA keys are slow to find under the race detector.
var (
	rsaKeys = sync.OnceValue(func() (keys [3]*rsa.PrivateKey) {
		for i := range keys {
			keys[i], _ = rsa.GenerateKey(rand.Reader, 2048)
		}
		return keys
	})
	ecKeys = sync.OnceValue(func() (keys [12]*ecdsa.PrivateKey) {
		for i := range keys {
			keys[i], _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		}
		return keys
	})
	edKey = sync.OnceValue(func() ed25519.PrivateKey {
		_, key, _ := ed25519.GenerateKey(rand.Reader)
		return key
	})
)

func rsaKey(kid string, n int) signingKey {
	return signingKey{kid: kid, alg: "RS256", private: rsaKeys()[n]}
}

func ecKey(kid string, n int) signingKey {
	return signingKey{kid: kid, alg: "ES256", private: ecKeys()[n]}
}

// idp is an identity provider: discovery, keys that rotate, and faults. It is
// an http.RoundTripper too, so that tests under a false clock need no sockets.
type idp struct {
	url string
	now func() time.Time // of the tokens

	mu        sync.Mutex
	keys      []signingKey
	fault     string // "", down, hang, garbage, empty, huge, status
	cache     string // Cache-Control of the keys
	issuerDoc string // issuer in the discovery document, if not url
	jwksURI   string
	gone      string // a path that is not found
	rawKeys   string // the key set as it stands, instead of keys
	discovery int    // requests
	fetches   int
	onFetch   func()
}

func newIDP(keys ...signingKey) *idp {
	if len(keys) == 0 {
		keys = []signingKey{rsaKey("key-1", 0)}
	}
	return &idp{url: "https://idp.example.com/tenant", keys: keys, now: func() time.Time { return start }}
}

func (p *idp) set(change func(*idp)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func (p *idp) breakWith(fault string)     { p.set(func(p *idp) { p.fault = fault }) }
func (p *idp) publish(keys ...signingKey) { p.set(func(p *idp) { p.keys = keys }) }
func (p *idp) counts() (discovery, fs int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.discovery, p.fetches
}

func (p *idp) RoundTrip(req *http.Request) (*http.Response, error) {
	p.mu.Lock()
	fault := p.fault
	p.mu.Unlock()
	switch fault {
	case "down":
		p.count(req)
		return nil, fmt.Errorf("connection refused")
	case "hang":
		p.count(req)
		<-req.Context().Done()
		return nil, context.Cause(req.Context())
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, req)
	return w.Result(), nil
}

func (p *idp) count(req *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if strings.HasSuffix(req.URL.Path, "/openid-configuration") {
		p.discovery++
	} else {
		p.fetches++
	}
}

func (p *idp) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	p.count(req)
	p.mu.Lock()
	fault, keys, cache, onFetch := p.fault, p.keys, p.cache, p.onFetch
	issuer, jwks, gone := p.issuerDoc, p.jwksURI, p.gone
	p.mu.Unlock()
	if gone != "" && strings.HasSuffix(req.URL.Path, gone) {
		http.NotFound(w, req)
		return
	}
	if issuer == "" {
		issuer = p.url
	}
	if jwks == "" {
		jwks = p.url + "/keys"
	}
	switch fault {
	case "garbage":
		_, _ = fmt.Fprint(w, "<html>maintenance</html>")
		return
	case "huge":
		_, _ = fmt.Fprint(w, strings.Repeat(" ", 1<<20+1)+"{}")
		return
	case "status":
		http.Error(w, "no", http.StatusServiceUnavailable)
		return
	}
	if strings.HasSuffix(req.URL.Path, "/.well-known/openid-configuration") {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": issuer, "jwks_uri": jwks, "id_token_signing_alg_values_supported": []string{"RS256"}})
		return
	}
	if onFetch != nil {
		onFetch()
	}
	if cache != "" {
		w.Header().Set("Cache-Control", cache)
	}
	if p.rawKeys != "" {
		_, _ = fmt.Fprint(w, p.rawKeys)
		return
	}
	var set jose.JSONWebKeySet
	for _, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.kid, Algorithm: k.alg, Use: k.use})
	}
	if fault == "empty" {
		set.Keys = []jose.JSONWebKey{}
	}
	_ = json.NewEncoder(w).Encode(set)
}

// object is a JSON object; members set to nil are left out.
type object map[string]any

func (o object) with(more object) object {
	out := maps.Clone(o)
	for k, v := range more {
		if out[k] = v; v == nil {
			delete(out, k)
		}
	}
	return out
}

// good are claims without fault.
func (p *idp) good() object {
	return object{
		"iss": p.url, "sub": "0oa1b2c3", "aud": "api://luigi", "jti": "j-1",
		"iat": p.now().Unix(), "exp": p.now().Add(time.Hour).Unix(), "azp": "client-1",
	}
}

// token signs claims with the first key.
func (p *idp) token(claims object) string { return sign(p.keys[0], nil, claims) }

// sign makes a token; header overrides what the key says. It uses nothing of
// the libraries under test.
func sign(key signingKey, header, claims object) string {
	h := object{"alg": key.alg, "typ": "JWT"}
	if key.kid != "" {
		h["kid"] = key.kid
	}
	return signRaw(key, encode(h.with(header)), encode(claims))
}

func encode(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// signRaw signs header and payload as they stand, whatever the header says.
func signRaw(key signingKey, header, payload string) string {
	input := b64(header) + "." + b64(payload)
	sum := sha256.Sum256([]byte(input))
	var signature []byte
	switch private := key.private.(type) {
	case *rsa.PrivateKey:
		signature, _ = rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, sum[:])
		if key.alg == "PS256" {
			signature, _ = rsa.SignPSS(rand.Reader, private, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
	case *ecdsa.PrivateKey:
		r, s, _ := ecdsa.Sign(rand.Reader, private, sum[:])
		signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	case ed25519.PrivateKey:
		signature = ed25519.Sign(private, []byte(input))
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// signHMAC is the attack that takes a public key for a secret.
func signHMAC(secret []byte, header, claims object) string {
	input := b64(encode(header)) + "." + b64(encode(claims))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(input))
	return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func credential(token string) identity.Credential {
	return identity.Credential{Scheme: identity.SchemeOIDC, Secret: identity.NewSecret(token)}
}

// world is a verifier with one issuer behind it.
type world struct {
	*testing.T
	idp       *idp
	clock     *clock
	providers *oidcauth.Providers
	issuer    oidcauth.Issuer
	options   oidcauth.Options
	v         *oidcauth.Verifier
}

// newWorld builds a verifier for p; change may adapt issuer and options first.
func newWorld(t *testing.T, p *idp, change func(*world)) *world {
	t.Helper()
	c := newClock()
	w := &world{T: t, idp: p, clock: c}
	w.issuer = oidcauth.Issuer{URL: p.url, Audiences: []string{"api://luigi"}}
	w.options = oidcauth.Options{Now: c.now}
	w.providers = oidcauth.NewProviders(oidcauth.ProviderOptions{Transport: p, Now: c.now})
	t.Cleanup(w.providers.Close)
	if change != nil {
		change(w)
	}
	w.build()
	return w
}

// newBubble is newWorld on the clock of a synctest bubble.
func newBubble(t *testing.T, p *idp, change func(*world, *oidcauth.ProviderOptions)) *world {
	t.Helper()
	p.now = time.Now
	w := &world{T: t, idp: p}
	w.issuer = oidcauth.Issuer{URL: p.url, Audiences: []string{"api://luigi"}}
	o := oidcauth.ProviderOptions{Transport: p}
	if change != nil {
		change(w, &o)
	}
	w.providers = oidcauth.NewProviders(o)
	t.Cleanup(w.providers.Close)
	w.build()
	return w
}

func (w *world) build() {
	w.Helper()
	w.options.Issuers = append([]oidcauth.Issuer{w.issuer}, w.options.Issuers...)
	w.options.Providers = w.providers
	var err error
	if w.v, err = oidcauth.New(w.options); err != nil {
		w.Fatal(err)
	}
}

func (w *world) judge(token string) *identity.Authentication {
	w.Helper()
	return w.v.Authenticate(w.Context(), credential(token))
}

func (w *world) want(token string, status identity.Status, reasons ...identity.Reason) *identity.Authentication {
	w.Helper()
	a := w.judge(token)
	if got, want := fmt.Sprint(a.Status, a.Reasons), fmt.Sprint(status, reasons); got != want {
		w.Errorf("got %s, want %s (%s)", got, want, a.Detail)
	}
	return a
}
