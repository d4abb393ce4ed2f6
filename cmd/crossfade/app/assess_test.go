package app_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crossfade/cmd/crossfade/app"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/assess"
	"crossfade/rollout/evidence"
	"crossfade/rollout/fleet"
	"crossfade/rollout/readiness"
	"crossfade/rollout/redisstore"
)

const day = 24 * time.Hour

var start = time.Date(2126, 5, 1, 8, 0, 0, 0, time.UTC) // a store forgets days that have passed

// shelf is a store with evidence and a clock.
type shelf struct {
	*redisstore.InProcess
	now   time.Time
	seq   int64
	reads int
	fail  error
}

func (w *shelf) Daily(ctx context.Context, team identity.Team, d evidence.Day) (evidence.Daily, error) {
	w.reads++
	if w.fail != nil {
		return evidence.Daily{}, w.fail
	}
	return w.InProcess.Daily(ctx, team, d)
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s, err := redisstore.NewInProcess()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &shelf{InProcess: s, now: start}
}

// day records a day of a team's runs, and moves the clock to its end.
func (w *shelf) day(t *testing.T, team identity.Team, runs int, kind evidence.Run) {
	t.Helper()
	w.seq++
	kind.Account, kind.Pipeline = "svc-etl", "Load"
	d := evidence.Daily{Counts: map[evidence.Count]int64{{Verdict: "match_allow", Source: "client"}: int64(runs)}, Runs: make(map[evidence.RunKey]evidence.Run)}
	for i := range runs {
		r := kind
		r.First = w.now.Add(time.Duration(i) * time.Minute)
		r.Last = r.First.Add(30 * time.Second)
		if r.Grade != evidence.Clean {
			r.Worst = r.First
		}
		d.Runs[evidence.NewRunKey("svc-etl", fmt.Sprint(team, w.seq, i))] = r
	}
	b := evidence.Batch{Replica: "a", Seq: w.seq, From: w.now, To: w.now.Add(time.Hour), Teams: map[identity.Team]*evidence.TeamBatch{team: {
		Days:     map[evidence.Day]*evidence.Daily{evidence.DayOf(w.now): &d},
		Accounts: map[string]evidence.Use{"svc-etl": {Legacy: w.now, Token: w.now}},
		Families: map[evidence.Family]evidence.FamilyUse{{Account: "svc-etl", Name: "Load"}: {Last: w.now, Clean: w.now}},
		Since:    w.now,
	}}}
	if err := w.Record(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(day)
}

// longWatched lets a store have watched a team for long, of which it knows nothing
// else but that some accounts used a password long ago.
func longWatched(t *testing.T, store *redisstore.InProcess, team identity.Team, accounts ...string) {
	t.Helper()
	past := time.Now().Add(-90 * day)
	uses := make(map[string]evidence.Use)
	for _, account := range accounts {
		uses[account] = evidence.Use{Legacy: past}
	}
	b := evidence.Batch{Replica: "long ago " + string(team), Seq: 1, Teams: map[identity.Team]*evidence.TeamBatch{team: {Since: past, Accounts: uses}}}
	if err := store.Record(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func (w *shelf) assessor(t *testing.T, change func(*assess.Options)) *assess.Assessor {
	t.Helper()
	o := assess.Options{
		Store: w, Now: func() time.Time { return w.now },
		Settings: func(identity.Team) assess.Settings { return assess.Settings{Limits: readiness.DefaultLimits()} },
	}
	if change != nil {
		change(&o)
	}
	a, err := assess.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var clean = evidence.Run{Legacy: true, Token: true}

func TestTheGuardLetsARaiseThroughOnceTheEvidenceIsThere(t *testing.T) {
	w := newShelf(t)
	a := w.assessor(t, nil)
	state := rollout.State{Team: "data-eng"}
	for range 13 {
		w.day(t, "data-eng", 20, clean)
	}
	got, err := a.MayRaise(t.Context(), state, time.Time{})
	if err != nil || got.UpTo != 0 || got.Why != "watched for 13 of 14 days" {
		t.Errorf("after 13 days: %+v, %v", got, err)
	}
	w.day(t, "data-eng", 20, clean)
	got, err = a.MayRaise(t.Context(), state, time.Time{})
	if err != nil || got.UpTo != 100 || got.Why != "280 clean runs, none would break; up to 100% possible" {
		t.Errorf("after 14 days: %+v, %v", got, err)
	}
	w.day(t, "billing", 500, evidence.Run{Legacy: true, Token: true, Grade: evidence.WouldBreak, Reason: identity.AudMismatch})
	if again, err := a.MayRaise(t.Context(), state, time.Time{}); err != nil || again.UpTo != 100 {
		t.Errorf("with another team that breaks: %+v, %v", again, err)
	}
}

func TestAHoldWantsEvidenceThatIsYounger(t *testing.T) {
	w := newShelf(t)
	a := w.assessor(t, nil)
	for range 15 {
		w.day(t, "data-eng", 20, clean)
	}
	state := rollout.State{Team: "data-eng", Hold: rollout.Hold{Reason: "rolled back", At: w.now.Add(-time.Hour)}}
	got, err := a.MayRaise(t.Context(), state, state.Hold.At)
	if err != nil || got.UpTo != 0 {
		t.Errorf("without younger evidence: %+v, %v", got, err)
	}
	w.day(t, "data-eng", 20, clean)
	w.day(t, "data-eng", 20, clean)
	got, err = a.MayRaise(t.Context(), state, state.Hold.At)
	if err != nil || got.UpTo < 20 {
		t.Errorf("with younger evidence: %+v, %v", got, err)
	}
}

func TestWhatWasLostIsMissing(t *testing.T) {
	for name, test := range map[string]struct {
		gap evidence.Gap
		may rollout.Percent
		why string
	}{
		"of the team":                         {evidence.Gap{Team: "data-eng", Requests: 40}, 0, "12.5% of the requests went unwatched, 0.1% may"},
		"of another team":                     {evidence.Gap{Team: "billing", Requests: 1_000_000}, 100, "280 clean runs, none would break; up to 100% possible"},
		"by a gateway that died, for minutes": {evidence.Gap{Requests: 1_000_000}, 100, "280 clean runs, none would break; up to 100% possible"},
		"by one that dies all the time":       {evidence.Gap{From: start.Add(10 * day), Requests: 1}, 0, "21.4% of the requests went unwatched, 0.1% may"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newShelf(t)
			a := w.assessor(t, nil)
			for range 14 {
				w.day(t, "data-eng", 20, clean)
			}
			g := test.gap
			g.Replica, g.To = "b", start.Add(13*day)
			if g.From.IsZero() {
				g.From = g.To.Add(-time.Minute)
			}
			if err := w.Gap(t.Context(), g); err != nil {
				t.Fatal(err)
			}
			got, err := a.MayRaise(t.Context(), rollout.State{Team: "data-eng"}, time.Time{})
			if err != nil || got.UpTo != test.may || got.Why != test.why || test.may == 0 && got.Owner != identity.OwnerPlatform {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// TestNothingThatAnotherTeamDoesChangesAReport judges one team with and without
// floods of another: of good requests, of bad ones and of losses.
func TestNothingThatAnotherTeamDoesChangesAReport(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		days, own := rapid.IntRange(1, 16).Draw(rt, "days"), rapid.Int64Range(0, 3).Draw(rt, "lost")
		died := time.Duration(rapid.IntRange(0, 40).Draw(rt, "minutes")) * time.Minute
		flood, lost := rapid.IntRange(1, 300).Draw(rt, "flood"), rapid.Int64Range(0, 1e9).Draw(rt, "of which are lost")
		grade := rapid.SampledFrom(evidence.Grades()).Draw(rt, "grade")
		report := func(flooded bool) readiness.Report {
			w := newShelf(t)
			a := w.assessor(t, nil)
			for range days {
				w.day(t, "data-eng", 20, clean)
			}
			gaps := []evidence.Gap{{Replica: "a", Team: "data-eng", Requests: own}, {Replica: "b", From: w.now.Add(-died), Requests: 7}}
			if flooded {
				w.now = w.now.Add(-day) // of the day that was
				w.day(t, "billing", flood, evidence.Run{Legacy: true, Token: true, Grade: grade, Reason: identity.AudMismatch})
				gaps = append(gaps, evidence.Gap{Replica: "a", Team: "billing", Requests: lost})
				gaps[1].Requests = max(lost, 1) // for that gateway was busy
			}
			for _, g := range gaps {
				g.To = w.now
				if g.From.IsZero() {
					g.From = w.now.Add(-time.Minute)
				}
				if g.Requests > 0 {
					if err := w.Gap(t.Context(), g); err != nil {
						t.Fatal(err)
					}
				}
			}
			r, err := a.Report(t.Context(), rollout.State{Team: "data-eng"})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		if alone, flooded := report(false), report(true); !reflect.DeepEqual(alone, flooded) {
			rt.Fatalf("with the flood it is\n%+v, without\n%+v", flooded, alone)
		}
	})
}

// TestATeamIsJudgedWhileNobodysAccountsCannotBeRead takes the node of those away.
func TestATeamIsJudgedWhileNobodysAccountsCannotBeRead(t *testing.T) {
	w := newShelf(t)
	a := w.assessor(t, func(o *assess.Options) { o.Store = nobodyAway{w} })
	for range 15 {
		w.day(t, "data-eng", 20, clean)
	}
	got, err := a.MayRaise(t.Context(), rollout.State{Team: "data-eng"}, time.Time{})
	if err != nil || got.UpTo != 100 {
		t.Errorf("a raise: %+v, %v", got, err)
	}
	got, err = a.MayRetire(t.Context(), rollout.State{Team: "data-eng", Percent: 100, RaisedAt: start.Add(-90 * day)})
	if err != nil || got.UpTo != 0 {
		t.Errorf("a retirement: %+v, %v", got, err)
	}
}

// nobodyAway is a store of which the accounts of nobody cannot be read.
type nobodyAway struct{ *shelf }

func (w nobodyAway) Accounts(ctx context.Context, team identity.Team) (map[string]evidence.Use, error) {
	if team == identity.Unassigned {
		return nil, fmt.Errorf("%w: its node is away", rollout.ErrUnavailable)
	}
	return w.shelf.Accounts(ctx, team)
}

func TestAnAnswerStaysWhileTheEvidenceIsLate(t *testing.T) {
	w := newShelf(t)
	late := time.Duration(0)
	a := w.assessor(t, func(o *assess.Options) {
		o.Late = func(context.Context, identity.Team) (time.Duration, error) { return late, nil }
	})
	for range 15 {
		w.day(t, "data-eng", 60, evidence.Run{Token: true})
	}
	report := func() readiness.Report {
		t.Helper()
		r, err := a.Report(t.Context(), rollout.State{Team: "data-eng"})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := report(); r.Answer != readiness.Ready {
		t.Fatalf("in time: %s, %s", r.Answer, r.Why)
	}
	late, w.now = 15*time.Minute, w.now.Add(15*time.Minute)
	if r := report(); r.Answer != readiness.Ready || r.Late != late {
		t.Errorf("of one whose evidence is on its way: %s, %s, late by %s", r.Answer, r.Why, r.Late)
	}
	late, w.now = 0, w.now.Add(20*day) // nothing was recorded since, for whatever reason
	if r := report(); r.Answer != readiness.Waiting || r.Late != 0 {
		t.Errorf("of a team that stopped: %s, late by %s", r.Answer, r.Late)
	}
	for _, late = range []time.Duration{20 * day, 1 << 62} { // an old window is not the present one for ever
		w.now = w.now.Add(time.Minute)
		if r := report(); r.Answer != readiness.Waiting || r.Owner != identity.OwnerPlatform || r.UpTo != 0 {
			t.Errorf("of one whose evidence is %s late: %s, %s, up to %s", late, r.Answer, r.Why, r.UpTo)
		}
	}
}

func TestNothingIsSaidOfTeamsWhileTheOtherGatewaysAreNotSeen(t *testing.T) {
	if err := app.Unseen(fleet.Silent); err != nil {
		t.Errorf("after an outage as short as one that kills nobody: %v", err)
	}
	blind := app.Unseen(fleet.Silent + time.Second)
	if !errors.Is(blind, rollout.ErrUnavailable) {
		t.Errorf("after a longer one: %v", blind)
	}
	w := newShelf(t)
	for range 15 {
		w.day(t, "data-eng", 60, evidence.Run{Token: true})
	}
	a := w.assessor(t, func(o *assess.Options) {
		o.Skewed = func(context.Context) (bool, error) { return false, blind }
	})
	asks := rollout.State{Team: "data-eng", Request: rollout.Request{Percent: 50, At: w.now, Override: "we know better"}}
	answer := rollout.AskGuard(t.Context(), a, asks, w.now)
	if step := rollout.Next(asks, answer, true, w.now); step.Outcome != rollout.Pending || answer.Owner != identity.OwnerPlatform {
		t.Errorf("a raise meanwhile: %+v by %+v", step, answer)
	}
}

func TestAShortWindowIsReadAgainSoon(t *testing.T) {
	w := newShelf(t)
	a := w.assessor(t, func(o *assess.Options) {
		o.Store = slowly{w}
		o.Settings = func(identity.Team) assess.Settings {
			limits := readiness.DefaultLimits()
			limits.Window, limits.Cycle = 20*time.Second, time.Second
			return assess.Settings{Limits: limits}
		}
	})
	look := func() int {
		t.Helper()
		if _, err := a.Report(t.Context(), rollout.State{Team: "data-eng"}); err != nil {
			t.Fatal(err)
		}
		return w.reads
	}
	first := look()
	w.now = w.now.Add(time.Second)
	if again := look(); again != first {
		t.Errorf("a second later it is read again: %d readings after %d", again, first)
	}
	w.now = w.now.Add(time.Second)
	if again := look(); again == first {
		t.Error("after a tenth of the window it is not read again")
	}
}

// slowly takes so long to answer that a long window would be remembered for the
// longest time.
type slowly struct{ *shelf }

func (w slowly) Since(ctx context.Context, team identity.Team) (time.Time, error) {
	time.Sleep(200 * time.Millisecond)
	return w.shelf.Since(ctx, team)
}

func TestWhatWasReadIsKnownForAWhile(t *testing.T) {
	w := newShelf(t)
	a := w.assessor(t, nil)
	w.day(t, "data-eng", 20, clean)
	ask := func() {
		t.Helper()
		if _, err := a.Report(t.Context(), rollout.State{Team: "data-eng"}); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	reads := w.reads
	ask()
	if w.reads != reads {
		t.Errorf("the store was read again at once")
	}
	w.now = w.now.Add(time.Minute)
	ask()
	if w.reads == reads {
		t.Errorf("the store was not read again after a minute")
	}
}

func TestTheDaysOfATeamTellHowManyRunsWouldBreak(t *testing.T) {
	w := newShelf(t)
	a := w.assessor(t, nil)
	w.day(t, "data-eng", 20, clean)
	w.day(t, "data-eng", 3, evidence.Run{Legacy: true, Token: true, Grade: evidence.WouldBreak, Reason: identity.AudMismatch})
	w.day(t, "data-eng", 5, evidence.Run{Legacy: true, Grade: evidence.NoToken})
	if _, err := a.Report(t.Context(), rollout.State{Team: "data-eng"}); err != nil {
		t.Fatal(err)
	}
	reads := w.reads
	days, err := a.Days(t.Context(), "data-eng", 4)
	want := []assess.Day{{Day: "2126-05-01", Runs: 20}, {Day: "2126-05-02", Runs: 3, Broken: 3}, {Day: "2126-05-03", Runs: 5}, {Day: "2126-05-04"}}
	if err != nil || !slices.Equal(days, want) {
		t.Errorf("four days: %v, %v; want %v", days, err, want)
	}
	if w.reads != reads {
		t.Errorf("what the report has read was read again, %d times", w.reads-reads)
	}
	if days, err := a.Days(t.Context(), "data-eng", 100); err != nil || len(days) != 15 {
		t.Errorf("a window of 14 days touches 15: %v, %v", days, err)
	}
	w.fail, w.now = rollout.ErrUnavailable, w.now.Add(time.Minute)
	if _, err := a.Days(t.Context(), "data-eng", 4); !errors.Is(err, rollout.ErrUnavailable) {
		t.Errorf("with the store away: %v", err)
	}
}

// TestAFreshReportIsOfNowAndLeavesTheOthersAlone: what is read for the metrics does
// not make what a lead is told next any older.
func TestAFreshReportIsOfNowAndLeavesTheOthersAlone(t *testing.T) {
	w := newShelf(t)
	a := w.assessor(t, nil)
	state := rollout.State{Team: "data-eng"}
	runs := func(report func(context.Context, rollout.State) (readiness.Report, error)) int {
		t.Helper()
		r, err := report(t.Context(), state)
		if err != nil {
			t.Fatal(err)
		}
		return r.Runs
	}
	w.day(t, "data-eng", 20, clean)
	at := w.now
	more := func(n int, after time.Duration) { // that ran two hours ago, and so long after the first look
		w.now = at.Add(-2 * time.Hour)
		w.day(t, "data-eng", n, clean)
		w.now = at.Add(after)
	}
	if got := runs(a.Fresh); got != 20 {
		t.Fatalf("%d runs, want 20", got)
	}
	more(3, time.Second)
	if got := runs(a.Report); got != 23 {
		t.Errorf("a report after a fresh one is of %d runs, want 23", got)
	}
	more(4, 2*time.Second)
	if remembered, fresh := runs(a.Report), runs(a.Fresh); remembered != 23 || fresh != 27 {
		t.Errorf("a moment later %d runs are remembered and %d are there, want 23 and 27", remembered, fresh)
	}
}

func TestAStoreThatIsAwayIsNoAnswer(t *testing.T) {
	w := newShelf(t)
	a := w.assessor(t, nil)
	w.fail = rollout.ErrUnavailable
	if _, err := a.MayRaise(t.Context(), rollout.State{Team: "data-eng"}, time.Time{}); !errors.Is(err, rollout.ErrUnavailable) {
		t.Errorf("MayRaise: %v", err)
	}
	if _, err := a.MayRetire(t.Context(), rollout.State{Team: "data-eng", Percent: 100}); !errors.Is(err, rollout.ErrUnavailable) {
		t.Errorf("MayRetire: %v", err)
	}
}

func TestAnAccountThatGotAnEntryIsInTheWayOfItsOwnTeamOnly(t *testing.T) {
	w := newShelf(t)
	a := w.assessor(t, func(o *assess.Options) {
		o.Settings = func(identity.Team) assess.Settings {
			return assess.Settings{Limits: readiness.DefaultLimits(), Entered: func(account string) (string, identity.Team, bool) {
				return "svc-odd", "search", account == "legacy:odd"
			}}
		}
	})
	for _, team := range []identity.Team{"data-eng", "search"} {
		longWatched(t, w.InProcess, team)
	}
	w.now = start
	for range 16 {
		w.day(t, "data-eng", 20, evidence.Run{Token: true, Enforced: true})
	}
	w.now = w.now.Add(15 * day)
	used := w.now.Add(-3 * day)
	b := evidence.Batch{Replica: "b", Seq: 1, From: w.now, To: w.now, Teams: map[identity.Team]*evidence.TeamBatch{identity.Unassigned: {
		Accounts: map[string]evidence.Use{"legacy:odd": {Legacy: used, Run: used}},
	}}}
	if err := w.Record(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	retire := func(team identity.Team) rollout.Answer {
		t.Helper()
		got, err := a.MayRetire(t.Context(), rollout.State{Team: team, Percent: 100, RaisedAt: start})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := retire("data-eng"); got.UpTo != 100 {
		t.Errorf("another team: %+v", got)
	}
	if got := retire("search"); got.UpTo != 0 || got.Why != "no password for 3 of 14 days: svc-odd was the last to use one" || got.Owner != "" {
		t.Errorf("its team: %+v", got)
	}
	r, err := a.Report(t.Context(), rollout.State{Team: identity.Unassigned})
	if err != nil || r.Why != "every account has a team" || r.Owner != "" {
		t.Errorf("nobody's: %q, %q acts, %v", r.Why, r.Owner, err)
	}
}

func TestRetirementWaitsForAccountsOfNobody(t *testing.T) {
	w := newShelf(t)
	a := w.assessor(t, nil)
	for range 16 {
		w.day(t, "data-eng", 20, evidence.Run{Token: true, Enforced: true})
	}
	b := evidence.Batch{Replica: "b", Seq: 1, From: w.now, To: w.now, Teams: map[identity.Team]*evidence.TeamBatch{"data-eng": {
		Accounts: map[string]evidence.Use{"svc-etl": {Token: w.now}},
	}}}
	if err := w.Record(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	state := rollout.State{Team: "data-eng", Percent: 100, RaisedAt: start}
	w.now = w.now.Add(15 * day)
	got, err := a.MayRetire(t.Context(), state)
	if err != nil || got.UpTo != 100 {
		t.Errorf("nothing in the way: %+v, %v", got, err)
	}
	w.day(t, identity.Unassigned, 3, evidence.Run{Legacy: true, Grade: evidence.NoToken})
	got, err = a.MayRetire(t.Context(), state)
	if err != nil || got.UpTo != 0 || got.Owner != identity.OwnerPlatform || got.Why != "nobody knows whose they are: svc-etl" {
		t.Errorf("an account of nobody: %+v, %v", got, err)
	}
	state.RaisedAt = w.now.Add(-3 * day)
	got, err = a.MayRetire(t.Context(), state)
	want := []rollout.Obstacle{{Why: "nobody knows whose they are: svc-etl", Owner: identity.OwnerPlatform}, {Why: "at 100% for 3 of 14 days"}}
	if err != nil || !slices.Equal(got.Obstacles, want) {
		t.Errorf("two things in the way: %+v, %v, want %+v", got.Obstacles, err, want)
	}
	state.Percent = 50
	if got, err := a.MayRetire(t.Context(), state); err != nil || got.UpTo != 0 {
		t.Errorf("at 50%%: %+v, %v", got, err)
	}
}
