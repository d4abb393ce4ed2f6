package oidcauth_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/gateway/identity"
	"crossfade/gateway/oidcauth"
)

// fresh signs a token that no cache knows.
func (w *world) fresh(key signingKey) string {
	return sign(key, nil, w.idp.good().with(object{"jti": fmt.Sprint(serial.Add(1))}))
}

var serial atomic.Int64

func TestAThousandInventedKeyIDsCauseOneFetchAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, newIDP(), nil)
		w.want(w.fresh(w.idp.keys[0]), identity.StatusVerified)
		for interval := range 5 {
			time.Sleep(oidcauth.DefaultMinRefresh)
			_, before := w.idp.counts()
			var flood sync.WaitGroup
			var unknown, throttled atomic.Int64
			for i := range 1000 {
				flood.Go(func() {
					time.Sleep(time.Duration(i) * time.Millisecond)
					a := w.v.Authenticate(t.Context(), credential(signRaw(signingKey{},
						fmt.Sprintf(`{"alg":"RS256","kid":"invented-%d-%d"}`, interval, i), encode(w.idp.good()))))
					switch a.Primary() {
					case identity.KidUnknown:
						unknown.Add(1)
					case identity.KidRefreshThrottled:
						throttled.Add(1)
					default:
						t.Errorf("reasons %v", a.Reasons)
					}
				})
			}
			w.want(w.fresh(w.idp.keys[0]), identity.StatusVerified)
			flood.Wait()
			if _, after := w.idp.counts(); after-before != 1 {
				t.Errorf("%d fetches in one interval", after-before)
			}
			if unknown.Load() == 0 || throttled.Load() == 0 || unknown.Load()+throttled.Load() != 1000 {
				t.Errorf("%d unknown, %d throttled", unknown.Load(), throttled.Load())
			}
		}
	})
}

func TestAFloodAtAColdStartCausesTwoFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, newIDP(), nil)
		for i := range 1000 { // the first fetch is the gateway's own, the second is the flood's
			w.v.Authenticate(t.Context(), credential(signRaw(signingKey{},
				fmt.Sprintf(`{"alg":"RS256","kid":"invented-%d"}`, i), encode(w.idp.good()))))
		}
		if _, fetches := w.idp.counts(); fetches > 2 {
			t.Errorf("%d fetches", fetches)
		}
		w.want(w.fresh(w.idp.keys[0]), identity.StatusVerified)
	})
}

func TestAFloodDelaysARotationByOneIntervalAndRejectsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, newIDP(), nil)
		w.want(w.fresh(w.idp.keys[0]), identity.StatusVerified)
		time.Sleep(oidcauth.DefaultMinRefresh)
		w.want(w.fresh(rsaKey("invented", 1)), identity.StatusRejected, identity.KidUnknown) // uses up the interval
		rotated := rsaKey("key-2", 2)
		w.idp.publish(w.idp.keys[0], rotated)
		w.want(w.fresh(rotated), identity.StatusUnavailable, identity.KidRefreshThrottled)
		time.Sleep(oidcauth.DefaultMinRefresh - time.Second)
		w.want(w.fresh(rotated), identity.StatusUnavailable, identity.KidRefreshThrottled)
		time.Sleep(time.Second)
		w.want(w.fresh(rotated), identity.StatusVerified)
	})
}

func TestRotationUnderLoadLosesNoRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newIDP(ecKey("key-0", 0))
		p.onFetch = func() { time.Sleep(150 * time.Millisecond) }
		w := newBubble(t, p, nil)
		var current atomic.Pointer[signingKey]
		first := p.keys[0]
		current.Store(&first)
		ctx, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		var served atomic.Int64
		for n := range 16 {
			load.Go(func() {
				time.Sleep(time.Duration(n) * time.Millisecond)
				for ctx.Err() == nil {
					a := w.v.Authenticate(t.Context(), credential(w.fresh(*current.Load())))
					if !a.OK() {
						t.Errorf("lost a request: %v %s", a.Reasons, a.Detail)
					}
					served.Add(1)
					time.Sleep(2003 * time.Millisecond)
				}
			})
		}
		for n := 1; n < 12; n++ {
			time.Sleep(time.Duration(5+8*(n%5)) * time.Second) // many well within MinRefresh
			key := ecKey(fmt.Sprint("key-", n), n)
			p.publish(key) // the old key is withdrawn in the same moment
			current.Store(&key)
		}
		time.Sleep(time.Minute)
		stop()
		load.Wait()
		if discovery, fetches := p.counts(); fetches < 12 || fetches > 18 || discovery > 2 {
			t.Errorf("%d fetches, %d discoveries for 12 key sets", fetches, discovery)
		}
		t.Logf("%d requests", served.Load())
	})
}

