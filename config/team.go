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
	"reflect"
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
	// LongestCycle and Limits are the team's where they are stricter than the
	// platform's; zero values stand for the platform's.
	LongestCycle time.Duration `koanf:"longest_cycle" range:"1d..35d"`
	Limits       Limits        `koanf:"limits"`
	// Fixed are the failures that were repaired.
	Fixed []Fixed `koanf:"fixed"`
	// Warnings are what is legal in it and without effect.
	Warnings []Mistake `koanf:"-"`

	hours []Hours
}

// Fixed records that a failure was repaired, so that what was seen before leaves
// the numbers. All keys but the pipeline are required.
type Fixed struct {
	Account string `koanf:"account"`
	// Pipeline may be left out for runs that have none.
	Pipeline string `koanf:"pipeline"`
	// Reason is one of the closed list of reasons.
	Reason string `koanf:"reason"`
	// At is since when, not in the future; a date is the beginning of that day, in
	// UTC.
	At time.Time `koanf:"at"`
}

// maxFixed is how many repairs a file may record. What was repaired longer ago
// than evidence counts needs no record.
const maxFixed = 100

const (
	// maxBrownouts is how many windows a request may have; see rollout.Request.
	maxBrownouts = 50
	// brownoutsLast is for how long the windows of a file may enforce more in any
	// brownoutSpan: the gateways go by the same (rollout.BrownoutSpan). More would be a
	// raise that no check was asked about.
	brownoutsLast = 24 * time.Hour
	brownoutSpan  = 7 * 24 * time.Hour
)

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
// comments and the reason, what readiness is judged by, which is no request, and
// the order of keys do not matter.
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

// TeamOptions is what the files of teams are checked against. The zero value
// allows every team, limit and reason.
type TeamOptions struct {
	// Teams are those that may have a file; nil allows any.
	Teams []string
	// Platform has the limits that a team can only make stricter; nil compares with
	// none.
	Platform *Readiness
	// Reasons is the closed list of the reasons that a verdict can have; nil allows
	// any word as one.
	Reasons []string
	// Now is what counts as the future from; zero is the time of the call.
	Now time.Time
}

