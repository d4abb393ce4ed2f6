package console_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
)

// Changes that tests begin with, and what a guard may say.
var (
	oneTime    = identity.NewSecret("one-time-secret")
	rollout100 = rollout.Change{Team: "data-eng", Percent: 100}
	retired    = rollout.Change{Team: "data-eng", Percent: 100, Retire: true}
	held       = rollout.Change{Team: "data-eng", Kind: rollout.KindHold, Hold: &rollout.Hold{Reason: "until Monday", At: time.UnixMilli(1).UTC()}}
	noEvidence = rollout.Answer{Why: "3 of the 20 runs that are needed", Owner: identity.OwnerTeam}
)

func TestAPercentageIsSetOnWhatWasSeen(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	set := func(percent int, tag string) ask {
		return ask{method: "PUT", path: "/teams/data-eng/rollout", token: "operator", header: match(tag), body: fmt.Sprintf(`{"percent":%d,"reason":"week 1"}`, percent)}
	}
	seen := a.want(ask{method: "GET", path: "/teams/data-eng/rollout"}, 200, "")
	if seen.header.Get("ETag") != `"0"` || seen.team.Revision != 0 || seen.team.Percent != 0 || seen.team.Phase != rollout.PhaseShadow {
		t.Errorf("a team that was never changed: %v", seen)
	}
	got := a.want(set(25, `"0"`), 200, "")
	if got.header.Get("ETag") != `"1"` || got.team.Percent != 25 || got.team.Revision != 1 {
		t.Errorf("set: %v", got)
	}
	stale := a.want(set(50, `"0"`), 412, "conflict")
	if stale.header.Get("ETag") != `"1"` || !strings.Contains(stale.body, `"current":{"team":"data-eng","percent":25,`) {
		t.Errorf("stale: %v", stale)
	}
	a.want(set(26, `"9", "1"`), 200, "")
	a.want(set(27, `W/"2"`), 412, "conflict") // weak tags never match
	a.want(set(27, `*`), 200, "")
	for _, tag := range []string{``, `7`, `"seven"`, `"-1"`, `"07"`, `"+3"`, `*, "3"`, `"3`, `"3",`} {
		a.want(set(28, tag), 400, "precondition_invalid")
	}
	without := set(28, "")
	without.header = nil
	a.want(without, 428, "precondition_required")

	want := rollout.Entry{Revision: 3, Kind: rollout.KindSet, From: 26, To: 27, Actor: "olga", Verified: true, Source: "api", Reason: "week 1"}
	last := a.last("data-eng")
	want.At = last.At
	if last != want {
		t.Errorf("the history has %+v, want %+v", last, want)
	}
	if len(a.done) != 3 || a.done[2].Was.Percent != 26 || a.done[2].Is.Percent != 27 || a.done[2].Token.Subject != "sub-olga" || a.done[2].Client.String() != "127.0.0.1" {
		t.Errorf("told of: %+v", a.done)
	}
}

func TestTheOneTimeTokenProvesNoName(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.want(ask{method: "PUT", path: "/teams/search/rollout", token: "one-time-secret", header: match("*"), body: `{"percent":5}`}, 200, "")
	if e := a.last("search"); e.Actor != "one-time token" || e.Verified || e.Source != "api" {
		t.Errorf("the history has %+v", e)
	}
}

