package token_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/agent/token"
)

var whole = token.Request{
	Audience: "api://luigi", Scopes: []string{"luigi.run", "luigi.read"}, Resource: "https://luigi.acme.dev/api", Run: "nightly-7",
}

func TestClientCredentialsAreSentAsTheMethodSays(t *testing.T) {
	for name, c := range map[string]struct {
		change     func(*token.Params)
		user, pass string
		form       url.Values
	}{
		"by default in the header": {
			change: func(*token.Params) {}, user: "svc-etl", pass: "s3cret",
			form: url.Values{},
		},
		"in the body if told so": {
			change: func(p *token.Params) { p.ClientAuth = token.AuthPost },
			form:   url.Values{"client_id": {"svc-etl"}, "client_secret": {"s3cret"}},
		},
		"encoded as a form in the header, as RFC 6749 section 2.3.1 wants": {
			change: func(p *token.Params) { p.ClientID, p.SecretFile = "svc:etl", file(t, "s3 cret%\n") },
			user:   "svc%3Aetl", pass: "s3+cret%25", form: url.Values{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, httptest.NewServer)
			p := s.withSecret(t)
			c.change(&p)
			before := time.Now()
			got, err := source(t, "client_credentials", p).Token(t.Context(), whole)
			if err != nil {
				t.Fatal(err)
			}
			if got.Value.Reveal() != "opaque-1" || got.Expiry.Before(before.Add(299*time.Second)) || got.Expiry.After(time.Now().Add(300*time.Second)) {
				t.Errorf("got %s until %s", got.Value.Reveal(), got.Expiry)
			}
			if got.Obtained.Before(before) || got.Obtained.After(time.Now()) {
				t.Errorf("obtained at %s", got.Obtained)
			}
			want := url.Values{
				"grant_type": {"client_credentials"}, "scope": {"luigi.run luigi.read"},
				"audience": {"api://luigi"}, "resource": {"https://luigi.acme.dev/api"},
			}
			for name, values := range c.form {
				want[name] = values
			}
			last := s.last(t)
			if diff := cmp.Diff(want, last.form); diff != "" || last.user != c.user || last.pass != c.pass {
				t.Errorf("asked by %q %q: %s", last.user, last.pass, diff)
			}
			if last.agent != "crossfade-agent (run nightly-7)" {
				t.Errorf("asked by %q", last.agent)
			}
		})
	}
}

func TestARequestOfNothingSendsNothing(t *testing.T) {
	s := serve(t, httptest.NewServer)
	if _, err := source(t, "client_credentials", s.withSecret(t)).Token(t.Context(), token.Request{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(url.Values{"grant_type": {"client_credentials"}}, s.last(t).form); diff != "" {
		t.Error(diff)
	}
}

func TestASecretThatWasRotatedIsPickedUp(t *testing.T) {
	s := serve(t, httptest.NewServer)
	p := s.withSecret(t)
	from := source(t, "client_credentials", p)
	for _, secret := range []string{"first", "second"} {
		if err := os.WriteFile(p.SecretFile, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := from.Token(t.Context(), token.Request{}); err != nil {
			t.Fatal(err)
		}
		if got := s.last(t).pass; got != secret {
			t.Errorf("sent %s, want %s", got, secret)
		}
	}
}

func TestAPrivateKeyProvesTheClient(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := jose.JSONWebKey{Key: rsaKey, KeyID: "jwk-1", Algorithm: "PS256"}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file, kid string
		public    any
		alg       jose.SignatureAlgorithm
		wantKid   string
	}{
		"RSA in PKCS #8":               {pkcs8(t, rsaKey), "", rsaKey.Public(), jose.RS256, ""},
		"RSA in PKCS #1 with a key id": {pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), "k1", rsaKey.Public(), jose.RS256, "k1"},
		"P-256 in SEC 1":               {pemOf("EC PRIVATE KEY", sec1), "", p256.Public(), jose.ES256, ""},
		"P-384 in PKCS #8":             {pkcs8(t, p384), "", p384.Public(), jose.ES384, ""},
		"Ed25519 in PKCS #8":           {pkcs8(t, edKey), "", edPublic, jose.EdDSA, ""},
		"a JWK with its own algorithm": {string(jwk), "", rsaKey.Public(), jose.PS256, "jwk-1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, httptest.NewServer)
			from := source(t, "client_credentials", token.Params{Issuer: s.URL, ClientID: "svc-etl", KeyFile: file(t, c.file), KeyID: c.kid})
			ids := map[string]bool{}
			for range 2 {
				if _, err := from.Token(t.Context(), token.Request{}); err != nil {
					t.Fatal(err)
				}
				form := s.last(t).form
				if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || form.Has("client_secret") || form.Get("client_id") != "svc-etl" {
					t.Errorf("sent %v", form)
				}
				parsed, err := jwt.ParseSigned(form.Get("client_assertion"), []jose.SignatureAlgorithm{c.alg})
				if err != nil {
					t.Fatal(err)
				}
				var claims jwt.Claims
				if err := parsed.Claims(c.public, &claims); err != nil {
					t.Fatal(err)
				}
				if err := claims.ValidateWithLeeway(jwt.Expected{Issuer: "svc-etl", Subject: "svc-etl", AnyAudience: jwt.Audience{s.URL + "/token"}, Time: time.Now()}, time.Second); err != nil {
					t.Error(err)
				}
				if life := claims.Expiry.Time().Sub(claims.IssuedAt.Time()); life > time.Minute || life <= 0 {
					t.Errorf("lives %s", life)
				}
				if kid := parsed.Headers[0].KeyID; kid != c.wantKid {
					t.Errorf("kid %q, want %q", kid, c.wantKid)
				}
				ids[claims.ID] = true
			}
			if len(ids) != 2 || ids[""] {
				t.Errorf("ids %v: each must be new (RFC 7523 section 3)", ids)
			}
		})
	}
}

