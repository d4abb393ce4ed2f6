package gateway_test

import (
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway"
)

const address = "127.0.0.1"

func TestNoClientSetsAnIdentityHeaderInAnySpelling(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	long := "X-" + strings.Repeat("Very-", 20) + "Long-Login"
	s.proxy.Headers.User = append(s.proxy.Headers.User, "X-Webtool-Login", long)
	s.start(t)
	names := []string{
		"X-Forwarded-User", "x-forwarded-user", "X-FORWARDED-USER", "X_Forwarded_User", "x_forwarded-user", "X-Forwarded_User",
		"X-Forwarded-Email", "X_Forwarded_Email", "X-Forwarded-Groups", "X_FORWARDED_GROUPS",
		"X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token", "X_Forwarded_Access_Token",
		"X-Auth-Request-User", "X_Auth_Request_User", "X-Auth-Request-Email", "X-Auth-Request-Groups",
		"X-Auth-Request-Preferred-Username", "X-Auth-Request-Access-Token",
		"Remote-User", "Remote_User", "REMOTE_USER", "Remote-Groups", "X-Remote-User", "X-Remote-Group", "X-WebAuth-User",
		"X-Webtool-Login", "X_Webtool_Login", long, strings.ReplaceAll(long, "-", "_"),
		"X_API_KEY", "Crossfade_Token", "Crossfade-Reason", "Crossfade_Abort", "Crossfade-Run", "Crossfade_Run",
		"Proxy-Authorization",
		"X_Forwarded_For", "X-Forwarded_Host", "x_forwarded_proto", "Forwarded",
		"X-Real-IP", "X_Real_IP", "X-Client-IP", "X_Cluster_Client_IP", "True-Client-IP",
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			_, _ = exchange(t, s.server.Listener.Addr().String(),
				"GET / HTTP/1.1\r\nHost: %HOST%\r\nAuthorization: Bearer "+goodToken+"\r\n"+name+": mallory\r\nConnection: close\r\n\r\n")
			for header, values := range up.last(t).header {
				if slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, "mallory") }) {
					t.Errorf("the upstream saw %s: %s", header, values)
				}
			}
		})
	}
}

func TestTheUpstreamLearnsWhoAsksFromTheGatewayAlone(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		headers []string
		want    map[string]string // "" for absent
	}{
		{
			"a token",
			[]string{"Authorization", "Bearer " + goodToken},
			map[string]string{
				"X-Forwarded-User": "svc-etl", "X-Auth-Request-User": "svc-etl",
				"X-Forwarded-Email": "svc-etl@acme.dev", "X-Auth-Request-Email": "svc-etl@acme.dev",
				"X-Forwarded-Groups": "data,luigi-operators", "X-Auth-Request-Groups": "data,luigi-operators",
				"Authorization": "",
			},
		},
		{
			"a password",
			[]string{"Authorization", basic("svc-etl", "legacy-pass")},
			map[string]string{"X-Forwarded-User": "svc-etl", "X-Forwarded-Email": "", "X-Forwarded-Groups": "", "Authorization": ""},
		},
		{
			"a password with the companion of another account: the password governs",
			[]string{"Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", peerToken},
			map[string]string{"X-Forwarded-User": "svc-etl", "X-Forwarded-Email": "", "X-Forwarded-Groups": "", "Authorization": "", "Crossfade-Token": ""},
		},
		{
			"an API key",
			[]string{"X-Api-Key", "k1"},
			map[string]string{"X-Forwarded-User": "svc-etl", "X-Api-Key": "", "Authorization": ""},
		},
		{
			"Connection names our header",
			[]string{"Authorization", "Bearer " + goodToken, "Connection", "X-Forwarded-User, x-forwarded-groups"},
			map[string]string{"X-Forwarded-User": "svc-etl", "X-Forwarded-Groups": "data,luigi-operators"},
		},
		{
			"Connection names the credential",
			[]string{"Authorization", "Bearer " + goodToken, "Connection", "Authorization"},
			map[string]string{"X-Forwarded-User": "svc-etl", "Authorization": ""},
		},
		{
			"Connection names forwarded addresses",
			[]string{"Authorization", "Bearer " + goodToken, "Connection", "X-Forwarded-For", "X-Forwarded-For", "6.6.6.6"},
			map[string]string{"X-Forwarded-User": "svc-etl", "X-Forwarded-For": address},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, nil)
			s := newStage(up.URL)
			s.tokens.remembered = map[string]bool{peerToken: true} // a companion that is known at once
			s.start(t)
			if resp, body := s.do(t, http.MethodGet, "/x", "", tt.headers...); resp.StatusCode != 200 {
				t.Fatalf("status %d: %s", resp.StatusCode, body)
			}
			got := up.last(t).header
			for name, want := range tt.want {
				if strings.Join(got.Values(name), "|") != want {
					t.Errorf("%s: %q, want %q", name, got.Values(name), want)
				}
			}
		})
	}
}

