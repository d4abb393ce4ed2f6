package config

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds a configuration file. The largest honest one, thousands of
// principals, stays far below.
const maxFile = 1 << 20

// position is where a value was written.
type position struct {
	file         string
	line, column int
	key          string // how the place calls itself, when not by its path
	layer        layer
}

// layer orders the sources of values: a higher one overrides a lower one.
type layer int

const (
	layerDefault layer = iota
	layerFile
	layerEnvironment
	layerFlags
)

// document is one source of values: a file, the environment or the flags.
type document struct {
	file  string       // its name in messages
	dir   string       // what relative paths are relative to
	text  bool         // values are plain text: lists are written with commas
	root  reflect.Type // where else an unknown key may belong; may be nil
	layer layer

	origins map[string]position // path -> where it was written
	failed  map[string]bool     // paths with a mistake, which are not there for further checks
	nodes   int                 // values visited, to bound aliases
}

func newDocument(file, dir string) *document {
	return &document{file: file, dir: dir, origins: map[string]position{}, failed: map[string]bool{}}
}

// parse returns the root of a YAML file's content, or nil after noting what is
// wrong.
func (l *loader) parse(file string, content []byte) *yaml.Node {
	whole := func(line int, message string) {
		l.mistakes = append(l.mistakes, Mistake{File: file, Line: line, Message: message})
	}
	if line := notUTF8(content); line > 0 {
		whole(line, "is not UTF-8: save it in that encoding")
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var root yaml.Node
	switch err := decoder.Decode(&root); {
	case errors.Is(err, io.EOF) || err == nil && len(root.Content) == 0:
		whole(0, "is empty")
		return nil
	case err != nil:
		line, message := syntaxError(content, err)
		whole(line, message)
		return nil
	}
	var second yaml.Node
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		line, message := syntaxError(content, err)
		whole(line, message)
		return nil
	default:
		whole(second.Line, "holds a second YAML document: only one can count, remove the line ---")
		return nil
	}
	return root.Content[0]
}

// readBounded reads a file of at most maxFile bytes.
func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, cause(err)
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, cause(err)
	}
	if len(content) > maxFile {
		return nil, errors.New("it is larger than 1MiB")
	}
	return content, nil
}

// cause is an error of the operating system without its mention of the path.
func cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// notUTF8 returns the first line that is not UTF-8, or 0.
func notUTF8(content []byte) int {
	if utf8.Valid(content) {
		return 0
	}
	for i, line := range bytes.Split(content, []byte("\n")) {
		if !utf8.Valid(line) {
			return i + 1
		}
	}
	return 1
}

// syntaxError splits what the YAML library says into line and message.
func syntaxError(content []byte, err error) (line int, message string) {
	for i, text := range bytes.Split(content, []byte("\n")) {
		indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]
		if len(indent) < len(text) && bytes.ContainsRune(indent, '\t') {
			return i + 1, "is indented by a tab: YAML allows spaces only"
		}
	}
	message = strings.TrimPrefix(err.Error(), "yaml: ")
	if m := regexp.MustCompile(`^(?:.*\s)?line (\d+): (.*)$`).FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = m[2]
		// The library counts the lines of its parser from 0 and those of its
		// scanner from 1.
		if strings.HasPrefix(message, "did not find expected") {
			line++
		}
	}
	if m := regexp.MustCompile(`^unknown anchor '(.*)' referenced$`).FindStringSubmatch(message); m != nil {
		before, _, _ := bytes.Cut(content, []byte("*"+m[1]))
		line = 1 + bytes.Count(before, []byte("\n"))
	}
	return line, "is not valid YAML: " + message
}

// resolve joins a relative path to the directory of the document.
func (d *document) resolve(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(d.dir, path)
}
