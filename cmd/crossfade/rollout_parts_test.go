package main

import (
	"strings"
	"testing"

	"crossfade/rollout"
	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// TestTeamsThatCanBeReadAreShownAndApplied takes the node of a Cluster away that has
// one of two teams, and looks at what the commands do about the other.
func TestTeamsThatCanBeReadAreShownAndApplied(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*testing.T, *rollouttest.Redis){
		"killed":  func(_ *testing.T, r *rollouttest.Redis) { r.Stop() },
		"hanging": func(t *testing.T, r *rollouttest.Redis) { r.Pause(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := rollouttest.StartCluster(t, "--cluster-require-full-coverage", "no")
			dies := cluster.Owner(t, "crossfade:{search}:rollout")
			for _, key := range []string{"crossfade:{data-eng}:rollout", "crossfade:store", "crossfade:teams"} {
				if cluster.Owner(t, key) == dies {
					t.Fatalf("%s is on the node that dies", key)
				}
			}
			store, err := redisstore.New(redisstore.Options{URL: cluster.URL()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = store.Close() })
			for team, percent := range map[string]string{"data-eng": "60", "search": "40"} {
				run(t, "rollout", "set", team, percent, "--redis="+cluster.URL()).want(t, exitOK)
			}
			dir := rolloutDir(t, map[string]string{"data-eng": "percent: 20\n", "search": "percent: 10\n"})
			begin(t, cluster.Nodes[dies])
			do := func(args ...string) ran { return run(t, append(args, "--redis="+cluster.URL())...) }
			const says = "of search nothing can be read, all other teams can"
			shows := func(got ran, what string) {
				t.Helper()
				if !strings.Contains(got.stdout, what) || strings.Contains(got.stdout, "search") {
					t.Errorf("it shows: %v", got)
				}
			}
			shows(do("rollout", "status").want(t, exitStore, says), "data-eng")
			shows(do("rollout", "status", "-o", "json").want(t, exitStore, says), `"percent": 60`)
			shows(do("rollout", "status", "data-eng", "-o", "json").want(t, exitOK), `"percent": 60`)
			do("rollout", "status", "search", "-o", "json").want(t, exitStore, says)
			shows(do("rollout", "plan", "--dir", dir).want(t, exitStore, says), "60% -> 20%")
			shows(do("rollout", "apply", "--dir", dir).want(t, exitStore, says), "60% -> 20%")
			snapshot, _ := store.Load(t.Context())
			if s := snapshot.Teams["data-eng"]; s.Percent != 20 || s.Request.Percent != rollout.Percent(20) {
				t.Errorf("afterwards it is %+v", s)
			}
		})
	}
}