func TestASettingBelowTheRequestHoldsAndTheGlassBreaks(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.want(ask{method: "POST", path: "/teams/data-eng/request", token: "lead", body: `{"percent":80}`}, 200, "")
	set := func(body string) ask {
		return ask{method: "PUT", path: "/teams/data-eng/rollout", token: "lead", header: match("*"), body: body}
	}
	got := a.want(set(`{"percent":20,"reason":"aud_mismatch"}`), 200, "")
	if h := got.team.Hold; h == nil || h.Reason != "aud_mismatch" || h.Actor != "lea" || !h.Verified || !h.Until.IsZero() || got.team.Outcome != "held" {
		t.Errorf("below the request: %v", got)
	}
	for _, body := range []string{
		`{"percent":0,"break_glass_for":"4h"}`, `{"percent":0,"break_glass_for":"73h","reason":"x"}`, `{"percent":0,"break_glass_for":"0s","reason":"x"}`,
		`{"percent":0,"break_glass_for":"-1h","reason":"x"}`, `{"percent":0,"break_glass_for":"soon","reason":"x"}`, `{"percent":0,"break_glass_for":4,"reason":"x"}`,
	} {
		a.want(set(body), 400, "body_invalid")
	}
	raise := set(`{"percent":60,"break_glass_for":"4h","reason":"up"}`)
	raise.token = "operator"
	a.want(raise, 422, "change_invalid") // what was asked for would lower it again at once
	// A hold without an end outlives the glass.
	got = a.want(set(`{"percent":0,"break_glass_for":"4h","reason":"the provider is away"}`), 200, "")
	if h := got.team.Hold; h == nil || !h.Until.IsZero() {
		t.Errorf("the hold of before ends with the glass: %v", got)
	}
	a.want(ask{method: "DELETE", path: "/teams/data-eng/hold", token: "lead"}, 200, "")
	before := time.Now()
	got = a.want(set(`{"percent":0,"break_glass_for":"4h","reason":"the provider is away"}`), 200, "")
	if h := got.team.Hold; h == nil || h.Until.Before(before.Add(4*time.Hour-time.Second)) || h.Until.After(time.Now().Add(4*time.Hour)) {
		t.Errorf("with the glass broken: %v", got)
	}
}

func TestARequestIsNotedAndFollowsTheGuard(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	request := func(body string) ask {
		return ask{method: "POST", path: "/teams/data-eng/request", token: "lead", body: body}
	}
	a.guard.say(noEvidence, nil)
	got := a.want(request(`{"percent":50,"reason":"week 1"}`), 202, "")
	if got.team.Percent != 0 || *got.team.Requested != 50 || got.team.Outcome != "pending" || got.team.Why != noEvidence.Why || got.team.Owner != "team" || got.team.Request.Actor != "lea" || !got.team.Request.Verified {
		t.Errorf("without evidence: %v", got)
	}
	a.want(request(`{"percent":50,"reason":"again"}`), 202, "")
	if s, _ := a.table.Lookup("data-eng"); s.Revision != 1 {
		t.Errorf("to ask again for the same wrote revision %d", s.Revision)
	}
	a.guard.say(rollout.Answer{}, errors.New("redis is away"))
	if got := a.want(request(`{"percent":50}`), 202, ""); !strings.Contains(got.team.Why, "redis is away") || got.team.Owner != "platform" {
		t.Errorf("without an answer: %v", got)
	}
	a.guard.say(rollout.Answer{UpTo: 100, Why: "30 clean runs"}, nil)
	a.closed = true
	if got := a.want(request(`{"percent":50}`), 202, ""); got.team.Outcome != "outside apply_hours" {
		t.Errorf("at night: %v", got)
	}
	a.closed = false
	got = a.want(request(`{"percent":50}`), 200, "")
	if got.team.Percent != 50 || got.team.Outcome != "met" || got.team.Why != "30 clean runs" {
		t.Errorf("with evidence: %v", got)
	}
	if e := a.last("data-eng"); e.Kind != rollout.KindApply || e.Actor != "lea" || !e.Verified || e.Source != "api" || e.Reason != "week 1" || e.Evidence != "30 clean runs" {
		t.Errorf("the history has %+v", e)
	}

	// Lowering asks nobody, an override passes the checks and never a signal.
	a.guard.say(noEvidence, nil)
	if got := a.want(request(`{"percent":10}`), 200, ""); got.team.Percent != 10 {
		t.Errorf("lowered: %v", got)
	}
	if got := a.want(request(`{"percent":20,"override":"a trial"}`), 200, ""); got.team.Percent != 20 || got.team.Request.Override != "a trial" {
		t.Errorf("with an override: %v", got)
	}
	if got := a.want(request(`{"percent":30}`), 202, ""); got.team.Request.Override != "" {
		t.Errorf("an override leaks into the next request: %v", got)
	}
	a.guard.say(rollout.Answer{Signal: true, Why: "would_open", Owner: identity.OwnerSecurity}, nil)
	a.want(request(`{"percent":30,"override":"a trial"}`), 202, "")

	a.want(ask{method: "POST", path: "/teams/data-eng/hold", token: "operator", body: `{"reason":"wait"}`}, 200, "")
	a.guard.say(rollout.Answer{UpTo: 100}, nil)
	if got := a.want(request(`{"percent":30}`), 202, ""); got.team.Outcome != "held" || got.team.Percent != 20 {
		t.Errorf("held: %v", got)
	}
}

