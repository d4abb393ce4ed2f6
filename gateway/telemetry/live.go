package telemetry

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// RolloutTable is what is measured of a rollout.Table.
type RolloutTable interface {
	// States returns every team's state.
	States() []rollout.State
	// LoadedAt returns when the table was read; zero before the first time.
	LoadedAt() time.Time
	// Regressed reports whether the store has lost something that the table knows.
	Regressed() bool
}

// ObserveShadow measures the shadow's queue at each scrape: how many candidates
// wait, and how many were shed since the start.
func (t *Telemetry) ObserveShadow(depth func() int, shed func() uint64) {
	t.metrics.live.shadow.Store(&shadowSource{depth, shed})
}

// ObserveEvidence measures at each scrape how many observations were lost since
// the start, of those that the readiness of teams rests on.
func (t *Telemetry) ObserveEvidence(lost func() int64) { t.metrics.live.evidence.Store(&lost) }

// RolloutFileMistakes notes how many mistakes the teams' files have.
func (t *Telemetry) RolloutFileMistakes(n int) { t.metrics.live.mistakes.Store(int64(n)) }

// ObserveRollout measures the rollouts at each scrape. latched, which may be
// nil, counts the latched runs of each team; see rollout.Runs.Latched. Teams
// that are not configured are left out.
func (t *Telemetry) ObserveRollout(table RolloutTable, latched func() map[identity.Team]int) {
	known := func() map[identity.Team]*teamSeries { return *t.metrics.teams.Load() }
	t.metrics.live.rollout.Store(&rolloutSource{table, latched, known})
}

// ObserveEffect measures at each scrape of which share of a team's runs, 0 to 1,
// its percentage is in effect; false while that is not known, and the series shows
// the percentage then. It must not wait for anything.
func (t *Telemetry) ObserveEffect(share func(rollout.State) (float64, bool)) {
	t.metrics.live.effect.Store(&share)
}

// live collects what is read at each scrape rather than counted.
type live struct {
	inFlight *atomic.Int64
	lines    func() float64
	spans    func() float64
	shadow   atomic.Pointer[shadowSource]
	rollout  atomic.Pointer[rolloutSource]
	evidence atomic.Pointer[func() int64]
	effect   atomic.Pointer[func(rollout.State) (float64, bool)]
	mistakes atomic.Int64

	descInFlight, descLines, descSpans *prometheus.Desc
	descDepth, descShed, descEvidence  *prometheus.Desc
	descLive, descLatched, descLoaded  *prometheus.Desc
	descRegressed                      *prometheus.Desc
	descRequested, descEffective       *prometheus.Desc
	descHold, descGlass                *prometheus.Desc
	descMistakes                       *prometheus.Desc
}

type shadowSource struct {
	depth func() int
	shed  func() uint64
}

type rolloutSource struct {
	table   RolloutTable
	latched func() map[identity.Team]int
	known   func() map[identity.Team]*teamSeries
}

func newLive(inFlight *atomic.Int64, lines, spans func() float64) *live {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	}
	return &live{
		inFlight: inFlight, lines: lines, spans: spans,
		descInFlight:  desc("requests_in_flight", "Requests whose event is not told yet; one that waits for its shadow is among them."),
		descLines:     desc("access_log_lost_total", "Access lines that could not be written, or not fast enough."),
		descSpans:     desc("spans_lost_total", "Spans that found no room to wait, or that the collector did not take."),
		descDepth:     desc("shadow_queue_depth", "Candidates that wait for the shadow."),
		descShed:      desc("shadow_shed_total", "Candidates that the shadow had no room for."),
		descEvidence:  desc("evidence_lost_total", "Observations that were not recorded whole, for there was no room while the store was away or slow, or a damaged key did not take them; each leaves a gap in the evidence."),
		descLive:      desc("rollout_live_ratio", "Share of a team that must use OIDC, from 0 to 1.", "team"),
		descRequested: desc("rollout_requested_ratio", "Share that the team asks for, from 0 to 1; the live share where it asks for none.", "team"),
		descEffective: desc("rollout_effective_ratio", "Share of a team's runs of the last full day that its live percentage selects, from 0 to 1; the live share while no runs are known.", "team"),
		descMistakes:  desc("rollout_file_mistakes", "Mistakes in the files of the rollout directory, as this replica reads it; the teams concerned stay as they are."),
		descHold:      desc("rollout_hold", "1 while the team is held, so that what it asks for waits.", "team"),
		descGlass:     desc("rollout_break_glass", "1 while the team is under a hold that ends by itself, which whoever lowered it while the identity provider was away broke the glass for.", "team"),
		descLatched:   desc("rollout_latched_runs", "Runs of a team that this replica knows as latched.", "team"),
		descLoaded:    desc("rollout_table_timestamp_seconds", "When the table of rollouts was last read; 0 before the first time."),
		descRegressed: desc("store_regressed", "1 while the store has lost something that the table of rollouts knows: the table stays as it is, and changes are refused."),
	}
}

