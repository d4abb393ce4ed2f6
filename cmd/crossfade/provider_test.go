package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"

	"crossfade/cmd/crossfade/demo"
	"crossfade/cmd/crossfade/providertest"
	"crossfade/gateway/luigi/captures"
)

// between is what surrounds real gateways that trust an independent identity
// provider and the built-in one, with the stand-in scheduler behind them.
type between struct {
	independent *providertest.Provider
	builtIn     *demo.Issuer
	config      string // of the gateways
	// behind is who the scheduler was told that somebody is, by the last request.
	behind func() http.Header
}

func newBetween(t *testing.T, lifetime time.Duration) *between {
	t.Helper()
	b := &between{independent: providertest.Start(t, providertest.Options{Lifetime: lifetime}), builtIn: issuer(t, lifetime)}
	calls, err := demo.NewScheduler()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var last http.Header
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		last = r.Header.Clone()
		mu.Unlock()
		calls.ServeHTTP(w, r)
	}))
	t.Cleanup(upstream.Close)
	b.behind = func() http.Header {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
	// The skew stays at its default: a token that a slow machine is late with on
	// its way is not what is tested here, and the witness looks at its age.
	b.config = whole(t, b.builtIn.URL(), upstream.URL, map[string]string{
		"oidc": fmt.Sprintf("{ issuers: [ { issuer: %s, audiences: [luigi], ca_file: %s }, { issuer: %s, audiences: [luigi] } ] }",
			b.independent.URL(), b.independent.CAFile(), b.builtIn.URL()),
	})
	for name, text := range map[string]string{
		"principals.yaml": fmt.Sprintf("svc-etl: { team: data-eng, oidc: { issuer: %s, subject: svc-etl }, roles: [runner] }\n"+
			"etl-nightly: { team: data-eng, oidc: { issuer: %s, subject: %s } }\n", // its roles come from its groups
			b.builtIn.URL(), b.independent.URL(), providertest.ClientBasic),
		"roles.yaml": fmt.Sprintf("roles: { runner: { execute: [\"*\"], view: [\"*\"] }, guest: { view: [\"*\"] } }\n"+
			"claims: { groups: { %s: runner, %s: guest } }\nteams: { groups: { everybody: data-eng } }\n",
			providertest.GroupRunners, providertest.GroupGuests),
	} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(b.config), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// flags are those of an agent that is one of the independent provider's clients.
func (b *between) flags(client, resource string) []string {
	p := b.independent.Params(client)
	flags := []string{"--issuer", p.Issuer, "--ca-file", p.CAFile, "--client-id", p.ClientID, "--resource", resource}
	for name, value := range map[string]string{
		"client-auth": p.ClientAuth, "client-secret-file": p.SecretFile, "client-key-file": p.KeyFile,
		"subject-token-file": p.SubjectTokenFile, "client-cert-file": p.CertFile, "client-cert-key-file": p.CertKeyFile,
	} {
		if value != "" {
			flags = append(flags, "--"+name, value)
		}
	}
	return flags
}

// builtInFlags are those of one that is the built-in provider's client.
func (b *between) builtInFlags(t *testing.T) []string { return clientFlags(t, b.builtIn) }

// witness stands between agents and the gateway: it sees what they send, and what
// the gateway answers.
type witness struct {
	*httptest.Server

	mu      sync.Mutex
	tokens  []seenToken // each once, in order of appearance
	known   map[string]bool
	calls   int
	refused []string
	stale   []string // tokens that had ended when their request was made
}

// seenToken is what a token says of itself.
type seenToken struct {
	id, key, algorithm, typ string
	subject                 string
	groups                  []string
	scope                   string
	issued, expiry          time.Time
}

// madeAt is where a client of a test says when it made a request, in Unix
// nanoseconds: a token is taken for it later, so it must be good still.
const madeAt = "X-Made-At"

// witness starts a gateway, and a witness before it.
func (b *between) witness(t *testing.T) *witness {
	t.Helper()
	to := &url.URL{Scheme: "http", Host: start(t, "serve", "--config", b.config).address}
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	w := &witness{known: make(map[string]bool)}
	w.Server = httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
			w.saw(r.In)
		},
		ModifyResponse: func(resp *http.Response) error {
			if reason := resp.Header.Get("Crossfade-Reason"); reason != "" {
				w.mu.Lock()
				w.refused = append(w.refused, fmt.Sprintf("%s %s: %d %s", resp.Request.Method, resp.Request.URL.Path, resp.StatusCode, reason))
				w.mu.Unlock()
			}
			return nil
		},
	})
	t.Cleanup(transport.CloseIdleConnections)
	t.Cleanup(w.Close)
	return w
}

