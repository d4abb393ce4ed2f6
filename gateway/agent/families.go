package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"crossfade/gateway/agent/token"
)

// Bounds of a Families.
const (
	// sweepEvery is how often it is looked for what nobody needs any more.
	sweepEvery = 10 * time.Second
	// idleFor is how long a token is kept fresh of which no task is out: the next
	// one often follows.
	idleFor = time.Minute
	// silentFor is after which time without a word of their worker tasks are not
	// out any more. The scheduler gives a worker up far earlier.
	silentFor = time.Hour
	// maxOut bounds how many tasks are out.
	maxOut = 100_000
)

// Kept is a token that is kept fresh until it is closed. token.Keeper is one.
type Kept interface {
	Tokens
	SetSkew(ahead time.Duration)
	Close() error
}

// FamiliesOptions configure a Families.
type FamiliesOptions struct {
	// Families are the patterns with what their tokens are for.
	Families []Family
	// Run is the id of the run, for the source.
	Run string
	// Open begins to keep a token. Required.
	Open func(token.Request) (Kept, error)
	// Dir is a directory of the agent's own that nobody else enters, for files with
	// the tokens; "" for none. Tokens of Families that a dead agent has left there
	// are removed.
	Dir string
	// Report is told what people must know, once. Required.
	Report *Reporter
	// Log gets a line for each token that is opened or closed; nil is silence.
	Log *slog.Logger
}

// Families obtain a token for the task families that have one of their own when
// the scheduler hands out a task of theirs, before the worker learns of it, and
// keep it fresh for as long as such tasks are out.
//
// What carries which token: a call that the worker, or the code of the task, makes
// about a task that was handed out (add_task from then on, its messages, progress,
// resources and statistics) carries the token of its family. Everything else
// carries the run's: get_work, pings, what administrators do, and also add_task of
// a task that was not handed out, whatever its family. For an unmodified worker
// registers its whole tree of tasks before anything runs, and a running task
// registers those that it waits for, which are of other families; with tokens by
// family it would need all of them from the start. The gateway judges that, as it
// judges get_work, by whether the run may execute the family. So the token of a
// family grants nothing that the run's does not: it takes away. Where the gateway
// gives the account its roles by claims (aud, or one that scopes become), nothing
// that is said about a task, and nothing that the task's own code does with its
// token, has a right to other families. All tokens of a run must mean the same
// account to the gateway, since a worker belongs to one (worker_mismatch).
//
// A call that cannot be read, or that names another family or another worker than
// the task was handed out to, carries the run's token: never a family's. A batch is
// handed out as its tasks, and the worker starts it under one further id.
//
// A task is out from the reply that hands it out until the worker's report that it
// is done, has failed or waits for others was accepted, or until nothing was heard
// of the worker for an hour. It is safe for concurrent use.
type Families struct {
	o      FamiliesOptions
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	skew   time.Duration
	grants map[string]*grant    // by what they are for
	out    map[string]*handed   // by task
	batch  map[string]*handed   // by batch
	heard  map[string]time.Time // by worker, of those that have tasks

	fileMu sync.Mutex
	files  map[string]*familyFile // by family
}

// grant is the token of some families.
type grant struct {
	lender
	kept    Kept
	request token.Request
	uses    int       // tasks that are out, and those that wait for it
	idle    time.Time // since when it has none
}

// handed is a task, or a batch of them, that was handed out.
type handed struct {
	family, worker, batch string
	tasks                 []string
	// combined is the id under which the worker runs a batch, "" as long as it has
	// not said so.
	combined string
	grant    *grant
	at       time.Time
}

// familyFile is the token of a family for the code of its tasks.
type familyFile struct {
	upkeep *Upkeep
	tasks  int
}

