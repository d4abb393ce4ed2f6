package effect_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
	"crossfade/rollout/evidence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const team identity.Team = "data-eng"

// noon is the present of the tests, of the day today.
var (
	noon      = time.Date(2030, 5, 14, 12, 0, 0, 0, time.UTC)
	today     = evidence.DayOf(noon)
	yesterday = today.Before()
)

// The ways to bucket.
var (
	byPipeline  = rollout.Keying{Stickiness: rollout.StickPipeline, Runs: true}
	byPrincipal = rollout.Keying{Stickiness: rollout.StickPrincipal, Runs: true}
	byRun       = rollout.Keying{Stickiness: rollout.StickRun, Runs: true}
	http        = rollout.Keying{Stickiness: rollout.StickPrincipal}
)

// at is a team at a percentage.
func at(percent rollout.Percent) rollout.State {
	return rollout.State{Team: team, Percent: percent, Revision: 1, Algorithm: rollout.Algorithm}
}

// pipelineAt returns a pipeline of svc-etl that is selected from the percentage
// on and not below, accountAt such an account.
func pipelineAt(percent rollout.Percent) string {
	for i := 0; ; i++ {
		if name := fmt.Sprint("Pipeline", i); rollout.Threshold(team, "svc-etl/"+name) == percent {
			return name
		}
	}
}

func accountAt(percent rollout.Percent) string {
	for i := 0; ; i++ {
		if name := fmt.Sprint("svc-", i); rollout.Threshold(team, name) == percent {
			return name
		}
	}
}

// day is a day of these runs.
func day(runs ...evidence.Run) evidence.Daily {
	d := evidence.Daily{Runs: make(map[evidence.RunKey]evidence.Run)}
	for i, r := range runs {
		d.Runs[evidence.NewRunKey(r.Account, fmt.Sprint(i))] = r
	}
	return d
}

// times is n runs alike.
func times(n int, r evidence.Run) []evidence.Run {
	runs := make([]evidence.Run, n)
	for i := range runs {
		runs[i] = r
	}
	return runs
}

func all(groups ...[]evidence.Run) evidence.Daily {
	var runs []evidence.Run
	for _, g := range groups {
		runs = append(runs, g...)
	}
	return day(runs...)
}

func etl(pipeline string) evidence.Run { return evidence.Run{Account: "svc-etl", Pipeline: pipeline} }

func TestADayOfModeObserveIsTold(t *testing.T) {
	t.Parallel()
	observed := etl(pipelineAt(20))
	observed.Observed = true
	noon := yesterday.End().Add(12 * time.Hour)
	for name, tc := range map[string]struct {
		runs evidence.Daily
		is   bool
		text string
	}{
		"all of it":         {all(times(3, observed)), true, "3 of 3, mode observe enforced none"},
		"until it was over": {all(times(3, observed), times(1, etl(pipelineAt(20)))), false, "4 of 4"},
		"a day without any": {day(), false, "-"},
	} {
		got := effect.Effective(yesterday, tc.runs, at(25), byPipeline)
		if got.Observed != tc.is || got.Text(noon) != tc.text {
			t.Errorf("%s: %+v, %q; want %q", name, got, got.Text(noon), tc.text)
		}
	}
}

