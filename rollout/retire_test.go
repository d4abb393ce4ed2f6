package rollout_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// retirer is a guard that has one answer about retirements.
type retirer struct {
	rollout.Guard
	answer rollout.Answer
	err    error
}

func (r retirer) MayRetire(context.Context, rollout.State) (rollout.Answer, error) {
	return r.answer, r.err
}

func TestATeamIsRetiredOnlyWhenNothingIsInTheWay(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	away := errors.New("away")
	full := rollout.State{Team: "growth", Percent: 100, Revision: 7}
	held := full
	held.Hold = rollout.Hold{Reason: "until Monday", At: now.Add(-time.Hour)}
	over := full
	over.Hold = rollout.Hold{Reason: "until Monday", At: now.Add(-2 * time.Hour), Until: now.Add(-time.Hour)}
	gone := full
	gone.Retired = true
	yes := rollout.Answer{UpTo: rollout.Full, Why: "no password for 14 days"}
	no := rollout.Answer{Why: "no password for 9 of 14 days: svc-old was the last to use one", Owner: identity.OwnerTeam}
	several := rollout.Answer{Why: "svc-old was never seen", Owner: identity.OwnerTeam, Obstacles: []rollout.Obstacle{
		{Why: "svc-old was never seen", Owner: identity.OwnerTeam}, {Why: "at 100% for 3 of 14 days"},
	}}
	signal := rollout.Answer{UpTo: rollout.Full, Signal: true, Why: "1 of 30 runs is a security signal", Owner: identity.OwnerSecurity}
	for name, tt := range map[string]struct {
		state    rollout.State
		guard    retirer
		why, err string
	}{
		"nothing is in the way":         {full, retirer{answer: yes}, yes.Why, ""},
		"the guard says no":             {full, retirer{answer: no}, "", "growth is not retired: " + no.Why},
		"there is a security signal":    {full, retirer{answer: signal}, "", "growth is not retired: " + signal.Why},
		"several things are in the way": {held, retirer{answer: several}, "", "growth is not retired: svc-old was never seen; at 100% for 3 of 14 days; it is held: until Monday"},
		"somebody holds it":             {held, retirer{answer: yes}, "", "growth is not retired: it is held: until Monday"},
		"the guard says no and a hold":  {held, retirer{answer: no}, "", "growth is not retired: " + no.Why + "; it is held: until Monday"},
		"the hold has ended":            {over, retirer{answer: yes}, yes.Why, ""},
		"it is retired already":         {gone, retirer{answer: no}, "it is retired already", ""},
		"the evidence cannot be looked": {full, retirer{err: away}, "", `ask whether team "growth" may be retired: away`},
	} {
		why, err := rollout.AskRetire(t.Context(), tt.guard, tt.state, now)
		said := ""
		if err != nil {
			said = err.Error()
		}
		if why != tt.why || said != tt.err {
			t.Errorf("%s: %q, %q, want %q, %q", name, why, said, tt.why, tt.err)
		}
		var blocked *rollout.RetireError
		if errors.As(err, &blocked) == (tt.guard.err != nil) && err != nil {
			t.Errorf("%s: a wrong kind of error: %T", name, err)
		}
	}
}

func TestARetirementTakesThePlaceOfWhatTheTeamAsksFor(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := rollout.State{Team: "growth", Percent: 100, Revision: 7, Request: rollout.Request{Percent: 80, Digest: "d", At: now}}
	by := rollout.Setting{Percent: 3, Actor: "olga", Verified: true, Source: "api", Reason: "done", Until: now.Add(time.Hour)}
	c := rollout.Retiring(s, by, []string{"htpasswd:svc-old"}, "no password for 14 days", now)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.Percent != rollout.Full || !c.Retire || c.Kind != rollout.KindRetire || c.Expect != 7 || c.Hold != nil || c.Evidence != "no password for 14 days" || len(c.Credentials) != 1 {
		t.Errorf("the change is %+v", c)
	}
	if c.Request == nil || c.Request.Percent != rollout.Full || c.Request.Digest != "d" {
		t.Errorf("the request is %+v", c.Request)
	}
}
