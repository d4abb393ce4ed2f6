package identity

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Entry maps identities to one principal.
type Entry struct {
	// Name is the principal's name. The prefixes "legacy:" and "oidc:" are
	// reserved for principals without an entry.
	Name string
	Team Team // empty stands for Unassigned
	// Roles are what the principal may do by either identity. Without any, a
	// token takes the roles that the claim rules give it, and the legacy
	// identity has none; with some, it is exactly those.
	Roles []Role
	// Legacy are the owners of static credentials: user names of an htpasswd
	// file, owners in the files of keys and tokens. Compared exactly.
	Legacy []string
	// OIDC are the tokens that mean this principal; any one suffices.
	OIDC []TokenMatch
	// Shared marks a legacy credential that several principals use. It has no
	// OIDC identity of its own and no team; MayBe names the principals that it
	// may turn into.
	Shared bool
	MayBe  []string
}

// TokenMatch says which tokens mean a principal. All fields that are set must
// hold, and at least one of Subject and Claims must be set. No match may cover
// one of another principal: every token of the narrower one would be in doubt.
type TokenMatch struct {
	// Issuer is the claim iss. It may be empty only where one issuer is
	// configured: sub is unique within an issuer and no further (OpenID
	// Connect Core section 2).
	Issuer  string
	Subject string
	// Claims are further claims by name with their exact value, for instance
	// repository of a GitHub Actions token.
	Claims map[string]string
}

// ClaimRules give roles and teams to people without an entry, and roles to
// entries without any: claim name, claim value, meaning.
type ClaimRules struct {
	Roles map[string]map[string]Role
	Teams map[string]map[string]Team
}

// TokenIdentity is what the directory asks of a verified token.
type TokenIdentity struct {
	Issuer  string
	Subject string
	// Claim returns the values of a claim: a string as one value, an array of
	// strings as several, nothing for an absent claim. May be nil.
	Claim func(name string) []string
}

// Directory maps verified identities to principals. It is immutable; a reload
// builds a new one. The nil directory maps nobody: everyone is Unassigned.
type Directory struct {
	entries  map[string]Entry
	byLegacy map[string]string
	bySub    map[string][]candidate // by subject; under "" those by claims alone
	claims   ClaimRules
}

// candidate is one match of the entry of that name.
type candidate struct {
	name  string
	match TokenMatch
}

// NewDirectory checks the entries against each other and builds the directory.
// The error joins every mistake, each naming the entry, in order of their text.
func NewDirectory(entries []Entry, claims ClaimRules) (*Directory, error) {
	d := &Directory{
		entries:  make(map[string]Entry, len(entries)),
		byLegacy: make(map[string]string),
		bySub:    make(map[string][]candidate),
		claims:   claims,
	}
	errs := claims.mistakes()
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, e := range entries {
		errs = append(errs, e.mistakes()...)
		if e.Name == "" {
			continue
		}
		if _, twice := d.entries[e.Name]; twice {
			bad("principal %q stands twice", e.Name)
			continue
		}
		e.Team = cmp.Or(e.Team, Unassigned)
		e.Roles = slices.Compact(slices.Sorted(slices.Values(e.Roles)))
		d.entries[e.Name] = e
		for _, legacy := range e.Legacy {
			other, taken := d.byLegacy[legacy]
			if taken && other != e.Name && legacy != "" {
				bad("principals %q and %q both claim the legacy identity %q", min(other, e.Name), max(other, e.Name), legacy)
			}
			d.byLegacy[legacy] = e.Name
		}
		for _, m := range e.OIDC {
			for _, o := range d.bySub[m.Subject] {
				if narrower, ok := overlap(o.match, m); ok && o.name != e.Name {
					bad("principals %q and %q both claim the tokens with %s: tell them apart by issuer, subject or claims",
						min(o.name, e.Name), max(o.name, e.Name), narrower.describe())
				}
			}
			d.bySub[m.Subject] = append(d.bySub[m.Subject], candidate{e.Name, m})
		}
	}
	for _, e := range d.entries {
		if !e.Shared {
			continue
		}
		for _, name := range e.MayBe {
			if target, ok := d.entries[name]; !ok {
				bad("shared principal %q may be %q, which has no entry", e.Name, name)
			} else if target.Shared {
				bad("shared principal %q may be %q, which is shared itself", e.Name, name)
			}
		}
	}
	if len(errs) > 0 {
		slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
		errs = slices.CompactFunc(errs, func(a, b error) bool { return a.Error() == b.Error() })
		return nil, errors.Join(errs...)
	}
	return d, nil
}

