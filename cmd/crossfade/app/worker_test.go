package app_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"

	"crossfade/rollout"
)

// worker calls the scheduler as Luigi's own client does (PROTOCOL, section 5):
// any HTTP failure is tried three times, 30 s apart, whatever Retry-After says;
// then the JSON is read, outside of the retries.
type worker struct {
	send     func(request) reply
	requests int
	waited   time.Duration // what it would have slept
}

var (
	errRPC = errors.New("RPCError") // exit code 4, after a minute
	errKey = errors.New("KeyError: 'response'")
)

func (w *worker) call(q request) (json.RawMessage, error) {
	const attempts, apart = 3, 30 * time.Second
	for n := 1; ; n++ {
		w.requests++
		got := w.send(q)
		if got.err == nil && got.status < 400 {
			var body map[string]json.RawMessage
			if err := json.Unmarshal([]byte(got.body), &body); err != nil {
				return nil, err
			}
			value, ok := body["response"]
			if !ok {
				return nil, errKey
			}
			return value, nil
		}
		if n == attempts {
			return nil, errRPC
		}
		w.waited += apart
	}
}

func TestAnUnmodifiedWorkerThatIsRefusedStopsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("roles.yaml", "roles: { runner: { execute: [\"Extract*\"], view: [\"*\"] } }\n")
	s.write("principals.yaml", "svc-etl: { team: data-eng, oidc: { subject: svc-etl }, roles: [runner] }\n"+
		"svc-search: { team: search, oidc: { subject: svc-search }, roles: [runner] }\n")
	s.configure("roles", "roles.yaml")
	g := s.start().loaded()
	if _, err := g.Store().Write(t.Context(), rollout.Change{
		Team: "data-eng", Percent: 100, Expect: rollout.AnyRevision, Actor: "lead", Source: "cli",
	}); err != nil {
		t.Fatal(err)
	}
	g.reaches("data-eng", 100)
	good := s.token("svc-etl", audience)
	as := func(q request, change func(*request)) request { change(&q); return q }
	for name, tc := range map[string]struct {
		ask    request
		reason string
	}{
		"its password is no longer accepted":       {etl(addTask("w1", "ExtractUsers")), "legacy_refused"},
		"its password is wrong":                    {as(addTask("w2", "ExtractUsers"), func(q *request) { q.user, q.password = "svc-etl", "guess" }), "legacy_unknown"},
		"its token is for somebody else's gateway": {as(addTask("w3", "ExtractUsers"), func(q *request) { q.bearer = s.token("svc-etl", "api://finance") }), "aud_mismatch"},
		"it brings a task that is not its own":     {as(addTask("w4", "LoadUsers"), func(q *request) { q.bearer = good }), "task_family_denied"},
		"it sends nothing":                         {addTask("w5", "ExtractUsers"), "token_absent"},
		"its ping is refused":                      {etl(ping("w6")), "legacy_refused"},
	} {
		t.Run(name, func(t *testing.T) {
			var last reply
			w := worker{send: func(q request) reply { last = g.send(q); return last }}
			_, err := w.call(tc.ask)
			if !errors.Is(err, errKey) || w.requests != 1 || w.waited > 0 {
				t.Errorf("after %d requests and %v: %v", w.requests, w.waited, err)
			}
			if last.status != http.StatusOK || last.header.Get("Crossfade-Reason") != tc.reason {
				t.Errorf("%v, want %s", last, tc.reason)
			}
		})
	}

	// The same worker where honest codes are asked for: it does what makes the
	// abort body necessary.
	honest := worker{send: func(q request) reply {
		q.header = http.Header{"Crossfade-Abort": {"off"}}
		return g.send(q)
	}}
	if _, err := honest.call(etl(addTask("w7", "ExtractUsers"))); !errors.Is(err, errRPC) || honest.requests != 3 || honest.waited != time.Minute {
		t.Errorf("by honest codes: %v after %d requests and %v", err, honest.requests, honest.waited)
	}

	// A worker that is let through is not slowed down.
	fine := worker{send: g.send}
	if value, err := fine.call(as(addTask("w8", "ExtractUsers"), func(q *request) { q.bearer = good })); err != nil || string(value) != "null" || fine.requests != 1 {
		t.Errorf("%s, %v after %d requests", value, err, fine.requests)
	}
}

func TestAnUnmodifiedWorkerRidesOutWhatIsTransient(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ownIssuer()
	good := s.token("svc-etl", audience)
	g := s.start().loaded()
	if err := s.issuer.Close(); err != nil { // before any key was fetched
		t.Fatal(err)
	}
	var statuses []int
	w := worker{send: func(q request) reply {
		got := g.send(q)
		statuses = append(statuses, got.status)
		return got
	}}
	q := addTask("w", "ExtractUsers")
	q.bearer = good
	if _, err := w.call(q); !errors.Is(err, errRPC) || w.requests != 3 || w.waited != time.Minute {
		t.Errorf("%v after %d requests and %v (%v)", err, w.requests, w.waited, statuses)
	}
	for _, status := range statuses {
		if status != http.StatusServiceUnavailable {
			t.Errorf("statuses %v: an identity provider that is away is no one's fault", statuses)
		}
	}
}
