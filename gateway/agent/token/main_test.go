package token_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"crossfade/gateway/agent/token"
	"crossfade/gateway/identity"
)

func TestMain(m *testing.M) {
	if os.Getenv("CROSSFADE_TEST_PLUGIN") != "" {
		plugin()
		return
	}
	goleak.VerifyTestMain(m)
}

// jwtUntil returns a JWT that ends at exp. Nobody signed it: this package
// verifies nothing.
func jwtUntil(exp time.Time, id string) string {
	part := base64.RawURLEncoding.EncodeToString
	return strings.Join([]string{
		part([]byte(`{"alg":"RS256"}`)),
		part(fmt.Appendf(nil, `{"exp":%d,"jti":%q}`, exp.Unix(), id)),
		part([]byte("signature")),
	}, ".")
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// source makes one or ends the test.
func source(t *testing.T, kind string, p token.Params) token.Source {
	t.Helper()
	s, err := token.New(kind, p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// environment is a getenv.
func environment(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func secret(value string) identity.Secret { return identity.NewSecret(value) }
