// Package throttle limits guesses at static credentials by the address of the
// client and the user together.
package throttle

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"crossfade/gateway/identity"
)

// Defaults of Options. A person who has forgotten a password tries
// fewer than ten; a guesser who keeps at it gets 17,000 tries a day out of one
// address, where a list of common passwords has millions; and a hash every five
// seconds is nothing beside what the clients of a gateway cost. Five seconds
// are also a wait that people and Luigi's workers survive.
const (
	DefaultFailures = 10
	DefaultEvery    = 5 * time.Second
)

const (
	// maxSuspects bounds the addresses and users that are remembered, to some
	// 5 MB when each of them has tried all that fits. One that falls out begins
	// anew.
	maxSuspects = 10_000
	// maxSuspectUser bounds a user name in bytes. No htpasswd file holds a
	// longer one, so longer ones may share what begins alike.
	maxSuspectUser = 255
)

// Authenticator judges a credential; it never returns nil.
type Authenticator interface {
	Authenticate(ctx context.Context, c identity.Credential) *identity.Authentication
}

// Memory knows without computing anything which passwords were verified lately.
// The legacy keyring is one.
type Memory interface {
	// Remembers reports whether c was verified, and not long ago. It must not
	// allocate and is safe for concurrent use.
	Remembers(c identity.Credential) bool
}

// Options configures a Limiter. Memory is required.
type Options struct {
	// Failures is how many different wrong secrets are judged at once, and
	// Every how long each one takes to be forgiven. 0 stands for the defaults.
	Failures int
	Every    time.Duration
	Memory   Memory
	// Now is the clock; nil stands for time.Now.
	Now func() time.Time
}

// Limiter limits guesses at static credentials, by the address of the client
// and the user together, so that nobody can lock out anybody else: not the same
// user at another address, not another user at the same address. Keys and
// tokens name no user; of them an address has one budget a scheme.
//
// Only different wrong secrets count. A browser that repeats the same wrong
// password with every call has made one guess; that one is remembered and
// refused at no cost, and the right one typed in after it is judged like any
// other. A secret that was verified lately is never held up. Who is over the
// limit is told when to come back, and a new secret is not looked at before;
// trying in the meantime does not prolong the wait.
//
// Keys and tokens cost a lookup and are long: they are judged first, and a good
// one passes always, because many services may live behind one address. For
// them the throttle makes guesses visible and slows down none that is right.
//
// What an unknown user tries counts as for a known one. An expired or revoked
// credential counts as a wrong one, as the client is told.
//
// The state is that of this replica and this configuration: N replicas allow
// N times as much, and a reload, which may have made a wrong password right,
// begins anew. It is bounded, and secrets are in it as digests under a key that
// is random for each Limiter. IPv6 clients count by their /64, which is what
// one customer has (RFC 6177 section 2). Clients without an address count as
// one.
//
// A Limiter is safe for concurrent use, has no goroutines and needs no Close.
// The nil Limiter lets everything through.
type Limiter struct {
	rate   rate
	memory Memory
	now    func() time.Time
	macs   sync.Pool // of *digester

	mu       sync.Mutex
	suspects *simplelru.LRU[suspectKey, *suspect]
}

// suspectKey is whose failures are counted together.
type suspectKey struct {
	client netip.Addr
	scheme identity.Scheme
	user   string
}

