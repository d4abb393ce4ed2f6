package demo

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"crossfade/gateway/luigi"
	"crossfade/gateway/luigi/captures"
)

// Bounds of the stand-in.
const (
	maxSchedulerBody = 4 << 20
	// gzipFrom is the size from which Tornado compresses a reply
	// (tornado.web.GZipContentEncoding.MIN_LENGTH).
	gzipFrom = 1024
)

// Scheduler stands in for Luigi's central scheduler: an http.Handler that
// answers as luigid answered when it was recorded. It schedules nothing.
//
// Whoever registers the first task of a recorded worker plays that worker's
// part under whatever name: each of its calls gets the reply that the same
// call got in the recording, in the same order, with the workers' names
// exchanged. Calls of anyone else get what an idle scheduler says. Pages and
// the visualiser's questions are answered from the recorded browser session;
// its static files were not recorded.
//
// It checks no credentials, as luigid does not, and may be called from several
// goroutines.
type Scheduler struct {
	pages map[string]reply // by request line
	casts *casts
}

// reply is what the recording answered.
type reply struct {
	status int
	header map[string]string
	body   string
}

// NewScheduler reads the recordings.
func NewScheduler() (*Scheduler, error) {
	s := &Scheduler{pages: make(map[string]reply)}
	exchanges, err := captures.Load(captures.Visualiser)
	if err != nil {
		return nil, fmt.Errorf("build the stand-in scheduler: %w", err)
	}
	for _, e := range exchanges {
		if !e.Injected() && e.OmittedBytes == 0 {
			s.addPage(e)
		}
	}
	if s.casts, err = newCasts(captures.Success, captures.Failure, captures.Contention); err != nil {
		return nil, fmt.Errorf("build the stand-in scheduler: %w", err)
	}
	return s, nil
}

// addPage files a reply under its request line and, for a question asked
// without arguments or with others, under its path alone: there the longest
// one shows the most.
func (s *Scheduler) addPage(e captures.Exchange) {
	r := reply{e.Status, e.ResponseHeaders, e.ResponseBody}
	arguments := "{}"
	if values, err := url.ParseQuery(e.Query); err == nil {
		arguments = last(values["data"], arguments)
	}
	s.pages[pageKey(e.Method, e.Path, arguments)] = r
	if bare := e.Method + " " + e.Path; len(s.pages[bare].body) <= len(r.body) {
		s.pages[bare] = r
	}
}

func pageKey(method, path, arguments string) string {
	return method + " " + path + " " + canonical(arguments)
}

// page finds the reply to a request of a browser.
func (s *Scheduler) page(method, path, arguments string) (reply, bool) {
	if r, ok := s.pages[pageKey(method, path, arguments)]; ok {
		return r, true
	}
	r, ok := s.pages[method+" "+path]
	return r, ok
}

// ServeHTTP implements http.Handler.
func (s *Scheduler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, rpc := strings.CutPrefix(r.URL.Path, "/api/")
	switch {
	case rpc:
		s.serveRPC(w, r, name)
	case r.Method == http.MethodHead && r.URL.Path == "/":
		w.WriteHeader(http.StatusNoContent)
	case r.Method != http.MethodGet:
		write(w, r, failure(http.StatusMethodNotAllowed))
	case r.URL.Path == "/static/visualiser/index.html":
		write(w, r, standInPage())
	default:
		found, ok := s.page(r.Method, r.URL.Path, "{}")
		if !ok {
			found = failure(http.StatusNotFound)
		}
		write(w, r, found)
	}
}

