package redisstore

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// takeLease takes the lease or prolongs it.
//
//	KEYS  lease
//	ARGV  holder, milliseconds
var takeLease = redis.NewScript(`
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`)

// yieldLease gives it back.
//
//	KEYS  lease
//	ARGV  holder
var yieldLease = redis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
`)

func (s *Store) leaseKey() string { return s.prefix + ":lease" }

// Lease implements rollout.Leaser.
func (s *Store) Lease(ctx context.Context, holder string, ttl time.Duration) (bool, error) {
	held, err := takeLease.Run(ctx, s.client, []string{s.leaseKey()}, holder, max(ttl.Milliseconds(), 1)).Bool()
	if err != nil {
		return false, unavailable("take the lease", err)
	}
	return held, nil
}

// Yield implements rollout.Leaser.
func (s *Store) Yield(ctx context.Context, holder string) error {
	return unavailable("yield the lease", yieldLease.Run(ctx, s.client, []string{s.leaseKey()}, holder).Err())
}
