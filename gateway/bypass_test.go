package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"crossfade/gateway"
	"crossfade/gateway/identity"
)

func TestARequestThatAsksForAnotherMethodIsJudgedAsThatOne(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Classifier.ExemptPaths = []string{"/healthz"}
	s.RolesCount, s.Policy = true, viewersOnly(t)
	s.start(t)
	pass := basic("svc-etl", "legacy-pass")
	for _, override := range []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X_HTTP_Method_Override"} {
		for _, tt := range []struct {
			name, method, target string
			headers              []string
			status               int
		}{
			{"a health path", "GET", "/healthz", nil, http.StatusUnauthorized},
			{"the sign of life", "HEAD", "/", nil, http.StatusUnauthorized},
			{"a preflight", "OPTIONS", "/jobs", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "POST"}, http.StatusUnauthorized},
			{"a viewer's GET", "GET", "/jobs", []string{"Authorization", pass}, http.StatusForbidden},
		} {
			resp, _ := s.do(t, tt.method, tt.target, "", append(tt.headers, override, "POST")...)
			if resp.StatusCode != tt.status || up.count() != 0 {
				t.Errorf("%s with %s: %d, %d requests reached the upstream", tt.name, override, resp.StatusCode, up.count())
			}
		}
	}
	if resp, _ := s.do(t, "GET", "/healthz", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("a health path without: %d", resp.StatusCode)
	}
}

func TestAPreflightWithABodyNeedsAnIdentity(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL).start(t)
	preflight := []string{"Origin", "https://a.example", "Access-Control-Request-Method", "POST"}
	if resp, _ := s.do(t, "OPTIONS", "/jobs", "run=everything", preflight...); resp.StatusCode != http.StatusUnauthorized || up.count() != 0 {
		t.Errorf("with a body: %d, %d requests reached the upstream", resp.StatusCode, up.count())
	}
	if resp, _ := s.do(t, "OPTIONS", "/jobs", "", append(preflight, "Origin", "https://b.example")...); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("with two origins: %d", resp.StatusCode)
	}
	if resp, _ := s.do(t, "OPTIONS", "/jobs", "", preflight...); resp.StatusCode != http.StatusOK {
		t.Errorf("a browser's: %d", resp.StatusCode)
	}
}

func TestAHeaderThatRoutesDoesNotReachTheUpstream(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	s := newStage(up.URL)
	s.Classifier.ExemptPaths = []string{"/healthz"}
	s.start(t)
	s.do(t, "GET", "/healthz", "", "X-Original-Url", "/admin", "X-Rewrite-Url", "/admin", "X_Original_URL", "/admin", "X.Forwarded.User", "root")
	for name := range up.last(t).header {
		if strings.Contains(strings.ToLower(name), "url") || strings.Contains(name, "orwarded.") {
			t.Errorf("%s reached the upstream", name)
		}
	}
}

func TestAnAssistantNeedsTheRightToEveryFamily(t *testing.T) {
	t.Parallel()
	c := gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: 4096}
	for arguments, every := range map[string]bool{
		`{"worker": "w1", "assistant": true}`:  true,
		`{"worker": "w1", "assistant": false}`: false,
		`{"worker": "w1"}`:                     false,
	} {
		call, err := c.Classify(post("get_work", rpc(arguments)))
		if err != nil || call.EveryFamily != every || call.Action != identity.ActionExecute {
			t.Errorf("%s: %+v, %v", arguments, call, err)
		}
	}
}

// stalled is a body of which nothing arrives before measure was called.
type stalled struct{ measure func() }

func (s stalled) Read([]byte) (int, error) { s.measure(); return 0, io.EOF }

func TestABodyThatIsOnlyAnnouncedCostsNoMemory(t *testing.T) { // not parallel: it measures the whole process
	c := gateway.Classifier{Profile: gateway.ProfileLuigi, MaxBody: 64 << 20}
	var before, after runtime.MemStats
	r := httptest.NewRequest(http.MethodPost, "/api/ping", stalled{func() { runtime.ReadMemStats(&after) }})
	r.ContentLength = 48 << 20
	runtime.ReadMemStats(&before)
	if _, err := c.Classify(r); err != nil {
		t.Fatal(err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("%d bytes were set aside for a body that never came", grown)
	}
}
