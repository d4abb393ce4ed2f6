package oidcauth_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
)

// counter counts looks into the cache.
type counter struct {
	mu           sync.Mutex
	hits, misses int
}

func (c *counter) on(hit bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if hit {
		c.hits++
	} else {
		c.misses++
	}
}

func (c *counter) want(t *testing.T, hits, misses int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hits != hits || c.misses != misses {
		t.Errorf("%d hits and %d misses, want %d and %d", c.hits, c.misses, hits, misses)
	}
}

func countedWorld(t *testing.T, change func(*world)) (*world, *counter) {
	c := &counter{}
	return newWorld(t, newIDP(), func(w *world) {
		w.options.OnCache = c.on
		if change != nil {
			change(w)
		}
	}), c
}

func TestAVerifiedTokenIsRememberedForAMinute(t *testing.T) {
	w, count := countedWorld(t, nil)
	token := w.idp.token(w.idp.good())
	if _, ok := w.v.Cached(credential(token)); ok {
		t.Error("remembered before it was seen")
	}
	first := w.want(token, identity.StatusVerified)
	w.clock.advance(59 * time.Second)
	if again := w.want(token, identity.StatusVerified); again != first {
		t.Error("verified again")
	}
	if again, ok := w.v.Cached(credential(token)); !ok || again != first {
		t.Error("Cached does not know it")
	}
	count.want(t, 2, 1)
	w.clock.advance(time.Second)
	if _, ok := w.v.Cached(credential(token)); ok {
		t.Error("remembered for more than a minute")
	}
	w.want(token, identity.StatusVerified)
	count.want(t, 2, 2)
}

func TestNothingIsRememberedBeyondItsExpiry(t *testing.T) {
	w, count := countedWorld(t, func(w *world) { w.issuer.Skew.Exp = -1 })
	token := w.idp.token(w.idp.good().with(object{"exp": at(10 * time.Second)}))
	w.want(token, identity.StatusVerified)
	w.clock.advance(10*time.Second - time.Nanosecond)
	w.want(token, identity.StatusVerified)
	count.want(t, 1, 1)
	w.clock.advance(time.Nanosecond)
	if _, ok := w.v.Cached(credential(token)); ok {
		t.Error("remembered at its expiry")
	}
	w.want(token, identity.StatusRejected, identity.Expired)
	count.want(t, 1, 2)
}

func TestATokenWithinTheSkewAfterItsExpiryIsNotRemembered(t *testing.T) {
	w, count := countedWorld(t, nil)
	token := w.idp.token(w.idp.good().with(object{"iat": at(-time.Hour), "exp": at(-time.Second)}))
	w.want(token, identity.StatusVerified)
	w.want(token, identity.StatusVerified)
	count.want(t, 0, 2)
}

func TestTheDenyListIsAskedAboutRememberedTokens(t *testing.T) {
	for name, c := range map[string]struct {
		deny oidcauth.Deny
		want identity.Reason
	}{
		"by subject":                  {oidcauth.Deny{Subjects: []string{"0oa1b2c3"}}, identity.PrincipalUnmapped},
		"by token id":                 {oidcauth.Deny{TokenIDs: []string{"j-1"}}, identity.Expired},
		"by time of issue, of issuer": {oidcauth.Deny{IssuedBefore: map[string]time.Time{"https://idp.example.com/tenant": start.Add(time.Second)}}, identity.Expired},
		"by time of issue, of all":    {oidcauth.Deny{IssuedBefore: map[string]time.Time{"": start.Add(time.Second)}}, identity.Expired},
	} {
		t.Run(name, func(t *testing.T) {
			w, count := countedWorld(t, nil)
			token := w.idp.token(w.idp.good())
			good := w.want(token, identity.StatusVerified)
			denying := w.v.WithDeny(c.deny)
			for _, judge := range []func() *identity.Authentication{
				func() *identity.Authentication { return denying.Authenticate(t.Context(), credential(token)) },
				func() *identity.Authentication { a, _ := denying.Cached(credential(token)); return a },
			} {
				if a := judge(); a.Status != identity.StatusRejected || a.Primary() != c.want || a.Principal.Name != "" {
					t.Errorf("got %s %v", a.Status, a.Reasons)
				}
			}
			count.want(t, 2, 1)
			if again := w.want(token, identity.StatusVerified); again != good {
				t.Error("the shared judgement was changed")
			}
			w.options.Deny = c.deny // and from the start
			w.options.Issuers = nil
			w.build()
			w.want(token, identity.StatusRejected, c.want)
			a, ok := w.v.Cached(credential(token))
			if !ok || a.Primary() != c.want {
				t.Error("a denied token is good out of the cache")
			}
		})
	}
	t.Run("a time of issue at the limit passes", func(t *testing.T) {
		w, _ := countedWorld(t, func(w *world) { w.options.Deny.IssuedBefore = map[string]time.Time{"": start} })
		w.want(w.idp.token(w.idp.good()), identity.StatusVerified)
		w.want(w.idp.token(w.idp.good().with(object{"iat": nil})), identity.StatusRejected, identity.Expired)
	})
}

