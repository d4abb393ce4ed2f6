package gateway_test

import (
	"testing"

	"crossfade/gateway"
	"crossfade/gateway/identity"
)

func TestDecideSaysWhatTheDesignSays(t *testing.T) {
	t.Parallel()
	verified := gateway.Judged{Status: identity.StatusVerified}
	rejected := gateway.Judged{Status: identity.StatusRejected, Reason: identity.Expired}
	away := gateway.Judged{Status: identity.StatusUnavailable, Reason: identity.JWKSUnavailable}
	wrong := gateway.Judged{Status: identity.StatusRejected, Reason: identity.LegacyUnknown}
	pending := gateway.Judged{Status: identity.StatusPending}
	denied := func(r identity.Reason) gateway.Judged {
		return gateway.Judged{Status: identity.StatusVerified, Denied: r}
	}
	const (
		none   = gateway.SideNone
		legacy = gateway.SideLegacy
		token  = gateway.SideToken
	)
	tests := []struct {
		name  string
		facts gateway.Facts
		want  gateway.Decision
	}{
		{
			"a valid token is allowed",
			gateway.Facts{Token: verified},
			gateway.Decision{Outcome: gateway.Allowed, Control: token},
		},
		{
			"a valid token whose principal has no right is refused, whether or not roles count for legacy",
			gateway.Facts{Token: denied(identity.ActionDenied)},
			gateway.Decision{Outcome: gateway.Refused, Reason: identity.ActionDenied, Control: token},
		},
		{
			"an invalid token is refused with its reason",
			gateway.Facts{Token: rejected},
			gateway.Decision{Outcome: gateway.Refused, Reason: identity.Expired, Control: token},
		},
		{
			"a token that cannot be verified is unavailable and not called bad",
			gateway.Facts{Token: away},
			gateway.Decision{Outcome: gateway.Unavailable, Reason: identity.JWKSUnavailable, Control: token},
		},
		{
			"a valid token needs no rollout",
			gateway.Facts{Token: verified, RolloutUnknown: true},
			gateway.Decision{Outcome: gateway.Allowed, Control: token},
		},
		{
			"valid legacy in a run that is not enforced is allowed",
			gateway.Facts{Legacy: verified},
			gateway.Decision{Outcome: gateway.Allowed, Control: legacy},
		},
		{
			"valid legacy in a run that is not enforced is allowed, and its companion is the candidate",
			gateway.Facts{Legacy: verified, Token: pending, Companion: true},
			gateway.Decision{Outcome: gateway.Allowed, Control: legacy, Candidate: token},
		},
		{
			"a bad companion does not harm a run that is not enforced",
			gateway.Facts{Legacy: verified, Token: rejected, Companion: true},
			gateway.Decision{Outcome: gateway.Allowed, Control: legacy, Candidate: token},
		},
		{
			"valid legacy in an enforced run without a companion is legacy_refused",
			gateway.Facts{Legacy: verified, Enforced: true},
			gateway.Decision{Outcome: gateway.Refused, Reason: identity.LegacyRefused, Control: legacy},
		},
		{
			"valid legacy of a retired team is legacy_retired",
			gateway.Facts{Legacy: verified, Retired: true},
			gateway.Decision{Outcome: gateway.Refused, Reason: identity.LegacyRetired, Control: legacy},
		},
		{
			"a retired team that is enforced too is legacy_retired",
			gateway.Facts{Legacy: verified, Enforced: true, Retired: true},
			gateway.Decision{Outcome: gateway.Refused, Reason: identity.LegacyRetired, Control: legacy},
		},
		{
			"the companion governs an enforced run, and legacy is the candidate",
			gateway.Facts{Legacy: verified, Token: verified, Companion: true, Enforced: true},
			gateway.Decision{Outcome: gateway.Allowed, Control: token, Candidate: legacy},
		},
		{
			"the companion governs a retired team",
			gateway.Facts{Legacy: verified, Token: verified, Companion: true, Retired: true},
			gateway.Decision{Outcome: gateway.Allowed, Control: token, Candidate: legacy},
		},
		{
			"a bad companion of an enforced run is refused, never back to legacy",
			gateway.Facts{Legacy: verified, Token: rejected, Companion: true, Enforced: true},
			gateway.Decision{Outcome: gateway.Refused, Reason: identity.Expired, Control: token, Candidate: legacy},
		},
		{
			"a companion of an enforced run that cannot be verified is unavailable, never back to legacy",
			gateway.Facts{Legacy: verified, Token: away, Companion: true, Enforced: true},
			gateway.Decision{Outcome: gateway.Unavailable, Reason: identity.JWKSUnavailable, Control: token, Candidate: legacy},
		},
		{
			"invalid legacy is refused",
			gateway.Facts{Legacy: wrong},
			gateway.Decision{Outcome: gateway.Refused, Reason: identity.LegacyUnknown, Control: legacy},
		},
		{
			"a good companion does not save an invalid legacy credential",
			gateway.Facts{Legacy: wrong, Token: verified, Companion: true, Enforced: true},
			gateway.Decision{Outcome: gateway.Refused, Reason: identity.LegacyUnknown, Control: legacy, Candidate: token},
		},
		{
			"a companion alone is token_absent",
			gateway.Facts{Token: verified, Companion: true},
			gateway.Decision{Outcome: gateway.Refused, Reason: identity.TokenAbsent, Candidate: token},
		},
		{
			"nothing at all is token_absent",
			gateway.Facts{},
			gateway.Decision{Outcome: gateway.Refused, Reason: identity.TokenAbsent, Control: none},
		},
		{
			"an exempt request is answered without identity, whatever else is wrong with it",
			gateway.Facts{Exempt: true, Problem: identity.MultipleCredentials, Legacy: wrong, Token: rejected},
			gateway.Decision{Outcome: gateway.Exempt},
		},
		{
			"two credentials of one kind are refused before anything is judged",
			gateway.Facts{Problem: identity.MultipleCredentials},
			gateway.Decision{Outcome: gateway.Refused, Reason: identity.MultipleCredentials},
		},
		{
			"what cannot be recorded is unavailable, whoever asks",
			gateway.Facts{Problem: identity.AuditUnavailable, Token: verified},
			gateway.Decision{Outcome: gateway.Unavailable, Reason: identity.AuditUnavailable},
		},
		{
			"roles that only shadow do not refuse legacy",
			gateway.Facts{Legacy: denied(identity.RoleMissing)},
			gateway.Decision{Outcome: gateway.Allowed, Control: legacy, Denied: identity.RoleMissing},
		},
		{
			"roles that count refuse legacy",
			gateway.Facts{Legacy: denied(identity.RoleMissing), RolesCount: true},
			gateway.Decision{Outcome: gateway.Refused, Reason: identity.RoleMissing, Control: legacy, Denied: identity.RoleMissing},
		},
		{
			"a percentage that was never read makes legacy unavailable",
			gateway.Facts{Legacy: verified, RolloutUnknown: true},
			gateway.Decision{Outcome: gateway.Unavailable, Reason: identity.StoreUnavailable, Control: legacy},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.facts.Mode = gateway.Enforce
			if got := gateway.Decide(tt.facts); got != tt.want {
				t.Errorf("\n got  %+v\n want %+v", got, tt.want)
			}
		})
	}
}

