package oidcauth

import (
	"slices"
	"time"

	"crossfade/gateway/identity"
)

// Deny is the list of tokens that are refused although they verify: what an
// operator reaches for before the provider has caught up. It is asked about
// every token, those out of the cache included. The zero value denies nothing.
//
// A denied subject is reported as principal_unmapped: for this gateway it is
// nobody, and the platform's owners decide otherwise. A denied token id and a
// token from before the time are reported as expired: the cure is a new token.
type Deny struct {
	// Subjects are values of sub or of the issuer's SubjectClaim, in tokens of
	// any issuer.
	Subjects []string
	// TokenIDs are values of jti.
	TokenIDs []string
	// IssuedBefore refuses tokens with an earlier iat, or none, by issuer (as
	// configured); the key "" is for all issuers.
	IssuedBefore map[string]time.Time
}

// denied is Deny as it is asked: without allocation.
type denied struct {
	subjects, ids map[string]bool
	before        map[string]time.Time
}

func newDenied(d Deny) denied {
	set := func(values []string) map[string]bool {
		m := make(map[string]bool, len(values))
		for _, v := range values {
			m[v] = v != ""
		}
		return m
	}
	before := make(map[string]time.Time, len(d.IssuedBefore))
	for issuer, at := range d.IssuedBefore {
		before[issuer] = at
	}
	return denied{set(d.Subjects), set(d.TokenIDs), before}
}

// names is what a deny list asks of a token.
type names struct {
	issuer, subject, sub, id string
	issued                   time.Time
}

// reason returns why the list refuses a token; "" if it does not.
func (d *denied) reason(n *names) (identity.Reason, string) {
	switch {
	case d.subjects[n.subject] || d.subjects[n.sub]:
		return identity.PrincipalUnmapped, "the subject is on the deny list"
	case d.ids[n.id]:
		return identity.Expired, "the token id is on the deny list"
	case d.tooOld(n.issuer, n.issued), d.tooOld("", n.issued):
		return identity.Expired, "the deny list refuses tokens that were issued so early"
	}
	return "", ""
}

func (d *denied) tooOld(issuer string, issued time.Time) bool {
	at, ok := d.before[issuer]
	return ok && issued.Before(at)
}

// judge adds what the list says about a token to the reasons of a judgement
// that did not ask it; the judgement itself is shared and stays as it is.
func (d *denied) judge(a *identity.Authentication, n *names) *identity.Authentication {
	reason, detail := d.reason(n)
	if reason == "" {
		return a
	}
	listed := detail
	if a.Detail != "" {
		detail = a.Detail + "; " + detail
	}
	out := identity.Reject(detail, append(slices.Clone(a.Reasons), reason)...)
	out.Token, out.Expires = a.Token, a.Expires
	if out.Sample = a.Sample; a.OK() || out.Primary() != a.Primary() {
		out.Sample = identity.Sample("%s", listed)
	}
	return out
}
