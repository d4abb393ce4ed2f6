package gateway

import (
	"mime"
	"net/http"
	"strings"
)

// The pages of Luigi's scheduler show what workers say, and some of it as HTML
// (PROTOCOL, stored cross-site scripting): in the browser of an administrator,
// in the origin of the gateway, with the credentials that it remembers. The
// gateway does not change pages. It tells the browser what they may do.

// asksAnew drops the conditions of a request where the reply must be whole: the
// scheduler executes a call over GET before it finds that the reply is the one
// the browser has (304), and the policy of a page is read off the page.
func asksAnew(h http.Header, path string) {
	if strings.HasPrefix(path, "/static/") && !mayBePage(path) {
		return
	}
	delete(h, "If-None-Match")
	delete(h, "If-Modified-Since")
}

// mayBePage tells a path below /static/ that may name a page.
func mayBePage(path string) bool {
	path = strings.ToLower(path)
	return strings.HasSuffix(path, "/") || strings.HasSuffix(path, ".html") || strings.HasSuffix(path, ".htm") ||
		strings.Contains(path, "%")
}

// protectBrowser sets on a reply of Luigi's scheduler what browsers go by. path
// is the escaped path that was asked for. Other clients do not look at it.
func protectBrowser(resp *http.Response, method, path string) {
	h := resp.Header                             // names in canonical form: this is on every worker's way
	h["X-Content-Type-Options"] = one("nosniff") // no reply of the API passes for a script or a page
	if strings.HasPrefix(path, "/api/") {
		h["Cache-Control"] = one("no-store")
		delete(h, "Etag")
	}
	if resp.StatusCode == http.StatusNotModified || !isPage(h["Content-Type"]) {
		return
	}
	policy := pagePolicy(path, func() []byte {
		if method != http.MethodGet || resp.StatusCode != http.StatusOK {
			return nil
		}
		page, err := readReply(resp, maxPage)
		if err != nil { // a page that cannot be read has no scripts that may run
			return nil
		}
		return page
	})
	// Policies add up (CSP Level 3, section 8.1): what the scheduler set stays.
	h.Add("Content-Security-Policy", policy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin") // calls of the page are known by it, see sameSite
	if len(h["Cache-Control"]) == 0 {
		h.Set("Cache-Control", "no-cache") // no page outlives its policy
	}
}

// one is a header with a single value, to which nobody can append in place.
func one(value string) []string { return []string{value}[:1:1] }

// isPage reports whether a browser may show a reply as a document that runs
// scripts. What has no type, or several, may be one.
func isPage(contentType []string) bool {
	if len(contentType) != 1 {
		return true
	}
	if contentType[0] == "application/json; charset=UTF-8" { // the scheduler's every call
		return false
	}
	t, _, err := mime.ParseMediaType(contentType[0])
	return err != nil || !strings.Contains(t, "/") || t == "text/html" || strings.HasSuffix(t, "/xml") || strings.HasSuffix(t, "+xml")
}

// maxPage bounds, in bytes, the pages that are read for their scripts. The
// visualiser's is below 40 KB.
const maxPage = 1 << 20
