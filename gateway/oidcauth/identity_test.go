package oidcauth_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
)

func directory(t *testing.T) *identity.Directory {
	t.Helper()
	d, err := identity.NewDirectory([]identity.Entry{
		{Name: "svc-etl", Team: "data-eng", Roles: []identity.Role{"runner"}, OIDC: []identity.TokenMatch{{Subject: "0oa1b2c3"}}},
		{Name: "aa-ghost", Team: "search", OIDC: []identity.TokenMatch{{Claims: map[string]string{"groups": "ghosts"}}}},
		{Name: "lead", Team: "data-eng", OIDC: []identity.TokenMatch{{Claims: map[string]string{"email": "lead@acme.dev"}}}},
	}, identity.ClaimRules{
		Roles: map[string]map[string]identity.Role{"groups": {"luigi-operators": "operator"}, "realm.roles": {"admin": "operator"}},
		Teams: map[string]map[string]identity.Team{"groups": {"data": "data-eng", "search": "search"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestATokenIsMappedToAPrincipal(t *testing.T) {
	overage := object{"_claim_names": object{"groups": "src1"}, "_claim_sources": object{"src1": object{"endpoint": "https://graph.example.com"}}}
	for _, c := range []struct {
		name   string
		issuer func(*oidcauth.Issuer)
		claims object
		want   string
		bad    []identity.Reason
	}{
		{name: "by the subject of an entry", want: "svc-etl data-eng [runner] mapped"},
		{name: "by a verified address", claims: object{"sub": "00u", "email": "lead@acme.dev", "email_verified": true}, want: "lead data-eng [] mapped"},
		{
			name: "not by an address that is not verified", claims: object{"sub": "00u", "email": "lead@acme.dev", "email_verified": false},
			bad: []identity.Reason{identity.EmailUnverified, identity.PrincipalUnmapped},
		},
		{
			name: "by rules about groups", claims: object{"sub": "00u", "groups": []string{"search", "luigi-operators", "other"}},
			want: "oidc:00u@idp.example.com/tenant search [operator]",
		},
		{
			name: "by rules about a claim within a claim", claims: object{"sub": "00u", "realm": object{"roles": []string{"admin"}}},
			want: "oidc:00u@idp.example.com/tenant unassigned [operator]",
		},
		{
			name: "by rules about groups, whatever the issuer calls them", issuer: func(i *oidcauth.Issuer) { i.GroupsClaim = "https://acme.dev/groups" },
			claims: object{"sub": "00u", "https://acme.dev/groups": []string{"search"}, "groups": []string{"data"}},
			want:   "oidc:00u@idp.example.com/tenant search []",
		},
		{
			name: "by another claim than sub", issuer: func(i *oidcauth.Issuer) { i.SubjectClaim = "ext.account" },
			claims: object{"sub": "00u", "ext": object{"account": "0oa1b2c3"}}, want: "svc-etl data-eng [runner] mapped",
		},
		{
			name: "not by another claim that is a list", issuer: func(i *oidcauth.Issuer) { i.SubjectClaim = "accounts" },
			claims: object{"accounts": []string{"0oa1b2c3"}}, bad: []identity.Reason{identity.ClaimTypeInvalid, identity.SubjectMissing},
		},
		{name: "not without entry and rule", claims: object{"sub": "00u"}, bad: []identity.Reason{identity.PrincipalUnmapped}},
		{
			name: "not when the groups name two teams", claims: object{"sub": "00u", "groups": []string{"data", "search"}},
			bad: []identity.Reason{identity.TeamUnmapped},
		},
		{
			name: "not when the groups that it needs were left out, and that is named first", claims: overage.with(object{"sub": "00u"}),
			bad: []identity.Reason{identity.GroupsOverage, identity.PrincipalUnmapped},
		},
		{name: "by an entry that needs no groups, although they were left out", claims: overage, want: "svc-etl data-eng [runner] mapped"},
		{
			name:   "by an entry about an address, although groups were asked for and left out",
			claims: overage.with(object{"sub": "00u", "email": "lead@acme.dev", "email_verified": true}), want: "lead data-eng [] mapped",
		},
		{
			name: "not when the groups are an object", claims: object{"groups": object{"data": true}},
			bad: []identity.Reason{identity.ClaimTypeInvalid},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, newIDP(), func(w *world) {
				w.options.Directory = directory(t)
				if c.issuer != nil {
					c.issuer(&w.issuer)
				}
			})
			a := w.judge(w.idp.token(w.idp.good().with(c.claims)))
			if diff := cmp.Diff(c.bad, a.Reasons); diff != "" {
				t.Fatal(diff, a.Detail)
			}
			if !a.OK() {
				return
			}
			got := fmt.Sprint(a.Principal.Name, " ", a.Principal.Team, " ", a.Principal.Roles)
			if a.Principal.Mapped {
				got += " mapped"
			}
			if got != c.want {
				t.Errorf("principal %s, want %s", got, c.want)
			}
		})
	}
}

func TestAnIssuerForTheWholeWorldNeedsSomeoneToVouch(t *testing.T) {
	entry, err := identity.NewDirectory([]identity.Entry{
		{Name: "svc-etl", OIDC: []identity.TokenMatch{{Subject: "job"}}},
	}, identity.ClaimRules{})
	if err != nil {
		t.Fatal(err)
	}
	rule, err := identity.NewDirectory(nil, identity.ClaimRules{Roles: map[string]map[string]identity.Role{"repository": {"acme/pipelines": "runner"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		url       string
		tenants   []string
		directory *identity.Directory
		want      identity.Reason
	}{
		{name: "GitHub, nothing configured", url: "https://token.actions.githubusercontent.com", want: identity.PrincipalUnmapped},
		{name: "GitHub, a tenant", url: "https://token.actions.githubusercontent.com", tenants: []string{"acme"}},
		{name: "GitHub, an entry", url: "https://token.actions.githubusercontent.com", directory: entry},
		{name: "GitHub, a rule", url: "https://token.actions.githubusercontent.com", directory: rule},
		{name: "GitHub, of an enterprise", url: "https://token.actions.githubusercontent.com/acme"},
		{name: "Google, nothing configured", url: "https://accounts.google.com", want: identity.PrincipalUnmapped},
		{name: "GitLab, nothing configured", url: "https://gitlab.com", want: identity.PrincipalUnmapped},
		{name: "one's own, nothing configured", url: "https://sso.acme.dev"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newIDP()
			p.url = c.url
			w := newWorld(t, p, func(w *world) {
				w.issuer = oidcauth.Issuer{URL: c.url, Audiences: []string{"luigi"}, Tenants: c.tenants}
				w.options.Directory = c.directory
			})
			a := w.judge(sign(p.keys[0], nil, object{
				"iss": c.url, "sub": "job", "aud": "luigi", "iat": at(0), "exp": at(5 * time.Minute),
				"repository": "acme/pipelines", "repository_owner": "acme",
			}))
			if a.Primary() != c.want || a.OK() != (c.want == "") {
				t.Errorf("%v %s", a.Reasons, a.Detail)
			}
		})
	}
}

func TestAnEntryWithoutIssuerMeansItsSubjectAtEveryIssuer(t *testing.T) {
	a, b := newIDP(), newIDP(rsaKey("key-1", 1))
	b.url = "https://other.example.com"
	w := newWorld(t, a, func(w *world) {
		w.options.Directory = directory(t)
		w.options.Issuers = []oidcauth.Issuer{{URL: b.url, Audiences: []string{"api://luigi"}}}
	})
	if got := w.want(a.token(a.good()), identity.StatusVerified).Principal.Name; got != "svc-etl" {
		t.Error(got)
	}
	// A token of one issuer, signed with the key of another.
	w.want(b.token(a.good()), identity.StatusRejected, identity.SignatureInvalid)
}

func TestWhatIsReturnedHoldsNoToken(t *testing.T) {
	w := newWorld(t, newIDP(), nil)
	for _, c := range reasonCases {
		token := c.token(w.idp)
		if len(token) < 40 {
			continue
		}
		a := w.judge(token)
		if sum := sha256.Sum256([]byte(token)); a.Token != nil && a.Token.Digest != hex.EncodeToString(sum[:16]) {
			t.Errorf("%s: the token is called %q", c.name, a.Token.Digest)
		}
		inspection := w.v.Inspect(t.Context(), identity.NewSecret(token))
		text := fmt.Sprintf("%+v %+v %+v", a, a.Token, inspection)
		signature := token[strings.LastIndexByte(token, '.')+1:]
		if len(signature) > 20 && strings.Contains(text, signature) {
			t.Errorf("%s: the signature is in what is returned", c.name)
		}
		if strings.ContainsAny(a.Detail, "\r\n") {
			t.Errorf("%s: a line break in the sentence %q", c.name, a.Detail)
		}
	}
}
