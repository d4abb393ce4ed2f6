package telemetry

import (
	"errors"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"crossfade/gateway"
	"crossfade/gateway/identity"
)

const namespace = "crossfade"

// buckets are the bounds of all durations, in seconds: 100 µs, which is what
// the gateway itself takes, up to the 10 s after which Luigi's workers give up.
// Two or three a decade place a quantile within a factor of two.
func buckets() []float64 {
	return []float64{
		.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10,
	}
}

// metrics is the registry with everything in it.
type metrics struct {
	registry *prometheus.Registry
	inFlight atomic.Int64

	requests    *prometheus.CounterVec
	verdicts    *prometheus.CounterVec
	mismatches  *prometheus.CounterVec
	enforced    *prometheus.CounterVec
	changes     *prometheus.CounterVec
	alerts      *prometheus.CounterVec
	requestTime *children[requestTimeKey, prometheus.Observer]
	authTime    *children[authTimeKey, prometheus.Observer]
	upstream    *children[int, prometheus.Observer]
	throttled   *prometheus.CounterVec
	signals     *prometheus.CounterVec
	audit       *prometheus.CounterVec
	probes      *prometheus.CounterVec
	readiness   readinessGauges

	cacheHit, cacheMiss prometheus.Counter
	jwksRefresh         *prometheus.CounterVec
	jwksRefreshed       *prometheus.GaugeVec
	reloaded            prometheus.Gauge
	configInfo          *prometheus.GaugeVec
	redisUp             prometheus.Gauge
	certificate         *prometheus.GaugeVec
	admin               *prometheus.CounterVec
	adminRoutes         atomic.Pointer[map[string]bool]

	live    *live
	teamsMu sync.Mutex // held by who replaces teams
	teams   atomic.Pointer[map[identity.Team]*teamSeries]
	issuers atomic.Pointer[map[string]bool]
}

type requestTimeKey struct {
	scheme  identity.Scheme
	outcome gateway.Outcome
}

type authTimeKey struct {
	scheme identity.Scheme
	result identity.Status
}

// newMetrics registers every metric. lostLines and lostSpans count what could
// not be written or sent.
func newMetrics(version string, lostLines, lostSpans func() float64) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: name, Help: help, Buckets: buckets(),
		}, labels)
		m.registry.MustRegister(v)
		return v
	}

	m.requests = counter("requests_total", "Requests, by what was decided and why.", "team", "scheme", "outcome", "reason")
	m.verdicts = counter("shadow_verdicts_total", "Verdicts of the shadow validation.", "team", "verdict", "evidence")
	m.mismatches = counter("shadow_mismatches_total", "Verdicts that enforcement would change the outcome or the identity of a request.", "team", "reason")
	m.enforced = counter("rollout_enforced_requests_total", "Requests with a verified legacy credential whose run must use OIDC.", "team", "outcome")
	m.alerts = counter("rollout_alerts_total", "Raises after which accounts were refused without an automatic rollback.", "team")
	m.changes = counter("rollout_changes_total", "Changes of a team's percentage.", "team", "direction", "source")
	m.throttled = counter("throttled_total", "Credentials that were not judged because too many came at once (legacy), their address and user had failed too often (failures; in mode observe they are judged) or their key id was unknown too soon after a fetch (jwks).", "kind")
	m.throttled.WithLabelValues(throttledLegacy)
	m.throttled.WithLabelValues(throttledFailures)
	m.throttled.WithLabelValues(throttledJWKS)
	m.signals = counter("security_signals_total", "Requests that whoever looks after security should know of; their access lines have the level WARN and the code security.<reason>.", "team", "reason")

	m.probes = counter("probe_total", "Probes of what the identity provider gives to accounts: ok, would_break (the token would be refused or mean something else), refused (no token), unavailable (the provider or its keys) or misconfigured (the probe's own credential).", "team", "result")
	m.audit = counter("audit_records_total", "Records of the audit trail: written (ok), lost for want of room, and failed attempts to write (error).", "result")
	for _, result := range auditResults() {
		m.audit.WithLabelValues(result)
	}

	requestTime := histogram("request_duration_seconds", "Time from the request's headers to the end of its reply.", "scheme", "outcome")
	m.requestTime = newChildren(
		func(k requestTimeKey) requestTimeKey {
			return requestTimeKey{closedScheme(k.scheme), closedOutcome(k.outcome)}
		},
		func(k requestTimeKey) prometheus.Observer {
			return requestTime.WithLabelValues(k.scheme.String(), string(k.outcome))
		})
	authTime := histogram("auth_duration_seconds", "Time to judge one credential, on the request path or in the shadow.", "scheme", "result")
	m.authTime = newChildren(
		func(k authTimeKey) authTimeKey {
			if k.result > identity.StatusPending {
				k.result = identity.StatusAbsent
			}
			return authTimeKey{closedScheme(k.scheme), k.result}
		},
		func(k authTimeKey) prometheus.Observer {
			return authTime.WithLabelValues(k.scheme.String(), k.result.String())
		})
	upstream := histogram("upstream_duration_seconds", "Time until the headers of the upstream's reply; code is its status, error, timeout or canceled (the client left).", "code")
	m.upstream = newChildren(closedCode, func(code int) prometheus.Observer {
		return upstream.WithLabelValues(codeLabel(code))
	})
	m.upstream.add(http.StatusOK, codeError, codeTimeout)

	cache := counter("token_cache_total", "Lookups in the cache of verified tokens.", "result")
	m.cacheHit, m.cacheMiss = cache.WithLabelValues("hit"), cache.WithLabelValues("miss")
	m.jwksRefresh = counter("jwks_refresh_total", "Fetches of an issuer's keys.", "issuer", "result")
	m.jwksRefreshed = gauge("jwks_last_refresh_timestamp_seconds", "When an issuer's keys were last fetched with success; absent before.", "issuer")
	m.reloaded = gauge("config_last_reload_successful", "Whether the last configuration that was read is in force.").WithLabelValues()
	m.configInfo = gauge("config_info", "The configuration in force, by its hash.", "hash")
	m.redisUp = gauge("redis_up", "Whether the store answered when it was last asked.").WithLabelValues()
	m.certificate = gauge("tls_not_after_timestamp_seconds", "When the certificate of a listener expires; absent without TLS.", "listener")
	m.admin = counter("admin_requests_total", "Answers of the admin API, by what was asked and the status; 401 and 403 are those who may not.", "route", "code")

	m.readiness = newReadinessGauges(gauge)
	reasons := gauge("reason_info", "The closed list of reasons, with who can do something about each.", "reason", "owner")
	for _, info := range identity.Reasons() {
		reasons.WithLabelValues(string(info.Reason), string(info.Owner)).Set(1)
	}
	gauge("build_info", "The program that runs.", "version", "goversion").
		WithLabelValues(version, runtime.Version()).Set(1)
	m.live = newLive(&m.inFlight, lostLines, lostSpans)
	m.registry.MustRegister(m.live,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.teams.Store(&map[identity.Team]*teamSeries{})
	m.issuers.Store(&map[string]bool{})
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		Registry:          m.registry,
		EnableOpenMetrics: true, // the only text format with exemplars
		ErrorHandling:     promhttp.ContinueOnError,
	})
}

