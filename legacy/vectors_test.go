package legacy_test

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"crossfade/legacy"
)

// vector is a hash that another program made. The file was written by openssl
// 3.0.19, htpasswd of Apache 2.4 and crypt(3) of libxcrypt.
type vector struct{ Tool, Password, Hash string }

func vectors(t testing.TB) []vector {
	t.Helper()
	f, err := os.Open("testdata/vectors.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []vector
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	if len(all) < 50 {
		t.Fatalf("only %d vectors", len(all))
	}
	return all
}

func TestHashesOfOtherProgramsVerify(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range vectors(t) {
		k := load(t, legacy.Options{
			HTPasswd: write(t, "h", "u:"+v.Hash+"\n"),
			OnVerify: func(scheme string) { seen[scheme] = true },
		})
		if got := k.Authenticate(t.Context(), basic("u", v.Password)); !got.OK() {
			t.Errorf("%s: the password %q does not verify against %s", v.Tool, v.Password, v.Hash)
		}
		if got := k.Authenticate(t.Context(), basic("u", "-"+v.Password)); got.OK() {
			t.Errorf("%s: a wrong password verifies against %s", v.Tool, v.Hash)
		}
	}
	for _, scheme := range []string{legacy.Bcrypt, legacy.SHA512Crypt, legacy.SHA256Crypt, legacy.APR1} {
		if !seen[scheme] {
			t.Errorf("no vector of %s", scheme)
		}
	}
}

func TestBcryptLooksAt72BytesLikeApache(t *testing.T) {
	for _, v := range vectors(t) {
		if !strings.HasPrefix(v.Hash, "$2") || len(v.Password) <= 72 {
			continue
		}
		k := load(t, legacy.Options{HTPasswd: write(t, "h", "u:"+v.Hash+"\n")})
		for secret, want := range map[string]bool{
			v.Password:                    true,
			v.Password[:72]:               true,
			v.Password[:72] + "other end": true,
			v.Password[:71]:               false,
		} {
			if got := k.Authenticate(t.Context(), basic("u", secret)).OK(); got != want {
				t.Errorf("%d bytes verify: %v, want %v", len(secret), got, want)
			}
		}
		return
	}
	t.Fatal("no vector of a long bcrypt password")
}

// With bcrypt the bound decides alone: it looks at the first 72 bytes only.
func TestPasswordsOverTheBoundAreUnknown(t *testing.T) {
	for _, v := range vectors(t) {
		if !strings.HasPrefix(v.Hash, "$2") || v.Password != strings.Repeat("x", 72) {
			continue
		}
		k := load(t, legacy.Options{HTPasswd: write(t, "h", "u:"+v.Hash+"\n")})
		for length, want := range map[int]bool{512: true, 513: false, 100_000: false} {
			if got := k.Authenticate(t.Context(), basic("u", strings.Repeat("x", length))).OK(); got != want {
				t.Errorf("%d bytes verify: %v, want %v", length, got, want)
			}
		}
		return
	}
	t.Fatal("no vector of 72 times x")
}
