package legacy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Mistake is one thing wrong with one file. Its text holds nothing of the
// file's content, because a misplaced secret may stand anywhere in it: the
// line number leads to the place.
type Mistake struct {
	File string // the path as configured
	Line int    // from 1; 0 when the file as a whole is meant
	What string // what is wrong
	Do   string // what to do about it
}

// Error returns "file:line: what is wrong: what to do".
func (m *Mistake) Error() string {
	if m.Line == 0 {
		return fmt.Sprintf("%s: %s: %s", m.File, m.What, m.Do)
	}
	return fmt.Sprintf("%s:%d: %s: %s", m.File, m.Line, m.What, m.Do)
}

const (
	// maxFile bounds a file of credentials: some hundred thousand users.
	maxFile = 16 << 20
	// maxMistakes bounds what is said about one file, for the case that it is
	// something else altogether.
	maxMistakes = 100
)

// mistakes gathers what is wrong with one file.
type mistakes struct {
	file string
	list []*Mistake
}

func (m *mistakes) add(line int, what, do string) {
	m.list = append(m.list, &Mistake{File: m.file, Line: line, What: what, Do: do})
}

// err joins the mistakes in order of line; nil without any.
func (m *mistakes) err() error {
	slices.SortStableFunc(m.list, func(a, b *Mistake) int { return a.Line - b.Line })
	if more := len(m.list) - maxMistakes; more > 0 {
		m.list = m.list[:maxMistakes]
		m.add(0, fmt.Sprintf("%d more mistakes are not shown", more), "check that this is the right file")
	}
	errs := make([]error, len(m.list))
	for i, e := range m.list {
		errs[i] = e
	}
	return errors.Join(errs...)
}

// read returns the content of the file without a byte order mark. It returns
// false, and has said why, when there is nothing to parse.
func (m *mistakes) read() ([]byte, bool) {
	f, err := os.Open(m.file)
	if err != nil {
		m.unreadable(err)
		return nil, false
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		m.unreadable(err)
		return nil, false
	case len(data) > maxFile:
		m.add(0, fmt.Sprintf("the file is larger than %d MiB", maxFile>>20), "check that this is the right file")
		return nil, false
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		m.add(0, "the file is UTF-16 text", "save it as UTF-8")
		return nil, false
	}
	return bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), true
}

func (m *mistakes) unreadable(err error) {
	// *os.PathError repeats the path, which the mistake already begins with.
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		err = pathErr.Err
	}
	m.add(0, "cannot be read ("+err.Error()+")", "check the path and that Crossfade's user may read it")
}
