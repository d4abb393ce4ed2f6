package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"crossfade/config"
	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
	"crossfade/gateway/probe"
	"crossfade/gateway/shadow"
)

// probeReport is what a probe found, for people and programs.
type probeReport struct {
	Account  string            `json:"account"`
	Team     identity.Team     `json:"team"`
	Result   probe.Outcome     `json:"result"`
	Verdict  shadow.Verdict    `json:"verdict"`
	Evidence shadow.Evidence   `json:"evidence"`
	Reason   identity.Reason   `json:"reason,omitempty"`
	Also     []identity.Reason `json:"also,omitempty"`
	Means    string            `json:"means"`
	Detail   string            `json:"detail,omitempty"`
	Owner    identity.Owner    `json:"owner,omitempty"`
	Do       string            `json:"do,omitempty"`
	Source   string            `json:"source"`
	From     string            `json:"from"`
	Took     time.Duration     `json:"took_ns"`
	// Token is what the token says; nil without one that can be read.
	Token *probeClaims `json:"token,omitempty"`
	// Principal is whom the token means; nil unless it is good.
	Principal *oidcauth.InspectedPrincipal `json:"principal,omitempty"`
}

// probeClaims is what a token says about itself. Verified tells whether the
// signature held.
type probeClaims struct {
	Verified bool       `json:"verified"`
	Issuer   string     `json:"iss"`
	Subject  string     `json:"sub"`
	Audience []string   `json:"aud"`
	ClientID string     `json:"client_id,omitempty"`
	Groups   []string   `json:"groups,omitempty"`
	Issued   *time.Time `json:"iat,omitempty"`
	Expires  *time.Time `json:"exp,omitempty"`
	// Left is how long it is still good.
	Left time.Duration `json:"left_ns,omitempty"`
}

// reportOf lays a result out.
func reportOf(c *config.Config, r *probe.Result, now time.Time) probeReport {
	settings := c.Probe.Principals[r.Account.Name]
	out := probeReport{
		Account: r.Account.Name, Team: r.Account.Team, Result: r.Outcome,
		Verdict: r.Shadow.Verdict, Evidence: r.Shadow.Evidence, Reason: r.Shadow.Reason,
		Means: probeMeans(r), Detail: r.Detail(), Owner: r.Owner(), Do: probeAdvice(c, r),
		Source: r.Kind, From: cmp.Or(settings.TokenURL, settings.Issuer), Took: r.Took,
	}
	if r.Token == nil {
		return out
	}
	if len(r.Token.Reasons) > 1 {
		out.Also = r.Token.Reasons[1:]
	}
	if t := r.Token.Token; t != nil {
		out.Token = &probeClaims{
			Verified: t.Verified, Issuer: t.Issuer, Subject: t.Subject, Audience: append([]string{}, t.Audience...),
			ClientID: t.ClientID, Groups: t.Groups,
		}
		if !t.IssuedAt.IsZero() {
			at := t.IssuedAt.UTC()
			out.Token.Issued = &at
		}
		if !t.Expiry.IsZero() {
			at := t.Expiry.UTC()
			out.Token.Expires, out.Token.Left = &at, t.Expiry.Sub(now).Round(time.Second)
		}
	}
	if r.Token.OK() {
		p := r.Token.Principal
		out.Principal = &oidcauth.InspectedPrincipal{
			Name: p.Name, Team: p.Team, Roles: append([]identity.Role{}, p.Roles...), Mapped: p.Mapped,
		}
	}
	return out
}

// probeMeans is one sentence about what was found.
func probeMeans(r *probe.Result) string {
	switch {
	case r.Outcome == probe.OK:
		return "The token does what the legacy credential does."
	case r.Outcome == probe.Refused:
		return "The identity provider gave no token."
	case r.Outcome == probe.Misconfigured:
		return "The probe's own credential cannot be used, so nobody was asked."
	case r.Token == nil:
		return "The identity provider could not be reached."
	case r.Shadow.Verdict == shadow.WouldOpen:
		return "The token may do what the legacy credential may not."
	case r.Shadow.Verdict == shadow.MatchDeny:
		return "Neither credential may do anything."
	case r.Shadow.Reason == identity.RoleMissing && r.Shadow.Verdict == shadow.IdentityDrift:
		return "The two credentials have different roles."
	}
	info, _ := r.Shadow.Reason.Info()
	return info.Means
}

// probeAdvice says what to do, "" when there is nothing to do.
func probeAdvice(c *config.Config, r *probe.Result) string {
	name := r.Account.Name
	subject := ""
	if r.Token != nil && r.Token.Token != nil {
		subject = r.Token.Token.Subject
	}
	switch r.Outcome {
	case probe.OK:
		return ""
	case probe.Refused:
		return fmt.Sprintf("Mend the client at the identity provider, or what stands under probe.principals.%s, and probe again.", name)
	case probe.Misconfigured:
		return fmt.Sprintf("Mend what stands under probe.principals.%s in %s.", name, cmp.Or(c.File, "the configuration"))
	case probe.Unavailable:
		return "See whether this machine reaches the identity provider, by `crossfade check --connect`, and probe again."
	}
	switch r.Shadow.Reason {
	case identity.PrincipalUnmapped:
		if subject == "" {
			break
		}
		return fmt.Sprintf("If that subject is the account, name it in %s:\n  %s: { oidc: { subject: %q } }", c.PrincipalsFile, name, subject)
	case identity.PrincipalMismatch:
		return fmt.Sprintf("Probe with the client of %s itself, or move the subject %q to its entry in %s.", name, subject, c.PrincipalsFile)
	case identity.RoleMissing, identity.ActionDenied, identity.TaskFamilyDenied:
		return fmt.Sprintf("List the roles of %s in its entry in %s: then they are the same by either credential.", name, c.PrincipalsFile)
	case identity.AudMissing, identity.AudMismatch:
		return fmt.Sprintf("Ask for the gateway's audience, here by probe.principals.%s.audience and in the client, or let the provider put it into the token.", name)
	case identity.IssuerUnknown:
		return "Obtain the token from an issuer that stands under oidc, or add this one there."
	}
	return gateway.Advice(r.Shadow.Reason)
}

