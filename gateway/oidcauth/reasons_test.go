package oidcauth_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
)

// reasonCase is a token and everything that is wrong with it.
type reasonCase struct {
	name   string
	issuer func(*oidcauth.Issuer)
	fault  string
	keys   []signingKey
	token  func(*idp) string
	want   []identity.Reason
}

func at(d time.Duration) int64 { return start.Add(d).Unix() }

func claimsWith(more object) func(*idp) string {
	return func(p *idp) string { return p.token(p.good().with(more)) }
}

var reasonCases = slices.Concat(parseCases, []reasonCase{
	{
		name:  "an issuer that is not configured is unknown, and the times are still checked",
		token: claimsWith(object{"iss": "https://evil.example.com", "exp": at(-time.Hour)}),
		want:  []identity.Reason{identity.IssuerUnknown, identity.Expired},
	},
	{
		name:  "an issuer with a slash too many is unknown",
		token: func(p *idp) string { return p.token(p.good().with(object{"iss": p.url + "/"})) },
		want:  []identity.Reason{identity.IssuerUnknown},
	},
	{
		name:  "alg none is not allowed, with or without a signature",
		token: func(p *idp) string { return b64(`{"alg":"none"}`) + "." + b64(encode(p.good())) + "." },
		want:  []identity.Reason{identity.AlgNotAllowed},
	},
	{
		name: "HS256 with the public key as secret is not allowed",
		token: func(p *idp) string {
			der, _ := x509.MarshalPKIXPublicKey(p.keys[0].private.Public())
			secret := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
			return signHMAC(secret, object{"alg": "HS256", "kid": "key-1", "typ": "JWT"}, p.good())
		},
		want: []identity.Reason{identity.AlgNotAllowed},
	},
	{
		name:   "an algorithm that is not on the issuer's list is not allowed",
		issuer: func(i *oidcauth.Issuer) { i.Algorithms = []string{"ES256"} },
		token:  claimsWith(nil),
		want:   []identity.Reason{identity.AlgNotAllowed},
	},
	{
		name:  "RS256 that names an EC key does not fit the key",
		keys:  []signingKey{ecKey("ec", 0)},
		token: func(p *idp) string { return sign(rsaKey("ec", 0), nil, p.good()) },
		want:  []identity.Reason{identity.AlgKeyMismatch},
	},
	{
		name:  "a key that is published for another algorithm does not fit",
		keys:  []signingKey{{kid: "ps", alg: "PS256", private: rsaKeys()[0]}},
		token: func(p *idp) string { return sign(rsaKey("ps", 0), nil, p.good()) },
		want:  []identity.Reason{identity.AlgKeyMismatch},
	},
	{
		name:  "a key id that the issuer has just not published is unknown",
		token: func(p *idp) string { return sign(rsaKey("key-9", 0), nil, p.good()) },
		want:  []identity.Reason{identity.KidUnknown},
	},
	{
		name:  "a key that is published for encryption verifies nothing",
		keys:  []signingKey{rsaKey("key-1", 0), {kid: "enc", alg: "RS256", private: rsaKeys()[1], use: "enc"}},
		token: func(p *idp) string { return sign(rsaKey("enc", 1), nil, p.good()) },
		want:  []identity.Reason{identity.KidUnknown},
	},
	{
		name:  "an outage of the issuer is never a forgery",
		fault: "down",
		token: func(p *idp) string { return sign(rsaKey("key-1", 1), nil, p.good()) },
		want:  []identity.Reason{identity.JWKSUnavailable},
	},
	{
		name:  "during an outage further faults are listed, and the outage stays primary",
		fault: "status",
		token: claimsWith(object{"exp": at(-time.Hour), "iat": at(-2 * time.Hour), "aud": "api://other"}),
		want:  []identity.Reason{identity.JWKSUnavailable, identity.Expired, identity.AudMismatch},
	},
	{name: "an answer that is no key set is an outage", fault: "garbage", token: claimsWith(nil), want: []identity.Reason{identity.JWKSUnavailable}},
	{name: "a key set without keys is an outage", fault: "empty", token: claimsWith(nil), want: []identity.Reason{identity.JWKSUnavailable}},
	{name: "an answer beyond the bound is an outage", fault: "huge", token: claimsWith(nil), want: []identity.Reason{identity.JWKSUnavailable}},
	{
		name:  "a signature by another key is a forgery",
		token: func(p *idp) string { return sign(rsaKey("key-1", 1), nil, p.good()) },
		want:  []identity.Reason{identity.SignatureInvalid},
	},
	{
		name: "a payload that was changed after signing is a forgery",
		token: func(p *idp) string {
			parts := strings.Split(p.token(p.good()), ".")
			return parts[0] + "." + b64(encode(p.good().with(object{"sub": "admin"}))) + "." + parts[2]
		},
		want: []identity.Reason{identity.SignatureInvalid},
	},
	{
		name: "a token without a key id is tried with the keys that fit",
		keys: []signingKey{ecKey("ec", 0), rsaKey("key-1", 0), rsaKey("key-2", 1)},
		token: func(p *idp) string {
			return sign(signingKey{alg: "RS256", private: rsaKeys()[1]}, nil, p.good())
		},
	},
	{
		name: "a token without a key id that no key verifies is a forgery",
		token: func(p *idp) string {
			return sign(signingKey{alg: "RS256", private: rsaKeys()[1]}, nil, p.good())
		},
		want: []identity.Reason{identity.SignatureInvalid},
	},
	{
		name: "a token without a key id of an algorithm that no key is for does not fit",
		token: func(p *idp) string {
			return sign(signingKey{alg: "ES256", private: ecKeys()[0]}, nil, p.good())
		},
		want: []identity.Reason{identity.AlgKeyMismatch},
	},
	{
		name: "a key that the token brings along is not believed",
		token: func(p *idp) string {
			own := jose.JSONWebKey{Key: rsaKeys()[1].Public(), KeyID: "key-1", Algorithm: "RS256"}
			return sign(rsaKey("key-1", 1), object{"jwk": own, "jku": "https://evil.example.com/keys"}, p.good())
		},
		want: []identity.Reason{identity.SignatureInvalid},
	},
	{
		name: "an ECDSA signature of zeros is a forgery",
		keys: []signingKey{ecKey("ec", 0)},
		token: func(p *idp) string {
			token := sign(ecKey("ec", 0), nil, p.good())
			return token[:strings.LastIndexByte(token, '.')+1] + b64(strings.Repeat("\x00", 64))
		},
		want: []identity.Reason{identity.SignatureInvalid},
	},
	{
		name: "an empty signature is a forgery",
		token: func(p *idp) string {
			token := p.token(p.good())
			return token[:strings.LastIndexByte(token, '.')+1]
		},
		want: []identity.Reason{identity.SignatureInvalid},
	},
	{
		name:   "PS256 is verified where it is allowed",
		issuer: func(i *oidcauth.Issuer) { i.Algorithms = []string{"PS256"} },
		keys:   []signingKey{{kid: "ps", alg: "PS256", private: rsaKeys()[0]}},
		token:  claimsWith(nil),
	},
	{
		name:   "EdDSA is verified where it is allowed",
		issuer: func(i *oidcauth.Issuer) { i.Algorithms = []string{"EdDSA"} },
		keys:   []signingKey{{kid: "ed", alg: "EdDSA", private: edKey()}},
		token:  claimsWith(nil),
	},
	{
		name:  "a token past its expiry has expired",
		token: claimsWith(object{"iat": at(-2 * time.Hour), "exp": at(-30 * time.Second)}),
		want:  []identity.Reason{identity.Expired},
	},
	{
		name:  "a token just past its expiry is within the skew",
		token: claimsWith(object{"iat": at(-2 * time.Hour), "exp": at(-29 * time.Second)}),
	},
	{
		name:   "without skew a token has expired in the second that it names",
		issuer: func(i *oidcauth.Issuer) { i.Skew.Exp = -1 },
		token:  claimsWith(object{"iat": at(-time.Hour), "exp": at(0)}),
		want:   []identity.Reason{identity.Expired},
	},
	{
		name:   "each check has its own skew: a wide one for nbf does not help exp",
		issuer: func(i *oidcauth.Issuer) { i.Skew = oidcauth.Skew{Exp: -1, Nbf: 5 * time.Minute, Iat: -1} },
		token:  claimsWith(object{"nbf": at(4 * time.Minute), "iat": at(1 * time.Second), "exp": at(0)}),
		want:   []identity.Reason{identity.Expired, identity.IATInFuture},
	},
	{
		name:  "a token before its time is not yet valid",
		token: claimsWith(object{"nbf": at(time.Minute)}),
		want:  []identity.Reason{identity.NotYetValid},
	},
	{
		name:  "a token from the future is named so",
		token: claimsWith(object{"iat": at(time.Minute)}),
		want:  []identity.Reason{identity.IATInFuture},
	},
	{name: "a token without expiry is refused", token: claimsWith(object{"exp": nil}), want: []identity.Reason{identity.ExpMissing}},
	{
		name:  "a token that lives too long is refused",
		token: claimsWith(object{"exp": at(25 * time.Hour)}),
		want:  []identity.Reason{identity.LifetimeExceedsMax},
	},
	{
		name:  "without iat the lifetime counts from now",
		token: claimsWith(object{"iat": nil, "exp": at(25 * time.Hour)}),
		want:  []identity.Reason{identity.LifetimeExceedsMax},
	},
	{name: "a token without audience is refused", token: claimsWith(object{"aud": nil}), want: []identity.Reason{identity.AudMissing}},
	{name: "a token with an empty list of audiences is refused", token: claimsWith(object{"aud": []string{}}), want: []identity.Reason{identity.AudMissing}},
	{name: "a token for another audience is refused", token: claimsWith(object{"aud": "api://finance"}), want: []identity.Reason{identity.AudMismatch}},
	{
		name:   "a token of another client is refused",
		issuer: func(i *oidcauth.Issuer) { i.AuthorizedParties = []string{"client-2"} },
		token:  claimsWith(nil),
		want:   []identity.Reason{identity.AzpMismatch},
	},
	{
		name:   "a token of no client is refused where clients are listed",
		issuer: func(i *oidcauth.Issuer) { i.AuthorizedParties = []string{"client-2"} },
		token:  claimsWith(object{"azp": nil}),
		want:   []identity.Reason{identity.AzpMismatch},
	},
	{
		name:   "a token of another tenant is refused",
		issuer: func(i *oidcauth.Issuer) { i.Tenants = []string{"acme"} },
		token:  claimsWith(object{"tid": "evil"}),
		want:   []identity.Reason{identity.TenantMismatch},
	},
	{
		name:  "a token of another type is refused",
		token: func(p *idp) string { return sign(p.keys[0], object{"typ": "logout+jwt"}, p.good()) },
		want:  []identity.Reason{identity.TypMismatch},
	},
	{
		name:  "a token of type at+jwt is an access token",
		token: func(p *idp) string { return sign(p.keys[0], object{"typ": "application/AT+JWT"}, p.good()) },
	},
	{
		name: "a token of type at+jwt is an access token even with a nonce",
		token: func(p *idp) string {
			return sign(p.keys[0], object{"typ": "at+jwt"}, p.good().with(object{"nonce": "n"}))
		},
	},
	{
		name:   "where types are listed, a token without one is refused",
		issuer: func(i *oidcauth.Issuer) { i.TokenTypes = []string{"at+jwt"} },
		token:  func(p *idp) string { return sign(p.keys[0], object{"typ": nil}, p.good()) },
		want:   []identity.Reason{identity.TypMismatch},
	},
	{
		name:  "an ID token is not an access token",
		token: claimsWith(object{"nonce": "n-0S6_WzA2Mj"}),
		want:  []identity.Reason{identity.IDTokenAsAccess},
	},
	{
		name:   "an ID token is accepted where the configuration says so",
		issuer: func(i *oidcauth.Issuer) { i.AllowIDTokens = true },
		token:  claimsWith(object{"nonce": "n-0S6_WzA2Mj"}),
	},
	{name: "a token without subject is refused", token: claimsWith(object{"sub": nil}), want: []identity.Reason{identity.SubjectMissing}},
	{
		name:   "a token without groups is refused where they are required",
		issuer: func(i *oidcauth.Issuer) { i.RequireGroups = true },
		token:  claimsWith(object{"groups": []string{}}),
		want:   []identity.Reason{identity.GroupsMissing},
	},
	{
		name:   "groups that were left out for their number are named so",
		issuer: func(i *oidcauth.Issuer) { i.RequireGroups = true },
		token: claimsWith(object{
			"_claim_names":   object{"groups": "src1"},
			"_claim_sources": object{"src1": object{"endpoint": "https://graph.example.com"}},
		}),
		want: []identity.Reason{identity.GroupsOverage},
	},
	{
		name:   "an unverified address is nobody's name",
		issuer: func(i *oidcauth.Issuer) { i.SubjectClaim = "email" },
		token:  claimsWith(object{"email": "lead@acme.dev", "email_verified": "false"}),
		want:   []identity.Reason{identity.EmailUnverified},
	},
	{
		name:   "a scope that is missing is insufficient_scope",
		issuer: func(i *oidcauth.Issuer) { i.Scopes = []string{"luigi.run", "luigi.view"} },
		token:  claimsWith(object{"scope": "openid luigi.view"}),
		want:   []identity.Reason{identity.InsufficientScope},
	},
	{
		name:   "everything that is wrong is listed, in order of precedence",
		issuer: func(i *oidcauth.Issuer) { i.AuthorizedParties = []string{"client-2"}; i.Scopes = []string{"x"} },
		token: func(p *idp) string {
			return sign(rsaKey("key-1", 1), object{"typ": "JOSE"}, p.good().with(object{
				"aud": "api://finance", "exp": at(-time.Hour), "nbf": at(time.Hour), "iat": at(time.Hour), "sub": nil, "nonce": "n",
			}))
		},
		want: []identity.Reason{
			identity.SignatureInvalid, identity.Expired, identity.NotYetValid, identity.IATInFuture, identity.AudMismatch,
			identity.AzpMismatch, identity.TypMismatch, identity.IDTokenAsAccess, identity.SubjectMissing, identity.InsufficientScope,
		},
	},
})

