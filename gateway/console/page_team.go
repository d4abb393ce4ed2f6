package console

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/assess"
	"crossfade/rollout/effect"
	"crossfade/rollout/evidence"
	"crossfade/rollout/readiness"
)

// steps are the percentages that a team's page offers to look at.
var steps = [...]rollout.Percent{10, 25, 50, 75, 100}

// The bounds of what a team's page shows.
const (
	shownDays    = 14
	shownChanges = 20
	maxFailures  = 50 // of those that are open, and of the others
	barHeight    = 36 // of the day with most that would break
	flat         = 2  // of one with nothing
)

// teamView is the page of a team.
type teamView struct {
	Team            identity.Team
	Badge           badge
	Headline, Who   string
	Bar             bar
	InEffect, Asked string
	Missing         string
	Hold            *holdView
	Brownout        string
	Management      string
	Steps           []stepView
	Outlook         outlookView
	Line            lineView
	Groups          []checkGroup
	// Open and Closed are the first of the failures, AllOpen and AllClosed how many
	// there are.
	Open, Closed       []failureView
	AllOpen, AllClosed int
	Accounts           []accountView
	Warnings           []string
	Days               []dayView
	DaysKnown          bool
	DaysText           string
	DaysHeight         int
	History            []changeView
	Earlier            string // the address of the page with all changes; "" if it shows them
	HistoryMissing     string
	Runs, RunsADay     string
	Window             string
}

// holdView is a hold that is in force.
type holdView struct {
	Reason, By string
	At, Until  moment
}

// stepView is a percentage that may be looked at.
type stepView struct {
	Percent           int
	Current, Selected bool
	Address           string
}

// outlookView says what a percentage would do.
type outlookView struct {
	Percent int
	Text    string
	Allowed bool
	Verdict string
	Lines   []string
}

// lineView is what to write into which file.
type lineView struct{ Lead, File, Text, Note string }

// checkGroup is a list of checks.
type checkGroup struct {
	ID, Title string
	Checks    []readiness.Check
	Pass      int
}

// All tells that each holds.
func (g checkGroup) All() bool { return g.Pass == len(g.Checks) }

// failureView is a way in which runs go wrong.
type failureView struct {
	readiness.Failure
	Last, First moment
	Who         string
	Security    bool
	// Listed tells that the help explains the reason.
	Listed bool
}

// accountView is an account of the team.
type accountView struct {
	readiness.AccountReport
	Legacy, Token moment
	Unused        bool
}

// dayView is a day of the drawing and of the table for who cannot see it.
type dayView struct {
	Day          string
	Runs, Broken int
	X, Y, Height int
}

// changeView is a line of the history.
type changeView struct {
	At                moment
	What, Who, Reason string
	Evidence, Source  string
	Verified          bool
	Revision          int64
	Raised, Lowered   bool
}

