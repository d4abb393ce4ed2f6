package shadow_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
)

var update = flag.Bool("update", false, "write the golden files")

// side is a named judgement of one credential.
type side struct {
	name string
	shadow.Side
}

var (
	etl = identity.Principal{Name: "svc-etl", Team: "data", Roles: []identity.Role{"runner"}, Mapped: true}
	ann = identity.Principal{Name: "ann", Team: "data", Roles: []identity.Role{"runner"}, Mapped: true}
)

func verified(p identity.Principal, mayBe ...string) *identity.Authentication {
	return &identity.Authentication{Status: identity.StatusVerified, Principal: p, MayBe: mayBe}
}

func legacies() []side {
	lapsed := identity.Reject("", identity.LegacyExpired)
	lapsed.Principal = etl // an expired credential keeps its principal
	status := func(s identity.Status, reasons ...identity.Reason) shadow.Side {
		return shadow.Side{Auth: &identity.Authentication{Status: s, Reasons: reasons}}
	}
	return []side{
		{"none", shadow.Side{}},
		{"absent", status(identity.StatusAbsent)},
		{"verified", shadow.Side{Auth: verified(etl)}},
		{"verified, roles deny", shadow.Side{Auth: verified(etl), Denied: identity.ActionDenied}},
		{"shared", shadow.Side{Auth: verified(identity.Principal{Name: "cron", Team: identity.Unassigned, Mapped: true}, "ann", "bob")}},
		{"unmapped", shadow.Side{Auth: verified(identity.Principal{Name: "legacy:x", Team: identity.Unassigned})}},
		{"wrong secret", shadow.Side{Auth: identity.Reject("", identity.LegacyUnknown)}},
		{"expired", shadow.Side{Auth: lapsed}},
		{"busy", status(identity.StatusUnavailable, identity.Throttled)},
		{"unavailable", status(identity.StatusUnavailable)},
		{"pending", status(identity.StatusPending)},
	}
}

func tokens() []side {
	status := func(s identity.Status) shadow.Side {
		return shadow.Side{Auth: &identity.Authentication{Status: s}}
	}
	as := func(p identity.Principal) shadow.Side { return shadow.Side{Auth: verified(p)} }
	moved, demoted, unmapped := etl, etl, etl
	moved.Team, demoted.Roles = "billing", []identity.Role{"viewer"}
	unmapped.Name, unmapped.Team, unmapped.Mapped = "oidc:1@idp", identity.Unassigned, false
	return []side{
		{"none", shadow.Side{}},
		{"absent", status(identity.StatusAbsent)},
		{"same", as(etl)},
		{"same, roles deny", shadow.Side{Auth: verified(etl), Denied: identity.TaskFamilyDenied}},
		{"other principal", as(ann)},
		{"other, roles deny", shadow.Side{Auth: verified(ann), Denied: identity.TaskFamilyDenied}},
		{"other team", as(moved)},
		{"other roles", as(demoted)},
		{"unmapped", as(unmapped)},
		{"wrong audience", shadow.Side{Auth: identity.Reject("", identity.AudMismatch)}},
		{"keys unreachable", shadow.Side{Auth: identity.Reject("", identity.JWKSUnavailable)}},
		{"unavailable", status(identity.StatusUnavailable)},
		{"pending", status(identity.StatusPending)},
	}
}

// product calls f for the whole cross product, in order.
func product(f func(legacy, token side, rolesCount bool, got shadow.Result)) {
	for _, legacy := range legacies() {
		for _, token := range tokens() {
			for _, rolesCount := range []bool{false, true} {
				f(legacy, token, rolesCount, shadow.Compare(legacy.Side, token.Side, rolesCount))
			}
		}
	}
}

func TestCompareGolden(t *testing.T) {
	var b strings.Builder
	line := func(cells ...any) {
		b.WriteString(strings.TrimRight(fmt.Sprintf("%-21s| %-18s| %-9s| %-15s| %-19s| %s", cells...), " ") + "\n")
	}
	line("legacy", "token", "roles", "verdict", "reason", "evidence")
	product(func(legacy, token side, rolesCount bool, got shadow.Result) {
		roles := "shadowed"
		if rolesCount {
			roles = "count"
		}
		line(legacy.name, token.name, roles, got.Verdict, got.Reason, got.Evidence)
	})

	file := filepath.Join("testdata", "compare.golden")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")); diff != "" {
		t.Errorf("mismatch (-want +got); run with -update when it is meant:\n%s", diff)
	}
}

