package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// endpoint is where a provider issues tokens: configured, or named by the
// provider's metadata. What was discovered is kept until a request there fails.
type endpoint struct {
	issuer string // "" if the address is configured
	mtls   bool   // the client presents a certificate

	mu    sync.Mutex
	found metadata
}

// metadata is what this package reads of RFC 8414 section 2 and OpenID Connect
// Discovery section 3.
type metadata struct {
	Issuer    string `json:"issuer"`
	Token     string `json:"token_endpoint"`
	Device    string `json:"device_authorization_endpoint"` // RFC 8628 section 4
	Revoke    string `json:"revocation_endpoint"`
	MTLSAlias struct {
		Token string `json:"token_endpoint"`
	} `json:"mtls_endpoint_aliases"` // RFC 8705 section 5
}

// newEndpoint checks the addresses; tokenURL wins.
func newEndpoint(issuer, tokenURL string, mtls bool) (*endpoint, error) {
	switch {
	case tokenURL != "":
		return &endpoint{found: metadata{Token: tokenURL}}, checkURL("the token endpoint", tokenURL)
	case issuer != "":
		return &endpoint{issuer: issuer, mtls: mtls}, checkURL("the issuer", issuer)
	}
	return nil, errors.New("no provider: give its issuer, or its token endpoint")
}

// find returns the metadata, discovering it if it has to.
func (e *endpoint) find(ctx context.Context, client *http.Client) (metadata, error) {
	e.mu.Lock()
	found := e.found
	e.mu.Unlock()
	if found.Token != "" {
		return found, nil
	}
	found, err := discover(ctx, client, e.issuer)
	if err != nil {
		return metadata{}, fmt.Errorf("discover the endpoints of %s: %w", e.issuer, err)
	}
	if e.mtls && found.MTLSAlias.Token != "" {
		found.Token = found.MTLSAlias.Token
	}
	e.mu.Lock()
	e.found = found
	e.mu.Unlock()
	return found, nil
}

// forget lets the next call discover anew: the endpoint may have moved.
func (e *endpoint) forget() {
	if e.issuer == "" {
		return
	}
	e.mu.Lock()
	e.found = metadata{}
	e.mu.Unlock()
}

// discover reads the metadata where OpenID Connect Discovery section 4 puts it,
// and if there is nothing, where RFC 8414 section 3 does.
func discover(ctx context.Context, client *http.Client, issuer string) (metadata, error) {
	at, err := url.Parse(issuer)
	if err != nil {
		return metadata{}, errors.New("the issuer cannot be parsed as a URL")
	}
	path := strings.TrimSuffix(at.Path, "/")
	root := at.Scheme + "://" + at.Host
	body, _, err := get(ctx, client, root+path+"/.well-known/openid-configuration", http.Header{"Accept": {"application/json"}})
	var refused *Refusal
	if errors.As(err, &refused) && refused.Status >= 400 && refused.Status < 500 && refused.Status != http.StatusTooManyRequests {
		body, _, err = get(ctx, client, root+"/.well-known/oauth-authorization-server"+path, http.Header{"Accept": {"application/json"}})
	}
	if err != nil {
		return metadata{}, err
	}
	return parseMetadata(body, issuer)
}

// parseMetadata reads a document and holds it against the issuer that was
// asked, as RFC 8414 section 3.3 demands.
func parseMetadata(body []byte, issuer string) (metadata, error) {
	var m metadata
	switch {
	case json.Unmarshal(body, &m) != nil:
		return metadata{}, errors.New("the document is no metadata in JSON: is this the issuer, exactly as it stands in iss?")
	case m.Issuer != issuer:
		return metadata{}, fmt.Errorf("the document is of the issuer %q: configure that one, letter by letter, or another", plain(m.Issuer))
	case m.Token == "":
		return metadata{}, errors.New("the document names no token_endpoint: configure its address")
	}
	for what, address := range map[string]string{
		"the token_endpoint": m.Token, "the token_endpoint for certificates": m.MTLSAlias.Token,
		"the device_authorization_endpoint": m.Device, "the revocation_endpoint": m.Revoke,
	} {
		if address == "" {
			continue
		}
		if strings.HasPrefix(issuer, "https:") && strings.HasPrefix(address, "http:") {
			return metadata{}, fmt.Errorf("%s in the document is not https, as the issuer is", what)
		}
		if err := checkURL(what+" in the document", address); err != nil {
			return metadata{}, errors.New(plain(err.Error()))
		}
	}
	return m, nil
}
