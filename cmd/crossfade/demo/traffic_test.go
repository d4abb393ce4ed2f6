package demo_test

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/luigi/captures"
)

// seen is a request as a server saw it.
type seen struct {
	line, body string
	header     http.Header
	call       luigi.Call
	at         time.Time
}

// gate records requests and answers with next; it works as a server and, for
// tests with a clock of their own, as a client's transport.
type gate struct {
	next http.Handler

	mu   sync.Mutex
	seen []seen
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	call := luigi.Classify(r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("Content-Type"), body)
	line := r.Method + " " + r.URL.RequestURI()
	g.mu.Lock()
	g.seen = append(g.seen, seen{line, string(body), r.Header.Clone(), call, time.Now()})
	g.mu.Unlock()
	g.next.ServeHTTP(w, r)
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w.Result(), nil
}

// results collects what a replay reports.
type results struct {
	mu  sync.Mutex
	all []demo.Result
}

func (r *results) add(one demo.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, one)
}

// replay runs traffic against a real server in front of next.
func replay(t *testing.T, next http.Handler, o demo.TrafficOptions) (*gate, []demo.Result) {
	t.Helper()
	g := &gate{next: next}
	server := httptest.NewServer(g)
	defer server.Close()
	defer server.Client().CloseIdleConnections()
	var got results
	o.BaseURL, o.Client, o.OnResult = server.URL, server.Client(), got.add
	if o.Loops == 0 {
		o.Loops = 1
	}
	traffic, err := demo.NewTraffic(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := traffic.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return g, got.all
}

func TestTrafficRunsThroughAgainstTheStandIn(t *testing.T) {
	t.Parallel()
	for name, workers := range map[string]int{captures.Success: 2, captures.Failure: 1, captures.Contention: 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exchanges, err := captures.Load(name)
			if err != nil {
				t.Fatal(err)
			}
			g, got := replay(t, newScheduler(t), demo.TrafficOptions{
				Capture: name, Loops: 3, User: "svc-ml", Password: identity.NewSecret("ml-pass"),
			})
			if len(got) != 3*len(exchanges) || len(g.seen) != 3*len(exchanges) {
				t.Errorf("%d results and %d requests of %d", len(got), len(g.seen), 3*len(exchanges))
			}
			names := map[string]bool{}
			for _, r := range got {
				names[r.Worker] = true
				if r.Status != 200 || r.Ended || r.Err != nil || r.Reason != "" {
					t.Errorf("result %+v", r)
				}
			}
			if len(names) != 3*workers {
				t.Errorf("%d workers in three loops, want %d: %v", len(names), 3*workers, slices.Sorted(maps.Keys(names)))
			}
			for _, s := range g.seen {
				user, password, _ := (&http.Request{Header: s.header}).BasicAuth()
				if user != "svc-ml" || password != "ml-pass" {
					t.Errorf("%s: as %s", s.line, user)
				}
				if s.call.Problem != "" || (s.call.Worker != "" && !names[s.call.Worker]) {
					t.Errorf("%s: %+v", s.line, s.call)
				}
			}
		})
	}
}

func TestTrafficUnderTheRecordedNamesIsTheRecordingByteForByte(t *testing.T) {
	t.Parallel()
	for _, name := range captures.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, got := replay(t, newScheduler(t), demo.TrafficOptions{Capture: name, Rename: func(_ int, w string) string { return w }})
			exchanges, err := captures.Load(name)
			if err != nil {
				t.Fatal(err)
			}
			var want, sent []string
			for _, e := range exchanges {
				if e.Injected() {
					continue
				}
				line := e.Method + " " + e.Path
				if e.Query != "" {
					line += "?" + e.Query
				}
				want = append(want, line+"\n"+e.RequestHeaders["User-Agent"]+"\n"+e.RequestHeaders["Content-Type"]+"\n"+e.RequestBody)
			}
			for _, s := range g.seen {
				if s.header.Get("Authorization") != "" || s.header.Get("Crossfade-Token") != "" {
					t.Errorf("%s: credentials that nobody asked for: %v", s.line, s.header)
				}
				sent = append(sent, s.line+"\n"+s.header.Get("User-Agent")+"\n"+s.header.Get("Content-Type")+"\n"+s.body)
			}
			slices.Sort(want) // the workers run side by side
			slices.Sort(sent)
			if diff := cmp.Diff(want, sent); diff != "" {
				t.Errorf("requests (-recorded +sent):\n%s", diff)
			}
			if len(got) != len(want) {
				t.Errorf("%d results of %d requests", len(got), len(want))
			}
		})
	}
}

