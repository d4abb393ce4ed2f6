package token

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode"

	"crossfade/gateway/identity"
)

// maxText bounds what is repeated of a stranger's words, in characters.
const maxText = 300

// What looks like a credential in a stranger's words: what stands behind a name
// that says so, and any long word with a digit, which no sentence has but every
// token and key.
var (
	named = regexp.MustCompile(`(?i)\b((?:bearer|basic)\s+|[\w-]*(?:token|secret|passw(?:or)?d|assertion|api-?key|authorization)["']?\s*[:=]\s*(?:(?:bearer|basic)\s+)?["']?)[^\s"',;&]+`)
	words = regexp.MustCompile(`[A-Za-z0-9+_=.~-]{20,}`)
)

// plain returns a stranger's words as they may stand in an error: one line,
// printable, bounded, without the secrets given and without anything that looks
// like one.
func plain(text string, secrets ...identity.Secret) string {
	if len(text) > 16*maxText {
		text = text[:16*maxText]
	}
	for _, s := range secrets {
		if s.Empty() {
			continue
		}
		for _, form := range []string{s.Reveal(), url.QueryEscape(s.Reveal())} {
			text = strings.ReplaceAll(text, form, "[redacted]")
		}
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
	text = strings.Join(strings.Fields(text), " ")
	text = named.ReplaceAllString(text, "${1}[redacted]")
	text = words.ReplaceAllStringFunc(text, func(word string) string {
		if strings.ContainsAny(word, "0123456789") {
			return "[redacted]"
		}
		return word
	})
	if runes := []rune(text); len(runes) > maxText {
		text = string(runes[:maxText]) + "…"
	}
	return text
}

// accept takes the text of a token. It must be fit for a header: the letters
// that RFC 6750 section 2.1 allows, and no more than 64 KiB.
func accept(value string) (identity.Secret, error) {
	switch at := strings.IndexFunc(value, func(r rune) bool { return !tokenLetter(r) }); {
	case value == "":
		return identity.Secret{}, fmt.Errorf("it is empty")
	case len(value) > maxToken:
		return identity.Secret{}, fmt.Errorf("it is longer than %d KiB", maxToken>>10)
	case at >= 0:
		return identity.Secret{}, fmt.Errorf("its byte %d may not stand in a token (RFC 6750 section 2.1)", at)
	}
	return identity.NewSecret(value), nil
}

func tokenLetter(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-._~+/=", r)
}
