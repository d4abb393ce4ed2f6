package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crossfade/cmd/crossfade/demo"
)

func TestInitWritesAConfigurationThatServes(t *testing.T) {
	t.Parallel()
	idp, upstream := issuer(t, 0), scheduler(t)
	htpasswd, err := demo.Htpasswd(demo.Accounts())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"luigi", "http"} {
		t.Run(kind, func(t *testing.T) {
			dir := files(t, map[string]string{"users.htpasswd": string(htpasswd)})
			file := filepath.Join(dir, "crossfade.yaml")
			args := []string{
				"init", kind, "--to", file, "--htpasswd", "users.htpasswd", "--issuer", idp.URL(),
				"--listen", "127.0.0.1:0", "--upstream", upstream.URL,
			}
			got := run(t, args...).want(t, exitOK, "crossfade check "+file, "crossfade serve --config "+file)
			if got.stdout != "" {
				t.Errorf("talk on stdout: %v", got)
			}
			text := read(t, file)
			if strings.Count(text, "#") < 8 {
				t.Errorf("hardly a comment:\n%s", text)
			}
			run(t, "check", file, "--connect").want(t, exitOK, "mode observe, profile "+kind, "legacy: 5 users")

			run(t, args...).want(t, exitUsage, "exists already", "--force")
			if read(t, file) != text {
				t.Error("the file was overwritten")
			}
			run(t, append(args, "--redis", "redis://127.0.0.1:6379/0", "--force")...).want(t, exitOK)
			if now := read(t, file); now == text || !strings.Contains(now, "redis://127.0.0.1:6379/0") {
				t.Error("--force did not overwrite the file")
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}

			s := serve(t, "--config", file, "--metrics", "127.0.0.1:0", "--access-log", "off")
			resp, err := s.client.Get("http://" + s.address + "/api/task_list")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != 200 {
				t.Errorf("in mode observe: %s", resp.Status)
			}
			s.end(t)
		})
	}
}

func TestInitWritesToStdout(t *testing.T) {
	t.Chdir(t.TempDir())
	got := run(t, "init", "luigi", "--to", "-", "--htpasswd", "users.htpasswd", "--issuer", "https://idp.example").want(t, exitOK, "mode: observe")
	if got.stderr != "" {
		t.Errorf("%v", got)
	}
	if names, err := os.ReadDir("."); err != nil || len(names) != 0 {
		t.Errorf("files were written: %v, %v", names, err)
	}
	run(t, "init", "luigi", "--htpasswd", "users.htpasswd", "--issuer", "http://idp.example").want(t, exitUsage, "https://")
}

// served is a gateway that runs in this process by its command line.
type served struct {
	address, metrics string
	log              *lockedBuffer
	client           *http.Client
	stop             context.CancelFunc
	ended            chan int
}

func serve(t *testing.T, args ...string) *served {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	transport := &http.Transport{}
	s := &served{log: &lockedBuffer{}, client: &http.Client{Transport: transport, Timeout: patience}, stop: stop, ended: make(chan int, 1)}
	t.Cleanup(transport.CloseIdleConnections)
	p := with{}.program(io.Discard, s.log)
	go func() { s.ended <- p.run(ctx, append([]string{"serve"}, args...)) }()
	t.Cleanup(func() { s.end(t) })
	eventually(t, "the gateway says that it serves", func() bool {
		if len(s.ended) > 0 {
			t.Fatalf("it ended:\n%s", s.log)
		}
		s.address, s.metrics = announced(s.log.String())
		return s.address != ""
	})
	return s
}

// announced finds in the log where a gateway listens.
func announced(log string) (address, metrics string) {
	for line := range strings.Lines(log) {
		var said struct{ Msg, Listen, Metrics string }
		if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "crossfade serves" {
			return said.Listen, said.Metrics
		}
	}
	return "", ""
}

func (s *served) end(t *testing.T) {
	t.Helper()
	s.stop()
	if code := <-s.ended; code != exitOK {
		t.Errorf("exit code %d:\n%s", code, s.log)
	}
	s.ended <- exitOK // for who asks again
}
