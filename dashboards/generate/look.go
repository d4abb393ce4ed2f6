package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/bargauge"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/statushistory"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// The palette of Okabe and Ito (Color Universal Design, 2008), which people with
// any common kind of colour blindness can tell apart, and two greys. Nothing is
// told by colour alone: states have words, lines have dashes, areas have a legend
// with numbers, and what has any number of names, such as teams, is a row with
// its name and its value in it instead of a line.
const (
	blue       = "#0072B2"
	sky        = "#56B4E9"
	green      = "#009E73"
	orange     = "#E69F00"
	vermillion = "#D55E00"
	purple     = "#CC79A7"
	yellow     = "#F0E442"
	grey       = "#999999"
	pale       = "#CCCCCC"
)

// What the colours of states and thresholds mean.
const (
	fine    = sky
	warning = orange
	bad     = vermillion
	neutral = grey
)

// series is a line or area with a name that is known beforehand.
type series struct{ name, colour string }

func verdictSeries() []series {
	return []series{
		{"match_allow", sky},
		{"match_deny", blue},
		{"would_break", vermillion},
		{"no_token", orange},
		{"would_open", purple},
		{"identity_drift", yellow},
		{"legacy_lapsed", green},
		{"indeterminate", grey},
		{"not_evaluated", pale},
	}
}

func schemeSeries() []series {
	return []series{{"basic", vermillion}, {"api_key", orange}, {"static_bearer", purple}, {"oidc", sky}, {"none", grey}}
}

func outcomeSeries() []series {
	return []series{
		{"allowed", sky},
		{"refused", orange},
		{"unavailable", vermillion},
		{"would_refuse", purple},
		{"exempt", grey},
		{"undecided", pale},
	}
}

func ownerSeries() []series {
	return []series{{"team", orange}, {"platform", blue}, {"idp", green}, {"security", vermillion}}
}

func resultSeries() []series {
	return []series{{"ok", sky}, {"error", vermillion}, {"lost", orange}}
}

// states maps numbers to words, in their order, each with its colour.
func states(list ...state) []dashboard.ValueMapping {
	options := map[string]dashboard.ValueMappingResult{}
	for i, s := range list {
		options[fmt.Sprint(s.value)] = dashboard.ValueMappingResult{
			Text: cog.ToPtr(s.word), Color: cog.ToPtr(s.colour), Index: cog.ToPtr(int32(i)),
		}
	}
	m := dashboard.NewValueMap()
	m.Options = options
	return []dashboard.ValueMapping{{ValueMap: m}}
}

type state struct {
	value  int
	word   string
	colour string
}

func answerStates() []dashboard.ValueMapping {
	return states(state{0, "not known yet", neutral}, state{1, "done", blue}, state{2, "ready", green},
		state{3, "waiting", sky}, state{4, "held", warning}, state{5, "blocked", bad})
}

func phaseStates() []dashboard.ValueMapping {
	return states(state{0, "not known yet", neutral}, state{1, "shadow", neutral}, state{2, "ramp", sky},
		state{3, "enforced", green}, state{4, "retired", blue})
}

// step is from which value on something has another colour.
type step struct {
	from   float64
	colour string
}

// limits are thresholds above a base that is fine.
func limits(steps ...step) *dashboard.ThresholdsConfigBuilder { return limitsOver(fine, steps...) }

func limitsOver(base string, steps ...step) *dashboard.ThresholdsConfigBuilder {
	list := []dashboard.Threshold{{Color: base}}
	for _, s := range steps {
		list = append(list, dashboard.Threshold{Value: cog.ToPtr(s.from), Color: s.colour})
	}
	return dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(list)
}

func scheme(mode dashboard.FieldColorModeId) *dashboard.FieldColorBuilder {
	return dashboard.NewFieldColorBuilder().Mode(mode)
}

func property(id string, value any) dashboard.DynamicConfigValue {
	return dashboard.DynamicConfigValue{Id: id, Value: value}
}

func fixed(colour string) dashboard.DynamicConfigValue {
	return property("color", map[string]any{"mode": "fixed", "fixedColor": colour})
}

