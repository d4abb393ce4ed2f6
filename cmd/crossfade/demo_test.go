package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/cmd/crossfade/demo"
	"crossfade/config"
	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/rollout"
	"crossfade/rollout/effect"
	"crossfade/rollout/readiness"
	"crossfade/rollout/reconcile"
)

func TestTheDemoEndsByItselfWithOneObject(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "demo")
	// How much is seen in how long depends on the machine.
	var got ran
	for _, length := range []string{"4s", "15s", "1m"} {
		got = run(t, "demo", "--for", length, "-o", "json", "--dir", dir, "--listen", "127.0.0.1:0")
		enough := strings.Contains(got.stdout, `"aud_mismatch"`) && strings.Contains(got.stdout, `"no_token"`) && strings.Count(got.stdout, `"match_allow"`) >= 3
		if enough || got.code != exitOK && !strings.Contains(got.stderr, "nothing was answered") {
			break
		}
	}
	got.want(t, exitOK)

	type team struct {
		Percent  *int             `json:"percent"`
		Requests *int64           `json:"requests"`
		Allowed  *int64           `json:"allowed"`
		Refused  *int64           `json:"refused"`
		Verdicts map[string]int64 `json:"verdicts"`
		Reasons  map[string]int64 `json:"reasons"`
		Answer   string           `json:"answer"`
		UpTo     *int             `json:"up_to"`
		Why      string           `json:"why"`
	}
	var summary struct {
		Teams map[string]team `json:"teams"`
	}
	d := json.NewDecoder(strings.NewReader(got.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&summary); err != nil {
		t.Fatalf("%v in %v", err, got)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Errorf("more than one object: %v", got)
	}
	if names := slices.Sorted(maps.Keys(summary.Teams)); !slices.Equal(names, []string{"billing", "data-eng", "ml-platform", "search"}) {
		t.Fatalf("teams %v", names)
	}
	for name, s := range summary.Teams {
		if s.Percent == nil || s.Requests == nil || s.Allowed == nil || s.Refused == nil || s.Verdicts == nil || s.Reasons == nil || s.UpTo == nil || s.Answer == "" || s.Why == "" {
			t.Fatalf("%s lacks a key: %v", name, got)
		}
		if *s.Requests == 0 || *s.Requests != *s.Allowed+*s.Refused {
			t.Errorf("%s: %d requests, %d allowed, %d refused", name, *s.Requests, *s.Allowed, *s.Refused)
		}
		// What was sent says what may have been seen; a busy machine may shed.
		verdicts, reasons := map[string][]string{
			"data-eng":    {"match_allow"},
			"billing":     {"match_allow", "would_break"},
			"search":      {"no_token"},
			"ml-platform": {"match_allow"},
		}[name], map[string][]string{
			"billing": {"aud_mismatch"},
			"search":  {"token_absent"},
		}[name]
		subset(t, name, s.Verdicts, append(verdicts, "not_evaluated", "indeterminate"))
		subset(t, name, s.Reasons, append(reasons, "shadow_shed", "shadow_timeout"))
		for _, v := range verdicts[:1] {
			if s.Verdicts[v] == 0 {
				t.Errorf("%s: no %s among %v", name, v, s.Verdicts)
			}
		}
		if *s.Percent != 0 || *s.Refused != 0 {
			t.Errorf("%s is at %d%% and %d requests were refused, before there is evidence for a raise", name, *s.Percent, *s.Refused)
		}
	}
	if s := summary.Teams["billing"]; s.Verdicts["would_break"] == 0 || s.Reasons["aud_mismatch"] == 0 {
		t.Errorf("the wrong audience of billing was not seen: %+v", s)
	}
	for _, name := range []string{"crossfade.yaml", "users.htpasswd", "principals.yaml", "access.jsonl", "rollout.d/search.yaml"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("the demo wrote no %s", name)
		}
	}
	run(t, "check", filepath.Join(dir, "crossfade.yaml")).want(t, exitOK)
}

// subset checks that nothing else was counted.
func subset(t *testing.T, team string, counts map[string]int64, of []string) {
	t.Helper()
	for name := range counts {
		if !slices.Contains(of, name) {
			t.Errorf("%s: %d %s, expected only %v", team, counts[name], name, of)
		}
	}
}