func TestOnlyFailuresOfSignatureAndBindingAreRemembered(t *testing.T) {
	for name, c := range map[string]struct {
		token      func(*idp) string
		issuer     func(*oidcauth.Issuer)
		remembered bool
	}{
		"a forgery":                        {token: func(p *idp) string { return sign(rsaKey("key-1", 1), nil, p.good()) }, remembered: true},
		"another audience":                 {token: claimsWith(object{"aud": "x"}), remembered: true},
		"a forgery for another audience":   {token: func(p *idp) string { return sign(rsaKey("key-1", 1), nil, p.good().with(object{"aud": "x"})) }, remembered: true},
		"a forgery without key id":         {token: func(p *idp) string { return sign(rsaKey("", 1), nil, p.good()) }},
		"an unknown key id":                {token: func(p *idp) string { return sign(rsaKey("key-9", 1), nil, p.good()) }},
		"not yet valid":                    {token: claimsWith(object{"nbf": at(time.Hour)})},
		"not yet valid, other audience":    {token: claimsWith(object{"nbf": at(time.Hour), "aud": "x"})},
		"expired":                          {token: claimsWith(object{"exp": at(-time.Hour), "iat": at(-2 * time.Hour)})},
		"an unknown issuer":                {token: claimsWith(object{"iss": "x"})},
		"a scope that is missing":          {token: claimsWith(nil), issuer: func(i *oidcauth.Issuer) { i.Scopes = []string{"x"} }},
		"groups that are missing":          {token: claimsWith(nil), issuer: func(i *oidcauth.Issuer) { i.RequireGroups = true }},
		"something that cannot be parsed":  {token: func(*idp) string { return "a.b.c" }},
		"other audience, almost expired":   {token: claimsWith(object{"aud": "x", "exp": at(time.Second)}), remembered: true},
		"other audience, within the skew ": {token: claimsWith(object{"aud": "x", "exp": at(-time.Second)})},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := countedWorld(t, func(w *world) {
				if c.issuer != nil {
					c.issuer(&w.issuer)
				}
			})
			token := c.token(w.idp)
			first := w.judge(token)
			if first.OK() {
				t.Fatal("verified")
			}
			again, ok := w.v.Cached(credential(token))
			if ok != c.remembered || (ok && again != first) {
				t.Errorf("remembered: %v, want %v (%v)", ok, c.remembered, first.Reasons)
			}
			w.clock.advance(time.Minute)
			if _, ok := w.v.Cached(credential(token)); ok {
				t.Error("remembered for a minute")
			}
		})
	}
	t.Run("an outage", func(t *testing.T) {
		w, _ := countedWorld(t, nil)
		w.idp.breakWith("down")
		token := w.idp.token(w.idp.good())
		w.want(token, identity.StatusUnavailable, identity.JWKSUnavailable)
		if _, ok := w.v.Cached(credential(token)); ok {
			t.Error("an outage was remembered")
		}
		w.idp.breakWith("")
		w.clock.advance(time.Minute)
		w.want(token, identity.StatusVerified)
	})
}

func TestOneTokenIsVerifiedOnceForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newIDP()
		p.onFetch = func() { time.Sleep(time.Second) }
		w := newBubble(t, p, nil)
		token := credential(w.fresh(p.keys[0]))
		got := make([]*identity.Authentication, 50)
		var requests sync.WaitGroup
		for i := range got {
			requests.Go(func() { got[i] = w.v.Authenticate(context.Background(), token) })
		}
		requests.Wait()
		for _, a := range got {
			if !a.OK() || a != got[0] {
				t.Fatal("two judgements of one token")
			}
		}
	})
}

