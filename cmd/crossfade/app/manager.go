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

// manager tells a service manager what becomes of the gateway, in the words of
// sd_notify(3). The zero value has nobody to tell.
type manager struct {
	notify func(state string) error
	log    *slog.Logger

	mu sync.Mutex
	// serving is between ready and stopping: outside of it a reload is nobody's
	// business, and would say that a gateway that ends is ready.
	serving bool
	failed  bool
}

// ready says that requests are served.
func (m *manager) ready(status string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serving = true
	m.tell(daemon.SdNotifyReady, status)
}

// reloading says that a reload begins. The caller calls done at its end with what is
// to be said of it.
func (m *manager) reloading() (done func(status string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.serving {
		// The time tells the manager that it was not an earlier reload that ended.
		m.tell(daemon.SdNotifyReloading, "", strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
	}
	return func(status string) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.serving {
			m.tell(daemon.SdNotifyReady, status)
		}
	}
}

// stopping says that the gateway ends, and asks for the time that a drain may take
// whatever the manager's own patience is.
func (m *manager) stopping(longest time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serving = false
	m.tell(daemon.SdNotifyStopping, "draining", fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (longest+drainSlack).Microseconds()))
}

// watch says every now and then that the process gets to run, until stop is called.
// Nothing else is asked: a gateway whose Redis or disk hangs serves on, and would not
// be mended by a new start.
func (m *manager) watch(every time.Duration) (stop func()) {
	if every <= 0 || m.notify == nil {
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
				m.mu.Lock()
				m.tell(daemon.SdNotifyWatchdog, "")
				m.mu.Unlock()
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
func (m *manager) tell(state, status string, more ...string) {
	if m.notify == nil {
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
	if err := m.notify(strings.Join(lines, "\n")); err != nil && !m.failed {
		m.failed = true
		m.log.Warn("the service manager cannot be told what becomes of the gateway", "error", err)
	}
}
