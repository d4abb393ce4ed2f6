package token

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// LoginsOptions configure Logins.
type LoginsOptions struct {
	// Dir is where the sessions are, for instance below $XDG_STATE_HOME, and
	// KeyDir where their keys are: another directory, best one that is not copied
	// together with Dir.
	Dir, KeyDir string
}

// Logins are all logins of one person: one for each issuer and client, each in a
// Store of its own, so that none takes the place of another provider's. They are
// safe for concurrent use.
type Logins struct{ dir, keyDir string }

// Kept is a login as it was found.
type Kept struct {
	// Store is where it is.
	Store *Store
	// Session is what it holds; zero if Err is set.
	Session Session
	// Err says why it cannot be read.
	Err error
}

// NewLogins returns Logins without any I/O.
func NewLogins(o LoginsOptions) (*Logins, error) {
	switch {
	case o.Dir == "" || o.KeyDir == "":
		return nil, errors.New("keep logins: give the directories of the sessions and of their keys")
	case filepath.Clean(o.Dir) == filepath.Clean(o.KeyDir):
		return nil, errors.New("keep logins: the keys must be in another directory than the sessions")
	}
	return &Logins{o.Dir, o.KeyDir}, nil
}

// Of returns the store of the login of one client at one issuer, whether there
// is one or not. Both may be anything: the names of files are made of their hash.
func (l *Logins) Of(issuer, clientID string) *Store {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q", issuer, clientID))
	return l.store(hex.EncodeToString(sum[:16]))
}

func (l *Logins) store(name string) *Store {
	return &Store{filepath.Join(l.dir, name), filepath.Join(l.keyDir, name+".key")}
}

// All returns the logins there are, in the order of issuers and clients; those
// that cannot be read come first. It waits for nobody and makes nothing.
func (l *Logins) All() ([]Kept, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for logins: %w", err)
	}
	var all []Kept
	for _, e := range entries {
		if raw, err := hex.DecodeString(e.Name()); err != nil || len(raw) != 16 {
			continue // a lock, or not ours
		}
		k := Kept{Store: l.store(e.Name())}
		k.Session, k.Err = k.Store.load()
		if _, err := os.Stat(k.Store.path); errors.Is(err, fs.ErrNotExist) {
			continue // it was forgotten in the meantime
		}
		all = append(all, k)
	}
	slices.SortStableFunc(all, func(a, b Kept) int {
		return cmp.Or(strings.Compare(a.Session.Issuer, b.Session.Issuer), strings.Compare(a.Session.ClientID, b.Session.ClientID))
	})
	return all, nil
}
