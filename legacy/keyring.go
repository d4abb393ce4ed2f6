// Package legacy is the keyring of the static credentials that Crossfade fades
// out: the users of an htpasswd file, API keys and static bearer tokens.
//
// A Keyring is built once from its files and never changes. A reload loads a
// new one and swaps it in: that empties the cache of verdicts, and a file with
// mistakes leaves the old keyring in force, because Load returned an error.
//
// # What a failure costs
//
// Nobody may learn from the time of an answer whether a user exists. Therefore
// every failed password costs the same computations, whether the user is
// unknown or the password is wrong, and whosever hash it was compared with:
// one verification of the costliest hash in the file. A file that mixes
// schemes costs one verification of each scheme that stands in it, each at the
// highest cost that the file has for the scheme; in the usual mixture of
// bcrypt with old apr1 the latter is under one percent. A user's hash that is
// cheaper than its scheme's highest is completed to it: by the missing rounds
// for SHA-crypt, by one dummy of each cost c, c+1, ... C-1 for bcrypt, which
// together with the user's own 2^c make 2^C. So the costliest hash need not be
// found by comparing schemes with one another, which no cost parameter allows.
//
// API keys and bearer tokens are looked up by digest and cost one SHA-256.
package legacy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"crossfade/gateway/identity"
)

// Defaults of Options.
const (
	// DefaultCacheTTL spares a worker that pings every second all but two
	// computations a minute.
	DefaultCacheTTL = 30 * time.Second
	// DefaultCacheSize bounds the cache to about 2 MB.
	DefaultCacheSize = 10_000
	// DefaultMaxWait is well below the 10 s after which Luigi's workers give up
	// on a call.
	DefaultMaxWait = 3 * time.Second
)

// Options say where the credentials are. The zero value is an empty keyring,
// which knows nobody.
type Options struct {
	// HTPasswd is the path of an Apache htpasswd file; empty for none.
	HTPasswd string
	// APIKeys and Bearers are the paths of YAML files, lists of entries with
	// id, owner, sha256 and the optional expires and revoked; empty for none.
	APIKeys string
	Bearers string
	// Directory maps owners to principals; nil maps nobody.
	Directory *identity.Directory
	// Concurrency is how many passwords may be verified at a time; 0 stands
	// for GOMAXPROCS. As many again may be verified a second time when the
	// verdict on them was good and has grown old: a flood of guesses must not
	// keep those waiting who are at work already.
	Concurrency int
	// MaxWait is how long a request waits for the verification of its password
	// to begin, or for one that is under way; 0 stands for DefaultMaxWait.
	MaxWait time.Duration
	// CacheTTL is how long a verdict on a password is remembered; 0 stands for
	// DefaultCacheTTL.
	CacheTTL time.Duration
	// CacheSize is how many verdicts are remembered; 0 stands for
	// DefaultCacheSize.
	CacheSize int
	// Now is the clock; nil stands for time.Now.
	Now func() time.Time
	// OnVerify, if set, is called once for each verification that really
	// computes a hash, with its scheme, before it begins. It is called from
	// many goroutines and holds up the verification until it returns.
	OnVerify func(scheme string)
}

// Keyring judges static credentials. It is immutable but for its cache of
// verdicts, safe for concurrent use, has no goroutines, and needs no Close.
type Keyring struct {
	users      map[string]*user
	keys       map[digest]*credential
	bearers    map[digest]*credential
	hasBearers bool
	// strangers is what a password costs whose user is unknown.
	strangers []step
	verdicts  *verdicts
	slots     chan struct{}
	reserved  chan struct{} // slots of pairs that were good before
	maxWait   time.Duration
	now       func() time.Time
	onVerify  func(scheme string)

	// The answers that name nobody, shared by all requests.
	absent, unknown, throttled *identity.Authentication
}