// NewFamilies starts one. Close it.
func NewFamilies(o FamiliesOptions) (*Families, error) {
	if o.Open == nil || o.Report == nil {
		return nil, errors.New("tokens of task families need a way to obtain them and somebody to report to")
	}
	if err := CheckFamilies(o.Families); err != nil {
		return nil, err
	}
	if err := removeTokens(o.Dir, o.Families); err != nil {
		return nil, err
	}
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	f := &Families{
		o: o, grants: make(map[string]*grant), out: make(map[string]*handed), batch: make(map[string]*handed),
		heard: make(map[string]time.Time), files: make(map[string]*familyFile),
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	f.ended.Go(func() { f.run(ctx) })
	return f, nil
}

// Close ends all tokens and removes their files.
func (f *Families) Close() error {
	f.cancel()
	f.ended.Wait()
	f.mu.Lock()
	f.closed = true
	var all []Kept
	for _, g := range f.grants {
		all = append(all, g.kept)
	}
	clear(f.grants)
	clear(f.out)
	clear(f.batch)
	f.mu.Unlock()

	var errs []error
	f.fileMu.Lock()
	for _, file := range f.files {
		errs = append(errs, file.upkeep.Close())
	}
	clear(f.files)
	f.fileMu.Unlock()
	for _, kept := range all {
		errs = append(errs, kept.Close())
	}
	return errors.Join(errs...)
}

// setSkew tells by how much the gateway's clock is ahead.
func (f *Families) setSkew(ahead time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.skew = ahead
	for _, g := range f.grants {
		g.kept.SetSkew(ahead)
	}
}

// familyTokenError is why a task is not handed on.
type familyTokenError struct {
	family, task string
	cause        error
}

func (e *familyTokenError) Error() string {
	return fmt.Sprintf("no token for the task family %s: %v", e.family, e.cause)
}

func (e *familyTokenError) Unwrap() error { return e.cause }

// handOut obtains the token of what was handed out to a worker and notes that it
// is out. The error is an *familyTokenError, and nothing is noted then.
func (f *Families) handOut(ctx context.Context, w work, worker string, patience time.Duration) error {
	if len(w.tasks) == 0 {
		return nil
	}
	entry := familyOf(f.o.Families, w.family)
	if entry == nil {
		f.forget(w.tasks, nil) // whatever they were before
		return nil
	}
	failed := func(err error) error { return &familyTokenError{w.family, w.tasks[0], err} }
	g, err := f.acquire(entry.requestFor(w.family, f.o.Run))
	if err != nil {
		return failed(err)
	}
	if _, err = g.token(ctx, patience); err == nil {
		err = f.openFile(ctx, w.family, g)
	}
	if err != nil {
		f.release(g)
		return failed(err)
	}
	h := &handed{family: w.family, worker: worker, batch: w.batch, tasks: slices.Clone(w.tasks), grant: g, at: time.Now()}
	f.forget(h.tasks, nil) // the scheduler hands a task out again when its reply was lost
	f.mu.Lock()
	if err = f.note(h); err != nil {
		f.mu.Unlock()
		f.closeFile(h.family)
		f.release(g)
		return failed(err)
	}
	f.mu.Unlock()
	return nil
}

// note enters what is out. The caller holds mu.
func (f *Families) note(h *handed) error {
	switch {
	case f.closed:
		return token.ErrClosed
	case len(f.out)+len(h.tasks) > maxOut:
		return fmt.Errorf("more than %d tasks are out", maxOut)
	}
	for _, id := range h.tasks {
		f.out[id] = h
	}
	if h.batch != "" {
		f.batch[h.batch] = h
	}
	f.heard[h.worker] = h.at
	return nil
}

// acquire returns the grant for a request, in use.
func (f *Families) acquire(r token.Request) (*grant, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, token.ErrClosed
	}
	key := sameRequest(r)
	g := f.grants[key]
	if g == nil {
		kept, err := f.o.Open(r)
		if err != nil {
			return nil, err
		}
		kept.SetSkew(f.skew)
		g = &grant{lender: lender{tokens: kept}, kept: kept, request: r}
		f.grants[key] = g
		f.o.Log.Info("token of task families opened", "audience", r.Audience, "scopes", r.Scopes, "resource", r.Resource)
	}
	g.uses++
	return g, nil
}

func (f *Families) release(g *grant) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.releaseLocked(g)
}

func (f *Families) releaseLocked(g *grant) {
	if g.uses--; g.uses == 0 {
		g.idle = time.Now()
	}
}

// about returns what was handed out that a call is about, by whose token it goes;
// nil for a call that goes by the run's.
func (f *Families) about(path string, c call) *handed {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.heard[c.worker]; ok {
		f.heard[c.worker] = time.Now()
	}
	if c.task == "" || !aboutTask(path) {
		return nil
	}
	h := f.out[c.task]
	switch {
	case h == nil:
		return f.combine(path, c)
	case c.family != "" && c.family != h.family:
		return nil
	case c.worker != "" && h.worker != "" && c.worker != h.worker:
		return nil // another run registers the same task
	default:
		return h
	}
}

