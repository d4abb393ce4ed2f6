package demo_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway/identity"
)

// fourTeams is the summary of the demo's mock-up.
func fourTeams() demo.Summary {
	return demo.Summary{Teams: map[identity.Team]demo.TeamSummary{
		"data-eng": {
			Requests: 1204, Allowed: 1204, Verdicts: map[string]int64{"match_allow": 1204},
			Answer: "ready", UpTo: 100, Why: "24 clean runs", Raise: demo.Raise{Text: "YES, to 100%", Mood: demo.Good}, InEffect: "0 of 24",
		},
		"billing": {
			Requests: 902, Allowed: 902, WouldBreakRuns: 6,
			Verdicts: map[string]int64{"match_allow": 596, "would_break": 306}, Reasons: map[identity.Reason]int64{"aud_mismatch": 306},
			Answer: "blocked", Why: "aud_mismatch in svc-billing / UsersPipeline, 6 runs", Raise: demo.Raise{Text: "NO", Mood: demo.Bad}, InEffect: "0 of 18",
			News: []string{"billing asks for 10%: pending, aud_mismatch in svc-billing / UsersPipeline, 6 runs (team)"},
		},
		"search": {
			Requests: 1050, Allowed: 1050, NoTokenRuns: 21, Verdicts: map[string]int64{"no_token": 1050},
			Answer: "waiting", Why: "0% of runs sent a token, 99% needed", Raise: demo.Raise{Text: "WAIT", Mood: demo.Patient}, InEffect: "0 of 21",
		},
		"ml-platform": {
			Percent: 50, Requests: 998, Allowed: 996, Refused: 2, NoTokenRuns: 1, RefusedRuns: 2,
			Reasons: map[identity.Reason]int64{"legacy_refused": 2},
			Answer:  "held", UpTo: 50, Why: "rolled back, automatic: 2 known accounts refused: svc-ml, svc-ml-batch",
			Raise: demo.Raise{Text: "HELD", Mood: demo.Bad}, InEffect: "~11 of 20",
		},
	}}
}

func fullScreen(out *strings.Builder) demo.ScreenOptions {
	return demo.ScreenOptions{
		Out:       out,
		Addresses: []demo.Address{{"console", "http://127.0.0.1:8081/"}, {"metrics", "http://127.0.0.1:9091/metrics"}},
		Intro:     []string{"Recorded Luigi traffic, in-process Redis, built-in identity provider.", "Scaled: 14 days = 20 s."},
		Footer: []string{
			"You are the team lead now. Edit and save, then watch this table:",
			"   crossfade-demo/rollout.d/data-eng.yaml       percent: 0   ->   percent: 50",
			"Try it:  curl -u svc-etl:legacy-pass http://127.0.0.1:8080/api/task_list",
			"Ctrl-C ends.",
		},
		Teams: []identity.Team{"data-eng", "billing", "search", "ml-platform", "data-eng", "retired"},
	}
}

// sized gives a terminal a size.
func sized(columns, rows int) func() (int, int) { return func() (int, int) { return columns, rows } }

