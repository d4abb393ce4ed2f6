package audit_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
)

// searched writes a trail of several traces and returns its file.
func searched(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	tr := open(t, audit.Options{File: file})
	traced := func(ev *gateway.Event, trace string) *gateway.Event { ev.TraceID = trace; return ev }
	refused := traced(addTask(), "aaaaaaaa000000000000000000000001")
	refused.Decision = gateway.Decision{Outcome: gateway.Refused, Reason: identity.LegacyRefused, Control: gateway.SideLegacy}
	refused.Shadow = shadow.Result{Verdict: shadow.NoToken, Reason: identity.TokenAbsent}
	byTask := execution()
	byTask.By.TraceID = "aaaaaaaa000000000000000000000002"
	again := traced(addTask(), "aaaaaaaa000000000000000000000002")
	again.Call.Family = "aaaaaaaa-family" // the digits alone are no trace
	tr.observe(addTask(), refused, again, traced(ping(), "cccccccc000000000000000000000003"), traced(ping(), "dddddddd000000000000000000000004"))
	tr.Executed(byTask)
	tr.close()
	return file
}

func TestFindReturnsTheLinesOfATrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := searched(t)
		find := func(trace string) audit.Found {
			t.Helper()
			found, err := audit.Find([]string{file, file}, trace)
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
		summary := func(f audit.Found) (all []string) {
			for _, h := range f.Hits {
				text := fmt.Sprintf("%s %d %s", h.Kind, h.Line, h.Seal)
				if h.Use != nil {
					text += " " + h.Use.Reason
				}
				all = append(all, text)
			}
			return all
		}
		for name, tt := range map[string]struct {
			trace string
			want  []string
		}{
			"one request":                            {"aaaaaaaa000000000000000000000001", []string{"use 3 named legacy_refused"}},
			"the beginning of several":               {"aaaaaaaa", []string{"use 3 named legacy_refused", "use 4 named ", "task 5 named"}},
			"a request and the task that it began":   {"aaaaaaaa000000000000000000000002", []string{"use 4 named ", "task 5 named"}},
			"the first of requests that are counted": {"cccccccc", []string{"count 6 named "}},
			"any other of them has no line":          {"dddddddd", nil},
			"a trace that is not there":              {"eeeeeeee", nil},
		} {
			if diff := cmp.Diff(tt.want, summary(find(tt.trace))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		got := find("eeeeeeee")
		if got.Lines != 7 || got.Counted != 1 || got.From.IsZero() || got.To.Before(got.From) {
			t.Errorf("what was searched: %+v", got)
		}

		text := read(t, file)
		rewrite := func(with string) {
			if err := os.WriteFile(file, []byte(with), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		rewrite(strings.Replace(text, "legacy_refused", "legacy_retired", 1))
		if diff := cmp.Diff([]string{"use 3 altered legacy_retired"}, summary(find("aaaaaaaa000000000000000000000001"))); diff != "" {
			t.Errorf("a line that was changed (-want +got):\n%s", diff)
		}
		lines := strings.SplitAfter(text, "\n")
		rewrite(strings.Join(lines[:3], ""))
		if diff := cmp.Diff([]string{"use 3 last legacy_refused"}, summary(find("aaaaaaaa"))); diff != "" {
			t.Errorf("the last line (-want +got):\n%s", diff)
		}
		rewrite(lines[0] + strings.Repeat("x", 2*audit.MaxLine) + "\nnonsense aaaaaaaa\n" + lines[2] + lines[3][:40])
		if diff := cmp.Diff([]string{"use 3 last legacy_refused"}, summary(find("aaaaaaaa"))); diff != "" {
			t.Errorf("among lines that are none (-want +got):\n%s", diff)
		}
		rewrite(strings.Repeat(lines[2], audit.MaxHits+7))
		if got := find("aaaaaaaa"); len(got.Hits) != audit.MaxHits || got.More != 7 {
			t.Errorf("%d lines and %d more", len(got.Hits), got.More)
		}
		if _, err := audit.Find([]string{filepath.Join(t.TempDir(), "none")}, "aaaaaaaa"); err == nil {
			t.Error("a file that is not there was searched")
		}
	})
}

func TestParseTraceTakesWhatPeopleHave(t *testing.T) {
	for in, want := range map[string]string{
		"4bf92f3577b34da6":                 "4bf92f3577b34da6",
		"4BF92F35":                         "4bf92f35",
		"4bf92f3577b34da6a3ce929d0e0e4736": "4bf92f3577b34da6a3ce929d0e0e4736",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": "4bf92f3577b34da6a3ce929d0e0e4736",
		"4bf92f3": "", "": "", "svc-etl-nightly": "", "4bf92f3577b34da6a3ce929d0e0e47361": "", "4bf92f35\x1b[2J": "",
	} {
		got, err := audit.ParseTrace(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: what moves a cursor is in %q", in, err)
		}
	}
}

func FuzzFind(f *testing.F) {
	line := `{"kind":"use","time":"2026-11-24T01:02:03Z","replica":"r","seq":1,"prev":"` + strings.Repeat("0", 64) + `","scheme":"basic","outcome":"allowed","mode":"observe","trace_id":"aaaaaaaa"}` + "\n"
	f.Add([]byte(line + line))
	f.Add([]byte(`{"kind":"task"` + line[13:]))
	f.Add([]byte("aaaaaaaa\n{\"time\":\"\n"))
	file := filepath.Join(f.TempDir(), "audit.jsonl")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := audit.Find([]string{file}, "aaaaaaaa")
		if err != nil {
			t.Fatal(err)
		}
		if n := int64(bytes.Count(content, []byte("\n"))); found.Lines > n || len(found.Hits) > int(n) {
			t.Errorf("%d lines and %d hits of %d", found.Lines, len(found.Hits), n)
		}
		for _, h := range found.Hits {
			if h.Use == nil && h.Task == nil && h.Probe == nil {
				t.Errorf("a hit of nothing: %+v", h)
			}
		}
		if _, err := audit.Survey([]string{file}, time.Time{}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSurveyCountsWhatAccountsDid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		tr := open(t, audit.Options{File: file})
		old := addTask()
		old.Call.Family = "LongAgo"
		tr.observe(old)
		time.Sleep(time.Hour)
		since := time.Now()

		token := &identity.Authentication{
			Status: identity.StatusRejected, Reasons: []identity.Reason{identity.PrincipalUnmapped},
			Token: &identity.TokenInfo{Verified: true, Issuer: "https://idp.example", Subject: "0oa1"},
		}
		both := addTask()
		both.Presented.Token, both.Presented.Companion, both.Shadowed, both.ShadowToken = true, true, true, token
		forged := addTask()
		forged.Presented, forged.Shadowed = both.Presented, true
		forged.ShadowToken = &identity.Authentication{Status: identity.StatusRejected, Token: &identity.TokenInfo{Subject: "liar"}}
		denied, unproven, refused := addTask(), addTask(), addTask()
		denied.Call.Family, denied.Decision = "Denied", gateway.Decision{Outcome: gateway.WouldRefuse, Reason: identity.TaskFamilyDenied, Control: gateway.SideLegacy}
		unproven.Call.Family, unproven.Decision = "Unproven", gateway.Decision{Outcome: gateway.WouldRefuse, Reason: identity.LegacyExpired, Control: gateway.SideLegacy}
		refused.Call.Family, refused.Decision = "Refused", gateway.Decision{Outcome: gateway.Refused, Reason: identity.LegacyRefused, Control: gateway.SideLegacy}
		look := etl("task_list", identity.ActionView)
		executed := execution()
		executed.Ended = time.Now()
		tr.observe(addTask(), both, forged, denied, unproven, refused, look, look, look, stranger("add_task", "192.0.2.7"))
		tr.Executed(executed)
		tr.close()

		got, err := audit.Survey([]string{file, file}, since)
		if err != nil {
			t.Fatal(err)
		}
		want := audit.Census{Lines: 8, Accounts: map[string]*audit.Seen{"svc-etl": {
			Team: "data-eng", Requests: 9, Legacy: 9, Token: 2, Tasks: 1,
			Hosts:    map[string]int64{"10.1.2.3": 9},
			Subjects: map[audit.Subject]int64{{Issuer: "https://idp.example", Subject: "0oa1"}: 1},
			Faults:   map[identity.Reason]int64{identity.PrincipalUnmapped: 1},
			Deeds: map[audit.Deed]int64{
				{Action: identity.ActionExecute, RPC: "add_task", Family: "LoadUsers"}: 3,
				{Action: identity.ActionExecute, RPC: "add_task", Family: "Denied"}:    1,
				{Action: identity.ActionExecute, Family: "LoadUsers"}:                  1,
				{Action: identity.ActionView, RPC: "task_list", Counted: true}:         3,
			},
			Families: map[string]int64{"LoadUsers": 4, "Denied": 1, "Unproven": 1, "Refused": 1},
		}}}
		seen := got.Accounts["svc-etl"]
		if seen == nil || seen.First.Before(since) || seen.Last.Before(seen.First) {
			t.Fatalf("%+v", seen)
		}
		seen.First, seen.Last = time.Time{}, time.Time{}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if _, err := audit.Survey([]string{filepath.Join(t.TempDir(), "none")}, since); err == nil {
			t.Error("a file that is not there was read")
		}
	})
}

func TestASurveyIsBoundedWhateverAnAccountMakesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		tr := open(t, audit.Options{File: file})
		for i := range audit.MaxHosts + 5 {
			ev := addTask()
			ev.Client = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			tr.Observe(t.Context(), ev)
		}
		tr.close()
		got, err := audit.Survey([]string{file}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if s := got.Accounts["svc-etl"]; len(s.Hosts) != audit.MaxHosts || s.Requests != audit.MaxHosts+5 || s.Crowded != 5 {
			t.Errorf("%d hosts of %d requests, %d crowded", len(s.Hosts), s.Requests, s.Crowded)
		}
	})
}

// BenchmarkFind is how fast a trail is searched.
func BenchmarkFind(b *testing.B) {
	file := filepath.Join(b.TempDir(), "audit.jsonl")
	line := `{"kind":"use","time":"2026-11-24T01:02:03.123Z","replica":"web1-ABCDEFGHIJ","seq":4,"prev":"` + strings.Repeat("0f", 32) + `","principal":"svc-etl","team":"data-eng","scheme":"basic","credential":"basic:svc-etl","outcome":"allowed","mode":"enforce","action":"execute","rpc":"add_task","family":"LoadUsers","run":"worker-1","method":"POST","status":200,"client":"10.1.2.3","percent":25,"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","configuration":"` + strings.Repeat("c0", 32) + `"}` + "\n"
	if err := os.WriteFile(file, bytes.Repeat([]byte(line), 64<<20/len(line)), 0o600); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(64 << 20)
	for b.Loop() {
		if _, err := audit.Find([]string{file}, "a3ce929e"); err != nil {
			b.Fatal(err)
		}
	}
}
