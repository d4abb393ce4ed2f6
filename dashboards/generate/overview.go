package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/table"
)

// overview is the page for whoever leads the migration: every team at once.
func overview() board {
	return board{
		uid: overviewUID, title: "Crossfade / Cutover overview",
		about: "Every team on its way from legacy credentials to OIDC: how far it is, what is next, and what would break. " +
			"Choose one cluster where the same teams exist in several.",
		rows: []row{
			{"Where the teams stand", []panel{
				{
					"Teams", "How many teams are configured, without those that belong to none.", sectionTop, 4, 4,
					number("short", limits(), now("A", "teams", by("count", "", by("count", "team",
						of("readiness_last_assessed_timestamp_seconds", chosenTeams))))),
				},
				{
					"Teams at 100 %", "Teams whose live percentage is 100: every run must use OIDC.", sectionTop, 4, 4,
					number("short", limits(), now("A", "enforced", by("sum", "", by("max", "team", of("rollout_live_ratio", chosenTeams))+" == bool 1"))),
				},
				{
					"Teams blocked", "Teams that somebody must do something for before their percentage may go up. Orange from 1.", sectionUnwatched, 4, 4,
					number("short", limits(step{1, warning}), now("A", "blocked", by("sum", "", by("max", "team", of("readiness_answer", chosenTeams, `answer="blocked"`))))),
				},
				{
					"Teams held", "Teams under a hold, which a rollback or a person placed: what they ask for waits. Orange from 1.", sectionRollback, 4, 4,
					number("short", limits(step{1, warning}), now("A", "held", by("sum", "", by("max", "team", of("rollout_hold", chosenTeams))))),
				},
				{
					"Legacy share", "Share of the requests that were let in by a credential of which that was a legacy one. It goes down to nothing.", sectionLegacy, 4, 4,
					number("percentunit", limits(), now("A", "legacy", legacyShare(""))).Decimals(1),
				},
				{
					"Mismatch share", "Share of the requests with a judged token that would break, open or change who is meant. Orange from 0.1 %, red from 1 %.", sectionMismatch, 4, 4,
					number("percentunit", limits(step{.001, warning}, step{.01, bad}), now("A", "mismatches", mismatchShare(""))).Decimals(2),
				},
				{
					"All teams", "One row a team; its name leads to its own page. Bad runs at most: the gateway's upper bound on the share of runs that would break, allowed up to 1 %. " +
						"Shares are of the last minutes and empty without traffic.", sectionTop, 24, 10,
					teamsTable(),
				},
			}},
			{"Progress", []panel{
				{
					"Percentage in force", "The live percentage of each team, darker when higher. Marks on the time axis are changes; an automatic rollback has its own mark.", sectionRollback, 12, 9,
					steps(query("A", "{{team}}", by("max", "team", of("rollout_live_ratio", chosenTeams)))),
				},
				{
					"What is next", "The answer for each team: ready for the next step, waiting for time or evidence, blocked by something to be done, held, or done.", sectionUnwatched, 12, 9,
					timeline(answerStates(), query("A", "{{team}}", numbered("readiness_answer", "answer", answers))),
				},
				{
					"Holds", "When each team was held. A hold stays until it is released, or the request changes and passes on newer evidence. One by broken glass ends by itself: somebody let passwords in again while the provider was away.", sectionGlass, 12, 8,
					timeline(states(state{0, "free", fine}, state{1, "held", warning}, state{2, "glass broken", bad}),
						query("A", "{{team}}", by("max", "team", of("rollout_hold", chosenTeams)+" + "+of("rollout_break_glass", chosenTeams)))),
				},
				{
					"Changes of percentages", "Raises, lowerings and retirements as they happened, of all chosen teams. A lowering that nobody asked for is an automatic rollback.", sectionRollback, 12, 8,
					bars([]series{{"raise", sky}, {"lower", orange}, {"retire", blue}, {"automatic rollback", vermillion}},
						query("A", "{{direction}}", by("sum", "direction", by("max", "team, direction, source", gained("rollout_changes_total", chosenTeams, `source!="rollback"`)))),
						query("B", "automatic rollback", by("sum", "", by("max", "team, direction, source", gained("rollout_changes_total", chosenTeams, `source="rollback"`))))),
				},
			}},
			{"What would break", []panel{
				{
					"Mismatch share by team", "Of the requests whose client sent a token that could be judged: those that enforcement would refuse, open or give to somebody else. Orange from 0.1 %, red from 1 %.", sectionMismatch, 12, 9,
					history(limits(step{.001, warning}, step{.01, bad}), query("A", "{{team}}", mismatchShare("team"))),
				},
				{
					"Bad runs at most, by team", "Upper bound on the share of runs that would break, which raising rests on: at most 1 %. 100 % while nothing is known. It goes down with clean runs.", sectionMismatch, 12, 9,
					history(limits(step{.01, warning}, step{.1, bad}), query("A", "{{team}}", by("max", "team", assessed("readiness_bad_runs_upper_bound_ratio")))),
				},
				{
					"Share without a token, by team", "Requests whose client sent only a legacy credential, so that nothing is known of its token: no_token. At most 1 % of runs may be so before a raise.", sectionUnwatched, 12, 9,
					history(limits(step{.01, warning}), query("A", "{{team}}", noTokenShare("team"))),
				},
				{
					"Mismatches and bound", "The share of all chosen teams together, beside the worst bound that any of them has. The dashed limit is what a raise allows.", sectionMismatch, 12, 9,
					limited(lines("percentunit", []series{{"mismatch share", vermillion}, {"worst bound of a team", blue}, {"share without a token", orange}},
						query("A", "mismatch share", mismatchShare("")),
						query("B", "worst bound of a team", by("max", "", assessed("readiness_bad_runs_upper_bound_ratio"))),
						query("C", "share without a token", noTokenShare("")),
					), step{.01, warning}),
				},
			}},
			{"Legacy on its way out", []panel{
				{
					"Requests by credential", "Requests of the chosen teams a second by what they brought. Basic, API keys and static bearers are legacy; oidc takes their place.", sectionLegacy, 12, 9,
					areas("reqps", schemeSeries(), query("A", "{{scheme}}", by("sum", "scheme", rate("requests_total", chosenTeams)))),
				},
				{
					"Legacy share by team", "Share of each team's requests that were let in by a legacy credential, lighter when it goes down. After retirement it must be 0.", sectionLegacy, 12, 9,
					history(limits(), query("A", "{{team}}", legacyShare("team"))).Min(0).Max(1).
						ColorScheme(scheme(dashboard.FieldColorModeIdContinuousBlues)),
				},
				{
					"Legacy share together", "The legacy share of all chosen teams: the one line that must go down.", sectionLegacy, 12, 8,
					lines("percentunit", []series{{"legacy share", orange}}, query("A", "legacy share", legacyShare(""))).Max(1),
				},
				{
					"Refused after raises", "Raises after which known accounts were refused and no automatic rollback followed: somebody must look. Any bar is one too many.", sectionHurts, 12, 8,
					bars([]series{{"alerts", vermillion}, {"security signals", purple}},
						query("A", "alerts", by("sum", "", by("max", "team", gained("rollout_alerts_total", chosenTeams)))),
						query("B", "security signals", by("sum", "", gained("security_signals_total", chosenTeams)))),
				},
			}},
		},
	}
}

