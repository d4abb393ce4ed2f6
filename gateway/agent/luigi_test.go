package agent_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/agent"
	"crossfade/gateway/identity"
)

// configured finds the scheduler of a worker in a directory of its own.
func configured(t *testing.T, files, env map[string]string, args ...string) (agent.LuigiScheduler, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return agent.FindLuigiScheduler(args, func(name string) (string, bool) { v, ok := env[name]; return v, ok }, dir)
}

func TestTheAgentFindsTheSchedulerWhereLuigiDoes(t *testing.T) {
	const cfg, toml = "luigi.cfg", "luigi.toml"
	own := map[string]string{"LUIGI_CONFIG_PATH": "own.cfg"}
	asTOML := map[string]string{"LUIGI_CONFIG_PARSER": "toml"}
	for name, tc := range map[string]struct {
		files, env map[string]string
		args       string
		want       string // as the worker would use it
		default_   bool
	}{
		"nothing anywhere":    {want: "http://localhost:8082/", default_: true},
		"a URL":               {files: map[string]string{cfg: "[core]\ndefault_scheduler_url = http://gw:1/x\n"}, want: "http://gw:1/x"},
		"a URL with dashes":   {files: map[string]string{cfg: "[core]\ndefault-scheduler-url: https://gw\n"}, want: "https://gw"},
		"the new name wins":   {files: map[string]string{cfg: "[core]\nscheduler_url=http://new\ndefault_scheduler_url=http://old\n"}, want: "http://new"},
		"a host and a port":   {files: map[string]string{cfg: "[core]\ndefault-scheduler-host=gw\ndefault_scheduler_port=99\n"}, want: "http://gw:99/"},
		"a host alone":        {files: map[string]string{cfg: "[core]\nscheduler_host=gw\n"}, want: "http://gw:8082/"},
		"a URL before a host": {files: map[string]string{cfg: "[core]\nscheduler_host=gw\nscheduler_url=http://u\n"}, want: "http://u"},
		"the file that is last": {
			files: map[string]string{cfg: "[core]\nscheduler_url=http://a\n", "client.cfg": "[core]\nscheduler_url=http://b\n", "own.cfg": "[core]\nscheduler_url=http://c\n"},
			env:   own, want: "http://c",
		},
		"luigi.cfg before client.cfg": {
			files: map[string]string{cfg: "[core]\nscheduler_url=http://a\n", "client.cfg": "[core]\nscheduler_url=http://b\n"},
			want:  "http://a",
		},
		"a file of its own that does not exist": {files: map[string]string{cfg: "[core]\nscheduler_url=http://a\n"}, env: own, want: "http://a"},
		"a file of the other format":            {files: map[string]string{"own.toml": "no TOML"}, env: map[string]string{"LUIGI_CONFIG_PATH": "own.toml"}, want: "http://localhost:8082/", default_: true},
		"the command line":                      {files: map[string]string{cfg: "[core]\nscheduler_url=http://a\n"}, args: "luigi T --scheduler-url http://b", want: "http://b"},
		"the command line in one word":          {args: "luigi T --scheduler-url=http://b", want: "http://b"},
		"the command line, abbreviated":         {args: "luigi T --scheduler-u http://b", want: "http://b"},
		"the last one of the command line":      {args: "luigi --scheduler-url http://a --scheduler-url http://b", want: "http://b"},
		"a host on the command line":            {files: map[string]string{cfg: "[core]\nscheduler_port=7\n"}, args: "luigi --scheduler-host h", want: "http://h:7/"},
		"a flag without its value":              {args: "luigi --scheduler-url", want: "http://localhost:8082/", default_: true},
		"a variable": {
			files: map[string]string{cfg: "[core]\nscheduler_url=http://u:${PW}@gw/%%41\n"}, env: map[string]string{"PW": "p@ss"}, want: "http://u:p@ss@gw/%41",
		},
		"a reference": {
			files: map[string]string{cfg: "[DEFAULT]\nhost = gw\n[core]\nuser = u\nscheduler_url=http://%(user)s:x@%(host)s:1\n"}, want: "http://u:x@gw:1",
		},
		"a commented one":           {files: map[string]string{cfg: "[core]\n# scheduler_url=http://a\n; scheduler_url=http://b\nscheduler_host=c\n"}, want: "http://c:8082/"},
		"another section":           {files: map[string]string{cfg: "[other]\nscheduler_url=http://a\n[core]\n[x]\nscheduler_url=http://b\n"}, want: "http://localhost:8082/", default_: true},
		"a name in another case":    {files: map[string]string{cfg: "[core]\nScheduler_URL=http://a\n"}, want: "http://localhost:8082/", default_: true},
		"a value that looks so":     {files: map[string]string{cfg: "[core]\nx = 1\n  scheduler_url=http://a\n"}, want: "http://localhost:8082/", default_: true},
		"a password as it stands":   {files: map[string]string{cfg: "[core]\nscheduler_url=http://u:a!b%%40@c@gw\n"}, want: "http://u:a!b%40@c@gw"},
		"TOML":                      {files: map[string]string{toml: "[core]\nscheduler_url = \"http://a\"\n"}, env: asTOML, want: "http://a"},
		"TOML with dashes":          {files: map[string]string{toml: "[core]\ndefault-scheduler-url = \"http://a\"\n"}, env: asTOML, want: "http://a"},
		"TOML with host and port":   {files: map[string]string{toml: "core.scheduler_host = \"h\"\ncore.default-scheduler-port = 9\n"}, env: asTOML, want: "http://h:9/"},
		"TOML, which nobody reads":  {files: map[string]string{toml: "[core]\nscheduler_url = \"http://a\"\n"}, want: "http://localhost:8082/", default_: true},
		"a CFG that nobody reads":   {files: map[string]string{cfg: "[core]\nscheduler_url=http://a\n"}, env: asTOML, want: "http://localhost:8082/", default_: true},
		"TOML, as Luigi ignores it": {files: map[string]string{toml: "[core]\ndefault_scheduler_url = \"http://a\"\n"}, env: asTOML, want: "http://localhost:8082/", default_: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := configured(t, tc.files, tc.env, strings.Fields(tc.args)...)
			if err != nil {
				t.Fatal(err)
			}
			if url := got.Pointed(got.URL.String()).Reveal(); url != tc.want {
				t.Errorf("%s, want %s", url, tc.want)
			}
			if got.Configured == tc.default_ {
				t.Errorf("configured: %v", got.Configured)
			}
		})
	}
}

