// Package rollouttest holds what tests need of a rollout store: one in memory
// that can be made to fail, a real redis-server, and the conformance suite that
// every store passes.
package rollouttest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// historyLength is how many entries of a team Memory keeps.
const historyLength = 1000

// Memory is a rollout.Store in memory. Its clock is time.Now, so it keeps step
// with testing/synctest. It is safe for concurrent use.
type Memory struct {
	mu       sync.Mutex
	down     error
	hang     bool
	mute     bool
	away     []identity.Team // in order
	calls    int
	id       string
	teams    map[identity.Team]rollout.State
	history  map[identity.Team][]rollout.Entry // oldest first
	latches  map[rollout.LatchKey]latchRow
	holder   string
	leased   time.Time // until when holder has the lease
	watchers map[chan identity.Team]bool
}

type latchRow struct {
	latch rollout.Latch
	until time.Time
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	m := &Memory{watchers: make(map[chan identity.Team]bool)}
	m.Flush()
	return m
}

// Flush empties the store, which has another id afterwards, as a Redis has
// after FLUSHALL.
func (m *Memory) Flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.id = rand.Text()
	m.teams = make(map[identity.Team]rollout.State)
	m.history = make(map[identity.Team][]rollout.Entry)
	m.latches = make(map[rollout.LatchKey]latchRow)
	m.holder, m.leased = "", time.Time{}
}

// Restore implements rollout.Restorer.
func (m *Memory) Restore(ctx context.Context, s rollout.Snapshot, by rollout.Setting) ([]identity.Team, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if s.StoreID == "" {
		return nil, errors.New("restore: the snapshot has no id of a store")
	}
	var changed []identity.Team
	for _, team := range slices.Sorted(maps.Keys(s.Teams)) {
		next, entry, ok := rollout.Restored(m.teams[team], s.Teams[team], by, time.Now())
		if !ok {
			continue
		}
		m.teams[team] = next
		m.history[team] = append(m.history[team], entry)
		changed = append(changed, team)
	}
	m.id = s.StoreID
	return changed, nil
}

// ReadBack puts the states and the id of a snapshot in place of the present
// ones, as a backup does that is read back. Histories end where they did then.
func (m *Memory) ReadBack(s rollout.Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.id, m.teams = s.StoreID, maps.Clone(s.Teams)
	for team, entries := range m.history {
		m.history[team] = slices.DeleteFunc(slices.Clone(entries), func(e rollout.Entry) bool { return e.Revision > s.Teams[team].Revision })
	}
}

// SetDown makes every call fail at once, or work again.
func (m *Memory) SetDown(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = nil
	if down {
		m.down = fmt.Errorf("%w: the test has taken it down", rollout.ErrUnavailable)
	}
}

// SetHang makes every call wait until its context ends, or work again.
func (m *Memory) SetHang(hang bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hang = hang
}

// SetAway makes some teams unreadable and unchangeable, in order of their ids, as a
// node of a Cluster that is away does; none makes all work again.
func (m *Memory) SetAway(teams ...identity.Team) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = teams
}

// SetMute loses the messages of all changes, or no longer.
func (m *Memory) SetMute(mute bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mute = mute
}

// Calls returns how many calls reached the store, failed ones included.
func (m *Memory) Calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// Latches returns how many latches are in force.
func (m *Memory) Latches() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, now := 0, time.Now()
	for _, row := range m.latches {
		if now.Before(row.until) {
			n++
		}
	}
	return n
}

// enter begins a call. On nil the caller holds the lock.
func (m *Memory) enter(ctx context.Context) error {
	m.mu.Lock()
	m.calls++
	down, hang := m.down, m.hang
	if down == nil && !hang && ctx.Err() == nil {
		return nil
	}
	m.mu.Unlock()
	if down != nil {
		return down
	}
	<-ctx.Done() // at once, unless the store hangs
	return fmt.Errorf("%w: %w", rollout.ErrUnavailable, ctx.Err())
}

// Load implements rollout.Reader.
func (m *Memory) Load(ctx context.Context) (rollout.Snapshot, error) {
	at := time.Now()
	if err := m.enter(ctx); err != nil {
		return rollout.Snapshot{}, err
	}
	defer m.mu.Unlock()
	snap := rollout.Snapshot{StoreID: m.id, Teams: maps.Clone(m.teams), At: at}
	if len(m.away) == 0 {
		return snap, nil
	}
	for _, team := range m.away {
		delete(snap.Teams, team)
	}
	return snap, &rollout.PartialError{Teams: m.away, Err: fmt.Errorf("%w: the test has taken the node away", rollout.ErrUnavailable)}
}

