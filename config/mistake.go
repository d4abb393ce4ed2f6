package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// The names that stand for a file where a value came from somewhere else.
const (
	fromEnvironment = "environment"
	fromFlags       = "command line"
)

// Mistake is one thing that is wrong, or only doubtful, in a configuration. It
// never holds the value of a secret.
type Mistake struct {
	// File is the file's name as it was given or found; "environment" and
	// "command line" stand for those, and it is empty when nothing was given
	// where something must be.
	File string `json:"file,omitempty"`
	// Line and Column count from 1; 0 when the place is not known.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// Key is the dotted key, or the variable's name in the environment. Empty
	// for a mistake of the file as a whole.
	Key string `json:"key,omitempty"`
	// Message says what is wrong and what would be right.
	Message string `json:"message"`
	// Suggestion is the nearest right spelling; empty when nothing is near.
	Suggestion string `json:"suggestion,omitempty"`
}

// Error implements error: `file:line: key: message (did you mean "x"?)`.
func (m Mistake) Error() string {
	var b strings.Builder
	if m.File != "" {
		b.WriteString(m.File)
		if m.Line > 0 {
			fmt.Fprintf(&b, ":%d", m.Line)
		}
		b.WriteString(": ")
	}
	if m.Key != "" {
		b.WriteString(m.Key + ": ")
	}
	b.WriteString(m.Message)
	if m.Suggestion != "" {
		fmt.Fprintf(&b, " (did you mean %q?)", m.Suggestion)
	}
	return b.String()
}

// Errors are all mistakes of a configuration, sorted by file, line and key.
// [Load] returns it, so errors.As tells a wrong configuration from a failure.
type Errors []Mistake

// Error implements error: one mistake a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, m := range e {
		lines[i] = m.Error()
	}
	return strings.Join(lines, "\n")
}

// sorted returns the mistakes in their order, each once.
func (e Errors) sorted() Errors {
	slices.SortFunc(e, func(a, b Mistake) int {
		return cmp.Or(
			cmp.Compare(a.File, b.File),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Key, b.Key),
			cmp.Compare(a.Message, b.Message),
		)
	})
	return slices.Compact(e)
}

// bounded keeps the report readable when something that is no configuration
// at all was given.
func (e Errors) bounded() Errors {
	const most = 500
	if len(e) <= most {
		return e
	}
	return append(e[:most:most], Mistake{Message: fmt.Sprintf("%d more mistakes are not shown", len(e)-most)})
}
