package console

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/readiness"
)

// reportsAtOnce is how many teams are looked at at the same time: each is a few
// readings of the store, and the path of requests needs it more.
const reportsAtOnce = 8

// noEvidence stands for an answer while a team's evidence cannot be read.
const noEvidence = readiness.Unknown

// answers lists every answer that a page shows, in the order in which teams are
// to be looked at.
func answers() []readiness.Answer {
	return append([]readiness.Answer{noEvidence}, readiness.Answers()...)
}

// standing is what is known of a team.
type standing struct {
	state  rollout.State
	report readiness.Report
	// missing is why there is no report; "" if there is one.
	missing string
	file    File
}

// standing reads what is known of a team. Without evidence there is still its
// state.
func (c *Console) standing(ctx context.Context, team identity.Team) standing {
	s := standing{state: c.state(team), file: c.o.Files()[team]}
	report, err := c.o.Readiness.Report(ctx, s.state)
	if err == nil {
		s.report = report
		if team == identity.Unassigned {
			s.report = ofNobody(report)
		}
		return s
	}
	s.missing = "the evidence cannot be read: " + err.Error()
	s.report = readiness.Unread(s.state, err, c.o.Now())
	return s
}

// ofNobody is the report on accounts that no team has: they are never raised, and
// what is to be done is to find their teams.
func ofNobody(r readiness.Report) readiness.Report {
	r.Answer, r.UpTo, r.Wait, r.Owner = readiness.Waiting, r.Percent, 0, identity.OwnerPlatform
	r.Why = "these accounts have no team: name it in the principals file"
	if n := len(r.Accounts); n > 0 {
		r.Why = counted(n, "account") + " without a team: name it in the principals file"
	}
	return r
}

// idle reports whether there is nothing to say of accounts without a team, since
// there is none.
func (s standing) idle() bool {
	return s.state.Team == identity.Unassigned && s.missing == "" && len(s.report.Accounts) == 0 && s.report.Runs == 0
}

// standings reads what is known of all teams, in order of their ids. Whoever asks
// while somebody else's question is being answered gets that answer: all of it is
// a lot to read, and many look at the same pages. It is only read.
func (c *Console) standings(ctx context.Context) []standing {
	all, _, _ := c.looking.Do("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		teams := c.allTeams()
		all := make([]standing, len(teams))
		var g errgroup.Group
		g.SetLimit(reportsAtOnce)
		for i, team := range teams {
			g.Go(func() error {
				all[i] = c.standing(ctx, team)
				return nil
			})
		}
		return all, g.Wait() // what is missing stands in each
	})
	return all.([]standing)
}

// badge is an answer as pages show it: by a sign, a word and a colour.
type badge struct {
	Answer     readiness.Answer
	Sign, Word string
}

func badgeOf(r readiness.Report) badge {
	b := badge{Answer: r.Answer}
	switch r.Answer {
	case readiness.Blocked:
		b.Sign, b.Word = "✕", "NO"
	case readiness.Held:
		b.Sign, b.Word = "‖", "HELD"
	case readiness.Waiting:
		b.Sign, b.Word = "…", "WAIT"
		if r.Percent >= rollout.Full {
			b.Word = "WAIT (retire)"
		}
	case readiness.Ready:
		b.Sign, b.Word = "✓", fmt.Sprintf("YES, to %s%%", r.UpTo)
		if r.Percent >= rollout.Full {
			b.Word = "YES, retire"
		}
	case readiness.Done:
		b.Sign, b.Word = "■", "RETIRED"
	default:
		b.Sign, b.Word = "?", "NO EVIDENCE"
	}
	return b
}

// who says who acts on a report in one or two words.
func who(r readiness.Report) string {
	switch {
	case r.Owner != "":
		return string(r.Owner)
	case r.Answer == readiness.Ready:
		return "team lead"
	case r.Answer == readiness.Waiting:
		return "nobody, it takes time"
	case r.Answer == noEvidence:
		return "platform"
	default:
		return "nobody"
	}
}

// bar is a percentage with what is asked for beside it.
type bar struct {
	Percent int
	// Asked is what is asked for, if that is something else; -1 if not.
	Asked int
	// Brownout is how much of the team a window enforces now; 0 for none.
	Brownout int
}

func (c *Console) barOf(s rollout.State) bar {
	b := bar{Percent: int(s.Percent), Asked: -1}
	if s.Request.Made() && s.Request.Percent != s.Percent {
		b.Asked = int(s.Request.Percent)
	}
	if w, ok := s.Brownout(c.o.Now()); ok && w.Percent > s.Percent {
		b.Brownout = int(w.Percent)
	}
	return b
}

// teamsView is the page of all teams.
type teamsView struct {
	Counts []answerCount
	// All is how many teams there are, Shown how many of them are in the rows: accounts
	// without a team are a row, and no team. Empty tells that there is neither.
	All, Shown int
	Empty      bool
	// Query and Answer are what was looked for.
	Query, Answer string
	Answers       []readiness.Answer
	Rows          []teamRow
}