func TestARequestKeepsWhatTheFileWasSeenToSay(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	request := func(body string) answer {
		return a.want(ask{method: "POST", path: "/teams/data-eng/request", token: "lead", body: body}, 200, "")
	}
	window := `[{"percent":100,"from":"2030-01-01T08:00:00Z","until":"2030-01-01T09:00:00Z"}]`
	got := request(`{"percent":10,"digest":"d1","brownouts":` + window + `}`)
	if r := got.team.Request; r.Digest != "d1" || len(r.Brownouts) != 1 || r.Brownouts[0].Until.Sub(r.Brownouts[0].From) != time.Hour {
		t.Errorf("as the file: %v", got)
	}
	if r := request(`{"percent":20}`).team.Request; r.Digest != "d1" || len(r.Brownouts) != 1 {
		t.Errorf("in the place of the file: %+v", r)
	}
	if r := request(`{"percent":20,"brownouts":[]}`).team.Request; r.Digest != "d1" || len(r.Brownouts) != 0 {
		t.Errorf("without brownouts: %+v", r)
	}
	if r := request(`{"percent":20,"digest":"d2"}`).team.Request; r.Digest != "d2" || len(r.Brownouts) != 0 {
		t.Errorf("as another file: %+v", r)
	}
}

func TestHoldReleaseAndRollback(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	rollback := ask{method: "POST", path: "/teams/data-eng/rollback", token: "lead", body: `{"reason":"aud_mismatch"}`}
	a.want(rollback, 409, "nothing_to_roll_back")
	a.put(rollout.Change{Team: "data-eng", Percent: 40})
	if got := a.want(rollback, 200, ""); got.team.Percent != 0 || got.team.Hold.Reason != "aud_mismatch" {
		t.Errorf("rolled back: %v", got)
	}
	if e := a.last("data-eng"); e.Kind != rollout.KindRollback || e.Actor != "lea" || !e.Verified {
		t.Errorf("the history has %+v", e)
	}
	release := ask{method: "DELETE", path: "/teams/data-eng/hold?reason=fixed+in+812", token: "lead"}
	if got := a.want(release, 200, ""); got.team.Hold != nil || got.team.Revision != 3 {
		t.Errorf("released: %v", got)
	}
	if e := a.last("data-eng"); e.Kind != rollout.KindRelease || e.Reason != "fixed in 812" {
		t.Errorf("the history has %+v", e)
	}
	if got := a.want(release, 200, ""); got.team.Revision != 3 {
		t.Errorf("to release what is not held writes: %v", got)
	}
	if got := a.want(ask{method: "POST", path: "/teams/data-eng/hold", token: "lead"}, 200, ""); got.team.Hold.Reason != "held by lea" {
		t.Errorf("held: %v", got)
	}
	rollback.body = `{}`
	a.want(rollback, 400, "body_invalid")
	rollback.body = ``
	a.want(rollback, 400, "body_invalid")

	a.put(retired)
	a.want(ask{method: "PUT", path: "/teams/data-eng/rollout", token: "lead", body: `{"percent":0}`, header: match("*")}, 409, "team_retired")
	if got := a.want(ask{method: "POST", path: "/teams/data-eng/request", token: "lead", body: `{"percent":0}`}, 202, ""); got.team.Percent != 100 {
		t.Errorf("a retired team: %v", got)
	}
}

func TestTheHistoryShowsTheLastFirst(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	for i := range 60 {
		a.put(rollout.Change{Team: "data-eng", Percent: rollout.Percent(i), Actor: "lead", Source: "cli"})
	}
	for query, want := range map[string]int{"": 50, "?limit=2": 2, "?limit=1000": 60} {
		got := a.want(ask{method: "GET", path: "/teams/data-eng/history" + query}, 200, "")
		var list console.Changes
		if err := json.Unmarshal([]byte(got.body), &list); err != nil || len(list.Changes) != want || list.Changes[0].To != 59 || list.Changes[0].Verified {
			t.Errorf("%q: %v, %v", query, err, got)
		}
	}
	for _, query := range []string{"?limit=0", "?limit=1001", "?limit=-1", "?limit=x", "?limit=1.5"} {
		a.want(ask{method: "GET", path: "/teams/data-eng/history" + query}, 400, "parameter_invalid")
	}
}

