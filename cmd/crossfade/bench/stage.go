package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/identity"
	"crossfade/legacy"
)

const (
	benchUser     = "svc-etl"
	loaderUser    = "svc-loader"
	benchPassword = "bench-pass"
	benchSecret   = "bench-secret"
	benchAudience = "api://luigi"
)

// ping is the call that Luigi's workers make most, with a body of the size of
// the recorded ones.
const ping = `data=%7B%22worker%22%3A+%22Worker%28salt%3D8494933214%2C+workers%3D2%2C+host%3D127.0.0.1%2C+username%3Detl%2C+pid%3D26191%29%22%7D`

// addTask is a call of 1 KB that is judged by the registered family of its task,
// by a principal who may execute some families only.
func addTask() string {
	arguments := `{"worker": "Worker(salt=1, pid=2)", "task_id": "ExtractUsers_2024_05_01_crm_ae529ab280", "family": "ExtractUsers", ` +
		`"module": "users_pipeline", "status": "PENDING", "runnable": true, "deps": [], "priority": 0, "resources": {}, ` +
		`"params": {"day": "2024-05-01", "source": "%s"}}`
	encoded := "data=" + url.QueryEscape(strings.Replace(arguments, "%s", "", 1))
	return strings.Replace(encoded, "source%22%3A+%22", "source%22%3A+%22"+strings.Repeat("x", max(0, 1024-len(encoded))), 1)
}

// stage is everything that runs during a measurement.
type stage struct {
	dir     string
	issuer  *demo.Issuer
	sink    *http.Server
	started []*exec.Cmd
	targets []*target
	// collectorURL takes spans.
	collectorURL string
}

// newStage builds Crossfade and starts the targets. On an error everything is
// closed.
func newStage(ctx context.Context) (_ *stage, err error) {
	s := &stage{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "crossfade-bench"); err != nil {
		return nil, err
	}
	binary := filepath.Join(s.dir, "crossfade")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/crossfade")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("building Crossfade (run this from the repository): %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	upstream, err := s.start(ctx, nil, self, "-role", "upstream")
	if err != nil {
		return nil, err
	}
	bare, err := s.start(ctx, nil, self, "-role", "bare", "-upstream", "http://"+upstream.addr)
	if err != nil {
		return nil, err
	}
	if err := s.surroundings(); err != nil {
		return nil, err
	}
	gateway, err := s.crossfade(ctx, binary, "http://"+upstream.addr, "")
	if err != nil {
		return nil, err
	}
	token, err := s.issuer.Token(ctx, benchUser, benchAudience)
	if err != nil {
		return nil, err
	}
	loader, err := s.issuer.Token(ctx, loaderUser, benchAudience)
	if err != nil {
		return nil, err
	}
	agent, err := s.agent(ctx, binary, "http://"+gateway.addr)
	if err != nil {
		return nil, err
	}
	hop, err := s.start(ctx, nil, self, "-role", "bare", "-upstream", "http://"+gateway.addr)
	if err != nil {
		return nil, err
	}
	basic := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(benchUser+":"+benchPassword)) + "\r\n"
	bearer := "Authorization: Bearer " + token + "\r\n"
	s.targets = []*target{
		{name: "(a) the upstream alone", addr: upstream.addr, pid: upstream.pid, request: request("ping", ping, bearer)},
		{name: "(b) a bare httputil.ReverseProxy", addr: bare.addr, pid: bare.pid, request: request("ping", ping, bearer)},
		{name: "(c) Crossfade, RS256 token", addr: gateway.addr, pid: gateway.pid, request: request("ping", ping, bearer)},
		{name: "(d) Crossfade, bcrypt password and companion, shadow on", addr: gateway.addr, pid: gateway.pid, request: request("ping", ping, basic+"Crossfade-Token: "+token+"\r\n")},
		{name: "(e) Crossfade, RS256 token, a call of 1 KB about a task", addr: gateway.addr, pid: gateway.pid, request: request("add_task", addTask(), "Authorization: Bearer "+loader+"\r\n")},
		{name: "(f) one connection: Crossfade, RS256 token", addr: gateway.addr, pid: gateway.pid, conns: 1, request: request("ping", ping, bearer)},
		{name: "(g) one connection: the agent, then Crossfade", addr: agent.addr, pid: agent.pid, conns: 1, request: request("ping", ping, basic)},
		{name: "(h) one connection: a bare proxy, then Crossfade", addr: hop.addr, pid: hop.pid, conns: 1, request: request("ping", ping, bearer)},
	}
	if err := s.redisTargets(ctx, binary, "http://"+upstream.addr, request("ping", ping, basic+"Crossfade-Token: "+token+"\r\n")); err != nil {
		return nil, err
	}
	return s, nil
}

