package gateway_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/gateway/throttle"
	"crossfade/rollout"
)

// theProxy is where questions come from in tests without a network.
const theProxy = "127.0.0.1:4711"

// asks makes the stage one that a proxy on this machine may ask.
func (s *stage) asks() *stage {
	s.ForwardAuth = "/auth"
	s.proxy.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	return s
}

// asked is a question about a request, as a proxy sends it: by its own method, to the
// endpoint, with the client's headers and those that describe the request.
type asked func(method, target string, headers ...string) []string

// The proxies as they are documented: nginx with deploy/nginx/auth.conf, Traefik and
// Caddy by themselves.
func proxies() map[gateway.Asked]asked {
	return map[gateway.Asked]asked{
		gateway.AskedNginx: func(method, target string, headers ...string) []string {
			return append(headers, "X-Original-Uri", target, "X-Original-Method", method, "X-Forwarded-For", "192.0.2.7",
				"X-Forwarded-Host", "app.acme.dev", "X-Forwarded-Proto", "https")
		},
		gateway.AskedForward: func(method, target string, headers ...string) []string {
			return append(headers, "X-Forwarded-Uri", target, "X-Forwarded-Method", method, "X-Forwarded-For", "192.0.2.7",
				"X-Forwarded-Host", "app.acme.dev", "X-Forwarded-Proto", "https")
		},
	}
}

// told is what was found out about a request, and what came of it.
type told struct {
	Decision gateway.Decision
	Account  string
	Team     identity.Team
	Method   string
	Path     string
	Host     string
	Client   netip.Addr
	Action   identity.Action
	Shadow   shadow.Result
	Scheme   identity.Scheme
	Identity http.Header // what the upstream is told
	Notice   http.Header
	Status   int
	Problem  string
}

// identityIn are the identity headers among others.
func identityIn(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		if strings.HasPrefix(name, "X-Auth-Request-") || slices.Contains([]string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups"}, name) {
			out[name] = values
		}
	}
	return out
}

func noticeIn(h http.Header) http.Header {
	out := http.Header{}
	for _, name := range []string{"Deprecation", "Sunset", "Link", "Www-Authenticate", "Retry-After", "Crossfade-Reason"} {
		if values, ok := h[name]; ok {
			out[name] = values
		}
	}
	return out
}

func toldBy(ev *gateway.Event, resp *http.Response, body string, identity http.Header) told {
	t := told{
		Decision: ev.Decision, Account: ev.Principal.Name, Team: ev.Team(), Method: ev.Method, Path: ev.Path, Host: ev.Host, Client: ev.Client,
		Action: ev.Call.Action, Shadow: ev.Shadow, Scheme: ev.Scheme(),
		Identity: identity, Notice: noticeIn(resp.Header), Status: resp.StatusCode,
	}
	if resp.StatusCode >= 400 {
		t.Problem = body
	}
	return t
}

