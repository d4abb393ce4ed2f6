package token

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"crossfade/gateway/identity"
)

// Bounds of a login.
const (
	// maxLogin is how long a person has if the provider does not say.
	maxLogin = 15 * time.Minute
	// minPoll and maxPoll bound the interval that the provider asks for, in
	// seconds.
	minPoll, maxPoll = 1, 60
)

// ErrNoRevocation is Revoke's where the provider offers no RFC 7009.
var ErrNoRevocation = errors.New("the provider offers no revocation: the login ends when its refresh token does")

// Prompt is what a person needs to log in on another device. All of it is
// printable.
type Prompt struct {
	// URL is where to go, and Code what to enter there.
	URL, Code string
	// URLWithCode holds both, for a QR code; "" if the provider has none.
	URLWithCode string
	// Expires is until when; zero if the provider does not say.
	Expires time.Time
}

// Session is what a login leaves behind: the right to tokens without the person.
type Session struct {
	// Issuer and ClientID are whose tokens, and for which client.
	Issuer, ClientID string
	// Request is what was asked for.
	Request Request
	// Who is the name of the person as the provider's ID token has it, for
	// display: nothing is decided by it. "" if there was none.
	Who string
	// Since is when the person logged in.
	Since time.Time
	// Until is when the refresh token ends, unless it is used before, as far as
	// the provider says so. Zero if it does not.
	Until time.Time
	// Refresh is the refresh token (RFC 6749 section 1.5).
	Refresh identity.Secret
}

// Device logs people in by the device authorization grant (RFC 8628): on any
// machine, with a browser anywhere. It is safe for concurrent use.
type Device struct {
	asker
	issuer string
}

// NewDevice returns a Device of p's Issuer, ClientID, CAFile and Timeout. The
// client is a public one: a program that people run can keep no secret. It does
// no I/O.
func NewDevice(p Params) (*Device, error) {
	var errs []error
	if p.Issuer == "" {
		errs = append(errs, errors.New("no provider: give its issuer"))
	}
	if p.ClientID == "" {
		errs = append(errs, errors.New("no client: give its id"))
	}
	if p.Timeout < 0 {
		errs = append(errs, fmt.Errorf("a token cannot be waited for for %s", p.Timeout))
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("log in: %w", errors.Join(errs...))
	}
	a, err := newAsker(Params{Issuer: p.Issuer, ClientID: p.ClientID, CAFile: p.CAFile, Timeout: p.Timeout})
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	return &Device{a, p.Issuer}, nil
}

// Login asks for a code, shows it, and waits until the person has entered it,
// declined, or not come in time. The provider must issue a refresh token, which
// most do for the scope offline_access (OpenID Connect Core section 11).
func (d *Device) Login(ctx context.Context, r Request, show func(Prompt)) (Session, error) {
	s, at, err := d.login(ctx, r, show)
	if err != nil {
		return Session{}, fmt.Errorf("log in%s: %w", d.whom(cmp.Or(at, d.issuer)), err)
	}
	return s, nil
}

func (d *Device) login(ctx context.Context, r Request, show func(Prompt)) (_ Session, at string, err error) {
	params, err := requestParams(r)
	if err != nil {
		return Session{}, "", err
	}
	client, found, err := d.reach(ctx, r)
	if err != nil {
		return Session{}, "", err
	}
	if found.Device == "" {
		return Session{}, "", errors.New("the provider offers no device authorization grant (RFC 8628): let it be switched on there, or use another source of tokens")
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, maxLogin)
	defer cancel()
	client.Transport = within{ctx, d.web.timeout, client.Transport}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, client)
	config := oauth2.Config{
		ClientID: d.prover.clientID, Scopes: r.Scopes,
		Endpoint: oauth2.Endpoint{DeviceAuthURL: found.Device, TokenURL: found.Token, AuthStyle: oauth2.AuthStyleInParams},
	}
	var options []oauth2.AuthCodeOption
	for name := range params {
		options = append(options, oauth2.SetAuthURLParam(name, params.Get(name)))
	}
	code, err := config.DeviceAuth(ctx, options...)
	if err != nil {
		return Session{}, found.Device, cause(err)
	}
	prompt, err := promptOf(code)
	if err != nil {
		return Session{}, found.Device, err
	}
	show(prompt)
	code.Interval = min(max(cmp.Or(code.Interval, 5), minPoll), maxPoll) // 5: RFC 8628 section 3.2
	started := time.Now()
	answer, err := poll(ctx, &config, code)
	over := ctx.Err() != nil || !code.Expiry.IsZero() && !time.Now().Before(code.Expiry)
	if errors.Is(err, context.DeadlineExceeded) && over && caller.Err() == nil {
		return Session{}, found.Token, errors.New("the code was not entered in time: begin again")
	}
	if err != nil {
		return Session{}, found.Token, cause(err, identity.NewSecret(code.DeviceCode))
	}
	if _, err := fromAnswer(answer, started); err != nil {
		return Session{}, found.Token, err
	}
	if answer.RefreshToken == "" {
		return Session{}, found.Token, errors.New("there is no refresh token in the answer: ask for the scope offline_access too, and let the client have it")
	}
	idToken, _ := answer.Extra("id_token").(string)
	return Session{
		Issuer: d.issuer, ClientID: d.prover.clientID, Request: r, Who: nameIn(idToken), Since: time.Now().Round(0),
		Until:   untilOf(answer, time.Now()),
		Refresh: identity.NewSecret(answer.RefreshToken),
	}, found.Token, nil
}

