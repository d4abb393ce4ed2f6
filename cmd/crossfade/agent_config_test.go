package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"crossfade/gateway/agent"
	agenttoken "crossfade/gateway/agent/token"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/gateway/policy"
)

// plugin is a program that prints tokens: each says for whom it is and for which
// run, and no two are the same.
const plugin = `#!/bin/sh
if test "$CROSSFADE_AUDIENCE" = nobody; then
  echo "nobody is known" >&2
  exit 1
fi
printf '{"token": "%s.%s.%s", "expires_in": 300}' "$CROSSFADE_AUDIENCE" "$CROSSFADE_RUN" $$
`

// runTask does what an unmodified worker does with a task, and what its code does.
func runTask() int {
	api := os.Getenv("CROSSFADE_SCHEDULER_URL") + "api/"
	call := func(method string, args map[string]any) (map[string]any, bool) {
		text, _ := json.Marshal(args)
		resp, err := http.PostForm(api+method, url.Values{"data": {string(text)}})
		if err != nil {
			return nil, false
		}
		defer func() { _ = resp.Body.Close() }()
		var body map[string]any
		_ = json.NewDecoder(resp.Body).Decode(&body)
		reply, ok := body["response"]
		object, _ := reply.(map[string]any)
		return object, ok
	}
	got, ok := call("get_work", map[string]any{"worker": "w", "current_tasks": []string{}})
	if !ok {
		return 4
	}
	family, _ := got["task_family"].(string)
	dir := os.Getenv("CROSSFADE_TOKEN_DIR")
	text, err := os.ReadFile(filepath.Join(dir, family))
	if err != nil {
		return 97
	}
	info, _ := os.Stat(dir)
	fmt.Printf("%s %s has %s\n", info.Mode(), family, text)
	call("set_task_status_message", map[string]any{"task_id": got["task_id"], "status_message": "half of it"})
	call("add_task", map[string]any{"worker": "w", "task_id": got["task_id"], "family": family, "status": "DONE", "runnable": nil})
	left, _ := os.ReadDir(dir)
	fmt.Printf("left %d\n", len(left))
	call("ping", map[string]any{"worker": "w"})
	return 0
}

// playScheduler is a scheduler with one task, which it hands out again and again,
// or a gateway that lets everybody pass to one. It tells what came.
func playScheduler(t *testing.T) (server *httptest.Server, came func() []string) {
	t.Helper()
	var mu sync.Mutex
	var all []string
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		all = append(all, strings.TrimPrefix(r.URL.Path, "/api/")+" "+r.Header.Get("Authorization")+" "+r.Header.Get("Crossfade-Run"))
		mu.Unlock()
		if r.URL.Path == "/api/get_work" {
			_, _ = io.WriteString(w, `{"response": {"task_id": "LoadUsers_1", "task_family": "LoadUsers", "task_params": {}}}`)
			return
		}
		_, _ = io.WriteString(w, `{"response": null}`)
	}))
	t.Cleanup(server.Close)
	return server, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// agentFiles are a configuration with a plug-in beside it.
func agentFiles(t *testing.T, gateway, more string) (dir string) {
	t.Helper()
	return files(t, map[string]string{
		"plugin":     plugin,
		"agent.yaml": "gateway: " + gateway + "\nmode: token\ntoken: { source: exec, command: [/bin/sh, ./plugin], audience: luigi }\n" + more,
	})
}

func TestATasksCallsAndItsCodeHaveTheTokenOfItsFamily(t *testing.T) {
	t.Parallel()
	gateway, came := playScheduler(t)
	dir := agentFiles(t, gateway.URL, "families: { Load*: luigi-load, Extract: luigi-extract }\nrun_id: nightly-1\n")
	tmp := t.TempDir()
	got := asProcess(t, dir, []string{"TMPDIR=" + tmp}, wrapped(t, []string{"--config", "agent.yaml"}, "run", "task")...).want(t, exitOK,
		"run nightly-1\n", "drwx------ LoadUsers has luigi-load.nightly-1.", "left 0")
	all := came()
	if len(all) != 4 {
		t.Fatalf("to the gateway came %q", all)
	}
	for i, begin := range []string{
		"get_work Bearer luigi.nightly-1.", "set_task_status_message Bearer luigi-load.nightly-1.", "add_task Bearer luigi-load.nightly-1.", "ping Bearer luigi.nightly-1.",
	} {
		if !strings.HasPrefix(all[i], begin) || !strings.HasSuffix(all[i], " nightly-1") {
			t.Errorf("came %q, want %s", all[i], begin)
		}
	}
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if strings.Contains(got.stderr, "luigi-load") {
		t.Errorf("said %s", got.stderr)
	}

	dir = agentFiles(t, gateway.URL, "families: { Load*: nobody }\n")
	got = asProcess(t, dir, nil, wrapped(t, []string{"--config", "agent.yaml"}, "task")...).want(t, exitNotPermitted,
		"REFUSED agent_no_family_token: LoadUsers_1 was handed out", "no token for LoadUsers", "nobody is known")
	if strings.Contains(got.stdout, "has") {
		t.Errorf("the task began: %v", got)
	}
}

