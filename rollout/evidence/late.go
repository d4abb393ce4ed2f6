package evidence

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"crossfade/gateway/identity"
)

// late holds the parts of teams that could not be recorded while others could, one
// of each team. Later ones of those teams stay folded until it is recorded, for a
// store takes the parts of a team in order only.
type late struct {
	mu    sync.Mutex
	parts map[identity.Team]*TeamBatch
	// behind is since when something of a team is not recorded: its part, or what was
	// folded while that waited.
	behind map[identity.Team]time.Time
	kick   chan struct{}
	// rest is what was folded of them when the recorder ends; it comes once, after
	// the last batch.
	rest chan Batch
}

// teams are those that wait.
func (l *late) teams() map[identity.Team]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := make(map[identity.Team]bool, len(l.parts))
	for team := range l.parts {
		held[team] = true
	}
	return held
}

// since is since when something of teams is not recorded.
func (l *late) since() map[identity.Team]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.behind)
}

// caughtUp notes that a batch is recorded, for which so many teams were held: of all
// others it had what was folded while they waited.
func (l *late) caughtUp(held map[identity.Team]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.behind, func(team identity.Team, _ time.Time) bool { return !held[team] && l.parts[team] == nil })
}

// batch is all that waits, each part under the name that it had.
func (l *late) batch(replica string) Batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Batch{Replica: replica, Teams: maps.Clone(l.parts)}
}

// done takes out what was sent and is not left.
func (l *late) done(sent, left Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for team := range sent.Teams {
		if left.Teams[team] == nil {
			delete(l.parts, team)
		}
	}
}

// only returns the parts of some teams, each of which names the batch that it is of.
func (b Batch) only(teams []identity.Team) Batch {
	left := Batch{Replica: b.Replica, Seq: b.Seq, From: b.From, To: b.To, Teams: make(map[identity.Team]*TeamBatch, len(teams))}
	for _, team := range teams {
		if b.Teams[team] == nil {
			continue // which was not asked to be recorded
		}
		named, part := b.Of(team), *b.Teams[team]
		part.Seq, part.From, part.To = named.Seq, named.From, named.To
		left.Teams[team] = &part
	}
	return left
}

// postpone leaves parts to retry. Of those that find no room there the runs are
// lost, and what they were of counts as that.
func (r *Recorder) postpone(b Batch) {
	r.late.mu.Lock()
	runs := 0
	for _, part := range r.late.parts {
		runs += part.runs
	}
	for _, team := range slices.Sorted(maps.Keys(b.Teams)) {
		part := b.Teams[team]
		if runs += part.runs; runs > r.o.MaxRuns {
			runs -= part.runs
			r.total.Add(part.withoutRuns())
		}
		r.late.parts[team] = part
		r.late.behind[team] = earliest(r.late.behind[team], part.From)
	}
	r.late.mu.Unlock()
	select {
	case r.late.kick <- struct{}{}:
	default: // it is going to look
	}
}

// withoutRuns drops the runs of a part, and returns how many requests are not
// recorded whole for it.
func (t *TeamBatch) withoutRuns() (lost int64) {
	days := make(map[Day]*Daily, len(t.Days)) // the old ones may be under way to the store
	for day, d := range t.Days {
		if len(d.Runs) > 0 {
			lost += d.Requests()
			bare := *d
			bare.Runs = nil
			d = &bare
		}
		days[day] = d
	}
	t.Days, t.runs = days, 0
	t.Lost += lost
	return lost
}

// retry records what others could not wait for, until the recorder ends. Then what
// waits has one more attempt, and of teams that wait no more so has the rest.
func (r *Recorder) retry(ctx context.Context) {
	timeout := r.o.Timeout
	for ctx.Err() == nil {
		if err := r.tryLate(ctx, timeout); err != nil {
			timeout = r.longer(timeout)
			select {
			case <-ctx.Done():
			case <-time.After(r.o.Every):
			}
			continue
		}
		timeout = r.o.Timeout
		select {
		case <-ctx.Done():
		case <-r.late.kick:
			select { // what failed just now will in the same moment
			case <-ctx.Done():
			case <-time.After(r.o.Every):
			}
		}
	}
	tried := r.late.teams()
	_ = r.tryLate(ctx, r.o.Timeout) // and health knows
	rest := <-r.late.rest
	for team := range r.late.teams() {
		if !tried[team] { // it began to wait at the end
			_ = r.tryLate(ctx, r.o.Timeout)
			break
		}
	}
	for team, part := range r.late.parts { // nobody else has them any more
		r.total.Add(part.Requests())
		if folded := rest.Teams[team]; folded != nil {
			r.total.Add(folded.Requests())
			delete(rest.Teams, team)
		}
	}
	left, err := r.attempt(ctx, rest, r.o.Timeout)
	if err != nil {
		r.total.Add(left.Requests())
	}
	lost := make(map[identity.Team]bool, len(left.Teams))
	for team := range left.Teams {
		lost[team] = true
	}
	r.late.caughtUp(lost)
}

// tryLate makes one attempt to record what waits.
func (r *Recorder) tryLate(ctx context.Context, timeout time.Duration) error {
	b := r.late.batch(r.o.Replica)
	left, err := r.attempt(ctx, b, timeout)
	r.late.done(b, left)
	r.told.set("parts", err)
	return err
}

// health knows whether recording fails, and what was told of it.
type health struct {
	report func(error)

	mu       sync.Mutex
	troubles map[string]error
	keys     map[string]time.Time // of which it was told that they take nothing
}

// set notes how one of the two that record is doing, and tells when all was well
// and is not any more, or the other way round.
func (h *health) set(who string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := len(h.troubles) > 0
	delete(h.troubles, who)
	if err != nil {
		h.troubles[who] = err
	}
	if is := len(h.troubles) > 0; is != was {
		h.report(errors.Join(slices.Collect(maps.Values(h.troubles))...))
	}
}
