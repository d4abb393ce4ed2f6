package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"crossfade/gateway/console"
	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

// pageWidth is the width in columns that lines for people are broken at.
const pageWidth = 96

// teamPage is a team's report for people: the answer first, then why, then who
// acts and what to do.
type teamPage struct {
	console.Readiness
	// whatIf tells that the outlook was asked about, and is the answer.
	whatIf bool
}

// headline is the answer in a sentence.
func (p teamPage) headline() string {
	r, o := p.Report, p.Outlook
	if p.whatIf {
		word := "YES"
		switch {
		case o.Allowed:
		case r.Answer == readiness.Ready: // but not so far
			word = "NO"
		default:
			word = answerWord(r.Answer)
		}
		return fmt.Sprintf("%s at %s%%: %s. %s", r.Team, o.Percent, word, sentence(o.Why))
	}
	word := answerWord(r.Answer)
	switch full := r.Percent >= rollout.Full; {
	case r.Answer == readiness.Ready && full:
		return fmt.Sprintf("%s: %s. Its static credentials can end for good: %s.", r.Team, word, printable(r.Why))
	case r.Answer == readiness.Ready:
		return fmt.Sprintf("%s: %s. You may raise to any value up to %s%%.", r.Team, word, r.UpTo)
	case r.Answer == readiness.Waiting && full:
		return fmt.Sprintf("%s: %s (retire). %s", r.Team, word, sentence(r.Why))
	default:
		return fmt.Sprintf("%s: %s. %s", r.Team, word, sentence(r.Why))
	}
}

// next is who acts, or where.
func (p teamPage) next() string {
	r := p.Report
	owner := r.Owner
	if p.whatIf {
		owner = p.Outlook.Owner
	}
	change := fmt.Sprintf("%s: percent: %s", p.File, min(p.Outlook.Percent, max(r.UpTo, r.Percent)))
	switch {
	case p.whatIf && p.Outlook.Allowed && p.Outlook.Percent != r.Percent && p.File != "":
		return change
	case p.whatIf && (p.Outlook.Allowed || owner == ""):
		return ""
	case owner != "":
		return "Who acts: " + whose(owner, r.Team)
	case r.Answer == readiness.Ready && r.Percent >= rollout.Full:
		return "crossfade rollout retire " + string(r.Team)
	case r.Answer == readiness.Ready && p.File != "":
		return change
	default:
		return ""
	}
}

// whose says whose job something is.
func whose(owner identity.Owner, team identity.Team) string {
	switch owner {
	case identity.OwnerTeam:
		return "team " + string(team)
	case identity.OwnerPlatform:
		return "the platform team"
	case identity.OwnerIDP:
		return "the identity provider"
	case identity.OwnerSecurity:
		return "security"
	default:
		return string(owner)
	}
}

// facts are the few lines below the headline, each with its name.
func (p teamPage) facts() (lines [][2]string) {
	r := p.Report
	asked := "live"
	if r.Requested != nil && *r.Requested == r.Percent {
		asked = "asked"
	}
	now := fmt.Sprintf("%s%% %s", r.Percent, asked)
	if r.InEffect.Runs > 0 {
		when := "on " + string(r.InEffect.Day)
		switch today := evidence.DayOf(r.At); r.InEffect.Day {
		case today.Before():
			when = "yesterday"
		case today:
			when = "today"
		}
		about := ""
		if r.InEffect.Estimated {
			about = "about "
		}
		now += fmt.Sprintf(", %s%d of %s %s (%s)", about, r.InEffect.Selected, readiness.Counted(r.InEffect.Runs, "run"), when, readiness.Ratio(r.InEffect.Ratio()))
		if r.InEffect.Observed {
			now += "; the gateways were in mode observe, which enforces nothing"
		}
	}
	lines = append(lines, [2]string{"now", now})
	if r.Requested != nil && *r.Requested != r.Percent {
		lines = append(lines, [2]string{"asked", fmt.Sprintf("%s%%, which %s", *r.Requested, waits(r))})
	}
	if o := p.Outlook; o.Percent != r.Percent && r.Answer != readiness.Done {
		text := o.Text()
		if r.Census && o.Of > 0 && o.Percent > r.Percent {
			text += "; too few runs to say how many may break"
		}
		if r.Answer == readiness.Ready && !o.Allowed && !p.whatIf {
			text += "; " + o.Why
		}
		lines = append(lines, [2]string{fmt.Sprintf("at %s%%", o.Percent), text})
	}
	if r.Wait > 0 && r.Answer != readiness.Ready {
		lines = append(lines, [2]string{"wait", fmt.Sprintf("about %s at the current rate", readiness.About(r.Wait))})
	}
	return lines
}

