package token_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"crossfade/gateway/agent/token"
)

// provider issues tokens as its fields say. It is a Source.
type provider struct {
	mu    sync.Mutex
	life  time.Duration // 0 for unknown
	takes time.Duration
	err   error
	asked int
	at    []time.Time
	issue func(now time.Time, n int) token.Token // nil for opaque ones with life
}

func (p *provider) Token(ctx context.Context, _ token.Request) (token.Token, error) {
	p.mu.Lock()
	p.asked++
	n, takes := p.asked, p.takes
	started := time.Now()
	p.at = append(p.at, started)
	p.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return token.Token{}, ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return token.Token{}, p.err
	}
	if p.issue != nil {
		return p.issue(time.Now(), n), nil
	}
	t := token.Token{Value: secret(fmt.Sprint("token-", n)), Obtained: started}
	if p.life != 0 {
		t.Expiry = started.Add(p.life)
	}
	return t, nil
}

func (p *provider) set(change func(*provider)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func (p *provider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func keep(t *testing.T, o token.KeeperOptions) *token.Keeper {
	t.Helper()
	k, err := token.NewKeeper(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// wantToken returns the token that the keeper has.
func wantToken(t *testing.T, k *token.Keeper) string {
	t.Helper()
	got, err := k.Token(t.Context())
	if err != nil {
		t.Fatalf("no token: %v", err)
	}
	return got.Value.Reveal()
}

var errAway = errors.New("the provider is away")

func TestAThousandCallersCauseOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{life: time.Hour, takes: 3 * time.Second}
		k := keep(t, token.KeeperOptions{Source: p})
		for range 2 {
			var callers sync.WaitGroup
			for range 1000 {
				callers.Go(func() {
					if got, err := k.Token(t.Context()); err != nil || got.Value.Reveal() != fmt.Sprint("token-", p.count()) {
						t.Errorf("got %v", err)
					}
				})
			}
			callers.Wait()
			p.set(func(p *provider) { p.takes = 0 })
		}
		if p.count() != 1 {
			t.Errorf("%d fetches", p.count())
		}
	})
}

func TestAThousandCallersOfAProviderThatIsAwayCauseOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{err: errAway, takes: time.Second / 2}
		k := keep(t, token.KeeperOptions{Source: p})
		for range 2 { // those who wait, and those who come just after
			var callers sync.WaitGroup
			for range 1000 {
				callers.Go(func() {
					if _, err := k.Token(t.Context()); !errors.Is(err, errAway) {
						t.Errorf("got %v", err)
					}
				})
			}
			callers.Wait()
		}
		if p.count() != 1 {
			t.Errorf("%d fetches", p.count())
		}
	})
}

func TestATokenIsRefreshedAtTwoThirdsOfItsLifeGiveOrTakeATenth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{life: time.Hour}
		k := keep(t, token.KeeperOptions{Source: p})
		wantToken(t, k)
		time.Sleep(50 * time.Hour)
		synctest.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		seen := map[time.Duration]bool{}
		for i, at := range p.at[1:] {
			after := at.Sub(p.at[i])
			seen[after] = true
			if after < 36*time.Minute || after > 44*time.Minute {
				t.Errorf("refreshed after %s", after)
			}
		}
		if len(p.at) < 60 || len(seen) < 10 {
			t.Errorf("%d refreshes at %d different ages", len(p.at), len(seen))
		}
	})
}

func TestNobodyNoticesAProviderThatIsAwayForLessThanTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{life: time.Hour}
		k := keep(t, token.KeeperOptions{Source: p})
		wantToken(t, k)
		time.Sleep(30 * time.Minute)
		p.set(func(p *provider) { p.err = errAway })
		for range 29 * 6 {
			time.Sleep(10 * time.Second)
			if got := wantToken(t, k); got != "token-1" {
				t.Fatalf("got %s", got)
			}
		}
		if n := p.count(); n < 30 || n > 80 {
			t.Errorf("%d attempts: the back-off ends at 30 s", n)
		}
		p.set(func(p *provider) { p.err = nil })
		time.Sleep(30 * time.Second)
		if got := wantToken(t, k); got == "token-1" {
			t.Error("the provider is back and was not asked")
		}
	})
}

