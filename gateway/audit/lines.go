package audit

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// line is one line of a file as a reader finds it.
type line struct {
	number int
	// ok tells a line of the trail. Of others only what follows is known.
	ok     bool
	header Header
	// text is valid until the next line is read; nil beyond MaxLine.
	text []byte
	hash [sha256.Size]byte
	size int64 // in bytes, without the newline
	// ended tells that there is a newline.
	ended bool
}

// lines reads a file line for line within bounded memory.
type lines struct {
	from *bufio.Reader
	buf  []byte
	n    int
}

func newLines(from io.Reader) *lines { return &lines{from: bufio.NewReaderSize(from, block)} }

// next returns the next line, or io.EOF.
func (l *lines) next() (line, error) {
	var out line
	sum := sha256.New()
	l.buf = l.buf[:0]
	for {
		part, err := l.from.ReadSlice('\n')
		if err == nil {
			part, out.ended = part[:len(part)-1], true
		}
		out.size += int64(len(part))
		_, _ = sum.Write(part) // a hash never fails
		if out.size <= MaxLine {
			l.buf = append(l.buf, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && out.size == 0:
			return line{}, io.EOF
		case err != nil && !errors.Is(err, io.EOF):
			return line{}, fmt.Errorf("read: %w", err)
		}
		break
	}
	l.n++
	out.number = l.n
	sum.Sum(out.hash[:0])
	if out.size <= MaxLine {
		out.text = l.buf
		out.header, out.ok = parse(out.text)
	}
	// What was not ended may be a whole line whose newline is missing; the chain
	// could be right and the file is torn all the same.
	out.ok = out.ok && out.ended
	return out, nil
}

// maxSeq is beyond any chain, and exact in every reader of JSON.
const maxSeq = 1 << 53

// parse reads the header of a line of the trail. Nothing else is ok.
func parse(text []byte) (Header, bool) {
	var h Header
	if len(text) == 0 || text[0] != '{' || json.Unmarshal(text, &h) != nil {
		return Header{}, false
	}
	prev, err := hex.DecodeString(h.Prev)
	if err != nil || len(prev) != sha256.Size || h.Kind == "" || h.Replica == "" || len(h.Replica) > maxName || h.Seq < 1 || h.Seq > maxSeq {
		return Header{}, false
	}
	return h, true
}
