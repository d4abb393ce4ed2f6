package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// environments are two that have drifted apart in each way that there is.
func environments(t *testing.T) {
	t.Helper()
	t.Chdir(files(t, map[string]string{
		"users": "",
		"staging.yaml": `
mode: observe
listen: ":8082"
upstream: { url: http://127.0.0.1:8083, profile: luigi }
legacy: { htpasswd: users, throttle: { failures: 20 } }
oidc:
  issuers:
    - { issuer: https://staging.okta.com/oauth2/luigi, audiences: [api://luigi-staging], algorithms: [RS256] }
    - { issuer: https://token.actions.githubusercontent.com, audiences: [luigi-staging], tenants: [acme] }
principals: staging-principals.yaml
roles: staging-roles.yaml
redis: { url: "redis://:hunter2@localhost:6379/0" }
help: { contact: "#staging" }
`,
		"staging-principals.yaml": `
svc-etl:     { team: data-eng, oidc: { issuer: https://staging.okta.com/oauth2/luigi, subject: 0oa1 }, roles: [runner] }
svc-billing: { team: billing, legacy: [svc-billing, billing-old], roles: [operator, runner] }
svc-new:     { team: data-eng }
shared-bi:   { shared: true, may_be: [svc-etl, svc-billing] }
`,
		"staging-roles.yaml": `
roles:
  runner:   { execute: ["Load*", "LoadUsers", "Extract*"], view: ["*", "X"] }
  operator: { execute: ["*"], view: ["*"], admin: ["*"] }
  nothing:  {}
claims: { groups: { luigi-operators: operator, luigi-people: runner } }
`,
		"prod.yaml": `
mode: enforce
listen: { address: ":9082", trusted_proxies: [10.0.0.0/8] }
upstream: { url: http://scheduler.prod:8083, profile: luigi, max_body: 8MiB }
legacy: { htpasswd: users }
oidc:
  issuers:
    - { issuer: https://token.actions.githubusercontent.com, audiences: [luigi], max_lifetime: 24h }
    - { issuer: https://prod.okta.com/oauth2/luigi, audiences: [api://luigi], scopes: [luigi.write] }
principals: prod-principals.yaml
roles: prod-roles.yaml
help: { contact: "#platform" }
`,
		"prod-principals.yaml": `
svc-etl:     { team: data, oidc: { issuer: https://prod.okta.com/oauth2/luigi, subject: 0oa1 }, roles: [runner] }
svc-billing: { team: billing, legacy: [billing-old, svc-billing], roles: [runner, operator, runner] }
shared-bi:   { shared: true, may_be: [svc-etl] }
`,
		"prod-roles.yaml": `
roles:
  operator: { admin: ["*"], execute: ["*"], view: ["*"] }
  runner:   { view: ["*"], execute: ["Extract*", "Transform*", "Load*"] }
claims: { groups: { luigi-operators: operator, luigi-people: operator } }
`,
		"same.yaml": `
listen: ":8082"
upstream: { url: http://else:1, profile: luigi }
legacy: { htpasswd: users, throttle: { every: 5s, failures: 20 } }
oidc:
  issuers:
    - { issuer: https://token.actions.githubusercontent.com, audiences: [luigi], tenants: [other] }
    - { issuer: https://same.okta.com/oauth2/luigi, audiences: [api://luigi], algorithms: [RS256, RS256], max_lifetime: 24h }
principals: same-principals.yaml
roles: same-roles.yaml
help: { contact: "#staging" }
`,
		"same-principals.yaml": `
shared-bi:   { shared: true, may_be: [svc-billing, svc-etl, svc-etl] }
svc-new:     { team: data-eng, legacy: svc-new }
svc-billing: { roles: [runner, operator], legacy: [billing-old, svc-billing], team: billing }
svc-etl:     { oidc: [{ subject: 0oa1, issuer: https://same.okta.com/oauth2/luigi }], roles: [runner], team: data-eng }
`,
		"same-roles.yaml": `
roles:
  operator: { admin: ["A*", "*"], execute: ["*"], view: ["*"] }
  runner:   { view: ["*"], execute: ["Extract*", "Load*"] }
claims: { groups: { luigi-people: runner, luigi-operators: operator } }
`,
		"alone.yaml":  "upstream: { profile: luigi }\n",
		"broken.yaml": "mod: enforce\nroles: nowhere.yaml\n",
		"htpasswd":    "a:b\n",
		"unfit.yaml":  "legacy: { htpasswd: htpasswd }\n",
	}))
}

func TestRulesThatDifferAreNamedOneByOne(t *testing.T) {
	home, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	environments(t)
	results := map[string]string{}
	for _, format := range []string{"table", "json", "yaml", "markdown"} {
		got := run(t, "check", "--same-rules", "staging.yaml", "prod.yaml", "-o", format).want(t, exitFailure)
		if strings.Contains(got.stdout+got.stderr, "hunter2") {
			t.Error("a password shows")
		}
		results[format] = got.stdout
		if format == "table" {
			results["stderr"] = got.stderr
		}
	}
	got := run(t, "check", "--same-rules", "staging.yaml", "prod.yaml").want(t, exitFailure,
		`principals.svc-etl.team: "data-eng" in staging.yaml, "data" in prod.yaml`)
	other := run(t, "check", "--same-rules", "prod.yaml", "staging.yaml").want(t, exitFailure,
		`principals.svc-etl.team: "data" in prod.yaml, "data-eng" in staging.yaml`)
	if a, b := strings.Count(got.stdout, "\n"), strings.Count(other.stdout, "\n"); a != b {
		t.Errorf("%d differences, and the other way round %d", a, b)
	}
	t.Chdir(home)
	for name, text := range results {
		golden(t, "same."+name, text)
	}
}

