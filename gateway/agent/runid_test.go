package agent_test

import (
	"strings"
	"testing"

	"crossfade/gateway/agent"
)

func TestARunHasTheIDThatWasAskedForOrTheJobsOrOneByChance(t *testing.T) {
	github := map[string]string{"GITHUB_RUN_ID": "4711", "GITHUB_RUN_ATTEMPT": "2"}
	for name, tc := range map[string]struct {
		asked   string
		environ map[string]string
		want    string
	}{
		"asked for":                    {"nightly:2026-11-25_a.1", github, "nightly:2026-11-25_a.1"},
		"of a job":                     {"", github, "github-4711-2"},
		"of a job without an attempt":  {"", map[string]string{"GITHUB_RUN_ID": "4711"}, "github-4711"},
		"of a job that nobody can say": {"", map[string]string{"GITHUB_RUN_ID": "47 11"}, "-"},
		"by chance":                    {"", nil, "-"},
	} {
		got, err := agent.RunID(tc.asked, func(name string) string { return tc.environ[name] })
		if err != nil || tc.want != "-" && got != tc.want || tc.want == "-" && len(got) < 20 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	none := func(string) string { return "" }
	a, _ := agent.RunID("", none)
	if b, _ := agent.RunID("", none); a == b {
		t.Errorf("two runs are both %q", a)
	}
	for _, wrong := range []string{"a b", "ä", "a\n", "a/b", strings.Repeat("x", 129)} {
		if got, err := agent.RunID(wrong, none); err == nil {
			t.Errorf("%q is taken as %q", wrong, got)
		}
		if _, err := agent.RunID(strings.Repeat("x", 128), none); err != nil {
			t.Error(err)
		}
	}
}
