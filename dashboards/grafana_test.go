package dashboards

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// The rules below are those of Grafana's dashboard-linter
// (github.com/grafana/dashboard-linter, docs/index.md), none of them excluded, as
// far as they are about Prometheus, and what else every dashboard here holds.

// A grafanaBoard is what the rules look at. Fields are as Grafana names them.
type grafanaBoard struct {
	file string

	UID          string
	Title        string
	Description  string
	Tags         []string
	Editable     *bool
	GraphTooltip int
	Refresh      string
	Time         struct{ From, To string }
	Links        []grafanaLink
	Templating   struct{ List []grafanaVariable }
	Annotations  struct{ List []grafanaAnnotation }
	Panels       []grafanaPanel
}

type grafanaLink struct {
	Type, URL             string
	Tags                  []string
	IncludeVars, KeepTime bool
}

type grafanaSource struct{ Type, UID string }

type grafanaVariable struct {
	Name, Label, Type, Query, AllValue string
	Datasource                         grafanaSource
	Multi, IncludeAll                  bool
	Refresh                            int
}

type grafanaAnnotation struct {
	Name, Expr string
	Enable     bool
	Datasource grafanaSource
}

type grafanaPanel struct {
	ID                       int
	Type, Title, Description string
	Datasource               grafanaSource
	GridPos                  struct{ X, Y, W, H int }
	Links                    []grafanaLink
	Targets                  []grafanaTarget
	FieldConfig              struct {
		Defaults struct {
			Unit       string
			Thresholds struct{ Steps []json.RawMessage }
			Color      struct{ Mode string }
			Mappings   []grafanaMapping
		}
		Overrides []struct {
			Properties []struct {
				ID    string
				Value json.RawMessage
			}
		}
	}
}

type grafanaMapping struct {
	Options map[string]struct{ Text, Color string }
}

type grafanaTarget struct {
	RefID, Expr, Format, LegendFormat string
	Exemplar                          bool
	Datasource                        grafanaSource
}

// grafanaBoards reads the committed dashboards.
func grafanaBoards(t *testing.T) []grafanaBoard {
	t.Helper()
	files, err := filepath.Glob("grafana/*.json")
	if err != nil || len(files) != 3 {
		t.Fatalf("found %v (%v), not three dashboards", files, err)
	}
	all := make([]grafanaBoard, len(files))
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &all[i]); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[i].file = file
	}
	return all
}

// panels are those with something in them; a row is a heading.
func (b grafanaBoard) panels() []grafanaPanel {
	return slices.DeleteFunc(slices.Clone(b.Panels), func(p grafanaPanel) bool { return p.Type == "row" })
}

func (b grafanaBoard) variable(name string) grafanaVariable {
	for _, v := range b.Templating.List {
		if v.Name == name {
			return v
		}
	}
	return grafanaVariable{}
}

// expressions are those of panels and annotations by where they are, parsed.
func (b grafanaBoard) expressions(t *testing.T) map[string]parser.Expr {
	t.Helper()
	all := map[string]parser.Expr{}
	add := func(where, text string) {
		e, err := promQL(text)
		if err != nil {
			t.Errorf("%s: %s: %v in %s", b.file, where, err, text)
			return
		}
		all[b.file+": "+where] = e
	}
	for _, p := range b.panels() {
		for _, target := range p.Targets {
			add(fmt.Sprintf("%s (%d) %s", p.Title, p.ID, target.RefID), target.Expr)
		}
	}
	for _, a := range b.Annotations.List {
		add("annotation "+a.Name, a.Expr)
	}
	return all
}

// What stands for Grafana's intervals while expressions are parsed: lengths of
// time that nobody writes.
const (
	rateInterval  = 8869990 * time.Second
	rangeInterval = 6069770 * time.Second
)

func promQL(text string) (parser.Expr, error) {
	text = strings.ReplaceAll(text, "$__rate_interval", fmt.Sprintf("%ds", int(rateInterval.Seconds())))
	return parser.ParseExpr(strings.ReplaceAll(text, "$__range", fmt.Sprintf("%ds", int(rangeInterval.Seconds()))))
}

// selectors calls f for each selector with its parents, the nearest last.
func selectors(e parser.Expr, f func(*parser.VectorSelector, []parser.Node)) {
	parser.Inspect(e, func(node parser.Node, path []parser.Node) error {
		if s, ok := node.(*parser.VectorSelector); ok {
			f(s, path)
		}
		return nil
	})
}

const chosenSource = "${datasource}"

