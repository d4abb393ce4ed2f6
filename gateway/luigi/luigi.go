// Package luigi reads the remote procedure calls of Luigi's central scheduler:
// which action a request asks for, by which worker, on which task family.
//
// The scheduler reads a request leniently: the last of two data fields wins,
// a body beats the query, percent signs in a method's name are decoded,
// duplicate JSON keys are forgiven. A gateway that reads the same bytes in
// another way lets through what it never judged. So this package accepts only
// the one form that workers and the visualiser really send, and reports
// everything else as a problem.
//
// Facts about the protocol were observed on luigid 3.8.1 (Tornado 6.2).
package luigi

import (
	"iter"
	"strings"

	"crossfade/gateway/identity"
)

// Call is what one HTTP request asks of the scheduler. It holds what the
// client claims; nothing in it is verified.
type Call struct {
	// RPC reports whether the path is /api/<method>. Everything else is a
	// page, a static file or the scheduler's metrics.
	RPC bool
	// Method is the procedure's name as it stands in the path; "" for a call
	// that is no RPC.
	Method string
	// Action is what the caller needs a right to; "" when the call is unknown
	// or its path can be read in two ways.
	Action identity.Action
	// Worker is the worker that speaks; "" when the call names none or names
	// one only as its target.
	Worker string
	// Target is the worker that an administrator's call is about
	// (disable_worker, set_worker_processes, send_scheduler_message).
	Target string
	// TaskID is the task that the call is about.
	TaskID string
	// Family is the task family that the call names; "" when it names none, or
	// only a task id, out of which the family cannot be parsed.
	Family string
	// Registers is the family of a task that a worker brings to the scheduler:
	// the first of a run is the run's pipeline. "" for reports about a task
	// (it started, it ended, it waits for more), which say nothing about the
	// pipeline of a run that is seen for the first time in its middle.
	Registers string
	// Report is what an add_task says of an execution, and "" for every other
	// call.
	Report Report
	// Final tells a report of an end that says nothing else: "runnable" is null
	// and no dependencies are added. That is how workers report the end of what
	// they have executed.
	Final bool
	// Alters tells a report that changes more than the state of its task: what it
	// depends on, its priority, its address, or which batch it is part of. Workers
	// report no end like that.
	Alters bool
	// Dependencies are the ids of the tasks that an add_task makes its task depend
	// on.
	Dependencies []string
	// Module and Parameters are those of the task of a Report; Parameters is the
	// raw JSON object, "" without one.
	Module     string
	Parameters string
	// BatchID is the batch that an add_task makes its task part of. Whatever
	// happens to the task happens to the tasks of the batch.
	BatchID string
	// ByTask tells a call of a worker that names no worker but a task: it belongs
	// to the worker that started the task.
	ByTask bool
	// Families reports whether the right to call depends on particular task
	// families: the one in Family, that of TaskID, or that of the reply
	// (get_work). Lists need no such right; their replies may be filtered.
	Families bool
	// Assistant reports whether a worker asks for the work of others, which
	// needs the right to every family.
	Assistant bool
	// Overview marks what tells of tasks of every family and cannot be filtered:
	// the scheduler's history and metrics, pages that are not known, and a list that
	// is cut off above a number of the caller's choice, by which it tells how many
	// tasks a search has found. The visualiser leaves that number to the scheduler.
	Overview bool
	// Exempt marks HEAD /, the health check: no identity needed.
	Exempt bool
	// Ping marks the sign of life that every worker sends once a second.
	Ping bool
	// Browser marks a GET: workers only ever POST, the visualiser only GETs.
	Browser bool
	// Problem is rpc_ambiguous or rpc_unknown, or "". It is a finding:
	// whether the request is refused for it is the caller's decision. After
	// rpc_ambiguous no argument of the call is reported.
	Problem identity.Reason
}

// Report is what a worker says of an execution.
type Report string

// The reports.
const (
	Starts Report = "starts"
	Ends   Report = "done"
	Fails  Report = "failed"
	Yields Report = "yields"
)

// apiPrefix stands before the method's name in the path. The scheduler
// compares it byte by byte.
const apiPrefix = "/api/"

// Classify reads one request. It is pure, never panics, takes time linear in
// its input and keeps no reference to body.
//
// method is the HTTP method; escapedPath the path as sent, escapes untouched
// and without a configured prefix; rawQuery what follows the question mark;
// contentType the value of the only Content-Type header; body the whole body,
// whatever the method. The caller forwards exactly these bytes, and refuses
// by itself what no argument here shows: a second Content-Type, and a
// Content-Encoding, with which the scheduler ignores the body.
func Classify(method, escapedPath, rawQuery, contentType string, body []byte) Call {
	name, rpc := strings.CutPrefix(escapedPath, apiPrefix)
	if !rpc {
		return classifyPage(method, escapedPath)
	}
	call := Call{RPC: true, Method: name, Browser: method == "GET"}
	if strings.Contains(name, "%") {
		call.Problem = identity.RPCAmbiguous
		return call
	}
	proc, known := procedures[name]
	if !known || (method != "GET" && method != "POST") {
		call.Problem = identity.RPCUnknown
		return call
	}
	call.Action, call.Families, call.Ping = proc.action, proc.families, name == "ping"
	call.ByTask = proc.action == identity.ActionExecute && proc.worker == workerIgnored

	data, ok := dataField(method, rawQuery, contentType, body)
	if !ok {
		call.Problem = identity.RPCAmbiguous
		return call
	}
	var args arguments
	if !args.scan(data) || !call.fill(proc, &args) {
		// Not one argument is worth reporting when their reading is in doubt.
		return Call{
			RPC: true, Method: name, Action: proc.action, Families: proc.families,
			Ping: call.Ping, ByTask: call.ByTask, Browser: call.Browser, Problem: identity.RPCAmbiguous,
		}
	}
	return call
}