func TestEachRunObtainsATokenOfItsOwn(t *testing.T) {
	t.Parallel()
	gateway, _ := friendly(t)
	dir := agentFiles(t, gateway.URL, "")
	seen := map[string]bool{}
	for _, flags := range [][]string{nil, nil, {"--run-id", "again"}, {"--run-id", "again"}} {
		got := asProcess(t, dir, nil, wrapped(t, append([]string{"--config", "agent.yaml"}, flags...), "run", "token")...).want(t, exitOK)
		_, token, _ := strings.Cut(got.stdout, "\nluigi.")
		run, _, _ := strings.Cut(strings.TrimPrefix(got.stdout, "run "), "\n")
		if token == "" || seen[token] || !strings.HasPrefix(token, run+".") {
			t.Errorf("the run %q has the token %q", run, token)
		}
		seen[token] = true
	}
	github := []string{"GITHUB_RUN_ID=4711", "GITHUB_RUN_ATTEMPT=2"}
	asProcess(t, dir, github, wrapped(t, []string{"--config", "agent.yaml"}, "run")...).want(t, exitOK, "run github-4711-2\n")
}

func TestTokensForOtherServicesAreThereBeforeTheCommandStartsAndGoneAtItsEnd(t *testing.T) {
	t.Parallel()
	gateway, _ := friendly(t)
	dir := agentFiles(t, gateway.URL, "write:\n- { audience: aws, file: aws-token }\n- { audience: api, file: api.json, format: json }\n")
	other := filepath.Join(t.TempDir(), "flagged")
	written := func(names ...string) []string { return []string{"WRITTEN=" + strings.Join(names, " ")} }
	aws, api := filepath.Join(dir, "aws-token"), filepath.Join(dir, "api.json")
	config := []string{"--config", "agent.yaml", "--run-id", "r"}
	asProcess(t, dir, written(aws, api), wrapped(t, config, "written", "fail")...).want(t, 3,
		"aws-token -rw------- aws.r.", `api.json -rw------- {"access_token":"api.r.`)
	asProcess(t, dir, written(other), wrapped(t, append(config, "--write", "mine="+other), "written")...).want(t, exitOK, "flagged -rw------- mine.r.")
	for _, name := range []string{aws, api, other} {
		if _, err := os.Stat(name); !os.IsNotExist(err) {
			t.Errorf("%s is left behind: %v", name, err)
		}
	}
	mine := files(t, map[string]string{"notes": "my notes", "secret": "s3cret"})
	notes, secret := filepath.Join(mine, "notes"), filepath.Join(mine, "secret")
	for name, tc := range map[string]struct {
		flags []string
		code  int
		said  string
	}{
		"one that cannot be had":     {append(config, "--write", "nobody="+other), exitNotPermitted, "the command is not started: there is no token for nobody"},
		"no file":                    {append(config, "--write", "aws"), exitUsage, "--write aws: write AUDIENCE=FILE"},
		"a file of two":              {append(config, "--write", "a="+other, "--write", "b="+other), exitUsage, "the token for b cannot be written"},
		"a file with something else": {append(config, "--write", "a="+notes), exitUsage, "something else than a token"},
		"a directory":                {append(config, "--write", "a="+dir), exitUsage, "is a directory"},
		"the agent's own secret": {
			append(config, "--client-id", "c", "--issuer", "http://127.0.0.1:1", "--client-secret-file", secret, "--write", "a="+secret),
			exitUsage, "a file that the agent has for something else",
		},
		"a source with one token": {append(config, "--token-file", tokenFile(t), "--write", "aws="+other), exitUsage, "a token for aws: the token source file has one token"},
	} {
		got := asProcess(t, dir, written(other), wrapped(t, tc.flags, "run")...).want(t, tc.code, tc.said)
		if strings.Contains(got.stdout, "run") {
			t.Errorf("%s: the command was started: %v", name, got)
		}
	}
	asProcess(t, agentFiles(t, gateway.URL, "families: { Load*: a }\n"), nil,
		"agent", "--config", "agent.yaml", "--client-id", "c", "--issuer", "http://127.0.0.1:1", "--client-secret-file", secret, "--token-dir", mine).want(t, exitUsage, "nothing but tokens")
	if read(t, notes) != "my notes" || read(t, secret) != "s3cret" {
		t.Error("what is mine is lost")
	}
}

