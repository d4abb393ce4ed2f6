package console

import (
	"context"
	"errors"
	"net/http"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// Restoration is what a store has lost of what this gateway knew, and gets, or
// has got, back.
type Restoration struct {
	// Teams are in order of id.
	Teams []Restored `json:"teams"`
	// Trouble is what the gateway says of the store, "" if it is as it was.
	Trouble string `json:"trouble,omitempty"`
}

// Restored is a team of which the store has lost something.
type Restored struct {
	Team identity.Team `json:"team"`
	// Has is the percentage that the store has, Known and Phase are what was known.
	Has   int           `json:"has"`
	Known int           `json:"known"`
	Phase rollout.Phase `json:"phase"`
	// HasRevision and KnownRevision are at which revision.
	HasRevision   int64 `json:"has_revision"`
	KnownRevision int64 `json:"known_revision"`
}

func restorationOf(lost []rollout.Loss, trouble error) Restoration {
	out := Restoration{Teams: make([]Restored, 0, len(lost))}
	for _, l := range lost {
		out.Teams = append(out.Teams, Restored{
			Team: l.Team, Has: int(l.Has.Percent), Known: int(l.Known.Percent), Phase: l.Known.Phase(),
			HasRevision: l.Has.Revision, KnownRevision: l.Known.Revision,
		})
	}
	if trouble != nil {
		out.Trouble = trouble.Error()
	}
	return out
}

// losses are what the store has lost of what this gateway knew.
type losses struct {
	known rollout.Snapshot
	teams []rollout.Loss
	// trouble is what is wrong with the store, nil if it is as it was.
	trouble error
}

// lost compares what the store has with what this gateway knew. The table stays
// as it was while the store has regressed, so it is what was known.
func (c *Console) lost(ctx context.Context) (losses, *problem) {
	trouble := c.o.Table.Refresh(ctx)
	if trouble != nil && !errors.Is(trouble, rollout.ErrRegressed) {
		return losses{}, storeProblem(trouble, c.show)
	}
	known := c.o.Table.Known()
	has, err := c.o.Store.Load(ctx)
	if err != nil {
		return losses{}, storeProblem(err, c.show)
	}
	return losses{known, rollout.Losses(has, known), trouble}, nil
}

// restoration says what would be put back, and changes nothing: the dry run.
func (c *Console) restoration(w http.ResponseWriter, r *http.Request) *problem {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	lost, p := c.lost(ctx)
	if p != nil {
		return p
	}
	send(w, http.StatusOK, "application/json", restorationOf(lost.teams, lost.trouble))
	return nil
}

// restore puts back what the store has lost of what this gateway knew. Where it
// has lost nothing, nothing is written. Once begun it goes on, whether its client
// waits or not.
func (c *Console) restore(w http.ResponseWriter, r *http.Request) *problem {
	var reason string
	if p := readBody(w, r, members{"reason": &reason}); p != nil {
		return p
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), timeout)
	defer cancel()
	end, p := c.begin(ctx)
	if p != nil {
		return p
	}
	defer end()
	lost, p := c.lost(ctx)
	if p != nil {
		return p
	}
	if lost.trouble == nil {
		send(w, http.StatusOK, "application/json", restorationOf(nil, nil))
		return nil
	}
	who := callerOf(r)
	by := who.by(reason)
	if _, err := c.o.Store.Restore(ctx, lost.known, by); err != nil {
		return storeProblem(err, c.show)
	}
	c.o.Log.Info("a store was restored", "teams", len(lost.teams), "actor", who.name, "verified", who.verified, "source", source, "reason", reason, "trouble", lost.trouble)
	after := c.o.Table.Refresh(ctx)
	for _, l := range lost.teams {
		c.o.Changed(ctx, Done{
			Change: rollout.Change{Team: l.Team, Kind: rollout.KindRestore, Percent: l.Known.Percent, Actor: by.Actor, Verified: by.Verified, Source: by.Source, Reason: reason},
			Was:    l.Has, Is: c.state(l.Team), Token: who.token, Client: clientOf(r),
		})
	}
	send(w, http.StatusOK, "application/json", restorationOf(lost.teams, after))
	return nil
}
