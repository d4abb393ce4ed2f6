package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/policy"
	"crossfade/gateway/shadow"
	"crossfade/rollout"
)

func TestTheClientNeverWaitsForTheShadow(t *testing.T) {
	t.Parallel()
	for _, mode := range []gateway.Mode{gateway.Observe, gateway.Enforce} {
		up := newUpstream(t, nil)
		s := newStage(up.URL)
		s.Mode = mode
		s.tokens.hold = make(chan struct{})
		s.start(t)
		resp, body := s.do(t, http.MethodPost, "/x", "b", "Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", goodToken)
		if resp.StatusCode != 200 || body != "ok" {
			t.Errorf("%s: %d %s", mode, resp.StatusCode, body)
		}
		if n := len(s.recorder.events); n != 0 {
			t.Errorf("%s: %d events before the shadow was done", mode, n)
		}
		close(s.tokens.hold) // the client has had its answer for long
		ev := s.event()
		want := shadow.Result{Verdict: shadow.MatchAllow, Evidence: shadow.EvidenceClient}
		if ev.Shadow != want || !ev.Shadowed || !ev.ShadowToken.OK() || ev.Status != 200 {
			t.Errorf("%s: event %+v, %+v, status %d", mode, ev.Shadow, ev.ShadowToken, ev.Status)
		}
		if ev.Token.Status != identity.StatusPending || ev.Decision.Control != gateway.SideLegacy || ev.Decision.Candidate != gateway.SideToken {
			t.Errorf("%s: the request saw %v, decision %+v", mode, ev.Token.Status, ev.Decision)
		}
		s.noMoreEvents(t, 1)
	}
}

func TestAShadowThatIsDoneFirstWaitsForItsRequest(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	up := newUpstream(t, func(http.ResponseWriter, *http.Request) { close(arrived); <-release })
	s := newStage(up.URL).start(t)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		s.do(t, http.MethodGet, "/x", "", "Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", badToken)
	}()
	<-arrived        // the candidate is queued by now
	s.Shadow.Close() // and done by now
	if n := len(s.recorder.events); n != 0 {
		t.Errorf("%d events while the request was still under way", n)
	}
	close(release)
	<-answered
	ev := s.event()
	want := shadow.Result{Verdict: shadow.WouldBreak, Reason: identity.AudMismatch, Evidence: shadow.EvidenceClient}
	if ev.Shadow != want || ev.Status != 200 {
		t.Errorf("event %+v, status %d", ev.Shadow, ev.Status)
	}
	s.noMoreEvents(t, 1)
}

func TestAFullQueueShedsAndSaysSo(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.queue = shadow.RunnerOptions{Queue: 1, Workers: 1, Deadline: time.Hour}
	s.tokens.hold = make(chan struct{})
	s.start(t)
	const requests = 5
	for range requests {
		resp, _ := s.do(t, http.MethodGet, "/x", "", "Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", goodToken)
		if resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	close(s.tokens.hold)
	got := map[shadow.Result]uint64{}
	for range requests {
		got[s.event().Shadow]++
	}
	shed := shadow.Result{Verdict: shadow.NotEvaluated, Reason: identity.ShadowShed, Evidence: shadow.EvidenceClient}
	match := shadow.Result{Verdict: shadow.MatchAllow, Evidence: shadow.EvidenceClient}
	if got[shed]+got[match] != requests || got[shed] < requests-2 || got[shed] != s.Shadow.Shed() {
		t.Errorf("verdicts %v, %d shed", got, s.Shadow.Shed())
	}
	s.noMoreEvents(t, requests)
}

func TestAShadowWithoutTimeIsIndeterminate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage("http://127.0.0.1:1")
		s.proxy.Transport = transport(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}}, nil
		})
		s.queue = shadow.RunnerOptions{Deadline: 2 * time.Second}
		s.tokens.hold = make(chan struct{}) // never closed
		h := s.handler(t)
		start := time.Now()
		r := httptest.NewRequest(http.MethodGet, "/x", nil)
		r.Header.Set("Authorization", basic("svc-etl", "legacy-pass"))
		r.Header.Set("Crossfade-Token", goodToken)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 || time.Since(start) != 0 {
			t.Errorf("status %d after %s", w.Code, time.Since(start))
		}
		ev := s.event()
		want := shadow.Result{Verdict: shadow.Indeterminate, Reason: identity.ShadowTimeout, Evidence: shadow.EvidenceClient}
		if ev.Shadow != want || ev.ShadowTime != 2*time.Second || ev.Duration != 0 {
			t.Errorf("verdict %+v after %s, request %s", ev.Shadow, ev.ShadowTime, ev.Duration)
		}
		s.Shadow.Close()
	})
}

// brittle is an issuer with a bug.
type brittle struct{ *issuer }

