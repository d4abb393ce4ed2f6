package gateway_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
)

func TestSignals(t *testing.T) {
	t.Parallel()
	decided := func(o gateway.Outcome, r identity.Reason) *gateway.Event {
		return &gateway.Event{Decision: gateway.Decision{Outcome: o, Reason: r}}
	}
	shadowed := func(v shadow.Verdict, r identity.Reason) *gateway.Event {
		ev := decided(gateway.Allowed, "")
		ev.Shadow = shadow.Result{Verdict: v, Reason: r}
		return ev
	}
	both := func(ev *gateway.Event, v shadow.Verdict, r identity.Reason) *gateway.Event {
		ev.Shadow = shadow.Result{Verdict: v, Reason: r}
		return ev
	}
	throttled := func(ev *gateway.Event) *gateway.Event {
		ev.Throttled = true
		return ev
	}
	for _, tt := range []struct {
		name string
		ev   *gateway.Event
		want identity.Reason // "" for none
	}{
		{"a forged token", decided(gateway.Refused, identity.SignatureInvalid), identity.SignatureInvalid},
		{"a forged token in mode observe", decided(gateway.WouldRefuse, identity.SignatureInvalid), identity.SignatureInvalid},
		{"somebody else's worker", decided(gateway.Refused, identity.WorkerMismatch), identity.WorkerMismatch},
		{"somebody else's worker, where that is a verdict only", &gateway.Event{Decision: gateway.Decision{Outcome: gateway.Allowed}, Other: "svc-billing"}, identity.WorkerMismatch},
		{"a page of another site", decided(gateway.Refused, identity.CrossSite), identity.CrossSite},
		{"a token of an issuer that nobody knows", decided(gateway.Refused, identity.IssuerUnknown), identity.IssuerUnknown},
		{"a token for another service", decided(gateway.WouldRefuse, identity.AudMismatch), identity.AudMismatch},
		{"an algorithm that is not allowed", decided(gateway.Refused, identity.AlgNotAllowed), identity.AlgNotAllowed},
		{"a wrong password", decided(gateway.Refused, identity.LegacyUnknown), identity.LegacyUnknown},
		{"a revoked key", decided(gateway.WouldRefuse, identity.LegacyRevoked), identity.LegacyRevoked},
		{"a password of a team that gave passwords up", decided(gateway.Refused, identity.LegacyRetired), identity.LegacyRetired},
		{"a right password of a run that must use OIDC", decided(gateway.Refused, identity.LegacyRefused), ""},
		{"nothing at all", decided(gateway.Refused, identity.TokenAbsent), ""},
		{"a token that has expired", decided(gateway.Refused, identity.Expired), ""},
		{"a missing right", decided(gateway.Refused, identity.ActionDenied), ""},
		{"no time to verify a password", decided(gateway.Unavailable, identity.Throttled), ""},
		{"no time to verify a password in mode observe", decided(gateway.WouldRefuse, identity.Throttled), ""},
		{"too many guesses", throttled(decided(gateway.Refused, identity.Throttled)), identity.Throttled},
		{"too many guesses in mode observe", throttled(decided(gateway.WouldRefuse, identity.LegacyUnknown)), identity.Throttled},
		{"too many guesses in mode observe, and a right one", throttled(decided(gateway.Allowed, "")), identity.Throttled},
		{"keys that did not come", decided(gateway.Unavailable, identity.JWKSUnavailable), ""},
		{"keys that did not come in mode observe", decided(gateway.WouldRefuse, identity.JWKSUnavailable), ""},
		{"a forged token whose refusal is not decided", decided(gateway.Allowed, identity.SignatureInvalid), ""},
		{"a door that enforcement would open", shadowed(shadow.WouldOpen, identity.ActionDenied), identity.ActionDenied},
		{"two credentials of two accounts", shadowed(shadow.IdentityDrift, identity.PrincipalMismatch), identity.PrincipalMismatch},
		{"a request without a token", shadowed(shadow.NoToken, identity.TokenAbsent), ""},
		{"a forged companion, which governs nothing", shadowed(shadow.WouldBreak, identity.SignatureInvalid), ""},
		{"a password that is gone, with a good token", shadowed(shadow.LegacyLapsed, identity.LegacyUnknown), ""},
		{"a refusal comes before the shadow", both(decided(gateway.Refused, identity.LegacyRetired), shadow.IdentityDrift, identity.TeamMismatch), identity.LegacyRetired},
		{"a refusal that is none does not hide the shadow", both(decided(gateway.Refused, identity.LegacyRefused), shadow.IdentityDrift, identity.TeamMismatch), identity.TeamMismatch},
		{"a request that nobody decided", &gateway.Event{}, ""},
		{"a word that is not on the list", decided(gateway.Refused, "no_such_reason"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, ok := tt.ev.Signal()
			if got != tt.want || ok != (tt.want != "") {
				t.Errorf("signal %q, %v, want %q", got, ok, tt.want)
			}
		})
	}
}