// LoadTeamFiles reads the files <team>.yaml of a rollout directory. A mistake in
// one leaves the others: it is returned beside what could be read. The error says
// that the directory itself could not be.
//
// Files that begin with a dot are left out: Kubernetes and editors put their own
// there. Files of other names are too, but for those that were meant as a team's.
func LoadTeamFiles(dir string, o TeamOptions) (files []TeamFile, mistakes Errors, err error) {
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
		f, wrong := loadTeamFile(file, team, o)
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
func loadTeamFile(file, team string, o TeamOptions) (*TeamFile, Errors) {
	if wrong := checkTeam(team); wrong != "" {
		return nil, Errors{{File: file, Message: "the name of a team's file " + wrong}}
	}
	if o.Teams != nil && !slices.Contains(o.Teams, team) {
		return nil, Errors{{
			File: file, Message: fmt.Sprintf("no principal is of a team %q", team), Suggestion: nearest(team, o.Teams),
		}}
	}
	content, err := readBounded(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, Errors{{File: file, Message: "cannot be read: " + err.Error()}}
	}
	f := &TeamFile{Team: team, File: file}
	l := &loader{src: Source{Reasons: o.Reasons, Now: o.Now}, main: newDocument("", "")}
	d, err := l.tree(file, content, f)
	if err != nil {
		return nil, Errors{{File: file, Message: err.Error()}}
	}
	if d != nil {
		l.checkTeamFile(d, f)
		l.checkTeamLimits(d, f, o.Platform)
		l.checkFixed(d, f)
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
		f.Warnings = append(f.Warnings, l.idleOverride(d, f)...)
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
	if i := tooLong(f.Brownouts); i >= 0 {
		bad(join("brownouts", index(i)), "makes the brownouts last longer than %s in 7 days: that is a raise which no check was asked about. Shorten them, put them further apart, or raise percent", FormatDuration(brownoutsLast))
	}
}

// idleOverride tells of an override that is for another percentage than the file asks
// for. It is no mistake: one that is left over must keep nobody from lowering a team,
// nor carries the next raise.
func (l *loader) idleOverride(d *document, f *TeamFile) []Mistake {
	path := join("override", "percent")
	if f.Override.Percent == f.Percent || f.Override.Percent == 0 || d.broken(path) || d.broken("percent") {
		return nil
	}
	at := d.origin(path)
	return []Mistake{{
		File: at.file, Line: at.line, Column: at.column, Key: shown(path),
		Message: fmt.Sprintf("is %d while percent is %d, so the override has no effect: it is for the raise to %d alone. Remove it, or correct one of the two",
			f.Override.Percent, f.Percent, f.Override.Percent),
	}}
}

// tooLong returns the first window with which, together with those before it in the
// file, brownouts last longer than brownoutsLast in some brownoutSpan; -1 if none is.
func tooLong(windows []Brownout) int {
	for i := range windows {
		upTo := slices.SortedFunc(slices.Values(windows[:i+1]), func(a, b Brownout) int { return a.From.Compare(b.From) })
		for j, first := range upTo { // some span that begins with a window holds as much of them as any
			begin, end, sum := first.From, first.From.Add(brownoutSpan), time.Duration(0)
			for _, w := range upTo[j:] {
				if w.From.After(begin) {
					begin = w.From
				}
				until := w.Until()
				if until.After(end) {
					until = end
				}
				if until.After(begin) {
					sum += until.Sub(begin)
					begin = until
				}
			}
			if sum > brownoutsLast {
				return i
			}
		}
	}
	return -1
}

// checkTeamLimits checks that the team's limits are stricter than the platform's.
func (l *loader) checkTeamLimits(d *document, f *TeamFile, platform *Readiness) {
	if platform == nil {
		return
	}
	l.stricter(d, "longest_cycle", "more", reflect.ValueOf(f.LongestCycle), reflect.ValueOf(platform.LongestCycle))
	mine, theirs := reflect.ValueOf(f.Limits), reflect.ValueOf(platform.Limits)
	for i := range mine.NumField() {
		tag := mine.Type().Field(i).Tag
		l.stricter(d, join("limits", tag.Get("koanf")), tag.Get("stricter"), mine.Field(i), theirs.Field(i))
	}
	both := *platform
	both.LongestCycle = max(both.LongestCycle, f.LongestCycle)
	both.Window = max(both.Window, f.Limits.Window)
	both.CensusDays = max(both.CensusDays, f.Limits.CensusDays)
	// What the platform itself asks for in vain is no mistake of the team.
	if at := join("limits", "census_days"); both.beyond() && !platform.beyond() && !d.broken("limits") {
		l.add(d.origin(at), shown(at), "", unmet, both.CensusDays, FormatDuration(max(both.Window, both.LongestCycle)))
	}
}

// checkFixed checks the record of repairs.
func (l *loader) checkFixed(d *document, f *TeamFile) {
	if len(f.Fixed) > maxFixed {
		l.add(d.origin("fixed"), "fixed", "", "has %d entries, at most %d are read: remove those that are older than the window", len(f.Fixed), maxFixed)
		return
	}
	for i, fix := range f.Fixed {
		path := join("fixed", index(i))
		l.needs(d, path, "a repair is like { account: svc-etl, pipeline: DailyReport, reason: aud_mismatch, at: 2027-03-31T10:00:00Z }", []required{
			{"account", fix.Account == ""}, {"reason", fix.Reason == ""}, {"at", fix.At.IsZero()},
		})
		l.checkReason(d, path, fix.Reason, l.src.Reasons)
		if at := join(path, "at"); fix.At.After(l.now()) && !d.broken(at) {
			l.add(d.origin(at), shown(at), "", "is %s, which is in the future: write when the repair was in place", fix.At.Format(time.RFC3339))
		}
	}
}
