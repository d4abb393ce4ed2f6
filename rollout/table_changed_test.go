package rollout_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/rollouttest"
)

func TestTheTableTellsOfEachChangeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := rollouttest.NewMemory()
		type change struct {
			First    bool
			From, To rollout.Percent
			Source   string
		}
		var told []change
		table := newTable(t, rollout.TableOptions{Store: store, Poll: time.Second, Changed: func(was, is rollout.Snapshot) {
			told = append(told, change{was.StoreID == "", was.Teams[team].Percent, is.Teams[team].Percent, is.Teams[team].Source})
		}})
		synctest.Wait()
		if _, err := table.Write(t.Context(), rollout.Change{Team: team, Percent: 25, Expect: 0, Source: "api"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // readings that find nothing new
		synctest.Wait()
		if _, err := store.Write(t.Context(), rollout.Change{Team: team, Percent: 10, Expect: 1, Source: "cli"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		want := []change{{First: true}, {From: 0, To: 25, Source: "api"}, {From: 25, To: 10, Source: "cli"}}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("changes told (-want +got):\n%s", diff)
		}
	})
}

func TestATableThatBeginsWithWhatWasKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := rollouttest.NewMemory()
		set(t, store, 50)
		known, err := store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		store.SetDown(true)
		table := newTable(t, rollout.TableOptions{Store: store, Initial: &known})
		synctest.Wait()
		if !table.Loaded() {
			t.Error("a table with an initial snapshot knows nothing")
		}
		wantTable(t, table, 50, 1)

		store.SetDown(false)
		set(t, store, 60)
		time.Sleep(5 * time.Second)
		wantTable(t, table, 60, 2)
	})
}

func TestAStoreThatIsNotTheOneKnownBeforeHasRegressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		initial := rollout.Snapshot{StoreID: "another", Teams: map[identity.Team]rollout.State{
			team: {Team: team, Percent: 50, Revision: 7},
		}}
		table := newTable(t, rollout.TableOptions{Store: rollouttest.NewMemory(), Initial: &initial})
		synctest.Wait()
		if err := table.Err(); !errors.Is(err, rollout.ErrRegressed) {
			t.Errorf("Err() = %v, want store_regressed", err)
		}
		wantTable(t, table, 50, 7)
	})
}
