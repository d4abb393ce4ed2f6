package app_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/rollout"
)

// authoriser is a site whose gateway only answers the questions of proxies on this
// machine.
func authoriser(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.configure("listen", "{ address: 127.0.0.1:0, trusted_proxies: [127.0.0.1], forward_auth: /auth }", "upstream", "{ profile: http }",
		"exempt", "[/healthz]", "access_log", "{ file: access.log, format: json }",
		"legacy", "{ htpasswd: users.htpasswd, throttle: { failures: 3, every: 10m } }")
	return s
}

// asking are the proxies that may stand in front, each by its example: the real ones,
// but for Traefik, which is played by what its documentation says of ForwardAuth.
func asking() map[string]func(s *site, gateway string, v *service) *front {
	return map[string]func(s *site, gateway string, v *service) *front{
		"nginx": func(s *site, gateway string, v *service) *front {
			return s.startNginx("auth.conf", "listen 80", "127.0.0.1:8082", gateway, "127.0.0.1:8000", v.addr)
		},
		"Caddy": func(s *site, gateway string, v *service) *front {
			return s.startCaddy(gateway, v.addr)
		},
		"Traefik as documented": func(s *site, gateway string, v *service) *front {
			return playTraefik(s.t, example(s.t, "traefik/dynamic.yaml", "127.0.0.1:8082", gateway, "127.0.0.1:8000", v.addr))
		},
	}
}

// startCaddy starts Caddy by its example in front of a service, with further changes.
func (s *site) startCaddy(gateway, service string, changes ...string) *front {
	s.t.Helper()
	return startFront(s.t, "caddy", func(dir, addr string) []string {
		text := "{\n\tadmin off\n}\n" + example(s.t, "caddy/Caddyfile", append([]string{
			"app.example.com", "http://" + addr, "127.0.0.1:8082", gateway, "127.0.0.1:8000", service,
		}, changes...)...)
		if err := os.WriteFile(filepath.Join(dir, "Caddyfile"), []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
		return []string{"run", "--config", "Caddyfile", "--adapter", "caddyfile"}
	})
}

// traefik is as much of a dynamic configuration as ForwardAuth needs.
type traefik struct {
	HTTP struct {
		Routers map[string]struct {
			Rule        string
			Middlewares []string
			Service     string
		}
		Middlewares map[string]struct {
			Headers struct {
				CustomRequestHeaders map[string]string `yaml:"customRequestHeaders"`
			}
			ForwardAuth struct {
				Address             string
				TrustForwardHeader  bool     `yaml:"trustForwardHeader"`
				AuthResponseHeaders []string `yaml:"authResponseHeaders"`
			} `yaml:"forwardAuth"`
		}
		Services map[string]struct {
			LoadBalancer struct {
				Servers []struct{ URL string }
			} `yaml:"loadBalancer"`
		}
	}
}

// playTraefik does what Traefik documents (v2 and v3, "ForwardAuth" and "Headers"): an
// empty custom header is removed; the question is a GET with the client's headers but
// those of the hop, and X-Forwarded-Method, -Proto, -Host, -Uri and -For of its own; an
// answer of 2xx lets the request go on, with the named headers of the answer in place of
// the client's, and every other one goes to the client.
func playTraefik(t *testing.T, text string) *front {
	t.Helper()
	var c traefik
	if err := yaml.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	ask := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: patience, Transport: &http.Transport{}}
	t.Cleanup(ask.CloseIdleConnections)
	to := map[string]*httputil.ReverseProxy{}
	for name, service := range c.HTTP.Services {
		target, err := url.Parse(service.LoadBalancer.Servers[0].URL)
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{}
		t.Cleanup(transport.CloseIdleConnections)
		to[name] = &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		}}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		router := c.HTTP.Routers["service"]
		if strings.Contains(c.HTTP.Routers["metadata"].Rule, "Path(`"+r.URL.Path+"`)") { // the longer rule comes first
			router = c.HTTP.Routers["metadata"]
		}
		for _, name := range router.Middlewares {
			m := c.HTTP.Middlewares[name]
			for header, value := range m.Headers.CustomRequestHeaders {
				if r.Header.Del(header); value != "" {
					r.Header.Set(header, value)
				}
			}
			if m.ForwardAuth.Address == "" {
				continue
			}
			q, err := http.NewRequestWithContext(r.Context(), http.MethodGet, m.ForwardAuth.Address, nil)
			if err != nil {
				t.Error(err)
				return
			}
			q.Header = r.Header.Clone()
			for _, hop := range []string{"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade"} {
				q.Header.Del(hop)
			}
			client, _, _ := net.SplitHostPort(r.RemoteAddr)
			for header, value := range map[string]string{
				"X-Forwarded-For": client, "X-Forwarded-Method": r.Method, "X-Forwarded-Proto": "http",
				"X-Forwarded-Host": r.Host, "X-Forwarded-Uri": r.URL.RequestURI(),
			} {
				if !m.ForwardAuth.TrustForwardHeader || q.Header.Get(header) == "" {
					q.Header.Set(header, value)
				}
			}
			answer, err := ask.Do(q)
			if err != nil {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			var body bytes.Buffer
			_, _ = body.ReadFrom(answer.Body)
			_ = answer.Body.Close()
			if answer.StatusCode/100 != 2 {
				maps.Copy(w.Header(), answer.Header)
				w.WriteHeader(answer.StatusCode)
				_, _ = w.Write(body.Bytes())
				return
			}
			for _, header := range m.ForwardAuth.AuthResponseHeaders {
				if r.Header.Del(header); len(answer.Header.Values(header)) > 0 {
					r.Header[http.CanonicalHeaderKey(header)] = answer.Header.Values(header)
				}
			}
		}
		to[router.Service].ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return &front{t: t, addr: server.Listener.Addr().String(), log: &lockedBuffer{}}
}