// New checks the options and returns a limiter that suspects nobody.
func New(o Options) (*Limiter, error) {
	if o.Failures < 0 || o.Every < 0 || o.Memory == nil {
		return nil, fmt.Errorf("throttle: %d failures, one each %v: both must be positive, or 0 for the default, and Memory is required",
			o.Failures, o.Every)
	}
	if o.Failures == 0 {
		o.Failures = DefaultFailures
	}
	if o.Every == 0 {
		o.Every = DefaultEvery
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	suspects, err := simplelru.NewLRU[suspectKey, *suspect](maxSuspects, nil)
	if err != nil {
		return nil, fmt.Errorf("throttle: %w", err)
	}
	secret := make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // it never fails: it ends the process instead
	return &Limiter{
		rate: rate{o.Failures, o.Every}, memory: o.Memory, now: o.Now, suspects: suspects,
		macs: sync.Pool{New: func() any { return &digester{mac: hmac.New(sha256.New, secret)} }},
	}, nil
}

// Authenticate asks next about a credential of the client, unless it is over
// the limit: then wait is how long until a new secret may be tried, greater
// than zero, and the judgement is nil where next was not asked.
func (t *Limiter) Authenticate(ctx context.Context, next Authenticator, client netip.Addr, c identity.Credential) (a *identity.Authentication, wait time.Duration) {
	hashed := c.Scheme == identity.SchemeBasic
	if t == nil || hashed && t.memory.Remembers(c) {
		return next.Authenticate(ctx, c), 0
	}
	if !hashed { // a lookup is cheaper than anything the throttle could ask first
		if a = next.Authenticate(ctx, c); a.Status != identity.StatusRejected {
			return a, 0
		}
	}
	key, digest := keyOf(client, c), t.digest(c)
	known, wait := t.enter(key, digest)
	switch {
	case known != nil:
		return known, 0
	case wait > 0:
		return a, wait
	case hashed:
		a = next.Authenticate(ctx, c)
	}
	t.leave(key, digest, a)
	return a, 0
}

func keyOf(client netip.Addr, c identity.Credential) suspectKey {
	client = client.Unmap()
	if client.Is6() {
		if p, err := client.Prefix(64); err == nil { // 64 bits are always there
			client = p.Addr()
		}
	}
	return suspectKey{client, c.Scheme, c.User[:min(len(c.User), maxSuspectUser)]}
}

// enter pays for a secret before it is judged, so that guesses that come at the
// same time cannot all slip through. It returns the judgement of a secret that
// was found wrong before, or how long to wait.
func (t *Limiter) enter(key suspectKey, d secretDigest) (known *identity.Authentication, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.suspect(key).try(t.rate, d, t.now())
}

// leave tells how a secret was judged that enter let through.
func (t *Limiter) leave(key suspectKey, d secretDigest, a *identity.Authentication) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.Status == identity.StatusRejected {
		t.suspect(key).failed(t.rate, d, a, t.now())
		return
	}
	// It was right, or nobody had the time to judge it: no failure.
	if s, ok := t.suspects.Peek(key); ok {
		s.forgive(t.rate, d)
		if s.clean(t.now()) {
			t.suspects.Remove(key)
		}
	}
}

// suspect returns the entry of key, a new one if there is none.
func (t *Limiter) suspect(key suspectKey) *suspect {
	s, ok := t.suspects.Get(key)
	if !ok {
		s = &suspect{}
		key.user = strings.Clone(key.user) // what it was cut out of holds the password
		t.suspects.Add(key, s)
	}
	return s
}

// digester computes digests of secrets without allocating.
type digester struct {
	mac hash.Hash
	buf []byte
}

// digest tells secrets of one suspect apart.
func (t *Limiter) digest(c identity.Credential) (out secretDigest) {
	d := t.macs.Get().(*digester)
	defer t.macs.Put(d)
	// The key holds only the beginning of a long name. The length of the name
	// keeps ("a", "bc") and ("ab", "c") apart.
	d.buf = binary.AppendUvarint(d.buf[:0], uint64(len(c.User)))
	d.buf = append(d.buf, c.User...)
	d.buf = append(d.buf, c.Secret.Reveal()...)
	d.mac.Reset()
	_, _ = d.mac.Write(d.buf) // a hash never fails
	clear(d.buf)              // the pool shall not hold passwords
	d.buf = d.mac.Sum(d.buf[:0])
	copy(out[:], d.buf)
	return out
}