func (c *Console) teamPage(r *http.Request) (frame, *problem) {
	if p := c.unread(); p != nil {
		return frame{}, p
	}
	team, p := c.named(r)
	if p != nil {
		p.Do = strings.ReplaceAll(p.Do, Prefix+"teams", "the page of all teams")
		return frame{}, p
	}
	query := r.URL.Query()
	asked := rollout.Percent(0)
	if text := query.Get("percent"); text != "" {
		var err error
		if asked, err = rollout.ParsePercent(text); err != nil {
			return frame{}, refuse(http.StatusBadRequest, parameterInvalid, fmt.Sprintf("percent is %q.", clip(text)), "Use a whole number from 0 to 100.")
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	s := c.standing(ctx, team)
	v := c.teamOf(ctx, s)
	to := nextStep(s.state)
	if query.Has("percent") {
		to = asked
	}
	if !s.state.Retired && team != identity.Unassigned { // which have no next step
		v.Steps = stepsOf(s.state, to, query)
		v.Outlook = c.outlook(ctx, s, to)
		v.Line = lineOf(s, to)
	}
	c.addDays(ctx, &v, team)
	c.addHistory(ctx, &v, team, query)
	f := c.framed(ctx, r, visible(team), "/")
	f.Announce = visible(team) + ": " + v.Headline
	f.Body = v
	return f, nil
}

// nextStep is the percentage that is looked at when nobody says which: the one
// that the team asks for, or the next above the live one.
func nextStep(s rollout.State) rollout.Percent {
	if s.Request.Made() && s.Request.Percent > s.Percent {
		return s.Request.Percent
	}
	for _, p := range steps {
		if p > s.Percent {
			return p
		}
	}
	return rollout.Full
}

func stepsOf(s rollout.State, to rollout.Percent, query url.Values) []stepView {
	all := steps[:]
	found := false
	for _, p := range steps {
		found = found || p == to
	}
	if !found {
		all = append([]rollout.Percent{to}, all...)
	}
	var out []stepView
	for _, p := range all {
		q := url.Values{"percent": {p.String()}}
		if query.Has("still") {
			q.Set("still", "1")
		}
		out = append(out, stepView{Percent: int(p), Selected: p == to, Current: p == s.Percent, Address: "?" + q.Encode()})
	}
	return out
}

// teamOf is what the page says of a team but for what another percentage would
// do, its days and its history.
func (c *Console) teamOf(ctx context.Context, s standing) teamView {
	now, r := c.o.Now(), s.report
	v := teamView{
		Team: s.state.Team, Badge: badgeOf(r), Headline: headline(r), Bar: c.barOf(s.state), Missing: s.missing,
		Who: ownerOf(s.state.Team, r.Owner), Warnings: r.Warnings, Runs: counted(r.Runs, "run"), RunsADay: round(r.RunsADay),
	}
	v.Warnings = append(slices.Clone(v.Warnings), s.file.Warnings...)
	if r.Window > 0 {
		v.Window = short(r.Window)
	}
	switch {
	case v.Who != "":
	case r.Answer == readiness.Ready:
		v.Who = "you, if you lead the team"
	case r.Answer == readiness.Waiting:
		v.Who = "nobody, it takes time"
	}
	v.InEffect = fmt.Sprintf("%s%% must use OIDC", s.state.Percent)
	if share := r.InEffect; share.Runs > 0 {
		v.InEffect += ": " + shareText(share, now)
	}
	if s.state.Request.Made() {
		v.Asked = askedText(s.state, c.step(ctx, s.state))
	}
	if h := s.state.Hold; h.Active(now) {
		v.Hold = &holdView{Reason: h.Reason, By: byWhom(h.Actor, h.Verified), At: moment{h.At, now}, Until: moment{h.Until, now}}
	}
	if s.state.SpentBrownouts(now) {
		v.Brownout = fmt.Sprintf("A brownout would be in force, but the last ones have taken up the %.0f hours that there are for them in 7 days: it enforces nothing.", rollout.MaxBrownout.Hours())
	}
	if w, ok := s.state.Brownout(now); ok {
		v.Brownout = fmt.Sprintf("A brownout is in force: at least %s%% must use OIDC. It ends %s.", w.Percent, moment{w.Until, now}.Ago())
	}
	switch s.file.Management {
	case "", "managed":
	case "unmanaged":
		v.Management = "No file manages this team: its percentage changes by the command line or the API only."
	default:
		v.Management = fmt.Sprintf("%s: %s. What the team asks for is not what its file says.", s.file.Management, s.file.Name)
	}
	v.Groups = append(v.Groups, groupOf("checks-raise", "To raise", r.Checks))
	if len(r.Retire) > 0 {
		v.Groups = append(v.Groups, groupOf("checks-retire", "To retire", r.Retire))
	}
	for _, f := range r.Failures {
		list, all := &v.Closed, &v.AllClosed
		if f.Open {
			list, all = &v.Open, &v.AllOpen
		}
		if *all++; *all <= maxFailures {
			*list = append(*list, c.failureOf(s.state.Team, f))
		}
	}
	for _, a := range r.Accounts {
		v.Accounts = append(v.Accounts, accountView{
			AccountReport: a, Legacy: moment{a.LastLegacy, now}, Token: moment{a.LastToken, now}, Unused: a.State == readiness.Unseen,
		})
	}
	return v
}

func (c *Console) failureOf(team identity.Team, f readiness.Failure) failureView {
	now := c.o.Now()
	_, listed := f.Reason.Info()
	return failureView{
		Listed: listed, Failure: f, Last: moment{f.Last, now}, First: moment{f.First, now}, Who: ownerOf(team, f.Owner), Security: f.Security(),
	}
}

// shareText is a share of the runs of a day in words.
func shareText(share effect.Share, now time.Time) string {
	when := "yesterday"
	switch today := evidence.DayOf(now); share.Day {
	case today.Before():
	case today:
		when = "today"
	default:
		when = "on " + string(share.Day)
	}
	about := ""
	if share.Estimated {
		about = "about "
	}
	text := fmt.Sprintf("%s%s of %s %s (%.0f%%)", about, thousands(share.Selected), counted(share.Runs, "run"), when, 100*share.Ratio())
	if share.Observed {
		text += "; the gateways were in mode observe, which enforces nothing"
	}
	return text
}

// headline is the answer in a sentence.
func headline(r readiness.Report) string {
	full := r.Percent >= rollout.Full
	wait := ""
	if r.Wait > 0 {
		wait = ", about " + short(r.Wait) + " more"
	}
	switch r.Answer {
	case readiness.Ready:
		if full {
			return "YES, you may end its static credentials: " + r.Why
		}
		return fmt.Sprintf("YES, you may raise to %s%%", r.UpTo)
	case readiness.Waiting:
		if full {
			return "WAIT before you retire it: " + r.Why + wait
		}
		return "WAIT: " + r.Why + wait
	case readiness.Blocked:
		return "NO: " + r.Why
	case readiness.Held:
		return "HELD: " + r.Why
	case readiness.Done:
		return "RETIRED: " + r.Why
	default:
		return "NO EVIDENCE"
	}
}

func askedText(s rollout.State, step rollout.Step) string {
	asks := fmt.Sprintf("The team asks for %s%%", s.Request.Percent)
	if s.Request.Retire {
		asks = "The team asks for its retirement"
	}
	if s.Request.Reason != "" {
		asks += fmt.Sprintf(" (%s)", visible(s.Request.Reason))
	}
	switch step.Outcome {
	case rollout.Met:
		return asks + ", which it has."
	case rollout.Pending, rollout.Held, rollout.Closed:
		return fmt.Sprintf("%s: %s, %s.", asks, step.Outcome, step.Why)
	default:
		return fmt.Sprintf("%s: this is about to happen, %s.", asks, step.Why)
	}
}

// byWhom names who did something, and whether that is proven.
func byWhom(actor string, verified bool) string {
	if actor == "" {
		return "somebody"
	}
	if !verified {
		return visible(actor) + " (unverified)"
	}
	return visible(actor)
}

func groupOf(id, title string, checks []readiness.Check) checkGroup {
	g := checkGroup{ID: id, Title: title, Checks: checks}
	for _, check := range checks {
		if check.Pass {
			g.Pass++
		}
	}
	return g
}

// outlook says what a percentage would do to the team.
func (c *Console) outlook(ctx context.Context, s standing, to rollout.Percent) outlookView {
	o := s.report.Outlook(to)
	v := outlookView{Percent: int(to), Allowed: o.Allowed}
	step := rollout.Step{Outcome: rollout.Raise, From: s.state.Percent, To: to}
	switch {
	case to < s.state.Percent:
		step.Outcome = rollout.Lower
		v.Verdict, v.Allowed = "Lowering is always allowed.", true
	case to == s.state.Percent:
		step.Outcome = rollout.Met
		v.Verdict, v.Allowed = "This is where the team stands.", true
		if to == rollout.Full {
			v.Verdict = "This is where the team stands. What is left is to end its static credentials."
		}
	case s.missing != "":
		v.Verdict = "Whether the checks allow it is not known."
	case s.report.Answer == readiness.Held:
		v.Verdict, v.Allowed = "The hold is in the way.", false
	case o.Allowed:
		v.Verdict = "The checks allow it."
	case s.report.Answer == readiness.Ready:
		v.Verdict = fmt.Sprintf("Too far for one step: up to %s%% now, more when that has soaked.", s.report.UpTo)
	default:
		v.Verdict = "The checks do not allow it yet. A file may ask for it now: it waits until they hold."
	}
	if s.missing == "" && o.Of > 0 {
		v.Text = fmt.Sprintf("about %s of %s runs a day", round(o.Runs), round(o.Of))
		switch {
		case to <= s.state.Percent:
		case o.OneIn >= 2:
			v.Text += fmt.Sprintf(", at worst 1 broken run in %s days", round(o.OneIn))
		case o.OneIn > 0:
			v.Text += fmt.Sprintf(", at worst %s broken runs a day", atMost(1/o.OneIn))
		case s.report.Census:
			v.Text += ", too few for a statement about broken ones: each account and pipeline is looked at"
		}
	}
	if step.Outcome.Applies() {
		forecast, err := c.o.Forecast(ctx, s.state, step)
		if err != nil {
			v.Lines = []string{"what would become of runs cannot be read: " + err.Error()}
		} else {
			v.Lines = forecast.Lines()
		}
	}
	return v
}

// atMost writes a bound on a number of runs, which is never rounded down.
func atMost(x float64) string {
	if x < 10 {
		return fmt.Sprintf("%.1f", x+0.05)
	}
	return thousands(int(x) + 1)
}

// lineOf is what the team's file has to say for a percentage.
func lineOf(s standing, to rollout.Percent) lineView {
	l := lineView{
		Lead: "To get there", File: cmp.Or(s.file.Name, "rollout.d/"+string(s.state.Team)+".yaml"), Text: fmt.Sprintf("percent: %s", to),
	}
	switch {
	case s.state.Percent >= rollout.Full && to == rollout.Full:
		l.Lead, l.Text = "To retire it", "retired: true"
		l.Note = "This ends the team's static credentials for good; nobody can take it back."
		if s.report.Answer != readiness.Ready {
			l.Note += " It waits until the checks of retirement hold."
		}
	case to == s.state.Percent:
		l.Lead = "To stay there"
	case s.report.Answer == readiness.Held && to > s.state.Percent:
		l.Note = "A hold outranks the file. Release it first: crossfade rollout release " + string(s.state.Team)
	}
	return l
}

func (c *Console) addDays(ctx context.Context, v *teamView, team identity.Team) {
	if c.o.Days == nil || v.Missing != "" {
		return
	}
	days, err := c.o.Days(ctx, team, shownDays)
	if err != nil {
		return // the report says what is the matter
	}
	v.DaysKnown = true
	v.Days, v.DaysText = drawn(days)
	v.DaysHeight = flat
	for _, d := range v.Days {
		v.DaysHeight = max(v.DaysHeight, d.Height)
	}
	for i := range v.Days {
		v.Days[i].Y = v.DaysHeight - v.Days[i].Height
	}
}

// drawn says how tall the bars of days are, where they stand, and what they say.
func drawn(days []assess.Day) (bars []dayView, text string) {
	most, sum := 1, 0
	for _, d := range days {
		most = max(most, d.Broken)
		sum += d.Broken
	}
	for i, d := range days {
		b := dayView{Day: string(d.Day), Runs: d.Runs, Broken: d.Broken, X: i * 12, Height: flat}
		if d.Broken > 0 {
			b.Height = max(6, d.Broken*barHeight/most)
		}
		bars = append(bars, b)
	}
	if sum == 0 {
		return bars, "none in " + counted(len(days), "day")
	}
	return bars, fmt.Sprintf("%s in %s, %s today", counted(sum, "run"), counted(len(days), "day"), thousands(days[len(days)-1].Broken))
}

func (c *Console) addHistory(ctx context.Context, v *teamView, team identity.Team, query url.Values) {
	limit := shownChanges
	if query.Get("history") == "all" {
		limit = maxLimit - 1
	}
	entries, err := c.o.History.History(ctx, team, limit+1)
	if err != nil {
		v.HistoryMissing = "The history cannot be read: " + err.Error()
		return
	}
	if len(entries) > limit {
		entries = entries[:limit]
		if limit == shownChanges {
			v.Earlier = "?history=all#history"
		}
	}
	now := c.o.Now()
	for _, e := range entries {
		ch := changeView{
			At: moment{e.At, now}, Who: cmp.Or(e.Actor, "somebody"), Reason: e.Reason, Evidence: e.Evidence, Source: e.Source,
			Verified: e.Verified, Revision: e.Revision, Raised: e.To > e.From, Lowered: e.To < e.From, What: changeText(e),
		}
		v.History = append(v.History, ch)
	}
}

// changeText says what a change did.
func changeText(e rollout.Entry) string {
	move := fmt.Sprintf("%s%% → %s%%", e.From, e.To)
	switch e.Kind {
	case rollout.KindRequest:
		if e.From == e.To {
			return "asked"
		}
		return move
	case rollout.KindHold:
		return "hold placed"
	case rollout.KindRelease:
		return "hold released"
	case rollout.KindRollback:
		return move + ", rolled back with a hold"
	case rollout.KindRetire:
		return "retired"
	case rollout.KindRestore:
		return "restored, at " + e.To.String() + "%"
	default:
		return move
	}
}
