// Package providertest starts an identity provider that shares no code with this
// module: oidc-provider (https://github.com/panva/node-oidc-provider) on Node.js.
// What the agent and the gateway agree on with each other is then also what a
// stranger understands by the same standards.
//
// `make needs` installs it. Without it tests fail: what passes without a provider
// proves nothing.
package providertest

import (
	"bufio"
	"bytes"
	_ "embed" // the provider's script
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Audience is for whom the provider's tokens are.
const Audience = "luigi"

// The resources of RFC 8707 that tokens may be asked for: the same audience,
// signed in two ways.
const (
	ResourceRS256 = "https://luigi.example/"
	ResourceES256 = "https://luigi.example/ec"
)

// Scope is one that the provider knows and a client may ask for.
const Scope = "tasks"

// Groups are what the provider says of clients and people in the claim groups.
const (
	GroupRunners = "luigi-runners"
	GroupGuests  = "luigi-guests"
)

// DefaultLifetime is that of access tokens where Options name none.
const DefaultLifetime = 5 * time.Minute

// patience bounds every answer of the provider.
const patience = 30 * time.Second

//go:embed testdata/server.mjs
var script []byte

//go:embed testdata/package-lock.json
var lock []byte

// Options configure a Provider.
type Options struct {
	// Lifetime of access tokens, in whole seconds; DefaultLifetime when 0.
	Lifetime time.Duration
}

// Provider is a running oidc-provider behind TLS on a loopback port, with keys
// for RS256 and ES256 and the clients of this package. It runs until the test ends.
// Rotate, Kill and Return are for one goroutine, the other methods for all.
type Provider struct {
	config   configuration
	files    files
	script   string
	modules  string
	serving  *process
	standby  *process // loaded while the provider is away, so that it can be back at once
	previous []jose.JSONWebKey
}

// configuration is the first line that the script reads.
type configuration struct {
	Issuer    string              `json:"issuer"`
	Port      int                 `json:"port"`
	Lifetime  int                 `json:"lifetime"`
	CookieKey string              `json:"cookieKey"`
	Scopes    []string            `json:"scopes"`
	Keys      []jose.JSONWebKey   `json:"keys"`
	Clients   []map[string]any    `json:"clients"`
	Groups    map[string][]string `json:"groups"`
	Resources map[string]resource `json:"resources"`
	TLS       map[string]string   `json:"tls"`
	Cluster   cluster             `json:"cluster"`
}

// cluster is whose workloads may exchange their tokens.
type cluster struct {
	Issuer string            `json:"issuer"`
	Keys   []jose.JSONWebKey `json:"keys"`
}

type resource struct {
	Audience  string `json:"audience"`
	Algorithm string `json:"algorithm"`
}

// Start starts a provider, and stops it at the end of the test.
func Start(t testing.TB, o Options) *Provider {
	t.Helper()
	node, modules, err := installed()
	if err != nil {
		t.Fatalf("this test needs an identity provider that is not installed: run `make needs` (%v)", err)
	}
	if o.Lifetime == 0 {
		o.Lifetime = DefaultLifetime
	}
	p := &Provider{modules: modules, files: newFiles(t), script: filepath.Join(t.TempDir(), "server.mjs")}
	if err := os.WriteFile(p.script, script, 0o600); err != nil {
		t.Fatal(err)
	}
	clients, groups := p.files.register()
	p.config = configuration{
		Lifetime: int(o.Lifetime / time.Second), CookieKey: "not a secret of anybody",
		Scopes: []string{Scope}, Keys: newKeys(t), Clients: clients, Groups: groups,
		Resources: map[string]resource{ResourceRS256: {Audience, "RS256"}, ResourceES256: {Audience, "ES256"}},
		TLS:       map[string]string{"key": p.files.serverKey, "cert": p.files.serverCert, "ca": p.files.authority},
		Cluster:   cluster{clusterIssuer, []jose.JSONWebKey{{Key: p.files.clusterKey.Public(), Algorithm: "ES256"}}},
	}
	t.Cleanup(func() {
		for _, running := range []*process{p.serving, p.standby} {
			running.kill()
			if running != nil && t.Failed() {
				t.Logf("the identity provider said:\n%s", running.log)
			}
		}
	})
	for range 5 {
		p.config.Port = 20000 + rand.N(10000) // systems do not give these out by themselves, so it can be left and taken again
		p.config.Issuer = "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(p.config.Port))
		p.files.project(t, p.config.Issuer)
		if p.serving, err = p.load(node); err == nil {
			err = p.serving.command(map[string]any{"do": "listen"})
		}
		if err == nil {
			return p
		}
		p.serving.kill()
	}
	t.Fatalf("start an identity provider: %v", err)
	return nil
}

// URL is the issuer.
func (p *Provider) URL() string { return p.config.Issuer }

// CAFile holds the authority of the provider's certificate.
func (p *Provider) CAFile() string { return p.files.path(caFile) }

// Rotate makes new keys that sign from now on. Those of before stay published
// until the next rotation if keep is set, else they are withdrawn at once.
func (p *Provider) Rotate(t testing.TB, keep bool) {
	t.Helper()
	before := p.config.Keys
	if p.previous != nil {
		before = before[:len(before)-len(p.previous)]
	}
	p.config.Keys, p.previous = newKeys(t), nil
	if keep {
		p.config.Keys, p.previous = append(p.config.Keys, before...), before
	}
	if err := p.serving.command(map[string]any{"do": "keys", "keys": p.config.Keys}); err != nil {
		t.Fatalf("rotate the keys of the identity provider: %v", err)
	}
}

// Kill ends the provider as a crash would, and waits until it is gone. What it
// kept of logins goes with it; its keys are there again after Return.
func (p *Provider) Kill(t testing.TB) {
	t.Helper()
	p.serving.kill()
	node, _, err := installed()
	if err == nil {
		p.standby, err = p.load(node)
	}
	if err != nil {
		t.Fatalf("load the identity provider again: %v", err)
	}
}

// Return lets the provider come back after Kill, at the same address.
func (p *Provider) Return(t testing.TB) {
	t.Helper()
	p.serving, p.standby = p.standby, nil
	if err := p.serving.command(map[string]any{"do": "listen"}); err != nil {
		t.Fatalf("let the identity provider come back: %v", err)
	}
}

// installed finds Node.js and the packages that `make needs` installed.
func installed() (node, modules string, err error) {
	node, err = exec.LookPath("node")
	if err != nil {
		return "", "", err
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return "", "", errors.New("the test does not run inside the module")
		}
		dir = filepath.Dir(dir)
	}
	modules = filepath.Join(dir, ".tools", "provider")
	have, err := os.ReadFile(filepath.Join(modules, "installed.json"))
	if err == nil && !bytes.Equal(have, lock) {
		err = fmt.Errorf("what is in %s is not what package-lock.json names", modules)
	}
	return node, modules, err
}

