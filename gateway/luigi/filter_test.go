package luigi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/luigi"
	"crossfade/gateway/luigi/captures"
)

func everything(string) bool { return true }

// recorded calls visit with every recorded reply to the visualiser's lists.
func recorded(t *testing.T, visit func(method, body string)) {
	t.Helper()
	exchanges, err := captures.Load(captures.Visualiser)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, e := range exchanges {
		method := strings.TrimPrefix(e.Path, "/api/")
		if e.Status == 200 && luigi.Filters(method) {
			seen++
			visit(method, e.ResponseBody)
		}
	}
	if seen < 14 {
		t.Fatalf("the recording has %d lists", seen)
	}
}

func TestWhoSeesEveryFamilySeesTheRecordedListsAsTheyAre(t *testing.T) {
	t.Parallel()
	recorded(t, func(method, body string) {
		got, ok := luigi.Filter(method, []byte(body), everything)
		if !ok {
			t.Fatalf("%s cannot be read: %s", method, body)
		}
		if diff := cmp.Diff(body, string(got)); diff != "" {
			t.Errorf("%s (-recorded +got):\n%s", method, diff)
		}
	})
}

func TestNobodySeesFamiliesThatAreNotTheirs(t *testing.T) {
	t.Parallel()
	hidden, shown := 0, 0
	recorded(t, func(method, body string) {
		got, ok := luigi.Filter(method, []byte(body), func(family string) bool { return family == "ExtractUsers" })
		if !ok || !json.Valid(got) {
			t.Fatalf("%s: %v %s", method, ok, got)
		}
		for _, other := range []string{"ValidateUsers", "PublishUsers", "VendorFile", "BrokenPipeline", "TransformUsers", "NotifyRegion", "UsersPipeline", "ExportInvoices"} {
			if strings.Contains(body, other) {
				hidden++
			}
			if strings.Contains(string(got), other) && method != "dep_graph" && method != "inverse_dep_graph" {
				t.Errorf("%s still shows %s: %s", method, other, got)
			}
			if strings.Contains(string(got), `"name": "`+other) {
				t.Errorf("%s still shows a task of %s: %s", method, other, got)
			}
		}
		shown += strings.Count(string(got), `"name": "ExtractUsers"`)
	})
	if hidden == 0 || shown == 0 {
		t.Errorf("%d hidden and %d shown: the recording proves nothing", hidden, shown)
	}
}

func TestFilterKeepsWhatIsNoTaskAndTakesTheNamesOfHiddenOnes(t *testing.T) {
	t.Parallel()
	visible := func(family string) bool { return family == "A" }
	tests := []struct{ name, method, body, want string }{
		{
			"how many tasks there are would tell whether a search for a hidden one finds it", "task_list",
			`{"response": {"num_tasks": 123456}}`, `{"response": {"num_tasks": -1}}`,
		},
		{
			"dependencies that are not in the reply are as hidden as those that were taken out", "dep_graph",
			`{"response": {"A_1": {"name": "A", "deps": ["C_9"]}}}`, `{"response": {"A_1": {"name": "A", "deps": []}}}`,
		},
		{
			"the family of a dependency that nobody registered is a guess of the scheduler", "dep_graph",
			`{"response": {"A_1": {"name": "A", "deps": ["A_x_2"]}, "A_x_2": {"deps": [], "status": "UNKNOWN", "name": "A"}}}`,
			`{"response": {"A_1": {"name": "A", "deps": []}}}`,
		},
		{
			"a worker whose first task is no text", "worker_list",
			`{"response": [{"name": "w", "first_task": 7, "first_task_display_name": 7}, {"name": "v", "first_task": "\ud800", "first_task_display_name": "\ud800"}]}`,
			`{"response": [{"name": "w", "first_task": "", "first_task_display_name": ""}, {"name": "v", "first_task": "", "first_task_display_name": ""}]}`,
		},
		{
			"hidden dependencies go with their tasks, others stay", "dep_graph",
			`{"response": {"A_1": {"name": "A", "deps": ["B_1", "A_2"]}, "B_1": {"name": "B"}, "A_2": {"name": "A"}}}`,
			`{"response": {"A_1": {"name": "A", "deps": ["A_2"]}, "A_2": {"name": "A"}}}`,
		},
		{
			"a task that is only known as a dependency has no family, and is nobody's to see", "graph",
			`{"response": {"X_1": {"name": "", "deps": []}}}`, `{"response": {}}`,
		},
		{
			"numbers that only Python writes stay", "task_list",
			`{"response": {"A_1": {"name": "A", "priority": Infinity, "params": {"x": NaN}}}}`,
			`{"response": {"A_1": {"name": "A", "priority": Infinity, "params": {"x": NaN}}}}`,
		},
		{
			"of two names the last one counts, as in Python and in browsers", "task_list",
			`{"response": {"A_1": {"name": "A", "name": "B"}}}`, `{"response": {}}`,
		},
		{
			"a search groups by status, and an empty group would tell that it has found something", "task_search",
			`{"response": {"FAILED": {"B_1": {"name": "B"}}, "DONE": {"A_1": {"name": "A"}}, "PENDING": {"B_2": {"name": "B"}}}}`,
			`{"response": {"DONE": {"A_1": {"name": "A"}}}}`,
		},
		{
			"a worker's first task and running tasks are tasks too", "worker_list",
			`{"response": [{"name": "w1", "first_task": "B_1", "first_task_display_name": "B(x=1)", "num_running": 2, "running": {"A_1": {"name": "A"}, "B_1": {"name": "B"}}}]}`,
			`{"response": [{"name": "w1", "first_task": "", "first_task_display_name": "", "num_running": 2, "running": {"A_1": {"name": "A"}}}]}`,
		},
		{
			"a resource's consumers are tasks", "resource_list",
			`{"response": [{"name": "db", "num_total": 1, "running": {"B_1": {"name": "B"}}}]}`,
			`{"response": [{"name": "db", "num_total": 1, "running": {}}]}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, ok := luigi.Filter(tt.method, []byte(tt.body), visible)
			if !ok {
				t.Fatal("cannot be read")
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestNothingIsShownOfAReplyThatCannotBeUnderstood(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		``, `null`, `[]`, `{}`, `{"response": []}`, `{"response": {"A_1": {"name": "A"}}`,
		`{"response": {}} {"response": {}}`, `{"response": {}, "more": {}}`, `<html>502</html>`, `{"response": {"A_1": {"name": "A", "deps": [}}}`,
	} {
		if got, ok := luigi.Filter("task_list", []byte(body), everything); ok {
			t.Errorf("%s: %s", body, got)
		}
	}
	if _, ok := luigi.Filter("ping", []byte(`{"response": {}}`), everything); ok {
		t.Error("a reply without tasks is filtered")
	}
}

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		`{"response": {"A_1": {"name": "A", "deps": ["B_1"]}, "B_1": {"name": "B", "x": [1, {"y": -1.5e3}]}}}`,
		`{"response": [{"first_task_display_name": "A(x)", "running": {}}]}`, `{"response": {"DONE": {}}}`, `{"response":{"a":{"name":"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, method := range []string{"task_list", "task_search", "worker_list"} {
			got, ok := luigi.Filter(method, []byte(body), func(family string) bool { return family == "A" })
			if !ok {
				continue
			}
			// What was let through once is let through as it is.
			again, ok := luigi.Filter(method, got, func(family string) bool { return family == "A" })
			if !ok || string(again) != string(got) {
				t.Errorf("%s of %q: %q, then %q", method, body, got, again)
			}
		}
	})
}