// waits says what becomes of a request that is not met.
func waits(r readiness.Report) string {
	switch {
	case r.Answer == readiness.Held:
		return "waits for the hold"
	case *r.Requested <= r.UpTo:
		return "the checks allow"
	default:
		return "waits for its checks"
	}
}

// checks are the groups of them, first those that the question now is about.
func (p teamPage) checks() [][]readiness.Check {
	all := [][]readiness.Check{p.Report.Retire, p.Report.Checks}
	return slices.DeleteFunc(all, func(group []readiness.Check) bool { return len(group) == 0 })
}

// checkTable is a group of checks as rows.
func checkTable(checks []readiness.Check) table {
	t := table{{"", "CHECK", "HAVE", "NEED", ""}}
	for _, c := range checks {
		mark, acts := "ok", ""
		if !c.Pass {
			mark, acts = "!!", string(c.Owner)
			switch {
			case acts == "" && c.Wait > 0:
				acts = "about " + readiness.About(c.Wait)
			case acts == "":
				acts = "takes time"
			}
		}
		t = append(t, []string{mark, c.Name.Title(), printable(c.Have), printable(c.Need), acts})
	}
	if !slices.ContainsFunc(checks, func(c readiness.Check) bool { return !c.Pass }) {
		for i := range t {
			t[i] = t[i][:4]
		}
	} else {
		t[0][4] = "WHO ACTS, OR HOW LONG"
	}
	return t
}

// open and closed are the failures that are in the way, and those that are not any
// more.
func (p teamPage) failures() (open, closed []readiness.Failure) {
	for _, f := range p.Report.Failures {
		if f.Open {
			open = append(open, f)
		} else {
			closed = append(closed, f)
		}
	}
	return open, closed
}

// maxFailures is how many open failures a page shows in full: a team that sends no
// tokens yet has one for each of its pipelines.
const maxFailures = 20

// few returns the first of the failures, and a sentence about the others; "" if there
// are none.
func few(all []readiness.Failure) (shown []readiness.Failure, more string) {
	if len(all) <= maxFailures {
		return all, ""
	}
	return all[:maxFailures], fmt.Sprintf("Not shown: %s. -o json lists all.", readiness.Counted(len(all)-maxFailures, "failure"))
}

// failed says of a failure where it is and how often it came.
func failed(f readiness.Failure) (where, often string) {
	where = f.Account
	if f.Pipeline != "" {
		where += " / " + f.Pipeline
	}
	return printable(where), readiness.Counted(f.Runs, "run")
}

// reasonOf names what went wrong: a security signal by its verdict, too.
func reasonOf(f readiness.Failure) string {
	if f.Owner == identity.OwnerSecurity && f.Verdict != string(f.Reason) {
		return f.Verdict + ": " + string(f.Reason)
	}
	return string(f.Reason)
}

// advised are the lines below a failure: what was wrong, and what to do.
func advised(f readiness.Failure) (lines [][2]string) {
	if f.Detail != "" {
		lines = append(lines, [2]string{"", sentence(f.Detail)})
	}
	lines = append(lines, [2]string{"Do:", f.Advice})
	lines = append(lines, [2]string{"Closes:", strings.TrimRight(f.Closes, ".") + "."})
	if f.TraceID != "" {
		lines = append(lines, [2]string{"Trace:", f.TraceID})
	}
	return lines
}