func TestFlagsWinOverTheAgentsConfigurationAndMistakesHaveTheirLine(t *testing.T) {
	t.Parallel()
	gateway, came := playScheduler(t)
	dir := agentFiles(t, "http://127.0.0.1:1", "")
	flags := []string{"--config", "agent.yaml", "--gateway", gateway.URL, "--token-file", tokenFile(t)}
	asProcess(t, dir, nil, wrapped(t, flags, "call")...).want(t, exitOK)
	asProcess(t, dir, []string{"CROSSFADE_AGENT_GATEWAY=" + gateway.URL, "CROSSFADE_AGENT_CONFIG=agent.yaml"}, wrapped(t, nil, "call")...).want(t, exitOK)
	if all := came(); len(all) != 2 || !strings.Contains(all[0], "Bearer tok-1 ") || !strings.Contains(all[1], "Bearer luigi.") {
		t.Errorf("to the gateway came %q", all)
	}
	bad := files(t, map[string]string{"crossfade-agent.yaml": "gateway: http://x\nmode: tokens\nfamilies: { A: a, A: b }\n"})
	got := asProcess(t, bad, nil, wrapped(t, nil, "call")...).want(t, exitUsage,
		`crossfade-agent.yaml:2: mode: must be auto, companion or token, not "tokens" (did you mean "token"?)`, "crossfade-agent.yaml:3: families.A: stands twice")
	if strings.Contains(got.stderr, "panic") {
		t.Error(got)
	}
	asProcess(t, bad, nil, "agent", "--config", "none.yaml").want(t, exitUsage, "none.yaml: cannot be read")
	asProcess(t, dir, nil, wrapped(t, append(flags, "--run-id", "a b"), "call")...).want(t, exitUsage, "--run-id: the id of the run must be")
	asProcess(t, dir, nil, "agent", "--config", "agent.yaml", "--token-dir", "x").want(t, exitUsage, "--token-dir: no task family")
	asProcess(t, dir, []string{"CROSSFADE_AGENT_FAMILIES=x"}, wrapped(t, flags, "call")...).want(t, exitUsage, "CROSSFADE_AGENT_FAMILIES: unknown variable")
}

func TestTheRunOfAnAgentIsInTheAuditTrailOfTheGateway(t *testing.T) {
	t.Parallel()
	idp := issuer(t, 0)
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	gateway := start(t, "serve", "--config", whole(t, idp.URL(), scheduler(t).URL, map[string]string{"audit": file}))
	flags := append(clientFlags(t, idp), "--gateway", "http://"+gateway.address, "--mode", "token", "--run-id", "nightly-4711")
	asProcess(t, t.TempDir(), nil, wrapped(t, flags, "call")...).want(t, exitOK)
	eventually(t, "the run is in the audit trail", func() bool {
		for line := range strings.Lines(readIfThere(file)) {
			var use audit.Use
			if json.Unmarshal([]byte(line), &use) == nil && use.ClientRun == "nightly-4711" {
				return use.TokenID != "" && use.Principal == "svc-etl" && use.RPC == "add_worker"
			}
		}
		return false
	})
}

func readIfThere(name string) string {
	text, _ := os.ReadFile(name)
	return string(text)
}

// The agent and the gateway's roles must mean the same by a pattern, though neither
// knows the other's code.
func TestPatternsOfFamiliesMeanWhatTheyMeanInRoles(t *testing.T) {
	t.Parallel()
	letters := rapid.StringOfN(rapid.SampledFrom([]rune("AaB*._é")), 0, 5, -1)
	rapid.Check(t, func(t *rapid.T) {
		pattern, family := letters.Draw(t, "pattern"), letters.Filter(func(s string) bool { return s != "" }).Draw(t, "family")
		if rapid.Bool().Draw(t, "of its beginning") {
			runes := []rune(family)
			pattern = string(runes[:rapid.IntRange(0, len(runes)).Draw(t, "letters")]) + "*"
		}
		roles, err := policy.New(map[identity.Role]policy.Grant{"r": {identity.ActionExecute: {pattern}}})
		f := agent.Family{Pattern: pattern, Request: agenttoken.Request{Audience: "a"}}
		if wrong := agent.CheckFamilies([]agent.Family{f}); (wrong == nil) != (err == nil) {
			t.Fatalf("%q: roles say %v, the agent %v", pattern, err, wrong)
		}
		if err != nil {
			return
		}
		denied := roles.Denies([]identity.Role{"r"}, policy.Request{Action: identity.ActionExecute, Family: family})
		if f.Matches(family) != (denied == "") {
			t.Fatalf("%q and %q: roles say %q, the agent %v", pattern, family, denied, f.Matches(family))
		}
	})
}

