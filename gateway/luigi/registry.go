package luigi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"crossfade/gateway/breaker"
)

// Asker is asked for the family of a task that neither this replica nor the
// store knows; see Scheduler.Family.
type Asker interface {
	Family(ctx context.Context, task string) (string, error)
}

// RegistryOptions are the options of NewRegistry.
type RegistryOptions struct {
	// Store is required.
	Store Store
	// Abandoned, if set, is told of executions that nobody has ended and whose
	// worker is gone, each once over all replicas. It is called by one goroutine
	// and must return soon.
	Abandoned func(Execution)
	// Tasks and Workers bound what is remembered here; 100,000 and 20,000 by
	// default, some 40 MB. What falls out costs one more question.
	Tasks, Workers int
	// Timeout bounds what a request waits for the store; 50 ms when 0 or less, which
	// nobody notices at a run's first request.
	Timeout time.Duration
	// Now is the clock, time.Now by default.
	Now func() time.Time
}

// Registry knows which family a task belongs to, who started it, and whose a
// worker is. It learns from the traffic, shares what it knows with the other
// replicas through the store, and asks the scheduler for what nobody knows.
// While the store is away it goes by what it knows itself. Safe for concurrent
// use.
type Registry struct {
	store   Store
	now     func() time.Time
	timeout time.Duration
	tasks   *lru.Cache[string, known]
	workers *lru.Cache[string, *worker]
	batches *lru.Cache[string, []string]
	flights singleflight.Group
	breaker breaker.Breaker
	onGone  func(Execution)

	learned chan Registered
	stop    context.CancelFunc
	done    sync.WaitGroup
}

// known is what this replica remembers of a task.
type known struct {
	family  string
	started *Started
	// shared tells that the store knows of started, asked when it last said so,
	// or that there is none.
	shared bool
	asked  time.Time
}

const (
	storeTimeout = 50 * time.Millisecond // see RegistryOptions.Timeout
	// recordTimeout bounds what the start and the end of an execution wait for
	// being noted. They are seldom, and what is not noted may be told twice.
	recordTimeout = 500 * time.Millisecond
	// askAgain is how long it counts that the store knew of no execution, or of
	// another owner: another replica may have learned of one since.
	askAgain = 5 * time.Second
	// trustFor is how long it counts that the store knew of an execution: another
	// replica may have seen its end since.
	trustFor = time.Minute
	// longestID bounds, in bytes, the ids that are kept as they are. Luigi's own
	// are shorter: a family, three values of 16 characters and a digest.
	longestID = 256
	// learnQueue bounds the families that wait to be shared. One that finds no
	// room is asked for by the replica that needs it.
	learnQueue = 8192
	// rememberedBatches bounds the batches that were handed out and whose worker
	// has not said yet under which id it runs them, and longestBatch the tasks
	// that are kept of one.
	rememberedBatches = 1024
	longestBatch      = 256
)

// NewRegistry checks the options and starts the goroutine that shares what is
// learned and looks for abandoned executions. Call Close at the end.
func NewRegistry(o RegistryOptions) (*Registry, error) {
	if o.Store == nil {
		return nil, errors.New("luigi registry: no store")
	}
	tasks, err := lru.New[string, known](cmp.Or(o.Tasks, 100_000))
	if err != nil {
		return nil, fmt.Errorf("luigi registry: %w", err)
	}
	workers, err := lru.New[string, *worker](cmp.Or(o.Workers, 20_000))
	if err != nil {
		return nil, fmt.Errorf("luigi registry: %w", err)
	}
	batches, err := lru.New[string, []string](rememberedBatches)
	if err != nil {
		return nil, fmt.Errorf("luigi registry: %w", err)
	}
	r := &Registry{
		store: o.Store, now: o.Now, timeout: storeTimeout, tasks: tasks, workers: workers, batches: batches,
		onGone: o.Abandoned, learned: make(chan Registered, learnQueue),
	}
	if r.now == nil {
		r.now = time.Now
	}
	if o.Timeout > 0 {
		r.timeout = o.Timeout
	}
	if r.onGone == nil {
		r.onGone = func(Execution) {}
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.done.Go(func() { r.share(ctx) })
	return r, nil
}

// Close shares what waits to be shared, for a second at most, and ends the
// background work.
func (r *Registry) Close() error {
	r.stop()
	r.done.Wait()
	return nil
}

// ErrUnresolved says that nobody who may know a task's family could be asked.
var ErrUnresolved = errors.New("the family of the task could not be found out")

// Family returns the family under which the task is registered, "" if nobody
// knows it. It looks here, asks the store, 50 ms at most, and then ask, unless
// that is nil. The error is ErrUnresolved.
func (r *Registry) Family(ctx context.Context, task string, ask Asker) (string, error) {
	key := boundID(task)
	if k, ok := r.tasks.Get(key); ok && k.family != "" {
		return k.family, nil
	}
	// One question for all who wait for the same task, and nobody's hanging up
	// ends it for the others. Who wants the scheduler asked does not join somebody
	// who does not.
	flight := key
	if ask != nil {
		flight += "\x00scheduler"
	}
	ch := r.flights.DoChan(flight, func() (any, error) {
		return r.find(context.WithoutCancel(ctx), key, task, ask)
	})
	select {
	case <-ctx.Done():
		return "", fmt.Errorf("%w: %w", ErrUnresolved, ctx.Err())
	case result := <-ch:
		family, _ := result.Val.(string)
		return family, result.Err
	}
}

func (r *Registry) find(ctx context.Context, key, task string, ask Asker) (string, error) {
	if stored, ok := r.ask(ctx, key); ok && stored.Family != "" {
		return stored.Family, nil
	}
	if ask == nil {
		return "", nil
	}
	family, err := ask.Family(ctx, task)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnresolved, err)
	}
	if family != "" {
		r.Learn(task, family)
	}
	return family, nil
}