// notFromClients are the headers that no client may bring to a service: those that say
// who asks or whose address it is, those by which services route, and credentials.
var notFromClients = []string{
	"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token",
	"X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups", "X-Auth-Request-Preferred-Username",
	"X-Auth-Request-Access-Token", "X-Auth-Request-Redirect",
	"Remote-User", "Remote-Groups", "Remote-Email", "Remote-Name", "X-Remote-User", "X-Remote-Group", "X-Remote-Email", "X-WebAuth-User",
	"X-Original-URL", "X-Original-URI", "X-Original-Method", "X-Rewrite-URL", "X-Forwarded-Uri", "X-Forwarded-Method",
	"X-Client-IP", "X-Cluster-Client-IP", "True-Client-IP", "Forwarded",
	"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
	"Proxy-Authorization", "Crossfade-Run", "Crossfade-Abort", "Crossfade-Reason",
}

func TestAProxyThatAsksLetsInWhomTheGatewayWould(t *testing.T) {
	t.Parallel()
	for name, start := range asking() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := authoriser(t)
			v := newService(t)
			g := s.start().loaded()
			f := start(s, g.Addr(), v)
			base := "http://" + f.addr
			send := func(q request, header ...string) reply {
				q.header = http.Header{}
				for i := 0; i < len(header); i += 2 {
					q.header.Add(header[i], header[i+1])
				}
				return s.send(base, q)
			}
			token := s.token("svc-etl", audience)
			post := request{method: http.MethodPost, path: "/a%2Fb/%2e%2e/c?d=%7C", body: "twelve bytes"}
			withToken := post
			withToken.bearer = token

			// Allowed: the service sees the request as it was sent, with who asks, and
			// without any credential.
			withCompanion := etl(post)
			withCompanion.companion = token
			for what, q := range map[string]request{"a password": etl(post), "a token": withToken, "a password with a companion": withCompanion} {
				if got := send(q); got.status != 200 || got.body != `POST /a%2Fb/%2e%2e/c?d=%7C by "svc-etl" with 12 bytes` {
					t.Errorf("%s: %v", what, got)
				}
				seen, _ := v.last()
				for _, header := range []string{"Authorization", "Crossfade-Token"} {
					if seen.Header.Get(header) != "" {
						t.Errorf("%s: the service sees %s", what, header)
					}
				}
				for name, values := range seen.Header {
					if strings.Contains(strings.Join(values, ","), "{") || values[0] == "" {
						t.Errorf("%s: the service sees %s: %q", what, name, values)
					}
				}
				if seen.Host != f.addr {
					t.Errorf("%s: the service is reached as %s", what, seen.Host)
				}
			}
			s.eventually("the companion is judged in the shadow", func() bool {
				return g.metric(`crossfade_shadow_verdicts_total{evidence="client",team="data-eng",verdict="match_allow"}`) == "1"
			})

			// Refused: as the gateway would, with its challenge, and the service sees nothing.
			_, before := v.last()
			bad := post
			bad.bearer = s.token("svc-etl", "another")
			wrong := post
			wrong.user, wrong.password = "svc-etl", "wrong"
			for what, tt := range map[string]struct {
				q      request
				header []string
				status int
				reason string
			}{
				"nothing":                            {q: post, status: 401, reason: "token_absent"},
				"a token for another audience":       {q: bad, status: 401, reason: "aud_mismatch"},
				"a wrong password":                   {q: wrong, status: 401, reason: "legacy_unknown"},
				"a token in the query":               {q: request{method: http.MethodGet, path: "/?access_token=x"}, status: 400, reason: "token_in_query"},
				"HEAD":                               {q: request{method: http.MethodHead, path: "/x"}, status: 401, reason: "token_absent"},
				"a path that leads to an exempt one": {q: request{method: http.MethodGet, path: "/x/../healthz"}, status: 401, reason: "token_absent"},
				"an exempt path with more behind it": {q: request{method: http.MethodGet, path: "/healthz%3Fx"}, status: 401, reason: "token_absent"},
				"an exempt path said in a header":    {q: request{method: http.MethodGet, path: "/x"}, header: []string{"X-Original-URI", "/healthz", "X-Original-Method", "GET"}, status: 401, reason: "token_absent"},
				"the same in the other way":          {q: request{method: http.MethodGet, path: "/x"}, header: []string{"X-Forwarded-Uri", "/healthz", "X-Forwarded-Method", "GET"}, status: 401, reason: "token_absent"},
				"the same as a URL":                  {q: request{method: http.MethodGet, path: "/x"}, header: []string{"X-Original-URL", "http://x/healthz"}, status: 401, reason: "token_absent"},
			} {
				got := send(tt.q, tt.header...)
				if got.status != tt.status || got.header.Get("Crossfade-Reason") != tt.reason {
					t.Errorf("%s: %v", what, got)
				}
				if got.status == 401 && !strings.Contains(got.header.Get("WWW-Authenticate"), `resource_metadata="`+base+`/.well-known/oauth-protected-resource"`) {
					t.Errorf("%s: challenges %q", what, got.header.Values("WWW-Authenticate"))
				}
				var problem struct {
					Status int
					Reason string
				}
				if tt.q.method != http.MethodHead {
					if err := json.Unmarshal([]byte(got.body), &problem); err != nil || problem.Status != tt.status || problem.Reason != tt.reason {
						t.Errorf("%s: %s, %v", what, got.body, err)
					}
				}
			}
			if _, after := v.last(); after != before {
				t.Errorf("%d refused requests reached the service", after-before)
			}

			// Exempt: nobody, whatever credential came.
			if got := send(etl(request{method: http.MethodGet, path: "/healthz?deep"})); got.status != 200 || got.body != `GET /healthz?deep by "" with 0 bytes` {
				t.Errorf("an exempt path: %v", got)
			}
			if seen, _ := v.last(); len(seen.Header["X-Forwarded-User"])+len(seen.Header["X-Forwarded-Groups"]) > 0 {
				t.Errorf("an exempt path: the service sees %v", seen.Header)
			}
			if got := send(request{method: http.MethodGet, path: "/.well-known/oauth-protected-resource"}); got.status != 200 || !strings.Contains(got.body, `"resource":"`+base+`"`) {
				t.Errorf("the metadata: %v", got)
			}

			// No client brings what is not a client's to say, in any spelling.
			for _, q := range []request{withToken, {method: http.MethodGet, path: "/healthz"}} {
				for _, header := range notFromClients {
					for _, spelt := range []string{header, strings.ReplaceAll(header, "-", "_")} {
						_, before := v.last()
						got := send(q, spelt, "mallory")
						seen, after := v.last()
						if got.status != 200 && got.status != 400 || (got.status == 200) != (after > before) {
							t.Errorf("%s: %v", spelt, got)
						}
						if spelt == header && got.status != 200 {
							t.Errorf("%s is in the way: %v", spelt, got)
						}
						for name, values := range seen.Header {
							if after > before && strings.Contains(strings.Join(values, ","), "mallory") {
								t.Errorf("the service sees %s: %s", name, values)
							}
						}
					}
				}
			}

			// Who asks is no header of the hop, which a client could have taken away again.
			for _, hop := range []string{"X-Forwarded-User", "close, x-forwarded-user", "X-Forwarded-For, X-Forwarded-Host, X-Forwarded-User, X-Forwarded-Groups"} {
				if got := send(withToken, "Connection", hop); got.status != 200 || !strings.Contains(got.body, `by "svc-etl"`) {
					t.Errorf("Connection: %s: %v", hop, got)
				}
			}

			// What asks for another protocol gets none, and is served.
			got := send(withToken, "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABk")
			if seen, _ := v.last(); got.status != 200 || seen.Header.Get("Upgrade") != "" || seen.Header.Get("HTTP2-Settings") != "" {
				t.Errorf("h2c: %v, and the service sees %v", got, seen.Header)
			}

			// Guesses hold up the guesser, and tell nginx's client what they are.
			for i := range 4 {
				q := post
				q.user, q.password = "svc-search", fmt.Sprint("guess ", i)
				got := send(q)
				if i == 3 && (got.status != 429 || got.header.Get("Crossfade-Reason") != "throttled" || got.header.Get("Retry-After") == "") {
					t.Errorf("guess %d: %v %v", i, got, got.header)
				}
			}

			// Without the gateway nobody gets in.
			g.end()
			_, before = v.last()
			for what, q := range map[string]request{"a token": withToken, "an exempt path": {method: http.MethodGet, path: "/healthz"}} {
				if got := send(q); got.status < 500 {
					t.Errorf("%s without the gateway: %v", what, got)
				}
			}
			if _, after := v.last(); after != before {
				t.Error("the service was reached without the gateway")
			}
			log := readFile(t, filepath.Join(s.dir, "access.log"))
			for _, want := range []string{`"method":"POST","path":"/a%2Fb/%2e%2e/c"`, `"client":"127.0.0.1"`, `"asked":"`} {
				if !strings.Contains(log, want) {
					t.Errorf("no %s in the access log", want)
				}
			}
			if strings.Contains(log, `"path":"/auth"`) && name != "Caddy" && name != "Traefik as documented" {
				t.Errorf("a question was not understood:\n%s", log)
			}
		})
	}
}

