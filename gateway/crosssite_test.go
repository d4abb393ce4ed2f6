package gateway_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi/captures"
)

// luigiStage prepares a gateway in mode enforce, profile luigi.
func luigiStage(upstream string) *stage {
	s := newStage(upstream)
	s.Classifier = gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: 64 << 10}
	return s
}

// jquery is what the visualiser's calls say of themselves beside the site.
const jquery = "Accept: application/json, text/javascript, */*; q=0.01"

func TestWhatChangesTheSchedulerComesFromTheSameOriginOrFromNoBrowser(t *testing.T) {
	t.Parallel()
	const (
		host    = "luigi.acme.dev:8082"
		pause   = "GET /api/pause"
		forged  = "POST /api/pause"
		another = "https://evil.example"
	)
	for _, tt := range []struct {
		name    string
		call    string
		headers []string
		host    string // default: host
		tls     bool
		trusted bool
		allowed bool
	}{
		{name: "a GET that brings no evidence", call: pause},
		{name: "a POST that brings no evidence is a worker's", call: forged, allowed: true},
		{name: "a GET of curl that reads", call: "GET /api/task_list", allowed: true},
		{name: "another site may make a browser ask for what only reads", call: "GET /api/task_list", headers: []string{"Sec-Fetch-Site: cross-site"}, allowed: true},
		{name: "reading a message's response uses it up", call: "GET /api/get_scheduler_message_response"},
		{name: "a worker reads a message's response", call: "POST /api/get_scheduler_message_response", allowed: true},
		{name: "a page that adds a task", call: "GET /api/add_task?data=%7B%22task_id%22:%22A_1%22%7D", headers: []string{"Sec-Fetch-Site: cross-site"}},

		{name: "Sec-Fetch-Site of the same origin", call: pause, headers: []string{"Sec-Fetch-Site: same-origin"}, allowed: true},
		{name: "the visualiser over loopback", call: pause, headers: []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", jquery}, allowed: true},
		{name: "a script that uses fetch", call: pause, headers: []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Accept: */*"}, allowed: true},
		{name: "another port of the same host is another origin", call: pause, headers: []string{"Sec-Fetch-Site: same-site"}},
		{name: "another site", call: pause, headers: []string{"Sec-Fetch-Site: cross-site"}},
		{name: "an address that somebody typed", call: pause, headers: []string{"Sec-Fetch-Site: none"}},
		{name: "Sec-Fetch-Site twice", call: pause, headers: []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: same-origin"}},
		{name: "Sec-Fetch-Site as a list", call: pause, headers: []string{"Sec-Fetch-Site: same-origin, same-origin"}},
		{name: "Sec-Fetch-Site in another case", call: pause, headers: []string{"Sec-Fetch-Site: Same-Origin"}},
		{name: "an empty Sec-Fetch-Site", call: pause, headers: []string{"Sec-Fetch-Site: "}},
		{name: "Sec-Fetch-Site decides before a Referer that fits", call: pause, headers: []string{"Sec-Fetch-Site: cross-site", "Referer: http://" + host + "/"}},
		{name: "Sec-Fetch-Site decides where a proxy changed the Host", call: pause, headers: []string{"Sec-Fetch-Site: same-origin", "Referer: https://luigi.acme.dev/"}, allowed: true},
		{name: "a form of another site", call: forged, headers: []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document", "Origin: " + another}},
		{name: "a script of the page that posts", call: forged, headers: []string{"Sec-Fetch-Site: same-origin", "Origin: http://" + host}, allowed: true},

		{name: "an Origin that fits", call: pause, headers: []string{"Origin: http://" + host}, allowed: true},
		{name: "an Origin in capitals", call: pause, headers: []string{"Origin: HTTP://LUIGI.acme.dev:8082"}, allowed: true},
		{name: "an Origin of another site", call: pause, headers: []string{"Origin: " + another}},
		{name: "an Origin of another port", call: pause, headers: []string{"Origin: http://luigi.acme.dev:8083"}},
		{name: "an Origin that begins like the host", call: pause, headers: []string{"Origin: http://luigi.acme.dev:8082.evil.example"}},
		{name: "an Origin with the host as its user", call: pause, headers: []string{"Origin: http://luigi.acme.dev:8082@evil.example"}},
		{name: "an opaque Origin", call: pause, headers: []string{"Origin: null"}},
		{name: "an opaque Origin of a form", call: forged, headers: []string{"Origin: null"}},
		{name: "an empty Origin", call: forged, headers: []string{"Origin: "}},
		{name: "an Origin twice", call: pause, headers: []string{"Origin: http://" + host, "Origin: http://" + host}},
		{name: "an Origin that is no address", call: pause, headers: []string{"Origin: http://[::1"}},
		{name: "an Origin of an extension", call: pause, headers: []string{"Origin: chrome-extension://" + host}},
		{name: "Origin decides before Referer", call: pause, headers: []string{"Origin: " + another, "Referer: http://" + host + "/"}},
		{name: "a form of another site without metadata", call: forged, headers: []string{"Origin: " + another}},

		{name: "a Referer that fits", call: pause, headers: []string{"Referer: http://" + host + "/static/visualiser/index.html?a=1,2", jquery}, allowed: true},
		{name: "a Referer of another site", call: pause, headers: []string{"Referer: " + another + "/http://" + host}},
		{name: "a Referer of another site with a POST", call: forged, headers: []string{"Referer: " + another + "/"}},
		{name: "a Referer twice", call: pause, headers: []string{"Referer: http://" + host + "/", "Referer: http://" + host + "/"}},
		{name: "a Referer without a host", call: pause, headers: []string{"Referer: /static/visualiser/index.html"}},

		{name: "TLS in front of a gateway that does not know of it", call: pause, host: "luigi.acme.dev", headers: []string{"Origin: https://luigi.acme.dev"}, allowed: true},
		{name: "the scheme's own port", call: pause, host: "luigi.acme.dev:443", headers: []string{"Origin: https://luigi.acme.dev"}, allowed: true},
		{name: "the other scheme's own port", call: pause, host: "luigi.acme.dev:443", headers: []string{"Origin: http://luigi.acme.dev"}},
		{name: "IPv6", call: pause, host: "[::1]:8082", headers: []string{"Origin: http://[::1]:8082"}, allowed: true},
		{name: "over TLS", call: pause, tls: true, headers: []string{"Origin: https://" + host}, allowed: true},
		{name: "over TLS from a page without", call: pause, tls: true, headers: []string{"Origin: http://" + host}},
		{
			name: "what a trusted proxy says", call: pause, trusted: true, host: "10.0.0.7:8082",
			headers: []string{"X-Forwarded-Host: luigi.acme.dev", "X-Forwarded-Proto: https", "Origin: https://luigi.acme.dev"}, allowed: true,
		},
		{
			name: "a page without TLS behind a trusted proxy with it", call: pause, trusted: true, host: "luigi.acme.dev",
			headers: []string{"X-Forwarded-Proto: https", "Origin: http://luigi.acme.dev"},
		},
		{
			name: "a trusted proxy that says two things", call: pause, trusted: true, host: "10.0.0.7:8082",
			headers: []string{"X-Forwarded-Host: evil.example, luigi.acme.dev", "Origin: https://evil.example"},
		},
		{
			name: "what somebody else says", call: pause,
			headers: []string{"X-Forwarded-Host: evil.example", "Origin: https://evil.example"},
		},

		{name: "a stored image", call: pause, headers: []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}},
		{name: "a stored image with crossorigin", call: pause, headers: []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: image"}},
		{name: "a stored image without metadata", call: pause, headers: []string{"Referer: http://" + host + "/", "Accept: image/avif,image/webp,*/*;q=0.8"}},
		{name: "a stored link that was clicked", call: pause, headers: []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}},
		{name: "a stored form that was sent", call: forged, headers: []string{"Origin: http://" + host, "Accept: text/html,application/xhtml+xml,*/*;q=0.8"}},
		{name: "a stored script that jQuery loads", call: pause, headers: []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Accept: text/javascript, application/javascript, */*; q=0.01"}},
		{name: "a stored prefetch", call: pause, headers: []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Sec-Purpose: prefetch"}},
		{name: "a mode twice", call: pause, headers: []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Mode: cors"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, nil)
			for _, mode := range []gateway.Mode{gateway.Enforce, gateway.Observe} {
				s := luigiStage(up.URL)
				s.Mode = mode
				if tt.trusted {
					s.proxy.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} // httptest's client
				}
				method, target, _ := strings.Cut(tt.call, " ")
				r := httptest.NewRequest(method, target, nil)
				r.Host = host
				if tt.host != "" {
					r.Host = tt.host
				}
				if tt.tls {
					r.TLS = &tls.ConnectionState{}
				}
				r.SetBasicAuth("svc-etl", "legacy-pass")
				for _, line := range tt.headers {
					name, value, _ := strings.Cut(line, ": ")
					r.Header.Add(name, value)
				}
				before, w := up.count(), httptest.NewRecorder()
				s.handler(t).ServeHTTP(w, r)
				ev := s.event()
				reached := up.count() - before
				var reason identity.Reason
				if !tt.allowed {
					reason = identity.CrossSite
				}
				if ev.Decision.Reason != reason {
					t.Errorf("%v: reason %q, want %q", mode, ev.Decision.Reason, reason)
				}
				switch {
				case mode == gateway.Observe || tt.allowed:
					if w.Code != http.StatusOK || reached != 1 {
						t.Errorf("%v: status %d, %d requests reached the scheduler, want one", mode, w.Code, reached)
					}
				case w.Code != http.StatusForbidden || reached != 0:
					t.Errorf("%v: status %d, %d requests reached the scheduler, want 403 and none", mode, w.Code, reached)
				}
				if mode == gateway.Observe && !tt.allowed && ev.Decision.Outcome != gateway.WouldRefuse {
					t.Errorf("in mode observe it is %q", ev.Decision.Outcome)
				}
			}
		})
	}
}

func TestACallOfAnotherSiteBelongsToNoRun(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := luigiStage(up.URL).start(t)
	data := "?data=%7B%22worker%22%3A%22w%22%2C%22task_id%22%3A%22A_1%22%2C%22family%22%3A%22A%22%7D"
	s.do(t, http.MethodGet, "/api/add_task"+data, "", "Authorization", basic("svc-etl", "legacy-pass"), "Sec-Fetch-Site", "cross-site")
	if c := s.event().Call; c.Run != "" || c.Registers != "" {
		t.Errorf("run %q, registers %q", c.Run, c.Registers)
	}
	s.do(t, http.MethodGet, "/api/add_task"+data+"&data=", "", "Authorization", basic("svc-etl", "legacy-pass"))
	if c := s.event().Call; c.Problem != identity.RPCAmbiguous {
		t.Errorf("problem %q: what was found first goes first", c.Problem)
	}
}

func TestNothingThatAWorkerOrTheVisualiserWasRecordedToSendIsCrossSite(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := luigiStage(up.URL)
	s.keys["ops-pass"] = verified(etl())
	for user, password := range map[string]string{"svc-billing": "billing-pass", "svc-a": "legacy-pass-a", "svc-b": "legacy-pass-b"} {
		s.keys[password] = verified(identity.Principal{Name: user, Team: "billing", Mapped: true})
	}
	s.start(t)
	changes := 0
	for _, name := range captures.Names() {
		exchanges, err := captures.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range exchanges {
			if e.Injected() {
				continue // the browser had not been asked for its password yet
			}
			resp, body := exchange(t, s.server.Listener.Addr().String(), recorded(e))
			if ev := s.event(); ev.Decision.Outcome != gateway.Allowed {
				t.Errorf("%s, exchange %d: %s %s is %s: %d %s", name, e.Seq, e.Method, e.Path, ev.Decision.Outcome, resp.StatusCode, body)
			} else if e.Method == http.MethodGet && ev.Call.Action == identity.ActionAdmin {
				changes++
			}
		}
	}
	if changes < 5 {
		t.Errorf("the browser changed something %d times: is that the recording?", changes)
	}
}
