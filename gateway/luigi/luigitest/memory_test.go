package luigitest_test

import (
	"testing"

	"crossfade/gateway/luigi"
	"crossfade/gateway/luigi/luigitest"
)

func TestMemoryConforms(t *testing.T) {
	luigitest.TestStore(t, func(*testing.T) luigi.Store { return luigitest.NewMemory(nil) })
}
