package agent_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/agent"
)

func TestWhatBecomesOfTheWorkersCredentialInEachMode(t *testing.T) {
	const password, key = "Basic c3ZjLWV0bDpwdw==", "key-1"
	own := basic("oidc", "old-token")
	type seen struct{ Authorization, Companion, Key string }
	for name, tc := range map[string]struct {
		mode string
		sent http.Header
		want seen
	}{
		"auto keeps a password and adds the companion":           {"auto", http.Header{"Authorization": {password}}, seen{password, "the-token", ""}},
		"auto sends the token where there is no password":        {"auto", nil, seen{"Bearer the-token", "", ""}},
		"auto sends the token beside an API key":                 {"auto", http.Header{"X-Api-Key": {key}}, seen{"Bearer the-token", "", key}},
		"auto keeps a static bearer token":                       {"auto", http.Header{"Authorization": {"Bearer static"}}, seen{"Bearer static", "the-token", ""}},
		"auto replaces a token that was sent as a password":      {"auto", http.Header{"Authorization": {own}}, seen{"Bearer the-token", "", ""}},
		"auto replaces a companion of the worker's":              {"auto", http.Header{"Authorization": {password}, "Crossfade-Token": {"stale"}}, seen{password, "the-token", ""}},
		"auto takes away a companion that stands alone":          {"auto", http.Header{"Crossfade-Token": {"stale"}}, seen{"Bearer the-token", "", ""}},
		"companion keeps a password and adds the companion":      {"companion", http.Header{"Authorization": {password}}, seen{password, "the-token", ""}},
		"companion sends the token where there is no password":   {"companion", nil, seen{"Bearer the-token", "", ""}},
		"companion replaces a token that was sent as a password": {"companion", http.Header{"Authorization": {own}}, seen{"Bearer the-token", "", ""}},
		"token replaces a password":                              {"token", http.Header{"Authorization": {password}}, seen{"Bearer the-token", "", ""}},
		"token takes an API key away":                            {"token", http.Header{"X-Api-Key": {key}}, seen{"Bearer the-token", "", ""}},
		"token needs nothing of the worker":                      {"token", nil, seen{"Bearer the-token", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			mode, err := agent.ParseMode(tc.mode)
			if err != nil {
				t.Fatal(err)
			}
			s := newStage(t, agent.Options{Mode: mode}, nil)
			s.do(t, http.MethodPost, "api/ping", "data=%7B%7D", func(r *http.Request) {
				for name, values := range tc.sent {
					r.Header[name] = values
				}
			})
			r, _ := s.last()
			if r == nil {
				t.Fatal("nothing came to the gateway")
			}
			got := seen{r.Header.Get("Authorization"), r.Header.Get("Crossfade-Token"), r.Header.Get("X-API-Key")}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("- want, + got\n%s", diff)
			}
			if r.Header.Get("Crossfade-Abort") != "off" {
				t.Error("honest codes were not asked for")
			}
		})
	}
}

func TestEverythingElsePassesAsItCame(t *testing.T) {
	s := newStage(t, agent.Options{Gateway: &url.URL{Path: "/base"}, Secret: "s3cret"}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "static/visualiser/index.html")
		w.Header().Set("Content-Encoding", "gzip") // and yet the body is none: nobody looks
		w.WriteHeader(http.StatusFound)
		_, _ = io.WriteString(w, "not zipped")
	})
	got := s.do(t, http.MethodPost, "api/un%70ause?a=1;b=%zz&c", "data=%7B%22a%22%3A+Infinity%7D", func(r *http.Request) {
		r.Header.Set("X-Forwarded-For", "10.0.0.1")
		r.Header.Set("Accept-Encoding", "gzip, x")
	})
	r, body := s.last()
	if r.RequestURI != "/base/api/un%70ause?a=1;b=%zz&c" {
		t.Errorf("the gateway was asked for %s", r.RequestURI)
	}
	if body != "data=%7B%22a%22%3A+Infinity%7D" || r.Header.Get("Accept-Encoding") != "gzip, x" {
		t.Errorf("body %q, headers %v", body, r.Header)
	}
	if got.status != http.StatusFound || got.header.Get("Location") != "static/visualiser/index.html" || got.body != "not zipped" {
		t.Errorf("%+v", got)
	}
	big := strings.Repeat("x", 1<<20)
	if s.do(t, http.MethodPost, "api/add_task", big, nil); true {
		if _, body := s.last(); body != big {
			t.Errorf("of %d bytes %d came", len(big), len(body))
		}
	}
	if n := s.proxy.Stats().Forwarded; n != 2 {
		t.Errorf("%d forwarded", n)
	}
}

