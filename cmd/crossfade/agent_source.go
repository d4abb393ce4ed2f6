package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"crossfade/gateway/agent"
	agenttoken "crossfade/gateway/agent/token"
)

// environment returns what is set, and whether it is.
func (p *program) lookup(name string) (value string, ok bool) {
	for _, line := range p.environ {
		if n, v, found := strings.Cut(line, "="); found && n == name {
			value, ok = v, true // the last one wins
		}
	}
	return value, ok
}

func (p *program) getenv(name string) string {
	value, _ := p.lookup(name)
	return value
}

// fromLogin is the source of whoever has run `crossfade login`.
const fromLogin = "login"

// sources are the words of --source but auto.
func sources() []string { return append(agenttoken.Kinds(), fromLogin) }

// tokenSource chooses where tokens come from.
func (p *program) tokenSource(o agentOptions) (agenttoken.Source, error) {
	params := o.params
	params.Getenv = p.getenv
	params.CAFile = o.caFile
	if o.tokenCommand != "" {
		params.Command = strings.Fields(o.tokenCommand)
	}
	kind := o.source
	if kind != "auto" && !slices.Contains(sources(), kind) {
		return nil, usage("--source: %q is not known: use one of auto, %s", kind, strings.Join(sources(), ", "))
	}
	if kind == "auto" {
		fromEnv := p.getenv(agent.TokenFileVariable)
		switch {
		case params.SubjectTokenFile != "":
			kind = "token_exchange"
		case params.ClientID != "":
			kind = "client_credentials"
		case len(params.Command) > 0:
			kind = "exec"
		case params.File != "" || fromEnv != "":
			kind = "file"
		case p.getenv("ACTIONS_ID_TOKEN_REQUEST_URL") != "":
			kind = "github_actions"
		case p.getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != "":
			kind = "aws"
		case p.loggedIn():
			kind = fromLogin
		default:
			return nil, usage("no token source: set --token-file, or --issuer and --client-id, or --source (%s), or run `crossfade login` as a person\nRun `crossfade agent --help`.",
				strings.Join(sources(), ", "))
		}
	}
	if kind == fromLogin {
		return p.loginSource(loginFlags{issuer: params.Issuer, clientID: params.ClientID, caFile: o.caFile})
	}
	if kind == "file" && params.File == "" {
		params.File = p.getenv(agent.TokenFileVariable)
	}
	source, err := agenttoken.New(kind, params)
	if err != nil {
		return nil, usage("%w", err)
	}
	if kind == "file" {
		source = tokenFileSource{source, params.File}
	}
	return source, nil
}

// tokenFileSource says in the words of the command's flags what is missing.
type tokenFileSource struct {
	agenttoken.Source
	path string
}

// Reread says how often the file is to be read again.
func (s tokenFileSource) Reread() time.Duration {
	if r, ok := s.Source.(interface{ Reread() time.Duration }); ok {
		return r.Reread()
	}
	return 0
}

// Reaches says for what else the source has tokens.
func (s tokenFileSource) Reaches(r agenttoken.Request) error { return agenttoken.Reaches(s.Source, r) }

// Token implements agenttoken.Source.
func (s tokenFileSource) Token(ctx context.Context, r agenttoken.Request) (agenttoken.Token, error) {
	t, err := s.Source.Token(ctx, r)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%s does not exist. Set --token-file or --client-id", s.path)
	}
	return t, err
}
