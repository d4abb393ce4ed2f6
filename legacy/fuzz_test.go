package legacy_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"crossfade/legacy"
)

// canary stands for a secret at a place that the fuzzer chooses.
const canary = "zQ7canary4VvX"

// mistakeLine is the form of every line of an error of Load.
var mistakeLine = regexp.MustCompile(`^f(:[1-9][0-9]*)?: [^:]+.*: .+$`)

// fuzzLoad loads before+canary+after and checks what holds for any content.
func fuzzLoad(t *testing.T, path, before, after string, options func(path string) legacy.Options) {
	rewrite(t, path, before+canary+after)
	k, err := legacy.Load(options(path))
	if (k == nil) == (err == nil) {
		t.Fatalf("keyring %v and error %v", k, err)
	}
	if err != nil {
		for _, line := range errorsOf(err, path) {
			if !mistakeLine.MatchString(line) {
				t.Errorf("not file:line: what: do: %q", line)
			}
			if strings.Contains(line, canary) {
				t.Errorf("an error shows the content of the file: %q", line)
			}
		}
		return
	}
	seen := map[string]bool{}
	for _, c := range k.Credentials() {
		if seen[c.ID] || c.Owner == "" || c.ID == "basic:oidc" || strings.HasSuffix(c.ID, ":") {
			t.Errorf("loaded %+v", c)
		}
		seen[c.ID] = true
	}
	if k.Len() != len(seen) || k.Summary().Users+k.Summary().APIKeys+k.Summary().Bearers != len(seen) {
		t.Errorf("Len %d, Summary %+v, %d credentials", k.Len(), k.Summary(), len(seen))
	}
}

// fuzzFile is one file that all inputs are written to in turn.
func fuzzFile(f *testing.F) string {
	return filepath.Join(f.TempDir(), "f")
}

func FuzzHTPasswd(f *testing.F) {
	path := fuzzFile(f)
	for _, seed := range [][2]string{
		{"", ""},
		{"bob:", "\n"},
		{"", ":" + apr1},
		{"bob:" + apr1 + "\n# ", "\r\neve:" + bcrypt4 + "\r\n"},
		{"bob:$6$rounds=", "$salt$x"},
		{"bob:$apr1$", "$y5dX47jiCIuqAbpq4k4S3/"},
		{"bob:$2y$10$", strings.Repeat("x", 53)},
		{"\xef\xbb\xbfoidc:{SHA}", ""},
		{"a:" + sha512 + ":", "\na:" + sha256},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		fuzzLoad(t, path, before, after, func(path string) legacy.Options { return legacy.Options{HTPasswd: path} })
	})
}

func FuzzKeys(f *testing.F) {
	path := fuzzFile(f)
	for _, seed := range [][2]string{
		{"", ""},
		{"- {id: a, owner: o, sha256: ", "}\n"},
		{"- {id: a, owner: ", ", sha256: " + digest1 + ", expires: 2026-06-30, revoked: true}\n"},
		{"- id: a\n  owner: *", "\n"},
		{"- id: &", " a\n  owner: o\n  sha256: " + digest1 + "\n"},
		{"- ", ": a\n"},
		{"- id: \"", "\n"},
		{"- id: ", "\n  owner: o\n  sha256: " + digest1 + "\n---\n"},
		{"%TAG ! ", "\n--- !x\n"},
		{"# ", "\n- {? {a: b} : c}\n"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		fuzzLoad(t, path, before, after, func(path string) legacy.Options { return legacy.Options{APIKeys: path} })
	})
}
