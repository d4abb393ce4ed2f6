package app_test

import (
	"embed"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"crossfade/gateway/luigi/captures"
)

//go:embed testdata/visualiser
var ourPages embed.FS

// scheduler stands in for luigid as a browser sees it: a page of our own, and
// the recorded answers to the calls that it makes.
type scheduler struct {
	*httptest.Server
	files   http.Handler
	index   []byte
	answers map[string]captures.Exchange // by method, and by method and arguments

	mu sync.Mutex
	// message is what a worker stored with set_task_status_message.
	message string
	// calls counts what was executed, by who the gateway said it was ("" without
	// the gateway) and by method; conditional has who asked under the condition
	// of a cache.
	calls       map[string]map[string]int
	conditional map[string]bool
	// sites has the Sec-Fetch-Site of the last call, by method.
	sites map[string]string
}

func newScheduler(t *testing.T) *scheduler {
	t.Helper()
	exchanges, err := captures.Load(captures.Visualiser)
	if err != nil {
		t.Fatal(err)
	}
	static, err := fs.Sub(ourPages, "testdata/visualiser")
	if err != nil {
		t.Fatal(err)
	}
	index, err := fs.ReadFile(static, "index.html")
	if err != nil {
		t.Fatal(err)
	}
	s := &scheduler{
		index:   index,
		files:   http.StripPrefix("/static/visualiser/", http.FileServerFS(static)),
		answers: map[string]captures.Exchange{},
		calls:   map[string]map[string]int{}, conditional: map[string]bool{}, sites: map[string]string{},
	}
	for _, e := range exchanges {
		method, ok := strings.CutPrefix(e.Path, "/api/")
		if !ok || e.Injected() {
			continue
		}
		query, err := url.ParseQuery(e.Query)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{method, method + query.Get("data")} {
			if _, there := s.answers[key]; !there {
				s.answers[key] = e
			}
		}
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *scheduler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	method, call := strings.CutPrefix(r.URL.Path, "/api/")
	switch {
	case call:
		s.answer(w, r, method)
	case r.URL.Path == "/":
		w.Header().Set("Location", "static/visualiser/index.html") // relative, as luigid's is
		w.WriteHeader(http.StatusFound)
	case strings.HasPrefix(r.URL.Path, "/history"):
		// A page that the scheduler makes, of a version that forgets to escape.
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		_, _ = io.WriteString(w, "<!DOCTYPE html><title>History</title><h1>Runs</h1>"+
			"<script>document.title = 'a stored script ran'</script>")
	case r.URL.Path == "/static/visualiser/index.html": // where net/http redirects to the folder
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write(s.index)
	default:
		s.files.ServeHTTP(w, r)
	}
}

// answer executes first and looks at the cache's condition then, like luigid.
func (s *scheduler) answer(w http.ResponseWriter, r *http.Request, method string) {
	user := r.Header.Get("X-Forwarded-User")
	if s.calls[user] == nil {
		s.calls[user] = map[string]int{}
	}
	s.calls[user][method]++
	s.sites[method] = r.Header.Get("Sec-Fetch-Site")
	if r.Header.Get("If-None-Match") != "" {
		s.conditional[user] = true
	}
	e, ok := s.answers[method+r.FormValue("data")]
	if !ok {
		e, ok = s.answers[method]
	}
	body := e.ResponseBody
	switch {
	case method == "get_task_status_message":
		text, err := json.Marshal(map[string]any{"response": map[string]string{"statusMessage": s.message}})
		if err != nil {
			panic(err) // a mistake of the test
		}
		body = string(text)
	case !ok:
		body = `{"response": null}` // a call that was not recorded
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	if etag := e.ResponseHeaders["Etag"]; etag != "" {
		w.Header().Set("Etag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	_, _ = io.WriteString(w, body)
}

// stores notes the message of a worker.
func (s *scheduler) stores(message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.message = message
}

// executed returns how often a method was called by a user.
func (s *scheduler) executed(user, method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[user][method]
}

// askedAgain reports whether a user asked for what the browser had already.
func (s *scheduler) askedAgain(user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conditional[user]
}

// said returns what the browser said of the site that called a method last.
func (s *scheduler) said(method string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sites[method]
}
