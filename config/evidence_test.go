package config_test

import (
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"crossfade/config"
)

// judged is a configuration to be changed, in its files.
type judged struct{ main, principals, roles string }

func (j judged) hashes(t *testing.T) config.EvidenceHashes {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "users", "")
	write(t, dir, "p.yaml", j.principals)
	write(t, dir, "r.yaml", j.roles)
	return load(t, config.Source{File: write(t, dir, "c.yaml", j.main)}).EvidenceHashes()
}

func (j judged) with(old, replacement string) judged {
	for _, text := range []*string{&j.main, &j.principals, &j.roles} {
		*text = strings.ReplaceAll(*text, old, replacement)
	}
	return j
}

var evidenceBase = judged{
	main: `upstream: http://127.0.0.1:1
principals: p.yaml
roles: r.yaml
legacy: { htpasswd: users }
oidc:
  issuers:
    - { issuer: "https://a.example.com", audiences: [luigi, api], max_lifetime: 12h }
    - { issuer: "https://b.example.com", audience: luigi, preset: keycloak }
`,
	principals: `svc-etl: { team: data-eng, legacy: [svc-etl, etl], oidc: { issuer: "https://a.example.com", subject: x }, roles: [runner] }
svc-billing: { team: billing, oidc: { issuer: "https://a.example.com", subject: y }, roles: [reader] }
`,
	roles: `roles: { runner: { execute: ["Load*", "Extract*"] }, reader: { view: ["*"] }, operator: { admin: ["*"] } }
claims: { groups: { operators: operator } }
teams: { groups: { data: data-eng } }
`,
}

func TestAnEvidenceHashFollowsWhatJudgesTheAccount(t *testing.T) {
	base := evidenceBase.hashes(t)
	// Whatever changes these makes all that was gathered before count as gathered
	// under another configuration: change what is hashed only if that is meant.
	for account, want := range map[string]string{"svc-etl": "1880a8f960ab", "svc-billing": "e69b57291d0f", "legacy:old": "47bf1bfa3444"} {
		if got := base.Of(account); got != want || !regexp.MustCompile(`^[0-9a-f]{12}$`).MatchString(got) {
			t.Errorf("the hash of %s is %q, not %q", account, got, want)
		}
	}
	if base.Of("legacy:old") != base.Of("oidc:z@a.example.com") {
		t.Error("two accounts without an entry are told apart")
	}
	const etl, billing, nobody = "svc-etl", "svc-billing", "legacy:old"
	for name, test := range map[string]struct {
		changed judged
		differ  []string // the accounts whose hash is another one
	}{
		"a comment, the order of keys and another spelling": {evidenceBase.with("{ team: data-eng, legacy: [svc-etl, etl],", "{ # as ever\n legacy: [etl, svc-etl], team: data-eng,").
			with("[luigi, api]", "[api, luigi]").with(`["Load*", "Extract*"]`, `["Extract*", "Load*"]`).with("12h", "720m"), nil},
		"another order of issuers": {evidenceBase.with(`    - { issuer: "https://b.example.com", audience: luigi, preset: keycloak }`+"\n", "").
			with("  issuers:\n", "  issuers:\n    - { issuer: \"https://b.example.com\", audience: luigi, preset: keycloak }\n"), nil},
		"listeners, Redis, limits, help and probes": {evidenceBase.with("principals: p.yaml", `principals: p.yaml
listen: ":8082"
admin: { address: "127.0.0.1:8081", operators: { groups: [x] } }
redis: redis://:secret@localhost:6379
help: { url: "https://help" }
mode: enforce
drain: 1m
readiness: { longest_cycle: 31d, waivers: [{ team: data-eng, account: svc-etl, reason: x, owner: x, why: x, until: 2027-01-01 }] }
`), nil},
		"the deny-list":                         {evidenceBase.with("  issuers:", "  deny: { subjects: [gone] }\n  issuers:"), nil},
		"its owner":                             {evidenceBase.with("roles: [runner] }", "roles: [runner], owner: \"#data-eng\" }"), nil},
		"a role that nobody has":                {evidenceBase.with("reader: {", "unused: { execute: [\"*\"] }, reader: {"), nil},
		"another account":                       {evidenceBase.with("svc-billing: {", "svc-new: { team: growth }\nsvc-billing: {").with("subject: y", "subject: z"), []string{billing}},
		"its team":                              {evidenceBase.with("team: data-eng, legacy", "team: growth, legacy"), []string{etl}},
		"its subject":                           {evidenceBase.with("subject: x", "subject: w"), []string{etl}},
		"one more role of its own":              {evidenceBase.with("[runner]", "[runner, reader]"), []string{etl}},
		"what its role permits":                 {evidenceBase.with(`"Load*"`, `"Store*"`), []string{etl}},
		"what a role by claims permits":         {evidenceBase.with(`admin: ["*"]`, `admin: ["A*"]`), []string{etl, billing, nobody}},
		"a claim that gives a role":             {evidenceBase.with("operators: operator", "admins: operator"), []string{etl, billing, nobody}},
		"a claim that gives a team":             {evidenceBase.with("{ data: data-eng }", "{ dat: data-eng }"), []string{etl, billing, nobody}},
		"whether roles count":                   {evidenceBase.with("principals: p.yaml", "principals: p.yaml\nauthorization: enforce"), []string{etl, billing, nobody}},
		"an audience":                           {evidenceBase.with("[luigi, api]", "[luigi]"), []string{etl, billing, nobody}},
		"an issuer that is not its own":         {evidenceBase.with("preset: keycloak", "preset: generic"), []string{etl, billing, nobody}},
		"no clock may differ any more":          {evidenceBase.with("max_lifetime: 12h", "max_lifetime: 12h, skew: 0s"), []string{etl, billing, nobody}},
		"no roles file, so that all may do all": {judged{strings.Replace(evidenceBase.main, "roles: r.yaml\n", "", 1), evidenceBase.principals, ""}, []string{etl, billing, nobody}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.changed == evidenceBase {
				t.Fatal("nothing was changed")
			}
			got := test.changed.hashes(t)
			for _, account := range []string{etl, billing, nobody} {
				want := false
				for _, d := range test.differ {
					want = want || d == account
				}
				if changed := got.Of(account) != base.Of(account); changed != want {
					t.Errorf("the hash of %s changed: %t, want %t", account, changed, want)
				}
			}
		})
	}
}

