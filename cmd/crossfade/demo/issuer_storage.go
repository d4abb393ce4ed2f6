package demo

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"crossfade/gateway/identity"
)

// publishedKeys is how many keys the issuer shows: the one that signs and the
// one before.
const publishedKeys = 2

// issuerStorage is what the library asks about clients, tokens and keys. It
// embeds refusals for all that the demo does not offer.
type issuerStorage struct {
	refusals
	clients  map[string]identity.Secret
	lifetime time.Duration

	mu   sync.RWMutex
	made int
	keys []issuerKey // the newest first
}

var (
	_ op.Storage                  = (*issuerStorage)(nil)
	_ op.ClientCredentialsStorage = (*issuerStorage)(nil)
)

func (s *issuerStorage) rotate() error {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("generate an RSA key: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	s.keys = slices.Insert(s.keys, 0, issuerKey{fmt.Sprintf("demo-%d", s.made), private})
	s.keys = s.keys[:min(len(s.keys), publishedKeys)]
	return nil
}

// ClientCredentials implements op.ClientCredentialsStorage.
func (s *issuerStorage) ClientCredentials(_ context.Context, id, secret string) (op.Client, error) {
	want, known := s.clients[id]
	if !known || want.Empty() || subtle.ConstantTimeCompare([]byte(want.Reveal()), []byte(secret)) != 1 {
		return nil, errors.New("unknown client or wrong secret")
	}
	return issuerClient(id), nil
}

// ClientCredentialsTokenRequest implements op.ClientCredentialsStorage.
func (s *issuerStorage) ClientCredentialsTokenRequest(ctx context.Context, id string, scopes []string) (op.TokenRequest, error) {
	audience, _ := ctx.Value(audienceKey{}).([]string)
	if len(audience) == 0 {
		return nil, oidc.ErrInvalidRequest().WithDescription("say whom the token is for: add the form field audience")
	}
	return tokenRequest{id, audience, scopes}, nil
}

// CreateAccessToken implements op.AuthStorage.
func (s *issuerStorage) CreateAccessToken(context.Context, op.TokenRequest) (id string, expires time.Time, err error) {
	return rand.Text(), time.Now().UTC().Add(s.lifetime), nil
}

// GetPrivateClaimsFromScopes implements op.OPStorage: there are none.
func (s *issuerStorage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

// SigningKey implements op.AuthStorage.
func (s *issuerStorage) SigningKey(context.Context) (op.SigningKey, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return signingKey{s.keys[0]}, nil
}

// SignatureAlgorithms implements op.AuthStorage.
func (s *issuerStorage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256}, nil
}

// KeySet implements op.AuthStorage.
func (s *issuerStorage) KeySet(context.Context) ([]op.Key, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	keys := make([]op.Key, len(s.keys))
	for i, k := range s.keys {
		keys[i] = publicKey{k}
	}
	return keys, nil
}

// Health implements op.Storage.
func (s *issuerStorage) Health(context.Context) error { return nil }

type issuerKey struct {
	id      string
	private *rsa.PrivateKey
}

func (k issuerKey) ID() string { return k.id }

type signingKey struct{ issuerKey }

func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k signingKey) Key() any                                    { return k.private }

type publicKey struct{ issuerKey }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return &k.private.PublicKey }

type tokenRequest struct {
	subject          string
	audience, scopes []string
}

func (r tokenRequest) GetSubject() string    { return r.subject }
func (r tokenRequest) GetAudience() []string { return r.audience }
func (r tokenRequest) GetScopes() []string   { return r.scopes }

// issuerClient is a service account: it has secrets and no pages.
type issuerClient string

var _ op.Client = issuerClient("")

func (c issuerClient) GetID() string                        { return string(c) }
func (c issuerClient) RedirectURIs() []string               { return nil }
func (c issuerClient) PostLogoutRedirectURIs() []string     { return nil }
func (c issuerClient) ApplicationType() op.ApplicationType  { return op.ApplicationTypeWeb }
func (c issuerClient) AuthMethod() oidc.AuthMethod          { return oidc.AuthMethodBasic }
func (c issuerClient) ResponseTypes() []oidc.ResponseType   { return nil }
func (c issuerClient) LoginURL(string) string               { return "" }
func (c issuerClient) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeJWT }
func (c issuerClient) IDTokenLifetime() time.Duration       { return 0 }
func (c issuerClient) DevMode() bool                        { return false }
func (c issuerClient) IsScopeAllowed(string) bool           { return false }
func (c issuerClient) IDTokenUserinfoClaimsAssertion() bool { return false }
func (c issuerClient) ClockSkew() time.Duration             { return 0 }
func (c issuerClient) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeClientCredentials}
}
func (c issuerClient) restrict(scopes []string) []string { return scopes }

//nolint:revive // the name is the library's
func (c issuerClient) RestrictAdditionalIdTokenScopes() func([]string) []string { return c.restrict }

func (c issuerClient) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return c.restrict
}
