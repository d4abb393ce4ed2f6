package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"crossfade/gateway/luigi"
)

// An execution stands in the key of its task and, as a candidate for Abandoned,
// in the index of those that are under way, on another slot. The key decides,
// the index only says where to look: its score is no later than the last sign
// of life. So an entry without an execution is dropped when it is looked at, and
// an execution without an entry is merely not told as abandoned: it ends by its
// report, or is forgotten after luigi.LongestTask.
//
// Scores are times of the gateways, as luigi.Started.At and luigi.Owner.Seen
// are: by the clock of the server, a start would count as old where that clock
// lags behind.

const (
	// endsRemembered is how many ends of one task's executions are remembered,
	// so that invented workers do not make a row grow.
	endsRemembered = 8
	// openPage is how many candidates Abandoned looks at in one go.
	openPage = 128
)

// Start implements luigi.ExecutionStore. It writes the index first: a crash
// before the key is written leaves an entry without an execution. The other
// order would leave an execution that nobody looks at.
func (s *Store) Start(ctx context.Context, st luigi.Started) (*luigi.Started, error) {
	at := millis(st.At)
	st.At = instant(at)
	text, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("note the start of task %q: %w", st.Task, err)
	}
	bound := boundID(st.Task)
	if err := openTask.Run(ctx, s.client, []string{s.openKey()}, bound, at).Err(); err != nil {
		return nil, unavailable("note a start by key "+s.openKey(), err)
	}
	replaced, err := s.runTask(ctx, startTask, bound, st.Family, boundID(st.Worker), at, text).Text()
	if err != nil {
		return nil, unavailable("note a start by key "+strconv.Quote(s.taskKey(bound)), err)
	}
	if replaced == "" {
		return nil, nil
	}
	return s.started(bound, replaced)
}

// End implements luigi.ExecutionStore. After a crash between its two steps the
// index has an entry without an execution.
func (s *Store) End(ctx context.Context, task, worker string) (*luigi.Started, bool, error) {
	bound := boundID(task)
	reply, err := s.runTask(ctx, endTask, bound, boundID(worker)).StringSlice()
	if err != nil {
		return nil, false, unavailable("note an end by key "+strconv.Quote(s.taskKey(bound)), err)
	}
	if len(reply) != 3 {
		return nil, false, damaged(s.taskKey(bound), errors.New("unknown form"))
	}
	first, text, sign := reply[0] == "1", reply[1], reply[2]
	if text == "" {
		return nil, first, nil
	}
	// The execution is this caller's by now, so it is returned in any case. An
	// entry that stays, as one that Abandoned moved up does, is dropped by
	// Abandoned.
	_ = closeTask.Run(ctx, s.client, []string{s.openKey()}, bound, sign).Err()
	started, err := s.started(bound, text)
	return started, first, err
}

// Abandoned implements luigi.ExecutionStore. An execution is claimed at its key
// before its entry goes away: after a crash in between, the entry is dropped by
// the next caller, and the execution that was claimed is told by nobody.
func (s *Store) Abandoned(ctx context.Context, before time.Time, limit int) ([]luigi.Started, error) {
	var out []luigi.Started
	limits := &redis.ZRangeBy{Min: "-inf", Max: "(" + strconv.FormatInt(millis(before), 10), Count: openPage}
	for len(out) < limit {
		page, err := s.client.ZRangeByScoreWithScores(ctx, s.openKey(), limits).Result()
		if err != nil {
			return out, unavailable("read key "+s.openKey(), err)
		}
		got, stay, err := s.abandoned(ctx, page, millis(before), limit-len(out))
		out = append(out, got...)
		if err != nil || len(page) < openPage {
			return out, err
		}
		limits.Offset += int64(stay)
	}
	return out, nil
}

// candidate is an entry of the index and what the keys say of it.
type candidate struct {
	task         string // as it stands in keys
	score        string
	worker, sign string // of the execution; no sign if there is none
	last         int64  // sign of life
}

