package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"crossfade/cmd/crossfade/demo"
	agenttoken "crossfade/gateway/agent/token"
)

// clientOf are the parameters of an account of the demo, with its secret in a
// file.
func clientOf(t *testing.T, idp *demo.Issuer, user string) agenttoken.Params {
	t.Helper()
	for _, a := range demo.Accounts() {
		if a.User != user {
			continue
		}
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte(a.ClientSecret.Reveal()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return agenttoken.Params{Issuer: idp.URL(), ClientID: user, SecretFile: path}
	}
	t.Fatalf("the demo has no account %s", user)
	return agenttoken.Params{}
}

func TestTheAgentsTokenOfARealProviderIsAcceptedByTheGateway(t *testing.T) {
	t.Parallel()
	idp := issuer(t, 0)
	source, err := agenttoken.New("client_credentials", clientOf(t, idp, "svc-etl"))
	if err != nil {
		t.Fatal(err)
	}
	keeper, err := agenttoken.NewKeeper(agenttoken.KeeperOptions{Source: source, Request: agenttoken.Request{Audience: "luigi"}})
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close()
	var callers sync.WaitGroup
	values := make([]string, 20)
	for i := range values {
		callers.Go(func() {
			got, err := keeper.Token(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			values[i] = got.Value.Reveal()
			if life := time.Until(got.Expiry); life < 4*time.Minute || life > 5*time.Minute {
				t.Errorf("the token lives another %s, and the provider issues them for five minutes", life)
			}
		})
	}
	callers.Wait()
	for _, value := range values {
		if value != values[0] {
			t.Fatal("twenty callers got different tokens")
		}
	}
	r := with{stdin: values[0]}.run(t, "token", "inspect", "-", "--issuer", idp.URL(), "--audience", "luigi")
	if r.code != exitOK || !strings.Contains(r.stdout, "YES. The token would be accepted.") {
		t.Error(r)
	}
}

func TestARealProvidersRefusalIsTold(t *testing.T) {
	t.Parallel()
	idp := issuer(t, 0)
	for name, c := range map[string]struct {
		change func(*agenttoken.Params)
		r      agenttoken.Request
		want   string
	}{
		"a wrong secret": {
			func(p *agenttoken.Params) { p.SecretFile = clientOf(t, idp, "svc-ml").SecretFile },
			agenttoken.Request{Audience: "luigi"},
			"check the name of the client and its secret",
		},
		"no audience": {func(*agenttoken.Params) {}, agenttoken.Request{}, "invalid_request (say whom the token is for: add the form field audience)"},
	} {
		t.Run(name, func(t *testing.T) {
			p := clientOf(t, idp, "svc-etl")
			c.change(&p)
			source, err := agenttoken.New("client_credentials", p)
			if err != nil {
				t.Fatal(err)
			}
			_, err = source.Token(t.Context(), c.r)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want one that says %q", err, c.want)
			}
		})
	}
}
