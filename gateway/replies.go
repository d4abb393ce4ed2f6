package gateway

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/policy"
)

// Bounds on replies that are read before they are handed on. Luigi's lists are
// cut by itself at max_shown_tasks (100,000 tasks of some 500 bytes).
const (
	maxWork = 4 << 20
	maxList = 128 << 20
	// maxLists is how many lists are read to be filtered at a time; others wait.
	// Most lists are far below maxList, and nobody may fill the memory with those
	// that are not.
	maxLists = 4
)

// reading returns what reads the reply to a call before the client does, and nil
// if nobody has to.
func (h *Handler) reading(w http.ResponseWriter, r *http.Request, ev *pending) func(*http.Response) error {
	if h.Tasks.Registry == nil || !ev.Call.RPC || ev.Call.Problem != "" {
		return nil
	}
	var read func(context.Context, *http.Response, *pending) error
	switch {
	case ev.Call.Method == "add_task":
		read = h.added
	case ev.Call.Method == "get_work":
		read = h.handedOut
	case luigi.Filters(ev.Call.Method) && h.filters(ev):
		read = h.listed
	default:
		return nil
	}
	return func(resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return nil
		}
		err := read(r.Context(), resp, ev)
		var held *withheld
		if errors.As(err, &held) {
			held.answer = func() { h.Refusals.Write(w, r, &ev.Event) }
		}
		return err
	}
}

// withheld is why the client gets an answer of ours in place of the upstream's.
type withheld struct {
	reason identity.Reason
	answer func()
}

func (w *withheld) Error() string { return "the upstream's reply is withheld: " + string(w.reason) }

// withhold changes the decision, now that the reply is known.
func withhold(ev *pending, reason identity.Reason) error {
	ev.Decision.Outcome, ev.Decision.Reason = Refused, reason
	if reason.Indeterminate() {
		ev.Decision.Outcome = Unavailable
	}
	return &withheld{reason: reason}
}

// added notes what a worker has told the scheduler of a task.
func (h *Handler) added(ctx context.Context, _ *http.Response, ev *pending) error {
	l, registry := ev.Call.Luigi, h.Tasks.Registry
	if ev.Decision.Outcome == Allowed { // of all others the scheduler is asked
		registry.Learn(l.TaskID, l.Family)
	}
	if l.Worker == "" || l.TaskID == "" {
		return nil
	}
	told := func() *luigi.Started {
		return &luigi.Started{
			Task: l.TaskID, Family: cmp.Or(registry.Known(l.TaskID), l.Family), Module: l.Module,
			Parameters: luigi.ReadParameters(l.Parameters, h.Tasks.Parameters),
			Batch:      registry.Batch(l.BatchID), Worker: l.Worker, By: h.identityOf(ev),
		}
	}
	switch l.Report {
	case luigi.Starts: // of a batch; else the task has started already and now has an address
		if registry.Started(ctx, l.TaskID) == nil {
			note(ev, registry.Start(ctx, *told()))
		}
	case luigi.Ends, luigi.Fails, luigi.Yields:
		outcome := map[luigi.Report]luigi.Outcome{
			luigi.Ends: luigi.Done, luigi.Fails: luigi.Failed, luigi.Yields: luigi.Yielded,
		}[l.Report]
		var unseen *luigi.Started
		if l.Final || l.Report == luigi.Yields {
			unseen = told()
		}
		note(ev, registry.End(ctx, l.TaskID, l.Worker, outcome, unseen))
	}
	return nil
}

// note adds an execution to those that the request ended.
func note(ev *pending, e *luigi.Execution) {
	if e != nil {
		e.Grace = ev.Decision.Grace && e.Outcome != luigi.Abandoned
		ev.Executions = append(ev.Executions, *e)
	}
}