func TestSavingARolloutFileMovesTheTeamOfTheDemo(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "demo")
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	stdout, stderr := &lockedBuffer{}, &lockedBuffer{}
	ended := make(chan int, 1)
	p := with{}.program(stdout, stderr)
	go func() { ended <- p.run(ctx, []string{"demo", "--dir", dir, "--listen", "127.0.0.1:0"}) }()

	address := regexp.MustCompile(`http://127\.0\.0\.1:\d+/metrics`)
	var metrics string
	eventually(t, "the demo says where its metrics are", func() bool {
		metrics = address.FindString(stdout.String())
		return metrics != ""
	})
	client := newClient(t)
	counted := func(series string) func() bool {
		return func() bool {
			resp, err := client.Get(metrics)
			if err != nil {
				return false
			}
			defer func() { _ = resp.Body.Close() }()
			page, err := io.ReadAll(resp.Body)
			return err == nil && regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(series)+` [1-9]`).Match(page)
		}
	}
	const allowed = `crossfade_requests_total{outcome="allowed",reason="",scheme="basic",team="search"}`
	const refused = `crossfade_requests_total{outcome="refused",reason="legacy_refused",scheme="basic",team="search"}`
	eventually(t, "search is let in", counted(allowed))
	if counted(refused)() {
		t.Error("search is refused at 0%")
	}
	file := filepath.Join(dir, "rollout.d", "search.yaml")
	save := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	save("reason: a test\npercent: 1000\n")
	eventually(t, "the mistake is named by file, line and key", func() bool {
		return strings.Contains(stderr.String(), file+":2: percent: ")
	})
	save("percent: 100\noverride: { percent: 100, reason: a test }\n")
	eventually(t, "the team is at 100%", counted(`crossfade_rollout_live_ratio{team="search"}`))
	eventually(t, "new runs of search are refused", counted(refused))

	stop()
	if code := <-ended; code != exitOK {
		t.Errorf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	if text := stdout.String(); !strings.Contains(text, "What the gateway saw is what was sent.") || !regexp.MustCompile(`search +100%`).MatchString(text) {
		t.Errorf("the last table does not show it:\n%s", text)
	}
}

// playing starts the demo's stage with its traffic, and ends it with the test.
func playing(t *testing.T) (s *demoStage, n *notice) {
	t.Helper()
	n = &notice{talk: io.Discard}
	ctx, stop := context.WithCancel(context.Background())
	s, err := newDemoStage(ctx, t.TempDir(), "127.0.0.1:0", n)
	if err != nil {
		stop()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, context.Background()) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if wrong := s.tally.contradictions(); len(wrong) > 0 {
			t.Errorf("what was sent and seen differs: %q", wrong)
		}
		if len(s.agents) != 0 {
			t.Errorf("%d agents are left", len(s.agents))
		}
		s.close()
	})
	return s, n
}

// ask saves a team's file as editors do that replace it.
func (s *demoStage) ask(t *testing.T, team identity.Team, text string) {
	t.Helper()
	file := filepath.Join(s.dir, "rollout.d", string(team)+".yaml")
	if err := os.WriteFile(file+"~", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+"~", file); err != nil {
		t.Fatal(err)
	}
}

func TestTheDemosTrafficGoesThroughAgentsThatFetchTokensAnew(t *testing.T) {
	t.Parallel()
	s, n := playing(t)
	started := int64(len(s.agents))
	if started != 5 { // one of data-eng, two of billing and of ml-platform
		t.Errorf("%d agents", started)
	}
	s.ask(t, "billing", "percent: 100\noverride: { percent: 100, reason: a test }\n")
	eventually(t, "the agents have fetched new tokens", func() bool { return s.agents.fetched() >= 2*started })
	eventually(t, "the agent of billing says why its worker was refused", func() bool {
		text := n.get(time.Now())
		return strings.HasPrefix(text, "What a worker of billing has on its stderr:\ncrossfade agent: REFUSED aud_mismatch: ") &&
			strings.Contains(text, "\n  The agent sent a token beside")
	})
	eventually(t, "the other worker of billing is let in", func() bool {
		billing := s.tally.summary().Teams["billing"]
		return billing.Refused > 0 && billing.Allowed > 0 && billing.Reasons[identity.AudMismatch] >= billing.Refused
	})
}

