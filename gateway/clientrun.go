package gateway

import "net/http"

// RunHeader is where a client may say what it calls its run, so that people can
// find the run in the access log and the audit trail by a name that they know. The
// upstream never sees it.
const RunHeader = "Crossfade-Run"

// maxClientRun bounds the name in bytes.
const maxClientRun = 128

// clientRun returns what the client calls its run: 1 to 128 letters, digits, dots,
// underscores, colons and hyphens. What is written in any other way, or twice, is
// dropped: it is a name to search for, and worth no refusal.
func clientRun(h http.Header) string {
	values := h[RunHeader]
	if len(values) != 1 || len(values[0]) > maxClientRun {
		return ""
	}
	for i := range len(values[0]) {
		switch c := values[0][i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == ':', c == '-':
		default:
			return ""
		}
	}
	return values[0]
}
