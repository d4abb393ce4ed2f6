package agent_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"crossfade/gateway/agent"
)

func TestTheAgentListensWhereNobodyElseReachesIt(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for address, ok := range map[string]bool{
		"127.0.0.1:0": true, "localhost:0": true, "127.1.2.3:0": true, "[::ffff:127.0.0.1]:0": true,
		"unix:" + filepath.Join(dir, "ok.sock"): true,
		":8182":                                 false, "0.0.0.0:8182": false, "[::]:0": false, "10.0.0.1:0": false, "example.com:80": false,
		"8182": false, "": false, "unix:": false, "unix:" + plain: false,
	} {
		l, err := agent.Listen(t.Context(), address)
		switch {
		case ok && err != nil:
			t.Errorf("%s: %v", address, err)
		case !ok && !errors.Is(err, agent.ErrAddress):
			t.Errorf("%s: %v", address, err)
		}
		if l != nil {
			if err := l.Close(); err != nil {
				t.Errorf("%s: %v", address, err)
			}
		}
	}
	if text, _ := os.ReadFile(plain); string(text) != "kept" {
		t.Error("a file was replaced")
	}
}

func TestASocketIsItsOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	old := syscall.Umask(0) // nothing but the agent sees to the mode
	defer syscall.Umask(old)
	l, err := agent.Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != os.ModeSocket|0o600 {
		t.Errorf("mode %v", got)
	}
	if l.Addr().String() != path {
		t.Errorf("it says that it listens on %s", l.Addr())
	}
	s := newStage(t, agent.Options{}, nil)
	server := &http.Server{Handler: s.proxy}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	resp, err := dialUnix(t, path).Get("http://localhost/api/is_paused")
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(resp.Body); string(text) != `{"response": null}` {
		t.Errorf("%s", text)
	}
	_ = resp.Body.Close()

	if _, err := agent.Listen(t.Context(), "unix:"+path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second agent: %v", err)
	}
	_ = server.Close()
	<-ended
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestASocketThatADeadAgentLeftIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	l, err := agent.Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}
