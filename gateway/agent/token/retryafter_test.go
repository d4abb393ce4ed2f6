package token_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/gateway/agent/token"
)

func TestWhenAProviderWantsToBeAskedAgainIsRead(t *testing.T) {
	const date = "Fri, 02 Jan 2026 10:00:00 GMT"
	for name, c := range map[string]struct {
		status int
		header map[string]string
		want   time.Duration
		said   string
	}{
		"seconds":                              {429, map[string]string{"Retry-After": "90"}, 90 * time.Second, "429 Too Many Requests; it does not want to be asked again for 1m30s"},
		"seconds while it is being maintained": {503, map[string]string{"Retry-After": " 5 "}, 5 * time.Second, "asked again for 5s"},
		"a date, by its own clock":             {503, map[string]string{"Date": date, "Retry-After": "Fri, 02 Jan 2026 10:02:00 GMT"}, 2 * time.Minute, "asked again for 2m0s"},
		"a date of RFC 850":                    {429, map[string]string{"Date": date, "Retry-After": "Friday, 02-Jan-26 10:00:07 GMT"}, 7 * time.Second, "asked again for 7s"},
		"a date that is over":                  {503, map[string]string{"Date": date, "Retry-After": "Fri, 02 Jan 2026 09:00:00 GMT"}, 0, ""},
		"a year":                               {429, map[string]string{"Retry-After": "31536000"}, 24 * time.Hour, "24h0m0s"},
		"more than a number holds":             {429, map[string]string{"Retry-After": strings.Repeat("9", 30)}, 24 * time.Hour, "24h0m0s"},
		"at once":                              {429, map[string]string{"Retry-After": "0"}, 0, ""},
		"less than nothing":                    {429, map[string]string{"Retry-After": "-5"}, 0, ""},
		"a fraction":                           {429, map[string]string{"Retry-After": "1.5"}, 0, ""},
		"words":                                {429, map[string]string{"Retry-After": "later"}, 0, ""},
		"nothing":                              {429, nil, 0, ""},
		"a refusal that waiting will not heal": {401, map[string]string{"Retry-After": "90"}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, httptest.NewServer)
			s.status, s.answer, s.header = c.status, "", c.header
			_, err := source(t, "client_credentials", s.withSecret(t)).Token(t.Context(), token.Request{})
			var refused *token.Refusal
			if !errors.As(err, &refused) || refused.Status != c.status || refused.RetryAfter != c.want {
				t.Fatalf("got %v: %+v, want %s", err, refused, c.want)
			}
			if !strings.Contains(err.Error(), c.said) || (c.said == "") == strings.Contains(err.Error(), "asked again") {
				t.Errorf("got %v, want one that says %q", err, c.said)
			}
		})
	}
}

