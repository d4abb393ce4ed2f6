package gateway_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi/captures"
	"crossfade/rollout"
)

// workers are the recordings of workers; the accounts in them are known here.
func workers() []string {
	return []string{captures.Success, captures.Failure, captures.Contention}
}

// enforcing starts a gateway in mode enforce, profile luigi.
func (s *standIn) enforcing(t *testing.T, percent rollout.Percent) *stage {
	t.Helper()
	g := newStage(s.URL)
	g.Classifier = gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: 64 << 10}
	g.Rollout = at(percent)
	for user, password := range map[string]string{"svc-billing": "billing-pass", "svc-a": "legacy-pass-a", "svc-b": "legacy-pass-b"} {
		g.keys[password] = verified(identity.Principal{Name: user, Team: "billing", Mapped: true})
	}
	return g.startPlain(t)
}

func TestRecordedWorkersAreForwardedAsTheyWereJudged(t *testing.T) {
	t.Parallel()
	for _, name := range workers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exchanges, err := captures.Load(name)
			if err != nil {
				t.Fatal(err)
			}
			up := newStandIn(t)
			g := up.enforcing(t, 0)
			users := map[string]bool{}
			for _, e := range exchanges {
				up.reply = replay(t, e)
				without := up.ask(t, up.Listener.Addr().String(), recorded(e))
				with := up.ask(t, g.server.Listener.Addr().String(), recorded(e))
				if with.Upstream == nil {
					t.Fatalf("exchange %d never reached the upstream: %d %s", e.Seq, with.Status, with.Body)
				}
				if diff := cmp.Diff(without.Upstream.Body, with.Upstream.Body); diff != "" || with.Upstream.Target != without.Upstream.Target {
					t.Fatalf("exchange %d reached %s with another body:\n%s", e.Seq, with.Upstream.Target, diff)
				}
				if with.Status != without.Status || with.Body != without.Body {
					t.Fatalf("exchange %d: %d %q, without the gateway %d %q", e.Seq, with.Status, with.Body, without.Status, without.Body)
				}
				if _, has := with.Upstream.Header["Authorization"]; has {
					t.Fatalf("exchange %d: the password reached the upstream", e.Seq)
				}
				users[with.Upstream.Header.Get("X-Forwarded-User")] = true
				if ev := g.event(); ev.Decision.Outcome != gateway.Allowed || ev.Call.Method == "" || ev.Shadow.Verdict != "no_token" {
					t.Errorf("exchange %d: %+v, %+v", e.Seq, ev.Decision, ev.Shadow)
				}
			}
			want := map[string][]string{
				captures.Success: {"svc-billing", "svc-etl"}, captures.Failure: {"svc-etl"}, captures.Contention: {"svc-a", "svc-b"},
			}
			if diff := cmp.Diff(want[name], slices.Sorted(maps.Keys(users))); diff != "" {
				t.Errorf("whom the upstream was told of (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRecordedWorkersOfEnforcedRunsStopAtOnce(t *testing.T) {
	t.Parallel()
	for _, name := range workers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exchanges, err := captures.Load(name)
			if err != nil {
				t.Fatal(err)
			}
			up := newStandIn(t)
			g := up.enforcing(t, 100)
			for _, e := range exchanges {
				got := up.ask(t, g.server.Listener.Addr().String(), recorded(e))
				var body map[string]struct{ Reason, Account string }
				if err := json.Unmarshal([]byte(got.Body), &body); err != nil {
					t.Fatal(err)
				}
				_, response := body["response"]
				if got.Status != 200 || response || body["error"].Reason != "legacy_refused" || body["error"].Account == "" || got.Upstream != nil {
					t.Fatalf("exchange %d: %+v", e.Seq, got)
				}
			}
		})
	}
}

func TestUglyRequestsNeverReachTheSchedulerWithoutAnIdentity(t *testing.T) {
	t.Parallel()
	up := newStandIn(t)
	up.reply = func(http.ResponseWriter, *http.Request) {}
	g := up.enforcing(t, 0)
	for name, text := range ugly() {
		got := up.ask(t, g.server.Listener.Addr().String(), text)
		ev := g.event()
		exempt := name == "a preflight" || name == "HEAD, the health check"
		if got.Upstream != nil && !exempt && !ev.Legacy.OK() && !ev.Token.OK() {
			t.Errorf("%s: forwarded as %+v", name, ev.Decision)
		}
		if got.Upstream != nil && ev.Call.Problem != "" && !exempt {
			t.Errorf("%s: forwarded although %s", name, ev.Call.Problem)
		}
		if got.Upstream == nil && got.Header.Get("Crossfade-Reason") == "" {
			t.Errorf("%s: refused without a reason: %d %s", name, got.Status, got.Body)
		}
	}
}

func TestCallsThatCannotBeReadSafelyAreRefusedWhoeverSendsThem(t *testing.T) {
	t.Parallel()
	ping := rpc(`{"worker": "w1"}`)
	for _, tt := range []struct {
		name, target, body string
		headers            []string
		reason             identity.Reason
		status             int
	}{
		{"two data fields", "/api/ping", ping + "&" + ping, nil, identity.RPCAmbiguous, 400},
		{"an unknown method", "/api/drop_tables", ping, nil, identity.RPCUnknown, 400},
		{"a body over the bound", "/api/ping", ping + strings.Repeat("&x=y", 20_000), nil, identity.BodyOversize, 413},
		{"another spelling of the API", "//api/ping", ping, nil, identity.RPCAmbiguous, 400},
		{"an encoded body", "/api/ping", ping, []string{"Content-Encoding: gzip"}, identity.RPCAmbiguous, 400},
		{"a token in the query", "/api/ping?access_token=x", ping, nil, identity.TokenInQuery, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newStandIn(t)
			g := up.enforcing(t, 0)
			head := "POST " + tt.target + " HTTP/1.1\r\nHost: gw\r\nContent-Type: " + form + "\r\nConnection: close\r\n" +
				"Content-Length: " + strconv.Itoa(len(tt.body)) + "\r\n"
			for _, h := range append(tt.headers, "Crossfade-Abort: off", "Authorization: "+basic("svc-etl", "legacy-pass")) {
				head += h + "\r\n"
			}
			got := up.ask(t, g.server.Listener.Addr().String(), head+"\r\n"+tt.body)
			if got.Status != tt.status || got.Header.Get("Crossfade-Reason") != string(tt.reason) || got.Upstream != nil {
				t.Errorf("%d %v %s, upstream %v", got.Status, got.Header, got.Body, got.Upstream)
			}
		})
	}
}