func draw(t *testing.T, o demo.ScreenOptions, out *strings.Builder) string {
	t.Helper()
	screen := demo.NewScreen(o)
	if err := screen.Draw(demo.Summary{Teams: map[identity.Team]demo.TeamSummary{"data-eng": {}}}, 400*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := screen.Draw(fourTeams(), 61*time.Minute+7*time.Second); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestScreenAsPlainBlocks(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	o := fullScreen(&out)
	o.Color = true // of no effect on what is no terminal
	golden(t, "screen-plain.golden", draw(t, o, &out))
}

func TestScreenOnATerminal(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	o := fullScreen(&out)
	o.Terminal = true
	golden(t, "screen-terminal.golden", strings.ReplaceAll(draw(t, o, &out), "\x1b", "<ESC>"))
}

func TestScreenOnTerminalsOfSomeSizes(t *testing.T) {
	t.Parallel()
	for name, size := range map[string][2]int{"80": {80, 24}, "100": {100, 30}, "120": {120, 40}, "160": {160, 40}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			o := fullScreen(&out)
			o.Terminal, o.Size = true, sized(size[0], size[1])
			shown := draw(t, o, &out)
			for line := range strings.SplitSeq(controls.ReplaceAllString(shown, ""), "\n") {
				if n := len([]rune(line)); n > size[0] {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			golden(t, "screen-terminal-"+name+".golden", strings.ReplaceAll(shown, "\x1b", "<ESC>"))
		})
	}
}

// controls are the sequences that the screen uses.
var controls = regexp.MustCompile("\x1b\\[[0-9]*[A-Za-z]")

func TestAScreenIsNeverHigherThanItsTerminal(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{1, 2, 5, 12, 20, 24, 60} {
		var out strings.Builder
		o := fullScreen(&out)
		o.Terminal, o.Size = true, sized(80, rows)
		screen := demo.NewScreen(o)
		screen.Notice("search.yaml:1: percent: must be a whole number\nThe team stays as it is.")
		if err := screen.Draw(fourTeams(), time.Minute); err != nil {
			t.Fatal(err)
		}
		shown := out.String()
		if n := strings.Count(shown, "\n"); n >= rows {
			t.Errorf("%d rows: %d lines", rows, n)
		}
		// The mistake is younger than what stands there all the time.
		if rows >= 24 && !strings.Contains(shown, "The team stays as it is.") {
			t.Errorf("%d rows: the notice is cut off:\n%s", rows, shown)
		}
		if rows >= 24 && !strings.Contains(shown, "Ctrl-C ends.") {
			t.Errorf("%d rows: nobody learns how to end:\n%s", rows, shown)
		}
		if rows == 60 && !strings.Contains(shown, "Try it:") {
			t.Errorf("the footer is cut off:\n%s", shown)
		}
	}
}

func TestScreenOnATerminalInColor(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	o := fullScreen(&out)
	o.Terminal, o.Color = true, true
	colored := draw(t, o, &out)
	golden(t, "screen-color.golden", strings.ReplaceAll(colored, "\x1b", "<ESC>"))

	var gray strings.Builder
	o.Out, o.Color = &gray, false
	uncolored := draw(t, o, &gray)
	for _, sequence := range []string{"\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m"} {
		colored = strings.ReplaceAll(colored, sequence, "")
	}
	if diff := cmp.Diff(uncolored, colored); diff != "" {
		t.Errorf("color changes more than color (-without +with):\n%s", diff)
	}
}

func TestScreenTeamsNobodyListedFollowByNameAndCannotSteerTheTerminal(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	screen := demo.NewScreen(demo.ScreenOptions{Out: &out, Teams: []identity.Team{"zeta"}})
	err := screen.Draw(demo.Summary{Teams: map[identity.Team]demo.TeamSummary{
		"beta": {Requests: 1234567}, "zeta": {}, "a-team-with-a-long-name\x1b[2J": {},
	}}, -time.Second)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "screen-unlisted.golden", out.String())
}

func TestScreenReportsThatItCannotWrite(t *testing.T) {
	t.Parallel()
	err := demo.NewScreen(demo.ScreenOptions{Out: brokenPipe{}}).Draw(demo.Summary{}, 0)
	if !errors.Is(err, os.ErrClosed) {
		t.Errorf("error = %v", err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestTerminalOfAFileIsNeitherRedrawnNorColored(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if terminal, color := demo.TerminalOf(f, func(string) string { return "" }); terminal || color {
		t.Errorf("terminal %v, color %v", terminal, color)
	}
}

func TestSummaryJSON(t *testing.T) {
	t.Parallel()
	got, err := json.MarshalIndent(fourTeams(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "summary.golden.json", string(got)+"\n")
	empty, err := json.Marshal(demo.Summary{})
	if err != nil {
		t.Fatal(err)
	}
	if string(empty) != `{"teams":{}}` {
		t.Errorf("an empty summary is %s", empty)
	}
}

func TestANoticeStandsBelowTheTableOnATerminalAlone(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		var out bytes.Buffer
		screen := demo.NewScreen(demo.ScreenOptions{Out: &out, Terminal: terminal, Footer: []string{"Ctrl-C ends."}})
		draw := func(notice string) string {
			t.Helper()
			out.Reset()
			screen.Notice(notice)
			if err := screen.Draw(demo.Summary{}, 0); err != nil {
				t.Fatal(err)
			}
			return out.String()
		}
		shown := draw("search.yaml:1: percent must be\x1b[2J a number")
		if got := strings.Contains(shown, "search.yaml:1"); got != terminal {
			t.Errorf("terminal %t: the notice is shown: %t", terminal, got)
		}
		if strings.Contains(shown, "be\x1b[2J") {
			t.Error("the notice steers the terminal")
		}
		if strings.Contains(draw(""), "search.yaml") {
			t.Error("an empty notice leaves the last one")
		}
	}
}