func TestAProviderThatIsDownAtStartIsAskedAgainWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newIDP()
		p.breakWith("down")
		var outcomes []error
		w := newBubble(t, p, func(_ *world, o *oidcauth.ProviderOptions) {
			o.OnRefresh = func(issuer string, err error) {
				if issuer != p.url {
					t.Errorf("refresh of %q", issuer)
				}
				outcomes = append(outcomes, err)
			}
		})
		begin := time.Now()
		var attempts []time.Duration
		for time.Since(begin) < 2*time.Minute {
			before, _ := p.counts()
			w.want(w.fresh(p.keys[0]), identity.StatusUnavailable, identity.JWKSUnavailable)
			if after, _ := p.counts(); after > before {
				attempts = append(attempts, time.Since(begin))
			}
			time.Sleep(100 * time.Millisecond)
		}
		want := []time.Duration{0, 1, 3, 7, 15, 31, 61, 91}
		for i := range want {
			want[i] *= time.Second
		}
		if fmt.Sprint(attempts) != fmt.Sprint(want) {
			t.Errorf("attempts at %v, want %v", attempts, want)
		}
		p.breakWith("")
		time.Sleep(30 * time.Second)
		w.want(w.fresh(p.keys[0]), identity.StatusVerified)
		synctest.Wait()
		if n := len(outcomes); n != len(want)+1 || outcomes[0] == nil || outcomes[n-1] != nil {
			t.Errorf("outcomes %v", outcomes)
		}
	})
}

func TestAHangingIssuerHoldsRequestsForOneTimeoutAndOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newIDP()
		p.breakWith("hang")
		w := newBubble(t, p, nil)
		begin := time.Now()
		var requests sync.WaitGroup
		for range 200 {
			requests.Go(func() {
				w.want(w.fresh(p.keys[0]), identity.StatusUnavailable, identity.JWKSUnavailable)
			})
		}
		requests.Wait()
		if took := time.Since(begin); took != oidcauth.DefaultTimeout {
			t.Errorf("took %s", took)
		}
		if discovery, _ := p.counts(); discovery != 1 {
			t.Errorf("%d requests to the issuer", discovery)
		}
		w.want(w.fresh(p.keys[0]), identity.StatusUnavailable, identity.JWKSUnavailable) // within the pause: at once
		if took := time.Since(begin); took != oidcauth.DefaultTimeout && took != 2*oidcauth.DefaultTimeout {
			t.Errorf("took %s", took)
		}
	})
}

func TestAClientThatHangsUpLeavesTheFetchToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newIDP()
		p.onFetch = func() { time.Sleep(2 * time.Second) }
		w := newBubble(t, p, nil)
		token := w.fresh(p.keys[0])
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var requests sync.WaitGroup
		requests.Go(func() { // leads the verification of this token
			a := w.v.Authenticate(impatient, credential(token))
			if a.Status != identity.StatusUnavailable {
				t.Errorf("the impatient client got %s", a.Status)
			}
		})
		synctest.Wait()
		for range 10 { // the same token: these wait for the leader, and then lead on
			requests.Go(func() { w.want(token, identity.StatusVerified) })
		}
		requests.Wait()
		if _, fetches := p.counts(); fetches != 1 {
			t.Errorf("%d fetches", fetches)
		}
	})
}

func TestKeysServeForADayWhileTheProviderIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, newIDP(), nil)
		key := w.idp.keys[0]
		w.want(w.fresh(key), identity.StatusVerified)
		for _, fault := range []string{"down", "garbage", "empty", "status", "hang", "huge"} {
			w.idp.breakWith(fault)
			for range 4 {
				time.Sleep(59 * time.Minute)
				begin := time.Now()
				w.want(w.fresh(key), identity.StatusVerified)
				// Only the first one after a healthy time waits for the refresh.
				if took := time.Since(begin); took != 0 && fault != "down" && fault != "hang" {
					t.Errorf("%s: waited %s", fault, took)
				}
				w.want(w.fresh(rsaKey("key-2", 1)), identity.StatusUnavailable, identity.JWKSUnavailable)
			}
		}
		time.Sleep(time.Hour)
		a := w.want(w.fresh(key), identity.StatusUnavailable, identity.JWKSUnavailable)
		if a.OK() || a.Principal.Name != "" {
			t.Error("keys older than a day verified a token")
		}
		w.idp.breakWith("")
		time.Sleep(time.Minute)
		w.want(w.fresh(key), identity.StatusVerified)
	})
}

