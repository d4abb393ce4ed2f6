package agent

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"crossfade/gateway/identity"
)

// The variables that a wrapped command finds.
const (
	// SchedulerURLVariable is the agent's URL, with the worker's own credential.
	SchedulerURLVariable = "CROSSFADE_SCHEDULER_URL"
	// TokenFileVariable names a file with the fresh token.
	TokenFileVariable = "CROSSFADE_TOKEN_FILE"
	// Further ones are RunVariable and TokenDirVariable.
	netrcVariable = "NETRC"
)

// Wrapping is what is known before a command is started behind the agent.
type Wrapping struct {
	// Args are the command and its arguments, Environ its environment as it would
	// be without the agent.
	Args, Environ []string
	// Scheduler is the one that the command would use.
	Scheduler LuigiScheduler
	// Agent is the agent's URL, with its secret and no user.
	Agent string
	// Dir is a private directory that lives as long as the command.
	Dir string
	// Run is the id of the run; "" for none.
	Run string
	// TokenDir has the tokens of task families; "" for none.
	TokenDir string
	// Config is the text of the user's own LUIGI_CONFIG_PATH file, Netrc of their
	// netrc file. Both go on to count.
	Config, Netrc string
}

// Plan is what a command is started with.
type Plan struct {
	Args, Environ []string
	// Files are written before the start, mode 0600.
	Files map[string]identity.Secret
	// TokenFile and Netrc are the files to keep fresh.
	TokenFile, Netrc string
}

// Plan decides how a command finds the agent. Luigi reads the file of
// LUIGI_CONFIG_PATH last, so a copy of the user's own one with nothing but the
// scheduler's URL replaced wins over all others and keeps what they say. A
// --scheduler-url on the command line wins over files, so it is taken away from
// Luigi itself, and replaced for others; a password of the netrc file does not go
// there. Other programs have the variables.
func (w Wrapping) Plan() (Plan, error) {
	led := w.Scheduler.Pointed(w.Agent)
	env := environment(w.Environ)
	format := luigiFormatOf(func(name string) string { return env[name] })
	config := ""
	if format.has(env[luigiConfigPath]) {
		config = w.Config
	}
	pointed, err := format.point(config, led.Reveal())
	if err != nil {
		return Plan{}, fmt.Errorf("copy %s: %w", env[luigiConfigPath], err)
	}
	p := Plan{TokenFile: filepath.Join(w.Dir, "token"), Netrc: filepath.Join(w.Dir, "netrc")}
	configFile := filepath.Join(w.Dir, "luigi."+format.name)
	own, err := url.Parse(w.Agent)
	if err != nil {
		return Plan{}, fmt.Errorf("the agent's own URL: %w", err)
	}
	shown, netrc := w.Scheduler.onCommandLine(w.Agent, own.Hostname(), w.Netrc)
	var replaced bool
	if p.Args, replaced = pointArguments(w.Args, shown.Reveal()); !replaced {
		netrc = w.Netrc
	}
	p.Files = map[string]identity.Secret{
		configFile: identity.NewSecret(pointed),
		p.Netrc:    identity.NewSecret(netrc),
	}
	env[luigiConfigPath] = configFile
	env[SchedulerURLVariable] = led.Reveal()
	env[TokenFileVariable] = p.TokenFile
	env[netrcVariable] = p.Netrc
	if w.Run != "" {
		env[RunVariable] = w.Run
	}
	if w.TokenDir != "" {
		env[TokenDirVariable] = w.TokenDir
	}
	spareLoopback(env)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		p.Environ = append(p.Environ, name+"="+env[name])
	}
	return p, nil
}

// environment is a list of NAME=value as a map; the last one wins.
func environment(list []string) map[string]string {
	env := make(map[string]string, len(list)+8)
	for _, line := range list {
		if name, value, ok := strings.Cut(line, "="); ok && name != "" {
			env[name] = value
		}
	}
	return env
}

// spareLoopback keeps requests to the agent from going through a proxy, which
// could not reach it and would read the worker's password.
func spareLoopback(env map[string]string) {
	proxied := slices.ContainsFunc([]string{"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"}, func(name string) bool {
		return env[name] != ""
	})
	if !proxied {
		return
	}
	for _, name := range []string{"no_proxy", "NO_PROXY"} {
		// Programs look at one or the other: what stands in either counts in both.
		known := env[name]
		if known == "" {
			known = env["no_proxy"]
		}
		if known == "" {
			known = env["NO_PROXY"]
		}
		if known == "*" {
			continue
		}
		list := strings.Split(known, ",")
		for _, host := range []string{"127.0.0.1", "localhost"} {
			if !slices.ContainsFunc(list, func(entry string) bool { return strings.TrimSpace(entry) == host }) {
				list = append(list, host)
			}
		}
		env[name] = strings.TrimPrefix(strings.Join(list, ","), ",")
	}
}

// UserNetrc is where python-requests looks for the user's netrc file, in its
// order.
func UserNetrc(environ []string) []string {
	env := environment(environ)
	if own := env[netrcVariable]; own != "" {
		return []string{own}
	}
	if env["HOME"] == "" {
		return nil
	}
	return []string{filepath.Join(env["HOME"], ".netrc"), filepath.Join(env["HOME"], "_netrc")}
}

// LoopbackURL is the URL of an agent that listens on loopback.
func LoopbackURL(listen net.Addr, secret string) string {
	u := url.URL{Scheme: "http", Host: listen.String(), Path: "/"}
	if secret != "" {
		u.Path += secret + "/"
	}
	return u.String()
}
