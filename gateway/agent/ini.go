package agent

import (
	"slices"
	"strings"
)

// iniOption is one option of an INI file, and its lines.
type iniOption struct {
	section, name, value string
	first, last          int // line numbers from 0; last is one behind the end
}

// iniFile is an INI file as Python's ConfigParser reads it, with its lines kept:
// it is edited without losing what it does not say to us.
type iniFile struct {
	lines    []string // with their line breaks
	options  []iniOption
	sections map[string]int // name -> line behind its header
}

// parseINI reads what can be read; lines that ConfigParser would refuse are left
// for it to refuse.
func parseINI(text string) *iniFile {
	f := &iniFile{sections: make(map[string]int)}
	for line := range strings.Lines(text) {
		f.lines = append(f.lines, line)
	}
	section, indent, open := "", 0, -1 // open is the option that may go on
	for i, line := range f.lines {
		content := strings.TrimSpace(line)
		if strings.HasPrefix(content, "#") || strings.HasPrefix(content, ";") {
			continue
		}
		if content == "" {
			continue // an empty line may stand within a value
		}
		depth := indentOf(line)
		if open >= 0 && depth > indent {
			o := &f.options[open]
			o.value, o.last = o.value+"\n"+content, i+1
			continue
		}
		indent, open = depth, -1
		if end := strings.LastIndexByte(content, ']'); content[0] == '[' && end > 1 {
			section = content[1:end]
			f.sections[section] = i + 1
			continue
		}
		if at := strings.IndexAny(content, "=:"); at > 0 && section != "" {
			f.options = append(f.options, iniOption{
				section: section, name: strings.TrimSpace(content[:at]), value: strings.TrimSpace(content[at+1:]),
				first: i, last: i + 1,
			})
			open = len(f.options) - 1
		}
	}
	return f
}

// set returns the text with the options named replaced by one of the value
// given each, in a section that is added where it is missing. drop are the
// names of options that mean the same and must go.
func (f *iniFile) set(section, value string, names, drop []string) string {
	gone := make(map[int]bool)
	for _, o := range f.options {
		if o.section != section || !slices.Contains(names, o.name) && !slices.Contains(drop, o.name) {
			continue
		}
		for i := o.first; i < o.last; i++ {
			gone[i] = true
		}
	}
	// ConfigParser would take a % for the beginning of a reference.
	value = strings.ReplaceAll(value, "%", "%%")
	at, there := f.sections[section]
	indent := ""
	if there {
		indent = f.indentAfter(at, gone)
	}
	var added strings.Builder
	for _, name := range names {
		added.WriteString(indent + name + " = " + value + "\n")
	}
	var b strings.Builder
	for i, line := range f.lines {
		if there && i == at {
			b.WriteString(added.String())
		}
		if !gone[i] {
			b.WriteString(line)
		}
		if i == len(f.lines)-1 && !strings.HasSuffix(line, "\n") {
			b.WriteByte('\n')
		}
	}
	switch {
	case !there:
		b.WriteString("[" + section + "]\n" + added.String())
	case at == len(f.lines):
		b.WriteString(added.String())
	}
	return b.String()
}

// indentAfter returns the white space before the first line from at that says
// something: behind an option that stands further to the left, the line would go
// on with its value.
func (f *iniFile) indentAfter(at int, gone map[int]bool) string {
	for i := at; i < len(f.lines); i++ {
		content := strings.TrimSpace(f.lines[i])
		if !gone[i] && content != "" && content[0] != '#' && content[0] != ';' {
			return f.lines[i][:indentOf(f.lines[i])]
		}
	}
	return ""
}

func indentOf(line string) int { return len(line) - len(strings.TrimLeft(line, " \t\f\v\r")) }
