package token

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"crossfade/gateway/identity"
)

// ErrNoLogin is Load's when nobody is logged in.
var ErrNoLogin = errors.New("nobody is logged in: run `crossfade login`")

const (
	// keyBytes is the length of a key of AES-256.
	keyBytes = 32
	// sealedAs is bound to what is encrypted, so that nothing else is taken for it.
	sealedAs = "crossfade login 1"
	// lockPoll is how often to look whether another process is done.
	lockPoll = 20 * time.Millisecond
	// answerWait is for how long an answer is waited for that nobody wants any more:
	// the refresh token in it may be the only good one.
	answerWait = 3 * time.Second
)

// StoreOptions configure a Store. The directories are made as needed, for their
// owner alone.
type StoreOptions struct {
	// Path is the file of the session, for instance below $XDG_STATE_HOME.
	Path string
	// KeyPath is the file of its key, which is made with the first Save. Keep it
	// where copies of Path do not go: another directory, a file system in memory.
	KeyPath string
}

// Store keeps one Session in a file, encrypted with AES-256-GCM under a key in
// another file, both readable to their owner alone (0600) or refused. That
// protects a login in a copy of one of the two, such as a backup or a synced
// directory; it does not protect it from who can read both.
//
// Files are replaced whole. Processes that share a store do not get in each
// other's way. All methods may be called from several goroutines.
type Store struct{ path, keyPath string }

// NewStore returns a Store without any I/O.
func NewStore(o StoreOptions) (*Store, error) {
	switch {
	case o.Path == "" || o.KeyPath == "":
		return nil, errors.New("keep a login: give the files of the session and of its key")
	case filepath.Clean(o.Path) == filepath.Clean(o.KeyPath):
		return nil, errors.New("keep a login: the key must be in another file than the session")
	}
	return &Store{o.Path, o.KeyPath}, nil
}

// stored is a session as it is encrypted.
type stored struct {
	Issuer   string    `json:"issuer"`
	ClientID string    `json:"client_id"`
	Audience string    `json:"audience,omitempty"`
	Scopes   []string  `json:"scopes,omitempty"`
	Resource string    `json:"resource,omitempty"`
	Who      string    `json:"who,omitempty"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until,omitzero"`
	Refresh  string    `json:"refresh_token"`
}

// Path returns the file of the session.
func (s *Store) Path() string { return s.path }

// KeyPath returns the file of the key.
func (s *Store) KeyPath() string { return s.keyPath }

// Save replaces the session.
func (s *Store) Save(ctx context.Context, session Session) error {
	return s.locked(ctx, func() error { return s.save(session) })
}

// Load returns the session; ErrNoLogin if there is none.
func (s *Store) Load(ctx context.Context) (session Session, err error) {
	err = s.locked(ctx, func() error {
		session, err = s.load()
		return err
	})
	return session, err
}

// Delete forgets the session and its key. It is no error if there is none.
func (s *Store) Delete(ctx context.Context) error { return s.locked(ctx, s.forget) }

// End lets revoke end the session where it came from, while no other process
// can use it, and forgets it whatever comes of that. The error is joined of
// both; a session that cannot be read is forgotten without revoke. ErrNoLogin if
// there is none.
func (s *Store) End(ctx context.Context, revoke func(Session) error) error {
	return s.locked(ctx, func() error {
		session, err := s.load()
		if err == nil {
			err = revoke(session)
		}
		return errors.Join(err, s.forget())
	})
}

func (s *Store) forget() error {
	for _, path := range []string{s.path, s.keyPath} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget the login: %w", err)
		}
	}
	return nil
}

// update lets change work on the session alone, and saves what it returns if
// that has another refresh token or end, even if it failed.
func (s *Store) update(ctx context.Context, change func(Session) (Session, error)) error {
	return s.locked(ctx, func() error {
		before, err := s.load()
		if err != nil {
			return err
		}
		after, err := change(before)
		if !after.Refresh.Equal(before.Refresh) || !after.Until.Equal(before.Until) {
			err = errors.Join(err, s.save(after))
		}
		return err
	})
}

// locked keeps other processes out while f runs.
func (s *Store) locked(ctx context.Context, f func() error) error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return fmt.Errorf("keep a login: %w", err)
	}
	file, err := os.OpenFile(s.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("keep a login: %w", err)
	}
	for lock(file) != nil {
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wait for another process that works on the login: %w", context.Cause(ctx)), file.Close())
		}
	}
	return errors.Join(f(), file.Close())
}

