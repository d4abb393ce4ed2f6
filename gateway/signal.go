package gateway

import (
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
)

// Signal returns the reason why the request is worth the attention of whoever
// looks after security, and false if it is not: signals tell of attempts and of
// doors that stand open, and not of a migration that is under way.
//
// A signal is, the first of these that applies:
//
//   - a client that the throttle holds up, or would in mode Enforce (throttled);
//   - a principal that speaks for the worker, or of the task, of another one,
//     whether it is refused for that or not (worker_mismatch; the event names
//     both);
//   - a request that is refused, or would be in mode Enforce, because its token
//     has another key or issuer than it should, is forged, or was made for
//     somebody else (the reasons of the stages key, signature and binding that
//     are not indeterminate); because its static credential is wrong or used
//     after its end (legacy_unknown, legacy_expired, legacy_revoked,
//     legacy_retired); or for any other reason whose owner is security
//     (cross_site);
//   - a verdict of the shadow that enforcement would let in whom legacy keeps
//     out, or let in somebody as somebody else (would_open, identity_drift),
//     with the verdict's reason.
//
// What is unavailable is none: nothing is known about it. Neither are tokens
// that have expired, requests without any, and right secrets of runs that must
// use OIDC (legacy_refused): those are facts of the migration.
func (e *Event) Signal() (identity.Reason, bool) {
	refused := e.Decision.Outcome == Refused || e.Decision.Outcome == WouldRefuse
	switch {
	case e.Throttled:
		return identity.Throttled, true
	case e.Other != "":
		return identity.WorkerMismatch, true
	case refused && refusalSignals(e.Decision.Reason):
		return e.Decision.Reason, true
	case e.Shadow.Verdict == shadow.WouldOpen, e.Shadow.Verdict == shadow.IdentityDrift:
		return e.Shadow.Reason, true
	default:
		return "", false
	}
}

// refusalSignals reports whether a refusal for that reason is a signal. In mode
// Observe a refusal may have an indeterminate reason.
func refusalSignals(r identity.Reason) bool {
	switch r {
	case identity.LegacyUnknown, identity.LegacyExpired, identity.LegacyRevoked, identity.LegacyRetired:
		return true
	}
	info, _ := r.Info()
	switch info.Stage {
	case identity.StageKey, identity.StageSignature, identity.StageBinding:
		return !info.Indeterminate
	default:
		return info.Owner == identity.OwnerSecurity
	}
}

// verdictSignals reports whether would_open or identity_drift can have that
// reason; see package shadow.
func verdictSignals(r identity.Reason) bool {
	switch r {
	case identity.PrincipalUnmapped, identity.PrincipalMismatch, identity.TeamMismatch,
		identity.RoleMissing, identity.ActionDenied, identity.TaskFamilyDenied, identity.TaskUnknown:
		return true
	default:
		return false
	}
}

// SignalReasons lists every reason that a signal can have, in the order of the
// closed list, for series that must exist at zero.
func SignalReasons() []identity.Reason {
	var all []identity.Reason
	for _, info := range identity.Reasons() {
		if info.Reason == identity.Throttled || refusalSignals(info.Reason) || verdictSignals(info.Reason) {
			all = append(all, info.Reason)
		}
	}
	return all
}

// SignalPrefix before the reason of a signal is its code, by which alerts find
// its access line. It is a contract, like the list of reasons.
const SignalPrefix = "security."
