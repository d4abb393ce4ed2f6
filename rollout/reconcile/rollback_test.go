package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/reconcile"
)

var raised = time.Date(2030, 5, 6, 12, 0, 0, 0, time.UTC)

// clean is a run of before a raise without a failure, refused one of after it
// whose password was right.
func clean(account string) evidence.Run {
	return evidence.Run{
		Account: account, Legacy: true, Token: true, First: raised.Add(-2 * time.Hour), Last: raised.Add(-time.Hour),
	}
}

func refused(account string) evidence.Run {
	return evidence.Run{
		Account: account, Legacy: true, Enforced: true, Refused: true, Grade: evidence.NoToken,
		First: raised.Add(10 * time.Minute), Last: raised.Add(10 * time.Minute),
		EnforcedFrom: raised.Add(10 * time.Minute), LockedOut: raised.Add(10 * time.Minute),
	}
}

func TestARaiseHurtsKnownAccountsWhoseEnforcedRunsAreRefused(t *testing.T) {
	change := func(r evidence.Run, with func(*evidence.Run)) evidence.Run {
		with(&r)
		return r
	}
	many := []evidence.Run{clean("stolen"), clean("b")}
	for range 50 {
		many = append(many, refused("stolen"))
	}
	for name, test := range map[string]struct {
		runs []evidence.Run
		want reconcile.Harm
	}{
		"nothing happened":                {[]evidence.Run{clean("a"), clean("b")}, reconcile.Harm{Others: true}},
		"two known accounts":              {[]evidence.Run{clean("a"), clean("b"), refused("b"), refused("a")}, reconcile.Harm{Known: []string{"a", "b"}}},
		"many workers of one account":     {many, reconcile.Harm{Known: []string{"stolen"}, Others: true}},
		"an account that never was ok":    {[]evidence.Run{clean("a"), refused("new")}, reconcile.Harm{Unknown: []string{"new"}, Others: true}},
		"one that sent no token before":   {[]evidence.Run{change(clean("a"), func(r *evidence.Run) { r.Grade = evidence.NoToken }), refused("a")}, reconcile.Harm{Unknown: []string{"a"}}},
		"one that was ok without a token": {[]evidence.Run{change(clean("a"), func(r *evidence.Run) { r.Token = false }), refused("a")}, reconcile.Harm{Unknown: []string{"a"}}},
		"one that was ok long ago":        {[]evidence.Run{change(clean("a"), func(r *evidence.Run) { r.First, r.Last = r.First.AddDate(0, 0, -2), r.Last.AddDate(0, 0, -2) }), refused("a")}, reconcile.Harm{Unknown: []string{"a"}}},
		"one that is ok only afterwards": {
			[]evidence.Run{change(clean("a"), func(r *evidence.Run) { r.First, r.Last = raised.Add(time.Hour), raised.Add(time.Hour) }), refused("a")},
			reconcile.Harm{Unknown: []string{"a"}},
		},
		"a run that was enforced before": {[]evidence.Run{clean("a"), change(refused("a"), func(r *evidence.Run) { r.First, r.EnforcedFrom = raised.Add(-time.Second), raised.Add(-time.Second) })}, reconcile.Harm{Others: true}},
		"one that was refused before": {
			[]evidence.Run{clean("a"), change(refused("a"), func(r *evidence.Run) {
				r.EnforcedFrom, r.LockedOut = raised.Add(-time.Second), raised.Add(-time.Second)
			})},
			reconcile.Harm{Others: true},
		},
		"an account without runs, whose day began before the raise": {
			[]evidence.Run{clean("a"), change(refused("a"), func(r *evidence.Run) { r.First = raised.Add(-11 * time.Hour) })},
			reconcile.Harm{Known: []string{"a"}},
		},
		"a run that is not enforced, but refused": {
			[]evidence.Run{clean("a"), change(refused("a"), func(r *evidence.Run) { r.Enforced, r.EnforcedFrom, r.LockedOut = false, time.Time{}, time.Time{} })},
			reconcile.Harm{Others: true},
		},
		"tokens that are refused in runs that use the password elsewhere": {
			[]evidence.Run{
				clean("a"), clean("b"),
				change(refused("a"), func(r *evidence.Run) { r.LockedOut = time.Time{} }),
				change(refused("b"), func(r *evidence.Run) { r.LockedOut = time.Time{} }),
			},
			reconcile.Harm{Others: true},
		},
		"the only account of a team": {[]evidence.Run{clean("a"), refused("a")}, reconcile.Harm{Known: []string{"a"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, reconcile.HarmOf(test.runs, raised), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("harm (-want +got):\n%s", diff)
			}
		})
	}
}

