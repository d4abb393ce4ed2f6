package rollouttest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
)

// TestEvidence runs the conformance suite of evidence.Store. newStore returns an
// empty store that is closed by t.Cleanup.
func TestEvidence(t *testing.T, newStore func(t *testing.T) evidence.Store) {
	for name, test := range map[string]func(*testing.T, evidence.Store){
		"of a day without evidence there is nothing":                         noEvidence,
		"what was recorded is read back":                                     recordAndRead,
		"a token that never ends does not spoil the day":                     endlessToken,
		"a batch that comes again changes nothing":                           recordAgain,
		"batches of several replicas add up to what all of them saw":         recordModel,
		"a run that goes on after midnight stays in the day it began":        runOverMidnight,
		"a run of several days counts on the first, whoever sees it later":   runOfDays,
		"of many runs of a pair as many are kept as there may, never others": keepsSome,
		"bad runs are kept whether chosen or not, within their bound":        keepsBad,
		"bad runs of an account are kept within a bound of their own":        keepsBadOfAccount,
		"a run whose pipeline becomes known moves to it":                     pipelineLater,
		"pipelines beyond the bound of an account are not kept":              manyPipelines,
		"losses that go on leave one gap that grows":                         lossesGoOn,
		"what can never be recorded holds nothing else up":                   neverRecorded,
		"a loss leaves a gap, once":                                          lossLeavesGap,
		"losses of teams leave gaps of their own":                            lossesOfTeams,
		"a part that comes later counts under its own number, once":          partComesLater,
		"what would be refused adds up, once":                                refusalsAddUp,
		"kinds of refusals beyond the bound are counted as wider ones":       manyRefusals,
		"a call whose context has ended is unavailable":                      evidenceEnded,
		"replicas that record at once lose nothing":                          recordRace,
		"a team's evidence begins once, and families keep their latest uses": beginsOnce,
	} {
		t.Run(name, func(t *testing.T) { test(t, newStore(t)) })
	}
}

// day is the one of moment. It is far from today, for what has passed long ago is
// forgotten.
const day evidence.Day = "2130-01-02"

// moment returns a fixed time of the day, seconds after its third hour.
func moment(seconds int) time.Time {
	return time.Date(2130, 1, 2, 3, 0, 0, 123_000_000, time.UTC).Add(time.Duration(seconds) * time.Second)
}

// batchOf returns a batch with one day of a team.
func batchOf(replica string, seq int64, d evidence.Daily) evidence.Batch {
	return evidence.Batch{
		Replica: replica, Seq: seq, From: moment(0), To: moment(1),
		Teams: map[identity.Team]*evidence.TeamBatch{team: {Days: map[evidence.Day]*evidence.Daily{day: &d}}},
	}
}

