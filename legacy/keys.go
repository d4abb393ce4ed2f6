package legacy

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"crossfade/gateway/identity"
)

const (
	// maxText bounds an id and an owner, in bytes.
	maxText = 255
	// maxKeysFile bounds a file of keys, whose parsed form takes much more
	// memory than an htpasswd file of the same size.
	maxKeysFile = 4 << 20

	knownFields = "the fields are id, owner, sha256, expires and revoked"
	makeDigest  = `write its SHA-256, as printed by: printf %s "$KEY" | sha256sum`
)

// loadKeys reads a file of API keys or static bearer tokens: a YAML list of
//
//   - id: etl-2023             # names the credential in logs; unique in the file
//     owner: svc-etl           # whose it is, as principals name their legacy identities
//     sha256: sha256:9f86d0... # of the secret without a line end; the prefix may be left out
//     expires: 2026-06-30      # optional: refused from 00:00 UTC of the day, or from an RFC 3339 time
//     revoked: false           # optional
//
// It is read strictly: unknown and repeated fields, aliases and several
// documents are mistakes.
func loadKeys(path string, scheme identity.Scheme, dir *identity.Directory) (map[digest]*credential, error) {
	if path == "" {
		return nil, nil
	}
	m := &mistakes{file: path}
	data, ok := m.read()
	if !ok {
		return nil, m.err()
	}
	if len(data) > maxKeysFile {
		m.add(0, fmt.Sprintf("the file is larger than %d MiB", maxKeysFile>>20), "check that this is the right file")
		return nil, m.err()
	}
	keys := map[digest]*credential{}
	digests, ids := map[digest]int{}, map[string]int{}
	for _, node := range m.entries(data) {
		e := m.entry(node)
		if e.id != "" {
			if first, taken := ids[e.id]; taken {
				m.add(e.idLine, fmt.Sprintf("the id stands on line %d already", first), "give each credential an id of its own")
			} else {
				ids[e.id] = e.idLine
			}
		}
		if e.digestLine == 0 {
			continue
		}
		if first, taken := digests[e.digest]; taken {
			m.add(e.digestLine, fmt.Sprintf("the digest stands on line %d already, and one secret cannot have two entries", first),
				"delete one of the two entries, or issue a secret of its own")
			continue
		}
		digests[e.digest] = e.digestLine
		c := newCredential(scheme, e.id, e.owner, dir)
		c.line = e.idLine
		c.limit(e.expires, e.revoked)
		keys[e.digest] = &c
	}
	return keys, m.err()
}

