// Package assess reads what is known of teams and says how ready they are: it is
// the edge of package readiness, which is pure, and the guard of the rollout.
package assess

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

// What was read of a team is taken for what there is for a while: pages and guards
// ask more often than evidence changes. The while is twenty times as long as the
// reading took, so that reading takes a twentieth of the time at most, within these
// bounds. Nor is it longer than a tenth of the window, in a demonstration where that
// is short: there answers would be about another time.
const (
	leastMemory  = 2 * time.Second
	mostMemory   = 30 * time.Second
	restPerRead  = 20
	windowMemory = 10
)

// usuallyLate is how late evidence may be that is in time: a batch is gathered for
// evidence.DefaultEvery, and as long may the one before it be on its way.
const usuallyLate = 2 * evidence.DefaultEvery

func memoryOf(took, window time.Duration) time.Duration {
	return min(max(restPerRead*took, leastMemory), mostMemory, max(window/windowMemory, leastMemory))
}

// Settings are what the configuration says of a team; see readiness.Facts.
type Settings struct {
	Limits   readiness.Limits
	Fixed    []readiness.Fix
	Waivers  []readiness.Waiver
	Accounts map[string]readiness.Account
	Config   func(account string) string
	// Entered says which account and team an entry makes today of an account that had
	// none when it was seen, by the name that it had then; ok is false if none does.
	// Nil for who does not know that.
	Entered func(account string) (name string, team identity.Team, ok bool)
}

// Store is what evidence is read from; an evidence.Store is one.
type Store interface {
	Daily(ctx context.Context, team identity.Team, day evidence.Day) (evidence.Daily, error)
	Accounts(ctx context.Context, team identity.Team) (map[string]evidence.Use, error)
	Families(ctx context.Context, team identity.Team) (map[evidence.Family]evidence.FamilyUse, error)
	Since(ctx context.Context, team identity.Team) (time.Time, error)
	Gaps(ctx context.Context, since time.Time) ([]evidence.Gap, error)
}

// Options are the options of New.
type Options struct {
	// Store holds the evidence. Required.
	Store Store
	// Settings returns what the configuration in force says of a team. Required.
	Settings func(team identity.Team) Settings
	// Keying is what runs are bucketed by.
	Keying rollout.Keying
	// Skewed reports whether gateways serve by configurations that differ; nil for
	// never.
	Skewed func(ctx context.Context) (bool, error)
	// Late returns how late what gateways observe of a team is recorded by now; nil for
	// at once.
	Late func(ctx context.Context, team identity.Team) (time.Duration, error)
	// Now is the clock, time.Now by default.
	Now func() time.Time
}

// Assessor says how ready teams are. It is safe for concurrent use.
type Assessor struct {
	o Options

	mu    sync.Mutex
	known map[identity.Team]known
	fleet fleetKnown
}

// known is what was read of a team.
type known struct {
	at     time.Time
	memory time.Duration
	window time.Duration
	facts  readiness.Facts // of which Until is set
}

// fleetKnown is what was read of all teams together.
type fleetKnown struct {
	at         time.Time
	memory     time.Duration
	gaps       []evidence.Gap
	unassigned map[string]evidence.Use
	// away tells that unassigned cannot be read.
	away bool
}