func TestATeamShowsForHowManyRunsItsPercentageIsInEffect(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.put(rollout.Change{Team: "data-eng", Percent: 40})
	got := a.want(ask{method: "GET", path: "/teams/data-eng"}, 200, "")
	want := effect.Share{Day: "2030-05-13", Runs: 88, Selected: 40, Enforced: 3, Estimated: true}
	if got.team.InEffect == nil || *got.team.InEffect != want {
		t.Errorf("%v, want %+v", got, want)
	}
	if got := a.want(ask{method: "GET", path: "/teams/search"}, 200, ""); got.team.InEffect != nil || strings.Contains(got.body, "in_effect") {
		t.Errorf("a team without runs: %v", got)
	}
	a.want(ask{method: "GET", path: "/teams"}, 200, "")
}

func TestAPlanChangesNothing(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.put(rollout.Change{Team: "search", Percent: 40})
	got := a.want(ask{method: "POST", path: "/plan", body: `{"requests":[
		{"team":"search","percent":10},{"team":"data-eng","percent":50,"digest":"d"},{"team":"search","percent":40}]}`}, 200, "")
	var plan console.Plan
	if err := json.Unmarshal([]byte(got.body), &plan); err != nil || len(plan.Steps) != 3 {
		t.Fatalf("%v: %v", err, got)
	}
	lower, raise, met := plan.Steps[0], plan.Steps[1], plan.Steps[2]
	if lower.Outcome != "lower" || lower.From != 40 || lower.To != 10 || lower.Revision != 1 || !lower.Changes || lower.Selected != nil || lower.Regain != 12 || lower.Freed != 3 {
		t.Errorf("a lowering: %+v", lower)
	}
	if raise.Outcome != "raise" || raise.Why != "30 clean runs" || len(raise.Selected) != 1 || raise.Selected[0] != "svc-etl / from 0 to 50" || raise.RunsADay != 1.5 || raise.Keep != 6 {
		t.Errorf("a raise: %+v", raise)
	}
	if met.Outcome != "met" || !met.Changes { // it was never asked for
		t.Errorf("what is there: %+v", met)
	}
	if s, _ := a.table.Lookup("search"); s.Revision != 1 || len(a.done) > 0 {
		t.Errorf("the plan has changed something: %+v", s)
	}
}

func TestAPlanSaysAtATeamWhatCannotBeReadOfIt(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.put(rollout.Change{Team: "search", Percent: 40})
	a.forecast, a.damaged = errors.New("key crossfade:{data-eng}:runs is no hash"), "data-eng"
	both := ask{method: "POST", path: "/plan", body: `{"requests":[{"team":"data-eng","percent":50},{"team":"search","percent":10}]}`}
	var plan console.Plan
	if got := a.want(both, 200, ""); json.Unmarshal([]byte(got.body), &plan) != nil || len(plan.Steps) != 2 {
		t.Fatal(got)
	}
	if p := plan.Steps[0].Problem; plan.Steps[0].Outcome != "raise" || p == nil || !strings.Contains(p.Message, "data-eng") || !strings.Contains(p.Message, "is no hash") || p.Do == "" {
		t.Errorf("of the team: %+v", plan.Steps[0])
	}
	if other := plan.Steps[1]; other.Problem != nil || other.Outcome != "lower" || other.Regain != 12 {
		t.Errorf("of the other: %+v", other)
	}
	a.damaged, a.away = "", errors.New("connection refused")
	a.want(both, 503, "store_unavailable")
}

func TestBrownoutsThatAreARaiseAreRefused(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	window := func(from, hours int) string {
		begin := noon.Add(time.Duration(from) * time.Hour)
		return fmt.Sprintf(`{"percent":100,"from":%q,"until":%q}`, begin.Format(time.RFC3339), begin.Add(time.Duration(hours)*time.Hour).Format(time.RFC3339))
	}
	for name, tt := range map[string]struct {
		windows []string
		status  int
	}{
		"a day":                            {[]string{window(0, 24)}, 200},
		"the same day in two halves":       {[]string{window(0, 12), window(12, 12)}, 200},
		"a day in each of two weeks":       {[]string{window(0, 24), window(7*24, 24)}, 200},
		"two days without a pause":         {[]string{window(0, 24), window(24, 24)}, 400},
		"every other day":                  {[]string{window(0, 24), window(48, 24)}, 400},
		"a day, and an hour six days on":   {[]string{window(0, 24), window(6*24, 1)}, 400},
		"eight hours on each of four days": {[]string{window(0, 8), window(24, 8), window(48, 8), window(72, 8)}, 400},
	} {
		got := a.want(ask{method: "POST", path: "/teams/data-eng/request", token: "operator", body: `{"percent":0,"brownouts":[` + strings.Join(tt.windows, ",") + `]}`},
			tt.status, map[bool]string{true: "body_invalid"}[tt.status == 400])
		if tt.status == 400 && !strings.Contains(got.body, fmt.Sprintf("brownout %d: with it the windows last longer than 24 hours in 7 days", len(tt.windows))) {
			t.Errorf("%s: it is not said which and why: %s", name, got.body)
		}
	}
}

