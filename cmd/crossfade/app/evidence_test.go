package app_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"crossfade/cmd/crossfade/app"
	event "crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/fleet"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

func inProcess(t *testing.T) *redisstore.InProcess {
	t.Helper()
	store, err := redisstore.NewInProcess()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// gathered is what a store knows of a team's two days around now.
func gathered(t *testing.T, s evidence.Store, team identity.Team) (runs []evidence.Run, counts map[evidence.Count]int64) {
	t.Helper()
	counts = make(map[evidence.Count]int64)
	today := evidence.DayOf(time.Now())
	for _, day := range []evidence.Day{today.Before(), today} {
		d, err := s.Daily(context.Background(), team, day)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range d.Runs {
			runs = append(runs, r)
		}
		for c, n := range d.Counts {
			counts[c] += n
		}
	}
	return runs, counts
}

func TestWhatRequestsTeachIsRecorded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	good, other := s.token("svc-etl", audience), s.token("svc-etl", "api://finance")
	somebody := s.token("svc-billing", audience)
	worker := func(r request) request {
		r.method, r.path, r.body = addTask("w", "LoadUsers").method, addTask("w", "LoadUsers").path, addTask("w", "LoadUsers").body
		return r
	}
	for name, test := range map[string]struct {
		ask     request
		percent rollout.Percent
		team    identity.Team
		want    *evidence.Run // nil for a request of no run
		count   evidence.Count
	}{
		"a password with a good companion": {
			ask: worker(etl(request{companion: good})), team: "data-eng",
			want:  &evidence.Run{Account: "svc-etl", Pipeline: "LoadUsers", Legacy: true, Token: true},
			count: evidence.Count{Verdict: "match_allow", Source: "client"},
		},
		"a password alone": {
			ask: worker(etl(request{})), team: "data-eng",
			want:  &evidence.Run{Account: "svc-etl", Pipeline: "LoadUsers", Grade: evidence.NoToken, Reason: "token_absent", Legacy: true, Detail: "a password alone: no token in Crossfade-Token"},
			count: evidence.Count{Verdict: "no_token", Reason: "token_absent", Source: "none"},
		},
		"a password with a token for another audience": {
			ask: worker(etl(request{companion: other})), team: "data-eng",
			want: &evidence.Run{
				Account: "svc-etl", Pipeline: "LoadUsers", Grade: evidence.WouldBreak, Reason: "aud_mismatch", Legacy: true, Token: true,
				Detail: `the token is for "api://finance"; this gateway accepts "luigi"`,
			},
			count: evidence.Count{Verdict: "would_break", Reason: "aud_mismatch", Source: "client"},
		},
		"a password with the token of somebody else": {
			ask: worker(etl(request{companion: somebody})), team: "data-eng",
			want:  &evidence.Run{Account: "svc-etl", Pipeline: "LoadUsers", Grade: evidence.IdentityDrift, Reason: "principal_mismatch", Legacy: true, Token: true, Detail: "static credential and token are of two accounts: one of team data-eng, one of team billing"},
			count: evidence.Count{Verdict: "identity_drift", Reason: "principal_mismatch", Source: "client"},
		},
		"a good token alone": {
			ask: worker(request{bearer: good}), team: "data-eng",
			want:  &evidence.Run{Account: "svc-etl", Pipeline: "LoadUsers", Token: true},
			count: evidence.Count{Verdict: "not_evaluated", Source: "client"},
		},
		"a password that an enforced team must not use any more": {
			ask: worker(etl(request{})), team: "data-eng", percent: 100,
			want: &evidence.Run{
				Account: "svc-etl", Pipeline: "LoadUsers", Grade: evidence.NoToken, Reason: "token_absent",
				Legacy: true, Enforced: true, Refused: true, Detail: "a password alone: no token in Crossfade-Token",
			},
			count: evidence.Count{Verdict: "no_token", Reason: "token_absent", Source: "none"},
		},
		"a wrong password is counted and is nobody's run": {
			ask: worker(request{user: "svc-etl", password: "guess"}), team: identity.Unassigned,
			count: evidence.Count{Verdict: "match_deny", Reason: "legacy_unknown", Source: "none"},
		},
		"a token that is none is nobody's run": {
			ask: worker(request{bearer: "a.b.c"}), team: identity.Unassigned,
			count: evidence.Count{Verdict: "not_evaluated", Reason: "malformed_jwt", Source: "client"},
		},
		"a page that somebody looks at is no run": {
			ask: etl(pages()), team: "data-eng",
			count: evidence.Count{Verdict: "no_token", Reason: "token_absent", Source: "none"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := inProcess(t)
			if test.percent > 0 {
				if _, err := store.Write(t.Context(), rollout.Change{
					Team: test.team, Percent: test.percent, Expect: rollout.AnyRevision, Actor: "lead", Source: "cli",
				}); err != nil {
					t.Fatal(err)
				}
			}
			s := newSite(t)
			g := s.start(func(o *app.Options) { o.Store = store }).loaded()
			g.send(test.ask)
			g.end() // what is left is recorded
			runs, counts := gathered(t, store, test.team)
			if diff := cmp.Diff(map[evidence.Count]int64{test.count: 1}, counts); diff != "" {
				t.Errorf("counts (-want +got):\n%s", diff)
			}
			var want []evidence.Run
			if test.want != nil {
				run := *test.want
				run.Broke, run.Tokenless = run.Grade == evidence.WouldBreak, run.Grade == evidence.NoToken
				want = []evidence.Run{run}
			}
			times := cmpopts.IgnoreFields(evidence.Run{}, "First", "Last", "Worst", "TraceID", "FirstExpiry", "LastExpiry", "EnforcedFrom", "LockedOut", "Config")
			if diff := cmp.Diff(want, runs, times, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("runs (-want +got):\n%s", diff)
			}
			for _, r := range runs {
				if len(r.Config) != 12 {
					t.Errorf("the run does not tell what judged it: %+v", r)
				}
				if r.First.IsZero() || r.Last.Before(r.First) || r.TraceID == "" && r.Grade != evidence.Clean {
					t.Errorf("the run has no times or no trace: %+v", r)
				}
				if locked := test.want.Legacy && test.want.Enforced && test.want.Refused; locked == r.LockedOut.IsZero() {
					t.Errorf("locked out: %t, at %s", locked, r.LockedOut)
				}
				if r.Token && r.Grade == evidence.Clean && !r.LastExpiry.After(time.Now()) {
					t.Errorf("the run's token ends at %s", r.LastExpiry)
				}
			}
		})
	}
}

