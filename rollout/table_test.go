package rollout_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/rollouttest"
)

// set writes a percentage and returns the state.
func set(t testing.TB, s rollout.Writer, percent rollout.Percent) rollout.State {
	t.Helper()
	state, err := s.Write(t.Context(), rollout.Change{Team: team, Percent: percent, Expect: rollout.AnyRevision})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// newTable returns a table that the test closes.
func newTable(t testing.TB, opt rollout.TableOptions) *rollout.Table {
	t.Helper()
	table, err := rollout.NewTable(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

// wantTable checks what the table says of the team.
func wantTable(t *testing.T, table *rollout.Table, percent rollout.Percent, revision int64) {
	t.Helper()
	if s, _ := table.Lookup(team); s.Percent != percent || s.Revision != revision {
		t.Errorf("the table says %d percent at revision %d, want %d at %d", s.Percent, s.Revision, percent, revision)
	}
}

func TestTableHearsOfAChangeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := rollouttest.NewMemory()
		table := newTable(t, rollout.TableOptions{Store: store, Poll: time.Hour})
		synctest.Wait()
		if !table.Loaded() || table.Err() != nil {
			t.Fatalf("after the first reading: loaded %v, error %v", table.Loaded(), table.Err())
		}
		if _, ok := table.Lookup(team); ok {
			t.Error("an unknown team has a state")
		}
		set(t, store, 25)
		synctest.Wait()
		wantTable(t, table, 25, 1)
		if got := table.States(); len(got) != 1 || got[0].Team != team {
			t.Errorf("States() = %+v", got)
		}
	})
}

func TestPollingHealsALostMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := rollouttest.NewMemory()
		table := newTable(t, rollout.TableOptions{Store: store})
		synctest.Wait()
		store.SetMute(true)
		set(t, store, 25)
		synctest.Wait()
		wantTable(t, table, 0, 0)
		time.Sleep(2200 * time.Millisecond) // the interval and its jitter
		synctest.Wait()
		wantTable(t, table, 25, 1)
	})
}

func TestTableStartsWithoutItsStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := rollouttest.NewMemory()
		set(t, store, 25)
		store.SetDown(true)
		table := newTable(t, rollout.TableOptions{Store: store})
		synctest.Wait()
		if table.Loaded() || !errors.Is(table.Err(), rollout.ErrUnavailable) || table.Age() != 0 || table.States() != nil {
			t.Errorf("without a store: loaded %v, error %v, age %v", table.Loaded(), table.Err(), table.Age())
		}
		if _, err := table.Write(t.Context(), rollout.Change{Team: team, Percent: 1}); !errors.Is(err, rollout.ErrUnavailable) {
			t.Errorf("a change before the first reading: %v", err)
		}
		store.SetDown(false)
		time.Sleep(2200 * time.Millisecond)
		synctest.Wait()
		wantTable(t, table, 25, 1)
	})
}

// fickle is a store that is away for reasons that change, empty when it is there.
type fickle struct {
	*rollouttest.Memory
	reason func() string
}

func (f fickle) Load(ctx context.Context) (rollout.Snapshot, error) {
	if why := f.reason(); why != "" {
		return rollout.Snapshot{}, fmt.Errorf("%w: %s", rollout.ErrUnavailable, why)
	}
	return f.Memory.Load(ctx)
}

// What is reported first may be no more than how an outage began, as a time limit
// before the refusal of a certificate.
func TestAnotherReasonOfAnOutageIsReportedAFewTimes(t *testing.T) {
	for name, tc := range map[string]struct {
		reason func(passed time.Duration) string // within the half hour of the outage
		most   int                               // reports of the outage
		last   string
	}{
		"the same all the time": {func(time.Duration) string { return "refused" }, 1, "refused"},
		"another one after a moment": {func(passed time.Duration) string {
			if passed < time.Second {
				return "no answer in time"
			}
			return "an unknown authority"
		}, 2, "an unknown authority"},
		"another one each time": {func(passed time.Duration) string { return fmt.Sprint("from port ", passed) }, 11, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const lasts = 30 * time.Minute
				began := time.Now()
				var mu sync.Mutex
				var reports []error
				table := newTable(t, rollout.TableOptions{
					Store: fickle{rollouttest.NewMemory(), func() string {
						if passed := time.Since(began); passed < lasts {
							return tc.reason(passed)
						}
						return ""
					}},
					Report: func(err error) {
						mu.Lock()
						defer mu.Unlock()
						reports = append(reports, err)
					},
				})
				time.Sleep(8 * time.Second)
				synctest.Wait()
				mu.Lock()
				if n := len(reports); !strings.Contains(reports[n-1].Error(), tc.last) {
					t.Errorf("after some seconds was reported: %v", reports)
				}
				mu.Unlock()
				time.Sleep(lasts)
				synctest.Wait()
				if table.Err() != nil {
					t.Errorf("afterwards: %v", table.Err())
				}
				mu.Lock()
				defer mu.Unlock()
				n := len(reports)
				if n < 2 || n-1 > tc.most || n-1 < min(tc.most, 8) || reports[n-1] != nil {
					t.Errorf("%d reports of the outage and its end, want %d and one: %v", n, tc.most, reports)
				}
			})
		})
	}
}

