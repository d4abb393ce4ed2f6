package token_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/agent/token"
)

// people is a provider with the device grant (RFC 8628), refresh tokens that
// are good once (RFC 9700 section 4.14.2), and revocation (RFC 7009).
type people struct {
	*httptest.Server

	mu      sync.Mutex
	code    string // the answer to the first request
	pending int    // how often to say authorization_pending
	outcome string // error in the end; "" for a token
	refresh string // the one that is good; "" to issue none
	issued  int    // refresh tokens
	devices []url.Values
	revoked []url.Values
	without string // what the metadata leave out
	until   any    // refresh_expires_in; nil for none
	missing int    // how often not to answer for a token; every other time with 503

	onRefresh func(asked context.Context) // before the answer, if set
}

func newPeople(t *testing.T) *people {
	t.Helper()
	p := &people{
		refresh: "refresh-0", pending: 1,
		code: `{"device_code":"device-1","user_code":"WDJB-MJHT","verification_uri":"https://idp.example.com/device","verification_uri_complete":"https://idp.example.com/device?user_code=WDJB-MJHT","expires_in":1800,"interval":1}`,
	}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *people) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = r.ParseForm()
	w.Header().Set("Content-Type", "application/json")
	refuse := func(code string) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `{"error":%q}`, code)
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		document := map[string]string{
			"issuer": p.URL, "token_endpoint": p.URL + "/token",
			"device_authorization_endpoint": p.URL + "/device", "revocation_endpoint": p.URL + "/revoke",
		}
		delete(document, p.without)
		_ = json.NewEncoder(w).Encode(document)
	case "/device":
		p.devices = append(p.devices, r.PostForm)
		_, _ = io.WriteString(w, p.code)
	case "/revoke":
		p.revoked = append(p.revoked, r.PostForm)
		if r.PostForm.Get("token") == "MARKERs3cretMARKER" {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"error":"unsupported_token_type","error_description":"MARKERs3cretMARKER"}`)
		}
	case "/token":
		switch r.PostForm.Get("grant_type") {
		case "urn:ietf:params:oauth:grant-type:device_code":
			if p.missing--; p.missing >= 0 {
				if p.missing%2 == 0 {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				panic(http.ErrAbortHandler)
			}
			if p.pending--; p.pending >= 0 {
				refuse("authorization_pending")
				return
			}
			if p.outcome == "away" {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			if p.outcome != "" || r.PostForm.Get("device_code") != "device-1" {
				refuse(p.outcome)
				return
			}
		case "refresh_token":
			if r.PostForm.Get("refresh_token") != p.refresh {
				refuse("invalid_grant")
				return
			}
			if p.onRefresh != nil {
				p.onRefresh(r.Context())
			}
			p.issued++
			p.refresh = fmt.Sprint("refresh-", p.issued)
		default:
			refuse("unsupported_grant_type")
			return
		}
		idToken := "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"00u1","email":"ada@acme.dev"}`)) + ".e30"
		answer := map[string]any{
			"access_token": fmt.Sprint("access-", p.issued, "~", strings.TrimPrefix(r.PostForm.Get("audience"), "api://")), "token_type": "Bearer", "expires_in": 300, "id_token": idToken,
		}
		if p.refresh != "" {
			answer["refresh_token"] = p.refresh
		}
		if p.until != nil {
			answer["refresh_expires_in"] = p.until
		}
		_ = json.NewEncoder(w).Encode(answer)
	default:
		http.NotFound(w, r)
	}
}

