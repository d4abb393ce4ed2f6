package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"crossfade/cmd/crossfade/demo"
	"crossfade/gateway"
	"crossfade/gateway/identity"
	"crossfade/gateway/shadow"
)

// tally counts what the demo's clients sent and what the gateway saw, each by
// itself, and holds one against the other.
type tally struct {
	mu    sync.Mutex
	teams map[identity.Team]*teamTally
	// workers are those that began, by their names.
	workers map[string]sender
	wrong   []string
}

// sender is whose worker it is, and what goes along with its password.
type sender struct {
	team  identity.Team
	sends tokens
}

// teamTally is one team's count. The first group is the client's view, the
// second the gateway's.
type teamTally struct {
	answered, refusals, failed int64

	requests, allowed, refused int64
	verdicts                   map[shadow.Verdict]int64
	reasons                    map[identity.Reason]int64
}

// recordedAgent begins the User-Agent of every recorded worker.
const recordedAgent = "python-requests/"

func newTally(all []scene) *tally {
	t := &tally{teams: make(map[identity.Team]*teamTally), workers: make(map[string]sender)}
	for _, sc := range all {
		t.teams[sc.team] = &teamTally{
			verdicts: make(map[shadow.Verdict]int64),
			reasons:  make(map[identity.Reason]int64),
		}
	}
	return t
}

// starts notes that a worker of a team begins, and what it will send.
func (t *tally) starts(team identity.Team, worker string, what tokens) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.workers[worker] = sender{team, what}
}

// sent notes a client's result.
func (t *tally) sent(team identity.Team, r demo.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.teams[team]
	if unanswered(r) {
		c.failed++ // cut off by the end of the demo, or else a contradiction
		return
	}
	c.answered++
	if r.Reason != "" {
		c.refusals++
	}
}

// saw notes what the gateway made of a request.
func (t *tally) saw(ev *gateway.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	worker, ours := t.workers[ev.Call.Run]
	c, ok := t.teams[ev.Team()]
	if ev.Principal.Name == "" { // nobody is known yet where a request is turned away before its password is judged
		c, ok = t.teams[worker.team]
	}
	if !ok || ev.Call.Run != "" && !ours || !strings.HasPrefix(ev.UserAgent, recordedAgent) {
		return // the user of the demo tries the curl lines
	}
	c.requests++
	switch ev.Decision.Outcome {
	case gateway.Refused, gateway.Unavailable:
		c.refused++
	default:
		c.allowed++
	}
	c.verdicts[ev.Shadow.Verdict]++
	reason := ev.Shadow.Reason
	if ev.Decision.Reason != "" {
		reason = ev.Decision.Reason
	}
	if reason != "" {
		c.reasons[reason]++
	}
	if ev.Call.Run == "" {
		return
	}
	t.compare(ev, worker.sends)
}

// compare holds one event against what its worker sent. The caller holds mu.
func (t *tally) compare(ev *gateway.Event, what tokens) {
	contradiction := func(format string, args ...any) {
		if len(t.wrong) < 20 {
			t.wrong = append(t.wrong, fmt.Sprintf("%s, %s: ", ev.Team(), ev.Call.Method)+fmt.Sprintf(format, args...))
		}
	}
	if ev.Decision.Outcome == gateway.Unavailable {
		return // by a machine that is too busy, as below
	}
	verdict, reason, forward := shadow.MatchAllow, identity.Reason(""), true
	enforced := ev.Enforcement.Enforced
	switch what {
	case wrongToken:
		verdict, reason, forward = shadow.WouldBreak, identity.AudMismatch, !enforced
	case noTokens:
		verdict, reason, forward = shadow.NoToken, identity.TokenAbsent, !enforced
	}
	if ev.Decision.Forward() != forward {
		contradiction("forwarded %v, expected %v (enforced %v, reason %s)", ev.Decision.Forward(), forward, enforced, ev.Decision.Reason)
	}
	if v := ev.Shadow.Verdict; v == shadow.NotEvaluated || v == shadow.Indeterminate {
		return // shed by a machine that is too busy: told in the table, no contradiction
	}
	if ev.Shadow.Verdict != verdict || ev.Shadow.Reason != reason {
		contradiction("verdict %s %s, expected %s %s", ev.Shadow.Verdict, ev.Shadow.Reason, verdict, reason)
	}
}

// contradictions says where what the gateway saw differs from what was sent.
// Call it when all is done.
func (t *tally) contradictions() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	wrong := slices.Clone(t.wrong)
	for _, team := range slices.Sorted(maps.Keys(t.teams)) {
		c := t.teams[team]
		// The end of the demo cuts requests off: the gateway may have seen them.
		if c.requests < c.answered || c.requests > c.answered+c.failed {
			wrong = append(wrong, fmt.Sprintf("%s: %d requests were answered and %d cut off, the gateway saw %d", team, c.answered, c.failed, c.requests))
		}
		if c.refused < c.refusals || c.refused > c.refusals+c.failed {
			wrong = append(wrong, fmt.Sprintf("%s: %d requests were refused, the gateway says %d", team, c.refusals, c.refused))
		}
		if c.answered == 0 {
			wrong = append(wrong, fmt.Sprintf("%s: nothing was answered", team))
		}
	}
	return wrong
}

// summary is what the gateway saw of each team.
func (t *tally) summary() demo.Summary {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := demo.Summary{Teams: make(map[identity.Team]demo.TeamSummary)}
	for team, c := range t.teams {
		row := demo.TeamSummary{
			Requests: c.requests, Allowed: c.allowed, Refused: c.refused,
			Verdicts: make(map[string]int64), Reasons: maps.Clone(c.reasons),
		}
		for v, n := range c.verdicts {
			row.Verdicts[string(v)] = n
		}
		s.Teams[team] = row
	}
	return s
}
