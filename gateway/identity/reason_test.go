package identity_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
)

// expectedReasons is the contract, copied by hand from the page that lists the
// reasons: word, stage, owner, and an exclamation mark where it is
// indeterminate. Its order is the order of precedence.
const expectedReasons = `
token_absent           extract        team
scheme_unsupported     extract        team
multiple_credentials   extract        team
token_in_query         extract        team
token_oversize         extract        team
malformed_jwt          parse          team
claim_type_invalid     parse          team
ambiguous_claim        parse          team
crit_unsupported       parse          team
jwe_unsupported        parse          team
opaque_unsupported     parse          team
issuer_unknown         key            team
alg_not_allowed        key            team
alg_key_mismatch       key            team
kid_unknown            key            team
kid_refresh_throttled  key            idp       !
jwks_unavailable       key            idp       !
signature_invalid      signature      security
expired_mid_run        time           team
expired                time           team
not_yet_valid          time           team
iat_in_future          time           team
exp_missing            time           team
lifetime_exceeds_max   time           team
aud_missing            binding        team
aud_mismatch           binding        team
azp_mismatch           binding        team
tenant_mismatch        binding        team
typ_mismatch           binding        team
id_token_as_access     binding        team
subject_missing        identity       idp
groups_missing         identity       idp
groups_overage         identity       idp
email_unverified       identity       idp
principal_unmapped     identity       platform
principal_mismatch     identity       platform
team_unmapped          identity       platform
team_mismatch          identity       platform
role_missing           authorisation  team
action_denied          authorisation  team
task_family_denied     authorisation  team
insufficient_scope     authorisation  team
legacy_unknown         legacy         team
legacy_expired         legacy         team
legacy_revoked         legacy         team
legacy_refused         legacy         team
legacy_retired         legacy         team
rpc_ambiguous          request        team
rpc_unknown            request        team
task_unknown           request        team
worker_mismatch        request        security
cross_site             request        security
body_oversize          request        team
throttled              request        team
proxy_untrusted        request        security
original_ambiguous     request        platform
shadow_timeout         gateway        platform  !
shadow_shed            gateway        platform  !
policy_error           gateway        platform  !
store_unavailable      gateway        platform  !
config_skew            gateway        platform  !
audit_unavailable      gateway        platform  !
`

type reasonRow struct {
	Reason        identity.Reason
	Stage         identity.Stage
	Owner         identity.Owner
	Indeterminate bool
}

func expected() []reasonRow {
	var rows []reasonRow
	for line := range strings.Lines(strings.TrimSpace(expectedReasons)) {
		f := strings.Fields(line)
		rows = append(rows, reasonRow{identity.Reason(f[0]), identity.Stage(f[1]), identity.Owner(f[2]), len(f) == 4})
	}
	return rows
}

func TestReasonsAreTheClosedList(t *testing.T) {
	var got []reasonRow
	for _, r := range identity.Reasons() {
		got = append(got, reasonRow{r.Reason, r.Stage, r.Owner, r.Indeterminate})
	}
	if diff := cmp.Diff(expected(), got); diff != "" {
		t.Errorf("mismatch (-want +got):\n%s", diff)
	}
}

func TestEveryReasonIsOneSentence(t *testing.T) {
	seen := map[string]identity.Reason{}
	for _, r := range identity.Reasons() {
		if !strings.HasSuffix(r.Means, ".") || strings.Count(r.Means, ".") != 1 || strings.ToUpper(r.Means[:1]) != r.Means[:1] {
			t.Errorf("%s means %q", r.Reason, r.Means)
		}
		if other, twice := seen[r.Means]; twice {
			t.Errorf("%s and %s mean the same: %q", other, r.Reason, r.Means)
		}
		seen[r.Means] = r.Reason
	}
}

// constants returns the values of the typed string constants that the file
// declares, in order, by their type.
func constants(t *testing.T, file string) map[string][]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, d := range f.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.CONST {
			continue
		}
		for _, s := range decl.Specs {
			spec := s.(*ast.ValueSpec)
			typ, ok := spec.Type.(*ast.Ident)
			if !ok {
				continue
			}
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			found[typ.Name] = append(found[typ.Name], value)
		}
	}
	return found
}