func TestBodiesAreReadStrictly(t *testing.T) {
	t.Parallel()
	for body, says := range map[string]string{
		`[]`:                            "no JSON object",
		`"percent"`:                     "no JSON object",
		`{`:                             "no JSON object",
		`{"percent":1`:                  "no JSON object",
		`{"percent":1}{}`:               "something follows",
		`{"percent":1} x`:               "something follows",
		`{"percent":1,"percent":2}`:     "stands twice",
		`{"Percent":1}`:                 `"Percent\" is not known`,
		`{"percnt":1}`:                  `"percnt\" is not known here; known are break_glass_for, percent, reason`,
		`{"percent":null}`:              "is null",
		`{"percent":"1"}`:               "a whole number from 0 to 100",
		`{"percent":101}`:               "a whole number from 0 to 100",
		`{"percent":-1}`:                "a whole number from 0 to 100",
		`{"percent":1.5}`:               "a whole number from 0 to 100",
		`{"percent":1e1}`:               "a whole number from 0 to 100",
		`{"percent":1,"reason":7}`:      `"reason\" must be a text`,
		`{"reason":"x"}`:                `"percent\" is missing`,
		``:                              `"percent\" is missing`,
		`{"percent":1,"reason":"\xff"`:  "no JSON",
		`{"percent":` + "\x00" + `}`:    "no JSON",
		`{"percent":1,"override":"no"}`: "is not known",
	} {
		a := newAPI(t)
		got := a.want(ask{method: "PUT", path: "/teams/data-eng/rollout", token: "operator", header: match("*"), body: body}, 400, "body_invalid")
		if !strings.Contains(got.body, strings.ReplaceAll(says, `"p`, `\"p`)) && !strings.Contains(got.body, says) {
			t.Errorf("%q: %v does not say %q", body, got, says)
		}
	}
	a := newAPI(t)
	for _, body := range []string{
		`{}`, `{"requests":{}}`, `{"requests":[7]}`, `{"requests":[{}]}`, `{"requests":[{"team":"search"}]}`, `{"requests":[{"percent":5}]}`,
		`{"requests":[{"team":"search","percent":5,"x":1}]}`, `{"requests":[` + strings.Repeat(`{"team":"search","percent":1},`, 500) + `{"team":"search","percent":1}]}`,
		`{"requests":[{"team":"search","percent":5,"brownouts":[{"from":"2030-01-01T08:00:00Z","until":"2030-01-01T09:00:00Z"}]}]}`,
		`{"requests":[{"team":"search","percent":5,"brownouts":[{"percent":5,"from":"soon","until":"later"}]}]}`,
		`{"requests":[{"team":"search","percent":5,"brownouts":[{"percent":100,"from":"2030-01-01T08:00:00Z","until":"2030-01-02T08:00:01Z"}]}]}`,
	} {
		a.want(ask{method: "POST", path: "/plan", body: body}, 400, "body_invalid")
	}
	big := ask{method: "POST", path: "/plan", body: `{"requests":[],"x":"` + strings.Repeat("x", 300<<10) + `"}`}
	a.want(big, 413, "body_oversize")
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"} {
		a.want(ask{method: "POST", path: "/plan", body: `{"requests":[]}`, header: http.Header{"Content-Type": {kind}}}, 415, "media_type_unsupported")
	}
	a.want(ask{method: "POST", path: "/plan", body: `{"requests":[]}`, header: http.Header{"Content-Type": {"application/json; charset=utf-8"}}}, 200, "")
}

