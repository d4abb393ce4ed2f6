package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// redisTargets adds (i) and (j): one gateway with a real Redis, which (j) stops
// while it is measured. Without redis-server they are left out, and that is said.
func (s *stage) redisTargets(ctx context.Context, binary, upstream string, request []byte) error {
	path := redisServer()
	if path == "" {
		log.Print("redis-server is not in PATH: (i) and (j), Crossfade with a healthy and with a stopped Redis, are left out")
		return nil
	}
	url, server, err := s.redis(ctx, path)
	if err != nil {
		return err
	}
	gateway, err := s.crossfade(ctx, binary, upstream, url)
	if err != nil {
		return err
	}
	stopped := func() (func() error, error) {
		return func() error { return server.Signal(syscall.SIGCONT) }, server.Signal(syscall.SIGSTOP)
	}
	s.targets = append(s.targets,
		&target{name: "(i) as (d), with a real Redis that is healthy", addr: gateway.addr, pid: gateway.pid, request: request},
		&target{name: "(j) as (i), and Redis is stopped meanwhile", addr: gateway.addr, pid: gateway.pid, request: request, around: stopped},
	)
	return nil
}

// redisServer finds the program, "" if there is none.
func redisServer() string {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return ""
	}
	return path
}

// redis starts a server that keeps nothing and waits until it answers.
func (s *stage) redis(ctx context.Context, path string) (url string, _ *os.Process, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the port is free now, and most likely a moment later
	if err != nil {
		return "", nil, err
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	if err := l.Close(); err != nil {
		return "", nil, err
	}
	c := exec.CommandContext(ctx, path, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", s.dir)
	c.Cancel = func() error { return c.Process.Kill() } // it may be stopped, and holds nothing
	if err := c.Start(); err != nil {
		return "", nil, fmt.Errorf("start redis-server: %w", err)
	}
	s.started = append(s.started, c)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if answers(addr) {
			return "redis://" + addr + "/0", c.Process, nil
		}
		<-time.After(10 * time.Millisecond)
	}
	return "", nil, errors.New("redis-server does not answer at " + addr)
}

// answers reports whether a Redis is there.
func answers(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return false
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && strings.HasPrefix(line, "+PONG")
}
