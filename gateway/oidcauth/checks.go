package oidcauth

import (
	"slices"
	"strings"
	"time"

	"crossfade/gateway/identity"
)

// checkTimes compares exp, nbf and iat with the clock, each with its own skew,
// and the lifetime with the longest one (RFC 7519 sections 4.1.4 to 4.1.6).
func (r *rules) checkTimes(t *token, now time.Time) (bad []finding) {
	add := func(f finding) { bad = append(bad, f) }
	stamp := func(at time.Time) string { return at.UTC().Format(time.RFC3339) }
	if t.exp.IsZero() {
		if !t.claims.has("exp") { // one of another type has been reported as such
			add(plain(identity.ExpMissing, "the token has no exp: it would be good for ever"))
		}
	} else if !now.Before(t.exp.Add(r.Skew.Exp)) {
		add(plain(identity.Expired, "the token expired at %s, %s ago", stamp(t.exp), now.Sub(t.exp).Round(time.Second)))
	}
	if !t.nbf.IsZero() && now.Before(t.nbf.Add(-r.Skew.Nbf)) {
		add(plain(identity.NotYetValid, "the token is not valid before %s, in %s", stamp(t.nbf), t.nbf.Sub(now).Round(time.Second)))
	}
	if !t.iat.IsZero() && t.iat.After(now.Add(r.Skew.Iat)) {
		add(plain(identity.IATInFuture, "the token was issued at %s, %s from now", stamp(t.iat), t.iat.Sub(now).Round(time.Second)))
	}
	if !t.exp.IsZero() {
		from, what := t.iat, "lives"
		if from.IsZero() {
			from, what = now, "has no iat and is good for another"
		}
		if life := t.exp.Sub(from); life > r.MaxLifetime {
			add(plain(identity.LifetimeExceedsMax, "the token %s %s; at most %s is allowed", what, life.Round(time.Second), r.MaxLifetime))
		}
	}
	return bad
}

// checkBinding asks whether the token is meant for us: aud (RFC 7519 section
// 4.1.3), the client, the tenant, the type and scopes.
func (r *rules) checkBinding(t *token) (bad []finding) {
	add := func(f finding) { bad = append(bad, f) }
	client, clientClaim := t.claims.first(r.preset.clients...)
	switch {
	case len(t.aud) > 0:
		if len(r.Audiences) == 0 || !slices.ContainsFunc(t.aud, r.isAudience) {
			add(found(identity.AudMismatch, "the token is for %s; this gateway accepts %s", list(t.aud), orNone(r.Audiences)).
				named("aud names none of the audiences that this gateway accepts: %s", accepted(r.Audiences)))
		}
	case t.claims.has("aud") && string(t.claims["aud"]) != "[]":
		// its type has been reported
	case !r.standsIn(t):
		add(found(identity.AudMissing, "the token has no aud; this gateway accepts %s", orNone(r.Audiences)).
			named("the token has no aud; this gateway accepts %s", accepted(r.Audiences)))
	}
	if len(r.AuthorizedParties) > 0 && !slices.Contains(r.AuthorizedParties, client) {
		if client == "" {
			add(found(identity.AzpMismatch, "the token names no client; accepted: %s", wanted(r.AuthorizedParties)).
				named("the token names no client, by none of %s; accepted: %s", strings.Join(r.preset.clients, ", "), accepted(r.AuthorizedParties)))
		} else {
			add(found(identity.AzpMismatch, "the token was issued to %s (%s); accepted: %s", show(client), clientClaim, wanted(r.AuthorizedParties)).
				named("%s names none of the accepted clients: %s", clientClaim, accepted(r.AuthorizedParties)))
		}
	}
	if len(r.Tenants) > 0 {
		if tenant, _ := t.claims.first(r.preset.tenantClaim); !slices.Contains(r.Tenants, tenant) {
			add(found(identity.TenantMismatch, "the claim %s is %s; accepted: %s", r.preset.tenantClaim, show(tenant), wanted(r.Tenants)).
				named("%s names none of the accepted tenants: %s", r.preset.tenantClaim, accepted(r.Tenants)))
		}
	}
	bad = append(bad, r.checkType(t)...)
	have := t.claims.words("scope", "scp")
	for _, scope := range r.Scopes {
		if !slices.Contains(have, scope) {
			add(found(identity.InsufficientScope, "the token lacks the scope %s; it has %s", show(scope), orNone(have)).
				named("scope and scp hold none of that name: %s", accepted([]string{scope})))
		}
	}
	return bad
}

