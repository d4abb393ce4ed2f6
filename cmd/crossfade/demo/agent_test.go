package demo_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi/captures"
)

// startAgent starts an agent of svc-etl in front of a gateway; what it says goes
// to said.
func startAgent(t *testing.T, gateway http.Handler, secret string, said func(string)) (*demo.Agent, *gate) {
	t.Helper()
	issuer, _, _ := startIssuer(t)
	g := &gate{next: gateway}
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := demo.NewAgent(t.Context(), demo.AgentOptions{
		Gateway: server.URL, Issuer: issuer.URL(), ClientID: "svc-etl", SecretFile: file, Audience: "luigi", Say: said,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a, g
}

func through(t *testing.T, a *demo.Agent, capture string) []demo.Result {
	t.Helper()
	own := &http.Transport{}
	defer own.CloseIdleConnections()
	var got results
	traffic, err := demo.NewTraffic(demo.TrafficOptions{
		Capture: capture, BaseURL: "http://127.0.0.1:1", Client: &http.Client{Transport: own}, Loops: 1, OnResult: got.add,
		User: "svc-etl", Password: identity.NewSecret("legacy-pass"), Through: func(int) string { return a.URL() },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := traffic.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return got.all
}

func TestAnAgentPutsATokenBesideThePasswordOfItsWorkers(t *testing.T) {
	t.Parallel()
	a, g := startAgent(t, newScheduler(t), "etl: sécret/%", func(text string) { t.Errorf("it says %s", text) })
	for _, r := range through(t, a, captures.Success) {
		if r.Status != 200 || r.Reason != "" || r.Ended || r.Err != nil {
			t.Errorf("result %+v", r)
		}
	}
	sent := map[string]int{}
	for _, s := range g.seen {
		user, _, _ := (&http.Request{Header: s.header}).BasicAuth()
		token := s.header.Get("Crossfade-Token")
		sent[user+" "+token]++
		if strings.Count(token, ".") != 2 || !strings.HasPrefix(s.header.Get("User-Agent"), "python-requests/") {
			t.Errorf("%s: token %q, user agent %q", s.line, token, s.header.Get("User-Agent"))
		}
	}
	if len(sent) != 1 || a.Fetched() != 1 {
		t.Errorf("%d pairs of credentials, %d tokens fetched, want one of each", len(sent), a.Fetched())
	}
}

func TestARefusalThroughAnAgentEndsTheRunAndIsSaidOnce(t *testing.T) {
	t.Parallel()
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Crossfade-Reason", "aud_mismatch")
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"reason": "aud_mismatch", "message": "The token is for somebody else."}`)
	})
	var mu sync.Mutex
	var said []string
	a, _ := startAgent(t, refuse, "etl: sécret/%", func(text string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, text)
	})
	got := through(t, a, captures.Contention)
	if len(got) != 2 { // two workers, one attempt each
		t.Errorf("%d results, want 2", len(got))
	}
	for _, r := range got {
		if r.Status != 200 || r.Reason != identity.AudMismatch || !r.Ended {
			t.Errorf("result %+v", r)
		}
	}
	want := []string{"crossfade agent: REFUSED aud_mismatch: the token is for somebody else.\n  The agent sent a token beside the worker's own credential.\n"}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("what it said (-want +got):\n%s", diff)
	}
}

func TestAnAgentThatCannotStartSaysWhose(t *testing.T) {
	t.Parallel()
	good := demo.AgentOptions{Gateway: "http://127.0.0.1:1", Issuer: "http://127.0.0.1:1", ClientID: "svc-etl", SecretFile: "x", Audience: "luigi"}
	for name, change := range map[string]func(*demo.AgentOptions){
		"without a gateway":                 func(o *demo.AgentOptions) { o.Gateway = "" },
		"with a gateway that is no URL":     func(o *demo.AgentOptions) { o.Gateway = "http://%zz" },
		"without an issuer":                 func(o *demo.AgentOptions) { o.Issuer = "" },
		"with nothing to prove itself with": func(o *demo.AgentOptions) { o.SecretFile = "" },
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			change(&o)
			if _, err := demo.NewAgent(t.Context(), o); err == nil || !strings.Contains(err.Error(), "start the agent of svc-etl: ") {
				t.Errorf("error = %v", err)
			}
		})
	}
}
