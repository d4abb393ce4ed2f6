// Package shadow judges a request a second time, as if OpenID Connect were
// already enforced. Compare is the pure comparison of the two judgements;
// Runner evaluates candidates off the request path, bounded in memory and in
// time.
//
// The words are those of two well-known designs: control and candidate of
// GitHub's Scientist, shadow of Envoy's mirroring policies.
package shadow

import (
	"cmp"
	"slices"

	"crossfade/gateway/identity"
)

// Verdict is what the comparison of the two judgements says. Its text is a
// metric label.
type Verdict string

// The verdicts.
const (
	// MatchAllow: both credentials allow, as the same principal with the same
	// rights.
	MatchAllow Verdict = "match_allow"
	// MatchDeny: legacy is denied or not verified, and no good token was sent.
	MatchDeny Verdict = "match_deny"
	// WouldBreak: allowed today; the token that was sent would not be.
	WouldBreak Verdict = "would_break"
	// NoToken: allowed today; no token was sent.
	NoToken Verdict = "no_token"
	// WouldOpen: the verified legacy principal's roles deny what the token
	// would allow. A security signal.
	WouldOpen Verdict = "would_open"
	// LegacyLapsed: legacy is not verified, the token is good.
	LegacyLapsed Verdict = "legacy_lapsed"
	// IdentityDrift: both allow, as another principal, team or permission.
	IdentityDrift Verdict = "identity_drift"
	// Indeterminate: the token could not be evaluated. Never a mismatch.
	Indeterminate Verdict = "indeterminate"
	// NotEvaluated: shed, exempt, or a request that carries a token alone.
	NotEvaluated Verdict = "not_evaluated"
)

// Verdicts lists every verdict, for series that must exist at zero.
func Verdicts() []Verdict {
	return []Verdict{
		MatchAllow, MatchDeny, WouldBreak, NoToken, WouldOpen,
		LegacyLapsed, IdentityDrift, Indeterminate, NotEvaluated,
	}
}

// Mismatch reports whether v says that enforcement would change the outcome
// or the identity of a request.
func (v Verdict) Mismatch() bool {
	switch v {
	case WouldBreak, NoToken, WouldOpen, LegacyLapsed, IdentityDrift:
		return true
	default:
		return false
	}
}

// Evidence says who obtained the token that was judged. Its text is a metric
// label.
type Evidence string

// The kinds of evidence. EvidenceNone is a verdict without any token.
const (
	EvidenceNone   Evidence = "none"
	EvidenceClient Evidence = "client" // the client sent the token
	EvidenceProbe  Evidence = "probe"  // the gateway asked the provider for one
)

// Side is one of the two judgements of a request.
type Side struct {
	// Auth is the judgement of the credential; nil stands for absent.
	Auth *identity.Authentication
	// Denied is why the principal's roles deny the request, "" when they
	// allow it or were not asked.
	Denied identity.Reason
}

func (s Side) verified() bool { return s.Auth.OK() }

func (s Side) present() bool { return s.Auth != nil && s.Auth.Status != identity.StatusAbsent }

func (s Side) unavailable() bool {
	return s.Auth != nil &&
		(s.Auth.Status == identity.StatusUnavailable || s.Auth.Status == identity.StatusPending)
}

// Result is a verdict with its primary reason, "" where none applies.
type Result struct {
	Verdict  Verdict
	Reason   identity.Reason
	Evidence Evidence
}