func TestEveryFaultOfATokenHasItsReason(t *testing.T) {
	for _, c := range reasonCases {
		t.Run(c.name, func(t *testing.T) {
			p := newIDP(c.keys...)
			p.breakWith(c.fault)
			w := newWorld(t, p, func(w *world) {
				if c.issuer != nil {
					c.issuer(&w.issuer)
				}
			})
			a := w.judge(c.token(p))
			if got, want := fmt.Sprint(a.Reasons), fmt.Sprint(c.want); got != want {
				t.Fatalf("reasons %s, want %s (%s)", got, want, a.Detail)
			}
			wantStatus := identity.StatusVerified
			if len(c.want) > 0 {
				wantStatus = identity.StatusRejected
				if c.want[0].Indeterminate() {
					wantStatus = identity.StatusUnavailable
				}
			}
			if a.Status != wantStatus {
				t.Errorf("status %s, want %s", a.Status, wantStatus)
			}
			// One that was good until it expired still names whom it was good for.
			named := a.OK() || len(c.want) == 1 && c.want[0] == identity.Expired
			if (a.Principal.Name != "") != named {
				t.Errorf("status %s with principal %q", a.Status, a.Principal.Name)
			}
			if a.OK() && (!a.Token.Verified || a.Detail != "") {
				t.Errorf("verified, but Token.Verified is %v and Detail %q", a.Token.Verified, a.Detail)
			}
			if len(c.want) > 0 && a.Detail == "" {
				t.Error("a failure without a sentence for the operator")
			}
		})
	}
}
