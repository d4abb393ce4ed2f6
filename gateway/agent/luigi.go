package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"crossfade/gateway/identity"
)

// The variables by which Luigi finds its configuration.
const (
	luigiConfigPath   = "LUIGI_CONFIG_PATH"
	luigiConfigParser = "LUIGI_CONFIG_PARSER"
)

// luigiDefaultURL is where an unconfigured worker finds its scheduler.
const luigiDefaultURL = "http://localhost:8082/"

// luigiFormat is one of the two ways in which Luigi's configuration is written.
type luigiFormat struct {
	name string
	// files are read in this order, before the one of LUIGI_CONFIG_PATH; what is
	// read later wins.
	files []string
	// urls, hosts and ports are the options of section core that say where the
	// scheduler is, the first one that is set wins. Of the options of one name
	// with _ and with -, ConfigParser's file has both and TOML's one.
	urls, hosts, ports []string
	// write are the options that are set to point the worker somewhere.
	write []string
	read  func(texts []string, lookup func(string) (string, bool)) (map[string]string, error)
	point func(text, url string) (string, error)
}

var errLuigiConfig = errors.New("the configuration of Luigi")

func luigiFormats() []luigiFormat {
	return []luigiFormat{
		{
			name:  "cfg",
			files: []string{"/etc/luigi/client.cfg", "/etc/luigi/luigi.cfg", "client.cfg", "luigi.cfg"},
			urls:  []string{"scheduler_url", "scheduler-url", "default_scheduler_url", "default-scheduler-url"},
			hosts: []string{"scheduler_host", "scheduler-host", "default_scheduler_host", "default-scheduler-host"},
			ports: []string{"scheduler_port", "scheduler-port", "default_scheduler_port", "default-scheduler-port"},
			// The first is the one that wins in today's Luigi, the second the one that
			// every version knows.
			write: []string{"scheduler_url", "default_scheduler_url"},
			read:  readLuigiINI, point: pointLuigiINI,
		},
		{
			name:  "toml",
			files: []string{"/etc/luigi/luigi.toml", "luigi.toml"},
			urls:  []string{"scheduler_url", "default-scheduler-url"},
			hosts: []string{"scheduler_host", "default-scheduler-host"},
			ports: []string{"scheduler_port", "default-scheduler-port"},
			write: []string{"scheduler_url", "default-scheduler-url"},
			read:  readLuigiTOML, point: pointLuigiTOML,
		},
	}
}

// luigiFormatOf is the format that a worker with this environment reads.
func luigiFormatOf(getenv func(string) string) luigiFormat {
	all := luigiFormats()
	if getenv(luigiConfigParser) == "toml" {
		return all[1]
	}
	return all[0]
}

// has reports whether a file is of the format by its name, the way that Luigi
// guesses it.
func (f luigiFormat) has(path string) bool {
	switch ext := strings.TrimPrefix(filepath.Ext(path), "."); ext {
	case "cfg", "conf", "ini":
		return f.name == "cfg"
	case "toml":
		return f.name == "toml"
	default:
		return true
	}
}

// LuigiScheduler is where an unmodified worker finds its scheduler.
type LuigiScheduler struct {
	// URL has no user.
	URL *url.URL
	// Configured is false when nothing says where the scheduler is and URL is
	// Luigi's default.
	Configured bool
	// credential is user and password as they stand in the URL: whether the
	// worker decodes what is escaped there depends on its libraries.
	credential identity.Secret
	// user and password are those of a netrc file, where it has the credential.
	user     string
	password identity.Secret
}

// HasCredential reports whether there is a user in the URL.
func (s LuigiScheduler) HasCredential() bool { return !s.credential.Empty() }

// WithCredential returns one whose worker sends this user and password of a netrc
// file, unless it sends some already.
func (s LuigiScheduler) WithCredential(user string, password identity.Secret) LuigiScheduler {
	if !s.HasCredential() {
		s.credential, s.user, s.password = identity.NewSecret(url.UserPassword(user, password.Reveal()).String()), user, password
	}
	return s
}

// Pointed is the URL that leads the worker to base, an http URL without a user,
// with the credential that it sends today.
func (s LuigiScheduler) Pointed(base string) identity.Secret {
	scheme, rest, _ := strings.Cut(base, "://")
	if s.HasCredential() {
		// Luigi's configuration would take this for a variable, and has no way to
		// escape it.
		rest = strings.ReplaceAll(s.credential.Reveal(), "${", "%24{") + "@" + rest
	}
	return identity.NewSecret(scheme + "://" + rest)
}

