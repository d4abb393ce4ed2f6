package gateway_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway"
	"crossfade/gateway/identity"
)

const form = "application/x-www-form-urlencoded"

// rpc is the body of a call as a worker sends it.
func rpc(arguments string) string { return "data=" + url.QueryEscape(arguments) }

// post is a call as a worker sends it.
func post(procedure, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/api/"+procedure, strings.NewReader(body))
	r.Header.Set("Content-Type", form)
	return r
}

func TestClassifySaysWhatARequestWants(t *testing.T) {
	t.Parallel()
	request := func(method, target string, headers ...string) *http.Request {
		r := httptest.NewRequest(method, target, nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Add(headers[i], headers[i+1])
		}
		return r
	}
	with := func(r *http.Request, headers ...string) *http.Request {
		for i := 0; i < len(headers); i += 2 {
			r.Header.Add(headers[i], headers[i+1])
		}
		return r
	}
	luigi := gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: 4096, ExemptPaths: []string{"/health"}}
	plain := gateway.Classifier{Profile: gateway.ProfileHTTP, MaxBody: 4096, ExemptPaths: []string{"/health"}}
	register := rpc(`{"worker": "w1", "task_id": "LoadUsers_1_abc", "family": "LoadUsers", "status": "PENDING", "runnable": true}`)
	const (
		execute = identity.ActionExecute
		view    = identity.ActionView
		admin   = identity.ActionAdmin
	)
	ambiguous := func(action identity.Action, method string) gateway.Call {
		return gateway.Call{RPC: true, Method: method, Abortable: true, Action: action, Problem: identity.RPCAmbiguous}
	}
	tests := []struct {
		name    string
		reader  gateway.Classifier
		request *http.Request
		want    gateway.Call
	}{
		{"a worker registers a task", luigi, post("add_task", register), gateway.Call{RPC: true, Method: "add_task", Abortable: true, Action: execute, Family: "LoadUsers", Registers: "LoadUsers", Run: "w1"}},
		{"a ping belongs to its worker", luigi, post("ping", rpc(`{"worker": "w1"}`)), gateway.Call{RPC: true, Method: "ping", Abortable: true, Action: execute, Run: "w1"}},
		{"the visualiser reads", luigi, request("GET", "/api/task_list?data=%7B%7D"), gateway.Call{RPC: true, Method: "task_list", Action: view}},
		{"the visualiser's mutations by GET are an administrator's, on every family", luigi, request("GET", "/api/pause"), gateway.Call{RPC: true, Method: "pause", Action: admin, EveryFamily: true}},
		{"an administrator's call about a task is about its family alone, which is to be found out", luigi, post("forgive_failures", rpc(`{"task_id": "LoadUsers_1_abc"}`)), gateway.Call{RPC: true, Method: "forgive_failures", Abortable: true, Action: admin}},
		{"an unknown call", luigi, post("drop_everything", rpc("{}")), gateway.Call{RPC: true, Method: "drop_everything", Abortable: true, Problem: identity.RPCUnknown}},
		{"two data fields", luigi, post("ping", rpc(`{"worker": "w1"}`)+"&"+rpc(`{"worker": "w2"}`)), ambiguous(execute, "ping")},
		{"a second Content-Type hides the body from the scheduler or from us", luigi, with(post("ping", rpc(`{"worker": "w1"}`)), "Content-Type", "text/plain"), ambiguous(execute, "ping")},
		{"a Content-Encoding hides the body from the scheduler", luigi, with(post("ping", rpc(`{"worker": "w1"}`)), "Content-Encoding", "gzip"), ambiguous(execute, "ping")},
		{"a page of the visualiser", luigi, request("GET", "/static/visualiser/index.html"), gateway.Call{Action: view}},
		{"a page in another spelling of the API", luigi, request("GET", "//api/pause"), gateway.Call{Action: view, Problem: identity.RPCAmbiguous}},
		{"the API behind percent signs", luigi, request("POST", "/%61pi/pause"), gateway.Call{Action: execute, Problem: identity.RPCAmbiguous}},
		{"a method that no page has", luigi, request("DELETE", "/static/visualiser/index.html"), gateway.Call{Action: execute, Problem: identity.RPCUnknown}},
		{"the health check of profile luigi", luigi, request("HEAD", "/"), gateway.Call{Exempt: true}},
		{"a configured health path", luigi, request("GET", "/health"), gateway.Call{Exempt: true}},
		{"a configured path that is not quite it", luigi, request("GET", "/health/"), gateway.Call{Action: view, EveryFamily: true}},
		{"a configured path in other letters", plain, request("GET", "/Health"), gateway.Call{Action: view}},
		{"a configured path behind percent signs", plain, request("GET", "/he%61lth"), gateway.Call{Action: view}},
		{"a preflight of CORS", plain, request("OPTIONS", "/x", "Origin", "https://a.example", "Access-Control-Request-Method", "PUT"), gateway.Call{Exempt: true}},
		{"a preflight of CORS on the API", luigi, request("OPTIONS", "/api/pause", "Origin", "https://a.example", "Access-Control-Request-Method", "POST"), gateway.Call{Exempt: true}},
		{"OPTIONS that is no preflight", plain, request("OPTIONS", "/x", "Origin", "https://a.example"), gateway.Call{Action: view}},
		{"HEAD of another path", plain, request("HEAD", "/x"), gateway.Call{Action: view}},
		{"profile http: GET views", plain, request("GET", "/api/pause"), gateway.Call{Action: view}},
		{"profile http: TRACE views", plain, request("TRACE", "/"), gateway.Call{Action: view}},
		{"profile http: POST executes", plain, post("pause", ""), gateway.Call{Action: execute}},
		{"profile http: an unheard-of method executes", plain, request("BREW", "/pot"), gateway.Call{Action: execute}},
		{"no profile is profile http", gateway.Classifier{}, request("DELETE", "/api/pause"), gateway.Call{Action: execute}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := tt.reader.Classify(tt.request)
			if err != nil {
				t.Fatal(err)
			}
			got.Luigi = tt.want.Luigi // tested where it is made
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// closing notes that the body was closed.
type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

func TestClassifyPutsBackExactlyTheBytesOfTheBody(t *testing.T) {
	t.Parallel()
	const limit = 512
	luigi := gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: limit}
	body := func(size int) string {
		call := rpc(`{"worker": "w1"}`) + "&x="
		return call + strings.Repeat("y", size-len(call))
	}
	tests := []struct {
		name    string
		body    string
		length  int64 // as declared, -1 for a chunked body
		problem identity.Reason
	}{
		{"a short body", body(100), 100, ""},
		{"a short chunked body", body(100), -1, ""},
		{"a body as long as the bound", body(limit), limit, ""},
		{"a chunked body as long as the bound", body(limit), -1, ""},
		{"one byte over the bound", body(limit + 1), limit + 1, identity.BodyOversize},
		{"one byte over the bound, chunked", body(limit + 1), -1, identity.BodyOversize},
		{"far over the bound", body(1 << 20), 1 << 20, identity.BodyOversize},
		{"far over the bound, chunked", body(1 << 20), -1, identity.BodyOversize},
		{"bytes that are no form", "\x00\xff;", 3, identity.RPCAmbiguous},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			original := &closing{Reader: iotest.HalfReader(strings.NewReader(tt.body))}
			r := post("ping", "")
			r.Body, r.ContentLength = original, tt.length
			call, err := luigi.Classify(r)
			if err != nil {
				t.Fatal(err)
			}
			if call.Problem != tt.problem || !call.RPC || call.Method != "ping" {
				t.Errorf("call %+v, want the problem %q", call, tt.problem)
			}
			if tt.problem == identity.BodyOversize && call.Run != "" {
				t.Error("an unread body has named a run")
			}
			got, err := io.ReadAll(r.Body)
			if err != nil || string(got) != tt.body {
				t.Errorf("put back %d bytes (%v), want %d", len(got), err, len(tt.body))
			}
			if r.ContentLength != tt.length {
				t.Errorf("Content-Length became %d, was %d", r.ContentLength, tt.length)
			}
			if err := r.Body.Close(); err != nil || !original.closed {
				t.Errorf("closing what was put back does not close the client's body (%v)", err)
			}
			if tt.problem == identity.BodyOversize {
				return // cannot be sent again
			}
			again, err := r.GetBody()
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := io.ReadAll(again); string(got) != tt.body {
				t.Errorf("GetBody gave %d bytes, want %d", len(got), len(tt.body))
			}
		})
	}
}

func TestClassifyDoesNotReadWhatItNeedNotJudge(t *testing.T) {
	t.Parallel()
	unread := iotest.ErrReader(errors.New("was read"))
	tests := []struct {
		name   string
		reader gateway.Classifier
		target string
		length int64
	}{
		{"profile http", gateway.Classifier{Profile: gateway.ProfileHTTP, MaxBody: 10}, "/api/ping", 5},
		{"a page of profile luigi", gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: 10}, "/upload", -1},
		{"an exempt path", gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: 10, ExemptPaths: []string{"/api/ping"}}, "/api/ping", 5},
		{"a body that says that it is too large", gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: 10}, "/api/ping", 11},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodPost, tt.target, nil)
			r.Body, r.ContentLength = io.NopCloser(unread), tt.length
			if _, err := tt.reader.Classify(r); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestClassifyReportsABodyThatBreaksOff(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection reset by peer")
	r := post("ping", "")
	r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("data="), iotest.ErrReader(broken))), -1
	if _, err := (gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: 100}).Classify(r); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}
