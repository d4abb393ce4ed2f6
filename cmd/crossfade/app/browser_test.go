package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/chromedp"
)

// browser is a real Chromium with one page and a profile of its own.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu sync.Mutex
	// asked counts the challenges for a password, offered has their schemes.
	asked   int
	offered []string
	acts    sync.WaitGroup
}

// openBrowser starts Chromium until the end of the test. It fails the test if
// there is none: what passes without one proves nothing.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{
		chromedp.NoFirstRun, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()),
	}
	for _, flag := range []string{
		"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync",
		"disable-dev-shm-usage", "no-default-browser-check",
	} {
		options = append(options, chromedp.Flag(flag, true))
	}
	// The test's own context ends before its cleanups run.
	within, end := context.WithTimeout(context.Background(), 4*patience)
	allocator, free := chromedp.NewExecAllocator(within, options...)
	b := &browser{t: t}
	ctx, leave := chromedp.NewContext(allocator, chromedp.WithListener(b.hears))
	b.ctx = ctx
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil { // closes Chromium and waits
			t.Errorf("closing Chromium: %v", err)
		}
		leave()
		free()
		end()
		b.acts.Wait()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("this test needs Chromium in PATH: `make test` installs it (%v)", err)
	}
	return b
}

// hears notes what the page is told. It must not block.
func (b *browser) hears(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *fetch.EventRequestPaused:
		answer(b, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: e.RequestID})
	case *fetch.EventAuthRequired:
		b.asked++
		b.offered = append(b.offered, e.AuthChallenge.Scheme+" "+e.AuthChallenge.Realm)
		answer(b, fetch.ContinueWithAuth, fetch.ContinueWithAuthParams{
			RequestID: e.RequestID,
			AuthChallengeResponse: &fetch.AuthChallengeResponse{
				Response: fetch.AuthChallengeResponseResponseProvideCredentials,
				Username: "svc-etl", Password: "legacy-pass",
			},
		})
	}
}

// answer answers an event of the browser beside the test.
func answer[P any](b *browser, c cdp.Command[P, cdp.Empty], params P) {
	b.acts.Go(func() { _, _ = chromedp.Call(b.ctx, c, params) }) // a page that was left needs no answer
}

