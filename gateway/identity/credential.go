package identity

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// Secret is a value that must never reach a log, a page or an error: a
// password, a key or a token. It prints as "[redacted]" under every verb of
// fmt, in JSON and text encodings and in slog. Where fmt calls no methods (in
// unexported fields, and under verbs that it rejects, such as %w and %p) an
// address stands in its place. Only Reveal shows it.
//
// The zero value is the empty secret. Secrets are compared by Equal; == does
// not compile.
type Secret struct {
	_ [0]func() // no ==: it would compare addresses, and tell by its time how much is right
	// value is nil when empty. It is a pointer because fmt prints the fields of
	// a struct by reflection where it may not call Format, but follows no
	// pointer below the top.
	value *string
}

// redacted is what a Secret prints as, whatever its value or length.
const redacted = "[redacted]"

// NewSecret wraps value.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{value: &value}
}

// Reveal returns the wrapped value. Call it where the value is verified or
// sent, and nowhere else.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Equal reports whether both wrap the same value. Its time depends on the
// lengths alone.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// Empty reports whether there is no secret at all.
func (s Secret) Empty() bool { return s.value == nil }

// Len returns the length of the secret in bytes, which is not secret: bounds
// are checked against it.
func (s Secret) Len() int { return len(s.Reveal()) }

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

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// Scheme is how a client presents itself. Its text is a metric label.
type Scheme uint8

// The schemes. SchemeNone, the zero value, is a request without any
// credential that governs.
const (
	SchemeNone         Scheme = iota
	SchemeBasic               // RFC 7617
	SchemeAPIKey              // a configurable header
	SchemeStaticBearer        // RFC 6750 syntax, a fixed value known in advance
	SchemeOIDC                // RFC 6750 syntax, a JWT of a configured issuer
)

// Schemes lists every scheme in declaration order, for series that must exist
// at zero.
func Schemes() []Scheme {
	return []Scheme{SchemeNone, SchemeBasic, SchemeAPIKey, SchemeStaticBearer, SchemeOIDC}
}

// String returns the label of the scheme.
func (s Scheme) String() string {
	switch s {
	case SchemeBasic:
		return "basic"
	case SchemeAPIKey:
		return "api_key"
	case SchemeStaticBearer:
		return "static_bearer"
	case SchemeOIDC:
		return "oidc"
	default:
		return "none"
	}
}

// MarshalText implements encoding.TextMarshaler.
func (s Scheme) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Legacy reports whether the scheme is one of the static credentials that
// Crossfade fades out.
func (s Scheme) Legacy() bool {
	return s == SchemeBasic || s == SchemeAPIKey || s == SchemeStaticBearer
}

// Credential is what a client presents. The zero value presents nothing.
type Credential struct {
	Scheme Scheme
	// User is the user name of SchemeBasic and empty otherwise. It is the
	// client's word: nothing may rest on it before the secret is verified.
	User string
	// Secret is the password, key or token.
	Secret Secret
}

// Present reports whether there is a credential.
func (c Credential) Present() bool { return c.Scheme != SchemeNone }
