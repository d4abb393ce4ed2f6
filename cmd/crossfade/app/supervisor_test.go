package app_test

import (
	"strings"
	"sync"
	"testing"

	"crossfade/cmd/crossfade/app"
)

// told collects what a service manager hears.
type told struct {
	mu  sync.Mutex
	all []string
}

func (m *told) notify(state string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, state)
	return nil
}

func (m *told) count(state string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, said := range m.all {
		if first, _, _ := strings.Cut(said, "\n"); first == state {
			n++
		}
	}
	return n
}

func TestAGatewayThatEndsIsNotSaidToBeReadyByAReload(t *testing.T) {
	t.Parallel()
	s, m := newSite(t), &told{}
	g := s.start(func(o *app.Options) { o.Notify = m.notify }).loaded()
	s.eventually("it is ready", func() bool { return m.count("READY=1") == 1 })
	if err := g.Reload(); err != nil || m.count("RELOADING=1") != 1 || m.count("READY=1") != 2 {
		t.Errorf("a reload is told by %q, %v", m.all, err)
	}
	reply := inFlight(g)
	g.stop()
	s.eventually("it says that it ends", func() bool { return m.count("STOPPING=1") == 1 })
	if err := g.Reload(); err != nil || m.count("RELOADING=1") != 1 || m.count("READY=1") != 2 {
		t.Errorf("a reload while it ends is told by %q, %v", m.all, err)
	}
	close(s.upstream.slow)
	if got := <-reply; got.status != 200 {
		t.Error(got)
	}
}

func TestTheStatusOfAGatewayThatOnlyAnswersProxiesIsASentence(t *testing.T) {
	t.Parallel()
	s, m := authoriser(t), &told{}
	g := s.start(func(o *app.Options) { o.Notify = m.notify }).loaded()
	s.eventually("it is ready", func() bool { return m.count("READY=1") == 1 })
	m.mu.Lock()
	defer m.mu.Unlock()
	if want := "READY=1\nSTATUS=mode enforce on " + g.Addr() + ", in front of none"; m.all[0] != want {
		t.Errorf("it says %q, want %q", m.all[0], want)
	}
}
