package app_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/legacy"
)

// certify writes a new self-signed certificate and its key, and returns its
// expiry.
func (s *site) certify(serial int64) time.Time {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	expiry := time.Now().Add(time.Duration(serial) * time.Hour).Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "gateway"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: expiry, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	s.write("tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	return expiry
}

func TestTLSServesHTTP2AndTheCertificateIsReloaded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	expiry := s.certify(1)
	s.configure("listen", "{ address: 127.0.0.1:0, tls: { cert: tls.crt, key: tls.key } }")
	g := s.start(watched).loaded()
	// Each call makes a connection of its own, and so sees the certificate
	// that is in force.
	ask := func(protocols ...string) (*http.Response, error) {
		transport := &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, NextProtos: protocols},
			ForceAttemptHTTP2: len(protocols) == 0,
		}
		defer transport.CloseIdleConnections()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+g.Addr()+"/api/task_list", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("svc-etl", "legacy-pass")
		resp, err := (&http.Client{Transport: transport, Timeout: patience}).Do(r)
		if err == nil {
			_ = resp.Body.Close()
		}
		return resp, err
	}
	for name, tc := range map[string]struct {
		protocols []string
		major     int
	}{"HTTP/2": {nil, 2}, "HTTP/1.1": {[]string{"http/1.1"}, 1}} {
		resp, err := ask(tc.protocols...)
		if err != nil {
			t.Fatal(err)
		}
		if resp.ProtoMajor != tc.major || resp.StatusCode != 200 {
			t.Errorf("%s: %s %s", name, resp.Proto, resp.Status)
		}
		if seen := s.upstream.last().Header.Get("X-Forwarded-Proto"); seen != "https" {
			t.Errorf("the upstream hears of %q", seen)
		}
	}
	if got := g.metric(`crossfade_tls_not_after_timestamp_seconds{listener="listen"}`); got != number(expiry.Unix()) {
		t.Errorf("the metric says %s, want %s", got, number(expiry.Unix()))
	}
	if resp, err := http.Get("http://" + g.Addr() + "/"); err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("plain HTTP on the TLS port: %s", resp.Status)
		}
	}

	expiry = s.certify(2)
	s.eventually("the new certificate is served", func() bool {
		resp, err := ask()
		return err == nil && resp.TLS.PeerCertificates[0].SerialNumber.Int64() == 2
	})
	s.eventually("the metric says so", func() bool {
		return g.metric(`crossfade_tls_not_after_timestamp_seconds{listener="listen"}`) == number(expiry.Unix())
	})
	s.write("tls.crt", "no certificate")
	s.eventually("the broken one is noticed", func() bool { return g.metric("crossfade_config_last_reload_successful") == "0" })
	if resp, err := ask(); err != nil || resp.TLS.PeerCertificates[0].SerialNumber.Int64() != 2 {
		t.Errorf("the running certificate is gone: %v", err)
	}

	s.configure("listen", "127.0.0.1:0")
	s.eventually("TLS is switched off for the next start", func() bool { return strings.Contains(g.log.String(), "key=listen.tls") })
	if resp, err := ask(); err != nil || resp.StatusCode != 200 {
		t.Errorf("the running listener lost its certificate: %v", err)
	}
}

// number is a whole number as the exposition format writes it.
func number(n int64) string {
	return fmt.Sprintf("%g", float64(n))
}

func TestUnencryptedHTTP2IsServed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.start().loaded()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	s.client = &http.Client{Transport: transport, Timeout: patience}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.base+"/api/task_list", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("svc-etl", "legacy-pass")
	resp, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.StatusCode != 200 {
		t.Errorf("%s %s", resp.Proto, resp.Status)
	}
}

