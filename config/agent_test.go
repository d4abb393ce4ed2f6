package config_test

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/config"
)

// wholeAgent has every key.
const wholeAgent = `
gateway: https://luigi.acme.dev:8082
mode: companion
listen: unix:run/agent.sock
ca_file: ca.pem
legacy_header: X-Key
netrc: netrc
metrics: 127.0.0.1:9200
token_dir: tokens
run_id: nightly-1
token:
  source: client_credentials
  issuer: https://idp.acme.dev
  client_id: svc-etl
  client_auth: client_secret_post
  client_secret_file: secret
  client_key_id: k1
  audience: luigi
  scopes: [a, b]
  resource: https://luigi.acme.dev
  command: [print-token, "--for me"]
  subject_token_file: subject
families:
  LoadUsers: luigi-load
  billing.*: { scopes: "run:{family}" }
  "*": { audience: luigi, resource: https://x }
write:
  - { audience: sts.amazonaws.com, file: aws }
  - { scopes: [s], file: other, format: json }
`

// agentDir has the files that it names.
func agentDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "ca.pem", "x")
	write(t, dir, "secret", "x")
	return dir
}

func TestTheAgentsConfigurationIsReadFromAFileWithPathsRelativeToIt(t *testing.T) {
	dir := agentDir(t)
	file := write(t, dir, "agent.yaml", wholeAgent)
	a, err := config.LoadAgent(config.Source{File: file, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) config.Path { return config.Path(filepath.Join(dir, name)) }
	want := config.Agent{
		File: file, Gateway: a.Gateway, Mode: "companion", Listen: "unix:" + filepath.Join(dir, "run/agent.sock"), CAFile: in("ca.pem"), LegacyHeader: "X-Key",
		Netrc: in("netrc"), Metrics: "127.0.0.1:9200", TokenDir: in("tokens"), RunID: "nightly-1",
		Token: config.AgentToken{
			Source: "client_credentials", TokenFor: config.TokenFor{Audience: "luigi", Scopes: []string{"a", "b"}, Resource: "https://luigi.acme.dev"},
			Issuer: "https://idp.acme.dev", ClientID: "svc-etl", ClientAuth: "client_secret_post", ClientSecretFile: in("secret"), ClientKeyID: "k1",
			SubjectTokenFile: in("subject"), Command: []string{"print-token", "--for me"},
		},
		Families: map[string]config.TokenFor{
			"LoadUsers": {Audience: "luigi-load"}, "billing.*": {Scopes: []string{"run:{family}"}}, "*": {Audience: "luigi", Resource: "https://x"},
		},
		Write: []config.AgentWrite{
			{TokenFor: config.TokenFor{Audience: "sts.amazonaws.com"}, File: in("aws"), Format: "raw"},
			{TokenFor: config.TokenFor{Scopes: []string{"s"}}, File: in("other"), Format: "json"},
		},
	}
	if diff := cmp.Diff(want, *a); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if a.Gateway.String() != "https://luigi.acme.dev:8082" {
		t.Errorf("gateway %s", a.Gateway)
	}
	if got := strings.Join(a.Patterns(), " "); got != "* LoadUsers billing.*" {
		t.Errorf("patterns %s", got)
	}
}

func TestVariablesOfTheAgentWinOverItsFile(t *testing.T) {
	dir := agentDir(t)
	write(t, dir, "crossfade-agent.yaml", "mode: token\nfamilies: { A: a }\ntoken: { issuer: https://idp.acme.dev }")
	a, err := config.LoadAgent(config.Source{Dir: dir, Env: []string{
		"CROSSFADE_AGENT_GATEWAY=http://127.0.0.1:1", "CROSSFADE_AGENT_TOKEN_SCOPES=a,b", "CROSSFADE_AGENT_TOKEN_TOKEN_URL=https://idp.acme.dev/token",
		"CROSSFADE_LISTEN=:8082", "CROSSFADE_WHATEVER=of the gateway", "CROSSFADE_AGENT_SERVICE_HOST=10.0.0.1", "CROSSFADE_AGENT_PORT=tcp://10.0.0.1:80",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if a.Mode != "token" || a.Gateway.Port() != "1" || len(a.Token.Scopes) != 2 || a.Token.Issuer != "" || a.Token.TokenURL == "" || len(a.Families) != 1 {
		t.Errorf("%+v", a)
	}
	named := write(t, dir, "other.yaml", "mode: companion")
	if a, err = config.LoadAgent(config.Source{Dir: dir, Env: []string{"CROSSFADE_AGENT_CONFIG=" + named}}); err != nil || a.Mode != "companion" || a.File != named {
		t.Errorf("%+v, %v", a, err)
	}
	home := t.TempDir()
	write(t, home, ".config/crossfade/agent.yaml", "mode: companion")
	if a, err = config.LoadAgent(config.Source{Dir: t.TempDir(), Env: []string{"HOME=" + home}}); err != nil || a.Mode != "companion" {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err = config.LoadAgent(config.Source{Dir: t.TempDir()}); err != nil || !reflect.DeepEqual(a, config.DefaultAgent()) {
		t.Errorf("without anything %+v, %v", a, err)
	}
}

func TestTheGatewayLeavesTheAgentsVariablesAlone(t *testing.T) {
	if _, err := config.Load(config.Source{Dir: t.TempDir(), Partial: true, Env: []string{
		"CROSSFADE_AGENT_MODE=token", "CROSSFADE_AGENT_CONFIG=x", "CROSSFADE_RUN=1", "CROSSFADE_TOKEN_DIR=x", "CROSSFADE_TOKEN_FILE=x",
	}}); err != nil {
		t.Error(err)
	}
}

func TestMistakesInTheAgentsConfigurationAreNamedExactly(t *testing.T) {
	dir := agentDir(t)
	for name, tc := range map[string]struct{ text, want string }{
		"a key that nobody knows":     {"gatway: http://x", `1: gatway: unknown key (did you mean "gateway"?)`},
		"a key in the wrong place":    {"audience: x", `1: audience: unknown key (did you mean "token.audience"?)`},
		"a secret that stands there":  {"token:\n  client_secret: hunter2", `2: token.client_secret: unknown key (did you mean "client_secret_file"?)`},
		"a wrong type":                {"token: [a]", "1: token: must be a mapping with source, audience, scopes,"},
		"a mode that is none":         {"mode: tokens", `1: mode: must be auto, companion or token, not "tokens" (did you mean "token"?)`},
		"a source that is none":       {"token: { source: oracle }", "1: token.source: must be auto, client_credentials,"},
		"a file that is missing":      {"ca_file: none.pem", "1: ca_file: cannot read " + filepath.Join(dir, "none.pem") + ": no such file"},
		"a place that others reach":   {"listen: 0.0.0.0:8182", `1: listen: must be a loopback address or unix:PATH: others would reach the agent and use its token, not "0.0.0.0:8182" (did you mean "127.0.0.1:8182"?)`},
		"a port alone":                {"listen: 8182", "1: listen: must be an address like 127.0.0.1:8182 or a socket"},
		"a password in the gateway":   {"gateway: https://a:hunter2@h", "1: gateway: must be a URL without user and password"},
		"a pattern that stands twice": {"families:\n  A: a\n  A: b", "3: families.A: stands twice, first on line 2"},
		"a star in the middle":        {"families: { A*B: a }", "1: families.A*B: a star may only stand at the end"},
		"a family without a token":    {"families: { A: {} }", "1: families.A: says nothing of its token"},
		"a token for nobody":          {"write: { file: x }", "1: write[0]: does not say for whom"},
		"a token without a file":      {"write: [{ audience: x }]", "1: write[0]: needs a file"},
		"a file of two tokens":        {"write:\n - { audience: x, file: f }\n - { audience: y, file: ./f }", "3: write[1].file: is the file of write[0], too"},
		"a format that is none":       {"write: { audience: x, file: f, format: yaml }", "1: write[0].format: must be raw or json"},
		"two providers":               {"token: { issuer: https://a, token_url: https://b }", "1: token.token_url: stands beside token.issuer"},
		"half a certificate":          {"token: { client_cert_file: secret }", "1: token.client_cert_file: and token.client_cert_key_file belong together"},
		"a run that is none":          {"run_id: a b", "1: run_id: must be 1 to 128 of"},
		"an empty file":               {"", " is empty"},
	} {
		file := write(t, dir, "agent.yaml", tc.text)
		a, err := config.LoadAgent(config.Source{File: file})
		var wrong config.Errors
		if a != nil || !errors.As(err, &wrong) || len(wrong) != 1 || !strings.HasPrefix(err.Error(), file+":"+tc.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v\nwant %s:%s", name, err, file, tc.want)
		}
	}
	_, err := config.LoadAgent(config.Source{
		File: write(t, dir, "agent.yaml", "mode: x\nlisten: 0.0.0.0:1\nnetrk: y"), Env: []string{"CROSSFADE_AGENT_TOKEN_ISUER=x", "CROSSFADE_AGENT_METRICS=1"},
	})
	var all config.Errors
	if !errors.As(err, &all) || len(all) != 5 || !strings.Contains(err.Error(), `environment: CROSSFADE_AGENT_TOKEN_ISUER: unknown variable (did you mean "CROSSFADE_AGENT_TOKEN_ISSUER"?)`) {
		t.Errorf("not all at once: %v", err)
	}
	if _, err = config.LoadAgent(config.Source{File: filepath.Join(dir, "none.yaml")}); !errors.As(err, &all) || len(all) != 1 {
		t.Errorf("a file that is missing: %v", err)
	}
}

func TestEveryKeyOfTheAgentHasAVariableOfItsOwn(t *testing.T) {
	seen := map[string]string{"CROSSFADE_AGENT_CONFIG": "the file"}
	keys(reflect.TypeFor[config.Agent](), "", func(key string, _ reflect.Type) {
		name := "CROSSFADE_AGENT_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		if other, taken := seen[name]; taken {
			t.Errorf("%s and %s share %s", other, key, name)
		}
		seen[name] = key
	})
}

// FuzzLoadAgent is FuzzLoad for the agent.
func FuzzLoadAgent(f *testing.F) {
	f.Add(wholeAgent, "CROSSFADE_AGENT_MODE=token")
	f.Add("families: { a: &a { audience: x }, b: *a }\nwrite: { audience: x, file: y }", "CROSSFADE_AGENT_TOKEN_SCOPES=a,,b")
	f.Add("families: [a]\ntoken: x\nlisten: unix:", "CROSSFADE_AGENT_=")
	f.Fuzz(func(t *testing.T, text, env string) {
		dir := agentDir(t)
		src := config.Source{File: write(t, dir, "agent.yaml", text), Dir: dir, Env: []string{env}}
		a, err := config.LoadAgent(src)
		if err != nil {
			var wrong config.Errors
			if !errors.As(err, &wrong) || len(wrong) == 0 {
				t.Fatalf("not a list of mistakes: %v", err)
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if line == "" || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
					t.Errorf("not a readable line: %q", line)
				}
			}
			return
		}
		if again, err := config.LoadAgent(src); err != nil || !reflect.DeepEqual(a, again) {
			t.Errorf("loads differently the second time: %v", err)
		}
		for _, w := range a.Write {
			if w.File == "" || w.Empty() || w.Format == "" {
				t.Errorf("accepted: %+v", w)
			}
		}
		for _, pattern := range a.Patterns() {
			if a.Families[pattern].Empty() {
				t.Errorf("accepted: %q", pattern)
			}
		}
	})
}
