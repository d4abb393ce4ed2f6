package luigi_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/luigi"
	"crossfade/gateway/luigi/luigitest"
)

var errAway = errors.New("connection refused")

// cable is the way to a store. While it is cut, every call fails at once; while
// it is slow, every call takes as long as its context lets it.
type cable struct {
	luigi.Store
	cut, slow atomic.Bool
	calls     atomic.Int64
}

func (c *cable) through(ctx context.Context) error {
	c.calls.Add(1)
	if c.slow.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if c.cut.Load() {
		return errAway
	}
	return nil
}

func (c *cable) Task(ctx context.Context, id string) (luigi.Task, error) {
	if err := c.through(ctx); err != nil {
		return luigi.Task{}, err
	}
	return c.Store.Task(ctx, id)
}

func (c *cable) Tie(ctx context.Context, worker string, o luigi.Owner) (luigi.Owner, error) {
	if err := c.through(ctx); err != nil {
		return luigi.Owner{}, err
	}
	return c.Store.Tie(ctx, worker, o)
}

func (c *cable) Start(ctx context.Context, s luigi.Started) (*luigi.Started, error) {
	if err := c.through(ctx); err != nil {
		return nil, err
	}
	return c.Store.Start(ctx, s)
}

func (c *cable) End(ctx context.Context, task, worker string) (*luigi.Started, bool, error) {
	if err := c.through(ctx); err != nil {
		return nil, false, err
	}
	return c.Store.End(ctx, task, worker)
}

func (c *cable) Alive(ctx context.Context, signs []luigi.Alive) error {
	if err := c.through(ctx); err != nil {
		return err
	}
	return c.Store.Alive(ctx, signs)
}

// replica is a registry and what it told of abandoned executions.
type replica struct {
	*luigi.Registry
	cable *cable
	mu    sync.Mutex
	gone  []luigi.Execution
}

func (r *replica) abandoned() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.gone {
		out = append(out, fmt.Sprintf("%s by %s: %s", e.Task, e.Worker, e.Outcome))
	}
	return out
}

// replicas are several that share a store; call within a synctest bubble.
func replicas(t *testing.T, n int) []*replica {
	t.Helper()
	store := luigitest.NewMemory(nil)
	all := make([]*replica, n)
	for i := range all {
		r := &replica{cable: &cable{Store: store}}
		var err error
		r.Registry, err = luigi.NewRegistry(luigi.RegistryOptions{
			Store: r.cable,
			Abandoned: func(e luigi.Execution) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.gone = append(r.gone, e)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		all[i] = r
	}
	return all
}

// oracle is a scheduler that knows everything, and counts who asks.
type oracle struct {
	family string
	err    error
	asked  atomic.Int64
}

func (o *oracle) Family(context.Context, string) (string, error) {
	o.asked.Add(1)
	time.Sleep(10 * time.Millisecond)
	return o.family, o.err
}

func family(t *testing.T, r *replica, task string, ask luigi.Asker) string {
	t.Helper()
	f, err := r.Family(t.Context(), task, ask)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWhatOneReplicaLearnsTheOthersKnowSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 2)
		r[0].Learn("A_1", "A")
		r[0].Learn("A_1", "B") // the first one is the scheduler's
		if got := r[0].Known("A_1"); got != "A" {
			t.Errorf("known as %q", got)
		}
		time.Sleep(200 * time.Millisecond)
		if got := family(t, r[1], "A_1", nil); got != "A" {
			t.Errorf("the other replica knows %q", got)
		}
		if got := family(t, r[1], "B_1", nil); got != "" {
			t.Errorf("nobody told of it, and it is %q", got)
		}
	})
}

func TestAThousandWhoWaitForOneTaskAskOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 1)[0]
		scheduler := &oracle{family: "A"}
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if got, err := r.Family(t.Context(), "A_1", scheduler); got != "A" || err != nil {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
		wg.Wait()
		if n := scheduler.asked.Load(); n != 1 {
			t.Errorf("the scheduler was asked %d times", n)
		}
	})
}

