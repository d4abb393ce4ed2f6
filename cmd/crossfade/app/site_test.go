package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crossfade/cmd/crossfade/app"
	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/redisstore"
)

// audience is what tokens must be for.
const audience = "luigi"

// patience bounds every wait for something that must come, and is only reached by
// a test that fails. Who wants something to come soon says how soon.
const patience = 30 * time.Second

// site is what surrounds a gateway: its files, a real identity provider, and a
// scheduler behind it.
type site struct {
	t        *testing.T
	dir      string
	issuer   *demo.Issuer
	upstream *upstream
	client   *http.Client
	// lines are the keys of crossfade.yaml and what stands behind each.
	lines map[string]string
	// enforced is the run that gateway.enforces has begun.
	enforced string
}

// sharedIssuer is one identity provider for all tests that leave it as it is:
// its key takes a while to make. TestMain closes it.
var sharedIssuer = sync.OnceValues(newIssuer)

func newIssuer() (*demo.Issuer, error) {
	clients := make(map[string]identity.Secret)
	for _, a := range demo.Accounts() {
		clients[a.User] = a.ClientSecret
	}
	// Of a test that waits for its turn on a busy machine no token may end.
	return demo.NewIssuer(demo.IssuerOptions{Clients: clients, Lifetime: time.Hour})
}

// ownIssuer gives the site an identity provider of its own.
func (s *site) ownIssuer() {
	s.t.Helper()
	var err error
	if s.issuer, err = newIssuer(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := s.issuer.Close(); err != nil {
			s.t.Error(err)
		}
	})
	s.configure("oidc", fmt.Sprintf("{ issuer: %s, audience: %s }", s.issuer.URL(), audience))
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), upstream: newUpstream(t)}
	var principals strings.Builder
	for _, a := range demo.Accounts() {
		fmt.Fprintf(&principals, "%s: { team: %s, oidc: { subject: %s } }\n", a.User, a.Team, a.User)
	}
	var err error
	if s.issuer, err = sharedIssuer(); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	s.client = &http.Client{Transport: transport, Timeout: patience}

	htpasswd, err := demo.Htpasswd(demo.Accounts())
	if err != nil {
		t.Fatal(err)
	}
	s.write("users.htpasswd", string(htpasswd))
	s.write("principals.yaml", principals.String())
	s.lines = map[string]string{
		"mode":       "enforce",
		"listen":     "127.0.0.1:0",
		"metrics":    "127.0.0.1:0",
		"upstream":   fmt.Sprintf("{ url: %s, profile: luigi }", s.upstream.URL),
		"legacy":     "{ htpasswd: users.htpasswd }",
		"oidc":       fmt.Sprintf("{ issuer: %s, audience: %s }", s.issuer.URL(), audience),
		"principals": "principals.yaml",
		"access_log": `"off"`,
		"help":       `{ url: https://wiki.example/oidc, contact: "#platform" }`,
	}
	s.configure()
	return s
}

// write replaces a file at once, as editors do.
func (s *site) write(name, text string) {
	s.t.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		s.t.Fatal(err)
	}
}

// configure sets keys, as key and value in turn, and writes crossfade.yaml.
func (s *site) configure(pairs ...string) {
	s.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		s.lines[pairs[i]] = pairs[i+1]
	}
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(s.lines)) {
		fmt.Fprintf(&b, "%s: %s\n", key, s.lines[key])
	}
	s.write("crossfade.yaml", b.String())
}

