package agent

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"crossfade/gateway/identity"
)

// lender asks for tokens for requests that wait.
type lender struct {
	tokens  Tokens
	lacking atomic.Bool // the last request found no token
}

// token returns a token that is good now, or why there is none.
func (l *lender) token(ctx context.Context, patience time.Duration) (identity.Secret, error) {
	if l.lacking.Load() {
		patience = min(patience, impatience) // whoever waited before has waited for all
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	t, err := l.tokens.Token(ctx)
	switch {
	case err == nil && t.Value.Empty():
		err = errors.New("the source returned an empty token")
	case err == nil && !t.Expiry.IsZero() && !time.Now().Before(t.Expiry):
		err = errors.New("the token has expired")
	}
	l.lacking.Store(err != nil)
	if err != nil {
		return identity.Secret{}, err
	}
	return t.Value, nil
}