func (brittle) Authenticate(context.Context, identity.Credential) *identity.Authentication {
	panic("index out of range in " + goodToken)
}

func TestACompanionThatPanicsHarmsNobody(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Tokens = brittle{s.tokens}
	s.start(t)
	resp, _ := s.do(t, http.MethodGet, "/x", "", "Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", goodToken)
	ev := s.event()
	want := shadow.Result{Verdict: shadow.Indeterminate, Reason: identity.PolicyError, Evidence: shadow.EvidenceClient}
	if resp.StatusCode != 200 || ev.Shadow != want {
		t.Errorf("status %d, verdict %+v", resp.StatusCode, ev.Shadow)
	}
	if strings.Contains(ev.ShadowToken.Detail, goodToken) {
		t.Errorf("the detail shows the token: %s", ev.ShadowToken.Detail)
	}
	s.noMoreEvents(t, 1)
	if n := s.Shadow.Panicked(); n != 1 {
		t.Errorf("%d panics counted", n)
	}
}

func TestARememberedCompanionIsComparedAtOnce(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.tokens.remembered = map[string]bool{goodToken: true}
	s.start(t)
	s.do(t, http.MethodGet, "/x", "", "Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", goodToken)
	ev := s.event()
	want := shadow.Result{Verdict: shadow.MatchAllow, Evidence: shadow.EvidenceClient}
	if ev.Shadow != want || ev.Shadowed || s.tokens.asked.Load() != 0 {
		t.Errorf("event %+v, shadowed %v, asked %d times", ev.Shadow, ev.Shadowed, s.tokens.asked.Load())
	}
}