// The dashes of lines, so that they are told apart in black and white too.
func dashes(i int) dashboard.DynamicConfigValue {
	styles := []map[string]any{
		{"fill": "solid"},
		{"fill": "dash", "dash": []int{12, 6}},
		{"fill": "dot", "dash": []int{0, 6}},
		{"fill": "dash", "dash": []int{24, 8}},
		{"fill": "dash", "dash": []int{4, 4}},
		{"fill": "dot", "dash": []int{0, 14}},
		{"fill": "dash", "dash": []int{16, 4}},
	}
	return property("custom.lineStyle", styles[i%len(styles)])
}

func legend() *common.VizLegendOptionsBuilder {
	return common.NewVizLegendOptionsBuilder().ShowLegend(true).
		DisplayMode(common.LegendDisplayModeTable).Placement(common.LegendPlacementRight).
		Calcs([]string{"lastNotNull", "max"})
}

func tooltip() *common.VizTooltipOptionsBuilder {
	return common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending)
}

type targets = []cog.Builder[variants.Dataquery]

// lines is a graph with a line for each of names. Others are grey.
func lines(unit string, names []series, queries ...cog.Builder[variants.Dataquery]) *timeseries.PanelBuilder {
	b := graph(unit, queries).LineWidth(2).FillOpacity(0).ShowPoints(common.VisibilityModeAuto)
	for i, s := range names {
		b.OverrideByName(s.name, []dashboard.DynamicConfigValue{fixed(s.colour), dashes(i)})
	}
	return b
}

// areas is a graph of parts that make up a whole.
func areas(unit string, names []series, queries ...cog.Builder[variants.Dataquery]) *timeseries.PanelBuilder {
	b := graph(unit, queries).LineWidth(1).FillOpacity(70).ShowPoints(common.VisibilityModeNever).
		Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal).Group("A"))
	for _, s := range names {
		b.OverrideByName(s.name, []dashboard.DynamicConfigValue{fixed(s.colour)})
	}
	return b
}

// bars counts what happens now and then.
func bars(names []series, queries ...cog.Builder[variants.Dataquery]) *timeseries.PanelBuilder {
	return areas("short", names, queries...).DrawStyle(common.GraphDrawStyleBars).FillOpacity(90)
}

func graph(unit string, queries targets) *timeseries.PanelBuilder {
	return timeseries.NewPanelBuilder().Targets(queries).Unit(unit).Min(0).
		ColorScheme(scheme(dashboard.FieldColorModeIdFixed).FixedColor(grey)).
		Thresholds(limits()).Legend(legend()).Tooltip(tooltip())
}

// limited draws the thresholds of a graph as dashed lines.
func limited(b *timeseries.PanelBuilder, steps ...step) *timeseries.PanelBuilder {
	return b.Thresholds(limits(steps...)).ThresholdsStyle(
		common.NewGraphThresholdsStyleConfigBuilder().Mode(common.GraphThresholdsStyleModeDashed))
}

// number is one value, or some with their names.
func number(unit string, t *dashboard.ThresholdsConfigBuilder, queries ...cog.Builder[variants.Dataquery]) *stat.PanelBuilder {
	return stat.NewPanelBuilder().Targets(queries).Unit(unit).Thresholds(t).
		ColorScheme(scheme(dashboard.FieldColorModeIdThresholds)).
		GraphMode(common.BigValueGraphModeNone).ColorMode(common.BigValueColorModeValue).
		TextMode(common.BigValueTextModeAuto).NoValue("none yet").
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"}))
}

// word is a state in a word.
func word(m []dashboard.ValueMapping, queries ...cog.Builder[variants.Dataquery]) *stat.PanelBuilder {
	return number("none", limitsOver(neutral), queries...).Mappings(m)
}

// timeline shows when something was in which state, a row for each series.
func timeline(m []dashboard.ValueMapping, queries ...cog.Builder[variants.Dataquery]) *statetimeline.PanelBuilder {
	return statetimeline.NewPanelBuilder().Targets(queries).Unit("none").Mappings(m).
		ColorScheme(scheme(dashboard.FieldColorModeIdThresholds)).Thresholds(limitsOver(neutral)).
		ShowValue(common.VisibilityModeAuto).MergeValues(true).RowHeight(0.85).FillOpacity(75).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(false)).Tooltip(tooltip())
}

