// Package token obtains the tokens that workers cannot obtain themselves and
// keeps them fresh. A Source asks somebody for a token each time it is called;
// a Keeper calls a source when it must, and never hands out a token that has
// expired.
//
// New makes the sources for programs (client credentials, token exchange, what
// GitHub, Google Cloud and AWS hand to their machines, a program, a file); NewLogin
// makes the one for a person who has logged in by a Device. Secrets and keys are
// read from their files for each token. What is asked for over the network is
// asked for by https, or on a loopback address, and no redirect is followed.
//
// The package belongs to the client half: it knows nothing of the gateway but
// the leaf package identity, whose Secret cannot print itself.
package token

import (
	"context"
	"time"

	"crossfade/gateway/identity"
)

// Token is one that was obtained.
type Token struct {
	// Value is what goes behind "Bearer ".
	Value identity.Secret
	// Expiry is when it ends: what its issuer said (expires_in, RFC 6749 section
	// 5.1) or its claim exp. Zero means that nobody said.
	Expiry time.Time
	// Obtained is when it was asked for, by the clock of this machine.
	Obtained time.Time
}

// Request says what a token is to be good for. The zero value leaves it to the
// source.
type Request struct {
	// Audience is the gateway's name at the identity provider.
	Audience string
	// Scopes are those of RFC 6749 section 3.3.
	Scopes []string
	// Resource is the target service of RFC 8707, an absolute URI.
	Resource string
	// Run names the run for the audit trail of the provider, where a source can
	// tell it; "" for none.
	Run string
}

// Source obtains a new token each time. It is safe for concurrent use, keeps no
// goroutines, and respects ctx. An error says what was asked, of whom, why it
// failed and what to do next, and holds no secret.
type Source interface {
	Token(ctx context.Context, r Request) (Token, error)
}
