package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"
)

// TokenDirVariable names the directory with the tokens of the task families that
// have one of their own.
const TokenDirVariable = "CROSSFADE_TOKEN_DIR"

// longestFileName leaves room for what a temporary name adds: file systems take
// 255 bytes.
const longestFileName = 200

// FamilyFile is the name of the file with the token of a task family: the family
// itself where it consists of ASCII letters, digits, dots, underscores, hyphens
// and tildes. Every other byte, and a dot at the beginning, is written as % and two
// hexadecimal digits, which is what quote(family, safe="") of Python's urllib.parse
// makes of it. Of what is longer than 200 bytes then, the name is "%sha256-" with
// the hash of the family in hex. No two families have one name.
func FamilyFile(family string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(family) {
		switch c := family[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '~', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&0xf])
		}
	}
	if b.Len() > longestFileName {
		sum := sha256.Sum256([]byte(family))
		return hashedName + hex.EncodeToString(sum[:])
	}
	return b.String()
}

// hashedName begins the name of the file of a family with a long name.
const hashedName = "%sha256-"

// isFamilyFile reports whether a name is that of the file of a family which one of
// the patterns has, or of one that was just being written (writePrivate). Of a long
// name the family cannot be told.
func isFamilyFile(patterns []Family, name string) bool {
	if written, ok := strings.CutPrefix(name, "."); ok { // no family's begins so
		name = written[:max(0, strings.LastIndexByte(written, '.'))]
	}
	if hash, ok := strings.CutPrefix(name, hashedName); ok {
		raw, err := hex.DecodeString(hash)
		return err == nil && len(raw) == sha256.Size
	}
	family, err := url.PathUnescape(name)
	return err == nil && FamilyFile(family) == name && familyOf(patterns, family) != nil
}
