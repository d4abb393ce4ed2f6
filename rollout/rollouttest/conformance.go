package rollouttest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/rollout"
)

// patience bounds waits for what happens in other goroutines. It is long,
// because it only ever runs out when a test fails.
const patience = 30 * time.Second

// TestStore runs the conformance suite: what every rollout.Store must do.
// newStore returns an empty store that is closed by t.Cleanup.
func TestStore(t *testing.T, newStore func(t *testing.T) rollout.Store) {
	for name, test := range map[string]func(*testing.T, rollout.Store){
		"an empty store has an id that stays and no teams":                  emptyStore,
		"what was written is read back":                                     writeAndLoad,
		"changes follow the rule of Apply":                                  sameAsApply,
		"a stale writer learns the current state and changes nothing":       staleWriter,
		"a hundred writers racing lose no revision and no entry":            racingWriters,
		"of a hundred writers for one revision exactly one wins":            oneWins,
		"thirty writers that look and try again all get through":            tryAgain,
		"two stores made at once agree on the id":                           racingIDs,
		"a retired team cannot be lowered":                                  retired,
		"a change that breaks a rule leaves no trace":                       invalidChanges,
		"a change decided upon another store is refused":                    otherStore,
		"the history is newest first, limited and whole":                    history,
		"a long history keeps the last thousand entries":                    longHistory,
		"a watcher hears of a change and ends with its context":             watch,
		"of fifty replicas that latch a run the first one wins":             racingLatches,
		"a latch is found by its own key only":                              latchKeys,
		"a lowering frees enforced latches made before it and no others":    freedLatches,
		"a run that was let through before is spared, everywhere":           sparedLatches,
		"a freed latch of another pipeline is returned to be judged by":     freedPipeline,
		"a latch without a pipeline takes the first one that is told":       latchPipeline,
		"a latch ends seven days after it was made":                         oldLatch,
		"latches are counted by team and kind":                              countedLatches,
		"a latch that was freed and made again is counted once":             recountedLatches,
		"a run that was not heard of for long is not in flight":             silentLatches,
		"a latch that has ended is not counted":                             endedLatches,
		"what a store has lost is put back, and nothing else":               restores,
		"the credentials of a retired team are kept":                        retiredCredentials,
		"one replica at a time has the lease, until it yields or stops":     leases,
		"of fifty replicas that want the lease one gets it":                 racingLeases,
		"a call whose context has ended is unavailable and changes nothing": ended,
	} {
		t.Run(name, func(t *testing.T) { test(t, newStore(t)) })
	}
}

const team identity.Team = "data-eng"

// at returns a fixed time, seconds after an arbitrary one.
func at(seconds int) time.Time {
	return time.Date(2030, 1, 2, 3, 4, 5, 678_000_000, time.UTC).Add(time.Duration(seconds) * time.Second)
}

func load(t *testing.T, s rollout.Store) rollout.Snapshot {
	t.Helper()
	snap, err := s.Load(t.Context())
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return snap
}

func write(t *testing.T, s rollout.Store, c rollout.Change) rollout.State {
	t.Helper()
	state, err := s.Write(t.Context(), c)
	if err != nil {
		t.Fatalf("Write(%+v): %v", c, err)
	}
	return state
}

func entries(t *testing.T, s rollout.Store, team identity.Team, limit int) []rollout.Entry {
	t.Helper()
	got, err := s.History(t.Context(), team, limit)
	if err != nil {
		t.Fatalf("History: %v", err)
	}
	return got
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func emptyStore(t *testing.T, s rollout.Store) {
	first, second := load(t, s), load(t, s)
	if first.StoreID == "" || first.StoreID != second.StoreID {
		t.Errorf("ids of two readings: %q and %q, want one that is not empty", first.StoreID, second.StoreID)
	}
	if len(first.Teams) != 0 {
		t.Errorf("teams of an empty store: %v", first.Teams)
	}
	if first.At.IsZero() {
		t.Error("Snapshot.At is not set")
	}
	if got := entries(t, s, team, 10); len(got) != 0 {
		t.Errorf("history of an unknown team: %v", got)
	}
}

func racingIDs(t *testing.T, s rollout.Store) {
	ids := make([]string, 20)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			snap, err := s.Load(t.Context())
			if err != nil {
				t.Errorf("Load: %v", err)
			}
			ids[i] = snap.StoreID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("different ids: %q", ids)
		}
	}
}

