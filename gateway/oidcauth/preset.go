package oidcauth

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// preset is what is peculiar to a provider. Everything in it can be overridden
// by a field of Issuer, except the heuristics about ID tokens.
type preset struct {
	name string
	// host reports whether an issuer URL is this provider's.
	host func(*url.URL) bool
	// check finds issuer URLs that cannot work.
	check func(*url.URL) error
	// alias is a second spelling of iss that the provider uses.
	alias func(*url.URL) string

	// types are the accepted values of the header typ beside an absent one.
	types []string
	// payloadTypes are the accepted values of a payload claim typ; nil accepts
	// all, because the claim is not registered.
	payloadTypes []string
	// idToken says why a token is an ID token; "" if it is not known to be one.
	idToken func(*token) string
	// idTokens is set where ID tokens are what workloads present.
	idTokens bool

	// clients are the claims that name the client, the first one wins.
	clients []string
	// standIns are claims that may take the place of an absent aud.
	standIns []string
	// tenantClaim is what Issuer.Tenants is compared with.
	tenantClaim string
	// tenant is the one tenant that an issuer URL belongs to.
	tenant func(*url.URL) string

	// groups are the groups claims, the first one that is present wins.
	groups []string
	// provenEmail demands email_verified to be there and true, where the
	// provider lets tenants set any address.
	provenEmail bool
}

// jwtTypes are accepted by default. RFC 9068 section 4 wants at+jwt; most
// providers still send JWT (RFC 7519 section 5.1) or nothing.
var jwtTypes = []string{"JWT", "at+jwt"}

// presets are in the order in which GuessPreset tries them; generic is last.
var presets = [...]preset{
	{
		// Access tokens of a custom authorization server have no typ and carry
		// cid, uid and scp; the jti of an access token begins with "AT.", that
		// of an ID token with "ID." Tokens of the org authorization server have
		// the typ application/okta-internal-at+jwt and are Okta's own: only Okta
		// may validate them, so that typ is not accepted.
		// https://developer.okta.com/docs/api/openapi/okta-oauth/guides/overview/
		// https://support.okta.com/help/s/article/the-typ-field-is-missing-from-the-access-token-header
		name: "okta",
		host: inDomain("okta.com", "oktapreview.com", "okta-emea.com", "okta-gov.com", "okta.mil"),
		idToken: func(t *token) string {
			if strings.HasPrefix(t.jti, "ID.") {
				return "its jti begins with ID., as Okta's ID tokens do"
			}
			return frontChannel(t)
		},
		clients: []string{"cid", "azp", "client_id"},
	},
	{
		// v1 tokens come from https://sts.windows.net/<tenant>/ with appid and
		// the application's URI as aud, v2 tokens from
		// https://login.microsoftonline.com/<tenant>/v2.0 with azp and its GUID.
		// Which one an API gets is the choice of its own registration
		// (requestedAccessTokenVersion), whatever endpoint the client used. Above
		// 200 groups the claim is left out and _claim_names or hasgroups point
		// elsewhere. E-mail addresses can be set by any tenant's administrator
		// and are unverified unless the token says otherwise.
		// https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference
		// https://learn.microsoft.com/en-us/entra/identity-platform/claims-validation
		name: "entra",
		host: inDomain("login.microsoftonline.com", "sts.windows.net", "login.microsoftonline.us",
			"login.partner.microsoftonline.cn", "sts.chinacloudapi.cn", "ciamlogin.com"),
		check:       checkEntra,
		idToken:     frontChannel,
		clients:     []string{"azp", "appid", "client_id"},
		tenantClaim: "tid",
		tenant:      entraTenant,
		groups:      []string{"groups", "roles"},
		provenEmail: true,
	},
	{
		// The header typ is JWT for all tokens; the payload's typ tells them
		// apart (Bearer, ID, Refresh, Offline, Logout). aud is left out while no
		// audience mapper adds one, and azp names the client. Older versions put
		// nonce into access tokens too, so it proves nothing here. Realm roles
		// stand in realm_access.roles, those of a client in
		// resource_access.<client>.roles, groups only with a mapper.
		// https://www.keycloak.org/docs/latest/server_admin/#audience-support
		// https://www.keycloak.org/docs/latest/server_admin/#_role_scope_mappings
		name:         "keycloak",
		host:         func(u *url.URL) bool { return strings.Contains(u.Path, "/realms/") },
		payloadTypes: []string{"Bearer", "DPoP"},
		idToken: func(t *token) string {
			if v, _ := t.claims.first("typ"); v == "ID" {
				return "its claim typ is ID, as in Keycloak's ID tokens"
			}
			return ""
		},
		clients:  []string{"azp", "client_id"},
		standIns: []string{"azp"},
		groups:   []string{"groups", "realm_access.roles"},
	},
	{
		// Google's access tokens are opaque: ID tokens are what service accounts
		// present. iss may lack its scheme. hd is the Workspace domain.
		// https://developers.google.com/identity/openid-connect/openid-connect#an-id-tokens-payload
		// https://cloud.google.com/docs/authentication/token-types#id
		name:        "google",
		host:        func(u *url.URL) bool { return u.Hostname() == "accounts.google.com" },
		alias:       func(u *url.URL) string { return strings.TrimPrefix(u.String(), "https://") },
		idTokens:    true,
		tenantClaim: "hd",
	},
	{
		// Access tokens have client_id and no aud, ID tokens aud and no
		// client_id; token_use tells them apart. Groups are cognito:groups.
		// https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-tokens-verifying-a-jwt.html
		// https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html
		name: "cognito",
		host: func(u *url.URL) bool {
			return strings.HasPrefix(u.Hostname(), "cognito-idp.") &&
				inDomain("amazonaws.com", "amazonaws.com.cn")(u)
		},
		idToken: func(t *token) string {
			if v, _ := t.claims.first("token_use"); v == "id" {
				return "its token_use is id, as in Cognito's ID tokens"
			}
			return ""
		},
		clients:  []string{"client_id", "azp"},
		standIns: []string{"client_id"},
		groups:   []string{"cognito:groups"},
	},
	{
		// One token per job, good for some minutes; sub holds repository and ref
		// or environment. The default aud is the owner's URL, so workflows must
		// ask for ours. There are no access tokens.
		// https://docs.github.com/en/actions/reference/security/oidc
		name:        "github_actions",
		host:        inDomain("token.actions.githubusercontent.com"),
		idTokens:    true,
		tenantClaim: "repository_owner",
	},
	{
		// Projected service account tokens: sub is
		// system:serviceaccount:<namespace>:<name>, names stand in the claim
		// kubernetes.io. Legacy tokens in Secrets have no exp and are refused for
		// it. The managed clusters below publish discovery to the world; others
		// need preset and, behind a private API server, the URL of the keys.
		// https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
		// https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
		name: "kubernetes",
		host: func(u *url.URL) bool {
			host := u.Hostname()
			return host == "kubernetes.default.svc" || strings.HasPrefix(host, "kubernetes.default.svc.") ||
				strings.HasPrefix(host, "oidc.eks.") || inDomain("oic.prod-aks.azure.com")(u) ||
				host == "container.googleapis.com"
		},
		idTokens:    true,
		tenantClaim: "kubernetes.io.namespace",
		groups:      []string{"groups"},
	},
	{
		// JWT profile for access tokens (RFC 9068), without insisting on its typ.
		name: "generic",
		host: func(*url.URL) bool { return true },
		idToken: func(t *token) string {
			if v, _ := t.claims.first("token_use"); v == "id" {
				return "its token_use is id"
			}
			return frontChannel(t)
		},
	},
}

