package readiness

import (
	"math"
	"time"
)

// Limits are what the checks compare with. DefaultLimits has the defaults; the
// zero value allows nothing.
type Limits struct {
	// Cycle is how long it takes until everything that the team does has been done
	// once, at least a day. Jobs of once a month make it a month.
	Cycle time.Duration
	// Window is how far back evidence counts; one cycle if that is longer.
	Window time.Duration
	// Missing is the share of requests in the window, 0 to 1, that may have gone
	// unwatched.
	Missing float64
	// Tokens is the share of runs, 0 to 1, whose client must have sent a token.
	Tokens float64
	// CleanAfter is how many later clean runs of the same account and pipeline
	// close a failure.
	CleanAfter int
	// BadRuns is the most, 0 to 1, that the bound on the share of bad runs may be,
	// and Confidence, 0 to 1, how sure that bound is.
	BadRuns, Confidence float64
	// BrokenADay is how many broken runs a day a raise may cause at worst.
	BrokenADay float64
	// CensusDays is on how many days each account and pipeline must have been clean
	// where runs are too few for a bound.
	CensusDays int
	// Indeterminate is the share of runs, 0 to 1, that may have gone unjudged.
	Indeterminate float64
	// SoakRuns is how many enforced runs without a refusal a raise needs before
	// the next one.
	SoakRuns int
	// RetireAfter is how long a team must have stood at 100 percent, and no
	// password must have been seen, before static credentials end; two cycles if
	// that is longer.
	RetireAfter time.Duration
}

// DefaultLimits are the limits where nobody has said otherwise.
func DefaultLimits() Limits {
	const day = 24 * time.Hour
	return Limits{
		Cycle: day, Window: 14 * day, Missing: 0.001, Tokens: 0.99, CleanAfter: 5, BadRuns: 0.01, Confidence: 0.995,
		BrokenADay: 1, CensusDays: 2, Indeterminate: 0.005, SoakRuns: 20, RetireAfter: 14 * day,
	}
}

// Stricter returns the limits with each value that other sets and that is
// stricter; zero values of other are not set. A team may make its own limits
// stricter, and only the platform can make them looser.
func (l Limits) Stricter(other Limits) Limits {
	l.Cycle, l.Window, l.RetireAfter = max(l.Cycle, other.Cycle), max(l.Window, other.Window), max(l.RetireAfter, other.RetireAfter)
	l.Tokens, l.Confidence = max(l.Tokens, other.Tokens), max(l.Confidence, other.Confidence)
	l.CleanAfter, l.CensusDays, l.SoakRuns = max(l.CleanAfter, other.CleanAfter), max(l.CensusDays, other.CensusDays), max(l.SoakRuns, other.SoakRuns)
	for mine, theirs := range map[*float64]float64{
		&l.Missing: other.Missing, &l.BadRuns: other.BadRuns, &l.BrokenADay: other.BrokenADay, &l.Indeterminate: other.Indeterminate,
	} {
		if theirs > 0 {
			*mine = min(*mine, theirs)
		}
	}
	return l
}

// window is how far back evidence counts.
func (l Limits) window() time.Duration { return max(l.Window, l.Cycle) }

// retireAfter is how long a team must have done without its static credentials.
func (l Limits) retireAfter() time.Duration { return max(l.RetireAfter, 2*l.Cycle) }

// Bounded is the number of runs in a window from which a bound can hold at all,
// rounded up to the next ten: the least n for which none bad of n stays below
// BadRuns, where 1 - BadRuns to the power of n is 1 - Confidence. It is 530 for
// the default limits.
func (l Limits) Bounded() int {
	if l.BadRuns <= 0 || l.BadRuns >= 1 || l.Confidence <= 0 || l.Confidence >= 1 {
		return 0
	}
	n := math.Ceil(math.Log(1-l.Confidence) / math.Log(1-l.BadRuns))
	return int(math.Ceil(n/10)) * 10
}