func TestTableStaysWhenItsStoreGoesAway(t *testing.T) {
	for name, away := range map[string]func(*rollouttest.Memory, bool){
		"it refuses connections": (*rollouttest.Memory).SetDown,
		"it does not answer":     (*rollouttest.Memory).SetHang,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var reports []error
				store := rollouttest.NewMemory()
				set(t, store, 25)
				table := newTable(t, rollout.TableOptions{Store: store, Report: func(err error) {
					mu.Lock()
					defer mu.Unlock()
					reports = append(reports, err)
				}})
				synctest.Wait()
				away(store, true)
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				wantTable(t, table, 25, 1)
				if age := table.Age(); age < 9*time.Minute || age > 10*time.Minute {
					t.Errorf("age %v after ten minutes", age)
				}
				if !errors.Is(table.Err(), rollout.ErrUnavailable) || table.Regressed() {
					t.Errorf("error %v, regressed %v", table.Err(), table.Regressed())
				}
				away(store, false)
				set(t, store, 50)
				time.Sleep(4 * time.Second)
				synctest.Wait()
				wantTable(t, table, 50, 2)
				if table.Err() != nil || table.Age() > 3*time.Second {
					t.Errorf("after it came back: error %v, age %v", table.Err(), table.Age())
				}
				mu.Lock()
				defer mu.Unlock()
				if len(reports) != 2 || !errors.Is(reports[0], rollout.ErrUnavailable) || reports[1] != nil {
					t.Errorf("reports: %v, want one of the outage and one of its end", reports)
				}
			})
		})
	}
}

func TestStoreRegressed(t *testing.T) {
	for name, lose := range map[string]func(*testing.T, *rollouttest.Memory, rollout.Snapshot){
		"emptied": func(_ *testing.T, s *rollouttest.Memory, _ rollout.Snapshot) { s.Flush() },
		"emptied and written anew": func(t *testing.T, s *rollouttest.Memory, _ rollout.Snapshot) {
			s.Flush()
			for range 5 {
				set(t, s, 100)
			}
		},
		"restored to an older revision": func(_ *testing.T, s *rollouttest.Memory, old rollout.Snapshot) { s.ReadBack(old) },
		"restored and written up to the same revision": func(t *testing.T, s *rollouttest.Memory, old rollout.Snapshot) {
			s.ReadBack(old)
			time.Sleep(time.Millisecond)
			set(t, s, 100)
		},
		"one team lost": func(_ *testing.T, s *rollouttest.Memory, old rollout.Snapshot) {
			s.ReadBack(rollout.Snapshot{StoreID: old.StoreID})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := rollouttest.NewMemory()
				set(t, store, 10)
				old, _ := store.Load(t.Context())
				set(t, store, 25)
				good, _ := store.Load(t.Context())
				table := newTable(t, rollout.TableOptions{Store: store})
				synctest.Wait()
				lose(t, store, old)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if !table.Regressed() || !errors.Is(table.Err(), rollout.ErrRegressed) {
					t.Fatalf("regressed %v, error %v", table.Regressed(), table.Err())
				}
				wantTable(t, table, 25, 2)
				calls := store.Calls()
				if _, err := table.Write(t.Context(), rollout.Change{Team: team, Percent: 0, Expect: rollout.AnyRevision}); !errors.Is(err, rollout.ErrRegressed) {
					t.Errorf("a change: %v, want ErrRegressed", err)
				}
				if store.Calls() != calls {
					t.Error("the refused change reached the store")
				}
				store.SetDown(true) // going away does not make it good
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if !table.Regressed() {
					t.Error("no longer regressed because the store is away")
				}
				store.SetDown(false)
				store.ReadBack(good)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if table.Regressed() || table.Err() != nil {
					t.Errorf("after the right store is back: %v", table.Err())
				}
				if s, err := table.Write(t.Context(), rollout.Change{Team: team, Percent: 30, Expect: 2}); err != nil || s.Revision != 3 {
					t.Errorf("a change: %+v, %v", s, err)
				}
			})
		})
	}
}

