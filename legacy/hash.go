package legacy

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"

	"github.com/GehirnInc/crypt/apr1_crypt"
	"github.com/go-crypt/crypt/algorithm/shacrypt"
	"golang.org/x/crypto/bcrypt"
)

// The hash schemes that are verified, by the name that OnVerify, Hash and
// Summary use.
const (
	Bcrypt      = "bcrypt"       // $2y$, $2a$, $2b$
	SHA512Crypt = "sha512-crypt" // $6$
	SHA256Crypt = "sha256-crypt" // $5$
	APR1        = "apr1"         // $apr1$, Apache's MD5 of 1,000 rounds
)

// Bounds that keep a file of hashes from stalling the gateway.
const (
	// minBcryptCost is the least that bcrypt defines.
	minBcryptCost = bcrypt.MinCost
	// maxBcryptCost takes about four seconds of a core.
	maxBcryptCost = 16
	// minRounds and defaultRounds of SHA-crypt are those of its specification
	// (Drepper, "Unix crypt using SHA-256 and SHA-512").
	minRounds     = 1_000
	defaultRounds = 5_000
	// maxRounds takes about half a second of a core, and three for the longest
	// password; the specification allows 999,999,999.
	maxRounds = 1_000_000
)

// maxPassword bounds the passwords that are compared, in bytes, because the
// time of SHA-crypt grows with the length. It is the bound of crypt(3) in
// libxcrypt (CRYPT_MAX_PASSPHRASE_SIZE), which verifies passwords for nginx;
// the htpasswd tool stops at 255.
const maxPassword = 512

// bcryptLength is how many bytes of a password bcrypt looks at. Apache
// truncates longer ones as well, so that one which was set there works here.
const bcryptLength = 72

// rehash is what to do about every hash that is refused.
const rehash = `hash the password again with "crossfade legacy hash" and put the result after the colon`

// class is what decides how long a verification takes: for bcrypt the cost is
// the binary logarithm of the rounds, for SHA-crypt the rounds, for apr1 1.
type class struct {
	scheme string
	cost   int
}

// hash is one stored hash of a password.
type hash struct {
	class
	// match verifies a password of at most maxPassword bytes. It is safe for
	// concurrent use.
	match func(password []byte) bool
}

// parseHash reads the hash of an htpasswd line. What is wrong with it comes
// back in words that hold nothing of the value.
func parseHash(value string) (h hash, wrong string) {
	switch {
	case hasAnyPrefix(value, "$2y$", "$2a$", "$2b$"):
		return parseBcrypt(value)
	case strings.HasPrefix(value, "$6$"):
		return parseSHACrypt(SHA512Crypt, value, 86)
	case strings.HasPrefix(value, "$5$"):
		return parseSHACrypt(SHA256Crypt, value, 43)
	case strings.HasPrefix(value, "$apr1$"):
		return parseAPR1(value)
	default:
		return hash{}, refusal(value)
	}
}

// refusal names what a value is that no accepted scheme begins with.
func refusal(value string) string {
	switch {
	case value == "":
		return "the user has no password hash"
	case hasAnyPrefix(value, "{SHA}", "{SSHA}"):
		return "SHA-1 ({SHA}) is not accepted, because it is broken by guessing"
	case hasAnyPrefix(value, "$1$"):
		return "MD5-crypt ($1$) is not accepted"
	case hasAnyPrefix(value, "$2x$", "$2$"):
		return "this early variant of bcrypt is not accepted, because it computes wrong hashes; only $2y$, $2a$ and $2b$ are"
	case strings.HasPrefix(value, "$"):
		return "the hash scheme is not one of bcrypt, sha512-crypt, sha256-crypt and apr1"
	case len(value) == 13 && isCrypt64(value), len(value) == 20 && value[0] == '_' && isCrypt64(value[1:]):
		return "DES crypt is not accepted, because it is broken by guessing and looks at 8 characters only"
	default:
		return "a password in plain text is not accepted"
	}
}

