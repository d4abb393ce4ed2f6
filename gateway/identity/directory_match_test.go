package identity_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"crossfade/gateway/identity"
)

func TestTwoEntriesForOneTokenAreNobody(t *testing.T) {
	byClaim := func(name, claim, value string) identity.Entry {
		return identity.Entry{Name: name, Team: "data", OIDC: []identity.TokenMatch{{Claims: map[string]string{claim: value}}}}
	}
	for name, tt := range map[string]struct {
		entries []identity.Entry
		token   identity.TokenIdentity
		want    string // the principal's name, "" for PrincipalUnmapped
	}{
		"two entries by claims that both hold": {
			[]identity.Entry{byClaim("a", "repository", "acme/ml"), byClaim("b", "ref", "main")},
			tokenOf(okta, "x", claims{"repository": {"acme/ml"}, "ref": {"main"}}), "",
		},
		"two entries by claims of which one holds": {
			[]identity.Entry{byClaim("a", "repository", "acme/ml"), byClaim("b", "ref", "main")},
			tokenOf(okta, "x", claims{"repository": {"acme/ml"}, "ref": {"dev"}}), "a",
		},
		"one subject told apart by claims that both hold": {
			[]identity.Entry{
				{Name: "a", OIDC: []identity.TokenMatch{{Subject: "x", Claims: map[string]string{"env": "prod"}}}},
				{Name: "b", OIDC: []identity.TokenMatch{{Subject: "x", Claims: map[string]string{"zone": "eu"}}}},
			},
			tokenOf(okta, "x", claims{"env": {"prod"}, "zone": {"eu"}}), "",
		},
		"one subject at any issuer and at one issuer, both hold": {
			[]identity.Entry{
				{Name: "a", OIDC: []identity.TokenMatch{{Subject: "x", Claims: map[string]string{"env": "prod"}}}},
				{Name: "b", OIDC: []identity.TokenMatch{{Issuer: okta, Subject: "x", Claims: map[string]string{"zone": "eu"}}}},
			},
			tokenOf(okta, "x", claims{"env": {"prod"}, "zone": {"eu"}}), "",
		},
		"one subject at any issuer and at one issuer, one holds": {
			[]identity.Entry{
				{Name: "a", OIDC: []identity.TokenMatch{{Subject: "x", Claims: map[string]string{"env": "prod"}}}},
				{Name: "b", OIDC: []identity.TokenMatch{{Issuer: okta, Subject: "x", Claims: map[string]string{"zone": "eu"}}}},
			},
			tokenOf(keycloak, "x", claims{"env": {"prod"}, "zone": {"eu"}}), "a",
		},
		"one subject at two issuers is two principals": {
			[]identity.Entry{
				{Name: "a", OIDC: []identity.TokenMatch{{Issuer: okta, Subject: "x"}}},
				{Name: "b", OIDC: []identity.TokenMatch{{Issuer: keycloak, Subject: "x"}}},
			},
			tokenOf(keycloak, "x", nil), "b",
		},
		"two matches of one entry that both hold are that entry": {
			[]identity.Entry{{Name: "a", OIDC: []identity.TokenMatch{{Subject: "x"}, {Issuer: okta, Subject: "x"}, {Claims: map[string]string{"env": "prod"}}}}},
			tokenOf(okta, "x", claims{"env": {"prod"}}), "a",
		},
		"an entry that names the subject in a match that does not hold, and two by claims": {
			[]identity.Entry{
				{Name: "a", OIDC: []identity.TokenMatch{
					{Subject: "x", Claims: map[string]string{"env": "prod"}},
					{Claims: map[string]string{"zone": "eu"}},
				}},
				byClaim("b", "team", "ml"),
			},
			tokenOf(okta, "x", claims{"zone": {"eu"}, "team": {"ml"}}), "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			forward := directory(t, identity.ClaimRules{}, tt.entries...)
			slices.Reverse(tt.entries)
			for _, d := range []*identity.Directory{forward, directory(t, identity.ClaimRules{}, tt.entries...)} {
				p, reason := d.Token(tt.token)
				switch {
				case tt.want == "" && (reason != identity.PrincipalUnmapped || p.Mapped || p.Team != identity.Unassigned || len(p.Roles) > 0):
					t.Errorf("%+v (%q), want nobody", p, reason)
				case tt.want != "" && (reason != "" || p.Name != tt.want):
					t.Errorf("%+v (%q), want %s", p, reason, tt.want)
				}
			}
		})
	}
}

// drawMatch draws from few values, so that matches overlap often.
func drawMatch(t *rapid.T) identity.TokenMatch {
	m := identity.TokenMatch{
		Issuer:  rapid.SampledFrom([]string{"", okta, keycloak}).Draw(t, "issuer"),
		Subject: rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "subject"),
	}
	for _, claim := range []string{"env", "zone"} {
		if v := rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, claim); v != "" {
			if m.Claims == nil {
				m.Claims = map[string]string{}
			}
			m.Claims[claim] = v
		}
	}
	return m
}

// holds is TokenMatch's contract, written down a second time.
func holds(m identity.TokenMatch, t identity.TokenIdentity) bool {
	ok := (m.Issuer == "" || m.Issuer == t.Issuer) && (m.Subject == "" || m.Subject == t.Subject)
	for claim, want := range m.Claims {
		ok = ok && slices.Contains(t.Claim(claim), want)
	}
	return ok
}

func TestATokenMapsToTheOneEntryThatHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var entries []identity.Entry
		for i := range rapid.IntRange(1, 4).Draw(t, "entries") {
			entries = append(entries, identity.Entry{
				Name: fmt.Sprintf("p%d", i), Team: identity.Team(fmt.Sprintf("t%d", i)),
				OIDC: rapid.SliceOfN(rapid.Custom(drawMatch), 1, 3).Draw(t, "oidc"),
			})
		}
		d, err := identity.NewDirectory(entries, identity.ClaimRules{})
		if err != nil {
			return // what is refused at load maps nobody
		}
		for range 8 {
			values := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 2, rapid.ID[string])
			token := tokenOf(
				rapid.SampledFrom([]string{okta, keycloak}).Draw(t, "token's issuer"),
				rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "token's subject"),
				claims{"env": values.Draw(t, "token's env"), "zone": values.Draw(t, "token's zone")},
			)
			var bySubject, byClaims []string
			for _, e := range entries {
				if slices.ContainsFunc(e.OIDC, func(m identity.TokenMatch) bool { return m.Subject != "" && holds(m, token) }) {
					bySubject = append(bySubject, e.Name)
				}
				if slices.ContainsFunc(e.OIDC, func(m identity.TokenMatch) bool { return m.Subject == "" && holds(m, token) }) {
					byClaims = append(byClaims, e.Name)
				}
			}
			want := bySubject
			if len(want) == 0 {
				want = byClaims
			}
			p, reason := d.Token(token)
			if len(want) == 1 {
				if p.Name != want[0] || !p.Mapped || reason != "" {
					t.Fatalf("%+v (%q), want %s", p, reason, want[0])
				}
			} else if p.Mapped || reason != identity.PrincipalUnmapped {
				t.Fatalf("%+v (%q), but the entries %q hold", p, reason, want)
			}
		}
	})
}
