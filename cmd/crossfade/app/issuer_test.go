package app_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"crossfade/cmd/crossfade/app"
)

// relay stands between the gateway and the keys of the identity provider.
type relay struct {
	*httptest.Server
	// state is what it does with a request: pass it on, answer 500, or hang.
	state   atomic.Int32
	fetches atomic.Int32
}

const (
	passes int32 = iota
	fails
	hangs
)

func (s *site) relayKeys(state int32) *relay {
	s.t.Helper()
	to, err := url.Parse(s.issuer.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	transport := &http.Transport{}
	s.t.Cleanup(transport.CloseIdleConnections)
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport = transport
	k := &relay{}
	k.state.Store(state)
	k.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.fetches.Add(1)
		switch k.state.Load() {
		case fails:
			w.WriteHeader(http.StatusInternalServerError)
		case hangs:
			<-r.Context().Done()
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
	s.t.Cleanup(k.Close)
	s.configure("oidc", fmt.Sprintf("{ issuer: %s, audience: %s, jwks_url: %s/keys }", s.issuer.URL(), audience, k.URL))
	return k
}

// atOnce fetches keys as often as they are wanted.
func atOnce(o *app.Options) { o.Keys.MinRefresh = time.Millisecond }

// impatient shortens the times of fetching keys.
func impatient(o *app.Options) {
	atOnce(o)
	o.Keys.Timeout = 500 * time.Millisecond
}

func TestAnIssuerThatIsAwayHoldsNothingUpButItsTokens(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]int32{"that fails": fails, "that hangs": hangs} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			keys := s.relayKeys(state)
			g := s.start(impatient).loaded()
			if got := g.fetch("/readyz"); got.status != 200 {
				t.Errorf("/readyz: %v", got)
			}
			token := s.token("svc-etl", audience)
			for _, q := range []request{pages(), ping("w")} {
				q.bearer = token
				got := g.send(q)
				if got.status != 503 || got.header.Get("Crossfade-Reason") != "jwks_unavailable" || got.header.Get("Retry-After") == "" {
					t.Errorf("a token for %s: %v", q.path, got)
				}
				if strings.Contains(got.body, "signature") {
					t.Errorf("an outage is called a forgery: %s", got.body)
				}
				q.bearer, q.companion = "", token
				if got := g.send(etl(q)); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
					t.Errorf("a password with a companion for %s: %v", q.path, got)
				}
			}
			bad := pages()
			bad.bearer = "a.b.c"
			if got := g.send(bad); got.status != 401 {
				t.Errorf("what is no token needs no keys: %v", got)
			}
			s.eventually("the companions are indeterminate, which is no mismatch", func() bool {
				return g.metric(`crossfade_shadow_verdicts_total{evidence="client",team="data-eng",verdict="indeterminate"}`) == "2"
			})

			keys.state.Store(passes)
			good := pages()
			good.bearer = token
			s.eventually("the token is good as soon as the keys are there", func() bool { return g.send(good).status == 200 })

			keys.state.Store(state)
			if got := g.send(good); got.status != 200 {
				t.Errorf("keys that were fetched serve on: %v", got)
			}
		})
	}
}

func TestAnIssuerThatRefusesConnectionsIsFoundLater(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ownIssuer()
	token := s.token("svc-etl", audience)
	if err := s.issuer.Close(); err != nil {
		t.Fatal(err)
	}
	g := s.start(impatient).loaded()
	ask := pages()
	ask.bearer = token
	if got := g.send(ask); got.status != 503 || got.header.Get("Crossfade-Reason") != "jwks_unavailable" {
		t.Errorf("discovery of an issuer that is down: %v", got)
	}
	if got := g.send(etl(pages())); got.status != 200 {
		t.Errorf("a password: %v", got)
	}
	if n := g.metric(fmt.Sprintf(`crossfade_jwks_refresh_total{issuer="%s",result="error"}`, s.issuer.URL())); n != "1" {
		t.Errorf("%q failed fetches are counted, want 1", n)
	}
}

func TestARotationOfKeysUnderLoadLosesNoRequest(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ownIssuer()
	keys := s.relayKeys(passes)
	g := s.start(atOnce).loaded()
	const clients, rotations = 8, 3
	done := make(chan struct{})
	answered := make(chan struct{}, clients)
	var load sync.WaitGroup
	for i := range clients {
		load.Go(func() {
			for n := i; ; n++ {
				token, err := s.issuer.Token(t.Context(), "svc-etl", audience)
				if err != nil {
					t.Error(err)
					return
				}
				q := [...]request{
					{method: http.MethodGet, path: "/api/task_list", bearer: token},
					etl(request{method: http.MethodGet, path: "/api/task_list", companion: token}),
					{method: http.MethodPost, path: "/api/ping", body: ping("w").body, bearer: token},
				}[n%3]
				if got := g.send(q); got.status != 200 || got.header.Get("Crossfade-Reason") != "" {
					t.Errorf("lost: %v", got)
				}
				select {
				case answered <- struct{}{}:
				case <-done:
					return
				}
			}
		})
	}
	for range rotations {
		// Between two rotations everybody gets something with the new key.
		for range 5 * clients {
			<-answered
		}
		if err := s.issuer.Rotate(); err != nil {
			t.Error(err)
		}
	}
	for range 5 * clients {
		<-answered
	}
	close(done)
	load.Wait()
	if n := keys.fetches.Load(); n < 1+rotations {
		t.Errorf("the keys were fetched %d times in %d rotations", n, rotations)
	}
	s.eventually("every companion was judged good", func() bool {
		return g.metric(`crossfade_shadow_verdicts_total{evidence="client",team="data-eng",verdict="match_allow"}`) > "0"
	})
	if n := g.metric(`crossfade_shadow_verdicts_total{evidence="client",team="data-eng",verdict="indeterminate"}`); n != "0" {
		t.Errorf("%s companions could not be judged", n)
	}
}