func parseBcrypt(value string) (hash, string) {
	const malformed = "the bcrypt hash is malformed"
	// $2y$CC$ and 22 characters of salt and 31 of hash.
	if len(value) != 60 || value[6] != '$' || !isCrypt64(value[7:]) {
		return hash{}, malformed
	}
	cost, ok := decimal(value[4:6])
	if !ok || cost < minBcryptCost {
		return hash{}, malformed
	}
	if cost > maxBcryptCost {
		return hash{}, fmt.Sprintf("the bcrypt cost is above %d, which would stall the gateway", maxBcryptCost)
	}
	stored := []byte(value)
	return hash{class{Bcrypt, cost}, func(password []byte) bool {
		return bcrypt.CompareHashAndPassword(stored, password[:min(len(password), bcryptLength)]) == nil
	}}, ""
}

func parseSHACrypt(scheme, value string, keyLength int) (hash, string) {
	malformed := "the " + scheme + " hash is malformed"
	rounds := defaultRounds
	parts := strings.Split(value, "$")[2:] // [rounds=N] salt key
	if len(parts) == 3 {
		text, ok := strings.CutPrefix(parts[0], "rounds=")
		if !ok || text == "" || text[0] == '0' {
			return hash{}, malformed
		}
		rounds, ok = decimal(text)
		switch {
		case !ok:
			return hash{}, malformed
		case rounds > maxRounds:
			return hash{}, fmt.Sprintf("the %s rounds are above %d, which would stall the gateway", scheme, maxRounds)
		case rounds < minRounds:
			return hash{}, fmt.Sprintf("the %s rounds are below %d, the least that it defines", scheme, minRounds)
		}
		parts = parts[1:]
	}
	// crypt(3) cuts salts at 16 characters and prints them cut: a hash with a
	// longer one came out of no crypt(3).
	if len(parts) != 2 || len(parts[0]) > 16 || !isCrypt64(parts[0]) || len(parts[1]) != keyLength || !isCrypt64(parts[1]) {
		return hash{}, malformed
	}
	return shaCrypt(scheme, value, rounds)
}

// shaCrypt builds the verifier of a well-formed value.
func shaCrypt(scheme, value string, rounds int) (hash, string) {
	d, err := shacrypt.Decode(value)
	if err != nil { // the text of err would show the value
		return hash{}, "the " + scheme + " hash is malformed"
	}
	return hash{class{scheme, rounds}, d.MatchBytes}, ""
}

func parseAPR1(value string) (hash, string) {
	parts := strings.Split(value, "$")[2:] // salt key
	if len(parts) != 2 || parts[0] == "" || len(parts[0]) > 8 || !isCrypt64(parts[0]) ||
		len(parts[1]) != 22 || !isCrypt64(parts[1]) {
		return hash{}, "the apr1 hash is malformed"
	}
	return hash{class{APR1, 1}, func(password []byte) bool {
		return apr1_crypt.New().Verify(value, password) == nil
	}}, ""
}

// dummy returns a hash of c that no known password opens: salt and hash are
// random. To verify it takes as long as a real one. SHA-crypt may have fewer
// rounds than a real hash, for completion.
func dummy(c class) hash {
	var value string
	switch c.scheme {
	case Bcrypt:
		value = fmt.Sprintf("$2y$%02d$%s", c.cost, randomText(53))
		h, _ := parseBcrypt(value)
		return h
	case APR1:
		h, _ := parseAPR1("$apr1$" + randomText(8) + "$" + randomText(22))
		return h
	case SHA256Crypt:
		value = fmt.Sprintf("$5$rounds=%d$%s$%s", c.cost, randomText(16), randomText(43))
	default:
		value = fmt.Sprintf("$6$rounds=%d$%s$%s", c.cost, randomText(16), randomText(86))
	}
	h, _ := shaCrypt(c.scheme, value, c.cost)
	return h
}

// randomText returns n random characters of the alphabet of rand.Text, which
// every scheme's alphabet contains.
func randomText(n int) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(rand.Text())
	}
	return b.String()[:n]
}

// isCrypt64 reports whether s is of the alphabet that all crypt schemes share.
func isCrypt64(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '.' <= c && c <= '9') { // ./0-9 are neighbours
			return false
		}
	}
	return true
}

// decimal reads digits without sign; ok is false for anything else.
func decimal(s string) (n int, ok bool) {
	u, err := strconv.ParseUint(s, 10, 31)
	return int(u), err == nil
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
