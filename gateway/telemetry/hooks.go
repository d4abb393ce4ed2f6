package telemetry

import (
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"crossfade/gateway/identity"
)

// The directions of a rollout's change.
const (
	DirectionRaise  = "raise"
	DirectionLower  = "lower"
	DirectionRetire = "retire"
)

func directions() []string { return []string{DirectionRaise, DirectionLower, DirectionRetire} }

// sources are where a change can come from; see rollout.Change.
func sources() []string { return []string{"cli", "file", "demo", "api", "rollback"} }

// SetIssuers replaces the set of issuer labels, as a reload does.
func (t *Telemetry) SetIssuers(issuers []string) {
	next := make(map[string]bool, len(issuers))
	for _, issuer := range issuers {
		if !utf8.ValidString(issuer) {
			continue // no label can be that
		}
		next[issuer] = true
		t.metrics.jwksRefresh.WithLabelValues(issuer, "ok")
		t.metrics.jwksRefresh.WithLabelValues(issuer, "error")
	}
	t.metrics.issuers.Store(&next)
}

// JWKSRefresh counts one fetch of an issuer's keys; err is nil when it brought
// some.
func (t *Telemetry) JWKSRefresh(issuer string, err error) {
	if !(*t.metrics.issuers.Load())[issuer] {
		issuer = other
	}
	if err != nil {
		t.metrics.jwksRefresh.WithLabelValues(issuer, "error").Inc()
		return
	}
	t.metrics.jwksRefresh.WithLabelValues(issuer, "ok").Inc()
	t.metrics.jwksRefreshed.WithLabelValues(issuer).Set(seconds(t.now()))
}

// TokenCache counts one lookup in the cache of verified tokens.
func (t *Telemetry) TokenCache(hit bool) {
	if hit {
		t.metrics.cacheHit.Inc()
		return
	}
	t.metrics.cacheMiss.Inc()
}

// Reloaded tells how reading the configuration went, the first time included.
// With ok, hash names the one in force from now on; without, the last one stays
// and hash is not looked at.
func (t *Telemetry) Reloaded(ok bool, hash string) {
	if !ok {
		t.metrics.reloaded.Set(0)
		return
	}
	t.metrics.reloaded.Set(1)
	t.metrics.configInfo.Reset()
	t.metrics.configInfo.WithLabelValues(clip(hash, maxName)).Set(1)
}

// The results of an audit record.
const (
	// AuditOK: its line was written.
	AuditOK = "ok"
	// AuditLost: there was no room for it to wait.
	AuditLost = "lost"
	// AuditError: an attempt to write failed; its lines wait for the next one.
	AuditError = "error"
)

func auditResults() []string { return []string{AuditOK, AuditLost, AuditError} }

// AuditRecords counts n records of the audit trail with one of the results.
func (t *Telemetry) AuditRecords(result string, n int) {
	t.metrics.audit.WithLabelValues(oneOf(result, auditResults()...)).Add(float64(max(n, 0)))
}

// RolloutChanged counts a change of a team's percentage. The directions are
// constants of this package, the sources those of rollout.Change.
func (t *Telemetry) RolloutChanged(team identity.Team, direction, source string) {
	t.metrics.changes.WithLabelValues(t.metrics.teamLabel(team),
		oneOf(direction, directions()...), oneOf(source, sources()...)).Inc()
}

// RolloutAlert counts that accounts were refused after a raise and nothing was
// rolled back: somebody must look.
func (t *Telemetry) RolloutAlert(team identity.Team) {
	t.metrics.alerts.WithLabelValues(t.metrics.teamLabel(team)).Inc()
}

// RedisUp tells whether the store answered when it was last asked. Before the
// first call it counts as down.
func (t *Telemetry) RedisUp(up bool) {
	value := 0.0
	if up {
		value = 1
	}
	t.metrics.redisUp.Set(value)
}

// Listener is one that may have a certificate: its key in the configuration.
type Listener string

// The listeners.
const (
	ListenerClients Listener = "listen"
	ListenerAdmin   Listener = "admin"
)

// CertificateExpiry tells when a listener's certificate expires. The zero time
// takes the series away.
func (t *Telemetry) CertificateExpiry(of Listener, notAfter time.Time) {
	if notAfter.IsZero() {
		t.metrics.certificate.DeleteLabelValues(string(of))
		return
	}
	t.metrics.certificate.WithLabelValues(string(of)).Set(seconds(notAfter))
}

// AdminRoutes makes the series of the admin API exist: for each of the routes,
// which are a closed set, and for other paths, what alerts look at.
func (t *Telemetry) AdminRoutes(routes []string) {
	known := map[string]bool{}
	for _, route := range append([]string{otherRoute}, routes...) {
		known[route] = true
		for _, code := range []int{http.StatusOK, http.StatusUnauthorized, http.StatusForbidden, http.StatusServiceUnavailable} {
			t.metrics.admin.WithLabelValues(route, strconv.Itoa(code))
		}
	}
	t.metrics.adminRoutes.Store(&known)
}

// otherRoute stands for paths where nothing is.
const otherRoute = "other"

// AdminRequest counts an answer of the admin API, by its route and its status.
// What is none of AdminRoutes is "other".
func (t *Telemetry) AdminRequest(route string, status int) {
	if known := t.metrics.adminRoutes.Load(); known == nil || !(*known)[route] {
		route = otherRoute
	}
	t.metrics.admin.WithLabelValues(route, codeLabel(closedCode(status))).Inc()
}

// seconds returns a time as Prometheus writes it.
func seconds(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }
