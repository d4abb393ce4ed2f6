package app_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"crossfade/cmd/crossfade/app"
	"crossfade/rollout"
)

// administered gives the site an admin API: svc-ml operates, svc-etl and
// svc-search lead their teams.
func (s *site) administered() {
	s.t.Helper()
	s.configure("admin", "{ address: 127.0.0.1:0, leads: { principals: [svc-etl, svc-search] }, operators: { principals: [svc-ml] } }")
}

// api asks the admin API; the body is JSON.
func (g *gateway) api(method, path, token, body string, header ...string) reply {
	q := request{method: method, path: "/api/v1" + path, bearer: token, body: body, header: http.Header{}}
	if body != "" {
		q.header.Set("Content-Type", "application/json")
	} else {
		q.header["Content-Type"] = nil // no form
	}
	for i := 0; i < len(header); i += 2 {
		q.header.Set(header[i], header[i+1])
	}
	return g.site.send("http://"+g.AdminAddr(), q)
}

// answers asks and wants a status.
func (g *gateway) answers(status int, method, path, token, body string, header ...string) reply {
	g.site.t.Helper()
	got := g.api(method, path, token, body, header...)
	if got.status != status {
		g.site.t.Errorf("%s %s: %v, want %d", method, path, got, status)
	}
	return got
}

func TestLeadsAndOperatorsChangeRolloutsOverTheAdminAPI(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.administered()
	s.rollouts()
	s.lead("data-eng", "percent: 0\nreason: not yet\n")
	s.configure("audit", "{ file: audit.jsonl, required: true }")
	s.configure("readiness", "{ census_days: 1 }")
	var notices lockedBuffer
	store := inProcess(t)
	longWatched(t, store, "data-eng")
	g := s.start(func(o *app.Options) { o.Notices, o.Store = &notices, store }).loaded()
	lead, other, operator := s.token("svc-etl", audience), s.token("svc-search", audience), s.token("svc-ml", audience)

	s.eventually("the file is known", func() bool {
		return strings.Contains(g.answers(200, "GET", "/teams/data-eng", "", "").body, `"management":"managed","file":"rollout.d/data-eng.yaml"`)
	})
	for _, token := range []string{"", other, s.token("svc-billing", audience), s.token("svc-etl", "another")} {
		if got := g.api("POST", "/teams/data-eng/hold", token, `{}`); got.status != 401 && got.status != 403 {
			t.Errorf("somebody else: %v", got)
		}
	}
	got := g.answers(202, "POST", "/teams/data-eng/request", lead, `{"percent":50,"reason":"week 1"}`)
	if !strings.Contains(got.body, `"outcome":"pending"`) {
		t.Errorf("without evidence: %v", got)
	}
	g.answers(403, "PUT", "/teams/data-eng/rollout", lead, `{"percent":50}`, "If-Match", "*")
	g.runs(30, "svc-etl", etl(request{companion: s.token("svc-etl", audience)}))
	g.reaches("data-eng", 50) // the replica with the lease follows the request
	entries, err := store.History(t.Context(), "data-eng", 1)
	if err != nil || entries[0].Actor != "svc-etl" || !entries[0].Verified || entries[0].Source != "api" || entries[0].Reason != "week 1" {
		t.Errorf("history: %+v, %v", entries, err)
	}

	shown := g.answers(200, "GET", "/teams/data-eng/rollout", "", "")
	tag := shown.header.Get("ETag")
	g.answers(200, "PUT", "/teams/data-eng/rollout", lead, `{"percent":20}`, "If-Match", tag)
	g.answers(412, "PUT", "/teams/data-eng/rollout", operator, `{"percent":80}`, "If-Match", tag)
	if state, _ := g.Table().Lookup("data-eng"); state.Percent != 20 {
		t.Errorf("the replica that was asked is at %s%%", state.Percent)
	}
	g.answers(200, "DELETE", "/teams/data-eng/hold", operator, "")
	plan := g.answers(200, "POST", "/plan", "", `{"requests":[{"team":"data-eng","percent":100}]}`)
	selected := !rollout.Selected("data-eng", "svc-etl/LoadUsers", 20)
	if strings.Contains(plan.body, `"newly_selected":["svc-etl / LoadUsers"]`) != selected {
		t.Errorf("plan: %v", plan)
	}

	oneTime := regexp.MustCompile(`: ([A-Z2-7]{26})\n`).FindStringSubmatch(notices.String())
	if len(oneTime) != 2 || !strings.Contains(notices.String(), "http://"+g.AdminAddr()+"/api/v1/") {
		t.Fatalf("the notice is %q", notices.String())
	}
	g.answers(200, "PUT", "/teams/search/rollout", oneTime[1], `{"percent":5}`, "If-Match", `"0"`)
	g.answers(401, "GET", "/teams", oneTime[1], "", "X-Forwarded-For", "192.0.2.7")
	g.end()
	if strings.Contains(g.log.String(), oneTime[1]) {
		t.Error("the one-time token stands in the log")
	}
	_, text := uses(t, filepath.Join(s.dir, "audit.jsonl"))
	for _, want := range []string{`"change":"request"`, `"change":"set","revision":`, `"actor":"svc-etl","verified":true,"issuer":"` + s.issuer.URL(), `"actor":"one-time token","verified":false`} {
		if !strings.Contains(text, want) {
			t.Errorf("the trail does not say %s:\n%s", want, text)
		}
	}
}

