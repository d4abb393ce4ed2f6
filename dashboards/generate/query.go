package main

import (
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
)

// Matchers of what the variables at the top of a dashboard choose.
const (
	chosenGateways = `cluster=~"$cluster", job=~"$job", instance=~"$instance"`
	chosenTeams    = `team=~"$team"`
)

// Matchers of label values that belong together.
const (
	legacySchemes = `scheme=~"basic|api_key|static_bearer"`
	letIn         = `outcome="allowed"`
	// A share of mismatches is one of the requests whose client sent a token that
	// could be judged, as in the gateway's own bound on bad runs and in the rules
	// beside these dashboards.
	judged     = `evidence="client", verdict!~"indeterminate|not_evaluated"`
	mismatched = `evidence="client", verdict=~"would_break|would_open|identity_drift"`
	evaluated  = `evidence!="probe", verdict!="not_evaluated"`
)

// of selects a metric of the gateway at the chosen replicas.
func of(metric string, matchers ...string) string {
	return foreign("crossfade_"+metric, matchers...)
}

// foreign selects a metric that is not the gateway's own.
func foreign(metric string, matchers ...string) string {
	return metric + "{" + strings.Join(append([]string{chosenGateways}, matchers...), ", ") + "}"
}

// rate is what a counter of the gateway gains a second.
func rate(metric string, matchers ...string) string {
	return "rate(" + of(metric, matchers...) + "[$__rate_interval])"
}

// gained is what a counter gains from one point of a graph to the next.
func gained(metric string, matchers ...string) string {
	return "increase(" + of(metric, matchers...) + "[$__rate_interval])"
}

// inRange is what a counter gained in the whole time shown.
func inRange(metric string, matchers ...string) string {
	return "increase(" + of(metric, matchers...) + "[$__range])"
}

// by aggregates: by("sum", "team, verdict", x). Without labels it is over all.
func by(function, labels, expr string) string {
	if labels == "" {
		return function + "(" + expr + ")"
	}
	return function + " by (" + labels + ") (" + expr + ")"
}

// share divides. There is none while nothing is in whole.
func share(part, whole string) string { return part + " / (" + whole + " > 0)" }

// orNone is 0 where expr has no series yet, though the counter has others: a code
// that was never seen is no gap in the data.
func orNone(expr, counter string) string {
	return expr + " or 0 * " + by("sum", "", rate(counter))
}

// quantile of a histogram of the gateway, by labels ("" for none).
func quantile(q float64, labels, histogram string) string {
	le := "le"
	if labels != "" {
		le += ", " + labels
	}
	return fmt.Sprintf("histogram_quantile(%v, %s)", q, by("sum", le, rate(histogram+"_bucket")))
}

// assessed is a gauge of how ready teams are, of the replicas that have said so
// already: before, it stands at a value that means nothing.
func assessed(metric string, matchers ...string) string {
	return of(metric, append([]string{chosenTeams}, matchers...)...) +
		" and on (cluster, job, instance, team) (" +
		of("readiness_last_assessed_timestamp_seconds", chosenTeams) + " > 0)"
}

// The numbers that stand for the answers and phases in graphs. The higher one
// wins while replicas disagree for a moment.
var (
	answers = []string{"done", "ready", "waiting", "held", "blocked"}
	phases  = []string{"shadow", "ramp", "enforced", "retired"}
)

// numbered turns a metric with one series for each of values, of which one is 1,
// into one number for each team: 1 for the first value, 0 if none is 1.
func numbered(metric, label string, values []string) string {
	terms := make([]string, len(values))
	for i, value := range values {
		terms[i] = fmt.Sprintf("%s * %d", of(metric, chosenTeams, fmt.Sprintf("%s=%q", label, value)), i+1)
	}
	return by("max", "team", strings.Join(terms, " or "))
}

// Shares by team, and of all chosen teams together with labels "".

func mismatchShare(labels string) string {
	return share(by("sum", labels, rate("shadow_verdicts_total", chosenTeams, mismatched)),
		by("sum", labels, rate("shadow_verdicts_total", chosenTeams, judged)))
}

func noTokenShare(labels string) string {
	return share(by("sum", labels, rate("shadow_verdicts_total", chosenTeams, evaluated, `verdict="no_token"`)),
		by("sum", labels, rate("shadow_verdicts_total", chosenTeams, evaluated)))
}

func legacyShare(labels string) string {
	return share(by("sum", labels, rate("requests_total", chosenTeams, letIn, legacySchemes)),
		by("sum", labels, rate("requests_total", chosenTeams, letIn, `scheme!="none"`)))
}

// query is over the time shown. legend may hold {{label}}.
func query(ref, legend, expr string) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().RefId(ref).Expr(expr).LegendFormat(legend).
		Datasource(datasource()).EditorMode(prometheus.QueryEditorModeCode).Range()
}

// traced is query with exemplars, which lead to traces.
func traced(ref, legend, expr string) *prometheus.DataqueryBuilder {
	return query(ref, legend, expr).Exemplar(true)
}

// now is the value at the end of the time shown.
func now(ref, legend, expr string) *prometheus.DataqueryBuilder {
	return query(ref, legend, expr).Instant()
}

// cells is now as rows of a table.
func cells(ref, expr string) *prometheus.DataqueryBuilder {
	return now(ref, "", expr).Format(prometheus.PromQueryFormatTable)
}