// answerCount is how many teams have an answer.
type answerCount struct {
	badge
	Name     string
	N        int
	Selected bool
}

// teamRow is a team among all.
type teamRow struct {
	Team     identity.Team
	Badge    badge
	Bar      bar
	InEffect string
	Why, Who string
	Notes    []string
}

func (c *Console) teamsPage(r *http.Request) (frame, *problem) {
	if p := c.unread(); p != nil {
		return frame{}, p
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	query := r.URL.Query()
	v := teamsView{Query: clip(strings.TrimSpace(query.Get("q"))), Answer: query.Get("answer")}
	if v.Answer != "" && !slices.Contains(answers(), readiness.Answer(v.Answer)) {
		return frame{}, refuse(http.StatusBadRequest, parameterInvalid, fmt.Sprintf("answer is %q.", clip(v.Answer)), "Use one of the answers on the page of all teams.")
	}
	byAnswer, teams := make(map[readiness.Answer][]teamRow), make(map[readiness.Answer]int)
	for _, s := range c.standings(ctx) {
		if s.idle() {
			continue
		}
		byAnswer[s.report.Answer] = append(byAnswer[s.report.Answer], c.rowOf(s))
		if s.state.Team != identity.Unassigned { // which is a row, and no team
			v.All++
			teams[s.report.Answer]++
		}
	}
	v.Empty = len(byAnswer) == 0
	var said []string
	for _, answer := range answers() {
		rows := byAnswer[answer]
		if len(rows) == 0 && (answer == noEvidence || v.Empty) {
			continue
		}
		v.Answers = append(v.Answers, answer)
		v.Counts = append(v.Counts, answerCount{
			badge: badgeOf(readiness.Report{Answer: answer}), Name: answerName(answer), N: teams[answer], Selected: v.Answer == string(answer),
		})
		if n := teams[answer]; n > 0 {
			said = append(said, fmt.Sprintf("%d %s", n, answerName(answer)))
		}
		if v.Answer != "" && v.Answer != string(answer) {
			continue
		}
		for _, row := range rows {
			if row.matches(v.Query) {
				v.Rows = append(v.Rows, row)
				if row.Team != identity.Unassigned {
					v.Shown++
				}
			}
		}
	}
	f := c.framed(ctx, r, "Teams", "/")
	f.Announce = counted(v.All, "team") + ": " + strings.Join(said, ", ")
	f.Body = v
	return f, nil
}

// answerName is an answer in the middle of a sentence.
func answerName(a readiness.Answer) string {
	switch a {
	case noEvidence:
		return "without evidence"
	case readiness.Done:
		return "retired"
	default:
		return string(a)
	}
}

func (c *Console) rowOf(s standing) teamRow {
	now := c.o.Now()
	row := teamRow{
		Team: s.state.Team, Badge: badgeOf(s.report), Bar: c.barOf(s.state), InEffect: "-",
		Why: s.report.Why, Who: who(s.report),
	}
	if s.report.InEffect.Runs > 0 {
		row.InEffect = s.report.InEffect.Text(now)
	}
	if s.report.Answer == readiness.Waiting && s.report.Wait > 0 {
		row.Why += ", about " + short(s.report.Wait) + " more"
	}
	if s.state.Hold.Active(now) && s.report.Answer == readiness.Held {
		note := "held " + moment{s.state.Hold.At, now}.Ago() + " by " + cmp.Or(s.state.Hold.Actor, "somebody")
		if until := s.state.Hold.Until; !until.IsZero() {
			note += ", ends " + moment{until, now}.Ago()
		}
		row.Notes = append(row.Notes, note)
	}
	if late := s.report.LateText(); late != "" {
		row.Notes = append(row.Notes, late)
	}
	if s.report.Signal {
		row.Notes = append(row.Notes, "open security signal")
	}
	if w, ok := s.state.Brownout(now); ok {
		row.Notes = append(row.Notes, fmt.Sprintf("brownout: %s%%, ends %s", w.Percent, moment{w.Until, now}.Ago()))
	}
	if row.Bar.Asked >= 0 {
		row.Notes = append(row.Notes, fmt.Sprintf("asks for %d%%", row.Bar.Asked))
	}
	if s.file.Management != "" && s.file.Management != "managed" && s.file.Management != "unmanaged" {
		row.Notes = append(row.Notes, strings.TrimSpace(s.file.Management+": "+s.file.Name))
	}
	if s.state.Team == identity.Unassigned {
		row.Notes = append(row.Notes, "no team can be retired while they use a password")
	}
	return row
}

// matches reports whether a word stands somewhere in the row.
func (r teamRow) matches(word string) bool {
	word = strings.ToLower(word)
	for _, text := range append([]string{string(r.Team), r.Why, r.Who, r.Badge.Word}, r.Notes...) {
		if strings.Contains(strings.ToLower(text), word) {
			return true
		}
	}
	return false
}
