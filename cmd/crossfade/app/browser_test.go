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

// publicName is one under which the browser finds 127.0.0.1. It is not of those that
// browsers know to be loopback.
const publicName = "luigi.example"

// browser is a real Chromium with one page and a profile of its own.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu    sync.Mutex
	asked int
	acts  sync.WaitGroup
}

// openBrowser starts Chromium until the end of the test. It fails the test if
// there is none: what passes without one proves nothing.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{
		chromedp.NoFirstRun, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("host-resolver-rules", "MAP "+publicName+" 127.0.0.1"),
	}
	for _, flag := range []string{
		"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync",
		"disable-dev-shm-usage", "no-default-browser-check",
	} {
		options = append(options, chromedp.Flag(flag, true))
	}
	// The test's own context ends before its cleanups run.
	within, end := context.WithTimeout(context.Background(), 10*patience)
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
		if e.AuthChallenge.Scheme == "basic" && e.AuthChallenge.Realm == "crossfade" {
			b.asked++
		}
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

// challenges returns how often the browser was asked for a password.
func (b *browser) challenges() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked
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

// storedScript is what a worker may store as a message: each way in which HTML
// may act by itself says so, or calls the scheduler.
func storedScript(elsewhere string) string {
	// What is clicked on stands first, where nothing that loads can move it.
	return fmt.Sprintf(`<p><a id="link" href="javascript:ran('link')">more</a></p>
		<form action="%[1]s/form"><button id="send">send</button></form>
		<img src="nothing.png" onerror="ran('handler')">
		<script>ran('script')</script>
		<script src="%[1]s/script.js"></script>
		<iframe src="javascript:parent.ran('frame')"></iframe>
		<iframe srcdoc="<script>parent.ran('document in a frame')</script>"></iframe>
		<img src="/api/prune">`, elsewhere)
}

// desk is where somebody uses the visualiser: a browser, the gateway with the
// scheduler behind it, and another site in the same browser.
type desk struct {
	*browser
	*site
	t       *testing.T
	gateway *gateway
	luigi   *scheduler
	evil    *evilSite
}

func TestTheVisualiserWorksInABrowserAndWhatWorkersStoreDoesNot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	luigi, evil := newScheduler(t), newEvilSite(t)
	s.configure("upstream", fmt.Sprintf("{ url: %s, profile: luigi }", luigi.URL))
	s.configure("access_log", "{ file: access.jsonl, format: json }")
	luigi.stores(storedScript(evil.URL))
	d := desk{t: t, site: s, gateway: s.start().loaded(), luigi: luigi, evil: evil, browser: openBrowser(t)}

	d.everythingRunsWithoutTheGateway()

	// Browsers say Sec-Fetch-Site to loopback addresses and over TLS only. Under
	// a name, as most schedulers are reached, there is no more than a Referer.
	for base, says := range map[string]string{
		d.gateway.base: "same-origin",
		strings.Replace(d.gateway.base, "127.0.0.1", publicName, 1): "",
	} {
		asked := d.challenges()
		d.works(base)
		if said := d.luigi.said("pause"); said != says {
			t.Errorf("%s: the browser said Sec-Fetch-Site: %q, want %q", base, said, says)
		}
		d.doesNothingThatIsStored(base)
		// Another port is another origin of the same site, another name is
		// another site.
		for _, from := range []string{evil.URL, strings.Replace(evil.URL, "127.0.0.1", "localhost", 1)} {
			d.refusesAPageOf(from, base)
		}
		if n := d.challenges() - asked; n != 1 {
			t.Errorf("%s: the browser asked for a password %d times, want once", base, n)
		}
	}
	if luigi.askedAgain("svc-etl") {
		t.Error("a call reached the scheduler under a condition: it may be executed and answered 304")
	}
}

// everythingRunsWithoutTheGateway shows that the page is no better than the real
// one.
func (d desk) everythingRunsWithoutTheGateway() {
	d.t.Helper()
	d.visit(d.luigi.URL)
	d.show()
	all := []string{"document in a frame", "frame", "handler", "link", "script", "script of another site"}
	d.eventually("all that is stored runs", func() bool {
		return slices.Equal(reads[[]string](d.browser, "[...new Set(stored.ran)].sort()"), all)
	})
	d.eventually("the stored image calls the scheduler", func() bool { return d.luigi.executed("", "prune") > 0 })
	if !d.luigi.askedAgain("") {
		d.t.Error("the browser keeps no replies: this test would not see whether any is kept")
	}
	d.does("send the stored form", chromedp.Click[chromedp.CSS]("#send"))
	d.eventually("the stored form is sent", func() bool { return d.evil.got("/form") })
	d.evil.forget()
}

// visit opens the page and waits until it polls.
func (d desk) visit(base string) {
	d.t.Helper()
	d.does("open the page", chromedp.Navigate(base+"/"))
	d.eventually("the page polls", func() bool { return d.polls() >= 3 })
}

