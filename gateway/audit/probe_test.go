package audit_test

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/audit"
	"crossfade/gateway/identity"
	"crossfade/gateway/probe"
	"crossfade/gateway/shadow"
)

// probed is a probe of svc-etl with a verdict.
func probed(outcome probe.Outcome, v shadow.Verdict, r identity.Reason, token *identity.Authentication) *probe.Result {
	return &probe.Result{
		Account: identity.Principal{Name: "svc-etl", Team: "data-eng", Roles: []identity.Role{"runner"}},
		Kind:    "client_credentials", Start: time.Now(), Took: time.Second, Outcome: outcome,
		Shadow: shadow.Result{Verdict: v, Reason: r, Evidence: shadow.EvidenceProbe},
		Token:  token, TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
	}
}

func TestAProbeHasALineOfItsOwnKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		tr := open(t, audit.Options{File: file})
		tr.SetConfiguration("c0ffee")

		claims := identity.TokenInfo{Verified: true, Issuer: "https://idp.example", Subject: "0oa1", ID: "jti-1"}
		good := &identity.Authentication{Status: identity.StatusVerified, Principal: identity.Principal{Name: "svc-etl", Team: "data-eng"}, Token: &claims}
		other := &identity.Authentication{Status: identity.StatusVerified, Principal: identity.Principal{Name: "svc-ann", Team: "data-eng"}, Token: &claims}
		bad := identity.Reject(`the token is for "finance"`, identity.AudMismatch)
		bad.Token = &claims
		forged := identity.Reject(`the signature of "0oa1" is wrong`+"\x1b[2J", identity.SignatureInvalid)
		forged.Token = &identity.TokenInfo{Issuer: "https://idp.example", Subject: "0oa1", Digest: "d1d2d3"}
		refused := probed(probe.Refused, shadow.NoToken, identity.TokenAbsent, nil)
		refused.Err = errors.New("refused with 401 Unauthorized, invalid_client" + strings.Repeat("x", 1000))
		for _, r := range []*probe.Result{
			probed(probe.OK, shadow.MatchAllow, "", good),
			probed(probe.WouldBreak, shadow.WouldBreak, identity.AudMismatch, bad),
			probed(probe.WouldBreak, shadow.IdentityDrift, identity.PrincipalMismatch, other),
			probed(probe.WouldBreak, shadow.WouldBreak, identity.SignatureInvalid, forged),
			refused,
		} {
			tr.Probed(r)
		}
		tr.close()
		text := read(t, file)
		if got := kinds(t, text); got != "open probe probe probe probe probe close" {
			t.Errorf("lines %s", got)
		}
		verify(t, file)

		line := audit.Probe{
			Principal: "svc-etl", Team: "data-eng", Source: "client_credentials",
			TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", Configuration: "c0ffee",
		}
		verified := line
		verified.Issuer, verified.Subject, verified.TokenID = "https://idp.example", "0oa1", "jti-1"
		ok, aud, drift, forge, none := verified, verified, verified, line, line
		ok.Outcome, ok.Verdict = "ok", "match_allow"
		aud.Outcome, aud.Verdict, aud.Reason, aud.Detail = "would_break", "would_break", "aud_mismatch", `the token is for "finance"`
		drift.Outcome, drift.Verdict, drift.Reason = "would_break", "identity_drift", "principal_mismatch"
		drift.Detail = "the token belongs to \"svc-ann\" of team data-eng with roles []; the entry is that of svc-etl of team data-eng with roles [runner]"
		forge.Outcome, forge.Verdict, forge.Reason = "would_break", "would_break", "signature_invalid"
		forge.Unverified = &audit.Unverified{
			Issuer: "https://idp.example", Subject: "0oa1", TokenID: "d1d2d3", Detail: "the signature of \"0oa1\" is wrong\ufffd[2J",
		}
		none.Outcome, none.Verdict, none.Reason = "refused", "no_token", "token_absent"
		none.Detail = refused.Err.Error()[:500] + "..."
		want := []audit.Probe{ok, aud, drift, forge, none}
		var got []audit.Probe
		for line := range strings.Lines(text) {
			var l struct {
				audit.Header
				audit.Probe
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatal(err)
			}
			if l.Kind == audit.KindProbe {
				got = append(got, l.Probe)
				if at := time.Date(2000, 1, 1, 0, 0, 1, 0, time.UTC); !l.Time.Equal(at) {
					t.Errorf("a probe that took a second from midnight is told for %s", l.Time)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestTheNilTrailRecordsNoProbe(t *testing.T) {
	var tr *audit.Trail
	tr.Probed(probed(probe.OK, shadow.MatchAllow, "", nil))
}
