package policy_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/gateway/policy"
)

func TestADenialIsExplainedByWhatIsNeededAndWhatIsAllowed(t *testing.T) {
	p := compiled(t, map[identity.Role]policy.Grant{
		"runner":   {execute: {"Load*", "Extract*", "LoadUsers"}, view: {"*"}},
		"reader":   {view: {"*"}, execute: {}},
		"nothing":  {},
		"operator": {execute: {"*"}, view: {"*"}, admin: {"Report"}},
	})
	on := func(action identity.Action, family string) policy.Request {
		return policy.Request{Action: action, Family: family}
	}
	for _, test := range []struct {
		roles   roles
		request policy.Request
		want    string
	}{
		{roles{"runner"}, on(execute, "Export"), "needs execute on task family Export; its role runner: Extract*, Load*"},
		{roles{"reader", "runner"}, on(execute, "Export"), "needs execute on task family Export; its roles reader, runner: Extract*, Load*"},
		{roles{"reader"}, on(execute, "LoadUsers"), "needs execute on task family LoadUsers; its role reader: view only"},
		{roles{"nothing"}, on(execute, "LoadUsers"), "needs execute on task family LoadUsers; its role nothing: nothing"},
		{nil, on(execute, "LoadUsers"), "needs execute on task family LoadUsers; it has no role"},
		{roles{"ghost"}, on(view, ""), "needs view; of its role ghost none is configured"},
		{roles{"runner"}, policy.Request{Action: execute, EveryFamily: true}, "needs execute on every task family; its role runner: Extract*, Load*"},
		{roles{"runner"}, policy.Request{}, "the call is none that the profile knows, which no role allows"},
		{roles{"operator"}, on(admin, "pass word"), "needs admin on a task family whose name cannot be shown; its role operator: Report"},
		{roles{"operator"}, on(execute, "Export"), ""},
	} {
		if got := p.Explain(test.roles, test.request); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
	if got := (*policy.Policy)(nil).Explain(nil, on(execute, "Load")); got != "" {
		t.Errorf("without roles in the configuration everything is allowed, but: %q", got)
	}
}

func TestThereIsAnExplanationExactlyWhereADenialIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		patterns := rapid.SliceOfN(rapid.StringMatching(`[A-Z][a-z]{0,80}\*?`), 0, 30)
		p, err := policy.New(map[identity.Role]policy.Grant{
			"a": {execute: patterns.Draw(t, "execute")}, "b": {view: patterns.Draw(t, "view"), admin: {"*"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		has := rapid.SliceOfN(rapid.SampledFrom([]identity.Role{"a", "b", "ghost"}), 0, 4).Draw(t, "roles")
		r := policy.Request{
			Action: rapid.SampledFrom([]identity.Action{"", execute, view, admin}).Draw(t, "action"), Family: rapid.String().Draw(t, "family"),
			EveryFamily: rapid.Bool().Draw(t, "every"),
		}
		got := p.Explain(has, r)
		if (got != "") != (p.Denies(has, r) != "") || len(got) > identity.MaxSample {
			t.Fatalf("%s is explained by %q", p.Denies(has, r), got)
		}
		if strings.ContainsAny(got, "\n\x1b\u202e@") {
			t.Fatalf("%q", got)
		}
	})
}
