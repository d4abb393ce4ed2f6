package identity_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
)

// canary is a value that no other output can contain by accident.
const canary = "hunter2-Zq9"

// shows reports the spelling in which out gives the canary away, "" if none
// does.
func shows(out string) string {
	var decimals []string
	for _, b := range []byte(canary) {
		decimals = append(decimals, strconv.Itoa(int(b)))
	}
	spaced := fmt.Sprintf("% x", canary)
	lower := strings.ToLower(out)
	for name, spelling := range map[string]string{
		"plain":              canary,
		"hexadecimal":        hex.EncodeToString([]byte(canary)),
		"spaced hex":         spaced,
		"0x hex":             "0x" + strings.ReplaceAll(spaced, " ", " 0x"),
		"Go bytes":           "0x" + strings.ReplaceAll(spaced, " ", ", 0x"),
		"decimal bytes":      strings.Join(decimals, " "),
		"JSON bytes":         strings.Join(decimals, ","),
		"base64 (from JSON)": base64.StdEncoding.EncodeToString([]byte(canary)),
	} {
		if strings.Contains(lower, strings.ToLower(spelling)) {
			return name
		}
	}
	return ""
}

type (
	exported   struct{ S identity.Secret }
	unexported struct{ s identity.Secret }
	embedded   struct{ identity.Secret }
	hidden     struct {
		credential identity.Credential
		list       []identity.Secret
		named      map[string]identity.Secret
		pointer    *identity.Secret
		any        any
	}
	failure struct{ secret identity.Secret }
)

func (f failure) Error() string { return fmt.Sprintf("login with %v failed", f.secret) }

// holders are the values in which a secret may reach a printer.
func holders() map[string]any {
	s := identity.NewSecret(canary)
	p := &s
	c := identity.Credential{Scheme: identity.SchemeBasic, User: "svc-etl", Secret: s}
	h := hidden{c, []identity.Secret{s}, map[string]identity.Secret{"k": s}, p, s}
	return map[string]any{
		"the secret":                     s,
		"a pointer":                      p,
		"a pointer to a pointer":         &p,
		"a slice":                        []identity.Secret{s},
		"a slice of pointers":            []*identity.Secret{p},
		"an array":                       [1]identity.Secret{s},
		"a map":                          map[string]identity.Secret{"k": s},
		"an interface in a slice":        []any{s, p},
		"an exported field":              exported{s},
		"a pointer to an exported field": &exported{s},
		"an unexported field":            unexported{s},
		"a pointer to one":               &unexported{s},
		"an embedded field":              embedded{s},
		"a credential":                   c,
		"a pointer to a credential":      &c,
		"credentials by name":            map[string]identity.Credential{"k": c},
		"hidden holders":                 h,
		"a pointer to hidden holders":    &h,
		"an error":                       failure{s},
		"a wrapped error":                fmt.Errorf("start: %w", failure{s}),
		"joined errors":                  errors.Join(failure{s}, errors.New("more")),
	}
}

func TestASecretShowsUnderNoFormattingVerb(t *testing.T) {
	sprintf := fmt.Sprintf // vet would refuse the mistakes that are made below on purpose
	flags := []string{"", "+", "#", "-", " ", "0", "# ", "+#", "12", ".3", "40.20"}
	for name, v := range holders() {
		t.Run(name, func(t *testing.T) {
			for verb := rune('!'); verb <= '~'; verb++ {
				if verb == '%' {
					continue
				}
				for _, flag := range flags {
					format := "%" + flag + string(verb)
					for _, out := range []string{fmt.Sprintf(format, v), fmt.Errorf(format, v).Error()} {
						if how := shows(out); how != "" {
							t.Errorf("%s shows the secret (%s): %s", format, how, out)
						}
					}
				}
			}
			for kind, out := range map[string]string{
				"Sprint":             fmt.Sprint(v),
				"Sprintln":           fmt.Sprintln(v),
				"an extra argument":  sprintf("no verb", v),
				"a width":            sprintf("%*d", v, 1),
				"an explicit index":  fmt.Sprintf("%[1]v %[1]q", v),
				"a nested Sprintf":   fmt.Sprintf("%v", []any{[]any{v}}),
				"an error's message": fmt.Errorf("cannot use %v: %w", v, errors.New("refused")).Error(),
			} {
				if how := shows(out); how != "" {
					t.Errorf("%s shows the secret (%s): %s", kind, how, out)
				}
			}
		})
	}
}

