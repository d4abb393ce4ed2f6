package app

import (
	"net/http"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/rollout/evidence"
)

// observation is what an event teaches about the cutover. It is pure, and ok is
// false for requests that teach nothing. It allocates nothing: o is filled on
// the request's path.
//
// An account stands there when its credential was proven: a run of whoever only
// names one would let strangers write a team's evidence.
func observation(ev *gateway.Event, o *evidence.Observation) (ok bool) {
	if ev.Decision.Outcome == gateway.Exempt {
		return false
	}
	token := ev.Token
	if ev.Shadowed {
		token = ev.ShadowToken
	}
	*o = evidence.Observation{
		At: ev.Start, Team: ev.Team(), Account: ev.Principal.Name,
		Run: ev.Call.Run, DayRun: ev.Profile == gateway.ProfileHTTP,
		Pipeline: ev.Enforcement.Pipeline, Family: ev.Call.Family,
		Scheme:  ev.Scheme(),
		Verdict: string(ev.Shadow.Verdict), Reason: ev.Shadow.Reason, Source: string(ev.Shadow.Evidence),
		Legacy:   ev.Legacy.OK(),
		Token:    token != nil && (token.Status == identity.StatusVerified || token.Status == identity.StatusRejected),
		Enforced: ev.Enforcement.Enforced, Brownout: ev.Enforcement.Brownout && ev.Enforcement.Enforced,
		Observed: ev.Mode == gateway.Observe, TraceID: ev.TraceID,
	}
	if !proven(ev) {
		o.Account = ""
	}
	// What both credentials deny says nothing about the token: it may be junk.
	if ev.Shadow.Verdict == shadow.MatchDeny {
		o.Token = false
	}
	if o.Pipeline == "" {
		o.Pipeline = ev.Call.Registers
	}
	if o.Token && token.Token != nil && token.Token.Verified {
		o.TokenExpiry = token.Token.Expiry
	}
	info, _ := ev.Decision.Reason.Info()
	// What makes the request itself unacceptable says nothing about credentials.
	o.Refused = ev.Decision.Outcome == gateway.Refused && info.Stage != identity.StageRequest
	o.Grade = gradeOf(ev.Shadow)
	if o.Scheme == identity.SchemeOIDC && !o.Legacy {
		// A token alone has nothing to be compared with: what counts is whether it
		// was let in.
		switch {
		case o.Refused:
			o.Grade, o.Reason = evidence.WouldBreak, ev.Decision.Reason
		case ev.Decision.Outcome == gateway.Unavailable:
			o.Grade, o.Reason = evidence.Indeterminate, ev.Decision.Reason
		}
	}
	if o.Grade >= evidence.NoToken {
		o.Detail = ev.Sample
	}
	o.WouldRefuse = wouldRefuse(ev)
	return true
}

// wouldRefuse is what a request that was let pass would be refused as, in mode
// enforce or if the roles of static credentials counted; zero if it would not be.
// The percentage of its team is not in it: that moves, and is applied to runs when
// the question is asked.
func wouldRefuse(ev *gateway.Event) (r evidence.Refusal) {
	switch d := ev.Decision; {
	case d.Outcome == gateway.WouldRefuse:
		r.Reason, r.Roles = d.Reason, d.Control == gateway.SideLegacy && d.Denied == d.Reason
	case !d.Forward():
		return r // refused
	case ev.Throttled: // judged in mode observe only
		r.Reason = identity.Throttled
	case d.Denied != "":
		r.Reason, r.Roles = d.Denied, true
	default:
		return r
	}
	r.Account = ev.Principal.Name
	if t := ev.Token; r.Account == "" && ev.Decision.Control == gateway.SideToken && t != nil && t.Token != nil && t.Token.Verified {
		r.Account = t.Principal.Name // signed, and expired
	}
	r.Already = ev.Status == http.StatusUnauthorized || ev.Status == http.StatusForbidden
	return r
}

// proven reports whether a credential that is in force names the principal. That
// of an expired or revoked one is told to its owner, and its requests are nobody's
// run: whoever found an old password could else fill a team's evidence.
func proven(ev *gateway.Event) bool {
	return ev.Legacy.OK() || ev.Decision.Control == gateway.SideToken && (ev.Token.OK() || ev.Decision.Grace)
}

// gradeOf is how bad a verdict makes a run.
func gradeOf(r shadow.Result) evidence.Grade {
	switch {
	case r.Verdict == shadow.WouldOpen:
		return evidence.WouldOpen
	case r.Verdict == shadow.IdentityDrift:
		return evidence.IdentityDrift
	case r.Verdict == shadow.WouldBreak:
		return evidence.WouldBreak
	case r.Verdict == shadow.NoToken:
		return evidence.NoToken
	case r.Verdict == shadow.Indeterminate, r.Verdict == shadow.NotEvaluated && r.Reason == identity.ShadowShed:
		return evidence.Indeterminate
	default:
		return evidence.Clean
	}
}
