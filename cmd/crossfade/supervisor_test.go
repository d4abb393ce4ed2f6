package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// supervisor is the socket on which systemd hears its services.
type supervisor struct {
	*net.UnixConn
	path string
}

func newSupervisor(t *testing.T) *supervisor {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := &supervisor{path: filepath.Join(dir, "notify")}
	m.UnixConn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// next returns the next message by its assignments.
func (m *supervisor) next(t *testing.T) map[string]string {
	t.Helper()
	_ = m.SetReadDeadline(time.Now().Add(patience))
	message := make([]byte, 64<<10)
	n, err := m.Read(message)
	if err != nil {
		t.Fatalf("nothing more was heard: %v", err)
	}
	said := map[string]string{}
	for line := range strings.Lines(string(message[:n])) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if _, twice := said[name]; !ok || twice {
			t.Fatalf("%q is no message of sd_notify", message[:n])
		}
		said[name] = value
	}
	return said
}

// heard returns the next message that is no sign of life.
func (m *supervisor) heard(t *testing.T) map[string]string {
	t.Helper()
	for {
		if said := m.next(t); said["WATCHDOG"] == "" {
			return said
		}
	}
}

// reloaded waits for a reload and its end, whose status has to say something.
func (m *supervisor) reloaded(t *testing.T, status string) {
	t.Helper()
	for {
		begin := m.heard(t)
		if at, err := strconv.ParseUint(begin["MONOTONIC_USEC"], 10, 64); begin["RELOADING"] != "1" || begin["READY"] != "" || err != nil || at == 0 {
			t.Fatalf("a reload begins with %v", begin)
		}
		end := m.heard(t)
		if end["READY"] != "1" {
			t.Fatalf("a reload ends with %v", end)
		}
		// A file that changed reloads as well, and may have been seen half changed.
		if strings.Contains(end["STATUS"], status) {
			return
		}
	}
}

func TestAServiceManagerHearsWhatBecomesOfTheGateway(t *testing.T) {
	manager, upstream := newSupervisor(t), scheduler(t)
	file := whole(t, "https://idp.example", upstream.URL, map[string]string{"drain": "2m"})
	p := startIn(t, []string{"NOTIFY_SOCKET=" + manager.path, "WATCHDOG_USEC=100000"}, "serve", "--config", file)

	ready := manager.heard(t)
	if want := "mode enforce on " + p.address + ", in front of " + upstream.URL; ready["READY"] != "1" || ready["STATUS"] != want {
		t.Errorf("the start is told by %v", ready)
	}
	for said := ready; said["WATCHDOG"] != "1"; {
		said = manager.next(t)
	}

	p.signal(t, syscall.SIGHUP)
	manager.reloaded(t, "mode enforce")

	good := read(t, file)
	if err := os.WriteFile(file, []byte(good+"mood: enforce\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGHUP)
	manager.reloaded(t, "the running one stays in force: "+file)

	p.signal(t, syscall.SIGTERM)
	for {
		said := manager.heard(t)
		if said["STOPPING"] == "" {
			continue // the watched file's own reload
		}
		if longest := "135000000"; said["EXTEND_TIMEOUT_USEC"] != longest || said["READY"] != "" {
			t.Errorf("the end is told by %v, want the drain and what follows it, %s", said, longest)
		}
		break
	}
	if code := p.code(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
}

func TestAServiceManagerWhoIsGoneHoldsUpNothing(t *testing.T) {
	manager, upstream := newSupervisor(t), scheduler(t)
	_ = manager.Close()
	p := startIn(t, []string{"NOTIFY_SOCKET=" + manager.path, "WATCHDOG_USEC=20000"}, "serve", "--config", whole(t, "https://idp.example", upstream.URL, nil))
	if status, _ := get(t, newClient(t), "http://"+p.address+"/api/task_list"); status != 200 {
		t.Errorf("status %d\n%s", status, p.log)
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.code(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
	if n := strings.Count(p.log.String(), "service manager cannot be told"); n != 1 {
		t.Errorf("the log says so %d times:\n%s", n, p.log)
	}
}

func TestAWatchdogThatCannotBeReadIsNamed(t *testing.T) {
	c := command(t, "serve", "--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
	c.Env = append(c.Env, "NOTIFY_SOCKET=/nowhere", "WATCHDOG_USEC=soon")
	out, _ := c.CombinedOutput()
	if code := c.ProcessState.ExitCode(); code != exitUsage || !strings.Contains(string(out), "WATCHDOG_USEC") {
		t.Errorf("exit code %d: %s", code, out)
	}
}
