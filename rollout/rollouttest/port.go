package rollouttest

import (
	"fmt"
	"net"
	"runtime"
	"strconv"
	"syscall"
	"testing"
)

// Port returns a port of 127.0.0.1 that nobody listens on, and keeps it for the
// test: until its end the system gives it to nobody who asks for any port, be it
// to listen on or to connect from. Whoever names it may listen on it, leave it and
// listen on it again; as long as nobody does, connections to it are refused.
func Port(t testing.TB) int {
	t.Helper()
	port, free, err := keepPort()
	if err != nil {
		t.Fatalf("keep a port: %v", err)
	}
	t.Cleanup(free)
	return port
}

// Unused returns host:port of a Port.
func Unused(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(Port(t)))
}

// keepPort binds a socket to a port and does not listen. On Linux that keeps the
// port (socket(7), SO_REUSEADDR: others may bind to it too as long as none of those
// who are bound already listens). Elsewhere they may not, so there the port is free
// for now and no more.
func keepPort() (port int, free func(), err error) {
	if runtime.GOOS != "linux" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, nil, err
		}
		return l.Addr().(*net.TCPAddr).Port, func() {}, l.Close()
	}
	syscall.ForkLock.RLock() // no child inherits the socket
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return 0, nil, err
	}
	free = func() { _ = syscall.Close(fd) }
	defer func() {
		if err != nil {
			free()
		}
	}()
	if err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, nil, err
	}
	if err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, nil, err
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, nil, err
	}
	bound, ok := address.(*syscall.SockaddrInet4)
	if !ok {
		return 0, nil, fmt.Errorf("bound to %v", address)
	}
	return bound.Port, free, nil
}
