package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Check is what [Config.LintPrincipals] looks for.
type Check string

// The checks.
const (
	// CheckNoEntry: a static credential whose owner no entry names.
	CheckNoEntry Check = "no_entry"
	// CheckNoCredential: an entry names a legacy user that has no credential.
	CheckNoCredential Check = "no_credential"
	// CheckNoOIDC: no token means the entry.
	CheckNoOIDC Check = "no_oidc"
	// CheckSameSubject: two entries name one subject, and are told apart by
	// something else.
	CheckSameSubject Check = "same_subject"
	// CheckNoTeam: the entry's team is missing, or still the placeholder.
	CheckNoTeam Check = "no_team"
	// CheckLoneAccount: the team has no other account.
	CheckLoneAccount Check = "lone_account"
	// CheckUnknownTeam: a rollout file of a team that nobody is of.
	CheckUnknownTeam Check = "unknown_team"
	// CheckNoRoles: there is a roles file, and the entry has no role.
	CheckNoRoles Check = "no_roles"
)

// Finding is something in a principals file that loads and is suspicious all the
// same.
type Finding struct {
	Check Check `json:"check"`
	Mistake
}

// Owner is whose a static credential is.
type Owner struct {
	// Name is the user, or the owner of a key or token.
	Name string
	// Credential names it without its secret, like "basic:svc-etl".
	Credential string
	// File and Line are where it stands.
	File string
	Line int
}

// LintOptions are what stands beside a principals file.
type LintOptions struct {
	// Owners are those of all static credentials; nil when no file of any is known,
	// and then nothing is compared with them.
	Owners []Owner
	// TeamFiles are the files of teams in the rollout directory.
	TeamFiles []string
}

// TeamFileNames lists the files of teams in a rollout directory, as
// [LoadTeamFiles] reads them, without reading any.
func TeamFileNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the rollout directory %s: %w", dir, cause(err))
	}
	var files []string
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".yaml") && !strings.HasPrefix(entry.Name(), ".") && !entry.IsDir() {
			files = append(files, filepath.Join(dir, entry.Name()))
		}
	}
	return files, nil
}

// LintPrincipals says what is suspicious in the principals file of a loaded
// configuration, sorted like [Errors]. The error says that there is none.
func (c *Config) LintPrincipals(o LintOptions) ([]Finding, error) {
	if c.principals == nil {
		return nil, errors.New("there is no principals file: name it under `principals` in the configuration")
	}
	l := &linter{c: c, o: o, teams: make(map[string]int)}
	for _, p := range c.Principals {
		if p.Team != "" && p.Team != unassigned {
			l.teams[p.Team]++
		}
	}
	l.byRule = make(map[string]bool)
	if c.Roles != nil {
		for _, values := range c.Roles.Teams {
			for _, team := range values {
				l.byRule[team] = true
			}
		}
	}
	for _, p := range c.Principals {
		l.entry(p)
	}
	l.subjects()
	l.credentials()
	l.files()
	slices.SortStableFunc(l.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Key, b.Key), cmp.Compare(a.Check, b.Check))
	})
	return l.findings, nil
}

// linter is one pass over a principals file.
type linter struct {
	c        *Config
	o        LintOptions
	teams    map[string]int  // how many entries are of each
	byRule   map[string]bool // the teams that claims give
	findings []Finding
}

// at notes a finding at a path of the principals file.
func (l *linter) at(check Check, path, suggestion, format string, args ...any) {
	p := l.c.principals.origin(path)
	l.findings = append(l.findings, Finding{check, Mistake{
		File: p.file, Line: p.line, Column: p.column, Key: shown(path), Message: fmt.Sprintf(format, args...), Suggestion: suggestion,
	}})
}