// abandoned judges one page and takes at most limit executions. stay is how many
// entries a further call finds again, since a page of them must not hide the
// rest.
func (s *Store) abandoned(ctx context.Context, page []redis.Z, before int64, limit int) (taken []luigi.Started, stay int, err error) {
	candidates, damage, err := s.look(ctx, page)
	if err != nil {
		return nil, 0, err
	}
	var claims, raises, closes []step
	var claimed []candidate
	for _, c := range candidates {
		switch {
		case c.sign == "":
			closes = append(closes, s.openStep(c.task, c.score))
		case c.last >= before:
			raises = append(raises, s.openStep(c.task, c.last))
		case len(claims) < limit:
			claims = append(claims, s.taskStep(c.task, c.worker, c.sign))
			claimed = append(claimed, c)
		}
	}
	replies, err := s.runAll(ctx, claimTask, claims)
	err = errors.Join(damage, unavailable("claim abandoned executions", err))
	for i, reply := range replies {
		text, replyErr := reply.Text()
		if replyErr != nil {
			continue // not the same any more, or part of err
		}
		closes = append(closes, s.openStep(claimed[i].task, claimed[i].score))
		started, damage := s.started(claimed[i].task, text)
		if damage != nil {
			err = errors.Join(err, damage)
			continue
		}
		taken = append(taken, *started)
	}
	// What fails from here on leaves entries to be looked at again.
	raised, raiseErr := s.runAll(ctx, raiseTask, raises)
	closed, closeErr := s.runAll(ctx, closeTask, closes)
	stay = len(page)
	for _, reply := range raised {
		if score, err := reply.Int64(); err == nil && score >= before {
			stay--
		}
	}
	for _, reply := range closed {
		if n, err := reply.Int(); err == nil && n == 1 {
			stay--
		}
	}
	return taken, stay, errors.Join(err, unavailable("tidy key "+s.openKey(), errors.Join(raiseErr, closeErr)))
}

func (s *Store) openStep(bound string, score any) step {
	return step{s.openKey(), []any{bound, score}}
}

// look reads what the keys of tasks and then those of their workers say. damage
// is of single candidates, which are left out.
func (s *Store) look(ctx context.Context, page []redis.Z) (found []candidate, damage, err error) {
	tasks, err := s.readAll(ctx, len(page), func(i int) string { return s.taskKey(member(page[i])) }, "worker", "sign")
	if err != nil {
		return nil, nil, err
	}
	workers, err := s.readAll(ctx, len(page), func(i int) string { return s.workerKey(tasks[i]["worker"]) }, "seen", "heard")
	if err != nil {
		return nil, nil, err
	}
	for i, z := range page {
		c := candidate{
			task: member(z), score: strconv.FormatFloat(z.Score, 'f', -1, 64),
			worker: tasks[i]["worker"], sign: tasks[i]["sign"],
		}
		execution, worker := fields{row: tasks[i]}, fields{row: workers[i]}
		c.last = max(execution.number("sign"), worker.number("seen"), worker.number("heard"))
		if execution.err != nil {
			damage = errors.Join(damage, damaged(s.taskKey(c.task), execution.err))
			continue
		}
		if worker.err != nil {
			damage = errors.Join(damage, damaged(s.workerKey(c.worker), worker.err))
			continue
		}
		found = append(found, c)
	}
	return found, damage, nil
}

func member(z redis.Z) string {
	m, _ := z.Member.(string)
	return m
}

// readAll reads fields of n hashes in one round trip.
func (s *Store) readAll(ctx context.Context, n int, key func(i int) string, names ...string) ([]map[string]string, error) {
	cmds, rows := make([]*redis.SliceCmd, n), make([]map[string]string, n)
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range cmds {
			cmds[i] = p.HMGet(ctx, key(i), names...)
		}
		return nil
	})
	if err != nil {
		return nil, unavailable("look at executions under way", err)
	}
	for i, cmd := range cmds {
		rows[i] = make(map[string]string, len(names))
		for j, value := range cmd.Val() {
			rows[i][names[j]], _ = value.(string)
		}
	}
	return rows, nil
}
