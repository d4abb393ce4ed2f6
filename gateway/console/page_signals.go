package console

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"crossfade/gateway/identity"
	"crossfade/rollout/fleet"
	"crossfade/rollout/readiness"
)

// signalsView is the page of the security signals of all teams.
type signalsView struct {
	Open, Other []signalView
	Waivers     []waiverView
	// Missing are the teams of which nothing is known.
	Missing []identity.Team
}

// signalView is a signal of a team.
type signalView struct {
	Team identity.Team
	failureView
}

// waiverView is a waiver, and how many signals it is about.
type waiverView struct {
	Team identity.Team
	readiness.Waiver
	Ends    moment
	Ended   bool
	Signals int
}

func (c *Console) signalsPage(r *http.Request) (frame, *problem) {
	if p := c.unread(); p != nil {
		return frame{}, p
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	now := c.o.Now()
	var v signalsView
	type about struct {
		team    identity.Team
		account string
		reason  identity.Reason
	}
	seen := make(map[about]int)
	for _, s := range c.standings(ctx) {
		if s.missing != "" {
			v.Missing = append(v.Missing, s.state.Team)
		}
		for _, f := range s.report.Failures {
			if !f.Security() {
				continue
			}
			seen[about{s.state.Team, f.Account, f.Reason}]++
			shown := signalView{s.state.Team, c.failureOf(s.state.Team, f)}
			if f.Open {
				v.Open = append(v.Open, shown)
			} else {
				v.Other = append(v.Other, shown)
			}
		}
	}
	waivers := c.o.Waivers()
	for _, team := range slices.Sorted(maps.Keys(waivers)) {
		for _, w := range waivers[team] {
			v.Waivers = append(v.Waivers, waiverView{
				Team: team, Waiver: w, Ends: moment{w.Until, now}, Ended: !w.Until.After(now), Signals: seen[about{team, w.Account, w.Reason}],
			})
		}
	}
	slices.SortStableFunc(v.Open, func(a, b signalView) int { return -cmp.Compare(a.Failure.Last.UnixMilli(), b.Failure.Last.UnixMilli()) })
	f := c.framed(ctx, r, "Security signals", "/signals")
	f.Announce = counted(len(v.Open), "open security signal")
	f.Body = v
	return f, nil
}

// replicasView is the page of the gateways.
type replicasView struct {
	Replicas []replicaView
	Agree    bool
	Alive    int
	Missing  string
}

// replicaView is one gateway.
type replicaView struct {
	fleet.Replica
	Self, Alive, Skew bool
	// Hash is as much of that of the configuration as tells two apart.
	Hash              string
	SeenAt, StartedAt moment
}

func (c *Console) replicasPage(r *http.Request) (frame, *problem) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	f := c.framed(ctx, r, "Replicas", "/replicas")
	var v replicasView
	all, now, err := c.o.Store.Fleet(ctx)
	if err != nil {
		v.Missing = "The store does not say which gateways there are: " + err.Error()
	}
	alive := fleet.Alive(all, now)
	v.Agree, v.Alive = fleet.Agree(alive), len(alive)
	own := slices.IndexFunc(all, func(r fleet.Replica) bool { return r.ID == c.o.Self })
	for i, r := range all {
		v.Replicas = append(v.Replicas, replicaView{
			Replica: r, Hash: r.Config[:min(len(r.Config), 12)], Self: i == own, Alive: r.Alive(now), Skew: own >= 0 && r.Config != all[own].Config,
			SeenAt: moment{r.Seen, now}, StartedAt: moment{r.Started, now},
		})
	}
	f.Announce = fmt.Sprintf("%s alive", counted(v.Alive, "gateway"))
	f.Body = v
	return f, nil
}

// helpView is the page of explanations.
type helpView struct {
	Reasons []reasonView
	// Guide is an address, Contact whom to ask; each "" if nobody is named.
	Guide, Contact string
}

// Do is what a refusal says to do, as the listener for clients words it.
func (v helpView) Do() string {
	do := "Start the worker through `crossfade agent`"
	if v.Guide != "" {
		do += " (" + v.Guide + ")"
	}
	if v.Contact != "" {
		do += ", or ask " + v.Contact
	}
	return do + "."
}

// reasonView is what there is to say about a reason.
type reasonView struct {
	identity.ReasonInfo
	Advice string
}

func (c *Console) helpPage(*http.Request) (frame, *problem) {
	v := helpView{Guide: c.o.Guide, Contact: c.o.Contact}
	for _, info := range identity.Reasons() {
		v.Reasons = append(v.Reasons, reasonView{info, readiness.Advice(info.Reason)})
	}
	return frame{Title: "Help", Section: "/help", Body: v}, nil
}
