package dashboards_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// patience bounds every wait for something that must come.
const patience = 2 * time.Minute

// server is a Prometheus that scrapes.
type server struct{ address string }

// TestARealPrometheusAnswersTheRules has a real one scrape the demo, whose gateway is
// the real one: each expression is evaluated, each recorded ratio has a value, and
// each series that an alert asks for is there before anything has happened. So is
// what panels, annotations and variables of the dashboards ask for, two replicas
// with different configurations are told apart, and exemplars lead to traces.
func TestARealPrometheusAnswersTheRules(t *testing.T) {
	t.Parallel()
	program, spans := built(t), newCollector(t)
	first := demo(t, program, spans.environ())
	second := replica(t, program)
	p := scraping(t, first, second)
	within(t, "data of every team is scraped", func() error {
		return p.has(`sum by (team) (rate(crossfade_shadow_verdicts_total{evidence="client"}[1m])) > 0 and on (team) crossfade_readiness_last_assessed_timestamp_seconds > 0`)
	})

	t.Run("recorded ratios have a value", func(t *testing.T) {
		// Nobody is enforced before there is evidence for a raise, and the demo
		// keeps no audit trail.
		empty := []string{"cluster_job_team:crossfade_rollout_enforced_refused:ratio_rate5m", "cluster_job:crossfade_audit_lost:ratio_rate5m"}
		for _, r := range rulesOf(t, "recording.yaml") {
			if slices.Contains(empty, r.Record) {
				if _, err := p.query(r.Expr); err != nil {
					t.Errorf("%s: %v", r.Record, err)
				}
				continue
			}
			within(t, r.Record, func() error { return p.has(r.Expr) })
		}
	})
	t.Run("alerts find their series", func(t *testing.T) {
		for _, r := range rulesOf(t, "alerts.yaml") {
			if _, err := p.query(r.Expr); err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			}
			for _, selector := range alternatives(t, r.Expr) {
				switch {
				case strings.HasPrefix(selector, "crossfade_tls_not_after_timestamp_seconds"): // the demo has no TLS
				case strings.HasPrefix(selector, "cluster_job"): // recorded: seen above
				default:
					within(t, r.Alert+" asks for "+selector, func() error { return p.has(selector) })
				}
			}
		}
	})
	t.Run("dashboards have data", func(t *testing.T) { panelsHaveData(t, p) })
	t.Run("replicas are told apart", func(t *testing.T) { replicasAreToldApart(t, p, first, second) })
	t.Run("exemplars lead to traces", func(t *testing.T) { exemplarsLeadToTraces(t, p, spans) })
	t.Run("it has loaded them, and nothing went wrong", func(t *testing.T) {
		within(t, "all rules are evaluated", func() error { return p.healthy(t) })
	})
}

// alternatives are the selectors of an expression, one for each word that a pattern
// of theirs allows.
func alternatives(t *testing.T, expression string) (all []string) {
	t.Helper()
	expr, err := parser.ParseExpr(expression)
	if err != nil {
		t.Fatal(err)
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		s, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		forms := [][]string{nil}
		for _, m := range s.LabelMatchers {
			words := []string{m.String()}
			if m.Type == labels.MatchRegexp {
				words = nil
				for word := range strings.SplitSeq(m.Value, "|") {
					words = append(words, fmt.Sprintf("%s=%q", m.Name, word))
				}
			}
			var next [][]string
			for _, form := range forms {
				for _, word := range words {
					next = append(next, append(slices.Clone(form), word))
				}
			}
			forms = next
		}
		for _, form := range forms {
			form = slices.DeleteFunc(form, func(m string) bool { return strings.HasPrefix(m, "__name__") })
			all = append(all, s.Name+"{"+strings.Join(form, ",")+"}")
		}
		return nil
	})
	return all
}

func TestEachWordOfAPatternIsASelector(t *testing.T) {
	t.Parallel()
	got := alternatives(t, `rate(a{x=~"1|2",y="3"}[5m]) unless b{z!~"4|5"}`)
	want := []string{`a{x="1",y="3"}`, `a{x="2",y="3"}`, `b{z!~"4|5"}`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// lockedBuffer is an output that is read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// run starts a program that ends with the test, and returns what it says. environ
// is its environment; nil is that of the test.
func run(t *testing.T, environ []string, name string, args ...string) *lockedBuffer {
	t.Helper()
	said := &lockedBuffer{}
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr, c.Env = said, said, environ
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Wait() }()
	t.Cleanup(func() {
		_ = c.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = c.Process.Kill()
			<-ended
		}
		if t.Failed() {
			text := said.String()
			t.Logf("%s said at last:\n%s", name, text[max(0, len(text)-4000):])
		}
	})
	return said
}

