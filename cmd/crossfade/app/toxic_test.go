package app_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"crossfade/rollout/rollouttest"
)

// line is the network between a gateway and its Redis, which a test may spoil.
type line struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
}

// newLine lays one to a server. It is taken away at the end of the test.
func newLine(t *testing.T, server *rollouttest.Redis) *line {
	t.Helper()
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l := &line{t, toxiproxy.NewProxy(api, "redis", "127.0.0.1:0", server.Addr)}
	if err := l.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.proxy.Stop)
	return l
}

func (l *line) url() string { return fmt.Sprintf("redis://%s/0", l.proxy.Listen) }

// spoil makes the line bad in a way that toxiproxy knows; mend makes it good.
func (l *line) spoil(kind, attributes string) {
	l.t.Helper()
	toxic := fmt.Sprintf(`{"name": "spoiled", "type": %q, "attributes": {%s}}`, kind, attributes)
	if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		l.t.Fatal(err)
	}
}

func (l *line) mend() {
	l.t.Helper()
	if err := l.proxy.Toxics.RemoveToxic(context.Background(), "spoiled"); err != nil {
		l.t.Fatal(err)
	}
}
