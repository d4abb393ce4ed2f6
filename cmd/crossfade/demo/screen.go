package demo

import (
	"bytes"
	"cmp"
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
	// Size returns how many columns and rows the terminal has now, 0 where that is
	// not known; nil for never. It is not asked without Terminal.
	Size func() (columns, rows int)
	// Color marks what deserves a look. It is ignored without Terminal.
	Color bool
	// Addresses stand in the first line, in this order.
	Addresses []Address
	// Intro are sentences above the table, Footer lines below.
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

// SizeOf returns what tells the size of a terminal.
func SizeOf(f *os.File) func() (columns, rows int) {
	return func() (columns, rows int) {
		columns, rows, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 0, 0
		}
		return columns, rows
	}
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
	green       = "\x1b[32m"
	yellow      = "\x1b[33m"
	plain       = "\x1b[0m"
)

// Draw shows the summary after some time of running. All of it is written at
// once, so that a redraw does not flicker.
func (s *Screen) Draw(summary Summary, elapsed time.Duration) error {
	first := !s.drawn
	s.drawn = true
	width, height := 0, 0
	if s.o.Terminal && s.o.Size != nil {
		width, height = s.o.Size()
	}
	around := first || s.o.Terminal
	lines := s.title(elapsed, around, width)
	if around {
		lines = append(lines, flowing(s.o.Intro, " ", width)...)
		lines = append(lines, "")
	}
	lines = append(lines, s.table(summary, width)...)
	lines = append(lines, s.news(summary, width)...)
	var footer, notice []string
	if around && len(s.o.Footer) > 0 {
		footer = append(footer, "")
		for _, line := range s.o.Footer {
			footer = append(footer, wrapped(line, width)...)
		}
	}
	if s.o.Terminal && s.notice != "" {
		notice = append(notice, "")
		for line := range strings.SplitSeq(s.notice, "\n") {
			for _, part := range wrapped(printable(line), width) {
				notice = append(notice, s.paint(red, part))
			}
		}
	}
	if height > 0 { // what scrolls out at the top cannot be drawn over
		footer = shortened(footer, height-1-len(lines)-len(notice))
	}
	lines = slices.Concat(lines, footer, notice)
	if height > 0 {
		lines = lines[:min(len(lines), max(height-1, 0))]
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

// shortened leaves lines out before the last one, which says how to end.
func shortened(lines []string, room int) []string {
	if len(lines) <= room {
		return lines
	}
	if room < 1 {
		return nil
	}
	return append(slices.Clone(lines[:room-1]), lines[len(lines)-1])
}

// title is the first line: what this is, since when, and where to look.
func (s *Screen) title(elapsed time.Duration, addresses bool, width int) []string {
	const name = "crossfade demo"
	seconds := int(max(elapsed, 0) / time.Second)
	parts := []string{fmt.Sprintf("%s  %02d:%02d", name, seconds/60, seconds%60)}
	if addresses {
		for _, a := range s.o.Addresses {
			parts = append(parts, a.Name+" "+a.URL)
		}
	}
	lines := flowing(parts, "     ", width)
	lines[0] = s.paint(bold, name) + strings.TrimPrefix(lines[0], name)
	return lines
}

// news are the lines about teams below the table.
func (s *Screen) news(summary Summary, width int) []string {
	var lines []string
	for _, name := range s.order(summary) {
		for _, line := range summary.Teams[name].News {
			lines = append(lines, wrapped(printable(line), width)...)
		}
	}
	if len(lines) > 0 {
		lines = append([]string{""}, lines...)
	}
	return lines
}

// column is one of the table.
type column struct {
	heading string
	narrow  string // heading where there is little room; "" for the same
	left    bool   // aligned; else right
}

// columns are those of the table; the reason follows where there is room
// for it, else it stands below.
var columns = [...]column{
	{heading: "TEAM", left: true},
	{heading: "OIDC-ONLY"},
	{heading: "IN EFFECT"},
	{heading: "REQUESTS"},
	{heading: "WOULD BREAK", narrow: "BREAK"},
	{heading: "NO TOKEN"},
	{heading: "REFUSED"},
	{heading: "RAISE?", left: true},
}

// The least widths of columns that would else move as numbers grow, and of the
// reason to stand in the table.
const (
	teamWidth   = 11
	effectWidth = 9
	countWidth  = 8
	raiseWidth  = 12
	whyWidth    = 18
)

// cell is one of the table, with its color; "" for none.
type cell struct{ text, color string }

func (s *Screen) table(summary Summary, width int) []string {
	names := s.order(summary)
	rows := make([][]cell, len(names))
	for i, name := range names {
		rows[i] = cells(name, summary.Teams[name])
	}
	widths := func(narrow bool) (of [len(columns)]int, all int) {
		of = [len(columns)]int{0: teamWidth, 2: effectWidth, 3: countWidth, 4: countWidth, 7: raiseWidth}
		for i, c := range columns {
			of[i] = max(of[i], len(c.name(narrow)))
			for _, row := range rows {
				of[i] = max(of[i], len([]rune(row[i].text)))
			}
			all += of[i]
		}
		return of, all
	}
	gap, narrow := 2, false
	of, all := widths(false)
	if width > 0 && all+gap*(len(columns)-1) > width {
		gap, narrow = 1, true
		of, all = widths(true)
	}
	beside := width <= 0 || !narrow && all+gap*len(columns)+whyWidth <= width
	heading := make([]cell, len(columns))
	for i, c := range columns {
		heading[i].text = c.name(narrow)
	}
	line := func(row []cell) string {
		var b strings.Builder
		for i, c := range row {
			text := fmt.Sprintf("%*s", of[i], c.text)
			if columns[i].left {
				text = fmt.Sprintf("%-*s", of[i], c.text)
			}
			if i > 0 {
				b.WriteString(strings.Repeat(" ", gap))
			}
			if c.color != "" {
				text = s.paint(c.color, text)
			}
			b.WriteString(text)
		}
		return b.String()
	}
	room := max(width-all-gap*len(columns), 0)
	head := line(heading)
	if beside {
		head += strings.Repeat(" ", gap) + "WHY"
	} else {
		head = strings.TrimRight(head, " ")
	}
	lines := []string{s.paint(bold, head)}
	var below []string
	for i, name := range names {
		why := printable(summary.Teams[name].Why)
		text := line(rows[i])
		switch {
		case why == "" || !beside:
			text = strings.TrimRight(text, " ")
		case width <= 0:
			text += strings.Repeat(" ", gap) + why
		default:
			text += strings.Repeat(" ", gap) + clipped(why, room)
		}
		lines = append(lines, text)
		if why != "" && !beside {
			below = append(below, clipped(fmt.Sprintf("%-*s %s", of[0], rows[i][0].text, why), width))
		}
	}
	if len(below) > 0 {
		lines = append(lines, "")
	}
	return append(lines, below...)
}

func (c column) name(narrow bool) string {
	if narrow && c.narrow != "" {
		return c.narrow
	}
	return c.heading
}

// cells are a team's, in the order of columns.
func cells(name identity.Team, team TeamSummary) []cell {
	row := []cell{
		{printable(string(name)), ""},
		{strconv.Itoa(team.Percent) + "%", ""},
		{printable(cmp.Or(team.InEffect, "-")), ""},
		{thousands(team.Requests), ""},
		{runs(team.WouldBreakRuns), red},
		{runs(team.NoTokenRuns), yellow},
		{runs(team.RefusedRuns), red},
		{printable(cmp.Or(team.Raise.Text, "-")), [...]string{Neutral: "", Good: green, Patient: yellow, Bad: red}[team.Raise.Mood]},
	}
	for i, c := range row {
		if c.text == "0" {
			row[i].color = ""
		}
	}
	return row
}

// clipped is a text in at most so many columns of the terminal.
func clipped(text string, width int) string {
	letters := []rune(text)
	if len(letters) <= width || width < 1 {
		return text
	}
	return strings.TrimRight(string(letters[:width-1]), " ") + "…"
}

// flowing puts parts on as few lines as have room for them; 0 is no limit.
func flowing(parts []string, between string, width int) []string {
	var lines []string
	for _, part := range parts {
		last := len(lines) - 1
		if last >= 0 && (width <= 0 || len([]rune(lines[last]+between+part)) <= width) {
			lines[last] += between + part
			continue
		}
		lines = append(lines, part)
	}
	return lines
}

// wrapped breaks a line between words where it would be wider than the terminal;
// 0 is no limit. A word is never broken: it may be an address.
func wrapped(line string, width int) []string {
	var lines []string
	for width > 0 && len([]rune(line)) > width {
		letters := []rune(line)
		at := width
		for at > 0 && letters[at] != ' ' {
			at--
		}
		head := strings.TrimRight(string(letters[:at]), " ")
		if head == "" { // a word that is too long
			break
		}
		lines = append(lines, head)
		line = strings.TrimLeft(string(letters[at:]), " ")
	}
	return append(lines, line)
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
