package gateway_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"crossfade/gateway"
)

// FuzzHandler sends whatever a stranger may write through the whole straight
// pass, in both modes and profiles, and looks at what goes on to the upstream.
func FuzzHandler(f *testing.F) {
	for _, text := range ugly() {
		f.Add([]byte(text))
	}
	known := "Authorization: " + basic("svc-etl", "legacy-pass") + "\r\n"
	for _, text := range []string{
		"GET /healthz HTTP/1.1\r\nHost: gw\r\nX-Http-Method-Override: POST\r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: gw\r\nX_Forwarded_User: root\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		"GET http://root:toor@gw/x HTTP/1.1\r\nHost: gw\r\nX.Forwarded.User: root\r\n" + known + "\r\n",
		"POST /x HTTP/1.1\r\nHost: gw\r\n" + known + "Trailer: X-Forwarded-User\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Forwarded-User: root\r\nRemote-User: root\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: gw\r\n" + known + "Crossfade-Token: " + goodToken + "\r\nConnection: X-Forwarded-User, Crossfade-Token\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer " + goodToken + "\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
		"CONNECT gw:80 HTTP/1.1\r\nHost: gw:80\r\n" + known + "\r\n",
	} {
		f.Add([]byte(text))
	}

	var forwarded []*http.Request
	var stages []*stage
	for _, mode := range []gateway.Mode{gateway.Observe, gateway.Enforce} {
		for _, profile := range profiles() {
			s := newStage("http://upstream.test")
			s.Mode = mode
			s.Classifier = gateway.Classifier{Profile: profile, MaxBody: 4096, ExemptPaths: []string{"/healthz"}}
			s.proxy.Transport = transport(func(r *http.Request) (*http.Response, error) {
				if r.Body != nil {
					_, _ = io.Copy(io.Discard, r.Body) // trailers come with its end
				}
				forwarded = append(forwarded, r)
				return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
			})
			stages = append(stages, s)
		}
	}
	handlers := make([]http.Handler, len(stages))
	for i, s := range stages {
		handlers[i] = s.handler(f)
	}

	f.Fuzz(func(t *testing.T, text []byte) {
		for i, s := range stages {
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
			if err != nil {
				return // net/http answers it by itself
			}
			r.RemoteAddr = "192.0.2.1:1234"
			forwarded = nil
			broken := serve(t, handlers[i], r)
			ev := s.event()
			if n := len(s.recorder.events); n != 0 {
				t.Fatalf("%d events too many", n)
			}
			switch {
			case broken, ev.Status == http.StatusBadRequest && ev.Decision.Reason == "rpc_ambiguous" && len(forwarded) == 0:
				continue // the body breaks off
			case s.Mode == gateway.Observe && len(forwarded) != 1:
				t.Fatalf("observe: not forwarded: %+v, status %d", ev.Decision, ev.Status)
			case s.Mode == gateway.Enforce && len(forwarded) > 0:
				checkForwarded(t, forwarded[0], ev)
			}
		}
	})
}

// serve reports whether the connection would have been cut off.
func serve(t *testing.T, h http.Handler, r *http.Request) (broken bool) {
	defer func() {
		if cause := recover(); cause != nil {
			if err, ok := cause.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				t.Fatalf("panic: %v", cause)
			}
			broken = true
		}
	}()
	h.ServeHTTP(httptest.NewRecorder(), r)
	return false
}

// checkForwarded looks at a request that mode enforce let through.
func checkForwarded(t *testing.T, r *http.Request, ev *gateway.Event) {
	t.Helper()
	exempt := ev.Decision.Outcome == gateway.Exempt
	if !exempt && (ev.Decision.Outcome != gateway.Allowed || !ev.Legacy.OK() && !ev.Token.OK()) {
		t.Fatalf("forwarded as %+v", ev.Decision)
	}
	user := []string{ev.Principal.Name}
	for _, headers := range []http.Header{r.Header, r.Trailer} {
		for name, values := range headers {
			folded := strings.Map(func(c rune) rune {
				if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
					return c
				}
				return '-'
			}, strings.ToLower(name))
			switch folded {
			case "authorization", "proxy-authorization", "crossfade-token", "x-api-key", "remote-user", "x-original-url", "http2-settings":
				t.Fatalf("%s reached the upstream", name)
			case "x-forwarded-user", "x-auth-request-user":
				if exempt || !slices.Equal(values, user) || http.CanonicalHeaderKey(name) != name {
					t.Fatalf("the upstream is told %s: %q of %+v", name, values, ev.Principal)
				}
			case "x-forwarded-email", "x-forwarded-groups", "x-auth-request-email", "x-auth-request-groups":
				if exempt || !ev.Token.OK() || len(values) != 1 {
					t.Fatalf("the upstream is told %s: %q", name, values)
				}
			case "upgrade":
				if exempt || !slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, "websocket") }) {
					t.Fatalf("a tunnel by %q", values)
				}
			}
		}
	}
}
