package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/cmd/crossfade/app"
	"crossfade/config"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// planOfFiles is a plan of a directory of files, straight from a Redis.
func planOfFiles(t *testing.T, store *redisstore.Store, dir string) []planRow {
	t.Helper()
	files, mistakes, err := app.ReadTeamFiles(dir, nil, config.Default().Readiness)
	if err != nil || len(mistakes) > 0 {
		t.Fatal(err, mistakes)
	}
	guard, err := app.NewAssessor(t.Context(), config.Default(), dir, nil, rollout.Keying{Runs: true}, store)
	if err != nil {
		t.Fatal(err)
	}
	rows, _, err := planOf(t.Context(), store, guard, files, rollout.Keying{Runs: true}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// results are what became of each team, in few words.
func results(rows []applyRow) []string {
	var all []string
	for _, r := range rows {
		all = append(all, fmt.Sprintf("%s %s, written: %s, revision %d", r.Team, r.Result, r.Written, r.Revision))
	}
	return all
}

func TestAnApplyGoesOnPastWhatKeepsOneTeam(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	store, err := redisstore.New(redisstore.Options{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	for _, team := range []identity.Team{"ants", "bees", "cats", "dogs", "eels"} {
		changed(t, redis, rollout.Change{Team: team, Percent: 50})
	}
	rows := planOfFiles(t, store, rolloutDir(t, map[string]string{
		"ants": "percent: 10\n", "bees": "percent: 10\n", "cats": "percent: 10\n", "dogs": "percent: 50\n", "eels": "percent: 90\n",
	}))
	changed(t, redis, rollout.Change{Team: "bees", Percent: 60}) // somebody is faster

	write := straight(store, nil, rollout.Setting{Actor: "ci", Source: "cli"})
	got := applyAll(t.Context(), rows, write, false)
	want := []string{
		"ants applied, written: yes, revision 2", "bees conflict, written: no, revision 2", "cats applied, written: yes, revision 2",
		"dogs noted, written: yes, revision 2", "eels waiting, written: yes, revision 2",
	}
	if diff := cmp.Diff(want, results(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	snapshot, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for team, percent := range map[identity.Team]rollout.Percent{"ants": 10, "bees": 60, "cats": 10, "dogs": 50, "eels": 50} {
		if s := snapshot.Teams[team]; s.Percent != percent || s.Request.Made() == (team == "bees") {
			t.Errorf("%s is at %s, its request %+v", team, s.Percent, s.Request)
		}
	}
	for _, format := range []string{"table", "markdown", "json", "yaml"} {
		var stdout, stderr strings.Builder
		p := with{}.program(&stdout, &stderr)
		if code := exitCode(p.reportApply(&output{format: format}, got)); code != exitRefused {
			t.Errorf("-o %s: exit code %d, want %d: eels waits", format, code, exitRefused)
		}
		golden(t, "rollout.applied."+format, timeless(stdout.String()))
	}
}

func TestAnApplyEndsWithWhatIsWorst(t *testing.T) {
	t.Parallel()
	faster := &rollout.ConflictError{Expected: 1, Current: rollout.State{Team: "b", Revision: 2}}
	away := fmt.Errorf("%w: no answer", rollout.ErrUnavailable)
	forbidden := &exitError{exitFailure, errors.New("forbidden: not your team")}
	mistake := &exitError{exitUsage, errors.New("reason: too long")}
	lower := func(team identity.Team) planRow {
		return planRow{Team: team, step: rollout.Step{Outcome: rollout.Lower, To: 10}}
	}
	waits := planRow{Team: "w", step: rollout.Step{Outcome: rollout.Pending, To: 90}}
	for name, tc := range map[string]struct {
		rows []planRow
		errs map[identity.Team]error
		code int
		want []string
		said string
	}{
		"nothing to do":       {nil, nil, exitOK, nil, ""},
		"all is applied":      {[]planRow{lower("a"), lower("b")}, nil, exitOK, []string{"applied yes", "applied yes"}, ""},
		"one conflict":        {[]planRow{lower("a"), lower("b"), lower("c")}, map[identity.Team]error{"b": faster}, exitConflict, []string{"applied yes", "conflict no", "applied yes"}, "1 team was not written, because somebody changed the team meanwhile"},
		"a conflict by API":   {[]planRow{lower("a")}, map[identity.Team]error{"a": &exitError{exitConflict, errors.New("stale")}}, exitConflict, []string{"conflict no"}, "apply again"},
		"one waits":           {[]planRow{waits, lower("a")}, nil, exitRefused, []string{"waiting yes", "applied yes"}, ""},
		"waiting is worse":    {[]planRow{lower("b"), waits}, map[identity.Team]error{"b": faster}, exitRefused, []string{"conflict no", "waiting yes"}, ""},
		"a refusal":           {[]planRow{lower("a"), lower("b")}, map[identity.Team]error{"a": fmt.Errorf("%w: no", rollout.ErrRetired)}, exitRefused, []string{"refused no", "applied yes"}, "1 team was refused: team is retired"},
		"a refusal by API":    {[]planRow{lower("a"), lower("b"), waits}, map[identity.Team]error{"b": faster, "a": &exitError{exitRefused, errors.New("it is retired")}}, exitRefused, []string{"refused no", "conflict no", "waiting yes"}, "it is retired"},
		"a failure":           {[]planRow{lower("a"), waits, lower("b")}, map[identity.Team]error{"a": forbidden}, exitFailure, []string{"failed no", "waiting yes", "applied yes"}, "not your team"},
		"a mistake":           {[]planRow{lower("a"), lower("b")}, map[identity.Team]error{"a": mistake, "b": mistake}, exitUsage, []string{"failed no", "failed no"}, "2 teams were not written: reason: too long"},
		"the store goes away": {[]planRow{lower("a"), lower("b"), lower("c"), lower("d")}, map[identity.Team]error{"b": away}, exitStore, []string{"applied yes", "unknown unknown", "not tried no", "not tried no"}, "2 teams were not tried"},
		"a part of it goes away": {
			[]planRow{lower("a"), lower("b"), lower("c")},
			map[identity.Team]error{"b": away},
			exitStore,
			[]string{"applied yes", "unknown unknown", "applied yes"},
			"0 teams were not tried",
		},
		"away is worst of all": {[]planRow{lower("a"), waits, lower("b")}, map[identity.Team]error{"a": forbidden, "b": away}, exitStore, []string{"failed no", "waiting yes", "unknown unknown"}, "look at `crossfade rollout status`"},
	} {
		rows := applyAll(t.Context(), tc.rows, func(_ context.Context, r planRow) (rollout.State, string, error) {
			return rollout.State{Team: r.Team, Percent: 10, Revision: 2}, "", tc.errs[r.Team]
		}, name == "a part of it goes away")
		var got []string
		for _, r := range rows {
			got = append(got, string(r.Result)+" "+r.Written)
			if (tc.errs[r.Team] != nil) != (r.Error != "") {
				t.Errorf("%s: %s failed with %v and says %q", name, r.Team, tc.errs[r.Team], r.Error)
			}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		err := applyError(rows)
		code := exitOK
		if err != nil {
			code = exitCode(err)
		}
		if code != tc.code || err != nil && !strings.Contains(err.Error(), tc.said) {
			t.Errorf("%s: exit code %d, want %d: %v", name, code, tc.code, err)
		}
	}
}

// gatewayThat answers plans with lowerings, and requests with what it is told.
func gatewayThat(t *testing.T, answers map[string]func(http.ResponseWriter)) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/plan" {
			var asked struct{ Requests []struct{ Team string } }
			if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
				t.Error(err)
			}
			var steps []string
			for _, q := range asked.Requests {
				steps = append(steps, fmt.Sprintf(`{"team":%q,"from":50,"to":10,"outcome":"lower","why":"lowering is always allowed","changes":true,"revision":1}`, q.Team))
			}
			_, _ = fmt.Fprintf(w, `{"steps":[%s]}`, strings.Join(steps, ","))
			return
		}
		team := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/api/v1/teams/"), "/request")
		if answer := answers[team]; answer != nil {
			answer(w)
			return
		}
		_, _ = fmt.Fprintf(w, `{"team":%q,"percent":10,"previous":50,"phase":"ramp","revision":2,"outcome":"met"}`, team)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func says(status int, reason string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"reason":%q,"message":"It is so.","do":"Look."}`, reason)
	}
}

func TestAnApplyOverTheAdminAPIReportsEveryTeam(t *testing.T) {
	t.Parallel()
	dir := rolloutDir(t, map[string]string{"ants": "percent: 10\n", "bees": "percent: 10\n", "cats": "percent: 10\n"})
	env := with{environ: []string{"CROSSFADE_TOKEN=a.b.c"}}
	hangUp := func(http.ResponseWriter) { panic(http.ErrAbortHandler) }
	waiting := func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write([]byte(`{"team":"bees","percent":50,"previous":0,"phase":"ramp","revision":2,"outcome":"pending","why":"3 runs would break by now"}`))
	}
	for name, tc := range map[string]struct {
		bees func(http.ResponseWriter)
		code int
		want string
		said string
	}{
		"all is well":             {nil, exitOK, "ants applied yes 2, bees applied yes 2, cats applied yes 2", ""},
		"a conflict":              {says(412, "revision_stale"), exitConflict, "ants applied yes 2, bees conflict no 1, cats applied yes 2", "apply again"},
		"a retired team":          {says(409, "retired"), exitRefused, "ants applied yes 2, bees refused no 1, cats applied yes 2", "retired: It is so. Look."},
		"another team's lead":     {says(403, "not_permitted"), exitFailure, "ants applied yes 2, bees failed no 1, cats applied yes 2", "not_permitted"},
		"a store that is away":    {says(503, "store_unavailable"), exitStore, "ants applied yes 2, bees unknown unknown 1, cats not tried no 1", "1 team was not tried"},
		"a gateway that hangs up": {hangUp, exitStore, "ants applied yes 2, bees unknown unknown 1, cats not tried no 1", "1 team was not tried"},
		"checks that no more do":  {waiting, exitRefused, "ants applied yes 2, bees waiting yes 2, cats applied yes 2", ""},
	} {
		admin := gatewayThat(t, map[string]func(http.ResponseWriter){"bees": tc.bees})
		got := env.run(t, "rollout", "apply", "--admin", admin, "--dir", dir, "-o", "json")
		var rows []struct {
			Team, Result, Written, Why, Error string
			Revision                          int
		}
		if err := json.Unmarshal([]byte(got.stdout), &rows); err != nil {
			t.Errorf("%s: %v: %v", name, err, got)
			continue
		}
		var all []string
		for _, r := range rows {
			all = append(all, fmt.Sprint(r.Team, " ", r.Result, " ", r.Written, " ", r.Revision))
		}
		if said := strings.Join(all, ", "); said != tc.want || got.code != tc.code || !strings.Contains(got.stderr, tc.said) {
			t.Errorf("%s: %v\n%s, want %s, exit code %d and %q", name, got, said, tc.want, tc.code, tc.said)
		}
		if name == "checks that no more do" && rows[1].Why != "3 runs would break by now" {
			t.Errorf("%s: it waits for %q", name, rows[1].Why)
		}
		table := env.run(t, "rollout", "apply", "--admin", admin, "--dir", dir)
		if table.code != tc.code || !strings.Contains(table.stdout, "ants") || !strings.Contains(table.stdout, "cats") {
			t.Errorf("%s as a table: %v", name, table)
		}
	}
}

func TestAnApplyToAStoreThatIsAwayWritesNothing(t *testing.T) {
	t.Parallel()
	dir := rolloutDir(t, map[string]string{"ants": "percent: 10\n"})
	got := run(t, "rollout", "apply", "--redis=redis://"+rollouttest.Unused(t), "--dir", dir).want(t, exitStore, "connection refused")
	if got.stdout != "" {
		t.Errorf("a result is told: %v", got)
	}
}

// What is set above a file's percentage is asked for in the place of the file and
// keeps its digest. A pipeline that applies the file then asks for the file's again:
// to lower the team alone would have it raised again at once.
func TestAnApplyTakesBackWhatWasAskedForInThePlaceOfItsFile(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	flag := "--redis=" + redis.URL()
	dir := rolloutDir(t, map[string]string{"data-eng": "percent: 10\noverride: { percent: 10, reason: a test }\n"})
	apply := func(want ...string) { luigis.run(t, "rollout", "apply", flag, "--dir", dir).want(t, exitOK, want...) }
	apply("applied", "1 written")
	luigis.run(t, "rollout", "history", "data-eng", flag).want(t, exitOK, "override: a test (") // what allowed a raise shows
	apply("unchanged", "0 written")
	luigis.run(t, "rollout", "set", "data-eng", "30", flag).want(t, exitOK)
	luigis.run(t, "rollout", "status", "data-eng", flag, "-o", "json").want(t, exitOK, `"percent": 30`, `"requested": 30`)
	apply("30% -> 10%", "applied", "1 written")
	luigis.run(t, "rollout", "status", "data-eng", flag, "-o", "json").want(t, exitOK, `"percent": 10`, `"requested": 10`)
	luigis.run(t, "rollout", "history", "data-eng", flag).want(t, exitOK, "30% -> 10% (request)")
	apply("unchanged", "0 written")
}
