package token_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/agent/token"
)

func newLogins(t *testing.T) (*token.Logins, token.LoginsOptions) {
	t.Helper()
	o := token.LoginsOptions{Dir: filepath.Join(t.TempDir(), "state"), KeyDir: filepath.Join(t.TempDir(), "keys")}
	l, err := token.NewLogins(o)
	if err != nil {
		t.Fatal(err)
	}
	return l, o
}

// login is a session of one client at one issuer.
func login(issuer, client string) token.Session {
	return token.Session{Issuer: issuer, ClientID: client, Refresh: secret("refresh of " + client), Until: time.Unix(1800000000, 0).UTC()}
}

func TestEachProviderAndClientHasALoginOfItsOwn(t *testing.T) {
	logins, o := newLogins(t)
	if all, err := logins.All(); len(all) != 0 || err != nil {
		t.Errorf("got %v, %v", all, err)
	}
	if _, err := os.Stat(o.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("looking made a directory: %v", err)
	}
	for _, s := range []token.Session{
		login("https://b.example.com", "x"), login("https://a.example.com", "y"), login("https://a.example.com", "x"),
		// Names that could be taken for one another, and for paths.
		login(`a" "b`, "c"), login("a", `b" "c`), login("../../x", "/"),
	} {
		if err := logins.Of(s.Issuer, s.ClientID).Save(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	all, err := logins.All()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range all {
		got = append(got, k.Session.Issuer+" "+k.Session.ClientID)
		if k.Err != nil || k.Session.Refresh.Reveal() != "refresh of "+k.Session.ClientID || !k.Session.Until.Equal(time.Unix(1800000000, 0)) {
			t.Errorf("%+v", k)
		}
		if k.Store.Path() != logins.Of(k.Session.Issuer, k.Session.ClientID).Path() || filepath.Dir(k.Store.Path()) != o.Dir || filepath.Dir(k.Store.KeyPath()) != o.KeyDir {
			t.Errorf("kept in %s and %s", k.Store.Path(), k.Store.KeyPath())
		}
	}
	if want := `../../x /, a b" "c, a" "b c, https://a.example.com x, https://a.example.com y, https://b.example.com x`; strings.Join(got, ", ") != want {
		t.Errorf("got %q", got)
	}
	if err := all[3].Store.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all, err := logins.All(); len(all) != 5 || err != nil {
		t.Errorf("%d left, %v", len(all), err)
	}
}

func TestALoginThatCannotBeReadHidesNoOther(t *testing.T) {
	logins, o := newLogins(t)
	for _, client := range []string{"a", "b"} {
		if err := logins.Of("https://idp.example.com", client).Save(t.Context(), login("https://idp.example.com", client)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(logins.Of("https://idp.example.com", "b").KeyPath()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"notes", strings.Repeat("a", 30), strings.Repeat("g", 32)} {
		if err := os.WriteFile(filepath.Join(o.Dir, name), []byte("not ours"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := logins.All()
	if err != nil || len(all) != 2 || all[0].Err == nil || all[1].Err != nil || all[1].Session.ClientID != "a" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestLoginsNeedTwoDirectories(t *testing.T) {
	for _, o := range []token.LoginsOptions{{}, {Dir: "a"}, {KeyDir: "a"}, {Dir: "a", KeyDir: "./a/"}} {
		if _, err := token.NewLogins(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
	file := file(t, "")
	l, err := token.NewLogins(token.LoginsOptions{Dir: file, KeyDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.All(); err == nil || !strings.Contains(err.Error(), "look for logins") {
		t.Errorf("got %v", err)
	}
}

func TestAnEndedLoginIsForgottenWhateverTheProviderSays(t *testing.T) {
	for name, c := range map[string]struct {
		said    error
		spoil   bool
		revoked bool
	}{
		"it revokes":                     {nil, false, true},
		"it refuses":                     {errors.New("no"), false, true},
		"nobody can read the login here": {nil, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			store, o := newStore(t)
			if err := store.Save(t.Context(), login("https://idp.example.com", "a")); err != nil {
				t.Fatal(err)
			}
			if c.spoil {
				if err := os.WriteFile(o.KeyPath, []byte("no key"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			revoked := false
			err := store.End(t.Context(), func(s token.Session) error {
				revoked = s.Refresh.Reveal() == "refresh of a"
				return c.said
			})
			if revoked != c.revoked || c.said != nil && !errors.Is(err, c.said) || (err == nil) != (c.said == nil && !c.spoil) {
				t.Errorf("revoked: %t, %v", revoked, err)
			}
			for _, path := range []string{o.Path, o.KeyPath} {
				if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is still there: %v", path, err)
				}
			}
			err = store.End(t.Context(), func(token.Session) error { t.Error("revoked twice"); return nil })
			if !errors.Is(err, token.ErrNoLogin) {
				t.Errorf("got %v", err)
			}
		})
	}
}
