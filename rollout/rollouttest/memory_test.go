package rollouttest_test

import (
	"testing"

	"crossfade/rollout"
	"crossfade/rollout/rollouttest"
)

func TestMemoryConforms(t *testing.T) {
	rollouttest.TestStore(t, func(*testing.T) rollout.Store { return rollouttest.NewMemory() })
}
