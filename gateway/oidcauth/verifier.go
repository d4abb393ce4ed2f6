package oidcauth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"crossfade/gateway/identity"
)

// Defaults and bounds of Options.
const (
	DefaultMaxTokenBytes = 16 << 10
	DefaultCacheSize     = 10_000
	// MaxCacheTTL bounds for how long a verified token is not verified again: a
	// key that its issuer has withdrawn verifies that long at most.
	MaxCacheTTL = 60 * time.Second
	// rejectedSize bounds the memory for tokens whose signature or binding is
	// wrong. It is a cache of its own, so that a flood of them does not drive out
	// the good ones.
	rejectedSize = 1024
)

// Options configure a Verifier.
type Options struct {
	// Issuers are the trusted issuers. Without any, every token is
	// issuer_unknown.
	Issuers []Issuer
	// Directory maps subjects and claims to principals; nil maps nobody.
	Directory *identity.Directory
	// Providers fetch and keep the keys. Nil is offline: no signature can be
	// verified, so no token can be good, and Inspect says what else is wrong.
	Providers *Providers
	Deny      Deny
	// MaxTokenBytes bounds the length of a token. Default DefaultMaxTokenBytes.
	MaxTokenBytes int
	// CacheSize is how many verified tokens are kept. Default DefaultCacheSize.
	CacheSize int
	// CacheTTL is for how long; default and most MaxCacheTTL, and never beyond
	// exp.
	CacheTTL time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// OnCache is told of each look into the cache by Authenticate, and of each
	// hit by Cached (a miss of Cached is followed by Authenticate, which would
	// count it twice). May be nil.
	OnCache func(hit bool)
}

// Verifier judges tokens under one configuration. It is immutable and safe for
// concurrent use, starts no goroutine and needs no Close; what it remembers dies
// with it.
type Verifier struct {
	byIss     map[string]*rules
	issuers   []*rules
	unknown   *rules
	directory *identity.Directory
	offline   bool
	deny      denied
	maxBytes  int
	ttl       time.Duration
	now       func() time.Time
	onCache   func(bool)
	*memory
}

// memory is what a Verifier remembers. Keys are SHA-256 digests, so that it
// holds no token.
type memory struct {
	verified, rejected *lru.Cache[digest, *judgement]

	mu      sync.Mutex
	pending map[digest]*pending
}

type digest [sha256.Size]byte

// judgement is a shared Authentication, with what else is known about it.
type judgement struct {
	auth  *identity.Authentication
	until time.Time
	names names
}

// pending is a verification that others wait for.
type pending struct {
	done chan struct{}
	j    *judgement // nil when it came to nothing: try again
}