func TestDataSourceIsAVariable(t *testing.T) {
	t.Parallel()
	for _, b := range grafanaBoards(t) {
		if v := b.variable("datasource"); v.Type != "datasource" || v.Query != "prometheus" || v.Label != "Data source" {
			t.Errorf("%s: the variable of the data source is %+v", b.file, v)
		}
		want := grafanaSource{"prometheus", chosenSource}
		for _, v := range b.Templating.List {
			if v.Type == "query" && v.Datasource != want {
				t.Errorf("%s: variable %s asks %+v", b.file, v.Name, v.Datasource)
			}
		}
		for _, a := range b.Annotations.List {
			if a.Datasource != want {
				t.Errorf("%s: annotation %s asks %+v", b.file, a.Name, a.Datasource)
			}
		}
		for _, p := range b.panels() {
			if p.Datasource != want {
				t.Errorf("%s: panel %s asks %+v", b.file, p.Title, p.Datasource)
			}
			for _, target := range p.Targets {
				if target.Datasource != want {
					t.Errorf("%s: panel %s asks %+v in %s", b.file, p.Title, target.Datasource, target.RefID)
				}
			}
		}
	}
}

func TestVariablesChooseClusterJobInstanceAndTeam(t *testing.T) {
	t.Parallel()
	for _, b := range grafanaBoards(t) {
		for name, all := range map[string]string{"cluster": ".*", "job": ".+", "instance": ".+", "team": ".+"} {
			v := b.variable(name)
			if v.Type != "query" || !strings.EqualFold(v.Label, name) || v.Label == name {
				t.Errorf("%s: variable %s has type %q and label %q", b.file, name, v.Type, v.Label)
			}
			if !v.Multi || !v.IncludeAll || v.AllValue != all {
				t.Errorf("%s: variable %s: several %v, all %v as %q", b.file, name, v.Multi, v.IncludeAll, v.AllValue)
			}
			const onTimeRangeChange = 2
			if v.Refresh != onTimeRangeChange {
				t.Errorf("%s: variable %s does not follow the time range", b.file, name)
			}
			m := regexp.MustCompile(`^label_values\((.*), ` + name + `\)$`).FindStringSubmatch(v.Query)
			if m == nil {
				t.Errorf("%s: variable %s is %s", b.file, name, v.Query)
			} else if _, err := promQL(m[1]); err != nil {
				t.Errorf("%s: variable %s: %v", b.file, name, err)
			}
		}
	}
}

// The units of Grafana that are used here
// (packages/grafana-data/src/valueFormats/categories.ts there).
var grafanaUnits = []string{"none", "short", "percentunit", "s", "bytes", "reqps"}

func TestPanelsSayWhatTheyShowInWhichUnit(t *testing.T) {
	t.Parallel()
	for _, b := range grafanaBoards(t) {
		seen := map[int]bool{}
		for _, p := range b.panels() {
			if p.Title == "" || len(p.Description) < 20 {
				t.Errorf("%s: panel %d has title %q and description %q", b.file, p.ID, p.Title, p.Description)
			}
			if !slices.Contains(grafanaUnits, p.FieldConfig.Defaults.Unit) {
				t.Errorf("%s: panel %s has unit %q", b.file, p.Title, p.FieldConfig.Defaults.Unit)
			}
			for _, o := range p.FieldConfig.Overrides {
				for _, property := range o.Properties {
					var unit string
					if property.ID == "unit" && (json.Unmarshal(property.Value, &unit) != nil || !slices.Contains(grafanaUnits, unit)) {
						t.Errorf("%s: panel %s has a column with unit %s", b.file, p.Title, property.Value)
					}
				}
			}
			if len(p.FieldConfig.Defaults.Thresholds.Steps) == 0 {
				t.Errorf("%s: panel %s has no thresholds", b.file, p.Title)
			}
			if p.ID == 0 || seen[p.ID] {
				t.Errorf("%s: panel %s has number %d", b.file, p.Title, p.ID)
			}
			seen[p.ID] = true
			refs := map[string]bool{}
			for _, target := range p.Targets {
				if target.RefID == "" || refs[target.RefID] {
					t.Errorf("%s: panel %s has a query called %q", b.file, p.Title, target.RefID)
				}
				refs[target.RefID] = true
				if target.LegendFormat == "" && p.Type != "table" {
					t.Errorf("%s: panel %s: what %s gives has no name", b.file, p.Title, target.RefID)
				}
			}
			if len(refs) == 0 {
				t.Errorf("%s: panel %s has no query", b.file, p.Title)
			}
		}
	}
}

