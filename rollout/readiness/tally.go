package readiness

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
)

// class is what a run says about the cutover.
type class uint8

const (
	// silent runs did nothing that could be judged, and are left out.
	silent class = iota
	unjudged
	tokenless
	clean
	broken
)

// classOf says what a run is for the numbers.
func classOf(r evidence.Run) class {
	switch {
	case r.Grade.Bad():
		return broken
	case r.Grade == evidence.NoToken:
		return tokenless
	case r.Grade == evidence.Indeterminate:
		return unjudged
	case r.Token:
		return clean
	default:
		return silent
	}
}

// pair is an account and a pipeline.
type pair struct{ account, pipeline string }

func (p pair) String() string {
	if p.pipeline == "" {
		return p.account
	}
	return p.account + " / " + p.pipeline
}

func (p pair) compare(o pair) int {
	return cmp.Or(cmp.Compare(p.account, o.account), cmp.Compare(p.pipeline, o.pipeline))
}

// judgedRun is a run of the window, as it is without what is waived of it.
type judgedRun struct {
	evidence.Run
	// signals are its security signals, waived or not.
	signals []signal
	key     evidence.RunKey
	day     evidence.Day
	unix    int64 // when it started, in whole seconds, to compare fast
	class   class
	pair    pair
	// stale tells that it is of another configuration.
	stale bool
	// counts tells that it is of what counts: gathered under the running
	// configuration, young enough, and not left out by a record of a repair.
	counts bool
}

// signal is a security signal with what may be told of it.
type signal struct {
	evidence.Signal
	detail string
}

// signalsOf returns the security signals of a run.
func signalsOf(r evidence.Run) (all []signal) {
	if !r.Grade.Signal() {
		return nil
	}
	for _, s := range r.Signals().All() {
		of := signal{Signal: s}
		if s.Grade == r.Grade && s.Reason == r.Reason {
			of.detail = r.Detail
		}
		all = append(all, of)
	}
	return all
}

// failure is the request of a run whose token would not have been let in; ok is false
// if there was none. One that an older gateway recorded beside a signal has no reason,
// and is not told.
func (r *judgedRun) failure() (f evidence.Failure, ok bool) {
	if r.Grade == evidence.WouldBreak {
		f = evidence.Failure{Reason: r.Reason, Detail: r.Detail, TraceID: r.TraceID, At: r.at()}
		return f, f.Reason != "" || !r.worstUnknown()
	}
	return r.Failure, r.Failure.Reason != ""
}

// worstUnknown reports whether nobody knows which of its requests went wrong.
func (r *judgedRun) worstUnknown() bool { return len(r.signals) > 0 && r.Worst.IsZero() }

// tally is what the checks count on.
type tally struct {
	Facts           // of which Now is no later than Until
	start time.Time // of the window
	end   time.Time // of what is known, which the window may not reach
	// runs are those of the window that say something, the oldest first; of those
	// that do not, only soaking cares.
	runs  []*judgedRun
	fixes map[pair][]repair
	// changed has the accounts with runs of another configuration in the window: since
	// when there are runs under the running one, zero for not yet.
	changed map[string]time.Time
	stale   int // of another configuration
	unkept  float64
	kept    int     // that say something, whether they count or not
	sums            // of the runs that count
	days    float64 // of the window that were watched
}

// sums are how many runs there are of each class.
type sums struct{ clean, broken, tokenless, unjudged int }

// n is how many runs could be judged, all how many there are.
func (s sums) n() int   { return s.clean + s.broken }
func (s sums) all() int { return s.n() + s.tokenless + s.unjudged }

func (s *sums) add(c class, n int) {
	switch c {
	case clean:
		s.clean += n
	case broken:
		s.broken += n
	case tokenless:
		s.tokenless += n
	case unjudged:
		s.unjudged += n
	}
}

// aDay is how many runs there are a day, the kept and the others; keptADay
// leaves the others out, which never enter a number but that of the runs a day.
func (t *tally) aDay() float64     { return (float64(t.kept) + t.unkept) / t.days }
func (t *tally) keptADay() float64 { return float64(t.kept) / t.days }

