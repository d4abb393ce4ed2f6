package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
	"crossfade/rollout/fleet"
	"crossfade/rollout/readiness"
	"crossfade/rollout/rollouttest"
)

// issuer judges tokens: what it does not know is malformed_jwt.
type issuer map[string]*identity.Authentication

func (i issuer) Authenticate(_ context.Context, c identity.Credential) *identity.Authentication {
	if a, ok := i[c.Secret.Reveal()]; ok {
		return a
	}
	return identity.Reject("not a JWT", identity.MalformedJWT)
}

// person is a good token of somebody.
func person(name string, team identity.Team, groups ...string) *identity.Authentication {
	return &identity.Authentication{
		Status: identity.StatusVerified, Principal: identity.Principal{Name: name, Team: team},
		Token: &identity.TokenInfo{Verified: true, Issuer: "https://idp.example", Subject: "sub-" + name, Groups: groups},
	}
}

// The tokens of the tests. worker is of the team and nothing else.
var people = issuer{
	"viewer":   person("vera", identity.Unassigned, "data"),
	"worker":   person("svc-etl", "data-eng"),
	"lead":     person("lea", "data-eng", "leads"),
	"named":    person("svc-deploy", "data-eng"),
	"other":    person("otto", "search", "leads"),
	"homeless": person("hans", identity.Unassigned, "leads"),
	"operator": person("olga", identity.Unassigned, "platform"),
	"expired":  identity.Reject("it expired", identity.Expired),
	"early":    identity.Reject("no keys", identity.JWKSUnavailable),
}

// guard answers the same until it is told otherwise.
type guard struct {
	mu     sync.Mutex
	answer rollout.Answer
	err    error
}

func (g *guard) MayRaise(context.Context, rollout.State, time.Time) (rollout.Answer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.answer, g.err
}

func (g *guard) say(a rollout.Answer, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answer, g.err = a, err
}

func (g *guard) MayRetire(context.Context, rollout.State) (rollout.Answer, error) {
	return g.MayRaise(context.Background(), rollout.State{}, time.Time{})
}

// api is one console on a store in memory.
type api struct {
	*testing.T
	*console.Console
	store *rollouttest.Memory
	table *rollout.Table
	guard *guard
	// fleet are the gateways, away why they cannot be read, now the store's time.
	fleet []fleet.Replica
	away  error
	now   time.Time
	// closed keeps raises out of their hours.
	closed bool
	// report is how ready every team is, unassessed why that cannot be said.
	report     readiness.Report
	unassessed error
	// forecast is the error of looking at what becomes of runs.
	forecast error
	// damaged is the one team that unassessed and forecast are of; "" for all.
	damaged identity.Team

	mu     sync.Mutex
	done   []console.Done
	log    strings.Builder
	counts map[string]int // of requests, by route and status
}

// shared is the store of an api, with its fleet.
type shared struct {
	*rollouttest.Memory
	a *api
}

func (s shared) Fleet(context.Context) ([]fleet.Replica, time.Time, error) {
	return s.a.fleet, s.a.now, s.a.away
}

// Report implements console.Assessor.
func (s shared) Report(_ context.Context, state rollout.State) (readiness.Report, error) {
	r := s.a.report
	r.Team, r.Percent, r.Phase = state.Team, state.Percent, state.Phase()
	return r, s.a.of(state.Team, s.a.unassessed)
}

// of is an error if it is of a team.
func (a *api) of(team identity.Team, err error) error {
	if a.damaged != "" && a.damaged != team {
		return nil
	}
	return err
}

// remote makes a listener that others reach.
func remote(o *console.Options) { o.Loopback = false }

