package luigitest

import (
	"fmt"
	"testing"
	"time"

	"crossfade/gateway/luigi"
)

// Clocked is a store whose clock a test moves.
type Clocked struct {
	luigi.Store
	// Now returns the time by the store's clock.
	Now func() time.Time
	// Advance lets time go by.
	Advance func(time.Duration)
}

// TestLives runs the part of the conformance suite that lets time go by, for
// stores whose clock can be moved. newStore returns an empty store that is
// closed by t.Cleanup.
func TestLives(t *testing.T, newStore func(t *testing.T) Clocked) {
	for name, test := range map[string]func(*testing.T, Clocked){
		"a worker's name is free fifteen minutes after its last request": tieEnds,
		"another principal's requests do not prolong a tie":              tieOfAnother,
		"a worker that is gone gives no sign of life":                    seenEnds,
		"a family is forgotten a day after the last call about its id":   familyEnds,
		"a family is known while an execution of it is under way":        familyStays,
		"an execution is forgotten after seven days":                     executionEnds,
		"an end is remembered for fifteen minutes":                       endEnds,
	} {
		t.Run(name, func(t *testing.T) { test(t, newStore(t)) })
	}
}

// little is a time that is lost in no test.
const little = 5 * time.Second

func tieEnds(t *testing.T, s Clocked) {
	first, other := luigi.Owner{Principal: "svc-etl", Token: true}, luigi.Owner{Principal: "svc-billing"}
	for i, call := range []func(){
		func() { tie(t, s, "w1", first) },
		func() { tie(t, s, "w1", luigi.Owner{Principal: "svc-etl"}) },
		func() { alive(t, s, luigi.Alive{Worker: "w1", Owner: first}) },
	} {
		call()
		s.Advance(luigi.WorkerTie - little)
		if got := tie(t, s, "w1", other); got != first {
			t.Errorf("after call %d the owner is %+v, want %+v", i, got, first)
		}
	}
	s.Advance(2 * little)
	same(t, "the owner in the end", tie(t, s, "w1", other), other)
	s.Advance(luigi.WorkerTie + little)
	same(t, "the first again, as if new", tie(t, s, "w1", luigi.Owner{Principal: "svc-etl"}), luigi.Owner{Principal: "svc-etl"})
}

func tieOfAnother(t *testing.T, s Clocked) {
	first, other := luigi.Owner{Principal: "svc-etl"}, luigi.Owner{Principal: "svc-billing"}
	tie(t, s, "w1", first)
	for range 2 {
		s.Advance(luigi.WorkerTie / 3)
		same(t, "the owner", tie(t, s, "w1", other), first)
		alive(t, s, luigi.Alive{Worker: "w1", Owner: other})
	}
	s.Advance(luigi.WorkerTie/3 + little)
	same(t, "the owner in the end", tie(t, s, "w1", other), other)
}

func seenEnds(t *testing.T, s Clocked) {
	begun := whole(s.Now())
	start(t, s, execution("Load_1", "w1", begun))
	// By a clock that is wrong by a day.
	tie(t, s, "w1", luigi.Owner{Principal: "svc-etl", Seen: begun.Add(24 * time.Hour)})
	s.Advance(luigi.WorkerTie - little)
	same(t, "while it is tied", abandoned(t, s, s.Now().Add(-luigi.AbandonedAfter), 10), map[string]int{})
	s.Advance(2*little + luigi.AbandonedAfter)
	same(t, "when it is gone", abandoned(t, s, s.Now().Add(-luigi.AbandonedAfter), 10), map[string]int{"Load_1": 1})
}

func familyEnds(t *testing.T, s Clocked) {
	register(t, s, luigi.Registered{Task: "Load_1", Family: "Load"})
	for i, call := range []func(){
		func() {},
		func() { task(t, s, "Load_1") },
		func() { register(t, s, luigi.Registered{Task: "Load_1", Family: "Other"}) },
		func() { start(t, s, execution("Load_1", "w1", whole(s.Now()))); end(t, s, "Load_1", "w1") },
		func() { end(t, s, "Load_1", "w2") },
	} {
		call()
		s.Advance(luigi.TaskMemory - little)
		if got := task(t, s, "Load_1").Family; got != "Load" {
			t.Errorf("after call %d the family is %q", i, got)
		}
	}
	s.Advance(luigi.TaskMemory + little)
	same(t, "in the end", task(t, s, "Load_1"), luigi.Task{})
	register(t, s, luigi.Registered{Task: "Load_1", Family: "Other"})
	same(t, "registered again", task(t, s, "Load_1").Family, "Other")
}

func familyStays(t *testing.T, s Clocked) {
	e := execution("Load_1", "w1", whole(s.Now()))
	start(t, s, e)
	s.Advance(luigi.LongestTask - little)
	same(t, "just before it is forgotten", task(t, s, "Load_1"), luigi.Task{Family: "Load", Started: &e})
	s.Advance(luigi.TaskMemory - little)
	same(t, "after", task(t, s, "Load_1"), luigi.Task{Family: "Load"})

	start(t, s, execution("Load_2", "w1", whole(s.Now())))
	s.Advance(3 * luigi.TaskMemory)
	same(t, "abandoned after days", abandoned(t, s, s.Now(), 10), map[string]int{"Load_2": 1})
	same(t, "then", task(t, s, "Load_2"), luigi.Task{Family: "Load"})
	s.Advance(luigi.TaskMemory + little)
	same(t, "a day later", task(t, s, "Load_2"), luigi.Task{})
}

func executionEnds(t *testing.T, s Clocked) {
	// The clock of the replica runs an hour ahead, and the seven days do not.
	for i, ahead := range []time.Duration{0, time.Hour} {
		id := fmt.Sprint("Load_", i)
		start(t, s, execution(id, "w1", whole(s.Now().Add(ahead))))
		for range 7 {
			s.Advance(luigi.LongestTask/7 - little)
			if task(t, s, id).Started == nil {
				t.Fatalf("%s is forgotten too early", id)
			}
		}
		s.Advance(8 * little)
		same(t, "under way", task(t, s, id), luigi.Task{Family: "Load"})
		same(t, "abandoned", abandoned(t, s, s.Now(), 10), map[string]int{})
		wantEnd(t, s, "the end", id, "w1", nil, true)
	}
}

func endEnds(t *testing.T, s Clocked) {
	e := execution("Load_1", "w1", whole(s.Now()))
	start(t, s, e)
	wantEnd(t, s, "the end", "Load_1", "w1", &e, true)
	wantEnd(t, s, "the end of what nobody registered", "Load_2", "w1", nil, true)
	s.Advance(luigi.WorkerTie - little)
	for _, id := range []string{"Load_1", "Load_2"} {
		wantEnd(t, s, id+" just before it is forgotten", id, "w1", nil, false)
	}
	s.Advance(2 * little)
	for _, id := range []string{"Load_1", "Load_2"} {
		wantEnd(t, s, id+" afterwards", id, "w1", nil, true)
	}
	same(t, "what nobody registered", task(t, s, "Load_2"), luigi.Task{})
}
