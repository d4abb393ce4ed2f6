package token

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// held is a token with what decides how long it is good. The zero value is no
// token. It is immutable.
type held struct {
	token Token
	// started is when it was asked for, with the monotonic clock.
	started time.Time
	// said is the end by this machine's clock, as whoever issued it said. Zero if
	// nobody did, or if it is the claim itself.
	said time.Time
	// claim is the end by the clock of whoever verifies: the claim exp. Zero for
	// none.
	claim time.Time
	// jitter is where in its life the token is refreshed.
	jitter float64
}

// hold takes a token that was asked for at started.
func hold(t Token, started time.Time) held {
	if t.Obtained.IsZero() {
		t.Obtained = started
	}
	h := held{token: t, started: started, said: t.Expiry.Round(0)}
	h.jitter = 2. / 3 * (0.9 + 0.2*rand.Float64())
	if claim, ok := expOf(t.Value.Reveal()); ok {
		h.claim = claim
		if h.said.Equal(claim) {
			h.said = time.Time{}
		}
	}
	return h
}

func (h *held) known() bool { return !h.token.Value.Empty() }

// end returns when the token ends by this machine's wall clock, given by how
// much the gateway's is ahead.
func (h *held) end(skew time.Duration) time.Time {
	switch claim := h.claim.Add(-skew); {
	case h.claim.IsZero() && h.said.IsZero():
		return h.started.Add(unknownLife).Round(0)
	case h.claim.IsZero():
		return h.said
	case h.said.IsZero():
		return claim
	default:
		return earlier(h.said, claim)
	}
}

// life is how long the token is good from when it was asked for.
func (h *held) life(skew time.Duration) time.Duration {
	return h.end(skew).Sub(h.started.Round(0))
}

// good reports whether the token may be handed out: neither the wall clock nor
// the time that has passed ends it. The first catches a machine that slept, the
// second a clock that was set back.
func (h *held) good(now time.Time, skew time.Duration) bool {
	if !h.known() {
		return false
	}
	last := h.lastAt(skew)
	return now.Round(0).Before(last.Round(0)) && now.Before(last)
}

// lastAt returns until when the token is good if no clock is set.
func (h *held) lastAt(skew time.Duration) time.Time {
	life := h.life(skew)
	return h.started.Add(life - min(maxLeeway, life/10))
}

// refresh returns when to ask for the next token.
func (h *held) refresh(skew time.Duration) time.Time {
	return h.started.Add(time.Duration(float64(h.life(skew)) * h.jitter))
}

// check says what is wrong with a token that has just come.
func (h *held) check(now time.Time, skew time.Duration) error {
	switch {
	case !h.known():
		return errors.New("obtain a token: its source returned an empty one; that is a fault of the source")
	case h.good(now, skew):
		return nil
	}
	return fmt.Errorf("obtain a token: the one that came ended at %s, and it is %s here: "+
		"the source does not renew it, or the clock of this machine is wrong",
		h.end(skew).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
}