// The definitions of the verdicts, one sentence each, written by hand.
func TestCompareSaysWhatTheVerdictsMean(t *testing.T) {
	const either = 2 // roles counting or only shadowed
	for name, tt := range map[string]struct {
		legacy, token string
		rolesCount    int
		verdict       shadow.Verdict
		reason        identity.Reason
		evidence      shadow.Evidence
	}{
		"both allow, as the same principal":                           {"verified", "same", either, "match_allow", "", "client"},
		"a shared credential may turn into a principal on its list":   {"shared", "other principal", either, "match_allow", "", "client"},
		"legacy is not verified and no token was sent":                {"wrong secret", "none", either, "match_deny", "legacy_unknown", "none"},
		"legacy is not verified and the token is bad":                 {"wrong secret", "wrong audience", either, "match_deny", "legacy_unknown", "client"},
		"legacy is not verified and the token's roles deny":           {"expired", "same, roles deny", either, "match_deny", "legacy_expired", "client"},
		"legacy's roles deny, counting, and no token was sent":        {"verified, roles deny", "none", 1, "match_deny", "action_denied", "none"},
		"legacy's roles deny, counting, and the token is bad":         {"verified, roles deny", "wrong audience", 1, "match_deny", "action_denied", "client"},
		"the roles of both deny, counting":                            {"verified, roles deny", "same, roles deny", 1, "match_deny", "action_denied", "client"},
		"nothing was presented":                                       {"none", "none", either, "match_deny", "token_absent", "none"},
		"allowed today, the token would not be: it is bad":            {"verified", "wrong audience", either, "would_break", "aud_mismatch", "client"},
		"allowed today, the token would not be: its roles deny":       {"verified", "same, roles deny", either, "would_break", "task_family_denied", "client"},
		"allowed today by roles that do not count, the token is bad":  {"verified, roles deny", "wrong audience", 0, "would_break", "aud_mismatch", "client"},
		"allowed today by roles that do not count, neither by token":  {"verified, roles deny", "same, roles deny", 0, "would_break", "task_family_denied", "client"},
		"allowed today, no token was sent":                            {"verified", "none", either, "no_token", "token_absent", "none"},
		"allowed today by roles that do not count, no token":          {"verified, roles deny", "none", 0, "no_token", "token_absent", "none"},
		"legacy's roles deny, counting or not, what the token allows": {"verified, roles deny", "same", either, "would_open", "action_denied", "client"},
		"and so does the token of somebody else":                      {"verified, roles deny", "other principal", either, "would_open", "action_denied", "client"},
		"legacy is not verified, the token is good":                   {"wrong secret", "same", either, "legacy_lapsed", "legacy_unknown", "client"},
		"legacy has expired, the token is good":                       {"expired", "same", either, "legacy_lapsed", "legacy_expired", "client"},
		"both allow, as another principal":                            {"verified", "other principal", either, "identity_drift", "principal_mismatch", "client"},
		"both allow, in another team":                                 {"verified", "other team", either, "identity_drift", "team_mismatch", "client"},
		"both allow, with other permissions":                          {"verified", "other roles", either, "identity_drift", "role_missing", "client"},
		"both allow, the token's principal is not mapped":             {"verified", "unmapped", either, "identity_drift", "principal_unmapped", "client"},
		"both allow, the legacy principal is not mapped":              {"unmapped", "same", either, "identity_drift", "principal_unmapped", "client"},
		"a shared credential turns into nobody on its list":           {"shared", "same", either, "identity_drift", "principal_mismatch", "client"},
		"the token could not be evaluated":                            {"verified", "keys unreachable", either, "indeterminate", "jwks_unavailable", "client"},
		"nobody had the time to judge the token":                      {"verified", "pending", either, "indeterminate", "shadow_timeout", "client"},
		"legacy could not be evaluated":                               {"busy", "same", either, "indeterminate", "throttled", "client"},
		"neither could be evaluated":                                  {"busy", "keys unreachable", either, "indeterminate", "jwks_unavailable", "client"},
		"legacy is wrong and the token could not be evaluated":        {"wrong secret", "keys unreachable", either, "indeterminate", "jwks_unavailable", "client"},
		"a good token alone":                                          {"none", "same", either, "not_evaluated", "", "client"},
		"a bad token alone":                                           {"none", "wrong audience", either, "not_evaluated", "", "client"},
		"a token alone whose keys are unreachable":                    {"absent", "keys unreachable", either, "not_evaluated", "", "client"},
		"a token alone whose roles deny":                              {"absent", "same, roles deny", either, "not_evaluated", "", "client"},
	} {
		t.Run(name, func(t *testing.T) {
			want, found := shadow.Result{Verdict: tt.verdict, Reason: tt.reason, Evidence: tt.evidence}, false
			product(func(legacy, token side, rolesCount bool, got shadow.Result) {
				if legacy.name != tt.legacy || token.name != tt.token || tt.rolesCount != either && rolesCount != (tt.rolesCount == 1) {
					return
				}
				found = true
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("roles count: %t: mismatch (-want +got):\n%s", rolesCount, diff)
				}
			})
			if !found {
				t.Fatal("the case is not in the cross product")
			}
		})
	}
}

