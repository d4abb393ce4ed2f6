package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// WatcherOptions says what to watch. The zero values of the durations stand
// for the defaults.
type WatcherOptions struct {
	// Files are compared by content. One that is missing counts as a content
	// of its own, so appearing and vanishing are changes.
	Files []string
	// OnChange is called, never concurrently, after the content of at least
	// one file changed. It may call SetFiles and must not call Close.
	OnChange func()
	// Debounce is how long the files must be quiet before they are compared;
	// comparison is put off to at most ten times that. Default 100ms.
	Debounce time.Duration
	// Poll is how often files are compared without any notice, for file
	// systems that give none (NFS). Default 30s.
	Poll time.Duration
	// PollOnly does without notices.
	PollOnly bool
}

// Watcher calls back when the content of files changes, whichever way: written
// in place, replaced by a rename as editors do it, or swapped behind a
// symbolic link as Kubernetes does it with ConfigMaps and Secrets. Touching a
// file, or writing the same again, is no change.
type Watcher struct {
	options WatcherOptions
	notify  *fsnotify.Watcher // nil when the system gives no notices

	mu    sync.Mutex
	files map[string]digest
	dirs  map[string]bool // watched directories

	stop chan struct{}
	done chan struct{}
	once sync.Once
}

// digest is the content of a file, or "missing" when it cannot be read.
type digest struct {
	sum     [sha256.Size]byte
	missing bool
}

// NewWatcher starts a watcher with the default options. What changed before it
// returned is not noticed: load the configuration after it, or compare
// [Config.Hash] once.
func NewWatcher(files []string, onChange func()) (*Watcher, error) {
	return WatcherOptions{Files: files, OnChange: onChange}.Start()
}

// Start starts a watcher. Where the system has no notices left to give (the
// limit of inotify instances), it polls; the only error is a missing OnChange.
func (o WatcherOptions) Start() (*Watcher, error) {
	if o.OnChange == nil {
		return nil, errors.New("config: a watcher needs OnChange")
	}
	if o.Debounce <= 0 {
		o.Debounce = 100 * time.Millisecond
	}
	if o.Poll <= 0 {
		o.Poll = 30 * time.Second
	}
	w := &Watcher{
		options: o,
		files:   map[string]digest{},
		dirs:    map[string]bool{},
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
	}
	if !o.PollOnly {
		w.notify, _ = fsnotify.NewWatcher() // on failure nil: polling still works
	}
	w.SetFiles(o.Files)
	go w.run()
	return w, nil
}

// SetFiles replaces the list of files. Those that stay keep their known
// content, so a change in between is not lost; new ones start as they are now.
func (w *Watcher) SetFiles(files []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := make(map[string]digest, len(files))
	for _, file := range files {
		next[file] = digest{}
	}
	known := w.files
	w.files = next
	// Watch first, read second: a change between the two is then noticed.
	w.watchDirs()
	for file := range next {
		if old, ok := known[file]; ok {
			next[file] = old
		} else {
			next[file] = readDigest(file)
		}
	}
}

// Close stops the watcher and waits until a callback that runs has returned.
func (w *Watcher) Close() error {
	w.once.Do(func() { close(w.stop) })
	<-w.done
	if w.notify == nil {
		return nil
	}
	if err := w.notify.Close(); err != nil {
		return fmt.Errorf("config: close watcher: %w", err)
	}
	return nil
}

func (w *Watcher) run() {
	defer close(w.done)
	poll := time.NewTicker(w.options.Poll)
	defer poll.Stop()
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	var since time.Time // first event that was not yet looked into

	var events chan fsnotify.Event
	var errs chan error
	if w.notify != nil {
		events, errs = w.notify.Events, w.notify.Errors
	}
	for {
		select {
		case <-w.stop:
			return
		case event, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			if !w.concerns(event) {
				continue
			}
			if since.IsZero() {
				since = time.Now()
			}
			left := 10*w.options.Debounce - time.Since(since)
			quiet.Reset(max(0, min(w.options.Debounce, left)))
		case _, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
			// An overflow lost events: look now rather than at the next poll.
			quiet.Reset(w.options.Debounce)
		case <-quiet.C:
			since = time.Time{}
			w.compare()
		case <-poll.C:
			w.compare()
		}
	}
}

// concerns tells an event that may matter from a neighbour's growth, such as
// that of a log file in the same directory.
func (w *Watcher) concerns(event fsnotify.Event) bool {
	if event.Has(fsnotify.Create) || event.Has(fsnotify.Rename) || event.Has(fsnotify.Remove) {
		return true
	}
	if !event.Has(fsnotify.Write) {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	name := filepath.Clean(event.Name)
	for file := range w.files {
		if filepath.Clean(file) == name || target(file) == name {
			return true
		}
	}
	return false
}

// compare calls back when the content of a file is another than last time.
func (w *Watcher) compare() {
	w.mu.Lock()
	w.watchDirs() // links may point elsewhere by now
	changed := false
	for file, old := range w.files {
		if now := readDigest(file); now != old {
			w.files[file] = now
			changed = true
		}
	}
	w.mu.Unlock()
	select {
	case <-w.stop: // no callback begins once Close has been called
	default:
		if changed {
			w.options.OnChange()
		}
	}
}

// watchDirs watches the directories of the files and of what they link to. A
// directory is watched rather than the file, because a file that is replaced
// takes its watch with it. The caller holds mu.
func (w *Watcher) watchDirs() {
	if w.notify == nil {
		return
	}
	wanted := map[string]bool{}
	for file := range w.files {
		wanted[filepath.Dir(file)] = true
		if t := target(file); t != "" {
			wanted[filepath.Dir(t)] = true
		}
	}
	for dir := range w.dirs {
		if !wanted[dir] {
			_ = w.notify.Remove(dir) // gone with the directory, or superfluous
			delete(w.dirs, dir)
		}
	}
	for dir := range wanted {
		// Adding again is how a directory that was replaced is picked up; one
		// that does not exist yet is found by polling.
		if err := w.notify.Add(dir); err != nil {
			delete(w.dirs, dir)
			continue
		}
		w.dirs[dir] = true
	}
}

// target is the file behind all links; "" when there is none.
func target(file string) string {
	t, err := filepath.EvalSymlinks(file)
	if err != nil {
		return ""
	}
	return t
}

func readDigest(file string) digest {
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() { // a pipe would block
		return digest{missing: true}
	}
	f, err := os.Open(file)
	if err != nil {
		return digest{missing: true}
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return digest{missing: true}
	}
	var d digest
	h.Sum(d.sum[:0])
	return d
}
