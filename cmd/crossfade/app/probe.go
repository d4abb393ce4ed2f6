package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"crossfade/config"
	"crossfade/gateway/agent/token"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
	"crossfade/gateway/policy"
	"crossfade/gateway/probe"
)

// NewProbes builds the probes of a configuration alone, for commands. It has no
// schedule. The error is a *ConfigError.
func NewProbes(c *config.Config, providers *oidcauth.Providers) (probe.Plan, error) {
	directory, err := directoryOf(c)
	if err != nil {
		return probe.Plan{}, &ConfigError{err}
	}
	rules, err := policyOf(c)
	if err != nil {
		return probe.Plan{}, &ConfigError{err}
	}
	plan, err := probesOf(c, directory, rules, providers)
	if err != nil {
		return probe.Plan{}, &ConfigError{err}
	}
	return plan, nil
}

// probesOf is whom a configuration lets the gateway probe. The verifier of
// probes remembers nothing, and shares the keys with that of requests. The error
// joins every mistake.
func probesOf(c *config.Config, d *identity.Directory, rules *policy.Policy, providers *oidcauth.Providers) (probe.Plan, error) {
	if len(c.Probe.Principals) == 0 {
		return probe.Plan{}, nil
	}
	verifier, err := newVerifier(c, d, oidcauth.Options{Providers: providers, CacheSize: 1, CacheTTL: time.Nanosecond})
	if err != nil {
		return probe.Plan{}, err
	}
	plan := probe.Plan{
		Every: c.Probe.Every, PerMinute: c.Probe.PerMinute,
		Prober: probe.Prober{
			Tokens: verifier, Policy: rules, Timeout: c.Probe.Timeout,
			RolesCount: c.Mode == config.ModeEnforce && c.Authorization == config.AuthorizationEnforce,
		},
	}
	entries := map[string]identity.Entry{}
	for _, e := range d.Entries() {
		entries[e.Name] = e
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Probe.Principals)) {
		settings, entry := c.Probe.Principals[name], entries[name]
		source, err := probeSource(c, settings)
		if err != nil {
			errs = append(errs, fmt.Errorf("probe.principals.%s: %w", name, err))
			continue
		}
		plan.Accounts = append(plan.Accounts, probe.Account{
			Principal: identity.Principal{Name: name, Team: entry.Team, Roles: entry.Roles, Mapped: true},
			MayBe:     entry.MayBe, Kind: string(settings.Source), Source: source, Settings: fmt.Sprintf("%+v", settings),
		})
	}
	return plan, errors.Join(errs...)
}

// probeSource is how the token of one account is obtained.
func probeSource(c *config.Config, a config.ProbeAccount) (probe.Source, error) {
	s, err := token.New(string(a.Source), token.Params{
		Issuer: a.Issuer, TokenURL: a.TokenURL, CAFile: probeAuthorities(c, a),
		ClientID: a.ClientID, ClientAuth: a.ClientAuth, SecretFile: string(a.ClientSecretFile),
		KeyFile: string(a.ClientKeyFile), KeyID: a.ClientKeyID,
		SubjectTokenFile: string(a.SubjectTokenFile), SubjectTokenType: a.SubjectTokenType,
		Timeout: c.Probe.Timeout,
	})
	if err != nil {
		return nil, err
	}
	// The run shows in the provider's own trail.
	return probeToken{s, token.Request{Audience: a.Audience, Scopes: a.Scopes, Resource: a.Resource, Run: "probe"}}, nil
}

// probeAuthorities is the file of those that the provider's certificate is
// verified by: what the configuration says of its issuer, or of the only one.
func probeAuthorities(c *config.Config, a config.ProbeAccount) string {
	for _, i := range c.OIDC.Issuers {
		if i.Issuer == a.Issuer || a.Issuer == "" && len(c.OIDC.Issuers) == 1 {
			return string(i.CAFile)
		}
	}
	return ""
}

// probeToken makes a probe.Source of a token source.
type probeToken struct {
	source  token.Source
	request token.Request
}

// Token implements probe.Source.
func (p probeToken) Token(ctx context.Context) (identity.Secret, error) {
	t, err := p.source.Token(ctx, p.request)
	var refused *token.Refusal
	switch {
	case err == nil:
		return t.Value, nil
	case errors.Is(err, token.ErrCredential):
		return identity.Secret{}, probeError{err, probe.ErrCredential}
	case errors.As(err, &refused) && answered(refused):
		return identity.Secret{}, probeError{err, probe.ErrRefused}
	default:
		return identity.Secret{}, err
	}
}

// answered reports whether a refusal is the provider's word about the account:
// an error of RFC 6749 section 5.2 that another try would not mend. A proxy's
// 403 and a missing page are none.
func answered(r *token.Refusal) bool {
	switch r.Code {
	case "", "server_error", "temporarily_unavailable", "slow_down":
		return false
	default:
		return r.Status < 500 && r.Status != 429
	}
}

// probeError is an error that package probe knows the meaning of.
type probeError struct {
	error
	means error
}

// Is implements the interface that errors.Is looks for.
func (e probeError) Is(target error) bool { return target == e.means }

func (e probeError) Unwrap() error { return e.error }

// probeRecorder tells telemetry, the audit trail and the log of each probe.
type probeRecorder struct {
	probe.Recorder
	audit *audit.Trail
	log   *slog.Logger
}

// Observe implements probe.Recorder.
func (r probeRecorder) Observe(ctx context.Context, result *probe.Result) {
	r.Recorder.Observe(ctx, result)
	r.audit.Probed(result)
	level := slog.LevelInfo
	if result.Outcome != probe.OK {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{
		slog.String("account", result.Account.Name), slog.String("team", string(result.Account.Team)),
		slog.String("result", string(result.Outcome)), slog.String("verdict", string(result.Shadow.Verdict)),
		slog.String("evidence", string(result.Shadow.Evidence)),
	}
	for _, more := range []struct{ key, value string }{
		{"reason", string(result.Shadow.Reason)}, {"owner", string(result.Owner())}, {"detail", result.Detail()},
	} {
		if more.value != "" {
			attrs = append(attrs, slog.String(more.key, more.value))
		}
	}
	attrs = append(attrs, slog.Duration("took", result.Took.Round(time.Millisecond)), slog.String("trace_id", result.TraceID))
	r.log.LogAttrs(ctx, level, "probe", attrs...)
}
