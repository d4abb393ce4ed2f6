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

// payloadOf returns the claims of a JWT in compact form (RFC 7519 section 7.2).
// It verifies nothing.
func payloadOf(token string) (payload []byte, ok bool) {
	if len(token) > maxToken || strings.Count(token, ".") != 2 {
		return nil, false
	}
	_, rest, _ := strings.Cut(token, ".")
	middle, _, _ := strings.Cut(rest, ".")
	payload, err := base64.RawURLEncoding.DecodeString(middle)
	return payload, err == nil
}

// expOf returns the claim exp of a JWT (RFC 7519 section 4.1.4). It only says
// when to ask for a new token.
func expOf(token string) (exp time.Time, ok bool) {
	var claims struct {
		Exp *float64 `json:"exp"`
	}
	payload, ok := payloadOf(token)
	if !ok || json.Unmarshal(payload, &claims) != nil || claims.Exp == nil || *claims.Exp < 0 || *claims.Exp > lastSecond {
		return time.Time{}, false
	}
	return time.Unix(int64(math.Floor(*claims.Exp)), 0), true
}