// steps is a timeline of a share, darker when larger, with its value in words.
func steps(queries ...cog.Builder[variants.Dataquery]) *statetimeline.PanelBuilder {
	return timeline(nil, queries...).Unit("percentunit").Min(0).Max(1).Decimals(0).
		ColorScheme(scheme(dashboard.FieldColorModeIdContinuousBlues))
}

// history shows shares over time, a row for each series and its value in every cell.
func history(t *dashboard.ThresholdsConfigBuilder, queries ...cog.Builder[variants.Dataquery]) *statushistory.PanelBuilder {
	return statushistory.NewPanelBuilder().Targets(queries).Unit("percentunit").Decimals(1).
		ColorScheme(scheme(dashboard.FieldColorModeIdThresholds)).Thresholds(t).
		ShowValue(common.VisibilityModeAuto).RowHeight(0.85).ColWidth(0.95).FillOpacity(75).
		MaxDataPoints(24).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(false)).Tooltip(tooltip())
}

// ranking is a bar with name and value for each series, at the end of the time shown.
func ranking(unit string, t *dashboard.ThresholdsConfigBuilder, queries ...cog.Builder[variants.Dataquery]) *bargauge.PanelBuilder {
	return bargauge.NewPanelBuilder().Targets(queries).Unit(unit).Min(0).Thresholds(t).
		ColorScheme(scheme(dashboard.FieldColorModeIdThresholds)).NoValue("none").
		Orientation(common.VizOrientationHorizontal).DisplayMode(common.BarGaugeDisplayModeBasic).
		ValueMode(common.BarGaugeValueModeText).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"}))
}

// column is one of a table: the field that a query or a label gives, how it is
// called, and how it looks.
type column struct {
	field, title string
	look         []dashboard.DynamicConfigValue
}

// grid is a table of queries of the format table, joined by a label. Only columns
// are shown, in their order.
func grid(join string, columns []column, queries ...cog.Builder[variants.Dataquery]) *table.PanelBuilder {
	names, order, titles := []string{}, map[string]int{}, map[string]string{}
	b := table.NewPanelBuilder().Targets(queries).Unit("short").Thresholds(limits()).
		ColorScheme(scheme(dashboard.FieldColorModeIdThresholds)).
		ShowHeader(true).CellHeight(common.TableCellHeightSm).Filterable(true)
	for i, c := range columns {
		names = append(names, c.field)
		order[c.field], titles[c.field] = i, c.title
		if c.look != nil {
			b.OverrideByName(c.title, c.look)
		}
	}
	return b.
		WithTransformation(dashboard.DataTransformerConfig{
			Id: "joinByField", Options: map[string]any{"byField": join, "mode": "outer"},
		}).
		WithTransformation(dashboard.DataTransformerConfig{
			Id: "filterFieldsByName", Options: map[string]any{"include": map[string]any{"names": names}},
		}).
		WithTransformation(dashboard.DataTransformerConfig{
			Id: "organize", Options: map[string]any{"indexByName": order, "renameByName": titles, "excludeByName": map[string]any{}},
		})
}

// Looks of columns.

func percent(t *dashboard.ThresholdsConfigBuilder) []dashboard.DynamicConfigValue {
	return append(coloured("percentunit", t), property("decimals", 1))
}

func coloured(unit string, t *dashboard.ThresholdsConfigBuilder) []dashboard.DynamicConfigValue {
	look := []dashboard.DynamicConfigValue{property("unit", unit)}
	if t != nil {
		built, err := t.Build()
		if err != nil { // a mistake in this program
			panic(err)
		}
		look = append(look, property("thresholds", built), property("custom.cellOptions", map[string]any{"type": "color-text"}))
	}
	return look
}

func worded(m []dashboard.ValueMapping) []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{
		property("mappings", m), property("custom.cellOptions", map[string]any{"type": "color-text"}),
	}
}

func width(pixels int) []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{property("custom.width", pixels)}
}

func checkStates(open string) []dashboard.ValueMapping {
	return states(state{0, open, warning}, state{1, "passes", fine})
}
