package breaker_test

import (
	"errors"
	"testing"
	"time"

	"crossfade/gateway/breaker"
)

var errAway = errors.New("away")

func TestAFailureKeepsOthersFromAskingUntilOneMayTry(t *testing.T) {
	var b breaker.Breaker
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	asked := 0
	call := func(err error) error {
		return b.Call(now, func() error { asked++; return err })
	}
	for i, step := range []struct {
		after  time.Duration
		reply  error
		want   error
		nAsked int
	}{
		{0, nil, nil, 1},
		{0, errAway, errAway, 2},
		{0, nil, breaker.ErrOpen, 2},                      // nobody is asked
		{249 * time.Millisecond, nil, breaker.ErrOpen, 2}, // not yet
		{time.Millisecond, errAway, errAway, 3},           // one tries
		{499 * time.Millisecond, nil, breaker.ErrOpen, 3}, // twice as long
		{time.Millisecond, nil, nil, 4},                   // well again
		{0, nil, nil, 5},
	} {
		now = now.Add(step.after)
		if err := call(step.reply); !errors.Is(err, step.want) {
			t.Fatalf("step %d: %v, want %v", i, err, step.want)
		}
		if asked != step.nAsked {
			t.Fatalf("step %d: asked %d times, want %d", i, asked, step.nAsked)
		}
	}
}

func TestAPauseIsNeverLongerThanFiveSeconds(t *testing.T) {
	var b breaker.Breaker
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for range 20 {
		_ = b.Call(now, func() error { return errAway })
		now = now.Add(5 * time.Second)
	}
	if err := b.Call(now, func() error { return nil }); err != nil {
		t.Errorf("after the longest pause: %v", err)
	}
}

func TestAPanicIsAFailureAndLetsTheNextOneTry(t *testing.T) {
	var b breaker.Breaker
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	func() {
		defer func() { _ = recover() }()
		_ = b.Call(now, func() error { panic("a bug") })
	}()
	if err := b.Call(now, func() error { return nil }); !errors.Is(err, breaker.ErrOpen) {
		t.Errorf("right after the panic: %v", err)
	}
	if err := b.Call(now.Add(time.Second), func() error { return nil }); err != nil {
		t.Errorf("a second later: %v", err)
	}
}
