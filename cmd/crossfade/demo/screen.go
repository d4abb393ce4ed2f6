package demo

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"crossfade/gateway/identity"
)

// ScreenOptions say what stands around the table and how it is drawn.
type ScreenOptions struct {
	Out io.Writer
	// Terminal redraws in place with ANSI control sequences (ECMA-48);
	// otherwise every drawing is a block of its own, the lines around the
	// table only with the first.
	Terminal bool
	// Color marks what deserves a look. It is ignored without Terminal.
	Color bool
	// Addresses stand in the first line, in this order.
	Addresses []Address
	// Intro stands above the table, Footer below.
	Intro, Footer []string
	// Teams orders the rows; teams that are not listed follow by name.
	Teams []identity.Team
}

// Address is a service and where it is.
type Address struct{ Name, URL string }

// Screen draws the demo's live table. Not for use by several goroutines.
type Screen struct {
	o      ScreenOptions
	drawn  bool
	notice string
}

// NewScreen returns a screen that has drawn nothing yet.
func NewScreen(o ScreenOptions) *Screen { return &Screen{o: o} }

// TerminalOf tells how to draw on f: whether it can be redrawn, and whether in
// color. A non-empty NO_COLOR forbids color (https://no-color.org), TERM=dumb
// forbids both. getenv is usually os.Getenv.
func TerminalOf(f *os.File, getenv func(string) string) (terminal, color bool) {
	terminal = getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
	return terminal, terminal && getenv("NO_COLOR") == ""
}

// Notice stands below everything from the next drawing on, until it is replaced
// or emptied; line breaks begin lines. It is for terminals alone, where a line
// that somebody else writes is drawn over.
func (s *Screen) Notice(text string) { s.notice = text }

// The control sequences of ECMA-48 that are used.
const (
	clearScreen = "\x1b[2J"
	cursorHome  = "\x1b[H"
	clearLine   = "\x1b[K" // to the end of the line
	clearBelow  = "\x1b[J"
	bold        = "\x1b[1m"
	red         = "\x1b[31m"
	yellow      = "\x1b[33m"
	plain       = "\x1b[0m"
)

// Draw shows the summary after some time of running. All of it is written at
// once, so that a redraw does not flicker.
func (s *Screen) Draw(summary Summary, elapsed time.Duration) error {
	first := !s.drawn
	s.drawn = true
	lines := []string{s.title(elapsed, first || s.o.Terminal)}
	around := first || s.o.Terminal
	if around {
		lines = append(lines, s.o.Intro...)
		lines = append(lines, "")
	}
	lines = append(lines, s.table(summary)...)
	if around && len(s.o.Footer) > 0 {
		lines = append(lines, "")
		lines = append(lines, s.o.Footer...)
	}
	if s.o.Terminal && s.notice != "" {
		lines = append(lines, "")
		for line := range strings.SplitSeq(s.notice, "\n") {
			lines = append(lines, s.paint(red, printable(line)))
		}
	}

	var out bytes.Buffer
	if s.o.Terminal {
		if first {
			out.WriteString(clearScreen)
		}
		out.WriteString(cursorHome)
		for _, line := range lines {
			out.WriteString(line + clearLine + "\n")
		}
		out.WriteString(clearBelow)
	} else {
		if !first {
			out.WriteByte('\n')
		}
		for _, line := range lines {
			out.WriteString(line + "\n")
		}
	}
	if _, err := s.o.Out.Write(out.Bytes()); err != nil {
		return fmt.Errorf("draw the table: %w", err)
	}
	return nil
}

// title is the first line: what this is, since when, and where to look.
func (s *Screen) title(elapsed time.Duration, addresses bool) string {
	seconds := int(max(elapsed, 0) / time.Second)
	line := s.paint(bold, "crossfade demo") + fmt.Sprintf("  %02d:%02d", seconds/60, seconds%60)
	if addresses {
		for _, a := range s.o.Addresses {
			line += "     " + a.Name + " " + a.URL
		}
	}
	return line
}

// columns are the table's headings and the width of each column; the first is
// as wide as the longest team needs.
var columns = [...]struct {
	heading string
	width   int
}{
	{"TEAM", 11}, {"OIDC-ONLY", 9}, {"IN EFFECT", 9}, {"REQUESTS", 8}, {"WOULD BREAK", 11}, {"NO TOKEN", 8}, {"REFUSED", 7},
}

const gap = "  "

func (s *Screen) table(summary Summary) []string {
	names := s.order(summary)
	first := columns[0].width
	for _, name := range names {
		first = max(first, len([]rune(string(name))))
	}
	heading := fmt.Sprintf("%-*s", first, columns[0].heading)
	for _, c := range columns[1:] {
		heading += gap + fmt.Sprintf("%*s", c.width, c.heading)
	}
	lines := []string{s.paint(bold, heading)}
	for _, name := range names {
		team := summary.Teams[name]
		cells := [...]struct{ text, color string }{
			{strconv.Itoa(team.Percent) + "%", ""},
			{fmt.Sprintf("%d of %d", team.EnforcedRuns, team.Runs), ""},
			{thousands(team.Requests), ""},
			{runs(team.WouldBreakRuns), red},
			{runs(team.NoTokenRuns), yellow},
			{runs(team.RefusedRuns), red},
		}
		line := fmt.Sprintf("%-*s", first, printable(string(name)))
		for i, cell := range cells {
			text := fmt.Sprintf("%*s", columns[i+1].width, cell.text)
			if cell.color != "" && cell.text != "0" {
				text = s.paint(cell.color, text)
			}
			line += gap + text
		}
		lines = append(lines, line)
	}
	return lines
}

// order lists the teams of a summary as the options want them.
func (s *Screen) order(summary Summary) []identity.Team {
	var names []identity.Team
	for _, name := range s.o.Teams {
		if _, ok := summary.Teams[name]; ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(summary.Teams)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (s *Screen) paint(color, text string) string {
	if !s.o.Color || !s.o.Terminal {
		return text
	}
	return color + text + plain
}

// runs counts runs, so that nobody takes them for requests.
func runs(n int) string {
	switch n {
	case 0:
		return "0"
	case 1:
		return "1 run"
	default:
		return thousands(int64(n)) + " runs"
	}
}

// thousands writes a number that is not negative with commas.
func thousands(n int64) string {
	digits := strconv.FormatInt(n, 10)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// printable keeps control characters from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