// teamsTable is everything about every team in a line.
func teamsTable() *table.PanelBuilder {
	columns := []column{
		{"team", "Team", append(width(180), property("links", []map[string]any{{
			"title": "Its page",
			"url": "/d/" + teamUID + "?var-team=${__value.raw}&${datasource:queryparam}&${cluster:queryparam}" +
				"&${job:queryparam}&${instance:queryparam}&${__url_time_range}",
		}}))},
		{"Value #A", "Phase", worded(phaseStates())},
		{"Value #B", "Answer", worded(answerStates())},
		{"Value #C", "Live", percent(nil)},
		{"Value #D", "Requested", percent(nil)},
		{"Value #E", "Effective", percent(nil)},
		{"Value #F", "Bad runs at most", percent(limits(step{.01, warning}, step{.1, bad}))},
		{"Value #G", "Mismatches", percent(limits(step{.001, warning}, step{.01, bad}))},
		{"Value #H", "Without a token", percent(limits(step{.01, warning}))},
		{"Value #I", "Legacy", percent(nil)},
		{"Value #J", "Hold", worded(states(state{0, "free", fine}, state{1, "held", warning}))},
	}
	return grid("team", columns,
		cells("A", numbered("readiness_phase", "phase", phases)),
		cells("B", numbered("readiness_answer", "answer", answers)),
		cells("C", by("max", "team", of("rollout_live_ratio", chosenTeams))),
		cells("D", by("max", "team", of("rollout_requested_ratio", chosenTeams))),
		cells("E", by("max", "team", of("rollout_effective_ratio", chosenTeams))),
		cells("F", by("max", "team", assessed("readiness_bad_runs_upper_bound_ratio"))),
		cells("G", mismatchShare("team")),
		cells("H", noTokenShare("team")),
		cells("I", legacyShare("team")),
		cells("J", by("max", "team", of("rollout_hold", chosenTeams))),
	)
}
