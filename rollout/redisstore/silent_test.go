package redisstore_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"crossfade/rollout/redisstore"
	"crossfade/rollout/rollouttest"
)

// TestNothingIsPrintedBesideTheLog asks, in a process of its own, a server that is
// away more often than go-redis keeps to itself.
func TestNothingIsPrintedBesideTheLog(t *testing.T) {
	const away = "CROSSFADE_TEST_REDIS_AWAY"
	if url := os.Getenv(away); url != "" {
		store, err := redisstore.New(redisstore.Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if _, err := store.Load(t.Context()); err == nil {
				t.Fatal("somebody answers")
			}
		}
		os.Exit(0) // without what the parent looks for at its end
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestNothingIsPrintedBesideTheLog$")
	cmd.Env = append(os.Environ(), away+"=redis://"+rollouttest.Unused(t)+"/0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if out, err := cmd.Output(); err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	if stderr.String() != "" {
		t.Errorf("printed: %s", stderr.String())
	}
}
