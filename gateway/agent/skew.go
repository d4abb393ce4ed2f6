package agent

import (
	"fmt"
	"net/http"
	"time"
)

// toldSkew is from where on a difference of clocks is worth a word: identity
// providers and gateways allow for about a minute.
const toldSkew = 20 * time.Second

// skewOf measures by how much the clock that stamped a reply is ahead of this
// machine's, from its Date header (RFC 9110 section 6.6.1), which has whole
// seconds. The reply was stamped somewhen between asked and answered, so only
// what lies outside counts: the result is 0 where the two may agree. ok is false
// without a date, and for a reply that comes out of a cache.
func skewOf(h http.Header, asked, answered time.Time) (ahead time.Duration, ok bool) {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil || h.Get("Age") != "" {
		return 0, false
	}
	// The stamp stands for any moment of its second.
	switch last := date.Add(time.Second); {
	case date.After(answered):
		return date.Sub(answered), true
	case last.Before(asked):
		return last.Sub(asked), true
	default:
		return 0, true
	}
}

func telling(skew time.Duration) bool { return skew.Abs() >= toldSkew }

func skewText(ahead time.Duration) string {
	side := "behind"
	if ahead < 0 {
		side = "ahead of"
	}
	return fmt.Sprintf("The clock of this machine is %s %s the gateway's: set it, or tokens look expired or not yet valid.",
		ahead.Abs().Round(time.Second), side)
}
