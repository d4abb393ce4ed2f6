package demo_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/identity"
)

// startIssuer starts an issuer with two clients, and a client that waits for
// its connections at the end.
func startIssuer(t *testing.T) (*demo.Issuer, context.Context, *http.Client) {
	t.Helper()
	issuer, err := demo.NewIssuer(demo.IssuerOptions{Clients: map[string]identity.Secret{
		"svc-etl":     identity.NewSecret("etl: sécret/%"),
		"svc-billing": identity.NewSecret("billing-secret"),
		"svc-empty":   {},
	}})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		if err := issuer.Close(); err != nil {
			t.Error(err)
		}
	})
	return issuer, oidc.ClientContext(t.Context(), client), client
}

func TestIssuerTokensAreVerifiedByAnIndependentLibrary(t *testing.T) {
	t.Parallel()
	issuer, ctx, _ := startIssuer(t)
	provider, err := oidc.NewProvider(ctx, issuer.URL())
	if err != nil {
		t.Fatal(err)
	}
	if got := provider.Endpoint().TokenURL; got != issuer.TokenURL() {
		t.Errorf("discovery names the token endpoint %s, the issuer %s", got, issuer.TokenURL())
	}
	before := time.Now()
	raw, err := issuer.Token(ctx, "svc-etl", "luigi")
	if err != nil {
		t.Fatal(err)
	}
	token, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: "luigi", SupportedSigningAlgs: []string{oidc.RS256}}).Verify(ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		ClientID string `json:"client_id"`
		ID       string `json:"jti"`
	}
	if err := token.Claims(&claims); err != nil {
		t.Fatal(err)
	}
	if token.Subject != "svc-etl" || claims.ClientID != "svc-etl" || claims.ID == "" || !slices.Equal(token.Audience, []string{"luigi"}) {
		t.Errorf("subject %q, client %q, id %q, audience %q", token.Subject, claims.ClientID, claims.ID, token.Audience)
	}
	if lives := token.Expiry.Sub(before); lives > 5*time.Minute+2*time.Second || lives < 4*time.Minute {
		t.Errorf("the token lives %s", lives)
	}
}

func TestIssuerATokenForAnotherAudienceIsAnothersToken(t *testing.T) {
	t.Parallel()
	issuer, ctx, _ := startIssuer(t)
	provider, err := oidc.NewProvider(ctx, issuer.URL())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := issuer.Token(ctx, "svc-billing", "api://finance")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: "luigi"}).Verify(ctx, raw); err == nil {
		t.Error("a token for api://finance was accepted for luigi")
	}
	if _, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: "api://finance"}).Verify(ctx, raw); err != nil {
		t.Error(err)
	}
}

func TestIssuerRotationKeepsTheKeyBeforeAndWithdrawsTheOneBeforeThat(t *testing.T) {
	t.Parallel()
	issuer, ctx, _ := startIssuer(t)
	verify := func(raw string) error {
		// A provider of its own has no key cached.
		provider, err := oidc.NewProvider(ctx, issuer.URL())
		if err != nil {
			t.Fatal(err)
		}
		_, err = provider.VerifierContext(ctx, &oidc.Config{ClientID: "luigi"}).Verify(ctx, raw)
		return err
	}
	var tokens []string
	for range 3 {
		raw, err := issuer.Token(ctx, "svc-etl", "luigi")
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, raw)
		if err := verify(raw); err != nil {
			t.Fatal(err)
		}
		if err := issuer.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	if err := verify(tokens[2]); err != nil {
		t.Errorf("a token of the key before the current one: %v", err)
	}
	for _, raw := range tokens[:2] {
		if verify(raw) == nil {
			t.Error("a token of a withdrawn key was accepted")
		}
	}
}

func TestIssuerRefusesClientsThatDoNotProveThemselves(t *testing.T) {
	t.Parallel()
	issuer, ctx, client := startIssuer(t)
	for _, name := range []string{"nobody", "svc-empty", ""} {
		if _, err := issuer.Token(ctx, name, "luigi"); err == nil {
			t.Errorf("client %q got a token", name)
		}
	}
	for name, form := range map[string]url.Values{
		"a wrong secret":                        {"grant_type": {"client_credentials"}, "audience": {"luigi"}, "client_id": {"svc-billing"}, "client_secret": {"guess"}},
		"no secret":                             {"grant_type": {"client_credentials"}, "audience": {"luigi"}, "client_id": {"svc-billing"}},
		"no audience":                           {"grant_type": {"client_credentials"}, "client_id": {"svc-billing"}, "client_secret": {"billing-secret"}},
		"the authorization code grant":          {"grant_type": {"authorization_code"}, "code": {"x"}, "client_id": {"svc-billing"}, "client_secret": {"billing-secret"}},
		"the refresh token grant":               {"grant_type": {"refresh_token"}, "refresh_token": {"x"}, "client_id": {"svc-billing"}, "client_secret": {"billing-secret"}},
		"a grant that does not exist":           {"grant_type": {"wishing"}},
		"the password grant, which was retired": {"grant_type": {"password"}, "username": {"svc-billing"}, "password": {"billing-secret"}},
	} {
		status, body := postForm(t, client, issuer.TokenURL(), form)
		if status/100 != 4 && status/100 != 5 || strings.Contains(body, "access_token") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	status, body := postForm(t, client, issuer.TokenURL(), url.Values{
		"grant_type": {"client_credentials"}, "audience": {"luigi"}, "client_id": {"svc-billing"}, "client_secret": {"billing-secret"},
	})
	var reply struct {
		Token string `json:"access_token"`
		Type  string `json:"token_type"`
	}
	if err := json.Unmarshal([]byte(body), &reply); err != nil || status != 200 || reply.Token == "" || reply.Type != "Bearer" {
		t.Errorf("a client that sends its secret in the form: %d %s", status, body)
	}
}

func TestIssuerOffersNothingButClientCredentials(t *testing.T) {
	t.Parallel()
	issuer, _, client := startIssuer(t)
	for _, path := range []string{
		"/authorize?client_id=svc-etl&response_type=code&scope=openid&redirect_uri=http://127.0.0.1/", "/authorize/callback?id=1",
		"/userinfo", "/end_session", "/device_authorization", "/oauth/introspect", "/revoke",
	} {
		for _, method := range []string{"GET", "POST"} {
			req, err := http.NewRequestWithContext(t.Context(), method, issuer.URL()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth("svc-billing", "billing-secret")
			resp, err := client.Do(req)
			if err != nil {
				t.Errorf("%s %s: %v", method, path, err)
				continue
			}
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusFound {
				t.Errorf("%s %s: redirects to %s", method, path, resp.Header.Get("Location"))
			}
		}
	}
}

func TestIssuerReportsThatNobodyAnswers(t *testing.T) {
	t.Parallel()
	issuer, err := demo.NewIssuer(demo.IssuerOptions{Clients: map[string]identity.Secret{"svc-etl": identity.NewSecret("s3cret")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := issuer.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = issuer.Token(t.Context(), "svc-etl", "luigi")
	if err == nil || !strings.Contains(err.Error(), "fetch a token for svc-etl") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("error = %v", err)
	}
	if _, err := demo.NewIssuer(demo.IssuerOptions{Lifetime: -1}); err == nil {
		t.Error("a negative lifetime was accepted")
	}
}

func postForm(t *testing.T, client *http.Client, target string, form url.Values) (status int, body string) {
	t.Helper()
	resp, err := client.PostForm(target, form)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(all)
}
