package gateway_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/luigi/captures"
	"crossfade/gateway/luigi/luigitest"
	"crossfade/gateway/policy"
	"crossfade/gateway/shadow"
	"crossfade/rollout"
)

// The roles of the table of PROTOCOL, section 6: runner executes some families
// and sees them, viewer sees all, extractor knows one family by name, operator
// may do everything.
func rules(t testing.TB) *policy.Policy {
	t.Helper()
	p, err := policy.New(map[identity.Role]policy.Grant{
		"runner":    {identity.ActionExecute: {"Extract*", "Load"}, identity.ActionView: {"Extract*"}},
		"viewer":    {identity.ActionView: {"*"}},
		"extractor": {identity.ActionExecute: {"ExtractUsers"}, identity.ActionView: {"ExtractUsers"}, identity.ActionAdmin: {"ExtractUsers"}},
		"operator":  {identity.ActionExecute: {"*"}, identity.ActionView: {"*"}, identity.ActionAdmin: {"*"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// scheduler is a luigid that knows some tasks and hands out what it is told.
type scheduler struct {
	*upstream
	mu       sync.Mutex
	families map[string]string
	work     string // the reply to get_work
	lists    map[string]string
	asked    int // by the gateway itself
	away     bool
}

func newSchedulerUpstream(t testing.TB) *scheduler {
	s := &scheduler{families: map[string]string{}, lists: map[string]string{}, work: `{"response": {"task_id": null}}`}
	s.upstream = newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		method := strings.TrimPrefix(r.URL.Path, "/api/")
		switch {
		case method == "get_work":
			_, _ = fmt.Fprint(w, s.work)
		case s.lists[method] != "":
			_, _ = fmt.Fprint(w, s.lists[method])
		default:
			_, _ = fmt.Fprint(w, `{"response": null}`)
		}
	})
	return s
}

// asker is what the gateway asks, apart from the traffic that it forwards.
type asker struct{ *scheduler }

func (a asker) Family(_ context.Context, task string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	if a.away {
		return "", errors.New("connection refused")
	}
	return a.families[task], nil
}

func (s *scheduler) handsOut(work string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.work = work
}

// tasksStage is a gateway of profile luigi with roles, in mode enforce.
type tasksStage struct {
	*stage
	up       *scheduler
	store    luigi.Store
	registry *luigi.Registry
}

func newTasksStage(t testing.TB, change func(*tasksStage)) *tasksStage {
	t.Helper()
	up := newSchedulerUpstream(t)
	s := &tasksStage{stage: newStage(up.URL), up: up, store: luigitest.NewMemory(nil)}
	s.Classifier = gateway.Classifier{Profile: gateway.ProfileLuigi}
	s.Policy = rules(t)
	for _, role := range []identity.Role{"runner", "viewer", "extractor", "operator", "nobody"} {
		p := identity.Principal{Name: "svc-" + string(role), Team: "data-eng", Roles: []identity.Role{role}, Mapped: true}
		s.tokens.judgements[string(role)+".token.sig"] = token(p)
		s.keys[string(role)+"-pass"] = verified(p)
		expired := identity.Reject("expired", identity.Expired)
		expired.Principal, expired.Expires = p, time.Now().Add(-time.Minute)
		expired.Token = &identity.TokenInfo{Verified: true}
		s.tokens.judgements[string(role)+".expired.sig"] = expired
	}
	s.Refusals.Abort = true
	s.Tasks = gateway.Tasks{Scheduler: asker{up}, Grace: 15 * time.Minute, Configuration: "c0ffee"}
	if change != nil {
		change(s)
	}
	s.registry = newRegistry(t, s.store)
	s.Tasks.Registry = s.registry
	s.start(t)
	return s
}

func newRegistry(t testing.TB, store luigi.Store) *luigi.Registry {
	t.Helper()
	r, err := luigi.NewRegistry(luigi.RegistryOptions{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// bearer is the header of a role's token, pass that of its password.
func bearer(role string) []string { return []string{"Authorization", "Bearer " + role + ".token.sig"} }

func late(role string) []string { return []string{"Authorization", "Bearer " + role + ".expired.sig"} }

func pass(role string) []string { return []string{"Authorization", basic("svc-"+role, role+"-pass")} }

// call sends an RPC as a worker does and returns the reason of a refusal, "" if
// it was forwarded.
func (s *tasksStage) call(t testing.TB, method, arguments string, headers ...string) (reason, body string, ev *gateway.Event) {
	t.Helper()
	resp, body := s.do(t, "POST", "/api/"+method, rpc(arguments), append(headers, "Content-Type", form)...)
	ev = s.event()
	return resp.Header.Get("Crossfade-Reason"), body, ev
}

// endpoints are calls about a task of a family, with all the arguments that any
// of them needs. %s is the task id, the family, and a worker of the caller's.
const everyArgument = `{"task_id": %[1]q, "task": %[1]q, "family": %[2]q, "task_family": %[2]q, "worker": %[3]q, "status": "PENDING", "runnable": true}`

func everyMethod() []string {
	return []string{
		"add_task", "add_task_batcher", "announce_scheduling_failure", "get_work", "ping", "count_pending", "add_worker",
		"set_task_status_message", "set_task_progress_percentage", "decrease_running_task_resources", "report_task_statistics",
		"add_scheduler_message_response", "fetch_error", "dep_graph", "inverse_dep_graph", "get_task_status_message",
		"get_task_progress_percentage", "get_running_task_resources", "get_scheduler_message_response", "task_list", "graph",
		"task_search", "worker_list", "resource_list", "has_task_history", "is_paused", "is_pause_enabled", "mark_as_done",
		"forgive_failures", "re_enable_task", "send_scheduler_message", "disable_worker", "set_worker_processes", "pause",
		"unpause", "prune", "update_resource", "update_resources", "update_metrics_task_started", "drop_tables",
	}
}

func TestEveryEndpointForEveryRoleIsTheGoldenTable(t *testing.T) {
	t.Parallel()
	roles := []string{"runner", "viewer", "extractor", "operator", "nobody"}
	families := []string{"ExtractUsers", "ExtractOrders", "LoadUsers", ""}
	s := newTasksStage(t, func(s *tasksStage) {
		for _, family := range families {
			s.up.families[family+"_1_abc"] = family
		}
		for _, list := range []string{"task_list", "graph", "dep_graph", "inverse_dep_graph", "task_search"} {
			s.up.lists[list] = `{"response": {}}`
		}
		s.up.lists["worker_list"], s.up.lists["resource_list"] = `{"response": []}`, `{"response": []}`
	})
	var b strings.Builder
	b.WriteString("# What each role may do with a task of each family, in mode enforce by token; \"-\" is allowed.\n")
	fmt.Fprintf(&b, "# Roles: runner executes Extract* and Load, views Extract*; viewer views *; extractor does all with\n# ExtractUsers; operator all with all. A task without family is one that nobody knows.\n")
	for _, method := range everyMethod() {
		for _, family := range families {
			fmt.Fprintf(&b, "%-32s %-14s", method, cmpOr(family, "unknown"))
			for _, role := range roles {
				id := cmpOr(family, "Gone") + "_1_abc"
				reason, _, ev := s.call(t, method, fmt.Sprintf(everyArgument, id, family, "worker of "+role), bearer(role)...)
				if (ev.Decision.Outcome == gateway.Allowed) != (reason == "") {
					t.Errorf("%s %s by %s: %+v with reason %q", method, family, role, ev.Decision, reason)
				}
				fmt.Fprintf(&b, " %s=%s", role, cmpOr(reason, "-"))
			}
			b.WriteString("\n")
		}
	}
	golden(t, "endpoints.golden", b.String())
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func TestATaskIsJudgedByTheFamilyThatItWasRegisteredUnder(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		before func(*scheduler)
		method string
		args   string
		want   identity.Reason
	}{
		{"a new task by the family that it claims", nil, "add_task", `{"worker":"w","task_id":"ExtractUsers_1","family":"ExtractUsers"}`, ""},
		{"a new task of somebody else's family", nil, "add_task", `{"worker":"w","task_id":"LoadUsers_1","family":"LoadUsers"}`, identity.TaskFamilyDenied},
		{"somebody else's task under a shorter family", func(s *scheduler) { s.families["Load_Users_1"] = "Load_Users" }, "add_task", `{"worker":"w","task_id":"Load_Users_1","family":"Load","status":"DONE","runnable":null}`, identity.TaskFamilyDenied},
		{"a family that no id of it can have", nil, "add_task", `{"worker":"w","task_id":"LoadUsers_1","family":"ExtractUsers"}`, identity.RPCAmbiguous},
		{"no family, for one's own task", func(s *scheduler) { s.families["ExtractUsers_1"] = "ExtractUsers" }, "add_task", `{"worker":"w","task_id":"ExtractUsers_1","family":"","status":"RUNNING"}`, ""},
		{"no family, for somebody else's task", func(s *scheduler) { s.families["LoadUsers_1"] = "LoadUsers" }, "add_task", `{"worker":"w","task_id":"LoadUsers_1","family":"","status":"RUNNING"}`, identity.TaskFamilyDenied},
		{"no family, for a task that nobody knows", nil, "add_task", `{"worker":"w","task_id":"ExtractUsers_1","family":""}`, identity.TaskUnknown},
		{"a task that is only known as a dependency yet", func(s *scheduler) { s.families["ExtractUsers_1"] = "" }, "add_task", `{"worker":"w","task_id":"ExtractUsers_1","family":"ExtractUsers"}`, ""},
		{"a message about a task that nobody knows", nil, "set_task_status_message", `{"task_id":"ExtractUsers_1"}`, identity.TaskUnknown},
		{"a message about no task at all", nil, "set_task_status_message", `{}`, identity.TaskUnknown},
		{"a scheduler that cannot be asked", func(s *scheduler) { s.away = true }, "set_task_status_message", `{"task_id":"ExtractUsers_1"}`, identity.StoreUnavailable},
		{"the work of others", nil, "get_work", `{"worker":"w","assistant":true}`, identity.TaskFamilyDenied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newTasksStage(t, nil)
			if tt.before != nil {
				tt.before(s.up)
			}
			reason, body, ev := s.call(t, tt.method, tt.args, bearer("runner")...)
			if reason != string(tt.want) {
				t.Errorf("reason %q, want %q: %s", reason, tt.want, body)
			}
			if tt.want.Indeterminate() != (ev.Status == http.StatusServiceUnavailable) {
				t.Errorf("status %d for %s", ev.Status, tt.want)
			}
			if tt.want != "" && s.up.count() != 0 {
				t.Error("the refused call reached the scheduler")
			}
		})
	}
}

func TestACompanionThatGovernsIsJudgedByTheRegisteredFamilyToo(t *testing.T) {
	t.Parallel()
	for _, percent := range []rollout.Percent{0, 100} {
		s := newTasksStage(t, func(s *tasksStage) { s.Rollout = at(percent) })
		s.up.families["Load_Users_1"] = "Load_Users"
		const args = `{"worker":"w","task_id":"Load_Users_1","family":"Load"}`
		reason, _, ev := s.call(t, "add_task", args, append(pass("operator"), "Crossfade-Token", "runner.token.sig")...)
		if percent == 100 && reason != "task_family_denied" {
			t.Errorf("at 100%%: %q", reason)
		}
		if percent == 0 && (reason != "" || ev.Shadow.Verdict != shadow.WouldBreak || ev.Shadow.Reason != identity.TaskFamilyDenied) {
			t.Errorf("at 0%%: %q, %+v", reason, ev.Shadow)
		}
	}
}

func TestTheSchedulerIsAskedOnceAndOnlyForWhomItMatters(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	s.up.families["ExtractUsers_1"] = "ExtractUsers"
	for range 3 {
		s.call(t, "set_task_status_message", `{"task_id":"ExtractUsers_1"}`, bearer("runner")...)
	}
	for range 3 {
		s.call(t, "set_task_status_message", `{"task_id":"LoadUsers_1"}`, bearer("operator")...)
	}
	for n := range 100 { // whatever family these have, a runner may execute it
		args := fmt.Sprintf(`{"worker":"w","task_id":"ExtractUsers_%d_abc","family":"ExtractUsers"}`, n)
		if reason, _, _ := s.call(t, "add_task", args, bearer("runner")...); reason != "" {
			t.Fatal(reason)
		}
	}
	if s.up.asked != 1 {
		t.Errorf("asked %d times, want once: for the runner's task, which is then known", s.up.asked)
	}
	// Another replica learns of it through the store, and asks nobody.
	_ = s.registry.Close()
	other := newRegistry(t, s.store)
	if family, err := other.Family(t.Context(), "ExtractUsers_1", nil); family != "ExtractUsers" || err != nil {
		t.Errorf("the other replica: %q, %v", family, err)
	}
}

const aTask = `{"response": {"n_pending_tasks": 1, "task_id": "%[1]s_1", "task_family": "%[1]s", "task_module": "m", "task_params": {"day": "2024-05-01"}}}`

func TestWorkThatThePrincipalMayNotExecuteIsNotHandedOut(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	s.up.handsOut(fmt.Sprintf(aTask, "LoadUsers"))
	reason, body, ev := s.call(t, "get_work", `{"worker":"w"}`, bearer("runner")...)
	var reply map[string]struct{ Reason string }
	if err := json.Unmarshal([]byte(body), &reply); err != nil || reply["error"].Reason != "task_family_denied" || len(reply) != 1 {
		t.Errorf("a worker would not stop at %s (%v)", body, err)
	}
	if reason != "task_family_denied" || ev.Status != 200 || ev.Decision.Outcome != gateway.Refused || ev.Call.Family != "LoadUsers" {
		t.Errorf("reason %s, %d, %+v, family %q", reason, ev.Status, ev.Decision, ev.Call.Family)
	}
	if s.registry.Started(t.Context(), "LoadUsers_1") != nil {
		t.Error("work that was not handed out has started")
	}
	resp, body := s.do(t, "POST", "/api/get_work", rpc(`{"worker":"w"}`), append(bearer("runner"), "Content-Type", form, "Crossfade-Abort", "off")...)
	if s.event(); resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "task_family_denied") {
		t.Errorf("with honest codes: %d %s", resp.StatusCode, body)
	}

	s.up.handsOut(fmt.Sprintf(aTask, "ExtractUsers"))
	if reason, body, _ := s.call(t, "get_work", `{"worker":"w"}`, bearer("runner")...); reason != "" || body != fmt.Sprintf(aTask, "ExtractUsers") {
		t.Errorf("work of its own: %q %s", reason, body)
	}
	started := s.registry.Started(t.Context(), "ExtractUsers_1")
	want := &luigi.Started{
		Task: "ExtractUsers_1", Family: "ExtractUsers", Module: "m", Parameters: []luigi.Parameter{{Name: "day"}}, Worker: "w",
		By: luigi.Identity{Principal: "svc-runner", Team: "data-eng", Scheme: "oidc", TraceID: traceID, Configuration: "c0ffee"},
	}
	if started != nil {
		want.At = started.At
	}
	if diff := cmp.Diff(want, started); diff != "" {
		t.Errorf("what has started (-want +got):\n%s", diff)
	}

	s.up.handsOut(`{"response": {"task_family": 7}}`)
	if reason, _, ev := s.call(t, "get_work", `{"worker":"w"}`, bearer("runner")...); reason != "policy_error" || ev.Status != 503 {
		t.Errorf("a reply that nobody can read went to a runner: %q %d", reason, ev.Status)
	}
	if reason, _, _ := s.call(t, "get_work", `{"worker":"o"}`, bearer("operator")...); reason != "" {
		t.Errorf("a reply that nobody can read, for who may do everything: %q", reason)
	}
}

func TestRolesThatOnlyShadowWithholdNothingAndAreAVerdict(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	s.up.handsOut(fmt.Sprintf(aTask, "LoadUsers"))
	reason, body, ev := s.call(t, "get_work", `{"worker":"w"}`, append(pass("runner"), "Crossfade-Token", "runner.token.sig")...)
	if reason != "" || body != fmt.Sprintf(aTask, "LoadUsers") {
		t.Errorf("withheld: %q %s", reason, body)
	}
	if ev.Shadow.Verdict != shadow.WouldBreak || ev.Shadow.Reason != identity.TaskFamilyDenied {
		t.Errorf("verdict %+v, want would_break by the family that the reply names", ev.Shadow)
	}
	s.up.lists["task_list"] = `{"response": {"LoadUsers_1": {"name": "LoadUsers"}}}`
	if _, body, _ := s.call(t, "task_list", `{}`, pass("runner")...); body != s.up.lists["task_list"] {
		t.Errorf("filtered for a password: %s", body)
	}

	counting := newTasksStage(t, func(s *tasksStage) { s.RolesCount = true })
	counting.up.handsOut(fmt.Sprintf(aTask, "LoadUsers"))
	if reason, _, _ := counting.call(t, "get_work", `{"worker":"w"}`, pass("runner")...); reason != "task_family_denied" {
		t.Errorf("where roles count for passwords: %q", reason)
	}
}

func TestListsShowOnlyFamiliesThatThePrincipalSees(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	s.up.lists["task_list"] = `{"response": {"LoadUsers_1": {"name": "LoadUsers"}, "ExtractUsers_1": {"name": "ExtractUsers"}}}`
	if _, body, _ := s.call(t, "task_list", `{}`, bearer("runner")...); body != `{"response": {"ExtractUsers_1": {"name": "ExtractUsers"}}}` {
		t.Errorf("a runner sees %s", body)
	}
	if _, body, _ := s.call(t, "task_list", `{}`, bearer("viewer")...); body != s.up.lists["task_list"] {
		t.Errorf("a viewer sees %s", body)
	}
	s.up.lists["task_list"] = `{"response": ` + strings.Repeat("[", 100)
	if reason, body, ev := s.call(t, "task_list", `{}`, bearer("runner")...); reason != "policy_error" || ev.Status != 503 {
		t.Errorf("a list that nobody can read: %q %d %s", reason, ev.Status, body)
	}
}

func TestAWorkerBelongsToWhoeverSpokeForItFirst(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	if reason, _, _ := s.call(t, "ping", `{"worker":"w"}`, bearer("operator")...); reason != "" {
		t.Fatal(reason)
	}
	reason, _, ev := s.call(t, "ping", `{"worker":"w"}`, bearer("runner")...)
	if reason != "worker_mismatch" || ev.Other != "svc-operator" || ev.Principal.Name != "svc-runner" {
		t.Errorf("reason %q; the event names %q and %q", reason, ev.Principal.Name, ev.Other)
	}
	if reason, _, _ := s.call(t, "ping", `{"worker":"w"}`, bearer("operator")...); reason != "" {
		t.Errorf("its owner is refused: %s", reason)
	}
	// A password is refused for it only where roles count.
	if reason, _, ev := s.call(t, "ping", `{"worker":"w"}`, pass("runner")...); reason != "" || ev.Other != "svc-operator" {
		t.Errorf("by password: %q, other %q", reason, ev.Other)
	} else if signal, _ := ev.Signal(); signal != identity.WorkerMismatch {
		t.Errorf("the signal is %q", signal)
	}
}

func TestReportsOfARunningTaskBelongToTheWorkerThatStartedIt(t *testing.T) {
	t.Parallel()
	var runs []rollout.Run
	s := newTasksStage(t, func(s *tasksStage) {
		s.Rollout = ramp(func(run rollout.Run, _ bool) rollout.Enforcement {
			if run.Team != "" {
				runs = append(runs, run)
			}
			return rollout.Enforcement{Known: true, Enforced: run.ID == "", Percent: 100}
		})
	})
	s.up.handsOut(fmt.Sprintf(aTask, "ExtractUsers"))
	s.call(t, "get_work", `{"worker":"w"}`, pass("runner")...)
	if reason, _, ev := s.call(t, "set_task_status_message", `{"task_id":"ExtractUsers_1"}`, pass("runner")...); reason != "" || ev.Call.Run != "w" {
		t.Errorf("reason %q, run %q: a run that was spared must be spared to its end", reason, ev.Call.Run)
	}
	if last := runs[len(runs)-1]; last.ID != "w" || last.Principal != "svc-runner" {
		t.Errorf("the rollout was asked for %+v", last)
	}
	reason, _, ev := s.call(t, "set_task_status_message", `{"task_id":"ExtractUsers_1"}`, bearer("extractor")...)
	if reason != "worker_mismatch" || ev.Other != "svc-runner" {
		t.Errorf("a message about somebody else's task: %q, other %q", reason, ev.Other)
	}
}

// The worker of these tests is handed a task while its identity is good.
func startedStage(t *testing.T, change func(*tasksStage)) *tasksStage {
	t.Helper()
	s := newTasksStage(t, change)
	s.up.handsOut(fmt.Sprintf(aTask, "ExtractUsers"))
	if reason, body, _ := s.call(t, "get_work", `{"worker":"w"}`, bearer("runner")...); reason != "" {
		t.Fatalf("%s: %s", reason, body)
	}
	return s
}

const aReport = `{"worker":"w","task_id":"ExtractUsers_1","family":"ExtractUsers","status":"DONE","runnable":null,"new_deps":[]}`

func TestTheEndOfATaskIsAcceptedForAWhileAfterItsIdentityLapsed(t *testing.T) {
	t.Parallel()
	s := startedStage(t, nil)
	if reason, _, _ := s.call(t, "ping", `{"worker":"w"}`, late("runner")...); reason != "expired_mid_run" {
		t.Errorf("a run that did not refresh its token is told %q", reason)
	}
	before := s.up.count()
	reason, _, ev := s.call(t, "add_task", aReport, late("runner")...)
	if reason != "" || !ev.Decision.Grace || ev.Principal.Name != "svc-runner" || s.up.count() != before+1 {
		t.Errorf("reason %q, %+v, by %q", reason, ev.Decision, ev.Principal.Name)
	}
	if len(ev.Executions) != 1 || !ev.Executions[0].Grace || ev.Executions[0].Outcome != luigi.Done || ev.Executions[0].At.IsZero() {
		t.Errorf("executions %+v", ev.Executions)
	}
	if reason, _, _ := s.call(t, "add_task", aReport, late("runner")...); reason != "expired_mid_run" {
		t.Errorf("the task has ended, and a second report is told %q", reason)
	}
}

func TestGraceIsForNothingElse(t *testing.T) {
	t.Parallel()
	report := func(change ...string) string { return strings.NewReplacer(change...).Replace(aReport) }
	tests := []struct {
		name    string
		change  func(*tasksStage)
		args    string
		headers []string
		want    string
	}{
		{"another principal's expired token", nil, aReport, late("extractor"), "expired"},
		{"another worker", nil, report(`"w"`, `"other"`), late("runner"), "expired"},
		{"another task", nil, report(`"ExtractUsers_1"`, `"ExtractUsers_2"`), late("runner"), "expired_mid_run"},
		{"a task that is brought, not ended", nil, report(`null,`, `true,`), late("runner"), "expired_mid_run"},
		{"an end with new dependencies", nil, report(`[]`, `["ExtractUsers_9"]`), late("runner"), "expired_mid_run"},
		{"a start", nil, report("DONE", "RUNNING"), late("runner"), "expired_mid_run"},
		{"an end that changes what the task depends on", nil, report(`[]`, `[],"deps":["ExtractUsers_9"]`), late("runner"), "expired_mid_run"},
		{"an end that changes what comes first", nil, report(`[]`, `[],"priority":9`), late("runner"), "expired_mid_run"},
		{"an end that makes the task part of a batch", nil, report(`[]`, `[],"batch_id":"b"`), late("runner"), "expired_mid_run"},
		{"an end with an address", nil, report(`[]`, `[],"tracking_url":"http://evil.example/"`), late("runner"), "expired_mid_run"},
		{"an end with all that a worker sends", nil, report(`[]`, `[],"expl":"null","resources":{},"params":{},"deps":null,"priority":0,"batch_id":null,"tracking_url":null,"batchable":null,"assistant":false,"retry_policy_dict":{},"owners":[],"accepts_messages":false,"param_visibilities":{}`), late("runner"), ""},
		{"grace that is turned off", func(s *tasksStage) { s.Tasks.Grace = 0 }, aReport, late("runner"), "expired_mid_run"},
		{"a token that expired too long ago", func(s *tasksStage) { s.Tasks.Grace = 30 * time.Second }, aReport, late("runner"), "expired_mid_run"},
		{"a token with another fault", func(s *tasksStage) {
			two := identity.Reject("expired, and for another audience", identity.Expired, identity.AudMismatch)
			two.Token, two.Expires = &identity.TokenInfo{Verified: true}, time.Now()
			two.Principal = s.tokens.judgements["runner.token.sig"].Principal
			s.tokens.judgements["runner.expired.sig"] = two
		}, aReport, late("runner"), "expired"},
		{"a signature that does not hold", func(s *tasksStage) {
			s.tokens.judgements["runner.expired.sig"].Token.Verified = false
		}, aReport, late("runner"), "expired"},
		{"a failed task by its own worker", nil, report("DONE", "FAILED"), late("runner"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startedStage(t, tt.change)
			reason, body, ev := s.call(t, "add_task", tt.args, tt.headers...)
			if reason != tt.want || (reason == "") != ev.Decision.Grace {
				t.Errorf("reason %q, want %q, grace %v: %s", reason, tt.want, ev.Decision.Grace, body)
			}
		})
	}
}

func TestARefusedPasswordMayEndWhatItStarted(t *testing.T) {
	t.Parallel()
	percent := rollout.Percent(0)
	s := newTasksStage(t, func(s *tasksStage) {
		s.Rollout = ramp(func(rollout.Run, bool) rollout.Enforcement {
			return rollout.Enforcement{Known: true, Enforced: percent == 100, Percent: percent}
		})
	})
	s.up.handsOut(fmt.Sprintf(aTask, "ExtractUsers"))
	s.call(t, "get_work", `{"worker":"w"}`, pass("runner")...)
	percent = 100
	if reason, _, _ := s.call(t, "ping", `{"worker":"w"}`, pass("runner")...); reason != "legacy_refused" {
		t.Fatalf("reason %q", reason)
	}
	if reason, _, ev := s.call(t, "add_task", aReport, pass("extractor")...); reason != "legacy_refused" {
		t.Errorf("somebody else ended the task: %+v", ev.Decision)
	}
	if reason, _, ev := s.call(t, "add_task", aReport, pass("runner")...); reason != "" || !ev.Decision.Grace {
		t.Errorf("reason %q, %+v", reason, ev.Decision)
	}
}

func TestACompanionThatExpiresInTheMiddleOfARunIsSaidToHaveDoneSo(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	with := func(token string) []string { return append(pass("runner"), "Crossfade-Token", token) }
	if _, _, ev := s.call(t, "ping", `{"worker":"fresh"}`, with("runner.expired.sig")...); ev.Shadow.Reason != identity.Expired {
		t.Errorf("a run that never had a good token: %+v", ev.Shadow)
	}
	if _, _, ev := s.call(t, "ping", `{"worker":"w"}`, with("runner.token.sig")...); ev.Shadow.Verdict != shadow.MatchAllow {
		t.Fatalf("%+v", ev.Shadow)
	}
	if _, _, ev := s.call(t, "ping", `{"worker":"w"}`, with("runner.expired.sig")...); ev.Shadow.Verdict != shadow.WouldBreak || ev.Shadow.Reason != identity.ExpiredMidRun {
		t.Errorf("a run that began with a good token: %+v", ev.Shadow)
	}
}

// Every execution in the recordings, by the worker's own words, is told once.
func TestEveryRecordedExecutionIsToldOnce(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, name := range workers() {
		exchanges, err := captures.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		up := newStandIn(t)
		g := newStage(up.URL)
		g.Classifier = gateway.Classifier{Profile: gateway.ProfileLuigi}
		for user, password := range map[string]string{"svc-billing": "billing-pass", "svc-a": "legacy-pass-a", "svc-b": "legacy-pass-b"} {
			g.keys[password] = verified(identity.Principal{Name: user, Team: "billing", Mapped: true})
		}
		g.Tasks = gateway.Tasks{
			Registry:   newRegistry(t, luigitest.NewMemory(nil)),
			Parameters: func(name string) bool { return name == "day" },
		}
		g.startPlain(t)
		for _, e := range exchanges {
			up.reply = replay(t, e)
			for range 2 { // replies get lost, and workers repeat themselves
				if got := up.ask(t, g.server.Listener.Addr().String(), recorded(e)); got.Status != e.Status {
					t.Fatalf("exchange %d: %d %s", e.Seq, got.Status, got.Body)
				}
				for _, x := range g.event().Executions {
					fmt.Fprintf(&b, "%s %d %s %s by %s", name, e.Seq, x.Outcome, x.Task, x.By.Principal)
					for _, p := range x.Parameters {
						fmt.Fprintf(&b, " %s", p.Name)
						if p.Value != nil {
							fmt.Fprintf(&b, "=%s", *p.Value)
						}
					}
					if len(x.Batch) > 0 {
						fmt.Fprintf(&b, " of %s", strings.Join(x.Batch, " "))
					}
					if x.At.IsZero() {
						b.WriteString(" without a start")
					}
					b.WriteString("\n")
				}
			}
		}
	}
	golden(t, "executions.golden", b.String())
}

func TestAnEndWhoseStartNobodySawIsToldAllTheSame(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	_, _, ev := s.call(t, "add_task", aReport, bearer("runner")...)
	if len(ev.Executions) != 1 || !ev.Executions[0].At.IsZero() || ev.Executions[0].By.Principal != "svc-runner" {
		t.Errorf("executions %+v", ev.Executions)
	}
	if _, _, ev := s.call(t, "add_task", aReport, bearer("runner")...); len(ev.Executions) != 0 {
		t.Errorf("told again: %+v", ev.Executions)
	}
	if _, _, ev := s.call(t, "add_task", strings.ReplaceAll(aReport, `null,`, `false,`), bearer("operator")...); len(ev.Executions) != 0 {
		t.Errorf("a task that was found complete was not executed: %+v", ev.Executions)
	}
}

func TestATaskThatTheSchedulerHandsToAnotherWorkerWasAbandoned(t *testing.T) {
	t.Parallel()
	s := startedStage(t, nil)
	_, _, ev := s.call(t, "get_work", `{"worker":"w2"}`, bearer("runner")...)
	if len(ev.Executions) != 1 || ev.Executions[0].Outcome != luigi.Abandoned || ev.Executions[0].Worker != "w" {
		t.Errorf("executions %+v", ev.Executions)
	}
	if _, _, ev := s.call(t, "get_work", `{"worker":"w2"}`, bearer("runner")...); len(ev.Executions) != 0 {
		t.Errorf("a reply that was delivered again started something: %+v", ev.Executions)
	}
}

func TestGzippedWorkIsReadAndHandedOnAsItCame(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	s.up.reply = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(zipped(t, fmt.Sprintf(aTask, "LoadUsers")))
	}
	headers := append(bearer("operator"), "Content-Type", form, "Accept-Encoding", "gzip")
	resp, body := s.do(t, "POST", "/api/get_work", rpc(`{"worker":"o"}`), headers...)
	if s.event(); resp.Header.Get("Content-Encoding") != "gzip" || body != string(zipped(t, fmt.Sprintf(aTask, "LoadUsers"))) {
		t.Errorf("%v %q", resp.Header, body)
	}
	if s.registry.Started(t.Context(), "LoadUsers_1") == nil {
		t.Error("nobody noticed the start")
	}
	if reason, _, _ := s.call(t, "get_work", `{"worker":"w"}`, append(bearer("runner"), "Accept-Encoding", "gzip")...); reason != "task_family_denied" {
		t.Errorf("reason %q", reason)
	}
}

func TestInModeObserveNothingIsWithheldAndEverythingIsLearned(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, func(s *tasksStage) { s.Mode, s.RolesCount = gateway.Observe, true })
	s.up.handsOut(fmt.Sprintf(aTask, "LoadUsers"))
	s.up.away = true
	for _, headers := range [][]string{pass("runner"), bearer("runner"), {"Authorization", "Bearer nonsense"}, nil} {
		if reason, body, _ := s.call(t, "get_work", `{"worker":"w"}`, headers...); reason != "" || body != fmt.Sprintf(aTask, "LoadUsers") {
			t.Errorf("%v: %q %s", headers, reason, body)
		}
		for _, method := range everyMethod() {
			if reason, body, _ := s.call(t, method, fmt.Sprintf(everyArgument, "Gone_1", "Gone", "w"), headers...); reason != "" {
				t.Errorf("%s %v: %q %s", method, headers, reason, body)
			}
		}
	}
}

func zipped(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The scheduler does to every task of a batch what is done to the task that
// combines them, and lets every task say that it combines any batch.
func TestATaskBecomesPartOfABatchOfItsOwnFamilyOnly(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	const batch = `{"response": {"task_id": null, "task_family": "%[1]s", "task_params": {}, "batch_id": "batch-of-%[1]s", "batch_task_ids": ["%[1]s_1", "%[1]s_2"]}}`
	hand := func(family, role string) {
		s.up.handsOut(fmt.Sprintf(batch, family))
		if reason, _, _ := s.call(t, "get_work", fmt.Sprintf(`{"worker":"worker of %s"}`, role), bearer(role)...); reason != "" {
			t.Fatalf("%s is not handed out: %s", family, reason)
		}
	}
	hand("LoadUsers", "operator")
	hand("ExtractUsers", "runner")
	for _, tt := range []struct {
		name, batch, more string
		want              identity.Reason
	}{
		{"somebody else's, by a task that starts", "batch-of-LoadUsers", `"status":"RUNNING"`, identity.TaskFamilyDenied},
		{"somebody else's, by a task that ends", "batch-of-LoadUsers", `"status":"DONE","runnable":null`, identity.TaskFamilyDenied},
		{"somebody else's, by a task that waits", "batch-of-LoadUsers", `"status":"PENDING"`, identity.TaskFamilyDenied},
		{"one that nobody knows", "batch-of-Nobody", `"status":"RUNNING"`, identity.TaskUnknown},
		{"one's own", "batch-of-ExtractUsers", `"status":"RUNNING"`, ""},
	} {
		args := fmt.Sprintf(`{"worker":"worker of runner","task_id":"ExtractUsers_1_2","family":"ExtractUsers","batch_id":%q,%s}`, tt.batch, tt.more)
		if reason, _, _ := s.call(t, "add_task", args, bearer("runner")...); reason != string(tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, reason, tt.want)
		}
	}
	// The worker may have the next connection to another replica.
	if family := newRegistry(t, s.store).BatchFamily(t.Context(), "batch-of-ExtractUsers"); family != "ExtractUsers" {
		t.Errorf("another replica takes the batch for one of %q", family)
	}
}

// Pages of the scheduler's history and its metrics tell of tasks of every family,
// and are not filtered.
func TestPagesAboutTasksAreForWhoSeesEveryFamily(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	for path, want := range map[string]identity.Reason{
		"/":                                    "",
		"/favicon.ico":                         "",
		"/static/visualiser/index.html":        "",
		"/metrics":                             identity.TaskFamilyDenied,
		"/tasklist":                            identity.TaskFamilyDenied,
		"/tasklist/LoadUsers":                  identity.TaskFamilyDenied,
		"/history":                             identity.TaskFamilyDenied,
		"/history/by_name/ExtractUsers":        identity.TaskFamilyDenied,
		"/history/by_params/LoadUsers?data={}": identity.TaskFamilyDenied,
		"/static/../metrics":                   identity.TaskFamilyDenied,
		"/static/%2e%2e/metrics":               identity.TaskFamilyDenied,
		"/anything":                            identity.TaskFamilyDenied,
	} {
		for role, want := range map[string]identity.Reason{"runner": want, "viewer": ""} {
			resp, _ := s.do(t, "GET", path, "", bearer(role)...)
			if s.event(); resp.Header.Get("Crossfade-Reason") != string(want) {
				t.Errorf("%s by %s: %q, want %q", path, role, resp.Header.Get("Crossfade-Reason"), want)
			}
		}
	}
}

// Whoever is refused has not used the name, and must not keep its owner from it.
func TestWhoIsRefusedTakesNoWorkersName(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	for _, role := range []string{"viewer", "nobody"} {
		if reason, _, _ := s.call(t, "ping", `{"worker":"w"}`, bearer(role)...); reason != "action_denied" && reason != "role_missing" {
			t.Fatalf("%s: %q", role, reason)
		}
	}
	if reason, _, _ := s.call(t, "ping", `{"worker":"w"}`, bearer("runner")...); reason != "" {
		t.Errorf("the worker's own principal is refused: %s", reason)
	}
	reason, _, ev := s.call(t, "ping", `{"worker":"w"}`, bearer("viewer")...)
	if reason != "action_denied" || ev.Other != "svc-runner" {
		t.Errorf("a refused one that speaks for another's worker: %q, other %q", reason, ev.Other)
	}
}

// The scheduler takes a task and a worker without a name for any other, and a
// worker takes such a task for none.
func TestNothingIsDoneWithoutANameByWhichItCanBeJudged(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	for _, tt := range []struct{ method, args string }{
		{"add_task", `{"worker":"w","task_id":"","family":"ExtractUsers"}`},
		{"add_task", `{"worker":"w","task_id":null,"family":"ExtractUsers"}`},
		{"add_task", `{"worker":"w","family":"ExtractUsers"}`},
		{"add_task", `{"worker":"","task_id":"ExtractUsers_1","family":"ExtractUsers"}`},
		{"get_work", `{"worker":""}`},
		{"ping", `{"worker":""}`},
	} {
		if reason, _, _ := s.call(t, tt.method, tt.args, bearer("operator")...); reason != "rpc_ambiguous" {
			t.Errorf("%s %s: %q", tt.method, tt.args, reason)
		}
	}
}

// What a call may bring to the scheduler can be read in what the scheduler makes
// of it: else nobody would notice that the task was handed out.
func TestWhatACallCanBringIsReadInReplies(t *testing.T) {
	t.Parallel()
	deepest := strings.Repeat("[", 63) + strings.Repeat("]", 63)
	s := newTasksStage(t, nil)
	if reason, _, _ := s.call(t, "add_task", `{"worker":"o","task_id":"ExtractUsers_1","family":"ExtractUsers","module":"\ud800","params":{"x":`+deepest+`}}`, bearer("operator")...); reason != "" {
		t.Fatal(reason)
	}
	s.up.handsOut(`{"response": {"task_id": "ExtractUsers_1", "task_family": "ExtractUsers", "task_module": "\ud800", "task_params": {"x": ` + deepest + `}}}`)
	if reason, _, _ := s.call(t, "get_work", `{"worker":"o"}`, bearer("operator")...); reason != "" || s.registry.Started(t.Context(), "ExtractUsers_1") == nil {
		t.Errorf("%q: nobody noticed the start", reason)
	}
	s.up.lists["task_list"] = `{"response": {"ExtractUsers_1": {"name": "ExtractUsers", "params": {"x": ` + deepest + `}}}}`
	if reason, body, _ := s.call(t, "task_list", `{}`, bearer("runner")...); reason != "" || body != s.up.lists["task_list"] {
		t.Errorf("a task keeps the list from everybody: %q %s", reason, body)
	}
}

// What a replica remembers of an execution may be over: another one has seen its
// end, and the next start.
func TestAnotherReplicaHasSeenTheEnd(t *testing.T) {
	t.Parallel()
	s := startedStage(t, nil)
	other := newRegistry(t, s.store)
	other.End(t.Context(), "ExtractUsers_1", "w", luigi.Done, &luigi.Started{})
	if reason, _, _ := s.call(t, "add_task", aReport, late("runner")...); reason != "expired_mid_run" {
		t.Errorf("the task is not running any more, and its end is accepted: %q", reason)
	}
}

func TestATaskThatGoesOnAtAnotherReplicaIsItsNewWorkers(t *testing.T) {
	t.Parallel()
	s := startedStage(t, nil)
	other := newRegistry(t, s.store)
	other.End(t.Context(), "ExtractUsers_1", "w", luigi.Yielded, &luigi.Started{})
	other.Start(t.Context(), luigi.Started{Task: "ExtractUsers_1", Family: "ExtractUsers", Worker: "o", By: luigi.Identity{Principal: "svc-operator"}})
	if reason, _, ev := s.call(t, "set_task_status_message", `{"task_id":"ExtractUsers_1"}`, bearer("operator")...); reason != "" || ev.Call.Run != "o" {
		t.Errorf("the worker that runs the task is refused: %q, other %q, run %q", reason, ev.Other, ev.Call.Run)
	}
	if reason, _, ev := s.call(t, "set_task_status_message", `{"task_id":"ExtractUsers_1"}`, bearer("runner")...); reason != "worker_mismatch" || ev.Other != "svc-operator" {
		t.Errorf("the worker that ran it is not: %q, other %q", reason, ev.Other)
	}
}

// In mode observe anybody can say anything; what was believed then counts after
// the switch.
func TestNobodyIsBelievedOnAFamilyWhoWouldBeRefused(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, func(s *tasksStage) { s.Mode = gateway.Observe })
	for _, headers := range [][]string{nil, {"Authorization", "Bearer nonsense"}, bearer("nobody")} {
		s.call(t, "add_task", `{"worker":"w","task_id":"Load_Users_1","family":"Load","status":"PENDING","runnable":true}`, headers...)
	}
	if family := s.registry.Known("Load_Users_1"); family != "" {
		t.Errorf("the task is taken for one of %q", family)
	}
	s.call(t, "add_task", `{"worker":"o","task_id":"Load_Users_1","family":"Load_Users","status":"PENDING","runnable":true}`, bearer("operator")...)
	if family := s.registry.Known("Load_Users_1"); family != "Load_Users" {
		t.Errorf("the task is taken for one of %q", family)
	}
}

// A pipeline of thousands of tasks is registered one call after the other, and
// each question would double what it costs.
func TestTheSchedulerIsNotAskedWhereNoAnswerWouldMatter(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	for _, tt := range []struct {
		name, role, args string
		want             int
		reason           string
	}{
		{"every family that the id can have is allowed", "runner", `"task_id":"ExtractUsers_1_2_3_abc","family":"ExtractUsers"`, 0, ""},
		{"a shorter one is not", "extractor", `"task_id":"ExtractUsers_1_2_3_abd","family":"ExtractUsers"`, 1, ""},
		{"a longer one is not", "runner", `"task_id":"Load_Users_1","family":"Load"`, 1, ""},
		{"the call names none", "runner", `"task_id":"ExtractUsers_1_2_3_abe","family":""`, 1, "task_unknown"},
		{"the id is no task's of Luigi", "runner", `"task_id":"ExtractUsers_` + strings.Repeat("_", 300) + `","family":"ExtractUsers"`, 1, ""},
	} {
		before := s.up.asked
		reason, _, _ := s.call(t, "add_task", `{"worker":"worker of `+tt.role+`",`+tt.args+`}`, bearer(tt.role)...)
		if reason != tt.reason || s.up.asked-before != tt.want {
			t.Errorf("%s: asked %d times, want %d; reason %q", tt.name, s.up.asked-before, tt.want, reason)
		}
	}
	// What is known already outweighs the claim.
	s.registry.Learn("ExtractUsers_9", "LoadUsers")
	if reason, _, _ := s.call(t, "add_task", `{"worker":"worker of runner","task_id":"ExtractUsers_9","family":"ExtractUsers"}`, bearer("runner")...); reason != "task_family_denied" {
		t.Errorf("a task that is registered under another family: %q", reason)
	}
}

// A reply that is cut off above a number of the client's own choice tells whether
// a search has found tasks that the client may not see.
func TestASearchDoesNotTellWhetherItFoundHiddenTasks(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	s.up.lists["task_list"] = `{"response": {}}`
	for args, want := range map[string]identity.Reason{
		`{"search":"LoadUsers day=2024","max_shown_tasks":0.5}`:  identity.TaskFamilyDenied,
		`{"search":"LoadUsers day=2024","max_shown_tasks":null}`: "",
		`{"search":"LoadUsers day=2024"}`:                        "",
	} {
		if reason, _, _ := s.call(t, "task_list", args, bearer("runner")...); reason != string(want) {
			t.Errorf("%s: %q, want %q", args, reason, want)
		}
	}
	if reason, _, _ := s.call(t, "task_list", `{"max_shown_tasks":5}`, bearer("viewer")...); reason != "" {
		t.Errorf("for who sees everything: %q", reason)
	}
}

// The pings of a run whose identity has lapsed are refused, and its task must not
// be given up for that while grace lasts.
func TestARunThatIsRefusedForAWhileLives(t *testing.T) {
	t.Parallel()
	heard := func(t *testing.T, change func(*tasksStage), headers []string) bool {
		store := &listening{Store: luigitest.NewMemory(nil)}
		s := startedStage(t, func(s *tasksStage) {
			s.store = store
			if change != nil {
				change(s)
			}
		})
		if reason, _, _ := s.call(t, "ping", `{"worker":"w"}`, headers...); reason == "" {
			t.Fatal("not refused")
		}
		_ = s.registry.Close()
		return store.heard.Load()
	}
	if !heard(t, nil, late("runner")) {
		t.Error("by an expired token: taken for dead")
	}
	if !heard(t, func(s *tasksStage) { s.Rollout = at(100) }, pass("runner")) {
		t.Error("by a password in an enforced run: taken for dead")
	}
	for name, headers := range map[string][]string{
		"another principal's":   late("extractor"),
		"another's password":    pass("extractor"),
		"a token that is wrong": {"Authorization", "Bearer nonsense"},
	} {
		if heard(t, func(s *tasksStage) { s.Rollout = at(100) }, headers) {
			t.Errorf("%s keeps the task", name)
		}
	}
	if heard(t, func(s *tasksStage) { s.Tasks.Grace = 30 * time.Second }, late("runner")) {
		t.Error("a token that expired too long ago keeps the task")
	}
}

// listening is a store that notes whether a worker was heard of.
type listening struct {
	luigi.Store
	heard atomic.Bool
}

func (l *listening) Alive(ctx context.Context, signs []luigi.Alive) error {
	for _, s := range signs {
		if !s.Heard.IsZero() {
			l.heard.Store(true)
		}
	}
	return l.Store.Alive(ctx, signs)
}

// The scheduler raises the priority of what a task depends on, makes up what is
// missing, and keeps it for as long as the worker lives.
func TestATaskDependsOnNothingThatThePrincipalMayNotExecute(t *testing.T) {
	t.Parallel()
	s := newTasksStage(t, nil)
	s.registry.Learn("Load_Users_1", "Load_Users")
	for deps, want := range map[string]identity.Reason{
		`"deps":["LoadUsers_1_2_3_abc"]`:                      identity.TaskFamilyDenied,
		`"deps":["ExtractUsers_1","LoadUsers_1_2_3_abc"]`:     identity.TaskFamilyDenied,
		`"new_deps":["LoadUsers_1_2_3_abc"]`:                  identity.TaskFamilyDenied,
		`"deps":["Load_Users_1"]`:                             identity.TaskFamilyDenied, // known to be another family than Load
		`"deps":["Load_1_2_3_abc","ExtractOrders_1_2_3_abc"]`: "",
		`"deps":["Load_Users_2"],"new_deps":[]`:               "", // may be one of Load
		`"deps":null,"new_deps":null`:                         "",
		`"deps":"LoadUsers_1"`:                                identity.RPCAmbiguous,
		`"deps":{"LoadUsers_1":1}`:                            identity.RPCAmbiguous, // Python takes its keys
		`"deps":[1]`:                                          identity.RPCAmbiguous,
	} {
		args := `{"worker":"w","task_id":"ExtractUsers_9","family":"ExtractUsers","priority":9,` + deps + `}`
		if reason, _, _ := s.call(t, "add_task", args, bearer("runner")...); reason != string(want) {
			t.Errorf("%s: %q, want %q", deps, reason, want)
		}
	}
	if reason, _, _ := s.call(t, "add_task", `{"worker":"o","task_id":"ExtractUsers_9","family":"ExtractUsers","deps":["LoadUsers_1"]}`, bearer("operator")...); reason != "" {
		t.Errorf("for who may execute everything: %q", reason)
	}
	// Rights are each credential's own.
	if reason, _, ev := s.call(t, "add_task", `{"worker":"p","task_id":"ExtractUsers_9","family":"ExtractUsers","deps":["LoadUsers_1"]}`,
		append(pass("operator"), "Crossfade-Token", "runner.token.sig")...); reason != "" || ev.Shadow.Reason != identity.TaskFamilyDenied {
		t.Errorf("a companion that may do less: %q, %+v", reason, ev.Shadow)
	}
}

func TestOnlySoManyListsAreReadAtATime(t *testing.T) {
	t.Parallel()
	const all, places = 5, 4
	half := strings.Repeat(" ", 12<<20) // more than the sockets in between hold
	var read atomic.Int64
	release := make(chan struct{})
	s := newTasksStage(t, nil)
	s.up.reply = func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"response": {`)
		if r.Header.Get("X-Forwarded-User") == "svc-runner" {
			_, _ = io.WriteString(w, half)
			read.Add(1)
			<-release
		}
		_, _ = io.WriteString(w, `}}`)
	}
	var wg sync.WaitGroup
	for range all {
		wg.Go(func() {
			_, body := s.do(t, "POST", "/api/task_list", rpc("{}"), append(bearer("runner"), "Content-Type", form)...)
			if body != `{"response": {}}` {
				t.Errorf("a list of %d bytes", len(body))
			}
		})
	}
	for s.up.count() < all || read.Load() < places {
		runtime.Gosched()
	}
	for range 20 { // who sees everything does not wait for those who do not
		if _, body := s.do(t, "POST", "/api/task_list", rpc("{}"), append(bearer("viewer"), "Content-Type", form)...); body != `{"response": {}}` {
			t.Errorf("a viewer got %q", body)
		}
	}
	if n := read.Load(); n > places {
		t.Errorf("%d lists are read at once", n)
	}
	close(release)
	wg.Wait()
}
