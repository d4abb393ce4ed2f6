package console_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/fleet"
)

func TestATeamIsRetiredWhenNothingIsInTheWay(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.put(rollout100)
	retire := ask{method: "POST", path: "/teams/data-eng/retire", token: "operator", header: match("*"), body: `{"reason":"nobody needs it"}`}
	look := func() (r console.Retirement) {
		t.Helper()
		if err := json.Unmarshal([]byte(a.want(ask{method: "GET", path: "/teams/data-eng/retire"}, 200, "").body), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}

	a.guard.say(rollout.Answer{Why: "no password for 9 of 14 days: svc-old was the last to use one", Owner: identity.OwnerTeam}, nil)
	a.want(ask{method: "POST", path: "/teams/data-eng/hold", token: "lead", body: `{"reason":"until Monday"}`}, 200, "")
	got := look()
	if got.May || got.Why != "" || got.Credentials != 1 || len(got.Obstacles) != 2 || got.Obstacles[0].Owner != "team" || got.Obstacles[1].Why != "it is held: until Monday" {
		t.Errorf("with two things in the way: %+v", got)
	}
	blocked := a.want(retire, 409, "retirement_blocked")
	if !strings.Contains(blocked.body, `"message":"data-eng is not retired: no password for 9 of 14 days: svc-old was the last to use one; it is held: until Monday"`) ||
		!strings.Contains(blocked.body, `"obstacles":[{"why":"no password for 9 of 14 days`) {
		t.Errorf("it is not said what is in the way: %v", blocked)
	}
	a.want(ask{method: "DELETE", path: "/teams/data-eng/hold", token: "lead"}, 200, "")
	a.guard.say(rollout.Answer{}, errors.New("redis is away"))
	a.want(retire, 503, "store_unavailable")
	a.want(ask{method: "GET", path: "/teams/data-eng/retire"}, 503, "store_unavailable")

	a.guard.say(rollout.Answer{UpTo: rollout.Full, Why: "no password for 14 days"}, nil)
	if got := look(); !got.May || got.Why != "no password for 14 days" || len(got.Obstacles) != 0 {
		t.Errorf("with nothing in the way: %+v", got)
	}
	before := len(a.done)
	retire.header = match(`"1"`)
	a.want(retire, 412, "conflict")
	if s, _ := a.table.Lookup("data-eng"); s.Retired || len(a.done) != before {
		t.Fatalf("it was retired on what was not seen: %+v", s)
	}
	retire.header = match(`"3"`)
	done := a.want(retire, 200, "")
	if done.team.Phase != rollout.PhaseRetired || done.team.Revision != 4 || done.team.Ended != 1 {
		t.Errorf("retired: %v", done)
	}
	if e := a.last("data-eng"); e.Kind != rollout.KindRetire || e.Actor != "olga" || !e.Verified || e.Reason != "nobody needs it" || e.Evidence != "no password for 14 days" || !e.Retired {
		t.Errorf("the history has %+v", e)
	}
	if !a.table.CredentialRetired("htpasswd:svc-data-eng") {
		t.Error("the credential is not refused")
	}
	retire.header = match("*")
	if again := a.want(retire, 200, ""); again.team.Revision != 4 {
		t.Errorf("again: %v", again)
	}
	if got := look(); !got.Retired || !got.May || got.Credentials != 1 {
		t.Errorf("of a retired team: %+v", got)
	}
}

func TestALeadIsToldTheOtherWayToARetirement(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.put(rollout100)
	retire := ask{method: "POST", path: "/teams/data-eng/retire", token: "lead", header: match("*")}
	if got := a.want(retire, 403, "action_denied"); !strings.Contains(got.body, "`retired: true`") {
		t.Errorf("a lead of the team: %v", got)
	}
	retire.token = "viewer"
	if got := a.want(retire, 403, "action_denied"); strings.Contains(got.body, "`retired: true`") || !strings.Contains(got.body, "admin.operators") {
		t.Errorf("a viewer: %v", got)
	}
}

func TestALeadOfAnotherTeamIsToldWhichOneIsTheirs(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	hold := ask{method: "POST", path: "/teams/data-eng/hold", token: "other"}
	if got := a.want(hold, 403, "action_denied"); !strings.Contains(got.body, "otto, who leads search, may not change data-eng.") {
		t.Errorf("%v", got)
	}
}

func TestARestorePutsBackWhatThisGatewayKnew(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.put(rollout.Change{Team: "data-eng", Percent: 60})
	a.put(rollout.Change{Team: "search", Percent: 100, Retire: true})
	look := func(method string) (r console.Restoration) {
		t.Helper()
		got := a.want(ask{method: method, path: "/restore", token: "operator"}, 200, "")
		if err := json.Unmarshal([]byte(got.body), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if got := look("GET"); len(got.Teams) != 0 || got.Trouble != "" {
		t.Errorf("of a store that is well: %+v", got)
	}
	if got := look("POST"); len(got.Teams) != 0 || len(a.done) != 0 {
		t.Errorf("a store that is well is restored: %+v", got)
	}

	a.store.Flush()
	want := []console.Restored{{Team: "data-eng", Known: 60, Phase: rollout.PhaseRamp, KnownRevision: 1}, {Team: "search", Known: 100, Phase: rollout.PhaseRetired, KnownRevision: 1}}
	dry := look("GET")
	if len(dry.Teams) != 2 || dry.Teams[0] != want[0] || dry.Teams[1] != want[1] || !strings.Contains(dry.Trouble, "another or an emptied store") {
		t.Errorf("of an emptied store: %+v", dry)
	}
	if got := a.want(ask{method: "POST", path: "/teams/data-eng/hold", token: "operator"}, 503, "store_regressed"); !strings.Contains(got.body, "/api/v1/restore") {
		t.Errorf("a change meanwhile: %v", got)
	}
	a.want(ask{method: "POST", path: "/restore", token: "lead"}, 403, "action_denied")
	if _, err := a.store.History(t.Context(), "data-eng", 1); err != nil {
		t.Fatal(err)
	}
	done := a.want(ask{method: "POST", path: "/restore", token: "operator", body: `{"reason":"the disk was lost"}`}, 200, "")
	if strings.Contains(done.body, "trouble") || !strings.Contains(done.body, `{"team":"search","has":0,"known":100,"phase":"retired","has_revision":0,"known_revision":1}`) {
		t.Errorf("restored: %v", done)
	}
	if e := a.last("data-eng"); e.Kind != rollout.KindRestore || e.To != 60 || e.Actor != "olga" || !e.Verified || e.Source != "api" || e.Reason != "the disk was lost" {
		t.Errorf("the history has %+v", e)
	}
	if len(a.done) != 2 || a.done[1].Change.Kind != rollout.KindRestore || a.done[1].Is.Revision != 2 || a.done[1].Token.Subject != "sub-olga" {
		t.Errorf("told of: %+v", a.done)
	}
	a.want(ask{method: "POST", path: "/teams/data-eng/hold", token: "operator"}, 200, "")

	a.store.SetDown(true)
	a.want(ask{method: "POST", path: "/restore", token: "operator"}, 503, "store_unavailable")
}

func TestTheFleetIsShownWithWhoServesByWhat(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	one := func(id, config string, ago time.Duration) fleet.Replica {
		return fleet.Replica{ID: id, Version: "1.2", Config: config, Started: a.now.Add(-time.Hour), Seen: a.now.Add(-ago)}
	}
	look := func() (r console.Replicas) {
		t.Helper()
		if err := json.Unmarshal([]byte(a.want(ask{method: "GET", path: "/replicas"}, 200, "").body), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if got := look(); len(got.Replicas) != 0 || !got.Agree {
		t.Errorf("without any: %+v", got)
	}
	a.fleet = []fleet.Replica{one("a", "old", 2*time.Minute), one("b", "new", time.Second), one("c", "new", 2*time.Second)}
	got := look()
	if !got.Agree || len(got.Replicas) != 3 || !got.AsOf.Equal(a.now) {
		t.Fatalf("with one that is silent: %+v", got)
	}
	for i, want := range []console.Replica{
		{ID: "a", Version: "1.2", Config: "old", Started: a.now.Add(-time.Hour), Seen: a.now.Add(-2 * time.Minute), Skew: true},
		{ID: "b", Self: true, Version: "1.2", Config: "new", Started: a.now.Add(-time.Hour), Seen: a.now.Add(-time.Second), Alive: true},
		{ID: "c", Version: "1.2", Config: "new", Started: a.now.Add(-time.Hour), Seen: a.now.Add(-2 * time.Second), Alive: true},
	} {
		if got.Replicas[i] != want {
			t.Errorf("replica %d is %+v, want %+v", i, got.Replicas[i], want)
		}
	}
	a.fleet[2] = one("c", "newer", time.Second)
	if got := look(); got.Agree || !got.Replicas[2].Skew {
		t.Errorf("with two configurations: %+v", got)
	}
	a.away = rollout.ErrUnavailable
	a.want(ask{method: "GET", path: "/replicas"}, 503, "store_unavailable")
}

func TestTheNearestTeamIsNamed(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	if got := a.want(ask{method: "GET", path: "/teams/data"}, 404, "team_unknown"); !strings.Contains(got.body, "Did you mean data-eng?") {
		t.Errorf("%v", got)
	}
	if got := a.want(ask{method: "GET", path: "/teams/zebra"}, 404, "team_unknown"); strings.Contains(got.body, "mean") {
		t.Errorf("%v", got)
	}
}

func TestEachRequestIsCountedByItsRouteAndItsAnswer(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	for _, q := range []ask{
		{method: "GET", path: "/teams"},
		{method: "HEAD", path: "/teams"},
		{method: "GET", path: "/teams/data-eng"},
		{method: "GET", path: "/teams/nobody"},
		{method: "GET", path: "/teams", token: "expired"},
		{method: "DELETE", path: "/teams"},
		{method: "POST", path: "/teams/data-eng/hold"},
		{method: "POST", path: "/teams/data-eng/hold", token: "viewer"},
		{method: "POST", path: "/teams/data-eng/hold", token: "lead"},
		{method: "GET", path: "/nothing"},
		{method: "GET", path: "/teams/data-eng/nothing", token: "expired"},
	} {
		a.send(q)
	}
	want := map[string]int{
		"/api/v1/teams 200": 2, "/api/v1/teams/{team} 200": 1, "/api/v1/teams/{team} 404": 1, "/api/v1/teams 401": 1, "/api/v1/teams 405": 1,
		"/api/v1/teams/{team}/hold 401": 1, "/api/v1/teams/{team}/hold 403": 1, "/api/v1/teams/{team}/hold 200": 1, " 404": 1, " 401": 1,
	}
	for id, n := range want {
		if a.counts[id] != n {
			t.Errorf("%q was counted %d times, want %d", id, a.counts[id], n)
		}
	}
	if len(a.counts) != len(want) {
		t.Errorf("counted: %v", a.counts)
	}
	routes := console.Routes()
	if pages := 6; len(routes) != len(console.Operations())+pages {
		t.Errorf("the routes are %v", routes)
	}
}
