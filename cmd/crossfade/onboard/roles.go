package onboard

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"crossfade/config"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/policy"
)

// Roles is a suggested roles file with who would need which of its roles.
type Roles struct {
	Roles    map[string]config.Role `json:"roles"`
	Accounts []Holder               `json:"accounts"`
	LeftOut  []LeftOut              `json:"left_out"`
}

// Holder is an account and the role that it needs.
type Holder struct {
	Account string `json:"account"`
	Team    string `json:"team"`
	Role    string `json:"role"`
	// Entry tells that it stands in the principals file, with the roles in Has.
	Entry bool     `json:"entry"`
	Has   []string `json:"has,omitempty"`
}

// LeftOut is something that was seen and that no role allows.
type LeftOut struct {
	Account string `json:"account"`
	Action  string `json:"action,omitempty"`
	Family  string `json:"family,omitempty"`
	Why     string `json:"why"`
}

// Observed is what accounts were seen to do, in order of their names: the deeds of
// the trail, and what the evidence knows beyond them. The evidence tells neither
// actions nor what was refused, so a family that only it knows counts as executed
// by an account that has runs, and as looked at by one that has none, which are
// people, or of which the trail says that it looked at some.
func Observed(b Basis) []policy.Observed {
	did := make(map[string]*policy.Observed)
	of := func(name, team string) *policy.Observed {
		if did[name] == nil {
			did[name] = &policy.Observed{Account: name}
		}
		did[name].Team = identity.Team(cmp.Or(team, string(did[name].Team), Placeholder))
		return did[name]
	}
	s := newSuggester(b)
	today := func(principal, team string) (name, of string) {
		if e := s.of(principal); e != nil && e.Configured {
			return e.Name, e.Team
		}
		return principal, team
	}
	known := make(map[string]map[string]bool) // the families that the trail saw, also in what was refused
	looks := make(map[string]bool)            // who looked at families that the trail does not tell
	if b.Census != nil {
		for _, principal := range slices.Sorted(maps.Keys(b.Census.Accounts)) {
			seen := b.Census.Accounts[principal]
			name, team := today(principal, seen.Team)
			o := of(name, team)
			if known[name] == nil {
				known[name] = make(map[string]bool)
			}
			for deed := range seen.Deeds {
				r := request(deed)
				o.Did = append(o.Did, r)
				looks[name] = looks[name] || r.Action == identity.ActionView && r.EveryFamily
			}
			for family := range seen.Families {
				known[name][family] = true
			}
		}
	}
	for _, principal := range slices.Sorted(maps.Keys(b.Evidence)) {
		a := b.Evidence[principal]
		name, team := today(principal, string(a.Team))
		o := of(name, team)
		action := identity.ActionView
		if a.Runs > 0 && !looks[name] {
			action = identity.ActionExecute
		}
		for family := range a.Families {
			if !known[name][family] {
				o.Did = append(o.Did, policy.Request{Action: action, Family: family})
			}
		}
	}
	out := make([]policy.Observed, 0, len(did))
	for _, name := range slices.Sorted(maps.Keys(did)) {
		out = append(out, *did[name])
	}
	return out
}

// request is what a deed needed a right to. Where requests were counted together
// their families are not known; then, and for pages, it is the right to all of
// them, unless the procedure is one that needs no particular family.
func request(d audit.Deed) policy.Request {
	r := policy.Request{Action: d.Action, Family: d.Family}
	if d.Family != "" {
		return r
	}
	if d.RPC == "" {
		r.EveryFamily = true
		return r
	}
	_, families, _ := luigi.Procedure(d.RPC)
	switch d.Action {
	case identity.ActionAdmin:
		r.EveryFamily = !families || d.Counted
	case identity.ActionView:
		r.EveryFamily = families
	case identity.ActionExecute: // a worker's, about what it executes
	}
	return r
}