// TestAQuestionIsJudgedAsTheRequestItselfWouldBe sends each request twice: through a
// gateway that forwards, and as the question of a proxy. All that is learned and said
// must be the same, and what the upstream would be told is in the answer.
func TestAQuestionIsJudgedAsTheRequestItselfWouldBe(t *testing.T) {
	t.Parallel()
	pass := basic("svc-etl", "legacy-pass")
	for _, tt := range []struct {
		name, method, target string
		headers              []string
		percent              rollout.Percent
		change               func(s *stage)
	}{
		{name: "a token", headers: []string{"Authorization", "Bearer " + goodToken}},
		{name: "a token of an enforced team", headers: []string{"Authorization", "Bearer " + goodToken}, percent: 100},
		{name: "a token as a password", headers: []string{"Authorization", basic("oidc", goodToken)}},
		{name: "a token without the right", headers: []string{"Authorization", "Bearer " + goodToken}, change: func(s *stage) { s.Policy = viewersOnly(t) }},
		{name: "a token with the right to look", method: "GET", headers: []string{"Authorization", "Bearer " + goodToken}, change: func(s *stage) { s.Policy = viewersOnly(t) }},
		{name: "a bad token", headers: []string{"Authorization", "Bearer " + badToken}},
		{name: "a token that cannot be verified", headers: []string{"Authorization", "Bearer " + awayToken}},
		{name: "a password", headers: []string{"Authorization", pass}},
		{name: "a password with a companion", headers: []string{"Authorization", pass, "Crossfade-Token", goodToken}},
		{name: "a password with a bad companion", headers: []string{"Authorization", pass, "Crossfade-Token", badToken}},
		{name: "a password of an enforced team", headers: []string{"Authorization", pass}, percent: 100},
		{name: "a companion of an enforced team", headers: []string{"Authorization", pass, "Crossfade-Token", goodToken}, percent: 100},
		{name: "a wrong password", headers: []string{"Authorization", basic("svc-etl", "wrong")}},
		{name: "an API key", headers: []string{"X-Api-Key", "k1"}},
		{name: "nothing"},
		{name: "nothing, asked by HEAD", method: "HEAD"},
		{name: "two credentials", headers: []string{"Authorization", pass, "X-Api-Key", "k1"}},
		{name: "a token in the query", target: "/x?access_token=" + goodToken},
		{name: "a safe method that is none", method: "GET", headers: []string{"Authorization", "Bearer " + goodToken, "X-Http-Method-Override", "DELETE"}, change: func(s *stage) { s.Policy = viewersOnly(t) }},
		{name: "an exempt path", target: "/healthz?deep"},
		{name: "an exempt path in another spelling", target: "/%68ealthz"},
		{name: "a path that leads to an exempt one", target: "/x/../healthz"},
		{name: "a path that an exempt one leads to", target: "/healthz/../admin"},
		{name: "an exempt path with a parameter", target: "/healthz;v=1"},
		{name: "an exempt path behind two slashes", target: "//healthz"},
		{name: "liveness", method: "HEAD", target: "/"},
		{name: "a preflight", method: "OPTIONS", headers: []string{"Origin", "https://x.example", "Access-Control-Request-Method", "PUT"}},
		{name: "a preflight that is none", method: "OPTIONS", headers: []string{"Origin", "https://x.example"}},
		{name: "what net/url would spell in another way", target: "/a|b/%2e%2e/ä?c=%zz;d", headers: []string{"Authorization", "Bearer " + goodToken}},
		{name: "a method of WebDAV", method: "PROPFIND", headers: []string{"Authorization", "Bearer " + goodToken}},
		{name: "a rollout that nobody could read", headers: []string{"Authorization", pass}, change: func(s *stage) {
			s.Rollout = ramp(func(rollout.Run, bool) rollout.Enforcement { return rollout.Enforcement{} })
		}},
		{name: "an audit trail that cannot be written", headers: []string{"Authorization", "Bearer " + goodToken}, change: func(s *stage) { s.Auditor = &auditor{} }},
	} {
		for _, mode := range []gateway.Mode{gateway.Enforce, gateway.Observe} {
			for proxy, ask := range proxies() {
				t.Run(fmt.Sprint(tt.name, ", ", mode, ", ", proxy), func(t *testing.T) {
					t.Parallel()
					method, target := tt.method, tt.target
					if method == "" {
						method = http.MethodPost
					}
					if target == "" {
						target = "/x"
					}
					stageOf := func(upstream string) *stage {
						s := newStage(upstream).asks()
						s.Mode, s.Rollout = mode, at(tt.percent)
						s.Deprecated, s.Sunset = time.Unix(1767225600, 0), time.Unix(1798761600, 0)
						s.Classifier.ExemptPaths = []string{"/healthz"}
						s.tokens.remembered = map[string]bool{goodToken: true, badToken: true}
						if tt.change != nil {
							tt.change(s)
						}
						return s.start(t)
					}
					up := newUpstream(t, nil)
					forwards := stageOf(up.URL)
					resp, body := forwards.send(t, method, target, append(slices.Clone(tt.headers),
						"X-Forwarded-For", "192.0.2.7", "X-Forwarded-Host", "app.acme.dev", "X-Forwarded-Proto", "https")...)
					reached := http.Header{}
					if mode == gateway.Enforce && up.count() > 0 {
						reached = identityIn(up.last(t).header)
					}
					want := toldBy(forwards.event(), resp, body, reached)
					want.Host = "app.acme.dev" // which a proxy in front need not keep

					answers := stageOf(up.URL)
					before := up.count()
					resp, body = answers.send(t, http.MethodGet, "/auth", ask(method, target, tt.headers...)...)
					ev := answers.event()
					got := toldBy(ev, resp, body, identityIn(resp.Header))
					if ev.Asked != proxy || ev.Fault != "" || up.count() != before {
						t.Errorf("asked by %q, fault %q, %d requests upstream", ev.Asked, ev.Fault, up.count()-before)
					}
					if got.Status < 300 && (body != "" || resp.Header.Get("Cache-Control") != "no-store") {
						t.Errorf("an answer with %q, %v", body, resp.Header)
					}
					if proxy == gateway.AskedNginx && want.Status == 400 {
						want.Status = 403
					}
					if method == http.MethodHead { // the answer to a GET has one
						got.Problem = ""
					}
					if proxy == gateway.AskedNginx {
						got.Problem = strings.Replace(got.Problem, `"title":"Forbidden","status":403`, `"title":"Bad Request","status":400`, 1)
						want.Problem = strings.Replace(want.Problem, `"title":"Forbidden","status":403`, `"title":"Bad Request","status":400`, 1)
					}
					if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
						t.Errorf("the request (-) and the question (+) are told differently:\n%s", diff)
					}
					answers.noMoreEvents(t, 1)
				})
			}
		}
	}
}

