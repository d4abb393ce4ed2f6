package gateway_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"crossfade/gateway"
)

// sourceOf is how a policy allows one script.
func sourceOf(script string) string {
	sum := sha256.Sum256([]byte(script))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// page answers with one page.
func page(contentType, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{contentType}
		if contentType == "" {
			w.Header()["Content-Type"] = nil
		}
		for i := 0; i < len(headers); i += 2 {
			w.Header().Add(headers[i], headers[i+1])
		}
		_, _ = io.WriteString(w, body)
	}
}

func packed(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

// scriptSources are the sources from which a reply's last policy lets scripts
// come.
func scriptSources(t *testing.T, h http.Header) []string {
	t.Helper()
	policies := h.Values("Content-Security-Policy")
	if len(policies) == 0 {
		return nil
	}
	for directive := range strings.SplitSeq(policies[len(policies)-1], "; ") {
		if sources, ok := strings.CutPrefix(directive, "script-src "); ok {
			return strings.Fields(sources)
		}
	}
	t.Errorf("a policy that says nothing of scripts: %q", policies)
	return nil
}

func TestAPolicyAllowsTheScriptsThatStandInAFileOfTheScheduler(t *testing.T) {
	t.Parallel()
	const index = "/static/visualiser/index.html"
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "<script>%d</script>", i)
		}
		return b.String()
	}
	libraries := []string{"https://cdnjs.cloudflare.com/ajax/libs/d3/", "https://cdnjs.cloudflare.com/ajax/libs/nvd3/"}
	for _, tt := range []struct {
		name, path, body string
		kind             string // default: text/html
		encoding         string
		scripts          []string // that stand in the page and may run
		more             []string // further sources
	}{
		{name: "one script", path: index, body: "<p><script>\n run() </script>", scripts: []string{"\n run() "}},
		{name: "two scripts, one of them twice", path: index, body: "<script>a</script><script>b</script><script>a</script>", scripts: []string{"a", "b"}},
		{name: "a script with a type", path: index, body: `<script type="text/javascript">a</script><script type=MODULE>b</script>`, scripts: []string{"a", "b"}},
		{name: "an old spelling", path: index, body: `<script language="JavaScript">a</script><script language=vbscript>b</script>`, scripts: []string{"a"}},
		{name: "templates are no scripts", path: index, body: `<script type="text/template" name=x><b onclick=a></script>`},
		{name: "a script from elsewhere", path: index, body: `<script src="lib/d3.js">a</script>`},
		{name: "of two attributes the first counts", path: index, body: `<script type=text/template type="">a</script>`},
		{name: "an empty script", path: index, body: `<script></script>`},
		{name: "a script that closes itself does not", path: index, body: `<script/>a</script>`, scripts: []string{"a"}},
		{name: "a script in a comment", path: index, body: `<!-- <script>a</script> --><textarea><script>b</script></textarea>`},
		{name: "lines as browsers see them", path: index, body: "<script>a\r\nb\rc</script>", scripts: []string{"a\nb\nc"}},
		{name: "a script that speaks of scripts", path: index, body: "<script><!--\n'<script>x</script>'\n--></script>", scripts: []string{"<!--\n'<script>x</script>'\n-->"}},
		{name: "compressed", path: index, body: packed("<script>a</script>"), encoding: "gzip", scripts: []string{"a"}},
		{name: "what is not what it says", path: index, body: "<script>a</script>", encoding: "gzip"},
		{name: "cut short", path: index, body: packed("<script>a</script>")[:30], encoding: "gzip"},
		{name: "compressed in another way", path: index, body: "<script>a</script>", encoding: "br"},
		{name: "as many scripts as fit", path: index, body: many(16), scripts: strings.Split("0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", " ")},
		{name: "more scripts than fit", path: index, body: many(17)},
		{name: "as large as is read", path: index, body: "<script>a</script>" + strings.Repeat(" ", 1<<20-18), scripts: []string{"a"}},
		{name: "larger", path: index, body: "<script>a</script>" + strings.Repeat(" ", 1<<20-17)},
		{name: "a small reply that unpacks to a large one", path: index, body: packed("<script>a</script>" + strings.Repeat(" ", 1<<20)), encoding: "gzip"},
		{name: "XHTML", path: index, kind: "application/xhtml+xml; charset=utf-8", body: "<script>a</script>", scripts: []string{"a"}},

		{name: "a page that the scheduler makes", path: "/history", body: "<script>a</script>", more: libraries},
		{name: "an error", path: "/favicon.ico", body: "<script>a</script>", more: libraries},
		{name: "a path that something may tidy", path: "/static/../history", body: "<script>a</script>", more: libraries},
		{name: "an escaped path", path: "/static/%2e%2e/history", body: "<script>a</script>", more: libraries},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kind := tt.kind
			if kind == "" {
				kind = "text/html"
			}
			headers := []string{"Content-Length", strconv.Itoa(len(tt.body))}
			if tt.encoding != "" {
				headers = append(headers, "Content-Encoding", tt.encoding)
			}
			s := luigiStage(newUpstream(t, page(kind, tt.body, headers...)).URL).start(t)
			resp, body := s.do(t, http.MethodGet, tt.path, "", "Authorization", basic("svc-etl", "legacy-pass"), "Accept-Encoding", "gzip")
			if body != tt.body {
				t.Errorf("the page of %d bytes arrives with %d", len(tt.body), len(body))
			}
			want := []string{"'self'"}
			for _, script := range tt.scripts {
				want = append(want, sourceOf(script))
			}
			want = append(want, tt.more...)
			if got := scriptSources(t, resp.Header); !slices.Equal(got, want) {
				t.Errorf("scripts may come from\n%q, want\n%q", got, want)
			}
		})
	}
}

