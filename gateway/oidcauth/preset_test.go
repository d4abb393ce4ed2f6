package oidcauth_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
)

const (
	entraID = "8f5c2a1e-3b7d-4c7e-9d55-1f0c2b6a9e10"
	appID   = "2d4d11a2-f814-46a7-890a-274a72a7309e"
)

// The tokens below have the claims that each provider documents, with invented
// values.
var (
	oktaAccess = object{
		"ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE", "iss": "https://acme.okta.com/oauth2/luigi",
		"aud": "api://luigi", "iat": at(0), "exp": at(time.Hour), "cid": "0oa9z8y7", "scp": []string{"luigi.run"}, "sub": "0oa9z8y7",
	}
	oktaID = object{
		"ver": 1, "jti": "ID.4eAWJOCMB3SX8XewDfVR", "iss": "https://acme.okta.com/oauth2/luigi", "aud": "api://luigi", "sub": "00ub0oNGTSWTBKOLGLNR",
		"iat": at(0), "exp": at(time.Hour), "amr": []string{"pwd"}, "idp": "00ok1u7AsAkrwdZL3z0g3", "auth_time": at(0), "at_hash": "cpqKfdQA5eH891Ff5oJr_Q",
	}
	entraV2 = object{
		"aud": appID, "iss": "https://login.microsoftonline.com/" + entraID + "/v2.0", "iat": at(0), "nbf": at(0), "exp": at(75 * time.Minute),
		"aio": "AXQAi", "azp": "client-1", "azpacr": "1", "oid": "b3d1c8a0", "rh": "0.AX", "roles": []string{"Luigi.Run"},
		"sub": "b3d1c8a0", "tid": entraID, "uti": "fqiB", "ver": "2.0",
	}
	entraV1 = object{
		"aud": "api://luigi", "iss": "https://sts.windows.net/" + entraID + "/", "iat": at(0), "nbf": at(0), "exp": at(75 * time.Minute),
		"appid": "client-1", "appidacr": "1", "oid": "b3d1c8a0", "sub": "b3d1c8a0", "tid": entraID, "ver": "1.0", "scp": "user_impersonation",
		"groups": []string{"3f1c"},
	}
	keycloak = object{
		"exp": at(5 * time.Minute), "iat": at(0), "jti": "9c1f", "iss": "https://sso.acme.dev/realms/data", "sub": "f:1:svc-etl", "typ": "Bearer",
		"azp": "luigi-worker", "acr": "1", "realm_access": object{"roles": []string{"luigi-runner", "offline_access"}},
		"resource_access": object{"luigi.api": object{"roles": []string{"run"}}}, "scope": "email profile", "email_verified": false,
	}
	google = object{
		"iss": "accounts.google.com", "azp": "1095", "aud": "https://luigi.acme.dev", "sub": "110169484474386276334", "email": "svc-etl@acme.iam.gserviceaccount.com",
		"email_verified": true, "iat": at(0), "exp": at(time.Hour), "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q", "hd": "acme.dev",
	}
	cognitoAccess = object{
		"sub": "aaaaaaaa-bbbb", "cognito:groups": []string{"data"}, "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE", "version": 2,
		"client_id": "3n4b5urk1ft4fl3mg5e62d9ado", "token_use": "access", "scope": "luigi/run", "auth_time": at(0), "exp": at(time.Hour), "iat": at(0), "jti": "d6", "username": "svc-etl",
	}
	github = object{
		"jti": "example-id", "sub": "repo:acme/pipelines:ref:refs/heads/main", "aud": "luigi", "ref": "refs/heads/main", "repository": "acme/pipelines",
		"repository_owner": "acme", "repository_id": "74", "run_id": "1", "workflow": "nightly", "event_name": "schedule", "ref_protected": "true",
		"iss": "https://token.actions.githubusercontent.com", "nbf": at(-5 * time.Minute), "iat": at(0), "exp": at(5 * time.Minute),
	}
	kubernetes = object{
		"aud": []string{"luigi"}, "iss": "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE", "iat": at(0), "nbf": at(0), "exp": at(time.Hour),
		"jti": "ea28ed49", "sub": "system:serviceaccount:data:etl",
		"kubernetes.io": object{
			"namespace": "data", "node": object{"name": "n1", "uid": "1"}, "pod": object{"name": "etl-1", "uid": "2"},
			"serviceaccount": object{"name": "etl", "uid": "3"}, "warnafter": 1,
		},
	}
)