func TestAReloadChangesWhoMayChangeWhat(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.administered()
	g := s.start().loaded()
	lead := s.token("svc-etl", audience)
	g.answers(200, "POST", "/teams/data-eng/hold", lead, "")
	s.configure("admin", "{ address: 127.0.0.1:0, operators: { principals: [svc-ml] } }")
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	g.answers(403, "POST", "/teams/data-eng/hold", lead, "")
	g.answers(200, "DELETE", "/teams/data-eng/hold", s.token("svc-ml", audience), "")

	s.configure("admin", "127.0.0.1:1")
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(g.log.String(), "key=admin.address") {
		t.Errorf("nobody is told that the address stays:\n%s", g.log)
	}
}

func TestWithoutAnAddressThereIsNoAdminAPI(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var notices lockedBuffer
	g := s.start(func(o *app.Options) { o.Notices = &notices }).loaded()
	if g.AdminAddr() != "" || notices.String() != "" {
		t.Errorf("at %q: %q", g.AdminAddr(), notices.String())
	}
	for _, base := range []string{g.base, "http://" + g.MetricsAddr()} {
		if got := s.send(base, request{method: "GET", path: "/api/v1/teams"}); got.status == 200 {
			t.Errorf("%s answers: %v", base, got)
		}
	}
}

