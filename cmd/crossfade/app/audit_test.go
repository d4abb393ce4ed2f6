package app_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"crossfade/cmd/crossfade/app"
	"crossfade/gateway/audit"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// entry is a line of a file of static credentials.
func entry(id, owner, secret string) string {
	return fmt.Sprintf("- { id: %s, owner: %s, sha256: %s }\n", id, owner, digest(secret))
}

// uses are the lines of a trail about requests, after a check of the chain.
func uses(t *testing.T, file string) (all []audit.Use, text string) {
	t.Helper()
	report, err := audit.Verify([]string{file}, nil)
	if err != nil || !report.Intact() {
		t.Errorf("the trail is broken: %+v, %v", report, err)
	}
	text = readFile(t, file)
	for line := range strings.Lines(text) {
		var l struct {
			audit.Header
			audit.Use
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if l.Kind == audit.KindUse || l.Kind == audit.KindCount {
			all = append(all, l.Use)
		}
	}
	return all, text
}

func TestTheAuditTrailNamesEveryCredentialAndHoldsNoSecret(t *testing.T) {
	t.Parallel()
	const key, bearer, query = "key-7f3a9c1e5b8d2f40", "static-5b8d2f407f3a9c1e", "query-secret-91"
	s := newSite(t)
	s.write("keys.yaml", entry("etl-2023", "svc-etl", key))
	s.write("bearers.yaml", entry("etl-cron", "svc-etl", bearer))
	s.configure("legacy", "{ htpasswd: users.htpasswd, api_keys: { file: keys.yaml }, bearer: { file: bearers.yaml } }",
		"audit", "{ file: audit.jsonl, stdout: true, required: true }")
	var stdout lockedBuffer
	g := s.start(func(o *app.Options) { o.Stdout = &stdout }).loaded()

	token, foreign := s.token("svc-etl", audience), s.token("svc-etl", "another")
	unsigned := token[:strings.LastIndexByte(token, '.')+1] + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte("x"), 256))
	task := addTask("w", "LoadUsers")
	with := func(change func(*request)) request {
		q := task
		change(&q)
		return q
	}
	for _, q := range []request{
		etl(task),
		with(func(q *request) { q.header = http.Header{"X-Api-Key": {key}} }),
		with(func(q *request) { q.bearer = bearer }),
		with(func(q *request) { q.bearer = token }),
		with(func(q *request) { *q = etl(*q); q.companion = token }),
		with(func(q *request) { *q = etl(*q); q.companion = foreign }),
		with(func(q *request) { q.user, q.password = "svc-etl", "guess-0815" }),
		with(func(q *request) { q.user, q.password = "guess-user", "guess-0815" }),
		with(func(q *request) { q.bearer = foreign }),
		with(func(q *request) { q.bearer = unsigned }),
		with(func(q *request) { q.bearer = "guess-0815" }),
		with(func(q *request) { q.user, q.password = "oidc", token }),
		with(func(q *request) { *q = etl(*q); q.header = http.Header{"X-Api-Key": {key}} }),
		with(func(q *request) { q.header = http.Header{"X-Api-Key": {"guess-0815"}} }),
		with(func(q *request) { q.path += "?access_token=" + query; *q = etl(*q) }),
		{method: http.MethodGet, path: "/static/x?password=" + query, user: "svc-etl", password: "legacy-pass"},
		etl(pages()), etl(ping("w")), task,
	} {
		g.send(q)
	}
	g.end()

	all, text := uses(t, filepath.Join(s.dir, "audit.jsonl"))
	if stdout.String() != text {
		t.Error("the standard output has other lines than the file")
	}
	signature := func(token string) string { return token[strings.LastIndexByte(token, '.')+1:] }
	for name, secret := range map[string]string{
		"the password": "legacy-pass", "the API key": key, "the static token": bearer, "a guess": "guess-0815", "a query": query,
		"a token": token, "the signature": signature(token), "the payload": strings.Split(token, ".")[1],
		"another token": foreign, "another signature": signature(foreign), "a forged one": signature(unsigned),
	} {
		for how, form := range map[string]string{
			"as it is": secret, "in base64": base64.StdEncoding.EncodeToString([]byte(secret)),
			"in hex":                   hex.EncodeToString([]byte(secret)),
			"with its user, in base64": base64.StdEncoding.EncodeToString([]byte("svc-etl:" + secret)),
		} {
			if strings.Contains(text, form) {
				t.Errorf("%s is in the trail, %s", name, how)
			}
		}
	}
	found := map[string]bool{}
	for _, u := range all {
		who := fmt.Sprintf("%s %s %s%s %s", u.Principal, u.Team, u.Scheme, strings.TrimPrefix(u.Credential, u.Scheme), u.Outcome)
		if u.Issuer != "" && u.TokenID != "" {
			who += " verified"
		}
		if u.Unverified != nil && u.Unverified.TokenID != "" && u.Issuer == "" {
			who += " unverified"
		}
		if u.Candidate != nil {
			who += " beside " + u.Candidate.Scheme + " " + u.Candidate.Status + " " + u.Candidate.Reason
		}
		found[strings.TrimSpace(who)] = true
		if u.Configuration == "" || u.TraceID == "" || u.Client == "" {
			t.Errorf("not told: %+v", u)
		}
	}
	for _, want := range []string{
		"svc-etl data-eng basic:svc-etl allowed",
		"svc-etl data-eng api_key:etl-2023 allowed",
		"svc-etl data-eng static_bearer:etl-cron allowed",
		"svc-etl data-eng oidc allowed verified",
		"svc-etl data-eng basic:svc-etl allowed beside oidc verified",
		"svc-etl data-eng basic:svc-etl allowed beside oidc rejected aud_mismatch",
		"basic refused", "oidc refused verified", "oidc refused unverified", "none refused",
	} {
		if !found[want] {
			t.Errorf("no line says %q: %v", want, found)
		}
	}
}

// breakable is a standard output whose reader goes away and comes back.
type breakable struct {
	lockedBuffer
	mu     sync.Mutex
	broken bool
}

func (b *breakable) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken {
		return 0, errors.New("broken pipe")
	}
	return b.lockedBuffer.Write(p)
}

func (b *breakable) set(broken bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = broken
}

func TestARequiredAuditTrailThatCannotBeWrittenRefusesUntilItCan(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configure("audit", "{ stdout: true, required: true }")
	out := &breakable{}
	g := s.start(func(o *app.Options) { o.Stdout = out }).loaded()
	if got := g.send(etl(addTask("w", "LoadUsers"))); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
		t.Fatalf("at the beginning: %v", got)
	}
	out.set(true)
	s.eventually("requests are refused", func() bool {
		return g.send(etl(addTask("w", "LoadUsers"))).header.Get("Crossfade-Reason") == "audit_unavailable"
	})
	passed := s.upstream.count()
	for name, q := range map[string]request{"a worker": etl(addTask("w", "LoadUsers")), "a page": etl(pages())} {
		if got := g.send(q); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %v", name, got)
		}
	}
	if s.upstream.count() != passed {
		t.Error("something was served unaudited")
	}
	s.eventually("the failure is counted", func() bool {
		return g.metric(`crossfade_audit_records_total{result="error"}`) > "0"
	})
	if !strings.Contains(g.log.String(), "audit trail in trouble") {
		t.Error("the log does not say so")
	}

	out.set(false)
	s.eventually("requests are served again", func() bool {
		return g.send(etl(addTask("w", "LoadUsers"))).header.Get("Crossfade-Reason") == ""
	})
	g.end()
	if !strings.Contains(g.log.String(), "audit trail well again") {
		t.Error("the log does not say that it is over")
	}
	text := out.String()
	if n := strings.Count(text, `"outcome":"allowed"`); n != s.upstream.count() {
		t.Errorf("%d requests were served, %d are in the trail", s.upstream.count(), n)
	}
	if !strings.Contains(text, `"reason":"audit_unavailable"`) {
		t.Error("what was refused meanwhile is not told")
	}
}

func TestInObserveAnAuditTrailThatFailsRefusesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configure("mode", "observe", "audit", "{ stdout: true, required: true }")
	out := &breakable{broken: true}
	g := s.start(func(o *app.Options) { o.Stdout = out }).loaded()
	s.eventually("it is counted", func() bool {
		if got := g.send(etl(addTask("w", "LoadUsers"))); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
			t.Fatalf("refused: %v", got)
		}
		return g.metric(`crossfade_requests_total{outcome="would_refuse",reason="audit_unavailable",scheme="none",team="data-eng"}`) != "" ||
			g.metric(`crossfade_requests_total{outcome="would_refuse",reason="audit_unavailable",scheme="basic",team="data-eng"}`) != ""
	})
	out.set(false) // or the end would tell that lines were lost
}

func TestTheTrailTellsTheConfigurationInForceAndItsHeadGoesToRedis(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	s := newSite(t)
	s.configure("redis", redis.URL(), "audit", "audit.jsonl")
	g := s.start().loaded()
	file := filepath.Join(s.dir, "audit.jsonl")
	g.send(etl(addTask("w", "LoadUsers")))
	s.eventually("the line is written", func() bool { return strings.Contains(readFile(t, file), `"kind":"use"`) })
	s.configure("drain", "7s", "audit", "{ file: other.jsonl, required: true }")
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(g.log.String(), "key=audit\n") {
		t.Error("a change of the trail that needs a restart is not named")
	}
	g.send(etl(addTask("w", "LoadUsers")))
	g.end()

	all, _ := uses(t, file)
	if len(all) != 2 || all[0].Configuration == all[1].Configuration || all[1].Configuration == "" {
		t.Errorf("%+v", all)
	}
	store, err := redisstore.New(redisstore.Options{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	texts, err := store.Heads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	heads, err := audit.ParseHeads(texts)
	if err != nil {
		t.Fatal(err)
	}
	report, err := audit.Verify([]string{file}, heads)
	if err != nil || !report.Intact() || report.Chains[0].Head != report.Chains[0].Last {
		t.Errorf("%+v, %v", report, err)
	}
}