func (s *Store) save(session Session) error {
	text, err := json.Marshal(stored{ //nolint:gosec // it is encrypted below
		session.Issuer, session.ClientID, session.Request.Audience, session.Request.Scopes, session.Request.Resource,
		session.Who, session.Since, session.Until, session.Refresh.Reveal(),
	})
	if err != nil {
		return fmt.Errorf("save the login: %w", err)
	}
	sealer, err := s.sealer(true)
	if err != nil {
		return fmt.Errorf("save the login: %w", err)
	}
	sealed := sealer.Seal(nil, nil, text, []byte(sealedAs)) //nolint:gosec // it makes the nonce itself
	if err := replace(s.path, sealed); err != nil {
		return fmt.Errorf("save the login: %w", err)
	}
	return nil
}

func (s *Store) load() (Session, error) {
	sealed, err := readPrivate(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Session{}, ErrNoLogin
	}
	if err != nil {
		return Session{}, fmt.Errorf("load the login: %w", err)
	}
	sealer, err := s.sealer(false)
	if err != nil {
		return Session{}, fmt.Errorf("load the login: %w", err)
	}
	var in stored
	text, err := sealer.Open(nil, nil, sealed, []byte(sealedAs))
	if err != nil || json.Unmarshal(text, &in) != nil {
		return Session{}, fmt.Errorf("load the login: %s was not encrypted with the key in %s, or was altered: log in again", s.path, s.keyPath)
	}
	return Session{
		Issuer: in.Issuer, ClientID: in.ClientID, Request: Request{Audience: in.Audience, Scopes: in.Scopes, Resource: in.Resource},
		Who: in.Who, Since: in.Since, Until: in.Until, Refresh: identity.NewSecret(in.Refresh),
	}, nil
}

// sealer reads the key, or makes one if there is none and it may.
func (s *Store) sealer(mayMake bool) (cipher.AEAD, error) {
	text, err := readPrivate(s.keyPath)
	if mayMake && errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, keyBytes)
		_, _ = rand.Read(key) // it never fails
		text = []byte(hex.EncodeToString(key))
		err = replace(s.keyPath, text)
	}
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(string(text))
	if err != nil || len(key) != keyBytes {
		return nil, fmt.Errorf("%s holds no key: log in again", s.keyPath)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// readPrivate reads a file that must be its owner's alone.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxToken*2:
		return nil, fmt.Errorf("%s is not a file of ours", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s is open to others (mode %04o): `chmod 600` it, and log in again if others could have read it", path, info.Mode().Perm())
	}
	return os.ReadFile(path)
}

// replace writes a file whole or not at all, for its owner alone.
func replace(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// loginSource obtains tokens of a login.
type loginSource struct {
	device *Device
	store  *Store
}

// NewLogin returns a Source of the tokens of whoever is logged in. A request
// that says nothing gets what was asked for at login. Where the provider
// replaces the refresh token (RFC 9700 section 4.14.2), the new one is saved
// before the token is handed out, and no two processes refresh at once. For the
// sake of that token a caller that gives up while the provider is asked waits
// another three seconds for the answer.
func NewLogin(d *Device, s *Store) (Source, error) {
	if d == nil || s == nil {
		return nil, errors.New("obtain tokens of a login: there must be a device and a store")
	}
	return &loginSource{d, s}, nil
}

// Token implements Source.
func (l *loginSource) Token(ctx context.Context, r Request) (t Token, err error) {
	err = l.store.update(ctx, func(s Session) (Session, error) {
		want := r
		if r.Audience == "" && r.Resource == "" && len(r.Scopes) == 0 {
			want = s.Request
			want.Run = r.Run
		}
		if ctx.Err() != nil {
			return s, context.Cause(ctx)
		}
		asking, cancel := beyond(ctx, answerWait)
		defer cancel()
		var err error
		t, s, err = l.device.Refresh(asking, s, want)
		return s, err
	})
	if err != nil {
		var refused *Refusal
		if errors.As(err, &refused) && refused.Code == "invalid_grant" {
			return Token{}, fmt.Errorf("%w; run `crossfade login` again", err)
		}
		return Token{}, err
	}
	return t, nil
}

// beyond returns a context that ends some time after ctx has. Cancel it.
func beyond(ctx context.Context, by time.Duration) (longer context.Context, cancel context.CancelFunc) {
	longer, end := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(by):
			end(context.Cause(ctx))
		case <-longer.Done():
		}
	})
	return longer, func() {
		stop()
		end(nil)
	}
}