func TestRulesThatMeanTheSameAreTheSame(t *testing.T) {
	environments(t)
	got := run(t, "check", "--same-rules", "staging.yaml", "same.yaml").want(t, exitOK, "SAME. staging.yaml and same.yaml judge requests by the same rules.")
	if !strings.Contains(got.stderr, "compared as one issuer: https://staging.okta.com/oauth2/luigi and https://same.okta.com/oauth2/luigi") {
		t.Errorf("it is not said which issuers were compared: %v", got)
	}
	run(t, "check", "--same-rules", "staging.yaml", "staging.yaml").want(t, exitOK, "SAME.")
	var report sameReport
	if err := json.Unmarshal([]byte(run(t, "check", "--same-rules", "staging.yaml", "same.yaml", "-o", "json").want(t, exitOK).stdout), &report); err != nil {
		t.Fatal(err)
	}
	if !report.Same || report.Differences == nil || len(report.Differences) != 0 || len(report.Notes) != 1 {
		t.Errorf("%+v", report)
	}
	run(t, "check", "--same-rules", "staging.yaml", "alone.yaml").want(t, exitFailure,
		"roles: defined in staging.yaml, missing, so everyone may do everything in alone.yaml",
		"principals.svc-etl: an entry in staging.yaml, no entry in alone.yaml",
		`oidc.issuers[0]: "https://staging.okta.com/oauth2/luigi" in staging.yaml, not set in alone.yaml`,
		`legacy.htpasswd: "set" in staging.yaml, not set in alone.yaml`)
}

func TestVariablesMakeTwoFilesNoMoreAlike(t *testing.T) {
	environments(t)
	with{environ: []string{"CROSSFADE_MODE=enforce"}}.run(t, "check", "--same-rules", "staging.yaml", "prod.yaml").
		want(t, exitFailure, `mode: "observe" in staging.yaml, "enforce" in prod.yaml`)
}

func TestDifferencesCanBeIgnoredByKey(t *testing.T) {
	environments(t)
	base := []string{"check", "--same-rules", "staging.yaml", "prod.yaml"}
	got := run(t, append(base, "--ignore", "principals.*.team", "--ignore", "oidc.issuers", "--ignore", "mod", "--ignore", "roles.runner.execute")...).
		want(t, exitFailure, "mode:", "5 differences ignored")
	for _, gone := range []string{"team", "oidc", "runner.execute"} {
		if strings.Contains(got.stdout, gone) {
			t.Errorf("%s is not ignored: %v", gone, got)
		}
	}
	all := []string{"--ignore", "principals", "--ignore", "oidc", "--ignore", "mode", "--ignore", "roles", "--ignore", "claims", "--ignore", "help", "--ignore", "legacy", "--ignore", "upstream"}
	run(t, append(base, all...)...).want(t, exitOK, "SAME.", "ignored, as asked")
}

func TestWhatCannotBeComparedIsSaid(t *testing.T) {
	environments(t)
	for name, test := range map[string]struct {
		args []string
		said []string
	}{
		"one file":                   {[]string{"staging.yaml"}, []string{"--same-rules compares two configurations"}},
		"no file":                    {nil, []string{"--same-rules compares two configurations"}},
		"three files":                {[]string{"a", "b", "c"}, []string{"at most 2"}},
		"a configuration and a file": {[]string{"staging.yaml", "prod.yaml", "-c", "prod.yaml"}, []string{"leave --config"}},
		"a flag of a key":            {[]string{"staging.yaml", "prod.yaml", "--mode", "enforce"}, []string{"flags of keys"}},
		"a file that is not there":   {[]string{"staging.yaml", "nowhere.yaml"}, []string{"nowhere.yaml does not load", "cannot be read"}},
		"a file with mistakes":       {[]string{"broken.yaml", "prod.yaml"}, []string{"broken.yaml:1: mod: unknown key", "nowhere.yaml"}},
		"two files with mistakes":    {[]string{"broken.yaml", "nowhere.yaml"}, []string{"broken.yaml does not load", "nowhere.yaml does not load"}},
		"a file of bad passwords":    {[]string{"unfit.yaml", "prod.yaml"}, []string{"unfit.yaml does not load", "htpasswd:1"}},
		"a format for pull requests": {[]string{"staging.yaml", "prod.yaml", "-o", "github"}, []string{"use one of table, json, yaml, markdown"}},
		"everything ignored":         {[]string{"staging.yaml", "prod.yaml", "--ignore", "*"}, []string{"name a key"}},
		"two questions at once":      {[]string{"staging.yaml", "prod.yaml", "--connect"}, []string{"ask one"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := run(t, append([]string{"check", "--same-rules"}, test.args...)...).want(t, exitUsage, test.said...)
			if got.stdout != "" {
				t.Errorf("on stdout: %s", got.stdout)
			}
		})
	}
	run(t, "check", "staging.yaml", "prod.yaml").want(t, exitUsage, "compare them by --same-rules")
	run(t, "check", "staging.yaml", "--ignore", "mode").want(t, exitUsage, "--ignore belongs to --same-rules")
	run(t, "check", "staging.yaml", "-o", "markdown").want(t, exitUsage, "use one of table, json, yaml, github")
}
