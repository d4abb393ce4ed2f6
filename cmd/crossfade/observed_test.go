package main

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/policy"
	"crossfade/gateway/shadow"
	"crossfade/legacy"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// The secrets of what was observed, none of which may ever be printed.
const (
	observedPassword = "hunter2-password"
	observedKey      = "hunter2-key-7f3a9c1e5b8d2f40"
)

// deed is a request as a gateway sees it.
type deed struct {
	account, credential string
	team                identity.Team
	rpc                 string
	action              identity.Action
	family, host, trace string
	token               *identity.Authentication
	decision            gateway.Decision
	verdict             shadow.Result
	percent             rollout.Percent
}

func (d deed) event() *gateway.Event {
	p := identity.Principal{Name: d.account, Team: d.team}
	scheme := identity.SchemeBasic
	if strings.HasPrefix(d.credential, "api_key:") {
		scheme = identity.SchemeAPIKey
	}
	if d.decision.Outcome == "" {
		d.decision = gateway.Decision{Outcome: gateway.Allowed, Control: gateway.SideLegacy}
	}
	ev := &gateway.Event{
		Start: time.Now().Add(-time.Hour), TraceID: d.trace, Mode: gateway.Enforce, Method: "POST", Status: 200,
		Call:      gateway.Call{RPC: true, Method: d.rpc, Action: d.action, Family: d.family, Run: "worker-1"},
		Presented: gateway.PresentedSchemes{Legacy: scheme}, Decision: d.decision, Shadow: d.verdict,
		Legacy:    &identity.Authentication{Status: identity.StatusVerified, Principal: p, CredentialID: d.credential},
		Principal: p, Enforcement: rollout.Enforcement{Known: true, Percent: d.percent, Pipeline: "LoadUsers"},
	}
	if d.host != "" {
		ev.Client = netip.MustParseAddr(d.host)
	}
	if d.token != nil {
		ev.Presented.Token, ev.Presented.Companion, ev.Shadowed, ev.ShadowToken = true, true, true, d.token
	}
	return ev
}

// tokenOf is a token of a subject whose signature holds.
func tokenOf(subject string, reasons ...identity.Reason) *identity.Authentication {
	a := &identity.Authentication{
		Status: identity.StatusVerified, Reasons: reasons,
		Token: &identity.TokenInfo{Verified: true, Issuer: "https://idp.example", Subject: subject, ID: "jti-" + subject},
	}
	if len(reasons) > 0 {
		a.Status = identity.StatusRejected
	}
	return a
}

