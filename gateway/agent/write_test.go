package agent_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/gateway/agent"
	"crossfade/gateway/agent/token"
)

func TestAnAudienceAndItsFileAreReadFromOneWord(t *testing.T) {
	for text, want := range map[string][2]string{
		"sts.amazonaws.com=/run/aws":    {"sts.amazonaws.com", "/run/aws"},
		"https://api.acme.dev?a=b=file": {"https://api.acme.dev?a=b", "file"},
		"=file":                         {}, "aud=": {}, "aud": {}, "": {},
	} {
		w, err := agent.ParseWrite(text)
		if got := [2]string{w.Request.Audience, w.File}; got != want || (err == nil) == (want == [2]string{}) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func TestWhereTokensMustNotBeWritten(t *testing.T) {
	dir := t.TempDir()
	open, sticky := filepath.Join(dir, "open"), filepath.Join(dir, "sticky")
	for path, mode := range map[string]os.FileMode{open: 0o777, sticky: 0o777 | os.ModeSticky} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"sticky/link": "old", "dangling": "not yet"} {
		if err := os.Symlink(filepath.Join(dir, target), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"secret": "s3cret", "old": "eyJhbGciOi.x.y", "json": `{"access_token": "x"}`, "notes": "my notes\nof today", "empty": "", "settings": `{"a": 1}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	write := func(file string) agent.Write {
		return agent.Write{Request: token.Request{Audience: "aws"}, File: filepath.Join(dir, file)}
	}
	for name, tc := range map[string]struct {
		all  []agent.Write
		want string // "" for none
	}{
		"a new file":   {[]agent.Write{write("new")}, ""},
		"an old token": {[]agent.Write{write("old"), write("json"), write("empty")}, ""},
		"a directory where everybody has their own": {[]agent.Write{write("sticky/new")}, ""},
		"a directory that everybody can change":     {[]agent.Write{write("open/new")}, "everybody can replace files"},
		"a directory that is missing":               {[]agent.Write{write("none/new")}, "no such file"},
		"a directory":                               {[]agent.Write{write("open")}, "is a directory"},
		"something else":                            {[]agent.Write{write("notes")}, "something else than a token"},
		"something else in JSON":                    {[]agent.Write{write("settings")}, "something else than a token"},
		"one file twice":                            {[]agent.Write{write("new"), write("new")}, "the file of another one"},
		"one file by two names":                     {[]agent.Write{write("new"), write("link/new")}, "the file of another one"},
		"a link where everybody has their own":      {[]agent.Write{write("sticky/link")}, "a link in a directory that everybody can write to"},
		"a link to what is not there yet":           {[]agent.Write{write("dangling")}, ""},
		"one file by a link to what is not there":   {[]agent.Write{write("dangling"), write("not yet")}, "the file of another one"},
		"a secret of the agent's":                   {[]agent.Write{write("link/secret")}, "has for something else"},
		"the netrc file":                            {[]agent.Write{write("netrc")}, "has for something else"},
		"for nobody":                                {[]agent.Write{{File: "x"}}, "for whom"},
		"all mistakes at once":                      {[]agent.Write{write("open"), write("notes")}, "something else"},
	} {
		err := agent.CheckWrites(tc.all, filepath.Join(dir, "netrc"), filepath.Join(dir, "secret"), "")
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && name != "for nobody" && !strings.Contains(err.Error(), "the token for aws") {
			t.Errorf("%s: the error names no audience: %v", name, err)
		}
	}
}

func TestTokensForOthersStandInTheirFormatAndAreGoneWhenTheyHaveExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "aws")
		if err := os.WriteFile(file, []byte("left by a dead agent"), 0o600); err != nil {
			t.Fatal(err)
		}
		f, said := none(), &safe{}
		o := agent.UpkeepOptions{
			Tokens: f, TokenFile: file, Format: agent.FormatRaw, Name: "for aws", Required: true, Report: agent.NewReporter(said, 0),
		}
		if _, err := agent.NewUpkeep(t.Context(), o); !errors.Is(err, agent.ErrNoToken) || !errors.Is(err, errAway) || !strings.Contains(err.Error(), "for aws") {
			t.Errorf("required, and %v", err)
		}
		if got := content(t, file); got != "-" {
			t.Errorf("what a dead agent has left is still there: %q", got)
		}
		f.set("first", time.Now().Add(time.Minute), nil)
		u, err := agent.NewUpkeep(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if got := content(t, file); got != "first" {
			t.Errorf("%q", got)
		}
		f.set("", time.Time{}, errAway)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := content(t, file); got != "-" {
			t.Errorf("expired, and still there: %q", got)
		}
		if got := said.String(); strings.Count(got, "no token for aws: ") != 1 {
			t.Errorf("said %q", got)
		}
		f.set("second", time.Now().Add(time.Minute), nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := content(t, file); got != "second" {
			t.Errorf("%q", got)
		}
		if err := u.Close(); err != nil || content(t, file) != "-" {
			t.Errorf("left at the end, %v", err)
		}

		o.Format, o.Report = agent.FormatJSON, agent.NewReporter(io.Discard, 0)
		if u, err = agent.NewUpkeep(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		if err := json.Unmarshal([]byte(content(t, file)), &got); err != nil || got["access_token"] != "second" || got["token_type"] != "Bearer" {
			t.Errorf("%v, %v", got, err)
		}
		if at, err := time.Parse(time.RFC3339, got["expiry"]); err != nil || at.Before(time.Now()) {
			t.Errorf("%v, %v", at, err)
		}
		_ = u.Close()
	})
}

func TestWhatASourceCanGiveTokensFor(t *testing.T) {
	audience, scopes := token.Request{Audience: "a"}, token.Request{Audience: "a", Scopes: []string{"s"}}
	for _, tc := range []struct {
		kind string
		r    token.Request
		ok   bool
	}{
		{"file", token.Request{}, true},
		{"file", audience, false},
		{"aws", audience, false},
		{"exec", scopes, true},
		{"github_actions", audience, true},
		{"github_actions", scopes, false},
		{"gcp", audience, true},
		{"gcp", scopes, false},
		{"gcp", token.Request{}, true},
		{"client_credentials", scopes, true},
		{"token_exchange", scopes, true},
	} {
		source, err := token.New(tc.kind, token.Params{
			Issuer: "https://idp.example", ClientID: "c", SecretFile: "s", SubjectTokenFile: "t", File: "f", Command: []string{"x"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := token.Reaches(source, tc.r); (err == nil) != tc.ok || err != nil && !strings.Contains(err.Error(), tc.kind) {
			t.Errorf("%s for %+v: %v", tc.kind, tc.r, err)
		}
	}
}
