package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/gateway/agent"
	agenttoken "crossfade/gateway/agent/token"
	"crossfade/gateway/identity"
)

// people is a provider for persons: the device grant (RFC 8628), refresh tokens
// that are good once (RFC 9700 section 4.14.2) and revocation (RFC 7009).
type people struct {
	*httptest.Server
	name string // is in all of its tokens, and nowhere else

	mu      sync.Mutex
	pending int    // how often nobody has entered the code yet
	outcome string // the error in the end; "" for a token
	without string // what the metadata leave out
	opaque  bool   // its tokens are no JWT
	once    bool   // it issues no refresh tokens
	revoke  int    // status of revocations; 200 when 0
	life    int    // of refresh tokens, in seconds; 0 if it does not say

	refresh string // the one that is good
	issued  int
	devices []url.Values
	revoked []string
}

func newPeople(t *testing.T) *people {
	t.Helper()
	p := &people{name: "MARKER" + strings.ReplaceAll(t.Name(), "/", "-")}
	p.Server = httptest.NewUnstartedServer(p)
	p.Start()
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
		_ = json.NewEncoder(w).Encode(map[string]string{"error": code})
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
		_ = json.NewEncoder(w).Encode(map[string]any{
			"device_code": p.name + "-device", "user_code": "WDJB-MJHT", "verification_uri": p.URL + "/enter",
			"verification_uri_complete": p.URL + "/enter?code=WDJB-MJHT", "expires_in": 900, "interval": 1,
		})
	case "/revoke":
		p.revoked = append(p.revoked, r.PostForm.Get("token"))
		if p.revoke != 0 {
			w.WriteHeader(p.revoke)
		}
	case "/token":
		switch r.PostForm.Get("grant_type") {
		case "refresh_token":
			if p.refresh == "" || r.PostForm.Get("refresh_token") != p.refresh {
				refuse("invalid_grant")
				return
			}
		case "urn:ietf:params:oauth:grant-type:device_code":
			if p.pending--; p.pending >= 0 {
				refuse("authorization_pending")
				return
			}
			if p.outcome != "" {
				refuse(p.outcome)
				return
			}
		default:
			refuse("unsupported_grant_type")
			return
		}
		p.issued++
		answer := map[string]any{
			"access_token": p.accessToken(r.PostForm.Get("audience")), "token_type": "Bearer", "expires_in": 300,
			"id_token": jwt(map[string]any{"sub": "00u1", "email": "ada@acme.dev"}),
		}
		if !p.once {
			p.refresh = fmt.Sprintf("%s-refresh-%d", p.name, p.issued)
			answer["refresh_token"] = p.refresh
		}
		if p.life != 0 {
			answer["refresh_expires_in"] = p.life
		}
		_ = json.NewEncoder(w).Encode(answer)
	default:
		http.NotFound(w, r)
	}
}

// accessToken is one that names its number in a claim that is not for people.
func (p *people) accessToken(audience string) string {
	if p.opaque {
		return fmt.Sprintf("%s-access-%d", p.name, p.issued)
	}
	return jwt(map[string]any{
		"sub": "00u1", "aud": audience, "groups": []string{"data-eng", "lead\u009b2J"}, "exp": time.Now().Add(5 * time.Minute).Unix(),
		"jti": fmt.Sprintf("%s-access-%d", p.name, p.issued),
	})
}

func jwt(claims map[string]any) string {
	text, _ := json.Marshal(claims)
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256"}`)) + "." + part(text) + "." + part([]byte("MARKER of a signature"))
}

// seen returns what was asked and revoked, and the refresh token that is good.
func (p *people) seen() (devices []url.Values, revoked []string, refresh string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.devices, p.revoked, p.refresh
}