// long waits for what takes a window of the demo and more. It is bounded by what
// a busy machine may need, not by what the demo promises.
func long(t *testing.T, s *demoStage, what string, holds func(demo.Summary) bool) {
	t.Helper()
	var last demo.Summary
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if last = s.summary(t.Context()); holds(last) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s\n%+v", what, last)
		}
	}
}

func TestTheFourTeamsOfTheDemoAndTheirFiles(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	s, _ := playing(t)
	long(t, s, "data-eng may be raised to 100%", func(all demo.Summary) bool {
		row := all.Teams["data-eng"]
		return row.Answer == string(readiness.Ready) && row.UpTo == 100 && row.Raise.Text == "YES, to 100%"
	})
	long(t, s, "billing is blocked by its wrong audience", func(all demo.Summary) bool {
		row := all.Teams["billing"]
		return row.Raise.Text == "NO" && strings.HasPrefix(row.Why, "aud_mismatch in svc-billing / ") && row.WouldBreakRuns > 0
	})
	long(t, s, "search waits for tokens", func(all demo.Summary) bool {
		row := all.Teams["search"]
		return row.Raise.Text == "WAIT" && row.Why == "0% of runs sent a token, 99% needed" && row.NoTokenRuns > 0
	})
	long(t, s, "ml-platform was raised, has hurt two accounts, and is rolled back and held", func(all demo.Summary) bool {
		row := all.Teams["ml-platform"]
		return row.Raise.Text == "HELD" && row.Percent == 0 && row.RefusedRuns > 1 &&
			row.Why == "rolled back, automatic: 2 known accounts refused: svc-ml, svc-ml-batch"
	})
	if row := s.summary(t.Context()).Teams["data-eng"]; row.Percent != 0 {
		t.Errorf("data-eng is at %d%% and asked for nothing", row.Percent)
	}

	s.ask(t, "data-eng", "percent: 50\n")
	s.ask(t, "billing", "percent: 10\n")
	s.ask(t, "search", "percent: 5 0\n")
	said := func(all demo.Summary, team identity.Team, part string) bool {
		return strings.Contains(strings.Join(all.Teams[team].News, "\n"), part)
	}
	long(t, s, "data-eng is raised by its file", func(all demo.Summary) bool {
		return all.Teams["data-eng"].Percent == 50 && strings.HasPrefix(all.Teams["data-eng"].InEffect, "~")
	})
	long(t, s, "it is said why billing waits", func(all demo.Summary) bool {
		return said(all, "billing", "billing asks for 10%: pending, aud_mismatch in svc-billing / ") && all.Teams["billing"].Percent == 0
	})
	eventually(t, "the mistake of search is known with its file, line and key", func() bool {
		mistakes := s.app.FileMistakes()
		return len(mistakes) == 1 && strings.HasSuffix(mistakes[0].File, "rollout.d/search.yaml") && mistakes[0].Line == 1 && mistakes[0].Key == "percent"
	})

	// What runs into a lowering is let in again.
	s.ask(t, "search", "percent: 100\noverride: { percent: 100, reason: a test }\n")
	long(t, s, "search is refused at 100%, past its checks", func(all demo.Summary) bool {
		return all.Teams["search"].Percent == 100 && all.Teams["search"].Refused > 0
	})
	s.ask(t, "search", "percent: 0\n")
	long(t, s, "search is lowered at once, though nothing allows it a raise", func(all demo.Summary) bool {
		return all.Teams["search"].Percent == 0
	})
	var at demo.TeamSummary
	long(t, s, "nothing of search is refused any more", func(all demo.Summary) bool {
		row := all.Teams["search"]
		if at.Requests == 0 || row.Refused != at.Refused {
			at = row
		}
		return row.Allowed >= at.Allowed+30
	})

	s.ask(t, "ml-platform", "percent: 25\n")
	long(t, s, "ml-platform passes its checks with another percentage, on evidence since it was held", func(all demo.Summary) bool {
		return all.Teams["ml-platform"].Percent == 25 && all.Teams["ml-platform"].Raise.Text != "HELD"
	})
}