func TestANewStoreMayReplaceATableWithoutTeams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := rollouttest.NewMemory()
		table := newTable(t, rollout.TableOptions{Store: store})
		synctest.Wait()
		store.Flush()
		set(t, store, 25)
		synctest.Wait()
		if table.Regressed() {
			t.Errorf("nothing was known and something was lost: %v", table.Err())
		}
		wantTable(t, table, 25, 1)
	})
}

func TestTableKnowsItsOwnChangesAtOnce(t *testing.T) {
	store := rollouttest.NewMemory()
	store.SetMute(true)
	table := newTable(t, rollout.TableOptions{Store: store, Poll: time.Hour})
	if err := table.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Write(t.Context(), rollout.Change{Team: team, Percent: 25}); err != nil {
		t.Fatal(err)
	}
	wantTable(t, table, 25, 1)
	set(t, store, 30)
	if _, err := table.Write(t.Context(), rollout.Change{Team: team, Percent: 50, Expect: 1}); !errors.Is(err, rollout.ErrConflict) {
		t.Errorf("a change upon an old revision: %v", err)
	}
	store.Flush()
	if _, err := table.Write(t.Context(), rollout.Change{Team: team, Percent: 50, Expect: rollout.AnyRevision}); !errors.Is(err, rollout.ErrRegressed) {
		t.Errorf("a change before the table saw that the store was emptied: %v", err)
	}
}

// TestTableNeverGoesBack reads, writes and looks up at once: no reader ever
// sees a revision fall.
func TestTableNeverGoesBack(t *testing.T) {
	store := rollouttest.NewMemory()
	table := newTable(t, rollout.TableOptions{Store: store, Poll: time.Millisecond})
	if err := table.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			last := int64(0)
			for {
				s, _ := table.Lookup(team)
				if s.Revision < last {
					t.Errorf("revision %d after %d", s.Revision, last)
				}
				last = s.Revision
				select {
				case <-done:
					return
				default:
				}
			}
		})
		writers.Go(func() {
			for i := range 50 {
				if _, err := table.Write(t.Context(), rollout.Change{Team: team, Percent: rollout.Percent(i), Expect: rollout.AnyRevision}); err != nil {
					t.Errorf("Write: %v", err)
				}
				if err := table.Refresh(t.Context()); err != nil {
					t.Errorf("Refresh: %v", err)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	if s, _ := table.Lookup(team); s.Revision != 200 || table.Regressed() {
		t.Errorf("at the end: %+v, regressed %v", s, table.Regressed())
	}
}

func TestNewTableRefusesBadOptions(t *testing.T) {
	for _, opt := range []rollout.TableOptions{{}, {Store: rollouttest.NewMemory(), Poll: -1}, {Store: rollouttest.NewMemory(), Timeout: -1}} {
		if table, err := rollout.NewTable(opt); err == nil {
			_ = table.Close()
			t.Errorf("NewTable(%+v) gives no error", opt)
		}
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	table := tableOf(t, 1000)
	if n := testing.AllocsPerRun(100, func() { table.Lookup("team-500") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	table := tableOf(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		table.Lookup("team-500")
	}
}

// tableOf returns a table of n teams at 50 percent, and data-eng.
func tableOf(t testing.TB, n int) *rollout.Table {
	t.Helper()
	store := rollouttest.NewMemory()
	for i := range n {
		if _, err := store.Write(t.Context(), rollout.Change{Team: teamName(i), Percent: 50}); err != nil {
			t.Fatal(err)
		}
	}
	set(t, store, 50)
	table := newTable(t, rollout.TableOptions{Store: store, Poll: time.Hour})
	if err := table.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	return table
}

func teamName(i int) identity.Team { return identity.Team(fmt.Sprint("team-", i)) }

// cut is a store whose teams cannot all be read.
type cut struct {
	*rollouttest.Memory
	away identity.Team
}

func (c *cut) Load(ctx context.Context) (rollout.Snapshot, error) {
	s, err := c.Memory.Load(ctx)
	if err != nil || c.away == "" {
		return s, err
	}
	delete(s.Teams, c.away)
	return s, &rollout.PartialError{Teams: []identity.Team{c.away}, Err: errors.New("its node is away")}
}

func change(t *testing.T, s rollout.Writer, team identity.Team, percent rollout.Percent) {
	t.Helper()
	if _, err := s.Write(t.Context(), rollout.Change{Team: team, Percent: percent, Expect: rollout.AnyRevision}); err != nil {
		t.Fatal(err)
	}
}

func TestATeamThatCannotBeReadStaysAndTheOthersFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &cut{Memory: rollouttest.NewMemory()}
		change(t, store, team, 25)
		change(t, store, "other", 10)
		table := newTable(t, rollout.TableOptions{Store: store, Poll: time.Hour})
		synctest.Wait()
		at := table.LoadedAt()
		time.Sleep(time.Minute)
		store.away = team
		change(t, store, team, 75) // of which nobody can know yet
		change(t, store, "other", 50)
		err := table.Refresh(t.Context())
		if !errors.Is(err, rollout.ErrUnavailable) || err.Error() != "of "+string(team)+" nothing can be read, all other teams can: its node is away" {
			t.Errorf("the error: %v", err)
		}
		wantTable(t, table, 25, 1)
		if other, _ := table.Lookup("other"); other.Percent != 50 {
			t.Errorf("the other team is at %s%%", other.Percent)
		}
		if !table.LoadedAt().Equal(at) {
			t.Errorf("the table is of %s, what is away of %s", table.LoadedAt(), at)
		}
		store.away = ""
		if err := table.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantTable(t, table, 75, 2)
	})
}

func TestAPartOfTheTeamsIsNoFirstReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &cut{Memory: rollouttest.NewMemory(), away: team}
		change(t, store, team, 25)
		table := newTable(t, rollout.TableOptions{Store: store})
		time.Sleep(time.Minute)
		if table.Loaded() || !errors.Is(table.Err(), rollout.ErrUnavailable) {
			t.Errorf("loaded: %t, %v", table.Loaded(), table.Err())
		}
	})
}