func TestTheEffectiveShareIsThatOfTheDaysRuns(t *testing.T) {
	t.Parallel()
	early, late := pipelineAt(20), pipelineAt(80)
	some := all(times(3, etl(early)), times(7, etl(late)), times(2, etl("")))
	low, high := accountAt(10), accountAt(90)
	accounts := all(times(4, evidence.Run{Account: low}), times(6, evidence.Run{Account: high, Pipeline: early}))
	enforced := etl(early)
	enforced.Enforced = true
	brownout := enforced
	brownout.Brownout = true
	for name, tc := range map[string]struct {
		runs   evidence.Daily
		state  rollout.State
		keying rollout.Keying
		want   effect.Share
		text   string
	}{
		"a ramp, by pipeline":                                {some, at(25), byPipeline, effect.Share{Runs: 12, Selected: 3}, "3 of 12"},
		"runs without a pipeline are not selected below 100": {some, at(99), byPipeline, effect.Share{Runs: 12, Selected: 10}, "10 of 12"},
		"and are at 100":                                     {some, at(100), byPipeline, effect.Share{Runs: 12, Selected: 12}, "12 of 12"},
		"nothing at 0":                                       {some, at(0), byPipeline, effect.Share{Runs: 12}, "0 of 12"},
		"a team that was never changed":                      {some, rollout.State{Team: team}, byPipeline, effect.Share{Runs: 12}, "0 of 12"},
		"all of a retired team":                              {some, rollout.State{Team: team, Percent: 100, Retired: true}, byPipeline, effect.Share{Runs: 12, Selected: 12}, "12 of 12"},
		"by account":                                         {accounts, at(50), byPrincipal, effect.Share{Runs: 10, Selected: 4}, "4 of 10"},
		"of profile http":                                    {accounts, at(50), http, effect.Share{Runs: 10, Selected: 4}, "4 of 10"},
		"by run it can only be estimated":                    {accounts, at(25), byRun, effect.Share{Runs: 10, Selected: 3, Estimated: true}, "about 3 of 10"},
		"by run, all":                                        {accounts, at(100), byRun, effect.Share{Runs: 10, Selected: 10}, "10 of 10"},
		"by run, none":                                       {accounts, at(0), byRun, effect.Share{Runs: 10}, "0 of 10"},
		"what was enforced is told beside":                   {all(times(2, enforced), times(3, etl(early))), at(25), byPipeline, effect.Share{Runs: 5, Selected: 5, Enforced: 2}, "5 of 5"},
		"a brownout is no part of what a percentage is":      {day(brownout, enforced), at(25), byPipeline, effect.Share{Runs: 2, Selected: 2, Enforced: 1}, "2 of 2"},
		"a day without runs":                                 {day(), at(50), byPipeline, effect.Share{}, "-"},
	} {
		tc.want.Day = yesterday
		got := effect.Effective(yesterday, tc.runs, tc.state, tc.keying)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if text := got.Text(noon); text != tc.text {
			t.Errorf("%s: %q, want %q", name, text, tc.text)
		}
	}
}

func TestAShareOfAnotherDaySaysSo(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]evidence.Day{"2 of 8": yesterday, "2 of 8 today": today, "2 of 8 on 2030-05-12": yesterday.Before()} {
		if got := (effect.Share{Day: d, Runs: 8, Selected: 2}).Text(noon); got != want {
			t.Errorf("of %s: %q, want %q", d, got, want)
		}
	}
	for want, s := range map[float64]effect.Share{0: {}, 0.25: {Runs: 8, Selected: 2}, 1: {Runs: 8, Selected: 8}} {
		if got := s.Ratio(); got != want {
			t.Errorf("%+v: ratio %v, want %v", s, got, want)
		}
	}
}

// A raise adds to the share and names exactly those that it adds.
func TestARaiseNamesWhomItAdds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		keying := rapid.SampledFrom([]rollout.Keying{byPipeline, byPrincipal, http}).Draw(t, "keying")
		from := rollout.Percent(rapid.IntRange(0, 100).Draw(t, "from"))
		to := rollout.Percent(rapid.IntRange(int(from), 100).Draw(t, "to"))
		runs := rapid.SliceOf(rapid.Custom(func(t *rapid.T) evidence.Run {
			return evidence.Run{Account: rapid.StringMatching(`svc-[a-c]`).Draw(t, "account"), Pipeline: rapid.StringMatching(`[A-D]?`).Draw(t, "pipeline")}
		})).Draw(t, "runs")
		sample := effect.SampleOf(yesterday, day(runs...))
		before, after := sample.At(at(from), from, keying), sample.At(at(from), to, keying)
		names, aDay := effect.NewlySelected([]effect.Sample{{}, sample}, at(from), from, to, keying)
		if got := after.Selected - before.Selected; float64(got) != aDay || (got > 0) != (len(names) > 0) || got < 0 {
			t.Fatalf("from %d to %d of %d: %d more, said are %v of %v", from, to, len(runs), got, aDay, names)
		}
	})
}

