package readiness_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"crossfade/rollout/readiness"
)

// The figures are those of published tables: the rule of three and its exact
// form, 1 - (1 - confidence)^(1/n), for none bad; the one-sided 97.5% bounds of
// the two-sided 95% intervals that textbooks print (for instance 1 of 10: 0.0025
// to 0.4450, 5 of 20: 0.0866 to 0.4910, 10 of 100: 0.0490 to 0.1762); and the
// one-sided 95% bounds of reliability tables (1 of 59: 0.0778, 0 of 59: 0.0495).
func TestUpperBoundAgreesWithPublishedTables(t *testing.T) {
	for _, row := range []struct {
		name       string
		bad, n     int
		confidence float64
		want       float64
	}{
		{"none of 10, 97.5%", 0, 10, 0.975, 0.3085},
		{"one of 10, 97.5%", 1, 10, 0.975, 0.4450},
		{"five of 20, 97.5%", 5, 20, 0.975, 0.4910},
		{"ten of 100, 97.5%", 10, 100, 0.975, 0.1762},
		{"none of 100, 97.5%", 0, 100, 0.975, 0.0362},
		{"none of 59, 95%", 0, 59, 0.95, 0.0495},
		{"none of 299, 95%", 0, 299, 0.95, 0.00997},
		{"none of 1,240, 99.5%", 0, 1240, 0.995, 0.00426},
		{"none of 530, 99.5%", 0, 530, 0.995, 0.00995},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := readiness.UpperBound(row.bad, row.n, row.confidence); math.Abs(got-row.want) > 0.5e-4 {
				t.Errorf("UpperBound(%d, %d, %g) = %.5f, want %.4f", row.bad, row.n, row.confidence, got, row.want)
			}
		})
	}
}

func TestUpperBoundOfNothingKnownIsAll(t *testing.T) {
	for _, row := range [][2]int{{0, 0}, {3, 3}, {5, 3}, {-1, 10}, {0, -1}} {
		if got := readiness.UpperBound(row[0], row[1], 0.995); got != 1 {
			t.Errorf("UpperBound(%d, %d) = %g, want 1", row[0], row[1], got)
		}
	}
}

// TestUpperBoundCovers looks at the definition itself: under a share that is the
// bound, seeing as few as were seen is exactly as unlikely as the confidence says.
func TestUpperBoundCovers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 3000).Draw(t, "n")
		bad := rapid.IntRange(0, min(n-1, 40)).Draw(t, "bad")
		confidence := rapid.Float64Range(0.9, 0.999).Draw(t, "confidence")
		bound := readiness.UpperBound(bad, n, confidence)
		// The binomial distribution, term by term.
		sum := 0.0
		for k := range bad + 1 {
			sum += math.Exp(choose(n, k) + float64(k)*math.Log(bound) + float64(n-k)*math.Log1p(-bound))
		}
		if math.Abs(sum-(1-confidence)) > 1e-6 {
			t.Fatalf("P(at most %d of %d | %g) = %g, want %g", bad, n, bound, sum, 1-confidence)
		}
		if more := readiness.UpperBound(bad+1, n+1, confidence); more <= bound {
			t.Fatalf("one more bad run lowers the bound from %g to %g", bound, more)
		}
		if more := readiness.UpperBound(bad, n+1, confidence); more >= bound {
			t.Fatalf("one more clean run raises the bound from %g to %g", bound, more)
		}
	})
}

// choose is the logarithm of the binomial coefficient.
func choose(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}

func TestBoundedIsWhereNoneBadSatisfiesTheLimit(t *testing.T) {
	l := readiness.DefaultLimits()
	if got := l.Bounded(); got != 530 {
		t.Errorf("Bounded() = %d, want 530", got)
	}
	l.BadRuns = 0.002
	n := l.Bounded()
	if u := readiness.UpperBound(0, n, l.Confidence); u > l.BadRuns {
		t.Errorf("none of %d bounds by %g, above the limit %g", n, u, l.BadRuns)
	}
	if u := readiness.UpperBound(0, n-20, l.Confidence); u <= l.BadRuns {
		t.Errorf("none of %d already satisfies the limit", n-20)
	}
}

func TestATeamCanOnlyMakeItsLimitsStricter(t *testing.T) {
	d := readiness.DefaultLimits()
	if got := d.Stricter(readiness.Limits{}); got != d {
		t.Errorf("nothing set changes the limits: %+v", got)
	}
	looser := readiness.Limits{
		Cycle: d.Cycle / 2, Window: d.Window / 2, Missing: d.Missing * 2, Tokens: d.Tokens / 2, CleanAfter: 1, BadRuns: 0.5, Confidence: 0.5,
		BrokenADay: 100, CensusDays: 1, Indeterminate: 0.5, SoakRuns: 1, RetireAfter: 1,
	}
	if got := d.Stricter(looser); got != d {
		t.Errorf("looser limits change the limits: %+v", got)
	}
	stricter := readiness.Limits{
		Cycle: d.Cycle * 2, Window: d.Window * 2, Missing: d.Missing / 2, Tokens: 1, CleanAfter: 10, BadRuns: 0.001, Confidence: 0.999,
		BrokenADay: 0.1, CensusDays: 5, Indeterminate: 0.001, SoakRuns: 100, RetireAfter: d.RetireAfter * 2,
	}
	if got := d.Stricter(stricter); got != stricter {
		t.Errorf("Stricter() = %+v, want all of %+v", got, stricter)
	}
}