// refuses plays a gateway that refuses honestly.
func refuses(t *testing.T, status int, reason string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Crossfade-Abort") != "off" {
			t.Error("the gateway was not asked for honest codes")
		}
		if reason != "" {
			w.Header().Set("Crossfade-Reason", reason)
			w.Header().Set("Content-Type", "application/problem+json")
		}
		w.Header().Set("WWW-Authenticate", "Bearer")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"type": "about:blank", "title": http.StatusText(status), "status": status, "reason": reason, "team": "data-eng", "account": "svc-etl",
			"message": "This run must use OIDC: data-eng is at 50%. The password of svc-etl was correct.",
			"do":      "Ask the platform team", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
		})
	}
}

func TestARefusalStopsTheWorkerAndIsSaidOnce(t *testing.T) {
	s := newStage(t, agent.Options{Tokens: none()}, refuses(t, 401, "legacy_refused"))
	for range 3 {
		got := s.call(t, "get_work")
		var body map[string]map[string]any
		if err := json.Unmarshal([]byte(got.body), &body); err != nil {
			t.Fatal(err)
		}
		want := map[string]map[string]any{"error": {
			"reason": "legacy_refused", "team": "data-eng", "account": "svc-etl",
			"message": "This run must use OIDC: data-eng is at 50%. The password of svc-etl was correct.",
			"do":      "Ask the platform team", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
		}}
		if diff := cmp.Diff(want, body); diff != "" || got.status != 200 {
			t.Errorf("status %d, body (- want, + got)\n%s", got.status, diff)
		}
		if got.header.Get("WWW-Authenticate") != "" || got.header.Get("Crossfade-Reason") != "legacy_refused" ||
			got.header.Get("Content-Type") != "application/json" {
			t.Errorf("headers %v", got.header)
		}
	}
	want := `crossfade agent: no token: /var/run/luigi/token does not exist. Set --token-file or --client-id.
  Requests go on with the worker's own credential alone, as long as that is good enough.
crossfade agent: REFUSED legacy_refused: this run must use OIDC (data-eng is at 50%).
  The agent had no token: /var/run/luigi/token does not exist. Set --token-file or --client-id.
  More: crossfade explain 4bf92f3577b34da6
`
	if diff := cmp.Diff(want, s.said.String()); diff != "" {
		t.Errorf("said (- want, + got)\n%s", diff)
	}
	if got := s.proxy.Stats(); got.Refused != 3 || got.Forwarded != 0 || !s.proxy.Refused() {
		t.Errorf("%+v", got)
	}
}

