package oidcauth

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"crossfade/gateway/identity"
)

// Inspection is all that can be said about a token, for its owner and the
// operator. It holds every claim but not the signature, so it cannot be used as
// the token.
type Inspection struct {
	// Header and Claims are the members of the two parts in order of name; empty
	// if the token could not be parsed.
	Header []Claim `json:"header"`
	Claims []Claim `json:"claims"`
	// Issuer is the configured issuer that would judge it; empty if none.
	Issuer string `json:"issuer,omitempty"`
	// Preset is that issuer's, or the guess from iss.
	Preset string `json:"preset,omitempty"`
	// Status is the judgement: verified, rejected or unavailable.
	Status string `json:"status"`
	// SignatureVerified tells whether all this is more than the bearer's word.
	SignatureVerified bool `json:"signature_verified"`
	// Findings are all failures, the primary one first.
	Findings []Finding `json:"findings"`
	// Unchecked says in sentences what could not be checked.
	Unchecked []string `json:"unchecked,omitempty"`
	// Principal is whom the token maps to; nil if it maps to nobody. It is set
	// even if the token is not good, to show what the claims would mean.
	Principal *InspectedPrincipal `json:"principal,omitempty"`
}

// Claim is one member of a token.
type Claim struct {
	Name string `json:"name"`
	// Value is JSON as it stands in the token.
	Value json.RawMessage `json:"value"`
	// Note explains the value: a date in words for exp. Mostly empty.
	Note string `json:"note,omitempty"`
}

// Finding is one failure.
type Finding struct {
	Reason identity.Reason `json:"reason"`
	// Means is the fixed sentence of the reason, Detail what was found here.
	Means  string         `json:"means"`
	Detail string         `json:"detail"`
	Owner  identity.Owner `json:"owner"`
}

// InspectedPrincipal is the principal in an Inspection.
type InspectedPrincipal struct {
	Name   string          `json:"name"`
	Team   identity.Team   `json:"team"`
	Roles  []identity.Role `json:"roles"`
	Mapped bool            `json:"mapped"` // an entry names it
}

// Inspect examines a token as Authenticate does, with all its findings, past
// the cache. Offline (Options.Providers is nil) it leaves out the signature and
// says so; without any configured issuer, everything that an issuer decides.
func (v *Verifier) Inspect(ctx context.Context, secret identity.Secret) Inspection {
	now := v.now()
	e := v.examine(ctx, secret.Reveal(), now)
	out := Inspection{Header: []Claim{}, Claims: []Claim{}, Findings: []Finding{}}
	bad := e.bad
	if e.token != nil {
		out.Header = members(e.token.header, now)
		out.Claims = members(e.token.claims, now)
		out.Preset = GuessPreset(e.token.iss)
		out.SignatureVerified = e.info.Verified
		n := names{issuer: e.info.Issuer, subject: e.info.Subject, sub: e.token.sub, id: e.token.jti, issued: e.token.iat}
		if reason, detail := v.deny.reason(&n); reason != "" {
			bad = append(bad, found(reason, "%s", detail))
			byPrecedence(bad)
		}
	}
	if e.known {
		out.Issuer, out.Preset = e.rules.URL, e.rules.Preset
		if e.principal.Name != "" && !slices.ContainsFunc(bad, unmapped) {
			p := e.principal
			out.Principal = &InspectedPrincipal{p.Name, p.Team, append([]identity.Role{}, p.Roles...), p.Mapped}
		}
	}
	drop := func(r identity.Reason) {
		bad = slices.DeleteFunc(bad, func(f finding) bool { return f.reason == r })
	}
	switch {
	case e.token == nil:
	case len(v.issuers) == 0:
		drop(identity.IssuerUnknown)
		out.Unchecked = append(out.Unchecked, "No issuer is configured, so issuer, signature, audience and principal were not checked.")
	case e.known && v.offline:
		drop(identity.JWKSUnavailable)
		out.Unchecked = append(out.Unchecked, "Offline: the signature was not checked.")
	case !e.signatureChecked:
		out.Unchecked = append(out.Unchecked, "The signature was not checked, because of what is wrong otherwise.")
	}
	for _, f := range bad {
		info, _ := f.reason.Info()
		out.Findings = append(out.Findings, Finding{f.reason, info.Means, f.detail, info.Owner})
	}
	switch {
	case len(bad) > 0:
		out.Status = reject(bad).Status.String()
	case out.SignatureVerified:
		out.Status = identity.StatusVerified.String()
	default:
		out.Status = identity.StatusUnavailable.String()
	}
	return out
}

func unmapped(f finding) bool {
	return f.reason == identity.PrincipalUnmapped || f.reason == identity.TeamUnmapped
}

func members(object map[string]json.RawMessage, now time.Time) []Claim {
	out := make([]Claim, 0, len(object))
	for _, name := range slices.Sorted(maps.Keys(object)) {
		c := Claim{Name: name, Value: object[name]}
		switch name {
		case "exp", "nbf", "iat", "auth_time":
			if at, err := numericDate(c.Value); err == nil {
				c.Note = at.Format(time.RFC3339) + ", " + relative(at.Sub(now))
			}
		}
		out = append(out, c)
	}
	return out
}

func relative(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < 0:
		return fmt.Sprintf("%s ago", -d)
	case d > 0:
		return fmt.Sprintf("in %s", d)
	default:
		return "now"
	}
}
