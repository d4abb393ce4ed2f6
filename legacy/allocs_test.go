//go:build !race

package legacy_test

// maxAllocs allows the copy of a key or token that is hashed; a remembered
// password needs none.
const maxAllocs = 1
