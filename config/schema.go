package config

import (
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"time"
)

// sep joins the keys of a path within the package. It cannot stand in a key
// (control characters are refused), so a principal named "svc.etl" stays one
// key. Only messages show dots.
const sep = "\x1f"

// spec is what may stand at one place of a document: a type and the rules of
// the field's tags. For a list the rules are those of its elements.
type spec struct {
	typ   reflect.Type
	check string   // a rule of scalar.go
	one   []string // the allowed words; nil for any
	span  string   // "low..high", both included
}

// field is one key of a struct.
type field struct {
	name string
	spec spec
}

// fields lists the keys of the struct type t in order of declaration, those
// of squashed fields in place.
func fields(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("koanf"), ",")
		switch {
		case option == "squash":
			out = append(out, fields(f.Type)...)
		case name == "" || name == "-":
		default:
			s := spec{typ: f.Type, check: f.Tag.Get("check"), span: f.Tag.Get("range")}
			if words := f.Tag.Get("one"); words != "" {
				s.one = strings.Split(words, "|")
			}
			out = append(out, field{name: name, spec: s})
		}
	}
	return out
}

// elem is the spec of the elements of a list or map.
func (s spec) elem() spec {
	s.typ = s.typ.Elem()
	return s
}

// leaf reports whether one scalar stands here, although the type may be a
// struct to Go.
func (s spec) leaf() bool {
	switch s.typ {
	case reflect.TypeFor[*url.URL](), reflect.TypeFor[time.Time](), reflect.TypeFor[netip.Prefix](),
		reflect.TypeFor[Secret](), reflect.TypeFor[SecretURL]():
		return true
	}
	switch s.typ.Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice:
		return false
	default:
		return true
	}
}

// secret reports whether the value may not be quoted in a message.
func (s spec) secret() bool {
	return s.typ == reflect.TypeFor[Secret]() || s.typ == reflect.TypeFor[SecretURL]()
}

// short lists the keys that a plain scalar or list stands for where the
// struct type t is expected; nil where a mapping must be written.
func short(t reflect.Type) []string {
	switch t {
	case reflect.TypeFor[Listen](), reflect.TypeFor[Metrics](), reflect.TypeFor[Admin]():
		return []string{"address"}
	case reflect.TypeFor[Upstream](), reflect.TypeFor[Redis](), reflect.TypeFor[Help]():
		return []string{"url"}
	case reflect.TypeFor[APIKeys](), reflect.TypeFor[Bearer](), reflect.TypeFor[Deny](),
		reflect.TypeFor[Audit](), reflect.TypeFor[AccessLog]():
		return []string{"file"}
	case reflect.TypeFor[TokenFor]():
		return []string{"audience"}
	case reflect.TypeFor[Exempt]():
		return []string{"paths"}
	case reflect.TypeFor[Skew]():
		return []string{"exp", "nbf", "iat"}
	default:
		return nil
	}
}

// leaves calls visit for every place below the struct type t that one text can
// set: scalars and lists of scalars, not what stands in lists of mappings.
func leaves(t reflect.Type, path []string, visit func(path []string, s spec)) {
	for _, f := range fields(t) {
		at := append(path[:len(path):len(path)], f.name)
		switch {
		case f.spec.leaf():
			visit(at, f.spec)
		case f.spec.typ.Kind() == reflect.Struct:
			leaves(f.spec.typ, at, visit)
		case f.spec.typ.Kind() == reflect.Slice && f.spec.elem().leaf():
			visit(at, f.spec)
		}
	}
}

// shorts calls visit for every place below the struct type t that has a short
// form.
func shorts(t reflect.Type, path []string, visit func(path []string, s spec)) {
	for _, f := range fields(t) {
		if f.spec.leaf() || f.spec.typ.Kind() != reflect.Struct {
			continue
		}
		at := append(path[:len(path):len(path)], f.name)
		if len(short(f.spec.typ)) > 0 {
			visit(at, f.spec)
		}
		shorts(f.spec.typ, at, visit)
	}
}

// find returns the spec at path below the struct type t.
func find(t reflect.Type, path []string) (spec, bool) {
	s := spec{typ: t}
next:
	for _, key := range path {
		if s.leaf() || s.typ.Kind() != reflect.Struct {
			return spec{}, false
		}
		for _, f := range fields(s.typ) {
			if f.name == key {
				s = f.spec
				continue next
			}
		}
		return spec{}, false
	}
	return s, true
}

// join appends key to a path.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + sep + key
}

// shown is a path as people write it: dots, and brackets for list indexes.
func shown(path string) string {
	return strings.ReplaceAll(strings.ReplaceAll(path, sep+"[", "["), sep, ".")
}