// TestAWebSocketThroughCaddyIsSomebodys changes the example as it says for WebSockets.
func TestAWebSocketThroughCaddyIsSomebodys(t *testing.T) {
	t.Parallel()
	s := authoriser(t)
	g := s.start().loaded()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nby %s\n", r.Header.Get("Upgrade"), r.Header.Get("X-Forwarded-User"))
		_ = conn.Close()
	}))
	t.Cleanup(service.Close)
	f := s.startCaddy(g.Addr(), service.Listener.Addr().String(),
		"\t\trequest_header -Upgrade\n", "", "request_header -Connection\n", "request_header Connection Upgrade\n")
	for protocol, want := range map[string]string{"websocket": "101 by svc-etl\n", "h2c": "400 "} {
		conn, err := net.DialTimeout("tcp", f.addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = fmt.Fprintf(conn, "GET /socket HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: Upgrade, X-Forwarded-User\r\nUpgrade: %s\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", f.addr, s.token("svc-etl", audience), protocol)
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		said := ""
		if resp.StatusCode == http.StatusSwitchingProtocols {
			said, _ = in.ReadString('\n')
		}
		if got := fmt.Sprintf("%d %s", resp.StatusCode, said); got != want {
			t.Errorf("%s: %q, want %q", protocol, got, want)
		}
		_ = conn.Close()
	}
}

