package oidcauth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"crossfade/gateway/identity"
)

// Bounds of what is read out of a token. Real tokens stay far below: the
// deepest claim of the presets is three levels down.
const (
	maxDepth  = 16
	maxKeyID  = 1024
	maxNumber = 64 // bytes of a number literal
	// maxTime is the last second of the year 9999, the largest that time.Time
	// can encode again (RFC 3339).
	maxTime = 253402300799
)

// finding is one thing that is wrong with a token, in a sentence for the
// operator. It may quote claims and configuration. The sample is the same for
// whoever may see the team, with claims by their names; see identity.Sample.
type finding struct {
	reason identity.Reason
	detail string
	sample string
}

// found makes a finding of one line, whatever a provider's error may quote.
func found(r identity.Reason, format string, args ...any) finding {
	detail := strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, fmt.Sprintf(format, args...))
	return finding{reason: r, detail: detail}
}

// plain makes a finding whose sentence quotes nothing that a token holds but names
// of ours, so that it is its sample as well.
func plain(r identity.Reason, format string, args ...any) finding {
	f := found(r, format, args...)
	return f.named("%s", f.detail)
}

// named gives a finding its sample.
func (f finding) named(format string, args ...any) finding {
	f.sample = identity.Sample(format, args...)
	return f
}

// token is a parsed and not yet verified JWT. The fields hold the zero value
// for a claim that is absent or has the wrong type.
type token struct {
	raw    string
	header map[string]json.RawMessage
	claims claims

	alg, kid, typ string
	crit          bool

	iss, sub, jti string
	aud           []string
	exp, nbf, iat time.Time
}

// parse reads a JWT in the compact serialization of a JWS (RFC 7515 section
// 7.1) without looking at the signature. It is stricter than RFC 7519 asks:
// duplicate members and names that differ only in case are refused (RFC 7519
// section 4 allows either that or the last one, and two readers that choose
// differently are an attack), as are line breaks inside base64url and bytes
// that are not UTF-8.
//
// The token is nil when nothing can be said about its claims.
func parse(raw string, maxBytes int) (*token, []finding) {
	if len(raw) > maxBytes {
		return nil, []finding{plain(identity.TokenOversize, "the token has %d bytes; at most %d are read", len(raw), maxBytes)}
	}
	switch dots := strings.Count(raw, "."); dots {
	case 2:
	case 0:
		return nil, []finding{plain(identity.OpaqueUnsupported, "the token has no dots, so it is not a JWT")}
	case 4: // RFC 7516 section 9 tells JWE from JWS by this
		return nil, []finding{plain(identity.JWEUnsupported, "the token has five segments, so it is encrypted (JWE)")}
	default:
		return nil, []finding{plain(identity.MalformedJWT, "a JWT has three segments, this token has %d", dots+1)}
	}
	segments := strings.Split(raw, ".")
	t := &token{raw: raw}
	var hard []finding
	for i, into := range []*map[string]json.RawMessage{&t.header, (*map[string]json.RawMessage)(&t.claims)} {
		part := [...]string{"header", "payload"}[i]
		data, err := decodeSegment(segments[i])
		if err == nil {
			*into, err = decodeObject(data)
		}
		var twin *twinError
		switch {
		case errors.As(err, &twin):
			hard = append(hard, found(identity.AmbiguousClaim, "the %s %s", part, twin).named("the %s %s", part, twin.sample()))
		case err != nil:
			return nil, []finding{plain(identity.MalformedJWT, "the %s %v", part, err)}
		}
	}
	if _, err := decodeSegment(segments[2]); err != nil {
		return nil, []finding{plain(identity.MalformedJWT, "the signature %v", err)}
	}
	if len(hard) > 0 {
		return nil, hard
	}
	return t, t.read()
}