// handedOut judges the task that the scheduler hands out, and notes the start.
// Work of a family that the principal may not execute is not handed on: the
// scheduler counts it as running and delivers it again, to this worker.
func (h *Handler) handedOut(ctx context.Context, resp *http.Response, ev *pending) error {
	body, err := readReply(resp, maxWork)
	work, ok := luigi.ParseWork(body)
	if err != nil || !ok {
		if h.counts(ev) && h.restricted(h.governing(ev), identity.ActionExecute) {
			return withhold(ev, identity.PolicyError) // nobody can say whose work it is
		}
		return nil
	}
	if !work.Any() {
		return nil
	}
	ev.Call.Family = strings.Clone(work.Family)
	if denied := h.denied(h.governing(ev), &ev.Call, ev.Other); denied != "" && h.counts(ev) {
		return withhold(ev, denied)
	}
	registry := h.Tasks.Registry
	registry.Learn(work.Task, work.Family)
	for _, id := range work.Batch {
		registry.Learn(id, work.Family)
	}
	if work.Task == "" {
		registry.LearnBatch(ctx, work.BatchID, work.Family, work.Batch) // it starts when the worker says under which id
		return nil
	}
	note(ev, registry.Start(ctx, luigi.Started{
		Task: work.Task, Family: work.Family, Module: work.Module, Parameters: work.Parameters(h.Tasks.Parameters),
		Worker: ev.Call.Luigi.Worker, By: h.identityOf(ev),
	}))
	return nil
}

// identityOf is under whom a task starts.
func (h *Handler) identityOf(ev *pending) luigi.Identity {
	by := luigi.Identity{
		Principal: ev.Principal.Name, Team: ev.Team(), Scheme: ev.Scheme().String(),
		Percent: int(h.Rollout.Percent(ev.Team())), TraceID: ev.TraceID, Configuration: h.Tasks.Configuration,
		ClientRun: ev.ClientRun,
	}
	switch {
	case ev.Decision.Control == SideLegacy && ev.Legacy.OK():
		by.Credential = ev.Legacy.CredentialID
	case ev.Decision.Control == SideToken && ev.Token.OK() && ev.Token.Token != nil:
		by.Issuer, by.TokenID = ev.Token.Token.Issuer, cmp.Or(ev.Token.Token.ID, ev.Token.Token.Digest)
	}
	return by
}

// governing returns the judgement of the credential that governs.
func (h *Handler) governing(ev *pending) *identity.Authentication {
	if ev.Decision.Control == SideToken {
		return ev.Token
	}
	return ev.Legacy
}

// counts reports whether the roles of the request count, and are not only a
// verdict.
func (h *Handler) counts(ev *pending) bool {
	return h.Mode == Enforce && ev.Decision.Outcome != Exempt && h.governing(ev).OK() &&
		(ev.Decision.Control == SideToken || h.RolesCount)
}

// filters reports whether the principal sees only some families.
func (h *Handler) filters(ev *pending) bool {
	return h.counts(ev) && h.restricted(h.governing(ev), identity.ActionView)
}

// listed takes out of a list what the principal may not see.
func (h *Handler) listed(ctx context.Context, resp *http.Response, ev *pending) error {
	select {
	case h.lists <- struct{}{}:
		defer func() { <-h.lists }()
	case <-ctx.Done():
		return ctx.Err() // nobody waits for the list any more
	}
	body, err := readReply(resp, maxList)
	if err != nil {
		return withhold(ev, identity.PolicyError)
	}
	roles := h.governing(ev).Principal.Roles
	filtered, ok := luigi.Filter(ev.Call.Method, body, func(family string) bool {
		return family != "" && h.Policy.Denies(roles, policy.Request{Action: identity.ActionView, Family: family}) == ""
	})
	if !ok {
		return withhold(ev, identity.PolicyError)
	}
	resp.Header.Del("Content-Encoding")
	resp.Header.Del("Etag")
	resp.Header.Set("Content-Length", strconv.Itoa(len(filtered)))
	resp.ContentLength, resp.TransferEncoding = int64(len(filtered)), nil
	resp.Body = io.NopCloser(bytes.NewReader(filtered))
	return nil
}
