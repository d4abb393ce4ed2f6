package app_test

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"crossfade/cmd/crossfade/app"
)

// slow is a request that the upstream answers when it is told to.
func slow() request { return etl(request{method: http.MethodGet, path: "/slow"}) }

// inFlight sends a slow request and waits until the upstream has it.
func inFlight(g *gateway) <-chan reply {
	got := make(chan reply, 1)
	go func() { got <- g.send(slow()) }()
	<-g.site.upstream.arrived
	return got
}

// refuses reports whether new connections are refused.
func refuses(g *gateway) bool {
	conn, err := net.DialTimeout("tcp", g.Addr(), time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err != nil
}

func TestARequestInFlightSurvivesTheEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.start().loaded()
	first, second := inFlight(g), inFlight(g)
	g.stop()
	s.eventually("new connections are refused", func() bool { return refuses(g) })
	s.eventually("the replica says that it drains", func() bool {
		got := g.fetch("/readyz")
		return got.status == 503 && strings.Contains(got.body, "draining")
	})
	if got := g.fetch("/livez"); got.status != 200 {
		t.Errorf("/livez while draining: %v", got)
	}
	select {
	case err := <-g.ended:
		t.Fatalf("the gateway ended with requests in flight: %v", err)
	default:
	}
	close(s.upstream.slow)
	for _, reply := range []<-chan reply{first, second} {
		if got := <-reply; got.status != 200 || got.body != "at last" || got.err != nil {
			t.Errorf("a request in flight: %v", got)
		}
	}
	g.end()
}

func TestTheSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.start().loaded()
	reply := inFlight(g)
	g.stop()
	s.eventually("new connections are refused", func() bool { return refuses(g) })
	g.force()
	g.end()
	if got := <-reply; got.err == nil {
		t.Errorf("the request in flight got %v", got)
	}
}

func TestADrainEndsAfterItsTime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configure("drain", "10ms")
	g := s.start().loaded()
	reply := inFlight(g)
	g.stop()
	g.end()
	if got := <-reply; got.err == nil {
		t.Errorf("the request in flight got %v", got)
	}
	if !strings.Contains(g.log.String(), "cut off") {
		t.Error("the log does not say that requests were cut off")
	}
}

func TestAReloadDoesNotTouchRequestsInFlight(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.start().loaded()
	reply := inFlight(g)
	s.write("users.htpasswd", htpasswd(t, "svc-etl", "renewed"))
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	close(s.upstream.slow)
	if got := <-reply; got.status != 200 || got.body != "at last" {
		t.Errorf("the request in flight got %v", got)
	}
	if got := g.send(etl(pages())); got.status != 401 {
		t.Errorf("after the reload: %v", got)
	}
}

func TestAnAppThatNeverRanCanBeClosed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, err := app.New(t.Context(), app.Options{Load: s.load, Log: discard()})
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	conn, err := net.DialTimeout("tcp", a.Addr(), time.Second)
	if err == nil {
		_ = conn.Close()
		t.Error("it still listens")
	}
}