// newTally counts what there is. The window ends where the evidence does: if it
// ended now, evidence that is late would look like runs that never came. What is
// known already of the time since counts, for it may be bad.
func newTally(f Facts) *tally {
	t := &tally{Facts: f, end: f.Now}
	if !f.Until.IsZero() && f.Until.Before(f.Now) {
		f.Now, t.Now = f.Until, f.Until
	}
	t.start = f.Now.Add(-f.Limits.window())
	kept := 0
	for _, daily := range f.Days {
		kept += len(daily.Runs)
	}
	all := make([]judgedRun, 0, kept)
	unkept, begins := int64(0), 0.0
	for d, daily := range f.Days {
		if !d.End().After(t.start) {
			continue
		}
		// Of the day in which the window begins only the rest is of it; it is added
		// last, or the sum would depend on the order of the days.
		if left := d.End().Sub(t.start); left < day {
			begins = float64(max(daily.Unkept, 0)) * float64(left) / float64(day)
		} else {
			unkept += max(daily.Unkept, 0)
		}
		for key, r := range daily.Runs {
			if r.First.Before(t.start) || r.First.After(t.end) {
				continue
			}
			signals := signalsOf(r)
			if r.Grade.Signal() {
				r = r.Without(func(s evidence.Signal) bool { return t.waived(r.Account, s.Reason) != "" })
			}
			all = append(all, judgedRun{
				Run: r, signals: signals, key: key, day: d, unix: r.First.Unix(), class: classOf(r), pair: pair{r.Account, r.Pipeline},
			})
		}
	}
	t.unkept = float64(unkept) + begins
	t.runs = make([]*judgedRun, len(all))
	for i := range all {
		t.runs[i] = &all[i]
	}
	slices.SortFunc(t.runs, func(a, b *judgedRun) int {
		if byTime := cmp.Compare(a.unix, b.unix); byTime != 0 {
			return byTime
		}
		return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.Grade, b.Grade), bytes.Compare(a.key[:], b.key[:]), cmp.Compare(a.day, b.day))
	})
	if t.Config == nil {
		t.Config = t.lastConfig()
	}
	watched := f.Limits.window()
	if age := f.Now.Sub(f.Since); !f.Since.IsZero() && age < watched {
		watched = age
	}
	t.days = max(float64(watched)/float64(day), 1)
	for _, r := range t.runs {
		t.judge(r)
	}
	t.changed = t.changes()
	t.leaveOutFixed()
	for _, r := range t.runs {
		if r.counts {
			t.add(r.class, 1)
		}
	}
	return t
}

// byDay counts the runs of each day.
func (t *tally) byDay() []DayReport {
	by := make(map[evidence.Day]*DayReport)
	for _, r := range t.runs {
		if r.class == silent {
			continue
		}
		d := by[r.day]
		if d == nil {
			d = &DayReport{Day: r.day}
			by[r.day] = d
		}
		switch r.class {
		case tokenless:
			d.Tokenless++
		case unjudged:
			d.Unjudged++
		case broken:
			d.Bad++
			d.Runs++
		default:
			d.Runs++
		}
		if !r.counts {
			d.LeftOut++
		}
	}
	days := make([]DayReport, 0, len(by))
	for _, day := range slices.Sorted(maps.Keys(by)) {
		days = append(days, *by[day])
	}
	return days
}

// lastConfig returns under which configuration each account was judged last.
func (t *tally) lastConfig() func(account string) string {
	last := make(map[string]*judgedRun)
	for _, r := range t.runs {
		if was := last[r.Account]; was == nil || !r.Last.Before(was.Last) {
			last[r.Account] = r
		}
	}
	return func(account string) string {
		if r := last[account]; r != nil {
			return r.Config
		}
		return ""
	}
}

func (t *tally) judge(r *judgedRun) {
	if r.class == silent {
		return
	}
	t.kept++
	r.stale = r.Config != t.Config(r.Account)
	switch {
	case r.First.Before(t.Younger):
	case r.stale:
		t.stale++
	default:
		r.counts = true
	}
}

// changes says for which accounts another configuration was in force in the window,
// and since when the running one is, as far as runs tell.
func (t *tally) changes() map[string]time.Time {
	changed := make(map[string]time.Time)
	for _, r := range t.runs { // the oldest first
		since, ok := changed[r.Account]
		switch {
		case r.stale:
			changed[r.Account] = time.Time{}
		case ok && since.IsZero() && r.class != silent:
			changed[r.Account] = r.First
		}
	}
	return changed
}

// configSince is since when all accounts that were judged by another configuration
// in the window are judged by the running one; zero while that is not known.
func (t *tally) configSince() (last time.Time) {
	for _, since := range t.changed {
		if since.IsZero() {
			return time.Time{}
		}
		if since.After(last) {
			last = since
		}
	}
	return last
}

// repair is a record of one; void if the failure has come again since.
type repair struct {
	Fix
	void bool
}

// leaveOutFixed takes the runs before a repair out, but not those that went wrong
// for another reason than the repaired one. A record of one is void when the
// failure has come again since, or when it is of a time to come.
func (t *tally) leaveOutFixed() {
	t.fixes = make(map[pair][]repair, len(t.Fixed))
	for _, fix := range t.Fixed {
		of := pair{fix.Account, fix.Pipeline}
		t.fixes[of] = append(t.fixes[of], repair{fix, fix.At.After(t.end)})
	}
	if len(t.fixes) == 0 {
		return
	}
	for _, r := range t.runs {
		if r.class != broken {
			continue
		}
		failure, _ := r.failure()
		fixes := t.fixes[r.pair]
		for i, fix := range fixes {
			fixes[i].void = fix.void || (r.Reason == fix.Reason || failure.Reason == fix.Reason) && !r.First.Before(fix.At)
		}
	}
	for _, r := range t.runs {
		for _, fix := range t.fixes[r.pair] {
			if !fix.void && r.First.Before(fix.At) && !r.Grade.Signal() && (r.class != broken || r.Reason == fix.Reason) {
				r.counts = false
			}
		}
	}
}

