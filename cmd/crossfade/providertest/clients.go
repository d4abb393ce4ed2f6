package providertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"crossfade/gateway/agent/token"
)

// The clients of a Provider, one for each way in which a client proves itself.
// The subject of a client's token is its id.
const (
	ClientBasic         = "etl-basic"
	ClientPost          = "etl-post"
	ClientPrivateKeyJWT = "etl-key"
	ClientTLS           = "etl-tls"
	ClientSelfSignedTLS = "etl-own-tls"
	// ClientGuest proves itself as ClientBasic does and is in other groups.
	ClientGuest = "etl-guest"
	// ClientExchange proves itself as ClientBasic does, and exchanges the token of
	// Workload.
	ClientExchange = "exchanger"
	// ClientDevice is the public one that people log in with.
	ClientDevice = "crossfade-cli"
)

// Person is somebody whom the provider knows, as one of the runners. It takes any
// password.
const Person = "ada@acme.dev"

// Workload is the subject of the token that is exchanged (RFC 8693): a service
// account of a cluster whose tokens the provider trusts. It is one of the runners.
const Workload = "system:serviceaccount:data:etl"

// clusterIssuer signs the tokens of workloads.
const clusterIssuer = "https://kubernetes.default.svc.cluster.local"

// clientSecret has what form encoding changes (RFC 6749 section 2.3.1).
const clientSecret = "s3cret: 100%+&=/? of the tests, which opens nothing"

// The files of the clients.
const (
	caFile     = "authority.pem"
	secretFile = "secret"
	keyFile    = "key.pem"
	certFile   = "client.pem"
	certKey    = "client-key.pem"
	ownFile    = "own.pem"
	ownKey     = "own-key.pem"
	subject    = "serviceaccount-token"
)

// Params are what a token.Source of a client needs: the issuer, its authority,
// and how the client proves itself.
func (p *Provider) Params(client string) token.Params {
	params := token.Params{Issuer: p.URL(), CAFile: p.CAFile(), ClientID: client}
	switch client {
	case ClientBasic, ClientGuest:
		params.SecretFile = p.files.path(secretFile)
	case ClientExchange:
		params.SecretFile, params.SubjectTokenFile = p.files.path(secretFile), p.files.path(subject)
	case ClientPost:
		params.ClientAuth, params.SecretFile = token.AuthPost, p.files.path(secretFile)
	case ClientPrivateKeyJWT:
		params.KeyFile = p.files.path(keyFile)
	case ClientTLS:
		params.CertFile, params.CertKeyFile = p.files.path(certFile), p.files.path(certKey)
	case ClientSelfSignedTLS:
		params.ClientAuth = token.AuthSelfSignedTLS
		params.CertFile, params.CertKeyFile = p.files.path(ownFile), p.files.path(ownKey)
	}
	return params
}

// files are keys, certificates and secrets: on disk for the agent, in memory
// for the provider.
type files struct {
	dir                              string
	authority, serverCert, serverKey string
	assertionKey                     jose.JSONWebKey
	clusterKey                       *ecdsa.PrivateKey
	ownCert                          []byte
}

func (f files) path(name string) string { return filepath.Join(f.dir, name) }

