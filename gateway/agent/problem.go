package agent

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// problem is what the gateway says about a refusal (problem details, RFC 9457,
// with members of its own), and what the agent says where it answers itself.
type problem struct {
	Type    string `json:"type,omitempty"`
	Title   string `json:"title,omitempty"`
	Status  int    `json:"status,omitempty"`
	Reason  string `json:"reason"`
	Team    string `json:"team,omitempty"`
	Account string `json:"account,omitempty"`
	Message string `json:"message"`
	Do      string `json:"do"`
	TraceID string `json:"trace_id,omitempty"`
}

// Reasons of the agent's own. They are none of the gateway's.
const (
	reasonNoToken     = "agent_no_token"
	reasonNoFamily    = "agent_no_family_token"
	reasonUnreachable = "agent_gateway_unreachable"
	reasonNotOurs     = "agent_not_for_the_gateway"
	reasonCrossSite   = "agent_cross_site"
	reasonUnexplained = "unexplained" // a 401 or 403 that is not the gateway's
)

// maxProblem bounds what is read of a refusal.
const maxProblem = 64 << 10

// readProblem reads the refusal behind a reply. What is no problem details
// still has a reason and a message.
func readProblem(status int, reason string, body []byte) problem {
	var p problem
	if json.Unmarshal(body, &p) != nil {
		p = problem{}
	}
	if reason != "" {
		p.Reason = reason // what proxies may have read is what counts
	}
	if !isReason(p.Reason) {
		p.Reason = reasonUnexplained
	}
	if p.Message == "" {
		p.Message = "The answer was " + strconv.Itoa(status) + " " + http.StatusText(status) + ", and nothing said why."
	}
	return p
}

// isReason reports whether a text has the form of a reason: it goes into a
// header.
func isReason(text string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789_"
	return text != "" && len(text) <= 64 && strings.Trim(text, letters) == ""
}

// abortBody is what an unmodified Luigi worker stops at, at once and without a
// retry: a JSON object without "response".
func abortBody(p problem) []byte {
	p.Type, p.Title, p.Status = "", "", 0
	text, err := json.Marshal(map[string]problem{"error": p})
	if err != nil { // plain strings always marshal
		text = []byte(`{"error":{}}`)
	}
	return append(text, '\n')
}

// writeAbort answers a worker so that it stops.
func writeAbort(w http.ResponseWriter, p problem) {
	body := abortBody(p)
	setProblemHeaders(w.Header(), p.Reason)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body) // a worker that went away needs no answer
}

// problemBody is a problem with an honest status.
func problemBody(status int, p problem) []byte {
	p.Type, p.Title, p.Status = "about:blank", http.StatusText(status), status
	text, err := json.Marshal(p)
	if err != nil { // plain strings always marshal
		text = []byte("{}")
	}
	return append(text, '\n')
}

// writeProblem answers with an honest status.
func writeProblem(w http.ResponseWriter, status int, p problem) {
	body := problemBody(status, p)
	setProblemHeaders(w.Header(), p.Reason)
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that went away needs no answer
}

func setProblemHeaders(h http.Header, reason string) {
	h.Set(reasonHeader, reason)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

// abortable reports whether a refusal of this request must be told so that a
// worker of Luigi stops: those are its calls.
func abortable(method, path string) bool {
	return method == http.MethodPost && strings.HasPrefix(path, "/api/")
}

// aborts reports whether a reply is a refusal that no retry cures. What may be
// gone in a moment is worth the worker's retries; but a ping holds a lock during
// them, which stalls the pipeline.
func aborts(status int, reason, path string) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return true
	case http.StatusTooManyRequests:
		return reason != "" && path == "/api/ping"
	case http.StatusRequestEntityTooLarge:
		return false
	default:
		return reason != "" && status >= 400 && status < 500
	}
}
