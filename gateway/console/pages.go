package console

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout/fleet"
)

// What the pages may load and do: their own files, and nothing that stands in
// them. Forms only ask for pages, since none of them changes anything.
const pagePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// assets is where the files of the pages are.
const assets = "/assets/"

// fragmentHeader asks for that part of a page that changes, and marks an answer
// that is one: what a proxy in front answers is none.
const fragmentHeader = "Crossfade-Fragment"

//go:embed ui
var ui embed.FS

// page is one that is for people. Its view says what it shows.
type page struct {
	path string // as http.ServeMux has it
	file string // of its template, without ".html"
	view func(c *Console, r *http.Request) (frame, *problem)
}

func pages() []page {
	return []page{
		{"/{$}", "teams", (*Console).teamsPage},
		{"/teams/{team}", "team", (*Console).teamPage},
		{"/signals", "signals", (*Console).signalsPage},
		{"/replicas", "replicas", (*Console).replicasPage},
		{"/help", "help", (*Console).helpPage},
	}
}

// pageRoutes are the paths of the pages and their files as Routes has them.
func pageRoutes() []string {
	all := []string{assets}
	for _, p := range pages() {
		all = append(all, routeName(p.path))
	}
	return all
}

// routeName is a pattern of http.ServeMux without what only marks its end.
func routeName(pattern string) string { return strings.TrimSuffix(pattern, "{$}") }

// frame is what every page has.
type frame struct {
	Title string
	// Section is the path of the navigation's entry that the page belongs to.
	Section string
	// Changing tells that the page shows what changes.
	Changing bool
	// Announce is what a screen reader is told once it is another.
	Announce string
	// Live is how old what is shown is, Gateways which gateways there are.
	Live     live
	Gateways gateways
	// Still tells that the page must not reload by itself where scripts do not run,
	// and Toggle is the address of the same page with the contrary.
	Still  bool
	Toggle string
	Body   any
}

// live says how old the rollouts are that a page shows.
type live struct {
	At moment
	// Age is in whole seconds.
	Age int
	// Trouble is why the store cannot be read; "" if it can.
	Trouble string
}

// gateways says in a few words which gateways there are.
type gateways struct {
	Text string
	Good bool
}

// stylesheet, scripts and icon are named by what is in them, so that browsers may
// keep them for good.
var versions = func() map[string]string {
	all := make(map[string]string)
	for name, text := range assetFiles() {
		sum := sha256.Sum256(text)
		all[name] = hex.EncodeToString(sum[:6])
	}
	return all
}()

// assetFiles are the files that pages load, by name.
func assetFiles() map[string][]byte {
	all := make(map[string][]byte)
	entries, err := fs.ReadDir(ui, "ui")
	if err != nil {
		panic(err) // it is part of the program
	}
	for _, e := range entries {
		if path.Ext(e.Name()) == ".html" {
			continue
		}
		text, err := fs.ReadFile(ui, "ui/"+e.Name())
		if err != nil {
			panic(err)
		}
		all[e.Name()] = text
	}
	return all
}

var templates = func() map[string]*template.Template {
	base := template.Must(template.New("base").Funcs(template.FuncMap{
		"name": visible, "team": teamPath, "thousands": thousands, "counted": counted,
		"asset": func(name string) string { return assets + name + "?v=" + versions[name] },
	}).ParseFS(ui, "ui/base.html"))
	all := make(map[string]*template.Template)
	for _, name := range []string{"problem", "teams", "team", "signals", "replicas", "help"} {
		all[name] = template.Must(template.Must(base.Clone()).ParseFS(ui, "ui/"+name+".html"))
	}
	return all
}()

// addPages lets a mux answer with the pages and their files.
func (c *Console) addPages(mux *http.ServeMux) {
	for _, p := range pages() {
		mux.HandleFunc(p.path, func(w http.ResponseWriter, r *http.Request) {
			if refusal := readOnly(r); refusal != nil {
				c.reject(w, r, refusal)
				return
			}
			f, refusal := p.view(c, r)
			if refusal != nil {
				c.reject(w, r, refusal)
				return
			}
			c.render(w, r, http.StatusOK, p.file, f)
		})
	}
	files := assetFiles()
	mux.HandleFunc(assets, func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, assets)
		text, ok := files[name]
		refusal := readOnly(r)
		if !ok && refusal == nil {
			refusal = refuse(http.StatusNotFound, routeUnknown, "There is nothing here.", "Look at /.")
		}
		if refusal != nil {
			c.reject(w, r, refusal)
			return
		}
		if r.URL.RawQuery == "v="+versions[name] {
			w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
		}
		w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
	})
}

// isAsset reports whether a request is for a file of the pages. There is nothing
// in them that is not in the program, and refusals need them too.
func isAsset(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, assets) }