func TestWhoHangsUpDoesNotEndTheQuestionForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 1)[0]
		scheduler := &oracle{family: "A"}
		gone, cancel := context.WithCancel(t.Context())
		go func() { _, _ = r.Family(gone, "A_1", scheduler) }()
		synctest.Wait()
		cancel()
		if got, err := r.Family(t.Context(), "A_1", scheduler); got != "A" || err != nil || scheduler.asked.Load() != 1 {
			t.Errorf("%q, %v after %d questions", got, err, scheduler.asked.Load())
		}
	})
}

func TestWhoWantsTheSchedulerAskedDoesNotJoinWhoDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 1)[0]
		r.cable.slow.Store(true) // both are under way while the store is asked
		go func() { _, _ = r.Family(t.Context(), "A_1", nil) }()
		synctest.Wait()
		if got := family(t, r, "A_1", &oracle{family: "A"}); got != "A" {
			t.Errorf("%q", got)
		}
	})
}

func TestWithoutTheStoreTheSchedulerIsAskedAndWithoutBothItIsUnresolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 1)[0]
		r.cable.slow.Store(true)
		began := time.Now()
		if got := family(t, r, "A_1", &oracle{family: "A"}); got != "A" {
			t.Errorf("%q", got)
		}
		if waited := time.Since(began); waited > 60*time.Millisecond+10*time.Millisecond {
			t.Errorf("waited %v for a store that hangs", waited)
		}
		_, err := r.Family(t.Context(), "B_1", &oracle{err: errAway})
		if !errors.Is(err, luigi.ErrUnresolved) || !errors.Is(err, errAway) {
			t.Errorf("%v", err)
		}
		began = time.Now()
		family(t, r, "C_1", &oracle{family: "C"})
		if waited := time.Since(began); waited > 10*time.Millisecond {
			t.Errorf("the next one waited %v for the store that hangs", waited)
		}
	})
}

func TestAnExecutionThatStartsAndEndsOnTwoReplicasIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 2)
		start := luigi.Started{Task: "A_1", Family: "A", Worker: "w", By: luigi.Identity{Principal: "svc-etl"}}
		began := time.UnixMilli(time.Now().UnixMilli()).UTC()
		if e := r[0].Start(t.Context(), start); e != nil {
			t.Errorf("it has ended %+v", e)
		}
		time.Sleep(time.Second)
		r[1].Start(t.Context(), start) // the reply was lost, and came again by the other one
		unseen := &luigi.Started{Task: "A_1", Worker: "w"}
		got := r[1].End(t.Context(), "A_1", "w", luigi.Done, unseen)
		want := &luigi.Execution{Started: start, Ended: began.Add(time.Second), Outcome: luigi.Done}
		want.At = began
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if again := r[0].End(t.Context(), "A_1", "w", luigi.Done, unseen); again != nil {
			t.Errorf("told again: %+v", again)
		}
	})
}

func TestWhileTheStoreIsAwayAnExecutionIsToldByWhoSawIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 1)[0]
		r.cable.cut.Store(true)
		r.Start(t.Context(), luigi.Started{Task: "A_1", Family: "A", Worker: "w"})
		got := r.End(t.Context(), "A_1", "w", luigi.Failed, &luigi.Started{Task: "A_1", Worker: "w"})
		if got == nil || got.At.IsZero() || got.Outcome != luigi.Failed {
			t.Errorf("%+v", got)
		}
		if got := r.End(t.Context(), "B_1", "w", luigi.Done, nil); got != nil {
			t.Errorf("nothing says that it was executed: %+v", got)
		}
	})
}

