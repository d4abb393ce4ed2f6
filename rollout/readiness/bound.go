package readiness

import (
	"gonum.org/v1/gonum/stat/distuv"
)

// UpperBound returns the one-sided upper Clopper-Pearson bound on a share of
// which bad of n were seen, at a confidence between 0 and 1: the largest share
// under which seeing bad or fewer is still likelier than 1 - confidence. It is
// the quantile of the beta distribution with bad+1 and n-bad (Clopper and
// Pearson, Biometrika 26, 1934; Brown, Cai and DasGupta, Statistical Science 16,
// 2001, section 4.2.1). Of nothing seen, of all bad, or at a confidence that is
// none, it is 1.
func UpperBound(bad, n int, confidence float64) float64 {
	if n <= 0 || bad >= n || bad < 0 || !(confidence > 0 && confidence < 1) {
		return 1
	}
	return distuv.Beta{Alpha: float64(bad) + 1, Beta: float64(n - bad)}.Quantile(confidence)
}

// needed returns the least number of runs of which bad may be bad for the bound
// to be within the limit, at least n; ok is false if that is out of reach.
func (l Limits) needed(bad, n int) (runs int, ok bool) {
	const most = 10_000_000
	low, high := max(n, bad+1), max(n, bad+1, 1)
	for UpperBound(bad, high, l.Confidence) > l.BadRuns {
		if low = high; high > most {
			return 0, false
		}
		high *= 2
	}
	for low < high {
		if middle := (low + high) / 2; UpperBound(bad, middle, l.Confidence) > l.BadRuns {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return high, true
}