// onCommandLine is Pointed for a command line, which others can read, and the text
// of the netrc file to go with it. A password that stood in the file stays in the
// file: the worker sends it to agentHost from there.
func (s LuigiScheduler) onCommandLine(base, agentHost, netrc string) (url identity.Secret, text string) {
	if s.password.Empty() {
		return s.Pointed(base), netrc
	}
	return identity.NewSecret(base), setNetrc(netrc, agentHost, s.user, s.password)
}

// FindLuigiScheduler returns the scheduler that a worker with this command line,
// environment and working directory (dir) would use. A file that cannot be read
// is an error, one that does not exist is none.
func FindLuigiScheduler(args []string, environ func(string) (string, bool), dir string) (LuigiScheduler, error) {
	getenv := func(name string) string { v, _ := environ(name); return v }
	format := luigiFormatOf(getenv)
	files := slices.Clone(format.files)
	if own := getenv(luigiConfigPath); own != "" && format.has(own) {
		files = append(files, own)
	}
	var texts []string
	for _, name := range files {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		text, err := readIfThere(name)
		if err != nil {
			return LuigiScheduler{}, fmt.Errorf("read %w: %w", errLuigiConfig, err)
		}
		texts = append(texts, text)
	}
	core, err := format.read(texts, environ)
	if err != nil {
		return LuigiScheduler{}, fmt.Errorf("read %w: %w", errLuigiConfig, err)
	}
	raw, configured := luigiURL(format, core, args)
	s, err := parseLuigiURL(raw)
	s.Configured = configured
	return s, err
}

// luigiURL applies the precedence of Luigi: the command line before the files,
// a URL before a host and port.
func luigiURL(format luigiFormat, core map[string]string, args []string) (raw string, configured bool) {
	pick := func(flag string, names []string) string {
		if value, at := luigiFlag(args, flag); at >= 0 {
			return value
		}
		for _, name := range names {
			if value, ok := core[name]; ok {
				return value
			}
		}
		return ""
	}
	if raw = pick("--scheduler-url", format.urls); raw != "" {
		return raw, true
	}
	host, port := pick("--scheduler-host", format.hosts), pick("--scheduler-port", format.ports)
	if host == "" && port == "" {
		return luigiDefaultURL, false
	}
	if host == "" {
		host = "localhost"
	}
	if port == "" {
		port = "8082"
	}
	return "http://" + host + ":" + port + "/", true
}

// luigiFlag finds an option of the command line; argparse takes any beginning
// that is not ambiguous, and the last one wins. at is the index of the argument
// that holds the name, -1 when there is none.
func luigiFlag(args []string, flag string) (value string, at int) {
	at = -1
	unambiguous := len("--scheduler-") + 1
	for i, arg := range args {
		name, inline, joined := strings.Cut(arg, "=")
		if len(name) < unambiguous || !strings.HasPrefix(flag, name) {
			continue
		}
		switch {
		case joined:
			value, at = inline, i
		case i+1 < len(args):
			value, at = args[i+1], i
		}
	}
	return value, at
}

// parseLuigiURL takes a URL apart the way that Python does: passwords with
// characters that a URL does not have are common there. An error never shows it.
func parseLuigiURL(raw string) (LuigiScheduler, error) {
	scheme, rest, _ := strings.Cut(raw, "://")
	authority, path := rest, ""
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		authority, path = rest[:end], rest[end:]
	}
	var s LuigiScheduler
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		s.credential = identity.NewSecret(authority[:at])
		authority = authority[at+1:]
	}
	var err error
	s.URL, err = url.Parse(strings.ToLower(scheme) + "://" + authority + path)
	if err != nil || s.URL.Host == "" || s.URL.Scheme != "http" && s.URL.Scheme != "https" {
		return LuigiScheduler{}, fmt.Errorf("read %w: the scheduler's URL is none that starts with http:// or https:// and names a host "+
			"(it is not shown, since there may be a password in it)", errLuigiConfig)
	}
	return s, nil
}

// pointArguments returns the command line with the scheduler's URL replaced, if
// it has one: that wins over every file. Others are left alone, since other
// users of the machine can read a command line, and the URL holds the agent's
// secret and perhaps a password. Luigi itself is not given it there either: without
// the option it goes by the file.
func pointArguments(args []string, url string) (pointed []string, replaced bool) {
	_, at := luigiFlag(args, "--scheduler-url")
	if at < 0 {
		return args, false
	}
	pointed = slices.Clone(args)
	if isLuigi(args) {
		for ; at >= 0; _, at = luigiFlag(pointed, "--scheduler-url") {
			words := 2
			if strings.Contains(pointed[at], "=") {
				words = 1
			}
			pointed = slices.Delete(pointed, at, at+words)
		}
		return pointed, false
	}
	if name, _, joined := strings.Cut(args[at], "="); joined {
		pointed[at] = name + "=" + url
	} else {
		pointed[at+1] = url
	}
	return pointed, true
}

