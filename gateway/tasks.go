package gateway

import (
	"cmp"
	"context"
	"time"

	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
)

// Tasks is what profile luigi needs beside the straight pass: what is known of
// tasks and workers, and where to ask. The zero value knows nothing: families
// are believed as they are claimed.
type Tasks struct {
	// Registry may be nil.
	Registry *luigi.Registry
	// Scheduler is asked for the family of a task that the registry does not
	// know; nil asks nobody.
	Scheduler luigi.Asker
	// Grace is how long after the last good use of an identity the end of a task
	// that it started is still accepted; 0 for not at all. It is bounded by
	// luigi.WorkerTie.
	Grace time.Duration
	// Parameters tells the names of task parameters whose values may be
	// recorded; nil for none.
	Parameters func(name string) bool
	// Configuration is the hash of the one in force, for what is recorded.
	Configuration string
}

// run finds the run of a call that names a task and no worker: it belongs to the
// worker that started the task. Somebody else's task is somebody else's run.
func (h *Handler) run(ctx context.Context, ev *pending, principal string) {
	if h.Tasks.Registry == nil || !ev.Call.Luigi.ByTask || principal == "" || ev.Call.Problem != "" {
		return
	}
	started := h.Tasks.Registry.Started(ctx, ev.Call.Luigi.TaskID)
	if started != nil && started.By.Principal != principal {
		started = h.Tasks.Registry.Running(ctx, ev.Call.Luigi.TaskID) // it may have changed hands
	}
	switch {
	case started == nil || started.By.Principal == "":
	case started.By.Principal == principal:
		ev.Call.Run = started.Worker
	default:
		ev.Other = started.By.Principal
	}
}

// own asks whether the worker is the principal's who governs the request. A
// mismatch denies it whatever its roles say. A name that belongs to nobody
// becomes the principal's, unless the request is refused anyway: whoever may not
// use a worker must not keep it from those who may.
func (h *Handler) own(ctx context.Context, f *Facts, ev *pending) {
	if h.Tasks.Registry == nil || f.Problem != "" {
		return
	}
	who := ev.Legacy
	if f.TokenGoverns() {
		who = ev.Token
	}
	if !who.OK() {
		return
	}
	principal := who.Principal
	if who == ev.Legacy {
		principal = ev.Principal // a companion may say who shares the credential
	}
	if name := ev.Call.Run; name != "" {
		var owner luigi.Owner
		if Decide(*f).Forward() {
			owner = h.Tasks.Registry.Owner(ctx, name, principal.Name, principal.Team)
		} else {
			owner = h.Tasks.Registry.Speaks(ctx, name)
		}
		if owner.Principal != "" && owner.Principal != principal.Name {
			ev.Other = owner.Principal
		}
	}
	if ev.Other != "" {
		f.Legacy.Denied = h.denied(ev.Legacy, &ev.Call, ev.Other)
		f.Token.Denied = h.denied(ev.Token, &ev.Call, ev.Other)
	}
}

// midRun returns what is wrong with a token in the words of its run: it has
// expired while the run that it began with lasted, and was not refreshed.
func (h *Handler) midRun(ctx context.Context, run string, token *identity.Authentication) *identity.Authentication {
	if h.Tasks.Registry == nil || run == "" || !lapsed(token) || token.Primary() != identity.Expired {
		return token
	}
	owner := h.Tasks.Registry.Speaks(ctx, run)
	if !owner.Token || owner.Principal != token.Principal.Name {
		return token
	}
	again := *token
	again.Reasons = []identity.Reason{identity.ExpiredMidRun}
	again.Sample = identity.Sample("the run began with a good token and sends one that has expired: %s", token.Sample)
	return &again
}

// lapsed reports whether nothing is wrong with a token but that its time is
// over.
func lapsed(token *identity.Authentication) bool {
	return token != nil && token.Status == identity.StatusRejected && len(token.Reasons) == 1 &&
		(token.Reasons[0] == identity.Expired || token.Reasons[0] == identity.ExpiredMidRun) &&
		token.Token != nil && token.Token.Verified && token.Principal.Name != ""
}

// grace reports whether a request may tell the end of a task although its
// identity has lapsed: it is the same identity and worker that started the task,
// was good until a short while ago, and says nothing but that the task ended.
// Without it the task would hang in RUNNING (PROTOCOL, section 5).
func (h *Handler) grace(ctx context.Context, f Facts, ev *pending) bool {
	l := &ev.Call.Luigi
	if h.Tasks.Registry == nil || h.Tasks.Grace <= 0 || f.Mode != Enforce || f.Retired || f.Problem != "" ||
		ev.Call.Run == "" || !l.Final || l.Alters || l.Report != luigi.Ends && l.Report != luigi.Fails {
		return false
	}
	now := ev.Start
	var principal string
	switch {
	case f.TokenGoverns() && lapsed(ev.Token):
		if now.Sub(ev.Token.Expires) > h.Tasks.Grace || h.denied(ev.Token, &ev.Call, ev.Other) != "" {
			return false
		}
		principal = ev.Token.Principal.Name
	case !f.TokenGoverns() && ev.Legacy.OK() && f.must():
		principal = ev.Principal.Name
	default:
		return false
	}
	started := h.Tasks.Registry.Running(ctx, l.TaskID)
	owner := h.Tasks.Registry.Whose(ctx, ev.Call.Run)
	return started != nil && started.Worker == ev.Call.Run && started.By.Principal == principal &&
		owner.Principal == principal && now.Sub(owner.Seen) <= h.Tasks.Grace
}

// accepted notes the sign of life of a run whose request is let through on its
// own merits. One that is refused for what grace excuses lives too: else what it
// executes would be abandoned before grace is over, for its pings are refused.
func (h *Handler) accepted(ev *pending) {
	if h.Tasks.Registry == nil || ev.Call.Run == "" {
		return
	}
	if h.excusable(ev) {
		h.Tasks.Registry.Refused(ev.Call.Run, cmp.Or(speaker(ev.Token), ev.Principal.Name))
		return
	}
	if ev.Decision.Outcome != Allowed || ev.Decision.Grace {
		return
	}
	h.Tasks.Registry.Accepted(ev.Call.Run, ev.Principal.Name)
	h.brought(ev, ev.Token)
}

// excusable reports whether a request is refused for nothing but that its
// identity has lapsed a short while ago.
func (h *Handler) excusable(ev *pending) bool {
	switch {
	case ev.Decision.Outcome != Refused || ev.Other != "":
		return false
	case ev.Decision.Control == SideToken:
		return lapsed(ev.Token) && ev.Start.Sub(ev.Token.Expires) <= h.Tasks.Grace
	default:
		return ev.Decision.Reason == identity.LegacyRefused && h.Tasks.Grace > 0
	}
}

// brought notes that a run has sent a good token of its own.
func (h *Handler) brought(ev *pending, token *identity.Authentication) {
	if h.Tasks.Registry != nil && ev.Call.Run != "" && token.OK() {
		h.Tasks.Registry.Brought(ev.Call.Run, token.Principal.Name)
	}
}

// speaker is the principal in whose name a token speaks, also when it has just
// expired; "" if nobody's.
func speaker(token *identity.Authentication) string {
	if token.OK() || lapsed(token) {
		return token.Principal.Name
	}
	return ""
}
