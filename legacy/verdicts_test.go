package legacy_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/legacy"
)

var throttled = &identity.Authentication{
	Status:  identity.StatusUnavailable,
	Reasons: []identity.Reason{identity.Throttled},
}

func TestVerdictsAreRememberedForTheTTL(t *testing.T) {
	for name, c := range map[string]identity.Credential{
		"a right password": basic("bob", password),
		"a wrong password": basic("bob", "wrong"),
		"an unknown user":  basic("mallory", "wrong"),
	} {
		t.Run(name, func(t *testing.T) {
			var seen calls
			now := time.Date(2026, 6, 30, 12, 0, 0, 0, time.UTC)
			k := load(t, legacy.Options{
				HTPasswd: write(t, "h", "bob:"+bcrypt4), OnVerify: seen.add,
				CacheTTL: 10 * time.Second, Now: func() time.Time { return now },
			})
			for _, step := range []struct {
				after time.Duration
				want  int
			}{
				{0, 1},
				{0, 0},
				{10*time.Second - 1, 0}, // a hit does not prolong
				{1, 1},
				{9 * time.Second, 0},
				{-time.Hour, 1}, // a clock set back must not keep a verdict for an hour
			} {
				now = now.Add(step.after)
				k.Authenticate(t.Context(), c)
				if got := len(seen.take()); got != step.want {
					t.Errorf("%v later: %d verifications, want %d", step.after, got, step.want)
				}
			}
		})
	}
}

func TestTheDefaultTTLIsThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		k := load(t, legacy.Options{HTPasswd: write(t, "h", "bob:"+bcrypt4), OnVerify: seen.add})
		for i := range 60 { // a ping a second
			if !k.Authenticate(t.Context(), basic("bob", password)).OK() {
				t.Fatalf("second %d: not verified", i)
			}
			time.Sleep(time.Second)
		}
		if got := len(seen.take()); got != 2 {
			t.Errorf("%d verifications in a minute, want 2", got)
		}
	})
}

func TestVerdictsBelongToOneUserAndPassword(t *testing.T) {
	var seen calls
	k := load(t, legacy.Options{HTPasswd: write(t, "h", "bob:"+bcrypt4), OnVerify: seen.add})
	pairs := []identity.Credential{basic("a", "bc"), basic("ab", "c"), basic("abc", ""), basic("", "abc"), basic("a", "bc\x00")}
	for _, c := range pairs {
		k.Authenticate(t.Context(), c)
	}
	if got := len(seen.take()); got != len(pairs) {
		t.Errorf("%d verifications of %d different pairs", got, len(pairs))
	}
}

func TestTheCacheIsBoundedAndForgetsTheLeastRecentlyUsed(t *testing.T) {
	var seen calls
	k := load(t, legacy.Options{HTPasswd: write(t, "h", "bob:"+bcrypt4), OnVerify: seen.add, CacheSize: 3})
	costs := func(c identity.Credential) int {
		k.Authenticate(t.Context(), c)
		return len(seen.take())
	}
	bob := basic("bob", password)
	costs(bob)
	for i := range 20 { // a guesser cannot push out who is active
		if costs(basic("mallory", fmt.Sprint(i))) != 1 || costs(bob) != 0 {
			t.Fatalf("guess %d was remembered, or bob forgotten", i)
		}
	}
	if costs(basic("mallory", "19")) != 0 || costs(basic("mallory", "18")) != 0 || costs(basic("mallory", "17")) != 1 {
		t.Error("want the latest two guesses remembered beside bob, and no more")
	}
}

func TestWhoWasVerifiedIsRememberedAndNobodyElse(t *testing.T) {
	now := time.Date(2026, 6, 30, 12, 0, 0, 0, time.UTC)
	digest := legacy.Digest(identity.NewSecret("key"))
	for name, tt := range map[string]struct {
		presented, asked identity.Credential
		after            time.Duration
		want             bool
	}{
		"a right password":                             {basic("bob", password), basic("bob", password), 0, true},
		"one whose verdict has grown old":              {basic("bob", password), basic("bob", password), 24 * time.Hour, true},
		"a right password that nobody has sent":        {basic("bob", "wrong"), basic("bob", password), 0, false},
		"a wrong password":                             {basic("bob", "wrong"), basic("bob", "wrong"), 0, false},
		"a wrong password of one who was verified":     {basic("bob", password), basic("bob", "wrong"), 0, false},
		"an unknown user with the password of another": {basic("bob", password), basic("mallory", password), 0, false},
		"an API key, which is only looked up":          {apiKey("key"), apiKey("key"), 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			var seen calls
			clock := now
			k := load(t, legacy.Options{
				HTPasswd: write(t, "h", "bob:"+bcrypt4), APIKeys: write(t, "k", "- {id: a, owner: o, sha256: "+digest+"}\n"),
				OnVerify: seen.add, Now: func() time.Time { return clock },
			})
			k.Authenticate(t.Context(), tt.presented)
			seen.take()
			clock = clock.Add(tt.after)
			if got := k.Remembers(tt.asked); got != tt.want {
				t.Errorf("remembered: %v, want %v", got, tt.want)
			}
			if n := len(seen.take()); n != 0 {
				t.Errorf("asking cost %d verifications", n)
			}
			if n := testing.AllocsPerRun(100, func() { k.Remembers(tt.asked) }); n > maxAllocs {
				t.Errorf("asking allocates %v times", n)
			}
		})
	}
	if load(t, legacy.Options{}).Remembers(basic("bob", password)) {
		t.Error("an empty keyring remembers somebody")
	}
}

