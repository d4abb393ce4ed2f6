package explain_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/cmd/crossfade/explain"
	"crossfade/gateway"
	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/gateway/policy"
	"crossfade/legacy"
	"crossfade/rollout"
)

var update = flag.Bool("update", false, "rewrite the golden file")

var at = time.Date(2026, 11, 24, 1, 2, 3, 0, time.UTC)

// hit is a line of a trail about a request.
func hit(u audit.Use) audit.Hit {
	h := audit.Hit{File: "audit.jsonl", Line: 7, Seal: audit.Sealed, Use: &u}
	h.Header = audit.Header{Kind: audit.KindUse, Time: at, Replica: "web1-AAAAAAAAAA", Seq: 7}
	if u.N > 0 {
		h.Kind = audit.KindCount
	}
	return h
}

// etl is a call of svc-etl with its password in a team at 25%, of which its
// pipeline LoadUsers is selected from 97% on.
func etl(change func(u *audit.Use)) audit.Hit {
	percent := 25
	u := audit.Use{
		Principal: "svc-etl", Team: "data-eng", Scheme: "basic", Credential: "basic:svc-etl", Outcome: "allowed", Mode: "enforce",
		Action: "execute", RPC: "add_task", Family: "LoadUsers", Run: "worker-1", Method: "POST", Client: "10.1.2.3",
		Percent: &percent, Pipeline: "LoadUsers", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", Configuration: "c0ffee",
		Verdict: "no_token", VerdictReason: "token_absent",
	}
	if change != nil {
		change(&u)
	}
	return hit(u)
}

// companion is a token that was sent beside a password.
func companion(u *audit.Use, status identity.Status, reason identity.Reason, detail string) {
	u.Candidate = &audit.Candidate{
		Scheme: "oidc", Status: status.String(), Reason: string(reason), Detail: detail, Issuer: "https://idp.example", Subject: "0oa1", TokenID: "jti-1",
	}
	u.Verdict, u.VerdictReason = "match_allow", ""
	if reason != "" {
		u.Verdict, u.VerdictReason = "would_break", string(reason)
	}
}

// refused is the decision of a line.
func refused(u *audit.Use, outcome gateway.Outcome, reason identity.Reason) {
	u.Outcome, u.Reason = string(outcome), string(reason)
}

// byToken is a request of a token alone.
func byToken(u *audit.Use) {
	u.Scheme, u.Credential, u.Issuer, u.Subject, u.TokenID = "oidc", "", "https://idp.example", "0oa1", "jti-1"
	u.Verdict, u.VerdictReason, u.Percent, u.Pipeline = "not_evaluated", "", nil, ""
}

// today is a deployment in which svc-etl may load and look.
func today(t *testing.T, change func(p *explain.Present)) *explain.Present {
	t.Helper()
	directory, err := identity.NewDirectory([]identity.Entry{
		{Name: "svc-etl", Team: "data-eng", Legacy: []string{"svc-etl"}, Roles: []identity.Role{"runner"}, OIDC: []identity.TokenMatch{{Subject: "0oa1"}}},
	}, identity.ClaimRules{})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := policy.New(map[identity.Role]policy.Grant{"runner": {identity.ActionExecute: {"Load*"}, identity.ActionView: {"*"}}})
	if err != nil {
		t.Fatal(err)
	}
	owner, _ := directory.Legacy("svc-etl")
	p := &explain.Present{
		Now: at.Add(time.Hour), Configuration: "c0ffee", Mode: gateway.Enforce, Directory: directory, Policy: rules,
		Credentials: map[string]legacy.Info{"basic:svc-etl": {ID: "basic:svc-etl", Owner: "svc-etl", Principal: owner}},
		Rollouts:    map[identity.Team]rollout.State{"data-eng": {Team: "data-eng", Percent: 50, Algorithm: rollout.Algorithm}},
	}
	if change != nil {
		change(p)
	}
	return p
}