// load starts a process that has read everything and waits to be told to listen.
func (p *Provider) load(node string) (*process, error) {
	running := &process{cmd: exec.Command(node, p.script, p.modules), answers: make(chan map[string]any, 1), ended: make(chan struct{}), log: &lockedBuffer{}}
	running.cmd.Stderr = running.log
	in, err := running.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := running.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := running.cmd.Start(); err != nil {
		return nil, err
	}
	running.in = in
	go running.listen(out)
	return running, running.command(p.config)
}

// process is one that runs the script.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers chan map[string]any
	ended   chan struct{} // when the process is gone
	log     *lockedBuffer
}

// listen reads what the script says, until its end.
func (r *process) listen(out io.Reader) {
	defer close(r.ended)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var said map[string]any
		if json.Unmarshal(lines.Bytes(), &said) == nil {
			r.answers <- said
			continue
		}
		_, _ = fmt.Fprintf(r.log, "%s\n", lines.Text()) // the library's own notices
	}
	_ = r.cmd.Wait() // it was killed, or its log says why it ended
}

// command sends a line and waits until it was done.
func (r *process) command(line any) error {
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if _, err := r.in.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("%w; it said:\n%s", err, r.log)
	}
	select {
	case said := <-r.answers:
		if why, failed := said["error"]; failed {
			return fmt.Errorf("%v; it said:\n%s", why, r.log)
		}
		return nil
	case <-r.ended:
		return fmt.Errorf("it has ended; it said:\n%s", r.log)
	case <-time.After(patience):
		return fmt.Errorf("it does not answer within %s; it said:\n%s", patience, r.log)
	}
}

// kill ends the process and waits until it is gone. There may be none.
func (r *process) kill() {
	if r == nil {
		return
	}
	_ = r.cmd.Process.Kill() // it may be gone already
	<-r.ended
	_ = r.in.Close()
}

// lockedBuffer is what the process says, read while it is written.
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

// hidden is for error texts: an address without its query.
func hidden(u *url.URL) string { return u.Scheme + "://" + u.Host + u.Path }
