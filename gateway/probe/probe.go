// Package probe finds out what the identity provider would do for an account
// whose client has not changed yet: it obtains a token as the account would and
// judges it by the code that judges requests.
//
// What a probe finds is evidence of its own kind (shadow.EvidenceProbe). It says
// that the provider's side is ready, and nothing about what clients send: it is
// no request, belongs to no run, registers and latches nothing, and counts
// neither for the throttle nor for anybody's coverage. The token goes nowhere
// but to its judge.
//
// Compare is the pure judgement, Prober one probe, Runner probes at a bounded
// rate. Each replica of a gateway has a Runner of its own and knows nothing of
// the others': an account is probed by each of them, and rates are a replica's.
package probe

import (
	"context"
	"errors"
	"time"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/policy"
	"crossfade/gateway/shadow"
)

// What a Source can say of why there is no token. Every other error means that
// nobody answered.
var (
	// ErrRefused is in the chain of an error when the provider answered and would
	// give no token: the account would not get one either.
	ErrRefused = errors.New("the identity provider refused")
	// ErrCredential is in the chain of an error when the probe's own credential
	// could not be read or used: the provider was not asked.
	ErrCredential = errors.New("the probe's own credential cannot be used")
)

// Source obtains a new token as one account would. It is safe for concurrent
// use and respects ctx. Its errors hold no secret.
type Source interface {
	Token(ctx context.Context) (identity.Secret, error)
}

// Account is one that is probed.
type Account struct {
	// Principal is whom its legacy credential belongs to, and whom a token should
	// mean. Its name is that of the probe.
	Principal identity.Principal
	// MayBe are the names of the principals that a shared one may turn into.
	MayBe []string
	// Kind is the source's word, for people.
	Kind   string
	Source Source
	// Settings tell whether a Source is still the one of before: two of the same
	// Settings are.
	Settings string
}

// Outcome is how a probe ended. Its text is a metric label.
type Outcome string

// The outcomes.
const (
	// OK: the token does what the legacy credential does (match_allow).
	OK Outcome = "ok"
	// WouldBreak: there is a token, and it would be refused or mean something else.
	WouldBreak Outcome = "would_break"
	// Refused: the provider gave no token.
	Refused Outcome = "refused"
	// Unavailable: the provider or its keys could not be reached.
	Unavailable Outcome = "unavailable"
	// Misconfigured: the probe's own credential cannot be used.
	Misconfigured Outcome = "misconfigured"
)

// Outcomes lists every outcome, for series that must exist at zero.
func Outcomes() []Outcome {
	return []Outcome{OK, WouldBreak, Refused, Unavailable, Misconfigured}
}

// Verdicts lists every verdict that a probe can have, for series that must exist
// at zero: its legacy side is always verified.
func Verdicts() []shadow.Verdict {
	return []shadow.Verdict{
		shadow.MatchAllow, shadow.MatchDeny, shadow.WouldBreak, shadow.NoToken,
		shadow.WouldOpen, shadow.IdentityDrift, shadow.Indeterminate,
	}
}

// Result is all that one probe found. It holds no secret and nobody changes it
// once it is told.
type Result struct {
	// Account is whom the probe was for, as its entry says. Kind is the word of
	// the source.
	Account identity.Principal
	Kind    string
	// Start is when it began, Obtain how long it took to obtain a token or none,
	// Took how long all of it took.
	Start        time.Time
	Obtain, Took time.Duration
	Outcome      Outcome
	// Shadow is the verdict; its evidence is always shadow.EvidenceProbe. It has no
	// reason when there is no token because nobody could be asked.
	Shadow shadow.Result
	// Action is what the token was judged for.
	Action identity.Action
	// Token is the judgement of the token, nil without one.
	Token *identity.Authentication
	// Err says why there is no token, nil if there is one.
	Err error
	// TraceID is lower-case hex (W3C Trace Context), "" without tracing.
	TraceID string
}

// Owner is who can do something about it, "" when there is nothing to do.
func (r *Result) Owner() identity.Owner {
	switch {
	case r.Outcome == OK:
		return ""
	case r.Outcome == Misconfigured:
		return identity.OwnerPlatform
	case r.Outcome == Refused, r.Outcome == Unavailable && r.Shadow.Reason == "":
		return identity.OwnerIDP
	}
	info, _ := r.Shadow.Reason.Info()
	return info.Owner
}

// Detail is one sentence for the operator, or several: what was found and what
// was expected. It may name configuration and claims.
func (r *Result) Detail() string {
	switch {
	case r.Err != nil:
		return r.Err.Error()
	case r.Token == nil:
		return ""
	case r.Token.Detail != "":
		return r.Token.Detail
	case r.Token.OK() && r.Outcome == WouldBreak:
		return difference(r.Account, r.Token.Principal)
	default:
		return ""
	}
}

// Prober makes probes under one configuration. It is immutable and safe for
// concurrent use.
type Prober struct {
	// Tokens judges tokens. It should remember nothing: a provider may hand out one
	// token twice, and a key may have been withdrawn in between.
	Tokens gateway.Authenticator
	// Policy may be nil: then everyone may do everything.
	Policy *policy.Policy
	// RolesCount tells that roles govern requests with a legacy credential.
	RolesCount bool
	// Timeout bounds the obtaining, and again the judging; DefaultTimeout when 0.
	Timeout time.Duration
}

// DefaultTimeout is the default of Prober.Timeout.
const DefaultTimeout = 15 * time.Second

// Probe obtains a token for the account and judges it. When ctx ends before
// that, the outcome is Unavailable.
func (p Prober) Probe(ctx context.Context, a Account) *Result {
	r := &Result{
		Account: a.Principal, Kind: a.Kind, Start: time.Now(),
		Shadow: shadow.Result{Verdict: shadow.Indeterminate, Evidence: shadow.EvidenceProbe},
	}
	defer func() { r.Took = time.Since(r.Start) }()
	token, err := p.obtain(ctx, a.Source)
	r.Obtain = time.Since(r.Start)
	switch {
	case errors.Is(err, ErrRefused):
		r.Outcome, r.Err = Refused, err
		r.Shadow.Verdict, r.Shadow.Reason = shadow.NoToken, identity.TokenAbsent
		return r
	case errors.Is(err, ErrCredential):
		r.Outcome, r.Err = Misconfigured, err
		return r
	case err != nil:
		r.Outcome, r.Err = Unavailable, err
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout())
	defer cancel()
	r.Token = p.Tokens.Authenticate(ctx, identity.Credential{Scheme: identity.SchemeOIDC, Secret: token})
	r.Action, r.Shadow = Compare(a.Principal, a.MayBe, r.Token, p.Policy, p.RolesCount)
	switch r.Shadow.Verdict {
	case shadow.MatchAllow:
		r.Outcome = OK
	case shadow.Indeterminate:
		r.Outcome = Unavailable
	default:
		r.Outcome = WouldBreak
	}
	return r
}

func (p Prober) timeout() time.Duration {
	if p.Timeout <= 0 {
		return DefaultTimeout
	}
	return p.Timeout
}

func (p Prober) obtain(ctx context.Context, s Source) (identity.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout())
	defer cancel()
	return s.Token(ctx)
}