// checkType tells access tokens from everything else that an issuer signs.
func (r *rules) checkType(t *token) (bad []finding) {
	types := r.TokenTypes
	if len(types) == 0 {
		types = r.preset.types
	}
	optional := len(r.TokenTypes) == 0
	if (t.header["typ"] != nil || !optional) && !slices.ContainsFunc(types, func(want string) bool { return sameType(t.typ, want) }) {
		bad = append(bad, found(identity.TypMismatch, "the header says typ %s; accepted: %s", show(t.typ), wanted(types)).
			named("typ in the header is none of the accepted: %s", accepted(types)))
	}
	if r.AllowIDTokens || r.preset.idTokens {
		return bad
	}
	if r.preset.idToken != nil {
		if why := r.preset.idToken(t); why != "" {
			return append(bad, plain(identity.IDTokenAsAccess, "this is an ID token: %s", why))
		}
	}
	if typ, _ := t.claims.first("typ"); typ != "" && r.preset.payloadTypes != nil && !slices.Contains(r.preset.payloadTypes, typ) {
		bad = append(bad, found(identity.TypMismatch, "the claim typ is %s; accepted: %s", show(typ), wanted(r.preset.payloadTypes)).
			named("the claim typ is none of the accepted: %s", accepted(r.preset.payloadTypes)))
	}
	return bad
}

func (r *rules) isAudience(aud string) bool { return slices.Contains(r.Audiences, aud) }

// standsIn reports whether another claim binds a token without aud: the preset
// names it, and it is one of the audiences or authorized parties.
func (r *rules) standsIn(t *token) bool {
	return slices.ContainsFunc(r.preset.standIns, func(name string) bool {
		v, _ := t.claims.first(name)
		return v != "" && (r.isAudience(v) || slices.Contains(r.AuthorizedParties, v))
	})
}

func orNone(values []string) string {
	if len(values) == 0 {
		return "none"
	}
	return wanted(values)
}

// checkIdentity reads subject, groups and e-mail address into info and asks the
// directory who it is.
func (r *rules) checkIdentity(t *token, info *identity.TokenInfo, d *identity.Directory) (p identity.Principal, bad []finding) {
	add := func(f finding) { bad = append(bad, f) }
	email, mailProven := r.email(t)
	if mailProven {
		info.Email = email
	}
	info.Groups = r.groupsOf(t)
	info.Subject = ""
	if v, ok := t.claims.find(r.SubjectClaim); ok && v[0] == '"' { // a list or a number names nobody
		info.Subject, _ = t.claims.first(r.SubjectClaim)
	} else if ok && r.SubjectClaim != "sub" {
		add(plain(identity.ClaimTypeInvalid, "%s is %s, not a string", r.SubjectClaim, kindOf(v)))
	}
	unproven := r.SubjectClaim == "email" && email != "" && !mailProven
	switch {
	case unproven: // reported below
	case info.Subject == "":
		add(found(identity.SubjectMissing, "the token has no usable %s", r.SubjectClaim).
			lists(t, "the token has no usable %s", r.SubjectClaim))
	}
	var askedGroups, askedEmail bool
	reason := identity.Reason("")
	who := identity.TokenIdentity{
		Issuer: r.URL, Subject: info.Subject,
		Claim: func(name string) []string {
			switch {
			case name == "groups" || slices.Contains(r.groups, name):
				askedGroups = true
			case name == "email":
				askedEmail = true
				if !mailProven {
					return nil
				}
			}
			if name == "groups" {
				return slices.Clone(info.Groups)
			}
			return t.claims.values(name)
		},
	}
	if info.Subject != "" && !unproven {
		p, reason = d.Token(who)
	}
	if reason != "" {
		add(found(reason, "no principal for subject %s of %s", show(info.Subject), r.URL).
			lists(t, "%s; looked up by %s at %s", d.Why(who), r.SubjectClaim, r.place()))
	}
	if reason == "" && info.Subject != "" && !unproven && r.anybody() && !vouched(p) {
		add(found(identity.PrincipalUnmapped, "%s signs tokens for anybody in the world, and neither an entry nor a rule names subject %s: map it, or set tenants", r.URL, show(info.Subject)).
			lists(t, "%s signs tokens for anybody, and neither an entry nor a rule names this one; looked up by %s", r.place(), r.SubjectClaim))
	}
	over := r.overage(t)
	for _, name := range r.groups {
		if v, ok := t.claims.find(name); ok {
			if _, text := stringOrList(v); !text {
				add(plain(identity.ClaimTypeInvalid, "%s is %s, neither a string nor a list of strings", name, kindOf(v)))
			}
			break
		}
	}
	switch {
	case over && (r.RequireGroups || (askedGroups && !p.Mapped)):
		add(plain(identity.GroupsOverage, "the provider left the groups out because there are too many; map the subject, or let it emit fewer groups"))
	case !over && r.RequireGroups && len(info.Groups) == 0:
		add(found(identity.GroupsMissing, "the token has no groups in %s", orNone(r.groups)).
			lists(t, "the token has no groups in %s", accepted(r.groups)))
	}
	if unproven || (email != "" && !mailProven && askedEmail && reason != "") {
		add(found(identity.EmailUnverified, "the provider has not verified the e-mail address %s", show(email)).
			named("the provider has not verified what email says: %s", unverifiedBy(t)))
	}
	return p, bad
}

