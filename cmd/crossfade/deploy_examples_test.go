package main

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/cmd/crossfade/app"
	"crossfade/cmd/crossfade/demo"
	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
)

const examples = "../../deploy/examples"

// example copies the example of a provider, with the password file that its first
// step puts there, and returns its configuration.
func example(t *testing.T, provider string) (file string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(examples, provider))); err != nil {
		t.Fatal(err)
	}
	htpasswd, err := demo.Htpasswd(demo.Accounts())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "luigi.htpasswd"), htpasswd, 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "crossfade.yaml")
}

func TestTheExampleOfEachProviderIsAcceptedWithoutADoubt(t *testing.T) {
	entries, err := os.ReadDir(examples)
	if err != nil {
		t.Fatal(err)
	}
	var providers []string
	for _, e := range entries {
		providers = append(providers, e.Name())
	}
	if diff := cmp.Diff([]string{"cognito", "entra", "google", "keycloak", "okta"}, providers); diff != "" {
		t.Fatal(diff)
	}
	for _, provider := range providers {
		t.Run(provider, func(t *testing.T) {
			file := example(t, provider)
			var report struct {
				OK                 bool
				Mistakes, Warnings []config.Mistake
			}
			got := run(t, "check", file, "-o", "json").want(t, exitOK)
			if err := json.Unmarshal([]byte(got.stdout), &report); err != nil {
				t.Fatal(err)
			}
			if !report.OK || len(report.Mistakes)+len(report.Warnings) > 0 {
				t.Errorf("%+v", report)
			}
			c, err := config.Load(config.Source{File: file, Reasons: app.Reasons()})
			if err != nil {
				t.Fatal(err)
			}
			if len(c.OIDC.Issuers) != 1 || oidcauth.GuessPreset(c.OIDC.Issuers[0].Issuer) != provider {
				t.Errorf("the preset of the issuer is another one: %+v", c.OIDC.Issuers)
			}
			teams, mistakes, err := config.LoadTeamFiles(string(c.Rollout.Dir), config.TeamOptions{
				Teams: []string{"billing", "data-eng"}, Reasons: app.Reasons(), Platform: &c.Readiness,
			})
			if err != nil || len(mistakes) > 0 || len(teams) != 2 {
				t.Errorf("%d teams, %v, %v", len(teams), mistakes, err)
			}
		})
	}
}

// claims are what a token says.
type claims map[string]any

func (c claims) with(more claims) claims {
	all := maps.Clone(c)
	maps.Copy(all, more)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

// unsigned is a token with a signature that nobody looks at.
func (c claims) unsigned(t *testing.T, header claims) string {
	t.Helper()
	part := func(v claims) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	return part(header) + "." + part(c) + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 256))
}