func TestAScriptIsKnownWhateverItsData(t *testing.T) {
	t.Parallel()
	const known = "var a = unescape(\"\");\n//all of it\ndraw(a, unescape(\"\"), 'b c');"
	sum := sha256.Sum256([]byte(known))
	digests := []string{hex.EncodeToString(sum[:])}
	for _, tt := range []struct {
		name, script string
		known        bool
	}{
		{"as it is known", known, true},
		{"with data", strings.Replace(known, `""`, `"{&quot;x&quot;: [1, 2]} é"`, 2), true},
		{"with names that try to be code", strings.Replace(known, `""`, `"\");alert(1);//"`, 1), true},
		{"with whitespace as in a template", "\n\t\t" + strings.ReplaceAll(known, "\n", " \n\t\t") + "\n\t", true},
		{"with something added", known + ";a", false},
		{"with something before", "a;" + known, false},
		{"with data that ends early", strings.Replace(known, `""`, `"");alert("")`, 1), false},
		{"with data that ends early by a backslash", strings.Replace(known, `""`, `"\\");alert("")`, 1), false},
		{"with data over two lines", strings.Replace(known, `""`, "\"a\nb\"", 1), false},
		{"with data that is code", strings.Replace(known, `""`, "alert(1)", 1), false},
		{"with a comment that ends early", strings.Replace(known, "all of", "all\nof", 1), false},
		{"with a comment that goes on", strings.Replace(known, "of it\n", "of it ", 1), false},
		{"another script", "alert(1)", false},
		{"none", "", false},
	} {
		if got := gateway.IsKnown(tt.script, digests); got != tt.known {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestBrowsersAreToldHowToShowAReply(t *testing.T) {
	t.Parallel()
	const (
		nosniff = "nosniff"
		deny    = "DENY"
	)
	for _, tt := range []struct {
		name, path, kind string
		set              []string // by the scheduler
		policies         int
		cache            string
		etag             bool
	}{
		{name: "a page", path: "/static/visualiser/index.html", kind: "text/html", policies: 1, cache: "no-cache", etag: true},
		{name: "a page with a policy of its own", path: "/history", kind: "text/html; charset=UTF-8", set: []string{"Content-Security-Policy", "img-src *"}, policies: 2, cache: "no-cache", etag: true},
		{name: "a page that says how long it lives", path: "/history", kind: "text/html", set: []string{"Cache-Control", "private"}, policies: 1, cache: "private", etag: true},
		{name: "a page that frames itself", path: "/history", kind: "text/html", set: []string{"X-Frame-Options", "SAMEORIGIN", "Referrer-Policy", "unsafe-url"}, policies: 1, cache: "no-cache", etag: true},
		{name: "what has no type", path: "/static/x", policies: 1, cache: "no-cache", etag: true},
		{name: "what has a type that is none", path: "/static/x", kind: "html", policies: 1, cache: "no-cache", etag: true},
		{name: "a picture that can hold scripts", path: "/static/x.svg", kind: "image/svg+xml", policies: 1, cache: "no-cache", etag: true},
		{name: "a script", path: "/static/x.js", kind: "application/javascript", etag: true},
		{name: "a call", path: "/api/task_list", kind: "application/json; charset=UTF-8", cache: "no-store"},
		{name: "a call whose reply may be kept", path: "/api/task_list", kind: "application/json", set: []string{"Cache-Control", "max-age=60"}, cache: "no-store"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, page(tt.kind, "x", append(tt.set, "Etag", `"1"`)...))
			for _, mode := range []gateway.Mode{gateway.Enforce, gateway.Observe} {
				s := luigiStage(up.URL)
				s.Mode = mode
				s.start(t)
				h, _ := s.do(t, http.MethodGet, tt.path, "", "Authorization", basic("svc-etl", "legacy-pass"))
				if mode == gateway.Observe {
					for name, values := range h.Header {
						if slices.Contains([]string{"Content-Security-Policy", "X-Frame-Options", "X-Content-Type-Options", "Referrer-Policy", "Cache-Control"}, name) && !slices.Contains(tt.set, values[0]) {
							t.Errorf("in mode observe there is %s: %q", name, values)
						}
					}
					continue
				}
				if n := len(h.Header.Values("Content-Security-Policy")); n != tt.policies {
					t.Errorf("%d policies, want %d", n, tt.policies)
				}
				want := map[string]string{"X-Content-Type-Options": nosniff, "Cache-Control": tt.cache, "X-Frame-Options": "", "Referrer-Policy": "", "Etag": ""}
				if tt.policies > 0 {
					want["X-Frame-Options"], want["Referrer-Policy"] = deny, "same-origin"
				}
				if tt.etag {
					want["Etag"] = `"1"`
				}
				for name, value := range want {
					if got := strings.Join(h.Header.Values(name), ", "); got != value {
						t.Errorf("%s: %q, want %q", name, got, value)
					}
				}
			}
		})
	}
}

func TestThePolicyOfAPageBindsAllThatItMayLoad(t *testing.T) {
	t.Parallel()
	s := luigiStage(newUpstream(t, page("text/html", "")).URL).start(t)
	for _, path := range []string{"/static/visualiser/index.html", "/history"} {
		resp, _ := s.do(t, http.MethodGet, path, "", "Authorization", basic("svc-etl", "legacy-pass"))
		policy := resp.Header.Get("Content-Security-Policy")
		for _, directive := range []string{"default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} {
			if !slices.Contains(strings.Split(policy, "; "), directive) {
				t.Errorf("%s: no %s in %q", path, directive, policy)
			}
		}
		for _, source := range scriptSources(t, resp.Header) {
			if strings.HasPrefix(source, "'unsafe") || source == "*" || source == "https:" || source == "data:" {
				t.Errorf("%s: scripts may come from %s", path, source)
			}
		}
	}
}

func TestTheSchedulerIsAskedAnewForWhatMustBeWhole(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		path string
		kept bool
	}{
		{"/api/task_list", false},
		{"/static/visualiser/index.html", false},
		{"/static/visualiser/INDEX.HTM", false},
		{"/static/visualiser/", false},
		{"/static/visualiser/index%2ehtml", false},
		{"/history", false},
		{"/static/visualiser/lib/d3/d3.min.js", true},
	} {
		up := newUpstream(t, nil)
		for _, mode := range []gateway.Mode{gateway.Enforce, gateway.Observe} {
			for _, profile := range profiles() {
				s := luigiStage(up.URL)
				s.Mode, s.Classifier.Profile = mode, profile
				s.start(t)
				s.do(t, http.MethodGet, tt.path, "", "Authorization", basic("svc-etl", "legacy-pass"),
					"If-None-Match", `"1"`, "If-Modified-Since", "Mon, 23 Nov 2026 16:58:30 GMT")
				want := tt.kept || mode == gateway.Observe || profile == gateway.ProfileHTTP
				for _, name := range []string{"If-None-Match", "If-Modified-Since"} {
					if got := up.last(t).header.Get(name) != ""; got != want {
						t.Errorf("%v, %s, %s: %s reaches the scheduler: %v, want %v", mode, profile, tt.path, name, got, want)
					}
				}
			}
		}
	}
}