// tester is a test of testing or of rapid.
type tester interface {
	Helper()
	Context() context.Context
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

func record(t *testing.T, s evidence.Store, b evidence.Batch) {
	t.Helper()
	if err := s.Record(t.Context(), b); err != nil {
		t.Fatalf("Record: %v", err)
	}
}

func daily(t tester, s evidence.Store, day evidence.Day) evidence.Daily {
	t.Helper()
	d, err := s.Daily(t.Context(), team, day)
	if err != nil {
		t.Fatalf("Daily: %v", err)
	}
	return d
}

// runs are those of a day by the trace id that a test gave each: keys are the
// store's own.
func runs(t tester, s evidence.Store, day evidence.Day) map[string]evidence.Run {
	t.Helper()
	by := make(map[string]evidence.Run)
	for _, r := range daily(t, s, day).Runs {
		if _, twice := by[r.TraceID]; twice {
			t.Errorf("run %q is kept twice", r.TraceID)
		}
		by[r.TraceID] = r
	}
	return by
}

// run returns a run of an account that differs by its number.
func run(n int, account, pipeline string, g evidence.Grade) evidence.Run {
	return evidence.Run{
		Account: account, Pipeline: pipeline, Grade: g, TraceID: fmt.Sprint("run-", n), Worst: moment(n),
		First: moment(n), Last: moment(n + 1), Legacy: true,
	}
}

func keyOf(r evidence.Run) evidence.RunKey { return evidence.NewRunKey(r.Account, r.TraceID) }

func keyed(list ...evidence.Run) map[evidence.RunKey]evidence.Run {
	m := make(map[evidence.RunKey]evidence.Run, len(list))
	for _, r := range list {
		m[keyOf(r)] = r
	}
	return m
}

func noEvidence(t *testing.T, s evidence.Store) {
	d := daily(t, s, day)
	if len(d.Counts)+len(d.Schemes)+len(d.Runs) != 0 || d.Unkept != 0 {
		t.Errorf("a day without evidence: %+v", d)
	}
	accounts, err := s.Accounts(t.Context(), team)
	if err != nil || len(accounts) != 0 {
		t.Errorf("accounts: %v, %v", accounts, err)
	}
	gaps, err := s.Gaps(t.Context(), moment(-1000))
	if err != nil || len(gaps) != 0 {
		t.Errorf("gaps: %v, %v", gaps, err)
	}
}

// everything is a batch with something of everything.
func everything() evidence.Batch {
	r := evidence.Run{
		Account: "svc etl|ü", Pipeline: "Load:Users", Grade: evidence.WouldBreak, Reason: "aud_mismatch", TraceID: "4bf92f3577b34da6",
		Worst: moment(3), First: moment(1), Last: moment(4), Legacy: true, Token: true, Enforced: true, Refused: true, Brownout: true, Broke: true, Tokenless: true,
		Detail: `the token is for "api://finance"; this gateway accepts "luigi" / ü`, Observed: true, Config: "0123456789abcdef",
		EnforcedFrom: moment(2), LockedOut: moment(3), FirstExpiry: moment(100), LastExpiry: moment(200),
	}
	b := batchOf("a", 1, evidence.Daily{
		Counts: map[evidence.Count]int64{
			{Verdict: "would_break", Reason: "aud_mismatch", Source: "client"}: 3,
			{Verdict: "match_allow", Source: "client"}:                         40,
		},
		Schemes: map[identity.Scheme]int64{identity.SchemeBasic: 42, identity.SchemeOIDC: 1},
		Runs:    keyed(r),
		Unkept:  2,
	})
	b.Teams[team].Accounts = map[string]evidence.Use{
		r.Account: {Legacy: moment(4), Token: moment(3), Failed: moment(3), Reason: "aud_mismatch", Run: moment(4), Page: moment(1)},
		"seldom":  {Legacy: moment(2), Page: moment(2)},
	}
	b.Teams[team].Families = map[evidence.Family]evidence.FamilyUse{
		{Account: r.Account, Name: "Load:Users"}: {Last: moment(4), Clean: moment(3)}, {Account: "seldom", Name: "X"}: {Last: moment(2)},
	}
	b.Teams[team].Since = moment(1)
	return b
}

func recordAndRead(t *testing.T, s evidence.Store) {
	b := everything()
	record(t, s, b)
	checkWhole(t, s, b)
}

func checkWhole(t *testing.T, s evidence.Store, b evidence.Batch) {
	t.Helper()
	want := b.Teams[team].Days[day]
	got := daily(t, s, day)
	same(t, "counts", got.Counts, want.Counts)
	same(t, "schemes", got.Schemes, want.Schemes)
	same(t, "not kept", got.Unkept, want.Unkept)
	wantRuns := make(map[string]evidence.Run)
	for _, r := range want.Runs {
		wantRuns[r.TraceID] = r
	}
	same(t, "runs", runs(t, s, day), wantRuns)
	accounts, err := s.Accounts(t.Context(), team)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "accounts", accounts, b.Teams[team].Accounts)
	families, err := s.Families(t.Context(), team)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "families", families, b.Teams[team].Families)
	since, err := s.Since(t.Context(), team)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "since", since, b.Teams[team].Since)
	same(t, "requests", got.Requests(), b.Requests())
	if since, err := s.Since(t.Context(), "another"); err != nil || !since.IsZero() {
		t.Errorf("another team was seen at %v, %v", since, err)
	}
	if other, err := s.Daily(t.Context(), "another", day); err != nil || len(other.Counts)+len(other.Runs) != 0 {
		t.Errorf("another team has %+v, %v", other, err)
	}
}

