package token_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/agent/token"
)

// plugin is what this program does as a credential plug-in: see TestMain.
func plugin() {
	switch os.Getenv("CROSSFADE_TEST_PLUGIN") {
	case "environment":
		fmt.Printf(`{"token":"%s"}`, strings.Map(func(r rune) rune {
			if r == ' ' || r == ':' {
				return '_'
			}
			return r
		}, strings.Join([]string{
			os.Getenv("CROSSFADE_AUDIENCE"), os.Getenv("CROSSFADE_SCOPE"), os.Getenv("CROSSFADE_RESOURCE"), os.Getenv("CROSSFADE_RUN"),
		}, "~")))
	case "hang":
		select {}
	case "flood":
		for {
			if _, err := fmt.Print(strings.Repeat("a", 1<<16)); err != nil {
				return
			}
		}
	case "grumble":
		fmt.Fprintln(os.Stderr, strings.Repeat("log in again, please. ", 1000))
		os.Exit(3)
	case "print":
		raw, err := os.ReadFile(os.Args[1])
		if err != nil {
			panic(err)
		}
		_, _ = os.Stdout.Write(raw)
	}
}

// plugged is a source of this program as a plug-in.
func plugged(t *testing.T, does string, timeout time.Duration, args ...string) token.Source {
	t.Helper()
	t.Setenv("CROSSFADE_TEST_PLUGIN", does)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // or every run takes a second more
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return source(t, "exec", token.Params{Command: append([]string{self}, args...), Timeout: timeout})
}

func TestAProgramPrintsAToken(t *testing.T) {
	exp := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	jwt := jwtUntil(exp, "exec")
	for name, c := range map[string]struct {
		printed, value string
		in             time.Duration // until expiry; 0 for none
	}{
		"as kubectl takes it": {
			`{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"abc","expirationTimestamp":"` + exp.Format(time.RFC3339) + `"}}`,
			"abc", time.Hour,
		},
		"as kubectl takes it, without an end":            {`{"kind":"ExecCredential","status":{"token":"abc"}}`, "abc", 0},
		"as kubectl takes it, a JWT without another end": {`{"kind":"ExecCredential","status":{"token":"` + jwt + `"}}`, jwt, time.Hour},
		"plainly":                  {`{"token":"abc","expires_in":60}`, "abc", time.Minute},
		"plainly, in text":         {`{"token":"abc","expires_in":"60"}` + "\n", "abc", time.Minute},
		"as a token endpoint does": {`{"access_token":"abc","token_type":"Bearer","expires_in":60}`, "abc", time.Minute},
		"plainly, without an end":  {`{"token":"abc"}`, "abc", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := plugged(t, "print", 0, file(t, c.printed)).Token(t.Context(), token.Request{})
			if err != nil {
				t.Fatal(err)
			}
			want := time.Time{}
			if c.in != 0 {
				want = time.Now().Add(c.in)
			}
			if got.Value.Reveal() != c.value || got.Expiry.IsZero() != want.IsZero() || got.Expiry.Sub(want).Abs() > 30*time.Second {
				t.Errorf("got %s until %s", got.Value.Reveal(), got.Expiry)
			}
		})
	}
}

func TestWhatAProgramPrintsWronglyIsNotRepeated(t *testing.T) {
	for name, c := range map[string]struct{ printed, want string }{
		"nothing":                    {"", "neither an ExecCredential nor"},
		"the token alone":            {"MARKER", "neither an ExecCredential nor"},
		"JSON and more":              {`{"token":"MARKER"} MARKER`, "neither an ExecCredential nor"},
		"no status":                  {`{"kind":"ExecCredential","token":"MARKER"}`, "a credential without a status"},
		"a certificate":              {`{"kind":"ExecCredential","status":{"clientCertificateData":"MARKER"}}`, "it is empty"},
		"a token of two words":       {`{"token":"MARKER MARKER"}`, "may not stand in a token"},
		"an end that is no time":     {`{"status":{"token":"MARKER","expirationTimestamp":"MARKER"}}`, "neither an ExecCredential nor"},
		"an end that is no number":   {`{"token":"MARKER","expires_in":"MARKER"}`, "neither an ExecCredential nor"},
		"an end before its begin":    {`{"token":"MARKER","expires_in":-1}`, "neither an ExecCredential nor"},
		"an end that is not a value": {`{"token":"MARKER","expires_in":"NaN"}`, "neither an ExecCredential nor"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := plugged(t, "print", 0, file(t, c.printed)).Token(t.Context(), token.Request{})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "MARKER") {
				t.Errorf("got %v, want one that says %q", err, c.want)
			}
		})
	}
}

func TestAProgramIsToldWhatTheTokenIsFor(t *testing.T) {
	got, err := plugged(t, "environment", 0).Token(t.Context(), whole)
	if err != nil {
		t.Fatal(err)
	}
	if want := "api_//luigi~luigi.run_luigi.read~https_//luigi.acme.dev/api~nightly-7"; got.Value.Reveal() != want {
		t.Errorf("told %s, want %s", got.Value.Reveal(), want)
	}
}

func TestAProgramIsHeldInBounds(t *testing.T) {
	t.Run("of time", func(t *testing.T) {
		_, err := plugged(t, "hang", 50*time.Millisecond).Token(t.Context(), token.Request{})
		if err == nil || !strings.Contains(err.Error(), "it was ended after 50ms") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("of its caller", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := plugged(t, "hang", 0).Token(ctx, token.Request{}); err == nil || !strings.Contains(err.Error(), "it was ended: context canceled") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("of what it prints", func(t *testing.T) {
		_, err := plugged(t, "flood", 0).Token(t.Context(), token.Request{})
		if err == nil || !strings.Contains(err.Error(), "it printed more than 1 MiB") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("of what it says", func(t *testing.T) {
		_, err := plugged(t, "grumble", 0).Token(t.Context(), token.Request{})
		if err == nil || !strings.Contains(err.Error(), "exit status 3; it said: log in again, please. log in") || len(err.Error()) > 600 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("of what there is", func(t *testing.T) {
		_, err := source(t, "exec", token.Params{Command: []string{filepath.Join(t.TempDir(), "absent")}}).Token(t.Context(), token.Request{})
		if err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("got %v", err)
		}
	})
}

func TestNoShellSeesTheCommand(t *testing.T) {
	touched := filepath.Join(t.TempDir(), "touched")
	_, err := source(t, "exec", token.Params{Command: []string{"/bin/echo", "{};", "touch", touched, "$(touch " + touched + ")"}}).Token(t.Context(), token.Request{})
	if err == nil {
		t.Error("took that for a token")
	}
	if _, err := os.Stat(touched); err == nil {
		t.Error("a shell has seen the command")
	}
}

func FuzzWhatAProgramPrints(f *testing.F) {
	for _, seed := range []string{
		`{"kind":"ExecCredential","status":{"token":"abc","expirationTimestamp":"2026-01-01T00:00:00Z"}}`,
		`{"token":"abc","expires_in":1e300}`, `{"token":"abc","expires_in":"0x10"}`, `{"token":"MARKER MARKER"}`, `MARKER`, `{"status":null}`, `[]`, "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, printed string) {
		path := filepath.Join(t.TempDir(), "printed")
		if err := os.WriteFile(path, []byte(printed), 0o600); err != nil {
			t.Fatal(err)
		}
		checkOutcome(t, source(t, "exec", token.Params{Command: []string{"/bin/cat", path}}), "MARKER")
	})
}
