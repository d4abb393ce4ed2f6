package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/policy"
	"crossfade/rollout"
)

// viewersOnly lets the role of the two accounts look and not act.
func viewersOnly(t testing.TB) *policy.Policy {
	t.Helper()
	p, err := policy.New(map[identity.Role]policy.Grant{"runner": {identity.ActionView: {"*"}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEveryRowOfTheTableThroughHTTP(t *testing.T) {
	t.Parallel()
	pass := basic("svc-etl", "legacy-pass")
	tests := []struct {
		name     string
		headers  []string
		percent  rollout.Percent
		change   func(t *testing.T, s *stage)
		status   int
		reason   identity.Reason
		account  string // of the event
		upstream bool
	}{
		{name: "a valid token is allowed", headers: []string{"Authorization", "Bearer " + goodToken}, status: 200, account: "svc-etl", upstream: true},
		{name: "a valid token is allowed at 100 percent", headers: []string{"Authorization", "Bearer " + goodToken}, percent: 100, status: 200, account: "svc-etl", upstream: true},
		{name: "a valid token as the password of the reserved user", headers: []string{"Authorization", basic("oidc", goodToken)}, percent: 100, status: 200, account: "svc-etl", upstream: true},
		{name: "a valid token without the right", headers: []string{"Authorization", "Bearer " + goodToken}, change: func(t *testing.T, s *stage) { s.Policy = viewersOnly(t) }, status: 403, reason: identity.ActionDenied, account: "svc-etl"},
		{name: "an invalid token", headers: []string{"Authorization", "Bearer " + badToken}, status: 401, reason: identity.AudMismatch},
		{name: "an invalid token beside an API key is its companion, and the key governs", headers: []string{"Authorization", "Bearer " + badToken, "X-Api-Key", "k1"}, status: 200, account: "svc-etl", upstream: true},
		{name: "a token that cannot be verified", headers: []string{"Authorization", "Bearer " + awayToken}, status: 503, reason: identity.JWKSUnavailable},
		{name: "legacy in a run that is not enforced", headers: []string{"Authorization", pass}, status: 200, account: "svc-etl", upstream: true},
		{name: "legacy with a bad companion in a run that is not enforced", headers: []string{"Authorization", pass, "Crossfade-Token", badToken}, status: 200, account: "svc-etl", upstream: true},
		{name: "legacy in an enforced run", headers: []string{"Authorization", pass}, percent: 100, status: 401, reason: identity.LegacyRefused, account: "svc-etl"},
		{name: "legacy of a retired team", headers: []string{"Authorization", pass}, change: func(_ *testing.T, s *stage) {
			s.Rollout = ramp(func(rollout.Run, bool) rollout.Enforcement {
				return rollout.Enforcement{Known: true, Enforced: true, Retired: true, Percent: 100}
			})
		}, status: 401, reason: identity.LegacyRetired, account: "svc-etl"},
		{name: "the companion of an enforced run governs", headers: []string{"Authorization", pass, "Crossfade-Token", goodToken}, percent: 100, status: 200, account: "svc-etl", upstream: true},
		{name: "the companion of an enforced run governs as whom it names", headers: []string{"Authorization", pass, "Crossfade-Token", peerToken}, percent: 100, status: 200, account: "svc-billing", upstream: true},
		{name: "a bad companion of an enforced run", headers: []string{"Authorization", pass, "Crossfade-Token", badToken}, percent: 100, status: 401, reason: identity.AudMismatch, account: "svc-etl"},
		{name: "a companion of an enforced run that cannot be verified", headers: []string{"Authorization", pass, "Crossfade-Token", awayToken}, percent: 100, status: 503, reason: identity.JWKSUnavailable, account: "svc-etl"},
		{name: "a wrong password", headers: []string{"Authorization", basic("svc-etl", "wrong")}, status: 401, reason: identity.LegacyUnknown},
		{name: "an expired password is told like a wrong one", headers: []string{"Authorization", basic("svc-etl", "expired-pass")}, status: 401, reason: identity.LegacyUnknown, account: "svc-etl"},
		{name: "a wrong password with a good companion", headers: []string{"Authorization", basic("svc-etl", "wrong"), "Crossfade-Token", goodToken}, percent: 100, status: 401, reason: identity.LegacyUnknown},
		{name: "a companion alone", headers: []string{"Crossfade-Token", goodToken}, status: 401, reason: identity.TokenAbsent},
		{name: "nothing", status: 401, reason: identity.TokenAbsent},
		{name: "two Authorization headers", headers: []string{"Authorization", pass, "Authorization", "Bearer " + goodToken}, status: 400, reason: identity.MultipleCredentials},
		{name: "roles that shadow", headers: []string{"Authorization", pass}, change: func(t *testing.T, s *stage) { s.Policy = viewersOnly(t) }, status: 200, account: "svc-etl", upstream: true},
		{name: "roles that count", headers: []string{"Authorization", pass}, change: func(t *testing.T, s *stage) { s.Policy, s.RolesCount = viewersOnly(t), true }, status: 403, reason: identity.ActionDenied, account: "svc-etl"},
		{name: "a rollout that nobody could read", headers: []string{"Authorization", pass}, change: func(_ *testing.T, s *stage) {
			s.Rollout = ramp(func(rollout.Run, bool) rollout.Enforcement { return rollout.Enforcement{} })
		}, status: 503, reason: identity.StoreUnavailable, account: "svc-etl"},
		{name: "an exempt path", change: func(_ *testing.T, s *stage) { s.Classifier.ExemptPaths = []string{"/x"} }, status: 200, upstream: true},
	}
	for _, tt := range tests {
		for _, mode := range []gateway.Mode{gateway.Enforce, gateway.Observe} {
			t.Run(tt.name+", "+mode.String(), func(t *testing.T) {
				t.Parallel()
				up := newUpstream(t, nil)
				s := newStage(up.URL)
				s.Mode, s.Rollout = mode, at(tt.percent)
				if tt.change != nil {
					tt.change(t, s)
				}
				s.start(t)
				resp, body := s.do(t, http.MethodPost, "/x", "b", tt.headers...)
				ev := s.event()
				s.noMoreEvents(t, 1)
				if mode == gateway.Observe {
					if resp.StatusCode != 200 || body != "ok" || up.count() != 1 || resp.Header.Get("Crossfade-Reason") != "" {
						t.Errorf("mode observe answered for the upstream: %d %s", resp.StatusCode, body)
					}
					if !ev.Decision.Forward() {
						t.Errorf("mode observe decided %+v", ev.Decision)
					}
					return
				}
				if resp.StatusCode != tt.status || ev.Status != tt.status {
					t.Errorf("status %d, event %d, want %d: %s", resp.StatusCode, ev.Status, tt.status, body)
				}
				if got := resp.Header.Get("Crossfade-Reason"); got != string(tt.reason) {
					t.Errorf("reason %q, want %q", got, tt.reason)
				}
				if (up.count() == 1) != tt.upstream {
					t.Errorf("%d requests upstream", up.count())
				}
				if ev.Principal.Name != tt.account {
					t.Errorf("the event names %q, want %q", ev.Principal.Name, tt.account)
				}
				if ev.TraceID != traceID || ev.Method != "POST" || ev.Path != "/x" || ev.Duration <= 0 || ev.Proto != "HTTP/1.1" {
					t.Errorf("event %+v", ev)
				}
				if resp.StatusCode >= 400 && !strings.Contains(body, traceID) {
					t.Errorf("no trace id in %s", body)
				}
			})
		}
	}
}

func TestATeamIsNeverTakenFromACredentialThatWasNotVerified(t *testing.T) {
	t.Parallel()
	claimed := identity.Reject("wrong audience", identity.AudMismatch)
	claimed.Principal = billing() // what the token claims
	for _, tt := range []struct {
		name    string
		headers []string
		percent rollout.Percent
		want    identity.Team
	}{
		{"a bad token", []string{"Authorization", "Bearer claimed.token.sig"}, 0, identity.Unassigned},
		{"a bad companion alone", []string{"Crossfade-Token", "claimed.token.sig"}, 0, identity.Unassigned},
		{"a bad companion of a wrong password", []string{"Authorization", basic("svc-billing", "wrong"), "Crossfade-Token", "claimed.token.sig"}, 0, identity.Unassigned},
		{"a bad companion of a good password", []string{"Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", "claimed.token.sig"}, 0, "data-eng"},
		{"a bad companion of an enforced run", []string{"Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", "claimed.token.sig"}, 100, "data-eng"},
		{"a good companion of a wrong password", []string{"Authorization", basic("svc-etl", "wrong"), "Crossfade-Token", peerToken}, 0, identity.Unassigned},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, nil)
			s := newStage(up.URL)
			s.tokens.judgements["claimed.token.sig"] = claimed
			s.Rollout = at(tt.percent)
			s.start(t)
			s.do(t, http.MethodGet, "/", "", tt.headers...)
			if ev := s.event(); ev.Team() != tt.want {
				t.Errorf("team %q, want %q", ev.Team(), tt.want)
			}
		})
	}
}

func TestTheRolloutIsAskedForTheRunOfAVerifiedAccountOnly(t *testing.T) {
	t.Parallel()
	body := rpc(`{"worker": "w1", "task_id": "LoadUsers_1_abc", "family": "LoadUsers", "status": "PENDING", "runnable": true}`)
	for _, tt := range []struct {
		name       string
		credential string
		mode       gateway.Mode
		want       []string
	}{
		{"a good password", basic("svc-etl", "legacy-pass"), gateway.Enforce, []string{"data-eng svc-etl w1 LoadUsers false"}},
		{"a good password in mode observe", basic("svc-etl", "legacy-pass"), gateway.Observe, []string{"data-eng svc-etl w1 LoadUsers true"}},
		{"a wrong password", basic("svc-etl", "wrong"), gateway.Enforce, nil},
		{"a token", "Bearer " + goodToken, gateway.Enforce, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, nil)
			s := newStage(up.URL)
			var mu sync.Mutex
			var got []string
			s.Mode, s.Classifier.Profile = tt.mode, gateway.ProfileLuigi
			s.Rollout = ramp(func(run rollout.Run, observe bool) rollout.Enforcement {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, fmt.Sprint(run.Team, " ", run.Principal, " ", run.ID, " ", run.Pipeline, " ", observe))
				return rollout.Enforcement{Known: true}
			})
			s.start(t)
			s.do(t, http.MethodPost, "/api/add_task", body, "Authorization", tt.credential, "Content-Type", form)
			s.event()
			mu.Lock()
			defer mu.Unlock()
			if strings.Join(got, "|") != strings.Join(tt.want, "|") {
				t.Errorf("asked %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLegacySuccessesAreAnnouncedToEndInEnforceOnly(t *testing.T) {
	t.Parallel()
	deprecated, sunset := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	expires := time.Date(2026, 12, 24, 12, 0, 0, 0, time.UTC)
	pass, ending := basic("svc-etl", "legacy-pass"), basic("svc-etl", "ending-pass")
	const guide = `<https://wiki.acme.dev/oidc>; rel="deprecation"; type="text/html"`
	for _, tt := range []struct {
		name       string
		mode       gateway.Mode
		credential string
		dates      bool
		want       [3]string // Deprecation, Sunset, Link
	}{
		{"a password", gateway.Enforce, pass, true, [3]string{"@1767225600", "Fri, 01 Jan 2027 00:00:00 GMT", guide}},
		{"a password in mode observe", gateway.Observe, pass, true, [3]string{}},
		{"a token", gateway.Enforce, "Bearer " + goodToken, true, [3]string{}},
		{"a wrong password", gateway.Enforce, basic("svc-etl", "wrong"), true, [3]string{}},
		{"without dates", gateway.Enforce, pass, false, [3]string{"", "", guide}},
		{"a credential that ends by itself", gateway.Enforce, ending, false, [3]string{"", "Thu, 24 Dec 2026 12:00:00 GMT", guide}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, nil)
			s := newStage(up.URL)
			s.Mode = tt.mode
			own := verified(etl())
			own.Expires = expires
			s.keys["ending-pass"] = own
			if tt.dates {
				s.Deprecated, s.Sunset = deprecated, sunset
			}
			s.start(t)
			resp, _ := s.do(t, http.MethodGet, "/", "", "Authorization", tt.credential)
			got := [3]string{resp.Header.Get("Deprecation"), resp.Header.Get("Sunset"), resp.Header.Get("Link")}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAWorkerIsAnsweredAsTheProtocolAsks(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Classifier.Profile, s.Rollout = gateway.ProfileLuigi, at(100)
	s.start(t)
	ask := func(method, target string, headers ...string) (*http.Response, map[string]any) {
		headers = append(headers, "Authorization", basic("svc-etl", "legacy-pass"), "Content-Type", form)
		body := ""
		if method == http.MethodPost {
			body = rpc(`{"worker": "w1"}`)
		}
		resp, text := s.do(t, method, target, body, headers...)
		s.event()
		var got map[string]any
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return resp, got
	}
	for _, procedure := range []string{"ping", "get_work", "add_worker"} {
		resp, body := ask(http.MethodPost, "/api/"+procedure)
		if _, has := body["response"]; resp.StatusCode != 200 || has || resp.Header.Get("Crossfade-Reason") != "legacy_refused" {
			t.Errorf("%s: %d %v", procedure, resp.StatusCode, body)
		}
	}
	if resp, _ := ask(http.MethodPost, "/api/ping", "Crossfade-Abort", "off"); resp.StatusCode != 401 {
		t.Errorf("with Crossfade-Abort off: %d", resp.StatusCode)
	}
	if resp, _ := ask(http.MethodGet, "/api/task_list"); resp.StatusCode != 401 {
		t.Errorf("to a browser: %d", resp.StatusCode)
	}
	if up.count() != 0 {
		t.Errorf("%d requests upstream", up.count())
	}
}

func TestTheMetadataIsServedByTheGatewayInEnforceOnly(t *testing.T) {
	t.Parallel()
	for mode, want := range map[gateway.Mode]string{gateway.Enforce: "authorization_servers", gateway.Observe: "ok"} {
		up := newUpstream(t, nil)
		s := newStage(up.URL)
		s.Mode, s.Metadata = mode, &gateway.Metadata{AuthorizationServers: []string{"https://acme.okta.com"}}
		s.start(t)
		resp, body := s.do(t, http.MethodGet, gateway.MetadataPath, "")
		if resp.StatusCode != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", mode, resp.StatusCode, body)
		}
	}
}

func TestAPanicInTheMiddleStillEmitsItsEventOnce(t *testing.T) {
	t.Parallel()
	for _, companion := range []bool{false, true} {
		s := newStage("http://127.0.0.1:1")
		s.proxy.Transport = transport(func(*http.Request) (*http.Response, error) { panic("a bug") })
		h := s.handler(t)
		s.server = httptest.NewServer(nil) // for noMoreEvents
		r := httptest.NewRequest(http.MethodGet, "/x", nil)
		r.Header.Set("Authorization", basic("svc-etl", "legacy-pass"))
		if companion {
			r.Header.Set("Crossfade-Token", goodToken)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed: net/http would take the reply for a good one")
				}
			}()
			h.ServeHTTP(httptest.NewRecorder(), r)
		}()
		if ev := s.event(); ev.Status != 0 || ev.Principal.Name != "svc-etl" {
			t.Errorf("event %+v", ev)
		}
		s.noMoreEvents(t, 1)
	}
}

func TestTheEventHoldsNoSecret(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL).start(t)
	s.do(t, http.MethodGet, "/x?password=hunter2", "", "Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", goodToken)
	ev := s.event()
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		text := fmt.Sprintf(verb, *ev)
		for _, secret := range []string{"legacy-pass", goodToken, "hunter2"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s of the event shows %q", verb, secret)
			}
		}
	}
}
