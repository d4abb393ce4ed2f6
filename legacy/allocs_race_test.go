//go:build race

package legacy_test

// maxAllocs leaves room for the race detector, under which sync.Pool drops
// items at random.
const maxAllocs = 8
