package token

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"crossfade/gateway/identity"
)

// maxReply bounds an answer in bytes. It is one less than 1 MiB because x/oauth2
// stops reading there without a word, and a cut answer is to be an error.
const maxReply = 1<<20 - 1

// Refusal is the answer of a provider that gave no token. Get it by errors.As.
type Refusal struct {
	// Status is that of HTTP.
	Status int
	// Code is the error of RFC 6749 section 5.2 (invalid_client and so on); "" if
	// the provider named none. Description is its error_description. Both are
	// printable, bounded and free of what looks like a secret.
	Code, Description string
	// RetryAfter is for how long the provider does not want to be asked again
	// (RFC 9110 section 10.2.3), with 429 and 503; 0 if it did not say. At most a
	// day.
	RetryAfter time.Duration
}

// Error implements error.
func (r *Refusal) Error() string {
	text := fmt.Sprintf("refused with %d", r.Status)
	if name := http.StatusText(r.Status); name != "" {
		text += " " + name
	}
	if r.Code != "" {
		text += ", " + r.Code
	}
	if r.Description != "" {
		text += " (" + r.Description + ")"
	}
	if hint := hints[r.Code]; hint != "" {
		text += ": " + hint
	}
	if r.RetryAfter > 0 {
		text += "; it does not want to be asked again for " + r.RetryAfter.Round(time.Second).String()
	}
	return text
}

// hints say what to do about the errors of RFC 6749 section 5.2, RFC 8707
// section 2 and RFC 8628 section 3.5.
var hints = map[string]string{
	"invalid_client":         "check the name of the client and its secret, key or certificate",
	"invalid_grant":          "what was handed in has expired or was withdrawn, or is another client's",
	"invalid_request":        "the provider wants other parameters; its description or its documentation names them",
	"invalid_scope":          "ask for scopes that the client has been given",
	"invalid_target":         "check audience and resource: the provider knows no such gateway, or not for this client",
	"unauthorized_client":    "let the client use this grant, in its settings at the provider",
	"unsupported_grant_type": "the provider does not offer this grant: use another source",
	"access_denied":          "somebody declined, or a rule of the provider did",
	"expired_token":          "the code was not entered in time: begin again",
}

// webOptions say how a client talks.
type webOptions struct {
	timeout           time.Duration // of all requests for one token
	caFile            string
	certFile, keyFile string
	direct            bool // no proxies: the address is one of this machine or its host
}

// agentOf is the User-Agent of requests: the one place where a provider's own
// audit trail can show the run.
func agentOf(r Request) string {
	if run := plain(r.Run); run != "" {
		return "crossfade-agent (run " + run + ")"
	}
	return "crossfade-agent"
}

// webClient reads the certificates and returns a client that follows no
// redirects (they would carry secrets to whoever is named there), reads at most
// 1 MiB, and leaves no connection behind, so that it needs no closing.
func webClient(o webOptions, r Request) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.caFile != "" {
		pem, err := os.ReadFile(o.caFile)
		if err != nil {
			return nil, fmt.Errorf("read the trusted authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the trusted authorities: %s holds no PEM certificate", o.caFile)
		}
	}
	if o.certFile != "" {
		cert, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate %s and its key %s: %w", o.certFile, o.keyFile, err)
		}
		// Always: Certificates would hold it back from a server that names
		// authorities, which those of RFC 8705 section 2.2 do not come from.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	t := &http.Transport{
		TLSClientConfig:        config,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if !o.direct {
		t.Proxy = http.ProxyFromEnvironment
	}
	return &http.Client{
		Transport: bounded{t, agentOf(r)},
		CheckRedirect: func(next *http.Request, _ []*http.Request) error {
			return fmt.Errorf("it redirects to %s, and a redirect is not followed: configure the address that it means", plain(next.URL.Host))
		},
	}, nil
}

// bounded makes an answer of more than maxReply bytes an error of its reader.
type bounded struct {
	next  http.RoundTripper
	agent string
}

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", b.agent)
	res, err := b.next.RoundTrip(r)
	if err == nil {
		res.Body = &boundedBody{res.Body, maxReply}
	}
	return res, err
}

// boundedBody fails behind its last byte if there are more.
type boundedBody struct {
	io.ReadCloser
	left int64
}

var errLongReply = errors.New("the answer is longer than 1 MiB")

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		n, b.left = int(b.left), 0
		return n, errLongReply
	}
	b.left -= int64(n)
	return n, err
}

// get fetches a document. An answer other than 200 is a *Refusal.
func get(ctx context.Context, client *http.Client, to string, header http.Header) ([]byte, http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, to, http.NoBody)
	if err != nil {
		return nil, nil, errors.New("the address cannot be parsed")
	}
	r.Header = header
	res, err := client.Do(r)
	if err != nil {
		return nil, nil, cause(err)
	}
	body, err := io.ReadAll(res.Body)
	err = errors.Join(err, res.Body.Close())
	switch {
	case res.StatusCode != http.StatusOK:
		return nil, res.Header, &Refusal{Status: res.StatusCode, RetryAfter: retryAfter(res.StatusCode, res.Header, time.Now())}
	case err != nil:
		return nil, res.Header, cause(err)
	}
	return body, res.Header, nil
}

// cause returns why a request failed, without its address, which the caller
// names as far as it is fit to be named.
func cause(err error, secrets ...identity.Secret) error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) {
		r := &Refusal{Code: plain(refused.ErrorCode, secrets...), Description: plain(refused.ErrorDescription, secrets...)}
		if refused.Response != nil {
			r.Status = refused.Response.StatusCode
			r.RetryAfter = retryAfter(r.Status, refused.Response.Header, time.Now())
		}
		return r
	}
	var address *url.Error
	if errors.As(err, &address) {
		err = address.Err
	}
	var network *net.OpError
	if errors.As(err, &network) {
		if network.Op == "dial" {
			return fmt.Errorf("%w: is it up, and can it be reached from here?", err)
		}
		return err
	}
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "oauth2: "), "cannot fetch token: ")
	return &said{plain(text, secrets...), err}
}

// said is an error whose text may repeat what a stranger sent.
type said struct {
	text string
	err  error
}

func (s *said) Error() string { return s.text }
func (s *said) Unwrap() error { return s.err }

// checkURL demands https, or http on a loopback address, no user, no query
// and no fragment, so that the address may be printed.
func checkURL(what, raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return fmt.Errorf("%s cannot be parsed as a URL", what)
	case u.User != nil:
		return fmt.Errorf("%s must not hold a user or password", what)
	case u.RawQuery != "":
		return fmt.Errorf("%s must not hold a query", what)
	case u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return fmt.Errorf("%s %s must begin with https:// and name a host", what, raw)
	case u.Fragment != "":
		return fmt.Errorf("%s %s must not hold a fragment", what, raw)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return fmt.Errorf("%s %s must be https: secrets and tokens would go in the clear (http is allowed on a loopback address)", what, raw)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// seconds is expires_in: a number of seconds (RFC 6749 section 5.1), which some
// send as a string.
type seconds time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (s *seconds) UnmarshalJSON(raw []byte) error {
	n, err := strconv.ParseFloat(strings.Trim(string(raw), `"`), 64)
	if err != nil || !(n >= 0 && n <= lastSecond) { // NaN is neither
		return errors.New("expires_in is no number of seconds")
	}
	*s = seconds(min(n, 100*365*24*3600) * float64(time.Second))
	return nil
}
