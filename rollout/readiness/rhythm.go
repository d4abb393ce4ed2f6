package readiness

import (
	"math"
	"time"
)

// rhythm is how often and on how many days an account and pipeline was seen, and
// on how many it was clean since it last failed.
type rhythm struct {
	runs, seen, clean   int
	lastSeen, lastClean int64 // days of UTC since 1970
	first, last         time.Time
}

// rhythms are those of each account and pipeline of the window.
func (t *tally) rhythms() map[pair]*rhythm {
	rhythms := make(map[pair]*rhythm)
	for _, r := range t.runs { // the oldest first
		if r.class == silent {
			continue
		}
		p := rhythms[r.pair]
		if p == nil {
			p = &rhythm{lastSeen: math.MinInt64, lastClean: math.MinInt64, first: r.First}
			rhythms[r.pair] = p
		}
		on := dayNumber(r.First)
		p.runs, p.last = p.runs+1, r.First
		if on != p.lastSeen {
			p.seen, p.lastSeen = p.seen+1, on
		}
		switch {
		case !r.counts:
		case r.class == broken:
			p.clean, p.lastClean = 0, math.MinInt64
		case r.class == clean && on != p.lastClean:
			p.clean, p.lastClean = p.clean+1, on
		}
	}
	return rhythms
}

// until is how long it takes until it was clean on so many days, if it goes on as
// often as it did; ok is false of what was seen on one day only.
func (p *rhythm) until(need int, now time.Time) (wait time.Duration, ok bool) {
	if p.seen < 2 {
		return 0, false
	}
	between := p.last.Sub(p.first) / time.Duration(p.seen-1)
	if between < 36*time.Hour { // daily, or more often
		between = p.last.Sub(p.first) / time.Duration(p.runs-1)
	}
	at, on := p.last, p.lastClean
	for range max(0, need-p.clean) {
		if at = at.Add(between); at.Before(now) {
			at = now
		}
		if dayNumber(at) <= on { // the first one of the next day
			at = time.Unix((on+1)*secondsADay, 0)
		}
		on = dayNumber(at)
	}
	return max(0, at.Sub(now)), true
}

const secondsADay = 24 * 60 * 60

// dayNumber counts the days of UTC from 1970.
func dayNumber(at time.Time) int64 { return at.Unix() / secondsADay }

// untilAll is how long it takes until each pipeline that has not run again has; 0
// if that cannot be told of one.
func (t *tally) untilAll(pipelines map[pair]coverage) (wait time.Duration) {
	for p, r := range t.rhythms() {
		if pipelines[p] != notAgain {
			continue
		}
		next, ok := r.until(1, t.Now)
		if !ok {
			return 0
		}
		wait = max(wait, next)
	}
	return wait
}

// untilAny is how long it takes until one of them runs; 0 if that cannot be told.
func (t *tally) untilAny() time.Duration {
	soonest, known := time.Duration(0), false
	for _, r := range t.rhythms() {
		if next, ok := r.until(1, t.Now); ok && (!known || next < soonest) {
			soonest, known = next, true
		}
	}
	return soonest
}