func TestEveryDeclaredReasonStageAndOwnerIsOnTheList(t *testing.T) {
	listed := map[string][]string{}
	add := func(kind, value string) {
		if !slices.Contains(listed[kind], value) {
			listed[kind] = append(listed[kind], value)
		}
	}
	for _, r := range identity.Reasons() {
		add("Reason", string(r.Reason))
		add("Stage", string(r.Stage))
		add("Owner", string(r.Owner))
	}
	declared := constants(t, "reason.go")
	slices.Sort(listed["Owner"]) // owners have no order
	slices.Sort(declared["Owner"])
	if diff := cmp.Diff(listed, declared); diff != "" {
		t.Errorf("mismatch (-listed +declared):\n%s", diff)
	}
}

func TestReasonsReturnsACopy(t *testing.T) {
	identity.Reasons()[0].Owner = "nobody"
	if got := identity.Reasons()[0].Owner; got != identity.OwnerTeam {
		t.Errorf("a caller changed the list: %s", got)
	}
}

func TestInfoOfAReason(t *testing.T) {
	for _, want := range identity.Reasons() {
		got, ok := want.Reason.Info()
		if !ok || got != want || want.Reason.Indeterminate() != want.Indeterminate {
			t.Errorf("Info of %s: %+v, %t", want.Reason, got, ok)
		}
	}
	for _, unknown := range []identity.Reason{"", "Expired", "tokenabsent", "weather"} {
		got, ok := unknown.Info()
		if ok || got != (identity.ReasonInfo{Reason: unknown}) || unknown.Indeterminate() {
			t.Errorf("Info of %q: %+v, %t", unknown, got, ok)
		}
	}
}

func TestSortReasons(t *testing.T) {
	type list = []identity.Reason
	for name, tt := range map[string]struct{ in, want list }{
		"nothing stays nothing":                                {nil, nil},
		"one reason is primary":                                {list{identity.Expired}, list{identity.Expired}},
		"the first stage is primary":                           {list{identity.AudMismatch, identity.SignatureInvalid, identity.MalformedJWT}, list{identity.MalformedJWT, identity.SignatureInvalid, identity.AudMismatch}},
		"a lapse within a run comes before the plain lapse":    {list{identity.Expired, identity.ExpiredMidRun}, list{identity.ExpiredMidRun, identity.Expired}},
		"keys out of reach come before what nobody could know": {list{identity.SignatureInvalid, identity.JWKSUnavailable}, list{identity.JWKSUnavailable, identity.SignatureInvalid}},
		"a duplicate is dropped":                               {list{identity.Expired, identity.AudMissing, identity.Expired}, list{identity.Expired, identity.AudMissing}},
		"an unknown word comes last":                           {list{"weather", identity.AuditUnavailable}, list{identity.AuditUnavailable, "weather"}},
		"unknown words stand in order, once":                   {list{"y", "x", "y", identity.Expired, "x"}, list{identity.Expired, "x", "y"}},
		"the empty word is an unknown word":                    {list{"", identity.Throttled}, list{identity.Throttled, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			before := slices.Clone(tt.in)
			if diff := cmp.Diff(tt.want, identity.SortReasons(tt.in)); diff != "" {
				t.Errorf("mismatch (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, tt.in); diff != "" {
				t.Errorf("the argument was changed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestSortReasonsDependsOnTheSetAlone(t *testing.T) {
	words := []identity.Reason{"weather", "unknown", ""}
	for _, r := range identity.Reasons() {
		words = append(words, r.Reason)
	}
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOf(rapid.SampledFrom(words)).Draw(t, "in")
		shuffled := rapid.Permutation(append(slices.Clone(in), in...)).Draw(t, "shuffled")
		if a, b := identity.SortReasons(in), identity.SortReasons(shuffled); !slices.Equal(a, b) {
			t.Fatalf("%q in one order, %q in another and twice", a, b)
		}
	})
}