// read fills the fields out of header and claims.
func (t *token) read() (bad []finding) {
	text := func(from claims, name string, into *string) {
		v, ok := from[name]
		if !ok {
			return
		}
		if err := json.Unmarshal(v, into); err != nil || v[0] != '"' {
			*into = ""
			bad = append(bad, plain(identity.ClaimTypeInvalid, "%s is %s, not a string", name, kindOf(v)))
		} else if !clean(*into) {
			bad = append(bad, plain(identity.ClaimTypeInvalid, "%s holds control characters", name))
			*into = ""
		}
	}
	date := func(name string, into *time.Time) {
		v, ok := t.claims[name]
		if !ok {
			return
		}
		at, err := numericDate(v)
		if err != nil {
			wrong := "is no time between 1970 and 9999"
			if kind := kindOf(v); kind != "a number" {
				wrong = "is " + kind + ", not a number"
			}
			bad = append(bad, found(identity.ClaimTypeInvalid, "%s %v", name, err).named("%s %s", name, wrong))
			return
		}
		*into = at
	}
	header := claims(t.header)
	text(header, "alg", &t.alg)
	text(header, "kid", &t.kid)
	text(header, "typ", &t.typ)
	if len(t.kid) > maxKeyID {
		bad = append(bad, plain(identity.ClaimTypeInvalid, "kid has %d bytes; at most %d are read", len(t.kid), maxKeyID))
		t.kid = ""
	}
	if _, ok := header["crit"]; ok { // RFC 7515 section 4.1.11: not understood means invalid
		t.crit = true
		bad = append(bad, found(identity.CritUnsupported, "the header demands extensions by crit: %s", shorten(string(header["crit"]))).
			named("the header demands extensions by crit, of which this gateway knows none"))
	}
	text(t.claims, "iss", &t.iss)
	text(t.claims, "sub", &t.sub)
	text(t.claims, "jti", &t.jti)
	date("exp", &t.exp)
	date("nbf", &t.nbf)
	date("iat", &t.iat)
	if v, ok := t.claims["aud"]; ok {
		aud, ok := stringOrList(v)
		if !ok {
			bad = append(bad, plain(identity.ClaimTypeInvalid, "aud is %s, neither a string nor a list of strings", kindOf(v)))
		}
		t.aud = aud
	}
	// Claims that later checks read as text: of another type they would count
	// as absent, and the sentence about them would be wrong.
	for _, name := range []string{"azp", "client_id", "cid", "appid", "tid", "email", "token_use", "nonce", "at_hash", "c_hash"} {
		var ignored string
		text(t.claims, name, &ignored)
	}
	for _, name := range []string{"scope", "scp"} {
		if v, ok := t.claims[name]; ok {
			if _, ok := stringOrList(v); !ok {
				bad = append(bad, plain(identity.ClaimTypeInvalid, "%s is %s, neither a string nor a list of strings", name, kindOf(v)))
			}
		}
	}
	if v, ok := t.claims["email_verified"]; ok {
		// Some providers send the word in quotes; anything else would be a guess.
		switch string(v) {
		case "true", "false", `"true"`, `"false"`:
		default:
			bad = append(bad, plain(identity.ClaimTypeInvalid, "email_verified is %s, not a boolean", kindOf(v)))
		}
	}
	return bad
}

// decodeSegment reads base64url without padding (RFC 7515 section 2). Bits
// left over and line breaks, which encoding/base64 would skip, are errors: one
// token shall have one spelling.
func decodeSegment(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("holds a line break")
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("is not base64url without padding")
	}
	return data, nil
}

// twinError says that one name could be read as two values.
type twinError struct{ name, twin string }

func (e *twinError) Error() string {
	if e.name == e.twin {
		return fmt.Sprintf("holds %s twice", show(e.name))
	}
	return fmt.Sprintf("holds both %s and %s", show(e.name), show(e.twin))
}

// sample is the same for a sample.
func (e *twinError) sample() string {
	name, ok := identity.ShownName(e.name)
	twin, shown := identity.ShownName(e.twin)
	switch {
	case !ok || !shown:
		return "holds a claim twice, or in two spellings, whose name cannot be shown"
	case name == twin:
		return "holds the claim " + name + " twice"
	default:
		return "holds both claims " + name + " and " + twin
	}
}

