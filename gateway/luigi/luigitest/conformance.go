package luigitest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
)

// TestStore runs the conformance suite: what every luigi.Store must do.
// newStore returns an empty store that is closed by t.Cleanup.
func TestStore(t *testing.T, newStore func(t *testing.T) luigi.Store) {
	for name, test := range map[string]func(*testing.T, luigi.Store){
		"nothing is known of what nobody told of":                         emptyStore,
		"the first family of an id wins":                                  firstFamily,
		"many tasks are registered at once":                               manyTasks,
		"ids hold anything and are told apart":                            oddIDs,
		"a start is read back whole":                                      startReadBack,
		"what a caller does with its values changes nothing":              noSharedMemory,
		"a start that was delivered twice is one start":                   repeatedStart,
		"a start on another worker returns the one before, once":          replacedStart,
		"an end is told to one caller, and not again":                     endOnce,
		"an end without a start is told once":                             endWithoutStart,
		"another worker does not end an execution":                        endByAnother,
		"a task that runs again starts and ends again":                    runsAgain,
		"the ends of the last workers are remembered":                     rememberedEnds,
		"an execution of seven days ago is forgotten":                     oldExecution,
		"an execution without a sign of life is abandoned once":           abandonedOnce,
		"a sign of life keeps an execution":                               signsOfLife,
		"the dead are found behind many living":                           deadBehindLiving,
		"no more are abandoned than asked for, and all in the end":        abandonedLimit,
		"an abandoned task starts and is abandoned again":                 abandonedAgain,
		"the first owner of a worker wins":                                firstOwner,
		"what is known of an owner never falls back":                      ownerGrows,
		"signs of life tie workers as Tie does":                           aliveTies,
		"of a hundred ends one gets the execution":                        racingEnds,
		"of a hundred starts each but one is replaced, once":              racingStarts,
		"of a hundred starts and ends no execution is lost or told twice": racingStartsAndEnds,
		"two callers never get the same abandoned execution":              racingAbandoned,
		"an execution is ended or abandoned, not both":                    racingEndAndAbandoned,
		"two principals that race for a worker learn the same owner":      racingOwners,
		"a hundred families that race for an id leave one":                racingFamilies,
		"a call whose context has ended says so and changes nothing":      ended,
	} {
		t.Run(name, func(t *testing.T) { test(t, newStore(t)) })
	}
}

// racers is how many callers race in one test.
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

// ago returns a time before now in the form that stores keep.
func ago(d time.Duration) time.Time { return time.UnixMilli(time.Now().Add(-d).UnixMilli()).UTC() }

func text(s string) *string { return &s }

