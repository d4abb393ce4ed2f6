package agent

import (
	"cmp"
	"context"
	"encoding/json"
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
	// Format is how TokenFile is written.
	Format Format
	// Netrc is a file with an entry for Machine among others; "" for none.
	Netrc, Machine string
	// Name says which token it is where it is reported that there is none ("for
	// sts.amazonaws.com"); "" for one about which somebody else reports.
	Name string
	// Required makes it an error of NewUpkeep that there is no token.
	Required bool
	// Patience is how long the first one is waited for; DefaultPatience when 0.
	Patience time.Duration
	// Report is told what cannot be written. Required.
	Report *Reporter
}

// ErrNoToken is NewUpkeep's where one is required.
var ErrNoToken = errors.New("there is no token")

// Format is how a token stands in a file of its own.
type Format uint8

// The formats.
const (
	// FormatLine, the zero value, is the token and a line break.
	FormatLine Format = iota
	// FormatRaw is the token and nothing else, as cloud SDKs want it.
	FormatRaw
	// FormatJSON is an object with access_token, token_type and, where it is known,
	// expiry (RFC 3339).
	FormatJSON
)

// text is the content of a file.
func (f Format) text(t token.Token) []byte {
	switch f {
	case FormatRaw:
		return []byte(t.Value.Reveal())
	case FormatJSON:
		out := map[string]string{"access_token": t.Value.Reveal(), "token_type": "Bearer"}
		if !t.Expiry.IsZero() {
			out["expiry"] = t.Expiry.UTC().Format(time.RFC3339)
		}
		text, _ := json.Marshal(out) // plain text always marshals
		return append(text, '\n')
	default:
		return []byte(t.Value.Reveal() + "\n")
	}
}

// Upkeep keeps the token fresh in files, for programs that read one. The files
// are replaced in one step and belong to their owner alone (0600); of a symbolic
// link, the file that it names is. A token that ended without a successor is taken
// out. Where several agents keep one file, each leaves the tokens of the others in
// it, and puts its own back within two seconds when one of them has taken the file
// away.
type Upkeep struct {
	o      UpkeepOptions
	cancel context.CancelFunc
	ended  sync.WaitGroup

	written identity.Secret // what the files hold
	text    identity.Secret // what TokenFile holds of it
	expiry  time.Time
	failing bool
}

// NewUpkeep writes the files once and starts to keep them. Without a token it takes
// out what a dead agent has left there. The error says what could not be written;
// that there is no token yet is one only where it is required. Close it.
func NewUpkeep(ctx context.Context, o UpkeepOptions) (*Upkeep, error) {
	if o.Tokens == nil || o.Report == nil || o.Netrc != "" && o.Machine == "" {
		return nil, errors.New("keep files fresh: tokens, a report and the netrc file's machine are needed")
	}
	if o.TokenFile != "" { // once: when the token goes, it must go from where it was written
		file, err := follow(o.TokenFile)
		if err != nil {
			return nil, err
		}
		o.TokenFile = file
	}
	u := &Upkeep{o: o}
	lack, err := u.look(ctx, cmp.Or(o.Patience, DefaultPatience))
	if err == nil && u.written.Empty() {
		err = u.write(token.Token{})
		if lack == nil {
			lack = context.Cause(ctx)
		}
		if o.Required {
			err = errors.Join(fmt.Errorf("%w%s: %w", ErrNoToken, u.which(), lack), err)
		}
	}
	if err != nil {
		return nil, err
	}
	if ctx.Err() == nil { // else whoever waited has given up
		u.tell(lack)
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
		lack, err := u.look(ctx, DefaultPatience)
		u.failing = err != nil
		if err != nil {
			u.o.Report.Say("upkeep"+u.o.Name, fmt.Sprintf("crossfade agent: the token%s is not kept fresh: %v\n", u.which(), err))
		}
		u.tell(lack)
	}
}

// which is the token's name behind the word "token".
func (u *Upkeep) which() string {
	if u.o.Name == "" {
		return ""
	}
	return " " + printable(u.o.Name)
}

// tell says that there is no token, once the file does not hold one any more.
func (u *Upkeep) tell(lack error) {
	if u.o.Name != "" && lack != nil && u.written.Empty() {
		u.o.Report.Say("no token "+u.o.Name, fmt.Sprintf("crossfade agent: no token%s: %s\n  Its file is removed until there is one.\n",
			u.which(), full(printable(lack.Error()))))
	}
}

// look brings the files up to the token in hand. lack is why there is none.
func (u *Upkeep) look(ctx context.Context, patience time.Duration) (lack, err error) {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	t, lack := u.o.Tokens.Token(within)
	now := time.Now()
	switch {
	case ctx.Err() != nil:
		return nil, nil
	case lack == nil && (t.Expiry.IsZero() || now.Before(t.Expiry)):
		if t.Value.Equal(u.written) && !u.failing && !u.gone() {
			return nil, nil
		}
		return nil, u.write(t)
	case lack == nil:
		lack = errors.New("the one that came has expired")
	}
	if u.written.Empty() || u.expiry.IsZero() || now.Before(u.expiry) {
		return lack, nil
	}
	return lack, u.write(token.Token{})
}

// write writes a token, or takes the last one out.
func (u *Upkeep) write(t token.Token) error {
	var errs []error
	if u.o.TokenFile != "" {
		if err := u.writeFile(t); err != nil {
			errs = append(errs, err)
		}
	}
	if u.o.Netrc != "" {
		if err := editNetrcFile(u.o.Netrc, u.o.Machine, t.Value); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	u.written, u.expiry = t.Value, t.Expiry
	return nil
}

// writeFile writes a token to TokenFile, or takes the last one out: what was not
// written here is only taken out if nothing was.
func (u *Upkeep) writeFile(t token.Token) error {
	if !t.Value.Empty() {
		text := u.o.Format.text(t)
		err := writePrivate(u.o.TokenFile, text)
		if err == nil {
			u.text = identity.NewSecret(string(text))
		}
		return err
	}
	if !u.text.Empty() {
		text, err := os.ReadFile(u.o.TokenFile)
		if err == nil && !identity.NewSecret(string(text)).Equal(u.text) {
			return nil // another agent's
		}
	}
	u.text = identity.Secret{}
	if err := os.Remove(u.o.TokenFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// gone reports whether somebody has taken the file away.
func (u *Upkeep) gone() bool {
	if u.o.TokenFile == "" {
		return false
	}
	_, err := os.Lstat(u.o.TokenFile)
	return errors.Is(err, fs.ErrNotExist)
}

// editNetrcFile is EditNetrc of a file, which may be a link into dotfiles.
func editNetrcFile(name, machine string, value identity.Secret) error {
	path, err := follow(name)
	if err != nil {
		return err
	}
	text, err := readIfThere(path)
	if err != nil {
		return err
	}
	edited := EditNetrc(text, machine, value)
	if edited == text {
		return nil
	}
	return writePrivate(path, []byte(edited))
}
