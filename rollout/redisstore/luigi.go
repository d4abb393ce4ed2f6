package redisstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"crossfade/gateway/identity"
	"crossfade/gateway/luigi"
	"crossfade/rollout"
)

// maxID is the longest id, in bytes, that stands in a key as it is.
const maxID = 128

// digestPrefix begins the digest that stands for a longer one.
const digestPrefix = "sha256:"

// maxMillis is the latest time that the scripts take, in the year 5138: 14 digits,
// which are all that a script keeps of a number in JSON.
const maxMillis = 99_999_999_999_999

var _ luigi.Store = (*Store)(nil)

func (s *Store) taskKey(bound string) string   { return s.prefix + ":luigi:task:" + bound }
func (s *Store) workerKey(bound string) string { return s.prefix + ":luigi:worker:" + bound }
func (s *Store) openKey() string               { return s.prefix + ":luigi:open" }

// boundID returns the form in which an id stands in keys. Ids come from clients
// and hold anything. A short one that looks like a digest becomes one too, so
// that none meets another's.
func boundID(id string) string {
	if len(id) <= maxID && !strings.HasPrefix(id, digestPrefix) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return digestPrefix + hex.EncodeToString(sum[:])
}

// millis returns the time as the scripts take it. What is before 1970, as the
// zero time, is 0.
func millis(t time.Time) int64 { return min(max(t.UnixMilli(), 0), maxMillis) }

// instant is the inverse of millis.
func instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// damaged says that the value of a key cannot be understood. The key is quoted,
// for it holds what a client sent.
func damaged(key string, err error) error {
	return fmt.Errorf("%w: key %q is damaged: %w", rollout.ErrUnavailable, key, err)
}

// step is one run of a script on one key.
type step struct {
	key  string
	args []any
}

// runAll runs a script on several keys in one round trip, or in two when a
// server does not know the script yet. It returns a reply for each step and
// the first error of them all.
func (s *Store) runAll(ctx context.Context, script *redis.Script, steps []step) ([]*redis.Cmd, error) {
	replies := make([]*redis.Cmd, len(steps))
	var again []int
	_, _ = s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, st := range steps {
			replies[i] = script.EvalSha(ctx, p, []string{st.key}, st.args...)
		}
		return nil
	})
	for i := range replies {
		if redis.HasErrorPrefix(replies[i].Err(), "NOSCRIPT") {
			again = append(again, i)
		}
	}
	if len(again) > 0 {
		_, _ = s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, i := range again {
				replies[i] = script.Eval(ctx, p, []string{steps[i].key}, steps[i].args...)
			}
			return nil
		})
	}
	for _, r := range replies {
		if err := r.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return replies, err
		}
	}
	return replies, nil
}

// taskStep returns the step of a script about a task.
func (s *Store) taskStep(bound string, args ...any) step {
	return step{s.taskKey(bound), append([]any{
		luigi.TaskMemory.Milliseconds(), luigi.WorkerTie.Milliseconds(), luigi.LongestTask.Milliseconds(), endsRemembered,
	}, args...)}
}

// runTask runs a script about a task.
func (s *Store) runTask(ctx context.Context, script *redis.Script, bound string, args ...any) *redis.Cmd {
	st := s.taskStep(bound, args...)
	return script.Run(ctx, s.client, []string{st.key}, st.args...)
}

// Task implements luigi.TaskStore.
func (s *Store) Task(ctx context.Context, id string) (luigi.Task, error) {
	bound := boundID(id)
	reply, err := s.runTask(ctx, readTask, bound).StringSlice()
	if err != nil {
		return luigi.Task{}, unavailable("read key "+strconv.Quote(s.taskKey(bound)), err)
	}
	if len(reply) != 2 {
		return luigi.Task{}, damaged(s.taskKey(bound), errors.New("unknown form"))
	}
	task := luigi.Task{Family: reply[0]}
	if reply[1] == "" {
		return task, nil
	}
	if task.Started, err = s.started(bound, reply[1]); err != nil {
		return luigi.Task{}, err
	}
	return task, nil
}