// fill takes from the arguments what the procedure makes of them. ok is false
// when one that matters is not a plain string.
func (c *Call) fill(proc procedure, args *arguments) (ok bool) {
	ok = true
	switch proc.worker {
	case workerSpeaks:
		// The scheduler has a worker of any name, the empty one included. Without a
		// name it fails.
		c.Worker, ok = args.text("worker")
		ok = ok && string(args.raw("worker")) != `""`
	case workerIsTarget:
		c.Target, ok = args.text("worker")
	}
	if !ok {
		return false
	}
	if proc.task != "" {
		if c.TaskID, ok = args.text(proc.task); !ok {
			return false
		}
	}
	if proc.family != "" {
		if c.Family, ok = args.text(proc.family); !ok {
			return false
		}
	}
	switch c.Method {
	case "get_work":
		// Python's truth is wider than JSON's: whatever is not plainly false
		// counts as a wish for the work of others.
		v := args.raw("assistant")
		c.Assistant = len(v) > 0 && string(v) != "false" && string(v) != "null"
	case "task_list":
		c.Overview = !args.unset("max_shown_tasks", "0")
	case "add_task":
		// A task without an id would be one that nobody can judge, and of which
		// workers and the gateway think that it is none when it is handed out.
		if c.TaskID == "" {
			return false
		}
		// An id always begins with its family: a call that says otherwise
		// would be judged by one and executed on the other.
		if c.Family != "" && c.TaskID != "" && !hasFamily(c.TaskID, c.Family) {
			return false
		}
		if c.BatchID, ok = args.text("batch_id"); !ok {
			return false
		}
		for _, name := range []string{"deps", "new_deps"} {
			list, ok := args.texts(name)
			if !ok {
				return false
			}
			c.Dependencies = append(c.Dependencies, list...)
		}
		if c.Worker == "" {
			return true
		}
		return c.fillReport(args)
	}
	return true
}

// fillReport tells an add_task that brings a task from one that reports about a
// task. Workers send runnable true or false with the former, whatever the
// status (a task may turn out to be done already), and null with the reports of
// an end and of dynamic dependencies; a start has the status RUNNING.
func (c *Call) fillReport(args *arguments) (ok bool) {
	status, ok := args.text("status")
	if !ok {
		return false
	}
	final := string(args.raw("runnable")) == "null"
	deps := args.raw("new_deps")
	news := len(deps) > 0 && string(deps) != "null" && string(deps) != "[]"
	c.Alters = c.BatchID != "" || !args.unset("deps", "null") || !args.unset("tracking_url", "null") ||
		!args.unset("batchable", "null") || !args.unset("priority", "0")
	switch status {
	case "RUNNING":
		c.Report = Starts
	case "DONE":
		c.Report, c.Final = Ends, final && !news
	case "FAILED":
		c.Report, c.Final = Fails, final && !news
	case "PENDING":
		if final && news {
			c.Report = Yields
		}
	}
	if !final && c.Report != Starts {
		c.Registers = c.Family
	}
	if c.Report == "" {
		return true
	}
	if c.Module, ok = args.text("module"); !ok {
		return false
	}
	if raw := args.raw("params"); len(raw) > 0 && raw[0] == '{' {
		c.Parameters = string(raw)
	}
	return true
}

// hasFamily reports whether a task id can belong to family: ids are the
// family, "_", and more.
func hasFamily(taskID, family string) bool {
	return len(taskID) > len(family) && taskID[len(family)] == '_' && strings.HasPrefix(taskID, family)
}

// PossibleFamilies lists the families that a task can belong to by its id,
// shortest first.
func PossibleFamilies(taskID string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := 1; i < len(taskID); i++ {
			if taskID[i] == '_' && !yield(taskID[:i]) {
				return
			}
		}
	}
}

// classifyPage reads a request outside the API.
func classifyPage(method, escapedPath string) Call {
	call := Call{Browser: method == "GET"}
	switch {
	case nearAPI(escapedPath):
		// luigid itself answers 404, but something between may tidy the path.
		call.Problem = identity.RPCAmbiguous
	case method == "HEAD" && escapedPath == "/":
		call.Exempt, call.Action = true, identity.ActionView
	case method == "GET", method == "HEAD":
		call.Action, call.Overview = identity.ActionView, !plainPage(escapedPath)
	default:
		call.Problem = identity.RPCUnknown
	}
	return call
}

// plainPage tells the paths under which no task is named: the visualiser is a
// static page, which asks the API. A path that may be tidied up is none of them.
func plainPage(escapedPath string) bool {
	switch escapedPath {
	case "", "/", "/favicon.ico":
		return true
	}
	return strings.HasPrefix(escapedPath, "/static/") &&
		!strings.Contains(escapedPath, "..") && !strings.ContainsAny(escapedPath, `%\;`)
}
