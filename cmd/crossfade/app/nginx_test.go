package app_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// deployed are the example configurations, which these tests run as they stand, with
// nothing replaced but addresses and the names of files.
const deployed = "../../../deploy/"

// front is a proxy of others that a test started.
type front struct {
	t    *testing.T
	dir  string
	addr string // where clients connect
	log  *lockedBuffer
	cmd  *exec.Cmd
}

// example reads an example configuration and replaces what belongs to another machine.
// What is to be replaced must be there.
func example(t *testing.T, name string, pairs ...string) string {
	t.Helper()
	text := readFile(t, deployed+name)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("there is no %q in %s", pairs[i], name)
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

// startFront runs a proxy in the foreground until the test ends. configure writes its
// configuration for an address and returns the arguments of its program.
func startFront(t *testing.T, program string, configure func(dir, addr string) []string) *front {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path = "/usr/sbin/" + program // where Debian has it, and PATH may not
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("this test needs %s in PATH: `make test` installs it (%v)", program, err)
		}
	}
	f := &front{t: t, dir: t.TempDir()}
	t.Cleanup(f.stop)
	// A port is free when it is chosen and may be taken a moment later, so another one
	// is tried.
	for range 5 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f.addr = l.Addr().String()
		_ = l.Close()
		f.log = &lockedBuffer{}
		f.cmd = exec.Command(path, configure(f.dir, f.addr)...)
		f.cmd.Dir, f.cmd.Stdout, f.cmd.Stderr = f.dir, f.log, f.log
		f.cmd.Env = append(os.Environ(), "HOME="+f.dir, "XDG_DATA_HOME="+f.dir, "XDG_CONFIG_HOME="+f.dir)
		if err := f.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if f.listens() {
			return f
		}
		f.stop()
	}
	t.Fatalf("%s does not listen; it said:\n%s", program, f.log)
	return nil
}

// listens waits until the program takes connections or says that it cannot.
func (f *front) listens() bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		if conn, err := net.DialTimeout("tcp", f.addr, time.Second); err == nil {
			_ = conn.Close()
			return true
		}
		if said := f.log.String(); strings.Contains(said, "emerg") || strings.Contains(said, "Error:") || strings.Contains(said, "already in use") {
			return false
		}
	}
	return false
}

func (f *front) stop() {
	if f.cmd == nil {
		return
	}
	_ = f.cmd.Process.Kill() // it may be gone already
	_ = f.cmd.Wait()
	f.cmd = nil
}

// startNginx runs nginx with an example as the only server. listen is what stands there
// as its address. Further pairs are replaced as well.
func (s *site) startNginx(name, listen string, pairs ...string) *front {
	s.t.Helper()
	return startFront(s.t, "nginx", func(dir, addr string) []string {
		for file, text := range map[string]string{
			"example.conf": example(s.t, "nginx/"+name, append([]string{listen, strings.Replace(listen, listen[strings.LastIndexByte(listen, ' ')+1:], addr, 1)}, pairs...)...),
			"nginx.conf": `
daemon off;
master_process off;
pid nginx.pid;
events {}
http {
	log_format test '$remote_addr $request_method $uri $status connection $connection';
	access_log access.log test;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	include example.conf;
}
`,
		} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				s.t.Fatal(err)
			}
		}
		return []string{"-p", dir, "-c", "nginx.conf", "-e", "stderr"}
	})
}

// insecure is a client that takes any certificate, as each test makes its own.
func (s *site) insecure() {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 16}
	s.t.Cleanup(transport.CloseIdleConnections)
	s.client = &http.Client{Transport: transport, Timeout: patience}
}

// host is the address of a URL.
func host(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	return rest
}

// long is a header as a token with many groups makes it.
func long(kilobytes int) http.Header {
	return http.Header{"X-Long": {strings.Repeat("x", kilobytes<<10)}}
}

