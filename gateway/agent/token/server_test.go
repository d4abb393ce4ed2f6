package token_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"crossfade/gateway/agent/token"
)

// server is an authorization server as far as RFC 6749 and RFC 8414 describe
// it: metadata and a token endpoint, which answers what the test says and keeps
// what it was asked.
type server struct {
	*httptest.Server
	metadata map[string]any    // additions
	paths    []string          // where the metadata is, by default OpenID's
	status   int               // of the token endpoint; 200 when 0
	answer   string            // of the token endpoint
	header   map[string]string // of the token endpoint

	mu    sync.Mutex
	asked []asked
	read  []string // paths of metadata that were read
}

// asked is one request to the token endpoint.
type asked struct {
	form       url.Values
	user, pass string
	agent      string
	certs      []*x509.Certificate
}

const answerOpaque = `{"access_token":"opaque-1","token_type":"Bearer","expires_in":300}`

// serve starts one; with start httptest.NewServer or httptest.NewTLSServer.
func serve(t *testing.T, start func(http.Handler) *httptest.Server) *server {
	t.Helper()
	s := &server{answer: answerOpaque, paths: []string{"/.well-known/openid-configuration"}}
	s.Server = start(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range s.paths {
		if r.URL.Path == path {
			s.read = append(s.read, path)
			document := map[string]any{"issuer": s.URL, "token_endpoint": s.URL + "/token"}
			for name, value := range s.metadata {
				document[name] = value
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(document)
			return
		}
	}
	if r.Method != http.MethodPost || (r.URL.Path != "/token" && r.URL.Path != "/mtls/token") {
		http.NotFound(w, r)
		return
	}
	_ = r.ParseForm()
	a := asked{form: r.PostForm, agent: r.UserAgent()}
	a.user, a.pass, _ = r.BasicAuth()
	if r.TLS != nil {
		a.certs = r.TLS.PeerCertificates
	}
	s.asked = append(s.asked, a)
	w.Header().Set("Content-Type", "application/json")
	for name, value := range s.header {
		w.Header().Set(name, value)
	}
	if s.status != 0 {
		w.WriteHeader(s.status)
	}
	_, _ = io.WriteString(w, s.answer)
}

// set changes what is answered.
func (s *server) set(status int, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.answer = status, answer
}

// last returns the last request, without the assertion's form.
func (s *server) last(t *testing.T) asked {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) == 0 {
		t.Fatal("the token endpoint was not asked")
	}
	return s.asked[len(s.asked)-1]
}

// caFile holds the certificate of a TLS server.
func (s *server) caFile(t *testing.T) string {
	t.Helper()
	return file(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
}

// serveMTLS starts a server that takes any client certificate.
func serveMTLS(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	return s
}

// clientCert makes a self-signed certificate; it returns both in PEM.
func clientCert(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("CERTIFICATE", raw), pkcs8(t, private)
}

func pemOf(kind string, raw []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}))
}

func pkcs8(t *testing.T, key any) string {
	t.Helper()
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("PRIVATE KEY", raw)
}

// withSecret are the parameters of a client with a secret.
func (s *server) withSecret(t *testing.T) token.Params {
	return token.Params{Issuer: s.URL, ClientID: "svc-etl", SecretFile: file(t, "s3cret\n")}
}
