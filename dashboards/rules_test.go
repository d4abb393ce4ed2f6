package dashboards_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// rule is one of a rules file of Prometheus.
type rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

// name is that of the series or of the alert.
func (r rule) name() string { return r.Record + r.Alert }

// rulesOf reads a file of rules.
func rulesOf(t *testing.T, file string) (rules []rule) {
	t.Helper()
	var groups struct {
		Groups []struct{ Rules []rule }
	}
	decode(t, filepath.Join("rules", file), &groups)
	for _, g := range groups.Groups {
		rules = append(rules, g.Rules...)
	}
	if len(rules) == 0 {
		t.Fatalf("no rules in %s", file)
	}
	return rules
}

func decode(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// promtool runs Prometheus's own tool on files that match a pattern in rules.
func promtool(t *testing.T, args []string, pattern string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is not installed: run make needs (Debian's package prometheus has it)")
	}
	files, err := filepath.Glob(filepath.Join("rules", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files match %s: %v", pattern, err)
	}
	if out, err := exec.CommandContext(t.Context(), path, append(args, files...)...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPromtoolAcceptsTheRules(t *testing.T) {
	t.Parallel()
	promtool(t, []string{"check", "rules"}, "*.yaml")
}

func TestAlertsFireWhenTheyShall(t *testing.T) {
	t.Parallel()
	promtool(t, []string{"test", "rules"}, "tests/*.yaml")
}

func TestEachAlertIsTestedFiringAndNotFiring(t *testing.T) {
	t.Parallel()
	fires, rests := map[string]bool{}, map[string]bool{}
	alert := regexp.MustCompile(`^ALERTS\{alertname="(\w+)",alertstate="firing"\}$`)
	files, err := filepath.Glob("rules/tests/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		var suite struct {
			Tests []struct {
				Name    string
				Queries []struct {
					Expr    string
					Samples []any `yaml:"exp_samples"`
				} `yaml:"promql_expr_test"`
			}
		}
		decode(t, file, &suite)
		for _, test := range suite.Tests {
			for _, q := range test.Queries {
				m := alert.FindStringSubmatch(q.Expr)
				if m == nil {
					t.Errorf("%s: %q asks for something else than a firing alert: %s", file, test.Name, q.Expr)
					continue
				}
				if len(q.Samples) > 0 {
					fires[m[1]] = true
				} else {
					rests[m[1]] = true
				}
			}
		}
	}
	known := map[string]bool{}
	for _, r := range rulesOf(t, "alerts.yaml") {
		known[r.Alert] = true
		if !fires[r.Alert] || !rests[r.Alert] {
			t.Errorf("%s: is tested firing: %v, and not firing: %v", r.Alert, fires[r.Alert], rests[r.Alert])
		}
	}
	for name := range fires {
		if !known[name] {
			t.Errorf("a test waits for %s, which is no alert", name)
		}
	}
}

// atOnce are the alerts without a wait: their expressions look back over a window
// for something that has happened.
var atOnce = []string{
	"CrossfadeKnownRunsRefused", "CrossfadeRaiseHurts", "CrossfadeAutomaticRollback", "CrossfadeLegacyAfterRetirement",
	"CrossfadeAttackSuspected", "CrossfadeTokenOpensMore", "CrossfadeCredentialGuessing", "CrossfadeAdminRefused",
	"CrossfadeEvidenceLost", "CrossfadeAuditLost",
}

func TestEachAlertTellsPeopleWhatTheyNeed(t *testing.T) {
	t.Parallel()
	sections := runbook(t)
	base := "https://wiki.acme.dev/crossfade/RUNBOOK.md#"
	seen := map[string]bool{}
	for _, r := range rulesOf(t, "alerts.yaml") {
		if !strings.HasPrefix(r.Alert, "Crossfade") || seen[r.Alert] {
			t.Errorf("%q: an alert is named Crossfade…, and only one is named so", r.name())
		}
		seen[r.Alert] = true
		if severity := r.Labels["severity"]; !slices.Contains([]string{"critical", "warning", "info"}, severity) {
			t.Errorf("%s has the severity %q", r.Alert, severity)
		}
		for _, name := range []string{"summary", "description"} {
			if text := r.Annotations[name]; len(text) < 10 || strings.TrimSpace(text) != text {
				t.Errorf("%s: %s is %q", r.Alert, name, text)
			}
		}
		if want := base + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url is %q, want %q", r.Alert, r.Annotations["runbook_url"], want)
		}
		if _, ok := sections[r.Alert]; !ok {
			t.Errorf("%s has no section in the runbook", r.Alert)
		}
		if wait, err := time.ParseDuration(r.For); slices.Contains(atOnce, r.Alert) != (r.For == "") || err != nil && r.For != "" || wait < 0 {
			t.Errorf("%s waits for %q: exactly those that look back over a window by themselves wait for nothing", r.Alert, r.For)
		}
		if at := slices.Contains(atOnce, r.Alert); at && !strings.Contains(r.Expr, "increase(") {
			t.Errorf("%s does not wait and looks at a moment: %s", r.Alert, r.Expr)
		}
	}
	for name, text := range sections {
		if !seen[name] {
			t.Errorf("the runbook has a section %s, which is no alert", name)
		}
		for _, part := range []string{"**Means:**", "**Look at:**", "**Do:**", "**Back:**"} {
			if strings.Count(text, "\n"+part+" ") != 1 {
				t.Errorf("the section %s lacks a line %s", name, part)
			}
		}
		for _, link := range regexp.MustCompile(`\]\(#(\w+)\)`).FindAllStringSubmatch(text, -1) {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(sections)), func(s string) bool { return strings.ToLower(s) == link[1] }) {
				t.Errorf("the section %s leads to #%s, which is not there", name, link[1])
			}
		}
	}
}

