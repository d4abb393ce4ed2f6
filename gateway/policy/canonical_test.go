package policy_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/gateway/policy"
)

func TestCanonicalListsAreTheShortest(t *testing.T) {
	for _, test := range []struct {
		name       string
		list, want []string
	}{
		{"nothing stays nothing", []string{}, nil},
		{"the order does not matter", []string{"B", "A"}, []string{"A", "B"}},
		{"what stands twice stands once", []string{"A", "A*", "A*"}, []string{"A*"}},
		{"everything makes the rest moot", []string{"Load*", "*", "X"}, []string{"*"}},
		{"a prefix covers longer ones and names", []string{"LoadUsers", "LoadU*", "Load*", "Lo"}, []string{"Lo", "Load*"}},
		{"a prefix covers the name that it is", []string{"Load", "Load*"}, []string{"Load*"}},
		{"a name covers nothing but itself", []string{"Load", "LoadUsers"}, []string{"Load", "LoadUsers"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, policy.Canonical(test.list)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestListsAreEquallyWrittenExactlyIfTheyMatchTheSame(t *testing.T) {
	pattern := rapid.StringMatching(`[AB]{0,3}\*|[AB]{1,3}`)
	family := func(p policy.Grant) func(string) bool {
		compiled, err := policy.New(map[identity.Role]policy.Grant{"r": p})
		if err != nil {
			t.Fatal(err)
		}
		return func(name string) bool {
			return compiled.Denies([]identity.Role{"r"}, policy.Request{Action: identity.ActionExecute, Family: name}) == ""
		}
	}
	var names []string // longer than any pattern, so that a prefix shows
	for length, last := 1, []string{""}; length <= 5; length++ {
		var next []string
		for _, n := range last {
			next = append(next, n+"A", n+"B", n+"C")
		}
		names, last = append(names, next...), next
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.SliceOf(pattern).Draw(t, "a"), rapid.SliceOf(pattern).Draw(t, "b")
		if rapid.Bool().Draw(t, "alike") {
			b = append(slices.Clone(a), rapid.SampledFrom(append(a, "A")).Draw(t, "one more"))
		}
		inA, inB, same := family(policy.Grant{identity.ActionExecute: a}), family(policy.Grant{identity.ActionExecute: b}), true
		for _, n := range names {
			same = same && inA(n) == inB(n)
		}
		if got := slices.Equal(policy.Canonical(a), policy.Canonical(b)); got != same {
			t.Fatalf("%q and %q match the same: %t, and are written alike: %t", a, b, same, got)
		}
	})
}
