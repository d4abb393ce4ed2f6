package app_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/config"

	"crossfade/gateway/identity"
	"crossfade/gateway/throttle"
	"crossfade/legacy"
)

func TestTheDefaultsOfTheThrottleAreTheDocumentedOnes(t *testing.T) {
	t.Parallel()
	want := config.Throttle{Failures: throttle.DefaultFailures, Every: throttle.DefaultEvery}
	if got := config.Default().Legacy.Throttle; got != want {
		t.Errorf("the configuration has %+v, the gateway %+v", got, want)
	}
}

func TestAFloodOfPasswordsComputesNoMoreThanTheRateAllows(t *testing.T) {
	t.Parallel()
	const address = "192.0.2.7"
	for name, user := range map[string]string{"a known user": "svc-etl", "a user that nobody knows": "nobody"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var computed atomic.Int64
				file := filepath.Join(t.TempDir(), "users")
				if err := os.WriteFile(file, []byte(htpasswd(t, "svc-etl", "right")), 0o600); err != nil {
					t.Fatal(err)
				}
				keyring, err := legacy.Load(legacy.Options{HTPasswd: file, OnVerify: func(string) { computed.Add(1) }})
				if err != nil {
					t.Fatal(err)
				}
				limiter, err := throttle.New(throttle.Options{Memory: keyring})
				if err != nil {
					t.Fatal(err)
				}
				login := func(address, user, password string) (*identity.Authentication, time.Duration) {
					return limiter.Authenticate(t.Context(), keyring, netip.MustParseAddr(address),
						identity.Credential{Scheme: identity.SchemeBasic, User: user, Secret: identity.NewSecret(password)})
				}
				service := func(when string) {
					t.Helper()
					if a, wait := login("198.51.100.9", "svc-etl", "right"); wait > 0 || !a.OK() {
						t.Fatalf("%s the service elsewhere waits %v", when, wait)
					}
				}
				service("before the flood")
				computed.Store(0)
				start := time.Now()
				for second := range 300 { // an hour would show no more
					for i := range 50 {
						login(address, user, fmt.Sprintf("guess %d", 50*second+i))
						login(address, user, "guess 0") // known as wrong: longer than the keyring remembers
					}
					time.Sleep(time.Second) // of the bubble's clock
				}
				most := int64(throttle.DefaultFailures) + int64(time.Since(start)/throttle.DefaultEvery)
				if got := computed.Load(); got > most || got < most-1 {
					t.Errorf("15,000 passwords cost %d computations in %v, want %d", got, time.Since(start), most)
				}
				service("after the flood")
			})
		})
	}
}

func TestTheThrottleOfTheConfiguration(t *testing.T) {
	t.Parallel()
	guess := func(i int, user, from string) request {
		q := pages()
		q.user, q.password = user, fmt.Sprint("guess ", i)
		q.header = http.Header{"X-Forwarded-For": {from}}
		return q
	}
	const strict = "{ htpasswd: users.htpasswd, throttle: { failures: 3, every: 10m } }"
	for _, tc := range []struct {
		name, mode, legacy string
		status             int // of the fourth guess
		signal             string
	}{
		{"in enforce", "enforce", strict, 429, "throttled"},
		{"in observe it only counts", "observe", strict, 200, "throttled"},
		{"turned off", "enforce", "{ htpasswd: users.htpasswd, throttle: { failures: 0 } }", 401, "legacy_unknown"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.configure("mode", tc.mode, "legacy", tc.legacy,
				"listen", "{ address: 127.0.0.1:0, trusted_proxies: [127.0.0.1] }", "access_log", "{ file: access.log, format: json }")
			g := s.start().loaded()
			const guesser, elsewhere = "192.0.2.7", "198.51.100.9"
			for i := range 3 {
				if got := g.send(guess(i, "svc-etl", guesser)); got.status != 401 && tc.mode == "enforce" {
					t.Fatalf("guess %d: %v", i, got)
				}
			}
			got := g.send(guess(3, "svc-etl", guesser))
			if got.status != tc.status {
				t.Errorf("the fourth guess: %v", got)
			}
			if after := got.header.Get("Retry-After"); (after != "") != (tc.status == 429) || len(after) > 3 {
				t.Errorf("Retry-After %q", after) // a little less than 600
			}
			for _, q := range []request{etl(guess(0, "", elsewhere)), search(guess(0, "", guesser))} {
				if got := g.send(q); got.status != 200 {
					t.Errorf("%s from %s: %v", q.user, q.header.Get("X-Forwarded-For"), got)
				}
			}
			total := map[string]string{"throttled": "1", "legacy_unknown": "4"}[tc.signal]
			s.eventually("the signals are counted", func() bool {
				return g.metric(`crossfade_security_signals_total{reason="`+tc.signal+`",team="unassigned"}`) == total
			})
			g.end()
			log := readFile(t, filepath.Join(s.dir, "access.log"))
			if n := strings.Count(log, `"level":"WARN"`); n != 4 || strings.Count(log, `"code":"security.`) != n ||
				!strings.Contains(log, `"code":"security.`+tc.signal+`"`) || strings.Contains(log, "guess") {
				t.Errorf("%d warnings in the log:\n%s", n, log)
			}
		})
	}
}
