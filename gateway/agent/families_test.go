package agent_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"crossfade/gateway/agent"
	"crossfade/gateway/agent/token"
	"crossfade/gateway/identity"
)

// kept is a token that says what it is for.
type kept struct {
	purpose token.Request
	owner   *provider
	closed  bool
	skew    time.Duration
}

// provider opens tokens.
type provider struct {
	mu   sync.Mutex
	all  []*kept
	down error
}

func (p *provider) open(r token.Request) (agent.Kept, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := &kept{purpose: r, owner: p}
	p.all = append(p.all, k)
	return k, nil
}

func (p *provider) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = err
}

// opened lists the tokens that are kept fresh now.
func (p *provider) opened() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for _, k := range p.all {
		if !k.closed {
			names = append(names, k.purpose.Audience+strings.Join(k.purpose.Scopes, "+"))
		}
	}
	return names
}

func (k *kept) Token(ctx context.Context) (token.Token, error) {
	k.owner.mu.Lock()
	defer k.owner.mu.Unlock()
	if k.closed {
		return token.Token{}, token.ErrClosed
	}
	if k.owner.down != nil {
		return token.Token{}, k.owner.down
	}
	return token.Token{Value: identity.NewSecret("token-for-" + k.purpose.Audience + strings.Join(k.purpose.Scopes, "+"))}, nil
}

func (k *kept) SetSkew(ahead time.Duration) { k.skew = ahead }

func (k *kept) Close() error {
	k.owner.mu.Lock()
	defer k.owner.mu.Unlock()
	k.closed = true
	return nil
}

// scheduled is an agent before a scheduler that a test plays, without a network.
type scheduled struct {
	proxy    *agent.Proxy
	families *agent.Families
	provider *provider
	dir      string
	said     *safe
	// answer is the scheduler: what it says to a call.
	answer func(path string, r *http.Request) *http.Response
	last   http.Header // of the call that came last
}

func (s *scheduled) RoundTrip(r *http.Request) (*http.Response, error) {
	s.last = r.Header
	resp := s.answer(r.URL.Path, r)
	resp.Request = r
	return resp, nil
}

