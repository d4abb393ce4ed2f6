package gateway_test

import (
	"testing"

	"go.uber.org/goleak"
)

// No test leaves a goroutine behind: not the shadow's workers, and not the two
// that copy an upgraded connection.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
