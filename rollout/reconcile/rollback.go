package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
)

// The rule of the automatic rollback.
const (
	// armed is how long after a raise it may be taken back by itself.
	armed = 24 * time.Hour
	// cycle is how long before its refusal an account must have had a clean run:
	// who had none was in trouble before the raise, or is somebody else.
	cycle = 24 * time.Hour
	// enough is how many accounts must have been refused. Each has proven its
	// password, so one stolen one is not enough, with however many workers.
	enough = 2
	// watchEvery is how often the evidence of an armed team is read.
	watchEvery = 5 * time.Second
)

// Evidence is what the automatic rollback looks at. evidence.Store is one.
type Evidence interface {
	Daily(ctx context.Context, team identity.Team, day evidence.Day) (evidence.Daily, error)
}

// watch is what is known of an armed team.
type watch struct {
	read time.Time
	told time.Time // the raise about which somebody was alerted
}

// Harm is what a raise did.
type Harm struct {
	// Known are the accounts that had a clean run, with a token, in the cycle
	// before a refused one, in order. Unknown are refused ones that had none.
	Known, Unknown []string
	// Others tells that the team has other accounts than those.
	Others bool
}

// harm finds the accounts that a raise hurts: those with a run that was enforced
// after it and not before, and of which a request was refused whose password was
// right. A password elsewhere in the run counts for nothing, or whoever has one
// could make a team go back by sending bad tokens; nor does what a brownout
// refused, which was meant to be. It is pure.
func harm(runs []evidence.Run, raised time.Time) Harm {
	refused := make(map[string]time.Time) // account -> its first such request
	accounts := make(map[string]bool)
	for _, r := range runs {
		accounts[r.Account] = true
		if r.LockedOut.Before(raised) || r.EnforcedFrom.Before(raised) { // or never
			continue
		}
		if at, ok := refused[r.Account]; !ok || r.LockedOut.Before(at) {
			refused[r.Account] = r.LockedOut
		}
	}
	clean := make(map[string]bool)
	for _, r := range runs {
		at, ok := refused[r.Account]
		if ok && r.Grade == evidence.Clean && r.Token && !r.Refused && r.First.Before(at) && r.Last.After(at.Add(-cycle)) {
			clean[r.Account] = true
		}
	}
	var h Harm
	for account := range refused {
		if clean[account] {
			h.Known = append(h.Known, account)
		} else {
			h.Unknown = append(h.Unknown, account)
		}
	}
	slices.Sort(h.Known)
	slices.Sort(h.Unknown)
	h.Others = len(accounts) > len(refused)
	return h
}

// rollBack takes back a raise that hurts. It returns the state as it is then.
func (r *Reconciler) rollBack(ctx context.Context, s rollout.State, now time.Time) (rollout.State, error) {
	since := now.Sub(s.RaisedAt)
	if r.o.Evidence == nil || s.Retired || !s.LastRaised() || since >= armed {
		delete(r.watched, s.Team)
		return s, nil
	}
	w := r.watched[s.Team]
	if now.Sub(w.read) < watchEvery {
		return s, nil
	}
	w.read = now
	r.watched[s.Team] = w
	runs, err := r.runsSince(ctx, s.Team, s.RaisedAt.Add(-cycle), now)
	if err != nil {
		return s, err
	}
	h := harm(runs, s.RaisedAt)
	switch {
	case len(h.Known) >= enough:
		change, err := rollout.Rollback(s, rollout.Setting{
			Actor: r.o.Holder, Source: "rollback", Reason: fmt.Sprintf("automatic: %d known accounts refused: %s", len(h.Known), first(h.Known)),
		}, now)
		if err != nil {
			return s, err
		}
		return r.write(ctx, s, change)
	case len(h.Known)+len(h.Unknown) > 0 && !w.told.Equal(s.RaisedAt):
		w.told = s.RaisedAt
		r.watched[s.Team] = w
		r.o.Alert(s.Team, alertText(h))
	}
	return s, nil
}

// alertText says why somebody must look although nothing was rolled back.
func alertText(h Harm) string {
	switch {
	case len(h.Known) == 1 && !h.Others:
		return "its only account is refused: " + h.Known[0] + "; one password alone does not roll a team back"
	case len(h.Known) == 1:
		return "one known account is refused: " + h.Known[0] + "; a second one would roll the team back"
	default:
		return "accounts without a clean run before are refused: " + first(h.Unknown)
	}
}

// first joins the first of many names.
func first(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// runsSince reads the runs of the days from a time on.
func (r *Reconciler) runsSince(ctx context.Context, team identity.Team, since, now time.Time) ([]evidence.Run, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var runs []evidence.Run
	for day := evidence.DayOf(now); day.End().After(since); day = day.Before() {
		d, err := r.o.Evidence.Daily(ctx, team, day)
		if err != nil {
			return nil, err
		}
		for _, run := range d.Runs {
			runs = append(runs, run)
		}
	}
	return runs, nil
}
