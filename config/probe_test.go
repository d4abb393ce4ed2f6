package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crossfade/config"
)

// probed is a configuration in dir with probes as text says.
func probed(t *testing.T, dir, text string) *config.Config {
	t.Helper()
	return load(t, config.Source{File: write(t, dir, "c.yaml", "upstream: http://127.0.0.1:1\n"+
		"oidc: { issuer: \"https://i\", audience: a }\nprincipals: p.yaml\n"+text)})
}

func TestProbesOfManyPrincipalsThatCannotKeepTheirPeriodAreDoubtful(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "s", "secret")
	var principals, probes strings.Builder
	for _, letter := range "abcdefghijklm" {
		principals.WriteString(string(letter) + ": { team: x, oidc: { subject: " + string(letter) + " } }\n")
		probes.WriteString("    " + string(letter) + ": { client_id: x, client_secret_file: s }\n")
	}
	write(t, dir, "p.yaml", principals.String())
	for text, want := range map[string]string{
		"every: 2m\n  per_minute: 6":  "13 principals take 2m10s at 6 a minute",
		"every: 2m\n  per_minute: 13": "",
		"every: 1h\n  per_minute: 6":  "",
	} {
		c := probed(t, dir, "probe:\n  "+text+"\n  principals:\n"+probes.String())
		got := ""
		for _, w := range c.Warnings() {
			if w.Key == "probe" && w.Line == 4 {
				got = w.Message
			}
		}
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestAProbesSecretThatEverybodyCanReadIsDoubtful(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "p.yaml", "svc-etl: { team: x, oidc: { subject: etl } }\n")
	write(t, dir, "s", "hunter2")
	for key, entry := range map[string]string{
		"client_secret_file": "{ client_id: x, client_secret_file: s }",
		"client_key_file":    "{ client_id: x, client_key_file: s }",
		"subject_token_file": "{ subject_token_file: s }",
	} {
		for mode, open := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o602: true} {
			if err := os.Chmod(filepath.Join(dir, "s"), mode); err != nil {
				t.Fatal(err)
			}
			found := false
			for _, w := range probed(t, dir, "probe: { principals: { svc-etl: "+entry+" } }\n").Warnings() {
				if w.Key == "probe.principals.svc-etl."+key {
					found = strings.Contains(w.Message, "chmod 600") && w.Line == 4 && !strings.Contains(w.Message, "hunter")
				}
			}
			if found != open {
				t.Errorf("%s with mode %o: warned %v", key, mode, found)
			}
		}
	}
}

func TestTheContentOfAProbesSecretIsNoPartOfTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "p.yaml", "svc-etl: { team: x, oidc: { subject: etl } }\n")
	write(t, dir, "s", "one")
	const text = "probe: { principals: { svc-etl: { client_id: x, client_secret_file: s } } }\n"
	before := probed(t, dir, text).Hash()
	write(t, dir, "s", "two")
	if probed(t, dir, text).Hash() != before {
		t.Error("another secret is another configuration")
	}
	if probed(t, dir, strings.Replace(text, "id: x", "id: y", 1)).Hash() == before {
		t.Error("another client is the same configuration")
	}
}
