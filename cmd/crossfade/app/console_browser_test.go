package app_test

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	logs "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"crossfade/rollout"
	"crossfade/rollout/redisstore"
)

// shots, if set, is where the tests put pictures of the console's pages.
var shots = flag.String("shots", "", "write screenshots of the console into this directory")

// reader is somebody who reads the console in a browser, and hears its complaints.
type reader struct {
	*browser
	base string
	// width is that of the window; a phone makes a wide page's innerWidth greater.
	width int64

	mu         sync.Mutex
	complaints []string
}

func (g *gateway) reader() *reader {
	g.site.t.Helper()
	r := &reader{browser: openBrowser(g.site.t), base: "http://" + g.AdminAddr()}
	err := chromedp.Listen(r.ctx, func(event any) {
		r.mu.Lock()
		defer r.mu.Unlock()
		switch e := event.(type) {
		case *logs.EventEntryAdded:
			r.complaints = append(r.complaints, fmt.Sprintf("%s: %s (%s)", e.Entry.Level, e.Entry.Text, e.Entry.URL))
		case *runtime.EventExceptionThrown:
			r.complaints = append(r.complaints, "exception: "+e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			r.complaints = append(r.complaints, fmt.Sprintf("console.%s", e.Type))
		}
	})
	if err != nil {
		g.site.t.Fatal(err)
	}
	return r
}

// complains returns what the browser complained of since it was asked last.
func (r *reader) complains() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	said := r.complaints
	r.complaints = nil
	return said
}

// sees sets the width of the window and whether the reader likes it dark.
func (r *reader) sees(width int64, dark bool) {
	r.t.Helper()
	r.width = width
	p := emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 800, DeviceScaleFactor: 1, Mobile: width < 500}
	if _, err := chromedp.Call(r.ctx, emulation.SetDeviceMetricsOverride, p); err != nil {
		r.t.Fatal(err)
	}
	scheme := map[bool]string{false: "light", true: "dark"}[dark]
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}}
	if _, err := chromedp.Call(r.ctx, emulation.SetEmulatedMedia, media); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reader) opens(path string) {
	r.t.Helper()
	r.does("open "+path, chromedp.Navigate(r.base+path))
}

