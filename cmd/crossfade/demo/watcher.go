package demo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"crossfade/gateway/identity"
)

// Bounds of the watcher.
const (
	defaultWatchInterval = 250 * time.Millisecond
	maxRolloutFile       = 64 << 10
)

// WatcherOptions say what is watched and who is told.
type WatcherOptions struct {
	// Dir holds one file <team>.yaml a team; other names are ignored.
	Dir string
	// Interval between two looks; 250 ms when 0.
	Interval time.Duration
	// Apply is called with the percentage of every file at the start, and
	// again whenever a file says something else. When it fails it is called
	// again at the next look.
	Apply func(team identity.Team, percent int) error
	// Report, when set, is called with every new mistake or failure, once.
	Report func(error)
}

// Watcher follows the rollout files of the demo: one gateway, the percentage
// applied at once, no checks. Run it.
type Watcher struct {
	o     WatcherOptions
	files map[string]*watchedFile // by name
	dirs  complaint
}

// watchedFile is what is known about one file.
type watchedFile struct {
	content []byte // as it was at the last look
	pending bool   // content is still to be applied
	complaint
}

// complaint remembers what was reported last, so that it is not repeated at
// every look.
type complaint struct{ last string }

// NewWatcher checks the options; the directory must exist.
func NewWatcher(o WatcherOptions) (*Watcher, error) {
	if o.Apply == nil {
		return nil, errors.New("watch rollout files: nobody to tell, set Apply")
	}
	if o.Interval < 0 {
		return nil, fmt.Errorf("watch rollout files: the interval %s is negative", o.Interval)
	}
	if _, err := os.ReadDir(o.Dir); err != nil {
		return nil, fmt.Errorf("watch rollout files: %w", err)
	}
	o.Interval = cmp.Or(o.Interval, defaultWatchInterval)
	return &Watcher{o: o, files: make(map[string]*watchedFile)}, nil
}

// Run looks at the files until the context ends. Its calls of Apply and Report
// come one after the other.
func (w *Watcher) Run(ctx context.Context) {
	w.look(true)
	ticker := time.NewTicker(w.o.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.look(false)
		}
	}
}

// look reads all files once. A file that changed is applied when the next look
// finds it the same: editors empty a file before they fill it.
func (w *Watcher) look(first bool) {
	entries, err := os.ReadDir(w.o.Dir)
	w.report(&w.dirs, err)
	for _, entry := range entries {
		name := entry.Name()
		team, ok := strings.CutSuffix(name, ".yaml")
		if !ok || team == "" || strings.HasPrefix(name, ".") || entry.IsDir() {
			continue
		}
		file, known := w.files[name]
		if !known {
			file = &watchedFile{pending: true}
			w.files[name] = file
		}
		content, err := readRolloutFile(filepath.Join(w.o.Dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // between listing and reading; a removed file changes nothing
		}
		if err != nil {
			w.report(&file.complaint, err)
			continue
		}
		if !bytes.Equal(content, file.content) || !known {
			file.content, file.pending = content, true
			if !first {
				continue
			}
		}
		if file.pending {
			w.apply(file, name, identity.Team(team))
		}
	}
}

func (w *Watcher) apply(file *watchedFile, name string, team identity.Team) {
	percent, err := ParseRollout(name, file.content)
	if err != nil {
		file.pending = false // it will not get better by itself
		w.report(&file.complaint, err)
		return
	}
	if err := w.o.Apply(team, percent); err != nil {
		w.report(&file.complaint, fmt.Errorf("%s: apply percent %d: %w", name, percent, err))
		return
	}
	file.pending = false
	w.report(&file.complaint, nil)
}

// report passes on an error that is not the one reported before; no error
// makes it forget.
func (w *Watcher) report(about *complaint, err error) {
	if err == nil {
		about.last = ""
		return
	}
	if text := err.Error(); text != about.last {
		about.last = text
		if w.o.Report != nil {
			w.o.Report(err)
		}
	}
}

func readRolloutFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxRolloutFile+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(content) > maxRolloutFile {
		return nil, fmt.Errorf("%s: more than %d KiB is no rollout file", filepath.Base(path), maxRolloutFile>>10)
	}
	return slices.Clip(content), nil
}
