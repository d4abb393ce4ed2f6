package redisstore

import "time"

// For their fuzz targets.
var (
	ParseLatch   = parseLatch
	ParseStarted = parseStarted
	ParseOwner   = parseOwner
)

// SetClock puts the clock of the in-process Redis at now, which is later than
// before by passed.
func (p *InProcess) SetClock(now time.Time, passed time.Duration) {
	p.mini.SetTime(now)
	p.mini.FastForward(passed)
}
