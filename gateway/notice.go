package gateway

import (
	"net/http"
	"strconv"
	"time"

	"crossfade/gateway/identity"
)

// legacyNotice announces, beside a reply to a legacy credential, that the
// credential is on its way out.
type legacyNotice struct {
	deprecation string // RFC 9745 section 2.1
	sunset      string // RFC 8594 section 3
	link        string // RFC 8288
}

func newLegacyNotice(deprecated, sunset time.Time, guide string) legacyNotice {
	n := legacyNotice{}
	if !deprecated.IsZero() {
		n.deprecation = "@" + strconv.FormatInt(deprecated.Unix(), 10)
	}
	if !sunset.IsZero() {
		n.sunset = sunset.UTC().Format(http.TimeFormat)
	}
	if guide != "" {
		n.link = "<" + guide + `>; rel="deprecation"; type="text/html"`
	}
	return n
}

func (n legacyNotice) set(h http.Header, a *identity.Authentication) {
	if n.deprecation != "" {
		h.Set("Deprecation", n.deprecation)
	}
	switch {
	case n.sunset != "":
		h.Set("Sunset", n.sunset)
	case a != nil && !a.Expires.IsZero():
		h.Set("Sunset", a.Expires.UTC().Format(http.TimeFormat))
	}
	if n.link != "" {
		h.Add("Link", n.link)
	}
}
