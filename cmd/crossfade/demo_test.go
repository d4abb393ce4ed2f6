package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/rollout"
)

func TestTheDemoEndsByItselfWithOneObject(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	got := run(t, "demo", "--for", "4s", "-o", "json", "--dir", dir, "--listen", "127.0.0.1:0").want(t, exitOK)

	type team struct {
		Percent  *int             `json:"percent"`
		Requests *int64           `json:"requests"`
		Allowed  *int64           `json:"allowed"`
		Refused  *int64           `json:"refused"`
		Verdicts map[string]int64 `json:"verdicts"`
		Reasons  map[string]int64 `json:"reasons"`
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
		if s.Percent == nil || s.Requests == nil || s.Allowed == nil || s.Refused == nil || s.Verdicts == nil || s.Reasons == nil {
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
			"ml-platform": {"match_allow", "no_token"},
		}[name], map[string][]string{
			"billing": {"aud_mismatch"},
			"search":  {"token_absent"},
			// Whoever is selected and sends no token is refused.
			"ml-platform": {"token_absent", "legacy_refused"},
		}[name]
		subset(t, name, s.Verdicts, append(verdicts, "not_evaluated", "indeterminate"))
		subset(t, name, s.Reasons, append(reasons, "shadow_shed", "shadow_timeout"))
		for _, v := range verdicts[:1] {
			if s.Verdicts[v] == 0 {
				t.Errorf("%s: no %s among %v", name, v, s.Verdicts)
			}
		}
		want := map[string]int{"ml-platform": 50}[name]
		if *s.Percent != want {
			t.Errorf("%s is at %d%%", name, *s.Percent)
		}
		if want == 0 && *s.Refused != 0 {
			t.Errorf("%s: %d requests were refused at 0%%", name, *s.Refused)
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
	save("percent: 1000\n")
	eventually(t, "the mistake is named", func() bool { return strings.Contains(stderr.String(), "search.yaml") })
	save("percent: 100\n")
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

func TestTheDemosTrafficGoesThroughAgentsThatFetchTokensAnew(t *testing.T) {
	var mistakes bytes.Buffer
	n := &notice{talk: &mistakes}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s, err := newDemoStage(ctx, t.TempDir(), "127.0.0.1:0", n)
	if err != nil {
		t.Fatal(err)
	}
	started := int64(len(s.agents))
	if started != 4 { // one of data-eng and ml-platform each, two of billing
		t.Errorf("%d agents", started)
	}
	if _, err := s.setPercent(ctx, "billing", 100, "a test"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, context.Background()) }()
	eventually(t, "the agents have fetched new tokens", func() bool { return s.agents.fetched() >= 2*started })
	eventually(t, "the agent of billing says why its worker was refused", func() bool {
		text := n.get(time.Now())
		return strings.HasPrefix(text, "What a worker of billing has on its stderr:\ncrossfade agent: REFUSED aud_mismatch: ") &&
			strings.Contains(text, "\n  The agent sent a token beside")
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if wrong := s.tally.contradictions(); len(wrong) > 0 {
		t.Errorf("what was sent and seen differs: %q", wrong)
	}
	billing := s.tally.summary(func(identity.Team) rollout.Percent { return 100 }).Teams["billing"]
	if billing.Refused == 0 || billing.Allowed == 0 || billing.Reasons[identity.AudMismatch] < billing.Refused {
		t.Errorf("billing: %+v", billing)
	}
	if s.fetched < 2*started || len(s.agents) != 0 || mistakes.Len() > 0 {
		t.Errorf("%d tokens, %d agents left, %q written", s.fetched, len(s.agents), &mistakes)
	}
}

func TestWhatStandsBelowTheTable(t *testing.T) {
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
	n.set(errors.New("percent: 1000"))
	if got := n.get(now); got != "percent: 1000" {
		t.Errorf("a mistake beside words: %q", got)
	}
	if talk.String() != "crossfade demo: percent: 1000\n" {
		t.Errorf("written: %q, and the words are for the screen alone", talk.String())
	}
	n.clear()
	if got := n.get(now); got != "" {
		t.Errorf("after a file was saved: %q", got)
	}
}

func TestADemoThatCannotBeginSaysWhy(t *testing.T) {
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
			tally.starts("w", tc.sends)
			tally.saw(tc.ev)
			tally.sent("billing", tc.reply)
			wrong := strings.Join(tally.contradictions(), "\n")
			if (wrong != "") != (tc.wrong != "") || !strings.Contains(wrong, tc.wrong) {
				t.Errorf("contradictions %q, want %q", wrong, tc.wrong)
			}
			var stdout bytes.Buffer
			p := with{}.program(&stdout, io.Discard)
			summary := tally.summary(func(identity.Team) rollout.Percent { return 0 })
			err := p.concludeDemo(tally, summary, &output{format: "json"})
			if (err != nil) != (tc.wrong != "") || err != nil && exitCode(err) != exitFailure {
				t.Errorf("the demo ends with %v", err)
			}
			if !json.Valid(stdout.Bytes()) {
				t.Errorf("no summary beside the contradiction: %s", &stdout)
			}
		})
	}
}
