package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"crossfade/config"
	"crossfade/rollout"
)

func TestEveryCommandSaysWhatItIsForAndShowsAnExample(t *testing.T) {
	t.Parallel()
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" || c.HasParent() && c.Parent().Name() == "completion" {
			return // cobra's own
		}
		if c.Short == "" || c.Example == "" {
			t.Errorf("%s: short %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
		if !strings.Contains(c.Example, "crossfade ") {
			t.Errorf("%s: the example is no command line: %q", c.CommandPath(), c.Example)
		}
		help := run(t, append(strings.Fields(c.CommandPath())[1:], "--help")...)
		if help.code != exitOK || !strings.Contains(help.stdout, "Examples:") || help.stderr != "" {
			t.Errorf("%s --help: %v", c.CommandPath(), help)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&program{}).root())
}

func TestWrongUsageExitsWithTwoAndSaysWhatIsRight(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		said string
	}{
		"an unknown command":              {[]string{"sevre"}, `did you mean "serve"?`},
		"a command like nothing":          {[]string{"xyzzy"}, `"xyzzy" is no command of crossfade`},
		"an unknown subcommand":           {[]string{"rollout", "stats"}, `did you mean "status"?`},
		"a missing kind":                  {[]string{"init", "django"}, `"django" is no command of crossfade init`},
		"an unknown flag":                 {[]string{"serve", "--upstrem", "x"}, "unknown flag: --upstrem"},
		"a flag without its value":        {[]string{"serve", "--upstream"}, "flag needs an argument"},
		"an argument too many":            {[]string{"serve", "x"}, "Run `crossfade serve --help`"},
		"arguments too few":               {[]string{"rollout", "set", "data-eng"}, "accepts 2 arg(s)"},
		"a format that nobody writes":     {[]string{"version", "-o", "xml"}, "-o xml: use one of table, json, yaml"},
		"a demo that cannot end":          {[]string{"demo", "--for", "-1s"}, "before it begins"},
		"a duration that is none":         {[]string{"demo", "--for", "20"}, "missing unit"},
		"a percentage above 100":          {[]string{"rollout", "set", "data-eng", "101"}, "101"},
		"a percentage with its sign":      {[]string{"rollout", "set", "data-eng", "50%"}, "50%"},
		"a team that can be no key":       {[]string{"rollout", "set", "data eng", "50"}, "team"},
		"no history at all":               {[]string{"rollout", "history", "data-eng", "--limit", "0"}, "--limit 0"},
		"a file twice":                    {[]string{"check", "a.yaml", "--config", "b.yaml"}, "name one"},
		"a file that does not exist":      {[]string{"check", "nowhere.yaml"}, "nowhere.yaml"},
		"serving nothing":                 {[]string{"serve"}, "upstream"},
		"serving in an unknown mode":      {[]string{"serve", "--upstream", "http://127.0.0.1:1", "--mode", "enforced"}, `did you mean "enforce"?`},
		"an initial configuration of air": {[]string{"init", "luigi", "--to", "-"}, "htpasswd"},
	} {
		t.Run(name, func(t *testing.T) {
			got := run(t, tc.args...).want(t, exitUsage, tc.said)
			if got.stdout != "" && tc.args[0] != "check" {
				t.Errorf("talk on stdout: %v", got)
			}
		})
	}
}

func TestExitCodesTellErrorsApart(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err  error
		code int
	}{
		"any failure":                {errors.New("x"), exitFailure},
		"wrong usage":                {usage("x"), exitUsage},
		"a wrong configuration":      {fmt.Errorf("start: %w", config.Errors{{Message: "x"}}), exitUsage},
		"refused":                    {&exitError{exitRefused, rollout.ErrRetired}, exitRefused},
		"a conflict":                 {fmt.Errorf("write: %w", &rollout.ConflictError{}), exitConflict},
		"a store that is away":       {fmt.Errorf("read: %w", rollout.ErrUnavailable), exitStore},
		"several, one of which says": {errors.Join(errors.New("x"), rollout.ErrUnavailable), exitStore},
	} {
		if got := exitCode(tc.err); got != tc.code {
			t.Errorf("%s: exit code %d, want %d", name, got, tc.code)
		}
	}
}

func TestWithoutACommandThereIsHelp(t *testing.T) {
	t.Parallel()
	run(t).want(t, exitOK, "Available Commands:", "Exit codes:")
	run(t, "rollout").want(t, exitOK, "crossfade rollout set data-eng 25")
}

func TestTheVersionSaysWhatRuns(t *testing.T) {
	t.Parallel()
	got := run(t, "version", "-o", "json").want(t, exitOK)
	var v map[string]string
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil {
		t.Fatal(err)
	}
	version := thisBuild().Version
	if v["version"] != version || v["go"] != runtime.Version() || v["platform"] != runtime.GOOS+"/"+runtime.GOARCH {
		t.Errorf("%v", v)
	}
	run(t, "version").want(t, exitOK, "crossfade  "+version)
	run(t, "version", "-o", "yaml").want(t, exitOK, "version: "+version)
	run(t, "--version").want(t, exitOK, "crossfade "+version)
}

func TestABuildKnowsItsVersion(t *testing.T) {
	settings := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs.revision", Value: "8a89bd6"}, {Key: "vcs.time", Value: "2026-05-12T09:27:11Z"}, {Key: "vcs.modified", Value: modified}}
	}
	of := func(module string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: module}, Settings: settings}
	}
	const between = "v1.2.4-0.20260512092711-8a89bd638cc1"
	for name, tc := range map[string]struct {
		linked string
		info   *debug.BuildInfo
		want   build
	}{
		"a tag":                              {"", of("v1.2.3", settings("false")...), build{Version: "v1.2.3", Revision: "8a89bd6", Time: "2026-05-12T09:27:11Z"}},
		"a commit after a tag, and changes":  {"", of(between+"+dirty", settings("true")...), build{Version: between + "+dirty", Revision: "8a89bd6", Time: "2026-05-12T09:27:11Z", Modified: true}},
		"sources without their repository":   {"", of("(devel)"), build{Version: "dev"}},
		"the linker was told the version":    {"v1.2.3", of("(devel)"), build{Version: "v1.2.3"}},
		"the linker knows better than a tag": {"v1.2.3-acme", of("v1.2.3"), build{Version: "v1.2.3-acme"}},
		"a program that knows nothing":       {"", nil, build{Version: "dev"}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.want.Go, tc.want.Platform = runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH
			if diff := cmp.Diff(tc.want, newBuild(tc.linked, tc.info)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestShellsComplete(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := run(t, "completion", shell); got.code != exitOK || !strings.Contains(got.stdout, "crossfade") {
			t.Errorf("%s: exit code %d, %d bytes", shell, got.code, len(got.stdout))
		}
	}
	run(t, "__complete", "serve", "--mode", "").want(t, exitOK, "observe", "enforce")
	run(t, "__complete", "check", "-o", "").want(t, exitOK, "github")
}

func TestTablesAreWrittenAsTextAndMarkdown(t *testing.T) {
	t.Parallel()
	rows := table{{"TEAM", "WHY"}, {"data-eng", "a | b"}}
	for format, want := range map[string]string{
		"table":    "TEAM      WHY\ndata-eng  a | b\n",
		"markdown": "| TEAM | WHY |\n| --- | --- |\n| data-eng | a \\| b |\n",
	} {
		var b strings.Builder
		if err := (&output{format: format}).write(&b, nil, rows); err != nil {
			t.Fatal(err)
		}
		if b.String() != want {
			t.Errorf("%s:\n%s", format, b.String())
		}
	}
}
