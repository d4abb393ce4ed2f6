package rollout_test

import (
	"testing"

	"crossfade/rollout"
)

func TestEachPhaseIsReadAsItIsWritten(t *testing.T) {
	t.Parallel()
	for _, want := range rollout.Phases() {
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		got := rollout.Phase(77)
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Errorf("%s is read as %s: %v", text, got, err)
		}
	}
	for _, text := range []string{"", "Ramp", "ramp ", "gone"} {
		var p rollout.Phase
		if err := p.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %s", text, p)
		}
	}
}