// send writes a request as it is, which clients of net/http would not do, and reads
// the whole reply.
func (s *stage) send(t testing.TB, method, target string, headers ...string) (*http.Response, string) {
	t.Helper()
	text := method + " " + target + " HTTP/1.1\r\nHost: %HOST%\r\nConnection: close\r\n"
	for i := 0; i < len(headers); i += 2 {
		text += headers[i] + ": " + headers[i+1] + "\r\n"
	}
	return exchange(t, s.server.Listener.Addr().String(), text+"\r\n")
}

func TestOnlyATrustedProxyMayAsk(t *testing.T) {
	t.Parallel()
	for _, mode := range []gateway.Mode{gateway.Enforce, gateway.Observe} {
		for _, upstream := range []bool{true, false} {
			t.Run(fmt.Sprint(mode, ", with an upstream: ", upstream), func(t *testing.T) {
				t.Parallel()
				up := newUpstream(t, nil)
				s := newStage(up.URL).asks()
				s.Mode, s.proxy.NoUpstream = mode, !upstream
				s.Classifier.ExemptPaths = []string{"/auth", "/healthz"}
				h := s.handler(t)
				s.server = httptest.NewServer(nil) // for noMoreEvents
				for i, headers := range []http.Header{
					{},
					{"Authorization": {"Bearer " + goodToken}},
					{"X-Original-Uri": {"/healthz"}, "X-Original-Method": {"GET"}, "X-Forwarded-For": {"127.0.0.1"}},
					{"X-Forwarded-Uri": {"/healthz"}, "X-Forwarded-Method": {"GET"}, "X-Forwarded-For": {"127.0.0.1"}, "Authorization": {basic("svc-etl", "legacy-pass")}},
				} {
					r := httptest.NewRequest(http.MethodGet, "/auth", nil)
					r.RemoteAddr, r.Header = "192.0.2.1:4711", headers
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					ev := s.event()
					var body struct{ Reason, Message, Do string }
					if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
						t.Fatal(err)
					}
					if w.Code != 403 || body.Reason != "proxy_untrusted" || !strings.Contains(body.Do, "listen.trusted_proxies") {
						t.Errorf("%v: %d %+v", headers, w.Code, body)
					}
					if len(identityIn(w.Header())) > 0 || ev.Client != netip.MustParseAddr("192.0.2.1") || ev.Path != "/auth" || ev.Principal.Name != "" {
						t.Errorf("%v: %v, event %+v", headers, w.Header(), ev)
					}
					if reason, ok := ev.Signal(); !ok || reason != identity.ProxyUntrusted {
						t.Errorf("%v: no signal", headers)
					}
					if s.tokens.asked.Load() != 0 || up.count() != 0 {
						t.Errorf("question %d was judged", i)
					}
				}
				s.noMoreEvents(t, 4)
			})
		}
	}
}

