package demo_test

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/luigi"
	"crossfade/gateway/luigi/captures"
)

const form = "application/x-www-form-urlencoded"

func newScheduler(t *testing.T) *demo.Scheduler {
	t.Helper()
	s, err := demo.NewScheduler()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// send puts a request to the scheduler and returns the decoded reply.
func send(t *testing.T, h http.Handler, method, target, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", form)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	resp := w.Result()
	var content io.Reader = resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		content = z
	}
	all, err := io.ReadAll(content)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(all)
}

// workersOf lists the names of a recording's workers in order of appearance.
func workersOf(exchanges []captures.Exchange) []string {
	var names []string
	seen := map[string]bool{}
	for _, e := range exchanges {
		call := luigi.Classify(e.Method, e.Path, e.Query, e.RequestHeaders["Content-Type"], []byte(e.RequestBody))
		if call.Worker != "" && !seen[call.Worker] {
			seen[call.Worker] = true
			names = append(names, call.Worker)
		}
	}
	return names
}

// renamed replays exchange by exchange with workers renamed, and compares
// status and body with the recording.
func renamed(t *testing.T, s http.Handler, recording string, rename func(worker string) string, header ...string) {
	t.Helper()
	exchanges, err := captures.Load(recording)
	if err != nil {
		t.Error(err)
		return
	}
	var escaped, back []string
	for _, w := range workersOf(exchanges) {
		inJSON := strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(rename(w))
		escaped = append(escaped, url.QueryEscape(w), url.QueryEscape(inJSON))
		back = append(back, inJSON, w)
	}
	for _, e := range exchanges {
		if e.Injected() || e.OmittedBytes != 0 {
			continue
		}
		target := e.Path
		if e.Query != "" {
			target += "?" + strings.NewReplacer(escaped...).Replace(e.Query)
		}
		h := append([]string{"Accept-Encoding", e.RequestHeaders["Accept-Encoding"]}, header...)
		resp, body := send(t, s, e.Method, target, strings.NewReplacer(escaped...).Replace(e.RequestBody), h...)
		body = strings.NewReplacer(back...).Replace(body)
		if resp.StatusCode != e.Status || body != e.ResponseBody {
			t.Errorf("%s %d, %s %s:\n got %d %s\nwant %d %s", recording, e.Seq, e.Method, e.Path, resp.StatusCode, body, e.Status, e.ResponseBody)
		}
		for _, name := range []string{"Content-Type", "Location", "Content-Encoding"} {
			if name == "Content-Encoding" && (len(back) > 0 && back[0] != back[1] || !strings.HasPrefix(e.Path, "/api/")) {
				continue // whether a reply is compressed depends on its length
			}
			if got := resp.Header.Get(name); got != e.ResponseHeaders[name] {
				t.Errorf("%s %d, %s %s: %s is %q, want %q", recording, e.Seq, e.Method, e.Path, name, got, e.ResponseHeaders[name])
			}
		}
	}
}

func TestSchedulerAnswersEveryRecordingByteForByte(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	for _, name := range captures.Names() {
		renamed(t, s, name, func(w string) string { return w })
	}
}

func TestSchedulerAnswersRenamedWorkersByteForByteAndAgainInTheNextLoop(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	for loop := range 3 {
		for _, name := range []string{captures.Contention, captures.Failure, captures.Success} {
			renamed(t, s, name, func(w string) string { return fmt.Sprintf("%d: \"näme\" <%s> & \\ more", loop, w[10:24]) })
		}
	}
}

func TestSchedulerKeepsPlayersApart(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	var wg sync.WaitGroup
	for player := range 4 {
		wg.Go(func() {
			for loop := range 3 {
				renamed(t, s, captures.Contention, func(w string) string { return fmt.Sprintf("%s %d %d", w, player, loop) },
					"X-Forwarded-User", fmt.Sprint("player-", player))
			}
		})
	}
	wg.Wait()
}

func TestSchedulerRecognisesAPartByTheProcessIDThoughTheOtherWorkerStaysAway(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	for loop := range 3 {
		// The other worker of the recording, pid 3400, was refused and never comes.
		send(t, s, "POST", "/api/add_task", fmt.Sprintf(`data={"worker":"Worker(loop=%d, pid=3397)","task_id":"UsersPipeline_2024_06_01_18e61cf644"}`, loop))
		_, got := send(t, s, "POST", "/api/get_work", fmt.Sprintf(`data={"worker":"Worker(loop=%d, pid=3397)"}`, loop))
		if !strings.Contains(got, `"n_pending_tasks": 9`) {
			t.Errorf("loop %d: the first worker is not given its first task: %s", loop, got)
		}
	}
}

