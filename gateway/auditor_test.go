package gateway_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
)

// auditor is an Auditor that tests switch.
type auditor struct{ ready atomic.Bool }

func (a *auditor) Ready() bool { return a.ready.Load() }

func TestWithoutAnAuditTrailThatIsRequiredNothingIsServed(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	record := &auditor{}
	s.Auditor, s.Classifier.ExemptPaths = record, []string{"/healthz"}
	s.start(t)
	for name, headers := range map[string][]string{
		"a good password": {"Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", badToken},
		"a wrong one":     {"Authorization", basic("svc-etl", "wrong")},
		"a good token":    {"Authorization", "Bearer " + goodToken},
		"two credentials": {"Authorization", "Bearer " + goodToken, "Authorization", "Bearer " + badToken},
		"nothing":         {},
	} {
		resp, body := s.do(t, http.MethodPost, "/x", "b", headers...)
		ev := s.event()
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" ||
			resp.Header.Get("Crossfade-Reason") != string(identity.AuditUnavailable) {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
		if ev.Decision.Outcome != gateway.Unavailable || ev.Legacy != nil || ev.Token != nil ||
			ev.Shadow.Verdict != shadow.NotEvaluated {
			t.Errorf("%s: the event says %+v, verdict %s", name, ev.Decision, ev.Shadow.Verdict)
		}
	}
	if n := s.tokens.asked.Load(); n != 0 || up.count() != 0 {
		t.Errorf("%d tokens were judged, %d requests went on", n, up.count())
	}
	if resp, _ := s.do(t, http.MethodGet, "/healthz", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("an exempt path: %d", resp.StatusCode)
	}
	s.event()
	record.ready.Store(true)
	if resp, body := s.do(t, http.MethodPost, "/x", "b", "Authorization", "Bearer "+goodToken); resp.StatusCode != http.StatusOK {
		t.Errorf("when it is back: %d %s", resp.StatusCode, body)
	}
	s.event()
}

func TestObserveRefusesNothingForWantOfAnAuditTrail(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Mode, s.Auditor = gateway.Observe, &auditor{}
	s.start(t)
	resp, body := s.do(t, http.MethodPost, "/x", "b", "Authorization", basic("svc-etl", "legacy-pass"), "Crossfade-Token", goodToken)
	ev := s.event()
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, "ok") || up.count() != 1 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	want := gateway.Decision{Outcome: gateway.WouldRefuse, Reason: identity.AuditUnavailable}
	if ev.Decision != want || ev.Principal.Name != "svc-etl" || ev.Shadow.Verdict != shadow.MatchAllow {
		t.Errorf("decided %+v for %q, verdict %s: the rest should be learnt as ever", ev.Decision, ev.Principal.Name, ev.Shadow.Verdict)
	}
}
