package gateway

import (
	"cmp"

	"crossfade/gateway/identity"
)

// Mode is the platform's first switch.
type Mode uint8

// The modes. The zero value refuses nothing.
const (
	// Observe refuses nothing that the upstream would not refuse itself.
	Observe Mode = iota
	// Enforce applies the decision.
	Enforce
)

// String returns the word of the configuration.
func (m Mode) String() string {
	if m == Enforce {
		return "enforce"
	}
	return "observe"
}

// Side names one of the two credentials of a request.
type Side uint8

// The sides. SideNone is no credential at all.
const (
	SideNone Side = iota
	SideLegacy
	SideToken
)

// String returns the word used in golden tables and spans.
func (s Side) String() string {
	switch s {
	case SideLegacy:
		return "legacy"
	case SideToken:
		return "token"
	default:
		return "none"
	}
}

// Outcome is what happens to a request. Its text is a metric label.
type Outcome string

// The outcomes.
const (
	// Allowed: forwarded.
	Allowed Outcome = "allowed"
	// Refused: answered by the gateway; the client can do something about it.
	Refused Outcome = "refused"
	// Unavailable: answered by the gateway with a 503; something that identity
	// rests on is away.
	Unavailable Outcome = "unavailable"
	// WouldRefuse: forwarded because the mode is Observe; Enforce would have
	// refused it, or have been unavailable.
	WouldRefuse Outcome = "would_refuse"
	// Exempt: forwarded without identity.
	Exempt Outcome = "exempt"
)

// Outcomes lists every outcome, for series that must exist at zero.
func Outcomes() []Outcome { return []Outcome{Allowed, Refused, Unavailable, WouldRefuse, Exempt} }

// Judged is what the decision needs to know of one credential.
type Judged struct {
	Status identity.Status
	// Reason is the primary reason of a failure.
	Reason identity.Reason
	// Denied is why the principal's roles deny the request, "" if they allow.
	Denied identity.Reason
}

// Facts are all that a decision rests on: plain values, no I/O behind them.
type Facts struct {
	Mode Mode
	// RolesCount tells that roles also govern legacy requests
	// (authorization: enforce).
	RolesCount bool
	// Exempt requests need no identity.
	Exempt bool
	// Problem is what makes the request itself unacceptable, or what keeps the
	// gateway from serving any, "" if nothing.
	Problem identity.Reason
	Legacy  Judged
	Token   Judged
	// Companion tells that the token does not govern by itself.
	Companion bool
	// Enforced tells that the run must use OIDC, Retired that its team has
	// given up legacy credentials for good.
	Enforced, Retired bool
	// Grace tells that the request reports the end of a task that the same
	// identity has started while it was good. It excuses that the identity has
	// expired, or is refused to the run, and nothing else.
	Grace bool
	// RolloutUnknown tells that no percentage has ever been read, so that
	// nobody can say whether the run is enforced.
	RolloutUnknown bool
}

// Decision is what Decide says.
type Decision struct {
	Outcome Outcome
	// Reason is why the request is, or in mode Observe would be, refused.
	Reason identity.Reason
	// Control is the credential that governs, Candidate the one that is only
	// evaluated.
	Control, Candidate Side
	// Grace tells that the request is allowed although its identity has lapsed:
	// it reports the end of a task that the same identity started while it was
	// good.
	Grace bool
	// Denied is why the roles of the verified legacy principal that governs deny
	// the request, whether they count or not; "" if they allow it.
	Denied identity.Reason
}

// Forward reports whether the request goes on to the upstream.
func (d Decision) Forward() bool { return d.Outcome != Refused && d.Outcome != Unavailable }

// TokenGoverns reports whether the token must be judged before Decide can be
// asked: it governs, alone or because the run of a verified legacy credential
// is enforced.
func (f Facts) TokenGoverns() bool {
	if f.Exempt || f.Problem != "" || f.Token.Status == identity.StatusAbsent {
		return false
	}
	return !f.Companion || f.Legacy.Status == identity.StatusVerified && f.must()
}

