package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"crossfade/gateway/identity"
)

// rereadEvery is how often a token file is read although its token is good: it
// costs nothing, and whoever keeps it may replace it before its time.
const rereadEvery = 10 * time.Second

// fileSource reads a token that something else keeps fresh.
type fileSource struct {
	kind string
	path func() (string, error)
}

func newFile(p Params) (Source, error) {
	if p.File == "" {
		return nil, errors.New("no token file: give its path")
	}
	return &fileSource{"file", func() (string, error) { return p.File, nil }}, nil
}

// newAWS reads the file of a web identity as it stands: IAM Roles for Service
// Accounts put an OIDC token of the cluster there and renew it at 80 % of its
// life. Its audience is what the service account says, sts.amazonaws.com by
// default.
//
// https://docs.aws.amazon.com/eks/latest/userguide/pod-configuration.html
// https://docs.aws.amazon.com/sdkref/latest/guide/access-assume-role-web.html
func newAWS(p Params) (Source, error) {
	return &fileSource{"aws", func() (string, error) {
		path := p.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE")
		if path == "" {
			return "", errors.New("AWS_WEB_IDENTITY_TOKEN_FILE is not set: the service account of the pod has no role")
		}
		return path, nil
	}}, nil
}

// Token implements Source.
func (s *fileSource) Token(context.Context, Request) (Token, error) {
	started := time.Now()
	path, err := s.path()
	if err != nil {
		return Token{}, fmt.Errorf("obtain a token by %s: %w", s.kind, err)
	}
	value, err := readToken(path)
	if err != nil {
		return Token{}, fmt.Errorf("obtain a token by %s: %w", s.kind, err)
	}
	t := Token{Value: value, Obtained: started}
	t.Expiry, _ = expOf(value.Reveal())
	return t, nil
}

// Reread returns how often a Keeper should ask again although its token is good.
func (s *fileSource) Reread() time.Duration { return rereadEvery }

// readToken reads a token from a file, without the white space around it.
func readToken(path string) (identity.Secret, error) {
	raw, err := readSecret(path)
	if err != nil {
		return identity.Secret{}, err
	}
	value, err := accept(raw.Reveal())
	if err != nil {
		return identity.Secret{}, fmt.Errorf("%s holds no token: %w", path, err)
	}
	return value, nil
}

// readSecret reads a small file without the white space around it. It reads
// nothing but regular files: a pipe would hold up whoever waits.
func readSecret(path string) (identity.Secret, error) {
	info, err := os.Stat(path)
	if err != nil {
		return identity.Secret{}, err
	}
	if !info.Mode().IsRegular() {
		return identity.Secret{}, fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return identity.Secret{}, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	err = errors.Join(err, f.Close())
	text := strings.TrimSpace(string(raw))
	switch {
	case err != nil:
		return identity.Secret{}, err
	case len(raw) > maxToken:
		return identity.Secret{}, fmt.Errorf("%s is larger than %d KiB", path, maxToken>>10)
	case text == "":
		return identity.Secret{}, fmt.Errorf("%s is empty", path)
	}
	return identity.NewSecret(text), nil
}
