package oidcauth_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
)

func reasonsOf(i oidcauth.Inspection) (reasons []identity.Reason) {
	for _, f := range i.Findings {
		reasons = append(reasons, f.Reason)
	}
	return reasons
}

func TestInspectShowsAGoodTokenWithItsPrincipal(t *testing.T) {
	w := newWorld(t, newIDP(), func(w *world) { w.options.Directory = directory(t) })
	got := w.v.Inspect(t.Context(), identity.NewSecret(w.idp.token(w.idp.good())))
	want := oidcauth.Inspection{
		Header: []oidcauth.Claim{
			{Name: "alg", Value: json.RawMessage(`"RS256"`)}, {Name: "kid", Value: json.RawMessage(`"key-1"`)}, {Name: "typ", Value: json.RawMessage(`"JWT"`)},
		},
		Claims: []oidcauth.Claim{
			{Name: "aud", Value: json.RawMessage(`"api://luigi"`)},
			{Name: "azp", Value: json.RawMessage(`"client-1"`)},
			{Name: "exp", Value: json.RawMessage(`1800003600`), Note: "2027-01-15T09:00:00Z, in 1h0m0s"},
			{Name: "iat", Value: json.RawMessage(`1800000000`), Note: "2027-01-15T08:00:00Z, now"},
			{Name: "iss", Value: json.RawMessage(`"https://idp.example.com/tenant"`)},
			{Name: "jti", Value: json.RawMessage(`"j-1"`)},
			{Name: "sub", Value: json.RawMessage(`"0oa1b2c3"`)},
		},
		Issuer: w.idp.url, Preset: "generic", Status: "verified", SignatureVerified: true, Findings: []oidcauth.Finding{},
		Principal: &oidcauth.InspectedPrincipal{Name: "svc-etl", Team: "data-eng", Roles: []identity.Role{"runner"}, Mapped: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestInspectNamesEverythingThatIsWrong(t *testing.T) {
	w := newWorld(t, newIDP(), func(w *world) {
		w.options.Directory = directory(t)
		w.options.Deny.TokenIDs = []string{"j-1"}
	})
	token := w.idp.token(w.idp.good().with(object{"aud": "api://finance", "nbf": at(time.Hour)}))
	got := w.v.Inspect(t.Context(), identity.NewSecret(token))
	want := []oidcauth.Finding{
		{
			Reason: identity.NotYetValid, Means: "The token is not valid yet.", Owner: identity.OwnerTeam,
			Detail: "the token is not valid before 2027-01-15T09:00:00Z, in 1h0m0s",
		},
		{
			Reason: identity.AudMismatch, Means: "The token is meant for another audience.", Owner: identity.OwnerTeam,
			Detail: `the token is for "api://finance"; this gateway accepts "api://luigi"`,
		},
		{Reason: identity.Expired, Means: "The token has expired.", Owner: identity.OwnerTeam, Detail: "the token id is on the deny list"},
	}
	slices.SortStableFunc(want, func(a, b oidcauth.Finding) int { return rank(a.Reason) - rank(b.Reason) })
	if diff := cmp.Diff(want, got.Findings); diff != "" {
		t.Error(diff)
	}
	if got.Principal == nil || got.Principal.Name != "svc-etl" {
		t.Errorf("principal %+v", got.Principal)
	}
}

func rank(r identity.Reason) int {
	return slices.IndexFunc(identity.Reasons(), func(i identity.ReasonInfo) bool { return i.Reason == r })
}

func TestInspectWorksOffline(t *testing.T) {
	p := newIDP()
	token := identity.NewSecret(p.token(p.good().with(object{"aud": "x"})))
	now := func() time.Time { return start }

	v, err := oidcauth.New(oidcauth.Options{Issuers: []oidcauth.Issuer{{URL: p.url, Audiences: []string{"api://luigi"}}}, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	got := v.Inspect(t.Context(), token)
	if diff := cmp.Diff([]identity.Reason{identity.AudMismatch}, reasonsOf(got)); diff != "" || len(got.Unchecked) != 1 || got.SignatureVerified {
		t.Errorf("%s%+v", diff, got)
	}
	if a := v.Authenticate(t.Context(), identity.Credential{Scheme: identity.SchemeOIDC, Secret: token}); a.Status != identity.StatusUnavailable {
		t.Errorf("offline, a token is %s", a.Status)
	}
	if len(v.Probe(t.Context())) != 0 {
		t.Error("probed offline")
	}

	v, err = oidcauth.New(oidcauth.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	got = v.Inspect(t.Context(), token)
	if len(got.Findings) != 0 || len(got.Unchecked) != 1 || got.Status != "unavailable" || got.Preset != "generic" {
		t.Errorf("%+v", got)
	}
	if a := v.Authenticate(t.Context(), identity.Credential{Scheme: identity.SchemeOIDC, Secret: token}); a.Primary() != identity.IssuerUnknown {
		t.Errorf("without issuers, a token is %v", a.Reasons)
	}
}

func TestInspectSaysWhatCannotBeRead(t *testing.T) {
	w := newWorld(t, newIDP(), nil)
	for token, want := range map[string]identity.Reason{
		"opaque": identity.OpaqueUnsupported, "a.b.c": identity.MalformedJWT, "": identity.OpaqueUnsupported,
		strings.Repeat("a", 20<<10): identity.TokenOversize,
	} {
		got := w.v.Inspect(t.Context(), identity.NewSecret(token))
		if diff := cmp.Diff([]identity.Reason{want}, reasonsOf(got)); diff != "" || got.Status != "rejected" {
			t.Errorf("%s%+v", diff, got)
		}
		if _, err := json.Marshal(got); err != nil {
			t.Error(err)
		}
	}
}

// FuzzParse feeds the parser with what a stranger sends. Whatever it is: no
// panic, an answer, and what is shown of it is JSON again.
func FuzzParse(f *testing.F) {
	p := newIDP(ecKey("key-1", 0))
	v, err := oidcauth.New(oidcauth.Options{
		Issuers: []oidcauth.Issuer{{URL: p.url, Audiences: []string{"api://luigi"}}}, Now: func() time.Time { return start },
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range reasonCases {
		parts := strings.SplitN(c.token(p), ".", 3)
		for len(parts) < 3 {
			parts = append(parts, "")
		}
		f.Add(parts[0], parts[1], parts[2])
	}
	f.Add(`{"alg":"ES256"}`, `{"exp":1e400,"aud":[[]],"groups":{"a":1}}`, "")
	f.Add(`{"alg":"ES256","kid":null}`, `{"sub":"\ud800","iat":-0,"email_verified":"yes"}`, "AA")
	f.Fuzz(func(t *testing.T, header, payload, signature string) {
		for _, token := range []string{
			header + "." + payload + "." + signature,
			b64(header) + "." + b64(payload) + "." + b64(signature), // reaches further
		} {
			got := v.Inspect(t.Context(), identity.NewSecret(token))
			if got.SignatureVerified || got.Status == "verified" {
				t.Fatal("verified without keys")
			}
			if len(got.Findings) == 0 && len(got.Unchecked) == 0 {
				t.Fatal("neither good nor bad")
			}
			if _, err := json.Marshal(got); err != nil {
				t.Fatal(err)
			}
			for _, f := range got.Findings {
				if f.Detail == "" || strings.ContainsAny(f.Detail, "\r\n") {
					t.Fatalf("the sentence %q", f.Detail)
				}
			}
			a := v.Authenticate(t.Context(), credential(token))
			if a.OK() || len(a.Reasons) == 0 {
				t.Fatalf("%s %v", a.Status, a.Reasons)
			}
		}
	})
}
