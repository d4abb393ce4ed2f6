package agent

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"crossfade/gateway/agent/token"
)

// familyPlaceholder stands for the task family in what a Family asks for.
const familyPlaceholder = "{family}"

// Family says for what the tokens of some task families are.
type Family struct {
	// Pattern is a family, the beginning of some with a star behind it, or a star
	// for all: the language of the gateway's roles. Case counts.
	Pattern string
	// Request is what their token is to be good for; {family} in it stands for
	// the family.
	Request token.Request
}

// match reports whether the pattern has the family, and how closely: an exact
// name before the longest beginning.
func (f *Family) match(family string) (closeness int, ok bool) {
	prefix, star := strings.CutSuffix(f.Pattern, "*")
	switch {
	case !star && family == f.Pattern:
		return len(family) + 1, true
	case star && strings.HasPrefix(family, prefix):
		return len(prefix), true
	default:
		return 0, false
	}
}

// Matches reports whether the pattern has a family.
func (f *Family) Matches(family string) bool {
	_, ok := f.match(family)
	return ok
}

// requestFor is what to ask for.
func (f *Family) requestFor(family, run string) token.Request {
	fill := strings.NewReplacer(familyPlaceholder, family).Replace
	r := token.Request{Audience: fill(f.Request.Audience), Resource: fill(f.Request.Resource), Run: run}
	for _, scope := range f.Request.Scopes {
		r.Scopes = append(r.Scopes, fill(scope))
	}
	return r
}

// CheckFamilies says everything that is wrong with a list of patterns, joined.
func CheckFamilies(all []Family) error {
	var errs []error
	seen := make(map[string]bool)
	for _, f := range all {
		switch {
		case f.Pattern == "":
			errs = append(errs, errors.New("a pattern of task families is empty: name a family, or write * for all"))
		case strings.Contains(strings.TrimSuffix(f.Pattern, "*"), "*"):
			errs = append(errs, fmt.Errorf("the pattern %q of task families has a star that does not stand at its end", f.Pattern))
		case seen[f.Pattern]:
			errs = append(errs, fmt.Errorf("the pattern %q of task families stands twice", f.Pattern))
		case f.Request.Audience == "" && len(f.Request.Scopes) == 0 && f.Request.Resource == "":
			errs = append(errs, fmt.Errorf("the task families %q have neither audience nor scopes nor resource of their own: "+
				"name one, or leave them out and they use the run's token", f.Pattern))
		}
		seen[f.Pattern] = true
	}
	return errors.Join(errs...)
}

// familyOf returns the entry whose pattern has a family most closely, nil if
// there is none.
func familyOf(all []Family, family string) *Family {
	if family == "" {
		return nil
	}
	var best *Family
	most := -1
	for i := range all {
		if closeness, ok := all[i].match(family); ok && closeness > most {
			best, most = &all[i], closeness
		}
	}
	return best
}

// sameRequest is equal for requests whose tokens are as good as each other.
func sameRequest(r token.Request) string {
	return strings.Join(append([]string{r.Audience, r.Resource}, slices.Sorted(slices.Values(r.Scopes))...), "\x00")
}

// named says for what a token is, in an error.
func named(r token.Request) string {
	return cmp.Or(r.Audience, r.Resource, strings.Join(r.Scopes, " "))
}
