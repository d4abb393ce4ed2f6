package redisstore

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// InProcess is a store on a Redis inside this process, for trying Crossfade
// without one. It opens no port: connections are pipes. Nothing in it survives
// the process.
type InProcess struct {
	*Store
	mini *miniredis.Miniredis
	stop context.CancelFunc
	done sync.WaitGroup
}

// tick is how often the clock of the in-process Redis is moved; its keys live
// up to that much longer.
const tick = time.Second

// patience is how long a call may take whose context sets no limit. Nothing
// between the two ends can get lost; a busy machine is all there is to wait for.
const patience = time.Minute

// NewInProcess starts an empty one.
func NewInProcess() (*InProcess, error) { return OpenInProcess(Options{}) }

// OpenInProcess starts an empty one with options, of which those that say where a
// server is and how to reach it are not looked at.
func OpenInProcess(o Options) (*InProcess, error) {
	mini := miniredis.NewMiniRedis()
	client := redis.NewClient(&redis.Options{
		Addr: "in-process",
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			conn, err := mini.Dial()
			if err != nil {
				return nil, err
			}
			return newPipe(conn), nil
		},
		ReadTimeout: patience, WriteTimeout: patience, PoolTimeout: patience, ContextTimeoutEnabled: true,
		MaxRetries: -1, DialerRetries: 1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	o.Client = client
	store, err := New(o)
	if err != nil {
		return nil, err
	}
	store.owned = true
	ctx, stop := context.WithCancel(context.Background())
	p := &InProcess{Store: store, mini: mini, stop: stop}
	p.done.Go(func() { p.run(ctx) })
	return p, nil
}

// run moves the clock: miniredis lets keys expire only when it is told that
// time went by.
func (p *InProcess) run(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			now := time.Now()
			p.mini.FastForward(now.Sub(last))
			last = now
		}
	}
}

// Close ends the in-process Redis and forgets what it held.
func (p *InProcess) Close() error {
	p.stop()
	p.done.Wait()
	err := p.Store.Close()
	p.mini.Close()
	return err
}