func TestAProviderThatIsAwayForLongerFailsClosedWithItsError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{life: time.Hour}
		k := keep(t, token.KeeperOptions{Source: p})
		wantToken(t, k)
		p.set(func(p *provider) { p.err = errAway })
		time.Sleep(time.Hour - 6*time.Second)
		wantToken(t, k)
		time.Sleep(2 * time.Second)
		before := time.Now()
		if _, err := k.Token(t.Context()); !errors.Is(err, errAway) {
			t.Fatalf("got %v", err)
		}
		if waited := time.Since(before); waited > time.Second {
			t.Errorf("said so after %s", waited)
		}
		time.Sleep(15 * time.Second)
		p.set(func(p *provider) { p.err = nil })
		before = time.Now()
		if _, err := k.Token(t.Context()); err != nil && time.Since(before) > 0 {
			t.Fatalf("a caller without a token has the provider asked at once: %v after %s", err, time.Since(before))
		}
		time.Sleep(time.Second)
		wantToken(t, k)
	})
}

func TestBackOffDoublesToHalfAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{err: errAway}
		keep(t, token.KeeperOptions{Source: p})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		want := time.Second
		for i, at := range p.at[1:] {
			if pause := at.Sub(p.at[i]); pause > want || pause < max(want*3/4, time.Second) {
				t.Errorf("pause %d was %s, want %s less up to a quarter", i, pause, want)
			}
			if want *= 2; want > 30*time.Second {
				want = 30 * time.Second
			}
		}
		if len(p.at) < 20 {
			t.Errorf("%d attempts in ten minutes", len(p.at))
		}
	})
}

func TestNoLifeIsShortEnoughToSpin(t *testing.T) {
	for name, life := range map[string]time.Duration{
		"three seconds": 3 * time.Second, "one second": time.Second, "a millisecond": time.Millisecond,
		"a nanosecond": 1, "over already": -time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &provider{life: life}
				k := keep(t, token.KeeperOptions{Source: p})
				good := 0
				for range 600 {
					ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
					got, err := k.Token(ctx)
					cancel()
					if err == nil {
						good++
						if !time.Now().Before(got.Expiry) {
							t.Fatal("handed out an expired token")
						}
					}
					time.Sleep(100 * time.Millisecond)
				}
				if n := p.count(); n > 121 {
					t.Errorf("%d fetches in at most two minutes", n)
				}
				if (good > 0) != (life > 0) {
					t.Errorf("%d tokens of %s", good, life)
				}
			})
		})
	}
}

func TestATokenOfUnknownLifeIsFetchedAnewEveryFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{}
		k := keep(t, token.KeeperOptions{Source: p})
		wantToken(t, k)
		time.Sleep(5*time.Minute + 31*time.Second)
		if got := wantToken(t, k); got != "token-2" {
			t.Errorf("got %s", got)
		}
		p.set(func(p *provider) { p.err = errAway })
		time.Sleep(8 * time.Minute)
		if _, err := k.Token(t.Context()); !errors.Is(err, errAway) {
			t.Errorf("got %v, and nobody vouches for the token any more", err)
		}
	})
}

func TestTheClaimIsJudgedByTheGatewaysClock(t *testing.T) {
	issue := func(ahead time.Duration) func(time.Time, int) token.Token {
		return func(now time.Time, n int) token.Token {
			exp := now.Add(ahead + 10*time.Minute)
			return token.Token{Value: secret(jwtUntil(exp, fmt.Sprint(n))), Expiry: exp}
		}
	}
	t.Run("a gateway that is ahead ends a token early", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &provider{issue: issue(0)}
			k := keep(t, token.KeeperOptions{Source: p})
			first := wantToken(t, k)
			k.SetSkew(9*time.Minute + 54*time.Second)
			if got := wantToken(t, k); got != first {
				t.Error("refreshed although it is good for six seconds more")
			}
			p.set(func(p *provider) { p.err = errAway })
			time.Sleep(6 * time.Second)
			if _, err := k.Token(t.Context()); !errors.Is(err, errAway) {
				t.Errorf("got %v", err)
			}
		})
	})
	t.Run("a gateway that is behind lets a token of the past be good", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &provider{issue: issue(-time.Hour)}
			k := keep(t, token.KeeperOptions{Source: p})
			if _, err := k.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "the clock of this machine is wrong") {
				t.Fatalf("got %v", err)
			}
			k.SetSkew(-time.Hour)
			time.Sleep(time.Second)
			wantToken(t, k)
		})
	})
	t.Run("what was said in seconds does not depend on clocks", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &provider{life: 10 * time.Minute}
			k := keep(t, token.KeeperOptions{Source: p})
			k.SetSkew(time.Hour)
			if got := wantToken(t, k); got != "token-1" {
				t.Errorf("got %s", got)
			}
			k.SetSkew(-time.Hour)
			p.set(func(p *provider) { p.err = errAway })
			time.Sleep(10 * time.Minute)
			if _, err := k.Token(t.Context()); !errors.Is(err, errAway) {
				t.Errorf("got %v", err)
			}
		})
	})
}

func TestACallerWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{life: time.Hour, takes: 10 * time.Second}
		k := keep(t, token.KeeperOptions{Source: p})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		before := time.Now()
		if _, err := k.Token(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(before) != 3*time.Second {
			t.Errorf("got %v after %s", err, time.Since(before))
		}
		if got := wantToken(t, k); got != "token-1" || time.Since(before) != 10*time.Second {
			t.Errorf("got %s after %s: the attempt goes on without its caller", got, time.Since(before))
		}
	})
}

func TestACallerThatGaveUpIsToldWhatFailedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{err: errAway}
		k := keep(t, token.KeeperOptions{Source: p})
		if _, err := k.Token(t.Context()); !errors.Is(err, errAway) {
			t.Fatal(err)
		}
		p.set(func(p *provider) { p.takes = 10 * time.Second })
		time.Sleep(1100 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := k.Token(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errAway) {
			t.Errorf("got %v", err)
		}
	})
}

func TestACallerDuringAnAttemptWaitsForItsOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{err: errAway, life: time.Hour}
		k := keep(t, token.KeeperOptions{Source: p})
		if _, err := k.Token(t.Context()); !errors.Is(err, errAway) {
			t.Fatal(err)
		}
		p.set(func(p *provider) { p.err, p.takes = nil, 10*time.Second })
		time.Sleep(1100 * time.Millisecond) // the second attempt has just begun
		if got := wantToken(t, k); got != "token-2" {
			t.Errorf("got %s", got)
		}
	})
}

func TestATokenOfNothingIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, token.KeeperOptions{Source: sourceFunc(func(context.Context) (token.Token, error) { return token.Token{}, nil })})
		if _, err := k.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "its source returned an empty one") {
			t.Errorf("got %v", err)
		}
	})
}

func TestASourceThatHangsIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{life: time.Hour, takes: time.Hour}
		k := keep(t, token.KeeperOptions{Source: p, Timeout: 7 * time.Second})
		before := time.Now()
		if _, err := k.Token(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(before) != 7*time.Second {
			t.Errorf("got %v after %s", err, time.Since(before))
		}
	})
}

func TestCloseEndsAllThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{life: time.Hour, takes: 10 * time.Second}
		k, err := token.NewKeeper(token.KeeperOptions{
			Source: p, OnRefresh: func(error, time.Time) { t.Error("told of an attempt that was ended") },
		})
		if err != nil {
			t.Fatal(err)
		}
		waited := make(chan error)
		go func() {
			_, err := k.Token(t.Context())
			waited <- err
		}()
		synctest.Wait()
		for range 2 {
			if err := k.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := <-waited; !errors.Is(err, token.ErrClosed) {
			t.Errorf("got %v", err)
		}
		if _, err := k.Token(t.Context()); !errors.Is(err, token.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestEachAttemptIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type told struct {
			err    error
			expiry time.Time
		}
		var all []told
		p := &provider{err: errAway, life: time.Hour}
		k := keep(t, token.KeeperOptions{Source: p, OnRefresh: func(err error, expiry time.Time) { all = append(all, told{err, expiry}) }})
		synctest.Wait()
		p.set(func(p *provider) { p.err = nil })
		time.Sleep(1100 * time.Millisecond)
		got, err := k.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(all) != 2 || !errors.Is(all[0].err, errAway) || !all[0].expiry.IsZero() || all[1].err != nil || !all[1].expiry.Equal(got.Expiry) {
			t.Errorf("told %v", all)
		}
	})
}

