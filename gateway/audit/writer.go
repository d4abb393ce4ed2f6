package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// writer is the goroutine that makes lines out of records and writes them.
// Everything in it is its own.
type writer struct {
	trail      *Trail
	options    Options
	chain      chain
	resumed    Head
	counts     *counts
	file       *file // nil without one
	sinks      []*sink
	checkpoint *checkpoint
	health     health

	// told are the records whose lines no sink has refused yet, lost those that
	// found no room since the last line about it.
	told int
	lost int64
	// rotation is how it goes to begin a further file.
	rotation health
}

// newWriter opens the sinks and continues the chain, or begins one.
func newWriter(t *Trail, o Options) (*writer, error) {
	w := &writer{trail: t, options: o, counts: newCounts(), health: health{report: o.Report}, rotation: health{report: o.Report}}
	end, previous := &tail{}, ""
	if o.File != "" {
		var err error
		if w.file, end, err = openFile(o.File); err != nil {
			return nil, err
		}
		w.sinks = append(w.sinks, &sink{name: o.File, out: w.file})
		if end.last == nil && end.torn == nil && w.file.regular {
			if end, previous, err = lastSibling(o.File); err != nil {
				_ = w.file.f.Close()
				return nil, err
			}
		}
	}
	if o.Stdout != nil {
		w.sinks = append(w.sinks, &sink{name: "the standard output", out: o.Stdout})
	}
	w.chain.replica = newReplica(o.Host)
	resumed := end.last != nil
	if resumed {
		w.chain = chain{replica: end.last.Replica, seq: end.last.Seq, hash: end.hash}
	}
	w.resumed = w.head()
	now := time.Now()
	if previous != "" {
		w.line(KindRotate, now, rotated{Previous: previous})
	} else {
		w.mend(end)
	}
	w.line(KindOpen, now, started{Version: o.Version, Host: o.Host, Resumed: resumed})
	return w, nil
}

// lastSibling returns the end of the newest rotated file, by which the chain
// goes on when there is no other one: a crash may come between the renaming of
// a file and the first line of the next.
func lastSibling(name string) (*tail, string, error) {
	files, err := Files(name)
	if err != nil {
		return nil, "", err
	}
	if len(files) > 0 && files[len(files)-1] == name {
		files = files[:len(files)-1]
	}
	if len(files) == 0 {
		return &tail{}, "", nil
	}
	newest := files[len(files)-1]
	end, err := tailOf(newest)
	if err != nil {
		return nil, "", fmt.Errorf("continue the audit trail of %s: %w", newest, err)
	}
	return end, filepath.Base(newest), nil
}

// mend ends what was torn, and accounts for it.
func (w *writer) mend(end *tail) {
	if end.newline { // the file's alone: no other sink has the rest
		s := w.sinks[0]
		s.waiting = append([]byte{'\n'}, s.waiting...)
	}
	if end.torn != nil {
		w.line(KindTorn, time.Now(), *end.torn)
	}
}

func (w *writer) run() {
	defer close(w.trail.done)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	w.flush()
	for {
		select {
		case it := <-w.trail.queue:
			w.take(it)
			w.gather()
			w.drain()
			if !w.health.failing { // else with the next tick
				w.flush()
			}
		case <-ticker.C:
			w.tick(time.Now())
		case <-w.trail.stop:
			w.end()
			return
		}
	}
}

// gather waits until more is worth a write.
func (w *writer) gather() {
	if len(w.trail.queue) >= cap(w.trail.queue)/2 {
		return
	}
	timer := time.NewTimer(gather)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.trail.hurry:
	case <-w.trail.stop:
	}
}

// drain takes what waits in the queue now.
func (w *writer) drain() {
	for range len(w.trail.queue) {
		select {
		case it := <-w.trail.queue:
			w.take(it)
		default:
			return
		}
	}
}

func (w *writer) take(it item) {
	switch {
	case it.behind != nil:
		w.line(KindBehind, time.Now(), behind{Head: it.behind.Seq, Hash: it.behind.Hash, Found: w.resumed.Seq})
	case it.task != nil:
		w.record(KindTask, it.task.Ended, it.task)
	case it.probe != nil:
		w.record(KindProbe, it.probe.at, it.probe.line)
	case it.change != nil:
		w.record(KindChange, it.change.at, it.change.line)
	case w.counts.line(it.record):
		w.record(KindUse, it.record.at, it.record.use())
	default:
		if early := w.counts.add(it.record); early != nil {
			w.count(early)
		}
	}
}

func (w *writer) count(n *count) { w.record(KindCount, n.last, n.use()) }

// record makes the line of a record, unless there is no room for it to wait.
func (w *writer) record(kind Kind, at time.Time, body any) {
	for _, s := range w.sinks {
		if s.full(w.options.Waiting) {
			w.lost++
			w.trail.onResult(ResultLost, 1)
			return
		}
	}
	w.line(kind, at, body)
	w.told++
	if w.file == nil || w.health.failing {
		return
	}
	if len(w.sinks[0].waiting) >= block {
		w.flush()
	}
}

