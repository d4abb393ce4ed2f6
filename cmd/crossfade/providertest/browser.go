package providertest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"strings"

	"crossfade/gateway/agent/token"
)

// maxPages bounds how many forms there are between a code and its approval.
const maxPages = 10

// Approve does what Person does with a Prompt: goes to its address, enters the
// code, confirms it, signs in and consents, page by page.
func (p *Provider) Approve(ctx context.Context, prompt token.Prompt) error {
	return p.visit(ctx, prompt, false)
}

// Decline does what somebody does who does not know where the code comes from.
func (p *Provider) Decline(ctx context.Context, prompt token.Prompt) error {
	return p.visit(ctx, prompt, true)
}

// What the provider's pages say at the end.
const (
	approved = "Sign-in Success"
	declined = "The Sign-in request was interrupted"
)

func (p *Provider) visit(ctx context.Context, prompt token.Prompt, abort bool) error {
	b, err := p.browser()
	if err != nil {
		return err
	}
	defer b.client.CloseIdleConnections()
	page, err := b.open(ctx, http.MethodGet, prompt.URL, nil)
	for range maxPages {
		if err != nil {
			return fmt.Errorf("visit the provider: %w", err)
		}
		if strings.Contains(page.text, approved) && !abort || strings.Contains(page.text, declined) && abort {
			return nil
		}
		entered := map[string]string{"user_code": prompt.Code, "login": Person, "password": "any"}
		if abort && strings.Contains(page.text, "op.deviceConfirmForm") {
			entered["abort"] = "yes" // a button beside the form
		}
		page, err = b.submit(ctx, page, entered)
	}
	return fmt.Errorf("visit the provider: after %d pages there is another one", maxPages)
}

// browser is enough of one: cookies, redirects and forms.
type browser struct{ client *http.Client }

type page struct {
	at   *url.URL
	text string
}

func (p *Provider) browser() (*browser, error) {
	text, err := os.ReadFile(p.CAFile())
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	return &browser{&http.Client{
		Jar: jar, Timeout: patience,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
	}}, nil
}

func (b *browser) open(ctx context.Context, method, address string, form url.Values) (page, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return page{}, err
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := b.client.Do(r)
	if err != nil {
		return page{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s:\n%s", hidden(resp.Request.URL), resp.Status, text)
	}
	return page{resp.Request.URL, string(text)}, err
}

var (
	formTag  = regexp.MustCompile(`(?s)<form\b([^>]*)>(.*?)</form>`)
	inputTag = regexp.MustCompile(`(?s)<input\b([^>]*)>`)
	attr     = regexp.MustCompile(`([a-z]+)="([^"]*)"`)
)

// submit sends the form of a page, with what a person would enter where the
// page has nothing yet.
func (b *browser) submit(ctx context.Context, p page, entered map[string]string) (page, error) {
	form := formTag.FindStringSubmatch(p.text)
	if form == nil {
		return page{}, errors.New("there is no form on the page:\n" + p.text)
	}
	action, err := p.at.Parse(attributes(form[1])["action"])
	if err != nil {
		return page{}, err
	}
	values := url.Values{}
	for _, input := range inputTag.FindAllStringSubmatch(form[2], -1) {
		of := attributes(input[1])
		value := of["value"]
		if of["type"] != "hidden" {
			value = entered[of["name"]]
		}
		values.Set(of["name"], value)
	}
	if abort, ok := entered["abort"]; ok {
		values.Set("abort", abort)
	}
	return b.open(ctx, http.MethodPost, action.String(), values)
}

func attributes(tag string) map[string]string {
	all := make(map[string]string)
	for _, pair := range attr.FindAllStringSubmatch(tag, -1) {
		all[pair[1]] = html.UnescapeString(pair[2])
	}
	return all
}
