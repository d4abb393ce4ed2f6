package legacy_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/legacy"
)

const (
	digest1 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" // of "test"
	digest2 = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752" // of "test2"
)

func TestKeysMistakes(t *testing.T) {
	const (
		good      = "- id: a\n  owner: o\n  sha256: " + digest1 + "\n"
		pasted    = "sha256 is not a digest of 64 hexadecimal digits (never write the key itself here: if this is one, it is exposed and must be replaced): " + makeDigest
		nothing   = "sha256 is the digest of nothing at all, as an unset variable makes it: " + makeDigest
		notSingle = " is empty or not a single value: write one value after "
		noTags    = ":, without tags and aliases"
		unread    = "the YAML cannot be read from here on: check indentation, quotes and brackets"
	)
	tests := map[string]struct {
		content string
		want    []string
	}{
		"a key pasted for its digest": {
			"- id: a\n  owner: o\n  sha256: sk_live_4eC39HqLyjWDarjtT1zdp7dc\n",
			[]string{"k:3: " + pasted},
		},
		"a digest cut short":    {"- id: a\n  owner: o\n  sha256: " + digest1[:63] + "\n", []string{"k:3: " + pasted}},
		"a digest of SHA-1":     {"- id: a\n  owner: o\n  sha256: a94a8fe5ccb19ba61c4c0873d391e987982fbbd3\n", []string{"k:3: " + pasted}},
		"a digest not in hex":   {"- id: a\n  owner: o\n  sha256: " + strings.Repeat("g", 64) + "\n", []string{"k:3: " + pasted}},
		"a digest of nothing":   {"- id: a\n  owner: o\n  sha256: " + legacy.Digest(identity.NewSecret("")) + "\n", []string{"k:3: " + nothing}},
		"a digest of a newline": {"- id: a\n  owner: o\n  sha256: " + legacy.Digest(identity.NewSecret("\n")) + "\n", []string{"k:3: " + nothing}},
		"fields that are missing": {
			"- id: a\n- owner: o\n- sha256: " + digest1 + "\n- {}\n",
			[]string{
				"k:1: the entry has no owner: add the field owner",
				"k:1: the entry has no sha256: add the field sha256",
				"k:2: the entry has no id: add the field id",
				"k:2: the entry has no sha256: add the field sha256",
				"k:3: the entry has no id: add the field id",
				"k:3: the entry has no owner: add the field owner",
				"k:4: the entry has no id: add the field id",
				"k:4: the entry has no owner: add the field owner",
				"k:4: the entry has no sha256: add the field sha256",
			},
		},
		"an unknown field": {
			good + "  key: sk_live_4eC39HqLyjWDarjtT1zdp7dc\n",
			[]string{"k:4: unknown field: the fields are id, owner, sha256, expires and revoked"},
		},
		"a merge key": {
			good + "  <<: {revoked: false}\n",
			[]string{"k:4: unknown field: the fields are id, owner, sha256, expires and revoked"},
		},
		"a field in capitals": {
			good + "  Expires: 2026-06-30\n",
			[]string{"k:4: unknown field: the fields are id, owner, sha256, expires and revoked"},
		},
		"a field that is a mapping": {
			good + "  ? {a: b}\n  : c\n",
			[]string{"k:4: unknown field: the fields are id, owner, sha256, expires and revoked"},
		},
		"a field twice": {good + "  owner: p\n", []string{"k:4: the field stands on line 2 of the entry already: delete one of the two"}},
		"an id twice": {
			good + "- {id: a, owner: o, sha256: " + digest2 + "}\n",
			[]string{"k:4: the id stands on line 1 already: give each credential an id of its own"},
		},
		"a digest twice, in other letters": {
			good + "- id: b\n  owner: p\n  sha256: sha256:" + strings.ToUpper(digest1) + "\n",
			[]string{"k:6: the digest stands on line 3 already, and one secret cannot have two entries: delete one of the two entries, or issue a secret of its own"},
		},
		"id and digest exchanged": {
			"- id: " + digest1 + "\n  owner: o\n  sha256: etl\n",
			[]string{"k:1: id looks like a digest, which belongs under sha256: write a short name that may stand in logs", "k:3: " + pasted},
		},
		"an id with a line break": {
			"- {id: \"a\\nb\", owner: o, sha256: " + digest1 + "}\n",
			[]string{"k:1: id holds a control or invisible character or begins or ends with a space: write a short name that may stand in logs"},
		},
		"an owner that is too long": {
			"- {id: a, owner: " + strings.Repeat("o", 256) + ", sha256: " + digest1 + "}\n",
			[]string{"k:1: owner is longer than 255 bytes: write a short name that may stand in logs"},
		},
		"an empty expires":     {good + "  expires:\n", []string{"k:4: expires" + notSingle + "expires" + noTags}},
		"a null owner":         {"- {id: a, owner: ~, sha256: " + digest1 + "}\n", []string{"k:1: owner" + notSingle + "owner" + noTags}},
		"an owner of two":      {"- {id: a, owner: [o, p], sha256: " + digest1 + "}\n", []string{"k:1: owner" + notSingle + "owner" + noTags}},
		"a tag":                {"- {id: a, owner: !env OWNER, sha256: " + digest1 + "}\n", []string{"k:1: owner" + notSingle + "owner" + noTags}},
		"an alias":             {"- {id: &x a, owner: *x, sha256: " + digest1 + "}\n", []string{"k:1: owner" + notSingle + "owner" + noTags}},
		"an alias of an entry": {"- &x {id: a, owner: o, sha256: " + digest1 + "}\n- *x\n", []string{`k:2: the entry is not a mapping: write it as "- id: ...", then owner and sha256 on lines of their own`}},
		"a date that is none":  {good + "  expires: 2026-02-30\n", []string{"k:4: expires is neither a date nor a time: write 2026-06-30 or 2026-06-30T12:00:00Z"}},
		"a time without zone":  {good + "  expires: 2026-06-30 12:00:00\n", []string{"k:4: expires is neither a date nor a time: write 2026-06-30 or 2026-06-30T12:00:00Z"}},
		"revoked yes":          {good + "  revoked: yes\n", []string{"k:4: revoked is neither true nor false: write true or false without quotes"}},
		"revoked in quotes":    {good + "  revoked: \"true\"\n", []string{"k:4: revoked is neither true nor false: write true or false without quotes"}},
		"a mapping for a list": {"keys:\n" + good, []string{`k:1: the file is not a list: begin each entry with "- id:"`}},
		"text for a list":      {"sk_live_4eC39HqLyjWDarjtT1zdp7dc\n", []string{`k:1: the file is not a list: begin each entry with "- id:"`}},
		"an entry of text":     {"- sk_live_4eC39HqLyjWDarjtT1zdp7dc\n", []string{`k:1: the entry is not a mapping: write it as "- id: ...", then owner and sha256 on lines of their own`}},
		"a second document":    {good + "---\n" + good, []string{"k:4: a second YAML document begins: keep one list in the file"}},
		"bad YAML":             {good + "  owner: \"o\n", []string{"k:4: " + unread}},
		"bad YAML in a second document": {
			good + "---\n- \"o\n", []string{"k:5: " + unread},
		},
		"an alias that quotes a secret": {"- id: a\n  owner: *sk_live_4eC39HqLyjWDarjtT1zdp7dc\n", []string{"k: " + unread}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := write(t, "k", test.content)
			for _, o := range []legacy.Options{{APIKeys: path}, {Bearers: path}} {
				k, err := legacy.Load(o)
				if k != nil {
					t.Error("a keyring in spite of mistakes")
				}
				if diff := cmp.Diff(test.want, errorsOf(err, path)); diff != "" {
					t.Errorf("errors (-want +got):\n%s", diff)
				}
			}
		})
	}
}

