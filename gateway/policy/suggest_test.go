package policy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/gateway/policy"
)

// did is what an account of a team did.
func did(account string, team identity.Team, requests ...policy.Request) policy.Observed {
	return policy.Observed{Account: account, Team: team, Did: requests}
}

func ran(families ...string) (out []policy.Request) {
	for _, f := range families {
		out = append(out, policy.Request{Action: execute, Family: f})
	}
	return out
}

func TestSuggestReturnsTheLeastRoles(t *testing.T) {
	type role struct {
		Name, Accounts string
		Grant          policy.Grant
	}
	for name, tt := range map[string]struct {
		in   []policy.Observed
		fold int
		want []role
		left int
	}{
		"an account has a role of its name": {
			in:   []policy.Observed{did("svc-etl", "data-eng", ran("LoadUsers", "ExtractOrders", "LoadUsers")...)},
			want: []role{{"svc-etl", "svc-etl", policy.Grant{execute: {"ExtractOrders", "LoadUsers"}}}},
		},
		"a user without an entry has one of the user's": {
			in:   []policy.Observed{did("legacy:svc etl", "unassigned", ran("A")...)},
			want: []role{{"svc-etl", "legacy:svc etl", policy.Grant{execute: {"A"}}}},
		},
		"equal needs of one team are one role of the team's name": {
			in:   []policy.Observed{did("b", "data-eng", ran("A")...), did("a", "data-eng", ran("A", "A")...)},
			want: []role{{"data-eng", "a b", policy.Grant{execute: {"A"}}}},
		},
		"equal needs of several teams are one role": {
			in:   []policy.Observed{did("b", "billing", ran("A")...), did("a", "data-eng", ran("A")...)},
			want: []role{{"shared", "a b", policy.Grant{execute: {"A"}}}},
		},
		"whoever has no team has no role of that name": {
			in:   []policy.Observed{did("legacy:b", "unassigned", ran("A")...), did("legacy:a", "unassigned", ran("A")...)},
			want: []role{{"shared", "legacy:a legacy:b", policy.Grant{execute: {"A"}}}},
		},
		"no two roles have one name": {
			in: []policy.Observed{
				did("a", "x", ran("A")...), did("b", "x", ran("A")...),
				did("c", "x", ran("B")...), did("d", "x", ran("B")...), did("x", "y", ran("C")...),
			},
			want: []role{
				{"x", "a b", policy.Grant{execute: {"A"}}},
				{"x-2", "c d", policy.Grant{execute: {"B"}}},
				{"x-3", "x", policy.Grant{execute: {"C"}}},
			},
		},
		"who does nothing needs nothing": {in: []policy.Observed{did("a", "x")}},
		"the right to every family makes those to one needless": {
			in:   []policy.Observed{did("a", "x", policy.Request{Action: admin, EveryFamily: true}, policy.Request{Action: admin, Family: "A"})},
			want: []role{{"a", "a", policy.Grant{admin: {"*"}}}},
		},
		"a call about no family needs no family of its own": {
			in:   []policy.Observed{did("a", "x", append(ran("A"), policy.Request{Action: execute}, policy.Request{Action: view})...)},
			want: []role{{"a", "a", policy.Grant{execute: {"A"}, view: {"A"}}}},
		},
		"without any family it is the star": {
			in:   []policy.Observed{did("a", "x", policy.Request{Action: view})},
			want: []role{{"a", "a", policy.Grant{view: {"*"}}}},
		},
		"nothing is folded unless that is asked for": {
			in:   []policy.Observed{did("a", "x", ran("LoadA", "LoadB", "LoadC")...)},
			want: []role{{"a", "a", policy.Grant{execute: {"LoadA", "LoadB", "LoadC"}}}},
		},
		"enough families with a beginning in common are folded, others stay": {
			in: []policy.Observed{did("a", "x", ran("LoadUserA", "LoadUserB", "LoadUserC", "ExtractA", "ExtractB", "a.b.C", "a.b.D", "a.c")...)}, fold: 3,
			want: []role{{"a", "a", policy.Grant{execute: {"ExtractA", "ExtractB", "LoadUser*", "a.*"}}}},
		},
		"letters in common are no word in common": {
			in: []policy.Observed{did("a", "x", ran("Loader", "Loading", "Loads")...)}, fold: 2,
			want: []role{{"a", "a", policy.Grant{execute: {"Loader", "Loading", "Loads"}}}},
		},
		"a family of the word alone is folded with those that go on": {
			in: []policy.Observed{did("a", "x", ran("Load", "LoadA")...)}, fold: 2,
			want: []role{{"a", "a", policy.Grant{execute: {"Load*"}}}},
		},
		"a family that would be a pattern is never written": {
			in:   []policy.Observed{did("a", "x", ran("*", "Load*", "L*d", "A", "x\ny", strings.Repeat("x", 250))...)},
			want: []role{{"a", "a", policy.Grant{execute: {"A"}}}},
			left: 5,
		},
		"a call that nobody knows is of no role": {
			in:   []policy.Observed{did("a", "x", policy.Request{Family: "A"})},
			left: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			suggested, left := policy.Suggest(tt.in, tt.fold)
			var got []role
			for _, s := range suggested {
				got = append(got, role{string(s.Role), strings.Join(s.Accounts, " "), s.Grant})
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(left) != tt.left {
				t.Errorf("%d are left out: %+v", len(left), left)
			}
			for _, l := range left {
				if l.Why == "" || l.Account != "a" {
					t.Errorf("%+v", l)
				}
			}
		})
	}
}