func TestAConfigurationThatCannotBeUsedIsAnErrorThatShowsNoPassword(t *testing.T) {
	for name, tc := range map[string]struct{ text, said string }{
		"a socket":                            {"scheduler_url=http+unix://u:hunter2@%%2Fsock", "starts with http"},
		"no URL":                              {"scheduler_url=u:hunter2", "starts with http"},
		"a port that is none":                 {"scheduler_url=http://u:hunter2@gw:port", "starts with http"},
		"a variable that is not set":          {"scheduler_url=http://u:hunter2@${GW}", "GW, which is not set"},
		"a reference that is not set":         {"scheduler_url=http://u:hunter2@%(gw)s", `"gw", which is not set`},
		"references that go round":            {"a = %(b)s\nb = %(a)s\nscheduler_url=http://u:hunter2@%(a)s", "circle"},
		"a percent sign that is no reference": {"scheduler_url=http://u:hunter2%40@gw", "written %%"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := configured(t, map[string]string{"luigi.cfg": "[core]\n" + tc.text + "\n"}, nil)
			if err == nil || !strings.Contains(err.Error(), tc.said) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v", err)
			}
		})
	}
	_, err := configured(t, map[string]string{"luigi.toml": "[core]\nscheduler_url = \"http://u:hunter2@gw\n"}, map[string]string{"LUIGI_CONFIG_PARSER": "toml"})
	if err == nil || !strings.Contains(err.Error(), "line 2") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

