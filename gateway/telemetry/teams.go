package telemetry

import (
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/probe"
	"crossfade/gateway/shadow"
)

// teamSeries are the counters of one team.
type teamSeries struct {
	requests   *children[requestKey, prometheus.Counter]
	verdicts   *children[verdictKey, prometheus.Counter]
	mismatches *children[identity.Reason, prometheus.Counter]
	enforced   *children[gateway.Outcome, prometheus.Counter]
	signals    *children[identity.Reason, prometheus.Counter]
	probes     *children[probe.Outcome, prometheus.Counter]
}

type requestKey struct {
	scheme  identity.Scheme
	outcome gateway.Outcome
	reason  identity.Reason
}

type verdictKey struct {
	verdict  shadow.Verdict
	evidence shadow.Evidence
}

// SetTeams replaces the set of team labels, as a reload does. What was counted
// stays; a team that left is counted as unassigned from now on, and how ready it
// was is no more told.
//
// Every series that an alert needs exists from here on: a counter that appears
// with its first failure has no rate for it.
func (t *Telemetry) SetTeams(teams []identity.Team) {
	m := t.metrics
	m.teamsMu.Lock()
	defer m.teamsMu.Unlock()
	known := *m.teams.Load()
	next := make(map[identity.Team]*teamSeries, len(teams)+1)
	for _, team := range append([]identity.Team{identity.Unassigned}, teams...) {
		if team == "" || !utf8.ValidString(string(team)) || next[team] != nil {
			continue
		}
		if next[team] = known[team]; next[team] == nil {
			next[team] = m.newTeam(string(team))
		}
	}
	for team := range known {
		if next[team] == nil {
			m.readiness.drop(string(team))
		}
	}
	m.teams.Store(&next)
}

// team returns the series of a team, those of Unassigned for one that is not
// configured.
func (m *metrics) team(team identity.Team) *teamSeries {
	teams := *m.teams.Load()
	if s, ok := teams[team]; ok {
		return s
	}
	return teams[identity.Unassigned]
}

func (m *metrics) teamLabel(team identity.Team) string {
	if _, ok := (*m.teams.Load())[team]; ok {
		return string(team)
	}
	return string(identity.Unassigned)
}

func (m *metrics) newTeam(team string) *teamSeries {
	s := &teamSeries{
		requests: newChildren(
			func(k requestKey) requestKey {
				return requestKey{closedScheme(k.scheme), closedOutcome(k.outcome), closedReason(k.reason)}
			},
			func(k requestKey) prometheus.Counter {
				return m.requests.WithLabelValues(team, k.scheme.String(), string(k.outcome), string(k.reason))
			}),
		verdicts: newChildren(
			func(k verdictKey) verdictKey {
				return verdictKey{closedVerdict(k.verdict), closedEvidence(k.evidence)}
			},
			func(k verdictKey) prometheus.Counter {
				return m.verdicts.WithLabelValues(team, string(k.verdict), string(k.evidence))
			}),
		mismatches: newChildren(closedReason, func(r identity.Reason) prometheus.Counter {
			return m.mismatches.WithLabelValues(team, string(r))
		}),
		enforced: newChildren(closedOutcome, func(o gateway.Outcome) prometheus.Counter {
			return m.enforced.WithLabelValues(team, string(o))
		}),
		signals: newChildren(closedReason, func(r identity.Reason) prometheus.Counter {
			return m.signals.WithLabelValues(team, string(r))
		}),
		probes: newChildren(closedProbe, func(o probe.Outcome) prometheus.Counter {
			return m.probes.WithLabelValues(team, string(o))
		}),
	}
	s.zero(team)
	m.alerts.WithLabelValues(team)
	if team != string(identity.Unassigned) {
		m.readiness.zero(team)
	}
	for _, direction := range directions() {
		for _, source := range sources() {
			m.changes.WithLabelValues(team, direction, source)
		}
	}
	return s
}

// zero makes the series exist that alerts use: the outcomes with the reasons
// that a team can have for them, every verdict, and every reason that a
// mismatch (those that are indeterminate never are one) or a security signal
// can have.
func (s *teamSeries) zero(team string) {
	s.requests.add(expectedRequests(team == string(identity.Unassigned))...)
	var verdicts []verdictKey
	for _, verdict := range shadow.Verdicts() {
		for _, evidence := range []shadow.Evidence{shadow.EvidenceNone, shadow.EvidenceClient} {
			verdicts = append(verdicts, verdictKey{verdict, evidence})
		}
	}
	for _, verdict := range probe.Verdicts() {
		verdicts = append(verdicts, verdictKey{verdict, shadow.EvidenceProbe})
	}
	s.verdicts.add(verdicts...)
	var reasons []identity.Reason
	for _, info := range identity.Reasons() {
		if !info.Indeterminate {
			reasons = append(reasons, info.Reason)
		}
	}
	s.mismatches.add(reasons...)
	s.enforced.add(gateway.Outcomes()...)
	s.signals.add(gateway.SignalReasons()...)
	s.probes.add(probe.Outcomes()...)
}

// expectedRequests are the combinations that stand at zero. A token alone that
// is not verified names nobody, so its reasons are those of Unassigned; a
// team's own are what its verified credentials are refused for. Bad companions
// of a team's enforced runs show in rollout_enforced_requests_total, which
// stands at zero whatever the reason.
func expectedRequests(unassigned bool) []requestKey {
	var keys []requestKey
	refusal := func(scheme identity.Scheme, reason identity.Reason) {
		keys = append(keys, requestKey{scheme, gateway.Refused, reason}, requestKey{scheme, gateway.WouldRefuse, reason})
	}
	for _, scheme := range identity.Schemes() {
		keys = append(keys, requestKey{scheme: scheme, outcome: gateway.Allowed})
		if scheme.Legacy() {
			keys = append(keys, requestKey{scheme, gateway.Unavailable, identity.StoreUnavailable})
		}
	}
	for _, info := range identity.Reasons() {
		switch info.Stage {
		case identity.StageLegacy:
			for _, scheme := range identity.Schemes() {
				if scheme.Legacy() && (unassigned || info.Reason != identity.LegacyUnknown) {
					refusal(scheme, info.Reason)
				}
			}
		case identity.StageAuthorisation:
			refusal(identity.SchemeOIDC, info.Reason)
		case identity.StageParse, identity.StageKey, identity.StageSignature,
			identity.StageTime, identity.StageBinding, identity.StageIdentity:
			switch {
			case unassigned && info.Indeterminate:
				keys = append(keys, requestKey{identity.SchemeOIDC, gateway.Unavailable, info.Reason})
			case unassigned:
				refusal(identity.SchemeOIDC, info.Reason)
			}
		}
	}
	if unassigned {
		keys = append(keys, requestKey{scheme: identity.SchemeNone, outcome: gateway.Exempt})
		refusal(identity.SchemeNone, identity.TokenAbsent)
	}
	return keys
}