func TestAWithdrawnKeyStopsVerifyingWhenTheSetIsOutOfDate(t *testing.T) {
	for name, c := range map[string]struct {
		header string
		age    time.Duration
	}{
		"without Cache-Control after 15 minutes": {"", 15 * time.Minute},
		"max-age counts":                         {"public, max-age=1200", 20 * time.Minute},
		"a short max-age is raised to 5 minutes": {"max-age=1", 5 * time.Minute},
		"a long max-age is cut to an hour":       {"max-age=86400", time.Hour},
		"no-store is taken as 5 minutes":         {"no-store", 5 * time.Minute},
		"a broken max-age is taken as 5 minutes": {"max-age=soon", 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newIDP(rsaKey("key-1", 0), rsaKey("key-2", 1))
				p.cache = c.header
				w := newBubble(t, p, nil)
				leaked := p.keys[0]
				w.want(w.fresh(leaked), identity.StatusVerified)
				p.publish(p.keys[1])
				time.Sleep(c.age*4/5 - time.Second)
				w.want(w.fresh(leaked), identity.StatusVerified)
				synctest.Wait()
				if _, fetches := p.counts(); fetches != 1 {
					t.Errorf("refreshed early: %d fetches", fetches)
				}
				time.Sleep(c.age/5 + time.Second)
				w.want(w.fresh(leaked), identity.StatusRejected, identity.KidUnknown)
			})
		})
	}
}

func TestARefreshInTheBackgroundKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newIDP()
		w := newBubble(t, p, nil)
		w.want(w.fresh(p.keys[0]), identity.StatusVerified)
		p.set(func(p *idp) { p.onFetch = func() { time.Sleep(time.Second) } })
		for range 20 {
			time.Sleep(13 * time.Minute)
			begin := time.Now()
			w.want(w.fresh(p.keys[0]), identity.StatusVerified)
			if took := time.Since(begin); took != 0 {
				t.Fatalf("waited %s", took)
			}
			time.Sleep(2 * time.Second)
		}
		if _, fetches := p.counts(); fetches != 21 {
			t.Errorf("%d fetches", fetches)
		}
	})
}

func TestAReloadForgetsNoKey(t *testing.T) {
	w := newWorld(t, newIDP(), nil)
	w.want(w.idp.token(w.idp.good()), identity.StatusVerified)
	w.idp.breakWith("down")
	reloaded, err := oidcauth.New(oidcauth.Options{Issuers: []oidcauth.Issuer{w.issuer}, Providers: w.providers, Now: w.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	token := credential(w.idp.token(w.idp.good().with(object{"jti": "after"})))
	if _, ok := reloaded.Cached(token); ok {
		t.Error("a judgement outlived its configuration")
	}
	if a := reloaded.Authenticate(t.Context(), token); !a.OK() {
		t.Errorf("reasons %v: %s", a.Reasons, a.Detail)
	}
}

func TestCloseEndsAFetchAndKeepsTheKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newIDP()
		w := newBubble(t, p, nil)
		w.want(w.fresh(p.keys[0]), identity.StatusVerified)
		p.breakWith("hang")
		time.Sleep(time.Minute)
		var request sync.WaitGroup
		request.Go(func() {
			w.want(w.fresh(rsaKey("key-2", 1)), identity.StatusUnavailable, identity.JWKSUnavailable)
		})
		synctest.Wait()
		begin := time.Now()
		w.providers.Close()
		request.Wait()
		if took := time.Since(begin); took != 0 {
			t.Errorf("Close took %s", took)
		}
		w.want(w.fresh(p.keys[0]), identity.StatusVerified)
		time.Sleep(time.Minute)
		w.want(w.fresh(rsaKey("key-2", 1)), identity.StatusUnavailable, identity.JWKSUnavailable)
	})
}

