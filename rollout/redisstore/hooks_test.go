package redisstore_test

import (
	"context"
	"strings"

	"github.com/redis/go-redis/v9"
)

// roundTrips counts how often a client sends scripts, a pipeline as once.
type roundTrips struct{ n int }

func (r *roundTrips) count(cmds ...redis.Cmder) {
	if strings.HasPrefix(cmds[0].Name(), "eval") { // no greeting of a new connection
		r.n++
	}
}

func (r *roundTrips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *roundTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		r.count(cmd)
		return next(ctx, cmd)
	}
}

func (r *roundTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		r.count(cmds...)
		return next(ctx, cmds)
	}
}