// set changes what is answered.
func (p *people) set(change func(*people)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

// person is somebody with a home.
type person struct{ home string }

func newPerson(t *testing.T) person { return person{t.TempDir()} }

func (u person) run(t *testing.T, args ...string) ran {
	t.Helper()
	got := with{environ: []string{"HOME=" + u.home}}.run(t, args...)
	for _, secret := range []string{"MARKER", "eyJ"} {
		if strings.Contains(got.stdout+got.stderr, secret) {
			t.Errorf("a secret was shown: %v", got)
		}
	}
	return got
}

func (u person) login(t *testing.T, idp *people, more ...string) ran {
	t.Helper()
	return u.run(t, append([]string{"login", "--issuer", idp.URL, "--client-id", "crossfade-cli"}, more...)...)
}

func (u person) logins(t *testing.T) *agenttoken.Logins {
	t.Helper()
	l, err := agenttoken.NewLogins(agenttoken.LoginsOptions{
		Dir: filepath.Join(u.home, ".local/state/crossfade/login"), KeyDir: filepath.Join(u.home, ".config/crossfade/login"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// is lets a person have logged in an hour ago, as a client of a provider.
func (u person) is(t *testing.T, idp *people, client string) *agenttoken.Store {
	t.Helper()
	idp.set(func(p *people) { p.refresh = p.name + "-refresh" })
	store := u.logins(t).Of(idp.URL, client)
	err := store.Save(t.Context(), agenttoken.Session{
		Issuer: idp.URL, ClientID: client, Who: "ada@acme.dev", Since: time.Date(2026, 5, 12, 9, 0, 0, 0, time.UTC),
		Request: agenttoken.Request{Audience: "luigi", Scopes: []string{"openid", "offline_access"}},
		Refresh: identity.NewSecret(idp.name + "-refresh"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// left are the files that a login leaves in a home, but for empty locks.
func (u person) left(t *testing.T) (files []string) {
	t.Helper()
	err := filepath.WalkDir(u.home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".lock") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestAPersonLogsInRunsAWorkerAndLogsOut(t *testing.T) {
	t.Parallel() // a provider is asked once a second at most
	idp, u := newPeople(t), newPerson(t)
	idp.set(func(p *people) { p.pending, p.life = 1, 3600 })
	got := u.login(t, idp, "--audience", "luigi").want(t, exitOK, "Logged in as ada@acme.dev at "+idp.URL+" (client crossfade-cli).", "unless it is used before then")
	for _, text := range []string{"    " + idp.URL + "/enter\n", "    WDJB-MJHT\n", "or open " + idp.URL + "/enter?code=WDJB-MJHT\n", "Waiting until 20"} {
		if !strings.Contains(got.stderr, text) {
			t.Errorf("%q was not shown: %v", text, got)
		}
	}
	want := url.Values{"client_id": {"crossfade-cli"}, "scope": {"openid offline_access"}, "audience": {"luigi"}}
	if devices, _, _ := idp.seen(); len(devices) != 1 || devices[0].Encode() != want.Encode() {
		t.Errorf("asked for %v", devices)
	}
	left := u.left(t)
	if len(left) != 2 {
		t.Errorf("left %v", left)
	}
	for _, file := range left {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 || !strings.Contains(got.stdout, file) {
			t.Errorf("%s: %v, %v: %v", file, info.Mode(), err, got)
		}
		if strings.Contains(read(t, file), "MARKER") {
			t.Errorf("%s holds a token in clear", file)
		}
	}

	got = u.run(t, "whoami").want(t, exitOK, "ada@acme.dev", "crossfade-cli", "luigi", `["data-eng","lead 2J"]`, `"00u1"`, "good until 20")
	if left := regexp.MustCompile(`Z, in [0-9]m[0-9]+s\)`); !left.MatchString(got.stdout) { // how long depends on how fast this machine is
		t.Errorf("it does not say how long the token is good: %v", got)
	}

	gateway, came := friendly(t)
	environ := []string{"HOME=" + u.home}
	for _, flags := range [][]string{{"--source", "login"}, {}} { // by name, and as the last resort
		asProcess(t, u.home, environ, wrapped(t, append(flags, "--gateway", gateway.URL), "call")...).want(t, exitOK)
	}
	all := came()
	if len(all) != 2 || !strings.HasPrefix(all[0].Get("Authorization"), "Bearer eyJ") || all[0].Get("Authorization") == all[1].Get("Authorization") {
		t.Errorf("to the gateway came %v", all)
	}

	_, _, last := idp.seen()
	u.run(t, "logout").want(t, exitOK, "Logged out ada@acme.dev at "+idp.URL+" (client crossfade-cli): the provider has revoked the login.")
	if _, revoked, _ := idp.seen(); len(revoked) != 1 || revoked[0] != last {
		t.Errorf("revoked %v, and the last one is %s", revoked, last)
	}
	if left := u.left(t); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	u.run(t, "whoami").want(t, exitFailure, "nobody is logged in: run `crossfade login`")
	asProcess(t, u.home, environ, wrapped(t, []string{"--gateway", gateway.URL}, "call")...).want(t, exitUsage, "or run `crossfade login` as a person")
	u.run(t, "logout").want(t, exitOK, "Nobody is logged in.")
}

func TestALoginAsJSONHoldsNoSecret(t *testing.T) {
	t.Parallel()
	idp, u := newPeople(t), newPerson(t)
	got := u.login(t, idp, "-o", "json", "--scope", "openid profile", "--scope", "offline_access", "--resource", "https://luigi.acme.dev").want(t, exitOK)
	var v loginView
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil {
		t.Fatal(err)
	}
	store := u.logins(t).Of(idp.URL, "crossfade-cli")
	if v.Who != "ada@acme.dev" || v.Issuer != idp.URL || v.ClientID != "crossfade-cli" || v.Resource != "https://luigi.acme.dev" ||
		strings.Join(v.Scopes, " ") != "openid profile offline_access" || time.Since(v.Since) > patience || v.Until != nil || v.File != store.Path() || v.KeyFile != store.KeyPath() || v.Token != nil {
		t.Errorf("%+v", v)
	}
}

func TestALoginThatFailsLeavesNothingAndSaysWhy(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "none")
	for name, c := range map[string]struct {
		change func(*people)
		args   []string
		code   int
		said   string
	}{
		"no such grant":             {func(p *people) { p.without = "device_authorization_endpoint" }, nil, exitFailure, "offers no device authorization grant (RFC 8628): let it be switched on there"},
		"the person declines":       {func(p *people) { p.outcome = "access_denied" }, nil, exitFailure, "access_denied: somebody declined"},
		"the code is over":          {func(p *people) { p.outcome = "expired_token" }, nil, exitFailure, "the code was not entered in time: begin again"},
		"no refresh token":          {func(p *people) { p.once = true }, nil, exitFailure, "no refresh token in the answer: ask for the scope offline_access"},
		"a client that may not":     {func(p *people) { p.outcome = "unauthorized_client" }, nil, exitFailure, "let the client use this grant"},
		"a provider in the clear":   {nil, []string{"--issuer", "http://idp.example.com"}, exitUsage, "must be https"},
		"a provider that is none":   {nil, []string{"--issuer", "acme"}, exitUsage, "must begin with https://"},
		"another issuer":            {nil, []string{"--issuer", "ISSUER/"}, exitFailure, "configure that one, letter by letter"},
		"a scope that is none":      {nil, []string{"--scope", "ä"}, exitFailure, "is not one word of printable ASCII"},
		"a resource that is none":   {nil, []string{"--resource", "luigi"}, exitFailure, "no absolute URI"},
		"authorities that are none": {nil, []string{"--ca-file", missing}, exitFailure, "read the trusted authorities"},
		"a format that nobody has":  {nil, []string{"-o", "xml"}, exitUsage, "use one of table, json, yaml"},
		"an argument":               {nil, []string{"ada"}, exitUsage, "crossfade login --help"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			idp, u := newPeople(t), newPerson(t)
			if c.change != nil {
				idp.set(c.change)
			}
			args := []string{}
			for _, arg := range c.args {
				args = append(args, strings.Replace(arg, "ISSUER", idp.URL, 1))
			}
			got := u.login(t, idp, args...).want(t, c.code, c.said)
			if left := u.left(t); len(left) != 0 || got.stdout != "" {
				t.Errorf("left %v: %v", left, got)
			}
		})
	}
}

func TestALoginNeedsAProviderAndAPlace(t *testing.T) {
	t.Parallel()
	u := newPerson(t)
	for _, args := range [][]string{{"login"}, {"login", "--issuer", "https://idp.example.com"}, {"login", "--client-id", "a", "--audience", "b"}} {
		u.run(t, args...).want(t, exitUsage, "--issuer and your client there by --client-id")
	}
	for _, environ := range [][]string{nil, {"HOME=", "XDG_STATE_HOME=/x"}, {"HOME=relative"}} {
		for _, command := range []string{"login", "logout", "whoami"} {
			with{environ: environ}.run(t, command).want(t, exitUsage, "set HOME, or XDG_STATE_HOME and XDG_CONFIG_HOME")
		}
	}
	with{environ: []string{"XDG_STATE_HOME=/x", "XDG_CONFIG_HOME=/x"}}.run(t, "whoami").want(t, exitUsage, "another directory than the sessions")
}

func TestALoginIsKeptWhereXDGSays(t *testing.T) {
	t.Parallel()
	idp, u := newPeople(t), newPerson(t)
	idp.set(func(p *people) { p.refresh = p.name + "-refresh" })
	state, keys := t.TempDir(), t.TempDir()
	u.is(t, idp, "crossfade-cli")
	for from, to := range map[string]string{".local/state/crossfade": state + "/crossfade", ".config/crossfade": keys + "/crossfade"} {
		if err := os.Rename(filepath.Join(u.home, from), to); err != nil {
			t.Fatal(err)
		}
	}
	with{environ: []string{"XDG_STATE_HOME=" + state, "XDG_CONFIG_HOME=" + keys}}.run(t, "whoami").want(t, exitOK, state, keys, "good until")
}

func TestLoginsOfTwoProvidersDoNotGetInEachOthersWay(t *testing.T) {
	t.Parallel()
	first, second, u := newPeople(t), newPeople(t), newPerson(t)
	one := u.is(t, first, "crossfade-cli")
	got := u.login(t, second).want(t, exitOK)
	if strings.Contains(got.stderr, "takes the place") {
		t.Errorf("%v", got)
	}
	got = u.run(t, "whoami", "-o", "json").want(t, exitOK)
	var v struct{ Logins []loginView }
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Logins) != 2 || v.Logins[0].Token.State != tokenGood || v.Logins[1].Token.State != tokenGood || v.Logins[0].Token.Expiry == nil || len(v.Logins[0].Token.Claims) != 4 {
		t.Errorf("%+v", v)
	}
	for _, args := range [][]string{{"logout"}, {"logout", "--client-id", "crossfade-cli"}, {"login"}, {"agent", "--gateway", "http://127.0.0.1:1", "--source", "login"}, {"agent", "--gateway", "http://127.0.0.1:1"}} {
		u.run(t, args...).want(t, exitUsage, "there are 2 logins: say which one is meant\n", "--issuer "+first.URL+" --client-id crossfade-cli   (ada@acme.dev)", "--issuer "+second.URL)
	}
	if got := u.run(t, "whoami", "--offline", "--issuer", first.URL).want(t, exitOK, first.URL, "not asked for"); strings.Contains(got.stdout, second.URL) {
		t.Errorf("%v", got)
	}
	for _, command := range []string{"logout", "whoami"} {
		u.run(t, command, "--issuer", first.URL, "--client-id", "other").want(t, exitFailure, "of logins at "+first.URL+" with client other: nobody is logged in")
		u.run(t, command, "--issuer", "https://nowhere.example.com").want(t, exitFailure, "of logins at https://nowhere.example.com: nobody is logged in")
	}
	u.run(t, "logout", "--all", "--issuer", first.URL).want(t, exitUsage, "--all ends every login")
	u.run(t, "logout", "--issuer", first.URL).want(t, exitOK, "Logged out ada@acme.dev at "+first.URL)
	revoked := func() string {
		_, a, _ := first.seen()
		_, b, _ := second.seen()
		return fmt.Sprint(len(a), " and ", len(b))
	}
	if _, err := os.Stat(one.Path()); err == nil || revoked() != "1 and 0" {
		t.Errorf("%v, revoked %s", err, revoked())
	}
	u.is(t, first, "another")
	u.run(t, "logout", "--all").want(t, exitOK, "at "+first.URL+" (client another)", "at "+second.URL)
	if left := u.left(t); len(left) != 0 || revoked() != "2 and 1" {
		t.Errorf("left %v, revoked %s", left, revoked())
	}
	u.run(t, "logout", "--all").want(t, exitOK, "Nobody is logged in.")
}

func TestLoggingInAgainTakesThePlaceOfTheLoginBefore(t *testing.T) {
	t.Parallel()
	idp, u := newPeople(t), newPerson(t)
	store := u.is(t, idp, "crossfade-cli")
	u.run(t, "login").want(t, exitOK, "This takes the place of the login of ada@acme.dev of 2026-05-12T09:00:00Z.")
	u.run(t, "login", "--audience", "other", "--scope", "openid", "--resource", "https://other.acme.dev").want(t, exitOK)
	u.login(t, idp).want(t, exitOK)
	want := []string{
		"audience=luigi&client_id=crossfade-cli&scope=openid+offline_access",
		"audience=other&client_id=crossfade-cli&resource=https%3A%2F%2Fother.acme.dev&scope=openid",
		"client_id=crossfade-cli&scope=openid+offline_access",
	}
	devices, _, _ := idp.seen()
	if len(devices) != len(want) {
		t.Fatalf("asked for %v", devices)
	}
	for i, asked := range devices {
		if asked.Encode() != want[i] {
			t.Errorf("asked for %s, want %s", asked.Encode(), want[i])
		}
	}
	if err := os.WriteFile(store.KeyPath(), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.run(t, "login").want(t, exitUsage, "where you were logged in cannot be read, so give --issuer and --client-id")
	u.run(t, "whoami").want(t, exitFailure, "holds no key: log in again")
	u.run(t, "agent", "--gateway", "http://127.0.0.1:1", "--source", "login").want(t, exitUsage, "holds no key: log in again")
	u.login(t, idp).want(t, exitOK, "This takes the place of a login that could not be used any more")
	if _, revoked, _ := idp.seen(); len(revoked) != 0 {
		t.Errorf("revoked %v, which ends the new login too at some providers", revoked)
	}
	u.run(t, "whoami").want(t, exitOK)
}

func TestALogoutSaysHonestlyWhatTheProviderDid(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*people)
		spoil  bool
		code   int
		said   string
	}{
		"it offers no revocation":  {func(p *people) { p.without = "revocation_endpoint" }, false, exitOK, "here alone: the provider offers no revocation"},
		"it refuses":               {func(p *people) { p.revoke = 503 }, false, exitFailure, "was forgotten here but not revoked: end it in your account at the provider: revoke the login"},
		"it is away":               {func(p *people) { p.Close() }, false, exitFailure, "connection refused"},
		"the login cannot be read": {func(*people) {}, true, exitFailure, "forgotten here but not revoked, since it could not be read"},
	} {
		t.Run(name, func(t *testing.T) {
			idp, u := newPeople(t), newPerson(t)
			store := u.is(t, idp, "crossfade-cli")
			c.change(idp)
			if c.spoil {
				if err := os.Truncate(store.Path(), 3); err != nil {
					t.Fatal(err)
				}
			}
			u.run(t, "logout").want(t, c.code, c.said)
			if left := u.left(t); len(left) != 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

func TestWhoamiSaysWhatALoginIsStillGoodFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*people)
		args   []string
		code   int
		said   string
	}{
		"a good one":                   {func(*people) {}, nil, exitOK, "the provider ends it; it does not say when"},
		"an opaque token":              {func(p *people) { p.opaque = true }, nil, exitOK, "s; it shows nothing of what is in it"},
		"a login that was withdrawn":   {func(p *people) { p.refresh = "" }, nil, exitFailure, "run `crossfade login` again"},
		"a provider that is away":      {func(p *people) { p.Close() }, nil, exitFailure, "none: see below"},
		"the same, when nobody asks":   {func(p *people) { p.Close() }, []string{"--offline"}, exitOK, "not asked for"},
		"as JSON what went wrong":      {func(p *people) { p.refresh = "" }, []string{"-o", "json"}, exitFailure, `"state": "none",`},
		"as YAML that nobody asked":    {func(*people) {}, []string{"--offline", "-o", "yaml"}, exitOK, "state: unchecked"},
		"in a format that nobody has":  {func(*people) {}, []string{"-o", "markdown"}, exitUsage, "use one of table, json, yaml"},
		"with authorities that are no": {func(*people) {}, []string{"--ca-file", "/does/not/exist"}, exitFailure, "read the trusted authorities"},
	} {
		t.Run(name, func(t *testing.T) {
			idp, u := newPeople(t), newPerson(t)
			u.is(t, idp, "crossfade-cli")
			c.change(idp)
			u.run(t, append([]string{"whoami"}, c.args...)...).want(t, c.code, c.said)
		})
	}
}

func TestAnInterruptedLoginEndsWithTheCodeOfShells(t *testing.T) {
	t.Parallel()
	idp, u := newPeople(t), newPerson(t)
	idp.set(func(p *people) { p.pending = 1 << 20 })
	c := command(t, "login", "--issuer", idp.URL, "--client-id", "crossfade-cli")
	c.Env = append(c.Env, "HOME="+u.home)
	var stderr lockedBuffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() { _ = c.Process.Kill() })
	eventually(t, "the code is shown", func() bool { return strings.Contains(stderr.String(), "WDJB-MJHT") })
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-ended
	if got := c.ProcessState.ExitCode(); got != exitInterrupted || !strings.Contains(stderr.String(), "interrupted, so nothing has changed") {
		t.Errorf("exit code %d\n%s", got, stderr.String())
	}
	if left := u.left(t); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestATerminalShowsHowLongThereIs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		left time.Duration
		want string
	}{
		"a quarter of an hour":       {900 * time.Second, "\r\x1b[KWaiting for you, another 15:00. Ctrl-C gives up.\r\x1b[KWaiting for you, another 14:59. Ctrl-C gives up.\r\x1b[K"},
		"less than there is to draw": {time.Second / 4, "\r\x1b[KWaiting for you, another 0:00. Ctrl-C gives up.\r\x1b[KWaiting for you, another 0:00. Ctrl-C gives up.\r\x1b[K"},
		"nobody knows":               {0, "\r\x1b[KWaiting for you. Ctrl-C gives up.\r\x1b[KWaiting for you. Ctrl-C gives up.\r\x1b[K"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var until time.Time
				if c.left > 0 {
					until = time.Now().Add(c.left)
				}
				var drawn lockedBuffer
				stop := countdown(&drawn, until)
				time.Sleep(1500 * time.Millisecond)
				stop()
				if got := drawn.String(); got != c.want {
					t.Errorf("drawn %q", got)
				}
			})
		})
	}
}

func TestAnAgentOfALogin(t *testing.T) {
	t.Parallel()
	gateway, came := friendly(t)
	idp, u := newPeople(t), newPerson(t)
	environ := []string{"HOME=" + u.home}
	named := []string{"--gateway", gateway.URL, "--source", "login", "--issuer", idp.URL, "--client-id", "crossfade-cli"}
	// A login that is named may be made later: the agent says what to do until then.
	asProcess(t, u.home, environ, wrapped(t, named, "call")...).want(t, exitNotPermitted, "REFUSED agent_no_token", "nobody is logged in: run `crossfade login`")
	u.run(t, "agent", "--gateway", gateway.URL, "--source", "login").want(t, exitUsage, "--source login: nobody is logged in")
	u.run(t, "agent", "--gateway", gateway.URL, "--source", "login", "--issuer", "http://idp.example.com", "--client-id", "a").want(t, exitUsage, "must be https")
	with{}.run(t, "agent", "--gateway", gateway.URL, "--source", "login").want(t, exitUsage, "there is no place for a login")
	u.is(t, idp, "crossfade-cli")
	asProcess(t, u.home, environ, wrapped(t, append(named, "--audience", "other"), "call")...).want(t, exitOK)
	// What is said by flags and variables goes first.
	asProcess(t, u.home, append(environ, agent.TokenFileVariable+"="+tokenFile(t)), wrapped(t, []string{"--gateway", gateway.URL}, "call")...).want(t, exitOK)
	all := came()
	if len(all) != 2 || !strings.HasPrefix(all[0].Get("Authorization"), "Bearer eyJ") || all[1].Get("Authorization") != "Bearer tok-1" {
		t.Fatalf("to the gateway came %v", all)
	}
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(all[0].Get("Authorization"), ".")[1])
	if !strings.Contains(string(payload), `"aud":"other"`) {
		t.Errorf("the token says %s", payload)
	}
	run(t, "__complete", "agent", "--source", "").want(t, exitOK, "token_exchange", "login")
	run(t, "__complete", "whoami", "-o", "").want(t, exitOK, "yaml")
}