func TestTheCacheIsBounded(t *testing.T) {
	w, count := countedWorld(t, func(w *world) { w.options.CacheSize = 2 })
	var tokens []string
	for range 3 {
		tokens = append(tokens, w.fresh(w.idp.keys[0]))
		w.want(tokens[len(tokens)-1], identity.StatusVerified)
	}
	w.want(tokens[2], identity.StatusVerified)
	w.want(tokens[0], identity.StatusVerified)
	count.want(t, 1, 4)
}

func TestAFloodOfBadTokensDrivesNoGoodOneOut(t *testing.T) {
	w, count := countedWorld(t, nil)
	token := w.fresh(w.idp.keys[0])
	w.want(token, identity.StatusVerified)
	bad := w.idp.token(w.idp.good().with(object{"aud": "x"}))
	for range 1200 { // a new spelling of the signature is a new token
		a := w.v.Authenticate(t.Context(), credential(bad+"AAAA"))
		if a.OK() {
			t.Fatal("verified")
		}
		bad += "AAAA"
		if len(bad) > 12<<10 {
			bad = bad[:len(bad)-8<<10] + "BBBB"
		}
	}
	count.want(t, 0, 1201)
	w.want(token, identity.StatusVerified)
	count.want(t, 1, 1201)
}

func TestWhatIsNoTokenIsNotJudgedAsOne(t *testing.T) {
	w, count := countedWorld(t, nil)
	for _, c := range []struct {
		credential identity.Credential
		status     identity.Status
		reason     identity.Reason
	}{
		{identity.Credential{}, identity.StatusAbsent, identity.TokenAbsent},
		{identity.Credential{Scheme: identity.SchemeOIDC}, identity.StatusAbsent, identity.TokenAbsent},
		{identity.Credential{Scheme: identity.SchemeBasic, User: "u", Secret: identity.NewSecret("p")}, identity.StatusRejected, identity.SchemeUnsupported},
	} {
		a := w.v.Authenticate(t.Context(), c.credential)
		cached, ok := w.v.Cached(c.credential)
		if a.Status != c.status || a.Primary() != c.reason || !ok || cached.Primary() != c.reason {
			t.Errorf("%v: %s %v", c.credential, a.Status, a.Reasons)
		}
	}
	count.want(t, 0, 0)
}

func BenchmarkAuthenticateCached(b *testing.B) {
	p := newIDP()
	providers := oidcauth.NewProviders(oidcauth.ProviderOptions{Transport: p})
	defer providers.Close()
	p.now = time.Now
	v, err := oidcauth.New(oidcauth.Options{Issuers: []oidcauth.Issuer{{URL: p.url, Audiences: []string{"api://luigi"}}}, Providers: providers})
	if err != nil {
		b.Fatal(err)
	}
	c := credential(p.token(p.good()))
	ctx := context.Background()
	if a := v.Authenticate(ctx, c); !a.OK() {
		b.Fatal(a.Detail)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !v.Authenticate(ctx, c).OK() {
			b.Fatal("not verified")
		}
	}
}

func TestAHitAllocatesNothing(t *testing.T) {
	w, _ := countedWorld(t, nil)
	c := credential(w.idp.token(w.idp.good()))
	ctx := t.Context()
	w.v.Authenticate(ctx, c)
	if n := testing.AllocsPerRun(100, func() { w.v.Authenticate(ctx, c) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAuthenticateUncached(b *testing.B) {
	p := newIDP()
	providers := oidcauth.NewProviders(oidcauth.ProviderOptions{Transport: p})
	defer providers.Close()
	p.now = time.Now
	v, err := oidcauth.New(oidcauth.Options{
		Issuers: []oidcauth.Issuer{{URL: p.url, Audiences: []string{"api://luigi"}}}, Providers: providers, CacheTTL: time.Nanosecond,
	})
	if err != nil {
		b.Fatal(err)
	}
	c := credential(p.token(p.good()))
	b.ReportAllocs()
	for b.Loop() {
		if !v.Authenticate(context.Background(), c).OK() {
			b.Fatal("not verified")
		}
	}
}
