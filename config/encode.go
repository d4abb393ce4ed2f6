package config

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// WriteYAML writes the effective configuration, defaults included, in the
// order of the documentation. Secrets are redacted; nothing that is empty is
// written. What came out of a secret's file is shown as that file, so unless a
// secret stands in the configuration itself, the result loads again to the
// same.
func (c *Config) WriteYAML(w io.Writer) error {
	shown := *c
	if shown.Redis.PasswordFile != "" {
		shown.Redis.Password = Secret{}
	}
	if shown.Redis.URLFile != "" {
		shown.Redis.URL = SecretURL{}
	}
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(encode(reflect.ValueOf(shown))); err != nil {
		return fmt.Errorf("config: write YAML: %w", err)
	}
	if err := encoder.Close(); err != nil {
		return fmt.Errorf("config: write YAML: %w", err)
	}
	return nil
}

// Hash returns a hex SHA-256 of the effective configuration with the contents
// of the principals, roles and deny files. It does not depend on the order of
// keys, on where a value came from, on any secret, or on what is of one machine:
// at which addresses it listens with which files of a certificate, where it keeps
// its state and writes its logs. Replicas that agree on it agree on their
// configuration.
func (c *Config) Hash() string {
	canonical, err := json.Marshal(map[string]any{
		"config":     plain(c.ofNoMachine()),
		"principals": principalsTree(c.Principals),
		"roles":      rolesTree(c.Roles),
	})
	if err != nil { // only text, numbers, lists and maps with text keys
		canonical = []byte(err.Error())
	}
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
}

// ofNoMachine is the configuration with no more than whether there is what may be
// another on each machine.
func (c *Config) ofNoMachine() Config {
	common := *c
	for _, address := range []*string{&common.Listen.Address, &common.Metrics.Address, &common.Admin.Address} {
		if *address != "" {
			*address = "on"
		}
	}
	for _, name := range []*Path{
		&common.Listen.TLS.Cert, &common.Listen.TLS.Key, &common.Admin.TLS.Cert, &common.Admin.TLS.Key, &common.StateDir, &common.Audit.File,
	} {
		if *name != "" {
			*name = "on"
		}
	}
	if !common.AccessLog.Off() {
		common.AccessLog.File = "on"
	}
	return common
}

func principalsTree(principals []Principal) map[string]any {
	out := map[string]any{}
	for _, p := range principals {
		out[p.Name] = plain(p)
	}
	return out
}

func rolesTree(roles *Roles) any {
	if roles == nil {
		return nil
	}
	return plain(*roles)
}

// plain returns the struct as a tree of maps, without what is empty.
func plain(v any) map[string]any {
	out := map[string]any{}
	// Decoding what encode built cannot fail: its keys are distinct text.
	_ = encode(reflect.ValueOf(v)).Decode(&out)
	return out
}

// encode returns a value as YAML in order of declaration.
func encode(v reflect.Value) *yaml.Node {
	if n := encodeLeaf(v); n != nil {
		return n
	}
	switch v.Kind() {
	case reflect.Struct:
		n := &yaml.Node{Kind: yaml.MappingNode}
		encodeFields(n, v)
		return n
	case reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode}
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return compareText(a.String(), b.String()) })
		for _, k := range keys {
			n.Content = append(n.Content, textNode(k.String()), encode(v.MapIndex(k)))
		}
		return n
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			n.Content = append(n.Content, encode(v.Index(i)))
		}
		return n
	case reflect.Bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v.Bool())}
	case reflect.Int, reflect.Int64:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatInt(v.Int(), 10)}
	case reflect.Float64:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: formatNumber(v.Float())}
	default:
		return textNode(v.String())
	}
}

// formatNumber writes a number as parseNumber reads it back.
func formatNumber(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}

// encodeFields appends the fields of v that hold something.
func encodeFields(n *yaml.Node, v reflect.Value) {
	t := v.Type()
	for i := range t.NumField() {
		tag := t.Field(i).Tag.Get("koanf")
		off := strings.HasSuffix(t.Field(i).Tag.Get("check"), "_or_off")
		switch {
		case off && v.Field(i).IsZero():
			n.Content = append(n.Content, textNode(tag), textNode("off"))
			continue
		case tag == ",squash":
			if !v.Field(i).IsZero() {
				encodeFields(n, v.Field(i))
			}
			continue
		case tag == "" || tag == "-" || empty(v.Field(i)):
			continue
		}
		value := encode(v.Field(i))
		if value.Kind == yaml.MappingNode && len(value.Content) == 0 {
			continue
		}
		n.Content = append(n.Content, textNode(tag), value)
	}
}

// empty reports whether a field is left out. Numbers, durations and booleans
// are shown at zero too, and so is a list that was written empty: each may
// differ from the default.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64:
		return false
	case reflect.Slice:
		return v.IsNil()
	case reflect.Struct:
		return v.IsZero() && (spec{typ: v.Type()}).leaf()
	default:
		return v.IsZero()
	}
}

// encodeLeaf encodes what is one text in YAML although it is more in Go.
func encodeLeaf(v reflect.Value) *yaml.Node {
	switch x := v.Interface().(type) {
	case time.Duration:
		return textNode(FormatDuration(x))
	case *url.URL:
		return textNode(x.String())
	case time.Time:
		return textNode(x.Format(time.RFC3339Nano))
	case netip.Prefix:
		return textNode(x.String())
	case encoding.TextMarshaler:
		text, err := x.MarshalText()
		if err != nil {
			return textNode("")
		}
		return textNode(string(text))
	default:
		return nil
	}
}
