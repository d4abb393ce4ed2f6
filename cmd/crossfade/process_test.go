package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"crossfade/cmd/crossfade/demo"
)

// command is the real program with its arguments, and nothing in its
// environment.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, args...)
	c.Env = []string{asProgram + "=1"}
	return c
}

// process is the real program, serving.
type process struct {
	*exec.Cmd
	log     *lockedBuffer
	address string
	exited  chan error
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	return startWith(t, nil, args...)
}

// startWith starts it with more in its environment.
func startWith(t *testing.T, environ []string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: command(t, args...), log: &lockedBuffer{}, exited: make(chan error, 1)}
	p.Env = append(p.Env, environ...)
	p.Stderr = p.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.exited <- p.Wait() }()
	t.Cleanup(func() {
		_ = p.Process.Kill() // it has ended already, or else the test failed
		<-p.exited
	})
	eventually(t, "the process says that it serves", func() bool {
		p.address, _ = announced(p.log.String())
		return p.address != ""
	})
	return p
}

// signal sends one.
func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// code waits for the end and returns the exit code, -1 after a signal that was
// not caught.
func (p *process) code() int {
	err := <-p.exited
	p.exited <- err // for the cleanup
	return p.ProcessState.ExitCode()
}

// get asks for a page with the password of svc-etl; 0 is no answer.
func get(t *testing.T, client *http.Client, url string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("svc-etl", "legacy-pass")
	resp, err := client.Do(r)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(text)
}

// holding is an upstream that answers when release is called.
func holding(t *testing.T) (server *httptest.Server, arrived chan struct{}, release func()) {
	t.Helper()
	arrived, held := make(chan struct{}, 10), make(chan struct{})
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		select {
		case <-held:
			_, _ = io.WriteString(w, "at last")
		case <-r.Context().Done():
		}
	}))
	release = sync.OnceFunc(func() { close(held) })
	t.Cleanup(server.Close)
	t.Cleanup(release)
	return server, arrived, release
}

func newClient(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func TestSIGHUPReloads(t *testing.T) {
	upstream := scheduler(t)
	file := whole(t, "https://idp.example", upstream.URL, nil)
	p := start(t, "serve", "--config", file)
	client, page := newClient(t), "http://"+p.address+"/api/task_list"
	if status, _ := get(t, client, page); status != 200 {
		t.Fatalf("status %d\n%s", status, p.log)
	}
	others, err := demo.Htpasswd(demo.Accounts()[1:])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), "users.htpasswd"), others, 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGHUP)
	eventually(t, "svc-etl is gone", func() bool { status, _ := get(t, client, page); return status == 401 })
	before := strings.Count(p.log.String(), "configuration reloaded")
	p.signal(t, syscall.SIGHUP)
	eventually(t, "nothing but the signal reloads as well", func() bool {
		return strings.Count(p.log.String(), "configuration reloaded") > before
	})
	p.signal(t, syscall.SIGTERM)
	if code := p.code(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
}

func TestSIGTERMLetsRequestsEndAndExitsWithZero(t *testing.T) {
	for name, signal := range map[string]os.Signal{"SIGTERM": syscall.SIGTERM, "SIGINT": os.Interrupt} {
		t.Run(name, func(t *testing.T) {
			upstream, arrived, release := holding(t)
			p := start(t, "serve", "--config", whole(t, "https://idp.example", upstream.URL, nil))
			client := newClient(t)
			answer := make(chan string, 1)
			go func() { _, body := get(t, client, "http://"+p.address+"/page"); answer <- body }()
			<-arrived
			p.signal(t, signal)
			eventually(t, "it drains", func() bool { return strings.Contains(p.log.String(), "draining") })
			release()
			if body := <-answer; body != "at last" {
				t.Errorf("the request in flight got %q", body)
			}
			if code := p.code(); code != exitOK {
				t.Errorf("exit code %d\n%s", code, p.log)
			}
		})
	}
}

func TestASecondSIGTERMEndsAtOnce(t *testing.T) {
	upstream, arrived, _ := holding(t)
	p := start(t, "serve", "--config", whole(t, "https://idp.example", upstream.URL, map[string]string{"drain": "1h"}))
	client := newClient(t)
	status := make(chan int, 1)
	go func() { s, _ := get(t, client, "http://"+p.address+"/page"); status <- s }()
	<-arrived
	p.signal(t, syscall.SIGTERM)
	eventually(t, "it drains", func() bool { return strings.Contains(p.log.String(), "draining") })
	p.signal(t, syscall.SIGTERM)
	if code := p.code(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
	if s := <-status; s == 200 {
		t.Error("the request in flight was answered")
	}
	if !strings.Contains(p.log.String(), "cut off") {
		t.Errorf("the log does not say that requests were cut off:\n%s", p.log)
	}
}

func TestTheProcessExitsWithTheCodeOfItsCommand(t *testing.T) {
	for code, args := range map[int][]string{
		exitOK:      {"version"},
		exitFailure: {"serve", "--upstream", "http://127.0.0.1:1", "--listen", scheduler(t).Listener.Addr().String()},
		exitUsage:   {"serve", "--mode", "enforced"},
		exitStore:   {"rollout", "status", "--redis", "redis://" + unused(t) + "/0"},
	} {
		c := command(t, args...)
		var stderr strings.Builder
		c.Stderr = &stderr
		_ = c.Run()
		if got := c.ProcessState.ExitCode(); got != code {
			t.Errorf("%v: exit code %d, want %d", args, got, code)
		}
		for line := range strings.Lines(stderr.String()) {
			if !strings.HasPrefix(line, "crossfade: ") && !strings.HasPrefix(line, "{") && code == exitStore {
				t.Errorf("%v: a library talks on stderr: %s", args, line)
			}
		}
	}
}