func (w *witness) saw(r *http.Request) {
	raw := r.Header.Get("Crossfade-Token")
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		raw = bearer
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	t, err := tokenSeen(raw)
	if err != nil {
		w.stale = append(w.stale, fmt.Sprintf("%s %s without a token: %v", r.Method, r.URL.Path, err))
		return
	}
	if !w.known[t.id] {
		w.known[t.id] = true
		w.tokens = append(w.tokens, t)
	}
	if at, err := strconv.ParseInt(r.Header.Get(madeAt), 10, 64); err == nil && !time.Unix(0, at).Before(t.expiry) {
		w.stale = append(w.stale, fmt.Sprintf("%s %s: a token that ended at %s", r.Method, r.URL.Path, t.expiry))
	}
}

// tokenSeen reads a token without verifying it, which is the gateway's part.
func tokenSeen(raw string) (seenToken, error) {
	parsed, err := josejwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256, jose.ES256})
	if err != nil {
		return seenToken{}, err
	}
	var standard josejwt.Claims
	var own struct {
		Groups []string `json:"groups"`
		Scope  string   `json:"scope"`
	}
	if err := parsed.UnsafeClaimsWithoutVerification(&standard, &own); err != nil {
		return seenToken{}, err
	}
	typ, _ := parsed.Headers[0].ExtraHeaders[jose.HeaderType].(string)
	return seenToken{
		id: standard.ID, key: parsed.Headers[0].KeyID, algorithm: parsed.Headers[0].Algorithm, typ: typ,
		subject: standard.Subject, groups: own.Groups, scope: own.Scope,
		issued: standard.IssuedAt.Time(), expiry: standard.Expiry.Time(),
	}, nil
}

// latest is the token that came up last, and how many there were.
func (w *witness) latest() (t seenToken, count int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.tokens) == 0 {
		return seenToken{}, 0
	}
	return w.tokens[len(w.tokens)-1], len(w.tokens)
}

// span is how long after the first token the latest one was issued.
func (w *witness) span() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.tokens) == 0 {
		return 0
	}
	return w.tokens[len(w.tokens)-1].issued.Sub(w.tokens[0].issued)
}

// allWell fails the test if the gateway refused anything, or an agent sent
// what was good no longer.
func (w *witness) allWell(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls == 0 || len(w.refused) > 0 || len(w.stale) > 0 {
		t.Errorf("of %d requests were refused: %v; sent with a token that was none: %v", w.calls, w.refused, w.stale)
	}
}

// standing is a `crossfade agent` that runs, and a worker's client of it.
type standing struct {
	*process
	client *http.Client
	base   string
}

// agentOf starts one on a free port, until the test ends.
func agentOf(t *testing.T, w *witness, flags []string) *standing {
	t.Helper()
	p := &process{Cmd: command(t, append([]string{"agent", "--listen", "127.0.0.1:0", "--gateway", w.URL}, flags...)...), log: &lockedBuffer{}, exited: make(chan error, 1)}
	p.Stderr = p.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.exited <- p.Wait() }()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("the agent said:\n%s", p.log)
		}
	})
	eventually(t, "the agent says that it listens", func() bool {
		p.address = p.said("crossfade agent listens")["listen"]
		return p.address != ""
	})
	return &standing{p, newClient(t), "http://" + p.address}
}

// said returns the texts of the last line of a log with a message, nil if there
// is none.
func (p *process) said(message string) (attributes map[string]string) {
	for line := range strings.Lines(p.log.String()) {
		var all map[string]any
		if json.Unmarshal([]byte(line), &all) != nil || all["msg"] != message {
			continue
		}
		attributes = make(map[string]string)
		for name, value := range all {
			attributes[name] = fmt.Sprint(value)
		}
	}
	return attributes
}