func TestTheVerdictsThroughHTTP(t *testing.T) {
	t.Parallel()
	acting, err := policy.New(map[identity.Role]policy.Grant{
		"runner": {identity.ActionExecute: {"*"}}, "viewer": {identity.ActionView: {"*"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	pass := []string{"Authorization", basic("svc-etl", "legacy-pass")}
	viewer := etl()
	viewer.Roles = []identity.Role{"viewer"}
	moved := etl()
	moved.Team = "growth"
	client, none := shadow.EvidenceClient, shadow.EvidenceNone
	tests := []struct {
		name    string
		headers []string
		percent rollout.Percent
		count   bool // authorization: enforce
		want    shadow.Result
	}{
		{"both allow as the same account", append(pass, "Crossfade-Token", goodToken), 0, false, shadow.Result{Verdict: shadow.MatchAllow, Evidence: client}},
		{"no token", pass, 0, false, shadow.Result{Verdict: shadow.NoToken, Reason: identity.TokenAbsent, Evidence: none}},
		{"no token in an enforced run", pass, 100, false, shadow.Result{Verdict: shadow.NoToken, Reason: identity.TokenAbsent, Evidence: none}},
		{"the token would not be accepted", append(pass, "Crossfade-Token", badToken), 0, false, shadow.Result{Verdict: shadow.WouldBreak, Reason: identity.AudMismatch, Evidence: client}},
		{"the token's account may not", append(pass, "Crossfade-Token", "viewer.token.sig"), 0, false, shadow.Result{Verdict: shadow.WouldBreak, Reason: identity.ActionDenied, Evidence: client}},
		{"another account", append(pass, "Crossfade-Token", peerToken), 0, false, shadow.Result{Verdict: shadow.IdentityDrift, Reason: identity.PrincipalMismatch, Evidence: client}},
		{"another team", append(pass, "Crossfade-Token", "moved.token.sig"), 0, false, shadow.Result{Verdict: shadow.IdentityDrift, Reason: identity.TeamMismatch, Evidence: client}},
		{"the keys are away", append(pass, "Crossfade-Token", awayToken), 0, false, shadow.Result{Verdict: shadow.Indeterminate, Reason: identity.JWKSUnavailable, Evidence: client}},
		{"a wrong password and a good token", []string{"Authorization", basic("svc-etl", "wrong"), "Crossfade-Token", goodToken}, 0, false, shadow.Result{Verdict: shadow.LegacyLapsed, Reason: identity.LegacyUnknown, Evidence: client}},
		{"an expired password and a good token", []string{"Authorization", basic("svc-etl", "expired-pass"), "Crossfade-Token", goodToken}, 0, false, shadow.Result{Verdict: shadow.LegacyLapsed, Reason: identity.LegacyExpired, Evidence: client}},
		{"a wrong password", []string{"Authorization", basic("svc-etl", "wrong")}, 0, false, shadow.Result{Verdict: shadow.MatchDeny, Reason: identity.LegacyUnknown, Evidence: none}},
		{"legacy may not, the token would", []string{"Authorization", basic("svc-old", "viewer-pass"), "Crossfade-Token", goodToken}, 0, false, shadow.Result{Verdict: shadow.WouldOpen, Reason: identity.ActionDenied, Evidence: client}},
		{"legacy may not and is refused, the token would", []string{"Authorization", basic("svc-old", "viewer-pass"), "Crossfade-Token", goodToken}, 0, true, shadow.Result{Verdict: shadow.WouldOpen, Reason: identity.ActionDenied, Evidence: client}},
		{"neither may", []string{"Authorization", basic("svc-old", "viewer-pass"), "Crossfade-Token", "viewer.token.sig"}, 0, true, shadow.Result{Verdict: shadow.MatchDeny, Reason: identity.ActionDenied, Evidence: client}},
		{"the companion governs: reverse shadow", append(pass, "Crossfade-Token", goodToken), 100, false, shadow.Result{Verdict: shadow.MatchAllow, Evidence: client}},
		{"the companion governs and fails: reverse shadow", append(pass, "Crossfade-Token", badToken), 100, false, shadow.Result{Verdict: shadow.WouldBreak, Reason: identity.AudMismatch, Evidence: client}},
		{"a token alone", []string{"Authorization", "Bearer " + goodToken}, 0, false, shadow.Result{Verdict: shadow.NotEvaluated, Evidence: client}},
		{"a bad token alone", []string{"Authorization", "Bearer " + badToken}, 0, false, shadow.Result{Verdict: shadow.NotEvaluated, Evidence: client}},
		{"nothing", nil, 0, false, shadow.Result{Verdict: shadow.MatchDeny, Reason: identity.TokenAbsent, Evidence: none}},
		{"two credentials of one kind", append(pass, "X-Api-Key", "k1"), 0, false, shadow.Result{Verdict: shadow.NotEvaluated, Evidence: none}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, nil)
			s := newStage(up.URL)
			s.Policy, s.RolesCount, s.Rollout = acting, tt.count, at(tt.percent)
			s.keys["viewer-pass"] = verified(viewer)
			s.tokens.judgements["viewer.token.sig"] = token(viewer)
			s.tokens.judgements["moved.token.sig"] = token(moved)
			s.start(t)
			s.do(t, http.MethodPost, "/x", "b", tt.headers...)
			if got := s.event().Shadow; got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			s.noMoreEvents(t, 1)
		})
	}
}

func TestASharedCredentialIsWhomItsCompanionNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, companion string
		percent         rollout.Percent
		account         string
		team            identity.Team
		verdict         shadow.Verdict
		asked           string
	}{
		{"without a companion it is unassigned", "", 0, "shared", identity.Unassigned, shadow.NoToken, "unassigned shared"},
		{"one on its list names the account and the team", goodToken, 0, "svc-etl", "data-eng", shadow.MatchAllow, "data-eng svc-etl"},
		{"another one on its list", peerToken, 0, "svc-billing", "billing", shadow.MatchAllow, "billing svc-billing"},
		{"in an enforced run the companion governs", goodToken, 100, "svc-etl", "data-eng", shadow.MatchAllow, "data-eng svc-etl"},
		{"one that is not on its list is another account", "stranger.token.sig", 0, "shared", identity.Unassigned, shadow.IdentityDrift, "unassigned shared"},
		{"a bad one names nobody", badToken, 0, "shared", identity.Unassigned, shadow.WouldBreak, "unassigned shared"},
		{"one that cannot be verified names nobody", awayToken, 0, "shared", identity.Unassigned, shadow.Indeterminate, "unassigned shared"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, nil)
			s := newStage(up.URL)
			shared := verified(identity.Principal{Name: "shared", Team: identity.Unassigned, Mapped: true})
			shared.MayBe = []string{"svc-etl", "svc-billing"}
			s.keys["shared-pass"] = shared
			s.tokens.judgements["stranger.token.sig"] = token(identity.Principal{Name: "mallory", Team: "growth", Mapped: true})
			var asked string
			s.Rollout = ramp(func(run rollout.Run, _ bool) rollout.Enforcement {
				asked = fmt.Sprint(run.Team, " ", run.Principal)
				return rollout.Enforcement{Known: true, Enforced: tt.percent == 100}
			})
			s.start(t)
			headers := []string{"Authorization", basic("shared", "shared-pass")}
			if tt.companion != "" {
				headers = append(headers, "Crossfade-Token", tt.companion)
			}
			resp, _ := s.do(t, http.MethodGet, "/x", "", headers...)
			ev := s.event()
			if ev.Principal.Name != tt.account || ev.Team() != tt.team || ev.Shadow.Verdict != tt.verdict || ev.Shadowed {
				t.Errorf("account %q, team %q, verdict %+v, shadowed %v", ev.Principal.Name, ev.Team(), ev.Shadow, ev.Shadowed)
			}
			if resp.StatusCode != 200 || asked != tt.asked || up.last(t).header.Get("X-Forwarded-User") != tt.account {
				t.Errorf("status %d, rollout asked for %q, upstream told %q", resp.StatusCode, asked, up.last(t).header["X-Forwarded-User"])
			}
		})
	}
}