// newFiles makes an authority with a server's and a client's certificate, a
// certificate that nobody signed, a key for assertions, and a secret.
func newFiles(t testing.TB) files {
	t.Helper()
	f := files{dir: t.TempDir(), clusterKey: newKey(t)}
	write := func(name string, text []byte) {
		if err := os.WriteFile(f.path(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root := newKey(t)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of the tests"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	f.authority = certificate(t, ca, ca, root, root)
	write(caFile, []byte(f.authority))

	server := newKey(t)
	f.serverCert = certificate(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "provider"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, server, root)
	f.serverKey = private(t, server)

	client := newKey(t)
	write(certFile, []byte(certificate(t, &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: ClientTLS},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca, client, root)))
	write(certKey, []byte(private(t, client)))

	own := newKey(t)
	alone := &x509.Certificate{
		SerialNumber: big.NewInt(4), Subject: pkix.Name{CommonName: ClientSelfSignedTLS},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	text := certificate(t, alone, alone, own, own)
	block, _ := pem.Decode([]byte(text))
	f.ownCert = block.Bytes
	write(ownFile, []byte(text))
	write(ownKey, []byte(private(t, own)))

	assertion := newKey(t)
	f.assertionKey = jose.JSONWebKey{Key: assertion.Public(), Use: "sig", Algorithm: "ES256"}
	write(keyFile, []byte(private(t, assertion)))
	write(secretFile, []byte(clientSecret+"\n"))
	return f
}

// project writes the token of Workload, as a kubelet does into a volume.
func (f files) project(t testing.TB, audience string) {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: f.clusterKey}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	text, err := jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: clusterIssuer, Subject: Workload, Audience: jwt.Audience{audience},
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(time.Hour)),
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.path(subject), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// register is what the provider is to know of clients and people.
func (f files) register() (clients []map[string]any, groups map[string][]string) {
	program := func(id, method string, more map[string]any) {
		c := map[string]any{
			"client_id": id, "token_endpoint_auth_method": method, "grant_types": []string{"client_credentials"},
			"response_types": []string{}, "redirect_uris": []string{},
		}
		for name, value := range more {
			c[name] = value
		}
		clients = append(clients, c)
	}
	secret := map[string]any{"client_secret": clientSecret}
	program(ClientBasic, token.AuthBasic, secret)
	program(ClientGuest, token.AuthBasic, secret)
	program(ClientExchange, token.AuthBasic, map[string]any{
		"client_secret": clientSecret, "grant_types": []string{"urn:ietf:params:oauth:grant-type:token-exchange"},
	})
	program(ClientPost, token.AuthPost, secret)
	program(ClientPrivateKeyJWT, token.AuthPrivateKeyJWT, map[string]any{
		"jwks": jose.JSONWebKeySet{Keys: []jose.JSONWebKey{f.assertionKey}}, "token_endpoint_auth_signing_alg": "ES256",
	})
	program(ClientTLS, token.AuthTLS, map[string]any{"tls_client_auth_subject_dn": "CN=" + ClientTLS})
	own, err := x509.ParseCertificate(f.ownCert)
	if err != nil {
		panic(err) // it was made above
	}
	jwk := jose.JSONWebKey{Key: own.PublicKey, Certificates: []*x509.Certificate{own}}
	program(ClientSelfSignedTLS, token.AuthSelfSignedTLS, map[string]any{"jwks": jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk}}})
	clients = append(clients, map[string]any{
		"client_id": ClientDevice, "token_endpoint_auth_method": token.AuthNone, "application_type": "native",
		"grant_types":    []string{"urn:ietf:params:oauth:grant-type:device_code", "refresh_token"},
		"response_types": []string{}, "redirect_uris": []string{},
	})
	runners := []string{"everybody", GroupRunners}
	return clients, map[string][]string{
		ClientBasic: runners, ClientPost: runners, ClientPrivateKeyJWT: runners, ClientTLS: runners, ClientSelfSignedTLS: runners,
		ClientGuest: {"everybody", GroupGuests}, Person: runners, Workload: runners,
	}
}

// newKeys are signing keys, one for each algorithm.
func newKeys(t testing.TB) []jose.JSONWebKey {
	t.Helper()
	key, err := rsa.GenerateKey(crand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return []jose.JSONWebKey{
		{Key: key, KeyID: "rsa-" + crand.Text()[:8], Algorithm: "RS256", Use: "sig"},
		{Key: newKey(t), KeyID: "ec-" + crand.Text()[:8], Algorithm: "ES256", Use: "sig"},
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certificate signs what is given with the key of its issuer, in PEM.
func certificate(t testing.TB, c, issuer *x509.Certificate, key, signer *ecdsa.PrivateKey) string {
	t.Helper()
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(crand.Reader, c, issuer, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func private(t testing.TB, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