func TestWhoIsNewlySelectedIsNamedByWhatIsBucketed(t *testing.T) {
	t.Parallel()
	p20, p40, p60 := pipelineAt(20), pipelineAt(40), pipelineAt(60)
	a20, a40 := accountAt(20), accountAt(40)
	sample := func(d evidence.Daily) effect.Sample { return effect.SampleOf(yesterday, d) }
	pipelines := sample(all(times(2, etl(p20)), times(4, etl(p40)), times(6, etl(p60)), times(3, etl(""))))
	accounts := sample(all(times(5, evidence.Run{Account: a20, Pipeline: "A"}), times(7, evidence.Run{Account: a40, Pipeline: "B"})))
	for name, tc := range map[string]struct {
		samples  []effect.Sample
		state    rollout.State
		from, to rollout.Percent
		keying   rollout.Keying
		names    []string
		aDay     float64
	}{
		"pipelines": {[]effect.Sample{{}, pipelines}, at(25), 25, 50, byPipeline, []string{"svc-etl / " + p40}, 4},
		"a team that was never changed": {
			[]effect.Sample{{}, pipelines}, rollout.State{Team: team}, 0, 30, byPipeline, []string{"svc-etl / " + p20}, 2,
		},
		"at 100 runs without a task as well": {
			[]effect.Sample{{}, pipelines}, at(50), 50, 100, byPipeline, []string{"svc-etl / (no task)", "svc-etl / " + p60}, 9,
		},
		"accounts":                               {[]effect.Sample{{}, accounts}, at(25), 25, 50, byPrincipal, []string{a40}, 7},
		"accounts of profile http":               {[]effect.Sample{{}, accounts}, at(25), 25, 50, http, []string{a40}, 7},
		"runs have no names":                     {[]effect.Sample{{}, accounts}, at(25), 25, 50, byRun, nil, 3},
		"runs, up to all":                        {[]effect.Sample{{}, accounts}, at(75), 75, 100, byRun, nil, 3},
		"a mean of full days":                    {[]effect.Sample{accounts, accounts, {}, accounts, {}, {}}, at(25), 25, 50, byPrincipal, []string{a40}, 14.0 / 3},
		"today where there is no other day":      {[]effect.Sample{accounts, {}, {}}, at(25), 25, 50, byPrincipal, []string{a40}, 7},
		"today's name, though it is no full day": {[]effect.Sample{accounts, sample(day(etl(p20)))}, at(25), 25, 50, byPrincipal, []string{a40}, 0},
		"no runs at all":                         {[]effect.Sample{{}, {}}, at(25), 25, 50, byPipeline, nil, 0},
		"a retired team has them all":            {[]effect.Sample{{}, pipelines}, rollout.State{Team: team, Percent: 100, Retired: true}, 100, 100, byPipeline, nil, 0},
	} {
		names, aDay := effect.NewlySelected(tc.samples, tc.state, tc.from, tc.to, tc.keying)
		if diff := cmp.Diff(tc.names, names); diff != "" || aDay != tc.aDay {
			t.Errorf("%s: %v runs a day, want %v (-want +got):\n%s", name, aDay, tc.aDay, diff)
		}
	}
}