func TestADateIsHeldAgainstThisClockWhereTheProviderShowsNone(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = nil
		w.Header().Set("Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer s.Close()
	_, err := source(t, "client_credentials", token.Params{TokenURL: s.URL, ClientID: "a", SecretFile: file(t, "b")}).Token(t.Context(), token.Request{})
	var refused *token.Refusal
	if !errors.As(err, &refused) || refused.RetryAfter > time.Hour || refused.RetryAfter < 59*time.Minute {
		t.Errorf("got %v: %+v", err, refused)
	}
}

func TestEveryServerThatIsAskedCanWantToBeLeftAlone(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("Retry-After", "90")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	device, err := token.NewDevice(token.Params{Issuer: s.URL, ClientID: "crossfade-cli"})
	if err != nil {
		t.Fatal(err)
	}
	of := func(kind string, p token.Params) func() error {
		return func() error {
			_, err := source(t, kind, p).Token(t.Context(), token.Request{Audience: "luigi"})
			return err
		}
	}
	for name, ask := range map[string]func() error{
		"metadata":            of("client_credentials", token.Params{Issuer: s.URL, ClientID: "a", SecretFile: file(t, "b")}),
		"a job of GitHub":     of("github_actions", token.Params{Getenv: environment(map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": s.URL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "a"})}),
		"the metadata server": of("gcp", token.Params{Getenv: environment(map[string]string{"GCE_METADATA_HOST": host})}),
		"a login": func() error {
			_, err := device.Login(t.Context(), token.Request{}, func(token.Prompt) {})
			return err
		},
		"a revocation": func() error {
			return device.Revoke(t.Context(), token.Session{Issuer: s.URL, ClientID: "crossfade-cli", Refresh: secret("r")})
		},
	} {
		asked = 0
		err := ask()
		var refused *token.Refusal
		if !errors.As(err, &refused) || refused.RetryAfter != 90*time.Second || asked != 1 {
			t.Errorf("%s: asked %d times, got %v", name, asked, err)
		}
	}
}

// leaveAlone is the answer of a provider that has too much to do.
func leaveAlone(wait time.Duration) error {
	return fmt.Errorf("obtain a token: %w", &token.Refusal{Status: http.StatusTooManyRequests, RetryAfter: wait})
}

// gaps are the times between attempts.
func (p *provider) gaps() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var gaps []time.Duration
	for i := range p.at[1:] {
		gaps = append(gaps, p.at[i+1].Sub(p.at[i]))
	}
	return gaps
}

func TestAProviderIsLeftAloneForAsLongAsItAsks(t *testing.T) {
	for name, c := range map[string]struct{ asked, least, most time.Duration }{
		"a minute and a half":        {90 * time.Second, 90 * time.Second, 99 * time.Second},
		"longer than anybody can be": {24 * time.Hour, 5 * time.Minute, 330 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &provider{err: leaveAlone(c.asked)}
				keep(t, token.KeeperOptions{Source: p})
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				gaps, seen := p.gaps(), map[time.Duration]bool{}
				for _, gap := range gaps {
					seen[gap] = true
					if gap < c.least || gap > c.most {
						t.Errorf("asked again after %s", gap)
					}
				}
				if len(gaps) < 20 || len(seen) < 10 {
					t.Errorf("%d attempts, %d different pauses", len(gaps), len(seen))
				}
			})
		})
	}
}

func TestLessThanTheBackOffIsNoReasonToHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{err: leaveAlone(time.Second)}
		keep(t, token.KeeperOptions{Source: p})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		for i, gap := range p.gaps() {
			if i > 5 && gap < 22*time.Second {
				t.Errorf("pause %d was %s", i, gap)
			}
		}
	})
}

func TestACallerWithoutATokenHasAProviderAskedThatWantsToBeLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{err: leaveAlone(5 * time.Minute)}
		k := keep(t, token.KeeperOptions{Source: p})
		if _, err := k.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "asked again for 5m0s") {
			t.Errorf("got %v", err)
		}
		p.set(func(p *provider) { p.err = nil })
		time.Sleep(10 * time.Second)
		wantToken(t, k)
	})
}

func TestATokenDoesNotEndUntriedBecauseItsProviderWantsToBeLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{life: 3 * time.Minute}
		k := keep(t, token.KeeperOptions{Source: p})
		wantToken(t, k)
		p.set(func(p *provider) { p.err = leaveAlone(5 * time.Minute) })
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		gaps := p.gaps()
		var total time.Duration
		for _, gap := range gaps {
			total += gap
		}
		// At two thirds, and then 15 s, an attempt's time, before the last 5 s.
		if len(gaps) != 2 || total != 160*time.Second {
			t.Fatalf("attempts after %v", gaps)
		}
		p.set(func(p *provider) { p.err = nil })
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		gaps = p.gaps()
		if gap := gaps[2]; gap < 5*time.Minute || gap > 330*time.Second {
			t.Errorf("without a token and unasked it was tried again after %s", gap)
		}
	})
}

func TestATokenIsSavedByItsLastChance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{life: 3 * time.Minute}
		k := keep(t, token.KeeperOptions{Source: p})
		wantToken(t, k)
		p.set(func(p *provider) { p.err = leaveAlone(5 * time.Minute) })
		time.Sleep(150 * time.Second)
		p.set(func(p *provider) { p.err = nil })
		time.Sleep(20 * time.Second)
		if got := wantToken(t, k); got == "token-1" || p.count() != 3 {
			t.Errorf("got %s after %d attempts", got, p.count())
		}
	})
}