func TestAQuestionThatIsNotClearIsRefused(t *testing.T) {
	t.Parallel()
	good := map[string]string{"X-Original-Uri": "/x", "X-Original-Method": "GET", "X-Forwarded-For": "192.0.2.7", "Authorization": "Bearer " + goodToken}
	traefik := map[string]string{"X-Forwarded-Uri": "/x", "X-Forwarded-Method": "GET", "X-Forwarded-For": "192.0.2.7", "Authorization": "Bearer " + goodToken}
	ingress := map[string]string{"X-Original-Url": "https://app.acme.dev/x", "X-Original-Method": "GET", "X-Forwarded-For": "192.0.2.7", "Authorization": "Bearer " + goodToken}
	for _, tt := range []struct {
		name   string
		from   map[string]string
		set    []string // in pairs; "" removes
		twice  []string // a second value
		fault  string   // "" for none
		status int      // 403 unless it says another
	}{
		{name: "nginx", from: good},
		{name: "Traefik and Caddy", from: traefik},
		{name: "the ingress controller of nginx", from: ingress},
		{name: "both say the same", from: good, set: []string{"X-Forwarded-Uri", "/x", "X-Forwarded-Method", "GET", "X-Original-Url", "http://other:8080/x"}},
		{name: "the client adds the method that the proxy says", from: traefik, set: []string{"X-Original-Method", "GET"}},
		{name: "nothing is said", from: good, set: []string{"X-Original-Uri", "", "X-Original-Method", ""}, fault: "Neither"},
		{name: "no method", from: good, set: []string{"X-Original-Method", ""}, fault: "X-Original-Method is missing"},
		{name: "no method, and a client that says one in the other way", from: good, set: []string{"X-Original-Method", "", "X-Forwarded-Method", "GET"}, fault: "X-Original-Method is missing"},
		{name: "Traefik without a method, and a client that says one", from: traefik, set: []string{"X-Forwarded-Method", "", "X-Original-Method", "GET"}, fault: "X-Forwarded-Method is missing", status: 400},
		{name: "a client of Traefik that says another URI", from: traefik, set: []string{"X-Original-Uri", "/public"}, fault: "URI"},
		{name: "a client of Traefik that says another URL", from: traefik, set: []string{"X-Original-Url", "http://a/public"}, fault: "URI"},
		{name: "a client of Traefik that says another method", from: traefik, set: []string{"X-Original-Method", "HEAD"}, fault: "method", status: 400},
		{name: "a client of nginx that says another URI", from: good, set: []string{"X-Forwarded-Uri", "/public"}, fault: "URI"},
		{name: "a client of nginx that says another method", from: good, set: []string{"X-Forwarded-Method", "HEAD"}, fault: "method"},
		{name: "a client of the ingress controller that says a URI", from: ingress, set: []string{"X-Original-Uri", "/public"}, fault: "URI"},
		{name: "two URIs", from: good, twice: []string{"X-Original-Uri", "/public"}, fault: "X-Original-Uri stands twice"},
		{name: "two URIs that are the same", from: good, twice: []string{"X-Original-Uri", "/x"}, fault: "X-Original-Uri stands twice"},
		{name: "two methods", from: traefik, twice: []string{"X-Forwarded-Method", "HEAD"}, fault: "X-Forwarded-Method stands twice", status: 400},
		{name: "a list of methods", from: good, set: []string{"X-Original-Method", "GET, HEAD"}, fault: "method is none"},
		{name: "a decoded path", from: good, set: []string{"X-Original-Uri", "/a b"}, fault: "no path"},
		{name: "a fragment", from: good, set: []string{"X-Original-Uri", "/healthz#/../x"}, fault: "no path"},
		{name: "a URL where a path belongs", from: good, set: []string{"X-Original-Uri", "http://x/y"}, fault: "no path"},
		{name: "a relative path", from: traefik, set: []string{"X-Forwarded-Uri", "x"}, fault: "no path", status: 400},
		{name: "an escape that is none", from: good, set: []string{"X-Original-Uri", "/%zz"}, fault: "is none"},
		{name: "the asterisk of another method", from: good, set: []string{"X-Original-Uri", "*"}, fault: "no path"},
		{name: "the asterisk of OPTIONS", from: good, set: []string{"X-Original-Uri", "*", "X-Original-Method", "OPTIONS"}},
		{name: "a URL without a path", from: ingress, set: []string{"X-Original-Url", "https://app.acme.dev"}, fault: "X-Original-URL is no"},
		{name: "a URL without a host", from: ingress, set: []string{"X-Original-Url", "https:///x"}, fault: "X-Original-URL is no"},
		{name: "a URL of another scheme", from: ingress, set: []string{"X-Original-Url", "ftp://a/x"}, fault: "X-Original-URL is no"},
		{name: "no address of the client", from: good, set: []string{"X-Forwarded-For", ""}, fault: "X-Forwarded-For"},
		{name: "a word for the address of the client", from: good, set: []string{"X-Forwarded-For", "192.0.2.7, unknown"}, fault: "X-Forwarded-For"},
		{name: "a chain of addresses", from: good, set: []string{"X-Forwarded-For", "unknown, 192.0.2.7"}},
		{name: "an upgrade to what is not judged", from: traefik, set: []string{"Upgrade", "h2c", "Connection", "Upgrade"}, fault: "another protocol", status: 400},
		{name: "an upgrade that Traefik hid the half of", from: traefik, set: []string{"Http2-Settings", "AAMAAABk"}, fault: "another protocol", status: 400},
		{name: "a choice of upgrades", from: traefik, set: []string{"Upgrade", "websocket, h2c"}, fault: "another protocol", status: 400},
		{name: "a WebSocket", from: traefik, set: []string{"Upgrade", "WebSocket"}},
		{name: "identity in the clothes of another header", from: traefik, set: []string{"X_Forwarded_User", "root"}, fault: "spelled", status: 400},
		{name: "identity with a dot", from: traefik, set: []string{"Remote.User", "root"}, fault: "spelled", status: 400},
		{name: "a credential in other clothes", from: traefik, set: []string{"X_Api_Key", "k1"}, fault: "spelled", status: 400},
		{name: "the original in other clothes", from: good, set: []string{"X_Original_Uri", "/public"}, fault: "spelled"},
		{name: "any other header in any spelling", from: traefik, set: []string{"X_Custom.Thing", "1"}},
	} {
		for _, mode := range []gateway.Mode{gateway.Enforce, gateway.Observe} {
			t.Run(tt.name+", "+mode.String(), func(t *testing.T) {
				t.Parallel()
				s := newStage("http://127.0.0.1:1").asks()
				s.Mode = mode
				h := s.handler(t)
				r := httptest.NewRequest(http.MethodGet, "/auth", nil)
				r.RemoteAddr = theProxy
				said := maps.Clone(tt.from)
				for i := 0; i < len(tt.set); i += 2 {
					said[tt.set[i]] = tt.set[i+1]
				}
				for name, value := range said {
					if value != "" {
						r.Header[name] = []string{value}
					}
				}
				for i := 0; i < len(tt.twice); i += 2 {
					r.Header[tt.twice[i]] = append(r.Header[tt.twice[i]], tt.twice[i+1])
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				ev := s.event()
				if tt.fault == "" {
					if w.Code != 200 || ev.Fault != "" || ev.Path == "/auth" {
						t.Errorf("%d %s, fault %q", w.Code, w.Body, ev.Fault)
					}
					return
				}
				if !strings.Contains(ev.Fault, tt.fault) || ev.Decision.Reason != identity.OriginalAmbiguous {
					t.Errorf("fault %q, %+v", ev.Fault, ev.Decision)
				}
				if mode == gateway.Observe {
					if w.Code != 200 || ev.Decision.Outcome != gateway.WouldRefuse || len(identityIn(w.Header())) > 0 {
						t.Errorf("%d %+v", w.Code, ev.Decision)
					}
					return
				}
				status := 403
				if tt.status != 0 {
					status = tt.status
				}
				var body struct {
					Status              int
					Reason, Message, Do string
				}
				if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
					t.Fatal(err)
				}
				if w.Code != status || body.Status != status || body.Reason != "original_ambiguous" || body.Message != ev.Fault || body.Do == "" {
					t.Errorf("%d %+v", w.Code, body)
				}
				if len(identityIn(w.Header())) > 0 {
					t.Errorf("identity in %v", w.Header())
				}
			})
		}
	}
}