// endlessToken records what a provider says that issues tokens for ever: the
// latest time that a claim may have.
func endlessToken(t *testing.T, s evidence.Store) {
	r := run(1, "svc", "Load", evidence.WouldBreak)
	r.FirstExpiry = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	r.LastExpiry = r.FirstExpiry
	record(t, s, batchOf("a", 1, evidence.Daily{Runs: keyed(r)}))
	again := run(1, "svc", "Load", evidence.WouldBreak) // and is merged
	record(t, s, batchOf("a", 2, evidence.Daily{Runs: keyed(again)}))
	got, ok := runs(t, s, day)[r.TraceID]
	if !ok || got.LastExpiry.Year() < 5000 || got.Renewed() {
		t.Errorf("read back: %t, %+v", ok, got)
	}
}

func recordAgain(t *testing.T, s evidence.Store) {
	b := everything()
	record(t, s, b)
	record(t, s, b)
	older := everything() // of the same replica, delayed on its way
	older.Seq = 0
	record(t, s, older)
	checkWhole(t, s, b)
}

// recordModel compares with what evidence itself says of merging, in any order
// and with batches that come twice.
func recordModel(t *testing.T, s evidence.Store) {
	seq := map[string]int64{}
	rounds := 0
	rapid.Check(t, func(t *rapid.T) {
		rounds++
		name := func(n int) string { return fmt.Sprintf("%d-%d", rounds, n) }
		counts := map[evidence.Count]int64{}
		want := map[string]evidence.Run{}
		uses := map[string]evidence.Use{}
		before := daily(t, s, day)
		for range rapid.IntRange(1, 6).Draw(t, "batches") {
			replica := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "replica")
			d := evidence.Daily{Counts: map[evidence.Count]int64{}, Runs: map[evidence.RunKey]evidence.Run{}}
			c := evidence.Count{Verdict: "no_token", Reason: "token_absent", Source: name(rapid.IntRange(0, 1).Draw(t, "count"))}
			d.Counts[c] = int64(rapid.IntRange(1, 9).Draw(t, "n"))
			counts[c] += d.Counts[c]
			b := batchOf(replica, 0, d)
			b.Teams[team].Accounts = map[string]evidence.Use{}
			for range rapid.IntRange(0, 4).Draw(t, "runs") {
				account := name(rapid.IntRange(0, 2).Draw(t, "account"))
				id := name(rapid.IntRange(0, 3).Draw(t, "run"))
				r := drawRun(t, account)
				// Merging is told apart by the account and the moment it began; the
				// earliest and the worst are what tests look at.
				key := evidence.NewRunKey(account, id)
				if known, ok := d.Runs[key]; ok {
					r = known.Merge(r)
				}
				d.Runs[key] = r
				u := evidence.Use{Legacy: r.Last, Failed: r.Worst, Reason: r.Reason}
				if rapid.Bool().Draw(t, "page") {
					u.Page = r.First
				} else {
					u.Run = r.First
				}
				b.Teams[team].Accounts[account] = b.Teams[team].Accounts[account].Merge(u)
			}
			for key, r := range d.Runs {
				want[key.String()] = want[key.String()].Merge(r)
			}
			for account, u := range b.Teams[team].Accounts {
				uses[account] = uses[account].Merge(u)
			}
			seq[replica]++
			b.Seq = seq[replica]
			for range rapid.IntRange(1, 2).Draw(t, "times") {
				if err := s.Record(t.Context(), b); err != nil {
					t.Fatalf("Record: %v", err)
				}
			}
		}
		after := daily(t, s, day)
		for c, n := range counts {
			if got := after.Counts[c] - before.Counts[c]; got != n {
				t.Fatalf("%v is counted %d times, want %d", c, got, n)
			}
		}
		got := map[evidence.Run]int{}
		for key, r := range after.Runs {
			if _, old := before.Runs[key]; !old {
				got[r]++
			}
		}
		wanted := map[evidence.Run]int{}
		for _, r := range want {
			wanted[r]++
		}
		if diff := gocmp.Diff(wanted, got); diff != "" {
			t.Fatalf("runs (-want +got):\n%s", diff)
		}
		accounts, err := s.Accounts(t.Context(), team)
		if err != nil {
			t.Fatal(err)
		}
		for account, u := range uses {
			if diff := gocmp.Diff(u, accounts[account]); diff != "" {
				t.Fatalf("account %s (-want +got):\n%s", account, diff)
			}
		}
	})
}