func TestLuigiBehindCrossfadeBehindNginx(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.certify(1)
	s.configure("listen", "{ address: 127.0.0.1:0, trusted_proxies: [127.0.0.1] }", "authorization", "enforce",
		"access_log", "{ file: access.log, format: json }",
		"legacy", "{ htpasswd: users.htpasswd, throttle: { failures: 3, every: 10m } }")
	g := s.start().loaded()
	f := s.startNginx("front.conf", "listen 443", "127.0.0.1:8082", g.Addr(),
		"/etc/nginx/tls/gateway.crt", filepath.Join(s.dir, "tls.crt"), "/etc/nginx/tls/gateway.key", filepath.Join(s.dir, "tls.key"))
	s.insecure()
	base := "https://" + f.addr

	for name, q := range map[string]request{"a page": etl(pages()), "a worker": etl(addTask("w", "LoadUsers")), "a token": {method: "GET", path: "/api/task_list", bearer: s.token("svc-etl", audience)}} {
		if got := s.send(base, q); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
			t.Errorf("%s: %v", name, got)
		}
		seen := s.upstream.last()
		if seen.Header.Get("X-Forwarded-User") != "svc-etl" || seen.Header.Get("X-Forwarded-Proto") != "https" || seen.Host != f.addr || seen.Header.Get("Authorization") != "" {
			t.Errorf("%s: the scheduler sees %s %v", name, seen.Host, seen.Header)
		}
	}

	// Browsers: a page of this address may act, one of another site may not.
	for origin, want := range map[string]int{base: 200, "https://evil.example": 403, "http://" + f.addr: 403} {
		q := etl(ping("w"))
		q.header = http.Header{"Origin": {origin}}
		if got := s.send(base, q); got.status != want {
			t.Errorf("from %s: %v", origin, got)
		}
	}

	// A client cannot say where it comes from, nor who it is.
	q := etl(pages())
	q.header = http.Header{
		"X-Forwarded-For": {"6.6.6.6"}, "X-Real-Ip": {"6.6.6.6"}, "True-Client-Ip": {"6.6.6.6"}, "X-Client-Ip": {"6.6.6.6"}, "Forwarded": {"for=6.6.6.6"},
		"X-Forwarded-Host": {"evil.example"}, "X-Forwarded-Proto": {"ftp"}, "X-Forwarded-User": {"root"}, "Remote-User": {"root"},
	}
	if got := s.send(base, q); got.status != 200 {
		t.Error(got)
	}
	for name, values := range s.upstream.last().Header {
		if text := strings.Join(values, ","); strings.Contains(text, "6.6.6.6") || strings.Contains(text, "evil") || text == "root" || text == "ftp" {
			t.Errorf("the scheduler sees %s: %s", name, text)
		}
	}

	// The challenge names the address that the client used.
	if got := s.send(base, pages()); got.status != 401 || !strings.Contains(got.header.Get("WWW-Authenticate"), `resource_metadata="`+base+`/.well-known`) {
		t.Errorf("%v %v", got, got.header)
	}
	if got := s.send(base, request{method: http.MethodGet, path: "/.well-known/oauth-protected-resource"}); !strings.Contains(got.body, `"resource":"`+base+`"`) {
		t.Error(got)
	}

	// Long tokens pass, and what is longer than any does not reach the gateway.
	q = etl(pages())
	if q.header = long(100); s.send(base, q).status != 200 || len(s.upstream.last().Header.Get("X-Long")) != 100<<10 {
		t.Error("a header of 100 KB does not pass")
	}
	before := s.upstream.count()
	if q.header = long(200); s.send(base, q).status != 400 || s.upstream.count() != before {
		t.Error("a header of 200 KB passes")
	}
	// A body is judged by the gateway and not by nginx.
	large := etl(request{method: http.MethodPost, path: "/api/add_task", body: "data=" + strings.Repeat("x", 5<<20)})
	large.header = http.Header{"Crossfade-Abort": {"off"}}
	if got := s.send(base, large); got.status != 413 || got.header.Get("Crossfade-Reason") != "body_oversize" {
		t.Error(got)
	}

	// Guesses through nginx count by the real address, which is this machine's here,
	// and hold up nobody who was verified.
	for i := range 4 {
		q := pages()
		q.user, q.password = "svc-search", fmt.Sprint("guess ", i)
		if got, want := s.send(base, q).status, map[bool]int{false: 401, true: 429}[i == 3]; got != want {
			t.Errorf("guess %d: %d", i, got)
		}
	}
	g.end()
	if got := s.send(base, etl(pages())); got.status != 502 {
		t.Errorf("without the gateway: %v", got)
	}
	if log := readFile(t, filepath.Join(s.dir, "access.log")); strings.Contains(log, "6.6.6.6") || !strings.Contains(log, `"client":"127.0.0.1"`) {
		t.Errorf("the access log:\n%s", log)
	}
}