func TestTrafficEndsARunAsAWorkerWould(t *testing.T) {
	t.Parallel()
	const refusal = `{"error": {"reason": "legacy_refused"}}`
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Crossfade-Reason", "legacy_refused")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	tests := []struct {
		name, method string
		refuse       http.HandlerFunc
		ends         bool
	}{
		{"a refused registration", "add_task", answer(200, refusal), true},
		{"a refused question for work", "get_work", answer(200, refusal), true},
		{"a 401", "get_work", answer(401, `{"response": null}`), true},
		{"a 503", "add_worker", answer(503, ""), true},
		{"a reply that is no JSON", "add_task_batcher", answer(200, "<html>"), true},
		{"a reply without an object", "add_worker", answer(200, "null"), true},
		{"a refused ping, which harms nobody", "ping", answer(200, refusal), false},
		{"a ping that fails", "ping", answer(401, ""), false},
		{"a refused status message, which fails its task alone", "set_task_status_message", answer(200, refusal), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newScheduler(t)
			gateway := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/api/"+tt.method {
					tt.refuse(w, r)
					return
				}
				s.ServeHTTP(w, r)
			})
			g, got := replay(t, gateway, demo.TrafficOptions{Capture: captures.Success, Loops: 2})
			last := map[string]demo.Result{}
			refused := 0
			for _, r := range got {
				if before, ok := last[r.Worker]; ok && before.Ended {
					t.Errorf("%s sent %s after its run had ended", r.Worker, r.Method)
				}
				last[r.Worker] = r
				if (r.Method == tt.method) != (r.Reason == identity.LegacyRefused) {
					t.Errorf("reason %q for %s", r.Reason, r.Method)
				}
				if r.Method == tt.method {
					refused++
					if r.Ended != tt.ends {
						t.Errorf("%s ended = %v, want %v", r.Method, r.Ended, tt.ends)
					}
				}
			}
			if refused == 0 || (!tt.ends && len(g.seen) != 100) || (tt.ends && len(g.seen) >= 100) {
				t.Errorf("%d requests, %d refused", len(g.seen), refused)
			}
		})
	}
}

func TestTrafficGoesOnWhenNobodyAnswers(t *testing.T) {
	t.Parallel()
	hangUp := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, got := replay(t, hangUp, demo.TrafficOptions{Capture: captures.Contention, Loops: 2})
	if len(got) != 4 { // two workers, two loops, one attempt each
		t.Fatalf("%d results, want 4", len(got))
	}
	for _, r := range got {
		if r.Err == nil || !r.Ended || r.Status != 0 || strings.Contains(r.Err.Error(), "legacy-pass") {
			t.Errorf("result %+v", r)
		}
	}
}

