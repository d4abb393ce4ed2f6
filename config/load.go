package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"
)

// Source is where [Load] takes a configuration from. The zero value searches
// for a file and reads no variables and no flags.
type Source struct {
	// File is the configuration file. Empty: the variable CROSSFADE_CONFIG,
	// else the first that exists of ./crossfade.yaml,
	// $XDG_CONFIG_HOME/crossfade/crossfade.yaml and
	// /etc/crossfade/crossfade.yaml; none is fine.
	File string
	// Env are variables as os.Environ returns them.
	Env []string
	// Flags are the values that were set on the command line by dotted key
	// ("upstream.url"; "listen" for "listen.address" too): text, bool, int,
	// []string or anything that prints as a file would say it.
	Flags map[string]any
	// Dir is what relative paths of File, Env and Flags are relative to.
	// Empty: the working directory of the process.
	Dir string
	// Reasons is the closed list of the reasons that a verdict can have; nil allows
	// any word as one.
	Reasons []string
	// Now is what counts as over; zero is the time of the call.
	Now time.Time
	// Partial leaves out what only a gateway that serves needs: an upstream.
	Partial bool
	// Needs, when not nil, are the dotted keys that must be right: mistakes at others,
	// and in files that those name, are left to [Config.Warnings], and what they are
	// about may be missing. A file that cannot be read as a whole is a mistake still.
	Needs []string
}

// needed reports whether a mistake is one of what must be right.
func (s Source) needed(m Mistake, main string) bool {
	if s.Needs == nil {
		return true
	}
	if m.Key == "" && (m.File == main || m.File == "") {
		return true
	}
	return slices.ContainsFunc(s.Needs, func(key string) bool {
		return m.Key == key || strings.HasPrefix(m.Key, key+".") || m.File == fromEnvironment && strings.HasPrefix(m.Key, Variable(key))
	})
}

// Load reads, merges and checks the configuration. When the content is wrong
// the error is [Errors] with every mistake found and the configuration is nil.
// It reads files and nothing else; it is safe for concurrent use.
func Load(src Source) (*Config, error) {
	l := newLoader(src, gatewayKind())
	c := &Config{}
	var err error
	if c.File, err = l.merge(c); err != nil {
		return nil, err
	}
	if err := l.complete(c); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(l.mistakes, func(m Mistake) bool { return src.needed(m, c.File) }) {
		return nil, l.mistakes.sorted().bounded()
	}
	c.warnings = append(c.warnings, l.mistakes.sorted()...)
	return c, nil
}

// kind is what there is to know of one of the two configurations.
type kind struct {
	// defaults is a value of the struct that lists the keys.
	defaults reflect.Value
	// here is the name of the file in the working directory, elsewhere the one in
	// directories of the program's own.
	here, elsewhere string
	// prefix begins the variables; the one of named is the file's.
	prefix, named string
	// needs is a path that must be there, and is not reported missing when nobody
	// knows what the file would have said; "" for none.
	needs string
}

func gatewayKind() kind {
	return kind{
		defaults: reflect.ValueOf(*Default()), here: "crossfade.yaml", elsewhere: "crossfade.yaml",
		prefix: envPrefix, named: envConfig, needs: "upstream",
	}
}

func newLoader(src Source, k kind) *loader {
	l := &loader{src: src, kind: k, main: newDocument("", src.Dir)}
	l.main.layer = layerDefault
	return l
}

// merge decodes all layers into what out points to, and returns the name of the
// file, "" if there was none.
func (l *loader) merge(out any) (file string, err error) {
	k := koanf.New(sep)
	file, fileTree := l.fromFile()
	for _, tree := range []map[string]any{l.defaults(), fileTree, l.fromEnvironment(), l.fromFlags()} {
		if err := k.Load(confmap.Provider(tree, ""), nil); err != nil {
			return "", fmt.Errorf("config: merge: %w", err)
		}
	}
	return file, decode(k, out)
}

// loader collects the mistakes of one Load.
type loader struct {
	src  Source
	kind kind
	main *document // where each value of the merged configuration came from

	// Where each value of the files beside it came from; nil without them.
	roles, principals *document
	mistakes          Errors
}

// source begins a document whose values go into the main configuration.
func (l *loader) source(file, dir string, in layer) *document {
	return &document{
		file: file, dir: dir, layer: in, text: in > layerFile, root: l.kind.defaults.Type(),
		origins: l.main.origins, failed: l.main.failed,
	}
}

