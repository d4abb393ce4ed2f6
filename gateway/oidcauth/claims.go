package oidcauth

import (
	"encoding/json"
	"slices"
	"strings"
)

// claims are the members of a payload by exact name.
type claims map[string]json.RawMessage

// find returns the claim of a name that may be dotted; see the package comment.
func (c claims) find(name string) (json.RawMessage, bool) {
	if v, ok := c[name]; ok {
		return v, true
	}
	for at := strings.LastIndexByte(name, '.'); at > 0; at = strings.LastIndexByte(name[:at], '.') {
		v, ok := c[name[:at]]
		if !ok || len(v) == 0 || v[0] != '{' {
			continue
		}
		var inner claims
		if json.Unmarshal(v, &inner) != nil {
			continue
		}
		if v, ok := inner.find(name[at+1:]); ok {
			return v, true
		}
	}
	return nil, false
}

// values returns a claim as text: a string, boolean or number as one value, a
// list as its strings. Objects, null and everything absent are no value. Text
// with control characters is left out: it could not be what anybody meant.
func (c claims) values(name string) []string {
	v, ok := c.find(name)
	if !ok || len(v) == 0 {
		return nil
	}
	switch v[0] {
	case '{', 'n':
		return nil
	case '"', '[':
		all, _ := stringOrList(v)
		return slices.DeleteFunc(all, func(s string) bool { return s == "" || !clean(s) })
	default:
		return []string{string(v)}
	}
}

// first returns the first of the named claims that has a value, with its name.
func (c claims) first(names ...string) (value, name string) {
	for _, name := range names {
		if all := c.values(name); len(all) > 0 {
			return all[0], name
		}
	}
	return "", ""
}

func (c claims) has(name string) bool {
	_, ok := c.find(name)
	return ok
}

// words returns the members of claims that hold either a list or one string of
// words with blanks between them, as scope does (RFC 8693 section 4.2).
func (c claims) words(names ...string) (all []string) {
	for _, name := range names {
		for _, v := range c.values(name) {
			all = append(all, strings.Fields(v)...)
		}
	}
	return all
}

// emailVerified reads email_verified (OpenID Connect Core section 5.1), which
// some providers send as a string.
func (c claims) emailVerified() (verified, present bool) {
	v, ok := c["email_verified"]
	return ok && (string(v) == "true" || string(v) == `"true"`), ok
}

// stringOrList reads a value that is a string or a list of strings; ok is false
// if it is anything else, and the strings in it are returned all the same.
func stringOrList(v json.RawMessage) (all []string, ok bool) {
	var one string
	if len(v) > 0 && v[0] == '"' && json.Unmarshal(v, &one) == nil {
		return []string{one}, true
	}
	var raw []json.RawMessage
	if len(v) == 0 || v[0] != '[' || json.Unmarshal(v, &raw) != nil {
		return nil, false
	}
	ok = true
	for _, item := range raw {
		var s string
		if item[0] != '"' || json.Unmarshal(item, &s) != nil {
			ok = false
			continue
		}
		all = append(all, s)
	}
	return all, ok
}