func drawRun(t *rapid.T, account string) evidence.Run {
	bit := func(label string) bool { return rapid.Bool().Draw(t, label) }
	g := rapid.SampledFrom(evidence.Grades()).Draw(t, "grade")
	n := rapid.IntRange(0, 1_000_000).Draw(t, "time")
	r := evidence.Run{
		// The reason follows from grade and time, so that two runs that are
		// equally bad at once do not differ.
		Account: account, Pipeline: "P", Grade: g, Reason: identity.Reason(fmt.Sprintf("r%d_%d", g, n)), TraceID: fmt.Sprint(n), Worst: moment(n),
		First: moment(n - rapid.IntRange(0, 9).Draw(t, "before")), Last: moment(n + rapid.IntRange(0, 9).Draw(t, "after")),
		Config: rapid.SampledFrom([]string{"", "", "0a", "a0", "ff"}).Draw(t, "config"), Observed: bit("observed"),
		Legacy: bit("legacy"), Token: bit("token"), Enforced: bit("enforced"), Refused: bit("refused"), Brownout: bit("brownout"),
		Broke: g == evidence.WouldBreak, Tokenless: g == evidence.NoToken, Unjudged: g == evidence.Indeterminate,
	}
	if g.Bad() {
		r.Detail = fmt.Sprintf("detail %d %d", g, n)
	}
	if r.Enforced && bit("by the percentage") {
		r.EnforcedFrom = moment(rapid.IntRange(0, 9).Draw(t, "enforced from"))
		if r.Refused {
			r.LockedOut = moment(rapid.IntRange(9, 19).Draw(t, "locked out"))
		}
	}
	if r.Token {
		r.FirstExpiry = moment(rapid.IntRange(0, 99).Draw(t, "from"))
		r.LastExpiry = r.FirstExpiry.Add(time.Duration(rapid.IntRange(0, 9).Draw(t, "more")) * time.Second)
	}
	return r
}

func runOverMidnight(t *testing.T, s evidence.Store) {
	r := run(1, "svc", "Load", evidence.Clean)
	record(t, s, batchOf("a", 1, evidence.Daily{Runs: keyed(r)}))
	later := r
	later.Grade, later.Worst, later.Last = evidence.NoToken, moment(90_000), moment(90_000)
	b := batchOf("b", 1, evidence.Daily{})
	b.Teams[team].Days = map[evidence.Day]*evidence.Daily{"2130-01-03": {Runs: keyed(later)}}
	record(t, s, b)
	if got := runs(t, s, day)[r.TraceID]; got.Grade != evidence.NoToken || !got.Last.Equal(moment(90_000)) {
		t.Errorf("the run in the day it began: %+v", got)
	}
	if got := runs(t, s, "2130-01-03"); len(got) != 0 {
		t.Errorf("runs of the next day: %v", got)
	}
}

// runOfDays records what a replica knows that has not seen the run before, as
// after a restart: on which day it counts is for the store to find out, by the
// rule of evidence.Run.Continues.
func runOfDays(t *testing.T, s evidence.Store) {
	const hour = 3600
	for i, test := range []struct {
		what   string
		last   int // of the first replica, in seconds after the beginning
		again  int // when the second one sees it first
		counts bool
	}{
		{"two days later", 48 * hour, 48*hour + 60, false},
		{"six days later", 6 * 24 * hour, 6*24*hour + 60, false},
		{"just within seven days", 7*24*hour - 60, 7*24*hour - 1, false},
		{"after seven days", 7 * 24 * hour, 7 * 24 * hour, true},
		{"silent for as long as may be", 48 * hour, 48*hour + int(evidence.RunIdle/time.Second), false},
		{"silent for longer", 48 * hour, 48*hour + int(evidence.RunIdle/time.Second) + 1, true},
		{"the next day, under an id that was set by hand", hour, 25 * hour, true},
		{"seen earlier than the first one knew", 30 * hour, 29 * hour, false},
	} {
		first := run(1, fmt.Sprint("svc", i), "Load", evidence.Clean)
		first.First, first.Worst, first.Last = moment(0), moment(0), moment(test.last)
		record(t, s, batchOf("a", int64(i+1), evidence.Daily{Runs: keyed(first)}))
		again := first
		again.Grade = evidence.NoToken
		again.First, again.Worst, again.Last = moment(test.again), moment(test.again), moment(test.again)
		if again.Continues(first) == test.counts {
			t.Errorf("%s: the rule itself says that it continues: %t", test.what, !test.counts)
		}
		later := evidence.DayOf(again.First)
		b := batchOf("b", int64(i+1), evidence.Daily{})
		b.Teams[team].Days = map[evidence.Day]*evidence.Daily{later: {Runs: keyed(again)}}
		record(t, s, b)
		want := map[evidence.Day]evidence.Run{day: first.Merge(again)}
		if test.counts {
			want = map[evidence.Day]evidence.Run{day: first, later: again}
		}
		got := make(map[evidence.Day]evidence.Run)
		for n := range 10 {
			day := evidence.DayOf(moment(n * 24 * hour))
			for _, r := range daily(t, s, day).Runs {
				if r.Account == first.Account {
					got[day] = r
				}
			}
		}
		same(t, test.what, got, want)
	}
}