// gate lets a test hold verifications up where they begin.
type gate struct {
	calls
	open chan struct{}
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) pass(scheme string) {
	g.add(scheme)
	<-g.open
}

func TestEqualVerificationsAreComputedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		k := load(t, legacy.Options{HTPasswd: write(t, "h", "bob:"+bcrypt4), OnVerify: g.pass, Concurrency: 8})
		answers := make(chan *identity.Authentication, 50)
		for range cap(answers) {
			go func() { answers <- k.Authenticate(t.Context(), basic("bob", password)) }()
		}
		synctest.Wait()
		close(g.open)
		for range cap(answers) {
			if a := <-answers; !a.OK() {
				t.Errorf("got %+v", a)
			}
		}
		if got := len(g.take()); got != 1 {
			t.Errorf("%d verifications, want 1", got)
		}
	})
}

func TestAVerificationOutlivesTheRequestThatBeganIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		k := load(t, legacy.Options{HTPasswd: write(t, "h", "bob:"+bcrypt4), OnVerify: g.pass})
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan *identity.Authentication, 1), make(chan *identity.Authentication, 1)
		go func() { first <- k.Authenticate(ctx, basic("bob", password)) }()
		synctest.Wait()
		go func() { second <- k.Authenticate(t.Context(), basic("bob", password)) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(g.open)
		if a, b := <-first, <-second; !a.OK() || a != b {
			t.Errorf("the first got %+v, the second %+v", a, b)
		}
		if got := len(g.take()); got != 1 {
			t.Errorf("%d verifications, want 1", got)
		}
	})
}

func TestConcurrencyIsBoundedAndWaitingEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		k := load(t, legacy.Options{HTPasswd: write(t, "h", "bob:"+bcrypt4), OnVerify: g.pass, Concurrency: 2})
		held := make(chan *identity.Authentication, 2)
		for i := range cap(held) {
			go func() { held <- k.Authenticate(t.Context(), basic("mallory", fmt.Sprint(i))) }()
		}
		synctest.Wait()

		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if diff := cmp.Diff(throttled, k.Authenticate(ctx, basic("bob", password))); diff != "" {
			t.Errorf("while others hash (-want +got):\n%s", diff)
		}
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("gave up after %v, want 1s", waited)
		}
		if got := len(g.take()); got != 2 {
			t.Errorf("%d verifications began, want 2", got)
		}

		close(g.open)
		<-held
		<-held
		if !k.Authenticate(t.Context(), basic("bob", password)).OK() {
			t.Error("having been throttled was remembered")
		}
	})
}

func TestAFloodOfGuessesKeepsNobodyWaitingForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		k := load(t, legacy.Options{HTPasswd: write(t, "h", "bob:"+bcrypt4), OnVerify: g.pass, Concurrency: 1})
		const flood = 100
		answers := make(chan *identity.Authentication, flood)
		began := time.Now()
		for i := range flood {
			go func() { answers <- k.Authenticate(context.WithoutCancel(t.Context()), basic("mallory", fmt.Sprint(i))) }()
		}
		for range 3 { // who waits for the same pair waits no longer than the first
			go func() { answers <- k.Authenticate(t.Context(), basic("bob", password)) }()
		}
		for range flood - 1 + 3 { // all but the one that is being verified
			if a := <-answers; a.Primary() != identity.Throttled {
				t.Errorf("got %+v", a)
			}
		}
		if waited := time.Since(began); waited != legacy.DefaultMaxWait {
			t.Errorf("waited %v, want %v", waited, legacy.DefaultMaxWait)
		}
		close(g.open)
		<-answers
	})
}

