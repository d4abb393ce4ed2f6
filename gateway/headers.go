package gateway

import (
	"net/http"
	"strings"
)

// IdentityHeaders are the names under which the upstream learns who asks. They
// are set by the gateway alone; what a client sends under them, in whatever
// spelling, is removed.
type IdentityHeaders struct {
	User, Email, Groups []string
}

// DefaultIdentityHeaders are the names that oauth2-proxy made common:
// X-Forwarded-* towards upstreams, X-Auth-Request-* behind nginx's
// auth_request.
func DefaultIdentityHeaders() IdentityHeaders {
	return IdentityHeaders{
		User:   []string{"X-Forwarded-User", "X-Auth-Request-User"},
		Email:  []string{"X-Forwarded-Email", "X-Auth-Request-Email"},
		Groups: []string{"X-Forwarded-Groups", "X-Auth-Request-Groups"},
	}
}

// alwaysStripped are further names that upstreams are known to believe.
var alwaysStripped = []string{
	"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups",
	"X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token",
	"X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups",
	"X-Auth-Request-Preferred-Username", "X-Auth-Request-Access-Token", "X-Auth-Request-Redirect",
	"Remote-User", "Remote-Groups", "Remote-Email", "Remote-Name",
	"X-Remote-User", "X-Remote-Group", "X-Remote-Email", "X-Webauth-User",
	// What routes by these would execute another path than the one that was judged.
	originalURL, originalURI, originalMethod, "X-Rewrite-Url", forwardedURI, forwardedMethod,
	"Http2-Settings", // see mayUpgrade
	"Authorization", "Proxy-Authorization", CompanionHeader, AbortHeader, ReasonHeader, RunHeader,
}

// spoofable is the set of header names that no client may set, folded.
type spoofable map[string]bool

func newSpoofable(lists ...[]string) spoofable {
	s := make(spoofable)
	for _, names := range lists {
		for _, name := range names {
			s[foldName(name)] = true
		}
	}
	return s
}

// strip removes credentials and identity headers in every spelling.
func (s spoofable) strip(h http.Header) {
	for name := range h {
		if s.matches(name) {
			delete(h, name)
		}
	}
}

// any reports whether one of the headers is of the set, in any spelling.
func (s spoofable) any(h http.Header) bool {
	for name := range h {
		if s.matches(name) {
			return true
		}
	}
	return false
}

// matches folds name on the stack: case, and whatever CGI and WSGI servers
// cannot tell from a hyphen.
func (s spoofable) matches(name string) bool {
	var folded [64]byte
	if len(name) > len(folded) {
		return s[foldName(name)]
	}
	for i := range len(name) {
		folded[i] = foldByte(name[i])
	}
	return s[string(folded[:len(name)])]
}

func foldName(name string) string {
	folded := []byte(name)
	for i, c := range folded {
		folded[i] = foldByte(c)
	}
	return string(folded)
}

// foldByte folds case, and all that is neither letter nor digit: servers that
// hand headers on as variables turn the underscore into what the hyphen becomes
// (RFC 3875 section 4.1.18), and some do so with every such character.
func foldByte(c byte) byte {
	switch {
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	default:
		return '-'
	}
}

// canonical returns the names in the form of http.Header's keys.
func (n IdentityHeaders) canonical() IdentityHeaders {
	of := func(names []string) []string {
		out := make([]string, len(names))
		for i, name := range names {
			out[i] = http.CanonicalHeaderKey(name)
		}
		return out
	}
	return IdentityHeaders{User: of(n.User), Email: of(n.Email), Groups: of(n.Groups)}
}

// identify tells the upstream who asks. Exempt requests have nobody. The names
// are canonical.
func (n IdentityHeaders) identify(h http.Header, ev *Event) {
	if ev.Decision.Outcome == Exempt || ev.Principal.Name == "" {
		return
	}
	set := func(names []string, value string) {
		if value == "" || !validValue(value) {
			return
		}
		values := []string{value}
		for _, name := range names {
			h[name] = values[:1:1] // whoever appends gets a copy
		}
	}
	set(n.User, ev.Principal.Name)
	if ev.Token.OK() && ev.Token.Token != nil && ev.Decision.Control == SideToken {
		set(n.Email, ev.Token.Token.Email)
		set(n.Groups, joinGroups(ev.Token.Token.Groups))
	}
}

// joinGroups lists groups by commas. A group that could pass for two, or that
// no header can carry, is left out.
func joinGroups(groups []string) string {
	var b strings.Builder
	for _, g := range groups {
		if g == "" || strings.Contains(g, ",") || !validValue(g) {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(g)
	}
	return b.String()
}

// validValue reports whether v may stand in a header (RFC 9110 section 5.5).
func validValue(v string) bool {
	for i := range len(v) {
		if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