func TestATunnelIsForSomeoneOnlyWhoeverAsks(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		headers []string
		status  int
	}{
		"nobody, on an exempt path":                   {nil, 200},
		"nobody, to a WebSocket on an exempt path":    {[]string{"Upgrade", "websocket", "Connection", "Upgrade"}, 401},
		"somebody, to a WebSocket on an exempt path":  {[]string{"Upgrade", "websocket", "Connection", "Upgrade", "Authorization", "Bearer " + goodToken}, 200},
		"somebody, on an exempt path: nobody is told": {[]string{"Authorization", "Bearer " + goodToken}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage("http://127.0.0.1:1").asks()
			s.Classifier.ExemptPaths = []string{"/healthz"}
			s.start(t)
			resp, body := s.do(t, http.MethodGet, "/auth", "", proxies()[gateway.AskedForward]("GET", "/healthz", tt.headers...)...)
			if resp.StatusCode != tt.status {
				t.Errorf("status %d: %s", resp.StatusCode, body)
			}
			want := ""
			if len(tt.headers) == 6 { // a WebSocket of somebody
				want = "svc-etl"
			}
			if got := resp.Header.Get("X-Forwarded-User"); got != want {
				t.Errorf("the answer names %q, want %q", got, want)
			}
		})
	}
}

