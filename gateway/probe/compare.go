package probe

import (
	"fmt"

	"crossfade/gateway/identity"
	"crossfade/gateway/policy"
	"crossfade/gateway/shadow"
)

// Compare judges a token beside the legacy credential of expected, which counts
// as verified: nobody presents it, so whether it has expired is not looked at.
//
// A request has an action and a probe has none. Compare asks for the first of
// execute, view and admin that either side may do on some family, and for
// execute when neither may do anything; it returns the one that it asked for.
// What differs beyond that shows as identity_drift, which compares all roles.
func Compare(
	expected identity.Principal, mayBe []string, token *identity.Authentication, p *policy.Policy, rolesCount bool,
) (identity.Action, shadow.Result) {
	legacy := shadow.Side{Auth: &identity.Authentication{
		Status: identity.StatusVerified, Principal: expected, MayBe: mayBe,
	}}
	candidate := shadow.Side{Auth: token}
	action := identity.ActionExecute
	if token.OK() {
		for _, a := range []identity.Action{identity.ActionExecute, identity.ActionView, identity.ActionAdmin} {
			if denies(p, expected, a) == "" || denies(p, token.Principal, a) == "" {
				action = a
				break
			}
		}
		legacy.Denied = denies(p, expected, action)
		candidate.Denied = denies(p, token.Principal, action)
	}
	result := shadow.Compare(legacy, candidate, rolesCount)
	result.Evidence = shadow.EvidenceProbe
	return action, result
}

func denies(p *policy.Policy, who identity.Principal, action identity.Action) identity.Reason {
	return p.Denies(who.Roles, policy.Request{Action: action})
}

// difference says how two principals differ, or what both are.
func difference(legacy, token identity.Principal) string {
	switch {
	case legacy.Name != token.Name:
		return fmt.Sprintf("the token belongs to %q of team %s with roles %v; the entry is that of %s of team %s with roles %v",
			token.Name, token.Team, token.Roles, legacy.Name, legacy.Team, legacy.Roles)
	case legacy.Team != token.Team:
		return fmt.Sprintf("the token is in team %s; the entry is in team %s", token.Team, legacy.Team)
	default:
		return fmt.Sprintf("the token has the roles %v; the legacy credential has %v", token.Roles, legacy.Roles)
	}
}
