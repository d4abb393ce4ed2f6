package agent

import (
	"encoding/base64"
	"net/http"
	"strings"

	"crossfade/gateway/identity"
)

// The headers between agent and gateway.
const (
	companionHeader = "Crossfade-Token"
	abortHeader     = "Crossfade-Abort"
	reasonHeader    = "Crossfade-Reason"
	// ours begins the name of each of them; no worker has anything to say there.
	ours = "Crossfade-"
)

// TokenUser is the user name under which the gateway takes a token for a
// password, from clients that can send nothing but Basic.
const TokenUser = "oidc"

// DefaultLegacyHeader is where API keys travel, unless the gateway was told
// otherwise.
const DefaultLegacyHeader = "X-API-Key"

// sent is what the agent did with the credentials of one request.
type sent struct {
	// legacy tells that the worker's own credential went along, token that ours
	// did.
	legacy, token bool
}

// credentials sets the headers of a request to the gateway. h holds what the
// worker sent, run is what the run is called; have is a token that is good, or empty. Without a credential that
// may go, both fields of the result are false and the request must not go.
//
// A legacy credential and a token cannot both stand in Authorization: the token
// is the companion then.
func credentials(h http.Header, mode Mode, legacyHeader string, run []string, have identity.Secret) sent {
	for name := range h {
		if strings.HasPrefix(name, ours) {
			delete(h, name)
		}
	}
	authorization := h["Authorization"]
	var did sent
	if mode == ModeToken {
		h.Del("Authorization")
		h.Del(legacyHeader)
	} else {
		if len(authorization) > 0 && ownToken(authorization) {
			// The worker was given a token of its own, by a netrc file perhaps. Two
			// tokens are one too many, and ours is fresh.
			h.Del("Authorization")
		}
		did.legacy = h.Get("Authorization") != "" || h.Get(legacyHeader) != ""
	}
	h.Set(abortHeader, "off")
	if len(run) > 0 {
		h[runHeader] = run
	}
	if have.Empty() {
		return did
	}
	did.token = true
	if h.Get("Authorization") != "" {
		h.Set(companionHeader, have.Reveal())
	} else {
		h.Set("Authorization", "Bearer "+have.Reveal())
	}
	return did
}

// ownToken reports whether the worker presents an OIDC token as the password of
// the reserved user.
func ownToken(authorization []string) bool {
	if len(authorization) != 1 {
		return false
	}
	scheme, encoded, _ := strings.Cut(authorization[0], " ")
	if !strings.EqualFold(scheme, "Basic") {
		return false
	}
	pair, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	return err == nil && strings.HasPrefix(string(pair), TokenUser+":")
}