// The invariants do not look at the golden table: they hold for every
// combination of facts, whatever it says.
func TestDecideKeepsItsPromisesForEveryCombinationOfFacts(t *testing.T) {
	t.Parallel()
	promises := []struct {
		name   string
		broken func(f gateway.Facts, d gateway.Decision) bool
	}{
		{"mode observe refuses nothing", func(f gateway.Facts, d gateway.Decision) bool {
			return f.Mode == gateway.Observe && !d.Forward()
		}},
		{"mode enforce never lets pass what it would refuse", func(f gateway.Facts, d gateway.Decision) bool {
			return f.Mode == gateway.Enforce && d.Outcome == gateway.WouldRefuse
		}},
		{"a token that governs by itself and is not verified never falls back to legacy", func(f gateway.Facts, d gateway.Decision) bool {
			governs := f.Token.Status != identity.StatusAbsent && !f.Companion
			return !f.Exempt && f.Mode == gateway.Enforce && governs && f.Token.Status != identity.StatusVerified && d.Forward() && !d.Grace
		}},
		{"a run that must use OIDC is never forwarded by its legacy credential", func(f gateway.Facts, d gateway.Decision) bool {
			return f.Mode == gateway.Enforce && (f.Enforced || f.Retired) && d.Forward() && d.Control == gateway.SideLegacy && !d.Grace
		}},
		{"nothing is forwarded in mode enforce without a verified control, unless exempt", func(f gateway.Facts, d gateway.Decision) bool {
			if f.Mode != gateway.Enforce || !d.Forward() || f.Exempt || d.Grace {
				return false
			}
			switch d.Control {
			case gateway.SideLegacy:
				return f.Legacy.Status != identity.StatusVerified
			case gateway.SideToken:
				return f.Token.Status != identity.StatusVerified
			default:
				return true
			}
		}},
		{"grace excuses an expired token and a refused password, and nothing else", func(f gateway.Facts, d gateway.Decision) bool {
			without := f
			without.Grace = false
			was := gateway.Decide(without)
			excused := was.Reason == identity.Expired || was.Reason == identity.LegacyRefused
			if !d.Grace {
				return d != was
			}
			was.Outcome, was.Reason, was.Grace = d.Outcome, d.Reason, true
			return !excused || !f.Grace || d.Outcome != gateway.Allowed || d != was
		}},
		{"a companion without a verified legacy credential governs nothing", func(f gateway.Facts, d gateway.Decision) bool {
			return f.Companion && f.Legacy.Status != identity.StatusVerified && d.Control == gateway.SideToken
		}},
		{"a control without the right by roles is not forwarded where roles count", func(f gateway.Facts, d gateway.Decision) bool {
			if f.Mode != gateway.Enforce || !d.Forward() {
				return false
			}
			return d.Control == gateway.SideToken && f.Token.Denied != "" ||
				d.Control == gateway.SideLegacy && f.Legacy.Denied != "" && f.RolesCount
		}},
		{"only what is not plainly allowed has a reason, and then it has one", func(_ gateway.Facts, d gateway.Decision) bool {
			fine := d.Outcome == gateway.Allowed || d.Outcome == gateway.Exempt
			return fine != (d.Reason == "")
		}},
		{"unavailable is told of what could not be judged and of nothing else", func(f gateway.Facts, d gateway.Decision) bool {
			return d.Outcome == gateway.Unavailable && d.Control == gateway.SideToken && f.Token.Status == identity.StatusRejected
		}},
		{"whoever the decision makes the control was asked for first", func(f gateway.Facts, d gateway.Decision) bool {
			return d.Control == gateway.SideToken && !f.TokenGoverns()
		}},
		{"the control is not its own candidate", func(_ gateway.Facts, d gateway.Decision) bool {
			return d.Control == d.Candidate && d.Control != gateway.SideNone
		}},
		{"the two modes judge alike but for what they do about it", func(f gateway.Facts, d gateway.Decision) bool {
			if f.Mode == gateway.Observe || f.Enforced || f.Retired || f.RolloutUnknown {
				return false
			}
			f.Mode = gateway.Observe
			o := gateway.Decide(f)
			if !d.Forward() {
				d.Outcome = gateway.WouldRefuse
			}
			return o != d
		}},
	}
	all := crossProduct()
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range all {
				if d := gateway.Decide(c.facts); p.broken(c.facts, d) {
					t.Errorf("%s -> %+v", c, d)
				}
			}
		})
	}
}

func TestTheWordsOfModesSidesAndOutcomesAreThoseOfTheDesign(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		gateway.Observe.String(): "observe", gateway.Enforce.String(): "enforce",
		gateway.SideNone.String(): "none", gateway.SideLegacy.String(): "legacy", gateway.SideToken.String(): "token",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	seen := map[gateway.Outcome]bool{}
	for _, c := range crossProduct() {
		seen[gateway.Decide(c.facts).Outcome] = true
	}
	for _, o := range gateway.Outcomes() {
		if !seen[o] {
			t.Errorf("no combination of facts has the outcome %q", o)
		}
		delete(seen, o)
	}
	if len(seen) > 0 {
		t.Errorf("outcomes that Outcomes does not list: %v", seen)
	}
}