func TestATaskHasRightsForItsOwnFamilyOnly(t *testing.T) {
	t.Parallel()
	idp := issuer(t, 0)
	dir := files(t, map[string]string{
		"principals.yaml": "svc-etl: { team: data-eng, oidc: { subject: svc-etl } }\n",
		"roles.yaml": "roles: { runner: { execute: ['*'], view: ['*'] }, loader: { execute: [Load*] } }\n" +
			"claims: { aud: { luigi: runner, luigi-load: loader } }\n",
	})
	tasks, _ := playScheduler(t)
	gateway := start(t, "serve", "--config", whole(t, idp.URL(), tasks.URL, map[string]string{
		"oidc":       fmt.Sprintf("{ issuer: %s, audience: [luigi, luigi-load], skew: 0s }", idp.URL()),
		"principals": filepath.Join(dir, "principals.yaml"), "roles": filepath.Join(dir, "roles.yaml"),
	}))
	account := clientOf(t, idp, "svc-etl")
	config := filepath.Join(files(t, map[string]string{"agent.yaml": fmt.Sprintf(`
gateway: http://%s
listen: unix:agent.sock
mode: token
token_dir: tokens
token: { issuer: %q, client_id: svc-etl, client_secret_file: %q, audience: luigi }
families: { Load*: luigi-load }
write: { audience: sts.example, file: sts }
`, gateway.address, account.Issuer, account.SecretFile)}), "agent.yaml")
	beside := filepath.Dir(config)
	c := command(t, "agent", "--config", config)
	var log lockedBuffer
	c.Stderr = &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() { _ = c.Process.Kill() })
	eventually(t, "the agent listens", func() bool { return strings.Contains(log.String(), "crossfade agent listens") })
	if text := readIfThere(filepath.Join(beside, "sts")); text == "" || strings.HasSuffix(text, "\n") {
		t.Errorf("the file of the other service holds %q", text)
	}

	agent, direct := unixClient(t, filepath.Join(beside, "agent.sock")), newClient(t)
	call := func(client *http.Client, base, token, method string, args map[string]any) (response any, ok bool) {
		text, _ := json.Marshal(args)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/api/"+method, strings.NewReader(url.Values{"data": {string(text)}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var body map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		response, ok = body["response"]
		return response, ok
	}
	byAgent := func(method string, args map[string]any) any {
		t.Helper()
		response, ok := call(agent, "http://localhost", "", method, args)
		if !ok {
			t.Fatalf("%s was refused: %s", method, log.String())
		}
		return response
	}
	task := func(id, family, status string, runnable any) map[string]any {
		return map[string]any{"worker": "w", "task_id": id, "family": family, "module": "m", "params": map[string]any{}, "status": status, "runnable": runnable, "deps": nil}
	}
	byAgent("add_worker", map[string]any{"worker": "w", "info": []any{}})
	byAgent("add_task", task("LoadUsers_1", "LoadUsers", "PENDING", true))
	work, _ := byAgent("get_work", map[string]any{"worker": "w", "current_tasks": []any{}}).(map[string]any)
	if work["task_family"] != "LoadUsers" {
		t.Fatalf("handed out %v", work)
	}
	file := filepath.Join(beside, "tokens", "LoadUsers")
	token := strings.TrimSpace(read(t, file))
	byAgent("set_task_status_message", map[string]any{"task_id": work["task_id"], "status_message": "half of it"})

	// What the task's code can do with its token, without the agent.
	own, gatewayURL := map[string]any{"task_id": work["task_id"], "status_message": "more"}, "http://"+gateway.address
	if _, ok := call(direct, gatewayURL, token, "set_task_status_message", own); !ok {
		t.Error("its own task is refused")
	}
	for method, args := range map[string]map[string]any{
		"add_task": task("Extract_1", "Extract", "PENDING", true), "task_list": {"status": "", "upstream_status": ""}, "pause": {},
	} {
		if _, ok := call(direct, gatewayURL, token, method, args); ok {
			t.Errorf("%s is allowed by the token of a family", method)
		}
	}
	byAgent("add_task", task("Extract_1", "Extract", "PENDING", true)) // by the run's
	byAgent("add_task", task("LoadUsers_1", "LoadUsers", "DONE", nil))
	if text := readIfThere(file); text != "" {
		t.Error("the task's token is there behind its end")
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-ended
	if code := c.ProcessState.ExitCode(); code != exitOK {
		t.Errorf("exit code %d: %s", code, log.String())
	}
	if text := readIfThere(filepath.Join(beside, "sts")); text != "" {
		t.Error("the other service's token is left behind")
	}
	if strings.Contains(log.String(), token) {
		t.Error("a token is in the log")
	}
}
