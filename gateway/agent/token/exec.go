package token

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Bounds of what a program may say.
const (
	maxStdout = 1 << 20
	maxStderr = 4 << 10
	// killWait is how long a program that was ended may keep its output open.
	killWait = time.Second
)

// execSource runs a program that prints a token: an ExecCredential as kubectl
// takes it, or token and expires_in.
//
// The program inherits the environment and gets CROSSFADE_AUDIENCE,
// CROSSFADE_SCOPE, CROSSFADE_RESOURCE and CROSSFADE_RUN where they are known. No
// shell sees the command.
//
// https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
type execSource struct {
	command []string
	timeout time.Duration
}

func newExec(p Params) (Source, error) {
	if len(p.Command) == 0 || p.Command[0] == "" {
		return nil, errors.New("no program: give it with its arguments")
	}
	return &execSource{slices.Clone(p.Command), cmp.Or(p.Timeout, DefaultTimeout)}, nil
}

// Token implements Source.
func (s *execSource) Token(ctx context.Context, r Request) (Token, error) {
	started := time.Now()
	out, err := s.run(ctx, r)
	if err == nil {
		var t Token
		if t, err = parseExec(out, started); err == nil {
			return t, nil
		}
	}
	return Token{}, fmt.Errorf("obtain a token by exec of %s: %w", s.command[0], err)
}

// run returns what the program printed.
func (s *execSource) run(ctx context.Context, r Request) ([]byte, error) {
	running, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	c := exec.CommandContext(running, s.command[0], s.command[1:]...)
	c.WaitDelay = killWait
	c.Env = os.Environ()
	for name, value := range map[string]string{
		"CROSSFADE_AUDIENCE": r.Audience, "CROSSFADE_SCOPE": strings.Join(r.Scopes, " "),
		"CROSSFADE_RESOURCE": r.Resource, "CROSSFADE_RUN": r.Run,
	} {
		if value != "" {
			c.Env = append(c.Env, name+"="+value)
		}
	}
	stdout, stderr := &limited{room: maxStdout, full: cancel}, &limited{room: maxStderr}
	c.Stdout, c.Stderr = stdout, stderr
	err := c.Run()
	switch {
	case stdout.over:
		return nil, fmt.Errorf("it printed more than %d MiB", maxStdout>>20)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("it was ended: %w", context.Cause(ctx))
	case running.Err() != nil:
		return nil, fmt.Errorf("it was ended after %s: %w", s.timeout, running.Err())
	case err == nil:
		return stdout.kept.Bytes(), nil
	}
	said := ""
	if text := plain(stderr.kept.String()); text != "" {
		said = "; it said: " + text
	}
	return nil, fmt.Errorf("%w%s", err, said)
}

// limited keeps the first room bytes. What is beyond them is dropped, and full
// called if there is one, so that whoever writes does not hang.
type limited struct {
	kept bytes.Buffer
	room int
	over bool
	full func()
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	take := min(len(p), l.room-l.kept.Len())
	l.kept.Write(p[:take])
	if take < len(p) && !l.over {
		l.over = true
		if l.full != nil {
			l.full()
		}
	}
	return len(p), nil
}

// parseExec reads what a program printed. Its errors repeat none of it.
func parseExec(out []byte, started time.Time) (Token, error) {
	var printed struct {
		Kind   string `json:"kind"`
		Status *struct {
			Token   string     `json:"token"`
			Expires *time.Time `json:"expirationTimestamp"`
		} `json:"status"`
		Token       string   `json:"token"`
		AccessToken string   `json:"access_token"`
		ExpiresIn   *seconds `json:"expires_in"`
	}
	if json.Unmarshal(out, &printed) != nil {
		return Token{}, errors.New(`it printed neither an ExecCredential nor {"token": …, "expires_in": …}`)
	}
	value, expiry := cmp.Or(printed.Token, printed.AccessToken), time.Time{}
	switch {
	case printed.Status != nil:
		value = printed.Status.Token
		if printed.Status.Expires != nil {
			expiry = *printed.Status.Expires
		}
	case printed.Kind != "":
		return Token{}, errors.New("it printed a credential without a status")
	case printed.ExpiresIn != nil:
		expiry = started.Add(time.Duration(*printed.ExpiresIn)).Round(0)
	}
	secret, err := accept(value)
	if err != nil {
		return Token{}, fmt.Errorf("the token that it printed cannot be used: %w", err)
	}
	if expiry.IsZero() {
		expiry, _ = expOf(value)
	}
	return Token{Value: secret, Expiry: expiry, Obtained: started}, nil
}
