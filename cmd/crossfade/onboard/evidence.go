// Package onboard turns what was seen of a deployment into the files that it has
// not got yet: principals, and roles. What it returns is a suggestion, which
// people read, complete and sign with their own name.
//
// All but ReadEvidence is pure.
package onboard

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
)

// Account is what the evidence tells of one account since a time.
type Account struct {
	Team identity.Team
	// Legacy and Token are when it last used either, also before that time; zero
	// for never.
	Legacy, Token time.Time
	// Runs is how many of its runs were kept, which are at most evidence.MaxRuns of
	// a pipeline and day.
	Runs int
	// Families are the task families that it used, and when last.
	Families map[string]time.Time
}

// Evidence is what ReadEvidence needs of an evidence.Store.
type Evidence interface {
	Daily(ctx context.Context, team identity.Team, day evidence.Day) (evidence.Daily, error)
	Accounts(ctx context.Context, team identity.Team) (map[string]evidence.Use, error)
	Families(ctx context.Context, team identity.Team) (map[evidence.Family]evidence.FamilyUse, error)
}

// ReadEvidence reads what is known of the accounts of teams, by the name of their
// principal: the last uses of all, and of what came since a time the runs and
// families. An account that two teams know of is of the one that saw it last.
// Errors match rollout.ErrUnavailable.
func ReadEvidence(ctx context.Context, s Evidence, teams []identity.Team, since, now time.Time) (map[string]*Account, error) {
	all := make(map[string]*Account)
	for _, team := range teams {
		if err := readTeam(ctx, s, team, since, now, all); err != nil {
			return nil, fmt.Errorf("evidence of team %s: %w", team, err)
		}
	}
	return all, nil
}

func readTeam(ctx context.Context, s Evidence, team identity.Team, since, now time.Time, all map[string]*Account) error {
	uses, err := s.Accounts(ctx, team)
	if err != nil {
		return err
	}
	of := func(name string) *Account {
		if all[name] == nil {
			all[name] = &Account{Team: team, Families: make(map[string]time.Time)}
		}
		return all[name]
	}
	for name, use := range uses {
		if name == "" {
			continue
		}
		a := of(name)
		if latest(use.Legacy, use.Token).After(latest(a.Legacy, a.Token)) {
			a.Team = team
		}
		a.Legacy, a.Token = latest(a.Legacy, use.Legacy), latest(a.Token, use.Token)
	}
	families, err := s.Families(ctx, team)
	if err != nil {
		return err
	}
	for f, use := range families {
		if f.Account != "" && f.Name != "" && !use.Last.Before(since) {
			a := of(f.Account)
			a.Families[f.Name] = latest(a.Families[f.Name], use.Last)
		}
	}
	for day := evidence.DayOf(now); day.End().After(since); day = day.Before() {
		d, err := s.Daily(ctx, team, day)
		if err != nil {
			return err
		}
		for _, run := range d.Runs {
			if run.Account != "" && !run.Last.Before(since) {
				of(run.Account).Runs++
			}
		}
	}
	return nil
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// printable is a name as it may stand in a comment: clients choose some of them,
// and none may end the comment or move a cursor.
func printable(name string) string {
	for _, r := range name {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return strconv.QuoteToGraphic(name)
		}
	}
	return name
}

// some lists the first names, and how many more there are.
func some(names []string, most int) string {
	shown := make([]string, 0, most)
	for _, n := range names[:min(len(names), most)] {
		shown = append(shown, printable(n))
	}
	text := strings.Join(shown, ", ")
	if more := len(names) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// plural writes a number, with commas, of things.
func plural(n int64, what string) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	if n != 1 {
		what += "s"
	}
	return text + " " + what
}