func TestPathsAndMethodsThatAreNot(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	for _, path := range []string{"/", "", "/team", "/teams/", "/teams/data-eng/", "/teams/data-eng/nothing", "/openapi.yaml"} {
		a.want(ask{method: "GET", path: path, token: "operator"}, 404, "route_unknown")
	}
	for _, team := range []string{"nobody", "DATA-ENG", "data-eng%2f..", "a%2F..%2Fdata-eng"} {
		for _, token := range []string{"operator", "one-time-secret"} {
			q := ask{method: "GET", path: "/teams/" + team, token: token}
			if got := a.send(q); got.status < 300 {
				t.Errorf("%q: %v", team, got)
			}
		}
	}
	got := a.want(ask{method: "PATCH", path: "/teams/data-eng/rollout", token: "operator"}, 405, "method_not_allowed")
	if got.header.Get("Allow") != "GET, HEAD, PUT" {
		t.Errorf("Allow: %v", got.header)
	}
	a.want(ask{method: "OPTIONS", path: "/teams", header: http.Header{"Access-Control-Request-Method": {"PUT"}}}, 405, "method_not_allowed")
	a.want(ask{method: "HEAD", path: "/teams/data-eng"}, 200, "")
	a.want(ask{method: "PUT", path: "/teams/unassigned/rollout", token: "operator", header: match("*"), body: `{"percent":1}`}, 422, "change_invalid")
	// Whoever may change a team that does not exist must not make it.
	a.want(ask{method: "PUT", path: "/teams/nobody/rollout", token: "operator", header: match("*"), body: `{"percent":1}`}, 404, "team_unknown")
}

func TestTeamsThatCanBeReadCanBeChanged(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.put(rollout.Change{Team: "data-eng", Percent: 30})
	a.put(rollout.Change{Team: "search", Percent: 40})
	a.store.SetAway("search")
	for _, q := range []ask{
		{method: "PUT", path: "/rollout", header: match("*"), body: `{"percent":20}`},
		{method: "POST", path: "/request", body: `{"percent":50}`},
		{method: "POST", path: "/hold"},
		{method: "DELETE", path: "/hold"},
		{method: "POST", path: "/rollback", body: `{"reason":"workers fail"}`},
	} {
		q.token = "operator"
		what := q.path
		q.path = "/teams/search" + what
		if got := a.want(q, 503, "store_unavailable"); got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "the store that has search is away, so nothing was changed") {
			t.Errorf("%s of the team that is away: %v", what, got)
		}
		q.path = "/teams/data-eng" + what
		if got := a.send(q); got.status != 200 {
			t.Errorf("%s of another one: %v", what, got)
		}
	}
	if got := a.want(ask{method: "GET", path: "/teams/search"}, 200, ""); got.team.Percent != 40 || got.team.Revision != 1 {
		t.Errorf("the team that is away: %v", got)
	}
	a.store.SetAway()
	a.want(ask{method: "POST", path: "/teams/search/hold", token: "operator"}, 200, "")
	a.store.SetAway("data-eng")
	a.store.Flush()
	a.want(ask{method: "POST", path: "/teams/search/hold", token: "operator"}, 503, "store_regressed")
}

func TestAStoreThatFailsIsToldAndNothingIsLost(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	a.put(rollout.Change{Team: "data-eng", Percent: 30})
	hold := ask{method: "POST", path: "/teams/data-eng/hold", token: "operator"}
	a.store.SetDown(true)
	if got := a.want(hold, 503, "store_unavailable"); got.header.Get("Retry-After") == "" {
		t.Errorf("%v", got)
	}
	if got := a.want(ask{method: "GET", path: "/teams/data-eng"}, 200, ""); got.team.Percent != 30 {
		t.Errorf("what is known: %v", got)
	}
	if got := a.want(ask{method: "GET", path: "/teams"}, 200, ""); !strings.Contains(got.body, `"trouble":`) {
		t.Errorf("the trouble is not told: %v", got)
	}
	a.want(ask{method: "GET", path: "/teams/data-eng/history"}, 503, "store_unavailable")
	a.store.SetDown(false)
	a.store.Flush()
	a.want(hold, 503, "store_regressed")
}

func TestAChangeThatCannotBeRecordedIsNotMade(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(o *console.Options) { o.Ready = func() bool { return false } })
	a.want(ask{method: "POST", path: "/teams/data-eng/hold", token: "operator"}, 503, "audit_unavailable")
	if s, ok := a.table.Lookup("data-eng"); ok {
		t.Errorf("it was made: %+v", s)
	}
}

