package config

import "time"

// OIDC are the trusted issuers. One issuer may stand inline; after [Load] it
// is in Issuers like any other and the inline one is empty.
type OIDC struct {
	Inline  Issuer   `koanf:",squash"`
	Issuers []Issuer `koanf:"issuers"`
	Deny    Deny     `koanf:"deny"`
}

// Issuer is one OpenID Connect provider. An empty field leaves the matter to
// the preset.
type Issuer struct {
	// Issuer is compared to the claim iss exactly: https, or http on loopback
	// (OpenID Connect Discovery 1.0 section 3).
	Issuer string `koanf:"issuer" check:"issuer"`
	// Audience is another way to write Audiences; empty after Load.
	Audience []string `koanf:"audience"`
	// Audiences: a token must be for one of them. After Load only empty where
	// AuthorizedParties are not, which some presets allow instead.
	Audiences []string `koanf:"audiences"`
	// Preset is guessed from the issuer's host when it is empty.
	Preset string `koanf:"preset" one:"generic|okta|entra|keycloak|google|cognito|github_actions|kubernetes"`
	// JWKSURL replaces the discovered address of the keys.
	JWKSURL string `koanf:"jwks_url" check:"https_url"`
	// Algorithms are asymmetric ones only (RFC 7518 section 3.1, RFC 8037).
	Algorithms []string `koanf:"algorithms" one:"RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|ES512|EdDSA"`
	// AuthorizedParties are the clients that may have asked for the token.
	AuthorizedParties []string `koanf:"authorized_parties"`
	Tenants           []string `koanf:"tenants"`
	// TokenTypes are the allowed values of the header typ.
	TokenTypes []string `koanf:"token_types"`
	// Scopes must all be granted.
	Scopes []string `koanf:"scopes"`
	// MaxLifetime refuses tokens that live longer; 0, the default: 24 hours.
	MaxLifetime time.Duration `koanf:"max_lifetime" range:"0s..365d"`
	Skew        Skew          `koanf:"skew"`
	// GroupsClaim and SubjectClaim name claims other than the preset's.
	GroupsClaim  string `koanf:"groups_claim"`
	SubjectClaim string `koanf:"subject_claim"`
	// RequireGroups refuses tokens without groups. Default false.
	RequireGroups bool `koanf:"require_groups"`
	// AllowIDTokens accepts ID tokens where the preset expects access tokens.
	// Default false.
	AllowIDTokens bool `koanf:"allow_id_tokens"`
	// CAFile verifies the provider instead of the system's authorities.
	CAFile Path `koanf:"ca_file" check:"file"`
}

// Skew is how far clocks may differ, for each of the three time claims of RFC
// 7519. One duration sets all three. Default 30s each.
type Skew struct {
	Exp time.Duration `koanf:"exp" range:"0s..5m"`
	Nbf time.Duration `koanf:"nbf" range:"0s..5m"`
	Iat time.Duration `koanf:"iat" range:"0s..5m"`
}

// Deny are tokens that are refused although they verify. A plain string names
// a file that holds the same keys; both together add up.
type Deny struct {
	File Path `koanf:"file" check:"content"`
	// Subjects are values of the claim sub, of any issuer.
	Subjects []string `koanf:"subjects"`
	// TokenIDs are values of the claim jti.
	TokenIDs []string `koanf:"token_ids"`
	// IssuedBefore refuses tokens whose iat is earlier; zero: none.
	IssuedBefore time.Time `koanf:"issued_before"`
}

// defaultIssuer is what every issuer starts from, inline or in the list.
func defaultIssuer() Issuer {
	const skew = 30 * time.Second
	return Issuer{Skew: Skew{Exp: skew, Nbf: skew, Iat: skew}}
}