// nginx makes a 500 of what is neither a success nor 401 nor 403.
func TestNginxGetsNoStatusThatItTakesForAFailureUnlessItIsOne(t *testing.T) {
	t.Parallel()
	for _, info := range identity.Reasons() {
		for _, proxy := range []gateway.Asked{gateway.AskedNginx, gateway.AskedForward, ""} {
			ev := refused(info.Reason, outcomeFor(info))
			ev.Asked = proxy
			w := httptest.NewRecorder()
			refusals().Write(w, httptest.NewRequest(http.MethodGet, "/auth", nil), ev)
			plain := httptest.NewRecorder()
			refusals().Write(plain, httptest.NewRequest(http.MethodGet, "/auth", nil), refused(info.Reason, outcomeFor(info)))
			want := plain.Code
			if proxy == gateway.AskedNginx && want != 401 && want != 503 {
				want = 403
			}
			if w.Code != want {
				t.Errorf("%s, asked by %q: %d, want %d", info.Reason, proxy, w.Code, want)
			}
			var body struct{ Status int }
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Status != w.Code {
				t.Errorf("%s: %d says %d, %v", info.Reason, w.Code, body.Status, err)
			}
			for _, name := range []string{"Www-Authenticate", "Retry-After", "Crossfade-Reason"} {
				if diff := cmp.Diff(plain.Header()[name], w.Header()[name]); diff != "" {
					t.Errorf("%s, asked by %q: %s\n%s", info.Reason, proxy, name, diff)
				}
			}
		}
	}
}

func TestGuessesThroughAProxyThatAsksCountByTheRealAddress(t *testing.T) {
	t.Parallel()
	for proxy, ask := range proxies() {
		t.Run(string(proxy), func(t *testing.T) {
			t.Parallel()
			s := newStage("http://127.0.0.1:1").asks()
			s.throttle(t, memory{})
			s.start(t)
			try := func(password, from string) *http.Response {
				headers := ask("POST", "/x", "Authorization", basic("svc-etl", password))
				headers[slices.Index(headers, "X-Forwarded-For")+1] = from
				resp, _ := s.do(t, http.MethodGet, "/auth", "", headers...)
				return resp
			}
			for i := range throttle.DefaultFailures {
				if resp := try(fmt.Sprint("guess ", i), "192.0.2.7"); resp.StatusCode != 401 {
					t.Fatalf("guess %d: %d", i, resp.StatusCode)
				}
			}
			want := map[gateway.Asked]int{gateway.AskedNginx: 403, gateway.AskedForward: 429}[proxy]
			resp := try("legacy-pass", "192.0.2.7")
			if resp.StatusCode != want || resp.Header.Get("Crossfade-Reason") != "throttled" || resp.Header.Get("Retry-After") == "" {
				t.Errorf("%d %v", resp.StatusCode, resp.Header)
			}
			if resp := try("legacy-pass", "198.51.100.9"); resp.StatusCode != 200 {
				t.Errorf("a client elsewhere: %d %v", resp.StatusCode, resp.Header)
			}
		})
	}
}

