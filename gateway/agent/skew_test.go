package agent_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/gateway/agent"
)

// roundTrip is a gateway without a network.
type roundTrip func(*http.Request) *http.Response

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

func TestClocksThatDifferAreTold(t *testing.T) {
	for name, tc := range map[string]struct {
		ahead  time.Duration
		takes  time.Duration // until the answer
		header http.Header
		skew   time.Duration
		said   string
	}{
		"clocks that agree":                    {},
		"a second is nothing":                  {ahead: 900 * time.Millisecond},
		"a slow answer is no difference":       {ahead: -30 * time.Second, takes: 40 * time.Second},
		"a gateway that is ahead":              {ahead: 95 * time.Second, skew: 95 * time.Second, said: "The clock of this machine is 1m35s behind the gateway's"},
		"a gateway that is behind":             {ahead: -95 * time.Second, skew: -94 * time.Second, said: "The clock of this machine is 1m34s ahead of the gateway's"},
		"a few seconds are counted, not said":  {ahead: 10 * time.Second, skew: 10 * time.Second},
		"an answer without a date":             {ahead: time.Hour, header: http.Header{"Date": nil}},
		"an answer with a date that is none":   {ahead: time.Hour, header: http.Header{"Date": {"yesterday"}}},
		"an answer that comes out of a cache":  {ahead: -time.Hour, header: http.Header{"Age": {"3600"}}},
		"a refusal tells of clocks as well":    {ahead: 95 * time.Second, skew: 95 * time.Second, said: "REFUSED", header: http.Header{"Crossfade-Reason": {"expired"}}},
		"a quick answer is measured right too": {ahead: 95 * time.Second, takes: time.Millisecond, skew: 95 * time.Second, said: "1m35s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				said := &safe{}
				var told []time.Duration
				p, err := agent.New(agent.Options{
					Gateway: &url.URL{Scheme: "http", Host: "gw"}, Tokens: good(), Report: agent.NewReporter(said, 0),
					OnSkew: func(d time.Duration) { told = append(told, d) },
					Transport: roundTrip(func(r *http.Request) *http.Response {
						time.Sleep(tc.takes)
						h := http.Header{"Date": {time.Now().Add(tc.ahead).UTC().Format(http.TimeFormat)}}
						status := 200
						for name, values := range tc.header {
							h[name] = values
						}
						if h.Get("Crossfade-Reason") != "" {
							status = 401
						}
						return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader("{}")), Request: r}
					}),
				})
				if err != nil {
					t.Fatal(err)
				}
				for range 3 {
					r := httptest.NewRequest("POST", "/api/ping", strings.NewReader("data={}"))
					p.ServeHTTP(httptest.NewRecorder(), r)
					time.Sleep(2 * time.Minute)
				}
				if got := p.Stats().Skew; got != tc.skew {
					t.Errorf("measured %s, want %s", got, tc.skew)
				}
				// Only what the gateway wrote itself tells of its clock, and once is enough.
				if tc.header.Get("Crossfade-Reason") == "" && len(told) > 0 || tc.header.Get("Crossfade-Reason") != "" && (len(told) != 1 || told[0] != tc.skew) {
					t.Errorf("told %v", told)
				}
				if !strings.Contains(said.String(), tc.said) || (tc.said == "") != (said.String() == "") {
					t.Errorf("said %q, want %q", said, tc.said)
				}
				if n := strings.Count(said.String(), "crossfade agent: The clock"); n > 1 {
					t.Errorf("said %d times", n)
				}
				if tc.header.Get("Crossfade-Reason") != "" && !strings.Contains(said.String(), "  The clock of this machine") {
					t.Errorf("the refusal does not tell of the clocks: %s", said)
				}
			})
		})
	}
}

func TestWhatWasSaidIsSaidAgainAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := &safe{}
		once, hourly := agent.NewReporter(said, 0), agent.NewReporter(said, time.Hour)
		if !once.Say("a", "1\n") || once.Say("a", "2\n") || !once.Say("b", "3\n") || !hourly.Say("a", "4\n") || hourly.Say("a", "5\n") {
			t.Error("said too often or too rarely")
		}
		time.Sleep(time.Hour)
		if once.Say("a", "6\n") || !hourly.Say("a", "7\n") {
			t.Error("said too often or too rarely after an hour")
		}
		if said.String() != "1\n3\n4\n7\n" {
			t.Errorf("%q", said)
		}
	})
}

// A provider that does not answer must not cost each request of a worker that
// still has its password what it cost the first one.
func TestOneRequestWaitsForAProviderThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := agent.New(agent.Options{
			Gateway: &url.URL{Scheme: "http", Host: "gw"}, Tokens: hanging{}, Report: agent.NewReporter(io.Discard, 0),
			Transport: roundTrip(func(r *http.Request) *http.Response {
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}")), Request: r}
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []time.Duration{5 * time.Second, 100 * time.Millisecond, 100 * time.Millisecond} {
			begin := time.Now()
			r := httptest.NewRequest("POST", "/api/ping", strings.NewReader("data={}"))
			r.SetBasicAuth("svc-etl", "legacy-pass")
			p.ServeHTTP(httptest.NewRecorder(), r)
			if took := time.Since(begin); took != want {
				t.Errorf("request %d took %s, want %s", i, took, want)
			}
		}
	})
}