func TestAKeyThatCannotSignIsRefusedWithoutBeingShown(t *testing.T) {
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	symmetric, err := jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef")}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ file, want string }{
		"a short RSA key":    {pkcs8(t, short), "1024 bits is too short"},
		"a strange curve":    {pkcs8(t, p224), "none of P-256, P-384 and P-521"},
		"a symmetric JWK":    {string(symmetric), "neither a private key in PEM nor a private JWK"},
		"no key at all":      {"MARKER", "neither a private key in PEM nor a private JWK"},
		"an encrypted key":   {pemOf("ENCRYPTED PRIVATE KEY", []byte("MARKER")), "is encrypted"},
		"a PEM of something": {pemOf("CERTIFICATE", []byte("MARKER")), "no private key"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := source(t, "client_credentials", token.Params{TokenURL: "https://idp.example.com/token", ClientID: "svc-etl", KeyFile: file(t, c.file)}).Token(t.Context(), token.Request{})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "MARKER") {
				t.Errorf("got %v, want one that says %q", err, c.want)
			}
		})
	}
}

func TestACertificateProvesTheClientAndIsReadAnew(t *testing.T) {
	s := serve(t, serveMTLS)
	s.metadata = map[string]any{"mtls_endpoint_aliases": map[string]string{"token_endpoint": s.URL + "/mtls/token"}}
	certFile, keyFile := file(t, ""), file(t, "")
	from := source(t, "client_credentials", token.Params{
		Issuer: s.URL, ClientID: "svc-etl", CertFile: certFile, CertKeyFile: keyFile, CAFile: s.caFile(t),
	})
	for _, name := range []string{"first", "second"} {
		cert, key := clientCert(t, name)
		if err := errors.Join(os.WriteFile(certFile, []byte(cert), 0o600), os.WriteFile(keyFile, []byte(key), 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := from.Token(t.Context(), token.Request{}); err != nil {
			t.Fatal(err)
		}
		last := s.last(t)
		if len(last.certs) != 1 || last.certs[0].Subject.CommonName != name {
			t.Errorf("proved by %v, want %s", last.certs, name)
		}
		if last.form.Get("client_id") != "svc-etl" || last.form.Has("client_secret") || last.user != "" {
			t.Errorf("sent %v: RFC 8705 section 2 wants client_id alone", last.form)
		}
	}
}

// A server that checks the certificates of some clients against an authority
// names it to all; one that nobody signed is shown all the same (RFC 8705 section
// 2.2).
func TestACertificateIsShownWhateverAuthoritiesTheServerNames(t *testing.T) {
	other, _ := clientCert(t, "some authority")
	s := serve(t, func(h http.Handler) *httptest.Server {
		s := httptest.NewUnstartedServer(h)
		s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, ClientCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		s.TLS.ClientCAs.AppendCertsFromPEM([]byte(other))
		s.StartTLS()
		return s
	})
	cert, key := clientCert(t, "svc-etl")
	from := source(t, "client_credentials", token.Params{
		Issuer: s.URL, ClientID: "svc-etl", ClientAuth: token.AuthSelfSignedTLS,
		CertFile: file(t, cert), CertKeyFile: file(t, key), CAFile: s.caFile(t),
	})
	if _, err := from.Token(t.Context(), token.Request{}); err != nil {
		t.Fatal(err)
	}
	if last := s.last(t); len(last.certs) != 1 || last.certs[0].Subject.CommonName != "svc-etl" {
		t.Errorf("proved by %v", last.certs)
	}
}

func TestASubjectTokenIsExchanged(t *testing.T) {
	exp := time.Now().Add(time.Hour).Truncate(time.Second)
	issued := jwtUntil(exp, "exchanged")
	for name, c := range map[string]struct {
		change func(*server, *token.Params)
		form   url.Values
		user   string
	}{
		"by anybody": {
			change: func(*server, *token.Params) {},
			form:   url.Values{"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}},
		},
		"by a client": {
			change: func(_ *server, p *token.Params) { p.ClientID, p.SecretFile = "svc-etl", file(t, "s3cret") },
			form:   url.Values{"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}}, user: "svc-etl",
		},
		"of other types": {
			change: func(_ *server, p *token.Params) {
				p.SubjectTokenType, p.RequestedTokenType = "urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:access_token"
			},
			form: url.Values{
				"subject_token_type":   {"urn:ietf:params:oauth:token-type:id_token"},
				"requested_token_type": {"urn:ietf:params:oauth:token-type:access_token"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, httptest.NewServer)
			// RFC 8693 section 2.2.1: issued_token_type says what it is, token_type
			// how to use it.
			s.answer = `{"access_token":"` + issued + `","issued_token_type":"urn:ietf:params:oauth:token-type:jwt","token_type":"N_A"}`
			p := token.Params{Issuer: s.URL, SubjectTokenFile: file(t, "")}
			c.change(s, &p)
			from := source(t, "token_exchange", p)
			for _, subject := range []string{"subject-1", "subject-2"} { // the kubelet has replaced it
				if err := os.WriteFile(p.SubjectTokenFile, []byte(subject+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				got, err := from.Token(t.Context(), whole)
				if err != nil {
					t.Fatal(err)
				}
				if got.Value.Reveal() != issued || !got.Expiry.Equal(exp) {
					t.Errorf("got a token until %s, want its own exp %s", got.Expiry, exp)
				}
				want := url.Values{
					"grant_type":    {"urn:ietf:params:oauth:grant-type:token-exchange"},
					"subject_token": {subject}, "scope": {"luigi.run luigi.read"},
					"audience": {"api://luigi"}, "resource": {"https://luigi.acme.dev/api"},
				}
				for name, values := range c.form {
					want[name] = values
				}
				if diff := cmp.Diff(want, s.last(t).form); diff != "" || s.last(t).user != c.user {
					t.Errorf("asked by %q: %s", s.last(t).user, diff)
				}
			}
		})
	}
}

func TestTheEndpointIsDiscovered(t *testing.T) {
	t.Run("where OpenID puts it, once", func(t *testing.T) {
		s := serve(t, httptest.NewServer)
		from := source(t, "client_credentials", s.withSecret(t))
		for range 2 {
			if _, err := from.Token(t.Context(), token.Request{}); err != nil {
				t.Fatal(err)
			}
		}
		if len(s.read) != 1 {
			t.Errorf("read %v", s.read)
		}
		s.set(http.StatusNotFound, "")
		_, _ = from.Token(t.Context(), token.Request{})
		s.set(0, answerOpaque)
		if _, err := from.Token(t.Context(), token.Request{}); err != nil || len(s.read) != 2 {
			t.Errorf("%v, read %v: after a failure the endpoint may have moved", err, s.read)
		}
	})
	t.Run("where RFC 8414 puts it", func(t *testing.T) {
		s := serve(t, httptest.NewServer)
		s.paths = []string{"/.well-known/oauth-authorization-server/tenant/a"}
		s.metadata = map[string]any{"issuer": s.URL + "/tenant/a"}
		p := s.withSecret(t)
		p.Issuer += "/tenant/a"
		if _, err := source(t, "client_credentials", p).Token(t.Context(), token.Request{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("not if it is configured", func(t *testing.T) {
		s := serve(t, httptest.NewServer)
		p := s.withSecret(t)
		p.TokenURL = s.URL + "/token"
		if _, err := source(t, "client_credentials", p).Token(t.Context(), token.Request{}); err != nil || len(s.read) != 0 {
			t.Errorf("%v, read %v", err, s.read)
		}
	})
}

func TestADocumentThatMisleadsIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		metadata map[string]any
		want     string
	}{
		"of another issuer":            {map[string]any{"issuer": "https://other.example.com"}, `is of the issuer "https://other.example.com"`},
		"without a token endpoint":     {map[string]any{"token_endpoint": ""}, "names no token_endpoint"},
		"with an endpoint in clear":    {map[string]any{"token_endpoint": "http://127.0.0.1:1/token"}, "is not https, as the issuer is"},
		"with an endpoint of no kind":  {map[string]any{"token_endpoint": "/token"}, "must begin with https://"},
		"with an alias in clear":       {map[string]any{"mtls_endpoint_aliases": map[string]string{"token_endpoint": "http://x"}}, "is not https"},
		"with another type of a field": {map[string]any{"token_endpoint": 7}, "no metadata in JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, httptest.NewTLSServer)
			s.metadata = c.metadata
			p := s.withSecret(t)
			p.CAFile = s.caFile(t)
			_, err := source(t, "client_credentials", p).Token(t.Context(), token.Request{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want one that says %q", err, c.want)
			}
			if len(s.asked) != 0 {
				t.Error("the secret was sent all the same")
			}
		})
	}
}

func TestARefusalIsToldWithWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		answer string
		header map[string]string
		want   string
	}{
		"the errors of RFC 6749 section 5.2": {
			401, `{"error":"invalid_client","error_description":"no such client"}`, nil,
			"as client svc-etl: refused with 401 Unauthorized, invalid_client (no such client): check the name of the client and its secret, key or certificate",
		},
		"an error of RFC 8707": {
			400, `{"error":"invalid_target"}`, nil,
			"refused with 400 Bad Request, invalid_target: check audience and resource",
		},
		"an error under 200": {200, `{"error":"temporarily_unavailable"}`, nil, "refused with 200 OK, temporarily_unavailable"},
		"a page":             {502, `<html>Bad gateway, MARKER</html>`, map[string]string{"Content-Type": "text/html"}, "refused with 502 Bad Gateway"},
		"a description that is long and no text": {
			400, `{"error":"invalid_request","error_description":"\u001b[31m` + strings.Repeat("very ", 1000) + `"}`, nil,
			"invalid_request ([31mvery very ",
		},
		"no token":                {200, `{}`, nil, "missing access_token"},
		"no JSON":                 {200, `MARKER`, nil, "cannot parse json"},
		"a token of another kind": {200, `{"access_token":"MARKER","token_type":"DPoP"}`, nil, `a token of type "DPoP", which is not sent as a bearer token`},
		"a token with a line break": {
			200, `{"access_token":"MARKER\r\nX-Evil: 1","token_type":"Bearer"}`, nil,
			"may not stand in a token (RFC 6750 section 2.1)",
		},
		"a token that is too long": {200, `{"access_token":"` + strings.Repeat("a", 65<<10) + `"}`, nil, "longer than 64 KiB"},
		"an answer that is too long": {
			200, `{"access_token":"MARKER","x":"` + strings.Repeat("a", 1<<20) + `"}`, nil,
			"the answer is longer than 1 MiB",
		},
		"a redirect": {307, "", map[string]string{"Location": "https://evil.example.com/token?x=MARKER"}, "it redirects to evil.example.com, and a redirect is not followed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, httptest.NewServer)
			s.status, s.answer, s.header = c.status, c.answer, c.header
			_, err := source(t, "client_credentials", s.withSecret(t)).Token(t.Context(), token.Request{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want one that says %q", err, c.want)
			}
			if strings.Contains(err.Error(), "MARKER") || len(err.Error()) > 800 || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("repeats too much: %q", err)
			}
			if !strings.HasPrefix(err.Error(), "obtain a token by client_credentials from "+s.URL+"/token as client svc-etl: ") {
				t.Errorf("does not say what was asked of whom: %v", err)
			}
		})
	}
}

func TestARefusalCanBeToldApart(t *testing.T) {
	s := serve(t, httptest.NewServer)
	s.set(401, `{"error":"invalid_client"}`)
	_, err := source(t, "client_credentials", s.withSecret(t)).Token(t.Context(), token.Request{})
	var refusal *token.Refusal
	if !errors.As(err, &refusal) || errors.Is(err, token.ErrCredential) || refusal.Status != 401 || refusal.Code != "invalid_client" {
		t.Errorf("got %v", err)
	}
}

func TestExpiresInIsTakenFromNumbersAndText(t *testing.T) {
	exp := time.Now().Add(2 * time.Hour).Truncate(time.Second)
	for name, c := range map[string]struct {
		answer string
		want   time.Time
	}{
		"a number": {`{"access_token":"a","expires_in":60}`, time.Now().Add(time.Minute)},
		"text":     {`{"access_token":"a","expires_in":"60"}`, time.Now().Add(time.Minute)},
		"a number, although the token is a JWT": {
			`{"access_token":"` + jwtUntil(exp, "") + `","expires_in":60}`, time.Now().Add(time.Minute),
		},
		"nothing, but the token is a JWT": {`{"access_token":"` + jwtUntil(exp, "") + `"}`, exp},
		"nothing":                         {`{"access_token":"a"}`, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, httptest.NewServer)
			s.answer = c.answer
			got, err := source(t, "client_credentials", s.withSecret(t)).Token(t.Context(), token.Request{})
			if err != nil {
				t.Fatal(err)
			}
			if off := got.Expiry.Sub(c.want).Abs(); off > 30*time.Second || got.Expiry.IsZero() != c.want.IsZero() {
				t.Errorf("ends at %s, want %s", got.Expiry, c.want)
			}
		})
	}
}

func TestARequestThatCannotBeMeantIsNotSent(t *testing.T) {
	s := serve(t, httptest.NewServer)
	from := source(t, "client_credentials", s.withSecret(t))
	for _, r := range []token.Request{
		{Resource: "luigi"}, {Resource: "https://luigi.acme.dev/#api"}, {Scopes: []string{""}}, {Scopes: []string{"a b"}}, {Scopes: []string{"ü"}},
	} {
		if _, err := from.Token(t.Context(), r); err == nil {
			t.Errorf("%+v was sent", r)
		}
	}
	if len(s.asked) != 0 {
		t.Errorf("%d requests", len(s.asked))
	}
}

func TestAServerThatNobodyTrustsGetsNoSecret(t *testing.T) {
	s := serve(t, httptest.NewTLSServer)
	p := s.withSecret(t)
	p.TokenURL = s.URL + "/token"
	if _, err := source(t, "client_credentials", p).Token(t.Context(), token.Request{}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
	if len(s.asked) != 0 {
		t.Error("the secret was sent")
	}
}

func TestASecretThatCannotBeReadIsNotSentEmpty(t *testing.T) {
	s := serve(t, httptest.NewServer)
	for name, p := range map[string]token.Params{
		"secret":        {TokenURL: s.URL + "/token", ClientID: "svc-etl", SecretFile: "/nowhere"},
		"key":           {TokenURL: s.URL + "/token", ClientID: "svc-etl", KeyFile: "/nowhere"},
		"certificate":   {TokenURL: s.URL + "/token", ClientID: "svc-etl", CertFile: "/nowhere", CertKeyFile: "/nowhere"},
		"authorities":   {TokenURL: s.URL + "/token", ClientID: "svc-etl", SecretFile: file(t, "s3cret"), CAFile: "/nowhere"},
		"empty secret":  {TokenURL: s.URL + "/token", ClientID: "svc-etl", SecretFile: file(t, "\n")},
		"no PEM at all": {TokenURL: s.URL + "/token", ClientID: "svc-etl", SecretFile: file(t, "s3cret"), CAFile: file(t, "no PEM")},
	} {
		if _, err := source(t, "client_credentials", p).Token(t.Context(), token.Request{}); !errors.Is(err, token.ErrCredential) {
			t.Errorf("%s: a token came, or somebody else is to blame: %v", name, err)
		}
	}
	if _, err := source(t, "token_exchange", token.Params{TokenURL: s.URL + "/token", SubjectTokenFile: "/nowhere"}).Token(t.Context(), token.Request{}); !errors.Is(err, token.ErrCredential) || !strings.Contains(err.Error(), "read the subject token") {
		t.Errorf("got %v", err)
	}
	if len(s.asked) != 0 {
		t.Errorf("%d requests without a secret", len(s.asked))
	}
}