func writeAndLoad(t *testing.T, s rollout.Store) {
	got := write(t, s, rollout.Change{Team: team, Percent: 25, Expect: 0, At: at(0)})
	want := rollout.State{Team: team, Percent: 25, Revision: 1, RaisedAt: at(0), Algorithm: rollout.Algorithm, UpdatedAt: at(0)}
	same(t, "state after the first change", got, want)
	got = write(t, s, rollout.Change{Team: team, Percent: 5, Expect: 1, At: at(1)})
	want.Percent, want.Previous, want.Revision = 5, 25, 2
	want.LoweredAt, want.LoweredRevision, want.UpdatedAt = at(1), 2, at(1)
	same(t, "state after the second change", got, want)
	other := write(t, s, rollout.Change{Team: "ünï-code_7", Percent: 1, At: at(2)})
	same(t, "teams", load(t, s).Teams, map[identity.Team]rollout.State{team: want, "ünï-code_7": other})

	before := time.Now().Add(-time.Second)
	now := write(t, s, rollout.Change{Team: "without-time", Percent: 1})
	if now.UpdatedAt.Before(before) || now.UpdatedAt.After(time.Now().Add(time.Second)) {
		t.Errorf("a change without a time is of %v, want now", now.UpdatedAt)
	}
}

// sameAsApply makes random changes, the same ones in every run.
func sameAsApply(t *testing.T, s rollout.Store) {
	random := rand.New(rand.NewPCG(1, 2))
	want := map[identity.Team]rollout.State{}
	log := map[identity.Team][]rollout.Entry{}
	for i := range 300 {
		c := rollout.Change{
			Team: identity.Team(fmt.Sprintf("team-%d", random.IntN(4))), Percent: rollout.Percent(random.IntN(101)),
			Expect: rollout.AnyRevision, Actor: "model", Verified: random.IntN(2) == 0, Source: "api",
			Reason: fmt.Sprint("change ", i), At: at(i), Kind: append(rollout.Kinds(), "")[random.IntN(len(rollout.Kinds())+1)],
		}
		if random.IntN(3) == 0 {
			c.Evidence = fmt.Sprint(i, " clean runs")
		}
		if random.IntN(3) == 0 {
			c.Request = &rollout.Request{
				Percent: rollout.Percent(random.IntN(101)), Digest: fmt.Sprint("digest ", i), Override: `a "reason", ünïcode`,
				Actor: "lead", Verified: random.IntN(2) == 0, Source: "file", Reason: "week 2", At: at(i),
			}
			for n := range random.IntN(3) {
				c.Request.Brownouts = append(c.Request.Brownouts, rollout.Brownout{From: at(i + n), Until: at(i + n + 60), Percent: 100})
			}
		}
		switch random.IntN(6) {
		case 0:
			c.Hold = &rollout.Hold{Reason: "look first", Requested: 50, Actor: "sre", Source: "cli", At: at(i)}
		case 1:
			c.Hold = &rollout.Hold{Reason: "for an hour", Verified: true, At: at(i), Until: at(i + 3600)}
		case 2:
			c.Hold = &rollout.Hold{}
		}
		current := want[c.Team]
		current.Team = c.Team
		switch random.IntN(10) {
		case 0:
			c.Expect = random.Int64N(current.Revision + 2)
		case 1, 2, 3:
			c.Expect = current.Revision
		case 4:
			c.Percent = current.Percent
		case 5:
			if random.IntN(12) == 0 {
				c.Percent, c.Retire = 100, true
				c.Credentials = []string{fmt.Sprint("basic:", random.IntN(3)), "api_key:ü"}
			}
		}
		next, entry, wantErr := rollout.Apply(current, c, at(i))
		got, err := s.Write(t.Context(), c)
		for _, sentinel := range []error{rollout.ErrConflict, rollout.ErrRetired} {
			if errors.Is(err, sentinel) != errors.Is(wantErr, sentinel) {
				t.Fatalf("change %d %+v: error %v, want %v", i, c, err, wantErr)
			}
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("change %d %+v: error %v, want %v", i, c, err, wantErr)
		}
		if diff := cmp.Diff(next, got); diff != "" {
			t.Fatalf("state after change %d %+v (-want +got):\n%s", i, c, diff)
		}
		if err == nil {
			want[c.Team] = next
			log[c.Team] = append([]rollout.Entry{entry}, log[c.Team]...)
		}
	}
	same(t, "teams", load(t, s).Teams, want)
	for name := range want {
		same(t, "history", entries(t, s, name, 1000), log[name])
	}
}

