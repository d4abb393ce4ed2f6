package app

import (
	"testing"
	"time"

	"crossfade/config"
	"crossfade/rollout/fleet"
)

func TestACommandKnowsWhatTheGatewaysJudgeByIfAllOfThemSaySo(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 5, 14, 12, 0, 0, 0, time.UTC)
	says := func(hash string, ago time.Duration) fleet.Replica {
		return fleet.Replica{Judges: hash, Seen: now.Add(-ago)}
	}
	for name, tc := range map[string]struct {
		all  []fleet.Replica
		want bool
	}{
		"nobody serves":             {nil, false},
		"all by the same":           {[]fleet.Replica{says("a", 0), says("a", time.Second)}, true},
		"by another":                {[]fleet.Replica{says("b", 0)}, false},
		"they differ":               {[]fleet.Replica{says("a", 0), says("b", 0)}, false},
		"an older one does not say": {[]fleet.Replica{says("a", 0), says("", 0)}, false},
		"the other one is dead":     {[]fleet.Replica{says("a", 0), says("b", 2*fleet.Silent)}, true},
		"all are dead":              {[]fleet.Replica{says("a", 2*fleet.Silent)}, false},
	} {
		if got := judgeAlike(tc.all, now, "a"); got != tc.want {
			t.Errorf("%s: %t, want %t", name, got, tc.want)
		}
	}
}

func TestWhatJudgesCredentialsHasAHashOfItsOwn(t *testing.T) {
	t.Parallel()
	hash := func(change func(*config.Config)) string {
		c := config.Default()
		c.Principals = []config.Principal{{Name: "svc-etl", Team: "data-eng"}}
		change(c)
		return settingsOf(c, nil).judges
	}
	same := hash(func(*config.Config) {})
	if got := hash(func(c *config.Config) { c.Principals[0].Owner = "ana" }); got != same || same == "" {
		t.Errorf("another owner: %q, want %q", got, same)
	}
	if got := hash(func(c *config.Config) { c.Principals[0].Team = "search" }); got == same {
		t.Error("another team has the same hash")
	}
}

func TestAnEntrySaysWhoseAnAccountWithoutOneWas(t *testing.T) {
	t.Parallel()
	c := config.Default()
	c.Principals = []config.Principal{
		{Name: "svc-etl", Team: "data-eng", Legacy: []string{"etl", "etl2"}},
		{Name: "both", Team: "data-eng", Legacy: []string{"both"}, Shared: true},
		{Name: "todo", Team: "unassigned", Legacy: []string{"todo"}},
		{Name: "none", Legacy: []string{"none"}},
	}
	s := settingsOf(c, nil)
	if name, team, ok := s.entered("legacy:etl2"); name != "svc-etl" || team != "data-eng" || !ok {
		t.Errorf("legacy:etl2 is %s of %s, %t", name, team, ok)
	}
	for _, account := range []string{"legacy:both", "legacy:todo", "legacy:none", "legacy:other", "svc-etl"} {
		if name, team, ok := s.entered(account); ok {
			t.Errorf("%s is %s of %s", account, name, team)
		}
	}
}
