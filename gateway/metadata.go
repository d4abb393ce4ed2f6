package gateway

import (
	"encoding/json"
	"net/http"
	"strings"
)

// MetadataPath is where the protected resource metadata of RFC 9728 section 3
// is found.
const MetadataPath = "/.well-known/oauth-protected-resource"

// Metadata is the document of RFC 9728 section 2 that tells clients where to
// get a token. It is public and holds no secret.
type Metadata struct {
	AuthorizationServers []string
	Documentation        string
}

// ServeHTTP answers a request for the document, under the address that the request
// itself names.
func (m Metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.serve(w, addressOf(r)) }

// serve answers a request for the document of whoever is reached at an address.
func (m Metadata) serve(w http.ResponseWriter, at address) {
	base, ok := at.url()
	if !ok {
		http.Error(w, "the Host header is not a host", http.StatusBadRequest)
		return
	}
	text, err := json.Marshal(struct {
		Resource      string   `json:"resource"`
		Servers       []string `json:"authorization_servers"`
		Methods       []string `json:"bearer_methods_supported"`
		Documentation string   `json:"resource_documentation,omitempty"`
	}{base, m.AuthorizationServers, []string{"header"}, m.Documentation})
	if err != nil {
		http.Error(w, "the document could not be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// Private, because it names the address that this client used: a cache that many
	// share would hand one's word to the others, if it does not tell hosts apart.
	w.Header().Set("Cache-Control", "private, max-age=300")
	_, _ = w.Write(append(text, '\n'))
}

// url is the address as the client wrote it. The host is the client's word and goes
// back to that client alone, and only if it can do no harm in a header or a document.
// What of the scheme is not known is plain.
func (a address) url() (string, bool) {
	ok := a.host != "" && !strings.ContainsFunc(a.host, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.ContainsRune(".-:[]", c))
	})
	switch a.scheme {
	case "https", "wss": // Traefik names the protocol of a WebSocket
		return "https://" + a.host, ok
	default:
		return "http://" + a.host, ok
	}
}