// talk is what an agent has written that is no line of its log.
func (p *process) talk() string {
	var b strings.Builder
	for line := range strings.Lines(p.log.String()) {
		if !strings.HasPrefix(line, "{") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// call makes one of Luigi's calls and returns what a worker makes of the
// answer: "" where it goes on, else the text at which it stops.
func (s *standing) call(t *testing.T) (failure string) {
	t.Helper()
	data := fmt.Sprintf(`{"worker": "of %s", "task_id": "Load_1", "family": "Load", "params": {}, "status": "PENDING"}`, s.address)
	failure, err := luigiCall(s.client, s.base+"/api/add_task", url.Values{"data": {data}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	return failure
}

// luigiCall posts as an unmodified worker does, but tells the witness when.
func luigiCall(client *http.Client, address, body string) (failure string, err error) {
	r, err := http.NewRequest(http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set(madeAt, strconv.FormatInt(time.Now().UnixNano(), 10))
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var said map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&said); err != nil {
		return fmt.Sprintf("%s: %v", resp.Status, err), nil
	}
	if _, ok := said["response"]; !ok || resp.StatusCode != http.StatusOK {
		return fmt.Sprintf("%s: %v", resp.Status, said), nil
	}
	return "", nil
}

// pace is how long a replaying worker waits between two calls: a real one waits
// longer, and a test is there for the tokens, not for the load.
const pace = 30 * time.Millisecond

// configuredScheduler is where Luigi's configuration has its scheduler.
func configuredScheduler() (base string, ok bool) {
	text, err := os.ReadFile(os.Getenv("LUIGI_CONFIG_PATH"))
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(text)) {
		name, value, found := strings.Cut(line, "=")
		if found && strings.ReplaceAll(strings.TrimSpace(name), "-", "_") == "default_scheduler_url" {
			return strings.TrimSuffix(strings.TrimSpace(value), "/"), true
		}
	}
	return "", false
}

// replay sends the recorded pipeline to the scheduler that Luigi's configuration
// names, over and over, until stdin ends. It returns 4 as soon as an unmodified
// Luigi would give up.
func replay(stdin io.Reader) (code int) {
	base, ok := configuredScheduler()
	exchanges, err := captures.Load(captures.Success)
	if err != nil || !ok {
		return 98
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		close(ended)
	}()
	next := time.NewTicker(pace)
	defer next.Stop()
	for {
		for _, e := range exchanges {
			if e.Method != http.MethodPost || e.Injected() {
				continue
			}
			select {
			case <-ended:
				return 0
			case <-next.C:
			}
			failure, err := luigiCall(http.DefaultClient, base+e.Path, e.RequestBody)
			if err != nil || failure != "" {
				fmt.Println(e.Path, failure, err)
				return 4
			}
		}
	}
}

// replaying is `crossfade agent exec` around a worker that replays, and whose
// luigi.cfg has the gateway as its scheduler: nobody else names it.
type replaying struct {
	*exec.Cmd
	stdin          io.Closer
	stdout, stderr *lockedBuffer
	exited         chan struct{}
}

func replayBehind(t *testing.T, w *witness, flags []string) *replaying {
	t.Helper()
	r := &replaying{Cmd: command(t, wrapped(t, flags, "replay")...), stdout: &lockedBuffer{}, stderr: &lockedBuffer{}, exited: make(chan struct{})}
	r.Dir = files(t, map[string]string{"luigi.cfg": "[core]\ndefault-scheduler-url = " + w.URL + "/\n"})
	r.Stdout, r.Stderr = r.stdout, r.stderr
	stdin, err := r.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.stdin = stdin
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.exited)
		_ = r.Wait() // the exit code says it
	}()
	t.Cleanup(func() {
		got := r.end()
		if t.Failed() {
			t.Logf("a worker behind an agent: %v", got)
		}
	})
	return r
}

// over reports whether the worker has ended by itself.
func (r *replaying) over() bool {
	select {
	case <-r.exited:
		return true
	default:
		return false
	}
}

// end lets the worker end, and returns what was left behind.
func (r *replaying) end() ran {
	_ = r.stdin.Close()
	<-r.exited
	return ran{r.ProcessState.ExitCode(), r.stdout.String(), r.stderr.String()}
}