// poll asks until there is an answer. A provider that cannot be reached for a
// moment, or has too much to do, is asked again after twice the interval (RFC 8628
// section 3.5), or when it says: what the person has entered would be lost.
func poll(ctx context.Context, config *oauth2.Config, code *oauth2.DeviceAuthResponse) (*oauth2.Token, error) {
	var missed error
	for {
		answer, err := config.DeviceAccessToken(ctx, code)
		if missed != nil && errors.Is(err, context.DeadlineExceeded) {
			return nil, missed // rather than that there was no time
		}
		wait, passes := passing(err)
		if !passes || ctx.Err() != nil {
			return answer, err
		}
		missed = err
		code.Interval = min(max(2*code.Interval, int64(wait/time.Second)), maxPoll)
	}
}

// passing reports whether an error may be another one in a moment, and for how
// long the provider wants to be left alone.
func passing(err error) (wait time.Duration, passes bool) {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response != nil {
		status := refused.Response.StatusCode
		return retryAfter(status, refused.Response.Header, time.Now()), status == http.StatusTooManyRequests || status >= 500
	}
	var network *net.OpError
	return 0, errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// reach returns a client and the metadata of the provider.
func (d *Device) reach(ctx context.Context, r Request) (*http.Client, metadata, error) {
	ctx, cancel := context.WithTimeout(ctx, d.web.timeout)
	defer cancel()
	client, err := webClient(d.web, r)
	if err != nil {
		return nil, metadata{}, err
	}
	found, err := d.endpoint.find(ctx, client)
	return client, found, err
}

// Refresh asks for a token of a session (RFC 6749 section 6). It returns the
// session as it is now: with another refresh token if the provider has replaced
// it, and then the one before may be good no longer.
func (d *Device) Refresh(ctx context.Context, s Session, r Request) (Token, Session, error) {
	if err := d.owns(s); err != nil {
		return Token{}, s, fmt.Errorf("obtain a token of a login: %w", err)
	}
	answer, started, at, err := d.ask(ctx, r, func(params url.Values) (identity.Secret, error) {
		params.Set("grant_type", "refresh_token")
		params.Set("refresh_token", s.Refresh.Reveal())
		return s.Refresh, nil
	})
	var t Token
	if err == nil {
		t, err = fromAnswer(answer, started)
	}
	if answer != nil && answer.RefreshToken != "" {
		s.Refresh = identity.NewSecret(answer.RefreshToken) // even if the token itself cannot be used
	}
	if answer != nil {
		if until := untilOf(answer, started); answer.RefreshToken != "" || !until.IsZero() {
			s.Until = until
		}
	}
	if err != nil {
		return Token{}, s, fmt.Errorf("obtain a token of the login of %s%s: %w", cmp.Or(s.Who, "somebody"), d.whom(at), err)
	}
	return t, s, nil
}

// Revoke ends a session at the provider (RFC 7009 section 2.1): its refresh
// token is worth nothing from then on. ErrNoRevocation if the provider offers
// that not.
func (d *Device) Revoke(ctx context.Context, s Session) error {
	if err := d.revoke(ctx, s); err != nil {
		return fmt.Errorf("revoke the login of %s at %s: %w", cmp.Or(s.Who, "somebody"), s.Issuer, err)
	}
	return nil
}

func (d *Device) revoke(ctx context.Context, s Session) error {
	if err := d.owns(s); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, d.web.timeout)
	defer cancel()
	client, found, err := d.reach(ctx, s.Request)
	if err != nil {
		return err
	}
	if found.Revoke == "" {
		return ErrNoRevocation
	}
	form := url.Values{"client_id": {s.ClientID}, "token": {s.Refresh.Reveal()}, "token_type_hint": {"refresh_token"}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, found.Revoke, strings.NewReader(form.Encode()))
	if err != nil {
		return errors.New("the address cannot be parsed")
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := client.Do(r)
	if err != nil {
		return cause(err, s.Refresh)
	}
	body, err := io.ReadAll(res.Body)
	err = errors.Join(err, res.Body.Close())
	if res.StatusCode == http.StatusOK {
		return nil // also if the token was good no longer: section 2.2
	}
	if err != nil {
		return cause(err, s.Refresh)
	}
	var said struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}
	_ = json.Unmarshal(body, &said) // an answer that is no JSON says nothing more than its status
	return &Refusal{
		Status: res.StatusCode, Code: plain(said.Code, s.Refresh), Description: plain(said.Description, s.Refresh),
		RetryAfter: retryAfter(res.StatusCode, res.Header, time.Now()),
	}
}