// decode fills the struct or map that out points to. The tree was checked
// already; ErrorUnused makes a difference between that check and the structs
// an error instead of a value that is silently dropped.
func decode(k *koanf.Koanf, out any) error {
	err := k.UnmarshalWithConf("", out, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		DecodeHook: mapstructure.ComposeDecodeHookFunc(
			durationHook(),
			mapstructure.StringToURLHookFunc(),
			mapstructure.TextUnmarshallerHookFunc(),
		),
		ErrorUnused: true,
	}})
	if err != nil {
		return fmt.Errorf("config: decode: %w", err)
	}
	return nil
}

// defaults is the lowest layer. It passes the same checks as a file, under a
// document of its own: a default is written nowhere.
func (l *loader) defaults() map[string]any {
	v, _ := l.value(newDocument("defaults", ""), "", spec{typ: l.kind.defaults.Type()}, encode(l.kind.defaults))
	tree, _ := v.(map[string]any)
	return tree
}

// fromFile reads the configuration file, if there is one.
func (l *loader) fromFile() (file string, tree map[string]any) {
	file, ok := l.search()
	if !ok {
		return "", nil
	}
	l.main.file = file
	content, err := readBounded(file)
	if err != nil {
		l.mistakes = append(l.mistakes, Mistake{File: file, Message: "cannot be read: " + err.Error()})
		l.unknowable()
		return file, nil
	}
	root := l.parse(file, content)
	if root == nil {
		l.unknowable()
		return file, nil
	}
	d := l.source(file, filepath.Dir(file), layerFile)
	v, _ := l.value(d, "", spec{typ: d.root}, root)
	tree, _ = v.(map[string]any)
	return file, tree
}

// unknowable notes that nobody knows what the file would have said.
func (l *loader) unknowable() {
	if l.kind.needs != "" {
		l.main.failed[l.kind.needs] = true
	}
}

// search returns the configuration file's name.
func (l *loader) search() (string, bool) {
	if l.src.File != "" {
		return l.main.resolve(l.src.File), true
	}
	env := environ(l.src.Env)
	if named := env[l.kind.named]; named != "" {
		return l.main.resolve(named), true
	}
	name := l.kind.elsewhere
	candidates := []string{l.main.resolve(l.kind.here)}
	// XDG Base Directory Specification: unset or empty means $HOME/.config,
	// and a relative path is ignored.
	switch base, home := env["XDG_CONFIG_HOME"], env["HOME"]; {
	case filepath.IsAbs(base):
		candidates = append(candidates, filepath.Join(base, "crossfade", name))
	case filepath.IsAbs(home):
		candidates = append(candidates, filepath.Join(home, ".config", "crossfade", name))
	}
	candidates = append(candidates, filepath.Join("/etc/crossfade", name))
	for _, candidate := range candidates {
		// A file that is there but may not be looked at is one to complain
		// about, not to skip.
		if _, err := os.Stat(candidate); !errors.Is(err, fs.ErrNotExist) {
			return candidate, true
		}
	}
	return "", false
}

// fromFlags checks the values of the command line.
func (l *loader) fromFlags() map[string]any {
	d := l.source(fromFlags, l.src.Dir, layerFlags)
	tree := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(l.src.Flags)) { // short forms first
		value := l.src.Flags[key]
		path := strings.Split(key, ".")
		s, ok := find(d.root, path)
		if !ok {
			l.mistakes = append(l.mistakes, Mistake{
				File: fromFlags, Key: printable(key), Message: "unknown key", Suggestion: nearest(key, dotted(d.root)),
			})
			continue
		}
		d.origins[strings.Join(path, sep)] = position{file: fromFlags, layer: layerFlags}
		node := textNode(fmt.Sprint(value))
		if list, ok := value.([]string); ok {
			node = textNode(strings.Join(list, ","))
		}
		if v, ok := l.value(d, strings.Join(path, sep), s, node); ok {
			put(tree, path, v)
		}
	}
	return tree
}

// dotted lists every key that a flag may set.
func dotted(t reflect.Type) []string {
	var out []string
	leaves(t, nil, func(path []string, _ spec) { out = append(out, strings.Join(path, ".")) })
	return out
}

// put sets a value in a tree of maps; a mapping is merged into what is there.
func put(tree map[string]any, path []string, v any) {
	for _, key := range path[:len(path)-1] {
		next, ok := tree[key].(map[string]any)
		if !ok {
			next = map[string]any{}
			tree[key] = next
		}
		tree = next
	}
	last := path[len(path)-1]
	into, ok := tree[last].(map[string]any)
	from, okFrom := v.(map[string]any)
	if !ok || !okFrom {
		tree[last] = v
		return
	}
	for key, value := range from {
		into[key] = value
	}
}
