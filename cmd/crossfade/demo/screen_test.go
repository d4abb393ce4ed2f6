package demo_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
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
		"data-eng": {Requests: 1204, Allowed: 1204, Runs: 24, Verdicts: map[string]int64{"match_allow": 1204}},
		"billing": {
			Requests: 902, Allowed: 902, Runs: 18, WouldBreakRuns: 6,
			Verdicts: map[string]int64{"match_allow": 596, "would_break": 306}, Reasons: map[identity.Reason]int64{"aud_mismatch": 306},
		},
		"search": {Requests: 1050, Allowed: 1050, Runs: 21, NoTokenRuns: 21, Verdicts: map[string]int64{"no_token": 1050}},
		"ml-platform": {
			Percent: 50, Requests: 998, Allowed: 996, Refused: 2, Runs: 20, EnforcedRuns: 11, NoTokenRuns: 1, RefusedRuns: 2,
			Reasons: map[identity.Reason]int64{"legacy_refused": 2},
		},
	}}
}

func fullScreen(out *strings.Builder) demo.ScreenOptions {
	return demo.ScreenOptions{
		Out:       out,
		Addresses: []demo.Address{{"gateway", "http://127.0.0.1:8080/"}, {"metrics", "http://127.0.0.1:9091/metrics"}},
		Intro:     []string{"Recorded Luigi traffic, in-process Redis, built-in identity provider."},
		Footer:    []string{"You are the team lead now. Edit and save, then watch this table:", "   rollout.d/data-eng.yaml       percent: 0   ->   percent: 50", "Ctrl-C ends."},
		Teams:     []identity.Team{"data-eng", "billing", "search", "ml-platform", "data-eng", "retired"},
	}
}

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
	for _, sequence := range []string{"\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[33m"} {
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
