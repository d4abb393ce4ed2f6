package readiness_test

import (
	"fmt"
	"testing"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

// large is a team of 14 days with 1,000 runs on each, of 20 accounts and 100
// pipelines, of which some fail in ways of their own and some were repaired.
func large() *team {
	t := newTeam()
	for a := range 20 {
		account := fmt.Sprintf("svc-%02d", a)
		for p := range 5 {
			pipeline := fmt.Sprintf("Load%02d", a*5+p)
			t.every(14, 10, clean(account, pipeline))
			t.add(3*day, bad(account, pipeline, identity.Expired))
			t.add(2*day, graded(clean(account, pipeline), evidence.NoToken, identity.TokenAbsent))
			t.Fixed = append(t.Fixed, readiness.Fix{Account: account, Pipeline: pipeline, Reason: identity.Expired, At: now.Add(-60 * hour)})
			t.Families[evidence.Family{Account: account, Name: pipeline}] = evidence.FamilyUse{Last: now, Clean: now}
		}
		t.use(account, 0, 0)
	}
	t.State = rollout.State{Team: t.Team, Percent: 10, RaisedAt: now.Add(-3 * day)}
	return t
}

func BenchmarkJudge14000Runs(b *testing.B) {
	facts := large().Facts
	b.ReportAllocs()
	for b.Loop() {
		readiness.Judge(facts)
	}
}
