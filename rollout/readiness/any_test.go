package readiness_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

// anyFacts draws facts that no store would give and no configuration hold, too.
func anyFacts(t *rapid.T) readiness.Facts {
	names := rapid.SampledFrom([]string{"", "a", "b", "svc / c"})
	few := rapid.SampledFrom([]string{"", "a"}) // so that some runs are of the same kind
	reasons := rapid.SampledFrom([]identity.Reason{"", identity.Expired, identity.TokenAbsent, identity.JWKSUnavailable, "no such reason"})
	times := rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.IntRange(0, 9).Draw(t, "never") == 0 {
			return time.Time{}
		}
		// Few different ones, so that some are the same.
		return now.Add(time.Duration(rapid.IntRange(-12, 1).Draw(t, "days and a half")) * 36 * hour)
	})
	share := rapid.SampledFrom([]float64{0, 0.001, 0.01, 0.5, 0.99, 1, 2, -1})
	length := rapid.SampledFrom([]time.Duration{-day, 0, 1, day, 14 * day, 31 * day, 400 * day})
	count := rapid.SampledFrom([]int{-1, 0, 1, 2, 5, 20})
	f := readiness.Facts{
		Team: "data-eng", Now: now,
		State: rollout.State{
			Team: "data-eng", Percent: rollout.Percent(rapid.IntRange(0, 100).Draw(t, "percent")), Previous: rollout.Percent(rapid.IntRange(0, 100).Draw(t, "previous")),
			RaisedAt: times.Draw(t, "raised"), Retired: rapid.Bool().Draw(t, "retired"),
		},
		Limits: readiness.Limits{
			Cycle: length.Draw(t, "cycle"), Window: length.Draw(t, "window"), Missing: share.Draw(t, "missing"), Tokens: share.Draw(t, "tokens"),
			CleanAfter: count.Draw(t, "clean after"), BadRuns: share.Draw(t, "bad runs"), Confidence: share.Draw(t, "confidence"), BrokenADay: share.Draw(t, "broken"),
			CensusDays: count.Draw(t, "census"), Indeterminate: share.Draw(t, "indeterminate"), SoakRuns: count.Draw(t, "soak"), RetireAfter: length.Draw(t, "retire"),
		},
		Since: times.Draw(t, "since"), Missing: rapid.Int64Range(0, 10).Draw(t, "lost"), Requests: rapid.Int64Range(0, 1000).Draw(t, "requests"), Unwatched: length.Draw(t, "unwatched"),
		Skewed: rapid.Bool().Draw(t, "skewed"), Younger: times.Draw(t, "younger"),
		Days: make(map[evidence.Day]evidence.Daily), Uses: make(map[string]evidence.Use), Families: make(map[evidence.Family]evidence.FamilyUse),
		Accounts: map[string]readiness.Account{"a": {Legacy: true}, "b": {OIDC: true}},
	}
	if rapid.Bool().Draw(t, "default limits") {
		f.Limits = readiness.DefaultLimits()
	}
	if rapid.Bool().Draw(t, "configured") {
		f.Config = func(string) string { return "new" }
	}
	if rapid.Bool().Draw(t, "keyed") {
		f.Key = func(account, pipeline string) string { return account + "/" + pipeline }
	}
	for range rapid.IntRange(0, 3).Draw(t, "uses") {
		f.Uses[names.Draw(t, "user")] = evidence.Use{Legacy: times.Draw(t, "legacy"), Token: times.Draw(t, "token")}
		f.Families[evidence.Family{Account: names.Draw(t, "whose"), Name: names.Draw(t, "family")}] = evidence.FamilyUse{Last: times.Draw(t, "last"), Clean: times.Draw(t, "clean")}
		f.Fixed = append(f.Fixed, readiness.Fix{Account: names.Draw(t, "fixed"), Pipeline: names.Draw(t, "repaired"), Reason: reasons.Draw(t, "fault"), At: times.Draw(t, "fixed at")})
		f.Waivers = append(f.Waivers, readiness.Waiver{Account: names.Draw(t, "waived"), Reason: reasons.Draw(t, "signal"), Until: times.Draw(t, "until")})
	}
	runs := rapid.Custom(func(t *rapid.T) evidence.Run {
		return evidence.Run{
			Account: few.Draw(t, "account"), Pipeline: few.Draw(t, "pipeline"), Grade: rapid.SampledFrom(evidence.Grades()).Draw(t, "grade"),
			Reason: rapid.SampledFrom([]identity.Reason{identity.Expired, "no such reason"}).Draw(t, "reason"), TraceID: names.Draw(t, "trace"), Detail: names.Draw(t, "detail"), Worst: times.Draw(t, "worst"),
			First: times.Draw(t, "first"), Last: times.Draw(t, "last"), Legacy: rapid.Bool().Draw(t, "legacy"), Token: rapid.Bool().Draw(t, "token"),
			Enforced: rapid.Bool().Draw(t, "enforced"), Refused: rapid.Bool().Draw(t, "refused"), Brownout: rapid.Bool().Draw(t, "brownout"),
			Observed: rapid.Bool().Draw(t, "observed"), FirstExpiry: times.Draw(t, "first expiry"), LastExpiry: times.Draw(t, "last expiry"),
			Config: rapid.SampledFrom([]string{"old", "new"}).Draw(t, "config"),
		}
	})
	for i, r := range rapid.SliceOfN(runs, 0, 40).Draw(t, "runs") {
		of := evidence.DayOf(r.First)
		if i%10 == 9 {
			of = "no day"
		}
		if _, ok := f.Days[of]; !ok {
			f.Days[of] = evidence.Daily{Runs: make(map[evidence.RunKey]evidence.Run), Unkept: rapid.Int64Range(-1, 100_000).Draw(t, "unkept")}
		}
		f.Days[of].Runs[evidence.RunKey{byte(i)}] = r
	}
	return f
}

