package app_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	logs "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// shots, if set, is where the tests put pictures of the console's pages.
var shots = flag.String("shots", "", "write screenshots of the console into this directory")

// reader is somebody who reads the console in a browser, and hears its complaints.
type reader struct {
	*browser
	base string

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
	width := reads[int64](r.browser, "innerWidth")
	beyond := true
	got, err := chromedp.Call(r.ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{
		Clip: &page.Viewport{Width: float64(width), Height: float64(height), Scale: 1}, CaptureBeyondViewport: &beyond,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*shots, name+".png"), got.Data, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func TestTheConsoleInABrowser(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 20, 200} {
		t.Run(fmt.Sprintf("with %d teams", n), func(t *testing.T) {
			s := newSite(t)
			store := inProcess(t)
			g := s.seeded(store, pastTeams(n))
			s.joined(store, 2)
			r := g.reader()
			paths := []string{"/", "/signals", "/replicas", "/help"}
			if n > 0 {
				paths = append(paths, "/teams/data-eng")
			}
			if n >= 20 {
				paths = append(paths, "/teams/billing", "/teams/ml-platform", "/teams/growth", "/teams/risk", "/teams/payments?percent=100", "/teams/search", "/?answer=blocked", "/?q=nothing+like+it")
			}
			for _, width := range []int64{360, 1280} {
				for _, dark := range []bool{false, true} {
					r.sees(width, dark)
					for _, path := range paths {
						r.opens(path)
						name := fmt.Sprintf("%d-%d-%s-%s", n, width, map[bool]string{false: "light", true: "dark"}[dark], strings.NewReplacer("/", "_", "?", "_").Replace(path))
						r.fits(name)
						r.contrasts(name)
						r.shoots(name, 0)
					}
				}
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
	if over := reads[[]string](r.browser, `[document.documentElement, ...document.body.querySelectorAll("*:not(.sr):not(.sr *)")].filter(e => {
		const b = e.getBoundingClientRect();
		return b.width > 0 && b.right > innerWidth + 1 && getComputedStyle(e.closest("thead") ?? e).position !== "absolute";
	}).map(e => e.outerHTML.slice(0, 80))`); len(over) > 0 {
		r.t.Errorf("%s is wider than the window: %q", name, over)
	}
	if wide := reads[int](r.browser, "document.documentElement.scrollWidth - innerWidth"); wide > 0 {
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
