package throttle_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/gateway/throttle"
)

// vault is a keyring of one secret a user, which counts what it computes and,
// like the real one, remembers what was right.
type vault struct {
	secrets map[string]string
	// hold, if any, keeps judgements from coming until it is closed.
	hold chan struct{}

	mu     sync.Mutex
	judged int
	recent map[string]bool
	// busy makes it answer that it had no time.
	busy bool
}

func newVault() *vault {
	return &vault{
		secrets: map[string]string{"svc-etl": "right", "svc-billing": "right too", "": "key"},
		recent:  map[string]bool{},
	}
}

func (v *vault) Authenticate(_ context.Context, c identity.Credential) *identity.Authentication {
	v.mu.Lock()
	v.judged++
	busy := v.busy
	v.mu.Unlock()
	if v.hold != nil {
		<-v.hold
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case busy:
		return &identity.Authentication{Status: identity.StatusUnavailable, Reasons: []identity.Reason{identity.Throttled}}
	case v.secrets[c.User] != c.Secret.Reveal():
		return identity.Reject("", identity.LegacyUnknown)
	}
	v.recent[c.User] = true
	return &identity.Authentication{Status: identity.StatusVerified, Principal: identity.Principal{Name: c.User, Team: "data-eng"}}
}

func (v *vault) Remembers(c identity.Credential) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.recent[c.User] && v.secrets[c.User] == c.Secret.Reveal()
}

func (v *vault) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.recent)
}

func (v *vault) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.judged
}

// door is a throttle in front of a vault, with a clock that stands still.
type door struct {
	*vault
	limiter *throttle.Limiter
	now     time.Time
}

// The limits of every door, the defaults.
const (
	burst = throttle.DefaultFailures
	every = throttle.DefaultEvery
)

