package app

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// drainSlack is how much longer than a drain the end may take: what is gathered is
// flushed after it.
const drainSlack = 15 * time.Second

// supervisor tells a service manager what becomes of the gateway, in the words of
// sd_notify(3). The zero value has nobody to tell.
type supervisor struct {
	notify func(state string) error
	log    *slog.Logger

	mu sync.Mutex
	// serving is between ready and stopping: outside of it a reload is nobody's
	// business, and would say that a gateway that ends is ready.
	serving bool
	failed  bool
}

// ready says that requests are served.
func (s *supervisor) ready(status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = true
	s.tell(daemon.SdNotifyReady, status)
}

// reloading says that a reload begins. The caller calls done at its end with what is
// to be said of it.
func (s *supervisor) reloading() (done func(status string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving {
		// The time tells the manager that it was not an earlier reload that ended.
		s.tell(daemon.SdNotifyReloading, "", strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
	}
	return func(status string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.serving {
			s.tell(daemon.SdNotifyReady, status)
		}
	}
}

// stopping says that the gateway ends, and asks for the time that a drain may take
// whatever the manager's own patience is.
func (s *supervisor) stopping(longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = false
	s.tell(daemon.SdNotifyStopping, "draining", fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (longest+drainSlack).Microseconds()))
}

// watch says every now and then that the process gets to run, until stop is called.
// Nothing else is asked: a gateway whose Redis or disk hangs serves on, and would not
// be mended by a new start.
func (s *supervisor) watch(every time.Duration) (stop func()) {
	if every <= 0 || s.notify == nil {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.mu.Lock()
				s.tell(daemon.SdNotifyWatchdog, "")
				s.mu.Unlock()
			case <-end:
				return
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

// tell sends one message; the caller holds mu.
func (s *supervisor) tell(state, status string, more ...string) {
	if s.notify == nil {
		return
	}
	lines := []string{state}
	if status != "" {
		// A status is one line.
		lines = append(lines, "STATUS="+strings.Join(strings.Fields(status), " "))
	}
	for _, line := range more {
		if line != "" {
			lines = append(lines, line)
		}
	}
	if err := s.notify(strings.Join(lines, "\n")); err != nil && !s.failed {
		s.failed = true
		s.log.Warn("the service manager cannot be told what becomes of the gateway", "error", err)
	}
}
