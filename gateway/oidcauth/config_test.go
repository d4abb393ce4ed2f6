package oidcauth_test

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
)

func TestEveryMistakeOfAConfigurationIsNamed(t *testing.T) {
	good := func(change func(*oidcauth.Issuer)) oidcauth.Issuer {
		i := oidcauth.Issuer{URL: "https://idp.example.com", Audiences: []string{"luigi"}}
		change(&i)
		return i
	}
	for name, c := range map[string]struct {
		options oidcauth.Options
		want    []string
	}{
		"no URL": {
			oidcauth.Options{Issuers: []oidcauth.Issuer{{}}},
			[]string{"an issuer has no URL: set it to the value of iss in its tokens"},
		},
		"a URL in the clear": {
			oidcauth.Options{Issuers: []oidcauth.Issuer{good(func(i *oidcauth.Issuer) { i.URL = "http://idp.example.com" })}},
			[]string{"issuer http://idp.example.com: the URL must be https: keys fetched in the clear could be anybody's (http is allowed on a loopback address)"},
		},
		"a URL without scheme": {
			oidcauth.Options{Issuers: []oidcauth.Issuer{good(func(i *oidcauth.Issuer) { i.URL = "accounts.google.com" })}},
			[]string{"issuer accounts.google.com: the URL must begin with https:// and name a host"},
		},
		"an Entra endpoint for all tenants": {
			oidcauth.Options{Issuers: []oidcauth.Issuer{good(func(i *oidcauth.Issuer) { i.URL = "https://login.microsoftonline.com/common/v2.0" })}},
			[]string{"issuer https://login.microsoftonline.com/common/v2.0: the URL names no tenant: configure one issuer per tenant, https://login.microsoftonline.com/<tenant id>/v2.0"},
		},
		"many mistakes at once, each with its issuer": {
			oidcauth.Options{
				Issuers: []oidcauth.Issuer{
					{
						URL: "https://a.example.com?x=1", Preset: "octa", Algorithms: []string{"HS256", "none"}, Skew: oidcauth.Skew{Exp: time.Hour},
						MaxLifetime: -1, JWKSURL: "http://127.0.0.1/keys", Scopes: []string{""},
					},
					good(func(i *oidcauth.Issuer) { i.URL = "https://b.example.com" }),
					good(func(i *oidcauth.Issuer) { i.URL = "https://b.example.com" }),
				},
				CacheTTL: time.Hour, CacheSize: -1, MaxTokenBytes: -1,
				Deny: oidcauth.Deny{IssuedBefore: map[string]time.Time{"https://c.example.com": {}}},
			},
			[]string{
				"a largest token of -1 bytes is negative",
				"a cache time of 1h0m0s is not between 0 and 1m0s",
				"a cache of -1 tokens is negative",
				`issuer https://a.example.com?x=1: a longest lifetime of -1ns is negative`,
				`issuer https://a.example.com?x=1: a skew of 1h0m0s for exp is more than 5m0s: set the clocks right instead`,
				`issuer https://a.example.com?x=1: algorithm "HS256" cannot be allowed: use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA`,
				`issuer https://a.example.com?x=1: algorithm "none" cannot be allowed: use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA`,
				`issuer https://a.example.com?x=1: an empty scope stands in its list`,
				`issuer https://a.example.com?x=1: no audience: set the value of aud that the team requests its tokens for, or every token of the issuer would do`,
				`issuer https://a.example.com?x=1: preset "octa" is not known: use one of cognito, entra, generic, github_actions, google, keycloak, kubernetes, okta`,
				`issuer https://a.example.com?x=1: the URL must not hold a query or fragment (OpenID Connect Discovery section 2)`,
				`issuer https://a.example.com?x=1: the URL of the keys must be https, as the issuer is`,
				"issuer https://b.example.com stands twice: list all its audiences in one entry",
				"the deny list names the issuer https://c.example.com, which is not configured",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := oidcauth.New(c.options)
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff(c.want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAFileOfTrustedCertificatesMustBeOne(t *testing.T) {
	providers := oidcauth.NewProviders(oidcauth.ProviderOptions{})
	defer providers.Close()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		empty:             "holds no PEM certificate",
		empty + ".absent": "cannot be read",
	} {
		_, err := oidcauth.New(oidcauth.Options{
			Issuers:   []oidcauth.Issuer{{URL: "https://idp.example.com", Audiences: []string{"luigi"}, CAFile: file}},
			Providers: providers,
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want one that %s", err, want)
		}
	}
}

// serve puts p behind a real server.
func serve(t *testing.T, p *idp, start func(http.Handler) *httptest.Server) *httptest.Server {
	server := start(p)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // a client that distrusts us is part of the test
	t.Cleanup(server.Close)
	p.url = server.URL
	return server
}

func TestKeysAreFetchedThroughTLSWithAnOwnAuthority(t *testing.T) {
	p := newIDP()
	server := serve(t, p, httptest.NewTLSServer)
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file   string
		status identity.Status
	}{{file, identity.StatusVerified}, {"", identity.StatusUnavailable}} {
		w := newWorld(t, p, func(w *world) {
			w.providers = oidcauth.NewProviders(oidcauth.ProviderOptions{Now: w.clock.now})
			w.issuer.CAFile = c.file
		})
		if a := w.judge(p.token(p.good())); a.Status != c.status {
			t.Errorf("with CA file %q: %s %s", c.file, a.Status, a.Detail)
		}
		w.providers.Close()
	}
}

func TestPlainHTTPIsForLoopbackOnlyEvenBehindARedirect(t *testing.T) {
	p := newIDP()
	serve(t, p, httptest.NewServer)
	w := newWorld(t, p, func(w *world) {
		w.providers = oidcauth.NewProviders(oidcauth.ProviderOptions{Now: w.clock.now})
	})
	defer w.providers.Close()
	w.want(p.token(p.good()), identity.StatusVerified)

	redirecting := newIDP()
	redirecting.url = "https://idp.example.com"
	plain := redirecting.url
	w = newWorld(t, redirecting, func(w *world) {
		w.providers = oidcauth.NewProviders(oidcauth.ProviderOptions{Now: w.clock.now, Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			if req.URL.Scheme == "http" {
				t.Error("asked without TLS")
			}
			r := httptest.NewRecorder()
			http.Redirect(r, req, strings.Replace(plain, "https", "http", 1), http.StatusFound)
			return r.Result(), nil
		})})
	})
	defer w.providers.Close()
	w.want(redirecting.token(redirecting.good()), identity.StatusUnavailable, identity.JWKSUnavailable)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
