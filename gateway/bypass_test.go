package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"crossfade/gateway"
	"crossfade/gateway/identity"
)

func TestARequestThatAsksForAnotherMethodIsJudgedAsThatOne(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Classifier.ExemptPaths = []string{"/healthz"}
	s.RolesCount, s.Policy = true, viewersOnly(t)
	s.start(t)
	pass := basic("svc-etl", "legacy-pass")
	for _, override := range []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X_HTTP_Method_Override"} {
		for _, tt := range []struct {
			name, method, target string
			headers              []string
			status               int
		}{
			{"a health path", "GET", "/healthz", nil, http.StatusUnauthorized},
			{"the sign of life", "HEAD", "/", nil, http.StatusUnauthorized},
			{"a preflight", "OPTIONS", "/jobs", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "POST"}, http.StatusUnauthorized},
			{"a viewer's GET", "GET", "/jobs", []string{"Authorization", pass}, http.StatusForbidden},
		} {
			resp, _ := s.do(t, tt.method, tt.target, "", append(tt.headers, override, "POST")...)
			if resp.StatusCode != tt.status || up.count() != 0 {
				t.Errorf("%s with %s: %d, %d requests reached the upstream", tt.name, override, resp.StatusCode, up.count())
			}
		}
	}
	if resp, _ := s.do(t, "GET", "/healthz", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("a health path without: %d", resp.StatusCode)
	}
}

func TestAPreflightWithABodyNeedsAnIdentity(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL).start(t)
	preflight := []string{"Origin", "https://a.example", "Access-Control-Request-Method", "POST"}
	if resp, _ := s.do(t, "OPTIONS", "/jobs", "run=everything", preflight...); resp.StatusCode != http.StatusUnauthorized || up.count() != 0 {
		t.Errorf("with a body: %d, %d requests reached the upstream", resp.StatusCode, up.count())
	}
	if resp, _ := s.do(t, "OPTIONS", "/jobs", "", append(preflight, "Origin", "https://b.example")...); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("with two origins: %d", resp.StatusCode)
	}
	if resp, _ := s.do(t, "OPTIONS", "/jobs", "", preflight...); resp.StatusCode != http.StatusOK {
		t.Errorf("a browser's: %d", resp.StatusCode)
	}
}

func TestAHeaderThatRoutesDoesNotReachTheUpstream(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Classifier.ExemptPaths = []string{"/healthz"}
	s.start(t)
	s.do(t, "GET", "/healthz", "", "X-Original-Url", "/admin", "X-Rewrite-Url", "/admin", "X_Original_URL", "/admin", "X.Forwarded.User", "root")
	for name := range up.last(t).header {
		if strings.Contains(strings.ToLower(name), "url") || strings.Contains(name, "orwarded.") {
			t.Errorf("%s reached the upstream", name)
		}
	}
}

func TestAnAssistantNeedsTheRightToEveryFamily(t *testing.T) {
	t.Parallel()
	c := gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: 4096}
	for arguments, every := range map[string]bool{
		`{"worker": "w1", "assistant": true}`:  true,
		`{"worker": "w1", "assistant": false}`: false,
		`{"worker": "w1"}`:                     false,
	} {
		call, err := c.Classify(post("get_work", rpc(arguments)))
		if err != nil || call.EveryFamily != every || call.Action != identity.ActionExecute {
			t.Errorf("%s: %+v, %v", arguments, call, err)
		}
	}
}

// tunnel is an upstream that switches to whatever protocol it is asked for.
func tunnel(t *testing.T) *httptest.Server {
	t.Helper()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocol := r.Header.Get("Upgrade")
		if protocol == "" {
			_, _ = io.WriteString(w, "plain "+r.Header.Get("Http2-Settings"))
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n")
	}))
	t.Cleanup(up.Close)
	return up
}