// TestTheCodesOfSignals pins the codes: alerts of others rest on them.
func TestTheCodesOfSignals(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	seen := map[string]bool{}
	for _, r := range gateway.SignalReasons() {
		code := gateway.SignalPrefix + string(r)
		if seen[code] {
			t.Errorf("%s stands twice", code)
		}
		seen[code] = true
		info, known := r.Info()
		if !known || info.Indeterminate {
			t.Errorf("%s is not on the closed list, or says that nothing is known", r)
		}
		fmt.Fprintln(&b, code)
	}
	sameAsGolden(t, "signals.golden", b.String())
}

// Every signal that any outcome, reason and verdict can make is on the list.
func TestNoSignalIsMissingOnTheList(t *testing.T) {
	t.Parallel()
	all := gateway.SignalReasons()
	found := map[identity.Reason]bool{}
	note := func(ev *gateway.Event) {
		r, ok := ev.Signal()
		if !ok {
			return
		}
		found[r] = true
		if !slices.Contains(all, r) {
			t.Errorf("%s is no signal reason: %+v, %+v", r, ev.Decision, ev.Shadow)
		}
	}
	for _, info := range identity.Reasons() {
		for _, outcome := range gateway.Outcomes() {
			for _, throttled := range []bool{false, true} {
				note(&gateway.Event{Decision: gateway.Decision{Outcome: outcome, Reason: info.Reason}, Throttled: throttled})
			}
		}
	}
	// The reasons of verdicts are what package shadow makes of two judgements.
	teams := []identity.Team{"data-eng", "billing"}
	roles := [][]identity.Role{{"runner"}, {"operator"}}
	denials := []identity.Reason{
		"", identity.RoleMissing, identity.ActionDenied, identity.TaskFamilyDenied, identity.TaskUnknown, identity.StoreUnavailable,
	}
	var sides []shadow.Side
	for _, name := range []string{"svc-etl", "svc-billing"} {
		for _, team := range teams {
			for _, role := range roles {
				for _, mapped := range []bool{true, false} {
					p := identity.Principal{Name: name, Team: team, Roles: role, Mapped: mapped}
					for _, denied := range denials {
						sides = append(sides, shadow.Side{Auth: verified(p), Denied: denied})
					}
				}
			}
		}
	}
	for _, legacy := range sides {
		for _, token := range sides {
			for _, count := range []bool{false, true} {
				note(&gateway.Event{Shadow: shadow.Compare(legacy, token, count)})
			}
		}
	}
	for _, r := range all {
		if !found[r] {
			t.Errorf("%s is on the list, and nothing makes it", r)
		}
	}
}

func TestSignalsThroughHTTP(t *testing.T) {
	t.Parallel()
	pass := basic("svc-etl", "legacy-pass")
	for _, tt := range []struct {
		name    string
		headers []string
		want    identity.Reason
	}{
		{"a wrong password", []string{"Authorization", basic("svc-etl", "wrong")}, identity.LegacyUnknown},
		{"a password that has expired", []string{"Authorization", basic("svc-etl", "expired-pass")}, identity.LegacyExpired},
		{"a token for another service", []string{"Authorization", "Bearer " + badToken}, identity.AudMismatch},
		{"a companion of another account", []string{"Authorization", pass, "Crossfade-Token", peerToken}, identity.PrincipalMismatch},
		{"a companion of the same account", []string{"Authorization", pass, "Crossfade-Token", goodToken}, ""},
		{"nothing", nil, ""},
	} {
		for _, mode := range []gateway.Mode{gateway.Enforce, gateway.Observe} {
			t.Run(tt.name+", "+mode.String(), func(t *testing.T) {
				t.Parallel()
				s := newStage(newUpstream(t, nil).URL)
				s.Mode = mode
				s.start(t)
				s.do(t, http.MethodGet, "/", "", tt.headers...)
				if got, _ := s.event().Signal(); got != tt.want {
					t.Errorf("signal %q, want %q", got, tt.want)
				}
			})
		}
	}
}
