package evidence_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
)

// days has what a store knows of each day of one team.
type days struct {
	by       map[evidence.Day][]evidence.Run
	accounts map[string]evidence.Use
	err      error
	reads    int
}

func (d *days) Daily(_ context.Context, team identity.Team, day evidence.Day) (evidence.Daily, error) {
	d.reads++
	runs := make(map[evidence.RunKey]evidence.Run)
	if team == "data-eng" {
		for i, r := range d.by[day] {
			runs[evidence.NewRunKey(r.Account, fmt.Sprint(i))] = r
		}
	}
	return evidence.Daily{Runs: runs}, d.err
}

func (d *days) Accounts(context.Context, identity.Team) (map[string]evidence.Use, error) {
	return d.accounts, d.err
}

var noon = time.Date(2030, 5, 6, 12, 0, 0, 0, time.UTC)

// some are n runs of one kind, one a minute from a time on.
func some(n int, from time.Time, r evidence.Run) []evidence.Run {
	list := make([]evidence.Run, n)
	for i := range list {
		list[i] = r
		list[i].First = from.Add(time.Duration(i) * time.Minute)
	}
	return list
}

func TestTheGuardAnswersByRateAndCount(t *testing.T) {
	today := evidence.DayOf(noon)
	morning := noon.Add(-11 * time.Hour)
	clean := evidence.Run{Account: "svc-etl", Token: true}
	breaks := evidence.Run{Account: "svc-billing", Grade: evidence.WouldBreak, Reason: "aud_mismatch"}
	silent := evidence.Run{Account: "svc-search", Grade: evidence.NoToken}
	opens := evidence.Run{Account: "svc-etl", Grade: evidence.WouldOpen, Reason: "task_family_denied"}
	for name, test := range map[string]struct {
		runs  []evidence.Run
		days  map[evidence.Day][]evidence.Run
		since time.Time
		want  rollout.Answer
	}{
		"enough clean runs": {
			runs: some(1240, morning, clean), want: rollout.Answer{UpTo: 100, Why: "1,240 clean runs"},
		},
		"nothing at all":       {want: rollout.Answer{Owner: "team", Why: "0 of the 20 runs that are needed"}},
		"too few":              {runs: some(19, morning, clean), want: rollout.Answer{Owner: "team", Why: "19 of the 20 runs that are needed"}},
		"no tokens":            {runs: some(412, morning, silent), want: rollout.Answer{Owner: "team", Why: "no tokens yet: 0 of 412 runs sent one"}},
		"few tokens":           {runs: append(some(98, morning, clean), some(2, morning, silent)...), want: rollout.Answer{Owner: "team", Why: "2 of 100 runs sent no token"}},
		"one of a hundred":     {runs: append(some(99, morning, clean), breaks), want: rollout.Answer{UpTo: 100, Why: "100 runs, of which 1 would break"}},
		"too many that break":  {runs: append(some(1061, morning, clean), some(31, morning, breaks)...), want: rollout.Answer{Owner: "team", Why: "31 of 1,092 runs would break: aud_mismatch (svc-billing)"}},
		"one security signal":  {runs: append(some(9999, morning, clean), opens), want: rollout.Answer{Owner: "security", Signal: true, Why: "1 of 10,000 runs is a security signal: task_family_denied (svc-etl)"}},
		"runs of another week": {days: map[evidence.Day][]evidence.Run{"2030-04-22": some(500, noon, clean)}, want: rollout.Answer{Owner: "team", Why: "0 of the 20 runs that are needed"}},
		"runs of two weeks": {
			days: map[evidence.Day][]evidence.Run{today: some(12, morning, clean), "2030-04-23": some(12, noon.AddDate(0, 0, -13), clean)},
			want: rollout.Answer{UpTo: 100, Why: "24 clean runs"},
		},
		"what could not be judged says nothing": {
			runs: append(some(20, morning, clean), some(50, morning, evidence.Run{Grade: evidence.Indeterminate})...),
			want: rollout.Answer{UpTo: 100, Why: "20 clean runs"},
		},
		"what was denied by both credentials says nothing": {
			runs: some(50, morning, evidence.Run{Account: "svc-etl", Legacy: true}), want: rollout.Answer{Owner: "team", Why: "0 of the 20 runs that are needed"},
		},
		"runs since a hold count, those before do not": {
			runs: append(some(300, morning, breaks), some(30, noon.Add(-time.Hour), clean)...), since: noon.Add(-61 * time.Minute),
			want: rollout.Answer{UpTo: 100, Why: "30 clean runs"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := &days{by: test.days}
			if store.by == nil {
				store.by = map[evidence.Day][]evidence.Run{today: test.runs}
			}
			g, err := evidence.NewGuard(store, func() time.Time { return noon })
			if err != nil {
				t.Fatal(err)
			}
			got, err := g.MayRaise(t.Context(), rollout.State{Team: "data-eng"}, test.since)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			if other, err := g.MayRaise(t.Context(), rollout.State{Team: "another"}, test.since); err != nil || other.UpTo != 0 {
				t.Errorf("another team: %+v, %v", other, err)
			}
		})
	}
}