func TestCompareInvariants(t *testing.T) {
	is := func(s side, statuses ...identity.Status) bool {
		return s.Auth != nil && slices.Contains(statuses, s.Auth.Status)
	}
	present := func(s side) bool { return s.Auth != nil && !is(s, identity.StatusAbsent) }
	unjudged := func(s side) bool { return is(s, identity.StatusUnavailable, identity.StatusPending) }
	reached := map[shadow.Verdict]bool{}

	product(func(legacy, token side, rolesCount bool, got shadow.Result) {
		reached[got.Verdict] = true
		check := func(ok bool, rule string) {
			if !ok {
				t.Errorf("legacy %s, token %s, roles count %t: %+v, but %s", legacy.name, token.name, rolesCount, got, rule)
			}
		}
		check(slices.Contains(shadow.Verdicts(), got.Verdict), "every verdict is on the list")
		check((got.Verdict == shadow.Indeterminate) == (present(legacy) && (unjudged(legacy) || unjudged(token))),
			"a comparison is indeterminate exactly if a side could not be judged")
		check(!(unjudged(legacy) || unjudged(token)) || !got.Verdict.Mismatch(), "what could not be judged is never a mismatch")
		check((got.Evidence == shadow.EvidenceNone) == !present(token), "there is no evidence exactly if there is no token")
		check(got.Evidence != shadow.EvidenceProbe, "only a probe is evidence of a probe")
		check((got.Verdict == shadow.NotEvaluated) == (!present(legacy) && present(token)), "a token alone, and nothing else, is not evaluated")
		check((got.Reason == "") == (got.Verdict == shadow.MatchAllow || got.Verdict == shadow.NotEvaluated), "every other verdict has a reason")
		if _, ok := got.Reason.Info(); got.Reason != "" {
			check(ok, "every reason is on the list")
		}
		if got.Verdict == shadow.MatchAllow || got.Verdict == shadow.IdentityDrift {
			check(legacy.Auth.OK() && token.Auth.OK() && token.Denied == "" && legacy.Denied == "", "both must allow")
		}
		if got.Verdict == shadow.WouldOpen || got.Verdict == shadow.LegacyLapsed {
			check(token.Auth.OK() && token.Denied == "", "the token must allow")
		}
		if other := shadow.Compare(legacy.Side, token.Side, !rolesCount); other != got {
			check(legacy.Denied != "" && (!token.Auth.OK() || token.Denied != ""),
				"whether roles count matters only where legacy's deny and no token allows")
		}
		for _, denied := range []identity.Reason{identity.RoleMissing, identity.ActionDenied} {
			l, k := legacy.Side, token.Side
			if !legacy.Auth.OK() {
				l.Denied = denied
			}
			if !token.Auth.OK() {
				k.Denied = denied
			}
			check(shadow.Compare(l, k, rolesCount) == got, "roles of an unverified credential are nobody's")
		}
	})
	for _, v := range shadow.Verdicts() {
		if !reached[v] {
			t.Errorf("no case of the cross product is %s", v)
		}
	}
}

// Whichever credential governs, forward or in reverse, the verdict compares
// the same two principals: exchanging them changes nothing.
func TestCompareIsSymmetricInThePrincipals(t *testing.T) {
	var principals []identity.Principal
	for _, s := range append(legacies(), tokens()...) {
		if s.Auth.OK() && len(s.Auth.MayBe) == 0 {
			principals = append(principals, s.Auth.Principal)
		}
	}
	for _, p := range principals {
		for _, q := range principals {
			for _, rolesCount := range []bool{false, true} {
				forward := shadow.Compare(shadow.Side{Auth: verified(p)}, shadow.Side{Auth: verified(q)}, rolesCount)
				reverse := shadow.Compare(shadow.Side{Auth: verified(q)}, shadow.Side{Auth: verified(p)}, rolesCount)
				if forward != reverse {
					t.Errorf("%s and %s: %+v, exchanged %+v", p.Name, q.Name, forward, reverse)
				}
				if same := p.Name == q.Name && p.SameRights(q); (forward.Verdict == shadow.MatchAllow) != same {
					t.Errorf("%+v and %+v: %+v", p, q, forward)
				}
			}
		}
	}
}

func TestVerdicts(t *testing.T) {
	want := map[shadow.Verdict]bool{ // whether it is a mismatch
		"match_allow": false, "match_deny": false, "would_break": true, "no_token": true, "would_open": true,
		"legacy_lapsed": true, "identity_drift": true, "indeterminate": false, "not_evaluated": false,
	}
	got := map[shadow.Verdict]bool{}
	for _, v := range shadow.Verdicts() {
		got[v] = v.Mismatch()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mismatch (-want +got):\n%s", diff)
	}
	if len(shadow.Verdicts()) != len(want) {
		t.Errorf("a verdict stands twice: %q", shadow.Verdicts())
	}
	if shadow.Verdict("weather").Mismatch() {
		t.Error("an unknown verdict is a mismatch")
	}
}

func TestCompareAllocatesNothing(t *testing.T) {
	product(func(legacy, token side, rolesCount bool, _ shadow.Result) {
		if n := testing.AllocsPerRun(10, func() { shadow.Compare(legacy.Side, token.Side, rolesCount) }); n != 0 {
			t.Errorf("legacy %s, token %s: %v allocations", legacy.name, token.name, n)
		}
	})
}

func BenchmarkCompare(b *testing.B) {
	legacy := shadow.Side{Auth: verified(etl)}
	for _, token := range tokens() {
		if !slices.Contains([]string{"none", "same", "other roles", "wrong audience"}, token.name) {
			continue
		}
		b.Run(token.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				shadow.Compare(legacy, token.Side, true)
			}
		})
	}
}