func TestWhichAnswersStopAWorkerAndWhichItTriesAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		method, path string
		status       int
		reason       string
		honest       bool // the worker asked for it
		want         int
		refused      bool
	}{
		"a bad token":                                {"POST", "api/add_task", 401, "expired", false, 200, true},
		"a right that is missing":                    {"POST", "api/get_work", 403, "task_family_denied", false, 200, true},
		"a request that nobody understands":          {"POST", "api/add_task", 400, "rpc_ambiguous", false, 200, true},
		"a 401 of somebody in between":               {"POST", "api/ping", 401, "", false, 200, true},
		"a 400 of the scheduler's own":               {"POST", "api/ping", 400, "", false, 400, false},
		"an unknown method":                          {"POST", "api/nonsense", 404, "", false, 404, false},
		"an identity provider that is away":          {"POST", "api/get_work", 503, "jwks_unavailable", false, 503, false},
		"a body over the bound":                      {"POST", "api/add_task", 413, "body_oversize", false, 413, false},
		"a worker that is too fast":                  {"POST", "api/get_work", 429, "throttled", false, 429, false},
		"a ping that is too fast":                    {"POST", "api/ping", 429, "throttled", false, 200, false},
		"a scheduler that fails":                     {"POST", "api/get_work", 500, "", false, 500, false},
		"a page for a browser":                       {"GET", "api/task_list", 401, "expired", false, 401, true},
		"a page outside the API":                     {"GET", "static/visualiser/index.html", 403, "action_denied", false, 403, true},
		"a client that is not Luigi and asks for it": {"POST", "api/get_work", 401, "expired", true, 401, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, agent.Options{}, refuses(t, tc.status, tc.reason))
			got := s.do(t, tc.method, tc.path, "", func(r *http.Request) {
				if tc.honest {
					r.Header.Set("Crossfade-Abort", "off")
				}
			})
			if got.status != tc.want {
				t.Errorf("status %d, want %d", got.status, tc.want)
			}
			if got.status == 200 && strings.Contains(got.body, `"response"`) {
				t.Errorf("the worker would go on: %s", got.body)
			}
			if got.status != 200 && !strings.Contains(got.body, "This run must use OIDC") {
				t.Errorf("the body is not the gateway's: %s", got.body)
			}
			if s.proxy.Refused() != tc.refused || strings.Contains(s.said.String(), "REFUSED") != tc.refused {
				t.Errorf("refused is %v, and it said %q", s.proxy.Refused(), s.said)
			}
		})
	}
}

func TestWhatIsSaidFitsWhatWasSent(t *testing.T) {
	for name, tc := range map[string]struct {
		tokens *tokens
		reason string
		basic  bool
		want   []string
		not    string
	}{
		"a token beside a password":                       {good(), "aud_mismatch", true, []string{"sent a token beside the worker's own credential", "Do: Ask the platform team."}, "no token"},
		"a token alone":                                   {good(), "aud_mismatch", false, []string{"The agent sent a token.\n", "Do: Ask"}, "beside"},
		"a companion that never arrived":                  {good(), "legacy_refused", true, []string{"has taken it away"}, "Do:"},
		"no token, where starting the agent is no advice": {none(), "legacy_refused", true, []string{"The agent had no token"}, "Do:"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, agent.Options{Tokens: tc.tokens}, refuses(t, 401, tc.reason))
			s.do(t, "POST", "api/ping", "data={}", func(r *http.Request) {
				if tc.basic {
					r.SetBasicAuth("svc-etl", "legacy-pass")
				}
			})
			for _, text := range tc.want {
				if !strings.Contains(s.said.String(), text) {
					t.Errorf("%q was not said: %s", text, s.said)
				}
			}
			if strings.Contains(s.said.String(), tc.not) {
				t.Errorf("%q was said: %s", tc.not, s.said)
			}
			if strings.Contains(s.said.String(), "the-token") || strings.Contains(s.said.String(), "legacy-pass") {
				t.Errorf("a secret was said: %s", s.said)
			}
		})
	}
}

func TestAHostileRefusalCannotMoveTheCursor(t *testing.T) {
	s := newStage(t, agent.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(403)
		_, _ = io.WriteString(w, `{"reason": "x\u001b[2Jy", "message": "a\nREFUSED: b\u0007", "trace_id": "\u001b]0;t\u0007"}`)
	})
	s.call(t, "ping")
	if got := s.said.String(); strings.ContainsAny(got, "\x1b\x07") || strings.Count(got, "\n") != 3 {
		t.Errorf("%q", got)
	}
}

