package luigi_test

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/luigi/captures"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const form = "application/x-www-form-urlencoded"

// post classifies a call as a worker sends it.
func post(procedure, arguments string) luigi.Call {
	return luigi.Classify("POST", "/api/"+procedure, "", form, []byte("data="+url.QueryEscape(arguments)))
}

func TestClassifyEveryRecordedExchange(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, name := range captures.Names() {
		exchanges, err := captures.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range exchanges {
			call := luigi.Classify(e.Method, e.Path, e.Query, e.RequestHeaders["Content-Type"], []byte(e.RequestBody))
			if call.Problem != "" {
				t.Errorf("%s %d: recorded traffic of a real client is %s", name, e.Seq, call.Problem)
			}
			fmt.Fprintf(&got, "%s %d %s %s\n\t%s\n", name, e.Seq, e.Method, e.Path, describe(call))
		}
	}
	golden(t, "captures.golden", got.String())
}

// describe writes down everything of a call that is not zero.
func describe(c luigi.Call) string {
	var out []string
	flagged := func(set bool, word string) {
		if set {
			out = append(out, word)
		}
	}
	field := func(word, value string) {
		if value != "" {
			out = append(out, fmt.Sprintf("%s=%q", word, value))
		}
	}
	flagged(c.RPC, "rpc")
	flagged(c.Browser, "browser")
	flagged(c.Ping, "ping")
	flagged(c.Exempt, "exempt")
	flagged(c.Families, "families")
	flagged(c.ByTask, "by task")
	flagged(c.Final, "final")
	flagged(c.Assistant, "assistant")
	field("method", c.Method)
	field("action", string(c.Action))
	field("registers", c.Registers)
	field("family", c.Family)
	field("task", c.TaskID)
	field("worker", c.Worker)
	field("target", c.Target)
	field("report", string(c.Report))
	field("module", c.Module)
	field("parameters", c.Parameters)
	field("batch", c.BatchID)
	field("problem", string(c.Problem))
	return strings.Join(out, " ")
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-want +got; run with -update after checking):\n%s", path, diff)
	}
}