// owns keeps a refresh token from going to another provider than its own.
func (d *Device) owns(s Session) error {
	switch {
	case s.Refresh.Empty():
		return errors.New("there is no login: run `crossfade login`")
	case s.Issuer != d.issuer || s.ClientID != d.prover.clientID:
		return fmt.Errorf("the login is of client %s at %s, not of client %s at %s: log in again", s.ClientID, s.Issuer, d.prover.clientID, d.issuer)
	}
	return nil
}

// promptOf takes the answer of RFC 8628 section 3.2, which a person is going to
// see and to follow.
func promptOf(code *oauth2.DeviceAuthResponse) (Prompt, error) {
	p := Prompt{URL: code.VerificationURI, Code: code.UserCode, URLWithCode: code.VerificationURIComplete, Expires: code.Expiry}
	for _, address := range []string{p.URL, p.URLWithCode} {
		u, err := url.Parse(address)
		if address == "" && p.URL != "" {
			continue
		}
		if err != nil || u.User != nil || len(address) > maxText || (u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname()))) {
			return Prompt{}, errors.New("the provider wants the code to be entered at an address that is not https")
		}
	}
	if p.Code == "" || code.DeviceCode == "" || len(p.Code) > maxText || strings.ContainsFunc(p.URL+p.Code+p.URLWithCode, func(r rune) bool { return r < ' ' || r > '~' }) {
		return Prompt{}, errors.New("the answer holds no code that a person could enter (RFC 8628 section 3.2)")
	}
	return p, nil
}

// untilOf returns when the refresh token of an answer ends. No standard says
// where that stands; Keycloak writes refresh_expires_in, with 0 for never, and
// GitHub refresh_token_expires_in.
func untilOf(answer *oauth2.Token, started time.Time) time.Time {
	for _, name := range []string{"refresh_expires_in", "refresh_token_expires_in"} {
		if n, ok := answer.Extra(name).(float64); ok && n > 0 && n <= 100*365*24*3600 {
			return started.Add(time.Duration(n) * time.Second).Round(0)
		}
	}
	return time.Time{}
}

// nameIn returns the name of the person in an ID token, for display. It came
// from the token endpoint itself, which OpenID Connect Core section 3.1.3.7
// takes for as good as a signature.
func nameIn(idToken string) string {
	var claims struct {
		Email    string `json:"email"`
		Username string `json:"preferred_username"`
		Subject  string `json:"sub"`
	}
	payload, ok := payloadOf(idToken)
	if !ok || json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	name := cmp.Or(claims.Email, claims.Username, claims.Subject)
	if len(name) > maxText || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return name
}

// within bounds each request of a login by the login's context and a time-out of
// its own: x/oauth2 sends the first of them without a context, and does not
// close its answer.
type within struct {
	ctx     context.Context
	timeout time.Duration
	next    http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (w within) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(r.Context(), w.timeout)
	stop := context.AfterFunc(w.ctx, cancel)
	end := func() { stop(); cancel() }
	res, err := w.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		end()
		return nil, err
	}
	res.Body = &endingBody{res.Body, end}
	return res, nil
}

// endingBody lets go of the context when it has been read or closed.
type endingBody struct {
	io.ReadCloser
	end func()
}

// Read implements io.Reader.
func (b *endingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.end()
	}
	return n, err
}

// Close implements io.Closer.
func (b *endingBody) Close() error {
	b.end()
	return b.ReadCloser.Close()
}
