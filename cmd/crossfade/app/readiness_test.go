package app_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/attest"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

func TestTheMetricsSayHowReadyTeamsAre(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	set(t, redis.URL(), "data-eng", 100)
	s := newSite(t)
	s.configure("redis", redis.URL())
	g := s.start().loaded()
	for series, want := range map[string]string{
		`crossfade_readiness_phase{phase="enforced",team="data-eng"}`: "1",
		`crossfade_readiness_phase{phase="shadow",team="search"}`:     "1",
		`crossfade_readiness_answer{answer="waiting",team="search"}`:  "1",
		`crossfade_readiness_check{check="watched",team="search"}`:    "0",
		`crossfade_readiness_runs{team="search"}`:                     "0",
	} {
		s.eventually(series+" is "+want, func() bool { return g.metric(series) == want })
	}
	const assessed = `crossfade_readiness_last_assessed_timestamp_seconds{team="search"}`
	before := g.metric(assessed)
	if before == "0" || before == "" {
		t.Errorf("%s is %q", assessed, before)
	}
	redis.Stop()
	if got := g.metric(assessed); got != before {
		t.Errorf("a scrape without Redis: %s, before it was %s", got, before)
	}
}

// Whoever retires a team by its file, or by the API, may not think of the evidence.
func TestTheEvidenceOfARetirementIsKept(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	store, err := redisstore.New(redisstore.Options{URL: redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	retire := func(team identity.Team, at time.Time) {
		t.Helper()
		if _, err := store.Write(t.Context(), rollout.Change{Team: team, Percent: 100, Retire: true, Actor: "lead", Source: "file", Reason: "week 9", At: at}); err != nil {
			t.Fatal(err)
		}
	}
	retire("data-eng", time.Now())
	retire("search", time.Now().Add(-48*time.Hour)) // long ago
	s := newSite(t)
	s.configure("redis", redis.URL(), "state_dir", "state")
	g := s.start().loaded()
	file := filepath.Join(s.dir, "state", "retired-data-eng-r1.md")
	s.eventually("the evidence is there", func() bool {
		_, err := os.Stat(file)
		return err == nil
	})
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := attest.Verify(text); err != nil || !strings.Contains(string(text), "0% to 100%, retired | lead (unverified) | file | week 9") {
		t.Errorf("%v in\n%s", err, text)
	}
	s.eventually("the other team was looked at", func() bool {
		return g.metric(`crossfade_readiness_phase{phase="retired",team="search"}`) == "1"
	})
	g.end()
	all, err := filepath.Glob(filepath.Join(s.dir, "state", "retired-*"))
	if err != nil || len(all) != 1 {
		t.Errorf("the files are %v, %v", all, err)
	}

	// What is there is not written again.
	if err := os.WriteFile(file, []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g = s.start().loaded()
	s.eventually("the team was looked at", func() bool {
		return g.metric(`crossfade_readiness_phase{phase="retired",team="data-eng"}`) == "1"
	})
	g.end()
	if text, err := os.ReadFile(file); err != nil || string(text) != "mine\n" {
		t.Errorf("%q, %v", text, err)
	}
}
