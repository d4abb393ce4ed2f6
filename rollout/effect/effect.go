// Package effect says what a percentage does to the runs of a team: how many of
// a day's runs it selects, whom a raise selects anew, and who may use a password
// again after a lowering. All of it is pure, and stands on the same function that
// requests are judged by (rollout.Keying), with the runs that were gathered as
// evidence. A Watcher keeps what pages and metrics need of it at hand.
package effect

import (
	"fmt"
	"math"
	"slices"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
)

// Share is of how many of a day's runs a percentage is in effect. The zero value
// is one of no runs.
type Share struct {
	// Day is the day of UTC whose runs were looked at.
	Day evidence.Day `json:"day"`
	// Runs is how many runs were kept of it; see evidence.MaxRuns.
	Runs int `json:"runs"`
	// Selected is how many of them the percentage selects: whether they came with a
	// password or a token alone, and whatever the percentage was on that day.
	Selected int `json:"selected"`
	// Enforced is to how many a password was refused, or would have been, on the
	// day itself. Runs that sent a token alone are never among them, nor those that
	// only a brownout enforced.
	Enforced int `json:"enforced"`
	// Estimated tells that Selected is not counted but worked out of the percentage:
	// with stickiness run nobody knows which runs there will be.
	Estimated bool `json:"estimated,omitempty"`
	// Observed tells that all of them came while the gateways were in mode observe,
	// which enforces nothing, whatever a percentage selects.
	Observed bool `json:"observed,omitempty"`
}

// Ratio returns the selected share, 0 to 1, and 0 of no runs.
func (s Share) Ratio() float64 {
	if s.Runs == 0 {
		return 0
	}
	return float64(s.Selected) / float64(s.Runs)
}

// Text says the share in a few words: "23 of 88" for yesterday, with the day for
// any other, and "-" for one of no runs.
func (s Share) Text(now time.Time) string {
	if s.Runs == 0 {
		return "-"
	}
	text := fmt.Sprintf("%d of %d", s.Selected, s.Runs)
	if s.Estimated {
		text = "about " + text
	}
	switch today := evidence.DayOf(now); s.Day {
	case today.Before():
	case today:
		text += " today"
	default:
		text += " on " + string(s.Day)
	}
	if s.Observed {
		text += ", mode observe enforced none"
	}
	return text
}

// Effective is the share of a day's runs that the team's percentage, as it
// stands in s, is in effect for.
func Effective(day evidence.Day, d evidence.Daily, s rollout.State, k rollout.Keying) Share {
	return SampleOf(day, d).At(s, s.Percent, k)
}

// Sample is what is left of a team's day once its runs are counted by what they
// could be bucketed by: some 5,000 pairs at most, see evidence.MaxPairs. The zero
// value is a day without runs.
type Sample struct {
	day   evidence.Day
	pairs map[pair]int
	total int
	// enforced is how many were, observed how many in mode observe.
	enforced, observed int
}

type pair struct{ account, pipeline string }

// run is the pair as a request of it would be judged; its id is not known.
func (p pair) run(team identity.Team) rollout.Run {
	return rollout.Run{Team: team, Principal: p.account, Pipeline: p.pipeline}
}

func pairOf(r evidence.Run) pair { return pair{r.Account, rollout.BoundPipeline(r.Pipeline)} }

// name is the pair for people, by what is bucketed.
func (p pair) name(k rollout.Keying) string {
	switch {
	case k.Kind() == rollout.StickPrincipal:
		return p.account
	case p.pipeline == "":
		return p.account + " / (no task)"
	default:
		return p.account + " / " + p.pipeline
	}
}

// SampleOf counts the runs of a day.
func SampleOf(day evidence.Day, d evidence.Daily) Sample {
	s := Sample{day: day, pairs: make(map[pair]int), total: len(d.Runs)}
	for _, r := range d.Runs {
		s.pairs[pairOf(r)]++
		if r.Enforced && !r.Brownout {
			s.enforced++
		}
		if r.Observed {
			s.observed++
		}
	}
	return s
}

// Runs returns how many runs there were.
func (s Sample) Runs() int { return s.total }

// At is the share of the day's runs that a percentage selects in a team that is
// otherwise as st says.
func (s Sample) At(st rollout.State, percent rollout.Percent, k rollout.Keying) Share {
	share := Share{Day: s.day, Runs: s.total, Enforced: s.enforced, Observed: s.total > 0 && s.observed == s.total}
	judge := judgeOf(st, k)
	if share.Estimated = judge.estimates(percent); share.Estimated {
		share.Selected = int(math.Round(float64(s.total) * float64(percent) / float64(rollout.Full)))
		return share
	}
	for p, runs := range s.pairs {
		if judge.selects(p, percent) {
			share.Selected += runs
		}
	}
	return share
}

// judge tells of pairs whether a percentage selects them.
type judge struct {
	state  rollout.State
	keying rollout.Keying
}

// judgeOf takes a team that was never changed for what its first change makes
// of it.
func judgeOf(s rollout.State, k rollout.Keying) judge {
	if s.Algorithm == 0 {
		s.Algorithm = rollout.Algorithm
	}
	return judge{s, k}
}

func (j judge) selects(p pair, percent rollout.Percent) bool {
	selected, _ := j.keying.Selects(j.state, percent, p.run(j.state.Team))
	return selected
}

// estimates reports whether pairs do not say what a percentage selects.
func (j judge) estimates(percent rollout.Percent) bool {
	return j.keying.Kind() == rollout.StickRun && percent > 0 && percent < rollout.Full && !j.state.Retired
}