func TestExplanationsSayWhyAndWhatWouldBeToday(t *testing.T) {
	cases := []struct {
		name    string
		hit     audit.Hit
		present func(*explain.Present)
	}{
		{"a password that was let in", etl(nil), nil},
		{
			"a password that must not be used any more", etl(func(u *audit.Use) { *u.Percent = 98; refused(u, gateway.Refused, identity.LegacyRefused) }),
			func(p *explain.Present) { p.Rollouts["data-eng"] = rollout.State{Percent: 100} },
		},
		{"a run that keeps what it began with", etl(func(u *audit.Use) { *u.Percent = 98 }), nil},
		{"a password of a run that mode observe let pass", etl(func(u *audit.Use) { *u.Percent, u.Mode = 98, "observe" }), nil},
		{"a run that was latched before a lowering", etl(func(u *audit.Use) { refused(u, gateway.Refused, identity.LegacyRefused) }), nil},
		{"a token for another audience beside the password", etl(func(u *audit.Use) {
			companion(u, identity.StatusRejected, identity.AudMismatch, `the token is for "api://finance"; this gateway accepts "luigi"`)
		}), nil},
		{"a token that governed and had expired", etl(func(u *audit.Use) {
			byToken(u)
			refused(u, gateway.Refused, identity.Expired)
			u.Detail = "it expired at 2026-11-24T00:00:00Z"
		}), nil},
		{"a token of a family that its roles deny", etl(func(u *audit.Use) {
			byToken(u)
			u.Family = "ExportInvoices"
			refused(u, gateway.Refused, identity.TaskFamilyDenied)
		}), nil},
		{"a token of nobody's entry", etl(func(u *audit.Use) { byToken(u); u.Subject = "0oa9" }), nil},
		{"keys that could not be fetched", etl(func(u *audit.Use) { byToken(u); refused(u, gateway.Unavailable, identity.JWKSUnavailable) }), nil},
		{"a wrong password", etl(func(u *audit.Use) {
			u.Principal, u.Team, u.Credential, u.Percent, u.Pipeline, u.RPC, u.Family, u.Run = "", "", "", nil, "", "", "", ""
			u.Unverified = &audit.Unverified{RPC: "add_task", Family: "LoadUsers", Run: "worker-1"}
			refused(u, gateway.Refused, identity.LegacyUnknown)
			u.Verdict, u.VerdictReason = "match_deny", "legacy_unknown"
		}), nil},
		{"nothing at all", etl(func(u *audit.Use) {
			u.Principal, u.Team, u.Scheme, u.Credential, u.Percent = "", "", "none", "", nil
			refused(u, gateway.WouldRefuse, identity.TokenAbsent)
			u.Mode, u.Verdict, u.VerdictReason = "observe", "not_evaluated", ""
		}), func(p *explain.Present) { p.Mode = gateway.Observe }},
		{"a forged companion", etl(func(u *audit.Use) {
			companion(u, identity.StatusRejected, identity.SignatureInvalid, "")
			u.Candidate.Issuer, u.Candidate.Subject, u.Candidate.TokenID = "", "", ""
			u.Candidate.Unverified = &audit.Unverified{Issuer: "https://idp.example", Subject: "0oa1"}
		}), nil},
		{"another account's worker", etl(func(u *audit.Use) { u.Other = "svc-load"; refused(u, gateway.Refused, identity.WorkerMismatch) }), nil},
		{"counted calls", etl(func(u *audit.Use) { u.N, u.First, u.RPC, u.Family = 42, at.Add(-time.Minute), "ping", "" }), nil},
		{"the end of a task by grace", etl(func(u *audit.Use) { u.Grace = true }), nil},
		{"a line of before verdicts were told", etl(func(u *audit.Use) { u.Verdict, u.VerdictReason = "", "" }), nil},
		{"a reason of a later version", etl(func(u *audit.Use) { refused(u, gateway.Refused, "quantum_noise") }), nil},
		{
			"a retired team", etl(func(u *audit.Use) { refused(u, gateway.Refused, identity.LegacyRetired) }),
			func(p *explain.Present) { p.Rollouts["data-eng"] = rollout.State{Percent: 100, Retired: true} },
		},
		{"a password that is gone", etl(nil), func(p *explain.Present) { p.Credentials = nil }},
		{"a key that has expired", etl(nil), func(p *explain.Present) {
			p.Credentials["basic:svc-etl"] = legacy.Info{ID: "basic:svc-etl", Expires: at}
		}},
		{"a Redis that is away, and another configuration", etl(nil), func(p *explain.Present) {
			p.Rollouts, p.NoRollouts, p.Configuration = nil, "rollout store unavailable", "decaf"
		}},
		{"roles that count", etl(func(u *audit.Use) { u.Family = "ExportInvoices" }), func(p *explain.Present) { p.RolesCount = true }},
		{"no roles at all", etl(nil), func(p *explain.Present) { p.Policy = nil }},
		{"a brownout", etl(nil), func(p *explain.Present) {
			s := rollout.State{Percent: 10}
			s.Request.Brownouts = []rollout.Brownout{{From: at, Until: at.Add(2 * time.Hour), Percent: 100}}
			p.Rollouts["data-eng"] = s
		}},
		{"a percentage of accounts", etl(func(u *audit.Use) { u.Pipeline = "" }), func(p *explain.Present) { p.Stickiness = rollout.StickPrincipal }},
		{"a run whose pipeline is not known", etl(func(u *audit.Use) { u.Pipeline = "" }), nil},
		{"buckets of a later version", etl(nil), func(p *explain.Present) { p.Rollouts["data-eng"] = rollout.State{Percent: 50, Algorithm: 99} }},
		{"an administrator's call", etl(func(u *audit.Use) { u.Action, u.RPC, u.Family = "admin", "pause", "" }), nil},
		{"a mode that enforces nothing", etl(nil), func(p *explain.Present) { p.Mode = gateway.Observe }},
		{"a line that was altered", func() audit.Hit { h := etl(nil); h.Seal = audit.Broken; return h }(), nil},
		{"a task", audit.Hit{Header: audit.Header{Kind: audit.KindTask, Time: at}, File: "audit.jsonl", Line: 8, Seal: audit.Unsealed, Task: &audit.Task{
			Task: "LoadUsers_1", Family: "LoadUsers", Worker: "worker-1", Outcome: "done", Grace: true, Principal: "svc-etl", Team: "data-eng", Scheme: "oidc",
			Issuer: "https://idp.example", TokenID: "jti-1", Percent: 25, TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
		}}, nil},
		{"a probe", audit.Hit{Header: audit.Header{Kind: audit.KindProbe, Time: at}, File: "audit.jsonl", Line: 9, Probe: &audit.Probe{
			Principal: "svc-etl", Team: "data-eng", Source: "client_credentials", Outcome: "would_break", Verdict: "would_break", Reason: "aud_mismatch",
			Detail: "another audience", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
		}}, nil},
	}
	var b strings.Builder
	for _, c := range cases {
		e := explain.Explain(c.hit, today(t, c.present))
		fmt.Fprintf(&b, "# %s\n%s\n", c.name, e.Answer())
		for _, row := range e.Rows() {
			b.WriteString(strings.TrimRight(fmt.Sprintf("  %-10s  %s", row.Label, row.Text), " ") + "\n")
		}
		b.WriteString("\n")

		alone := explain.Explain(c.hit, nil)
		if len(alone.Now) > 0 || len(alone.Unknown) > 0 || alone.Outcome != e.Outcome || alone.Reason != e.Reason {
			t.Errorf("%s: without a configuration: %+v", c.name, alone)
		}
	}
	const file = "testdata/explanations.golden"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("(-want +got, -update rewrites it):\n%s", diff)
	}
}

func TestEveryReasonIsExplained(t *testing.T) {
	for _, info := range identity.Reasons() {
		e := explain.Explain(etl(func(u *audit.Use) { refused(u, gateway.Refused, info.Reason) }), nil)
		if e.Means != info.Means || e.Owner != info.Owner || e.Do == "" {
			t.Errorf("%s: %+v", info.Reason, e)
		}
	}
}
