package redisstore_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/gateway/luigi/luigitest"
	"crossfade/rollout/redisstore"
)

// answer is all that a call of a luigi.Store may return.
type answer struct {
	Task     luigi.Task
	Owner    luigi.Owner
	Started  *luigi.Started
	First    bool
	GivenUp  []luigi.Started
	Complain string
}

// TestLuigiFollowsTheModel makes the same calls of the store in memory and of
// one on the Redis in the process, with the same clock, and compares what they
// answer.
func TestLuigiFollowsTheModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		p, err := redisstore.NewInProcess()
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = p.Close() }()
		s := clocked(p)
		model := luigitest.NewMemory(s.Now)
		for i := range rapid.IntRange(1, 60).Draw(rt, "calls") {
			name, call := drawCall(rt, s)
			want, got := call(t, model), call(t, s)
			if diff := cmp.Diff(want, got); diff != "" {
				rt.Fatalf("call %d, %s (-model +redis):\n%s", i, name, diff)
			}
		}
	})
}

// drawCall returns one call. It lets time go by for both stores first.
func drawCall(rt *rapid.T, s luigitest.Clocked) (name string, call func(*testing.T, luigi.Store) answer) {
	if rapid.IntRange(0, 3).Draw(rt, "time goes by") == 0 {
		s.Advance(rapid.SampledFrom([]time.Duration{
			time.Millisecond, time.Minute, 7 * time.Minute, 15 * time.Minute, 9 * time.Hour, 24 * time.Hour, 3 * 24 * time.Hour,
		}).Draw(rt, "by"))
	}
	moment := func(name string, minutes ...int) time.Time {
		return s.Now().Add(time.Duration(rapid.SampledFrom(minutes).Draw(rt, name)) * time.Minute)
	}
	one := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(rt, name) }
	id, worker, family := one("task", "Load_1", "Load_2", "}{"), one("worker", "w1", "w2", "1 2:w"), one("family", "", "Load", "Other")
	owner := luigi.Owner{
		Principal: one("principal", "p", "q"), Team: identity.Team(one("team", "a", "b")),
		Token: rapid.Bool().Draw(rt, "token"), Seen: moment("seen", -8*24*60, -30, -10, -2, -1, 0),
	}
	heard := time.Time{}
	if rapid.Bool().Draw(rt, "refused") {
		heard = moment("heard", -30, -10, -2, -1, 0)
	}
	switch one("call", "task", "register", "tie", "alive", "start", "start", "end", "abandoned") {
	case "task":
		return "Task " + id, func(t *testing.T, s luigi.Store) answer {
			task, err := s.Task(t.Context(), id)
			return answer{Task: task, Complain: fmt.Sprint(err)}
		}
	case "register":
		return "Register " + id + " " + family, func(t *testing.T, s luigi.Store) answer {
			return answer{Complain: fmt.Sprint(s.Register(t.Context(), []luigi.Registered{{Task: id, Family: family}, {Task: "Load_1", Family: "Third"}}))}
		}
	case "tie":
		return fmt.Sprintf("Tie %s %+v", worker, owner), func(t *testing.T, s luigi.Store) answer {
			got, err := s.Tie(t.Context(), worker, owner)
			return answer{Owner: got, Complain: fmt.Sprint(err)}
		}
	case "alive":
		return fmt.Sprintf("Alive %s %+v, heard %v", worker, owner, heard), func(t *testing.T, s luigi.Store) answer {
			err := s.Alive(t.Context(), []luigi.Alive{{Worker: worker, Owner: owner, Heard: heard}, {Worker: "w1", Owner: owner}})
			return answer{Complain: fmt.Sprint(err)}
		}
	case "start":
		e := luigi.Started{Task: id, Family: family, Worker: worker, At: moment("at", -8*24*60, -30, -10, -2, -1, 0, 0, 1, 30)}
		return fmt.Sprintf("Start %+v", e), func(t *testing.T, s luigi.Store) answer {
			replaced, err := s.Start(t.Context(), e)
			return answer{Started: replaced, Complain: fmt.Sprint(err)}
		}
	case "end":
		return "End " + id + " " + worker, func(t *testing.T, s luigi.Store) answer {
			started, first, err := s.End(t.Context(), id, worker)
			return answer{Started: started, First: first, Complain: fmt.Sprint(err)}
		}
	default:
		before := moment("before", -10, -2, -1, 0, 1, 30)
		return fmt.Sprint("Abandoned ", before), func(t *testing.T, s luigi.Store) answer {
			got, err := s.Abandoned(t.Context(), before, 10)
			slices.SortFunc(got, func(a, b luigi.Started) int { return strings.Compare(a.Task, b.Task) })
			return answer{GivenUp: got, Complain: fmt.Sprint(err)}
		}
	}
}
