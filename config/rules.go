package config

import (
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
)

// ofEnvironment are keys that must differ between environments, or say nothing
// about which requests are let in, beside those whose type tells it: paths,
// addresses, secrets and the upstream's URL. Everything else is a rule, also a key
// that is added later.
var ofEnvironment = []string{
	"listen.trusted_proxies", "redis", "access_log", "audit.stdout", "audit.max_size", "audit.max_age",
	"oidc.issuers", "principals", "roles", "probe.principals",
	"probe.issuer", "probe.token_url", "probe.audience", "probe.scopes", "probe.resource",
	"issuer", "audience", "audiences", "jwks_url",
}

// whetherSet are keys of which it is a rule that there is a value, and the
// environment's which one.
var whetherSet = []string{
	"legacy.htpasswd", "legacy.api_keys.file", "legacy.bearer.file", "authorized_parties", "tenants",
}

// Rules returns what decides about requests, by dotted key: text, bool or int64,
// or a sorted []string without duplicates where a list stands. What must differ
// between environments is left out, and of files of static credentials only
// whether there are any is told, by "set". Issuers, principals and roles are not in it: see
// [Issuer.Rules] and the fields of Config.
func (c *Config) Rules() map[string]any { return rulesOf(*c) }

// Rules is Config.Rules for one issuer: all but its own URL, the addresses of its
// keys, and its audiences. Of clients and tenants it tells only whether they are
// limited, by "set".
func (i Issuer) Rules() map[string]any { return rulesOf(i) }

func rulesOf(v any) map[string]any {
	rules := make(map[string]any)
	eachRule(reflect.ValueOf(v), "", rules)
	return rules
}

func eachRule(v reflect.Value, path string, rules map[string]any) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("koanf"), ",")
		if option == "squash" {
			if f.Type != reflect.TypeFor[Issuer]() { // the inline one, which Load has moved
				eachRule(v.Field(i), path, rules)
			}
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		key := name
		if path != "" {
			key = path + "." + name
		}
		value := v.Field(i)
		s := spec{typ: f.Type, check: f.Tag.Get("check")}
		switch {
		case slices.Contains(whetherSet, key):
			rules[key] = ""
			if value.Len() > 0 {
				rules[key] = "set"
			}
		case slices.Contains(ofEnvironment, key), s.ofEnvironment():
		default:
			addRule(value, s, key, rules)
		}
	}
}

// addRule adds what stands at key, or below it.
func addRule(v reflect.Value, s spec, key string, rules map[string]any) {
	switch {
	case s.leaf():
		rules[key] = plainValue(v)
	case s.typ.Kind() == reflect.Struct:
		eachRule(v, key, rules)
	case s.typ.Kind() == reflect.Map:
		for _, name := range v.MapKeys() {
			addRule(v.MapIndex(name), s.elem(), key+"."+name.String(), rules)
		}
	case s.elem().leaf():
		list := make([]string, v.Len())
		for i := range list {
			list[i] = encode(v.Index(i)).Value
		}
		slices.Sort(list)
		rules[key] = slices.Compact(list)
	default:
		for i := range v.Len() {
			addRule(v.Index(i), s.elem(), key+index(i), rules)
		}
	}
}

// ofEnvironment reports whether a value belongs to the machine or the network by
// its type.
func (s spec) ofEnvironment() bool {
	return s.typ == reflect.TypeFor[Path]() || s.typ == reflect.TypeFor[*url.URL]() || s.secret() || strings.HasPrefix(s.check, "address")
}

// plainValue is a scalar as text, bool or int64; of no time at all it is "".
func plainValue(v reflect.Value) any {
	if t, ok := v.Interface().(time.Time); ok && t.IsZero() {
		return ""
	}
	switch n := encode(v); n.Tag {
	case "!!bool":
		return v.Bool()
	case "!!int":
		return v.Int()
	default:
		return n.Value
	}
}
