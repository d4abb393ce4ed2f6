package evidence

import (
	"fmt"
	"maps"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"crossfade/gateway/identity"
)

const (
	// maxNew is how many runs of an account wait for the store at once, and how
	// many bad ones beyond those; the others are counted as not kept.
	maxNew, maxNewBad = 500, 1000
	// sentEvery is how often a run is recorded of which nothing is new but that
	// it is alive.
	sentEvery = time.Minute
	// maxAccounts bounds the accounts of a team in a batch.
	maxAccounts = 10_000
)

// folder folds observations into a batch. One goroutine uses it.
type folder struct {
	batch   Batch
	maxRuns int
	runs    int // in batch
	// held are the teams whose parts stay when a batch is taken, since an earlier one
	// of each waits for the store; heldRuns is how many runs are in them.
	held     map[identity.Team]bool
	heldRuns int
	fresh    map[accountKey]int
	seen     *lru.Cache[runID, *seenRun]

	day      Day
	dayBegin int64 // Unix day of day
}

type accountKey struct {
	team    identity.Team
	account string
}

type runID struct {
	team identity.Team
	key  RunKey
}

// seenRun is what this replica remembers of a run, which is sent again whole
// when something about it is new: merging it twice changes nothing.
type seenRun struct {
	day  Day
	run  Run
	sent Run // as it was last in a batch; zero if it was in none
}

func newFolder(replica string, maxRuns int) (*folder, error) {
	seen, err := lru.New[runID, *seenRun](maxRuns)
	if err != nil {
		return nil, fmt.Errorf("record evidence: %w", err)
	}
	f := &folder{maxRuns: maxRuns, seen: seen, fresh: make(map[accountKey]int)}
	f.batch = Batch{Replica: replica, Seq: 1, From: time.Now(), Teams: make(map[identity.Team]*TeamBatch)}
	return f, nil
}

// take returns what was folded and begins anew, but for the teams that are held:
// what is folded of them stays.
func (f *folder) take(now time.Time, held map[identity.Team]bool) Batch {
	b := f.batch
	b.To = now
	f.batch = Batch{Replica: b.Replica, Seq: b.Seq + 1, From: now, Teams: make(map[identity.Team]*TeamBatch)}
	f.runs, f.heldRuns, f.held = 0, 0, held
	for team := range held {
		part := b.Teams[team]
		if part == nil {
			continue
		}
		if part.From.IsZero() {
			part.From = b.From
		}
		f.batch.Teams[team] = part
		f.heldRuns += part.runs
		delete(b.Teams, team)
	}
	f.runs = f.heldRuns
	maps.DeleteFunc(f.fresh, func(k accountKey, _ int) bool { return f.batch.Teams[k.team] == nil })
	return b
}

// part is what is folded of a team.
func (f *folder) part(team identity.Team) *TeamBatch {
	t := f.batch.Teams[team]
	if t == nil {
		t = &TeamBatch{Days: make(map[Day]*Daily, 1), Accounts: make(map[string]Use), Families: make(map[Family]FamilyUse)}
		f.batch.Teams[team] = t
	}
	return t
}

// lose notes that there was no room for observations of a team.
func (f *folder) lose(team identity.Team, n int64) { f.part(team).Lost += n }

// add folds one observation in. It reports false if there was no room for its
// run.
func (f *folder) add(o *Observation) bool {
	team := f.part(o.Team)
	today := f.dayOf(o.At)
	daily := team.daily(today)
	daily.Counts[Count{o.Verdict, o.Reason, o.Source}]++
	daily.Schemes[o.Scheme]++
	if r := o.WouldRefuse; r.Reason != "" {
		r.Pipeline = ""
		if r.Account != "" && r.Account == o.Account { // else it is what a stranger says
			r.Pipeline = o.Pipeline
		}
		daily.refuse(r, time.UnixMilli(o.At.UnixMilli()).UTC())
	}
	if o.Account == "" {
		return true
	}
	at := time.UnixMilli(o.At.UnixMilli()).UTC()
	team.use(o, at)
	if o.Run == "" && !o.DayRun {
		return true
	}
	return f.run(team, o, today, at)
}

// dayOf is DayOf with a memory: nearly all are of the same day.
func (f *folder) dayOf(t time.Time) Day {
	const seconds = 24 * 60 * 60
	if n := t.Unix() / seconds; n != f.dayBegin || f.day == "" {
		f.day, f.dayBegin = DayOf(t), n
	}
	return f.day
}