func (b *browser) does(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// typesPassword lets the browser's challenges be answered with the password of
// svc-etl, as somebody would do at its prompt; done ends that. What the browser
// remembers then it sends by itself.
func (b *browser) typesPassword() (done func()) {
	b.t.Helper()
	yes := true
	if _, err := chromedp.Call(b.ctx, fetch.Enable, fetch.EnableParams{HandleAuthRequests: &yes}); err != nil {
		b.t.Fatal(err)
	}
	return func() {
		b.t.Helper()
		if _, err := chromedp.Call(b.ctx, fetch.Disable, cdp.Empty{}); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *browser) challenges() (asked int, offered []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked, slices.Clone(b.offered)
}

// reads evaluates an expression in the page.
func reads[T any](b *browser, expression string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// polls returns how often the page has asked for the workers, 0 as long as there
// is no page.
func (b *browser) polls() int {
	b.t.Helper()
	return reads[int](b, `Number(document.getElementById("polls")?.textContent ?? 0)`)
}

// visit opens the page and waits until it polls.
func (s *site) visit(b *browser, base string) {
	s.t.Helper()
	b.does("open the page", chromedp.Navigate(base+"/"))
	s.eventually("the page polls", func() bool { return b.polls() >= 3 })
}

// storedScript is what a worker may store as a message: each way in which HTML
// may act by itself says so, or calls the scheduler.
func storedScript(elsewhere string) string {
	return fmt.Sprintf(`<p>half done</p>
		<img src="nothing.png" onerror="ran('handler')">
		<script>ran('script')</script>
		<script src="%[1]s/script.js"></script>
		<iframe src="javascript:parent.ran('frame')"></iframe>
		<iframe srcdoc="<script>parent.ran('document in a frame')</script>"></iframe>
		<img src="/api/prune">
		<a id="link" href="javascript:ran('link')">more</a>
		<form action="%[1]s/form"><button id="send">send</button></form>`, elsewhere)
}

// shows clicks for the stored message and waits until the page has tried it.
func (s *site) shows(b *browser) {
	s.t.Helper()
	b.does("show the message", chromedp.Click[chromedp.CSS]("#status"))
	s.eventually("the message is shown", func() bool { return reads[int](b, "stored.tried") == 1 })
	b.does("click the link", chromedp.Click[chromedp.CSS]("#link"))
}

func TestTheVisualiserWorksInABrowserAndWhatWorkersStoreDoesNot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	luigi := newScheduler(t)
	s.configure("upstream", fmt.Sprintf("{ url: %s, profile: luigi }", luigi.URL))
	s.configure("access_log", "{ file: access.jsonl, format: json }")
	g := s.start().loaded()
	evil := newEvilSite(t, g.base)
	luigi.stores(storedScript(evil.URL))
	b := openBrowser(t)

	// Without the gateway everything that is stored runs: the page is no better
	// than the real one.
	s.visit(b, luigi.URL)
	s.shows(b)
	all := []string{"document in a frame", "frame", "handler", "link", "script", "script of another site"}
	s.eventually("all that is stored runs", func() bool {
		return slices.Equal(reads[[]string](b, "[...new Set(stored.ran)].sort()"), all)
	})
	s.eventually("the stored image calls the scheduler", func() bool { return luigi.executed("", "prune") > 0 })
	if !luigi.askedAgain("") {
		t.Error("the browser keeps no replies: this test would not see whether any is kept")
	}
	b.does("send the stored form", chromedp.Click[chromedp.CSS]("#send"))
	s.eventually("the stored form is sent", func() bool { return evil.got("/form") })
	evil.forget()

	// Through the gateway: a challenge, a password, and the page works.
	done := b.typesPassword()
	s.visit(b, g.base)
	done()
	asked, offered := b.challenges()
	if asked != 1 || offered[0] != "basic crossfade" {
		t.Errorf("%d challenges %q, want one for a password", asked, offered)
	}
	if got := reads[string](b, `find("page").textContent`); got != "its script runs" {
		t.Errorf("the page says %q", got)
	}
	if width := reads[string](b, `getComputedStyle(document.querySelector("#workers div")).overflow`); width != "hidden" {
		t.Errorf("the page's styles do not work: overflow is %s", width)
	}
	if got := reads[string](b, `find("tasks").textContent`); got == "" || got == "0" {
		t.Errorf("%q tasks", got)
	}
	if refused := reads[[]string](b, "stored.refused"); len(refused) > 0 {
		t.Errorf("the policy stopped what belongs to the page: %q", refused)
	}
	before := b.polls()
	s.eventually("it goes on polling with the password that the browser remembers", func() bool { return b.polls() >= before+3 })

	// An administrator's click.
	b.does("click", chromedp.Click[chromedp.CSS]("#pause"))
	s.eventually("the click works", func() bool { return reads[string](b, `find("state").textContent`) == "paused" })
	if times := luigi.executed("svc-etl", "pause"); times != 1 {
		t.Errorf("pause was executed %d times for svc-etl, want once", times)
	}

	// What is stored does nothing.
	s.shows(b)
	// The handler; two scripts, a frame and the link. The script of the document
	// in a frame is stopped in there.
	stopped := []string{"script-src-attr", "script-src-elem", "script-src-elem", "script-src-elem", "script-src-elem"}
	s.eventually("the policy stops what is stored", func() bool {
		return slices.Equal(reads[[]string](b, "[...stored.refused].sort()"), stopped)
	})
	b.does("send the stored form", chromedp.Click[chromedp.CSS]("#send"))
	s.eventually("the stored form stays", func() bool { return slices.Contains(reads[[]string](b, "stored.refused"), "form-action") })
	s.eventually("the stored image is refused", func() bool { return g.refused("prune") == 1 })
	before = b.polls()
	s.eventually("the page goes on polling", func() bool { return b.polls() >= before+3 })
	if ran := reads[[]string](b, "stored.ran"); len(ran) > 0 {
		t.Errorf("stored scripts ran: %q", ran)
	}
	if times := luigi.executed("svc-etl", "prune"); times != 0 {
		t.Errorf("a stored image called the scheduler %d times", times)
	}
	if evil.got("/script.js") || evil.got("/form") {
		t.Error("something was fetched from, or sent to, another site")
	}

	// A page that the scheduler makes runs no script that stands in it.
	b.does("open the history", chromedp.Navigate(g.base+"/history"))
	if title := reads[string](b, "document.title"); title != "History" {
		t.Errorf("the title of the history: %q", title)
	}
	if luigi.askedAgain("svc-etl") {
		t.Error("a call reached the scheduler under a condition: it may be executed and answered 304")
	}
	// Another port is another origin of the same site, another name another site.
	s.refusesAPageOf(b, g, luigi, evil.URL)
	for _, method := range []string{"pause", "unpause", "prune"} {
		if user := g.lastLine(method).Account; user != "svc-etl" {
			t.Errorf("%s came for %q: the browser does not send its password for other pages, and this proves nothing", method, user)
		}
	}
	s.refusesAPageOf(b, g, luigi, strings.Replace(evil.URL, "127.0.0.1", "localhost", 1))
	if asked, _ := b.challenges(); asked != 1 {
		t.Errorf("the browser asked for a password %d times, want once", asked)
	}
}

// refusesAPageOf opens the page of another site and lets it try by an image, by
// a script, and by a form that somebody sends.
func (s *site) refusesAPageOf(b *browser, g *gateway, luigi *scheduler, origin string) {
	s.t.Helper()
	before := map[string]int{}
	again := func(method string) func() bool {
		return func() bool { return g.refused(method) > before[method] }
	}
	for _, method := range []string{"pause", "unpause", "prune"} {
		before[method] = g.refused(method)
	}
	b.does("open the page of another site", chromedp.Navigate(origin+"/page"))
	s.eventually("the image of "+origin+" is refused", again("pause"))
	s.eventually("the script of "+origin+" is refused", again("unpause"))
	b.does("send the form", chromedp.Click[chromedp.CSS]("#play"))
	s.eventually("the form of "+origin+" is refused", again("prune"))
	for method, times := range map[string]int{"pause": 1, "unpause": 0, "prune": 0} { // pause was a click
		if got := luigi.executed("svc-etl", method); got != times {
			s.t.Errorf("%s made the scheduler execute %s: %d times, want %d", origin, method, got, times)
		}
	}
}

// accessLine is what the access log says of a call.
type accessLine struct {
	RPC     string `json:"rpc"`
	Status  int    `json:"status"`
	Reason  string `json:"reason"`
	Account string `json:"account"`
}

// lines are those of the access log about a method, in order.
func (g *gateway) lines(method string) []accessLine {
	g.site.t.Helper()
	var lines []accessLine
	for text := range strings.Lines(readFile(g.site.t, filepath.Join(g.site.dir, "access.jsonl"))) {
		var line accessLine
		if !strings.HasSuffix(text, "\n") { // it is being written
			break
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			g.site.t.Fatal(err)
		}
		if line.RPC == method {
			lines = append(lines, line)
		}
	}
	return lines
}

// refused returns how often a method was refused to another site.
func (g *gateway) refused(method string) int {
	n := 0
	for _, line := range g.lines(method) {
		if line.Status == http.StatusForbidden && line.Reason == "cross_site" {
			n++
		}
	}
	return n
}

func (g *gateway) lastLine(method string) accessLine {
	lines := g.lines(method)
	if len(lines) == 0 {
		return accessLine{}
	}
	return lines[len(lines)-1]
}

// evilSite is another site. It serves what a stored script would fetch, takes
// what a stored form would send, and has a page that uses the gateway with the
// password that the browser remembers.
type evilSite struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
}

func newEvilSite(t *testing.T, gateway string) *evilSite {
	t.Helper()
	e := &evilSite{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		e.seen = append(e.seen, r.URL.Path)
		e.mu.Unlock()
		switch r.URL.Path {
		case "/script.js":
			w.Header().Set("Content-Type", "text/javascript")
			_, _ = io.WriteString(w, "ran('script of another site')")
		case "/page":
			w.Header().Set("Content-Type", "text/html")
			_, _ = fmt.Fprintf(w, `<!DOCTYPE html><title>A game</title>
				<img src="%[1]s/api/pause">
				<script>fetch("%[1]s/api/unpause", { mode: "no-cors", credentials: "include" })</script>
				<form method="post" action="%[1]s/api/prune"><input name="data" value="{}"><button id="play">play</button></form>`, gateway)
		}
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *evilSite) got(path string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.seen, path)
}

func (e *evilSite) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = nil
}
