package redisstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

const (
	// schema is the version of the key layout. A store of a higher one is left
	// alone.
	schema = 1
	// historyLength is about how many changes of a team are kept.
	historyLength = 1000
)

// Load implements rollout.Reader.
func (s *Store) Load(ctx context.Context) (rollout.Snapshot, error) {
	snap := rollout.Snapshot{Teams: make(map[identity.Team]rollout.State), At: s.now()}
	var err error
	if snap.StoreID, err = s.id(ctx); err != nil {
		return rollout.Snapshot{}, err
	}
	teams, err := s.client.SMembers(ctx, s.teamsKey()).Result()
	if err != nil {
		return rollout.Snapshot{}, unavailable("read teams", err)
	}
	slices.Sort(teams)
	rows, err := s.rows(ctx, teams)
	if err != nil {
		return rollout.Snapshot{}, unavailable("read rollouts", err)
	}
	var missing *rollout.PartialError
	for i, name := range teams {
		team := identity.Team(name)
		row, err := rows[i].Result()
		if err != nil {
			missing = cmp.Or(missing, &rollout.PartialError{Err: unavailable("read the rollout of team "+name, err)})
			missing.Teams = append(missing.Teams, team)
			continue
		}
		state, err := parseState(team, row)
		if err != nil {
			return rollout.Snapshot{}, err
		}
		if state.Revision > 0 {
			snap.Teams[team] = state
		}
	}
	if missing != nil {
		return snap, missing
	}
	return snap, nil
}

// rows reads the rollouts of teams. Of a Cluster some may have failed, each with
// its error; the error is for where nothing can be read.
func (s *Store) rows(ctx context.Context, teams []string) ([]*redis.MapStringStringCmd, error) {
	rows := make([]*redis.MapStringStringCmd, len(teams))
	_, cluster := s.client.(*redis.ClusterClient)
	all, cancel := ctx, context.CancelFunc(func() {})
	if cluster {
		all, cancel = context.WithTimeout(ctx, timeout/2) // half of what a Table waits
	}
	defer cancel()
	_, err := s.client.Pipelined(all, func(p redis.Pipeliner) error {
		for i, team := range teams {
			rows[i] = p.HGetAll(all, s.teamKey(identity.Team(team), "rollout"))
		}
		return nil
	})
	if err == nil || !cluster {
		return rows, err
	}
	// A node is away or hangs, and the client may have given the answers of the
	// others up for it. So each team is asked for alone, and all at once, since who
	// waits for that node must not keep the others waiting.
	ctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	var reading sync.WaitGroup
	for i, team := range teams {
		reading.Go(func() { rows[i] = s.client.HGetAll(ctx, s.teamKey(identity.Team(team), "rollout")) })
	}
	reading.Wait()
	if !slices.ContainsFunc(rows, func(r *redis.MapStringStringCmd) bool { return r.Err() == nil }) {
		return nil, err
	}
	return rows, nil
}

// id returns the id of the store, which it makes if there is none.
func (s *Store) id(ctx context.Context) (string, error) {
	row, err := s.client.HMGet(ctx, s.storeKey(), "id", "schema").Result()
	if err == nil && row[0] == nil {
		row, err = createStore.Run(ctx, s.client, []string{s.storeKey()}, rand.Text(), schema, s.now().UnixMilli()).Slice()
	}
	if err != nil {
		return "", unavailable("read the store's id", err)
	}
	id, _ := row[0].(string)
	version, _ := row[1].(string)
	n, err := strconv.Atoi(version)
	switch {
	case id == "" || err != nil || n < 1:
		return "", fmt.Errorf("%w: key %s is damaged: it needs the fields id and schema", rollout.ErrUnavailable, s.storeKey())
	case n > schema:
		return "", fmt.Errorf("%w: key %s has schema %d, this version knows %d: run a newer one", rollout.ErrUnavailable, s.storeKey(), n, schema)
	}
	return id, nil
}

