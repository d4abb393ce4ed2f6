package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/gateway/policy"
)

const (
	execute = identity.ActionExecute
	view    = identity.ActionView
	admin   = identity.ActionAdmin
)

type roles = []identity.Role

func acme(t testing.TB) *policy.Policy {
	t.Helper()
	p, err := policy.New(map[identity.Role]policy.Grant{
		"runner":   {execute: {"Extract*", "Load*", "Report"}, view: {"*"}},
		"operator": {execute: {"*"}, view: {"*"}, admin: {"*"}},
		"auditor":  {view: {"Audit*"}},
		"cleaner":  {admin: {"Tmp*"}},
		"guest":    {},
		"muted":    {execute: nil, view: {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDenies(t *testing.T) {
	p := acme(t)
	empty, err := policy.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		p     *policy.Policy
		roles roles
		in    policy.Request
		want  identity.Reason
	}{
		"a prefix allows what begins with it":        {p, roles{"runner"}, policy.Request{Action: execute, Family: "ExtractOrders"}, ""},
		"a prefix allows itself":                     {p, roles{"runner"}, policy.Request{Action: execute, Family: "Extract"}, ""},
		"a prefix allows nothing before it":          {p, roles{"runner"}, policy.Request{Action: execute, Family: "ReExtract"}, identity.TaskFamilyDenied},
		"an exact name allows itself":                {p, roles{"runner"}, policy.Request{Action: execute, Family: "Report"}, ""},
		"an exact name is no prefix":                 {p, roles{"runner"}, policy.Request{Action: execute, Family: "Reports"}, identity.TaskFamilyDenied},
		"families are case-sensitive":                {p, roles{"runner"}, policy.Request{Action: execute, Family: "report"}, identity.TaskFamilyDenied},
		"a family with a star in its name is a name": {p, roles{"runner"}, policy.Request{Action: execute, Family: "*"}, identity.TaskFamilyDenied},
		"a star alone allows every family":           {p, roles{"runner"}, policy.Request{Action: view, Family: "Anything"}, ""},

		"an action that no role grants":                    {p, roles{"runner"}, policy.Request{Action: admin, Family: "Extract"}, identity.ActionDenied},
		"an action granted for no family":                  {p, roles{"muted"}, policy.Request{Action: execute, Family: "Extract"}, identity.ActionDenied},
		"a role that grants nothing is known all the same": {p, roles{"guest"}, policy.Request{Action: view}, identity.ActionDenied},
		"a call that the profile does not know":            {p, roles{"operator"}, policy.Request{Family: "Extract"}, identity.ActionDenied},
		"an action that does not exist":                    {p, roles{"operator"}, policy.Request{Action: "delete"}, identity.ActionDenied},

		"no roles": {p, nil, policy.Request{Action: view}, identity.RoleMissing},
		"only roles that the policy does not know": {p, roles{"wizard", "Runner"}, policy.Request{Action: view}, identity.RoleMissing},
		"an unknown role beside a known one":       {p, roles{"wizard", "runner"}, policy.Request{Action: view}, ""},
		"a policy without roles allows nobody":     {empty, roles{"operator"}, policy.Request{Action: view}, identity.RoleMissing},

		"one of two roles suffices":                        {p, roles{"auditor", "runner"}, policy.Request{Action: view, Family: "Extract"}, ""},
		"the order of roles is nothing":                    {p, roles{"runner", "auditor"}, policy.Request{Action: view, Family: "Extract"}, ""},
		"two roles do not add up to a right neither has":   {p, roles{"auditor", "cleaner"}, policy.Request{Action: admin, Family: "Audit"}, identity.TaskFamilyDenied},
		"the family is missing where any role has the act": {p, roles{"guest", "auditor"}, policy.Request{Action: view, Family: "Extract"}, identity.TaskFamilyDenied},

		"a call without a family needs the action on any":          {p, roles{"auditor"}, policy.Request{Action: view}, ""},
		"a call without a family still needs the action":           {p, roles{"auditor"}, policy.Request{Action: execute}, identity.ActionDenied},
		"a call on every family needs the star":                    {p, roles{"operator"}, policy.Request{Action: admin, EveryFamily: true}, ""},
		"a prefix is not every family":                             {p, roles{"cleaner"}, policy.Request{Action: admin, EveryFamily: true}, identity.TaskFamilyDenied},
		"a call on every family that names one needs the star too": {p, roles{"cleaner"}, policy.Request{Action: admin, Family: "TmpA", EveryFamily: true}, identity.TaskFamilyDenied},

		"the nil policy allows everything":           {nil, nil, policy.Request{Action: admin, EveryFamily: true}, ""},
		"the nil policy allows even an unknown call": {nil, nil, policy.Request{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.p.Denies(tt.roles, tt.in); got != tt.want {
				t.Errorf("Denies(%q, %+v) = %q, want %q", tt.roles, tt.in, got, tt.want)
			}
		})
	}
}

func TestNewNamesEveryMistake(t *testing.T) {
	for name, tt := range map[string]struct {
		grants map[identity.Role]policy.Grant
		want   []string
	}{
		"an action that does not exist": {
			map[identity.Role]policy.Grant{"runner": {"run": {"*"}}},
			[]string{`role "runner": "run" is no action: use execute, view or admin`},
		},
		"the empty action": {
			map[identity.Role]policy.Grant{"runner": {"": {"*"}}},
			[]string{`role "runner": "" is no action: use execute, view or admin`},
		},
		"an empty pattern": {
			map[identity.Role]policy.Grant{"runner": {view: {"A", ""}}},
			[]string{`role "runner", view: an empty pattern matches nothing: remove it, or write "*" for every family`},
		},
		"a star at the start": {
			map[identity.Role]policy.Grant{"runner": {view: {"*Report"}}},
			[]string{`role "runner", view: pattern "*Report": a star may only stand at the end`},
		},
		"a star in the middle": {
			map[identity.Role]policy.Grant{"runner": {view: {"A*B*"}}},
			[]string{`role "runner", view: pattern "A*B*": a star may only stand at the end`},
		},
		"two stars": {
			map[identity.Role]policy.Grant{"runner": {view: {"**"}}},
			[]string{`role "runner", view: pattern "**": a star may only stand at the end`},
		},
		"a role without a name": {
			map[identity.Role]policy.Grant{"": {view: {"*"}}},
			[]string{`a role has no name`},
		},
		"all mistakes at once, in order of role and action": {
			map[identity.Role]policy.Grant{
				"b": {view: {"*x", "ok", "", "*y"}, execute: {"**"}, "zap": {"*"}, admin: {"*"}},
				"a": {"run": nil},
			},
			[]string{
				`role "a": "run" is no action: use execute, view or admin`,
				`role "b", execute: pattern "**": a star may only stand at the end`,
				`role "b", view: pattern "*x": a star may only stand at the end`,
				`role "b", view: an empty pattern matches nothing: remove it, or write "*" for every family`,
				`role "b", view: pattern "*y": a star may only stand at the end`,
				`role "b": "zap" is no action: use execute, view or admin`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 8 { // maps have no order; messages have
				p, err := policy.New(tt.grants)
				if err == nil || p != nil {
					t.Fatalf("accepted: %v, %v", p, err)
				}
				if diff := cmp.Diff(tt.want, strings.Split(err.Error(), "\n")); diff != "" {
					t.Fatalf("mismatch (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestAPolicyDoesNotFollowItsArguments(t *testing.T) {
	grants := map[identity.Role]policy.Grant{"runner": {view: {"A"}}}
	p, err := policy.New(grants)
	if err != nil {
		t.Fatal(err)
	}
	grants["runner"][view][0] = "B"
	grants["runner"][execute] = []string{"*"}
	if got := p.Denies(roles{"runner"}, policy.Request{Action: view, Family: "A"}); got != "" {
		t.Errorf("view A: %s", got)
	}
	if got := p.Denies(roles{"runner"}, policy.Request{Action: execute, Family: "A"}); got != identity.ActionDenied {
		t.Errorf("execute A: %q", got)
	}
}

// The properties draw from few names, so that grants and requests meet often.
var (
	someRoles    = rapid.SampledFrom(roles{"r1", "r2", "r3", "r4", "unknown"})
	someFamilies = rapid.StringMatching(`[ab]{1,3}`)
	someActions  = rapid.SampledFrom([]identity.Action{execute, view, admin})
	somePatterns = rapid.StringMatching(`[ab]{1,2}\*?`)
	someRequests = rapid.Custom(func(t *rapid.T) policy.Request {
		return policy.Request{
			Action:      rapid.SampledFrom([]identity.Action{execute, view, admin, ""}).Draw(t, "action"),
			Family:      rapid.OneOf(rapid.Just(""), someFamilies).Draw(t, "family"),
			EveryFamily: rapid.Bool().Draw(t, "every family"),
		}
	})
	someGrants = rapid.MapOf(rapid.SampledFrom(roles{"r1", "r2", "r3", "r4"}),
		rapid.Map(rapid.MapOf(someActions, rapid.SliceOfN(rapid.OneOf(somePatterns, rapid.Just("*")), 0, 3)),
			func(g map[identity.Action][]string) policy.Grant { return g }))
)

func compiled(t interface{ Fatal(...any) }, grants map[identity.Role]policy.Grant) *policy.Policy {
	p, err := policy.New(grants)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAddingARoleNeverRemovesARight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := compiled(t, someGrants.Draw(t, "grants"))
		had := rapid.SliceOf(someRoles).Draw(t, "roles")
		more := rapid.Permutation(append(slices.Clone(had), someRoles.Draw(t, "one more"))).Draw(t, "with one more")
		r := someRequests.Draw(t, "request")
		if p.Denies(had, r) == "" && p.Denies(more, r) != "" {
			t.Fatalf("%q may, %q may not: %s", had, more, p.Denies(more, r))
		}
	})
}

func TestAddingAPatternNeverRemovesARight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		grants := someGrants.Draw(t, "grants")
		before := compiled(t, grants)
		role, action := rapid.SampledFrom(roles{"r1", "r2"}).Draw(t, "role"), someActions.Draw(t, "action")
		if grants[role] == nil {
			grants[role] = policy.Grant{}
		}
		grants[role][action] = append(grants[role][action], somePatterns.Draw(t, "one more"))
		after := compiled(t, grants)
		has, r := rapid.SliceOf(someRoles).Draw(t, "roles"), someRequests.Draw(t, "request")
		if before.Denies(has, r) == "" && after.Denies(has, r) != "" {
			t.Fatalf("%q may no longer: %s", has, after.Denies(has, r))
		}
	})
}

func TestAStarAllowsEveryRequestOfItsAction(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		grants := someGrants.Draw(t, "grants")
		action := someActions.Draw(t, "action")
		grants["star"] = policy.Grant{action: {"*"}}
		r := policy.Request{Action: action, Family: rapid.String().Draw(t, "family"), EveryFamily: rapid.Bool().Draw(t, "every family")}
		has := rapid.Permutation(append(rapid.SliceOf(someRoles).Draw(t, "roles"), "star")).Draw(t, "with the star")
		if got := compiled(t, grants).Denies(has, r); got != "" {
			t.Fatalf("denied: %s", got)
		}
	})
}

func TestARightToEveryFamilyIsARightToEachOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := compiled(t, someGrants.Draw(t, "grants"))
		has, r := rapid.SliceOf(someRoles).Draw(t, "roles"), someRequests.Draw(t, "request")
		every := policy.Request{Action: r.Action, EveryFamily: true}
		if p.Denies(has, every) == "" && p.Denies(has, r) != "" {
			t.Fatalf("may do everything, but not %+v: %s", r, p.Denies(has, r))
		}
	})
}

