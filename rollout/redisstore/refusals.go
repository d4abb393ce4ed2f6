package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"crossfade/gateway/identity"
	"crossfade/rollout/evidence"
)

// recordRefusals adds to what would have been refused on a team's day. A batch
// that was counted already changes nothing.
//
//	KEYS  refusals of the day
//	ARGV  1 replica, 2 seq, 3 how many kinds there may be, 4 when the key expires;
//	      then for each: field, field without the pipeline, field without the
//	      account, requests, last
//
// A field is "<requests> <last>", last in milliseconds; seq:<replica> is the last
// batch that was counted. Fields without a pipeline may be as many again, and
// those without an account are few.
var recordRefusals = redis.NewScript(`
local seq = 'seq:' .. ARGV[1]
if tonumber(redis.call('HGET', KEYS[1], seq) or '0') >= tonumber(ARGV[2]) then return 0 end
local most, kinds = tonumber(ARGV[3]), redis.call('HLEN', KEYS[1])
for i = 5, #ARGV, 5 do
  local field, was
  for step = 0, 2 do
    field = ARGV[i + step]
    was = redis.call('HGET', KEYS[1], field)
    if was or kinds < (step + 1) * most then break end
  end
  local n, last = ARGV[i + 3], ARGV[i + 4]
  if was then
    local m, l = string.match(was, '^(%d+) (%d+)$')
    if m then
      n = string.format('%.0f', m + n)
      if tonumber(l) > tonumber(last) then last = l end
    end
  else
    kinds = kinds + 1
  end
  redis.call('HSET', KEYS[1], field, n .. ' ' .. last)
end
redis.call('HSET', KEYS[1], seq, ARGV[2])
redis.call('PEXPIREAT', KEYS[1], ARGV[4])
return 1
`)

func (s *Store) refusalsKey(team identity.Team, day evidence.Day) string {
	return s.teamKey(team, "refusals:"+string(day))
}

func (s *Store) recordRefusals(ctx context.Context, b evidence.Batch, team identity.Team, day evidence.Day, refusals map[evidence.Refusal]evidence.Refused) error {
	if len(refusals) == 0 {
		return nil
	}
	args := make([]any, 0, 4+5*len(refusals))
	args = append(args, b.Replica, b.Seq, evidence.MaxRefusals, day.End().Add(evidence.RunRetention).UnixMilli())
	for kind, n := range refusals {
		for _, wider := range kind.Wider() {
			args = append(args, refusalField(wider))
		}
		args = append(args, n.Requests, millis(n.Last))
	}
	err := recordRefusals.Run(ctx, s.client, []string{s.refusalsKey(team, day)}, args...).Err()
	return unavailable("record what would be refused of team "+string(team), err)
}

// refusalField writes a kind so that no account and pipeline can be taken for
// two others.
func refusalField(r evidence.Refusal) string {
	flags := ""
	if r.Roles {
		flags += "r"
	}
	if r.Already {
		flags += "a"
	}
	return "w:" + flags + ":" + string(r.Reason) + ":" + strconv.Itoa(len(r.Account)) + ":" + r.Account + r.Pipeline
}

func parseRefusal(field string) (evidence.Refusal, error) {
	parts := strings.SplitN(field, ":", 4)
	wrong := errors.New("it says neither who would be refused nor why")
	if len(parts) != 4 || parts[0] != "w" || parts[2] == "" {
		return evidence.Refusal{}, wrong
	}
	who, ok := parseFamily(parts[3])
	if !ok {
		return evidence.Refusal{}, wrong
	}
	return evidence.Refusal{
		Account: who.Account, Pipeline: who.Name, Reason: identity.Reason(parts[2]),
		Roles: strings.Contains(parts[1], "r"), Already: strings.Contains(parts[1], "a"),
	}, nil
}

// Refusals implements evidence.Store.
func (s *Store) Refusals(ctx context.Context, team identity.Team, day evidence.Day) (map[evidence.Refusal]evidence.Refused, error) {
	key := s.refusalsKey(team, day)
	rows, err := s.client.HGetAll(ctx, key).Result()
	if err != nil {
		return nil, unavailable("read what would be refused of team "+string(team), err)
	}
	refusals := make(map[evidence.Refusal]evidence.Refused, len(rows))
	for field, text := range rows {
		if strings.HasPrefix(field, "seq:") {
			continue
		}
		kind, err := parseRefusal(field)
		if err == nil {
			refusals[kind], err = parseRefused(text)
		}
		if err != nil {
			return nil, damaged(key, fmt.Errorf("field %q: %w", field, err))
		}
	}
	return refusals, nil
}

func parseRefused(text string) (evidence.Refused, error) {
	n, last, _ := strings.Cut(text, " ")
	f := fields{row: map[string]string{"last": last}}
	requests, err := strconv.ParseInt(n, 10, 64)
	return evidence.Refused{Requests: requests, Last: f.time("last")}, errors.Join(err, f.err)
}
