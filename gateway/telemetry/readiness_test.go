package telemetry_test

import (
	"strings"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/gateway/telemetry"
	"crossfade/rollout"
	"crossfade/rollout/readiness"
)

// notZero are the readiness series of a team that are not 0, in order of their
// names.
func notZero(t *testing.T, tel *telemetry.Telemetry, team string) string {
	t.Helper()
	all := samples(
		t, tel, "crossfade_readiness_answer", "crossfade_readiness_phase", "crossfade_readiness_check", "crossfade_readiness_bad_runs_upper_bound_ratio",
		"crossfade_readiness_coverage_ratio", "crossfade_readiness_runs", "crossfade_readiness_last_assessed_timestamp_seconds",
	)
	var b strings.Builder
	for line := range strings.Lines(all) {
		if strings.Contains(line, `team="`+team+`"`) {
			b.WriteString(strings.TrimPrefix(line, "crossfade_readiness_"))
		}
	}
	return b.String()
}

func TestReadinessIsToldOfTheTeamsThatThereAre(t *testing.T) {
	tel := start(t, telemetry.Options{Teams: []identity.Team{"data-eng", "search"}})
	if got := notZero(t, tel, "data-eng"); got != "bad_runs_upper_bound_ratio{team=\"data-eng\"} 1\n" {
		t.Errorf("before anything is known: %v", got)
	}
	at := time.UnixMilli(1_780_000_000_500)
	report := readiness.Report{
		Team: "data-eng", At: at, Phase: rollout.PhaseRamp, Percent: 25, Answer: readiness.Ready, Runs: 1240, Bound: 0.0043, Coverage: 0.996,
		Checks: []readiness.Check{{Name: readiness.Watched, Pass: true}, {Name: readiness.Soaked}, {Name: "made up", Pass: true}},
	}
	tel.Readiness(report)
	const want = `answer{answer="ready",team="data-eng"} 1
bad_runs_upper_bound_ratio{team="data-eng"} 0.0043
check{check="watched",team="data-eng"} 1
coverage_ratio{team="data-eng"} 0.996
last_assessed_timestamp_seconds{team="data-eng"} 1.7800000005e+09
phase{phase="ramp",team="data-eng"} 1
runs{team="data-eng"} 1240
`
	if got := notZero(t, tel, "data-eng"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	report.Answer = readiness.Blocked
	tel.Readiness(report)
	if got := notZero(t, tel, "data-eng"); !strings.HasPrefix(got, "answer{answer=\"blocked\",team=\"data-eng\"} 1\nbad_runs") {
		t.Errorf("the answer before is still told: %v", got)
	}

	for _, stranger := range []identity.Team{"made-up", identity.Unassigned, ""} {
		report.Team = stranger
		tel.Readiness(report)
		if got := notZero(t, tel, string(stranger)); len(got) > 0 {
			t.Errorf("%q has series: %v", stranger, got)
		}
	}
	tel.SetTeams([]identity.Team{"search"})
	if got := notZero(t, tel, "data-eng"); len(got) > 0 {
		t.Errorf("a team that left: %v", got)
	}
	report.Team = "data-eng"
	tel.Readiness(report)
	if got := notZero(t, tel, "data-eng"); len(got) > 0 {
		t.Errorf("a team that left came back: %v", got)
	}
}
