package config

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"
)

// Principal is one entry of the principals file: the identities that are the
// same account, its team and its roles.
type Principal struct {
	Name string `koanf:"-"`
	// Team is the unit of rollout. Empty: unassigned.
	Team string `koanf:"team"`
	// Legacy are owners of static credentials. Without the key it is the
	// entry's name; an empty list means that there is none.
	Legacy []string `koanf:"legacy"`
	// OIDC are the tokens that mean this principal; any one suffices. One may
	// stand without the list.
	OIDC  []TokenMatch `koanf:"oidc"`
	Roles []string     `koanf:"roles"`
	// Owner is whom to ask about the account: a name, an address or a channel.
	// Empty: nobody is named.
	Owner string `koanf:"owner"`
	// Shared marks a legacy credential of several principals, which MayBe
	// names. It has neither team nor OIDC identity of its own.
	Shared bool     `koanf:"shared"`
	MayBe  []string `koanf:"may_be"`
}

// TokenMatch says which tokens mean a principal; all that is set must hold,
// and subject or claims must be set.
type TokenMatch struct {
	// Issuer may be left out where one issuer is configured.
	Issuer  string            `koanf:"issuer"`
	Subject string            `koanf:"subject"`
	Claims  map[string]string `koanf:"claims"`
}

// Roles is the content of the roles file.
type Roles struct {
	// Roles are sets of permissions by name.
	Roles map[string]Role `koanf:"roles"`
	// Claims give roles to people without an entry: claim, value, role.
	Claims map[string]map[string]string `koanf:"claims"`
	// Teams give them a team: claim, value, team.
	Teams map[string]map[string]string `koanf:"teams"`
}

// Role lists patterns of task families by action.
type Role struct {
	Execute []string `koanf:"execute" json:"execute,omitempty"`
	View    []string `koanf:"view" json:"view,omitempty"`
	Admin   []string `koanf:"admin" json:"admin,omitempty"`
}

// unassigned is the team of those that no entry maps; an entry may say so.
const unassigned = "unassigned"

// checkTeam returns what is wrong with the id of a team. It becomes part of
// Redis keys, where braces are hash tags and colons separate, and a label.
func checkTeam(team string) string {
	foreign := strings.ContainsFunc(team, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789._-", r)
	})
	if team == "" || len(team) > 63 || foreign || strings.ContainsAny(team[:1], "._-") {
		return "must be a team id of 1 to 63 of a-z, 0-9, dot, underscore and hyphen that begins with a letter or digit"
	}
	return ""
}

// subfile reads a YAML file that the main configuration names at path into
// out. It returns nil when there is nothing to check any further.
func (l *loader) subfile(file Path, path string, out any) (*document, error) {
	content, err := readBounded(string(file))
	if err != nil {
		l.add(l.main.origin(path), shown(path), "", "cannot read %s: %s", file, err)
		return nil, nil
	}
	return l.tree(string(file), content, out)
}

// tree decodes the content of a file into out. It returns nil when there is
// nothing to check any further.
func (l *loader) tree(file string, content []byte, out any) (*document, error) {
	root := l.parse(file, content)
	if root == nil {
		return nil, nil
	}
	d := newDocument(file, filepath.Dir(file))
	typ := reflect.TypeOf(out).Elem()
	if typ.Kind() == reflect.Struct {
		d.root = typ
	}
	v, ok := l.value(d, "", spec{typ: typ}, root)
	tree, isMap := v.(map[string]any)
	if !ok || !isMap {
		return nil, nil
	}
	k := koanf.New(sep)
	if err := k.Load(confmap.Provider(tree, ""), nil); err != nil {
		return nil, fmt.Errorf("config: merge %s: %w", file, err)
	}
	return d, decode(k, out)
}