func TestTheDiscoveryDocumentMustBeTheIssuersOwn(t *testing.T) {
	for name, change := range map[string]func(*idp){
		"another issuer in the document":    func(p *idp) { p.issuerDoc = "https://evil.example.com" },
		"a slash too many in the document":  func(p *idp) { p.issuerDoc = p.url + "/" },
		"keys without TLS":                  func(p *idp) { p.jwksURI = "http://idp.example.com/keys" },
		"keys on loopback without TLS":      func(p *idp) { p.jwksURI = "http://127.0.0.1/keys" },
		"keys by another kind of URL":       func(p *idp) { p.jwksURI = "file:///etc/keys.json" },
		"a document larger than the bound":  func(p *idp) { p.fault = "huge" },
		"a document that is something else": func(p *idp) { p.fault = "garbage" },
	} {
		t.Run(name, func(t *testing.T) {
			p := newIDP()
			change(p)
			w := newWorld(t, p, nil)
			a := w.want(p.token(p.good()), identity.StatusUnavailable, identity.JWKSUnavailable)
			if _, fetches := p.counts(); fetches != 0 {
				t.Error("keys were fetched all the same")
			}
			if strings.HasPrefix(name, "keys") && !strings.Contains(a.Detail, "jwks_uri") {
				t.Errorf("the sentence %q does not name jwks_uri", a.Detail)
			}
		})
	}
}

func TestAnUnreachableDocumentLeavesTheKnownKeysURLInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newIDP()
		w := newBubble(t, p, nil)
		w.want(w.fresh(p.keys[0]), identity.StatusVerified)
		p.set(func(p *idp) { p.issuerDoc = "https://moved.example.com" })
		time.Sleep(2 * time.Hour)
		rotated := rsaKey("key-2", 1)
		p.publish(rotated)
		w.want(w.fresh(rotated), identity.StatusVerified)
	})
}

func TestKeysThatMoveAreDiscoveredAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newIDP()
		w := newBubble(t, p, nil)
		w.want(w.fresh(p.keys[0]), identity.StatusVerified)
		p.set(func(p *idp) { p.jwksURI, p.gone = p.url+"/new", "/keys" })
		rotated := rsaKey("key-2", 1)
		p.publish(rotated)
		time.Sleep(time.Minute)
		w.want(w.fresh(rotated), identity.StatusUnavailable, identity.JWKSUnavailable)
		time.Sleep(oidcauth.DefaultMinRefresh)
		w.want(w.fresh(rotated), identity.StatusVerified)
	})
}

func TestARotationShowsToTokensWithoutKeyID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, newIDP(rsaKey("", 0)), nil)
		w.want(w.fresh(rsaKey("", 0)), identity.StatusVerified)
		w.idp.publish(rsaKey("", 1))
		w.want(w.fresh(rsaKey("", 1)), identity.StatusVerified)
		w.want(w.fresh(rsaKey("", 2)), identity.StatusRejected, identity.SignatureInvalid)
		w.idp.publish(rsaKey("", 0))
		// Too soon to ask again, so it cannot be called a forgery.
		w.want(w.fresh(rsaKey("", 0)), identity.StatusUnavailable, identity.KidRefreshThrottled)
		time.Sleep(oidcauth.DefaultMinRefresh)
		w.want(w.fresh(rsaKey("", 0)), identity.StatusVerified)
	})
}

func TestAKeysURLSkipsDiscovery(t *testing.T) {
	p := newIDP()
	w := newWorld(t, p, func(w *world) { w.issuer.JWKSURL = "https://idp.example.com/certs?appid=1" })
	w.want(p.token(p.good()), identity.StatusVerified)
	if discovery, fetches := p.counts(); discovery != 0 || fetches != 1 {
		t.Errorf("%d discoveries, %d fetches", discovery, fetches)
	}
}

func TestProbeSaysWhatItSaw(t *testing.T) {
	p := newIDP(rsaKey("key-1", 0), ecKey("key-2", 0))
	w := newWorld(t, p, func(w *world) { w.issuer.Algorithms = []string{"PS256", "EdDSA"} })
	got := w.v.Probe(t.Context())
	if len(got) != 1 || got[0].Err != nil || got[0].JWKSURL != p.url+"/keys" || got[0].Preset != "generic" {
		t.Fatalf("%+v", got)
	}
	if want := "[{key-1 RSA 2048 RS256} {key-2 EC P-256 ES256}]"; fmt.Sprint(got[0].Keys) != want {
		t.Errorf("keys %v, want %s", got[0].Keys, want)
	}
	if len(got[0].Warnings) != 2 {
		t.Errorf("warnings %q", got[0].Warnings)
	}
	p.breakWith("down")
	got = w.v.Probe(t.Context())
	if got[0].Err == nil || errors.Is(got[0].Err, context.Canceled) {
		t.Errorf("error %v", got[0].Err)
	}
}
