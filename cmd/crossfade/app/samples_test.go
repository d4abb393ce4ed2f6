package app_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/cmd/crossfade/app"
	"crossfade/rollout/readiness"
)

// TestTheReportShowsASampleOfEachFailure goes from the requests of workers through a
// gateway and its store to the report of the team, as its API shows it.
func TestTheReportShowsASampleOfEachFailure(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.administered()
	s.write("principals.yaml", "svc-etl: { team: data-eng, oidc: { subject: svc-etl }, roles: [runner] }\n")
	s.write("roles.yaml", "roles: { runner: { execute: [\"Extract*\"], view: [\"*\"] } }\n")
	s.configure("roles", "roles.yaml", "admin", "{ address: 127.0.0.1:0 }")
	store := inProcess(t)
	g := s.start(func(o *app.Options) { o.Store = store }).loaded()

	mine, unknown, foreign := s.token("svc-etl", audience), s.token("svc-billing", audience), s.token("svc-etl", "api://finance")
	cut := mine[:strings.LastIndexByte(mine, '.')] + ".AAAA"
	run := func(worker, family, companion string) {
		q := etl(addTask(worker, family))
		q.companion = companion
		if got := g.send(q); got.status != 200 {
			t.Errorf("%s: %v", worker, got)
		}
	}
	run("w1", "ExtractUsers", unknown)
	run("w2", "LoadUsers", mine)
	run("w3", "ExtractOrders", "")
	run("w4", "ExtractItems", foreign)
	run("w5", "ExtractParts", cut)
	run("w6", "ExtractAll", mine) // and one that is good

	type row struct{ Pipeline, Reason, Verdict, Detail string }
	want := map[row]bool{
		{"ExtractUsers", "principal_unmapped", "would_break", "no account has this subject; looked up by sub at " + s.issuer.URL() + "; claims: iss, sub, aud, exp, iat, nbf, client_id, jti"}: true,
		{"LoadUsers", "task_family_denied", "would_break", "needs execute on task family LoadUsers; its role runner: Extract*"}:                                                                true,
		{"ExtractOrders", "token_absent", "no_token", "a password alone: no token in Crossfade-Token"}:                                                                                         true,
		{"ExtractItems", "aud_mismatch", "would_break", `the token is for "api://finance"; this gateway accepts "luigi"`}:                                                                      true,
		{"ExtractParts", "signature_invalid", "would_break", "the signature does not hold with the key of issuer " + s.issuer.URL() + " that kid names"}:                                       true,
	}
	var answer struct{ Report readiness.Report }
	var text string
	s.eventually("all runs are in the report", func() bool {
		text = g.answers(200, "GET", "/readiness/data-eng", "", "").body
		answer.Report = readiness.Report{}
		return json.Unmarshal([]byte(text), &answer) == nil && len(answer.Report.Failures) >= len(want)
	})
	got := make(map[row]bool)
	for _, f := range answer.Report.Failures {
		got[row{f.Pipeline, string(f.Reason), f.Verdict, f.Detail}] = true
		if f.Account != "svc-etl" || f.TraceID == "" || !f.Open || f.Runs != 1 || f.Advice == "" {
			t.Errorf("%+v", f)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
	for _, secret := range []string{"svc-billing", "legacy-pass", mine[:20], unknown[:20], strings.Split(unknown, ".")[1][:20]} {
		if strings.Contains(text, secret) {
			t.Errorf("the report shows %.11s...", secret)
		}
	}
}