func (p *people) device(t *testing.T) *token.Device {
	t.Helper()
	d, err := token.NewDevice(token.Params{Issuer: p.URL, ClientID: "crossfade-cli"})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// loggedIn is a session of refresh-0.
func (p *people) loggedIn() token.Session {
	return token.Session{
		Issuer: p.URL, ClientID: "crossfade-cli", Request: token.Request{Audience: "api://luigi", Scopes: []string{"openid"}},
		Who: "ada@acme.dev", Since: time.Unix(1700000000, 0).UTC(), Refresh: secret("refresh-0"),
	}
}

func newStore(t *testing.T) (*token.Store, token.StoreOptions) {
	t.Helper()
	o := token.StoreOptions{Path: filepath.Join(t.TempDir(), "state", "login"), KeyPath: filepath.Join(t.TempDir(), "keys", "login.key")}
	s, err := token.NewStore(o)
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

func TestAPersonLogsInOnAnotherDevice(t *testing.T) {
	t.Parallel() // the least interval of RFC 8628 is a second
	p := newPeople(t)
	var shown token.Prompt
	r := token.Request{Audience: "api://luigi", Scopes: []string{"openid", "offline_access"}, Resource: "https://luigi.acme.dev"}
	s, err := p.device(t).Login(t.Context(), r, func(prompt token.Prompt) { shown = prompt })
	if err != nil {
		t.Fatal(err)
	}
	if shown.URL != "https://idp.example.com/device" || shown.Code != "WDJB-MJHT" || shown.URLWithCode != "https://idp.example.com/device?user_code=WDJB-MJHT" || time.Until(shown.Expires) < 29*time.Minute {
		t.Errorf("shown %+v", shown)
	}
	want := url.Values{"client_id": {"crossfade-cli"}, "scope": {"openid offline_access"}, "audience": {"api://luigi"}, "resource": {"https://luigi.acme.dev"}}
	if diff := cmp.Diff([]url.Values{want}, p.devices); diff != "" {
		t.Error(diff)
	}
	if s.Issuer != p.URL || s.ClientID != "crossfade-cli" || s.Who != "ada@acme.dev" || s.Refresh.Reveal() != "refresh-0" || s.Since.IsZero() {
		t.Errorf("session %+v", s)
	}
	if diff := cmp.Diff(r, s.Request); diff != "" {
		t.Error(diff)
	}
	if text := fmt.Sprintf("%+v %#v", s, s); strings.Contains(text, "refresh-0") {
		t.Error("a session prints its refresh token")
	}
}

func TestALoginThatDoesNotComeAboutIsExplained(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*people)
		want   string
	}{
		"the person declines":     {func(p *people) { p.pending, p.outcome = 0, "access_denied" }, "access_denied: somebody declined"},
		"the code is over":        {func(p *people) { p.pending, p.outcome = 0, "expired_token" }, "expired_token: the code was not entered in time"},
		"nobody comes":            {func(p *people) { p.code = strings.Replace(p.code, "1800", "1", 1) }, "the code was not entered in time: begin again"},
		"no refresh token":        {func(p *people) { p.pending, p.refresh = 0, "" }, "ask for the scope offline_access"},
		"no such grant":           {func(p *people) { p.without = "device_authorization_endpoint" }, "offers no device authorization grant"},
		"an address in clear":     {func(p *people) { p.code = strings.ReplaceAll(p.code, "https://idp", "http://idp") }, "an address that is not https"},
		"an address of a script":  {func(p *people) { p.code = strings.ReplaceAll(p.code, "https://idp", "javascript://idp") }, "an address that is not https"},
		"no address":              {func(p *people) { p.code = `{"device_code":"device-1","user_code":"A"}` }, "an address that is not https"},
		"a code that is an image": {func(p *people) { p.code = strings.Replace(p.code, "WDJB-MJHT", `\u001b[2J`, 1) }, "no code that a person could enter"},
		"no code":                 {func(p *people) { p.code = strings.Replace(p.code, "device_code", "x", 1) }, "no code that a person could enter"},
		"no JSON":                 {func(p *people) { p.code = "MARKER" }, "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeople(t)
			c.change(p)
			_, err := p.device(t).Login(t.Context(), token.Request{}, func(token.Prompt) {})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "MARKER") || !strings.HasPrefix(err.Error(), "log in from "+p.URL) {
				t.Errorf("got %v, want one that says %q", err, c.want)
			}
		})
	}
}

func TestALoginSurvivesAProviderThatIsAwayForAMoment(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.missing, p.pending = 2, 0
	if _, err := p.device(t).Login(t.Context(), token.Request{}, func(token.Prompt) {}); err != nil {
		t.Error(err)
	}
}

func TestALoginAtAProviderThatStaysAwaySaysSo(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	p.pending, p.outcome, p.code = 0, "away", strings.Replace(p.code, "1800", "4", 1)
	_, err := p.device(t).Login(t.Context(), token.Request{}, func(token.Prompt) {})
	if err == nil || !strings.Contains(err.Error(), "refused with 503 Service Unavailable") {
		t.Errorf("got %v", err)
	}
}