func TestAnExecutionWhoseWorkerIsGoneIsToldOnceByOneReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 3)
		for _, worker := range []string{"dies", "lives"} {
			r[0].Owner(t.Context(), worker, "svc-etl", "data-eng")
			r[0].Start(t.Context(), luigi.Started{Task: "A_" + worker, Family: "A", Worker: worker})
			r[0].Accepted(worker, "svc-etl")
		}
		told := func() (all []string) {
			for _, one := range r {
				all = append(all, one.abandoned()...)
			}
			return all
		}
		for range 55 { // the worker that lives pings another replica
			time.Sleep(time.Second)
			r[1].Owner(t.Context(), "lives", "svc-etl", "data-eng")
			r[1].Accepted("lives", "svc-etl")
		}
		if early := told(); len(early) > 0 {
			t.Errorf("told before a minute is over: %v", early)
		}
		for range 245 {
			time.Sleep(time.Second)
			r[1].Accepted("lives", "svc-etl")
		}
		if diff := cmp.Diff([]string{"A_dies by dies: abandoned"}, told()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if r[0].Started(t.Context(), "A_dies") != nil {
			t.Error("an abandoned task is still under way")
		}
	})
}

func TestAWorkersNameIsTheFirstPrincipalsOnEveryReplicaUntilItIsNoMoreUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 2)
		owner := func(i int, principal string) string {
			return r[i].Owner(t.Context(), "w", principal, "data-eng").Principal
		}
		use := func(i int) { r[i].Accepted("w", "svc-etl") }
		if got := owner(0, "svc-etl"); got != "svc-etl" {
			t.Fatal(got)
		}
		use(0)
		if got := owner(1, "mallory"); got != "svc-etl" {
			t.Errorf("on the other replica it is %s", got)
		}
		asked := r[1].cable.calls.Load()
		for range 100 {
			owner(1, "mallory")
		}
		if n := r[1].cable.calls.Load() - asked; n > 0 {
			t.Errorf("a stranger who insists costs %d questions", n)
		}
		for range 20 { // every minute
			time.Sleep(time.Minute)
			use(0)
			owner(0, "svc-etl")
		}
		if got := owner(1, "mallory"); got != "svc-etl" {
			t.Errorf("after twenty minutes in use it is %s", got)
		}
		time.Sleep(luigi.WorkerTie + time.Minute)
		if got := owner(1, "new-owner"); got != "new-owner" {
			t.Errorf("a quarter of an hour after its last use it is %s", got)
		}
	})
}

func TestWhileTheStoreIsAwayAWorkersNameIsWhoseItIsHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 1)[0]
		r.cable.cut.Store(true)
		if got := r.Owner(t.Context(), "w", "svc-etl", "data-eng").Principal; got != "svc-etl" {
			t.Errorf("nobody can say whose it is, and it is %q", got)
		}
		time.Sleep(10 * time.Second)
		if got := r.Owner(t.Context(), "w", "mallory", "data-eng").Principal; got != "svc-etl" {
			t.Errorf("it changed hands: %q", got)
		}
		r.Accepted("w", "svc-etl")
		r.cable.cut.Store(false)
		time.Sleep(30 * time.Second)
		if o, err := r.cable.Owner(t.Context(), "w"); o.Principal != "svc-etl" || err != nil {
			t.Errorf("the store did not hear of it: %+v, %v", o, err)
		}
	})
}

func TestWhoeverLooksUpAWorkerDoesNotTakeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 2)
		if o := r[0].Speaks(t.Context(), "w"); o != (luigi.Owner{}) {
			t.Errorf("%+v", o)
		}
		if got := r[0].Owner(t.Context(), "w", "svc-etl", "data-eng").Principal; got != "svc-etl" {
			t.Errorf("taken by looking: %q", got)
		}
		r[0].Brought("w", "svc-etl")
		r[0].Accepted("w", "svc-etl")
		r[0].Brought("w", "mallory")
		time.Sleep(time.Minute)
		if o := r[1].Speaks(t.Context(), "w"); o.Principal != "svc-etl" || !o.Token || o.Seen.IsZero() {
			t.Errorf("the other replica knows %+v", o)
		}
	})
}

