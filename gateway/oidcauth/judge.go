package oidcauth

import (
	"context"
	"encoding/hex"
	"slices"
	"time"

	"crossfade/gateway/identity"
)

// examined is everything that is found out about a token.
type examined struct {
	token     *token // nil if it could not be parsed
	rules     *rules // the default ones if the issuer is unknown
	known     bool   // the issuer is configured
	info      *identity.TokenInfo
	principal identity.Principal
	bad       []finding // in order of precedence
	// signatureChecked is false if there was no way to: offline, or the issuer,
	// the algorithm or the header ruled it out.
	signatureChecked bool
}

// judge examines a token without asking the deny list, which is asked about
// every judgement, new or remembered.
func (v *Verifier) judge(ctx context.Context, raw string) *judgement {
	now := v.now()
	e := v.examine(ctx, raw, now)
	j := &judgement{}
	if e.token == nil {
		j.auth = reject(e.bad)
		return j
	}
	j.names = names{issuer: e.info.Issuer, subject: e.info.Subject, sub: e.token.sub, id: e.token.jti, issued: e.token.iat}
	if len(e.bad) == 0 && e.info.Verified {
		j.auth = &identity.Authentication{
			Status: identity.StatusVerified, Principal: e.principal, Token: e.info, Expires: e.token.exp,
		}
		j.until = earlier(now.Add(v.ttl), e.token.exp)
		return j
	}
	if len(e.bad) == 0 { // cannot be: a signature that does not hold is a finding
		e.bad = append(e.bad, plain(identity.JWKSUnavailable, "the signature was not verified"))
	}
	j.auth = reject(e.bad)
	j.auth.Token, j.auth.Expires = e.info, e.token.exp
	if e.harmless() {
		j.auth.Sample = identity.Sample("%s", j.auth.Detail)
	}
	if e.info.Verified && len(j.auth.Reasons) == 1 && j.auth.Reasons[0] == identity.Expired {
		j.auth.Principal = e.principal
	}
	if memorable(e) {
		j.until = now.Add(v.ttl)
		if !e.token.exp.IsZero() {
			j.until = earlier(j.until, e.token.exp)
		}
	}
	return j
}

// memorable reports whether a failure stays what it is: all its reasons are of
// the stages signature and binding. A token without a key id is not: its
// signature may hold once the next key is published.
func memorable(e *examined) bool {
	return e.known && !slices.ContainsFunc(e.bad, func(f finding) bool {
		info, _ := f.reason.Info()
		return info.Stage != identity.StageBinding &&
			(info.Stage != identity.StageSignature || e.token.kid == "")
	})
}

// nameOf returns a name for a token that is of no use as one.
func nameOf(raw string) string {
	sum := digestOf(raw)
	return hex.EncodeToString(sum[:16])
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// examine runs every check that can run.
func (v *Verifier) examine(ctx context.Context, raw string, now time.Time) *examined {
	e := &examined{rules: v.unknown}
	e.token, e.bad = parse(raw, v.maxBytes)
	if e.token == nil {
		return e
	}
	t := e.token
	e.info = &identity.TokenInfo{
		Issuer: t.iss, Subject: t.sub, ID: t.jti, Digest: nameOf(raw), Audience: t.aud,
		IssuedAt: t.iat, Expiry: t.exp, KeyID: t.kid, Alg: t.alg,
	}
	if r, ok := v.byIss[t.iss]; ok {
		e.rules, e.known = r, true
		e.info.Issuer = r.URL
	} else {
		e.add(v.unknownIssuer(t))
	}
	r := e.rules
	e.info.ClientID, _ = t.claims.first(r.preset.clients...)
	e.bad = append(e.bad, r.checkTimes(t, now)...)
	if e.known {
		e.bad = append(e.bad, r.checkBinding(t)...)
		principal, bad := r.checkIdentity(t, e.info, v.directory)
		e.principal = principal
		e.bad = append(e.bad, bad...)
		v.signature(ctx, e)
	} else {
		if t.sub == "" {
			e.add(plain(identity.SubjectMissing, "the token has no sub"))
		}
		if !slices.Contains(algorithms, t.alg) { // no issuer could allow it
			e.add(found(identity.AlgNotAllowed, "the token is signed with %s, which no issuer can be allowed", show(t.alg)).
				named("alg in the header is one that no issuer can be allowed"))
		}
	}
	byPrecedence(e.bad)
	return e
}

// signature comes last, so that waiting for keys does not age the clock that
// the times are compared with.
func (v *Verifier) signature(ctx context.Context, e *examined) {
	t, r := e.token, e.rules
	switch {
	case !r.allows(t.alg):
		e.add(found(identity.AlgNotAllowed, "the token is signed with %s; allowed: %s", show(t.alg), wanted(r.Algorithms)).
			named("alg in the header is none of those that %s may sign with: %s", r.place(), accepted(r.Algorithms)))
	case t.crit: // it cannot be known what the signature is over
	case v.offline:
		e.add(plain(identity.JWKSUnavailable, "offline: the keys of %s were not asked for", r.URL))
	default:
		e.signatureChecked = true
		verified, bad := r.checkSignature(ctx, t)
		e.info.Verified = verified
		if bad != nil {
			e.add(*bad)
		}
	}
}

func (v *Verifier) unknownIssuer(t *token) finding {
	configured := make([]string, 0, len(v.issuers))
	for _, r := range v.issuers {
		configured = append(configured, r.URL)
	}
	if !t.claims.has("iss") {
		return found(identity.IssuerUnknown, "the token has no iss; configured: %s", orNone(configured)).
			named("the token has no iss; configured: %s", accepted(configured))
	}
	return found(identity.IssuerUnknown, "the issuer %s is not configured; configured: %s", show(t.iss), orNone(configured)).
		named("iss is none of the configured issuers: %s", accepted(configured))
}

func (e *examined) add(f finding) { e.bad = append(e.bad, f) }

// byPrecedence sorts findings, the primary one first.
func byPrecedence(bad []finding) {
	reasons := make([]identity.Reason, 0, len(bad))
	for _, f := range bad {
		reasons = append(reasons, f.reason)
	}
	order := identity.SortReasons(reasons)
	slices.SortStableFunc(bad, func(a, b finding) int {
		return slices.Index(order, a.reason) - slices.Index(order, b.reason)
	})
}
