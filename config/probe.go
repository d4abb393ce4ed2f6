package config

import (
	"maps"
	"os"
	"slices"
	"time"
)

// Probe says for which principals the gateway obtains tokens by itself, to see
// what the identity provider would give them. Without principals it obtains
// none.
type Probe struct {
	// Every is how often each principal is probed. Default 1h.
	Every time.Duration `koanf:"every" range:"1m..7d"`
	// PerMinute bounds all probes together. Default 6.
	PerMinute int `koanf:"per_minute" range:"1..60"`
	// Timeout bounds the obtaining of one token, and again its judgement. Default
	// 15s.
	Timeout time.Duration `koanf:"timeout" range:"1s..1m"`
	// What stands here stands for each principal that does not say otherwise; after
	// [Load] it has been copied there.
	ProbeTarget `koanf:",squash"`
	// Principals are those of the principals file, by name.
	Principals map[string]ProbeAccount `koanf:"principals"`
}

// ProbeTarget is who is asked for a token, and what the token is to be good for.
type ProbeTarget struct {
	// Issuer is the provider, whose metadata names the token endpoint. Without it
	// and TokenURL it is the one that is configured under oidc, or the one that the
	// principal's entry names.
	Issuer string `koanf:"issuer" check:"issuer"`
	// TokenURL is the token endpoint itself.
	TokenURL string `koanf:"token_url" check:"https_url"`
	// Audience, Scopes and Resource (RFC 8707) go into the request as they stand;
	// without them nothing does.
	Audience string   `koanf:"audience"`
	Scopes   []string `koanf:"scopes"`
	Resource string   `koanf:"resource"`
}

// ProbeAccount is how a token is obtained as one principal would. Secrets are
// read from their files for each token.
type ProbeAccount struct {
	// Source is the grant. Without it, the one that the files are for.
	Source      ProbeSource `koanf:"source" one:"client_credentials|token_exchange"`
	ProbeTarget `koanf:",squash"`
	// ClientID is the principal's client at the provider.
	ClientID string `koanf:"client_id"`
	// ClientAuth is how it proves itself. Without it, what the files allow.
	ClientAuth string `koanf:"client_auth" one:"client_secret_basic|client_secret_post|private_key_jwt|none"`
	// ClientSecretFile holds its secret, ClientKeyFile its private key: PEM or a
	// JWK. ClientKeyID is the key's id at the provider.
	ClientSecretFile Path   `koanf:"client_secret_file" check:"file"`
	ClientKeyFile    Path   `koanf:"client_key_file" check:"file"`
	ClientKeyID      string `koanf:"client_key_id"`
	// SubjectTokenFile holds what is exchanged, which something else keeps fresh,
	// and SubjectTokenType is its type of RFC 8693 section 3; a JWT without it.
	SubjectTokenFile Path   `koanf:"subject_token_file" check:"fresh"`
	SubjectTokenType string `koanf:"subject_token_type"`
}

// ProbeSource is a grant.
type ProbeSource string

// The grants of probes.
const (
	ProbeClientCredentials ProbeSource = "client_credentials" // RFC 6749 section 4.4
	ProbeTokenExchange     ProbeSource = "token_exchange"     // RFC 8693
)

// checkProbe completes the probes of the principals and checks them.
func (l *loader) checkProbe(c *Config) {
	if len(c.Probe.Principals) == 0 {
		return
	}
	if c.PrincipalsFile == "" {
		l.bad("probe.principals", "needs a principals file, which says whom their tokens should mean: set principals")
		return
	}
	known := make(map[string]Principal, len(c.Principals))
	for _, p := range c.Principals {
		known[p.Name] = p
	}
	names := slices.Sorted(maps.Keys(known))
	for _, name := range slices.Sorted(maps.Keys(c.Probe.Principals)) {
		at := join(join("probe", "principals"), name)
		entry, ok := known[name]
		if !ok && l.principals != nil && !l.principals.broken(name) {
			l.add(l.main.origin(at), shown(at), nearest(name, names), "principal %q has no entry in the principals file", clip(name))
			continue
		}
		account := c.Probe.Principals[name]
		l.probeAccount(c, at, entry, &account)
		c.Probe.Principals[name] = account
	}
}

