package gateway

import (
	"cmp"
	"strings"

	"crossfade/gateway/identity"
	"crossfade/gateway/policy"
	"crossfade/gateway/shadow"
)

// What a request without a token lacks. The texts are fixed, since many requests may
// come like this and none shall cost more than the others.
const (
	noTokenBasic  = "a password alone: no token in " + CompanionHeader
	noTokenKey    = "an API key alone: no token in Authorization or " + CompanionHeader
	noTokenStatic = "a static bearer token alone: no token in " + CompanionHeader
	noTokenAtAll  = "neither a header Authorization nor " + CompanionHeader
	onlyCompanion = "a token in " + CompanionHeader + " and nothing beside it: it governs in Authorization only"
)

// sample says of a request that would not do in what it falls short, for whoever may
// see the team: see identity.Sample. "" for one that is clean or was not judged; for
// those it allocates nothing.
func (h *Handler) sample(ev *Event, c *Call, token *identity.Authentication, r shadow.Result) string {
	switch r.Verdict {
	case shadow.NoToken:
		return tokenless(ev.Presented)
	case shadow.WouldBreak:
		return h.short(token, c, ev.Other, r.Reason)
	case shadow.WouldOpen:
		return cmp.Or(opens(h.why(ev.Legacy, c, ev.Other)), meaning(r.Reason))
	case shadow.IdentityDrift:
		return cmp.Or(shadow.Sample(ev.Legacy, token), meaning(r.Reason))
	case shadow.NotEvaluated, shadow.MatchDeny:
		switch d := ev.Decision; {
		case d.Outcome != Refused && d.Outcome != WouldRefuse:
			return ""
		case d.Reason == identity.TokenAbsent:
			return tokenless(ev.Presented)
		case d.Control == SideToken: // which has nothing to be compared with
			return h.short(token, c, ev.Other, d.Reason)
		}
	}
	return ""
}

// tokenless says what was presented in place of a token.
func tokenless(p PresentedSchemes) string {
	switch {
	case p.Legacy == identity.SchemeBasic:
		return noTokenBasic
	case p.Legacy == identity.SchemeAPIKey:
		return noTokenKey
	case p.Legacy == identity.SchemeStaticBearer:
		return noTokenStatic
	case p.Token:
		return onlyCompanion
	default:
		return noTokenAtAll
	}
}

// short says in what a token falls short: it is not good, or may not do this.
func (h *Handler) short(token *identity.Authentication, c *Call, other string, reason identity.Reason) string {
	if token.OK() {
		return cmp.Or(h.why(token, c, other), meaning(reason))
	}
	if token != nil && token.Primary() == reason {
		return cmp.Or(token.Sample, meaning(reason))
	}
	return meaning(reason)
}

// opens is why the static credential may not do what the token may.
func opens(why string) string {
	if why == "" {
		return ""
	}
	return identity.Sample("by static credential it is denied, by token not: %s", why)
}

// meaning is what the closed list says of a reason, which is better than nothing.
func meaning(reason identity.Reason) string {
	info, _ := reason.Info()
	return strings.TrimSuffix(info.Means, ".")
}

// why says in a sample why the principal of a credential may not make a call; "" if it
// may. Other is as for denied, which it follows.
func (h *Handler) why(a *identity.Authentication, c *Call, other string) string {
	if a == nil || a.Principal.Name == "" {
		return ""
	}
	roles := a.Principal.Roles
	request := policy.Request{Action: c.Action, Family: c.Family, EveryFamily: c.EveryFamily}
	if why := h.Policy.Explain(roles, request); why != "" {
		return why
	}
	allows := func() string { return h.Policy.Allows(roles, c.Action) }
	switch {
	case c.Unresolved == identity.TaskUnknown && h.restricted(a, c.Action):
		return identity.Sample("needs %s on a task that was never registered, so its family is not known; its roles allow %s", c.Action, allows())
	case c.Unresolved == identity.TaskFamilyDenied && h.restricted(a, c.Action):
		return identity.Sample("%s; the batch that it names is of another family", policy.Needs(request))
	case c.Unresolved != "" && h.restricted(a, c.Action):
		return meaning(c.Unresolved)
	case h.foreignDependency(a, c):
		return identity.Sample("%s and on those that the task depends on, and one of them is another; its roles allow %s", policy.Needs(request), allows())
	case other != "":
		return "the worker, or the task, is another account's"
	default:
		return ""
	}
}
