package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// The bounds of Find.
const (
	// MinTrace is how many digits of a trace id are asked for: among a million
	// requests, another one has the same first eight with a chance of one in 4,000.
	MinTrace = 8
	// maxTrace is a whole one (W3C Trace Context, section 3.2.2.3).
	maxTrace = 32
	// MaxHits is how many lines of one trace are returned.
	MaxHits = 100
)

// Seal is what the line behind another one says of it.
type Seal string

// The seals.
const (
	// Sealed: the next line of the chain names exactly this one.
	Sealed Seal = "named"
	// Broken: it names another one: one of the two was changed.
	Broken Seal = "altered"
	// Unsealed: no next line of the chain stands behind it in the file.
	Unsealed Seal = "last"
)

// Hit is a line that tells of a trace. Exactly one of Use, Task and Probe is set.
type Hit struct {
	Header
	File  string
	Line  int
	Seal  Seal
	Use   *Use
	Task  *Task
	Probe *Probe
}

// Found is the result of Find.
type Found struct {
	Hits []Hit
	// More are the hits beyond MaxHits.
	More int
	// Lines is how many lines were read, Counted how many of them stand for several
	// requests, and From and To are the times between which they were written; zero
	// without any.
	Lines, Counted int64
	From, To       time.Time
}

// ParseTrace reads a trace id or its beginning, at least MinTrace digits, in any
// letters. A traceparent (W3C Trace Context, section 3.2) is taken for the id in
// it.
func ParseTrace(text string) (string, error) {
	id := strings.ToLower(strings.TrimSpace(text))
	if parts := strings.Split(id, "-"); len(parts) == 4 && len(parts[0]) == 2 && len(parts[1]) == maxTrace {
		id = parts[1]
	}
	switch {
	case strings.Trim(id, "0123456789abcdef") != "":
		return "", fmt.Errorf("%q is no trace id: it has %d digits of 0-9 and a-f, of which %d are enough", clip(clean(text), maxTrace), maxTrace, MinTrace)
	case len(id) < MinTrace:
		return "", fmt.Errorf("%q is too short: give at least %d digits of the trace id", id, MinTrace)
	case len(id) > maxTrace:
		return "", fmt.Errorf("%q is too long: a trace id has %d digits", clip(id, maxTrace), maxTrace)
	}
	return id, nil
}

// Find looks for the lines of a trace in files, by its id or the beginning of it
// as ParseTrace returns it, in the order of the files. It reads each file once, in
// bounded memory, and decodes only the lines that could be meant.
//
// Of each line it says whether the next one of its chain names it; the whole chain
// is Verify's.
func Find(files []string, trace string) (Found, error) {
	f := finder{trace: []byte(trace)}
	var seen []os.FileInfo
	for _, name := range files {
		again, err := known(&seen, name)
		if err != nil {
			return Found{}, err
		}
		if again {
			continue
		}
		if err := f.file(name); err != nil {
			return Found{}, err
		}
	}
	return f.found, nil
}

// known reports whether a file was there before under another name, or the same.
func known(seen *[]os.FileInfo, name string) (bool, error) {
	info, err := os.Stat(name)
	if err != nil {
		return false, fmt.Errorf("read the audit trail: %w", err)
	}
	for _, other := range *seen {
		if os.SameFile(info, other) {
			return true, nil
		}
	}
	*seen = append(*seen, info)
	return false, nil
}

// finder is one search.
type finder struct {
	trace []byte
	found Found
	// open is the index of the hit in the line before, -1 for none; hash is that
	// line's.
	open int
	hash [sha256.Size]byte
}

func (f *finder) file(name string) error {
	in, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read the audit trail: %w", err)
	}
	defer func() { _ = in.Close() }() // nothing was written
	f.open = -1
	var last []byte // the beginning of the last line, which holds its time
	number := 0
	err = rawLines(in, func(text []byte) {
		number++
		f.found.Lines++
		if bytes.HasPrefix(text, counted) {
			f.found.Counted++
		}
		if number == 1 {
			f.span(text)
		}
		last = append(last[:0], text[:min(len(text), headStart)]...)
		f.line(name, number, text)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	f.span(last)
	return nil
}

// counted is how the writer begins the lines that stand for several requests.
var counted = []byte(`{"kind":"` + KindCount + `",`)

// headStart holds the time of a header as the writer lays it out.
const headStart = 96

// span widens the times of the search by those of a line's beginning.
func (f *finder) span(text []byte) {
	_, rest, ok := bytes.Cut(text, []byte(`"time":"`))
	value, _, whole := bytes.Cut(rest, []byte(`"`))
	at, err := time.Parse(time.RFC3339Nano, string(value))
	if !ok || !whole || err != nil {
		return
	}
	if f.found.From.IsZero() || at.Before(f.found.From) {
		f.found.From = at
	}
	if at.After(f.found.To) {
		f.found.To = at
	}
}

// line looks at one line, and at what it says of the one before.
func (f *finder) line(name string, number int, text []byte) {
	could := bytes.Contains(text, f.trace)
	if f.open < 0 && !could {
		return
	}
	header, ok := parse(text)
	if f.open >= 0 {
		before := &f.found.Hits[f.open]
		if ok && header.Replica == before.Replica && header.Seq == before.Seq+1 {
			before.Seal = Broken
			if header.Prev == hex.EncodeToString(f.hash[:]) {
				before.Seal = Sealed
			}
		}
		f.open = -1
	}
	if !could || !ok {
		return
	}
	hit := Hit{Header: header, File: name, Line: number, Seal: Unsealed}
	if !hit.decode(text, string(f.trace)) {
		return
	}
	if len(f.found.Hits) == MaxHits {
		f.found.More++
		return
	}
	f.found.Hits = append(f.found.Hits, hit)
	f.open, f.hash = len(f.found.Hits)-1, sha256.Sum256(text)
}

// decode reads the rest of a line; it is false for one of another trace, or of
// none.
func (h *Hit) decode(text []byte, trace string) bool {
	var body any
	var id *string
	switch h.Kind {
	case KindUse, KindCount:
		h.Use = &Use{}
		body, id = h.Use, &h.Use.TraceID
	case KindTask:
		h.Task = &Task{}
		body, id = h.Task, &h.Task.TraceID
	case KindProbe:
		h.Probe = &Probe{}
		body, id = h.Probe, &h.Probe.TraceID
	default:
		return false
	}
	return json.Unmarshal(text, body) == nil && strings.HasPrefix(*id, trace)
}

// rawLines passes the lines of a file on, without their ends, each valid until the
// next. What is longer than a line can be is passed over.
func rawLines(from io.Reader, use func(text []byte)) error {
	in := bufio.NewReaderSize(from, MaxLine)
	for {
		text, err := in.ReadSlice('\n')
		switch {
		case err == nil:
			use(text[:len(text)-1])
		case errors.Is(err, bufio.ErrBufferFull):
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read: %w", err)
			}
		case errors.Is(err, io.EOF):
			return nil // a rest without its end is being written, or torn
		default:
			return fmt.Errorf("read: %w", err)
		}
	}
}