// seenRuns is the evidence of one team.
type seenRuns struct {
	mu   sync.Mutex
	runs []evidence.Run
	err  error
}

func (s *seenRuns) Daily(_ context.Context, team identity.Team, day evidence.Day) (evidence.Daily, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := evidence.Daily{Runs: make(map[evidence.RunKey]evidence.Run)}
	for i, r := range s.runs {
		if team == "data-eng" && evidence.DayOf(r.First) == day {
			d.Runs[evidence.NewRunKey(r.Account, fmt.Sprint(i))] = r
		}
	}
	return d, s.err
}

// now moves runs that are relative to the raise to one that is now.
func (s *seenRuns) see(runs ...evidence.Run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	shift := time.Since(raised)
	for _, r := range runs {
		r.First, r.Last = r.First.Add(shift), r.Last.Add(shift)
		if !r.LockedOut.IsZero() {
			r.EnforcedFrom, r.LockedOut = r.EnforcedFrom.Add(shift), r.LockedOut.Add(shift)
		}
		s.runs = append(s.runs, r)
	}
}

// raise sets the team from 25 to 50.
func (s *site) raise() {
	s.t.Helper()
	for _, percent := range []rollout.Percent{25, 50} {
		if _, err := s.store.Write(s.t.Context(), rollout.Change{
			Team: "data-eng", Percent: percent, Expect: rollout.AnyRevision, Source: "cli", Request: &rollout.Request{
				Percent: percent, Source: "file", Digest: percent.String(), At: time.UnixMilli(time.Now().UnixMilli()).UTC(),
			},
		}); err != nil {
			s.t.Fatal(err)
		}
	}
}

func TestARaiseThatHurtsTwoKnownAccountsIsTakenBackOnce(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		s.evidence = &seenRuns{}
		replicas := []*replica{s.start("a", map[identity.Team]rollout.Percent{"data-eng": 50}), s.start("b", map[identity.Team]rollout.Percent{"data-eng": 50})}
		for _, r := range replicas {
			defer r.end()
		}
		s.evidence.see(clean("svc-etl"), clean("svc-loader"))
		s.raise()
		settle()
		s.at("data-eng", 50)
		s.evidence.see(refused("svc-etl"), refused("svc-etl"))
		settle()
		s.at("data-eng", 50)
		s.evidence.see(refused("svc-loader"))
		settle()
		state := s.at("data-eng", 25)
		if !state.Hold.Active(time.Now()) || !strings.Contains(state.Hold.Reason, "2 known accounts refused: svc-etl, svc-loader") {
			t.Errorf("held: %+v", state.Hold)
		}
		settle()
		s.at("data-eng", 25) // the file, which asks for 50, does not raise it again
		n := 0
		for _, e := range s.entries("data-eng") {
			if e.Kind == rollout.KindRollback {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d rollbacks, want one: %+v", n, s.entries("data-eng"))
		}
	})
}

func TestOneStolenPasswordRollsNothingBack(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		s.evidence = &seenRuns{}
		a := s.start("a", nil)
		defer a.end()
		s.evidence.see(clean("svc-etl"), clean("svc-loader"))
		s.raise()
		for range 100 {
			s.evidence.see(refused("svc-etl"))
		}
		settle()
		settle()
		s.at("data-eng", 50)
		if len(a.alerts) != 1 || !strings.Contains(a.alerts[0], "svc-etl") {
			t.Errorf("alerts: %q", a.alerts)
		}
	})
}

func TestARollbackIsArmedForADayAfterARaise(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		s.evidence = &seenRuns{}
		a := s.start("a", nil)
		defer a.end()
		s.raise()
		time.Sleep(24*time.Hour - 3*time.Hour)
		s.evidence.see(clean("svc-etl"), clean("svc-loader"))
		time.Sleep(3 * time.Hour)
		s.evidence.see(refused("svc-etl"), refused("svc-loader"))
		settle()
		s.at("data-eng", 50)
	})
}

func TestWithoutEvidenceALoweringStillFollows(t *testing.T) {
	try(t, func(t *testing.T, s *site) {
		s.evidence = &seenRuns{err: errors.New("no evidence")}
		a := s.start("a", map[identity.Team]rollout.Percent{"data-eng": 50})
		defer a.end()
		s.raise()
		settle()
		a.says("data-eng", 5)
		settle()
		s.at("data-eng", 5)
		if len(a.reported) == 0 || !strings.Contains(fmt.Sprint(a.reported[0]), "no evidence") {
			t.Errorf("reported: %v", a.reported)
		}
	})
}
