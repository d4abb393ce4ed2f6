package app_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"crossfade/cmd/crossfade/app"
	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/luigi/captures"
	"crossfade/rollout"
)

// Every recording, by every kind of credential, at every stage of a cutover: what
// is let through is answered as without the gateway, byte for byte, and no run
// changes sides in its middle.
func TestEveryRecordingIsAnsweredAsWithoutTheGateway(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"password", "password and companion", "token"} {
		for _, percent := range []rollout.Percent{0, 50, 100} {
			t.Run(fmt.Sprintf("%s at %d", way, percent), func(t *testing.T) {
				t.Parallel()
				s := newSite(t)
				s.configure("rollout", "{ stickiness: run }")
				store := realRedis(t) // which answers in time on a busy machine as well
				g := s.start(func(o *app.Options) { o.Store = store }).loaded()
				// In two steps, so that a run whose latch is late is judged alike: a week
				// long it is by the lower one of the last two percentages.
				for _, p := range []rollout.Percent{max(percent, 1) - 1, percent} {
					if _, err := g.Store().Write(t.Context(), rollout.Change{
						Team: "data-eng", Percent: p, Expect: rollout.AnyRevision, Actor: "lead", Source: "cli",
					}); err != nil {
						t.Fatal(err)
					}
				}
				g.reaches("data-eng", percent)
				replayed := replayAll(t, g, way)
				switch {
				case way != "password" || percent == 0:
					if replayed.refused > 0 {
						t.Errorf("%d of %d were refused", replayed.refused, replayed.total)
					}
				case percent == 100:
					if replayed.refused != replayed.total {
						t.Errorf("%d of %d were refused", replayed.refused, replayed.total)
					}
				case replayed.refused == 0 || replayed.refused == replayed.total:
					t.Errorf("at 50%% %d of %d were refused", replayed.refused, replayed.total)
				}
			})
		}
	}
}

type replayed struct{ total, refused int }

// replayAll sends every recorded request through the gateway, and what it lets
// through also to a stand-in of its own without it.
func replayAll(t *testing.T, g *gateway, way string) (sum replayed) {
	t.Helper()
	scheduler, err := demo.NewScheduler()
	if err != nil {
		t.Fatal(err)
	}
	alone := httptest.NewServer(scheduler)
	defer alone.Close()
	good := g.site.token("svc-etl", audience)
	refused := map[string]bool{} // by worker, from its first registered task on
	for _, name := range captures.Names() {
		exchanges, err := captures.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range exchanges {
			if e.Injected() || e.OmittedBytes > 0 {
				continue
			}
			q := request{method: e.Method, path: e.Path, body: e.RequestBody, header: http.Header{}}
			if e.Query != "" {
				q.path += "?" + e.Query
			}
			for name, value := range e.RequestHeaders {
				switch name {
				case "Authorization", "Host", "Content-Length", "Connection", "If-None-Match", "If-Modified-Since", "Accept-Encoding":
				default:
					q.header.Set(name, value)
				}
			}
			sameOrigin(q.header, g.base)
			switch way {
			case "password":
				q = etl(q)
			case "password and companion":
				q = etl(q)
				q.companion = good
			default:
				q.bearer = good
			}
			got := g.send(q)
			sum.total++
			if got.header.Get("Crossfade-Reason") != "" {
				sum.refused++
			}
			if worker := speaks(t, e); worker != "" && strings.HasSuffix(e.Path, "/add_task") {
				was, known := refused[worker]
				is := got.header.Get("Crossfade-Reason") != ""
				if known && was != is {
					t.Errorf("%s %d: the run of %s changed sides: %v", name, e.Seq, worker, got)
				}
				refused[worker] = is
			}
			if got.header.Get("Crossfade-Reason") != "" {
				if got.header.Get("Crossfade-Reason") != "legacy_refused" {
					t.Errorf("%s %d, %s %s: %v", name, e.Seq, e.Method, e.Path, got)
				}
				continue
			}
			want := g.site.send(alone.URL, q)
			if got.status != want.status || got.body != want.body || got.header.Get("Content-Type") != want.header.Get("Content-Type") || got.err != nil {
				t.Errorf("%s %d, %s %s: %v, without the gateway %v", name, e.Seq, e.Method, e.Path, got, want)
			}
		}
	}
	return sum
}

// sameOrigin lets the recorded browser be on the page of this gateway.
func sameOrigin(h http.Header, base string) {
	if h.Get("Origin") != "" {
		h.Set("Origin", base)
	}
	if referer, err := url.Parse(h.Get("Referer")); err == nil && referer.Host != "" {
		h.Set("Referer", base+referer.RequestURI())
	}
}

// speaks returns the worker that a recorded call names.
func speaks(t *testing.T, e captures.Exchange) string {
	t.Helper()
	form, err := url.ParseQuery(e.RequestBody)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(form.Get("data"), `"worker": "`)
	if !ok {
		return ""
	}
	worker, _, _ := strings.Cut(rest, `"`)
	return worker
}