func TestEverySelectorKeepsToTheChosenReplicas(t *testing.T) {
	t.Parallel()
	for _, b := range grafanaBoards(t) {
		for where, e := range b.expressions(t) {
			found := 0
			selectors(e, func(s *parser.VectorSelector, _ []parser.Node) {
				found++
				for _, name := range []string{"cluster", "job", "instance"} {
					if !slices.ContainsFunc(s.LabelMatchers, func(m *labels.Matcher) bool {
						return m.Name == name && m.Type == labels.MatchRegexp && m.Value == "$"+name
					}) {
						t.Errorf("%s: %s does not match %s", where, s, name)
					}
				}
			})
			if found == 0 {
				t.Errorf("%s: nothing is selected by %s", where, e)
			}
		}
	}
}

func TestCountersAreRatesOverAnIntervalOfGrafana(t *testing.T) {
	t.Parallel()
	for _, b := range grafanaBoards(t) {
		for where, e := range b.expressions(t) {
			selectors(e, func(s *parser.VectorSelector, path []parser.Node) {
				var function string
				var over time.Duration
				if len(path) > 1 {
					if m, ok := path[len(path)-1].(*parser.MatrixSelector); ok {
						over = m.Range
						if call, ok := path[len(path)-2].(*parser.Call); ok {
							function = call.Func.Name
						}
					}
				}
				if err := ranged(s.Name, function, over); err != nil {
					t.Errorf("%s: %v", where, err)
				}
			})
		}
	}
}

var isCounter = regexp.MustCompile(`_(total|bucket|count|sum)$`)

// ranged says what is wrong with a metric as the argument of function ("" for
// none) over a time.
func ranged(metric, function string, over time.Duration) error {
	switch {
	case !isCounter.MatchString(metric):
		if function == "rate" || function == "increase" {
			return fmt.Errorf("%s is no counter and has no %s", metric, function)
		}
	case function != "rate" && function != "increase":
		return fmt.Errorf("the counter %s is not in rate or increase", metric)
	case function == "rate" && over != rateInterval:
		return fmt.Errorf("the rate of %s is not over $__rate_interval", metric)
	case over != rateInterval && over != rangeInterval:
		return fmt.Errorf("the increase of %s is over neither $__rate_interval nor $__range", metric)
	}
	return nil
}

// exported are the labels of each metric that a gateway can show. The list of its
// own is held by a test of gateway/telemetry; the others are of the client
// library's collectors.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../gateway/telemetry/testdata/metrics.golden")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{
		"go_goroutines": nil, "process_cpu_seconds_total": nil,
		"process_resident_memory_bytes": nil, "process_start_time_seconds": nil,
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), "{")
		own := strings.FieldsFunc(strings.TrimSuffix(rest, "}"), func(r rune) bool { return r == ',' })
		if strings.HasSuffix(name, "_duration_seconds") { // the histograms
			all[name+"_sum"], all[name+"_count"] = own, own
			all[name+"_bucket"] = append(slices.Clone(own), "le")
			continue
		}
		all[name] = own
	}
	if len(all) < 40 {
		t.Fatalf("only %d metrics are known", len(all))
	}
	return all
}

// scraped are the labels that a scrape adds.
var scraped = []string{"cluster", "job", "instance"}

func TestMetricsAndLabelsAreThoseOfTheGateway(t *testing.T) {
	t.Parallel()
	known := exported(t)
	used := map[string]bool{}
	check := func(where string, e parser.Expr) {
		mine := slices.Clone(scraped) // labels of any metric in the expression
		selectors(e, func(s *parser.VectorSelector, _ []parser.Node) {
			own, ok := known[s.Name]
			if !ok {
				t.Errorf("%s: no gateway exports %s", where, s.Name)
				return
			}
			used[s.Name] = true
			mine = append(mine, own...)
			for _, m := range s.LabelMatchers {
				if m.Name != "__name__" && !slices.Contains(own, m.Name) && !slices.Contains(scraped, m.Name) {
					t.Errorf("%s: %s has no label %s", where, s.Name, m.Name)
				}
			}
		})
		parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
			var grouping []string
			switch n := node.(type) {
			case *parser.AggregateExpr:
				grouping = n.Grouping
			case *parser.BinaryExpr:
				if n.VectorMatching != nil {
					grouping = append(slices.Clone(n.VectorMatching.MatchingLabels), n.VectorMatching.Include...)
				}
			}
			for _, name := range grouping {
				if !slices.Contains(mine, name) {
					t.Errorf("%s: nothing here has the label %s", where, name)
				}
			}
			return nil
		})
	}
	for _, b := range grafanaBoards(t) {
		for where, e := range b.expressions(t) {
			check(where, e)
		}
		for _, v := range b.Templating.List {
			if m := regexp.MustCompile(`^label_values\((.*), \w+\)$`).FindStringSubmatch(v.Query); m != nil {
				e, err := promQL(m[1])
				if err != nil {
					t.Fatal(err)
				}
				check(b.file+": variable "+v.Name, e)
			}
		}
		for _, p := range b.panels() {
			legends(t, b.file, p)
		}
	}
	for name := range known {
		seen := used[name] || strings.HasSuffix(name, "_sum") ||
			strings.HasSuffix(name, "_count") && used[strings.TrimSuffix(name, "_count")+"_bucket"]
		if !seen {
			t.Errorf("%s is on no dashboard: show it, or say here why not", name)
		}
	}
}

