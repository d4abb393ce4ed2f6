package gateway_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/throttle"
)

// memory of a keyring: the secrets that were verified lately.
type memory map[string]bool

func (m memory) Remembers(c identity.Credential) bool { return m[c.Secret.Reveal()] }

func TestGuessesCountByTheRealAddress(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("10.0.0.0/8")}
	for _, tt := range []struct {
		name    string
		trusted []netip.Prefix
		guesser string // X-Forwarded-For of the guesses
		service string
		status  int
	}{
		{"behind a trusted proxy the guesser is held up", proxies, "192.0.2.7", "192.0.2.7", 429},
		{"and a service elsewhere is not", proxies, "192.0.2.7", "198.51.100.9", 200},
		{"an address that the guesser made up counts for nobody", proxies, "198.51.100.9, 192.0.2.7", "198.51.100.9", 200},
		{"proxies of proxies are seen through", proxies, "192.0.2.7, 10.1.2.3", "192.0.2.7, 10.9.9.9", 429},
		{"without trusted proxies the header means nothing", nil, "192.0.2.7", "198.51.100.9", 429},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(newUpstream(t, nil).URL)
			s.keys["right"], s.proxy.TrustedProxies = verified(etl()), tt.trusted
			s.throttle(t, memory{})
			s.start(t)
			for i := range throttle.DefaultFailures {
				resp, _ := s.do(t, http.MethodGet, "/", "", "Authorization", basic("svc-etl", fmt.Sprint("guess ", i)), "X-Forwarded-For", tt.guesser)
				if resp.StatusCode != 401 {
					t.Fatalf("guess %d: status %d", i, resp.StatusCode)
				}
			}
			resp, body := s.do(t, http.MethodGet, "/", "", "Authorization", basic("svc-etl", "right"), "X-Forwarded-For", tt.service)
			if resp.StatusCode != tt.status {
				t.Errorf("status %d, want %d: %s", resp.StatusCode, tt.status, body)
			}
		})
	}
}

// throttle puts one with the default limits in front of the keyring.
func (s *stage) throttle(t testing.TB, m throttle.Memory) {
	t.Helper()
	var err error
	if s.Throttle, err = throttle.New(throttle.Options{Memory: m}); err != nil {
		t.Fatal(err)
	}
}

func TestWhoIsThrottledIsToldWhenToComeBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		method, path string
		user         string
	}{
		{"a page", http.MethodGet, "/", "svc-etl"},
		{"a worker, whom the reply does not stop", http.MethodPost, "/api/get_work", "svc-etl"},
		{"a user that nobody knows", http.MethodGet, "/", "nobody"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, nil)
			s := newStage(up.URL)
			s.keys["right"], s.Classifier.Profile = verified(etl()), gateway.ProfileLuigi
			s.throttle(t, memory{})
			s.start(t)
			send := func(secret string) *http.Response {
				body := ""
				if tt.method == http.MethodPost {
					body = "data=%7B%22worker%22%3A%22w%22%7D"
				}
				resp, _ := s.do(t, tt.method, tt.path, body,
					"Authorization", basic(tt.user, secret), "Content-Type", "application/x-www-form-urlencoded", "Crossfade-Token", goodToken)
				return resp
			}
			for i := range throttle.DefaultFailures {
				send(fmt.Sprint("guess ", i))
				if ev := s.event(); ev.Throttled || ev.Decision.Reason != identity.LegacyUnknown {
					t.Fatalf("guess %d: throttled %v, decision %+v", i, ev.Throttled, ev.Decision)
				}
			}
			resp := send("right")
			if after := resp.Header.Get("Retry-After"); resp.StatusCode != 429 || after != "5" {
				t.Errorf("status %d, Retry-After %q, want 429 and 5", resp.StatusCode, after)
			}
			if resp.Header.Get("Crossfade-Reason") != "throttled" || resp.Header.Get("Www-Authenticate") != "" {
				t.Errorf("headers %v", resp.Header)
			}
			ev := s.event()
			if !ev.Throttled || ev.Decision.Outcome != gateway.Refused || ev.Principal.Name != "" {
				t.Errorf("event: throttled %v, decision %+v, principal %+v", ev.Throttled, ev.Decision, ev.Principal)
			}
			if ev.Shadow.Verdict != "indeterminate" {
				t.Errorf("verdict %s on a password that nobody looked at", ev.Shadow.Verdict)
			}
			if up.count() != 0 {
				t.Errorf("%d requests upstream", up.count())
			}
		})
	}
}

func TestInObserveTheThrottleOnlyCounts(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Mode, s.keys["right"] = gateway.Observe, verified(etl())
	lately := memory{}
	s.throttle(t, lately)
	s.start(t)
	type request struct {
		name, secret string
		throttled    bool
		status       identity.Status
	}
	var tests []request
	for i := range throttle.DefaultFailures {
		tests = append(tests, request{"a guess of the burst", fmt.Sprint("guess ", i), false, identity.StatusRejected})
	}
	tests = append(tests,
		request{"one guess more", "one more", true, identity.StatusRejected},
		request{"a guess that is known", "guess 0", false, identity.StatusRejected},
		request{"the right one, for the first time", "right", true, identity.StatusVerified},
		request{"the right one, when it is remembered", "right", false, identity.StatusVerified},
	)
	for i, tt := range tests {
		resp, _ := s.do(t, http.MethodGet, "/", "", "Authorization", basic("svc-etl", tt.secret))
		ev := s.event()
		if resp.StatusCode != 200 || up.count() != i+1 {
			t.Fatalf("%s: status %d, %d requests upstream", tt.name, resp.StatusCode, up.count())
		}
		if ev.Legacy.OK() { // as the keyring does; nobody asks it meanwhile
			lately[tt.secret] = true
		}
		if ev.Throttled != tt.throttled || ev.Legacy.Status != tt.status {
			t.Errorf("%s: throttled %v and %s, want %v and %s", tt.name, ev.Throttled, ev.Legacy.Status, tt.throttled, tt.status)
		}
	}
}

func TestRetryAfterIsInWholeSeconds(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration]string{
		0:                       "1", // no time to verify a password
		time.Nanosecond:         "1",
		time.Second:             "1",
		time.Second + 1:         "2",
		4999 * time.Millisecond: "5",
		5 * time.Second:         "5",
		10 * time.Minute:        "600",
	} {
		ev := refused(identity.Throttled, gateway.Refused)
		ev.Legacy = &identity.Authentication{RetryAfter: after}
		w := httptest.NewRecorder()
		refusals().Write(w, httptest.NewRequest(http.MethodGet, "/", nil), ev)
		if got := w.Header().Get("Retry-After"); got != want {
			t.Errorf("%v: Retry-After %q, want %q", after, got, want)
		}
	}
}