// combine notes the id under which a worker starts a batch that was handed out.
// The caller holds mu.
func (f *Families) combine(path string, c call) *handed {
	h := f.batch[c.batch]
	if h == nil || path != apiPrefix+"add_task" || h.combined != "" || c.family != h.family || !hasFamily(c.task, h.family) ||
		h.worker != "" && c.worker != h.worker || len(f.out) >= maxOut {
		return nil
	}
	h.combined = c.task
	h.tasks = append(h.tasks, c.task)
	f.out[c.task] = h
	return h
}

// end notes that the end of a task was accepted that was handed out as h: of the
// batch that it stands for, too.
func (f *Families) end(h *handed, task string) {
	f.mu.Lock()
	tasks := []string{task}
	if task == h.combined {
		tasks = slices.Clone(h.tasks)
	}
	f.mu.Unlock()
	f.forget(tasks, h)
}

// forget notes that tasks are not out any more; with only, those that were handed
// out as that: they may have been handed out again.
func (f *Families) forget(tasks []string, only *handed) {
	var gone []*handed
	f.mu.Lock()
	for _, id := range tasks {
		h := f.out[id]
		if h == nil || only != nil && h != only {
			continue
		}
		delete(f.out, id)
		if h.tasks = slices.DeleteFunc(h.tasks, func(other string) bool { return other == id }); len(h.tasks) == 0 {
			if f.batch[h.batch] == h {
				delete(f.batch, h.batch)
			}
			f.releaseLocked(h.grant)
			gone = append(gone, h)
		}
	}
	f.mu.Unlock()
	for _, h := range gone {
		f.closeFile(h.family)
	}
}

// run closes from time to time what nobody needs any more.
func (f *Families) run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.sweep(time.Now())
		}
	}
}

func (f *Families) sweep(now time.Time) {
	var silent []string
	workers := make(map[string]bool)
	f.mu.Lock()
	for id, h := range f.out {
		if now.Sub(f.heard[h.worker]) >= silentFor {
			silent = append(silent, id)
		} else {
			workers[h.worker] = true
		}
	}
	for worker := range f.heard {
		if !workers[worker] {
			delete(f.heard, worker)
		}
	}
	f.mu.Unlock()
	f.forget(silent, nil)

	var idle []*grant
	f.mu.Lock()
	for key, g := range f.grants {
		if g.uses == 0 && now.Sub(g.idle) >= idleFor {
			idle = append(idle, g)
			delete(f.grants, key)
		}
	}
	f.mu.Unlock()
	for _, g := range idle {
		_ = g.kept.Close() // it has nothing to report
		f.o.Log.Info("token of task families closed", "audience", g.request.Audience, "scopes", g.request.Scopes, "resource", g.request.Resource)
	}
}

// openFile makes the file of a family, or notes that one more task needs it.
func (f *Families) openFile(ctx context.Context, family string, g *grant) error {
	if f.o.Dir == "" {
		return nil
	}
	f.fileMu.Lock()
	defer f.fileMu.Unlock()
	file := f.files[family]
	if file == nil {
		upkeep, err := NewUpkeep(ctx, UpkeepOptions{
			Tokens: g.kept, TokenFile: filepath.Join(f.o.Dir, FamilyFile(family)), Name: "of the task family " + family,
			Required: true, Report: f.o.Report,
		})
		if err != nil {
			return err
		}
		file = &familyFile{upkeep: upkeep}
		f.files[family] = file
	}
	file.tasks++
	return nil
}

// closeFile notes that one task less needs the file of a family.
func (f *Families) closeFile(family string) {
	f.fileMu.Lock()
	defer f.fileMu.Unlock()
	file := f.files[family]
	if file == nil {
		return
	}
	if file.tasks--; file.tasks > 0 {
		return
	}
	delete(f.files, family)
	if err := file.upkeep.Close(); err != nil {
		f.o.Report.Say("family file "+family, fmt.Sprintf("crossfade agent: the token of the task family %s stays in its file: %v\n", printable(family), err))
	}
}

// removeTokens removes the tokens of families that a dead agent has left in a
// directory, and nothing else: a secret looks like a token. "" has none.
func removeTokens(dir string, families []Family) error {
	if dir == "" {
		return nil
	}
	left, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var errs []error
	for _, entry := range left {
		path := filepath.Join(dir, entry.Name())
		if entry.Type().IsRegular() && isFamilyFile(families, entry.Name()) && holdsToken(path) {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(append(errs, err)...)
}

// PrivateDir makes a directory for files with tokens, or checks that an existing
// one is its owner's alone to write.
func PrivateDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil || !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is no directory", dir)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s can be written by others (mode %v): chmod go-w it, or name a directory that does not exist yet", dir, info.Mode().Perm())
	}
	return nil
}