// legends looks that each label in a legend is one that the query keeps.
func legends(t *testing.T, file string, p grafanaPanel) {
	t.Helper()
	for _, target := range p.Targets {
		for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(target.LegendFormat, -1) {
			e, err := promQL(target.Expr)
			if err != nil {
				continue // said elsewhere
			}
			kept := false
			parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
				if a, ok := node.(*parser.AggregateExpr); ok && slices.Contains(a.Grouping, m[1]) {
					kept = true
				}
				return nil
			})
			if !kept {
				t.Errorf("%s: panel %s: %s keeps no label %s", file, p.Title, target.RefID, m[1])
			}
		}
	}
}

func TestEveryRolloutChangeIsMarked(t *testing.T) {
	t.Parallel()
	for _, b := range grafanaBoards(t) {
		matched := map[string]bool{}
		for _, a := range b.Annotations.List {
			if !a.Enable {
				t.Errorf("%s: annotation %s is off", b.file, a.Name)
			}
			e, err := promQL(a.Expr)
			if err != nil {
				t.Fatal(err)
			}
			selectors(e, func(s *parser.VectorSelector, _ []parser.Node) {
				if s.Name != "crossfade_rollout_changes_total" {
					return
				}
				for _, source := range []string{"cli", "file", "demo", "api", "rollback", "other"} {
					matches := true
					for _, m := range s.LabelMatchers {
						if m.Name == "source" {
							matches = matches && m.Matches(source)
						}
					}
					matched[source] = matched[source] || matches
				}
			})
		}
		for _, source := range []string{"cli", "file", "demo", "api", "rollback", "other"} {
			if !matched[source] {
				t.Errorf("%s: changes by %s are not marked", b.file, source)
			}
		}
	}
}

func TestDashboardsOpenAlikeAndLeadToEachOther(t *testing.T) {
	t.Parallel()
	uids := map[string]bool{}
	for _, b := range grafanaBoards(t) {
		if b.UID == "" || uids[b.UID] || b.Title == "" || b.Description == "" {
			t.Errorf("%s: uid %q, title %q, description %q", b.file, b.UID, b.Title, b.Description)
		}
		uids[b.UID] = true
		if b.Editable == nil || *b.Editable {
			t.Errorf("%s can be edited, and would lose that", b.file)
		}
		const sharedCrosshair = 1
		if b.GraphTooltip != sharedCrosshair || b.Time.From != "now-6h" || b.Time.To != "now" || b.Refresh != "1m" {
			t.Errorf("%s: crosshair %d, time %v, refresh %q", b.file, b.GraphTooltip, b.Time, b.Refresh)
		}
		if !slices.ContainsFunc(b.Links, func(l grafanaLink) bool {
			return l.Type == "dashboards" && slices.Equal(l.Tags, b.Tags) && l.IncludeVars && l.KeepTime
		}) {
			t.Errorf("%s does not lead to the others with what was chosen", b.file)
		}
	}
}

func TestLatencyLeadsToTraces(t *testing.T) {
	t.Parallel()
	histograms := map[string]bool{}
	for _, b := range grafanaBoards(t) {
		for _, p := range b.panels() {
			for _, target := range p.Targets {
				m := regexp.MustCompile(`crossfade_(\w+_duration_seconds)_bucket`).FindStringSubmatch(target.Expr)
				if m == nil || p.Type != "timeseries" {
					continue
				}
				if slices.ContainsFunc(p.Targets, func(t grafanaTarget) bool { return t.Exemplar }) {
					histograms[m[1]] = true
				} else {
					t.Errorf("%s: panel %s shows no exemplars", b.file, p.Title)
				}
			}
		}
	}
	for _, name := range []string{"request_duration_seconds", "auth_duration_seconds", "upstream_duration_seconds"} {
		if !histograms[name] {
			t.Errorf("no graph shows the exemplars of %s", name)
		}
	}
}

