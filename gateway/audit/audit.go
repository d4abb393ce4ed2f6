// Package audit keeps the audit trail of one gateway: one JSON line for each
// use of a credential, by a client or by a probe, for each executed task, and for
// each change of a rollout over the admin API.
//
// Calls of high frequency (signs of life, questions for work, reports of
// progress, and whatever only looks) become one counted line for a run and
// minute. Everything else has a line of its own. Nobody was verified behind a
// refused request, so at most StrangerLines of those a minute have their own
// lines and the rest is counted by scheme, reason and address: a stranger can
// fill neither memory nor disk. No line holds a password, key, token or query.
//
// # The chain
//
// Each line names the one before it by the SHA-256 of its exact bytes without
// the newline, and has the next number. The chain of a replica goes on across
// files and restarts; its first line has number 1 and 64 zeros. A tail that was
// torn by a crash stays in the file and is accounted for by the line that
// follows it, with its length and digest. Verify finds what was removed,
// altered, reordered or cut off.
//
// The hash has no key: who may write the file can also write a whole new chain,
// or take lines off its end. Therefore the head of the chain is checkpointed to
// the store every few seconds, and Verify compares.
//
// # What survives what
//
// Lines reach the operating system within a tenth of a second and the disk
// within about one more, by one fsync a second, and always before their head is
// checkpointed. A killed process loses the first, a lost machine both, and the
// open minute of the counted lines. While writing fails, lines wait in bounded
// memory and follow when it works again; what finds no room is counted, and a
// line says how many.
package audit

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"crossfade/gateway"
	"crossfade/gateway/luigi"
)

// The results that Options.OnResult is told of.
const (
	// ResultOK is a line that every sink took.
	ResultOK = "ok"
	// ResultLost is a record that found no room to wait.
	ResultLost = "lost"
	// ResultError is a failed attempt to write; its lines wait.
	ResultError = "error"
)

// The defaults of Options.
const (
	DefaultMaxSize = 100 << 20
	DefaultMaxAge  = 24 * time.Hour
	// DefaultQueue holds some hundred milliseconds of full load.
	DefaultQueue = 4096
	// DefaultWaiting is some ten thousand lines.
	DefaultWaiting = 8 << 20
)

const (
	// gather is how long a record waits for others, so that they share a write.
	gather = 100 * time.Millisecond
	// tick is how often minutes are closed, files synced and rotated, and
	// failed writes tried again.
	tick = time.Second
)

// Options configures New. File or Stdout is required.
type Options struct {
	// File is where lines are appended, created with mode 0640 if there is
	// none. A full one is renamed to NAME-<UTC time>-<number of its last line>
	// beside it and never deleted.
	File string
	// Stdout, if set, gets every line, too. One that blocks holds up the file.
	Stdout io.Writer
	// MaxSize in bytes and MaxAge are when a file is full; 0 is the default.
	MaxSize int64
	MaxAge  time.Duration
	// Parameters are the names of the task parameters whose values may stand
	// in a line; of all others only the name does.
	Parameters []string
	// Heads, if set, keeps the heads of the chain. It may be away: that is
	// reported, and tried again.
	Heads Heads
	// Host names the machine; os.Hostname by default.
	Host string
	// Version of the program, for the line that tells of a start.
	Version string
	// OnResult, if set, counts records by result. It must not block.
	OnResult func(result string, n int)
	// Report, if set, is told when writing, or reaching the store of heads,
	// begins to fail, and with nil when that is over. It may be called by two
	// goroutines at once.
	Report func(error)
	// Queue is how many records may wait for the writer, Waiting how many bytes
	// of lines for a sink that fails. 0 is the default.
	Queue, Waiting int
}

// Trail writes the audit trail. Create it with New, end it with Close. All
// methods are safe for concurrent use; the nil Trail records nothing and is
// always ready.
type Trail struct {
	values        map[string]bool // parameters whose values may be told
	onResult      func(string, int)
	configuration atomic.Pointer[string]

	queue   chan item
	hurry   chan struct{} // the queue is half full
	stop    chan struct{}
	done    chan struct{} // the writer has ended
	ended   chan struct{} // so has the checkpointing
	once    sync.Once
	closed  atomic.Bool
	failing atomic.Bool
	// shed are the records that found the queue full, since the last line that
	// told of any.
	shed atomic.Int64

	checkpoint *checkpoint // nil without a store of heads
	closeErr   error       // the writer's, to be read when done
}