// defaults fills in what most presets share.
func (p preset) defaults() preset {
	or := func(have, or []string) []string {
		if have == nil {
			return or
		}
		return have
	}
	p.types = or(p.types, jwtTypes)
	p.clients = or(p.clients, []string{"azp", "client_id", "cid"})
	p.groups = or(p.groups, []string{"groups"})
	if p.tenantClaim == "" {
		p.tenantClaim = "tid"
	}
	return p
}

// frontChannel finds the claims that only ID tokens need: nonce answers an
// authentication request, at_hash and c_hash bind an ID token to what is sent
// beside it (OpenID Connect Core sections 2, 3.1.3.6 and 3.3.2.11). A token of
// typ at+jwt is an access token whatever else it holds (RFC 9068 section 2.1).
func frontChannel(t *token) string {
	if sameType(t.typ, "at+jwt") {
		return ""
	}
	for _, name := range []string{"nonce", "at_hash", "c_hash"} {
		if t.claims.has(name) {
			return "it holds " + name + ", which only ID tokens have"
		}
	}
	return ""
}

// sameType compares media types as RFC 7515 section 4.1.9 says: without regard
// to case, and "application/" may be left out.
func sameType(a, b string) bool {
	trim := func(s string) string { return strings.TrimPrefix(strings.ToLower(s), "application/") }
	return trim(a) == trim(b)
}

func inDomain(domains ...string) func(*url.URL) bool {
	return func(u *url.URL) bool {
		host := strings.ToLower(u.Hostname())
		return slices.ContainsFunc(domains, func(d string) bool {
			return host == d || strings.HasSuffix(host, "."+d)
		})
	}
}

// entraTenant returns the tenant in the path of a v1 or v2 issuer.
func entraTenant(u *url.URL) string {
	tenant, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	return tenant
}

// checkEntra refuses the endpoints that stand for many tenants: no token ever
// carries them as iss.
func checkEntra(u *url.URL) error {
	switch t := entraTenant(u); strings.ToLower(t) {
	case "", "common", "organizations", "consumers", "{tenantid}":
		return fmt.Errorf("names no tenant: configure one issuer per tenant, https://login.microsoftonline.com/<tenant id>/v2.0")
	}
	return nil
}

// Presets returns the names of all presets, sorted.
func Presets() []string {
	names := make([]string, 0, len(presets))
	for _, p := range presets {
		names = append(names, p.name)
	}
	slices.Sort(names)
	return names
}

// GuessPreset returns the preset for an issuer URL: by its host, Keycloak by
// the path /realms/ that its issuers have. Everything else, and what is not a
// URL, is "generic".
func GuessPreset(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" {
		return "generic"
	}
	for _, p := range presets {
		if p.host(u) {
			return p.name
		}
	}
	return "generic"
}

func presetNamed(name string) (preset, bool) {
	for _, p := range presets {
		if p.name == name {
			return p.defaults(), true
		}
	}
	return preset{}, false
}