// The rows of the table of endpoints, each with a call that has every argument
// the scheduler would look at and some that it would not.
func TestClassifyEveryProcedure(t *testing.T) {
	t.Parallel()
	const (
		execute = identity.ActionExecute
		view    = identity.ActionView
		admin   = identity.ActionAdmin
	)
	const arguments = `{"worker": "w1", "task_id": "Load_1_abc", "task": "Load_2_def", "family": "Load",` +
		` "task_family": "Batched", "runnable": true, "status": "PENDING", "Worker": "other"}`
	tests := []struct {
		name    string
		methods []string
		want    luigi.Call
	}{
		{
			"a worker's add_task executes on the family it names and registers it",
			[]string{"add_task"},
			luigi.Call{Action: execute, Families: true, Worker: "w1", TaskID: "Load_1_abc", Family: "Load", Registers: "Load"},
		},
		{
			"add_task_batcher executes on task_family",
			[]string{"add_task_batcher"},
			luigi.Call{Action: execute, Families: true, Worker: "w1", Family: "Batched"},
		},
		{
			"announce_scheduling_failure executes on family and registers nothing",
			[]string{"announce_scheduling_failure"},
			luigi.Call{Action: execute, Families: true, Worker: "w1", Family: "Load"},
		},
		{
			"get_work executes on the family that the reply will name",
			[]string{"get_work"},
			luigi.Call{Action: execute, Families: true, Worker: "w1"},
		},
		{
			"a ping executes on no particular family",
			[]string{"ping"},
			luigi.Call{Action: execute, Worker: "w1", Ping: true},
		},
		{
			"counting and announcing oneself execute on no particular family",
			[]string{"count_pending", "add_worker"},
			luigi.Call{Action: execute, Worker: "w1"},
		},
		{
			"reports of a running task execute on its id and belong to the worker that started it",
			[]string{
				"set_task_status_message", "set_task_progress_percentage", "decrease_running_task_resources",
				"report_task_statistics", "add_scheduler_message_response",
			},
			luigi.Call{Action: execute, Families: true, TaskID: "Load_1_abc", ByTask: true},
		},
		{
			"questions about one task view its id",
			[]string{
				"fetch_error", "dep_graph", "inverse_dep_graph", "get_task_status_message",
				"get_task_progress_percentage", "get_running_task_resources", "get_scheduler_message_response",
			},
			luigi.Call{Action: view, Families: true, TaskID: "Load_1_abc"},
		},
		{
			"lists are viewed whole",
			[]string{"task_list", "graph", "task_search", "worker_list", "resource_list"},
			luigi.Call{Action: view},
		},
		{
			"questions about the scheduler are viewed",
			[]string{"has_task_history", "is_paused", "is_pause_enabled"},
			luigi.Call{Action: view},
		},
		{
			"changing a task by hand is administration of its family",
			[]string{"mark_as_done", "forgive_failures", "re_enable_task"},
			luigi.Call{Action: admin, Families: true, TaskID: "Load_1_abc"},
		},
		{
			"a message to a task is administration of its family, and its worker is only the addressee",
			[]string{"send_scheduler_message"},
			luigi.Call{Action: admin, Families: true, TaskID: "Load_2_def", Target: "w1"},
		},
		{
			"administration of a worker names it as the target",
			[]string{"disable_worker", "set_worker_processes"},
			luigi.Call{Action: admin, Target: "w1"},
		},
		{
			"administration of the scheduler names nothing",
			[]string{"pause", "unpause", "prune", "update_resource", "update_resources", "update_metrics_task_started"},
			luigi.Call{Action: admin},
		},
		{
			"anything else is unknown",
			[]string{"", "x", "ping/", "PING", "Add_Task", "ping.json", "pause;x", "a/ping", "../api/ping", "__init__"},
			luigi.Call{Problem: identity.RPCUnknown},
		},
	}
	known := 0
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, method := range tt.methods {
				want := tt.want
				want.RPC, want.Method = true, method
				if diff := cmp.Diff(want, post(method, arguments)); diff != "" {
					t.Errorf("POST %s (-want +got):\n%s", method, diff)
				}
				want.Browser = true
				got := luigi.Classify("GET", "/api/"+method, "data="+url.QueryEscape(arguments), "", nil)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("GET %s (-want +got):\n%s", method, diff)
				}
			}
		})
		if tt.want.Action != "" {
			known += len(tt.methods)
		}
	}
	if known != 39 {
		t.Errorf("the table holds %d procedures, luigid answers 39", known)
	}
}

func TestClassifyWhatRegistersAPipeline(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, arguments, want string }{
		{"a task that will run", `{"worker":"w","task_id":"A_1","family":"A","status":"PENDING","runnable":true}`, "A"},
		{"a task that another system provides", `{"worker":"w","task_id":"A_1","family":"A","status":"PENDING","runnable":false}`, "A"},
		{"a task found complete", `{"worker":"w","task_id":"A_1","family":"A","status":"DONE","runnable":false}`, "A"},
		{"a task whose completeness is not known", `{"worker":"w","task_id":"A_1","family":"A","status":"UNKNOWN","runnable":false}`, "A"},
		{"defaults for status and runnable", `{"worker":"w","task_id":"A_1","family":"A"}`, "A"},
		{"an end", `{"worker":"w","task_id":"A_1","family":"A","status":"DONE","runnable":null}`, ""},
		{"a failure", `{"worker":"w","task_id":"A_1","family":"A","status":"FAILED","runnable":null}`, ""},
		{"dynamic dependencies", `{"worker":"w","task_id":"A_1","family":"A","status":"PENDING","runnable":null,"new_deps":["B_1"]}`, ""},
		{"the start of a batch", `{"worker":"w","task_id":"A_1","family":"A","status":"RUNNING","runnable":true}`, ""},
		{"a tracking URL, which names no family", `{"worker":"w","task_id":"A_1","family":"","status":"RUNNING","runnable":true}`, ""},
		{"no family", `{"worker":"w","task_id":"A_1","family":null}`, ""},
		{"no worker", `{"task_id":"A_1","family":"A"}`, ""},
		{"a family with a namespace", `{"worker":"w","task_id":"team.A_1","family":"team.A"}`, "team.A"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			call := post("add_task", tt.arguments)
			if call.Registers != tt.want || call.Problem != "" {
				t.Errorf("Registers = %q, Problem = %q, want %q and none", call.Registers, call.Problem, tt.want)
			}
		})
	}
}

