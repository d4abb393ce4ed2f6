package agent_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"crossfade/gateway/agent"
)

// BenchmarkFamilies measures what an agent itself spends on a call, without a
// network: with tokens by family every call is read, and of get_work the reply.
func BenchmarkFamilies(b *testing.B) {
	calls := map[string]string{
		"get_work":                `{"worker": "Worker(salt=1, workers=1, host=vm)", "current_tasks": [], "assistant": false, "host": "vm"}`,
		"set_task_status_message": `{"task_id": "LoadUsers_2024_05_01_crm_ae529ab280", "status_message": "half of it"}`,
	}
	answer := `{"response": {"n_pending_tasks": 1, "worker_state": "active", "running_tasks": [], "task_id": "LoadUsers_2024_05_01_crm_ae529ab280", "task_family": "LoadUsers", "task_module": "m", "task_params": {"day": "2024-05-01", "source": "crm"}}}`
	for _, with := range []bool{false, true} {
		for method, args := range calls {
			name := method + " without"
			var families []agent.Family
			if with {
				name, families = method+" with", []agent.Family{aud("Load*", "load")}
			}
			b.Run(name, func(b *testing.B) {
				s := newScheduled(b, "", families...)
				defer func() { _ = s.families.Close() }()
				if !with {
					var err error
					if s.proxy, err = agent.New(agent.Options{
						Gateway: &url.URL{Scheme: "http", Host: "gateway"}, Tokens: good(), Transport: s, Report: agent.NewReporter(io.Discard, 0),
					}); err != nil {
						b.Fatal(err)
					}
				}
				s.answer = func(string, *http.Request) *http.Response { return says(answer) }
				body := url.Values{"data": {args}}.Encode()
				b.ReportAllocs()
				for b.Loop() {
					r := httptest.NewRequest(http.MethodPost, "/api/"+method, strings.NewReader(body))
					r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
					if _, reply := s.do(r); reply.Code != http.StatusOK {
						b.Fatal(reply.Code)
					}
				}
			})
		}
	}
}
