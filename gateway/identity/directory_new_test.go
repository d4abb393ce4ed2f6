package identity_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
)

func TestNewDirectoryNamesEveryMistake(t *testing.T) {
	type match = identity.TokenMatch
	entry := func(name string, oidc ...match) identity.Entry { return identity.Entry{Name: name, OIDC: oidc} }
	env := map[string]string{"env": "prod"}
	for name, tt := range map[string]struct {
		entries []identity.Entry
		rules   identity.ClaimRules
		want    []string
	}{
		"no name": {
			entries: []identity.Entry{{Team: "data", Legacy: []string{"svc-etl"}}},
			want:    []string{`a principal has no name`},
		},
		"a reserved prefix": {
			entries: []identity.Entry{entry("legacy:svc-etl"), entry("oidc:x@y")},
			want: []string{
				`principal "legacy:svc-etl": the prefixes legacy: and oidc: are reserved for principals without an entry`,
				`principal "oidc:x@y": the prefixes legacy: and oidc: are reserved for principals without an entry`,
			},
		},
		"one name twice": {
			entries: []identity.Entry{entry("a"), entry("a")},
			want:    []string{`principal "a" stands twice`},
		},
		"an empty legacy identity": {
			entries: []identity.Entry{{Name: "a", Legacy: []string{""}}},
			want:    []string{`principal "a": a legacy identity is empty`},
		},
		"one legacy identity of two principals": {
			entries: []identity.Entry{{Name: "a", Legacy: []string{"x"}}, {Name: "b", Legacy: []string{"y", "x"}}},
			want:    []string{`principals "a" and "b" both claim the legacy identity "x"`},
		},
		"a match of anything": {
			entries: []identity.Entry{entry("a", match{Issuer: okta}), entry("b", match{Subject: "x"})},
			want:    []string{`principal "a": an oidc entry needs a subject or claims`},
		},
		"one subject of two principals": {
			entries: []identity.Entry{entry("b", match{Subject: "x"}), entry("a", match{Subject: "x"})},
			want:    []string{`principals "a" and "b" both claim the tokens with subject "x": tell them apart by issuer, subject or claims`},
		},
		"one mistake made twice": {
			entries: []identity.Entry{entry("a", match{Subject: "x"}, match{Subject: "x"}), entry("b", match{Subject: "x"}), {}, {}},
			want: []string{
				`a principal has no name`,
				`principals "a" and "b" both claim the tokens with subject "x": tell them apart by issuer, subject or claims`,
			},
		},
		"a subject at any issuer and the same at one": {
			entries: []identity.Entry{entry("b", match{Issuer: okta, Subject: "x"}), entry("a", match{Subject: "x"})},
			want:    []string{`principals "a" and "b" both claim the tokens with issuer "` + okta + `", subject "x": tell them apart by issuer, subject or claims`},
		},
		"a subject and the same with a claim": {
			entries: []identity.Entry{entry("a", match{Subject: "x"}), entry("b", match{Subject: "x", Claims: env})},
			want:    []string{`principals "a" and "b" both claim the tokens with subject "x", claim env="prod": tell them apart by issuer, subject or claims`},
		},
		"the same claims, and some of them": {
			entries: []identity.Entry{
				entry("a", match{Claims: env}), entry("b", match{Claims: env}),
				entry("c", match{Claims: map[string]string{"env": "prod", "zone": "eu"}}),
			},
			want: []string{
				`principals "a" and "b" both claim the tokens with claim env="prod": tell them apart by issuer, subject or claims`,
				`principals "a" and "c" both claim the tokens with claim env="prod", claim zone="eu": tell them apart by issuer, subject or claims`,
				`principals "b" and "c" both claim the tokens with claim env="prod", claim zone="eu": tell them apart by issuer, subject or claims`,
			},
		},
		"a shared principal with an identity of its own": {
			entries: []identity.Entry{{Name: "a", Shared: true, OIDC: []match{{Subject: "x"}}}},
			want:    []string{`principal "a" is shared, so it has no OIDC identity of its own: list the principals it may turn into under may_be`},
		},
		"a shared principal with a team": {
			entries: []identity.Entry{{Name: "a", Shared: true, Team: "data"}},
			want:    []string{`principal "a" is shared, so its team comes from the companion token: leave team out`},
		},
		"may_be without shared": {
			entries: []identity.Entry{{Name: "a", MayBe: []string{"b"}}, entry("b")},
			want:    []string{`principal "a" has may_be, which belongs to shared principals: add shared: true`},
		},
		"may_be that nobody is": {
			entries: []identity.Entry{{Name: "a", Shared: true, MayBe: []string{"b"}}},
			want:    []string{`shared principal "a" may be "b", which has no entry`},
		},
		"may_be that is shared": {
			entries: []identity.Entry{{Name: "a", Shared: true, MayBe: []string{"b", "a"}}, {Name: "b", Shared: true}},
			want: []string{
				`shared principal "a" may be "a", which is shared itself`,
				`shared principal "a" may be "b", which is shared itself`,
			},
		},
		"may_be of an entry with another mistake is no second one": {
			entries: []identity.Entry{{Name: "a", Shared: true, MayBe: []string{"b"}}, entry("b", match{})},
			want:    []string{`principal "b": an oidc entry needs a subject or claims`},
		},
		"rules without a meaning": {
			rules: identity.ClaimRules{
				Roles: map[string]map[string]identity.Role{"groups": {"ops": ""}},
				Teams: map[string]map[string]identity.Team{"department": {"d-ml": ""}},
			},
			want: []string{`claim department="d-ml" names no team`, `claim groups="ops" names no role`},
		},
		"all mistakes of one entry at once": {
			entries: []identity.Entry{{Name: "oidc:a", Shared: true, Team: "data", Legacy: []string{""}, OIDC: []match{{}}, MayBe: []string{"z"}}},
			want: []string{
				`principal "oidc:a" is shared, so it has no OIDC identity of its own: list the principals it may turn into under may_be`,
				`principal "oidc:a" is shared, so its team comes from the companion token: leave team out`,
				`principal "oidc:a": a legacy identity is empty`,
				`principal "oidc:a": an oidc entry needs a subject or claims`,
				`principal "oidc:a": the prefixes legacy: and oidc: are reserved for principals without an entry`,
				`shared principal "oidc:a" may be "z", which has no entry`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // in either order
				d, err := identity.NewDirectory(tt.entries, tt.rules)
				if err == nil || d != nil {
					t.Fatalf("accepted: %v, %v", d, err)
				}
				if diff := cmp.Diff(tt.want, strings.Split(err.Error(), "\n")); diff != "" {
					t.Errorf("mismatch (-want +got):\n%s", diff)
				}
				slices.Reverse(tt.entries)
			}
		})
	}
}

