package config_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"crossfade/config"
)

// A key that is added to the configuration shows here: whether it is a rule, or
// belongs to the environment, is to be decided then.
func TestTheRulesAreAllThatDecidesAboutRequests(t *testing.T) {
	c := load(t, config.Source{File: "testdata/good/full.yaml"})
	var b strings.Builder
	list := func(title string, rules map[string]any) {
		fmt.Fprintf(&b, "# %s\n", title)
		for _, key := range slices.Sorted(maps.Keys(rules)) {
			fmt.Fprintf(&b, "%s: %#v\n", key, rules[key])
		}
	}
	list("the configuration", c.Rules())
	list("an issuer", c.OIDC.Issuers[1].Rules())
	golden(t, "testdata/rules.golden", b.String())
}

func TestWhatBelongsToAnEnvironmentIsNoRule(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"users": "", "other": "", "pw": "hunter2\n", "deny.yaml": "subjects: [gone]\n"} {
		write(t, dir, name, text)
	}
	rules := func(text string) string {
		c := load(t, config.Source{File: write(t, dir, "c.yaml", text), Dir: dir})
		return fmt.Sprint(c.Rules(), c.OIDC.Issuers[0].Rules())
	}
	a := rules(`
listen: ":8082"
upstream: http://127.0.0.1:8083
legacy: { htpasswd: users }
oidc: { issuer: "https://staging.okta.com/x", audience: staging, algorithms: [RS256, ES256] }
`)
	b := rules(`
listen: { address: ":9082", trusted_proxies: [10.0.0.0/8] }
metrics: off
admin: 127.0.0.1:8081
upstream: https://scheduler.prod
legacy: { htpasswd: other }
oidc: { issuer: "https://prod.okta.com/y", audiences: [prod, p2], jwks_url: "https://prod.okta.com/keys", algorithms: [ES256, RS256, ES256] }
redis: { url: "rediss://r:6379/1", password_file: pw, prefix: prod }
state_dir: state
access_log: "off"
audit: { file: audit.jsonl, max_size: 1MiB }
`)
	if a != b {
		t.Errorf("the rules differ:\n%s\n%s", a, b)
	}
	for name, text := range map[string]string{
		"a mode":            "mode: enforce\n",
		"a limit":           "upstream: { url: \"http://h\", max_body: 1MiB }\n",
		"a denied subject":  "oidc: { issuer: \"https://staging.okta.com/x\", audience: s, algorithms: [RS256, ES256], deny: deny.yaml }\n",
		"no password file":  "legacy: { cache: 30s }\n",
		"an algorithm less": "oidc: { issuer: \"https://staging.okta.com/x\", audience: s, algorithms: [RS256] }\n",
		"a limit of tenants": "oidc: { issuer: \"https://staging.okta.com/x\", audience: s, algorithms: [RS256, ES256], " +
			"tenants: [t] }\n",
	} {
		base := map[string]string{
			"upstream": "upstream: http://127.0.0.1:8083\n", "legacy": "legacy: { htpasswd: users }\n",
			"oidc": "oidc: { issuer: \"https://staging.okta.com/x\", audience: s, algorithms: [RS256, ES256] }\n",
		}
		key, _, _ := strings.Cut(text, ":")
		base[key] = text
		if rules(strings.Join(slices.Sorted(maps.Values(base)), "")) == a {
			t.Errorf("%s does not show", name)
		}
	}
}