func keepsSome(t *testing.T, s evidence.Store) {
	const all = 100
	list := make([]evidence.Run, all)
	for i := range list {
		list[i] = run(i, "svc", "Load", evidence.Clean)
	}
	record(t, s, batchOf("a", 1, evidence.Daily{Runs: keyed(list...)}))
	first := runs(t, s, day)
	if len(first) != evidence.MaxRuns {
		t.Fatalf("%d of %d runs are kept, want %d", len(first), all, evidence.MaxRuns)
	}
	// The same in another order, one by one, from another replica.
	for i := range list {
		record(t, s, batchOf("b", int64(i+1), evidence.Daily{Runs: keyed(list[all-1-i])}))
	}
	same(t, "the choice", runs(t, s, day), first)
	if got := daily(t, s, day).Unkept; got < 70 || got > 82 {
		t.Errorf("%d runs are said not to be kept, want about %d", got, all-evidence.MaxRuns)
	}
	other := run(all, "svc", "Extract", evidence.Clean)
	record(t, s, batchOf("a", 2, evidence.Daily{Runs: keyed(other)}))
	if _, ok := runs(t, s, day)[other.TraceID]; !ok {
		t.Error("a run of another pipeline found no room")
	}
}

func keepsBad(t *testing.T, s evidence.Store) {
	const all = evidence.MaxRuns + evidence.MaxBad + 50
	list := make([]evidence.Run, all)
	for i := range list {
		list[i] = run(i, "svc", "Load", evidence.Clean)
	}
	record(t, s, batchOf("a", 1, evidence.Daily{Runs: keyed(list...)}))
	for i := range list[:50] {
		list[i].Grade, list[i].Reason = evidence.WouldBreak, "expired"
		if i%2 == 0 {
			list[i].Grade, list[i].Reason, list[i].Refused = evidence.NoToken, "token_absent", true
		}
	}
	record(t, s, batchOf("a", 2, evidence.Daily{Runs: keyed(list[:50]...)}))
	kept := runs(t, s, day)
	for _, r := range list[:50] {
		if kept[r.TraceID].Grade != r.Grade {
			t.Errorf("%s failed and is kept as %q", r.TraceID, kept[r.TraceID].Grade)
		}
	}
	for i := range list {
		list[i].Grade = evidence.WouldOpen
	}
	record(t, s, batchOf("a", 3, evidence.Daily{Runs: keyed(list...)}))
	if got := len(runs(t, s, day)); got != evidence.MaxRuns+evidence.MaxBad {
		t.Errorf("%d bad runs are kept, want %d", got, evidence.MaxRuns+evidence.MaxBad)
	}
}

// keepsBadOfAccount lets one account fail in more pipelines than can be kept whole.
func keepsBadOfAccount(t *testing.T, s evidence.Store) {
	const pipelines = evidence.MaxBadOfAccount/evidence.MaxBad + 2
	of := func(account string, pipeline int) {
		list := make([]evidence.Run, evidence.MaxRuns+evidence.MaxBad)
		for i := range list {
			list[i] = run(pipeline*len(list)+i, account, fmt.Sprint("Load", pipeline), evidence.WouldBreak)
			list[i].TraceID = account + list[i].TraceID
		}
		b := batchOf(account, int64(pipeline+1), evidence.Daily{Runs: keyed(list...)})
		record(t, s, b)
	}
	for i := range pipelines {
		of("svc", i)
	}
	want := pipelines*evidence.MaxRuns + evidence.MaxBadOfAccount
	if got := len(runs(t, s, day)); got != want {
		t.Errorf("%d bad runs are kept of an account, want %d", got, want)
	}
	of("other", 0)
	if got := len(runs(t, s, day)) - want; got != evidence.MaxRuns+evidence.MaxBad {
		t.Errorf("%d bad runs are kept of another account, want %d", got, evidence.MaxRuns+evidence.MaxBad)
	}
}