func TestTheGuardRemembersAnAnswerForAMoment(t *testing.T) {
	now := noon
	store := &days{by: map[evidence.Day][]evidence.Run{evidence.DayOf(noon): some(20, noon, evidence.Run{Token: true})}}
	g, err := evidence.NewGuard(store, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	ask := func() rollout.Percent {
		t.Helper()
		answer, err := g.MayRaise(t.Context(), rollout.State{Team: "data-eng"}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		return answer.UpTo
	}
	first := ask()
	reads := store.reads
	store.by = nil
	if again := ask(); again != first || store.reads != reads {
		t.Errorf("asked again at once: %s after %d more readings", again, store.reads-reads)
	}
	now = now.Add(15 * time.Second)
	if later := ask(); later != 0 {
		t.Errorf("later: %s, want 0: the evidence is gone", later)
	}
	now = now.Add(time.Minute)
	store.err = errors.New("away")
	if _, err := g.MayRaise(t.Context(), rollout.State{Team: "data-eng"}, time.Time{}); err == nil {
		t.Error("an answer without evidence")
	}
}

func TestATeamIsRetiredThatNeedsNoPasswordAnyMore(t *testing.T) {
	days14 := noon.AddDate(0, 0, -14)
	for name, test := range map[string]struct {
		state    rollout.State
		accounts map[string]evidence.Use
		want     rollout.Answer
	}{
		"nothing used for two weeks": {
			state:    rollout.State{Percent: 100, RaisedAt: days14},
			accounts: map[string]evidence.Use{"svc-etl": {Legacy: days14, Token: noon}, "never": {}},
			want:     rollout.Answer{UpTo: 100, Why: "no password for 14 days"},
		},
		"a use since then": {
			state:    rollout.State{Percent: 100, RaisedAt: days14},
			accounts: map[string]evidence.Use{"svc-etl": {Legacy: noon.AddDate(0, 0, -9)}, "svc-old": {Legacy: noon.AddDate(0, 0, -12)}},
			want:     rollout.Answer{Owner: "team", Why: "no password for 9 of 14 days: svc-etl was the last to use one"},
		},
		"not for long enough": {
			state: rollout.State{Percent: 100, RaisedAt: days14.Add(time.Second)},
			want:  rollout.Answer{Owner: "team", Why: "at 100% for 13 of 14 days"},
		},
		"not at 100%": {
			state: rollout.State{Percent: 99, RaisedAt: days14}, want: rollout.Answer{Owner: "team", Why: "the team is at 99%, not at 100%"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := evidence.NewGuard(&days{accounts: test.accounts}, func() time.Time { return noon })
			if err != nil {
				t.Fatal(err)
			}
			got, err := g.MayRetire(t.Context(), test.state)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}