// Describe implements prometheus.Collector.
func (l *live) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		l.descInFlight, l.descLines, l.descSpans, l.descDepth, l.descShed, l.descEvidence, l.descLive, l.descRequested, l.descEffective, l.descHold, l.descGlass, l.descMistakes, l.descLatched, l.descLoaded, l.descRegressed,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (l *live) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	}
	send(l.descInFlight, prometheus.GaugeValue, float64(l.inFlight.Load()))
	send(l.descLines, prometheus.CounterValue, l.lines())
	send(l.descSpans, prometheus.CounterValue, l.spans())

	var depth, shed float64
	if s := l.shadow.Load(); s != nil {
		depth, shed = float64(s.depth()), float64(s.shed())
	}
	send(l.descDepth, prometheus.GaugeValue, depth)
	send(l.descShed, prometheus.CounterValue, shed)

	var lost float64
	if f := l.evidence.Load(); f != nil {
		lost = float64((*f)())
	}
	send(l.descEvidence, prometheus.CounterValue, lost)

	send(l.descMistakes, prometheus.GaugeValue, float64(l.mistakes.Load()))
	var loaded, regressed float64
	if s := l.rollout.Load(); s != nil {
		regressed = one(s.table.Regressed())
		if at := s.table.LoadedAt(); !at.IsZero() {
			loaded = seconds(at)
			now := time.Now()
			s.collect(now, func(state rollout.State, requested, hold float64) {
				team, live := state.Team, ratioOf(state.Percent)
				send(l.descLive, prometheus.GaugeValue, live, string(team))
				send(l.descEffective, prometheus.GaugeValue, l.effective(state, live), string(team))
				send(l.descRequested, prometheus.GaugeValue, requested, string(team))
				send(l.descHold, prometheus.GaugeValue, hold, string(team))
				send(l.descGlass, prometheus.GaugeValue, one(state.Hold.Active(now) && !state.Hold.Until.IsZero()), string(team))
			}, func(team identity.Team, runs int) {
				send(l.descLatched, prometheus.GaugeValue, float64(runs), string(team))
			})
		}
	}
	send(l.descLoaded, prometheus.GaugeValue, loaded)
	send(l.descRegressed, prometheus.GaugeValue, regressed)
}

// effective is the share of the team that its percentage is in effect for, live
// while that is not known.
func (l *live) effective(s rollout.State, live float64) float64 {
	if f := l.effect.Load(); f != nil {
		if share, ok := (*f)(s); ok {
			return share
		}
	}
	return live
}

// collect tells of every configured team; one that was never written is at 0.
func (s *rolloutSource) collect(now time.Time, tell func(state rollout.State, requested, hold float64), runs func(identity.Team, int)) {
	states := make(map[identity.Team]rollout.State)
	for _, state := range s.table.States() {
		states[state.Team] = state
	}
	var latched map[identity.Team]int
	if s.latched != nil {
		latched = s.latched()
	}
	for team := range s.known() {
		state := states[team]
		state.Team = team
		requested, hold := state.Percent, 0.0
		if state.Request.Made() {
			requested = state.Request.Percent
		}
		if state.Hold.Active(now) {
			hold = 1
		}
		tell(state, ratioOf(requested), hold)
		if s.latched != nil {
			runs(team, latched[team])
		}
	}
}

func ratioOf(p rollout.Percent) float64 { return float64(p) / float64(rollout.Full) }