// again is the same facts in maps that were filled in another order.
func again(f readiness.Facts) readiness.Facts {
	days := make(map[evidence.Day]evidence.Daily)
	for _, d := range slices.Backward(slices.Sorted(maps.Keys(f.Days))) {
		runs := make(map[evidence.RunKey]evidence.Run, 1000)
		for _, key := range slices.Backward(slices.SortedFunc(maps.Keys(f.Days[d].Runs), func(a, b evidence.RunKey) int { return slices.Compare(a[:], b[:]) })) {
			runs[key] = f.Days[d].Runs[key]
		}
		daily := f.Days[d]
		daily.Runs = runs
		days[d] = daily
	}
	f.Days, f.Uses, f.Families, f.Accounts = days, maps.Clone(f.Uses), maps.Clone(f.Families), maps.Clone(f.Accounts)
	return f
}

func judgesAnything(t *rapid.T) {
	f := anyFacts(t)
	r := readiness.Judge(f)
	for range 3 {
		if other := readiness.Judge(again(f)); !reflect.DeepEqual(r, other) {
			t.Fatalf("the same facts give two reports:\n%s", gocmp.Diff(r, other, gocmp.AllowUnexported(r)))
		}
	}
	// Of not-a-number and of the infinite there is no JSON.
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(readiness.Answers(), r.Answer) || r.Why == "" && !f.State.Hold.Active(now) {
		t.Fatalf("no answer, or no reason for it: %s", text)
	}
	if r.UpTo < r.Percent || r.UpTo > rollout.Full || r.Answer == readiness.Ready && r.Percent < rollout.Full && r.UpTo == r.Percent {
		t.Fatalf("%s up to %d of a team at %d", r.Answer, r.UpTo, r.Percent)
	}
	if r.Answer == readiness.Blocked && r.Owner == "" {
		t.Fatalf("blocked, and nobody acts: %s", text)
	}
	for _, x := range []float64{r.Bound, r.Coverage} {
		if x < 0 || x > 1 || math.IsNaN(x) {
			t.Fatalf("%g is no share: %s", x, text)
		}
	}
	for _, c := range slices.Concat(r.Checks, r.Retire) {
		if c.Wait < 0 || c.Pass && (c.Why != "" || c.Owner != "" || c.Wait != 0 || c.Blocks) || !c.Pass && c.Why == "" {
			t.Fatalf("%+v", c)
		}
	}
	if o := r.Outlook(rollout.Full); math.IsNaN(o.OneIn) || math.IsInf(o.OneIn, 0) || o.OneIn < 0 {
		t.Fatalf("one broken run in %g days", o.OneIn)
	}
}

func TestJudgeIsAFunctionOfItsFacts(t *testing.T) { rapid.Check(t, judgesAnything) }

func TestRunsOfTheSameMomentAreJudgedInOneOrder(t *testing.T) {
	team := good()
	for i := range 20 {
		r := bad("svc-etl", "LoadUsers", identity.Expired)
		r.TraceID, r.Detail = "", fmt.Sprintf("detail %d", i)
		team.add(hour, r)
	}
	want := readiness.Judge(team.Facts)
	for range 10 {
		if got := readiness.Judge(again(team.Facts)); !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v\nand\n%+v", got.Failures, want.Failures)
		}
	}
}

func TestWhenTheNextRunIsDueDoesNotDependOnTheOrderOfPipelines(t *testing.T) {
	team := newTeam()
	team.every(14, 1, clean("svc-a", "Nightly"))
	for i := range 4 {
		team.add(time.Duration(12-i)*day, clean("svc-a", "Overdue")) // that is due now
	}
	team.Config = func(string) string { return "new" }
	want := readiness.Judge(team.Facts)
	for range 20 {
		if got := check(t, readiness.Judge(again(team.Facts)), readiness.Current); got.Wait != check(t, want, readiness.Current).Wait {
			t.Fatalf("the next run is due in %s, or in %s", got.Wait, check(t, want, readiness.Current).Wait)
		}
	}
}

func FuzzJudge(f *testing.F) { f.Fuzz(rapid.MakeFuzz(judgesAnything)) }
