package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
)

// Profile names the kind of upstream.
type Profile string

// The profiles.
const (
	// ProfileHTTP knows nothing of the upstream: reading methods view, others
	// execute, and a run is its principal.
	ProfileHTTP Profile = "http"
	// ProfileLuigi reads the calls of Luigi's workers and visualiser.
	ProfileLuigi Profile = "luigi"
)

// Call is what a request wants of the upstream.
type Call struct {
	// RPC tells a call of Luigi's API, Method is its name.
	RPC    bool
	Method string
	// Abortable tells a call whose refusal an unmodified worker must read as
	// the end of its run instead of retrying (POST to Luigi's API).
	Abortable bool
	Action    identity.Action
	Family    string
	// EveryFamily tells a call that needs the right to all families.
	EveryFamily bool
	// Run is the worker that speaks, "" where there is none. A client's word:
	// it is a run only together with a verified principal.
	Run string
	// Registers is the family of the task that the call registers, "" if none.
	Registers string
	// Luigi is the call as Luigi means it; zero in other profiles.
	Luigi luigi.Call
	// Unresolved is why nobody can say which family the call is about, "" if it
	// is known or does not matter. Only a right to every family is enough then.
	Unresolved identity.Reason
	Exempt     bool
	// Problem is why the call cannot be read safely, "" if it can.
	Problem identity.Reason
}

// Classifier reads what a request wants.
type Classifier struct {
	Profile Profile
	// MaxBody bounds, in bytes, the bodies of RPCs that are read to be judged.
	MaxBody int64
	// BodyTimeout bounds how long such a body may take to arrive.
	BodyTimeout time.Duration
	// ExemptPaths need no identity; compared exactly with the escaped path.
	ExemptPaths []string
}

// Classify reads r. For an RPC it reads the body and puts back exactly the
// bytes that it judged, so that what is forwarded is what was judged. A body
// over the bound is put back whole, unread beyond it. The error is a failure
// to read from the client.
func (c Classifier) Classify(r *http.Request) (Call, error) {
	path := r.URL.EscapedPath()
	if c.exempt(r, path) {
		return Call{Exempt: true}, nil
	}
	if c.Profile != ProfileLuigi {
		return Call{Action: actionOf(r)}, nil
	}
	if !strings.HasPrefix(path, "/api/") {
		page := luigi.Classify(r.Method, path, r.URL.RawQuery, "", nil)
		return Call{Action: actionOf(r), EveryFamily: page.Overview, Exempt: page.Exempt, Problem: page.Problem}, nil
	}
	body, problem, err := c.body(r)
	if err != nil {
		return Call{}, err
	}
	l := luigi.Classify(r.Method, path, r.URL.RawQuery, contentType(r.Header), body)
	call := Call{
		RPC: l.RPC, Method: l.Method, Abortable: r.Method == http.MethodPost,
		Action: l.Action, Family: l.Family, Run: l.Worker, Registers: l.Registers,
		// A call for administrators that is not about one task acts on all of them,
		// or on a worker that may run any. An assistant is given the work of any.
		EveryFamily: l.Assistant || l.Overview || l.Action == identity.ActionAdmin && !l.Families,
		Luigi:       l,
		Exempt:      l.Exempt,
		Problem:     l.Problem,
	}
	if problem != "" {
		call.Problem = problem
	}
	return call, nil
}

// reads reports whether Classify is going to read the body.
func (c Classifier) reads(r *http.Request) bool {
	return c.Profile == ProfileLuigi && r.Body != nil && r.Body != http.NoBody &&
		strings.HasPrefix(r.URL.EscapedPath(), "/api/")
}

// contentType returns the type by which the scheduler reads the body. It is ""
// for a body that the scheduler may not read at all, because of a second type
// or because it is encoded: no body of type "" is unambiguous.
func contentType(h http.Header) string {
	if len(h["Content-Type"]) != 1 || len(h["Content-Encoding"]) > 0 {
		return ""
	}
	return h["Content-Type"][0]
}

// exempt are requests that identity has no part in: liveness by HEAD, CORS
// preflights (which browsers send without credentials by specification), and
// configured paths. A request that asks the upstream to take it for one of
// another method is none of them.
func (c Classifier) exempt(r *http.Request, path string) bool {
	switch {
	case r.Method == http.MethodHead && path == "/":
	case r.Method == http.MethodOptions && preflight(r):
	case slices.Contains(c.ExemptPaths, path):
	default:
		return false
	}
	return !methodOverrides.any(r.Header)
}

// preflight tells what a browser sends before a request across origins (Fetch
// standard, section 4.8). It never has a body, and one that has could be a call
// to an upstream that does not look at the method.
func preflight(r *http.Request) bool {
	return len(r.Header["Origin"]) == 1 && r.Header["Origin"][0] != "" &&
		len(r.Header["Access-Control-Request-Method"]) == 1 && r.Header["Access-Control-Request-Method"][0] != "" &&
		(r.Body == nil || r.Body == http.NoBody)
}

// body reads the body of an RPC up to the bound and puts it back.
func (c Classifier) body(r *http.Request) ([]byte, identity.Reason, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, "", nil
	}
	limit := c.MaxBody
	if r.ContentLength > limit { // no need to read what is not judged
		return nil, identity.BodyOversize, nil
	}
	read, err := readUpTo(r.Body, limit+1, r.ContentLength)
	if err != nil {
		return nil, "", err
	}
	if int64(len(read)) > limit {
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(read), r.Body), r.Body}
		return nil, identity.BodyOversize, nil
	}
	original := r.Body
	again := func() (io.ReadCloser, error) {
		return struct {
			io.Reader
			io.Closer
		}{bytes.NewReader(read), original}, nil
	}
	r.Body, _ = again()
	r.GetBody = again // lets the transport repeat what a closing connection never took
	return read, "", nil
}

// firstRead bounds the memory that a declared length is worth before any of it
// has arrived: whoever only announces a body shall cost no more than a page or so.
const firstRead = 32 << 10

// readUpTo reads at most limit bytes; expect sizes the first allocation. With an
// error it returns what was read before.
func readUpTo(from io.Reader, limit, expect int64) ([]byte, error) {
	buf := make([]byte, 0, min(max(expect, 0)+1, limit, firstRead))
	for int64(len(buf)) < limit {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := from.Read(buf[len(buf):min(int64(cap(buf)), limit)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
	return buf, nil
}

// actionOf takes the verb at its word (RFC 9110 section 9.2.1: safe methods
// read); profile http has nothing better to go by. A safe method that asks to
// be taken for another one is not safe.
func actionOf(r *http.Request) identity.Action {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		if !methodOverrides.any(r.Header) {
			return identity.ActionView
		}
	}
	return identity.ActionExecute
}

// methodOverrides are the headers by which frameworks let a request pass for
// one of another method.
var methodOverrides = newSpoofable([]string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"})
