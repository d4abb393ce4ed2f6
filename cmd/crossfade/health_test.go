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
	run(t, "health", "--metrics", "9091").want(t, exitUsage, "must be host:port")
	off := whole(t, "https://idp.example", "http://127.0.0.1:1", map[string]string{"metrics": `"off"`})
	run(t, "health", "--config", off).want(t, exitUsage, "metrics is off")
	got := run(t, "health", "--config", strings.TrimSuffix(off, ".yaml")).want(t, exitUsage)
	if got.stdout != "" {
		t.Errorf("%v", got)
	}
}