func TestGroupsThatCouldPassForOthersAreLeftOut(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.tokens.judgements["odd.token.sig"] = token(etl(), "data", "a,admin", "b\r\nX-Forwarded-User: root", "", "c\x00d", "Ünïcode", "last")
	named := etl()
	named.Name = "evil\r\nX-Admin: yes"
	s.tokens.judgements["name.token.sig"] = token(named)
	s.start(t)
	s.do(t, http.MethodGet, "/", "", "Authorization", "Bearer odd.token.sig")
	got := up.last(t).header
	if groups := got.Values("X-Forwarded-Groups"); len(groups) != 1 || groups[0] != "data,Ünïcode,last" {
		t.Errorf("groups %q", groups)
	}
	if user := got.Values("X-Forwarded-User"); len(user) != 1 || user[0] != "svc-etl" {
		t.Errorf("user %q", user)
	}
	resp, _ := s.do(t, http.MethodGet, "/", "", "Authorization", "Bearer name.token.sig")
	if got := up.last(t).header; resp.StatusCode != 200 || len(got["X-Forwarded-User"]) != 0 || len(got["X-Admin"]) != 0 {
		t.Errorf("a name that no header can carry: status %d, %v", resp.StatusCode, got)
	}
}

func TestExemptRequestsCarryNoIdentityAndNoCredential(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Classifier.ExemptPaths = []string{"/health"}
	s.start(t)
	s.do(t, http.MethodGet, "/health", "", "Authorization", basic("svc-etl", "legacy-pass"), "X_Forwarded_User", "root")
	for _, name := range []string{"Authorization", "X-Forwarded-User", "X_forwarded_user", "X-Auth-Request-User"} {
		if v := up.last(t).header[name]; len(v) > 0 {
			t.Errorf("%s: %q", name, v)
		}
	}
	if ev := s.event(); ev.Decision.Outcome != gateway.Exempt || ev.Principal.Name != "" || s.tokens.asked.Load() != 0 {
		t.Errorf("event %+v", ev)
	}
}