// wrap plans a command of a worker whose configured URL has a password.
func wrap(t *testing.T, w agent.Wrapping) agent.Plan {
	t.Helper()
	scheduler, err := configured(t, map[string]string{"luigi.cfg": "[core]\nscheduler_url = http://svc:p%%40w@gw:8082/\n"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Scheduler, w.Agent, w.Dir = scheduler, "http://127.0.0.1:5/s3cret/", "/private"
	p, err := w.Plan()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const pointed = "http://svc:p%40w@127.0.0.1:5/s3cret/"

// changed is what the environment of a plan has that the one before had not.
func changed(before []string, p agent.Plan) map[string]string {
	set := make(map[string]string)
	for _, line := range p.Environ {
		name, value, _ := strings.Cut(line, "=")
		set[name] = value
	}
	for _, line := range before {
		name, value, _ := strings.Cut(line, "=")
		if set[name] == value {
			delete(set, name)
		}
	}
	return set
}

func TestACommandFindsTheAgent(t *testing.T) {
	base := map[string]string{
		"CROSSFADE_SCHEDULER_URL": pointed, "CROSSFADE_TOKEN_FILE": "/private/token",
		"NETRC": "/private/netrc", "LUIGI_CONFIG_PATH": "/private/luigi.cfg",
	}
	with := func(more map[string]string) map[string]string {
		all := maps.Clone(base)
		maps.Copy(all, more)
		return all
	}
	for name, tc := range map[string]struct {
		args, wantArgs string
		environ        []string
		want           map[string]string
	}{
		"Luigi":                         {"luigi --module m T", "luigi --module m T", []string{"HOME=/h", "CROSSFADE_TOKEN_FILE=/source"}, base},
		"Luigi with a URL of its own":   {"/usr/bin/luigi --scheduler-url http://x:y@gw T", "/usr/bin/luigi T", nil, base},
		"Luigi with two in one word":    {"luigi --scheduler-url=http://a T --scheduler-u=http://x:y@gw --workers 2", "luigi T --workers 2", nil, base},
		"Luigi as a module":             {"python3.12 -m luigi T --scheduler-url http://x:y@gw", "python3.12 -m luigi T", nil, base},
		"a program with a URL":          {"nightly T --scheduler-url http://x:y@gw", "nightly T --scheduler-url " + pointed, nil, base},
		"a program with it in one word": {"python nightly.py --scheduler-url=http://x:y@gw", "python nightly.py --scheduler-url=" + pointed, nil, base},
		"Luigi with TOML":               {"luigi T", "luigi T", []string{"LUIGI_CONFIG_PARSER=toml"}, with(map[string]string{"LUIGI_CONFIG_PATH": "/private/luigi.toml"})},
		"a machine with a proxy":        {"x", "x", []string{"http_proxy=http://p"}, with(map[string]string{"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"})},
		"a proxy with exceptions":       {"x", "x", []string{"HTTP_PROXY=http://p", "NO_PROXY=.acme.dev, localhost"}, with(map[string]string{"no_proxy": ".acme.dev, localhost,127.0.0.1", "NO_PROXY": ".acme.dev, localhost,127.0.0.1"})},
		"a proxy that nobody is to use": {"x", "x", []string{"all_proxy=http://p", "no_proxy=*"}, with(map[string]string{})},
	} {
		t.Run(name, func(t *testing.T) {
			p := wrap(t, agent.Wrapping{Args: strings.Fields(tc.args), Environ: tc.environ})
			if got := strings.Join(p.Args, " "); got != tc.wantArgs {
				t.Errorf("arguments %s, want %s", got, tc.wantArgs)
			}
			if diff := cmp.Diff(tc.want, changed(tc.environ, p)); diff != "" {
				t.Errorf("environment: - want, + got\n%s", diff)
			}
			for _, arg := range strings.Fields(tc.args) {
				if strings.Contains(arg, "http://x:y@") {
					return
				}
			}
			if strings.Contains(strings.Join(p.Args, " "), "p%40w") {
				t.Error("a password came onto a command line that had none")
			}
		})
	}
}

func TestTheUsersOwnConfigurationGoesOnToCount(t *testing.T) {
	const ours = "scheduler_url = http://svc:p%%40w@127.0.0.1:5/s3cret/\ndefault_scheduler_url = http://svc:p%%40w@127.0.0.1:5/s3cret/\n"
	for name, tc := range map[string]struct{ path, own, want string }{
		"no file":                    {"", "", "[core]\n" + ours},
		"a file without core":        {"own.cfg", "# mine\n[T]\nn = 1", "# mine\n[T]\nn = 1\n[core]\n" + ours},
		"a file with a URL":          {"own.cfg", "[core]\n\nlog_level = INFO\ndefault-scheduler-url = http://a\n[T]\nn=1\n", "[core]\n" + ours + "\nlog_level = INFO\n[T]\nn=1\n"},
		"every name of a URL":        {"own", "[core]\nscheduler-url=a\nscheduler_url=b\ndefault_scheduler_url=c\ndefault-scheduler-url=d\nx=e\n", "[core]\n" + ours + "x=e\n"},
		"a URL on two lines":         {"own.ini", "[core]\nscheduler_url =\n   http://a\n # why\nx=e\n", "[core]\n" + ours + "# why\nx=e\n"},
		"a URL of another":           {"own.cfg", "[x]\nscheduler_url=a\n[core]\ny=b\n", "[x]\nscheduler_url=a\n[core]\n" + ours + "y=b\n"},
		"a section that is indented": {"own.cfg", "[core]\n  # why\n  x = y\n  scheduler_url=a\n [T]\n n=1\n", "[core]\n  scheduler_url = " + ours[len("scheduler_url = "):strings.Index(ours, "\n")+1] + "  " + ours[strings.Index(ours, "\n")+1:] + "  # why\n  x = y\n [T]\n n=1\n"},
		"core at the very end":       {"own.cfg", "[x]\na=b\n[core]", "[x]\na=b\n[core]\n" + ours},
		"a section of Windows":       {"own.cfg", "[core]\r\nscheduler_url=a\r\nx=y\r\n", "[core]\r\n" + ours + "x=y\r\n"},
		"of the other format":        {"own.toml", "[core]\nscheduler_url = \"a\"\n", "[core]\n" + ours},
	} {
		t.Run(name, func(t *testing.T) {
			p := wrap(t, agent.Wrapping{Args: []string{"luigi"}, Environ: []string{"LUIGI_CONFIG_PATH=" + tc.path}, Config: tc.own})
			want := strings.ReplaceAll(tc.want, " # why\n", "# why\n")
			got := strings.ReplaceAll(p.Files["/private/luigi.cfg"].Reveal(), " # why\n", "# why\n")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("- want, + got\n%s", diff)
			}
		})
	}
	p := wrap(t, agent.Wrapping{
		Args: []string{"luigi"}, Environ: []string{"LUIGI_CONFIG_PATH=o.toml", "LUIGI_CONFIG_PARSER=toml"}, Netrc: "machine a login b password c\n",
		Config: "top = 1\n[core]\ndefault-scheduler-url = \"http://a\"\nlog_level = \"INFO\"\n[T]\nday = 2026-11-24\nlist = [1, 2]\nmap = { a = \"b\" }\n",
	})
	const toml = `top = 1

[T]
day = 2026-11-24
list = [1, 2]
[T.map]
a = "b"

[core]
default-scheduler-url = "http://svc:p%40w@127.0.0.1:5/s3cret/"
log_level = "INFO"
scheduler_url = "http://svc:p%40w@127.0.0.1:5/s3cret/"
`
	if diff := cmp.Diff(toml, p.Files["/private/luigi.toml"].Reveal()); diff != "" {
		t.Errorf("TOML: - want, + got\n%s", diff)
	}
	if got := p.Files["/private/netrc"].Reveal(); got != "machine a login b password c\n" {
		t.Errorf("netrc %q", got)
	}
}

func TestAPasswordOfTheNetrcFileGoesIntoTheURL(t *testing.T) {
	s, err := configured(t, map[string]string{"luigi.cfg": "[core]\nscheduler_url=http://gw:1/\n"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.HasCredential() {
		t.Error("there is none yet")
	}
	s = s.WithCredential("svc", identity.NewSecret("p@/${x}"))
	if got := s.Pointed("http://127.0.0.1:5/").Reveal(); got != "http://svc:p%40%2F$%7Bx%7D@127.0.0.1:5/" {
		t.Error(got)
	}
	if got := s.WithCredential("other", identity.NewSecret("x")).Pointed("http://h/").Reveal(); !strings.Contains(got, "svc:") {
		t.Errorf("the one in the URL has lost: %s", got)
	}
}

func TestAPasswordOfTheNetrcFileComesOntoNoCommandLine(t *testing.T) {
	s, err := configured(t, map[string]string{"luigi.cfg": "[core]\nscheduler_url=http://gw:1/\n"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const mine = "machine gw login svc password p@w\n"
	for name, tc := range map[string]struct{ password, args, wantArgs, netrc string }{
		"Luigi":                       {"p@w", "luigi T", "luigi T", mine},
		"Luigi with a URL of its own": {"p@w", "luigi T --scheduler-url http://gw:1", "luigi T", mine},
		"a program with a URL":        {"p@w", "nightly T --scheduler-url http://gw:1", "nightly T --scheduler-url http://127.0.0.1:5/s3cret/", "machine 127.0.0.1 login svc password p@w\n" + mine},
		"a program with one word":     {"p@w", "nightly T --scheduler-url=http://gw:1", "nightly T --scheduler-url=http://127.0.0.1:5/s3cret/", "machine 127.0.0.1 login svc password p@w\n" + mine},
		"a password with spaces":      {`a "b\ #`, "nightly --scheduler-url http://gw:1", "nightly --scheduler-url http://127.0.0.1:5/s3cret/", `machine 127.0.0.1 login svc password "a \"b\\ #"` + "\n" + mine},
	} {
		w := agent.Wrapping{
			Args: strings.Fields(tc.args), Scheduler: s.WithCredential("svc", identity.NewSecret(tc.password)),
			Agent: "http://127.0.0.1:5/s3cret/", Dir: "/private", Netrc: mine,
		}
		p, err := w.Plan()
		if err != nil {
			t.Fatal(err)
		}
		netrc := p.Files[p.Netrc].Reveal()
		if got := strings.Join(p.Args, " "); got != tc.wantArgs || netrc != tc.netrc {
			t.Errorf("%s: %s with %q", name, got, netrc)
		}
		if !strings.Contains(strings.Join(p.Environ, "\n"), "CROSSFADE_SCHEDULER_URL=http://svc:") {
			t.Errorf("%s: the other way has no password: %v", name, p.Environ)
		}
		if tc.netrc == mine {
			continue
		}
		if user, password, ok := agent.NetrcCredential(netrc, "127.0.0.1"); !ok || user != "svc" || password.Reveal() != tc.password {
			t.Errorf("%s: the file has %q %q", name, user, password.Reveal())
		}
	}
}
