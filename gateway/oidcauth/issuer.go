package oidcauth

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// Defaults of an Issuer.
const (
	DefaultMaxLifetime = 24 * time.Hour
	// DefaultSkew is for exp, nbf and iat each. Clocks that are kept by NTP
	// differ by far less; RFC 7519 section 4.1.4 speaks of "a few minutes" as the
	// most.
	DefaultSkew = 30 * time.Second
	maxSkew     = 5 * time.Minute
)

// Issuer is one configured issuer. Fields left at zero take the value of the
// preset, or else the default that is given at the field.
type Issuer struct {
	// URL is the value of iss, compared exactly (OpenID Connect Discovery
	// section 4.3). It is https; http is allowed on a loopback address.
	URL string
	// Preset names the provider; see Presets. Empty guesses from URL.
	Preset string
	// Audiences are the accepted values of aud; one of them must be there. At
	// least one is required, or AuthorizedParties where the preset lets another
	// claim stand in for aud (keycloak, cognito).
	Audiences []string
	// JWKSURL is where the keys are. Set, there is no discovery.
	JWKSURL string
	// Algorithms is the allow-list of signature algorithms; RS256 and ES256 by
	// default. Symmetric ones and none are not possible.
	Algorithms []string
	// AuthorizedParties are the accepted clients (azp, client_id, cid or appid,
	// as the preset says). Empty accepts all.
	AuthorizedParties []string
	// Tenants are the accepted tenants (tid; hd for google, repository_owner for
	// github_actions, the namespace for kubernetes). Empty accepts all, except
	// for entra, where it is the tenant in the URL. Of an issuer that signs for
	// anybody in the world (google, github_actions, gitlab.com and the like),
	// empty accepts only principals that the directory knows.
	Tenants []string
	// TokenTypes are the accepted values of the header typ; then it must be
	// there. By default JWT, at+jwt or none at all.
	TokenTypes []string
	// Scopes must all be in scope or scp, or it is insufficient_scope.
	Scopes []string
	// AllowIDTokens accepts ID tokens where the preset expects access tokens.
	AllowIDTokens bool
	Skew          Skew
	// MaxLifetime bounds exp - iat; without iat, what is left until exp.
	// 24 hours by default.
	MaxLifetime time.Duration
	// GroupsClaim is where groups are, by a name that may be dotted.
	GroupsClaim string
	// RequireGroups refuses tokens without groups.
	RequireGroups bool
	// SubjectClaim names the principal; "sub" by default.
	SubjectClaim string
	// CAFile is a file of PEM certificates that are trusted for this issuer in
	// place of the system's.
	CAFile string
}

// Skew is by how much our clock and the issuer's may differ, for each check.
// Zero takes DefaultSkew, negative means none at all, 5 minutes are the most.
type Skew struct{ Exp, Nbf, Iat time.Duration }

// algorithms are the signature algorithms that can be allowed (RFC 7518 section
// 3.1, RFC 8037 section 3.1). A secret that verifies could also sign, so there
// is no HMAC.
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512,
	oidc.PS256, oidc.PS384, oidc.PS512,
	oidc.ES256, oidc.ES384, oidc.ES512,
	oidc.EdDSA,
}

// rules is an Issuer with everything filled in.
type rules struct {
	Issuer
	preset preset
	iss    []string // spellings of iss
	groups []string
	algs   []jose.SignatureAlgorithm
	// verifier is go-oidc's, with our key set; nil without providers.
	verifier *oidc.IDTokenVerifier
	source   *source
}

