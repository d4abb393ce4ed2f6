package app

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/textproto"
	"slices"
	"time"

	"crossfade/config"
	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/oidcauth"
	"crossfade/gateway/policy"
	"crossfade/gateway/probe"
	"crossfade/gateway/shadow"
	"crossfade/gateway/throttle"
	"crossfade/legacy"
	"crossfade/rollout"
)

// Parts are what a configuration means: everything of a gateway that a reload
// replaces. They hold no goroutines and no connections.
type Parts struct {
	Directory *identity.Directory
	Keyring   *legacy.Keyring
	Verifier  *oidcauth.Verifier
	Policy    *policy.Policy
	// Probes is whom the gateway probes; the zero Plan is nobody.
	Probes probe.Plan
}

// Hooks are what the parts tell of while they work. All may be nil.
type Hooks struct {
	OnCache func(hit bool)
}

// ConfigError is what keeps a configuration that loads from being run: a
// mistake in a file of credentials, in an issuer, an entry or a role.
type ConfigError struct{ Err error }

// Error implements error.
func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the mistake, or several that are joined.
func (e *ConfigError) Unwrap() error { return e.Err }

// Build turns a configuration into its parts. It reads the files of static
// credentials and of authorities, and does no other I/O. The error is a
// *ConfigError that joins every mistake.
func Build(c *config.Config, providers *oidcauth.Providers, hooks Hooks) (*Parts, error) {
	var errs []error
	directory, err := directoryOf(c)
	errs = append(errs, err)
	keyring, err := keyringOf(c, directory)
	errs = append(errs, err)
	verifier, err := newVerifier(c, directory, oidcauth.Options{Providers: providers, OnCache: hooks.OnCache})
	errs = append(errs, err)
	rules, err := policyOf(c)
	errs = append(errs, err)
	var probes probe.Plan
	if verifier != nil { // else theirs has the same mistakes
		probes, err = probesOf(c, directory, rules, providers)
		errs = append(errs, err)
	}
	_, err = redisOptions(c.Redis) // opened once and elsewhere, judged with the rest
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, &ConfigError{err}
	}
	return &Parts{Directory: directory, Keyring: keyring, Verifier: verifier, Policy: rules, Probes: probes}, nil
}

func keyringOf(c *config.Config, d *identity.Directory) (*legacy.Keyring, error) {
	return legacy.Load(legacy.Options{
		HTPasswd:    string(c.Legacy.Htpasswd),
		APIKeys:     string(c.Legacy.APIKeys.File),
		Bearers:     string(c.Legacy.Bearer.File),
		Directory:   d,
		Concurrency: c.Legacy.Concurrency,
		CacheTTL:    c.Legacy.Cache,
	})
}

// NewKeyring builds the keyring of a configuration alone, for commands that only
// look at static credentials.
func NewKeyring(c *config.Config) (*legacy.Keyring, error) {
	directory, err := directoryOf(c)
	if err != nil {
		return nil, &ConfigError{err}
	}
	k, err := keyringOf(c, directory)
	if err != nil {
		return nil, &ConfigError{err}
	}
	return k, nil
}

// Rights builds the directory and the policy of a configuration alone, for
// commands that only look at who may do what. The error is a *ConfigError.
func Rights(c *config.Config) (*identity.Directory, *policy.Policy, error) {
	directory, err := directoryOf(c)
	rules, other := policyOf(c)
	if err := errors.Join(err, other); err != nil {
		return nil, nil, &ConfigError{err}
	}
	return directory, rules, nil
}

// NewVerifier builds the verifier of a configuration alone, for commands that
// only look at tokens. Issuers, directory and deny-list of o are replaced.
func NewVerifier(c *config.Config, o oidcauth.Options) (*oidcauth.Verifier, error) {
	directory, err := directoryOf(c)
	if err != nil {
		return nil, &ConfigError{err}
	}
	v, err := newVerifier(c, directory, o)
	if err != nil {
		return nil, &ConfigError{err}
	}
	return v, nil
}

func newVerifier(c *config.Config, d *identity.Directory, o oidcauth.Options) (*oidcauth.Verifier, error) {
	o.Issuers, o.Directory = issuersOf(c), d
	o.Deny = oidcauth.Deny{Subjects: c.OIDC.Deny.Subjects, TokenIDs: c.OIDC.Deny.TokenIDs}
	if !c.OIDC.Deny.IssuedBefore.IsZero() {
		o.Deny.IssuedBefore = map[string]time.Time{"": c.OIDC.Deny.IssuedBefore}
	}
	return oidcauth.New(o)
}

