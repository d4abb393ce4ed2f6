package identity_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
)

func TestStatusWords(t *testing.T) {
	want := []string{"absent", "verified", "rejected", "unavailable", "pending"}
	for i, word := range want {
		if got := identity.Status(i).String(); got != word {
			t.Errorf("status %d is %q, want %q", i, got, word)
		}
	}
}

func TestOnlyAVerifiedAuthenticationIsOK(t *testing.T) {
	var none *identity.Authentication
	if none.OK() || none.Primary() != "" {
		t.Error("no authentication at all is OK or has a reason")
	}
	for s := identity.StatusAbsent; s <= identity.StatusPending; s++ {
		a := &identity.Authentication{Status: s}
		if a.OK() != (s == identity.StatusVerified) || a.Primary() != "" {
			t.Errorf("%s: OK %t, primary reason %q", s, a.OK(), a.Primary())
		}
	}
}

func TestReject(t *testing.T) {
	type list = []identity.Reason
	for name, tt := range map[string]struct {
		reasons list
		status  identity.Status
		want    list
	}{
		"a bad token is rejected, its primary reason first": {
			list{identity.AudMismatch, identity.Expired, identity.Expired},
			identity.StatusRejected,
			list{identity.Expired, identity.AudMismatch},
		},
		"keys out of reach make it unavailable, never a bad token": {
			list{identity.Expired, identity.JWKSUnavailable},
			identity.StatusUnavailable,
			list{identity.JWKSUnavailable, identity.Expired},
		},
		"a refresh that must wait makes it unavailable": {
			list{identity.KidRefreshThrottled},
			identity.StatusUnavailable,
			list{identity.KidRefreshThrottled},
		},
		"what is wrong before the keys matter is a rejection": {
			list{identity.JWKSUnavailable, identity.MalformedJWT},
			identity.StatusRejected,
			list{identity.MalformedJWT, identity.JWKSUnavailable},
		},
		"the shadow's deadline is no fault of the token": {
			list{identity.ShadowTimeout}, identity.StatusUnavailable, list{identity.ShadowTimeout},
		},
		"no reason at all still lets nobody in": {nil, identity.StatusRejected, nil},
	} {
		t.Run(name, func(t *testing.T) {
			want := &identity.Authentication{Status: tt.status, Reasons: tt.want, Detail: "why"}
			got := identity.Reject("why", tt.reasons...)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("mismatch (-want +got):\n%s", diff)
			}
			if got.OK() {
				t.Error("a rejection is OK")
			}
		})
	}
}

func TestSameRights(t *testing.T) {
	etl := identity.Principal{Name: "svc-etl", Team: "data", Roles: []identity.Role{"runner", "viewer"}, Mapped: true}
	for name, tt := range map[string]struct {
		other identity.Principal
		want  bool
	}{
		"the same team and roles, whatever the name": {identity.Principal{Name: "other", Team: "data", Roles: []identity.Role{"runner", "viewer"}}, true},
		"another team": {identity.Principal{Name: "svc-etl", Team: "billing", Roles: []identity.Role{"runner", "viewer"}}, false},
		"a role less":  {identity.Principal{Name: "svc-etl", Team: "data", Roles: []identity.Role{"runner"}}, false},
		"another role": {identity.Principal{Name: "svc-etl", Team: "data", Roles: []identity.Role{"admin", "runner"}}, false},
		"no role":      {identity.Principal{Name: "svc-etl", Team: "data"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if etl.SameRights(tt.other) != tt.want || tt.other.SameRights(etl) != tt.want {
				t.Errorf("SameRights is not %t", tt.want)
			}
		})
	}
}