// watchedBody notes that it was closed.
type watchedBody struct {
	io.Reader
	closed bool
}

func (b *watchedBody) Close() error {
	b.closed = true
	return nil
}

func TestAPageThatBreaksOffBreaksOffAtTheClientToo(t *testing.T) {
	t.Parallel()
	s := luigiStage("http://upstream.test")
	from := &watchedBody{Reader: io.MultiReader(strings.NewReader("<script>a</script>"), brokenOff{})}
	s.proxy.Transport = transport(func(r *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1,
			Header: http.Header{"Content-Type": {"text/html"}}, Body: from,
		}, nil
	})
	r := httptest.NewRequest(http.MethodGet, "/static/index.html", nil)
	r.SetBasicAuth("svc-etl", "legacy-pass")
	w := httptest.NewRecorder()
	defer func() {
		if recover() == nil {
			t.Error("the client takes the page for a whole one")
		}
		if w.Body.String() != "<script>a</script>" || !from.closed {
			t.Errorf("the client got %q; the reply was closed: %v", w.Body, from.closed)
		}
		if got := scriptSources(t, w.Header()); !slices.Equal(got, []string{"'self'"}) {
			t.Errorf("scripts may come from %q", got)
		}
	}()
	// ReverseProxy tells net/http by a panic.
	s.handler(t).ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.ServerContextKey, s.server)))
}