func directoryOf(c *config.Config) (*identity.Directory, error) {
	if c.PrincipalsFile == "" && c.RolesFile == "" {
		return nil, nil // everyone is unassigned
	}
	entries := make([]identity.Entry, 0, len(c.Principals))
	for _, p := range c.Principals {
		e := identity.Entry{
			Name: p.Name, Team: identity.Team(p.Team), Roles: roles(p.Roles),
			Legacy: p.Legacy, Shared: p.Shared, MayBe: p.MayBe,
		}
		for _, m := range p.OIDC {
			e.OIDC = append(e.OIDC, identity.TokenMatch{Issuer: m.Issuer, Subject: m.Subject, Claims: m.Claims})
		}
		entries = append(entries, e)
	}
	var rules identity.ClaimRules
	if c.Roles != nil {
		rules.Roles = convertRules[identity.Role](c.Roles.Claims)
		rules.Teams = convertRules[identity.Team](c.Roles.Teams)
	}
	d, err := identity.NewDirectory(entries, rules)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.PrincipalsFile, err)
	}
	return d, nil
}

func convertRules[T ~string](from map[string]map[string]string) map[string]map[string]T {
	to := make(map[string]map[string]T, len(from))
	for claim, values := range from {
		to[claim] = make(map[string]T, len(values))
		for value, meaning := range values {
			to[claim][value] = T(meaning)
		}
	}
	return to
}

func roles(names []string) []identity.Role {
	out := make([]identity.Role, len(names))
	for i, n := range names {
		out[i] = identity.Role(n)
	}
	return out
}

func policyOf(c *config.Config) (*policy.Policy, error) {
	if c.Roles == nil || len(c.Roles.Roles) == 0 {
		return nil, nil // everyone may do everything
	}
	grants := make(map[identity.Role]policy.Grant, len(c.Roles.Roles))
	for name, r := range c.Roles.Roles {
		grants[identity.Role(name)] = policy.Grant{
			identity.ActionExecute: r.Execute, identity.ActionView: r.View, identity.ActionAdmin: r.Admin,
		}
	}
	p, err := policy.New(grants)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.RolesFile, err)
	}
	return p, nil
}

func issuersOf(c *config.Config) []oidcauth.Issuer {
	issuers := make([]oidcauth.Issuer, 0, len(c.OIDC.Issuers))
	for _, i := range c.OIDC.Issuers {
		issuers = append(issuers, oidcauth.Issuer{
			URL: i.Issuer, Preset: i.Preset, Audiences: i.Audiences, JWKSURL: i.JWKSURL,
			Algorithms: i.Algorithms, AuthorizedParties: i.AuthorizedParties, Tenants: i.Tenants,
			TokenTypes: i.TokenTypes, Scopes: i.Scopes, MaxLifetime: i.MaxLifetime,
			Skew:        oidcauth.Skew{Exp: skew(i.Skew.Exp), Nbf: skew(i.Skew.Nbf), Iat: skew(i.Skew.Iat)},
			GroupsClaim: i.GroupsClaim, RequireGroups: i.RequireGroups,
			SubjectClaim: i.SubjectClaim, CAFile: string(i.CAFile), AllowIDTokens: i.AllowIDTokens,
		})
	}
	return issuers
}