// isLuigi reports whether a command is Luigi's own program.
func isLuigi(args []string) bool {
	if len(args) == 0 {
		return false
	}
	name := filepath.Base(args[0])
	if name == "luigi" {
		return true
	}
	return strings.HasPrefix(name, "python") && len(args) > 2 && args[1] == "-m" && args[2] == "luigi"
}

func readLuigiINI(texts []string, environ func(string) (string, bool)) (map[string]string, error) {
	core, defaults := make(map[string]string), make(map[string]string)
	for _, text := range texts {
		for _, o := range parseINI(text).options {
			switch o.section {
			case "core":
				core[o.name] = o.value
			case "DEFAULT":
				defaults[o.name] = o.value
			}
		}
	}
	raw := make(map[string]string)
	for name, value := range defaults {
		raw[name] = value
	}
	for name, value := range core {
		raw[name] = value
	}
	format := luigiFormats()[0]
	values := make(map[string]string)
	for _, name := range slices.Concat(format.urls, format.hosts, format.ports) {
		value, ok := raw[name]
		if !ok {
			continue
		}
		resolved, err := interpolate(value, raw, environ, 0)
		if err != nil {
			return nil, fmt.Errorf("[core] %s: %w", name, err)
		}
		values[name] = resolved
	}
	return values, nil
}

// maxInterpolations is where ConfigParser gives up on references.
const maxInterpolations = 10

// interpolate resolves %(name)s, and then ${VARIABLE}, as Luigi does. The error
// names what is missing and shows no value.
func interpolate(value string, options map[string]string, environ func(string) (string, bool), depth int) (string, error) {
	if depth > maxInterpolations {
		return "", errors.New("references go round in a circle")
	}
	var b strings.Builder
	for value != "" {
		before, rest, found := strings.Cut(value, "%")
		b.WriteString(before)
		if !found {
			break
		}
		name, after, closed := strings.Cut(strings.TrimPrefix(rest, "("), ")s")
		switch {
		case strings.HasPrefix(rest, "%"):
			b.WriteByte('%')
			value = rest[1:]
		case strings.HasPrefix(rest, "(") && closed:
			referred, ok := options[name]
			if !ok {
				return "", fmt.Errorf("it refers to the option %q, which is not set", name)
			}
			resolved, err := interpolate(referred, options, nil, depth+1)
			if err != nil {
				return "", err
			}
			b.WriteString(resolved)
			value = after
		default:
			return "", errors.New("a % must be written %%")
		}
	}
	if environ == nil {
		return b.String(), nil
	}
	return expand(b.String(), environ)
}

func expand(value string, environ func(string) (string, bool)) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(value, "${")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || name == "" {
			b.WriteString("${" + rest)
			return b.String(), nil
		}
		set, ok := environ(name)
		if !ok {
			return "", fmt.Errorf("it refers to the environment variable %s, which is not set", name)
		}
		b.WriteString(set)
		value = after
	}
}

func pointLuigiINI(text, url string) (string, error) {
	format := luigiFormats()[0]
	return parseINI(text).set("core", url, format.write, format.urls), nil
}

func readLuigiTOML(texts []string, _ func(string) (string, bool)) (map[string]string, error) {
	values := make(map[string]string)
	for _, text := range texts {
		all := make(map[string]any)
		if _, err := toml.Decode(text, &all); err != nil {
			return nil, tomlError(err)
		}
		core, _ := all["core"].(map[string]any)
		for name, value := range core {
			switch value.(type) {
			case string, int64:
				values[name] = fmt.Sprint(value)
			}
		}
	}
	return values, nil
}

func pointLuigiTOML(text, url string) (string, error) {
	all := make(map[string]any)
	if _, err := toml.Decode(text, &all); err != nil {
		return "", tomlError(err)
	}
	core, ok := all["core"].(map[string]any)
	if !ok {
		core = make(map[string]any)
		all["core"] = core
	}
	for _, name := range luigiFormats()[1].write {
		core[name] = url
	}
	var b bytes.Buffer
	encoder := toml.NewEncoder(&b)
	encoder.Indent = ""
	if err := encoder.Encode(all); err != nil {
		return "", fmt.Errorf("write the TOML anew: %w", err)
	}
	return b.String(), nil
}

// tomlError says where a file is wrong, and not what stands there.
func tomlError(err error) error {
	var wrong toml.ParseError
	if errors.As(err, &wrong) {
		return fmt.Errorf("line %d is no TOML", wrong.Position.Line)
	}
	return errors.New("it is no TOML")
}