func TestTrafficGoesThroughTheAgentOfItsWorker(t *testing.T) {
	t.Parallel()
	beside := &gate{next: newScheduler(t)}
	agent := httptest.NewServer(http.StripPrefix("/s3cret", beside))
	defer agent.Close()
	var mu sync.Mutex
	asked := map[int]int{}
	g, got := replay(t, newScheduler(t), demo.TrafficOptions{
		Capture: captures.Success, Loops: 2,
		Through: func(worker int) string {
			mu.Lock()
			defer mu.Unlock()
			asked[worker]++
			return []string{agent.URL + "/s3cret/", ""}[worker]
		},
	})
	if diff := cmp.Diff(map[int]int{0: 2, 1: 2}, asked); diff != "" {
		t.Errorf("questions by worker (-want +got):\n%s", diff)
	}
	if len(got) != 100 || len(beside.seen) != 2*6 || len(g.seen) != 2*44 {
		t.Errorf("%d results, %d requests to the agent and %d without it, want 100, 12 and 88", len(got), len(beside.seen), len(g.seen))
	}
	for _, s := range beside.seen {
		if !strings.HasPrefix(s.line, "POST /api/") {
			t.Errorf("the agent got %s", s.line)
		}
	}
}

func TestTrafficKeepsTheRecordedRhythm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var refusing atomic.Bool // from the third loop on
		s := http.StripPrefix("/prefix", newScheduler(t))
		g := &gate{next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !refusing.Load() {
				s.ServeHTTP(w, r)
			}
		})}
		traffic, err := demo.NewTraffic(demo.TrafficOptions{
			Capture: captures.Failure, BaseURL: "http://gateway/prefix/", Client: &http.Client{Transport: g}, Pace: 0.5,
		})
		if err != nil {
			t.Fatal(err)
		}
		exchanges, err := captures.Load(captures.Failure)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		length := exchanges[len(exchanges)-1].Offset() / 2
		ctx, cancel := context.WithTimeout(t.Context(), 3*length+time.Millisecond)
		defer cancel()
		go func() {
			time.Sleep(2*length - time.Millisecond)
			refusing.Store(true)
		}()
		if err := traffic.Run(ctx); err != nil {
			t.Fatal(err)
		}
		// Two whole loops, the first request of the third, and of the fourth,
		// which comes no sooner because the third ended at once.
		if want := 2*len(exchanges) + 2; len(g.seen) != want {
			t.Fatalf("%d requests, want %d", len(g.seen), want)
		}
		for i, s := range g.seen {
			loop, at := i/len(exchanges), i%len(exchanges)
			if i == len(g.seen)-1 {
				loop, at = 3, 0
			}
			if got, want := s.at.Sub(start), time.Duration(loop)*length+exchanges[at].Offset()/2; got != want {
				t.Errorf("request %d came after %s, want %s", i, got, want)
			}
			if !strings.HasPrefix(s.line, "POST /prefix/api/") {
				t.Errorf("request %d lost the prefix of the URL: %s", i, s.line)
			}
		}
	})
}

func TestTrafficOptionsThatCannotWork(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]demo.TrafficOptions{
		`no recording "nightly"`:            {Capture: "nightly", BaseURL: "http://x", Loops: 1},
		`the pace -1 is negative`:           {Capture: captures.Failure, BaseURL: "http://x", Pace: -1},
		`-2 loops are fewer than none`:      {Capture: captures.Failure, BaseURL: "http://x", Loops: -2},
		`"" is no base URL`:                 {Capture: captures.Failure, Loops: 1},
		`"127.0.0.1:8080" is no base URL`:   {Capture: captures.Failure, BaseURL: "127.0.0.1:8080", Loops: 1},
		`this would only make heat`:         {Capture: captures.Failure, BaseURL: "http://x"},
		`"http://%zz" is no base URL`:       {Capture: captures.Failure, BaseURL: "http://%zz", Loops: 1},
		`replay pipeline-failure: the pace`: {Capture: captures.Failure, BaseURL: "http://x", Pace: -0.5},
	} {
		if _, err := demo.NewTraffic(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want %q in it", err, want)
		}
	}
}

func TestTrafficTellsItsSize(t *testing.T) {
	t.Parallel()
	traffic, err := demo.NewTraffic(demo.TrafficOptions{Capture: captures.Contention, BaseURL: "http://x", Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(traffic.Workers()) != 2 || traffic.Requests() != 71 {
		t.Errorf("%d workers, %d requests", len(traffic.Workers()), traffic.Requests())
	}
}
