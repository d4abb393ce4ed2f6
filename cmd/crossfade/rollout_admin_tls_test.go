package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates of gateways; file holds its own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, file: filepath.Join(t.TempDir(), "ca.pem")}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

// sign writes a certificate for an address, good until so long from now, and its
// key. The gateway reads the certificate last.
func (a *authority) sign(t *testing.T, dir, address string, lasts time.Duration) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "a gateway"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(lasts), IPAddresses: []net.IP{net.ParseIP(address)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "admin.key"), "PRIVATE KEY", private)
	writePEM(t, filepath.Join(dir, "admin.crt"), "CERTIFICATE", der)
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheAdminAPIIsAskedOverTLSAndItsCertificateIsVerified(t *testing.T) {
	t.Parallel()
	good, other, dir := newAuthority(t), newAuthority(t), t.TempDir()
	good.sign(t, dir, "127.0.0.1", time.Hour)
	a := administer(t, "address: 127.0.0.1:0, tls: { cert: "+filepath.Join(dir, "admin.crt")+", key: "+filepath.Join(dir, "admin.key")+" }")
	if !strings.HasPrefix(a.url, "https://") {
		t.Fatalf("the admin API is at %s", a.url)
	}
	host := strings.TrimPrefix(a.url, "https://")
	over := func(url string, args ...string) ran {
		return run(t, append([]string{"rollout", "set", "data-eng", "25", "--admin", url, "--token-file", a.tokenFile}, args...)...)
	}
	over(a.url).want(t, exitStore, "of an authority that nobody here trusts", "--admin-ca FILE")
	over(a.url, "--admin-ca", other.file).want(t, exitStore, "of another authority than that of "+other.file)
	over("http://"+host).want(t, exitStore, host+" speaks TLS: use https://")
	over(strings.Replace(a.url, "127.0.0.1", "localhost", 1), "--admin-ca", good.file).want(t, exitStore, "the certificate of localhost:", "for another name", "localhost")
	over(a.url, "--admin-ca", good.file+"x").want(t, exitUsage, "--admin-ca", "no such file")
	run(t, "rollout", "history", "data-eng", "--redis="+a.redis.URL()).want(t, exitOK, "never changed")
	over(a.url, "--admin-ca", good.file).want(t, exitOK, "data-eng is at 25% (revision 1)")
	run(t, "rollout", "status", "--admin", a.url, "--admin-ca", good.file, "--token-file", a.tokenFile).want(t, exitOK, "live: 1 gateway")

	// A certificate that has expired is refused, and one that replaces it is served
	// without a restart.
	expired := func() bool {
		got := over(a.url, "--admin-ca", good.file)
		return got.code == exitStore && strings.Contains(got.stderr, "has expired") && strings.Contains(got.stderr, "admin.tls")
	}
	good.sign(t, dir, "127.0.0.1", -time.Hour)
	eventually(t, "the certificate that has expired is served and refused", expired)
	good.sign(t, dir, "127.0.0.1", 2*time.Hour)
	eventually(t, "the new certificate is served", func() bool { return over(a.url, "--admin-ca", good.file).code == exitOK })
}
