package gateway_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/rollout"
)

func refusals() gateway.Refusals {
	return gateway.Refusals{
		Help:  gateway.Help{URL: "https://wiki.acme.dev/oidc", Contact: "#platform"},
		Realm: "luigi", Basic: true, Bearer: true, Abort: true, Metadata: true,
	}
}

// refused is the event of a refused call by a verified worker of a team at 50
// percent.
func refused(reason identity.Reason, outcome gateway.Outcome) *gateway.Event {
	owner := identity.Principal{Name: "svc-etl", Team: "data-eng", Mapped: true}
	return &gateway.Event{
		TraceID:     "4bf92f3577b34da6a3ce929d0e0e4736",
		Mode:        gateway.Enforce,
		Presented:   gateway.PresentedSchemes{Legacy: identity.SchemeBasic},
		Legacy:      &identity.Authentication{Principal: owner, Detail: "expected audience api://luigi"},
		Principal:   owner,
		Enforcement: rollout.Enforcement{Known: true, Enforced: true, Percent: 50},
		Decision:    gateway.Decision{Outcome: outcome, Reason: reason, Control: gateway.SideLegacy},
	}
}

func outcomeFor(info identity.ReasonInfo) gateway.Outcome {
	if info.Indeterminate {
		return gateway.Unavailable
	}
	return gateway.Refused
}