func TestWhatStandsBelowTheTable(t *testing.T) {
	t.Parallel()
	var talk bytes.Buffer
	n := &notice{talk: &talk}
	now := time.Now()
	n.say("billing", "crossfade agent: REFUSED\n  Do: this.\n")
	if got, want := n.get(now), "What a worker of billing has on its stderr:\ncrossfade agent: REFUSED\n  Do: this."; got != want {
		t.Errorf("the words of an agent: %q, want %q", got, want)
	}
	if got := n.get(now.Add(time.Minute)); got != "" {
		t.Errorf("old words: %q", got)
	}
	mistakes := config.Errors{{File: "search.yaml", Line: 1, Key: "percent", Message: "is 1000"}}
	const text = "search.yaml:1: percent: is 1000\nThe team stays as it is until its file is right again."
	for range 2 {
		n.mistaken(mistakes)
	}
	if got := n.get(now); got != text {
		t.Errorf("a mistake beside words: %q", got)
	}
	if talk.String() != "crossfade demo: "+text+"\n" {
		t.Errorf("written: %q; a mistake is written once, and the words are for the screen alone", talk.String())
	}
	n.mistaken(nil)
	if got := n.get(now.Add(time.Minute)); got != "" {
		t.Errorf("after the file was repaired: %q", got)
	}
}

func TestWhatTheTableSaysOfAReport(t *testing.T) {
	t.Parallel()
	const rolled = "automatic: 2 known accounts refused: a, b"
	for name, tc := range map[string]struct {
		report   readiness.Report
		state    rollout.State
		raise    demo.Raise
		why, eff string
	}{
		"ready": {
			readiness.Report{Answer: readiness.Ready, UpTo: 64, Why: "24 clean runs", InEffect: effect.Share{Runs: 24}},
			rollout.State{},
			demo.Raise{Text: "YES, to 64%", Mood: demo.Good},
			"24 clean runs", "0 of 24",
		},
		"blocked": {
			readiness.Report{Answer: readiness.Blocked, Why: "aud_mismatch", Percent: 20, InEffect: effect.Share{Runs: 24, Selected: 5, Estimated: true}},
			rollout.State{},
			demo.Raise{Text: "NO", Mood: demo.Bad},
			"aud_mismatch", "~5 of 24",
		},
		"waiting": {
			readiness.Report{Answer: readiness.Waiting, Why: "watched for 3 seconds"},
			rollout.State{},
			demo.Raise{Text: "WAIT", Mood: demo.Patient},
			"watched for 3 seconds", "0 of 0",
		},
		"held after a rollback": {
			readiness.Report{Answer: readiness.Held, Why: rolled},
			rollout.State{Hold: rollout.Hold{Source: "rollback", Reason: rolled}},
			demo.Raise{Text: "HELD", Mood: demo.Bad},
			"rolled back, " + rolled, "0 of 0",
		},
		"held by somebody": {
			readiness.Report{Answer: readiness.Held, Why: "an incident"},
			rollout.State{Hold: rollout.Hold{Source: "api"}},
			demo.Raise{Text: "HELD", Mood: demo.Bad},
			"an incident", "0 of 0",
		},
		"at 100%": {
			readiness.Report{Answer: readiness.Waiting, Why: "a password was used", Percent: 100},
			rollout.State{},
			demo.Raise{Text: "at 100%", Mood: demo.Good},
			"before it is retired: a password was used", "0 of 0",
		},
		"ready to be retired": {
			readiness.Report{Answer: readiness.Ready, Why: "no password", Percent: 100},
			rollout.State{},
			demo.Raise{Text: "YES, retire", Mood: demo.Good},
			"no password", "0 of 0",
		},
		"retired": {
			readiness.Report{Answer: readiness.Done, Why: "ended", Percent: 100},
			rollout.State{},
			demo.Raise{Text: "RETIRED", Mood: demo.Good},
			"ended", "0 of 0",
		},
	} {
		if got := raiseOf(tc.report); got != tc.raise {
			t.Errorf("%s: %+v, want %+v", name, got, tc.raise)
		}
		if got := whyOf(tc.report, tc.state); got != tc.why {
			t.Errorf("%s: why %q, want %q", name, got, tc.why)
		}
		if got := inEffect(tc.report); got != tc.eff {
			t.Errorf("%s: in effect %q, want %q", name, got, tc.eff)
		}
	}
}

