package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway"
)

// Every handshake below ends in a dead lock, and the test in its time-out, if
// the gateway held back what it should pass on.

func TestServerSentEventsArriveOneByOne(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	up := newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-next // until the client has it
		}
	})
	s := newStage(up.URL).start(t)
	_, from := raw(t, s.server.Listener.Addr().String(), "GET /events HTTP/1.1\r\nHost: %HOST%\r\nConnection: close\r\nAuthorization: Bearer "+goodToken+"\r\n\r\n")
	resp, err := http.ReadResponse(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(resp.Body)
	for i := range 3 {
		if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("%q, %v", line, err)
		}
		_, _ = lines.ReadString('\n')
		next <- struct{}{}
	}
}

func TestAnUnknownLengthStreamsInBothDirectionsAtOnce(t *testing.T) {
	t.Parallel()
	for _, mode := range []gateway.Mode{gateway.Observe, gateway.Enforce} {
		up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(w)
			if err := control.EnableFullDuplex(); err != nil {
				t.Error(err)
			}
			w.WriteHeader(http.StatusOK)
			_ = control.Flush()
			lines := bufio.NewReader(r.Body)
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					return
				}
				_, _ = io.WriteString(w, strings.ToUpper(line))
				_ = control.Flush()
			}
		}))
		t.Cleanup(up.Close)
		s := newStage(up.URL)
		s.Mode = mode
		s.server = httptest.NewUnstartedServer(s.handler(t))
		s.server.EnableHTTP2 = true // HTTP/1 clients of Go do not talk and listen at once
		s.server.StartTLS()
		t.Cleanup(s.server.Close)

		body, pen := io.Pipe()
		r, err := http.NewRequest(http.MethodPost, s.server.URL+"/x", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+goodToken)
		resp, err := s.server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp.ProtoMajor != 2 {
			t.Fatalf("the listening side speaks %s", resp.Proto)
		}
		lines := bufio.NewReader(resp.Body)
		for _, word := range []string{"one\n", "two\n", strings.Repeat("x", 100_000) + "\n"} {
			go func() { _, _ = io.WriteString(pen, word) }()
			if got, err := lines.ReadString('\n'); err != nil || got != strings.ToUpper(word) {
				t.Fatalf("%d bytes of echo, %v", len(got), err)
			}
		}
		_ = pen.Close()
		if rest, err := io.ReadAll(lines); err != nil || len(rest) != 0 {
			t.Errorf("%d bytes left, %v", len(rest), err)
		}
		_ = resp.Body.Close()
	}
}

func TestALargeBodyIsNeverHeldBack(t *testing.T) {
	t.Parallel()
	const piece, pieces = 64 << 10, 64
	for _, tt := range []struct {
		name, profile, target string
		mode                  gateway.Mode
	}{
		{"profile http", "http", "/upload", gateway.Enforce},
		{"a page of profile luigi", "luigi", "/upload", gateway.Observe},
		{"a call over the bound, in mode observe", "luigi", "/api/add_task", gateway.Observe},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			took := make(chan struct{})
			up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				buf := make([]byte, piece)
				for range pieces {
					if _, err := io.ReadFull(r.Body, buf); err != nil {
						t.Error(err)
						return
					}
					took <- struct{}{}
				}
				n, err := io.Copy(io.Discard, r.Body)
				_, _ = fmt.Fprintf(w, "%d %v", n, err)
			}))
			t.Cleanup(up.Close)
			s := newStage(up.URL)
			s.Mode = tt.mode
			s.Classifier = gateway.Classifier{Profile: gateway.Profile(tt.profile), MaxBody: piece / 2}
			s.start(t)
			body, pen := io.Pipe()
			go func() {
				for range pieces {
					_, _ = pen.Write(make([]byte, piece))
					<-took // the upstream has this piece before the next is written
				}
				_ = pen.Close()
			}()
			r, err := http.NewRequest(http.MethodPost, s.server.URL+tt.target, body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+goodToken)
			resp, err := s.server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			if err != nil || string(text) != "0 <nil>" {
				t.Errorf("%d %q %v", resp.StatusCode, text, err)
			}
			_ = resp.Body.Close()
			if ev := s.event(); tt.target == "/api/add_task" && ev.Decision.Reason != "body_oversize" {
				t.Errorf("the event says %+v", ev.Decision)
			}
		})
	}
}

// switching is an upstream that speaks a protocol of its own: it echoes lines.
func switching(t *testing.T) *httptest.Server {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			http.Error(w, "upgrade, please", http.StatusUpgradeRequired)
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = fmt.Fprintf(buffered, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-User: %s\r\n\r\n", r.Header.Get("X-Forwarded-User"))
		_ = buffered.Flush()
		for {
			line, err := buffered.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = buffered.WriteString(strings.ToUpper(line))
			_ = buffered.Flush()
		}
	}))
	t.Cleanup(up.Close)
	return up
}