// skew says a configured zero as oidcauth hears it: none at all, not the
// default.
func skew(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// Shared is what outlives configurations: the running state of a gateway.
type Shared struct {
	Rollout gateway.Rollout
	// Registry is for profile luigi; Upstream carries what the gateway itself
	// asks the scheduler.
	Registry *luigi.Registry
	Upstream http.RoundTripper
	Shadow   *shadow.Runner
	Recorder gateway.Recorder
	// Auditor makes recording a condition; nil does not.
	Auditor gateway.Auditor
	// Transport carries requests to the upstream.
	Transport http.RoundTripper
	// Deprecated is since when legacy credentials are announced as such.
	Deprecated time.Time
	ErrorLog   *log.Logger
	// Legacy and Tokens decorate the authenticators; nil leaves them as they
	// are.
	Legacy func(gateway.Authenticator) gateway.Authenticator
	Tokens func(gateway.TokenAuthenticator) gateway.TokenAuthenticator
}

// NewHandler joins the parts of a configuration with what is shared.
func NewHandler(c *config.Config, parts *Parts, shared Shared) (*gateway.Handler, error) {
	if c.Listen.ForwardAuth != "" && c.Upstream.Profile == config.ProfileLuigi { // of the start; see App.profile
		return nil, &ConfigError{errors.New("listen.forward_auth: is for profile http, and profile luigi stays until the next start: restart the gateway")}
	}
	headers := gateway.IdentityHeaders{
		User:   names(c.Headers.User, c.Headers.AuthRequestUser),
		Email:  names(c.Headers.Email, c.Headers.AuthRequestEmail),
		Groups: names(c.Headers.Groups, c.Headers.AuthRequestGroups),
	}
	extractor := gateway.Extractor{Static: parts.Keyring}
	var credentialHeaders []string
	if c.Legacy.APIKeys.File != "" {
		extractor.APIKeyHeader = textproto.CanonicalMIMEHeaderKey(c.Legacy.APIKeys.Header)
		credentialHeaders = append(credentialHeaders, extractor.APIKeyHeader)
	}
	proxy, err := gateway.NewProxy(gateway.ProxyOptions{
		Upstream: c.Upstream.URL, NoUpstream: c.Upstream.URL == nil, Transport: shared.Transport, TrustedProxies: c.Listen.TrustedProxies,
		Headers: headers, CredentialHeaders: credentialHeaders, ErrorLog: shared.ErrorLog,
	})
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}

	o := gateway.Options{
		Mode:      ModeOf(c),
		Extractor: extractor,
		Classifier: gateway.Classifier{
			Profile: gateway.Profile(c.Upstream.Profile), MaxBody: int64(c.Upstream.MaxBody),
			ExemptPaths: c.Exempt.Paths,
		},
		Legacy: parts.Keyring, Tokens: parts.Verifier, Policy: parts.Policy,
		RolesCount:  c.Authorization == config.AuthorizationEnforce,
		ForwardAuth: c.Listen.ForwardAuth,
		Rollout:     shared.Rollout, Shadow: shared.Shadow, Proxy: proxy, Recorder: shared.Recorder, Auditor: shared.Auditor,
		Deprecated: shared.Deprecated, Sunset: c.Sunset,
		Refusals: gateway.Refusals{
			Help:  gateway.Help{URL: c.Help.URL, Contact: c.Help.Contact},
			Realm: "crossfade", Basic: c.Legacy.Htpasswd != "", Bearer: true,
			Abort:    c.Upstream.Profile == config.ProfileLuigi && c.Upstream.Luigi.Abort,
			Metadata: len(c.OIDC.Issuers) > 0,
		},
	}
	if c.Upstream.Profile == config.ProfileLuigi {
		o.Tasks = gateway.Tasks{
			Registry: shared.Registry, Scheduler: luigi.NewScheduler(c.Upstream.URL, shared.Upstream),
			Grace: c.Upstream.Luigi.Grace, Configuration: c.Hash(),
			Parameters: func(name string) bool { return slices.Contains(c.Audit.Parameters, name) },
		}
	}
	if t := c.Legacy.Throttle; t.Failures > 0 {
		o.Throttle, err = throttle.New(throttle.Options{
			Failures: t.Failures, Every: t.Every, Memory: parts.Keyring,
		})
		if err != nil {
			return nil, fmt.Errorf("legacy.throttle: %w", err)
		}
	}
	if len(c.OIDC.Issuers) > 0 {
		o.Metadata = &gateway.Metadata{Documentation: c.Help.URL}
		for _, i := range c.OIDC.Issuers {
			o.Metadata.AuthorizationServers = append(o.Metadata.AuthorizationServers, i.Issuer)
		}
	}
	if shared.Legacy != nil {
		o.Legacy = shared.Legacy(o.Legacy)
	}
	if shared.Tokens != nil {
		o.Tokens = shared.Tokens(o.Tokens)
	}
	return gateway.New(o)
}

// UpstreamOf is where requests go, without any secret: "none" where proxies only ask.
func UpstreamOf(c *config.Config) string {
	if c.Upstream.URL == nil {
		return "none"
	}
	return c.Upstream.URL.Redacted()
}

func names(all ...string) []string {
	var set []string
	for _, n := range all {
		if n != "" && n != "off" {
			set = append(set, n)
		}
	}
	return set
}

// ModeOf is the mode of a configuration.
func ModeOf(c *config.Config) gateway.Mode {
	if c.Mode == config.ModeEnforce {
		return gateway.Enforce
	}
	return gateway.Observe
}

// StickinessOf is what a percentage selects: what the configuration says, or
// the profile's default.
func StickinessOf(c *config.Config) rollout.Stickiness {
	switch {
	case c.Rollout.Stickiness == config.StickinessPrincipal:
		return rollout.StickPrincipal
	case c.Rollout.Stickiness == config.StickinessRun:
		return rollout.StickRun
	case c.Rollout.Stickiness == config.StickinessPipeline, c.Upstream.Profile == config.ProfileLuigi:
		return rollout.StickPipeline
	default:
		return rollout.StickPrincipal
	}
}