// newRules checks an issuer. The error joins every mistake.
func newRules(i Issuer) (*rules, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if i.URL == "" {
		return nil, errors.New("an issuer has no URL: set it to the value of iss in its tokens")
	}
	u, err := checkURL(i.URL)
	if err != nil {
		bad("the URL %w", err)
	} else if u.RawQuery != "" || u.Fragment != "" {
		bad("the URL must not hold a query or fragment (OpenID Connect Discovery section 2)")
	}
	i.Preset = cmp.Or(i.Preset, GuessPreset(i.URL))
	p, ok := presetNamed(i.Preset)
	if !ok {
		bad("preset %q is not known: use one of %s", i.Preset, strings.Join(Presets(), ", "))
		p, _ = presetNamed("generic")
	}
	if u != nil && p.check != nil {
		if err := p.check(u); err != nil {
			bad("the URL %w", err)
		}
	}
	if i.JWKSURL != "" {
		if _, err := checkURL(i.JWKSURL); err != nil {
			bad("the URL of the keys %w", err)
		} else if u != nil && u.Scheme == "https" && !strings.HasPrefix(i.JWKSURL, "https:") {
			bad("the URL of the keys must be https, as the issuer is")
		}
	}
	if len(i.Audiences) == 0 && (len(p.standIns) == 0 || len(i.AuthorizedParties) == 0) {
		bad("no audience: set the value of aud that the team requests its tokens for, or every token of the issuer would do")
	}
	for name, values := range map[string][]string{
		"audience": i.Audiences, "authorized party": i.AuthorizedParties, "tenant": i.Tenants,
		"token type": i.TokenTypes, "scope": i.Scopes,
	} {
		if slices.Contains(values, "") {
			bad("an empty %s stands in its list", name)
		}
	}
	if len(i.Algorithms) == 0 {
		i.Algorithms = []string{oidc.RS256, oidc.ES256}
	}
	r := &rules{preset: p, groups: p.groups}
	for _, alg := range i.Algorithms {
		if !slices.Contains(algorithms, alg) {
			bad("algorithm %q cannot be allowed: use %s", alg, strings.Join(algorithms, ", "))
		}
		r.algs = append(r.algs, jose.SignatureAlgorithm(alg))
	}
	for _, s := range []struct {
		name string
		skew *time.Duration
	}{{"exp", &i.Skew.Exp}, {"nbf", &i.Skew.Nbf}, {"iat", &i.Skew.Iat}} {
		switch {
		case *s.skew == 0:
			*s.skew = DefaultSkew
		case *s.skew < 0:
			*s.skew = 0
		case *s.skew > maxSkew:
			bad("a skew of %s for %s is more than %s: set the clocks right instead", *s.skew, s.name, maxSkew)
		}
	}
	if i.MaxLifetime < 0 {
		bad("a longest lifetime of %s is negative", i.MaxLifetime)
	}
	i.MaxLifetime = cmp.Or(i.MaxLifetime, DefaultMaxLifetime)
	if len(i.Tenants) == 0 && p.tenant != nil && u != nil {
		i.Tenants = []string{p.tenant(u)}
	}
	if i.GroupsClaim != "" {
		r.groups = []string{i.GroupsClaim}
	}
	i.SubjectClaim = cmp.Or(i.SubjectClaim, "sub")
	r.Issuer, r.iss = i, []string{i.URL}
	if p.alias != nil && u != nil {
		if alias := p.alias(u); alias != i.URL {
			r.iss = append(r.iss, alias)
		}
	}
	if len(errs) > 0 {
		slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
		for n, err := range errs {
			errs[n] = fmt.Errorf("issuer %s: %w", i.URL, err)
		}
		return nil, errors.Join(errs...)
	}
	return r, nil
}

// defaultRules judge the times of tokens whose issuer is not known.
func defaultRules() *rules {
	p, _ := presetNamed("generic")
	return &rules{
		Issuer: Issuer{
			Skew:        Skew{DefaultSkew, DefaultSkew, DefaultSkew},
			MaxLifetime: DefaultMaxLifetime, SubjectClaim: "sub",
		},
		preset: p, groups: p.groups,
	}
}

func (r *rules) allows(alg string) bool {
	return slices.Contains(r.algs, jose.SignatureAlgorithm(alg))
}

// checkURL demands https, or http on a loopback address.
func checkURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL")
	case u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return nil, errors.New("must begin with https:// and name a host")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, errors.New("must be https: keys fetched in the clear could be anybody's (http is allowed on a loopback address)")
	case u.User != nil:
		return nil, errors.New("must not hold a user name or password")
	}
	return u, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// wanted lists what a binding accepts, for sentences to the operator.
func wanted(values []string) string {
	if len(values) == 1 {
		return show(values[0])
	}
	return "one of " + list(values)
}
