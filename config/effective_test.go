package config_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/config"
)

func TestTheEffectiveConfigurationLoadsAgainToTheSame(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "testdata/good"), os.DirFS("testdata/good")); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"testdata/good/first.yaml", "testdata/good/full.yaml"} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src := config.Source{File: file, Flags: map[string]any{"metrics": "off"}}
			var out bytes.Buffer
			c := load(t, src)
			if err := c.WriteYAML(&out); err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/"+filepath.Base(file)+".golden", out.String())
			t.Chdir(dir) // the paths that it shows are relative to where it was loaded
			again := load(t, config.Source{File: filepath.Base(write(t, dir, "effective.yaml", out.String()))})
			if c.Hash() != again.Hash() {
				var second bytes.Buffer
				_ = again.WriteYAML(&second)
				t.Errorf("(-want +got):\n%s", cmp.Diff(out.String(), second.String()))
			}
		})
	}
}

func TestTheHashFollowsMeaningAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "pw", "one")
	write(t, dir, "p.yaml", "a: { team: x }\nb: { team: y }\n")
	write(t, dir, "r.yaml", "roles: { r: { view: [\"*\"] } }\n")
	hash := func(text string, env ...string) string {
		t.Helper()
		return load(t, config.Source{File: write(t, dir, "c.yaml", text), Dir: dir, Env: env}).Hash()
	}
	const text = "upstream: http://127.0.0.1:1\nprincipals: p.yaml\nroles: r.yaml\nredis: { url: \"redis://r\", password_file: pw }\n"
	first := hash(text)
	if len(first) != 64 {
		t.Errorf("not a hex SHA-256: %q", first)
	}
	same := map[string]string{
		"order":      hash("redis: { password_file: pw, url: \"redis://r\" }\nroles: r.yaml\nprincipals: p.yaml\nupstream: { url: \"http://127.0.0.1:1\" }\n"),
		"source":     hash(strings.Replace(text, "upstream: http://127.0.0.1:1\n", "", 1), "CROSSFADE_UPSTREAM=http://127.0.0.1:1"),
		"a default":  hash(text + "mode: observe\n"),
		"a unit":     hash(text + "drain: 30000ms\n"),
		"an address": hash(text + "listen: 127.0.0.1:8888\nmetrics: 127.0.0.2:9091\n"),
		"a log":      hash(text + "access_log: one.jsonl\n"),
		"a spelling": hash(text + "metrics: { address: \"127.0.0.1:9091\" }\n"),
	}
	write(t, dir, "pw", "two")
	same["a secret"] = hash(text)
	write(t, dir, "p.yaml", "b: { team: y }\n# a comment\na:\n  team: x\n  legacy: a\n")
	same["order of principals"] = hash(text)
	if a, b := hash(text+"state_dir: a\nadmin: 127.0.0.1:1\naudit: { file: a.jsonl }\n"), hash(text+"state_dir: b\nadmin: 127.0.0.1:2\naudit: { file: b.jsonl }\n"); a != b {
		t.Error("where two machines keep their state and logs and are administered changes the hash")
	}
	for what, got := range same {
		if got != first {
			t.Errorf("%s changes the hash", what)
		}
	}
	different := map[string]string{"a value": hash(text + "drain: 31s\n"), "off": hash(text + "metrics: off\n"), "a log that is off": hash(text + "access_log: off\n"), "a state_dir": hash(text + "state_dir: s\n")}
	write(t, dir, "p.yaml", "a: { team: x }\nb: { team: z }\n")
	different["a principal"] = hash(text)
	write(t, dir, "p.yaml", "a: { team: x }\nb: { team: y }\n")
	write(t, dir, "r.yaml", "roles: { r: { view: [\"A\"] } }\n")
	different["a role"] = hash(text)
	for what, got := range different {
		if got == first {
			t.Errorf("%s does not change the hash", what)
		}
	}
}