var runbookLink = regexp.MustCompile(`^https://[^#]*/RUNBOOK\.md#([a-z0-9-]*)$`)

func TestEveryPanelLeadsToTheRunbook(t *testing.T) {
	t.Parallel()
	runbook, err := os.ReadFile("RUNBOOK.md")
	sections := map[string]bool{"": true}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(runbook), -1) {
		sections[strings.ReplaceAll(strings.ToLower(strings.Trim(m[1], "` ")), " ", "-")] = true
	}
	for _, b := range grafanaBoards(t) {
		for _, p := range b.panels() {
			if len(p.Links) != 1 || !runbookLink.MatchString(p.Links[0].URL) {
				t.Errorf("%s: panel %s has links %+v", b.file, p.Title, p.Links)
				continue
			}
			section := runbookLink.FindStringSubmatch(p.Links[0].URL)[1]
			if err == nil && !sections[section] {
				t.Errorf("%s: panel %s leads to %q, which the runbook has not", b.file, p.Title, section)
			}
		}
	}
}

// The palette of Okabe and Ito and two greys; see generate/look.go.
var safeColours = []string{
	"#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#F0E442", "#999999", "#CCCCCC",
}

func TestColoursAreSafeAndNeverAlone(t *testing.T) {
	t.Parallel()
	colour := regexp.MustCompile(`"(?:color|fixedColor|iconColor)": "([^"]+)"`)
	for _, b := range grafanaBoards(t) {
		text, err := os.ReadFile(b.file)
		if err != nil {
			t.Fatal(err)
		}
		found := colour.FindAllStringSubmatch(string(text), -1)
		if len(found) < 20 {
			t.Errorf("%s: only %d colours found", b.file, len(found))
		}
		for _, m := range found {
			if !slices.Contains(safeColours, m[1]) {
				t.Errorf("%s: %s is not of the palette", b.file, m[1])
			}
		}
		for _, p := range b.panels() {
			defaults := p.FieldConfig.Defaults
			switch defaults.Color.Mode {
			case "fixed", "thresholds", "continuous-blues":
			default: // the classic palettes have red and green that many cannot tell apart
				t.Errorf("%s: panel %s has the colours %q", b.file, p.Title, defaults.Color.Mode)
			}
			for _, m := range defaults.Mappings {
				words := map[string]bool{}
				for value, o := range m.Options {
					if o.Text == "" || words[o.Text] {
						t.Errorf("%s: panel %s says %q for %s", b.file, p.Title, o.Text, value)
					}
					words[o.Text] = true
				}
			}
		}
	}
}

// Panels are of a size that can be read on a screen of 1920 by 1080 points, and
// lie in none of the others.
func TestPanelsLieBesideEachOther(t *testing.T) {
	t.Parallel()
	for _, b := range grafanaBoards(t) {
		for i, p := range b.Panels {
			at := p.GridPos
			if at.X < 0 || at.W < 3 || at.X+at.W > 24 {
				t.Errorf("%s: %s is at %+v", b.file, p.Title, at)
			}
			if p.Type == "timeseries" && (at.W < 8 || at.H < 8) {
				t.Errorf("%s: the graph %s has no room: %+v", b.file, p.Title, at)
			}
			for _, other := range b.Panels[i+1:] {
				o := other.GridPos
				if at.X < o.X+o.W && o.X < at.X+at.W && at.Y < o.Y+o.H && o.Y < at.Y+at.H {
					t.Errorf("%s: %s and %s lie on each other", b.file, p.Title, other.Title)
				}
			}
		}
	}
}

// A rule that nothing can break would say nothing.
func TestTheRuleAboutCountersTellsRightFromWrong(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		metric, function string
		over             time.Duration
		ok               bool
	}{
		{"x_total", "rate", rateInterval, true},
		{"x_total", "increase", rateInterval, true},
		{"x_total", "increase", rangeInterval, true},
		{"x_bucket", "rate", rateInterval, true},
		{"x_ratio", "", 0, true},
		{"x_total", "rate", 5 * time.Minute, false},
		{"x_total", "rate", rangeInterval, false},
		{"x_total", "increase", time.Hour, false},
		{"x_total", "", 0, false},
		{"x_total", "delta", rateInterval, false},
		{"x_ratio", "rate", rateInterval, false},
	} {
		if err := ranged(tt.metric, tt.function, tt.over); (err == nil) != tt.ok {
			t.Errorf("%s in %s over %v: %v, right should be %v", tt.metric, tt.function, tt.over, err, tt.ok)
		}
	}
}