func TestALoginEndsWithItsCaller(t *testing.T) {
	p := newPeople(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := p.device(t).Login(ctx, token.Request{}, func(token.Prompt) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := p.device(t).Login(ctx, token.Request{}, func(token.Prompt) { t.Error("shown") }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestALoginYieldsTokensAndKeepsTheNewRefreshToken(t *testing.T) {
	p := newPeople(t)
	store, _ := newStore(t)
	if err := store.Save(t.Context(), p.loggedIn()); err != nil {
		t.Fatal(err)
	}
	from, err := token.NewLogin(p.device(t), store)
	if err != nil {
		t.Fatal(err)
	}
	// As processes would that share the store: each needs the refresh token that
	// the one before was given.
	var callers sync.WaitGroup
	for i := range 10 {
		callers.Go(func() {
			r, want := token.Request{}, "~luigi"
			if i%2 == 0 {
				r, want = token.Request{Audience: "api://other"}, "~other"
			}
			got, err := from.Token(t.Context(), r)
			if err != nil || !strings.HasSuffix(got.Value.Reveal(), want) || got.Expiry.IsZero() {
				t.Errorf("got %s, %v, want one for %s", got.Value.Reveal(), err, want)
			}
		})
	}
	callers.Wait()
	s, err := store.Load(t.Context())
	if err != nil || s.Refresh.Reveal() != "refresh-10" {
		t.Errorf("the store holds %q, %v", s.Refresh.Reveal(), err)
	}
}

func TestTheNewRefreshTokenIsKeptForACallerThatHasGivenUp(t *testing.T) {
	p := newPeople(t)
	store, _ := newStore(t)
	if err := store.Save(t.Context(), p.loggedIn()); err != nil {
		t.Fatal(err)
	}
	from, err := token.NewLogin(p.device(t), store)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.onRefresh = func(asked context.Context) {
		cancel() // Ctrl-C, or the end of the command
		select {
		case <-asked.Done(): // the caller has not waited
		case <-time.After(100 * time.Millisecond):
		}
	}
	_, _ = from.Token(ctx, token.Request{})
	p.mu.Lock()
	p.onRefresh = nil
	p.mu.Unlock()
	if s, err := store.Load(t.Context()); err != nil || s.Refresh.Reveal() != "refresh-1" {
		t.Errorf("the store holds %q, %v", s.Refresh.Reveal(), err)
	}
	if _, err := from.Token(ctx, token.Request{}); !errors.Is(err, context.Canceled) || p.issued != 1 {
		t.Errorf("nobody wants one, and %v after %d", err, p.issued)
	}
	if _, err := from.Token(t.Context(), token.Request{}); err != nil {
		t.Errorf("the login is lost: %v", err)
	}
}

func TestWhenALoginEndsIsKeptIfTheProviderSaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		said any
		want time.Duration
	}{
		"in an hour":      {3600, time.Hour},
		"never":           {0, 0},
		"nothing":         {nil, 0},
		"a word":          {"soon", 0},
		"in the past":     {-1, 0},
		"after all times": {1e300, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeople(t)
			p.until = c.said
			store, _ := newStore(t)
			before := p.loggedIn()
			before.Until = time.Now().Add(time.Minute)
			if err := store.Save(t.Context(), before); err != nil {
				t.Fatal(err)
			}
			from, err := token.NewLogin(p.device(t), store)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := from.Token(t.Context(), token.Request{}); err != nil {
				t.Fatal(err)
			}
			s, err := store.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			switch left := time.Until(s.Until); {
			case c.want == 0 && !s.Until.IsZero(), c.want > 0 && (left > c.want || left < c.want-time.Minute):
				t.Errorf("until %s", s.Until)
			}
		})
	}
}

func TestALoginThatWasWithdrawnSaysWhatToDo(t *testing.T) {
	p := newPeople(t)
	store, _ := newStore(t)
	from, err := token.NewLogin(p.device(t), store)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := from.Token(t.Context(), token.Request{}); !errors.Is(err, token.ErrNoLogin) {
		t.Errorf("got %v", err)
	}
	s := p.loggedIn()
	s.Refresh = secret("refresh-of-yesterday")
	if err := store.Save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	_, err = from.Token(t.Context(), token.Request{})
	if err == nil || !strings.Contains(err.Error(), "invalid_grant") || !strings.HasSuffix(err.Error(), "run `crossfade login` again") || strings.Contains(err.Error(), "refresh-of-yesterday") {
		t.Errorf("got %v", err)
	}
	s.Issuer = "https://other.example.com"
	if err := store.Save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := from.Token(t.Context(), token.Request{}); err == nil || !strings.Contains(err.Error(), "log in again") {
		t.Errorf("got %v: a refresh token must not go to another provider", err)
	}
}

func TestALogoutEndsTheSessionAtTheProvider(t *testing.T) {
	p := newPeople(t)
	if err := p.device(t).Revoke(t.Context(), p.loggedIn()); err != nil {
		t.Fatal(err)
	}
	want := url.Values{"client_id": {"crossfade-cli"}, "token": {"refresh-0"}, "token_type_hint": {"refresh_token"}}
	if diff := cmp.Diff([]url.Values{want}, p.revoked); diff != "" {
		t.Error(diff)
	}
	s := p.loggedIn()
	s.Refresh = secret("MARKERs3cretMARKER")
	err := p.device(t).Revoke(t.Context(), s)
	if err == nil || !strings.Contains(err.Error(), "refused with 503 Service Unavailable, unsupported_token_type") || strings.Contains(err.Error(), "MARKER") {
		t.Errorf("got %v", err)
	}
	s.Issuer = "https://other.example.com"
	if err := p.device(t).Revoke(t.Context(), s); err == nil || len(p.revoked) != 2 {
		t.Errorf("%v, asked %d times: a refresh token must not go to another provider", err, len(p.revoked))
	}
	if err := p.device(t).Revoke(t.Context(), token.Session{}); err == nil || !strings.Contains(err.Error(), "there is no login") {
		t.Errorf("got %v", err)
	}
	p.without = "revocation_endpoint"
	if err := p.device(t).Revoke(t.Context(), p.loggedIn()); !errors.Is(err, token.ErrNoRevocation) {
		t.Errorf("got %v", err)
	}
}

func TestADeviceNeedsAProviderAndAClient(t *testing.T) {
	for _, p := range []token.Params{{}, {Issuer: "https://idp.example.com"}, {ClientID: "a"}, {Issuer: "http://idp.example.com", ClientID: "a"}, {Issuer: "https://idp.example.com", ClientID: "a", Timeout: -1}} {
		if _, err := token.NewDevice(p); err == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
	if _, err := token.NewLogin(nil, nil); err == nil {
		t.Error("a login of nothing was accepted")
	}
}

func TestASessionIsKeptEncryptedForItsOwnerAlone(t *testing.T) {
	p := newPeople(t)
	store, o := newStore(t)
	if _, err := store.Load(t.Context()); !errors.Is(err, token.ErrNoLogin) {
		t.Errorf("got %v", err)
	}
	want := p.loggedIn()
	if err := store.Save(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, plain := range []string{"refresh-0", "ada@acme.dev", "crossfade-cli", p.URL} {
		if strings.Contains(string(first), plain) {
			t.Errorf("the file holds %s in plain", plain)
		}
	}
	for _, path := range []string{o.Path, o.KeyPath, o.Path + ".lock"} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
	}
	if info, err := os.Stat(filepath.Dir(o.KeyPath)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	got, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !got.Refresh.Equal(want.Refresh) {
		t.Error("another refresh token came back")
	}
	got.Refresh, want.Refresh = secret(""), secret("")
	if diff := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)); diff != "" {
		t.Error(diff)
	}
	if err := store.Save(t.Context(), p.loggedIn()); err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(o.Path); err != nil || string(second) == string(first) {
		t.Errorf("sealed twice alike, %v", err)
	}
	for range 2 {
		if err := store.Delete(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{o.Path, o.KeyPath} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if left, err := filepath.Glob(o.Path + ".*"); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAFileThatIsNotAsItWasLeftIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(token.StoreOptions) error
		want  string
	}{
		"a session open to others": {func(o token.StoreOptions) error { return os.Chmod(o.Path, 0o640) }, "is open to others (mode 0640): `chmod 600` it"},
		"a key open to others":     {func(o token.StoreOptions) error { return os.Chmod(o.KeyPath, 0o604) }, "is open to others (mode 0604)"},
		"a key that was lost":      {func(o token.StoreOptions) error { return os.Remove(o.KeyPath) }, "no such file"},
		"another key": {
			func(o token.StoreOptions) error {
				return os.WriteFile(o.KeyPath, []byte(strings.Repeat("0f", 32)), 0o600)
			}, "was not encrypted with the key",
		},
		"a key that is none": {func(o token.StoreOptions) error { return os.WriteFile(o.KeyPath, []byte("0f"), 0o600) }, "holds no key: log in again"},
		"a bit that has changed": {
			func(o token.StoreOptions) error {
				raw, err := os.ReadFile(o.Path)
				raw[len(raw)/2] ^= 1
				return errors.Join(err, os.WriteFile(o.Path, raw, 0o600))
			}, "or was altered: log in again",
		},
		"nothing in it":      {func(o token.StoreOptions) error { return os.Truncate(o.Path, 0) }, "or was altered: log in again"},
		"far too much in it": {func(o token.StoreOptions) error { return os.Truncate(o.Path, 1<<20) }, "is not a file of ours"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeople(t)
			store, o := newStore(t)
			if err := store.Save(t.Context(), p.loggedIn()); err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(o); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Load(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want one that says %q", err, c.want)
			}
		})
	}
}

func TestAStoreNeedsTwoFiles(t *testing.T) {
	for _, o := range []token.StoreOptions{{}, {Path: "a"}, {KeyPath: "a"}, {Path: "a", KeyPath: "./a"}} {
		if _, err := token.NewStore(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

func TestAStoreWaitsForAnotherProcessNoLongerThanItsContext(t *testing.T) {
	p := newPeople(t)
	store, _ := newStore(t)
	from, err := token.NewLogin(p.device(t), store)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Save(t.Context(), p.loggedIn()); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock() // the provider hangs, and whoever asked it holds the store
	held := make(chan struct{})
	go func() {
		defer close(held)
		_, _ = from.Token(t.Context(), token.Request{})
	}()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err = store.Load(ctx)
		cancel()
		if err != nil {
			break
		}
	}
	p.mu.Unlock()
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "wait for another process") {
		t.Errorf("got %v", err)
	}
	<-held
}