func TestTheSuggestionAllowsWhatWasObservedAndNoOtherFamily(t *testing.T) {
	families := rapid.StringMatching(`(Load|Extract|Loader)(User|A|B)?(One|Two)?`)
	requests := rapid.Custom(func(t *rapid.T) policy.Request {
		return policy.Request{
			Action:      someActions.Draw(t, "action"),
			Family:      rapid.OneOf(rapid.Just(""), families).Draw(t, "family"),
			EveryFamily: rapid.IntRange(0, 20).Draw(t, "every") == 0,
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		fold := rapid.IntRange(0, 3).Draw(t, "fold")
		var all []policy.Observed
		for _, account := range []string{"a", "b", "c"} {
			all = append(all, did(account, "x", rapid.SliceOfN(requests, 0, 6).Draw(t, account)...))
		}
		suggested, left := policy.Suggest(all, fold)
		if len(left) > 0 {
			t.Fatalf("left out: %+v", left)
		}
		grants, has := map[identity.Role]policy.Grant{}, map[string]roles{}
		for _, s := range suggested {
			grants[s.Role] = s.Grant
			for _, a := range s.Accounts {
				has[a] = append(has[a], s.Role)
			}
		}
		p := compiled(t, grants)
		for _, o := range all {
			if len(has[o.Account]) > 1 {
				t.Fatalf("%s has %q", o.Account, has[o.Account])
			}
			every, some := map[identity.Action]bool{}, map[identity.Action]bool{}
			for _, r := range o.Did {
				if got := p.Denies(has[o.Account], r); got != "" {
					t.Fatalf("%s did %+v and is denied: %s, of %+v", o.Account, r, got, grants)
				}
				every[r.Action] = every[r.Action] || r.EveryFamily
				some[r.Action] = some[r.Action] || r.Family == ""
			}
			for _, action := range []identity.Action{execute, view, admin} {
				if every[action] || some[action] {
					continue
				}
				if got := p.Denies(has[o.Account], policy.Request{Action: action, Family: "Unseen"}); got == "" {
					t.Fatalf("%s may %s a family that was never seen, by %+v", o.Account, action, grants)
				}
			}
		}
	})
}

func FuzzSuggest(f *testing.F) {
	f.Add("LoadUsers", "Load_Users.x", 2)
	f.Add("*", "a\nb*", 0)
	f.Fuzz(func(t *testing.T, a, b string, fold int) {
		suggested, left := policy.Suggest([]policy.Observed{did("acc", "x", ran(a, b)...)}, fold)
		grants := map[identity.Role]policy.Grant{}
		for _, s := range suggested {
			grants[s.Role] = s.Grant
		}
		p, err := policy.New(grants)
		if err != nil {
			t.Fatalf("%v in %q", err, grants)
		}
		if len(left) == 0 {
			for _, r := range ran(a, b) {
				if got := p.Denies(roles{"acc"}, r); got != "" {
					t.Errorf("%q is denied: %s", r.Family, got)
				}
			}
		}
		if got := p.Denies(roles{"acc"}, policy.Request{Action: execute, EveryFamily: true}); got == "" && a != "" && b != "" {
			t.Errorf("%q and %q became the right to every family", a, b)
		}
	})
}
