package readiness_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

const (
	// looks is how many days a team is looked at, lookBack how many its window has.
	looks    = 90
	lookBack = 14
	// seeds is how many teams are made up.
	seeds = 1000
)

// ramp is a team whose runs break by chance, one independent of the other, spread
// over three accounts with four pipelines each.
type ramp struct {
	seed uint64
	// clean and broken are how many runs there were between two noons.
	clean, broken [looks]int
}

func newRamp(seed uint64, aDay, breaks float64) *ramp {
	r := &ramp{seed: seed}
	rng := rand.New(rand.NewPCG(seed, 0))
	for d := range looks {
		r.clean[d], r.broken[d] = poisson(rng, aDay*(1-breaks)), poisson(rng, aDay*breaks)
	}
	return r
}

// window counts the runs of the window that ends at the noon after a day.
func (r *ramp) window(d int) (n, bad int) {
	for i := max(0, d-lookBack+1); i <= d; i++ {
		n, bad = n+r.clean[i]+r.broken[i], bad+r.broken[i]
	}
	return n, bad
}

// facts are what is known at the noon after a day. A day's runs are the same
// ones whenever it is looked at.
func (r *ramp) facts(d int) readiness.Facts {
	f := readiness.Facts{
		Team: "data-eng", Now: began.Add(time.Duration(d+1) * day), State: rollout.State{Team: "data-eng"}, Limits: readiness.DefaultLimits(),
		Days: make(map[evidence.Day]evidence.Daily), Since: began, Requests: 1_000_000,
	}
	for i := max(0, d-lookBack+1); i <= d; i++ {
		rng := rand.New(rand.NewPCG(r.seed, uint64(i+1)))
		for n := range r.clean[i] + r.broken[i] {
			p := rng.IntN(12)
			run := clean(fmt.Sprintf("svc-%d", p/4), fmt.Sprintf("Load%d", p))
			if n >= r.clean[i] {
				run.Grade, run.Reason = evidence.WouldBreak, identity.Expired
			}
			run.First = began.Add(time.Duration(i) * day).Add(time.Duration(rng.Int64N(int64(day))))
			of := evidence.DayOf(run.First)
			if _, ok := f.Days[of]; !ok {
				f.Days[of] = evidence.Daily{Runs: make(map[evidence.RunKey]evidence.Run)}
			}
			f.Days[of].Runs[evidence.RunKey{byte(n), byte(n >> 8), byte(i)}] = run
		}
	}
	return f
}

// screen tells from the numbers alone whether Judge might call a team ready: it
// saves making up the runs of the many days on which it cannot. That Judge says
// ready on no other day is a test of its own. It remembers how many of so many
// runs may be bad.
type screen map[int]int

func (s screen) promises(n, bad int) bool {
	l := readiness.DefaultLimits()
	bounded := l.Bounded()
	switch {
	case n < bounded && float64(n) >= float64(bounded)-3*math.Sqrt(float64(bounded)):
		return bad == 0
	case n < bounded:
		return true
	}
	few, ok := s[n]
	if !ok {
		few = sort.Search(n, func(bad int) bool { return readiness.UpperBound(bad, n, l.Confidence) > l.BadRuns })
		s[n] = few
	}
	return bad < few
}

// ready reports whether the team may be raised at the noon after a day.
func (r *ramp) ready(s screen, d int) bool {
	if !s.promises(r.window(d)) {
		return false
	}
	report := readiness.Judge(r.facts(d))
	return report.Answer == readiness.Ready && report.UpTo > report.Percent
}

// everReady reports whether it may on any day.
func (r *ramp) everReady(s screen) bool {
	for d := lookBack - 1; d < looks; d++ {
		if r.ready(s, d) {
			return true
		}
	}
	return false
}

func TestADayThatDoesNotPromiseIsNeverReady(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	ready := 0
	for i := range 60 {
		r := newRamp(uint64(i), []float64{30, 38, 40, 64}[i%4], []float64{0, 0.001, 0.002, 0.005, 0.0125}[i%5])
		d := lookBack - 1 + rng.IntN(looks-lookBack+1)
		report := readiness.Judge(r.facts(d))
		n, bad := r.window(d)
		if report.Runs != n || report.Bad != bad {
			t.Fatalf("Judge counts %d of %d runs, want %d of %d", report.Bad, report.Runs, bad, n)
		}
		if report.Answer == readiness.Ready {
			ready++
			if !make(screen).promises(n, bad) {
				t.Fatalf("with %d of %d runs bad the team is ready", bad, n)
			}
		}
	}
	if ready < 12 {
		t.Errorf("%d teams are ready: too few to show anything", ready)
	}
}

// TestATeamThatBreaksTooMuchIsHardlyEverReady: whoever looks every day for three
// months must not find a day on which chance alone makes a team ready whose true
// share of bad runs is a quarter above its limit.
func TestATeamThatBreaksTooMuchIsHardlyEverReady(t *testing.T) {
	const most = seeds / 20
	s := make(screen)
	breaks := 1.25 * readiness.DefaultLimits().BadRuns
	for _, windowful := range []float64{531, 560, 900, 1300, 5000} {
		t.Run(fmt.Sprint(windowful), func(t *testing.T) {
			ever := 0
			for seed := range uint64(seeds) {
				if newRamp(seed, windowful/lookBack, breaks).everReady(s) {
					ever++
				}
			}
			t.Logf("%d of %d teams were ready on some day", ever, seeds)
			if ever > most {
				t.Errorf("%d of %d teams were ready on some day, at most %d may", ever, seeds, most)
			}
		})
	}
}

// TestATeamThatBreaksNextToNothingIsReady is the other side: the checks let pass
// what they should.
func TestATeamThatBreaksNextToNothingIsReady(t *testing.T) {
	s := make(screen)
	t.Run("none of 600 runs a window, on day 15 at the latest", func(t *testing.T) {
		for seed := range uint64(25) {
			if r := newRamp(seed, 600.0/lookBack, 0); !r.ready(s, lookBack-1) && !r.ready(s, lookBack) {
				t.Errorf("team %d is not", seed)
			}
		}
	})
	t.Run("one of a thousand, of 1,300 runs a window, on most days", func(t *testing.T) {
		const teams, every = 6, 8
		ready, of := 0, 0
		for seed := range uint64(teams) {
			r := newRamp(seed, 1300.0/lookBack, 0.001)
			for d := lookBack; d < looks; d += every {
				if of++; r.ready(s, d) {
					ready++
				}
			}
		}
		t.Logf("ready on %d of %d days", ready, of)
		if 4*ready < 3*of {
			t.Errorf("ready on %d of %d days, want three quarters", ready, of)
		}
	})
}
