// Package luigitest holds what tests need of a luigi.Store: one in memory, and
// the conformance suite that every store passes.
package luigitest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"crossfade/gateway/luigi"
)

// remembered is how many ends of one task's executions are remembered.
const remembered = 8

// Memory is a luigi.Store in memory. It is safe for concurrent use.
type Memory struct {
	now func() time.Time

	mu      sync.Mutex
	tasks   map[string]*taskRow
	workers map[string]*workerRow
}

type taskRow struct {
	family  string
	running *running
	ends    []told // oldest first
	until   time.Time
}

// running is an execution under way. It is kept as text, so that it shares no
// memory with a caller and comes back in the form that it has in Redis.
type running struct {
	text   []byte
	worker string
	sign   time.Time // of the last Start
	until  time.Time
}

// told remembers that an execution by the worker was taken away.
type told struct {
	worker string
	until  time.Time
}

type workerRow struct {
	owner luigi.Owner
	heard time.Time
	until time.Time
}

var _ luigi.Store = (*Memory)(nil)

// NewMemory returns an empty store whose clock is now, time.Now if nil. With
// time.Now it keeps step with testing/synctest.
func NewMemory(now func() time.Time) *Memory {
	if now == nil {
		now = time.Now
	}
	return &Memory{now: now, tasks: make(map[string]*taskRow), workers: make(map[string]*workerRow)}
}

// enter begins a call. On nil the caller holds the lock.
func (m *Memory) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("ask the store: %w", err)
	}
	m.mu.Lock()
	return nil
}

// row returns what is known of a task at the time, without what has ended.
func (m *Memory) row(id string, now time.Time) *taskRow {
	row, ok := m.tasks[id]
	if !ok || !now.Before(row.until) {
		return &taskRow{}
	}
	if row.running != nil && !now.Before(row.running.until) {
		row.running = nil
	}
	row.ends = slices.DeleteFunc(row.ends, func(e told) bool { return !now.Before(e.until) })
	return row
}

// keep puts the row back for as long as something in it is to be known.
func (m *Memory) keep(id string, row *taskRow, now time.Time) {
	row.until = now
	if row.family != "" {
		row.until = now.Add(luigi.TaskMemory)
	}
	if row.running != nil && row.running.until.After(row.until) {
		row.until = row.running.until
	}
	for _, e := range row.ends {
		if e.until.After(row.until) {
			row.until = e.until
		}
	}
	if row.until.After(now) {
		m.tasks[id] = row
	} else {
		delete(m.tasks, id)
	}
}

func (row *taskRow) register(family string) {
	if row.family == "" {
		row.family = family
	}
}

// ended reports whether the end of an execution by the worker is remembered.
func (row *taskRow) ended(worker string) bool {
	return slices.ContainsFunc(row.ends, func(e told) bool { return e.worker == worker })
}

func (row *taskRow) mark(worker string, now time.Time) {
	row.ends = slices.DeleteFunc(row.ends, func(e told) bool { return e.worker == worker })
	row.ends = append(row.ends, told{worker, now.Add(luigi.WorkerTie)})
	row.ends = row.ends[max(0, len(row.ends)-remembered):]
}

// take ends the execution under way and returns it.
func (row *taskRow) take(now time.Time) (*luigi.Started, error) {
	taken := row.running
	row.running = nil
	row.mark(taken.worker, now)
	return taken.value()
}

func (r *running) value() (*luigi.Started, error) {
	if r == nil {
		return nil, nil
	}
	s := new(luigi.Started)
	if err := json.Unmarshal(r.text, s); err != nil {
		return nil, fmt.Errorf("read an execution: %w", err)
	}
	return s, nil
}

// Task implements luigi.TaskStore.
func (m *Memory) Task(ctx context.Context, id string) (luigi.Task, error) {
	if err := m.enter(ctx); err != nil {
		return luigi.Task{}, err
	}
	defer m.mu.Unlock()
	now := m.now()
	row := m.row(id, now)
	m.keep(id, row, now)
	started, err := row.running.value()
	return luigi.Task{Family: row.family, Started: started}, err
}

// Register implements luigi.TaskStore.
func (m *Memory) Register(ctx context.Context, tasks []luigi.Registered) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	now := m.now()
	for _, r := range tasks {
		row := m.row(r.Task, now)
		row.register(r.Family)
		m.keep(r.Task, row, now)
	}
	return nil
}