// runbook returns the sections by their titles.
func runbook(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		title, body, _ := strings.Cut(section, "\n")
		sections[title] = body
	}
	return sections
}

// targetLabels come from the scrape. cluster is there if the configuration of
// Prometheus says so; then it tells two gateways apart.
var targetLabels = []string{"cluster", "job", "instance"}

// exported is what the gateway exports, by its own list: the labels of each metric.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../gateway/telemetry/testdata/metrics.golden")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		name, list, ok := strings.Cut(strings.TrimSuffix(line, "}\n"), "{")
		if !ok {
			t.Fatalf("what is %q?", line)
		}
		all[name] = strings.Split(list, ",")
	}
	return all
}

// checkExpression finds what an expression asks for and is not there: a metric, or a
// label of it. known may have recorded series, with their labels.
func checkExpression(expression string, known map[string][]string) error {
	expr, err := parser.ParseExpr(expression)
	if err != nil {
		return err
	}
	var wrong error
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch node := node.(type) {
		case *parser.VectorSelector:
			wrong = firstOf(wrong, checkSelector(node, known))
		case *parser.AggregateExpr:
			wrong = firstOf(wrong, checkLabels(node.Grouping, labelsIn(node.Expr, known)))
		case *parser.BinaryExpr:
			if m := node.VectorMatching; m != nil {
				wrong = firstOf(wrong, checkLabels(m.MatchingLabels, labelsIn(node, known)))
				wrong = firstOf(wrong, checkLabels(m.Include, labelsIn(node, known)))
			}
		}
		return nil
	})
	return wrong
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func checkSelector(s *parser.VectorSelector, known map[string][]string) error {
	if s.Name == "" {
		return fmt.Errorf("%s names no metric", s)
	}
	have, ok := labelsOf(s.Name, known)
	if !ok {
		return fmt.Errorf("nobody exports %s", s.Name)
	}
	for _, m := range s.LabelMatchers {
		if m.Name != "__name__" && !slices.Contains(have, m.Name) {
			return fmt.Errorf("%s has no label %s", s.Name, m.Name)
		}
	}
	return nil
}

// labelsOf knows the series of histograms too.
func labelsOf(name string, known map[string][]string) (have []string, ok bool) {
	if have, ok = known[name]; ok {
		return append(slices.Clone(have), targetLabels...), true
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, cut := strings.CutSuffix(name, suffix); cut && strings.HasSuffix(base, "_duration_seconds") {
			if have, ok = known[base]; ok {
				return slices.Concat(have, targetLabels, []string{"le"}), true
			}
		}
	}
	return nil, false
}

