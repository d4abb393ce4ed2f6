package token_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/agent/token"
)

func TestEveryMistakeOfASourceIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		kind   string
		params token.Params
		want   []string
	}{
		"a kind that nobody knows": {
			"vault",
			token.Params{},
			[]string{`token source "vault" is not known: use one of client_credentials, token_exchange, github_actions, gcp, aws, exec, file`},
		},
		"client credentials of nothing": {
			"client_credentials",
			token.Params{},
			[]string{
				"token source client_credentials: no provider: give its issuer, or its token endpoint",
				"the client cannot prove itself: give a file with its secret, its private key or its certificate",
			},
		},
		"many mistakes at once": {
			"token_exchange",
			token.Params{Issuer: "http://idp.example.com", ClientAuth: token.AuthPrivateKeyJWT, CertFile: "x", Timeout: -1},
			[]string{
				"token source token_exchange: the issuer http://idp.example.com must be https: secrets and tokens would go in the clear (http is allowed on a loopback address)",
				"private_key_jwt needs a file with the client's private key",
				"private_key_jwt needs the client's id",
				"a client certificate needs both its file and the file of its key",
				"no token to exchange: give the file that holds the subject token",
				"a token cannot be waited for for -1ns",
			},
		},
		"a method that nobody knows": {
			"client_credentials",
			token.Params{TokenURL: "https://idp.example.com/token", ClientAuth: "client_secret_jwt", ClientID: "a"},
			[]string{`token source client_credentials: client authentication "client_secret_jwt" is not known: use one of client_secret_basic, client_secret_post, private_key_jwt, tls_client_auth, self_signed_tls_client_auth, none`},
		},
		"an address with a password": {
			"client_credentials",
			token.Params{TokenURL: "https://u:p@idp.example.com/token", ClientID: "a", SecretFile: "x"},
			[]string{"token source client_credentials: the token endpoint must not hold a user or password"},
		},
		"an address that is none": {
			"client_credentials",
			token.Params{TokenURL: "https://%MARKER", ClientID: "a", SecretFile: "x"},
			[]string{"token source client_credentials: the token endpoint cannot be parsed as a URL"},
		},
		"an address with a query": {
			"client_credentials",
			token.Params{Issuer: "https://idp.example.com/?secret=MARKER", ClientID: "a", SecretFile: "x"},
			[]string{"token source client_credentials: the issuer must not hold a query"},
		},
		"an address with a fragment": {
			"client_credentials",
			token.Params{Issuer: "https://idp.example.com/#a", ClientID: "a", SecretFile: "x"},
			[]string{"token source client_credentials: the issuer https://idp.example.com/#a must not hold a fragment"},
		},
		"a secret that is not there": {
			"client_credentials",
			token.Params{Issuer: "https://idp.example.com", ClientID: "a", ClientAuth: token.AuthPost},
			[]string{"token source client_credentials: client_secret_post needs a file with the client's secret"},
		},
		"a secret without a method that needs it": {
			"client_credentials",
			token.Params{TokenURL: "https://idp.example.com/token", ClientID: "a", ClientAuth: token.AuthTLS, SecretFile: "x"},
			[]string{"token source client_credentials: tls_client_auth needs a file with the client's certificate"},
		},
		"a program of nothing":       {"exec", token.Params{}, []string{"token source exec: no program: give it with its arguments"}},
		"a file of nothing":          {"file", token.Params{}, []string{"token source file: no token file: give its path"}},
		"an account that is a path":  {"gcp", token.Params{ServiceAccount: "../token"}, []string{"token source gcp: the service account is neither default nor an address"}},
		"an account that is a climb": {"gcp", token.Params{ServiceAccount: ".."}, []string{"token source gcp: the service account is neither default nor an address"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := token.New(c.kind, c.params)
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff(c.want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAFileIsReadEachTime(t *testing.T) {
	exp := time.Now().Add(time.Hour).Truncate(time.Second)
	path := filepath.Join(t.TempDir(), "token")
	for kind, p := range map[string]token.Params{
		"file": {File: path},
		// https://docs.aws.amazon.com/eks/latest/userguide/pod-configuration.html
		"aws": {Getenv: environment(map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": path})},
	} {
		t.Run(kind, func(t *testing.T) {
			from := source(t, kind, p)
			for _, c := range []struct {
				content, value string
				expiry         time.Time
			}{
				{"opaque-1\n", "opaque-1", time.Time{}},
				{"  " + jwtUntil(exp, "a") + "\r\n", jwtUntil(exp, "a"), exp},
			} {
				if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
					t.Fatal(err)
				}
				got, err := from.Token(t.Context(), token.Request{})
				if err != nil {
					t.Fatal(err)
				}
				if got.Value.Reveal() != c.value || !got.Expiry.Equal(c.expiry) {
					t.Errorf("got %s until %s", got.Value.Reveal(), got.Expiry)
				}
			}
		})
	}
}

func TestAFileThatHoldsNoTokenIsToldWithoutItsContent(t *testing.T) {
	for name, c := range map[string]struct{ path, want string }{
		"not there":         {filepath.Join(t.TempDir(), "absent"), "no such file"},
		"a directory":       {t.TempDir(), "is no regular file"},
		"empty":             {file(t, " \n"), "is empty"},
		"two lines":         {file(t, "MARKER\nMARKER"), "may not stand in a token"},
		"a whole header":    {file(t, "Bearer MARKER"), "may not stand in a token"},
		"a very long thing": {file(t, strings.Repeat("MARKER", 20000)), "larger than 64 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := source(t, "file", token.Params{File: c.path}).Token(t.Context(), token.Request{})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "MARKER") {
				t.Errorf("got %v, want one that says %q", err, c.want)
			}
		})
	}
	if _, err := source(t, "aws", token.Params{Getenv: environment(nil)}).Token(t.Context(), token.Request{}); err == nil || !strings.Contains(err.Error(), "AWS_WEB_IDENTITY_TOKEN_FILE is not set") {
		t.Errorf("got %v", err)
	}
}

func TestAKeeperSeesAFileThatWasReplacedBeforeItsTime(t *testing.T) {
	path := file(t, "opaque-1")
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Int64
		k := keep(t, token.KeeperOptions{Source: source(t, "file", token.Params{File: path}), OnRefresh: func(error, time.Time) { told.Add(1) }})
		wantToken(t, k)
		time.Sleep(65 * time.Second) // it is read every 10 s, and not while it is written
		if err := os.WriteFile(path, []byte("opaque-2"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second)
		if got := wantToken(t, k); got != "opaque-2" {
			t.Errorf("got %s", got)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second)
		if got := wantToken(t, k); got != "opaque-2" {
			t.Errorf("got %s: what was read is good for a while", got)
		}
		synctest.Wait()
		if n := told.Load(); n < 3 || n > 6 { // two tokens and the first failures, but not each reading
			t.Errorf("told %d times", n)
		}
		time.Sleep(10 * time.Minute)
		if _, err := k.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("got %v", err)
		}
	})
}

// github answers as the runner's endpoint does: GET on the address of the
// environment, which has a query of its own already, with the audience added and
// the request token as a bearer; the ID token is in "value".
//
// https://docs.github.com/en/actions/reference/security/oidc
func github(t *testing.T, answer string, status int) (env map[string]string, asked *http.Request) {
	t.Helper()
	asked = new(http.Request)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = *r.Clone(context.Background())
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return map[string]string{
		"ACTIONS_ID_TOKEN_REQUEST_URL":   s.URL + "/idtoken?api-version=2.0",
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner-token",
	}, asked
}

func TestAJobOfGitHubActionsGetsItsToken(t *testing.T) {
	exp := time.Now().Add(5 * time.Minute).Truncate(time.Second)
	env, asked := github(t, `{"count":1,"value":"`+jwtUntil(exp, "job")+`"}`, 200)
	from := source(t, "github_actions", token.Params{Getenv: environment(env)})
	got, err := from.Token(t.Context(), token.Request{Audience: "api://luigi", Run: "a\r\nb"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Value.Reveal() != jwtUntil(exp, "job") || !got.Expiry.Equal(exp) {
		t.Errorf("got %s until %s", got.Value.Reveal(), got.Expiry)
	}
	if asked.Method != "GET" || asked.URL.Path != "/idtoken" || asked.Header.Get("Authorization") != "Bearer runner-token" || asked.UserAgent() != "crossfade-agent (run a b)" {
		t.Errorf("asked %s %s %v", asked.Method, asked.URL, asked.Header)
	}
	if diff := cmp.Diff("api-version=2.0&audience=api%3A%2F%2Fluigi", asked.URL.RawQuery); diff != "" {
		t.Error(diff)
	}
}

func TestWhatGitHubActionsLackIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		status int
		env    map[string]string
		want   string
	}{
		"outside of a job":                   {env: map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": ""}, want: "permissions: id-token: write"},
		"an address in clear":                {env: map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": "http://example.com/?MARKER"}, want: "is not https"},
		"an address that is none":            {env: map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": "%MARKER"}, want: "is no address"},
		"a token that would split a header":  {env: map[string]string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "MARKER\r\nX: 1"}, want: "may not stand in a token"},
		"a refusal":                          {answer: `MARKER`, status: 403, want: "refused with 403 Forbidden"},
		"an answer that is no JSON":          {answer: `MARKER`, want: "not the JSON that is documented"},
		"an answer without a token":          {answer: `{}`, want: "it is empty"},
		"an answer with something else":      {answer: `{"value":"MARKER"}`, want: "no JWT with an exp"},
		"a JWT that never ends":              {answer: `{"value":"e30.e30.MARKER"}`, want: "no JWT with an exp"},
		"an answer that goes on and on":      {answer: `{"value":"` + strings.Repeat("MARKER", 1<<18) + `"}`, want: "longer than 1 MiB"},
		"an answer that sends us elsewhere":  {status: 302, want: "redirects to evil.example.com"},
		"an answer in the middle of nowhere": {env: map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": "http://127.0.0.1:1/"}, want: "connection refused: is it up, and can it be reached from here?"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.status == 0 {
				c.status = 200
			}
			env, _ := github(t, c.answer, c.status)
			if c.status == 302 {
				s := httptest.NewServer(http.RedirectHandler("https://evil.example.com/MARKER", http.StatusFound))
				t.Cleanup(s.Close)
				env["ACTIONS_ID_TOKEN_REQUEST_URL"] = s.URL
			}
			for name, value := range c.env {
				env[name] = value
			}
			_, err := source(t, "github_actions", token.Params{Getenv: environment(env)}).Token(t.Context(), token.Request{})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "MARKER") || strings.Contains(err.Error(), "runner-token") {
				t.Errorf("got %v, want one that says %q", err, c.want)
			}
		})
	}
}