// Compare judges one request both ways. rolesCount tells whether the roles of
// requests that legacy governs count (authorization: enforce in mode enforce)
// or are only shadowed. It does not matter which of the two governs the
// request: the verdict of a reverse shadow reads the same.
//
// Compare is not for requests without a legacy credential: a token alone, good
// or bad, is NotEvaluated, nothing at all is MatchDeny.
func Compare(legacy, token Side, rolesCount bool) Result {
	evidence := EvidenceNone
	if token.present() {
		evidence = EvidenceClient
	}
	say := func(v Verdict, r identity.Reason) Result { return Result{v, r, evidence} }

	switch {
	case !legacy.present() && token.present(): // good or bad: there is nothing to compare it with
		return say(NotEvaluated, "")
	case !legacy.present():
		return say(MatchDeny, identity.TokenAbsent)
	case token.unavailable():
		return say(Indeterminate, cmp.Or(token.Auth.Primary(), identity.ShadowTimeout))
	case legacy.unavailable():
		return say(Indeterminate, cmp.Or(legacy.Auth.Primary(), identity.Throttled))
	case token.verified() && token.Denied.Indeterminate():
		return say(Indeterminate, token.Denied)
	case legacy.verified() && legacy.Denied.Indeterminate() && (rolesCount || token.verified() && token.Denied == ""):
		return say(Indeterminate, legacy.Denied)
	}

	tokenAllows := token.verified() && token.Denied == ""
	if !legacy.verified() {
		if tokenAllows {
			return say(LegacyLapsed, legacy.Auth.Primary())
		}
		return say(MatchDeny, legacy.Auth.Primary())
	}
	if legacy.Denied != "" && (tokenAllows || rolesCount) {
		if tokenAllows {
			return say(WouldOpen, legacy.Denied)
		}
		return say(MatchDeny, legacy.Denied)
	}

	// From here on the request is allowed today.
	switch {
	case !token.present():
		return say(NoToken, identity.TokenAbsent)
	case !token.verified():
		return say(WouldBreak, token.Auth.Primary())
	case token.Denied != "":
		return say(WouldBreak, token.Denied)
	}
	if reason := drift(legacy.Auth, token.Auth); reason != "" {
		return say(IdentityDrift, reason)
	}
	return say(MatchAllow, "")
}

// drift returns why two verified credentials are not the same identity, "" if
// they are.
func drift(legacy, token *identity.Authentication) identity.Reason {
	l, t := legacy.Principal, token.Principal
	if slices.Contains(legacy.MayBe, t.Name) {
		return "" // a shared credential may turn into any on its list
	}
	switch {
	case l.Name != t.Name && (!l.Mapped || !t.Mapped):
		return identity.PrincipalUnmapped
	case l.Name != t.Name:
		return identity.PrincipalMismatch
	case l.Team != t.Team:
		return identity.TeamMismatch
	case !l.SameRights(t):
		return identity.RoleMissing
	default:
		return ""
	}
}

// Sample says of two verified credentials that are not the same identity in what
// they differ: teams and roles, and of names only that they do. "" if they are the
// same, or one is not verified.
func Sample(legacy, token *identity.Authentication) string {
	if !legacy.OK() || !token.OK() {
		return ""
	}
	l, t := legacy.Principal, token.Principal
	switch drift(legacy, token) {
	case identity.PrincipalUnmapped:
		return unmapped(l, t, token.Token)
	case identity.PrincipalMismatch:
		if len(legacy.MayBe) > 0 {
			return identity.Sample("the token is of an account that is none of the %d into which the shared static credential may turn", len(legacy.MayBe))
		}
		if l.Team == t.Team {
			return "static credential and token are of two accounts of the team"
		}
		return identity.Sample("static credential and token are of two accounts: one of team %s, one of team %s", word(l.Team), word(t.Team))
	case identity.TeamMismatch:
		return identity.Sample("the static credential is of team %s, the token of team %s", word(l.Team), word(t.Team))
	case identity.RoleMissing:
		const room = 60
		return identity.Sample("by static credential the roles are %s, by token %s", identity.ShownWords(l.Roles, room), identity.ShownWords(t.Roles, room))
	default:
		return ""
	}
}

// unmapped says which of two principals no entry names.
func unmapped(l, t identity.Principal, said *identity.TokenInfo) string {
	issuer := ""
	if said != nil && said.Verified {
		issuer = " of issuer " + word(said.Issuer)
	}
	switch {
	case l.Mapped:
		return identity.Sample("the token%s is good, and no entry names its subject; one names the static credential", issuer)
	case t.Mapped:
		return identity.Sample("the token%s is of an account with an entry; no entry names the static credential", issuer)
	default:
		return identity.Sample("neither the static credential nor the subject of the token%s has an entry", issuer)
	}
}

// word is one of the configuration.
func word[T ~string](w T) string { return identity.ShownWords([]T{w}, identity.MaxSample) }