func TestTheRolloutGovernsWhomAProxyLetsIn(t *testing.T) {
	t.Parallel()
	s := authoriser(t)
	v := newService(t)
	g := s.start().loaded()
	f := s.startNginx("auth.conf", "listen 80", "127.0.0.1:8082", g.Addr(), "127.0.0.1:8000", v.addr)
	base := "http://" + f.addr
	ask := etl(request{method: http.MethodGet, path: "/x"})
	if got := s.send(base, ask); got.status != 200 {
		t.Fatal(got)
	}
	if _, err := g.Table().Write(t.Context(), rollout.Change{Team: "data-eng", Percent: 100, Expect: rollout.AnyRevision, Actor: "lead", Source: "cli"}); err != nil {
		t.Fatal(err)
	}
	g.reaches("data-eng", 100)
	got := s.send(base, ask)
	if got.status != 401 || got.header.Get("Crossfade-Reason") != "legacy_refused" || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Bearer") {
		t.Errorf("at 100%%: %v", got)
	}
	if got := s.send(base, search(request{method: http.MethodGet, path: "/x"})); got.status != 200 {
		t.Errorf("another team: %v", got)
	}
	if got := s.send(base, etl(request{method: http.MethodGet, path: "/_crossfade"})); got.status != 404 || got.header.Get("X-Forwarded-User") != "" {
		t.Errorf("a client that asks by itself: %v", got)
	}
	ask.companion = s.token("svc-etl", audience)
	if got := s.send(base, ask); got.status != 200 || !strings.Contains(got.body, `"svc-etl"`) {
		t.Errorf("with a companion at 100%%: %v", got)
	}
}