// text writes the page for a terminal.
func (p teamPage) text(w io.Writer) error {
	var b strings.Builder
	head, next := p.headline(), p.next()
	switch n := utf8.RuneCountInString(head); {
	case next == "":
		b.WriteString(broken(head, 0))
	case max(n+2, 59)+utf8.RuneCountInString(next) <= pageWidth:
		fmt.Fprintf(&b, "%-57s  %s\n", head, next)
	default:
		b.WriteString(broken(head, 0))
		fmt.Fprintf(&b, "%s\n", next)
	}
	b.WriteByte('\n')
	for _, line := range p.facts() {
		b.WriteString(broken(fmt.Sprintf("  %-8s  %s", line[0], line[1]), 12))
	}
	open, closed := p.failures()
	shown, more := few(open)
	for i, f := range shown {
		where, often := failed(f)
		fmt.Fprintf(&b, "\n  %d  %s   %s   %s   last %s\n", i+1, reasonOf(f), where, often, ago(p.Report.At.Sub(f.Last)))
		for _, line := range advised(f) {
			text := line[1]
			hang := 5
			if line[0] != "" {
				text, hang = fmt.Sprintf("%-8s%s", line[0], text), 13
			}
			b.WriteString(broken("     "+printable(text), hang))
		}
	}
	if more != "" {
		b.WriteString(broken("\n     "+more, 5))
	}
	for _, checks := range p.checks() {
		b.WriteByte('\n')
		var rows strings.Builder
		if err := checkTable(checks).text(&rows); err != nil {
			return err
		}
		for line := range strings.Lines(rows.String()) {
			b.WriteString("  " + strings.TrimRight(line, " \n") + "\n")
		}
	}
	for i, f := range closed {
		if i == 0 {
			b.WriteString("\n  Closed:\n")
		}
		where, often := failed(f)
		b.WriteString(broken(fmt.Sprintf("  %s   %s   %s, %s", reasonOf(f), where, often, printable(f.Closes)), 4))
	}
	for i, warning := range p.Report.Warnings {
		if i == 0 {
			b.WriteByte('\n')
		}
		b.WriteString(broken("  Mind: "+printable(warning)+".", 8))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// markdown writes the page for a pull request.
func (p teamPage) markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n", marked(p.headline()))
	if next := p.next(); next != "" {
		fmt.Fprintf(&b, "%s\n\n", marked(next))
	}
	for _, line := range p.facts() {
		fmt.Fprintf(&b, "- %s: %s\n", line[0], marked(line[1]))
	}
	open, closed := p.failures()
	shown, more := few(open)
	for i, f := range shown {
		where, often := failed(f)
		fmt.Fprintf(&b, "\n%d. **%s** %s, %s, last %s\n", i+1, marked(reasonOf(f)), marked(where), often, ago(p.Report.At.Sub(f.Last)))
		for _, line := range advised(f) {
			fmt.Fprintf(&b, "   - %s\n", marked(strings.TrimSpace(line[0]+" "+line[1])))
		}
	}
	if more != "" {
		fmt.Fprintf(&b, "\n%s\n", more)
	}
	for _, checks := range p.checks() {
		b.WriteByte('\n')
		t := checkTable(checks)
		for _, row := range t {
			for i := range row {
				row[i] = marked(row[i])
			}
		}
		if err := t.markdown(&b); err != nil {
			return err
		}
	}
	for i, f := range closed {
		if i == 0 {
			b.WriteString("\nClosed:\n\n")
		}
		where, often := failed(f)
		fmt.Fprintf(&b, "- %s, %s, %s: %s\n", marked(reasonOf(f)), marked(where), often, marked(f.Closes))
	}
	for i, warning := range p.Report.Warnings {
		if i == 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "- Mind: %s.\n", marked(warning))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// sentence makes a phrase one.
func sentence(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	if size == 0 {
		return ""
	}
	// A word of the closed list, an account or a pipeline keeps its spelling.
	if word, _, _ := strings.Cut(text, " "); !strings.ContainsAny(word, "_-.:/") {
		text = string(unicode.ToUpper(first)) + text[size:]
	}
	return strings.TrimRight(printable(text), ".") + "."
}

// printable takes out of a text what a terminal would obey: names of pipelines are
// the clients' own.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}

// marked keeps a text from being read as Markdown or HTML. table.markdown sees to
// the bars.
func marked(text string) string {
	return markdownText.Replace(printable(text))
}

var markdownText = strings.NewReplacer(
	`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "<", "&lt;", ">", "&gt;", "#", `\#`, "~", `\~`,
)

// broken breaks a text at the width of a page, the lines after the first one indented.
func broken(text string, indent int) string {
	var b strings.Builder
	for {
		runes := []rune(text)
		if len(runes) <= pageWidth {
			b.WriteString(strings.TrimRight(text, " ") + "\n")
			return b.String()
		}
		at := pageWidth
		for i := pageWidth; i > indent; i-- {
			if runes[i] == ' ' {
				at = i
				break
			}
		}
		b.WriteString(strings.TrimRight(string(runes[:at]), " ") + "\n")
		text = strings.Repeat(" ", indent) + strings.TrimLeft(string(runes[at:]), " ")
	}
}
