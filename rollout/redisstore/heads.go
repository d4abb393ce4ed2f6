package redisstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// putHead keeps a head unless a later one is there, and returns the number of
// the one that is kept.
//
//	KEYS  heads
//	ARGV  replica, seq, head
//
// A head is kept as "<seq> <head>".
var putHead = redis.NewScript(`
local current = redis.call('HGET', KEYS[1], ARGV[1])
local kept = tonumber(current and string.match(current, '^(%d+) ') or '0')
if kept > tonumber(ARGV[2]) then return string.format('%.0f', kept) end
if kept < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3]) end
return ARGV[2]
`)

func (s *Store) headsKey() string { return s.prefix + ":audit:heads" }

// PutHead keeps how far the audit trail of a replica has come: head is text
// about line seq. A head never goes back: with a higher seq in the store
// nothing changes, and the error says so; with the same one the first stays.
func (s *Store) PutHead(ctx context.Context, replica string, seq int64, head string) error {
	kept, err := putHead.Run(ctx, s.client, []string{s.headsKey()}, replica, seq, head).Text()
	if err != nil {
		return unavailable("keep the head of the audit trail", err)
	}
	if kept != fmt.Sprint(seq) {
		return fmt.Errorf("the store knows line %s of %s already, which line %d does not follow", kept, replica, seq)
	}
	return nil
}

// Heads returns the head of every replica that ever kept one.
func (s *Store) Heads(ctx context.Context) (map[string]string, error) {
	rows, err := s.client.HGetAll(ctx, s.headsKey()).Result()
	if err != nil {
		return nil, unavailable("read the heads of the audit trail", err)
	}
	heads := make(map[string]string, len(rows))
	for replica, row := range rows {
		_, heads[replica], _ = strings.Cut(row, " ")
	}
	return heads, nil
}