// Forecast is what a change of percentage would do to a team's runs. What does
// not apply is zero.
type Forecast struct {
	// Selected are the accounts, or accounts and pipelines, that a raise newly
	// selects, in order; none with stickiness run, which has no names to give.
	Selected []string `json:"newly_selected,omitempty"`
	// RunsADay is about how many runs of theirs a day are kept.
	RunsADay float64 `json:"newly_selected_runs_a_day,omitempty"`
	// Keep is how many runs in flight keep their password until they end, Lose how
	// many lose it at once because their team is retired.
	Keep int64 `json:"keep_password,omitempty"`
	Lose int64 `json:"lose_password,omitempty"`
	// Regain is how many runs that were refused in the last 24 hours may use their
	// password again at once, Freed how many runs in flight that must use OIDC are
	// judged again by the lower percentage.
	Regain int   `json:"regain_password,omitempty"`
	Freed  int64 `json:"judged_again,omitempty"`
	// OneIn is the number of days in which a raise breaks at worst one run, by what
	// the evidence bounds; 0 if nothing can be said.
	OneIn float64 `json:"one_broken_run_in_days,omitempty"`
}

// AtWorst says in a few words what one broken run in so many days is: "at worst 1
// broken run in 11 days". It is "" for 0, of which nothing can be said.
func AtWorst(days float64) string {
	switch {
	case days <= 0:
		return ""
	case days >= 2:
		return fmt.Sprintf("at worst 1 broken run in %.0f days", math.Floor(days))
	case days >= 1:
		return "at worst 1 broken run a day"
	default:
		return fmt.Sprintf("at worst %.0f broken runs a day", math.Ceil(1/days))
	}
}

// Lines say the forecast, one matter a line, the most important first.
func (f Forecast) Lines() []string {
	var lines []string
	runs := about(f.RunsADay)
	switch {
	case len(f.Selected) > 0:
		lines = append(lines, fmt.Sprintf("newly selected: %s (about %s a day)", some(f.Selected), runs))
	case f.RunsADay > 0:
		lines = append(lines, fmt.Sprintf("newly selected: about %s a day, each by itself", runs))
	}
	if worst := AtWorst(f.OneIn); worst != "" {
		lines = append(lines, worst)
	}
	add := func(n int64, one, many string) {
		if n == 1 {
			lines = append(lines, "1 "+one)
		} else if n > 1 {
			lines = append(lines, fmt.Sprintf("%d %s", n, many))
		}
	}
	add(f.Keep, "run in flight keeps its password until it ends", "runs in flight keep their password until they end")
	add(f.Lose, "run in flight loses its password at once", "runs in flight lose their password at once")
	add(int64(f.Regain), "run refused in the last 24 hours may use its password again at once",
		"runs refused in the last 24 hours may use their password again at once")
	add(f.Freed, "run in flight that must use OIDC is judged again by the lower percentage",
		"runs in flight that must use OIDC are judged again by the lower percentage")
	return lines
}

// about writes how many more runs a day there are, so that few are not none.
func about(perDay float64) string {
	switch n := math.Round(perDay); {
	case n < 1:
		return fmt.Sprintf("%.1f more runs", perDay)
	case n == 1:
		return "1 more run"
	default:
		return fmt.Sprintf("%.0f more runs", n)
	}
}

// some joins the first of many names.
func some(names []string) string {
	const most = 8
	text := ""
	for i, name := range names[:min(len(names), most)] {
		if i > 0 {
			text += ", "
		}
		text += name
	}
	if len(names) > most {
		text += fmt.Sprintf(" and %d more", len(names)-most)
	}
	return text
}

// NewlySelected names whom a raise selects that a team at from does not, and
// about how many runs of theirs a day are kept. The samples are days, the
// youngest first, which may have only begun: it is left out of the mean when
// others have runs.
func NewlySelected(samples []Sample, s rollout.State, from, to rollout.Percent, k rollout.Keying) (names []string, runsADay float64) {
	judge := judgeOf(s, k)
	ofDay := make([]float64, len(samples))
	days := 0 // how far back there are runs
	for i, sample := range samples {
		if sample.total > 0 {
			days = i + 1
		}
		if judge.estimates(from) || judge.estimates(to) {
			ofDay[i] = float64(sample.total) * (float64(to) - float64(from)) / float64(rollout.Full)
			continue
		}
		for p, runs := range sample.pairs {
			if judge.selects(p, from) || !judge.selects(p, to) {
				continue
			}
			ofDay[i] += float64(runs)
			if judge.keying.Kind() != rollout.StickRun {
				names = append(names, p.name(k))
			}
		}
	}
	slices.Sort(names)
	ofDay = ofDay[:days]
	if days > 1 {
		ofDay = ofDay[1:]
	}
	for _, runs := range ofDay {
		runsADay += runs / float64(len(ofDay))
	}
	return slices.Compact(names), runsADay
}

// Regained counts the runs that were refused within 24 hours before now, though
// their password was right, and that a team no longer selects at the percentage
// to. The days are those of now and the day before; with stickiness run the
// number is in proportion.
func Regained(days []evidence.Daily, s rollout.State, from, to rollout.Percent, k rollout.Keying, now time.Time) int {
	judge := judgeOf(s, k)
	var refused, free int
	for _, d := range days {
		for _, r := range d.Runs {
			if !r.Refused || !r.Legacy || !r.Enforced || r.Brownout || now.Sub(r.Last) >= 24*time.Hour {
				continue
			}
			refused++
			if !judge.selects(pairOf(r), to) {
				free++
			}
		}
	}
	if judge.estimates(to) && from > 0 {
		return int(math.Round(float64(refused) * (float64(from) - float64(to)) / float64(from)))
	}
	return free
}