func TestEveryDenialIsOneOfThreeReasons(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := compiled(t, someGrants.Draw(t, "grants"))
		got := p.Denies(rapid.SliceOf(someRoles).Draw(t, "roles"), someRequests.Draw(t, "request"))
		if !slices.Contains([]identity.Reason{"", identity.RoleMissing, identity.ActionDenied, identity.TaskFamilyDenied}, got) {
			t.Fatalf("denied by %q", got)
		}
	})
}

// benchmarkRequests are the cheapest and the costliest answers.
func benchmarkRequests() map[string]policy.Request {
	return map[string]policy.Request{
		"allowed by name":   {Action: execute, Family: "Report"},
		"allowed by prefix": {Action: execute, Family: "LoadOrders"},
		"allowed by star":   {Action: view, Family: "LoadOrders"},
		"family denied":     {Action: execute, Family: "Other"},
		"action denied":     {Action: admin, EveryFamily: true},
	}
}

func TestDeniesAllocatesNothing(t *testing.T) {
	p, has := acme(t), roles{"auditor", "runner"}
	for name, r := range benchmarkRequests() {
		if n := testing.AllocsPerRun(100, func() { p.Denies(has, r) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkDenies(b *testing.B) {
	p, has := acme(b), roles{"auditor", "runner"}
	for name, r := range benchmarkRequests() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Denies(has, r)
			}
		})
	}
}
