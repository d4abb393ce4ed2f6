package rollouttest

import (
	"testing"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

func retiredCredentials(t *testing.T, s rollout.Store) {
	write(t, s, rollout.Change{Team: team, Percent: 100, Retire: true, Credentials: []string{"basic:b", "basic:a"}, At: at(0)})
	write(t, s, rollout.Change{Team: team, Percent: 100, Retire: true, Expect: 1, Credentials: []string{"api_key:c", "basic:a"}, At: at(1)})
	same(t, "credentials", load(t, s).Teams[team].Credentials, []string{"api_key:c", "basic:a", "basic:b"})
	if _, err := s.Write(t.Context(), rollout.Change{Team: "other", Percent: 100, Credentials: []string{"basic:x"}}); err == nil {
		t.Error("credentials of a team that is not retired are taken")
	}
}

// restores compares what a store does with the rule, for a team that is at an
// older revision, one that is unknown, one that has gone on, and one that was
// retired and is so no longer.
func restores(t *testing.T, s rollout.Store) {
	write(t, s, rollout.Change{Team: "older", Percent: 10, At: at(0)})
	for i := range 3 {
		write(t, s, rollout.Change{Team: "ahead", Percent: rollout.Percent(10 * i), Expect: rollout.AnyRevision, At: at(i)})
		write(t, s, rollout.Change{Team: "reborn", Percent: rollout.Percent(10 * i), Expect: rollout.AnyRevision, At: at(i)})
	}
	has := load(t, s)
	known := rollout.Snapshot{StoreID: "the one before", Teams: map[identity.Team]rollout.State{
		"older": {
			Team: "older", Percent: 60, Previous: 40, Revision: 7, RaisedAt: at(5), LoweredAt: at(4), LoweredRevision: 6, Algorithm: 1,
			UpdatedAt: at(5), Source: "file", Request: rollout.Request{Percent: 80, Digest: "d", At: at(5)},
			Hold: rollout.Hold{Reason: "look first", At: at(5)},
		},
		"unknown": {Team: "unknown", Percent: 100, Revision: 3, UpdatedAt: at(3), Retired: true, Credentials: []string{"basic:a"}},
		"ahead":   {Team: "ahead", Percent: 90, Revision: 2, UpdatedAt: at(1)},
		"reborn":  {Team: "reborn", Percent: 100, Revision: 2, UpdatedAt: at(1), Retired: true, Credentials: []string{"basic:r"}},
	}}
	by := rollout.Setting{Actor: "sre", Source: "cli", Reason: "the disk was lost"}
	changed, err := s.Restore(t.Context(), known, by)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "changed", changed, []identity.Team{"older", "reborn", "unknown"})
	now := load(t, s)
	if now.StoreID != known.StoreID {
		t.Errorf("the store's id is %q", now.StoreID)
	}
	for name, state := range known.Teams {
		want, entry, ok := rollout.Restored(has.Teams[name], state, by, now.Teams[name].UpdatedAt)
		same(t, string(name), now.Teams[name], want)
		last := entries(t, s, name, 1)
		if ok {
			same(t, "entry of "+string(name), last[0], entry)
		} else if last[0].Kind == rollout.KindRestore {
			t.Errorf("%s was at a later revision: %+v", name, last[0])
		}
	}
	again, err := s.Restore(t.Context(), known, by)
	if err != nil || len(again) != 0 {
		t.Errorf("once more: %v, %v", again, err)
	}
	if _, err := s.Restore(t.Context(), rollout.Snapshot{}, by); err == nil {
		t.Error("a snapshot without an id is taken")
	}
}