func TestForwardedAddressesAreBelievedFromTrustedProxiesOnly(t *testing.T) {
	t.Parallel()
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	chain := append([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}, loopback...)
	tests := []struct {
		name    string
		trusted []netip.Prefix
		sent    []string
		seen    string // X-Forwarded-For at the upstream
		client  string // the event's
	}{
		{"nobody is trusted by default", nil, []string{"6.6.6.6"}, address, address},
		{"a stranger is not trusted", chain[:1], []string{"6.6.6.6"}, address, address},
		{"a trusted proxy is", loopback, []string{"6.6.6.6"}, "6.6.6.6, " + address, "6.6.6.6"},
		{"but only for the hop that it saw", loopback, []string{"1.1.1.1, 6.6.6.6"}, "1.1.1.1, 6.6.6.6, " + address, "6.6.6.6"},
		{"a chain of trusted proxies is followed", chain, []string{"1.1.1.1, 6.6.6.6, 10.0.0.7"}, "1.1.1.1, 6.6.6.6, 10.0.0.7, " + address, "6.6.6.6"},
		{"over several headers", chain, []string{"6.6.6.6", "10.0.0.7"}, "6.6.6.6, 10.0.0.7, " + address, "6.6.6.6"},
		{"through IPv6", chain, []string{"2001:db9::1, 2001:db8::1"}, "2001:db9::1, 2001:db8::1, " + address, "2001:db9::1"},
		{"IPv4 in the clothes of IPv6 is IPv4", chain, []string{"6.6.6.6, ::ffff:10.0.0.7"}, "6.6.6.6, ::ffff:10.0.0.7, " + address, "6.6.6.6"},
		{"a word that is no address ends the chain", chain, []string{"6.6.6.6, unknown, 10.0.0.7"}, "6.6.6.6, unknown, 10.0.0.7, " + address, "10.0.0.7"},
		{"nothing is forwarded", loopback, nil, address, address},
		{"all hops are trusted", chain, []string{"10.0.0.9"}, "10.0.0.9, " + address, "10.0.0.9"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, nil)
			s := newStage(up.URL)
			s.proxy.TrustedProxies = tt.trusted
			s.start(t)
			headers := []string{
				"Authorization", "Bearer " + goodToken, "Forwarded", "for=6.6.6.6",
				"X-Forwarded-Host", "shop.example", "X-Forwarded-Proto", "https", "X-Real-Ip", "6.6.6.6", "X_Real_Ip", "6.6.6.6",
			}
			for _, v := range tt.sent {
				headers = append(headers, "X-Forwarded-For", v)
			}
			s.do(t, http.MethodGet, "/", "", headers...)
			got := up.last(t)
			if v := strings.Join(got.header["X-Forwarded-For"], "|"); v != tt.seen {
				t.Errorf("X-Forwarded-For %q, want %q", v, tt.seen)
			}
			want := http.Header{"X-Forwarded-Host": {got.host}, "X-Forwarded-Proto": {"http"}}
			if len(tt.trusted) > 0 && tt.trusted[len(tt.trusted)-1].Contains(netip.MustParseAddr(address)) {
				want = http.Header{"X-Forwarded-Host": {"shop.example"}, "X-Forwarded-Proto": {"https"}, "X-Real-Ip": {"6.6.6.6"}}
			}
			for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "X_real_ip", "Forwarded"} {
				if diff := cmp.Diff(want[name], got.header[name]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
			if ev := s.event(); ev.Client != netip.MustParseAddr(tt.client) {
				t.Errorf("client %s, want %s", ev.Client, tt.client)
			}
		})
	}
}

func TestInObserveEverythingPassesAsItCame(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Mode = gateway.Observe
	s.start(t)
	sent := http.Header{
		"Authorization":    {basic("svc-etl", "wrong")},
		"X-Api-Key":        {"k1", "k2"},
		"X-Forwarded-User": {"mallory"},
		"X_forwarded_user": {"mallory"},
		"X-Forwarded-For":  {"6.6.6.6", "7.7.7.7"},
		"X-Forwarded-Host": {"other.example"},
		"X-Forwarded-Proto": {
			"https",
		},
		"Forwarded":       {"for=6.6.6.6"},
		"Remote-User":     {"mallory"},
		"Cookie":          {"a=b", "c=d"},
		"X-Empty":         {""},
		"Crossfade-Abort": {"off"},
		"User-Agent":      {""},
		"Accept-Encoding": {"br;q=1.0"},
		"Te":              {"trailers"},
		"Content-Length":  {"4"},
	}
	headers := []string{"Crossfade-Token", goodToken, "Connection", "X-Hop", "X-Hop", "gone", "Keep-Alive", "timeout=5", "Proxy-Authorization", "x"}
	for name, values := range sent {
		for _, v := range values {
			if name != "Content-Length" {
				headers = append(headers, name, v)
			}
		}
	}
	s.do(t, http.MethodPost, "/x?b=1&a=%zz;c", "body", headers...)
	got := up.last(t)
	delete(sent, "User-Agent") // an empty one is none
	if diff := cmp.Diff(sent, got.header); diff != "" {
		t.Errorf("headers (-sent +seen):\n%s", diff)
	}
	if got.host != s.server.Listener.Addr().String() || got.body != "body" || got.target != "/x?b=1&a=%zz;c" {
		t.Errorf("host %q, target %q, body %q", got.host, got.target, got.body)
	}
}

