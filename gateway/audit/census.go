package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"crossfade/gateway"
	"crossfade/gateway/identity"
)

// The bounds of what a Census keeps of one account. What finds no room is counted.
const (
	// MaxHosts is how many addresses are told apart.
	MaxHosts = 1000
	// MaxDeeds is how many deeds are.
	MaxDeeds = 20_000
	// MaxSubjects is how many identities at providers are.
	MaxSubjects = 100
)

// Census is what a trail tells of accounts.
type Census struct {
	// Accounts are the verified principals, by name.
	Accounts map[string]*Seen
	// Lines is how many lines of uses were counted, Broken how many cannot be read
	// and no crash explains.
	Lines  int64
	Broken int
}

// Seen is what was seen of one account.
type Seen struct {
	// Team is the one of its latest line.
	Team string
	// Requests is how many it made, Legacy and Token how many of them presented a
	// static credential and a token.
	Requests, Legacy, Token int64
	// Tasks is how many tasks it executed.
	Tasks       int64
	First, Last time.Time
	// Hosts are the addresses of clients. Those of counted requests are the first
	// one of each count.
	Hosts map[string]int64
	// Subjects are whose tokens it sent, of those whose signature held.
	Subjects map[Subject]int64
	// Faults are why tokens that were sent beside a static credential were not good.
	Faults map[identity.Reason]int64
	// Deeds are what it did: what was forwarded, and what only its roles denied.
	Deeds map[Deed]int64
	// Families is how many requests and tasks were about each task family.
	Families map[string]int64
	// Crowded is how many requests found no room for a host, subject, deed or
	// family of their own.
	Crowded int64
}

// Subject is an identity at a provider.
type Subject struct {
	Issuer  string `json:"issuer"`
	Subject string `json:"subject"`
}

// Deed is a kind of request.
type Deed struct {
	Action identity.Action
	// RPC is the procedure; "" for a page, or in profile http.
	RPC string
	// Family is the task family; "" where the request names none, and where it was
	// counted together with others, which Counted tells.
	Family  string
	Counted bool
}

// Survey reads what accounts did since a time. Like Tasks it believes the files,
// and its memory is bounded by how many accounts there are.
func Survey(files []string, since time.Time) (Census, error) {
	census := Census{Accounts: make(map[string]*Seen)}
	var seen []os.FileInfo
	for _, name := range files {
		again, err := known(&seen, name)
		if err != nil {
			return Census{}, err
		}
		// A minute is for a clock that was set: lines are older than their file.
		if info := seen[len(seen)-1]; again || info.Mode().IsRegular() && info.ModTime().Before(since.Add(-time.Minute)) {
			continue
		}
		bad := 0
		err = surveyed(name, func(text []byte) {
			switch kind, ok := census.add(text, since); {
			case kind == KindTorn && bad > 0:
				bad-- // it accounts for the line before
			case !ok:
				bad++
			}
		})
		if err != nil {
			return Census{}, err
		}
		census.Broken += bad
	}
	return census, nil
}

// surveyed passes the lines of a file on.
func surveyed(name string, use func(text []byte)) error {
	in, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("survey the audit trail: %w", err)
	}
	defer func() { _ = in.Close() }() // nothing was written
	if err := rawLines(in, use); err != nil {
		return fmt.Errorf("survey the audit trail: %s: %w", name, err)
	}
	return nil
}

// add counts a line; ok is false for one that cannot be read. A line is decoded
// once: what its kind does not have stays empty.
func (c *Census) add(text []byte, since time.Time) (kind Kind, ok bool) {
	if bytes.HasPrefix(text, executed) {
		var l struct {
			Header
			Task
		}
		if json.Unmarshal(text, &l) != nil {
			return "", false
		}
		c.task(l.Header, &l.Task, since)
		return l.Kind, true
	}
	var l struct {
		Header
		Use
	}
	if json.Unmarshal(text, &l) != nil || l.Kind == "" || l.Replica == "" {
		return "", false
	}
	if (l.Kind == KindUse || l.Kind == KindCount) && !l.Time.Before(since) {
		c.Lines++
		if l.Principal != "" {
			c.account(l.Principal, l.Team, l.Time).use(&l.Use, l.Kind == KindCount)
		}
	}
	return l.Kind, true
}

// executed is how the writer begins the lines of tasks.
var executed = []byte(`{"kind":"` + KindTask + `",`)

func (c *Census) task(h Header, t *Task, since time.Time) {
	if h.Time.Before(since) || t.Principal == "" {
		return
	}
	a := c.account(t.Principal, t.Team, h.Time)
	a.Tasks++
	if t.Family != "" {
		tally(a, a.Families, t.Family, 1, MaxDeeds)
		tally(a, a.Deeds, Deed{Action: identity.ActionExecute, Family: t.Family}, 1, MaxDeeds)
	}
}

func (c *Census) account(name, team string, at time.Time) *Seen {
	a := c.Accounts[name]
	if a == nil {
		a = &Seen{
			First: at, Hosts: make(map[string]int64), Subjects: make(map[Subject]int64), Faults: make(map[identity.Reason]int64),
			Deeds: make(map[Deed]int64), Families: make(map[string]int64),
		}
		c.Accounts[name] = a
	}
	if at.Before(a.First) {
		a.First = at
	}
	if !at.Before(a.Last) {
		a.Last, a.Team = at, team
	}
	return a
}

func (a *Seen) use(u *Use, several bool) {
	n := max(u.N, 1)
	a.Requests += n
	oidc := identity.SchemeOIDC.String()
	other := u.Candidate
	if u.Scheme == oidc || other != nil {
		a.Token += n
	}
	if u.Scheme != oidc || other != nil {
		a.Legacy += n
	}
	if u.Client != "" {
		tally(a, a.Hosts, u.Client, n, MaxHosts)
	}
	if u.Subject != "" {
		tally(a, a.Subjects, Subject{u.Issuer, u.Subject}, n, MaxSubjects)
	}
	if other != nil && other.Subject != "" {
		tally(a, a.Subjects, Subject{other.Issuer, other.Subject}, n, MaxSubjects)
	}
	if other != nil && other.Scheme == oidc && other.Reason != "" {
		a.Faults[identity.Reason(other.Reason)] += n
	}
	if u.Family != "" {
		tally(a, a.Families, u.Family, n, MaxDeeds)
	}
	if u.ran() {
		tally(a, a.Deeds, Deed{identity.Action(u.Action), u.RPC, u.Family, several}, n, MaxDeeds)
	}
}

// ran reports whether a request was forwarded, and by more than the mode's
// leniency towards whoever could not be verified.
func (u *Use) ran() bool {
	info, _ := identity.Reason(u.Reason).Info()
	switch gateway.Outcome(u.Outcome) {
	case gateway.Allowed:
		return true
	case gateway.WouldRefuse:
		return info.Stage == identity.StageAuthorisation
	default:
		return false
	}
}

// tally adds to an entry, or to what found no room.
func tally[K comparable](a *Seen, in map[K]int64, key K, n int64, room int) {
	if _, there := in[key]; !there && len(in) >= room {
		a.Crowded += n
		return
	}
	in[key] += n
}
