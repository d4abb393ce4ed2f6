package gateway_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"crossfade/gateway"
)

func TestTargetsReachTheUpstreamByteForByte(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.start(t)
	o := newStage(up.URL)
	o.Mode = gateway.Observe
	o.Classifier.Profile = gateway.ProfileLuigi
	o.start(t)
	tests := []struct{ name, sent, want string }{
		{"slashes", "//api/x", "//api/x"},
		{"many slashes", "///a///b//", "///a///b//"},
		{"an escaped slash", "/a%2Fb", "/a%2Fb"},
		{"escapes in small letters", "/a%2fb%c3%bc", "/a%2fb%c3%bc"},
		{"escapes that need not be", "/%61pi/%70ing", "/%61pi/%70ing"},
		{"dots", "/a/../b/./c/..", "/a/../b/./c/.."},
		{"escaped dots", "/a/%2e%2e/b", "/a/%2e%2e/b"},
		{"characters that net/url would escape", `/a|b"c<d>^{e}` + "`", `/a|b"c<d>^{e}` + "`"},
		{"such characters behind two slashes stay escaped, since those could be an authority", "//a|b", "//a%7Cb"},
		{"bytes beyond ASCII", "/\xfc/\xc3\xbc", "/\xfc/\xc3\xbc"},
		{"a backslash", `/a\b`, `/a\b`},
		{"a semicolon in the path", "/a;b=c/d", "/a;b=c/d"},
		{"semicolons and broken escapes in the query", "/x?a=%zz&b=1;c=2&&=", "/x?a=%zz&b=1;c=2&&="},
		{"an empty query", "/x?", "/x?"},
		{"a second question mark", "/x?a?b", "/x?a?b"},
		{"a hash sign", "/x#y", "/x#y"},
		{"the absolute form", "http://other.example/a%2Fb?c", "/a%2Fb?c"},
		{"the absolute form with a user", "http://user:pass@other.example/x", "/x"},
	}
	for _, tt := range tests {
		for _, stage := range []*stage{s, o} {
			t.Run(tt.name+", "+stage.Mode.String(), func(t *testing.T) {
				resp, body := exchange(t, stage.server.Listener.Addr().String(),
					"GET "+tt.sent+" HTTP/1.1\r\nHost: gw.acme.dev\r\nAuthorization: Bearer "+goodToken+"\r\nConnection: close\r\n\r\n")
				if resp.StatusCode != 200 {
					t.Fatalf("status %d: %s", resp.StatusCode, body)
				}
				if got := up.last(t).target; got != tt.want {
					t.Errorf("the upstream saw %q, want %q", got, tt.want)
				}
			})
		}
	}
}

func TestOddMethodsAreForwardedAsTheyAre(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL).start(t)
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "PROPFIND", "BREW", "get"} {
		resp, _ := exchange(t, s.server.Listener.Addr().String(),
			method+" /x HTTP/1.1\r\nHost: %HOST%\r\nAuthorization: Bearer "+goodToken+"\r\nConnection: close\r\n\r\n")
		if got := up.last(t).method; resp.StatusCode != 200 || got != method {
			t.Errorf("%s: status %d, the upstream saw %s", method, resp.StatusCode, got)
		}
	}
}

func TestCONNECTIsARequestLikeAnyOther(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no tunnel here", http.StatusMethodNotAllowed)
	})
	s := newStage(up.URL).start(t)
	const text = "CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\nConnection: close\r\n"
	if resp, _ := exchange(t, s.server.Listener.Addr().String(), text+"\r\n"); resp.StatusCode != 401 || up.count() != 0 {
		t.Errorf("without a credential: status %d, %d requests upstream", resp.StatusCode, up.count())
	}
	resp, _ := exchange(t, s.server.Listener.Addr().String(), text+"Authorization: Bearer "+goodToken+"\r\n\r\n")
	if resp.StatusCode != 405 || up.count() != 1 {
		t.Errorf("status %d, %d requests upstream", resp.StatusCode, up.count())
	}
}