func TestALoweringCountsWhoMayUseAPasswordAgain(t *testing.T) {
	t.Parallel()
	p20, p40 := pipelineAt(20), pipelineAt(40)
	refused := func(pipeline string, ago time.Duration, change ...func(*evidence.Run)) evidence.Run {
		r := evidence.Run{Account: "svc-etl", Pipeline: pipeline, Refused: true, Legacy: true, Enforced: true, Last: noon.Add(-ago)}
		for _, c := range change {
			c(&r)
		}
		return r
	}
	for name, tc := range map[string]struct {
		days     []evidence.Daily
		from, to rollout.Percent
		keying   rollout.Keying
		want     int
	}{
		"those that are no longer selected":  {[]evidence.Daily{day(refused(p20, 0), refused(p40, time.Hour), refused(p40, 2*time.Hour))}, 50, 30, byPipeline, 2},
		"all of them at 0":                   {[]evidence.Daily{day(refused(p20, 0), refused(p40, 0))}, 50, 0, byPipeline, 2},
		"of the day before, within 24 hours": {[]evidence.Daily{day(), day(refused(p40, 23*time.Hour), refused(p40, 24*time.Hour))}, 50, 0, byPipeline, 1},
		"only whose password was refused for its being one": {[]evidence.Daily{day(
			refused(p40, 0, func(r *evidence.Run) { r.Legacy = false }),
			refused(p40, 0, func(r *evidence.Run) { r.Enforced = false }),
			refused(p40, 0, func(r *evidence.Run) { r.Refused = false }),
			refused(p40, 0, func(r *evidence.Run) { r.Brownout = true }),
		)}, 50, 0, byPipeline, 0},
		"by run, in proportion": {[]evidence.Daily{all(times(10, refused(p40, 0)))}, 50, 20, byRun, 6},
		"by run, at 0":          {[]evidence.Daily{all(times(10, refused(p40, 0)))}, 50, 0, byRun, 10},
	} {
		if got := effect.Regained(tc.days, at(tc.from), tc.from, tc.to, tc.keying, noon); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

func TestAForecastIsSaidInWholeSentences(t *testing.T) {
	t.Parallel()
	many := make([]string, 10)
	for i := range many {
		many[i] = fmt.Sprintf("svc-%d", i)
	}
	for name, tc := range map[string]struct {
		forecast effect.Forecast
		want     []string
	}{
		"nothing": {effect.Forecast{}, nil},
		"a raise": {effect.Forecast{Selected: []string{"a / B", "a / C"}, RunsADay: 21.4, Keep: 6}, []string{
			"newly selected: a / B, a / C (about 21 more runs a day)", "6 runs in flight keep their password until they end",
		}},
		"a raise of one": {effect.Forecast{Selected: []string{"a / B"}, RunsADay: 1.2, Keep: 1}, []string{
			"newly selected: a / B (about 1 more run a day)", "1 run in flight keeps its password until it ends",
		}},
		"that may break":  {effect.Forecast{Selected: []string{"a"}, RunsADay: 3, OneIn: 11.4}, []string{"newly selected: a (about 3 more runs a day)", "at worst 1 broken run in 11 days"}},
		"that often may":  {effect.Forecast{OneIn: 0.4}, []string{"at worst 3 broken runs a day"}},
		"that daily may":  {effect.Forecast{OneIn: 1.9}, []string{"at worst 1 broken run a day"}},
		"of rare runs":    {effect.Forecast{Selected: []string{"a"}, RunsADay: 0.28}, []string{"newly selected: a (about 0.3 more runs a day)"}},
		"by run":          {effect.Forecast{RunsADay: 3}, []string{"newly selected: about 3 more runs a day, each by itself"}},
		"of many":         {effect.Forecast{Selected: many, RunsADay: 30}, []string{"newly selected: svc-0, svc-1, svc-2, svc-3, svc-4, svc-5, svc-6, svc-7 and 2 more (about 30 more runs a day)"}},
		"a retirement":    {effect.Forecast{Lose: 2}, []string{"2 runs in flight lose their password at once"}},
		"of one":          {effect.Forecast{Lose: 1}, []string{"1 run in flight loses its password at once"}},
		"a lowering":      {effect.Forecast{Regain: 12, Freed: 3}, []string{"12 runs refused in the last 24 hours may use their password again at once", "3 runs in flight that must use OIDC are judged again by the lower percentage"}},
		"a lowering of 1": {effect.Forecast{Regain: 1, Freed: 1}, []string{"1 run refused in the last 24 hours may use its password again at once", "1 run in flight that must use OIDC is judged again by the lower percentage"}},
	} {
		if diff := cmp.Diff(tc.want, tc.forecast.Lines()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