func TestOnlyCredentialsInForceMakeRuns(t *testing.T) {
	etl := identity.Principal{Name: "svc-etl", Team: "data-eng"}
	good := &identity.Authentication{Status: identity.StatusVerified, Principal: etl}
	rejected := func(why identity.Reason) *identity.Authentication {
		return &identity.Authentication{Status: identity.StatusRejected, Principal: etl, Reasons: []identity.Reason{why}}
	}
	for name, test := range map[string]struct {
		legacy, token *identity.Authentication
		control       event.Side
		verdict       shadow.Verdict
		account       string
		judged        bool // the token
	}{
		"a password in force":                      {good, nil, event.SideLegacy, shadow.NoToken, "svc-etl", false},
		"a password in force with a bad token":     {good, rejected("aud_mismatch"), event.SideLegacy, shadow.WouldBreak, "svc-etl", true},
		"one that may not do it, with a bad token": {good, rejected("aud_mismatch"), event.SideLegacy, shadow.MatchDeny, "svc-etl", false},
		"an expired password":                      {rejected("legacy_expired"), nil, event.SideLegacy, shadow.MatchDeny, "", false},
		"a revoked password with a bad token":      {rejected("legacy_revoked"), rejected("aud_mismatch"), event.SideLegacy, shadow.MatchDeny, "", false},
		"an expired password with a good token":    {rejected("legacy_expired"), good, event.SideLegacy, shadow.LegacyLapsed, "", true},
		"a token alone":                            {nil, good, event.SideToken, shadow.NotEvaluated, "svc-etl", true},
		"a bad token beside an enforced password":  {good, rejected("aud_mismatch"), event.SideToken, shadow.WouldBreak, "svc-etl", true},
		"a bad token alone, which names somebody":  {nil, rejected("aud_mismatch"), event.SideToken, shadow.NotEvaluated, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			var o evidence.Observation
			ok := app.ObservationOf(&event.Event{
				Start: time.Now(), Principal: etl, Legacy: test.legacy, Token: test.token,
				Decision: event.Decision{Control: test.control}, Shadow: shadow.Result{Verdict: test.verdict},
			}, &o)
			if !ok || o.Account != test.account || o.Token != test.judged || o.Team != "data-eng" {
				t.Errorf("account %q, token judged: %t, %+v", o.Account, o.Token, o)
			}
		})
	}
}

