package redisstore

import (
	"net"
	"sync"
	"time"
)

// pipe is the client's end of a connection in memory. A write there waits for
// the reader, but a Redis client sends all commands of a pipeline before it
// reads the first reply, and the server writes replies before it reads further:
// both would wait for ever. So writes are queued, as a network does.
type pipe struct {
	net.Conn
	done sync.WaitGroup

	mu     sync.Mutex
	wake   sync.Cond
	queue  []byte
	err    error // of the connection, told by the next Write
	closed bool
}

func newPipe(conn net.Conn) *pipe {
	p := &pipe{Conn: conn}
	p.wake.L = &p.mu
	p.done.Go(p.drain)
	return p
}

// Write queues b. It never waits.
func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, net.ErrClosed
	}
	if p.err != nil {
		return 0, p.err
	}
	p.queue = append(p.queue, b...)
	p.wake.Signal()
	return len(b), nil
}

// drain passes on what is queued until the connection ends.
func (p *pipe) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for len(p.queue) == 0 && !p.closed {
			p.wake.Wait()
		}
		if p.closed || p.err != nil {
			return
		}
		next := p.queue
		p.queue = nil
		p.mu.Unlock()
		_, err := p.Conn.Write(next)
		p.mu.Lock()
		p.err = err
	}
}

// SetDeadline bounds reads only, as writes do not wait.
func (p *pipe) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetWriteDeadline does nothing.
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }

// Close drops what is still queued.
func (p *pipe) Close() error {
	p.mu.Lock()
	p.closed = true
	p.wake.Signal()
	p.mu.Unlock()
	err := p.Conn.Close()
	p.done.Wait()
	return err
}