type brokenOff struct{}

func (brokenOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// FuzzPolicy sends pages of any kind through the gateway: they arrive as they
// came, and the policy is a header that lets in no script but the scheduler's.
func FuzzPolicy(f *testing.F) {
	for _, text := range []string{
		"<script>a</script>", "<script type=text/template><script>a</script>", "<script src=x>a</script>",
		"<!--<script>a</script>", "<svg><script>a</script></svg>", "<script>\x00\r\n</script>", "<script", packed("<script>a</script>"),
		"<script>unescape(\"\\\")</script>", "<plaintext><script>a</script>", "<script><!--<script>a</script>",
	} {
		f.Add(text, true, false)
		f.Add(text, false, true)
	}
	var reply string
	var zipped bool
	s := luigiStage("http://upstream.test")
	s.proxy.Transport = transport(func(r *http.Request) (*http.Response, error) {
		h := http.Header{"Content-Type": {"text/html"}}
		if zipped {
			h.Set("Content-Encoding", "gzip")
		}
		return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(reply)), Header: h, Body: io.NopCloser(strings.NewReader(reply))}, nil
	})
	handler := s.handler(f)
	form := regexp.MustCompile(`^default-src 'none'; script-src 'self'( 'sha256-[A-Za-z0-9+/]{43}=')*( https://cdnjs[a-z0-9./]+ https://cdnjs[a-z0-9./]+)?; connect-src [ -~]*$`)
	f.Fuzz(func(t *testing.T, text string, file, zip bool) {
		reply, zipped = text, zip
		path := "/history"
		if file {
			path = "/static/index.html"
		}
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.SetBasicAuth("svc-etl", "legacy-pass")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		s.event()
		if w.Body.String() != text {
			t.Errorf("%q arrives as %q", text, w.Body)
		}
		policy := w.Header().Get("Content-Security-Policy")
		if !form.MatchString(policy) || len(policy) > 2048 {
			t.Errorf("the policy of %q is %q", text, policy)
		}
		if !file && strings.Contains(policy, "sha256") && !strings.Contains(text, "nv.addGraph") {
			t.Errorf("a script of a page that workers may write to: %q", policy)
		}
	})
}
