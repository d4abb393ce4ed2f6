package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// file is the file of lines. It belongs to the writer.
type file struct {
	name string // absolute
	f    *os.File
	// regular files are read, synced and rotated; a device or a pipe is only
	// written to.
	regular bool
	size    int64
	born    time.Time // of the first line
	dirty   bool      // written to since the last sync
}

// tail is the end of a file.
type tail struct {
	// last is the last whole line, nil if there is none; hash is its own.
	last *Header
	hash [sha256.Size]byte
	born time.Time
	// torn is what stands behind it, nil if nothing.
	torn *torn
	// newline tells that one is missing at the end.
	newline bool
}

// openFile opens or creates the file to append to, and reads its end.
func openFile(name string) (*file, *tail, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, nil, fmt.Errorf("open the audit trail: %w", err)
	}
	opened := &file{name: name, f: f}
	end, err := opened.look()
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return opened, end, nil
}

func (f *file) look() (*tail, error) {
	info, err := f.f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open the audit trail: %w", err)
	}
	if f.regular = info.Mode().IsRegular(); !f.regular {
		f.born = time.Now()
		return &tail{}, nil
	}
	if err := lock(f.f); err != nil {
		return nil, fmt.Errorf("lock the audit trail %s: %w: does another gateway write it? Each needs a file of its own", f.name, err)
	}
	f.size = info.Size()
	end, err := readTail(f.f, f.size)
	if err != nil {
		return nil, fmt.Errorf("the audit trail %s: %w", f.name, err)
	}
	if f.born = end.born; f.born.IsZero() {
		f.born = time.Now()
	}
	return end, nil
}

// Write implements io.Writer.
func (f *file) Write(p []byte) (int, error) {
	n, err := f.f.Write(p)
	f.size += int64(n)
	f.dirty = f.dirty || n > 0
	return n, err
}

// sync makes what was written last.
func (f *file) sync() error {
	if !f.dirty || !f.regular {
		return nil
	}
	if err := f.f.Sync(); err != nil {
		return fmt.Errorf("sync the audit trail: %w", err)
	}
	f.dirty = false
	return nil
}

// moved reports whether the name stands for another file by now, or none.
func (f *file) moved() bool {
	there, err := os.Stat(f.name)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	open, err := f.f.Stat()
	return err == nil && !os.SameFile(there, open)
}

// retire gives the file the name under which it stays, and returns it.
func (f *file) retire(at time.Time, seq int64) (string, error) {
	stem, ext := split(f.name)
	to := fmt.Sprintf("%s-%s-%d%s", stem, at.UTC().Format("20060102T150405Z"), seq, ext)
	if _, err := os.Lstat(to); err == nil {
		return "", fmt.Errorf("rotate the audit trail: %s is there already", to)
	}
	if err := os.Rename(f.name, to); err != nil {
		return "", fmt.Errorf("rotate the audit trail: %w", err)
	}
	syncDir(filepath.Dir(f.name))
	return to, nil
}

// syncDir makes names in a directory last, where the system can.
func syncDir(name string) {
	if dir, err := os.Open(name); err == nil {
		_ = dir.Sync() // not every file system does
		_ = dir.Close()
	}
}

// split takes the extension off a name.
func split(name string) (stem, ext string) {
	ext = filepath.Ext(name)
	return strings.TrimSuffix(name, ext), ext
}

// rotatedName is what retire puts between stem and extension.
var rotatedName = regexp.MustCompile(`^-(\d{8}T\d{6}Z)-(\d{1,18})$`)

// Files returns the rotated siblings of an audit file, the oldest first, and
// the file itself if it is there.
func Files(name string) ([]string, error) {
	stem, ext := split(name)
	entries, err := os.ReadDir(filepath.Dir(name))
	if err != nil {
		return nil, fmt.Errorf("look for files of the audit trail: %w", err)
	}
	type sibling struct {
		name, at string
		seq      int64
	}
	var found []sibling
	for _, e := range entries {
		middle, ok := strings.CutPrefix(e.Name(), filepath.Base(stem))
		if !ok || !strings.HasSuffix(middle, ext) {
			continue
		}
		if m := rotatedName.FindStringSubmatch(strings.TrimSuffix(middle, ext)); m != nil {
			seq, _ := strconv.ParseInt(m[2], 10, 64) // 18 digits always fit
			found = append(found, sibling{filepath.Join(filepath.Dir(name), e.Name()), m[1], seq})
		}
	}
	slices.SortFunc(found, func(a, b sibling) int {
		if order := strings.Compare(a.at, b.at); order != 0 {
			return order
		}
		return int(min(max(a.seq-b.seq, -1), 1))
	})
	var files []string
	for _, s := range found {
		files = append(files, s.name)
	}
	if _, err := os.Stat(name); err == nil {
		files = append(files, name)
	}
	return files, nil
}

