package audit

import (
	"net/netip"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// Change is the rest of a line of kind change: somebody changed what a team
// stands at, asks for, or is held by. What does not apply is left out.
type Change struct {
	Team string `json:"team"`
	// Change is its kind, as the team's history has it, and Revision the team's
	// after it.
	Change   string `json:"change"`
	Revision int64  `json:"revision"`
	From     int    `json:"from"`
	To       int    `json:"to"`
	// Requested is what is asked for, where that changed.
	Requested *int `json:"requested,omitempty"`
	// Actor is who did it and Verified whether a token proves that; Issuer, Subject
	// and TokenID are that token's.
	Actor    string `json:"actor"`
	Verified bool   `json:"verified"`
	Issuer   string `json:"issuer,omitempty"`
	Subject  string `json:"subject,omitempty"`
	TokenID  string `json:"token_id,omitempty"`
	Source   string `json:"source,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Evidence string `json:"evidence,omitempty"`
	// Client is the address that the connection came from.
	Client        string `json:"client,omitempty"`
	Configuration string `json:"configuration,omitempty"`
}

// changed is a change that waits for its line.
type changed struct {
	at   time.Time
	line Change
}

// Changed records a change that was made: the team before and after it, and the
// token by which its actor was verified, nil for none. It does not wait.
func (t *Trail) Changed(c rollout.Change, was, is rollout.State, token *identity.TokenInfo, client netip.Addr) {
	if t == nil {
		return
	}
	name := func(s string) string { return clean(clip(s, maxName)) }
	line := Change{
		Team: name(string(is.Team)), Change: name(string(c.Kind)), Revision: is.Revision, From: int(was.Percent), To: int(is.Percent),
		Actor: name(c.Actor), Verified: c.Verified, Source: name(c.Source),
		Reason: clean(clip(c.Reason, maxDetail)), Evidence: clean(clip(c.Evidence, maxDetail)), Configuration: t.hash(),
	}
	if c.Request != nil {
		requested := int(c.Request.Percent)
		line.Requested = &requested
	}
	if token != nil && token.Verified {
		line.Issuer, line.Subject, line.TokenID = name(token.Issuer), name(token.Subject), name(token.ID)
		if token.ID == "" {
			line.TokenID = name(token.Digest)
		}
	}
	if client.IsValid() {
		line.Client = client.WithZone("").String()
	}
	t.push(item{change: &changed{c.When(is.UpdatedAt), line}})
}