func newDoor(t interface{ Fatal(...any) }) *door {
	d := &door{vault: newVault(), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	var err error
	d.limiter, err = throttle.New(throttle.Options{
		Memory: d.vault, Now: func() time.Time { return d.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// attempt is one request.
type attempt struct {
	client, user, secret string
	scheme               identity.Scheme // SchemeBasic if none is said
}

func (a attempt) credential() identity.Credential {
	if a.scheme == identity.SchemeNone {
		a.scheme = identity.SchemeBasic
	}
	return identity.Credential{Scheme: a.scheme, User: a.user, Secret: identity.NewSecret(a.secret)}
}

// knock returns "in", "wrong", "busy" or how long to wait.
func (d *door) knock(a attempt) string {
	var client netip.Addr
	if a.client != "" {
		client = netip.MustParseAddr(a.client)
	}
	auth, wait := d.limiter.Authenticate(context.Background(), d.vault, client, a.credential())
	switch {
	case wait > 0:
		return wait.String()
	case auth.OK():
		return "in"
	case auth.Status == identity.StatusUnavailable:
		return "busy"
	default:
		return "wrong"
	}
}

// guess tries n secrets that nobody tried before and returns the last answer.
func (d *door) guess(n int, a attempt) (last string) {
	for range n {
		a.secret = "guess " + strconv.FormatUint(rand.Uint64(), 36)
		last = d.knock(a)
	}
	return last
}

func TestGuessesAreHeldUpAndNobodyElse(t *testing.T) {
	t.Parallel()
	const home, away = "192.0.2.7", "198.51.100.9"
	etl := attempt{client: home, user: "svc-etl"}
	right := attempt{client: home, user: "svc-etl", secret: "right"}
	apiKey := func(secret string) attempt {
		return attempt{client: home, secret: secret, scheme: identity.SchemeAPIKey}
	}
	for _, tt := range []struct {
		name  string
		knock func(d *door) string
		want  string
	}{
		{"a burst of guesses is judged", func(d *door) string { return d.guess(burst, etl) }, "wrong"},
		{"the guess after it has to wait", func(d *door) string { return d.guess(burst+1, etl) }, "5s"},
		{"waiting guesses do not prolong the wait", func(d *door) string { return d.guess(burst+1000, etl) }, "5s"},
		{"the wait becomes shorter", func(d *door) string {
			d.guess(burst+1, etl)
			d.now = d.now.Add(1700 * time.Millisecond)
			return d.guess(1, etl)
		}, "3.3s"},
		{"after the wait one guess is judged", func(d *door) string {
			d.guess(burst, etl)
			d.now = d.now.Add(every)
			return d.guess(1, etl)
		}, "wrong"},
		{"and no more than one", func(d *door) string {
			d.guess(burst, etl)
			d.now = d.now.Add(every)
			return d.guess(2, etl)
		}, "5s"},
		{"a long pause earns one burst and no more", func(d *door) string {
			d.guess(burst, etl)
			d.now = d.now.Add(24 * time.Hour)
			return d.guess(burst+1, etl)
		}, "5s"},
		{"the right secret is new and waits like any other", func(d *door) string {
			d.guess(burst, etl)
			return d.knock(right)
		}, "5s"},
		{"and gets in after the wait", func(d *door) string {
			d.guess(burst+5, etl)
			d.now = d.now.Add(every)
			return d.knock(right)
		}, "in"},
		{"one that was verified lately does not wait", func(d *door) string {
			d.knock(right)
			d.guess(burst+5, etl)
			return d.knock(right)
		}, "in"},
		{"the same user from another address is not touched", func(d *door) string {
			d.guess(burst+5, etl)
			return d.knock(attempt{client: away, user: "svc-etl", secret: "right"})
		}, "in"},
		{"another user from the same address is not touched", func(d *door) string {
			d.guess(burst+5, etl)
			return d.knock(attempt{client: home, user: "svc-billing", secret: "right too"})
		}, "in"},
		{"a user that nobody knows is held up like one who is known", func(d *door) string {
			return d.guess(burst+1, attempt{client: home, user: "nobody"})
		}, "5s"},
		{"one wrong secret that is repeated is one failure", func(d *door) string {
			for range 1000 {
				d.knock(attempt{client: home, user: "svc-etl", secret: "old"})
			}
			return d.guess(burst-1, etl)
		}, "wrong"},
		{"a wrong secret is refused as always while others wait", func(d *door) string {
			d.knock(attempt{client: home, user: "svc-etl", secret: "old"})
			d.guess(burst+5, etl)
			return d.knock(attempt{client: home, user: "svc-etl", secret: "old"})
		}, "wrong"},
		{"one that was never judged is not remembered as wrong", func(d *door) string {
			d.guess(burst, etl)
			d.knock(right)
			d.now = d.now.Add(every)
			return d.knock(right)
		}, "in"},
		{"right secrets do not use the budget up", func(d *door) string {
			for range 1000 {
				d.knock(right)
				d.forget()
			}
			return d.guess(burst, etl)
		}, "wrong"},
		{"a right secret does not renew the budget", func(d *door) string {
			d.guess(burst-1, etl)
			d.knock(right)
			return d.guess(2, etl)
		}, "5s"},
		{"what nobody had the time to judge is no failure", func(d *door) string {
			d.busy = true
			d.guess(1000, etl)
			d.busy = false
			return d.guess(burst, etl)
		}, "wrong"},
		{"a guesser with a customer's share of IPv6 is one client", func(d *door) string {
			for i := range burst {
				d.guess(1, attempt{client: fmt.Sprintf("2001:db8:1:2:%x::1", i), user: "svc-etl"})
			}
			return d.guess(1, attempt{client: "2001:db8:1:2:ffff:ffff:ffff:ffff", user: "svc-etl"})
		}, "5s"},
		{"the next customer is another", func(d *door) string {
			d.guess(burst+5, attempt{client: "2001:db8:1:2::1", user: "svc-etl"})
			return d.knock(attempt{client: "2001:db8:1:3::1", user: "svc-etl", secret: "right"})
		}, "in"},
		{"an IPv4 address in the form of IPv6 is the same client", func(d *door) string {
			d.guess(burst, etl)
			return d.guess(1, attempt{client: "::ffff:" + home, user: "svc-etl"})
		}, "5s"},
		{"clients without an address are one", func(d *door) string {
			return d.guess(burst+1, attempt{user: "svc-etl"})
		}, "5s"},
		{"wrong keys of an address are held up", func(d *door) string {
			return d.guess(burst+1, apiKey(""))
		}, "5s"},
		{"a good key from there is not", func(d *door) string {
			d.guess(burst+5, apiKey(""))
			return d.knock(apiKey("key"))
		}, "in"},
		{"a wrong key that is repeated is one failure", func(d *door) string {
			for range 1000 {
				d.knock(apiKey("old"))
			}
			return d.guess(burst-1, apiKey(""))
		}, "wrong"},
		{"static bearer tokens have a budget of their own", func(d *door) string {
			d.guess(burst+5, apiKey(""))
			return d.guess(burst, attempt{client: home, scheme: identity.SchemeStaticBearer})
		}, "wrong"},
		{"ten thousand are remembered, and who falls out begins anew", func(d *door) string {
			d.guess(burst+5, etl)
			for i := range 9_999 {
				d.guess(1, attempt{client: home, user: strconv.Itoa(i)})
			}
			before := d.guess(1, etl) // used last now
			for i := range 10_000 {
				d.guess(1, attempt{client: away, user: strconv.Itoa(i)})
			}
			return before + ", " + d.guess(1, etl)
		}, "5s, wrong"},
		{"names that no file can hold are bounded", func(d *door) string {
			long := string(make([]byte, 1000))
			for i := range burst {
				d.guess(1, attempt{client: home, user: long + strconv.Itoa(i)})
			}
			return d.guess(1, attempt{client: home, user: long})
		}, "5s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.knock(newDoor(t)); got != tt.want {
				t.Errorf("the last answer is %q, want %q", got, tt.want)
			}
		})
	}
}

func TestARememberedWrongSecretCostsNothing(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	old := attempt{client: "192.0.2.7", user: "svc-etl", secret: "old"}
	for range 1000 {
		if got := d.knock(old); got != "wrong" {
			t.Fatalf("got %q", got)
		}
		d.now = d.now.Add(time.Second)
	}
	if got := d.count(); got != 1 {
		t.Errorf("judged %d times, want once", got)
	}
}

// TestABrowserGetsInWithTheRightPassword is the story of somebody whose browser
// remembers an old password: a page of many calls, all of them refused, and
// each one sent again by the browser.
func TestABrowserGetsInWithTheRightPassword(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVault()
		v.hold = make(chan struct{})
		throttle, err := throttle.New(throttle.Options{Memory: v})
		if err != nil {
			t.Fatal(err)
		}
		page := func(password string) (in, wrong, waiting int) {
			type answer struct {
				in   bool
				wait time.Duration
			}
			answers := make(chan answer, 100)
			for range cap(answers) { // an HTTP/2 browser sends so many at once
				go func() {
					c := attempt{user: "svc-etl", secret: password}.credential()
					a, wait := throttle.Authenticate(t.Context(), v, netip.MustParseAddr("192.0.2.7"), c)
					answers <- answer{a.OK(), wait}
				}()
			}
			synctest.Wait()
			for range cap(answers) {
				if v.hold != nil {
					close(v.hold)
					v.hold = nil
				}
				switch got := <-answers; {
				case got.wait > 0:
					waiting++
				case got.in:
					in++
				default:
					wrong++
				}
			}
			return in, wrong, waiting
		}
		for reload := range 50 {
			if _, wrong, _ := page("the old password"); wrong != 100 {
				t.Fatalf("reload %d: %d calls of 100 were told that the password is wrong", reload, wrong)
			}
		}
		for typo := range burst - 1 {
			if _, wrong, _ := page(fmt.Sprint("typo ", typo)); wrong != 100 {
				t.Fatalf("typo %d: %d calls of 100 were told that the password is wrong", typo, wrong)
			}
		}
		if _, _, waiting := page("one typo too many"); waiting != 100 {
			t.Fatalf("%d calls of 100 have to wait", waiting)
		}
		time.Sleep(every) // of the bubble's clock
		if in, wrong, waiting := page("right"); in != 100 {
			t.Errorf("with the right password %d calls got in, %d were wrong and %d have to wait", in, wrong, waiting)
		}
	})
}

func TestGuessesAtTheSameTimeDoNotSlipThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVault()
		v.hold = make(chan struct{})
		throttle, err := throttle.New(throttle.Options{Memory: v})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for i := range 500 {
			all.Go(func() {
				c := attempt{user: "svc-etl", secret: fmt.Sprint("guess ", i)}.credential()
				throttle.Authenticate(t.Context(), v, netip.MustParseAddr("192.0.2.7"), c)
			})
		}
		synctest.Wait()
		close(v.hold)
		all.Wait()
		if got := v.count(); got != burst {
			t.Errorf("%d of 500 guesses were judged, want %d", got, burst)
		}
	})
}

