package console

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"crossfade/rollout"
	"crossfade/rollout/fleet"
)

// Replicas are the gateways that serve by one store, in order of their ids.
type Replicas struct {
	Replicas []Replica `json:"replicas"`
	// Agree tells that those that are alive serve by one configuration.
	Agree bool `json:"agree"`
	// AsOf is the time by the clock of the store.
	AsOf time.Time `json:"as_of"`
}

// Replica is one gateway.
type Replica struct {
	// ID names the process among all that ever were; Self is the one that answers.
	ID   string `json:"id"`
	Self bool   `json:"self,omitempty"`
	// Version is the program's, Config the hash of the configuration that it serves
	// by.
	Version string    `json:"version"`
	Config  string    `json:"config"`
	Started time.Time `json:"started"`
	// Seen is its last sign of life by the clock of the store, Alive that this was
	// less than fleet.Silent ago.
	Seen  time.Time `json:"seen"`
	Alive bool      `json:"alive"`
	// Skew tells that it serves by another configuration than the gateway that
	// answers.
	Skew bool `json:"skew"`
	// Regressed tells that the store is not what it was to it: it goes on by what it
	// knew, and refuses changes.
	Regressed bool `json:"regressed,omitempty"`
	// LateSeconds is how long what it had observed, if only of some teams, was waiting
	// to be recorded, at its last sign of life.
	LateSeconds float64 `json:"late_seconds,omitempty"`
}

func (c *Console) replicas(w http.ResponseWriter, r *http.Request) *problem {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	all, now, err := c.o.Store.Fleet(ctx)
	if err != nil {
		return storeProblem(errors.Join(rollout.ErrUnavailable, err), c.show)
	}
	out := Replicas{Replicas: make([]Replica, 0, len(all)), Agree: fleet.Agree(fleet.Alive(all, now)), AsOf: now.UTC()}
	own := slices.IndexFunc(all, func(r fleet.Replica) bool { return r.ID == c.o.Self })
	for i, r := range all {
		out.Replicas = append(out.Replicas, Replica{
			ID: r.ID, Self: i == own, Version: r.Version, Config: r.Config, Started: r.Started.UTC(), Seen: r.Seen.UTC(),
			Alive: r.Alive(now), Skew: own >= 0 && r.Config != all[own].Config,
			Regressed: r.Regressed, LateSeconds: r.Longest().Seconds(),
		})
	}
	send(w, http.StatusOK, "application/json", out)
	return nil
}