// New checks the configuration and builds a Verifier. It does no network I/O:
// a provider that is down does not matter before its first token. The error
// joins every mistake.
func New(o Options) (*Verifier, error) {
	v := &Verifier{
		byIss:     make(map[string]*rules, len(o.Issuers)),
		unknown:   defaultRules(),
		directory: o.Directory,
		offline:   o.Providers == nil,
		deny:      newDenied(o.Deny),
		maxBytes:  cmp.Or(o.MaxTokenBytes, DefaultMaxTokenBytes),
		ttl:       cmp.Or(o.CacheTTL, MaxCacheTTL),
		now:       o.Now,
		onCache:   o.OnCache,
	}
	if v.now == nil {
		v.now = time.Now
	}
	var errs []error
	if v.maxBytes < 0 {
		errs = append(errs, fmt.Errorf("a largest token of %d bytes is negative", v.maxBytes))
	}
	if v.ttl < 0 || v.ttl > MaxCacheTTL {
		errs = append(errs, fmt.Errorf("a cache time of %s is not between 0 and %s", v.ttl, MaxCacheTTL))
	}
	if o.CacheSize < 0 {
		errs = append(errs, fmt.Errorf("a cache of %d tokens is negative", o.CacheSize))
	}
	for _, i := range o.Issuers {
		r, err := newRules(i)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if _, twice := v.byIss[r.URL]; twice {
			errs = append(errs, fmt.Errorf("issuer %s stands twice: list all its audiences in one entry", r.URL))
			continue
		}
		for _, iss := range r.iss {
			v.byIss[iss] = r
		}
		v.issuers = append(v.issuers, r)
		if v.offline {
			continue
		}
		if r.source, err = o.Providers.source(r.Issuer); err != nil {
			errs = append(errs, fmt.Errorf("issuer %s: %w", r.URL, err))
		}
		r.verifier = newOIDCVerifier(r)
	}
	for d := range o.Deny.IssuedBefore {
		if _, ok := v.byIss[d]; d != "" && !ok {
			errs = append(errs, fmt.Errorf("the deny list names the issuer %s, which is not configured", d))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	v.memory = &memory{pending: make(map[digest]*pending)}
	v.verified, _ = lru.New[digest, *judgement](cmp.Or(o.CacheSize, DefaultCacheSize)) // fails only for sizes below 1
	v.rejected, _ = lru.New[digest, *judgement](rejectedSize)
	return v, nil
}

// WithDeny returns a Verifier that differs from v in its deny list only. Both
// share what they remember, which is safe because the list is asked about
// remembered tokens too: a token can be denied at once and without verifying
// all others again. A time of issue for an issuer that is not configured denies
// nothing.
func (v *Verifier) WithDeny(d Deny) *Verifier {
	w := *v
	w.deny = newDenied(d)
	return &w
}

// Authenticate judges a token. The result is never nil and is shared: nobody
// may change it. An absent credential is StatusAbsent with token_absent, one of
// another scheme is rejected with scheme_unsupported.
//
// It waits for keys at most as long as ctx lives and as long as two fetches may
// take. If ctx ends first, the token is unavailable, not bad.
func (v *Verifier) Authenticate(ctx context.Context, c identity.Credential) *identity.Authentication {
	raw, d, refused := v.admit(c)
	if refused != nil {
		return refused
	}
	if a := v.recall(d); a != nil {
		v.count(true)
		return a
	}
	v.count(false)
	for {
		v.mu.Lock()
		if p, ok := v.pending[d]; ok {
			v.mu.Unlock()
			select {
			case <-p.done:
			case <-ctx.Done():
				return identity.Reject("the request ended while its token was being verified", identity.JWKSUnavailable)
			}
			if p.j != nil {
				return v.deny.judge(p.j.auth, &p.j.names)
			}
			continue
		}
		p := &pending{done: make(chan struct{})}
		v.pending[d] = p
		v.mu.Unlock()
		return v.lead(ctx, raw, d, p)
	}
}

// lead verifies for all who wait for p. If its own request ends before the keys
// are there, it judges for nobody else: one of the others leads on.
func (v *Verifier) lead(ctx context.Context, raw string, d digest, p *pending) *identity.Authentication {
	defer func() {
		v.mu.Lock()
		delete(v.pending, d)
		v.mu.Unlock()
		close(p.done)
	}()
	j := v.judge(ctx, raw)
	v.remember(d, j)
	if ctx.Err() == nil || j.auth.Status != identity.StatusUnavailable {
		p.j = j
	}
	return v.deny.judge(j.auth, &j.names)
}

// Cached returns a judgement that is already there. It does no I/O and waits
// for nothing; ok is false if the token must be verified first. What needs no
// verification (no credential, one of another kind) is always there.
func (v *Verifier) Cached(c identity.Credential) (a *identity.Authentication, ok bool) {
	_, d, refused := v.admit(c)
	if refused != nil {
		return refused, true
	}
	if a = v.recall(d); a == nil {
		return nil, false
	}
	v.count(true)
	return a, true
}

// admit refuses what is no token, and digests what may be one.
func (v *Verifier) admit(c identity.Credential) (raw string, d digest, refused *identity.Authentication) {
	switch {
	case !c.Present() || c.Secret.Empty():
		a := identity.Reject("no token was sent", identity.TokenAbsent)
		a.Status = identity.StatusAbsent
		return "", d, a
	case c.Scheme != identity.SchemeOIDC:
		return "", d, identity.Reject("a credential of the scheme "+c.Scheme.String()+" is not a token", identity.SchemeUnsupported)
	}
	raw = c.Secret.Reveal()
	if len(raw) > v.maxBytes { // not worth a digest
		_, bad := parse(raw, v.maxBytes)
		return "", d, reject(bad)
	}
	return raw, digestOf(raw), nil
}

// digestOf copies tokens of the usual size to the stack, so that a hit of the
// cache allocates nothing.
func digestOf(raw string) digest {
	var stack [4 << 10]byte
	if len(raw) <= len(stack) {
		return sha256.Sum256(stack[:copy(stack[:], raw)])
	}
	return sha256.Sum256([]byte(raw))
}

func (v *Verifier) recall(d digest) *identity.Authentication {
	now := v.now()
	for _, c := range [...]*lru.Cache[digest, *judgement]{v.verified, v.rejected} {
		j, ok := c.Get(d)
		switch {
		case !ok:
		case now.Before(j.until):
			return v.deny.judge(j.auth, &j.names)
		default:
			c.Remove(d)
		}
	}
	return nil
}

// remember keeps verified tokens, and those that fail by signature or binding
// alone: nothing that time, a rotation or an operator may cure.
func (v *Verifier) remember(d digest, j *judgement) {
	if !j.until.After(v.now()) {
		return
	}
	if j.auth.OK() {
		v.verified.Add(d, j)
	} else {
		v.rejected.Add(d, j)
	}
}

func (v *Verifier) count(hit bool) {
	if v.onCache != nil {
		v.onCache(hit)
	}
}

// reject makes an Authentication out of findings.
func reject(bad []finding) *identity.Authentication {
	reasons := make([]identity.Reason, 0, len(bad))
	details := make([]string, 0, len(bad))
	for _, f := range bad {
		reasons = append(reasons, f.reason)
		details = append(details, f.detail)
	}
	a := identity.Reject(strings.Join(details, "; "), reasons...)
	a.Sample = sampleOf(bad, a.Primary())
	return a
}