// record writes what deeds leave in a trail.
func record(t *testing.T, file string, deeds []deed, tasks ...luigi.Execution) {
	t.Helper()
	tr, err := audit.New(audit.Options{File: file, Host: "web1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range deeds {
		tr.Observe(t.Context(), d.event())
	}
	for _, e := range tasks {
		tr.Executed(e)
	}
	if err := tr.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// observedSite is a deployment that was watched for a while, without principals:
// files of credentials, a trail, and evidence in Redis.
type observedSite struct {
	dir, config string
	redis       *rollouttest.Redis
}

func newObservedSite(t *testing.T) observedSite {
	t.Helper()
	hash, err := legacy.Hash(identity.NewSecret(observedPassword), "bcrypt", 4)
	if err != nil {
		t.Fatal(err)
	}
	s := observedSite{redis: rollouttest.StartRedis(t)}
	var htpasswd strings.Builder
	for _, user := range []string{"svc-etl", "svc-billing", "svc-idle", "svc-never", "bob", "true"} {
		htpasswd.WriteString(user + ":" + hash + "\n")
	}
	s.dir = files(t, map[string]string{
		"users.htpasswd": htpasswd.String(),
		"keys.yaml":      "- { id: etl-2023, owner: svc-etl, sha256: " + legacy.Digest(identity.NewSecret(observedKey)) + " }\n",
		"crossfade.yaml": `upstream: { url: http://127.0.0.1:1, profile: luigi }
legacy: { htpasswd: users.htpasswd, api_keys: keys.yaml }
oidc: { issuer: https://idp.example, audience: luigi }
audit: audit.jsonl
redis: ` + s.redis.URL() + "\n",
	})
	s.config = "--config=" + filepath.Join(s.dir, "crossfade.yaml")
	s.record(t)
	record(t, filepath.Join(s.dir, "audit.jsonl"), s.deeds(), executed("LoadUsers", "legacy:svc-etl", identity.Unassigned, luigi.Done, time.Minute, time.Second))
	return s
}

// deeds are what the trail tells.
func (s observedSite) deeds() []deed {
	const none = identity.Unassigned
	etl := deed{account: "legacy:svc-etl", credential: "basic:svc-etl", team: none, rpc: "add_task", action: identity.ActionExecute, host: "10.0.0.1"}
	with := func(d deed, change func(*deed)) deed { change(&d); return d }
	return []deed{
		with(etl, func(d *deed) { d.family, d.token = "LoadUsers", tokenOf("0oa1", identity.PrincipalUnmapped) }),
		with(etl, func(d *deed) { d.family, d.host = "LoadOrders", "10.0.0.2" }),
		with(etl, func(d *deed) { d.family, d.credential = "ExtractEvents", "api_key:etl-2023" }),
		with(etl, func(d *deed) { d.rpc = "ping" }),
		with(etl, func(d *deed) { d.rpc = "ping" }),
		{
			account: "legacy:svc-billing", credential: "basic:svc-billing", team: none, rpc: "add_task", action: identity.ActionExecute,
			family: "ExportInvoices", host: "10.0.0.3", token: tokenOf("0oa2", identity.AudMismatch),
		},
		{
			account: "legacy:svc-billing", credential: "basic:svc-billing", team: none, rpc: "add_task", action: identity.ActionExecute,
			family: "Forbidden", host: "10.0.0.3", decision: gateway.Decision{Outcome: gateway.Refused, Reason: identity.TaskFamilyDenied, Control: gateway.SideLegacy},
		},
		{account: "legacy:bob", credential: "basic:bob", team: none, rpc: "dep_graph", action: identity.ActionView, family: "LoadUsers", host: "10.0.0.9"},
		{account: "legacy:bob", credential: "basic:bob", team: none, rpc: "pause", action: identity.ActionAdmin, host: "10.0.0.9"},
	}
}

// record is what the evidence knows.
func (s observedSite) record(t *testing.T) {
	t.Helper()
	store, err := redisstore.New(redisstore.Options{URL: s.redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	now := time.Now()
	old := now.Add(-20 * 24 * time.Hour)
	daily := &evidence.Daily{Runs: map[evidence.RunKey]evidence.Run{}}
	for _, run := range []string{"worker-1", "worker-2"} {
		daily.Runs[evidence.NewRunKey("legacy:svc-etl", run)] = evidence.Run{
			Account: "legacy:svc-etl", Pipeline: "LoadUsers", First: now.Add(-time.Hour), Last: now.Add(-time.Hour), Legacy: true,
		}
	}
	batch := evidence.Batch{Replica: "r1", Seq: 1, From: old, To: now, Teams: map[identity.Team]*evidence.TeamBatch{
		identity.Unassigned: {
			Days: map[evidence.Day]*evidence.Daily{evidence.DayOf(now.Add(-time.Hour)): daily},
			Accounts: map[string]evidence.Use{
				"legacy:svc-etl":  {Legacy: now.Add(-time.Hour), Token: now.Add(-time.Hour)},
				"legacy:svc-idle": {Legacy: old}, "oidc:somebody@idp.example": {Token: now},
			},
			Families: map[evidence.Family]evidence.FamilyUse{
				{Account: "legacy:svc-etl", Name: "LoadUsers"}: {Last: now.Add(-time.Hour)}, {Account: "legacy:svc-etl", Name: "OnlyEvidence"}: {Last: now.Add(-time.Hour)},
				{Account: "legacy:svc-etl", Name: "LongAgo"}: {Last: old}, {Account: "legacy:svc-billing", Name: "Forbidden"}: {Last: now},
			},
		},
	}}
	if err := store.Record(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

var minutes = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d`)

// lineNumbers are those of the lines of a trail.
var lineNumbers = regexp.MustCompile(`(audit\.jsonl:|"line": |  line: |"seq": |  seq: )\d+(, \d+ of)?`)

// shown is a result without what differs from run to run.
func (s observedSite) shown(text string) string {
	text = strings.ReplaceAll(text, s.redis.URL(), "REDIS")
	return minutes.ReplaceAllString(masked(text, s.dir), "TIME")
}

// secretless checks that no secret shows.
func (r ran) secretless(t *testing.T) ran {
	t.Helper()
	if strings.Contains(r.String(), "hunter2") || strings.Contains(r.String(), "$2") {
		t.Errorf("a secret, or its hash, shows: %v", r)
	}
	return r
}

func TestPrincipalsAreSuggestedFromWhatWasSeen(t *testing.T) {
	t.Parallel()
	s := newObservedSite(t)
	suggest := func(args ...string) ran {
		return run(t, append([]string{"principals", "suggest", s.config}, args...)...).secretless(t)
	}
	for _, format := range []string{"yaml", "json", "table"} {
		golden(t, "principals.suggest."+format, s.shown(suggest("-o", format).want(t, exitOK).stdout))
	}

	// What is suggested loads, maps everyone, and is not done.
	file := filepath.Join(s.dir, "principals.yaml")
	if err := os.WriteFile(file, []byte(suggest().want(t, exitOK).stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	change(t, filepath.Join(s.dir, "crossfade.yaml"), func(l []string) []string { return append(l, "principals: principals.yaml\n") })
	run(t, "principals", "lint", s.config).want(t, exitFailure, "svc-etl.team: is still to be filled in")
	cfg, err := config.Load(config.Source{File: filepath.Join(s.dir, "crossfade.yaml")})
	if err != nil {
		t.Fatal(err)
	}
	directory, _, err := app.Rights(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"svc-etl", "svc-billing", "svc-idle", "svc-never", "bob", "true"} {
		if p, _ := directory.Legacy(user); !p.Mapped || p.Team != identity.Unassigned {
			t.Errorf("%s is %+v", user, p)
		}
	}
	if p, reason := directory.Token(identity.TokenIdentity{Issuer: "https://idp.example", Subject: "0oa1"}); p.Name != "svc-etl" || reason != "" {
		t.Errorf("the token is of %+v, %s", p, reason)
	}
	if got := suggest().want(t, exitOK, "{} # nobody is missing"); strings.Contains(got.stdout, "svc-etl") {
		t.Errorf("an entry that is there is suggested: %v", got)
	}
	if got := suggest("-o", "json").want(t, exitOK); strings.TrimSpace(got.stdout) != "[]" {
		t.Errorf("nothing as JSON: %v", got)
	}
	all := suggest("--all").want(t, exitOK, "svc-etl:", "svc-never:", "5 requests")
	if err := os.WriteFile(file, []byte(all.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := config.Load(config.Source{File: filepath.Join(s.dir, "crossfade.yaml")})
	if err != nil || again.Hash() != cfg.Hash() {
		t.Errorf("all entries are not what they were: %v\n%s", err, all.stdout)
	}
}

func TestPrincipalsAreSuggestedWithWhateverThereIs(t *testing.T) {
	t.Parallel()
	s := newObservedSite(t)
	bare := files(t, map[string]string{"crossfade.yaml": "upstream: http://127.0.0.1:1\n"})
	at := "--config=" + filepath.Join(bare, "crossfade.yaml")
	htpasswd, trail := "--htpasswd="+filepath.Join(s.dir, "users.htpasswd"), "--audit="+filepath.Join(s.dir, "audit.jsonl")
	suggest := func(args ...string) ran { return run(t, append([]string{"principals", "suggest", at}, args...)...) }

	got := suggest(htpasswd).want(t, exitOK, "svc-never:", "who was seen is not known")
	if strings.Contains(got.stdout, "never seen") {
		t.Errorf("nobody looked, and yet somebody was never seen: %v", got)
	}
	suggest(trail).want(t, exitOK, "svc-etl:", "issuer https://idp.example, which is not configured")
	suggest("--redis", s.redis.URL()).want(t, exitOK, "svc-etl:", "svc-idle:")
	suggest("--static-tokens", filepath.Join(s.dir, "keys.yaml")).want(t, exitOK, "static_bearer:etl-2023")
	suggest().want(t, exitUsage, "there is nothing to look at")
	suggest(htpasswd, "--observed", "0d").want(t, exitUsage, "--observed")
	suggest(htpasswd, "--observed", "week").want(t, exitUsage, "7d or 36h")
	suggest(htpasswd, "-o", "markdown").want(t, exitUsage, "-o markdown")
	suggest("--htpasswd", filepath.Join(bare, "none")).want(t, exitUsage, "none")
	suggest("--audit", filepath.Join(bare, "none")).want(t, exitUsage, "none")
	suggest("--audit", bare).want(t, exitUsage, "is a directory")
	suggest(htpasswd, "svc-etl").want(t, exitUsage)
	suggest(htpasswd, "--redis", "redis://:hunter2@"+rollouttest.Unused(t)+"/0").want(t, exitStore, "connection refused").secretless(t)
}

func TestRolesAreSuggestedFromWhatRan(t *testing.T) {
	t.Parallel()
	s := newObservedSite(t)
	suggest := func(args ...string) ran {
		return run(t, append([]string{"policy", "suggest", s.config}, args...)...).secretless(t)
	}
	for _, format := range []string{"yaml", "json", "table"} {
		golden(t, "policy.suggest."+format, s.shown(suggest("-o", format).want(t, exitOK).stdout))
	}
	golden(t, "policy.suggest.folded", s.shown(suggest("--fold", "2").want(t, exitOK).stdout))

	// The suggestion allows through the gateway's own policy what ran, and nothing
	// that did not.
	if err := os.WriteFile(filepath.Join(s.dir, "roles.yaml"), []byte(suggest().want(t, exitOK).stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	change(t, filepath.Join(s.dir, "crossfade.yaml"), func(l []string) []string { return append(l, "roles: roles.yaml\n") })
	cfg, err := config.Load(config.Source{File: filepath.Join(s.dir, "crossfade.yaml")})
	if err != nil {
		t.Fatal(err)
	}
	_, rules, err := app.Rights(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range s.deeds() {
		role := identity.Role(strings.TrimPrefix(d.account, "legacy:"))
		r := policy.Request{Action: d.action, Family: d.family, EveryFamily: d.rpc == "pause"}
		got := rules.Denies([]identity.Role{role}, r)
		if refused := d.decision.Outcome == gateway.Refused; (got != "") != refused {
			t.Errorf("%s %s on %q: %q, refused then: %v", d.account, d.action, d.family, got, refused)
		}
	}
	for _, r := range []policy.Request{
		{Action: identity.ActionExecute, Family: "LongAgo"},
		{Action: identity.ActionExecute, Family: "LoadUsersToo"},
		{Action: identity.ActionView, Family: "LoadUsers"},
		{Action: identity.ActionAdmin, EveryFamily: true},
	} {
		if rules.Denies([]identity.Role{"svc-etl"}, r) == "" {
			t.Errorf("svc-etl may %+v, which it never did", r)
		}
	}
	suggest("--observed", "5w").want(t, exitOK, "LongAgo")

	bare := files(t, map[string]string{"crossfade.yaml": "upstream: http://127.0.0.1:1\n"})
	at := "--config=" + filepath.Join(bare, "crossfade.yaml")
	run(t, "policy", "suggest", at).want(t, exitUsage, "there is nothing to look at")
	run(t, "policy", "suggest", at, "--redis", s.redis.URL()).want(t, exitOK, "actions are not known", "OnlyEvidence")
	run(t, "policy", "suggest", at, "--fold", "1", "--redis", s.redis.URL()).want(t, exitUsage, "--fold 1")
	run(t, "policy", "suggest", at, "--redis", "redis://"+rollouttest.Unused(t)+"/0").want(t, exitStore)
	empty := filepath.Join(bare, "empty.jsonl")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "policy", "suggest", at, "--audit", empty).want(t, exitFailure, "nobody was seen to do anything")
}

func TestLintSaysWhatIsSuspiciousAmongPrincipals(t *testing.T) {
	t.Parallel()
	s := newObservedSite(t)
	if err := os.Mkdir(filepath.Join(s.dir, "rollout.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"principals.yaml": `svc-etl: { team: data-eng, oidc: { subject: 0oa1 } }
svc-billing:
  team: unassigned
  legacy: [svc-biling]
svc-loader: { team: data-eng, legacy: [svc-idle, "true", bob], oidc: { subject: 0oa3 } }
`,
		"rollout.d/search.yaml": "percent: 0\n", "rollout.d/data-eng.yaml": "percent: 0\n",
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	change(t, filepath.Join(s.dir, "crossfade.yaml"), func(l []string) []string {
		return append(l, "principals: principals.yaml\nrollout: { dir: rollout.d }\n")
	})
	for _, format := range []string{"table", "json", "yaml", "markdown"} {
		got := run(t, "principals", "lint", s.config, "-o", format).want(t, exitFailure).secretless(t)
		golden(t, "principals.lint."+format, s.shown(got.stdout))
	}

	clean := files(t, map[string]string{"principals.yaml": "a: { team: x, oidc: { subject: s1 } }\nb: { team: x, oidc: { subject: s2 } }\n"})
	file := filepath.Join(clean, "principals.yaml")
	alone := files(t, map[string]string{"crossfade.yaml": "oidc: { issuer: https://idp.example, audience: luigi }\n"})
	at := "--config=" + filepath.Join(alone, "crossfade.yaml")
	run(t, "principals", "lint", file, at).want(t, exitOK, "nothing is suspicious", "not compared with any")
	if got := run(t, "principals", "lint", file, at, "-o", "json").want(t, exitOK); strings.TrimSpace(got.stdout) != "[]" {
		t.Errorf("nothing as JSON: %v", got)
	}
	run(t, "principals", "lint", file, at, "--htpasswd", filepath.Join(s.dir, "users.htpasswd")).
		want(t, exitFailure, "users.htpasswd:1: basic:svc-etl", "principals.yaml:1: a: stands for the legacy user")
	run(t, "principals", "lint", at).want(t, exitUsage, "there is no principals file")
	run(t, "principals", "lint", filepath.Join(clean, "none.yaml"), at).want(t, exitUsage, "none.yaml")
	broken := files(t, map[string]string{"principals.yaml": "a: { taem: x }\n"})
	run(t, "principals", "lint", filepath.Join(broken, "principals.yaml"), at).want(t, exitUsage, `principals.yaml:1: a.taem: unknown key (did you mean "team"?)`)
	run(t, "principals", "lint", file, at, "-o", "github").want(t, exitUsage, "-o github")
}
