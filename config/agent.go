package config

import (
	"cmp"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Agent is the effective configuration of `crossfade agent`. A value that
// [LoadAgent] returned is complete and checked. Each key is a flag of the command,
// too, and the flag wins; what a key means in full is said there. Secrets stand in
// files of their own alone.
type Agent struct {
	// File is the configuration file that was read; empty when there was none.
	File string `koanf:"-"`

	// Gateway is where requests go. Default of `agent exec`: where Luigi's
	// configuration has its scheduler.
	Gateway *url.URL `koanf:"gateway"`
	// Mode is what becomes of the worker's own credential. Default auto.
	Mode string `koanf:"mode" one:"auto|companion|token"`
	// Listen is 127.0.0.1:PORT or unix:PATH. Default 127.0.0.1:8182. `agent exec`
	// takes a free port.
	Listen string `koanf:"listen" check:"agent_listen"`
	// CAFile holds the authorities that are trusted for the gateway and the
	// issuer. Default the system's.
	CAFile Path `koanf:"ca_file" check:"file"`
	// LegacyHeader is where API keys travel. Default X-API-Key.
	LegacyHeader string `koanf:"legacy_header" check:"header"`
	// Netrc is a netrc file with an entry to keep fresh. Default none; `agent exec`
	// keeps one of its own.
	Netrc Path `koanf:"netrc"`
	// Metrics is where /metrics, /livez and /readyz are. Default off.
	Metrics string `koanf:"metrics" check:"address_or_off"`
	// TokenDir is where the tokens of Families stand in files; `agent exec` has a
	// directory of its own.
	TokenDir Path `koanf:"token_dir"`
	// RunID is what the run is called. Default that of the job, or by chance.
	RunID string     `koanf:"run_id" check:"run_id"`
	Token AgentToken `koanf:"token"`
	// Families have tokens of their own, by patterns in the language of roles: a
	// family, or its beginning and a star; the closest counts. {family} stands for
	// the family.
	Families map[string]TokenFor `koanf:"families"`
	// Write are tokens for other services, in files.
	Write []AgentWrite `koanf:"write"`
}

// AgentToken says where tokens come from.
type AgentToken struct {
	// Source is one of the kinds, or auto, the default: by what is set below.
	Source   string `koanf:"source" one:"auto|client_credentials|token_exchange|github_actions|gcp|aws|exec|file|login"`
	TokenFor `koanf:",squash"`
	// File holds a token that something else keeps fresh (file).
	File Path `koanf:"file"`
	// Issuer or TokenURL is the identity provider.
	Issuer   string `koanf:"issuer" check:"issuer"`
	TokenURL string `koanf:"token_url" check:"https_url"`
	ClientID string `koanf:"client_id"`
	// ClientAuth is how the client proves itself. Default: what the files allow.
	ClientAuth string `koanf:"client_auth"`
	// The client's secret, its private key, or its certificate and key.
	ClientSecretFile  Path   `koanf:"client_secret_file" check:"file"`
	ClientKeyFile     Path   `koanf:"client_key_file" check:"file"`
	ClientKeyID       string `koanf:"client_key_id"`
	ClientCertFile    Path   `koanf:"client_cert_file" check:"file"`
	ClientCertKeyFile Path   `koanf:"client_cert_key_file" check:"file"`
	// SubjectTokenFile holds the token to exchange (token_exchange).
	SubjectTokenFile   Path   `koanf:"subject_token_file"`
	SubjectTokenType   string `koanf:"subject_token_type"`
	RequestedTokenType string `koanf:"requested_token_type"`
	// ServiceAccount is whose token the metadata server issues (gcp).
	ServiceAccount string `koanf:"service_account"`
	// Command is a program with its arguments that prints a token (exec). No shell
	// sees it.
	Command []string `koanf:"command"`
}

// TokenFor says for what a token is to be good. A plain string is the audience.
type TokenFor struct {
	Audience string   `koanf:"audience"`
	Scopes   []string `koanf:"scopes"`
	// Resource is a URI (RFC 8707).
	Resource string `koanf:"resource"`
}

// Empty reports whether nothing is asked for.
func (t TokenFor) Empty() bool { return t.Audience == "" && len(t.Scopes) == 0 && t.Resource == "" }

// AgentWrite is a token in a file of its own.
type AgentWrite struct {
	TokenFor `koanf:",squash"`
	// File is the agent's own: it is replaced, and removed at the end.
	File Path `koanf:"file"`
	// Format is raw, the default, or json.
	Format string `koanf:"format" one:"raw|json"`
}

// DefaultAgent returns the agent's configuration before any file or variable.
func DefaultAgent() *Agent {
	return &Agent{Mode: "auto", Listen: "127.0.0.1:8182", LegacyHeader: "X-API-Key", Token: AgentToken{Source: "auto"}}
}

func agentKind() kind {
	return kind{
		defaults: reflect.ValueOf(*DefaultAgent()), here: "crossfade-agent.yaml", elsewhere: "agent.yaml",
		prefix: envAgent, named: envAgent + "CONFIG",
	}
}

// LoadAgent does for the agent what [Load] does for the gateway. The file is
// src.File, else that of the variable CROSSFADE_AGENT_CONFIG, else the first that
// exists of ./crossfade-agent.yaml, $XDG_CONFIG_HOME/crossfade/agent.yaml and
// /etc/crossfade/agent.yaml; none is fine. Variables begin with CROSSFADE_AGENT_.
func LoadAgent(src Source) (*Agent, error) {
	l := newLoader(src, agentKind())
	a := &Agent{}
	var err error
	if a.File, err = l.merge(a); err != nil {
		return nil, err
	}
	l.completeAgent(a)
	if len(l.mistakes) > 0 {
		return nil, l.mistakes.sorted().bounded()
	}
	return a, nil
}

// completeAgent resolves what is relative and checks the whole.
func (l *loader) completeAgent(a *Agent) {
	l.checkFiles(reflect.ValueOf(*a), "")
	if path, ok := strings.CutPrefix(a.Listen, "unix:"); ok && !filepath.IsAbs(path) && a.File != "" &&
		l.main.origin("listen").layer == layerFile {
		a.Listen = "unix:" + filepath.Join(filepath.Dir(a.File), path)
	}
	for pattern, want := range a.Families {
		path := join("families", pattern)
		switch {
		case l.main.broken(path):
		case strings.Contains(strings.TrimSuffix(pattern, "*"), "*"):
			l.add(l.main.origin(path), shown(path), "", "a star may only stand at the end of a pattern")
		case want.Empty():
			l.add(l.main.origin(path), shown(path), "", "says nothing of its token: give audience, scopes or resource, or leave it out and it has the run's")
		}
	}
	files := map[Path]string{}
	for i, w := range a.Write {
		path := join("write", index(i))
		switch {
		case l.main.broken(path):
			continue
		case w.Empty():
			l.add(l.main.origin(path), shown(path), "", "does not say for whom the token is: give audience, scopes or resource")
		}
		switch other, taken := files[w.File]; {
		case w.File == "":
			l.add(l.main.origin(path), shown(path), "", "needs a file, to keep the token in")
		case taken:
			l.add(l.main.origin(join(path, "file")), shown(join(path, "file")), "", "is the file of %s, too: each token needs its own", other)
		default:
			files[w.File] = shown(path)
		}
		a.Write[i].Format = cmp.Or(w.Format, "raw")
	}
	if t := &a.Token; t.Issuer != "" && t.TokenURL != "" {
		switch l.compare("token.issuer", "token.token_url") {
		case 0:
			l.bad("token.token_url", "stands beside token.issuer: leave one out")
		case 1:
			t.TokenURL = ""
		case -1:
			t.Issuer = ""
		}
	}
	if t := &a.Token; (t.ClientCertFile == "") != (t.ClientCertKeyFile == "") {
		l.bad("token.client_cert_file", "and token.client_cert_key_file belong together: give both")
	}
}

// Patterns returns the patterns of the families, sorted.
func (a *Agent) Patterns() []string {
	var all []string
	for pattern := range a.Families {
		all = append(all, pattern)
	}
	slices.Sort(all)
	return all
}
