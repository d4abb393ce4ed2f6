package oidcauth

import (
	"maps"
	"slices"
	"strings"

	"crossfade/gateway/identity"
)

// listRoom is how long, in bytes, a list in a sample is: see identity.MaxSample.
const listRoom = 90

// sampleOf returns what the first finding of a reason has for a sample.
func sampleOf(bad []finding, primary identity.Reason) string {
	for _, f := range bad {
		if f.reason == primary {
			return f.sample
		}
	}
	return ""
}

// accepted lists values of the configuration for a sample.
func accepted(values []string) string { return identity.ShownWords(values, listRoom) }

// place is the issuer as the configuration has it.
func (r *rules) place() string { return identity.ShownWords([]string{r.URL}, identity.MaxSample) }

// registered are the claims that people look for first, in their order: those of
// RFC 7519 section 4.1, and the ones by which clients and people are known.
var registered = []string{"iss", "sub", "aud", "exp", "iat", "nbf", "azp", "client_id", "cid", "appid", "email", "groups", "roles", "scope", "scp"}

// lists gives a finding a sample that ends with the names of the claims that the
// token has, as many as find room, those first that are looked for first.
func (f finding) lists(t *token, format string, args ...any) finding {
	said := identity.Sample(format, args...) + "; claims: "
	room := identity.MaxSample - len(said)
	if room < len("iss, sub and 10000 more") {
		return f.named(format, args...)
	}
	return f.named("%s%s", said, identity.ShownNames(t.names(), room))
}

// names are the names of a token's claims.
func (t *token) names() []string {
	names := make([]string, 0, len(t.claims))
	for _, name := range registered {
		if _, ok := t.claims[name]; ok {
			names = append(names, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.claims)) {
		if !slices.Contains(registered, name) {
			names = append(names, name)
		}
	}
	return names
}

// unverifiedBy says by which claim a token does not vouch for its address.
func unverifiedBy(t *token) string {
	if _, present := t.claims.emailVerified(); present {
		return "email_verified does not say so"
	}
	return "neither email_verified nor xms_edov is there and true"
}

// tellsNobody is of how few bytes a value is that may stand in a sentence by chance,
// as versions and flags do.
const tellsNobody = 4

// harmless reports whether all that is wrong with a token is said with its times,
// its audience, client, tenant, type and scopes, and its signature held: then the
// sentence for the operator is one for whoever may see the team, too. It is not if
// another claim says the same as one of these: some providers put into sub what
// names the client.
func (e *examined) harmless() bool {
	if !e.info.Verified {
		return false
	}
	for _, f := range e.bad {
		info, _ := f.reason.Info()
		if info.Stage != identity.StageTime && info.Stage != identity.StageBinding && f.reason != identity.InsufficientScope {
			return false
		}
	}
	said := slices.Concat([]string{"iss", "aud", "exp", "nbf", "iat", "typ", "scope", "scp", "token_use", e.rules.preset.tenantClaim}, e.rules.preset.clients)
	for name := range e.token.claims {
		if slices.Contains(said, name) {
			continue
		}
		for _, value := range e.token.claims.values(name) {
			if len(value) < tellsNobody && name != "sub" && name != e.rules.SubjectClaim {
				continue
			}
			if slices.ContainsFunc(e.bad, func(f finding) bool { return f.says(value) }) {
				return false
			}
		}
	}
	return true
}

// says reports whether the sentence for the operator holds a value, in whatever case,
// as it is or as sentences quote it: what is no text is escaped there, and what is long
// is cut.
func (f finding) says(value string) bool {
	detail := strings.ToLower(f.detail)
	quoted := show(value)
	quoted = strings.TrimSuffix(quoted[1:len(quoted)-1], "...")
	return strings.Contains(detail, strings.ToLower(value)) || strings.Contains(detail, strings.ToLower(quoted))
}
