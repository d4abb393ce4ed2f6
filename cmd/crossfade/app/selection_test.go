package app

import (
	"testing"
	"time"

	"crossfade/rollout"
	"crossfade/rollout/fleet"
)

func TestWhatIsBucketedIsWhatTheGatewaysSay(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 5, 14, 12, 0, 0, 0, time.UTC)
	own := rollout.Keying{Stickiness: rollout.StickPrincipal}
	says := func(word string, ago time.Duration) fleet.Replica {
		return fleet.Replica{Selects: word, Seen: now.Add(-ago)}
	}
	for name, tc := range map[string]struct {
		all  []fleet.Replica
		want rollout.Keying
	}{
		"nobody serves":               {nil, own},
		"all of one mind":             {[]fleet.Replica{says("pipeline", 0), says("pipeline", time.Second)}, rollout.Keying{Runs: true}},
		"by run":                      {[]fleet.Replica{says("run", 0)}, rollout.Keying{Stickiness: rollout.StickRun, Runs: true}},
		"by principal":                {[]fleet.Replica{says("principal", 0)}, rollout.Keying{Stickiness: rollout.StickPrincipal, Runs: true}},
		"they differ":                 {[]fleet.Replica{says("pipeline", 0), says("run", 0)}, own},
		"one of them is dead":         {[]fleet.Replica{says("run", 2*fleet.Silent), says("pipeline", 0)}, rollout.Keying{Runs: true}},
		"an older one does not say":   {[]fleet.Replica{says("pipeline", 0), says("", 0)}, own},
		"a newer one says otherwise":  {[]fleet.Replica{says("weekday", 0)}, own},
		"all that are there are dead": {[]fleet.Replica{says("pipeline", 2*fleet.Silent)}, own},
	} {
		if got := keyingOf(tc.all, own, now); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}
