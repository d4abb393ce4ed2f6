package demo

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"crossfade/gateway/identity"
)

// Bounds of the built-in identity provider.
const (
	defaultTokenLifetime = 5 * time.Minute
	tokenTimeout         = 5 * time.Second
)

// IssuerOptions configure an Issuer.
type IssuerOptions struct {
	// Clients maps client ids to their secrets. A token's subject is the id.
	Clients map[string]identity.Secret
	// Lifetime of a token; 5 minutes when 0.
	Lifetime time.Duration
}

// Issuer is an OpenID provider on a loopback port of its own: discovery, keys,
// and the client credentials grant (RFC 6749 section 4.4) with JWT access
// tokens signed with RS256. A client chooses the audience of its token by the
// form field "audience". Every other grant is refused.
//
// All methods may be called from several goroutines.
type Issuer struct {
	url     string
	storage *issuerStorage
	server  *http.Server
	client  *http.Client
	done    chan struct{}
}

// NewIssuer creates an issuer with its first key and starts serving. Close it.
func NewIssuer(o IssuerOptions) (*Issuer, error) {
	if o.Lifetime < 0 {
		return nil, fmt.Errorf("start the identity provider: a token cannot live %s", o.Lifetime)
	}
	storage := &issuerStorage{clients: o.Clients, lifetime: cmp.Or(o.Lifetime, defaultTokenLifetime)}
	if err := storage.rotate(); err != nil {
		return nil, fmt.Errorf("start the identity provider: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the identity provider: %w", err)
	}
	config := &op.Config{SupportedScopes: []string{"openid"}}
	if _, err := rand.Read(config.CryptoKey[:]); err != nil {
		return nil, errors.Join(fmt.Errorf("start the identity provider: %w", err), listener.Close())
	}
	base := "http://" + listener.Addr().String()
	provider, err := op.NewProvider(config, storage, op.StaticIssuer(base),
		op.WithAllowInsecure(), // plain HTTP, on loopback only
		op.WithHttpInterceptors(keepAudience))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the identity provider: %w", err), listener.Close())
	}
	i := &Issuer{
		url:     base,
		storage: storage,
		server:  &http.Server{Handler: provider, ReadHeaderTimeout: tokenTimeout},
		client:  &http.Client{Transport: &http.Transport{}, Timeout: tokenTimeout},
		done:    make(chan struct{}),
	}
	go func() {
		defer close(i.done)
		_ = i.server.Serve(listener) // returns when Close is called; requests report their own errors
	}()
	return i, nil
}

// URL is the issuer identifier, and the base of the discovery document.
func (i *Issuer) URL() string { return i.url }

// TokenURL is the token endpoint.
func (i *Issuer) TokenURL() string { return i.url + op.DefaultEndpoints.Token.Relative() }

// Token fetches a new access token for a client over HTTP, as the client would.
func (i *Issuer) Token(ctx context.Context, clientID, audience string) (string, error) {
	config := clientcredentials.Config{
		ClientID:       clientID,
		ClientSecret:   i.storage.clients[clientID].Reveal(),
		TokenURL:       i.TokenURL(),
		EndpointParams: url.Values{"audience": {audience}},
		AuthStyle:      oauth2.AuthStyleInHeader,
	}
	token, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, i.client))
	if err != nil {
		return "", fmt.Errorf("fetch a token for %s: %w", clientID, err)
	}
	return token.AccessToken, nil
}

// Rotate makes a new key sign from now on. The key before stays published, so
// that its tokens hold until they expire; the one before that is withdrawn.
func (i *Issuer) Rotate() error {
	if err := i.storage.rotate(); err != nil {
		return fmt.Errorf("rotate the key: %w", err)
	}
	return nil
}

// Close stops serving, drops open connections and waits.
func (i *Issuer) Close() error {
	err := i.server.Close()
	<-i.done
	i.client.CloseIdleConnections()
	if err != nil {
		return fmt.Errorf("stop the identity provider: %w", err)
	}
	return nil
}

type audienceKey struct{}

// keepAudience hands the form field "audience" to the storage, which the
// library does not show the form to.
func keepAudience(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A form that does not parse is reported by the endpoint itself.
		if r.Method == http.MethodPost && r.ParseForm() == nil {
			r = r.WithContext(context.WithValue(r.Context(), audienceKey{}, r.PostForm["audience"]))
		}
		next.ServeHTTP(w, r)
	})
}