func TestNobodyTunnelsThroughTheGateway(t *testing.T) {
	t.Parallel()
	s := newStage(tunnel(t).URL)
	s.Classifier.ExemptPaths = []string{"/healthz"}
	s.start(t)
	pass := "Authorization: " + basic("svc-etl", "legacy-pass") + "\r\n"
	for _, tt := range []struct {
		name, target, headers string
		status                int
	}{
		{"h2c with a password", "/", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n" + pass, 200},
		{"h2c that hides its settings", "/", "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n" + pass, 200},
		{"h2c beside WebSockets", "/", "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n" + pass, 200},
		{"h2c on an exempt path", "/healthz", "Connection: Upgrade\r\nUpgrade: h2c\r\n", 200},
		{"WebSockets on an exempt path", "/healthz", "Connection: Upgrade\r\nUpgrade: websocket\r\n", 200},
		{"another protocol", "/", "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n" + pass, 200},
		{"WebSockets with a password", "/", "Connection: Upgrade\r\nUpgrade: WebSocket\r\n" + pass, 101},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, from := raw(t, s.server.Listener.Addr().String(), "GET "+tt.target+" HTTP/1.1\r\nHost: %HOST%\r\n"+tt.headers+"\r\n")
			resp, err := http.ReadResponse(from, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			if resp.StatusCode != tt.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
			}
			if body, _ := io.ReadAll(resp.Body); tt.status == 200 && string(body) != "plain " {
				t.Errorf("the upstream answered %q", body)
			}
		})
	}
}

func TestTheZoneOfAnAddressIsNoPartOfIt(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.proxy.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	s.start(t)
	s.do(t, "GET", "/", "", "X-Forwarded-For", "fe80::1%<b>\xff")
	if got := s.event().Client.String(); got != "fe80::1" {
		t.Errorf("the client is %q", got)
	}
}

// stalled is a body of which nothing arrives before measure was called.
type stalled struct{ measure func() }

func (s stalled) Read([]byte) (int, error) { s.measure(); return 0, io.EOF }

func TestABodyThatIsOnlyAnnouncedCostsNoMemory(t *testing.T) { // not parallel: it measures the whole process
	c := gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: 64 << 20}
	var before, after runtime.MemStats
	r := httptest.NewRequest(http.MethodPost, "/api/ping", stalled{func() { runtime.ReadMemStats(&after) }})
	r.ContentLength = 48 << 20
	runtime.ReadMemStats(&before)
	if _, err := c.Classify(r); err != nil {
		t.Fatal(err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("%d bytes were set aside for a body that never came", grown)
	}
}

func TestABodyThatStallsHoldsNothingForLong(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Classifier = gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: 4096, BodyTimeout: 50 * time.Millisecond}
	s.start(t)
	head := "POST /api/ping HTTP/1.1\r\nHost: %HOST%\r\nContent-Type: " + form + "\r\nAuthorization: " + basic("svc-etl", "legacy-pass") + "\r\n"
	for name, rest := range map[string]string{
		"a length that does not come": "Content-Length: 100\r\n\r\ndata=",
		"a chunk that does not come":  "Transfer-Encoding: chunked\r\n\r\n10\r\ndata=",
	} {
		if resp, _ := exchange(t, s.server.Listener.Addr().String(), head+rest); resp.StatusCode != http.StatusRequestTimeout {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
		if ev := s.event(); ev.Decision.Outcome != gateway.Refused || ev.Status != http.StatusRequestTimeout {
			t.Errorf("%s: %+v, status %d", name, ev.Decision, ev.Status)
		}
	}
	if up.count() != 0 {
		t.Errorf("%d requests reached the upstream", up.count())
	}
}

// deadlines is a connection that notes what may take how long.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetReadDeadline(at time.Time) error { d.set = append(d.set, at); return nil }

func TestTheTimeOfABodyIsNotThatOfItsReply(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Classifier = gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: 64}
	h := s.handler(t)
	for name, tt := range map[string]struct {
		r         *http.Request
		deadlines int
	}{
		"a call":                {post("ping", rpc(`{"worker": "w1"}`)), 2},
		"a call over the bound": {post("ping", rpc(`{"worker": "w1"}`)+strings.Repeat("&x=y", 100)), 2},
		"a call without a body": {httptest.NewRequest(http.MethodGet, "/api/task_list", nil), 0},
		"a page":                {httptest.NewRequest(http.MethodPost, "/static/x", strings.NewReader("x")), 0},
	} {
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		h.ServeHTTP(w, tt.r)
		if len(w.set) != tt.deadlines || len(w.set) == 2 && (w.set[0].IsZero() || !w.set[1].IsZero()) {
			t.Errorf("%s: deadlines %v", name, w.set)
		}
	}
}
