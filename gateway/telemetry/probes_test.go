package telemetry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"

	"crossfade/gateway/identity"
	"crossfade/gateway/probe"
	"crossfade/gateway/shadow"
	"crossfade/gateway/telemetry"
)

// probed is a probe of svc-etl that took a second for the token and a half for
// its judgement.
func probed(outcome probe.Outcome, v shadow.Verdict, r identity.Reason) *probe.Result {
	return &probe.Result{
		Account: identity.Principal{Name: "svc-etl", Team: "data-eng"}, Kind: "client_credentials",
		Start: noon(), Obtain: time.Second, Took: 1500 * time.Millisecond, Outcome: outcome,
		Shadow: shadow.Result{Verdict: v, Reason: r, Evidence: shadow.EvidenceProbe},
		Token:  &identity.Authentication{Status: identity.StatusVerified},
	}
}

func TestProbesCountAsProbesAndAsNothingElse(t *testing.T) {
	tel := start(t, telemetry.Options{Teams: []identity.Team{"data-eng"}})
	before := scrape(t, tel, "text/plain")
	p := tel.Probes()
	tell := func(r *probe.Result) {
		ctx, trace := p.Begin(t.Context(), r.Account)
		if len(trace) != 32 || strings.Trim(trace, "0") == "" {
			t.Errorf("trace id %q", trace)
		}
		p.Observe(ctx, r)
	}
	tell(probed(probe.OK, shadow.MatchAllow, ""))
	tell(probed(probe.OK, shadow.MatchAllow, ""))
	tell(probed(probe.WouldBreak, shadow.WouldBreak, identity.AudMismatch))
	tell(probed(probe.WouldBreak, shadow.IdentityDrift, identity.PrincipalMismatch))
	tell(probed(probe.Refused, shadow.NoToken, identity.TokenAbsent))
	foreign := probed("made up", "made up", "")
	foreign.Account.Team = "gone"
	tell(foreign)

	changed := map[string]string{}
	known := map[string]bool{}
	for line := range strings.Lines(before) {
		known[line] = true
	}
	for line := range strings.Lines(scrape(t, tel, "text/plain")) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(line, "crossfade_") && !known[line] {
			changed[name] = value
		}
	}
	if diff := cmp.Diff(map[string]string{
		`crossfade_probe_total{result="ok",team="data-eng"}`:                                          "2",
		`crossfade_probe_total{result="would_break",team="data-eng"}`:                                 "2",
		`crossfade_probe_total{result="refused",team="data-eng"}`:                                     "1",
		`crossfade_probe_total{result="unavailable",team="unassigned"}`:                               "1",
		`crossfade_shadow_verdicts_total{evidence="probe",team="data-eng",verdict="match_allow"}`:     "2",
		`crossfade_shadow_verdicts_total{evidence="probe",team="data-eng",verdict="would_break"}`:     "1",
		`crossfade_shadow_verdicts_total{evidence="probe",team="data-eng",verdict="identity_drift"}`:  "1",
		`crossfade_shadow_verdicts_total{evidence="probe",team="data-eng",verdict="no_token"}`:        "1",
		`crossfade_shadow_verdicts_total{evidence="probe",team="unassigned",verdict="not_evaluated"}`: "1",
	}, changed); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSpansOfAProbe(t *testing.T) {
	for name, tt := range map[string]struct {
		result *probe.Result
		spans  int
		want   map[string]string
		status codes.Code
	}{
		"that is ok": {
			probed(probe.OK, shadow.MatchAllow, ""), 3,
			map[string]string{"crossfade.probe.result": "ok", "crossfade.verdict": "match_allow"},
			codes.Unset,
		},
		"whose token would break": {
			probed(probe.WouldBreak, shadow.WouldBreak, identity.AudMismatch), 3,
			map[string]string{
				"crossfade.probe.result": "would_break", "crossfade.verdict": "would_break",
				"crossfade.verdict_reason": "aud_mismatch", "error.type": "aud_mismatch",
			},
			codes.Error,
		},
		"without a token": {
			func() *probe.Result {
				r := probed(probe.Unavailable, shadow.Indeterminate, "")
				r.Token, r.Err = nil, errors.New("refused connection with hunter2")
				return r
			}(), 2,
			map[string]string{"crossfade.probe.result": "unavailable", "crossfade.verdict": "indeterminate", "error.type": "unavailable"},
			codes.Error,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var exporter spans
			tel := start(t, telemetry.Options{SpanExporter: &exporter, Teams: []identity.Team{"data-eng"}})
			p := tel.Probes()
			ctx, trace := p.Begin(context.Background(), tt.result.Account)
			p.Observe(ctx, tt.result)
			got := exporter.collect(t, tel)
			root := got["probe"]
			if len(got) != tt.spans || root.SpanContext.TraceID().String() != trace || root.Parent.IsValid() {
				t.Fatalf("spans %v of trace %s", got, trace)
			}
			tt.want["crossfade.team"], tt.want["crossfade.evidence"] = "data-eng", "probe"
			if diff := cmp.Diff(tt.want, attributes(root.Attributes)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if root.Status.Code != tt.status || root.Status.Description != "" {
				t.Errorf("status %v", root.Status)
			}
			obtain := got["obtain token"]
			if obtain.Parent.SpanID() != root.SpanContext.SpanID() || !obtain.EndTime.Equal(noon().Add(time.Second)) {
				t.Errorf("obtaining: %v", obtain)
			}
			if judge, ok := got["authenticate"]; ok && !judge.StartTime.Equal(obtain.EndTime) {
				t.Errorf("judging: %v", judge)
			}
			if !root.EndTime.Equal(noon().Add(1500 * time.Millisecond)) {
				t.Errorf("ends %v", root.EndTime)
			}
		})
	}
}