func TestAStoreThatRegressedIsNotMendedByWhatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &cut{Memory: rollouttest.NewMemory()}
		change(t, store, "other", 10)
		change(t, store, team, 25)
		old, err := store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		change(t, store, team, 50)
		table := newTable(t, rollout.TableOptions{Store: store, Poll: time.Hour})
		synctest.Wait()
		store.ReadBack(old)
		_ = table.Refresh(t.Context())
		if !table.Regressed() {
			t.Fatal("it is not noticed")
		}
		store.away = team
		_ = table.Refresh(t.Context())
		if !table.Regressed() {
			t.Error("it has not regressed any more, since the team is away")
		}
		wantTable(t, table, 50, 2)
	})
}

func TestWhatIsLostIsSeenWhileAnotherTeamIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &cut{Memory: rollouttest.NewMemory()}
		change(t, store, "other", 10)
		change(t, store, team, 25)
		old, err := store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		change(t, store, team, 50)
		table := newTable(t, rollout.TableOptions{Store: store, Poll: time.Hour})
		synctest.Wait()
		store.ReadBack(old)
		store.away = "other"
		_ = table.Refresh(t.Context())
		if !table.Regressed() {
			t.Error("it is not noticed")
		}
		wantTable(t, table, 50, 2)
	})
}

func TestATeamThatCanBeReadIsChangedWhileAnotherIsAway(t *testing.T) {
	store := &cut{Memory: rollouttest.NewMemory(), away: "other"}
	to := func(percent rollout.Percent) func(rollout.State) (rollout.Change, error) {
		return func(s rollout.State) (rollout.Change, error) {
			return rollout.Set(s, rollout.Setting{Percent: percent}, time.Now()), nil
		}
	}
	if s, err := rollout.Update(t.Context(), store, team, to(25)); err != nil || s.Percent != 25 {
		t.Errorf("the team: %+v, %v", s, err)
	}
	if _, err := rollout.Update(t.Context(), store, "other", to(25)); !errors.Is(err, rollout.ErrUnavailable) {
		t.Errorf("the one that is away: %v", err)
	}
}

func TestAPartialErrorNamesAFewTeams(t *testing.T) {
	e := &rollout.PartialError{Teams: []identity.Team{"a", "b", "c", "d", "e", "f", "g"}, Err: errors.New("why")}
	if got, want := e.Error(), "of a, b, c, d, e, 2 more nothing can be read, all other teams can: why"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
