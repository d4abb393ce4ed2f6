package rollout_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/rollouttest"
)

func TestAKeySaysWhoIsSelected(t *testing.T) {
	t.Parallel()
	p20 := pipelineAt(20)
	ramp := rollout.State{Team: team, Algorithm: rollout.Algorithm}
	whole := rollout.Run{Team: team, Principal: "svc-etl", ID: "worker-1", Pipeline: p20}
	bare := rollout.Run{Team: team, Principal: "svc-etl"}
	type answer struct{ Selected, Known bool }
	for name, tc := range map[string]struct {
		keying  rollout.Keying
		state   rollout.State
		run     rollout.Run
		percent rollout.Percent
		want    answer
	}{
		"a pipeline at its percentage":          {rollout.Keying{Runs: true}, ramp, whole, 20, answer{true, true}},
		"a pipeline below its percentage":       {rollout.Keying{Runs: true}, ramp, whole, 19, answer{false, true}},
		"a pipeline that is not known yet":      {rollout.Keying{Runs: true}, ramp, bare, 99, answer{false, false}},
		"at 100 nothing needs to be known":      {rollout.Keying{Runs: true}, ramp, bare, 100, answer{true, false}},
		"retired, whatever the percentage":      {rollout.Keying{Runs: true}, rollout.State{Team: team, Retired: true}, bare, 0, answer{true, false}},
		"an algorithm that is not known":        {rollout.Keying{Runs: true}, rollout.State{Team: team, Algorithm: 99}, whole, 99, answer{false, true}},
		"a run without an id":                   {rollout.Keying{Stickiness: rollout.StickRun, Runs: true}, ramp, bare, 99, answer{false, false}},
		"without runs the principal is the key": {rollout.Keying{Stickiness: rollout.StickRun}, ramp, bare, rollout.Threshold(team, "svc-etl"), answer{true, true}},
		"and not below its own percentage":      {rollout.Keying{}, ramp, whole, rollout.Threshold(team, "svc-etl") - 1, answer{false, true}},
	} {
		var got answer
		got.Selected, got.Known = tc.keying.Selects(tc.state, tc.percent, tc.run)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Plans ask a Keying and requests ask Runs: both must say the same.
func TestAKeySaysWhatTheRequestIsJudgedBy(t *testing.T) {
	for _, stick := range []rollout.Stickiness{rollout.StickPipeline, rollout.StickPrincipal, rollout.StickRun} {
		for _, runs := range []bool{true, false} {
			if !runs && stick == rollout.StickPipeline {
				continue
			}
			t.Run(fmt.Sprintf("%s, runs %v", stick, runs), func(t *testing.T) {
				store := rollouttest.NewMemory()
				state := set(t, store, 40)
				r := newReplica(t, store, stick, runs)
				keying := rollout.Keying{Stickiness: stick, Runs: runs}
				rapid.Check(t, func(t *rapid.T) {
					run := rollout.Run{
						Team: team, Principal: rapid.StringMatching(`svc-[a-z]{1,4}`).Draw(t, "principal"),
						ID: rapid.StringMatching(`w[0-9]{0,4}`).Draw(t, "run"), Pipeline: rapid.StringMatching(`([A-Z][a-z]{0,3})?`).Draw(t, "pipeline"),
					}
					got := r.runs.Enforce(r.t.Context(), run, true)
					run.Pipeline = got.Pipeline // of the first task
					selected, known := keying.Selects(state, state.Percent, run)
					if selected != got.Selected || known != got.KeyKnown {
						t.Fatalf("%+v: selected %v, known %v; the request: %+v", run, selected, known, got)
					}
				})
			})
		}
	}
}

func TestSelectingAllocatesNothing(t *testing.T) {
	run := rollout.Run{Team: identity.Team("data-eng"), Principal: "svc-etl", Pipeline: "LoadUsers"}
	state := rollout.State{Team: team, Algorithm: rollout.Algorithm}
	if n := testing.AllocsPerRun(100, func() { (rollout.Keying{Runs: true}).Selects(state, 50, run) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
