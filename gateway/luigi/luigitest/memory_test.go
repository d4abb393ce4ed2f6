package luigitest_test

import (
	"testing"
	"time"

	"crossfade/gateway/luigi"
	"crossfade/gateway/luigi/luigitest"
)

func TestMemoryConforms(t *testing.T) {
	luigitest.TestStore(t, func(*testing.T) luigi.Store { return luigitest.NewMemory(nil) })
}

func TestMemoryForgetsInTime(t *testing.T) {
	luigitest.TestLives(t, func(*testing.T) luigitest.Clocked {
		now := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
		clock := func() time.Time { return now }
		return luigitest.Clocked{Store: luigitest.NewMemory(clock), Now: clock, Advance: func(d time.Duration) { now = now.Add(d) }}
	})
}