func newAPI(t *testing.T, change ...func(*console.Options)) *api {
	t.Helper()
	a := &api{T: t, store: rollouttest.NewMemory(), guard: &guard{}, report: judged(0), counts: make(map[string]int)}
	a.guard.say(rollout.Answer{UpTo: rollout.Full, Why: "30 clean runs"}, nil)
	var err error
	if a.table, err = rollout.NewTable(rollout.TableOptions{Store: a.store}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.table.Close() })
	if err := a.table.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := console.Options{
		Tokens: people, Table: a.table, History: a.store, Store: shared{a.store, a}, Guard: a.guard, Readiness: shared{a.store, a}, Self: "b",
		Credentials: func(team identity.Team) []string { return []string{"htpasswd:svc-" + string(team)} },
		Nearest: func(word string, candidates []string) string {
			for _, c := range candidates {
				if strings.HasPrefix(c, word) {
					return c
				}
			}
			return ""
		},
		Observed: func(route string, status int) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.counts[fmt.Sprintf("%s %d", route, status)]++
		},
		Forecast: func(_ context.Context, s rollout.State, step rollout.Step) (f effect.Forecast, err error) {
			switch step.Outcome {
			case rollout.Raise:
				f = effect.Forecast{Selected: []string{fmt.Sprintf("svc-etl / from %s to %s", step.From, step.To)}, RunsADay: 1.5, Keep: 6, OneIn: 11.5}
			case rollout.Lower:
				f = effect.Forecast{Regain: 12, Freed: 3, Lose: 1}
			}
			return f, a.of(s.Team, a.forecast)
		},
		InEffect: func(s rollout.State) (effect.Share, bool) {
			return effect.Share{Day: "2030-05-13", Runs: 88, Selected: int(s.Percent), Enforced: 3, Estimated: s.Percent == 40}, s.Percent > 0
		},
		Teams: []identity.Team{"data-eng", "search", identity.Unassigned},
		Files: func() map[identity.Team]console.File {
			return map[identity.Team]console.File{"data-eng": {Management: "managed", Name: "rollout.d/data-eng.yaml"}}
		},
		Open:      func(identity.Team, time.Time) bool { return !a.closed },
		Viewers:   console.Access{Groups: []string{"data"}},
		Leads:     console.Access{Groups: []string{"leads"}, Principals: []string{"svc-deploy"}},
		Operators: console.Access{Groups: []string{"platform"}},
		Loopback:  true,
		OneTime:   identity.NewSecret("one-time-secret"),
		Changed: func(_ context.Context, d console.Done) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.done = append(a.done, d)
		},
		Log: slog.New(slog.NewTextHandler(lockedWriter{a}, nil)),
	}
	for _, c := range change {
		c(&o)
	}
	if a.Console, err = console.New(o); err != nil {
		t.Fatal(err)
	}
	return a
}

type lockedWriter struct{ a *api }

func (w lockedWriter) Write(p []byte) (int, error) {
	w.a.mu.Lock()
	defer w.a.mu.Unlock()
	return w.a.log.Write(p)
}

// ask is a request. Zero fields are left out; from is this machine by default.
type ask struct {
	method, path, token, body string
	from, host                string
	header                    http.Header
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
	// reason is that of a problem.
	reason string
	team   console.Team
}

func (r answer) String() string { return fmt.Sprintf("%d %s", r.status, strings.TrimSpace(r.body)) }

// send asks, and holds the reply against the description.
func (a *api) send(q ask) answer {
	a.Helper()
	r := httptest.NewRequest(q.method, "http://127.0.0.1:8081", strings.NewReader(q.body))
	path, query, _ := strings.Cut(q.path, "?")
	r.URL.Path, r.URL.RawQuery = "/api/v1"+path, query
	r.RemoteAddr, r.Host = "127.0.0.1:50000", "127.0.0.1:8081"
	if q.from != "" {
		r.RemoteAddr = q.from
	}
	if q.host != "" {
		r.Host = q.host
	}
	if q.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if q.token != "" {
		r.Header.Set("Authorization", "Bearer "+q.token)
	}
	for name, values := range q.header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	got := answer{status: w.Code, header: w.Header(), body: w.Body.String(), reason: w.Header().Get("Crossfade-Reason")}
	if w.Code < 300 {
		_ = json.Unmarshal(w.Body.Bytes(), &got.team) // what is no team stays empty
	}
	if err := described(q.method, path, got); err != nil {
		a.Errorf("%s %s: %v: %v", q.method, path, err, got)
	}
	return got
}

// want is a reply with a status and a reason.
func (a *api) want(q ask, status int, reason string) answer {
	a.Helper()
	got := a.send(q)
	if got.status != status || got.reason != reason {
		a.Errorf("%s %s as %q: %v, want %d %s", q.method, q.path, q.token, got, status, reason)
	}
	return got
}

// put writes a change past the API.
func (a *api) put(c rollout.Change) rollout.State {
	a.Helper()
	c.Expect = rollout.AnyRevision
	s, err := a.table.Write(a.Context(), c)
	if err != nil {
		a.Fatal(err)
	}
	return s
}

// last is what the history says that was done last.
func (a *api) last(team identity.Team) rollout.Entry {
	a.Helper()
	entries, err := a.store.History(a.Context(), team, 1)
	if err != nil || len(entries) == 0 {
		a.Fatalf("history: %v, %v", entries, err)
	}
	return entries[0]
}

func match(tag string) http.Header { return http.Header{"If-Match": {tag}} }