func TestHugeNamesCostNoMoreThanTheirDigest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 2)
		huge := strings.Repeat("A", 1<<20)
		r[0].Owner(t.Context(), huge, "svc-etl", "data-eng")
		r[0].Start(t.Context(), luigi.Started{Task: huge + "_1", Family: huge, Module: huge, Worker: huge})
		if got := r[1].Owner(t.Context(), huge, "mallory", "x").Principal; got != "svc-etl" {
			t.Errorf("owner %q", got)
		}
		got := r[1].End(t.Context(), huge+"_1", huge, luigi.Done, &luigi.Started{})
		if got == nil || got.At.IsZero() || len(got.Task) > 300 || len(got.Worker) > 300 || len(got.Family) > 300 || len(got.Module) > 300 {
			t.Errorf("%+v", got)
		}
	})
}

func TestACloseSharesWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 2)
		r[0].Owner(t.Context(), "w", "svc-etl", "data-eng")
		r[0].Accepted("w", "svc-etl")
		for i := range 3000 {
			r[0].Learn(fmt.Sprint("A_", i), "A")
		}
		_ = r[0].Close()
		for i := range 3000 {
			if got := family(t, r[1], fmt.Sprint("A_", i), nil); got != "A" {
				t.Fatalf("family %q of the task %d", got, i)
			}
		}
		if o := r[1].Speaks(t.Context(), "w"); o.Seen.IsZero() {
			t.Errorf("%+v", o)
		}
	})
}

func TestARegistryNeedsAStore(t *testing.T) {
	t.Parallel()
	if _, err := luigi.NewRegistry(luigi.RegistryOptions{}); err == nil {
		t.Error("no error")
	}
}

func TestANameThatWasTakenWhileTheStoreWasAwayIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 2)
		r[0].Owner(t.Context(), "w", "svc-etl", "data-eng")
		r[0].Accepted("w", "svc-etl")
		r[1].cable.cut.Store(true)
		mallory := func() string { return r[1].Owner(t.Context(), "w", "mallory", "data-eng").Principal }
		if got := mallory(); got != "mallory" {
			t.Fatalf("nobody can say whose it is, and it is %q", got)
		}
		r[1].cable.cut.Store(false)
		for range 10 {
			time.Sleep(time.Second)
			mallory()
			r[1].Accepted("w", "mallory")
		}
		if got := mallory(); got != "svc-etl" {
			t.Errorf("ten seconds after the store is back, it is %s", got)
		}
		asked := r[0].cable.calls.Load()
		for range 100 {
			r[0].Owner(t.Context(), "w", "svc-etl", "data-eng")
		}
		if n := r[0].cable.calls.Load() - asked; n > 0 {
			t.Errorf("its owner costs %d questions", n)
		}
	})
}

func TestATaskIsNotAbandonedWhileItsWorkerIsRefusedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replicas(t, 2)
		r[0].Owner(t.Context(), "w", "svc-etl", "data-eng")
		r[0].Accepted("w", "svc-etl")
		r[0].Start(t.Context(), luigi.Started{Task: "A_1", Family: "A", Worker: "w", By: luigi.Identity{Principal: "svc-etl"}})
		seen := r[0].Speaks(t.Context(), "w").Seen
		for range 600 { // the worker pings another replica
			time.Sleep(time.Second)
			r[1].Speaks(t.Context(), "w")
			r[1].Refused("w", "svc-etl")
		}
		if r[0].Running(t.Context(), "A_1") == nil {
			t.Error("the task was given up while its worker was heard of")
		}
		if o := r[1].Whose(t.Context(), "w"); !o.Seen.Equal(seen) {
			t.Errorf("the last accepted request was at %v, want %v: others accept, and what is refused is not accepted", o.Seen, seen)
		}
		for range 100 {
			time.Sleep(time.Second)
			r[1].Refused("w", "mallory")
		}
		if r[0].Running(t.Context(), "A_1") != nil {
			t.Error("the task is kept by somebody else's requests")
		}
	})
}
