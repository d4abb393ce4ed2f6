package config

import (
	"fmt"
	"reflect"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// maxNodes bounds the values of one document after its aliases are followed.
// An honest file of the largest allowed size holds fewer.
const maxNodes = 1 << 18

// value checks node n against s and returns it as koanf takes it: text, bool,
// int64, []any or map[string]any. What is wrong is noted and left out; ok says
// whether anything is left.
func (l *loader) value(d *document, path string, s spec, n *yaml.Node) (v any, ok bool) {
	if d.nodes++; d.nodes > maxNodes {
		if d.nodes == maxNodes+1 {
			l.at(d, path, n, "", "aliases expand to more than %d values", maxNodes)
		}
		return nil, false
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		l.at(d, path, n, "", "has no value: give one or remove the key")
		return nil, false
	}
	switch {
	case s.leaf():
		if n.Kind != yaml.ScalarNode {
			l.at(d, path, n, "", "must be %s, not %s", describe(s), kindName(n))
			return nil, false
		}
		return l.scalar(d, path, s, n)
	case s.typ.Kind() == reflect.Slice:
		return l.list(d, path, s, n)
	case s.typ.Kind() == reflect.Map:
		return l.freeMapping(d, path, s, n)
	default:
		return l.mapping(d, path, s, n)
	}
}

// list accepts a single element in place of a list of one, and commas in text.
func (l *loader) list(d *document, path string, s spec, n *yaml.Node) (any, bool) {
	items := n.Content
	switch {
	case n.Kind == yaml.SequenceNode:
	case n.Kind == yaml.ScalarNode && s.elem().leaf():
		items = []*yaml.Node{n}
		if d.text {
			items = commas(n.Value)
		}
	case n.Kind == yaml.MappingNode && !s.elem().leaf():
		items = []*yaml.Node{n}
	default:
		l.at(d, path, n, "", "must be a list, not %s", kindName(n))
		return nil, false
	}
	out := make([]any, 0, len(items))
	for i, item := range items {
		at := join(path, fmt.Sprintf("[%d]", i))
		d.note(at, item)
		if v, ok := l.value(d, at, s.elem(), item); ok {
			out = append(out, v)
		}
	}
	return out, true
}

// commas splits text at commas into scalars.
func commas(text string) []*yaml.Node {
	var out []*yaml.Node
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, textNode(part))
		}
	}
	return out
}

func textNode(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
}

// freeMapping is a mapping whose keys are names, not ours.
func (l *loader) freeMapping(d *document, path string, s spec, n *yaml.Node) (any, bool) {
	if n.Kind != yaml.MappingNode {
		l.at(d, path, n, "", "must be a mapping of names, not %s", kindName(n))
		return nil, false
	}
	out := map[string]any{}
	l.pairs(d, path, n, func(key string, k, v *yaml.Node) {
		at := join(path, key)
		d.note(at, k)
		if value, ok := l.value(d, at, s.elem(), v); ok {
			out[key] = value
		}
	})
	return out, true
}

// mapping is a mapping with the keys of a struct, or what its type takes for
// short.
func (l *loader) mapping(d *document, path string, s spec, n *yaml.Node) (any, bool) {
	known := fields(s.typ)
	names := make([]string, len(known))
	specs := make(map[string]spec, len(known))
	for i, f := range known {
		names[i], specs[f.name] = f.name, f.spec
	}
	out := elementDefaults(s.typ, path)
	if n.Kind != yaml.MappingNode {
		keys := short(s.typ)
		if len(keys) == 0 || n.Kind == yaml.SequenceNode && specs[keys[0]].typ.Kind() != reflect.Slice {
			l.at(d, path, n, "", "must be %s, not %s", describe(s), kindName(n))
			return nil, false
		}
		for _, key := range keys {
			at := join(path, key)
			d.origins[at] = d.origins[path]
			v, ok := l.value(d, at, specs[key], n)
			if !ok {
				return nil, false
			}
			out[key] = v
		}
		return out, true
	}
	l.pairs(d, path, n, func(key string, k, v *yaml.Node) {
		at := join(path, key)
		field, ok := specs[key]
		if !ok {
			l.unknown(d, path, key, k, names)
			return
		}
		d.note(at, k)
		if value, ok := l.value(d, at, field, v); ok {
			put(out, []string{key}, value)
		} else {
			d.failed[at] = true
		}
	})
	return out, true
}

