package gateway

import (
	"net/http"
)

// response notes what the client got. It hands everything through, and
// Unwrap lets http.ResponseController find flushing and hijacking.
type response struct {
	http.ResponseWriter
	status int
	sent   int64
	// before, if any, sets headers on the final reply. Informational replies
	// (RFC 9110 section 15.2) pass without.
	before func(http.Header)
}

func (w *response) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		if w.status == 0 {
			w.status = status
			if w.before != nil {
				w.before(w.Header())
			}
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(b)
	w.sent += int64(n)
	return n, err
}

// Unwrap serves http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
