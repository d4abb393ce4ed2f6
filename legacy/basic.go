package legacy

import (
	"context"

	"crossfade/gateway/identity"
)

// user is one line of the htpasswd file.
type user struct {
	credential
	hash hash
	// afterFailure are the computations that follow when hash did not match.
	afterFailure []step
}

// basic judges a user name and password (RFC 7617), out of the cache where the
// same pair was judged a short while ago.
//
// The cache is no oracle. Failures are remembered for unknown users just as
// for wrong passwords, so a fast answer says only that somebody sent the same
// pair lately.
func (k *Keyring) basic(ctx context.Context, c identity.Credential) *identity.Authentication {
	if len(k.users) == 0 {
		return k.unknown
	}
	key := k.verdicts.key(c)
	verdict, f, leads := k.verdicts.lookUp(key, k.now())
	if verdict != nil {
		return verdict
	}
	ctx, cancel := context.WithTimeout(ctx, k.maxWait)
	defer cancel()
	for {
		if leads {
			return k.lead(ctx, key, f, c)
		}
		select {
		case <-f.done: // remembered, or given up: then the next one leads
			if f.verdict != nil {
				return f.verdict
			}
		case <-ctx.Done():
			return k.throttled
		}
		if verdict, f, leads = k.verdicts.lookUp(key, k.now()); verdict != nil {
			return verdict
		}
	}
}

// lead verifies on behalf of every request that presents the same pair.
func (k *Keyring) lead(ctx context.Context, key cacheKey, f *flight, c identity.Credential) *identity.Authentication {
	// Deferred, so that those who wait are released even if a hash panics.
	defer func() { k.verdicts.land(key, f, k.now()) }()
	slots := k.slots
	if f.known {
		slots = k.reserved
	}
	if !acquire(ctx, slots) {
		return k.throttled
	}
	defer func() { <-slots }()
	f.verdict = k.verify(c.User, c.Secret.Reveal())
	return f.verdict
}

// acquire waits for one of the slots in which hashes are computed; false means
// that ctx ended first.
func acquire(ctx context.Context, slots chan struct{}) bool {
	if ctx.Err() != nil { // select would choose at random
		return false
	}
	select {
	case slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// verify computes the hashes. See the package comment for why a failure runs
// computations whose results nobody looks at.
func (k *Keyring) verify(name, password string) *identity.Authentication {
	steps := k.strangers
	if len(password) > maxPassword {
		// No user has such a password. The bound holds for the dummies too.
		password = password[:maxPassword]
	} else if u, ok := k.users[name]; ok {
		k.onVerify(u.hash.scheme)
		if u.hash.match([]byte(password)) {
			return u.good
		}
		steps = u.afterFailure
	}
	for _, s := range steps {
		if s.whole {
			k.onVerify(s.scheme)
		}
		_ = s.match([]byte(password))
	}
	return k.unknown
}
