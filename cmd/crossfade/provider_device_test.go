package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"crossfade/cmd/crossfade/providertest"
	agenttoken "crossfade/gateway/agent/token"
)

// refreshes is how many tokens each of two processes obtains of one login.
const refreshes = 5

// refreshLogin obtains tokens of a login, one after the other, and prints them:
// what a process does that shares the login with others. The words are the
// issuer, the file of its authority, the client, the files of the store and its
// key.
func refreshLogin(words []string) (code int) {
	device, err := agenttoken.NewDevice(agenttoken.Params{Issuer: words[0], CAFile: words[1], ClientID: words[2]})
	if err != nil {
		return 98
	}
	store, err := agenttoken.NewStore(agenttoken.StoreOptions{Path: words[3], KeyPath: words[4]})
	if err != nil {
		return 98
	}
	source, err := agenttoken.NewLogin(device, store)
	if err != nil {
		return 98
	}
	for range refreshes {
		t, err := source.Token(context.Background(), agenttoken.Request{})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(t.Value.Reveal())
	}
	return 0
}

// ask calls the gateway with a token, as a worker of its own, and returns what
// is wrong.
func ask(t *testing.T, client *http.Client, gateway, token string) (failure string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, gateway+"/api/task_list", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.Status + " " + resp.Header.Get("Crossfade-Reason")
	}
	return ""
}