func TestPresetsReadWhatTheirProvidersSend(t *testing.T) {
	access := object{"typ": nil}
	clientOf := []string{"3n4b5urk1ft4fl3mg5e62d9ado"}
	cases := []struct {
		name   string
		issuer oidcauth.Issuer
		header object
		claims object
		want   []identity.Reason
		match  map[string]string // further claims that name the principal
		client string
		groups []string
		email  string
	}{
		{
			name:   "okta: an access token names its client in cid and has no typ",
			issuer: oidcauth.Issuer{URL: "https://acme.okta.com/oauth2/luigi", Audiences: []string{"api://luigi"}, AuthorizedParties: []string{"0oa9z8y7"}, Scopes: []string{"luigi.run"}},
			header: access, claims: oktaAccess, client: "0oa9z8y7",
		},
		{
			name:   "okta: groups come from a claim that the server adds",
			issuer: oidcauth.Issuer{URL: "https://acme.okta.com/oauth2/luigi", Audiences: []string{"api://luigi"}},
			header: access, claims: oktaAccess.with(object{"groups": []string{"data", "luigi-operators"}}), client: "0oa9z8y7",
			match: map[string]string{"groups": "luigi-operators"}, groups: []string{"data", "luigi-operators"},
		},
		{
			name:   "okta: an ID token is not an access token",
			issuer: oidcauth.Issuer{URL: "https://acme.okta.com/oauth2/luigi", Audiences: []string{"api://luigi"}},
			header: access, claims: oktaID, want: []identity.Reason{identity.IDTokenAsAccess},
		},
		{
			name:   "okta: tokens of the org server are Okta's own",
			issuer: oidcauth.Issuer{URL: "https://acme.okta.com", Audiences: []string{"https://acme.okta.com"}},
			header: object{"typ": "application/okta-internal-at+jwt"},
			claims: oktaAccess.with(object{"iss": "https://acme.okta.com", "aud": "https://acme.okta.com"}),
			want:   []identity.Reason{identity.TypMismatch}, client: "0oa9z8y7",
		},
		{
			name:   "entra: a v2 token of an application has roles and its GUID as audience",
			issuer: oidcauth.Issuer{URL: entraV2["iss"].(string), Audiences: []string{appID}},
			claims: entraV2, client: "client-1", groups: []string{"Luigi.Run"}, match: map[string]string{"roles": "Luigi.Run"},
		},
		{
			name:   "entra: a v1 token has another issuer, another audience and appid",
			issuer: oidcauth.Issuer{URL: entraV1["iss"].(string), Audiences: []string{"api://luigi"}, Scopes: []string{"user_impersonation"}},
			claims: entraV1, client: "client-1", groups: []string{"3f1c"},
		},
		{
			name:   "entra: where v2 is configured, a v1 token comes from an unknown issuer",
			issuer: oidcauth.Issuer{URL: entraV2["iss"].(string), Audiences: []string{appID}},
			claims: entraV1, want: []identity.Reason{identity.IssuerUnknown}, client: "",
		},
		{
			name:   "entra: the tenant of the URL is demanded without further configuration",
			issuer: oidcauth.Issuer{URL: entraV2["iss"].(string), Audiences: []string{appID}},
			claims: entraV2.with(object{"tid": "9188040d-6c67-4c5b-b112-36a304b66dad"}), want: []identity.Reason{identity.TenantMismatch}, client: "client-1", groups: []string{"Luigi.Run"},
		},
		{
			name:   "entra: too many groups are left out and said to be elsewhere",
			issuer: oidcauth.Issuer{URL: entraV2["iss"].(string), Audiences: []string{appID}, RequireGroups: true},
			claims: entraV2.with(object{
				"roles": nil, "_claim_names": object{"groups": "src1"},
				"_claim_sources": object{"src1": object{"endpoint": "https://graph.windows.net/t/users/u/getMemberObjects"}},
			}),
			want: []identity.Reason{identity.GroupsOverage}, client: "client-1",
		},
		{
			name:   "entra: an entry by subject needs no groups, so their absence harms nobody",
			issuer: oidcauth.Issuer{URL: entraV2["iss"].(string), Audiences: []string{appID}},
			claims: entraV2.with(object{"hasgroups": true}), client: "client-1", groups: []string{"Luigi.Run"},
		},
		{
			name:   "entra: an address that the tenant may have invented is not shown",
			issuer: oidcauth.Issuer{URL: entraV2["iss"].(string), Audiences: []string{appID}},
			claims: entraV2.with(object{"email": "ceo@acme.dev"}), client: "client-1", groups: []string{"Luigi.Run"},
		},
		{
			name:   "entra: an address is no subject unless it is proven",
			issuer: oidcauth.Issuer{URL: entraV2["iss"].(string), Audiences: []string{appID}, SubjectClaim: "email"},
			claims: entraV2.with(object{"email": "ceo@acme.dev"}), want: []identity.Reason{identity.EmailUnverified}, client: "client-1", groups: []string{"Luigi.Run"},
		},
		{
			name:   "keycloak: without aud the client binds the token",
			issuer: oidcauth.Issuer{URL: "https://sso.acme.dev/realms/data", AuthorizedParties: []string{"luigi-worker"}},
			claims: keycloak, client: "luigi-worker", groups: []string{"luigi-runner", "offline_access"},
			match: map[string]string{"realm_access.roles": "luigi-runner", "resource_access.luigi.api.roles": "run", "groups": "luigi-runner"},
		},
		{
			name:   "keycloak: without aud another client does not",
			issuer: oidcauth.Issuer{URL: "https://sso.acme.dev/realms/data", AuthorizedParties: []string{"luigi-web"}},
			claims: keycloak, client: "luigi-worker", groups: []string{"luigi-runner", "offline_access"},
			want: []identity.Reason{identity.AudMissing, identity.AzpMismatch},
		},
		{
			name:   "keycloak: an aud that is there must be right, whatever the client is",
			issuer: oidcauth.Issuer{URL: "https://sso.acme.dev/realms/data", AuthorizedParties: []string{"luigi-worker"}, Audiences: []string{"luigi"}},
			claims: keycloak.with(object{"aud": "account"}), client: "luigi-worker", groups: []string{"luigi-runner", "offline_access"},
			want: []identity.Reason{identity.AudMismatch},
		},
		{
			name:   "keycloak: groups of a mapper come before realm roles",
			issuer: oidcauth.Issuer{URL: "https://sso.acme.dev/realms/data", AuthorizedParties: []string{"luigi-worker"}},
			claims: keycloak.with(object{"groups": []string{"/data"}}), client: "luigi-worker", groups: []string{"/data"},
		},
		{
			name:   "keycloak: an access token may hold a nonce",
			issuer: oidcauth.Issuer{URL: "https://sso.acme.dev/realms/data", AuthorizedParties: []string{"luigi-worker"}},
			claims: keycloak.with(object{"nonce": "n"}), client: "luigi-worker", groups: []string{"luigi-runner", "offline_access"},
		},
		{
			name:   "keycloak: an ID token says so",
			issuer: oidcauth.Issuer{URL: "https://sso.acme.dev/realms/data", Audiences: []string{"luigi-worker"}},
			claims: keycloak.with(object{"typ": "ID", "aud": "luigi-worker", "realm_access": nil}), client: "luigi-worker",
			want: []identity.Reason{identity.IDTokenAsAccess},
		},
		{
			name:   "keycloak: a refresh token is of another type",
			issuer: oidcauth.Issuer{URL: "https://sso.acme.dev/realms/data", AuthorizedParties: []string{"luigi-worker"}},
			claims: keycloak.with(object{"typ": "Refresh"}), client: "luigi-worker", groups: []string{"luigi-runner", "offline_access"},
			want: []identity.Reason{identity.TypMismatch},
		},
		{
			name:   "google: the issuer without scheme is the same, and an ID token is what is wanted",
			issuer: oidcauth.Issuer{URL: "https://accounts.google.com", Audiences: []string{"https://luigi.acme.dev"}, Tenants: []string{"acme.dev"}},
			claims: google, client: "1095", email: "svc-etl@acme.iam.gserviceaccount.com", match: map[string]string{"email": "svc-etl@acme.iam.gserviceaccount.com"},
		},
		{
			name:   "google: the issuer with scheme is the same",
			issuer: oidcauth.Issuer{URL: "https://accounts.google.com", Audiences: []string{"https://luigi.acme.dev"}},
			claims: google.with(object{"iss": "https://accounts.google.com"}), client: "1095", email: "svc-etl@acme.iam.gserviceaccount.com",
		},
		{
			name:   "google: an account outside the domain belongs to another tenant",
			issuer: oidcauth.Issuer{URL: "https://accounts.google.com", Audiences: []string{"https://luigi.acme.dev"}, Tenants: []string{"acme.dev"}},
			claims: google.with(object{"hd": nil}), want: []identity.Reason{identity.TenantMismatch}, client: "1095", email: "svc-etl@acme.iam.gserviceaccount.com",
		},
		{
			name:   "cognito: client_id takes the place of aud",
			issuer: oidcauth.Issuer{URL: cognitoAccess["iss"].(string), Audiences: clientOf, Scopes: []string{"luigi/run"}},
			claims: cognitoAccess, client: clientOf[0], groups: []string{"data"}, match: map[string]string{"groups": "data", "cognito:groups": "data"},
		},
		{
			name:   "cognito: another client is not for us",
			issuer: oidcauth.Issuer{URL: cognitoAccess["iss"].(string), Audiences: []string{"other"}},
			claims: cognitoAccess, want: []identity.Reason{identity.AudMissing}, client: clientOf[0], groups: []string{"data"},
		},
		{
			name:   "cognito: an ID token has aud, and is refused by its use",
			issuer: oidcauth.Issuer{URL: cognitoAccess["iss"].(string), Audiences: clientOf},
			claims: cognitoAccess.with(object{"client_id": nil, "aud": clientOf[0], "token_use": "id"}), want: []identity.Reason{identity.IDTokenAsAccess}, groups: []string{"data"},
		},
		{
			name:   "github_actions: a job is known by its repository",
			issuer: oidcauth.Issuer{URL: "https://token.actions.githubusercontent.com", Audiences: []string{"luigi"}, Tenants: []string{"acme"}},
			claims: github, match: map[string]string{"repository": "acme/pipelines", "ref": "refs/heads/main"},
		},
		{
			name:   "github_actions: the default audience is the owner's URL and not ours",
			issuer: oidcauth.Issuer{URL: "https://token.actions.githubusercontent.com", Audiences: []string{"luigi"}, Tenants: []string{"acme"}},
			claims: github.with(object{"aud": "https://github.com/evil", "repository_owner": "evil"}),
			want:   []identity.Reason{identity.AudMismatch, identity.TenantMismatch},
		},
		{
			name:   "kubernetes: names stand in a nested claim whose own name has a dot",
			issuer: oidcauth.Issuer{URL: kubernetes["iss"].(string), Audiences: []string{"luigi"}, Tenants: []string{"data"}},
			claims: kubernetes, header: object{"typ": nil}, match: map[string]string{"kubernetes.io.serviceaccount.name": "etl", "kubernetes.io.namespace": "data"},
		},
		{
			name:   "kubernetes: the namespace is the tenant",
			issuer: oidcauth.Issuer{URL: kubernetes["iss"].(string), Audiences: []string{"luigi"}, Tenants: []string{"prod"}},
			claims: kubernetes, header: object{"typ": nil}, want: []identity.Reason{identity.TenantMismatch},
		},
		{
			name:   "kubernetes: a token out of a Secret never ends and has no audience",
			issuer: oidcauth.Issuer{URL: "https://kubernetes.default.svc.cluster.local", Audiences: []string{"luigi"}},
			claims: object{
				"iss": "https://kubernetes.default.svc.cluster.local", "sub": "system:serviceaccount:data:etl",
				"kubernetes.io/serviceaccount/namespace": "data",
			},
			want: []identity.Reason{identity.ExpMissing, identity.AudMissing},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := newIDP()
			p.url = c.issuer.URL
			subject, _ := c.claims["sub"].(string)
			d, err := identity.NewDirectory([]identity.Entry{{
				Name: "svc-etl", Team: "data-eng",
				OIDC: []identity.TokenMatch{{Issuer: c.issuer.URL, Subject: subject, Claims: c.match}},
			}}, identity.ClaimRules{})
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, p, func(w *world) { w.issuer, w.options.Directory = c.issuer, d })
			a := w.judge(sign(p.keys[0], c.header, c.claims))
			if diff := cmp.Diff(c.want, a.Reasons); diff != "" {
				t.Fatalf("reasons (-want +got):\n%s%s", diff, a.Detail)
			}
			if a.OK() && (a.Principal.Name != "svc-etl" || a.Principal.Team != "data-eng") {
				t.Errorf("principal %+v", a.Principal)
			}
			if a.Primary() == identity.IssuerUnknown {
				return
			}
			got := []any{a.Token.Issuer, a.Token.ClientID, a.Token.Groups, a.Token.Email}
			if diff := cmp.Diff(fmt.Sprint([]any{c.issuer.URL, c.client, c.groups, c.email}), fmt.Sprint(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPresetsAreGuessedFromTheIssuer(t *testing.T) {
	for issuer, want := range map[string]string{
		"https://acme.okta.com/oauth2/default":                                  "okta",
		"https://acme.oktapreview.com":                                          "okta",
		"https://acme.okta.com.evil.dev":                                        "generic",
		"https://notokta.com":                                                   "generic",
		"https://login.microsoftonline.com/" + entraID + "/v2.0":                "entra",
		"https://sts.windows.net/" + entraID + "/":                              "entra",
		"https://sso.acme.dev/realms/data":                                      "keycloak",
		"https://sso.acme.dev/auth/realms/data":                                 "keycloak",
		"https://accounts.google.com":                                           "google",
		"https://cognito-idp.us-east-1.amazonaws.com/us-east-1_a":               "cognito",
		"https://token.actions.githubusercontent.com":                           "github_actions",
		"https://kubernetes.default.svc.cluster.local":                          "kubernetes",
		"https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE":                   "kubernetes",
		"https://container.googleapis.com/v1/projects/p/locations/l/clusters/c": "kubernetes",
		"https://eastus.oic.prod-aks.azure.com/t/c/":                            "kubernetes",
		"https://idp.example.com":                                               "generic",
		"accounts.google.com":                                                   "generic",
		"::":                                                                    "generic",
		"":                                                                      "generic",
	} {
		if got := oidcauth.GuessPreset(issuer); got != want {
			t.Errorf("%q is guessed as %s, want %s", issuer, got, want)
		}
	}
	want := []string{"cognito", "entra", "generic", "github_actions", "google", "keycloak", "kubernetes", "okta"}
	if diff := cmp.Diff(want, oidcauth.Presets()); diff != "" {
		t.Error(diff)
	}
}