func TestClassifyAFamilyThatTheTaskIDContradictsIsAmbiguous(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"LoadUsers_1_abc", "Extract", "Extract1_abc", "_", "extract_1"} {
		call := post("add_task", `{"worker":"w","family":"Extract","task_id":"`+id+`","status":"DONE","runnable":true}`)
		if call.Problem != identity.RPCAmbiguous || call.Family != "" || call.TaskID != "" || call.Registers != "" || call.Worker != "" {
			t.Errorf("task id %q under family Extract: %+v", id, call)
		}
	}
}

func TestClassifyAnAssistantByPythonsTruth(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{
		`true`: true, `1`: true, `"yes"`: true, `[0]`: true, `NaN`: true, `false`: false, `null`: false,
	} {
		if got := post("get_work", `{"worker": "w", "assistant": `+value+`}`).Assistant; got != want {
			t.Errorf("assistant: %s is read as %v, want %v", value, got, want)
		}
	}
	if post("get_work", `{"worker": "w"}`).Assistant {
		t.Error("a worker that does not ask is read as an assistant")
	}
}

func TestClassifyPages(t *testing.T) {
	t.Parallel()
	view := identity.ActionView
	tests := []struct {
		name, method, path string
		want               luigi.Call
	}{
		{"the root in a browser", "GET", "/", luigi.Call{Action: view, Browser: true}},
		{"the health check", "HEAD", "/", luigi.Call{Action: view, Exempt: true}},
		{"the head of another page is no health check", "HEAD", "/metrics", luigi.Call{Action: view, Overview: true}},
		{"a static file", "GET", "/static/visualiser/index.html", luigi.Call{Action: view, Browser: true}},
		{"a static file with an escape", "GET", "/static/a%20b.js", luigi.Call{Action: view, Overview: true, Browser: true}},
		{"a broken escape", "GET", "/static/%zz", luigi.Call{Action: view, Overview: true, Browser: true}},
		{"history of a task", "GET", "/history/by_task_id/A_1", luigi.Call{Action: view, Overview: true, Browser: true}},
		{"a name that only begins like the API", "GET", "/apiary/ping", luigi.Call{Action: view, Overview: true, Browser: true}},
		{"a page cannot be posted to", "POST", "/history", luigi.Call{Problem: identity.RPCUnknown}},
		{"an empty path", "GET", "", luigi.Call{Action: view, Browser: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, luigi.Classify(tt.method, tt.path, "", "", nil)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestClassifyPathsThatTidyingWouldTurnIntoTheAPIAreAmbiguous(t *testing.T) {
	t.Parallel()
	for _, p := range []string{
		"//api/pause", "/%61pi/pause", "/API/pause", "/Api/pause", "/api", "/api%2fpause", "/%2561pi/pause",
		"/static/../api/pause", "/static/%2e%2e/api/pause", "/./api/pause", `/\api\pause`, "/%5capi/pause", "/static//..//..//api/pause",
		"api/pause",
	} {
		for _, method := range []string{"GET", "POST"} {
			call := luigi.Classify(method, p, "", "", nil)
			if call.Problem != identity.RPCAmbiguous || call.Action != "" || call.RPC {
				t.Errorf("%s %s: %+v", method, p, call)
			}
		}
	}
	call := luigi.Classify("POST", "/api/un%70ause", "", form, nil)
	if call.Problem != identity.RPCAmbiguous || call.Action != "" || !call.RPC {
		t.Errorf("an escape in the name of the method: %+v", call)
	}
}

func TestClassifyOnlyTwoVerbsReachTheAPI(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "get", "post", ""} {
		if call := luigi.Classify(method, "/api/ping", "", form, []byte("data={}")); call.Problem != identity.RPCUnknown || call.Action != "" {
			t.Errorf("%s /api/ping: %+v", method, call)
		}
	}
}

func TestClassifyFormsThatServersReadDifferently(t *testing.T) {
	t.Parallel()
	const data = "data=%7B%22worker%22%3A%22w%22%7D"
	tests := []struct {
		name, method, query, contentType, body string
		ambiguous                              bool
	}{
		{"one field in the body of a POST", "POST", "", form, data, false},
		{"with a character set, which luigid ignores", "POST", "", form + "; charset=UTF-8", data, false},
		{"one field in the query of a GET", "GET", data, "", "", false},
		{"a field of another name beside it", "GET", "_=1700000000&" + data, "", "", false},
		{"a query of another name with a POST", "POST", "trace=1", form, data, false},
		{"empty pieces between ampersands", "POST", "", form, "&&" + data + "&", false},
		{"the field twice in the body", "POST", "", form, data + "&" + data, true},
		{"the field twice in the query", "GET", data + "&" + data, "", "", true},
		{"a second field without a value", "GET", data + "&data", "", "", true},
		{"body and query both", "POST", data, form, data, true},
		{"only the query of a POST", "POST", data, form, "", true},
		{"a GET with a form in its body", "GET", data, form, data, true},
		{"a GET with any body", "GET", data, "", "x", true},
		{"multipart", "POST", "", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"data\"\r\n\r\n{}\r\n--x--\r\n", true},
		{"JSON as the body", "POST", "", "application/json", `{"worker":"w"}`, true},
		{"no content type", "POST", "", "", data, true},
		{"another case of the content type, which Tornado overlooks", "POST", "", "Application/x-www-form-urlencoded", data, true},
		{"a longer content type, which Tornado takes", "POST", "", form + "-2", data, true},
		{"an escaped name", "POST", "", form, "d%61ta=" + data[5:], true},
		{"an escaped name beside the plain one", "POST", "", form, data + "&d%61ta=%7B%7D", true},
		{"an escaped name in the query of a POST", "POST", "d%61ta=%7B%7D", form, data, true},
		{"an escaped name without a value", "GET", "d%61ta", "", "", true},
		{"a semicolon", "POST", "", form, "a=1;" + data, true},
		{"a semicolon in the query of a POST", "POST", "a=1;b", form, data, true},
		{"a broken escape", "POST", "", form, data + "%2", true},
		{"an escape that is none", "POST", "", form, "data=%7B%zz%7D", true},
		{"bytes that are not UTF-8", "POST", "", form, "data=%7B%22worker%22%3A%22%ff%22%7D", true},
		{"a field of another case is no field", "POST", "", form, "Data=%7B%7D", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			call := luigi.Classify(tt.method, "/api/ping", tt.query, tt.contentType, []byte(tt.body))
			if got := call.Problem == identity.RPCAmbiguous; got != tt.ambiguous {
				t.Fatalf("ambiguous = %v, want %v (%+v)", got, tt.ambiguous, call)
			}
			if call.Action != identity.ActionExecute || !call.Ping {
				t.Errorf("the path still says what is called: %+v", call)
			}
			if tt.ambiguous && call.Worker != "" {
				t.Errorf("an ambiguous call reports the worker %q", call.Worker)
			}
		})
	}
}

func TestClassifyWithoutDataTakesTheSchedulersDefault(t *testing.T) {
	t.Parallel()
	for _, call := range []luigi.Call{
		luigi.Classify("GET", "/api/pause", "", "", nil),
		luigi.Classify("GET", "/api/pause", "_=17", "", nil),
		luigi.Classify("POST", "/api/pause", "", "", nil),
		luigi.Classify("POST", "/api/pause", "", form, []byte("other=1")),
	} {
		if call.Problem != "" || call.Action != identity.ActionAdmin {
			t.Errorf("a call without arguments: %+v", call)
		}
	}
}

func TestClassifyJSONAsTheSchedulerReadsIt(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"a%d":0`, i)
		}
		return b.String()
	}
	tests := []struct {
		name, arguments string
		worker          string
		ambiguous       bool
	}{
		{"plain", `{"worker":"w"}`, "w", false},
		{"white space everywhere", " {\t\"worker\" :\r\n\"w\" , \"n\" : [ 1 , 2 ] } ", "w", false},
		{"bare words that Python writes", `{"worker":"w","a":Infinity,"b":-Infinity,"c":NaN,"d":[NaN,{"e":Infinity}]}`, "w", false},
		{"numbers of any size", `{"worker":"w","a":1` + strings.Repeat("0", 5000) + `,"b":-0.5e+999999,"c":1E-7}`, "w", false},
		{"surrogates in pairs", `{"worker":"\ud83d\ude00"}`, "😀", false},
		{"a lone surrogate in another argument", `{"worker":"w","status_message":"\ud800"}`, "w", false},
		{"a lone surrogate in the worker", `{"worker":"\ud800"}`, "", true},
		{"a reversed pair in the worker", `{"worker":"\ude00\ud83d"}`, "", true},
		{"a surrogate before another escape", `{"worker":"\ud83d\u0041"}`, "", true},
		{"a surrogate at the end", `{"worker":"\ud83d\n"}`, "", true},
		{"escapes in the worker", `{"worker":"\"\\\/\b\f\n\r\t\u00e9"}`, "\"\\/\b\f\n\r\té", false},
		{"text beyond ASCII", `{"worker":"café"}`, "café", false},
		{"names are case-sensitive", `{"Worker":"x","WORKER":"y","worker":"w"}`, "w", false},
		{"a name twice", `{"worker":"w","worker":"w"}`, "", true},
		{"another name twice", `{"worker":"w","n":1,"n":2}`, "", true},
		{"an escape in a name", `{"w\u006frker":"w"}`, "", true},
		{"a name twice further in, where nothing is judged", `{"worker":"w","params":{"a":1,"a":2}}`, "w", false},
		{"no argument", `{}`, "", false},
		{"null for the worker", `{"worker":null}`, "", false},
		{"a number for the worker", `{"worker":5}`, "", true},
		{"a list for the worker", `{"worker":["w"]}`, "", true},
		{"an array of arguments", `[]`, "", true},
		{"a string of arguments", `"worker"`, "", true},
		{"nothing", ``, "", true},
		{"two objects", `{"worker":"w"}{}`, "", true},
		{"a comma too many", `{"worker":"w",}`, "", true},
		{"a name without quotes", `{worker:"w"}`, "", true},
		{"single quotes", `{'worker':'w'}`, "", true},
		{"a name without a value", `{"worker"}`, "", true},
		{"a colon without a value", `{"worker":}`, "", true},
		{"a comment", `{"worker":"w"/**/}`, "", true},
		{"a control character in a string, which Tornado turns into a space", "{\"worker\":\"a\x01\"}", "", true},
		{"a control character between tokens", "{\x00\"worker\":\"w\"}", "", true},
		{"a byte order mark", "\ufeff{}", "", true},
		{"a space that is not JSON's", "\u00a0{}", "", true},
		{"an unknown escape", `{"worker":"\x41"}`, "", true},
		{"an escape without digits", `{"worker":"\u12"}`, "", true},
		{"an escape with a sign", `{"worker":"\u+123"}`, "", true},
		{"a string without an end", `{"worker":"w`, "", true},
		{"a backslash at the end", `{"worker":"w\`, "", true},
		{"a leading zero", `{"worker":"w","a":01}`, "", true},
		{"a plus sign", `{"worker":"w","a":+1}`, "", true},
		{"no digit after the point", `{"worker":"w","a":1.}`, "", true},
		{"no digit in the exponent", `{"worker":"w","a":1e}`, "", true},
		{"a lone minus", `{"worker":"w","a":-}`, "", true},
		{"a word glued to another", `{"worker":"w","a":truefalse}`, "", true},
		{"words of another case", `{"worker":"w","a":nan}`, "", true},
		{"as deep as the bound", `{"worker":"w","a":` + deep(64) + `}`, "w", false},
		{"deeper than the bound", `{"worker":"w","a":` + deep(65) + `}`, "", true},
		{"far deeper than any stack", `{"worker":"w","a":` + deep(1_000_000) + `}`, "", true},
		{"as many arguments as the bound", `{"worker":"w"` + many(63) + `}`, "w", false},
		{"more arguments than the bound", `{"worker":"w"` + many(64) + `}`, "", true},
		{"far more arguments than the bound", `{"worker":"w"` + many(200_000) + `}`, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			call := post("ping", tt.arguments)
			if got := call.Problem == identity.RPCAmbiguous; got != tt.ambiguous || call.Worker != tt.worker {
				t.Errorf("worker %q, ambiguous %v; want %q, %v", call.Worker, got, tt.worker, tt.ambiguous)
			}
		})
	}
}

func TestClassifyKeepsNoReferenceToTheBody(t *testing.T) {
	t.Parallel()
	body := []byte("data=" + url.QueryEscape(`{"worker":"w1"}`))
	call := luigi.Classify("POST", "/api/ping", "", form, body)
	for i := range body {
		body[i] = 'x'
	}
	if call.Worker != "w1" {
		t.Errorf("after the body was overwritten the worker is %q", call.Worker)
	}
}

func TestWhatAnAddTaskSaysOfAnExecution(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, arguments, want string }{
		{"a task to be done says nothing", `"status":"PENDING","runnable":true`, "registers=A"},
		{"a task found complete is no end of an execution", `"status":"DONE","runnable":false`, "registers=A done"},
		{"an end", `"status":"DONE","runnable":null,"new_deps":[],"module":"m","params":{"a":"1"}`, `done final m {"a":"1"}`},
		{"an end in other letters of JSON", `"status":"\u0044ONE","runnable":null`, "done final"},
		{"a failure", `"status":"FAILED","runnable":null,"new_deps":null`, "failed final"},
		{"an end that adds dependencies is no plain end", `"status":"DONE","runnable":null,"new_deps":["B_1"]`, "done"},
		{"dependencies that turned up", `"status":"PENDING","runnable":null,"new_deps":["B_1"]`, "yields"},
		{"a pending task without news", `"status":"PENDING","runnable":null,"new_deps":[]`, ""},
		{"the start of a batch", `"status":"RUNNING","runnable":true,"batch_id":"b1"`, "starts batch=b1"},
		{"a tracking address", `"status":"RUNNING","runnable":true,"module":null,"params":null`, "starts"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := post("add_task", `{"worker":"w","task_id":"A_1","family":"A",`+tt.arguments+`}`)
			var got []string
			for _, part := range []string{
				prefixed("registers=", c.Registers), string(c.Report), map[bool]string{true: "final"}[c.Final],
				c.Module, c.Parameters, prefixed("batch=", c.BatchID),
			} {
				if part != "" {
					got = append(got, part)
				}
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" || c.Problem != "" {
				t.Errorf("problem %q (-want +got):\n%s", c.Problem, diff)
			}
		})
	}
	for _, arguments := range []string{`"status":1`, `"status":"DONE","module":["m"]`, `"status":"RUNNING","batch_id":7`} {
		if c := post("add_task", `{"worker":"w","task_id":"A_1","family":"A",`+arguments+`}`); c.Problem != identity.RPCAmbiguous {
			t.Errorf("%s: problem %q, want %s", arguments, c.Problem, identity.RPCAmbiguous)
		}
	}
}

func prefixed(prefix, value string) string {
	if value == "" {
		return ""
	}
	return prefix + value
}

func TestPossibleFamiliesAreThoseThatACallCanClaim(t *testing.T) {
	t.Parallel()
	for id, want := range map[string][]string{
		"Load_Users_1": {"Load", "Load_Users"}, "A__1": {"A", "A_"}, "A_": {"A"}, "_A_1": {"_A"}, "A": nil, "_": nil, "": nil,
	} {
		got := slices.Collect(luigi.PossibleFamilies(id))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", id, diff)
		}
		for _, family := range got {
			if call := post("add_task", `{"worker":"w","task_id":"`+id+`","family":"`+family+`"}`); call.Problem != "" {
				t.Errorf("%q cannot be claimed for %q", id, family)
			}
		}
	}
}