// written is a reply as it stands on the wire, headers in order of name.
func written(w *httptest.ResponseRecorder) string {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP %d\n", w.Code)
	var names []string
	for name := range w.Header() {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range w.Header()[name] {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	return b.String() + "\n" + w.Body.String()
}

func TestEachReasonIsToldInOneWay(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, info := range identity.Reasons() {
		for _, abortable := range []bool{false, true} {
			ev := refused(info.Reason, outcomeFor(info))
			r := httptest.NewRequest(http.MethodGet, "http://gw.acme.dev/api/task_list", nil)
			kind := "honest"
			if abortable {
				ev.Call = gateway.Call{RPC: true, Method: "add_task", Abortable: true}
				r = httptest.NewRequest(http.MethodPost, "http://gw.acme.dev/api/add_task", nil)
				kind = "to a worker"
			}
			w := httptest.NewRecorder()
			refusals().Write(w, r, ev)
			fmt.Fprintf(&got, "=== %s, %s\n%s\n", info.Reason, kind, written(w))
		}
	}
	sameAsGolden(t, "refusals.golden", got.String())
}

// statuses as the list of reasons has them; the rest is 401.
func TestTheStatusOfEachReasonIsThatOfTheList(t *testing.T) {
	t.Parallel()
	want := map[identity.Reason]int{}
	for _, info := range identity.Reasons() {
		switch {
		case info.Indeterminate:
			want[info.Reason] = 503
		case info.Stage == identity.StageAuthorisation:
			want[info.Reason] = 403
		default:
			want[info.Reason] = 401
		}
	}
	for status, reasons := range map[int][]identity.Reason{
		400: {identity.RPCAmbiguous, identity.RPCUnknown, identity.MultipleCredentials, identity.TokenInQuery, identity.OriginalAmbiguous},
		403: {identity.TaskUnknown, identity.WorkerMismatch, identity.CrossSite, identity.ProxyUntrusted},
		413: {identity.BodyOversize},
		429: {identity.Throttled},
	} {
		for _, r := range reasons {
			want[r] = status
		}
	}
	for _, info := range identity.Reasons() {
		t.Run(string(info.Reason), func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			refusals().Write(w, httptest.NewRequest(http.MethodGet, "/", nil), refused(info.Reason, outcomeFor(info)))
			if w.Code != want[info.Reason] {
				t.Errorf("status %d, want %d", w.Code, want[info.Reason])
			}
			if after := w.Header().Get("Retry-After"); (after != "") != (w.Code == 503 || w.Code == 429) {
				t.Errorf("status %d with Retry-After %q", w.Code, after)
			}
			if challenges := w.Header().Values("WWW-Authenticate"); (len(challenges) > 0) != (w.Code == 401) {
				t.Errorf("status %d with challenges %q", w.Code, challenges)
			}
			var body struct {
				Status              int
				Reason, Message, Do string
				TraceID             string `json:"trace_id"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatal(err)
			}
			if body.Status != w.Code || body.Reason != w.Header().Get("Crossfade-Reason") || body.Reason == "" {
				t.Errorf("body %+v does not say what the headers say", body)
			}
			if body.Message == "" || !strings.Contains(body.Do, "#platform") || body.TraceID == "" {
				t.Errorf("body %+v does not help", body)
			}
		})
	}
}

func TestWhatWasUnavailableIsNeverToldAsARefusal(t *testing.T) {
	t.Parallel()
	for _, reason := range []identity.Reason{"", "no_such_reason", identity.Expired} {
		ev := refused(reason, gateway.Unavailable)
		ev.Call.Abortable = true
		w := httptest.NewRecorder()
		refusals().Write(w, httptest.NewRequest(http.MethodPost, "/api/add_task", nil), ev)
		if w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("%q: status %d, headers %v; want a 503 that invites to try again", reason, w.Code, w.Header())
		}
	}
}

func TestAWorkerIsStoppedAtOnceByWhatWillNotChangeAndByNothingElse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		reason identity.Reason
		out    gateway.Outcome
		abort  string // the client's header
		off    bool   // the configuration's switch
		want   int
	}{
		{"a refusal is a reply without a response", identity.LegacyRefused, gateway.Refused, "", false, 200},
		{"so is a missing right", identity.ActionDenied, gateway.Refused, "", false, 200},
		{"so is a call that can be read in two ways", identity.RPCAmbiguous, gateway.Refused, "", false, 200},
		{"the client may ask for honest codes", identity.LegacyRefused, gateway.Refused, "off", false, 401},
		{"in any case", identity.LegacyRefused, gateway.Refused, "OFF", false, 401},
		{"other values of the header mean nothing", identity.LegacyRefused, gateway.Refused, "on", false, 200},
		{"the configuration may turn it off", identity.LegacyRefused, gateway.Refused, "", true, 401},
		{"what cannot be judged is worth another try", identity.JWKSUnavailable, gateway.Unavailable, "", false, 503},
		{"so are too many attempts", identity.Throttled, gateway.Refused, "", false, 429},
		{"so is a gateway that has no time to verify passwords", identity.Throttled, gateway.Unavailable, "", false, 429},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ev := refused(tt.reason, tt.out)
			ev.Call = gateway.Call{RPC: true, Method: "add_task", Abortable: true}
			f := refusals()
			f.Abort = !tt.off
			r := httptest.NewRequest(http.MethodPost, "/api/add_task", nil)
			if tt.abort != "" {
				r.Header.Set("Crossfade-Abort", tt.abort)
			}
			w := httptest.NewRecorder()
			f.Write(w, r, ev)
			if w.Code != tt.want {
				t.Errorf("status %d, want %d", w.Code, tt.want)
			}
			if got := w.Header().Get("Crossfade-Reason"); got != string(tt.reason) {
				t.Errorf("Crossfade-Reason %q, want %q", got, tt.reason)
			}
			var body map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatal(err)
			}
			if _, has := body["response"]; has {
				t.Error("the body has a response: a worker would take the refusal for a success")
			}
			if _, has := body["error"]; has != (tt.want == 200) {
				t.Errorf("body %v", body)
			}
		})
	}
}

func TestTheRefusalOfAnEnforcedRunIsTheOneOfTheDesign(t *testing.T) {
	t.Parallel()
	ev := refused(identity.LegacyRefused, gateway.Refused)
	ev.Call = gateway.Call{RPC: true, Abortable: true}
	w := httptest.NewRecorder()
	refusals().Write(w, httptest.NewRequest(http.MethodPost, "/api/add_task", nil), ev)
	var got, want any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{"error": {"reason": "legacy_refused", "team": "data-eng", "account": "svc-etl",
		"message": "This run must use OIDC: data-eng is at 50%. The password of svc-etl was correct.",
		"do": "Start the worker through `+"`crossfade agent`"+` (https://wiki.acme.dev/oidc), or ask #platform.",
		"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}}`), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheSecretOfEachSchemeIsCalledByItsName(t *testing.T) {
	t.Parallel()
	for scheme, word := range map[identity.Scheme]string{
		identity.SchemeBasic:        "The password of svc-etl was correct.",
		identity.SchemeAPIKey:       "The key of svc-etl was correct.",
		identity.SchemeStaticBearer: "The static token of svc-etl was correct.",
	} {
		for _, reason := range []identity.Reason{identity.LegacyRefused, identity.LegacyRetired} {
			ev := refused(reason, gateway.Refused)
			ev.Presented.Legacy = scheme
			w := httptest.NewRecorder()
			refusals().Write(w, httptest.NewRequest(http.MethodGet, "/", nil), ev)
			if !strings.Contains(w.Body.String(), word) {
				t.Errorf("%s, %s: %s does not say %q", scheme, reason, w.Body, word)
			}
		}
	}
}

func TestNobodyLearnsAnythingBeforeTheSecretWasRight(t *testing.T) {
	t.Parallel()
	reply := func(reason identity.Reason) string {
		w := httptest.NewRecorder()
		refusals().Write(w, httptest.NewRequest(http.MethodGet, "/", nil), refused(reason, gateway.Refused))
		return written(w)
	}
	unknown := reply(identity.LegacyUnknown)
	for _, reason := range []identity.Reason{identity.LegacyExpired, identity.LegacyRevoked} {
		if diff := cmp.Diff(unknown, reply(reason)); diff != "" {
			t.Errorf("%s is told in another way than an unknown user:\n%s", reason, diff)
		}
	}
	for _, info := range identity.Reasons() {
		got := reply(info.Reason)
		if strings.Contains(got, "api://luigi") {
			t.Errorf("%s tells what was expected:\n%s", info.Reason, got)
		}
		named := strings.Contains(got, "svc-etl") || strings.Contains(got, "data-eng")
		if may := info.Reason == identity.LegacyRefused || info.Reason == identity.LegacyRetired; named != may {
			t.Errorf("%s names the account: %v, may: %v\n%s", info.Reason, named, may, got)
		}
	}
}

func TestChallengesOfferWhatIsAccepted(t *testing.T) {
	t.Parallel()
	const metadata = `, resource_metadata="http://gw.acme.dev/.well-known/oauth-protected-resource"`
	tests := []struct {
		name   string
		reason identity.Reason
		change func(*gateway.Refusals)
		want   []string
	}{
		{"nothing was sent: every scheme, and no error (RFC 6750 section 3)", identity.TokenAbsent, nil, []string{`Bearer realm="luigi"` + metadata, `Basic realm="luigi", charset="UTF-8"`}},
		{"an unsupported scheme: likewise", identity.SchemeUnsupported, nil, []string{`Bearer realm="luigi"` + metadata, `Basic realm="luigi", charset="UTF-8"`}},
		{"a wrong password: no word about tokens", identity.LegacyUnknown, nil, []string{`Bearer realm="luigi"` + metadata, `Basic realm="luigi", charset="UTF-8"`}},
		{"a bad token", identity.AudMismatch, nil, []string{`Bearer realm="luigi", error="invalid_token", error_description="aud_mismatch"` + metadata, `Basic realm="luigi", charset="UTF-8"`}},
		{"a token that is too large", identity.TokenOversize, nil, []string{`Bearer realm="luigi", error="invalid_token", error_description="token_oversize"` + metadata, `Basic realm="luigi", charset="UTF-8"`}},
		{"a run that must use OIDC is offered nothing else", identity.LegacyRefused, nil, []string{`Bearer realm="luigi"` + metadata}},
		{"not even where no bearer is configured", identity.LegacyRetired, func(f *gateway.Refusals) { f.Bearer = false }, []string{`Bearer realm="luigi"` + metadata}},
		{"without metadata", identity.TokenAbsent, func(f *gateway.Refusals) { f.Metadata, f.Basic = false, false }, []string{`Bearer realm="luigi"`}},
		{"without OIDC", identity.TokenAbsent, func(f *gateway.Refusals) { f.Bearer = false }, []string{`Basic realm="luigi", charset="UTF-8"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := refusals()
			if tt.change != nil {
				tt.change(&f)
			}
			w := httptest.NewRecorder()
			f.Write(w, httptest.NewRequest(http.MethodGet, "http://gw.acme.dev/", nil), refused(tt.reason, gateway.Refused))
			if diff := cmp.Diff(tt.want, w.Header().Values("WWW-Authenticate")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAHostileHostStandsInNoChallenge(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"", `a", error="x`, "a b", "a/b", "a\r\nX: y", "user@host", "höst"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		refusals().Write(w, r, refused(identity.TokenAbsent, gateway.Refused))
		if got := w.Header().Get("WWW-Authenticate"); got != `Bearer realm="luigi"` {
			t.Errorf("host %q: challenge %q", host, got)
		}
		w = httptest.NewRecorder()
		gateway.Metadata{}.ServeHTTP(w, r)
		if w.Code != http.StatusBadRequest || strings.Contains(w.Body.String(), "error=") {
			t.Errorf("host %q: metadata %d %s", host, w.Code, w.Body)
		}
	}
}

func TestTheMetadataDocumentTellsWhereToGetAToken(t *testing.T) {
	t.Parallel()
	doc := gateway.Metadata{AuthorizationServers: []string{"https://acme.okta.com/oauth2/luigi"}, Documentation: "https://wiki.acme.dev/oidc"}
	for _, tt := range []struct {
		name, host, resource string
		tls                  bool
	}{
		{"over plain HTTP", "gw.acme.dev:8082", "http://gw.acme.dev:8082", false},
		{"over TLS", "gw.acme.dev", "https://gw.acme.dev", true},
		{"by an address of IPv6", "[::1]:8082", "http://[::1]:8082", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodGet, gateway.MetadataPath, nil)
			r.Host = tt.host
			if tt.tls {
				r.TLS = &tls.ConnectionState{}
			}
			w := httptest.NewRecorder()
			doc.ServeHTTP(w, r)
			want := `{"resource":"` + tt.resource + `","authorization_servers":["https://acme.okta.com/oauth2/luigi"],` +
				`"bearer_methods_supported":["header"],"resource_documentation":"https://wiki.acme.dev/oidc"}` + "\n"
			if w.Code != 200 || w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%d %s %s\nwant %s", w.Code, w.Header(), w.Body, want)
			}
			// It names the host that this client wrote: no cache may hand it to others.
			if got := w.Header().Get("Cache-Control"); !strings.Contains(got, "private") {
				t.Errorf("Cache-Control: %s", got)
			}
		})
	}
}

func TestARefusedHEADHasHeadersAndNoBody(t *testing.T) {
	t.Parallel()
	get, head := httptest.NewRecorder(), httptest.NewRecorder()
	refusals().Write(get, httptest.NewRequest(http.MethodGet, "/x", nil), refused(identity.TokenAbsent, gateway.Refused))
	refusals().Write(head, httptest.NewRequest(http.MethodHead, "/x", nil), refused(identity.TokenAbsent, gateway.Refused))
	if head.Body.Len() != 0 || get.Body.Len() == 0 {
		t.Errorf("HEAD got %d bytes, GET %d", head.Body.Len(), get.Body.Len())
	}
	if diff := cmp.Diff(get.Header(), head.Header()); diff != "" {
		t.Errorf("the headers of HEAD differ from those of GET:\n%s", diff)
	}
}

func TestHelpIsAsMuchAsIsConfigured(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		help     gateway.Help
		do, kind string
	}{
		{gateway.Help{}, "Request a fresh token and refresh it before it expires.", "about:blank"},
		{gateway.Help{Contact: "#platform"}, "Request a fresh token and refresh it before it expires, or ask #platform.", "about:blank"},
		{gateway.Help{URL: "https://w/x"}, "Request a fresh token and refresh it before it expires (https://w/x).", "https://w/x#expired"},
	} {
		w := httptest.NewRecorder()
		gateway.Refusals{Help: tt.help}.Write(w, httptest.NewRequest(http.MethodGet, "/", nil), refused(identity.Expired, gateway.Refused))
		var body struct{ Do, Type string }
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		if body.Do != tt.do || body.Type != tt.kind {
			t.Errorf("%+v: %+v", tt.help, body)
		}
	}
}
