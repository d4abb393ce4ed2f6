package config

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"unique"
)

// redacted is what a secret prints as, whatever its value or length.
const redacted = "[redacted]"

// Secret is a value that must never reach a log, a page or an error. It prints
// as "[redacted]" under every verb of fmt, in JSON, YAML and text encodings
// and in slog. Only Reveal shows it. The zero value is the empty secret. Two
// secrets are == when their values are.
type Secret struct{ value hidden }

// hidden keeps text where fmt does not get at it even under %p and %w, for
// which it calls no method of the value but prints its fields. The zero value
// is the empty text.
type hidden struct{ handle unique.Handle[string] }

func hide(text string) hidden {
	if text == "" {
		return hidden{}
	}
	return hidden{unique.Make(text)}
}

func (h hidden) text() string {
	if h == (hidden{}) {
		return ""
	}
	return h.handle.Value()
}

// NewSecret wraps value.
func NewSecret(value string) Secret { return Secret{hide(value)} }

// Reveal returns the wrapped value. Call it where the value is sent, and
// nowhere else.
func (s Secret) Reveal() string { return s.value.text() }

// Empty reports whether there is no secret at all.
func (s Secret) Empty() bool { return s == Secret{} }

// String implements fmt.Stringer and never shows the value.
func (s Secret) String() string { return redacted }

// GoString implements fmt.GoStringer for %#v.
func (s Secret) GoString() string { return redacted }

// Format implements fmt.Formatter, so that no verb reaches the field.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON implements json.Marshaler.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// MarshalYAML implements yaml.Marshaler.
func (s Secret) MarshalYAML() (any, error) { return redacted, nil }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// UnmarshalText implements encoding.TextUnmarshaler and takes the text as it
// is. What MarshalText wrote does not come back.
func (s *Secret) UnmarshalText(text []byte) error {
	s.value = hide(string(text))
	return nil
}

// SecretURL is a URL that may hold a password. It prints with the password and
// every query value that names one replaced by "[redacted]", so that host and
// path can be shown. Only Reveal shows the whole. The zero value is no URL.
type SecretURL struct{ value hidden }

// NewSecretURL wraps value, which should parse as a URL; one that does not
// prints as "[redacted]" altogether.
func NewSecretURL(value string) SecretURL { return SecretURL{hide(value)} }

// Reveal returns the URL with its password.
func (u SecretURL) Reveal() string { return u.value.text() }

// Empty reports whether there is no URL.
func (u SecretURL) Empty() bool { return u == SecretURL{} }

// String implements fmt.Stringer: the URL without its secrets.
func (u SecretURL) String() string {
	if u.Empty() {
		return ""
	}
	parsed, err := url.Parse(u.Reveal())
	if err != nil {
		return redacted
	}
	var b strings.Builder
	if parsed.Scheme != "" {
		b.WriteString(parsed.Scheme + "://")
	}
	if user := parsed.User; user != nil {
		b.WriteString(url.User(user.Username()).String())
		if _, has := user.Password(); has {
			b.WriteString(":" + redacted)
		}
		b.WriteByte('@')
	}
	b.WriteString(parsed.Host + parsed.EscapedPath())
	if parsed.Opaque != "" {
		b.WriteString(redacted)
	}
	for i, pair := range strings.Split(parsed.RawQuery, "&") {
		if pair == "" {
			continue
		}
		name, _, _ := strings.Cut(pair, "=")
		if strings.Contains(strings.ToLower(name), "pass") || strings.Contains(name, "%") {
			pair = name + "=" + redacted
		}
		if i == 0 {
			b.WriteByte('?')
		} else {
			b.WriteByte('&')
		}
		b.WriteString(pair)
	}
	return b.String()
}

// GoString implements fmt.GoStringer for %#v.
func (u SecretURL) GoString() string { return u.String() }

// Format implements fmt.Formatter, so that no verb reaches the field.
func (u SecretURL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.String()) }

// MarshalText implements encoding.TextMarshaler.
func (u SecretURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// MarshalJSON implements json.Marshaler.
func (u SecretURL) MarshalJSON() ([]byte, error) { return json.Marshal(u.String()) }

// MarshalYAML implements yaml.Marshaler.
func (u SecretURL) MarshalYAML() (any, error) { return u.String(), nil }

// LogValue implements slog.LogValuer.
func (u SecretURL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// UnmarshalText implements encoding.TextUnmarshaler and takes the text as it
// is. Secrets that MarshalText removed do not come back.
func (u *SecretURL) UnmarshalText(text []byte) error {
	u.value = hide(string(text))
	return nil
}