// fixed reports whether a record of a repair is in force.
func (t *tally) fixed(p pair, reason identity.Reason) bool {
	return slices.ContainsFunc(t.fixes[p], func(fix repair) bool { return fix.Reason == reason && !fix.void })
}

// failures groups what went wrong by account, pipeline, reason and verdict: those
// that are open first, of them security signals, then those whose token would not have
// been let in, then those without one; of each the most frequent first. So no number of
// other failures, which one account can make as many of as it likes, is before a signal.
func (t *tally) failures() []Failure {
	type key struct {
		pair
		reason identity.Reason
		grade  evidence.Grade
	}
	by := make(map[key]*Failure)
	last := make(map[key]time.Time) // when the last bad one started
	note := func(r *judgedRun, grade evidence.Grade, what evidence.Failure) {
		k := key{r.pair, what.Reason, grade}
		f := by[k]
		if f == nil {
			f = &Failure{Account: r.Account, Pipeline: r.Pipeline, Reason: what.Reason, Verdict: grade.String(), First: what.At}
			by[k] = f
		}
		f.Runs++
		if what.At.Before(f.First) {
			f.First = what.At
		}
		if !what.At.Before(f.Last) {
			f.Last, f.TraceID, f.Detail = what.At, what.TraceID, what.Detail
		}
		last[k] = r.First
	}
	of := make(map[pair]int)
	cleans := make(map[pair][]time.Time) // when the clean ones that count started, in order
	for _, r := range t.runs {
		if r.class == silent && len(r.signals) == 0 || r.stale {
			continue
		}
		// A hold begins the evidence anew, and answers no security signal.
		old := r.First.Before(t.Younger)
		if old && len(r.signals) == 0 {
			continue
		}
		of[r.pair]++
		for _, s := range r.signals {
			at := s.At
			if at.IsZero() {
				at = r.First
			}
			note(r, s.Grade, evidence.Failure{Reason: s.Reason, Detail: s.detail, TraceID: s.TraceID, At: at})
		}
		failure, failed := r.failure()
		switch {
		case old:
		case failed:
			note(r, evidence.WouldBreak, failure)
		case r.class == tokenless && r.counts:
			note(r, evidence.NoToken, evidence.Failure{Reason: r.Reason, Detail: r.Detail, TraceID: r.TraceID, At: r.at()})
		case r.class == clean && r.counts:
			cleans[r.pair] = append(cleans[r.pair], r.First)
		}
	}
	all := make([]Failure, 0, len(by))
	for k, f := range by {
		f.Share = float64(f.Runs) / float64(of[k.pair])
		f.Owner = ownerOf(k.reason)
		f.Open = true
		switch {
		case k.grade.Signal():
			f.Owner = identity.OwnerSecurity
			f.Waived = t.waived(f.Account, f.Reason)
			f.Open = f.Waived == ""
		case k.grade == evidence.NoToken:
			// As many as may send none are in nobody's way, in a pipeline as in the team.
			f.CleanSince = after(cleans[k.pair], last[k])
			f.Open = f.CleanSince < t.Limits.CleanAfter && 1-f.Share < t.Limits.Tokens
		default:
			f.CleanSince = after(cleans[k.pair], last[k])
			f.Fixed = t.fixed(k.pair, k.reason)
			f.Open = !f.Fixed && f.CleanSince < t.Limits.CleanAfter
		}
		f.Advice = Advice(f.Reason)
		f.Closes = t.closes(f)
		all = append(all, *f)
	}
	slices.SortFunc(all, func(a, b Failure) int {
		return cmp.Or(
			order(b.Open, a.Open), order(a.tokenless(), b.tokenless()), order(b.Security(), a.Security()), cmp.Compare(b.Runs, a.Runs), pair{a.Account, a.Pipeline}.compare(pair{b.Account, b.Pipeline}),
			cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Verdict, b.Verdict),
		)
	})
	return all
}

// at is when the run was at its worst.
func (r *judgedRun) at() time.Time {
	if r.Worst.IsZero() {
		return r.First
	}
	return r.Worst
}

func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// after counts the times after one; they are in order.
func after(times []time.Time, than time.Time) int {
	first, _ := slices.BinarySearchFunc(times, than, func(at, than time.Time) int {
		if at.After(than) {
			return 1
		}
		return -1
	})
	return len(times) - first
}

func (t *tally) waived(account string, reason identity.Reason) string {
	for _, w := range t.Waivers {
		if w.Account == account && w.Reason == reason && t.end.Before(w.Until) {
			return w.Owner + " until " + w.Until.Format(time.DateOnly) + ": " + w.Why
		}
	}
	return ""
}

func ownerOf(reason identity.Reason) identity.Owner {
	info, ok := reason.Info()
	if !ok {
		return identity.OwnerPlatform
	}
	return info.Owner
}
