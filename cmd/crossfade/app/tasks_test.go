package app_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/audit"
	"crossfade/gateway/luigi/captures"
	"crossfade/rollout/rollouttest"
)

// A recorded pipeline through two gateways in turn, with a common Redis: whoever
// asks who ran what finds every execution once, with its start.
func TestTwoReplicasTellEveryExecutedTaskOnce(t *testing.T) {
	t.Parallel()
	redis := rollouttest.StartRedis(t)
	s := newSite(t)
	var gateways []*gateway
	for i := range 2 {
		s.configure("redis", redis.URL(), "audit", fmt.Sprintf("{ file: audit-%d.jsonl, parameters: [day] }", i))
		gateways = append(gateways, s.start().loaded())
	}
	exchanges, err := captures.Load(captures.Success)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range exchanges {
		q := request{method: e.Method, path: e.Path, body: e.RequestBody}
		if q.user, q.password = "svc-etl", "legacy-pass"; i%3 == 0 { // replies get lost
			_ = gateways[(i+1)%2].send(q)
		}
		if got := gateways[i%2].send(q); got.status != e.Status || got.header.Get("Crossfade-Reason") != "" {
			t.Fatalf("exchange %d: %v", e.Seq, got)
		}
	}
	var files, tasks []string
	for i, g := range gateways {
		g.end()
		files = append(files, filepath.Join(s.dir, fmt.Sprintf("audit-%d.jsonl", i)))
		tasks = append(tasks, executed(t, files[i])...)
	}
	report, err := audit.Verify(files, nil)
	if err != nil || !report.Intact() {
		t.Errorf("the trail is not intact: %v, %+v", err, report)
	}
	slices.Sort(tasks)
	want := []string{
		"done ExtractUsers_2024_05_01_crm_ae529ab280 day=2024-05-01 source",
		"done ExtractUsers_2024_05_01_dynamic_ba59bfa3ab day=2024-05-01 source",
		"done ExtractUsers_2024_05_01_web_shop_35177e150a day=2024-05-01 source",
		"done LoadUsers_2024_05_01_users_69c4d211aa day=2024-05-01 table",
		"done NotifyRegion_2024_05_01_apac_emea_amer_d67efe41cb day=2024-05-01 region",
		"done Sync_CRM_2024_05_01_e0763b9989 day=2024-05-01",
		"done TransformUsers_2024_05_01_e0763b9989 day=2024-05-01",
		"done UsersPipeline_2024_05_01_e0763b9989 day=2024-05-01",
		"done billing.ExportInvoices_2024_05_a8384ffa69 month note",
		"yielded Sync_CRM_2024_05_01_e0763b9989 day=2024-05-01",
	}
	if diff := cmp.Diff(want, tasks); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// executed reads the lines of executed tasks, and checks what all of them tell.
func executed(t *testing.T, file string) (out []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var l struct {
			audit.Header
			audit.Task
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		if l.Kind != audit.KindTask {
			continue
		}
		text := fmt.Sprintf("%s %s", l.Outcome, l.Task.Task)
		for _, p := range l.Parameters {
			text += " " + p.Name
			if p.Value != nil {
				text += "=" + *p.Value
			}
		}
		out = append(out, text)
		if l.Started.IsZero() || l.Ended.Before(l.Started) || l.Principal != "svc-etl" || l.Team != "data-eng" || l.Scheme != "basic" ||
			l.Credential == "" || l.Family == "" || l.Module == "" || l.Worker == "" || l.TraceID == "" || l.Configuration == "" {
			t.Errorf("a line without what an auditor asks for: %s", lines.Bytes())
		}
	}
	return out
}
