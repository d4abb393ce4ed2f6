package audit

import (
	"bytes"
	"fmt"
	"io"
)

// sink is one place that lines go to, with what waits for it. It belongs to the
// writer.
type sink struct {
	name    string
	out     io.Writer
	waiting []byte
	// begun is how much of the first waiting line the sink has already.
	begun int
}

// full reports whether the sink should take no more lines.
func (s *sink) full(limit int) bool { return len(s.waiting) >= limit }

// flush writes what waits. After an error the rest waits on, in whole lines.
func (s *sink) flush() error {
	if len(s.waiting) == s.begun {
		return nil
	}
	n, err := s.out.Write(s.waiting[s.begun:])
	if n < len(s.waiting)-s.begun && err == nil {
		err = io.ErrShortWrite
	}
	written := s.begun + max(n, 0)
	whole := bytes.LastIndexByte(s.waiting[:written], '\n') + 1
	s.waiting = append(s.waiting[:0], s.waiting[whole:]...)
	s.begun = written - whole
	if err != nil {
		return fmt.Errorf("write the audit trail to %s: %w", s.name, err)
	}
	return nil
}
