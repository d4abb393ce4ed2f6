package evidence_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"crossfade/gateway/identity"
	"crossfade/rollout"
	"crossfade/rollout/evidence"
)

// cluster is a store of which some teams can be away. It takes each part of a team
// once, as stores do, in order only.
type cluster struct {
	mu     sync.Mutex
	away   map[identity.Team]bool
	hangs  bool // whoever needs a team that is away waits for it
	seq    map[identity.Team]int64
	counts map[identity.Team]int64
	lost   map[identity.Team]int64
	from   map[identity.Team]time.Time // of the last part
	at     map[identity.Team]time.Time // when it was recorded
}

func newCluster(away ...identity.Team) *cluster {
	c := &cluster{
		away: make(map[identity.Team]bool), seq: make(map[identity.Team]int64), counts: make(map[identity.Team]int64),
		lost: make(map[identity.Team]int64), from: make(map[identity.Team]time.Time), at: make(map[identity.Team]time.Time),
	}
	for _, team := range away {
		c.away[team] = true
	}
	return c
}

func (c *cluster) set(team identity.Team, away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away[team] = away
}

func (c *cluster) Record(ctx context.Context, b evidence.Batch) error {
	partial := &evidence.PartialError{Err: rollout.ErrUnavailable}
	hangs := c.take(b, partial)
	if len(partial.Teams) == 0 {
		return nil
	}
	if hangs {
		<-ctx.Done()
	}
	return partial
}

func (c *cluster) take(b evidence.Batch, partial *evidence.PartialError) (hangs bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, team := range slices.Sorted(maps.Keys(b.Teams)) {
		if c.away[team] {
			partial.Teams = append(partial.Teams, team)
			continue
		}
		part := b.Teams[team]
		if seq := cmp.Or(part.Seq, b.Seq); seq > c.seq[team] {
			c.seq[team] = seq
			c.counts[team] += part.Requests()
			c.lost[team] += part.Lost
			c.from[team], c.at[team] = b.Of(team).From, time.Now()
		}
	}
	return c.hangs
}

func (c *cluster) counted(team identity.Team) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[team]
}

// of is what a request of a team teaches.
func of(team identity.Team, run string) *evidence.Observation {
	o := sees("svc", run, evidence.Clean)
	o.Team = team
	return o
}

func TestATeamThatCannotBeReachedHoldsNobodyElseUp(t *testing.T) {
	for name, hangs := range map[string]bool{"refused at once": false, "hanging": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster("dead", "dying")
				c.hangs = hangs
				c.set("dying", false)
				var told []bool
				r := newRecorder(t, evidence.RecorderOptions{Store: c, Report: func(err error) { told = append(told, err == nil) }})
				for i := range 600 {
					if i == 300 {
						c.set("dying", true)
					}
					for _, team := range []identity.Team{"dead", "dying", "well"} {
						r.Observe(of(team, fmt.Sprint("w", i%20)))
					}
					time.Sleep(time.Second)
					if got, least := c.counted("well"), int64(i-8); got < least {
						t.Fatalf("after %d seconds %d requests of the team that is well are recorded", i, got)
					}
				}
				if c.counted("dead") != 0 || c.counted("dying") > 300 {
					t.Errorf("recorded of those that are away: %d, %d", c.counted("dead"), c.counted("dying"))
				}
				c.set("dead", false)
				c.set("dying", false)
				time.Sleep(3 * time.Minute) // attempts last longer and longer
				synctest.Wait()
				for _, team := range []identity.Team{"dead", "dying", "well"} {
					if n := c.counted(team); n != 600 {
						t.Errorf("%d requests of %s are recorded, want 600", n, team)
					}
				}
				closing(t, r)
				if r.Lost() != 0 || !slices.Equal(told, []bool{false, true}) {
					t.Errorf("lost %d, told %v", r.Lost(), told)
				}
			})
		})
	}
}

func TestOneTeamThatWaitsMakesNoOtherLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("away")
		r := newRecorder(t, evidence.RecorderOptions{Store: c})
		defer closing(t, r)
		r.Observe(of("away", "w1"))
		for range 20 {
			r.Observe(of("near", "w1"))
			time.Sleep(time.Second)
		}
		waiting := r.Behind()
		if d := time.Since(waiting["away"]); len(waiting) != 1 || d < 18*time.Second || d > 22*time.Second {
			t.Errorf("it is %s late: %v", d, waiting)
		}
		if d := time.Since(r.Until()); d > 2*evidence.DefaultEvery {
			t.Errorf("the others are %s late", d)
		}
		c.set("away", false)
		time.Sleep(5 * time.Second)
		if waiting := r.Behind(); len(waiting) > 0 {
			t.Errorf("once it is recorded: %v", waiting)
		}
	})
}

