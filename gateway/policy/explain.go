package policy

import (
	"fmt"
	"maps"
	"slices"

	"crossfade/gateway/identity"
)

// explainRoom is how long, in bytes, each list in an explanation is: the roles, and
// what they allow. See identity.MaxSample.
const explainRoom = 60

// Explain says in a sample why Denies denies a request to whom has the roles: what it
// needs and what they allow; "" if they allow it. Of the request it names the family
// if that may be shown, and all else is of the configuration. It is for failures
// alone: it is not cheap.
func (p *Policy) Explain(roles []identity.Role, r Request) string {
	reason := p.Denies(roles, r)
	if reason == "" {
		return ""
	}
	needs := Needs(r)
	has := "its roles " + identity.ShownWords(roles, explainRoom)
	if len(roles) == 1 {
		has = "its role " + identity.ShownWords(roles, explainRoom)
	}
	switch {
	case reason == identity.RoleMissing && len(roles) == 0:
		return identity.Sample("%s; it has no role", needs)
	case reason == identity.RoleMissing:
		return identity.Sample("%s; of %s none is configured", needs, has)
	case r.Action == "":
		return identity.Sample("%s, which no role allows", needs)
	case reason == identity.ActionDenied && len(p.actions(roles)) == 0:
		return identity.Sample("%s; %s: nothing", needs, has)
	case reason == identity.ActionDenied:
		return identity.Sample("%s; %s: %s only", needs, has, identity.ShownWords(p.actions(roles), explainRoom))
	default:
		return identity.Sample("%s; %s: %s", needs, has, identity.ShownWords(p.allowed(roles, r.Action), explainRoom))
	}
}

// Needs says in a part of a sample what a request needs.
func Needs(r Request) string {
	family, shown := identity.ShownName(r.Family)
	switch {
	case r.Action == "":
		return "the call is none that the profile knows"
	case r.EveryFamily:
		return fmt.Sprintf("needs %s on every task family", r.Action)
	case r.Family == "":
		return fmt.Sprintf("needs %s", r.Action)
	case shown:
		return fmt.Sprintf("needs %s on task family %s", r.Action, family)
	default:
		return fmt.Sprintf("needs %s on a task family whose name cannot be shown", r.Action)
	}
}

// Allows says in a part of a sample on which task families the roles allow an action.
func (p *Policy) Allows(roles []identity.Role, action identity.Action) string {
	if p == nil {
		return "*"
	}
	return identity.ShownWords(p.allowed(roles, action), explainRoom)
}

// actions are those that the roles allow on some family, sorted.
func (p *Policy) actions(roles []identity.Role) []identity.Action {
	set := make(map[identity.Action]bool)
	for _, role := range roles {
		for action, allowed := range p.grants[role] {
			set[action] = set[action] || !allowed.empty()
		}
	}
	maps.DeleteFunc(set, func(_ identity.Action, some bool) bool { return !some })
	return slices.Sorted(maps.Keys(set))
}

// allowed are the patterns on which the roles allow an action, sorted.
func (p *Policy) allowed(roles []identity.Role, action identity.Action) []string {
	var all []string
	for _, role := range roles {
		allowed := p.grants[role][action]
		if allowed.all {
			all = append(all, "*")
		}
		for _, prefix := range allowed.prefixes {
			all = append(all, prefix+"*")
		}
		all = slices.AppendSeq(all, maps.Keys(allowed.exact))
	}
	return Canonical(all)
}