// Load reads the files and builds the keyring. The error joins every mistake
// that the files have, each a *Mistake.
func Load(o Options) (*Keyring, error) {
	if o.Concurrency < 0 || o.MaxWait < 0 || o.CacheTTL < 0 || o.CacheSize < 0 {
		return nil, fmt.Errorf("legacy: concurrency %d, longest wait %v, cache TTL %v and cache size %d must not be negative: use 0 for the default",
			o.Concurrency, o.MaxWait, o.CacheTTL, o.CacheSize)
	}
	concurrency := cmp.Or(o.Concurrency, runtime.GOMAXPROCS(0))
	k := &Keyring{
		hasBearers: o.Bearers != "",
		slots:      make(chan struct{}, concurrency),
		reserved:   make(chan struct{}, concurrency),
		maxWait:    cmp.Or(o.MaxWait, DefaultMaxWait),
		now:        o.Now,
		onVerify:   o.OnVerify,
		absent:     &identity.Authentication{Status: identity.StatusAbsent},
		unknown: &identity.Authentication{
			Status: identity.StatusRejected, Reasons: []identity.Reason{identity.LegacyUnknown},
		},
		throttled: &identity.Authentication{
			Status: identity.StatusUnavailable, Reasons: []identity.Reason{identity.Throttled},
		},
	}
	if k.now == nil {
		k.now = time.Now
	}
	if k.onVerify == nil {
		k.onVerify = func(string) {}
	}
	k.verdicts = newVerdicts(cmp.Or(o.CacheSize, DefaultCacheSize), cmp.Or(o.CacheTTL, DefaultCacheTTL))

	var errs [3]error
	k.users, errs[0] = loadUsers(o.HTPasswd, o.Directory)
	k.keys, errs[1] = loadKeys(o.APIKeys, identity.SchemeAPIKey, o.Directory)
	k.bearers, errs[2] = loadKeys(o.Bearers, identity.SchemeStaticBearer, o.Directory)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	k.strangers = planFailures(k.users)
	return k, nil
}

// Authenticate judges a credential. It never returns nil, and nobody may
// change what it returns, which many requests share.
//
// A good credential is StatusVerified with its principal. One that is known
// but expired or revoked is StatusRejected with LegacyExpired or LegacyRevoked
// and its principal. Everything else is LegacyUnknown and names nobody. When
// ctx or MaxWait ends before a password could be verified, the answer is
// StatusUnavailable with Throttled, and it is not remembered.
//
// A verification that has begun is finished even if ctx ends, because other
// requests with the same password may be waiting for it.
func (k *Keyring) Authenticate(ctx context.Context, c identity.Credential) *identity.Authentication {
	switch c.Scheme {
	case identity.SchemeNone:
		return k.absent
	case identity.SchemeBasic:
		return k.basic(ctx, c)
	case identity.SchemeAPIKey:
		return k.lookUp(k.keys, c.Secret)
	case identity.SchemeStaticBearer:
		return k.lookUp(k.bearers, c.Secret)
	default:
		return k.unknown
	}
}

// lookUp judges a secret by its digest, at the present time: an expiry counts
// from the moment that it names.
//
// A map lookup does not take constant time, and it need not. What it compares
// is a SHA-256 digest, of which nobody can choose the leading bytes without
// guessing 2^n secrets for n bits; time that depends on how many bytes agree
// therefore tells nothing about the secret that belongs to the digest.
func (k *Keyring) lookUp(in map[digest]*credential, secret identity.Secret) *identity.Authentication {
	c, ok := in[digestOf(secret.Reveal())]
	if !ok {
		return k.unknown
	}
	return c.judge(k.now())
}

// Remembers reports whether c is a password that was verified and is still in
// the cache, even if its verdict is too old to be given without another look:
// who has been at work is no guesser. It computes no hash. Keys and tokens are
// judged by a lookup and never remembered.
func (k *Keyring) Remembers(c identity.Credential) bool {
	return c.Scheme == identity.SchemeBasic && len(k.users) > 0 && k.verdicts.good(k.verdicts.key(c))
}

// IsStaticBearer reports whether token is one of the static bearer tokens,
// expired and revoked ones included. Ask it before parsing a bearer value:
// many static tokens look like JWTs.
func (k *Keyring) IsStaticBearer(token string) bool {
	if len(k.bearers) == 0 {
		return false // without the digest, which every OIDC token would pay for
	}
	_, ok := k.bearers[digestOf(token)]
	return ok
}

// Bearers reports whether a file of static bearer tokens is configured, even
// an empty one.
func (k *Keyring) Bearers() bool { return k.hasBearers }