func TestTheMetricsListenerNeedsNoLoginAndShowsSeriesAtZero(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.start().loaded()
	for _, path := range []string{"/livez", "/readyz"} {
		if got := g.fetch(path); got.status != 200 || got.body != "ok\n" {
			t.Errorf("%s: %v", path, got)
		}
	}
	page := g.fetch("/metrics").body
	for _, series := range []string{
		`crossfade_requests_total{outcome="refused",reason="legacy_refused",scheme="basic",team="data-eng"} 0`,
		`crossfade_requests_total{outcome="unavailable",reason="jwks_unavailable",scheme="oidc",team="unassigned"} 0`,
		`crossfade_shadow_verdicts_total{evidence="client",team="billing",verdict="would_break"} 0`,
		`crossfade_shadow_mismatches_total{reason="aud_mismatch",team="billing"} 0`,
		`crossfade_rollout_enforced_requests_total{outcome="refused",team="search"} 0`,
		`crossfade_shadow_shed_total 0`,
		`crossfade_token_cache_total{result="hit"} 0`,
		fmt.Sprintf(`crossfade_jwks_refresh_total{issuer="%s",result="error"} 0`, s.issuer.URL()),
		`crossfade_config_last_reload_successful 1`,
		`crossfade_redis_up 1`,
		`crossfade_reason_info{owner="team",reason="aud_mismatch"} 1`,
	} {
		if !strings.Contains(page, series+"\n") {
			t.Errorf("there is no %s", series)
		}
	}
	for _, secret := range []string{"legacy-pass", "svc-etl-secret"} {
		if strings.Contains(page, secret) {
			t.Errorf("the metrics hold %s", secret)
		}
	}
	if got := g.fetch("/api/task_list"); got.status != 404 {
		t.Errorf("the metrics listener forwards: %v", got)
	}
	if got := s.send("http://"+g.MetricsAddr(), request{method: http.MethodPost, path: "/metrics"}); got.status != 405 {
		t.Errorf("POST /metrics: %v", got)
	}
}

func TestWithoutAMetricsListenerTheGatewayServes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configure("metrics", `"off"`)
	g := s.start().loaded()
	if g.MetricsAddr() != "" {
		t.Errorf("metrics at %s", g.MetricsAddr())
	}
	if got := g.send(etl(pages())); got.status != 200 {
		t.Error(got)
	}
}

func TestALivenessProbeAtTheFrontNeedsNoIdentity(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configure("exempt", "{ paths: [/healthz] }")
	g := s.start().loaded()
	if got := g.send(request{method: http.MethodHead, path: "/"}); got.status != 204 {
		t.Errorf("HEAD /: %v", got)
	}
	if got := g.send(request{method: http.MethodGet, path: "/healthz"}); got.status != 404 || got.header.Get("Crossfade-Reason") != "" {
		t.Errorf("an exempt path is the upstream's to answer: %v", got)
	}
	if got := g.send(request{method: http.MethodGet, path: "/.well-known/oauth-protected-resource"}); got.status != 200 || !strings.Contains(got.body, s.issuer.URL()) {
		t.Errorf("the resource metadata: %v", got)
	}
}

func TestHeadersBeyondTheBoundAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.start().loaded()
	q := etl(pages())
	q.header = http.Header{"X-Large": {strings.Repeat("x", 1<<20)}}
	if got := g.send(q); got.err == nil && got.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 1 MiB: %v", got)
	}
	if n := s.upstream.count(); n != 0 {
		t.Error("it reached the upstream")
	}
	if got := g.send(etl(pages())); got.status != 200 {
		t.Errorf("the next request: %v", got)
	}
}

func TestCredentialsOfKeyFilesGoThroughTheGateway(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("keys.yaml", fmt.Sprintf("- { id: k1, owner: svc-etl, sha256: \"%s\" }\n", digest("the-key")))
	s.write("tokens.yaml", fmt.Sprintf("- { id: t1, owner: svc-search, sha256: \"%s\" }\n", digest("the-token")))
	s.configure("legacy", "{ htpasswd: users.htpasswd, api_keys: { header: X-Api-Key, file: keys.yaml }, bearer: { file: tokens.yaml } }")
	g := s.start().loaded()
	key := pages()
	key.header = http.Header{"X-Api-Key": {"the-key"}}
	if got := g.send(key); got.status != 200 || s.upstream.last().Header.Get("X-Forwarded-User") != "svc-etl" {
		t.Errorf("an API key: %v", got)
	}
	if seen := s.upstream.last().Header.Get("X-Api-Key"); seen != "" {
		t.Error("the key reached the upstream")
	}
	static := pages()
	static.bearer = "the-token"
	if got := g.send(static); got.status != 200 || s.upstream.last().Header.Get("X-Forwarded-User") != "svc-search" {
		t.Errorf("a static token: %v", got)
	}
	both := etl(pages())
	both.header = key.header
	if got := g.send(both); got.status != 400 || got.header.Get("Crossfade-Reason") != "multiple_credentials" {
		t.Errorf("a key beside a password: %v", got)
	}
}

func digest(secret string) string { return legacy.Digest(identity.NewSecret(secret)) }
