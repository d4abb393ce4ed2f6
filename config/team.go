package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// TeamFile is what a team asks for: the content of its file in the rollout
// directory. The file's name is the team.
type TeamFile struct {
	Team string `koanf:"-"`
	// File is its name, Line where the percentage stands in it.
	File string `koanf:"-"`
	Line int    `koanf:"-"`
	// Percent is the share that must use OIDC. Required, unless the team is
	// retired, which means 100.
	Percent int    `koanf:"percent" range:"0..100"`
	Reason  string `koanf:"reason"`
	// Override lets one raise pass without its checks; the zero value lets none.
	Override Override `koanf:"override"`
	// ApplyHours are when raises may be applied; at any time without any.
	ApplyHours []string `koanf:"apply_hours" check:"hours"`
	// Brownouts are windows in which more of the team must use OIDC.
	Brownouts []Brownout `koanf:"brownouts"`
	// Retired ends legacy credentials for good.
	Retired bool `koanf:"retired"`

	hours []Hours
}

// maxBrownouts is how many windows a request may have; see rollout.Request.
const maxBrownouts = 50

// Override lets the raise to Percent pass without its checks. It counts for that
// percentage only, so that one which was forgotten does not carry the next raise.
type Override struct {
	Percent int    `koanf:"percent" range:"1..100" json:"percent"`
	Reason  string `koanf:"reason" json:"reason"`
}

// Brownout is a window in which at least Percent of the team must use OIDC.
type Brownout struct {
	From    time.Time     `koanf:"from" json:"from"`
	For     time.Duration `koanf:"for" range:"1m..24h" json:"for"`
	Percent int           `koanf:"percent" range:"1..100" json:"percent"`
}

// Until returns when the window ends.
func (b Brownout) Until() time.Time { return b.From.Add(b.For) }

// Open reports whether a raise may be applied now.
func (f TeamFile) Open(now time.Time) bool {
	return len(f.hours) == 0 || slices.ContainsFunc(f.hours, func(h Hours) bool { return h.Contains(now) })
}

// Digest tells files apart that ask for different things. What is only said, as
// comments and the reason, and the order of keys do not matter.
func (f TeamFile) Digest() string {
	text, err := json.Marshal(struct {
		Percent   int
		Override  Override
		Brownouts []Brownout
		Retired   bool
	}{f.Percent, f.Override, f.Brownouts, f.Retired})
	if err != nil { // numbers, texts and times always marshal
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// LoadTeamFiles reads the files <team>.yaml of a rollout directory. Each of
// teams may have one; nil allows any. A mistake in one leaves the others: it is
// returned beside what could be read. The error says that the directory itself
// could not be.
//
// Files that begin with a dot are left out: Kubernetes and editors put their own
// there. Files of other names are too, but for those that were meant as a team's.
func LoadTeamFiles(dir string, teams []string) (files []TeamFile, mistakes Errors, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the rollout directory %s: %w", dir, cause(err))
	}
	for _, entry := range entries {
		file := filepath.Join(dir, entry.Name())
		team, ok := strings.CutSuffix(entry.Name(), ".yaml")
		if strings.HasPrefix(entry.Name(), ".") || entry.IsDir() {
			continue
		}
		if name, meant := strings.CutSuffix(entry.Name(), ".yml"); meant {
			mistakes = append(mistakes, Mistake{File: file, Message: "is not read: a team's file ends in .yaml", Suggestion: name + ".yaml"})
		}
		if !ok {
			continue
		}
		f, wrong := loadTeamFile(file, team, teams)
		if len(wrong) > 0 {
			mistakes = append(mistakes, wrong...)
			continue
		}
		if f != nil {
			files = append(files, *f)
		}
	}
	return files, mistakes.sorted().bounded(), nil
}

// loadTeamFile reads one file. Both results are nil for one that has vanished
// since the directory was read.
func loadTeamFile(file, team string, teams []string) (*TeamFile, Errors) {
	if wrong := checkTeam(team); wrong != "" {
		return nil, Errors{{File: file, Message: "the name of a team's file " + wrong}}
	}
	if teams != nil && !slices.Contains(teams, team) {
		return nil, Errors{{
			File: file, Message: fmt.Sprintf("no principal is of a team %q", team), Suggestion: nearest(team, teams),
		}}
	}
	content, err := readBounded(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, Errors{{File: file, Message: "cannot be read: " + err.Error()}}
	}
	f := &TeamFile{Team: team, File: file}
	l := &loader{main: newDocument("", "")}
	d, err := l.tree(file, content, f)
	if err != nil {
		return nil, Errors{{File: file, Message: err.Error()}}
	}
	if d != nil {
		l.checkTeamFile(d, f)
	}
	if len(l.mistakes) > 0 {
		return nil, l.mistakes
	}
	return f, nil
}

// checkTeamFile checks what one value alone cannot tell.
func (l *loader) checkTeamFile(d *document, f *TeamFile) {
	bad := func(path, format string, args ...any) {
		l.add(d.origin(path), shown(path), "", format, args...)
	}
	at, written := d.origins["percent"]
	f.Line = at.line
	switch {
	case d.broken("percent"):
	case f.Retired && written && f.Percent != 100:
		bad("percent", "is %d and the team is retired, which means 100: remove one of the two", f.Percent)
	case f.Retired:
		f.Percent = 100
	case !written:
		l.mistakes = append(l.mistakes, Mistake{File: d.file, Key: "percent", Message: "is missing: write percent: 0, or what the team asks for"})
	}
	if o := f.Override; o != (Override{}) {
		for key, missing := range map[string]bool{"percent": o.Percent == 0, "reason": o.Reason == ""} {
			if missing && !d.broken(join("override", key)) {
				bad("override", "needs %s: an override is for one percentage and says why", key)
			}
		}
	}
	for i, text := range f.ApplyHours {
		hours, err := ParseHours(text)
		if err != nil {
			bad(join("apply_hours", index(i)), "%s, not %q", err, clip(text))
			continue
		}
		f.hours = append(f.hours, hours)
	}
	if len(f.Brownouts) > maxBrownouts {
		bad("brownouts", "has %d windows, at most %d are kept: remove those that have passed", len(f.Brownouts), maxBrownouts)
	}
	for i, b := range f.Brownouts {
		path := join("brownouts", index(i))
		for key, missing := range map[string]bool{"from": b.From.IsZero(), "for": b.For == 0, "percent": b.Percent == 0} {
			if missing && !d.broken(join(path, key)) {
				bad(path, "needs %s: a brownout is like { from: 2027-03-31T10:00:00Z, for: 30m, percent: 100 }", key)
			}
		}
	}
}