func TestNginxInFrontHandsRepliesOnAsTheyAreWrittenAndKeepsItsConnections(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.certify(1)
	read := make(chan struct{}) // that the client has the first part
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first ")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-read:
		case <-time.After(patience): // what waits for the end waits for this
		}
		_, _ = io.WriteString(w, "last")
	}))
	t.Cleanup(up.Close)
	s.configure("listen", "{ address: 127.0.0.1:0, trusted_proxies: [127.0.0.1] }", "upstream", "{ url: "+up.URL+", profile: luigi }")
	g := s.start().loaded()

	// Something stands between, and counts the connections that nginx makes.
	var dialled atomic.Int32
	between := httptest.NewUnstartedServer(&httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: g.Addr()})
	}})
	between.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			dialled.Add(1)
		}
	}
	between.Start()
	t.Cleanup(between.Close)
	f := s.startNginx("front.conf", "listen 443", "127.0.0.1:8082", host(between.URL),
		"/etc/nginx/tls/gateway.crt", filepath.Join(s.dir, "tls.crt"), "/etc/nginx/tls/gateway.key", filepath.Join(s.dir, "tls.key"))
	s.insecure()
	for range 5 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+f.addr+"/static/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("svc-etl", "legacy-pass")
		start := time.Now()
		resp, err := s.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, len("first "))
		if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "first " || time.Since(start) >= patience {
			t.Fatalf("%q, %v after %s", first, err, time.Since(start))
		}
		read <- struct{}{}
		if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "last" {
			t.Errorf("%q, %v", rest, err)
		}
		_ = resp.Body.Close()
	}
	if n := dialled.Load(); n != 1 {
		t.Errorf("nginx made %d connections for five requests, one after the other", n)
	}
}

func TestTheAddressThatNginxSawIsTheClients(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configure("listen", "{ address: 127.0.0.1:0, trusted_proxies: [127.0.0.1] }", "access_log", "{ file: access.log, format: json }")
	g := s.start().loaded()
	s.certify(1)
	f := s.startNginx("front.conf", "listen 443", "127.0.0.1:8082", g.Addr(),
		"/etc/nginx/tls/gateway.crt", filepath.Join(s.dir, "tls.crt"), "/etc/nginx/tls/gateway.key", filepath.Join(s.dir, "tls.key"))
	// Another address of this machine is another client, where there is one (Linux).
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	s.client = &http.Client{Transport: transport, Timeout: patience}
	q := etl(pages())
	q.header = http.Header{"X-Forwarded-For": {"6.6.6.6"}}
	switch got := s.send("https://"+f.addr, q); {
	case got.err != nil && runtime.GOOS == "linux": // where all of 127.0.0.0/8 is this machine's
		t.Fatal(got.err)
	case got.err != nil:
		t.Skipf("this machine has no second loopback address: %v", got.err)
	}
	if got := s.upstream.last().Header.Get("X-Forwarded-For"); got != "127.0.0.9, 127.0.0.1" {
		t.Errorf("X-Forwarded-For %q", got)
	}
	g.end()
	if log := readFile(t, filepath.Join(s.dir, "access.log")); !strings.Contains(log, `"client":"127.0.0.9"`) {
		t.Errorf("the access log:\n%s", log)
	}
}

