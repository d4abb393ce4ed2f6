package luigi

import (
	"time"

	"crossfade/gateway/identity"
)

// Started is one execution of a task that has begun: a worker was handed the
// task and nobody has told its end yet. It is a plain value with a stable JSON
// form, by which replicas share it, and holds no secret.
type Started struct {
	// Task is the id of the task, of a batch the combined one.
	Task   string `json:"task"`
	Family string `json:"family"`
	Module string `json:"module,omitempty"`
	// Parameters are those of the task, in order of name.
	Parameters []Parameter `json:"parameters,omitempty"`
	// Batch are the ids of the tasks that a batch runs at once, nil for a task
	// by itself.
	Batch []string `json:"batch,omitempty"`
	// Worker is the one that executes.
	Worker string `json:"worker"`
	// At is when the gateway saw the start, in whole milliseconds of UTC.
	At time.Time `json:"at"`
	By Identity  `json:"by"`
}

// Parameter is one parameter of a task. Names are always told, values only
// where the operator allows it: they may hold anything.
type Parameter struct {
	Name string `json:"name"`
	// Value is nil unless the operator allows values of this name.
	Value *string `json:"value,omitempty"`
}

// Identity is under whom and by what a task was started.
type Identity struct {
	Principal string        `json:"principal"`
	Team      identity.Team `json:"team"`
	// Scheme is the credential's that governed: basic, api_key, static_bearer
	// or oidc.
	Scheme string `json:"scheme"`
	// Credential names a static credential without its secret, "" for a token.
	Credential string `json:"credential,omitempty"`
	// Issuer and TokenID are a token's; TokenID is its jti or, without one, a
	// digest of it.
	Issuer  string `json:"issuer,omitempty"`
	TokenID string `json:"token_id,omitempty"`
	// Percent is what the team stood at.
	Percent int `json:"percent"`
	// ClientRun is what the client called its run, "" if nothing: its word alone.
	ClientRun string `json:"client_run,omitempty"`
	// TraceID is that of the request that started the task.
	TraceID string `json:"trace_id,omitempty"`
	// Configuration is the hash of the one that was in force.
	Configuration string `json:"configuration,omitempty"`
}

// Outcome is how an execution ended. Its text stands in audit lines.
type Outcome string

// The outcomes.
const (
	Done   Outcome = "done"
	Failed Outcome = "failed"
	// Yielded: the task asked for more dependencies and runs again from its
	// beginning when they are there.
	Yielded Outcome = "yielded"
	// Abandoned: neither an end nor a sign of life of the worker for
	// AbandonedAfter, or the scheduler has handed the task to somebody else.
	Abandoned Outcome = "abandoned"
)

// Execution is one that has ended.
type Execution struct {
	// Started has a zero At when the start was not seen, as for tasks that ran
	// while the gateway was put in front; the rest is then what the report of
	// the end says.
	Started
	Ended   time.Time
	Outcome Outcome
	// Grace tells that the end was reported under an identity that was good at
	// the start and had lapsed since.
	Grace bool
}

// Owner is whom a worker's name belongs to.
type Owner struct {
	Principal string        `json:"principal"`
	Team      identity.Team `json:"team"`
	// Token tells that a token of this owner was good at some time of the run.
	Token bool `json:"token,omitempty"`
	// Seen is when the owner last made a request that was accepted, in whole
	// milliseconds of UTC.
	Seen time.Time `json:"seen"`
}

// Task is what is known of a task id. The zero value is nothing.
type Task struct {
	// Family is the one under which the id was registered first, "" if not
	// known.
	Family string
	// Started is the execution under way, nil if there is none.
	Started *Started
}