// TestWhatNginxSaysForAllServersOpensNone has settings around the example that it would
// inherit.
func TestWhatNginxSaysForAllServersOpensNone(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]string{
		"all replies are kept, whatever they say of it": "proxy_cache_path cache keys_zone=all:1m; proxy_cache all; proxy_cache_valid any 1h; proxy_ignore_headers Cache-Control Expires;",
		"refusals become pages of our own":              "proxy_intercept_errors on; error_page 401 403 =200 /login.html;",
		"failures become pages of our own":              "proxy_intercept_errors on; error_page 500 502 503 504 =200 /sorry.html;",
		"an address or a credential is enough":          "satisfy any; allow 127.0.0.1;",
		"odd headers are let through":                   "underscores_in_headers on; ignore_invalid_headers off;",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := authoriser(t)
			v := newService(t)
			g := s.start().loaded()
			f := s.startNginx("auth.conf", "listen 80", "127.0.0.1:8082", g.Addr(), "127.0.0.1:8000", v.addr, "upstream crossfade {", settings+"\nupstream crossfade {")
			base, ask := "http://"+f.addr, request{method: http.MethodGet, path: "/x"}
			if got := s.send(base, etl(ask)); got.status != 200 || got.body != `GET /x by "svc-etl" with 0 bytes` {
				t.Fatal(got)
			}
			bad, spelt := ask, etl(ask)
			bad.bearer = s.token("svc-etl", "another")
			for _, q := range []request{ask, bad} {
				if got := s.send(base, q); got.status != 401 {
					t.Errorf("a request without a good credential: %v", got)
				}
			}
			spelt.header = http.Header{"X_Forwarded_User": {"mallory"}, "X.Remote.User": {"mallory"}}
			got := s.send(base, spelt)
			if seen, _ := v.last(); got.status == 200 && strings.Contains(fmt.Sprint(seen.Header), "mallory") {
				t.Errorf("the service sees %v", seen.Header)
			}
			g.end()
			if got := s.send(base, etl(ask)); got.status < 500 {
				t.Errorf("without the gateway: %v", got)
			}
		})
	}
}