// loadRoles reads the roles file and checks it against itself.
func (l *loader) loadRoles(c *Config) error {
	if c.RolesFile == "" {
		return nil
	}
	roles := &Roles{}
	d, err := l.subfile(c.RolesFile, "roles", roles)
	if d == nil || err != nil {
		return err
	}
	c.Roles, l.roles = roles, d
	if len(roles.Roles) == 0 && !d.broken("roles") {
		// Nothing to grant would read as nothing to check.
		l.add(d.origin("roles"), "roles", "", "defines no role: define one, or leave the roles file out and everyone may do everything")
	}
	for name, role := range roles.Roles {
		for action, patterns := range map[string][]string{"execute": role.Execute, "view": role.View, "admin": role.Admin} {
			for i, pattern := range patterns {
				if strings.Contains(strings.TrimSuffix(pattern, "*"), "*") {
					path := strings.Join([]string{"roles", name, action, index(i)}, sep)
					l.add(d.origin(path), shown(path), "", "a star may only stand at the end, not as in %q", clip(pattern))
				}
			}
		}
	}
	for claim, values := range roles.Claims {
		for value, role := range values {
			if _, ok := roles.Roles[role]; !ok {
				l.undefinedRole(d, strings.Join([]string{"claims", claim, value}, sep), role, roles)
			}
		}
	}
	for claim, values := range roles.Teams {
		for value, team := range values {
			if wrong := checkTeam(team); wrong != "" {
				path := strings.Join([]string{"teams", claim, value}, sep)
				l.add(d.origin(path), shown(path), "", "%s, not %q", wrong, clip(team))
			}
		}
	}
	return nil
}

func (l *loader) undefinedRole(d *document, path, role string, roles *Roles) {
	if l.roles.broken(join("roles", role)) {
		return // it was meant to be defined
	}
	names := slices.Sorted(maps.Keys(roles.Roles))
	l.add(d.origin(path), shown(path), nearest(role, names), "role %q is not defined in the roles file", clip(role))
}

