package luigi

import (
	"context"
	"time"
)

// How long things are kept.
const (
	// WorkerTie is how long a worker's name belongs to a principal after its
	// last request. It is Luigi's own worker_disconnect_delay (60 s) with room
	// for a task that runs without pinging.
	WorkerTie = 15 * time.Minute
	// TaskMemory is how long a family is remembered after it was last told or
	// asked; the scheduler knows it for longer.
	TaskMemory = 24 * time.Hour
	// LongestTask is how long an execution may be under way before it is
	// forgotten. It equals the longest life of a latched run.
	LongestTask = 7 * 24 * time.Hour
	// AbandonedAfter is how long a task may be without end and its worker
	// without a sign of life. Luigi's scheduler gives up on a worker after the
	// same time (worker_disconnect_delay).
	AbandonedAfter = time.Minute
)

// Registered is a task id with the family that it was registered under.
type Registered struct{ Task, Family string }

// Alive is a sign of life of a worker.
type Alive struct {
	Worker string
	Owner  Owner
	// Heard is when the owner was last heard of although it was refused, because
	// its identity had lapsed; zero for not at all. It keeps the executions of the
	// worker from being abandoned, and nothing else.
	Heard time.Time
}

// TaskStore shares what is known of tasks between replicas.
type TaskStore interface {
	// Task returns what is known; the zero Task if nothing is.
	Task(ctx context.Context, id string) (Task, error)
	// Register notes families; "" is none. The first family of an id wins and
	// stays for TaskMemory after the last call about the id (Task included), or
	// as long as an execution of it is under way.
	Register(ctx context.Context, tasks []Registered) error
}

// WorkerStore shares whom workers belong to.
type WorkerStore interface {
	// Tie makes o the owner of the worker unless another principal owns it, and
	// returns the owner in force; the same principal may come with another team.
	// A tie lives for WorkerTie after the last call of Tie or Alive by its
	// owner. Token never falls back to false while the tie lives, and Seen never
	// goes back.
	Tie(ctx context.Context, worker string, o Owner) (Owner, error)
	// Owner returns the owner in force without changing anything; the zero Owner
	// if there is none.
	Owner(ctx context.Context, worker string) (Owner, error)
	// Alive does for several workers what Tie does, and tells nothing: signs of
	// life are gathered and sent off the request path.
	Alive(ctx context.Context, signs []Alive) error
}

// ExecutionStore keeps the executions under way, so that start and end may pass
// different replicas and each is told once.
type ExecutionStore interface {
	// Start notes a start and registers the family, as Register does. The same
	// task on the same worker is a start that was delivered twice: the first one
	// stays. On another worker the scheduler has given up on the first: the new
	// one takes its place, and replaced is the old one. An execution is
	// forgotten LongestTask after At, or after Start if At lies in the future.
	Start(ctx context.Context, s Started) (replaced *Started, err error)
	// End takes the execution of the task by the worker away and returns it, to
	// one caller only. first is true for the first call about an execution; if
	// it is and started is nil, no start was noted. The end of an execution is
	// remembered for WorkerTie, so that a report that was sent twice is not
	// told twice. An execution that was replaced or abandoned has ended too: a
	// late report of it is not the first. Of one task at least the last eight
	// ends are remembered.
	End(ctx context.Context, task, worker string) (started *Started, first bool, err error)
	// Abandoned takes away and returns executions whose worker gave its last
	// sign of life (Started.At of any Start of it, Owner.Seen of its owner, or
	// Alive.Heard of it) before the time given, each to one caller only and at most limit of them.
	// That time lies less than WorkerTie ago, since signs of life are forgotten
	// with the tie. Executions returned beside an error are taken away too.
	Abandoned(ctx context.Context, before time.Time, limit int) ([]Started, error)
}

// Store is what a Registry needs. Implementations pass luigitest.TestStore and
// are safe for concurrent use. An error means that the store could not be
// asked; it is never a reason to answer a request in another way than if the
// store knew nothing.
type Store interface {
	TaskStore
	WorkerStore
	ExecutionStore
}