// History implements rollout.Reader.
func (m *Memory) History(ctx context.Context, team identity.Team, limit int) ([]rollout.Entry, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	entries := slices.Clone(m.history[team])
	slices.Reverse(entries)
	return entries[:min(len(entries), max(0, limit))], nil
}

// Write implements rollout.Writer.
func (m *Memory) Write(ctx context.Context, c rollout.Change) (rollout.State, error) {
	if err := m.enter(ctx); err != nil {
		return rollout.State{}, err
	}
	defer m.mu.Unlock()
	if slices.Contains(m.away, c.Team) {
		return rollout.State{}, fmt.Errorf("%w: the test has taken the node of %s away", rollout.ErrUnavailable, c.Team)
	}
	if c.StoreID != "" && c.StoreID != m.id {
		return rollout.State{}, fmt.Errorf("%w: the store has id %s, not %s", rollout.ErrRegressed, m.id, c.StoreID)
	}
	before := m.teams[c.Team]
	before.Team = c.Team
	next, entry, err := rollout.Apply(before, c, time.Now())
	if err != nil {
		return next, err
	}
	m.teams[c.Team] = next
	kept := append(m.history[c.Team], entry)
	m.history[c.Team] = kept[max(0, len(kept)-historyLength):]
	if !m.mute {
		for w := range m.watchers {
			select {
			case w <- c.Team:
			default: // best effort, as the interface says
			}
		}
	}
	return next, nil
}

// Watch implements rollout.Watcher.
func (m *Memory) Watch(ctx context.Context, changed func(identity.Team)) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	events := make(chan identity.Team, 256)
	m.watchers[events] = true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watchers, events)
	}()
	changed("")
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case team := <-events:
			changed(team)
		}
	}
}

// Lease implements rollout.Leaser.
func (m *Memory) Lease(ctx context.Context, holder string, ttl time.Duration) (bool, error) {
	if err := m.enter(ctx); err != nil {
		return false, err
	}
	defer m.mu.Unlock()
	now := time.Now()
	if m.holder != holder && now.Before(m.leased) {
		return false, nil
	}
	m.holder, m.leased = holder, now.Add(ttl)
	return true, nil
}

// Yield implements rollout.Leaser.
func (m *Memory) Yield(ctx context.Context, holder string) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if m.holder == holder {
		m.leased = time.Time{}
	}
	return nil
}

// Latch implements rollout.Latcher.
func (m *Memory) Latch(ctx context.Context, key rollout.LatchKey, l rollout.Latch, lowered int64) (rollout.Latch, error) {
	if err := m.enter(ctx); err != nil {
		return rollout.Latch{}, err
	}
	defer m.mu.Unlock()
	l.At = time.UnixMilli(l.At.UnixMilli()).UTC()
	now := time.Now()
	if cur, ok := m.inForce(key, now); ok {
		if cur.Freed(lowered) && cur.Pipeline != "" && cur.Pipeline != l.Pipeline {
			return cur, nil
		}
		l.At = cur.At
		if !cur.Freed(lowered) {
			if cur.Pipeline == "" {
				cur.Pipeline = l.Pipeline
			}
			cur.Enforced = cur.Enforced && !l.Spares
			l = cur
		}
	}
	l.Spares = false
	m.keep(key, l, now)
	return l, nil
}

// Latched implements rollout.Latcher.
func (m *Memory) Latched(ctx context.Context, key rollout.LatchKey) (rollout.Latch, bool, error) {
	if err := m.enter(ctx); err != nil {
		return rollout.Latch{}, false, err
	}
	defer m.mu.Unlock()
	now := time.Now()
	l, ok := m.inForce(key, now)
	if ok {
		m.keep(key, l, now)
	}
	return l, ok, nil
}

// CountLatches implements rollout.LatchCounter.
func (m *Memory) CountLatches(ctx context.Context, team identity.Team) (n rollout.LatchCount, err error) {
	if err := m.enter(ctx); err != nil {
		return rollout.LatchCount{}, err
	}
	defer m.mu.Unlock()
	now := time.Now()
	for key := range m.latches {
		l, ok := m.inForce(key, now)
		switch {
		case !ok || key.Team != team || m.latches[key].until.Sub(now) <= rollout.LatchIdle-rollout.InFlight:
		case l.Enforced:
			n.Enforced++
		default:
			n.Unenforced++
		}
	}
	return n, nil
}

func (m *Memory) inForce(key rollout.LatchKey, now time.Time) (rollout.Latch, bool) {
	row, ok := m.latches[key]
	return row.latch, ok && now.Before(row.until)
}

func (m *Memory) keep(key rollout.LatchKey, l rollout.Latch, now time.Time) {
	until := now.Add(rollout.LatchIdle)
	if end := l.At.Add(rollout.LatchMax); end.Before(until) {
		until = end
	}
	m.latches[key] = latchRow{latch: l, until: until}
}
