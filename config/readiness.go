package config

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Readiness are the platform's limits: what the evidence of each team must show
// before its percentage is raised, and before its static credentials end. A team
// may make them stricter in its own file.
type Readiness struct {
	// LongestCycle is how long it takes until everything that a team does has been
	// done once. Default 1d. Jobs of once a month make it a month, which is the
	// most: runs are kept for little longer.
	LongestCycle time.Duration `koanf:"longest_cycle" range:"1d..35d"`
	Limits       `koanf:",squash"`
	// Waivers are security signals that are known and accepted for a time.
	Waivers []Waiver `koanf:"waivers"`
}

// Limits are what the checks of readiness compare with. In a team's file the zero
// value of each stands for the platform's; no limit that is written there can be
// zero and mean it.
type Limits struct {
	// Window is how far back evidence counts; one cycle if that is longer. Default
	// 14d.
	Window time.Duration `koanf:"window" range:"1d..35d" stricter:"more"`
	// Missing is the share of requests that may have gone unwatched. Default 0.001.
	Missing Share `koanf:"missing" range:"0.00001..0.5" stricter:"less"`
	// TokensSent is the share of runs whose client must have sent a token. Default
	// 0.99.
	TokensSent Share `koanf:"tokens_sent" range:"0..1" stricter:"more"`
	// CleanAfter is how many later clean runs of the same account and pipeline
	// close a failure. Default 5.
	CleanAfter int `koanf:"clean_after" range:"1..1000" stricter:"more"`
	// BadRuns is the most that the share of bad runs may be, as far as the evidence
	// can tell with Confidence. Defaults 0.01 and 0.995.
	BadRuns    Share `koanf:"bad_runs" range:"0.0001..0.5" stricter:"less"`
	Confidence Share `koanf:"confidence" range:"0.5..0.99999" stricter:"more"`
	// BrokenADay is how many broken runs a day a raise may cause at worst. Default
	// 1.
	BrokenADay float64 `koanf:"broken_a_day" range:"0.01..100000" stricter:"less"`
	// CensusDays is on how many days each account and pipeline must have been clean
	// where runs are too few for a bound on their share. Default 2.
	CensusDays int `koanf:"census_days" range:"1..35" stricter:"more"`
	// Indeterminate is the share of runs that may have gone unjudged. Default
	// 0.005.
	Indeterminate Share `koanf:"indeterminate" range:"0.00001..0.5" stricter:"less"`
	// SoakRuns is how many enforced runs without a refusal a raise needs before the
	// next one. Default 20.
	SoakRuns int `koanf:"soak_runs" range:"0..100000" stricter:"more"`
	// RetireAfter is how long a team must have stood at 100 percent before its
	// static credentials end; two cycles if that is longer. Default 14d.
	RetireAfter time.Duration `koanf:"retire_after" range:"1d..70d" stricter:"more"`
}

// Waiver says that a security signal is known and accepted for a time. Every key
// is required.
type Waiver struct {
	Team    string `koanf:"team"`
	Account string `koanf:"account"`
	// Reason is one of the closed list of reasons.
	Reason string `koanf:"reason"`
	// Owner is who answers for it, and Why is why.
	Owner string `koanf:"owner"`
	Why   string `koanf:"why"`
	// Until is when it ends; a date is the beginning of that day, in UTC.
	Until time.Time `koanf:"until"`
}

func defaultReadiness() Readiness {
	const day = 24 * time.Hour
	return Readiness{LongestCycle: day, Limits: Limits{
		Window: 14 * day, Missing: 0.001, TokensSent: 0.99, CleanAfter: 5, BadRuns: 0.01, Confidence: 0.995,
		BrokenADay: 1, CensusDays: 2, Indeterminate: 0.005, SoakRuns: 20, RetireAfter: 14 * day,
	}}
}

// beyond reports whether the census asks for more days than the window has.
func (r Readiness) beyond() bool {
	return time.Duration(r.CensusDays)*24*time.Hour > max(r.Window, r.LongestCycle)
}

// unmet says that the census asks for more days than the window has.
const unmet = "asks for clean runs on %d days, and only %s of evidence count: lower it or lengthen the window"