// mistakes returns what is wrong with the entry by itself.
func (e Entry) mistakes() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if e.Name == "" {
		return []error{errors.New("a principal has no name")}
	}
	if strings.HasPrefix(e.Name, "legacy:") || strings.HasPrefix(e.Name, "oidc:") {
		bad("principal %q: the prefixes legacy: and oidc: are reserved for principals without an entry", e.Name)
	}
	if e.Shared && len(e.OIDC) > 0 {
		bad("principal %q is shared, so it has no OIDC identity of its own: list the principals it may turn into under may_be", e.Name)
	}
	if e.Shared && e.Team != "" && e.Team != Unassigned {
		bad("principal %q is shared, so its team comes from the companion token: leave team out", e.Name)
	}
	if !e.Shared && len(e.MayBe) > 0 {
		bad("principal %q has may_be, which belongs to shared principals: add shared: true", e.Name)
	}
	if slices.Contains(e.Legacy, "") {
		bad("principal %q: a legacy identity is empty", e.Name)
	}
	if slices.ContainsFunc(e.OIDC, TokenMatch.empty) {
		bad("principal %q: an oidc entry needs a subject or claims", e.Name)
	}
	return errs
}

// mistakes returns the rules that give nothing: a principal's team is never
// empty.
func (c ClaimRules) mistakes() []error {
	return append(nameless(c.Roles, "role"), nameless(c.Teams, "team")...)
}

func nameless[T ~string](rules map[string]map[string]T, what string) (errs []error) {
	for claim, values := range rules {
		for value, meaning := range values {
			if meaning == "" {
				errs = append(errs, fmt.Errorf("claim %s=%q names no %s", claim, value, what))
			}
		}
	}
	return errs
}

// overlap reports whether one of two matches under the same subject means
// every token that the other means, and returns the narrower one. Such a pair
// would leave the narrower entry without any token that is its own.
func overlap(m, o TokenMatch) (narrower TokenMatch, ok bool) {
	switch {
	case m.empty() || o.empty(): // a mistake of its own
		return TokenMatch{}, false
	case m.covers(o):
		return o, true
	default:
		return m, o.covers(m)
	}
}

// covers reports whether m means every token that o means, where both have the
// same subject.
func (m TokenMatch) covers(o TokenMatch) bool {
	if m.Issuer != "" && m.Issuer != o.Issuer {
		return false
	}
	for claim, want := range m.Claims {
		if value, ok := o.Claims[claim]; !ok || value != want {
			return false
		}
	}
	return true
}

func (m TokenMatch) empty() bool { return m.Subject == "" && len(m.Claims) == 0 }

// describe names the fields that are set, for messages.
func (m TokenMatch) describe() string {
	var parts []string
	if m.Issuer != "" {
		parts = append(parts, fmt.Sprintf("issuer %q", m.Issuer))
	}
	if m.Subject != "" {
		parts = append(parts, fmt.Sprintf("subject %q", m.Subject))
	}
	for _, claim := range slices.Sorted(maps.Keys(m.Claims)) {
		parts = append(parts, fmt.Sprintf("claim %s=%q", claim, m.Claims[claim]))
	}
	return strings.Join(parts, ", ")
}

// Legacy returns the principal of a verified legacy identity and, for a shared
// one, the names of the principals that it may turn into.
func (d *Directory) Legacy(owner string) (p Principal, mayBe []string) {
	if d != nil {
		if name, ok := d.byLegacy[owner]; ok {
			e := d.entries[name]
			return e.principal(), e.MayBe
		}
	}
	return Principal{Name: "legacy:" + owner, Team: Unassigned}, nil
}

// Token returns the principal of a verified token. Two entries that both match
// a token are no answer at all: PrincipalUnmapped, because guessing would hand
// out someone's rights. Without an entry, team and roles come from the claim
// rules, and two teams are TeamUnmapped; with entries or rules configured, a
// token that neither an entry nor a rule knows is PrincipalUnmapped as well.
// Without either, everyone with a good token is Unassigned. The principal that
// comes with a reason is a name for the audit line.
func (d *Directory) Token(t TokenIdentity) (Principal, Reason) {
	unmapped := Principal{Name: "oidc:" + t.Subject + "@" + trimScheme(t.Issuer), Team: Unassigned}
	if d == nil {
		return unmapped, ""
	}
	name, several := d.holding(t.Subject, t)
	if name == "" { // an entry that names the subject is more exact than one by claims
		name, several = d.holding("", t)
	}
	switch {
	case several:
		return unmapped, PrincipalUnmapped
	case name == "":
		return d.byRules(t, unmapped)
	}
	p := d.entries[name].principal()
	if len(p.Roles) == 0 {
		p.Roles = meanings(d.claims.Roles, t)
	}
	return p, ""
}

