package agent_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/gateway/agent"
)

// content is what a file holds; a file that is not there holds "-".
func content(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if os.IsNotExist(err) {
		return "-"
	}
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().IsRegular() && info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v", path, info.Mode())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestFilesHoldATokenThatIsGoodOrNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		tokenFile, netrc := filepath.Join(dir, "token"), filepath.Join(dir, "netrc")
		const others = "# mine\nmachine a login b password c\n"
		if err := os.WriteFile(netrc, []byte(others), 0o644); err != nil {
			t.Fatal(err)
		}
		entry := func(token string) string { return "machine gw login oidc password " + token + "\n" + others }
		check := func(when, inToken, inNetrc string) {
			t.Helper()
			synctest.Wait()
			if got := content(t, tokenFile); got != inToken {
				t.Errorf("%s the token file holds %q, want %q", when, got, inToken)
			}
			if got := content(t, netrc); got != inNetrc {
				t.Errorf("%s the netrc file holds %q, want %q", when, got, inNetrc)
			}
		}
		f := &tokens{}
		f.set("first", time.Now().Add(10*time.Minute), nil)
		u, err := agent.NewUpkeep(t.Context(), agent.UpkeepOptions{
			Tokens: f, TokenFile: tokenFile, Netrc: netrc, Machine: "gw", Report: agent.NewReporter(io.Discard, 0),
		})
		if err != nil {
			t.Fatal(err)
		}
		check("at the start", "first\n", entry("first"))

		f.set("second", time.Now().Add(10*time.Minute), nil)
		time.Sleep(3 * time.Second)
		check("after a refresh", "second\n", entry("second"))

		f.set("", time.Time{}, errAway)
		time.Sleep(9 * time.Minute)
		check("while nobody has a new one", "second\n", entry("second"))
		time.Sleep(time.Minute)
		if err := os.Chmod(netrc, 0o600); err != nil {
			t.Fatal(err)
		}
		check("once it has expired", "-", others)

		f.set("expired", time.Now().Add(-time.Second), nil)
		time.Sleep(time.Minute)
		check("when all that comes has expired", "-", others)

		f.set("third", time.Time{}, nil)
		time.Sleep(3 * time.Second)
		check("with one that nobody knows the end of", "third\n", entry("third"))
		f.set("", time.Time{}, errAway)
		time.Sleep(time.Hour)
		check("which stays", "third\n", entry("third"))

		if err := u.Close(); err != nil {
			t.Error(err)
		}
		check("at the end", "-", others)
	})
}

func TestAFileThatCannotBeWrittenIsSaidOnceAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "sub")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		f, said := good(), &safe{}
		u, err := agent.NewUpkeep(t.Context(), agent.UpkeepOptions{
			Tokens: f, TokenFile: filepath.Join(dir, "token"), Report: agent.NewReporter(said, 0),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		f.set("next", time.Time{}, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := said.String(); strings.Count(got, "not kept fresh") != 1 || strings.Contains(got, "next") {
			t.Errorf("said %q", got)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := content(t, filepath.Join(dir, "token")); got != "next\n" {
			t.Errorf("%q", got)
		}
		_ = u.Close()
	})
}

func TestANetrcFileBehindALinkIsReplacedWhereItIs(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "dotfiles"), filepath.Join(dir, ".netrc")
	if err := os.WriteFile(target, []byte("machine a login b password c\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	u, err := agent.NewUpkeep(t.Context(), agent.UpkeepOptions{
		Tokens: good(), Netrc: link, Machine: "gw", Report: agent.NewReporter(io.Discard, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Lstat(link); info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link is gone")
	}
	if got := content(t, target); !strings.Contains(got, "the-token") || !strings.Contains(got, "machine a login b") {
		t.Errorf("%q", got)
	}
	_ = u.Close()

	for name, o := range map[string]agent.UpkeepOptions{
		"a directory in the place of the file": {TokenFile: dir},
		"a directory that is missing":          {TokenFile: filepath.Join(dir, "none", "token")},
		"no machine":                           {Netrc: link},
	} {
		o.Tokens, o.Report = good(), agent.NewReporter(io.Discard, 0)
		if _, err := agent.NewUpkeep(t.Context(), o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestATokenBehindALinkGoesFromWhereItWasWritten(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.Symlink("target", link); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is the link that the first one left
		u, err := agent.NewUpkeep(t.Context(), agent.UpkeepOptions{Tokens: good(), TokenFile: link, Report: agent.NewReporter(io.Discard, 0)})
		if err != nil {
			t.Fatal(err)
		}
		if got := content(t, target); got != "the-token\n" {
			t.Errorf("%q", got)
		}
		if err := u.Close(); err != nil || content(t, target) != "-" {
			t.Errorf("the token is left, %v", err)
		}
		if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("the link is gone: %v", err)
		}
	}
}

func TestALinkThatSomebodyPlantsWhileThereIsNoTokenIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		file, mine := filepath.Join(dir, "token"), filepath.Join(dir, "mine")
		f := none()
		u, err := agent.NewUpkeep(t.Context(), agent.UpkeepOptions{Tokens: f, TokenFile: file, Report: agent.NewReporter(io.Discard, 0)})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(mine, []byte("mine"), 0o600), os.Symlink(mine, file)); err != nil {
			t.Fatal(err)
		}
		f.set("the-token", time.Time{}, nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := content(t, mine); got != "mine" {
			t.Errorf("written over with %q", got)
		}
		_ = u.Close()
	})
}

func TestANetrcFileBehindALinkOfAnybodysIsLeftAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tmp")
	mine, link := filepath.Join(t.TempDir(), "mine"), filepath.Join(dir, "netrc")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777|os.ModeSticky), os.WriteFile(mine, nil, 0o600), os.Symlink(mine, link)); err != nil {
		t.Fatal(err)
	}
	_, err := agent.NewUpkeep(t.Context(), agent.UpkeepOptions{Tokens: good(), Netrc: link, Machine: "gw", Report: agent.NewReporter(io.Discard, 0)})
	if err == nil || content(t, mine) != "" {
		t.Errorf("%v, and the file holds %q", err, content(t, mine))
	}
}

func TestAgentsThatKeepOneFileLeaveEachOtherAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "aws")
		keep := func(value string) *agent.Upkeep {
			f := none()
			f.set(value, time.Now().Add(time.Hour), nil)
			u, err := agent.NewUpkeep(t.Context(), agent.UpkeepOptions{
				Tokens: f, TokenFile: file, Format: agent.FormatRaw, Name: "for aws", Required: true, Report: agent.NewReporter(io.Discard, 0),
			})
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
		state := func(when, want string) {
			t.Helper()
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if got := content(t, file); got != want {
				t.Errorf("%s the file holds %q, want %q", when, got, want)
			}
		}
		first, second := keep("first"), keep("second")
		state("with both,", "second")
		third := keep("third")
		if err := second.Close(); err != nil {
			t.Error(err)
		}
		state("when one has ended whose token is not there any more,", "third")
		if err := third.Close(); err != nil {
			t.Error(err)
		}
		state("when the last one has ended before the first,", "first")
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		state("at the end", "-")
	})
}
