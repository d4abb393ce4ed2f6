package agent_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/agent"
)

func FuzzHandedOut(f *testing.F) {
	f.Add([]byte(`{"response": {"task_id": "LoadUsers_1", "task_family": "LoadUsers"}}`))
	f.Add([]byte(`{"response": {"task_id": null, "task_family": "N", "batch_id": "b", "batch_task_ids": ["N_1", "N_2"]}}`))
	f.Add([]byte(`{"response": {"task_id": null}}`))
	f.Add([]byte(`{"response": {"task_id": "A_\ud800", "task_family": "A"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		family, batch, tasks, err := agent.ReadWork(body)
		if err != nil {
			if family != "" || batch != "" || tasks != nil {
				t.Errorf("an error and %q %q %q", family, batch, tasks)
			}
			return
		}
		if !json.Valid(body) {
			t.Error("it is no JSON")
		}
		for _, id := range tasks {
			if family == "" || !strings.HasPrefix(id, family+"_") {
				t.Errorf("%q is not of %q", id, family)
			}
		}
		if batch != "" && len(tasks) > 0 && slices.Contains(tasks, "") {
			t.Errorf("a task without a name: %q", tasks)
		}
	})
}

func FuzzCall(f *testing.F) {
	form := "application/x-www-form-urlencoded"
	f.Add("", form, `data={"task_id": "LoadUsers_1", "worker": "w"}`)
	f.Add(`data={"task_id": "LoadUsers_1"}`, "", "")
	f.Add("", form, `data={"task_id": "a", "task_id": "b"}`)
	f.Add("data={}", form, "data={}")
	f.Fuzz(func(t *testing.T, query, contentType, body string) {
		_, task, family, _, err := agent.ReadCall("/api/add_task", query, contentType, []byte(body))
		if err != nil || task == "" {
			return
		}
		// Another reader, which goes by the last name, must find the same.
		fields, _ := url.ParseQuery(query)
		data := fields["data"]
		if body != "" {
			more, err := url.ParseQuery(body)
			if err != nil {
				t.Fatal(err)
			}
			data = append(data, more["data"]...)
		}
		var all map[string]any
		if len(data) != 1 || json.Unmarshal([]byte(data[0]), &all) != nil {
			t.Fatalf("read %q out of %q %q", task, query, body)
		}
		got := map[string]any{"task_id": task, "family": family}
		want := map[string]any{"task_id": all["task_id"], "family": ""}
		if all["family"] != nil {
			want["family"] = all["family"]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}
