package identity

import (
	"slices"
	"time"
)

// Team is the id of a team, the unit of rollout. It never changes, and it is
// always derived from a verified credential.
type Team string

// Unassigned is the team of every principal that no entry maps. It is pinned
// at 0 percent.
const Unassigned Team = "unassigned"

// Role is the name of a set of permissions; see package policy.
type Role string

// Principal is whom a verified credential belongs to. It is immutable once
// built.
type Principal struct {
	// Name is unique over the deployment: the entry's name, "legacy:<user>"
	// for an unmapped legacy user, or "oidc:<subject>@<issuer>" for a token
	// without an entry.
	Name string
	// Team is never empty for a verified principal.
	Team Team
	// Roles are sorted and without duplicates.
	Roles []Role
	// Mapped reports whether an entry of the directory names the principal.
	Mapped bool
}

// SameRights reports whether two principals are in one team with the same
// roles.
func (p Principal) SameRights(q Principal) bool {
	return p.Team == q.Team && slices.Equal(p.Roles, q.Roles)
}

// Status says how far the judgement of a credential came.
type Status uint8

// The states of an Authentication. The zero value is StatusAbsent.
const (
	// StatusAbsent means that no such credential was presented.
	StatusAbsent Status = iota
	// StatusVerified means that the credential is good and Principal is set.
	StatusVerified
	// StatusRejected means that the credential was judged and is not good.
	StatusRejected
	// StatusUnavailable means that it could not be judged, through no fault of
	// the client. It is never a mismatch and never a reason to let someone in.
	StatusUnavailable
	// StatusPending means that it was presented and is not judged yet: a
	// companion token that waits for the shadow.
	StatusPending
)

// String returns the word used in golden tables and logs.
func (s Status) String() string {
	switch s {
	case StatusVerified:
		return "verified"
	case StatusRejected:
		return "rejected"
	case StatusUnavailable:
		return "unavailable"
	case StatusPending:
		return "pending"
	default:
		return "absent"
	}
}

// Authentication is the judgement of one credential. Authenticators return
// shared, cached values: nobody may change one after it was returned.
type Authentication struct {
	Status Status
	// Reasons are all failures found, the primary one first; empty when
	// verified. See Primary.
	Reasons []Reason
	// Principal is set when Status is StatusVerified, for a legacy credential
	// whose secret was right but which is expired or revoked, and for a token of
	// which nothing is wrong but that it has expired.
	Principal Principal
	// CredentialID names a static credential without its secret
	// ("basic:svc-etl", "api_key:etl-2023"); empty for tokens and for
	// credentials that are not known.
	CredentialID string
	// MayBe lists the names of the OIDC principals that a shared legacy
	// credential may turn into; empty for a credential of one principal.
	MayBe []string
	// Token holds what a token said; nil for legacy credentials and for tokens
	// that could not be parsed.
	Token *TokenInfo
	// Expires is when the credential ends; zero when it has no end or is
	// unknown. Legacy successes announce it (RFC 8594).
	Expires time.Time
	// RetryAfter is how long a client must wait that has failed too often; zero
	// for all others. It stands beside StatusUnavailable and Throttled.
	RetryAfter time.Duration
	// Detail is one sentence for the operator: what was found and what was
	// expected. It may name configuration and claims, so it goes to audit
	// lines and tools and never to a client. It never holds a secret.
	Detail string
	// Sample says of the primary reason what its owner needs to repair it, with
	// claims by their names: see MaxSample. "" if nothing is wrong, and for legacy
	// credentials.
	Sample string
}

// TokenInfo is what a token said about itself. Verified tells whether the
// signature held: before that, everything here is the client's word.
type TokenInfo struct {
	Verified bool
	Issuer   string
	Subject  string
	// ID is the claim jti (RFC 7519 section 4.1.7); may be empty.
	ID string
	// Digest is what the gateway itself calls the token: the first 16 bytes of
	// its SHA-256, in hex. It tells tokens without an ID apart and cannot be
	// used as one.
	Digest   string
	Audience []string
	// ClientID is azp, or client_id (RFC 9068 section 2.2), or cid.
	ClientID string
	Email    string
	Groups   []string
	IssuedAt time.Time
	Expiry   time.Time
	KeyID    string
	Alg      string
}

// OK reports whether the credential is verified.
func (a *Authentication) OK() bool { return a != nil && a.Status == StatusVerified }

// Primary returns the primary reason of a failure and "" otherwise.
func (a *Authentication) Primary() Reason {
	if a == nil || len(a.Reasons) == 0 {
		return ""
	}
	return a.Reasons[0]
}

// Reject builds a rejection with its reasons sorted, the primary one first.
func Reject(detail string, reasons ...Reason) *Authentication {
	sorted := SortReasons(reasons)
	status := StatusRejected
	if len(sorted) > 0 && sorted[0].Indeterminate() {
		status = StatusUnavailable
	}
	return &Authentication{Status: status, Reasons: sorted, Detail: detail}
}

// Action is what a request wants to do with the upstream. Roles grant actions.
type Action string

// The actions. The empty action is a call that the profile does not know.
const (
	ActionExecute Action = "execute"
	ActionView    Action = "view"
	ActionAdmin   Action = "admin"
)