// answers is an authenticator whose judgements the test gives, one at a time.
type answers chan *identity.Authentication

func (a answers) Authenticate(context.Context, identity.Credential) *identity.Authentication {
	return <-a
}

func TestOneSecretThatIsJudgedTwoWaysCountsOnceIfItIsWrong(t *testing.T) {
	t.Parallel()
	wrong := identity.Reject("", identity.LegacyUnknown)
	busy := &identity.Authentication{Status: identity.StatusUnavailable, Reasons: []identity.Reason{identity.Throttled}}
	for name, judged := range map[string][2]*identity.Authentication{
		"nobody had the time, then it was wrong":  {busy, wrong},
		"it was wrong, then nobody had the time":  {wrong, busy},
		"it was wrong twice":                      {wrong, wrong},
		"it was wrong, and asked about only once": {wrong, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDoor(t)
				etl := attempt{client: "192.0.2.7", user: "svc-etl", secret: "old"}
				next := make(answers)
				for _, a := range judged {
					if a != nil {
						go d.limiter.Authenticate(t.Context(), next, netip.MustParseAddr(etl.client), etl.credential())
					}
				}
				synctest.Wait() // both are paid for, neither is judged
				for _, a := range judged {
					if a != nil {
						next <- a
						synctest.Wait()
					}
				}
				if got := d.guess(burst-1, etl); got != "wrong" {
					t.Errorf("the guess before the last is told %q", got)
				}
				if got := d.guess(1, etl); got != every.String() {
					t.Errorf("the guess after the last is told %q", got)
				}
				before := d.count()
				if got := d.knock(etl); got != "wrong" || d.count() != before {
					t.Errorf("the secret is told %q and was not remembered", got)
				}
			})
		})
	}
}

