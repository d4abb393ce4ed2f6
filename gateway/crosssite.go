package gateway

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
)

// address is what a client reached the gateway by, as a browser would show it.
type address struct {
	// scheme is "" where it cannot be known: something that is not trusted to
	// say so may have taken TLS away.
	scheme string
	host   string // with its port, unless that is the scheme's own
}

// addressOf returns the address that r itself names.
func addressOf(r *http.Request) address {
	a := address{host: r.Host}
	if r.TLS != nil {
		a.scheme = "https"
	}
	return a
}

// address returns the address of r. What stands in front of the gateway may
// say under which one it was reached if it is trusted.
func (p *Proxy) address(r *http.Request) address {
	a := addressOf(r)
	if !p.trusts(r.RemoteAddr) {
		return a
	}
	if host, ok := oneValue(r.Header, "X-Forwarded-Host"); ok {
		a.host = host
	}
	if proto, ok := oneValue(r.Header, "X-Forwarded-Proto"); ok {
		a.scheme = strings.ToLower(proto)
	}
	return a
}

// oneValue returns the value of a header that is there once, and is no list.
func oneValue(h http.Header, name string) (string, bool) {
	values := h[name]
	if len(values) != 1 || values[0] == "" || strings.Contains(values[0], ",") {
		return "", false
	}
	return values[0], true
}

// judgeSite finds cross_site in a call of Luigi's API that changes something.
// The scheduler does for GET what it does for POST, and browsers send the
// credentials that they remember along with whatever a page of any site makes
// them ask for, so it does not matter which credential came. What was found
// before stays. Such a call belongs to no run, whatever it says, and a browser
// gets an honest status.
func (p *Proxy) judgeSite(r *http.Request, c Call) Call {
	if !c.RPC || c.Problem != "" || !luigi.Changes(c.Method) || sameSite(r.Method, r.Header, p.address(r)) {
		return c
	}
	c.Problem, c.Abortable = identity.CrossSite, false
	c.Run, c.Registers = "", ""
	return c
}

// sameSite reports whether a request that changes something was made by a page
// of the same origin, or by no browser at all. It is pure.
//
// Three headers tell, and the first that is there decides. Sec-Fetch-Site (W3C
// Fetch Metadata, section 2.3) says exactly this, but browsers send it only to
// https and to loopback addresses. Origin (RFC 6454, section 7) and Referer
// (RFC 9110, section 10.1.3) name the page, which must be of the address that
// the client used. A header that is there twice says nothing. Without any of
// them a POST is a worker, and a GET is refused: workers never send one, and
// pages have ways to withhold the Referer.
//
// A script of the page asks for data. What an image, a stylesheet, a link, a
// frame or a form of the same page asks for is refused too, because a worker
// may put such elements into the visualiser (PROTOCOL, stored cross-site
// scripting), where they need no script to act. One of them cannot be told from
// a script: a link element that preloads data.
func sameSite(method string, h http.Header, self address) bool {
	switch {
	case len(h["Sec-Fetch-Site"]) > 0:
		site, ok := oneValue(h, "Sec-Fetch-Site")
		return ok && site == "same-origin" && byScript(h)
	case len(h["Origin"]) > 0:
		origin, ok := oneValue(h, "Origin")
		return ok && ofOrigin(origin, self) && byScript(h)
	case len(h["Referer"]) > 0:
		// Its path may hold a comma.
		return len(h["Referer"]) == 1 && ofOrigin(h["Referer"][0], self) && byScript(h)
	default:
		return method == http.MethodPost
	}
}

// ofOrigin reports whether a URL, or a serialized origin (RFC 6454, section
// 6.2), is of the address. "null" is of none. Where the scheme of the address
// is not known, either will do, each with the port that it implies.
func ofOrigin(text string, self address) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return false
	}
	if self.scheme != "" && self.scheme != u.Scheme {
		return false
	}
	return authority(u.Scheme, u.Host) == authority(u.Scheme, self.host)
}

// authority folds the host and leaves out the port that the scheme implies.
func authority(scheme, host string) string {
	port := ":80"
	if scheme == "https" {
		port = ":443"
	}
	return strings.TrimSuffix(strings.ToLower(host), port)
}

// byScript reports whether the request can be one that a script made for data:
// by XMLHttpRequest or fetch, whose mode allows to read the reply and whose
// destination is empty (Fetch standard, section 2.2.5), and with an Accept that
// is the default or names JSON, where elements name what they show. A header
// that is not there is no objection.
func byScript(h http.Header) bool {
	if !anyOf(h["Sec-Fetch-Mode"], "cors", "same-origin") || !anyOf(h["Sec-Fetch-Dest"], "empty") {
		return false
	}
	if len(h["Sec-Purpose"]) > 0 { // a prefetch
		return false
	}
	accept := strings.Join(h["Accept"], ",")
	return accept == "" || accept == "*/*" || strings.Contains(accept, "application/json")
}

// anyOf reports whether a header is absent or has one of the values.
func anyOf(values []string, allowed ...string) bool {
	return len(values) == 0 || len(values) == 1 && slices.Contains(allowed, values[0])
}