// Write implements rollout.Writer. The store's id is compared just before the
// script that writes, on another slot: a store that is emptied between the two
// is noticed by the next Load.
func (s *Store) Write(ctx context.Context, c rollout.Change) (rollout.State, error) {
	if err := c.Validate(); err != nil {
		return rollout.State{}, err
	}
	id, err := s.id(ctx)
	if err != nil {
		return rollout.State{}, err
	}
	if c.StoreID != "" && c.StoreID != id {
		return rollout.State{}, fmt.Errorf("%w: the store has id %s, not %s", rollout.ErrRegressed, id, c.StoreID)
	}
	if err := s.client.SAdd(ctx, s.teamsKey(), string(c.Team)).Err(); err != nil {
		return rollout.State{}, unavailable("add team", err)
	}
	request, err := rowText(c.Request)
	if err != nil {
		return rollout.State{}, err
	}
	hold, err := rowText(c.Hold)
	if err != nil {
		return rollout.State{}, err
	}
	credentials := ""
	if len(c.Credentials) > 0 {
		if credentials, err = rowText(&c.Credentials); err != nil {
			return rollout.State{}, err
		}
	}
	reply, err := writeChange.Run(ctx, s.client,
		[]string{s.teamKey(c.Team, "rollout"), s.teamKey(c.Team, "history")},
		s.channel(), string(c.Team), c.Expect, uint8(c.Percent), flag(c.Retire), c.When(s.now()).UnixMilli(), rollout.Algorithm,
		rand.Text(), historyLength, c.Actor, flag(c.Verified), c.Source, c.Reason,
		string(cmp.Or(c.Kind, rollout.KindSet)), c.Evidence, request, hold, credentials,
	).Slice()
	if err != nil {
		return rollout.State{}, unavailable("write team "+string(c.Team)+" (look whether the change was made before trying again)", err)
	}
	word, fields := reply[0], pairs(reply[1])
	state, err := parseState(c.Team, fields)
	switch {
	case err != nil:
		return rollout.State{}, err
	case word == "conflict":
		return state, &rollout.ConflictError{Expected: c.Expect, Current: state}
	case word == "retired":
		return state, fmt.Errorf("%w: %q stays at 100 percent and cannot be lowered", rollout.ErrRetired, string(c.Team))
	}
	return state, nil
}

// rowText writes what is to be replaced as JSON; "" leaves it.
func rowText[T any](v *T) (string, error) {
	if v == nil {
		return "", nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("write a change: %w", err)
	}
	return string(text), nil
}

// History implements rollout.Reader.
func (s *Store) History(ctx context.Context, team identity.Team, limit int) ([]rollout.Entry, error) {
	if limit < 1 {
		return nil, nil
	}
	key := s.teamKey(team, "history")
	messages, err := s.client.XRevRangeN(ctx, key, "+", "-", int64(limit)).Result()
	if err != nil {
		return nil, unavailable("read history of team "+string(team), err)
	}
	entries := make([]rollout.Entry, 0, len(messages))
	for _, m := range messages {
		row := make(map[string]string, len(m.Values))
		for name, value := range m.Values {
			row[name], _ = value.(string)
		}
		f := fields{row: row}
		entries = append(entries, rollout.Entry{
			Revision: f.number("revision"), From: f.percent("from"), To: f.percent("to"),
			Retired: f.flag("retired"), Actor: row["actor"], Verified: f.flag("verified"),
			Source: row["source"], Reason: row["reason"], Evidence: row["evidence"], At: f.time("at"),
			Kind: cmp.Or(rollout.Kind(row["kind"]), rollout.KindSet), // before there were kinds, all were of this one
		})
		if f.err != nil {
			return nil, fmt.Errorf("%w: entry %s of key %s is damaged: %w", rollout.ErrUnavailable, m.ID, key, f.err)
		}
	}
	return entries, nil
}

// Watch implements rollout.Watcher. The client connects again by itself, so
// Watch ends with ctx only.
func (s *Store) Watch(ctx context.Context, changed func(identity.Team)) error {
	sub := s.client.Subscribe(ctx, s.channel())
	defer func() { _ = sub.Close() }()
	events := sub.ChannelWithSubscriptions()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event, ok := <-events:
			if !ok {
				return unavailable("watch", errors.New("the subscription was closed"))
			}
			switch event := event.(type) {
			case *redis.Subscription: // also after each new connection
				changed("")
			case *redis.Message:
				_, team, _ := strings.Cut(event.Payload, " ")
				changed(identity.Team(team))
			}
		}
	}
}

// Latch implements rollout.Latcher.
func (s *Store) Latch(ctx context.Context, key rollout.LatchKey, l rollout.Latch, lowered int64) (rollout.Latch, error) {
	got, _, err := s.latch(ctx, key, l.Spares, flag(l.Enforced), l.Revision, l.At.UnixMilli(), l.Pipeline, lowered)
	return got, err
}

// Latched implements rollout.Latcher.
func (s *Store) Latched(ctx context.Context, key rollout.LatchKey) (rollout.Latch, bool, error) {
	return s.latch(ctx, key, false, "", 0, 0, "", 0)
}

