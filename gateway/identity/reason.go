package identity

import (
	"cmp"
	"slices"
)

// Reason says why a credential or a request was not accepted. The list is
// closed: metrics label by it, alerts and pages advise by it, so a new reason
// is a change of contract.
type Reason string

// Stage is the step of the straight pass that finds a reason.
type Stage string

// Owner is who can do something about a reason.
type Owner string

// The owners are people, not systems.
const (
	OwnerTeam     Owner = "team"
	OwnerPlatform Owner = "platform"
	OwnerIDP      Owner = "idp"
	OwnerSecurity Owner = "security"
)

// The stages, in the order in which a request meets them.
const (
	StageExtract       Stage = "extract"
	StageParse         Stage = "parse"
	StageKey           Stage = "key"
	StageSignature     Stage = "signature"
	StageTime          Stage = "time"
	StageBinding       Stage = "binding"
	StageIdentity      Stage = "identity"
	StageAuthorisation Stage = "authorisation"
	StageLegacy        Stage = "legacy"
	StageRequest       Stage = "request"
	StageGateway       Stage = "gateway"
)

// The reasons, in the order that decides which one is primary.
const (
	TokenAbsent         Reason = "token_absent"
	SchemeUnsupported   Reason = "scheme_unsupported"
	MultipleCredentials Reason = "multiple_credentials"
	TokenInQuery        Reason = "token_in_query" // RFC 6750 section 5.3, RFC 9700 section 4.3.2
	TokenOversize       Reason = "token_oversize"

	MalformedJWT      Reason = "malformed_jwt"
	ClaimTypeInvalid  Reason = "claim_type_invalid"
	AmbiguousClaim    Reason = "ambiguous_claim"
	CritUnsupported   Reason = "crit_unsupported" // RFC 7515 section 4.1.11
	JWEUnsupported    Reason = "jwe_unsupported"
	OpaqueUnsupported Reason = "opaque_unsupported"

	IssuerUnknown       Reason = "issuer_unknown"
	AlgNotAllowed       Reason = "alg_not_allowed"
	AlgKeyMismatch      Reason = "alg_key_mismatch"
	KidUnknown          Reason = "kid_unknown"
	KidRefreshThrottled Reason = "kid_refresh_throttled"
	JWKSUnavailable     Reason = "jwks_unavailable"

	SignatureInvalid Reason = "signature_invalid"

	ExpiredMidRun      Reason = "expired_mid_run"
	Expired            Reason = "expired"
	NotYetValid        Reason = "not_yet_valid"
	IATInFuture        Reason = "iat_in_future"
	ExpMissing         Reason = "exp_missing"
	LifetimeExceedsMax Reason = "lifetime_exceeds_max"

	AudMissing      Reason = "aud_missing"
	AudMismatch     Reason = "aud_mismatch"
	AzpMismatch     Reason = "azp_mismatch"
	TenantMismatch  Reason = "tenant_mismatch"
	TypMismatch     Reason = "typ_mismatch"
	IDTokenAsAccess Reason = "id_token_as_access"

	SubjectMissing    Reason = "subject_missing"
	GroupsMissing     Reason = "groups_missing"
	GroupsOverage     Reason = "groups_overage"
	EmailUnverified   Reason = "email_unverified"
	PrincipalUnmapped Reason = "principal_unmapped"
	PrincipalMismatch Reason = "principal_mismatch"
	TeamUnmapped      Reason = "team_unmapped"
	TeamMismatch      Reason = "team_mismatch"

	RoleMissing       Reason = "role_missing"
	ActionDenied      Reason = "action_denied"
	TaskFamilyDenied  Reason = "task_family_denied"
	InsufficientScope Reason = "insufficient_scope" // RFC 6750 section 3.1

	LegacyUnknown Reason = "legacy_unknown"
	LegacyExpired Reason = "legacy_expired"
	LegacyRevoked Reason = "legacy_revoked"
	LegacyRefused Reason = "legacy_refused"
	LegacyRetired Reason = "legacy_retired"

	RPCAmbiguous   Reason = "rpc_ambiguous"
	RPCUnknown     Reason = "rpc_unknown"
	TaskUnknown    Reason = "task_unknown"
	WorkerMismatch Reason = "worker_mismatch"
	CrossSite      Reason = "cross_site"
	BodyOversize   Reason = "body_oversize"
	Throttled      Reason = "throttled"

	ProxyUntrusted    Reason = "proxy_untrusted"
	OriginalAmbiguous Reason = "original_ambiguous"

	ShadowTimeout    Reason = "shadow_timeout"
	ShadowShed       Reason = "shadow_shed"
	PolicyError      Reason = "policy_error"
	StoreUnavailable Reason = "store_unavailable"
	ConfigSkew       Reason = "config_skew"
	AuditUnavailable Reason = "audit_unavailable"
)

