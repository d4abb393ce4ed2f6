package redisstore_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

const password = "p4ss/w0rd:#é"

func TestBadURLsAreRefusedWithoutShowingThem(t *testing.T) {
	t.Parallel()
	secret := func(context.Context) (identity.Secret, error) { return identity.NewSecret(password), nil }
	for name, tc := range map[string]struct {
		opt  redisstore.Options
		want string
	}{
		"none":                         {redisstore.Options{}, "no URL"},
		"no scheme":                    {redisstore.Options{URL: "localhost:6379"}, "cannot be read"},
		"another scheme":               {redisstore.Options{URL: "http://:" + url.PathEscape(password) + "@h"}, "cannot be read"},
		"a password with a slash":      {redisstore.Options{URL: "redis://:" + password + "@localhost:6379/0"}, "percent-encoded"},
		"a password as the port":       {redisstore.Options{URL: "redis://user:12345/w0rd@localhost"}, "percent-encoded"},
		"a database that is no number": {redisstore.Options{URL: "redis://localhost/w0rd"}, "cannot be read"},
		"an unknown parameter":         {redisstore.Options{URL: "redis://localhost?password=w0rd"}, `unknown parameter "password"`},
		"a cluster with a database":    {redisstore.Options{URL: "redis://localhost/1?cluster=true"}, "only database 0"},
		"perhaps a cluster":            {redisstore.Options{URL: "redis://localhost?cluster=w0rd"}, "must be true or false"},
		"several and no cluster":       {redisstore.Options{URL: "redis://a?addr=b:6379&cluster=false"}, "several addresses"},
		"a socket of several":          {redisstore.Options{URL: "unix:///tmp/redis.sock?cluster=true"}, "unix names one server"},
		"two passwords":                {redisstore.Options{URL: "redis://:w0rd@localhost", Password: secret}, "two passwords"},
		"TLS settings without TLS":     {redisstore.Options{URL: "redis://localhost", TLS: &tls.Config{}}, "need the scheme rediss"},
		"a prefix with braces":         {redisstore.Options{URL: "redis://localhost", Prefix: "{x}"}, "must not hold braces"},
	} {
		s, err := redisstore.New(tc.opt)
		switch {
		case err == nil:
			_ = s.Close()
			t.Errorf("%s: no error", name)
		case !strings.Contains(err.Error(), tc.want):
			t.Errorf("%s: %v, want an error that says %q", name, err, tc.want)
		case strings.Contains(err.Error(), "w0rd"), strings.Contains(err.Error(), "12345"):
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t, "--requirepass", password)
	escaped := url.UserPassword("", password).String()
	asked := 0
	for name, tc := range map[string]struct {
		opt redisstore.Options
		ok  bool
	}{
		"none":       {redisstore.Options{URL: server.URL()}, false},
		"wrong":      {redisstore.Options{URL: "redis://:w0rd-wrong@" + server.Addr}, false},
		"in the URL": {redisstore.Options{URL: "redis://" + escaped + "@" + server.Addr}, true},
		"asked for": {redisstore.Options{URL: server.URL(), Password: func(context.Context) (identity.Secret, error) {
			asked++
			return identity.NewSecret(password), nil
		}}, true},
		"cannot be had": {redisstore.Options{URL: server.URL(), Password: func(context.Context) (identity.Secret, error) {
			return identity.Secret{}, errors.New("no such file")
		}}, false},
	} {
		s := newStore(t, tc.opt)
		_, err := s.Load(t.Context())
		switch {
		case tc.ok && err != nil:
			t.Errorf("%s: %v", name, err)
		case !tc.ok && !errors.Is(err, rollout.ErrUnavailable):
			t.Errorf("%s: %v, want ErrUnavailable", name, err)
		case err != nil && strings.Contains(err.Error(), "w0rd"):
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
		if shown := fmt.Sprintf("%v %+v", s, err); strings.Contains(shown, "p4ss/w0rd") {
			t.Errorf("%s: the store shows the password", name)
		}
	}
	if asked == 0 {
		t.Error("nobody asked for the password")
	}
}

func TestTLSAndSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	roots := certificate(t, dir)
	socket := filepath.Join(dir, "r.sock")
	server := rollouttest.StartRedis(t, "--unixsocket", socket, "--tls-port", "0")
	set(t, newStore(t, redisstore.Options{URL: "unix://" + socket}), 25)
	if got := load(t, newStore(t, redisstore.Options{URL: server.URL()})).Teams[team].Percent; got != 25 {
		t.Errorf("written through the socket and read by TCP: %d percent", got)
	}

	port := fmt.Sprint(rollouttest.Port(t))
	rollouttest.StartRedis(t, "--tls-port", port, "--tls-cert-file", filepath.Join(dir, "cert.pem"),
		"--tls-key-file", filepath.Join(dir, "key.pem"), "--tls-auth-clients", "no")
	secure := "rediss://127.0.0.1:" + port
	set(t, newStore(t, redisstore.Options{URL: secure, TLS: &tls.Config{RootCAs: roots}}), 25)
	if _, err := newStore(t, redisstore.Options{URL: secure}).Load(t.Context()); !errors.Is(err, rollout.ErrUnavailable) {
		t.Errorf("a certificate of an unknown authority: %v, want ErrUnavailable", err)
	}
}

// certificate writes a self-signed certificate for 127.0.0.1 and its key.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, data := range map[string][]byte{"cert.pem": cert, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	return roots
}
