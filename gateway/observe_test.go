package gateway_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi/captures"
)

// view is one exchange from both ends: what the client got and what the
// upstream saw, without what belongs to a single hop.
type view struct {
	Status   int
	Header   http.Header
	Body     string
	Upstream *request
}

type request struct {
	Method, Target, Host string
	Header               http.Header
	Body                 string
}

// standIn is an upstream that answers as it is told.
type standIn struct {
	*httptest.Server
	reply http.HandlerFunc
	saw   *request
}

func newStandIn(t *testing.T) *standIn {
	t.Helper()
	s := &standIn{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s.saw = &request{r.Method, r.RequestURI, r.Host, endToEnd(r.Header), string(body)}
		s.reply(w, r)
	}))
	s.Config.DisableGeneralOptionsHandler = true
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// endToEnd returns the headers that are for the other end: without hop-by-hop
// ones (RFC 9110 section 7.6.1), Date, which is the time of the reply, and a
// length of nothing.
func endToEnd(h http.Header) http.Header {
	out := h.Clone()
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Authorization", "Te", "Transfer-Encoding", "Upgrade", "Date", "Crossfade-Token"} {
		out.Del(name)
	}
	if out.Get("Content-Length") == "0" {
		out.Del("Content-Length")
	}
	return out
}

// ask sends text to address and looks at both ends.
func (s *standIn) ask(t *testing.T, address, text string) view {
	t.Helper()
	s.saw = nil
	_, from := raw(t, address, text)
	method, _, _ := strings.Cut(text, " ")
	resp, err := http.ReadResponse(from, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return view{resp.StatusCode, endToEnd(resp.Header), string(body), s.saw}
}

// observing starts a gateway in mode observe in front of the stand-in, strict
// wherever mode enforce would be.
func (s *standIn) observing(t *testing.T, profile gateway.Profile) *stage {
	t.Helper()
	g := newStage(s.URL)
	g.Mode, g.RolesCount, g.Policy = gateway.Observe, true, viewersOnly(t)
	g.Classifier = gateway.Classifier{Profile: profile, MaxBody: 4096}
	g.Extractor.Static = statics{opaque: true}
	g.Rollout = at(100)
	g.Metadata = &gateway.Metadata{}
	g.keys["billing-pass"] = verified(billing())
	return g.startPlain(t)
}

// startPlain serves the gateway like start, but without net/http's own answer
// to OPTIONS of the server.
func (s *stage) startPlain(t *testing.T) *stage {
	t.Helper()
	s.server = httptest.NewUnstartedServer(s.handler(t))
	s.server.Config.DisableGeneralOptionsHandler = true
	s.server.Start()
	t.Cleanup(s.server.Close)
	return s
}

func profiles() []gateway.Profile {
	return []gateway.Profile{gateway.ProfileLuigi, gateway.ProfileHTTP}
}

// recorded writes a recorded request as it stood on the wire.
func recorded(e captures.Exchange) string {
	target := e.Path
	if e.Query != "" {
		target += "?" + e.Query
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", e.Method, target)
	for _, name := range slices.Sorted(maps.Keys(e.RequestHeaders)) {
		fmt.Fprintf(&b, "%s: %s\r\n", name, e.RequestHeaders[name])
	}
	return b.String() + "\r\n" + e.RequestBody
}

// replay answers as recorded: compressed where it was, and with that many
// bytes where the body was left out of the recording.
func replay(t *testing.T, e captures.Exchange) http.HandlerFunc {
	t.Helper()
	body := []byte(e.ResponseBody)
	switch {
	case e.OmittedBytes > 0:
		body = make([]byte, e.OmittedBytes)
		for i := range body {
			body[i] = byte(i * (e.Seq + 3) >> 3)
		}
	case e.ResponseHeaders["Content-Encoding"] == "gzip":
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		_, _ = w.Write(body)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		body = packed.Bytes()
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range e.ResponseHeaders {
			if name != "Content-Length" && name != "Date" {
				w.Header().Set(name, value)
			}
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(e.Status)
		_, _ = w.Write(body)
	}
}

func TestRecordedTrafficIsTheSameWithAndWithoutTheGateway(t *testing.T) {
	t.Parallel()
	for _, name := range captures.Names() {
		for _, profile := range profiles() {
			t.Run(name+", profile "+string(profile), func(t *testing.T) {
				t.Parallel()
				exchanges, err := captures.Load(name)
				if err != nil {
					t.Fatal(err)
				}
				up := newStandIn(t)
				g := up.observing(t, profile)
				compressed := 0
				for _, e := range exchanges {
					up.reply = replay(t, e)
					text := recorded(e)
					without := up.ask(t, up.Listener.Addr().String(), text)
					with := up.ask(t, g.server.Listener.Addr().String(), text)
					if diff := cmp.Diff(without, with); diff != "" {
						t.Fatalf("exchange %d, %s %s (-without +with):\n%s", e.Seq, e.Method, e.Path, diff)
					}
					if without.Status != e.Status || without.Upstream == nil || without.Upstream.Body != e.RequestBody {
						t.Fatalf("exchange %d was not replayed as recorded: %+v", e.Seq, without)
					}
					if with.Header.Get("Content-Encoding") == "gzip" {
						compressed++
					}
					ev := g.event()
					if !ev.Decision.Forward() || ev.Status != e.Status || ev.Call.Problem != "" {
						t.Errorf("exchange %d: event %+v, status %d, problem %q", e.Seq, ev.Decision, ev.Status, ev.Call.Problem)
					}
				}
				if name == captures.Contention && compressed != 2 {
					t.Errorf("%d compressed replies, want 2", compressed)
				}
				g.noMoreEvents(t, int64(len(exchanges)))
			})
		}
	}
}

// ugly are requests that mode enforce refuses or that gateways and schedulers
// are known to read in different ways.
func ugly() map[string]string {
	body := func(head, body string) string {
		return head + "Host: gw\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
	}
	const formType = "Content-Type: application/x-www-form-urlencoded\r\n"
	call := func(procedure, form string, headers ...string) string {
		return body("POST /api/"+procedure+" HTTP/1.1\r\n"+formType+strings.Join(headers, ""), form)
	}
	get := func(target string, headers ...string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: gw\r\n" + strings.Join(headers, "") + "\r\n"
	}
	ping := rpc(`{"worker": "w1"}`)
	auth := func(value string) string { return "Authorization: " + value + "\r\n" }
	pass := auth(basic("svc-etl", "legacy-pass"))
	out := map[string]string{
		"no credential":                         call("ping", ping),
		"an upgrade to what is no protocol":     get("/x", "Connection: Upgrade\r\nUpgrade: \x8febsocket\r\n"),
		"a wrong password":                      call("ping", ping, auth(basic("svc-etl", "wrong"))),
		"an expired password":                   call("ping", ping, auth(basic("svc-etl", "expired-pass"))),
		"malformed base64":                      call("ping", ping, auth("Basic !!!")),
		"bytes beyond ASCII in a credential":    call("ping", ping, auth("Basic \xff\xfe")),
		"a bad token":                           call("ping", ping, auth("Bearer "+badToken)),
		"a token that cannot be verified":       call("ping", ping, auth("Bearer "+awayToken)),
		"a malformed token":                     call("ping", ping, auth("Bearer a.b")),
		"an empty bearer":                       call("ping", ping, auth("Bearer")),
		"a huge token":                          call("ping", ping, auth("Bearer "+strings.Repeat("x", 100_000))),
		"Digest":                                call("ping", ping, auth("Digest username=x")),
		"two Authorization headers":             call("ping", ping, pass, auth("Bearer "+goodToken)),
		"an API key and a password":             call("ping", ping, pass, "X-Api-Key: k1\r\n"),
		"two API keys":                          call("ping", ping, "X-Api-Key: k1\r\nX-Api-Key: k2\r\n"),
		"a static token":                        call("ping", ping, auth("Bearer "+opaque)),
		"a wrong static token":                  call("ping", ping, auth("Bearer other")),
		"a wrong API key":                       call("ping", ping, "X-Api-Key: nope\r\n"),
		"a companion alone":                     call("ping", ping, "Crossfade-Token: "+goodToken+"\r\n"),
		"two companions":                        call("ping", ping, pass, "Crossfade-Token: a\r\nCrossfade-Token: b\r\n"),
		"a bad companion":                       call("ping", ping, pass, "Crossfade-Token: "+badToken+"\r\n"),
		"a token in the query":                  get("/api/task_list?access_token=x"),
		"a password without the right":          call("add_worker", ping, pass),
		"the abort switch":                      call("ping", ping, "Crossfade-Abort: off\r\n"),
		"identity headers":                      call("ping", ping, pass, "X-Forwarded-User: root\r\nX_Forwarded_User: root\r\nRemote-User: root\r\n"),
		"the metadata document":                 get(gateway.MetadataPath),
		"two data fields":                       call("ping", ping+"&"+rpc(`{"worker": "w2"}`)),
		"data in body and query":                body("POST /api/ping?"+rpc(`{"worker": "w2"}`)+" HTTP/1.1\r\n"+formType, ping),
		"a GET with a form in its body":         body("GET /api/disable_worker HTTP/1.1\r\n"+formType, ping),
		"a form of several parts":               body("POST /api/ping HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\n", "--b\r\nContent-Disposition: form-data; name=\"data\"\r\n\r\n{}\r\n--b--\r\n"),
		"a field behind percent signs":          call("ping", "d%61ta="+ping[5:]),
		"a method behind percent signs":         call("un%70ause", ping),
		"the API behind percent signs":          call("ping", ping)[:6] + "%61" + call("ping", ping)[7:],
		"two slashes":                           get("//api/pause"),
		"a slash at the end":                    call("ping/", ping),
		"capitals":                              get("/API/pause"),
		"an escaped slash":                      get("/api%2Fpause"),
		"dot segments":                          get("/static/../api/pause"),
		"duplicate keys":                        call("ping", rpc(`{"worker": "w1", "worker": "w2"}`)),
		"keys in other letters":                 call("ping", rpc(`{"Worker": "w1"}`)),
		"Infinity and NaN":                      call("add_task_batcher", rpc(`{"worker": "w1", "max_batch_size": Infinity, "x": NaN}`)),
		"a lone surrogate":                      call("ping", rpc(`{"worker": "\ud800"}`)),
		"no JSON":                               call("ping", "data=%7B"),
		"no form":                               call("ping", "\x00\xff;;;=&&%"),
		"an empty body":                         call("ping", ""),
		"an unknown method":                     call("drop_tables", ping),
		"another content type":                  body("POST /api/ping HTTP/1.1\r\nContent-Type: application/json\r\n", `{"data": {}}`),
		"two content types":                     call("ping", ping, "Content-Type: text/plain\r\n"),
		"a content encoding":                    call("ping", ping, "Content-Encoding: gzip\r\n"),
		"a family that is not the task's":       call("add_task", rpc(`{"worker": "w1", "task_id": "LoadUsers_1", "family": "ExtractUsers", "status": "DONE"}`)),
		"a chunked body":                        "POST /api/ping HTTP/1.1\r\nHost: gw\r\n" + formType + "Transfer-Encoding: chunked\r\n\r\n4\r\ndata\r\n3\r\n=%7\r\n4\r\nB%7D\r\n0\r\n\r\n",
		"a body over the bound":                 call("ping", ping+strings.Repeat("&x=y", 20_000)),
		"a chunked body over the bound":         "POST /api/ping HTTP/1.1\r\nHost: gw\r\n" + formType + "Transfer-Encoding: chunked\r\n\r\n10000\r\n" + strings.Repeat("x", 0x10000) + "\r\n0\r\n\r\n",
		"PUT on the API":                        body("PUT /api/ping HTTP/1.1\r\n", ping),
		"HEAD on the API":                       "HEAD /api/ping HTTP/1.1\r\nHost: gw\r\n\r\n",
		"HEAD, the health check":                "HEAD / HTTP/1.1\r\nHost: gw\r\n\r\n",
		"DELETE of a page":                      body("DELETE /static/x HTTP/1.1\r\n", ""),
		"OPTIONS":                               "OPTIONS /api/ping HTTP/1.1\r\nHost: gw\r\n\r\n",
		"OPTIONS of the server":                 "OPTIONS * HTTP/1.1\r\nHost: gw\r\n\r\n",
		"a preflight":                           "OPTIONS /api/ping HTTP/1.1\r\nHost: gw\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\r\n",
		"another site":                          get("/api/pause", "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n"),
		"a conditional mutation":                get("/api/pause", "If-None-Match: \"x\"\r\n"),
		"a query that net/url cannot read":      get("/api/task_list?data=%zz;x=1&&=&data"),
		"a path that net/url would escape":      get(`/api/{x}|"y"^` + "\xfc"),
		"an unheard-of method":                  body("BREW /pot HTTP/1.1\r\n", "coffee"),
		"an old protocol":                       "POST /api/ping HTTP/1.0\r\nHost: gw\r\n" + formType + "Content-Length: " + strconv.Itoa(len(ping)) + "\r\n\r\n" + ping,
		"an upgrade that nobody asked to serve": get("/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
		"a hostile Host":                        strings.Replace(get("/api/task_list"), "Host: gw", "Host: a'b(c)", 1),
		"many cookies":                          get("/", "Cookie: a=b\r\nCookie: c=d\r\n"),
		"forwarded addresses":                   get("/", "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nForwarded: for=6.6.6.6\r\n"),
	}
	return out
}

func TestInObserveNothingIsRefusedWhateverIsSent(t *testing.T) {
	t.Parallel()
	replies := map[string]http.HandlerFunc{
		"a plain reply": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Etag", `"x"`)
			_, _ = io.WriteString(w, `{"response": null}`)
		},
		"an error of the upstream": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Add("WWW-Authenticate", `Basic realm="luigi"`)
			w.Header().Add("Set-Cookie", "a=b")
			w.Header().Add("Set-Cookie", "c=d")
			w.WriteHeader(http.StatusUnauthorized)
		},
		"a reply of unknown length": func(w http.ResponseWriter, _ *http.Request) {
			for range 3 {
				_, _ = io.WriteString(w, strings.Repeat("x", 10_000))
				_ = http.NewResponseController(w).Flush()
			}
		},
	}
	for _, profile := range profiles() {
		for replyName, reply := range replies {
			t.Run("profile "+string(profile)+", "+replyName, func(t *testing.T) {
				t.Parallel()
				up := newStandIn(t)
				up.reply = reply
				g := up.observing(t, profile)
				refusals := map[identity.Reason]bool{}
				for name, text := range ugly() {
					without := up.ask(t, up.Listener.Addr().String(), text)
					with := up.ask(t, g.server.Listener.Addr().String(), text)
					if without.Upstream == nil {
						t.Errorf("%s: the stand-in itself saw nothing", name)
					}
					if diff := cmp.Diff(without, with); diff != "" {
						t.Errorf("%s (-without +with):\n%s", name, diff)
					}
					ev := g.event()
					if ev.Decision.Outcome == gateway.Refused || ev.Decision.Outcome == gateway.Unavailable {
						t.Errorf("%s: decided %+v", name, ev.Decision)
					}
					if ev.Decision.Outcome == gateway.WouldRefuse {
						refusals[ev.Decision.Reason] = true
					}
				}
				for _, reason := range []identity.Reason{
					identity.LegacyUnknown, identity.LegacyExpired, identity.AudMismatch, identity.JWKSUnavailable, identity.TokenAbsent,
					identity.MultipleCredentials, identity.SchemeUnsupported, identity.TokenInQuery, identity.ActionDenied,
				} {
					if !refusals[reason] {
						t.Errorf("no request would have been refused as %s: the table proves less than it says", reason)
					}
				}
				if profile == gateway.ProfileLuigi && (!refusals[identity.RPCAmbiguous] || !refusals[identity.RPCUnknown] || !refusals[identity.BodyOversize]) {
					t.Error("no ambiguous, unknown or oversize call would have been refused")
				}
				g.noMoreEvents(t, int64(len(ugly())))
			})
		}
	}
}