func TestConflictingLengthsNeverReachTheUpstreamAsSuch(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Mode = gateway.Observe
	s.start(t)
	tests := []struct {
		name, headers, rest string
		status              int
		body                string // at the upstream, if it saw anything
	}{
		{"two different Content-Lengths", "Content-Length: 4\r\nContent-Length: 5\r\n", "abcde", 400, ""},
		{"two equal Content-Lengths are one (RFC 9112 section 6.3)", "Content-Length: 4\r\nContent-Length: 4\r\n", "abcd", 200, "abcd"},
		{"Content-Length as a list", "Content-Length: 4, 5\r\n", "abcde", 400, ""},
		{"a negative Content-Length", "Content-Length: -1\r\n", "", 400, ""},
		{"a Content-Length with a sign", "Content-Length: +4\r\n", "abcd", 400, ""},
		{"Content-Length beside Transfer-Encoding: the chunks count (RFC 9112 section 6.1)", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "4\r\nabcd\r\n0\r\n\r\n", 200, "abcd"},
		{"Transfer-Encoding that hides", "Transfer-Encoding: xchunked\r\n", "4\r\nabcd\r\n0\r\n\r\n", 501, ""},
		{"two Transfer-Encodings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "4\r\nabcd\r\n0\r\n\r\n", 501, ""},
		{"a chunk of no size", "Transfer-Encoding: chunked\r\n", "zz\r\nabcd\r\n0\r\n\r\n", 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := up.count()
			_, from := raw(t, s.server.Listener.Addr().String(),
				"POST /x HTTP/1.1\r\nHost: %HOST%\r\nConnection: close\r\n"+tt.headers+"\r\n"+tt.rest)
			resp, err := http.ReadResponse(from, nil)
			switch {
			case tt.status == 0:
				if err == nil && resp.StatusCode < 400 {
					t.Errorf("status %d", resp.StatusCode)
				}
				return
			case err != nil:
				t.Fatal(err)
			case resp.StatusCode != tt.status:
				t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
			}
			if tt.body == "" && up.count() != before {
				t.Errorf("the upstream saw %+v", up.last(t))
			}
			if tt.body != "" {
				got := up.last(t)
				if got.body != tt.body || len(got.header["Content-Length"]) > 1 {
					t.Errorf("the upstream saw %q, lengths %q", got.body, got.header["Content-Length"])
				}
			}
		})
	}
}

func TestAMegabyteOfHeadersIsAClearAnswer(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.server = httptest.NewUnstartedServer(s.handler(t))
	s.server.Config.MaxHeaderBytes = 64 << 10
	s.server.Start()
	t.Cleanup(s.server.Close)
	conn, err := net.Dial("tcp", s.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	go func() { // the gateway answers before all of it was written
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+strings.Repeat("a", 1<<20)+"\r\n\r\n")
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge || up.count() != 0 {
		t.Errorf("status %d, %d requests upstream", resp.StatusCode, up.count())
	}
}

func TestAnUpstreamThatIsAwayIsA502AndTheEventSaysWhy(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, mode := range []gateway.Mode{gateway.Observe, gateway.Enforce} {
		s := newStage(gone.URL)
		s.Mode = mode
		s.start(t)
		resp, body := s.do(t, http.MethodPost, "/x", "body", "Authorization", "Bearer "+goodToken)
		if resp.StatusCode != 502 || resp.Header.Get("Content-Type") != "application/problem+json" || resp.Header.Get("Cache-Control") != "no-store" ||
			!strings.Contains(body, "could not reach the upstream") || strings.Contains(body, "127.0.0.1") {
			t.Errorf("%s: %d %v %s", mode, resp.StatusCode, resp.Header, body)
		}
		ev := s.event()
		if ev.UpstreamErr == nil || ev.Status != 502 || ev.Decision.Outcome != gateway.Allowed {
			t.Errorf("%s: event says %v, status %d, %+v", mode, ev.UpstreamErr, ev.Status, ev.Decision)
		}
	}
}

// lateness is an error of a transport that waited too long.
type lateness struct{}

func (lateness) Error() string   { return "timeout awaiting response headers" }
func (lateness) Timeout() bool   { return true }
func (lateness) Temporary() bool { return true }

// transport answers with a function.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAnUpstreamThatTakesTooLongIsA504(t *testing.T) {
	t.Parallel()
	s := newStage("http://127.0.0.1:1")
	s.proxy.Transport = transport(func(*http.Request) (*http.Response, error) { return nil, lateness{} })
	s.start(t)
	resp, _ := s.do(t, http.MethodGet, "/x", "", "Authorization", "Bearer "+goodToken)
	if ev := s.event(); resp.StatusCode != 504 || !errors.Is(ev.UpstreamErr, lateness{}) {
		t.Errorf("status %d, event %v", resp.StatusCode, ev.UpstreamErr)
	}
}