// checkReadiness checks what one value alone cannot tell.
func (l *loader) checkReadiness(c *Config) {
	r := &c.Readiness
	if r.beyond() && !l.main.broken(join("readiness", "window")) && !l.main.broken(join("readiness", "longest_cycle")) {
		l.bad("readiness.census_days", unmet, r.CensusDays, FormatDuration(max(r.Window, r.LongestCycle)))
	}
	type signal struct{ team, account, reason string }
	seen := map[signal]bool{}
	for i, w := range r.Waivers {
		path := join(join("readiness", "waivers"), index(i))
		missing := l.needs(l.main, path, "a waiver is like { team: data-eng, account: svc-etl, reason: role_missing, owner: the security team, "+
			"why: TICKET-7, until: 2027-03-31 }", []required{
			{"team", w.Team == ""},
			{"account", w.Account == ""},
			{"reason", w.Reason == ""},
			{"owner", w.Owner == ""},
			{"why", w.Why == ""},
			{"until", w.Until.IsZero()},
		})
		if wrong := checkTeam(w.Team); w.Team != "" && wrong != "" && !l.main.broken(join(path, "team")) {
			at := join(path, "team")
			l.add(l.main.origin(at), shown(at), nearestTeam(w.Team), "%s, not %q", wrong, clip(w.Team))
		}
		l.checkReason(l.main, path, w.Reason, l.src.Reasons)
		of := signal{w.Team, w.Account, w.Reason}
		if seen[of] && !missing && !l.main.broken(path) {
			l.add(l.main.origin(path), shown(path), "", "waives %s of %s a second time: leave one out", clip(w.Reason), clip(w.Account))
		}
		seen[of] = true
	}
}

// required is a key that must be there.
type required struct {
	key     string
	missing bool
}

// needs notes which keys are missing below path, all in one line, and reports
// whether there are any.
func (l *loader) needs(d *document, path, like string, keys []required) bool {
	var missing []string
	for _, k := range keys {
		if k.missing && !d.broken(join(path, k.key)) {
			missing = append(missing, k.key)
		}
	}
	if len(missing) == 0 {
		return false
	}
	l.add(d.origin(path), shown(path), "", "needs %s: %s", enumerated(missing), like)
	return true
}

// checkReason notes a reason below path that is not on the closed list.
func (l *loader) checkReason(d *document, path, reason string, known []string) {
	at := join(path, "reason")
	if reason == "" || known == nil || slices.Contains(known, reason) || d.broken(at) {
		return
	}
	l.add(d.origin(at), shown(at), nearest(reason, known), "is %q, which is no reason that a verdict can have", clip(reason))
}

// stricter notes a limit that is written at path and looser than the platform's.
// The way in which a limit is stricter is more or less.
func (l *loader) stricter(d *document, path, way string, mine, platform reflect.Value) {
	if _, written := d.origins[path]; !written || d.broken(path) {
		return
	}
	if by := compareNumbers(mine, platform); way == "more" && by < 0 || way == "less" && by > 0 {
		l.add(d.origin(path), shown(path), "", "is %s, which is looser than the platform's %s: a team can only be stricter",
			encode(mine).Value, encode(platform).Value)
	}
}

// compareNumbers compares two numbers of one kind.
func compareNumbers(a, b reflect.Value) int {
	if a.Kind() == reflect.Float64 {
		return cmp.Compare(a.Float(), b.Float())
	}
	return cmp.Compare(a.Int(), b.Int())
}

// warnWaivers says which waivers do not waive anything.
func (l *loader) warnWaivers(c *Config, say func(path, suggestion, format string, args ...any)) {
	teams := map[string]bool{unassigned: true}
	for _, p := range c.Principals {
		teams[p.Team] = true
	}
	if c.Roles != nil {
		for _, values := range c.Roles.Teams {
			for _, team := range values {
				teams[team] = true
			}
		}
	}
	delete(teams, "")
	for i, w := range c.Readiness.Waivers {
		path := join(join("readiness", "waivers"), index(i))
		if !l.now().Before(w.Until) {
			say(join(path, "until"), "", "is over: the signal counts again since %s; renew the waiver or remove it", w.Until.Format(time.RFC3339))
		}
		if !teams[w.Team] {
			say(join(path, "team"), nearest(w.Team, slices.Sorted(maps.Keys(teams))), "no principal is of a team %q", w.Team)
		}
	}
}

// now is the time by which things are over.
func (l *loader) now() time.Time {
	if l.src.Now.IsZero() {
		return time.Now()
	}
	return l.src.Now
}

// enumerated joins words as a sentence does.
func enumerated(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