// shoots takes a picture of the page, or of its upper part.
func (r *reader) shoots(name string, height int64) {
	r.t.Helper()
	if *shots == "" {
		return
	}
	if height == 0 {
		height = reads[int64](r.browser, "document.documentElement.scrollHeight")
	}
	beyond := true
	got, err := chromedp.Call(r.ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{
		Clip: &page.Viewport{Width: float64(r.width), Height: float64(height), Scale: 1}, CaptureBeyondViewport: &beyond,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*shots, name+".png"), got.Data, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// look is how wide a window is, and whether its reader likes it dark.
type look struct {
	width int64
	dark  bool
}

func TestTheConsoleInABrowser(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 20, 200} {
		t.Run(fmt.Sprintf("with %d teams", n), func(t *testing.T) {
			s := newSite(t)
			store := realRedis(t)
			g := s.seeded(store, pastTeams(n))
			s.joined(store, 2)
			r := g.reader()
			paths := []string{"/", "/signals", "/replicas", "/help"}
			switch n {
			case 1:
				paths = append(paths, "/teams/data-eng")
			case 20:
				paths = append(paths, "/teams/data-eng", "/teams/billing", "/teams/ml-platform", "/teams/growth", "/teams/risk", "/teams/payments?percent=100", "/teams/search", "/?answer=blocked", "/?q=nothing+like+it")
			case 200:
				paths = []string{"/", "/teams/data-eng"}
			}
			looks := []look{{360, true}, {1280, false}}
			if *shots != "" {
				looks = append(looks, look{360, false}, look{1280, true})
			}
			for _, l := range looks {
				r.sees(l.width, l.dark)
				for _, path := range paths {
					r.opens(path)
					name := fmt.Sprintf("%d-%d-%s-%s", n, l.width, map[bool]string{false: "light", true: "dark"}[l.dark], strings.NewReplacer("/", "_", "?", "_").Replace(path))
					r.fits(name)
					r.contrasts(name)
					r.shoots(name, 0)
				}
			}
			if n == 20 { // the pictures of the README, and the other colours
				r.sees(1280, false)
				r.opens("/")
				r.shoots("console-teams", 880)
				r.sees(1280, true)
				r.opens("/teams/data-eng?percent=50")
				r.contrasts("a team in the dark")
				r.shoots("console-team", 1180)
				r.sees(390, false)
				r.opens("/teams/billing")
				r.contrasts("a team on a phone")
				r.shoots("console-phone", 1000)
			}
			if said := r.complains(); len(said) > 0 {
				t.Errorf("the browser complains: %q", said)
			}
		})
	}
}

// fits wants a page that nobody has to scroll sideways.
func (r *reader) fits(name string) {
	r.t.Helper()
	if over := reads[[]string](r.browser, fmt.Sprintf(`[document.documentElement, ...document.body.querySelectorAll("*:not(.sr):not(.sr *)")].filter(e => {
		const b = e.getBoundingClientRect();
		return b.width > 0 && b.right > %d + 1 && getComputedStyle(e.closest("thead") ?? e).position !== "absolute";
	}).map(e => e.outerHTML.slice(0, 80))`, r.width)); len(over) > 0 {
		r.t.Errorf("%s is wider than the window: %q", name, over)
	}
	if wide := reads[int64](r.browser, "document.documentElement.scrollWidth") - r.width; wide > 0 {
		r.t.Errorf("%s scrolls sideways by %d px", name, wide)
	}
}

// contrasts wants text that stands out against its ground by 4.5 to 1 (WCAG 2.2,
// success criterion 1.4.3).
func (r *reader) contrasts(name string) {
	r.t.Helper()
	if weak := reads[[]string](r.browser, contrast); len(weak) > 0 {
		r.t.Errorf("%s has text that is hard to see: %q", name, weak)
	}
}

// contrast lists the texts of the page whose contrast is below 4.5 to 1. Of a
// ground that changes it takes the colour that it begins with.
const contrast = `(() => {
	const parse = text => { const m = text.match(/[\d.]+/g).map(Number); return { rgb: m.slice(0, 3), alpha: m[3] ?? 1 }; };
	const light = rgb => {
		const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const ground = e => {
		for (; e; e = e.parentElement) {
			const style = getComputedStyle(e);
			const first = style.backgroundImage.match(/rgba?\([^)]*\)/);
			if (first) return parse(first[0]).rgb;
			const c = parse(style.backgroundColor);
			if (c.alpha === 1) return c.rgb;
		}
		return [255, 255, 255];
	};
	const weak = new Set();
	for (const e of document.body.querySelectorAll("*")) {
		if (![...e.childNodes].some(n => n.nodeType === 3 && n.nodeValue.trim()) || !e.checkVisibility() || e.closest("svg")) continue;
		const a = light(parse(getComputedStyle(e).color).rgb), b = light(ground(e));
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < 4.5) weak.add(e.className + " " + e.textContent.trim().slice(0, 30) + ": " + ratio.toFixed(2));
	}
	return [...weak];
})()`

// town is a gateway with the stories of twenty teams, and somebody who reads them.
func town(t *testing.T) (*site, *redisstore.Store, *gateway, *reader) {
	t.Helper()
	s := newSite(t)
	store := realRedis(t)
	g := s.seeded(store, pastTeams(12))
	r := g.reader()
	r.sees(1280, false)
	return s, store, g, r
}

func (r *reader) says(selector string) string {
	r.t.Helper()
	return reads[string](r.browser, fmt.Sprintf("document.querySelector(%q)?.textContent.trim() ?? ''", selector))
}

func TestTheConsoleRenewsItselfInPlace(t *testing.T) {
	t.Parallel()
	s, store, g, r := town(t)
	r.opens("/teams/data-eng?percent=75")
	s.eventually("the page is live", func() bool { return strings.HasPrefix(r.says("#pulse"), "live, ") })
	r.does("open the table of days", chromedp.Click[chromedp.CSS]("#days-table > summary"))
	r.does("look at the end", chromedp.Click[chromedp.CSS]("#checks-raise > summary"))
	r.does("go back to the button", chromedp.Focus[chromedp.CSS]("[data-copy]"))
	r.does("scroll", chromedp.Evaluate[chromedp.Void]("scrollTo(0, 400)"))
	r.does("remember the parts", chromedp.Evaluate[chromedp.Void](`was = { button: document.activeElement, row: document.querySelector(".accounts tbody tr"), top: document.querySelector("[data-copy]").getBoundingClientRect().top }; 0`))
	by := rollout.Setting{Percent: 50, Actor: "lea.holm", Verified: true, Source: "api", Reason: "halfway there"}
	does := func(change func(rollout.State, rollout.Setting, time.Time) rollout.Change) {
		t.Helper()
		_, err := rollout.Update(t.Context(), store, "data-eng", func(s rollout.State) (rollout.Change, error) { return change(s, by, time.Now()), nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	does(rollout.Set)
	s.eventually("the change is on the page", func() bool {
		return strings.Contains(r.says(".standing"), "50% must use OIDC") && strings.Contains(r.says(".history"), "halfway there")
	})
	for what, expression := range map[string]string{
		"the table of days is open":      `document.getElementById("days-table").open`,
		"the checks are open":            `document.getElementById("checks-raise").open`,
		"the button has the focus":       `document.activeElement === was.button && was.button.isConnected`,
		"the rows are the same elements": `document.querySelector(".accounts tbody tr") === was.row`,
		// Lines that came above move the page by their height, so that this stays true.
		"what is looked at stays where it was":    `Math.abs(was.button.getBoundingClientRect().top - was.top) < 2`,
		"the address is the same":                 `location.search === "?percent=75"`,
		"the answer is told to screen readers":    `document.getElementById("announce").textContent.startsWith("data-eng: WAIT")`,
		"the age is not told to them each second": `!document.getElementById("announce").contains(document.getElementById("pulse")) && !document.getElementById("pulse").closest("[aria-live]")`,
		"nothing of what is shown is there twice": `new Set([...document.querySelectorAll("[id]")].map(e => e.id)).size === document.querySelectorAll("[id]").length`,
	} {
		if !reads[bool](r.browser, expression) {
			t.Errorf("it is not so that %s", what)
		}
	}

	// A row that moves takes the focus along.
	r.opens("/")
	r.does("go to data-eng", chromedp.Focus[chromedp.CSS](`[data-key="data-eng"] a`))
	does(rollout.Brake)
	s.eventually("the hold is on the page", func() bool { return strings.Contains(r.says(`[data-key="data-eng"] .answer`), "HELD") })
	if got := reads[string](r.browser, "document.activeElement.textContent"); got != "data-eng" {
		t.Errorf("the focus is on %q", got)
	}
	if got := r.says("#announce"); !strings.Contains(got, "2 held") {
		t.Errorf("screen readers are told %q", got)
	}

	r.does("pause", chromedp.Click[chromedp.CSS]("#pause"))
	if got := r.says("#pulse"); !strings.HasPrefix(got, "paused, ") {
		t.Errorf("a page that pauses says %q", got)
	}
	r.does("go on", chromedp.Click[chromedp.CSS]("#pause"))
	s.eventually("it is live again", func() bool { return strings.HasPrefix(r.says("#pulse"), "live, ") })
	if said := r.complains(); len(said) > 0 {
		t.Errorf("the browser complains: %q", said)
	}
	g.end()
	s.eventually("the page says that nobody answers", func() bool { return strings.HasPrefix(r.says("#pulse"), "no answer: this is from ") })
	if got := r.says("#announce"); got != "The gateway does not answer." {
		t.Errorf("screen readers are told %q", got)
	}
	if got := r.says("h1"); got != "Teams" {
		t.Errorf("what was known is gone: %q", got)
	}
}

func TestTheConsoleWorksWithoutScripts(t *testing.T) {
	t.Parallel()
	s, _, _, r := town(t)
	if _, err := chromedp.Call(r.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	r.opens("/")
	if reads[bool](r.browser, `document.documentElement.classList.contains("scripts")`) {
		t.Fatal("scripts run, and this proves nothing")
	}
	if got := reads[int](r.browser, `[...document.querySelectorAll("button.js")].filter(b => b.checkVisibility()).length`); got != 0 {
		t.Errorf("%d buttons do nothing", got)
	}
	if got := r.says("#pulse"); !strings.HasPrefix(got, "as of ") {
		t.Errorf("the page is %q, and nothing renews it", got)
	}
	if got := reads[string](r.browser, `document.querySelector("noscript meta, head > meta[http-equiv=refresh]")?.content ?? ""`); got != "60" {
		t.Errorf("the page reloads after %q seconds", got)
	}
	r.does("look for billing", chromedp.SendKeys[chromedp.CSS]("#q", "invoices\r"))
	s.eventually("billing is found", func() bool {
		return r.says(".teams tbody") != "" && r.says("caption") == "1 of 12 teams, those first that need somebody"
	})
	r.does("open it", chromedp.Click[chromedp.CSS](".teams tbody a"))
	s.eventually("the team's page is there", func() bool { return r.says("h1") == "billing" })
	r.does("look at 75%", chromedp.Click[chromedp.CSS](`.steps a[href="?percent=75"]`))
	s.eventually("the outlook is there", func() bool { return strings.HasPrefix(r.says(".outlook"), "At 75%") })
	r.does("open the table of days", chromedp.Click[chromedp.CSS]("#days-table > summary"))
	if !reads[bool](r.browser, `document.getElementById("days-table").open && document.querySelector("#days-table td").checkVisibility()`) {
		t.Error("the table does not open")
	}
	r.does("let it stay as it is", chromedp.Click[chromedp.CSS]("noscript a"))
	s.eventually("it stays", func() bool { return strings.Contains(r.says("footer"), "This page stays as it is") })
	if got := reads[string](r.browser, `location.search`); got != "?percent=75&still=1" {
		t.Errorf("the address is %q", got)
	}
	if said := r.complains(); len(said) > 0 {
		t.Errorf("the browser complains: %q", said)
	}
}

func TestTheConsoleByKeyboard(t *testing.T) {
	t.Parallel()
	_, _, _, r := town(t)
	tab := func() string {
		r.does("press Tab", chromedp.KeyEvent(kb.Tab))
		return reads[string](r.browser, `(() => {
			const e = document.activeElement;
			const style = getComputedStyle(e);
			if (e !== document.body && (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2)) return "unseen: " + e.outerHTML;
			(window.reached ??= new WeakSet()).add(e); // an attribute would go when the page renews itself
			return e.textContent.trim();
		})()`)
	}
	for _, path := range []string{"/", "/teams/billing", "/signals", "/replicas", "/help"} {
		r.opens(path)
		if got := tab(); got != "Skip to the content" {
			t.Errorf("%s begins with %q", path, got)
		}
		all := reads[int](r.browser, `document.querySelectorAll("a[href], button, input, select, summary").length`)
		for range all + 2 {
			if got := tab(); strings.HasPrefix(got, "unseen: ") {
				t.Errorf("%s: the focus is %s", path, got)
			}
		}
		if left := reads[[]string](r.browser, `[...document.querySelectorAll("a[href], button, input, select, summary")]
			.filter(e => e.checkVisibility() && !reached.has(e)).map(e => e.outerHTML)`); len(left) > 0 {
			t.Errorf("%s: the keyboard does not reach %q", path, left)
		}
	}
	r.opens("/teams/data-eng")
	tab()
	r.does("skip", chromedp.KeyEvent(kb.Enter))
	if got := reads[string](r.browser, "document.activeElement.id"); got != "main" {
		t.Errorf("the link leads to %q", got)
	}
	r.does("go to the checks", chromedp.Focus[chromedp.CSS]("#checks-raise > summary"))
	r.does("open them", chromedp.KeyEvent(kb.Enter))
	if !reads[bool](r.browser, `document.getElementById("checks-raise").open`) {
		t.Error("the keyboard does not open the checks")
	}
}

func TestTheConsoleRemembersItsColours(t *testing.T) {
	t.Parallel()
	s, _, g, r := town(t)
	ground := func() string { return reads[string](r.browser, "getComputedStyle(document.body).backgroundColor") }
	r.opens("/")
	light := ground()
	if got := r.says("#theme"); got != "Dark" {
		t.Errorf("the button says %q", got)
	}
	r.does("choose dark", chromedp.Click[chromedp.CSS]("#theme"))
	dark := ground()
	if dark == light {
		t.Errorf("nothing became dark: %s", dark)
	}
	for _, path := range []string{"/help", "/teams/billing"} {
		if r.opens(path); ground() != dark || r.says("#theme") != "Light" {
			t.Errorf("%s forgets what was chosen: %s", path, ground())
		}
	}
	r.sees(1280, true)
	r.does("choose light", chromedp.Click[chromedp.CSS]("#theme"))
	if r.opens("/"); ground() != light {
		t.Errorf("who likes it dark and chose light sees %s", ground())
	}
	if got := reads[string](r.browser, "document.cookie"); got != "" {
		t.Errorf("there is a cookie: %s", got)
	}
	r.opens("/teams/data-eng?percent=50")
	r.does("copy", chromedp.Click[chromedp.CSS]("[data-copy]"))
	s.eventually("it is copied or selected", func() bool { return r.says("#announce") != "" && r.says("[data-copy]") != "Copy" })

	// What another site links to opens with one more click.
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<!DOCTYPE html><title>A wiki</title><a id="link" href="http://%s/teams/data-eng?percent=75">our team</a>`, g.AdminAddr())
	}))
	t.Cleanup(other.Close)
	if said := r.complains(); len(said) > 0 {
		t.Errorf("the browser complains: %q", said)
	}
	r.does("open the wiki", chromedp.Navigate(other.URL))
	r.does("follow the link", chromedp.Click[chromedp.CSS]("#link"))
	s.eventually("it is refused, and says how to go on", func() bool { return strings.Contains(r.says("main"), "open the page") })
	r.does("go on", chromedp.Click[chromedp.CSS]("main a"))
	s.eventually("the page is there", func() bool { return r.says("h1") == "data-eng" && strings.HasPrefix(r.says(".outlook"), "At 75%") })
}
