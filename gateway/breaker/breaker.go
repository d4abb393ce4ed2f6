// Package breaker keeps callers from waiting for something that does not
// answer: after a failure nobody asks for a while, then one caller tries.
package breaker

import (
	"errors"
	"sync"
	"time"
)

// ErrOpen says that nobody was asked, because the last one who asked failed a
// moment ago.
var ErrOpen = errors.New("not asked: it failed a moment ago")

// The pauses, doubled at each failure after a pause.
const (
	firstPause   = 250 * time.Millisecond
	longestPause = 5 * time.Second
)

// Breaker guards calls to one dependency. The zero value lets everyone through.
// It is safe for concurrent use and has no goroutines.
type Breaker struct {
	mu      sync.Mutex
	pause   time.Duration // 0 while all is well
	until   time.Time
	probing bool
}

// Call runs f and returns its error, or ErrOpen at once while the breaker is
// open. Any error of f counts as a failure, and so does a panic.
func (b *Breaker) Call(now time.Time, f func() error) error {
	if !b.enter(now) {
		return ErrOpen
	}
	failed := true // also if f panics
	defer func() { b.leave(now, failed) }()
	err := f()
	failed = err != nil
	return err
}

func (b *Breaker) enter(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pause == 0 {
		return true
	}
	if b.probing || now.Before(b.until) {
		return false
	}
	b.probing = true
	return true
}

func (b *Breaker) leave(now time.Time, failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	switch {
	case !failed:
		b.pause, b.until = 0, time.Time{}
	case !now.Before(b.until): // the first of several that fail at once
		b.pause = min(max(2*b.pause, firstPause), longestPause)
		b.until = now.Add(b.pause)
	}
}