func (s *Scheduler) serveRPC(w http.ResponseWriter, r *http.Request, name string) {
	switch r.Method {
	case http.MethodGet, http.MethodPost:
	case http.MethodOptions:
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		write(w, r, failure(http.StatusMethodNotAllowed))
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxSchedulerBody)
	arguments, err := argumentsOf(r)
	if err != nil {
		write(w, r, failure(http.StatusBadRequest))
		return
	}
	if luigi.Classify(http.MethodPost, "/api/"+name, "", "", nil).Action == "" {
		write(w, r, failure(http.StatusNotFound))
		return
	}
	call, err := readCall(name, arguments)
	if err != nil {
		write(w, r, failure(http.StatusInternalServerError))
		return
	}
	if call.worker != "" {
		if found, ok := s.casts.answer(playerOf(r), call); ok {
			write(w, r, found)
			return
		}
	}
	if _, recorded := s.pages[pageKey(http.MethodGet, "/api/"+name, arguments)]; name == "fetch_error" && !recorded {
		write(w, r, unknownTask(call.task))
		return
	}
	if found, ok := s.page(http.MethodGet, "/api/"+name, arguments); ok {
		write(w, r, found)
		return
	}
	write(w, r, idle(name))
}

// playerOf says whose workers belong together: the recordings hold runs of
// several workers, and several people may replay one at once.
func playerOf(r *http.Request) string {
	return r.Header.Get("X-Forwarded-User") + "\n" + r.Header.Get("Authorization")
}

// idle is what a scheduler without tasks says.
func idle(method string) reply {
	body := `{"response": null}`
	switch method {
	case "ping":
		body = `{"response": {"rpc_messages": []}}`
	case "get_work":
		body = `{"response": {"n_pending_tasks": 0, "n_unique_pending": 0, "n_pending_last_scheduled": 0, ` +
			`"worker_state": "active", "running_tasks": [], "task_id": null}}`
	}
	return reply{status: http.StatusOK, header: jsonHeader(), body: body}
}

// unknownTask is what luigid says of a task that it does not know.
func unknownTask(id string) reply {
	return reply{status: http.StatusOK, header: jsonHeader(), body: `{"response": {"taskId": "` + pythonString(id) + `", "error": ""}}`}
}

func jsonHeader() map[string]string {
	return map[string]string{"Content-Type": "application/json; charset=UTF-8", "Vary": "Accept-Encoding"}
}

// failure is Tornado's page for a status.
func failure(status int) reply {
	return reply{
		status: status,
		header: map[string]string{"Content-Type": "text/html; charset=UTF-8"},
		body:   fmt.Sprintf("<html><title>%[1]d: %[2]s</title><body>%[1]d: %[2]s</body></html>", status, http.StatusText(status)),
	}
}

// standInPage takes the place of the visualiser.
func standInPage() reply {
	return reply{
		status: http.StatusOK,
		header: map[string]string{"Content-Type": "text/html; charset=UTF-8"},
		body: "<!doctype html><title>Stand-in scheduler</title>\n" +
			"<p>This is the demo's stand-in for Luigi's scheduler. It answers the API as luigid did when it was recorded,\n" +
			"for instance <a href=\"/api/worker_list\">worker_list</a> and <a href=\"/api/task_list\">task_list</a>.\n" +
			"The files of the visualiser are not part of the recording.</p>\n",
	}
}

// write sends a reply, compressed where Tornado would compress it.
func write(w http.ResponseWriter, r *http.Request, found reply) {
	h := w.Header()
	for _, name := range []string{"Content-Type", "Vary", "Location", "Cache-Control", "Etag"} {
		if value, ok := found.header[name]; ok {
			h.Set(name, value)
		}
	}
	h.Set("Server", "TornadoServer/6.2")
	if len(found.body) >= gzipFrom && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		w.WriteHeader(found.status)
		z := gzip.NewWriter(w)
		// A client that went away is not the scheduler's concern.
		_, _ = io.WriteString(z, found.body)
		_ = z.Close()
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(found.body)))
	w.WriteHeader(found.status)
	_, _ = io.WriteString(w, found.body)
}

// last returns the last of several values, as Tornado does.
func last(values []string, otherwise string) string {
	if len(values) == 0 {
		return otherwise
	}
	return values[len(values)-1]
}