// Why says in a part of a sample why Token returns a reason for the same token; what
// it says of one for which Token returns none means nothing. It asks for no claim that
// Token does not ask for.
func (d *Directory) Why(t TokenIdentity) string {
	if d == nil {
		return ""
	}
	name, several := d.holding(t.Subject, t)
	if name == "" {
		name, several = d.holding("", t)
	}
	switch {
	case several:
		return "several accounts match the token"
	case name != "":
		return ""
	}
	switch teams := meanings(d.claims.Teams, t); {
	case len(teams) > 1:
		return "claims give the token several teams: " + ShownWords(teams, whyRoom)
	case t.Subject != "" && len(d.bySub[t.Subject]) > 0:
		return "an account has this subject, but not of this issuer or with other claims"
	case len(d.claims.Roles)+len(d.claims.Teams) > 0:
		rules := slices.AppendSeq(slices.Collect(maps.Keys(d.claims.Roles)), maps.Keys(d.claims.Teams))
		slices.Sort(rules)
		rules = slices.Compact(rules)
		return "no account has this subject, and no rule gives anything for " + ShownWords(rules, whyRoom)
	default:
		return "no account has this subject"
	}
}

// whyRoom is how long a list in Why is, in bytes: what it is part of says more.
const whyRoom = 40

// holding returns the entry whose match under the subject means the token, ""
// if none does, and whether there are several.
func (d *Directory) holding(subject string, t TokenIdentity) (name string, several bool) {
	for _, c := range d.bySub[subject] {
		if c.name == name || !c.match.means(t) {
			continue
		}
		if name != "" {
			return name, true
		}
		name = c.name
	}
	return name, false
}

// byRules completes the principal p of a token without an entry.
func (d *Directory) byRules(t TokenIdentity, p Principal) (Principal, Reason) {
	roles, teams := meanings(d.claims.Roles, t), meanings(d.claims.Teams, t)
	configured := len(d.entries) > 0 || len(d.claims.Roles) > 0 || len(d.claims.Teams) > 0
	switch {
	case len(teams) > 1: // whose rollout would it be? Nobody may guess.
		return p, TeamUnmapped
	case configured && len(roles) == 0 && len(teams) == 0:
		return p, PrincipalUnmapped
	case len(teams) == 1:
		p.Team = teams[0]
	}
	p.Roles = roles
	return p, ""
}

// meanings returns what the rules give to a token, sorted and without
// duplicates.
func meanings[T ~string](rules map[string]map[string]T, t TokenIdentity) []T {
	var out []T
	for claim, values := range rules {
		for _, v := range t.values(claim) {
			if meaning, ok := values[v]; ok {
				out = append(out, meaning)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Teams returns every team that an entry or a rule names, sorted, always with
// Unassigned. Metrics use it as the closed set of team labels.
func (d *Directory) Teams() []Team {
	set := map[Team]bool{Unassigned: true}
	if d != nil {
		for _, e := range d.entries {
			set[e.Team] = true
		}
		for _, values := range d.claims.Teams {
			for _, team := range values {
				set[team] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// Entries returns all entries in order of name.
func (d *Directory) Entries() []Entry {
	if d == nil {
		return nil
	}
	out := slices.Collect(maps.Values(d.entries))
	slices.SortFunc(out, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (e Entry) principal() Principal {
	return Principal{Name: e.Name, Team: e.Team, Roles: e.Roles, Mapped: true}
}

// means reports whether every field that is set holds for the token.
func (m TokenMatch) means(t TokenIdentity) bool {
	if m.Issuer != "" && m.Issuer != t.Issuer || m.Subject != "" && m.Subject != t.Subject {
		return false
	}
	for claim, want := range m.Claims {
		if !slices.Contains(t.values(claim), want) {
			return false
		}
	}
	return true
}

func (t TokenIdentity) values(claim string) []string {
	if t.Claim == nil {
		return nil
	}
	return t.Claim(claim)
}

func trimScheme(issuer string) string {
	_, rest, ok := strings.Cut(issuer, "://")
	if !ok {
		return issuer
	}
	return rest
}
