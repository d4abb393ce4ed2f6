package dashboards_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crossfade/dashboards"
)

// mayBeEmpty are the queries that have no data while all is well, and why. Those
// of a whole panel are named without a reference.
var mayBeEmpty = map[string]string{
	"gateway.json: Certificates": "the demo has no TLS",
}

// asked is a query in words.
func asked(q dashboards.Query) string {
	return strings.TrimSpace(fmt.Sprintf("%s: %s %s", q.Board, q.Panel, q.Ref))
}

// filled puts values in the place of a dashboard's variables, as Grafana does: all
// of everything but one instance, if it is given.
func filled(t *testing.T, expr, instance string) string {
	t.Helper()
	replicas := ".+"
	if instance != "" {
		replicas = strings.ReplaceAll(regexp.QuoteMeta(instance), `\`, `\\`)
	}
	text := strings.NewReplacer(
		"$cluster", ".*", "$job", ".+", "$instance", replicas, "$team", ".+",
		"$__rate_interval", "1m", "$__range", "5m",
	).Replace(expr)
	if strings.Contains(text, "$") {
		t.Errorf("nobody knows a variable of %s", text)
	}
	return text
}

// panelsHaveData asks what Grafana asks. Of what has no data at once some comes
// with the demo's story, such as a rollback.
func panelsHaveData(t *testing.T, p server) {
	panels, annotations, variables := dashboards.Queries(t)
	if len(panels) < 100 || len(annotations) < 6 || len(variables) < 12 {
		t.Fatalf("only %d queries of panels, %d of annotations and %d of variables are found", len(panels), len(annotations), len(variables))
	}
	pending := slices.Concat(panels, annotations, variables)
	used := map[string]bool{}
	pending = slices.DeleteFunc(pending, func(q dashboards.Query) bool {
		for _, name := range []string{asked(q), q.Board + ": " + q.Panel} {
			if _, ok := mayBeEmpty[name]; ok {
				used[name] = true
				if _, err := p.valued(t, q); err != nil {
					t.Errorf("%s: %v", asked(q), err)
				}
				return true
			}
		}
		return false
	})
	for name := range mayBeEmpty {
		if !used[name] {
			t.Errorf("%s may be empty and is not there any more: take it off the list", name)
		}
	}
	within(t, "all queries of the dashboards have data", func() error {
		var empty []error
		pending = slices.DeleteFunc(pending, func(q dashboards.Query) bool {
			some, err := p.valued(t, q)
			if err != nil {
				t.Errorf("%s: %v in %s", asked(q), err, q.Expr)
			} else if !some {
				empty = append(empty, fmt.Errorf("%s has no data: %s", asked(q), q.Expr))
			}
			return err != nil || some
		})
		return errors.Join(empty...)
	})
}

// valued reports whether a query has a value that can be shown.
func (s server) valued(t *testing.T, q dashboards.Query) (bool, error) {
	t.Helper()
	expr := filled(t, q.Expr, "")
	if q.Label != "" {
		var values []string
		err := s.get("/api/v1/label/"+q.Label+"/values?match[]="+url.QueryEscape(expr), &values)
		return len(values) > 0, err
	}
	series, err := s.series(expr)
	return slices.ContainsFunc(series, func(s sample) bool { return s.value() != "NaN" }), err
}

// sample is a series at a moment.
type sample struct {
	Metric map[string]string
	Value  [2]any // when, and the value as text
}

func (s sample) value() string { return fmt.Sprint(s.Value[1]) }

// series returns what an expression has now.
func (s server) series(expr string) ([]sample, error) {
	var data struct{ Result []sample }
	err := s.get("/api/v1/query?query="+url.QueryEscape(expr), &data)
	return data.Result, err
}

// replicasAreToldApart looks at two gateways with different configurations, one of
// which is the demo's.
func replicasAreToldApart(t *testing.T, p server, demo, other string) {
	panels, _, _ := dashboards.Queries(t)
	hashes := map[string]bool{}
	rows := 0
	for _, q := range panels {
		instances := map[string]bool{}
		series, err := p.series(filled(t, q.Expr, ""))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range series {
			if of, ok := s.Metric["instance"]; ok {
				instances[of] = true
			}
			if hash, ok := s.Metric["hash"]; ok {
				hashes[hash] = true
			}
		}
		if len(instances) == 0 { // of all together
			continue
		}
		rows++
		if !maps.Equal(instances, map[string]bool{demo: true, other: true}) {
			t.Errorf("%s shows the replicas %v, not %s and %s", asked(q), instances, demo, other)
		}
		only, err := p.series(filled(t, q.Expr, demo))
		if err != nil || slices.ContainsFunc(only, func(s sample) bool { return s.Metric["instance"] != demo }) {
			t.Errorf("%s shows other replicas than the chosen one: %v, %v", asked(q), only, err)
		}
	}
	if rows < 6 || len(hashes) != 2 {
		t.Errorf("%d queries tell replicas apart, and %d configurations are shown", rows, len(hashes))
	}
	for _, title := range []string{"Replicas", "Configurations"} {
		i := slices.IndexFunc(panels, func(q dashboards.Query) bool { return q.Board == "gateway.json" && q.Panel == title })
		if i < 0 {
			t.Errorf("there is no panel %s", title)
			continue
		}
		for instance, want := range map[string]string{"": "2", demo: "1"} {
			series, err := p.series(filled(t, panels[i].Expr, instance))
			if err != nil || len(series) != 1 || series[0].value() != want {
				t.Errorf("%s of %q: %v, %v, want %s", title, instance, series, err, want)
			}
		}
	}
	within(t, "the alert about skew knows of it", func() error {
		return p.has(`ALERTS{alertname="CrossfadeConfigSkew",alertstate="pending"}`)
	})
}

// exemplarsLeadToTraces asks for the dots of the latency panels.
func exemplarsLeadToTraces(t *testing.T, p server, c *collector) {
	panels, _, _ := dashboards.Queries(t)
	shown := 0
	for _, q := range panels {
		if !q.Exemplar {
			continue
		}
		shown++
		within(t, asked(q)+" has exemplars", func() error {
			var found []struct {
				Exemplars []struct{ Labels map[string]string }
			}
			now := time.Now()
			err := p.get(fmt.Sprintf("/api/v1/query_exemplars?query=%s&start=%d&end=%d", url.QueryEscape(filled(t, q.Expr, "")),
				now.Add(-time.Hour).Unix(), now.Add(time.Hour).Unix()), &found)
			if err != nil {
				return err
			}
			for _, series := range found {
				for _, e := range series.Exemplars {
					if id, err := hex.DecodeString(e.Labels["trace_id"]); err == nil && len(id) == 16 && c.got(id) {
						return nil
					}
				}
			}
			return fmt.Errorf("%d series with exemplars, and none is of a trace that was sent", len(found))
		})
	}
	if shown < 5 {
		t.Errorf("only %d queries have exemplars", shown)
	}
}

// collector takes what OTLP over HTTP brings.
type collector struct {
	*httptest.Server
	mu   sync.Mutex
	text []byte
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.text = append(c.text, text...)
	}))
	t.Cleanup(c.Close)
	return c
}

// got reports whether an id, as binary protobuf has it, has come.
func (c *collector) got(id []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Contains(c.text, id)
}

// environ sends the spans of a program here.
func (c *collector) environ() []string {
	return append(os.Environ(), "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
		"OTEL_EXPORTER_OTLP_COMPRESSION=none", "OTEL_TRACES_SAMPLER=always_on", "OTEL_BSP_SCHEDULE_DELAY=200")
}

// replica starts one more gateway, with another configuration than the demo's, and
// returns where its metrics are.
func replica(t *testing.T, program string) (host string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "crossfade.yaml")
	text := "mode: observe\nlisten: 127.0.0.1:0\nmetrics: 127.0.0.1:0\nupstream: { url: http://127.0.0.1:1, profile: luigi }\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	said := run(t, nil, program, "serve", "--config", file)
	return saidWhere(t, said, `"metrics":"(127\.0\.0\.1:\d+)"`)
}
