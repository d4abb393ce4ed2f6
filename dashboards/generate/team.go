package main

import "fmt"

// team is the page for a team's lead and for who helps a team.
func team() board {
	reasonsByOwner := func(metric string, matchers ...string) string {
		return by("sum", "owner", by("sum", "reason", gained(metric, append([]string{chosenTeams, `reason!=""`}, matchers...)...))+
			" * on (reason) group_left (owner) "+by("max", "reason, owner", of("reason_info")))
	}
	return board{
		uid: teamUID, title: "Crossfade / Team",
		about: "One team: what is next, what its clients' tokens would do, and who can help. With several teams chosen at the top, counts are added up and states are the worst.",
		rows: []row{
			{"Where the team stands", []panel{
				{
					"Answer", "What is next: ready, waiting, blocked, held or done. The gateway's console says for what and whose turn it is.", sectionUnwatched, 4, 4,
					word(answerStates(), now("A", "{{team}}", numbered("readiness_answer", "answer", answers))),
				},
				{
					"Phase", "Shadow: nothing is enforced. Ramp: some runs are. Enforced: all are. Retired: legacy is gone for good.", sectionTop, 4, 4,
					word(phaseStates(), now("A", "{{team}}", numbered("readiness_phase", "phase", phases))),
				},
				{
					"Live percentage", "Share of the team that must use OIDC now.", sectionTop, 4, 4,
					number("percentunit", limits(), now("A", "{{team}}", by("max", "team", of("rollout_live_ratio", chosenTeams)))).Decimals(0),
				},
				{
					"Bad runs at most", "Upper bound on the share of runs that would break. A raise needs at most 1 %: orange above, red from 10 %. 100 % while nothing is known.", sectionMismatch, 4, 4,
					number("percentunit", limits(step{.01, warning}, step{.1, bad}), now("A", "{{team}}", by("max", "team", assessed("readiness_bad_runs_upper_bound_ratio")))).Decimals(2),
				},
				{
					"Runs with a token", "Share of the team's runs whose client sent a token. A raise needs 99 %: orange below.", sectionUnwatched, 4, 4,
					number("percentunit", limitsOver(warning, step{.99, fine}), now("A", "{{team}}", by("max", "team", assessed("readiness_coverage_ratio")))).Decimals(1),
				},
				{
					"Judged runs", "Runs in the window that could be judged: what the bound rests on. Without failures, some 530 are enough for 1 %.", sectionUnwatched, 4, 4,
					number("short", limits(), now("A", "{{team}}", by("max", "team", assessed("readiness_runs")))),
				},
				{
					"Percentages", "What the team asks for, what is in force, and which share of yesterday's runs that selects. Requested above live waits for the checks or is held.", sectionRollback, 12, 8,
					lines("percentunit", []series{{"requested", orange}, {"live", blue}, {"effective", green}},
						query("A", "requested", by("max", "", of("rollout_requested_ratio", chosenTeams))),
						query("B", "live", by("max", "", of("rollout_live_ratio", chosenTeams))),
						query("C", "effective", by("max", "", of("rollout_effective_ratio", chosenTeams))),
					).Max(1),
				},
				{
					"Answer over time", "The answer and whether the team was held. Marks are changes of the percentage.", sectionRollback, 12, 8,
					timeline(answerStates(), query("A", "{{team}}", numbered("readiness_answer", "answer", answers))),
				},
			}},
			{"Verdicts", []panel{
				{
					"Verdicts of requests", "What the shadow said of each request, a second. match_allow and match_deny are agreement; would_break is refused once enforced; would_open and identity_drift are for security.", sectionMismatch, 12, 9,
					areas("reqps", verdictSeries(), query("A", "{{verdict}}", by("sum", "verdict", rate("shadow_verdicts_total", chosenTeams, `evidence!="probe"`)))),
				},
				{
					"Shares and bound", "Mismatches among judged requests, requests without a token, and the bound on bad runs. The dashed limit is 1 %.", sectionMismatch, 12, 9,
					limited(lines("percentunit", []series{{"mismatch share", vermillion}, {"share without a token", orange}, {"bad runs at most", blue}},
						query("A", "mismatch share", mismatchShare("")),
						query("B", "share without a token", noTokenShare("")),
						query("C", "bad runs at most", by("max", "", assessed("readiness_bad_runs_upper_bound_ratio"))),
					), step{.01, warning}),
				},
				{
					"Probes", "What the identity provider gave when the gateway asked on the accounts' behalf. would_break and refused are to be mended before any client changes; misconfigured is the gateway's own probe.", sectionProbes, 12, 8,
					bars([]series{{"ok", sky}, {"would_break", vermillion}, {"refused", orange}, {"unavailable", grey}, {"misconfigured", purple}},
						query("A", "{{result}}", by("sum", "result", gained("probe_total", chosenTeams)))),
				},
				{
					"Requests by credential", "The team's requests a second by what they brought. Legacy goes, oidc comes.", sectionLegacy, 12, 8,
					areas("reqps", schemeSeries(), query("A", "{{scheme}}", by("sum", "scheme", rate("requests_total", chosenTeams)))),
				},
			}},
			{"Reasons", []panel{
				{
					"Mismatches by owner", "Who can do something about the mismatches: the team, the platform, the identity provider's people, or security.", sectionMismatch, 12, 9,
					bars(ownerSeries(), query("A", "{{owner}}", reasonsByOwner("shadow_mismatches_total"))),
				},
				{
					"Reasons of mismatches", "The ten reasons with the most mismatches in the time shown, each with its owner. token_absent is a client that sends no token yet.", sectionMismatch, 12, 9,
					ranking("short", limits(), now("A", "{{reason}} ({{owner}})", topReasons("shadow_mismatches_total"))).Decimals(0),
				},
				{
					"Refusals by owner", "Requests that were refused, or would be in mode enforce, by who can do something about it.", sectionRefused, 12, 9,
					bars(ownerSeries(), query("A", "{{owner}}", reasonsByOwner("requests_total", `outcome=~"refused|would_refuse|unavailable"`))),
				},
				{
					"Reasons of refusals", "The ten most frequent reasons in the time shown, each with its owner.", sectionRefused, 12, 9,
					ranking("short", limits(), now("A", "{{reason}} ({{owner}})", topReasons("requests_total", `outcome=~"refused|would_refuse|unavailable"`))).Decimals(0),
				},
			}},
			{"Enforced runs", []panel{
				{
					"Requests of enforced runs", "Requests with a verified legacy credential whose run must use OIDC, a second. Refused ones are clients that have not changed yet: their runs fail.", sectionRefused, 12, 8,
					areas("reqps", outcomeSeries(), query("A", "{{outcome}}", by("sum", "outcome", rate("rollout_enforced_requests_total", chosenTeams)))),
				},
				{
					"Refused requests of enforced runs", "How many there were in the time shown. Red from 1.", sectionRefused, 4, 8,
					number("short", limits(step{1, bad}), now("A", "refused", by("sum", "", inRange("rollout_enforced_requests_total", chosenTeams, `outcome="refused"`)))).Decimals(0),
				},
				{
					"Refused, and no rollback", "Raises in the time shown after which known accounts were refused without an automatic rollback. Red from 1: somebody must look.", sectionHurts, 4, 8,
					number("short", limits(step{1, bad}), now("A", "alerts", by("sum", "", by("max", "team", inRange("rollout_alerts_total", chosenTeams))))).Decimals(0),
				},
				{
					"Latched runs", "Runs that are under way and stay as they began, as the replicas know them.", sectionRollback, 4, 8,
					number("short", limits(), now("A", "{{team}}", by("max", "team", of("rollout_latched_runs", chosenTeams)))),
				},
			}},
			{"Latency", []panel{
				{
					"Time of requests by credential", "99th percentile by what requests brought. Of all teams: latency is not measured by team. Dots lead to traces, if the data source names trace_id.", sectionTop, 12, 9,
					lines("s", schemeSeries(), traced("A", "{{scheme}}", quantile(.99, "scheme", "request_duration_seconds"))),
				},
				{
					"Time to judge a credential", "99th percentile by scheme, on the way of a request or in the shadow. Of all teams. Above a second is red: a provider's keys were waited for.", sectionProvider, 12, 9,
					limited(lines("s", schemeSeries(), traced("A", "{{scheme}}", quantile(.99, "scheme", "auth_duration_seconds"))), step{1, bad}),
				},
			}},
			{"Checks", []panel{
				{
					"Checks before a raise", "Which checks passed when. With several teams: whether all of them did. The console names the accounts and pipelines behind an open one.", sectionUnwatched, 12, 10,
					timeline(checkStates("open"), query("A", "{{check}}", by("min", "check", by("max", "team, check", assessed("readiness_check", `check=~"watched|tokens_sent|accounts_pipelines|known_failures|unknown_failures|security_signals|judged|token_renewal|current|soaked"`))))),
				},
				{
					"Checks before retirement", "Which checks of retirement passed when. Below 100 % they do not apply yet.", sectionLegacy, 8, 10,
					timeline(checkStates("open or not due"), query("A", "{{check}}", by("min", "check", by("max", "team, check", assessed("readiness_check", `check=~"enforced|no_legacy|brownouts|unassigned|never_seen"`))))),
				},
				{
					"Age of the answer", "How long ago it was last said how ready the team is. It is said every minute or so: orange from 10 minutes, red from an hour.", sectionStaleEvidence, 4, 10,
					number("s", limits(step{600, warning}, step{3600, bad}), now("A", "{{team}}", "time() - "+by("max", "team", assessed("readiness_last_assessed_timestamp_seconds")))).Decimals(0),
				},
			}},
		},
	}
}

// topReasons are those with the highest counts in the time shown, with owners.
func topReasons(metric string, matchers ...string) string {
	return fmt.Sprintf("topk(10, %s * on (reason) group_left (owner) %s > 0)",
		by("sum", "reason", inRange(metric, append([]string{chosenTeams, `reason!=""`}, matchers...)...)),
		by("max", "reason, owner", of("reason_info")))
}
