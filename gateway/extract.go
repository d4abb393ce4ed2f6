package gateway

import (
	"encoding/base64"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"crossfade/gateway/identity"
)

// CompanionHeader carries an OIDC token beside a legacy credential. It never
// governs by itself and never reaches the upstream.
const CompanionHeader = "Crossfade-Token"

// TokenUser is the reserved Basic user whose password is a JWT, for clients
// that can send nothing but Basic.
const TokenUser = "oidc"

// StaticTokens tells static bearer tokens from JWTs. Many static tokens look
// like JWTs, so a bearer value is looked up here before it is parsed.
type StaticTokens interface {
	// IsStaticBearer reports whether value is a static bearer token that the
	// configuration knows, expired and revoked ones included.
	IsStaticBearer(value string) bool
	// Bearers reports whether static bearer tokens are configured at all.
	Bearers() bool
}

// Presented is what a request brought, before anything of it is verified.
type Presented struct {
	Legacy identity.Credential
	Token  identity.Credential
	// Companion tells that Token came beside a legacy credential, or in the
	// companion header: then it does not govern by itself.
	Companion bool
	// Problem is why the credentials cannot be told apart; "" if they can.
	Problem identity.Reason
}

// Extractor reads credentials out of requests. The zero value reads Basic and
// bearer tokens and takes every bearer value for an OIDC token.
type Extractor struct {
	// APIKeyHeader is the canonical name of the header of API keys, "" for
	// none.
	APIKeyHeader string
	// Static may be nil.
	Static StaticTokens
}

// Extract reads the credentials of a request. It verifies nothing. Two
// credentials of one kind are a Problem, because which of them the upstream or
// another proxy would have believed is anyone's guess.
func (e Extractor) Extract(h http.Header, rawQuery string) Presented {
	var p Presented
	authorization, twice := single(h["Authorization"])
	if twice {
		p.Problem = identity.MultipleCredentials
		return p
	}
	if authorization != "" {
		p = e.authorization(authorization)
	}
	if e.APIKeyHeader != "" {
		key, twice := single(h[e.APIKeyHeader])
		if twice || key != "" && p.Legacy.Present() {
			p.Problem = identity.MultipleCredentials
			return p
		}
		if key != "" {
			p.Legacy = identity.Credential{Scheme: identity.SchemeAPIKey, Secret: identity.NewSecret(key)}
			p.Companion = p.Token.Present()
			if p.Problem == identity.SchemeUnsupported {
				p.Problem = "" // the key governs; in mode enforce the other never reaches the upstream
			}
		}
	}
	companion, twice := single(h[CompanionHeader])
	if twice || companion != "" && p.Token.Present() {
		p.Problem = identity.MultipleCredentials
		return p
	}
	if companion != "" {
		p.Token = identity.Credential{Scheme: identity.SchemeOIDC, Secret: identity.NewSecret(companion)}
		p.Companion = true
	}
	if p.Problem == "" && tokenInQuery(rawQuery) {
		p.Problem = identity.TokenInQuery
	}
	return p
}

func (e Extractor) authorization(value string) (p Presented) {
	scheme, rest, _ := strings.Cut(value, " ")
	rest = strings.TrimLeft(rest, " ")
	switch {
	case strings.EqualFold(scheme, "Basic"):
		user, password := parseBasic(rest)
		if user == TokenUser && looksLikeJWT(password) {
			p.Token = identity.Credential{Scheme: identity.SchemeOIDC, Secret: identity.NewSecret(password)}
			return p
		}
		p.Legacy = identity.Credential{Scheme: identity.SchemeBasic, User: user, Secret: identity.NewSecret(password)}
	case strings.EqualFold(scheme, "Bearer"):
		c := identity.Credential{Scheme: identity.SchemeOIDC, Secret: identity.NewSecret(rest)}
		static := e.Static != nil &&
			(e.Static.IsStaticBearer(rest) || e.Static.Bearers() && !looksLikeJWT(rest))
		if static {
			c.Scheme = identity.SchemeStaticBearer
			p.Legacy = c
		} else {
			p.Token = c
		}
	default:
		p.Problem = identity.SchemeUnsupported
	}
	return p
}

// parseBasic decodes the credentials of RFC 7617. What cannot be decoded comes
// back as an empty user, which no file can hold: it fails like any other.
func parseBasic(encoded string) (user, password string) {
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimRight(encoded, " "))
	if err != nil {
		return "", encoded
	}
	user, password, ok := strings.Cut(string(decoded), ":")
	if !ok {
		return "", string(decoded)
	}
	return user, password
}

// looksLikeJWT reports whether value has the outer form of a JWS (RFC 7515
// section 7.1: three parts) or a JWE (RFC 7516 section 7.1: five parts).
func looksLikeJWT(value string) bool {
	dots := strings.Count(value, ".")
	return dots == 2 || dots == 4
}

// single returns the one non-empty value of a header; twice is true when there
// are several.
func single(values []string) (value string, twice bool) {
	for _, v := range values {
		v = textproto.TrimString(v)
		if v == "" {
			continue
		}
		if value != "" {
			return "", true
		}
		value = v
	}
	return value, false
}

// tokenInQuery reports whether the query carries an access token as RFC 6750
// section 2.3 names it. RFC 9700 section 4.3.2 forbids that: URLs end up in
// logs and histories.
func tokenInQuery(rawQuery string) bool {
	if rawQuery == "" || !strings.Contains(rawQuery, "token") && !strings.Contains(rawQuery, "%") {
		return false
	}
	for pair := range strings.SplitSeq(rawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if value == "" {
			continue
		}
		if decoded, err := url.QueryUnescape(name); err == nil && decoded == "access_token" {
			return true
		}
	}
	return false
}
