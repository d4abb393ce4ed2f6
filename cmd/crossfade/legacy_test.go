package main

import (
	"path/filepath"
	"strings"
	"testing"

	"crossfade/gateway/identity"
	"crossfade/legacy"
)

func TestWhatHashPrintsOpensTheGateway(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"bcrypt", "sha512-crypt", "sha256-crypt"} {
		t.Run(scheme, func(t *testing.T) {
			cost := map[string]string{"bcrypt": "4"}[scheme]
			if cost == "" {
				cost = "1000"
			}
			got := with{stdin: "legacy-pass\r\n"}.run(t, "legacy", "hash", "--user", "svc-etl", "--scheme", scheme, "--cost", cost).want(t, exitOK)
			if got.stderr != "" || !strings.HasPrefix(got.stdout, "svc-etl:$") || strings.Count(got.stdout, "\n") != 1 {
				t.Errorf("%v", got)
			}
			dir := files(t, map[string]string{"users.htpasswd": got.stdout})
			keyring, err := legacy.Load(legacy.Options{HTPasswd: filepath.Join(dir, "users.htpasswd")})
			if err != nil {
				t.Fatal(err)
			}
			for password, ok := range map[string]bool{"legacy-pass": true, "legacy-pass\r": false, "guess": false} {
				a := keyring.Authenticate(t.Context(), identity.Credential{
					Scheme: identity.SchemeBasic, User: "svc-etl", Secret: identity.NewSecret(password),
				})
				if a.OK() != ok {
					t.Errorf("%q is accepted: %v, want %v", password, a.OK(), ok)
				}
			}
		})
	}
}

func TestADigestIsForFilesOfKeys(t *testing.T) {
	t.Parallel()
	got := with{stdin: "the-key"}.run(t, "legacy", "hash", "--scheme", "sha256").want(t, exitOK)
	digest := strings.TrimSpace(got.stdout)
	if digest != legacy.Digest(identity.NewSecret("the-key")) {
		t.Errorf("%v", got)
	}
	dir := files(t, map[string]string{"keys.yaml": "- { id: k1, owner: svc-etl, sha256: \"" + digest + "\" }\n"})
	keyring, err := legacy.Load(legacy.Options{APIKeys: filepath.Join(dir, "keys.yaml")})
	if err != nil {
		t.Fatal(err)
	}
	a := keyring.Authenticate(t.Context(), identity.Credential{Scheme: identity.SchemeAPIKey, Secret: identity.NewSecret("the-key")})
	if !a.OK() {
		t.Errorf("the key is not accepted: %v", a.Primary())
	}
}

func TestHashRefusesWhatCannotBeMeant(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		stdin string
		args  []string
		said  string
	}{
		"no secret":                        {"", nil, "no secret on stdin"},
		"an empty line":                    {"\n", nil, "no secret on stdin"},
		"a secret as an argument":          {"x", []string{"hunter2"}, "never from an argument"},
		"a user that splits the line":      {"x", []string{"--user", "a:b"}, "no colon"},
		"a scheme that nobody verifies":    {"x", []string{"--scheme", "md5"}, "md5"},
		"a cost that takes for ever":       {"x", []string{"--cost", "31"}, "31"},
		"a password that bcrypt would cut": {strings.Repeat("x", 73), nil, "72"},
		"a user in a file of keys":         {"x", []string{"--scheme", "sha256", "--user", "a"}, "key files"},
	} {
		t.Run(name, func(t *testing.T) {
			got := with{stdin: tc.stdin}.run(t, append([]string{"legacy", "hash"}, tc.args...)...).want(t, exitUsage, tc.said)
			if got.stdout != "" {
				t.Errorf("something was hashed: %v", got)
			}
			if strings.Contains(got.stderr, "hunter2") {
				t.Errorf("the secret is repeated: %v", got)
			}
		})
	}
}