// A key of an issuer or an entry that is added one day is part of the hash, or
// somebody has said here that it judges nothing.
func TestEveryKeyOfAnIssuerAndAnEntryIsPartOfTheEvidenceHash(t *testing.T) {
	judgesNothing := map[string]bool{"ca_file": true, "owner": true, "-": true}
	hash := func(i config.Issuer, p config.Principal) string {
		c := config.Config{Principals: []config.Principal{p}}
		c.OIDC.Issuers = []config.Issuer{i}
		return c.EvidenceHashes().Of("a")
	}
	check := func(v reflect.Value, name, base string, now func() string) {
		for i := range v.NumField() {
			key := v.Type().Field(i).Tag.Get("koanf")
			f := v.Field(i)
			switch f.Interface().(type) {
			case string, config.Path:
				f.SetString("x")
			case []string:
				f.Set(reflect.ValueOf([]string{"x"}))
			case bool:
				f.SetBool(true)
			case time.Duration:
				f.SetInt(int64(time.Second))
			case config.Skew:
				f.Set(reflect.ValueOf(config.Skew{Iat: 1}))
			case []config.TokenMatch:
				f.Set(reflect.ValueOf([]config.TokenMatch{{Claims: map[string]string{"a": "b"}}}))
			default:
				t.Fatalf("no example of the type of %s.%s", name, key)
			}
			if key == "audience" { // merged into audiences by Load
				f.SetZero()
				continue
			}
			if changed := now() != base; changed == judgesNothing[key] {
				t.Errorf("%s.%s changes the hash: %t", name, key, changed)
			}
			f.SetZero()
		}
	}
	var issuer config.Issuer
	var entry config.Principal
	now := func() string {
		p := entry
		p.Name = "a"
		return hash(issuer, p)
	}
	base := now()
	check(reflect.ValueOf(&issuer).Elem(), "issuer", base, now)
	check(reflect.ValueOf(&entry).Elem(), "entry", base, now)
}

func TestAnEvidenceHashCostsNoMemoryOnTheRequestPath(t *testing.T) {
	h := evidenceBase.hashes(t)
	if n := testing.AllocsPerRun(100, func() {
		if h.Of("svc-etl") == "" || h.Of("legacy:old") == "" {
			t.Error("no hash")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if (config.EvidenceHashes{}).Of("svc-etl") != "" {
		t.Error("the zero value knows a hash")
	}
}
