package luigi_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"crossfade/gateway/luigi"
	"crossfade/gateway/luigi/captures"
)

func TestWorkIsReadOutOfRepliesToGetWork(t *testing.T) {
	t.Parallel()
	const idle = `"n_pending_tasks": 0, "worker_state": "active", "running_tasks": []`
	tests := []struct {
		name, body string
		want       luigi.Work
		ok         bool
	}{
		{"nothing to do", `{"response": {` + idle + `, "task_id": null}}`, luigi.Work{}, true},
		{
			"a task", `{"response": {` + idle + `, "task_id": "A_1", "task_family": "A", "task_module": "m", "task_params": {"x": "1"}}}`,
			luigi.Work{Task: "A_1", Family: "A", Module: "m"},
			true,
		},
		{
			"a batch", `{"response": {"task_id": null, "task_family": "A", "task_module": "m", "task_params": {"x": ["1", "2"]}, "batch_id": "b", "batch_task_ids": ["A_1", "A_2"]}}`,
			luigi.Work{Family: "A", Module: "m", BatchID: "b", Batch: []string{"A_1", "A_2"}},
			true,
		},
		{"of two families the last one counts", `{"response": {"task_id": "A_1", "task_family": "A", "task_family": "B"}}`, luigi.Work{Task: "A_1", Family: "B"}, true},
		{"numbers that only Python writes", `{"response": {"task_id": null, "n": Infinity, "m": -Infinity, "o": NaN}}`, luigi.Work{}, true},
		{"a refusal of ours", `{"error": {"reason": "expired"}}`, luigi.Work{}, false},
		{"no JSON", `<html>`, luigi.Work{}, false},
		{"a family that is no text", `{"response": {"task_id": "A_1", "task_family": ["A"]}}`, luigi.Work{}, false},
		{"a batch of what is no text", `{"response": {"batch_task_ids": [1]}}`, luigi.Work{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, ok := luigi.ParseWork([]byte(tt.body))
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreUnexported(luigi.Work{})); ok != tt.ok || diff != "" {
				t.Errorf("ok %v, want %v (-want +got):\n%s", ok, tt.ok, diff)
			}
		})
	}
}

func TestEveryRecordedReplyToGetWorkIsUnderstood(t *testing.T) {
	t.Parallel()
	tasks, batches := 0, 0
	for _, name := range captures.Names() {
		exchanges, err := captures.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range exchanges {
			if e.Path != "/api/get_work" || e.Injected() {
				continue
			}
			work, ok := luigi.ParseWork([]byte(e.ResponseBody))
			switch {
			case !ok:
				t.Errorf("%s %d cannot be read: %s", name, e.Seq, e.ResponseBody)
			case work.Task != "":
				tasks++
			case work.Any():
				batches++
			}
			if work.Any() && (work.Family == "" || len(work.Parameters(nil)) == 0) {
				t.Errorf("%s %d: %+v", name, e.Seq, work)
			}
		}
	}
	if tasks < 19 || batches != 2 {
		t.Errorf("%d tasks and %d batches", tasks, batches)
	}
}

func TestOfParametersOnlyAllowedNamesHaveValues(t *testing.T) {
	t.Parallel()
	text := func(s string) *string { return &s }
	long := strings.Repeat("é", 400)
	got := luigi.ReadParameters(`{"b": "secret", "day": "2024-05-01", "n": 7, "list": ["a"], "\u0064ay2": null, "long": "`+long+`"}`,
		func(name string) bool { return name != "b" })
	want := []luigi.Parameter{
		{Name: "b"},
		{Name: "day", Value: text("2024-05-01")},
		{Name: "day2", Value: text("")},
		{Name: "list", Value: text(`["a"]`)},
		{Name: "long", Value: text(strings.Repeat("é", 256) + "...")},
		{Name: "n", Value: text("7")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := luigi.ReadParameters(`["b"]`, nil); len(got) > 0 {
		t.Errorf("a list has parameters: %v", got)
	}
	if got := luigi.ReadParameters(`{"b": "secret"}`, nil); len(got) != 1 || got[0].Value != nil {
		t.Errorf("nothing is allowed, and yet: %v", got)
	}
}

func FuzzParseWork(f *testing.F) {
	f.Add(`{"response": {"task_id": "A_1", "task_family": "A", "task_params": {"x": "1"}}}`)
	f.Add(`{"response": {"batch_id": "b", "batch_task_ids": ["A_1"], "task_params": {"\ud83d": ["\u0000"]}}}`)
	f.Add(`{"response": `)
	f.Fuzz(func(t *testing.T, body string) {
		work, ok := luigi.ParseWork([]byte(body))
		if !ok && work.Any() {
			t.Errorf("%q hands out %+v, and cannot be read", body, work)
		}
		for _, p := range work.Parameters(func(string) bool { return true }) {
			if p.Value == nil || len(p.Name) > 200 || len(*p.Value) > 600 {
				t.Errorf("%q has the parameter %+v", body, p)
			}
		}
	})
}
