package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"crossfade/gateway"
	"crossfade/gateway/identity"
)

// Every way in which luigid was seen to read a request otherwise than a naive
// gateway (PROTOCOL, section 1): refused in mode enforce, forwarded byte for byte
// and counted in mode observe.
func TestEveryDifferentialIsClosedInEnforceAndCountedInObserve(t *testing.T) {
	t.Parallel()
	mine, theirs := rpc(`{"worker":"w","task_id":"ExtractUsers_1","family":"ExtractUsers"}`), rpc(`{"worker":"w","task_id":"LoadUsers_1","family":"LoadUsers"}`)
	multipart := "--b\r\nContent-Disposition: form-data; name=\"data\"\r\n\r\n{\"worker\":\"w\"}\r\n--b--\r\n"
	type sent struct {
		method, target, body string
		headers              []string
	}
	post := func(target, body string, headers ...string) sent {
		return sent{"POST", target, body, append([]string{"Content-Type: " + form}, headers...)}
	}
	tests := []struct {
		name string
		sent sent
		want identity.Reason // "" for a call like any other
	}{
		{"the form of every worker", post("/api/add_task", mine), ""},
		{"a second data field, which would win", post("/api/add_task", mine+"&"+theirs), identity.RPCAmbiguous},
		{"a body that beats the query", post("/api/add_task?"+theirs, mine), identity.RPCAmbiguous},
		{"a form in the body of a GET", sent{"GET", "/api/add_task?" + mine, theirs, []string{"Content-Type: " + form, "Sec-Fetch-Site: same-origin"}}, identity.RPCAmbiguous},
		{"multipart", sent{"POST", "/api/ping", multipart, []string{"Content-Type: multipart/form-data; boundary=b"}}, identity.RPCAmbiguous},
		{"a field whose name is behind percent signs", post("/api/add_task", "d%61ta="+strings.TrimPrefix(theirs, "data=")), identity.RPCAmbiguous},
		{"both spellings of the field", post("/api/add_task", mine+"&d%61ta="+strings.TrimPrefix(theirs, "data=")), identity.RPCAmbiguous},
		{"a method behind percent signs, which luigid decodes", post("/api/un%70ause", "data=%7B%7D"), identity.RPCAmbiguous},
		{"an API behind percent signs, which luigid does not find", post("/%61pi/unpause", "data=%7B%7D"), identity.RPCAmbiguous},
		{"two slashes", post("//api/unpause", "data=%7B%7D"), identity.RPCAmbiguous},
		{"a slash at the end", post("/api/ping/", mine), identity.RPCUnknown},
		{"upper case", post("/API/unpause", "data=%7B%7D"), identity.RPCAmbiguous},
		{"a JSON name that stands twice, where the last one wins", post("/api/add_task", rpc(`{"worker":"w","task_id":"ExtractUsers_1","family":"ExtractUsers","family":"LoadUsers"}`)), identity.RPCAmbiguous},
		{"a JSON name that stands twice, once with escapes", post("/api/add_task", rpc(`{"worker":"w","task_id":"ExtractUsers_1","family":"ExtractUsers","f\u0061mily":"LoadUsers"}`)), identity.RPCAmbiguous},
		{"a JSON name in other letters, which is another name", post("/api/add_task", rpc(`{"worker":"w","task_id":"ExtractUsers_1","family":"ExtractUsers","Family":"LoadUsers"}`)), ""},
		{"the bare Infinity of every batching pipeline", post("/api/add_task_batcher", rpc(`{"worker":"w","task_family":"ExtractUsers","max_batch_size":Infinity}`)), ""},
		{"NaN and a surrogate without its partner", post("/api/add_task", rpc(`{"worker":"w","task_id":"ExtractUsers_1","family":"ExtractUsers","priority":NaN,"expl":"\ud800"}`)), ""},
		{"a method that is neither GET nor POST", sent{"PUT", "/api/ping", mine, []string{"Content-Type: " + form}}, identity.RPCUnknown},
		{"a method that nobody has", post("/api/drop_tables", mine), identity.RPCUnknown},
		{"a body over the bound", post("/api/ping", mine+"&x="+strings.Repeat("y", 70_000)), identity.BodyOversize},
	}
	for _, mode := range []gateway.Mode{gateway.Enforce, gateway.Observe} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s/%s", mode, tt.name), func(t *testing.T) {
				t.Parallel()
				up := newStandIn(t)
				up.reply = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"response": null}`)) }
				g := newStage(up.URL)
				g.Mode = mode
				g.Classifier = gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: 64 << 10}
				g.startPlain(t)
				head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nContent-Length: %d\r\nAuthorization: Bearer %s\r\n",
					tt.sent.method, tt.sent.target, len(tt.sent.body), goodToken)
				for _, h := range tt.sent.headers {
					head += h + "\r\n"
				}
				got := up.ask(t, g.server.Listener.Addr().String(), head+"\r\n"+tt.sent.body)
				ev := g.event()
				switch {
				case tt.want == "" && (got.Upstream == nil || ev.Decision.Outcome != gateway.Allowed):
					t.Fatalf("%+v: %s", ev.Decision, got.Body)
				case tt.want != "" && ev.Decision.Reason != tt.want:
					t.Fatalf("reason %q, want %q", ev.Decision.Reason, tt.want)
				case tt.want != "" && mode == gateway.Enforce && (got.Upstream != nil || ev.Decision.Outcome != gateway.Refused):
					t.Fatalf("%+v, reached the upstream: %v", ev.Decision, got.Upstream != nil)
				case tt.want != "" && mode == gateway.Observe && ev.Decision.Outcome != gateway.WouldRefuse:
					t.Fatalf("not counted: %+v", ev.Decision)
				}
				if tt.want == "" || mode == gateway.Observe {
					if got.Upstream.Body != tt.sent.body || got.Upstream.Target != tt.sent.target {
						t.Errorf("the upstream saw %s with %q", got.Upstream.Target, got.Upstream.Body)
					}
				}
				if tt.want == identity.BodyOversize && mode == gateway.Enforce && got.Status != http.StatusRequestEntityTooLarge {
					t.Errorf("answered %d", got.Status)
				}
			})
		}
	}
}