// worldwide are issuers from which anybody can get a token with an audience of
// their own choice, so that a signature and an audience prove nothing. Below a
// path of its own (as GitHub gives to enterprises) an issuer is somebody's.
//
// https://docs.github.com/en/actions/reference/security/oidc
// https://cloud.google.com/docs/authentication/get-id-token
// https://docs.gitlab.com/ci/secrets/id_token_authentication/
// https://buildkite.com/docs/pipelines/security/oidc
// https://developer.hashicorp.com/terraform/cloud-docs/workspaces/dynamic-provider-credentials/workload-identity-tokens
var worldwide = []string{
	"https://accounts.google.com", "https://token.actions.githubusercontent.com",
	"https://gitlab.com", "https://agent.buildkite.com", "https://app.terraform.io",
}

// anybody reports whether somebody has to vouch for a token of the issuer
// because it would have come to anyone who asked.
func (r *rules) anybody() bool {
	return len(r.Tenants) == 0 && slices.Contains(worldwide, strings.ToLower(strings.TrimSuffix(r.URL, "/")))
}

// vouched reports whether the configuration knows the principal: by an entry, or
// by a rule that gave it a team or a role.
func vouched(p identity.Principal) bool {
	return p.Mapped || p.Team != identity.Unassigned || len(p.Roles) > 0
}

// groupsOf returns the first groups claim that is present.
func (r *rules) groupsOf(t *token) []string {
	for _, name := range r.groups {
		if t.claims.has(name) {
			return t.claims.values(name)
		}
	}
	return nil
}

// overage reports whether the provider says that it has left the groups out:
// _claim_names points to where they are (OpenID Connect Core section 5.6.2),
// hasgroups only says so (Entra, implicit flow).
func (r *rules) overage(t *token) bool {
	if slices.ContainsFunc(r.groups, func(name string) bool { return t.claims.has("_claim_names." + name) }) {
		return true
	}
	v, _ := t.claims.first("hasgroups")
	return v == "true"
}

// email returns the address and whether it may be believed: unless the provider
// says that it is not verified, or where the preset wants proof, only if it
// says that it is. Entra's proof is xms_edov, "email domain owner verified".
func (r *rules) email(t *token) (address string, proven bool) {
	address, _ = t.claims.first("email")
	verified, present := t.claims.emailVerified()
	switch {
	case present:
		return address, verified
	case r.preset.provenEmail:
		v, _ := t.claims.first("xms_edov")
		return address, v == "true" || v == "1"
	default:
		return address, true
	}
}