// entries returns the items of the list that the file is; none for an empty
// file.
func (m *mistakes) entries(data []byte) []*yaml.Node {
	// The parser's words may quote the file, so only its line number is passed on.
	unreadable := func(err error) {
		m.add(lineOf(err), "the YAML cannot be read from here on", "check indentation, quotes and brackets")
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		unreadable(err)
		return nil
	}
	if err := dec.Decode(&second); err == nil {
		m.add(second.Line, "a second YAML document begins", "keep one list in the file")
	} else if !errors.Is(err, io.EOF) {
		unreadable(err)
		return nil
	}
	if len(doc.Content) != 1 || isNull(doc.Content[0]) {
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.SequenceNode {
		m.add(root.Line, "the file is not a list", `begin each entry with "- id:"`)
		return nil
	}
	return root.Content
}

// lineOf finds the line in an error of the YAML parser, which has no other
// way to tell it than the text "line N"; 0 without one.
func lineOf(err error) int {
	_, rest, _ := strings.Cut(err.Error(), "line ")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	n, _ := strconv.Atoi(rest[:end])
	return n
}

// entry is one item of the list, as far as it is sound.
type entry struct {
	id         string
	idLine     int
	owner      string
	digest     digest
	digestLine int // 0 without a sound digest
	expires    time.Time
	revoked    bool
}

func (m *mistakes) entry(n *yaml.Node) (e entry) {
	if n.Kind != yaml.MappingNode {
		m.add(n.Line, "the entry is not a mapping", `write it as "- id: ...", then owner and sha256 on lines of their own`)
		return e
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		field, value := n.Content[i], n.Content[i+1]
		if first, twice := seen[field.Value]; twice && field.Kind == yaml.ScalarNode {
			m.add(field.Line, fmt.Sprintf("the field stands on line %d of the entry already", first), "delete one of the two")
			continue
		}
		if field.Kind == yaml.ScalarNode {
			seen[field.Value] = field.Line
		}
		m.field(&e, field, value)
	}
	for _, name := range [...]string{"id", "owner", "sha256"} {
		if seen[name] == 0 {
			m.add(n.Line, "the entry has no "+name, "add the field "+name)
		}
	}
	return e
}

func (m *mistakes) field(e *entry, field, value *yaml.Node) {
	name := ""
	if field.Kind == yaml.ScalarNode {
		name = field.Value
	}
	switch name {
	case "id", "owner", "sha256", "expires", "revoked":
	default:
		m.add(field.Line, "unknown field", knownFields)
		return
	}
	text, ok := scalar(value)
	if !ok {
		m.add(value.Line, name+" is empty or not a single value", "write one value after "+name+":, without tags and aliases")
		return
	}
	switch name {
	case "id", "owner":
		if wrong := checkText(text); wrong != "" {
			m.add(value.Line, name+" "+wrong, "write a short name that may stand in logs")
			return
		}
		if name == "id" {
			e.id, e.idLine = text, value.Line
		} else {
			e.owner = text
		}
	case "sha256":
		d, wrong, do := parseDigest(text)
		if wrong != "" {
			m.add(value.Line, wrong, do)
			return
		}
		e.digest, e.digestLine = d, value.Line
	case "expires":
		at, ok := parseTime(text)
		if !ok {
			m.add(value.Line, "expires is neither a date nor a time", "write 2026-06-30 or 2026-06-30T12:00:00Z")
		}
		e.expires = at
	case "revoked":
		if value.ShortTag() != "!!bool" || text != "true" && text != "false" {
			m.add(value.Line, "revoked is neither true nor false", "write true or false without quotes")
		}
		e.revoked = text == "true"
	}
}

// scalar returns the text of a value as it stands in the file, so that digests
// of digits alone are not taken for numbers.
func scalar(n *yaml.Node) (text string, ok bool) {
	if n.Kind != yaml.ScalarNode || n.Value == "" || isNull(n) {
		return "", false
	}
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp":
		return n.Value, true
	}
	return "", false
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// checkText returns what is wrong with an id or an owner.
func checkText(text string) string {
	_, err := hex.DecodeString(text)
	switch {
	case len(text) > maxText:
		return fmt.Sprintf("is longer than %d bytes", maxText)
	case err == nil && len(text) == hex.EncodedLen(len(digest{})):
		return "looks like a digest, which belongs under sha256"
	case strings.ContainsFunc(text, unprintable), strings.TrimFunc(text, unicode.IsSpace) != text:
		return "holds a control or invisible character or begins or ends with a space"
	}
	return ""
}

// parseDigest reads 64 hexadecimal digits, with or without "sha256:" before
// them. A key that is itself 64 hexadecimal digits cannot be told from a
// digest.
func parseDigest(text string) (d digest, wrong, do string) {
	raw, err := hex.DecodeString(strings.TrimPrefix(text, "sha256:"))
	if err != nil || len(raw) != len(d) {
		return d, "sha256 is not a digest of 64 hexadecimal digits (never write the key itself here: if this is one, it is exposed and must be replaced)",
			makeDigest
	}
	d = digest(raw)
	// What an unset variable makes of sha256sum, with and without a line end.
	if d == digestOf("") || d == digestOf("\n") {
		return d, "sha256 is the digest of nothing at all, as an unset variable makes it", makeDigest
	}
	return d, "", ""
}

// parseTime reads a time of RFC 3339 or a date, which stands for its first
// moment in UTC.
func parseTime(text string) (time.Time, bool) {
	for _, layout := range [...]string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}