// decodeObject reads one JSON object. Members that stand twice are a twinError
// at any depth, names that differ only in case on the first level: further
// down, names are data (client ids, annotations) and legitimately differ so.
func decodeObject(data []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("is not UTF-8")
	}
	if !json.Valid(data) {
		return nil, errors.New("is not JSON")
	}
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); trimmed[0] != '{' {
		return nil, errors.New("is not a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := walk(d, 0); err != nil {
		return nil, err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		return nil, errors.New("is not a JSON object")
	}
	return object, nil
}

// walk reads one value that json.Valid has accepted.
func walk(d *json.Decoder, depth int) error {
	tok, err := d.Token()
	if err != nil {
		return errors.New("is not JSON")
	}
	switch tok := tok.(type) {
	case json.Number:
		if len(tok) > maxNumber {
			return fmt.Errorf("holds a number of %d digits", len(tok))
		}
	case json.Delim:
		if depth == maxDepth {
			return fmt.Errorf("is nested deeper than %d levels", maxDepth)
		}
		if tok == '[' {
			for d.More() {
				if err := walk(d, depth+1); err != nil {
					return err
				}
			}
		} else if err := walkMembers(d, depth); err != nil {
			return err
		}
		if _, err := d.Token(); err != nil && !errors.Is(err, io.EOF) {
			return errors.New("is not JSON")
		}
	}
	return nil
}

func walkMembers(d *json.Decoder, depth int) error {
	var twin *twinError // reported last, so that worse mistakes are seen first
	names := map[string]string{}
	for d.More() {
		tok, err := d.Token()
		name, ok := tok.(string)
		if err != nil || !ok {
			return errors.New("is not JSON")
		}
		key := name
		if depth == 0 {
			key = fold(name)
		}
		if other, taken := names[key]; taken && twin == nil {
			twin = &twinError{other, name}
		}
		names[key] = name
		if err := walk(d, depth+1); err != nil {
			var inner *twinError
			if !errors.As(err, &inner) {
				return err
			}
			twin = inner
		}
	}
	if twin != nil {
		return twin
	}
	return nil
}

// fold maps names that differ only in case to one, the long s and the Kelvin
// sign included, as encoding/json does when it looks for a field.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, s)
}

// numericDate reads RFC 7519's NumericDate: seconds since 1970, perhaps with a
// fraction, which is kept so that nothing lives longer than it says.
func numericDate(v json.RawMessage) (time.Time, error) {
	if kind := kindOf(v); kind != "a number" {
		return time.Time{}, fmt.Errorf("is %s, not a number", kind)
	}
	seconds, err := strconv.ParseFloat(string(v), 64)
	if err != nil || seconds < 0 || seconds > maxTime {
		return time.Time{}, fmt.Errorf("is %s, which is no time between 1970 and 9999", shorten(string(v)))
	}
	whole := int64(seconds)
	return time.Unix(whole, int64((seconds-float64(whole))*1e9)).UTC(), nil
}

// clean reports whether s may appear in headers and logs as it is. The
// replacement character stands for a lone surrogate, behind which two different
// values would look alike.
func clean(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError })
}

// kindOf names the JSON type of a valid value.
func kindOf(v json.RawMessage) string {
	if len(v) == 0 {
		return "nothing"
	}
	switch v[0] {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "a list"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}

// show quotes what a client sent, so that it can neither flood nor forge a log
// line.
func show(s string) string { return strconv.Quote(shorten(s)) }

func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// list quotes several values.
func list(values []string) string {
	const most = 10
	quoted := make([]string, 0, len(values))
	for i, v := range values {
		if i == most {
			quoted = append(quoted, fmt.Sprintf("and %d more", len(values)-most))
			break
		}
		quoted = append(quoted, show(v))
	}
	return strings.Join(quoted, ", ")
}
