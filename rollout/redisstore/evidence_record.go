package redisstore

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
)

// recording is one batch on its way.
type recording struct {
	s      *Store
	batch  evidence.Batch
	secret []byte
	losses chan teamLoss // with room for all teams

	mu      sync.Mutex
	lost    evidence.LostError
	pending map[identity.Team]bool
	err     error // the first of those that pending waits for
}

// teamLoss is what is lost of a team that is recorded otherwise.
type teamLoss struct {
	team identity.Team
	lost *evidence.LostError
}

// secret is the id of the store, or while that cannot be read what it was last: the
// runs of a day must not change their names because a node is away.
func (s *Store) secret(ctx context.Context) (string, error) {
	last := s.lastID.Load()
	if last != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout/2)
		defer cancel()
	}
	id, err := s.id(ctx)
	switch {
	case err == nil:
		s.lastID.Store(&id)
		return id, nil
	case last != nil:
		return *last, nil
	default:
		return "", err
	}
}

// byNode groups the teams of a batch by the node of a Cluster that has them. Those
// that come again are the last of theirs, so that one which always takes too long
// keeps nobody else from being recorded.
func (s *Store) byNode(ctx context.Context, b evidence.Batch) map[string][]identity.Team {
	groups := make(map[string][]identity.Team)
	cluster, ok := s.client.(*redis.ClusterClient)
	for _, team := range slices.Sorted(maps.Keys(b.Teams)) {
		node := "" // the only one, or not known
		if ok {
			if master, err := cluster.MasterForKey(ctx, s.teamKey(team, "rollout")); err == nil {
				node = master.Options().Addr
			}
		}
		groups[node] = append(groups[node], team)
	}
	for _, teams := range groups {
		slices.SortStableFunc(teams, func(a, c identity.Team) int { return cmp.Compare(min(b.Teams[a].Seq, 1), min(b.Teams[c].Seq, 1)) })
	}
	return groups
}

// record records teams of one node, one after another, until the node turns out to
// be away.
func (r *recording) record(ctx context.Context, teams []identity.Team) {
	for i, team := range teams {
		b := r.batch.Of(team)
		lost, err := r.s.recordTeam(ctx, b, team, r.secret)
		switch {
		case err != nil && (ctx.Err() != nil || !ofOneSlot(err)):
			r.wait(err, teams[i:]...)
			return
		case err != nil:
			r.wait(err, team)
		case b.Lost()+lost.Requests() > 0:
			r.losses <- teamLoss{team, lost}
		default:
			r.lose(lost)
		}
	}
}

// noteLosses notes what is lost of teams that are recorded, as it becomes known. Of
// whom it cannot be noted comes again, for else nobody would miss it.
func (r *recording) noteLosses(ctx context.Context) {
	for loss := range r.losses {
		b := r.batch.Of(loss.team)
		err := r.s.addGap(ctx, evidence.Gap{
			Replica: b.Replica, Team: loss.team, From: b.From.UTC(), To: b.To.UTC(), Requests: b.Lost() + loss.lost.Requests(),
		})
		if err := r.s.lose(ctx, loss.lost, evidence.LostPart{}, err, kept{r.s.gapsKey(), "zset"}); err != nil {
			r.wait(err, loss.team)
			continue
		}
		r.lose(loss.lost)
	}
}

// wait notes that teams are not recorded for now.
func (r *recording) wait(err error, teams ...identity.Team) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = cmp.Or(r.err, err)
	for _, team := range teams {
		r.pending[team] = true
	}
}

func (r *recording) lose(lost *evidence.LostError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost.Parts = append(r.lost.Parts, lost.Parts...)
}

// result says what became of the batch. A server that is no Cluster is there as a
// whole or not at all, so the batch comes again as a whole.
func (r *recording) result() error {
	var lost *evidence.LostError
	if len(r.lost.Parts) > 0 {
		slices.SortStableFunc(r.lost.Parts, func(a, b evidence.LostPart) int {
			if a.Team == "" || b.Team == "" { // what is of no team is told last
				return -cmp.Compare(a.Team, b.Team)
			}
			return cmp.Compare(a.Team, b.Team)
		})
		lost = &r.lost
	}
	_, cluster := r.s.client.(*redis.ClusterClient)
	switch {
	case len(r.pending) > 0 && cluster:
		return &evidence.PartialError{Teams: slices.Sorted(maps.Keys(r.pending)), Lost: lost, Err: r.err}
	case len(r.pending) > 0:
		return r.err
	case lost != nil:
		return lost
	default:
		return nil
	}
}

// ofOneSlot reports whether an error says nothing about the other slots of its node:
// this one is on its way to another.
func ofOneSlot(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) &&
		(redis.HasErrorPrefix(reply, "TRYAGAIN") || redis.HasErrorPrefix(reply, "MOVED") || redis.HasErrorPrefix(reply, "ASK"))
}
