package console_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"crossfade/gateway/console"
	"crossfade/rollout"
)

func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	const elsewhere = "192.0.2.7:50000"
	lower := ask{method: "PUT", path: "/teams/data-eng/rollout", body: `{"percent":10}`, header: match("*")}
	raise := ask{method: "PUT", path: "/teams/data-eng/rollout", body: `{"percent":90}`, header: match("*")}
	request := ask{method: "POST", path: "/teams/data-eng/request", body: `{"percent":60}`}
	hold := ask{method: "POST", path: "/teams/data-eng/hold"}
	release := ask{method: "DELETE", path: "/teams/data-eng/hold"}
	rollback := ask{method: "POST", path: "/teams/data-eng/rollback", body: `{"reason":"x"}`}
	read := ask{method: "GET", path: "/teams"}
	plan := ask{method: "POST", path: "/plan", body: `{"requests":[]}`}
	retirement := ask{method: "GET", path: "/teams/data-eng/retire"}
	replicas := ask{method: "GET", path: "/replicas"}
	restoration := ask{method: "GET", path: "/restore"}
	ready := ask{method: "GET", path: "/readiness/data-eng"}
	// What nobody can take back is for whoever may raise at once.
	retire := ask{method: "POST", path: "/teams/data-eng/retire", header: match("*")}
	restore := ask{method: "POST", path: "/restore"}
	for _, tt := range []struct {
		who, token string
		// here and far are the statuses of reading, on this machine and elsewhere;
		// changes those of every change but a raise at once, a retirement and a
		// restore, raises of those.
		here, far, changes, raises int
	}{
		{"nobody", "", 200, 401, 401, 401},
		{"somebody with a token that has expired", "expired", 401, 401, 401, 401},
		{"somebody with something that is no token", "nonsense", 401, 401, 401, 401},
		{"somebody whose keys cannot be had", "early", 503, 503, 503, 503},
		{"a worker of the team", "worker", 200, 403, 403, 403},
		{"a viewer", "viewer", 200, 200, 403, 403},
		{"a lead of the team", "lead", 200, 200, 200, 403},
		{"a lead of the team by name", "named", 200, 200, 200, 403},
		{"a lead of another team", "other", 200, 200, 403, 403},
		{"a lead without a team", "homeless", 200, 200, 403, 403},
		{"an operator", "operator", 200, 200, 200, 200},
		{"who has the one-time token", "one-time-secret", 200, 401, 200, 200},
	} {
		check := func(a *api, q ask, from string, want int) {
			t.Helper()
			q.token, q.from = tt.token, from
			if got := a.send(q); got.status != want {
				t.Errorf("%s, %s %s from %q: %v, want %d", tt.who, q.method, q.path, from, got, want)
			}
		}
		for _, q := range []ask{read, plan, retirement, replicas, restoration, ready, {method: "GET", path: "/readiness"}} {
			check(newAPI(t), q, "", tt.here)
			check(newAPI(t, remote), q, elsewhere, tt.far)
			check(newAPI(t, remote), q, "", tt.far)
		}
		for _, q := range []ask{lower, raise, request, hold, release, rollback, retire, restore} {
			want := tt.changes
			if q.body == raise.body || q.path == retire.path || q.path == restore.path {
				want = tt.raises
			}
			a := newAPI(t)
			a.put(rollout.Change{Team: "data-eng", Percent: 50})
			check(a, q, "", want)
			if s, _ := a.table.Lookup("data-eng"); want != 200 && (s.Revision != 1 || len(a.done) > 0) {
				t.Errorf("%s is refused and has changed the team: %+v", tt.who, s)
			}
			if tt.token == "one-time-secret" {
				want = 401
			}
			a = newAPI(t, remote)
			a.put(rollout.Change{Team: "data-eng", Percent: 50})
			check(a, q, elsewhere, want)
		}
	}
}

func TestOnlyWhatComesFromThisMachineIsLocal(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	read := ask{method: "GET", path: "/teams"}
	for _, host := range []string{"localhost", "LOCALHOST:8081", "127.0.0.1", "127.0.0.1:9", "[::1]:8081", "[::1]"} {
		read.host = host
		a.want(read, 200, "")
	}
	for _, host := range []string{"evil.example", "evil.example:8081", "localhost.evil.example", "127.0.0.1.evil.example", "192.0.2.7:8081", "10.0.0.1", "", " "} {
		for _, token := range []string{"", "one-time-secret", "operator"} {
			q := read
			q.token, q.host = token, host
			if host == "" {
				continue // send puts the good one
			}
			a.want(q, 421, "host_unknown")
		}
	}
	for _, header := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"} {
		q := ask{method: "GET", path: "/teams", header: http.Header{header: {"anything"}}}
		a.want(q, 401, "token_absent")
		q.token = "one-time-secret"
		a.want(q, 401, "scheme_unsupported")
		q.token, q.host = "viewer", "console.acme.example"
		a.want(q, 200, "")
	}
	a.want(ask{method: "GET", path: "/teams", from: "192.0.2.7:1"}, 401, "token_absent")
	a.want(ask{method: "GET", path: "/teams", from: "[::1]:1"}, 200, "")
	a.want(ask{method: "GET", path: "/teams", from: "[::ffff:127.0.0.1]:1"}, 200, "")
	a.want(ask{method: "GET", path: "/teams", from: "nonsense"}, 401, "token_absent")
}

func TestAPageOfAnotherSiteIsRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		header       http.Header
		read, change int
	}{
		{"a program", http.Header{}, 200, 200},
		{"a page of this address", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {"http://127.0.0.1:8081"}}, 200, 200},
		{"a page of this address by its origin alone", http.Header{"Origin": {"http://127.0.0.1:8081"}}, 200, 200},
		{"what the user typed", http.Header{"Sec-Fetch-Site": {"none"}}, 200, 403},
		{"a page of another site", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403, 403},
		{"a page of another port", http.Header{"Sec-Fetch-Site": {"same-site"}}, 403, 403},
		{"two headers that differ", http.Header{"Sec-Fetch-Site": {"same-origin", "cross-site"}}, 403, 403},
		{"another origin", http.Header{"Origin": {"https://evil.example"}}, 403, 403},
		{"another port as origin", http.Header{"Origin": {"http://127.0.0.1:8082"}}, 403, 403},
		{"no origin to speak of", http.Header{"Origin": {"null"}}, 403, 403},
		{"two origins", http.Header{"Origin": {"http://127.0.0.1:8081", "https://evil.example"}}, 403, 403},
		{"an extension", http.Header{"Origin": {"moz-extension://127.0.0.1:8081"}}, 403, 403},
		{"a good site with another origin", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {"https://evil.example"}}, 403, 403},
	} {
		a := newAPI(t)
		if got := a.send(ask{method: "GET", path: "/teams", header: tt.header}); got.status != tt.read {
			t.Errorf("%s reads: %v, want %d", tt.name, got, tt.read)
		}
		q := ask{method: "POST", path: "/teams/data-eng/hold", token: "operator", header: tt.header}
		got := a.send(q)
		if got.status != tt.change {
			t.Errorf("%s changes: %v, want %d", tt.name, got, tt.change)
		}
		if got.status == 403 && got.reason != "cross_site" {
			t.Errorf("%s: the reason is %s", tt.name, got.reason)
		}
		if got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s is told that it may read", tt.name)
		}
	}
}

func TestOnlyOneBearerTokenIsACredential(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	for _, tt := range []struct {
		values []string
		status int
		reason string
	}{
		{[]string{"Bearer operator"}, 200, ""},
		{[]string{"bearer  operator "}, 200, ""},
		{[]string{"Bearer"}, 401, "scheme_unsupported"},
		{[]string{""}, 401, "scheme_unsupported"},
		{[]string{"Basic b2lkYzpvcGVyYXRvcg=="}, 401, "scheme_unsupported"},
		{[]string{"operator"}, 401, "scheme_unsupported"},
		{[]string{"Bearer operator", "Bearer operator"}, 401, "multiple_credentials"},
	} {
		got := a.want(ask{method: "GET", path: "/teams", header: http.Header{"Authorization": tt.values}}, tt.status, tt.reason)
		if tt.status == 401 && !strings.HasPrefix(got.header.Get("WWW-Authenticate"), `Bearer realm="`) {
			t.Errorf("%q: the challenge is %q", tt.values, got.header.Get("WWW-Authenticate"))
		}
	}
}

func TestWithoutAOneTimeTokenNothingIsOne(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(o *console.Options) { o.OneTime = (console.Options{}).OneTime })
	for _, token := range []string{"one-time-secret", "[redacted]", " "} {
		q := ask{method: "POST", path: "/teams/data-eng/hold", header: http.Header{"Authorization": {"Bearer " + token}}}
		if got := a.send(q); got.status != 401 {
			t.Errorf("%q: %v", token, got)
		}
	}
}

func TestNoSecretIsSaid(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	var said strings.Builder
	for _, token := range []string{"one-time-secret", "nonsense-secret", "operator"} {
		for _, q := range []ask{
			{method: "POST", path: "/teams/data-eng/hold"},
			{method: "GET", path: "/teams"},
			{method: "PUT", path: "/nothing"},
			{method: "POST", path: "/teams/nobody/hold"},
		} {
			q.token = token
			got := a.send(q)
			fmt.Fprint(&said, got.body, got.header)
		}
	}
	fmt.Fprint(&said, a.log.String(), a.done, fmt.Sprintf("%+v", console.Options{OneTime: oneTime}))
	if strings.Contains(said.String(), "secret") {
		t.Errorf("a secret shows:\n%s", said.String())
	}
}
