package app_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/cmd/crossfade/app"
	event "crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/rollout/evidence"
)

func TestWhatEnforceWouldRefuseIsRecordedWithWhomItNames(t *testing.T) {
	t.Parallel()
	worker := func(r request) request {
		like := addTask("w", "LoadUsers")
		r.method, r.path, r.body = like.method, like.path, like.body
		return r
	}
	const roles = "roles: { runner: { execute: [\"Extract*\"] } }\n"
	for name, test := range map[string]struct {
		ask  func(s *site) request
		mode string
		team identity.Team
		want map[evidence.Refusal]int64
	}{
		"a page that the roles do not show": {
			ask: func(*site) request { return etl(pages()) }, team: "data-eng",
			want: map[evidence.Refusal]int64{{Account: "svc-etl", Reason: "role_missing", Roles: true}: 1},
		},
		"a password whose roles do not allow the task": {
			ask: func(*site) request { return worker(etl(request{})) }, team: "data-eng",
			want: map[evidence.Refusal]int64{{Account: "svc-etl", Pipeline: "LoadUsers", Reason: "role_missing", Roles: true}: 1},
		},
		"the same in mode enforce, where only the roles would": {
			ask: func(*site) request { return worker(etl(request{})) }, mode: "enforce", team: "data-eng",
			want: map[evidence.Refusal]int64{{Account: "svc-etl", Pipeline: "LoadUsers", Reason: "role_missing", Roles: true}: 1},
		},
		"a wrong password": {
			ask: func(*site) request { return worker(request{user: "svc-etl", password: "guess"}) }, team: identity.Unassigned,
			want: map[evidence.Refusal]int64{{Reason: "legacy_unknown"}: 1},
		},
		"a wrong password in mode enforce, which is refused and not only would be": {
			ask: func(*site) request { return worker(request{user: "svc-etl", password: "guess"}) }, mode: "enforce", team: identity.Unassigned,
			want: map[evidence.Refusal]int64{},
		},
		"nothing": {
			ask: func(*site) request { return worker(request{}) }, team: identity.Unassigned,
			want: map[evidence.Refusal]int64{{Reason: "token_absent"}: 1},
		},
		"two credentials": {
			ask: func(*site) request {
				return worker(request{header: http.Header{"Authorization": {"Basic eDp5", "Bearer z"}}})
			},
			team: identity.Unassigned, want: map[evidence.Refusal]int64{{Reason: "multiple_credentials"}: 1},
		},
		"a token for another audience": {
			ask:  func(s *site) request { return worker(request{bearer: s.token("svc-etl", "api://finance")}) },
			team: identity.Unassigned, want: map[evidence.Refusal]int64{{Reason: "aud_mismatch"}: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := inProcess(t)
			s := newSite(t)
			s.write("roles.yaml", roles)
			s.configure("mode", map[string]string{"": "observe"}[test.mode]+test.mode, "roles", "roles.yaml")
			g := s.start(func(o *app.Options) { o.Store = store }).loaded()
			g.send(test.ask(s))
			g.end()
			got := make(map[evidence.Refusal]int64)
			today := evidence.DayOf(time.Now())
			for _, day := range []evidence.Day{today.Before(), today} {
				refusals, err := store.Refusals(t.Context(), test.team, day)
				if err != nil {
					t.Fatal(err)
				}
				for r, n := range refusals {
					got[r] += n.Requests
					if n.Last.IsZero() {
						t.Errorf("%+v has no time", r)
					}
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("refusals (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARefusalNamesWhoeverIsKnown(t *testing.T) {
	etl := identity.Principal{Name: "svc-etl", Team: "data-eng"}
	for name, test := range map[string]struct {
		ev   event.Event
		want evidence.Refusal
	}{
		"an expired password is its owner's": {
			ev: event.Event{
				Principal: etl, Status: 200,
				Decision: event.Decision{Outcome: event.WouldRefuse, Reason: identity.LegacyExpired, Control: event.SideLegacy},
			},
			want: evidence.Refusal{Account: "svc-etl", Reason: identity.LegacyExpired},
		},
		"what the upstream refuses too is told apart": {
			ev:   event.Event{Status: 401, Decision: event.Decision{Outcome: event.WouldRefuse, Reason: identity.TokenAbsent}},
			want: evidence.Refusal{Reason: identity.TokenAbsent, Already: true},
		},
		"a token whose signature held is whose it says": {
			ev: event.Event{
				Token:    &identity.Authentication{Status: identity.StatusRejected, Principal: etl, Token: &identity.TokenInfo{Verified: true}},
				Decision: event.Decision{Outcome: event.WouldRefuse, Reason: identity.Expired, Control: event.SideToken},
			},
			want: evidence.Refusal{Account: "svc-etl", Reason: identity.Expired},
		},
		"another token is nobody's": {
			ev: event.Event{
				Token:    &identity.Authentication{Status: identity.StatusRejected, Principal: etl, Token: &identity.TokenInfo{}},
				Decision: event.Decision{Outcome: event.WouldRefuse, Reason: identity.SignatureInvalid, Control: event.SideToken},
			},
			want: evidence.Refusal{Reason: identity.SignatureInvalid},
		},
		"who guesses too often would be turned away": {
			ev: event.Event{
				Principal: etl, Throttled: true, Legacy: &identity.Authentication{Status: identity.StatusVerified, Principal: etl},
				Decision: event.Decision{Outcome: event.Allowed, Control: event.SideLegacy},
			},
			want: evidence.Refusal{Account: "svc-etl", Reason: identity.Throttled},
		},
		"who is let in would be": {
			ev: event.Event{Principal: etl, Status: 403, Decision: event.Decision{Outcome: event.Allowed, Control: event.SideLegacy}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			test.ev.Start, test.ev.Shadow = time.Now(), shadow.Result{Verdict: shadow.MatchDeny}
			var o evidence.Observation
			if !app.ObservationOf(&test.ev, &o) || o.WouldRefuse != test.want {
				t.Errorf("got %+v, want %+v", o.WouldRefuse, test.want)
			}
		})
	}
}
