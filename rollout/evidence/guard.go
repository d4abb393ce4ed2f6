package evidence

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// The rule of a Guard.
const (
	// GuardDays is how many days it looks at, the present one included.
	GuardDays = 14
	// GuardRuns is how many runs there must be.
	GuardRuns = 20
	// guardShare is of how many runs one may be bad, and of how many one may have
	// sent no token.
	guardShare = 100
	// RetireAfter is how long a team must have stood at 100 percent, and none of its
	// accounts used a static credential, before it is retired.
	RetireAfter = 14 * 24 * time.Hour
	// guardMemory is how long an answer is given again.
	guardMemory = 5 * time.Second
)

// Guard is a rollout.Guard by rate and count: of the runs of the last days there
// are enough, at most one of a hundred would break, and at most one of a hundred
// sent no token. An open security signal stops every raise. It knows neither the
// statistics nor the checks of readiness.
//
// It is safe for concurrent use, and remembers an answer for 5 s.
type Guard struct {
	store DailyReader
	now   func() time.Time

	mu    sync.Mutex
	known map[guardKey]guardAnswer
}

// DailyReader is what a Guard needs of a Store.
type DailyReader interface {
	Daily(ctx context.Context, team identity.Team, day Day) (Daily, error)
	Accounts(ctx context.Context, team identity.Team) (map[string]Use, error)
}

type guardKey struct {
	team  identity.Team
	since time.Time
}

type guardAnswer struct {
	rollout.Answer
	at time.Time
}

// NewGuard returns a guard on the evidence in a store; now is time.Now when nil.
func NewGuard(store DailyReader, now func() time.Time) (*Guard, error) {
	if store == nil {
		return nil, errors.New("guard rollouts: no store of evidence")
	}
	if now == nil {
		now = time.Now
	}
	return &Guard{store: store, now: now, known: make(map[guardKey]guardAnswer)}, nil
}

// MayRaise implements rollout.Guard.
func (g *Guard) MayRaise(ctx context.Context, s rollout.State, since time.Time) (rollout.Answer, error) {
	team := s.Team
	key, now := guardKey{team, since}, g.now()
	g.mu.Lock()
	known, ok := g.known[key]
	g.mu.Unlock()
	if ok && now.Sub(known.at) < guardMemory {
		return known.Answer, nil
	}
	var runs []Run
	day := DayOf(now)
	for range GuardDays {
		d, err := g.store.Daily(ctx, team, day)
		if err != nil {
			return rollout.Answer{}, err
		}
		for _, r := range d.Runs {
			if !r.First.Before(since) {
				runs = append(runs, r)
			}
		}
		if day = day.Before(); !day.End().After(since) {
			break
		}
	}
	answer := judge(runs)
	g.mu.Lock()
	defer g.mu.Unlock()
	for old, a := range g.known {
		if now.Sub(a.at) >= guardMemory {
			delete(g.known, old)
		}
	}
	g.known[key] = guardAnswer{answer, now}
	return answer, nil
}

// MayRetire implements rollout.Guard. A refused attempt with the right password
// is a use of it.
func (g *Guard) MayRetire(ctx context.Context, s rollout.State) (rollout.Answer, error) {
	accounts, err := g.store.Accounts(ctx, s.Team)
	if err != nil {
		return rollout.Answer{}, err
	}
	return mayRetire(s, accounts, g.now()), nil
}

// mayRetire is the rule of retirement. It is pure.
func mayRetire(s rollout.State, accounts map[string]Use, now time.Time) rollout.Answer {
	const day = 24 * time.Hour
	var last time.Time
	who := ""
	for account, u := range accounts {
		if u.Legacy.After(last) || u.Legacy.Equal(last) && account < who {
			last, who = u.Legacy, account
		}
	}
	stood := now.Sub(s.RaisedAt)
	switch {
	case s.Percent < rollout.Full || s.RaisedAt.IsZero():
		return rollout.Answer{Owner: identity.OwnerTeam, Why: fmt.Sprintf("the team is at %s%%, not at 100%%", s.Percent)}
	case stood < RetireAfter:
		return rollout.Answer{Owner: identity.OwnerTeam, Why: fmt.Sprintf("at 100%% for %d of %d days", int(stood/day), int(RetireAfter/day))}
	case now.Sub(last) < RetireAfter:
		return rollout.Answer{Owner: identity.OwnerTeam, Why: fmt.Sprintf("no password for %d of %d days: %s was the last to use one",
			int(now.Sub(last)/day), int(RetireAfter/day), who)}
	default:
		return rollout.Answer{UpTo: rollout.Full, Why: fmt.Sprintf("no password for %d days", int(RetireAfter/day))}
	}
}

// judge is the rule. It is pure.
func judge(runs []Run) rollout.Answer {
	var n, bad, silent, signals int
	worst := make(map[string]int) // by reason and account
	for _, r := range runs {
		switch {
		case r.Grade == Indeterminate, r.Grade == Clean && !r.Token:
			continue // says nothing: it could not be judged, or did nothing that could be
		case r.Grade > WouldBreak:
			signals++
			fallthrough
		case r.Grade.Bad():
			bad++
			worst[fmt.Sprintf("%s (%s)", r.Reason, r.Account)]++
		case r.Grade == NoToken:
			silent++
		}
		n++
	}
	switch {
	case signals > 0:
		return rollout.Answer{Owner: identity.OwnerSecurity, Signal: true, Why: fmt.Sprintf("%s of %s runs %s: %s",
			thousands(signals), thousands(n), plural(signals, "is a security signal", "are security signals"), most(worst))}
	case bad*guardShare > n:
		return rollout.Answer{Owner: identity.OwnerTeam, Why: fmt.Sprintf("%s of %s runs would break: %s", thousands(bad), thousands(n), most(worst))}
	case n > 0 && silent == n:
		return rollout.Answer{Owner: identity.OwnerTeam, Why: fmt.Sprintf("no tokens yet: 0 of %s runs sent one", thousands(n))}
	case silent*guardShare > n:
		return rollout.Answer{Owner: identity.OwnerTeam, Why: fmt.Sprintf("%s of %s runs sent no token", thousands(silent), thousands(n))}
	case n < GuardRuns:
		return rollout.Answer{Owner: identity.OwnerTeam, Why: fmt.Sprintf("%s of the %d runs that are needed", thousands(n), GuardRuns)}
	case bad > 0:
		return rollout.Answer{UpTo: rollout.Full, Why: fmt.Sprintf("%s runs, of which %s would break", thousands(n), thousands(bad))}
	default:
		return rollout.Answer{UpTo: rollout.Full, Why: thousands(n-silent) + " clean runs"}
	}
}

// most names what counts most often; of equals the first by name.
func most(by map[string]int) string {
	name, n := "", 0
	for what, times := range by {
		if times > n || times == n && what < name {
			name, n = what, times
		}
	}
	return name
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// thousands writes a number with commas.
func thousands(n int) string {
	text := strconv.Itoa(n)
	var b strings.Builder
	for i, digit := range text {
		if i > 0 && (len(text)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	return b.String()
}