const makeDigest = `write its SHA-256, as printed by: printf %s "$KEY" | sha256sum`

func TestKeysForms(t *testing.T) {
	for name, content := range map[string]string{
		"a bare digest":          "- id: a\n  owner: o\n  sha256: " + digest1 + "\n",
		"a digest with prefix":   "- {id: a, owner: o, sha256: 'sha256:" + digest1 + "'}\n",
		"capital digits":         "- {id: a, owner: o, sha256: " + strings.ToUpper(digest1) + "}\n",
		"a byte order mark":      "\xef\xbb\xbf- {id: a, owner: o, sha256: " + digest1 + "}\n",
		"line ends of Windows":   "- id: a\r\n  owner: o\r\n  sha256: " + digest1 + "\r\n",
		"comments and a start":   "# keys\n---\n- id: a # mine\n  owner: o\n  sha256: " + digest1 + "\n",
		"an id of digits":        "- {id: 007, owner: 12, sha256: " + digest1 + "}\n",
		"a far expiry in a zone": "- {id: a, owner: o, expires: 9999-12-31T00:00:00+01:00, sha256: " + digest1 + "}\n",
		"not revoked":            "- {id: a, owner: o, revoked: false, sha256: " + digest1 + "}\n",
	} {
		t.Run(name, func(t *testing.T) {
			k := load(t, legacy.Options{APIKeys: write(t, "k", content)})
			if !k.Authenticate(t.Context(), apiKey("test")).OK() {
				t.Error("the key is not verified")
			}
		})
	}
}

func TestADigestOfDigitsAloneIsNoNumber(t *testing.T) {
	digits := strings.Repeat("1234567890", 6) + "12e4"
	k := load(t, legacy.Options{APIKeys: write(t, "k", "- {id: 1e3, owner: 0x10, sha256: "+digits+"}\n")})
	if got := k.Credentials()[0]; got.ID != "api_key:1e3" || got.Owner != "0x10" {
		t.Errorf("got %+v, want the text as it stands in the file", got)
	}
}

func TestOneSecretMayBeAKeyAndAToken(t *testing.T) {
	path := write(t, "k", "- {id: a, owner: o, sha256: "+digest1+"}\n")
	k := load(t, legacy.Options{APIKeys: path, Bearers: path})
	if id := k.Authenticate(t.Context(), apiKey("test")).CredentialID; id != "api_key:a" {
		t.Errorf("as a key it is %q", id)
	}
	if id := k.Authenticate(t.Context(), bearer("test")).CredentialID; id != "static_bearer:a" {
		t.Errorf("as a token it is %q", id)
	}
}

func TestMistakesCanBeTakenApart(t *testing.T) {
	path := write(t, "k", "- id: a\n")
	_, err := legacy.Load(legacy.Options{APIKeys: path})
	m, ok := errors.AsType[*legacy.Mistake](err)
	want := &legacy.Mistake{File: path, Line: 1, What: "the entry has no owner", Do: "add the field owner"}
	if !ok || !cmp.Equal(m, want) {
		t.Errorf("got %+v, want %+v", m, want)
	}
}