func TestRequestsOfModeObserveAreMarked(t *testing.T) {
	for mode, want := range map[event.Mode]bool{event.Observe: true, event.Enforce: false} {
		var o evidence.Observation
		if app.ObservationOf(&event.Event{Start: time.Now(), Mode: mode}, &o); o.Observed != want {
			t.Errorf("mode %s: observed %t", mode, o.Observed)
		}
	}
}

func TestADetailIsTheSampleOfAMismatch(t *testing.T) {
	for verdict, want := range map[shadow.Verdict]string{
		shadow.WouldBreak: "a sample", shadow.NoToken: "a sample", shadow.WouldOpen: "a sample", shadow.IdentityDrift: "a sample",
		shadow.MatchAllow: "", shadow.MatchDeny: "", shadow.LegacyLapsed: "", shadow.Indeterminate: "", shadow.NotEvaluated: "",
	} {
		var o evidence.Observation
		app.ObservationOf(&event.Event{
			Start: time.Now(), Principal: identity.Principal{Name: "svc-etl", Team: "data-eng"}, Sample: "a sample",
			Legacy: &identity.Authentication{Status: identity.StatusVerified, Detail: "the operator's sentence"},
			Token:  &identity.Authentication{Status: identity.StatusRejected, Reasons: []identity.Reason{identity.AudMismatch}, Detail: "the operator's sentence"},
			Shadow: shadow.Result{Verdict: verdict, Reason: identity.AudMismatch},
		}, &o)
		if o.Detail != want {
			t.Errorf("%s: %q, want %q", verdict, o.Detail, want)
		}
	}
}

func TestEvidenceRidesOutAnOutageOfRedis(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	s := newSite(t)
	s.configure("redis", redis.URL())
	g := s.start().loaded()
	g.send(etl(ping("w1")))
	store, err := redisstore.New(redisstore.Options{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	read := func() (n int64) {
		_, counts := gathered(t, store, "data-eng")
		for _, c := range counts {
			n += c
		}
		return n
	}
	s.eventually("the first request is recorded", func() bool { return read() == 1 })
	redis.Pause(t) // what it knows stays
	for range 5 {
		if got := g.send(etl(ping("w1"))); got.status != 200 {
			t.Errorf("while Redis does not answer: %v", got)
		}
	}
	if _, err := store.Daily(shortly(t), "data-eng", evidence.DayOf(time.Now())); !errors.Is(err, rollout.ErrUnavailable) {
		t.Errorf("a paused Redis answers: %v", err)
	}
	redis.Resume(t)
	s.eventually("the requests of the outage are recorded, once each", func() bool { return read() == 6 })
	if got := g.metric("crossfade_evidence_lost_total"); got != "0" {
		t.Errorf("%s observations are lost, want none", got)
	}
}

// shortly is a context that ends soon.
func shortly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestGatewaysKnowEachOther(t *testing.T) {
	t.Parallel()
	server := rollouttest.StartRedis(t)
	s := newSite(t)
	s.configure("redis", server.URL())
	store, err := redisstore.New(redisstore.Options{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	count := func(n int) func() bool {
		return func() bool {
			all, _, err := store.Fleet(context.Background())
			return err == nil && len(all) == n && (n == 0 || all[0].Config != "" && fleet.Agree(all))
		}
	}
	first := s.start().loaded()
	second := s.start().loaded()
	s.eventually("both give signs of life", count(2))
	second.end()
	s.eventually("one has said goodbye", count(1))
	first.end()
	s.eventually("nobody is there", count(0))
}
