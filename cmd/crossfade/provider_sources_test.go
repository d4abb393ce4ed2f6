package main

import (
	"strings"
	"testing"

	"crossfade/cmd/crossfade/providertest"
	agenttoken "crossfade/gateway/agent/token"
)

// Every way in which a client proves itself, against both providers: what the
// agent obtains is what the gateway takes for somebody with the right rights.
func TestTokensOfEveryClientOfBothProvidersPassTheGateway(t *testing.T) {
	t.Parallel()
	b := newBetween(t, 0)
	w := b.witness(t)
	everybody := "everybody," + providertest.GroupRunners
	for name, c := range map[string]struct {
		flags              []string
		user, groups       string // as the scheduler was told
		algorithm, typ     string
		scope, refusedWith string
	}{
		"a secret in the header, RS256": {
			flags: b.flags(providertest.ClientBasic, providertest.ResourceRS256),
			user:  "etl-nightly", groups: everybody, algorithm: "RS256", typ: "at+jwt",
		},
		"a secret in the header, ES256, a scope": {
			flags: append(b.flags(providertest.ClientBasic, providertest.ResourceES256), "--scope", providertest.Scope),
			user:  "etl-nightly", groups: everybody, algorithm: "ES256", typ: "at+jwt", scope: providertest.Scope,
		},
		"a secret in the body": {
			flags: b.flags(providertest.ClientPost, providertest.ResourceRS256),
			user:  "oidc:" + providertest.ClientPost, groups: everybody, algorithm: "RS256", typ: "at+jwt",
		},
		"a signed assertion": {
			flags: b.flags(providertest.ClientPrivateKeyJWT, providertest.ResourceES256),
			user:  "oidc:" + providertest.ClientPrivateKeyJWT, groups: everybody, algorithm: "ES256", typ: "at+jwt",
		},
		"a certificate of an authority": {
			flags: b.flags(providertest.ClientTLS, providertest.ResourceES256),
			user:  "oidc:" + providertest.ClientTLS, groups: everybody, algorithm: "ES256", typ: "at+jwt",
		},
		"a certificate of its own": {
			flags: b.flags(providertest.ClientSelfSignedTLS, providertest.ResourceES256),
			user:  "oidc:" + providertest.ClientSelfSignedTLS, groups: everybody, algorithm: "ES256", typ: "at+jwt",
		},
		"a service account's token, exchanged": {
			flags: b.flags(providertest.ClientExchange, providertest.ResourceRS256),
			user:  "oidc:" + providertest.Workload, groups: everybody, algorithm: "RS256", typ: "at+jwt",
		},
		"groups without the right": {
			flags:     b.flags(providertest.ClientGuest, providertest.ResourceES256),
			algorithm: "ES256", typ: "at+jwt", refusedWith: "role",
		},
		"a secret at the built-in provider": {flags: b.builtInFlags(t), user: "svc-etl", algorithm: "RS256"},
		"a secret in the body at the built-in provider": {
			flags: append(b.builtInFlags(t), "--client-auth", agenttoken.AuthPost), user: "svc-etl", algorithm: "RS256",
		},
	} {
		t.Run(name, func(t *testing.T) { // one after the other: they look at the last request
			agent := agentOf(t, w, append(c.flags, "--mode", "token"))
			failure := agent.call(t)
			if c.refusedWith != "" {
				if !strings.Contains(failure, c.refusedWith) {
					t.Errorf("want a refusal for %s, got %q", c.refusedWith, failure)
				}
			} else if failure != "" {
				t.Fatalf("refused: %s", failure)
			}
			seen, _ := w.latest()
			if seen.algorithm != c.algorithm || seen.typ != c.typ && c.typ != "" || seen.scope != c.scope {
				t.Errorf("the token that the agent sent: %+v", seen)
			}
			if c.refusedWith != "" {
				return
			}
			h := b.behind()
			user, groups := h.Get("X-Forwarded-User"), h.Get("X-Forwarded-Groups")
			if user != c.user && !strings.HasPrefix(user, c.user+"@") || groups != c.groups {
				t.Errorf("the scheduler was told of %s in %q", user, groups)
			}
		})
	}
}

func TestAnIndependentProvidersRefusalIsTold(t *testing.T) {
	t.Parallel()
	p := providertest.Start(t, providertest.Options{})
	for name, c := range map[string]struct {
		client string
		change func(*agenttoken.Params)
		r      agenttoken.Request
		want   []string
	}{
		"a wrong secret": {
			providertest.ClientBasic, func(p *agenttoken.Params) { p.SecretFile = tokenFile(t) },
			agenttoken.Request{Resource: providertest.ResourceRS256},
			[]string{"invalid_client", "check the name of the client and its secret"},
		},
		"another client's certificate": {
			providertest.ClientSelfSignedTLS, func(q *agenttoken.Params) {
				other := p.Params(providertest.ClientTLS)
				q.CertFile, q.CertKeyFile = other.CertFile, other.CertKeyFile
			},
			agenttoken.Request{Resource: providertest.ResourceRS256},
			[]string{"invalid_client"},
		},
		"a resource that it does not know": {
			providertest.ClientPost, func(*agenttoken.Params) {},
			agenttoken.Request{Resource: "https://elsewhere.example/"},
			[]string{"invalid_target"},
		},
		"a token to exchange that nobody signed": {
			providertest.ClientExchange, func(p *agenttoken.Params) { p.SubjectTokenFile = tokenFile(t) },
			agenttoken.Request{Resource: providertest.ResourceRS256},
			[]string{"obtain a token by token_exchange", "invalid_grant", "what was handed in has expired or was withdrawn"},
		},
		"a certificate that nobody trusts": {
			providertest.ClientPost, func(p *agenttoken.Params) { p.CAFile = "" },
			agenttoken.Request{},
			[]string{"discover the endpoints of " + p.URL(), "certificate"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			params := p.Params(c.client)
			c.change(&params)
			kind := "client_credentials"
			if params.SubjectTokenFile != "" {
				kind = "token_exchange"
			}
			source, err := agenttoken.New(kind, params)
			if err != nil {
				t.Fatal(err)
			}
			_, err = source.Token(t.Context(), c.r)
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want one that says %q", err, want)
				}
			}
		})
	}
}