// ask asks the store and remembers the answer. ok is false if it did not
// answer.
func (r *Registry) ask(ctx context.Context, key string) (stored Task, ok bool) {
	now := r.now()
	err := r.call(ctx, now, func(ctx context.Context) (err error) {
		stored, err = r.store.Task(ctx, key)
		return err
	})
	if err != nil {
		return Task{}, false
	}
	k, _ := r.tasks.Get(key)
	k.family = cmp.Or(k.family, stored.Family)
	if stored.Started != nil || k.shared {
		k.started, k.shared = stored.Started, stored.Started != nil
	}
	k.asked = now
	r.tasks.Add(key, k)
	stored.Started = k.started
	return stored, true
}

// call asks the store within its time, whatever becomes of the request.
func (r *Registry) call(ctx context.Context, now time.Time, f func(context.Context) error) error {
	return r.within(ctx, r.timeout, now, f)
}

func (r *Registry) within(ctx context.Context, limit time.Duration, now time.Time, f func(context.Context) error) error {
	return r.breaker.Call(now, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		return f(ctx)
	})
}

// Known returns what this replica remembers of the family, without any I/O.
func (r *Registry) Known(task string) (family string) {
	k, _ := r.tasks.Get(boundID(task))
	return k.family
}

// Learn notes the family under which the scheduler has accepted a task, unless
// one is known. It does no I/O: the other replicas hear of it soon.
func (r *Registry) Learn(task, family string) {
	if task == "" || family == "" {
		return
	}
	key := boundID(task)
	k, ok := r.tasks.Get(key)
	if ok && k.family != "" {
		return
	}
	key = strings.Clone(key) // ids may be slices of a request
	k.family = shorten(family, longestID)
	r.tasks.Add(key, k)
	select {
	case r.learned <- Registered{Task: key, Family: k.family}:
	default: // who needs it asks the scheduler
	}
}

// LearnBatch notes which tasks a batch combines, all of one family, until the
// worker tells under which id it runs them. The tasks are known to this replica
// only. The family is shared before the worker hears of the batch, since what the
// worker tells may pass another replica: it waits for the store, 50 ms at most.
func (r *Registry) LearnBatch(ctx context.Context, batch, family string, tasks []string) {
	kept := make([]string, min(len(tasks), longestBatch))
	for i := range kept {
		kept[i] = strings.Clone(boundID(tasks[i]))
	}
	r.batches.Add(strings.Clone(boundID(batch)), kept)
	if family == "" {
		return
	}
	key := boundID(batchPrefix + batch)
	r.tasks.Add(key, known{family: shorten(family, longestID)})
	_ = r.call(ctx, r.now(), func(ctx context.Context) error {
		return r.store.Register(ctx, []Registered{{Task: key, Family: shorten(family, longestID)}})
	})
}

// batchPrefix keeps batches and tasks apart where families are kept by id. The
// family of a batch does not fit what a task can claim: the id of a batch has no
// underscore.
const batchPrefix = "batch "

