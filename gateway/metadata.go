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

// ServeHTTP answers a request for the document.
func (m Metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	base, ok := baseURL(r)
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
	w.Header().Set("Cache-Control", "max-age=300")
	_, _ = w.Write(append(text, '\n'))
}

// baseURL is the address under which the client reached the gateway. The Host
// header is the client's word and goes back to that client alone, and only if
// it can do no harm in a header or a document.
func baseURL(r *http.Request) (string, bool) {
	ok := r.Host != "" && !strings.ContainsFunc(r.Host, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.ContainsRune(".-:[]", c))
	})
	if r.TLS != nil {
		return "https://" + r.Host, ok
	}
	return "http://" + r.Host, ok
}
