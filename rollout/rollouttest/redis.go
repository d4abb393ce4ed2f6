package rollouttest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Redis is a real redis-server that a test started.
type Redis struct {
	// Addr is host:port on the loopback interface. It stays over Stop and
	// Start.
	Addr string

	dir  string
	port int
	args func() []string
	tls  *tls.Config // nil for a server without TLS
	cmd  *exec.Cmd
	log  *lockedBuffer
}

// StartRedis starts a redis-server on a free port of 127.0.0.1, with its data
// in a temporary directory, and stops it at the end of the test. Further
// arguments are settings as redis-server takes them ("--requirepass", "x"). It
// fails the test if there is no redis-server: what passes without one proves
// nothing.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	needServer(t)
	r := &Redis{dir: t.TempDir()}
	r.args = func() []string {
		return append(r.common("--port", strconv.Itoa(r.port)), args...)
	}
	return r.startAnywhere(t)
}

// StartReplica starts a server that follows another one and refuses writes, and
// waits until it has what that one has. Further arguments are settings.
func StartReplica(t testing.TB, master *Redis, args ...string) *Redis {
	t.Helper()
	r := StartRedis(t, append([]string{
		"--replicaof", "127.0.0.1 " + strconv.Itoa(master.port), "--repl-diskless-sync-delay", "0",
	}, args...)...)
	wait(t, "the replica follows", func() bool { return strings.Contains(r.Do(t, "INFO", "replication"), "master_link_status:up") })
	return r
}

// StartTLS starts a server that speaks TLS only, with a certificate of its own
// making for 127.0.0.1, and returns the file with the authority that signed it.
func StartTLS(t testing.TB, args ...string) (r *Redis, caFile string) {
	t.Helper()
	needServer(t)
	r = &Redis{dir: t.TempDir()}
	caFile = filepath.Join(r.dir, "ca.pem")
	cert, key := filepath.Join(r.dir, "cert.pem"), filepath.Join(r.dir, "key.pem")
	r.tls = certify(t, caFile, cert, key)
	r.args = func() []string {
		return append(r.common("--port", "0", "--tls-port", strconv.Itoa(r.port), "--tls-auth-clients", "no",
			"--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", caFile), args...)
	}
	return r.startAnywhere(t), caFile
}

// needServer fails a test that there is no redis-server for.
func needServer(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatalf("this test needs redis-server in PATH: `make test` installs it (%v)", err)
	}
}

// common are the settings of all servers, and some more.
func (r *Redis) common(more ...string) []string {
	return append([]string{
		"--bind", "127.0.0.1", "--dir", r.dir, "--save", "", "--appendonly", "no", "--daemonize", "no",
	}, more...)
}

// StartSentinel starts a Sentinel that watches the server under a name, alone
// in deciding, and takes it for down when it has been silent for half a second.
// It knows the replicas that follow the server by then. It stops at the end of
// the test.
func StartSentinel(t testing.TB, master *Redis, name string) *Redis {
	t.Helper()
	r := &Redis{dir: t.TempDir()}
	conf := filepath.Join(r.dir, "sentinel.conf") // Sentinel writes what it learns into it
	r.args = func() []string {
		text := fmt.Sprintf("bind 127.0.0.1\nport %[1]d\ndir %[2]s\nsentinel monitor %[3]s 127.0.0.1 %[4]d 1\n"+
			"sentinel down-after-milliseconds %[3]s 500\nsentinel failover-timeout %[3]s 5000\n", r.port, r.dir, name, master.port)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{conf, "--sentinel"}
	}
	return r.startAnywhere(t)
}

// startAnywhere starts the server on a port that is kept for it, so that it can be
// stopped and started again.
func (r *Redis) startAnywhere(t testing.TB) *Redis {
	t.Helper()
	r.port = Port(t)
	t.Cleanup(r.Stop)
	r.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port))
	r.Start(t)
	return r
}

// URL returns the address as a redis URL.
func (r *Redis) URL() string {
	if r.tls != nil {
		return "rediss://" + r.Addr + "/0"
	}
	return "redis://" + r.Addr + "/0"
}

// Start starts the server again after Stop, at the same address. What it had
// saved is there again; by default nothing is saved.
func (r *Redis) Start(t testing.TB) {
	t.Helper()
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
}

// Stop kills the server, as a crash would, and waits until it is gone. It may
// be called twice.
func (r *Redis) Stop() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill() // it may be gone already
	_ = r.cmd.Wait()
	r.cmd = nil
}

// Pause stops the server from answering, while its connections stay open.
func (r *Redis) Pause(t testing.TB) { r.signal(t, syscall.SIGSTOP) }

// Resume lets it go on where it stopped.
func (r *Redis) Resume(t testing.TB) { r.signal(t, syscall.SIGCONT) }

func (r *Redis) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (r *Redis) start() error {
	r.log = &lockedBuffer{}
	r.cmd = exec.Command("redis-server", r.args()...)
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	if err := r.cmd.Start(); err != nil {
		r.cmd = nil
		return fmt.Errorf("start redis-server: %w", err)
	}
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		if r.answers() {
			return nil
		}
		if strings.Contains(r.log.String(), "Failed listening") {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	return fmt.Errorf("redis-server does not answer at %s; it said:\n%s", r.Addr, r.log)
}

// answers reports whether the server speaks the protocol and has read its data.
// Being asked for a password counts.
func (r *Redis) answers() bool {
	conn, err := r.dial(time.Second)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && (strings.HasPrefix(line, "+PONG") || strings.HasPrefix(line, "-NOAUTH"))
}

// dial connects, for as long as limit.
func (r *Redis) dial(limit time.Duration) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", r.Addr, limit)
	if err != nil {
		return nil, err
	}
	if r.tls != nil {
		conn = tls.Client(conn, r.tls)
	}
	return conn, conn.SetDeadline(time.Now().Add(limit))
}

// lockedBuffer is what the server says, read while it is written.
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