// elementDefaults is what a mapping in a list starts from.
func elementDefaults(t reflect.Type, path string) map[string]any {
	if t == reflect.TypeFor[Issuer]() && strings.HasSuffix(path, "]") {
		return plain(defaultIssuer())
	}
	return map[string]any{}
}

// unknown notes a key that does not exist, with the nearest one that does:
// beside it, else the same name elsewhere in the document.
func (l *loader) unknown(d *document, path, key string, k *yaml.Node, siblings []string) {
	suggestion := nearest(key, siblings)
	if suggestion != "" {
		// It was meant to be there, so it is not reported missing as well.
		d.failed[join(path, suggestion)] = true
	} else if d.root != nil {
		suggestion = elsewhere(d.root, key)
	}
	message := "unknown key"
	if suggestion == "" {
		message += ": allowed are " + strings.Join(siblings, ", ")
	}
	l.at(d, join(path, key), k, suggestion, "%s", message)
}

// elsewhere returns the full path of the only key of that name below root.
func elsewhere(root reflect.Type, key string) string {
	found := ""
	leaves(root, nil, func(path []string, _ spec) {
		if path[len(path)-1] == key && found != "\x00" {
			if found != "" {
				found = "\x00"
			} else {
				found = strings.Join(path, ".")
			}
		}
	})
	if found == "\x00" {
		return ""
	}
	return found
}

// pairs calls visit for each pair of a mapping whose key is a usable name that
// stands for the first time.
func (l *loader) pairs(d *document, path string, n *yaml.Node, visit func(key string, k, v *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		at := join(path, printable(k.Value))
		switch {
		case k.Kind != yaml.ScalarNode || k.Value == "" || k.ShortTag() == "!!null":
			l.at(d, path, k, "", "holds a key that is not a name")
		case k.ShortTag() == "!!merge":
			l.at(d, path, k, "", "merge keys (<<) are not supported: write the keys out")
		case strings.ContainsFunc(k.Value, unicode.IsControl):
			l.at(d, at, k, "", "holds a control character")
		case seen[k.Value] > 0:
			l.at(d, at, k, "", "stands twice, first on line %d", seen[k.Value])
		default:
			seen[k.Value] = max(k.Line, 1)
			visit(k.Value, k, v)
		}
	}
}

// printable is text without control characters, for messages.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, text)
}

// note remembers where path was written.
func (d *document) note(path string, n *yaml.Node) {
	if d.text {
		return // the caller has noted the variable or flag
	}
	d.origins[path] = position{file: d.file, line: n.Line, column: n.Column, layer: d.layer}
}

// at notes a mistake at a node of a document.
func (l *loader) at(d *document, path string, n *yaml.Node, suggestion, format string, args ...any) {
	p := position{file: d.file, line: n.Line, column: n.Column}
	if d.text || n.Line == 0 {
		p = d.origin(path)
	}
	d.failed[path] = true
	l.add(p, shown(path), suggestion, format, args...)
}

// origin is where path was written, or the nearest thing above it.
func (d *document) origin(path string) position {
	for {
		if p, ok := d.origins[path]; ok {
			return p
		}
		i := strings.LastIndex(path, sep)
		if i < 0 {
			return position{file: d.file}
		}
		path = path[:i]
	}
}

// add notes a mistake.
func (l *loader) add(p position, key, suggestion, format string, args ...any) {
	if p.key != "" {
		key = p.key
	}
	l.mistakes = append(l.mistakes, Mistake{
		File: p.file, Line: p.line, Column: p.column, Key: key,
		Message: fmt.Sprintf(format, args...), Suggestion: suggestion,
	})
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	default:
		return "a single value"
	}
}