// labelsIn are those of all series in an expression.
func labelsIn(expr parser.Node, known map[string][]string) (have []string) {
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if s, ok := node.(*parser.VectorSelector); ok {
			of, _ := labelsOf(s.Name, known)
			have = append(have, of...)
		}
		return nil
	})
	return have
}

func checkLabels(asked, have []string) error {
	for _, label := range asked {
		if !slices.Contains(have, label) {
			return fmt.Errorf("no series has the label %s", label)
		}
	}
	return nil
}

// series are what rules may ask for: what is exported, and what is recorded with the
// labels that its name begins with.
func series(t *testing.T) map[string][]string {
	t.Helper()
	known := exported(t)
	for _, r := range rulesOf(t, "recording.yaml") {
		level, _, _ := strings.Cut(r.Record, ":")
		known[r.Record] = strings.Split(level, "_")
	}
	return known
}

func TestRulesAskForWhatIsExported(t *testing.T) {
	t.Parallel()
	known := series(t)
	for _, file := range []string{"recording.yaml", "alerts.yaml"} {
		for _, r := range rulesOf(t, file) {
			if err := checkExpression(r.Expr, known); err != nil {
				t.Errorf("%s: %v", r.name(), err)
			}
		}
	}
}

func TestRecordedSeriesSayWhichLabelsTheyHave(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	form := regexp.MustCompile(`^cluster_job(_team)?:crossfade_[a-z_]+:(ratio|rate5m|ratio_rate\d+[mhd])$`)
	for _, r := range rulesOf(t, "recording.yaml") {
		if !form.MatchString(r.Record) || seen[r.Record] {
			t.Errorf("the name %s: level:metric:operation, and once", r.Record)
		}
		seen[r.Record] = true
		by := "by (cluster, job) ("
		if strings.HasPrefix(r.Record, "cluster_job_team:") {
			by = "by (cluster, job, team) ("
		}
		expr, err := parser.ParseExpr(r.Expr)
		if err != nil {
			t.Fatal(err)
		}
		parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
			if a, ok := node.(*parser.AggregateExpr); ok && !strings.Contains(a.String(), by) {
				t.Errorf("%s: %s is not %s…)", r.Record, a, by)
			}
			return nil
		})
	}
}

func TestTheCheckOfExpressionsTellsRightFromWrong(t *testing.T) {
	t.Parallel()
	known := map[string][]string{
		"crossfade_requests_total":           {"outcome", "team"},
		"crossfade_request_duration_seconds": {"scheme"},
		"crossfade_info":                     {"owner", "team"},
		"team:crossfade_x:ratio":             {"team"},
	}
	for _, tt := range []struct {
		name, expr string
		right      bool
	}{
		{"an exported metric with its labels", `sum by (cluster, job, team) (rate(crossfade_requests_total{outcome="allowed"}[5m]))`, true},
		{"the buckets of a histogram", `histogram_quantile(0.9, sum by (le) (rate(crossfade_request_duration_seconds_bucket{scheme="basic"}[5m])))`, true},
		{"a recorded series", `team:crossfade_x:ratio{team="billing"} > 0.1`, true},
		{"labels that are joined", `sum by (team) (crossfade_requests_total) * on (team) group_left (owner) crossfade_info`, true},
		{"a metric with a slip", `crossfade_request_total`, false},
		{"a metric of somebody else", `up == 0`, false},
		{"a matcher of a label that it does not have", `crossfade_requests_total{result="ok"}`, false},
		{"a grouping by a label that it does not have", `sum by (reason) (crossfade_requests_total)`, false},
		{"a join on a label that neither has", `crossfade_requests_total * on (reason) crossfade_info`, false},
		{"labels brought from a side that has none", `crossfade_requests_total * on (team) group_left (hash) crossfade_info`, false},
		{"a counter that is taken for a histogram", `crossfade_requests_total_bucket`, false},
		{"no metric", `{team="billing"}`, false},
		{"no expression", `sum by (`, false},
	} {
		if err := checkExpression(tt.expr, known); (err == nil) != tt.right {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
