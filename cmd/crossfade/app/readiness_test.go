package app_test

import (
	"testing"

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