func pipelineLater(t *testing.T, s evidence.Store) {
	list := make([]evidence.Run, evidence.MaxRuns+1)
	for i := range list {
		list[i] = run(i, "svc", "", evidence.Clean)
		record(t, s, batchOf("a", int64(2*i+1), evidence.Daily{Runs: keyed(list[i])}))
		list[i].Pipeline = fmt.Sprint("Load", i)
		record(t, s, batchOf("a", int64(2*i+2), evidence.Daily{Runs: keyed(list[i])}))
	}
	got := runs(t, s, day)
	if len(got) != len(list) {
		t.Fatalf("%d runs are kept, want %d: each has a pipeline of its own", len(got), len(list))
	}
	for _, r := range list {
		same(t, "run", got[r.TraceID], r)
	}
}

func manyPipelines(t *testing.T, s evidence.Store) {
	list := make([]evidence.Run, evidence.MaxPipelines+20)
	for i := range list {
		list[i] = run(i, "svc", fmt.Sprint("Made up ", i), evidence.WouldBreak)
	}
	record(t, s, batchOf("a", 1, evidence.Daily{Runs: keyed(list...)}))
	if got := len(runs(t, s, day)); got != evidence.MaxPipelines {
		t.Errorf("%d pipelines are kept, want %d", got, evidence.MaxPipelines)
	}
	honest := run(len(list), "other", "Load", evidence.Clean)
	record(t, s, batchOf("a", 2, evidence.Daily{Runs: keyed(honest)}))
	if _, ok := runs(t, s, day)[honest.TraceID]; !ok {
		t.Error("another account found no room")
	}
}

// losses is a part that has nothing else.
func losses(team identity.Team, n int64) map[identity.Team]*evidence.TeamBatch {
	return map[identity.Team]*evidence.TeamBatch{team: {Lost: n}}
}

// lossesOfTeams records losses of two teams and of nobody knows whom, in one batch
// and, of one team, in the next.
func lossesOfTeams(t *testing.T, s evidence.Store) {
	b := batchOf("a", 1, evidence.Daily{})
	b.Teams[team].Lost = 3
	b.Teams["another"] = &evidence.TeamBatch{Lost: 5, From: moment(-9)}
	b.Teams[""] = &evidence.TeamBatch{Lost: 7}
	record(t, s, b)
	record(t, s, b)
	record(t, s, evidence.Batch{Replica: "a", Seq: 2, From: moment(1), To: moment(2), Teams: losses(team, 2)})
	got, err := s.Gaps(t.Context(), moment(-10))
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b evidence.Gap) int { return cmp.Compare(a.Team, b.Team) })
	want := []evidence.Gap{
		{Replica: "a", From: moment(0), To: moment(1), Requests: 7},
		{Replica: "a", Team: "another", From: moment(-9), To: moment(1), Requests: 5},
		{Replica: "a", Team: team, From: moment(0), To: moment(2), Requests: 5},
	}
	slices.SortFunc(want, func(a, b evidence.Gap) int { return cmp.Compare(a.Team, b.Team) })
	same(t, "gaps", got, want)
}

// partComesLater records what waited of an earlier batch together with what other
// teams have learned since, and then what the team itself has.
func partComesLater(t *testing.T, s evidence.Store) {
	waited := everything().Teams[team]
	waited.Seq, waited.From, waited.To, waited.Lost = 4, moment(-20), moment(-19), 2
	count := evidence.Count{Verdict: "match_allow", Source: "client"}
	other := func() *evidence.TeamBatch {
		return &evidence.TeamBatch{Days: map[evidence.Day]*evidence.Daily{day: {Counts: map[evidence.Count]int64{count: 1}}}}
	}
	b := evidence.Batch{Replica: "a", Seq: 6, From: moment(0), To: moment(1), Teams: map[identity.Team]*evidence.TeamBatch{team: waited, "another": other()}}
	record(t, s, b)
	record(t, s, b)
	want := everything()
	want.Teams[team].Days[day].Counts[count] += 2
	more := batchOf("a", 5, evidence.Daily{Counts: map[evidence.Count]int64{count: 2}})
	record(t, s, more)
	record(t, s, b) // an answer that comes late
	got := daily(t, s, day)
	same(t, "counts", got.Counts, want.Teams[team].Days[day].Counts)
	if d, err := s.Daily(t.Context(), "another", day); err != nil || d.Counts[count] != 1 {
		t.Errorf("another team: %v, %v", d.Counts, err)
	}
	gaps, err := s.Gaps(t.Context(), moment(-30))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "gaps", gaps, []evidence.Gap{{Replica: "a", Team: team, From: moment(-20), To: moment(-19), Requests: 2}})
}