// observe counts one request. req may be nil.
func (m *metrics) observe(ev *gateway.Event, req *request) {
	team := m.team(ev.Team())
	scheme, outcome := ev.Scheme(), ev.Decision.Outcome
	team.requests.get(requestKey{scheme, outcome, ev.Decision.Reason}).Inc()
	observeTime(m.requestTime.get(requestTimeKey{scheme, outcome}), ev.Duration, req)
	if ev.Shadow.Verdict != "" {
		team.verdicts.get(verdictKey{ev.Shadow.Verdict, ev.Shadow.Evidence}).Inc()
		if ev.Shadow.Verdict.Mismatch() {
			team.mismatches.get(ev.Shadow.Reason).Inc()
		}
	}
	if reason, ok := ev.Signal(); ok {
		team.signals.get(reason).Inc()
	}
	if ev.Throttled {
		m.throttled.WithLabelValues(throttledFailures).Inc()
	}
	if ev.Enforcement.Enforced {
		team.enforced.get(outcome).Inc()
	}
	if ev.UpstreamTime > 0 {
		observeTime(m.upstream.get(upstreamCode(ev)), ev.UpstreamTime, req)
	}
}

// The kinds of throttling.
const (
	throttledLegacy   = "legacy"
	throttledFailures = "failures"
	throttledJWKS     = "jwks"
)

func (m *metrics) authenticated(scheme identity.Scheme, a *identity.Authentication, took time.Duration, req *request) {
	observeTime(m.authTime.get(authTimeKey{scheme, a.Status}), took, req)
	switch a.Primary() {
	case identity.Throttled:
		m.throttled.WithLabelValues(throttledLegacy).Inc()
	case identity.KidRefreshThrottled:
		m.throttled.WithLabelValues(throttledJWKS).Inc()
	}
}

// observeTime adds an exemplar when the request is traced.
func observeTime(o prometheus.Observer, d time.Duration, req *request) {
	if req.recording() {
		if e, ok := o.(prometheus.ExemplarObserver); ok {
			e.ObserveWithExemplar(d.Seconds(), prometheus.Labels{"trace_id": req.span.TraceID().String()})
			return
		}
	}
	o.Observe(d.Seconds())
}

// Codes of an upstream that gave none.
const (
	codeError    = -1
	codeTimeout  = -2
	codeCanceled = -3
)

// upstreamCode returns the upstream's status, or why there is none. A reply
// that broke off in its body (net/http says http.ErrAbortHandler) had one.
func upstreamCode(ev *gateway.Event) int {
	if ev.UpstreamErr == nil || errors.Is(ev.UpstreamErr, http.ErrAbortHandler) {
		return ev.Status
	}
	switch failureKind(ev.UpstreamErr) {
	case failureCanceled:
		return codeCanceled
	case failureTimeout:
		return codeTimeout
	default:
		return codeError
	}
}

func closedCode(code int) int {
	if code >= 100 && code <= 599 || code == codeTimeout || code == codeCanceled {
		return code
	}
	return codeError
}

func codeLabel(code int) string {
	switch code {
	case codeError:
		return "error"
	case codeTimeout:
		return failureTimeout
	case codeCanceled:
		return failureCanceled
	default:
		return strconv.Itoa(code)
	}
}
