package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/html"
)

// The policies of Luigi's pages (Content Security Policy Level 3). Scripts come
// from the scheduler's own files; handlers in attributes, javascript: URLs,
// eval and the scripts of others do not run, and nothing is loaded, framed or
// sent elsewhere. Styles may stand in the page, because its templates set
// widths; what they could load is bound by the other directives.
const (
	visualiserPolicy = "default-src 'none'; script-src 'self'%s; connect-src 'self'; img-src 'self' data:; " +
		"style-src 'self' 'unsafe-inline' https://fonts.googleapis.com; font-src 'self' https://fonts.gstatic.com; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	// The history's layout takes two libraries from a CDN. Only those two: it
	// carries others that run what a page says (AngularJS, for one).
	historyPolicy = "default-src 'none'; script-src 'self'%s " + historyLibraries + "; connect-src 'self'; img-src 'self' data:; " +
		"style-src 'self' 'unsafe-inline' " + historyLibraries + "; font-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	historyLibraries = "https://cdnjs.cloudflare.com/ajax/libs/d3/ https://cdnjs.cloudflare.com/ajax/libs/nvd3/"
)

// pagePolicy returns the value of Content-Security-Policy for a page of Luigi's
// scheduler. path is the escaped path that was asked for; page reads the page
// and is called at most once. It returns nil if the page cannot be read: then
// scripts that stand in the page do not run.
//
// The scripts that stand in a page are allowed by their hashes, so that no
// version of the scheduler has to be known. That is safe for files of the
// scheduler (/static/), to which no worker can write. A page that the scheduler
// makes may hold what workers stored, and a hash taken from it would allow a
// stored script too; there only the scripts are allowed that are known.
func pagePolicy(path string, page func() []byte) string {
	policy, allowed := historyPolicy, isHistoryChart
	if isFile(path) {
		policy, allowed = visualiserPolicy, func(string) bool { return true }
	}
	var hashes []string
	for _, script := range inlineScripts(page()) {
		hash := hashOf(script)
		if !allowed(script) || slices.Contains(hashes, hash) {
			continue
		}
		if len(hashes) == maxHashes {
			hashes = nil // none rather than some
			break
		}
		hashes = append(hashes, hash)
	}
	return strings.Replace(policy, "%s", strings.Join(hashes, ""), 1)
}

// maxHashes bounds the policy, which is a header. Luigi's pages have one script.
const maxHashes = 16

// hashOf returns a script's source expression (CSP Level 3, section 2.3.1)
// behind a space.
func hashOf(script string) string {
	sum := sha256.Sum256([]byte(script))
	return " 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// isFile reports whether a path names a file of the scheduler, however servers
// on the way tidy paths.
func isFile(path string) bool {
	return strings.HasPrefix(path, "/static/") && !strings.ContainsAny(path, `%\`) &&
		!strings.Contains(path, "..") && !strings.Contains(path, "//")
}

// inlineScripts returns the scripts that stand in a page and may run: without
// src, of a type that is a script's. Their text is what browsers hash.
func inlineScripts(page []byte) []string {
	var scripts []string
	inline := false
	for z := html.NewTokenizer(bytes.NewReader(page)); ; {
		switch z.Next() {
		case html.ErrorToken:
			return scripts
		case html.StartTagToken, html.SelfClosingTagToken: // no script closes itself
			inline = runs(z)
		case html.TextToken:
			if inline {
				scripts = append(scripts, string(z.Text()))
			}
			inline = false
		default:
			inline = false
		}
	}
}

// runs reports whether the tag opens a script that runs its own text (HTML
// Standard, section 4.12.1). Of two attributes of one name the first counts.
func runs(z *html.Tokenizer) bool {
	name, more := z.TagName()
	if string(name) != "script" {
		return false
	}
	attributes := make(map[string]string)
	for more {
		var key, value []byte
		key, value, more = z.TagAttr()
		if _, there := attributes[string(key)]; !there {
			attributes[string(key)] = string(value)
		}
	}
	if _, there := attributes["src"]; there {
		return false
	}
	kind, typed := attributes["type"]
	if language := attributes["language"]; !typed && language != "" {
		kind = "text/" + language
	}
	return slices.Contains(scriptTypes, strings.ToLower(strings.TrimSpace(kind)))
}

// scriptTypes are the types under which pages of this age write scripts that
// run. A script of another one (a template) needs no permission, and one of a
// type that is missing here does not get any.
var scriptTypes = []string{"", "text/javascript", "application/javascript", "application/x-javascript", "text/ecmascript", "module"}

// isHistoryChart recognizes the one script in Luigi's pages that the scheduler
// writes anew for each page: the history's chart of a task.
func isHistoryChart(script string) bool { return isKnown(script, historyCharts) }

// isKnown recognizes a script by the digest of all that stands around the data
// in it: string literals that unescape is called with. A literal of this form
// cannot end early, so whatever it holds stays data.
func isKnown(script string, digests []string) bool {
	script = scriptData.ReplaceAllString(script, `unescape("")`)
	script = strings.TrimSpace(whitespace.ReplaceAllStringFunc(script, func(run string) string {
		if strings.Contains(run, "\n") { // a newline ends a comment
			return "\n"
		}
		return " "
	}))
	sum := sha256.Sum256([]byte(script))
	return slices.Contains(digests, hex.EncodeToString(sum[:]))
}

// The tables below are never changed.
var (
	scriptData = regexp.MustCompile(`unescape\("(?:[^"\\\r\n]|\\[^\r\n])*"\)`)
	whitespace = regexp.MustCompile(`[ \t\n]+`)
	// historyCharts are the digests of the chart's code, with empty literals and
	// with whitespace as Tornado compresses it. The one is that of Luigi 2.8.7 to
	// 3.8.1.
	historyCharts = []string{"f5e98c97187d4c8e3851d002c409ce7d3ce95123f95c8c46a0bafb4bf1b01c2d"}
)
