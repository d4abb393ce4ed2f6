package token

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// githubSource asks the runner of a GitHub Actions job for its ID token.
//
// https://docs.github.com/en/actions/reference/security/oidc
type githubSource struct {
	getenv func(string) string
	web    webOptions
}

func newGitHub(p Params) (Source, error) {
	return &githubSource{p.Getenv, webOptions{timeout: cmp.Or(p.Timeout, DefaultTimeout)}}, nil
}

// Token implements Source. Scopes and resource mean nothing to GitHub.
func (s *githubSource) Token(ctx context.Context, r Request) (Token, error) {
	t, err := s.obtain(ctx, r)
	if err != nil {
		return Token{}, fmt.Errorf("obtain a token by github_actions: %w", err)
	}
	return t, nil
}

func (s *githubSource) obtain(ctx context.Context, r Request) (Token, error) {
	ctx, cancel := context.WithTimeout(ctx, s.web.timeout)
	defer cancel()
	address, secret := s.getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), s.getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	if address == "" || secret == "" {
		return Token{}, errors.New("ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN are not set: " +
			"run in a job of GitHub Actions with `permissions: id-token: write`")
	}
	bearer, err := accept(secret)
	if err != nil {
		return Token{}, fmt.Errorf("ACTIONS_ID_TOKEN_REQUEST_TOKEN cannot be used: %w", err)
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil {
		return Token{}, errors.New("ACTIONS_ID_TOKEN_REQUEST_URL is no address")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return Token{}, errors.New("ACTIONS_ID_TOKEN_REQUEST_URL is not https: the job's token would go in the clear")
	}
	if r.Audience != "" {
		q := u.Query()
		q.Set("audience", r.Audience)
		u.RawQuery = q.Encode()
	}
	client, err := webClient(s.web, r)
	if err != nil {
		return Token{}, err
	}
	started := time.Now()
	body, _, err := get(ctx, client, u.String(), http.Header{
		"Accept":        {"application/json"},
		"Authorization": {"Bearer " + bearer.Reveal()},
	})
	if err != nil {
		return Token{}, fmt.Errorf("ask %s: %w", u.Host, cause(err, bearer))
	}
	var answer struct {
		Value string `json:"value"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return Token{}, fmt.Errorf("the answer of %s is not the JSON that is documented", u.Host)
	}
	return ofJWT(answer.Value, started, u.Host)
}

// gcpMetadata is where the metadata server of Google Cloud is.
const gcpMetadata = "metadata.google.internal"

// gcpSource asks the metadata server of Google Cloud for the identity of a
// service account. The server caches a token until it has little left; the
// keeper asks again.
//
// https://cloud.google.com/docs/authentication/get-id-token#metadata-server
// https://cloud.google.com/compute/docs/instances/verifying-instance-identity
type gcpSource struct {
	account string
	getenv  func(string) string
	web     webOptions
}

func newGCP(p Params) (Source, error) {
	account := cmp.Or(p.ServiceAccount, "default")
	if strings.ContainsAny(account, "/?#%") || account == "." || account == ".." {
		return nil, errors.New("the service account is neither default nor an address")
	}
	return &gcpSource{account, p.Getenv, webOptions{timeout: cmp.Or(p.Timeout, DefaultTimeout), direct: true}}, nil
}

// Token implements Source. Scopes and resource mean nothing to an ID token.
func (s *gcpSource) Token(ctx context.Context, r Request) (Token, error) {
	t, err := s.obtain(ctx, r)
	if err != nil {
		return Token{}, fmt.Errorf("obtain a token by gcp: %w", err)
	}
	return t, nil
}

func (s *gcpSource) obtain(ctx context.Context, r Request) (Token, error) {
	ctx, cancel := context.WithTimeout(ctx, s.web.timeout)
	defer cancel()
	if r.Audience == "" {
		return Token{}, errors.New("no audience: the metadata server issues no token without one")
	}
	// The server speaks http only, on a link-local address that the host answers
	// itself; nothing secret is sent. GCE_METADATA_HOST is what Google's own
	// libraries read.
	u := url.URL{
		Scheme: "http", Host: cmp.Or(s.getenv("GCE_METADATA_HOST"), gcpMetadata),
		Path:     "/computeMetadata/v1/instance/service-accounts/" + s.account + "/identity",
		RawQuery: url.Values{"audience": {r.Audience}, "format": {"full"}}.Encode(),
	}
	client, err := webClient(s.web, r)
	if err != nil {
		return Token{}, err
	}
	started := time.Now()
	body, header, err := get(ctx, client, u.String(), http.Header{"Metadata-Flavor": {"Google"}})
	var refused *Refusal
	switch {
	case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
		return Token{}, fmt.Errorf("the metadata server %s knows no service account %s: attach one to the machine: %w", u.Host, s.account, err)
	case err != nil:
		return Token{}, fmt.Errorf("ask the metadata server %s: %w", u.Host, err)
	case header.Get("Metadata-Flavor") != "Google":
		return Token{}, fmt.Errorf("%s is no metadata server: its answer lacks Metadata-Flavor: Google", u.Host)
	}
	return ofJWT(strings.TrimSpace(string(body)), started, u.Host)
}

// ofJWT takes a token whose end is in itself, and nowhere else.
func ofJWT(value string, started time.Time, from string) (Token, error) {
	secret, err := accept(value)
	if err != nil {
		return Token{}, fmt.Errorf("the token of %s cannot be used: %w", from, err)
	}
	exp, ok := expOf(value)
	if !ok {
		return Token{}, fmt.Errorf("the answer of %s is no JWT with an exp", from)
	}
	return Token{Value: secret, Expiry: exp, Obtained: started}, nil
}