// Tie implements luigi.WorkerStore.
func (m *Memory) Tie(ctx context.Context, worker string, o luigi.Owner) (luigi.Owner, error) {
	if err := m.enter(ctx); err != nil {
		return luigi.Owner{}, err
	}
	defer m.mu.Unlock()
	return m.tie(worker, o, time.Time{}), nil
}

// Owner implements luigi.WorkerStore.
func (m *Memory) Owner(ctx context.Context, worker string) (luigi.Owner, error) {
	if err := m.enter(ctx); err != nil {
		return luigi.Owner{}, err
	}
	defer m.mu.Unlock()
	if row, ok := m.workers[worker]; ok && m.now().Before(row.until) {
		return row.owner, nil
	}
	return luigi.Owner{}, nil
}

// Alive implements luigi.WorkerStore.
func (m *Memory) Alive(ctx context.Context, signs []luigi.Alive) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for _, s := range signs {
		m.tie(s.Worker, s.Owner, s.Heard)
	}
	return nil
}

func (m *Memory) tie(worker string, o luigi.Owner, heard time.Time) luigi.Owner {
	now := m.now()
	o.Seen = whole(o.Seen)
	if row, ok := m.workers[worker]; ok && now.Before(row.until) {
		if row.owner.Principal != o.Principal {
			return row.owner
		}
		o.Token = o.Token || row.owner.Token
		if row.owner.Seen.After(o.Seen) {
			o.Seen = row.owner.Seen
		}
		if row.heard.After(heard) {
			heard = row.heard
		}
	}
	m.workers[worker] = &workerRow{owner: o, heard: whole(heard), until: now.Add(luigi.WorkerTie)}
	return o
}

// Start implements luigi.ExecutionStore.
func (m *Memory) Start(ctx context.Context, s luigi.Started) (replaced *luigi.Started, err error) {
	s.At = whole(s.At)
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("note a start: %w", err)
	}
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	now := m.now()
	row := m.row(s.Task, now)
	defer m.keep(s.Task, row, now)
	row.register(s.Family)
	if row.running != nil && row.running.worker == s.Worker {
		if s.At.After(row.running.sign) {
			row.running.sign = s.At
		}
		return nil, nil
	}
	if row.running != nil {
		replaced, err = row.take(now)
	}
	began := s.At
	if began.After(now) {
		began = now
	}
	row.running = &running{text: text, worker: s.Worker, sign: s.At, until: began.Add(luigi.LongestTask)}
	return replaced, err
}

// End implements luigi.ExecutionStore.
func (m *Memory) End(ctx context.Context, task, worker string) (started *luigi.Started, first bool, err error) {
	if err := m.enter(ctx); err != nil {
		return nil, false, err
	}
	defer m.mu.Unlock()
	now := m.now()
	row := m.row(task, now)
	defer m.keep(task, row, now)
	if row.running != nil && row.running.worker == worker {
		started, err = row.take(now)
		return started, true, err
	}
	if row.ended(worker) {
		return nil, false, nil
	}
	row.mark(worker, now)
	return nil, true, nil
}

// Abandoned implements luigi.ExecutionStore.
func (m *Memory) Abandoned(ctx context.Context, before time.Time, limit int) ([]luigi.Started, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	now, before := m.now(), whole(before)
	var out []luigi.Started
	for id := range m.tasks {
		if len(out) >= limit {
			break
		}
		row := m.row(id, now)
		if row.running == nil || !row.running.sign.Before(before) || !m.seen(row.running.worker, now).Before(before) {
			continue
		}
		s, err := row.take(now)
		if err != nil {
			return out, err
		}
		m.keep(id, row, now)
		out = append(out, *s)
	}
	return out, nil
}

// seen returns the last sign of life of a worker that somebody owns.
func (m *Memory) seen(worker string, now time.Time) time.Time {
	if row, ok := m.workers[worker]; ok && now.Before(row.until) {
		if row.heard.After(row.owner.Seen) {
			return row.heard
		}
		return row.owner.Seen
	}
	return time.Time{}
}

// whole returns the time in whole milliseconds of UTC. Times before 1970 are
// none.
func whole(t time.Time) time.Time {
	ms := t.UnixMilli()
	if ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