// show clicks for the stored message, and on the link in it.
func (d desk) show() {
	d.t.Helper()
	d.does("show the message", chromedp.Click[chromedp.CSS]("#status"))
	d.eventually("the message is shown", func() bool { return reads[int](d.browser, "stored.tried") == 1 })
	d.does("click the link", chromedp.Click[chromedp.CSS]("#link"))
}

// works opens the page through the gateway: a challenge, a password, and it
// works.
func (d desk) works(base string) {
	d.t.Helper()
	done := d.typesPassword()
	d.visit(base)
	done()
	if got := reads[string](d.browser, `find("page").textContent`); got != "its script runs" {
		d.t.Errorf("the page says %q", got)
	}
	if got := reads[string](d.browser, `getComputedStyle(document.querySelector("#workers div")).overflow`); got != "hidden" {
		d.t.Errorf("the page's styles do not work: overflow is %s", got)
	}
	if got := reads[string](d.browser, `find("tasks").textContent`); got == "" || got == "0" {
		d.t.Errorf("%q tasks", got)
	}
	if refused := reads[[]string](d.browser, "stored.refused"); len(refused) > 0 {
		d.t.Errorf("the policy stopped what belongs to the page: %q", refused)
	}
	polls := d.polls()
	d.eventually("it goes on polling with the password that the browser remembers", func() bool { return d.polls() >= polls+3 })

	paused := d.luigi.executed("svc-etl", "pause")
	d.does("click", chromedp.Click[chromedp.CSS]("#pause"))
	d.eventually("an administrator's click works", func() bool { return reads[string](d.browser, `find("state").textContent`) == "paused" })
	if times := d.luigi.executed("svc-etl", "pause") - paused; times != 1 {
		d.t.Errorf("pause was executed %d times for svc-etl, want once", times)
	}
}

// doesNothingThatIsStored shows the message on the page that is open.
func (d desk) doesNothingThatIsStored(base string) {
	d.t.Helper()
	refused := d.gateway.refused("prune")
	d.show()
	// The handler; two scripts, a frame and the link. The script of the document
	// in a frame is stopped in there.
	stopped := []string{"script-src-attr", "script-src-elem", "script-src-elem", "script-src-elem", "script-src-elem"}
	d.eventually("the policy stops what is stored", func() bool {
		return slices.Equal(reads[[]string](d.browser, "[...stored.refused].sort()"), stopped)
	})
	d.does("send the stored form", chromedp.Click[chromedp.CSS]("#send"))
	d.eventually("the stored form stays", func() bool {
		return slices.Contains(reads[[]string](d.browser, "stored.refused"), "form-action")
	})
	d.eventually("the stored image is refused", func() bool { return d.gateway.refused("prune") > refused })
	polls := d.polls()
	d.eventually("the page goes on polling", func() bool { return d.polls() >= polls+3 })
	if ran := reads[[]string](d.browser, "stored.ran"); len(ran) > 0 {
		d.t.Errorf("stored scripts ran: %q", ran)
	}
	if times := d.luigi.executed("svc-etl", "prune"); times != 0 {
		d.t.Errorf("a stored image called the scheduler %d times", times)
	}
	if d.evil.got("/script.js") || d.evil.got("/form") {
		d.t.Error("something was fetched from, or sent to, another site")
	}

	// A page that the scheduler makes runs no script that stands in it.
	d.does("open the history", chromedp.Navigate(base+"/history"))
	if title := reads[string](d.browser, "document.title"); title != "History" {
		d.t.Errorf("the title of the history: %q", title)
	}
}

// refusesAPageOf opens the page of another site and lets it try by an image, by
// a script, and by a form that somebody sends.
func (d desk) refusesAPageOf(origin, base string) {
	d.t.Helper()
	refused, executed := map[string]int{}, map[string]int{}
	methods := []string{"pause", "unpause", "prune"}
	for _, method := range methods {
		refused[method], executed[method] = d.gateway.refused(method), d.luigi.executed("svc-etl", method)
	}
	again := func(method string) func() bool {
		return func() bool { return d.gateway.refused(method) > refused[method] }
	}
	d.does("open the page of another site", chromedp.Navigate(origin+"/page?gateway="+base))
	d.eventually("the image of "+origin+" is refused", again("pause"))
	d.eventually("the script of "+origin+" is refused", again("unpause"))
	d.does("send the form", chromedp.Click[chromedp.CSS]("#play"))
	d.eventually("the form of "+origin+" is refused", again("prune"))
	for _, method := range methods {
		if got := d.luigi.executed("svc-etl", method); got != executed[method] {
			d.t.Errorf("%s made the scheduler execute %s", origin, method)
		}
	}
	// A form takes along what the browser remembers, whoever's page it is on.
	if user := d.gateway.lastLine("prune").Account; user != "svc-etl" {
		d.t.Errorf("the form came for %q: the browser did not send its password, and this proves nothing", user)
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

func newEvilSite(t *testing.T) *evilSite {
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
				<form method="post" action="%[1]s/api/prune"><input name="data" value="{}"><button id="play">play</button></form>`, r.URL.Query().Get("gateway"))
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