func TestOtherPathsAreAsEverWithAnEndpoint(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL).asks().start(t)
	token := []string{"Authorization", "Bearer " + goodToken}
	for _, path := range []string{"/", "/auth/", "/authx", "/AUTH", "/%61uth", "//auth"} {
		if resp, body := s.do(t, http.MethodGet, path, "", token...); resp.StatusCode != 200 || body != "ok" || up.last(t).target != path {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
		s.event()
	}
	off := newStage(up.URL).start(t)
	if resp, body := off.do(t, http.MethodGet, "/auth", "", token...); resp.StatusCode != 200 || body != "ok" || up.last(t).target != "/auth" {
		t.Errorf("without an endpoint: %d %s", resp.StatusCode, body)
	}
}

func TestAGatewayWithoutAnUpstreamOnlyAnswers(t *testing.T) {
	t.Parallel()
	for _, mode := range []gateway.Mode{gateway.Enforce, gateway.Observe} {
		s := newStage("http://127.0.0.1:1").asks()
		s.Mode, s.proxy.NoUpstream = mode, true
		s.Metadata = &gateway.Metadata{AuthorizationServers: []string{"https://acme.okta.com"}}
		s.start(t)
		resp, body := s.do(t, http.MethodGet, "/x", "", "Authorization", "Bearer "+goodToken)
		if ev := s.event(); resp.StatusCode != 400 || !strings.Contains(body, "at /auth") || ev.Principal.Name != "" {
			t.Errorf("%s: %d %s", mode, resp.StatusCode, body)
		}
		resp, body = s.do(t, http.MethodGet, "/auth", "", proxies()[gateway.AskedNginx]("GET", "/x", "Authorization", "Bearer "+goodToken)...)
		if ev := s.event(); resp.StatusCode != 200 || body != "" || ev.Principal.Name != "svc-etl" {
			t.Errorf("%s: %d %s", mode, resp.StatusCode, body)
		}
	}
	for name, change := range map[string]func(s *stage){
		"no endpoint either": func(s *stage) { s.ForwardAuth = "" },
		"a profile that reads bodies": func(s *stage) {
			s.Classifier.Profile = gateway.ProfileLuigi
		},
	} {
		s := newStage("http://127.0.0.1:1").asks()
		s.proxy.NoUpstream = true
		change(s)
		proxy, err := gateway.NewProxy(s.proxy)
		if err != nil {
			t.Fatal(err)
		}
		s.Proxy, s.Shadow = proxy, shadow.NewRunner(s.queue)
		defer s.Shadow.Close()
		if _, err := gateway.New(s.Options); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestWhereTokensComeFromIsToldUnderTheAddressThatTheClientUsed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		trusted bool
		headers []string
		want    string // "" for the gateway's own
	}{
		{"a trusted proxy says it", true, []string{"X-Forwarded-Host", "app.acme.dev", "X-Forwarded-Proto", "https"}, "https://app.acme.dev"},
		{"a WebSocket through Traefik", true, []string{"X-Forwarded-Host", "app.acme.dev", "X-Forwarded-Proto", "wss"}, "https://app.acme.dev"},
		{"a scheme that is none", true, []string{"X-Forwarded-Host", "app.acme.dev", "X-Forwarded-Proto", `x", y="`}, "http://app.acme.dev"},
		{"a stranger", false, []string{"X-Forwarded-Host", "app.acme.dev", "X-Forwarded-Proto", "https"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(newUpstream(t, nil).URL)
			s.Refusals.Metadata, s.Metadata = true, &gateway.Metadata{}
			if tt.trusted {
				s.proxy.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			}
			s.start(t)
			want := tt.want
			if want == "" {
				want = s.server.URL
			}
			resp, _ := s.do(t, http.MethodGet, "/", "", tt.headers...)
			if got := resp.Header.Get("WWW-Authenticate"); !strings.Contains(got, `resource_metadata="`+want+gateway.MetadataPath+`"`) {
				t.Errorf("challenge %s", got)
			}
			if _, body := s.do(t, http.MethodGet, gateway.MetadataPath, "", tt.headers...); !strings.Contains(body, `"resource":"`+want+`"`) {
				t.Errorf("metadata %s", body)
			}
		})
	}
}

