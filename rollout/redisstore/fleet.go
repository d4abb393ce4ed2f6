package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"crossfade/rollout/evidence"
	"crossfade/rollout/fleet"
)

var _ fleet.Store = (*Store)(nil)

// beat notes a sign of life, by the server's clock, and who gave it.
//
//	KEYS  replicas
//	ARGV  id, JSON
//
// A replica's id is a member with the time as its score; "=<id> <JSON>" is one
// more, at the score 0, that says what it is. So both lie in one key.
var beat = redis.NewScript(`
local clock = redis.call('TIME')
redis.call('ZADD', KEYS[1], tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000), ARGV[1])
local about = '=' .. ARGV[1] .. ' '
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], 0, 0)) do
  if string.sub(member, 1, #about) == about then redis.call('ZREM', KEYS[1], member) end
end
redis.call('ZADD', KEYS[1], 0, about .. ARGV[2])
return 1
`)

// leave removes a replica, if its last sign of life is the given one or none is
// given.
//
//	KEYS  replicas
//	ARGV  id, milliseconds or ''
var leave = redis.NewScript(`
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or (ARGV[2] ~= '' and tonumber(score) ~= tonumber(ARGV[2])) then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
local about = '=' .. ARGV[1] .. ' '
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], 0, 0)) do
  if string.sub(member, 1, #about) == about then redis.call('ZREM', KEYS[1], member) end
end
return 1
`)

// readFleet returns the replicas and the server's time.
//
//	KEYS  replicas
var readFleet = redis.NewScript(`
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
return {string.format('%.0f', now), redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')}
`)

func (s *Store) replicasKey() string { return s.prefix + ":replicas" }

// Beat implements fleet.Store.
func (s *Store) Beat(ctx context.Context, r fleet.Replica) error {
	if r.ID == "" || strings.ContainsAny(r.ID, " =") {
		return fmt.Errorf("a sign of life: the id %q must be a word without spaces and equals signs", r.ID)
	}
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("a sign of life: %w", err)
	}
	return unavailable("give a sign of life", beat.Run(ctx, s.client, []string{s.replicasKey()}, r.ID, text).Err())
}

// Leave implements fleet.Store.
func (s *Store) Leave(ctx context.Context, id string) error {
	return unavailable("say goodbye", leave.Run(ctx, s.client, []string{s.replicasKey()}, id, "").Err())
}

// Fleet implements fleet.Store.
func (s *Store) Fleet(ctx context.Context) ([]fleet.Replica, time.Time, error) {
	reply, err := readFleet.Run(ctx, s.client, []string{s.replicasKey()}).Slice()
	if err != nil {
		return nil, time.Time{}, unavailable("read who gives signs of life", err)
	}
	all, now, err := parseFleet(reply)
	if err != nil {
		return nil, time.Time{}, damaged(s.replicasKey(), err)
	}
	return all, now, nil
}

// parseFleet reads what readFleet returns.
func parseFleet(reply []any) ([]fleet.Replica, time.Time, error) {
	if len(reply) != 2 {
		return nil, time.Time{}, errors.New("unknown form")
	}
	seen := make(map[string]time.Time)
	var all []fleet.Replica
	for member, score := range pairs(reply[1]) {
		about, ok := strings.CutPrefix(member, "=")
		if !ok {
			f := fields{row: map[string]string{"seen": score}}
			seen[member] = f.time("seen")
			if f.err != nil {
				return nil, time.Time{}, f.err
			}
			continue
		}
		id, text, _ := strings.Cut(about, " ")
		var r fleet.Replica
		if err := json.Unmarshal([]byte(text), &r); err != nil || r.ID != id {
			return nil, time.Time{}, fmt.Errorf("replica %q is described as %q", id, text)
		}
		all = append(all, r)
	}
	for i := range all {
		all[i].Seen = seen[all[i].ID]
	}
	slices.SortFunc(all, func(a, b fleet.Replica) int { return strings.Compare(a.ID, b.ID) })
	text, _ := reply[0].(string)
	f := fields{row: map[string]string{"now": text}}
	return all, f.time("now"), f.err
}

// Bury implements fleet.Store.
func (s *Store) Bury(ctx context.Context, r fleet.Replica) (bool, error) {
	done, err := leave.Run(ctx, s.client, []string{s.replicasKey()}, r.ID, millis(r.Seen)).Bool()
	if err != nil {
		return false, unavailable("bury a replica", err)
	}
	return done, nil
}

// Gap implements fleet.Store.
func (s *Store) Gap(ctx context.Context, gap evidence.Gap) error { return s.addGap(ctx, gap) }