// probeAccount completes one and checks it.
func (l *loader) probeAccount(c *Config, at string, entry Principal, a *ProbeAccount) {
	bad := func(field, format string, args ...any) {
		path := join(at, field)
		if l.main.broken(path) {
			return
		}
		l.add(l.main.origin(path), shown(path), "", format, args...)
	}
	if l.main.broken(at) { // what is wrong with a value is said; what follows from it is guesswork
		return
	}
	if a.Source == "" {
		a.Source = ProbeClientCredentials
		if a.SubjectTokenFile != "" {
			a.Source = ProbeTokenExchange
		}
	}
	l.probeTarget(c, at, entry, a)
	switch {
	case a.Source == ProbeTokenExchange && a.SubjectTokenFile == "":
		bad("subject_token_file", "is missing: it holds the token that is exchanged")
	case a.Source == ProbeClientCredentials && a.SubjectTokenFile != "":
		bad("subject_token_file", "has no effect with source client_credentials: leave one of the two out")
	case a.SubjectTokenType != "" && a.SubjectTokenFile == "":
		bad("subject_token_type", "has no effect without subject_token_file")
	}
	secrets := a.ClientSecretFile != "" || a.ClientKeyFile != ""
	switch {
	case a.ClientSecretFile != "" && a.ClientKeyFile != "":
		bad("client_key_file", "stands beside client_secret_file: leave one out")
	case secrets && a.ClientID == "", a.Source == ProbeClientCredentials && a.ClientID == "":
		bad("client_id", "is missing: say which client of the provider the principal is")
	case a.Source == ProbeClientCredentials && !secrets:
		bad("client_secret_file", "is missing: the client proves itself by a secret, or by a private key in client_key_file")
	case a.ClientKeyID != "" && a.ClientKeyFile == "":
		bad("client_key_id", "has no effect without client_key_file")
	}
	switch a.ClientAuth {
	case "client_secret_basic", "client_secret_post":
		if a.ClientSecretFile == "" {
			bad("client_auth", "%s needs client_secret_file", a.ClientAuth)
		}
	case "private_key_jwt":
		if a.ClientKeyFile == "" {
			bad("client_auth", "private_key_jwt needs client_key_file")
		}
	case "none":
		if secrets {
			bad("client_auth", "none stands beside a secret or a key: leave one out")
		}
	}
}

// probeTarget says whom to ask, and for what, where the account does not.
func (l *loader) probeTarget(c *Config, at string, entry Principal, a *ProbeAccount) {
	all := c.Probe.ProbeTarget
	if a.Issuer == "" && a.TokenURL == "" {
		a.Issuer, a.TokenURL = all.Issuer, all.TokenURL
	}
	if a.Issuer == "" && a.TokenURL == "" {
		issuers := map[string]bool{}
		for _, m := range entry.OIDC {
			if m.Issuer != "" {
				issuers[m.Issuer] = true
			}
		}
		if len(issuers) != 1 {
			issuers = map[string]bool{}
			for _, name := range issuerNames(c) {
				issuers[name] = true
			}
		}
		if len(issuers) == 1 {
			a.Issuer = slices.Collect(maps.Keys(issuers))[0]
		} else if !l.main.broken("oidc") {
			path := join(at, "issuer")
			l.add(l.main.origin(path), shown(path), "", "is missing: %d are configured under oidc, so say which one issues its tokens", len(issuers))
		}
	}
	if a.Audience == "" {
		a.Audience = all.Audience
	}
	if a.Scopes == nil {
		a.Scopes = all.Scopes
	}
	if a.Resource == "" {
		a.Resource = all.Resource
	}
}

// warnProbe says what is doubtful about the probes.
func (l *loader) warnProbe(c *Config, say func(path, format string, args ...any)) {
	p := &c.Probe
	if need := time.Minute * time.Duration(len(p.Principals)) / time.Duration(max(p.PerMinute, 1)); need > p.Every {
		say("probe", "%d principals take %s at %d a minute, which is longer than every %s: raise per_minute or every",
			len(p.Principals), need.Round(time.Second), p.PerMinute, p.Every)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Principals)) {
		a := p.Principals[name]
		for _, secret := range []struct {
			key  string
			file Path
		}{{"client_secret_file", a.ClientSecretFile}, {"client_key_file", a.ClientKeyFile}, {"subject_token_file", a.SubjectTokenFile}} {
			if secret.file == "" {
				continue
			}
			// The group may read: it is how Kubernetes hands files to who is not root.
			info, err := os.Stat(string(secret.file))
			if err == nil && info.Mode().Perm()&0o007 != 0 {
				say(join(join(join("probe", "principals"), name), secret.key),
					"%s is open to every user of this machine (mode %04o): `chmod 600` it, or set defaultMode: 0400 in Kubernetes", secret.file, info.Mode().Perm())
			}
		}
	}
}
