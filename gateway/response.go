package gateway

import (
	"bufio"
	"net"
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
		w.final(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

// final notes the status of the final reply, once.
func (w *response) final(status int) {
	if w.status != 0 {
		return
	}
	w.status = status
	if w.before != nil {
		w.before(w.Header())
	}
}

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(b)
	w.sent += int64(n)
	return n, err
}

// Hijack serves http.ResponseController. ReverseProxy takes the connection over
// to switch protocols (RFC 9110 section 15.2.2), and writes that reply itself.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.final(http.StatusSwitchingProtocols)
	}
	return conn, buffered, err
}

// Unwrap serves http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
