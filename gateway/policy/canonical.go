package policy

import (
	"slices"
	"strings"
)

// Canonical returns the shortest list of patterns that matches the same families,
// in order: two lists match the same exactly if theirs are equal. Patterns as New
// takes them; nil for none. (No list of patterns without "*" can match every family,
// nor one of names what a prefix does, so there is only one shortest list.)
func Canonical(list []string) []string {
	var short []string
	for _, p := range list {
		if !slices.ContainsFunc(list, func(q string) bool { return q != p && covers(q, p) }) {
			short = append(short, p)
		}
	}
	slices.Sort(short)
	return slices.Compact(short)
}

// covers reports whether a pattern matches every family that another one does.
func covers(wide, narrow string) bool {
	prefix, star := strings.CutSuffix(wide, "*")
	return star && strings.HasPrefix(strings.TrimSuffix(narrow, "*"), prefix)
}