func TestManyWritersAtTwoReplicas(t *testing.T) {
	t.Parallel()
	const writers = 40 // of a hundred the store's own tests tell
	s := newSite(t)
	s.administered()
	store := realRedis(t)
	shared := func(o *app.Options) { o.Store = store }
	replicas := []*gateway{s.start(shared).loaded(), s.start(shared).loaded()}
	operator := s.token("svc-ml", audience)
	// On a busy machine a change may not get its turn in time, which is said.
	begun := func(send func() reply) (got reply) {
		for range writers {
			if got = send(); got.status != 503 || !strings.Contains(got.body, "was not begun") {
				break
			}
		}
		return got
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	statuses := make(map[int]int)
	for i := range writers {
		all.Go(func() {
			g := replicas[i%len(replicas)]
			got := begun(func() reply {
				return g.api("PUT", "/teams/data-eng/rollout", operator, fmt.Sprintf(`{"percent":%d}`, i), "If-Match", `"0"`)
			})
			held := begun(func() reply { return g.api("POST", "/teams/search/hold", operator, fmt.Sprintf(`{"reason":"%d"}`, i)) })
			if held.status != 200 {
				t.Errorf("a hold: %v", held)
			}
			mu.Lock()
			defer mu.Unlock()
			statuses[got.status]++
		})
	}
	all.Wait()
	if statuses[200] != 1 || statuses[412] != writers-1 {
		t.Errorf("of writers that have seen the same: %v", statuses)
	}
	entries, err := store.History(t.Context(), "search", 1000)
	if err != nil || len(entries) != writers || entries[0].Revision != writers {
		t.Errorf("%d entries: %v", len(entries), err)
	}
}

func TestTheAdminListenerSpeaksTLSAndItsCertificateIsReloaded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	expiry := s.certify(1)
	s.configure("admin", "{ address: 127.0.0.1:0, tls: { cert: tls.crt, key: tls.key } }")
	var notices lockedBuffer
	g := s.start(watched, func(o *app.Options) { o.Notices = &notices }).loaded()
	s.eventually("it is said where the admin API is", func() bool { return strings.Contains(notices.String(), "https://"+g.AdminAddr()+"/api/v1/") })
	// Each call makes a connection of its own.
	serial := func() int64 {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://" + g.AdminAddr() + "/api/v1/teams")
		if err != nil {
			t.Log(err)
			return 0
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("GET /teams: %s", resp.Status)
		}
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	const series = `crossfade_tls_not_after_timestamp_seconds{listener="admin"}`
	if got := g.metric(series); serial() != 1 || got != number(expiry.Unix()) {
		t.Errorf("certificate %d, and the metric says %s, want %s", serial(), got, number(expiry.Unix()))
	}
	if got := g.metric(`crossfade_tls_not_after_timestamp_seconds{listener="listen"}`); got != "" {
		t.Errorf("the listener for clients has a certificate until %s", got)
	}
	expiry = s.certify(2)
	s.eventually("the new certificate is served", func() bool { return serial() == 2 })
	s.eventually("the metric says so", func() bool { return g.metric(series) == number(expiry.Unix()) })
	s.write("tls.crt", "no certificate")
	s.eventually("the broken one is noticed", func() bool { return g.metric("crossfade_config_last_reload_successful") == "0" })
	if serial() != 2 {
		t.Error("the running certificate is gone")
	}
	s.configure("admin", "127.0.0.1:0")
	s.eventually("TLS is switched off for the next start", func() bool { return strings.Contains(g.log.String(), "key=admin.tls") })
	if serial() != 2 {
		t.Error("the running listener lost its certificate")
	}
}

func TestWithoutTLSOffThisMachineTheStartWarnsOfTokensInTheClear(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.certify(1)
	s.configure("admin", `{ address: ":0", operators: { principals: [svc-ml] } }`)
	g := s.start().loaded()
	s.eventually("somebody is warned", func() bool {
		return strings.Contains(g.log.String(), "key=admin.address") && strings.Contains(g.log.String(), "in the clear")
	})
	s.configure("admin", `{ address: ":0", tls: { cert: tls.crt, key: tls.key }, operators: { principals: [svc-ml] } }`)
	g = s.start().loaded()
	s.eventually("the other warnings are said", func() bool { return strings.Contains(g.log.String(), "level=WARN") })
	g.end()
	if strings.Contains(g.log.String(), "key=admin.address") {
		t.Errorf("with TLS, too:\n%s", g.log)
	}
}

func TestAnOperatorRetiresATeamOverTheAdminAPI(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.administered()
	s.configure("audit", "{ file: audit.jsonl }")
	store := inProcess(t)
	longWatched(t, store, "data-eng")
	longWatched(t, store, "search", "svc-search")
	if _, err := store.Write(t.Context(), rollout.Change{Team: "data-eng", Percent: 100, At: time.Now().Add(-15 * 24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	g := s.start(func(o *app.Options) { o.Store = store }).loaded()
	call := withCall(etl(request{}), addTask("w", "LoadUsers"))
	if got := g.send(call); got.header.Get("Crossfade-Reason") != "legacy_refused" {
		t.Errorf("at 100%%: %v", got)
	}
	s.eventually("that the password was used is in the way", func() bool {
		body := g.answers(200, "GET", "/teams/data-eng/retire", "", "").body
		return strings.Contains(body, `"obstacles":[{"why":"svc-etl used a password`) && strings.Contains(body, `for 14 days nobody may","owner":"team"}]`)
	})
	operator := s.token("svc-ml", audience)
	g.answers(409, "POST", "/teams/data-eng/retire", operator, `{"reason":"done"}`, "If-Match", "*")
	g.answers(200, "GET", "/teams/search/retire", "", "")
	if _, err := store.Write(t.Context(), rollout.Change{Team: "search", Percent: 100, At: time.Now().Add(-15 * 24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	g.answers(403, "POST", "/teams/search/retire", s.token("svc-search", audience), "", "If-Match", "*")
	got := g.answers(200, "POST", "/teams/search/retire", operator, `{"reason":"done"}`, "If-Match", "*")
	if !strings.Contains(got.body, `"phase":"retired"`) || !strings.Contains(got.body, `"ended_credentials":1`) {
		t.Errorf("retired: %v", got)
	}
	if got := g.send(withCall(search(request{}), addTask("w", "Index"))); got.header.Get("Crossfade-Reason") != "legacy_retired" {
		t.Errorf("the password that has ended: %v", got)
	}
	if got := g.answers(200, "GET", "/replicas", "", "").body; !strings.Contains(got, `"self":true`) || !strings.Contains(got, `"agree":true`) {
		t.Errorf("replicas: %s", got)
	}
	for series, want := range map[string]string{
		`crossfade_admin_requests_total{code="409",route="/api/v1/teams/{team}/retire"}`: "1",
		`crossfade_admin_requests_total{code="403",route="/api/v1/teams/{team}/retire"}`: "1",
		`crossfade_admin_requests_total{code="401",route="/api/v1/teams/{team}/retire"}`: "0",
		`crossfade_admin_requests_total{code="401",route="other"}`:                       "0",
		`crossfade_admin_requests_total{code="200",route="/api/v1/replicas"}`:            "1",
	} {
		if got := g.metric(series); got != want {
			t.Errorf("%s is %q, want %s", series, got, want)
		}
	}
	g.end()
	if _, text := uses(t, filepath.Join(s.dir, "audit.jsonl")); !strings.Contains(text, `"team":"search","change":"retire"`) {
		t.Errorf("the trail does not tell of it:\n%s", text)
	}
}
