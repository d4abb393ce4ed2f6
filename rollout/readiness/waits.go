package readiness

import (
	"maps"
	"slices"
	"time"

	"crossfade/gateway/identity"
)

// until is how long it takes until the runs of the window are so that a check
// holds, if from now on only clean runs come, so many a day, and those of today
// leave the window in their turn. It is 0 if a whole window of them would not do.
func (t *tally) until(aDay float64, holds func(sums) bool) time.Duration {
	const steps = 20 // of the window, and then of one of them
	passed := passing{t, t.sums, 0}
	step := t.Limits.window() / steps
	for i := range time.Duration(steps) {
		from := passed
		if !holds(passed.after((i+1)*step, aDay)) {
			continue
		}
		for j := range time.Duration(steps) {
			if ahead := i*step + (j+1)*(step/steps); holds(from.after(ahead, aDay)) {
				return ahead
			}
		}
		return (i + 1) * step
	}
	return 0
}

// passing is the window as time passes.
type passing struct {
	*tally
	left sums
	next int
}

// after is what the window holds so long from now; each call is of a later time.
func (p *passing) after(ahead time.Duration, aDay float64) sums {
	for start := p.start.Add(ahead); p.next < len(p.runs) && p.runs[p.next].First.Before(start); p.next++ {
		if r := p.runs[p.next]; r.counts {
			p.left.add(r.class, -1)
		}
	}
	then := p.left
	then.clean += int(aDay * float64(ahead) / float64(day))
	return then
}

// better says of a check that bad runs keep from passing how long it takes until
// enough of them have left the window, or, while they go on, that somebody has to
// repair them, and who.
func (t *tally) better(c Check, holds func(sums) bool) Check {
	if !t.goOn() {
		c.Wait = t.until(t.judgedADay(), holds)
		return c
	}
	c.Blocks, c.Owner = true, t.mostly(broken)
	return c
}

// goOn reports whether bad runs still come: the last of them is not four times
// as long ago as they came apart. Of runs that go wrong at random one in fifty is
// followed by such a pause. Two are no rate.
func (t *tally) goOn() bool {
	var first, last time.Time
	for _, r := range t.runs {
		if r.counts && r.class == broken {
			if first.IsZero() {
				first = r.First
			}
			last = r.First
		}
	}
	return t.broken > 2 && t.Now.Sub(last) < 4*last.Sub(first)/time.Duration(t.broken-1)
}

// mostly is whose job most of the runs of a class are.
func (t *tally) mostly(c class) (most identity.Owner) {
	owners := make(map[identity.Owner]int)
	for _, r := range t.runs {
		if r.counts && r.class == c {
			owners[ownerOf(r.Reason)]++
		}
	}
	for _, owner := range slices.Sorted(maps.Keys(owners)) {
		if owners[owner] > owners[most] {
			most = owner
		}
	}
	return most
}

// judgedADay is how many runs a day enter the bound.
func (t *tally) judgedADay() float64 { return t.keptADay() * share(t.n(), t.all()) }

// over reports whether runs of a class have ceased: the last cycle had some that
// count, and none of it.
func (t *tally) over(c class) bool {
	seen := false
	for _, r := range t.runs {
		if !r.counts || r.First.Before(t.Now.Add(-t.Limits.Cycle)) {
			continue
		}
		if r.class == c {
			return false
		}
		seen = true
	}
	return seen
}
