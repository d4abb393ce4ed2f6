package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"crossfade/cmd/crossfade/demo"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
	"crossfade/rollout/reconcile"
)

const (
	// lookEvery is how often the demo looks at the evidence, which is recorded once a
	// second; the longer a look takes, for a day that grows or on a busy machine, the
	// more rarely, so that looking takes a twentieth of the time at most.
	lookEvery, lookRarely = time.Second, 5 * time.Second
	restPerLook           = 20
	lookFor               = 2 * time.Second // at most
	// newsFor is how long it is told that a percentage has moved.
	newsFor = 10 * time.Second
)

// byRollback is the source of changes that the automatic rollback makes.
const byRollback = "rollback"

// view is what the gateway says of a team: what readiness found, and how many runs
// went wrong since the demo began.
type view struct {
	known                        bool // else nothing could be read yet
	report                       readiness.Report
	wouldBreak, noToken, refused int
}

// summary is the state of things now. It looks at the evidence once a second, and
// shows what it saw last where that fails. One goroutine calls it.
func (s *demoStage) summary(ctx context.Context) demo.Summary {
	now := time.Now()
	if now.Sub(s.looked) >= s.rest {
		s.look(ctx, now)
		s.looked, s.rest = now, min(max(restPerLook*time.Since(now), lookEvery), lookRarely)
	}
	all := s.tally.summary()
	requests := s.app.Requests()
	for team, row := range all.Teams {
		state, _ := s.table.Lookup(team)
		state.Team = team
		row.Percent = int(state.Percent)
		row.News = news(state, requests[team], now)
		if v := s.known[team]; v.known {
			row.Answer, row.UpTo = string(v.report.Answer), int(v.report.UpTo)
			row.Why = whyOf(v.report, state)
			row.Raise = raiseOf(v.report)
			row.InEffect = inEffect(v.report)
			row.WouldBreakRuns, row.NoTokenRuns, row.RefusedRuns = v.wouldBreak, v.noToken, v.refused
		}
		all.Teams[team] = row
	}
	return all
}

// look reads what the evidence says of each team.
func (s *demoStage) look(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookFor)
	defer cancel()
	for _, team := range demoTeams() {
		report, err := s.app.Readiness(ctx, team)
		if err != nil {
			continue
		}
		v := view{known: true, report: report}
		for day := evidence.DayOf(now); day.End().After(s.began); day = day.Before() {
			var daily evidence.Daily
			if daily, err = s.store.Daily(ctx, team, day); err != nil {
				break
			}
			v.count(daily)
		}
		if err == nil {
			s.known[team] = v
		}
	}
}

func (v *view) count(d evidence.Daily) {
	for _, run := range d.Runs {
		v.wouldBreak += one(run.Grade.Bad())
		v.noToken += one(run.Grade == evidence.NoToken)
		v.refused += one(run.Refused)
	}
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// raiseOf is the answer of a report for the table.
func raiseOf(r readiness.Report) demo.Raise {
	full := r.Percent >= rollout.Full
	switch r.Answer {
	case readiness.Done:
		return demo.Raise{Text: "RETIRED", Mood: demo.Good}
	case readiness.Held:
		return demo.Raise{Text: "HELD", Mood: demo.Bad}
	case readiness.Ready:
		if full {
			return demo.Raise{Text: "YES, retire", Mood: demo.Good}
		}
		return demo.Raise{Text: fmt.Sprintf("YES, to %s%%", r.UpTo), Mood: demo.Good}
	case readiness.Blocked:
		return demo.Raise{Text: "NO", Mood: demo.Bad}
	default:
		if full {
			return demo.Raise{Text: "at 100%", Mood: demo.Good}
		}
		return demo.Raise{Text: "WAIT", Mood: demo.Patient}
	}
}

// whyOf is the reason of a report for the table.
func whyOf(r readiness.Report, s rollout.State) string {
	switch {
	case r.Answer == readiness.Held && s.Hold.Source == byRollback:
		return "rolled back, " + r.Why
	case r.Percent >= rollout.Full && r.Answer != readiness.Done && r.Answer != readiness.Ready:
		return "before it is retired: " + r.Why
	case r.Late > 0:
		return fmt.Sprintf("%s (evidence is %.0f s late)", r.Why, r.Late.Seconds())
	default:
		return r.Why
	}
}

// inEffect is of how many of the day's runs a percentage is in effect.
func inEffect(r readiness.Report) string {
	share := r.InEffect
	text := fmt.Sprintf("%d of %d", share.Selected, share.Runs)
	if share.Estimated {
		return "~" + text
	}
	return text
}

// news are what there is to say of a team below the table: that its percentage has
// just moved, and what became of what it asks for.
func news(s rollout.State, r reconcile.Status, now time.Time) []string {
	var lines []string
	moved := s.RaisedAt
	if s.LoweredAt.After(moved) {
		moved = s.LoweredAt
	}
	if !moved.IsZero() && now.Sub(moved) < newsFor {
		lines = append(lines, fmt.Sprintf("%s: %s%% -> %s%%, %s", s.Team, s.Previous, s.Percent, whence(s)))
	}
	step := r.Step
	if r.Management != reconcile.Broken && step.Outcome != rollout.Met && !step.Outcome.Applies() {
		asks := fmt.Sprintf("asks for %s%%", s.Request.Percent)
		if s.Request.Retire && s.Percent >= rollout.Full {
			asks = "asks to be retired"
		}
		line := fmt.Sprintf("%s %s: %s, %s", s.Team, asks, step.Outcome, step.Why)
		switch {
		case step.Outcome == rollout.Held && s.Request.Percent == s.Hold.Requested && !s.Request.Retire: // why stands in the table
			line = fmt.Sprintf("%s %s: held; ask for another percentage, and the checks decide", s.Team, asks)
		case step.Owner != "":
			line += fmt.Sprintf(" (%s)", step.Owner)
		}
		lines = append(lines, line)
	}
	return lines
}

// whence says who moved a percentage last.
func whence(s rollout.State) string {
	switch {
	case s.Percent < s.Previous && s.Hold.Source == byRollback && s.Hold.At.Equal(s.LoweredAt):
		return "rolled back, " + s.Hold.Reason
	case s.Source == "file":
		return "as its file asks"
	default:
		return "by " + cmp.Or(s.Source, "somebody")
	}
}