func (s *Store) latch(ctx context.Context, key rollout.LatchKey, spares bool, args ...any) (rollout.Latch, bool, error) {
	args = append(args, rollout.LatchIdle.Milliseconds(), rollout.LatchMax.Milliseconds(), key.Run, s.counted, flag(spares))
	keys := append([]string{s.latchKey(key)}, s.latchedKeys(key.Team)...)
	value, err := latchRun.Run(ctx, s.client, keys, args...).Text()
	if errors.Is(err, redis.Nil) {
		return rollout.Latch{}, false, nil
	}
	if err != nil {
		return rollout.Latch{}, false, unavailable("latch a run", err)
	}
	l, err := parseLatch(value)
	if err != nil {
		return rollout.Latch{}, false, fmt.Errorf("%w: key %s is damaged: %w", rollout.ErrUnavailable, s.latchKey(key), err)
	}
	return l, true, nil
}

// CountLatches implements rollout.LatchCounter.
func (s *Store) CountLatches(ctx context.Context, team identity.Team) (rollout.LatchCount, error) {
	counts, err := countLatches.Run(ctx, s.client, s.latchedKeys(team), (rollout.LatchIdle - s.inFlight).Milliseconds()).Int64Slice()
	if err != nil {
		return rollout.LatchCount{}, unavailable("count the latches of team "+string(team), err)
	}
	if len(counts) != 2 {
		return rollout.LatchCount{}, fmt.Errorf("%w: %d counts of latches in place of two", rollout.ErrUnavailable, len(counts))
	}
	return rollout.LatchCount{Enforced: counts[0], Unenforced: counts[1]}, nil
}

// parseLatch reads the form that latchRun writes.
func parseLatch(value string) (rollout.Latch, error) {
	parts := strings.SplitN(value, "|", 5)
	if len(parts) != 5 || parts[0] != "1" {
		return rollout.Latch{}, errors.New("unknown form")
	}
	f := fields{row: map[string]string{"enforced": parts[1], "revision": parts[2], "at": parts[3]}}
	l := rollout.Latch{Enforced: f.flag("enforced"), Revision: f.number("revision"), Pipeline: parts[4], At: f.time("at")}
	return l, f.err
}

func parseState(team identity.Team, row map[string]string) (rollout.State, error) {
	if len(row) == 0 || row["revision"] == "" {
		return rollout.State{Team: team}, nil // never written; later fields may stand there already
	}
	f := fields{row: row}
	state := rollout.State{
		Team: team, Percent: f.percent("percent"), Previous: f.percent("previous"), Revision: f.number("revision"),
		RaisedAt: f.time("raised_at"), LoweredAt: f.time("lowered_at"), LoweredRevision: f.number("lowered_revision"),
		Algorithm: int(f.number("algorithm")), Retired: f.flag("retired"), UpdatedAt: f.time("updated_at"),
		Source: row["source"],
	}
	f.json("request", &state.Request)
	f.json("hold", &state.Hold)
	f.json("credentials", &state.Credentials)
	if f.err != nil {
		return rollout.State{}, fmt.Errorf("%w: the rollout of team %q is damaged: %w", rollout.ErrUnavailable, string(team), f.err)
	}
	return state, nil
}

// fields reads the fields of a row and keeps the first error. An absent field
// is zero.
type fields struct {
	row map[string]string
	err error
}

func (f *fields) number(name string) int64 {
	text := f.row[name]
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if (err != nil || n < 0) && f.err == nil {
		f.err = fmt.Errorf("field %s: %q is not a number", name, text)
	}
	return n
}

func (f *fields) percent(name string) rollout.Percent {
	n := f.number(name)
	if n > int64(rollout.Full) && f.err == nil {
		f.err = fmt.Errorf("field %s: %d is above 100", name, n)
	}
	return rollout.Percent(min(max(n, 0), int64(rollout.Full)))
}

// json reads a field of JSON.
func (f *fields) json(name string, into any) {
	if text := f.row[name]; text != "" {
		if err := json.Unmarshal([]byte(text), into); err != nil && f.err == nil {
			f.err = fmt.Errorf("field %s: %w", name, err)
		}
	}
}

func (f *fields) flag(name string) bool { return f.number(name) == 1 }

func (f *fields) time(name string) time.Time {
	n := f.number(name)
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// pairs turns a flat list of names and values into a map.
func pairs(reply any) map[string]string {
	list, _ := reply.([]any)
	out := make(map[string]string, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		name, _ := list[i].(string)
		out[name], _ = list[i+1].(string)
	}
	return out
}