func TestWhatCannotBeJudgedNowIsUnavailableThroughNginx(t *testing.T) {
	t.Parallel()
	s := authoriser(t)
	s.relayKeys(fails)
	v := newService(t)
	g := s.start(impatient).loaded()
	f := s.startNginx("auth.conf", "listen 80", "127.0.0.1:8082", g.Addr(), "127.0.0.1:8000", v.addr)
	got := s.send("http://"+f.addr, request{method: http.MethodGet, path: "/x", bearer: s.token("svc-etl", audience)})
	if got.status != 503 || got.header.Get("Crossfade-Reason") != "jwks_unavailable" || got.header.Get("Retry-After") == "" {
		t.Errorf("%v %v", got, got.header)
	}
	if _, n := v.last(); n != 0 {
		t.Error("the service was reached")
	}
}

func TestInObserveAProxyLetsEverybodyInAndTheGatewayCounts(t *testing.T) {
	t.Parallel()
	s := authoriser(t)
	s.configure("mode", "observe")
	v := newService(t)
	g := s.start().loaded()
	f := s.startNginx("auth.conf", "listen 80", "127.0.0.1:8082", g.Addr(), "127.0.0.1:8000", v.addr)
	for what, q := range map[string]request{"nothing": {method: http.MethodGet, path: "/x"}, "a password": etl(request{method: http.MethodGet, path: "/x"})} {
		if got := s.send("http://"+f.addr, q); got.status != 200 || got.body != `GET /x by "" with 0 bytes` {
			t.Errorf("%s: %v", what, got)
		}
	}
	s.eventually("both are counted", func() bool {
		return g.metric(`crossfade_requests_total{outcome="would_refuse",reason="token_absent",scheme="none",team="unassigned"}`) == "1" &&
			g.metric(`crossfade_requests_total{outcome="allowed",reason="",scheme="basic",team="data-eng"}`) == "1"
	})
}

func TestWhoeverIsNoTrustedProxyIsToldSoAndTheLogSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"enforce", "observe"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := authoriser(t)
			s.configure("mode", mode, "listen", "{ address: 127.0.0.1:0, trusted_proxies: [10.0.0.0/8], forward_auth: /auth }")
			g := s.start().loaded()
			for _, q := range []request{
				etl(request{method: http.MethodGet, path: "/auth", header: http.Header{"X-Original-Uri": {"/healthz"}, "X-Original-Method": {"GET"}, "X-Forwarded-For": {"10.0.0.1"}}}),
				{method: http.MethodGet, path: "/auth", bearer: s.token("svc-etl", audience)},
			} {
				got := g.send(q)
				if got.status != 403 || got.header.Get("Crossfade-Reason") != "proxy_untrusted" || !strings.Contains(got.body, "listen.trusted_proxies") || got.header.Get("X-Forwarded-User") != "" {
					t.Errorf("%v %v", got, got.header)
				}
			}
			if got := g.send(etl(request{method: http.MethodGet, path: "/x"})); got.status != 400 || !strings.Contains(got.body, "at /auth") {
				t.Errorf("a client that goes past the proxy: %v", got)
			}
			s.eventually("the signal is counted", func() bool {
				return g.metric(`crossfade_security_signals_total{reason="proxy_untrusted",team="unassigned"}`) == "2"
			})
			log := g.log.String()
			if strings.Count(log, "cannot be answered") != 1 || !strings.Contains(log, "client=127.0.0.1") || !strings.Contains(log, "listen.trusted_proxies") {
				t.Errorf("the log does not say once what to do:\n%s", log)
			}
			if !strings.Contains(log, "upstream=none") {
				t.Errorf("the log does not say that there is no upstream:\n%s", log)
			}
		})
	}
}