// token fetches one from the identity provider, as a client would.
func (s *site) token(user, audience string) string {
	s.t.Helper()
	token, err := s.issuer.Token(s.t.Context(), user, audience)
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// gateway is one that runs.
type gateway struct {
	*app.App
	site *site
	log  *lockedBuffer
	// base is where clients connect.
	base string
	// stop asks it to end, force insists; ended has what Run returned.
	stop, force context.CancelFunc
	ended       chan error
}

// start runs a gateway on the site's configuration until the test ends.
func (s *site) start(options ...func(*app.Options)) *gateway {
	s.t.Helper()
	g := &gateway{site: s, log: &lockedBuffer{}, ended: make(chan error, 1)}
	o := app.Options{
		Load:    s.load,
		Log:     slog.New(slog.NewTextHandler(g.log, nil)),
		Version: "test",
	}
	if s.lines["redis"] == "" {
		// The store is in this process or a test's own, and is not away: a request that
		// has to wait for it longer than in production does so on a busy machine.
		o.StoreTimeout = patience
	}
	for _, set := range options {
		set(&o)
	}
	var err error
	if g.App, err = app.New(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
	g.base = "http://" + g.Addr()
	// The test's own context ends before its cleanups run.
	ctx, stop := context.WithCancel(context.Background())
	force, insist := context.WithCancel(context.Background())
	g.stop, g.force = stop, insist
	go func() { g.ended <- g.Run(ctx, force) }()
	s.t.Cleanup(func() {
		insist()
		g.end()
	})
	return g
}

// end stops the gateway and waits for a clean end.
func (g *gateway) end() {
	g.site.t.Helper()
	g.stop()
	select {
	case err := <-g.ended:
		if err != nil {
			g.site.t.Errorf("the gateway ended with: %v", err)
		}
		g.ended <- nil // for who asks again
	case <-time.After(patience):
		g.site.t.Error("the gateway does not end")
	}
}

// loaded waits until the percentages were read.
func (g *gateway) loaded() *gateway {
	g.site.t.Helper()
	g.site.eventually("the percentages are read", g.Table().Loaded)
	return g
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// eventually polls until a condition holds.
func (s *site) eventually(what string, holds func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			s.t.Fatalf("after %s still not: %s", patience, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// request is what a client sends. Zero fields are left out.
type request struct {
	method, path, body string
	user, password     string
	bearer, companion  string
	header             http.Header
}

// reply is what it gets. status is 0 when there was none.
type reply struct {
	status int
	header http.Header
	body   string
	err    error
}

func (r reply) String() string {
	return fmt.Sprintf("%d %s %s %v", r.status, r.header.Get("Crossfade-Reason"), strings.TrimSpace(r.body), r.err)
}

func (s *site) send(base string, q request) reply {
	r, err := http.NewRequest(q.method, base+q.path, strings.NewReader(q.body))
	if err != nil {
		return reply{err: err, header: http.Header{}}
	}
	if q.method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	maps.Copy(r.Header, q.header)
	if q.user != "" {
		r.SetBasicAuth(q.user, q.password)
	}
	if q.bearer != "" {
		r.Header.Set("Authorization", "Bearer "+q.bearer)
	}
	if q.companion != "" {
		r.Header.Set("Crossfade-Token", q.companion)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return reply{err: err, header: http.Header{}}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(body), err}
}

func (g *gateway) send(q request) reply { return g.site.send(g.base, q) }

// fetch reads a page of the metrics listener.
func (g *gateway) fetch(path string) reply {
	return g.site.send("http://"+g.MetricsAddr(), request{method: http.MethodGet, path: path})
}

// metric returns the value of a series as it stands in the exposition text, ""
// if there is none.
func (g *gateway) metric(series string) string {
	for line := range strings.Lines(g.fetch("/metrics").body) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// etl is a request with the password of svc-etl, which is in team data-eng.
func etl(q request) request {
	q.user, q.password = "svc-etl", "legacy-pass"
	return q
}

// search is one with the password of svc-search, of team search.
func search(q request) request {
	q.user, q.password = "svc-search", "search-pass"
	return q
}

// pages asks for what a browser does; it belongs to no run.
func pages() request { return request{method: http.MethodGet, path: "/api/task_list"} }

// rpc is a call as Luigi's worker sends it.
func rpc(method string, arguments map[string]any) request {
	text, err := json.Marshal(arguments)
	if err != nil {
		panic(err) // a mistake of the test
	}
	return request{method: http.MethodPost, path: "/api/" + method, body: url.Values{"data": {string(text)}}.Encode()}
}

func ping(worker string) request { return rpc("ping", map[string]any{"worker": worker}) }

// addTask registers a task, which says what a run executes.
func addTask(worker, family string) request {
	return rpc("add_task", map[string]any{
		"worker": worker, "task_id": family + "_1", "family": family, "params": map[string]any{}, "status": "PENDING",
	})
}

// set changes a percentage as `crossfade rollout set` on another machine does.
func set(t *testing.T, url string, team identity.Team, percent rollout.Percent) {
	t.Helper()
	store, err := redisstore.New(redisstore.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	// On a busy machine the first connection may take more than its time, and a
	// change must not be tried twice.
	for deadline := time.Now().Add(patience); ; {
		_, err := store.Load(t.Context())
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if _, err := store.Write(t.Context(), rollout.Change{
		Team: team, Percent: percent, Expect: rollout.AnyRevision, Actor: "lead", Source: "cli",
	}); err != nil {
		t.Fatal(err)
	}
}

// reaches waits until the gateway knows a percentage.
func (g *gateway) reaches(team identity.Team, percent rollout.Percent) {
	g.site.t.Helper()
	g.site.eventually(fmt.Sprintf("%s is at %s%%", team, percent), func() bool {
		state, ok := g.Table().Lookup(team)
		return ok && state.Percent == percent
	})
}

// upstream is the stand-in scheduler, and remembers what reached it.
type upstream struct {
	*httptest.Server
	// slow, if it is there when a request to /slow arrives, holds the reply
	// back until it is closed; arrived gets one entry for each.
	slow    chan struct{}
	arrived chan struct{}

	mu   sync.Mutex
	seen []*http.Request
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	scheduler, err := demo.NewScheduler()
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{slow: make(chan struct{}), arrived: make(chan struct{}, 100)}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.seen = append(u.seen, r.Clone(context.Background()))
		u.mu.Unlock()
		if r.URL.Path == "/slow" {
			u.arrived <- struct{}{}
			select {
			case <-u.slow:
				_, _ = io.WriteString(w, "at last")
			case <-r.Context().Done():
			}
			return
		}
		scheduler.ServeHTTP(w, r)
	}))
	t.Cleanup(u.Close)
	return u
}

// last returns the request that came last; count how many came.
func (u *upstream) last() *http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.seen) == 0 {
		return nil
	}
	return u.seen[len(u.seen)-1]
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.seen)
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