// built is the program.
func built(t *testing.T) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "crossfade")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../cmd/crossfade").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// demo plays the demo and returns where its metrics are.
func demo(t *testing.T, program string, environ []string) (host string) {
	t.Helper()
	said := run(t, environ, program, "demo", "--listen", "127.0.0.1:0", "--dir", filepath.Join(t.TempDir(), "demo"))
	return saidWhere(t, said, `http://(127\.0\.0\.1:\d+)/metrics`)
}

// saidWhere waits until a program has said an address, which is the pattern's
// group.
func saidWhere(t *testing.T, said *lockedBuffer, pattern string) (host string) {
	t.Helper()
	address := regexp.MustCompile(pattern)
	within(t, "a gateway says where its metrics are", func() error {
		found := address.FindStringSubmatch(said.String())
		if found == nil {
			return fmt.Errorf("it says %q", said)
		}
		host = found[1]
		return nil
	})
	return host
}

// scraping starts a Prometheus that scrapes hosts each second, keeps exemplars and
// has the rules.
func scraping(t *testing.T, hosts ...string) server {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal("prometheus is not installed: run make needs")
	}
	rules, err := filepath.Abs("rules")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf(`global: { scrape_interval: 1s, evaluation_interval: 1s, external_labels: {} }
rule_files: [ %q ]
scrape_configs:
  - job_name: crossfade
    static_configs: [ { targets: [ "%s" ], labels: { cluster: demo } } ]
`, filepath.Join(rules, "*.yaml"), strings.Join(hosts, `", "`))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := server{free(t)}
	run(t, nil, path, "--enable-feature=exemplar-storage", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+p.address)
	within(t, "Prometheus is ready", func() error { _, err := p.query("vector(1)"); return err })
	return p
}

// free is an address where nobody listens.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func within(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("after %s still not: %s: %v", patience, what, err)
			t.FailNow()
		}
		<-time.After(200 * time.Millisecond)
	}
}

// get asks the API of Prometheus.
func (s server) get(path string, into any) error {
	c := http.Client{Timeout: 10 * time.Second}
	resp, err := c.Get("http://" + s.address + path)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var reply struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil {
		return err
	}
	if reply.Status != "success" {
		return fmt.Errorf("%s: %s", reply.Status, reply.Error)
	}
	return json.Unmarshal(reply.Data, into)
}

// query returns how many series an expression has now.
func (s server) query(expr string) (n int, err error) {
	var data struct{ Result []json.RawMessage }
	err = s.get("/api/v1/query?query="+url.QueryEscape(expr), &data)
	return len(data.Result), err
}

func (s server) has(expr string) error {
	n, err := s.query(expr)
	if err == nil && n == 0 {
		err = fmt.Errorf("%s has no data", expr)
	}
	return err
}

// healthy says what is wrong with the rules as they are loaded and evaluated, and
// with what active alerts say.
func (s server) healthy(t *testing.T) error {
	t.Helper()
	var loaded struct {
		Groups []struct {
			Name     string
			Interval float64
			Rules    []struct {
				Name, Health, LastError string
				Alerts                  []struct{ Annotations map[string]string }
			}
		}
	}
	if err := s.get("/api/v1/rules", &loaded); err != nil {
		return err
	}
	count := 0
	for _, g := range loaded.Groups {
		for _, r := range g.Rules {
			count++
			if r.Health != "ok" && g.Interval < 60 || r.LastError != "" {
				return fmt.Errorf("%s is %s %s", r.Name, r.Health, r.LastError)
			}
			for _, a := range r.Alerts {
				for name, text := range a.Annotations {
					if strings.Contains(text, "<error") || strings.Contains(text, "<no value>") || strings.Contains(text, "  ") {
						t.Errorf("%s: its %s is %q", r.Name, name, text)
					}
				}
			}
		}
	}
	if want := len(rulesOf(t, "recording.yaml")) + len(rulesOf(t, "alerts.yaml")); count != want {
		return fmt.Errorf("%d rules are loaded, not %d", count, want)
	}
	return nil
}