// Register implements luigi.TaskStore.
func (s *Store) Register(ctx context.Context, tasks []luigi.Registered) error {
	steps := make([]step, len(tasks))
	for i, r := range tasks {
		steps[i] = s.taskStep(boundID(r.Task), r.Family)
	}
	_, err := s.runAll(ctx, registerTask, steps)
	return unavailable("register tasks", err)
}

// Tie implements luigi.WorkerStore.
func (s *Store) Tie(ctx context.Context, worker string, o luigi.Owner) (luigi.Owner, error) {
	st := s.tieStep(luigi.Alive{Worker: worker, Owner: o})
	row, err := tieWorker.Run(ctx, s.client, []string{st.key}, st.args...).Slice()
	if err != nil {
		return luigi.Owner{}, unavailable("tie a worker by key "+strconv.Quote(st.key), err)
	}
	owner, err := parseOwner(row)
	if err != nil {
		return luigi.Owner{}, damaged(st.key, err)
	}
	return owner, nil
}

// Owner implements luigi.WorkerStore.
func (s *Store) Owner(ctx context.Context, worker string) (luigi.Owner, error) {
	key := s.workerKey(boundID(worker))
	row, err := s.client.HMGet(ctx, key, "principal", "team", "token", "seen").Result()
	if err != nil {
		return luigi.Owner{}, unavailable("read key "+key, err)
	}
	if len(row) > 0 && row[0] == nil {
		return luigi.Owner{}, nil
	}
	owner, err := parseOwner(row)
	if err != nil {
		return luigi.Owner{}, damaged(key, err)
	}
	return owner, nil
}

// Alive implements luigi.WorkerStore.
func (s *Store) Alive(ctx context.Context, signs []luigi.Alive) error {
	steps := make([]step, len(signs))
	for i, sign := range signs {
		steps[i] = s.tieStep(sign)
	}
	_, err := s.runAll(ctx, tieWorker, steps)
	return unavailable("tell signs of life", err)
}

func (s *Store) tieStep(a luigi.Alive) step {
	return step{s.workerKey(boundID(a.Worker)), []any{
		a.Owner.Principal, string(a.Owner.Team), flag(a.Owner.Token), millis(a.Owner.Seen),
		luigi.WorkerTie.Milliseconds(), millis(a.Heard),
	}}
}

// parseOwner reads what tieWorker returns.
func parseOwner(row []any) (luigi.Owner, error) {
	names := []string{"principal", "team", "token", "seen"}
	if len(row) != len(names) {
		return luigi.Owner{}, errors.New("unknown form")
	}
	f := fields{row: make(map[string]string, len(names))}
	for i, name := range names {
		text, ok := row[i].(string)
		if !ok {
			return luigi.Owner{}, fmt.Errorf("field %s is missing", name)
		}
		f.row[name] = text
	}
	o := luigi.Owner{Principal: f.row["principal"], Team: identity.Team(f.row["team"]), Token: f.flag("token"), Seen: f.time("seen")}
	return o, f.err
}

// started reads an execution that the key of a task holds.
func (s *Store) started(bound, text string) (*luigi.Started, error) {
	st, err := parseStarted(text)
	if err == nil && boundID(st.Task) != bound {
		err = errors.New("the execution is of another task")
	}
	if err != nil {
		return nil, damaged(s.taskKey(bound), err)
	}
	return &st, nil
}

// parseStarted reads the stored form of an execution. Fields that a later
// version adds are skipped.
func parseStarted(text string) (luigi.Started, error) {
	var st luigi.Started
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		return luigi.Started{}, fmt.Errorf("field started: %w", err)
	}
	if st.At = st.At.UTC(); st.At.Year() > 9999 || !st.At.Equal(instant(millis(st.At))) {
		return luigi.Started{}, errors.New("field started: the time is not in whole milliseconds after 1970")
	}
	return st, nil
}