func TestWarningsNameWhatIsLegalButDoubtful(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "users", "")
	pair(t, dir, "a.crt", "a.key")
	write(t, dir, "pw", "x")
	write(t, dir, "p.yaml", "a: { roles: [r] }\n")
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"the least to run", "mode: observe", []string{"legacy", "oidc", "principals", "roles"}},
		{"enforce on the network", "mode: enforce\nlisten: \":8082\"", []string{"legacy", "listen", "oidc", "principals", "redis", "roles"}},
		{"enforce on loopback with Redis", "mode: enforce\nredis: redis://localhost", []string{"legacy", "oidc", "principals", "roles"}},
		{"an admin listener for everyone", "admin: \":8081\"", []string{"admin.address", "admin.operators", "legacy", "oidc", "principals", "roles"}},
		{"an admin listener with leads for everyone", "admin: { address: \":8081\", leads: { groups: [leads] } }", []string{"admin.address", "legacy", "oidc", "principals", "roles"}},
		{"an admin listener with TLS for everyone", "admin: { address: \":8081\", tls: { cert: a.crt, key: a.key }, operators: { groups: [ops] } }", []string{"legacy", "oidc", "principals", "roles"}},
		{"a certificate for no admin listener", "admin: { tls: { cert: a.crt, key: a.key } }", []string{"admin.tls", "legacy", "oidc", "principals", "roles"}},
		{"an admin listener for this machine", "audit: a.jsonl\nadmin: 127.0.0.1:8081", []string{"legacy", "oidc", "principals", "roles"}},
		{"a password in the clear", "redis: { url: \"redis://r\", password_file: pw }", []string{"legacy", "oidc", "principals", "redis.url", "roles"}},
		{"a network that asks", "listen: { trusted_proxies: [10.0.0.0/8], forward_auth: /auth }", []string{"legacy", "oidc", "principals", "roles"}},
		{"anybody may ask", "listen: { trusted_proxies: [10.0.0.0/8, \"::/0\"], forward_auth: /auth }", []string{"legacy", "listen.trusted_proxies", "oidc", "principals", "roles"}},
		{"a snapshot from nowhere", "rollout: { cold_start: snapshot }", []string{"legacy", "oidc", "principals", "roles", "rollout.cold_start"}},
		{
			"a waiver that is over, and one for a team that nobody is of",
			"principals: p.yaml\nreadiness: { waivers: [" +
				"{ team: unassigned, account: a, reason: x, owner: x, why: x, until: 2026-11-28T12:00:00Z }, " +
				"{ team: unassigned, account: b, reason: x, owner: x, why: x, until: 2026-11-28T12:00:01Z }, " +
				"{ team: data, account: a, reason: x, owner: x, why: x, until: 2027-03-31 }] }",
			[]string{"a", "a.roles", "legacy", "oidc", "readiness.waivers[0].until", "readiness.waivers[2].team", "roles"},
		},
		{
			"credentials and an account without a team", "legacy: { htpasswd: users }\noidc: { issuer: \"https://i\", audience: a }\nprincipals: p.yaml",
			[]string{"a", "a.roles", "roles"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := load(t, config.Source{File: write(t, dir, "c.yaml", "upstream: http://127.0.0.1:1\n"+tt.text+"\n"), Now: now})
			var got []string
			for _, w := range c.Warnings() {
				got = append(got, w.Key)
				if w.Message == "" || w.File == "" || strings.HasPrefix(w.Key, "a.") && w.Line != 1 {
					t.Errorf("not told: %+v", w)
				}
			}
			less := func(a, b string) bool { return a < b }
			if diff := cmp.Diff(tt.want, got, sortedStrings(less)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	w := load(t, config.Source{File: "testdata/good/full.yaml", Reasons: reasons, Now: now}).Warnings()
	w = slices.DeleteFunc(w, func(m config.Mistake) bool { // a checkout's files have the modes of its umask
		return strings.HasPrefix(m.Key, "probe.")
	})
	if len(w) != 1 || w[0].Key != "listen" || w[0].Line != 2 {
		t.Errorf("the full example: %v", w)
	}
}

func TestTheTemplateLoads(t *testing.T) {
	for _, tt := range []struct {
		name, kind string
		values     config.TemplateValues
	}{
		{"for luigi", "luigi", config.TemplateValues{Htpasswd: "users", Issuer: "https://acme.okta.com/oauth2/luigi"}},
		{"for http", "http", config.TemplateValues{Htpasswd: "users", Issuer: "https://id.example.com", Audience: "api://x"}},
		{"with everything", "luigi", config.TemplateValues{
			Htpasswd: "users", Issuer: "https://id.example.com", Audience: "yes", Listen: ":1", Upstream: "http://h:2", Redis: "redis://:p@h:6379/0",
		}},
		{"with a value as long as the column", "luigi", config.TemplateValues{
			Htpasswd: "users", Issuer: "https://login.microsoftonline.com/11111111/v2.0",
		}},
		{"with names that YAML would misread", "luigi", config.TemplateValues{
			Htpasswd: "a: #b 'c\".txt", Issuer: "https://id.example.com/a'b", Audience: "1e3",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, err := config.Template(tt.kind, tt.values)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			write(t, dir, tt.values.Htpasswd, "")
			c := load(t, config.Source{File: write(t, dir, "crossfade.yaml", text)})
			if string(c.Legacy.Htpasswd) != dir+"/"+tt.values.Htpasswd || c.OIDC.Issuers[0].Issuer != tt.values.Issuer ||
				tt.values.Audience != "" && c.OIDC.Issuers[0].Audiences[0] != tt.values.Audience ||
				c.Redis.URL.Reveal() != tt.values.Redis || string(c.Upstream.Profile) != tt.kind {
				t.Errorf("came out as %+v", c)
			}
			for line := range strings.Lines(text) {
				if len(line) > 120 || !strings.Contains(line, "#") && !strings.HasSuffix(line, ":\n") && !strings.Contains(line, "profile") {
					t.Errorf("too long, or without a comment: %s", line)
				}
			}
		})
	}
	text, err := config.Template("luigi", config.TemplateValues{Htpasswd: "/etc/nginx/luigi.htpasswd", Issuer: "https://acme.okta.com/oauth2/luigi"})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/template.luigi.golden", text)
	_, err = config.Template("luigi", config.TemplateValues{Issuer: "http://id.example.com", Listen: "8082", Redis: "redis:hunter2"})
	for _, want := range []string{"htpasswd: is missing", "issuer: must begin with https", `did you mean ":8082"`, "redis: must be"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if _, err := config.Template("airflow", config.TemplateValues{}); err == nil {
		t.Error("a template for an unknown kind")
	}
}

func TestMistakesHaveAJSONForm(t *testing.T) {
	text, err := json.Marshal(config.Mistake{File: "a.yaml", Line: 3, Column: 1, Key: "mod", Message: "unknown key", Suggestion: "mode"})
	want := `{"file":"a.yaml","line":3,"column":1,"key":"mod","message":"unknown key","suggestion":"mode"}`
	if err != nil || string(text) != want {
		t.Errorf("got %s, %v", text, err)
	}
}
