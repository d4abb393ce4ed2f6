package throttle

import (
	"slices"
	"time"

	"crossfade/gateway/identity"
)

// rate lets burst failures through at once and then one each every: the generic
// cell rate algorithm (ITU-T I.371, annex A), whose whole state is one time.
type rate struct {
	burst int
	every time.Duration
}

// spend takes one failure out of the budget that is whole again at full. It
// returns when it will be whole then, or how long to wait for one failure, and
// full as it was.
func (r rate) spend(full, now time.Time) (next time.Time, wait time.Duration) {
	next = r.charge(full, now)
	if wait = next.Sub(now) - time.Duration(r.burst)*r.every; wait > 0 {
		return full, wait
	}
	return next, 0
}

// charge takes one failure out of the budget, whether it is there or not.
func (r rate) charge(full, now time.Time) time.Time {
	if full.Before(now) {
		full = now
	}
	return full.Add(r.every)
}

// maxTried is how many secrets of a suspect are remembered. It is more than the
// default burst, so that who is over the limit has all of its own remembered.
const maxTried = 16

// secretDigest is the beginning of an HMAC of a secret.
type secretDigest [16]byte

// attempt is one secret that was tried.
type attempt struct {
	digest secretDigest
	// verdict is why it is wrong; nil while it is being judged.
	verdict *identity.Authentication
}

// suspect is what is remembered of one address and user.
type suspect struct {
	full  time.Time // when the budget is whole again
	tried []attempt // at most maxTried; the oldest at next, once there are so many
	next  int
}

// try says what becomes of a secret: known, if it was found wrong before; a
// wait, if it is new and over the limit; else neither, and it may be judged.
// A secret that is being judged is paid for already.
func (s *suspect) try(r rate, d secretDigest, now time.Time) (known *identity.Authentication, wait time.Duration) {
	if i := s.find(d); i >= 0 {
		return s.tried[i].verdict, 0
	}
	if s.full, wait = r.spend(s.full, now); wait > 0 {
		return nil, wait
	}
	s.remember(attempt{digest: d})
	return nil, 0
}

// failed notes that a secret is wrong. One that try has paid for and somebody
// has forgiven or forgotten since is paid for now.
func (s *suspect) failed(r rate, d secretDigest, verdict *identity.Authentication, now time.Time) {
	if i := s.find(d); i >= 0 {
		s.tried[i].verdict = verdict
		return
	}
	s.full = r.charge(s.full, now)
	s.remember(attempt{d, verdict})
}

// forgive gives back what try took for a secret that is not wrong.
func (s *suspect) forgive(r rate, d secretDigest) {
	i := s.find(d)
	if i < 0 || s.tried[i].verdict != nil {
		return
	}
	s.full = s.full.Add(-r.every)
	oldestFirst := slices.Concat(s.tried[s.next:], s.tried[:s.next])
	s.tried = slices.DeleteFunc(oldestFirst, func(a attempt) bool { return a.digest == d })
	s.next = 0
}

// clean reports whether there is nothing to remember.
func (s *suspect) clean(now time.Time) bool { return len(s.tried) == 0 && !s.full.After(now) }

func (s *suspect) find(d secretDigest) int {
	return slices.IndexFunc(s.tried, func(a attempt) bool { return a.digest == d })
}

func (s *suspect) remember(a attempt) {
	if len(s.tried) < maxTried {
		s.tried = append(s.tried, a)
		return
	}
	s.tried[s.next] = a
	s.next = (s.next + 1) % maxTried
}
