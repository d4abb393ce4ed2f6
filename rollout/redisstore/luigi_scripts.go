package redisstore

import "github.com/redis/go-redis/v9"

// The scripts about Luigi's tasks and workers. Each touches one key only: what
// they are about lies on different slots of a Redis Cluster. The server's clock
// rules what is forgotten when. Times are whole milliseconds below 2^53.

// luigiClock begins all of them.
const luigiClock = `
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local function number(text)
  return text and #text < 16 and string.match(text, '^%d+$') and tonumber(text)
end
local function digits(n) return string.format('%.0f', n) end
`

// luigiTask begins those about a task. It reads the row and leaves out what has
// ended; each script ends with keep, which says how long the row lives.
//
//	KEYS  task
//	ARGV  1 memory of a family, 2 of an end, 3 longest execution, all in
//	      milliseconds, 4 how many ends are remembered
//
// The field ended holds "<until> <length>:<worker>" for each of them, oldest
// first.
const luigiTask = luigiClock + `
local row = redis.call('HMGET', KEYS[1], 'family', 'worker', 'sign', 'until', 'started', 'ended')
local family, worker, sign, till, started = row[1], row[2], number(row[3]), number(row[4]), row[5]
if worker and not (sign and till and started) then
  return redis.error_reply('DAMAGED an execution needs the fields sign, until and started')
end
local function forget()
  redis.call('HDEL', KEYS[1], 'worker', 'sign', 'until', 'started')
  worker, sign, till, started = false, false, false, false
end
if worker and till <= now then forget() end

local ends, from = {}, 1
while row[6] do
  local _, stop, untl, size = string.find(row[6], '^(%d+) (%d+):', from)
  if not stop then break end
  from = stop + tonumber(size) + 1
  if tonumber(untl) > now then
    ends[#ends + 1] = {name = string.sub(row[6], stop + 1, from - 1), till = tonumber(untl)}
  end
end
local function marked(name)
  for _, e in ipairs(ends) do
    if e.name == name then return true end
  end
  return false
end
local function mark(name)
  local kept, text = {}, {}
  for _, e in ipairs(ends) do
    if e.name ~= name then kept[#kept + 1] = e end
  end
  kept[#kept + 1] = {name = name, till = now + tonumber(ARGV[2])}
  while #kept > tonumber(ARGV[4]) do table.remove(kept, 1) end
  for i, e in ipairs(kept) do
    text[i] = digits(e.till) .. ' ' .. digits(#e.name) .. ':' .. e.name
  end
  ends = kept
  redis.call('HSET', KEYS[1], 'ended', table.concat(text))
end
local function take()
  local taken = started
  mark(worker)
  forget()
  return taken
end
local function register(name)
  if not family and name ~= '' then
    family = name
    redis.call('HSET', KEYS[1], 'family', name)
  end
end
local function keep()
  local ttl = 0
  if family then ttl = tonumber(ARGV[1]) end
  if till then ttl = math.max(ttl, till - now) end
  for _, e in ipairs(ends) do ttl = math.max(ttl, e.till - now) end
  if ttl > 0 then
    redis.call('PEXPIRE', KEYS[1], digits(ttl))
  else
    redis.call('DEL', KEYS[1])
  end
end
`

// readTask returns the family and the execution under way, each ” if there is
// none.
var readTask = redis.NewScript(luigiTask + `
keep()
return {family or '', started or ''}
`)

// registerTask notes the family unless there is one.
//
//	ARGV  5 family
var registerTask = redis.NewScript(luigiTask + `
register(ARGV[5])
keep()
return 1
`)

// startTask notes an execution and returns the one that it takes the place of,
// ” if there is none. A later start on the same worker is a sign of life.
//
//	ARGV  5 family, 6 worker, 7 at, 8 the execution
var startTask = redis.NewScript(luigiTask + `
register(ARGV[5])
local replaced, at = '', tonumber(ARGV[7])
if worker == ARGV[6] then
  if at > sign then redis.call('HSET', KEYS[1], 'sign', ARGV[7]) end
else
  if worker then replaced = take() end
  till = math.min(at, now) + tonumber(ARGV[3])
  redis.call('HSET', KEYS[1], 'worker', ARGV[6], 'sign', ARGV[7], 'until', digits(till), 'started', ARGV[8])
end
keep()
return replaced
`)

// endTask takes the execution by the worker away and returns whether this is
// the first call about it, the execution and its sign, ” if there is none.
//
//	ARGV  5 worker
var endTask = redis.NewScript(luigiTask + `
local first, last, taken = '0', row[3], ''
if worker == ARGV[5] then
  first, taken = '1', take()
elseif not marked(ARGV[5]) then
  first = '1'
  mark(ARGV[5])
end
keep()
return {first, taken, last or ''}
`)

// claimTask takes the execution away if it is still the one that was looked at,
// and returns it, or nothing.
//
//	ARGV  5 worker, 6 sign
var claimTask = redis.NewScript(luigiTask + `
local taken = false
if worker == ARGV[5] and row[3] == ARGV[6] then taken = take() end
keep()
return taken
`)

// tieWorker does what luigi.WorkerStore says of Tie, and returns the owner in
// force.
//
//	KEYS  worker
//	ARGV  1 principal, 2 team, 3 token, 4 seen, 5 life of a tie in milliseconds,
//	      6 when it was last heard of though refused, 0 for not at all
var tieWorker = redis.NewScript(luigiClock + `
local row = redis.call('HMGET', KEYS[1], 'principal', 'team', 'token', 'seen')
local token, seen = ARGV[3], ARGV[4]
if row[1] then
  if row[1] ~= ARGV[1] or not number(row[4]) then return row end
  if row[3] == '1' then token = '1' end
  if number(row[4]) > tonumber(seen) then seen = row[4] end
end
redis.call('HSET', KEYS[1], 'principal', ARGV[1], 'team', ARGV[2], 'token', token, 'seen', seen)
if tonumber(ARGV[6]) > (number(redis.call('HGET', KEYS[1], 'heard')) or 0) then
  redis.call('HSET', KEYS[1], 'heard', ARGV[6])
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {ARGV[1], ARGV[2], token, seen}
`)

// The scripts about the index of executions under way. A score never lies in
// the future of the server's clock, so that a time that some replica got wrong
// hides no execution.
//
//	KEYS  open
//	ARGV  1 task, 2 score

// openTask puts a task into the index.
var openTask = redis.NewScript(luigiClock + `
return redis.call('ZADD', KEYS[1], digits(math.min(tonumber(ARGV[2]), now)), ARGV[1])
`)

// raiseTask moves a task up that is in the index below, and returns its score
// unless it is not in the index.
var raiseTask = redis.NewScript(luigiClock + `
local score, to = redis.call('ZSCORE', KEYS[1], ARGV[1]), math.min(tonumber(ARGV[2]), now)
if not score then return false end
if tonumber(score) >= to then return score end
redis.call('ZADD', KEYS[1], digits(to), ARGV[1])
return digits(to)
`)

// closeTask removes a task that still has the score, and returns how many went
// away. One that started again in the meantime has another.
var closeTask = redis.NewScript(`
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and tonumber(score) == tonumber(ARGV[2]) then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0
`)
