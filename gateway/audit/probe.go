package audit

import (
	"time"

	"crossfade/gateway/identity"
	"crossfade/gateway/probe"
)

// Probe is the rest of a line of kind probe: the gateway itself used a
// principal's credential at the identity provider. What does not apply is left
// out.
type Probe struct {
	// Principal is whom the probe was for. Whom the token belongs to is in Detail,
	// where that is another one.
	Principal string `json:"principal"`
	Team      string `json:"team"`
	// Source is how the token was obtained.
	Source  string `json:"source"`
	Outcome string `json:"outcome"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason,omitempty"`
	// Detail says for the operator what was found and what was expected.
	Detail string `json:"detail,omitempty"`
	// Issuer, Subject and TokenID are a token's whose signature held.
	Issuer     string      `json:"issuer,omitempty"`
	Subject    string      `json:"subject,omitempty"`
	TokenID    string      `json:"token_id,omitempty"`
	Unverified *Unverified `json:"unverified,omitempty"`

	TraceID       string `json:"trace_id,omitempty"`
	Configuration string `json:"configuration,omitempty"`
}

// probed is a probe that waits for its line.
type probed struct {
	at   time.Time
	line Probe
}

// Probed records a probe. It does not wait and keeps nothing of r.
func (t *Trail) Probed(r *probe.Result) {
	if t == nil {
		return
	}
	p := probeOf(r)
	p.Configuration = t.hash()
	t.push(item{probe: &probed{r.Start.Add(r.Took), p}})
}

// probeOf lays a probe out, bounded.
func probeOf(r *probe.Result) Probe {
	p := Probe{
		Principal: clean(clip(r.Account.Name, maxName)), Team: clean(clip(string(r.Account.Team), maxName)),
		Source: clean(clip(r.Kind, maxName)), Outcome: string(r.Outcome),
		Verdict: string(r.Shadow.Verdict), Reason: string(r.Shadow.Reason),
		TraceID: clean(clip(r.TraceID, maxName)),
	}
	if r.Token == nil {
		p.Detail = clean(clip(r.Detail(), maxDetail))
		return p
	}
	s := sideOf(identity.SchemeOIDC, r.Token)
	s.detail = clip(r.Detail(), maxDetail)
	var word Unverified
	p.Issuer, p.Subject, p.TokenID, p.Detail = s.claims(&word)
	if word != (Unverified{}) {
		p.Unverified = &word
	}
	return p
}