func TestForwardedHeadersThatConnectionNamesAreHopByHopInObserveToo(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Mode = gateway.Observe
	s.start(t)
	s.do(t, http.MethodGet, "/", "", "Connection", "close, x-forwarded-for", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https")
	got := up.last(t).header
	if len(got["X-Forwarded-For"]) != 0 || got.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("headers %v", got)
	}
}

func TestSpoofedTrailersAreRemoved(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, declared string
		mode           gateway.Mode
		want           http.Header
	}{
		{"declared trailers", "X-Forwarded-User, X_Forwarded_User, Checksum, Remote-User", gateway.Enforce, http.Header{"Checksum": {"abc"}}},
		{"identity trailers hidden behind one that was declared", "Checksum", gateway.Enforce, http.Header{"Checksum": {"abc"}}},
		{"trailers that nobody declared", "", gateway.Enforce, nil},
		{"mode observe", "X-Forwarded-User, Checksum", gateway.Observe, http.Header{"Checksum": {"abc"}, "X-Forwarded-User": {"root"}, "X_forwarded_user": {"root"}, "Remote-User": {"root"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, nil)
			s := newStage(up.URL)
			s.Mode = tt.mode
			s.start(t)
			text := "POST /x HTTP/1.1\r\nHost: %HOST%\r\nAuthorization: Bearer " + goodToken + "\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
			if tt.declared != "" {
				text += "Trailer: " + tt.declared + "\r\n"
			}
			text += "\r\n4\r\nbody\r\n0\r\nX-Forwarded-User: root\r\nX_Forwarded_User: root\r\nRemote-User: root\r\nChecksum: abc\r\n\r\n"
			if resp, body := exchange(t, s.server.Listener.Addr().String(), text); resp.StatusCode != 200 {
				t.Fatalf("status %d: %s", resp.StatusCode, body)
			}
			got := up.last(t)
			if diff := cmp.Diff(tt.want, got.trailer); diff != "" {
				t.Errorf("trailers (-want +got):\n%s", diff)
			}
			if got.body != "body" {
				t.Errorf("body %q", got.body)
			}
		})
	}
}

func TestAnUpstreamThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	for _, s := range []*stage{newStage("ftp://host"), newStage("/path"), newStage("http://")} {
		if _, err := gateway.NewProxy(s.proxy); err == nil || !strings.Contains(err.Error(), "for instance http://127.0.0.1:8083") {
			t.Errorf("upstream %q: %v", s.proxy.Upstream, err)
		}
	}
	if _, err := gateway.NewProxy(gateway.ProxyOptions{}); err == nil {
		t.Error("no upstream at all was accepted")
	}
	if _, err := gateway.New(gateway.Options{}); err == nil {
		t.Error("a handler of nothing was accepted")
	}
}

func TestThePathOfTheUpstreamStandsBeforeTheRequests(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	for prefix, want := range map[string]string{"": "/a%2Fb/c?q", "/": "/a%2Fb/c?q", "/luigi": "/luigi/a%2Fb/c?q", "/l%2Fu/": "/l%2Fu/a%2Fb/c?q"} {
		s := newStage(up.URL + prefix).start(t)
		resp, _ := s.do(t, http.MethodGet, "/a%2Fb/c?q", "", "Authorization", "Bearer "+goodToken)
		if got := up.last(t).target; resp.StatusCode != 200 || got != want {
			t.Errorf("prefix %q: %d %s, want %s", prefix, resp.StatusCode, got, want)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
}
