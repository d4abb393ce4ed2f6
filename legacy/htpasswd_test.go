package legacy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/legacy"
)

// errorsOf returns the lines of an error with the directory of path left out.
func errorsOf(err error, path string) []string {
	if err == nil {
		return nil
	}
	return strings.Split(strings.ReplaceAll(err.Error(), path, filepath.Base(path)), "\n")
}

const rehash = `: hash the password again with "crossfade legacy hash" and put the result after the colon`

func TestHTPasswdMistakes(t *testing.T) {
	tests := map[string]struct {
		content string
		want    []string
	}{
		"plain text": {
			"bob:hunter2\n",
			[]string{"h:1: a password in plain text is not accepted" + rehash},
		},
		"plain text that begins like a lock": {
			"bob:!\neve:*\n",
			[]string{"h:1: a password in plain text is not accepted" + rehash, "h:2: a password in plain text is not accepted" + rehash},
		},
		"SHA-1": {
			"bob:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n",
			[]string{"h:1: SHA-1 ({SHA}) is not accepted, because it is broken by guessing" + rehash},
		},
		"DES crypt": {
			"bob:rqXexS6ZhobKA\n",
			[]string{"h:1: DES crypt is not accepted, because it is broken by guessing and looks at 8 characters only" + rehash},
		},
		"extended DES crypt": {
			"bob:_J9..rasmBYk8r9AiWNc\n",
			[]string{"h:1: DES crypt is not accepted, because it is broken by guessing and looks at 8 characters only" + rehash},
		},
		"MD5-crypt": {
			"bob:$1$abc$y5dX47jiCIuqAbpq4k4S3/\n",
			[]string{"h:1: MD5-crypt ($1$) is not accepted" + rehash},
		},
		"broken bcrypt": {
			"bob:$2x$05$" + strings.Repeat("x", 53),
			[]string{"h:1: this early variant of bcrypt is not accepted, because it computes wrong hashes; only $2y$, $2a$ and $2b$ are" + rehash},
		},
		"another scheme": {
			"bob:$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA\n",
			[]string{"h:1: the hash scheme is not one of bcrypt, sha512-crypt, sha256-crypt and apr1" + rehash},
		},
		"no hash":  {"bob:\n", []string{"h:1: the user has no password hash" + rehash}},
		"no colon": {"bob\n", []string{`h:1: there is no colon: write "user:hash", or begin the line with # if it is a comment`}},
		"no user":  {":" + apr1, []string{"h:1: the user name is empty: write a name before the colon, or delete the line"}},
		"the reserved user": {
			"oidc:" + apr1,
			[]string{`h:1: the user name "oidc" is reserved for clients that send a token as the password of Basic: give the user another name`},
		},
		"a duplicate names both lines": {
			"a:" + apr1 + "\n\n# a\na:" + bcrypt4 + "\n",
			[]string{"h:4: the user stands on line 1 already: delete one of the two lines"},
		},
		"a duplicate of a line that is wrong itself": {
			"a:plain\na:" + bcrypt4 + "\n",
			[]string{"h:1: a password in plain text is not accepted" + rehash, "h:2: the user stands on line 1 already: delete one of the two lines"},
		},
		"a space before the colon":    {"bob :" + apr1, []string{"h:1: there is a space between the user name and the colon: delete the space"}},
		"a control character":         {"b\x1b[2Job:" + apr1, []string{"h:1: the user name holds a control or invisible character: delete the character, or give the user another name"}},
		"an invisible character":      {"b\u200bob:" + apr1, []string{"h:1: the user name holds a control or invisible character: delete the character, or give the user another name"}},
		"a name that is not UTF-8":    {"b\xe4r:" + apr1, []string{"h:1: the user name is not UTF-8: save the file as UTF-8"}},
		"a name that is too long":     {strings.Repeat("u", 256) + ":" + apr1, []string{"h:1: the user name is longer than 255 bytes: check that this is an htpasswd file"}},
		"a line that is too long":     {"\n" + strings.Repeat("u", 4097) + "\nbob:" + apr1, []string{"h:2: the line is longer than 4096 bytes: check that this is an htpasswd file"}},
		"UTF-16":                      {"\xff\xfeb\x00:\x00", []string{"h: the file is UTF-16 text: save it as UTF-8"}},
		"a bcrypt cost that stalls":   {"a:" + bcryptOf("17"), []string{"h:1: the bcrypt cost is above 16, which would stall the gateway" + rehash}},
		"a bcrypt cost of nothing":    {"a:" + bcryptOf("03"), []string{"h:1: the bcrypt hash is malformed" + rehash}},
		"a bcrypt cost of no digits":  {"a:" + bcryptOf("+9"), []string{"h:1: the bcrypt hash is malformed" + rehash}},
		"a bcrypt hash cut short":     {"a:" + bcrypt4[:59], []string{"h:1: the bcrypt hash is malformed" + rehash}},
		"a bcrypt hash of odd signs":  {"a:" + bcrypt4[:59] + "!", []string{"h:1: the bcrypt hash is malformed" + rehash}},
		"SHA-crypt rounds that stall": {"a:$6$rounds=1000001$salt$" + strings.Repeat("x", 86), []string{"h:1: the sha512-crypt rounds are above 1000000, which would stall the gateway" + rehash}},
		"SHA-crypt rounds too few":    {"a:$5$rounds=999$salt$" + strings.Repeat("x", 43), []string{"h:1: the sha256-crypt rounds are below 1000, the least that it defines" + rehash}},
		"SHA-crypt rounds too large for a number": {
			"a:$5$rounds=99999999999999999999$salt$" + strings.Repeat("x", 43),
			[]string{"h:1: the sha256-crypt hash is malformed" + rehash},
		},
		"SHA-crypt rounds with a zero first": {"a:$5$rounds=05000$salt$" + strings.Repeat("x", 43), []string{"h:1: the sha256-crypt hash is malformed" + rehash}},
		"SHA-crypt with another option":      {"a:$5$laps=5000$salt$" + strings.Repeat("x", 43), []string{"h:1: the sha256-crypt hash is malformed" + rehash}},
		"SHA-crypt without a hash":           {"a:$6$salt", []string{"h:1: the sha512-crypt hash is malformed" + rehash}},
		"SHA-crypt with a part too many":     {"a:$6$rounds=5000$salt$x$y", []string{"h:1: the sha512-crypt hash is malformed" + rehash}},
		"SHA-crypt with a long salt":         {"a:$5$12345678901234567$" + strings.Repeat("x", 43), []string{"h:1: the sha256-crypt hash is malformed" + rehash}},
		"apr1 without a salt":                {"a:$apr1$$" + strings.Repeat("x", 22), []string{"h:1: the apr1 hash is malformed" + rehash}},
		"apr1 with a long salt":              {"a:$apr1$123456789$" + strings.Repeat("x", 22), []string{"h:1: the apr1 hash is malformed" + rehash}},
		"apr1 cut short":                     {"a:" + apr1[:20], []string{"h:1: the apr1 hash is malformed" + rehash}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := write(t, "h", test.content)
			k, err := legacy.Load(legacy.Options{HTPasswd: path})
			if k != nil {
				t.Error("a keyring in spite of mistakes")
			}
			if diff := cmp.Diff(test.want, errorsOf(err, path)); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHTPasswdForms(t *testing.T) {
	for name, content := range map[string]string{
		"a plain line":                "bob:" + apr1 + "\n",
		"no line end":                 "bob:" + apr1,
		"line ends of Windows":        "# users\r\n\r\nbob:" + apr1 + "\r\n",
		"a byte order mark":           "\xef\xbb\xbfbob:" + apr1 + "\n",
		"comments and blank lines":    "# bob:x\n\n  \t\n  # more\nbob:" + apr1 + "\n\n",
		"spaces around the line":      "  bob:" + apr1 + "\t \n",
		"a comment in a third column": "bob:" + apr1 + ":Bob of billing: left in May\n",
	} {
		t.Run(name, func(t *testing.T) {
			k := load(t, legacy.Options{HTPasswd: write(t, "h", content)})
			if k.Len() != 1 || !k.Authenticate(t.Context(), basic("bob", password)).OK() {
				t.Errorf("%d users, and bob is not verified", k.Len())
			}
		})
	}
}

func TestUserNamesMayHoldSpacesAndLetters(t *testing.T) {
	k := load(t, legacy.Options{HTPasswd: write(t, "h", "Jörg of ETL@acme.dev:"+apr1)})
	if got := k.Authenticate(t.Context(), basic("Jörg of ETL@acme.dev", password)); !got.OK() || got.CredentialID != "basic:Jörg of ETL@acme.dev" {
		t.Errorf("got %v %q", got.Status, got.CredentialID)
	}
}

func TestMistakesOfAllFilesAreReportedAtOnce(t *testing.T) {
	dir := t.TempDir()
	paths := map[string]string{"h": "a:plain\nb:plain\n", "keys": "x: y\n", "bearers": "- id: a\n"}
	for name, content := range paths {
		rewrite(t, filepath.Join(dir, name), content)
	}
	_, err := legacy.Load(legacy.Options{
		HTPasswd: filepath.Join(dir, "h"), APIKeys: filepath.Join(dir, "keys"), Bearers: filepath.Join(dir, "bearers"),
	})
	want := []string{
		"h:1: a password in plain text is not accepted" + rehash,
		"h:2: a password in plain text is not accepted" + rehash,
		`keys:1: the file is not a list: begin each entry with "- id:"`,
		"bearers:1: the entry has no owner: add the field owner",
		"bearers:1: the entry has no sha256: add the field sha256",
	}
	if diff := cmp.Diff(want, strings.Split(strings.ReplaceAll(err.Error(), dir+"/", ""), "\n")); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
}

func TestAFileOfSomethingElseIsNotReportedLineByLine(t *testing.T) {
	path := write(t, "h", strings.Repeat("text\n", 5000))
	_, err := legacy.Load(legacy.Options{HTPasswd: path})
	got := errorsOf(err, path)
	if len(got) != 101 || got[100] != "h: 4900 more mistakes are not shown: check that this is the right file" {
		t.Errorf("%d lines, the last %q", len(got), got[len(got)-1])
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	huge := filepath.Join(dir, "huge")
	rewrite(t, huge, "")
	if err := os.Truncate(huge, 16<<20+1); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	for path, want := range map[string]string{
		missing: ": cannot be read (no such file or directory): check the path and that Crossfade's user may read it",
		dir:     ": cannot be read (is a directory): check the path and that Crossfade's user may read it",
		huge:    ": the file is larger than 16 MiB: check that this is the right file",
	} {
		for _, o := range []legacy.Options{{HTPasswd: path}, {APIKeys: path}, {Bearers: path}} {
			if _, err := legacy.Load(o); fmt.Sprint(err) != path+want {
				t.Errorf("%+v: error %v, want %s%s", o, err, path, want)
			}
		}
	}
}
