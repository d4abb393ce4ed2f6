package redisstore

import "time"

// For their fuzz targets.
var (
	ParseLatch   = parseLatch
	ParseStarted = parseStarted
	ParseOwner   = parseOwner
	ParseRun     = parseRun
	ParseUse     = parseUse
	ParseFamily  = parseFamily
	FamilyMember = familyMember
	AddCount     = addCount
	ParseRefusal = parseRefusal
	RefusalField = refusalField
)

// Incurable tells what is lost from what passes.
var Incurable = incurable

// Damage puts a string into the in-process Redis.
func (p *InProcess) Damage(key string) { _ = p.mini.Set(key, "x") }

// SetClock puts the clock of the in-process Redis at now, which is later than
// before by passed. From the first call on the clock moves by SetClock only.
func (p *InProcess) SetClock(now time.Time, passed time.Duration) {
	p.stop()
	p.done.Wait()
	p.mini.SetTime(now)
	p.mini.FastForward(passed)
}

// CountAtMost makes the store count so many latches of a kind.
func (s *Store) CountAtMost(n int) { s.counted = n }