func TestTheEventSaysWhichSchemeGoverns(t *testing.T) {
	t.Parallel()
	pass := basic("svc-etl", "legacy-pass")
	for _, tt := range []struct {
		name    string
		headers []string
		percent rollout.Percent
		want    identity.Scheme
	}{
		{"a password", []string{"Authorization", pass}, 0, identity.SchemeBasic},
		{"a password with a companion", []string{"Authorization", pass, "Crossfade-Token", goodToken}, 0, identity.SchemeBasic},
		{"a companion that governs", []string{"Authorization", pass, "Crossfade-Token", goodToken}, 100, identity.SchemeOIDC},
		{"an API key", []string{"X-Api-Key", "k1"}, 0, identity.SchemeAPIKey},
		{"a token", []string{"Authorization", "Bearer " + goodToken}, 0, identity.SchemeOIDC},
		{"a companion alone", []string{"Crossfade-Token", goodToken}, 0, identity.SchemeNone},
		{"nothing", nil, 0, identity.SchemeNone},
		{"a token beside a companion, which nobody judged", []string{"Authorization", "Bearer " + goodToken, "Crossfade-Token", goodToken}, 0, identity.SchemeOIDC},
		{"a password beside two companions, which nobody judged", []string{"Authorization", pass, "Crossfade-Token", goodToken, "Crossfade-Token", goodToken}, 0, identity.SchemeBasic},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, nil)
			s := newStage(up.URL)
			s.Rollout = at(tt.percent)
			s.start(t)
			s.do(t, http.MethodGet, "/x", "", tt.headers...)
			if ev := s.event(); ev.Scheme() != tt.want {
				t.Errorf("scheme %s, want %s", ev.Scheme(), tt.want)
			}
		})
	}
}

func TestFiftyClientsAtOnceHaveOneEventForEachRequest(t *testing.T) {
	t.Parallel()
	const clients, each = 50, 8
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Rollout = ramp(func(run rollout.Run, _ bool) rollout.Enforcement {
		return rollout.Enforcement{Known: true, Enforced: strings.HasPrefix(run.ID, "w1"), Percent: 50}
	})
	s.Classifier.Profile = gateway.ProfileLuigi
	s.queue = shadow.RunnerOptions{Queue: 4, Workers: 2}
	s.start(t)
	kinds := [][]string{
		{"Authorization", basic("svc-etl", "legacy-pass")},
		{"Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", goodToken},
		{"Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", badToken},
		{"Authorization", "Bearer " + goodToken},
		{"Authorization", "Bearer " + badToken},
		{"Authorization", basic("svc-etl", "wrong"), "Crossfade-Token", awayToken},
		{},
	}
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for i := range each {
				headers := append([]string{"Content-Type", form}, kinds[(c+i)%len(kinds)]...)
				resp, body := s.do(t, http.MethodPost, "/api/ping", rpc(fmt.Sprintf(`{"worker": "w%d"}`, c)), headers...)
				if resp.StatusCode != 200 && resp.StatusCode != 503 {
					t.Errorf("status %d: %s", resp.StatusCode, body)
				}
			}
		})
	}
	all.Wait()
	s.server.Close()
	s.Shadow.Close()
	close(s.recorder.events)
	n := 0
	for ev := range s.recorder.events {
		n++
		if ev.Status == 0 || ev.Decision.Outcome == "" || ev.Shadow.Verdict == "" {
			t.Errorf("an event that is not whole: %+v", ev)
		}
	}
	if n != clients*each || s.recorder.begun.Load() != clients*each {
		t.Errorf("%d events, %d requests begun, want %d", n, s.recorder.begun.Load(), clients*each)
	}
}

func TestWithoutARecorderNothingIsMissed(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Recorder = nil
	s.Classifier = gateway.Classifier{}
	s.start(t)
	if resp, _ := s.do(t, http.MethodGet, "/", "", "Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", goodToken); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if diff := cmp.Diff(int64(gateway.DefaultMaxBody), int64(4<<20)); diff != "" {
		t.Error(diff)
	}
}

// contexts notes the context of each event.
type contexts struct{ got chan any }

type contextKey struct{}

func (c contexts) Begin(r *http.Request) (context.Context, string) {
	return context.WithValue(r.Context(), contextKey{}, "begun"), ""
}

func (c contexts) Observe(ctx context.Context, _ *gateway.Event) { c.got <- ctx.Value(contextKey{}) }

func TestTheEventComesWithTheContextOfItsBeginning(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	c := contexts{make(chan any, 2)}
	s.Recorder = c
	s.start(t)
	s.do(t, http.MethodGet, "/", "", "Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", goodToken)
	if got := <-c.got; got != "begun" {
		t.Errorf("context value %v", got)
	}
}
