package dashboards

import (
	"path/filepath"
	"regexp"
	"testing"
)

// A Query is one that Grafana sends for a dashboard, with its variables in it.
type Query struct {
	// Board is the file's name; Panel the title, of an annotation or a variable
	// its name.
	Board, Panel, Ref string
	Expr              string
	// Exemplar tells that Grafana asks for the exemplars of Expr too.
	Exemplar bool
	// Label is the one whose values a variable has; "" for the others. Expr
	// selects the series.
	Label string
}

// Queries are those of all panels, annotations and variables.
func Queries(t *testing.T) (panels, annotations, variables []Query) {
	t.Helper()
	values := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
	for _, b := range grafanaBoards(t) {
		board := filepath.Base(b.file)
		for _, p := range b.panels() {
			for _, target := range p.Targets {
				panels = append(panels, Query{Board: board, Panel: p.Title, Ref: target.RefID, Expr: target.Expr, Exemplar: target.Exemplar})
			}
		}
		for _, a := range b.Annotations.List {
			annotations = append(annotations, Query{Board: board, Panel: a.Name, Expr: a.Expr})
		}
		for _, v := range b.Templating.List {
			if v.Type != "query" {
				continue
			}
			m := values.FindStringSubmatch(v.Query)
			if m == nil {
				t.Fatalf("%s: what does the variable %s ask: %s", board, v.Name, v.Query)
			}
			variables = append(variables, Query{Board: board, Panel: v.Name, Expr: m[1], Label: m[2]})
		}
	}
	return panels, annotations, variables
}
