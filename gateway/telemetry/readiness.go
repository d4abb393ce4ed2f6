package telemetry

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/readiness"
)

// readinessGauges say how ready each team is, by what was assessed last.
type readinessGauges struct {
	answer, phase, check            *prometheus.GaugeVec
	bound, coverage, runs, assessed *prometheus.GaugeVec
}

func newReadinessGauges(gauge func(name, help string, labels ...string) *prometheus.GaugeVec) readinessGauges {
	return readinessGauges{
		answer:   gauge("readiness_answer", "1 for what is next for a team: ready, waiting, blocked, held or done; 0 for the others, and for all before it is known.", "team", "answer"),
		phase:    gauge("readiness_phase", "1 for what a team is: shadow, ramp, enforced or retired; 0 for the others, and for all before it is known.", "team", "phase"),
		check:    gauge("readiness_check", "1 if a check passes; 0 if it does not, does not apply yet (those of retirement below 100 percent) or is not known.", "team", "check"),
		bound:    gauge("readiness_bad_runs_upper_bound_ratio", "The share of a team's runs that would break is below it, from 0 to 1; 1 while nothing is known.", "team"),
		coverage: gauge("readiness_coverage_ratio", "Share of a team's runs whose client sent a token, from 0 to 1.", "team"),
		runs:     gauge("readiness_runs", "Runs of a team in the window that could be judged.", "team"),
		assessed: gauge("readiness_last_assessed_timestamp_seconds", "When it was last said how ready a team is; 0 before the first time. While the evidence cannot be read it stays, and so do the other readiness metrics.", "team"),
	}
}

// zero makes the series of a team exist.
func (g readinessGauges) zero(team string) {
	for _, answer := range readiness.Answers() {
		g.answer.WithLabelValues(team, string(answer))
	}
	for _, phase := range rollout.Phases() {
		g.phase.WithLabelValues(team, phase.String())
	}
	for _, check := range checkNames() {
		g.check.WithLabelValues(team, string(check))
	}
	g.bound.WithLabelValues(team).Set(1)
	for _, v := range []*prometheus.GaugeVec{g.coverage, g.runs, g.assessed} {
		v.WithLabelValues(team)
	}
}

// drop takes away what a team that left was last.
func (g readinessGauges) drop(team string) {
	for _, v := range []*prometheus.GaugeVec{g.answer, g.phase, g.check, g.bound, g.coverage, g.runs, g.assessed} {
		v.DeletePartialMatch(prometheus.Labels{"team": team})
	}
}

func (g readinessGauges) set(r readiness.Report) {
	team := string(r.Team)
	for _, answer := range readiness.Answers() {
		g.answer.WithLabelValues(team, string(answer)).Set(one(r.Answer == answer))
	}
	for _, phase := range rollout.Phases() {
		g.phase.WithLabelValues(team, phase.String()).Set(one(r.Phase == phase))
	}
	for _, name := range checkNames() {
		check, _ := r.Check(name)
		g.check.WithLabelValues(team, string(name)).Set(one(check.Pass))
	}
	g.bound.WithLabelValues(team).Set(r.Bound)
	g.coverage.WithLabelValues(team).Set(r.Coverage)
	g.runs.WithLabelValues(team).Set(float64(r.Runs))
	g.assessed.WithLabelValues(team).Set(seconds(r.At))
}

func checkNames() []readiness.CheckName {
	return slices.Concat(readiness.RaiseChecks(), readiness.RetireChecks())
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// Readiness notes how ready a team is. One that is not configured, and Unassigned,
// which is rolled out to nowhere, are left out.
func (t *Telemetry) Readiness(r readiness.Report) {
	m := t.metrics
	m.teamsMu.Lock() // or a team that leaves at this moment would come back
	defer m.teamsMu.Unlock()
	if _, ok := (*m.teams.Load())[r.Team]; ok && r.Team != identity.Unassigned {
		m.readiness.set(r)
	}
}