func TestWhoWasVerifiedBeforeDoesNotWaitAmongStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		flooded := false
		var mu sync.Mutex
		k := load(t, legacy.Options{
			HTPasswd: write(t, "h", "bob:"+bcrypt4), Concurrency: 1, CacheTTL: time.Second,
			OnVerify: func(string) {
				mu.Lock()
				first := flooded
				flooded = false
				mu.Unlock()
				if first { // the guess holds its slot
					<-block
				}
			},
		})
		if !k.Authenticate(t.Context(), basic("bob", password)).OK() {
			t.Fatal("bob is not verified")
		}
		mu.Lock()
		flooded = true
		mu.Unlock()
		guess := make(chan *identity.Authentication, 1)
		go func() { guess <- k.Authenticate(t.Context(), basic("mallory", "guess")) }()
		synctest.Wait()
		for range 3 { // each time the verdict has grown old
			time.Sleep(time.Minute)
			if a := k.Authenticate(t.Context(), basic("bob", password)); !a.OK() {
				t.Errorf("bob gets %+v", a)
			}
		}
		if a := k.Authenticate(t.Context(), basic("bob", "wrong")); a.Primary() != identity.Throttled {
			t.Errorf("a guess at bob's password gets %+v", a)
		}
		close(block)
		<-guess
	})
}

func TestWhoWaitsForOneThatGivesUpTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		k := load(t, legacy.Options{HTPasswd: write(t, "h", "bob:"+bcrypt4), OnVerify: g.pass, Concurrency: 1})
		go k.Authenticate(t.Context(), basic("mallory", "holds the slot"))
		synctest.Wait()

		ctx, cancel := context.WithCancel(t.Context())
		leader, followers := make(chan *identity.Authentication, 1), make(chan *identity.Authentication, 3)
		go func() { leader <- k.Authenticate(ctx, basic("bob", password)) }()
		synctest.Wait()
		for range cap(followers) {
			go func() { followers <- k.Authenticate(t.Context(), basic("bob", password)) }()
		}
		impatient, cancelImpatient := context.WithCancel(t.Context())
		gone := make(chan *identity.Authentication, 1)
		go func() { gone <- k.Authenticate(impatient, basic("bob", password)) }()
		synctest.Wait()

		cancelImpatient()
		if a := <-gone; a.Primary() != identity.Throttled {
			t.Errorf("a follower that gives up gets %+v", a)
		}
		cancel()
		if a := <-leader; a.Primary() != identity.Throttled {
			t.Errorf("a leader that gives up gets %+v", a)
		}
		synctest.Wait()
		close(g.open)
		for range cap(followers) {
			if a := <-followers; !a.OK() {
				t.Errorf("a follower that stays gets %+v", a)
			}
		}
		if got := g.take(); len(got) != 2 {
			t.Errorf("verifications %v, want the slot's and one of bob", got)
		}
	})
}

func TestNothingIsComputedForAContextThatHasEnded(t *testing.T) {
	var seen calls
	k := load(t, legacy.Options{HTPasswd: write(t, "h", "bob:"+bcrypt4), OnVerify: seen.add})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // a select between two ready cases would choose at random
		if a := k.Authenticate(ended, basic("bob", password)); a.Primary() != identity.Throttled {
			t.Fatalf("got %+v", a)
		}
	}
	if got := seen.take(); len(got) > 0 {
		t.Errorf("computed %v", got)
	}
	k.Authenticate(t.Context(), basic("bob", password))
	if !k.Authenticate(ended, basic("bob", password)).OK() {
		t.Error("a remembered verdict needs no time and should be given")
	}
}

func TestAPanicReleasesWhoWaits(t *testing.T) {
	panics := true
	k := load(t, legacy.Options{HTPasswd: write(t, "h", "bob:"+bcrypt4), Concurrency: 1, OnVerify: func(string) {
		if panics {
			panics = false
			panic("hook")
		}
	}})
	func() {
		defer func() { _ = recover() }()
		k.Authenticate(t.Context(), basic("bob", password))
	}()
	if !k.Authenticate(t.Context(), basic("bob", password)).OK() {
		t.Error("after a panic the pair is not verified")
	}
}

func TestManyUsersAtOnce(t *testing.T) {
	k := load(t, legacy.Options{HTPasswd: write(t, "h", "bob:"+apr1+"\neve:"+sha256), CacheSize: 4})
	bad := make(chan string, 400)
	done := make(chan struct{})
	for i := range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			for j := range 50 {
				user, secret := []string{"bob", "eve", "mallory"}[(i+j)%3], []string{password, "x", "y"}[j%3]
				want := user != "mallory" && secret == password
				if got := k.Authenticate(t.Context(), basic(user, secret)).OK(); got != want {
					bad <- user + "/" + secret
				}
			}
		}()
	}
	for range 8 {
		<-done
	}
	close(bad)
	if wrong := slices.Collect(func(yield func(string) bool) {
		for s := range bad {
			if !yield(s) {
				return
			}
		}
	}); len(wrong) > 0 {
		t.Errorf("judged wrongly: %v", wrong)
	}
}