func TestAKeeperWithoutASourceIsRefused(t *testing.T) {
	if _, err := token.NewKeeper(token.KeeperOptions{}); err == nil {
		t.Error("no source was accepted")
	}
	if _, err := token.NewKeeper(token.KeeperOptions{Source: &provider{}, Timeout: -1}); err == nil {
		t.Error("a negative time-out was accepted")
	}
}

// TestATokenIsNeverHandedOutExpired lets a provider do anything: fail, hang,
// issue tokens that are over, lie about their life, and lets the gateway's clock
// be anywhere.
func TestATokenIsNeverHandedOutExpired(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		type step struct {
			said, claim, takes time.Duration
			fails              bool
		}
		life := rapid.Custom(func(r *rapid.T) time.Duration {
			return rapid.SampledFrom([]time.Duration{0, -time.Hour, -1, 1, time.Second, 4 * time.Second, time.Minute, 10 * time.Minute, 24 * time.Hour}).Draw(r, "life")
		})
		steps := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) step {
			return step{
				said: life.Draw(r, "said"), claim: life.Draw(r, "claim"),
				takes: time.Duration(rapid.IntRange(0, 20).Draw(r, "takes")) * time.Second,
				fails: rapid.IntRange(0, 2).Draw(r, "fails") == 0,
			}
		}), 1, 20).Draw(r, "steps")
		waits := rapid.SliceOfN(rapid.Int64Range(0, int64(15*time.Minute)), 1, 60).Draw(r, "waits")
		skew := time.Duration(rapid.Int64Range(int64(-time.Hour), int64(time.Hour)).Draw(r, "skew"))
		problem := "" // rapid cannot be stopped from within a bubble
		synctest.Test(t, func(*testing.T) {
			type truth struct{ said, claim time.Time }
			var mu sync.Mutex
			issued := map[string]truth{}
			n := 0
			source := sourceFunc(func(ctx context.Context) (token.Token, error) {
				mu.Lock()
				s := steps[n%len(steps)]
				n++
				id := fmt.Sprint(n)
				mu.Unlock()
				started := time.Now()
				select {
				case <-time.After(s.takes):
				case <-ctx.Done():
					return token.Token{}, ctx.Err()
				}
				if s.fails {
					return token.Token{}, errAway
				}
				value, is := "opaque-"+id, truth{}
				out := token.Token{}
				if s.said != 0 {
					is.said = started.Add(s.said)
					out.Expiry = is.said
				}
				if s.claim != 0 {
					is.claim = started.Add(skew + s.claim).Truncate(time.Second)
					value = jwtUntil(is.claim, id)
					if s.said == 0 {
						out.Expiry = is.claim
					}
				}
				out.Value = secret(value)
				mu.Lock()
				issued[value] = is
				mu.Unlock()
				return out, nil
			})
			k, err := token.NewKeeper(token.KeeperOptions{Source: source})
			if err != nil {
				problem = err.Error()
				return
			}
			defer k.Close()
			k.SetSkew(skew)
			for _, wait := range waits {
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				got, err := k.Token(ctx)
				cancel()
				if err == nil {
					mu.Lock()
					is := issued[got.Value.Reveal()]
					mu.Unlock()
					if now := time.Now(); !is.said.IsZero() && !now.Before(is.said) {
						problem = fmt.Sprintf("a token whose issuer said that it ended %s ago", now.Sub(is.said))
					} else if gateway := now.Add(skew); !is.claim.IsZero() && !gateway.Before(is.claim) {
						problem = fmt.Sprintf("a token that the gateway took for over %s ago", gateway.Sub(is.claim))
					}
				}
				time.Sleep(time.Duration(wait))
			}
		})
		if problem != "" {
			r.Fatal(problem)
		}
	})
}

// sourceFunc is a Source.
type sourceFunc func(context.Context) (token.Token, error)

func (f sourceFunc) Token(ctx context.Context, _ token.Request) (token.Token, error) { return f(ctx) }
