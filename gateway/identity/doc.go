// Package identity holds the words that every other package of Crossfade
// shares: credentials that cannot print themselves, principals, teams and
// roles, the closed list of reasons, and the directory that maps legacy and
// OIDC identities to one principal.
//
// It is the leaf of the import graph: it imports nothing of ours and does no
// I/O. All values are safe to share between goroutines once built.
package identity
