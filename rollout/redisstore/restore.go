package redisstore

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// Restore implements rollout.Restorer. The id comes last, so that gateways which
// know the store by it refuse changes until all is back.
func (s *Store) Restore(ctx context.Context, known rollout.Snapshot, by rollout.Setting) ([]identity.Team, error) {
	if known.StoreID == "" {
		return nil, fmt.Errorf("restore: the snapshot has no id of a store")
	}
	if _, err := s.id(ctx); err != nil { // and makes the row, so that its schema is checked
		return nil, err
	}
	var changed []identity.Team
	for _, team := range slices.Sorted(maps.Keys(known.Teams)) {
		if err := rollout.ValidateTeam(team); err != nil {
			return changed, err
		}
		ok, err := s.restoreTeam(ctx, known.Teams[team], by)
		if err != nil {
			return changed, err
		}
		if ok {
			changed = append(changed, team)
		}
	}
	err := restoreStore.Run(ctx, s.client, []string{s.storeKey()}, known.StoreID, schema, s.now().UnixMilli()).Err()
	return changed, unavailable("restore the store's id", err)
}

func (s *Store) restoreTeam(ctx context.Context, known rollout.State, by rollout.Setting) (bool, error) {
	if err := s.client.SAdd(ctx, s.teamsKey(), string(known.Team)).Err(); err != nil {
		return false, unavailable("add team", err)
	}
	keys := []string{s.teamKey(known.Team, "rollout"), s.teamKey(known.Team, "history")}
	for {
		row, err := s.client.HGetAll(ctx, keys[0]).Result()
		if err != nil {
			return false, unavailable("read rollout of team "+string(known.Team), err)
		}
		has, err := parseState(known.Team, row)
		if err != nil {
			return false, err
		}
		next, entry, ok := rollout.Restored(has, known, by, s.now())
		if !ok {
			return false, nil
		}
		state, err := stateRow(next)
		if err != nil {
			return false, err
		}
		args := []any{s.channel(), string(known.Team), has.Revision, historyLength, len(state) / 2}
		args = append(append(args, state...), entryRow(entry)...)
		done, err := restoreState.Run(ctx, s.client, keys, args...).Bool()
		if err != nil {
			return false, unavailable("restore team "+string(known.Team), err)
		}
		if done {
			return true, nil
		}
	}
}

// stateRow is a state as it stands in its key, the inverse of parseState.
func stateRow(st rollout.State) ([]any, error) {
	row := []any{
		"percent", uint8(st.Percent), "previous", uint8(st.Previous), "revision", st.Revision,
		"raised_at", millis(st.RaisedAt), "lowered_at", millis(st.LoweredAt), "lowered_revision", st.LoweredRevision,
		"algorithm", st.Algorithm, "retired", flag(st.Retired), "updated_at", millis(st.UpdatedAt), "source", st.Source,
	}
	for _, part := range []struct {
		name  string
		there bool
		value any
	}{
		{"request", st.Request.Made(), st.Request}, {"hold", !st.Hold.At.IsZero(), st.Hold}, {"credentials", len(st.Credentials) > 0, st.Credentials},
	} {
		if !part.there {
			continue
		}
		text, err := json.Marshal(part.value)
		if err != nil {
			return nil, fmt.Errorf("restore team %q: %w", string(st.Team), err)
		}
		row = append(row, part.name, string(text))
	}
	return row, nil
}

// entryRow is an entry as it stands in a history.
func entryRow(e rollout.Entry) []any {
	return []any{
		"revision", e.Revision, "from", strconv.Itoa(int(e.From)), "to", strconv.Itoa(int(e.To)), "retired", flag(e.Retired),
		"actor", e.Actor, "verified", flag(e.Verified), "source", e.Source, "reason", e.Reason, "at", millis(e.At),
		"kind", string(e.Kind), "evidence", e.Evidence,
	}
}