func says(body string) *http.Response {
	return &http.Response{
		StatusCode: 200, Header: http.Header{"Content-Type": {"application/json; charset=UTF-8"}},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// fataler is a test or a check of a property.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

func newScheduled(t fataler, dir string, families ...agent.Family) *scheduled {
	t.Helper()
	s := &scheduled{provider: &provider{}, said: &safe{}, dir: dir}
	s.answer = func(string, *http.Request) *http.Response { return says(`{"response": null}`) }
	report := agent.NewReporter(s.said, 0)
	var err error
	s.families, err = agent.NewFamilies(agent.FamiliesOptions{
		Families: families, Run: "run-1", Open: s.provider.open, Dir: dir, Report: report,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.proxy, err = agent.New(agent.Options{
		Gateway: &url.URL{Scheme: "http", Host: "gateway"}, Mode: agent.ModeToken, Tokens: good(), Families: s.families, Run: "run-1",
		Report: report, Transport: s,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// call makes one of a worker's calls, and returns the token that went along and
// the answer.
func (s *scheduled) call(method string, args map[string]any) (token string, reply *httptest.ResponseRecorder) {
	text, err := json.Marshal(args)
	if err != nil {
		panic(err)
	}
	return s.send(http.MethodPost, "/api/"+method, url.Values{"data": {string(text)}}.Encode())
}

func (s *scheduled) send(method, target, body string) (token string, reply *httptest.ResponseRecorder) {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return s.do(r)
}

func (s *scheduled) do(r *http.Request) (token string, reply *httptest.ResponseRecorder) {
	r.Host = "localhost"
	reply = httptest.NewRecorder()
	s.last = http.Header{}
	s.proxy.ServeHTTP(reply, r)
	return strings.TrimPrefix(s.last.Get("Authorization"), "Bearer "), reply
}

// handOut lets the scheduler hand out work to a worker.
func (s *scheduled) handOut(worker string, reply map[string]any) *httptest.ResponseRecorder {
	text, err := json.Marshal(map[string]any{"response": reply})
	if err != nil {
		panic(err)
	}
	before := s.answer
	s.answer = func(string, *http.Request) *http.Response { return says(string(text)) }
	defer func() { s.answer = before }()
	_, got := s.call("get_work", map[string]any{"worker": worker, "current_tasks": []string{}})
	return got
}

func one(family, id string) map[string]any {
	return map[string]any{"task_id": id, "task_family": family, "n_pending_tasks": 1}
}

func aud(pattern, audience string) agent.Family {
	return agent.Family{Pattern: pattern, Request: token.Request{Audience: audience}}
}

func (s *scheduled) close(t *testing.T) {
	t.Helper()
	if err := s.families.Close(); err != nil {
		t.Error(err)
	}
	if left := s.provider.opened(); len(left) > 0 {
		t.Errorf("still kept fresh: %v", left)
	}
}

func TestCallsAboutATaskCarryItsFamilysTokenWhileItIsOut(t *testing.T) {
	const own, load = "the-token", "token-for-load"
	s := newScheduled(t, "", aud("Load*", "load"), aud("Extract", "extract"))
	defer s.close(t)
	expect := func(when, want, method string, args map[string]any) {
		t.Helper()
		if got, _ := s.call(method, args); got != want {
			t.Errorf("%s, %s goes by %q, want %q", when, method, got, want)
		}
	}
	const id = "LoadUsers_1"
	add := func(task, family, status string, runnable any) map[string]any {
		return map[string]any{"worker": "w", "task_id": task, "family": family, "status": status, "runnable": runnable}
	}
	expect("before", own, "add_task", add(id, "LoadUsers", "PENDING", true))
	expect("before", own, "set_task_status_message", map[string]any{"task_id": id})
	if got := s.handOut("w", one("LoadUsers", id)); !strings.Contains(got.Body.String(), id) {
		t.Fatalf("the worker got %s", got.Body)
	}
	if got := s.last.Get("Crossfade-Run"); got != "run-1" {
		t.Errorf("the run is called %q", got)
	}
	for _, method := range []string{
		"set_task_status_message", "set_task_progress_percentage", "decrease_running_task_resources", "report_task_statistics",
		"add_scheduler_message_response", "get_scheduler_message_response", "get_task_progress_percentage",
	} {
		expect("while it is out", load, method, map[string]any{"task_id": id})
	}
	expect("while it is out", load, "add_task", map[string]any{"worker": "w", "task_id": id, "family": "", "status": "RUNNING", "runnable": true})
	for _, method := range []string{"ping", "get_work", "add_worker", "count_pending", "disable_worker", "announce_scheduling_failure"} {
		expect("while it is out", own, method, map[string]any{"worker": "w", "family": "LoadUsers"})
	}
	for _, method := range []string{"mark_as_done", "forgive_failures", "re_enable_task", "fetch_error"} {
		expect("what administrators do", own, method, map[string]any{"task_id": id})
	}
	expect("what it waits for", own, "add_task", add("Extract_1", "Extract", "PENDING", true))
	expect("another task of its family", own, "add_task", add("LoadUsers_2", "LoadUsers", "PENDING", true))
	expect("another family's name", own, "add_task", add(id, "Extract", "DONE", nil))
	expect("another worker that registers it", own, "add_task", map[string]any{"worker": "x", "task_id": id, "family": "LoadUsers", "status": "PENDING", "runnable": nil})
	expect("while it is out still", load, "set_task_status_message", map[string]any{"task_id": id})

	refusing := s.answer
	s.answer = func(string, *http.Request) *http.Response { r := says(""); r.StatusCode = 503; return r }
	expect("at the end", load, "add_task", add(id, "LoadUsers", "DONE", nil))
	s.answer = refusing
	expect("when the end is told again", load, "add_task", add(id, "LoadUsers", "DONE", nil))
	expect("behind the end", own, "set_task_status_message", map[string]any{"task_id": id})

	s.handOut("w", one("Other", "Other_1"))
	expect("a family without a token of its own", own, "set_task_status_message", map[string]any{"task_id": "Other_1"})
}

func TestABatchIsOutUnderTheIDThatTheWorkerGivesIt(t *testing.T) {
	s := newScheduled(t, "", aud("Notify", "notify"))
	defer s.close(t)
	s.handOut("w", map[string]any{
		"task_id": nil, "task_family": "Notify", "batch_id": "b1", "batch_task_ids": []string{"Notify_a", "Notify_b"},
	})
	start := func(id, family, batch string) map[string]any {
		return map[string]any{"worker": "w", "task_id": id, "family": family, "status": "RUNNING", "batch_id": batch, "runnable": true}
	}
	for _, wrong := range []map[string]any{start("Notify_x", "Notify", "b2"), start("Other_x", "Other", "b1"), start("Other_x", "Notify", "b1"), start("Notify_x", "", "b1")} {
		if got, _ := s.call("add_task", wrong); got != "the-token" {
			t.Errorf("%v goes by %q", wrong, got)
		}
	}
	if got, _ := s.call("add_task", start("Notify_ab", "Notify", "b1")); got != "token-for-notify" {
		t.Errorf("its start goes by %q", got)
	}
	if got, _ := s.call("add_task", start("Notify_c", "Notify", "b1")); got != "the-token" {
		t.Errorf("a second task that claims to be it goes by %q", got)
	}
	end := map[string]any{"worker": "w", "task_id": "Notify_ab", "family": "Notify", "status": "DONE", "runnable": nil}
	if got, _ := s.call("add_task", end); got != "token-for-notify" {
		t.Errorf("its end goes by %q", got)
	}
	for _, id := range []string{"Notify_ab", "Notify_a", "Notify_b"} {
		if got, _ := s.call("set_task_status_message", map[string]any{"task_id": id}); got != "the-token" {
			t.Errorf("%s is out behind its end, by %q", id, got)
		}
	}
}

func TestTheClosestPatternCountsAndMayNameTheFamily(t *testing.T) {
	s := newScheduled(t, "", aud("*", "all"), aud("Load*", "load"), aud("LoadUsers", "users"),
		agent.Family{Pattern: "Ex*", Request: token.Request{Audience: "x", Scopes: []string{"run:{family}"}}})
	defer s.close(t)
	for family, want := range map[string]string{
		"Other": "all", "Load": "load", "LoadSales": "load", "LoadUsers": "users", "LoadUsersAll": "load", "loadUsers": "all",
		"Extract": "xrun:Extract", "Export": "xrun:Export",
	} {
		s.handOut("w", one(family, family+"_1"))
		if got, _ := s.call("set_task_status_message", map[string]any{"task_id": family + "_1"}); got != "token-for-"+want {
			t.Errorf("%s goes by %q, want %q", family, got, want)
		}
	}
	if got := s.provider.opened(); len(got) != 5 {
		t.Errorf("one each for what they are good for, not %v", got)
	}
	for _, k := range s.provider.all {
		if k.purpose.Run != "run-1" {
			t.Errorf("the source was told of the run %q", k.purpose.Run)
		}
	}
}

func TestATaskWithoutATokenForItsFamilyIsNotHandedOn(t *testing.T) {
	s := newScheduled(t, t.TempDir(), aud("Load*", "load"))
	defer func() { s.close(t) }()
	s.provider.fail(errors.New("the provider is away"))
	for range 2 {
		got := s.handOut("w", one("LoadUsers", "LoadUsers_1"))
		var body map[string]map[string]any
		if err := json.Unmarshal(got.Body.Bytes(), &body); err != nil || got.Code != 200 || body["error"]["reason"] != "agent_no_family_token" || len(body) != 1 {
			t.Errorf("the worker got %d %s", got.Code, got.Body)
		}
	}
	said := s.said.String()
	if strings.Count(said, "REFUSED agent_no_family_token") != 1 || !strings.Contains(said, "no token for LoadUsers: the provider is away.") {
		t.Errorf("said %q", said)
	}
	if !s.proxy.Refused() || s.proxy.Stats().NoToken != 2 || s.proxy.Stats().Forwarded != 0 {
		t.Errorf("%+v", s.proxy.Stats())
	}
	text := `{"response": {"task_id": "LoadUsers_1", "task_family": "LoadUsers"}}`
	s.answer = func(string, *http.Request) *http.Response { return says(text) }
	if _, got := s.send(http.MethodGet, "/api/get_work?data="+url.QueryEscape(`{"worker": "w"}`), ""); got.Code != 503 || strings.Contains(got.Body.String(), "task_id") {
		t.Errorf("a browser got %d %s", got.Code, got.Body)
	}
	s.provider.fail(nil)
	for _, target := range []string{"/api/get_work", "/api/get%5Fwork"} {
		if _, got := s.send(http.MethodGet, target+"?data="+url.QueryEscape(`{"worker": "w"}`), ""); got.Body.String() != text {
			t.Errorf("%s: %d %s", target, got.Code, got.Body)
		}
		if got, _ := s.call("set_task_status_message", map[string]any{"task_id": "LoadUsers_1"}); got != "token-for-load" {
			t.Errorf("%s hands out tasks that go by %q", target, got)
		}
		s.families.Close()
		if _, got := s.send(http.MethodPost, target, "data=%7B%7D"); strings.Contains(got.Body.String(), "task_id") {
			t.Errorf("handed on behind the end: %s", got.Body)
		}
		s = newScheduled(t, "", aud("Load*", "load"))
		s.answer = func(string, *http.Request) *http.Response { return says(text) }
	}
}

func TestARunningTaskWhoseTokenEndsIsSentWithNone(t *testing.T) {
	s := newScheduled(t, "", aud("Load*", "load"))
	defer s.close(t)
	s.handOut("w", one("LoadUsers", "LoadUsers_1"))
	s.provider.fail(errors.New("the provider is away"))
	for range 2 {
		if got, reply := s.call("set_task_status_message", map[string]any{"task_id": "LoadUsers_1"}); got != "" || !strings.Contains(reply.Body.String(), `"error"`) {
			t.Errorf("it went by %q: %s", got, reply.Body)
		}
	}
	if said := s.said.String(); strings.Count(said, "no token for the task family LoadUsers: the provider is away.") != 1 {
		t.Errorf("said %q", said)
	}
	if got, _ := s.call("ping", map[string]any{"worker": "w"}); got != "the-token" {
		t.Errorf("a ping goes by %q", got)
	}
}

func TestRepliesThatAreNotUnderstoodPassAsTheyCame(t *testing.T) {
	task := `{"response": {"task_id": "LoadUsers_1", "task_family": "LoadUsers", "task_params": {"x": 1}, "running_tasks": []}}`
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, task)
	_ = z.Close()
	for name, tc := range map[string]struct {
		body, encoding string
		out, said      bool
	}{
		"a task":                    {task, "", true, false},
		"a task that is compressed": {zipped.String(), "gzip", true, false},
		"no task":                   {`{"response": {"task_id": null, "n_pending_tasks": 0}}`, "", false, false},
		"nothing":                   {"", "", false, true},
		"no JSON":                   {"<html>", "", false, true},
		"no object":                 {`{"response": []}`, "", false, true},
		"two tasks of one name":     {`{"response": {"task_id": "LoadUsers_1", "task_id": "LoadUsers_2", "task_family": "LoadUsers"}}`, "", false, true},
		"a task of another family":  {`{"response": {"task_id": "LoadUsers_1", "task_family": "Load"}}`, "", false, true},
		"a batch without tasks":     {`{"response": {"task_id": null, "batch_id": "b", "task_family": "LoadUsers"}}`, "", false, true},
		"half a character":          {`{"response": {"task_id": "LoadUsers_1\ud800", "task_family": "LoadUsers"}}`, "", false, true},
		"a broken compression":      {"\x1f\x8bx", "gzip", false, true},
		"another compression":       {task, "br", false, true},
		"more than is read":         {`{"response": {"task_id": "LoadUsers_1", "task_family": "LoadUsers"}}` + strings.Repeat(" ", 4<<20), "", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, known := range []bool{true, false} {
				s := newScheduled(t, "", aud("Load*", "load"))
				s.answer = func(path string, _ *http.Request) *http.Response {
					if path != "/api/get_work" {
						return says(`{"response": null}`)
					}
					r := says(tc.body)
					if tc.encoding != "" {
						r.Header.Set("Content-Encoding", tc.encoding)
					}
					if !known {
						r.ContentLength = -1
					}
					return r
				}
				for range 2 {
					if _, got := s.call("get_work", map[string]any{"worker": "w"}); got.Body.String() != tc.body || got.Code != 200 {
						t.Errorf("the worker got %d and %d bytes of %d", got.Code, got.Body.Len(), len(tc.body))
					}
				}
				got, _ := s.call("set_task_status_message", map[string]any{"task_id": "LoadUsers_1"})
				if (got == "token-for-load") != tc.out {
					t.Errorf("the task goes by %q", got)
				}
				if n := strings.Count(s.said.String(), "get_work"); tc.said != (n == 1) {
					t.Errorf("said %q", s.said.String())
				}
				s.close(t)
			}
		})
	}
}

func TestCallsThatCannotBeReadNeverCarryAFamilysToken(t *testing.T) {
	s := newScheduled(t, "", aud("Load*", "load"))
	defer s.close(t)
	s.handOut("w", one("LoadUsers", "LoadUsers_1"))
	data := func(text string) string { return url.Values{"data": {text}}.Encode() }
	plain := data(`{"task_id": "LoadUsers_1"}`)
	const path = "/api/set_task_status_message"
	for name, body := range map[string]string{
		"two fields":             plain + "&" + plain,
		"two names":              data(`{"task_id": "LoadUsers_1", "task_id": "LoadUsers_1"}`),
		"two names, one escaped": data(`{"task_id": "LoadUsers_1", "task\u005fid": "Other_1"}`),
		"another case":           data(`{"Task_id": "LoadUsers_1"}`),
		"no object":              data(`["LoadUsers_1"]`),
		"more behind it":         data(`{"task_id": "LoadUsers_1"} {}`),
		"an id that is none":     data(`{"task_id": ["LoadUsers_1"]}`),
		"a broken escape":        "data=%zz",
		"a large one":            data(`{"task_id": "LoadUsers_1", "message": "` + strings.Repeat("x", 1<<20) + `"}`),
	} {
		if got, reply := s.send(http.MethodPost, path, body); got != "the-token" || reply.Code != 200 {
			t.Errorf("%s: goes by %q, %d", name, got, reply.Code)
		}
	}
	if got, _ := s.send(http.MethodPost, path+"?"+plain, plain); got != "the-token" {
		t.Errorf("in the query and the body: goes by %q", got)
	}
	for name, change := range map[string]func(*http.Request){
		"of another form":     func(r *http.Request) { r.Header.Set("Content-Type", "multipart/form-data; boundary=x") },
		"of no form":          func(r *http.Request) { r.Header.Del("Content-Type") },
		"of two forms":        func(r *http.Request) { r.Header.Add("Content-Type", "text/plain") },
		"compressed":          func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") },
		"of an unknown size":  func(r *http.Request) { r.ContentLength = -1 },
		"by an escaped slash": func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/api/x/", "/api/x%2F" },
	} {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(plain))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		change(r)
		if got, _ := s.do(r); got != "the-token" {
			t.Errorf("a body %s: goes by %q", name, got)
		}
	}
	if got, _ := s.send(http.MethodPost, path, plain); got != "token-for-load" {
		t.Errorf("the plain one goes by %q", got)
	}
	broken := httptest.NewRequest(http.MethodPost, path, strings.NewReader("data"))
	broken.ContentLength = 100
	if _, reply := s.do(broken); reply.Code != 400 {
		t.Errorf("a body that breaks off: %d", reply.Code)
	}
}

func TestATokenIsKeptWhileTasksAreOutAndAMinuteBeyond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for name, text := range map[string]string{
			"LoadDead": "eyJ.x.y\n", ".LoadHalf.123": "", "LoadNotes": "two words", "notes": "two words", "secret": "s3cret",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := newScheduled(t, dir, aud("Load*", "load"))
		for name, want := range map[string]string{"LoadDead": "-", ".LoadHalf.123": "-", "LoadNotes": "two words", "notes": "two words", "secret": "s3cret"} {
			if got := content(t, filepath.Join(dir, name)); got != want {
				t.Errorf("%s holds %q: what a dead agent has left is there, or something else is gone", name, got)
			}
		}
		file := filepath.Join(dir, "LoadUsers")
		state := func(when, inFile string, opened int) {
			t.Helper()
			synctest.Wait()
			if got := content(t, file); got != inFile {
				t.Errorf("%s the file holds %q, want %q", when, got, inFile)
			}
			if got := s.provider.opened(); len(got) != opened {
				t.Errorf("%s %d tokens are kept fresh: %v", when, len(got), got)
			}
		}
		state("at the start", "-", 0)
		s.handOut("w", one("LoadUsers", "LoadUsers_1"))
		s.handOut("w", one("LoadUsers", "LoadUsers_2"))
		s.handOut("w", one("LoadUsers", "LoadUsers_2")) // again
		state("with two tasks", "token-for-load\n", 1)
		end := func(id string) {
			s.call("add_task", map[string]any{"worker": "w", "task_id": id, "family": "LoadUsers", "status": "FAILED", "runnable": nil})
		}
		end("LoadUsers_1")
		time.Sleep(10 * time.Minute)
		state("with one task", "token-for-load\n", 1)
		end("LoadUsers_2")
		state("with none", "-", 1)
		time.Sleep(2 * time.Minute)
		state("a while later", "-", 0)

		s.handOut("w", one("LoadUsers", "LoadUsers_3"))
		state("with the next", "token-for-load\n", 1)
		for range 30 {
			time.Sleep(10 * time.Minute)
			s.call("ping", map[string]any{"worker": "w"})
		}
		state("while the worker lives", "token-for-load\n", 1)
		time.Sleep(2 * time.Hour)
		state("when the worker has long been silent", "-", 0)

		s.handOut("w", one("LoadUsers", "LoadUsers_4"))
		s.close(t)
		state("at the end", "-", 0)
	})
}

func TestAFileThatCannotBeWrittenKeepsTheTaskFromItsWorker(t *testing.T) {
	s := newScheduled(t, filepath.Join(t.TempDir(), "none"), aud("Load*", "load"))
	defer s.close(t)
	if got := s.handOut("w", one("LoadUsers", "LoadUsers_1")); strings.Contains(got.Body.String(), "task_id") {
		t.Errorf("handed on: %s", got.Body)
	}
}

// Whatever is handed out and called, at once by many: a family's token goes with
// nothing but calls about tasks of that family that are out.
func TestAFamilysTokenNeverGoesWithAnotherFamilysTask(t *testing.T) {
	names := []string{"A", "A_B", "AB", "B", "A_B_C"}
	rapid.Check(t, func(t *rapid.T) {
		s := newScheduled(t, "", agent.Family{Pattern: "*", Request: token.Request{Audience: "{family}"}})
		defer func() { _ = s.families.Close() }()
		registered := map[string]string{} // as the scheduler knows them
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			family := rapid.SampledFrom(names).Draw(t, "family")
			id := family + "_" + rapid.SampledFrom([]string{"1", "B_1", "C_2"}).Draw(t, "id")
			worker := rapid.SampledFrom([]string{"w", "x"}).Draw(t, "worker")
			known, out := registered[id]
			if out {
				family = known
			}
			switch rapid.SampledFrom([]string{"out", "batch", "call", "end", "combine"}).Draw(t, "what") {
			case "out":
				registered[id] = family
				s.handOut(worker, one(family, id))
			case "batch":
				registered[id] = family
				s.handOut(worker, map[string]any{"task_id": nil, "task_family": family, "batch_id": "b-" + family, "batch_task_ids": []string{id}})
			default:
				claimed := rapid.SampledFrom(append([]string{""}, names...)).Draw(t, "claimed")
				args := map[string]any{"worker": worker, "task_id": id, "family": claimed, "status": "DONE"}
				if rapid.Bool().Draw(t, "in a batch") {
					args["batch_id"], args["status"] = "b-"+rapid.SampledFrom(names).Draw(t, "batch"), "RUNNING"
				}
				if !out && claimed != "" && strings.HasPrefix(id, claimed+"_") && args["batch_id"] != nil {
					registered[id] = claimed // the scheduler takes the family of a task that it does not know from the call
				}
				got, _ := s.call("add_task", args)
				of, isFamilys := strings.CutPrefix(got, "token-for-")
				if is, ok := registered[id]; ok && isFamilys && of != is && of != claimed {
					t.Fatalf("%v, which is of %s, goes by the token of %s", args, registered[id], of)
				}
				if isFamilys && claimed != "" && of != claimed {
					t.Fatalf("%v goes by the token of %s", args, of)
				}
			}
		}
	})
}

func TestManyWorkersAtOnce(t *testing.T) {
	s := newScheduled(t, t.TempDir(), aud("Load*", "load"), aud("Extract*", "extract"))
	defer s.close(t)
	// Of several calls at once the header that came last is nobody's: the answer says it.
	var mu sync.Mutex
	handing := map[string]string{}
	s.proxy, _ = agent.New(agent.Options{
		Gateway: &url.URL{Scheme: "http", Host: "gateway"}, Mode: agent.ModeToken, Tokens: good(), Families: s.families,
		Report: agent.NewReporter(s.said, 0), Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
			body, _ := io.ReadAll(r.Body)
			form, _ := url.ParseQuery(string(body))
			var args struct {
				Worker string `json:"worker"`
			}
			_ = json.Unmarshal([]byte(form.Get("data")), &args)
			text := fmt.Sprintf(`{"response": %q}`, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			if r.URL.Path == "/api/get_work" {
				mu.Lock()
				family := handing[args.Worker]
				mu.Unlock()
				text = fmt.Sprintf(`{"response": {"task_id": "%s_%s", "task_family": %q}}`, family, args.Worker, family)
			}
			resp := says(text)
			resp.Request = r
			return resp, nil
		}),
	})
	call := func(method string, args map[string]any) string {
		text, _ := json.Marshal(args)
		r := httptest.NewRequest(http.MethodPost, "/api/"+method, strings.NewReader(url.Values{"data": {string(text)}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Host = "localhost"
		w := httptest.NewRecorder()
		s.proxy.ServeHTTP(w, r)
		return w.Body.String()
	}
	var workers sync.WaitGroup
	for i := range 8 {
		workers.Go(func() {
			worker := fmt.Sprint("w", i)
			for n := range 20 {
				family, audience := "LoadUsers", "load"
				if (i+n)%2 == 0 {
					family, audience = "ExtractUsers", "extract"
				}
				mu.Lock()
				handing[worker] = family
				mu.Unlock()
				call("get_work", map[string]any{"worker": worker})
				id := family + "_" + worker
				if got := call("set_task_status_message", map[string]any{"task_id": id}); !strings.Contains(got, "token-for-"+audience) {
					t.Errorf("%s: %s", id, got)
				}
				call("add_task", map[string]any{"worker": worker, "task_id": id, "family": family, "status": "DONE", "runnable": nil})
				if got := call("set_task_status_message", map[string]any{"task_id": id}); !strings.Contains(got, "the-token") {
					t.Errorf("%s behind its end: %s", id, got)
				}
			}
		})
	}
	workers.Wait()
	if left, err := os.ReadDir(s.dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestMistakesInFamiliesAreNamedAtOnce(t *testing.T) {
	err := agent.CheckFamilies([]agent.Family{aud("", "a"), aud("A*B", "a"), aud("A", "a"), aud("A", "b"), aud("B", ""), aud("C*", "c")})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"is empty", `"A*B"`, `"A" of task families stands twice`, `"B" have neither`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), `"C*"`) {
		t.Errorf("%q", err)
	}
}

func TestNoTwoFamiliesHaveOneFile(t *testing.T) {
	long := strings.Repeat("x", 300)
	for family, want := range map[string]string{
		"LoadUsers": "LoadUsers", "billing.Export_2": "billing.Export_2", "": "", ".": "%2E", "..": "%2E.", "../x": "%2E.%2Fx", "a b%": "a%20b%25", "ä": "%C3%A4",
	} {
		if got := agent.FamilyFile(family); got != want {
			t.Errorf("%q: %q, want %q", family, got, want)
		}
	}
	if got := agent.FamilyFile(long); len(got) > 80 || !strings.HasPrefix(got, "%sha256-") {
		t.Errorf("%q", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b")
		name := agent.FamilyFile(a)
		if a != b && name == agent.FamilyFile(b) {
			t.Fatalf("%q and %q are both in %q", a, b, name)
		}
		if strings.ContainsAny(name, "/\\\x00") || strings.HasPrefix(name, ".") || len(name) > 200 {
			t.Fatalf("%q is in %q", a, name)
		}
	})
}

func TestPrivateDirectoriesAreMadeOrChecked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tokens")
	for range 2 {
		if err := agent.PrivateDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.Chmod(dir, 0o722); err != nil {
		t.Fatal(err)
	}
	if err := agent.PrivateDir(dir); err == nil || !strings.Contains(err.Error(), "written by others") {
		t.Errorf("%v", err)
	}
	if err := agent.PrivateDir(filepath.Join(dir, "a", "b")); err == nil {
		t.Error("its parent is missing")
	}
	if err := agent.CheckTokenDir(dir, "", filepath.Join(dir, "..", "secret")); err != nil {
		t.Error(err)
	}
	if err := agent.CheckTokenDir(dir, filepath.Join(dir, "secret")); err == nil || !strings.Contains(err.Error(), "nothing but tokens") {
		t.Errorf("a secret among the tokens: %v", err)
	}
}