// loadPrincipals reads the principals file and checks it against itself, the
// roles and the issuers. The mistakes mirror those of the directory that is
// built from it, so that they carry a line.
func (l *loader) loadPrincipals(c *Config) error {
	if c.PrincipalsFile == "" {
		return nil
	}
	entries := map[string]Principal{}
	d, err := l.subfile(c.PrincipalsFile, "principals", &entries)
	if d == nil || err != nil {
		return err
	}
	l.principals, c.principals = d, d
	for name, p := range entries {
		p.Name = name
		if p.Legacy == nil {
			p.Legacy = []string{name}
		}
		c.Principals = append(c.Principals, p)
	}
	// In the order of the file, so that of two claims the second is wrong.
	slices.SortFunc(c.Principals, func(a, b Principal) int {
		p, q := d.origin(a.Name), d.origin(b.Name)
		return cmp.Or(cmp.Compare(p.line, q.line), cmp.Compare(p.column, q.column), cmp.Compare(a.Name, b.Name))
	})
	pc := principalCheck{l: l, d: d, c: c, entries: entries, legacy: map[string]string{}, tokens: map[string]string{}}
	for _, p := range c.Principals {
		pc.entry(p)
	}
	slices.SortFunc(c.Principals, func(a, b Principal) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// principalCheck is the state of one pass over the entries.
type principalCheck struct {
	l       *loader
	d       *document
	c       *Config
	entries map[string]Principal
	legacy  map[string]string // legacy name -> entry
	tokens  map[string]string // match -> entry
}

func (pc *principalCheck) bad(path, suggestion, format string, args ...any) {
	pc.l.add(pc.d.origin(path), shown(path), suggestion, format, args...)
}

func (pc *principalCheck) entry(p Principal) {
	at := func(key string) string { return join(p.Name, key) }
	for _, prefix := range []string{"legacy:", "oidc:"} {
		if strings.HasPrefix(p.Name, prefix) {
			pc.bad(p.Name, "", "the prefix %s is reserved for principals without an entry", prefix)
		}
	}
	if wrong := checkTeam(p.Team); p.Team != "" && wrong != "" {
		pc.bad(at("team"), nearestTeam(p.Team), "%s, not %q", wrong, clip(p.Team))
	}
	pc.shared(p)
	for i, name := range p.Legacy {
		if other, taken := pc.legacy[name]; taken {
			pc.bad(join(at("legacy"), index(i)), "", "the legacy name %q belongs to principal %q already", clip(name), clip(other))
			continue
		}
		pc.legacy[name] = p.Name
	}
	for i, role := range p.Roles {
		if pc.c.Roles == nil {
			break // none to compare with: a warning says so
		}
		if _, ok := pc.c.Roles.Roles[role]; !ok {
			pc.l.undefinedRole(pc.d, join(at("roles"), index(i)), role, pc.c.Roles)
		}
	}
	for i, m := range p.OIDC {
		pc.match(p, m, join(at("oidc"), index(i)))
	}
}

func (pc *principalCheck) shared(p Principal) {
	at := func(key string) string { return join(p.Name, key) }
	switch {
	case !p.Shared && len(p.MayBe) > 0:
		pc.bad(at("may_be"), "", "belongs to shared principals: add shared: true")
		return
	case !p.Shared:
		return
	case len(p.MayBe) == 0 && !pc.d.broken(at("may_be")):
		pc.bad(at("shared"), "", "a shared principal needs may_be, the principals that it may turn into")
	}
	if len(p.OIDC) > 0 {
		pc.bad(at("oidc"), "", "a shared principal has no OIDC identity of its own: name the principals under may_be")
	}
	if p.Team != "" && p.Team != unassigned {
		pc.bad(at("team"), "", "the team of a shared principal comes from the token: leave it out")
	}
	for i, name := range p.MayBe {
		path := join(at("may_be"), index(i))
		switch target, ok := pc.entries[name]; {
		case !ok && !pc.d.broken(name):
			pc.bad(path, nearest(name, slices.Sorted(maps.Keys(pc.entries))), "principal %q has no entry", clip(name))
		case ok && target.Shared:
			pc.bad(path, "", "principal %q is shared itself", clip(name))
		}
	}
}

func (pc *principalCheck) match(p Principal, m TokenMatch, path string) {
	if m.Subject == "" && len(m.Claims) == 0 && !pc.d.broken(join(path, "subject")) && !pc.d.broken(join(path, "claims")) {
		pc.bad(path, "", "needs a subject or claims")
		return
	}
	issuers := issuerNames(pc.c)
	known := !pc.l.main.broken("oidc") // else the list is not complete
	switch {
	case m.Issuer == "" && len(issuers) > 1 && !pc.d.broken(join(path, "issuer")):
		pc.bad(path, "", "needs an issuer, because %d are configured: a subject is unique within one issuer only", len(issuers))
	case m.Issuer != "" && known && !slices.Contains(issuers, m.Issuer):
		pc.bad(join(path, "issuer"), nearest(m.Issuer, issuers), "issuer %q is not configured under oidc", clip(m.Issuer))
	}
	claims := make([]string, 0, len(m.Claims))
	for claim, value := range m.Claims {
		claims = append(claims, claim+sep+value)
	}
	slices.Sort(claims)
	key := strings.Join(append([]string{m.Issuer, m.Subject}, claims...), sep)
	if other, taken := pc.tokens[key]; taken && other != p.Name {
		pc.bad(path, "", "means the same tokens as principal %q", clip(other))
		return
	}
	pc.tokens[key] = p.Name
}

func issuerNames(c *Config) []string {
	out := make([]string, 0, len(c.OIDC.Issuers))
	for _, issuer := range c.OIDC.Issuers {
		out = append(out, issuer.Issuer)
	}
	return out
}

// nearestTeam turns what people write into an id, if that is all it takes.
func nearestTeam(team string) string {
	id := strings.ToLower(strings.NewReplacer(" ", "-", ":", "-", "/", "-").Replace(team))
	if checkTeam(id) != "" {
		return ""
	}
	return id
}

func index(i int) string { return fmt.Sprintf("[%d]", i) }
