package luigi

import (
	"net/url"
	"path"
	"strings"
	"unicode/utf8"
)

// formType is how workers send their arguments. Tornado compares it with a
// case-sensitive prefix, so another spelling would hide the body from it.
const formType = "application/x-www-form-urlencoded"

// dataField finds the one field "data" of a request and decodes it. Without
// one the scheduler uses "{}", and so does this. ok is false when there is a
// second one, or one in a place or a spelling that clients do not use.
func dataField(method, rawQuery, contentType string, body []byte) (data []byte, ok bool) {
	if method == "GET" {
		// A form in the body of a GET would be read, and would win.
		if len(body) > 0 {
			return nil, false
		}
		return formData(rawQuery)
	}
	if _, fields, ok := findData(rawQuery); !ok || fields > 0 {
		return nil, false
	}
	if len(body) > 0 && !isForm(contentType) {
		return nil, false
	}
	return formData(body)
}

func isForm(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, formType)
	return ok && (rest == "" || rest[0] == ';' || rest[0] == ' ')
}

func formData[T string | []byte](form T) (data []byte, ok bool) {
	raw, fields, ok := findData(form)
	if !ok || fields > 1 {
		return nil, false
	}
	if fields == 0 {
		return []byte("{}"), true
	}
	return unescape(raw)
}

// findData counts the fields called "data" of an urlencoded form and returns
// the value of the last one, still escaped. ok is false for a form that
// parsers split or decode differently: a semicolon separates fields in some
// (W3C, HTML 4.01 appendix B.2.2) and not in others (WHATWG URL, section 5.1),
// and a name may be hidden behind percent signs.
func findData[T string | []byte](form T) (value T, fields int, ok bool) {
	for start := 0; start < len(form); {
		end, equals := start, -1
		for ; end < len(form) && form[end] != '&'; end++ {
			switch form[end] {
			case ';':
				return value, fields, false
			case '%':
				if equals < 0 {
					return value, fields, false
				}
			case '=':
				if equals < 0 {
					equals = end
				}
			}
		}
		name, rest := end, end
		if equals >= 0 {
			name, rest = equals, equals+1
		}
		if string(form[start:name]) == "data" {
			value = form[rest:end]
			fields++
		}
		start = end + 1
	}
	return value, fields, true
}

// unescape decodes an urlencoded value (WHATWG URL, section 5.1). ok is false
// for a broken escape, which Python leaves as it stands, and for bytes that
// are not UTF-8, which Tornado refuses.
func unescape[T string | []byte](value T) (decoded []byte, ok bool) {
	decoded = make([]byte, 0, len(value))
	for i := 0; i < len(value); i++ {
		switch c := value[i]; c {
		case '+':
			decoded = append(decoded, ' ')
		case '%':
			if i+2 >= len(value) {
				return nil, false
			}
			hi, lo := hexDigit(value[i+1]), hexDigit(value[i+2])
			if hi < 0 || lo < 0 {
				return nil, false
			}
			decoded = append(decoded, byte(hi<<4|lo))
			i += 2
		default:
			decoded = append(decoded, c)
		}
	}
	return decoded, utf8.Valid(decoded)
}

// hexDigit returns the value of a hexadecimal digit, or -1.
func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	default:
		return -1
	}
}

// maxDecodings is how often nearAPI takes percent signs away: once for the
// server, and for two layers of tidying in between.
const maxDecodings = 3

// nearAPI reports whether a path outside the API would lie in it after the
// tidying that servers and proxies do: decoding percent signs, folding slashes,
// backslashes and dot segments (RFC 3986 section 6.2), ignoring case, and taking
// a prefix away. The scheduler has no page with an "api" in the middle.
func nearAPI(escapedPath string) bool {
	p := escapedPath
	for range maxDecodings {
		if !strings.Contains(p, "%") {
			break
		}
		decoded, err := url.PathUnescape(p)
		if err != nil {
			break // luigid cannot find anything behind it either
		}
		p = decoded
	}
	p = strings.ToLower(path.Clean("/" + strings.ReplaceAll(p, `\`, "/")))
	return p == "/api" || strings.Contains(p, apiPrefix)
}