func TestAHundredWritersLoseNoChange(t *testing.T) {
	t.Parallel()
	const writers = 100
	a := newAPI(t)
	a.put(rollout.Change{Team: "data-eng", Percent: 50})
	var all sync.WaitGroup
	var mu sync.Mutex
	statuses := make(map[int]int)
	for i := range writers {
		all.Go(func() { // all have seen the same
			got := a.send(ask{method: "PUT", path: "/teams/data-eng/rollout", token: "operator", header: match(`"1"`), body: fmt.Sprintf(`{"percent":%d}`, i)})
			mu.Lock()
			defer mu.Unlock()
			statuses[got.status]++
		})
	}
	all.Wait()
	if statuses[200] != 1 || statuses[412] != writers-1 {
		t.Errorf("of writers that have seen the same: %v", statuses)
	}
	for i := range writers {
		all.Go(func() { // these do not mind what was before
			a.want(ask{method: "POST", path: "/teams/data-eng/hold", token: "operator", body: fmt.Sprintf(`{"reason":"writer %d"}`, i)}, 200, "")
		})
		all.Go(func() { // as another replica or a command does
			_, err := rollout.Update(t.Context(), a.store, "data-eng", func(s rollout.State) (rollout.Change, error) {
				return rollout.Brake(s, rollout.Setting{Actor: "cli", Reason: "x"}, time.Now()), nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	entries, err := a.store.History(t.Context(), "data-eng", 1000)
	if err != nil || len(entries) != 2+2*writers {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	said := make(map[string]bool)
	for i, e := range entries {
		if e.Revision != int64(len(entries)-i) {
			t.Errorf("entry %d has revision %d", i, e.Revision)
		}
		said[e.Reason] = true
	}
	for i := range writers {
		if !said[fmt.Sprintf("writer %d", i)] {
			t.Errorf("writer %d is lost", i)
		}
	}
	if len(a.done) != 1+writers {
		t.Errorf("told of %d changes", len(a.done))
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	if _, err := console.New(console.Options{}); err == nil {
		t.Error("a console of nothing")
	}
}

// Whatever is sent, reading it neither fails in an odd way nor takes more than
// what was asked for.
func FuzzBodies(f *testing.F) {
	for _, seed := range []string{
		`{"percent":50}`, `{"percent":50,"reason":"x","override":"y","digest":"d","brownouts":[{"percent":1,"from":"2030-01-01T08:00:00Z","until":"2030-01-01T09:00:00Z"}]}`,
		`{"percent":1,"percent":2}`, `{"Percent":1}`, `[]`, `{}`, `{"brownouts":[{}]}`, `{"percent":1}x`, "{\"percent\":1,\"reason\":\"\\ud800\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if console.PlannedOf(text) != nil {
			return
		}
		// What is taken is an object that others read alike.
		var plain map[string]any
		if err := json.Unmarshal(text, &plain); err != nil {
			t.Fatalf("%q is taken and is no object: %v", text, err)
		}
		percent, ok := plain["percent"].(float64)
		if !ok || percent < 0 || percent > 100 || percent != float64(int(percent)) {
			t.Errorf("%q is taken with the percentage %v", text, plain["percent"])
		}
		for name := range plain {
			switch name {
			case "percent", "reason", "override", "digest", "brownouts":
			default:
				t.Errorf("%q is taken with %q", text, name)
			}
		}
	})
}

// A brownout asks no check, so one without a near end would be a raise past them.
func TestABrownoutThatLastsForLongIsNotTaken(t *testing.T) {
	a := newAPI(t)
	ask := ask{method: "POST", path: "/teams/data-eng/request", token: "lead"}
	ask.body = `{"percent":0,"brownouts":[{"percent":100,"from":"2030-01-01T08:00:00Z","until":"2040-01-01T08:00:00Z"}]}`
	if got := a.want(ask, 400, "body_invalid"); !strings.Contains(fmt.Sprint(got), "24 hours at most") {
		t.Errorf("%v", got)
	}
	ask.body = `{"percent":0,"brownouts":[{"percent":100,"from":"2030-01-01T08:00:00Z","until":"2030-01-02T08:00:00Z"}]}`
	a.want(ask, 200, "")
}
