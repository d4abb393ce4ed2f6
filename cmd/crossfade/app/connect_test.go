package app_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/rollout/rollouttest"
)

// listenOn serves the same port on several addresses of this machine.
func listenOn(t *testing.T, hosts ...string) (port string) {
	t.Helper()
	port = "0"
	for _, host := range hosts {
		l, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ = net.SplitHostPort(l.Addr().String())
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodHead || r.URL.Path != "/" {
				t.Errorf("asked %s %s: nothing but HEAD / is asked", r.Method, r.URL.Path)
			}
			w.Header().Set("Server", "TornadoServer/6.2")
			w.WriteHeader(http.StatusNoContent)
		}))
		_ = server.Listener.Close()
		server.Listener = l
		server.Start()
		t.Cleanup(server.Close)
	}
	return port
}

func TestAnUpstreamThatAnswersAroundTheGatewayIsWarnedAbout(t *testing.T) {
	// 127.0.0.2 stands for an address that others reach; no test dials a real
	// one.
	others := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}
	for name, tc := range map[string]struct {
		listens []string
		host    string
		warned  string // part of the one warning; "" if there is none
	}{
		"bound to one address": {[]string{"127.0.0.1"}, "127.0.0.1", ""},
		"bound to two":         {[]string{"127.0.0.1", "127.0.0.2"}, "127.0.0.1", "also answers on 127.0.0.2:"},
		"named localhost":      {[]string{"127.0.0.1", "127.0.0.2"}, "localhost", "127.0.0.2:"},
	} {
		t.Run(name, func(t *testing.T) {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			c := config.Default()
			c.Upstream.URL = &url.URL{Scheme: "http", Host: net.JoinHostPort(tc.host, listenOn(t, tc.listens...))}
			got := app.ConnectUpstream(t.Context(), c, transport, others)
			if got.Err != "" || !strings.Contains(got.Seen, "204") || !strings.Contains(got.Seen, "TornadoServer/6.2") || got.Took <= 0 {
				t.Errorf("seen: %+v", got)
			}
			warnings := strings.Join(got.Warnings, "\n")
			if (warnings != "") != (tc.warned != "") || !strings.Contains(warnings, tc.warned) {
				t.Errorf("warned %q, want %q", warnings, tc.warned)
			}
		})
	}
}

func TestAnUpstreamOnAnAddressThatOthersReachIsWarnedAbout(t *testing.T) {
	answers := roundTrip(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Status: "200 OK", Body: http.NoBody}, nil
	})
	for _, host := range []string{"192.0.2.7", "luigi.example"} {
		c := config.Default()
		c.Upstream.URL = &url.URL{Scheme: "http", Host: host}
		got := app.ConnectUpstream(t.Context(), c, answers, nil)
		if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], host+" is not a loopback address") {
			t.Errorf("%s: warned %q", host, got.Warnings)
		}
	}
}

func TestAnUpstreamThatIsDownIsSaidToBe(t *testing.T) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	c := config.Default()
	c.Upstream.URL = &url.URL{Scheme: "http", Host: rollouttest.Unused(t), User: url.UserPassword("u", "hidden")}
	got := app.ConnectUpstream(t.Context(), c, transport, nil)
	if !strings.Contains(got.Err, "connection refused") || got.Seen != "" {
		t.Errorf("%+v", got)
	}
	if strings.Contains(got.To+got.Err, "hidden") {
		t.Errorf("the password shows: %+v", got)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