func TestWebSocketsAreUpgradedForWhoMay(t *testing.T) {
	t.Parallel()
	s := newStage(switching(t).URL)
	s.Sunset = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	s.start(t)
	const text = "GET /ws HTTP/1.1\r\nHost: %HOST%\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"

	if resp, _ := exchange(t, s.server.Listener.Addr().String(), text+"\r\n"); resp.StatusCode != 401 {
		t.Errorf("without a credential: %d", resp.StatusCode)
	}
	s.event()

	conn, from := raw(t, s.server.Listener.Addr().String(), text+"Authorization: "+basic("svc-etl", "legacy-pass")+"\r\n\r\n")
	resp, err := http.ReadResponse(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 101 || resp.Header.Get("X-User") != "svc-etl" || resp.Header.Get("Sunset") == "" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	for _, word := range []string{"hello\n", "again\n"} {
		if _, err := io.WriteString(conn, word); err != nil {
			t.Fatal(err)
		}
		if got, err := from.ReadString('\n'); err != nil || got != strings.ToUpper(word) {
			t.Fatalf("%q %v", got, err)
		}
	}
	_ = conn.Close()
	if ev := s.event(); ev.Status != 101 || ev.Decision.Outcome != gateway.Allowed {
		t.Errorf("event: status %d, %+v", ev.Status, ev.Decision)
	}
	s.noMoreEvents(t, 2)
}

func TestAnUpgradeThatConnectionStrippedStaysAPlainRequest(t *testing.T) {
	t.Parallel()
	s := newStage(switching(t).URL).start(t)
	resp, _ := exchange(t, s.server.Listener.Addr().String(),
		"GET /ws HTTP/1.1\r\nHost: %HOST%\r\nConnection: close\r\nUpgrade: websocket\r\nAuthorization: Bearer "+goodToken+"\r\n\r\n")
	if resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestExpectContinueAsksTheUpstreamBeforeTheBodyIsSent(t *testing.T) {
	t.Parallel()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		body, err := io.ReadAll(r.Body) // net/http sends 100 Continue now
		_, _ = fmt.Fprintf(w, "%s %v", body, err)
	}))
	t.Cleanup(up.Close)
	s := newStage(up.URL).start(t)
	text := func(path string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: %HOST%\r\nConnection: close\r\nContent-Length: 4\r\nExpect: 100-continue\r\nAuthorization: "
	}
	conn, from := raw(t, s.server.Listener.Addr().String(), text("/take")+"Bearer "+goodToken+"\r\n\r\n")
	resp, err := http.ReadResponse(from, nil)
	if err != nil || resp.StatusCode != 100 {
		t.Fatalf("%v %v", resp, err)
	}
	if _, err := io.WriteString(conn, "body"); err != nil {
		t.Fatal(err)
	}
	// The upstream's 100 may come beside the server's own (RFC 9110 section 15.2:
	// a client takes one or more).
	for resp.StatusCode == 100 {
		if resp, err = http.ReadResponse(from, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(got) != "body <nil>" {
		t.Errorf("%d %q", resp.StatusCode, got)
	}
	for _, tt := range []struct {
		path, credential string
		want             int
	}{{"/refuse", "Bearer " + goodToken, 417}, {"/take", "Bearer " + badToken, 401}} {
		if resp, _ := exchange(t, s.server.Listener.Addr().String(), text(tt.path)+tt.credential+"\r\n\r\n"); resp.StatusCode != tt.want {
			t.Errorf("%s: status %d, want %d before any body was asked for", tt.path, resp.StatusCode, tt.want)
		}
	}
}

func TestInformationalRepliesPassAndTheNoticeStandsOnTheFinalOne(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		w.Header().Set("Link", "</next>; rel=next")
		w.WriteHeader(http.StatusCreated)
	})
	s := newStage(up.URL)
	s.Deprecated = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s.Sunset = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	s.start(t)
	type reply struct {
		code   int
		link   []string
		sunset string
	}
	var got []reply
	r, err := http.NewRequest(http.MethodGet, s.server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", basic("svc-etl", "legacy-pass"))
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, reply{code, h["Link"], h.Get("Sunset")})
			return nil
		},
	}))
	resp, err := s.server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	got = append(got, reply{resp.StatusCode, resp.Header["Link"], resp.Header.Get("Sunset")})
	guide := `<https://wiki.acme.dev/oidc>; rel="deprecation"; type="text/html"`
	want := []reply{
		{103, []string{"</style.css>; rel=preload"}, ""},
		{102, []string{"</style.css>; rel=preload"}, ""},
		{201, []string{"</next>; rel=next", guide}, "Fri, 01 Jan 2027 00:00:00 GMT"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(reply{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if v := resp.Header.Values("Deprecation"); len(v) != 1 || v[0] != "@1767225600" {
		t.Errorf("Deprecation %q", v)
	}
	if ev := s.event(); ev.Status != 201 {
		t.Errorf("event: status %d", ev.Status)
	}
}

func TestTrailersOfRepliesPass(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "Checksum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("Checksum", "abc")
		w.Header().Set(http.TrailerPrefix+"Unannounced", "def")
	})
	s := newStage(up.URL).start(t)
	resp, body := s.do(t, http.MethodGet, "/", "", "Authorization", "Bearer "+goodToken)
	want := http.Header{"Checksum": {"abc"}, "Unannounced": {"def"}}
	if diff := cmp.Diff(want, resp.Trailer); diff != "" || body != "body" {
		t.Errorf("body %q, trailers (-want +got):\n%s", body, diff)
	}
}

func TestHTTP2AnnouncesTrailersOnRequestsWithoutABody(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.server = httptest.NewUnstartedServer(s.handler(t))
	s.server.EnableHTTP2 = true
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	r, err := http.NewRequest(http.MethodPost, s.server.URL+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+goodToken)
	r.Trailer = http.Header{"X-Forwarded-User": {"root"}, "Checksum": {"abc"}}
	resp, err := s.server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
		t.Errorf("%s %s", resp.Proto, resp.Status)
	}
	if got := up.last(t); got.target != "/x" || got.header.Get("X-Forwarded-User") != "svc-etl" {
		t.Errorf("the upstream saw %+v", got)
	}
}