// execution returns one that has begun.
func execution(task, worker string, at time.Time) luigi.Started {
	return luigi.Started{
		Task: task, Family: "Load", Module: "etl.load", Worker: worker, At: at,
		Parameters: []luigi.Parameter{{Name: "date", Value: text("2030-01-02")}, {Name: "token"}},
		By: luigi.Identity{
			Principal: "svc-etl", Team: "data-eng", Scheme: "oidc", Issuer: "https://idp.test", TokenID: "t-1", Percent: 25,
			TraceID: "0af7651916cd43dd8448eb211c80319c", Configuration: "cfg",
		},
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func task(t *testing.T, s luigi.Store, id string) luigi.Task {
	t.Helper()
	got, err := s.Task(t.Context(), id)
	if err != nil {
		t.Fatalf("Task(%q): %v", id, err)
	}
	return got
}

func register(t *testing.T, s luigi.Store, tasks ...luigi.Registered) {
	t.Helper()
	if err := s.Register(t.Context(), tasks); err != nil {
		t.Fatalf("Register(%q): %v", tasks, err)
	}
}

func start(t *testing.T, s luigi.Store, e luigi.Started) *luigi.Started {
	t.Helper()
	replaced, err := s.Start(t.Context(), e)
	if err != nil {
		t.Fatalf("Start(%+v): %v", e, err)
	}
	return replaced
}

func end(t *testing.T, s luigi.Store, task, worker string) (*luigi.Started, bool) {
	t.Helper()
	started, first, err := s.End(t.Context(), task, worker)
	if err != nil {
		t.Fatalf("End(%q, %q): %v", task, worker, err)
	}
	return started, first
}

// wantEnd ends an execution and compares what is told of it.
func wantEnd(t *testing.T, s luigi.Store, what, task, worker string, want *luigi.Started, wantFirst bool) {
	t.Helper()
	started, first := end(t, s, task, worker)
	same(t, what, started, want)
	if first != wantFirst {
		t.Errorf("%s: first is %v, want %v", what, first, wantFirst)
	}
}

// abandoned returns the ids of the tasks that are given up.
func abandoned(t *testing.T, s luigi.Store, before time.Time, limit int) map[string]int {
	t.Helper()
	got, err := s.Abandoned(t.Context(), before, limit)
	if err != nil {
		t.Fatalf("Abandoned: %v", err)
	}
	ids := map[string]int{}
	for _, e := range got {
		ids[e.Task]++
	}
	return ids
}

func tie(t *testing.T, s luigi.Store, worker string, o luigi.Owner) luigi.Owner {
	t.Helper()
	got, err := s.Tie(t.Context(), worker, o)
	if err != nil {
		t.Fatalf("Tie(%q): %v", worker, err)
	}
	return got
}

func owner(t *testing.T, s luigi.Store, worker string) luigi.Owner {
	t.Helper()
	o, err := s.Owner(t.Context(), worker)
	if err != nil {
		t.Fatalf("Owner(%q): %v", worker, err)
	}
	return o
}

func alive(t *testing.T, s luigi.Store, signs ...luigi.Alive) {
	t.Helper()
	if err := s.Alive(t.Context(), signs); err != nil {
		t.Fatalf("Alive: %v", err)
	}
}

func emptyStore(t *testing.T, s luigi.Store) {
	same(t, "an unknown task", task(t, s, "Load_1"), luigi.Task{})
	same(t, "an unknown task, asked for again", task(t, s, "Load_1"), luigi.Task{})
	same(t, "abandoned", abandoned(t, s, ago(0), 10), map[string]int{})
	register(t, s)
	alive(t, s)
	register(t, s, luigi.Registered{Task: "Load_1"})
	same(t, "a task without a family", task(t, s, "Load_1"), luigi.Task{})
	register(t, s, luigi.Registered{Task: "Load_1", Family: "Load"})
	same(t, "and with one", task(t, s, "Load_1"), luigi.Task{Family: "Load"})
}

func firstFamily(t *testing.T, s luigi.Store) {
	register(t, s, luigi.Registered{Task: "Load_A_1", Family: "Load_A"}, luigi.Registered{Task: "Load_A_1", Family: "Load"})
	register(t, s, luigi.Registered{Task: "Load_A_1", Family: "Load"})
	same(t, "registered", task(t, s, "Load_A_1").Family, "Load_A")
	e := execution("Load_A_1", "w1", ago(0))
	start(t, s, e)
	same(t, "after a start under another", task(t, s, "Load_A_1"), luigi.Task{Family: "Load_A", Started: &e})
	end(t, s, "Load_A_1", "w1")
	same(t, "after the end", task(t, s, "Load_A_1"), luigi.Task{Family: "Load_A"})

	start(t, s, execution("Load_2", "w1", ago(0)))
	register(t, s, luigi.Registered{Task: "Load_2", Family: "Other"})
	same(t, "registered by a start", task(t, s, "Load_2").Family, "Load")
	nameless := execution("Load_3", "w1", ago(0))
	nameless.Family = ""
	start(t, s, nameless)
	same(t, "a start without a family", task(t, s, "Load_3"), luigi.Task{Started: &nameless})
	register(t, s, luigi.Registered{Task: "Load_3", Family: "Load"})
	same(t, "registered afterwards", task(t, s, "Load_3").Family, "Load")
}

func manyTasks(t *testing.T, s luigi.Store) {
	tasks := make([]luigi.Registered, 500)
	for i := range tasks {
		tasks[i] = luigi.Registered{Task: fmt.Sprintf("F%d_%d", i%7, i), Family: fmt.Sprint("F", i%7)}
	}
	register(t, s, tasks...)
	for _, r := range tasks {
		if got := task(t, s, r.Task).Family; got != r.Family {
			t.Errorf("family of %s is %q, want %q", r.Task, got, r.Family)
		}
	}
}

func oddIDs(t *testing.T, s luigi.Store) {
	long := strings.Repeat("x", 128)
	sum := sha256.Sum256([]byte(long + "xx"))
	ids := []string{
		"", " ", "a b", "a:b", "{a}", "{b}", "{}", "}{", "a\x00b", "a\r\nb", "\xff\xfe", "ü", "u\u0308", "*", "[a-z]", "1 2:x", "'\"\\",
		long, long + "x", long + "xx", long + "xy", strings.Repeat("y", 1<<17),
		"sha256:" + hex.EncodeToString(sum[:]), hex.EncodeToString(sum[:]), "sha256:",
	}
	for i, id := range ids {
		register(t, s, luigi.Registered{Task: id, Family: fmt.Sprint("F", i)})
		if got := tie(t, s, id, luigi.Owner{Principal: fmt.Sprint("p", i)}); got.Principal != fmt.Sprint("p", i) {
			t.Errorf("worker %.40q belongs to %q already", id, got.Principal)
		}
	}
	for i, id := range ids {
		if got, want := task(t, s, id).Family, fmt.Sprint("F", i); got != want {
			t.Errorf("task %.40q has family %q, want %q", id, got, want)
		}
	}
	// Those that JSON cannot hold are no ids: the scheduler speaks JSON.
	for i, id := range ids {
		if strings.ToValidUTF8(id, "") != id {
			continue
		}
		e := execution(id, id, ago(2*time.Hour).Add(time.Duration(i)*time.Millisecond))
		if replaced := start(t, s, e); replaced != nil {
			t.Errorf("task %.40q took the place of %+v", id, replaced)
		}
		wantEnd(t, s, fmt.Sprintf("the end of %.40q by another", id), id, id+"?", nil, true)
		wantEnd(t, s, fmt.Sprintf("the end of %.40q", id), id, id, &e, true)
		wantEnd(t, s, fmt.Sprintf("the end of %.40q by another again", id), id, id+"?", nil, false)
		start(t, s, e)
		got, err := s.Abandoned(t.Context(), ago(time.Hour), 10)
		if err != nil {
			t.Fatal(err)
		}
		same(t, fmt.Sprintf("%.40q abandoned", id), got, []luigi.Started{e})
	}
}

func startReadBack(t *testing.T, s luigi.Store) {
	batch := luigi.Started{
		Task: "Load_all", Family: "Load", Batch: []string{"Load_1", "Load_2"}, Worker: "w <&> \u2028 \"é\"", At: ago(0),
		By: luigi.Identity{Principal: "svc-etl", Team: "ünï-code", Scheme: "basic", Credential: "svc-etl"},
	}
	for _, e := range []luigi.Started{execution("Load_1", "w1", ago(time.Minute)), batch, {Task: "bare", At: ago(0)}} {
		if replaced := start(t, s, e); replaced != nil {
			t.Errorf("the first start of %s took the place of %+v", e.Task, replaced)
		}
		same(t, "read back", task(t, s, e.Task), luigi.Task{Family: e.Family, Started: &e})
	}
	fine := execution("Load_3", "w1", ago(0).Add(123456*time.Nanosecond).In(time.FixedZone("x", 3600)))
	start(t, s, fine)
	got := task(t, s, "Load_3").Started.At
	if want := time.UnixMilli(fine.At.UnixMilli()); !got.Equal(want) || got.Location() != time.UTC {
		t.Errorf("the time is %v, want %v in UTC", got, want)
	}
}

func noSharedMemory(t *testing.T, s luigi.Store) {
	e, want := execution("Load_1", "w1", ago(0)), execution("Load_1", "w1", ago(0))
	want.At = e.At
	start(t, s, e)
	*e.Parameters[0].Value, e.Parameters[1].Name = "changed", "changed"
	same(t, "after the caller changed what it passed", *task(t, s, "Load_1").Started, want)
	*task(t, s, "Load_1").Started.Parameters[0].Value = "changed"
	same(t, "after the caller changed what it got", *task(t, s, "Load_1").Started, want)
}

func repeatedStart(t *testing.T, s luigi.Store) {
	first, second := execution("Load_1", "w1", ago(3*time.Minute)), execution("Load_1", "w1", ago(2*time.Minute))
	second.By.TraceID = "another"
	start(t, s, first)
	if replaced := start(t, s, second); replaced != nil {
		t.Errorf("the second start took the place of %+v", replaced)
	}
	same(t, "under way", task(t, s, "Load_1").Started, &first)
	wantEnd(t, s, "the end", "Load_1", "w1", &first, true)
	wantEnd(t, s, "the end again", "Load_1", "w1", nil, false)
}

func replacedStart(t *testing.T, s luigi.Store) {
	first, second := execution("Load_1", "w1", ago(3*time.Minute)), execution("Load_1", "w2", ago(2*time.Minute))
	start(t, s, first)
	same(t, "replaced", start(t, s, second), &first)
	same(t, "replaced by the start delivered twice", start(t, s, second), (*luigi.Started)(nil))
	same(t, "under way", task(t, s, "Load_1").Started, &second)
	wantEnd(t, s, "a late end of the one that was replaced", "Load_1", "w1", nil, false)
	wantEnd(t, s, "the end", "Load_1", "w2", &second, true)
	same(t, "abandoned", abandoned(t, s, ago(0), 10), map[string]int{})
}

func endOnce(t *testing.T, s luigi.Store) {
	e := execution("Load_1", "w1", ago(time.Minute))
	start(t, s, e)
	wantEnd(t, s, "the end", "Load_1", "w1", &e, true)
	for range 2 {
		wantEnd(t, s, "the end again", "Load_1", "w1", nil, false)
	}
	same(t, "known afterwards", task(t, s, "Load_1"), luigi.Task{Family: "Load"})
	same(t, "abandoned", abandoned(t, s, ago(0), 10), map[string]int{})
}

func endWithoutStart(t *testing.T, s luigi.Store) {
	wantEnd(t, s, "the end", "Load_1", "w1", nil, true)
	wantEnd(t, s, "the end again", "Load_1", "w1", nil, false)
	wantEnd(t, s, "the end of another task", "Load_2", "w1", nil, true)
	same(t, "known afterwards", task(t, s, "Load_1"), luigi.Task{})
	register(t, s, luigi.Registered{Task: "Load_1", Family: "Load"})
	wantEnd(t, s, "the end after it was registered", "Load_1", "w1", nil, false)
}

func endByAnother(t *testing.T, s luigi.Store) {
	e := execution("Load_1", "w1", ago(time.Minute))
	start(t, s, e)
	wantEnd(t, s, "the end by another", "Load_1", "w2", nil, true)
	wantEnd(t, s, "the end by another again", "Load_1", "w2", nil, false)
	same(t, "under way", task(t, s, "Load_1").Started, &e)
	wantEnd(t, s, "the end", "Load_1", "w1", &e, true)
	wantEnd(t, s, "the end again", "Load_1", "w1", nil, false)
}

func runsAgain(t *testing.T, s luigi.Store) {
	for i := range 3 {
		e := execution("Load_1", "w1", ago(time.Hour).Add(time.Duration(i)*time.Minute))
		if replaced := start(t, s, e); replaced != nil {
			t.Errorf("start %d took the place of %+v", i, replaced)
		}
		wantEnd(t, s, fmt.Sprint("end ", i), "Load_1", "w1", &e, true)
		wantEnd(t, s, fmt.Sprint("end again ", i), "Load_1", "w1", nil, false)
	}
}

// rememberedEnds asks for the last eight only, which every store remembers.
func rememberedEnds(t *testing.T, s luigi.Store) {
	worker := func(i int) string { return fmt.Sprintf("%d 3:w%d", i, i) }
	for i := range 40 {
		wantEnd(t, s, fmt.Sprint("end ", i), "Load_1", worker(i), nil, true)
	}
	for i := 32; i < 40; i++ {
		wantEnd(t, s, fmt.Sprint("end again ", i), "Load_1", worker(i), nil, false)
	}
}

func oldExecution(t *testing.T, s luigi.Store) {
	start(t, s, execution("Load_1", "w1", ago(luigi.LongestTask)))
	same(t, "known", task(t, s, "Load_1"), luigi.Task{Family: "Load"})
	start(t, s, execution("Load_2", "w1", ago(luigi.LongestTask)))
	same(t, "abandoned", abandoned(t, s, ago(0), 10), map[string]int{})
	wantEnd(t, s, "its end", "Load_2", "w1", nil, true)
	start(t, s, execution("Load_3", "w1", time.Time{}))
	same(t, "started at no time", task(t, s, "Load_3"), luigi.Task{Family: "Load"})
	e := execution("Load_4", "w1", ago(luigi.LongestTask-time.Hour))
	start(t, s, e)
	same(t, "of an hour less", task(t, s, "Load_4").Started, &e)
}

func abandonedOnce(t *testing.T, s luigi.Store) {
	e := execution("Load_1", "w1", ago(10*time.Minute))
	start(t, s, e)
	start(t, s, execution("Load_2", "w1", ago(time.Minute)))
	same(t, "before the start", abandoned(t, s, e.At, 10), map[string]int{})
	got, err := s.Abandoned(t.Context(), e.At.Add(time.Millisecond), 10)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "after the start", got, []luigi.Started{e})
	same(t, "again", abandoned(t, s, ago(5*time.Minute), 10), map[string]int{})
	same(t, "known afterwards", task(t, s, "Load_1"), luigi.Task{Family: "Load"})
	wantEnd(t, s, "a late end", "Load_1", "w1", nil, false)
	same(t, "the other", abandoned(t, s, ago(0), 10), map[string]int{"Load_2": 1})
}

func signsOfLife(t *testing.T, s luigi.Store) {
	begun, limit, seen := ago(10*time.Minute), ago(5*time.Minute), ago(time.Minute)
	owner := luigi.Owner{Principal: "svc-etl", Team: "data-eng", Seen: seen}
	for name, tc := range map[string]struct {
		sign func(worker string)
		kept bool
	}{
		"no sign": {func(string) {}, false},
		"tied":    {func(w string) { tie(t, s, w, owner) }, true},
		"alive":   {func(w string) { alive(t, s, luigi.Alive{Worker: w, Owner: owner}) }, true},
		"tied long ago": {func(w string) {
			tie(t, s, w, luigi.Owner{Principal: "svc-etl", Seen: limit.Add(-time.Millisecond)})
		}, false},
		"tied at that time": {func(w string) { tie(t, s, w, luigi.Owner{Principal: "svc-etl", Seen: limit}) }, true},
		"tied without a time": {func(w string) {
			tie(t, s, w, luigi.Owner{Principal: "svc-etl"})
		}, false},
		"claimed by another": {func(w string) {
			tie(t, s, w, luigi.Owner{Principal: "svc-etl", Seen: begun})
			tie(t, s, w, luigi.Owner{Principal: "mallory", Seen: seen})
			alive(t, s, luigi.Alive{Worker: w, Owner: luigi.Owner{Principal: "mallory", Seen: seen}})
		}, false},
		"heard of, though refused": {func(w string) {
			alive(t, s, luigi.Alive{Worker: w, Owner: luigi.Owner{Principal: "svc-etl", Seen: begun}, Heard: seen})
			alive(t, s, luigi.Alive{Worker: w, Owner: luigi.Owner{Principal: "svc-etl", Seen: begun}, Heard: begun})
			if got := tie(t, s, w, luigi.Owner{Principal: "svc-etl"}); !got.Seen.Equal(begun) {
				t.Errorf("what was refused counts as accepted: seen %v, want %v", got.Seen, begun)
			}
		}, true},
		"heard of by another": {func(w string) {
			tie(t, s, w, luigi.Owner{Principal: "svc-etl", Seen: begun})
			alive(t, s, luigi.Alive{Worker: w, Owner: luigi.Owner{Principal: "mallory", Seen: seen}, Heard: seen})
		}, false},
		"started again": {func(w string) { start(t, s, execution("Load_"+w, w, seen)) }, true},
		"started on another worker": {func(w string) {
			tie(t, s, w, owner)
			start(t, s, execution("Load_"+w, w+"2", begun))
		}, false},
		"started long ago on another worker that lives": {func(w string) {
			start(t, s, execution("Load_"+w, w+"2", begun))
			tie(t, s, w+"2", owner)
		}, true},
	} {
		id := "Load_" + name
		start(t, s, execution(id, name, begun))
		tc.sign(name)
		want := map[string]int{id: 1}
		if tc.kept {
			want = map[string]int{}
		}
		same(t, name, abandoned(t, s, limit, 10), want)
		if kept := task(t, s, id).Started != nil; kept != tc.kept {
			t.Errorf("%s: under way afterwards is %v, want %v", name, kept, tc.kept)
		}
		if tc.kept {
			same(t, name+", later", abandoned(t, s, seen.Add(time.Millisecond), 10), map[string]int{id: 1})
		}
	}
}

func deadBehindLiving(t *testing.T, s luigi.Store) {
	const n = 300
	future := ago(-time.Hour)
	for i := range n {
		start(t, s, execution(fmt.Sprint("Live_", i), "living", ago(20*time.Minute)))
		// The clock of this one's replica runs an hour ahead.
		start(t, s, execution(fmt.Sprint("Ahead_", i), "ahead", future))
	}
	tie(t, s, "living", luigi.Owner{Principal: "svc-etl", Seen: future})
	start(t, s, execution("Dead_1", "dead", ago(10*time.Minute)))
	same(t, "abandoned", abandoned(t, s, ago(5*time.Minute), 10), map[string]int{"Dead_1": 1})
	// By a clock that is ahead as well, living ones stay where they are found.
	start(t, s, execution("Dead_2", "dead", ago(0)))
	same(t, "abandoned by a clock that is ahead", abandoned(t, s, ago(-30*time.Minute), 10), map[string]int{"Dead_2": 1})
	total := 0
	for calls := 0; total < 2*n && calls < 2*n; calls++ {
		total += len(abandoned(t, s, future.Add(time.Millisecond), n))
	}
	total += len(abandoned(t, s, future.Add(time.Millisecond), n)) // nobody is left
	if total != 2*n {
		t.Errorf("%d of the living are abandoned in the end, want %d", total, 2*n)
	}
}

func abandonedLimit(t *testing.T, s luigi.Store) {
	const n = 200
	for i := range n {
		start(t, s, execution(fmt.Sprint("Load_", i), "w", ago(10*time.Minute)))
	}
	for _, limit := range []int{-1, 0} {
		same(t, fmt.Sprint("at most ", limit), abandoned(t, s, ago(0), limit), map[string]int{})
	}
	seen := map[string]int{}
	for range n {
		got := abandoned(t, s, ago(0), 7)
		for id, times := range got {
			seen[id] += times
		}
		if len(got) > 7 {
			t.Errorf("%d are returned, want at most 7", len(got))
		}
		if len(got) < 7 {
			break
		}
	}
	onceEach(t, seen, n)
}

// onceEach checks that n things were told once each.
func onceEach(t *testing.T, seen map[string]int, n int) {
	t.Helper()
	for id, times := range seen {
		if times != 1 {
			t.Errorf("%s was told %d times", id, times)
		}
	}
	if len(seen) != n {
		t.Errorf("%d were told, want %d", len(seen), n)
	}
}

func abandonedAgain(t *testing.T, s luigi.Store) {
	for i := range 3 {
		start(t, s, execution("Load_1", "w1", ago(time.Hour).Add(time.Duration(i)*time.Minute)))
		same(t, fmt.Sprint("time ", i), abandoned(t, s, ago(0), 10), map[string]int{"Load_1": 1})
		wantEnd(t, s, fmt.Sprint("late end ", i), "Load_1", "w1", nil, false)
	}
}

func firstOwner(t *testing.T, s luigi.Store) {
	first := luigi.Owner{Principal: "svc-etl", Team: "data-eng", Seen: ago(time.Minute)}
	same(t, "before the first", owner(t, s, "w1"), luigi.Owner{})
	same(t, "the first", tie(t, s, "w1", first), first)
	other := luigi.Owner{Principal: "mallory", Team: "billing", Token: true, Seen: ago(0)}
	for range 2 {
		same(t, "another", tie(t, s, "w1", other), first)
	}
	alive(t, s, luigi.Alive{Worker: "w1", Owner: other})
	same(t, "the first again", tie(t, s, "w1", first), first)
	same(t, "whoever asks", owner(t, s, "w1"), first)
	same(t, "another worker", tie(t, s, "w2", other), other)
	nobody := luigi.Owner{}
	same(t, "a principal without a name", tie(t, s, "w3", nobody), nobody)
	same(t, "after it", tie(t, s, "w3", other), nobody)
}

func ownerGrows(t *testing.T, s luigi.Store) {
	seen := ago(time.Minute)
	o := func(team identity.Team, token bool, at time.Time) luigi.Owner {
		return luigi.Owner{Principal: "svc-etl", Team: team, Token: token, Seen: at}
	}
	for _, step := range []struct {
		name       string
		told, want luigi.Owner
	}{
		{"at first", o("a", false, seen), o("a", false, seen)},
		{"a token", o("a", true, seen), o("a", true, seen)},
		{"no token", o("a", false, seen), o("a", true, seen)},
		{"earlier", o("a", false, seen.Add(-time.Second)), o("a", true, seen)},
		{"without a time", o("a", false, time.Time{}), o("a", true, seen)},
		{"later", o("a", false, seen.Add(time.Second)), o("a", true, seen.Add(time.Second))},
		{"another team", o("b", false, seen), o("b", true, seen.Add(time.Second))},
		{"between two milliseconds", o("b", false, seen.Add(2*time.Second+time.Microsecond)), o("b", true, seen.Add(2*time.Second))},
	} {
		same(t, step.name, tie(t, s, "w1", step.told), step.want)
	}
	got := tie(t, s, "w1", o("b", false, seen.Add(3*time.Second).In(time.FixedZone("x", 3600))))
	if got.Seen.Location() != time.UTC {
		t.Errorf("the time is in %v, want UTC", got.Seen.Location())
	}
}

func aliveTies(t *testing.T, s luigi.Store) {
	seen := ago(time.Minute)
	signs := make([]luigi.Alive, 300)
	for i := range signs {
		signs[i] = luigi.Alive{Worker: fmt.Sprint("w", i%150), Owner: luigi.Owner{
			Principal: fmt.Sprint("p", i/150), Team: "t", Token: true, Seen: seen.Add(time.Duration(i) * time.Millisecond),
		}}
	}
	alive(t, s, signs...)
	for i := range 150 {
		got := tie(t, s, fmt.Sprint("w", i), luigi.Owner{Principal: "p0", Team: "t"})
		same(t, "owner", got, signs[i].Owner)
	}
}

func racingEnds(t *testing.T, s luigi.Store) {
	e := execution("Load_1", "w1", ago(time.Minute))
	start(t, s, e)
	var mu sync.Mutex
	var executions, firsts int
	race(racers, func(int) {
		started, first, err := s.End(t.Context(), "Load_1", "w1")
		if err != nil {
			t.Errorf("End: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		if started != nil {
			executions++
			same(t, "the execution", *started, e)
		}
		if first {
			firsts++
		}
	})
	if executions != 1 || firsts != 1 {
		t.Errorf("%d got the execution and %d were first, want one", executions, firsts)
	}
}

func racingStarts(t *testing.T, s luigi.Store) {
	var mu sync.Mutex
	seen := map[string]int{}
	race(racers, func(i int) {
		replaced, err := s.Start(t.Context(), execution("Load_1", fmt.Sprint("w", i), ago(time.Minute)))
		if err != nil {
			t.Errorf("Start: %v", err)
		}
		if replaced != nil {
			mu.Lock()
			defer mu.Unlock()
			seen[replaced.Worker]++
		}
	})
	if len(seen) != racers-1 {
		t.Errorf("%d were replaced, want %d", len(seen), racers-1)
	}
	seen[task(t, s, "Load_1").Started.Worker]++
	onceEach(t, seen, racers)
}

// racingStartsAndEnds lets every worker start and end the task. A worker's
// execution may be replaced before its end comes, but is told once.
func racingStartsAndEnds(t *testing.T, s luigi.Store) {
	var mu sync.Mutex
	seen := map[string]int{}
	tell := func(e *luigi.Started) {
		if e != nil {
			mu.Lock()
			defer mu.Unlock()
			seen[e.Worker]++
		}
	}
	race(racers, func(i int) {
		worker := fmt.Sprint("w", i)
		replaced, err := s.Start(t.Context(), execution("Load_1", worker, ago(time.Minute)))
		tell(replaced)
		started, _, endErr := s.End(t.Context(), "Load_1", worker)
		tell(started)
		if err := errors.Join(err, endErr); err != nil {
			t.Error(err)
		}
	})
	onceEach(t, seen, racers)
	if left := task(t, s, "Load_1").Started; left != nil {
		t.Errorf("left under way: %+v", left)
	}
}

func racingAbandoned(t *testing.T, s luigi.Store) {
	const n = 150
	for i := range n {
		start(t, s, execution(fmt.Sprint("Load_", i), "w", ago(10*time.Minute)))
	}
	var mu sync.Mutex
	seen := map[string]int{}
	race(8, func(int) {
		for range n {
			got, err := s.Abandoned(t.Context(), ago(time.Minute), 10)
			if err != nil {
				t.Errorf("Abandoned: %v", err)
			}
			mu.Lock()
			for _, e := range got {
				seen[e.Task]++
			}
			told := len(seen)
			mu.Unlock()
			if told == n {
				return
			}
		}
	})
	onceEach(t, seen, n)
}

func racingEndAndAbandoned(t *testing.T, s luigi.Store) {
	const n = 50
	for i := range n {
		start(t, s, execution(fmt.Sprint("Load_", i), "w", ago(10*time.Minute)))
	}
	var mu sync.Mutex
	seen := map[string]int{}
	race(2*n, func(i int) {
		var got []luigi.Started
		var err error
		if i%2 == 0 {
			got, err = s.Abandoned(t.Context(), ago(time.Minute), 2)
		} else {
			var e *luigi.Started
			e, _, err = s.End(t.Context(), fmt.Sprint("Load_", i/2), "w")
			if e != nil {
				got = []luigi.Started{*e}
			}
		}
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, e := range got {
			seen[e.Task]++
		}
	})
	onceEach(t, seen, n)
	same(t, "left", abandoned(t, s, ago(0), 10), map[string]int{})
}

func racingOwners(t *testing.T, s luigi.Store) {
	var mu sync.Mutex
	seen := map[string]int{}
	race(racers, func(i int) {
		got, err := s.Tie(t.Context(), "w1", luigi.Owner{Principal: fmt.Sprint("p", i%2), Seen: ago(0)})
		if err != nil {
			t.Errorf("Tie: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		seen[got.Principal]++
	})
	if len(seen) != 1 {
		t.Errorf("the racers were told of several owners: %v", seen)
	}
}

func racingFamilies(t *testing.T, s luigi.Store) {
	var mu sync.Mutex
	seen := map[string]int{}
	race(racers, func(i int) {
		if err := s.Register(t.Context(), []luigi.Registered{{Task: "Load_1", Family: fmt.Sprint("F", i)}}); err != nil {
			t.Errorf("Register: %v", err)
		}
		got, err := s.Task(t.Context(), "Load_1")
		if err != nil {
			t.Errorf("Task: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		seen[got.Family]++
	})
	if len(seen) != 1 || seen[""] > 0 {
		t.Errorf("the racers were told of several families: %v", seen)
	}
}

func ended(t *testing.T, s luigi.Store) {
	e := execution("Load_1", "w1", ago(10*time.Minute))
	start(t, s, e)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, taskErr := s.Task(ctx, "Load_1")
	_, tieErr := s.Tie(ctx, "w1", luigi.Owner{Principal: "p"})
	_, startErr := s.Start(ctx, execution("Load_1", "w2", ago(0)))
	_, _, endErr := s.End(ctx, "Load_1", "w1")
	_, abandonedErr := s.Abandoned(ctx, ago(0), 10)
	for name, err := range map[string]error{
		"Task": taskErr, "Tie": tieErr, "Start": startErr, "End": endErr, "Abandoned": abandonedErr,
		"Register": s.Register(ctx, []luigi.Registered{{Task: "Load_2", Family: "Load"}}),
		"Alive":    s.Alive(ctx, []luigi.Alive{{Worker: "w1", Owner: luigi.Owner{Principal: "p"}}}),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want an error that says context.Canceled", name, err)
		}
	}
	same(t, "the task", task(t, s, "Load_1"), luigi.Task{Family: "Load", Started: &e})
	same(t, "the other task", task(t, s, "Load_2"), luigi.Task{})
	same(t, "the owner", tie(t, s, "w1", luigi.Owner{Principal: "q"}).Principal, "q")
	wantEnd(t, s, "the end", "Load_1", "w1", &e, true)
}
