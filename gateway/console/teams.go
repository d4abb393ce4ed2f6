package console

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/effect"
)

// Team is a team as the API shows it. Times are UTC; what does not apply is left
// out.
type Team struct {
	Team     identity.Team `json:"team"`
	Percent  int           `json:"percent"`
	Previous int           `json:"previous"`
	Phase    rollout.Phase `json:"phase"`
	// Revision is what If-Match compares, 0 for a team that was never changed.
	Revision int64     `json:"revision"`
	Updated  time.Time `json:"updated,omitzero"`
	// Requested is what the team asks for, Request who did so and why.
	Requested *int             `json:"requested,omitempty"`
	Request   *rollout.Request `json:"request,omitempty"`
	Hold      *Hold            `json:"hold,omitempty"`
	Brownout  *Brownout        `json:"brownout,omitempty"`
	// InEffect is for how many runs of the last full day the percentage is in
	// effect; left out while no runs are known.
	InEffect *effect.Share `json:"in_effect,omitempty"`
	// Ended is how many static credentials ended with the team's retirement.
	Ended int `json:"ended_credentials,omitempty"`
	// Outcome is what becomes of the request now, Why what allows it or is in the
	// way, and Owner who can do something about that.
	Outcome string         `json:"outcome"`
	Why     string         `json:"why,omitempty"`
	Owner   identity.Owner `json:"owner,omitempty"`
	// Management says how the team's file and its request agree, File its name.
	Management string `json:"management,omitempty"`
	File       string `json:"file,omitempty"`
}

// Hold is a hold that is in force.
type Hold struct {
	Reason   string    `json:"reason"`
	Actor    string    `json:"actor"`
	Verified bool      `json:"verified"`
	At       time.Time `json:"at"`
	Until    time.Time `json:"until,omitzero"`
}

// Brownout is the window that is in force.
type Brownout struct {
	Percent int       `json:"percent"`
	Until   time.Time `json:"until"`
}

// Teams is the list of all, in order of id.
type Teams struct {
	Teams []Team `json:"teams"`
	// AsOf is when the store was read last, Trouble why it cannot be now.
	AsOf    time.Time `json:"as_of,omitzero"`
	Trouble string    `json:"trouble,omitempty"`
}

// Entry is one change of a team's history.
type Entry struct {
	Revision int64        `json:"revision"`
	Kind     rollout.Kind `json:"kind"`
	At       time.Time    `json:"at"`
	From     int          `json:"from"`
	To       int          `json:"to"`
	Actor    string       `json:"actor"`
	Verified bool         `json:"verified"`
	Source   string       `json:"source"`
	Reason   string       `json:"reason"`
	Evidence string       `json:"evidence,omitempty"`
}

// Changes are the last changes of a team, the latest first.
type Changes struct {
	Changes []Entry `json:"changes"`
}

// etag is the entity tag of a revision.
func etag(revision int64) string { return strconv.Quote(strconv.FormatInt(revision, 10)) }

// show is the team without what its request comes to.
func (c *Console) show(s rollout.State) Team {
	now := c.o.Now()
	t := Team{
		Team: s.Team, Percent: int(s.Percent), Previous: int(s.Previous), Phase: s.Phase(), Revision: s.Revision, Updated: s.UpdatedAt,
		Outcome: rollout.Met.String(),
	}
	if s.Retired {
		t.Ended = len(s.Credentials)
	}
	if s.Request.Made() {
		requested, request := int(s.Request.Percent), s.Request
		t.Requested, t.Request = &requested, &request
	}
	if h := s.Hold; h.Active(now) {
		t.Hold = &Hold{Reason: h.Reason, Actor: h.Actor, Verified: h.Verified, At: h.At, Until: h.Until}
	}
	if b, ok := s.Brownout(now); ok {
		t.Brownout = &Brownout{Percent: int(b.Percent), Until: b.Until}
	}
	if share, ok := c.o.InEffect(s); ok {
		t.InEffect = &share
	}
	file := c.o.Files()[s.Team]
	t.Management, t.File = file.Management, file.Name
	return t
}

// with adds what becomes of the request.
func (t Team) with(step rollout.Step) Team {
	t.Outcome, t.Why, t.Owner = step.Outcome.String(), step.Why, step.Owner
	return t
}

// step says what becomes of a state's request now. The guard is asked only about
// a raise; without its answer the raise waits.
func (c *Console) step(ctx context.Context, s rollout.State) rollout.Step {
	now := c.o.Now()
	return rollout.Next(s, rollout.AskGuard(ctx, c.o.Guard, s, now), !s.Request.Made() || c.o.Open(s.Team, now), now)
}

func (c *Console) teams(w http.ResponseWriter, r *http.Request) *problem {
	if p := c.unread(); p != nil {
		return p
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	states := make(map[identity.Team]rollout.State)
	for _, team := range c.o.Teams {
		states[team] = rollout.State{Team: team}
	}
	for _, s := range c.o.Table.States() {
		states[s.Team] = s
	}
	list := Teams{Teams: make([]Team, 0, len(states)), AsOf: c.o.Table.LoadedAt().UTC()}
	for _, team := range slices.Sorted(maps.Keys(states)) {
		s := states[team]
		list.Teams = append(list.Teams, c.show(s).with(c.step(ctx, s)))
	}
	if err := c.o.Table.Err(); err != nil {
		list.Trouble = err.Error()
	}
	send(w, http.StatusOK, "application/json", list)
	return nil
}

// unread refuses while nothing is known of any team.
func (c *Console) unread() *problem {
	if c.o.Table.Loaded() {
		return nil
	}
	err := fmt.Errorf("%w: the rollouts were not read yet", rollout.ErrUnavailable)
	return storeProblem(err, c.show)
}

func (c *Console) team(w http.ResponseWriter, r *http.Request) *problem {
	if p := c.unread(); p != nil {
		return p
	}
	team, p := c.named(r)
	if p != nil {
		return p
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	c.sendTeam(w, http.StatusOK, c.state(team), c.step(ctx, c.state(team)))
	return nil
}

func (c *Console) sendTeam(w http.ResponseWriter, status int, s rollout.State, step rollout.Step) {
	w.Header().Set("ETag", etag(s.Revision))
	send(w, status, "application/json", c.show(s).with(step))
}

// state is the team as the table knows it.
func (c *Console) state(team identity.Team) rollout.State {
	s, _ := c.o.Table.Lookup(team)
	s.Team = team
	return s
}

// The bounds of a history.
const (
	defaultLimit = 50
	maxLimit     = 1000
)

func (c *Console) history(w http.ResponseWriter, r *http.Request) *problem {
	team, p := c.named(r)
	if p != nil {
		return p
	}
	limit := defaultLimit
	if text := r.URL.Query().Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxLimit {
			return refuse(http.StatusBadRequest, parameterInvalid, fmt.Sprintf("limit is %q.", clip(text)), fmt.Sprintf("Use a whole number from 1 to %d.", maxLimit))
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	entries, err := c.o.History.History(ctx, team, limit)
	if err != nil {
		return storeProblem(errors.Join(rollout.ErrUnavailable, err), c.show)
	}
	list := Changes{Changes: make([]Entry, 0, len(entries))}
	for _, e := range entries {
		list.Changes = append(list.Changes, Entry{
			Revision: e.Revision, Kind: e.Kind, At: e.At, From: int(e.From), To: int(e.To),
			Actor: e.Actor, Verified: e.Verified, Source: e.Source, Reason: e.Reason, Evidence: e.Evidence,
		})
	}
	send(w, http.StatusOK, "application/json", list)
	return nil
}
