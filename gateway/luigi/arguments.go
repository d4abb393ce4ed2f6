package luigi

import (
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds on a call's arguments. The widest call of luigid 3.8.1 has 24
// arguments; the deepest, add_worker, nests its values two deep.
const (
	maxArguments = 64
	maxDepth     = 64
	// maxTexts bounds a list of ids: as many as luigid shows tasks.
	maxTexts = 100_000
)

// arguments are the members of the JSON object of a call, names and values
// still raw: a flat view, since no rule of the gateway looks deeper. The zero
// value has none.
type arguments struct {
	members [maxArguments]member
	n       int
}

type member struct{ name, value []byte }

// scan reads a JSON object (RFC 8259) the way Python's json module does, that
// is with the words NaN, Infinity and -Infinity among the numbers. It refuses
// what two readers may understand differently: a name that stands twice or is
// written with escapes, control characters (which Tornado turns into spaces
// first), and anything beyond the bounds. The members refer to data.
func (a *arguments) scan(data []byte) bool {
	s := scanner{data: data}
	s.space()
	if !s.byte('{') {
		return false
	}
	s.space()
	if !s.byte('}') && !a.scanMembers(&s) {
		return false
	}
	s.space()
	return s.at == len(data)
}

func (a *arguments) scanMembers(s *scanner) bool {
	for {
		if a.n == maxArguments {
			return false
		}
		name, escaped, ok := s.str()
		if !ok || escaped || a.raw(string(name)) != nil {
			return false
		}
		s.space()
		if !s.byte(':') {
			return false
		}
		s.space()
		start := s.at
		if !s.value(1) {
			return false
		}
		a.members[a.n] = member{name, s.data[start:s.at]}
		a.n++
		s.space()
		if s.byte('}') {
			return true
		}
		if !s.byte(',') {
			return false
		}
		s.space()
	}
}

// raw returns the raw value of an argument, nil when there is none. At most
// maxArguments names are compared. Names are case-sensitive.
func (a *arguments) raw(name string) []byte {
	for i := range a.members[:a.n] {
		if string(a.members[i].name) == name {
			return a.members[i].value
		}
	}
	return nil
}

// unset reports whether an argument is missing, null, or has its default, as
// workers write it.
func (a *arguments) unset(name, byDefault string) bool {
	raw := a.raw(name)
	return raw == nil || string(raw) == "null" || string(raw) == byDefault
}

// text returns the string value of an argument; null and absence are "". ok is
// false when the value is of another type, or holds a surrogate without its
// partner, for which there is no text and which could stand for any other.
func (a *arguments) text(name string) (value string, ok bool) {
	raw := a.raw(name)
	if raw == nil || string(raw) == "null" {
		return "", true
	}
	if raw[0] != '"' {
		return "", false
	}
	return decodeString(raw[1 : len(raw)-1])
}

// texts returns the strings of an argument that is a list of them; null and
// absence are none. ok is false for everything else: Python would iterate over the
// letters of a string and the names of an object.
func (a *arguments) texts(name string) (list []string, ok bool) {
	if a.unset(name, "[]") {
		return nil, true
	}
	s := scanner{data: a.raw(name)} // valid JSON without space around it
	if !s.byte('[') {
		return nil, false
	}
	s.space()
	for !s.byte(']') {
		if len(list) > 0 {
			s.byte(',')
			s.space()
		}
		inside, _, ok := s.str()
		if !ok || len(list) == maxTexts {
			return nil, false
		}
		text, ok := decodeString(inside)
		if !ok {
			return nil, false
		}
		list = append(list, text)
		s.space()
	}
	return list, true
}

// decodeString turns the inside of a valid JSON string into text.
func decodeString(raw []byte) (string, bool) {
	plain := true
	for _, c := range raw {
		if c == '\\' {
			plain = false
			break
		}
	}
	if plain {
		return string(raw), true
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			continue
		}
		i++
		switch raw[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hex4(raw[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				if len(raw) < i+7 || raw[i+1] != '\\' || raw[i+2] != 'u' {
					return "", false
				}
				if r = utf16.DecodeRune(r, hex4(raw[i+3:])); r == utf8.RuneError {
					return "", false
				}
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default: // quote, backslash and slash stand for themselves
			out = append(out, raw[i])
		}
	}
	return string(out), true
}

// hex4 returns the number in the first four bytes, or -1 when they are not
// hexadecimal digits.
func hex4(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	var r rune
	for _, c := range b[:4] {
		d := hexDigit(c)
		if d < 0 {
			return -1
		}
		r = r<<4 | rune(d)
	}
	return r
}