func TestATeamIsLateUntilWhatWasFoldedMeanwhileIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("away")
		r := newRecorder(t, evidence.RecorderOptions{Store: c})
		defer closing(t, r)
		sent := int64(0)
		for range 20 {
			r.Observe(of("away", "w1"))
			sent++
			time.Sleep(time.Second)
		}
		c.set("away", false)
		for range 600 {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			recorded := c.counted("away") == sent
			if late := len(r.Behind()) > 0; !late && !recorded {
				t.Fatalf("%d of %d requests are recorded, and it is not late any more", c.counted("away"), sent)
			} else if !late {
				return
			}
		}
		t.Errorf("it is late for ever: %v, recorded %d of %d", r.Behind(), c.counted("away"), sent)
	})
}

func TestWhatWaitsForATeamIsBoundedAndItsLossesAreItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("dead")
		r := newRecorder(t, evidence.RecorderOptions{Store: c, MaxRuns: 100})
		began := time.Now()
		sent := int64(0)
		for i := range 100 {
			for j := range 5 { // of as many accounts, or they would be too many of one
				o := of("dead", fmt.Sprint("w", i, j))
				o.Account = fmt.Sprint("svc", j)
				r.Observe(o)
				sent++
			}
			r.Observe(of("well", fmt.Sprint("w", i)))
			time.Sleep(2 * time.Second)
		}
		synctest.Wait()
		if n := c.counted("well"); n != 100 || c.lost["well"] != 0 {
			t.Errorf("of the team that is well %d requests are recorded and %d lost", n, c.lost["well"])
		}
		c.set("dead", false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		// 5 waited for the store, 50 were folded; the others found no room.
		if lost := c.lost["dead"]; c.counted("dead") != sent || lost != sent-55 || lost != r.Lost() {
			t.Errorf("recorded %d and lost %d of %d, the recorder says %d", c.counted("dead"), lost, sent, r.Lost())
		}
		if from := c.from["dead"]; from.Sub(began) > 10*time.Second {
			t.Errorf("what was lost is said to be of the time from %s on", from.Sub(began))
		}
		closing(t, r)
	})
}

func TestABurstIsLostByTeam(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		r := newRecorder(t, evidence.RecorderOptions{Store: c})
		const burst = 100_000
		for i := range burst {
			r.Observe(of("flood", fmt.Sprint("w", i%10)))
			if i == burst/2 {
				r.Observe(of("quiet", "w"))
			}
		}
		closing(t, r)
		if n := c.counts["flood"] + c.lost["flood"]; n != burst || c.lost["flood"] == 0 {
			t.Errorf("of the flood %d are recorded and %d lost, want %d in all", c.counts["flood"], c.lost["flood"], burst)
		}
		if c.counts["quiet"]+c.lost["quiet"] != 1 || r.Lost() != c.lost["flood"]+c.lost["quiet"] || c.lost[""] != 0 {
			t.Errorf("of the other team %d are recorded and %d lost; of nobody %d", c.counts["quiet"], c.lost["quiet"], c.lost[""])
		}
	})
}

func TestTheEndCountsWhatWaits(t *testing.T) {
	for name, back := range map[string]bool{"the team is still away": false, "it came back just now": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster("dead")
				c.hangs = true
				r := newRecorder(t, evidence.RecorderOptions{Store: c})
				for range 10 {
					r.Observe(of("dead", "w"))
					r.Observe(of("well", "w"))
					time.Sleep(time.Second)
				}
				c.set("dead", !back)
				began := time.Now()
				closing(t, r)
				if took := time.Since(began); took > 3*evidence.DefaultTimeout {
					t.Errorf("the end took %s", took)
				}
				want := int64(0)
				if back {
					want = 10
				}
				if c.counts["well"] != 10 || c.counts["dead"] != want || r.Lost() != 10-want {
					t.Errorf("recorded %v, lost %d", c.counts, r.Lost())
				}
				if lost := len(r.Behind()) > 0; lost == back {
					t.Errorf("since when something is lost: %v", r.Behind())
				}
			})
		})
	}
}

func TestAPartialErrorSaysWhoWaits(t *testing.T) {
	err := error(&evidence.PartialError{Teams: []identity.Team{"", "a", "b", "c", "d", "e", "f"}, Lost: &evidence.LostError{}, Err: errors.New("refused")})
	var lost *evidence.LostError
	if want := "the evidence of nobody, a, b, c, d, 2 more waits, that of all other teams is recorded: refused"; err.Error() != want || !errors.Is(err, rollout.ErrUnavailable) || errors.As(err, &lost) {
		t.Errorf("%v, lost %v", err, lost)
	}
}

func TestTheEndWaitsForWhatIsUnderWay(t *testing.T) {
	for name, back := range map[string]bool{"the team stays away": false, "it comes back meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster("dying")
				c.hangs = true
				r := newRecorder(t, evidence.RecorderOptions{Store: c})
				r.Observe(of("dying", "w"))
				time.Sleep(evidence.DefaultEvery + 100*time.Millisecond) // the first batch is on its way
				r.Observe(of("dying", "w"))
				r.Observe(of("well", "w"))
				if back {
					c.set("dying", false)
				}
				closing(t, r)
				want := int64(0)
				if back {
					want = 2
				}
				if c.counts["well"] != 1 || c.counts["dying"] != want || r.Lost() != 2-want {
					t.Errorf("recorded %v, lost %d", c.counts, r.Lost())
				}
			})
		})
	}
}