func lossLeavesGap(t *testing.T, s evidence.Store) {
	b := evidence.Batch{Replica: "a", Seq: 4, From: moment(0), To: moment(60), Teams: losses("", 17)}
	record(t, s, b)
	record(t, s, b)
	want := []evidence.Gap{{Replica: "a", From: moment(0), To: moment(60), Requests: 17}}
	got, err := s.Gaps(t.Context(), moment(60))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "gaps", got, want)
	if got, err = s.Gaps(t.Context(), moment(61)); err != nil || len(got) != 0 {
		t.Errorf("gaps after it: %v, %v", got, err)
	}
}

func lossesGoOn(t *testing.T, s evidence.Store) {
	loses := func(replica string, seq int64, from, to int, n int64) {
		b := evidence.Batch{Replica: replica, Seq: seq, From: moment(from), To: moment(to), Teams: losses("", n)}
		record(t, s, b)
		record(t, s, b) // whose answer did not come
	}
	for i := range 100 {
		loses("a", int64(i+1), i, i+1, 2)
		loses("b", int64(i+1), 2*i, 2*i+1, 1)
	}
	loses("a", 101, 161, 162, 5)
	got, err := s.Gaps(t.Context(), moment(0))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "gaps", got, []evidence.Gap{
		{Replica: "a", From: moment(0), To: moment(100), Requests: 200},
		{Replica: "a", From: moment(161), To: moment(162), Requests: 5},
		{Replica: "b", From: moment(0), To: moment(199), Requests: 100},
	})
}

// neverRecorded records a batch with a team whose name no key may have.
func neverRecorded(t *testing.T, s evidence.Store) {
	b := everything()
	count := evidence.Count{Verdict: "no_token", Source: "client"}
	b.Teams["two words"] = &evidence.TeamBatch{Days: map[evidence.Day]*evidence.Daily{day: {Counts: map[evidence.Count]int64{count: 7}}}}
	for range 2 {
		err := s.Record(t.Context(), b)
		var lost *evidence.LostError
		if !errors.As(err, &lost) || errors.Is(err, rollout.ErrUnavailable) || lost.Requests() != 7 || len(lost.Parts) != 1 || lost.Parts[0].Team != "two words" {
			t.Fatalf("Record: %v", err)
		}
	}
	delete(b.Teams, "two words")
	checkWhole(t, s, b)
	got, err := s.Gaps(t.Context(), moment(0))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "gaps", got, []evidence.Gap{{Replica: "a", Team: "two words", From: moment(0), To: moment(1), Requests: 7}})
}

func refusals(t *testing.T, s evidence.Store, day evidence.Day) map[evidence.Refusal]evidence.Refused {
	t.Helper()
	got, err := s.Refusals(t.Context(), team, day)
	if err != nil {
		t.Fatalf("Refusals: %v", err)
	}
	return got
}

func refusalsAddUp(t *testing.T, s evidence.Store) {
	same(t, "refusals of a day without any", refusals(t, s, day), map[evidence.Refusal]evidence.Refused{})
	expired := evidence.Refusal{Account: "svc etl|ü", Reason: "legacy_expired"}
	roles := evidence.Refusal{Account: "svc:1", Pipeline: "Load:Users", Reason: "action_denied", Roles: true}
	nobody := evidence.Refusal{Reason: "token_absent", Already: true}
	first := map[evidence.Refusal]evidence.Refused{expired: {Requests: 2, Last: moment(9)}, nobody: {Requests: 1, Last: moment(1)}}
	record(t, s, batchOf("a", 1, evidence.Daily{Refusals: first}))
	record(t, s, batchOf("a", 1, evidence.Daily{Refusals: first})) // again
	record(t, s, batchOf("b", 1, evidence.Daily{Refusals: map[evidence.Refusal]evidence.Refused{
		expired: {Requests: 40, Last: moment(3)}, roles: {Requests: 5, Last: moment(4)},
	}}))
	same(t, "refusals", refusals(t, s, day), map[evidence.Refusal]evidence.Refused{
		expired: {Requests: 42, Last: moment(9)}, nobody: {Requests: 1, Last: moment(1)}, roles: {Requests: 5, Last: moment(4)},
	})
	same(t, "refusals of another day", refusals(t, s, "2130-01-03"), map[evidence.Refusal]evidence.Refused{})
}

