package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"crossfade/rollout/rollouttest"
)

func TestHealthAsksTheGatewayOfTheConfiguration(t *testing.T) {
	_, port, _ := net.SplitHostPort(rollouttest.Unused(t))
	file := whole(t, "https://idp.example", scheduler(t).URL, map[string]string{"metrics": `":` + port + `"`})
	run(t, "health", "--config", file).want(t, exitFailure, "no answer")

	g := serve(t, "--config", file)
	eventually(t, "it is ready", func() bool { return run(t, "health", "--config", file).code == exitOK })
	if got := run(t, "health", "--live", "--config", file).want(t, exitOK); got.stdout != "ok\n" || got.stderr != "" {
		t.Errorf("%v", got)
	}
	g.end(t)
	run(t, "health", "--live", "--config", file).want(t, exitFailure, "no answer")
}

func TestHealthTellsWhyAReplicaIsNotReady(t *testing.T) {
	g := serve(t, "--config", whole(t, "https://idp.example", scheduler(t).URL, map[string]string{"redis": "redis://" + rollouttest.Unused(t) + "/0"}))
	got := run(t, "health", "--metrics", g.metrics).want(t, exitFailure, "not ready: the percentages have not been read from Redis yet")
	if got.stdout != "" {
		t.Errorf("%v", got)
	}
	run(t, "health", "--live", "--metrics", g.metrics).want(t, exitOK, "ok")
}

func TestHealthIsNotAskedOfAnybody(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "nothing here")
	}))
	t.Cleanup(other.Close)
	run(t, "health", "--metrics", other.Listener.Addr().String()).want(t, exitFailure, "404", "no gateway and no agent")
	elsewhere := httptest.NewServer(http.RedirectHandler("http://"+anybody(t)+"/", http.StatusFound))
	t.Cleanup(elsewhere.Close)
	run(t, "health", "--metrics", elsewhere.Listener.Addr().String()).want(t, exitFailure, "302", "no gateway and no agent")
	if got := run(t, "health", "--metrics", anybody(t)).want(t, exitOK); strings.ContainsRune(got.stdout, 0x1b) {
		t.Errorf("a terminal would obey %q", got.stdout)
	}
	run(t, "health", "--metrics", "9091").want(t, exitUsage, "must be host:port")
	off := whole(t, "https://idp.example", "http://127.0.0.1:1", map[string]string{"metrics": `"off"`})
	run(t, "health", "--config", off).want(t, exitUsage, "metrics is off")
	got := run(t, "health", "--config", strings.TrimSuffix(off, ".yaml")).want(t, exitUsage)
	if got.stdout != "" {
		t.Errorf("%v", got)
	}
}

// anybody starts a server that says yes to everything, and more.
func anybody(t *testing.T) (addr string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\x1b[2J\n")
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}