// readOnly refuses what is no reading.
func readOnly(r *http.Request) *problem {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	p := refuse(http.StatusMethodNotAllowed, methodNotAllowed, fmt.Sprintf("%s cannot be done to %s.", clip(r.Method), clip(r.URL.Path)),
		"The pages are for reading; changes go through the team's file, the command line or the API under "+Prefix+".")
	p.allow = "GET, HEAD"
	return p
}

// wantsPage reports whether a refusal is for somebody in a browser.
func wantsPage(r *http.Request) bool {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		return false
	}
	for _, accept := range r.Header["Accept"] {
		for part := range strings.SplitSeq(accept, ",") {
			kind, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(kind), "text/html") {
				return true
			}
		}
	}
	return false
}

// reject writes a refusal: as a page for people, as problem details for programs.
func (c *Console) reject(w http.ResponseWriter, r *http.Request, p *problem) {
	if !wantsPage(r) || r.Header.Get(fragmentHeader) != "" {
		p.write(w)
		return
	}
	p.headers(w)
	c.render(w, r, p.Status, "problem", frame{Title: p.Title, Body: problemView{
		problem: p, Loopback: c.o.Loopback, Entry: p.Status == http.StatusUnauthorized,
		Again: again(p, r), Reload: p.retryAfter,
	}})
}

// problemView is a refusal for people.
type problemView struct {
	*problem
	// Entry tells that the way in is to be explained, Loopback that this machine is
	// one.
	Entry, Loopback bool
	// Again is where a click leads to what was refused only for where the last click
	// was made; "" for nowhere. Reload is after how many seconds to try again.
	Again, Reload string
}

// again is the address of the page that another site's link led to: a click on
// this one's leads there. Nothing is lost by that, for pages change nothing; and
// another site cannot click here.
func again(p *problem, r *http.Request) string {
	if p.Reason != string(identity.CrossSite) || readOnly(r) != nil {
		return ""
	}
	target := *r.URL
	target.Scheme, target.Host, target.User = "", "", nil
	target.Path = path.Clean("/" + target.Path) // "//host/" would be another site's
	target.RawPath = ""
	return target.String()
}

// render writes a page, or that part of it that changes if that was asked for.
func (c *Console) render(w http.ResponseWriter, r *http.Request, status int, file string, f frame) {
	name := "page"
	if f.Changing && r.Header.Get(fragmentHeader) != "" {
		name = "live"
		w.Header().Set(fragmentHeader, "live")
	}
	var b bytes.Buffer
	if err := templates[file].ExecuteTemplate(&b, name, f); err != nil { // of our own types: cannot be
		c.o.Log.Error("a page cannot be written", "page", file, "error", err)
		refuse(http.StatusInternalServerError, "page_failed", "The page cannot be written.", "Use the API under "+Prefix+".").write(w)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Vary", "Accept, "+fragmentHeader)
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // whoever is gone needs nothing
}

// pageHeaders are those of everything that is no part of the API.
func pageHeaders(h http.Header) {
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// framed is the frame of a page that shows what changes.
func (c *Console) framed(ctx context.Context, r *http.Request, title, section string) frame {
	now := c.o.Now()
	f := frame{Title: title, Section: section, Changing: true, Gateways: c.gateways(ctx)}
	f.Live.At = moment{c.o.Table.LoadedAt(), now}
	f.Live.Age = max(0, int(now.Sub(c.o.Table.LoadedAt())/time.Second))
	if err := c.o.Table.Err(); err != nil {
		f.Live.Trouble = err.Error()
	}
	query := r.URL.Query()
	f.Still = query.Has("still")
	toggle := make(url.Values)
	for _, name := range []string{"q", "answer", "percent", "history"} { // and nothing that a page does not know
		if query.Has(name) {
			toggle.Set(name, query.Get(name))
		}
	}
	if !f.Still {
		toggle.Set("still", "1")
	}
	f.Toggle = "?" + toggle.Encode()
	return f
}

// gateways says which gateways there are, and whether they agree.
func (c *Console) gateways(ctx context.Context) gateways {
	all, now, err := c.o.Store.Fleet(ctx)
	if err != nil {
		return gateways{Text: "the gateways are not known"}
	}
	alive := fleet.Alive(all, now)
	switch n := len(alive); {
	case n == 0:
		return gateways{Text: "no gateway gives a sign of life"}
	case n == 1:
		return gateways{Text: "1 gateway", Good: true}
	case fleet.Agree(alive):
		return gateways{Text: fmt.Sprintf("%d gateways agree", n), Good: true}
	default:
		return gateways{Text: fmt.Sprintf("%d gateways, of more than one configuration", n)}
	}
}

// allTeams are those of the configuration and of the table, in order.
func (c *Console) allTeams() []identity.Team {
	known := make(map[identity.Team]bool)
	for _, team := range c.o.Teams {
		known[team] = true
	}
	for _, s := range c.o.Table.States() {
		known[s.Team] = true
	}
	return slices.SortedFunc(maps.Keys(known), cmp.Compare)
}
