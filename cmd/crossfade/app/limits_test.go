package app_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/rollout/readiness"
)

// Neither package knows the other, and both document the defaults.
func TestTheDefaultLimitsAreThoseOfTheJudge(t *testing.T) {
	r := config.Default().Readiness
	got := readiness.Limits{
		Cycle: r.LongestCycle, Window: r.Window, Missing: float64(r.Missing), Tokens: float64(r.TokensSent), CleanAfter: r.CleanAfter,
		BadRuns: float64(r.BadRuns), Confidence: float64(r.Confidence), BrokenADay: r.BrokenADay, CensusDays: r.CensusDays,
		Indeterminate: float64(r.Indeterminate), SoakRuns: r.SoakRuns, RetireAfter: r.RetireAfter,
	}
	if diff := cmp.Diff(readiness.DefaultLimits(), got); diff != "" {
		t.Errorf("(-judge +configuration):\n%s", diff)
	}
}

func TestATeamsFileIsHeldToTheLimitsOfThisPlatform(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "data-eng.yaml")
	text := "percent: 5\nlimits: { window: 20d }\nfixed: { account: svc-etl, reason: aud_mismatch, at: 2026-01-01 }\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	platform := config.Default().Readiness
	files, mistakes, err := app.ReadTeamFiles(dir, nil, platform)
	if err != nil || len(mistakes) > 0 || len(files) != 1 {
		t.Errorf("a stricter file: %v, %v, %v", files, mistakes, err)
	}
	platform.Window *= 2
	files, mistakes, err = app.ReadTeamFiles(dir, nil, platform)
	want := file + ":2: limits.window: is 20d, which is looser than the platform's 28d: a team can only be stricter"
	if err != nil || len(files) > 0 || mistakes.Error() != want {
		t.Errorf("a looser file: %v, %v, %v", files, mistakes, err)
	}
}