// probeSummary is the answer about several accounts.
func probeSummary(reports []probeReport) string {
	by := map[probe.Outcome]int{}
	for _, r := range reports {
		by[r.Result]++
	}
	broken := by[probe.WouldBreak] + by[probe.Refused]
	rest := len(reports) - by[probe.OK] - broken
	switch {
	case broken > 0 && rest > 0:
		return fmt.Sprintf("WOULD BREAK: %d of %d. %d more could not be judged.", broken, len(reports), rest)
	case broken > 0:
		return fmt.Sprintf("WOULD BREAK: %d of %d.", broken, len(reports))
	case rest > 0:
		return fmt.Sprintf("COULD NOT BE JUDGED: %d of %d.", rest, len(reports))
	default:
		return fmt.Sprintf("OK: %s, and each would get what it has today.", count(len(reports), "account"))
	}
}

func probeTable(reports []probeReport) table {
	t := table{{"ACCOUNT", "TEAM", "RESULT", "VERDICT", "REASON", "WHO ACTS"}}
	for _, r := range reports {
		t = append(t, []string{
			r.Account, string(r.Team), string(r.Result), string(r.Verdict),
			cmp.Or(string(r.Reason), "-"), cmp.Or(string(r.Owner), "-"),
		})
	}
	return t
}

// probeAnswer is the first words about a result.
func probeAnswer(o probe.Outcome) string {
	switch o {
	case probe.OK:
		return "OK"
	case probe.WouldBreak, probe.Refused:
		return "WOULD BREAK"
	default:
		return "COULD NOT BE JUDGED"
	}
}

// probeText is the answer first, then why, who acts and what to do, then what
// the token says.
func probeText(r probeReport) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. %s", probeAnswer(r.Result), r.Account)
	if r.Reason != "" {
		fmt.Fprintf(&b, ": %s", r.Reason)
	}
	fmt.Fprintf(&b, "\n\n     %s\n", r.Means)
	line := func(title, text string) {
		if text != "" {
			fmt.Fprintf(&b, "     %s%s\n", title, strings.ReplaceAll(text, "\n", "\n     "))
		}
	}
	line("", r.Detail)
	if len(r.Also) > 0 {
		fmt.Fprintf(&b, "     Also wrong with it: %s\n", strings.Join(words(r.Also), ", "))
	}
	line("Who acts: ", string(r.Owner))
	line("What to do: ", r.Do)

	fmt.Fprintf(&b, "\naccount    %s, team %s\n", r.Account, r.Team)
	fmt.Fprintf(&b, "verdict    %s, evidence %s\n", r.Verdict, r.Evidence)
	fmt.Fprintf(&b, "source     %s at %s, in %s\n", r.Source, r.From, r.Took.Round(time.Millisecond))
	if pr := r.Principal; pr != nil {
		fmt.Fprintf(&b, "principal  %s, team %s", quotable(pr.Name), pr.Team)
		if len(pr.Roles) > 0 {
			fmt.Fprintf(&b, ", roles %v", pr.Roles)
		}
		b.WriteString("\n")
	}
	if r.Token != nil {
		b.WriteString(claimsText(r.Token))
	}
	return b.String()
}

// claimsText is what a token says, and whether to believe it.
func claimsText(t *probeClaims) string {
	var b strings.Builder
	title := "token"
	if !t.Verified {
		title = "token      (its signature was not verified: these are its own words)"
	}
	fmt.Fprintf(&b, "%s\n", title)
	claims := map[string]string{"iss": t.Issuer, "sub": t.Subject, "aud": strings.Join(t.Audience, ", "), "client_id": t.ClientID, "groups": strings.Join(t.Groups, ", ")}
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		if value := claims[name]; value != "" || name == "aud" || name == "sub" {
			fmt.Fprintf(&b, "  %-9s  %s\n", name, quotable(cmp.Or(value, "(none)")))
		}
	}
	if t.Expires != nil {
		when := fmt.Sprintf("in %s", t.Left)
		if t.Left < 0 {
			when = fmt.Sprintf("%s ago", -t.Left)
		}
		fmt.Fprintf(&b, "  %-9s  %s, %s\n", "exp", t.Expires.Format(time.RFC3339), when)
	}
	return b.String()
}

// quotable keeps what does not print in a stranger's words from a terminal.
func quotable(s string) string {
	quoted := fmt.Sprintf("%q", s)
	if quoted == `"`+s+`"` {
		return s
	}
	return quoted
}

func words[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = string(w)
	}
	return out
}