func staleWriter(t *testing.T, s rollout.Store) {
	write(t, s, rollout.Change{Team: team, Percent: 10, At: at(0)})
	current := write(t, s, rollout.Change{Team: team, Percent: 20, Expect: 1, At: at(1)})
	for _, expect := range []int64{0, 1, 3, 1 << 40} {
		got, err := s.Write(t.Context(), rollout.Change{Team: team, Percent: 90, Expect: expect})
		var conflict *rollout.ConflictError
		if !errors.Is(err, rollout.ErrConflict) || !errors.As(err, &conflict) {
			t.Fatalf("write that expects revision %d: %v, want a conflict", expect, err)
		}
		same(t, "state beside the conflict", got, current)
		same(t, "conflict", *conflict, rollout.ConflictError{Expected: expect, Current: current})
	}
	_, err := s.Write(t.Context(), rollout.Change{Team: "other", Percent: 1, Expect: 7})
	if !errors.Is(err, rollout.ErrConflict) {
		t.Errorf("write that expects a revision of an unknown team: %v, want a conflict", err)
	}
	same(t, "teams", load(t, s).Teams, map[identity.Team]rollout.State{team: current})
	if got := entries(t, s, team, 10); len(got) != 2 {
		t.Errorf("history has %d entries, want 2: %v", len(got), got)
	}
}

// racers is how many writers race in one test.
const racers = 100

