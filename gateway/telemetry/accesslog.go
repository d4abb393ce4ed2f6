package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"crossfade/gateway"
)

// The bounds of the access log's buffer, in bytes.
const (
	flushAt    = 64 << 10 // written at once
	maxPending = 4 << 20  // some ten thousand lines: a writer that is stuck for half a second at full load loses nothing
)

// flushAfter is how long a line waits for others at most.
const flushAfter = 200 * time.Millisecond

// accessLog writes lines in the background. A line costs its request a copy
// into memory; a writer that is slow, stuck or failing costs lines, which are
// counted, and nothing else.
type accessLog struct {
	out    io.Writer
	format func([]byte, *gateway.Event) []byte
	lines  sync.Pool // of *[]byte, to lay a line out without the lock

	mu      sync.Mutex
	pending []byte
	closed  bool

	spare  []byte // the other buffer; like health, the goroutine's own
	health health
	first  chan struct{} // a line waits
	full   chan struct{} // enough lines wait
	stop   chan struct{}
	done   chan struct{}
	lost   atomic.Uint64
}

func newAccessLog(out io.Writer, format func([]byte, *gateway.Event) []byte, report func(error)) *accessLog {
	l := &accessLog{
		out: out, format: format, health: health{report: report},
		lines: sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }},
		first: make(chan struct{}, 1), full: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	go l.run()
	return l
}

// lostLines counts the lines that were not written. The nil log loses none.
func (l *accessLog) lostLines() float64 {
	if l == nil {
		return 0
	}
	return float64(l.lost.Load())
}

// record lays a line out and queues it.
func (l *accessLog) record(ev *gateway.Event) {
	buf := l.lines.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	*buf = l.format((*buf)[:0], ev)
	l.queue(*buf)
	l.lines.Put(buf) // lines are bounded, so what the pool keeps is
}

func (l *accessLog) queue(line []byte) {
	l.mu.Lock()
	before := len(l.pending)
	if l.closed || before+len(line) > maxPending {
		l.mu.Unlock()
		l.lost.Add(1)
		return
	}
	l.pending = append(l.pending, line...)
	after := len(l.pending)
	l.mu.Unlock()
	if before == 0 {
		signal(l.first)
	}
	if before < flushAt && after >= flushAt {
		signal(l.full)
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default: // one is on its way
	}
}

func (l *accessLog) run() {
	defer close(l.done)
	for {
		select {
		case <-l.first:
		case <-l.stop:
			l.flush()
			return
		}
		timer := time.NewTimer(flushAfter)
		select {
		case <-timer.C:
		case <-l.full:
		case <-l.stop:
		}
		timer.Stop()
		l.flush()
	}
}

func (l *accessLog) flush() {
	l.mu.Lock()
	lines := l.pending
	l.pending = l.spare[:0]
	l.mu.Unlock()
	l.spare = lines
	if len(lines) == 0 {
		return
	}
	n, err := l.out.Write(lines)
	if err != nil {
		l.lost.Add(uint64(bytes.Count(lines[max(0, min(n, len(lines))):], []byte{'\n'})))
		err = fmt.Errorf("write the access log: %w", err)
	}
	l.health.note(err)
}

// close writes what waits. It may be called more than once.
func (l *accessLog) close(ctx context.Context) error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.stop)
	}
	l.mu.Unlock()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("write the last access lines: %w", context.Cause(ctx))
	}
}