// must reports whether legacy credentials are refused to the run.
func (f Facts) must() bool { return f.Mode == Enforce && (f.Enforced || f.Retired) }

// Decide applies the table of the design. It is pure, and it is total: facts
// that cannot be, like a governing token that nobody judged, are decided too,
// and closed.
func Decide(f Facts) Decision {
	d := judge(f)
	if f.Mode == Observe && !d.Forward() {
		d.Outcome = WouldRefuse
	}
	return d
}

func judge(f Facts) Decision {
	switch {
	case f.Exempt:
		return Decision{Outcome: Exempt}
	case f.Problem != "" && f.Problem.Indeterminate(): // no fault of the request
		return Decision{Outcome: Unavailable, Reason: f.Problem}
	case f.Problem != "":
		return Decision{Outcome: Refused, Reason: f.Problem}
	case f.Token.Status != identity.StatusAbsent && !f.Companion:
		return byToken(f, SideNone)
	}

	candidate := SideNone
	if f.Token.Status != identity.StatusAbsent {
		candidate = SideToken
	}
	byLegacy := func(o Outcome, r identity.Reason) Decision {
		d := Decision{Outcome: o, Reason: r, Control: SideLegacy, Candidate: candidate}
		if f.Legacy.Status == identity.StatusVerified {
			d.Denied = f.Legacy.Denied
		}
		return d
	}
	switch f.Legacy.Status {
	case identity.StatusVerified:
	case identity.StatusAbsent: // nothing at all, or a companion alone
		return Decision{Outcome: Refused, Reason: identity.TokenAbsent, Candidate: candidate}
	case identity.StatusRejected:
		return byLegacy(Refused, cmp.Or(f.Legacy.Reason, identity.PolicyError))
	default:
		return byLegacy(Unavailable, cmp.Or(f.Legacy.Reason, identity.PolicyError))
	}

	switch {
	case f.RolloutUnknown && f.Mode == Enforce:
		return byLegacy(Unavailable, identity.StoreUnavailable)
	case f.must() && candidate == SideToken:
		return byToken(f, SideLegacy)
	case f.must() && f.Grace && !f.Retired && !(f.RolesCount && f.Legacy.Denied != ""):
		d := byLegacy(Allowed, "")
		d.Grace = true
		return d
	case f.must() && f.Retired:
		return byLegacy(Refused, identity.LegacyRetired)
	case f.must():
		return byLegacy(Refused, identity.LegacyRefused)
	case f.RolesCount && f.Legacy.Denied.Indeterminate():
		return byLegacy(Unavailable, f.Legacy.Denied)
	case f.RolesCount && f.Legacy.Denied != "":
		return byLegacy(Refused, f.Legacy.Denied)
	default:
		return byLegacy(Allowed, "")
	}
}

// byToken decides a request that the token governs. It never falls back to the
// legacy credential, however good that is.
func byToken(f Facts, candidate Side) Decision {
	d := Decision{Control: SideToken, Candidate: candidate}
	lapsed := f.Token.Reason == identity.Expired || f.Token.Reason == identity.ExpiredMidRun
	switch {
	case f.Token.Status == identity.StatusRejected && f.Grace && lapsed:
		d.Outcome, d.Grace = Allowed, true
	case f.Token.Status == identity.StatusRejected:
		d.Outcome, d.Reason = Refused, cmp.Or(f.Token.Reason, identity.PolicyError)
	case f.Token.Status != identity.StatusVerified:
		d.Outcome, d.Reason = Unavailable, cmp.Or(f.Token.Reason, identity.PolicyError)
	case f.Token.Denied.Indeterminate():
		d.Outcome, d.Reason = Unavailable, f.Token.Denied
	case f.Token.Denied != "":
		d.Outcome, d.Reason = Refused, f.Token.Denied
	default:
		d.Outcome = Allowed
	}
	return d
}