// race calls f from many goroutines at once.
func race(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

// whole checks that the history of the team counts from n down to 1 and that
// each entry begins where the one before it ended.
func whole(t *testing.T, s rollout.Store, n int) {
	t.Helper()
	log := entries(t, s, team, 10*racers)
	if len(log) != n {
		t.Fatalf("history has %d entries, want %d", len(log), n)
	}
	for i, e := range log {
		if e.Revision != int64(n-i) {
			t.Errorf("entry %d has revision %d, want %d", i, e.Revision, n-i)
		}
		if i+1 < n && e.From != log[i+1].To {
			t.Errorf("revision %d begins at %d, but the one before ended at %d", e.Revision, e.From, log[i+1].To)
		}
	}
	if state := load(t, s).Teams[team]; state.Revision != int64(n) || state.Percent != log[0].To {
		t.Errorf("state %+v does not match the last entry %+v", state, log[0])
	}
}

func racingWriters(t *testing.T, s rollout.Store) {
	seen := make([]int64, racers+1)
	var mu sync.Mutex
	race(racers, func(i int) {
		state, err := s.Write(t.Context(), rollout.Change{Team: team, Percent: rollout.Percent(i), Expect: rollout.AnyRevision})
		if err != nil {
			t.Errorf("Write: %v", err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		seen[state.Revision]++
	})
	for revision := 1; revision <= racers; revision++ {
		if seen[revision] != 1 {
			t.Errorf("revision %d was given out %d times", revision, seen[revision])
		}
	}
	whole(t, s, racers)
}

func oneWins(t *testing.T, s rollout.Store) {
	var mu sync.Mutex
	won := 0
	race(racers, func(i int) {
		_, err := s.Write(t.Context(), rollout.Change{Team: team, Percent: rollout.Percent(i), Expect: 0})
		switch {
		case err == nil:
			mu.Lock()
			won++
			mu.Unlock()
		case !errors.Is(err, rollout.ErrConflict):
			t.Errorf("Write: %v", err)
		}
	})
	if won != 1 {
		t.Errorf("%d writers won", won)
	}
	whole(t, s, 1)
}

// tryAgain lets fewer race than the others: each may try as often as there are.
func tryAgain(t *testing.T, s rollout.Store) {
	const racers = 30
	race(racers, func(i int) {
		c := rollout.Change{Team: team, Percent: rollout.Percent(i)}
		for {
			_, err := s.Write(t.Context(), c)
			var conflict *rollout.ConflictError
			if !errors.As(err, &conflict) {
				if err != nil {
					t.Errorf("Write: %v", err)
				}
				return
			}
			c.Expect = conflict.Current.Revision
		}
	})
	whole(t, s, racers)
}

func retired(t *testing.T, s rollout.Store) {
	write(t, s, rollout.Change{Team: team, Percent: 40, At: at(0)})
	state := write(t, s, rollout.Change{Team: team, Percent: 100, Expect: 1, Retire: true, At: at(1)})
	if !state.Retired || state.Percent != 100 || state.Phase() != rollout.PhaseRetired {
		t.Fatalf("state after retirement: %+v", state)
	}
	got, err := s.Write(t.Context(), rollout.Change{Team: team, Percent: 99, Expect: rollout.AnyRevision})
	if !errors.Is(err, rollout.ErrRetired) {
		t.Errorf("lowering a retired team: %v, want ErrRetired", err)
	}
	same(t, "state beside the refusal", got, state)
	again := write(t, s, rollout.Change{Team: team, Percent: 100, Expect: 2})
	if !again.Retired || again.Revision != 3 {
		t.Errorf("state after a change that lowers nothing: %+v", again)
	}
	if log := entries(t, s, team, 10); len(log) != 3 || !log[0].Retired || !log[1].Retired || log[2].Retired {
		t.Errorf("history: %+v", log)
	}
}

func invalidChanges(t *testing.T, s rollout.Store) {
	for name, c := range map[string]rollout.Change{
		"percent above 100":    {Team: team, Percent: 101},
		"no team":              {Percent: 1},
		"braces in the team":   {Team: "a}b", Percent: 1},
		"unassigned is pinned": {Team: identity.Unassigned, Percent: 1},
		"retired below 100":    {Team: team, Percent: 99, Retire: true},
		"expects below any":    {Team: team, Percent: 1, Expect: -2},
		"reason without end":   {Team: team, Percent: 1, Reason: strings.Repeat("x", 1<<20)},
	} {
		_, err := s.Write(t.Context(), c)
		if err == nil || errors.Is(err, rollout.ErrUnavailable) || errors.Is(err, rollout.ErrConflict) {
			t.Errorf("%s: error %v, want one about the rule", name, err)
		}
	}
	if teams := load(t, s).Teams; len(teams) != 0 {
		t.Errorf("teams: %v", teams)
	}
}

func otherStore(t *testing.T, s rollout.Store) {
	id := load(t, s).StoreID
	_, err := s.Write(t.Context(), rollout.Change{Team: team, Percent: 1, Expect: rollout.AnyRevision, StoreID: id + "x"})
	if !errors.Is(err, rollout.ErrRegressed) {
		t.Errorf("write for another store: %v, want ErrRegressed", err)
	}
	if teams := load(t, s).Teams; len(teams) != 0 {
		t.Errorf("teams: %v", teams)
	}
	write(t, s, rollout.Change{Team: team, Percent: 1, StoreID: id})
}

func history(t *testing.T, s rollout.Store) {
	reason := "Grüße, \"quoted\"\n\tand | over ' lines \x00"
	for i := range 5 {
		write(t, s, rollout.Change{
			Team: team, Percent: rollout.Percent(10 * i), Expect: rollout.AnyRevision, At: at(i),
			Actor: "alice@acme.dev", Verified: i%2 == 1, Source: "cli", Reason: reason,
		})
	}
	same(t, "last two entries", entries(t, s, team, 2), []rollout.Entry{
		{Revision: 5, Kind: rollout.KindSet, From: 30, To: 40, Actor: "alice@acme.dev", Source: "cli", Reason: reason, At: at(4)},
		{Revision: 4, Kind: rollout.KindSet, From: 20, To: 30, Actor: "alice@acme.dev", Verified: true, Source: "cli", Reason: reason, At: at(3)},
	})
	for limit, want := range map[int]int{-1: 0, 0: 0, 1: 1, 5: 5, 100: 5} {
		if got := entries(t, s, team, limit); len(got) != want {
			t.Errorf("History with limit %d: %d entries, want %d", limit, len(got), want)
		}
	}
}

func longHistory(t *testing.T, s rollout.Store) {
	const n = 1300
	race(10, func(int) {
		for range n / 10 {
			if _, err := s.Write(t.Context(), rollout.Change{Team: team, Percent: 1, Expect: rollout.AnyRevision}); err != nil {
				t.Errorf("Write: %v", err)
			}
		}
	})
	log := entries(t, s, team, 10*n)
	if len(log) < 1000 || len(log) >= n {
		t.Fatalf("%d changes leave %d entries, want 1000 or some more", n, len(log))
	}
	for i, e := range log {
		if e.Revision != int64(n-i) {
			t.Fatalf("entry %d has revision %d, want %d", i, e.Revision, n-i)
		}
	}
}

func watch(t *testing.T, s rollout.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	heard, ended := make(chan identity.Team, 16), make(chan error, 1)
	go func() {
		ended <- s.Watch(ctx, func(team identity.Team) { heard <- team })
	}()
	next := func(want identity.Team) {
		t.Helper()
		for {
			select {
			case got := <-heard:
				if got == want {
					return
				}
				if got != "" {
					t.Fatalf("heard of %q, want %q", got, want)
				}
			case <-time.After(patience):
				t.Fatalf("heard nothing of %q", want)
			}
		}
	}
	next("") // the subscription stands
	write(t, s, rollout.Change{Team: team, Percent: 1})
	next(team)
	write(t, s, rollout.Change{Team: "two", Percent: 1})
	next("two")
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Watch does not end")
	}
}
