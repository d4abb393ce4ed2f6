// Package policy says what roles allow: an action on a task family. It is pure
// and does no I/O; a Policy is immutable, and a reload builds a new one.
package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"crossfade/gateway/identity"
)

// Grant lists, for each action, the patterns of task families that a role
// allows. A pattern is a family's exact name, or a prefix that ends in "*";
// "*" alone is every family. Patterns are case-sensitive, like families.
type Grant map[identity.Action][]string

// Policy maps roles to grants. The nil Policy allows everything, which is what
// a deployment without roles does.
type Policy struct {
	grants map[identity.Role]map[identity.Action]patterns
}

// patterns is a compiled list.
type patterns struct {
	all      bool
	exact    map[string]bool
	prefixes []string
}

// Request is what a principal wants to do.
type Request struct {
	// Action is empty for a call that the profile does not know, which no
	// role allows.
	Action identity.Action
	// Family is the task family; "" when the call names none.
	Family string
	// EveryFamily asks for the right to all families at once: calls that act
	// on everything, or on a family that cannot be told from the call.
	EveryFamily bool
}

// New compiles the grants. The error joins every mistake, in order of role and
// action. Without any grants, nobody may do anything.
func New(grants map[identity.Role]Grant) (*Policy, error) {
	p := &Policy{grants: make(map[identity.Role]map[identity.Action]patterns, len(grants))}
	var errs []error
	for _, role := range slices.Sorted(maps.Keys(grants)) {
		if role == "" {
			errs = append(errs, errors.New("a role has no name"))
		}
		compiled := make(map[identity.Action]patterns, len(grants[role]))
		for _, action := range slices.Sorted(maps.Keys(grants[role])) {
			switch action {
			case identity.ActionExecute, identity.ActionView, identity.ActionAdmin:
			default:
				errs = append(errs, fmt.Errorf("role %q: %q is no action: use execute, view or admin", role, action))
				continue
			}
			c, mistakes := compile(grants[role][action])
			for _, err := range mistakes {
				errs = append(errs, fmt.Errorf("role %q, %s: %w", role, action, err))
			}
			compiled[action] = c
		}
		p.grants[role] = compiled
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

func compile(list []string) (c patterns, mistakes []error) {
	c.exact = make(map[string]bool)
	for _, p := range list {
		prefix, star := strings.CutSuffix(p, "*")
		switch {
		case p == "":
			mistakes = append(mistakes, errors.New("an empty pattern matches nothing: remove it, or write \"*\" for every family"))
		case strings.Contains(prefix, "*"):
			mistakes = append(mistakes, fmt.Errorf("pattern %q: a star may only stand at the end", p))
		case star && prefix == "":
			c.all = true
		case star:
			c.prefixes = append(c.prefixes, prefix)
		default:
			c.exact[p] = true
		}
	}
	return c, mistakes
}

func (c patterns) match(family string) bool {
	if c.all || c.exact[family] {
		return true
	}
	return slices.ContainsFunc(c.prefixes, func(p string) bool { return strings.HasPrefix(family, p) })
}

func (c patterns) empty() bool { return !c.all && len(c.exact) == 0 && len(c.prefixes) == 0 }

// Denies returns why the roles do not allow the request, and "" when they do:
// RoleMissing when no role is one the policy knows, ActionDenied when none
// grants the action at all, TaskFamilyDenied when none grants it on the
// family. A request without a family needs the action on any family.
func (p *Policy) Denies(roles []identity.Role, r Request) identity.Reason {
	if p == nil {
		return ""
	}
	known, acts := false, false
	for _, role := range roles {
		grant, ok := p.grants[role]
		if !ok {
			continue
		}
		known = true
		allowed, ok := grant[r.Action]
		if !ok || allowed.empty() {
			continue
		}
		acts = true
		switch {
		case r.EveryFamily && !allowed.all:
		case r.Family == "", allowed.match(r.Family):
			return ""
		}
	}
	switch {
	case !known:
		return identity.RoleMissing
	case !acts:
		return identity.ActionDenied
	default:
		return identity.TaskFamilyDenied
	}
}