func request(procedure, body, credentials string) []byte {
	return fmt.Appendf(nil, "POST /api/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: python-requests/2.28.1\r\n"+
		"Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nContent-Type: application/x-www-form-urlencoded\r\n%sContent-Length: %d\r\n\r\n%s",
		procedure, credentials, len(body), body)
}

// surroundings start what the gateways talk to.
func (s *stage) surroundings() error {
	var err error
	s.issuer, err = demo.NewIssuer(demo.IssuerOptions{
		Clients:  map[string]identity.Secret{benchUser: identity.NewSecret(benchSecret), loaderUser: identity.NewSecret("loader-secret")},
		Lifetime: time.Hour,
	})
	if err != nil {
		return err
	}
	s.collectorURL, err = s.collector()
	return err
}

// crossfade starts a gateway in mode enforce with everything on; redis is the URL
// of its Redis, "" for the one in the process.
func (s *stage) crossfade(ctx context.Context, binary, upstream, redis string) (running, error) {
	dir, err := os.MkdirTemp(s.dir, "gateway")
	if err != nil {
		return running{}, err
	}
	hash, err := legacy.Hash(identity.NewSecret(benchPassword), legacy.Bcrypt, 10)
	if err != nil {
		return running{}, err
	}
	files := map[string]string{
		"users.htpasswd": benchUser + ":" + hash + "\n",
		"principals.yaml": fmt.Sprintf("%[1]s: { team: data-eng, oidc: { subject: %[1]s }, roles: [runner] }\n"+
			"%[2]s: { team: data-eng, oidc: { subject: %[2]s }, roles: [loader] }\n", benchUser, loaderUser),
		"roles.yaml": "roles: { runner: { execute: [\"*\"], view: [\"*\"] }, loader: { execute: [\"Extract*\"] } }\n",
		"crossfade.yaml": fmt.Sprintf(`mode: enforce
listen: 127.0.0.1:0
metrics: 127.0.0.1:0
upstream: { url: %s, profile: luigi }
legacy: { htpasswd: users.htpasswd }
oidc: { issuer: %s, audience: %s }
principals: principals.yaml
roles: roles.yaml
access_log: access.log
`, upstream, s.issuer.URL(), benchAudience),
	}
	if redis != "" {
		files["crossfade.yaml"] += "redis: " + redis + "\n"
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return running{}, err
		}
	}
	env := []string{
		"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + s.collectorURL,
		"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.01",
	}
	return s.start(ctx, env, binary, "serve", "--config", filepath.Join(dir, "crossfade.yaml"))
}

// agent starts what stands beside a worker. It sends the gateway a token in the
// place of the worker's password: what a client without an agent sends itself.
func (s *stage) agent(ctx context.Context, binary, gateway string) (running, error) {
	secret := filepath.Join(s.dir, "secret")
	if err := os.WriteFile(secret, []byte(benchSecret), 0o600); err != nil {
		return running{}, err
	}
	return s.start(ctx, nil, binary, "agent", "--gateway", gateway, "--listen", "127.0.0.1:0", "--mode", "token",
		"--issuer", s.issuer.URL(), "--client-id", benchUser, "--client-secret-file", secret, "--audience", benchAudience)
}

// collector takes spans and drops them.
func (s *stage) collector() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s.sink = &http.Server{
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
		}),
		ReadHeaderTimeout: time.Second,
	}
	go func() { _ = s.sink.Serve(l) }()
	return "http://" + l.Addr().String(), nil
}

// running is a target's process and where it listens.
type running struct {
	addr string
	pid  int
}

// start runs a target as a process and waits for the address that it prints.
func (s *stage) start(ctx context.Context, env []string, name string, args ...string) (running, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append(os.Environ(), env...)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 5 * time.Second
	out, err := c.StderrPipe()
	if err != nil {
		return running{}, err
	}
	if err := c.Start(); err != nil {
		return running{}, err
	}
	s.started = append(s.started, c)
	var seen bytes.Buffer
	lines := bufio.NewScanner(io.TeeReader(out, &seen))
	for lines.Scan() {
		_, rest, ok := strings.Cut(lines.Text(), `"listen":"`)
		if !ok {
			continue
		}
		addr, _, _ := strings.Cut(rest, `"`)
		go func() { _, _ = io.Copy(io.Discard, out) }()
		return running{addr, c.Process.Pid}, nil
	}
	return running{}, errors.New(name + " did not start: " + seen.String())
}

// serve is a target that says where it listens, as Crossfade does.
func serve(h http.Handler) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(os.Stderr, "{\"listen\":%q}\n", l.Addr().String())
	return (&http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}).Serve(l)
}

// close ends what was started, in reverse order.
func (s *stage) close() {
	for i := len(s.started) - 1; i >= 0; i-- {
		c := s.started[i]
		_ = c.Process.Signal(os.Interrupt)
		_ = c.Wait()
	}
	if s.sink != nil {
		_ = s.sink.Close()
	}
	if s.issuer != nil {
		_ = s.issuer.Close()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}
