package redisstore

import "github.com/redis/go-redis/v9"

// scripts are what must happen as one step on the server. They use string
// comparison and whole numbers below 2^53 only, which Lua's doubles keep exact.

// createStore makes the row of the store unless there is one, and returns it.
//
//	KEYS  store
//	ARGV  id, schema, created_at
var createStore = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'id', ARGV[1], 'schema', ARGV[2], 'created_at', ARGV[3])
end
return redis.call('HMGET', KEYS[1], 'id', 'schema')
`)

// writeChange does what rollout.Apply says, and returns a word and the whole
// rollout after it. The field change holds the last change's random number: an
// attempt that a client makes again because the first answer was lost is seen
// to be done already.
//
//	KEYS  rollout, history
//	ARGV  1 channel, 2 team, 3 expect, 4 percent, 5 retire, 6 at, 7 algorithm,
//	      8 change, 9 history length, 10 actor, 11 verified, 12 source, 13 reason,
//	      14 kind, 15 evidence, 16 request, 17 hold, 18 credentials; the last
//	      three '' to leave them
var writeChange = redis.NewScript(`
local row = redis.call('HMGET', KEYS[1], 'revision', 'percent', 'retired', 'change')
local revision, from = tonumber(row[1] or '0'), tonumber(row[2] or '0')
local expect, to = tonumber(ARGV[3]), tonumber(ARGV[4])
if row[4] == ARGV[8] then
  return {'ok', redis.call('HGETALL', KEYS[1])}
end
if expect >= 0 and expect ~= revision then
  return {'conflict', redis.call('HGETALL', KEYS[1])}
end
if row[3] == '1' and to ~= 100 then
  return {'retired', redis.call('HGETALL', KEYS[1])}
end
local next = string.format('%.0f', revision + 1)
local before = string.format('%.0f', from)
local retired = '0'
if row[3] == '1' or ARGV[5] == '1' then retired = '1' end
redis.call('HSET', KEYS[1], 'revision', next, 'percent', ARGV[4], 'retired', retired,
  'updated_at', ARGV[6], 'change', ARGV[8], 'source', ARGV[12])
redis.call('HSETNX', KEYS[1], 'algorithm', ARGV[7])
if ARGV[16] ~= '' then redis.call('HSET', KEYS[1], 'request', ARGV[16]) end
if ARGV[17] ~= '' then redis.call('HSET', KEYS[1], 'hold', ARGV[17]) end
if ARGV[18] ~= '' then
  local ids, known = cjson.decode(redis.call('HGET', KEYS[1], 'credentials') or '[]'), {}
  for _, id in ipairs(ids) do known[id] = true end
  for _, id in ipairs(cjson.decode(ARGV[18])) do
    if not known[id] then
      known[id] = true
      table.insert(ids, id)
    end
  end
  table.sort(ids)
  redis.call('HSET', KEYS[1], 'credentials', cjson.encode(ids))
end
if to > from then
  redis.call('HSET', KEYS[1], 'previous', before, 'raised_at', ARGV[6])
elseif to < from then
  redis.call('HSET', KEYS[1], 'previous', before, 'lowered_at', ARGV[6], 'lowered_revision', next)
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[9], '*', 'revision', next, 'from', before, 'to', ARGV[4],
  'retired', retired, 'actor', ARGV[10], 'verified', ARGV[11], 'source', ARGV[12], 'reason', ARGV[13], 'at', ARGV[6],
  'kind', ARGV[14], 'evidence', ARGV[15])
redis.call('PUBLISH', ARGV[1], next .. ' ' .. ARGV[2])
return {'ok', redis.call('HGETALL', KEYS[1])}
`)

// latchRun does what rollout.Latcher says and returns the latch in force, or
// nothing if there is none. Without a value to latch it only asks. The server's
// clock rules, so that replicas need not agree on the time.
//
//	KEYS  1 latch, 2 the latches that are enforced, 3 those that are not
//	ARGV  1 enforced ('' to ask), 2 revision, 3 at, 4 pipeline, 5 lowered,
//	      6 idle, 7 longest life, both in milliseconds, 8 run, 9 how many are
//	      counted at most, 10 '1' to spare the run
//
// A latch is kept as "1|<enforced>|<revision>|<at>|<pipeline>", where the first
// 1 is the version of this form. The sorted sets hold the runs of latches by the
// time at which those end, so that they can be counted; what has ended is
// trimmed whenever one is added.
var latchRun = redis.NewScript(`
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local e, r, a, p
local current = redis.call('GET', KEYS[1])
if current then
  e, r, a, p = string.match(current, '^1|([01])|(%d+)|(%d+)|(.*)$')
end
local before = e
if ARGV[1] == '' then
  if not e then return false end
elseif not e then
  e, r, a, p = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
elseif e == '1' and tonumber(r) < tonumber(ARGV[5]) then
  if p ~= '' and p ~= ARGV[4] then return current end
  e, r, p = ARGV[1], ARGV[2], ARGV[4]
else
  if ARGV[10] == '1' then e = '0' end
  if p == '' then p = ARGV[4] end
end
local value = '1|' .. e .. '|' .. r .. '|' .. a .. '|' .. p
local ttl = math.min(tonumber(ARGV[6]), tonumber(a) + tonumber(ARGV[7]) - now)
if ttl >= 1 then
  redis.call('SET', KEYS[1], value, 'PX', string.format('%.0f', ttl))
  local mine, other
  if e == '1' then mine, other = KEYS[2], KEYS[3] else mine, other = KEYS[3], KEYS[2] end
  redis.call('ZADD', mine, string.format('%.0f', now + ttl), ARGV[8])
  redis.call('PEXPIRE', mine, ARGV[6])
  if before ~= e then
    redis.call('ZREMRANGEBYSCORE', mine, '-inf', string.format('%.0f', now))
    redis.call('ZREMRANGEBYRANK', mine, 0, -1 - tonumber(ARGV[9]))
    redis.call('ZREM', other, ARGV[8])
  end
end
return value
`)

// countLatches counts the latches of runs that are in flight: they end no sooner than
// in a time that says that they were prolonged of late.
//
//	KEYS  1 the latches that are enforced, 2 those that are not
//	ARGV  that time in milliseconds
var countLatches = redis.NewScript(`
local clock = redis.call('TIME')
local ends = string.format('(%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000) + tonumber(ARGV[1]))
return {redis.call('ZCOUNT', KEYS[1], ends, '+inf'), redis.call('ZCOUNT', KEYS[2], ends, '+inf')}
`)

// restoreStore gives the store an id.
//
//	KEYS  store
//	ARGV  id, schema, created_at
var restoreStore = redis.NewScript(`
redis.call('HSET', KEYS[1], 'id', ARGV[1])
redis.call('HSETNX', KEYS[1], 'schema', ARGV[2])
redis.call('HSETNX', KEYS[1], 'created_at', ARGV[3])
return 1
`)

// restoreState replaces a rollout that is still at the revision that was looked
// at, and returns 0 if it is not.
//
//	KEYS  rollout, history
//	ARGV  1 channel, 2 team, 3 the revision, 4 history length, 5 how many fields
//	      of the rollout follow as name and value; behind them those of the entry
//	      of the history
var restoreState = redis.NewScript(`
if (redis.call('HGET', KEYS[1], 'revision') or '0') ~= ARGV[3] then return 0 end
local last = 5 + 2 * tonumber(ARGV[5])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 6, last))
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', unpack(ARGV, last + 1))
redis.call('PUBLISH', ARGV[1], redis.call('HGET', KEYS[1], 'revision') .. ' ' .. ARGV[2])
return 1
`)
