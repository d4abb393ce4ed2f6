package rollout

import "time"

// tellAgain is for how long at least the first reason of a trouble is the last one
// that is told: what a reason is that stays is known by then.
const tellAgain = 5 * time.Second

// Trouble says what is worth telling of one that lasts: that it begins, that it is
// over, and another reason of it after 5 s at the earliest, and each time after twice
// as long, so that a long one of many reasons is told of a few times. The zero value
// is no trouble. It is for one goroutine at a time.
type Trouble struct {
	text  string // what was told last
	began time.Time
	again time.Duration // after how long another reason may be told; 0 without a trouble
}

// Tell notes how it is at a time, nil is well, and reports whether to tell it.
func (t *Trouble) Tell(err error, now time.Time) bool {
	lasts := t.again > 0
	switch {
	case err == nil:
		*t = Trouble{}
		return lasts
	case !lasts:
		*t = Trouble{err.Error(), now, tellAgain}
	case err.Error() == t.text || now.Sub(t.began) < t.again:
		return false
	default:
		t.text, t.again = err.Error(), 2*now.Sub(t.began)
	}
	return true
}
