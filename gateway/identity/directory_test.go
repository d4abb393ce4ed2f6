package identity_test

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
)

const (
	okta     = "https://acme.okta.com/oauth2/luigi"
	keycloak = "https://sso.acme.dev/realms/data"
)

// claims are the string claims of a token.
type claims map[string][]string

func tokenOf(issuer, subject string, c claims) identity.TokenIdentity {
	return identity.TokenIdentity{Issuer: issuer, Subject: subject, Claim: func(name string) []string { return c[name] }}
}

func directory(t *testing.T, rules identity.ClaimRules, entries ...identity.Entry) *identity.Directory {
	t.Helper()
	d, err := identity.NewDirectory(entries, rules)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// acme is the directory of most tests: each kind of entry once.
func acme(t *testing.T) *identity.Directory {
	return directory(t,
		identity.ClaimRules{
			Roles: map[string]map[string]identity.Role{"groups": {"luigi-operators": "operator", "luigi-ops": "operator", "everyone": "viewer"}},
			Teams: map[string]map[string]identity.Team{"department": {"d-ml": "ml", "d-ml-2": "ml", "d-web": "web"}},
		},
		identity.Entry{
			Name: "svc-etl", Team: "data", Legacy: []string{"svc-etl", "etl-key"}, Roles: []identity.Role{"viewer", "runner", "viewer"},
			OIDC: []identity.TokenMatch{{Subject: "0oa1b2c3"}, {Issuer: keycloak, Subject: "etl"}},
		},
		identity.Entry{
			Name: "svc-plain", Team: "data", Legacy: []string{"svc-plain"},
			OIDC: []identity.TokenMatch{{Issuer: okta, Subject: "0oaplain"}},
		},
		identity.Entry{
			Name: "actions", Team: "ml", Roles: []identity.Role{"runner"},
			OIDC: []identity.TokenMatch{{Claims: map[string]string{"repository": "acme/ml", "ref": "refs/heads/main"}}},
		},
		identity.Entry{Name: "cron", Legacy: []string{"cron"}, Roles: []identity.Role{"runner"}, Shared: true, MayBe: []string{"svc-etl", "actions"}},
		identity.Entry{Name: "homeless", Legacy: []string{"homeless"}, OIDC: []identity.TokenMatch{{Subject: "nobody"}}},
	)
}

func TestDirectoryLegacy(t *testing.T) {
	d := acme(t)
	etl := identity.Principal{Name: "svc-etl", Team: "data", Roles: []identity.Role{"runner", "viewer"}, Mapped: true}
	unmapped := func(owner string) identity.Principal {
		return identity.Principal{Name: "legacy:" + owner, Team: identity.Unassigned}
	}
	for name, tt := range map[string]struct {
		d     *identity.Directory
		owner string
		want  identity.Principal
		mayBe []string
	}{
		"a legacy identity is its entry's principal, with sorted roles": {d, "svc-etl", etl, nil},
		"a second legacy identity is the same principal":                {d, "etl-key", etl, nil},
		"an entry without roles has none by legacy":                     {d, "svc-plain", identity.Principal{Name: "svc-plain", Team: "data", Mapped: true}, nil},
		"an entry without a team is unassigned but mapped":              {d, "homeless", identity.Principal{Name: "homeless", Team: identity.Unassigned, Mapped: true}, nil},
		"a shared credential is unassigned and says what it may be": {
			d, "cron",
			identity.Principal{Name: "cron", Team: identity.Unassigned, Roles: []identity.Role{"runner"}, Mapped: true},
			[]string{"svc-etl", "actions"},
		},
		"nobody's legacy identity is unassigned under its own name": {d, "svc-billing", unmapped("svc-billing"), nil},
		"names are compared exactly":                                {d, "SVC-ETL", unmapped("SVC-ETL"), nil},
		"an entry that lists no legacy identity owns none":          {d, "actions", unmapped("actions"), nil},
		"a directory without entries maps nobody":                   {directory(t, identity.ClaimRules{}), "svc-etl", unmapped("svc-etl"), nil},
		"the nil directory maps nobody":                             {nil, "svc-etl", unmapped("svc-etl"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, mayBe := tt.d.Legacy(tt.owner)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("principal (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.mayBe, mayBe); diff != "" {
				t.Errorf("may be (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDirectoryToken(t *testing.T) {
	d := acme(t)
	empty := directory(t, identity.ClaimRules{})
	stranger := func(team identity.Team, roles ...identity.Role) identity.Principal {
		return identity.Principal{Name: "oidc:ann@acme.okta.com/oauth2/luigi", Team: team, Roles: roles}
	}
	unassigned := identity.Unassigned
	etl := identity.Principal{Name: "svc-etl", Team: "data", Roles: []identity.Role{"runner", "viewer"}, Mapped: true}
	actions := identity.Principal{Name: "actions", Team: "ml", Roles: []identity.Role{"runner"}, Mapped: true}
	plain := func(roles ...identity.Role) identity.Principal {
		return identity.Principal{Name: "svc-plain", Team: "data", Roles: roles, Mapped: true}
	}
	push := claims{"repository": {"acme/ml"}, "ref": {"refs/heads/main"}}
	with := func(c claims, name string, values ...string) claims {
		c = maps.Clone(c)
		c[name] = values
		return c
	}

	for name, tt := range map[string]struct {
		d      *identity.Directory
		token  identity.TokenIdentity
		want   identity.Principal
		reason identity.Reason
	}{
		"a subject without an issuer is known from any issuer":          {d, tokenOf(okta, "0oa1b2c3", nil), etl, ""},
		"any one match of an entry suffices":                            {d, tokenOf(keycloak, "etl", nil), etl, ""},
		"a subject bound to an issuer means nobody at another":          {d, tokenOf("https://idp", "etl", nil), identity.Principal{Name: "oidc:etl@idp", Team: unassigned}, identity.PrincipalUnmapped},
		"claims that all hold mean the entry, whatever the subject":     {d, tokenOf(okta, "repo:acme/ml", push), actions, ""},
		"one of several values of a claim suffices":                     {d, tokenOf(okta, "x", with(push, "ref", "a", "refs/heads/main")), actions, ""},
		"one claim that does not hold means nobody":                     {d, tokenOf(okta, "ann", with(push, "ref", "refs/heads/x")), stranger(unassigned), identity.PrincipalUnmapped},
		"an absent claim means nobody":                                  {d, tokenOf(okta, "ann", claims{"repository": {"acme/ml"}}), stranger(unassigned), identity.PrincipalUnmapped},
		"a token whose claims cannot be read is known by subject alone": {d, identity.TokenIdentity{Issuer: okta, Subject: "0oa1b2c3"}, etl, ""},
		"an entry that names the subject outranks one by claims":        {d, tokenOf(okta, "0oa1b2c3", push), etl, ""},

		"an entry with roles keeps exactly those":                    {d, tokenOf(okta, "0oa1b2c3", claims{"groups": {"luigi-operators"}}), etl, ""},
		"an entry without roles takes those of the claim rules":      {d, tokenOf(okta, "0oaplain", claims{"groups": {"luigi-operators", "other", "everyone", "luigi-ops"}}), plain("operator", "viewer"), ""},
		"an entry without roles and a token without groups has none": {d, tokenOf(okta, "0oaplain", nil), plain(), ""},
		"an entry keeps its team, whatever the claims say":           {d, tokenOf(okta, "0oaplain", claims{"department": {"d-web", "d-ml"}}), plain(), ""},

		"people without an entry get team and roles from claims": {d, tokenOf(okta, "ann", claims{"groups": {"everyone", "luigi-operators"}, "department": {"d-ml"}}), stranger("ml", "operator", "viewer"), ""},
		"roles from two claim values stand once":                 {d, tokenOf(okta, "ann", claims{"groups": {"luigi-ops", "luigi-operators"}, "department": {"d-ml"}}), stranger("ml", "operator"), ""},
		"a team without a role is enough to be known":            {d, tokenOf(okta, "ann", claims{"department": {"d-web"}}), stranger("web"), ""},
		"a role without a team is unassigned":                    {d, tokenOf(okta, "ann", claims{"groups": {"everyone"}}), stranger(unassigned, "viewer"), ""},
		"two claim values for one team are one team":             {d, tokenOf(okta, "ann", claims{"department": {"d-ml", "d-ml-2"}}), stranger("ml"), ""},
		"two teams by claims are no team":                        {d, tokenOf(okta, "ann", claims{"department": {"d-ml", "d-web"}}), stranger(unassigned), identity.TeamUnmapped},
		"claims that no rule knows mean nobody":                  {d, tokenOf(okta, "ann", claims{"groups": {"marketing"}}), stranger(unassigned), identity.PrincipalUnmapped},
		"claim values are compared exactly":                      {d, tokenOf(okta, "ann", claims{"groups": {"Everyone"}}), stranger(unassigned), identity.PrincipalUnmapped},

		"without entries and rules everyone is unassigned": {empty, tokenOf(okta, "ann", claims{"groups": {"everyone"}}), stranger(unassigned), ""},
		"the nil directory maps nobody":                    {nil, tokenOf(okta, "ann", nil), stranger(unassigned), ""},
		"an issuer that is no URL keeps its name":          {nil, tokenOf("accounts.google.com", "1", nil), identity.Principal{Name: "oidc:1@accounts.google.com", Team: unassigned}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, reason := tt.d.Token(tt.token)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("principal (-want +got):\n%s", diff)
			}
			if reason != tt.reason {
				t.Errorf("reason %q, want %q", reason, tt.reason)
			}
		})
	}
}

func TestBothIdentitiesOfAnEntryAreOnePrincipal(t *testing.T) {
	d := acme(t)
	legacy, _ := d.Legacy("svc-etl")
	token, reason := d.Token(tokenOf(okta, "0oa1b2c3", claims{"groups": {"luigi-operators"}, "department": {"d-web"}}))
	if reason != "" {
		t.Fatal(reason)
	}
	if diff := cmp.Diff(legacy, token); diff != "" {
		t.Errorf("mismatch (-legacy +token):\n%s", diff)
	}
}

func TestASharedCredentialMayBeWhomACompanionNames(t *testing.T) {
	d := acme(t)
	_, mayBe := d.Legacy("cron")
	token, reason := d.Token(tokenOf(okta, "x", claims{"repository": {"acme/ml"}, "ref": {"refs/heads/main"}}))
	if reason != "" || len(mayBe) != 2 || mayBe[1] != token.Name || token.Team != "ml" {
		t.Errorf("the companion is %+v (%s), the credential may be %q", token, reason, mayBe)
	}
}

func TestRolesByClaimsDoNotStayWithTheEntry(t *testing.T) {
	d := acme(t)
	if p, _ := d.Token(tokenOf(okta, "0oaplain", claims{"groups": {"luigi-operators"}})); len(p.Roles) != 1 {
		t.Fatalf("roles %q", p.Roles)
	}
	if p, _ := d.Token(tokenOf(okta, "0oaplain", nil)); len(p.Roles) != 0 {
		t.Errorf("the next token inherits the roles %q", p.Roles)
	}
}

func TestDirectoryTeams(t *testing.T) {
	for name, tt := range map[string]struct {
		d    *identity.Directory
		want []identity.Team
	}{
		"entries, rules and the unassigned": {acme(t), []identity.Team{"data", "ml", "unassigned", "web"}},
		"no entries":                        {directory(t, identity.ClaimRules{}), []identity.Team{"unassigned"}},
		"the nil directory":                 {nil, []identity.Team{"unassigned"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.d.Teams()); diff != "" {
				t.Errorf("mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDirectoryEntriesAreSortedByName(t *testing.T) {
	var names []string
	for _, e := range acme(t).Entries() {
		names = append(names, e.Name)
	}
	if diff := cmp.Diff([]string{"actions", "cron", "homeless", "svc-etl", "svc-plain"}, names); diff != "" {
		t.Errorf("mismatch (-want +got):\n%s", diff)
	}
	var none *identity.Directory
	if got := none.Entries(); got != nil {
		t.Errorf("the nil directory has entries: %v", got)
	}
}