// ReasonInfo is what is fixed about a reason.
type ReasonInfo struct {
	Reason Reason
	Stage  Stage
	Owner  Owner
	// Indeterminate reasons say that nothing could be judged: never a
	// mismatch, and 503 under enforcement.
	Indeterminate bool
	// Means is one sentence for people.
	Means string
}

// reasons is the closed list; its order is the order of precedence.
var reasons = [...]ReasonInfo{
	{TokenAbsent, StageExtract, OwnerTeam, false, "No credential that could govern the request was sent."},
	{SchemeUnsupported, StageExtract, OwnerTeam, false, "The Authorization scheme is one that nobody handles."},
	{MultipleCredentials, StageExtract, OwnerTeam, false, "Two credentials of one kind were sent."},
	{TokenInQuery, StageExtract, OwnerTeam, false, "A token stood in the URL, where logs and browsers keep it."},
	{TokenOversize, StageExtract, OwnerTeam, false, "The token is larger than the bound."},

	{MalformedJWT, StageParse, OwnerTeam, false, "The token is not a well-formed JWT."},
	{ClaimTypeInvalid, StageParse, OwnerTeam, false, "A registered claim has the wrong JSON type."},
	{AmbiguousClaim, StageParse, OwnerTeam, false, "A claim stands twice, or once more in other letters."},
	{CritUnsupported, StageParse, OwnerTeam, false, "The token demands an extension that is not understood."},
	{JWEUnsupported, StageParse, OwnerTeam, false, "The token is encrypted; only signed tokens are read."},
	{OpaqueUnsupported, StageParse, OwnerTeam, false, "The token is opaque; only JWTs can be verified here."},

	{IssuerUnknown, StageKey, OwnerTeam, false, "The token comes from an issuer that is not configured."},
	{AlgNotAllowed, StageKey, OwnerTeam, false, "The signature algorithm is not on the issuer's allow-list."},
	{AlgKeyMismatch, StageKey, OwnerTeam, false, "The algorithm does not fit the key that the token names."},
	{KidUnknown, StageKey, OwnerTeam, false, "The issuer publishes no key of that id."},
	{KidRefreshThrottled, StageKey, OwnerIDP, true, "The key id is unknown and the key set was fetched too recently to ask again."},
	{JWKSUnavailable, StageKey, OwnerIDP, true, "The issuer's keys could not be fetched."},

	{SignatureInvalid, StageSignature, OwnerSecurity, false, "The signature does not hold: a forgery or a wrong key."},

	{ExpiredMidRun, StageTime, OwnerTeam, false, "The run began with a good token and did not refresh it."},
	{Expired, StageTime, OwnerTeam, false, "The token has expired."},
	{NotYetValid, StageTime, OwnerTeam, false, "The token is not valid yet."},
	{IATInFuture, StageTime, OwnerTeam, false, "The token was issued in the future."},
	{ExpMissing, StageTime, OwnerTeam, false, "The token has no expiry."},
	{LifetimeExceedsMax, StageTime, OwnerTeam, false, "The token lives longer than this gateway allows."},

	{AudMissing, StageBinding, OwnerTeam, false, "The token names no audience."},
	{AudMismatch, StageBinding, OwnerTeam, false, "The token is meant for another audience."},
	{AzpMismatch, StageBinding, OwnerTeam, false, "The token was issued to a client that is not expected."},
	{TenantMismatch, StageBinding, OwnerTeam, false, "The token comes from another tenant."},
	{TypMismatch, StageBinding, OwnerTeam, false, "The token is of another type."},
	{IDTokenAsAccess, StageBinding, OwnerTeam, false, "An ID token was sent where an access token belongs."},

	{SubjectMissing, StageIdentity, OwnerIDP, false, "The token names no subject."},
	{GroupsMissing, StageIdentity, OwnerIDP, false, "The token carries no groups."},
	{GroupsOverage, StageIdentity, OwnerIDP, false, "The provider left the groups out because there are too many."},
	{EmailUnverified, StageIdentity, OwnerIDP, false, "The provider has not verified the e-mail address."},
	{PrincipalUnmapped, StageIdentity, OwnerPlatform, false, "No entry and no claim says whose identity this is."},
	{PrincipalMismatch, StageIdentity, OwnerPlatform, false, "The two credentials belong to different principals."},
	{TeamUnmapped, StageIdentity, OwnerPlatform, false, "The claims do not name exactly one configured team."},
	{TeamMismatch, StageIdentity, OwnerPlatform, false, "The two credentials belong to different teams."},

	{RoleMissing, StageAuthorisation, OwnerTeam, false, "The principal has no role."},
	{ActionDenied, StageAuthorisation, OwnerTeam, false, "No role of the principal allows the action."},
	{TaskFamilyDenied, StageAuthorisation, OwnerTeam, false, "No role of the principal allows the action on this task family."},
	{InsufficientScope, StageAuthorisation, OwnerTeam, false, "The token lacks a scope."},

	{LegacyUnknown, StageLegacy, OwnerTeam, false, "The user or key is not known, or the secret is wrong."},
	{LegacyExpired, StageLegacy, OwnerTeam, false, "The static credential has expired."},
	{LegacyRevoked, StageLegacy, OwnerTeam, false, "The static credential was revoked."},
	{LegacyRefused, StageLegacy, OwnerTeam, false, "The run must use OIDC; the secret was right."},
	{LegacyRetired, StageLegacy, OwnerTeam, false, "The team has retired its static credentials."},

	{RPCAmbiguous, StageRequest, OwnerTeam, false, "The call can be read in more than one way."},
	{RPCUnknown, StageRequest, OwnerTeam, false, "The call is not one that the profile knows."},
	{TaskUnknown, StageRequest, OwnerTeam, false, "The task's family is not known."},
	{WorkerMismatch, StageRequest, OwnerSecurity, false, "Another principal speaks for this worker."},
	{CrossSite, StageRequest, OwnerSecurity, false, "The request does not show that a page of this address made it."},
	{BodyOversize, StageRequest, OwnerTeam, false, "The body is larger than the bound."},
	{Throttled, StageRequest, OwnerTeam, false, "Too many attempts; try again later."},
	{ProxyUntrusted, StageRequest, OwnerSecurity, false, "Only a trusted proxy may ask about the requests of others."},
	{OriginalAmbiguous, StageRequest, OwnerPlatform, false, "It cannot be told which request the proxy asks about."},

	{ShadowTimeout, StageGateway, OwnerPlatform, true, "The shadow had no time to finish."},
	{ShadowShed, StageGateway, OwnerPlatform, true, "The shadow's queue was full."},
	{PolicyError, StageGateway, OwnerPlatform, true, "The policy could not be evaluated."},
	{StoreUnavailable, StageGateway, OwnerPlatform, true, "The store could not be reached."},
	{ConfigSkew, StageGateway, OwnerPlatform, true, "Replicas run different configurations."},
	{AuditUnavailable, StageGateway, OwnerPlatform, true, "The audit log could not be written."},
}

