package legacy

import (
	"container/list"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	stdhash "hash"
	"sync"
	"time"

	"crossfade/gateway/identity"
)

// cacheKey is the HMAC of a user name and password. Whoever reads the memory
// of the cache cannot guess passwords offline without the key of the HMAC,
// which is random for each keyring.
type cacheKey [sha256.Size]byte

// verdicts remembers for a short while what was found about user names and
// passwords, the least recently used go first, and lets equal verifications
// that happen at the same time be computed once.
type verdicts struct {
	ttl    time.Duration
	size   int
	keyers sync.Pool // of *keyer

	mu      sync.Mutex
	byKey   map[cacheKey]*list.Element // of *remembered
	recent  *list.List                 // the most recently used first
	flights map[cacheKey]*flight
}

type remembered struct {
	key     cacheKey
	verdict *identity.Authentication
	at      time.Time
}

// flight is a verification under way.
type flight struct {
	// verdict may be read once done is closed. It is nil when the one who led
	// gave up before it began.
	verdict *identity.Authentication
	done    chan struct{}
	// known tells that the pair was verified before.
	known bool
}

// keyer computes cache keys without allocating.
type keyer struct {
	mac stdhash.Hash
	buf []byte
}

func newVerdicts(size int, ttl time.Duration) *verdicts {
	secret := make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // it never fails: it ends the process instead
	return &verdicts{
		ttl:     ttl,
		size:    size,
		keyers:  sync.Pool{New: func() any { return &keyer{mac: hmac.New(sha256.New, secret)} }},
		byKey:   make(map[cacheKey]*list.Element),
		recent:  list.New(),
		flights: make(map[cacheKey]*flight),
	}
}

// key returns the cache key of a credential.
func (v *verdicts) key(c identity.Credential) (key cacheKey) {
	k := v.keyers.Get().(*keyer)
	defer v.keyers.Put(k)
	// The length of the name keeps ("a", "bc") and ("ab", "c") apart.
	k.buf = append(k.buf[:0], byte(c.Scheme))
	k.buf = binary.BigEndian.AppendUint64(k.buf, uint64(len(c.User)))
	k.buf = append(k.buf, c.User...)
	k.buf = append(k.buf, c.Secret.Reveal()...)
	k.mac.Reset()
	_, _ = k.mac.Write(k.buf) // a hash never fails
	clear(k.buf)              // the pool shall not hold passwords
	k.buf = k.mac.Sum(k.buf[:0])
	copy(key[:], k.buf)
	return key
}

// lookUp returns the remembered verdict, or the flight to wait for. If leads
// is true, the flight is new and the caller must verify and then land it.
//
// A verdict that is too old to be given is kept if it was good, for it says who
// need not wait among strangers.
func (v *verdicts) lookUp(key cacheKey, now time.Time) (verdict *identity.Authentication, f *flight, leads bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	known := false
	if e, ok := v.byKey[key]; ok {
		r := e.Value.(*remembered)
		if age := now.Sub(r.at); 0 <= age && age < v.ttl {
			v.recent.MoveToFront(e)
			return r.verdict, nil, false
		}
		if known = r.verdict.OK(); !known {
			v.forget(e)
		}
	}
	if f, ok := v.flights[key]; ok {
		return nil, f, false
	}
	f = &flight{done: make(chan struct{}), known: known}
	v.flights[key] = f
	return nil, f, true
}

// good reports whether the verdict on key was good when it was found last.
func (v *verdicts) good(key cacheKey) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, ok := v.byKey[key]
	return ok && e.Value.(*remembered).verdict.OK()
}

// land ends a flight, releases those who wait for it and remembers its
// verdict, if there is one, from now on.
func (v *verdicts) land(key cacheKey, f *flight, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.flights, key)
	close(f.done)
	if f.verdict == nil {
		return
	}
	if e, ok := v.byKey[key]; ok {
		v.forget(e)
	}
	v.byKey[key] = v.recent.PushFront(&remembered{key: key, verdict: f.verdict, at: now})
	if v.recent.Len() > v.size {
		v.forget(v.recent.Back())
	}
}

func (v *verdicts) forget(e *list.Element) {
	v.recent.Remove(e)
	delete(v.byKey, e.Value.(*remembered).key)
}
