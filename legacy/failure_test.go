package legacy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/legacy"
)

// TestFailuresCostTheSame counts verifications for every way to fail.
func TestFailuresCostTheSame(t *testing.T) {
	files := map[string]struct {
		lines []string
		want  []string // sorted
	}{
		"one scheme, one verification": {
			lines: []string{"a:" + bcrypt4, "b:" + bcryptOf("04")},
			want:  []string{legacy.Bcrypt},
		},
		"one scheme at several costs, one verification of the highest": {
			lines: []string{"a:" + bcrypt4, "b:" + bcryptOf("05"), "c:" + bcryptOf("06")},
			want:  []string{legacy.Bcrypt},
		},
		"several rounds of SHA-crypt, one verification of the most": {
			lines: []string{"a:" + sha512, "b:" + sha512Long},
			want:  []string{legacy.SHA512Crypt},
		},
		"all schemes, one verification of each": {
			lines: []string{"a:" + apr1, "b:" + sha256, "c:" + sha512, "d:" + bcrypt4, "e:" + bcryptOf("06")},
			want:  []string{legacy.APR1, legacy.Bcrypt, legacy.SHA256Crypt, legacy.SHA512Crypt},
		},
	}
	for name, file := range files {
		t.Run(name, func(t *testing.T) {
			var seen calls
			k := load(t, legacy.Options{HTPasswd: write(t, "h", strings.Join(file.lines, "\n")), OnVerify: seen.add})
			var answers []*identity.Authentication
			fail := func(what, user, secret string) {
				t.Helper()
				answers = append(answers, k.Authenticate(t.Context(), basic(user, secret)))
				got := seen.take()
				slices.Sort(got)
				if diff := cmp.Diff(file.want, got); diff != "" {
					t.Errorf("verifications for %s (-want +got):\n%s", what, diff)
				}
				answers = append(answers, k.Authenticate(t.Context(), basic(user, secret)))
				if again := seen.take(); len(again) > 0 {
					t.Errorf("%s a second time: %v, want it remembered", what, again)
				}
			}
			long := strings.Repeat("x", 100_000)
			fail("an unknown user", "mallory", "wrong")
			fail("an unknown user with a password over the bound", "mallory", long)
			fail("an empty user", "", "wrong")
			for _, line := range file.lines {
				user, _, _ := strings.Cut(line, ":")
				fail("a wrong password of "+user, user, "wrong")
				fail("a password over the bound of "+user, user, long)
				fail("an empty password of "+user, user, "")
			}
			for _, a := range answers {
				if a != answers[0] || a.Primary() != identity.LegacyUnknown {
					t.Fatalf("one failure answers %+v, another %+v", a, answers[0])
				}
			}
			if got := k.Authenticate(t.Context(), basic("a", password)); !got.OK() {
				t.Errorf("the right password: %v", got.Reasons)
			}
			if got := seen.take(); len(got) != 1 {
				t.Errorf("a right password cost %v, want the user's own hash alone", got)
			}
		})
	}
}

// TestFailureWorkIsTheSame looks below the count: rounds and costs come to the
// same sum for everyone, which is the highest in the file for each scheme.
func TestFailureWorkIsTheSame(t *testing.T) {
	path := write(t, "h", "")
	rapid.Check(t, func(rt *rapid.T) {
		lines := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) string {
			rounds := rapid.IntRange(1_000, 1_000_000).Draw(rt, "rounds")
			switch rapid.IntRange(0, 3).Draw(rt, "scheme") {
			case 0:
				return bcryptOf(fmt.Sprintf("%02d", rapid.IntRange(4, 16).Draw(rt, "cost")))
			case 1:
				return fmt.Sprintf("$6$rounds=%d$salt$%s", rounds, strings.Repeat("x", 86))
			case 2:
				return fmt.Sprintf("$5$rounds=%d$salt$%s", rounds, strings.Repeat("x", 43))
			default:
				return apr1
			}
		}), 1, 12).Draw(rt, "hashes")
		var file strings.Builder
		for i, hash := range lines {
			fmt.Fprintf(&file, "u%d:%s\n", i, hash)
		}
		rewrite(rt, path, file.String())
		k, err := legacy.Load(legacy.Options{HTPasswd: path})
		if err != nil {
			rt.Fatal(err)
		}
		want := legacy.FailureWork(k, "stranger")
		for i, info := range k.Credentials() {
			if got := legacy.FailureWork(k, fmt.Sprintf("u%d", i)); !cmp.Equal(got, want) {
				rt.Errorf("u%d costs %v, a stranger %v", i, got, want)
			}
			if work := info.Cost; info.Hash != legacy.Bcrypt && work > want[info.Hash] {
				rt.Errorf("a stranger costs %v, less than %s of %d rounds", want, info.Hash, work)
			}
		}
	})
}