func TestTheLatestWrongSecretsAreRemembered(t *testing.T) {
	t.Parallel()
	const remembered = 16
	d := newDoor(t)
	old := func(i int) attempt {
		return attempt{client: "192.0.2.7", user: "svc-etl", secret: fmt.Sprint("old ", i)}
	}
	judged := func(a attempt) bool {
		before := d.count()
		d.now = d.now.Add(every)
		d.knock(a)
		return d.count() > before
	}
	for i := range 2*remembered + 5 { // round and round
		if !judged(old(i)) {
			t.Fatalf("secret %d was not judged", i)
		}
	}
	d.knock(attempt{client: "192.0.2.7", user: "svc-etl", secret: "right"}) // takes the place of the oldest, for a while
	d.forget()
	for i := 2*remembered + 5; i < 2*remembered+8; i++ { // one fills the place, two replace the next oldest
		judged(old(i))
	}
	for i := 2*remembered + 7; i > remembered+7; i-- {
		if judged(old(i)) {
			t.Errorf("secret %d was forgotten", i)
		}
	}
	if !judged(old(remembered + 7)) {
		t.Error("more secrets are remembered than should be")
	}
}

// drawn is an attempt of anybody at anything, a right one now and then.
func drawn(t *rapid.T) attempt {
	user := rapid.SampledFrom([]string{"svc-etl", "svc-billing", "nobody", ""}).Draw(t, "user")
	scheme := identity.SchemeBasic
	if user == "" {
		scheme = rapid.SampledFrom([]identity.Scheme{identity.SchemeBasic, identity.SchemeAPIKey, identity.SchemeStaticBearer}).Draw(t, "scheme")
	}
	secret := rapid.SampledFrom([]string{"right", "right too", "key", "old"}).Draw(t, "secret")
	if rapid.IntRange(0, 9).Draw(t, "is a guess") > 0 {
		secret = fmt.Sprint("guess ", rapid.Uint32().Draw(t, "guess"))
	}
	return attempt{
		client: rapid.SampledFrom([]string{"192.0.2.7", "192.0.2.8", "2001:db8::1", "2001:db8:0:1::1", ""}).Draw(t, "client"),
		user:   user, secret: secret, scheme: scheme,
	}
}