// gcp answers as the metadata server does: only to who sends Metadata-Flavor,
// which it sends back, with the JWT as the whole body.
//
// https://cloud.google.com/docs/authentication/get-id-token#metadata-server
func gcp(t *testing.T, answer string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Metadata-Flavor") != "Google" {
			http.Error(w, "Missing Metadata-Flavor:Google header.", http.StatusForbidden)
			return
		}
		if answer != "FOREIGN" {
			w.Header().Set("Metadata-Flavor", "Google")
		}
		if r.URL.Path != "/computeMetadata/v1/instance/service-accounts/default/identity" {
			http.NotFound(w, r)
			return
		}
		if r.URL.Query().Get("audience") != "api://luigi" || r.URL.Query().Get("format") != "full" {
			http.Error(w, "non-empty audience parameter required", http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestAMachineOfGoogleCloudGetsItsToken(t *testing.T) {
	exp := time.Now().Add(time.Hour).Truncate(time.Second)
	good := jwtUntil(exp, "machine")
	for name, c := range map[string]struct {
		answer, account string
		request         token.Request
		want            string // "" for a token
	}{
		"with an audience":                 {good, "", token.Request{Audience: "api://luigi"}, ""},
		"not without one":                  {good, "", token.Request{}, "no audience"},
		"not of an account that is absent": {good, "other@acme.iam.gserviceaccount.com", token.Request{Audience: "api://luigi"}, "knows no service account other@acme.iam.gserviceaccount.com"},
		"not of somebody else's server":    {"FOREIGN", "", token.Request{Audience: "api://luigi"}, "lacks Metadata-Flavor: Google"},
		"not of a page":                    {"<html>", "", token.Request{Audience: "api://luigi"}, "may not stand in a token"},
		"not with another audience":        {good, "", token.Request{Audience: "other"}, "refused with 400"},
	} {
		t.Run(name, func(t *testing.T) {
			s := gcp(t, c.answer)
			from := source(t, "gcp", token.Params{
				ServiceAccount: c.account,
				Getenv:         environment(map[string]string{"GCE_METADATA_HOST": s.Listener.Addr().String()}),
			})
			got, err := from.Token(t.Context(), c.request)
			switch {
			case c.want == "" && (err != nil || got.Value.Reveal() != good || !got.Expiry.Equal(exp)):
				t.Errorf("got %s until %s, %v", got.Value.Reveal(), got.Expiry, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want one that says %q", err, c.want)
			}
		})
	}
}

// TestNoErrorShowsASecret lets every source fail in ways in which the other side
// repeats the secrets that it was sent.
func TestNoErrorShowsASecret(t *testing.T) {
	const marker = "MARKERs3cretMARKER"
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		_, pass, _ := r.BasicAuth()
		all := fmt.Sprint(pass, " ", r.PostForm, " ", r.Header.Get("Authorization"))
		w.Header().Set("Metadata-Flavor", "Google")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `{"error":%q,"error_description":%q}`, "no "+pass+" "+marker, "you sent "+all)
	}))
	t.Cleanup(echo.Close)
	elsewhere := httptest.NewServer(http.RedirectHandler("https://evil.example.com/"+marker, http.StatusTemporaryRedirect))
	t.Cleanup(elsewhere.Close)
	held := file(t, marker)
	broken := file(t, marker+" "+marker)
	cert, _ := clientCert(t, "svc-etl")
	for name, c := range map[string]struct {
		kind string
		p    token.Params
	}{
		"client_credentials, basic":              {"client_credentials", token.Params{TokenURL: echo.URL, ClientID: "a", SecretFile: held}},
		"client_credentials, post":               {"client_credentials", token.Params{TokenURL: echo.URL, ClientID: "a", SecretFile: held, ClientAuth: token.AuthPost}},
		"client_credentials, elsewhere":          {"client_credentials", token.Params{TokenURL: elsewhere.URL, ClientID: "a", SecretFile: held}},
		"client_credentials, nobody there":       {"client_credentials", token.Params{TokenURL: "http://127.0.0.1:1", ClientID: "a", SecretFile: held}},
		"client_credentials, discovery":          {"client_credentials", token.Params{Issuer: echo.URL, ClientID: "a", SecretFile: held}},
		"client_credentials, a key":              {"client_credentials", token.Params{TokenURL: echo.URL, ClientID: "a", KeyFile: held}},
		"client_credentials, a certificate":      {"client_credentials", token.Params{TokenURL: echo.URL, ClientID: "a", CertFile: file(t, cert), CertKeyFile: held}},
		"client_credentials, other certificates": {"client_credentials", token.Params{TokenURL: echo.URL, ClientID: "a", SecretFile: held, CAFile: held}},
		"token_exchange":                         {"token_exchange", token.Params{TokenURL: echo.URL, SubjectTokenFile: held}},
		"token_exchange, no token":               {"token_exchange", token.Params{TokenURL: echo.URL, SubjectTokenFile: broken}},
		"github_actions": {"github_actions", token.Params{Getenv: environment(map[string]string{
			"ACTIONS_ID_TOKEN_REQUEST_URL": echo.URL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": marker,
		})}},
		"github_actions, elsewhere": {"github_actions", token.Params{Getenv: environment(map[string]string{
			"ACTIONS_ID_TOKEN_REQUEST_URL": elsewhere.URL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": marker,
		})}},
		"gcp":  {"gcp", token.Params{Getenv: environment(map[string]string{"GCE_METADATA_HOST": echo.Listener.Addr().String()})}},
		"aws":  {"aws", token.Params{Getenv: environment(map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": broken})}},
		"file": {"file", token.Params{File: broken}},
		"exec, what it says": {"exec", token.Params{Command: []string{
			"/bin/sh", "-c", `echo "password=` + marker + ` Bearer ` + marker + ` it was ` + marker + `0123456789" >&2; exit 1`,
		}}},
		"exec, what it prints": {"exec", token.Params{Command: []string{"/bin/echo", marker}}},
		"exec, its arguments":  {"exec", token.Params{Command: []string{"/bin/false", marker}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := source(t, c.kind, c.p).Token(t.Context(), token.Request{Audience: "api://luigi"})
			if err == nil {
				t.Fatal("no error")
			}
			for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
				if strings.Contains(text, marker) {
					t.Errorf("shows the secret: %s", text)
				}
			}
			if !strings.HasPrefix(err.Error(), "obtain a token by "+c.kind) {
				t.Errorf("does not say what was attempted: %v", err)
			}
		})
	}
}

func FuzzTokenAnswer(f *testing.F) {
	for _, seed := range []string{
		answerOpaque, `{"access_token":"a","expires_in":"60"}`, `{"error":"invalid_client","error_description":"x"}`, `{`, ``,
		`{"access_token":"a\r\nb"}`, `{"access_token":"` + jwtUntil(time.Unix(1<<40, 0), "") + `","expires_in":-1}`,
	} {
		f.Add(seed, 200)
		f.Add(seed, 400)
	}
	const sent = "MARKERs3cretMARKER"
	f.Fuzz(func(t *testing.T, answer string, status int) {
		if status < 200 || status > 599 {
			return
		}
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, answer)
		}))
		defer s.Close()
		secretFile := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(secretFile, []byte(sent), 0o600); err != nil {
			t.Fatal(err)
		}
		from := source(t, "client_credentials", token.Params{TokenURL: s.URL, ClientID: "a", SecretFile: secretFile})
		checkOutcome(t, from, sent)
	})
}

// checkOutcome asserts what holds whatever the other side said: a token fit for a
// header or an error that is printable, bounded and without the secret.
func checkOutcome(t *testing.T, from token.Source, sent string) {
	t.Helper()
	got, err := from.Token(t.Context(), token.Request{})
	if err != nil {
		if text := err.Error(); len(text) > 4000 || strings.Contains(text, sent) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
			t.Errorf("error %q", text)
		}
		return
	}
	if value := got.Value.Reveal(); value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		t.Errorf("token %q", value)
	}
	if got.Obtained.IsZero() {
		t.Error("nobody knows when it was obtained")
	}
}
