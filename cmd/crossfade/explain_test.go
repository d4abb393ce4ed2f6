package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
	"crossfade/rollout"
)

// explained is the trace that the tests ask for.
const explained = "4bf92f3577b34da6a3ce929d0e0e4736"

// recordRefusal adds to the trail of a site, whose accounts have entries now, a
// run that was refused, the same with a token for somebody else, and some pings.
func recordRefusal(t *testing.T, s observedSite) {
	t.Helper()
	change(t, filepath.Join(s.dir, "crossfade.yaml"), func(l []string) []string {
		return append(l, "mode: enforce\nprincipals: principals.yaml\nroles: roles.yaml\n")
	})
	for name, text := range map[string]string{
		"principals.yaml": "svc-etl: { team: data-eng, oidc: { subject: 0oa1 }, roles: [runner] }\n",
		"roles.yaml":      "roles: { runner: { execute: [\"Load*\"] } }\n",
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refused := deed{
		account: "svc-etl", credential: "basic:svc-etl", team: "data-eng", rpc: "add_task", action: identity.ActionExecute, family: "LoadUsers",
		host: "10.0.0.1", percent: 100, trace: explained,
		decision: gateway.Decision{Outcome: gateway.Refused, Reason: identity.LegacyRefused, Control: gateway.SideLegacy},
		verdict:  shadow.Result{Verdict: shadow.NoToken, Reason: identity.TokenAbsent},
	}
	other := refused
	other.decision = gateway.Decision{Outcome: gateway.Allowed, Control: gateway.SideLegacy}
	other.trace, other.percent, other.token = "4bf92f35000000000000000000000000", 25, tokenOf("0oa1", identity.AudMismatch)
	other.verdict = shadow.Result{Verdict: shadow.WouldBreak, Reason: identity.AudMismatch}
	ping := refused
	ping.rpc, ping.decision, ping.trace = "ping", gateway.Decision{Outcome: gateway.Allowed, Control: gateway.SideLegacy}, "cccccccc000000000000000000000000"
	record(t, filepath.Join(s.dir, "audit.jsonl"), []deed{refused, other, ping, ping})
	changed(t, s.redis, rollout.Change{Team: "data-eng", Percent: 100})
}

func TestExplainSaysWhyARequestWasDecidedAsItWas(t *testing.T) {
	t.Parallel()
	s := newObservedSite(t)
	recordRefusal(t, s)
	show := func(args ...string) ran {
		return run(t, append([]string{"explain", s.config}, args...)...).secretless(t)
	}
	for _, format := range []string{"table", "json", "yaml", "markdown"} {
		got := show(explained[:16], "-o", format).want(t, exitOK)
		golden(t, "explain."+format, placeless(s.shown(got.stdout)))
	}
	show(strings.ToUpper(explained)).want(t, exitOK, "REFUSED legacy_refused")
	show("00-"+explained+"-00f067aa0ba902b7-01").want(t, exitOK, "REFUSED legacy_refused")
	show(explained[:8]).want(t, exitOK, "REFUSED legacy_refused", "would_break aud_mismatch", "2 traces begin so")
	show("cccccccc").want(t, exitOK, "ALLOWED (2 requests)", "stands for 2 requests")

	// What is there today is read anew.
	changed(t, s.redis, rollout.Change{Team: "data-eng", Percent: 0})
	show(explained).want(t, exitOK, "Team data-eng is at 0%: no run must use OIDC", "would be allowed, with or without")
	s.redis.Stop()
	show(explained).want(t, exitOK, "REFUSED legacy_refused", "At which percentage the team is")
	change(t, filepath.Join(s.dir, "crossfade.yaml"), func(l []string) []string { return append(l, "nonsense: 1\n") })
	show(explained).want(t, exitUsage, "nonsense")
	trail := "--audit=" + filepath.Join(s.dir, "audit.jsonl")
	got := show(explained, trail).want(t, exitOK, "REFUSED legacy_refused", "nothing is said about today", "nonsense")
	if strings.Contains(got.stdout, "today") {
		t.Errorf("something is said about today: %v", got)
	}
	elsewhere := files(t, map[string]string{"crossfade.yaml": "upstream: http://127.0.0.1:1\n"})
	run(t, "explain", explained, trail, "--config="+filepath.Join(elsewhere, "crossfade.yaml")).
		want(t, exitOK, "No configured file holds the static credential basic:svc-etl any more")
	run(t, "explain", explained, trail).want(t, exitOK, "No configuration was found")

	change(t, filepath.Join(s.dir, "audit.jsonl"), func(l []string) []string {
		for i := range l {
			l[i] = strings.Replace(l[i], `"legacy_refused"`, `"legacy_retired"`, 1)
		}
		return l
	})
	run(t, "explain", explained, trail).want(t, exitOK, "ALTERED", "audit verify")
}

// placeless takes out of a result where its line stands: a count may have been
// written before it.
func placeless(text string) string { return lineNumbers.ReplaceAllString(text, "${1}N") }

func TestExplainSaysWhatWasSearched(t *testing.T) {
	t.Parallel()
	s := newObservedSite(t)
	recordRefusal(t, s)
	show := func(args ...string) ran { return run(t, append([]string{"explain", s.config}, args...)...) }
	got := show("deadbeefdeadbeef").want(t, exitFailure, "no line of trace deadbeefdeadbeef in 1 file", "audit.jsonl", "lines, from ",
		"stand for several requests each", "ping, get_work", "trace_id in the reply", "--audit")
	if got.stdout != "" {
		t.Errorf("talk on stdout: %v", got)
	}
	empty := filepath.Join(s.dir, "empty.jsonl")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	show("deadbeefdeadbeef", "--audit", empty).want(t, exitFailure, "no line of an audit trail")
	show().want(t, exitUsage, "accepts 1 arg(s)")
	show("deadbee").want(t, exitUsage, "at least 8 digits")
	show("svc-etl-nightly").want(t, exitUsage, "is no trace id")
	show(explained, "-o", "xml").want(t, exitUsage, "-o xml")
	show(explained, "--audit", filepath.Join(s.dir, "none.jsonl")).want(t, exitUsage, "none.jsonl")
	show(explained, "--audit", s.dir).want(t, exitUsage, "is a directory")
	run(t, "explain", explained).want(t, exitUsage, "no audit trail is configured")

	var all []struct {
		TraceID string `json:"trace_id"`
		Reason  string
		Line    struct{ Seal string }
	}
	if err := json.Unmarshal([]byte(show(explained, "-o", "json").want(t, exitOK).stdout), &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || all[0].TraceID != explained || all[0].Reason != "legacy_refused" || all[0].Line.Seal != "named" {
		t.Errorf("%+v", all)
	}
}
