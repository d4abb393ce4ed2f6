package gateway

import (
	"cmp"
	"context"

	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/policy"
)

// resolve finds the family that a call is about where somebody's right depends
// on it: the registered one for a task that exists, and the claimed one for a
// task that is new.
func (h *Handler) resolve(ctx context.Context, c Call, who ...*identity.Authentication) Call {
	l := &c.Luigi
	if !l.Families || c.Problem != "" || l.Method == "get_work" {
		return c
	}
	if h.Tasks.Registry == nil {
		if c.Family == "" {
			c.Unresolved = identity.TaskUnknown
		}
		return c
	}
	restricted := false
	for _, a := range who {
		restricted = restricted || a.OK() && h.restricted(a, c.Action)
	}
	switch {
	case l.TaskID == "" && l.Family == "":
		c.Unresolved = identity.TaskUnknown
	case l.TaskID == "": // the call names the family itself
	case !restricted:
		c.Family = cmp.Or(h.Tasks.Registry.Known(l.TaskID), c.Family)
	default:
		ask := h.Tasks.Scheduler
		if l.Family != "" && h.whichever(l.TaskID, c.Action, who) {
			ask = nil
		}
		registered, err := h.Tasks.Registry.Family(ctx, l.TaskID, ask)
		c.Family = cmp.Or(registered, c.Family)
		switch {
		case err != nil:
			c.Unresolved = identity.StoreUnavailable
		case c.Family == "":
			c.Unresolved = identity.TaskUnknown
		case l.BatchID != "":
			c.Unresolved = h.foreignBatch(ctx, c)
		}
	}
	return c
}

// longestLuigiID is longer, in bytes, than the ids that Luigi makes. Of longer ones
// it is not tried out what they could be.
const longestLuigiID = 256

// whichever reports whether all may do the action on every family that a task can
// have by its id: then nobody has to be asked about a new one, which halves what
// it costs to register a large pipeline.
func (h *Handler) whichever(taskID string, action identity.Action, who []*identity.Authentication) bool {
	if len(taskID) > longestLuigiID {
		return false
	}
	for _, a := range who {
		if !a.OK() {
			continue
		}
		for family := range luigi.PossibleFamilies(taskID) {
			if h.Policy.Denies(a.Principal.Roles, policy.Request{Action: action, Family: family}) != "" {
				return false
			}
		}
	}
	return true
}

// foreignBatch says why a call must not make its task part of the batch that it
// names, "" if it may. The tasks of a batch share the fate of the one that
// combines them, so it must be of their family.
func (h *Handler) foreignBatch(ctx context.Context, c Call) identity.Reason {
	switch h.Tasks.Registry.BatchFamily(ctx, c.Luigi.BatchID) {
	case c.Family:
		return ""
	case "":
		return identity.TaskUnknown
	default:
		return identity.TaskFamilyDenied
	}
}

// foreignDependency reports whether a call makes a task depend on one that the
// principal may not execute: that would raise its priority, and keep it in the
// scheduler. Workers register what a task depends on right after it, so that no
// run gets any further. No store and no scheduler is asked: what is not known is
// allowed if it can be of a family that is.
func (h *Handler) foreignDependency(a *identity.Authentication, c *Call) bool {
	l := &c.Luigi
	if len(l.Dependencies) == 0 || h.Tasks.Registry == nil || c.Problem != "" || !h.restricted(a, c.Action) {
		return false
	}
	allows := func(family string) bool {
		return h.Policy.Denies(a.Principal.Roles, policy.Request{Action: c.Action, Family: family}) == ""
	}
	for _, id := range l.Dependencies {
		if len(id) > longestLuigiID {
			continue
		}
		if family := h.Tasks.Registry.Known(id); family != "" {
			if !allows(family) {
				return true
			}
			continue
		}
		possible, some := false, false
		for family := range luigi.PossibleFamilies(id) {
			possible, some = possible || allows(family), true
		}
		if some && !possible {
			return true
		}
	}
	return false
}

// restricted reports whether the principal may do the action on some families
// only, so that it matters which one a call is about.
func (h *Handler) restricted(a *identity.Authentication, action identity.Action) bool {
	return h.Policy.Denies(a.Principal.Roles, policy.Request{Action: action, EveryFamily: true}) != ""
}

// denied says why the principal of a credential may not make a call, "" if it
// may or the credential names nobody. other is whom the worker or the task of
// the call belongs to, "" if to nobody else.
func (h *Handler) denied(a *identity.Authentication, c *Call, other string) identity.Reason {
	if a == nil || a.Principal.Name == "" {
		return ""
	}
	reason := h.Policy.Denies(a.Principal.Roles, policy.Request{
		Action: c.Action, Family: c.Family, EveryFamily: c.EveryFamily,
	})
	switch {
	case reason != "":
		return reason
	case c.Unresolved != "" && h.restricted(a, c.Action):
		return c.Unresolved
	case h.foreignDependency(a, c):
		return identity.TaskFamilyDenied
	case other != "":
		return identity.WorkerMismatch
	default:
		return ""
	}
}
