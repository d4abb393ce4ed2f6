package luigi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/luigi/captures"
)

// FuzzArguments compares the scanner with encoding/json, which reads the same
// language but for the words NaN and Infinity, duplicates and the bounds.
func FuzzArguments(f *testing.F) {
	for _, seed := range []string{
		`{"worker":"w"}`, `{"worker":"\ud83d\ude00","a":[1,{"b":null}]}`, `{"a":1e5,"a":2}`, `{"a":-Infinity}`,
		"{\"worker\":\"\\u00e9\xff\"}", `{"worker":"\ud800"} `, `[1]`, `{"a":01}`, `{"":"","b":"\\"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		call := post("ping", text)
		if call.Problem == "" {
			if !strings.ContainsAny(text, "IN") && !json.Valid([]byte(text)) {
				t.Fatalf("%q was accepted and is no JSON", text)
			}
			var members map[string]json.RawMessage
			var worker *string
			if json.Unmarshal([]byte(text), &members) == nil {
				if raw, ok := members["worker"]; ok {
					if err := json.Unmarshal(raw, &worker); err != nil {
						t.Fatalf("worker of %q: %v", text, err)
					}
				}
				if worker == nil {
					worker = new(string)
				}
				if *worker != call.Worker {
					t.Fatalf("%q names the worker %q, read as %q", text, *worker, call.Worker)
				}
			}
			return
		}
		// Whatever plain calls are made of must not be refused.
		var flat map[string]int
		if json.Unmarshal([]byte(text), &flat) == nil && flat != nil && len(flat) <= 64 && len(flat) == strings.Count(text, ":") &&
			!strings.ContainsAny(text, "\\\ufffd") && !strings.Contains(text, `"worker"`) && json.Valid([]byte(text)) && strings.ToValidUTF8(text, "") == text {
			t.Fatalf("%q was refused", text)
		}
	})
}

// FuzzClassify feeds raw requests and checks what holds for any of them.
func FuzzClassify(f *testing.F) {
	f.Add("POST", "/api/ping", "", form, []byte("data=%7B%22worker%22%3A%22w%22%7D"))
	f.Add("GET", "/api/un%70ause", "data={}", "", []byte(nil))
	f.Add("POST", "//api/add_task", "data={}&data={}", "multipart/form-data", []byte("data={}"))
	f.Add("HEAD", "/", "", "", []byte(nil))
	f.Add("POST", "/api/add_task", "", form+"; charset=x", []byte(`data={"worker":"w","family":"A","task_id":"A_1","runnable":true}`))
	f.Add("POST", "/api/add_task", "", form, []byte(`data={"worker":"w","family":"A","task_id":"A_1","deps":["B_1" ,"\u0041_2"],"new_deps":[]}`))
	f.Add("GET", "/%2e%2e/%61pi%", "d%61ta=;", "", []byte("x"))
	f.Fuzz(func(t *testing.T, method, path, query, contentType string, body []byte) {
		before := string(body)
		call := luigi.Classify(method, path, query, contentType, body)
		if string(body) != before {
			t.Fatal("the body was changed")
		}
		if again := luigi.Classify(method, path, query, contentType, body); !cmp.Equal(again, call) {
			t.Fatalf("two readings: %+v and %+v", call, again)
		}
		if call.Problem != "" && (call.Worker != "" || call.Target != "" || call.TaskID != "" || call.Family != "" || call.Registers != "" || call.Exempt) {
			t.Fatalf("a call with a problem reports arguments: %+v", call)
		}
		if call.Problem == "" && call.Action == "" {
			t.Fatalf("neither an action nor a problem: %+v", call)
		}
		if call.Problem != "" && call.Problem != identity.RPCAmbiguous && call.Problem != identity.RPCUnknown {
			t.Fatalf("problem %q", call.Problem)
		}
		if call.RPC != strings.HasPrefix(path, "/api/") || (call.Exempt && (method != "HEAD" || path != "/")) {
			t.Fatalf("%s %s: %+v", method, path, call)
		}
		if call.Registers != "" && (call.Registers != call.Family || call.Worker == "" || call.Method != "add_task") {
			t.Fatalf("registers without family and worker: %+v", call)
		}
	})
}

func BenchmarkClassify(b *testing.B) {
	exchanges, err := captures.Load(captures.Success)
	if err != nil {
		b.Fatal(err)
	}
	bodies := map[string][]byte{}
	for _, e := range exchanges {
		if name := strings.TrimPrefix(e.Path, "/api/"); bodies[name] == nil {
			bodies[name] = []byte(e.RequestBody)
		}
	}
	for _, name := range []string{"ping", "get_work", "add_task"} {
		path := "/api/" + name
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bodies[name])))
			for b.Loop() {
				if call := luigi.Classify("POST", path, "", form, bodies[name]); call.Worker == "" {
					b.Fatal("no worker")
				}
			}
		})
	}
}