// New returns an assessor.
func New(o Options) (*Assessor, error) {
	if o.Store == nil || o.Settings == nil {
		return nil, errors.New("assess readiness: a store and settings are needed")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Skewed == nil {
		o.Skewed = func(context.Context) (bool, error) { return false, nil }
	}
	if o.Late == nil {
		o.Late = func(context.Context, identity.Team) (time.Duration, error) { return 0, nil }
	}
	return &Assessor{o: o, known: make(map[identity.Team]known)}, nil
}

// Report says how ready a team is in a state, which is the live one or what it
// would be. Errors match rollout.ErrUnavailable.
func (a *Assessor) Report(ctx context.Context, s rollout.State) (readiness.Report, error) {
	return a.report(ctx, s, time.Time{}, false)
}

// Fresh is Report by what is read now, whatever was read a moment ago. It is not
// remembered: who looks again and again by himself leaves it to the others how old
// what they are told is.
func (a *Assessor) Fresh(ctx context.Context, s rollout.State) (readiness.Report, error) {
	return a.report(ctx, s, time.Time{}, true)
}

func (a *Assessor) report(ctx context.Context, s rollout.State, younger time.Time, fresh bool) (readiness.Report, error) {
	facts, err := a.facts(ctx, s.Team, fresh)
	if err != nil {
		return readiness.Report{}, err
	}
	facts.State, facts.Younger = s, younger
	r := readiness.Judge(facts)
	// The last full day, or what there is of the present one.
	for _, d := range []evidence.Day{evidence.DayOf(facts.Now).Before(), evidence.DayOf(facts.Now)} {
		if r.InEffect = effect.Effective(d, facts.Days[d], s, a.o.Keying); r.InEffect.Runs > 0 {
			break
		}
	}
	return r, nil
}

// Day is how a team's runs of one day went.
type Day struct {
	Day evidence.Day
	// Runs is how many of that day are kept, see evidence.MaxRuns, and Broken how
	// many of them would break by OIDC or are security signals.
	Runs, Broken int
}

// Days returns how the last days of a team went, the present one last and at most
// as many as the window has. It reads what Report reads, and no more than once
// for both. Errors match rollout.ErrUnavailable.
func (a *Assessor) Days(ctx context.Context, team identity.Team, most int) ([]Day, error) {
	facts, err := a.facts(ctx, team, false)
	if err != nil {
		return nil, err
	}
	var days []Day
	for d := evidence.DayOf(facts.Now); len(days) < most; d = d.Before() {
		daily, ok := facts.Days[d]
		if !ok {
			break
		}
		day := Day{Day: d, Runs: len(daily.Runs)}
		for _, run := range daily.Runs {
			if run.Grade.Bad() {
				day.Broken++
			}
		}
		days = append(days, day)
	}
	slices.Reverse(days)
	return days, nil
}

// facts returns what is known of a team but for its state. Two that ask at once
// about the same team may both read it.
func (a *Assessor) facts(ctx context.Context, team identity.Team, fresh bool) (readiness.Facts, error) {
	now := a.o.Now()
	settings := a.o.Settings(team)
	window := max(settings.Limits.Window, settings.Limits.Cycle)
	a.mu.Lock()
	k, ok := a.known[team]
	a.mu.Unlock()
	if fresh || !ok || k.window != window || now.Sub(k.at) >= k.memory || now.Before(k.at) {
		began := time.Now()
		var err error
		if k, err = a.read(ctx, team, window, settings, now, fresh); err != nil {
			return readiness.Facts{}, fmt.Errorf("evidence of team %q: %w", string(team), err)
		}
		k.memory = memoryOf(time.Since(began), window)
		if !fresh {
			a.remember(team, k, now)
		}
	}
	f := k.facts
	f.Now, f.Limits = now, settings.Limits
	f.Fixed, f.Waivers, f.Accounts = settings.Fixed, settings.Waivers, settings.Accounts
	f.Config, f.Key = settings.Config, a.o.Keying.Key()
	var err error
	f.Skewed, err = a.o.Skewed(ctx)
	return f, err
}

// remember keeps what was read of a team, and forgets what is old.
func (a *Assessor) remember(team identity.Team, k known, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for old, was := range a.known {
		if now.Sub(was.at) >= was.memory {
			delete(a.known, old)
		}
	}
	a.known[team] = k
}

// read reads what there is of a team.
func (a *Assessor) read(ctx context.Context, team identity.Team, window time.Duration, settings Settings, now time.Time, fresh bool) (known, error) {
	late, err := a.o.Late(ctx, team) // before anything is read, which may come in meanwhile
	if err != nil {
		return known{}, err
	}
	if late <= usuallyLate {
		late = 0
	}
	f := readiness.Facts{Team: team, Until: now.Add(-min(late, evidence.RunRetention)), Days: make(map[evidence.Day]evidence.Daily)}
	start := f.Until.Add(-window)
	for _, d := range daysOf(start, now) {
		if f.Days[d], err = a.o.Store.Daily(ctx, team, d); err != nil {
			return known{}, err
		}
		day := f.Days[d]
		f.Requests += day.Requests()
	}
	if f.Uses, err = a.o.Store.Accounts(ctx, team); err != nil {
		return known{}, err
	}
	if f.Families, err = a.o.Store.Families(ctx, team); err != nil {
		return known{}, err
	}
	if f.Since, err = a.o.Store.Since(ctx, team); err != nil {
		return known{}, err
	}
	fleet, err := a.readFleet(ctx, now, fresh)
	if err != nil {
		return known{}, err
	}
	f.Missing, f.Unwatched = evidence.Losses(fleet.gaps, team, start, now)
	f.UnassignedAway = fleet.away
	back := now.Add(-max(settings.Limits.RetireAfter, 2*settings.Limits.Cycle))
	for name, use := range fleet.unassigned {
		as, of, entered := entered(settings, name)
		switch {
		case entered && of == team:
			// What it did before it had an entry is what an account of this team did.
			if f.Uses == nil {
				f.Uses = make(map[string]evidence.Use)
			}
			f.Uses[as] = f.Uses[as].Merge(evidence.Use{Legacy: use.Legacy, Run: use.Run, Page: use.Page})
		case entered && team == identity.Unassigned:
			delete(f.Uses, name)
		case !entered && use.Legacy.After(back):
			f.Unassigned = append(f.Unassigned, name)
		}
	}
	slices.Sort(f.Unassigned)
	return known{at: now, window: window, facts: f}, nil
}

// entered is Settings.Entered.
func entered(s Settings, account string) (name string, team identity.Team, ok bool) {
	if s.Entered == nil {
		return "", "", false
	}
	return s.Entered(account)
}

const (
	// fleetBack is how far back losses are read: no window is longer.
	fleetBack = evidence.RunRetention
	// unassignedTimeout bounds the reading of the accounts of nobody, half of what a
	// guard is waited for (package reconcile).
	unassignedTimeout = time.Second
)

// readFleet reads what all teams have in common.
func (a *Assessor) readFleet(ctx context.Context, now time.Time, fresh bool) (fleetKnown, error) {
	a.mu.Lock()
	was := a.fleet
	a.mu.Unlock()
	if !fresh && !was.at.IsZero() && now.Sub(was.at) < was.memory && !now.Before(was.at) {
		return was, nil
	}
	began := time.Now()
	is := fleetKnown{at: now}
	var err error
	if is.gaps, err = a.o.Store.Gaps(ctx, now.Add(-fleetBack)); err != nil {
		return fleetKnown{}, err
	}
	// They are kept as those of a team are, so in a cluster their node may be away while
	// all else is there: that is in the way of retirements only.
	bounded, cancel := context.WithTimeout(ctx, unassignedTimeout)
	defer cancel()
	is.unassigned, err = a.o.Store.Accounts(bounded, identity.Unassigned)
	switch is.away = err != nil; {
	case err == nil:
	case ctx.Err() != nil || !errors.Is(err, rollout.ErrUnavailable):
		return fleetKnown{}, err
	}
	is.memory = memoryOf(time.Since(began), fleetBack)
	if !fresh {
		a.mu.Lock()
		a.fleet = is
		a.mu.Unlock()
	}
	return is, nil
}

// daysOf are the days that a time up to now touches, the last first.
func daysOf(start, now time.Time) []evidence.Day {
	var days []evidence.Day
	for d := evidence.DayOf(now); d.End().After(start); d = d.Before() {
		days = append(days, d)
	}
	return days
}