// item is what waits for the writer: a record, a task, a probe, a change, or a head that
// the chain is behind of.
type item struct {
	record record
	task   *Task
	probe  *probed
	change *changed
	behind *Head
}

// New opens the sinks, finds the end of the chain in the file or its rotated
// siblings and continues it, and starts the writer. It does not wait for the
// store. A file that somebody else writes, or that holds something else, is an
// error; a disk that is full is not.
func New(o Options) (*Trail, error) {
	if o.File == "" && o.Stdout == nil {
		return nil, errors.New("audit: File or Stdout is required")
	}
	o.MaxSize = cmp.Or(o.MaxSize, DefaultMaxSize)
	o.MaxAge = cmp.Or(o.MaxAge, DefaultMaxAge)
	o.Queue = cmp.Or(o.Queue, DefaultQueue)
	o.Waiting = cmp.Or(o.Waiting, DefaultWaiting)
	if o.OnResult == nil {
		o.OnResult = func(string, int) {}
	}
	if o.Host == "" {
		if o.Host, _ = os.Hostname(); o.Host == "" {
			o.Host = "unknown"
		}
	}
	o.Host = clip(o.Host, maxHost)
	if o.File != "" {
		name, err := filepath.Abs(o.File)
		if err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
		o.File = name
	}
	t := &Trail{
		values: make(map[string]bool, len(o.Parameters)), onResult: o.OnResult,
		queue: make(chan item, o.Queue), hurry: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{}), ended: make(chan struct{}),
	}
	for _, name := range o.Parameters {
		t.values[name] = true
	}
	w, err := newWriter(t, o)
	if err != nil {
		return nil, err
	}
	if o.Heads != nil {
		t.checkpoint = newCheckpoint(t, o, w.resumed)
		go t.checkpoint.run()
	} else {
		close(t.ended)
	}
	w.checkpoint = t.checkpoint
	go w.run()
	return t, nil
}

// newReplica names a chain: the host, for people, and something random.
func newReplica(host string) string { return host + "-" + rand.Text()[:10] }

// SetConfiguration tells the hash of the configuration in force, which stands
// in the lines of all requests from now on.
func (t *Trail) SetConfiguration(hash string) {
	if t != nil {
		hash = clip(hash, maxName)
		t.configuration.Store(&hash)
	}
}

// hash is that of the configuration in force, "" before the first.
func (t *Trail) hash() string {
	if h := t.configuration.Load(); h != nil {
		return *h
	}
	return ""
}

// Observe records a request and the executions that it ended. It does not wait
// and keeps nothing of ev; exempt requests present no credential that is used.
func (t *Trail) Observe(_ context.Context, ev *gateway.Event) {
	if t == nil {
		return
	}
	if ev.Decision.Outcome != gateway.Exempt {
		t.push(item{record: recordOf(ev, t.hash())})
	}
	for i := range ev.Executions {
		t.Executed(ev.Executions[i])
	}
}

// Executed records an execution that has ended. It is for those that no
// request ended, the abandoned ones; Observe records the others.
func (t *Trail) Executed(e luigi.Execution) {
	if t == nil {
		return
	}
	task := taskOf(e, t.values)
	t.push(item{task: &task})
}

// push queues an item, or sheds it.
func (t *Trail) push(it item) {
	if t.closed.Load() {
		t.onResult(ResultLost, 1)
		return
	}
	select {
	case t.queue <- it:
		if len(t.queue) >= cap(t.queue)/2 {
			select {
			case t.hurry <- struct{}{}:
			default: // it is told
			}
		}
	default:
		t.shed.Add(1)
		t.onResult(ResultLost, 1)
	}
}

// Ready reports whether what is served now will be recorded: the last write
// succeeded and there is room to wait. What was let in before a failure waits
// in memory.
func (t *Trail) Ready() bool {
	return t == nil || !t.failing.Load() && !t.closed.Load() && len(t.queue) < cap(t.queue)
}

// Close writes all that waits, the open counts included, and checkpoints the
// last head. It gives up, and says so, when ctx ends. What is recorded later is
// lost, and counted. It may be called more than once.
func (t *Trail) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	t.once.Do(func() {
		t.closed.Store(true)
		close(t.stop)
	})
	for _, wait := range []chan struct{}{t.done, t.ended} {
		select {
		case <-wait:
		case <-ctx.Done():
			return fmt.Errorf("write the last audit lines: %w", context.Cause(ctx))
		}
	}
	return t.closeErr
}
