package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"crossfade/gateway/agent/token"
	"crossfade/gateway/identity"
)

// upkeepEvery is how often files are compared with the token in hand.
const upkeepEvery = 2 * time.Second

// UpkeepOptions configure an Upkeep.
type UpkeepOptions struct {
	// Tokens are asked every two seconds. Required.
	Tokens Tokens
	// TokenFile holds nothing but the token; "" for none.
	TokenFile string
	// Netrc is a file with an entry for Machine among others; "" for none.
	Netrc, Machine string
	// Report is told what cannot be written. Required.
	Report *Reporter
}

// Upkeep keeps the token fresh in files, for programs that read one. The files
// are replaced in one step and belong to their owner alone (0600). A token that
// ended without a successor is taken out.
type Upkeep struct {
	o      UpkeepOptions
	cancel context.CancelFunc
	ended  sync.WaitGroup

	written identity.Secret // what the files hold
	expiry  time.Time
	failing bool
}

// NewUpkeep writes the files once and starts to keep them. The error says what
// could not be written; that there is no token yet is none. Close it.
func NewUpkeep(ctx context.Context, o UpkeepOptions) (*Upkeep, error) {
	if o.Tokens == nil || o.Report == nil || o.Netrc != "" && o.Machine == "" {
		return nil, errors.New("keep files fresh: tokens, a report and the netrc file's machine are needed")
	}
	u := &Upkeep{o: o}
	if err := u.look(ctx); err != nil {
		return nil, err
	}
	ctx, u.cancel = context.WithCancel(context.WithoutCancel(ctx))
	u.ended.Go(func() { u.run(ctx) })
	return u, nil
}

// Close stops and takes the token out of the files.
func (u *Upkeep) Close() error {
	u.cancel()
	u.ended.Wait()
	return u.write(token.Token{})
}

func (u *Upkeep) run(ctx context.Context) {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := u.look(ctx); err != nil {
			u.o.Report.Say("upkeep", fmt.Sprintf("crossfade agent: the token is not kept fresh: %v\n", err))
			u.failing = true
		} else {
			u.failing = false
		}
	}
}

// look brings the files up to the token in hand.
func (u *Upkeep) look(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, DefaultPatience)
	defer cancel()
	t, err := u.o.Tokens.Token(within)
	now := time.Now()
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil && (t.Expiry.IsZero() || now.Before(t.Expiry)):
		if t.Value.Equal(u.written) && !u.failing {
			return nil
		}
		return u.write(t)
	case u.written.Empty(), u.expiry.IsZero(), now.Before(u.expiry):
		return nil
	default:
		return u.write(token.Token{})
	}
}

// write writes a token, or takes the last one out.
func (u *Upkeep) write(t token.Token) error {
	var errs []error
	if u.o.TokenFile != "" {
		if t.Value.Empty() {
			if err := os.Remove(u.o.TokenFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		} else if err := writePrivate(u.o.TokenFile, []byte(t.Value.Reveal()+"\n")); err != nil {
			errs = append(errs, err)
		}
	}
	if u.o.Netrc != "" {
		text, err := readIfThere(u.o.Netrc)
		if edited := EditNetrc(text, u.o.Machine, t.Value); err == nil && edited != text {
			err = writePrivate(u.o.Netrc, []byte(edited))
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	u.written, u.expiry = t.Value, t.Expiry
	return nil
}