func TestTheEndpointComesAndGoesWithTheConfiguration(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	v := newService(t)
	s.configure("upstream", "{ url: http://"+v.addr+", profile: http }")
	g := s.start().loaded()
	question := etl(request{method: http.MethodGet, path: "/auth", header: http.Header{
		"X-Original-Uri": {"/x"}, "X-Original-Method": {"GET"}, "X-Forwarded-For": {"192.0.2.7"},
	}})
	if got := g.send(question); got.body != `GET /auth by "svc-etl" with 0 bytes` {
		t.Errorf("without an endpoint: %v", got)
	}
	s.configure("listen", "{ address: 127.0.0.1:0, trusted_proxies: [127.0.0.1], forward_auth: /auth }")
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := g.send(question); got.status != 200 || got.body != "" || got.header.Get("X-Forwarded-User") != "svc-etl" {
		t.Errorf("with one: %v", got)
	}
	if got := g.send(etl(request{method: http.MethodGet, path: "/y"})); got.body != `GET /y by "svc-etl" with 0 bytes` {
		t.Errorf("beside one: %v", got)
	}
}

func TestAGatewayThatStartedForLuigiDoesNotBecomeAnAuthoriser(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.start().loaded()
	s.configure("upstream", "{ profile: http }", "listen", "{ address: 127.0.0.1:0, trusted_proxies: [127.0.0.1], forward_auth: /auth }")
	if err := g.Reload(); err == nil || !strings.Contains(err.Error(), "restart the gateway") {
		t.Errorf("reload: %v", err)
	}
	if got := g.send(etl(pages())); got.status != 200 {
		t.Errorf("the running configuration: %v", got)
	}
}

func TestWhatTheExamplesSayOfTheGatewayLoads(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"nginx/auth.conf", "nginx/front.conf", "caddy/Caddyfile", "traefik/dynamic.yaml"} {
		var lines []string
		for line := range strings.Lines(readFile(t, deployed+name)) {
			if text, ok := strings.CutPrefix(line, "#   "); ok {
				lines = append(lines, text)
			}
		}
		file := filepath.Join(t.TempDir(), "crossfade.yaml")
		if err := os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(config.Source{File: file})
		if err != nil || len(lines) != 2 || len(c.Listen.TrustedProxies) != 1 {
			t.Errorf("%s: %q: %v", name, lines, err)
			continue
		}
		if asks := name != "nginx/front.conf"; (c.Listen.ForwardAuth == "/auth") != asks || (app.UpstreamOf(c) == "none") != asks {
			t.Errorf("%s: %+v", name, c.Listen)
		}
	}
}

// The three examples take away the same headers.
func TestTheExamplesRemoveTheSameHeaders(t *testing.T) {
	t.Parallel()
	var c traefik
	if err := yaml.Unmarshal([]byte(readFile(t, deployed+"traefik/dynamic.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	removed := slices.Concat(slices.Collect(maps.Keys(c.HTTP.Middlewares["from-clients"].Headers.CustomRequestHeaders)),
		slices.Collect(maps.Keys(c.HTTP.Middlewares["to-service"].Headers.CustomRequestHeaders)))
	if len(removed) < 35 {
		t.Fatalf("only %q", removed)
	}
	caddy, nginx := readFile(t, deployed+"caddy/Caddyfile"), strings.Join(strings.Fields(readFile(t, deployed+"nginx/auth.conf")), " ")
	for _, header := range removed {
		if !strings.Contains(caddy, "request_header -"+header+"\n") {
			t.Errorf("Caddy leaves %s", header)
		}
		if header != "Upgrade" && !strings.Contains(nginx, "proxy_set_header "+header+" ") { // nginx removes that by itself
			t.Errorf("nginx leaves %s", header)
		}
	}
}
