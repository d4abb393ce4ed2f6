package probe_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
	"crossfade/gateway/policy"
	"crossfade/gateway/probe"
	"crossfade/gateway/shadow"
)

var update = flag.Bool("update", false, "write the golden files")

// provider is an identity provider that signs whatever a test wants.
type provider struct {
	*httptest.Server
	signer jose.Signer
	down   atomic.Bool
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk := jose.JSONWebKey{Key: key, KeyID: "k1", Algorithm: "ES256", Use: "sig"}
	p := &provider{}
	if p.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jwk}, new(jose.SignerOptions).WithType("JWT")); err != nil {
		t.Fatal(err)
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case p.down.Load():
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/keys":
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk.Public()}})
		default:
			_ = json.NewEncoder(w).Encode(map[string]any{
				"issuer": p.URL, "jwks_uri": p.URL + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"},
			})
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// sign makes a token with the claims of a good one of svc-etl, changed.
func (p *provider) sign(t *testing.T, change map[string]any) identity.Secret {
	t.Helper()
	claims := map[string]any{
		"iss": p.URL, "sub": "etl", "aud": "luigi",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := p.signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return identity.NewSecret(text)
}

// given is a source that has its answer.
type given struct {
	token identity.Secret
	err   error
}

func (g given) Token(context.Context) (identity.Secret, error) { return g.token, g.err }

// entries are the accounts of the tests: svc-etl is theirs, svc-free takes its
// roles from claims, cron is shared.
func entries() []identity.Entry {
	return []identity.Entry{
		{Name: "svc-etl", Team: "data", Roles: []identity.Role{"runner"}, Legacy: []string{"svc-etl"}, OIDC: []identity.TokenMatch{{Subject: "etl"}}},
		{Name: "svc-ann", Team: "data", Roles: []identity.Role{"runner"}, OIDC: []identity.TokenMatch{{Subject: "ann"}}},
		{Name: "svc-bob", Team: "billing", Roles: []identity.Role{"runner"}, OIDC: []identity.TokenMatch{{Subject: "bob"}}},
		{Name: "svc-free", Team: "data", OIDC: []identity.TokenMatch{{Subject: "free"}}},
		{Name: "svc-view", Team: "data", Roles: []identity.Role{"viewer"}, OIDC: []identity.TokenMatch{{Subject: "view"}}},
		{Name: "cron", Roles: []identity.Role{"runner"}, Shared: true, MayBe: []string{"svc-ann", "svc-bob"}},
	}
}

func roles(t *testing.T) *policy.Policy {
	t.Helper()
	p, err := policy.New(map[identity.Role]policy.Grant{
		"runner": {identity.ActionExecute: {"Load*"}, identity.ActionView: {"*"}},
		"viewer": {identity.ActionView: {"*"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// account is the one of that name, as an entry makes it.
func account(t *testing.T, name string, source probe.Source) probe.Account {
	t.Helper()
	for _, e := range entries() {
		if e.Name == name {
			team := e.Team
			if team == "" {
				team = identity.Unassigned
			}
			return probe.Account{
				Principal: identity.Principal{Name: name, Team: team, Roles: e.Roles, Mapped: true},
				MayBe:     e.MayBe, Kind: "client_credentials", Source: source, Settings: name,
			}
		}
	}
	t.Fatalf("no entry %s", name)
	return probe.Account{}
}

func TestWhatAProbeFindsGolden(t *testing.T) {
	idp := newProvider(t)
	directory, err := identity.NewDirectory(entries(), identity.ClaimRules{
		Roles: map[string]map[string]identity.Role{"groups": {"runners": "runner"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	verifier := func() *oidcauth.Verifier {
		providers := oidcauth.NewProviders(oidcauth.ProviderOptions{})
		t.Cleanup(providers.Close)
		v, err := oidcauth.New(oidcauth.Options{
			Issuers:   []oidcauth.Issuer{{URL: idp.URL, Audiences: []string{"luigi"}}},
			Directory: directory, Providers: providers,
		})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	sign := func(change map[string]any) probe.Source { return given{token: idp.sign(t, change)} }
	foreign := newProvider(t)
	var b strings.Builder
	line := func(cells ...any) {
		b.WriteString(strings.TrimRight(fmt.Sprintf("%-45s| %-9s| %-14s| %-8s| %-15s| %-19s| %-9s| %s", cells...), " ") + "\n")
	}
	line("what the provider does", "account", "outcome", "action", "verdict", "reason", "owner", "detail")
	for _, tt := range []struct {
		name, account string
		source        probe.Source
		policy        *policy.Policy
		rolesCount    bool
		down          bool
	}{
		{name: "it issues what is wanted", account: "svc-etl", source: sign(nil), policy: roles(t)},
		{name: "and there are no roles", account: "svc-etl", source: sign(nil)},
		{name: "to an account that only looks", account: "svc-view", source: sign(map[string]any{"sub": "view"}), policy: roles(t)},
		{name: "for another audience", account: "svc-etl", source: sign(map[string]any{"aud": "finance"}), policy: roles(t)},
		{name: "for another audience, expired", account: "svc-etl", source: sign(map[string]any{"aud": "finance", "exp": time.Now().Add(-time.Hour).Unix()}), policy: roles(t)},
		{name: "without an audience", account: "svc-etl", source: sign(map[string]any{"aud": nil}), policy: roles(t)},
		{name: "for longer than is allowed", account: "svc-etl", source: sign(map[string]any{"exp": time.Now().Add(1000 * time.Hour).Unix()}), policy: roles(t)},
		{name: "to a subject that nobody maps", account: "svc-etl", source: sign(map[string]any{"sub": "stranger"}), policy: roles(t)},
		{name: "to another account of the team", account: "svc-etl", source: sign(map[string]any{"sub": "ann"}), policy: roles(t)},
		{name: "to another account of another team", account: "svc-etl", source: sign(map[string]any{"sub": "bob"}), policy: roles(t)},
		{name: "to another account with fewer rights", account: "svc-etl", source: sign(map[string]any{"sub": "view"}), policy: roles(t)},
		{name: "to another account with more rights", account: "svc-view", source: sign(map[string]any{"sub": "etl"}), policy: roles(t)},
		{name: "with roles in groups that legacy has not", account: "svc-free", source: sign(map[string]any{"sub": "free", "groups": []string{"runners"}}), policy: roles(t)},
		{name: "without the groups that give roles", account: "svc-free", source: sign(map[string]any{"sub": "free"}), policy: roles(t)},
		{name: "the same where roles count", account: "svc-free", source: sign(map[string]any{"sub": "free"}), policy: roles(t), rolesCount: true},
		{name: "to one that a shared account may be", account: "cron", source: sign(map[string]any{"sub": "ann"}), policy: roles(t)},
		{name: "to one that a shared account may not be", account: "cron", source: sign(map[string]any{"sub": "etl"}), policy: roles(t)},
		{name: "another provider issues it", account: "svc-etl", source: given{token: foreign.sign(t, nil)}, policy: roles(t)},
		{name: "it is forged", account: "svc-etl", source: given{token: foreign.sign(t, map[string]any{"iss": idp.URL})}, policy: roles(t)},
		{name: "it is opaque", account: "svc-etl", source: given{token: identity.NewSecret("opaque-0815")}, policy: roles(t)},
		{name: "its keys cannot be had", account: "svc-etl", source: sign(nil), policy: roles(t), down: true},
		{name: "it refuses", account: "svc-etl", source: given{err: fmt.Errorf("%w: invalid_client", probe.ErrRefused)}, policy: roles(t)},
		{name: "it does not answer", account: "svc-etl", source: given{err: errors.New("connection refused")}, policy: roles(t)},
		{name: "it is not asked", account: "svc-etl", source: given{err: fmt.Errorf("%w: no such file", probe.ErrCredential)}, policy: roles(t)},
	} {
		idp.down.Store(tt.down)
		p := probe.Prober{Tokens: verifier(), Policy: tt.policy, RolesCount: tt.rolesCount}
		r := p.Probe(t.Context(), account(t, tt.account, tt.source))
		if r.Shadow.Evidence != shadow.EvidenceProbe {
			t.Errorf("%s: evidence %s", tt.name, r.Shadow.Evidence)
		}
		if (r.Token == nil) == (r.Err == nil) {
			t.Errorf("%s: a token and an error, or neither: %v, %v", tt.name, r.Token, r.Err)
		}
		detail := r.Detail()
		for from, to := range map[string]string{idp.URL: "IDP", foreign.URL: "FOREIGN"} {
			detail = strings.ReplaceAll(strings.ReplaceAll(detail, from, to), strings.TrimPrefix(from, "http://"), to)
		}
		if i := strings.Index(detail, "expired at "); i >= 0 {
			detail = detail[:i+len("expired at ")] + "..."
		}
		line(tt.name, tt.account, r.Outcome, r.Action, r.Shadow.Verdict, r.Shadow.Reason, r.Owner(), detail)
	}
	golden(t, b.String())
}

func golden(t *testing.T, got string) {
	t.Helper()
	file := filepath.Join("testdata", "probes.golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("mismatch (-want +got); run with -update when it is meant:\n%s", diff)
	}
}

// waits is a source, and a judge, that answer when their context ends.
type waits struct{ deadline chan time.Duration }

func (w waits) until(ctx context.Context) {
	end, _ := ctx.Deadline()
	w.deadline <- time.Until(end)
	<-ctx.Done()
}

func (w waits) Token(ctx context.Context) (identity.Secret, error) {
	w.until(ctx)
	return identity.Secret{}, ctx.Err()
}

func (w waits) Authenticate(ctx context.Context, _ identity.Credential) *identity.Authentication {
	w.until(ctx)
	return identity.Reject("", identity.JWKSUnavailable)
}

func TestObtainingAndJudgingAreBoundedAndTheirEndIsNoFaultOfTheAccount(t *testing.T) {
	w := waits{make(chan time.Duration, 2)}
	p := probe.Prober{Tokens: w, Timeout: 20 * time.Millisecond}
	for name, source := range map[string]probe.Source{"obtaining": w, "judging": given{token: identity.NewSecret("a.b.c")}} {
		r := p.Probe(t.Context(), account(t, "svc-etl", source))
		if r.Outcome != probe.Unavailable || r.Shadow.Verdict != shadow.Indeterminate || r.Owner() != identity.OwnerIDP {
			t.Errorf("%s: %+v", name, r)
		}
		if d := <-w.deadline; d > p.Timeout {
			t.Errorf("%s may take %s", name, d)
		}
	}
}

func TestAResultPrintsNoToken(t *testing.T) {
	idp := newProvider(t)
	token := idp.sign(t, nil)
	p := probe.Prober{Tokens: judge(func() *identity.Authentication { return identity.Reject("", identity.AudMismatch) })}
	r := p.Probe(t.Context(), account(t, "svc-etl", given{token: token}))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, *r); strings.Contains(text, token.Reveal()) || strings.Contains(text, "eyJ") {
			t.Errorf("%s shows it: %s", verb, text)
		}
	}
	if text, err := json.Marshal(r.Shadow); err != nil || strings.Contains(string(text), "eyJ") {
		t.Errorf("%s, %v", text, err)
	}
}

// judge is an authenticator that has its answer.
type judge func() *identity.Authentication

func (j judge) Authenticate(context.Context, identity.Credential) *identity.Authentication {
	return j()
}
