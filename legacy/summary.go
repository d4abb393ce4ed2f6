package legacy

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"crossfade/gateway/identity"
)

// Info describes one credential without its secret, for commands, pages and
// the question which credentials were never seen.
type Info struct {
	ID        string // "basic:svc-etl", as in Authentication.CredentialID
	Scheme    identity.Scheme
	Line      int    // of the user, or of the key's id, in its file
	Owner     string // the user name, or the owner of a key or token
	Principal identity.Principal
	Hash      string // the hash scheme of a password; empty for keys and tokens
	Cost      int    // bcrypt's cost or the rounds of SHA-crypt; 0 for keys and tokens
	Expires   time.Time
	Revoked   bool
}

// Credentials returns every credential in order of ID.
func (k *Keyring) Credentials() []Info {
	infos := make([]Info, 0, k.Len())
	for _, u := range k.users {
		info := u.info()
		info.Hash, info.Cost = u.hash.scheme, u.hash.cost
		infos = append(infos, info)
	}
	for _, in := range [...]map[digest]*credential{k.keys, k.bearers} {
		for c := range maps.Values(in) {
			infos = append(infos, c.info())
		}
	}
	slices.SortFunc(infos, func(a, b Info) int { return cmp.Compare(a.ID, b.ID) })
	return infos
}

func (c *credential) info() Info {
	return Info{
		ID:        c.good.CredentialID,
		Scheme:    c.scheme,
		Line:      c.line,
		Owner:     c.owner,
		Principal: c.good.Principal,
		Expires:   c.expires,
		Revoked:   c.revoked,
	}
}

// Len returns the number of credentials, expired and revoked ones included.
func (k *Keyring) Len() int { return len(k.users) + len(k.keys) + len(k.bearers) }

// Summary counts what a keyring holds.
type Summary struct {
	Users   int
	Hashes  map[string]int // users by hash scheme, those that occur
	APIKeys int
	Bearers int
	Expired int // keys and tokens that have expired by now
	Revoked int // keys and tokens that are revoked, expired or not
	// Unassigned is how many credentials no entry of the directory maps.
	Unassigned int
}

// Summary counts the credentials at the present time.
func (k *Keyring) Summary() Summary {
	s := Summary{Users: len(k.users), Hashes: map[string]int{}, APIKeys: len(k.keys), Bearers: len(k.bearers)}
	now := k.now()
	for _, c := range k.Credentials() {
		if c.Hash != "" {
			s.Hashes[c.Hash]++
		}
		if !c.Expires.IsZero() && !now.Before(c.Expires) {
			s.Expired++
		}
		if c.Revoked {
			s.Revoked++
		}
		if !c.Principal.Mapped {
			s.Unassigned++
		}
	}
	return s
}