func TestAnUpstreamThatDiesInTheMiddleOfItsReplyBreaksTheClients(t *testing.T) {
	t.Parallel()
	for _, length := range []string{"Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"} {
		up := newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+length+"\r\n4\r\nhalf")
			_ = conn.Close()
		})
		s := newStage(up.URL).start(t)
		_, from := raw(t, s.server.Listener.Addr().String(), "GET /x HTTP/1.1\r\nHost: %HOST%\r\nAuthorization: Bearer "+goodToken+"\r\n\r\n")
		if resp, err := http.ReadResponse(from, nil); err == nil { // what was short may not have been flushed
			if body, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("%q: the client took %q for a whole reply", length, body)
			}
		}
		ev := s.event()
		if ev.UpstreamErr == nil || ev.Status != 200 || ev.Sent == 0 {
			t.Errorf("%q: event says %v, status %d, %d bytes", length, ev.UpstreamErr, ev.Status, ev.Sent)
		}
		s.noMoreEvents(t, 1)
	}
}

func TestAClientThatHalfClosesIsNeverToldThatAllWentWell(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	up := newUpstream(t, func(http.ResponseWriter, *http.Request) { close(arrived); <-release })
	t.Cleanup(func() { close(release) })
	s := newStage(up.URL).start(t)
	conn, from := raw(t, s.server.Listener.Addr().String(), "POST /api/add_task HTTP/1.1\r\nHost: %HOST%\r\nContent-Length: 0\r\nAuthorization: Bearer "+goodToken+"\r\n\r\n")
	<-arrived
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.ReadResponse(from, nil); err == nil {
		t.Errorf("the client was told %s, but the upstream never answered", resp.Status)
	}
	if ev := s.event(); ev.UpstreamErr == nil || ev.Status != 0 {
		t.Errorf("event says %v, status %d", ev.UpstreamErr, ev.Status)
	}
}

func TestABodyThatBreaksOffIsABadRequestWithItsEvent(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Classifier.Profile = gateway.ProfileLuigi
	s.start(t)
	conn, from := raw(t, s.server.Listener.Addr().String(), "POST /api/ping HTTP/1.1\r\nHost: %HOST%\r\nContent-Length: 100\r\nAuthorization: Bearer "+goodToken+"\r\n\r\ndata=")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	ev := s.event()
	if resp.StatusCode != 400 || ev.Status != 400 || up.count() != 0 {
		t.Errorf("status %d, event %d, %d requests upstream", resp.StatusCode, ev.Status, up.count())
	}
	if ev.Decision.Outcome != gateway.Refused || ev.Decision.Reason == "" || ev.Shadow.Verdict != "not_evaluated" {
		t.Errorf("event without an outcome: %+v, %+v", ev.Decision, ev.Shadow)
	}
}

func TestRepliesWithoutABodyPassAsTheyAre(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"v1"`)
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/304":
			w.WriteHeader(http.StatusNotModified)
		default:
			w.Header().Set("Content-Length", "1234")
		}
	})
	s := newStage(up.URL).start(t)
	for _, tt := range []struct {
		method, target string
		status         int
		length         string
	}{{"GET", "/204", 204, ""}, {"GET", "/304", 304, ""}, {"HEAD", "/x", 200, "1234"}} {
		resp, body := s.do(t, tt.method, tt.target, "", "Authorization", "Bearer "+goodToken)
		ev := s.event()
		if resp.StatusCode != tt.status || body != "" || resp.Header.Get("Etag") != `"v1"` || resp.Header.Get("Content-Length") != tt.length {
			t.Errorf("%s %s: %d %v %q", tt.method, tt.target, resp.StatusCode, resp.Header, body)
		}
		if ev.Status != tt.status || ev.Sent != 0 || ev.UpstreamErr != nil || ev.UpstreamTime <= 0 {
			t.Errorf("%s %s: event %d, %d bytes, %v", tt.method, tt.target, ev.Status, ev.Sent, ev.UpstreamErr)
		}
	}
}
