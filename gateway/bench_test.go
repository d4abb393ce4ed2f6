package gateway_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"crossfade/gateway"
	"crossfade/gateway/identity"
)

// typical is the decision of a worker's call in a ramp, with a companion.
func typical() gateway.Facts {
	return gateway.Facts{
		Mode:      gateway.Enforce,
		Legacy:    gateway.Judged{Status: identity.StatusVerified},
		Token:     gateway.Judged{Status: identity.StatusVerified},
		Companion: true, Enforced: true,
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	f := typical()
	if n := testing.AllocsPerRun(100, func() { gateway.Decide(f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecide(b *testing.B) {
	f := typical()
	b.ReportAllocs()
	for b.Loop() {
		gateway.Decide(f)
	}
}

func BenchmarkExtract(b *testing.B) {
	reader := gateway.Extractor{APIKeyHeader: "X-Api-Key", Static: statics{opaque: true}}
	for name, h := range map[string]http.Header{
		"bearer":    {"Authorization": {"Bearer " + jwt}},
		"basic":     {"Authorization": {basic("svc-etl", "legacy-pass")}},
		"companion": {"Authorization": {basic("svc-etl", "legacy-pass")}, "Crossfade-Token": {jwt}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				reader.Extract(h, "data=%7B%7D")
			}
		})
	}
}

// discard is a ResponseWriter that keeps nothing but headers.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

// BenchmarkHandler is the straight pass without any network: what the gateway
// itself costs a request.
func BenchmarkHandler(b *testing.B) {
	body := []byte(rpc(`{"worker": "w1", "assistant": false}`))
	for _, bench := range []struct {
		name    string
		mode    gateway.Mode
		headers http.Header
	}{
		{"observe, password", gateway.Observe, http.Header{"Authorization": {basic("svc-etl", "legacy-pass")}}},
		{"enforce, token", gateway.Enforce, http.Header{"Authorization": {"Bearer " + goodToken}}},
		{"enforce, password and known companion", gateway.Enforce, http.Header{"Authorization": {basic("svc-etl", "legacy-pass")}, "Crossfade-Token": {goodToken}}},
		{"enforce, refused", gateway.Enforce, http.Header{"Authorization": {basic("svc-etl", "wrong")}}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := newStage("http://127.0.0.1:1")
			s.Mode, s.Classifier.Profile, s.Recorder = bench.mode, gateway.ProfileLuigi, nil
			s.tokens.remembered = map[string]bool{goodToken: true}
			s.proxy.Transport = transport(func(r *http.Request) (*http.Response, error) {
				_, _ = io.Copy(io.Discard, r.Body)
				return &http.Response{
					StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, ContentLength: 18,
					Header: http.Header{"Content-Type": {"application/json"}},
					Body:   io.NopCloser(bytes.NewReader([]byte(`{"response": null}`))),
				}, nil
			})
			h := s.handler(b)
			template := httptest.NewRequest(http.MethodPost, "/api/get_work", nil)
			template.Header = bench.headers
			template.Header.Set("Content-Type", form)
			b.ReportAllocs()
			for b.Loop() {
				r := template.WithContext(b.Context())
				r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
				h.ServeHTTP(&discard{http.Header{}}, r)
			}
		})
	}
}
