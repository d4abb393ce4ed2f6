package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"crossfade/gateway/identity"
)

// maxFamily is longer than any family that is kept whole where requests are
// recorded: of a longer one only the beginning is known, which is no name.
const maxFamily = 200

// Observed is what an account was seen to do.
type Observed struct {
	Account string
	Team    identity.Team
	Did     []Request
}

// Suggested is a role that would have been enough for its accounts.
type Suggested struct {
	Role     identity.Role
	Grant    Grant
	Accounts []string // sorted
}

// Nameless is something that an account did and no pattern can name, or names
// without naming others.
type Nameless struct {
	Account string
	Action  identity.Action
	Family  string
	Why     string
}

// Suggest returns the least roles that allow what was observed. Accounts that
// need the same share a role. A request that needs the action on any family gets
// no family of its own: those that the account acts upon otherwise suffice, and
// only without any is it the star.
//
// With a fold of 2 or more, as many task families with a beginning in common
// become one pattern with a star at its end, which then allows families that were
// not observed. A beginning ends where a word does: before a capital letter, or
// behind a dot, hyphen or underscore.
//
// Roles are in order of their name, which is the account's that needs it, else the
// team's whose accounts do, else a number. Accounts that did nothing have none.
func Suggest(all []Observed, fold int) ([]Suggested, []Nameless) {
	var left []Nameless
	shares := make(map[string]*share)
	for _, o := range all {
		grant, nameless := leastGrant(o, fold)
		left = append(left, nameless...)
		if len(grant) == 0 {
			continue
		}
		key := fmt.Sprintf("%q", grant) // maps are written in the order of their keys
		s := shares[key]
		if s == nil {
			s = &share{grant: grant, teams: make(map[identity.Team]bool)}
			shares[key] = s
		}
		s.accounts = append(s.accounts, o.Account)
		s.teams[o.Team] = true
	}
	return named(slices.Collect(maps.Values(shares))), left
}

// share is a role without its name yet.
type share struct {
	grant    Grant
	accounts []string
	teams    map[identity.Team]bool
}

// leastGrant is what one account needs.
func leastGrant(o Observed, fold int) (Grant, []Nameless) {
	var left []Nameless
	grant := make(Grant)
	anywhere := make(map[identity.Action]bool) // needed on any family
	needs := make(map[identity.Action]map[string]bool)
	for _, r := range o.Did {
		switch why := unnamed(r.Family); {
		case r.Action == "":
			left = append(left, Nameless{o.Account, r.Action, r.Family, "no role allows a call that the profile does not know"})
		case r.EveryFamily:
			grant[r.Action] = []string{"*"}
		case r.Family == "":
			anywhere[r.Action] = true
		case why != "":
			left = append(left, Nameless{o.Account, r.Action, r.Family, why})
		default:
			if needs[r.Action] == nil {
				needs[r.Action] = make(map[string]bool)
			}
			needs[r.Action][r.Family] = true
		}
	}
	for action, families := range needs {
		if grant[action] == nil {
			grant[action] = folded(slices.Sorted(maps.Keys(families)), fold)
		}
	}
	for action := range anywhere {
		if grant[action] == nil {
			grant[action] = others(needs, fold)
		}
	}
	slices.SortFunc(left, func(a, b Nameless) int {
		return cmp.Or(cmp.Compare(a.Action, b.Action), cmp.Compare(a.Family, b.Family))
	})
	return grant, slices.Compact(left)
}

// others are the families of all that an account does, "*" without any.
func others(needs map[identity.Action]map[string]bool, fold int) []string {
	all := make(map[string]bool)
	for _, families := range needs {
		maps.Copy(all, families)
	}
	if len(all) == 0 {
		return []string{"*"}
	}
	return folded(slices.Sorted(maps.Keys(all)), fold)
}

// unnamed says why no exact pattern can stand for a family, "" if one can.
func unnamed(family string) string {
	switch {
	case strings.HasSuffix(family, "*"):
		return "a star at the end would allow every family that begins so"
	case strings.Contains(family, "*"):
		return "a star may only stand at the end of a pattern"
	case len(family) >= maxFamily:
		return "only its beginning is known"
	case !utf8.ValidString(family), strings.ContainsFunc(family, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }):
		return "it holds characters that no file should"
	default:
		return ""
	}
}

// folded replaces families with a beginning in common, if there are enough of
// them. They are sorted, and so is the result.
func folded(families []string, enough int) []string {
	if enough < 2 {
		return families
	}
	groups := make(map[string][]string)
	for _, family := range families {
		if first := words(family)[0]; first < len(family) {
			groups[family[:first]] = append(groups[family[:first]], family)
		} else {
			groups[family] = append(groups[family], family)
		}
	}
	var out []string
	for _, group := range groups {
		if len(group) < enough {
			out = append(out, group...)
			continue
		}
		out = append(out, beginning(group)+"*")
	}
	slices.Sort(out)
	return out
}

// beginning is the longest one of all names that ends where a word does in the
// first of them.
func beginning(names []string) string {
	best := 0
	for _, end := range words(names[0]) {
		prefix := names[0][:end]
		if !slices.ContainsFunc(names, func(n string) bool { return !strings.HasPrefix(n, prefix) }) {
			best = end
		}
	}
	return names[0][:best]
}

// words returns where the words of a name end, the last one at its end.
func words(name string) []int {
	var ends []int
	lower := false // the letter before is a small one, or a digit
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) && lower {
			ends = append(ends, i)
		}
		lower = unicode.IsLower(r) || unicode.IsDigit(r)
		if strings.ContainsRune("._-", r) {
			ends = append(ends, i+1)
		}
	}
	if len(ends) == 0 || ends[len(ends)-1] < len(name) {
		ends = append(ends, len(name))
	}
	return ends
}

// named gives each role a name of its own.
func named(shares []*share) []Suggested {
	for _, s := range shares {
		slices.Sort(s.accounts)
	}
	slices.SortFunc(shares, func(a, b *share) int { return cmp.Compare(a.accounts[0], b.accounts[0]) })
	taken := make(map[string]bool)
	out := make([]Suggested, 0, len(shares))
	for _, s := range shares {
		name := s.accounts[0]
		if len(s.accounts) > 1 {
			name = "shared"
			if len(s.teams) == 1 && !s.teams[identity.Unassigned] {
				name = string(slices.Collect(maps.Keys(s.teams))[0])
			}
		}
		name = roleName(name)
		free := name
		for n := 2; taken[free]; n++ {
			free = fmt.Sprintf("%s-%d", name, n)
		}
		taken[free] = true
		out = append(out, Suggested{identity.Role(free), s.grant, s.accounts})
	}
	slices.SortFunc(out, func(a, b Suggested) int { return cmp.Compare(a.Role, b.Role) })
	return out
}

// roleName makes a role's name of an account's.
func roleName(account string) string {
	name := strings.TrimPrefix(account, "legacy:")
	name = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-", r) {
			return r
		}
		return '-'
	}, name)
	return cmp.Or(strings.Trim(name, "-"), "role")
}