func TestTheNewsOfATeam(t *testing.T) {
	t.Parallel()
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	asks := func(percent rollout.Percent) rollout.Request {
		return rollout.Request{Percent: percent, At: ago(time.Minute)}
	}
	pending := reconcile.Status{Step: rollout.Step{Outcome: rollout.Pending, Why: "aud_mismatch", Owner: identity.OwnerTeam}}
	rolledBack := rollout.State{
		Previous: 50, RaisedAt: ago(9 * time.Second), LoweredAt: ago(2 * time.Second), Source: "rollback", Request: asks(50),
		Hold: rollout.Hold{Source: "rollback", Reason: "automatic", Requested: 50, At: ago(2 * time.Second)},
	}
	for name, tc := range map[string]struct {
		state  rollout.State
		status reconcile.Status
		want   []string
	}{
		"nothing was asked for":   {rollout.State{}, reconcile.Status{}, nil},
		"a request that is met":   {rollout.State{Percent: 50, RaisedAt: ago(time.Minute), Request: asks(50)}, reconcile.Status{}, nil},
		"a raise a moment ago":    {rollout.State{Percent: 50, RaisedAt: ago(time.Second), Source: "file", Request: asks(50)}, reconcile.Status{}, []string{"t: 0% -> 50%, as its file asks"}},
		"a lowering by somebody":  {rollout.State{Previous: 50, RaisedAt: ago(time.Minute), LoweredAt: ago(time.Second), Source: "api"}, reconcile.Status{}, []string{"t: 50% -> 0%, by api"}},
		"a request that waits":    {rollout.State{Request: asks(10)}, pending, []string{"t asks for 10%: pending, aud_mismatch (team)"}},
		"a file that is mistaken": {rollout.State{Request: asks(10)}, reconcile.Status{Management: reconcile.Broken, Step: pending.Step}, nil},
		"a step that is under way": {
			rollout.State{Request: asks(10)}, reconcile.Status{Step: rollout.Step{Outcome: rollout.Raise}}, nil,
		},
		"a rollback": {rolledBack, reconcile.Status{Step: rollout.Step{Outcome: rollout.Held, Why: "automatic"}}, []string{
			"t: 50% -> 0%, rolled back, automatic", "t asks for 50%: held; ask for another percentage, and the checks decide",
		}},
		"retirement that waits": {
			rollout.State{Percent: 100, RaisedAt: ago(time.Minute), Request: rollout.Request{Percent: 100, Retire: true, At: now}},
			pending,
			[]string{"t asks to be retired: pending, aud_mismatch (team)"},
		},
	} {
		tc.state.Team = "t"
		if diff := cmp.Diff(tc.want, news(tc.state, tc.status, now)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestOnlyTimesAreScaledAndWhatGoesWithThem(t *testing.T) {
	t.Parallel()
	want, got := config.Default().Readiness, config.Default().Readiness
	scale(&got)
	want.Window, want.RetireAfter, want.LongestCycle = demoWindow, demoWindow, demoWindow/demoDays
	want.CensusDays, want.SoakRuns, want.BrokenADay = 1, 5, demoDays*want.BrokenADay
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
}

func TestADemoThatCannotBeginSaysWhy(t *testing.T) {
	t.Parallel()
	file := filepath.Join(files(t, map[string]string{"taken": ""}), "taken")
	run(t, "demo", "--for", "1s", "--dir", file).want(t, exitFailure, "the demo's files")
}

// event is what the gateway makes of a worker's call.
func event(worker string, set func(*gateway.Event)) *gateway.Event {
	ev := &gateway.Event{
		UserAgent: recordedAgent,
		Call:      gateway.Call{RPC: true, Method: "ping", Run: worker},
		Principal: identity.Principal{Name: "svc-billing", Team: "billing"},
		Decision:  gateway.Decision{Outcome: gateway.Allowed},
		Shadow:    shadow.Result{Verdict: shadow.MatchAllow},
	}
	if set != nil {
		set(ev)
	}
	return ev
}

func TestTheDemoHoldsWhatWasSeenAgainstWhatWasSent(t *testing.T) {
	t.Parallel()
	would := func(ev *gateway.Event) {
		ev.Shadow = shadow.Result{Verdict: shadow.WouldBreak, Reason: identity.AudMismatch}
	}
	for name, tc := range map[string]struct {
		sends tokens
		ev    *gateway.Event
		reply demo.Result
		wrong string // part of what is said; "" if all is well
	}{
		"a right token that matches": {
			rightToken, event("w", nil), demo.Result{Status: 200}, "",
		},
		"a wrong token that would break": {
			wrongToken, event("w", would), demo.Result{Status: 200}, "",
		},
		"a right token that would break": {
			rightToken, event("w", would), demo.Result{Status: 200}, "verdict would_break aud_mismatch, expected match_allow",
		},
		"a wrong token that matches": {
			wrongToken, event("w", nil), demo.Result{Status: 200}, "expected would_break aud_mismatch",
		},
		"no token, and a verdict on one": {
			noTokens, event("w", nil), demo.Result{Status: 200}, "expected no_token",
		},
		"a run at 0% that is refused": {
			rightToken,
			event("w", func(ev *gateway.Event) {
				ev.Decision = gateway.Decision{Outcome: gateway.Refused, Reason: identity.LegacyRefused}
			}),
			demo.Result{Status: 200, Reason: identity.LegacyRefused},
			"forwarded false, expected true",
		},
		"an enforced run without a token that passes": {
			noTokens,
			event("w", func(ev *gateway.Event) {
				ev.Enforcement.Enforced = true
				ev.Shadow = shadow.Result{Verdict: shadow.NoToken, Reason: identity.TokenAbsent}
			}),
			demo.Result{Status: 200},
			"forwarded true, expected false",
		},
		"a verdict that was shed": {
			rightToken,
			event("w", func(ev *gateway.Event) {
				ev.Shadow = shadow.Result{Verdict: shadow.NotEvaluated, Reason: identity.ShadowShed}
			}),
			demo.Result{Status: 200},
			"",
		},
		"a call of someone who tries the curl lines, which does not count": {
			rightToken, event("w", func(ev *gateway.Event) { ev.UserAgent = "curl/8.5.0" }),
			demo.Result{Status: 200},
			"1 requests were answered and 0 cut off, the gateway saw 0",
		},
		"an answer that the gateway did not see": {
			rightToken, event("w", func(ev *gateway.Event) { ev.Principal.Team = "somebody" }),
			demo.Result{Status: 200},
			"1 requests were answered and 0 cut off, the gateway saw 0",
		},
		"a request that is turned away before its password is judged": {
			rightToken,
			event("w", func(ev *gateway.Event) {
				ev.Principal = identity.Principal{}
				ev.Decision = gateway.Decision{Outcome: gateway.Unavailable, Reason: identity.PolicyError}
			}),
			demo.Result{Status: 503, Reason: identity.PolicyError},
			"",
		},
		"a request that got no answer": {
			rightToken, event("w", nil), demo.Result{Status: 0}, "billing: nothing was answered",
		},
		"an agent's word that the gateway does not answer": {
			rightToken, event("w", nil), demo.Result{Status: 502, Reason: "agent_gateway_unreachable"}, "billing: nothing was answered",
		},
		"a refusal that only the client saw": {
			rightToken, event("w", nil), demo.Result{Status: 200, Reason: identity.LegacyRefused}, "1 requests were refused, the gateway says 0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tally := newTally([]scene{{team: "billing"}})
			tally.starts("billing", "w", tc.sends)
			tally.saw(tc.ev)
			tally.sent("billing", tc.reply)
			wrong := strings.Join(tally.contradictions(), "\n")
			if (wrong != "") != (tc.wrong != "") || !strings.Contains(wrong, tc.wrong) {
				t.Errorf("contradictions %q, want %q", wrong, tc.wrong)
			}
			var stdout bytes.Buffer
			p := with{}.program(&stdout, io.Discard)
			err := p.concludeDemo(tally, tally.summary(), &output{format: "json"})
			if (err != nil) != (tc.wrong != "") || err != nil && exitCode(err) != exitFailure {
				t.Errorf("the demo ends with %v", err)
			}
			if !json.Valid(stdout.Bytes()) {
				t.Errorf("no summary beside the contradiction: %s", &stdout)
			}
		})
	}
}