// FuzzOriginal asks about whatever a proxy may hand on of a client. What is understood
// must be what net/http would have read as a request of its own, and no header may say
// anything else.
func FuzzOriginal(f *testing.F) {
	f.Add("/x?y", "", "GET", "", "", "192.0.2.7", "")
	f.Add("", "", "", "/x", "POST", "192.0.2.7, 10.0.0.1", "")
	f.Add("", "https://app.acme.dev/x%2F..?a#b", "GET", "/x", "POST", "::1", "h2c")
	f.Add("//evil/..;/x", "", "PROPFIND", "//evil/..;/x", "PROPFIND", "unknown", "websocket")
	f.Add("*", "", "OPTIONS", "", "", "192.0.2.7", "")
	f.Add("/%", "http://", "G T", "\\x", "", "", "")
	s := newStage("http://127.0.0.1:1").asks()
	s.Classifier.ExemptPaths = []string{"/healthz"}
	h := s.handler(f)
	f.Fuzz(func(t *testing.T, uri, absolute, method, forwarded, verb, from, upgrade string) {
		r := httptest.NewRequest(http.MethodGet, "/auth", nil)
		r.RemoteAddr = theProxy
		for name, value := range map[string]string{
			"X-Original-Uri": uri, "X-Original-Url": absolute, "X-Original-Method": method,
			"X-Forwarded-Uri": forwarded, "X-Forwarded-Method": verb, "X-Forwarded-For": from, "Upgrade": upgrade,
		} {
			if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
				return // net/http refuses such a header
			}
			if value != "" {
				r.Header[name] = []string{value}
			}
		}
		r.Header["Authorization"] = []string{"Bearer " + goodToken}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		ev := s.event()
		if ev.Fault != "" {
			if w.Code < 400 || len(identityIn(w.Header())) > 0 || ev.Path != "/auth" || ev.Decision.Reason != identity.OriginalAmbiguous {
				t.Fatalf("%d, event %+v", w.Code, ev)
			}
			return
		}
		target := uri
		for _, other := range []string{forwarded, absolute} {
			if other == absolute && other != "" {
				_, rest, _ := strings.Cut(other, "://")
				other = rest[max(strings.IndexByte(rest, '/'), 0):]
			}
			if target == "" {
				target = other
			}
			if other != "" && other != target {
				t.Fatalf("%q and %q are told as %s", target, other, ev.Path)
			}
		}
		for _, m := range []string{method, verb} {
			if m != "" && m != ev.Method {
				t.Fatalf("the method %q is told as %s", m, ev.Method)
			}
		}
		own, err := http.ReadRequest(bufio.NewReader(strings.NewReader(ev.Method + " " + target + " HTTP/1.1\r\nHost: a\r\n\r\n")))
		if err != nil {
			t.Fatalf("%q %q is no request: %v", ev.Method, target, err)
		}
		if own.Method != ev.Method || own.URL.EscapedPath() != ev.Path {
			t.Fatalf("%s %s is read as %s %s", own.Method, own.URL.EscapedPath(), ev.Method, ev.Path)
		}
		if exempt := ev.Decision.Outcome == gateway.Exempt; exempt && len(identityIn(w.Header())) > 0 || w.Code != 200 {
			t.Fatalf("%d, %v", w.Code, w.Header())
		}
	})
}