// line makes a line and puts it to every sink.
func (w *writer) line(kind Kind, at time.Time, body any) {
	text, err := w.chain.next(kind, at, body)
	if err != nil { // plain strings and numbers; a year above 9999 is none
		w.lost++
		w.trail.onResult(ResultLost, 1)
		return
	}
	for _, s := range w.sinks {
		s.waiting = append(s.waiting, text...)
	}
}

// flush writes what waits, and rotates a file that is full.
func (w *writer) flush() {
	w.write()
	if w.file != nil && w.file.regular && w.file.size >= w.options.MaxSize {
		w.rotate(time.Now())
	}
}

// write writes what waits and judges whether all is well. After a failure it is
// so when the disk has taken everything.
func (w *writer) write() {
	var errs []error
	for _, s := range w.sinks {
		errs = append(errs, s.flush())
	}
	if w.health.failing && w.file != nil {
		errs = append(errs, w.file.sync())
	}
	w.judge(errors.Join(errs...))
}

// judge draws the consequences of an attempt to write or sync.
func (w *writer) judge(err error) {
	if err != nil {
		w.trail.failing.Store(true)
		w.health.note(err)
		w.trail.onResult(ResultError, 1)
		return
	}
	w.trail.failing.Store(false)
	w.health.note(nil)
	w.trail.onResult(ResultOK, w.told)
	w.told = 0
}

// tick does what comes once a second.
func (w *writer) tick(now time.Time) {
	w.drain()
	for _, n := range w.counts.close(now.Unix() / 60) {
		w.count(n)
	}
	if err := w.follow(); err != nil {
		w.judge(err)
		return
	}
	w.write()
	if w.health.failing {
		return
	}
	if w.lost += w.trail.shed.Swap(0); w.lost > 0 {
		w.line(KindLost, now, lost{Records: w.lost})
		w.lost = 0
	}
	w.flush()
	if w.file != nil && w.file.regular && w.file.size > 0 && now.Sub(w.file.born) >= w.options.MaxAge {
		w.rotate(now)
	}
	w.sync()
}

// sync makes what was written last, and tells how far that is.
func (w *writer) sync() {
	if w.file != nil {
		if err := w.file.sync(); err != nil {
			w.judge(err)
			return
		}
	}
	if !w.health.failing {
		w.checkpoint.set(w.head())
	}
}

func (w *writer) head() Head {
	return Head{
		Replica: w.chain.replica, Seq: w.chain.seq, Hash: hex.EncodeToString(w.chain.hash[:]),
		Host: w.options.Host, File: w.options.File,
	}
}

// rotate retires the file, to which everything is written, and begins the next.
// What fails leaves the old one in use.
func (w *writer) rotate(now time.Time) {
	if w.health.failing || w.file.moved() {
		return // follow sees to it
	}
	err := w.file.sync()
	var name string
	if err == nil {
		name, err = w.file.retire(now, w.chain.seq)
	}
	if err == nil {
		err = w.reopen(filepath.Base(name))
	}
	w.rotation.note(err)
	if err == nil {
		w.write()
	}
}

// follow opens the file anew when somebody else has moved it away, or replaced
// it. While that fails nothing may be written: nobody would find it.
func (w *writer) follow() error {
	if w.file == nil || !w.file.moved() {
		return nil
	}
	return w.reopen("")
}

// reopen changes over to what the name stands for now.
func (w *writer) reopen(previous string) error {
	next, end, err := openFile(w.options.File)
	if err != nil {
		return err
	}
	_ = w.file.sync() // what can be saved of the old one
	_ = w.file.f.Close()
	w.file = next
	w.sinks[0].out, w.sinks[0].begun = next, 0
	w.mend(end)
	w.line(KindRotate, time.Now(), rotated{Previous: previous})
	return nil
}

// end writes all there is and closes the file.
func (w *writer) end() {
	w.drain()
	for _, n := range w.counts.close(1 << 62) {
		w.count(n)
	}
	if w.lost += w.trail.shed.Swap(0); w.lost > 0 {
		w.line(KindLost, time.Now(), lost{Records: w.lost})
		w.lost = 0
	}
	w.line(KindClose, time.Now(), struct{}{})
	if err := w.follow(); err != nil {
		w.judge(err)
	} else {
		w.write()
	}
	if w.told > 0 {
		w.trail.onResult(ResultLost, w.told)
	}
	w.sync()
	if w.health.failing {
		w.trail.closeErr = errors.New("the last audit lines could not be written")
	}
	if w.file != nil {
		w.trail.closeErr = errors.Join(w.trail.closeErr, w.file.f.Close())
	}
}