func (l *linter) entry(p Principal) {
	l.legacy(p)
	if p.Shared {
		return // it has neither a team nor a token of its own
	}
	team := join(p.Name, "team")
	switch {
	case p.Team == "":
		l.at(CheckNoTeam, p.Name, "", "has no team: it stays at 0 percent and is in the way of every retirement: write the team that runs it")
	case p.Team == unassigned:
		l.at(CheckNoTeam, team, "", "is still to be filled in: %s stays at 0 percent and is in the way of every retirement: write the team that runs it", unassigned)
	case l.teams[p.Team] == 1 && !l.byRule[p.Team]:
		others := slices.DeleteFunc(slices.Sorted(maps.Keys(l.teams)), func(t string) bool { return t == p.Team })
		l.at(CheckLoneAccount, team, nearest(p.Team, others),
			"is the team of this account alone: a raise that goes wrong is not rolled back by itself, which takes two accounts, and only alerts")
	}
	if len(p.OIDC) == 0 {
		l.at(CheckNoOIDC, p.Name, "", "has no oidc: no token means this account, so whatever enforcement selects of it is locked out: write oidc: { subject: ... }")
	}
	if l.c.Roles != nil && len(p.Roles) == 0 {
		l.at(CheckNoRoles, p.Name, "", "has no roles: its password may do nothing once authorization: enforce is set, and its token only what claims give")
	}
}

// legacy compares the legacy users of an entry with the credentials.
func (l *linter) legacy(p Principal) {
	if l.o.Owners == nil {
		return
	}
	names := make([]string, 0, len(l.o.Owners))
	for _, owner := range l.o.Owners {
		names = append(names, owner.Name)
	}
	written := false
	if _, ok := l.c.principals.origins[join(p.Name, "legacy")]; ok {
		written = true
	}
	for i, name := range p.Legacy {
		switch {
		case slices.Contains(names, name):
		case written:
			l.at(CheckNoCredential, join(join(p.Name, "legacy"), index(i)), nearest(name, names),
				"no file of credentials knows the user %q", clip(name))
		default:
			l.at(CheckNoCredential, p.Name, nearest(name, names),
				"stands for the legacy user of the same name, whom no file of credentials knows: write legacy: [] if it has none")
		}
	}
}

// subjects looks for entries that share one.
func (l *linter) subjects() {
	type place struct{ entry, path string }
	first := make(map[string]place)
	for _, p := range l.inOrder() {
		for i, m := range p.OIDC {
			path := join(join(join(p.Name, "oidc"), index(i)), "subject")
			if m.Subject == "" {
				continue
			}
			other, taken := first[m.Subject]
			if !taken {
				first[m.Subject] = place{p.Name, path}
				continue
			}
			if other.entry != p.Name {
				l.at(CheckSameSubject, path, "", "is the subject of %q, too: they differ by issuer or claims only, see that this is meant", clip(other.entry))
			}
		}
	}
}

// inOrder are the entries as they stand in the file.
func (l *linter) inOrder() []Principal {
	all := slices.Clone(l.c.Principals)
	slices.SortStableFunc(all, func(a, b Principal) int {
		p, q := l.c.principals.origin(a.Name), l.c.principals.origin(b.Name)
		return cmp.Or(cmp.Compare(p.line, q.line), cmp.Compare(p.column, q.column))
	})
	return all
}

// credentials looks for owners that no entry names.
func (l *linter) credentials() {
	mapped := make(map[string]bool)
	for _, p := range l.c.Principals {
		for _, name := range p.Legacy {
			mapped[name] = true
		}
	}
	for _, owner := range l.o.Owners {
		if mapped[owner.Name] {
			continue
		}
		l.findings = append(l.findings, Finding{CheckNoEntry, Mistake{
			File: owner.File, Line: owner.Line, Key: owner.Credential,
			Message: fmt.Sprintf("no entry of %s has the legacy user %q: it is unassigned, stays at 0 percent and is in the way of every retirement",
				l.c.PrincipalsFile, clip(owner.Name)),
		}})
	}
}

// files looks for files of teams that nobody is of.
func (l *linter) files() {
	known := slices.Sorted(maps.Keys(l.teams))
	for team := range l.byRule {
		known = append(known, team)
	}
	for _, file := range l.o.TeamFiles {
		team := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if slices.Contains(known, team) {
			continue
		}
		l.findings = append(l.findings, Finding{CheckUnknownTeam, Mistake{
			File: file, Message: fmt.Sprintf("no principal is of a team %q: its percentage selects nobody", clip(team)), Suggestion: nearest(team, known),
		}})
	}
}
