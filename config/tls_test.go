package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"crossfade/config"
)

// pair writes a self-signed certificate and its key.
func pair(t *testing.T, dir, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, dir, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}

// documented is the full configuration as the design shows it.
const documented = `mode: enforce
listen:   { address: ":8082", tls: { cert: tls.crt, key: tls.key }, trusted_proxies: [] }   # paths relative to this file
metrics:  ":9091"                                   # /metrics /livez /readyz: no login, no secrets
admin:    { address: "127.0.0.1:8081", viewers: { groups: [data] }, operators: { groups: [platform] } }
upstream: { url: http://127.0.0.1:8083, profile: luigi }
legacy:
  htpasswd: luigi.htpasswd
  api_keys: { header: X-API-Key, file: api-keys.yaml }        # SHA-256 digests, owner, expiry
  bearer:   { file: static-tokens.yaml }
oidc:
  issuers:                                          # one issuer may stand inline, as above
    - { issuer: https://acme.okta.com/oauth2/luigi, audiences: [api://luigi], preset: okta }  # preset guessed from the host
principals: principals.yaml                         # without it everyone is ` + "`unassigned`" + `
roles: roles.yaml                                   # without it everyone may do everything, and it is recorded
authorization: shadow                               # shadow | enforce
rollout:  { dir: rollout.d, cold_start: refuse }
redis:    { url: rediss://redis.internal:6379/0, password_file: run/secrets/redis }
audit:    { file: audit.jsonl, required: false }
help:     { url: https://wiki.acme.dev/oidc, contact: "#platform" }   # stands in every refusal
`

func TestTheDocumentedConfigurationIsComplete(t *testing.T) {
	dir := t.TempDir()
	pair(t, dir, "tls.crt", "tls.key")
	for _, name := range []string{"luigi.htpasswd", "api-keys.yaml", "static-tokens.yaml", "rollout.d/data-eng.yaml"} {
		write(t, dir, name, "")
	}
	write(t, dir, "run/secrets/redis", "hunter2\n")
	write(t, dir, "principals.yaml", `svc-etl:     { team: data-eng, legacy: [svc-etl], oidc: { subject: 0oa1b2c3 }, roles: [runner] }
svc-billing: { team: billing, oidc: { subject: 0oa9z8y7 }, roles: [runner] }    # legacy defaults to the name
`)
	write(t, dir, "roles.yaml", `roles:  { runner: { execute: ["Extract*", "Load*"], view: ["*"] }, operator: { execute: ["*"], view: ["*"], admin: ["*"] } }
claims: { groups: { luigi-operators: operator } }
`)
	c := load(t, config.Source{File: write(t, dir, "crossfade.yaml", documented)})
	if !c.Listen.TLS.Enabled() || c.Redis.Password.Reveal() != "hunter2" || len(c.Principals) != 2 || len(c.Files()) != 9 {
		t.Errorf("got %+v with files %v", c, c.Files())
	}
	for _, w := range c.Warnings() {
		t.Errorf("warning: %v", w)
	}
}

func TestACertificateMustFitItsKey(t *testing.T) {
	dir := t.TempDir()
	pair(t, dir, "a.crt", "a.key")
	pair(t, dir, "b.crt", "b.key")
	for _, listener := range []string{"listen", "admin"} {
		for pair, message := range map[string]string{"cert: a.crt, key: b.key": "does not match", "cert: a.crt": "needs both cert and key"} {
			wrong := mistakes(t, config.Source{
				File: write(t, dir, "crossfade.yaml", "upstream: http://127.0.0.1:1\n"+listener+": { tls: { "+pair+" } }\n"),
			})
			if len(wrong) != 1 || wrong[0].Key != listener+".tls" || wrong[0].Line != 2 || !strings.Contains(wrong[0].Message, message) {
				t.Errorf("%s with %s: got %v", listener, pair, wrong)
			}
		}
	}
}
