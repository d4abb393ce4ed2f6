package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/identity"
)

var update = flag.Bool("update", false, "rewrite golden files")

// asProgram in the environment turns the test's binary into the program itself,
// with its real main: signals and exit codes belong to processes.
const asProgram = "RUN_AS_THE_PROGRAM"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asWorker {
		os.Exit(worker(os.Args[2:]))
	}
	if os.Getenv(asProgram) != "" {
		main()
	}
	// They wait more than they work: for processes to start, and for what the product
	// does every so often. `go test -parallel` says otherwise.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// patience bounds every wait for something that must come, and is only reached by
// a test that fails. Who wants something to come soon says how soon.
const patience = 30 * time.Second

// ran is what a command line left behind.
type ran struct {
	code           int
	stdout, stderr string
}

func (r ran) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.code, r.stdout, r.stderr)
}

// run executes a command line in this process, with nothing in the environment.
func run(t *testing.T, args ...string) ran { return with{}.run(t, args...) }

// with is what a command line finds.
type with struct {
	stdin   string
	environ []string
}

// program is one whose machine has a second address, 127.0.0.2, that stands for
// those which others reach: no test dials a real one.
func (w with) program(stdout, stderr io.Writer) *program {
	return &program{
		stdin: strings.NewReader(w.stdin), stdout: stdout, stderr: stderr,
		environ: w.environ, force: context.Background(),
		local: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.2")} },
	}
}

func (w with) run(t *testing.T, args ...string) ran {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := w.program(&stdout, &stderr)
	code := p.run(t.Context(), append([]string{}, args...)) // nil would be those of the test
	return ran{code, stdout.String(), stderr.String()}
}

// want checks the exit code, and that each text was said.
func (r ran) want(t *testing.T, code int, said ...string) ran {
	t.Helper()
	if r.code != code {
		t.Errorf("want exit code %d, got %v", code, r)
	}
	for _, text := range said {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Errorf("%q was not said: %v", text, r)
		}
	}
	return r
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(read(t, file), got); diff != "" {
		t.Errorf("%s differs (- file, + now); `go test ./cmd/crossfade -update` rewrites it:\n%s", file, diff)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// files writes files into a new directory.
func files(t *testing.T, texts map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// issuer starts a real identity provider that knows the demo's accounts.
func issuer(t *testing.T, lifetime time.Duration) *demo.Issuer {
	t.Helper()
	clients := make(map[string]identity.Secret)
	for _, a := range demo.Accounts() {
		clients[a.User] = a.ClientSecret
	}
	i, err := demo.NewIssuer(demo.IssuerOptions{Clients: clients, Lifetime: lifetime})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i
}

func token(t *testing.T, i *demo.Issuer, audience string) string {
	t.Helper()
	text, err := i.Token(t.Context(), "svc-etl", audience)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// whole is a configuration with everything that a gateway needs; more are
// further keys and their values.
func whole(t *testing.T, issuerURL, upstreamURL string, more map[string]string) (file string) {
	t.Helper()
	htpasswd, err := demo.Htpasswd(demo.Accounts())
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{
		"mode": "enforce", "listen": "127.0.0.1:0", "metrics": "127.0.0.1:0", "access_log": `"off"`,
		"upstream":   fmt.Sprintf("{ url: %s, profile: luigi }", upstreamURL),
		"legacy":     "{ htpasswd: users.htpasswd }",
		"oidc":       fmt.Sprintf("{ issuer: %s, audience: luigi, skew: 0s }", issuerURL),
		"principals": "principals.yaml",
		"roles":      "roles.yaml",
	}
	maps.Copy(lines, more)
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(lines)) {
		fmt.Fprintf(&text, "%s: %s\n", key, lines[key])
	}
	dir := files(t, map[string]string{
		"crossfade.yaml":  text.String(),
		"users.htpasswd":  string(htpasswd),
		"principals.yaml": "svc-etl: { team: data-eng, oidc: { subject: svc-etl }, roles: [runner] }\n",
		"roles.yaml":      "roles: { runner: { execute: [\"*\"], view: [\"*\"] } }\n",
	})
	return filepath.Join(dir, "crossfade.yaml")
}

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not: %s", patience, what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// lockedBuffer is an output that is read while it is written.
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
