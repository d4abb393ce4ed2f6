package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"crossfade/gateway/identity"
)

// The identifiers of RFC 8693 that this package sends.
const (
	// DefaultSubjectTokenType is of section 3: what a Kubernetes service account
	// token is.
	DefaultSubjectTokenType = "urn:ietf:params:oauth:token-type:jwt"
	grantExchange           = "urn:ietf:params:oauth:grant-type:token-exchange" // section 2.1
)

// ErrCredential is what errors.Is finds in an error when a token could not be
// asked for, because what the client proves itself by, or hands in, could not be
// read or used.
var ErrCredential = errors.New("the credential cannot be used")

// unusable is an error of that kind. Its text is that of what went wrong.
type unusable struct{ error }

// Is implements the interface that errors.Is looks for.
func (u unusable) Is(target error) bool { return target == ErrCredential }

func (u unusable) Unwrap() error { return u.error }

// oauthSource asks a token endpoint: for client_credentials (RFC 6749 section
// 4.4) or token_exchange (RFC 8693).
type oauthSource struct {
	kind string
	asker

	subjectFile, subjectType, requestedType string // token_exchange
}

func newOAuth(kind string, p Params) (Source, error) {
	a, err := newAsker(p)
	s := &oauthSource{
		kind: kind, asker: a,
		subjectFile: p.SubjectTokenFile, subjectType: cmp.Or(p.SubjectTokenType, DefaultSubjectTokenType),
		requestedType: p.RequestedTokenType,
	}
	switch {
	case kind == "token_exchange" && p.SubjectTokenFile == "":
		err = errors.Join(err, errors.New("no token to exchange: give the file that holds the subject token"))
	case kind == "client_credentials" && a.prover.method == AuthNone:
		// RFC 6749 section 4.4: confidential clients only.
		err = errors.Join(err, errors.New("the client cannot prove itself: give a file with its secret, its private key or its certificate"))
	}
	return s, err
}

// Token implements Source.
func (s *oauthSource) Token(ctx context.Context, r Request) (Token, error) {
	answer, started, at, err := s.ask(ctx, r, s.grant)
	var t Token
	if err == nil {
		t, err = fromAnswer(answer, started)
	}
	if err != nil {
		return Token{}, fmt.Errorf("obtain a token by %s%s: %w", s.kind, s.whom(at), err)
	}
	return t, nil
}

// grant fills in what is handed in, and returns what of it is secret.
func (s *oauthSource) grant(params url.Values) (identity.Secret, error) {
	if s.kind != "token_exchange" {
		return identity.Secret{}, nil
	}
	subject, err := readToken(s.subjectFile)
	if err != nil {
		return identity.Secret{}, fmt.Errorf("read the subject token: %w", err)
	}
	params.Set("grant_type", grantExchange)
	params.Set("subject_token", subject.Reveal())
	params.Set("subject_token_type", s.subjectType)
	if s.requestedType != "" {
		params.Set("requested_token_type", s.requestedType)
	}
	return subject, nil
}

// asker sends requests to the token endpoint of one provider as one client.
type asker struct {
	endpoint *endpoint
	prover   prover
	web      webOptions
}

func newAsker(p Params) (asker, error) {
	at, err := newEndpoint(p.Issuer, p.TokenURL, p.CertFile != "")
	v, wrong := newProver(p)
	return asker{at, v, webOptions{
		timeout: cmp.Or(p.Timeout, DefaultTimeout), caFile: p.CAFile,
		certFile: p.CertFile, keyFile: p.CertKeyFile,
	}}, errors.Join(err, wrong)
}

// whom says who was asked by whom, for an error.
func (a *asker) whom(at string) string {
	text := ""
	if at != "" {
		text = " from " + at
	}
	if a.prover.clientID != "" {
		text += " as client " + a.prover.clientID
	}
	return text
}

// ask makes one request for a token, client credentials unless grant says
// otherwise. It returns when it began and the endpoint, as far as it came.
func (a *asker) ask(ctx context.Context, r Request, grant func(url.Values) (identity.Secret, error)) (_ *oauth2.Token, started time.Time, at string, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.web.timeout)
	defer cancel()
	params, err := requestParams(r)
	if err != nil {
		return nil, started, "", unusable{err}
	}
	client, err := webClient(a.web, r)
	if err != nil {
		return nil, started, "", unusable{err}
	}
	found, err := a.endpoint.find(ctx, client)
	if err != nil {
		return nil, started, "", err
	}
	at = found.Token
	handed, err := grant(params)
	if err != nil {
		return nil, started, at, unusable{err}
	}
	started = time.Now()
	proof, err := a.prover.prove(at, started)
	if err != nil {
		return nil, started, at, unusable{err}
	}
	maps.Copy(params, proof.params)
	config := clientcredentials.Config{
		ClientID: a.prover.clientID, ClientSecret: proof.secret.Reveal(), TokenURL: at,
		Scopes: r.Scopes, EndpointParams: params, AuthStyle: proof.style,
	}
	answer, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	if err != nil {
		a.endpoint.forget()
		return nil, started, at, cause(err, proof.secret, proof.shown, handed)
	}
	return answer, started, at, nil
}

// fromAnswer takes the answer of RFC 6749 section 5.1 to a request that began
// at started.
func fromAnswer(answer *oauth2.Token, started time.Time) (Token, error) {
	// Section 7.1: a token of a type that one does not understand must not be
	// used. N_A is RFC 8693's for what is no access token.
	if !strings.EqualFold(answer.Type(), "Bearer") && !strings.EqualFold(answer.Type(), "N_A") {
		return Token{}, fmt.Errorf("the answer is a token of type %q, which is not sent as a bearer token: let the provider issue those", plain(answer.TokenType))
	}
	value, err := accept(answer.AccessToken)
	if err != nil {
		return Token{}, fmt.Errorf("the access_token of the answer cannot be used: %w", err)
	}
	t := Token{Value: value, Obtained: started}
	if !answer.Expiry.IsZero() {
		// x/oauth2 counts from the end of the request, the provider from somewhere
		// within it: the beginning is the safe side.
		t.Expiry = answer.Expiry.Add(-time.Since(started)).Round(0)
	} else {
		t.Expiry, _ = expOf(answer.AccessToken)
	}
	return t, nil
}

// requestParams are the fields of a request that say what a token is for.
// resource is of RFC 8707 section 2; audience is of RFC 8693 section 2.1, and
// for client credentials a custom of providers:
// https://auth0.com/docs/get-started/authentication-and-authorization-flow/client-credentials-flow/call-your-api-using-the-client-credentials-flow
func requestParams(r Request) (url.Values, error) {
	params := url.Values{}
	if r.Audience != "" {
		params.Set("audience", r.Audience)
	}
	if r.Resource != "" {
		u, err := url.Parse(r.Resource)
		if err != nil || !u.IsAbs() || u.Fragment != "" {
			return nil, errors.New("the resource is no absolute URI without a fragment (RFC 8707 section 2)")
		}
		params.Set("resource", r.Resource)
	}
	for _, scope := range r.Scopes {
		if scope == "" || strings.ContainsFunc(scope, func(c rune) bool { return c <= ' ' || c == '"' || c == '\\' || c > '~' }) {
			return nil, fmt.Errorf("the scope %q is not one word of printable ASCII (RFC 6749 section 3.3)", scope)
		}
	}
	return params, nil
}