func TestWithoutATokenTheAgentFailsClosed(t *testing.T) {
	expired := &tokens{}
	expired.set("the-token", time.Now().Add(-time.Second), nil)
	for name, f := range map[string]*tokens{"there is none": none(), "it has expired": expired, "it is empty": {}} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, agent.Options{Mode: agent.ModeToken, Tokens: f}, nil)
			for range 2 {
				got := s.call(t, "get_work")
				if got.status != 200 || strings.Contains(got.body, `"response"`) || !strings.Contains(got.body, `"reason":"agent_no_token"`) {
					t.Errorf("a worker does not stop at %+v", got)
				}
			}
			if got := s.do(t, "GET", "static/x", "", nil); got.status != 503 || got.header.Get("Retry-After") == "" {
				t.Errorf("%+v", got)
			}
			if n := s.count(); n != 0 {
				t.Errorf("%d requests came to the gateway", n)
			}
			if strings.Count(s.said.String(), "crossfade agent: ") != 1 {
				t.Errorf("said: %s", s.said)
			}
			if got := s.proxy.Stats(); got.NoToken != 3 || !s.proxy.Refused() {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestWithoutATokenAPasswordStillGoes(t *testing.T) {
	for _, mode := range []agent.Mode{agent.ModeAuto, agent.ModeCompanion} {
		f := none()
		s := newStage(t, agent.Options{Mode: mode, Tokens: f}, nil)
		for range 2 {
			if got := s.call(t, "ping"); got.status != 200 || !strings.Contains(got.body, "response") {
				t.Errorf("%s: %+v", mode, got)
			}
		}
		if r, _ := s.last(); r.Header.Get("Authorization") != basic("svc-etl", "legacy-pass") || r.Header.Get("Crossfade-Token") != "" {
			t.Errorf("%s: headers %v", mode, r.Header)
		}
		if n := strings.Count(s.said.String(), "no token"); n != 1 {
			t.Errorf("%s: said %d times: %s", mode, n, s.said)
		}
		if got := s.do(t, "POST", "api/ping", "data={}", nil); !strings.Contains(got.body, "agent_no_token") {
			t.Errorf("%s: nothing at all was sent as %+v", mode, got)
		}
		f.set("new", time.Time{}, nil)
		s.call(t, "ping")
		if r, _ := s.last(); r.Header.Get("Crossfade-Token") != "new" {
			t.Errorf("%s: the new token was not sent", mode)
		}
		if got := s.proxy.Stats(); got.WithoutToken != 2 || got.Forwarded != 3 || got.NoToken != 1 {
			t.Errorf("%s: %+v", mode, got)
		}
	}
}

func TestOnlyWorkersReachTheGateway(t *testing.T) {
	for name, tc := range map[string]struct {
		secret, raw string
		want        int
	}{
		"a worker":                              {"", "GET /api/is_paused HTTP/1.1\r\nHost: 127.0.0.1:8082\r\n\r\n", 200},
		"one that says localhost":               {"", "GET / HTTP/1.1\r\nHost: LOCALHOST\r\n\r\n", 200},
		"one that prefers IPv6":                 {"", "GET / HTTP/1.1\r\nHost: [::1]:1\r\n\r\n", 200},
		"a name that was made to point here":    {"", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421},
		"a name that only begins like ours":     {"", "GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", 421},
		"no name at all":                        {"", "GET / HTTP/1.1\r\nHost: \r\n\r\n", 421},
		"a request that is for somebody else":   {"", "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 421},
		"one that only claims to be for us":     {"", "GET http://example.com/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 421},
		"a body that is cut off":                {"", "POST /api/ping HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\ndata", 400},
		"a tunnel":                              {"", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 421},
		"a page of another site":                {"", "POST /api/pause HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n\r\n", 403},
		"a page without an address":             {"", "POST /api/pause HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: null\r\nContent-Length: 0\r\n\r\n", 403},
		"a link on another site":                {"", "GET /api/pause HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n\r\n", 403},
		"a page of another port":                {"", "GET /api/pause HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: same-site\r\n\r\n", 403},
		"the visualiser through the agent":      {"", "GET /api/pause HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: same-origin\r\nOrigin: http://127.0.0.1\r\n\r\n", 200},
		"the secret":                            {"abc", "GET /abc/api/ping HTTP/1.1\r\nHost: localhost\r\n\r\n", 200},
		"the secret and nothing else":           {"abc", "GET /abc HTTP/1.1\r\nHost: localhost\r\n\r\n", 200},
		"no secret":                             {"abc", "GET /api/ping HTTP/1.1\r\nHost: localhost\r\n\r\n", 404},
		"a path that only begins as the secret": {"abc", "GET /abcd/api/ping HTTP/1.1\r\nHost: localhost\r\n\r\n", 404},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, agent.Options{Secret: tc.secret}, nil)
			u, err := url.Parse(s.url)
			if err != nil {
				t.Fatal(err)
			}
			var d net.Dialer
			conn, err := d.DialContext(t.Context(), "tcp", u.Host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, tc.raw); err != nil {
				t.Fatal(err)
			}
			if tc.want == 400 {
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != tc.want {
				body, _ := io.ReadAll(resp.Body)
				t.Errorf("status %d, want %d: %s", resp.StatusCode, tc.want, body)
			}
			if came := s.count() > 0; came != (tc.want == 200) {
				t.Errorf("it came to the gateway: %v", came)
			}
			if tc.want != 200 && s.proxy.Stats().Rejected != 1 {
				t.Errorf("%+v", s.proxy.Stats())
			}
		})
	}
}

func TestAGatewayThatDoesNotAnswerIsTriedAgain(t *testing.T) {
	s := newStage(t, agent.Options{}, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	for range 2 {
		if got := s.call(t, "ping"); got.status != 502 || got.header.Get("Crossfade-Reason") != "agent_gateway_unreachable" {
			t.Errorf("%+v", got)
		}
	}
	if strings.Count(s.said.String(), "does not answer") != 1 || s.proxy.Refused() || s.proxy.Stats().Unreachable != 2 {
		t.Errorf("said %q, %+v", s.said, s.proxy.Stats())
	}
}

// A server may close an unused connection in the very moment in which it is
// used again. Workers would wait half a minute before they try again.
func TestACallOnAConnectionThatIsBeingClosedIsSentAgain(t *testing.T) {
	l, err := agent.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	served := make(chan string, 2)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2 {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(conn)
			r, err := http.ReadRequest(in)
			if err != nil {
				t.Error(err)
				return
			}
			body, _ := io.ReadAll(r.Body)
			served <- string(body)
			_, _ = fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
			if len(served) == 1 {
				<-closed
				_ = conn.Close() // it was announced to nobody
			} else {
				defer conn.Close()
			}
		}
	}()
	transport := agent.NewTransport(nil)
	transport.Proxy = nil
	defer transport.CloseIdleConnections()
	said := &safe{}
	p, err := agent.New(agent.Options{
		Gateway: &url.URL{Scheme: "http", Host: l.Addr().String()}, Tokens: good(),
		Report: agent.NewReporter(said, 0), Transport: transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "/api/ping", strings.NewReader("data={}"))
		r.URL.Scheme, r.URL.Host = "", ""
		p.ServeHTTP(w, r)
		if w.Code != 200 {
			t.Fatalf("call %d: %d %s", i, w.Code, said)
		}
		if i == 0 {
			close(closed)
		}
	}
	_ = l.Close()
	<-done
	if a, b := <-served, <-served; a != "data={}" || b != a {
		t.Errorf("bodies %q and %q", a, b)
	}
}

func TestAnAgentThatCannotWorkIsNotMade(t *testing.T) {
	whole := func() agent.Options {
		return agent.Options{
			Gateway: &url.URL{Scheme: "https", Host: "gw"}, Tokens: good(),
			Report: agent.NewReporter(io.Discard, 0), Transport: http.DefaultTransport,
		}
	}
	if _, err := agent.New(whole()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*agent.Options){
		"no gateway":               func(o *agent.Options) { o.Gateway = nil },
		"no host":                  func(o *agent.Options) { o.Gateway.Host = "" },
		"another scheme":           func(o *agent.Options) { o.Gateway.Scheme = "ftp" },
		"a password for everybody": func(o *agent.Options) { o.Gateway.User = url.UserPassword("a", "b") },
		"a query":                  func(o *agent.Options) { o.Gateway.RawQuery = "a=b" },
		"no tokens":                func(o *agent.Options) { o.Tokens = nil },
		"nobody to report to":      func(o *agent.Options) { o.Report = nil },
		"no way":                   func(o *agent.Options) { o.Transport = nil },
	} {
		o := whole()
		change(&o)
		if _, err := agent.New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := agent.ParseMode("both"); err == nil || !strings.Contains(err.Error(), "auto, companion, token") {
		t.Errorf("%v", err)
	}
}
