package console

import (
	"maps"
	"slices"
)

// Operations are the methods of each path.
func Operations() map[string][]string {
	all := make(map[string][]string)
	for _, res := range (&Console{}).resources() {
		all["/"+res.path] = slices.Sorted(maps.Keys(res.methods))
	}
	return all
}

// Plan exposes the reading of the largest body.
func PlannedOf(text []byte) error {
	q := planned{}
	if err := parse(text, q.members()); err != nil {
		return err
	}
	return q.check()
}
