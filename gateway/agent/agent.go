// Package agent is the client half of Crossfade: a proxy beside a worker that
// adds to each request the OIDC token which the worker cannot obtain or send
// itself, and what it takes to put an unmodified worker behind it.
//
// It knows the gateway by what goes over the wire, and nothing of its code.
package agent

import (
	"context"
	"fmt"
	"strings"

	"crossfade/gateway/agent/token"
)

// Tokens hands out a token that is good now, or an error that says what to do.
// It is asked for every request, so it keeps what it has; it is safe for
// concurrent use. token.Keeper is one.
type Tokens interface {
	Token(ctx context.Context) (token.Token, error)
}

// Mode is what the agent does with the credential that a worker sends.
type Mode uint8

// The modes.
const (
	// ModeAuto, the zero value, sends both while the worker sends a legacy
	// credential, and the token alone from the day on which it sends none.
	ModeAuto Mode = iota
	// ModeCompanion does the same for workers that are known to have one: one
	// that sends none is told about.
	ModeCompanion
	// ModeToken sends the token in the place of whatever the worker sends.
	ModeToken
)

// Modes lists the words for ParseMode.
func Modes() []string { return []string{"auto", "companion", "token"} }

// String returns the word of the mode.
func (m Mode) String() string {
	if int(m) < len(Modes()) {
		return Modes()[m]
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// ParseMode is the inverse of String.
func ParseMode(word string) (Mode, error) {
	for i, known := range Modes() {
		if word == known {
			return Mode(i), nil
		}
	}
	return 0, fmt.Errorf("%q is no mode of the agent: use one of %s", word, strings.Join(Modes(), ", "))
}
