package luigi

import "bytes"

// scanner checks JSON text from the front, one pass, without building values.
type scanner struct {
	data []byte
	at   int
}

// space skips the white space of RFC 8259 section 2.
func (s *scanner) space() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// byte steps over c and reports whether it stood there.
func (s *scanner) byte(c byte) bool {
	if s.at < len(s.data) && s.data[s.at] == c {
		s.at++
		return true
	}
	return false
}

// word steps over w and reports whether it stood there. What follows is left
// to whoever reads on: neither a comma nor a bracket can continue a word.
func (s *scanner) word(w string) bool {
	if bytes.HasPrefix(s.data[s.at:], []byte(w)) {
		s.at += len(w)
		return true
	}
	return false
}

// value steps over one value that lies depth levels deep.
func (s *scanner) value(depth int) bool {
	if depth > maxDepth || s.at >= len(s.data) {
		return false
	}
	switch s.data[s.at] {
	case '"':
		_, _, ok := s.str()
		return ok
	case '{':
		return s.list('}', depth, true)
	case '[':
		return s.list(']', depth, false)
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	case 'N':
		return s.word("NaN")
	case 'I':
		return s.word("Infinity")
	default:
		return s.number()
	}
}

// list steps over an array, or an object whose names may repeat: what lies
// inside an argument is not judged.
func (s *scanner) list(end byte, depth int, named bool) bool {
	s.at++
	s.space()
	if s.byte(end) {
		return true
	}
	for {
		if named {
			if _, _, ok := s.str(); !ok {
				return false
			}
			s.space()
			if !s.byte(':') {
				return false
			}
			s.space()
		}
		if !s.value(depth + 1) {
			return false
		}
		s.space()
		if s.byte(end) {
			return true
		}
		if !s.byte(',') {
			return false
		}
		s.space()
	}
}

// str steps over a string and returns what stands between its quotes, and
// whether it holds escapes. A surrogate without its partner is let through, as
// Python lets it.
func (s *scanner) str() (inside []byte, escaped, ok bool) {
	if !s.byte('"') {
		return nil, false, false
	}
	for start := s.at; s.at < len(s.data); s.at++ {
		switch c := s.data[s.at]; {
		case c == '"':
			s.at++
			return s.data[start : s.at-1], escaped, true
		case c < ' ':
			return nil, false, false
		case c == '\\':
			escaped = true
			s.at++
			if !s.escape() {
				return nil, false, false
			}
		}
	}
	return nil, false, false
}

// escape checks what follows a backslash and stops at its last byte.
func (s *scanner) escape() bool {
	if s.at >= len(s.data) {
		return false
	}
	switch s.data[s.at] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		if hex4(s.data[s.at+1:]) < 0 {
			return false
		}
		s.at += 4
		return true
	default:
		return false
	}
}

// number steps over a number of RFC 8259 section 6, or -Infinity. Its size
// does not matter: no number is judged.
func (s *scanner) number() bool {
	if s.byte('-') && s.word("Infinity") {
		return true
	}
	if !s.byte('0') && !s.digits() {
		return false
	}
	if s.byte('.') && !s.digits() {
		return false
	}
	if s.byte('e') || s.byte('E') {
		if !s.byte('+') {
			s.byte('-')
		}
		return s.digits()
	}
	return true
}

// digits steps over one digit or more.
func (s *scanner) digits() bool {
	start := s.at
	for s.at < len(s.data) && '0' <= s.data[s.at] && s.data[s.at] <= '9' {
		s.at++
	}
	return s.at > start
}