func TestASecretShowsInNoEncoding(t *testing.T) {
	encoders := map[string]func(any) []byte{
		"JSON": func(v any) []byte { b, err := json.Marshal(v); return fmt.Appendf(b, "%v", err) },
		"indented JSON": func(v any) []byte {
			b, err := json.MarshalIndent(map[string]any{"v": v}, "", " ")
			return fmt.Appendf(b, "%v", err)
		},
		"XML": func(v any) []byte { b, err := xml.Marshal(v); return fmt.Appendf(b, "%v", err) },
		"gob": func(v any) []byte {
			var b bytes.Buffer
			err := gob.NewEncoder(&b).Encode(v)
			return fmt.Appendf(b.Bytes(), "%v", err)
		},
		"slog JSON": func(v any) []byte {
			var b bytes.Buffer
			slog.New(slog.NewJSONHandler(&b, nil)).With("with", v).WithGroup("g").Info("m", "v", v, slog.Group("h", "v", v))
			return b.Bytes()
		},
		"slog text": func(v any) []byte {
			var b bytes.Buffer
			slog.New(slog.NewTextHandler(&b, nil)).With("with", v).WithGroup("g").Info("m", "v", v, slog.Group("h", "v", v))
			return b.Bytes()
		},
	}
	for name, v := range holders() {
		for encoding, encode := range encoders {
			t.Run(name+" in "+encoding, func(t *testing.T) {
				out := string(encode(v))
				if how := shows(out); how != "" {
					t.Errorf("shows the secret (%s): %s", how, out)
				}
			})
		}
	}
}

func TestASecretPrintsAsRedacted(t *testing.T) {
	s := identity.NewSecret(canary)
	text, err := s.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(map[string]any{"s": s, "p": &s})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{
		s.String(), s.GoString(), s.LogValue().String(), string(text), string(asJSON),
		fmt.Sprintf("%s %v %+v %#v %q %x %d", s, s, s, s, s, s, s),
		fmt.Sprintf("%v", identity.Credential{Scheme: identity.SchemeBasic, User: "svc-etl", Secret: s}),
		fmt.Sprint(identity.Secret{}),
	}
	want := []string{
		"[redacted]", "[redacted]", "[redacted]", "[redacted]", `{"p":"[redacted]","s":"[redacted]"}`,
		strings.TrimSpace(strings.Repeat("[redacted] ", 7)),
		"{basic svc-etl [redacted]}",
		"[redacted]", // whether there is a secret does not show either
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mismatch (-want +got):\n%s", diff)
	}
}

func TestRevealGivesASecretBack(t *testing.T) {
	for name, value := range map[string]string{
		"nothing": "", "a password": canary, "a space": " ", "bytes that are no text": "\xff\x00",
	} {
		t.Run(name, func(t *testing.T) {
			s := identity.NewSecret(value)
			if s.Reveal() != value || s.Len() != len(value) || s.Empty() != (value == "") {
				t.Errorf("Reveal %q, Len %d, Empty %t of %q", s.Reveal(), s.Len(), s.Empty(), value)
			}
		})
	}
}

func TestSecretsAreEqualByValue(t *testing.T) {
	for name, tt := range map[string]struct {
		a, b identity.Secret
		want bool
	}{
		"the same value":                {identity.NewSecret("a"), identity.NewSecret("a"), true},
		"another value of that length":  {identity.NewSecret("a"), identity.NewSecret("b"), false},
		"a prefix":                      {identity.NewSecret("a"), identity.NewSecret("ab"), false},
		"the zero value and no secret":  {identity.Secret{}, identity.NewSecret(""), true},
		"the zero value and one secret": {identity.Secret{}, identity.NewSecret("a"), false},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.a.Equal(tt.b) != tt.want || tt.b.Equal(tt.a) != tt.want || cmp.Equal(tt.a, tt.b) != tt.want {
				t.Errorf("Equal is not %t", tt.want)
			}
			if reflect.TypeOf(tt.a).Comparable() {
				t.Error("secrets can be compared by ==")
			}
		})
	}
}

func TestSchemes(t *testing.T) {
	type row struct {
		Label  string
		Legacy bool
	}
	want := []row{{"none", false}, {"basic", true}, {"api_key", true}, {"static_bearer", true}, {"oidc", false}}
	var got []row
	for i, s := range identity.Schemes() {
		if int(s) != i {
			t.Errorf("scheme %d stands at place %d", s, i)
		}
		text, err := s.MarshalText()
		if err != nil || string(text) != s.String() {
			t.Errorf("MarshalText of %s: %q, %v", s, text, err)
		}
		got = append(got, row{s.String(), s.Legacy()})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mismatch (-want +got):\n%s", diff)
	}
	if unknown := identity.Scheme(200); unknown.String() != "none" || unknown.Legacy() {
		t.Errorf("an unknown scheme is %s, legacy %t", unknown, unknown.Legacy())
	}
}

func TestACredentialIsPresentByItsScheme(t *testing.T) {
	if (identity.Credential{User: "svc-etl", Secret: identity.NewSecret("x")}).Present() {
		t.Error("a credential without a scheme is present")
	}
	for _, s := range identity.Schemes()[1:] {
		if !(identity.Credential{Scheme: s}).Present() {
			t.Errorf("a credential of scheme %s is not present", s)
		}
	}
}
