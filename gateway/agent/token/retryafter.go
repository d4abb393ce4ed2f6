package token

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// mostRetryAfter bounds what is read of a Retry-After. The Keeper bounds it
// further.
const mostRetryAfter = 24 * time.Hour

// retryAfter returns for how long a provider does not want to be asked again
// (RFC 9110 section 10.2.3): a number of seconds, or a date, which is held
// against the provider's own clock where its answer shows it. It is 0 unless the
// status is 429 (RFC 6585 section 4) or 503, and for what is neither.
func retryAfter(status int, header http.Header, now time.Time) time.Duration {
	if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
		return 0
	}
	text := strings.TrimSpace(header.Get("Retry-After"))
	if text != "" && strings.Trim(text, "0123456789") == "" {
		n, err := strconv.Atoi(text)
		if err != nil || n > int(mostRetryAfter/time.Second) {
			return mostRetryAfter
		}
		return time.Duration(n) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if theirs, err := http.ParseTime(header.Get("Date")); err == nil {
		now = theirs
	}
	return min(max(at.Sub(now), 0), mostRetryAfter)
}
