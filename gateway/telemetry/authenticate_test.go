package telemetry_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/gateway/telemetry"
)

// judge is an authenticator that always says the same.
type judge struct{ says *identity.Authentication }

func (j judge) Authenticate(context.Context, identity.Credential) *identity.Authentication {
	return j.says
}

func (j judge) Cached(c identity.Credential) (*identity.Authentication, bool) {
	return j.says, c.User == "known"
}

func verified() judge {
	return judge{&identity.Authentication{
		Status: identity.StatusVerified, Principal: identity.Principal{Name: "svc-etl", Team: "data-eng", Mapped: true},
	}}
}

func TestAuthenticatorMeasures(t *testing.T) {
	tel := start(t, telemetry.Options{})
	cases := []struct {
		scheme identity.Scheme
		judge  judge
	}{
		{identity.SchemeBasic, verified()},
		{identity.SchemeBasic, judge{identity.Reject("", identity.LegacyUnknown)}},
		{identity.SchemeAPIKey, judge{&identity.Authentication{
			Status: identity.StatusUnavailable, Reasons: []identity.Reason{identity.Throttled},
		}}},
		{identity.SchemeOIDC, judge{identity.Reject("", identity.KidRefreshThrottled)}},
		{identity.SchemeOIDC, judge{identity.Reject("", identity.KidRefreshThrottled)}},
		{identity.Scheme(99), verified()},
	}
	for _, c := range cases {
		got := tel.Authenticator(c.judge).Authenticate(context.Background(), identity.Credential{Scheme: c.scheme})
		if got != c.judge.says {
			t.Errorf("the judgement of %v was changed", c.scheme)
		}
	}
	want := `crossfade_auth_duration_seconds_count{result="rejected",scheme="basic"} 1
crossfade_auth_duration_seconds_count{result="unavailable",scheme="api_key"} 1
crossfade_auth_duration_seconds_count{result="unavailable",scheme="oidc"} 2
crossfade_auth_duration_seconds_count{result="verified",scheme="basic"} 1
crossfade_auth_duration_seconds_count{result="verified",scheme="none"} 1
crossfade_throttled_total{kind="jwks"} 2
crossfade_throttled_total{kind="legacy"} 1
`
	if diff := cmp.Diff(want, samples(t, tel, "crossfade_auth_duration_seconds_count", "crossfade_throttled_total")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTokenAuthenticatorKeepsCached(t *testing.T) {
	tel := start(t, telemetry.Options{})
	tokens := tel.TokenAuthenticator(verified())
	if _, ok := tokens.Cached(identity.Credential{User: "known"}); !ok {
		t.Error("a known judgement is not found")
	}
	if _, ok := tokens.Cached(identity.Credential{}); ok {
		t.Error("an unknown judgement is found")
	}
	if got := samples(t, tel, "crossfade_auth_duration_seconds_count"); got != "" {
		t.Errorf("lookups were measured: %s", got)
	}
	tokens.Authenticate(context.Background(), identity.Credential{Scheme: identity.SchemeOIDC})
	if got := samples(t, tel, "crossfade_auth_duration_seconds_count"); got == "" {
		t.Error("a judgement was not measured")
	}
}