func TestWhateverStrangersDoAServiceGetsIn(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := newDoor(t)
		service := attempt{client: "192.0.2.7", user: "svc-etl", secret: "right"}
		for range rapid.IntRange(1, 20).Draw(t, "rounds") {
			for range rapid.IntRange(0, 30).Draw(t, "strangers") {
				a := drawn(t)
				if a.client == service.client && a.user == service.user {
					a.client = "192.0.2.8"
				}
				d.knock(a)
			}
			d.now = d.now.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "pause")))
			if rapid.Bool().Draw(t, "the keyring forgets") {
				d.forget()
			}
			if got := d.knock(service); got != "in" {
				t.Fatalf("the service is told %q", got)
			}
		}
	})
}

func TestTheRightSecretGetsInAfterTheWaitThatItWasTold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := newDoor(t)
		for range rapid.IntRange(0, 60).Draw(t, "attempts") {
			d.knock(drawn(t))
			d.now = d.now.Add(time.Duration(rapid.Int64Range(0, int64(2*every)).Draw(t, "pause")))
		}
		right := attempt{client: "192.0.2.7", user: "svc-etl", secret: "right"}
		got := d.knock(right)
		if wait, err := time.ParseDuration(got); err == nil {
			if wait > every {
				t.Fatalf("told to wait %v", wait)
			}
			d.now = d.now.Add(wait)
			got = d.knock(right)
		}
		if got != "in" {
			t.Fatalf("told %q", got)
		}
	})
}

func TestNoScheduleOfGuessesBeatsTheRate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := newDoor(t)
		start := d.now
		for range rapid.IntRange(1, 200).Draw(t, "attempts") {
			a := drawn(t)
			a.client, a.user, a.scheme = "192.0.2.7", "svc-etl", identity.SchemeBasic
			if a.secret == "right" { // found: from here on it is no guess
				continue
			}
			d.knock(a)
			d.now = d.now.Add(time.Duration(rapid.Int64Range(0, int64(2*every)).Draw(t, "pause")))
			if most := burst + int(d.now.Sub(start)/every); d.count() > most {
				t.Fatalf("%d guesses were judged after %v, want at most %d", d.count(), d.now.Sub(start), most)
			}
		}
	})
}

func TestNewThrottleNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]throttle.Options{
		"a negative burst":    {Failures: -1, Memory: newVault()},
		"a negative interval": {Every: -1, Memory: newVault()},
		"no memory":           {},
	} {
		if _, err := throttle.New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSuccessesAllocateNothing(t *testing.T) {
	for name, a := range successes() {
		d := newDoor(t)
		d.secrets[a.user] = a.secret
		d.knock(a)
		c, client, ok := a.credential(), netip.MustParseAddr(a.client), still{}
		if n := testing.AllocsPerRun(100, func() { d.limiter.Authenticate(t.Context(), ok, client, c) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func successes() map[string]attempt {
	return map[string]attempt{
		"a remembered password": {client: "2001:db8::1", user: "svc-etl", secret: "right"},
		"an API key":            {client: "2001:db8::1", secret: "key", scheme: identity.SchemeAPIKey},
	}
}

// still is an authenticator that lets everybody in and costs nothing.
type still struct{}

func (still) Authenticate(context.Context, identity.Credential) *identity.Authentication {
	return &stillIn
}

var stillIn = identity.Authentication{Status: identity.StatusVerified}

func BenchmarkThrottle(b *testing.B) {
	for name, a := range successes() {
		b.Run(name, func(b *testing.B) {
			d := newDoor(b)
			d.knock(a)
			c, client := a.credential(), netip.MustParseAddr(a.client)
			b.ReportAllocs()
			for b.Loop() {
				d.limiter.Authenticate(b.Context(), still{}, client, c)
			}
		})
	}
	b.Run("a remembered wrong password", func(b *testing.B) {
		d := newDoor(b)
		c, client := attempt{user: "svc-etl", secret: "old"}.credential(), netip.MustParseAddr("192.0.2.7")
		b.ReportAllocs()
		for b.Loop() {
			d.limiter.Authenticate(b.Context(), d.vault, client, c)
		}
	})
}
