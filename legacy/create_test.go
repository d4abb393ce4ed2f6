package legacy_test

import (
	"strings"
	"testing"

	"crossfade/gateway/identity"
	"crossfade/legacy"
)

func TestHash(t *testing.T) {
	tests := map[string]struct {
		scheme string
		cost   int
		prefix string
	}{
		"bcrypt of cost 10 is the default": {"", 0, "$2y$10$"},
		"bcrypt with a cost":               {legacy.Bcrypt, 5, "$2y$05$"},
		"sha512-crypt with 200,000 rounds": {legacy.SHA512Crypt, 0, "$6$rounds=200000$"},
		"sha512-crypt with rounds":         {legacy.SHA512Crypt, 1000, "$6$rounds=1000$"},
		"sha256-crypt with rounds":         {legacy.SHA256Crypt, 6000, "$5$rounds=6000$"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			value, err := legacy.Hash(identity.NewSecret(password), test.scheme, test.cost)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(value, test.prefix) {
				t.Errorf("hash %s, want it to begin with %s", value, test.prefix)
			}
			k := load(t, legacy.Options{HTPasswd: write(t, "h", "u:"+value+"\n")})
			if !k.Authenticate(t.Context(), basic("u", password)).OK() {
				t.Error("the password does not verify against its new hash")
			}
			again, err := legacy.Hash(identity.NewSecret(password), test.scheme, test.cost)
			if err != nil || again == value {
				t.Errorf("the same hash twice (error %v): the salt is not random", err)
			}
		})
	}
}

func TestHashRefuses(t *testing.T) {
	tests := map[string]struct {
		password string
		scheme   string
		cost     int
		want     string
	}{
		"an empty password":                    {"", "", 0, "hash a password: it is empty: choose one that is not"},
		"a password that bcrypt would cut":     {strings.Repeat("q", 73), "", 0, "hash a password: it has 73 bytes and bcrypt ignores all after 72: choose a shorter one or sha512-crypt"},
		"a password over the bound":            {strings.Repeat("q", 513), legacy.SHA512Crypt, 0, "hash a password: it has 513 bytes and more than 512 are never accepted: choose a shorter one"},
		"a bcrypt cost that stalls":            {"q", legacy.Bcrypt, 17, "hash a password: bcrypt cost 17 is not in 4 to 16: leave it out for 10"},
		"a bcrypt cost too low":                {"q", legacy.Bcrypt, 3, "hash a password: bcrypt cost 3 is not in 4 to 16: leave it out for 10"},
		"rounds that stall":                    {"q", legacy.SHA256Crypt, 1_000_001, "hash a password: 1000001 rounds of SHA-crypt are not in 1000 to 1000000: leave them out for 200000"},
		"rounds too low":                       {"q", legacy.SHA512Crypt, 999, "hash a password: 999 rounds of SHA-crypt are not in 1000 to 1000000: leave them out for 200000"},
		"a scheme that is only verified":       {"q", legacy.APR1, 0, `hash a password: scheme "apr1" is not offered for new hashes: use bcrypt, sha512-crypt or sha256-crypt`},
		"a scheme that nobody knows of at all": {"q", "rot13", 0, `hash a password: scheme "rot13" is not offered for new hashes: use bcrypt, sha512-crypt or sha256-crypt`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			value, err := legacy.Hash(identity.NewSecret(test.password), test.scheme, test.cost)
			if value != "" || err == nil || err.Error() != test.want {
				t.Errorf("got %q, error %v\nwant error %s", value, err, test.want)
			}
		})
	}
}

func TestDigestIsSHA256OfTheBareSecret(t *testing.T) {
	// FIPS 180-2 appendix B.1.
	const want = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if got := legacy.Digest(identity.NewSecret("abc")); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
