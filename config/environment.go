package config

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Variables that begin with envPrefix are ours, those with envAgent the agent's;
// the named ones are no keys.
const (
	envPrefix    = "CROSSFADE_"
	envConfig    = "CROSSFADE_CONFIG" // the configuration file, as --config
	envAgent     = "CROSSFADE_AGENT_"
	envToken     = "CROSSFADE_TOKEN_FILE"    // the agent's
	envTokenDir  = "CROSSFADE_TOKEN_DIR"     // the agent's
	envBearer    = "CROSSFADE_TOKEN"         // of `crossfade rollout --admin`
	envScheduler = "CROSSFADE_SCHEDULER_URL" // the agent's
	envRun       = "CROSSFADE_RUN"           // the agent's
)

// Variable returns the environment variable that sets the dotted key.
func Variable(key string) string { return variable(envPrefix, key) }

func variable(prefix, key string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// variables maps each variable to the path that it sets: one for every value
// that a single text can express, and one for every key with a short form.
func variables(k kind) map[string][]string {
	out := map[string][]string{}
	root := k.defaults.Type()
	add := func(path []string, _ spec) { out[variable(k.prefix, strings.Join(path, "."))] = slices.Clone(path) }
	leaves(root, nil, add)
	shorts(root, nil, add)
	return out
}

// environ turns os.Environ's form into a map; the last one of a name counts.
func environ(env []string) map[string]string {
	out := make(map[string]string, len(env))
	for _, pair := range env {
		if name, value, ok := strings.Cut(pair, "="); ok {
			out[name] = value
		}
	}
	return out
}

// fromEnvironment checks the variables. An empty one counts as unset, because
// compose files and charts pass on variables that way.
func (l *loader) fromEnvironment() map[string]any {
	d := l.source(fromEnvironment, l.src.Dir, layerEnvironment)
	known := variables(l.kind)
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	env := environ(l.src.Env)
	tree := map[string]any{}
	// A short form comes before the keys that it stands for, which may be set
	// beside it: sorted names do that.
	for _, name := range names {
		value := env[name]
		if value == "" {
			continue
		}
		path := known[name]
		s, _ := find(d.root, path)
		d.origins[strings.Join(path, sep)] = position{file: fromEnvironment, key: name, layer: layerEnvironment}
		if v, ok := l.value(d, strings.Join(path, sep), s, textNode(value)); ok {
			put(tree, path, v)
		}
	}
	for name, value := range env {
		if _, ok := known[name]; ok || !strings.HasPrefix(name, l.kind.prefix) || name == l.kind.named || foreign(name, value) {
			continue
		}
		if l.kind.prefix != envAgent && strings.HasPrefix(name, envAgent) {
			continue // the agent complains about those
		}
		l.mistakes = append(l.mistakes, Mistake{
			File: fromEnvironment, Key: printable(name), Message: "unknown variable", Suggestion: nearestVariable(l.kind.prefix, name, names),
		})
	}
	return tree
}

// nearestVariable compares without the prefix, which is no sign of likeness.
func nearestVariable(prefix, name string, names []string) string {
	tails := make([]string, len(names))
	for i, n := range names {
		tails[i] = strings.TrimPrefix(n, prefix)
	}
	if tail := nearest(strings.TrimPrefix(name, prefix), tails); tail != "" {
		return prefix + tail
	}
	return ""
}

// foreign reports whether a variable with our prefix belongs to someone else:
// to the agent, or to Kubernetes, which sets variables like
// CROSSFADE_SERVICE_HOST and CROSSFADE_PORT_8082_TCP for a Service that is
// named crossfade (Kubernetes documentation, "Service: environment variables").
func foreign(name, value string) bool {
	switch name {
	case envConfig, envToken, envBearer, envTokenDir, envScheduler, envRun:
		return true
	}
	switch {
	case strings.HasSuffix(name, "_SERVICE_HOST"):
		_, err := netip.ParseAddr(value)
		return err == nil
	case regexp.MustCompile(`_SERVICE_PORT(_[A-Z0-9_]+)?$`).MatchString(name):
		return regexp.MustCompile(`^\d+$`).MatchString(value)
	case regexp.MustCompile(`_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`).MatchString(name):
		return true
	default:
		return strings.HasSuffix(name, "_PORT") && regexp.MustCompile(`^(tcp|udp|sctp)://`).MatchString(value)
	}
}