const (
	// block is how much is read at once from the end.
	block = 64 << 10
	// maxTorn is how much a crash may leave without a whole line among it.
	maxTorn = 64 << 20
)

// beginning is what every line begins with.
const beginning = `{"kind":"`

var errForeign = errors.New("holds something else: name a file of its own, or move this one away")

// readTail finds the last whole line of a file, and what stands behind it.
func readTail(r io.ReaderAt, size int64) (*tail, error) {
	t := &tail{}
	if size == 0 {
		return t, nil
	}
	last := make([]byte, 1)
	if err := readAt(r, last, size-1); err != nil {
		return nil, err
	}
	stop := size
	if t.newline = last[0] != '\n'; !t.newline {
		stop--
	}
	// From the end, line for line: one is [start, stop) without its newline.
	for content := stop; ; {
		start, err := lineStart(r, stop)
		if err != nil {
			return nil, err
		}
		if err := t.whole(r, start, stop); err != nil {
			return nil, err
		}
		switch {
		case t.last != nil && stop == content:
			return t, t.age(r)
		case t.last != nil:
			return t, errors.Join(t.behind(r, stop+1, content), t.age(r))
		case size-start > maxTorn:
			return nil, fmt.Errorf("no whole line in its last %d MiB: %w", maxTorn>>20, errForeign)
		case start == 0:
			return t, errors.Join(ours(r, size), t.behind(r, 0, content))
		}
		stop = start - 1
	}
}

// whole notes the line between start and stop if it is one of the trail.
func (t *tail) whole(r io.ReaderAt, start, stop int64) error {
	if stop-start > MaxLine {
		return nil
	}
	text := make([]byte, stop-start)
	if err := readAt(r, text, start); err != nil {
		return err
	}
	if h, ok := parse(text); ok {
		t.last, t.hash = &h, sha256.Sum256(text)
	}
	return nil
}

// ours reports a file that cannot be what is left of a trail's first line.
func ours(r io.ReaderAt, size int64) error {
	first := make([]byte, min(size, int64(len(beginning))))
	if err := readAt(r, first, 0); err != nil {
		return err
	}
	if first[0] != 0 && !strings.HasPrefix(beginning, string(first)) {
		return errForeign
	}
	return nil
}

// behind notes what stands from start to stop.
func (t *tail) behind(r io.ReaderAt, start, stop int64) error {
	sum := sha256.New()
	n, err := io.Copy(sum, io.NewSectionReader(r, start, stop-start))
	if err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	t.torn = &torn{Bytes: n, SHA256: hex.EncodeToString(sum.Sum(nil))}
	return nil
}

// age notes when the first line was written.
func (t *tail) age(r io.ReaderAt) error {
	t.born = t.last.Time
	first, err := newLines(io.NewSectionReader(r, 0, 2*MaxLine)).next()
	if err == nil && first.ok {
		t.born = first.header.Time
	}
	return err
}

// tailOf reads the end of a file that nobody writes any more.
func tailOf(name string) (*tail, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return readTail(f, info.Size())
}

func readAt(r io.ReaderAt, to []byte, at int64) error {
	if n, err := r.ReadAt(to, at); n < len(to) {
		return fmt.Errorf("cannot be read: %w", err)
	}
	return nil
}

// lineStart returns where the line that ends at stop begins.
func lineStart(r io.ReaderAt, stop int64) (int64, error) {
	buf := make([]byte, block)
	for at := stop; at > 0; {
		n := min(at, block)
		if err := readAt(r, buf[:n], at-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return at - n + int64(i) + 1, nil
		}
		if at -= n; stop-at > maxTorn {
			return at, nil
		}
	}
	return 0, nil
}