func manyRefusals(t *testing.T, s evidence.Store) {
	const more = 50
	all := make(map[evidence.Refusal]evidence.Refused)
	for i := range evidence.MaxRefusals + more {
		all[evidence.Refusal{Account: "svc", Pipeline: fmt.Sprint("Made up ", i), Reason: "aud_mismatch"}] = evidence.Refused{Requests: 1, Last: moment(i)}
	}
	record(t, s, batchOf("a", 1, evidence.Daily{Refusals: all}))
	got := refusals(t, s, day)
	wide := got[evidence.Refusal{Account: "svc", Reason: "aud_mismatch"}]
	if len(got) != evidence.MaxRefusals+1 || wide.Requests != more {
		t.Errorf("%d kinds, and %d requests without a pipeline; want %d and %d", len(got), wide.Requests, evidence.MaxRefusals+1, more)
	}
	record(t, s, batchOf("a", 2, evidence.Daily{Refusals: map[evidence.Refusal]evidence.Refused{
		{Account: "other", Pipeline: "Load", Reason: "expired"}: {Requests: 7, Last: moment(1)},
	}}))
	if got := refusals(t, s, day)[evidence.Refusal{Account: "other", Reason: "expired"}]; got.Requests != 7 {
		t.Errorf("another account found no room: %+v", got)
	}
}

func evidenceEnded(t *testing.T, s evidence.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, daily := s.Daily(ctx, team, day)
	for what, err := range map[string]error{"Record": s.Record(ctx, everything()), "Daily": daily} {
		if !errors.Is(err, rollout.ErrUnavailable) {
			t.Errorf("%s: %v, want %v", what, err, rollout.ErrUnavailable)
		}
	}
}

func recordRace(t *testing.T, s evidence.Store) {
	const replicas, batches = 8, 20
	count := evidence.Count{Verdict: "match_allow", Source: "client"}
	var all sync.WaitGroup
	for n := range replicas {
		all.Go(func() {
			for i := range batches {
				b := batchOf(fmt.Sprint(n), int64(i+1), evidence.Daily{
					Counts: map[evidence.Count]int64{count: 1},
					Runs:   keyed(run(n, fmt.Sprint("svc", n), "Load", evidence.Grade(i%2))),
				})
				if err := s.Record(t.Context(), b); err != nil {
					t.Errorf("Record: %v", err)
				}
			}
		})
	}
	all.Wait()
	d := daily(t, s, day)
	if d.Counts[count] != replicas*batches || len(d.Runs) != replicas {
		t.Errorf("counted %d and kept %d runs, want %d and %d", d.Counts[count], len(d.Runs), replicas*batches, replicas)
	}
}

// beginsOnce records two batches, the later one first, as replicas do.
func beginsOnce(t *testing.T, s evidence.Store) {
	f := evidence.Family{Account: "svc", Name: "Load"}
	for i, at := range []int{20, 10} {
		b := batchOf("a", int64(i+1), evidence.Daily{})
		b.Teams[team].Accounts = map[string]evidence.Use{"svc": {Legacy: moment(at)}}
		b.Teams[team].Families = map[evidence.Family]evidence.FamilyUse{f: {Last: moment(at)}}
		b.Teams[team].Since = moment(at)
		if at == 10 { // the earlier use was without fault
			b.Teams[team].Families[f] = evidence.FamilyUse{Last: moment(at), Clean: moment(at)}
		}
		record(t, s, b)
	}
	since, err := s.Since(t.Context(), team)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "since", since, moment(20))
	families, err := s.Families(t.Context(), team)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "families", families, map[evidence.Family]evidence.FamilyUse{f: {Last: moment(20), Clean: moment(10)}})
}