func TestNewDirectoryAccepts(t *testing.T) {
	type match = identity.TokenMatch
	for name, entries := range map[string][]identity.Entry{
		"nothing":                      nil,
		"an entry of nothing but name": {{Name: "a"}},
		"one subject at two issuers": {
			{Name: "a", OIDC: []match{{Issuer: okta, Subject: "x"}}},
			{Name: "b", OIDC: []match{{Issuer: keycloak, Subject: "x"}}},
		},
		"one subject told apart by a claim": {
			{Name: "a", OIDC: []match{{Subject: "x", Claims: map[string]string{"env": "prod"}}}},
			{Name: "b", OIDC: []match{{Subject: "x", Claims: map[string]string{"env": "test"}}}},
		},
		"a subject and, less exact, claims alone": {
			{Name: "a", OIDC: []match{{Subject: "x"}}},
			{Name: "b", OIDC: []match{{Claims: map[string]string{"env": "prod"}}}},
		},
		"one identity twice in one entry": {
			{Name: "a", Legacy: []string{"x", "x"}, OIDC: []match{{Subject: "x"}, {Subject: "x"}}},
		},
		"a shared principal that says it is unassigned": {
			{Name: "a", Shared: true, Team: identity.Unassigned, MayBe: []string{"b"}}, {Name: "b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := identity.NewDirectory(entries, identity.ClaimRules{}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestADirectoryDoesNotFollowItsArguments(t *testing.T) {
	roles := []identity.Role{"viewer", "runner"}
	d := directory(t, identity.ClaimRules{}, identity.Entry{Name: "a", Legacy: []string{"a"}, Roles: roles})
	if roles[0] != "viewer" {
		t.Error("NewDirectory sorted the caller's roles")
	}
	roles[1] = "admin"
	if p, _ := d.Legacy("a"); !slices.Equal(p.Roles, []identity.Role{"runner", "viewer"}) {
		t.Errorf("roles %q", p.Roles)
	}
}