// SuggestRoles returns the least roles that allow what was observed, with families
// folded as policy.Suggest does.
func SuggestRoles(b Basis, fold int) Roles {
	entries := make(map[string]config.Principal)
	for _, p := range b.Configured {
		entries[p.Name] = p
	}
	out := Roles{Roles: make(map[string]config.Role), Accounts: []Holder{}, LeftOut: []LeftOut{}}
	observed := Observed(b)
	teams := make(map[string]string)
	for _, o := range observed {
		teams[o.Account] = string(o.Team)
	}
	suggested, left := policy.Suggest(observed, fold)
	for _, s := range suggested {
		out.Roles[string(s.Role)] = config.Role{
			Execute: s.Grant[identity.ActionExecute], View: s.Grant[identity.ActionView], Admin: s.Grant[identity.ActionAdmin],
		}
		for _, account := range s.Accounts {
			p, ok := entries[account]
			out.Accounts = append(out.Accounts, Holder{account, teams[account], string(s.Role), ok, p.Roles})
		}
	}
	for _, l := range left {
		out.LeftOut = append(out.LeftOut, LeftOut{l.Account, string(l.Action), l.Family, l.Why})
	}
	slices.SortFunc(out.Accounts, func(a, b Holder) int { return cmp.Compare(a.Account, b.Account) })
	return out
}

// WriteRoles writes a roles file, with who needs which role as comments; head is
// one more, at its top. Without any role it is none that loads.
func WriteRoles(w io.Writer, head string, r Roles) error {
	var b strings.Builder
	for line := range strings.Lines(head) {
		b.WriteString(strings.TrimRight("# "+line, " \n") + "\n")
	}
	roles := &yaml.Node{Kind: yaml.MappingNode}
	for _, name := range slices.Sorted(maps.Keys(r.Roles)) {
		grant := &yaml.Node{Kind: yaml.MappingNode}
		for _, g := range []struct {
			action   string
			families []string
		}{{"execute", r.Roles[name].Execute}, {"view", r.Roles[name].View}, {"admin", r.Roles[name].Admin}} {
			if len(g.families) == 0 {
				continue
			}
			list := &yaml.Node{}
			if err := list.Encode(g.families); err != nil {
				return fmt.Errorf("write the roles file: %w", err)
			}
			if len(g.families) <= 4 {
				list.Style = yaml.FlowStyle
			}
			grant.Content = append(grant.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: g.action}, list)
		}
		key := &yaml.Node{}
		if err := key.Encode(name); err != nil {
			return fmt.Errorf("write the roles file: %w", err)
		}
		roles.Content = append(roles.Content, key, grant)
	}
	b.WriteString("\n")
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	root := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: "roles"}, roles}}
	if err := enc.Encode(root); err != nil {
		return fmt.Errorf("write the roles file: %w", err)
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("write the roles file: %w", err)
	}
	if len(r.Accounts) > 0 {
		b.WriteString("\n# In the principals file:\n")
	}
	for _, a := range r.Accounts {
		b.WriteString("#   " + a.line() + "\n")
	}
	if len(r.LeftOut) > 0 {
		b.WriteString("\n# Seen, and in none of the roles:\n")
	}
	for _, l := range r.LeftOut {
		fmt.Fprintf(&b, "#   %s: %s %s: %s\n", printable(l.Account), cmp.Or(l.Action, "a call"), printable(cmp.Or(l.Family, "-")), l.Why)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// line is the account's part of its entry.
func (h Holder) line() string {
	text := fmt.Sprintf("%s: { team: %s, roles: [%s] }", printable(strings.TrimPrefix(h.Account, "legacy:")), printable(cmp.Or(h.Team, Placeholder)), h.Role)
	switch {
	case strings.HasPrefix(h.Account, "oidc:"):
		return text + "    # a token without an entry: give it one, or the role by a claim"
	case !h.Entry:
		return text + "    # no entry yet: crossfade principals suggest"
	case len(h.Has) == 0:
		return text + "    # no role now"
	case len(h.Has) == 1 && h.Has[0] == h.Role:
		return text
	default:
		return text + fmt.Sprintf("    # now [%s]", strings.Join(h.Has, ", "))
	}
}