func (t *TeamBatch) daily(day Day) *Daily {
	d := t.Days[day]
	if d == nil {
		d = &Daily{Counts: make(map[Count]int64), Schemes: make(map[identity.Scheme]int64), Runs: make(map[RunKey]Run)}
		t.Days[day] = d
	}
	return d
}

// use notes when the account and the family were used. What is new beyond the
// bounds is left out: it is no loss of what requests were worth.
func (t *TeamBatch) use(o *Observation, at time.Time) {
	var u Use
	if o.Legacy {
		u.Legacy = at
	}
	if o.Token {
		u.Token = at
	}
	t.Since = earliest(t.Since, at)
	if o.Grade >= NoToken {
		u.Failed, u.Reason = at, o.Reason
	}
	run := o.Run != "" || o.DayRun
	if run {
		u.Run = at
	} else {
		u.Page = at
	}
	if known, ok := t.Accounts[o.Account]; ok || len(t.Accounts) < maxAccounts {
		t.Accounts[o.Account] = known.Merge(u)
	}
	if o.Family == "" || !run {
		return
	}
	family := Family{o.Account, o.Family}
	if known, ok := t.Families[family]; ok || len(t.Families) < MaxFamilies {
		used := FamilyUse{Last: at}
		if o.Grade == Clean && o.Token {
			used.Clean = at
		}
		t.Families[family] = known.Merge(used)
	}
}

// run notes what the request says about its run.
func (f *folder) run(team *TeamBatch, o *Observation, today Day, at time.Time) bool {
	name := o.Run
	if o.DayRun {
		name = string(today)
	}
	id := runID{o.Team, NewRunKey(o.Account, name)}
	is := runOf(o, at)
	s, ok := f.seen.Get(id)
	if !ok || s.day != today && !is.Continues(s.run) {
		s = &seenRun{day: today}
		f.seen.Add(id, s)
	}
	detail, failure := s.run.Detail, s.run.Failure.Detail
	s.run = s.run.Merge(is)
	if s.run.Detail != detail {
		s.run.Detail = strings.Clone(s.run.Detail) // not to keep alive what it was cut from
	}
	if s.run.Failure.Detail != failure {
		s.run.Failure.Detail = strings.Clone(s.run.Failure.Detail)
	}
	if !s.due() {
		return true
	}
	if there := team.Days[s.day].knows(id.key); !there {
		account := accountKey{o.Team, o.Account}
		limit := maxNew
		if s.run.Failed() {
			limit += maxNewBad
		}
		if f.fresh[account] >= limit {
			if s.sent.First.IsZero() {
				team.daily(s.day).Unkept++
			}
			return true
		}
		held := f.held[o.Team]
		if f.runs >= f.maxRuns || held && f.heldRuns >= f.maxRuns/2 { // half is for those that do not wait
			return false
		}
		f.fresh[account]++
		f.runs++
		team.runs++
		if held {
			f.heldRuns++
		}
	}
	team.daily(s.day).Runs[id.key], s.sent = s.run, s.run
	return true
}

func (d *Daily) knows(key RunKey) (ok bool) {
	if d != nil {
		_, ok = d.Runs[key]
	}
	return ok
}

// runOf is the run as far as one request tells.
func runOf(o *Observation, at time.Time) Run {
	r := Run{
		Account: o.Account, Pipeline: o.Pipeline, Grade: o.Grade, Reason: o.Reason, TraceID: o.TraceID, Worst: at,
		First: at, Last: at, Legacy: o.Legacy, Token: o.Token, Enforced: o.Enforced, Refused: o.Refused, Brownout: o.Brownout,
		Detail: o.Detail, Observed: o.Observed, Config: o.Config, Broke: o.Grade == WouldBreak, Tokenless: o.Grade == NoToken, Unjudged: o.Grade == Indeterminate,
	}
	if o.Enforced && !o.Brownout {
		r.EnforcedFrom = at
		if o.Refused && o.Legacy { // each of this one request
			r.LockedOut = at
		}
	}
	if !o.TokenExpiry.IsZero() {
		r.FirstExpiry = time.Unix(o.TokenExpiry.Unix(), 0).UTC()
		r.LastExpiry = r.FirstExpiry
	}
	return r
}

// due reports whether the store should hear of the run.
func (s *seenRun) due() bool {
	was, is := s.sent, s.run
	is.Last = was.Last // alone it is no news
	return was != is || s.run.Last.Sub(was.Last) >= sentEvery
}