// A person logs in with a browser, headless here, and two processes live on that
// login with a provider that replaces the refresh token each time and ends the
// login at once if an old one is used again.
func TestALoginIsSharedByProcessesUntilItIsRevoked(t *testing.T) {
	t.Parallel()
	b := newBetween(t, 0)
	w := b.witness(t)
	device, err := agenttoken.NewDevice(b.independent.Params(providertest.ClientDevice))
	if err != nil {
		t.Fatal(err)
	}
	r := agenttoken.Request{Resource: providertest.ResourceES256, Scopes: []string{"openid", "offline_access", providertest.Scope}}

	// Somebody else declines at the same time: each waits for five seconds.
	var other sync.WaitGroup
	other.Go(func() {
		_, err := device.Login(t.Context(), r, func(p agenttoken.Prompt) {
			if err := b.independent.Decline(t.Context(), p); err != nil {
				t.Error(err)
			}
		})
		if err == nil || !strings.Contains(err.Error(), "access_denied") {
			t.Errorf("declined, and Login says %v", err)
		}
	})
	session, err := device.Login(t.Context(), r, func(p agenttoken.Prompt) {
		if !strings.HasPrefix(p.URL, b.independent.URL()) || p.Code == "" || !strings.Contains(p.URLWithCode, p.Code) {
			t.Errorf("the person is shown %+v", p)
		}
		if err := b.independent.Approve(t.Context(), p); err != nil {
			t.Error(err)
		}
	})
	other.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if session.Who != providertest.Person {
		t.Errorf("logged in as %q", session.Who)
	}

	dir := t.TempDir()
	files := agenttoken.StoreOptions{Path: filepath.Join(dir, "state", "login"), KeyPath: filepath.Join(dir, "key", "login")}
	store, err := agenttoken.NewStore(files)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Save(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	var printed [2]string
	for i := range printed {
		both.Go(func() {
			c := exec.Command(self, asWorker, "refresh", b.independent.URL(), b.independent.CAFile(), providertest.ClientDevice, files.Path, files.KeyPath)
			var stderr strings.Builder
			c.Env, c.Stderr = []string{"GORACE=atexit_sleep_ms=0"}, &stderr
			out, err := c.Output()
			if err != nil {
				t.Errorf("%v: %s", err, stderr.String())
			}
			printed[i] = string(out)
		})
	}
	both.Wait()
	client, ids := newClient(t), make(map[string]bool)
	for value := range strings.FieldsSeq(printed[0] + printed[1]) {
		if failure := ask(t, client, w.URL, value); failure != "" {
			t.Errorf("refused: %s", failure)
		}
		got, err := tokenSeen(value)
		if err != nil {
			t.Fatal(err)
		}
		if got.subject != providertest.Person || got.algorithm != "ES256" || got.scope != providertest.Scope {
			t.Errorf("the token says %+v", got)
		}
		ids[got.id] = true
	}
	if len(ids) != 2*refreshes {
		t.Errorf("%d tokens", len(ids))
	}
	if user := b.behind().Get("X-Forwarded-User"); !strings.HasPrefix(user, "oidc:"+providertest.Person+"@") {
		t.Errorf("the scheduler was told of %s", user)
	}

	now, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if now.Refresh.Equal(session.Refresh) {
		t.Error("the refresh token was not replaced")
	}
	if err := device.Revoke(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	source, err := agenttoken.NewLogin(device, store)
	if err != nil {
		t.Fatal(err)
	}
	var refused *agenttoken.Refusal
	_, err = source.Token(t.Context(), agenttoken.Request{})
	if !errors.As(err, &refused) || refused.Code != "invalid_grant" || !strings.Contains(err.Error(), "run `crossfade login` again") {
		t.Errorf("after the login was revoked: %v", err)
	}
}

// reader is a person who reads what a command says, opens the address and enters
// the code.
type reader struct {
	t        *testing.T
	provider *providertest.Provider

	mu       sync.Mutex
	text     strings.Builder
	followed bool
	walking  sync.WaitGroup
}

// codeAndAddress is what login says.
var codeAndAddress = regexp.MustCompile(`device:\s+(https://\S+)\s+and enter the code\s+(\S+)\s`)

func (r *reader) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = r.text.Write(p)
	if found := codeAndAddress.FindStringSubmatch(r.text.String()); found != nil && !r.followed {
		r.followed = true
		r.walking.Go(func() {
			if err := r.provider.Approve(r.t.Context(), agenttoken.Prompt{URL: found[1], Code: found[2]}); err != nil {
				r.t.Error(err)
			}
		})
	}
	return len(p), nil
}

// The whole way of a person: log in, look who that is, run a worker, log out.
func TestAPersonLivesWithAProviderOfSomebodyElse(t *testing.T) {
	t.Parallel()
	b := newBetween(t, 0)
	w := b.witness(t)
	home := t.TempDir()
	person := with{environ: []string{"HOME=" + home}}
	of := []string{"--issuer", b.independent.URL(), "--client-id", providertest.ClientDevice, "--ca-file", b.independent.CAFile()}

	who := &reader{t: t, provider: b.independent}
	var said strings.Builder
	code := person.program(&said, who).run(t.Context(), append([]string{
		"login", "--resource", providertest.ResourceES256, "--scope", "openid,offline_access," + providertest.Scope,
	}, of...))
	who.walking.Wait()
	if code != exitOK || !strings.Contains(said.String(), providertest.Person) {
		t.Fatalf("login: %d, %s%s", code, said.String(), who.text.String())
	}
	person.run(t, "whoami", "--ca-file", b.independent.CAFile()).want(t, exitOK, providertest.Person, b.independent.URL())

	worker := append([]string{"agent", "exec", "--gateway", w.URL}, of...)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	person.run(t, append(worker, "--source", "login", "--", self, asWorker, "call", "is_paused")...).want(t, exitOK)
	if got, n := w.latest(); n == 0 || got.subject != providertest.Person || got.algorithm != "ES256" {
		t.Errorf("the gateway saw %d tokens, the last one %+v", n, got)
	}

	person.run(t, append([]string{"logout"}, of...)...).want(t, exitOK)
	person.run(t, "whoami").want(t, exitFailure, "crossfade login")
	person.run(t, append(worker, "--mode", "token", "--source", "login", "--", self, asWorker, "call", "is_paused")...).
		want(t, exitNotPermitted, "crossfade login")
}