// BatchFamily returns the family of the tasks that a batch combines, "" if nobody
// knows it. It waits for the store, 50 ms at most, if it is not known here.
func (r *Registry) BatchFamily(ctx context.Context, batch string) string {
	family, _ := r.Family(ctx, batchPrefix+batch, nil)
	return family
}

// Batch returns the tasks that a batch combines, nil if they are not known.
func (r *Registry) Batch(batch string) []string {
	if batch == "" {
		return nil
	}
	tasks, _ := r.batches.Get(boundID(batch))
	return tasks
}

// Started returns the execution of the task that is under way, nil if none is
// known. It waits for the store, 50 ms at most, if none is known here.
func (r *Registry) Started(ctx context.Context, task string) *Started {
	if task == "" {
		return nil
	}
	key := boundID(task)
	k, _ := r.tasks.Get(key)
	good := askAgain
	if k.started != nil {
		good = trustFor
	}
	if r.now().Sub(k.asked) < good {
		return k.started
	}
	if stored, ok := r.ask(ctx, key); ok {
		return stored.Started
	}
	return k.started
}

// Running returns the execution as the store knows it now, whatever is remembered
// here: another replica may have seen its end, and the next start. It waits for
// the store, 50 ms at most, and goes by what is known here while that is away.
func (r *Registry) Running(ctx context.Context, task string) *Started {
	if task == "" {
		return nil
	}
	key := boundID(task)
	if stored, ok := r.ask(ctx, key); ok {
		return stored.Started
	}
	k, _ := r.tasks.Get(key)
	return k.started
}

// Start notes that a task was handed to a worker, before the worker hears of
// it, so that its end finds the start wherever it arrives. It returns the
// execution that the scheduler has thereby given up, nil if there was none.
func (r *Registry) Start(ctx context.Context, s Started) *Execution {
	s.At, s.Task, s.Worker = r.stamp(), boundID(s.Task), boundID(s.Worker)
	// Names come from clients, and what is kept here is kept in the store as well.
	s.Family, s.Module = shorten(s.Family, longestID), shorten(s.Module, longestID)
	key := s.Task
	k, _ := r.tasks.Get(key)
	k.family = cmp.Or(k.family, s.Family)
	var replaced *Started
	if k.started != nil && k.started.Worker != s.Worker {
		replaced = k.started
	}
	if k.started == nil || replaced != nil {
		k.started = &s
	}
	k.asked = r.now()
	err := r.within(ctx, recordTimeout, r.now(), func(ctx context.Context) error {
		stored, err := r.store.Start(ctx, s)
		if err == nil {
			replaced = stored // the store knows better what others have seen
		}
		return err
	})
	k.shared = err == nil
	r.tasks.Add(key, k)
	if replaced == nil || err != nil {
		// While the store is away nobody can say whether another replica has told.
		return nil
	}
	return &Execution{Started: *replaced, Ended: r.stamp(), Outcome: Abandoned}
}

// End notes that the worker has reported the end of a task, and returns the
// execution that ended: nil if it was told before. unseen is what the report
// itself says, for an execution whose start nobody saw; it is nil for a report
// that ends an execution only if one is known here. It waits for the store, half
// a second at most.
func (r *Registry) End(ctx context.Context, task, worker string, how Outcome, unseen *Started) *Execution {
	task, worker = boundID(task), boundID(worker)
	k, _ := r.tasks.Get(task)
	mine := k.started
	if mine != nil && mine.Worker != worker {
		mine = nil
	}
	if mine == nil && unseen == nil {
		return nil
	}
	if mine != nil {
		k.started, k.shared = nil, false
		r.tasks.Add(task, k)
	}
	var stored *Started
	first := true // while the store is away: rather told twice than not at all
	_ = r.within(ctx, recordTimeout, r.now(), func(ctx context.Context) error {
		started, told, err := r.store.End(ctx, task, worker)
		if err == nil {
			stored, first = started, told
		}
		return err
	})
	if !first {
		return nil
	}
	started := cmp.Or(stored, mine, unseen)
	return &Execution{Started: *started, Ended: r.stamp(), Outcome: how}
}

// stamp is the time as it is shared.
func (r *Registry) stamp() time.Time { return time.UnixMilli(r.now().UnixMilli()).UTC() }

// boundID returns a short id as it is and a digest of a long one.
func boundID(id string) string {
	if len(id) <= longestID {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256:" + hex.EncodeToString(sum[:])
}
