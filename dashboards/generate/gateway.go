package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/table"
)

// gateway is the page for who runs the gateway.
func gateway() board {
	const perReplica = "cluster, job, instance"
	outOfDate := func(metric string) string { return "time() - (" + of(metric) + " > 0)" }
	latency := []series{{"99 %", vermillion}, {"90 %", orange}, {"50 %", sky}}
	quantiles := func(histogram string) []cog.Builder[variants.Dataquery] {
		return []cog.Builder[variants.Dataquery]{
			traced("A", "99 %", quantile(.99, "", histogram)),
			query("B", "90 %", quantile(.9, "", histogram)),
			query("C", "50 %", quantile(.5, "", histogram)),
		}
	}
	return board{
		uid: gatewayUID, title: "Crossfade / Gateway health",
		about: "The gateway as a service: what passes through it, how fast, and everything that it leans on.",
		rows: []row{
			{"At a glance", []panel{
				{
					"Replicas", "Replicas that are scraped. Compare with how many there should be.", sectionAbsent, 3, 4,
					number("short", limitsOver(bad, step{1, fine}), now("A", "replicas", by("count", "", of("build_info")))),
				},
				{
					"Requests", "Requests a second, of all kinds.", sectionTop, 3, 4,
					number("reqps", limits(), now("A", "requests", by("sum", "", rate("requests_total")))),
				},
				{
					"Unavailable", "Share of requests that the gateway could not decide on, for keys or a store were out of reach. Orange from 0.1 %, red from 1 %.", sectionProvider, 3, 4,
					number("percentunit", limits(step{.001, warning}, step{.01, bad}), now("A", "unavailable",
						share(by("sum", "", rate("requests_total", `outcome="unavailable"`)), by("sum", "", rate("requests_total"))))).Decimals(2),
				},
				{
					"99th percentile", "Time within which 99 of 100 requests are answered, the upstream's time included. Luigi's workers give up after 10 s: orange from 1 s, red from 5 s.", sectionTop, 3, 4,
					number("s", limits(step{1, warning}, step{5, bad}), now("A", "99 %", quantile(.99, "", "request_duration_seconds"))),
				},
				{
					"Redis", "Whether every replica reached the store when it last asked.", sectionRedis, 3, 4,
					word(states(state{0, "lost", bad}, state{1, "up", fine}), now("A", "store", by("min", "", of("redis_up")))),
				},
				{
					"Configurations", "How many different ones are in force among replicas of a job. More than 1 for longer than a rollout is skew, which stops raises.", sectionSkew, 3, 4,
					number("short", limits(step{2, warning}), now("A", "configurations", by("max", "", by("count", "cluster, job", by("count", "cluster, job, hash", of("config_info")))))),
				},
				{
					"Last reload", "Whether the last configuration that was read is in force at every replica. If not, the one before stays.", sectionReload, 3, 4,
					word(states(state{0, "failed", bad}, state{1, "in force", fine}), now("A", "reload", by("min", "", of("config_last_reload_successful")))),
				},
				{
					"Evidence lost", "Observations that were not recorded in the time shown; each leaves a gap that teams wait for. Orange from 1.", sectionEvidenceLost, 3, 4,
					number("short", limits(step{1, warning}), now("A", "lost", by("sum", "", inRange("evidence_lost_total")))).Decimals(0),
				},
			}},
			{"Requests", []panel{
				{
					"Rate by outcome", "Requests a second by what was decided. would_refuse is what mode enforce would refuse.", sectionRefused, 12, 9,
					areas("reqps", outcomeSeries(), query("A", "{{outcome}}", by("sum", "outcome", rate("requests_total")))),
				},
				{
					"Errors", "Shares of requests that could not be decided on, and of replies of the upstream that are errors or never came. The dashed limit is 1 %.", sectionProvider, 12, 9,
					limited(lines("percentunit", []series{{"unavailable", vermillion}, {"upstream 5xx", orange}, {"upstream silent", purple}},
						query("A", "unavailable", share(by("sum", "", rate("requests_total", `outcome="unavailable"`)), by("sum", "", rate("requests_total")))),
						query("B", "upstream 5xx", orNone(share(by("sum", "", rate("upstream_duration_seconds_count", `code=~"5.."`)), by("sum", "", rate("upstream_duration_seconds_count", `code!="canceled"`))), "upstream_duration_seconds_count")),
						query("C", "upstream silent", share(by("sum", "", rate("upstream_duration_seconds_count", `code=~"error|timeout"`)), by("sum", "", rate("upstream_duration_seconds_count", `code!="canceled"`)))),
					), step{.01, bad}),
				},
				{
					"Upstream by code", "Replies of the upstream a second. canceled: the client left first.", sectionTop, 12, 8,
					areas("reqps", []series{{"2xx", sky}, {"3xx", blue}, {"4xx", orange}, {"5xx", vermillion}, {"error or timeout", purple}, {"canceled", grey}},
						upstream("A", "2xx", "2.."), upstream("B", "3xx", "3.."), upstream("C", "4xx", "4.."), upstream("D", "5xx", "5.."),
						upstream("E", "error or timeout", "error|timeout"), upstream("F", "canceled", "canceled")),
				},
				{
					"In flight and waiting", "Requests under way, and candidates that wait for the shadow. A queue that stays full sheds: evidence is missing then.", sectionEvidenceLost, 12, 8,
					lines("short", []series{{"in flight", blue}, {"shadow queue", orange}},
						query("A", "in flight", by("sum", "", of("requests_in_flight"))),
						query("B", "shadow queue", by("sum", "", of("shadow_queue_depth")))),
				},
			}},
			{"Latency", []panel{
				{
					"Whole request", "From a request's headers to the end of its reply. Dots are exemplars: they lead to traces, if the data source names trace_id. Red from 5 s.", sectionTop, 8, 9,
					limited(lines("s", latency, quantiles("request_duration_seconds")...), step{5, bad}),
				},
				{
					"Upstream", "Until the headers of the upstream's reply: what the gateway waits for. The difference to the whole request is the reply's body and the gateway itself.", sectionTop, 8, 9,
					lines("s", latency, quantiles("upstream_duration_seconds")...),
				},
				{
					"Judging a credential", "Of a password, a key or a token. High values are waits for an identity provider's keys.", sectionProvider, 8, 9,
					lines("s", latency, quantiles("auth_duration_seconds")...),
				},
			}},
			{"Tokens and keys", []panel{
				{
					"Token cache hits", "Share of tokens that were verified before. Low with short-lived tokens or right after a start, and then the processor pays.", sectionProvider, 8, 8,
					lines("percentunit", []series{{"hits", blue}}, query("A", "hits",
						share(by("sum", "", rate("token_cache_total", `result="hit"`)), by("sum", "", rate("token_cache_total"))))).Max(1),
				},
				{
					"Age of key sets", "Since each issuer's keys were last fetched, at the replica that is worst off. After a day (unless configured otherwise) tokens are not verified any more: orange from 6 h, red from 18 h.", sectionKeySet, 8, 8,
					ranking("s", limits(step{6 * 3600, warning}, step{18 * 3600, bad}),
						now("A", "{{issuer}}", by("max", "issuer", outOfDate("jwks_last_refresh_timestamp_seconds")))),
				},
				{
					"Fetches of keys", "Fetches of issuers' keys. Errors in a row are a provider in trouble.", sectionProvider, 8, 8,
					bars(resultSeries(), query("A", "{{result}}", by("sum", "result", gained("jwks_refresh_total")))),
				},
			}},
			{"Store and evidence", []panel{
				{
					"Redis by replica", "When each replica reached the store, and when that was not what it had been (empty, another one, or older). Without it nobody is flipped: the last percentages stay.", sectionRedis, 12, 8,
					timeline(states(state{0, "lost", bad}, state{1, "up", fine}, state{2, "regressed", bad}),
						query("A", "{{instance}}", by("min", perReplica, of("redis_up"))+" * (1 + "+by("max", perReplica, of("store_regressed"))+")")),
				},
				{
					"Age of the rollout table", "Since percentages were last read from the store, at the replica that is worst off. Orange from a minute, red from 5.", sectionTable, 12, 8,
					limited(lines("s", []series{{"oldest", blue}}, query("A", "oldest", by("max", "", outOfDate("rollout_table_timestamp_seconds")))), step{60, warning}, step{300, bad}),
				},
				{
					"Audit records", "Records of the audit trail: written, lost for want of room, and attempts that failed. Anything but ok needs somebody.", sectionAudit, 8, 8,
					bars(resultSeries(), query("A", "{{result}}", by("sum", "result", gained("audit_records_total")))),
				},
				{
					"Lost", "What was not recorded: evidence (teams wait longer), candidates that the shadow shed, access lines, and spans that the collector did not take.", sectionEvidenceLost, 8, 8,
					bars([]series{{"evidence", vermillion}, {"shadow", orange}, {"access lines", purple}, {"spans", grey}},
						query("A", "evidence", by("sum", "", gained("evidence_lost_total"))),
						query("B", "shadow", by("sum", "", gained("shadow_shed_total"))),
						query("C", "access lines", by("sum", "", gained("access_log_lost_total"))),
						query("D", "spans", by("sum", "", gained("spans_lost_total")))),
				},
				{
					"Throttled and signalled", "Credentials that were not judged because too many came, and requests that security should know of.", sectionSecurity, 8, 8,
					bars([]series{{"legacy", orange}, {"failures", vermillion}, {"jwks", grey}, {"security signals", purple}},
						query("A", "{{kind}}", by("sum", "kind", gained("throttled_total"))),
						query("B", "security signals", by("sum", "", gained("security_signals_total", chosenTeams)))),
				},
			}},
			{"Replicas and configuration", []panel{
				{
					"Replicas", "What runs where. Different hashes of the configuration are skew; a failed reload keeps the one before.", sectionSkew, 24, 8,
					replicas(),
				},
				{
					"Different configurations", "How many are in force among the replicas of a job. 2 during a rollout; longer is skew.", sectionSkew, 8, 8,
					limited(lines("short", []series{{"configurations", blue}, {"file mistakes", orange}},
						query("A", "configurations", by("max", "", by("count", "cluster, job", by("count", "cluster, job, hash", of("config_info"))))),
						query("B", "file mistakes", by("max", "", of("rollout_file_mistakes")))), step{2, warning}).Decimals(0),
				},
				{
					"Certificates", "Time until the certificate of a listener expires, at the replica where that is soonest; empty without TLS. Orange below 14 days, red below 3.", sectionCertificate, 8, 8,
					ranking("s", limitsOver(bad, step{3 * 86400, warning}, step{14 * 86400, fine}),
						now("A", "{{listener}}", by("min", "listener", of("tls_not_after_timestamp_seconds"))+" - time()")),
				},
				{
					"Admin requests", "Answers of the admin API. 401 and 403 are people or pipelines who may not.", sectionAdmin, 8, 8,
					bars([]series{{"answered", sky}, {"not allowed", vermillion}, {"other refusals", orange}, {"errors", purple}},
						query("A", "answered", orNone(by("sum", "", gained("admin_requests_total", `code=~"[123].."`)), "admin_requests_total")),
						query("B", "not allowed", orNone(by("sum", "", gained("admin_requests_total", `code=~"401|403"`)), "admin_requests_total")),
						query("C", "other refusals", orNone(by("sum", "", gained("admin_requests_total", `code=~"4..", code!~"401|403"`)), "admin_requests_total")),
						query("D", "errors", orNone(by("sum", "", gained("admin_requests_total", `code=~"5.."`)), "admin_requests_total"))),
				},
				{
					"Processor", "Processor time that replicas use, in cores: the busiest and the mean.", sectionTop, 8, 8,
					lines("short", []series{{"busiest", orange}, {"mean", blue}},
						query("A", "busiest", by("max", "", "rate("+foreign("process_cpu_seconds_total")+"[$__rate_interval])")),
						query("B", "mean", by("avg", "", "rate("+foreign("process_cpu_seconds_total")+"[$__rate_interval])"))),
				},
				{
					"Memory", "Resident memory of replicas: the largest and the mean. It must not grow for days.", sectionTop, 8, 8,
					lines("bytes", []series{{"largest", orange}, {"mean", blue}},
						query("A", "largest", by("max", "", foreign("process_resident_memory_bytes"))),
						query("B", "mean", by("avg", "", foreign("process_resident_memory_bytes")))),
				},
				{
					"Goroutines", "Goroutines of replicas: the most and the mean. A steady climb is a leak.", sectionTop, 8, 8,
					lines("short", []series{{"most", orange}, {"mean", blue}},
						query("A", "most", by("max", "", foreign("go_goroutines"))),
						query("B", "mean", by("avg", "", foreign("go_goroutines")))),
				},
			}},
		},
	}
}

// upstream counts the replies of which the code matches.
func upstream(ref, name, codes string) cog.Builder[variants.Dataquery] {
	return query(ref, name, orNone(by("sum", "", rate("upstream_duration_seconds_count", fmt.Sprintf("code=~%q", codes))), "upstream_duration_seconds_count"))
}

// replicas is a row for each replica.
func replicas() *table.PanelBuilder {
	return grid("instance", []column{
		{"instance", "Replica", width(260)},
		{"version", "Version", nil},
		{"goversion", "Go", nil},
		{"hash", "Configuration", nil},
		{"Value #C", "Last reload", worded(states(state{0, "failed", bad}, state{1, "in force", fine}))},
		{"Value #D", "Redis", worded(states(state{0, "lost", bad}, state{1, "up", fine}))},
		{"Value #E", "Up for", coloured("s", nil)},
	},
		cells("A", by("max", "instance, version, goversion", of("build_info"))),
		cells("B", by("max", "instance, hash", of("config_info"))),
		cells("C", by("min", "instance", of("config_last_reload_successful"))),
		cells("D", by("min", "instance", of("redis_up"))),
		cells("E", "time() - "+by("max", "instance", foreign("process_start_time_seconds"))),
	)
}
