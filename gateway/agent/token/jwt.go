package token

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"
	"time"
)

// lastSecond is the end of the year 9999: RFC 3339 has no later times.
const lastSecond = 253402300799

// expOf returns the claim exp of a JWT in compact form (RFC 7519 section 4.1.4).
// It verifies nothing: the claim only says when to ask for a new token.
func expOf(token string) (exp time.Time, ok bool) {
	if len(token) > maxToken || strings.Count(token, ".") != 2 {
		return time.Time{}, false
	}
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Exp *float64 `json:"exp"`
	}
	if json.Unmarshal(raw, &claims) != nil || claims.Exp == nil || *claims.Exp < 0 || *claims.Exp > lastSecond {
		return time.Time{}, false
	}
	return time.Unix(int64(math.Floor(*claims.Exp)), 0), true
}
