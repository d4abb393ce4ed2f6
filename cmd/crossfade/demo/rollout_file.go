package demo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ParseRollout reads a team's rollout file, which says "percent: N" and, in
// the demo, nothing else. N is a whole number from 0 to 100. Errors begin with
// the file's name and the line.
func ParseRollout(name string, content []byte) (percent int, err error) {
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("%s:1: the file is empty; write percent: 0", name)
	} else if err != nil {
		return 0, yamlError(name, err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("%s: a second document follows; keep one", name)
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return 0, fmt.Errorf("%s:%d: expected percent: N", name, root.Line)
	}
	var found *yaml.Node
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if key.Value != "percent" {
			return 0, fmt.Errorf("%s:%d: unknown key %q; the demo reads percent only", name, key.Line, key.Value)
		}
		if found != nil {
			return 0, fmt.Errorf("%s:%d: percent stands a second time", name, key.Line)
		}
		found = value
	}
	if found == nil {
		return 0, fmt.Errorf("%s:%d: percent is missing; write percent: 0", name, root.Line)
	}
	// Digits alone: YAML also reads 0x32, 5_0 and 050 as numbers, and not all
	// of its readers agree on the last.
	percent, err = strconv.Atoi(found.Value)
	if err != nil || found.Kind != yaml.ScalarNode || found.Style != 0 || percent < 0 || percent > 100 || strconv.Itoa(percent) != found.Value {
		return 0, fmt.Errorf("%s:%d: percent must be a whole number from 0 to 100, not %s", name, found.Line, shown(found))
	}
	return percent, nil
}

// shown writes what stands in place of a number.
func shown(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case n.Value == "" && n.Style == 0:
		return "empty"
	default:
		return strconv.Quote(n.Value)
	}
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// yamlError puts the library's line where people and editors look for it.
func yamlError(name string, err error) error {
	text := err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		return fmt.Errorf("%s:%s: %s", name, m[1], text[len(m[0]):])
	}
	return fmt.Errorf("%s: %s", name, strings.TrimPrefix(text, "yaml: "))
}