func TestLuigiBehindNginxBehindCrossfade(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var large atomic.Int32
	luigid := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength < 1<<20 {
			s.upstream.Config.Handler.ServeHTTP(w, r)
			return
		}
		if n, err := io.Copy(io.Discard, r.Body); err == nil && n == r.ContentLength {
			large.Add(1) // the stand-in would take its time
		}
		_, _ = io.WriteString(w, `{"response": null}`)
	}))
	t.Cleanup(luigid.Close)
	f := s.startNginx("behind.conf", "listen 127.0.0.1:8083", "127.0.0.1:8084", host(luigid.URL))
	s.configure("upstream", fmt.Sprintf("{ url: http://%s, profile: luigi }", f.addr), "listen", "{ address: 127.0.0.1:0, trusted_proxies: [127.0.0.1] }")
	g := s.start().loaded()
	from := func(q request) request {
		q.header = http.Header{"X-Forwarded-For": {"192.0.2.7"}}
		return q
	}
	for name, q := range map[string]request{
		"a page": etl(pages()), "a worker": etl(addTask("w", "LoadUsers")),
		"a token": {method: "GET", path: "/api/task_list", bearer: s.token("svc-etl", audience)},
	} {
		if got := g.send(from(q)); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
			t.Errorf("%s: %v", name, got)
		}
		if seen := s.upstream.last(); seen.Header.Get("X-Forwarded-User") != "svc-etl" || seen.Host != g.Addr() || seen.Header.Get("Authorization") != "" {
			t.Errorf("%s: the scheduler sees %s %v", name, seen.Host, seen.Header)
		}
	}
	// nginx leaves the bound on bodies to the gateway.
	if got := g.send(from(etl(rpc("add_task", map[string]any{
		"worker": "w", "task_id": "LoadUsers_2", "family": "LoadUsers", "params": map[string]any{"day": strings.Repeat("x", 2<<20)}, "status": "PENDING",
	})))); got.status != 200 || large.Load() != 1 {
		t.Errorf("a task with large parameters: %v", got)
	}
	// What was judged is what arrives, in its own spelling.
	q := from(etl(request{method: http.MethodGet, path: "/static/%2e%2e/a%2Fb//c?x=%zz"}))
	g.send(q)
	if seen := s.upstream.last().RequestURI; seen != q.path {
		t.Errorf("%s arrives as %s", q.path, seen)
	}
	// Connections are kept, and no request is lost.
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for range 25 {
				if got := g.send(etl(ping("w"))); got.status != 200 {
					t.Error(got)
				}
			}
		})
	}
	load.Wait()
	// What the client is called is no right to enter.
	log := readFile(t, filepath.Join(f.dir, "access.log"))
	if !strings.Contains(log, "192.0.2.7 POST /api/add_task 200") || strings.Contains(log, " 413 ") {
		t.Errorf("nginx saw:\n%s", log)
	}
	connections := map[string]int{}
	for line := range strings.Lines(log) {
		connections[line[strings.LastIndexByte(line, ' '):]]++
	}
	if len(connections) > 20 { // the gateway may dial one for each that waits
		t.Errorf("%d connections for a hundred requests, four at a time", len(connections))
	}
	f.stop()
	if got := g.send(etl(pages())); got.status != 502 || !strings.Contains(got.body, "could not reach the upstream") {
		t.Errorf("without nginx: %v", got)
	}
}

// service is what stands behind a proxy that asks: it notes what comes and answers by
// naming whom it takes for the client.
type service struct {
	addr string
	mu   sync.Mutex
	seen []*http.Request
}

func newService(t *testing.T) *service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &service{addr: l.Addr().String()}
	server := &http.Server{Handler: v, ReadHeaderTimeout: patience}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return v
}

func (v *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	v.mu.Lock()
	v.seen = append(v.seen, r.Clone(r.Context()))
	v.mu.Unlock()
	_, _ = fmt.Fprintf(w, "%s %s by %q with %d bytes", r.Method, r.RequestURI, r.Header.Get("X-Forwarded-User"), len(body))
}

// last returns the request that came last, and how many came.
func (v *service) last() (*http.Request, int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.seen) == 0 {
		return nil, 0
	}
	return v.seen[len(v.seen)-1], len(v.seen)
}