var rank = func() map[Reason]int {
	m := make(map[Reason]int, len(reasons))
	for i, r := range reasons {
		m[r.Reason] = i
	}
	return m
}()

// Reasons returns the closed list in order of precedence.
func Reasons() []ReasonInfo { return slices.Clone(reasons[:]) }

// Info returns what is fixed about r; ok is false for a word that is not on
// the list.
func (r Reason) Info() (info ReasonInfo, ok bool) {
	i, ok := rank[r]
	if !ok {
		return ReasonInfo{Reason: r}, false
	}
	return reasons[i], true
}

// Indeterminate reports whether r says that nothing could be judged.
func (r Reason) Indeterminate() bool {
	info, _ := r.Info()
	return info.Indeterminate
}

// SortReasons returns the reasons in order of precedence without duplicates;
// the first one is the primary reason. Words that are not on the list come
// last, in alphabetical order.
func SortReasons(in []Reason) []Reason {
	out := slices.Clone(in)
	at := func(r Reason) int {
		if i, ok := rank[r]; ok {
			return i
		}
		return len(reasons)
	}
	slices.SortFunc(out, func(a, b Reason) int { return cmp.Or(cmp.Compare(at(a), at(b)), cmp.Compare(a, b)) })
	return slices.Compact(out)
}