func TestSchedulerHandsOutTheTasksThatWereRegisteredUnderNewIDs(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	var mu sync.Mutex
	handed := map[string]bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reply := httptest.NewRecorder()
		s.ServeHTTP(reply, r)
		var work struct {
			Response struct {
				TaskID string `json:"task_id"`
			}
		}
		if strings.HasSuffix(r.URL.Path, "/get_work") && json.Unmarshal(reply.Body.Bytes(), &work) == nil && work.Response.TaskID != "" {
			mu.Lock()
			handed[work.Response.TaskID] = true
			mu.Unlock()
		}
		w.WriteHeader(reply.Code)
		_, _ = w.Write(reply.Body.Bytes())
	}))
	defer server.Close()
	traffic, err := demo.NewTraffic(demo.TrafficOptions{
		Capture: captures.Failure, BaseURL: server.URL, Client: server.Client(), Loops: 2,
		Edition:  func(loop int) string { return fmt.Sprint("night ", loop) },
		OnResult: func(demo.Result) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := traffic.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, recorded := range []string{"ExtractUsers_2024_05_02_crm_4115d31161", "ValidateUsers_2024_05_02_31c6e11190"} {
		if handed[recorded] {
			t.Errorf("%s was handed out, which nobody has registered", recorded)
		}
	}
	if len(handed) != 4 { // two tasks in each of two nights
		t.Errorf("handed out %v, want two tasks a night, others each time", handed)
	}
}

func TestSchedulerStaysSmallWhenWorkersComeAndGo(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	for i := range 1500 {
		body := "data=" + url.QueryEscape(fmt.Sprintf(`{"worker":"w%d","task_id":"BrokenPipeline_2024_05_02_31c6e11190"}`, i))
		if resp, got := send(t, s, "POST", "/api/add_task", body); resp.StatusCode != 200 || got != `{"response": null}` {
			t.Fatalf("worker %d: %d %s", i, resp.StatusCode, got)
		}
	}
	// The first one was forgotten and hears what an idle scheduler says.
	_, got := send(t, s, "POST", "/api/get_work", "data="+url.QueryEscape(`{"worker":"w0"}`))
	if !strings.Contains(got, `"n_pending_tasks": 0`) {
		t.Errorf("a forgotten worker: %s", got)
	}
	_, got = send(t, s, "POST", "/api/get_work", "data="+url.QueryEscape(`{"worker":"w1499"}`))
	if !strings.Contains(got, `"n_pending_tasks": 4`) {
		t.Errorf("the newest worker: %s", got)
	}
}

func TestSchedulerAnswersTheRestAsLuigidDoes(t *testing.T) {
	t.Parallel()
	const notFound = "<html><title>404: Not Found</title><body>404: Not Found</body></html>"
	tests := []struct {
		name, method, target, body string
		status                     int
		want                       string
	}{
		{"a method that does not exist", "POST", "/api/launch", "data={}", 404, notFound},
		{"a method of another case", "GET", "/api/Pause", "", 404, notFound},
		{"a path with two slashes", "GET", "//api/pause", "", 404, notFound},
		{"a percent sign in the method is decoded", "GET", "/api/un%70ause", "", 200, `{"response": null}`},
		{"a ping of a stranger", "POST", "/api/ping", `data={"worker":"x"}`, 200, `{"response": {"rpc_messages": []}}`},
		{
			"work for a stranger", "POST", "/api/get_work", `data={"worker":"x"}`, 200,
			`{"response": {"n_pending_tasks": 0, "n_unique_pending": 0, "n_pending_last_scheduled": 0, "worker_state": "active", "running_tasks": [], "task_id": null}}`,
		},
		{"a task of a stranger", "POST", "/api/add_task", `data={"worker":"x","task_id":"Own_1"}`, 200, `{"response": null}`},
		{"a mutation by GET", "GET", "/api/pause", "", 200, `{"response": null}`},
		{"a method that was not recorded", "GET", "/api/prune", "", 200, `{"response": null}`},
		{"a bare Infinity", "POST", "/api/add_task_batcher", `data={"worker":"x","max_batch_size":Infinity,"a":[NaN,-Infinity]}`, 200, `{"response": null}`},
		{"JSON that is none", "POST", "/api/ping", "data={", 500, "<html><title>500: Internal Server Error</title><body>500: Internal Server Error</body></html>"},
		{"an array of arguments", "POST", "/api/ping", "data=[]", 500, "<html><title>500: Internal Server Error</title><body>500: Internal Server Error</body></html>"},
		{"a preflight", "OPTIONS", "/api/ping", "", 204, ""},
		{"a PUT", "PUT", "/api/ping", "data={}", 405, "<html><title>405: Method Not Allowed</title><body>405: Method Not Allowed</body></html>"},
		{"the health check", "HEAD", "/", "", 204, ""},
		{"the root", "GET", "/", "", 302, ""},
		{"a page that does not exist", "GET", "/visualiser", "", 404, notFound},
		{"a static file, which was not recorded", "GET", "/static/visualiser/js/luigi.js", "", 404, notFound},
		{"a post to a page", "POST", "/history", "a=b", 405, "<html><title>405: Method Not Allowed</title><body>405: Method Not Allowed</body></html>"},
	}
	s := newScheduler(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, body := send(t, s, tt.method, tt.target, tt.body)
			if resp.StatusCode != tt.status || body != tt.want {
				t.Errorf("%d %s\nwant %d %s", resp.StatusCode, body, tt.status, tt.want)
			}
		})
	}
}

func TestSchedulerShowsItsListsToACurlWithoutArguments(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	for _, target := range []string{"/api/task_list", "/api/worker_list", `/api/task_list?data={"limit":5}`} {
		resp, body := send(t, s, "GET", strings.NewReplacer(`"`, "%22", "{", "%7B", "}", "%7D").Replace(target), "")
		if resp.StatusCode != 200 || len(body) < 1000 || resp.Header.Get("Content-Encoding") != "" {
			t.Errorf("GET %s: %d, %d bytes, encoding %q", target, resp.StatusCode, len(body), resp.Header.Get("Content-Encoding"))
		}
	}
	if _, page := send(t, s, "GET", "/static/visualiser/index.html", ""); !strings.Contains(page, "stand-in") {
		t.Errorf("the page in place of the visualiser: %s", page)
	}
}
