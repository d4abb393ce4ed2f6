package main

import (
	"errors"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// tag is on every dashboard; the links between them find each other by it.
const tag = "crossfade"

// The addresses of the dashboards, /d/<uid>. They stay what they are: links of
// other people point there.
const (
	overviewUID = "crossfade-overview"
	teamUID     = "crossfade-team"
	gatewayUID  = "crossfade-gateway"
)

// A board is a dashboard before its panels have places and numbers.
type board struct {
	uid, title, about string
	rows              []row
}

type row struct {
	title  string
	panels []panel
}

// A panel stands beside the one before it, as long as there is room: a row is 24
// wide. About says what is seen, and what is good and bad; section is the one of
// the runbook that says what to do.
type panel struct {
	title, about, section string
	width, height         uint32
	shows                 cog.Builder[dashboard.Panel]
}

func datasource() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}
}

// classic is the form of dashboards that every Grafana in use reads from files,
// as does dashboard-linter. The one that is to follow it needs the newest one.
type classic = dashboard.Dashboard //nolint:staticcheck // see above

func (b board) build(runbook string) (classic, error) {
	d := dashboard.NewDashboardBuilder(b.title). //nolint:staticcheck // see classic
							Uid(b.uid).Description(b.about).Tags([]string{tag}).
							Readonly(). // it comes from a file: what is changed in the browser would be lost
							Time("now-6h", "now").Refresh("1m").Timezone("browser").
							Tooltip(dashboard.DashboardCursorSyncCrosshair).
							Link(dashboard.NewDashboardLinkBuilder("Crossfade").
								Type(dashboard.DashboardLinkTypeDashboards).Tags([]string{tag}).
								IncludeVars(true).KeepTime(true)).
							Link(dashboard.NewDashboardLinkBuilder("Runbook").
								Type(dashboard.DashboardLinkTypeLink).Url(runbook).Icon("doc").TargetBlank(true)).
							Variables(variables()).
							Annotations(annotations())
	id := uint32(0)
	for _, r := range b.rows {
		id++
		d.WithRow(dashboard.NewRowBuilder(r.title).Id(id))
		for _, p := range r.panels {
			id++
			d.WithPanel(placed{p, id, runbook})
		}
	}
	built, err := d.Build()
	if err != nil {
		return built, err
	}
	// The builders would put links and marks into a menu, where nobody sees them.
	for i := range built.Links {
		built.Links[i].Placement = nil
	}
	for i := range built.Annotations.List {
		built.Annotations.List[i].Placement = nil
	}
	return built, nil
}

// placed is a panel with what all panels have.
type placed struct {
	panel
	id      uint32
	runbook string
}

// Build implements cog.Builder.
func (p placed) Build() (dashboard.Panel, error) {
	built, err := p.shows.Build()
	if err != nil {
		var several cog.BuildErrors
		if !errors.As(err, &several) { // the builder of dashboards knows no others
			err = cog.MakeBuildErrors(p.title, err)
		}
		return built, err
	}
	ds := datasource()
	built.Id, built.Title, built.Description, built.Datasource = &p.id, &p.title, &p.about, &ds
	built.GridPos = &dashboard.GridPos{W: p.width, H: p.height}
	link, err := dashboard.NewDashboardLinkBuilder("Runbook").
		Type(dashboard.DashboardLinkTypeLink).Url(p.runbook + "#" + p.section).TargetBlank(true).Build()
	link.Placement = nil
	built.Links = []dashboard.DashboardLink{link}
	return built, err
}

// variables are those at the top, the same on every dashboard, so that links keep
// what was chosen.
func variables() []cog.Builder[dashboard.VariableModel] {
	choice := func(name, label, about, query, all string) cog.Builder[dashboard.VariableModel] {
		return dashboard.NewQueryVariableBuilder(name).Label(label).Description(about).
			Query(dashboard.StringOrMap{String: &query}).Definition(query).Datasource(datasource()).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortAlphabeticalAsc).
			Multi(true).IncludeAll(true).AllValue(all).
			Current(dashboard.VariableOption{
				Selected: cog.ToPtr(true),
				Text:     dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}},
				Value:    dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}},
			})
	}
	return []cog.Builder[dashboard.VariableModel]{
		dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").
			Description("The Prometheus that scrapes the gateways.").Type("prometheus"),
		choice("cluster", "Cluster", "Clusters by the label cluster, where Prometheus or its servers set one.",
			`label_values(crossfade_build_info, cluster)`, ".*"), // also series without the label
		choice("job", "Job", "Scrape jobs of gateways.",
			`label_values(crossfade_build_info{cluster=~"$cluster"}, job)`, ".+"),
		choice("instance", "Instance", "Replicas of the gateway.",
			`label_values(crossfade_build_info{cluster=~"$cluster", job=~"$job"}, instance)`, ".+"),
		choice("team", "Team", "Teams of the configuration; unassigned is who belongs to none.",
			`label_values(crossfade_rollout_alerts_total{cluster=~"$cluster", job=~"$job"}, team)`, ".+"),
	}
}

// annotations mark every change of a percentage, and by another colour and name
// those that nobody asked for. Every replica counts the same change, hence max.
func annotations() []cog.Builder[dashboard.AnnotationQuery] {
	mark := func(name, colour, text, matcher string) cog.Builder[dashboard.AnnotationQuery] {
		return dashboard.NewAnnotationQueryBuilder().Name(name).Datasource(datasource()).
			Enable(true).IconColor(colour).
			Expr(by("max", "team, direction, source", gained("rollout_changes_total", chosenTeams, matcher)) + " > 0").
			Step("1m").TitleFormat(name).TextFormat(text).TagKeys("team,direction,source")
	}
	return []cog.Builder[dashboard.AnnotationQuery]{
		mark("Rollout change", blue, "{{team}}: {{direction}} by {{source}}", `source!="rollback"`),
		mark("Automatic rollback", vermillion, "{{team}}: rolled back", `source="rollback"`),
	}
}
