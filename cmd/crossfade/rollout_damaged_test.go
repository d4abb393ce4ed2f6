package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
	"crossfade/rollout/rollouttest"
)

// damages puts something else where a team's runs of today are kept.
func damages(t *testing.T, redis *rollouttest.Redis, team identity.Team) {
	t.Helper()
	redis.Do(t, "SET", "crossfade:{"+string(team)+"}:runs:"+string(evidence.DayOf(time.Now())), "not ours")
}

func TestATeamWhoseEvidenceIsDamagedIsInNoOthersWay(t *testing.T) {
	redis, conf := fiveTeams(t)
	damages(t, redis, "search")
	run(t, "readiness", "-c", conf).want(t, exitRefused, "NO EVIDENCE", "the evidence cannot be read", "{search}:runs:", "YES, to 100%", "1,144 clean runs")
	var all []readiness.Summary
	if err := json.Unmarshal([]byte(run(t, "readiness", "-c", conf, "-o", "json").want(t, exitRefused).stdout), &all); err != nil || len(all) != 5 {
		t.Fatalf("%d teams, %v", len(all), err)
	}
	for _, s := range all {
		if is := s.Problem != nil; is != (s.Team == "search") || is != (s.Answer == readiness.Unknown) {
			t.Errorf("%s: %s, problem %+v", s.Team, s.Answer, s.Problem)
		}
	}
	run(t, "readiness", "search", "-c", conf).want(t, exitStore, "search")

	dir := rolloutDir(t, map[string]string{"data-eng": "percent: 50\n", "search": "percent: 10\n"})
	got := run(t, "rollout", "plan", "-c", conf, "--dir", dir).want(t, exitRefused,
		"25% -> 50%  allowed", "0% -> 10%   refused", "What this does to the runs of search cannot be read", "1 to raise, 0 to lower, 1 refused")
	if !strings.Contains(got.stdout, "newly selected") {
		t.Errorf("nothing is told of the other team: %s", got.stdout)
	}
}

func TestAPlanOverTheAdminAPIShowsTheTeamsThatCanBeRead(t *testing.T) {
	a := administer(t, "address: 127.0.0.1:0")
	long := time.Now().AddDate(0, 0, -40)
	changed(t, a.redis, rollout.Change{Team: "data-eng", Percent: 50, At: long}, rollout.Change{Team: "growth", Percent: 100, At: long})
	by := []string{"--admin", a.url, "--token-file", a.tokenFile}
	damages(t, a.redis, "growth")
	eventually(t, "the gateway knows the teams", func() bool {
		return strings.Contains(run(t, append([]string{"rollout", "status"}, by...)...).stdout, "growth")
	})
	dir := rolloutDir(t, map[string]string{"data-eng": "percent: 20\noverride: { percent: 70, reason: a test }\n", "growth": "percent: 60\n"})
	for _, args := range [][]string{by, {"--redis", a.redis.URL()}} {
		got := run(t, append([]string{"rollout", "plan", "--dir", dir}, args...)...).want(t, exitOK,
			"50% -> 20%", "100% -> 60%", "What this does to the runs of growth cannot be read", "{growth}:runs:", "0 to raise, 2 to lower, 0 refused",
			"rollout.d/data-eng.yaml:2: override.percent: is 70 while percent is 20, so the override has no effect")
		if strings.Count(got.stdout, "cannot be read") != 1 {
			t.Errorf("%v: something else cannot be read: %s", args, got.stdout)
		}
	}
	run(t, append([]string{"readiness"}, by...)...).want(t, exitOK, "growth", "NO EVIDENCE", "data-eng")
	run(t, append([]string{"rollout", "apply", "--dir", dir}, by...)...).want(t, exitOK, "2 written", "override.percent: is 70 while percent is 20, so the override has no effect")
	// A store that does not answer at all is another matter.
	a.redis.Stop()
	run(t, "rollout", "plan", "--dir", dir, "--redis", a.redis.URL()).want(t, exitStore)
}