// TestTheExamplesReadWhatTheirProvidersSend judges tokens with the claims that the
// providers document, as far as that goes without the providers' keys: the account that
// an example maps is found, and each trap that its comments warn of has that reason.
func TestTheExamplesReadWhatTheirProvidersSend(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	base := claims{"iat": at(0), "exp": at(5 * time.Minute), "jti": "1"}
	okta := base.with(claims{
		"iss": "https://acme.okta.com/oauth2/luigi", "aud": "api://luigi", "jti": "AT.1", "cid": "0oa1b2c3d4e5f6", "sub": "0oa1b2c3d4e5f6", "scp": []string{"luigi.run"},
	})
	const tenant = "8f5c2a1e-3b7d-4c7e-9d55-1f0c2b6a9e10"
	entra := base.with(claims{
		"iss": "https://login.microsoftonline.com/" + tenant + "/v2.0", "tid": tenant, "aud": "2d4d11a2-f814-46a7-890a-274a72a7309e", "ver": "2.0", "azp": "c1", "azpacr": "1",
		"oid": "b3d1c8a0-6c1f-4d0e-8a52-0b8b7f6d2c11", "sub": "b3d1c8a0-6c1f-4d0e-8a52-0b8b7f6d2c11", "roles": []string{"Luigi.Run"}, "nbf": at(0),
	})
	keycloak := base.with(claims{
		"iss": "https://sso.acme.dev/realms/data", "aud": []string{"luigi", "account"}, "typ": "Bearer", "azp": "luigi-etl", "sub": "5a3c0c0e-7a55-4c1b-9a86-4d3a3f6b0a11",
		"preferred_username": "service-account-luigi-etl", "realm_access": claims{"roles": []string{"offline_access"}}, "scope": "email profile", "email_verified": false,
	})
	google := base.with(claims{
		"iss": "https://accounts.google.com", "aud": "https://luigi.acme.dev", "azp": "110169484474386276334", "sub": "110169484474386276334", "exp": at(time.Hour),
	})
	cognito := base.with(claims{
		"iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE", "client_id": "3n4b5urk1ft4fl3mg5e62d9ado", "sub": "3n4b5urk1ft4fl3mg5e62d9ado",
		"token_use": "access", "scope": "luigi/run", "version": 2,
	})

	files := map[string]string{}
	for _, provider := range []string{"okta", "entra", "keycloak", "google", "cognito"} {
		files[provider] = example(t, provider)
	}
	etl := oidcauth.InspectedPrincipal{Name: "svc-etl", Team: "data-eng", Roles: []identity.Role{"runner"}, Mapped: true}
	for name, tc := range map[string]struct {
		claims claims
		typ    string // of the header, "" is none
		want   []identity.Reason
		is     oidcauth.InspectedPrincipal // without its name: somebody without an entry
	}{
		"okta: a client":                               {okta, "", nil, etl},
		"okta: a person by groups":                     {okta.with(claims{"sub": "ada@acme.dev", "uid": "00u1", "groups": []string{"luigi-operators", "data-engineers"}}), "", nil, oidcauth.InspectedPrincipal{Team: "data-eng", Roles: []identity.Role{"operator", "runner"}}},
		"okta: without the scope":                      {okta.with(claims{"scp": nil}), "", []identity.Reason{identity.InsufficientScope}, etl},
		"okta: an ID token":                            {okta.with(claims{"jti": "ID.1"}), "", []identity.Reason{identity.IDTokenAsAccess}, etl},
		"entra: an application":                        {entra, "JWT", nil, etl},
		"entra: a person by app roles":                 {entra.with(claims{"oid": "7", "sub": "pairwise", "roles": []string{"Luigi.Operator"}}), "JWT", nil, oidcauth.InspectedPrincipal{Team: identity.Unassigned, Roles: []identity.Role{"operator"}}},
		"entra: an application without any assignment": {entra.with(claims{"roles": nil}), "JWT", []identity.Reason{identity.GroupsMissing}, etl},
		"entra: the audience as the client asked":      {entra.with(claims{"aud": "api://luigi"}), "JWT", []identity.Reason{identity.AudMismatch}, etl},
		"entra: too many groups": {
			entra.with(claims{"roles": nil, "_claim_names": claims{"groups": "src1"}}), "JWT", []identity.Reason{identity.GroupsOverage}, etl,
		},
		"keycloak: a service account":                       {keycloak, "JWT", nil, etl},
		"keycloak: a person who came in by the same client": {keycloak.with(claims{"preferred_username": "ada", "groups": []string{"/data-eng"}, "realm_access": claims{"roles": []string{"luigi-operator"}}}), "JWT", nil, oidcauth.InspectedPrincipal{Team: "data-eng", Roles: []identity.Role{"operator"}}},
		"keycloak: no audience mapper":                      {keycloak.with(claims{"aud": nil}), "JWT", []identity.Reason{identity.AudMissing}, etl},
		"keycloak: the audience of its account client":      {keycloak.with(claims{"aud": "account"}), "JWT", []identity.Reason{identity.AudMismatch}, etl},
		"keycloak: without the scope basic":                 {keycloak.with(claims{"sub": nil}), "JWT", []identity.Reason{identity.SubjectMissing}, oidcauth.InspectedPrincipal{}},
		"google: a service account":                         {google, "JWT", nil, etl},
		"google: somebody else's service account":           {google.with(claims{"sub": "999"}), "JWT", []identity.Reason{identity.PrincipalUnmapped}, oidcauth.InspectedPrincipal{}},
		"google: a person's token of gcloud":                {google.with(claims{"aud": "32555940559.apps.googleusercontent.com"}), "JWT", []identity.Reason{identity.AudMismatch}, etl},
		"cognito: a client":                                 {cognito, "", nil, etl},
		"cognito: another service's client":                 {cognito.with(claims{"client_id": "other", "sub": "other", "scope": "finance/read"}), "", []identity.Reason{identity.AudMissing, identity.AzpMismatch, identity.PrincipalUnmapped, identity.InsufficientScope}, oidcauth.InspectedPrincipal{}},
		"cognito: an ID token":                              {cognito.with(claims{"client_id": nil, "aud": "3n4b5urk1ft4fl3mg5e62d9ado", "token_use": "id"}), "", nil, oidcauth.InspectedPrincipal{}},
	} {
		t.Run(name, func(t *testing.T) {
			provider, _, _ := strings.Cut(name, ":")
			header := claims{"alg": "RS256", "kid": "1"}
			if tc.typ != "" {
				header["typ"] = tc.typ
			}
			got := with{stdin: tc.claims.unsigned(t, header)}.run(t, "token", "inspect", "-", "--offline", "-o", "json", "--config", files[provider])
			var in oidcauth.Inspection
			if err := json.Unmarshal([]byte(got.stdout), &in); err != nil {
				t.Fatalf("%v: %v", err, got)
			}
			var reasons []identity.Reason
			for _, f := range in.Findings {
				reasons = append(reasons, f.Reason)
			}
			if name == "cognito: an ID token" { // in which other checks fail as well
				if !slices.Contains(reasons, identity.IDTokenAsAccess) {
					t.Errorf("%v", reasons)
				}
				return
			}
			if diff := cmp.Diff(tc.want, reasons); diff != "" {
				t.Errorf("reasons (- want, + got):\n%s", diff)
			}
			is := oidcauth.InspectedPrincipal{}
			if in.Principal != nil {
				is = *in.Principal
				slices.Sort(is.Roles)
			}
			if !is.Mapped {
				is.Name = ""
			}
			if diff := cmp.Diff(tc.is, is); diff != "" {
				t.Errorf("it is (- want, + got):\n%s", diff)
			}
		})
	}
}
